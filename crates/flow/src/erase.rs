//! Erasing what a handler holds of the people of a case that is over: when the days have passed that its package says, or by an
//! officer's word (PIPL 47). The erasure is anchored on the ledger first. So it is known to everybody, and a vault that comes back
//! from an older backup is erased again. Receipts go on being verified: they rest on nothing that is erased.

use crate::{
    case::{CallEvents, Case, StepState},
    handler::{CaseError, REASON_CHARS_MAX, VALUE_CHARS_MAX, check_words},
    package::Package,
    run::{Flow, FlowError, State},
};
use gateway::Source;
use model::*;
use std::collections::BTreeSet;
use tracing::{info, warn};

/// The topic under which a handler anchors which cases it erased: their IDs, as a Borsh list.
pub const ERASED_TOPIC: &str = "case_erased";
/// How many cases one anchor names at most.
const ERASED_TOGETHER: usize = 100;
/// How often a node looks whose time is over.
const LOOK_EVERY_MS: u64 = 3_600_000;
const DAY_MS: u64 = 86_400_000;
/// How much later than by this node's clock a deadline may pass on the ledger.
const SLACK_MS: u64 = 600_000;

/// Why a case cannot be erased yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Kept {
    /// This node has not read the ledger to its end.
    #[error("this node is still reading what it lacks of the ledger")]
    Behind,
    /// It is not over.
    #[error("it is not over yet")]
    Open,
    /// A department still has to answer or to report, or what it answered is neither confirmed nor disputed.
    #[error("an answer or a report is still to come or to be confirmed")]
    Awaited,
    /// Changes are still received for it.
    #[error("a subscription of it goes on; it can be ended with `tongban subscription end`")]
    Subscribed,
    /// Somebody objects to a value, and the holder has not answered.
    #[error("an objection to one of its values waits for the holder's answer")]
    Objected,
}

/// Why this case cannot be erased at a time (milliseconds since 1970), if it cannot. `objected` are the calls with an objection that
/// waits.
fn kept(
    state: &State,
    case: &Case,
    package: &Package,
    objected: &BTreeSet<CallId>,
    now_ms: u64,
) -> Option<Kept> {
    if !state.live {
        return Some(Kept::Behind);
    }
    if !case.is_over() {
        return Some(Kept::Open);
    }
    let since_ms = now_ms.saturating_sub(SLACK_MS);
    // what the applicant is shown in the end may still be on its way
    if case.awaits(since_ms) || !case.lacking_results(package).is_empty() && case.changed_ms > since_ms {
        return Some(Kept::Awaited);
    }
    if state.subscriptions.serve(case.id, since_ms) {
        return Some(Kept::Subscribed);
    }
    case.log.iter().any(|call| objected.contains(&CallId(call.0))).then_some(Kept::Objected)
}

/// Whether a case's time is over: so many days after it ended.
fn is_past(case: &Case, retain_days: Option<u32>, now_ms: u64) -> bool {
    let ended = case.settled.as_ref().filter(|_| case.is_over() && case.erased_ms.is_none());
    let until_ms = ended.zip(retain_days).map(|(s, days)| s.at_ms + u64::from(days) * DAY_MS);
    until_ms.is_some_and(|until_ms| until_ms < now_ms)
}

impl Case {
    /// Whether an answer or a report is still to come, or an answer to be confirmed, now in milliseconds since 1970.
    fn awaits(&self, now_ms: u64) -> bool {
        let calls = self.calls.values().chain(self.earlier.calls.iter().map(|(_, call)| call));
        let calls = calls.chain(self.deliveries.iter().map(|d| &d.call));
        let actions = self.actions.values().chain(self.earlier.actions.iter().map(|(_, action)| action));
        let asked = |call: &CallEvents| match &call.answer {
            None => call.answer_by_ms >= now_ms,
            // later the holder lets it lapse, and nothing confirms it any more
            Some((_, reply)) => {
                let confirmable = call.answered_ms.is_some_and(|at| at + ledger::CONFIRM_WITHIN_MS >= now_ms);
                matches!(reply, Reply::Data { .. }) && call.confirm.is_none() && confirmable
            }
        };
        calls.into_iter().any(asked)
            || actions.into_iter().any(|a| a.report.is_none() && a.report_by_ms >= now_ms)
    }

    /// Every action of it.
    fn action_ids(&self) -> Vec<ActionId> {
        let all = self.actions.values().chain(self.earlier.actions.iter().map(|(_, action)| action));
        all.map(|action| action.id).collect()
    }

    /// Forgets what was opened, filled in and decided of people, as if it were read again without its vault.
    fn forget(&mut self, now_ms: u64) {
        self.erased_ms = Some(now_ms);
        self.values.clear();
        self.passed_over.clear();
        (self.rested, self.refused_at) = (None, None);
        for delivery in &mut self.deliveries {
            delivery.values = None;
        }
        for step in self.decisions.keys() {
            if let Some(StepState::Failed(_, code)) = self.steps.get_mut(step) {
                code.clear();
            }
        }
        if let Some(settled) = &mut self.settled {
            settled.reason.clear();
            settled.before = None;
        }
    }
}

impl<S: Source> Flow<S> {
    /// Why a case cannot be erased now, if it cannot; nothing too where it is erased already.
    ///
    /// # Errors
    /// Where this department has no such case.
    pub fn why_kept(&self, id: CaseId) -> Result<Option<Kept>, CaseError> {
        let state = self.lock();
        let case = state.cases.get(&id).ok_or(CaseError::Unknown("case"))?;
        if case.erased_ms.is_some() {
            return Ok(None);
        }
        let package = self.packages.get(&case.matter).ok_or(CaseError::Unknown("matter"))?;
        Ok(kept(&state, case, &package, &state.known.objected(), self.host.now_ms()))
    }

    /// An officer erases what is held of the people of a case that is over. Who and why stay in the vault.
    ///
    /// # Errors
    /// Where it cannot be erased yet, or the ledger or the vault cannot be used.
    pub async fn erase_case(&self, id: CaseId, officer: &str, reason: &str) -> Result<(), CaseError> {
        check_words("who", officer, VALUE_CHARS_MAX)?;
        check_words("reason", reason, REASON_CHARS_MAX)?;
        if let Some(kept) = self.why_kept(id)? {
            return Err(CaseError::Kept(kept));
        }
        if self.is_erased(id) {
            return self.erase_now(id).await;
        }
        self.vault.put(&format!("erasure/{id}/why"), &encode(&(officer, reason))).await?;
        let event = self.accepted(erased(&[id])).await?;
        self.caught_up(event.height).await;
        self.erase_now(id).await
    }

    /// Erases what was anchored as erased, and anchors the cases whose time is over.
    pub(crate) async fn erase_due(&self) -> Result<(), FlowError> {
        let now = self.host.now_ms();
        let (erasing, past) = {
            let mut state = self.lock();
            // one at a time: a vault has other work
            if std::mem::replace(&mut state.erases, true) {
                return Ok(());
            }
            let mut erasing = Vec::new();
            while erasing.len() < ERASED_TOGETHER
                && let Some(id) = state.erasing.pop_first()
            {
                erasing.push(id);
            }
            let mut past = Vec::new();
            if now >= state.erased_look_ms + LOOK_EVERY_MS {
                state.erased_look_ms = now;
                let objected = state.known.objected();
                let of = |case: &&Case| {
                    let Some(package) = self.packages.get(&case.matter) else { return false };
                    is_past(case, package.retain_days, now)
                        && kept(&state, case, &package, &objected, now).is_none()
                };
                past = state.cases.values().filter(of).map(|case| case.id).collect();
            }
            (erasing, past)
        };
        for id in erasing {
            if let Err(e) = self.erase_now(id).await {
                self.lock().erasing.insert(id);
                warn!(case = %id.short(), error = %e, "a case could not be erased; trying again");
            }
        }
        self.lock().erases = false;
        for together in past.chunks(ERASED_TOGETHER) {
            self.submit(erased(together))?;
        }
        Ok(())
    }

    /// Whether what was held of a case's people was erased: nothing of it is taken in any more.
    pub(crate) fn is_erased(&self, id: CaseId) -> bool {
        self.lock().cases.get(&id).is_some_and(|case| case.erased_ms.is_some())
    }

    /// Takes in that this department erased cases.
    pub(crate) fn note_erased(&self, anchor: &Anchor, time_ms: u64) {
        if anchor.topic.as_str() != ERASED_TOPIC {
            return;
        }
        let Ok(ids) = decode::<Vec<CaseId>>(&anchor.data) else { return };
        let mut state = self.lock();
        for id in ids {
            if let Some(case) = state.cases.get_mut(&id).filter(|c| c.is_over() && c.erased_ms.is_none()) {
                case.forget(time_ms);
                state.unconfirmed.remove(&id);
                state.erasing.insert(id);
            }
        }
    }

    /// Erases a case's places in the vault, once.
    async fn erase_now(&self, id: CaseId) -> Result<(), CaseError> {
        let done = format!("erasure/{id}/done");
        if self.vault.get(&done).await?.is_some() {
            return Ok(());
        }
        let (calls, actions) = {
            let state = self.lock();
            let case = state.cases.get(&id).ok_or(CaseError::Unknown("case"))?;
            (case.log.clone(), case.action_ids())
        };
        let mut places = self.vault.list(&format!("case/{id}/")).await?;
        // what was signed names no person, and the receipt of the consent rests on it
        places.retain(|place| !place.starts_with(&format!("case/{id}/text/")));
        for call in calls.into_iter().map(|call| CallId(call.0)) {
            places.extend(["opened", "sent", "early"].map(|kind| format!("{kind}/{call}")));
        }
        for action in actions {
            places.extend([format!("sent/{}", CallId(action.0)), format!("early-result/{action}")]);
        }
        let mut entries = 0;
        for place in places {
            entries += self.vault.erase(&place).await?;
        }
        self.vault.put(&done, &encode(&self.host.now_ms())).await?;
        info!(case = %id.short(), entries, "a case was erased");
        Ok(())
    }
}

fn erased(ids: &[CaseId]) -> Body {
    Body::Anchor(Anchor { topic: ERASED_TOPIC.parse().expect("a code"), data: encode(&ids.to_vec()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{
        Due,
        tests::{World, name},
    };

    fn ended() -> World {
        let mut w = World::registered();
        w.act("gas", None);
        w.act("power", Some("refused"));
        let due = w.due();
        assert!(matches!(due[..], [Due::Settle(CaseOutcome::ClosedPartly, ..)]), "{due:?}");
        w.settle(&due[0]);
        w
    }

    #[test]
    fn a_cases_time_is_over_so_many_days_after_its_end() {
        let w = ended();
        let end = w.case.settled.as_ref().unwrap().at_ms;
        let past = |days, now_ms| is_past(&w.case, days, now_ms);
        assert!(past(Some(0), end + 1) && !past(Some(0), end));
        assert!(past(Some(7), end + 7 * DAY_MS + 1) && !past(Some(7), end + 7 * DAY_MS));
        assert!(!past(None, u64::MAX), "kept until an officer erases it");
        assert!(!is_past(&World::registered().case, Some(0), u64::MAX), "it is not over");
    }

    #[test]
    fn an_answer_is_awaited_as_long_as_it_can_come_or_be_confirmed() {
        let mut w = World::new();
        assert!(!w.case.awaits(w.now));
        w.ask(0);
        let by = w.case.calls[&name("bills")].answer_by_ms;
        assert!(w.case.awaits(by) && !w.case.awaits(by + 1));
        w.answered("yes");
        let call = w.case.calls[&name("bills")].clone();
        let until = call.answered_ms.unwrap() + ledger::CONFIRM_WITHIN_MS;
        // what nobody confirmed lapses, and must not keep its case for ever
        assert!(w.case.awaits(until) && !w.case.awaits(until + 1));
        w.apply(Body::Confirm(Confirm { call: call.id, dispute: None }), "");
        assert!(!w.case.awaits(w.now));
        w.act("transfer", Some("silence"));
        assert!(w.case.awaits(w.now) && !w.case.awaits(w.now + 60_001));
    }

    #[test]
    fn what_is_forgotten_is_nowhere_in_the_case() {
        let mut w = ended();
        w.delivered(1, Some("no"));
        w.case.forget(w.now);
        assert!(w.case.values.is_empty() && !w.case.deliveries.is_empty());
        assert!(w.case.deliveries.iter().all(|d| d.values.is_none()));
        assert_eq!(w.case.settled.as_ref().map(|s| s.reason.as_str()), Some(""));
        let standing = w.case.standing(&w.package);
        assert!(standing.values().all(|s| *s != StepState::NotStarted), "{standing:?}");
        assert!(w.due().is_empty());
    }
}
