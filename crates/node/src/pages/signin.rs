//! Officers sign in: name, passphrase and one-time code together; and an invited officer's first time.

use super::visit::{Own, Posted, Visit};
use crate::{
    api::{SECURITY, Served, now_ms},
    officers::{Officer, OfficerError, OfficerRole},
    session::Who,
};
use askama::Template;
use axum::{
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use fast_qr::{QRBuilder, convert::svg::SvgBuilder};
use serde::Deserialize;
use std::sync::Arc;
use tracing::{info, warn};

#[derive(Template)]
#[template(path = "signin.html")]
struct SignInPage<'a> {
    v: &'a Visit,
    at: &'static str,
    name: String,
    problem: String,
    /// How people call the identity provider; empty where citizens do not sign in here.
    provider: String,
    /// Where a citizen goes on to.
    to: String,
}

#[derive(Template)]
#[template(path = "invited.html")]
struct InvitedPage<'a> {
    v: &'a Visit,
    at: &'static str,
    name: String,
    code: String,
    /// The QR code and the seed, once the invitation is known to serve.
    enrolment: Option<(String, String)>,
    problem: String,
}

/// What went wrong, for whoever typed it.
fn problem(visit: &Visit, e: &OfficerError, wrong: &str) -> (StatusCode, String) {
    let t = &visit.t;
    match e {
        OfficerError::Wait(until_ms) => {
            let until = super::local_time(*until_ms);
            (StatusCode::TOO_MANY_REQUESTS, t.with("signin-wait", &[("until", until)]))
        }
        OfficerError::Weak => (StatusCode::UNPROCESSABLE_ENTITY, t.get("invited-weak")),
        OfficerError::Busy => (StatusCode::TOO_MANY_REQUESTS, t.get("signin-busy")),
        OfficerError::Vault(_) => (StatusCode::SERVICE_UNAVAILABLE, t.get("error-other")),
        _ => (StatusCode::UNAUTHORIZED, t.get(wrong)),
    }
}

/// A session of the officer's, and to where their work is.
async fn enter(visit: &Visit, served: &Served, headers: &HeaderMap, officer: Officer) -> Response {
    let name = officer.name.clone();
    info!(target: SECURITY, officer = officer.name, "an officer signed in");
    let to = if officer.roles.contains(&OfficerRole::Clerk) { "/desk" } else { "/office" };
    let cookie = served.sessions.begin(headers, Who::Officer(officer));
    // removed or invited anew just now, after both were judged
    if !served.officers.serves(&name).await {
        served.sessions.end_of(&name);
        return visit.sign_in_first();
    }
    ([(header::SET_COOKIE, cookie)], Redirect::to(to)).into_response()
}

#[derive(Deserialize)]
pub(super) struct To {
    #[serde(default)]
    pub(super) to: String,
}

/// The page on which people sign in, again with what was wrong.
fn show(visit: &Visit, name: String, problem: String, to: String) -> Response {
    let provider = visit.served.portal().map(|p| visit.t.pick(&p.title).to_owned()).unwrap_or_default();
    visit.show(&SignInPage { v: visit, at: "signin", name, problem, provider, to })
}

pub(super) async fn page(visit: Visit, Query(To { to }): Query<To>) -> Response {
    show(&visit, String::new(), String::new(), to)
}

#[derive(Deserialize)]
pub(super) struct SignIn {
    name: String,
    passphrase: String,
    once: String,
}

pub(super) async fn sign_in(
    visit: Visit,
    State(served): State<Arc<Served>>,
    headers: HeaderMap,
    Own(form): Own<SignIn>,
) -> Response {
    let name = form.name.trim();
    match served.officers.sign_in(name, &form.passphrase, &form.once, now_ms()).await {
        Ok(officer) => enter(&visit, &served, &headers, officer).await,
        Err(e) => {
            // not the name: people type a passphrase there
            warn!(target: SECURITY, why = %e, "signing in failed");
            let (status, problem) = problem(&visit, &e, "signin-wrong");
            let name = name.chars().take(32).collect();
            (status, show(&visit, name, problem, String::new())).into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "passphrase.html")]
struct PassphrasePage<'a> {
    v: &'a Visit,
    at: &'static str,
    problem: String,
}

/// An officer who is signed in takes another passphrase.
pub(super) async fn change_page(visit: Visit) -> Response {
    match visit.has_account() {
        true => visit.show(&PassphrasePage { v: &visit, at: "", problem: String::new() }),
        false => visit.sign_in_first(),
    }
}

pub(super) async fn change(
    visit: Visit,
    State(served): State<Arc<Served>>,
    headers: HeaderMap,
    posted: Posted,
) -> Response {
    let Some(officer) = visit.officer().filter(|o| !o.name.is_empty()) else { return visit.sign_in_first() };
    let (name, new) = (officer.name.as_str(), posted.get("new"));
    let (status, problem) = if new == posted.get("again") {
        let (old, once) = (posted.get("passphrase"), posted.get("once"));
        match served.officers.change(name, old, once, new, now_ms()).await {
            Ok(officer) => {
                // whoever else is signed in with the one before is not any more
                served.sessions.end_of(name);
                return enter(&visit, &served, &headers, officer).await;
            }
            Err(e) => {
                warn!(target: SECURITY, officer = name, why = %e, "changing a passphrase failed");
                problem(&visit, &e, "signin-wrong")
            }
        }
    } else {
        (StatusCode::UNPROCESSABLE_ENTITY, visit.t.get("invited-again-wrong"))
    };
    (status, visit.show(&PassphrasePage { v: &visit, at: "", problem })).into_response()
}

pub(super) async fn invited(visit: Visit) -> Response {
    let (name, code, problem) = Default::default();
    visit.show(&InvitedPage { v: &visit, at: "signin", name, code, enrolment: None, problem })
}

#[derive(Deserialize)]
pub(super) struct TakeUp {
    name: String,
    code: String,
    #[serde(default)]
    passphrase: String,
    #[serde(default)]
    again: String,
    #[serde(default)]
    once: String,
}

/// First only name and code; then, with what the page shows of the seed, the passphrase and a one-time code.
pub(super) async fn take_up(
    visit: Visit,
    State(served): State<Arc<Served>>,
    headers: HeaderMap,
    Own(form): Own<TakeUp>,
) -> Response {
    let (name, code) = (form.name.trim(), form.code.trim());
    let mut failed = None;
    if !form.passphrase.is_empty() || !form.once.is_empty() {
        if form.passphrase == form.again {
            match served.officers.take_up(name, code, &form.passphrase, &form.once, now_ms()).await {
                Ok(officer) => return enter(&visit, &served, &headers, officer).await,
                Err(e) => {
                    warn!(target: SECURITY, why = %e, "taking up an invitation failed");
                    failed = Some(problem(&visit, &e, "invited-once-wrong"));
                }
            }
        } else {
            failed = Some((StatusCode::UNPROCESSABLE_ENTITY, visit.t.get("invited-again-wrong")));
        }
    }
    let enrolment = match served.officers.enrolment(name, code, now_ms()).await {
        Ok(enrolment) => {
            let qr = QRBuilder::new(enrolment.url).build().expect("a short address fits");
            Some((SvgBuilder::default().to_str(&qr), enrolment.seed))
        }
        Err(e) => {
            warn!(target: SECURITY, why = %e, "an invitation was not shown");
            failed = Some(problem(&visit, &e, "invited-wrong"));
            None
        }
    };
    let (status, problem) = failed.unwrap_or((StatusCode::OK, String::new()));
    let (name, code) = (name.chars().take(32).collect(), code.chars().take(64).collect());
    let page = InvitedPage { v: &visit, at: "signin", name, code, enrolment, problem };
    (status, visit.show(&page)).into_response()
}
