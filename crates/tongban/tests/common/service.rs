//! A service of a department's own that nodes hand things to, as unreliable as one is.

use anyhow::Result;
use serde_json::Value;
use std::time::{Duration, Instant};

/// A service of a department's: out of order for the first two letters, and then keeps what it is told, once each.
pub struct Service {
    at: std::net::SocketAddr,
    told: std::sync::Arc<std::sync::Mutex<Vec<Value>>>,
}

impl Service {
    pub async fn start() -> Result<Self> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let told = std::sync::Arc::<std::sync::Mutex<Vec<Value>>>::default();
        let kept = told.clone();
        tokio::spawn(async move {
            let mut letters = 0;
            while let Ok((mut socket, _)) = listener.accept().await {
                // one letter a connection
                let mut text = Vec::new();
                let (head, body) = loop {
                    let mut part = [0; 4096];
                    let Ok(n @ 1..) = socket.read(&mut part).await else { break (String::new(), Vec::new()) };
                    text.extend_from_slice(&part[..n]);
                    let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
                    let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
                    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
                    if text.len() >= end + 4 + length.unwrap_or(0) {
                        break (head, text[end + 4..].to_vec());
                    }
                };
                letters += 1;
                let answer = if letters <= 2 { "503 Service Unavailable" } else { "204 No Content" };
                let letter: Value = serde_json::from_slice(&body).unwrap_or_default();
                let named =
                    letter["id"].as_str().is_some_and(|id| head.contains(&format!("idempotency-key: {id}")));
                if letters > 2 && named && head.contains("authorization: bearer let-me-in") {
                    let mut kept = kept.lock().unwrap();
                    if kept.iter().all(|n: &Value| n["id"] != letter["id"]) {
                        kept.push(letter);
                    }
                }
                let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Ok(Self { at: address, told })
    }

    pub fn address(&self) -> String {
        format!("http://{}/letters", self.at)
    }

    pub fn told(&self) -> Vec<Value> {
        self.told.lock().unwrap().clone()
    }

    pub async fn until(&self, holds: impl Fn(&[Value]) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !holds(&self.told()) {
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(60), "not told: {:?}", self.told());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}
