//! Holders' policies: what is taken in, what they decide, and how a new one is tried on what was asked before.

use crate::{
    Policy, PolicyError, Question, Trial,
    tests::{MINUTE_MS, World, name},
};
use model::*;
use std::sync::Arc;

const OPEN: &str = "permit (principal, action, resource);";

fn world() -> World {
    let mut w = World::new();
    w.roster.protocol = POLICY_PROTOCOL;
    w
}

fn set(version: u32, text: &str) -> Body {
    Body::SetPolicy(SetPolicy { version, text: text.into() })
}

impl World {
    fn asks(&mut self, tag: u8) -> Outcome {
        let case = self.open(tag);
        self.identify(case);
        let consent = self.consent(case);
        let ask = self.ask(case, "identity", Some(consent));
        self.submit("bureau", Body::Ask(ask)).1
    }
}

const FORBIDDEN: Outcome = Outcome::Refused(Refusal::PolicyForbids);

#[test]
fn a_holder_decides_over_its_own_resources_and_nobody_elses() {
    let mut w = world();
    assert_ne!(w.asks(1), FORBIDDEN, "without a policy everything else decides");
    w.accept("court", set(1, "forbid (principal, action, resource);"));
    assert_ne!(w.asks(2), FORBIDDEN, "the court holds nothing of this");
    w.accept("police", set(1, OPEN));
    assert_ne!(w.asks(3), FORBIDDEN);
    w.accept(
        "police",
        set(2, &format!("{OPEN} forbid (principal == Department::\"bureau\", action, resource);")),
    );
    assert_eq!(w.asks(4), FORBIDDEN);
    w.accept("police", set(3, "permit (principal == Department::\"court\", action, resource);"));
    assert_eq!(w.asks(5), FORBIDDEN, "what nothing permits is not permitted");
    w.accept("police", set(4, ""));
    assert_ne!(w.asks(6), FORBIDDEN, "taken back");
    w.refuse("police", set(4, OPEN), Refusal::WrongVersion);
}

#[test]
fn it_sees_what_is_asked_on_which_basis_how_surely_and_when() {
    let mut w = world();
    let mut version = 0;
    for (when, holds) in [
        ("context.matter == \"sale\" && context.step == \"identity\"", true),
        ("resource == Resource::\"police.identity\"", true),
        ("context.basis == \"consent\" && context.approval == \"\"", true),
        ("context.basis == \"statutory\"", false),
        ("context.names.contains(\"value\") && !context.predicate", true),
        ("context.names == [\"value\"]", true),
        ("context.assurance == \"substantial\"", true),
        ("context.assurance == \"high\"", false),
        ("resource.sensitivity >= 2 && resource.share == \"conditional\"", true),
        ("context.calls_in_case == 0 && context.attempt == 0", true),
        ("context.hour >= 0 && context.hour <= 23", true),
    ] {
        version += 1;
        w.accept("police", set(version, &format!("permit (principal, action, resource) when {{ {when} }};")));
        assert_eq!(w.asks(version as u8) != FORBIDDEN, holds, "{when}");
    }
    // the third of a day is one too many
    w.accept(
        "police",
        set(version + 1, "permit (principal, action, resource) when { context.calls_today < 2 };"),
    );
    w.time_ms += 86_400_000;
    let outcomes: Vec<_> = (100..103).map(|tag| w.asks(tag) == FORBIDDEN).collect();
    assert_eq!(outcomes, [false, false, true]);
}

#[test]
fn what_is_no_policy_or_too_large_for_some_node_is_refused_by_all() {
    let mut w = world();
    let deep =
        format!("permit (principal, action, resource) when {{ {}true{} }};", "(".repeat(17), ")".repeat(17));
    let long = format!("permit (principal, action, resource) when {{ true{} }};", " && true".repeat(65));
    let hidden = format!(
        "// ( ; \" \npermit (principal, action, resource) when {{ \"a;\\\"(\" == \"b\"{} }};",
        " || true".repeat(65)
    );
    let many = "forbid (principal, action, resource);".repeat(65);
    let huge = format!("{OPEN}//{}", "x".repeat(POLICY_BYTES_MAX));
    for text in [deep, long, hidden, many, huge] {
        assert!(matches!(Policy::parse(&text), Err(PolicyError::TooLarge(_))), "{text:.80}");
        w.refuse("police", set(1, &text), Refusal::UnfitPolicy);
    }
    for text in
        ["permit", "permit (principal, action, resource) when { 1 };", "null", "((((((((((((", "\u{0}"]
    {
        assert!(
            matches!(Policy::parse(text), Err(PolicyError::Syntax(_) | PolicyError::Invalid(_))),
            "{text}"
        );
        w.refuse("police", set(1, text), Refusal::UnfitPolicy);
    }
    for text in [
        " ",
        "permit (principal == ?principal, action, resource);",
        "permit (principal, action == Action::\"tell\", resource);",
        "permit (principal, action, resource) when { context.subject == \"11010519491231002X\" };",
        "permit (principal, action, resource) when { context.hour == \"noon\" };",
        "permit (principal is Person, action, resource);",
    ] {
        assert!(Policy::parse(text).is_err(), "{text}");
        w.refuse("police", set(1, text), Refusal::UnfitPolicy);
    }
    // as large as one may be, it is read and evaluated on the stack of any thread
    let largest: String = (0..28)
        .map(|i| {
            format!(
                "permit (principal, action, resource) when {{ context.hour == {i}{} }};",
                " || true".repeat(62)
            )
        })
        .collect();
    let small_stack = std::thread::Builder::new().stack_size(1 << 20);
    let said = small_stack.spawn(move || Policy::parse(&largest).map(|p| p.decide(&question()))).unwrap();
    let said = said.join().unwrap().unwrap();
    assert!(said.allowed && said.because.len() == 28);
}

fn question() -> Question {
    Question {
        asker: name("bureau"),
        holder: name("police"),
        resource: name("police.identity"),
        share: "conditional",
        sensitivity: 2,
        matter: name("sale"),
        step: name("identity"),
        basis: "consent",
        approval: String::new(),
        names: vec![name("value")],
        predicate: false,
        assurance: "high",
        attempt: 0,
        calls_today: 0,
        calls_in_case: 0,
        hour: 9,
        working_day: true,
    }
}

#[test]
fn what_cannot_be_evaluated_forbids() {
    let mut w = world();
    let overflows = format!(
        "{OPEN} forbid (principal, action, resource) when {{ context.hour + 9223372036854775807 + 1 > 0 }};"
    );
    w.accept("police", set(1, &overflows));
    assert_eq!(w.asks(1), FORBIDDEN, "Cedar leaves such a policy out, and here it would have forbidden");
}

#[test]
fn a_new_policy_is_tried_on_what_was_asked_and_changes_nothing() {
    let mut w = world();
    let policy = Policy::parse(
        "permit (principal, action, resource); @id(\"not-twice\") forbid (principal, action, resource) when { context.calls_today > 0 };",
    );
    let trial = Arc::new(Trial::of(name("police"), policy.unwrap()));
    w.rules.trial = Some(trial.clone());
    assert_ne!(w.asks(1), FORBIDDEN);
    assert_ne!(w.asks(2), FORBIDDEN);
    let found: Vec<_> =
        trial.found().into_iter().map(|(_, t)| (t.allowed, t.would.allowed, t.would.because)).collect();
    let because = |id: &str| vec![id.to_owned()];
    assert_eq!(found, [(true, true, because("policy0")), (true, false, because("not-twice"))]);
}

#[test]
fn a_ledger_of_earlier_rules_knows_no_policies() {
    let w = World::new();
    let command = Command {
        chain: w.rules.chain,
        signer: name("police"),
        nonce: 1,
        expires_ms: w.time_ms + MINUTE_MS,
        body: set(1, OPEN),
    };
    let signed = crypto::signed(&w.keys["police"].keys.command, command);
    let roster = Roster { protocol: POLICY_PROTOCOL - 1, ..w.roster.clone() };
    assert!(w.rules.admit(&roster, &signed).is_none());
}
