//! A browser, driven over the W3C WebDriver protocol (https://www.w3.org/TR/webdriver2/) by chromedriver from Debian.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::Child,
    time::{Duration, Instant},
};

/// A program that ends with the test.
pub struct Stopped(pub Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A browser with one window.
pub struct Browser {
    http: reqwest::Client,
    session: String,
    pub base: String,
}

const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

impl Browser {
    pub async fn open(driver: u16, base: String, profile: &Path, accept: &str) -> Result<Self> {
        let http = reqwest::Client::new();
        let flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,1000",
            // a camera that shows a test picture, and nobody who has to allow it
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
        ];
        let mut flags: Vec<_> = flags.iter().map(|f| (*f).to_owned()).collect();
        flags.push(format!("--user-data-dir={}", profile.display()));
        flags.push(format!("--accept-lang={accept}"));
        let wanted =
            json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": { "args": flags } } } });
        let url = format!("http://127.0.0.1:{driver}/session");
        let answer: Value = http.post(&url).json(&wanted).send().await?.json().await?;
        let id = answer["value"]["sessionId"].as_str().with_context(|| answer.to_string())?;
        Ok(Self { http, session: format!("{url}/{id}"), base })
    }

    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let answer: Value =
            self.http.post(format!("{}{path}", self.session)).json(&body).send().await?.json().await?;
        if answer["value"]["error"].is_string() {
            bail!("{path}: {}", answer["value"]["message"]);
        }
        Ok(answer["value"].clone())
    }

    /// Runs a script whose value is wanted; a promise is waited for.
    pub async fn script(&self, script: &str) -> Result<Value> {
        self.post("/execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Types text where the focus is, as a keyboard or a scanner does.
    pub async fn keys(&self, text: &str) -> Result<()> {
        let actions: Vec<_> = text
            .chars()
            .flat_map(|key| {
                [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
            })
            .collect();
        self.post("/actions", json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] }))
            .await
            .map(drop)
    }

    /// Waits until a script says so.
    pub async fn until(&self, script: &str) -> Result<()> {
        let begun = Instant::now();
        while self.script(script).await.ok() != Some(Value::Bool(true)) {
            if begun.elapsed() > Duration::from_secs(60) {
                bail!("`{script}` did not come true on: {}", self.body().await.unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Tells the browser itself something, over its developer tools' protocol.
    pub async fn tools(&self, command: &str, parameters: Value) -> Result<Value> {
        self.post("/goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    pub async fn get(&self, path: &str) -> Result<String> {
        let answer: Value = self.http.get(format!("{}{path}", self.session)).send().await?.json().await?;
        Ok(answer["value"].as_str().unwrap_or_default().to_owned())
    }

    pub async fn go(&self, path: &str) -> Result<()> {
        self.post("/url", json!({ "url": format!("{}{path}", self.base) })).await.map(drop)
    }

    pub async fn find(&self, xpath: &str) -> Result<String> {
        let begun = Instant::now();
        loop {
            match self.post("/element", json!({ "using": "xpath", "value": xpath })).await {
                Ok(found) => return Ok(found[ELEMENT].as_str().unwrap_or_default().to_owned()),
                Err(e) if begun.elapsed() > Duration::from_secs(60) => {
                    let text = self.body().await.unwrap_or_default();
                    return Err(e.context(format!("looking for {xpath} on: {text}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    pub async fn click(&self, xpath: &str) -> Result<()> {
        // the page's live part may be swapped between finding and clicking
        for _ in 0..5 {
            let element = self.find(xpath).await?;
            if self.post(&format!("/element/{element}/click"), json!({})).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("{xpath} cannot be clicked")
    }

    /// Clicks what leads to another page, and waits until that is there: whatever is opened next must not be overtaken by it.
    pub async fn submit(&self, xpath: &str) -> Result<()> {
        self.script("window.thisPage = true").await?;
        self.click(xpath).await?;
        self.until("return window.thisPage === undefined && document.readyState === 'complete'").await
    }

    pub async fn body(&self) -> Result<String> {
        let found = self.post("/element", json!({ "using": "css selector", "value": "main" })).await?;
        self.get(&format!("/element/{}/text", found[ELEMENT].as_str().unwrap_or_default())).await
    }

    pub async fn see(&self, text: &str) -> Result<()> {
        self.find(&format!("//main[contains(., '{text}')]")).await.map(drop)
    }

    /// Signs in as the one at this position of those who have a matter in mind.
    pub async fn enter_for(&self, matter: &str, position: usize) -> Result<()> {
        self.go("/?lang=zh-CN").await?;
        self.see("今天要办什么").await?;
        let leave = json!({ "using": "xpath", "value": "//form[@action='/leave']/button" });
        if self.post("/element", leave).await.is_ok() {
            self.submit("//form[@action='/leave']/button").await?;
            self.see("请先选择身份").await?;
        }
        let section = format!("//section[h2[contains(., '{matter}')]]");
        self.submit(&format!("{section}//li[{}]//button", position + 1)).await?;
        // the next navigation must not overtake this one
        self.see("下列内容已为您填好").await
    }

    pub async fn enter(&self, position: usize) -> Result<()> {
        self.enter_for("房屋转移登记", position).await
    }

    pub async fn fill(&self, field: &str, text: &str) -> Result<()> {
        let input = self.find(&format!("//input[@name='{field}']")).await?;
        self.post(&format!("/element/{input}/value"), json!({ "text": text })).await.map(drop)
    }

    /// The visitor's newest case.
    pub async fn my_case(&self) -> Result<()> {
        self.go("/mine").await?;
        let case = "//main//p/a[starts-with(@href, '/case/')]";
        self.click(case).await
    }
}
