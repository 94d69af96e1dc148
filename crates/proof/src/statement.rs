//! Holders' statements: "these are all answers I gave about this person, up to my answer number n".
//!
//! The statement itself stands off the ledger, because it says which answers were about one person; the holder anchors its hash
//! there with a command of its own, which is its signature and fixes when it was said. Its answers are numbered on the ledger
//! without gaps, so an auditor who demands the opening of each ([`crate::audit`]) convicts a holder that left one out.

use crate::{
    Facts, Kind, Rejected,
    receipt::{EventProof, Role, RosterChange},
    verify::{Rosters, check_event, ensure, reject},
};
use borsh::{BorshDeserialize, BorshSerialize};
use crypto::Salt;
use model::*;
use serde::{Deserialize, Serialize};

/// The largest statement file that is read, in bytes.
const STATEMENT_BYTES_MAX: usize = 32 << 20;
/// A statement is anchored within so many blocks of the height it speaks of.
const STALE_BLOCKS: u64 = 20_000;
/// The topic under which a statement is anchored.
pub const STATEMENT_TOPIC: &str = "statement";

/// One answer that gave something about the person.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedAnswer {
    /// The holder's answer number.
    pub number: u64,
    /// The call.
    pub call: CallId,
    /// Who asked.
    pub asker: DepartmentId,
    /// In which matter.
    pub matter: MatterId,
    /// At which step.
    pub step: StepId,
    /// For which resource.
    pub resource: ResourceId,
    /// Which fields, or which predicate.
    pub names: Vec<FieldId>,
    /// When it was answered, in milliseconds since 1970.
    pub time_ms: u64,
}

/// Answers that are lawfully withheld: counted, and listed when the ground has expired.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withheld {
    /// How many.
    pub count: u64,
    /// The commitment to the ground, which the auditor is shown.
    pub ground: Commitment,
    /// Until when, in milliseconds since 1970.
    pub until_ms: u64,
}

/// What a holder states.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stated {
    /// The holder.
    pub holder: DepartmentId,
    /// The commitment to the person's identifier.
    pub person: Commitment,
    /// All answers ordered up to this height are meant.
    pub height: u64,
    /// The holder's newest answer number then.
    pub up_to: u64,
    /// Those about the person, by number.
    pub answers: Vec<StatedAnswer>,
    /// Those withheld.
    pub withheld: Vec<Withheld>,
}

impl Stated {
    /// How many answers are withheld; what a hostile file counts beyond `u64` stays at its end.
    pub fn withheld(&self) -> u64 {
        self.withheld.iter().fold(0, |sum, w| sum.saturating_add(w.count))
    }

    /// The hash that is anchored.
    pub fn hash(&self, suite: Suite) -> Digest {
        crypto::hash(suite, "tongban/statement/1", &[&encode(self)])
    }
}

/// The commitment to a person, which names who a statement is about to whoever knows the identifier, and to nobody else.
pub fn person_commitment(suite: Suite, salt: &Salt, person: &str) -> Commitment {
    crypto::commit(suite, salt, "person", person.as_bytes())
}

/// A statement's kind: only `statement`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatementKind {
    /// See [`Statement`].
    Statement,
}

/// The statement file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The format: 1.
    pub format: u32,
    /// `statement`.
    pub kind: StatementKind,
    /// The ledger.
    pub chain_id: ChainId,
    /// With the person's identifier it opens the commitment.
    pub salt: Salt,
    /// What is stated.
    pub stated: Stated,
    /// Every change of the roster up to the anchor, as in a receipt.
    pub rosters: Vec<RosterChange>,
    /// The holder's command that anchors it.
    pub anchor: EventProof,
}

impl Statement {
    /// The canonical bytes of the file: JSON with the fields in this order, no space, no final newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a statement can be written as JSON")
    }

    /// Whether it is about the person with this identifier.
    pub fn is_about(&self, suite: Suite, person: &str) -> bool {
        person_commitment(suite, &self.salt, person) == self.stated.person
    }
}

/// Whether a file says that it is a statement, and no receipt.
pub fn is_statement(file: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Any {
        kind: String,
    }
    serde_json::from_slice::<Any>(file).is_ok_and(|any| any.kind == "statement")
}

/// Verifies the bytes of a statement file against a genesis: that the holder said it, when, and exactly this. That it is true,
/// only an audit can say.
pub fn verify_statement(file: &[u8], genesis: &Genesis) -> Result<(Statement, Facts), Rejected> {
    ensure(file.len() <= STATEMENT_BYTES_MAX, "the file is larger than any statement")?;
    genesis.check().map_err(|e| Rejected(format!("the genesis is not valid: {e}")))?;
    let statement: Statement =
        serde_json::from_slice(file).map_err(|e| Rejected(format!("not a statement: {e}")))?;
    ensure(statement.format == 1, "the statement's format is not 1")?;
    ensure(statement.to_bytes() == file, "the file is not canonical: it was changed or re-formatted")?;
    let chain = crypto::chain_id(genesis);
    ensure(statement.chain_id == chain, "the statement is of another ledger than this genesis")?;
    let rosters = Rosters::check(&statement.rosters, chain, genesis)?;
    ensure(statement.anchor.role == Role::Anchor, "the event is no anchor")?;
    let event = check_event(&statement.anchor, chain, genesis, &rosters)?;
    let late = rosters.last().epoch > event.header.epoch;
    ensure(!late, "the statement has a change of the roster that its anchor does not need")?;
    let Body::Anchor(anchor) = &event.command().body else { return reject("the event anchors nothing") };
    let stated = &statement.stated;
    let anchored = matches!(event.outcome, Outcome::Accepted(_))
        && event.command().signer == stated.holder
        && anchor.topic.as_str() == STATEMENT_TOPIC
        && anchor.data == stated.hash(genesis.suite).0;
    ensure(anchored, "the holder did not anchor this statement")?;
    let fresh = stated.height < event.header.height && event.header.height - stated.height <= STALE_BLOCKS;
    ensure(fresh, "the statement was anchored too long after the height it speaks of")?;
    let mut before = 0;
    for answer in &stated.answers {
        let fits = answer.number > before && answer.number <= stated.up_to;
        ensure(fits, "answers must be listed by number, each once, up to the number stated")?;
        before = answer.number;
    }
    let facts = Facts {
        kind: Kind::Statement,
        asker: String::new(),
        holder: stated.holder.to_string(),
        purpose: String::new(),
        basis: String::new(),
        assurance: String::new(),
        matter: String::new(),
        case: String::new(),
        step: String::new(),
        fields: stated.answers.iter().map(line).collect(),
        status: format!(
            "{} of {} answers, {} withheld",
            stated.answers.len(),
            stated.up_to,
            stated.withheld()
        ),
        objections: vec![],
        height: event.header.height,
        time: event.header.time_ms,
    };
    Ok((statement, facts))
}

fn line(answer: &StatedAnswer) -> String {
    let names: Vec<_> = answer.names.iter().map(ToString::to_string).collect();
    format!(
        "#{} {} <- {}.{} ({})",
        answer.number,
        answer.asker,
        answer.resource,
        names.join(","),
        answer.matter
    )
}
