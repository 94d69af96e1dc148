//! The pages, rendered on the server; every journey works without JavaScript.

use crate::{
    DemoDoor, Persona,
    api::{Served, Shared, case_body, kind_of, now_ms},
    session::{Session, Who},
};
use askama::Template;
use axum::{
    Form, Router,
    body::Bytes,
    extract::{Multipart, Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use flow::{CaseError, CaseView, NewCase, Person, StepKind, case::StepState};
use fluent_templates::{LanguageIdentifier, Loader as _, static_loader};
use identity::Identified;
use model::*;
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};
use tower_http::set_header::SetResponseHeaderLayer;

static_loader! {
    static LOCALES = {
        locales: "./locales",
        fallback_language: "en",
        customise: |bundle| bundle.set_use_isolating(false),
    };
}

/// The texts of one language.
struct Texts(Language);

impl Texts {
    fn get(&self, key: &str) -> String {
        let language: LanguageIdentifier = self.0.tag().parse().expect("a language tag");
        LOCALES.lookup(&language, key)
    }

    fn pick<'a>(&self, text: &'a Text) -> &'a str {
        text.get(self.0)
    }

    fn tag(&self) -> &'static str {
        self.0.tag()
    }

    fn other(&self) -> &'static str {
        if self.0 == Language::Chinese { "en" } else { "zh-CN" }
    }

    /// A text by a key that may be unknown, with a fallback.
    fn or(&self, key: &str, fallback: &str) -> String {
        let known = LOCALES.locales().next().is_some()
            && include_str!("../locales/en/main.ftl").contains(&format!("\n{key} = "));
        self.get(if known { key } else { fallback })
    }
}

/// What every page needs of its request.
struct Visit {
    t: Texts,
    session: Option<Session>,
    set_language: Option<&'static str>,
}

#[derive(Deserialize)]
struct PageQuery {
    lang: Option<String>,
}

impl Visit {
    fn of(served: &Served, headers: &HeaderMap, query: &PageQuery) -> Self {
        let header =
            |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let asked = match query.lang.as_deref() {
            Some("en") => Some(Language::English),
            Some("zh-CN") => Some(Language::Chinese),
            _ => None,
        };
        let cookies = header(header::COOKIE);
        let kept = if cookies.contains("tongban_lang=en") {
            Some(Language::English)
        } else if cookies.contains("tongban_lang=zh-CN") {
            Some(Language::Chinese)
        } else {
            None
        };
        let accepts_english = header(header::ACCEPT_LANGUAGE).trim_start().starts_with("en");
        let preferred = if accepts_english { Language::English } else { Language::Chinese };
        let language = asked.or(kept).unwrap_or(preferred);
        Self {
            t: Texts(language),
            session: served.sessions.of(headers),
            set_language: asked.map(Language::tag),
        }
    }

    fn csrf(&self) -> String {
        self.session.as_ref().map(|s| s.csrf.clone()).unwrap_or_default()
    }

    fn persona<'a>(&self, served: &'a Served) -> Option<&'a Persona> {
        match self.session.as_ref()?.who {
            Who::Citizen(i) => served.door.as_ref()?.personas.get(i),
            Who::Clerk => None,
        }
    }

    fn is_clerk(&self) -> bool {
        self.session.as_ref().is_some_and(|s| s.who == Who::Clerk)
    }

    fn who(&self, served: &Served) -> String {
        if self.is_clerk() {
            return self.t.get("home-clerk");
        }
        self.persona(served).map(|p| identifier::mask(&p.name)).unwrap_or_default()
    }

    fn show(&self, page: &impl Template) -> Response {
        let html = page.render().expect("a template renders into memory");
        let mut response = Html(html).into_response();
        if let Some(language) = self.set_language {
            let cookie = format!("tongban_lang={language}; Path=/; SameSite=Strict; Max-Age=31536000");
            if let Ok(value) = HeaderValue::from_str(&cookie) {
                response.headers_mut().append(header::SET_COOKIE, value);
            }
        }
        response
    }

    fn error(&self, served: &Served, status: StatusCode, message: String) -> Response {
        let page = ErrorPage {
            t: &self.t,
            at: "",
            who: self.who(served),
            csrf: self.csrf(),
            demo: served.door.is_some(),
            message,
        };
        (status, self.show(&page)).into_response()
    }

    fn sign_in_first(&self, served: &Served) -> Response {
        self.error(served, StatusCode::UNAUTHORIZED, self.t.get("error-signin"))
    }

    fn failed(&self, served: &Served, e: &CaseError) -> Response {
        let status = match e {
            CaseError::Unknown(_) => StatusCode::NOT_FOUND,
            CaseError::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            CaseError::Refused(_) => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let message = match e {
            CaseError::Refused(Refusal::Duplicate) => self.t.get("outcome-duplicate"),
            _ => self.t.get("error-other"),
        };
        self.error(served, status, message)
    }
}

macro_rules! page {
    ($name:ident, $path:literal { $($field:ident: $kind:ty),* $(,)? }) => {
        #[derive(Template)]
        #[template(path = $path)]
        struct $name<'a> {
            t: &'a Texts,
            at: &'static str,
            who: String,
            csrf: String,
            demo: bool,
            $($field: $kind),*
        }
    };
}

struct PersonaRow {
    name: String,
    role: String,
    id: String,
}
struct StepRow {
    title: String,
    department: String,
    status: String,
    state: String,
    ms: u64,
}
struct ActionRow {
    url: String,
    method: &'static str,
    label: String,
    main: bool,
}
struct UseRow {
    who: String,
    from: String,
    what: String,
    why: String,
    basis: String,
    state: String,
    status: String,
    url: String,
}
struct DeskRow {
    id: String,
    short: String,
    outcome: String,
    state: String,
    next: String,
}
struct RecordRow {
    when: String,
    signer: String,
    kind: String,
    short: String,
    class: &'static str,
    outcome: String,
}

page!(HomePage, "home.html" { matters: Vec<String>, citizen: bool, personas: Vec<PersonaRow> });
page!(ApplyPage, "apply.html" { unit: String, contract: String, me: String, other: String });
page!(CasePage, "case.html" {
    id: String, short: String, running: bool, outcome: String, outcome_key: String, waits_for: String, reason: String,
    next: String, actions: Vec<ActionRow>, hint: String, steps: Vec<StepRow>, receipts: Vec<String>,
});
page!(SignPage, "sign.html" { id: String, role: String, text: String, terms: String });
page!(MinePage, "mine.html" { rows: Vec<UseRow>, cases: Vec<(String, String)> });
page!(DeskPage, "desk.html" { rows: Vec<DeskRow> });
page!(ExplorerPage, "explorer.html" { height: u64, departments: usize, validators: usize, rows: Vec<RecordRow> });
page!(VerifyPage, "verify.html" { genesis: String, result: String, result_class: &'static str, facts: Vec<(String, String)> });
page!(ErrorPage, "error.html" { message: String });

async fn home(State(served): Shared, headers: HeaderMap, Query(query): Query<PageQuery>) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    let t = &visit.t;
    let personas = served.door.as_ref().map(|d| d.personas.as_slice()).unwrap_or_default();
    let row = |p: &Persona| PersonaRow {
        name: p.name.clone(),
        role: t.get(&format!("role-{}", p.role)),
        id: identifier::mask(&p.id),
    };
    visit.show(&HomePage {
        t,
        at: "home",
        who: visit.who(&served),
        csrf: visit.csrf(),
        demo: served.door.is_some(),
        matters: served.flow.packages().iter().map(|p| t.pick(&p.title).to_owned()).collect(),
        citizen: visit.persona(&served).is_some(),
        personas: personas.iter().map(row).collect(),
    })
}

#[derive(Deserialize)]
struct EnterForm {
    who: String,
}

async fn enter(State(served): Shared, Form(form): Form<EnterForm>) -> Response {
    let Some(door) = &served.door else { return StatusCode::NOT_FOUND.into_response() };
    let (who, to) = match form.who.as_str() {
        "clerk" => (Who::Clerk, "/desk"),
        index => match index.parse::<usize>() {
            Ok(i) if i < door.personas.len() => (Who::Citizen(i), "/apply"),
            _ => return StatusCode::BAD_REQUEST.into_response(),
        },
    };
    let mut response = Redirect::to(to).into_response();
    response.headers_mut().append(header::SET_COOKIE, served.sessions.begin(who));
    response
}

#[derive(Deserialize)]
struct Csrf {
    csrf: String,
}

async fn leave(State(served): Shared, headers: HeaderMap, Form(form): Form<Csrf>) -> Response {
    if served.sessions.of(&headers).is_some_and(|s| s.csrf == form.csrf) {
        served.sessions.end(&headers);
    }
    Redirect::to("/").into_response()
}

async fn apply_form(State(served): Shared, headers: HeaderMap, Query(query): Query<PageQuery>) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    let Some(persona) = visit.persona(&served) else { return visit.sign_in_first(&served) };
    let shown = |name: &str, id: &str| format!("{name} {}", identifier::mask(id));
    visit.show(&ApplyPage {
        t: &visit.t,
        at: "home",
        who: visit.who(&served),
        csrf: visit.csrf(),
        demo: true,
        unit: persona.unit.clone(),
        contract: persona.contract.clone(),
        me: shown(&persona.name, &persona.id),
        other: shown(&identifier::mask(&persona.other_name), &persona.other_id),
    })
}

#[derive(Deserialize)]
struct ApplyForm {
    csrf: String,
    unit: String,
    contract: String,
}

/// A form's token must be that of its session.
fn right_form(visit: &Visit, csrf: &str) -> bool {
    visit.session.as_ref().is_some_and(|s| s.csrf == csrf)
}

async fn apply(
    State(served): Shared,
    headers: HeaderMap,
    Query(query): Query<PageQuery>,
    Form(form): Form<ApplyForm>,
) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    let (Some(me), true) = (visit.persona(&served), right_form(&visit, &form.csrf)) else {
        return visit.sign_in_first(&served);
    };
    let name = |text: &str| text.parse().expect("a name");
    let mine = Person { id: me.id.clone(), name: me.name.clone() };
    let other = Person { id: me.other_id.clone(), name: me.other_name.clone() };
    let (seller, buyer) = if me.role == "seller" { (mine, other) } else { (other, mine) };
    let new = NewCase {
        matter: "house-transfer".parse().expect("a name"),
        form: BTreeMap::from([(name("unit"), form.unit), (name("contract"), form.contract)]),
        parties: BTreeMap::from([
            ("seller".parse().expect("a name"), seller),
            ("buyer".parse().expect("a name"), buyer),
        ]),
    };
    match served.flow.open_case(new).await {
        Ok(id) => {
            // whoever applies is signed in, and so identified
            let role = me.role.parse().expect("a name");
            if let Some(door) = &served.door
                && let Err(e) = identify(&served, door, id, &role, Some(&me.id)).await
            {
                return visit.failed(&served, &e);
            }
            Redirect::to(&format!("/case/{id}")).into_response()
        }
        Err(e) => visit.failed(&served, &e),
    }
}

/// The demo's terminal vouches for a party: with the key of their device, or signing on its own pad.
async fn identify(
    served: &Served,
    door: &DemoDoor,
    id: CaseId,
    role: &RoleId,
    device: Option<&str>,
) -> Result<(), CaseError> {
    let view = served.flow.case(id).ok_or(CaseError::Unknown("case"))?;
    let party = view.case.parties.iter().find(|p| &p.role == role).ok_or(CaseError::Unknown("role"))?;
    let chain = served.flow.chain().rules().chain;
    let who = Identified { chain, case: id, role, subject: party.subject, at_ms: now_ms() };
    let (assertion, signature) = match device {
        Some(person) => door.terminal.vouch_for_passkey(&who, door.device(person).public()),
        None => door.terminal.vouch_at_counter(&who),
    };
    served.flow.identify(assertion, signature).await
}

/// The role a persona has in a case, where they have one.
fn role_in(view: &CaseView, persona: &Persona) -> Option<RoleId> {
    let has = |p: &&Party| view.case.value(&format!("{}.id", p.role)) == Some(&persona.id);
    view.case.parties.iter().find(has).map(|p| p.role.clone())
}

/// A case the visitor may see, with their role in it (none for a clerk).
fn visible(served: &Served, visit: &Visit, id: &str) -> Option<(CaseView, Option<RoleId>)> {
    let view = served.flow.case(id.parse().ok()?)?;
    if visit.is_clerk() {
        return Some((view, None));
    }
    let role = role_in(&view, visit.persona(served)?)?;
    Some((view, Some(role)))
}

fn department_title(served: &Served, t: &Texts, id: &str) -> String {
    let member = id.parse().ok().and_then(|id| served.flow.chain().rules().genesis.member(&id).cloned());
    member.map_or_else(|| id.to_owned(), |m| t.pick(&m.title).to_owned())
}

async fn case(
    State(served): Shared,
    headers: HeaderMap,
    Query(query): Query<PageQuery>,
    Path(id): Path<String>,
) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    let Some((view, role)) = visible(&served, &visit, &id) else { return visit.sign_in_first(&served) };
    let t = &visit.t;
    let body = case_body(&view, now_ms());
    let steps = view.package.steps.iter().zip(&body.steps).map(|(step, s)| StepRow {
        title: t.pick(&step.title).to_owned(),
        department: department_title(&served, t, &s.department),
        state: t.get(&format!("step-{}", s.status)),
        status: s.status.clone(),
        ms: s.ms,
    });
    let (actions, hint) = case_actions(&served, &view, &visit, role.as_ref());
    let running = view.case.settled.is_none();
    let reason =
        if running { String::new() } else { t.or(&format!("reason-{}", body.reason), "reason-other") };
    visit.show(&CasePage {
        t,
        at: if role.is_some() { "home" } else { "desk" },
        who: visit.who(&served),
        csrf: visit.csrf(),
        demo: served.door.is_some(),
        short: view.case.id.short(),
        running,
        outcome_key: format!("outcome-{}", body.outcome),
        waits_for: department_title(&served, t, &body.waits_for),
        reason,
        next: if running { String::new() } else { t.or(&format!("next-{}", body.outcome), "error-other") },
        actions,
        hint,
        steps: steps.collect(),
        receipts: if running { vec![] } else { served.flow.receipt_names(view.case.id) },
        outcome: body.outcome,
        id,
    })
}

/// What the visitor can do in a case now, and what they wait for otherwise.
fn case_actions(
    served: &Served,
    view: &CaseView,
    visit: &Visit,
    role: Option<&RoleId>,
) -> (Vec<ActionRow>, String) {
    let (case, t) = (&view.case, &visit.t);
    let mut actions = Vec::new();
    if case.settled.is_some() {
        return (actions, String::new());
    }
    let mut action =
        |url: String, method, label: String, main| actions.push(ActionRow { url, method, label, main });
    let ready_to_sign = |role: &RoleId| {
        let sign =
            view.package.steps.iter().find(|s| s.kind == StepKind::Sign && s.party.as_ref() == Some(role));
        sign.is_some_and(|s| s.after.iter().all(|a| matches!(case.state(a), StepState::Done(_))))
    };
    let given = |role: &RoleId| case.consents.get(role).is_some_and(|c| c.2.is_none());
    match role {
        Some(role) => {
            if !case.identified.contains_key(role) {
                action(format!("/case/{}/identify/{role}", case.id), "post", t.get("case-identify"), true);
            } else if !given(role) && ready_to_sign(role) {
                action(format!("/case/{}/sign/{role}", case.id), "get", t.get("case-sign"), true);
            }
            if given(role) && case.state(&pivot(view)) == StepState::NotStarted {
                action(format!("/case/{}/withdraw/{role}", case.id), "post", t.get("case-withdraw"), false);
            }
        }
        None => {
            if view.unconfirmed.is_some() {
                action(format!("/case/{}/confirm", case.id), "post", t.get("case-confirm"), true);
            }
            for party in &case.parties {
                let named = view.package.parties.iter().find(|p| p.id == party.role);
                let title = named.map(|p| t.pick(&p.title)).unwrap_or_default();
                if !case.identified.contains_key(&party.role) {
                    let label = format!("{} – {title}", t.get("case-counter-identify"));
                    action(format!("/case/{}/identify/{}", case.id, party.role), "post", label, true);
                } else if !given(&party.role)
                    && ready_to_sign(&party.role)
                    && signs_on_pad(served, view, &party.role)
                {
                    let label = format!("{} – {title}", t.get("case-counter-sign"));
                    action(format!("/case/{}/sign/{}", case.id, party.role), "get", label, true);
                }
            }
        }
    }
    let everybody = case.parties.iter().all(|p| given(&p.role));
    let hint = match role {
        _ if actions.iter().any(|a| a.main) => String::new(),
        Some(role) if given(role) && !everybody => t.get("wait-other"),
        Some(role) if case.identified.contains_key(role) && case.identified.len() < case.parties.len() => {
            t.get("wait-other")
        }
        _ => t.get("working"),
    };
    (actions, hint)
}

fn pivot(view: &CaseView) -> StepId {
    view.package.steps.iter().find(|s| s.pivot).map(|s| s.id.clone()).expect("a checked package has a pivot")
}

/// Whether a party's signing key is the counter's pad, so that the clerk can take their signature.
fn signs_on_pad(served: &Served, view: &CaseView, role: &RoleId) -> bool {
    let pad = served.door.as_ref().map(|d| d.terminal.pad().public());
    view.case.identified.get(role).map(|(_, key)| *key) == pad
}

async fn identify_post(
    State(served): Shared,
    headers: HeaderMap,
    Query(query): Query<PageQuery>,
    Path((id, role)): Path<(String, String)>,
    Form(form): Form<Csrf>,
) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    let seen = visible(&served, &visit, &id);
    let (Some((view, mine)), Some(door), true) = (seen, &served.door, right_form(&visit, &form.csrf)) else {
        return visit.sign_in_first(&served);
    };
    let Ok(role) = role.parse::<RoleId>() else { return StatusCode::BAD_REQUEST.into_response() };
    if mine.as_ref().is_some_and(|m| *m != role) {
        return visit.sign_in_first(&served);
    }
    if view.case.identified.contains_key(&role) {
        return Redirect::to(&format!("/case/{id}")).into_response();
    }
    let device = mine.and(visit.persona(&served)).map(|p| p.id.as_str());
    match identify(&served, door, view.case.id, &role, device).await {
        Ok(()) => Redirect::to(&format!("/case/{id}")).into_response(),
        Err(e) => visit.failed(&served, &e),
    }
}

async fn sign_page(
    State(served): Shared,
    headers: HeaderMap,
    Query(query): Query<PageQuery>,
    Path((id, role)): Path<(String, String)>,
) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    let Some((view, mine)) = visible(&served, &visit, &id) else { return visit.sign_in_first(&served) };
    let Ok(role_id) = role.parse::<RoleId>() else { return StatusCode::BAD_REQUEST.into_response() };
    if mine.is_some_and(|m| m != role_id) {
        return visit.sign_in_first(&served);
    }
    match served.flow.consent_draft(view.case.id, &role_id, visit.t.0) {
        Ok((text, terms)) => visit.show(&SignPage {
            t: &visit.t,
            at: "home",
            who: visit.who(&served),
            csrf: visit.csrf(),
            demo: served.door.is_some(),
            id,
            role,
            text,
            terms: hex::encode(encode(&terms)),
        }),
        Err(e) => visit.failed(&served, &e),
    }
}

#[derive(Deserialize)]
struct SignForm {
    csrf: String,
    terms: String,
}

async fn sign_post(
    State(served): Shared,
    headers: HeaderMap,
    Query(query): Query<PageQuery>,
    Path((id, role)): Path<(String, String)>,
    Form(form): Form<SignForm>,
) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    let seen = visible(&served, &visit, &id);
    let (Some((view, mine)), Some(door), true) = (seen, &served.door, right_form(&visit, &form.csrf)) else {
        return visit.sign_in_first(&served);
    };
    let terms = hex::decode(&form.terms).ok().and_then(|bytes| decode::<ConsentTerms>(&bytes).ok());
    let (Some(terms), Ok(role)) = (terms, role.parse::<RoleId>()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    // a citizen signs for themselves; a clerk only takes signatures that are given on the counter's pad
    let may = mine.map_or_else(|| signs_on_pad(&served, &view, &role), |m| m == role);
    if terms.case != view.case.id || terms.role != role || !may {
        return visit.sign_in_first(&served);
    }
    let signature = sign_as(&view, door, &role, &terms.signing_bytes());
    match served.flow.give_consent(terms, signature).await {
        Ok(_) => Redirect::to(&format!("/case/{id}")).into_response(),
        Err(e) => visit.failed(&served, &e),
    }
}

/// Signs with the key the party was identified with: the pad, or (in the demo) the persona's device.
fn sign_as(view: &CaseView, door: &DemoDoor, role: &RoleId, message: &[u8]) -> [u8; 64] {
    let pad = door.terminal.pad();
    let on_pad = view.case.identified.get(role).is_some_and(|(_, key)| *key == pad.public());
    match view.case.value(&format!("{role}.id")) {
        Some(person) if !on_pad => door.device(person).sign(message),
        _ => pad.sign(message),
    }
}

async fn withdraw(
    State(served): Shared,
    headers: HeaderMap,
    Query(query): Query<PageQuery>,
    Path((id, role)): Path<(String, String)>,
    Form(form): Form<Csrf>,
) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    let seen = visible(&served, &visit, &id);
    let (Some((view, Some(mine))), Some(door), true) = (seen, &served.door, right_form(&visit, &form.csrf))
    else {
        return visit.sign_in_first(&served);
    };
    let Some((consent, ..)) = view.case.consents.get(&mine).filter(|_| mine.as_str() == role) else {
        return visit.sign_in_first(&served);
    };
    let consent = ConsentId(consent.0);
    let message = WithdrawConsent::signing_bytes(served.flow.chain().rules().chain, consent);
    let signature = sign_as(&view, door, &mine, &message);
    match served.flow.withdraw_consent(consent, signature).await {
        Ok(()) => Redirect::to(&format!("/case/{id}")).into_response(),
        Err(e) => visit.failed(&served, &e),
    }
}

async fn confirm(
    State(served): Shared,
    headers: HeaderMap,
    Query(query): Query<PageQuery>,
    Path(id): Path<String>,
    Form(form): Form<Csrf>,
) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    if !visit.is_clerk() || !right_form(&visit, &form.csrf) {
        return visit.sign_in_first(&served);
    }
    let Ok(case) = id.parse() else { return StatusCode::BAD_REQUEST.into_response() };
    match served.flow.confirm_decision(case, "窗口人员").await {
        Ok(()) => Redirect::to(&format!("/case/{id}")).into_response(),
        Err(e) => visit.failed(&served, &e),
    }
}

async fn receipt(
    State(served): Shared,
    headers: HeaderMap,
    Query(query): Query<PageQuery>,
    Path((id, name)): Path<(String, String)>,
) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    let Some((view, _)) = visible(&served, &visit, &id) else { return visit.sign_in_first(&served) };
    match served.flow.receipt(view.case.id, &name).await {
        Ok(Some(receipt)) => {
            ([(header::CONTENT_TYPE, "application/json")], receipt.to_bytes()).into_response()
        }
        Ok(None) => visit.failed(&served, &CaseError::Unknown("receipt")),
        Err(e) => visit.failed(&served, &CaseError::Chain(e)),
    }
}

async fn mine(State(served): Shared, headers: HeaderMap, Query(query): Query<PageQuery>) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    let Some(persona) = visit.persona(&served) else { return visit.sign_in_first(&served) };
    let t = &visit.t;
    let (mut rows, mut cases) = (Vec::new(), Vec::new());
    for id in served.flow.case_ids() {
        let Some(view) = served.flow.case(id) else { continue };
        let Some(role) = role_in(&view, persona) else { continue };
        cases.push((id.to_string(), id.short()));
        for step in view.package.steps.iter().filter(|s| s.party.as_ref() == Some(&role)) {
            if let (true, Some(what)) = (view.case.calls.contains_key(&step.id), &step.what) {
                rows.push(use_row(&served, t, &view, step, what));
            }
        }
    }
    visit.show(&MinePage {
        t,
        at: "mine",
        who: visit.who(&served),
        csrf: visit.csrf(),
        demo: true,
        rows,
        cases,
    })
}

fn use_row(served: &Served, t: &Texts, view: &CaseView, step: &flow::Step, what: &What) -> UseRow {
    let resource = step.resource.as_ref().and_then(|r| served.flow.resource(r));
    let title = |name: &FieldId| {
        let resource = resource.as_ref()?;
        let field = resource.fields.iter().find(|f| &f.id == name).map(|f| &f.title);
        field
            .or(resource.predicates.iter().find(|p| &p.id == name).map(|p| &p.title))
            .map(|x| t.pick(x).to_owned())
    };
    let names: Vec<_> = what.names().iter().map(|n| title(n).unwrap_or_else(|| n.to_string())).collect();
    let basis = match &step.basis {
        Some(flow::Basis::Statutory(_)) => "basis-statutory",
        Some(flow::Basis::SelfAccess) => "basis-self_access",
        _ => "basis-consent",
    };
    let status = match view.case.state(&step.id) {
        StepState::Done(_) => "done",
        StepState::Failed(..) => "failed",
        _ => "waiting",
    };
    UseRow {
        who: department_title(served, t, view.package.handler.as_str()),
        from: step.holder.as_ref().map(|h| department_title(served, t, h.as_str())).unwrap_or_default(),
        what: names.join(if t.0 == Language::Chinese { "、" } else { ", " }),
        why: step.purpose.as_ref().map(|p| t.pick(p).to_owned()).unwrap_or_default(),
        basis: t.get(basis),
        state: t.get(&format!("step-{status}")),
        status: status.into(),
        url: format!("/case/{}/receipts/call-{}", view.case.id, step.id),
    }
}

async fn desk(State(served): Shared, headers: HeaderMap, Query(query): Query<PageQuery>) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    if !visit.is_clerk() {
        return visit.sign_in_first(&served);
    }
    let t = &visit.t;
    let rows = served.flow.case_ids().into_iter().take(200).filter_map(|id| {
        let view = served.flow.case(id)?;
        let body = case_body(&view, now_ms());
        let (actions, hint) = case_actions(&served, &view, &visit, None);
        Some(DeskRow {
            id: id.to_string(),
            short: id.short(),
            state: t.get(&format!("outcome-{}", body.outcome)),
            outcome: body.outcome,
            next: actions.first().map_or(hint, |a| a.label.clone()),
        })
    });
    let rows = rows.collect();
    visit.show(&DeskPage {
        t,
        at: "desk",
        who: visit.who(&served),
        csrf: visit.csrf(),
        demo: served.door.is_some(),
        rows,
    })
}

async fn explorer(State(served): Shared, headers: HeaderMap, Query(query): Query<PageQuery>) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    let t = &visit.t;
    let chain = served.flow.chain();
    let tip = chain.height();
    let mut rows = Vec::new();
    for height in (tip.saturating_sub(300).max(1)..=tip).rev() {
        if rows.len() >= 50 {
            break;
        }
        let Ok(block) = chain.block_events(height).await else { break };
        for event in block.events.iter().rev() {
            let (class, outcome) = match &event.outcome {
                Outcome::Accepted(_) => ("accepted", t.get("explorer-accepted")),
                Outcome::Refused(refusal) => ("refused", refusal.code().replace('_', " ")),
            };
            let command = &event.command.command;
            rows.push(RecordRow {
                when: local_time(block.time_ms),
                signer: department_title(&served, t, command.signer.as_str()),
                kind: t.get(&format!("event-{}", kind_of(&command.body))),
                short: event.id.short(),
                class,
                outcome,
            });
        }
    }
    rows.truncate(50);
    let genesis = &chain.rules().genesis;
    visit.show(&ExplorerPage {
        t,
        at: "explorer",
        who: visit.who(&served),
        csrf: visit.csrf(),
        demo: served.door.is_some(),
        height: tip,
        departments: genesis.members.len(),
        validators: genesis.validators().len(),
        rows,
    })
}

fn local_time(ms: u64) -> String {
    let seconds = (ms / 1000 + 8 * 3600) % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds % 3600 / 60, seconds % 60)
}

async fn verify_answer(served: &Served, visit: &Visit, file: Option<Bytes>) -> Response {
    let genesis = served.flow.chain().rules().genesis.clone();
    let checked = match file {
        None => None,
        Some(file) => {
            let genesis = genesis.clone();
            // many signatures: off the threads that serve others
            tokio::task::spawn_blocking(move || proof::verify(&file, &genesis)).await.ok()
        }
    };
    let (result, result_class, facts) = match checked {
        None => (String::new(), "", vec![]),
        Some(Err(e)) => (format!("{}: {e}", visit.t.get("verify-invalid")), "invalid", vec![]),
        Some(Ok(facts)) => {
            let value = serde_json::to_value(&facts).unwrap_or_default();
            let pairs = value.as_object().cloned().unwrap_or_default().into_iter();
            let text = |v: serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            (visit.t.get("verify-valid"), "valid", pairs.map(|(k, v)| (k, text(v))).collect())
        }
    };
    // `<` is escaped so that no name in the genesis can end the script element
    let genesis = serde_json::to_string(&*genesis).unwrap_or_default().replace('<', "\\u003c");
    visit.show(&VerifyPage {
        t: &visit.t,
        at: "verify",
        who: visit.who(served),
        csrf: visit.csrf(),
        demo: served.door.is_some(),
        genesis,
        result,
        result_class,
        facts,
    })
}

async fn verify_page(State(served): Shared, headers: HeaderMap, Query(query): Query<PageQuery>) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    verify_answer(&served, &visit, None).await
}

async fn verify_post(
    State(served): Shared,
    headers: HeaderMap,
    Query(query): Query<PageQuery>,
    mut form: Multipart,
) -> Response {
    let visit = Visit::of(&served, &headers, &query);
    let file = match form.next_field().await {
        Ok(Some(field)) => field.bytes().await.ok(),
        _ => None,
    };
    verify_answer(&served, &visit, Some(file.unwrap_or_default())).await
}

fn asset(kind: &'static str, text: &'static str) -> axum::routing::MethodRouter<Arc<Served>> {
    get(move || async move {
        ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=300")], text)
    })
}

/// The pages.
pub fn router(served: Arc<Served>) -> Router {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
        form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let set = |name: header::HeaderName, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    Router::new()
        .route("/", get(home))
        .route("/demo/enter", post(enter))
        .route("/leave", post(leave))
        .route("/apply", get(apply_form).post(apply))
        .route("/case/{id}", get(case))
        .route("/case/{id}/identify/{role}", post(identify_post))
        .route("/case/{id}/sign/{role}", get(sign_page).post(sign_post))
        .route("/case/{id}/withdraw/{role}", post(withdraw))
        .route("/case/{id}/confirm", post(confirm))
        .route("/case/{id}/receipts/{name}", get(receipt))
        .route("/mine", get(mine))
        .route("/desk", get(desk))
        .route("/explorer", get(explorer))
        .route("/verify", get(verify_page).post(verify_post))
        .route("/assets/style.css", asset("text/css; charset=utf-8", include_str!("../assets/style.css")))
        .route("/assets/live.js", asset("text/javascript; charset=utf-8", include_str!("../assets/live.js")))
        .route(
            "/assets/verify.js",
            asset("text/javascript; charset=utf-8", include_str!("../assets/verify.js")),
        )
        .route(
            "/assets/verify-page.js",
            asset("text/javascript; charset=utf-8", include_str!("../assets/verify-page.js")),
        )
        .layer(set(header::CONTENT_SECURITY_POLICY, POLICY))
        .layer(set(header::CACHE_CONTROL, "no-store"))
        .layer(set(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(set(header::REFERRER_POLICY, "no-referrer"))
        .with_state(served)
}
