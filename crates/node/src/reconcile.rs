//! The daily reconciliation: what the ledger says was asked of this department and by it, beside what its own vault says it read.

use crate::api::{Problem, Served, Shared};
use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
};
use chain::{Chain, ChainError};
use ledger::{CallRecord, CallState, CaseRecord, Key, MatterRecord};
use model::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

/// The most calls listed under one difference; the count is whole.
const LISTED_MAX: usize = 100;

#[derive(Deserialize)]
pub(crate) struct OfDay {
    day: Option<Day>,
}

/// Calls of one department to another in one matter, on one day.
#[derive(Clone, Default, Serialize, ToSchema)]
pub(crate) struct Tally {
    /// Calls granted.
    pub(crate) granted: u32,
    /// In how many cases.
    pub(crate) cases: u32,
    /// Calls answered with something.
    pub(crate) answered: u32,
    /// Calls declined by the holder.
    pub(crate) declined: u32,
    /// Answers the asker opened.
    pub(crate) opened: u32,
    /// Answers it disputed.
    pub(crate) disputed: u32,
    /// Answers it let lapse.
    pub(crate) lapsed: u32,
}

/// A line of the report.
#[derive(Serialize, ToSchema)]
pub(crate) struct Line {
    /// The department that asks.
    pub(crate) asker: String,
    /// The department that holds the resource.
    pub(crate) holder: String,
    /// The resource.
    pub(crate) resource: String,
    /// The matter.
    pub(crate) matter: String,
    /// What happened.
    #[serde(flatten)]
    pub(crate) tally: Tally,
}

/// Calls the ledger refused.
#[derive(Serialize, ToSchema)]
pub(crate) struct RefusedLine {
    /// The department that asked.
    pub(crate) asker: String,
    /// Why.
    pub(crate) code: &'static str,
    /// How many.
    pub(crate) count: u32,
}

/// Something that does not agree, or was left undone.
#[derive(Serialize, ToSchema)]
pub(crate) struct Difference {
    /// `unanswered`: this department let a call's deadline pass. `not_on_ledger`: it read for a call and no answer of its own is on
    /// the ledger. `not_kept`: it answered, and its vault does not know about whom. `unconfirmed`: it received an answer and did not
    /// confirm it.
    pub(crate) code: &'static str,
    /// How many calls.
    pub(crate) count: usize,
    /// The first of them.
    pub(crate) calls: Vec<String>,
}

/// One day's reconciliation.
#[derive(Serialize, ToSchema)]
pub(crate) struct Reconciliation {
    /// This department.
    pub(crate) department: String,
    /// The day, in China.
    #[schema(value_type = String)]
    pub(crate) day: Day,
    /// The first and last block of the day, where there is any.
    pub(crate) blocks: Option<(u64, u64)>,
    /// What others asked of this department.
    pub(crate) as_holder: Vec<Line>,
    /// What this department asked of others.
    pub(crate) as_asker: Vec<Line>,
    /// Calls of this department's, and to it, that the ledger refused.
    pub(crate) refused: Vec<RefusedLine>,
    /// What does not agree or was left undone; nothing where all is well.
    pub(crate) differences: Vec<Difference>,
}

/// One day of this department's calls: what was asked, answered and refused by the ledger, and where the department's own records
/// do not agree with it. Yesterday, where no day is given.
#[utoipa::path(get, path = "/api/v1/reconciliation", params(("day" = Option<String>, Query)),
    responses((status = 200, body = Reconciliation), (status = 400, body = Problem)))]
pub(crate) async fn report(
    State(served): Shared,
    Query(of): Query<OfDay>,
) -> Result<Json<Reconciliation>, Problem> {
    let today = Day::of(served.flow.chain().host().now_ms());
    let day = of.day.unwrap_or(Day(today.0.saturating_sub(1)));
    if day > today {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", "that day has not begun"));
    }
    Ok(Json(reconcile(&served, day).await?))
}

/// The first height whose block is not before a time.
async fn first_at(chain: &Chain, time_ms: u64) -> Result<u64, ChainError> {
    let (mut low, mut high) = (1, chain.height() + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match chain.block_events(middle).await?.time_ms < time_ms {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    Ok(low)
}

/// What was declared for a call: matter, holder, resource.
struct Declared {
    matter: MatterId,
    holder: DepartmentId,
    resource: ResourceId,
}

/// Looks up what calls are about, each case once.
struct Desk<'a> {
    chain: &'a Chain,
    matters: HashMap<CaseId, Option<MatterRecord>>,
}

impl Desk<'_> {
    async fn declared(
        &mut self,
        case: CaseId,
        step: &StepId,
        asker: &DepartmentId,
    ) -> Result<Option<Declared>, ChainError> {
        if !self.matters.contains_key(&case) {
            let record: Option<CaseRecord> = self.chain.record(&Key::Case(case)).await?;
            let matter = match record {
                Some(record) => self.chain.record(&Key::Matter(record.matter, record.version)).await?,
                None => None,
            };
            self.matters.insert(case, matter);
        }
        let Some(Some(record)) = self.matters.get(&case) else { return Ok(None) };
        let matter = &record.published;
        let need = matter.needs.iter().find(|n| &n.step == step && &n.recipient == asker);
        Ok(need.map(|need| Declared {
            matter: matter.id.clone(),
            holder: need.holder.clone(),
            resource: need.resource.clone(),
        }))
    }
}

type Name = (DepartmentId, DepartmentId, ResourceId, MatterId);

/// A day is read from its blocks: one at a time is.
static READING: Semaphore = Semaphore::const_new(1);

pub(crate) async fn reconcile(served: &Served, day: Day) -> Result<Reconciliation, Problem> {
    let _turn = READING.acquire().await;
    let (chain, me) = (served.flow.chain(), &served.department);
    let (from, to) = (first_at(chain, day.begins_ms()).await?, first_at(chain, day.ends_ms() + 1).await?);
    let mut desk = Desk { chain, matters: HashMap::new() };
    let mut tallies: BTreeMap<Name, Tally> = BTreeMap::new();
    let mut cases: BTreeSet<(Name, CaseId)> = BTreeSet::new();
    let mut refused: BTreeMap<(DepartmentId, &'static str), u32> = BTreeMap::new();
    let (mut asked_of_me, mut asked_by_me) = (Vec::new(), Vec::new());
    for height in from..to {
        for event in chain.block_events(height).await?.events {
            let signer = event.command.command.signer.clone();
            let call = match (&event.command.command.body, &event.outcome) {
                (Body::Ask(ask), outcome) => {
                    let Some(declared) = desk.declared(ask.case, &ask.step, &signer).await? else {
                        if let (Outcome::Refused(refusal), true) = (outcome, &signer == me) {
                            *refused.entry((signer, refusal.code())).or_default() += 1;
                        }
                        continue;
                    };
                    if &declared.holder != me && &signer != me {
                        continue;
                    }
                    if let Outcome::Refused(refusal) = outcome {
                        *refused.entry((signer, refusal.code())).or_default() += 1;
                        continue;
                    }
                    let name = (signer.clone(), declared.holder.clone(), declared.resource, declared.matter);
                    cases.insert((name.clone(), ask.case));
                    tallies.entry(name).or_default().granted += 1;
                    if &declared.holder == me {
                        asked_of_me.push(CallId(event.id.0));
                    }
                    if &signer == me {
                        asked_by_me.push(CallId(event.id.0));
                    }
                    continue;
                }
                (_, Outcome::Refused(_)) => continue,
                (Body::Answer(c), _) => c.call,
                (Body::Confirm(c), _) => c.call,
                (Body::Lapse(c), _) => c.call,
                _ => continue,
            };
            let Some(record) = chain.record::<CallRecord>(&Key::Call(call)).await? else { continue };
            if &record.holder != me && &record.asker != me {
                continue;
            }
            let Some(declared) = desk.declared(record.case, &record.step, &record.asker).await? else {
                continue;
            };
            let name = (record.asker, record.holder, declared.resource, declared.matter);
            let tally = tallies.entry(name).or_default();
            match &event.command.command.body {
                Body::Answer(Answer { reply: Reply::Data { .. }, .. }) => tally.answered += 1,
                Body::Answer(_) => tally.declined += 1,
                Body::Confirm(Confirm { dispute: None, .. }) => tally.opened += 1,
                Body::Confirm(_) => tally.disputed += 1,
                _ => tally.lapsed += 1,
            }
        }
    }
    for (name, _) in cases {
        tallies.entry(name).or_default().cases += 1;
    }
    let differences = differences(served, &asked_of_me, &asked_by_me).await?;
    let lines = |mine: fn(&Name) -> &DepartmentId| {
        tallies.iter().filter(move |(name, _)| mine(name) == me).map(|(name, t)| Line {
            asker: name.0.to_string(),
            holder: name.1.to_string(),
            resource: name.2.to_string(),
            matter: name.3.to_string(),
            tally: t.clone(),
        })
    };
    Ok(Reconciliation {
        department: me.to_string(),
        day,
        blocks: (from < to).then_some((from, to - 1)),
        as_holder: lines(|name| &name.1).collect(),
        as_asker: lines(|name| &name.0).collect(),
        refused: refused
            .into_iter()
            .map(|((asker, code), count)| RefusedLine { asker: asker.to_string(), code, count })
            .collect(),
        differences,
    })
}

/// Where the day's calls are not as they should be by now.
async fn differences(
    served: &Served,
    asked_of_me: &[CallId],
    asked_by_me: &[CallId],
) -> Result<Vec<Difference>, Problem> {
    let chain = served.flow.chain();
    let now = chain.host().now_ms();
    let held = served.flow.held_answers().await.map_err(flow::CaseError::Vault)?;
    let mut found: BTreeMap<&'static str, Vec<CallId>> = BTreeMap::new();
    let mut note = |code, call: &CallId| found.entry(code).or_default().push(*call);
    for call in asked_of_me {
        let Some(record) = chain.record::<CallRecord>(&Key::Call(*call)).await? else { continue };
        if record.state == CallState::Granted && record.answer_by_ms < now {
            note("unanswered", call);
        }
        let over = record.state != CallState::Granted || record.answer_by_ms < now;
        match (held.given.contains(call), held.kept.contains(call)) {
            (true, false) => note("not_kept", call),
            (false, true) if over => note("not_on_ledger", call),
            _ => {}
        }
    }
    for call in asked_by_me {
        let Some(record) = chain.record::<CallRecord>(&Key::Call(*call)).await? else { continue };
        let silent = match record.state {
            CallState::Answered { confirm_by_ms } => confirm_by_ms < now,
            CallState::Lapsed => true,
            _ => false,
        };
        if silent {
            note("unconfirmed", call);
        }
    }
    Ok(found
        .into_iter()
        .map(|(code, calls)| Difference {
            code,
            count: calls.len(),
            calls: calls.iter().take(LISTED_MAX).map(ToString::to_string).collect(),
        })
        .collect())
}
