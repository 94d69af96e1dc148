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

    /// The platform's address of a path and query; none where the path would climb out of what is passed on.
    fn below(&self, target: &str) -> Option<reqwest::Url> {
        let url = reqwest::Url::parse(&format!("{}{target}", self.address)).ok()?;
        let path = target.split('?').next().unwrap_or_default();
        let plain = path.starts_with('/') && !path.contains('\\');
        let climbs = path
            .split('/')
            .any(|part| matches!(part.replace("%2e", ".").replace("%2E", ".").as_str(), "." | ".."));
        (plain && !climbs).then_some(url)
    }
}

/// Headers that are passed on, one way or the other; cookies of this node are not, but for the language.
const PASSED: [header::HeaderName; 13] = [
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
];

/// What the platform's pages may do in a browser, on the address where people are signed in: no script, whatever the platform says.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

/// Passes a request for open data on to the data platform, and its answer back as it comes.
pub(crate) async fn pass_on(State(served): Shared, request: Request) -> Response {
    let Some(platform) = &served.platform else { return StatusCode::NOT_FOUND.into_response() };
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/open", |p| p.as_str());
    let Some(target) = platform.below(target) else { return StatusCode::NOT_FOUND.into_response() };
    let Ok(body) = axum::body::to_bytes(body, 64 << 10).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let mut onward = platform.client.request(parts.method, target).body(body);
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
    let mut response =
        Response::builder().status(answer.status()).header(header::CONTENT_SECURITY_POLICY, POLICY);
    for (name, value) in answer.headers() {
        // the language, and no other: a cookie of the platform's could pass for somebody's session
        let language = name == header::SET_COOKIE && value.as_bytes().starts_with(b"tongban_lang=");
        if PASSED.contains(name)
            || language
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_open_data_is_reached_through_a_node() {
        for address in ["http://127.0.0.1:8500", "http://platform.example/data/"] {
            let platform = Platform::new(address);
            for target in
                ["/open", "/open/trees?q=a/../b", "/open/trees/1/data.csv", "/open/%E6%A0%91?lang=en"]
            {
                let url = platform.below(target).unwrap_or_else(|| panic!("{target} is passed on"));
                assert!(url.as_str().ends_with(target), "{url}");
            }
            assert!(platform.below("/open/树").unwrap().path().ends_with("/open/%E6%A0%91"));
            for target in [
                "/open/../healthz",
                "/open/%2e%2e/tables/x/lookup",
                "/open/.%2E/healthz",
                "/open/./x",
                "/open/a\\..\\..\\healthz",
                "@elsewhere.example/open",
            ] {
                assert!(platform.below(target).is_none(), "{target}");
            }
        }
    }
}
