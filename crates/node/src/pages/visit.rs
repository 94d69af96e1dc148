//! What every page needs of its request: the language, who is signed in, and the checks before a form is believed.

use super::texts::Texts;
use crate::{
    Persona,
    api::{SECURITY, Served, route_of},
    officers::{Officer, OfficerRole},
    session::{Session, Who},
};
use askama::Template;
use axum::{
    Form, RequestPartsExt as _,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{Html, IntoResponse as _, Response},
};
use flow::{CaseError, CaseView, Person};
use model::{Language, Party, Refusal, RoleId, identifier};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::Arc,
};
use tracing::warn;

/// A request for a page.
pub(super) struct Visit {
    pub(super) served: Arc<Served>,
    pub(super) t: Texts,
    session: Option<Session>,
    set_language: Option<&'static str>,
    /// What names the session.
    pub(super) session_name: Option<String>,
    /// The page that was asked for, to come back to.
    page: Option<String>,
}

fn language_of(tag: &str) -> Option<Language> {
    match tag {
        "en" => Some(Language::English),
        "zh-CN" => Some(Language::Chinese),
        _ => None,
    }
}

fn text_of(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

impl FromRequestParts<Arc<Served>> for Visit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, served: &Arc<Served>) -> Result<Self, Infallible> {
        let query = parts.uri.query().unwrap_or_default();
        let asked = query.split('&').find_map(|pair| language_of(pair.strip_prefix("lang=")?));
        let cookies = text_of(&parts.headers, header::COOKIE);
        let kept = cookies.split(';').find_map(|c| language_of(c.trim().strip_prefix("tongban_lang=")?));
        let english = text_of(&parts.headers, header::ACCEPT_LANGUAGE).trim_start().starts_with("en");
        let preferred = if english { Language::English } else { Language::Chinese };
        Ok(Self {
            served: served.clone(),
            t: Texts(asked.or(kept).unwrap_or(preferred)),
            session: served.sessions.of(&parts.headers),
            session_name: served.sessions.named(&parts.headers),
            set_language: asked.map(Language::tag),
            page: (parts.method == Method::GET).then(|| parts.uri.path().to_owned()),
        })
    }
}

impl Visit {
    pub(super) fn csrf(&self) -> &str {
        self.session.as_ref().map(|s| s.csrf.as_str()).unwrap_or_default()
    }

    /// Whether a form came from a page of the visitor's own session.
    pub(super) fn owns(&self, csrf: &str) -> bool {
        self.session.as_ref().is_some_and(|s| s.csrf == csrf)
    }

    /// The same once the session was ended.
    pub(super) fn signed_out(self) -> Self {
        Self { session: None, ..self }
    }

    /// Whether this is the demo, whose door stands open.
    pub(super) fn demo(&self) -> bool {
        self.served.door.is_some()
    }

    /// Whether there is a data platform whose open data the pages lead to.
    pub(super) fn platform(&self) -> bool {
        self.served.platform.is_some()
    }

    pub(super) fn persona(&self) -> Option<&Persona> {
        match self.session.as_ref()?.who {
            Who::Persona(i) => self.served.door.as_ref()?.personas.get(i),
            Who::Person(_) | Who::Officer(_) => None,
        }
    }

    /// The citizen who is signed in.
    pub(super) fn citizen(&self) -> Option<&Person> {
        match &self.session.as_ref()?.who {
            Who::Person(person) => Some(person),
            Who::Persona(_) => self.persona().map(|p| &p.who),
            Who::Officer(_) => None,
        }
    }

    /// Whether citizens sign in here: in the demo, or through an identity provider.
    pub(super) fn has_citizens(&self) -> bool {
        self.demo() || self.served.portal().is_some()
    }

    /// The officer who is signed in.
    pub(super) fn officer(&self) -> Option<&Officer> {
        match &self.session.as_ref()?.who {
            Who::Officer(officer) => Some(officer),
            Who::Persona(_) | Who::Person(_) => None,
        }
    }

    /// Whether somebody with an account of their own is signed in.
    pub(super) fn has_account(&self) -> bool {
        self.officer().is_some_and(|officer| !officer.name.is_empty())
    }

    fn has(&self, role: OfficerRole) -> bool {
        self.officer().is_some_and(|officer| officer.roles.contains(&role))
    }

    /// Whether a clerk of the one window is signed in.
    pub(super) fn is_clerk(&self) -> bool {
        self.has(OfficerRole::Clerk)
    }

    /// Whether an officer who answers for the department's data is signed in.
    pub(super) fn is_data_officer(&self) -> bool {
        self.has(OfficerRole::Data)
    }

    /// Who is signed in, as the page's head says it.
    pub(super) fn who(&self) -> String {
        if let Some(officer) = self.officer() {
            return match (officer.name.as_str(), self.is_clerk()) {
                ("", true) => self.t.get("home-clerk"),
                ("", false) => self.t.get("home-officer"),
                _ => officer.title.clone(),
            };
        }
        self.citizen().map(|p| identifier::mask(&p.name)).unwrap_or_default()
    }

    pub(super) fn department(&self, id: &str) -> String {
        let (_, roster) = self.served.flow.chain().roster();
        let member = id.parse().ok().and_then(|id| roster.member(&id));
        member.map_or_else(|| id.to_owned(), |m| self.t.pick(&m.title).to_owned())
    }

    pub(super) fn show(&self, page: &impl Template) -> Response {
        let html = page.render().expect("a template renders into memory");
        let mut response = Html(html).into_response();
        if let Some(language) = self.set_language {
            let flags = self.served.sessions.flags();
            let cookie = format!("tongban_lang={language}; {flags}; Max-Age=31536000");
            if let Ok(value) = HeaderValue::from_str(&cookie) {
                response.headers_mut().append(header::SET_COOKIE, value);
            }
        }
        response
    }

    pub(super) fn error(&self, status: StatusCode, key: &str) -> Response {
        let message = self.t.get(key);
        (status, self.show(&ErrorPage { v: self, at: "", message, to: String::new() })).into_response()
    }

    /// What is another's: whoever is signed in is told so, and everybody else to sign in.
    pub(super) fn not_theirs(&self) -> Response {
        match self.officer() {
            Some(officer) => {
                warn!(target: SECURITY, officer = officer.name, "a page was refused: it is another role's");
                self.error(StatusCode::FORBIDDEN, "error-forbidden")
            }
            None if self.citizen().is_some() => self.error(StatusCode::FORBIDDEN, "error-not-yours"),
            None => self.sign_in_first(),
        }
    }

    pub(super) fn sign_in_first(&self) -> Response {
        let key = match (self.demo(), self.has_citizens()) {
            (true, _) => "error-signin",
            (false, true) => "error-signin-any",
            (false, false) => "error-signin-officer",
        };
        let (message, to) = (self.t.get(key), self.page.clone().unwrap_or_default());
        (StatusCode::UNAUTHORIZED, self.show(&ErrorPage { v: self, at: "", message, to })).into_response()
    }

    pub(super) fn failed(&self, e: &CaseError) -> Response {
        match e {
            CaseError::Unknown(_) => self.error(StatusCode::NOT_FOUND, "error-unknown"),
            CaseError::Invalid { .. } | CaseError::NotEligible(_) => {
                self.error(StatusCode::UNPROCESSABLE_ENTITY, "error-invalid")
            }
            CaseError::Refused(Refusal::Duplicate) => self.error(StatusCode::CONFLICT, "outcome-duplicate"),
            CaseError::TerminalLimit(_) => self.error(StatusCode::TOO_MANY_REQUESTS, "error-terminal-limit"),
            CaseError::Refused(_) | CaseError::Kept(_) => self.error(StatusCode::CONFLICT, "error-changed"),
            _ => self.error(StatusCode::SERVICE_UNAVAILABLE, "error-other"),
        }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    v: &'a Visit,
    at: &'static str,
    message: String,
    /// The page to come back to once signed in.
    to: String,
}

/// A case the visitor may see, by the `{id}` of the path; and their roles in it, or none for a clerk.
pub(super) struct Seen {
    pub(super) visit: Visit,
    pub(super) view: CaseView,
    pub(super) roles: Vec<RoleId>,
}

impl Seen {
    /// Whether a clerk looks at it.
    pub(super) fn by_clerk(&self) -> bool {
        self.roles.is_empty()
    }

    /// What is found for one of the visitor's roles, or for a clerk.
    pub(super) fn find<T>(&self, of: impl Fn(Option<&RoleId>) -> Option<T>) -> Option<T> {
        if self.by_clerk() { of(None) } else { self.roles.iter().find_map(|role| of(Some(role))) }
    }

    /// Whether it is so for one of the visitor's roles, or for a clerk.
    pub(super) fn any(&self, of: impl Fn(Option<&RoleId>) -> bool) -> bool {
        self.find(|role| of(role).then_some(())).is_some()
    }
}

/// The roles a citizen has in a case.
pub(super) fn roles_in(view: &CaseView, citizen: &Person) -> Vec<RoleId> {
    let has = |p: &&Party| view.case.value(&format!("{}.id", p.role)) == Some(&citizen.id);
    view.case.parties.iter().filter(has).map(|p| p.role.clone()).collect()
}

impl FromRequestParts<Arc<Served>> for Seen {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, served: &Arc<Served>) -> Result<Self, Response> {
        let Ok(visit) = Visit::from_request_parts(parts, served).await;
        let path = parts.extract::<Path<HashMap<String, String>>>().await;
        let id = path.ok().and_then(|Path(path)| path.get("id")?.parse().ok());
        let Some(view) = id.and_then(|id| served.flow.case(id)) else { return Err(visit.not_theirs()) };
        let roles = visit.citizen().map(|p| roles_in(&view, p)).unwrap_or_default();
        if roles.is_empty() && !visit.is_clerk() {
            let session = if visit.session.is_some() { "another" } else { "missing" };
            warn!(target: SECURITY, session, "a case was not shown: it is none of the visitor's");
            return Err(visit.not_theirs());
        }
        Ok(Self { visit, view, roles })
    }
}

/// The fields of a form that was sent from a page of the visitor's own session.
pub(super) struct Posted(HashMap<String, String>);

impl Posted {
    /// A field; empty where it was not sent.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// All fields by name.
    pub(super) fn all(self) -> BTreeMap<String, String> {
        self.0.into_iter().collect()
    }
}

impl FromRequest<Arc<Served>> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, served: &Arc<Served>) -> Result<Self, Response> {
        let route = route_of(&request);
        let (mut parts, body) = request.into_parts();
        let Ok(visit) = Visit::from_request_parts(&mut parts, served).await;
        let form = Form::<HashMap<String, String>>::from_request(Request::from_parts(parts, body), served);
        let Ok(Form(fields)) = form.await else {
            return Err(visit.error(StatusCode::BAD_REQUEST, "error-invalid"));
        };
        let own = fields.get("csrf").is_some_and(|csrf| visit.owns(csrf));
        if !own {
            let session = if visit.session.is_some() { "another" } else { "missing" };
            warn!(target: SECURITY, session, route, "a form was refused: it is of no page of its sender's session");
            return Err(visit.sign_in_first());
        }
        Ok(Self(fields))
    }
}

/// A form that was sent before anybody was signed in: browsers say whether it came from another site's page (Fetch Metadata).
pub(super) struct Own<T>(pub(super) T);

impl<T: for<'de> Deserialize<'de>> FromRequest<Arc<Served>> for Own<T> {
    type Rejection = Response;

    async fn from_request(request: Request, served: &Arc<Served>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Ok(visit) = Visit::from_request_parts(&mut parts, served).await;
        let site = parts.headers.get("sec-fetch-site").and_then(|v| v.to_str().ok());
        if site.is_some_and(|site| site != "same-origin") {
            warn!(target: SECURITY, "a form to sign in was refused: it is of another site's page");
            return Err(visit.error(StatusCode::FORBIDDEN, "error-invalid"));
        }
        let form = Form::<T>::from_request(Request::from_parts(parts, body), served).await;
        form.map(|Form(form)| Self(form)).map_err(|_| visit.error(StatusCode::BAD_REQUEST, "error-invalid"))
    }
}
