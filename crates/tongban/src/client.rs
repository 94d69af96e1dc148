//! A client of a node's API: what terminals, portals and scripts use.

use anyhow::{Context as _, Result, anyhow};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A client of one node.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

/// An error the node answered with.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refused {
    /// The stable code.
    pub code: String,
    /// What happened.
    pub detail: String,
}

impl Client {
    /// A client of the node at an address.
    pub fn new(address: SocketAddr, token: &str) -> Self {
        gateway::use_tls();
        // connections are given up before the node does it (30 s), so that no request meets one that closes
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(std::time::Duration::from_secs(20));
        Self {
            http: http.build().expect("how TLS is done was chosen"),
            base: format!("http://{address}"),
            token: token.to_owned(),
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>> {
        let response = request.bearer_auth(&self.token).send().await.with_context(|| {
            format!("the node at {} cannot be reached; does it run? (tongban node --config …)", self.base)
        })?;
        let status = response.status();
        let body = response.bytes().await?;
        if !status.is_success() {
            let problem: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let text = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
            return Err(anyhow!(Refused { code: text("code"), detail: text("detail") }));
        }
        Ok(body.to_vec())
    }

    /// Reads bytes.
    pub async fn get_bytes(&self, path: &str) -> Result<Vec<u8>> {
        self.send(self.http.get(format!("{}{path}", self.base))).await
    }

    /// Reads JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        Ok(serde_json::from_slice(&self.get_bytes(path).await?)?)
    }

    /// Posts JSON and reads JSON (null where the answer is empty).
    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let answer = self.send(self.http.post(format!("{}{path}", self.base)).json(&body)).await?;
        if answer.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&answer)?) }
    }

    /// Posts JSON and reads bytes.
    pub async fn post_for_bytes(&self, path: &str, body: Value) -> Result<Vec<u8>> {
        self.send(self.http.post(format!("{}{path}", self.base)).json(&body)).await
    }

    /// Deletes what stands at a path.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.send(self.http.delete(format!("{}{path}", self.base))).await.map(drop)
    }

    /// Submits a binary batch of signed commands; nine bytes come back for each.
    pub async fn commands(&self, batch: Vec<u8>) -> Result<Vec<u8>> {
        self.send(self.http.post(format!("{}/api/v1/commands", self.base)).body(batch)).await
    }

    /// Opens a case of a sale.
    pub async fn open_case(&self, matter: &str, form: Value, parties: Value) -> Result<String> {
        let body = json!({ "matter": matter, "form": form, "parties": parties });
        let opened = self.post("/api/v1/cases", body).await?;
        Ok(opened["id"].as_str().context("no case ID came back")?.to_owned())
    }
}
