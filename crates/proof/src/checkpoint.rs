//! Checkpoints: a header published for good refutes a past that retired vote keys were used to forge.
//!
//! The last header of an epoch commits to all headers before it (`docs/receipt.md`, *Rosters*). So whoever has such a header from a
//! source of its own (a newspaper, a notary, another ledger) can ask of a receipt that its headers come before it; a *link*, which any
//! department makes from its archive, shows it.

use crate::{
    Facts, Receipt, Rejected, Statement, is_statement,
    receipt::bytes,
    verify,
    verify::{ensure, reject},
    verify_statement,
};
use model::*;
use serde::{Deserialize, Serialize};

/// A published header, the last of its epoch, and what it sums up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The format: 1.
    pub format: u32,
    /// The ledger.
    pub chain_id: ChainId,
    /// The hash of the header: what a newspaper prints.
    pub hash: Digest,
    /// The header, canonical bytes.
    #[serde(with = "bytes")]
    pub header: Vec<u8>,
    /// What it sums up.
    pub end: End,
}

/// What the last header of an epoch commits to as its `epoch_end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The hash of the next epoch's roster.
    pub roster: Digest,
    /// The root over the epoch's headers but the last.
    pub blocks: Digest,
    /// The root over earlier epochs' last headers.
    pub past: Digest,
}

/// Why headers come before a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The format: 1.
    pub format: u32,
    /// The hash of the checkpoint's header.
    pub checkpoint: Digest,
    /// One for each height that is linked.
    pub headers: Vec<Linked>,
}

/// Why one header comes before a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linked {
    /// Its height.
    pub height: u64,
    /// The path from it to the root over its epoch's headers; empty where it is the last.
    pub in_epoch: Vec<Digest>,
    /// The last header of its epoch, canonical bytes.
    #[serde(with = "bytes")]
    pub last: Vec<u8>,
    /// What that sums up.
    pub end: End,
    /// The path from that to the checkpoint's root over earlier epochs; empty where that is the checkpoint.
    pub in_past: Vec<Digest>,
}

fn decoded(bytes: &[u8]) -> Result<Header, Rejected> {
    decode(bytes).map_err(|e| Rejected(format!("a header: {e}")))
}

fn sums_up(genesis: &Genesis, header: &Header, end: &End) -> bool {
    header.height < u64::MAX
        && genesis.ends_epoch(header.height)
        && genesis.epoch_of(header.height) == header.epoch
        && crypto::epoch_end_hash(genesis.suite, &end.roster, &end.blocks, &end.past) == header.epoch_end
}

impl Checkpoint {
    /// Checks that it is a checkpoint of this ledger, and reads its header.
    pub fn check(&self, genesis: &Genesis) -> Result<Header, Rejected> {
        let chain = crypto::chain_id(genesis);
        let header = decoded(&self.header)?;
        ensure(self.format == 1, "the checkpoint's format is not 1")?;
        let of_ledger = self.chain_id == chain && header.chain.0 == chain.0;
        ensure(of_ledger, "the checkpoint is of another ledger than this genesis")?;
        ensure(sums_up(genesis, &header, &self.end), "the checkpoint is not the last header of an epoch")?;
        let hash = crypto::header_hash(genesis.suite, &header);
        ensure(hash == self.hash, "the checkpoint's hash is not its header's")?;
        Ok(header)
    }
}

/// Whether a header comes before the checkpoint, or is it.
fn comes_before(
    header: &Header,
    genesis: &Genesis,
    checkpoint: (&Checkpoint, &Header),
    link: Option<&Link>,
) -> Result<(), Rejected> {
    let (pinned, pin) = checkpoint;
    let (suite, tree) = (genesis.suite, crypto::tree(genesis.suite));
    ensure(header.height <= pin.height, "it is newer than the checkpoint, which says nothing of it")?;
    let hash = crypto::header_hash(suite, header);
    if hash == pinned.hash {
        return Ok(());
    }
    let Some(link) = link else {
        return reject("a link to the checkpoint is needed: any department makes it (tongban ledger link)");
    };
    ensure(link.format == 1 && link.checkpoint == pinned.hash, "the link is to another checkpoint")?;
    let Some(linked) = link.headers.iter().find(|l| l.height == header.height) else {
        return reject("the link lacks a header of this file");
    };
    let last = decoded(&linked.last)?;
    let fits =
        last.chain == header.chain && last.epoch == header.epoch && sums_up(genesis, &last, &linked.end);
    ensure(fits, "the link has another epoch's last header")?;
    let last_hash = crypto::header_hash(suite, &last);
    let first = header.epoch * genesis.epoch_blocks;
    let in_epoch = if header.height == last.height {
        hash == last_hash && linked.in_epoch.is_empty()
    } else {
        let (index, size) = ((header.height - first) as usize, genesis.epoch_blocks as usize - 1);
        let leaf = crypto::header_leaf(suite, &hash);
        merkle::root_from_path(tree, leaf, index, size, &linked.in_epoch) == Some(linked.end.blocks)
    };
    ensure(in_epoch, "a header is not in the epoch's past that the checkpoint knows: this is another past")?;
    let in_past = if last.epoch == pin.epoch {
        last_hash == pinned.hash && linked.in_past.is_empty()
    } else {
        let leaf = crypto::header_leaf(suite, &last_hash);
        let path = &linked.in_past;
        merkle::root_from_path(tree, leaf, last.epoch as usize, pin.epoch as usize, path)
            == Some(pinned.end.past)
    };
    ensure(in_past, "an epoch is not the one the checkpoint knows: this is another past")
}

/// The headers of a receipt's events, or of a statement's anchor.
pub fn headers_of(file: &[u8]) -> Result<Vec<Header>, Rejected> {
    let proofs = if is_statement(file) {
        serde_json::from_slice::<Statement>(file).map(|s| vec![s.anchor])
    } else {
        serde_json::from_slice::<Receipt>(file).map(|r| r.events)
    };
    let proofs = proofs.map_err(|e| Rejected(format!("neither a receipt nor a statement: {e}")))?;
    let mut headers = proofs.iter().map(|p| decoded(&p.header)).collect::<Result<Vec<_>, _>>()?;
    headers.sort_by_key(|h| h.height);
    headers.dedup();
    Ok(headers)
}

/// Verifies a receipt or statement, and that all its events come before a checkpoint that was published elsewhere.
pub fn verify_at(
    file: &[u8],
    genesis: &Genesis,
    checkpoint: &Checkpoint,
    link: Option<&Link>,
) -> Result<Facts, Rejected> {
    let facts = match is_statement(file) {
        true => verify_statement(file, genesis)?.1,
        false => verify(file, genesis)?,
    };
    let pin = checkpoint.check(genesis)?;
    for header in headers_of(file)? {
        comes_before(&header, genesis, (checkpoint, &pin), link)?;
    }
    Ok(facts)
}
