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
    /// When the answer was ordered.
    pub answered_ms: Option<u64>,
    /// The asker's confirmation.
    pub confirm: Option<CommandId>,
}

/// The events of an action.
#[derive(Clone, Debug)]
pub struct ActionEvents {
    /// The action.
    pub id: ActionId,
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
    /// Calls by step.
    pub calls: BTreeMap<StepId, CallEvents>,
    /// Actions by step.
    pub actions: BTreeMap<StepId, ActionEvents>,
    /// Decisions by step.
    pub decisions: BTreeMap<StepId, (CommandId, Decide)>,
    /// Where it rests or how it ended.
    pub settled: Option<SettleCase>,
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
    /// The commitments of opened values, in the order opened.
    pub commitments: Vec<Commitment>,
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
    /// Settle the case.
    Settle(SettleCase),
}

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
    pub fn apply(&mut self, event: &Event, package: &Package) {
        let now = event.time_ms;
        self.changed_ms = now;
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
                let call = CallEvents {
                    id: CallId(event.id.0),
                    attempt: c.attempt,
                    consent: c.consent,
                    resource: None,
                    approval: None,
                    answer: None,
                    answered_ms: None,
                    confirm: None,
                };
                self.calls.insert(c.step.clone(), call);
                self.begin(&c.step, now);
            }
            Body::Answer(c) => {
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
            Body::RequestAction(c) => {
                self.actions.insert(c.step.clone(), ActionEvents { id: ActionId(event.id.0), report: None });
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
                self.decisions.insert(c.step.clone(), (event.id, c.clone()));
                let state = if c.result.as_str() == "pass" {
                    StepState::Done(now)
                } else {
                    StepState::Failed(now, c.result.to_string())
                };
                self.end(&c.step, state, now);
            }
            Body::SettleCase(c) => self.settled = Some(c.clone()),
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
        self.commitments.extend(commitments);
        self.end(step, StepState::Done(now), now);
    }

    /// Reads a reference of the package: `form.unit`, `seller.name`, `deed.deed_no`.
    pub fn value(&self, reference: &str) -> Option<&String> {
        let (group, name) = reference.split_once('.')?;
        self.values.get(group)?.get(name)
    }

    /// What is due now, in the order of the package.
    pub fn due(&self, package: &Package) -> Vec<Due> {
        if self.settled.is_some() {
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
                let rule = step.rules.iter().find(|r| r.result.as_str() == code)?;
                Some(self.settle(rule.outcome, step.id.clone(), code))
            }
            StepKind::Act if step.id != pivot.id => None,
            _ => Some(self.settle(CaseOutcome::NeedsHuman, step.id.clone(), code)),
        }
    }

    fn settle(&self, outcome: CaseOutcome, step: StepId, reason: &str) -> Due {
        let reason = reason.parse().unwrap_or_else(|_| "unknown".parse().expect("a name"));
        Due::Settle(SettleCase { case: self.id, outcome, step, reason })
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
