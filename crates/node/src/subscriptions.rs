//! Subscriptions as a department's own systems see them: a list, the changes of each as CloudEvents to be fetched from any number on,
//! and a service of the department's that each is handed to.

use crate::{
    api::{Problem, Shared, parse},
    notices::Service,
};
use axum::{
    Json,
    extract::{Path, Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use flow::{Flow, Subscription, Vault};
use gateway::Connected;
use model::{Day, Reply, SubscriptionId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tracing::{info, warn};
use utoipa::{IntoParams, ToSchema};

/// The most changes in one answer.
const LIMIT_MAX: usize = 1000;
/// A single event, and a list of them (CloudEvents 1.0.2, JSON format).
const EVENT: &str = "application/cloudevents+json";
const EVENTS: &str = "application/cloudevents-batch+json";
/// How long is waited after the first failure of the service; it doubles up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// A subscription of this department's.
#[derive(Serialize, ToSchema)]
pub(crate) struct SubscriptionBody {
    /// The subscription.
    id: String,
    /// The case it began in.
    case: String,
    /// The call step.
    step: String,
    /// Who tells.
    holder: String,
    /// Out of which resource.
    resource: String,
    /// Since when, in milliseconds since 1970.
    since_ms: u64,
    /// Until when.
    until_ms: u64,
    /// How many changes the holder noted.
    changes: u32,
    /// How many of them came here.
    delivered: usize,
    /// Where it stands: `active`, `ended`, `expired` (also with its case), or `withdrawn` with the consent it rests on.
    standing: String,
}

/// Which changes.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct After {
    /// Only those after this number; 0: from the first on.
    #[serde(default)]
    after: usize,
    /// At most so many; 1000 at most.
    limit: Option<usize>,
}

type SubscriptionChange = (SubscriptionId, usize);

/// A change that came here, as its CloudEvent.
struct Change {
    id: String,
    event: Value,
}

/// Where a subscription stands.
pub(crate) fn standing(flow: &Flow<Connected>, subscription: &Subscription) -> &'static str {
    let now = crate::api::now_ms();
    let withdrawn = || {
        let view = flow.case(subscription.case)?;
        let consent = view.case.calls.get(&subscription.step)?.consent?;
        view.case.consents.values().find(|c| c.0.0 == consent.0)?.2
    };
    match subscription.ended_ms {
        Some(_) => "ended",
        None if withdrawn().is_some() => "withdrawn",
        None if subscription.until_ms < now => "expired",
        None if !subscription.after_end && flow.case(subscription.case).is_none_or(|v| v.case.is_over()) => {
            "expired"
        }
        None => "active",
    }
}

/// The changes of a subscription that came here, in order. What is still on its way ends the list: nothing overtakes it.
fn changes(flow: &Flow<Connected>, subscription: &Subscription) -> Vec<Change> {
    let Some(view) = flow.case(subscription.case) else { return Vec::new() };
    let Some(step) = view.package.step(&subscription.step) else { return Vec::new() };
    let last = subscription.ended_ms.unwrap_or(subscription.until_ms);
    let mut before = view.case.values.get(step.id.as_str()).cloned().unwrap_or_default();
    let mut all = Vec::new();
    let of = view.case.deliveries.iter().filter(|d| d.step == step.id);
    for delivery in of.filter(|d| (subscription.since_ms..=last).contains(&d.asked_ms)) {
        let number = all.len() + 1;
        let mut data = json!({
            "subscription": subscription.id, "case": subscription.case, "step": step.id, "number": number,
            "receipt": format!("/api/v1/cases/{}/receipts/{}", subscription.case,
                flow::receipt_name("call", &step.id, delivery.call.attempt)),
        });
        let (kind, at_ms) = match (&delivery.values, &delivery.call.answer) {
            (Some(values), Some((_, Reply::Data { as_of_ms, .. }))) => {
                let changed: Vec<_> =
                    values.iter().filter(|(n, v)| before.get(*n) != Some(v)).map(|(n, _)| n).collect();
                data["fields"] = json!(values);
                data["changed"] = json!(changed);
                before = values.clone();
                ("cn.tongban.data.changed", *as_of_ms)
            }
            (_, Some((_, Reply::Declined(code)))) => {
                data["declined"] = json!(code);
                ("cn.tongban.data.declined", delivery.call.answered_ms.unwrap_or(delivery.asked_ms))
            }
            _ => break,
        };
        let (holder, resource) = (step.holder.as_ref(), step.resource.as_ref());
        let source = holder.zip(resource).map(|(h, r)| format!("/departments/{h}/resources/{r}"));
        let event = json!({
            "specversion": "1.0",
            "id": delivery.call.id,
            "source": source,
            "type": kind,
            "subject": format!("{}/{}", subscription.case, step.id),
            "time": rfc3339(at_ms),
            "datacontenttype": "application/json",
            "sequence": format!("{number:08}"),
            "data": data,
        });
        all.push(Change { id: delivery.call.id.to_string(), event });
    }
    all
}

/// A time as RFC 3339 has it, in China's.
fn rfc3339(ms: u64) -> String {
    let day = Day::of(ms);
    let rest = ms.saturating_sub(day.begins_ms());
    let (hours, minutes, seconds) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    format!("{day}T{hours:02}:{minutes:02}:{seconds:02}.{:03}+08:00", rest % 1000)
}

#[utoipa::path(get, path = "/api/v1/subscriptions", responses((status = 200, body = Vec<SubscriptionBody>)))]
pub(crate) async fn list(State(served): Shared) -> Json<Vec<SubscriptionBody>> {
    let flow = &served.flow;
    let bodies = flow.subscriptions().into_iter().map(|s| {
        let view = flow.case(s.case);
        let step = view.as_ref().and_then(|v| v.package.step(&s.step));
        let text = |name: Option<String>| name.unwrap_or_default();
        SubscriptionBody {
            id: s.id.to_string(),
            case: s.case.to_string(),
            step: s.step.to_string(),
            holder: text(step.and_then(|s| s.holder.as_ref()).map(ToString::to_string)),
            resource: text(step.and_then(|s| s.resource.as_ref()).map(ToString::to_string)),
            since_ms: s.since_ms,
            until_ms: s.until_ms,
            changes: s.changes,
            delivered: changes(flow, &s).len(),
            standing: standing(flow, &s).into(),
        }
    });
    Json(bodies.collect())
}

#[utoipa::path(get, path = "/api/v1/subscriptions/{id}/events", params(("id" = String, Path), After),
    responses((status = 200, content_type = "application/cloudevents-batch+json", body = Vec<Object>),
        (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn events(
    State(served): Shared,
    Path(id): Path<String>,
    Query(after): Query<After>,
) -> Result<Response, Problem> {
    let id: SubscriptionId = parse(&id)?;
    let found = served.flow.subscriptions().into_iter().find(|s| s.id == id);
    let found = found.ok_or_else(|| {
        let what = "there is no such subscription of this department";
        Problem::new(axum::http::StatusCode::NOT_FOUND, "not_found", what)
    })?;
    let limit = after.limit.unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
    let events: Vec<_> =
        changes(&served.flow, &found).into_iter().skip(after.after).take(limit).map(|c| c.event).collect();
    let headers = [(header::CONTENT_TYPE, EVENTS), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Json(events).into_response().into_body()).into_response())
}

/// Hands every change to the department's own service, each subscription's in order and each at least once, until the node stops.
pub(crate) async fn hand_on(flow: Flow<Connected>, vault: Arc<dyn Vault>, service: Service) {
    let (mut pause, mut failing, mut handed) = (PAUSE.0, false, HashSet::new());
    loop {
        let seen = flow.changes().get();
        match hand_all(&flow, vault.as_ref(), &service, &mut handed).await {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    info!("the service for changes takes them again");
                }
                pause = PAUSE.0;
                if !flow.changes().reached(seen.saturating_add(1)).await {
                    return;
                }
            }
            Err(e) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(error = %e, "the service for changes does not take them; trying again");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

/// Hands on what was not. One subscription that cannot go on does not hold up the others.
async fn hand_all(
    flow: &Flow<Connected>,
    vault: &dyn Vault,
    service: &Service,
    handed: &mut HashSet<SubscriptionChange>,
) -> Result<(), String> {
    let mut failed = None;
    for subscription in flow.subscriptions().into_iter().filter(|s| s.changes > 0) {
        for (number, change) in changes(flow, &subscription).into_iter().enumerate() {
            if handed.contains(&(subscription.id, number)) {
                continue;
            }
            if let Err(e) = hand(vault, service, &change).await {
                failed = Some(e);
                break;
            }
            handed.insert((subscription.id, number));
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn hand(vault: &dyn Vault, service: &Service, change: &Change) -> Result<(), String> {
    let place = format!("handed/{}", change.id);
    let kept = |e: flow::VaultError| e.to_string();
    if vault.get(&place).await.map_err(kept)?.is_some() {
        return Ok(());
    }
    if !service.send(EVENT, &change.id, &change.event).await? {
        // in order means in order: what it will not take is for a person to look at, and waits
        return Err("it was refused".into());
    }
    vault.put(&place, b"handed").await.map_err(kept)
}
