//! The receipt file.

use borsh::{BorshDeserialize, BorshSerialize};
use model::{ChainId, Command, Digest, Header, Outcome, SignedCommand};
use serde::{Deserialize, Serialize};

/// What a receipt is evidence of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One call: who asked for what, under which basis, and who answered.
    Call,
    /// One consent.
    Consent,
    /// One action in a department's own system.
    Action,
    /// One decision.
    Decision,
    /// Every call granted in a case up to where it was settled: complete, because the ledger numbered them.
    AccessLog,
    /// A holder's statement of its answers about one person; a file of its own, no receipt.
    Statement,
    /// A department's decision on open data; a file of its own, no receipt.
    Publication,
}

/// What an event is in a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The catalogue entry as it stood.
    Resource,
    /// The matter's published version.
    Matter,
    /// The opening of the case.
    Case,
    /// The identification of the party.
    Identify,
    /// The consent.
    Consent,
    /// The holder's approval of a statutory basis.
    Approval,
    /// The call was asked.
    Ask,
    /// The call was answered.
    Answer,
    /// The asker confirmed or disputed.
    Confirm,
    /// The asker objected to a value.
    Objection,
    /// The holder answered an objection.
    Reply,
    /// The consent was withdrawn.
    Withdraw,
    /// The action was requested.
    Request,
    /// The performer reported.
    Report,
    /// The decision.
    Decide,
    /// The case was settled.
    Settle,
    /// A statement was anchored (in statements only).
    Anchor,
}

/// A receipt: a set of events, each with the proof that the ledger holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The format: 1.
    pub format: u32,
    /// What it is evidence of.
    pub kind: Kind,
    /// The ledger.
    pub chain_id: ChainId,
    /// The exact text the person signed (receipts of consents), otherwise empty.
    pub text: String,
    /// Every change of the roster from the genesis up to the newest event, in order; empty where there was none.
    pub rosters: Vec<RosterChange>,
    /// The events, in the order the kind fixes.
    pub events: Vec<EventProof>,
}

/// A change of the roster: the last header of an epoch, which the validators before the change signed, and what it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RosterChange {
    /// The header, canonical bytes.
    #[serde(with = "bytes")]
    pub header: Vec<u8>,
    /// Its finality proof.
    pub finality: Finality,
    /// The roster from the next epoch on, canonical bytes.
    #[serde(with = "bytes")]
    pub roster: Vec<u8>,
    /// The root over the epoch's headers.
    pub blocks: Digest,
    /// The root over earlier epochs' last headers.
    pub past: Digest,
}

/// One event and why it is on the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventProof {
    /// What it is here.
    pub role: Role,
    /// The signed command, canonical bytes.
    #[serde(with = "bytes")]
    pub command: Vec<u8>,
    /// Its outcome, canonical bytes.
    #[serde(with = "bytes")]
    pub outcome: Vec<u8>,
    /// Its position in the block.
    pub index: u32,
    /// How many events the block has.
    pub size: u32,
    /// The audit path in the block's event tree, from the leaf upwards.
    pub path: Vec<Digest>,
    /// The block's header, canonical bytes.
    #[serde(with = "bytes")]
    pub header: Vec<u8>,
    /// The headers that follow, up to the one that is certified; empty where the block itself is.
    #[serde(with = "bytes_list")]
    pub walk: Vec<Vec<u8>>,
    /// The finality proof of the last header.
    pub finality: Finality,
}

/// The validators' finalize votes over a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Finality {
    /// The committee's epoch.
    pub epoch: u64,
    /// The view of the vote.
    pub view: u64,
    /// The view of the parent.
    pub parent_view: u64,
    /// The validators that signed, in ascending order, with their signatures.
    pub votes: Vec<Vote>,
}

/// One validator's vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// The position of the validator's key among the committee's keys in ascending order.
    pub signer: u32,
    /// The signature over `crypto::finalize_message`.
    #[serde(with = "bytes")]
    pub signature: Vec<u8>,
}

/// An event proof, decoded.
pub(crate) struct Decoded {
    pub(crate) role: Role,
    pub(crate) signed: SignedCommand,
    pub(crate) outcome: Outcome,
    pub(crate) header: Header,
    pub(crate) index: u32,
}

impl Decoded {
    pub(crate) fn command(&self) -> &Command {
        &self.signed.command
    }
}

impl Receipt {
    /// The canonical bytes of the file: JSON with the fields in this order, no space, no final newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a receipt can be written as JSON")
    }
}

pub(crate) mod bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(d)?).map_err(D::Error::custom)
    }
}

mod bytes_list {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(list: &[Vec<u8>], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(list.iter().map(hex::encode))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Vec<u8>>, D::Error> {
        Vec::<String>::deserialize(d)?.iter().map(|s| hex::decode(s).map_err(D::Error::custom)).collect()
    }
}
