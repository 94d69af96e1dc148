//! How a case goes back: what was done before its pivot is undone before it is withdrawn or refused. Pure.

use crate::{
    case::{Case, Due, NO_ANSWER, REFUSED_BY_OFFICER, StepState, signing},
    package::Package,
};
use model::*;

impl Case {
    /// Whether something was done, or is being done, that is undone where the case ends before its pivot.
    pub fn holds_anything(&self, package: &Package) -> bool {
        package.steps.iter().any(|undo| {
            let acted = |act| matches!(self.state(act), StepState::Done(_) | StepState::Waiting(_));
            undo.undoes.as_ref().is_some_and(acted) && !matches!(self.state(&undo.id), StepState::Done(_))
        })
    }

    /// Whether undoing has begun: from then on the case only goes back, whatever else comes.
    pub(crate) fn goes_back(&self, package: &Package) -> bool {
        package.steps.iter().any(|s| s.undoes.is_some() && self.actions.contains_key(&s.id))
    }

    /// How and why a case that goes back will end.
    pub(crate) fn way_back(&self, package: &Package) -> (CaseOutcome, StepId, String) {
        if let Some(step) = &self.refused_at {
            return (CaseOutcome::Refused, step.clone(), REFUSED_BY_OFFICER.into());
        }
        for step in &package.steps {
            if let StepState::Failed(_, code) = self.state(&step.id) {
                let rule = step.rules.iter().find(|r| r.result.as_str() == code);
                if rule.is_some_and(|r| r.outcome == CaseOutcome::Refused) {
                    return (CaseOutcome::Refused, step.id.clone(), code);
                }
            }
        }
        if let Some((role, _)) = self.consents.iter().find(|(_, c)| c.2.is_some()) {
            return (CaseOutcome::Withdrawn, signing(package, role), "consent_withdrawn".into());
        }
        let parked = self.settled.as_ref().filter(|s| s.outcome == CaseOutcome::Parked);
        let step = parked.map_or(&package.pivot().id, |s| &s.step).clone();
        (CaseOutcome::Withdrawn, step, "not_resumed_in_time".into())
    }

    /// How a case ends before its pivot: what was done is undone first, and what is being done is waited for.
    pub(crate) fn back(
        &self,
        package: &Package,
        outcome: CaseOutcome,
        step: StepId,
        reason: &str,
        now_ms: u64,
    ) -> Vec<Due> {
        if planted("left_standing") {
            return vec![self.settle(outcome, step, reason)];
        }
        // what a person has to look at, and how they have been told
        let mut stuck: Option<(StepId, String)> = None;
        let (mut begin, mut waits) = (Vec::new(), false);
        for undo in package.steps.iter() {
            let Some(act) = &undo.undoes else { continue };
            let of_it = match self.state(act) {
                StepState::Done(_) => &undo.id,
                StepState::Waiting(_) => act,
                _ => continue,
            };
            // handed to a person, who has not said yet that it may be tried once more
            let resting = self.settled.as_ref().filter(|s| s.outcome == CaseOutcome::NeedsHuman);
            if self.state(of_it) == StepState::NotStarted && resting.is_some_and(|s| &s.step == of_it) {
                waits = true;
                continue;
            }
            match self.state(of_it) {
                StepState::Done(_) => {}
                StepState::Waiting(_) if self.is_overdue(of_it, now_ms) => {
                    stuck = Some((of_it.clone(), NO_ANSWER.into()));
                }
                StepState::Failed(_, code) => stuck = Some((of_it.clone(), code)),
                StepState::NotStarted if self.has_results(undo, package) => {
                    begin.push(Due::Act(undo.id.clone()));
                }
                _ => waits = true,
            }
        }
        if !begin.is_empty() {
            return begin;
        }
        if let Some((step, code)) = stuck {
            let told = self.settled.as_ref().is_some_and(|s| s.step == step && s.reason == code);
            return if told { Vec::new() } else { vec![self.settle(CaseOutcome::NeedsHuman, step, &code)] };
        }
        if waits { Vec::new() } else { vec![self.settle(outcome, step, reason)] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        case::{tests::World, tests::name, tests::settles},
        package::Package,
    };

    /// A shop whose name is held before its pivot.
    const SHOP: &str = r#"
format: 1
id: shop
version: 1
title: { zh: 开店, en: Shop }
handler: bureau
appeal: { zh: 复议, en: Review }
parties: [{ id: owner, title: { zh: 店主, en: Owner } }]
form: []
same: []
steps:
  - { id: identify, kind: identify, party: owner, title: { zh: 核验, en: Identify } }
  - { id: hold, kind: act, after: [identify], performer: market, operation: hold, title: { zh: 保留, en: Hold },
      undo: { operation: release, parameters: { serial: hold.serial }, title: { zh: 释放, en: Release } } }
  - { id: bills, kind: call, after: [identify], party: owner, holder: power, resource: power.account, what: { predicate: settled },
      basis: self_access, title: { zh: 电费, en: Bills }, purpose: { zh: 核验, en: to check } }
  - id: review
    kind: decide
    after: [bills, hold]
    title: { zh: 审核, en: Review }
    rules:
      - { when: 'bills.settled == "no"', result: owes, outcome: refused, ground: { zh: 欠费, en: arrears } }
      - { when: 'bills.settled != "yes"', result: arrears, outcome: parked, ground: { zh: 不明, en: unknown } }
  - { id: issue, kind: act, after: [review], pivot: true, performer: market, operation: issue, title: { zh: 发证, en: Issue } }
"#;

    const UNDO: &str = "undo_hold";

    fn held(settled: &str) -> World {
        let mut w = World::of(Package::parse("shop", SHOP).unwrap(), "owner");
        assert_eq!(w.due(), [Due::Act(name("hold")), Due::Call(name("bills"))]);
        w.act("hold", None);
        w.case.returned_here(&name("hold"), [("serial".to_owned(), "S1".to_owned())].into());
        w.ask(0);
        w.answered(settled);
        w
    }

    #[test]
    fn what_undoes_is_a_step_of_its_own_that_no_case_comes_to_by_itself() {
        let package = Package::parse("shop", SHOP).unwrap();
        let declared = package.undone().unwrap();
        assert_eq!(declared.acts, [Undo { act: name("hold"), by: name(UNDO) }]);
        let actions = package.publication(Suite::International).actions;
        assert!(actions.contains(&(name(UNDO), name("market"), name("release"))));
        let mut w = held("yes");
        assert_eq!(w.case.standing(&w.package)[&name::<StepId>(UNDO)], StepState::Skipped);
        w.decide(true, "pass");
        assert_eq!(w.due(), [Due::Act(name("issue"))]);
        w.act("issue", None);
        assert_eq!(w.due(), settles(CaseOutcome::Closed, "issue", "all_done"));
    }

    #[test]
    fn each_copy_of_a_repeated_roles_act_is_undone_by_what_it_returned_itself() {
        let several = SHOP.replace("{ id: owner, title", "{ id: owner, repeat: 2, title").replace(
            "performer: market, operation: hold,",
            "party: owner, performer: market, operation: hold,",
        );
        let package = Package::parse("shop", &several).unwrap();
        for (id, from) in [("undo_hold", "hold.serial"), ("undo_hold_2", "hold_2.serial")] {
            let step = package.step(&name(id)).unwrap();
            assert_eq!(step.parameters[&name::<FieldId>("serial")], from);
        }
        assert_eq!(package.undone().unwrap().acts.len(), 2);
    }

    #[test]
    fn a_refusal_by_a_rule_undoes_first() {
        let mut w = held("no");
        w.decide(false, "owes");
        assert!(w.case.holds_anything(&w.package));
        assert_eq!(w.due(), [Due::Act(name(UNDO))]);
        w.act(UNDO, None);
        assert!(!w.case.holds_anything(&w.package));
        assert_eq!(w.due(), settles(CaseOutcome::Refused, "review", "owes"));
    }

    #[test]
    fn an_officers_refusal_undoes_first_and_what_fails_is_handed_to_a_person() {
        let mut w = held("unknown");
        w.decide(false, "arrears");
        let parked = w.due();
        w.settle(&parked[0]);
        assert_eq!(w.due(), [], "nothing is undone while it may still go on");
        let refused = Decide {
            case: w.case.id,
            step: name("review"),
            rule: Digest([0; 32]),
            inputs: vec![],
            passed: false,
            reason: Commitment([0; 32]),
            adverse: true,
            confirmed_by: Some(Commitment([1; 32])),
        };
        w.apply(Body::Decide(refused), REFUSED_BY_OFFICER);
        assert_eq!(w.due(), [Due::Act(name(UNDO))]);
        w.act(UNDO, Some("row_count"));
        let due = w.due();
        assert_eq!(due, settles(CaseOutcome::NeedsHuman, UNDO, "row_count"));
        w.settle(&due[0]);
        assert_eq!(w.due(), [], "told once");
        let again = w.case.again(&w.package);
        assert_eq!(again, [name::<StepId>(UNDO)]);
        w.apply(Body::ResumeCase(ResumeCase { case: w.case.id, again, reason: Commitment([0; 32]) }), "");
        assert_eq!(w.due(), [Due::Act(name(UNDO))]);
        // silence is told too, and a late report goes on by itself
        w.act(UNDO, Some("silence"));
        assert_eq!(w.due(), []);
        w.now += 120_000;
        let due = w.due();
        assert_eq!(due, settles(CaseOutcome::NeedsHuman, UNDO, NO_ANSWER));
        w.settle(&due[0]);
        assert_eq!(w.due(), []);
        w.report(w.case.actions[&name(UNDO)].id, None);
        let due = w.due();
        assert_eq!(due, settles(CaseOutcome::Refused, "review", REFUSED_BY_OFFICER));
        w.settle(&due[0]);
        assert_eq!(w.case.settled.as_ref().unwrap().before.as_deref(), Some(NO_ANSWER));
    }

    #[test]
    fn what_is_parked_for_too_long_undoes_first() {
        let mut w = held("unknown");
        w.decide(false, "arrears");
        let parked = w.due();
        w.settle(&parked[0]);
        w.now += crate::case::PARKED_FOR_MS + 1;
        assert_eq!(w.due(), [Due::Act(name(UNDO))]);
        w.act(UNDO, None);
        assert_eq!(w.due(), settles(CaseOutcome::Withdrawn, "review", "not_resumed_in_time"));
    }

    #[test]
    fn once_undoing_has_begun_the_case_only_goes_back() {
        // parked for too long, and the applicant comes while it is undone
        let mut w = held("unknown");
        w.decide(false, "arrears");
        let parked = w.due();
        w.settle(&parked[0]);
        assert!(w.case.may_resume(&w.package));
        w.now += crate::case::PARKED_FOR_MS + 1;
        w.act(UNDO, Some("silence"));
        assert!(!w.case.may_resume(&w.package));
        // it fails, a person tries it again, and it still ends as it would have
        w.report(w.case.actions[&name(UNDO)].id, Some("row_count"));
        let due = w.due();
        assert_eq!(due, settles(CaseOutcome::NeedsHuman, UNDO, "row_count"));
        w.settle(&due[0]);
        assert!(w.case.may_resume(&w.package));
        let again = w.case.again(&w.package);
        w.apply(Body::ResumeCase(ResumeCase { case: w.case.id, again, reason: Commitment([0; 32]) }), "");
        assert_eq!(w.due(), [Due::Act(name(UNDO))]);
        w.act(UNDO, None);
        assert_eq!(w.due(), settles(CaseOutcome::Withdrawn, "issue", "not_resumed_in_time"));
        // refused by a rule, and what was subscribed to changes meanwhile: refused it stays
        let mut w = held("no");
        w.decide(false, "owes");
        w.act(UNDO, Some("silence"));
        let resting = Due::Settle(CaseOutcome::NeedsHuman, name("bills"), crate::case::DATA_CHANGED.into());
        w.settle(&resting);
        assert!(!w.case.may_resume(&w.package));
        w.report(w.case.actions[&name(UNDO)].id, None);
        assert_eq!(w.due(), settles(CaseOutcome::Refused, "review", "owes"));
    }

    #[test]
    fn what_the_ledger_does_not_let_be_undone_is_a_persons_and_asked_for_once() {
        let mut w = held("no");
        w.decide(false, "owes");
        assert_eq!(w.due(), [Due::Act(name(UNDO))]);
        // the ledger refused the request
        let resting = Due::Settle(CaseOutcome::NeedsHuman, name(UNDO), "wrong_state".into());
        w.settle(&resting);
        assert_eq!(w.due(), []);
    }

    #[test]
    fn after_a_pivot_that_failed_a_case_can_still_be_refused() {
        let mut w = held("yes");
        w.decide(true, "pass");
        w.act("issue", Some("refused_by_source"));
        let due = w.due();
        assert_eq!(due, settles(CaseOutcome::NeedsHuman, "issue", "refused_by_source"));
        w.settle(&due[0]);
        assert!(w.case.may_refuse(&w.package) && !w.case.is_past(&w.package));
    }

    #[test]
    fn what_is_being_done_is_waited_for_and_what_it_returned_too() {
        let mut w = World::of(Package::parse("shop", SHOP).unwrap(), "owner");
        w.act("hold", Some("silence"));
        w.ask(0);
        w.answered("no");
        w.decide(false, "owes");
        assert_eq!(w.due(), []);
        w.report(w.case.actions[&name("hold")].id, None);
        assert_eq!(w.due(), [], "the number it is undone by has not come here");
        w.case.returned_here(&name("hold"), [("serial".to_owned(), "S1".to_owned())].into());
        assert_eq!(w.due(), [Due::Act(name(UNDO))]);
        // one that failed leaves nothing to undo; before the pivot a person looks at it
        let mut w = World::of(Package::parse("shop", SHOP).unwrap(), "owner");
        w.act("hold", Some("refused_by_source"));
        assert_eq!(w.due(), settles(CaseOutcome::NeedsHuman, "hold", "refused_by_source"));
    }

    #[test]
    fn mistakes_in_what_undoes_are_found() {
        let codes = |from: &str, to: &str| {
            assert!(SHOP.contains(from), "{from}");
            let found = crate::lint::lint("m", &SHOP.replacen(from, to, 1), None).1;
            found.iter().map(|p| p.code).collect::<Vec<_>>()
        };
        assert_eq!(codes("format: 1", "format: 1"), Vec::<&str>::new());
        assert_eq!(codes("serial: hold.serial", "serial: issue.serial"), ["not_before"]);
        assert_eq!(codes("serial: hold.serial", "serial: form.nothing"), ["unknown_reference"]);
        assert_eq!(
            codes("title: { zh: 释放, en: Release }", "title: { zh: 释放, en: '' }"),
            ["missing_text"]
        );
        assert_eq!(
            codes("pivot: true,", "pivot: true, undo: { operation: x, title: { zh: x, en: x } },"),
            ["undoes_pivot"]
        );
        assert_eq!(codes("- { id: bills,", "- { id: undo_hold,").first(), Some(&"unknown_step"));
        let twice = SHOP.replace("bills", UNDO);
        let found = crate::lint::lint("m", &twice, None).1;
        assert_eq!(found.iter().map(|p| p.code).collect::<Vec<_>>(), ["duplicate"]);
    }
}
