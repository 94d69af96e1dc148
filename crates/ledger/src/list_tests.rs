//! A list lets calls of many cases be asked together, and nothing through that a single call would not.

use crate::tests::{MINUTE_MS, World, name};
use model::*;

/// A world whose matter asks `check` (statutory, approved) and `identity` (on consent) by lists.
fn world() -> World {
    let mut w = World::new();
    w.roster.protocol = LIST_PROTOCOL;
    w.accept("registry", approval(&w));
    w.accept("bureau", declare(&["check", "identity"]));
    w
}

fn approval(w: &World) -> Body {
    Body::ApproveBasis(ApproveBasis {
        id: name("duty"),
        asker: name("bureau"),
        matter: name("sale"),
        resource: name("registry.deed"),
        names: vec![name("value")],
        citation: "law".into(),
        expires_ms: w.time_ms + 1000 * MINUTE_MS,
    })
}

fn declare(steps: &[&str]) -> Body {
    let steps = steps.iter().map(|step| name(step)).collect();
    Body::DeclareListed(DeclareListed { matter: name("sale"), version: 1, steps })
}

impl World {
    fn list(&self, step: &str, cases: &[CaseId]) -> ProposeList {
        let mut cases = cases.to_vec();
        cases.sort();
        let until_ms = self.time_ms + 60 * MINUTE_MS;
        ProposeList { matter: name("sale"), version: 1, step: name(step), cases, until_ms }
    }

    fn proposed(&mut self, step: &str, cases: &[CaseId]) -> ListId {
        let list = self.list(step, cases);
        ListId(self.accept("bureau", Body::ProposeList(list)).0)
    }

    fn check(&self, case: CaseId) -> Body {
        Body::Ask(self.ask(case, "check", None))
    }
}

fn agree(list: ListId) -> Body {
    Body::AnswerList(AnswerList { list, refused: None })
}

#[test]
fn what_is_asked_by_lists_is_asked_only_for_cases_of_an_agreed_one() {
    let mut w = world();
    let (one, two, other) = (w.open(1), w.open(2), w.open(3));
    w.refuse("bureau", w.check(one), Refusal::NotListed);
    let list = w.proposed("check", &[one, two]);
    // not before its holder agreed, and nobody else agrees for it
    w.refuse("bureau", w.check(one), Refusal::NotListed);
    w.refuse("police", agree(list), Refusal::NotYours);
    w.accept("registry", agree(list));
    w.refuse("registry", agree(list), Refusal::WrongState);
    // each is a call of its own, once
    w.accept("bureau", w.check(one));
    w.refuse("bureau", w.check(one), Refusal::AlreadyUsed);
    w.accept("bureau", w.check(two));
    w.refuse("bureau", w.check(other), Refusal::NotListed);
    // a step that is not declared is asked as ever
    w.identify(one);
    w.accept("bureau", Body::Ask(w.ask(one, "own", None)));
}

#[test]
fn a_list_is_no_basis() {
    let mut w = world();
    let case = w.open(1);
    w.identify(case);
    let list = w.proposed("identity", &[case]);
    w.accept("police", agree(list));
    // the person has not consented
    w.refuse("bureau", Body::Ask(w.ask(case, "identity", None)), Refusal::NoConsent);
    let consent = w.consent(case);
    w.accept("bureau", Body::Ask(w.ask(case, "identity", Some(consent))));
}

#[test]
fn a_list_is_of_open_cases_of_ones_own_each_in_one_at_a_time() {
    let mut w = world();
    let (one, two) = (w.open(1), w.open(2));
    let right = w.list("check", &[one, two]);
    let refuse = |w: &mut World, by: &str, change: &dyn Fn(&mut ProposeList), why| {
        let mut list = right.clone();
        change(&mut list);
        w.refuse(by, Body::ProposeList(list), why);
    };
    refuse(&mut w, "registry", &|_| {}, Refusal::NotYours);
    refuse(&mut w, "bureau", &|l| l.version = 2, Refusal::UnknownMatter);
    refuse(&mut w, "bureau", &|l| l.step = name("own"), Refusal::UndeclaredStep);
    refuse(&mut w, "bureau", &|l| l.cases.clear(), Refusal::WrongShape);
    refuse(&mut w, "bureau", &|l| l.cases.reverse(), Refusal::WrongShape);
    refuse(&mut w, "bureau", &|l| l.cases = vec![l.cases[0]; 2], Refusal::WrongShape);
    refuse(&mut w, "bureau", &|l| l.cases.push(CaseId([255; 32])), Refusal::UnknownCase);
    refuse(&mut w, "bureau", &|l| l.until_ms = 1, Refusal::TooLate);
    refuse(&mut w, "bureau", &|l| l.until_ms -= LIST_LIVES_MS_LEAST, Refusal::TooLate);
    refuse(&mut w, "bureau", &|l| l.until_ms += LIST_LIVES_MS_MAX, Refusal::TooLate);
    let many = (0..=LIST_CASES_MAX as u32).map(|i| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&i.to_be_bytes());
        CaseId(id)
    });
    let many: Vec<_> = many.collect();
    refuse(&mut w, "bureau", &|l| l.cases = many.clone(), Refusal::Oversized);
    // a case is in one list at a time, until that is refused or has expired
    let list = w.proposed("check", &[one]);
    refuse(&mut w, "bureau", &|_| {}, Refusal::AlreadyUsed);
    let refused = |code| Body::AnswerList(AnswerList { list, refused: Some(name(code)) });
    w.refuse("registry", refused("id_110105194912310021"), Refusal::UnfitText);
    w.accept("registry", refused("too_many"));
    w.refuse("bureau", w.check(one), Refusal::NotListed);
    let list = w.proposed("check", &[one, two]);
    w.accept("registry", agree(list));
    w.time_ms += 61 * MINUTE_MS;
    w.refuse("bureau", w.check(one), Refusal::NotListed);
    let list = w.proposed("check", &[one, two]);
    w.time_ms += 61 * MINUTE_MS;
    w.refuse("registry", agree(list), Refusal::TooLate);
    // one that is over is asked no more
    let settle = SettleCase {
        case: two,
        outcome: CaseOutcome::Withdrawn,
        step: name("check"),
        reason: Commitment([1; 32]),
    };
    w.accept("bureau", Body::SettleCase(settle));
    let list = w.list("check", &[one, two]);
    w.refuse("bureau", Body::ProposeList(list), Refusal::CaseClosed);
}

#[test]
fn what_is_asked_by_lists_is_declared_once_by_the_handler_and_not_for_people_themselves() {
    let mut w = World::new();
    w.roster.protocol = LIST_PROTOCOL;
    w.refuse("registry", declare(&["check"]), Refusal::NotYours);
    w.refuse("bureau", declare(&[]), Refusal::WrongShape);
    w.refuse("bureau", declare(&["check", "check"]), Refusal::WrongShape);
    w.refuse("bureau", declare(&["nothing"]), Refusal::UndeclaredStep);
    w.refuse("bureau", declare(&["own"]), Refusal::UndeclaredStep);
    let cases = [w.open(1)];
    let list = w.list("check", &cases);
    w.refuse("bureau", Body::ProposeList(list), Refusal::UndeclaredStep);
    w.accept("bureau", declare(&["check"]));
    w.refuse("bureau", declare(&["check"]), Refusal::AlreadyUsed);
}

#[test]
fn a_long_list_is_applied_in_few_rounds_whatever_its_cases_were_in_before() {
    let mut w = world();
    let mut cases: Vec<_> = (0..60).map(|i| w.open(i)).collect();
    cases.sort();
    for case in &cases {
        w.proposed("check", &[*case]);
    }
    w.time_ms += 61 * MINUTE_MS;
    // one that is not there, at the end
    let mut list = w.list("check", &cases);
    list.cases.push(CaseId([255; 32]));
    w.refuse("bureau", Body::ProposeList(list), Refusal::UnknownCase);
    assert!(w.rounds <= 3, "{}", w.rounds);
    let list = w.proposed("check", &cases);
    assert!(w.rounds <= 3, "{}", w.rounds);
    let refused = AnswerList { list, refused: Some(name("too_many")) };
    w.accept("registry", Body::AnswerList(refused));
    assert!(w.rounds <= 2, "{}", w.rounds);
    // each is free again
    w.proposed("check", &cases[..1]);
}
