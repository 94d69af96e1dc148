//! The citizen's pages: what can be done, apply, and who used my data.

use super::{
    portal,
    visit::{Posted, Visit, roles_in},
};
use crate::subscriptions::standing;
use crate::{
    Persona,
    api::{SECURITY, Shared},
    officers::{Officer, OfficerRole},
    session::Who,
};
use askama::Template;
use axum::{
    Form,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use flow::{CaseView, Package, Step, case::StepState};
use model::*;
use serde::Deserialize;
use tracing::info;

struct PersonaRow {
    position: usize,
    name: String,
    role: String,
    id: String,
}

struct MatterRow {
    id: String,
    title: String,
    summary: String,
    /// Who in the demo has it in mind.
    personas: Vec<PersonaRow>,
}

#[derive(Template)]
#[template(path = "home.html")]
struct HomePage<'a> {
    v: &'a Visit,
    at: &'static str,
    matters: Vec<MatterRow>,
    query: String,
}

#[derive(Deserialize)]
pub(super) struct Search {
    #[serde(default)]
    q: String,
}

pub(super) async fn home(visit: Visit, Query(search): Query<Search>) -> Response {
    let t = &visit.t;
    let personas = visit.served.door.as_ref().map(|d| d.personas.as_slice()).unwrap_or_default();
    let packages = visit.served.flow.packages();
    let row = |package: &Package, (position, p): (usize, &Persona)| {
        let role = package.parties.iter().find(|r| r.id == p.role);
        PersonaRow {
            position,
            name: p.who.name.clone(),
            role: role.map(|r| t.pick(&r.title).to_owned()).unwrap_or_default(),
            id: identifier::mask(&p.who.id),
        }
    };
    let words: Vec<_> = search.q.split_whitespace().map(str::to_lowercase).collect();
    let has_words = |p: &Package| {
        let said = [Some(&p.title), p.summary.as_ref()].into_iter().flatten();
        let said: String = said.map(|x| format!("{} {} ", x.zh, x.en.to_lowercase())).collect();
        words.iter().all(|w| said.contains(w.as_str()))
    };
    let matters = packages.iter().filter(|p| has_words(p)).map(|p| MatterRow {
        id: p.id.to_string(),
        title: t.pick(&p.title).to_owned(),
        summary: p.summary.as_ref().map(|x| t.pick(x).to_owned()).unwrap_or_default(),
        personas: personas.iter().enumerate().filter(|(_, x)| x.matter == p.id).map(|x| row(p, x)).collect(),
    });
    visit.show(&HomePage { v: &visit, at: "home", matters: matters.collect(), query: search.q })
}

#[derive(Deserialize)]
pub(super) struct EnterForm {
    who: String,
}

/// An officer of the demo, who has no account.
fn of_demo(title: &str, role: OfficerRole) -> Officer {
    Officer { name: String::new(), title: title.to_owned(), roles: [role].into() }
}

pub(super) async fn enter(
    State(served): Shared,
    headers: HeaderMap,
    Form(form): Form<EnterForm>,
) -> Response {
    let Some(door) = &served.door else { return StatusCode::NOT_FOUND.into_response() };
    let (who, to) = match form.who.as_str() {
        "clerk" => (Who::Officer(of_demo("窗口人员", OfficerRole::Clerk)), "/desk".to_owned()),
        "officer" => (Who::Officer(of_demo("数据专员", OfficerRole::Data)), "/office".to_owned()),
        index => match index.parse::<usize>().ok().and_then(|i| Some((i, door.personas.get(i)?))) {
            Some((i, persona)) => (Who::Persona(i), format!("/matters/{}/apply", persona.matter)),
            None => return StatusCode::BAD_REQUEST.into_response(),
        },
    };
    info!(target: SECURITY, officer = matches!(who, Who::Officer(_)), "somebody signed in to the demo");
    let mut response = Redirect::to(&to).into_response();
    response.headers_mut().append(header::SET_COOKIE, served.sessions.begin(&headers, who));
    response
}

pub(super) async fn leave(visit: Visit, headers: HeaderMap, _: Posted) -> Response {
    info!(target: SECURITY, "somebody signed out");
    let over = visit.served.sessions.end(&headers);
    match portal::came_by(&visit) {
        Some(_) => portal::leave(visit, over),
        None => ([(header::SET_COOKIE, over)], Redirect::to("/")).into_response(),
    }
}

struct UseRow {
    who: String,
    from: String,
    what: String,
    why: String,
    basis: String,
    state: String,
    status: &'static str,
    url: String,
    /// Where what it gave may be objected to; empty where it gave nothing.
    object: String,
}

#[derive(Template)]
#[template(path = "mine.html")]
struct MinePage<'a> {
    v: &'a Visit,
    at: &'static str,
    rows: Vec<UseRow>,
    told: Vec<ToldRow>,
    cases: Vec<(String, String)>,
}

/// A subscription to data of this person.
struct ToldRow {
    who: String,
    from: String,
    what: String,
    why: String,
    until: String,
    state: String,
    status: &'static str,
}

pub(super) async fn mine(visit: Visit) -> Response {
    let Some(citizen) = visit.citizen() else { return visit.sign_in_first() };
    let flow = &visit.served.flow;
    let (mut rows, mut cases, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for id in flow.case_ids() {
        let Some(view) = flow.case(id) else { continue };
        let roles = roles_in(&view, citizen);
        if roles.is_empty() {
            continue;
        }
        let is_mine = |s: &&Step| s.party.as_ref().is_some_and(|party| roles.contains(party));
        cases.push((id.to_string(), id.short()));
        let earlier = view.case.earlier.calls.iter().map(|(step, call)| (step, call));
        for (step_id, call) in earlier.chain(&view.case.calls) {
            let step = view.package.step(step_id).filter(is_mine);
            if let Some((step, what)) = step.and_then(|s| Some((s, s.what.as_ref()?))) {
                rows.push(use_row(&visit, &view, step, what, call.attempt));
            }
        }
        let of_role = |id: &StepId| view.package.step(id).filter(is_mine);
        for delivery in &view.case.deliveries {
            if let Some((step, what)) = of_role(&delivery.step).and_then(|s| Some((s, s.what.as_ref()?))) {
                rows.push(use_row(&visit, &view, step, what, delivery.call.attempt));
            }
        }
        for s in &flow.subscriptions_of(id) {
            if let Some((step, what)) = of_role(&s.step).and_then(|s| Some((s, s.what.as_ref()?))) {
                let row = use_row(&visit, &view, step, what, 0);
                let standing = standing(flow, s);
                told.push(ToldRow {
                    who: row.who,
                    from: row.from,
                    what: row.what,
                    why: row.why,
                    until: flow::local_minute(s.until_ms),
                    state: visit.t.get(&format!("told-{standing}")),
                    status: if standing == "active" { "waiting" } else { "done" },
                });
            }
        }
    }
    visit.show(&MinePage { v: &visit, at: "mine", rows, told, cases })
}

fn use_row(visit: &Visit, view: &CaseView, step: &Step, what: &What, attempt: u32) -> UseRow {
    let t = &visit.t;
    let resource = step.resource.as_ref().and_then(|r| visit.served.flow.resource(r));
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
    let newest = view.case.calls.get(&step.id).is_some_and(|c| c.attempt == attempt);
    let delivery = view.case.deliveries.iter().find(|d| d.step == step.id && d.call.attempt == attempt);
    let status = match view.case.state(&step.id) {
        _ if delivery.is_some_and(|d| d.call.answer.is_none()) => "waiting",
        _ if !newest => "done",
        StepState::Done(_) => "done",
        StepState::Failed(..) => "failed",
        _ => "waiting",
    };
    let receipt = flow::receipt_name("call", &step.id, attempt);
    let gave = newest && visit.served.flow.answered_call(view.case.id, &step.id).is_some();
    UseRow {
        object: if gave { format!("/case/{}/object/{}", view.case.id, step.id) } else { String::new() },
        who: visit.department(view.package.handler.as_str()),
        from: step.holder.as_ref().map(|h| visit.department(h.as_str())).unwrap_or_default(),
        what: t.join(&names),
        why: step.purpose.as_ref().map(|p| t.pick(p).to_owned()).unwrap_or_default(),
        basis: t.get(basis),
        state: t.get(&format!("step-{status}")),
        status,
        url: format!("/case/{}/receipts/{receipt}", view.case.id),
    }
}
