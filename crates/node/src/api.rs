//! `/api/v1`: handlers parse, call and convert; errors are problem details (RFC 9457).

use crate::{
    DemoDoor, SqliteVault, accounts, cases, consortium, face, keep, lists, matters,
    officers::Officers,
    portal, publications, reconcile, records, resources, sharing, subscriptions, terminals,
    tokens::{self, Lack, Tokens},
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, delete, get, post},
};
use flow::{CaseError, Flow};
use gateway::{Connected, Gateway};
use model::*;
use serde::{Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use tracing::warn;
use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};

/// The largest request body: 8 MiB.
pub(crate) const BODY_BYTES_MAX: usize = 8 << 20;
/// The longest a submission waits for finality.
const WAIT: Duration = Duration::from_secs(30);
/// The most commands of one batch.
const COMMANDS_MAX: usize = 1024;
/// So many are verified at once on the spot: a millisecond or two, less than it takes to hand them on.
const COMMANDS_FEW: usize = 16;
/// How much of what anybody may send is verified at once.
pub(crate) const VERIFYING_AT_ONCE: usize = 2;

/// What handlers share.
pub struct Served {
    /// The node's flow.
    pub flow: Flow<Connected>,
    /// The gateway on the department's own database.
    pub gateway: Arc<Gateway<Connected>>,
    /// The files the gateway answers by.
    pub(crate) files: Arc<resources::Files>,
    /// The department.
    pub department: DepartmentId,
    /// The bearer token for case work.
    pub token: Option<String>,
    /// Where packages are kept that were handed to the running node.
    pub packages: std::path::PathBuf,
    /// The data platform whose open data this node's pages lead to.
    pub(crate) platform: Option<publications::Platform>,
    /// How many people a terminal may identify a day with their document or face alone.
    pub(crate) terminal_per_day: Option<u32>,
    /// Where faces are judged, where this node was calibrated for it.
    pub(crate) booth: Option<crate::face::Booth>,
    /// The demo door, in the demo only.
    pub door: Option<DemoDoor>,
    /// The citizens' door, where the department has an identity provider.
    pub(crate) portal: Option<crate::portal::Portal>,
    /// Who is signed in to the pages.
    pub sessions: crate::session::Sessions,
    /// Places for verifying what anybody may send: it costs much.
    pub(crate) verifying: Arc<Semaphore>,
    /// The newest records, for the explorer.
    pub(crate) newest: tokio::sync::Mutex<crate::records::Newest>,
    /// Tokens beside the administrator's.
    pub(crate) tokens: Tokens,
    /// Who may sign in to the pages.
    pub(crate) officers: Officers<SqliteVault>,
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
            CaseError::TerminalLimit(_) => Self::new(StatusCode::TOO_MANY_REQUESTS, "terminal_limit", detail),
            CaseError::Kept(_) => Self::new(StatusCode::CONFLICT, "kept", detail),
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

pub(crate) fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
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
    let _ = read_json::<cases::OpenBody>(bytes);
    let _ = read_json::<cases::ReasonBody>(bytes);
    let _ = read_json::<cases::ConfirmBody>(bytes);
    let _ = read_json::<sharing::ObjectBody>(bytes);
    let _ = read_json::<matters::PackageBody>(bytes);
    let _ = read_json::<accounts::AddBody>(bytes);
    let _ = read_json::<tokens::NewToken>(bytes);
    if let Ok(body) = read_json::<cases::IdentifyBody>(bytes) {
        let _ = (canonical::<Assertion>(&body.assertion), signature(&body.signature));
    }
    if let Ok(body) = read_json::<cases::ConsentBody>(bytes) {
        let _ = (canonical::<ConsentTerms>(&body.terms), signature(&body.signature));
    }
    if let Ok(body) = read_json::<cases::WithdrawBody>(bytes) {
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

pub(crate) fn signature(text: &str) -> Result<[u8; 64], Problem> {
    let mut bytes = [0; 64];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| bad("a signature is 128 hexadecimal digits"))?;
    Ok(bytes)
}

pub(crate) fn canonical<T: borsh::BorshDeserialize>(text: &str) -> Result<T, Problem> {
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

/// Signed commands in the binary batch form, 1,024 at most: each as a little-endian `u32` length and its canonical bytes. The answer
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
        if batch.len() > COMMANDS_MAX {
            return Err(bad("a batch has 1,024 commands at most"));
        }
    }
    let chain = served.flow.chain();
    let submitted = if batch.len() <= COMMANDS_FEW {
        chain.submit_to_wait(batch)
    } else {
        let place = served.verifying.clone().acquire_owned().await;
        let chain = chain.clone();
        // many signatures: off the threads that serve others; the place is held also where nobody waits for it any more
        let verified = tokio::task::spawn_blocking(move || {
            let _place = place;
            chain.submit_to_wait(batch)
        })
        .await;
        verified.map_err(|_| CaseError::Chain(chain::ChainError::Stopped))?
    };
    let results = chain.ordered(submitted, WAIT).await;
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
    modifiers(&Bearer),
    paths(
        status,
        commands,
        cases::open_case,
        cases::cases,
        cases::case,
        cases::case_next,
        cases::identify,
        face::challenge,
        face::answer,
        cases::consent_draft,
        cases::give_consent,
        cases::withdraw,
        cases::confirm,
        cases::resume,
        cases::pass,
        cases::refuse,
        cases::erase,
        portal::evidence,
        matters::list,
        matters::show,
        matters::take,
        cases::receipts,
        cases::receipt,
        records::block,
        keep::archive,
        keep::prune,
        keep::statement,
        publications::decide,
        resources::connector,
        resources::list,
        resources::show,
        resources::description,
        terminals::list,
        accounts::list,
        accounts::add,
        accounts::reset,
        accounts::remove,
        tokens::list,
        tokens::add,
        tokens::remove,
        subscriptions::list,
        subscriptions::events,
        lists::list,
        lists::propose,
        sharing::rules,
        sharing::shares,
        sharing::share,
        sharing::projects,
        sharing::budgets,
        sharing::policy,
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

/// Says in the document what wants a token.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document.components.get_or_insert_default().add_security_scheme("token", scheme);
        for (path, item) in &mut document.paths.paths {
            let methods = [
                (Method::GET, &mut item.get),
                (Method::POST, &mut item.post),
                (Method::DELETE, &mut item.delete),
            ];
            for (method, operation) in methods {
                if let Some(operation) = operation.as_mut().filter(|_| tokens::is_closed(&method, path)) {
                    operation.security = Some(vec![SecurityRequirement::new("token", [""; 0])]);
                }
            }
        }
    }
}

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
         tongban_connector_closed {}\ntongban_requests_together_total {}\n",
        chain.height(),
        chain.waiting(),
        roster.protocol,
        u8::from(chain.votes()),
        served.gateway.report().iter().filter(|c| c.status == "closed").count(),
        served.flow.requests_together(),
    );
    Ok(own + &chain.metrics().await?)
}

/// What security officers look for in the log (docs/operations.md).
pub(crate) const SECURITY: &str = "security";

/// The route a request took, with names in place of what it asks for: an address may hold a case's number.
pub(crate) fn route_of(request: &Request) -> String {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    format!("{} {path}", request.method())
}

/// Case work needs the node's token, or one of its named ones; commands are signed, and the rest is public.
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
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let named =
        given.filter(|_| !fits).map(|given| served.tokens.opens(given, request.method(), route, now_ms()));
    if let Some(Err(Lack::Scope)) = named {
        warn!(target: SECURITY, token = "narrow", route = route_of(&request), "case work was refused: its API token is for other work");
        return Problem::new(StatusCode::FORBIDDEN, "forbidden", "this API token is for other work")
            .into_response();
    }
    if !fits && !matches!(named, Some(Ok(_))) {
        let token = if given.is_some() { "wrong" } else { "missing" };
        warn!(target: SECURITY, token, route = route_of(&request), "case work was refused: its API token is {token}");
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
        .route("/api/v1/publications", post(publications::decide))
        .route("/api/v1/openings", get(keep::openings))
        .route("/api/v1/links", post(keep::link))
        .route("/api/v1/connector", get(resources::connector))
        .route("/api/v1/terminals", get(terminals::list))
        .route("/api/v1/tokens", get(tokens::list).post(tokens::add))
        .route("/api/v1/tokens/{name}", delete(tokens::remove))
        .route("/api/v1/officers", get(accounts::list).post(accounts::add))
        .route("/api/v1/officers/{name}", delete(accounts::remove))
        .route("/api/v1/officers/{name}/invitation", post(accounts::reset))
        .route("/api/v1/lists", get(lists::list).post(lists::propose))
        .route("/api/v1/subscriptions", get(subscriptions::list))
        .route("/api/v1/subscriptions/{id}/events", get(subscriptions::events))
        .route("/api/v1/reconciliation", get(reconcile::report))
        .route("/api/v1/cases", get(cases::cases).post(cases::open_case))
        .route("/api/v1/cases/{id}", get(cases::case))
        .route("/api/v1/cases/{id}/next", get(cases::case_next))
        .route("/api/v1/cases/{id}/identify", post(cases::identify))
        .route("/api/v1/cases/{id}/face/{role}", post(face::challenge))
        .route("/api/v1/cases/{id}/face/{role}/{challenge}", post(face::answer))
        .route("/api/v1/cases/{id}/consent/{role}", get(cases::consent_draft))
        .route("/api/v1/cases/{id}/consent", post(cases::give_consent))
        .route("/api/v1/cases/{id}/withdraw", post(cases::withdraw))
        .route("/api/v1/cases/{id}/confirm", post(cases::confirm))
        .route("/api/v1/cases/{id}/resume", post(cases::resume))
        .route("/api/v1/cases/{id}/pass", post(cases::pass))
        .route("/api/v1/cases/{id}/refuse", post(cases::refuse))
        .route("/api/v1/cases/{id}/erase", post(cases::erase))
        .route("/api/v1/cases/{id}/evidence", get(portal::evidence))
        .route("/api/v1/matters", post(matters::take))
        .route("/api/v1/cases/{id}/objections", post(sharing::object))
        .route("/api/v1/cases/{id}/receipts", get(cases::receipts))
        .route("/api/v1/cases/{id}/receipts/{name}", get(cases::receipt))
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
        .route("/api/v1/resources/{id}/description", get(resources::description))
        .route("/api/v1/matters", get(matters::list))
        .route("/api/v1/matters/{id}", get(matters::show))
        .route("/api/v1/sharing", get(sharing::rules))
        .route("/api/v1/shares", get(sharing::shares))
        .route("/api/v1/shares/{holder}/{asker}/{id}", get(sharing::share))
        .route("/api/v1/alerts/{resource}/{asker}", get(sharing::alert))
        .route("/api/v1/projects", get(sharing::projects))
        .route("/api/v1/budgets", get(sharing::budgets))
        .route("/api/v1/policies/{department}", get(sharing::policy))
        .route("/api/v1/alerts", get(sharing::alerts))
        .route("/api/v1/objections", get(sharing::objections))
        .route("/api/v1/commands", post(commands))
        .merge(work)
        .route("/api/{*rest}", any(|| async { StatusCode::NOT_FOUND }))
        .layer(middleware::from_fn(problems))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(served)
}

async fn ready(State(served): Shared) -> Result<&'static str, Problem> {
    let chain = served.flow.chain();
    let detail = match (chain.height(), chain.roster().1.member(served.flow.department())) {
        (1.., _) => return Ok("ok\n"),
        (0, Some(_)) => "no block is final here yet: the node waits for others, or catches up",
        (0, None) => {
            "this department is not in the consortium as far as known here; its node follows once it is taken in"
        }
    };
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail))
}
