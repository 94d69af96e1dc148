//! A matter before there is a case: what it takes, what comes of it, and the application form.

use super::{
    cases::{identify_at_provider, vouch},
    visit::{Posted, Visit},
};
use crate::Persona;
use askama::Template;
use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use flow::{Basis, CaseError, NewCase, Package, Person, StepKind};
use gateway::ElementKind;
use model::*;
use std::{collections::BTreeMap, sync::Arc};

struct NeedRow {
    about: String,
    from: String,
    what: String,
    why: String,
    basis: String,
}

#[derive(Template)]
#[template(path = "matter.html")]
struct MatterPage<'a> {
    v: &'a Visit,
    at: &'static str,
    id: String,
    title: String,
    summary: String,
    parties: Vec<String>,
    fields: Vec<String>,
    needs: Vec<NeedRow>,
    acts: Vec<(String, String)>,
    fees: Vec<(String, String, String)>,
    outputs: Vec<String>,
    conditions: Vec<String>,
    appeal: String,
}

fn package_of(visit: &Visit, id: &str) -> Option<Arc<Package>> {
    visit.served.flow.package(&id.parse().ok()?)
}

/// A title, and that it may be left out where it may.
fn optional(visit: &Visit, title: &Text, optional: bool) -> String {
    let title = visit.t.pick(title);
    if optional { format!("{title} ({})", visit.t.get("matter-optional")) } else { title.to_owned() }
}

pub(super) async fn page(visit: Visit, Path(id): Path<String>) -> Response {
    let Some(package) = package_of(&visit, &id) else {
        return visit.error(StatusCode::NOT_FOUND, "error-unknown");
    };
    let t = &visit.t;
    let calls = package.steps.iter().filter(|s| s.kind == StepKind::Call);
    let need = |step: &flow::Step| {
        let resource = step.resource.as_ref().and_then(|r| visit.served.flow.resource(r));
        let names = step.what.as_ref().map(What::names).unwrap_or_default();
        let titles = names.iter().map(|name| {
            let resource = resource.as_ref();
            let field = resource.and_then(|r| r.fields.iter().find(|f| &f.id == name).map(|f| &f.title));
            let asked = resource.and_then(|r| r.predicates.iter().find(|p| &p.id == name).map(|p| &p.title));
            field.or(asked).map_or_else(|| name.to_string(), |title| t.pick(title).to_owned())
        });
        let party = package.parties.iter().find(|p| Some(&p.id) == step.party.as_ref());
        NeedRow {
            about: match &step.subject {
                Some(from) => {
                    let field =
                        package.form.iter().find(|f| from.strip_prefix("form.") == Some(f.id.as_str()));
                    field.map(|f| t.pick(&f.title).to_owned()).unwrap_or_default()
                }
                None => party.map(|p| t.pick(&p.title).to_owned()).unwrap_or_default(),
            },
            from: step.holder.as_ref().map(|h| visit.department(h.as_str())).unwrap_or_default(),
            what: t.join(&titles.collect::<Vec<_>>()),
            why: step.purpose.as_ref().map(|p| t.pick(p).to_owned()).unwrap_or_default(),
            basis: match &step.basis {
                Some(Basis::Statutory(id)) => {
                    package.bases.get(id).map_or_else(|| t.get("basis-statutory"), |b| t.pick(b).to_owned())
                }
                Some(Basis::SelfAccess) => t.get("basis-self_access"),
                _ => t.get("basis-consent"),
            },
        }
    };
    let first_of = |of: Option<bool>| of != Some(false);
    visit.show(&MatterPage {
        v: &visit,
        at: "home",
        title: t.pick(&package.title).to_owned(),
        summary: package.summary.as_ref().map(|x| t.pick(x).to_owned()).unwrap_or_default(),
        parties: package
            .parties
            .iter()
            .filter(|p| first_of(p.of.as_ref().map(|of| of == &p.id)))
            .map(|p| match &p.of {
                Some(_) => format!("{} ({})", t.pick(&p.title), t.get("matter-several")),
                None => optional(&visit, &p.title, p.optional),
            })
            .collect(),
        fields: package.form.iter().map(|f| optional(&visit, &f.title, f.optional)).collect(),
        needs: calls.filter(|s| first_of(s.of.as_ref().map(|of| of == &s.id))).map(need).collect(),
        acts: package
            .steps
            .iter()
            .filter(|s| s.kind == StepKind::Act && s.undoes.is_none())
            .map(|s| {
                let by = s.performer.as_ref().map(|d| visit.department(d.as_str())).unwrap_or_default();
                (t.pick(&s.title).to_owned(), by)
            })
            .collect(),
        fees: package
            .fees
            .iter()
            .map(|f| {
                let much = if f.fen == 0 {
                    t.get("matter-free")
                } else {
                    format!("{}.{:02} ¥", f.fen / 100, f.fen % 100)
                };
                (t.pick(&f.title).to_owned(), much, t.pick(&f.basis).to_owned())
            })
            .collect(),
        outputs: package.outputs.iter().map(|o| t.pick(&o.title).to_owned()).collect(),
        conditions: package.eligibility.iter().map(|c| t.pick(&c.says).to_owned()).collect(),
        appeal: package.appeal.as_ref().map(|x| t.pick(x).to_owned()).unwrap_or_default(),
        id,
    })
}

/// The matter's graph as a picture.
pub(super) async fn graph(visit: Visit, Path(id): Path<String>) -> Response {
    let Some(package) = package_of(&visit, &id) else {
        return visit.error(StatusCode::NOT_FOUND, "error-unknown");
    };
    let svg = flow::graph::svg(&package, visit.t.0, &BTreeMap::new(), &|d| visit.department(d.as_str()));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    ([(header::CONTENT_TYPE, "image/svg+xml; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)], svg)
        .into_response()
}

struct FieldRow {
    id: String,
    title: String,
    help: String,
    value: String,
    required: bool,
    numeric: bool,
    date: bool,
    choices: Vec<(String, String)>,
    wrong: bool,
}

struct PartyRow {
    id: String,
    title: String,
    /// Who it is, masked, where that is known; empty where it has to be filled in.
    known: String,
    me: bool,
    number: String,
    name: String,
    wrong: bool,
    /// Whether it is folded away until somebody wants it: it may be left out, and nothing is in it.
    folded: bool,
}

#[derive(Template)]
#[template(path = "apply.html")]
struct ApplyPage<'a> {
    v: &'a Visit,
    at: &'static str,
    id: String,
    title: String,
    prefilled: bool,
    problem: String,
    fields: Vec<FieldRow>,
    parties: Vec<PartyRow>,
    may_choose: bool,
}

/// What was wrong with an application that was sent.
struct Wrong {
    field: String,
    message: String,
}

pub(super) async fn form(visit: Visit, Path(id): Path<String>) -> Response {
    let Some(package) = package_of(&visit, &id) else {
        return visit.error(StatusCode::NOT_FOUND, "error-unknown");
    };
    if visit.citizen().is_none() && !visit.is_clerk() {
        return visit.not_theirs();
    }
    show_form(&visit, &package, &BTreeMap::new(), None)
}

/// A citizen's own application for a matter, where they have it in mind. A clerk fills in everything.
fn prefilled<'a>(package: &Package, persona: Option<&'a Persona>) -> Option<&'a Persona> {
    persona.filter(|persona| persona.matter == package.id)
}

fn show_form(
    visit: &Visit,
    package: &Package,
    sent: &BTreeMap<String, String>,
    wrong: Option<Wrong>,
) -> Response {
    let t = &visit.t;
    let citizen = visit.citizen();
    let own = prefilled(package, visit.persona());
    let is_wrong = |id: &str| wrong.as_ref().is_some_and(|w| w.field == id);
    let kind = |e: &FieldId| visit.served.gateway.standard().elements.get(e).map(|e| e.kind);
    let was_sent = |name: &str| sent.get(name).cloned().unwrap_or_default();
    let fields = package.form.iter().map(|f| FieldRow {
        id: f.id.to_string(),
        title: optional(visit, &f.title, f.optional),
        help: f.help.as_ref().map(|h| t.pick(h).to_owned()).unwrap_or_default(),
        value: match sent.get(f.id.as_str()) {
            Some(value) => value.clone(),
            None => own.and_then(|p| p.form.get(&f.id)).cloned().unwrap_or_default(),
        },
        required: !f.optional,
        numeric: kind(&f.element) == Some(ElementKind::Integer),
        date: kind(&f.element) == Some(ElementKind::Date),
        choices: f.choices.iter().map(|c| (c.id.to_string(), t.pick(&c.title).to_owned())).collect(),
        wrong: is_wrong(f.id.as_str()),
    });
    let only = match &package.parties[..] {
        [only] => Some(only.id.to_string()),
        _ => None,
    };
    let my_role = match own {
        Some(p) => Some(p.role.to_string()),
        None if citizen.is_none() => None,
        None => sent.get("me").cloned().or(only.clone()),
    };
    // of a prefilled application only the parties it has are shown
    let roles =
        package.parties.iter().filter(|r| own.is_none_or(|p| p.parties.contains_key(&r.id) || !r.optional));
    let parties: Vec<_> = roles
        .map(|role| {
            let me = my_role.as_deref() == Some(role.id.as_str());
            let known = own.and_then(|p| p.parties.get(&role.id));
            PartyRow {
                id: role.id.to_string(),
                title: optional(visit, &role.title, role.optional),
                known: match known {
                    Some(who) if me => format!("{} {}", who.name, identifier::mask(&who.id)),
                    Some(who) => format!("{} {}", identifier::mask(&who.name), identifier::mask(&who.id)),
                    None => match citizen.filter(|_| only.is_some()) {
                        Some(me) => format!("{} {}", me.name, identifier::mask(&me.id)),
                        None => String::new(),
                    },
                },
                me,
                number: was_sent(&format!("id-{}", role.id)),
                name: was_sent(&format!("name-{}", role.id)),
                wrong: is_wrong(role.id.as_str()),
                folded: role.optional && !me && was_sent(&format!("id-{}", role.id)).is_empty(),
            }
        })
        .collect();
    let status = if wrong.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let page = ApplyPage {
        v: visit,
        at: if citizen.is_some() { "home" } else { "desk" },
        id: package.id.to_string(),
        title: t.pick(&package.title).to_owned(),
        prefilled: own.is_some(),
        problem: wrong.as_ref().map(|w| w.message.clone()).unwrap_or_default(),
        fields: fields.collect(),
        may_choose: citizen.is_some() && own.is_none() && only.is_none(),
        parties,
    };
    (status, visit.show(&page)).into_response()
}

/// The application that was sent: the form, and everybody by role; and the role of the citizen who sent it. Who is prefilled is taken
/// from there, never from the request.
fn application(
    package: &Package,
    citizen: Option<&Person>,
    own: Option<&Persona>,
    sent: &BTreeMap<String, String>,
) -> Option<(Option<RoleId>, NewCase)> {
    let text = |name: &str| sent.get(name).map(|v| v.trim().to_owned()).unwrap_or_default();
    let own = prefilled(package, own);
    let me: Option<RoleId> = match (own, &package.parties[..]) {
        (Some(p), _) => Some(p.role.clone()),
        _ if citizen.is_none() => None,
        (None, [only]) => Some(only.id.clone()),
        _ => Some(text("me").parse().ok()?),
    };
    let mut parties = BTreeMap::new();
    for role in &package.parties {
        let myself = citizen.filter(|_| me.as_ref() == Some(&role.id));
        let person = match (own.and_then(|p| p.parties.get(&role.id)), myself) {
            (Some(known), _) => known.clone(),
            (None, Some(me)) => me.clone(),
            (None, None) => {
                let (id, name) = (text(&format!("id-{}", role.id)), text(&format!("name-{}", role.id)));
                if id.is_empty() && name.is_empty() {
                    continue;
                }
                Person { id, name }
            }
        };
        parties.insert(role.id.clone(), person);
    }
    let form = package.form.iter().map(|f| (f.id.clone(), text(f.id.as_str())));
    let form = form.filter(|(_, value)| !value.is_empty()).collect();
    Some((me, NewCase { matter: package.id.clone(), form, parties }))
}

/// What is to be looked at again, and what it has to be: the field or party by its name.
fn what_to_check(visit: &Visit, package: &Package, name: &str) -> String {
    let t = &visit.t;
    if let Some(party) = package.parties.iter().find(|p| p.id.as_str() == name) {
        return format!("{} – {}", t.pick(&party.title), t.get("apply-want-person"));
    }
    let Some(field) = package.form.iter().find(|f| f.id.as_str() == name) else { return String::new() };
    let kind = visit.served.gateway.standard().elements.get(&field.element).map(|e| e.kind);
    let want = match kind {
        _ if !field.choices.is_empty() => "apply-want-choice",
        Some(ElementKind::Integer) => "apply-want-integer",
        Some(ElementKind::Number) => "apply-want-number",
        Some(ElementKind::Date) => "apply-want-date",
        Some(ElementKind::CreditCode) => "apply-want-credit_code",
        Some(ElementKind::UnitCode) => "apply-want-unit_code",
        Some(ElementKind::ResidentId) => "apply-want-resident_id",
        _ => "apply-want-text",
    };
    format!("{} – {}", t.pick(&field.title), t.get(want))
}

pub(super) async fn apply(visit: Visit, Path(id): Path<String>, posted: Posted) -> Response {
    let Some(package) = package_of(&visit, &id) else {
        return visit.error(StatusCode::NOT_FOUND, "error-unknown");
    };
    let citizen = visit.citizen();
    if citizen.is_none() && !visit.is_clerk() {
        return visit.not_theirs();
    }
    let sent = posted.all();
    let t = &visit.t;
    let Some((me, new)) = application(&package, citizen, visit.persona(), &sent) else {
        let wrong = Wrong { field: "me".into(), message: t.get("apply-choose-role") };
        return show_form(&visit, &package, &sent, Some(wrong));
    };
    match visit.served.flow.open_case(new).await {
        Ok(case) => {
            // a citizen who applies is signed in, and so identified; whom a clerk applies for is identified next
            let vouched = match citizen.zip(me) {
                Some((_, me)) if !visit.demo() => return identify_at_provider(&visit, case, me).await,
                Some((citizen, me)) => vouch(&visit, case, &me, Some(&citizen.id)).await,
                None => Ok(()),
            };
            match vouched {
                Ok(()) => Redirect::to(&format!("/case/{case}")).into_response(),
                Err(e) => visit.failed(&e),
            }
        }
        Err(CaseError::NotEligible(says)) => {
            let wrong = Wrong {
                field: String::new(),
                message: format!("{} {}", t.pick(&says), t.get("apply-counter")),
            };
            show_form(&visit, &package, &sent, Some(wrong))
        }
        Err(CaseError::Invalid { field, .. }) => {
            let message = format!("{} {}", t.get("apply-check"), what_to_check(&visit, &package, &field));
            show_form(&visit, &package, &sent, Some(Wrong { field, message }))
        }
        Err(e) => visit.failed(&e),
    }
}
