//! `/api/v1`: handlers parse, call and convert; errors are problem details (RFC 9457).

use crate::{DemoDoor, consortium, keep, matters, reconcile, records, resources, sharing};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use flow::{CaseError, Flow, NewCase};
use gateway::{Connected, Gateway};
use model::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use utoipa::{OpenApi, ToSchema};

/// The largest request body: 8 MiB.
const BODY_BYTES_MAX: usize = 8 << 20;
/// The longest a submission waits for finality.
const WAIT: Duration = Duration::from_secs(30);

/// What handlers share.
pub struct Served {
    /// The node's flow.
    pub flow: Flow<Connected>,
    /// The gateway on the department's own database.
    pub gateway: Arc<Gateway<Connected>>,
    /// The department.
    pub department: DepartmentId,
    /// The bearer token for case work.
    pub token: Option<String>,
    /// Where packages are kept that were handed to the running node.
    pub packages: std::path::PathBuf,
    /// The demo door, in the demo only.
    pub door: Option<DemoDoor>,
    /// Who is signed in to the pages.
    pub sessions: crate::session::Sessions,
}

pub(crate) type Shared = State<Arc<Served>>;

/// An error as every caller sees it (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// A URI that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is, in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// What happened, without personal data.
    pub detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:tongban:problem:{code}"),
            title: code.replace('_', " "),
            status: status.as_u16(),
            code: code.into(),
            detail: detail.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

impl From<CaseError> for Problem {
    fn from(e: CaseError) -> Self {
        let detail = e.to_string();
        match e {
            CaseError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, "not_found", detail),
            CaseError::Invalid { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail),
            CaseError::NotEligible(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "not_eligible", detail),
            CaseError::Refused(refusal) => Self::new(StatusCode::CONFLICT, refusal.code(), detail),
            CaseError::Chain(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "ledger_unavailable", detail),
            CaseError::Vault(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "vault_unavailable", detail),
        }
    }
}

impl From<chain::ChainError> for Problem {
    fn from(e: chain::ChainError) -> Self {
        CaseError::Chain(e).into()
    }
}

pub(crate) fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail)
}

pub(crate) fn parse<T: std::str::FromStr<Err = IdError>>(text: &str) -> Result<T, Problem> {
    // not the error's own words: they repeat what was sent
    text.parse().map_err(|_| bad("an identifier or name is not of its form"))
}

/// How the node and its ledger stand.
#[derive(Serialize, ToSchema)]
pub struct Status {
    /// The ledger.
    pub chain_id: String,
    /// This node's department.
    pub department: String,
    /// The cryptographic suite: `international` or `national`.
    pub suite: String,
    /// The departments of the consortium.
    pub departments: Vec<String>,
    /// How many of them vote.
    pub validators: usize,
    /// The epoch.
    pub epoch: u64,
    /// The version of the ledger's rules.
    pub protocol: u32,
    /// Whether this node votes in this epoch.
    pub votes: bool,
    /// The newest final height here.
    pub height: u64,
    /// Commands waiting here.
    pub waiting: usize,
}

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
        calls: case.calls.len() + case.earlier.calls.len(),
        actions: case.actions.len() + case.earlier.actions.len(),
        elapsed_ms: case.changed_ms - case.opened_ms,
        change: 0,
    }
}

pub(crate) fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
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
struct LanguageQuery {
    lang: Option<String>,
}

/// A JSON body. What cannot be read is answered with where it went wrong and never with what was sent.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind =
            request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !kind.to_ascii_lowercase().starts_with("application/json") {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "send the body as application/json",
            ));
        }
        let bytes =
            Bytes::from_request(request, state).await.map_err(|e| problem_of(e.into_response().status()))?;
        read_json(&bytes).map(Self)
    }
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|e| {
        let what = match e.classify() {
            serde_json::error::Category::Data => "a field is missing, unknown, or of another type",
            _ => "this is not JSON",
        };
        bad(format!("line {}, column {}: {what}", e.line(), e.column()))
    })
}

/// Reads bytes as every JSON body there is; for fuzzing and hostile-input tests.
pub fn check_body_bytes(bytes: &[u8]) {
    let _ = read_json::<OpenBody>(bytes);
    let _ = read_json::<ReasonBody>(bytes);
    let _ = read_json::<ConfirmBody>(bytes);
    let _ = read_json::<sharing::ObjectBody>(bytes);
    let _ = read_json::<matters::PackageBody>(bytes);
    if let Ok(body) = read_json::<IdentifyBody>(bytes) {
        let _ = (canonical::<Assertion>(&body.assertion), signature(&body.signature));
    }
    if let Ok(body) = read_json::<ConsentBody>(bytes) {
        let _ = (canonical::<ConsentTerms>(&body.terms), signature(&body.signature));
    }
    if let Ok(body) = read_json::<WithdrawBody>(bytes) {
        let _ = (parse::<ConsentId>(&body.consent), signature(&body.signature));
    }
}

/// The problem of a status nobody wrote a detail for.
fn problem_of(status: StatusCode) -> Problem {
    let (code, detail) = match status {
        StatusCode::NOT_FOUND => ("not_found", "there is nothing at this address"),
        StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "this address does not take this method"),
        StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "the body is larger than 8 MiB"),
        s if s.is_server_error() => ("internal", "the node could not serve this; its log says why"),
        _ => ("bad_request", "the request cannot be read"),
    };
    Problem::new(status, code, detail)
}

/// Every error is a problem document, also those no handler wrote; what the caller sent is never repeated to them.
async fn problems(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let kind =
        response.headers().get(header::CONTENT_TYPE).map(|v| v.as_bytes().to_vec()).unwrap_or_default();
    let written = kind == b"application/problem+json";
    if (status.is_client_error() || status.is_server_error()) && !written {
        return problem_of(status).into_response();
    }
    response
}

fn signature(text: &str) -> Result<[u8; 64], Problem> {
    let mut bytes = [0; 64];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| bad("a signature is 128 hexadecimal digits"))?;
    Ok(bytes)
}

fn canonical<T: borsh::BorshDeserialize>(text: &str) -> Result<T, Problem> {
    let bytes = hex::decode(text).map_err(|_| bad("expected hexadecimal digits"))?;
    decode(&bytes).map_err(|_| bad("the bytes are not in their canonical form"))
}

#[utoipa::path(get, path = "/api/v1/status", responses((status = 200, body = Status)))]
async fn status(State(served): Shared) -> Json<Status> {
    let chain = served.flow.chain();
    let rules = chain.rules();
    let (epoch, roster) = chain.roster();
    Json(Status {
        chain_id: rules.chain.to_string(),
        department: served.department.to_string(),
        suite: rules.suite().as_str().into(),
        departments: roster.members.iter().map(|m| m.id.to_string()).collect(),
        validators: roster.validators().len(),
        epoch,
        protocol: roster.protocol,
        votes: chain.votes(),
        height: chain.height(),
        waiting: chain.waiting(),
    })
}

/// Signed commands in the binary batch form: each as a little-endian `u32` length and its canonical bytes. The answer
/// has nine bytes for each: a status (0 accepted, 1 refused by the ledger, 2 not taken in, 3 not ordered in time) and the
/// height as a little-endian `u64` (0 where there is none).
#[utoipa::path(post, path = "/api/v1/commands", request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, content_type = "application/octet-stream"), (status = 400, body = Problem)))]
async fn commands(State(served): Shared, body: Bytes) -> Result<Response, Problem> {
    let mut rest = body;
    let mut batch = Vec::new();
    while !rest.is_empty() {
        if rest.len() < 4 {
            return Err(bad("the batch ends inside a length"));
        }
        let length = u32::from_le_bytes(rest.split_to(4)[..].try_into().expect("four bytes")) as usize;
        if rest.len() < length {
            return Err(bad("the batch ends inside a command"));
        }
        batch.push(rest.split_to(length));
    }
    let results = served.flow.chain().submit_and_wait(batch, WAIT).await;
    let mut answer = Vec::with_capacity(results.len() * 9);
    for result in results {
        let (status, height) = match result {
            Ok(event) => (u8::from(matches!(event.outcome, Outcome::Refused(_))), event.height),
            Err(chain::ChainError::Rejected(_)) => (2, 0),
            Err(_) => (3, 0),
        };
        answer.push(status);
        answer.extend_from_slice(&u64::to_le_bytes(height));
    }
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], answer).into_response())
}

#[utoipa::path(post, path = "/api/v1/cases", request_body = OpenBody,
    responses((status = 201, body = Opened), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn open_case(
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
async fn cases(State(served): Shared) -> Json<Vec<String>> {
    Json(served.flow.case_ids().iter().map(ToString::to_string).collect())
}

#[utoipa::path(get, path = "/api/v1/cases/{id}", params(("id" = String, Path)),
    responses((status = 200, body = CaseBody), (status = 404, body = Problem)))]
async fn case(State(served): Shared, Path(id): Path<String>) -> Result<Json<CaseBody>, Problem> {
    let change = served.flow.changes().get();
    let view = served.flow.case(parse(&id)?).ok_or(CaseError::Unknown("case"))?;
    Ok(Json(CaseBody { change, ..case_body(&view, now_ms()) }))
}

#[derive(Deserialize)]
struct After {
    after: Option<u64>,
}

/// The case again as soon as any case here changes, or after ten seconds. With the `change` of what was read last as `after`, nothing
/// that came in between is waited for.
#[utoipa::path(get, path = "/api/v1/cases/{id}/next", params(("id" = String, Path), ("after" = Option<u64>, Query)),
    responses((status = 200, body = CaseBody), (status = 404, body = Problem)))]
async fn case_next(
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
async fn identify(
    State(served): Shared,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<IdentifyBody>,
) -> Result<StatusCode, Problem> {
    let assertion: Assertion = canonical(&body.assertion)?;
    if assertion.case != parse(&id)? {
        return Err(bad("the assertion is of another case"));
    }
    served.flow.identify(assertion, signature(&body.signature)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(get, path = "/api/v1/cases/{id}/consent/{role}",
    params(("id" = String, Path), ("role" = String, Path), ("lang" = Option<String>, Query)),
    responses((status = 200, body = ConsentDraft), (status = 404, body = Problem)))]
async fn consent_draft(
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
async fn give_consent(
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
async fn withdraw(
    State(served): Shared,
    Path(_): Path<String>,
    JsonBody(body): JsonBody<WithdrawBody>,
) -> Result<StatusCode, Problem> {
    served.flow.withdraw_consent(parse(&body.consent)?, signature(&body.signature)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = "/api/v1/cases/{id}/confirm", params(("id" = String, Path)), request_body = ConfirmBody,
    responses((status = 204), (status = 404, body = Problem)))]
async fn confirm(
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
async fn resume(
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
async fn pass(
    State(served): Shared,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<ReasonBody>,
) -> Result<StatusCode, Problem> {
    served.flow.pass_case(parse(&id)?, &body.who, &body.reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An officer refuses a case that rests, before its pivot.
#[utoipa::path(post, path = "/api/v1/cases/{id}/refuse", params(("id" = String, Path)), request_body = ReasonBody,
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn refuse(
    State(served): Shared,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<ReasonBody>,
) -> Result<StatusCode, Problem> {
    served.flow.refuse_case(parse(&id)?, &body.who, &body.reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(get, path = "/api/v1/cases/{id}/receipts", params(("id" = String, Path)),
    responses((status = 200, body = Vec<String>)))]
async fn receipts(State(served): Shared, Path(id): Path<String>) -> Result<Json<Vec<String>>, Problem> {
    Ok(Json(served.flow.receipt_names(parse(&id)?)))
}

#[utoipa::path(get, path = "/api/v1/cases/{id}/receipts/{name}", params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 200, content_type = "application/json"), (status = 404, body = Problem)))]
async fn receipt(
    State(served): Shared,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let receipt = served.flow.receipt(parse(&id)?, &name).await?;
    let receipt = receipt.ok_or(CaseError::Unknown("receipt"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], receipt.to_bytes()).into_response())
}

#[utoipa::path(get, path = "/api/v1/genesis", responses((status = 200, content_type = "application/json")))]
async fn genesis(State(served): Shared) -> Json<Genesis> {
    Json((*served.flow.chain().rules().genesis).clone())
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tongban node",
        description = "The API of one department's node.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        status,
        commands,
        open_case,
        cases,
        case,
        case_next,
        identify,
        consent_draft,
        give_consent,
        withdraw,
        confirm,
        resume,
        pass,
        refuse,
        matters::list,
        matters::show,
        matters::take,
        receipts,
        receipt,
        records::block,
        keep::archive,
        keep::prune,
        keep::statement,
        resources::connector,
        resources::list,
        resources::show,
        sharing::rules,
        sharing::shares,
        sharing::share,
        sharing::projects,
        sharing::budgets,
        sharing::alerts,
        sharing::alert,
        sharing::objections,
        sharing::object,
        reconcile::report,
        keep::openings,
        keep::checkpoint,
        keep::link,
        genesis,
        consortium::roster,
        consortium::proposals,
        consortium::proposal
    )
)]
struct Api;

/// The OpenAPI 3.1 document, as committed in `docs/openapi.json`.
pub fn openapi() -> String {
    let mut text = Api::openapi().to_pretty_json().expect("the document can be written as JSON");
    text.push('\n');
    text
}

async fn metrics(State(served): Shared) -> Result<String, Problem> {
    let chain = served.flow.chain();
    let (epoch, roster) = chain.roster();
    let own = format!(
        "tongban_height {}\ntongban_commands_waiting {}\ntongban_epoch {epoch}\ntongban_protocol {}\ntongban_votes {}\n\
         tongban_connector_closed {}\n",
        chain.height(),
        chain.waiting(),
        roster.protocol,
        u8::from(chain.votes()),
        served.gateway.problems().len(),
    );
    Ok(own + &chain.metrics().await?)
}

/// Case work needs the node's token; commands are signed, and the rest is public.
async fn authorise(State(served): Shared, headers: HeaderMap, request: Request, next: Next) -> Response {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer "));
    let fits = match (&served.token, given) {
        (Some(token), Some(given)) => {
            // compared by hash, so that the time taken says nothing of how much fits
            let hash = |text: &str| crypto::digest(Suite::International, &[text.as_bytes()]);
            hash(token) == hash(given)
        }
        _ => false,
    };
    if !fits {
        return Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorised",
            "case work needs this node's API token",
        )
        .into_response();
    }
    next.run(request).await
}

/// The API.
pub(crate) fn router(served: Arc<Served>) -> Router {
    let work = Router::new()
        .route("/api/v1/archive", get(keep::archive))
        .route("/api/v1/prune", post(keep::prune))
        .route("/api/v1/statements", post(keep::statement))
        .route("/api/v1/openings", get(keep::openings))
        .route("/api/v1/links", post(keep::link))
        .route("/api/v1/connector", get(resources::connector))
        .route("/api/v1/reconciliation", get(reconcile::report))
        .route("/api/v1/cases", get(cases).post(open_case))
        .route("/api/v1/cases/{id}", get(case))
        .route("/api/v1/cases/{id}/next", get(case_next))
        .route("/api/v1/cases/{id}/identify", post(identify))
        .route("/api/v1/cases/{id}/consent/{role}", get(consent_draft))
        .route("/api/v1/cases/{id}/consent", post(give_consent))
        .route("/api/v1/cases/{id}/withdraw", post(withdraw))
        .route("/api/v1/cases/{id}/confirm", post(confirm))
        .route("/api/v1/cases/{id}/resume", post(resume))
        .route("/api/v1/cases/{id}/pass", post(pass))
        .route("/api/v1/cases/{id}/refuse", post(refuse))
        .route("/api/v1/matters", post(matters::take))
        .route("/api/v1/cases/{id}/objections", post(sharing::object))
        .route("/api/v1/cases/{id}/receipts", get(receipts))
        .route("/api/v1/cases/{id}/receipts/{name}", get(receipt))
        .layer(middleware::from_fn_with_state(served.clone(), authorise));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route(
            "/api/openapi.json",
            get(|| async { ([(header::CONTENT_TYPE, "application/json")], openapi()) }),
        )
        .route("/api/v1/status", get(status))
        .route("/api/v1/genesis", get(genesis))
        .route("/api/v1/checkpoint", get(keep::checkpoint))
        .route("/api/v1/roster", get(consortium::roster))
        .route("/api/v1/proposals", get(consortium::proposals))
        .route("/api/v1/proposals/{id}", get(consortium::proposal))
        .route("/api/v1/blocks/{height}", get(records::block))
        .route("/api/v1/resources", get(resources::list))
        .route("/api/v1/resources/{id}", get(resources::show))
        .route("/api/v1/matters", get(matters::list))
        .route("/api/v1/matters/{id}", get(matters::show))
        .route("/api/v1/sharing", get(sharing::rules))
        .route("/api/v1/shares", get(sharing::shares))
        .route("/api/v1/shares/{holder}/{asker}/{id}", get(sharing::share))
        .route("/api/v1/alerts/{resource}/{asker}", get(sharing::alert))
        .route("/api/v1/projects", get(sharing::projects))
        .route("/api/v1/budgets", get(sharing::budgets))
        .route("/api/v1/alerts", get(sharing::alerts))
        .route("/api/v1/objections", get(sharing::objections))
        .route("/api/v1/commands", post(commands))
        .merge(work)
        .route("/api/{*rest}", any(|| async { StatusCode::NOT_FOUND }))
        .layer(middleware::from_fn(problems))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(served)
}

async fn ready(State(served): Shared) -> (StatusCode, &'static str) {
    match served.flow.chain().height() {
        0 => (StatusCode::SERVICE_UNAVAILABLE, "no block is final here yet\n"),
        _ => (StatusCode::OK, "ok\n"),
    }
}
