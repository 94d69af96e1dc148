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
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// Names of one kind, each with whether it waits for somebody, and when it last changed.
struct Names<N>(BTreeMap<N, (bool, u64)>);

impl<N> Default for Names<N> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<N: Ord + Clone> Names<N> {
    /// What fits, at most so many: those that wait, the longest unchanged first; then the others, the newest first.
    fn pick(&self, open: bool, most: usize, fits: impl Fn(&N) -> bool) -> Vec<N> {
        let wanted = self.0.iter().filter(|(name, (waits, _))| (*waits || !open) && fits(name));
        let (mut waiting, mut rest): (Vec<_>, Vec<_>) = wanted.partition(|(_, (waits, _))| *waits);
        waiting.sort_by_key(|(_, (_, at))| *at);
        rest.sort_by_key(|(_, (_, at))| Reverse(*at));
        waiting.into_iter().chain(rest).take(most).map(|(name, _)| name.clone()).collect()
    }
}

/// The names of all there is on the ledger.
#[derive(Default)]
pub(crate) struct Known {
    shares: Names<ShareRef>,
    projects: Names<(DepartmentId, ProjectId)>,
    budgets: BTreeSet<(ResourceId, DepartmentId, Option<MatterId>)>,
    objections: Names<(CallId, FieldId)>,
    /// How many commands were noted.
    at: u64,
}

impl Known {
    /// The calls with an objection to one of their values that waits for its answer.
    pub(crate) fn objected(&self) -> BTreeSet<CallId> {
        self.objections.0.iter().filter(|(_, (waits, _))| *waits).map(|((call, _), _)| *call).collect()
    }

    /// Takes note of an accepted command.
    pub(crate) fn note(&mut self, signer: &DepartmentId, body: &Body) {
        self.at += 1;
        let at = self.at;
        let share = |holder: &DepartmentId, asker: &DepartmentId, id: &ApprovalId| {
            let (holder, asker, id) = (holder.clone(), asker.clone(), id.clone());
            ShareRef { holder, asker, id }
        };
        let (share, waits) = match body {
            Body::RequestShare(c) => (share(&c.holder, signer, &c.id), true),
            Body::ReplyShare(c) => (share(signer, &c.asker, &c.id), c.reply == ShareReply::Accept),
            Body::ApproveBasis(c) => (share(signer, &c.asker, &c.id), false),
            Body::WithdrawShare(c) => (share(&c.holder, signer, &c.id), false),
            Body::DisputeShare(c) => (share(&c.holder, signer, &c.id), true),
            Body::RuleShare(c) => (c.share.clone(), c.grant),
            Body::RegisterProject(c) => {
                self.projects.0.insert((signer.clone(), c.id.clone()), (true, at));
                return;
            }
            Body::EndProject(c) => {
                self.projects.0.insert((c.owner.clone(), c.id.clone()), (false, at));
                return;
            }
            Body::SetBudget(c) => {
                self.budgets.insert((c.resource.clone(), c.asker.clone(), c.matter.clone()));
                return;
            }
            Body::Object(c) => {
                self.objections.0.insert((c.call, c.name.clone()), (true, at));
                return;
            }
            Body::AnswerObjection(c) => {
                self.objections.0.insert((c.call, c.name.clone()), (false, at));
                return;
            }
            _ => return,
        };
        // an approval that answers no request is none
        if matches!(body, Body::RequestShare(_)) || self.shares.0.contains_key(&share) {
            self.shares.0.insert(share, (waits, at));
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
    /// Share requests that fit, at most so many: those that wait, the longest unchanged first; then the others, the newest first.
    pub fn shares(&self, open: bool, most: usize, fits: impl Fn(&ShareRef) -> bool) -> Vec<ShareRef> {
        self.lock().known.shares.pick(open, most, fits)
    }

    /// Projects, by owner, in that order too: one waits until it is ended.
    pub fn projects(
        &self,
        open: bool,
        most: usize,
        fits: impl Fn(&DepartmentId) -> bool,
    ) -> Vec<(DepartmentId, ProjectId)> {
        self.lock().known.projects.pick(open, most, |(owner, _)| fits(owner))
    }

    /// Objections to values of calls, in that order too.
    pub fn objections(&self, open: bool, most: usize) -> Vec<(CallId, FieldId)> {
        self.lock().known.objections.pick(open, most, |_| true)
    }

    /// Budgets that fit, by resource, asker, and the matter where it is of one.
    pub fn budgets(
        &self,
        most: usize,
        fits: impl Fn(&ResourceId, &DepartmentId) -> bool,
    ) -> Vec<(ResourceId, DepartmentId, Option<MatterId>)> {
        let state = self.lock();
        let found = state.known.budgets.iter().filter(|(resource, asker, _)| fits(resource, asker));
        found.take(most).cloned().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn name<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
        text.parse().unwrap()
    }

    #[test]
    fn what_waits_comes_first_and_a_limit_never_hides_it() {
        let mut known = Known::default();
        let call = |n: u8| CallId([n; 32]);
        for n in 0..20 {
            let object = Object { call: call(n), name: name("value"), wrong: Wrong::Untrue };
            known.note(&name("bureau"), &Body::Object(object));
        }
        for n in (0..20).filter(|n| ![7, 3].contains(n)) {
            let answer = AnswerObjection { call: call(n), name: name("value"), verdict: Verdict::Corrected };
            known.note(&name("police"), &Body::AnswerObjection(answer));
        }
        let calls = |open, most| -> Vec<u8> {
            known.objections.pick(open, most, |_| true).iter().map(|(call, _)| call.0[0]).collect()
        };
        assert_eq!(calls(false, 4), [3, 7, 19, 18]);
        assert_eq!(calls(true, 4), [3, 7]);
    }
}
