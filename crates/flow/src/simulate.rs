//! A dry run of a matter: its package with scripted answers in place of departments, on a clock of its own. The same code decides
//! what is due as in a running node ([`crate::case`]).

use crate::{
    case::{Case, Due, Settled, StepState},
    package::{Package, Step, StepKind},
    scenario::{Doing, Expected, Scenario, Scripted, fill},
    steps::deadline_ms,
};
use model::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How long a scripted department takes: a tenth of a second.
const ANSWER_MS: u64 = 100;
/// When a simulated case is opened: 2026-11-24, 10:00 in China.
const BEGIN_MS: u64 = 1_795_485_600_000;
/// A run that goes on for longer is going round in circles.
const ROUNDS_MAX: usize = 10_000;

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Went {
    /// The step.
    pub step: StepId,
    /// The department that acts.
    pub department: DepartmentId,
    /// What the step is.
    pub kind: &'static str,
    /// `done`, `failed`, `skipped`, `not_started` or `waiting`.
    pub status: &'static str,
    /// Why it failed.
    pub code: String,
    /// When it began, in milliseconds from the opening.
    pub began_ms: Option<u64>,
    /// When it ended.
    pub ended_ms: Option<u64>,
}

/// How a case went.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// How it ended, or where it rests.
    pub outcome: CaseOutcome,
    /// The code of why.
    pub reason: String,
    /// Where it rested on the way.
    pub rested: Vec<String>,
    /// The steps, in the order of the package.
    pub steps: Vec<Went>,
    /// From opening to end, people taking no time.
    pub elapsed_ms: u64,
    /// What differs from what the scenario expects; empty where nothing does.
    pub differs: Vec<String>,
}

/// The word for where a step stands.
pub fn status(state: &StepState) -> &'static str {
    match state {
        StepState::NotStarted => "not_started",
        StepState::Waiting(_) => "waiting",
        StepState::Done(_) => "done",
        StepState::Failed(..) => "failed",
        StepState::Skipped => "skipped",
    }
}

/// What differs between how a case went and what its scenario expects.
pub fn differs(
    expected: &Expected,
    outcome: &str,
    reason: &str,
    step: &dyn Fn(&StepId) -> Option<String>,
) -> Vec<String> {
    let mut all = Vec::new();
    if outcome != expected.outcome.as_str() {
        all.push(format!(
            "the case came out as {outcome} ({reason}), and not as {}",
            expected.outcome.as_str()
        ));
    } else if expected.reason.as_ref().is_some_and(|r| r.as_str() != reason) {
        let wanted = expected.reason.as_ref().map(Code::as_str).unwrap_or_default();
        all.push(format!("the reason is {reason}, and not {wanted}"));
    }
    for (id, wanted) in &expected.steps {
        let found = step(id).unwrap_or_else(|| "no step at all".into());
        if &found != wanted {
            all.push(format!("step {id} is {found}, and not {wanted}"));
        }
    }
    all
}

struct Simulation<'a> {
    package: &'a Package,
    case: Case,
    answers: BTreeMap<StepId, Scripted>,
    withdraws: Option<RoleId>,
    now: u64,
    next: u64,
    /// What is to happen when.
    agenda: BTreeMap<(u64, u64), (StepId, Body)>,
}

/// Runs a scenario. An error where the scenario does not fit the package, or the package comes to no end.
pub fn simulate(package: &Package, scenario: &Scenario) -> Result<Run, String> {
    let mut run = Simulation::begin(package, scenario)?;
    let mut then = scenario.then.iter();
    let mut rested = Vec::new();
    for _ in 0..ROUNDS_MAX {
        if run.people() || run.departments()? {
            continue;
        }
        let settled = run.case.settled.clone();
        if let Some(settled) = &settled
            && (settled.outcome.is_final() || then.len() == 0)
        {
            return Ok(run.finish(settled, rested, scenario));
        }
        if let Some(settled) = settled {
            rested.push(format!("{}: {}", settled.outcome.as_str(), settled.reason));
            let doing = then.next().expect("looked at above");
            run.done_at_rest(doing, &settled)?;
        } else if !run.wait() {
            let waits: Vec<_> = run.stuck();
            return Err(format!("the case comes to no end: {} cannot go on", waits.join(", ")));
        }
    }
    Err("the case goes round in circles".into())
}

impl<'a> Simulation<'a> {
    fn begin(package: &'a Package, scenario: &'a Scenario) -> Result<Self, String> {
        for (step, answer) in &scenario.answers {
            fits(package, step, answer)?;
        }
        let known = |name: &str| Some(sample(name, scenario));
        let mut values: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let form = values.entry("form".into()).or_default();
        for (id, text) in &scenario.form {
            if !package.form.iter().any(|f| &f.id == id) {
                return Err(format!("the form has no field {id}"));
            }
            form.insert(id.to_string(), fill(text, &known)?);
        }
        let mut parties = Vec::new();
        for role in &package.parties {
            let Some(name) = scenario.parties.get(&role.id) else {
                if role.optional {
                    continue;
                }
                return Err(format!("the scenario says nobody is {}", role.id));
            };
            let person = |what: &str| (what.to_owned(), sample(&format!("{name}.{what}"), scenario));
            values.insert(role.id.to_string(), [person("id"), person("name")].into());
            let pseudonym = Pseudonym([parties.len() as u8; 32]);
            parties.push(Party { role: role.id.clone(), pseudonym, subject: Commitment([0; 32]) });
        }
        for condition in &package.eligibility {
            if crate::case::holds(package, &condition.when, &values, BEGIN_MS) != Ok(true) {
                return Err(format!("the application is not taken: {}", condition.says.en));
            }
        }
        let open =
            OpenCase { matter: package.id.clone(), version: package.version, tag: Digest([0; 32]), parties };
        let event = event(0, BEGIN_MS, Body::OpenCase(open.clone()));
        let mut case = Case::opened(&event, &open);
        case.values = values;
        Ok(Self {
            package,
            case,
            answers: scenario.answers.clone(),
            withdraws: scenario.withdraws.clone(),
            now: BEGIN_MS,
            next: 1,
            agenda: BTreeMap::new(),
        })
    }

    fn apply(&mut self, body: Body, reason: &str) -> CommandId {
        let event = event(self.next, self.now, body);
        self.next += 1;
        self.case.apply(&event, self.package, reason);
        event.id
    }

    /// People do at once what they can: be identified, sign, and withdraw where the scenario says so.
    fn people(&mut self) -> bool {
        if self.case.settled.is_some() {
            return false;
        }
        let standing = self.case.standing(self.package);
        let ready = |s: &&Step| crate::case::is_due(s, &standing);
        let person = |s: &&Step| matches!(s.kind, StepKind::Identify | StepKind::Sign);
        let Some(step) = self.package.steps.iter().filter(person).find(ready) else { return false };
        let Some(role) = step.party.clone() else { return false };
        match step.kind {
            StepKind::Identify => {
                let assertion = Assertion {
                    chain: ChainId([0; 32]),
                    case: self.case.id,
                    role,
                    subject: Commitment([0; 32]),
                    method: IdentityMethod::Counter,
                    level: AssuranceLevel::Substantial,
                    terminal: PublicKey::Ed25519([0; 32]),
                    signer: PublicKey::Ed25519([0; 32]),
                    at_ms: self.now,
                    nonce: 0,
                };
                self.apply(Body::Identify(Identify { assertion, signature: [0; 64] }), "");
            }
            _ => {
                let terms = ConsentTerms {
                    chain: ChainId([0; 32]),
                    case: self.case.id,
                    role: role.clone(),
                    subject: Commitment([0; 32]),
                    items: self.case.consent_items(self.package, &role),
                    language: Language::Chinese,
                    text: Digest([0; 32]),
                    expires_ms: u64::MAX,
                    nonce: 0,
                };
                let id = self.apply(Body::GiveConsent(GiveConsent { terms, signature: [0; 64] }), "");
                if self.withdraws.take_if(|w| *w == role).is_some() {
                    let consent = ConsentId(id.0);
                    self.apply(Body::WithdrawConsent(WithdrawConsent { consent, signature: [0; 64] }), "");
                }
            }
        }
        true
    }

    /// The node's part: what is due is asked, decided, requested and settled.
    fn departments(&mut self) -> Result<bool, String> {
        let dues = self.case.due(self.package, self.now);
        for due in &dues {
            self.perform(due)?;
        }
        Ok(!dues.is_empty())
    }

    fn perform(&mut self, due: &Due) -> Result<(), String> {
        let case = self.case.id;
        match due {
            Due::Call(step) => {
                let declared = self.package.step(step).ok_or("no such step")?;
                let attempt = self.case.calls.get(step).map_or(0, |c| c.attempt + 1);
                let ask = Ask {
                    case,
                    step: step.clone(),
                    attempt,
                    consent: None,
                    subject: Commitment([0; 32]),
                    sealed: Digest([0; 32]),
                    answer_by_ms: deadline_ms(declared, self.now, &WorkingDays::default()),
                };
                let call = CallId(self.apply(Body::Ask(ask), "").0);
                let reply = match self.scripted(step) {
                    None => return Err(format!("the scenario does not say what step {step} answers")),
                    Some(Scripted::Silent(_)) => return Ok(()),
                    Some(Scripted::Failed(f)) => Reply::Declined(f.failed.clone()),
                    Some(Scripted::Values(_)) => {
                        Reply::Data { commitments: vec![], payload: Digest([0; 32]), as_of_ms: 0 }
                    }
                };
                self.later(step, Body::Answer(Answer { call, reply }));
            }
            Due::Act(step) => {
                let declared = self.package.step(step).ok_or("no such step")?;
                let request = RequestAction {
                    case,
                    step: step.clone(),
                    parameters: Commitment([0; 32]),
                    sealed: Digest([0; 32]),
                    report_by_ms: deadline_ms(declared, self.now, &WorkingDays::default()),
                };
                let action = ActionId(self.apply(Body::RequestAction(request), "").0);
                let failure = match self.scripted(step) {
                    Some(Scripted::Silent(_)) => return Ok(()),
                    Some(Scripted::Failed(f)) => Some(f.failed.clone()),
                    _ => None,
                };
                self.later(
                    step,
                    Body::ReportAction(ReportAction { action, failure, result: Commitment([0; 32]) }),
                );
            }
            Due::Decide(step) => {
                let declared = self.package.step(step).ok_or("no such step")?;
                let rule = match self.case.decide(self.package, declared) {
                    Ok(rule) => rule,
                    Err(e) => return Err(format!("step {step}: {e}")),
                };
                // a rule that refuses is confirmed by an officer, who here always does
                let reason = rule.map_or("pass", |r| r.result.as_str()).to_owned();
                self.apply(Body::Decide(decision(case, step, reason == "pass")), &reason);
            }
            Due::Settle(outcome, step, reason) => {
                let settle =
                    SettleCase { case, outcome: *outcome, step: step.clone(), reason: Commitment([0; 32]) };
                self.apply(Body::SettleCase(settle), reason);
            }
            Due::Resume(_) => self.resume(vec![]),
        }
        Ok(())
    }

    fn scripted(&self, step: &StepId) -> Option<&Scripted> {
        let of = self.package.step(step).and_then(|s| s.of.as_ref());
        self.answers.get(step).or_else(|| self.answers.get(of?))
    }

    fn later(&mut self, step: &StepId, body: Body) {
        self.agenda.insert((self.now + ANSWER_MS, self.next), (step.clone(), body));
        self.next += 1;
    }

    fn resume(&mut self, again: Vec<StepId>) {
        let resume = ResumeCase { case: self.case.id, again, reason: Commitment([0; 32]) };
        self.apply(Body::ResumeCase(resume), "");
    }

    /// The clock goes on to what happens next: an answer comes, or a deadline passes. False where nothing ever does.
    fn wait(&mut self) -> bool {
        if let Some(((at, _), (step, body))) = self.agenda.pop_first() {
            self.now = at;
            let data = matches!(body, Body::Answer(Answer { reply: Reply::Data { .. }, .. }));
            let returned = matches!(body, Body::ReportAction(ReportAction { failure: None, .. }));
            self.apply(body, "");
            let values = match self.scripted(&step) {
                Some(Scripted::Values(values)) => {
                    values.iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
                }
                _ => BTreeMap::new(),
            };
            if data {
                self.case.opened_here(&step, values, vec![], self.now);
            } else if returned {
                self.case.returned_here(&step, values);
            }
            return true;
        }
        let calls = self.case.calls.values().filter(|c| c.answer.is_none()).map(|c| c.answer_by_ms);
        let actions = self.case.actions.values().filter(|a| a.report.is_none()).map(|a| a.report_by_ms);
        match calls.chain(actions).filter(|by| *by >= self.now).min() {
            Some(by) => {
                self.now = by + 1;
                true
            }
            None => false,
        }
    }

    fn done_at_rest(&mut self, doing: &Doing, settled: &Settled) -> Result<(), String> {
        for (step, answer) in &doing.answers {
            fits(self.package, step, answer)?;
            self.answers.insert(step.clone(), answer.clone());
        }
        self.now += ANSWER_MS;
        if doing.pass.is_some() {
            let rule = self.case.may_pass(self.package).ok_or_else(|| {
                format!("an officer may not let the case pass {}; the rule needs `may_pass`", settled.reason)
            })?;
            let reason = format!("{}{}", crate::case::PASSED_OVER, rule.result);
            self.apply(Body::Decide(decision(self.case.id, &settled.step, true)), &reason);
            self.resume(vec![settled.step.clone()]);
        } else if doing.refuse.is_some() {
            if !self.case.may_refuse(self.package) {
                return Err("an officer may not refuse the case here".into());
            }
            let refused = Decide { adverse: true, ..decision(self.case.id, &settled.step, false) };
            self.apply(Body::Decide(refused), crate::case::REFUSED_BY_OFFICER);
        } else {
            if !self.case.may_resume(self.package) {
                return Err("the case waits for a department here, and cannot be resumed".into());
            }
            let again = self.case.again(self.package);
            self.resume(again);
        }
        Ok(())
    }

    fn stuck(&self) -> Vec<String> {
        let standing = self.case.standing(self.package);
        let open =
            standing.iter().filter(|(_, s)| matches!(s, StepState::NotStarted | StepState::Waiting(_)));
        open.map(|(id, _)| id.to_string()).collect()
    }

    fn finish(self, settled: &Settled, rested: Vec<String>, scenario: &Scenario) -> Run {
        let standing = self.case.standing(self.package);
        let since = |ms: u64| ms - BEGIN_MS;
        let steps: Vec<_> = self
            .package
            .steps
            .iter()
            // what would undo what stands is no step of this case
            .filter(|step| step.undoes.is_none() || standing[&step.id] != StepState::Skipped)
            .map(|step| {
                let state = &standing[&step.id];
                let department = step.holder.as_ref().or(step.performer.as_ref());
                Went {
                    step: step.id.clone(),
                    department: department.unwrap_or(&self.package.handler).clone(),
                    kind: step.kind.as_str(),
                    status: status(state),
                    code: if let StepState::Failed(_, code) = state { code.clone() } else { String::new() },
                    began_ms: self.case.began.get(&step.id).copied().map(since),
                    ended_ms: match state {
                        StepState::Done(at) | StepState::Failed(at, _) => Some(since(*at)),
                        _ => None,
                    },
                }
            })
            .collect();
        let of = |id: &StepId| steps.iter().find(|s| &s.step == id).map(|s| s.status.to_owned());
        let expected = scenario.expect.iter();
        let differs =
            expected.flat_map(|e| differs(e, settled.outcome.as_str(), &settled.reason, &of)).collect();
        Run {
            outcome: settled.outcome,
            reason: settled.reason.clone(),
            rested,
            elapsed_ms: since(self.now),
            differs,
            steps,
        }
    }
}

/// Whether an answer has the names a step asks for, and no others.
fn fits(package: &Package, id: &StepId, answer: &Scripted) -> Result<(), String> {
    let step = package
        .step(id)
        .ok_or_else(|| format!("the scenario answers step {id}, which the package does not have"))?;
    let Scripted::Values(values) = answer else { return Ok(()) };
    let asked: BTreeSet<FieldId> = step.what.iter().flat_map(What::names).collect();
    let given: BTreeSet<FieldId> = values.keys().cloned().collect();
    match step.kind {
        StepKind::Call if asked != given => {
            let names: Vec<_> = asked.iter().map(FieldId::as_str).collect();
            Err(format!("step {id} answers {}, and nothing else", names.join(", ")))
        }
        StepKind::Call | StepKind::Act => Ok(()),
        _ => Err(format!("step {id} is no call or act, and answers nothing")),
    }
}

/// What stands for what is drawn: a person by their name, with an identifier that passes its check.
fn sample(name: &str, scenario: &Scenario) -> String {
    let Some((who, what)) = name.split_once('.') else { return "1".into() };
    match what {
        "name" => format!("某{who}"),
        "id" => {
            let who: Option<FieldId> = who.parse().ok();
            let born = who.as_ref().and_then(|w| scenario.people.get(w)).map_or("1985-03-07", |t| &t.born);
            let number = scenario.parties.values().position(|p| Some(p) == who.as_ref()).unwrap_or(0);
            let first = format!("110108{}{}", born.replace('-', ""), 901 + number * 2);
            let check = identifier::resident_check(first.as_bytes()).unwrap_or(b'0');
            format!("{first}{}", char::from(check))
        }
        _ => format!("{who}-{what}"),
    }
}

fn decision(case: CaseId, step: &StepId, passed: bool) -> Decide {
    Decide {
        case,
        step: step.clone(),
        rule: Digest([0; 32]),
        inputs: vec![],
        passed,
        reason: Commitment([0; 32]),
        adverse: false,
        confirmed_by: None,
    }
}

/// An event as the ledger would tell it, but for signatures and hashes.
pub(crate) fn event(number: u64, time_ms: u64, body: Body) -> Event {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(number + 1).to_be_bytes());
    let signer = "simulated".parse().expect("a name");
    let command = Command { chain: ChainId([0; 32]), signer, nonce: number, expires_ms: 0, body };
    let command = SignedCommand { suite: Suite::International, command, signature: [0; 64] };
    let outcome = Outcome::Accepted(Fact::Recorded);
    Event { height: 1, index: 0, time_ms, id: CommandId(id), command, outcome }
}
