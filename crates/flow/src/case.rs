//! A case as its events tell it, and what is due in it. Pure: events in, dues out.

use crate::package::{Package, Rule, Step, StepKind};
use model::*;
use std::collections::{BTreeMap, BTreeSet};

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

/// Why a case rests whose department stayed silent past its deadline.
pub const NO_ANSWER: &str = "no_answer";
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
            log: Vec::new(),
            counted: None,
            settled: None,
            steps: BTreeMap::new(),
            began: BTreeMap::new(),
            opened_ms: event.time_ms,
            changed_ms: event.time_ms,
            values: BTreeMap::new(),
            commitments: Vec::new(),
        }
    }

    /// Where a step stands.
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
        // an objection is about the data, and may come years later
        if !matches!(event.command.command.body, Body::Object(_) | Body::AnswerObjection(_)) {
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
                let before = self.calls.insert(c.step.clone(), call);
                self.earlier.calls.extend(before.map(|call| (c.step.clone(), call)));
                self.begin(&c.step, now);
            }
            Body::Answer(c) => {
                if let Some((_, call)) = self.earlier.calls.iter_mut().find(|(_, call)| call.id == c.call) {
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
                if let Some((_, call)) = self.earlier.calls.iter_mut().find(|(_, call)| call.id == c.call) {
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
                let mut calls =
                    self.earlier.calls.iter_mut().map(|c| &mut c.1).chain(self.calls.values_mut());
                if let Some(found) = calls.find(|c| c.id == *call) {
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
                let before = self.settled.take().map(|s| s.reason);
                self.settled = Some(Settled { outcome, step, reason: reason.to_owned(), at_ms: now, before });
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

    /// Reads a reference of the package: `form.unit`, `seller.name`, `deed.deed_no`.
    pub fn value(&self, reference: &str) -> Option<&String> {
        let (group, name) = reference.split_once('.')?;
        self.values.get(group)?.get(name)
    }

    /// What is due at this time, in the order of the package.
    pub fn due(&self, package: &Package, now_ms: u64) -> Vec<Due> {
        if self.is_over() {
            return Vec::new();
        }
        let pivot = package.steps.iter().find(|s| s.pivot).expect("a checked package has a pivot");
        let pivot_begun = self.state(&pivot.id) != StepState::NotStarted;
        if !pivot_begun && let Some((role, _)) = self.consents.iter().find(|(_, c)| c.2.is_some()) {
            let step = party_steps(package, StepKind::Sign, role).first().cloned();
            return vec![self.settle(
                CaseOutcome::Withdrawn,
                step.unwrap_or(pivot.id.clone()),
                "consent_withdrawn",
            )];
        }
        if let Some(settled) = &self.settled {
            return self.due_at_rest(settled, now_ms);
        }
        let overdue = package.steps.iter().find(|s| self.is_overdue(&s.id, now_ms));
        if let Some(step) = overdue {
            return vec![self.settle(CaseOutcome::NeedsHuman, step.id.clone(), NO_ANSWER)];
        }
        for step in &package.steps {
            if let StepState::Failed(_, code) = self.state(&step.id)
                && let Some(due) = self.after_failure(step, &code, pivot)
            {
                return vec![due];
            }
        }
        let ended: BTreeSet<_> =
            package.steps.iter().filter(|s| self.ended(s)).map(|s| s.id.clone()).collect();
        if ended.len() == package.steps.len() {
            let failed = package.steps.iter().find(|s| matches!(self.state(&s.id), StepState::Failed(..)));
            return vec![match failed {
                None => self.settle(CaseOutcome::Closed, pivot.id.clone(), "all_done"),
                Some(step) => self.settle(CaseOutcome::ClosedPartly, step.id.clone(), "handed_to_a_person"),
            }];
        }
        package
            .steps
            .iter()
            .filter(|s| self.state(&s.id) == StepState::NotStarted)
            .filter(|s| s.after.iter().all(|before| matches!(self.state(before), StepState::Done(_))))
            .filter_map(|s| match s.kind {
                StepKind::Call => Some(Due::Call(s.id.clone())),
                StepKind::Decide => Some(Due::Decide(s.id.clone())),
                StepKind::Act => Some(Due::Act(s.id.clone())),
                StepKind::Identify | StepKind::Sign => None,
            })
            .collect()
    }

    /// A case that rests goes on by itself when a late report comes, and ends when its applicant never comes back.
    fn due_at_rest(&self, settled: &Settled, now_ms: u64) -> Vec<Due> {
        let waited = settled.outcome == CaseOutcome::NeedsHuman && settled.reason == NO_ANSWER;
        if waited && !matches!(self.state(&settled.step), StepState::Waiting(_)) {
            return vec![Due::Resume(settled.step.clone())];
        }
        if settled.outcome == CaseOutcome::Parked && now_ms > settled.at_ms + PARKED_FOR_MS {
            return vec![self.settle(CaseOutcome::Withdrawn, settled.step.clone(), "not_resumed_in_time")];
        }
        Vec::new()
    }

    /// Whether a department let the deadline of a step pass without an answer or report.
    fn is_overdue(&self, step: &StepId, now_ms: u64) -> bool {
        if !matches!(self.state(step), StepState::Waiting(_)) {
            return false;
        }
        let call = self.calls.get(step).filter(|c| c.answer.is_none()).map(|c| c.answer_by_ms);
        let action = self.actions.get(step).filter(|a| a.report.is_none()).map(|a| a.report_by_ms);
        call.or(action).is_some_and(|by| now_ms > by)
    }

    /// Whether a step has ended, or can never begin because one before it failed.
    fn ended(&self, step: &Step) -> bool {
        let failed = |id: &StepId| matches!(self.state(id), StepState::Failed(..));
        matches!(self.state(&step.id), StepState::Done(_))
            || failed(&step.id)
            || step.after.iter().any(failed)
    }

    /// What a failed step means for the case: before and at the pivot it settles it; after, only that step is handed on.
    fn after_failure(&self, step: &Step, code: &str, pivot: &Step) -> Option<Due> {
        match step.kind {
            StepKind::Decide => {
                let rule = step.rules.iter().find(|r| r.result.as_str() == code);
                // an officer's word that was not settled, or a reason that was erased: a person looks again
                let outcome = rule.map_or(CaseOutcome::NeedsHuman, |r| r.outcome);
                Some(self.settle(outcome, step.id.clone(), code))
            }
            StepKind::Act if step.id != pivot.id => None,
            _ => Some(self.settle(CaseOutcome::NeedsHuman, step.id.clone(), code)),
        }
    }

    fn settle(&self, outcome: CaseOutcome, step: StepId, reason: &str) -> Due {
        Due::Settle(outcome, step, reason.to_owned())
    }

    /// Whether a person may let the case go on: not while an action waits for its report, which alone can move it.
    pub fn may_resume(&self, package: &Package) -> bool {
        let Some(settled) = self.settled.as_ref().filter(|s| !s.outcome.is_final()) else { return false };
        let act = package.step(&settled.step).is_some_and(|s| s.kind == StepKind::Act);
        !(act && matches!(self.state(&settled.step), StepState::Waiting(_)))
    }

    /// Whether an officer may refuse the case: it rests, and nothing that cannot be taken back has begun.
    pub fn may_refuse(&self, package: &Package) -> bool {
        let rests = self.settled.as_ref().is_some_and(|s| !s.outcome.is_final());
        rests && package.steps.iter().filter(|s| s.pivot).all(|s| self.state(&s.id) == StepState::NotStarted)
    }

    /// The steps that are made again when a case that rests goes on: the decision it rests on with the calls that
    /// decision's rule reads, or the call that failed.
    pub fn again(&self, package: &Package) -> Vec<StepId> {
        let Some(settled) = &self.settled else { return Vec::new() };
        let Some(step) = package.step(&settled.step) else { return Vec::new() };
        if step.kind == StepKind::Act && !matches!(self.state(&step.id), StepState::Failed(..)) {
            return Vec::new(); // requested or done: it is not made again
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

    /// Evaluates a decision: the first rule that holds, or none.
    pub fn decide<'a>(&self, step: &'a Step) -> Result<Option<&'a Rule>, String> {
        let mut context = cel::Context::default();
        for (group, values) in &self.values {
            let values: std::collections::HashMap<String, String> = values.clone().into_iter().collect();
            context.add_variable_from_value(group.clone(), values);
        }
        for rule in &step.rules {
            let program = cel::Program::compile(&rule.when).map_err(|e| e.to_string())?;
            match program.execute(&context) {
                Ok(cel::Value::Bool(true)) => return Ok(Some(rule)),
                Ok(cel::Value::Bool(false)) => {}
                Ok(_) => return Err(format!("rule {} does not come out as true or false", rule.result)),
                Err(_) => return Err(format!("rule {} reads a value that is not there", rule.result)),
            }
        }
        Ok(None)
    }
}

fn party_steps(package: &Package, kind: StepKind, role: &RoleId) -> Vec<StepId> {
    let of = |s: &&Step| s.kind == kind && s.party.as_ref() == Some(role);
    package.steps.iter().filter(of).map(|s| s.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGE: &str = r#"
format: 1
id: sale
version: 1
title: { zh: 买卖, en: Sale }
handler: bureau
parties: [{ id: seller, title: { zh: 出卖人, en: Seller } }]
form: []
same: []
steps:
  - { id: identify, kind: identify, party: seller, title: { zh: 核验, en: Identify } }
  - id: bills
    kind: call
    after: [identify]
    party: seller
    holder: power
    resource: power.account
    what: { predicate: settled }
    basis: self_access
    title: { zh: 电费, en: Bills }
    purpose: { zh: 核验, en: to check }
  - id: review
    kind: decide
    after: [bills]
    title: { zh: 审核, en: Review }
    rules:
      - { when: 'bills.settled != "yes"', result: arrears, outcome: parked, ground: { zh: 欠费, en: arrears } }
  - { id: transfer, kind: act, after: [review], pivot: true, performer: registry, operation: transfer, title: { zh: 登记, en: Register } }
  - { id: power, kind: act, after: [transfer], performer: power, operation: change, title: { zh: 用电, en: Power } }
  - { id: gas, kind: act, after: [transfer], performer: gas, operation: change, title: { zh: 用气, en: Gas } }
"#;

    fn name<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
        text.parse().unwrap()
    }

    /// A case with its package, at a time.
    struct World {
        package: Package,
        case: Case,
        now: u64,
        next: u8,
    }

    impl World {
        fn new() -> Self {
            let package = Package::parse("test", PACKAGE).unwrap();
            let party =
                Party { role: name("seller"), pseudonym: Pseudonym([1; 32]), subject: Commitment([2; 32]) };
            let open =
                OpenCase { matter: name("sale"), version: 1, tag: Digest([0; 32]), parties: vec![party] };
            let event = Self::event(1, 1_000, Body::OpenCase(open.clone()));
            let mut world = Self { package, case: Case::opened(&event, &open), now: 1_000, next: 1 };
            let assertion = Assertion {
                chain: ChainId([0; 32]),
                case: world.case.id,
                role: name("seller"),
                subject: Commitment([2; 32]),
                method: IdentityMethod::Counter,
                level: AssuranceLevel::Substantial,
                terminal: PublicKey::Ed25519([3; 32]),
                signer: PublicKey::Ed25519([3; 32]),
                at_ms: 1_000,
                nonce: 1,
            };
            world.apply(Body::Identify(Identify { assertion, signature: [0; 64] }), "");
            world
        }

        fn event(id: u8, time_ms: u64, body: Body) -> Event {
            let command =
                Command { chain: ChainId([0; 32]), signer: name("bureau"), nonce: 0, expires_ms: 0, body };
            let command = SignedCommand { suite: Suite::International, command, signature: [0; 64] };
            let outcome = Outcome::Accepted(Fact::Recorded);
            Event { height: 1, index: 0, time_ms, id: CommandId([id; 32]), command, outcome }
        }

        fn apply(&mut self, body: Body, reason: &str) -> CommandId {
            self.next += 1;
            self.now += 1_000;
            let event = Self::event(self.next, self.now, body);
            self.case.apply(&event, &self.package, reason);
            event.id
        }

        fn due(&self) -> Vec<Due> {
            self.case.due(&self.package, self.now)
        }

        fn ask(&mut self, attempt: u32) {
            let id = self.apply(
                Body::Ask(Ask {
                    case: self.case.id,
                    step: name("bills"),
                    attempt,
                    consent: None,
                    subject: Commitment([0; 32]),
                    sealed: Digest([0; 32]),
                    answer_by_ms: self.now + 60_000,
                }),
                "",
            );
            assert_eq!(self.case.calls[&name("bills")].id, CallId(id.0));
        }

        fn answered(&mut self, settled: &str) {
            let call = self.case.calls[&name("bills")].id;
            let reply = Reply::Data { commitments: vec![], payload: Digest([0; 32]), as_of_ms: 0 };
            self.apply(Body::Answer(Answer { call, reply }), "");
            let values = BTreeMap::from([("settled".to_owned(), settled.to_owned())]);
            self.case.opened_here(&name("bills"), values, vec![Commitment([9; 32])], self.now);
        }

        fn decide(&mut self, passed: bool, reason: &str) {
            let decide = Decide {
                case: self.case.id,
                step: name("review"),
                rule: Digest([0; 32]),
                inputs: vec![],
                passed,
                reason: Commitment([0; 32]),
                adverse: false,
                confirmed_by: None,
            };
            self.apply(Body::Decide(decide), reason);
        }

        fn settle(&mut self, due: &Due) {
            let Due::Settle(outcome, step, reason) = due else { panic!("{due:?} settles nothing") };
            let settle = SettleCase {
                case: self.case.id,
                outcome: *outcome,
                step: step.clone(),
                reason: Commitment([0; 32]),
            };
            self.apply(Body::SettleCase(settle), reason);
        }

        fn act(&mut self, step: &str, failure: Option<&str>) {
            let request = RequestAction {
                case: self.case.id,
                step: name(step),
                parameters: Commitment([0; 32]),
                sealed: Digest([0; 32]),
                report_by_ms: self.now + 60_000,
            };
            let id = self.apply(Body::RequestAction(request), "");
            if failure != Some("silence") {
                self.report(ActionId(id.0), failure);
            }
        }

        fn report(&mut self, action: ActionId, failure: Option<&str>) {
            let report = ReportAction { action, failure: failure.map(name), result: Commitment([0; 32]) };
            self.apply(Body::ReportAction(report), "");
        }

        fn registered() -> Self {
            let mut w = Self::new();
            w.ask(0);
            w.answered("yes");
            w.decide(true, "pass");
            w.act("transfer", None);
            w
        }
    }

    fn settles(outcome: CaseOutcome, step: &str, reason: &str) -> Vec<Due> {
        vec![Due::Settle(outcome, name(step), reason.to_owned())]
    }

    #[test]
    fn a_utility_that_fails_after_the_pivot_never_undoes_it() {
        let mut w = World::registered();
        assert_eq!(w.due(), [Due::Act(name("power")), Due::Act(name("gas"))]);
        w.act("gas", Some("refused_by_source"));
        assert_eq!(w.due(), [Due::Act(name("power"))], "the other one goes on");
        w.act("power", None);
        assert_eq!(w.due(), settles(CaseOutcome::ClosedPartly, "gas", "handed_to_a_person"));
        let mut w = World::registered();
        w.act("gas", None);
        w.act("power", None);
        assert_eq!(w.due(), settles(CaseOutcome::Closed, "transfer", "all_done"));
    }

    #[test]
    fn silence_past_a_deadline_is_handed_to_a_person_and_a_late_report_goes_on_by_itself() {
        let mut w = World::new();
        w.ask(0);
        assert_eq!(w.due(), []);
        w.now += 120_000;
        let due = w.due();
        assert_eq!(due, settles(CaseOutcome::NeedsHuman, "bills", NO_ANSWER));
        w.settle(&due[0]);
        assert_eq!(w.due(), [], "it rests until somebody asks again");
        let again = w.case.again(&w.package);
        assert_eq!(again, [name::<StepId>("bills")]);
        w.apply(Body::ResumeCase(ResumeCase { case: w.case.id, again, reason: Commitment([0; 32]) }), "");
        assert_eq!(w.due(), [Due::Call(name("bills"))]);

        let mut w = World::registered();
        w.act("gas", None);
        w.act("power", Some("silence"));
        w.now += 120_000;
        let due = w.due();
        assert_eq!(due, settles(CaseOutcome::NeedsHuman, "power", NO_ANSWER));
        w.settle(&due[0]);
        assert!(w.case.again(&w.package).is_empty(), "what may have been done is not requested twice");
        assert!(!w.case.may_resume(&w.package) && !w.case.may_refuse(&w.package));
        w.report(w.case.actions[&name("power")].id, None);
        assert_eq!(w.due(), [Due::Resume(name("power"))]);
        // a clerk's resumption that names what is done by now forgets nothing of it
        let mut raced = w.case.clone();
        let resume = ResumeCase { case: raced.id, again: vec![name("power")], reason: Commitment([0; 32]) };
        raced.apply(&World::event(99, w.now + 1, Body::ResumeCase(resume)), &w.package, "");
        assert_eq!(raced.due(&w.package, w.now + 1), settles(CaseOutcome::Closed, "transfer", "all_done"));
        w.apply(
            Body::ResumeCase(ResumeCase { case: w.case.id, again: vec![], reason: Commitment([0; 32]) }),
            "",
        );
        assert_eq!(w.due(), settles(CaseOutcome::Closed, "transfer", "all_done"));
    }

    #[test]
    fn a_parked_case_checks_again_only_what_its_rule_read_and_ends_when_nobody_comes_back() {
        let mut w = World::new();
        w.ask(0);
        w.answered("no");
        assert_eq!(w.due(), [Due::Decide(name("review"))]);
        w.decide(false, "arrears");
        let due = w.due();
        assert_eq!(due, settles(CaseOutcome::Parked, "review", "arrears"));
        w.settle(&due[0]);
        let mut forgotten = w.case.clone();
        let again = w.case.again(&w.package);
        assert_eq!(again, ["bills", "review"].map(name::<StepId>));
        w.apply(Body::ResumeCase(ResumeCase { case: w.case.id, again, reason: Commitment([0; 32]) }), "");
        assert_eq!(w.due(), [Due::Call(name("bills"))]);
        assert!(w.case.value("bills.settled").is_none() && w.case.commitments.is_empty());
        w.ask(1);
        w.answered("yes");
        assert_eq!(w.case.earlier.calls.len(), 1, "the first call stays on record");
        assert_eq!(w.due(), [Due::Decide(name("review"))]);
        w.decide(true, "pass");
        assert_eq!(w.due(), [Due::Act(name("transfer"))]);
        assert_eq!(w.case.earlier.decisions.len(), 1);

        let later = forgotten.settled.as_ref().unwrap().at_ms + PARKED_FOR_MS + 1;
        assert_eq!(
            forgotten.due(&w.package, later),
            settles(CaseOutcome::Withdrawn, "review", "not_resumed_in_time")
        );
        forgotten.settled = None;
        assert_eq!(forgotten.due(&w.package, later), settles(CaseOutcome::Parked, "review", "arrears"));
    }
}
