//! The handler's part that nobody asks for: what is due in its cases is asked, decided, requested, opened and settled.

use crate::{
    case::{Case, Due, RULE_FAILED, StepState},
    letter::{
        ActionResult, Message, Payload, Request, Task, payload_context, request_context, result_context,
        sealed_hash,
    },
    lists,
    package::{Package, Step},
    run::{Flow, FlowError},
};
use chain::ChainError;
use crypto::{Opening, Salt};
use gateway::Source;
use model::*;
use std::{collections::BTreeMap, time::Duration};
use tracing::{error, warn};

/// A call that is ready to be asked.
pub(crate) struct Prepared {
    pub(crate) call: CallId,
    pub(crate) holder: DepartmentId,
    pub(crate) sealed: Vec<u8>,
    /// The signed command that asks.
    pub(crate) command: bytes::Bytes,
}

/// How long a holder has to answer and a performer to report, where the package does not say: three days.
const WITHIN_HOURS: u32 = 72;
/// How long a command of a step may take to be ordered before it is given up and made again.
pub(crate) const ORDERED_WITHIN: Duration = Duration::from_secs(3600);
/// What was opened is confirmed again after this, where no confirmation was ordered.
const CONFIRM_AGAIN_MS: u64 = 15_000;
/// A payload must have come within this after its answer; then the answer is disputed.
const PAYLOAD_WITHIN_MS: u64 = 300_000;
/// For how long after its last change a case still wants what an action returned: a day.
const RESULT_WANTED_MS: u64 = 86_400_000;
/// Whom a lying handler asks about, in the simulation.
const LIAR_SUBJECT: &str = "110101199003079999";

impl<S: Source> Flow<S> {
    /// Starts whatever is due in this handler's cases.
    pub(crate) fn work_as_handler(&self) {
        let (mut due, mut ready) = (Vec::new(), lists::Ready::new());
        let listed = {
            let mut state = self.lock();
            // until the past is folded in, nothing is due: acting on half of it could do a thing twice
            if !state.live {
                return;
            }
            let crate::run::State { cases, under_way, unconfirmed, lists, .. } = &mut *state;
            let now = self.host.now_ms();
            for case in cases.values().filter(|c| !c.is_over()) {
                let Some(package) = self.packages.get(&case.matter) else { continue };
                for mut item in case.due(&package, now) {
                    if let Due::Call(step) = &item
                        && let Some(step) = package.step(step)
                        && let Some(wait) = lists.wait(case, step, &package, now)
                        && let Some(listing) = &step.list
                    {
                        if under_way.contains(&(case.id, step.id.clone())) {
                            continue;
                        }
                        let turned_away = lists.turned_away(case.id, &step.id, now);
                        let Some(why) = turned_away else {
                            let key = (case.matter.clone(), step.id.clone());
                            let waiting = ready.entry(key).or_insert_with(|| lists::Waiting {
                                listing: listing.clone(),
                                waits: Vec::new(),
                            });
                            waiting.waits.push((case.id, wait));
                            continue;
                        };
                        item = Due::Settle(CaseOutcome::NeedsHuman, step.id.clone(), why.into());
                    }
                    let step = match &item {
                        Due::Call(step) | Due::Decide(step) | Due::Act(step) | Due::Resume(step) => {
                            step.clone()
                        }
                        Due::Settle(_, step, _) => step.clone(),
                    };
                    let waits = unconfirmed.get(&case.id).is_some_and(|(s, _)| *s == step)
                        && matches!(item, Due::Decide(_));
                    if !waits && under_way.insert((case.id, step.clone())) {
                        due.push((case.id, step, item));
                    }
                }
            }
            lists.due(ready, now)
        };
        self.start_lists(listed);
        for (case, step, item) in due {
            let flow = self.clone();
            self.host.spawn(async move {
                let done = match &item {
                    Due::Call(step) => flow.ask(case, step).await,
                    Due::Decide(step) => flow.decide(case, step).await,
                    Due::Act(step) => flow.request(case, step).await,
                    Due::Settle(outcome, step, reason) => flow.settle(case, *outcome, step, reason).await,
                    Due::Resume(_) => flow.resume_late(case, &step).await,
                };
                if let Err(e) = done {
                    warn!(case = %case.short(), %step, error = %e, "a step could not be performed; it is tried again");
                    flow.lock().under_way.remove(&(case, step));
                }
            });
        }
    }

    /// Goes on with a case whose late report came; where the ledger refuses, it is looked at again.
    async fn resume_late(&self, id: CaseId, step: &StepId) -> Result<(), FlowError> {
        let event = self.resume(id, Vec::new(), "the late report came").await?;
        if let Outcome::Refused(refusal) = event.outcome {
            warn!(case = %id.short(), code = refusal.code(), "a case could not go on by itself; it is looked at again");
            self.caught_up(event.height).await;
            self.lock().under_way.remove(&(id, step.clone()));
        }
        Ok(())
    }

    /// Settles a case; where the ledger refuses (something was ordered in between), it is looked at again.
    async fn settle(
        &self,
        case: CaseId,
        outcome: CaseOutcome,
        step: &StepId,
        reason: &str,
    ) -> Result<(), FlowError> {
        let place = (case, step.clone());
        let reason = self.committed(case, reason).await?;
        let settle = SettleCase { case, outcome, step: step.clone(), reason };
        let event = self.submit_and_wait(Body::SettleCase(settle), ORDERED_WITHIN).await?;
        if let Outcome::Refused(refusal) = event.outcome {
            warn!(case = %place.0.short(), code = refusal.code(), "the ledger refused to settle a case; it is looked at again");
            self.caught_up(event.height).await;
            self.lock().under_way.remove(&place);
        }
        Ok(())
    }

    fn with_case<T>(&self, id: CaseId, read: impl FnOnce(&Case, &Package) -> T) -> Result<T, FlowError> {
        let state = self.lock();
        let case = state.cases.get(&id).ok_or(FlowError::Inconsistent("no such case"))?;
        let package = self.packages.get(&case.matter).ok_or(FlowError::Inconsistent("no such matter"))?;
        Ok(read(case, &package))
    }

    /// The parameters of a step. What was left out of the form, or was not asked in this case, is left out here: whoever needs it
    /// says so.
    fn parameters(case: &Case, step: &Step) -> BTreeMap<FieldId, String> {
        step.parameters.iter().filter_map(|(n, from)| Some((n.clone(), case.value(from)?.clone()))).collect()
    }

    async fn ask(&self, id: CaseId, step_id: &StepId) -> Result<(), FlowError> {
        let prepared = self.prepare_ask(id, step_id).await?;
        let command = self.send_request(prepared);
        self.submit_step(id, step_id, command)
    }

    /// The consortium's calendar, as its rules of sharing have it; not read for a step that counts no working days.
    async fn calendar(&self, step: &Step) -> Result<WorkingDays, FlowError> {
        if step.within_days.is_none() {
            return Ok(WorkingDays::default());
        }
        let rules = self.chain.record::<Sharing>(&ledger::Key::Sharing).await?;
        Ok(rules.unwrap_or_default().calendar)
    }

    /// Sends a call's sealed request to its holder; what is left is the command that asks.
    pub(crate) fn send_request(&self, prepared: Prepared) -> bytes::Bytes {
        let Prepared { call, holder, sealed, command } = prepared;
        self.post(&holder, &Message::Request { call, sealed });
        command
    }

    /// Seals a call's request to its holder, keeps it to be sent again, and signs the command that asks.
    pub(crate) async fn prepare_ask(&self, id: CaseId, step_id: &StepId) -> Result<Prepared, FlowError> {
        let prepared = self.with_case(id, |case, package| {
            let step = package.step(step_id)?;
            let need = package.need(step);
            let subject = match &step.subject {
                Some(reference) => case.value(reference)?.clone(),
                None => case.value(&format!("{}.id", need.party))?.clone(),
            };
            let consent = match need.basis {
                NeedBasis::Consent => Some(ConsentId(case.consents.get(&need.party)?.0.0)),
                _ => None,
            };
            let attempt = case.next_attempt(step_id);
            Some((need, subject, consent, attempt, Self::parameters(case, step), step.clone()))
        })?;
        let (need, subject, consent, attempt, parameters, step) =
            prepared.ok_or(FlowError::Inconsistent("a call's subject is not known yet"))?;
        let subject = if planted("liar_subject") { LIAR_SUBJECT.to_owned() } else { subject };
        let party = match need.basis {
            NeedBasis::Statutory(_) => None,
            _ => Some(self.party_opening(id, &need.party).await?),
        };
        let request = Request { salt: Salt::random(), subject, parameters, party };
        let context = request_context(id, step_id, &self.me, &need.holder);
        let holder = self.member(&need.holder)?;
        let sealed = crypto::seal(&holder.seal_key, &context, &encode(&request))?;
        let ask = Ask {
            case: id,
            step: step_id.clone(),
            attempt,
            consent,
            subject: request.commitment(self.suite()),
            sealed: sealed_hash(self.suite(), &sealed),
            answer_by_ms: deadline_ms(&step, self.host.now_ms(), &self.calendar(&step).await?),
        };
        let (id, command) = self.sign(Body::Ask(ask));
        let call = CallId(id.0);
        self.vault.put(&format!("sent/{call}"), &sealed).await?;
        Ok(Prepared { call, holder: need.holder, sealed, command })
    }

    /// Submits the command of a step and, should the ledger refuse it, lets the step be looked at again.
    fn submit_step(&self, id: CaseId, step: &StepId, bytes: bytes::Bytes) -> Result<(), FlowError> {
        let (flow, step) = (self.clone(), step.clone());
        self.host.spawn(async move {
            let result = flow.chain.submit_and_wait(vec![bytes], ORDERED_WITHIN).await.remove(0);
            flow.after_step(id, &step, result).await;
        });
        Ok(())
    }

    /// Looks at what came of the command of a step.
    pub(crate) async fn after_step(&self, id: CaseId, step: &StepId, result: Result<Event, ChainError>) {
        let again = || {
            self.lock().under_way.remove(&(id, step.clone()));
        };
        match result {
            Ok(Event { outcome: Outcome::Refused(refusal), height, .. }) => {
                warn!(case = %id.short(), %step, code = refusal.code(), "the ledger refused a step");
                // what cannot be undone was requested before: the case goes on, and is looked at again
                if refusal == Refusal::WrongState {
                    self.caught_up(height).await;
                    let overtaken = self.with_case(id, |case, package| {
                        case.is_past(package) && package.step(step).is_some_and(|s| s.undoes.is_some())
                    });
                    if overtaken.unwrap_or(false) {
                        return again();
                    }
                }
                // its list has expired meanwhile: it is put in another
                let listed =
                    |_: &Case, package: &Package| package.step(step).is_some_and(|s| s.list.is_some());
                if refusal == Refusal::NotListed && self.with_case(id, listed).unwrap_or(false) {
                    self.caught_up(height).await;
                    self.lock().lists.hold_off(id, step, self.host.now_ms());
                    return again();
                }
                // after a withdrawal the case is settled as withdrawn, not handed to a person
                if !matches!(refusal, Refusal::ConsentWithdrawn | Refusal::CaseClosed | Refusal::AlreadyUsed)
                    && let Err(e) = self.settle(id, CaseOutcome::NeedsHuman, step, refusal.code()).await
                {
                    error!(case = %id.short(), error = %e, "a refused step could not be handed to a person");
                }
            }
            Err(e) => {
                warn!(case = %id.short(), %step, error = %e, "a step's command was not ordered; it is tried again");
                again();
            }
            Ok(_) => {}
        }
    }

    /// The code behind a reason on the ledger goes into the vault, its commitment on the ledger.
    pub(crate) async fn committed(&self, case: CaseId, code: &str) -> Result<Commitment, FlowError> {
        let opening = Opening::fresh("reason", code);
        let commitment = opening.commitment(self.suite());
        self.vault.put(&format!("case/{case}/reason/{commitment}"), &encode(&opening)).await?;
        Ok(commitment)
    }

    /// The code a decision or settlement of a case commits to; empty where it was erased.
    pub(crate) async fn reason(&self, event: &Event) -> Result<String, crate::VaultError> {
        let (case, commitment) = match &event.command.command.body {
            Body::Decide(c) => (c.case, c.reason),
            Body::SettleCase(c) => (c.case, c.reason),
            _ => return Ok(String::new()),
        };
        let kept = self.vault.get(&format!("case/{case}/reason/{commitment}")).await?;
        Ok(kept.and_then(|bytes| decode::<Opening>(&bytes).ok()).map(|o| o.value).unwrap_or_default())
    }

    /// A decision by a step's rules: `pass`, or what the rule that held says; adverse where a person confirmed it.
    pub(crate) async fn decision(
        &self,
        id: CaseId,
        step_id: &StepId,
        result: &str,
        confirmed_by: Option<Commitment>,
    ) -> Result<Decide, FlowError> {
        let reason = self.committed(id, result).await?;
        self.with_case(id, |case, package| {
            let step = package.step(step_id)?;
            let rules = serde_json::to_vec(&step.rules).expect("rules can be written as JSON");
            Some(Decide {
                case: id,
                step: step_id.clone(),
                rule: crypto::hash(self.suite(), "tongban/rule/1", &[&rules]),
                inputs: case.commitments.iter().map(|(_, c)| *c).collect(),
                passed: result == "pass",
                reason,
                adverse: confirmed_by.is_some(),
                confirmed_by,
            })
        })?
        .ok_or(FlowError::Inconsistent("no such step"))
    }

    async fn decide(&self, id: CaseId, step_id: &StepId) -> Result<(), FlowError> {
        let rule = self.with_case(id, |case, package| {
            let step = package.step(step_id).ok_or("no such step".to_string())?;
            case.decide(package, step).map(|rule| rule.cloned())
        })?;
        let (result, adverse) = match rule {
            Ok(None) => ("pass".parse().expect("a name"), false),
            Ok(Some(rule)) => (rule.result, rule.outcome == CaseOutcome::Refused),
            Err(message) => {
                error!(case = %id.short(), step = %step_id, %message, "a rule cannot be evaluated; a person is asked");
                return self.settle(id, CaseOutcome::NeedsHuman, step_id, RULE_FAILED).await;
            }
        };
        if adverse {
            let mut state = self.lock();
            state.unconfirmed.insert(id, (step_id.clone(), result));
            state.under_way.remove(&(id, step_id.clone()));
            drop(state);
            self.changes.step();
            return Ok(());
        }
        let decide = self.decision(id, step_id, result.as_str(), None).await?;
        let (_, bytes) = self.sign(Body::Decide(decide));
        self.submit_step(id, step_id, bytes)
    }

    async fn request(&self, id: CaseId, step_id: &StepId) -> Result<(), FlowError> {
        let prepared = self.with_case(id, |case, package| {
            let step = package.step(step_id)?;
            Some((step.performer.clone()?, Self::parameters(case, step), step.clone()))
        })?;
        let (performer, parameters, step) =
            prepared.ok_or(FlowError::Inconsistent("a requested action is not declared"))?;
        let task = Task { salt: Salt::random(), parameters };
        let context = request_context(id, step_id, &self.me, &performer);
        let sealed = crypto::seal(&self.member(&performer)?.seal_key, &context, &encode(&task))?;
        let request = RequestAction {
            case: id,
            step: step_id.clone(),
            parameters: task.commitment(self.suite()),
            sealed: sealed_hash(self.suite(), &sealed),
            report_by_ms: deadline_ms(&step, self.host.now_ms(), &self.calendar(&step).await?),
        };
        let (command, bytes) = self.sign(Body::RequestAction(request));
        self.vault.put(&format!("sent/{}", CallId(command.0)), &sealed).await?;
        self.post(&performer, &Message::Task { action: ActionId(command.0), sealed });
        self.submit_step(id, step_id, bytes)
    }

    /// Opens a payload whose answer is final here, confirms or disputes it, and goes on with its case.
    pub(crate) async fn open_payload(&self, call: CallId, sealed: Vec<u8>) -> Result<(), FlowError> {
        self.open_one(call, sealed).await?;
        self.work_as_handler();
        Ok(())
    }

    /// Opens a payload whose answer is final here, and confirms or disputes it.
    pub(crate) async fn open_one(&self, call: CallId, sealed: Vec<u8>) -> Result<(), FlowError> {
        let Some((case, step)) = self.lock().calls.get(&call).cloned() else { return Ok(()) };
        if self.is_erased(case) {
            return Ok(());
        }
        let answer = self.with_case(case, |c, package| {
            let names = package.step(&step).and_then(|s| s.what.as_ref().map(What::names))?;
            if let Some(delivery) = c.delivery(call) {
                let reply = delivery.call.answer.clone().filter(|_| delivery.values.is_none())?.1;
                return Some((names, reply));
            }
            let reply = c.calls.get(&step).filter(|k| k.id == call)?.answer.clone()?.1;
            (c.state(&step) != StepState::NotStarted && !c.values.contains_key(step.as_str()))
                .then_some((names, reply))
        })?;
        // not final here yet, or opened before: the reminder fetches it again where it is needed
        let Some((names, Reply::Data { commitments, payload, .. })) = answer else {
            let waits = |c: &Case, _: &Package| match c.delivery(call) {
                Some(delivery) => delivery.values.is_none(),
                None => !c.values.contains_key(step.as_str()),
            };
            // of a call whose grant has not come here yet, nothing is known but its case
            if self.with_case(case, waits)? {
                self.vault.put(&format!("early/{call}"), &sealed).await?;
            }
            return Ok(());
        };
        let opened = (sealed_hash(self.suite(), &sealed) == payload)
            .then(|| crypto::open(&self.keys.seal, &payload_context(call, &self.me), &sealed).ok())
            .flatten()
            .and_then(|plain| decode::<Payload>(&plain).ok())
            .filter(|p| p.call == call && p.openings.len() == names.len())
            .filter(|p| {
                p.openings
                    .iter()
                    .zip(&names)
                    .zip(&commitments)
                    .all(|((o, name), c)| o.name == name.as_str() && o.commitment(self.suite()) == *c)
            });
        let Some(opened) = opened else {
            if sealed_hash(self.suite(), &sealed) != payload {
                return Ok(()); // somebody else's bytes; the holder's are fetched again
            }
            let reason = Opening::fresh("dispute", "the payload does not match its commitments");
            self.submit(Body::Confirm(Confirm { call, dispute: Some(reason.commitment(self.suite())) }))?;
            return Ok(());
        };
        let place = format!("opened/{call}");
        self.vault.put(&place, &encode(&opened.openings)).await?;
        if self.is_erased(case) {
            self.vault.erase(&place).await?;
            return Ok(());
        }
        self.take_openings(case, call, &step, &opened.openings);
        self.submit(Body::Confirm(Confirm { call, dispute: None }))?;
        Ok(())
    }

    /// Opens a payload that came before its answer was final on this node.
    pub(crate) fn spawn_open_early(&self, call: CallId) {
        let flow = self.clone();
        self.host.spawn(async move {
            if let Err(e) = flow.open_early(call).await {
                warn!(call = %call.short(), error = %e, "an early payload could not be opened; it is fetched again");
            }
        });
    }

    /// Whether a payload had come early.
    pub(crate) async fn open_early(&self, call: CallId) -> Result<bool, FlowError> {
        let place = format!("early/{call}");
        let Some(sealed) = self.vault.get(&place).await? else { return Ok(false) };
        self.vault.erase(&place).await?;
        self.open_payload(call, sealed).await?;
        Ok(true)
    }

    fn take_openings(&self, case: CaseId, call: CallId, step: &StepId, openings: &[Opening]) {
        let mut state = self.lock();
        let Some(case) = state.cases.get_mut(&case) else { return };
        let values: BTreeMap<_, _> = openings.iter().map(|o| (o.name.clone(), o.value.clone())).collect();
        if case.delivered_here(call, values.clone()) {
            drop(state);
            self.changes.step();
            return;
        }
        // a later try, or a resumption, may have taken its place meanwhile
        let waits = case.calls.get(step).is_some_and(|c| c.id == call)
            && matches!(case.state(step), StepState::Waiting(_));
        if !waits || case.values.contains_key(step.as_str()) {
            return;
        }
        case.opened_here(
            step,
            values,
            openings.iter().map(|o| o.commitment(self.suite())).collect(),
            self.host.now_ms(),
        );
        drop(state);
        self.changes.step();
    }

    /// What this node opened of a call before, where it did.
    #[allow(clippy::type_complexity)]
    pub(crate) async fn opened_before(
        &self,
        call: CallId,
    ) -> Result<Option<(StepId, BTreeMap<String, String>, Vec<Commitment>)>, crate::VaultError> {
        let Some((_, step)) = self.lock().calls.get(&call).cloned() else { return Ok(None) };
        let Some(bytes) = self.vault.get(&format!("opened/{call}")).await? else { return Ok(None) };
        let openings: Vec<Opening> =
            decode(&bytes).map_err(|_| crate::VaultError("an opened payload is damaged".into()))?;
        let commitments = openings.iter().map(|o| o.commitment(self.suite())).collect();
        Ok(Some((step, openings.into_iter().map(|o| (o.name, o.value)).collect(), commitments)))
    }

    /// Keeps what an action returned, where it matches its commitment.
    pub(crate) async fn take_result(&self, action: ActionId, sealed: Vec<u8>) -> Result<(), FlowError> {
        let Some((case, step)) = self.lock().actions.get(&action).cloned() else { return Ok(()) };
        if self.is_erased(case) {
            return Ok(());
        }
        let Ok(plain) = crypto::open(&self.keys.seal, &result_context(action, &self.me), &sealed) else {
            return Ok(());
        };
        let Ok(result) = decode::<ActionResult>(&plain) else { return Ok(()) };
        let report = self.with_case(case, |c, _| c.actions.get(&step).and_then(|a| a.report.clone()))?;
        let Some((report, None)) = report else {
            // it came before the report was final here
            self.vault.put(&format!("early-result/{action}"), &sealed).await?;
            return Ok(());
        };
        let event = self.chain.event(report).await?;
        if matches!(&event.command.command.body, Body::ReportAction(r) if r.result == result.commitment(self.suite()))
        {
            let place = format!("case/{case}/result/{step}");
            self.vault.put(&place, &encode(&result)).await?;
            if self.is_erased(case) {
                self.vault.erase(&place).await?;
                return Ok(());
            }
            if let Some(case) = self.lock().cases.get_mut(&case) {
                case.returned_here(&step, result.into_values());
            }
            self.changes.step();
            self.work_as_handler();
        }
        Ok(())
    }

    /// What an action of a case returned, where it came here.
    pub(crate) async fn returned_before(
        &self,
        case: CaseId,
        step: &StepId,
    ) -> Result<Option<BTreeMap<String, String>>, crate::VaultError> {
        let Some(bytes) = self.vault.get(&format!("case/{case}/result/{step}")).await? else {
            return Ok(None);
        };
        let result: ActionResult =
            decode(&bytes).map_err(|_| crate::VaultError("a kept result is damaged".into()))?;
        Ok(Some(result.into_values()))
    }

    /// Takes in a result that came before its report was final here.
    pub(crate) fn spawn_early_result(&self, action: ActionId) {
        let flow = self.clone();
        self.host.spawn(async move {
            let taken = async {
                let place = format!("early-result/{action}");
                let Some(sealed) = flow.vault.get(&place).await? else { return Ok(()) };
                flow.vault.erase(&place).await?;
                flow.take_result(action, sealed).await
            };
            if let Err(e) = taken.await {
                warn!(action = %action.short(), error = %e, "an action's early result could not be kept");
            }
        });
    }

    /// Confirms again what was opened before a crash could confirm it, and disputes answers whose payload never came.
    async fn confirm_again(&self) -> Result<(), FlowError> {
        let mut confirmations = Vec::new();
        {
            let now = self.host.now_ms();
            let mut state = self.lock();
            let crate::run::State { cases, confirmed, .. } = &mut *state;
            for case in cases.values() {
                let opened = |step: &StepId| case.values.contains_key(step.as_str());
                let newest = case.calls.iter().map(|(step, call)| (call, opened(step), case.is_over()));
                // what a later try took the place of may still have been opened: the vault knows
                let earlier = case.earlier.calls.iter().map(|(_, call)| (call, false, true));
                let delivered = case.deliveries.iter().map(|d| (&d.call, d.values.is_some(), false));
                for (call, opened, over) in newest.chain(earlier).chain(delivered) {
                    let answered =
                        matches!(&call.answer, Some((_, Reply::Data { .. }))) && call.confirm.is_none();
                    let Some(since) = call.answered_ms.filter(|_| answered) else { continue };
                    // what a case that is over no longer needs is not fetched any more
                    let patience = if opened || over { CONFIRM_AGAIN_MS } else { PAYLOAD_WITHIN_MS };
                    let again = confirmed.get(&call.id).is_none_or(|at| now > at + CONFIRM_AGAIN_MS);
                    if now.saturating_sub(since) > patience && again {
                        confirmed.insert(call.id, now);
                        confirmations.push(call.id);
                    }
                }
            }
        }
        if planted("confirm_lost") {
            return Ok(());
        }
        for call in confirmations {
            let opened = self.vault.get(&format!("opened/{call}")).await?.is_some();
            if !opened {
                warn!(call = %call.short(), "a final answer was not opened; it is disputed");
            }
            let dispute = (!opened).then(|| {
                let why = "the payload never came, or the case was over before";
                Opening::fresh("dispute", why).commitment(self.suite())
            });
            self.submit(Body::Confirm(Confirm { call, dispute }))?;
        }
        Ok(())
    }

    /// Sends requests again whose answer has not come, fetches payloads that have not, and records silence.
    pub(crate) async fn repeat_requests(&self) -> Result<(), FlowError> {
        self.record_silence()?;
        self.confirm_again().await?;
        let (mut repeats, mut lacking) = (Vec::new(), Vec::new());
        {
            let state = self.lock();
            let recent = self.host.now_ms().saturating_sub(RESULT_WANTED_MS);
            for case in state
                .cases
                .values()
                .filter(|c| !c.is_over() || c.changed_ms > recent && c.erased_ms.is_none())
            {
                let Some(package) = self.packages.get(&case.matter) else { continue };
                // what the applicant is shown in the end may still be on its way when the last report closes the case
                for step in case.lacking_results(&package) {
                    let known = case.actions.get(&step.id).zip(step.performer.clone());
                    lacking.extend(known.map(|(action, performer)| (performer, action.id)));
                }
                if case.is_over() {
                    continue;
                }
                let stale = |step: &StepId| matches!(case.state(step), StepState::Waiting(since) if since + 1_000 < self.host.now_ms());
                for (step, call) in case.calls.iter().filter(|(s, _)| stale(s)) {
                    let Some(holder) = package.step(step).and_then(|s| s.holder.clone()) else { continue };
                    repeats.push((holder, call.id.0, true, call.answer.is_some()));
                }
                for (step, action) in case.actions.iter().filter(|(s, a)| stale(s) && a.report.is_none()) {
                    let Some(performer) = package.step(step).and_then(|s| s.performer.clone()) else {
                        continue;
                    };
                    repeats.push((performer, action.id.0, false, false));
                }
            }
        }
        for (to, action) in lacking {
            self.post(&to, &Message::FetchResult { action });
        }
        let mut requests: BTreeMap<DepartmentId, Vec<(CallId, Vec<u8>)>> = BTreeMap::new();
        for (to, id, is_call, answered) in repeats {
            if answered {
                if !self.open_early(CallId(id)).await? {
                    self.post(&to, &Message::Fetch { call: CallId(id) });
                }
            } else if let Some(sealed) = self.vault.get(&format!("sent/{}", CallId(id))).await? {
                match is_call {
                    true => requests.entry(to).or_default().push((CallId(id), sealed)),
                    false => self.post(&to, &Message::Task { action: ActionId(id), sealed }),
                }
            }
        }
        for (to, requests) in requests {
            self.post_calls(
                &to,
                requests,
                |call, sealed| Message::Request { call, sealed },
                Message::Requests,
            );
        }
        Ok(())
    }
}

/// Until when the department of a step has time that is asked now; both in milliseconds since 1970.
pub(crate) fn deadline_ms(step: &Step, now_ms: u64, calendar: &WorkingDays) -> u64 {
    match step.within_days {
        Some(days) => calendar.deadline_ms(now_ms, days),
        None => now_ms + u64::from(step.within_hours.unwrap_or(WITHIN_HOURS)) * 3_600_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_department_has_hours_or_working_days_to_the_end_of_the_last() {
        let text = r#"{ "id": "a", "kind": "act", "title": { "zh": "a", "en": "a" } }"#;
        let mut step: Step = serde_json::from_str(text).unwrap();
        let day = |text: &str| text.parse::<Day>().unwrap();
        let calendar =
            WorkingDays { holidays: vec![day("2026-10-01")], worked_weekends: vec![day("2026-10-03")] };
        // Wednesday, ten in the morning
        let now_ms = day("2026-09-30").begins_ms() + 10 * 3_600_000;
        assert_eq!(deadline_ms(&step, now_ms, &calendar), now_ms + 72 * 3_600_000);
        step.within_hours = Some(5);
        assert_eq!(deadline_ms(&step, now_ms, &calendar), now_ms + 5 * 3_600_000);
        (step.within_hours, step.within_days) = (None, Some(3));
        // Friday, the Saturday that is worked, Monday
        assert_eq!(deadline_ms(&step, now_ms, &calendar), day("2026-10-05").ends_ms());
    }
}
