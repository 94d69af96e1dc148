//! The pages, rendered on the server; every journey works without JavaScript.

mod cases;
mod catalogue;
mod citizen;
mod core;
mod dcat;
mod face;
mod matters;
mod object;
mod office;
mod portal;
mod public;
mod sharing;
mod signin;
mod texts;
mod visit;

use crate::api::{BODY_BYTES_MAX, Served};
use axum::{
    Router,
    body::HttpBody as _,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{Redirect, Response},
    routing::{get, post},
};
use std::sync::Arc;
pub(crate) use texts::Texts;
use tower_http::set_header::SetResponseHeaderLayer;
use visit::Visit;

/// The time of day in China (UTC+8): `10:05:09`.
fn local_time(ms: u64) -> String {
    let seconds = (ms / 1000 + 8 * 3600) % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds % 3600 / 60, seconds % 60)
}

fn asset(kind: &'static str, text: &'static str) -> axum::routing::MethodRouter<Arc<Served>> {
    get(move || async move {
        ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=300")], text)
    })
}

/// An error nobody wrote a page for (no such address, a body too large, a form that cannot be read) gets one.
async fn error_pages(visit: Visit, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).map(|v| v.as_bytes()).unwrap_or_default();
    // a page, or an answer to a page's script
    let written = kind.starts_with(b"text/html") || kind.starts_with(b"application/json");
    if !(status.is_client_error() || status.is_server_error()) || written {
        return response;
    }
    let unknown = status == StatusCode::NOT_FOUND || response.body().is_end_stream();
    visit.error(status, if unknown { "error-unknown" } else { "error-invalid" })
}

/// The pages.
pub fn router(served: Arc<Served>) -> Router {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
        form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    let set = |name: header::HeaderName, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    Router::new()
        .route("/", get(citizen::home))
        .route("/demo/enter", post(citizen::enter))
        .route("/leave", post(citizen::leave))
        .route("/matters/{id}", get(matters::page))
        .route("/matters/{id}/graph.svg", get(matters::graph))
        .route("/matters/{id}/apply", get(matters::form).post(matters::apply))
        .route("/mine", get(citizen::mine))
        .route("/case/{id}", get(cases::case))
        .route("/case/{id}/identify/{role}", post(cases::identify))
        .route("/case/{id}/face/{role}", get(face::page).post(face::challenge))
        .route(
            "/case/{id}/face/{role}/{challenge}",
            post(face::answer).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)),
        )
        .route("/case/{id}/sign/{role}", get(cases::sign_page).post(cases::sign))
        .route("/case/{id}/withdraw/{role}", post(cases::withdraw))
        .route("/case/{id}/confirm", post(cases::confirm))
        .route("/case/{id}/resume", post(cases::resume))
        .route("/case/{id}/pass", post(cases::pass))
        .route("/case/{id}/refuse", post(cases::refuse))
        .route("/case/{id}/receipts/{name}", get(cases::receipt))
        .route("/case/{id}/object/{step}", get(object::page).post(object::object))
        .route("/desk", get(cases::desk))
        .route("/office", get(office::page))
        .route("/office/day", get(office::day))
        .route("/office/share", post(office::share))
        .route("/office/alert", post(office::explain))
        .route("/office/objection", post(office::objection))
        .route("/office/budget", post(office::budget))
        .route("/signin", get(signin::page).post(signin::sign_in))
        .route("/signin/person", get(|| async { Redirect::to("/signin") }).post(portal::sign_in))
        .route("/signin/back", get(portal::back))
        .route("/signin/change", get(signin::change_page).post(signin::change))
        .route("/signin/first", get(signin::invited).post(signin::take_up))
        .route("/catalogue", get(catalogue::catalogue))
        .route("/catalogue.jsonld", get(dcat::catalogue))
        .route("/catalogue.xml", get(core::catalogue))
        .route("/catalogue/{id}", get(catalogue::resource))
        .route("/sharing", get(sharing::page))
        .route("/explorer", get(public::explorer))
        .route("/explorer/block/{height}", get(public::block))
        .route("/explorer/record/{id}", get(public::record))
        .route("/verify", get(public::verify_page).post(public::verify_file))
        .route("/assets/style.css", asset("text/css; charset=utf-8", include_str!("../../assets/style.css")))
        .route("/assets/camera.js", asset(SCRIPT, include_str!("../../assets/camera.js")))
        .route("/assets/desk.js", asset(SCRIPT, include_str!("../../assets/desk.js")))
        .route("/assets/live.js", asset(SCRIPT, include_str!("../../assets/live.js")))
        .route("/assets/verify.js", asset(SCRIPT, include_str!("../../assets/verify.js")))
        .route("/assets/sm.js", asset(SCRIPT, include_str!("../../assets/sm.js")))
        .route("/assets/verify-page.js", asset(SCRIPT, include_str!("../../assets/verify-page.js")))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(middleware::from_fn_with_state(served.clone(), error_pages))
        .layer(set(header::CONTENT_SECURITY_POLICY, POLICY))
        .layer(set(header::CACHE_CONTROL, "no-store"))
        .layer(set(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(set(header::REFERRER_POLICY, "no-referrer"))
        .layer(set(
            header::HeaderName::from_static("permissions-policy"),
            "camera=(self), microphone=(), geolocation=()",
        ))
        .with_state(served)
}
