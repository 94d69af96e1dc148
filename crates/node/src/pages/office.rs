//! The department officer's door: what waits for the department and by when, who was let see its data, how its connector fares.

use super::{
    sharing::{BudgetRow, ShareRow, budget_row, due, share_row, titles},
    visit::{Posted, Visit},
};
use crate::{
    api::{SECURITY, parse},
    reconcile::{self, Reconciliation},
    sharing::{self, Narrow, ShareBody},
};
use askama::Template;
use axum::{
    extract::Query,
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use chain::ChainError;
use ledger::{Key, ObjectionRecord};
use model::*;
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tracing::{info, warn};

/// How long an act waits to be final.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the page waits for this node to have taken in what is final.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// A share request and what this department can do about it now.
struct Waiting {
    row: ShareRow,
    id: String,
    holder: String,
    asker: String,
    seen: String,
    per_day: u32,
    may_accept: bool,
    may_grant: bool,
    may_refuse: bool,
    may_rule: bool,
    may_dispute: bool,
    may_withdraw: bool,
    may_revoke: bool,
}

struct AlertRow {
    resource: String,
    resource_id: String,
    what: String,
    day: String,
    due: String,
    due_class: &'static str,
}

struct ObjectionRow {
    name: String,
    id: String,
    call: String,
    since_ms: u64,
    short: String,
    asker: String,
    wrong: String,
    due: String,
    due_class: &'static str,
}

struct UseRow {
    other: String,
    resource: String,
    matter: String,
    granted: u32,
    cases: u32,
    answered: u32,
    declined: u32,
    opened: u32,
    disputed: u32,
    lapsed: u32,
}

struct QueryRow {
    id: String,
    closed: bool,
    problems: Vec<String>,
}

#[derive(Template)]
#[template(path = "office.html")]
struct OfficePage<'a> {
    v: &'a Visit,
    at: &'static str,
    department: String,
    waiting: Vec<Waiting>,
    alerts: Vec<AlertRow>,
    objections: Vec<ObjectionRow>,
    /// What waits for nothing here: granted, refused, or another's to decide.
    others: Vec<Waiting>,
    budgets: Vec<BudgetRow>,
    /// Those that can be given a limit: departments and own resources, by name and title.
    departments: Vec<(String, String)>,
    resources: Vec<(String, String)>,
    today: String,
    queries: Vec<QueryRow>,
    closed: usize,
    problems: Vec<String>,
    outdated: bool,
}

#[derive(Template)]
#[template(path = "office-day.html")]
struct DayPage<'a> {
    v: &'a Visit,
    at: &'static str,
    day: String,
    today: String,
    parts: [(&'static str, Vec<UseRow>); 2],
    refused: Vec<(String, String, u32)>,
    differences: Vec<(String, usize, Vec<String>)>,
}

#[derive(Deserialize)]
pub(super) struct OfDay {
    day: Option<String>,
}

/// The work of the department, what waits first.
pub(super) async fn page(visit: Visit) -> Response {
    if !visit.is_data_officer() {
        return visit.not_theirs();
    }
    match office(&visit).await {
        Ok(page) => visit.show(&page),
        Err(_) => visit.error(StatusCode::SERVICE_UNAVAILABLE, "error-other"),
    }
}

/// One day of calls: who was let see this department's data, what it asked of others, and what does not agree.
pub(super) async fn day(visit: Visit, Query(of): Query<OfDay>) -> Response {
    if !visit.is_data_officer() {
        return visit.not_theirs();
    }
    let today = today(&visit);
    let day = of.day.and_then(|day| day.parse().ok()).filter(|day| *day <= today).unwrap_or(today);
    let Ok(report) = reconcile::reconcile(&visit.served, day).await else {
        return visit.error(StatusCode::SERVICE_UNAVAILABLE, "error-other");
    };
    let Reconciliation { as_holder, as_asker, refused, differences, .. } = report;
    let t = &visit.t;
    let use_row = |other: String, line: reconcile::Line| UseRow {
        other: visit.department(&other),
        resource: titles(&visit, &line.resource, &[]).0,
        matter: matter_title(&visit, &line.matter),
        granted: line.tally.granted,
        cases: line.tally.cases,
        answered: line.tally.answered,
        declined: line.tally.declined,
        opened: line.tally.opened,
        disputed: line.tally.disputed,
        lapsed: line.tally.lapsed,
    };
    let refused = refused.into_iter().map(|r| {
        (visit.department(&r.asker), t.or(&format!("refusal-{}", r.code), "refusal-other"), r.count)
    });
    let as_holder = as_holder.into_iter().map(|l| use_row(l.asker.clone(), l)).collect();
    let as_asker = as_asker.into_iter().map(|l| use_row(l.holder.clone(), l)).collect();
    let differences =
        differences.into_iter().map(|d| (t.get(&format!("difference-{}", d.code)), d.count, d.calls));
    visit.show(&DayPage {
        v: &visit,
        at: "office",
        day: day.to_string(),
        today: today.to_string(),
        parts: [("office-as-holder", as_holder), ("office-as-asker", as_asker)],
        refused: refused.collect(),
        differences: differences.collect(),
    })
}

fn today(visit: &Visit) -> Day {
    Day::of(visit.served.flow.chain().host().now_ms())
}

/// What the ledger lets this department do about a request (`ledger/src/sharing.rs`); `approval` is what was granted under its name.
fn waiting(
    visit: &Visit,
    mut share: ShareBody,
    coordinators: &[DepartmentId],
    approval: Option<ApproveBasis>,
) -> Waiting {
    let me = &visit.served.department;
    let now_ms = visit.served.flow.chain().host().now_ms();
    let approval = approval.filter(|a| a.asker.as_str() == share.asker && a.expires_ms >= now_ms);
    if let Some(approval) = approval.as_ref().filter(|_| share.state == "granted") {
        // less may have been granted than was asked for
        share.names = approval.names.iter().map(ToString::to_string).collect();
        share.until_ms = approval.expires_ms;
    }
    let (holds, asks) = (share.holder == me.as_str(), share.asker == me.as_str());
    let open = matches!(share.state, "requested" | "accepted" | "overruled");
    let disputed = share.state == "disputed" || open && share.overdue;
    Waiting {
        id: share.id.clone(),
        holder: share.holder.clone(),
        asker: share.asker.clone(),
        seen: share.seen.clone(),
        per_day: share.per_day,
        may_accept: holds && share.state == "requested",
        may_grant: holds && open,
        may_refuse: holds && matches!(share.state, "requested" | "accepted"),
        may_rule: coordinators.contains(me) && disputed && !holds && !asks,
        may_dispute: asks && (matches!(share.state, "refused" | "revoked") || open && share.overdue),
        may_withdraw: asks && !matches!(share.state, "granted" | "withdrawn" | "upheld"),
        may_revoke: holds && share.state == "granted" && approval.is_some(),
        row: share_row(visit, share),
    }
}

impl Waiting {
    /// Whether it is this department's turn.
    fn is_due(&self) -> bool {
        self.may_grant || self.may_rule
    }
}

async fn office(visit: &Visit) -> Result<OfficePage<'_>, ChainError> {
    let (t, served, me) = (&visit.t, &visit.served, &visit.served.department);
    let chain = served.flow.chain();
    let own = Narrow { open: false, department: Some(me.clone()) };
    let rules: Sharing = chain.record(&Key::Sharing).await?.unwrap_or_default();
    let mut list = sharing::share_list(served, &own).await?;
    if rules.coordinators.contains(me) {
        let all = sharing::share_list(served, &Narrow { open: true, department: None }).await?;
        list.extend(all.into_iter().filter(|s| s.holder != me.as_str() && s.asker != me.as_str()));
    }
    let mut shares = Vec::new();
    for share in list {
        let approval = match share.id.parse() {
            Ok(id) if share.holder == me.as_str() => chain.record(&Key::Approval(me.clone(), id)).await?,
            _ => None,
        };
        shares.push(waiting(visit, share, &rules.coordinators, approval));
    }
    let (due_now, others): (Vec<_>, Vec<_>) = shares.into_iter().partition(Waiting::is_due);
    let mine = own_resources(visit);
    let alerts = sharing::alert_list(served, &own).await?.into_iter().filter(|a| a.asker == me.as_str());
    let alerts = alerts.map(|a| {
        let (due, due_class) = due(visit, a.due_ms, a.overdue);
        AlertRow {
            resource: titles(visit, &a.resource, &[]).0,
            resource_id: a.resource,
            what: t.get(&format!("alert-{}", a.unusual)),
            day: a.day.to_string(),
            due,
            due_class,
        }
    });
    let open = Narrow { open: true, ..own.clone() };
    let objections = sharing::objection_list(served, &open).await?.into_iter();
    let objections = objections.filter(|o| o.holder == me.as_str() && o.state == "open").map(|o| {
        let (due, due_class) = due(visit, o.due_ms, o.overdue);
        ObjectionRow {
            name: own_title(visit, &mine, &o.name),
            id: o.name,
            since_ms: o.since_ms,
            short: o.call.chars().take(8).collect(),
            call: o.call,
            asker: visit.department(&o.asker),
            wrong: t.get(&format!("wrong-{}", o.wrong)),
            due,
            due_class,
        }
    });
    let is_mine =
        |id: &str| id.parse().ok().and_then(|id| served.flow.resource(&id)).is_some_and(|r| r.holder == *me);
    let budgets = sharing::budget_list(served, &own).await?.into_iter().filter(|b| is_mine(&b.resource));
    let budgets = budgets.map(|b| budget_row(visit, b));
    let (_, roster) = chain.roster();
    let departments = roster.members.iter().filter(|m| m.id != *me);
    let queries = served.gateway.report().into_iter();
    let queries: Vec<_> =
        queries.map(|q| QueryRow { closed: q.status == "closed", id: q.id, problems: q.problems }).collect();
    let rest = served.gateway.problems().into_iter().filter(|p| p.at.starts_with("table "));
    Ok(OfficePage {
        v: visit,
        at: "office",
        department: visit.department(me.as_str()),
        waiting: due_now,
        alerts: alerts.collect(),
        objections: objections.collect(),
        others,
        budgets: budgets.collect(),
        departments: departments.map(|m| (m.id.to_string(), t.pick(&m.title).to_owned())).collect(),
        resources: mine.iter().map(|r| (r.id.to_string(), t.pick(&r.title).to_owned())).collect(),
        today: today(visit).to_string(),
        closed: queries.iter().filter(|q| q.closed).count(),
        queries,
        problems: rest.map(|p| format!("{}: {}", p.at, p.message)).collect(),
        outdated: served.files.changed(),
    })
}

/// What this department has published.
fn own_resources(visit: &Visit) -> Vec<Arc<Resource>> {
    let me = &visit.served.department;
    let (_, mut resources) = visit.served.flow.catalogue().search(me.as_str(), 0, usize::MAX);
    resources.retain(|r| r.holder == *me);
    resources
}

/// The title of a field of this department's own, where one of its resources has it.
fn own_title(visit: &Visit, resources: &[Arc<Resource>], name: &str) -> String {
    let mut fields = resources.iter().flat_map(|r| {
        let fields = r.fields.iter().map(|f| (&f.id, &f.title));
        fields.chain(r.predicates.iter().map(|p| (&p.id, &p.title)))
    });
    let found = fields.find(|(id, _)| id.as_str() == name).map(|(_, title)| visit.t.pick(title).to_owned());
    found.unwrap_or_else(|| name.to_owned())
}

fn matter_title(visit: &Visit, id: &str) -> String {
    let packages = visit.served.flow.packages();
    let found = packages.iter().find(|p| p.id.as_str() == id);
    found.map_or_else(|| id.to_owned(), |p| visit.t.pick(&p.title).to_owned())
}

/// What cannot be done as it was sent.
enum Unfit {
    /// Something is missing or of another form.
    Invalid,
    /// The note is empty, too long, or holds what looks like a number of a person.
    Note,
    /// It stands otherwise by now.
    Changed,
    /// The ledger cannot be read now.
    Ledger,
}

impl From<ChainError> for Unfit {
    fn from(_: ChainError) -> Self {
        Self::Ledger
    }
}

/// A part of a form in its type.
fn read<T: std::str::FromStr<Err = IdError>>(posted: &Posted, name: &str) -> Result<T, Unfit> {
    parse(posted.get(name)).map_err(|_| Unfit::Invalid)
}

/// A note for everybody to read.
fn note(posted: &Posted) -> Result<String, Unfit> {
    // browsers send line breaks as two characters
    let note = posted.get("note").trim().replace("\r\n", "\n");
    if is_plain(&note) { Ok(note) } else { Err(Unfit::Note) }
}

/// Submits one act of the department's and goes back to its page, or says why not.
async fn act(visit: &Visit, what: &'static str, about: &str, body: Result<Body, Unfit>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(Unfit::Note) => return visit.error(StatusCode::UNPROCESSABLE_ENTITY, "refusal-unfit_text-page"),
        Err(Unfit::Invalid) => return visit.error(StatusCode::BAD_REQUEST, "error-invalid"),
        Err(Unfit::Changed) => return visit.error(StatusCode::CONFLICT, "office-changed"),
        Err(Unfit::Ledger) => return visit.error(StatusCode::SERVICE_UNAVAILABLE, "error-other"),
    };
    let officer = visit.officer().map(|o| o.name.as_str()).unwrap_or_default();
    // what may become final though nobody waits for it any more is in the log too
    info!(target: SECURITY, officer, what, about, "an officer acts for the department");
    match visit.served.flow.submit_and_wait(body, PATIENCE).await {
        Ok(event) => match event.outcome {
            Outcome::Refused(refusal) => {
                info!(target: SECURITY, officer, what, about, code = refusal.code(), "the ledger refused it");
                let key = match refusal {
                    Refusal::WrongState | Refusal::AlreadyUsed => "office-changed".to_owned(),
                    other => format!("refusal-{}", other.code()),
                };
                visit.error(StatusCode::CONFLICT, if visit.t.knows(&key) { &key } else { "refusal-other" })
            }
            _ => {
                // the page that follows shows what was done
                let _ = tokio::time::timeout(SHOWN_WITHIN, visit.served.flow.caught_up(event.height)).await;
                Redirect::to("/office").into_response()
            }
        },
        Err(e) => {
            warn!(target: SECURITY, officer, what, about, error = %e, "whether it became final is not known here");
            visit.error(StatusCode::SERVICE_UNAVAILABLE, "error-other")
        }
    }
}

pub(super) async fn share(visit: Visit, posted: Posted) -> Response {
    if !visit.is_data_officer() {
        return visit.not_theirs();
    }
    let (what, body) = share_body(&visit, &posted).await.map_or_else(|e| ("", Err(e)), |(w, b)| (w, Ok(b)));
    let about = format!("{} {}", posted.get("asker"), posted.get("id"));
    act(&visit, what, &about, body).await
}

async fn share_body(visit: &Visit, posted: &Posted) -> Result<(&'static str, Body), Unfit> {
    let id: ApprovalId = read(posted, "id")?;
    let (holder, asker): (DepartmentId, DepartmentId) = (read(posted, "holder")?, read(posted, "asker")?);
    let (me, chain) = (&visit.served.department, visit.served.flow.chain());
    // what the officer saw, and not what stands under this name by now
    let share = ShareRef { holder: holder.clone(), asker: asker.clone(), id: id.clone() };
    let record: Option<ledger::ShareRecord> = chain.record(&Key::Share(share)).await?;
    let record = record.filter(|r| sharing::seen(r) == posted.get("seen")).ok_or(Unfit::Changed)?;
    let reply = |reply| Body::ReplyShare(ReplyShare { asker: asker.clone(), id: id.clone(), reply });
    Ok(match posted.get("act") {
        "accept" => ("accept a share request", reply(ShareReply::Accept)),
        "refuse" => {
            use ShareRefusal::*;
            let all = [NoBasis, BeyondNeed, Forbidden, NotHeld, Unclear];
            let reason = all.into_iter().find(|r| r.as_str() == posted.get("reason"));
            let reason = reason.ok_or(Unfit::Invalid)?;
            ("refuse a share request", reply(ShareReply::Refuse { reason, note: note(posted)? }))
        }
        "grant" => {
            // granted as it was asked for; less of it is granted on the command line
            use ledger::ShareState::*;
            let open = matches!(record.state, Requested | Accepted | Overruled(_));
            if !open || holder != *me {
                return Err(Unfit::Changed);
            }
            let asked = record.request;
            let approval = ApproveBasis {
                id,
                asker,
                matter: asked.matter,
                resource: asked.resource,
                names: asked.names,
                citation: asked.citation,
                expires_ms: asked.until_ms,
            };
            ("grant a share request", Body::ApproveBasis(approval))
        }
        "revoke" => {
            // the command names the basis alone: it must be this asker's
            let approval: Option<ApproveBasis> = chain.record(&Key::Approval(me.clone(), id.clone())).await?;
            if holder != *me || approval.is_none_or(|a| a.asker != asker) {
                return Err(Unfit::Changed);
            }
            ("revoke a basis", Body::RevokeBasis(RevokeBasis { id, note: note(posted)? }))
        }
        "withdraw" => ("withdraw a share request", Body::WithdrawShare(WithdrawShare { holder, id })),
        "dispute" => {
            let note = note(posted)?;
            ("dispute a share request", Body::DisputeShare(DisputeShare { holder, id, note }))
        }
        ruling @ ("rule_grant" | "rule_uphold") => {
            let (share, grant, note) =
                (ShareRef { holder, asker, id }, ruling == "rule_grant", note(posted)?);
            ("rule on a share request", Body::RuleShare(RuleShare { share, grant, note }))
        }
        _ => return Err(Unfit::Invalid),
    })
}

pub(super) async fn explain(visit: Visit, posted: Posted) -> Response {
    if !visit.is_data_officer() {
        return visit.not_theirs();
    }
    let body = || {
        let day = posted.get("day").parse().map_err(|_| Unfit::Invalid)?;
        Ok(Body::ExplainAlert(ExplainAlert {
            resource: read(&posted, "resource")?,
            day,
            note: note(&posted)?,
        }))
    };
    let body = body();
    act(&visit, "explain an alert", posted.get("resource"), body).await
}

pub(super) async fn objection(visit: Visit, posted: Posted) -> Response {
    if !visit.is_data_officer() {
        return visit.not_theirs();
    }
    let body = || {
        use Verdict::*;
        let all = [Corrected, Confirmed, Unproven, Elsewhere];
        let verdict = all.into_iter().find(|v| v.as_str() == posted.get("verdict")).ok_or(Unfit::Invalid)?;
        let (call, name): (CallId, FieldId) = (read(&posted, "call")?, read(&posted, "name")?);
        Ok((Key::Objection(call, name.clone()), AnswerObjection { call, name, verdict }))
    };
    let body = match body() {
        // it may have been raised again since the page was read
        Ok((key, answer)) => match visit.served.flow.chain().record::<ObjectionRecord>(&key).await {
            Ok(Some(r)) if r.at_ms.to_string() == posted.get("since") => Ok(Body::AnswerObjection(answer)),
            Ok(_) => Err(Unfit::Changed),
            Err(_) => Err(Unfit::Ledger),
        },
        Err(e) => Err(e),
    };
    act(&visit, "answer an objection", posted.get("call"), body).await
}

pub(super) async fn budget(visit: Visit, posted: Posted) -> Response {
    if !visit.is_data_officer() {
        return visit.not_theirs();
    }
    let about = format!("{} {}", posted.get("asker"), posted.get("resource"));
    act(&visit, "set a limit", &about, budget_body(&visit, &posted).await).await
}

/// What is left out stays as it is.
async fn budget_body(visit: &Visit, posted: &Posted) -> Result<Body, Unfit> {
    let (asker, resource): (DepartmentId, ResourceId) = (read(posted, "asker")?, read(posted, "resource")?);
    let key = Key::Budget(resource.clone(), asker.clone(), None);
    let before: Option<Budget> = visit.served.flow.chain().record(&key).await?;
    let limit = |name: &str, before: Option<u32>| match posted.get(name).trim() {
        _ if posted.get(&format!("{name}_none")) == "on" => Ok(None),
        "" => Ok(before),
        number => number.parse().map(Some).map_err(|_| Unfit::Invalid),
    };
    let per_day = limit("per_day", before.as_ref().and_then(|b| b.per_day))?;
    let per_person = limit("per_person", before.as_ref().and_then(|b| b.per_person))?;
    let budget = Budget { per_day, per_person };
    Ok(Body::SetBudget(SetBudget { asker, resource, matter: None, budget }))
}
