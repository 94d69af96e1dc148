//! What is due in a case, event by event.

use super::*;

const PACKAGE: &str = r#"
format: 1
id: sale
version: 1
title: { zh: 买卖, en: Sale }
handler: bureau
appeal: { zh: 复议, en: Review }
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

pub(crate) fn name<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
    text.parse().unwrap()
}

/// A case with its package, at a time.
pub(crate) struct World {
    pub(crate) package: Package,
    pub(crate) case: Case,
    pub(crate) now: u64,
    next: u8,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(Package::parse("test", PACKAGE).unwrap(), "seller")
    }

    /// A case of a package with one party, who is identified.
    pub(crate) fn of(package: Package, role: &str) -> Self {
        let party = Party { role: name(role), pseudonym: Pseudonym([1; 32]), subject: Commitment([2; 32]) };
        let open =
            OpenCase { matter: package.id.clone(), version: 1, tag: Digest([0; 32]), parties: vec![party] };
        let event = Self::event(1, 1_000, Body::OpenCase(open.clone()));
        let mut world = Self { package, case: Case::opened(&event, &open), now: 1_000, next: 1 };
        let assertion = Assertion {
            chain: ChainId([0; 32]),
            case: world.case.id,
            role: name(role),
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
        crate::simulate::event(id.into(), time_ms, body)
    }

    pub(crate) fn apply(&mut self, body: Body, reason: &str) -> CommandId {
        self.next += 1;
        self.now += 1_000;
        let event = Self::event(self.next, self.now, body);
        self.case.apply(&event, &self.package, reason);
        event.id
    }

    pub(crate) fn due(&self) -> Vec<Due> {
        self.case.due(&self.package, self.now)
    }

    pub(crate) fn ask(&mut self, attempt: u32) {
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

    pub(crate) fn answered(&mut self, settled: &str) {
        let call = self.case.calls[&name("bills")].id;
        let reply = Reply::Data { commitments: vec![], payload: Digest([0; 32]), as_of_ms: 0 };
        self.apply(Body::Answer(Answer { call, reply }), "");
        let values = BTreeMap::from([("settled".to_owned(), settled.to_owned())]);
        self.case.opened_here(&name("bills"), values, vec![Commitment([9; 32])], self.now);
    }

    pub(crate) fn decide(&mut self, passed: bool, reason: &str) {
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

    pub(crate) fn settle(&mut self, due: &Due) {
        let Due::Settle(outcome, step, reason) = due else { panic!("{due:?} settles nothing") };
        let settle = SettleCase {
            case: self.case.id,
            outcome: *outcome,
            step: step.clone(),
            reason: Commitment([0; 32]),
        };
        self.apply(Body::SettleCase(settle), reason);
    }

    pub(crate) fn act(&mut self, step: &str, failure: Option<&str>) {
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

    pub(crate) fn report(&mut self, action: ActionId, failure: Option<&str>) {
        let report = ReportAction { action, failure: failure.map(name), result: Commitment([0; 32]) };
        self.apply(Body::ReportAction(report), "");
    }

    pub(crate) fn registered() -> Self {
        let mut w = Self::new();
        w.ask(0);
        w.answered("yes");
        w.decide(true, "pass");
        w.act("transfer", None);
        w
    }
}

pub(crate) fn settles(outcome: CaseOutcome, step: &str, reason: &str) -> Vec<Due> {
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
    w.apply(Body::ResumeCase(ResumeCase { case: w.case.id, again: vec![], reason: Commitment([0; 32]) }), "");
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

/// Optional parties, conditions, results of actions, and an officer's word.
const SHOP: &str = r#"
format: 1
id: shop
version: 1
title: { zh: 店, en: Shop }
handler: bureau
appeal: { zh: 复议, en: Review }
parties:
  - { id: owner, title: { zh: 店主, en: Owner } }
  - { id: agent, title: { zh: 代理, en: Agent }, optional: true }
form: [{ id: seats, element: number, title: { zh: 座, en: Seats }, optional: true }]
same: []
outputs: [{ title: { zh: 号, en: Number }, from: issue.serial }]
steps:
  - { id: identify, kind: identify, party: owner, title: { zh: 核验, en: Identify } }
  - { id: identify_agent, kind: identify, party: agent, title: { zh: 核验, en: Identify } }
  - { id: bills, kind: call, after: [identify], party: owner, holder: power, resource: power.account, what: { predicate: settled }, basis: self_access, title: { zh: 电费, en: Bills }, purpose: { zh: 核验, en: to check } }
  - id: review
    kind: decide
    after: [bills, identify_agent]
    title: { zh: 审核, en: Review }
    rules:
      - { when: 'bills.settled == "unknown"', result: not_known, outcome: needs_human, may_pass: true, ground: { zh: 不明, en: unknown } }
      - { when: 'owner.age < 18', result: minor, outcome: needs_human, ground: { zh: 未成年, en: a minor } }
  - { id: issue, kind: act, after: [review], pivot: true, performer: registry, operation: issue, title: { zh: 发证, en: Issue } }
  - { id: fire, kind: act, after: [issue], only_if: 'has(form.seats) && int(form.seats) > 100', performer: fire, operation: declare, title: { zh: 消防, en: Fire } }
  - { id: post, kind: act, after: [issue], performer: post, operation: send, parameters: { number: issue.serial }, title: { zh: 寄送, en: Post } }
"#;

fn shop(seats: Option<&str>, id: &str) -> World {
    let mut w = World::of(Package::parse("shop", SHOP).unwrap(), "owner");
    let form = seats.iter().map(|s| ("seats".to_owned(), (*s).to_owned())).collect();
    w.case.values.insert("form".into(), form);
    w.case.values.insert("owner".into(), [("id".to_owned(), id.to_owned())].into());
    w
}

const ADULT: &str = "11010519491231002X";

#[test]
fn what_is_not_there_is_skipped_and_what_does_not_hold_is_not_done() {
    let mut w = shop(Some("40"), ADULT);
    let standing = w.case.standing(&w.package);
    assert_eq!(standing[&name::<StepId>("identify_agent")], StepState::Skipped);
    assert_eq!(
        standing[&name::<StepId>("fire")],
        StepState::NotStarted,
        "its condition is told when its turn comes"
    );
    w.ask(0);
    w.answered("yes");
    w.decide(true, "pass");
    w.act("issue", None);
    assert_eq!(w.case.standing(&w.package)[&name::<StepId>("fire")], StepState::Skipped);
    // what the action returned has not come: whoever needs it waits, and it is asked for again
    assert_eq!(w.due(), []);
    assert_eq!(w.case.lacking_results(&w.package).len(), 1);
    w.case.returned_here(&name("issue"), BTreeMap::from([("serial".to_owned(), "S1".to_owned())]));
    assert_eq!(w.due(), [Due::Act(name("post"))]);
    w.act("post", None);
    assert_eq!(w.due(), settles(CaseOutcome::Closed, "issue", "all_done"));
    assert!(w.case.lacking_results(&w.package).is_empty());

    let mut w = shop(Some("400"), ADULT);
    w.ask(0);
    w.answered("yes");
    w.decide(true, "pass");
    w.act("issue", None);
    assert_eq!(w.due(), [Due::Act(name("fire"))]);
    // a condition that cannot be told, past the pivot, holds up nothing: that part is a person's
    let mut w = shop(Some("many"), ADULT);
    w.ask(0);
    w.answered("yes");
    w.decide(true, "pass");
    w.act("issue", None);
    w.case.returned_here(&name("issue"), BTreeMap::from([("serial".to_owned(), "S1".to_owned())]));
    assert_eq!(w.due(), [Due::Act(name("post"))]);
    w.act("post", None);
    assert_eq!(w.due(), settles(CaseOutcome::ClosedPartly, "fire", "handed_to_a_person"));
}

#[test]
fn an_officer_lets_a_case_pass_one_rule_and_the_others_still_hold() {
    for (id, then) in [(ADULT, None), ("110105201501010028", Some("minor"))] {
        let mut w = shop(None, &valid(id));
        w.ask(0);
        w.answered("unknown");
        let review = w.package.step(&name("review")).unwrap().clone();
        let rule = w.case.decide(&w.package, &review).unwrap().unwrap();
        assert_eq!(rule.result.as_str(), "not_known");
        w.decide(false, "not_known");
        let due = w.due();
        assert_eq!(due, settles(CaseOutcome::NeedsHuman, "review", "not_known"));
        assert!(w.case.may_pass(&w.package).is_none(), "it does not rest yet");
        w.settle(&due[0]);
        assert_eq!(w.case.may_pass(&w.package).unwrap().result.as_str(), "not_known");
        w.decide(true, &format!("{PASSED_OVER}not_known"));
        assert_eq!(w.due(), [], "the case goes on when it is resumed");
        let resume = ResumeCase { case: w.case.id, again: vec![name("review")], reason: Commitment([0; 32]) };
        w.apply(Body::ResumeCase(resume), "");
        assert_eq!(w.due(), [Due::Decide(name("review"))], "nothing is asked again");
        let rule = w.case.decide(&w.package, &review).unwrap();
        assert_eq!(rule.map(|r| r.result.as_str()), then);
    }
}

/// The number with its check character.
fn valid(number: &str) -> String {
    let check = identifier::resident_check(&number.as_bytes()[..17]).unwrap();
    format!("{}{}", &number[..17], char::from(check))
}

#[test]
fn a_rule_about_several_never_takes_one_that_is_not_known_for_one_that_is_not_there() {
    let text = SHOP
        .replace("en: Owner } }", "en: Owner }, repeat: 3 }")
        .replace("bills.settled == \"unknown\"", "bills.exists(b, b.settled != \"yes\")")
        .replace("owner.age < 18", "owner.exists(o, o.age < 18)");
    let package = Package::parse("shop", &text).unwrap();
    let person = |id: &str| [("id".to_owned(), id.to_owned())].into();
    let settled = |word: &str| [("settled".to_owned(), word.to_owned())].into();
    let mut values: BTreeMap<String, BTreeMap<String, String>> = [
        ("owner".to_owned(), person(ADULT)),
        ("owner_2".to_owned(), person(ADULT)),
        ("bills".to_owned(), settled("yes")),
    ]
    .into();
    let when = "bills.exists(b, b.settled != \"yes\")";
    assert!(holds(&package, when, &values, 0).is_err(), "the second owner's are not known");
    values.insert("bills_2".into(), settled("yes"));
    assert_eq!(holds(&package, when, &values, 0), Ok(false), "there is no third owner");
    values.insert("bills_2".into(), settled("no"));
    assert_eq!(holds(&package, when, &values, 0), Ok(true));
}

impl World {
    /// A call made under a subscription, with its answer.
    pub(crate) fn delivered(&mut self, attempt: u32, settled: Option<&str>) {
        let ask = Ask {
            case: self.case.id,
            step: name("bills"),
            attempt,
            consent: None,
            subject: Commitment([0; 32]),
            sealed: Digest([0; 32]),
            answer_by_ms: self.now + 60_000,
        };
        assert_eq!(self.case.next_attempt(&ask.step), attempt);
        let call = CallId(self.apply(Body::Ask(ask), "").0);
        assert_eq!(self.due().iter().filter(|d| **d == Due::Call(name("bills"))).count(), 0);
        let reply = match settled {
            Some(_) => Reply::Data { commitments: vec![], payload: Digest([0; 32]), as_of_ms: 0 },
            None => Reply::Declined(name("not_found")),
        };
        self.apply(Body::Answer(Answer { call, reply }), "");
        if let Some(settled) = settled {
            assert!(self.case.delivered_here(call, [("settled".to_owned(), settled.to_owned())].into()));
        }
    }
}

#[test]
fn what_changes_before_the_pivot_is_handed_to_a_person_and_decided_again() {
    for changed in [Some("no"), None] {
        let mut w = World::new();
        w.ask(0);
        w.answered("yes");
        w.decide(true, "pass");
        w.delivered(1, Some("yes"));
        assert_eq!(w.due(), [Due::Act(name("transfer"))], "nothing has changed in the end");
        w.delivered(2, changed);
        let due = w.due();
        assert_eq!(due, settles(CaseOutcome::NeedsHuman, "bills", DATA_CHANGED));
        assert_eq!(w.case.calls[&name("bills")].attempt, 0, "what was decided on stands");
        w.settle(&due[0]);
        let again = w.case.again(&w.package);
        assert_eq!(again, [name::<StepId>("bills"), name("review")]);
        w.apply(Body::ResumeCase(ResumeCase { case: w.case.id, again, reason: Commitment([0; 32]) }), "");
        assert_eq!(w.due(), [Due::Call(name("bills"))]);
        assert_eq!(w.case.next_attempt(&name("bills")), 3);
        w.ask(3);
        w.answered("yes");
        assert_eq!(w.due(), [Due::Decide(name("review"))], "what came before is old");
    }
}

#[test]
fn what_changes_after_the_pivot_changes_nothing_that_was_decided() {
    let mut w = World::registered();
    w.delivered(1, Some("no"));
    assert_eq!(w.due(), [Due::Act(name("power")), Due::Act(name("gas"))]);
    w.act("gas", None);
    w.act("power", None);
    let due = w.due();
    w.settle(&due[0]);
    let changed = w.case.changed_ms;
    w.delivered(2, None);
    assert_eq!((w.case.changed_ms, w.case.deliveries.len(), w.case.log.len()), (changed, 2, 3));
    assert!(w.case.is_over() && w.due().is_empty());
}
