//! How departments come to share, how much, and what they do about wrong data.

use crate::{
    AlertRecord, Key, ObjectionRecord, ShareRecord, ShareState, Unusual,
    tests::{MINUTE_MS, World, name, text},
};
use model::*;

const DAY_MS: u64 = 86_400_000;

/// A world in which sharing has rules: the court rules on disputes.
fn world() -> World {
    let mut w = World::new();
    w.roster.protocol = SHARING_PROTOCOL;
    let rules =
        Sharing { coordinators: vec![name("court")], surge_floor: 3, surge_times: 2, ..Sharing::default() };
    let proposal = w.propose("bureau", Change::SetSharing(Box::new(rules.clone())));
    for by in ["bureau", "court"] {
        w.approve(by, proposal);
    }
    // in force at once: the epoch is the running one
    assert_eq!(w.approve("police", proposal), Outcome::Accepted(Fact::Adopted(0)));
    assert_eq!(w.record::<Sharing>(&Key::Sharing), Some(rules));
    w
}

fn request(w: &World) -> RequestShare {
    RequestShare {
        id: name("duty"),
        holder: name("registry"),
        resource: name("registry.deed"),
        names: vec![name("value")],
        matter: name("sale"),
        project: None,
        citation: "law, article 22".into(),
        purpose: text("to see whether it may be sold"),
        per_day: 2,
        until_ms: w.time_ms + 300 * DAY_MS,
    }
}

fn reply(reply: ShareReply) -> Body {
    Body::ReplyShare(ReplyShare { asker: name("bureau"), id: name("duty"), reply })
}

fn refusal() -> Body {
    reply(ShareReply::Refuse { reason: ShareRefusal::BeyondNeed, note: "article 6".into() })
}

fn dispute() -> Body {
    Body::DisputeShare(DisputeShare { holder: name("registry"), id: name("duty"), note: "we need it".into() })
}

fn ruling(grant: bool) -> Body {
    let share = ShareRef { holder: name("registry"), asker: name("bureau"), id: name("duty") };
    Body::RuleShare(RuleShare { share, grant, note: "heard both".into() })
}

fn approval(w: &World) -> ApproveBasis {
    let request = request(w);
    ApproveBasis {
        id: request.id,
        asker: name("bureau"),
        matter: request.matter,
        resource: request.resource,
        names: request.names,
        citation: request.citation,
        expires_ms: w.time_ms + 200 * DAY_MS,
    }
}

impl World {
    fn share(&self) -> ShareRecord {
        let share = ShareRef { holder: name("registry"), asker: name("bureau"), id: name("duty") };
        self.record(&Key::Share(share)).unwrap()
    }

    fn alert(&self) -> AlertRecord {
        self.record(&Key::Alert(name("registry.deed"), name("bureau"))).unwrap()
    }

    fn ask_check(&mut self, tag: u8) -> Outcome {
        let case = self.open(tag);
        let ask = Body::Ask(self.ask(case, "check", None));
        self.submit("bureau", ask).1
    }
}

#[test]
fn a_ledger_of_earlier_rules_knows_none_of_this() {
    let w = World::new();
    let rules = Change::SetSharing(Box::default());
    for body in [Body::RequestShare(request(&w)), refusal(), Body::Propose(w.proposal("bureau", rules))] {
        let command = Command { chain: w.rules.chain, signer: name("bureau"), nonce: 1, expires_ms: 1, body };
        let signed = crypto::signed(&w.keys["bureau"].keys.command, command);
        assert!(w.rules.admit(&w.roster, &signed).is_none());
        let roster = Roster { protocol: SHARING_PROTOCOL, ..w.roster.clone() };
        assert!(w.rules.admit(&roster, &signed).is_some());
    }
}

#[test]
fn a_request_is_accepted_granted_within_what_was_asked_and_taken_back_at_once() {
    let mut w = world();
    assert_eq!(w.ask_check(1), Outcome::Refused(Refusal::BasisNotApproved));
    w.accept("bureau", Body::RequestShare(request(&w)));
    w.refuse("bureau", Body::RequestShare(request(&w)), Refusal::AlreadyUsed);
    w.refuse("police", reply(ShareReply::Accept), Refusal::UnknownShare);
    w.accept("registry", reply(ShareReply::Accept));
    w.refuse("registry", reply(ShareReply::Accept), Refusal::WrongState);
    let days = Sharing::default().calendar;
    assert_eq!(w.share().due_ms, days.deadline_ms(w.time_ms, 10));

    let longer = ApproveBasis { expires_ms: w.time_ms + 400 * DAY_MS, ..approval(&w) };
    w.refuse("registry", Body::ApproveBasis(longer), Refusal::WrongShape);
    let elsewhere = ApproveBasis { matter: name("other"), ..approval(&w) };
    w.refuse("registry", Body::ApproveBasis(elsewhere), Refusal::WrongShape);
    let nothing = ApproveBasis { names: vec![], ..approval(&w) };
    w.refuse("registry", Body::ApproveBasis(nothing), Refusal::WrongShape);
    let past = ApproveBasis { expires_ms: w.time_ms, ..approval(&w) };
    w.refuse("registry", Body::ApproveBasis(past), Refusal::TooLate);
    w.accept("registry", Body::ApproveBasis(approval(&w)));
    assert_eq!((w.share().state, w.share().missed), (ShareState::Granted, 0));
    // another department's basis does not lose its name to a newcomer
    let others = ApproveBasis { asker: name("police"), ..approval(&w) };
    w.refuse("registry", Body::ApproveBasis(others), Refusal::AlreadyUsed);

    let case = w.open(2);
    let call = w.accept("bureau", Body::Ask(w.ask(case, "check", None)));
    let revoke = Body::RevokeBasis(RevokeBasis { id: name("duty"), note: "no longer needed".into() });
    w.refuse("bureau", revoke.clone(), Refusal::BasisNotApproved);
    w.accept("registry", revoke.clone());
    w.refuse("registry", revoke, Refusal::BasisNotApproved);
    assert_eq!(w.share().state, ShareState::Revoked("no longer needed".into()));
    // what was granted and not answered yet is not answered any more
    w.refuse("registry", World::answer(call), Refusal::BasisNotApproved);
    let declined = Answer { call: CallId(call.0), reply: Reply::Declined(name("basis_ended")) };
    w.accept("registry", Body::Answer(declined));
    assert_eq!(w.ask_check(3), Outcome::Refused(Refusal::BasisNotApproved));
    // and it may be asked for again
    w.accept("bureau", Body::RequestShare(request(&w)));
}

#[test]
fn a_refusal_is_disputed_and_ruled_on_by_somebody_else() {
    let mut w = world();
    w.accept("bureau", Body::RequestShare(request(&w)));
    w.refuse("bureau", dispute(), Refusal::TooEarly);
    w.refuse("court", ruling(true), Refusal::WrongState);
    w.accept("registry", refusal());
    w.refuse("registry", refusal(), Refusal::WrongState);
    w.accept("bureau", dispute());
    for party in ["registry", "bureau", "police"] {
        w.refuse(party, ruling(true), Refusal::NotYours);
    }
    w.accept("court", ruling(true));
    assert!(matches!(w.share().state, ShareState::Overruled(_)));
    w.refuse("registry", refusal(), Refusal::WrongState);
    // what it has to grant it grants whole, and taking it back is disputed like a refusal
    w.refuse("registry", Body::ApproveBasis(approval(&w)), Refusal::WrongShape);
    let whole = ApproveBasis { expires_ms: w.share().request.until_ms, ..approval(&w) };
    w.accept("registry", Body::ApproveBasis(whole));
    assert_eq!(w.share().state, ShareState::Granted);
    assert!(matches!(w.ask_check(1), Outcome::Accepted(_)));
    w.refuse("bureau", dispute(), Refusal::WrongState);
    let revoke = RevokeBasis { id: name("duty"), note: "we would rather not".into() };
    w.accept("registry", Body::RevokeBasis(revoke));
    w.accept("bureau", dispute());
    w.accept("court", ruling(true));
    assert!(matches!(w.share().state, ShareState::Overruled(_)));
}

#[test]
fn an_asker_gives_up_and_asks_anew_and_what_was_missed_stays_counted() {
    let mut w = world();
    let withdraw = || Body::WithdrawShare(WithdrawShare { holder: name("registry"), id: name("duty") });
    w.refuse("bureau", withdraw(), Refusal::UnknownShare);
    w.accept("bureau", Body::RequestShare(request(&w)));
    w.refuse("police", withdraw(), Refusal::UnknownShare);
    w.time_ms = w.share().due_ms + 1;
    w.accept("bureau", dispute());
    w.accept("bureau", withdraw());
    w.refuse("bureau", withdraw(), Refusal::WrongState);
    w.refuse("registry", Body::ApproveBasis(approval(&w)), Refusal::WrongState);
    w.refuse("court", ruling(true), Refusal::WrongState);
    w.accept("bureau", Body::RequestShare(request(&w)));
    assert_eq!((w.share().state, w.share().missed), (ShareState::Requested, 1));
    w.accept("registry", Body::ApproveBasis(approval(&w)));
    w.refuse("bureau", withdraw(), Refusal::WrongState);
    // a name under which somebody may ask already is no request's
    w.refuse("police", Body::RequestShare(request(&w)), Refusal::AlreadyUsed);
}

#[test]
fn a_call_is_answered_under_what_its_basis_says_now() {
    let mut w = world();
    w.accept("registry", Body::ApproveBasis(approval(&w)));
    let case = w.open(1);
    let call = w.accept("bureau", Body::Ask(w.ask(case, "check", None)));
    // approved anew under the same name, for another matter
    let elsewhere = ApproveBasis { matter: name("other"), ..approval(&w) };
    w.accept("registry", Body::ApproveBasis(elsewhere));
    w.refuse("registry", World::answer(call), Refusal::BasisNotApproved);
    w.accept("registry", Body::ApproveBasis(approval(&w)));
    w.accept("registry", World::answer(call));
}

#[test]
fn nothing_is_disputed_that_nobody_could_rule_on() {
    let mut w = World::new();
    w.roster.protocol = SHARING_PROTOCOL;
    w.accept("bureau", Body::RequestShare(request(&w)));
    w.accept("registry", refusal());
    w.refuse("bureau", dispute(), Refusal::NoCoordinator);
    // nor where the only one is a party
    let rules = Sharing { coordinators: vec![name("registry")], ..Sharing::default() };
    let proposal = w.propose("bureau", Change::SetSharing(Box::new(rules)));
    for by in ["bureau", "court", "police"] {
        w.approve(by, proposal);
    }
    w.refuse("bureau", dispute(), Refusal::NoCoordinator);
}

#[test]
fn a_ruling_may_stand_by_the_holder() {
    let mut w = world();
    w.accept("bureau", Body::RequestShare(request(&w)));
    w.accept("registry", refusal());
    w.accept("bureau", dispute());
    w.accept("court", ruling(false));
    assert!(matches!(w.share().state, ShareState::Upheld(_)));
    w.refuse("bureau", dispute(), Refusal::WrongState);
    w.accept("bureau", Body::RequestShare(request(&w)));
}

#[test]
fn silence_past_its_clock_escalates_and_is_counted() {
    let mut w = world();
    w.accept("bureau", Body::RequestShare(request(&w)));
    w.time_ms = w.share().due_ms - MINUTE_MS;
    w.refuse("court", ruling(true), Refusal::WrongState);
    w.time_ms = w.share().due_ms + 1;
    // a coordinator may rule without being called upon
    w.accept("court", ruling(true));
    assert_eq!(w.share().missed, 1);
    // and a holder that does not do what it was ruled to is taken to them again
    w.refuse("bureau", dispute(), Refusal::TooEarly);
    w.time_ms = w.share().due_ms + 1;
    w.accept("bureau", dispute());
    assert_eq!(w.share().missed, 2);
}

#[test]
fn nothing_is_asked_for_that_could_not_be_shared() {
    let mut w = world();
    let with = |w: &World, change: &dyn Fn(&mut RequestShare)| {
        let mut request = request(w);
        change(&mut request);
        Body::RequestShare(request)
    };
    type Change<'a> = &'a dyn Fn(&mut RequestShare);
    let cases: Vec<(Change<'_>, Refusal)> = vec![
        (&|r| r.holder = name("bureau"), Refusal::NotYours),
        (&|r| r.holder = name("police"), Refusal::UnknownResource),
        (&|r| r.resource = name("registry.other"), Refusal::UnknownResource),
        (&|r| r.names = vec![], Refusal::WrongShape),
        (&|r| r.names = vec![name("other")], Refusal::UnknownField),
        (&|r| r.names = vec![name("value"); 600], Refusal::Oversized),
        (&|r| r.per_day = 0, Refusal::WrongShape),
        (&|r| r.until_ms = 5, Refusal::TooLate),
        (&|r| r.until_ms = u64::MAX, Refusal::TooLate),
        (&|r| r.citation = " ".into(), Refusal::UnfitText),
        (&|r| r.purpose.zh = "查询 11010519491231002X".into(), Refusal::UnfitText),
        (&|r| r.project = Some(name("unknown")), Refusal::UnknownProject),
    ];
    for (change, refusal) in cases {
        let body = with(&w, change);
        w.refuse("bureau", body, refusal);
    }
}

#[test]
fn a_project_bounds_what_is_asked_for_it_and_ends_at_once() {
    let mut w = world();
    let need = Use {
        holder: name("registry"),
        resource: name("registry.deed"),
        names: vec![name("value")],
        matter: name("sale"),
        per_day: 2,
    };
    let project = RegisterProject {
        id: name("one-stop"),
        title: text("one stop"),
        purpose: text("fewer papers"),
        citation: "law".into(),
        needs: vec![need],
        until_ms: w.time_ms + 310 * DAY_MS,
    };
    let own = RegisterProject {
        needs: vec![Use { holder: name("bureau"), ..project.needs[0].clone() }],
        ..project.clone()
    };
    w.refuse("bureau", Body::RegisterProject(own), Refusal::NotYours);
    let empty = RegisterProject { needs: vec![], ..project.clone() };
    w.refuse("bureau", Body::RegisterProject(empty), Refusal::WrongShape);
    w.accept("bureau", Body::RegisterProject(project.clone()));
    w.refuse("bureau", Body::RegisterProject(project.clone()), Refusal::AlreadyUsed);
    let asked = |w: &World| RequestShare { project: Some(name("one-stop")), ..request(w) };
    let more = RequestShare { per_day: 3, ..asked(&w) };
    w.refuse("bureau", Body::RequestShare(more), Refusal::WrongShape);
    let longer = RequestShare { until_ms: w.time_ms + 320 * DAY_MS, ..asked(&w) };
    w.refuse("bureau", Body::RequestShare(longer), Refusal::WrongShape);
    let other = RequestShare { matter: name("other"), ..asked(&w) };
    w.refuse("bureau", Body::RequestShare(other), Refusal::WrongShape);
    w.accept("bureau", Body::RequestShare(asked(&w)));
    w.accept("registry", Body::ApproveBasis(approval(&w)));
    let case = w.open(1);
    let call = w.accept("bureau", Body::Ask(w.ask(case, "check", None)));

    let end = |note: &str| {
        Body::EndProject(EndProject { owner: name("bureau"), id: name("one-stop"), note: note.into() })
    };
    w.refuse("police", end("why not"), Refusal::NotYours);
    w.accept("court", end("its purpose is served"));
    w.refuse("bureau", end("over"), Refusal::UnknownProject);
    w.refuse("registry", World::answer(call), Refusal::BasisNotApproved);
    assert_eq!(w.ask_check(2), Outcome::Refused(Refusal::BasisNotApproved));
    w.refuse("registry", Body::ApproveBasis(approval(&w)), Refusal::UnknownProject);
    // nothing comes to life again under its name, and the same may be asked for without it
    w.refuse("bureau", Body::RegisterProject(project), Refusal::AlreadyUsed);
    w.accept("bureau", Body::RequestShare(request(&w)));
    assert_eq!(w.ask_check(3), Outcome::Refused(Refusal::BasisNotApproved), "not before it is granted anew");
    w.accept("registry", Body::ApproveBasis(approval(&w)));
    assert!(matches!(w.ask_check(4), Outcome::Accepted(_)));
}

#[test]
fn a_budget_is_used_up_raises_an_alert_and_begins_anew_the_next_day() {
    let mut w = world();
    w.accept("bureau", Body::RequestShare(request(&w)));
    w.accept("registry", Body::ApproveBasis(approval(&w)));
    // what was asked for is the budget: two a day
    for tag in 1..3 {
        assert!(matches!(w.ask_check(tag), Outcome::Accepted(_)));
    }
    assert!(w.record::<AlertRecord>(&Key::Alert(name("registry.deed"), name("bureau"))).is_none());
    assert_eq!(w.ask_check(3), Outcome::Refused(Refusal::OverBudget));
    assert_eq!(w.ask_check(4), Outcome::Refused(Refusal::OverBudget));
    let alert = w.alert();
    assert_eq!((alert.unusual, alert.explained.clone()), (Unusual::OverBudget, None));
    let open = vec![(name::<ResourceId>("registry.deed"), name::<DepartmentId>("bureau"))];
    assert_eq!(w.record::<Vec<(ResourceId, DepartmentId)>>(&Key::OpenAlerts), Some(open));

    w.time_ms += DAY_MS;
    assert!(matches!(w.ask_check(5), Outcome::Accepted(_)), "a new day");
    // left unexplained past its clock, nothing more is granted
    w.time_ms = w.alert().due_ms + 1;
    assert_eq!(w.ask_check(6), Outcome::Refused(Refusal::Unexplained));
    let explain = |day, note: &str| {
        Body::ExplainAlert(ExplainAlert { resource: name("registry.deed"), day, note: note.into() })
    };
    w.refuse("registry", explain(alert.day, "a campaign"), Refusal::WrongState);
    w.refuse("bureau", explain(alert.day.next(), "a campaign"), Refusal::WrongState);
    w.refuse("bureau", explain(alert.day, "call 13800138000"), Refusal::UnfitText);
    w.accept("bureau", explain(alert.day, "a campaign"));
    w.refuse("bureau", explain(alert.day, "a campaign"), Refusal::WrongState);
    assert!(matches!(w.ask_check(7), Outcome::Accepted(_)));
    assert_eq!(w.record::<Vec<(ResourceId, DepartmentId)>>(&Key::OpenAlerts), Some(vec![]));

    // the holder alone sets another
    let set = |most| {
        Body::SetBudget(SetBudget {
            asker: name("bureau"),
            resource: name("registry.deed"),
            matter: None,
            budget: Budget { per_day: Some(most), per_person: None },
        })
    };
    w.refuse("bureau", set(100), Refusal::NotYours);
    w.accept("registry", set(1));
    assert_eq!(w.ask_check(8), Outcome::Refused(Refusal::OverBudget), "over all matters together");
    // and granting does not touch it
    w.accept("registry", Body::ApproveBasis(approval(&w)));
    assert_eq!(w.ask_check(9), Outcome::Refused(Refusal::OverBudget));
}

#[test]
fn much_more_than_usual_raises_an_alert() {
    let mut w = world();
    w.accept("registry", Body::ApproveBasis(approval(&w)));
    let mut tag = 0;
    let mut days = |w: &mut World, days: u32, calls: u32| {
        for _ in 0..days {
            for _ in 0..calls {
                tag += 1;
                assert!(matches!(w.ask_check(tag), Outcome::Accepted(_)));
            }
            w.time_ms += DAY_MS;
        }
    };
    let alert = |w: &World| w.record::<AlertRecord>(&Key::Alert(name("registry.deed"), name("bureau")));
    // what is usual is not known in the first week
    days(&mut w, 1, 5);
    days(&mut w, 12, 2);
    assert_eq!(alert(&w), None);
    days(&mut w, 1, 3);
    assert_eq!(alert(&w), None, "few enough");
    days(&mut w, 1, 5);
    assert_eq!(alert(&w).map(|a| a.unusual), Some(Unusual::Surge));
}

#[test]
fn an_objection_is_answered_by_the_holder_once() {
    let mut w = world();
    let (_, _, call) = w.granted();
    let object = |field: &str| {
        Body::Object(Object { call: CallId(call.0), name: name(field), wrong: Wrong::Outdated })
    };
    w.refuse("bureau", object("value"), Refusal::WrongState);
    w.accept("police", World::answer(call));
    w.refuse("police", object("value"), Refusal::NotYours);
    w.refuse("bureau", object("other"), Refusal::UnknownField);
    w.accept("bureau", object("value"));
    w.refuse("bureau", object("value"), Refusal::AlreadyUsed);
    let answer = |verdict| {
        Body::AnswerObjection(AnswerObjection { call: CallId(call.0), name: name("value"), verdict })
    };
    w.refuse("registry", answer(Verdict::Corrected), Refusal::NotYours);
    w.accept("police", answer(Verdict::Corrected));
    w.refuse("police", answer(Verdict::Confirmed), Refusal::WrongState);
    let record: ObjectionRecord = w.record(&Key::Objection(CallId(call.0), name("value"))).unwrap();
    assert_eq!(record.answer.map(|a| a.1), Some(Verdict::Corrected));
    w.accept("bureau", object("value"));
}

#[test]
fn rules_of_sharing_that_could_not_work_are_not_adopted() {
    let mut w = world();
    let rules = |change: &dyn Fn(&mut Sharing)| {
        let mut rules = Sharing::default();
        change(&mut rules);
        Change::SetSharing(Box::new(rules))
    };
    for change in [
        rules(&|r| r.coordinators = vec![name("nobody")]),
        rules(&|r| r.coordinators = vec![name("police"), name("court")]),
        rules(&|r| r.accept_days = 0),
        rules(&|r| r.decide_days = 500),
        rules(&|r| r.surge_times = 1),
        rules(&|r| r.surge_times = u32::MAX),
        rules(&|r| r.calendar.holidays = vec!["2026-10-03".parse().unwrap()]),
    ] {
        let proposal = w.proposal("bureau", change);
        w.refuse("bureau", Body::Propose(proposal), Refusal::UnfitChange);
    }
}
