//! What is done before the pivot is undone where a case ends there, and only there.

use crate::{
    HeldRecord, Key,
    tests::{MINUTE_MS, World, name, text},
};
use model::*;

/// A world whose matter holds a name before its pivot `transfer`, and lets it go.
fn world(declared: bool) -> World {
    let mut w = World::new();
    w.roster.protocol = UNDO_PROTOCOL;
    let act = |step: &str, by: &str| (name(step), name(by), name(step));
    let matter = PublishMatter {
        id: name("sale"),
        version: 2,
        title: text("sale"),
        package: Digest([2; 32]),
        needs: vec![],
        actions: vec![
            act("hold", "registry"),
            act("release", "registry"),
            act("transfer", "registry"),
            act("notify", "police"),
        ],
    };
    w.accept("bureau", Body::PublishMatter(matter));
    if declared {
        w.accept("bureau", declare(&[("hold", "release")]));
    }
    w
}

fn declare(pairs: &[(&str, &str)]) -> Body {
    let acts = pairs.iter().map(|(act, by)| Undo { act: name(act), by: name(by) }).collect();
    Body::DeclareUndo(DeclareUndo { matter: name("sale"), version: 2, acts })
}

impl World {
    fn sale(&mut self) -> CaseId {
        let party =
            Party { role: name("seller"), pseudonym: Pseudonym([7; 32]), subject: Commitment([8; 32]) };
        let tag = Digest([self.height as u8; 32]);
        let open = OpenCase { matter: name("sale"), version: 2, tag, parties: vec![party] };
        CaseId(self.accept("bureau", Body::OpenCase(open)).0)
    }

    fn request(&self, case: CaseId, step: &str) -> Body {
        Body::RequestAction(RequestAction {
            case,
            step: name(step),
            parameters: Commitment([1; 32]),
            sealed: Digest([2; 32]),
            report_by_ms: self.time_ms + MINUTE_MS,
        })
    }

    /// A consent of somebody who is no party.
    fn consent_to_nothing(&self, case: CaseId) -> Body {
        let terms = ConsentTerms {
            chain: self.rules.chain,
            case,
            role: name("nobody"),
            subject: Commitment([9; 32]),
            items: vec![],
            language: Language::Chinese,
            text: Digest([0; 32]),
            expires_ms: self.time_ms + MINUTE_MS,
            nonce: 0,
        };
        Body::GiveConsent(GiveConsent { terms, signature: [0; 64] })
    }

    fn held(&self, case: CaseId) -> (u32, bool) {
        let held: HeldRecord = self.record(&Key::Held(case)).unwrap_or_default();
        (held.acts, held.undoing)
    }

    /// An action that is requested and reported as done.
    fn done(&mut self, case: CaseId, step: &str) -> CommandId {
        let action = self.accept("bureau", self.request(case, step));
        self.accept("registry", report(action, None));
        action
    }
}

fn report(action: CommandId, failure: Option<&str>) -> Body {
    let failure = failure.map(name);
    Body::ReportAction(ReportAction { action: ActionId(action.0), failure, result: Commitment([3; 32]) })
}

fn settle(case: CaseId, outcome: CaseOutcome) -> Body {
    Body::SettleCase(SettleCase { case, outcome, step: name("hold"), reason: Commitment([1; 32]) })
}

#[test]
fn what_is_held_is_let_go_before_the_case_is_withdrawn_or_refused() {
    let mut w = world(true);
    let case = w.sale();
    w.refuse("bureau", w.request(case, "release"), Refusal::WrongState);
    w.done(case, "hold");
    assert_eq!(w.held(case), (1, false));
    for outcome in [CaseOutcome::Withdrawn, CaseOutcome::Refused] {
        w.refuse("bureau", settle(case, outcome), Refusal::WrongState);
    }
    // a person's adverse decision comes first, and what is held does not stand against it
    let decide = Decide {
        case,
        step: name("review"),
        rule: Digest([4; 32]),
        inputs: vec![],
        passed: false,
        reason: Commitment([5; 32]),
        adverse: true,
        confirmed_by: Some(Commitment([6; 32])),
    };
    w.accept("bureau", Body::Decide(decide));
    w.refuse("bureau", w.consent_to_nothing(case), Refusal::WrongParty);
    let undoing = w.accept("bureau", w.request(case, "release"));
    // nobody is asked to agree to anything any more
    w.refuse("bureau", w.consent_to_nothing(case), Refusal::WrongState);
    // from now on nothing else is done, and the case ends in no other way
    for step in ["transfer", "notify"] {
        w.refuse("bureau", w.request(case, step), Refusal::WrongState);
    }
    w.refuse("bureau", settle(case, CaseOutcome::Closed), Refusal::WrongState);
    w.refuse("bureau", settle(case, CaseOutcome::Refused), Refusal::WrongState);
    // it fails: a person looks at it, and it is requested again
    w.accept("registry", report(undoing, Some("row_count")));
    w.refuse("bureau", settle(case, CaseOutcome::Refused), Refusal::WrongState);
    w.accept("bureau", settle(case, CaseOutcome::NeedsHuman));
    w.done(case, "release");
    assert_eq!(w.held(case), (0, true));
    w.refuse("bureau", w.request(case, "hold"), Refusal::AlreadyUsed);
    w.refuse("bureau", w.request(case, "release"), Refusal::AlreadyUsed);
    w.accept("bureau", settle(case, CaseOutcome::Refused));
}

#[test]
fn after_the_pivot_nothing_is_undone() {
    let mut w = world(true);
    let case = w.sale();
    w.done(case, "hold");
    let transfer = w.accept("bureau", w.request(case, "transfer"));
    w.refuse("bureau", w.request(case, "release"), Refusal::WrongState);
    // it failed, so that nothing was done that stays
    w.accept("registry", report(transfer, Some("row_count")));
    w.done(case, "transfer");
    w.refuse("bureau", w.request(case, "release"), Refusal::WrongState);
    w.refuse("bureau", settle(case, CaseOutcome::Withdrawn), Refusal::WrongState);
    w.accept("bureau", settle(case, CaseOutcome::Closed));
}

#[test]
fn an_act_that_failed_holds_nothing() {
    let mut w = world(true);
    let case = w.sale();
    let hold = w.accept("bureau", w.request(case, "hold"));
    w.refuse("bureau", settle(case, CaseOutcome::Withdrawn), Refusal::WrongState);
    w.refuse("bureau", w.request(case, "release"), Refusal::WrongState);
    w.accept("registry", report(hold, Some("refused_by_source")));
    assert_eq!(w.held(case), (0, false));
    w.refuse("bureau", w.request(case, "release"), Refusal::WrongState);
    w.accept("bureau", settle(case, CaseOutcome::Withdrawn));
}

#[test]
fn what_was_done_before_the_declaration_stays_as_it_was() {
    let mut w = world(false);
    let case = w.sale();
    let hold = w.accept("bureau", w.request(case, "hold"));
    w.accept("bureau", declare(&[("hold", "release")]));
    w.refuse("bureau", settle(case, CaseOutcome::Withdrawn), Refusal::WrongState);
    w.accept("registry", report(hold, None));
    w.refuse("bureau", w.request(case, "release"), Refusal::WrongState);
    w.refuse("bureau", settle(case, CaseOutcome::Withdrawn), Refusal::WrongState);
    // and so does what undoes it
    let mut w = world(false);
    let case = w.sale();
    let release = w.accept("bureau", w.request(case, "release"));
    w.accept("bureau", declare(&[("hold", "release")]));
    w.accept("registry", report(release, Some("row_count")));
    w.accept("bureau", settle(case, CaseOutcome::Withdrawn));
    let other = w.sale();
    let hold = w.accept("bureau", w.request(other, "hold"));
    w.accept("registry", report(hold, Some("row_count")));
    w.accept("bureau", settle(other, CaseOutcome::Withdrawn));
}

#[test]
fn only_pairs_of_one_department_are_declared_once_by_the_handler() {
    let mut w = world(false);
    w.refuse("registry", declare(&[("hold", "release")]), Refusal::NotYours);
    for (pairs, why) in [
        (&[][..], Refusal::WrongShape),
        (&[("hold", "hold")][..], Refusal::WrongShape),
        (&[("hold", "notify")][..], Refusal::WrongShape),
        (&[("hold", "release"), ("transfer", "release")][..], Refusal::WrongShape),
        (&[("hold", "release"), ("release", "transfer")][..], Refusal::WrongShape),
        (&[("hold", "nothing")][..], Refusal::UndeclaredStep),
    ] {
        w.refuse("bureau", declare(pairs), why);
    }
    w.accept("bureau", declare(&[("hold", "release")]));
    w.refuse("bureau", declare(&[("hold", "release")]), Refusal::AlreadyUsed);
    // before protocol 6 there is no such command
    let roster = Roster { protocol: UNDO_PROTOCOL - 1, ..w.roster.clone() };
    let command = Command {
        chain: w.rules.chain,
        signer: name("bureau"),
        nonce: 99_999,
        expires_ms: w.time_ms + MINUTE_MS,
        body: declare(&[("hold", "release")]),
    };
    let signed = crypto::signed(&w.keys["bureau"].keys.command, command);
    assert!(w.rules.admit(&roster, &signed).is_none() && w.rules.admit(&w.roster, &signed).is_some());
}
