//! A case: its progress, what the visitor can do now, and the clerk's list of all.

use super::{
    face, portal,
    visit::{Posted, Seen, Visit},
};
use crate::{
    DemoDoor,
    api::{SECURITY, now_ms},
    cases::{case_body, refuse_and_wait},
    portal::Errand,
};
use askama::Template;
use axum::{
    extract::{Path, Query},
    http::{StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use flow::{
    Basis, CaseError, CaseView, StepKind,
    case::{PARKED_FOR_MS, StepState, is_due},
};
use identity::Identified;
use model::*;
use serde::Deserialize;
use tracing::info;

/// The terminal's word on who a party is: with the key of their device, or signing on the terminal's own pad.
pub(super) async fn vouch(
    visit: &Visit,
    id: CaseId,
    role: &RoleId,
    device: Option<&str>,
) -> Result<(), CaseError> {
    let flow = &visit.served.flow;
    let door = visit.served.door.as_ref().ok_or(CaseError::Unknown("terminal"))?;
    let view = flow.case(id).ok_or(CaseError::Unknown("case"))?;
    let party = view.case.parties.iter().find(|p| &p.role == role).ok_or(CaseError::Unknown("role"))?;
    let chain = flow.chain().rules().chain;
    let who = Identified { chain, case: id, role, subject: party.subject, at_ms: now_ms() };
    let (assertion, signature) = match device {
        Some(person) => door.terminal.vouch_for_passkey(&who, door.device(person).public()),
        None => door.terminal.vouch_at_counter(&who),
    };
    visit.served.identify(assertion, signature).await
}

/// Sends a party to the identity provider to be identified in their case.
pub(super) async fn identify_at_provider(visit: &Visit, id: CaseId, role: RoleId) -> Response {
    let Some(view) = visit.served.flow.case(id) else { return visit.failed(&CaseError::Unknown("case")) };
    let Some(party) = view.case.parties.iter().find(|p| p.role == role) else {
        return visit.failed(&CaseError::Unknown("role"));
    };
    portal::send(visit, Errand::Identify(id, role, party.subject)).await
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

#[derive(Template)]
#[template(path = "case.html")]
struct CasePage<'a> {
    v: &'a Visit,
    at: &'static str,
    id: String,
    short: String,
    matter: String,
    running: bool,
    outcome: String,
    outcome_key: String,
    waits_for: String,
    reason: String,
    next: String,
    until: String,
    actions: Vec<ActionRow>,
    may_refuse: bool,
    may_pass: bool,
    by_clerk: bool,
    appeal: String,
    outputs: Vec<(String, String)>,
    /// What came of a way to the identity provider, where nothing did.
    said: String,
    hint: String,
    steps: Vec<StepRow>,
    receipts: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct Said {
    #[serde(default)]
    said: String,
}

pub(super) async fn case(seen: Seen, Query(Said { said }): Query<Said>) -> Response {
    let Seen { visit, view, .. } = &seen;
    let t = &visit.t;
    let body = case_body(view, now_ms());
    // those of a repeated role whom this case does not have are no news, nor what would undo what stands
    let taken = |(step, s): &(&flow::Step, &crate::cases::StepView)| {
        step.of.is_none() && step.undoes.is_none() || s.status != "skipped"
    };
    let steps = view.package.steps.iter().zip(&body.steps).filter(taken).map(|(step, s)| StepRow {
        title: t.pick(&step.title).to_owned(),
        department: visit.department(&s.department),
        state: match (s.waits.as_str(), s.waits_until_ms) {
            ("", _) => match s.due_ms.filter(|_| s.ms >= 2_000) {
                Some(due_ms) => {
                    let until = t.with("step-due", &[("until", flow::local_minute(due_ms))]);
                    format!("{} {until}", t.get(&format!("step-{}", s.status)))
                }
                None => t.get(&format!("step-{}", s.status)),
            },
            (waits, None) => t.get(&format!("step-{waits}")),
            (waits, Some(until_ms)) => {
                format!("{} {}", t.get(&format!("step-{waits}")), flow::local_minute(until_ms))
            }
        },
        status: if s.waits.is_empty() { s.status.clone() } else { "waiting".into() },
        ms: s.ms,
    });
    let (actions, hint) = actions(&seen);
    let settled = view.case.settled.as_ref();
    let running = settled.is_none();
    let reason = match settled {
        None => String::new(),
        // why went with the rest
        Some(_) if let Some(at_ms) = view.case.erased_ms => {
            t.with("case-erased", &[("day", flow::local_minute(at_ms))])
        }
        // why another party's case rests is that party's business
        Some(settled) if !seen.any(|role| view.concerns(role, settled)) => t.get("reason-other-party"),
        Some(settled) => match view.rule(settled) {
            Some(rule) => {
                let departments: Vec<_> =
                    view.responsible(rule).iter().map(|d| visit.department(d.as_str())).collect();
                format!("{} {} {}", t.pick(&rule.ground), t.get("case-responsible"), t.join(&departments))
            }
            None => {
                let refused = body.reason == "refused_by_officer";
                let note = if refused { visit.served.flow.note(view.case.id).await } else { None };
                format!(
                    "{} {}",
                    t.or(&format!("reason-{}", body.reason), "reason-other"),
                    note.unwrap_or_default()
                )
            }
        },
    };
    let refused = settled.filter(|s| s.outcome == CaseOutcome::Refused);
    let appeal = refused.and_then(|s| match view.rule(s) {
        Some(rule) => view.package.appeal(rule),
        None => view.package.appeal.as_ref(),
    });
    // of a case that ended before its pivot, what an act had given is undone
    let done = |s: &flow::case::Settled| matches!(s.outcome, CaseOutcome::Closed | CaseOutcome::ClosedPartly);
    let outputs = view.package.outputs.iter().filter(|_| settled.is_some_and(done));
    let outputs = outputs
        .filter_map(|o| Some((t.pick(&o.title).to_owned(), seen.find(|role| view.output(role, &o.from))?)));
    let parked = settled.filter(|s| s.outcome == CaseOutcome::Parked);
    let receipts = visit.served.flow.receipt_names(view.case.id);
    visit.show(&CasePage {
        v: visit,
        at: if seen.by_clerk() { "desk" } else { "home" },
        id: view.case.id.to_string(),
        short: view.case.id.short(),
        matter: t.pick(&view.package.title).to_owned(),
        running,
        outcome_key: outcome_key(visit, &body.outcome),
        waits_for: visit.department(&body.waits_for),
        reason,
        next: if running { String::new() } else { t.or(&format!("next-{}", body.outcome), "error-other") },
        until: parked.map(|s| flow::local_minute(s.at_ms + PARKED_FOR_MS)).unwrap_or_default(),
        may_refuse: seen.by_clerk() && view.case.may_refuse(&view.package),
        may_pass: seen.by_clerk() && view.case.may_pass(&view.package).is_some(),
        by_clerk: seen.by_clerk(),
        appeal: appeal.map(|x| t.pick(x).to_owned()).unwrap_or_default(),
        outputs: outputs.collect(),
        actions,
        said: portal::SAID.iter().find(|key| **key == said).map(|key| t.get(key)).unwrap_or_default(),
        hint,
        steps: steps.collect(),
        receipts: match running {
            true => vec![],
            false => {
                receipts.into_iter().filter(|r| seen.any(|role| view.may_see_receipt(role, r))).collect()
            }
        },
        outcome: body.outcome,
    })
}

/// How an outcome is put to the visitor: a parked case waits for the applicant, not for the clerk.
fn outcome_key(visit: &Visit, outcome: &str) -> String {
    let desk = if visit.is_clerk() && outcome == "parked" { "-desk" } else { "" };
    format!("outcome-{outcome}{desk}")
}

/// Whether a party's signing key is the counter's pad, so that the clerk can take their signature.
fn signs_on_pad(visit: &Visit, view: &CaseView, role: &RoleId) -> bool {
    let pad = visit.served.door.as_ref().map(|d| d.terminal.pad().public());
    view.case.identified.get(role).map(|(_, key)| *key) == pad
}

/// Whether a party's signature is given on these pages: with their device in the demo, else by authenticating, where the portal knew
/// them that way. Whom a terminal identified signs there.
fn may_sign(visit: &Visit, view: &CaseView, role: &RoleId) -> bool {
    let signer = view.case.identified.get(role).map(|(_, key)| key);
    visit.demo() || portal::signs_here(visit, signer)
}

/// What the visitor can do in a case now, and what they wait for otherwise.
fn actions(seen: &Seen) -> (Vec<ActionRow>, String) {
    let Seen { visit, view, roles } = seen;
    let (case, t) = (&view.case, &visit.t);
    let mut actions = Vec::new();
    let mut action = |what: &str, method, label: String, main| {
        actions.push(ActionRow { url: format!("/case/{}/{what}", case.id), method, label, main });
    };
    let now = now_ms();
    let given = |role: &RoleId| {
        case.consents
            .get(role)
            .is_some_and(|(_, terms, withdrawn)| withdrawn.is_none() && terms.expires_ms > now)
    };
    let title_of = |role: &RoleId| {
        let named = view.package.parties.iter().find(|p| p.id == *role);
        named.map(|p| t.pick(&p.title)).unwrap_or_default()
    };
    // of somebody with several roles each is said
    let label_of = |role: &RoleId, key: &str| match roles.len() {
        2.. => format!("{} – {}", t.get(key), title_of(role)),
        _ => t.get(key),
    };
    let before_pivot = !case.is_past(&view.package);
    // a consent somebody is still told of changes under can be withdrawn whatever became of the case
    let told = |role: &RoleId| {
        let on_consent = |s: &flow::Subscription| {
            let step = view.package.step(&s.step).filter(|s| s.party.as_ref() == Some(role));
            s.case == case.id
                && s.lives(now)
                && (s.after_end || !case.is_over())
                && step.is_some_and(|s| s.basis == Some(flow::Basis::Consent))
        };
        visit.served.flow.subscriptions_of(case.id).iter().any(on_consent)
    };
    let may_withdraw = |role: &RoleId| given(role) && (before_pivot || told(role));
    if let Some(settled) = &case.settled {
        // a consent that ran out while the case rested is given again first
        let ran_out = roles.iter().find(|r| {
            !settled.outcome.is_final()
                && case.consents.contains_key(*r)
                && !given(r)
                && may_sign(visit, view, r)
        });
        if let Some(role) = ran_out {
            action(&format!("sign/{role}"), "get", label_of(role, "case-sign"), true);
        }
        let resume = match (settled.outcome, seen.by_clerk()) {
            (CaseOutcome::Parked, false) => seen.any(|role| view.concerns(role, settled)),
            (outcome, true) => !outcome.is_final(),
            _ => false,
        };
        if resume && ran_out.is_none() && case.may_resume(&view.package) {
            action("resume", "post", t.get("case-resume"), true);
        }
        for role in roles.iter().filter(|r| {
            may_withdraw(r) && may_sign(visit, view, r) && (!settled.outcome.is_final() || told(r))
        }) {
            action(&format!("withdraw/{role}"), "post", label_of(role, "case-withdraw"), false);
        }
        return (actions, String::new());
    }
    let standing = case.standing(&view.package);
    let sign_of = |role: &RoleId| {
        view.package.steps.iter().find(|s| s.kind == StepKind::Sign && s.party.as_ref() == Some(role))
    };
    let ready_to_sign = |role: &RoleId| sign_of(role).is_some_and(|s| is_due(s, &standing));
    let signs = |role: &RoleId| sign_of(role).is_some_and(|s| standing[&s.id] != StepState::Skipped);
    for role in roles {
        if !case.identified.contains_key(role) {
            action(&format!("identify/{role}"), "post", label_of(role, "case-identify"), true);
            if face::may(seen, role) {
                action(&format!("face/{role}"), "get", label_of(role, "case-face"), false);
            }
        } else if !given(role) && ready_to_sign(role) && may_sign(visit, view, role) {
            action(&format!("sign/{role}"), "get", label_of(role, "case-sign"), true);
        }
        if may_withdraw(role) && may_sign(visit, view, role) {
            action(&format!("withdraw/{role}"), "post", label_of(role, "case-withdraw"), false);
        }
    }
    if seen.by_clerk() {
        if view.unconfirmed.is_some() {
            action("confirm", "post", t.get("case-confirm"), true);
        }
        for party in &case.parties {
            let title = title_of(&party.role);
            if !case.identified.contains_key(&party.role) {
                // beside the demo's, a terminal of the department vouches over the API
                if !visit.demo() {
                    continue;
                }
                let label = format!("{} – {title}", t.get("case-counter-identify"));
                action(&format!("identify/{}", party.role), "post", label, true);
                if face::may(seen, &party.role) {
                    let label = format!("{} – {title}", t.get("case-face"));
                    action(&format!("face/{}", party.role), "get", label, false);
                }
            } else if !given(&party.role)
                && ready_to_sign(&party.role)
                && signs_on_pad(visit, view, &party.role)
            {
                let label = format!("{} – {title}", t.get("case-counter-sign"));
                action(&format!("sign/{}", party.role), "get", label, true);
            }
        }
    }
    let everybody = case.parties.iter().all(|p| given(&p.role) || !signs(&p.role));
    let unidentified = case.identified.len() < case.parties.len();
    let is_elsewheres = |role: &RoleId| {
        case.identified.contains_key(role) && !may_sign(visit, view, role) && !given(role) && signs(role)
    };
    let hint_of = |role: Option<&RoleId>| match role {
        Some(_) if roles.iter().any(&is_elsewheres) => Some("case-signed-elsewhere"),
        Some(role) if (given(role) || !signs(role)) && !everybody => Some("wait-other"),
        Some(role) if !case.identified.contains_key(role) => None,
        Some(_) if unidentified => Some("wait-other"),
        None if unidentified => Some("wait-terminal"),
        _ => None,
    };
    let hint = match actions.iter().any(|a| a.main) {
        true => String::new(),
        false => t.get(seen.find(hint_of).unwrap_or("working")),
    };
    (actions, hint)
}

/// Back to the case, or the page of what went wrong.
fn done(seen: &Seen, result: Result<(), CaseError>) -> Response {
    match result {
        Ok(()) => Redirect::to(&format!("/case/{}", seen.view.case.id)).into_response(),
        Err(e) => seen.visit.failed(&e),
    }
}

/// The role named in the address, where it is the visitor's own, or a clerk takes it in hand.
pub(super) fn own_role(seen: &Seen, role: &str) -> Option<RoleId> {
    let role: RoleId = role.parse().ok()?;
    (seen.by_clerk() || seen.roles.contains(&role)).then_some(role)
}

pub(super) async fn identify(seen: Seen, Path((_, role)): Path<(String, String)>, _: Posted) -> Response {
    let Some(role) = own_role(&seen, &role) else { return seen.visit.sign_in_first() };
    if seen.view.case.identified.contains_key(&role) {
        return done(&seen, Ok(()));
    }
    if !seen.by_clerk() && portal::came_by(&seen.visit).is_some() {
        return identify_at_provider(&seen.visit, seen.view.case.id, role).await;
    }
    let device = seen.visit.citizen().filter(|_| !seen.by_clerk()).map(|p| p.id.as_str());
    let vouched = vouch(&seen.visit, seen.view.case.id, &role, device).await;
    done(&seen, vouched)
}

/// A datum the department already has, shown to its owner as it is.
struct KnownRow {
    title: String,
    value: String,
    source: String,
}

#[derive(Template)]
#[template(path = "sign.html")]
struct SignPage<'a> {
    v: &'a Visit,
    at: &'static str,
    id: String,
    role: String,
    text: String,
    terms: String,
    known: Vec<KnownRow>,
    /// How people call the identity provider before which they confirm; empty in the demo and for a clerk.
    provider: String,
}

/// What was read under the party's own access, to be checked by them before they sign. A clerk sees it masked.
fn known(seen: &Seen, role: &RoleId) -> Vec<KnownRow> {
    let Seen { visit, view, .. } = seen;
    let shown = |value: &str| match seen.by_clerk() {
        false => visit.t.value(value),
        true => identifier::mask(value),
    };
    let own = |s: &&flow::Step| s.party.as_ref() == Some(role) && matches!(s.basis, Some(Basis::SelfAccess));
    let mut rows: Vec<_> = view
        .package
        .form
        .iter()
        .filter_map(|f| {
            let value = view.case.value(&format!("form.{}", f.id))?;
            let title = visit.t.pick(&f.title).to_owned();
            let chosen = f.choices.iter().find(|c| c.id.as_str() == value);
            let value = chosen.map_or_else(|| shown(value), |c| visit.t.pick(&c.title).to_owned());
            Some(KnownRow { title, value, source: visit.t.get("sign-from-form") })
        })
        .collect();
    for step in view.package.steps.iter().filter(own) {
        let resource = step.resource.as_ref().and_then(|r| visit.served.flow.resource(r));
        let Some((resource, what)) = resource.zip(step.what.as_ref()) else { continue };
        for name in what.names() {
            let title = resource.fields.iter().find(|f| f.id == name).map(|f| &f.title);
            let value = view.case.value(&format!("{}.{name}", step.id));
            if let Some((title, value)) = title.zip(value) {
                rows.push(KnownRow {
                    title: visit.t.pick(title).to_owned(),
                    value: shown(value),
                    source: visit.department(resource.holder.as_str()),
                });
            }
        }
    }
    rows
}

pub(super) async fn sign_page(seen: Seen, Path((_, role)): Path<(String, String)>) -> Response {
    let Some(role) = own_role(&seen, &role) else { return seen.visit.not_theirs() };
    if !seen.by_clerk() && !may_sign(&seen.visit, &seen.view, &role) {
        return seen.visit.error(StatusCode::CONFLICT, "case-signed-elsewhere");
    }
    let id = seen.view.case.id;
    match seen.visit.served.flow.consent_draft(id, &role, seen.visit.t.0) {
        Ok((text, terms)) => seen.visit.show(&SignPage {
            v: &seen.visit,
            at: "home",
            known: known(&seen, &role),
            provider: match seen.visit.served.portal() {
                Some(portal) if !seen.by_clerk() && !seen.visit.demo() => {
                    seen.visit.t.pick(&portal.title).to_owned()
                }
                _ => String::new(),
            },
            id: id.to_string(),
            role: role.to_string(),
            text,
            terms: hex::encode(encode(&terms)),
        }),
        Err(e) => seen.visit.failed(&e),
    }
}

pub(super) async fn sign(seen: Seen, Path((_, role)): Path<(String, String)>, posted: Posted) -> Response {
    let Seen { visit, view, .. } = &seen;
    let Some(role) = own_role(&seen, &role) else { return visit.sign_in_first() };
    let terms = hex::decode(posted.get("terms")).ok().and_then(|bytes| decode::<ConsentTerms>(&bytes).ok());
    let Some(terms) = terms.filter(|t| t.case == view.case.id && t.role == role) else {
        return visit.error(StatusCode::BAD_REQUEST, "error-invalid");
    };
    if !seen.by_clerk() && may_sign(visit, view, &role) && !visit.demo() {
        // nobody authenticates for what would not be taken
        let sign = format!("/sign/{role}");
        if terms.expires_ms <= now_ms() || !actions(&seen).0.iter().any(|a| a.url.ends_with(&sign)) {
            return visit.error(StatusCode::CONFLICT, "error-changed");
        }
        if let Err(e) = visit.served.flow.text_of(&terms) {
            return visit.failed(&e);
        }
        return portal::send(visit, Errand::Consent(Box::new(terms))).await;
    }
    let Some(door) = &visit.served.door else { return visit.sign_in_first() };
    // a citizen signs for themselves; a clerk only takes signatures that are given on the counter's pad
    if seen.by_clerk() && !signs_on_pad(visit, view, &role) {
        return visit.sign_in_first();
    }
    let signature = sign_as(view, door, &role, &terms.signing_bytes());
    let given = visit.served.flow.give_consent(terms, signature).await.map(drop);
    done(&seen, given)
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

pub(super) async fn withdraw(seen: Seen, Path((_, role)): Path<(String, String)>, _: Posted) -> Response {
    let Seen { visit, view, .. } = &seen;
    let mine = seen.roles.iter().find(|mine| mine.as_str() == role);
    let Some(mine) = mine.filter(|mine| may_sign(visit, view, mine)) else {
        return visit.sign_in_first();
    };
    let Some((consent, ..)) = view.case.consents.get(mine) else {
        return visit.sign_in_first();
    };
    let consent = ConsentId(consent.0);
    let message = WithdrawConsent::signing_bytes(visit.served.flow.chain().rules().chain, consent);
    // taking back is no harder than giving (PIPL 15): whoever is signed in need not authenticate again
    let signature = match (&visit.served.door, visit.served.portal()) {
        (Some(door), _) => sign_as(view, door, mine, &message),
        (None, Some(portal)) => portal.terminal.pad().sign(&message),
        (None, None) => return visit.sign_in_first(),
    };
    let withdrawn = visit.served.flow.withdraw_consent(consent, signature).await;
    done(&seen, withdrawn)
}

/// Notes in the security log that a clerk acts, and says how they are named where an officer has to be.
fn clerk_acts<'a>(seen: &'a Seen, what: &'static str) -> &'a str {
    let account = seen.visit.officer().map(|officer| officer.name.as_str()).unwrap_or_default();
    info!(target: SECURITY, officer = account, what, "a clerk acts on a case");
    seen.visit.officer().map(|officer| officer.title.as_str()).unwrap_or_default()
}

pub(super) async fn confirm(seen: Seen, _: Posted) -> Response {
    if !seen.by_clerk() {
        return seen.visit.sign_in_first();
    }
    let confirmed = seen
        .visit
        .served
        .flow
        .confirm_decision(seen.view.case.id, clerk_acts(&seen, "confirm a decision"))
        .await;
    done(&seen, confirmed)
}

pub(super) async fn resume(seen: Seen, _: Posted) -> Response {
    let may = actions(&seen).0.iter().any(|a| a.url.ends_with("/resume"));
    if !may {
        return seen.visit.error(StatusCode::CONFLICT, "error-changed");
    }
    let settled = seen.view.case.settled.as_ref();
    let concerned = |role: &&RoleId| settled.is_some_and(|settled| seen.view.concerns(Some(role), settled));
    let who = match seen.roles.iter().find(concerned) {
        Some(role) => role.as_str(),
        None => clerk_acts(&seen, "resume a case"),
    };
    let resumed = seen.visit.served.flow.resume_case(seen.view.case.id, who, "asked on the page").await;
    done(&seen, resumed)
}

/// The reason a clerk gives, of a form only clerks may send.
fn reason_of<'a>(seen: &Seen, posted: &'a Posted) -> Result<&'a str, Box<Response>> {
    if !seen.by_clerk() {
        return Err(Box::new(seen.visit.sign_in_first()));
    }
    let reason = posted.get("reason").trim();
    if reason.is_empty() || reason.chars().count() > 500 {
        return Err(Box::new(seen.visit.error(StatusCode::UNPROCESSABLE_ENTITY, "error-reason")));
    }
    Ok(reason)
}

pub(super) async fn refuse(seen: Seen, posted: Posted) -> Response {
    match reason_of(&seen, &posted) {
        Ok(reason) => {
            let refused = refuse_and_wait(
                &seen.visit.served,
                seen.view.case.id,
                clerk_acts(&seen, "refuse a case"),
                reason,
            )
            .await;
            done(&seen, refused)
        }
        Err(response) => *response,
    }
}

pub(super) async fn pass(seen: Seen, posted: Posted) -> Response {
    match reason_of(&seen, &posted) {
        Ok(reason) => {
            let passed = seen
                .visit
                .served
                .flow
                .pass_case(seen.view.case.id, clerk_acts(&seen, "pass a rule"), reason)
                .await;
            done(&seen, passed)
        }
        Err(response) => *response,
    }
}

pub(super) async fn receipt(seen: Seen, Path((_, name)): Path<(String, String)>) -> Response {
    if !seen.any(|role| seen.view.may_see_receipt(role, &name)) {
        return seen.visit.failed(&CaseError::Unknown("receipt"));
    }
    match seen.visit.served.flow.receipt(seen.view.case.id, &name).await {
        Ok(Some(receipt)) => {
            // a name of a receipt is a step's, a party's or a kind's: letters, digits and hyphens
            let attached = format!("attachment; filename=\"{name}.json\"");
            let headers = [
                (header::CONTENT_TYPE, "application/json".to_owned()),
                (header::CONTENT_DISPOSITION, attached),
            ];
            (headers, receipt.to_bytes()).into_response()
        }
        Ok(None) => seen.visit.failed(&CaseError::Unknown("receipt")),
        Err(e) => seen.visit.failed(&CaseError::Chain(e)),
    }
}

struct DeskRow {
    matter: String,
    id: String,
    short: String,
    outcome: String,
    state: String,
    next: String,
    since: String,
}

#[derive(Template)]
#[template(path = "desk.html")]
struct DeskPage<'a> {
    v: &'a Visit,
    at: &'static str,
    matters: Vec<(String, String)>,
    query: String,
    parts: [(&'static str, Vec<DeskRow>); 3],
    more: bool,
}

#[derive(Deserialize)]
pub(super) struct Find {
    #[serde(default)]
    q: String,
}

/// How many cases the clerk's list shows, newest first.
const CASES_SHOWN: usize = 200;

/// The clerk's window: new cases, those that wait for the clerk with the longest wait first, those under way, and those that are over.
pub(super) async fn desk(visit: Visit, Query(find): Query<Find>) -> Response {
    if !visit.is_clerk() {
        return visit.not_theirs();
    }
    let query: String = find.q.trim().to_ascii_lowercase().chars().take(64).collect();
    let [mut yours, mut others, mut over] = [const { Vec::new() }; 3];
    let mut visit = visit;
    let all = visit.served.flow.case_ids();
    let wanted = all.iter().filter(|id| query.is_empty() || id.to_string().starts_with(&query));
    let mut wanted = wanted.copied();
    for id in wanted.by_ref().take(CASES_SHOWN) {
        let Some(view) = visit.served.flow.case(id) else { continue };
        let body = case_body(&view, now_ms());
        let package = view.package.clone();
        let settled = view.case.settled.as_ref();
        let since_ms = settled.map_or(view.case.opened_ms, |s| s.at_ms);
        let is_over = settled.is_some_and(|s| s.outcome.is_final());
        // a parked case waits for its applicant first
        let parked = settled.is_some_and(|s| s.outcome == CaseOutcome::Parked);
        let seen = Seen { visit, view, roles: vec![] };
        let (actions, hint) = actions(&seen);
        visit = seen.visit;
        let row = DeskRow {
            matter: visit.t.pick(&package.title).to_owned(),
            id: id.to_string(),
            short: id.short(),
            state: visit.t.get(&outcome_key(&visit, &body.outcome)),
            outcome: body.outcome,
            next: actions.iter().find(|a| a.main).map_or(hint, |a| a.label.clone()),
            since: flow::local_minute(since_ms),
        };
        match () {
            () if is_over => over.push(row),
            () if actions.iter().any(|a| a.main) && !parked => yours.push(row),
            () => others.push(row),
        }
    }
    yours.reverse();
    let more = wanted.next().is_some();
    let packages = visit.served.flow.packages();
    let matters = packages.iter().map(|p| (p.id.to_string(), visit.t.pick(&p.title).to_owned())).collect();
    let parts = [("desk-yours", yours), ("desk-others", others), ("desk-over", over)];
    visit.show(&DeskPage { v: &visit, at: "desk", matters, query, parts, more })
}
