//! Decisions on open data: "this officer of this department decided that exactly these files are published".
//!
//! The decision stands off the ledger; the department anchors its hash there with a command of its own, which is its signature and
//! fixes when it decided. A portal serves only files that such a decision names.

use crate::{
    Facts, Kind, Rejected,
    receipt::{EventProof, Role, RosterChange},
    verify::{Rosters, check_event, ensure, reject},
};
use borsh::{BorshDeserialize, BorshSerialize};
use model::*;
use serde::{Deserialize, Serialize};

/// The largest publication file that is read, in bytes.
const PUBLICATION_BYTES_MAX: usize = 4 << 20;
/// The topic under which a decision is anchored.
pub const PUBLICATION_TOPIC: &str = "publication";

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The files are for everyone.
    Publish,
    /// They are not published; the note says why.
    Refuse,
    /// What was published is taken back; the note says why.
    Withdraw,
}

impl Verdict {
    /// The word in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Refuse => "refuse",
            Self::Withdraw => "withdraw",
        }
    }
}

/// A file by its name and the SHA-256 of its bytes (in either suite: it is checked with tools everybody has).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedFile {
    /// Its name.
    pub name: String,
    /// The hash of its bytes.
    pub sha256: Digest,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decided {
    /// The responsible department.
    pub department: DepartmentId,
    /// The post of the responsible officer.
    pub officer: String,
    /// The publication.
    pub dataset: ResourceId,
    /// Its version, from 1.
    pub version: u32,
    /// What was decided.
    pub verdict: Verdict,
    /// The licence the files are under.
    pub licence: String,
    /// The files, the report of the disclosure-risk gate among them.
    pub files: Vec<PublishedFile>,
    /// Why, for everyone to read.
    pub note: String,
}

impl Decided {
    /// The hash that is anchored.
    pub fn hash(&self, suite: Suite) -> Digest {
        crypto::hash(suite, "tongban/publication/1", &[&encode(self)])
    }

    /// What must hold of a decision; says what does not.
    pub fn check(&self) -> Result<(), String> {
        let short = |text: &str, most: usize| !text.trim().is_empty() && text.len() <= most;
        if !short(&self.officer, 200) || !short(&self.licence, 200) || self.note.len() > 1000 {
            return Err("officer and licence have 1 to 200 bytes, the note up to 1,000".into());
        }
        if !(self.note.is_empty() || is_plain(&self.note)) || !is_plain(&self.officer) {
            return Err("officer and note are public: they hold what looks like a number of a person".into());
        }
        if self.verdict == Verdict::Publish && self.files.is_empty() {
            return Err("a publication has files".into());
        }
        if self.version == 0 || self.files.len() > 64 || self.files.iter().any(|f| !short(&f.name, 200)) {
            return Err("versions begin at 1; up to 64 files with names".into());
        }
        Ok(())
    }
}

/// A publication's kind: only `publication`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublicationKind {
    /// See [`Publication`].
    Publication,
}

/// The publication file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// The format: 1.
    pub format: u32,
    /// `publication`.
    pub kind: PublicationKind,
    /// The ledger.
    pub chain_id: ChainId,
    /// What was decided.
    pub decided: Decided,
    /// Every change of the roster up to the anchor, as in a receipt.
    pub rosters: Vec<RosterChange>,
    /// The department's command that anchors it.
    pub anchor: EventProof,
}

impl Publication {
    /// The canonical bytes of the file: JSON with the fields in this order, no space, no final newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a publication can be written as JSON")
    }
}

/// Whether a file says that it is a publication.
pub fn is_publication(file: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Any {
        kind: String,
    }
    serde_json::from_slice::<Any>(file).is_ok_and(|any| any.kind == PUBLICATION_TOPIC)
}

/// Verifies the bytes of a publication file against a genesis: that the department decided it, when, and exactly this.
pub fn verify_publication(file: &[u8], genesis: &Genesis) -> Result<(Publication, Facts), Rejected> {
    ensure(file.len() <= PUBLICATION_BYTES_MAX, "the file is larger than any publication")?;
    genesis.check().map_err(|e| Rejected(format!("the genesis is not valid: {e}")))?;
    let publication: Publication =
        serde_json::from_slice(file).map_err(|e| Rejected(format!("not a publication: {e}")))?;
    ensure(publication.format == 1, "the publication's format is not 1")?;
    ensure(publication.to_bytes() == file, "the file is not canonical: it was changed or re-formatted")?;
    let chain = crypto::chain_id(genesis);
    ensure(publication.chain_id == chain, "the publication is of another ledger than this genesis")?;
    let rosters = Rosters::check(&publication.rosters, chain, genesis)?;
    ensure(publication.anchor.role == Role::Anchor, "the event is no anchor")?;
    let event = check_event(&publication.anchor, chain, genesis, &rosters)?;
    let late = rosters.last().epoch > event.header.epoch;
    ensure(!late, "the publication has a change of the roster that its anchor does not need")?;
    let Body::Anchor(anchor) = &event.command().body else { return reject("the event anchors nothing") };
    let decided = &publication.decided;
    decided.check().map_err(Rejected)?;
    let anchored = matches!(event.outcome, Outcome::Accepted(_))
        && event.command().signer == decided.department
        && anchor.topic.as_str() == PUBLICATION_TOPIC
        && anchor.data == decided.hash(genesis.suite).0;
    ensure(anchored, "the department did not anchor this decision")?;
    let facts = Facts {
        kind: Kind::Publication,
        asker: String::new(),
        holder: decided.department.to_string(),
        purpose: decided.note.clone(),
        basis: decided.licence.clone(),
        assurance: String::new(),
        matter: String::new(),
        case: String::new(),
        step: format!("{} v{}", decided.dataset, decided.version),
        fields: decided.files.iter().map(|f| format!("{} sha256:{}", f.name, f.sha256)).collect(),
        status: decided.verdict.as_str().into(),
        objections: vec![],
        height: event.header.height,
        time: event.header.time_ms,
    };
    Ok((publication, facts))
}
