//! The part of the API about open data: decisions, and the way on to the data platform that serves it.

use crate::api::{JsonBody, Problem, Shared};
use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

/// Anchors a decision of this department on open data, as a file that `tongban verify` takes.
#[utoipa::path(post, path = "/api/v1/publications", request_body = serde_json::Value,
    responses((status = 200, content_type = "application/json"), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn decide(
    State(served): Shared,
    JsonBody(decided): JsonBody<proof::Decided>,
) -> Result<Response, Problem> {
    decided.check().map_err(|e| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", e))?;
    let publication = served.flow.decide_publication(decided).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], publication.to_bytes()).into_response())
}

/// Where the data platform of this node is, and how it is reached.
pub(crate) struct Platform {
    address: String,
    client: reqwest::Client,
}

/// How long the platform may take to begin its answer.
const BEGINS_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

impl Platform {
    /// The platform at an address such as `http://127.0.0.1:8500`.
    pub(crate) fn new(address: &str) -> Self {
        gateway::use_tls();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .read_timeout(BEGINS_WITHIN)
            .no_gzip()
            .build()
            .expect("how TLS is done was chosen");
        Self { address: address.trim_end_matches('/').to_owned(), client }
    }
}

/// Headers that are passed on, one way or the other; cookies of this node are not, but for the language.
const PASSED: [header::HeaderName; 14] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::RANGE,
    header::IF_RANGE,
    header::IF_MODIFIED_SINCE,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_DISPOSITION,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::LAST_MODIFIED,
    header::LOCATION,
    header::CONTENT_SECURITY_POLICY,
];

/// Passes a request for open data on to the data platform, and its answer back as it comes.
pub(crate) async fn pass_on(State(served): Shared, request: Request) -> Response {
    let Some(platform) = &served.platform else { return StatusCode::NOT_FOUND.into_response() };
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/open", |p| p.as_str());
    let Ok(body) = axum::body::to_bytes(body, 64 << 10).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let mut onward =
        platform.client.request(parts.method, format!("{}{target}", platform.address)).body(body);
    for (name, value) in parts.headers.iter() {
        if PASSED.contains(name) || name == "sec-fetch-site" {
            onward = onward.header(name, value);
        }
    }
    let cookies = parts.headers.get(header::COOKIE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if let Some(language) = cookies.split(';').map(str::trim).find(|c| c.starts_with("tongban_lang=")) {
        onward = onward.header(header::COOKIE, language);
    }
    let Ok(answer) = onward.send().await else {
        return (StatusCode::BAD_GATEWAY, "the data platform cannot be reached\n").into_response();
    };
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if PASSED.contains(name)
            || name == header::SET_COOKIE
            || name == header::CONTENT_LENGTH
            || name == header::CACHE_CONTROL
        {
            response = response.header(name, value);
        }
    }
    let body = axum::body::Body::from_stream(answer.bytes_stream());
    response.body(body).unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
}

/// The paths that are passed on.
pub(crate) fn router(served: std::sync::Arc<crate::api::Served>) -> axum::Router {
    use axum::routing::any;
    axum::Router::new()
        .route("/open", any(pass_on))
        .route("/open/{*rest}", any(pass_on))
        .route("/api/v1/open/{*rest}", any(pass_on))
        .route("/api/3/{*rest}", any(pass_on))
        .route("/api/action/{*rest}", any(pass_on))
        .route("/catalog.ttl", any(pass_on))
        .route("/catalog.jsonld", any(pass_on))
        .route("/sitemap.xml", any(pass_on))
        .with_state(served)
}
