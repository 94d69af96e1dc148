//! The rules, command by command, on an overlay that knows everything it is asked.

use crate::{BlockContext, CONFIRM_WITHIN_MS, Overlay, Rules};
use crypto::{Credentials, SigningKey};
use model::*;
use std::collections::BTreeMap;

const START_MS: u64 = 1_790_000_000_000;
pub(crate) const MINUTE_MS: u64 = 60_000;

pub(crate) struct World {
    pub(crate) rules: Rules,
    pub(crate) keys: BTreeMap<&'static str, Credentials>,
    pub(crate) roster: Roster,
    pub(crate) state: BTreeMap<Digest, Vec<u8>>,
    pub(crate) height: u64,
    pub(crate) time_ms: u64,
    nonce: u64,
    /// How often the last command was applied again because records were missing.
    pub(crate) rounds: u32,
    terminal: SigningKey,
    device: SigningKey,
}

pub(crate) fn name<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(crate) fn text(t: &str) -> Text {
    Text { zh: t.into(), en: t.into() }
}

impl World {
    /// A bureau, a registry and a police that published what a small matter needs.
    pub(crate) fn new() -> Self {
        Self::of(Suite::International)
    }

    pub(crate) fn of(suite: Suite) -> Self {
        let ids = ["bureau", "court", "police", "registry"];
        let keys: BTreeMap<_, _> = ids.into_iter().map(|id| (id, Credentials::random(suite))).collect();
        let member =
            |(id, k): (&&str, &Credentials)| k.member(name(id), text(id), true, "127.0.0.1:1".into());
        let genesis = Genesis {
            format: 1,
            name: "test".into(),
            suite,
            time_ms: START_MS,
            epoch_blocks: 1000,
            protocol: 1,
            approvals: 3,
            members: keys.iter().map(member).collect(),
        };
        genesis.check().unwrap();
        let mut world = Self {
            roster: genesis.roster(),
            rules: Rules::of(genesis),
            keys,
            state: BTreeMap::new(),
            height: 0,
            time_ms: START_MS,
            nonce: 0,
            rounds: 0,
            terminal: SigningKey::random(suite),
            device: SigningKey::random(suite),
        };
        world.accept("registry", Body::PublishResource(world.resource("registry.deed", "registry")));
        world.accept("police", Body::PublishResource(world.resource("police.identity", "police")));
        let key = world.terminal.public();
        world.accept("bureau", Body::EnrolTerminal(EnrolTerminal { key, active: true }));
        let need = |step: &str, holder: &str, resource: &str, basis| Need {
            step: name(step),
            party: name("seller"),
            recipient: name("bureau"),
            holder: name(holder),
            resource: name(resource),
            what: What::Fields(vec![name("value")]),
            basis,
            purpose: text("why"),
        };
        let matter = PublishMatter {
            id: name("sale"),
            version: 1,
            title: text("sale"),
            package: Digest([1; 32]),
            needs: vec![
                need("own", "registry", "registry.deed", NeedBasis::SelfAccess),
                need("identity", "police", "police.identity", NeedBasis::Consent),
                need("check", "registry", "registry.deed", NeedBasis::Statutory(name("duty"))),
            ],
            actions: vec![(name("transfer"), name("registry"), name("transfer"))],
        };
        world.accept("bureau", Body::PublishMatter(matter));
        world
    }

    fn resource(&self, id: &str, holder: &str) -> Resource {
        Resource {
            id: name(id),
            version: 1,
            title: text(id),
            holder: name(holder),
            officer: "officer".into(),
            subject: SubjectKind::Person,
            share: ShareClass::Conditional,
            basis: "law".into(),
            standard: "standard".into(),
            update: "daily".into(),
            fields: vec![Field {
                id: name("value"),
                element: name("element"),
                title: text("value"),
                sensitivity: 2,
            }],
            predicates: vec![],
        }
    }

    pub(crate) fn submit(&mut self, signer: &str, body: Body) -> (CommandId, Outcome) {
        self.nonce += 1;
        self.height += 1;
        self.time_ms += 10;
        let command = Command {
            chain: self.rules.chain,
            signer: name(signer),
            nonce: self.nonce,
            expires_ms: self.time_ms + MINUTE_MS,
            body,
        };
        let signed = crypto::signed(&self.keys[signer].keys.command, command);
        assert!(self.rules.admit(&self.roster, &signed).is_some());
        let id = crypto::command_id(&signed);
        let mut overlay = Overlay::new(self.rules.suite());
        let block = BlockContext { height: self.height, time_ms: self.time_ms, roster: &self.roster };
        let mut rounds = 0;
        let outcome = loop {
            match self.rules.apply(&mut overlay, block, 0, id, &signed.command) {
                Ok(outcome) => break outcome,
                Err(missing) => {
                    rounds += 1;
                    for key in missing.0.iter().map(|key| key.digest(self.rules.suite())) {
                        overlay.insert(key, self.state.get(&key).cloned());
                    }
                }
            }
        };
        self.rounds = rounds;
        self.state.extend(overlay.into_writes());
        (id, outcome)
    }

    pub(crate) fn record<T: borsh::BorshDeserialize>(&self, key: &crate::Key) -> Option<T> {
        self.state.get(&key.digest(self.rules.suite())).map(|bytes| decode(bytes).unwrap())
    }

    pub(crate) fn accept(&mut self, signer: &str, body: Body) -> CommandId {
        let (id, outcome) = self.submit(signer, body);
        assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
        id
    }

    #[track_caller]
    pub(crate) fn refuse(&mut self, signer: &str, body: Body, why: Refusal) {
        assert_eq!(self.submit(signer, body).1, Outcome::Refused(why));
    }

    fn subject() -> Commitment {
        Commitment([9; 32])
    }

    pub(crate) fn open(&mut self, tag: u8) -> CaseId {
        CaseId(self.accept("bureau", Body::OpenCase(self.open_case(tag))).0)
    }

    fn open_case(&self, tag: u8) -> OpenCase {
        let party = Party { role: name("seller"), pseudonym: Pseudonym([8; 32]), subject: Self::subject() };
        OpenCase { matter: name("sale"), version: 1, tag: Digest([tag; 32]), parties: vec![party] }
    }

    fn assertion(&self, case: CaseId) -> Assertion {
        Assertion {
            chain: self.rules.chain,
            case,
            role: name("seller"),
            subject: Self::subject(),
            method: IdentityMethod::Passkey,
            level: AssuranceLevel::Substantial,
            terminal: self.terminal.public(),
            signer: self.device.public(),
            at_ms: self.time_ms,
            nonce: 1,
        }
    }

    pub(crate) fn identify(&mut self, case: CaseId) {
        let assertion = self.assertion(case);
        let signature = self.terminal.sign(&assertion.signing_bytes());
        self.accept("bureau", Body::Identify(Identify { assertion, signature }));
    }

    fn terms(&self, case: CaseId) -> ConsentTerms {
        ConsentTerms {
            chain: self.rules.chain,
            case,
            role: name("seller"),
            subject: Self::subject(),
            items: vec![ConsentItem {
                step: name("identity"),
                recipient: name("bureau"),
                holder: name("police"),
                resource: name("police.identity"),
                what: What::Fields(vec![name("value")]),
            }],
            language: Language::Chinese,
            text: Digest([3; 32]),
            expires_ms: self.time_ms + 30 * MINUTE_MS,
            nonce: 1,
        }
    }

    pub(crate) fn consent(&mut self, case: CaseId) -> ConsentId {
        let terms = self.terms(case);
        let signature = self.device.sign(&terms.signing_bytes());
        ConsentId(self.accept("bureau", Body::GiveConsent(GiveConsent { terms, signature })).0)
    }

    pub(crate) fn ask(&self, case: CaseId, step: &str, consent: Option<ConsentId>) -> Ask {
        Ask {
            case,
            step: name(step),
            attempt: 0,
            consent,
            subject: Commitment([4; 32]),
            sealed: Digest([5; 32]),
            answer_by_ms: self.time_ms + 10 * MINUTE_MS,
        }
    }

    pub(crate) fn withdraw(&mut self, consent: ConsentId) {
        let signature = self.device.sign(&WithdrawConsent::signing_bytes(self.rules.chain, consent));
        self.accept("bureau", Body::WithdrawConsent(WithdrawConsent { consent, signature }));
    }

    pub(crate) fn answer(call: CommandId) -> Body {
        let reply =
            Reply::Data { commitments: vec![Commitment([6; 32])], payload: Digest([7; 32]), as_of_ms: 1 };
        Body::Answer(Answer { call: CallId(call.0), reply })
    }

    /// A call of the consent's that waits for its answer.
    pub(crate) fn granted(&mut self) -> (CaseId, ConsentId, CommandId) {
        let case = self.open(1);
        self.identify(case);
        let consent = self.consent(case);
        let call = self.accept("bureau", Body::Ask(self.ask(case, "identity", Some(consent))));
        (case, consent, call)
    }
}

#[test]
fn a_call_is_granted_answered_and_confirmed_once_each() {
    let mut w = World::new();
    let (case, consent, call) = w.granted();
    let again = w.ask(case, "identity", Some(consent));
    w.refuse("bureau", Body::Ask(again), Refusal::AlreadyUsed);
    w.refuse("registry", World::answer(call), Refusal::NotYours);
    w.accept("police", World::answer(call));
    w.refuse("police", World::answer(call), Refusal::WrongState);
    let confirm = || Body::Confirm(Confirm { call: CallId(call.0), dispute: None });
    w.refuse("police", confirm(), Refusal::NotYours);
    w.accept("bureau", confirm());
    w.refuse("bureau", confirm(), Refusal::WrongState);
}

#[test]
fn an_answer_ordered_after_a_withdrawal_is_refused() {
    let mut w = World::new();
    let (case, consent, call) = w.granted();
    let message = WithdrawConsent::signing_bytes(w.rules.chain, consent);
    let forged = WithdrawConsent { consent, signature: w.terminal.sign(&message) };
    w.refuse("bureau", Body::WithdrawConsent(forged), Refusal::BadSignature);
    let signature = w.device.sign(&message);
    w.accept("bureau", Body::WithdrawConsent(WithdrawConsent { consent, signature }));
    w.refuse("police", World::answer(call), Refusal::ConsentWithdrawn);
    let later = w.ask(case, "identity", Some(consent));
    w.refuse("bureau", Body::Ask(later), Refusal::ConsentWithdrawn);
}

#[test]
fn silence_is_recorded_after_the_deadline_and_not_before() {
    let mut w = World::new();
    let (_, _, call) = w.granted();
    w.accept("police", World::answer(call));
    let lapse = || Body::Lapse(Lapse { call: CallId(call.0) });
    w.refuse("police", lapse(), Refusal::TooEarly);
    w.time_ms += CONFIRM_WITHIN_MS;
    w.refuse("bureau", Body::Confirm(Confirm { call: CallId(call.0), dispute: None }), Refusal::TooLate);
    w.accept("police", lapse());
    w.refuse("police", lapse(), Refusal::WrongState);
}

#[test]
fn a_dispute_and_a_declined_call_may_be_tried_again() {
    let mut w = World::new();
    let (case, consent, call) = w.granted();
    w.accept("police", World::answer(call));
    let dispute = Some(Commitment([2; 32]));
    w.accept("bureau", Body::Confirm(Confirm { call: CallId(call.0), dispute }));
    let wrong = w.ask(case, "identity", Some(consent));
    w.refuse("bureau", Body::Ask(wrong), Refusal::AlreadyUsed);
    let again = Ask { attempt: 1, ..w.ask(case, "identity", Some(consent)) };
    let call = w.accept("bureau", Body::Ask(again));
    let reply = Reply::Declined(name("not_found"));
    w.accept("police", Body::Answer(Answer { call: CallId(call.0), reply }));
    let third = Ask { attempt: 2, ..w.ask(case, "identity", Some(consent)) };
    w.accept("bureau", Body::Ask(third));
}

#[test]
fn a_case_that_rests_goes_on_and_repeats_only_what_is_named_and_only_once() {
    let mut w = World::new();
    let (case, consent, call) = w.granted();
    w.accept("police", World::answer(call));
    let confirm = Confirm { call: CallId(call.0), dispute: None };
    w.accept("bureau", Body::Confirm(confirm));
    let decide = |passed: bool| {
        Body::Decide(Decide {
            case,
            step: name("review"),
            rule: Digest([1; 32]),
            inputs: vec![],
            passed,
            reason: Commitment([1; 32]),
            adverse: false,
            confirmed_by: None,
        })
    };
    w.accept("bureau", decide(false));
    let resume = || {
        let again = vec![name("identity"), name("review")];
        Body::ResumeCase(ResumeCase { case, again, reason: Commitment([1; 32]) })
    };
    w.refuse("bureau", resume(), Refusal::WrongState);
    let parked =
        SettleCase { case, outcome: CaseOutcome::Parked, step: name("review"), reason: Commitment([1; 32]) };
    w.accept("bureau", Body::SettleCase(parked.clone()));
    w.refuse("police", resume(), Refusal::NotYours);
    w.accept("bureau", resume());
    // never two at once
    let retry = |w: &World, attempt| Body::Ask(Ask { attempt, ..w.ask(case, "identity", Some(consent)) });
    w.refuse("bureau", retry(&w, 0), Refusal::AlreadyUsed);
    let second = w.accept("bureau", retry(&w, 1));
    w.accept("police", World::answer(second));
    w.refuse("bureau", retry(&w, 2), Refusal::AlreadyUsed);
    w.accept("bureau", decide(true));
    w.refuse("bureau", decide(true), Refusal::AlreadyUsed);
    // one that repeats nothing is not counted: a case whose report came late goes on however often it was resumed
    for _ in 0..20 {
        w.accept("bureau", Body::SettleCase(parked.clone()));
        let nothing = ResumeCase { case, again: vec![], reason: Commitment([1; 32]) };
        w.accept("bureau", Body::ResumeCase(nothing));
    }
    // bounded, so that a consent is no standing permission
    for _ in 1..16 {
        w.accept("bureau", Body::SettleCase(parked.clone()));
        w.accept("bureau", resume());
    }
    w.accept("bureau", Body::SettleCase(parked.clone()));
    w.refuse("bureau", resume(), Refusal::WrongState);
    // a person's decision replaces the one a case rests on
    w.accept("bureau", decide(false));
}

#[test]
fn nothing_moves_without_its_basis() {
    let mut w = World::new();
    let case = w.open(1);
    w.refuse("bureau", Body::Ask(w.ask(case, "own", None)), Refusal::NotIdentified);
    w.refuse("bureau", Body::Ask(w.ask(case, "identity", None)), Refusal::NoConsent);
    w.refuse("bureau", Body::Ask(w.ask(case, "check", None)), Refusal::BasisNotApproved);
    w.refuse("police", Body::Ask(w.ask(case, "own", None)), Refusal::UndeclaredStep);
    w.refuse("bureau", Body::Ask(w.ask(case, "other", None)), Refusal::UndeclaredStep);
    w.refuse("bureau", Body::Ask(w.ask(CaseId([0; 32]), "own", None)), Refusal::UnknownCase);
    let approval = |signer_is_asker: bool| {
        Body::ApproveBasis(ApproveBasis {
            id: name("duty"),
            asker: name(if signer_is_asker { "registry" } else { "bureau" }),
            matter: name("sale"),
            resource: name("registry.deed"),
            names: vec![name("value")],
            citation: "law".into(),
            expires_ms: START_MS + 60 * MINUTE_MS,
        })
    };
    w.refuse("bureau", approval(false), Refusal::NotYours);
    w.refuse("registry", approval(true), Refusal::NotYours);
    w.accept("registry", approval(false));
    w.accept("bureau", Body::Ask(w.ask(case, "check", None)));
    w.time_ms += 120 * MINUTE_MS;
    let other = w.open(2);
    w.refuse("bureau", Body::Ask(w.ask(other, "check", None)), Refusal::BasisNotApproved);
}

#[test]
fn a_consent_of_one_case_or_person_serves_no_other() {
    let mut w = World::new();
    let (first, consent, _) = w.granted();
    let second = w.open(2);
    w.identify(second);
    w.refuse("bureau", Body::Ask(w.ask(second, "identity", Some(consent))), Refusal::NoConsent);
    // the same person's second consent in a case, a wrong signer, a wrong subject, an undeclared item
    let terms = w.terms(first);
    let signature = w.device.sign(&terms.signing_bytes());
    w.refuse("bureau", Body::GiveConsent(GiveConsent { terms, signature }), Refusal::ConsentRepeated);
    let terms = w.terms(second);
    let signature = w.terminal.sign(&terms.signing_bytes());
    w.refuse("bureau", Body::GiveConsent(GiveConsent { terms, signature }), Refusal::BadSignature);
    let terms = ConsentTerms { subject: Commitment([1; 32]), ..w.terms(second) };
    let signature = w.device.sign(&terms.signing_bytes());
    w.refuse("bureau", Body::GiveConsent(GiveConsent { terms, signature }), Refusal::WrongParty);
    let mut terms = w.terms(second);
    terms.items[0].recipient = name("court");
    let signature = w.device.sign(&terms.signing_bytes());
    w.refuse("bureau", Body::GiveConsent(GiveConsent { terms, signature }), Refusal::UndeclaredStep);
}

#[test]
fn only_an_enrolled_terminal_identifies_and_only_this_party() {
    let mut w = World::new();
    let case = w.open(1);
    let stranger = SigningKey::random(Suite::International);
    let assertion = Assertion { terminal: stranger.public(), ..w.assertion(case) };
    let signature = stranger.sign(&assertion.signing_bytes());
    w.refuse("bureau", Body::Identify(Identify { assertion, signature }), Refusal::UnknownTerminal);
    let assertion = Assertion { subject: Commitment([1; 32]), ..w.assertion(case) };
    let signature = w.terminal.sign(&assertion.signing_bytes());
    w.refuse("bureau", Body::Identify(Identify { assertion, signature }), Refusal::WrongParty);
    let assertion = Assertion { at_ms: w.time_ms - 60 * MINUTE_MS, ..w.assertion(case) };
    let signature = w.terminal.sign(&assertion.signing_bytes());
    w.refuse("bureau", Body::Identify(Identify { assertion, signature }), Refusal::Expired);
    let key = w.terminal.public();
    w.accept("bureau", Body::EnrolTerminal(EnrolTerminal { key, active: false }));
    let assertion = w.assertion(case);
    let signature = w.terminal.sign(&assertion.signing_bytes());
    w.refuse("bureau", Body::Identify(Identify { assertion, signature }), Refusal::UnknownTerminal);
}

#[test]
fn a_face_identifies_from_protocol_4_on_and_a_provider_from_8() {
    for (method, from) in [(IdentityMethod::Face, FACE_PROTOCOL), (IdentityMethod::Oidc, OIDC_PROTOCOL)] {
        a_method_identifies_from(method, from);
    }
}

fn a_method_identifies_from(method: IdentityMethod, from: u32) {
    let mut w = World::new();
    let case = w.open(1);
    let assertion = Assertion { method, ..w.assertion(case) };
    let signature = w.terminal.sign(&assertion.signing_bytes());
    let body = || Body::Identify(Identify { assertion: assertion.clone(), signature });
    let command =
        Command { chain: w.rules.chain, signer: name("bureau"), nonce: 1, expires_ms: 1, body: body() };
    let signed = crypto::signed(&w.keys["bureau"].keys.command, command);
    let roster = |protocol| Roster { protocol, ..w.roster.clone() };
    assert!(w.rules.admit(&roster(from - 1), &signed).is_none());
    assert!(w.rules.admit(&roster(from), &signed).is_some());
    w.roster.protocol = from;
    w.accept("bureau", body());
    w.refuse("bureau", body(), Refusal::AlreadyUsed);
}

#[test]
fn the_same_application_is_open_once_and_may_come_again_later() {
    let mut w = World::new();
    let case = w.open(1);
    let same = Body::OpenCase(w.open_case(1));
    w.refuse("bureau", same.clone(), Refusal::Duplicate);
    w.refuse("police", same.clone(), Refusal::NotYours);
    let settle = |outcome| {
        Body::SettleCase(SettleCase { case, outcome, step: name("check"), reason: Commitment([1; 32]) })
    };
    w.accept("bureau", settle(CaseOutcome::Parked));
    w.refuse("bureau", same.clone(), Refusal::Duplicate);
    w.accept("bureau", settle(CaseOutcome::Closed));
    w.refuse("bureau", settle(CaseOutcome::Closed), Refusal::CaseClosed);
    w.accept("bureau", same);
}

#[test]
fn an_action_is_requested_once_unless_it_failed_and_reported_once() {
    let mut w = World::new();
    let case = w.open(1);
    let request = |w: &World| {
        Body::RequestAction(RequestAction {
            case,
            step: name("transfer"),
            parameters: Commitment([1; 32]),
            sealed: Digest([2; 32]),
            report_by_ms: w.time_ms + MINUTE_MS,
        })
    };
    let report = |id: CommandId, failure: Option<&str>| {
        Body::ReportAction(ReportAction {
            action: ActionId(id.0),
            failure: failure.map(name),
            result: Commitment([3; 32]),
        })
    };
    let first = w.accept("bureau", request(&w));
    w.refuse("bureau", request(&w), Refusal::AlreadyUsed);
    w.refuse("police", report(first, None), Refusal::NotYours);
    w.accept("registry", report(first, Some("row_count")));
    let second = w.accept("bureau", request(&w));
    w.accept("registry", report(second, None));
    w.refuse("registry", report(second, None), Refusal::WrongState);
    w.refuse("bureau", request(&w), Refusal::AlreadyUsed);
}

#[test]
fn a_case_in_which_something_was_done_can_be_neither_withdrawn_nor_refused() {
    let mut w = World::new();
    let case = w.open(1);
    let settle = |outcome| {
        Body::SettleCase(SettleCase { case, outcome, step: name("check"), reason: Commitment([1; 32]) })
    };
    let request = RequestAction {
        case,
        step: name("transfer"),
        parameters: Commitment([1; 32]),
        sealed: Digest([2; 32]),
        report_by_ms: w.time_ms + MINUTE_MS,
    };
    let action = w.accept("bureau", Body::RequestAction(request));
    w.refuse("bureau", settle(CaseOutcome::Withdrawn), Refusal::WrongState);
    w.refuse("bureau", settle(CaseOutcome::Refused), Refusal::WrongState);
    let failed = Some(name("row_count"));
    let report = ReportAction { action: ActionId(action.0), failure: failed, result: Commitment([3; 32]) };
    w.accept("registry", Body::ReportAction(report));
    w.accept("bureau", settle(CaseOutcome::Withdrawn));
}

#[test]
fn nothing_is_answered_in_a_case_that_is_over_and_nobody_is_identified_twice() {
    let mut w = World::new();
    let (case, _, call) = w.granted();
    let assertion = Assertion { signer: w.terminal.public(), ..w.assertion(case) };
    let signature = w.terminal.sign(&assertion.signing_bytes());
    w.refuse("bureau", Body::Identify(Identify { assertion, signature }), Refusal::AlreadyUsed);
    let settle = SettleCase {
        case,
        outcome: CaseOutcome::Withdrawn,
        step: name("check"),
        reason: Commitment([1; 32]),
    };
    w.accept("bureau", Body::SettleCase(settle));
    w.refuse("police", World::answer(call), Refusal::CaseClosed);
}

#[test]
fn a_catalogue_entry_or_matter_cannot_make_calls_dear_to_decide() {
    let mut w = World::new();
    let field =
        |i: usize| Field { id: name(&format!("f{i}")), element: name("e"), title: text("t"), sensitivity: 1 };
    let large =
        Resource { fields: (0..1000).map(field).collect(), ..w.resource("registry.large", "registry") };
    w.refuse("registry", Body::PublishResource(large), Refusal::Oversized);
}

#[test]
fn an_adverse_decision_needs_a_person() {
    let mut w = World::new();
    let case = w.open(1);
    let decide = |adverse, confirmed_by| {
        Body::Decide(Decide {
            case,
            step: name("check"),
            rule: Digest([1; 32]),
            inputs: vec![],
            passed: false,
            reason: Commitment([1; 32]),
            adverse,
            confirmed_by,
        })
    };
    w.refuse("bureau", decide(true, None), Refusal::Unconfirmed);
    w.refuse("police", decide(false, None), Refusal::NotYours);
    w.accept("bureau", decide(true, Some(Commitment([2; 32]))));
    w.refuse("bureau", decide(false, None), Refusal::AlreadyUsed);
}

#[test]
fn catalogue_versions_follow_each_other_and_belong_to_their_holder() {
    let mut w = World::new();
    let next = |version| Resource { version, ..w.resource("registry.deed", "registry") };
    let (skipped, second) = (next(3), next(2));
    let stolen = Resource { holder: name("police"), ..second.clone() };
    w.refuse("registry", Body::PublishResource(skipped), Refusal::WrongVersion);
    w.refuse("police", Body::PublishResource(second.clone()), Refusal::NotYours);
    w.refuse("police", Body::PublishResource(stolen), Refusal::NotYours);
    let closed = Resource { share: ShareClass::NotShared { citation: "law".into() }, ..second };
    w.accept("registry", Body::PublishResource(closed));
    let case = w.open(1);
    w.identify(case);
    w.refuse("bureau", Body::Ask(w.ask(case, "own", None)), Refusal::NotShared);
}

#[test]
fn a_command_of_another_chain_suite_or_stranger_is_no_command() {
    let w = World::new();
    let command = Command {
        chain: ChainId([0; 32]),
        signer: name("bureau"),
        nonce: 1,
        expires_ms: START_MS,
        body: Body::Anchor(Anchor { topic: name("t"), data: vec![] }),
    };
    let key = &w.keys["bureau"].keys.command;
    assert!(w.rules.admit(&w.roster, &crypto::signed(key, command.clone())).is_none());
    let stranger = Command { chain: w.rules.chain, signer: name("nobody"), ..command.clone() };
    assert!(w.rules.admit(&w.roster, &crypto::signed(key, stranger)).is_none());
    // no command of one suite stands on a ledger of the other, whatever it says of itself
    let mut own = crypto::signed(key, Command { chain: w.rules.chain, ..command });
    assert!(w.rules.admit(&w.roster, &own).is_some());
    own.suite = Suite::National;
    assert!(w.rules.admit(&w.roster, &own).is_none());
    assert!(!crypto::verify_command(&key.public(), &own));
}

#[test]
fn an_expired_command_or_one_that_lives_too_long_takes_no_effect() {
    let mut w = World::new();
    let body = Body::EnrolTerminal(EnrolTerminal { key: PublicKey::Ed25519([1; 32]), active: true });
    for expires_ms in [0, u64::MAX] {
        let command = Command {
            chain: w.rules.chain,
            signer: name("bureau"),
            nonce: 1,
            expires_ms,
            body: body.clone(),
        };
        let mut overlay = Overlay::new(Suite::International);
        let block = BlockContext { height: 1, time_ms: w.time_ms, roster: &w.roster };
        let id = CommandId([1; 32]);
        let outcome = w.rules.apply(&mut overlay, block, 0, id, &command).unwrap();
        assert_eq!(outcome, Outcome::Refused(Refusal::Expired));
    }
    w.accept("bureau", body);
}

#[test]
fn a_call_runs_in_the_national_suite_and_no_key_of_the_other_is_taken_in() {
    let mut w = World::of(Suite::National);
    let (_, _, call) = w.granted();
    w.accept("police", World::answer(call));
    let foreign = SigningKey::random(Suite::International);
    let enrol = EnrolTerminal { key: foreign.public(), active: true };
    w.refuse("bureau", Body::EnrolTerminal(enrol), Refusal::BadSignature);
    let case = w.open(2);
    let assertion = Assertion { signer: foreign.public(), ..w.assertion(case) };
    let signature = w.terminal.sign(&assertion.signing_bytes());
    w.refuse("bureau", Body::Identify(Identify { assertion, signature }), Refusal::BadSignature);
}

#[test]
fn a_matter_whose_holder_left_gets_no_grant() {
    let mut w = World::new();
    let case = w.open(1);
    w.identify(case);
    let consent = w.consent(case);
    Change::Remove(name("police")).apply(&mut w.roster);
    w.refuse("bureau", Body::Ask(w.ask(case, "identity", Some(consent))), Refusal::UnknownResource);
}

#[test]
fn from_protocol_2_on_an_anchor_is_small() {
    let mut w = World::new();
    let body = || Body::Anchor(Anchor { topic: name("t"), data: vec![0; crate::ANCHOR_BYTES_MAX + 1] });
    w.accept("bureau", body());
    w.roster.protocol = 2;
    w.refuse("bureau", body(), Refusal::Oversized);
}

#[test]
fn a_settlement_counts_every_call_of_its_case_granted_or_refused() {
    let mut w = World::new();
    let (case, consent, call) = w.granted();
    let second = w.submit("bureau", Body::Ask(w.ask(case, "own", None))).1;
    assert_eq!(second, Outcome::Accepted(Fact::Granted(2, 2)));
    w.refuse("bureau", Body::Ask(w.ask(case, "check", None)), Refusal::BasisNotApproved);
    w.refuse("bureau", Body::Ask(w.ask(case, "nowhere", None)), Refusal::UndeclaredStep);
    // whom the matter lets ask nothing cannot raise the count
    w.refuse("court", Body::Ask(w.ask(case, "identity", Some(consent))), Refusal::UndeclaredStep);
    // calls of another case are its own
    let other = w.open(2);
    w.identify(other);
    let third = w.submit("bureau", Body::Ask(w.ask(other, "own", None))).1;
    assert_eq!(third, Outcome::Accepted(Fact::Granted(3, 1)));
    w.accept("police", World::answer(call));
    let settle = |case, outcome| {
        Body::SettleCase(SettleCase { case, outcome, step: name("review"), reason: Commitment([1; 32]) })
    };
    let settled = w.submit("bureau", settle(case, CaseOutcome::Closed)).1;
    assert_eq!(settled, Outcome::Accepted(Fact::Settled(2, 2)));
    // what is refused because the case is over is counted all the same
    w.refuse("bureau", Body::Ask(w.ask(case, "own", None)), Refusal::CaseClosed);
    let settled = w.submit("bureau", settle(other, CaseOutcome::Parked)).1;
    assert_eq!(settled, Outcome::Accepted(Fact::Settled(1, 0)));
}

#[test]
fn an_entry_is_described_by_its_holder_version_by_version_and_without_a_number_of_anybody() {
    let mut w = World::new();
    w.roster.protocol = DESCRIPTION_PROTOCOL;
    let description = Description {
        about: text("what it is"),
        keywords: vec![text("deed")],
        category: Category { scheme: "theme".into(), name: text("land"), code: "Z1".into() },
        code: "307001033500/000001".into(),
        process: text("registration"),
        scope: text("the city"),
        format: "database".into(),
        open: None,
        related: vec![],
    };
    let of = |version, description: &Description| {
        let description = description.clone();
        Body::DescribeResource(DescribeResource { resource: name("registry.deed"), version, description })
    };
    w.refuse("police", of(1, &description), Refusal::NotYours);
    w.refuse("registry", of(2, &description), Refusal::WrongVersion);
    w.accept("registry", of(1, &description));
    w.refuse("registry", of(1, &description), Refusal::WrongVersion);
    w.accept("registry", of(2, &description));
    // open without a condition
    let open = Description { open: Some(String::new()), ..description.clone() };
    w.accept("registry", of(3, &open));
    let unknown =
        DescribeResource { resource: name("registry.nothing"), version: 1, description: description.clone() };
    w.refuse("registry", Body::DescribeResource(unknown), Refusal::UnknownResource);
    let changed = |change: &dyn Fn(&mut Description)| {
        let mut changed = description.clone();
        change(&mut changed);
        of(4, &changed)
    };
    for (body, why) in [
        (changed(&|d| d.about = text("call 139 0000 0000")), Refusal::UnfitText),
        (changed(&|d| d.scope = text(" ")), Refusal::WrongShape),
        (changed(&|d| d.code = "11010519491231002X".into()), Refusal::UnfitText),
        (changed(&|d| d.code = "x/11010519491231002X-1".into()), Refusal::UnfitText),
        (changed(&|d| d.related = vec!["13900000000".into()]), Refusal::UnfitText),
        (changed(&|d| d.category.code = "110105491231002".into()), Refusal::UnfitText),
        (changed(&|d| d.code = "a b".into()), Refusal::UnfitText),
        (changed(&|d| d.code = String::new()), Refusal::WrongShape),
        (changed(&|d| d.related = vec!["x".repeat(129)]), Refusal::UnfitText),
        (changed(&|d| d.keywords = vec![text("word"); 65]), Refusal::Oversized),
        (changed(&|d| d.open = Some("x".repeat(2_000))), Refusal::UnfitText),
    ] {
        w.refuse("registry", body, why);
    }
}
