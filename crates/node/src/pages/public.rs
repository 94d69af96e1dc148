//! The public pages: the ledger's records, told by what departments did, and the check of a receipt.

use super::{local_time, visit::Visit};
use crate::records::kind_of;
use askama::Template;
use axum::{
    body::Bytes,
    extract::{Multipart, Path},
    http::StatusCode,
    response::Response,
};
use model::*;

struct RecordRow {
    id: String,
    height: u64,
    when: String,
    signer: String,
    kind: String,
    short: String,
    class: &'static str,
    outcome: String,
}

fn record_row(visit: &Visit, event: &Event) -> RecordRow {
    let t = &visit.t;
    let (class, outcome) = match &event.outcome {
        Outcome::Accepted(_) => ("accepted", t.get("explorer-accepted")),
        Outcome::Refused(refusal) => {
            let key = format!("refusal-{}", refusal.code());
            ("refused", format!("{} – {}", t.get("explorer-refused"), t.or(&key, "refusal-other")))
        }
    };
    let command = &event.command.command;
    RecordRow {
        id: event.id.to_string(),
        height: event.height,
        when: local_time(event.time_ms),
        signer: visit.department(command.signer.as_str()),
        kind: t.get(&format!("event-{}", kind_of(&command.body))),
        short: event.id.short(),
        class,
        outcome,
    }
}

#[derive(Template)]
#[template(path = "explorer.html")]
struct ExplorerPage<'a> {
    v: &'a Visit,
    at: &'static str,
    height: u64,
    departments: usize,
    validators: usize,
    rows: Vec<RecordRow>,
}

pub(super) async fn explorer(visit: Visit) -> Response {
    let chain = visit.served.flow.chain();
    let mut newest = visit.served.newest.lock().await;
    let rows = newest.now(chain).await.iter().map(|e| record_row(&visit, e)).collect();
    drop(newest);
    let (_, roster) = chain.roster();
    visit.show(&ExplorerPage {
        v: &visit,
        at: "explorer",
        height: chain.height(),
        departments: roster.members.len(),
        validators: roster.validators().len(),
        rows,
    })
}

#[derive(Template)]
#[template(path = "block.html")]
struct BlockPage<'a> {
    v: &'a Visit,
    at: &'static str,
    height: u64,
    newest: bool,
    when: String,
    hash: String,
    rows: Vec<RecordRow>,
}

pub(super) async fn block(visit: Visit, Path(height): Path<String>) -> Response {
    let chain = visit.served.flow.chain();
    let height = height.parse().ok().filter(|h| (1..=chain.height()).contains(h));
    let Some(height) = height else { return visit.error(StatusCode::NOT_FOUND, "error-unknown") };
    let Ok(block) = chain.block_events(height).await else {
        return visit.error(StatusCode::SERVICE_UNAVAILABLE, "error-other");
    };
    visit.show(&BlockPage {
        v: &visit,
        at: "explorer",
        height,
        newest: height == chain.height(),
        when: flow::local_minute(block.time_ms),
        hash: block.hash.to_string(),
        rows: block.events.iter().map(|e| record_row(&visit, e)).collect(),
    })
}

#[derive(Template)]
#[template(path = "record.html")]
struct RecordPage<'a> {
    v: &'a Visit,
    at: &'static str,
    row: RecordRow,
    minute: String,
    position: u32,
    bytes: usize,
    number: String,
    about: String,
}

pub(super) async fn record(visit: Visit, Path(id): Path<String>) -> Response {
    let chain = visit.served.flow.chain();
    let Ok(id) = id.parse::<CommandId>() else { return visit.error(StatusCode::NOT_FOUND, "error-unknown") };
    let event = match chain.event(id).await {
        Ok(event) => event,
        Err(chain::ChainError::Unknown) => return visit.error(StatusCode::NOT_FOUND, "error-unknown"),
        Err(_) => return visit.error(StatusCode::SERVICE_UNAVAILABLE, "error-other"),
    };
    let number = match &event.outcome {
        Outcome::Accepted(Fact::Granted(n, _) | Fact::Answered(n)) => n.to_string(),
        _ => String::new(),
    };
    // only what a department published about itself; nothing leads from here to a case
    let about = match &event.command.command.body {
        Body::PublishResource(r) => visit.t.pick(&r.title).to_owned(),
        Body::PublishMatter(m) => visit.t.pick(&m.title).to_owned(),
        Body::ApproveBasis(a) => a.citation.clone(),
        Body::RegisterProject(p) => visit.t.pick(&p.title).to_owned(),
        Body::RequestShare(r) => format!("{} – {}", visit.t.pick(&r.purpose), r.citation),
        Body::DisputeShare(DisputeShare { note, .. })
        | Body::RuleShare(RuleShare { note, .. })
        | Body::RevokeBasis(RevokeBasis { note, .. })
        | Body::ReplyShare(ReplyShare { reply: ShareReply::Refuse { note, .. }, .. })
        | Body::EndProject(EndProject { note, .. })
        | Body::ExplainAlert(ExplainAlert { note, .. }) => note.clone(),
        Body::Propose(p) => change_text(&visit, &p.change),
        Body::Approve(a) => {
            match chain.event(CommandId(a.proposal.0)).await.map(|e| e.command.command.body) {
                Ok(Body::Propose(p)) => change_text(&visit, &p.change),
                _ => String::new(),
            }
        }
        _ => String::new(),
    };
    visit.show(&RecordPage {
        v: &visit,
        at: "explorer",
        minute: flow::local_minute(event.time_ms),
        position: event.index + 1,
        bytes: model::encode(&event.command).len(),
        number,
        about,
        row: record_row(&visit, &event),
    })
}

/// A change of the consortium, as people say it.
fn change_text(visit: &Visit, change: &Change) -> String {
    let t = &visit.t;
    match change {
        Change::Put(member, _) => format!("{} {}", t.get("change-put"), t.pick(&member.title)),
        Change::Remove(id) => format!("{} {}", t.get("change-remove"), visit.department(id.as_str())),
        Change::SetApprovals(n) => format!("{} {n}", t.get("change-approvals")),
        Change::SetProtocol(n) => format!("{} {n}", t.get("change-protocol")),
        Change::SetSharing(_) => t.get("change-sharing"),
    }
}

#[derive(Template)]
#[template(path = "verify.html")]
struct VerifyPage<'a> {
    v: &'a Visit,
    at: &'static str,
    genesis: String,
    result: String,
    result_class: &'static str,
    facts: Vec<(String, String)>,
}

async fn verify(visit: &Visit, file: Option<Bytes>) -> Response {
    let genesis = visit.served.flow.chain().rules().genesis.clone();
    let checked = match file {
        None => None,
        Some(file) => {
            let genesis = genesis.clone();
            let place = visit.served.verifying.clone().acquire_owned().await;
            // many signatures: off the threads that serve others; the place is held also where nobody waits for it any more
            let verified = tokio::task::spawn_blocking(move || {
                let _place = place;
                proof::verify(&file, &genesis)
            });
            verified.await.ok()
        }
    };
    let (result, result_class, facts) = match checked {
        None => (String::new(), "", vec![]),
        Some(Err(e)) => (format!("{}: {e}", visit.t.get("verify-invalid")), "invalid", vec![]),
        Some(Ok(facts)) => {
            let value = serde_json::to_value(&facts).unwrap_or_default();
            let pairs = value.as_object().cloned().unwrap_or_default().into_iter();
            let text = |v: serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            (visit.t.get("verify-valid"), "valid", pairs.map(|(k, v)| (k, text(v))).collect())
        }
    };
    // `<` is escaped so that no name in the genesis can end the script element
    let genesis = serde_json::to_string(&*genesis).unwrap_or_default().replace('<', "\\u003c");
    visit.show(&VerifyPage { v: visit, at: "verify", genesis, result, result_class, facts })
}

pub(super) async fn verify_page(visit: Visit) -> Response {
    verify(&visit, None).await
}

pub(super) async fn verify_file(visit: Visit, mut form: Multipart) -> Response {
    let file = match form.next_field().await {
        Ok(Some(field)) => field.bytes().await.ok(),
        _ => None,
    };
    verify(&visit, Some(file.unwrap_or_default())).await
}
