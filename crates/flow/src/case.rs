//! A case as its events tell it, and what is due in it. Pure: events in, dues out.

use crate::package::{Basis, Package, Rule, Step, StepKind, alternatives};
use model::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Where a step stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepState {
    /// Not begun.
    NotStarted,
    /// Begun at this time; waits for somebody.
    Waiting(u64),
    /// Done at this time.
    Done(u64),
    /// Ended without success, with a code.
    Failed(u64, String),
    /// Not taken in this case: its party is not there, or its condition does not hold.
    Skipped,
}

/// The events of a call.
#[derive(Clone, Debug)]
pub struct CallEvents {
    /// The call.
    pub id: CallId,
    /// Its attempt.
    pub attempt: u32,
    /// The consent it rests on.
    pub consent: Option<ConsentId>,
    /// The catalogue entry it rested on.
    pub resource: Option<CommandId>,
    /// The approval of its statutory basis.
    pub approval: Option<CommandId>,
    /// The answer, once accepted.
    pub answer: Option<(CommandId, Reply)>,
    /// When the holder must have answered.
    pub answer_by_ms: u64,
    /// When the answer was ordered.
    pub answered_ms: Option<u64>,
    /// The asker's confirmation.
    pub confirm: Option<CommandId>,
    /// Objections to its values and the holder's answers, in the order they were made.
    pub objections: Vec<(proof::Role, FieldId, CommandId)>,
}

/// The events of an action.
#[derive(Clone, Debug)]
pub struct ActionEvents {
    /// The action.
    pub id: ActionId,
    /// When the performer must have reported.
    pub report_by_ms: u64,
    /// The performer's report and failure code.
    pub report: Option<(CommandId, Option<Code>)>,
}

/// A case, folded from its events.
#[derive(Clone, Debug)]
pub struct Case {
    /// The case.
    pub id: CaseId,
    /// The matter and version.
    pub matter: (MatterId, u32),
    /// The parties with their commitments.
    pub parties: Vec<Party>,
    /// Who was identified, by which event and key.
    pub identified: BTreeMap<RoleId, (CommandId, PublicKey)>,
    /// Consents by party, newest last: event, terms, withdrawn by.
    pub consents: BTreeMap<RoleId, (CommandId, ConsentTerms, Option<CommandId>)>,
    /// The newest call of each step.
    pub calls: BTreeMap<StepId, CallEvents>,
    /// The newest action of each step.
    pub actions: BTreeMap<StepId, ActionEvents>,
    /// The newest decision of each step.
    pub decisions: BTreeMap<StepId, CommandId>,
    /// Calls, actions and decisions that a later try took the place of.
    pub earlier: Earlier,
    /// Calls made under subscriptions, in order: what they gave changes nothing that was decided.
    pub deliveries: Vec<Delivery>,
    /// Every call granted in it, by whomever, in the order of their numbers.
    pub log: Vec<CommandId>,
    /// The newest settlement, and how many calls it counted.
    pub counted: Option<(CommandId, usize)>,
    /// Where it rests or how it ended.
    pub settled: Option<Settled>,
    /// Step states.
    pub steps: BTreeMap<StepId, StepState>,
    /// When each step began.
    pub began: BTreeMap<StepId, u64>,
    /// When it was opened.
    pub opened_ms: u64,
    /// When it last changed.
    pub changed_ms: u64,
    /// Values opened at this node, by step and name. Personal data: never logged, never on the ledger.
    pub values: BTreeMap<String, BTreeMap<String, String>>,
    /// The commitments of opened values with their steps, in the order opened.
    pub commitments: Vec<(StepId, Commitment)>,
    /// Rules an officer let the case pass: step and result.
    pub passed_over: BTreeSet<(StepId, String)>,
    /// The step at which an officer refused it.
    pub refused_at: Option<StepId>,
    /// Why it rested when they did.
    pub(crate) rested: Option<String>,
    /// When what was held of its people was erased.
    pub erased_ms: Option<u64>,
}

/// Where a case rests or how it ended.
#[derive(Clone, Debug)]
pub struct Settled {
    /// How.
    pub outcome: CaseOutcome,
    /// At which step.
    pub step: StepId,
    /// The code that says why, as the vault keeps it; empty where it was erased.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Why it rested before, where an officer ended that.
    pub before: Option<String>,
}

/// A call made because what it asks for had changed.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The step.
    pub step: StepId,
    /// The call.
    pub call: CallEvents,
    /// When it was asked, in milliseconds since 1970.
    pub asked_ms: u64,
    /// What was opened. Personal data: never logged, never on the ledger.
    pub values: Option<BTreeMap<String, String>>,
}

/// What later tries took the place of, in order.
#[derive(Clone, Debug, Default)]
pub struct Earlier {
    /// Calls.
    pub calls: Vec<(StepId, CallEvents)>,
    /// Actions.
    pub actions: Vec<(StepId, ActionEvents)>,
    /// Decisions.
    pub decisions: Vec<(StepId, CommandId)>,
}

/// Something to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Ask a call.
    Call(StepId),
    /// Evaluate a decision.
    Decide(StepId),
    /// Request an action.
    Act(StepId),
    /// Settle the case: outcome, step and reason.
    Settle(CaseOutcome, StepId, String),
    /// Let the case go on: what it waited for at this step has come after all.
    Resume(StepId),
}

/// Why a case rests whose rule or condition cannot be evaluated.
pub const RULE_FAILED: &str = "rule_failed";
/// Why a case was refused whose officer did so where no rule says it.
pub const REFUSED_BY_OFFICER: &str = "refused_by_officer";
/// What the reason of an officer's decision to let a case pass a rule begins with; the rule's result follows.
pub const PASSED_OVER: &str = "passed_over_";
/// Why a case rests whose department stayed silent past its deadline.
pub const NO_ANSWER: &str = "no_answer";
/// Why a case rests in which something had changed after it was asked for.
pub const DATA_CHANGED: &str = "data_changed";
/// How long a parked case waits for the applicant: thirty days.
pub const PARKED_FOR_MS: u64 = 30 * 24 * 3_600_000;

impl Case {
    /// A case from the event that opened it.
    pub fn opened(event: &Event, open: &OpenCase) -> Self {
        Self {
            id: CaseId(event.id.0),
            matter: (open.matter.clone(), open.version),
            parties: open.parties.clone(),
            identified: BTreeMap::new(),
            consents: BTreeMap::new(),
            calls: BTreeMap::new(),
            actions: BTreeMap::new(),
            decisions: BTreeMap::new(),
            earlier: Earlier::default(),
            deliveries: Vec::new(),
            log: Vec::new(),
            counted: None,
            settled: None,
            steps: BTreeMap::new(),
            began: BTreeMap::new(),
            opened_ms: event.time_ms,
            changed_ms: event.time_ms,
            values: BTreeMap::new(),
            commitments: Vec::new(),
            passed_over: BTreeSet::new(),
            refused_at: None,
            rested: None,
            erased_ms: None,
        }
    }

    /// Where every step stands, in the order of the package; those that are not taken in this case too.
    pub fn standing<'a>(&self, package: &'a Package) -> BTreeMap<&'a StepId, StepState> {
        let mut all = BTreeMap::new();
        let past_pivot = matches!(self.state(&package.pivot().id), StepState::Done(_));
        for step in &package.steps {
            let state = match self.state(&step.id) {
                // what its conditions said is not known any more
                StepState::NotStarted if step.undoes.is_some() || self.erased_ms.is_some() => {
                    StepState::Skipped
                }
                StepState::NotStarted => match self.skips(step, &all, package) {
                    Ok(true) => StepState::Skipped,
                    // what can no longer stop the case does not hold it up for ever: that part is handed to a person
                    Err(_) if past_pivot && step.kind == StepKind::Act => {
                        StepState::Failed(self.changed_ms, RULE_FAILED.into())
                    }
                    _ => StepState::NotStarted,
                },
                state => state,
            };
            all.insert(&step.id, state);
        }
        all
    }

    /// Whether a step is not taken: its party is not there, or its condition does not hold once all before it is done.
    fn skips(
        &self,
        step: &Step,
        before: &BTreeMap<&StepId, StepState>,
        package: &Package,
    ) -> Result<bool, String> {
        if step.party.as_ref().is_some_and(|role| !self.parties.iter().any(|p| &p.role == role)) {
            return Ok(true);
        }
        // nothing of theirs is asked for, so that there is nothing to agree to
        if step.kind == StepKind::Sign
            && step.party.as_ref().is_some_and(|r| self.consent_items(package, r).is_empty())
        {
            return Ok(true);
        }
        match &step.only_if {
            Some(when) if is_ready(step, before) => Ok(!self.holds(package, when)?),
            _ => Ok(false),
        }
    }

    /// What a party is asked to consent to: every call on their consent that this case may come to.
    pub fn consent_items(&self, package: &Package, role: &RoleId) -> Vec<ConsentItem> {
        let needed = |step: &&Step| match &step.only_if {
            Some(when) if package.is_known_from_start(when) => self.holds(package, when).unwrap_or(true),
            _ => true,
        };
        package
            .steps
            .iter()
            .filter(|s| s.kind == StepKind::Call && s.party.as_ref() == Some(role))
            .filter(|s| matches!(s.basis, Some(Basis::Consent)))
            .filter(needed)
            .map(|s| package.need(s))
            .map(|n| ConsentItem {
                step: n.step,
                recipient: n.recipient,
                holder: n.holder,
                resource: n.resource,
                what: n.what,
            })
            .collect()
    }

    /// Where a step stands by its events alone; see [`Self::standing`] for those that are not taken.
    pub fn state(&self, step: &StepId) -> StepState {
        self.steps.get(step).cloned().unwrap_or(StepState::NotStarted)
    }

    /// Whether nothing more can happen.
    pub fn is_over(&self) -> bool {
        self.settled.as_ref().is_some_and(|s| s.outcome.is_final())
    }

    fn begin(&mut self, step: &StepId, time_ms: u64) {
        self.began.entry(step.clone()).or_insert(time_ms);
        self.steps.insert(step.clone(), StepState::Waiting(time_ms));
    }

    fn end(&mut self, step: &StepId, state: StepState, time_ms: u64) {
        self.began.entry(step.clone()).or_insert(time_ms);
        self.steps.insert(step.clone(), state);
    }

    /// Takes in an accepted event of this case. Calls are done only when their payload was opened here: see
    /// [`Self::opened_here`].
    /// `reason` is the code a decision or settlement commits to, out of the vault.
    pub fn apply(&mut self, event: &Event, package: &Package, reason: &str) {
        let now = event.time_ms;
        // what comes after its end changes nothing of it: objections to data, calls under a subscription
        if !self.is_over() {
            self.changed_ms = now;
        }
        match &event.command.command.body {
            Body::Identify(c) => {
                let role = &c.assertion.role;
                self.identified.insert(role.clone(), (event.id, c.assertion.signer));
                for step in party_steps(package, StepKind::Identify, role) {
                    self.end(&step, StepState::Done(now), now);
                }
            }
            Body::GiveConsent(c) => {
                let role = &c.terms.role;
                self.consents.insert(role.clone(), (event.id, c.terms.clone(), None));
                for step in party_steps(package, StepKind::Sign, role) {
                    self.end(&step, StepState::Done(now), now);
                }
            }
            Body::WithdrawConsent(c) => {
                let consent = self.consents.values_mut().find(|(id, ..)| id.0 == c.consent.0);
                if let Some(consent) = consent {
                    consent.2 = Some(event.id);
                }
            }
            Body::Ask(c) => {
                self.log.push(event.id);
                let call = CallEvents {
                    id: CallId(event.id.0),
                    attempt: c.attempt,
                    consent: c.consent,
                    resource: None,
                    approval: None,
                    answer: None,
                    answer_by_ms: c.answer_by_ms,
                    answered_ms: None,
                    confirm: None,
                    objections: Vec::new(),
                };
                // done already, and yet asked: under a subscription
                if matches!(self.state(&c.step), StepState::Done(_)) {
                    let step = c.step.clone();
                    self.deliveries.push(Delivery { step, call, asked_ms: now, values: None });
                    return;
                }
                let before = self.calls.insert(c.step.clone(), call);
                self.earlier.calls.extend(before.map(|call| (c.step.clone(), call)));
                self.begin(&c.step, now);
            }
            Body::Answer(c) => {
                if let Some(call) = self.aside(c.call) {
                    call.answer = Some((event.id, c.reply.clone()));
                    call.answered_ms = Some(now);
                    return;
                }
                let found = self.calls.iter_mut().find(|(_, call)| call.id == c.call);
                let Some((step, call)) = found else { return };
                let step = step.clone();
                call.answer = Some((event.id, c.reply.clone()));
                call.answered_ms = Some(now);
                if let Reply::Declined(code) = &c.reply {
                    self.end(&step, StepState::Failed(now, code.to_string()), now);
                }
            }
            Body::Confirm(c) => {
                if let Some(call) = self.aside(c.call) {
                    call.confirm = Some(event.id);
                    return;
                }
                let found = self.calls.iter_mut().find(|(_, call)| call.id == c.call);
                let Some((step, call)) = found else { return };
                let step = step.clone();
                call.confirm = Some(event.id);
                if c.dispute.is_some() {
                    self.end(&step, StepState::Failed(now, "disputed".into()), now);
                } else if !matches!(self.state(&step), StepState::Done(_)) {
                    self.end(&step, StepState::Done(now), now);
                }
            }
            Body::Lapse(c) => {
                let found = self.calls.iter().find(|(_, call)| call.id == c.call);
                let Some((step, _)) = found else { return };
                let step = step.clone();
                if !matches!(self.state(&step), StepState::Done(_)) {
                    self.end(&step, StepState::Failed(now, "lapsed".into()), now);
                }
            }
            Body::Object(Object { call, name, .. })
            | Body::AnswerObjection(AnswerObjection { call, name, .. }) => {
                let call = *call;
                let newest = self.calls.values().any(|c| c.id == call);
                let found =
                    if newest { self.calls.values_mut().find(|c| c.id == call) } else { self.aside(call) };
                if let Some(found) = found {
                    let objects = matches!(event.command.command.body, Body::Object(_));
                    let role = if objects { proof::Role::Objection } else { proof::Role::Reply };
                    found.objections.push((role, name.clone(), event.id));
                }
            }
            Body::RequestAction(c) => {
                let action =
                    ActionEvents { id: ActionId(event.id.0), report_by_ms: c.report_by_ms, report: None };
                let before = self.actions.insert(c.step.clone(), action);
                self.earlier.actions.extend(before.map(|action| (c.step.clone(), action)));
                self.begin(&c.step, now);
            }
            Body::ReportAction(c) => {
                let found = self.actions.iter_mut().find(|(_, action)| action.id == c.action);
                let Some((step, action)) = found else { return };
                let step = step.clone();
                action.report = Some((event.id, c.failure.clone()));
                let state = match &c.failure {
                    None => StepState::Done(now),
                    Some(code) => StepState::Failed(now, code.to_string()),
                };
                self.end(&step, state, now);
            }
            Body::Decide(c) => {
                let before = self.decisions.insert(c.step.clone(), event.id);
                self.earlier.decisions.extend(before.map(|id| (c.step.clone(), id)));
                let state = match c.passed {
                    true => StepState::Done(now),
                    false => StepState::Failed(now, reason.to_owned()),
                };
                // an officer let it pass one rule: the step is decided again without it
                if let Some(result) = reason.strip_prefix(PASSED_OVER) {
                    self.passed_over.insert((c.step.clone(), result.to_owned()));
                    return;
                }
                // it no longer rests with them: what was done is undone, and then it is settled
                if c.adverse && reason == REFUSED_BY_OFFICER {
                    self.refused_at = Some(c.step.clone());
                    self.rested = self.settled.take().map(|s| s.reason);
                }
                // an officer may decide where a call or action rests; that changes nothing about it
                if package.step(&c.step).is_some_and(|s| s.kind == StepKind::Decide) {
                    self.end(&c.step, state, now);
                }
            }
            Body::SettleCase(c) => {
                if let Outcome::Accepted(Fact::Settled(granted, _)) = event.outcome {
                    self.counted = Some((event.id, granted as usize));
                }
                let (outcome, step) = (c.outcome, c.step.clone());
                let before = self.settled.take().map(|s| s.reason).or(self.rested.take());
                self.settled = Some(Settled { outcome, step, reason: reason.to_owned(), at_ms: now, before });
            }
            Body::CountCase(_) => {
                if let Outcome::Accepted(Fact::Settled(granted, _)) = event.outcome {
                    self.counted = Some((event.id, granted as usize));
                }
            }
            Body::ResumeCase(c) => {
                self.settled = None;
                let act = |step: &StepId| package.step(step).is_some_and(|s| s.kind == StepKind::Act);
                for step in &c.again {
                    // what was done, or may have been, is never forgotten
                    if act(step) && !matches!(self.state(step), StepState::Failed(..)) {
                        continue;
                    }
                    self.steps.remove(step);
                    self.began.remove(step);
                    self.values.remove(step.as_str());
                    self.commitments.retain(|(s, _)| s != step);
                }
            }
            _ => {}
        }
    }

    /// A call beside the newest one of its step: an earlier try, or one under a subscription.
    fn aside(&mut self, id: CallId) -> Option<&mut CallEvents> {
        let earlier = self.earlier.calls.iter_mut().map(|(_, call)| call);
        earlier.chain(self.deliveries.iter_mut().map(|d| &mut d.call)).find(|call| call.id == id)
    }

    /// Which try of a step's call would be the next.
    pub fn next_attempt(&self, step: &StepId) -> u32 {
        let deliveries = self.deliveries.iter().filter(|d| &d.step == step).map(|d| &d.call);
        self.calls.get(step).into_iter().chain(deliveries).map(|call| call.attempt + 1).max().unwrap_or(0)
    }

    /// The call under a subscription by this ID.
    pub fn delivery(&self, id: CallId) -> Option<&Delivery> {
        self.deliveries.iter().find(|d| d.call.id == id)
    }

    /// Takes in what this node opened of a call under a subscription. False where the call is none.
    pub fn delivered_here(&mut self, id: CallId, values: BTreeMap<String, String>) -> bool {
        let Some(delivery) = self.deliveries.iter_mut().find(|d| d.call.id == id) else { return false };
        delivery.values = Some(values);
        true
    }

    /// A step whose answer is no longer what this case goes by: something else was delivered, or nothing can be any more.
    fn outdated(&self) -> Option<&StepId> {
        // a step that is made again takes the place of all that was delivered before
        let done = |step: &StepId| matches!(self.state(step), StepState::Done(_));
        let newer = |d: &&Delivery| {
            done(&d.step) && self.calls.get(&d.step).is_some_and(|c| c.attempt < d.call.attempt)
        };
        let mut newest: BTreeMap<&StepId, &Delivery> = BTreeMap::new();
        newest.extend(self.deliveries.iter().filter(newer).map(|d| (&d.step, d)));
        let differs = |d: &Delivery| match (&d.values, &d.call.answer) {
            (Some(values), _) => self.values.get(d.step.as_str()).is_some_and(|v| v != values),
            (None, Some((_, Reply::Declined(_)))) => true,
            _ => false,
        };
        newest.into_values().find(|d| differs(d)).map(|d| &d.step)
    }

    /// Takes in what this node opened for a call.
    pub fn opened_here(
        &mut self,
        step: &StepId,
        values: BTreeMap<String, String>,
        commitments: Vec<Commitment>,
        now: u64,
    ) {
        self.values.insert(step.to_string(), values);
        self.commitments.extend(commitments.into_iter().map(|c| (step.clone(), c)));
        self.end(step, StepState::Done(now), now);
    }

    /// Takes in what an action returned.
    pub fn returned_here(&mut self, step: &StepId, values: BTreeMap<String, String>) {
        self.values.insert(step.to_string(), values);
    }

    /// Reads a reference of the package: `form.unit`, `seller.name`, `one.number | other.number`.
    pub fn value(&self, reference: &str) -> Option<&String> {
        alternatives(reference).find_map(|(group, name)| self.values.get(group)?.get(name))
    }

    /// What is due at this time, in the order of the package.
    pub fn due(&self, package: &Package, now_ms: u64) -> Vec<Due> {
        if self.is_over() {
            return Vec::new();
        }
        let pivot = package.pivot();
        let pivot_begun = self.is_past(package);
        if !pivot_begun && self.goes_back(package) {
            let (outcome, step, reason) = self.way_back(package);
            return self.back(package, outcome, step, &reason, now_ms);
        }
        if !pivot_begun && let Some((role, _)) = self.consents.iter().find(|(_, c)| c.2.is_some()) {
            let step = signing(package, role);
            return self.back(package, CaseOutcome::Withdrawn, step, "consent_withdrawn", now_ms);
        }
        if !pivot_begun && let Some(step) = &self.refused_at {
            return self.back(package, CaseOutcome::Refused, step.clone(), REFUSED_BY_OFFICER, now_ms);
        }
        if let Some(settled) = &self.settled {
            return self.due_at_rest(package, settled, now_ms);
        }
        if !pivot_begun && let Some(step) = self.outdated() {
            return vec![self.settle(CaseOutcome::NeedsHuman, step.clone(), DATA_CHANGED)];
        }
        let overdue = package.steps.iter().find(|s| self.is_overdue(&s.id, now_ms));
        if let Some(step) = overdue {
            return vec![self.settle(CaseOutcome::NeedsHuman, step.id.clone(), NO_ANSWER)];
        }
        for step in &package.steps {
            if let StepState::Failed(_, code) = self.state(&step.id)
                && let Some((outcome, step, reason)) = self.after_failure(step, &code, pivot)
            {
                return match outcome {
                    CaseOutcome::Refused => self.back(package, outcome, step, &reason, now_ms),
                    _ => vec![Due::Settle(outcome, step, reason)],
                };
            }
        }
        let standing = self.standing(package);
        if package.steps.iter().all(|s| Self::ended(s, &standing)) {
            let failed = package.steps.iter().find(|s| matches!(standing[&s.id], StepState::Failed(..)));
            return vec![match failed {
                None => self.settle(CaseOutcome::Closed, pivot.id.clone(), "all_done"),
                Some(step) => self.settle(CaseOutcome::ClosedPartly, step.id.clone(), "handed_to_a_person"),
            }];
        }
        let ready = package.steps.iter().filter(|s| standing[&s.id] == StepState::NotStarted);
        let ready: Vec<_> = ready.filter(|s| is_ready(s, &standing)).collect();
        // a condition that cannot be told is a person's to look at
        if let Some(step) = ready.iter().find(|s| self.skips(s, &standing, package).is_err()) {
            return vec![self.settle(CaseOutcome::NeedsHuman, step.id.clone(), RULE_FAILED)];
        }
        ready
            .into_iter()
            .filter(|s| self.has_results(s, package))
            .filter_map(|s| match s.kind {
                StepKind::Call => Some(Due::Call(s.id.clone())),
                StepKind::Decide => Some(Due::Decide(s.id.clone())),
                StepKind::Act => Some(Due::Act(s.id.clone())),
                StepKind::Identify | StepKind::Sign => None,
            })
            .collect()
    }

    /// Whether all that a step uses of what actions returned has come here.
    pub(crate) fn has_results(&self, step: &Step, package: &Package) -> bool {
        let mut groups = step.parameters.values().chain(&step.subject).flat_map(|r| alternatives(r));
        groups.all(|(group, _)| !self.lacks_result(group, package))
    }

    /// Whether a step is an action that was done, and what it returned has not come here yet.
    fn lacks_result(&self, id: &str, package: &Package) -> bool {
        let act = package.steps.iter().find(|s| s.id.as_str() == id && s.kind == StepKind::Act);
        act.is_some_and(|s| matches!(self.state(&s.id), StepState::Done(_)) && !self.values.contains_key(id))
    }

    /// The actions whose result is still to come, and is used by a step or shown in the end.
    pub fn lacking_results<'a>(&self, package: &'a Package) -> Vec<&'a Step> {
        // asked of every case again and again: most lack nothing
        if !self.actions.keys().any(|step| self.lacks_result(step.as_str(), package)) {
            return Vec::new();
        }
        let parameters = package.steps.iter().flat_map(|s| s.parameters.values().chain(&s.subject));
        let used: BTreeSet<_> = parameters
            .chain(package.outputs.iter().map(|o| &o.from))
            .flat_map(|r| alternatives(r))
            .map(|(group, _)| group)
            .collect();
        let lacks = |s: &&Step| used.contains(s.id.as_str()) && self.lacks_result(s.id.as_str(), package);
        package.steps.iter().filter(lacks).collect()
    }

    /// A case that rests goes on by itself when a late report comes, and ends when its applicant never comes back.
    fn due_at_rest(&self, package: &Package, settled: &Settled, now_ms: u64) -> Vec<Due> {
        let waited = settled.outcome == CaseOutcome::NeedsHuman && settled.reason == NO_ANSWER;
        if waited && !matches!(self.state(&settled.step), StepState::Waiting(_)) {
            return vec![Due::Resume(settled.step.clone())];
        }
        if settled.outcome == CaseOutcome::Parked && now_ms > settled.at_ms + PARKED_FOR_MS {
            let step = settled.step.clone();
            return self.back(package, CaseOutcome::Withdrawn, step, "not_resumed_in_time", now_ms);
        }
        Vec::new()
    }

    /// Whether a department let the deadline of a step pass without an answer or report.
    pub(crate) fn is_overdue(&self, step: &StepId, now_ms: u64) -> bool {
        if !matches!(self.state(step), StepState::Waiting(_)) {
            return false;
        }
        self.due_ms(step).is_some_and(|by| now_ms > by)
    }

    /// Until when the department of a step has time that is asked and has not answered, in milliseconds since 1970.
    pub fn due_ms(&self, step: &StepId) -> Option<u64> {
        let call = self.calls.get(step).filter(|c| c.answer.is_none()).map(|c| c.answer_by_ms);
        let action = self.actions.get(step).filter(|a| a.report.is_none()).map(|a| a.report_by_ms);
        call.or(action)
    }

    /// Whether a step has ended, or can never begin because one before it failed.
    fn ended(step: &Step, standing: &BTreeMap<&StepId, StepState>) -> bool {
        let failed = |id: &StepId| matches!(standing.get(id), Some(StepState::Failed(..)));
        matches!(standing.get(&step.id), Some(StepState::Done(_) | StepState::Skipped))
            || failed(&step.id)
            || step.after.iter().any(failed)
    }

    /// What a failed step means for the case: before and at the pivot it settles it; after, only that step is handed on.
    fn after_failure(&self, step: &Step, code: &str, pivot: &Step) -> Option<(CaseOutcome, StepId, String)> {
        let settled = |outcome| Some((outcome, step.id.clone(), code.to_owned()));
        match step.kind {
            StepKind::Decide => {
                let rule = step.rules.iter().find(|r| r.result.as_str() == code);
                // an officer's word that was not settled, or a reason that was erased: a person looks again
                let outcome = rule.map_or(CaseOutcome::NeedsHuman, |r| r.outcome);
                settled(outcome)
            }
            StepKind::Act if matches!(self.state(&pivot.id), StepState::Done(_)) => None,
            _ => settled(CaseOutcome::NeedsHuman),
        }
    }

    pub(crate) fn settle(&self, outcome: CaseOutcome, step: StepId, reason: &str) -> Due {
        Due::Settle(outcome, step, reason.to_owned())
    }

    /// Whether a person may let the case go on: not while an action waits for its report, which alone can move it.
    pub fn may_resume(&self, package: &Package) -> bool {
        let Some(settled) = self.settled.as_ref().filter(|s| !s.outcome.is_final()) else { return false };
        // a case that goes back does not go on: only what could not be undone is tried once more
        if self.goes_back(package) && package.step(&settled.step).is_none_or(|s| s.undoes.is_none()) {
            return false;
        }
        let act = package.step(&settled.step).is_some_and(|s| s.kind == StepKind::Act);
        !(act && matches!(self.state(&settled.step), StepState::Waiting(_)))
    }

    /// Whether the pivot was requested, and did not fail.
    pub fn is_past(&self, package: &Package) -> bool {
        matches!(self.state(&package.pivot().id), StepState::Waiting(_) | StepState::Done(_))
    }

    /// Whether an officer may refuse the case: it rests, and nothing that cannot be taken back has begun.
    pub fn may_refuse(&self, package: &Package) -> bool {
        let rests = self.settled.as_ref().is_some_and(|s| !s.outcome.is_final());
        rests && !self.is_past(package)
    }

    /// The steps that are made again when a case that rests goes on: the decision it rests on with the calls that
    /// decision's rule reads, or the call that failed.
    pub fn again(&self, package: &Package) -> Vec<StepId> {
        let Some(settled) = &self.settled else { return Vec::new() };
        let Some(step) = package.step(&settled.step) else { return Vec::new() };
        if step.kind == StepKind::Act && !matches!(self.state(&step.id), StepState::Failed(..)) {
            return Vec::new(); // requested or done: it is not made again
        }
        if settled.reason == DATA_CHANGED {
            return self.decided_by(step, package);
        }
        let rules = step.rules.iter().filter(|r| r.result.as_str() == settled.reason);
        let rules: Vec<_> =
            if rules.clone().next().is_some() { rules.collect() } else { step.rules.iter().collect() };
        let mut again: Vec<_> = rules.iter().flat_map(|rule| package.calls_read_by(rule)).collect();
        again.push(step.id.clone());
        again.sort();
        again.dedup();
        again
    }

    /// A call, and every decision already made that reads it, with what else that decision's rules read.
    fn decided_by(&self, call: &Step, package: &Package) -> Vec<StepId> {
        let mut again = vec![call.id.clone()];
        let made = |s: &&Step| matches!(self.state(&s.id), StepState::Done(_) | StepState::Failed(..));
        for step in package.steps.iter().filter(|s| s.kind == StepKind::Decide).filter(made) {
            let read: Vec<_> = step.rules.iter().flat_map(|rule| package.calls_read_by(rule)).collect();
            if read.contains(&call.id) {
                again.extend(read);
                again.push(step.id.clone());
            }
        }
        again.sort();
        again.dedup();
        again
    }

    /// The rule a case rests on, where an officer may let the case pass it.
    pub fn may_pass<'a>(&self, package: &'a Package) -> Option<&'a Rule> {
        let settled = self.settled.as_ref().filter(|s| s.outcome == CaseOutcome::NeedsHuman)?;
        let step = package.step(&settled.step)?;
        step.rules.iter().find(|r| r.may_pass && r.result.as_str() == settled.reason)
    }

    /// Evaluates a decision: the first rule that holds and that no officer let the case pass, or none.
    pub fn decide<'a>(&self, package: &Package, step: &'a Step) -> Result<Option<&'a Rule>, String> {
        for rule in &step.rules {
            let over = self.passed_over.contains(&(step.id.clone(), rule.result.to_string()));
            if !over && self.holds(package, &rule.when).map_err(|e| format!("rule {} {e}", rule.result))? {
                return Ok(Some(rule));
            }
        }
        Ok(None)
    }

    /// Whether a condition holds of what is known in this case.
    fn holds(&self, package: &Package, when: &str) -> Result<bool, String> {
        holds(package, when, &self.values, self.opened_ms)
    }
}

/// Whether a step can begin now, as far as those before it go.
pub fn is_due(step: &Step, standing: &BTreeMap<&StepId, StepState>) -> bool {
    standing.get(&step.id) == Some(&StepState::NotStarted) && is_ready(step, standing)
}

/// Whether all before a step is done, or not taken.
fn is_ready(step: &Step, standing: &BTreeMap<&StepId, StepState>) -> bool {
    step.after.iter().all(|b| matches!(standing.get(b), Some(StepState::Done(_) | StepState::Skipped)))
}

/// Whether a condition of a package holds of values by group: the form, the parties (id, name, born and age at a time), and what
/// steps gave. A repeated role, and a step about it, is a list of those that are there. What is not known yet has no members.
pub(crate) fn holds(
    package: &Package,
    when: &str,
    values: &BTreeMap<String, BTreeMap<String, String>>,
    at_ms: u64,
) -> Result<bool, String> {
    use cel::Value;
    type Members = HashMap<String, Value>;
    let program = cel::Program::compile(when).map_err(|e| e.to_string())?;
    let mut context = cel::Context::default();
    let members = |group: &str| -> Members {
        let texts = values.get(group).into_iter().flatten();
        texts.map(|(name, text)| (name.clone(), Value::from(text.clone()))).collect()
    };
    let mut lists: BTreeMap<&str, Vec<Members>> = BTreeMap::new();
    context.add_variable_from_value("form", members("form"));
    for role in &package.parties {
        let mut known = members(role.id.as_str());
        if let Some(born) = values.get(role.id.as_str()).and_then(|v| identifier::born(v.get("id")?)) {
            let age = identifier::age(&born, &Day::of(at_ms).to_string()).unwrap_or_default();
            known.insert("age".into(), Value::Int(i64::from(age)));
            known.insert("born".into(), Value::from(born));
        }
        match &role.of {
            Some(of) if known.is_empty() => drop(lists.entry(of.as_str()).or_default()),
            Some(of) => lists.entry(of.as_str()).or_default().push(known),
            None => context.add_variable_from_value(role.id.as_str(), known),
        }
    }
    for step in package.steps.iter().filter(|s| matches!(s.kind, StepKind::Call | StepKind::Act)) {
        let known = members(step.id.as_str());
        let there = step.party.as_ref().is_none_or(|role| values.contains_key(role.as_str()));
        match &step.of {
            // of whom there is, nothing known is one without members, and never one fewer: a rule about it cannot be told
            Some(of) if !there => drop(lists.entry(of.as_str()).or_default()),
            Some(of) => lists.entry(of.as_str()).or_default().push(known),
            None => context.add_variable_from_value(step.id.as_str(), known),
        }
    }
    for (name, list) in lists {
        context.add_variable_from_value(name, list);
    }
    match program.execute(&context) {
        Ok(Value::Bool(holds)) => Ok(holds),
        Ok(_) => Err("does not come out as true or false".into()),
        // not the error's own words: they may repeat a value
        Err(_) => Err("reads a value that is not there".into()),
    }
}

/// The step at which a party signs; the pivot where there is none.
pub(crate) fn signing(package: &Package, role: &RoleId) -> StepId {
    let signs = party_steps(package, StepKind::Sign, role);
    signs.into_iter().next().unwrap_or_else(|| package.pivot().id.clone())
}

fn party_steps(package: &Package, kind: StepKind, role: &RoleId) -> Vec<StepId> {
    let of = |s: &&Step| s.kind == kind && s.party.as_ref() == Some(role);
    package.steps.iter().filter(of).map(|s| s.id.clone()).collect()
}

#[cfg(test)]
#[path = "case_tests.rs"]
pub(crate) mod tests;
