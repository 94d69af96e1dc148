//! A block as the engine carries it: the header, the epoch's end where one ends, then each command with its outcome.

use borsh::BorshDeserialize;
use bytes::Bytes;
use commonware_codec::{Buf, Copying, DecodeExt as _, EncodeSize, Error as CodecError, Read, Write};
use commonware_consensus::{
    Block as ConsensusBlock, BoundedBlock, CertifiableBlock, Heightable,
    simplex::types::Context,
    types::{Epoch, Height, Round, View},
};
use commonware_cryptography::{Digestible, ed25519, sha256};
use commonware_runtime::BufMut;
use model::{CommandId, Digest, EpochEnd, Event, Header, NodeKey, Outcome, SignedCommand, Suite, merkle};
use std::sync::Arc;

/// The engine's digest type.
pub(crate) type D = sha256::Digest;
/// The engine's consensus context.
pub(crate) type Ctx = Context<D, ed25519::PublicKey>;

/// The most bytes of commands a block carries.
pub(crate) const BLOCK_BYTES_MAX: usize = 2 << 20;
/// The most commands a block carries.
pub(crate) const BLOCK_COMMANDS_MAX: usize = 4096;
/// The longest encoded outcome.
const OUTCOME_BYTES_MAX: usize = 64;
/// The longest encoded end of an epoch: a roster of 128 departments.
const END_BYTES_MAX: usize = 256 * 1024;
/// More operations than any state database will have.
const LOG_MAX: u64 = 1 << 62;
const HEADER_BYTES: usize = 32 * 8 + 8 * 7;

/// A command as ordered: its bytes, decoded once, and what came of it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) command: Arc<Admitted>,
    pub(crate) outcome: Outcome,
    pub(crate) outcome_bytes: Vec<u8>,
}

/// A decoded command with its bytes and ID.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) bytes: Bytes,
    pub(crate) signed: SignedCommand,
    pub(crate) id: CommandId,
    /// The hash of all bytes, the signature included: names what was verified.
    pub(crate) fingerprint: Digest,
}

impl Admitted {
    /// Decodes a command strictly.
    pub(crate) fn decode(bytes: Bytes) -> Option<Self> {
        if bytes.len() > model::COMMAND_BYTES_MAX {
            return None;
        }
        let signed: SignedCommand = model::decode(&bytes).ok()?;
        let id = crypto::command_id(&signed);
        let fingerprint = crypto::digest(signed.suite, &[&bytes]);
        Some(Self { bytes, signed, id, fingerprint })
    }
}

/// A block. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) header: Header,
    context: Ctx,
    digest: D,
    pub(crate) end: Option<Arc<EpochEnd>>,
    pub(crate) entries: Arc<Vec<Entry>>,
}

impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}
impl Eq for Block {}

/// The engine's digest of one of ours.
pub(crate) fn engine_digest(digest: &Digest) -> D {
    sha256::Digest(digest.0)
}

/// Our digest of one of the engine's.
pub(crate) fn our_digest(digest: &D) -> Digest {
    Digest(digest.0)
}

/// The engine's form of a node key.
pub(crate) fn engine_key(key: &NodeKey) -> Result<ed25519::PublicKey, String> {
    ed25519::PublicKey::decode(Copying(&key.0[..])).map_err(|_| format!("{key} is no node key"))
}

/// The leaf hashes of a block's event tree.
pub(crate) fn leaves(suite: Suite, entries: &[Entry]) -> Vec<Digest> {
    let tree = crypto::tree(suite);
    let leaf = |(i, e): (usize, &Entry)| {
        merkle::leaf(tree, &Event::leaf(i as u32, &e.command.bytes, &e.outcome_bytes))
    };
    entries.iter().enumerate().map(leaf).collect()
}

/// The root of a block's event tree.
pub(crate) fn event_root(suite: Suite, entries: &[Entry]) -> Digest {
    merkle::root(crypto::tree(suite), &leaves(suite, entries))
}

/// What a header says of the epoch's end: its hash, or zeros where none ends.
pub(crate) fn end_hash(suite: Suite, end: Option<&EpochEnd>) -> Digest {
    end.map_or(Digest::default(), |end| {
        let roster = crypto::roster_hash(suite, &end.roster);
        crypto::epoch_end_hash(suite, &roster, &end.blocks, &end.past)
    })
}

impl Block {
    /// Puts a block together from a header that already commits to the rest.
    pub(crate) fn new(
        suite: Suite,
        header: Header,
        context: Ctx,
        end: Option<EpochEnd>,
        entries: Vec<Entry>,
    ) -> Self {
        let digest = engine_digest(&crypto::header_hash(suite, &header));
        Self { header, context, digest, end: end.map(Arc::new), entries: Arc::new(entries) }
    }

    /// A block without commands, in an epoch that does not end with it.
    pub(crate) fn from_header(suite: Suite, header: Header) -> Result<Self, CodecError> {
        let context = Self::context_of(&header)?;
        Ok(Self::new(suite, header, context, None, Vec::new()))
    }

    /// The hash of the header.
    pub(crate) fn hash(&self) -> Digest {
        our_digest(&self.digest)
    }

    fn context_of(header: &Header) -> Result<Ctx, CodecError> {
        Ok(Context {
            round: Round::new(Epoch::new(header.epoch), View::new(header.view)),
            leader: ed25519::PublicKey::decode(Copying(&header.leader[..]))?,
            parent: (View::new(header.parent_view), engine_digest(&header.parent)),
        })
    }
}

impl Write for Block {
    fn write(&self, out: &mut impl BufMut) {
        out.put_slice(&model::encode(&self.header));
        let end = self.end.as_ref().map(|end| model::encode(&**end)).unwrap_or_default();
        out.put_slice(&(end.len() as u32).to_le_bytes());
        out.put_slice(&end);
        out.put_slice(&(self.entries.len() as u32).to_le_bytes());
        for entry in self.entries.iter() {
            out.put_slice(&(entry.command.bytes.len() as u32).to_le_bytes());
            out.put_slice(&entry.command.bytes);
            out.put_slice(&(entry.outcome_bytes.len() as u32).to_le_bytes());
            out.put_slice(&entry.outcome_bytes);
        }
    }
}

impl EncodeSize for Block {
    fn encode_size(&self) -> usize {
        let entry = |e: &Entry| 8 + e.command.bytes.len() + e.outcome_bytes.len();
        let end = self.end.as_ref().map_or(0, |end| model::encode(&**end).len());
        HEADER_BYTES + 4 + end + 4 + self.entries.iter().map(entry).sum::<usize>()
    }
}

fn take(buf: &mut impl Buf, length: usize) -> Result<Bytes, CodecError> {
    if buf.remaining() < length {
        return Err(CodecError::EndOfBuffer);
    }
    Ok(buf.copy_to_bytes(length))
}

fn take_length(buf: &mut impl Buf, max: usize) -> Result<usize, CodecError> {
    let bytes = take(buf, 4)?;
    let length = u32::from_le_bytes(bytes[..].try_into().expect("four bytes")) as usize;
    if length > max { Err(CodecError::InvalidLength(length)) } else { Ok(length) }
}

impl Read for Block {
    type Cfg = Suite;

    fn read_cfg(buf: &mut impl Buf, suite: &Suite) -> Result<Self, CodecError> {
        let bytes = take(buf, HEADER_BYTES)?;
        let header = Header::try_from_slice(&bytes).map_err(|_| CodecError::Invalid("Block", "header"))?;
        if header.log_start >= header.log_end || header.log_end > LOG_MAX {
            return Err(CodecError::Invalid("Block", "log range"));
        }
        let context = Self::context_of(&header)?;
        let length = take_length(buf, END_BYTES_MAX)?;
        let end = match length {
            0 => None,
            _ => Some(
                model::decode::<EpochEnd>(&take(buf, length)?)
                    .map_err(|_| CodecError::Invalid("Block", "epoch end"))?,
            ),
        };
        if end_hash(*suite, end.as_ref()) != header.epoch_end {
            return Err(CodecError::Invalid("Block", "epoch end"));
        }
        let count = take_length(buf, BLOCK_COMMANDS_MAX)?;
        let mut entries = Vec::with_capacity(count);
        let mut total = 0;
        for _ in 0..count {
            let length = take_length(buf, model::COMMAND_BYTES_MAX)?;
            total += length;
            if total > BLOCK_BYTES_MAX {
                return Err(CodecError::Invalid("Block", "too many bytes of commands"));
            }
            let command =
                Admitted::decode(take(buf, length)?).ok_or(CodecError::Invalid("Block", "command"))?;
            let length = take_length(buf, OUTCOME_BYTES_MAX)?;
            let outcome_bytes = take(buf, length)?.to_vec();
            let outcome =
                model::decode(&outcome_bytes).map_err(|_| CodecError::Invalid("Block", "outcome"))?;
            entries.push(Entry { command: Arc::new(command), outcome, outcome_bytes });
        }
        if event_root(*suite, &entries) != header.event_root {
            return Err(CodecError::Invalid("Block", "event root"));
        }
        Ok(Self::new(*suite, header, context, end, entries))
    }
}

/// Reads a block and checks that it writes back to the same bytes; for fuzzing and hostile-input tests.
pub fn check_block_bytes(bytes: &[u8]) {
    use commonware_codec::{Decode as _, Encode as _};
    for suite in [Suite::International, Suite::National] {
        if let Ok(block) = Block::decode_cfg(Bytes::copy_from_slice(bytes), &suite) {
            assert_eq!(block.encode().as_ref(), bytes, "one block has one encoding");
        }
    }
}

impl Digestible for Block {
    type Digest = D;
    fn digest(&self) -> D {
        self.digest
    }
}
impl Heightable for Block {
    fn height(&self) -> Height {
        Height::new(self.header.height)
    }
}
impl ConsensusBlock for Block {
    fn parent(&self) -> D {
        engine_digest(&self.header.parent)
    }
}
impl CertifiableBlock for Block {
    type Context = Ctx;
    fn context(&self) -> Ctx {
        self.context.clone()
    }
}
impl BoundedBlock for Block {
    fn max_encode_size(_: &Suite) -> usize {
        HEADER_BYTES + 8 + END_BYTES_MAX + BLOCK_BYTES_MAX + BLOCK_COMMANDS_MAX * (8 + OUTCOME_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_codec::{Decode as _, Encode as _};
    use crypto::{Credentials, SigningKey, signed};
    use model::{Anchor, Body, ChainId, Command, DepartmentId, Fact, Roster, Text};

    const SUITES: [Suite; 2] = [Suite::International, Suite::National];

    fn end(suite: Suite) -> EpochEnd {
        let id: DepartmentId = "tax".parse().unwrap();
        let title = Text { zh: "税务局".into(), en: "Tax".into() };
        let member = Credentials::random(suite).member(id, title, true, "127.0.0.1:1".into());
        let roster = Roster { epoch: 1, protocol: 1, approvals: 2, members: vec![member] };
        EpochEnd { roster, blocks: Digest([6; 32]), past: Digest([7; 32]) }
    }

    fn block(suite: Suite, end: Option<EpochEnd>) -> Block {
        let key = SigningKey::from_seed(suite, [1; 32]).unwrap();
        let entry = |nonce| {
            let body = Body::Anchor(Anchor { topic: "test".parse().unwrap(), data: vec![9; 40] });
            let command = Command {
                chain: ChainId([2; 32]),
                signer: "tax".parse().unwrap(),
                nonce,
                expires_ms: 1,
                body,
            };
            let bytes = Bytes::from(model::encode(&signed(&key, command)));
            let outcome = Outcome::Accepted(Fact::Recorded);
            let outcome_bytes = model::encode(&outcome);
            Entry { command: Arc::new(Admitted::decode(bytes).unwrap()), outcome, outcome_bytes }
        };
        let entries: Vec<_> = (0..3).map(entry).collect();
        let node = crypto::Keys::random(suite).node_key();
        let header = Header {
            chain: Digest([2; 32]),
            epoch: 0,
            view: 5,
            leader: node.0,
            parent_view: 4,
            parent: Digest([3; 32]),
            height: 5,
            time_ms: 6,
            state_root: Digest([4; 32]),
            log_root: Digest([5; 32]),
            log_start: 1,
            log_end: 2,
            event_root: event_root(suite, &entries),
            roster: Digest([8; 32]),
            epoch_end: end_hash(suite, end.as_ref()),
        };
        let context = Block::context_of(&header).unwrap();
        Block::new(suite, header, context, end, entries)
    }

    #[test]
    fn a_block_reads_back_and_no_changed_or_cut_byte_passes_for_it() {
        for suite in SUITES {
            for end in [None, Some(end(suite))] {
                let block = block(suite, end);
                let bytes = block.encode();
                assert_eq!(bytes.len(), block.encode_size());
                let read = |bytes: &[u8]| Block::decode_cfg(Bytes::copy_from_slice(bytes), &suite);
                assert_eq!(read(&bytes).unwrap(), block);
                assert_eq!(read(&bytes).unwrap().end, block.end);
                for i in 0..bytes.len() {
                    let mut changed = bytes.to_vec();
                    for flip in [1, 0x80, 0xff] {
                        changed[i] ^= flip;
                        assert!(read(&changed).is_err() || read(&changed).unwrap() != block, "byte {i}");
                        changed[i] ^= flip;
                    }
                    assert!(read(&bytes[..i]).is_err(), "cut at {i}");
                }
            }
        }
    }

    #[test]
    fn a_block_of_one_suite_is_none_of_the_other() {
        for (one, other) in [(SUITES[0], SUITES[1]), (SUITES[1], SUITES[0])] {
            assert!(Block::decode_cfg(block(one, None).encode(), &other).is_err());
        }
    }

    #[test]
    fn a_block_with_an_impossible_log_range_is_no_block() {
        let suite = Suite::International;
        for (start, end) in [(2, 2), (3, 2), (0, u64::MAX)] {
            let block = block(suite, None);
            let header = Header { log_start: start, log_end: end, ..block.header.clone() };
            let entries = Arc::try_unwrap(block.entries).unwrap();
            let bytes = Block::new(suite, header, block.context.clone(), None, entries).encode();
            assert!(Block::decode_cfg(bytes, &suite).is_err());
        }
    }
}
