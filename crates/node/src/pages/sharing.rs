//! How departments share with one another, for everybody to read: who asks for what and by when it must be decided, what was granted
//! and how much of it is used, what is unusual, and which values are objected to.

use super::visit::Visit;
use crate::sharing::{self, BudgetBody, Narrow, ShareBody};
use askama::Template;
use axum::{http::StatusCode, response::Response};
use chain::ChainError;
use model::{Day, Sharing};

/// A clock as people read it: the last day, and whether it has passed.
pub(super) fn due(visit: &Visit, due_ms: u64, overdue: bool) -> (String, &'static str) {
    match (due_ms, overdue) {
        (0, _) => (String::new(), ""),
        (_, true) => (format!("{} {}", Day::of(due_ms), visit.t.get("sharing-overdue")), "failed"),
        (_, false) => (Day::of(due_ms).to_string(), "waiting"),
    }
}

pub(super) struct ShareRow {
    pub(super) resource: String,
    pub(super) resource_id: String,
    pub(super) names: String,
    pub(super) asker: String,
    pub(super) holder: String,
    pub(super) why: String,
    pub(super) citation: String,
    pub(super) until: String,
    pub(super) state: String,
    pub(super) class: &'static str,
    pub(super) note: String,
    pub(super) due: String,
    pub(super) due_class: &'static str,
    pub(super) missed: u32,
}

/// The titles of a resource and of names in it, as far as the catalogue knows them.
pub(super) fn titles(visit: &Visit, resource: &str, names: &[String]) -> (String, String) {
    let found = resource.parse().ok().and_then(|id| visit.served.flow.resource(&id));
    let Some(found) = found else { return (resource.to_owned(), visit.t.join(names)) };
    let title = |name: &String| {
        let field = found.fields.iter().find(|f| f.id.as_str() == name).map(|f| &f.title);
        let title = field.or(found.predicates.iter().find(|p| p.id.as_str() == name).map(|p| &p.title));
        title.map_or_else(|| name.clone(), |title| visit.t.pick(title).to_owned())
    };
    let names: Vec<String> = names.iter().map(title).collect();
    (visit.t.pick(&found.title).to_owned(), visit.t.join(&names))
}

pub(super) fn share_row(visit: &Visit, share: ShareBody) -> ShareRow {
    let t = &visit.t;
    let (resource, names) = titles(visit, &share.resource, &share.names);
    let (due, due_class) = due(visit, share.due_ms, share.overdue);
    let class = match share.state {
        "granted" => "done",
        "refused" | "upheld" | "revoked" => "failed",
        "withdrawn" => "withdrawn",
        _ => "waiting",
    };
    let reason = share.reason.map(|reason| t.get(&format!("share-reason-{reason}"))).unwrap_or_default();
    ShareRow {
        resource,
        resource_id: share.resource,
        names,
        asker: visit.department(&share.asker),
        holder: visit.department(&share.holder),
        why: t.pick(&share.purpose).to_owned(),
        citation: share.citation,
        until: Day::of(share.until_ms).to_string(),
        state: t.get(&format!("share-state-{}", share.state)),
        class,
        note: [reason, share.note].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" – "),
        due,
        due_class,
        missed: share.missed,
    }
}

struct ProjectRow {
    title: String,
    owner: String,
    purpose: String,
    citation: String,
    needs: usize,
    until: String,
    state: String,
    class: &'static str,
    note: String,
}

pub(super) struct BudgetRow {
    pub(super) asker: String,
    pub(super) resource: String,
    pub(super) matter: String,
    /// The basis it was granted as; empty where the holder set it.
    pub(super) basis: String,
    pub(super) today: u32,
    pub(super) per_day: String,
    pub(super) per_person: String,
    pub(super) class: &'static str,
}

pub(super) fn budget_row(visit: &Visit, budget: BudgetBody) -> BudgetRow {
    let t = &visit.t;
    let limit = |limit: Option<u32>| limit.map_or_else(|| t.get("sharing-unlimited"), |n| n.to_string());
    BudgetRow {
        asker: visit.department(&budget.asker),
        resource: titles(visit, &budget.resource, &[]).0,
        matter: budget.matter.unwrap_or_else(|| t.get("sharing-all-matters")),
        basis: budget.basis.unwrap_or_default(),
        today: budget.today,
        class: if budget.per_day.is_some_and(|most| budget.today >= most) { "failed" } else { "" },
        per_day: limit(budget.per_day),
        per_person: limit(budget.per_person),
    }
}

struct AlertRow {
    asker: String,
    resource: String,
    what: String,
    day: String,
    due: String,
    due_class: &'static str,
}

struct ObjectionRow {
    name: String,
    call: String,
    asker: String,
    holder: String,
    wrong: String,
    state: String,
    class: &'static str,
    due: String,
    due_class: &'static str,
}

#[derive(Template)]
#[template(path = "sharing.html")]
struct SharingPage<'a> {
    v: &'a Visit,
    at: &'static str,
    known: bool,
    rules: Sharing,
    coordinators: String,
    shares: Vec<ShareRow>,
    projects: Vec<ProjectRow>,
    budgets: Vec<BudgetRow>,
    alerts: Vec<AlertRow>,
    objections: Vec<ObjectionRow>,
}

pub(super) async fn page(visit: Visit) -> Response {
    match rows(&visit).await {
        Ok(page) => visit.show(&page),
        Err(_) => visit.error(StatusCode::SERVICE_UNAVAILABLE, "error-other"),
    }
}

async fn rows(visit: &Visit) -> Result<SharingPage<'_>, ChainError> {
    let (t, served, all) = (&visit.t, &visit.served, Narrow::default());
    let chain = served.flow.chain();
    let rules: Sharing = chain.record(&ledger::Key::Sharing).await?.unwrap_or_default();
    let coordinators: Vec<_> = rules.coordinators.iter().map(|id| visit.department(id.as_str())).collect();
    let shares = sharing::share_list(served, &all).await?;
    let projects = sharing::project_list(served, &all).await?.into_iter().map(|p| ProjectRow {
        title: t.pick(&p.project.title).to_owned(),
        owner: visit.department(&p.owner),
        purpose: t.pick(&p.project.purpose).to_owned(),
        citation: p.project.citation,
        needs: p.project.needs.len(),
        until: Day::of(p.project.until_ms).to_string(),
        state: t.get(&format!("project-state-{}", p.state)),
        class: if p.state == "open" { "done" } else { "withdrawn" },
        note: p.note,
    });
    let budgets = sharing::budget_list(served, &all).await?.into_iter().map(|b| budget_row(visit, b));
    let alerts = sharing::alert_list(served, &all).await?.into_iter().map(|a| {
        let (due, due_class) = due(visit, a.due_ms, a.overdue);
        AlertRow {
            asker: visit.department(&a.asker),
            resource: titles(visit, &a.resource, &[]).0,
            what: t.get(&format!("alert-{}", a.unusual)),
            day: a.day.to_string(),
            due,
            due_class,
        }
    });
    let objections = sharing::objection_list(served, &all).await?.into_iter().map(|o| {
        let open = o.state == "open";
        let (due, due_class) = due(visit, if open { o.due_ms } else { 0 }, o.overdue);
        ObjectionRow {
            name: o.name,
            call: o.call.chars().take(8).collect(),
            asker: visit.department(&o.asker),
            holder: visit.department(&o.holder),
            wrong: t.get(&format!("wrong-{}", o.wrong)),
            state: t.get(&format!("objection-{}", o.state)),
            class: if open { "waiting" } else { "done" },
            due,
            due_class,
        }
    });
    Ok(SharingPage {
        v: visit,
        at: "sharing",
        known: chain.roster().1.protocol >= model::SHARING_PROTOCOL,
        coordinators: t.join(&coordinators),
        rules,
        shares: shares.into_iter().map(|s| share_row(visit, s)).collect(),
        projects: projects.collect(),
        budgets: budgets.collect(),
        alerts: alerts.collect(),
        objections: objections.collect(),
    })
}
