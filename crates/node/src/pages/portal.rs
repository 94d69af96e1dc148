//! Citizens go to the identity provider and come back: to sign in, to be identified in a case, to agree to what they read.

use super::{
    texts::Texts,
    visit::{Own, Visit},
};
use crate::{
    api::{SECURITY, Shared, now_ms},
    portal::{Errand, Portal, Waiting, person},
    session::Who,
};
use askama::Template;
use axum::{
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use flow::{CaseError, Evidence, Person};
use identity::{
    Identified,
    oidc::{OidcError, Proven, consent_binding, identify_binding},
};
use model::{CaseId, Commitment, ConsentTerms, RoleId};
use serde::Deserialize;
use tracing::{info, warn};

/// A page that leads on by itself. Browsers send a session's cookie along where a page of ours leads, and not where another site does;
/// and a policy on where forms go does not see where the answer leads.
#[derive(Template)]
#[template(path = "onward.html")]
struct OnwardPage<'a> {
    v: &'a Visit,
    at: &'static str,
    says: String,
    to: &'a str,
}

fn onward(visit: &Visit, says: String, to: &str) -> Response {
    visit.show(&OnwardPage { v: visit, at: "", says, to })
}

/// A page of this node to go on to; its first one where it is none.
fn local(to: &str) -> &str {
    let plain =
        to.starts_with('/') && !to.starts_with("//") && to.chars().all(|c| c.is_ascii_graphic() && c != '\\');
    if plain && to.len() <= 200 { to } else { "/" }
}

/// Sends the visitor to the provider.
pub(super) async fn send(visit: &Visit, errand: Errand) -> Response {
    let Some(portal) = visit.served.portal() else { return visit.sign_in_first() };
    let number = visit.citizen().map(|p| p.id.clone());
    let chain = visit.served.flow.chain().rules().chain;
    match portal.send(chain, errand, number, visit.t.0).await {
        Ok((url, browser)) => {
            let title = visit.t.pick(&portal.title).to_owned();
            let mut response = onward(visit, visit.t.with("portal-away", &[("title", title)]), &url);
            response.headers_mut().append(header::SET_COOKIE, visit.served.sessions.away(&browser));
            response
        }
        Err(e) => failed(visit, &e),
    }
}

fn failed(visit: &Visit, e: &OidcError) -> Response {
    warn!(target: SECURITY, why = %e, "nobody was known from the identity provider");
    let (status, key) = match e {
        OidcError::Setting(_) | OidcError::Provider(_) => (StatusCode::BAD_GATEWAY, "portal-silent"),
        OidcError::Word(_) => (StatusCode::FORBIDDEN, "portal-failed"),
        OidcError::Claim(_) => (StatusCode::FORBIDDEN, "portal-nameless"),
    };
    visit.error(status, key)
}

#[derive(Deserialize)]
pub(super) struct To {
    #[serde(default)]
    to: String,
}

pub(super) async fn sign_in(visit: Visit, Own(form): Own<To>) -> Response {
    send(&visit, Errand::SignIn(local(&form.to).to_owned())).await
}

#[derive(Deserialize)]
pub(super) struct Back {
    #[serde(default)]
    state: String,
    code: Option<String>,
    error: Option<String>,
}

/// Where the provider sends people back to. The session's cookie does not come along; the one they went with does.
pub(super) async fn back(
    mut visit: Visit,
    State(served): Shared,
    headers: HeaderMap,
    Query(back): Query<Back>,
) -> Response {
    let Some(portal) = served.portal() else { return visit.error(StatusCode::NOT_FOUND, "error-unknown") };
    let Some(waiting) = portal.back(&back.state, served.sessions.away_of(&headers)) else {
        warn!(target: SECURITY, "somebody came back from the identity provider who had not gone there, or too late");
        return visit.error(StatusCode::BAD_REQUEST, "portal-stale");
    };
    let Waiting { away, errand, number, language, .. } = waiting;
    visit.t = Texts(language);
    let Some(code) = back.code.filter(|_| back.error.is_none()) else {
        // one of the standard's words; not what else the provider says
        let why = back.error.unwrap_or_default();
        let denied = why == "access_denied";
        warn!(target: SECURITY, denied, "somebody came back from the identity provider without its word");
        return visit.error(StatusCode::FORBIDDEN, if denied { "portal-denied" } else { "portal-failed" });
    };
    let proven = match portal.provider.finish(away, code).await {
        Ok(proven) => proven,
        Err(e) => return failed(&visit, &e),
    };
    let Some(person) = person(&proven) else {
        warn!(target: SECURITY, "the identity provider named somebody without a resident identity number");
        return visit.error(StatusCode::FORBIDDEN, "portal-nameless");
    };
    if number.as_ref().is_some_and(|number| *number != person.id) {
        warn!(target: SECURITY, "somebody else came back from the identity provider than went there");
        return visit.error(StatusCode::FORBIDDEN, "portal-other");
    }
    let mut response = match errand {
        Errand::SignIn(to) => {
            info!(target: SECURITY, level = ?proven.level, "a citizen signed in");
            let cookie = served.sessions.begin(&headers, Who::Person(person));
            let mut response = onward(&visit, visit.t.get("portal-back"), &to);
            response.headers_mut().append(header::SET_COOKIE, cookie);
            response
        }
        // nobody is identified, and nothing signed, but for whoever was signed in
        _ if number.is_none() => return visit.sign_in_first(),
        Errand::Identify(case, role, subject) => {
            let done = identify(&visit, portal, case, &role, subject, &proven).await;
            to_case(&visit, case, done)
        }
        Errand::Consent(terms) => {
            let case = terms.case;
            let done = consent(&visit, portal, *terms, &proven).await;
            to_case(&visit, case, done)
        }
    };
    response.headers_mut().append(header::SET_COOKIE, served.sessions.away(""));
    response
}

fn to_case(visit: &Visit, case: CaseId, done: Result<(), CaseError>) -> Response {
    match done {
        Ok(()) => onward(visit, visit.t.get("portal-back"), &format!("/case/{case}")),
        Err(e) => visit.failed(&e),
    }
}

async fn identify(
    visit: &Visit,
    portal: &Portal,
    case: CaseId,
    role: &RoleId,
    subject: Commitment,
    proven: &Proven,
) -> Result<(), CaseError> {
    let chain = visit.served.flow.chain().rules().chain;
    let who = Identified { chain, case, role, subject, at_ms: now_ms() };
    keep(visit, case, role, identify_binding(&who), proven).await?;
    let (assertion, signature) = portal.terminal.vouch_online(&who, proven);
    visit.served.identify(assertion, signature).await
}

async fn consent(
    visit: &Visit,
    portal: &Portal,
    terms: ConsentTerms,
    proven: &Proven,
) -> Result<(), CaseError> {
    keep(visit, terms.case, &terms.role, consent_binding(&terms), proven).await?;
    let signature = portal.terminal.pad().sign(&terms.signing_bytes());
    visit.served.flow.give_consent(terms, signature).await.map(drop)
}

async fn keep(
    visit: &Visit,
    case: CaseId,
    role: &RoleId,
    bound: model::Digest,
    proven: &Proven,
) -> Result<(), CaseError> {
    let evidence = Evidence { role: role.clone(), bound, word: proven.token.clone() };
    visit.served.flow.keep_evidence(case, &evidence).await
}

/// Signs a citizen out at the provider too, where it has a page for that: on a public terminal the next in line is somebody else.
pub(super) async fn leave(visit: &Visit, over: HeaderValue) -> Response {
    let there = match visit.served.portal() {
        Some(portal) => portal.provider.leave(&portal.home).await,
        None => None,
    };
    let mut response = onward(visit, visit.t.get("portal-left"), there.as_deref().unwrap_or("/"));
    response.headers_mut().append(header::SET_COOKIE, over);
    response
}

/// Whether the visitor, a party of a case, signs by authenticating: they were identified here.
pub(super) fn signs_here(visit: &Visit, signer: Option<&model::PublicKey>) -> bool {
    let own = visit.served.portal().map(|p| p.terminal.public());
    own.is_some() && own.as_ref() == signer
}

/// Whether the visitor came in by this door.
pub(super) fn came_by(visit: &Visit) -> Option<&Person> {
    visit.citizen().filter(|_| !visit.demo())
}

#[cfg(test)]
mod tests {
    use super::local;

    #[test]
    fn nobody_is_led_away() {
        assert_eq!(local("/matters/newborn/apply?lang=en"), "/matters/newborn/apply?lang=en");
        for elsewhere in
            ["//evil.example", "https://evil.example", "/\\evil.example", "", "javascript:1", "/a b", "/\n"]
        {
            assert_eq!(local(elsewhere), "/", "{elsewhere}");
        }
        assert_eq!(local(&format!("/{}", "a".repeat(300))), "/");
    }
}
