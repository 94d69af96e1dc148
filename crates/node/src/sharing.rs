//! The part of the API about sharing between departments: rules, requests, projects, budgets, alerts, objections. How each stands is
//! read from the ledger's state; nothing here names a person.

use crate::api::{JsonBody, Problem, Served, Shared, bad, parse};
use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use chain::ChainError;
use ledger::{AlertRecord, Key, ObjectionRecord, ProjectRecord, ShareRecord, ShareState, Spent};
use model::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most entries of one answer.
const ENTRIES_MAX: usize = 500;

/// The rules of sharing in force.
#[derive(Serialize, ToSchema)]
pub(crate) struct RulesBody {
    /// Whether the protocol in force knows sharing at all (from version 3 on).
    known: bool,
    /// Whether the departments set these rules; otherwise they are those that hold until they do.
    set: bool,
    /// The rules, as rules files have them.
    #[schema(value_type = Object)]
    rules: Sharing,
}

/// The rules of sharing in force: who rules on disputes, the clocks, the working days.
#[utoipa::path(get, path = "/api/v1/sharing", responses((status = 200, body = RulesBody)))]
pub(crate) async fn rules(State(served): Shared) -> Result<Json<RulesBody>, Problem> {
    let chain = served.flow.chain();
    let set: Option<Sharing> = chain.record(&Key::Sharing).await?;
    let known = chain.roster().1.protocol >= SHARING_PROTOCOL;
    Ok(Json(RulesBody { known, set: set.is_some(), rules: set.unwrap_or_default() }))
}

/// Narrows a list: to those that wait for somebody, and to those of a department.
#[derive(Clone, Deserialize, Default)]
pub(crate) struct Narrow {
    /// Only what waits to be acted on.
    #[serde(default)]
    pub(crate) open: bool,
    /// Only what this department asks for or holds.
    pub(crate) department: Option<DepartmentId>,
}

impl Narrow {
    fn fits(&self, departments: &[&DepartmentId]) -> bool {
        self.department.as_ref().is_none_or(|only| departments.contains(&only))
    }
}

/// A share request.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShareBody {
    /// Its name; granted, the name of the statutory basis.
    pub(crate) id: String,
    /// The department that holds the resource.
    pub(crate) holder: String,
    /// The department that asks.
    pub(crate) asker: String,
    /// The resource.
    pub(crate) resource: String,
    /// The fields and predicates.
    pub(crate) names: Vec<String>,
    /// The matter in whose cases it is used.
    pub(crate) matter: String,
    /// The asker's project.
    pub(crate) project: Option<String>,
    /// The statute.
    pub(crate) citation: String,
    /// What for.
    #[schema(value_type = Object)]
    pub(crate) purpose: Text,
    /// How many calls a day.
    pub(crate) per_day: u32,
    /// Until when, in milliseconds since 1970.
    pub(crate) until_ms: u64,
    /// `requested`, `accepted`, `refused`, `disputed`, `overruled`, `upheld`, `granted`, `revoked` or `withdrawn`.
    pub(crate) state: &'static str,
    /// The code of a refusal: `no_basis`, `beyond_need`, `forbidden`, `not_held` or `unclear`.
    pub(crate) reason: Option<&'static str>,
    /// What whoever acted last wrote.
    pub(crate) note: String,
    /// Since when it stands like this, in milliseconds since 1970.
    pub(crate) since_ms: u64,
    /// By when it has to be acted on; 0 where it waits for nobody.
    pub(crate) due_ms: u64,
    /// Whether that has passed.
    pub(crate) overdue: bool,
    /// How many clocks ran out on the way.
    pub(crate) missed: u32,
    /// Whose turn it is: `holder`, `coordinator`, or empty.
    pub(crate) waits_for: &'static str,
    /// What a page shows of it, in short: whoever acts on it acts on just that.
    #[serde(skip)]
    pub(crate) seen: String,
}

/// A request and how it stands, in short.
pub(crate) fn seen(record: &ShareRecord) -> String {
    hex::encode(crypto::hash(Suite::International, "tongban/share-seen/1", &[&encode(record)]).0)
}

fn share_body(share: &ShareRef, record: ShareRecord, now_ms: u64) -> ShareBody {
    let seen = seen(&record);
    let (state, note, waits_for) = match &record.state {
        ShareState::Requested => ("requested", "", "holder"),
        ShareState::Accepted => ("accepted", "", "holder"),
        ShareState::Refused(_, note) => ("refused", note.as_str(), ""),
        ShareState::Disputed(note) => ("disputed", note.as_str(), "coordinator"),
        ShareState::Overruled(note) => ("overruled", note.as_str(), "holder"),
        ShareState::Upheld(note) => ("upheld", note.as_str(), ""),
        ShareState::Granted => ("granted", "", ""),
        ShareState::Revoked(note) => ("revoked", note.as_str(), ""),
        ShareState::Withdrawn => ("withdrawn", "", ""),
    };
    let reason = match &record.state {
        ShareState::Refused(reason, _) => Some(reason.as_str()),
        _ => None,
    };
    let note = note.to_owned();
    let RequestShare { resource, names, matter, project, citation, purpose, per_day, until_ms, .. } =
        record.request;
    ShareBody {
        id: share.id.to_string(),
        holder: share.holder.to_string(),
        asker: share.asker.to_string(),
        resource: resource.to_string(),
        names: names.iter().map(ToString::to_string).collect(),
        matter: matter.to_string(),
        project: project.map(|p| p.to_string()),
        citation,
        purpose,
        per_day,
        until_ms,
        state,
        reason,
        note,
        since_ms: record.at_ms,
        due_ms: record.due_ms,
        overdue: record.due_ms != 0 && record.due_ms < now_ms,
        missed: record.missed,
        waits_for,
        seen,
    }
}

pub(crate) async fn share_list(served: &Served, narrow: &Narrow) -> Result<Vec<ShareBody>, ChainError> {
    let chain = served.flow.chain();
    let fits = |share: &ShareRef| narrow.fits(&[&share.holder, &share.asker]);
    let mut list = Vec::new();
    for share in served.flow.shares(narrow.open, ENTRIES_MAX, fits) {
        if let Some(record) = chain.record(&Key::Share(share.clone())).await? {
            list.push(share_body(&share, record, chain.host().now_ms()));
        }
    }
    // what is due first stands first
    list.sort_by_key(|s| if s.due_ms == 0 { u64::MAX - s.since_ms } else { s.due_ms });
    Ok(list)
}

/// One share request.
#[utoipa::path(get, path = "/api/v1/shares/{holder}/{asker}/{id}",
    params(("holder" = String, Path), ("asker" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = ShareBody), (status = 404, body = Problem)))]
pub(crate) async fn share(
    State(served): Shared,
    Path((holder, asker, id)): Path<(String, String, String)>,
) -> Result<Json<ShareBody>, Problem> {
    let chain = served.flow.chain();
    let share = ShareRef { holder: parse(&holder)?, asker: parse(&asker)?, id: parse(&id)? };
    let record: Option<ShareRecord> = chain.record(&Key::Share(share.clone())).await?;
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "unknown_share", "there is no such share request");
    let record = record.ok_or_else(unknown)?;
    Ok(Json(share_body(&share, record, chain.host().now_ms())))
}

/// Share requests, what is due first standing first.
#[utoipa::path(get, path = "/api/v1/shares", params(("open" = Option<bool>, Query), ("department" = Option<String>, Query)),
    responses((status = 200, body = Vec<ShareBody>), (status = 400, body = Problem)))]
pub(crate) async fn shares(
    State(served): Shared,
    Query(narrow): Query<Narrow>,
) -> Result<Json<Vec<ShareBody>>, Problem> {
    Ok(Json(share_list(&served, &narrow).await?))
}

/// An application project.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProjectBody {
    /// The department whose it is.
    pub(crate) owner: String,
    /// The project as registered.
    #[schema(value_type = Object)]
    pub(crate) project: RegisterProject,
    /// When it was registered, in milliseconds since 1970.
    pub(crate) since_ms: u64,
    /// `open`, `ended` or `expired`.
    pub(crate) state: &'static str,
    /// Who ended it, and why.
    pub(crate) ended_by: Option<String>,
    /// Why it was ended.
    pub(crate) note: String,
}

pub(crate) async fn project_list(served: &Served, narrow: &Narrow) -> Result<Vec<ProjectBody>, ChainError> {
    let chain = served.flow.chain();
    let mut list = Vec::new();
    for (owner, id) in served.flow.projects(narrow.open, ENTRIES_MAX, |owner| narrow.fits(&[owner])) {
        let key = Key::Project(owner.clone(), id);
        let Some(record) = chain.record::<ProjectRecord>(&key).await? else { continue };
        let state = match (&record.ended, record.lives(chain.host().now_ms())) {
            (Some(_), _) => "ended",
            (None, true) => "open",
            (None, false) => "expired",
        };
        if narrow.open && state != "open" {
            continue;
        }
        let (ended_by, note) = record.ended.map(|(_, by, note)| (by.to_string(), note)).unzip();
        list.push(ProjectBody {
            owner: owner.to_string(),
            project: record.project,
            since_ms: record.at_ms,
            state,
            ended_by,
            note: note.unwrap_or_default(),
        });
    }
    Ok(list)
}

/// Application projects: what each department registered that it uses data for.
#[utoipa::path(get, path = "/api/v1/projects", params(("open" = Option<bool>, Query), ("department" = Option<String>, Query)),
    responses((status = 200, body = Vec<ProjectBody>), (status = 400, body = Problem)))]
pub(crate) async fn projects(
    State(served): Shared,
    Query(narrow): Query<Narrow>,
) -> Result<Json<Vec<ProjectBody>>, Problem> {
    Ok(Json(project_list(&served, &narrow).await?))
}

/// How much of a resource a department may use, and how much it used today.
#[derive(Serialize, ToSchema)]
pub(crate) struct BudgetBody {
    /// The department that asks.
    pub(crate) asker: String,
    /// The resource.
    pub(crate) resource: String,
    /// The matter; none where the budget is of all matters together.
    pub(crate) matter: Option<String>,
    /// The basis, where it is what a share request granted and no budget of the holder's.
    pub(crate) basis: Option<String>,
    /// The most calls a day; none where there is no limit.
    pub(crate) per_day: Option<u32>,
    /// The most values about one person a day; none where there is no limit.
    pub(crate) per_person: Option<u32>,
    /// Calls granted today.
    pub(crate) today: u32,
    /// The moving average of calls a day before it, in thousandths.
    pub(crate) average_milli: u64,
}

pub(crate) async fn budget_list(served: &Served, narrow: &Narrow) -> Result<Vec<BudgetBody>, ChainError> {
    let chain = served.flow.chain();
    let today = Day::of(chain.host().now_ms());
    let used = async |key: Key| -> Result<(u32, u64), ChainError> {
        let spent: Option<Spent> = chain.record(&key).await?;
        Ok(spent.map(|s| s.on(today)).map_or((0, 0), |s| (s.calls, s.average_milli)))
    };
    let mut list = Vec::new();
    let fits = |share: &ShareRef| narrow.fits(&[&share.holder, &share.asker]);
    for share in served.flow.shares(false, ENTRIES_MAX, fits) {
        let record: Option<ShareRecord> = chain.record(&Key::Share(share.clone())).await?;
        let Some(record) = record.filter(|r| r.state == ShareState::Granted) else { continue };
        let (today, average_milli) = used(Key::ShareSpent(share.clone())).await?;
        list.push(BudgetBody {
            asker: share.asker.to_string(),
            resource: record.request.resource.to_string(),
            matter: Some(record.request.matter.to_string()),
            basis: Some(share.id.to_string()),
            per_day: Some(record.request.per_day),
            per_person: None,
            today,
            average_milli,
        });
    }
    let fits = |resource: &ResourceId, asker: &DepartmentId| {
        let entry = served.flow.catalogue().get(resource);
        let departments: Vec<_> = entry.iter().map(|e| &e.holder).chain([asker]).collect();
        narrow.fits(&departments)
    };
    for (resource, asker, matter) in served.flow.budgets(ENTRIES_MAX, fits) {
        let key = Key::Budget(resource.clone(), asker.clone(), matter.clone());
        let Some(budget) = chain.record::<Budget>(&key).await? else { continue };
        let key = Key::Spent(resource.clone(), asker.clone(), matter.clone());
        let (today, average_milli) = used(key).await?;
        list.push(BudgetBody {
            asker: asker.to_string(),
            resource: resource.to_string(),
            matter: matter.map(|m| m.to_string()),
            basis: None,
            per_day: budget.per_day,
            per_person: budget.per_person,
            today,
            average_milli,
        });
    }
    Ok(list)
}

/// A department's policy over its resources.
#[derive(Serialize, ToSchema)]
pub(crate) struct PolicyBody {
    /// The department.
    department: String,
    /// Grows by one with every text; 0: there never was one.
    version: u32,
    /// The text in Cedar; empty: there is none.
    text: String,
}

#[utoipa::path(get, path = "/api/v1/policies/{department}", params(("department" = String, Path)),
    responses((status = 200, body = PolicyBody), (status = 400, body = Problem)))]
pub(crate) async fn policy(
    State(served): Shared,
    Path(department): Path<String>,
) -> Result<Json<PolicyBody>, Problem> {
    let department: DepartmentId = parse(&department)?;
    let record = served.flow.chain().record::<ledger::PolicyRecord>(&Key::Policy(department.clone())).await?;
    let (version, text) = record.map_or((0, String::new()), |r| (r.version, r.text));
    Ok(Json(PolicyBody { department: department.to_string(), version, text }))
}

/// What was granted a day and what holders allow, and what was used of it today.
#[utoipa::path(get, path = "/api/v1/budgets", params(("department" = Option<String>, Query)),
    responses((status = 200, body = Vec<BudgetBody>), (status = 400, body = Problem)))]
pub(crate) async fn budgets(
    State(served): Shared,
    Query(narrow): Query<Narrow>,
) -> Result<Json<Vec<BudgetBody>>, Problem> {
    Ok(Json(budget_list(&served, &narrow).await?))
}

/// An unusual use that waits to be explained.
#[derive(Serialize, ToSchema)]
pub(crate) struct AlertBody {
    /// The department whose use it is.
    pub(crate) asker: String,
    /// The resource.
    pub(crate) resource: String,
    /// `over_budget` or `surge`.
    pub(crate) unusual: &'static str,
    /// The day it was raised.
    #[schema(value_type = String)]
    pub(crate) day: Day,
    /// By when it has to be explained; from then on nothing is granted until it is.
    pub(crate) due_ms: u64,
    /// Whether that has passed.
    pub(crate) overdue: bool,
}

pub(crate) async fn alert_list(served: &Served, narrow: &Narrow) -> Result<Vec<AlertBody>, ChainError> {
    let chain = served.flow.chain();
    let open: Vec<(ResourceId, DepartmentId)> = chain.record(&Key::OpenAlerts).await?.unwrap_or_default();
    let mut list = Vec::new();
    for (resource, asker) in open {
        let holder = served.flow.resource(&resource).map(|r| r.holder.clone());
        let departments: Vec<_> = holder.iter().chain([&asker]).collect();
        if !narrow.fits(&departments) {
            continue;
        }
        let key = Key::Alert(resource.clone(), asker.clone());
        let Some(alert) = chain.record::<AlertRecord>(&key).await? else { continue };
        list.push(alert_body(&resource, &asker, &alert, chain.host().now_ms()));
    }
    Ok(list)
}

fn alert_body(resource: &ResourceId, asker: &DepartmentId, alert: &AlertRecord, now_ms: u64) -> AlertBody {
    AlertBody {
        asker: asker.to_string(),
        resource: resource.to_string(),
        unusual: alert.unusual.as_str(),
        day: alert.day,
        due_ms: alert.due_ms,
        overdue: alert.due_ms < now_ms,
    }
}

/// The alert about a department's use of a resource that waits to be explained.
#[utoipa::path(get, path = "/api/v1/alerts/{resource}/{asker}", params(("resource" = String, Path), ("asker" = String, Path)),
    responses((status = 200, body = AlertBody), (status = 404, body = Problem)))]
pub(crate) async fn alert(
    State(served): Shared,
    Path((resource, asker)): Path<(String, String)>,
) -> Result<Json<AlertBody>, Problem> {
    let chain = served.flow.chain();
    let (resource, asker): (ResourceId, DepartmentId) = (parse(&resource)?, parse(&asker)?);
    let alert: Option<AlertRecord> = chain.record(&Key::Alert(resource.clone(), asker.clone())).await?;
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "not_found", "no such alert waits to be explained");
    let alert = alert.filter(|a| a.explained.is_none()).ok_or_else(unknown)?;
    Ok(Json(alert_body(&resource, &asker, &alert, chain.host().now_ms())))
}

/// Alerts about unusual use that wait to be explained.
#[utoipa::path(get, path = "/api/v1/alerts", params(("department" = Option<String>, Query)),
    responses((status = 200, body = Vec<AlertBody>), (status = 400, body = Problem)))]
pub(crate) async fn alerts(
    State(served): Shared,
    Query(narrow): Query<Narrow>,
) -> Result<Json<Vec<AlertBody>>, Problem> {
    Ok(Json(alert_list(&served, &narrow).await?))
}

/// An objection to a value.
#[derive(Serialize, ToSchema)]
pub(crate) struct ObjectionBody {
    /// The call that gave it.
    pub(crate) call: String,
    /// The field or predicate.
    pub(crate) name: String,
    /// The department that objects.
    pub(crate) asker: String,
    /// The department that answers.
    pub(crate) holder: String,
    /// `untrue`, `outdated`, `incomplete` or `another_person`.
    pub(crate) wrong: &'static str,
    /// `open`, or what came of it: `corrected`, `confirmed`, `unproven` or `elsewhere`.
    pub(crate) state: &'static str,
    /// When it was raised, in milliseconds since 1970.
    pub(crate) since_ms: u64,
    /// By when it has to be answered.
    pub(crate) due_ms: u64,
    /// Whether it was not, or later.
    pub(crate) overdue: bool,
}

pub(crate) async fn objection_list(
    served: &Served,
    narrow: &Narrow,
) -> Result<Vec<ObjectionBody>, ChainError> {
    let chain = served.flow.chain();
    let mut list = Vec::new();
    // whose they are stands in their records
    let most = if narrow.department.is_some() { usize::MAX } else { ENTRIES_MAX };
    for (call, name) in served.flow.objections(narrow.open, most) {
        if list.len() == ENTRIES_MAX {
            break;
        }
        let key = Key::Objection(call, name.clone());
        let Some(record) = chain.record::<ObjectionRecord>(&key).await? else { continue };
        if !narrow.fits(&[&record.holder, &record.asker]) {
            continue;
        }
        let answered_ms = record.answer.map_or(chain.host().now_ms(), |a| a.0);
        let state = record.answer.map_or("open", |(_, verdict)| verdict.as_str());
        list.push(ObjectionBody {
            call: call.to_string(),
            name: name.to_string(),
            asker: record.asker.to_string(),
            holder: record.holder.to_string(),
            wrong: record.wrong.as_str(),
            state,
            since_ms: record.at_ms,
            due_ms: record.due_ms,
            overdue: answered_ms > record.due_ms,
        });
    }
    list.sort_by_key(|o| if o.state == "open" { o.due_ms } else { u64::MAX - o.since_ms });
    Ok(list)
}

/// Objections to values, those that wait for an answer first.
#[utoipa::path(get, path = "/api/v1/objections", params(("open" = Option<bool>, Query), ("department" = Option<String>, Query)),
    responses((status = 200, body = Vec<ObjectionBody>), (status = 400, body = Problem)))]
pub(crate) async fn objections(
    State(served): Shared,
    Query(narrow): Query<Narrow>,
) -> Result<Json<Vec<ObjectionBody>>, Problem> {
    Ok(Json(objection_list(&served, &narrow).await?))
}

/// An objection to a value that a step of a case received.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectBody {
    /// The step whose call gave it.
    step: String,
    /// The field or predicate.
    name: String,
    /// `untrue`, `outdated`, `incomplete` or `another_person`.
    wrong: String,
}

/// The call objected to.
#[derive(Serialize, ToSchema)]
pub(crate) struct Objected {
    /// The call.
    call: String,
}

/// Reads the word of what is wrong.
pub(crate) fn wrong_of(word: &str) -> Option<Wrong> {
    [Wrong::Untrue, Wrong::Outdated, Wrong::Incomplete, Wrong::AnotherPerson]
        .into_iter()
        .find(|wrong| wrong.as_str() == word)
}

/// Objects, for the person or for this department, to a value that the newest call of a step gave.
#[utoipa::path(post, path = "/api/v1/cases/{id}/objections", params(("id" = String, Path)), request_body = ObjectBody,
    responses((status = 201, body = Objected), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn object(
    State(served): Shared,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<ObjectBody>,
) -> Result<(StatusCode, Json<Objected>), Problem> {
    let wrong = wrong_of(&body.wrong)
        .ok_or_else(|| bad("`wrong` is untrue, outdated, incomplete or another_person"))?;
    let step = parse::<StepId>(&body.step)?;
    let call = served.flow.object(parse(&id)?, &step, parse(&body.name)?, wrong).await?;
    Ok((StatusCode::CREATED, Json(Objected { call: call.to_string() })))
}
