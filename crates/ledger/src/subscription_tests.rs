//! Subscriptions: to what, for how long, and what they let be asked.

use crate::{
    Key, SubscriptionRecord,
    tests::{MINUTE_MS, World, name},
};
use model::*;

const DAY_MS: u64 = 86_400_000;

/// A world in which the answers of two steps may be subscribed to: one on consent, one on a statutory duty.
fn world() -> World {
    let mut w = World::new();
    w.roster.protocol = SUBSCRIPTION_PROTOCOL;
    w.accept("bureau", declare(&[("identity", 5), ("check", 5)]));
    let approval = ApproveBasis {
        id: name("duty"),
        asker: name("bureau"),
        matter: name("sale"),
        resource: name("registry.deed"),
        names: vec![name("value")],
        citation: "law, article 22".into(),
        expires_ms: w.time_ms + 3 * DAY_MS,
    };
    w.accept("registry", Body::ApproveBasis(approval));
    w
}

fn declare(steps: &[(&str, u32)]) -> Body {
    // what is asked on consent outlasts the case, what is asked on a duty does not
    let of = |(step, days): &(&str, u32)| Subscribable {
        step: name(step),
        days: *days,
        after_end: *step == "identity",
    };
    let steps = steps.iter().map(of).collect();
    Body::DeclareSubscriptions(DeclareSubscriptions { matter: name("sale"), version: 1, steps })
}

fn subscribe(call: CommandId, until_ms: u64) -> Body {
    Body::Subscribe(Subscribe { call: CallId(call.0), until_ms })
}

fn note(subscription: CommandId, number: u32) -> Body {
    Body::NoteChange(NoteChange { subscription: SubscriptionId(subscription.0), number })
}

fn end(subscription: CommandId) -> Body {
    Body::EndSubscription(EndSubscription { subscription: SubscriptionId(subscription.0) })
}

fn settle(case: CaseId, outcome: CaseOutcome) -> Body {
    Body::SettleCase(SettleCase { case, outcome, step: name("identity"), reason: Commitment([1; 32]) })
}

impl World {
    fn confirm(&mut self, call: CommandId) {
        self.accept("bureau", Body::Confirm(Confirm { call: CallId(call.0), dispute: None }));
    }

    /// A case with an opened call on consent.
    fn opened(&mut self) -> (CaseId, ConsentId, CommandId) {
        let (case, consent, call) = self.granted();
        self.accept("police", World::answer(call));
        self.confirm(call);
        (case, consent, call)
    }

    fn again(&self, case: CaseId, consent: ConsentId, attempt: u32) -> Body {
        Body::Ask(Ask { attempt, ..self.ask(case, "identity", Some(consent)) })
    }
}

#[test]
fn a_change_lets_one_call_be_made_and_each_change_is_told_once() {
    let mut w = world();
    let (case, consent, call) = w.opened();
    let until = w.time_ms + 20 * MINUTE_MS;
    let subscription = w.accept("bureau", subscribe(call, until));
    w.refuse("bureau", subscribe(call, until), Refusal::AlreadyUsed);
    w.refuse("bureau", w.again(case, consent, 1), Refusal::AlreadyUsed);
    w.refuse("registry", note(subscription, 1), Refusal::NotYours);
    w.refuse("police", note(subscription, 2), Refusal::AlreadyUsed);
    w.accept("police", note(subscription, 1));
    w.refuse("police", note(subscription, 1), Refusal::AlreadyUsed);
    let second = w.accept("bureau", w.again(case, consent, 1));
    w.refuse("bureau", w.again(case, consent, 2), Refusal::AlreadyUsed);
    w.accept("police", World::answer(second));
    w.confirm(second);
    let record: SubscriptionRecord = w.record(&Key::Subscription(SubscriptionId(subscription.0))).unwrap();
    assert_eq!((record.changes, record.consent), (1, Some(consent)));
}

#[test]
fn it_outlasts_its_case_and_every_call_is_still_counted() {
    let mut w = world();
    let (case, consent, call) = w.opened();
    let subscription = w.accept("bureau", subscribe(call, w.time_ms + 20 * MINUTE_MS));
    w.accept("bureau", settle(case, CaseOutcome::Closed));
    w.accept("police", note(subscription, 1));
    let second = w.accept("bureau", w.again(case, consent, 1));
    w.accept("police", World::answer(second));
    w.confirm(second);
    w.refuse("police", Body::CountCase(CountCase { case }), Refusal::NotYours);
    let counted = w.submit("bureau", Body::CountCase(CountCase { case })).1;
    assert_eq!(counted, Outcome::Accepted(Fact::Settled(2, 0)));
    // other steps of the case stay closed
    let other = w.ask(case, "own", None);
    w.refuse("bureau", Body::Ask(other), Refusal::CaseClosed);
    w.time_ms += 21 * MINUTE_MS;
    w.refuse("police", note(subscription, 2), Refusal::UnknownSubscription);
    w.refuse("bureau", w.again(case, consent, 2), Refusal::CaseClosed);
}

#[test]
fn a_case_that_was_refused_or_withdrawn_ends_it() {
    let mut w = world();
    let (case, consent, call) = w.opened();
    let subscription = w.accept("bureau", subscribe(call, w.time_ms + 20 * MINUTE_MS));
    w.accept("bureau", settle(case, CaseOutcome::Withdrawn));
    w.refuse("police", note(subscription, 1), Refusal::CaseClosed);
    w.refuse("bureau", w.again(case, consent, 1), Refusal::CaseClosed);
}

#[test]
fn it_lasts_no_longer_than_what_it_rests_on() {
    let mut w = world();
    let (case, consent, call) = w.opened();
    w.refuse("police", subscribe(call, w.time_ms + MINUTE_MS), Refusal::NotYours);
    w.refuse("bureau", subscribe(call, w.time_ms), Refusal::TooLate);
    w.refuse("bureau", subscribe(call, w.time_ms + 6 * DAY_MS), Refusal::TooLate);
    w.refuse("bureau", subscribe(call, w.time_ms + DAY_MS), Refusal::ConsentExpired);
    let subscription = w.accept("bureau", subscribe(call, w.time_ms + 20 * MINUTE_MS));
    w.withdraw(consent);
    w.refuse("police", note(subscription, 1), Refusal::ConsentWithdrawn);
    w.refuse("bureau", subscribe(call, w.time_ms + MINUTE_MS), Refusal::ConsentWithdrawn);
    let _ = case;
}

#[test]
fn a_withdrawal_between_the_change_and_its_answer_holds_the_answer_back() {
    let mut w = world();
    let (case, consent, call) = w.opened();
    let subscription = w.accept("bureau", subscribe(call, w.time_ms + 20 * MINUTE_MS));
    w.accept("police", note(subscription, 1));
    let second = w.accept("bureau", w.again(case, consent, 1));
    w.withdraw(consent);
    w.refuse("police", World::answer(second), Refusal::ConsentWithdrawn);
}

#[test]
fn one_on_a_statutory_duty_ends_with_the_approval() {
    let mut w = world();
    let case = w.open(2);
    let first = w.ask(case, "check", None);
    let call = w.accept("bureau", Body::Ask(first));
    w.refuse("bureau", subscribe(call, w.time_ms + DAY_MS), Refusal::WrongState);
    w.accept("registry", World::answer(call));
    w.confirm(call);
    w.refuse("bureau", subscribe(call, w.time_ms + 4 * DAY_MS), Refusal::BasisNotApproved);
    let subscription = w.accept("bureau", subscribe(call, w.time_ms + DAY_MS));
    w.accept("registry", note(subscription, 1));
    let revoke = RevokeBasis { id: name("duty"), note: "no longer".into() };
    w.accept("registry", Body::RevokeBasis(revoke));
    let again = Ask { attempt: 1, ..w.ask(case, "check", None) };
    w.refuse("bureau", Body::Ask(again), Refusal::BasisNotApproved);
}

#[test]
fn what_was_not_declared_to_outlast_its_case_ends_with_it() {
    let mut w = world();
    let case = w.open(2);
    let first = w.ask(case, "check", None);
    let call = w.accept("bureau", Body::Ask(first));
    w.accept("registry", World::answer(call));
    w.confirm(call);
    let subscription = w.accept("bureau", subscribe(call, w.time_ms + DAY_MS));
    w.accept("registry", note(subscription, 1));
    w.accept("bureau", settle(case, CaseOutcome::Closed));
    w.refuse("registry", note(subscription, 2), Refusal::CaseClosed);
    let again = Ask { attempt: 1, ..w.ask(case, "check", None) };
    w.refuse("bureau", Body::Ask(again), Refusal::CaseClosed);
}

#[test]
fn either_side_ends_it_and_then_another_may_begin() {
    let mut w = world();
    let (case, consent, call) = w.opened();
    let until = w.time_ms + 20 * MINUTE_MS;
    let subscription = w.accept("bureau", subscribe(call, until));
    w.refuse("registry", end(subscription), Refusal::NotYours);
    w.accept("police", end(subscription));
    w.refuse("bureau", end(subscription), Refusal::UnknownSubscription);
    w.refuse("police", note(subscription, 1), Refusal::UnknownSubscription);
    w.refuse("bureau", w.again(case, consent, 1), Refusal::AlreadyUsed);
    w.accept("bureau", subscribe(call, until));
}

#[test]
fn only_what_the_handler_declared_before_the_consent_can_be_subscribed_to() {
    let mut w = World::new();
    w.roster.protocol = SUBSCRIPTION_PROTOCOL;
    let (_, _, call) = w.opened();
    let until = w.time_ms + 10 * MINUTE_MS;
    w.refuse("bureau", subscribe(call, until), Refusal::UndeclaredStep);
    w.refuse("court", declare(&[("identity", 5)]), Refusal::NotYours);
    for (steps, why) in [
        (&[][..], Refusal::WrongShape),
        (&[("identity", 0)], Refusal::WrongShape),
        (&[("identity", SUBSCRIPTION_DAYS_MAX + 1)], Refusal::WrongShape),
        (&[("identity", 5), ("identity", 6)], Refusal::WrongShape),
        (&[("transfer", 5)], Refusal::UndeclaredStep),
        (&[("own", 5)], Refusal::UndeclaredStep),
    ] {
        w.refuse("bureau", declare(steps), why);
    }
    w.accept("bureau", declare(&[("identity", 5)]));
    w.refuse("bureau", declare(&[("identity", 6)]), Refusal::AlreadyUsed);
    w.refuse("bureau", subscribe(call, until), Refusal::NoConsent);
}

#[test]
fn a_ledger_of_earlier_rules_knows_no_subscriptions() {
    let w = World::new();
    let roster = Roster { protocol: SUBSCRIPTION_PROTOCOL - 1, ..w.roster.clone() };
    let signed = crypto::signed(
        &w.keys["bureau"].keys.command,
        Command {
            chain: w.rules.chain,
            signer: name("bureau"),
            nonce: 1,
            expires_ms: w.time_ms + MINUTE_MS,
            body: declare(&[("identity", 5)]),
        },
    );
    assert!(w.rules.admit(&roster, &signed).is_none());
}
