//! What this node knows of sharing between departments: which requests, projects, budgets and objections there are. How each of them
//! stands is read from the ledger's state; what a budget allows about one person is counted here, because the ledger does not know
//! who a call is about.

use crate::{
    CaseError, VaultError,
    run::{Flow, FlowError},
};
use gateway::Source;
use ledger::Key;
use model::*;
use std::collections::BTreeSet;

/// The names of all there is on the ledger.
#[derive(Clone, Default)]
pub struct Known {
    /// Share requests.
    pub shares: BTreeSet<ShareRef>,
    /// Projects, by owner.
    pub projects: BTreeSet<(DepartmentId, ProjectId)>,
    /// Budgets: resource, asker, and the matter where it is of one.
    pub budgets: BTreeSet<(ResourceId, DepartmentId, Option<MatterId>)>,
    /// Objections: call and name.
    pub objections: BTreeSet<(CallId, FieldId)>,
}

impl Known {
    /// Takes note of an accepted command.
    pub(crate) fn note(&mut self, signer: &DepartmentId, body: &Body) {
        match body {
            Body::RequestShare(c) => {
                let (holder, asker, id) = (c.holder.clone(), signer.clone(), c.id.clone());
                self.budgets.insert((c.resource.clone(), signer.clone(), Some(c.matter.clone())));
                self.shares.insert(ShareRef { holder, asker, id });
            }
            Body::RegisterProject(c) => {
                self.projects.insert((signer.clone(), c.id.clone()));
            }
            Body::SetBudget(c) => {
                self.budgets.insert((c.resource.clone(), c.asker.clone(), c.matter.clone()));
            }
            Body::Object(c) => {
                self.objections.insert((c.call, c.name.clone()));
            }
            _ => {}
        }
    }
}

/// Answers of this holder, on its ledger and in its vault: in good order these are the same.
pub struct HeldAnswers {
    /// Answers that gave something, as final on this node.
    pub given: BTreeSet<CallId>,
    /// Calls whose subject the vault knows.
    pub kept: BTreeSet<CallId>,
}

impl<S: Source> Flow<S> {
    /// The names of all share requests, projects, budgets and objections on the ledger.
    pub fn known(&self) -> Known {
        self.lock().known.clone()
    }

    /// The newest call of a case's step, where it gave something.
    pub fn answered_call(&self, case: CaseId, step: &StepId) -> Option<CallId> {
        let state = self.lock();
        let call = state.cases.get(&case)?.calls.get(step)?;
        matches!(call.answer, Some((_, Reply::Data { .. }))).then_some(call.id)
    }

    /// Objects to a value that a step's call gave.
    pub async fn object(
        &self,
        case: CaseId,
        step: &StepId,
        name: FieldId,
        wrong: Wrong,
    ) -> Result<CallId, CaseError> {
        let call = self.answered_call(case, step).ok_or(CaseError::Unknown("answered call"))?;
        self.accepted(Body::Object(Object { call, name, wrong })).await?;
        Ok(call)
    }

    /// What this holder answered, by its ledger and by its vault.
    pub async fn held_answers(&self) -> Result<HeldAnswers, VaultError> {
        let given = self.given_answers();
        let kept = self.vault.list("answered/").await?;
        let kept = kept.iter().filter_map(|place| place.rsplit('/').next()?.parse().ok()).collect();
        Ok(HeldAnswers { given, kept })
    }

    /// Whether another answer about a person is within what this holder allows a department a day; if so it is counted, once
    /// for each call.
    pub(crate) async fn spend_on_person(
        &self,
        call: CallId,
        subject: &str,
        asker: &DepartmentId,
        matter: &MatterId,
        need: &Need,
    ) -> Result<bool, FlowError> {
        let mut most = u32::MAX;
        for matter in [Some(matter.clone()), None] {
            let key = Key::Budget(need.resource.clone(), asker.clone(), matter);
            let budget = self.chain.record::<Budget>(&key).await?.unwrap_or_default();
            most = most.min(budget.per_person.unwrap_or(u32::MAX));
        }
        if most == u32::MAX {
            return Ok(true);
        }
        let day = Day::of(self.host.now_ms());
        let tag = self.tag(subject).await?;
        let place = format!("counted/{day}/{tag}/{}/{asker}", need.resource);
        // two answers at once must not each believe to be the last
        let mut counting_on = self.counting.lock().await;
        if *counting_on < day {
            self.forget_counts(day).await?;
            *counting_on = day;
        }
        let mut counted: Vec<(CallId, u32)> = match self.vault.get(&place).await? {
            Some(bytes) => decode(&bytes).map_err(|_| VaultError("a count cannot be read".into()))?,
            None => vec![],
        };
        counted.retain(|(other, _)| *other != call);
        let names = need.what.names().len() as u32;
        let before: u32 = counted.iter().map(|(_, names)| names).sum();
        if before.saturating_add(names) > most {
            return Ok(false);
        }
        counted.push((call, names));
        self.vault.put(&place, &encode(&counted)).await?;
        Ok(true)
    }

    /// Erases the counts of days that are over.
    async fn forget_counts(&self, today: Day) -> Result<(), VaultError> {
        let today = format!("counted/{today}/");
        for place in self.vault.list("counted/").await?.into_iter().filter(|place| *place < today) {
            self.vault.erase(&place).await?;
        }
        Ok(())
    }
}
