//! The part of the API about cases: opened, looked at, signed, decided by people, and their receipts.

use crate::api::{JsonBody, Problem, Shared, bad, canonical, now_ms, parse, signature};
use axum::{
    Json,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use flow::{CaseError, NewCase};
use model::*;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use utoipa::ToSchema;

/// A step of a case.
#[derive(Serialize, ToSchema)]
pub struct StepView {
    /// The step.
    pub step: String,
    /// The department that acts.
    pub department: String,
    /// `identify`, `sign`, `call`, `decide` or `act`.
    pub kind: String,
    /// `not_started`, `waiting`, `done`, `failed`, or `skipped` where it is not taken in this case.
    pub status: String,
    /// The party concerned; empty where it concerns none.
    pub party: String,
    /// Whether a person can do it now: be identified, or sign.
    pub ready: bool,
    /// Why it failed, where it did.
    pub code: String,
    /// How long it took, or has been waiting, in milliseconds.
    pub ms: u64,
    /// Until when its department has time, where it is asked and has not answered, in milliseconds since 1970.
    pub due_ms: Option<u64>,
    /// What it waits for before it begins, where it is asked by lists: `list_gathers` (for other cases, or `waits_until_ms`),
    /// `list_proposed` (for its holder's word) or `list_agreed`; else empty.
    pub waits: String,
    /// Until when it waits for other cases at most, in milliseconds since 1970.
    pub waits_until_ms: Option<u64>,
}

/// A party of a case.
#[derive(Serialize, ToSchema)]
pub struct PartyView {
    /// The role.
    pub role: String,
    /// The commitment to the party's identifier.
    pub subject: String,
    /// Whether they were identified.
    pub identified: bool,
    /// The consent in force, where there is one.
    pub consent: Option<String>,
}

/// A case without personal data.
#[derive(Serialize, ToSchema)]
pub struct CaseBody {
    /// The case.
    pub id: String,
    /// The matter.
    pub matter: String,
    /// The version it runs.
    pub version: u32,
    /// `open`, `blocked`, or one of the contract's outcomes.
    pub outcome: String,
    /// Why, where it is settled.
    pub reason: String,
    /// The department it waits for, where it is blocked.
    pub waits_for: String,
    /// The step of an adverse decision that waits for a person's confirmation.
    pub unconfirmed: Option<String>,
    /// The parties.
    pub parties: Vec<PartyView>,
    /// The steps in order.
    pub steps: Vec<StepView>,
    /// How many calls were asked.
    pub calls: usize,
    /// How many actions were requested.
    pub actions: usize,
    /// From opening to the last change, in milliseconds.
    pub elapsed_ms: u64,
    /// How many changes of cases this node had seen: for `next`.
    pub change: u64,
    /// When what was held of its people was erased, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased_ms: Option<u64>,
}

pub(crate) fn case_body(view: &flow::CaseView, now_ms: u64) -> CaseBody {
    use flow::case::StepState;
    let case = &view.case;
    let mut waits_for = String::new();
    let standing = case.standing(&view.package);
    let steps = view.package.steps.iter().map(|step| {
        let department = step.holder.as_ref().or(step.performer.as_ref()).unwrap_or(&view.package.handler);
        let began = case.began.get(&step.id).copied();
        let state = &standing[&step.id];
        let wait = view.waits.get(&step.id);
        if waits_for.is_empty() && matches!(wait, Some(flow::ListWait::Proposed(_))) {
            waits_for = department.to_string();
        }
        let (waits, waits_until_ms) = match wait {
            None => ("", None),
            Some(flow::ListWait::Gathers(until_ms)) => ("list_gathers", Some(*until_ms)),
            Some(flow::ListWait::Proposed(_)) => ("list_proposed", None),
            Some(flow::ListWait::Agreed(_)) => ("list_agreed", None),
        };
        let (code, until) = match state {
            StepState::NotStarted | StepState::Skipped => (String::new(), None),
            StepState::Waiting(_) => {
                if waits_for.is_empty() && began.is_some_and(|b| now_ms > b + 2_000) {
                    waits_for = department.to_string();
                }
                (String::new(), Some(now_ms))
            }
            StepState::Done(at) => (String::new(), Some(*at)),
            StepState::Failed(at, code) => (code.clone(), Some(*at)),
        };
        let person = matches!(step.kind, flow::StepKind::Identify | flow::StepKind::Sign);
        StepView {
            step: step.id.to_string(),
            department: department.to_string(),
            kind: step.kind.as_str().into(),
            status: flow::simulate::status(state).into(),
            party: step.party.as_ref().map(ToString::to_string).unwrap_or_default(),
            ready: person && case.settled.is_none() && flow::case::is_due(step, &standing),
            code,
            ms: until.zip(began).map_or(0, |(a, b)| a.saturating_sub(b)),
            due_ms: matches!(state, StepState::Waiting(_)).then(|| case.due_ms(&step.id)).flatten(),
            waits: waits.into(),
            waits_until_ms,
        }
    });
    let steps = steps.collect();
    let outcome = match (&case.settled, waits_for.is_empty()) {
        (Some(settled), _) => settled.outcome.as_str(),
        (None, false) => CaseOutcome::Blocked.as_str(),
        (None, true) => "open",
    };
    let parties = case.parties.iter().map(|p| PartyView {
        role: p.role.to_string(),
        subject: p.subject.to_string(),
        identified: case.identified.contains_key(&p.role),
        consent: case.consents.get(&p.role).filter(|c| c.2.is_none()).map(|c| c.0.to_string()),
    });
    CaseBody {
        id: case.id.to_string(),
        matter: case.matter.0.to_string(),
        version: case.matter.1,
        outcome: outcome.into(),
        reason: case.settled.as_ref().map(|s| s.reason.clone()).unwrap_or_default(),
        waits_for: if case.settled.is_some() { String::new() } else { waits_for },
        unconfirmed: view.unconfirmed.as_ref().filter(|_| case.settled.is_none()).map(|(s, _)| s.to_string()),
        parties: parties.collect(),
        steps,
        calls: case.calls.len() + case.earlier.calls.len() + case.deliveries.len(),
        actions: case.actions.len() + case.earlier.actions.len(),
        elapsed_ms: case.changed_ms - case.opened_ms,
        change: 0,
        erased_ms: case.erased_ms,
    }
}

/// An application.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenBody {
    /// The matter.
    pub matter: String,
    /// The form's fields.
    pub form: BTreeMap<String, String>,
    /// The parties by role.
    pub parties: BTreeMap<String, PersonBody>,
}

/// A person.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PersonBody {
    /// The resident identity number.
    pub id: String,
    /// The name.
    pub name: String,
}

/// The ID of a case.
#[derive(Serialize, ToSchema)]
pub struct Opened {
    /// The case.
    pub id: String,
}

/// A terminal's assertion with its signature, both in hexadecimal.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentifyBody {
    /// The assertion's canonical bytes.
    pub assertion: String,
    /// The terminal's signature.
    pub signature: String,
}

/// A consent to sign: the exact text and terms.
#[derive(Serialize, ToSchema)]
pub struct ConsentDraft {
    /// The text to show.
    pub text: String,
    /// The canonical bytes of the terms, in hexadecimal.
    pub terms: String,
    /// The bytes to sign, in hexadecimal.
    pub to_sign: String,
}

/// A signed consent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsentBody {
    /// The terms as drafted, in hexadecimal.
    pub terms: String,
    /// The party's signature, in hexadecimal.
    pub signature: String,
}

/// A withdrawal.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WithdrawBody {
    /// The consent.
    pub consent: String,
    /// The party's signature, in hexadecimal.
    pub signature: String,
}

/// A confirmation by an officer.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmBody {
    /// Who confirms; kept in the vault, only its commitment goes on the ledger.
    pub officer: String,
}

/// What somebody asks or decides about a case that rests, and why; both stay in the vault.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasonBody {
    /// Who: an officer, or the party that asks.
    pub who: String,
    /// Why.
    pub reason: String,
}

#[derive(Deserialize)]
pub(crate) struct LanguageQuery {
    lang: Option<String>,
}

#[utoipa::path(post, path = "/api/v1/cases", request_body = OpenBody,
    responses((status = 201, body = Opened), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn open_case(
    State(served): Shared,
    JsonBody(body): JsonBody<OpenBody>,
) -> Result<(StatusCode, Json<Opened>), Problem> {
    let mut new = NewCase { matter: parse(&body.matter)?, form: BTreeMap::new(), parties: BTreeMap::new() };
    for (name, value) in body.form {
        new.form.insert(parse(&name)?, value);
    }
    for (role, person) in body.parties {
        new.parties.insert(parse(&role)?, flow::Person { id: person.id, name: person.name });
    }
    let id = served.flow.open_case(new).await?;
    Ok((StatusCode::CREATED, Json(Opened { id: id.to_string() })))
}

#[utoipa::path(get, path = "/api/v1/cases", responses((status = 200, body = Vec<String>)))]
pub(crate) async fn cases(State(served): Shared) -> Json<Vec<String>> {
    Json(served.flow.case_ids().iter().map(ToString::to_string).collect())
}

#[utoipa::path(get, path = "/api/v1/cases/{id}", params(("id" = String, Path)),
    responses((status = 200, body = CaseBody), (status = 404, body = Problem)))]
pub(crate) async fn case(State(served): Shared, Path(id): Path<String>) -> Result<Json<CaseBody>, Problem> {
    let change = served.flow.changes().get();
    let view = served.flow.case(parse(&id)?).ok_or(CaseError::Unknown("case"))?;
    Ok(Json(CaseBody { change, ..case_body(&view, now_ms()) }))
}

#[derive(Deserialize)]
pub(crate) struct After {
    after: Option<u64>,
}

/// The case again as soon as any case here changes, or after ten seconds. With the `change` of what was read last as `after`, nothing
/// that came in between is waited for.
#[utoipa::path(get, path = "/api/v1/cases/{id}/next", params(("id" = String, Path), ("after" = Option<u64>, Query)),
    responses((status = 200, body = CaseBody), (status = 404, body = Problem)))]
pub(crate) async fn case_next(
    State(served): Shared,
    Path(id): Path<String>,
    Query(After { after }): Query<After>,
) -> Result<Json<CaseBody>, Problem> {
    let changes = served.flow.changes();
    let after = after.unwrap_or_else(|| changes.get());
    let _ = tokio::time::timeout(Duration::from_secs(10), changes.reached(after.saturating_add(1))).await;
    case(State(served), Path(id)).await
}

#[utoipa::path(post, path = "/api/v1/cases/{id}/identify", params(("id" = String, Path)), request_body = IdentifyBody,
    responses((status = 204), (status = 409, body = Problem)))]
pub(crate) async fn identify(
    State(served): Shared,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<IdentifyBody>,
) -> Result<StatusCode, Problem> {
    let assertion: Assertion = canonical(&body.assertion)?;
    if assertion.case != parse(&id)? {
        return Err(bad("the assertion is of another case"));
    }
    if assertion.method == IdentityMethod::Oidc {
        return Err(bad("an identity provider is asked by this node's own pages"));
    }
    if assertion.method == IdentityMethod::Face {
        return Err(bad(
            "a face is judged by this node: answer a challenge at /api/v1/cases/{id}/face/{role}",
        ));
    }
    served.identify(assertion, signature(&body.signature)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(get, path = "/api/v1/cases/{id}/consent/{role}",
    params(("id" = String, Path), ("role" = String, Path), ("lang" = Option<String>, Query)),
    responses((status = 200, body = ConsentDraft), (status = 404, body = Problem)))]
pub(crate) async fn consent_draft(
    State(served): Shared,
    Path((id, role)): Path<(String, String)>,
    Query(query): Query<LanguageQuery>,
) -> Result<Json<ConsentDraft>, Problem> {
    let language = if query.lang.as_deref() == Some("en") { Language::English } else { Language::Chinese };
    let (text, terms) = served.flow.consent_draft(parse(&id)?, &parse(&role)?, language)?;
    Ok(Json(ConsentDraft {
        text,
        terms: hex::encode(encode(&terms)),
        to_sign: hex::encode(terms.signing_bytes()),
    }))
}

#[utoipa::path(post, path = "/api/v1/cases/{id}/consent", params(("id" = String, Path)), request_body = ConsentBody,
    responses((status = 201, body = Opened), (status = 409, body = Problem)))]
pub(crate) async fn give_consent(
    State(served): Shared,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<ConsentBody>,
) -> Result<(StatusCode, Json<Opened>), Problem> {
    let terms: ConsentTerms = canonical(&body.terms)?;
    if terms.case != parse(&id)? {
        return Err(bad("the terms are of another case"));
    }
    let consent = served.flow.give_consent(terms, signature(&body.signature)?).await?;
    Ok((StatusCode::CREATED, Json(Opened { id: consent.to_string() })))
}

#[utoipa::path(post, path = "/api/v1/cases/{id}/withdraw", params(("id" = String, Path)), request_body = WithdrawBody,
    responses((status = 204), (status = 409, body = Problem)))]
pub(crate) async fn withdraw(
    State(served): Shared,
    Path(_): Path<String>,
    JsonBody(body): JsonBody<WithdrawBody>,
) -> Result<StatusCode, Problem> {
    served.flow.withdraw_consent(parse(&body.consent)?, signature(&body.signature)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = "/api/v1/cases/{id}/confirm", params(("id" = String, Path)), request_body = ConfirmBody,
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn confirm(
    State(served): Shared,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<ConfirmBody>,
) -> Result<StatusCode, Problem> {
    served.flow.confirm_decision(parse(&id)?, &body.officer).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets a case that rests go on: the decision it rests on and what that decision read are made once more.
#[utoipa::path(post, path = "/api/v1/cases/{id}/resume", params(("id" = String, Path)), request_body = ReasonBody,
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn resume(
    State(served): Shared,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<ReasonBody>,
) -> Result<StatusCode, Problem> {
    served.flow.resume_case(parse(&id)?, &body.who, &body.reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An officer lets a case pass the rule it rests on, where its matter allows that, with a reason.
#[utoipa::path(post, path = "/api/v1/cases/{id}/pass", params(("id" = String, Path)), request_body = ReasonBody,
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn pass(
    State(served): Shared,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<ReasonBody>,
) -> Result<StatusCode, Problem> {
    served.flow.pass_case(parse(&id)?, &body.who, &body.reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How long whoever refuses a case waits to see it over.
const OVER_WITHIN: Duration = Duration::from_secs(5);

/// Refuses a case, and comes back when it is over, or when something has to be undone first.
pub(crate) async fn refuse_and_wait(
    served: &crate::api::Served,
    id: CaseId,
    officer: &str,
    reason: &str,
) -> Result<(), CaseError> {
    served.flow.refuse_case(id, officer, reason).await?;
    // it is refused in any case
    let _ = tokio::time::timeout(OVER_WITHIN, served.flow.over_soon(id)).await;
    Ok(())
}

/// An officer refuses a case that rests, before its pivot.
#[utoipa::path(post, path = "/api/v1/cases/{id}/refuse", params(("id" = String, Path)), request_body = ReasonBody,
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn refuse(
    State(served): Shared,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<ReasonBody>,
) -> Result<StatusCode, Problem> {
    refuse_and_wait(&served, parse(&id)?, &body.who, &body.reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An erasure.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EraseBody {
    /// Who erases it.
    pub who: String,
    /// Why.
    pub reason: String,
    /// Only say whether it can be erased.
    #[serde(default)]
    pub dry_run: bool,
}

/// What came of an erasure.
#[derive(Serialize, ToSchema)]
pub struct ErasedBody {
    /// The case.
    pub id: String,
    /// Why it cannot be erased; empty where it was, or, in a dry run, can be.
    pub kept: String,
}

/// An officer erases what is held of the people of a case that is over.
#[utoipa::path(post, path = "/api/v1/cases/{id}/erase", params(("id" = String, Path)), request_body = EraseBody,
    responses((status = 200, body = ErasedBody), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn erase(
    State(served): Shared,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<EraseBody>,
) -> Result<Json<ErasedBody>, Problem> {
    let case: CaseId = parse(&id)?;
    let done = match body.dry_run {
        true => served.flow.why_kept(case)?.map_or(Ok(()), |kept| Err(CaseError::Kept(kept))),
        false => served.flow.erase_case(case, &body.who, &body.reason).await,
    };
    let kept = match done {
        Err(CaseError::Kept(kept)) => kept.to_string(),
        done => done.map(|()| String::new())?,
    };
    Ok(Json(ErasedBody { id: case.to_string(), kept }))
}

#[utoipa::path(get, path = "/api/v1/cases/{id}/receipts", params(("id" = String, Path)),
    responses((status = 200, body = Vec<String>)))]
pub(crate) async fn receipts(
    State(served): Shared,
    Path(id): Path<String>,
) -> Result<Json<Vec<String>>, Problem> {
    Ok(Json(served.flow.receipt_names(parse(&id)?)))
}

#[utoipa::path(get, path = "/api/v1/cases/{id}/receipts/{name}", params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 200, content_type = "application/json"), (status = 404, body = Problem)))]
pub(crate) async fn receipt(
    State(served): Shared,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let receipt = served.flow.receipt(parse(&id)?, &name).await?;
    let receipt = receipt.ok_or(CaseError::Unknown("receipt"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], receipt.to_bytes()).into_response())
}
