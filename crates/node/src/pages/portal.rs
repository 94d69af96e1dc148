//! Citizens go to the identity provider and come back: to sign in, to be identified in a case, to agree to what they read.

use super::{
    signin::To,
    texts::Texts,
    visit::{Own, Visit},
};
use crate::{
    api::{SECURITY, Shared, now_ms},
    portal::{Errand, Portal, Waiting, is_named, person},
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

/// What a case's page may say of a way to the provider that came to nothing.
pub(super) const SAID: [&str; 7] = [
    "portal-denied",
    "portal-failed",
    "portal-silent",
    "portal-nameless",
    "portal-name",
    "portal-other",
    "portal-changed",
];

/// Says that nothing came of it: on the page of the case it was about, where whoever is signed in is signed in.
fn in_vain(visit: &Visit, case: Option<CaseId>, status: StatusCode, key: &'static str) -> Response {
    match case {
        Some(case) => onward(visit, visit.t.get(key), &format!("/case/{case}?said={key}")),
        None => visit.error(status, key),
    }
}

fn failed(visit: &Visit, case: Option<CaseId>, e: &OidcError) -> Response {
    warn!(target: SECURITY, why = %e, "nobody was known from the identity provider");
    let (status, key) = match e {
        OidcError::Setting(_) | OidcError::Provider(_) => (StatusCode::BAD_GATEWAY, "portal-silent"),
        OidcError::Word(_) => (StatusCode::FORBIDDEN, "portal-failed"),
        OidcError::Claim(_) => (StatusCode::FORBIDDEN, "portal-nameless"),
    };
    in_vain(visit, case, status, key)
}

/// Sends the visitor to the provider.
pub(super) async fn send(visit: &Visit, errand: Errand) -> Response {
    let Some(portal) = visit.served.portal() else { return visit.sign_in_first() };
    let number = visit.citizen().map(|p| p.id.clone());
    let chain = visit.served.flow.chain().rules().chain;
    let (case, before) = (errand.case(), visit.session_name.clone());
    match portal.send(chain, errand, number, before, visit.t.0).await {
        Ok((url, browser)) => {
            let title = visit.t.pick(&portal.title).to_owned();
            let mut response = onward(visit, visit.t.with("portal-away", &[("title", title)]), &url);
            response.headers_mut().append(header::SET_COOKIE, visit.served.sessions.away(&browser));
            response
        }
        Err(e) => failed(visit, case, &e),
    }
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
    let Waiting { away, errand, number, before, language, .. } = waiting;
    visit.t = Texts(language);
    let case = errand.case();
    let Some(code) = back.code.filter(|_| back.error.is_none()) else {
        // one of the standard's words; not what else the provider says
        let denied = back.error.is_some_and(|why| why == "access_denied");
        warn!(target: SECURITY, denied, "somebody came back from the identity provider without its word");
        let key = if denied { "portal-denied" } else { "portal-failed" };
        return in_vain(&visit, case, StatusCode::FORBIDDEN, key);
    };
    let proven = match portal.finish(away, code, number.is_some()).await {
        Ok(proven) => proven,
        Err(e) => return failed(&visit, case, &e),
    };
    let Some(person) = person(&proven) else {
        warn!(target: SECURITY, "the identity provider named somebody without a resident identity number");
        return in_vain(&visit, case, StatusCode::FORBIDDEN, "portal-nameless");
    };
    let mut response = match errand {
        Errand::SignIn(to) => {
            info!(target: SECURITY, level = ?proven.level, "a citizen signed in");
            let cookie = served.sessions.begin(&headers, Who::Person(person));
            if let Some(before) = before {
                served.sessions.forget(&before);
            }
            let mut response = onward(&visit, visit.t.get("portal-back"), &to);
            response.headers_mut().append(header::SET_COOKIE, cookie);
            response
        }
        // nobody is identified, and nothing signed, but for whoever was signed in
        _ if number.as_ref() != Some(&person.id) => {
            warn!(target: SECURITY, "somebody else came back from the identity provider than went there");
            in_vain(&visit, case, StatusCode::FORBIDDEN, "portal-other")
        }
        Errand::Identify(case, role, subject) => {
            let view = served.flow.case(case);
            let named = view.as_ref().and_then(|view| view.case.value(&format!("{role}.name")));
            if !named.is_some_and(|name| is_named(name, &proven.name)) {
                // a clerk looks at the document
                warn!(target: SECURITY, "nobody was identified: the provider says another name than the application");
                return in_vain(&visit, Some(case), StatusCode::FORBIDDEN, "portal-name");
            }
            match view.is_some_and(|view| view.case.identified.contains_key(&role)) {
                true => to_case(&visit, case, Ok(())),
                false => to_case(&visit, case, identify(&visit, portal, case, &role, subject, &proven).await),
            }
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
        Err(e) => {
            warn!(target: SECURITY, why = %e, "what a citizen confirmed was not taken");
            in_vain(visit, Some(case), StatusCode::CONFLICT, "portal-changed")
        }
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
    keep(visit, case, role, ("identify", identify_binding(&who)), proven).await?;
    let (assertion, signature) = portal.terminal.vouch_online(&who, proven);
    visit.served.identify(assertion, signature).await
}

async fn consent(
    visit: &Visit,
    portal: &Portal,
    terms: ConsentTerms,
    proven: &Proven,
) -> Result<(), CaseError> {
    visit.served.flow.text_of(&terms)?;
    keep(visit, terms.case, &terms.role, ("consent", consent_binding(&terms)), proven).await?;
    let signature = portal.terminal.pad().sign(&terms.signing_bytes());
    visit.served.flow.give_consent(terms, signature).await.map(drop)
}

async fn keep(
    visit: &Visit,
    case: CaseId,
    role: &RoleId,
    (of, bound): (&str, model::Digest),
    proven: &Proven,
) -> Result<(), CaseError> {
    let evidence = Evidence { role: role.clone(), of: of.into(), bound, word: proven.token.clone() };
    visit.served.flow.keep_evidence(case, &evidence).await
}

/// Signs a citizen out at the provider too, where it has a page for that: on a public terminal the next in line is somebody else.
pub(super) fn leave(visit: Visit, over: HeaderValue) -> Response {
    let visit = visit.signed_out();
    let there = visit.served.portal().and_then(|portal| portal.provider.leave(&portal.home));
    let mut response = onward(&visit, visit.t.get("portal-left"), there.as_deref().unwrap_or("/"));
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
