//! What an auditor finds in statements that say other than the ledger and the openings.

use crate::{
    EventProof, Finality, Role, Stated, StatedAnswer, Statement, StatementKind, Withheld,
    audit::{Audit, Finding, Openings, SubjectOpening},
    person_commitment,
};
use crypto::{Opening, Salt};
use model::*;
use std::collections::BTreeMap;

const SUITE: Suite = Suite::International;
const PERSON: &str = "11010519491231002X";

fn name<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
    text.parse().expect("a name")
}

/// A ledger of one case with a call for each basis, all answered about one person, and what the holder owes of it.
struct Scene {
    audit: Audit,
    openings: Openings,
    answers: Vec<StatedAnswer>,
    height: u64,
}

fn need(step: &str, basis: NeedBasis) -> Need {
    let text = Text { zh: step.into(), en: step.into() };
    Need {
        step: name(step),
        party: name("seller"),
        recipient: name("bureau"),
        holder: name("police"),
        resource: name("person"),
        what: What::Fields(vec![name("name"), name("address")]),
        basis,
        purpose: text,
    }
}

impl Scene {
    fn event(&mut self, signer: &str, body: Body, fact: Fact) -> CommandId {
        self.height += 1;
        let id = CommandId([self.height as u8; 32]);
        let command =
            Command { chain: ChainId([9; 32]), signer: name(signer), nonce: 0, expires_ms: 0, body };
        let (height, time_ms) = (self.height, self.height * 1000);
        let command = SignedCommand { suite: SUITE, command, signature: [0; 64] };
        self.audit.follow(&Event {
            height,
            index: 0,
            time_ms,
            id,
            command,
            outcome: Outcome::Accepted(fact),
        });
        id
    }

    fn new() -> Self {
        let audit = Audit::of(SUITE, name("police"));
        let mut scene = Self { audit, openings: Openings::default(), answers: vec![], height: 0 };
        let needs = vec![need("free", NeedBasis::Consent), need("duty", NeedBasis::Statutory(name("law")))];
        let matter = PublishMatter {
            id: name("sale"),
            version: 3,
            title: Text { zh: "卖".into(), en: "sale".into() },
            package: Digest([0; 32]),
            needs,
            actions: vec![],
        };
        scene.event("bureau", Body::PublishMatter(matter), Fact::Recorded);
        let open = OpenCase { matter: name("sale"), version: 3, tag: Digest([0; 32]), parties: vec![] };
        let case = CaseId(scene.event("bureau", Body::OpenCase(open), Fact::Recorded).0);
        for (number, step) in [(1, "free"), (2, "duty")] {
            let opening =
                SubjectOpening { salt: Salt::random(), subject: PERSON.into(), parameters: BTreeMap::new() };
            let ask = Ask {
                case,
                step: name(step),
                attempt: 0,
                consent: None,
                subject: opening.commitment(SUITE),
                sealed: Digest([0; 32]),
                answer_by_ms: 0,
            };
            let call = CallId(scene.event("bureau", Body::Ask(ask), Fact::Granted(number, number as u32)).0);
            let reply = Reply::Data { commitments: vec![], payload: Digest([0; 32]), as_of_ms: 0 };
            scene.event("police", Body::Answer(Answer { call, reply }), Fact::Answered(number));
            scene.openings.calls.insert(call, opening);
            scene.answers.push(StatedAnswer {
                number,
                call,
                asker: name("bureau"),
                matter: name("sale"),
                step: name(step),
                resource: name("person"),
                names: vec![name("name"), name("address")],
                time_ms: scene.height * 1000,
            });
        }
        scene
    }

    /// The findings on a statement with these answers and so many withheld on each of some grounds.
    fn findings(&mut self, answers: &[StatedAnswer], withheld: &[u64]) -> Vec<Finding> {
        let salt = Salt::random();
        let ground = Opening::fresh("ground", "a statute".to_owned());
        let withheld = withheld.iter().map(|count| Withheld {
            count: *count,
            ground: ground.commitment(SUITE),
            until_ms: 50_000,
        });
        let stated = Stated {
            holder: name("police"),
            person: person_commitment(SUITE, &salt, PERSON),
            height: self.height,
            up_to: 2,
            answers: answers.to_vec(),
            withheld: withheld.collect(),
        };
        self.openings.grounds = vec![ground];
        let anchor = EventProof {
            role: Role::Anchor,
            command: vec![],
            outcome: vec![],
            index: 0,
            size: 1,
            path: vec![],
            header: vec![],
            walk: vec![],
            finality: Finality { epoch: 0, view: 0, parent_view: 0, votes: vec![] },
        };
        let statement = Statement {
            format: 1,
            kind: StatementKind::Statement,
            chain_id: ChainId([9; 32]),
            salt,
            stated,
            rosters: vec![],
            anchor,
        };
        self.audit.check_statement(&statement, 40_000, &self.openings)
    }
}

#[test]
fn a_true_statement_convicts_nobody() {
    let mut scene = Scene::new();
    let answers = scene.answers.clone();
    assert_eq!(scene.audit.check_openings(&scene.openings), []);
    assert_eq!(scene.findings(&answers, &[]), []);
    assert_eq!(scene.findings(&answers[..1], &[1]), [], "the statutory call may be withheld");
}

#[test]
fn every_word_of_a_listed_answer_is_the_ledgers() {
    let mut scene = Scene::new();
    let changes: [fn(&mut StatedAnswer); 8] = [
        |a| a.call = CallId([77; 32]),
        |a| a.asker = name("tax"),
        |a| a.matter = name("marriage"),
        |a| a.step = name("duty"),
        |a| a.resource = name("vehicle"),
        |a| drop(a.names.pop()),
        |a| a.names.push(name("phone")),
        |a| a.time_ms += 1,
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut answers = scene.answers.clone();
        change(&mut answers[0]);
        let found = scene.findings(&answers, &[]);
        assert!(matches!(found[..], [Finding::Invented { number: 1, .. }]), "change {i}: {found:?}");
    }
}

#[test]
fn only_calls_of_statutory_duties_are_withheld_and_each_is_counted() {
    let mut scene = Scene::new();
    let answers = scene.answers.clone();
    for (listed, withheld) in
        [(&answers[..1], &[][..]), (&answers[1..], &[1]), (&answers[..1], &[2]), (&answers[..], &[1])]
    {
        let found = scene.findings(listed, withheld);
        assert!(matches!(found[..], [Finding::LeftOut { .. }]), "{listed:?} {withheld:?}: {found:?}");
    }
}

#[test]
fn hostile_counts_do_not_wrap_around() {
    let mut scene = Scene::new();
    let answers = scene.answers.clone();
    let found = scene.findings(&answers, &[u64::MAX, 1]);
    assert!(matches!(found[..], [Finding::LeftOut { withheld: u64::MAX, .. }]), "{found:?}");
}
