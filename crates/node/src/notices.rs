//! Tells people out of band what was done in their name at a terminal, through the department's own message service: it knows how each
//! can be reached, this node does not. Each thing is told at least once, with a key by which the service knows a repetition.

use crate::pages::Texts;
use flow::{Flow, NOTICE_MS_MAX, Notice, Vault};
use gateway::Connected;
use model::{Language, Text};
use serde_json::json;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tracing::{info, warn};

/// How long the service may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long is waited after the first failure; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// A service of the department's own: for messages to people, or for changes of what it subscribes to.
pub(crate) struct Service {
    address: String,
    token: Option<String>,
    client: reqwest::Client,
}

impl Service {
    /// The service at an address, with the bearer token it wants.
    pub(crate) fn new(address: &str, token: Option<String>) -> Self {
        gateway::use_tls();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .expect("how TLS is done was chosen");
        Self { address: address.to_owned(), token, client }
    }

    /// Hands JSON of a kind to the service; whether it took it, or will never take it.
    pub(crate) async fn send(&self, kind: &str, id: &str, body: &serde_json::Value) -> Result<bool, String> {
        let request = self.client.post(&self.address).header("idempotency-key", id);
        let request = request.header(reqwest::header::CONTENT_TYPE, kind).json(body);
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        // not the error's own words: they hold the address, which may hold a secret
        let answer = request
            .send()
            .await
            .map_err(|e| if e.is_timeout() { "no answer in time" } else { "no connection" })?;
        match answer.status().as_u16() {
            200..300 => Ok(true),
            // too early, too many: the same again later
            status @ (408 | 425 | 429) => Err(format!("status {status}")),
            400..500 => Ok(false),
            status => Err(format!("status {status}")),
        }
    }
}

/// What is sent: whom it concerns, what happened, and the words to pass on.
fn letter(flow: &Flow<Connected>, notice: &Notice) -> Option<serde_json::Value> {
    let view = flow.case(notice.case)?;
    let number = view.case.value(&format!("{}.id", notice.role))?;
    let at = flow::local_minute(notice.at_ms);
    let says = |language: Language| {
        let values = [
            ("matter", view.package.title.get(language).to_owned()),
            ("at", at.clone()),
            ("case", notice.case.short()),
        ];
        Texts(language).with(&format!("notice-{}", notice.what.code().replace('_', "-")), &values)
    };
    let text = Text { zh: says(Language::Chinese), en: says(Language::English) };
    Some(json!({
        "format": 1,
        "id": notice.id.to_string(),
        "what": notice.what.code(),
        "number": number,
        "case": notice.case.to_string(),
        "at_ms": notice.at_ms,
        "text": { "zh-CN": text.zh, "en": text.en },
    }))
}

/// Tells what comes up, until the node stops. Without a service, what comes up is let go.
pub(crate) async fn keep(flow: Flow<Connected>, vault: Arc<dyn Vault>, service: Option<Service>) {
    let mut waiting: VecDeque<Notice> = VecDeque::new();
    let mut pause = PAUSE_MIN;
    let mut failing = false;
    loop {
        let seen = flow.changes().get();
        let new = flow.take_notices();
        if service.is_some() {
            waiting.extend(new);
        }
        let (Some(service), Some(notice)) = (&service, waiting.front()) else {
            if !flow.changes().reached(seen.saturating_add(1)).await {
                return;
            }
            continue;
        };
        match tell(&flow, vault.as_ref(), service, notice).await {
            Ok(()) => {
                waiting.pop_front();
                if std::mem::take(&mut failing) {
                    info!("the message service takes notices again");
                }
                pause = PAUSE_MIN;
            }
            Err(e) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(error = %e, waiting = waiting.len(), "the message service does not take notices; trying again");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Tells one thing, unless it was told before or is too old by now.
async fn tell(
    flow: &Flow<Connected>,
    vault: &dyn Vault,
    service: &Service,
    notice: &Notice,
) -> Result<(), String> {
    if notice.at_ms + NOTICE_MS_MAX < crate::api::now_ms() {
        warn!(case = %notice.case.short(), "a notice could not be given within three days; it was dropped");
        return Ok(());
    }
    let place = format!("notice/{}", notice.id);
    let kept = |e: flow::VaultError| e.to_string();
    if vault.get(&place).await.map_err(kept)?.is_some() {
        return Ok(());
    }
    // of somebody whose data was erased there is nobody left to tell
    if let Some(letter) = letter(flow, notice) {
        let taken = service.send("application/json", &notice.id.to_string(), &letter).await?;
        if !taken {
            warn!(case = %notice.case.short(), "the message service refused a notice; it was dropped");
        }
    }
    vault.put(&place, b"told").await.map_err(kept)
}
