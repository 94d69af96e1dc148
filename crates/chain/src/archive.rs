//! Archives: every block with its finality proof in one file, checked and applied again without any node.
//!
//! A file begins with [`MAGIC`] and the 32 bytes of the chain ID. Then, for each height from 1 on: the length of the
//! block as four bytes, little end first, the block as nodes exchange it (header, then each command and outcome), the
//! length of the finality proof likewise (0 where a later block's proof covers this one), and the proof as canonical
//! bytes.

use crate::{
    ChainError, Host,
    app::{App, Dbs, Engine, Executed, genesis_block},
    block::{Block, our_digest},
    engine::{open_archives, state_config},
    handle::{BlockEvents, Shared, certificate_of, events_of},
    rosters::Trail,
    tree::{Sm3, TreeHash},
};
use bytes::Bytes;
use commonware_codec::{Decode as _, Encode as _};
use commonware_cryptography::{Digestible as _, Sha256};
use commonware_glue::stateful::db::{DatabaseSet as _, Merkleized as _};
use commonware_runtime::{Runner as _, buffer::paged::CacheRef, tokio as runtime};
use commonware_storage::archive::Archive as _;
use ledger::{BlockContext, Rules};
use model::{Digest, Header, Suite};
use proof::{Finality, Rosters};
use std::{io::Read, path::PathBuf, sync::Arc};

/// How an archive begins.
pub const MAGIC: &[u8; 18] = b"tongban-archive/1\n";
/// The longest block and proof an archive may hold.
const PART_BYTES_MAX: usize = 16 << 20;
/// After so many blocks applied again, the state is made durable.
const DURABLE_EVERY: u64 = 512;

/// What is wrong with an archive, and where.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read.
    #[error("the archive cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It is no archive of this ledger.
    #[error("{0}")]
    Foreign(&'static str),
    /// A block is damaged, missing or forged.
    #[error("at height {height}: {what}")]
    Damaged {
        /// The height.
        height: u64,
        /// What is wrong.
        what: String,
    },
}

/// How far an archive is in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The newest height.
    pub height: u64,
    /// The newest height a finality proof covers.
    pub final_height: u64,
    /// How many commands it holds.
    pub commands: u64,
    /// How many bytes the commands have.
    pub command_bytes: u64,
    /// The state root after the newest block.
    pub state_root: Digest,
}

impl crate::Chain {
    /// A final block as archives keep it. `None` where it is not final here yet.
    pub async fn archived(&self, height: u64) -> Result<Option<Vec<u8>>, ChainError> {
        if height == 0 || height > self.height() {
            return Ok(None);
        }
        let block = self.block(height).await?.encode();
        let finality = self.finality(height).await?.map(|f| model::encode(&f)).unwrap_or_default();
        let mut record = Vec::with_capacity(block.len() + finality.len() + 8);
        for part in [&block[..], &finality[..]] {
            record.extend_from_slice(&(part.len() as u32).to_le_bytes());
            record.extend_from_slice(part);
        }
        Ok(Some(record))
    }
}

/// Reads an archive block by block and checks each: that it follows the one before, that its commands are their signers',
/// that its events are the ones its header names, and that validators made it or a later one final.
pub struct Archive<R> {
    input: R,
    rules: Rules,
    rosters: Rosters,
    trail: Option<Trail>,
    last: Header,
    last_hash: Digest,
    checked: Checked,
}

pub(crate) fn read_part(input: &mut impl Read) -> Result<Option<Vec<u8>>, std::io::Error> {
    let mut length = [0; 4];
    let mut read = 0;
    while read < 4 {
        match input.read(&mut length[read..])? {
            0 if read == 0 => return Ok(None),
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => read += n,
        }
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > PART_BYTES_MAX {
        return Err(std::io::Error::other("a length is beyond any block's"));
    }
    let mut part = Vec::new();
    input.take(length as u64).read_to_end(&mut part)?;
    if part.len() < length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(part))
}

/// A block as archives keep it.
pub(crate) fn decode_block(bytes: Vec<u8>, rules: &Rules) -> Result<Block, String> {
    Block::decode_cfg(Bytes::from(bytes), &rules.suite()).map_err(|e| format!("no block: {e}"))
}

impl<R: Read> Archive<R> {
    /// Opens an archive of the ledger with these rules.
    pub fn open(mut input: R, rules: Rules) -> Result<Self, ArchiveError> {
        let mut magic = [0; MAGIC.len()];
        let mut chain = [0; 32];
        input.read_exact(&mut magic)?;
        input.read_exact(&mut chain)?;
        if &magic != MAGIC {
            return Err(ArchiveError::Foreign("this is no archive of a ledger"));
        }
        if chain != rules.chain.0 {
            return Err(ArchiveError::Foreign("the archive is of another ledger than the genesis"));
        }
        let shared = Shared::new(rules.clone(), Host::unmoving());
        let genesis = match rules.suite() {
            Suite::International => genesis_block::<runtime::Context, Sha256>(&shared),
            Suite::National => genesis_block::<runtime::Context, Sm3>(&shared),
        };
        let (last, last_hash) = (genesis.header.clone(), genesis.hash());
        let checked = Checked {
            height: 0,
            final_height: 0,
            commands: 0,
            command_bytes: 0,
            state_root: last.state_root,
        };
        let trail = Trail::after(&rules, None, &last, &last_hash);
        let rosters = Rosters::genesis(&rules.genesis);
        Ok(Self { input, rules, rosters, trail, last, last_hash, checked })
    }

    /// How far it is in order.
    pub fn checked(&self) -> &Checked {
        &self.checked
    }

    /// Checks the next block and its own finality proof, where it has one, or says that there is none.
    fn next(&mut self) -> Result<Option<(Block, Option<Finality>)>, ArchiveError> {
        let height = self.last.height + 1;
        let damaged = |what: &str| ArchiveError::Damaged { height, what: what.to_owned() };
        let torn = |e: std::io::Error| ArchiveError::Damaged { height, what: format!("it is cut off: {e}") };
        let Some(bytes) = read_part(&mut self.input).map_err(torn)? else { return Ok(None) };
        let finality = read_part(&mut self.input).map_err(torn)?.ok_or_else(|| damaged("it is cut off"))?;
        let block = decode_block(bytes, &self.rules).map_err(|e| damaged(&e))?;
        let header = &block.header;
        let genesis = &self.rules.genesis;
        let follows = header.parent == self.last_hash
            && header.height == height
            && header.epoch == genesis.epoch_of(height)
            && block.end.is_some() == genesis.ends_epoch(height)
            && header.chain.0 == self.rules.chain.0
            && header.time_ms >= self.last.time_ms;
        if !follows {
            return Err(damaged("the block does not follow the one before it"));
        }
        let wrong = |e: proof::Rejected| ArchiveError::Damaged { height, what: e.to_string() };
        let roster = self.rosters.of(header).map_err(wrong)?;
        let mut items = Vec::with_capacity(block.entries.len());
        for entry in block.entries.iter() {
            let key = self.rules.admit(roster, &entry.command.signed);
            items.push((key.ok_or_else(|| damaged("a command is no member's"))?, &entry.command.signed));
            self.checked.command_bytes += entry.command.bytes.len() as u64;
        }
        if !crypto::verify_commands(&items).into_iter().all(|good| good) {
            return Err(damaged("a command's signature does not verify"));
        }
        let mut proved = None;
        if !finality.is_empty() {
            let finality: Finality =
                model::decode(&finality).map_err(|_| damaged("its finality proof cannot be read"))?;
            proof::verify_finality(&finality, self.rules.chain, genesis, &self.rosters, header)
                .map_err(wrong)?;
            self.checked.final_height = height;
            proved = Some(finality);
        }
        if let Some(end) = &block.end {
            let blocks = self.trail.as_ref().map(|trail| trail.root(&self.rules));
            if blocks != Some(end.blocks) {
                return Err(damaged("the epoch's end does not sum up its headers"));
            }
            self.rosters.follow(genesis, header, end).map_err(wrong)?;
        }
        self.trail = Trail::after(&self.rules, self.trail.as_ref(), header, &block.hash());
        self.last = header.clone();
        self.last_hash = block.hash();
        self.checked.height = height;
        self.checked.commands += block.entries.len() as u64;
        self.checked.state_root = header.state_root;
        Ok(Some((block, proved)))
    }

    /// Checks every byte to the end. `progress` is told each height.
    pub fn check(self, progress: impl Fn(u64)) -> Result<Checked, ArchiveError> {
        self.follow(|block| progress(block.height))
    }

    /// Checks every byte to the end, and gives out the events block by block. They are believed only where it ends well.
    pub fn follow(mut self, mut each: impl FnMut(&BlockEvents)) -> Result<Checked, ArchiveError> {
        while let Some((block, _)) = self.next()? {
            each(&events_of(&block));
        }
        self.end()
    }

    fn end(self) -> Result<Checked, ArchiveError> {
        let Checked { height, final_height, .. } = self.checked;
        if final_height < height {
            let what = "no finality proof covers the blocks from here on".to_owned();
            return Err(ArchiveError::Damaged { height: final_height + 1, what });
        }
        Ok(self.checked)
    }
}

impl<R: Read + Send + 'static> Archive<R> {
    /// Tries a holder's policy on every call while the commands are applied again: [`Self::replay`] comes out the same.
    pub fn trying(mut self, trial: Arc<ledger::Trial>) -> Self {
        self.rules.trial = Some(trial);
        self
    }

    /// Checks every byte and applies every command again, from nothing: each outcome, epoch's end and state root must come out
    /// as the block says. The state is built in `scratch`, an empty folder.
    pub fn replay(
        self,
        scratch: PathBuf,
        progress: impl Fn(u64) + Send + 'static,
    ) -> Result<Checked, ArchiveError> {
        match self.rules.suite() {
            Suite::International => self.replay_in::<Sha256>(scratch, progress),
            Suite::National => self.replay_in::<Sm3>(scratch, progress),
        }
    }

    fn replay_in<H: TreeHash>(
        mut self,
        scratch: PathBuf,
        progress: impl Fn(u64) + Send + 'static,
    ) -> Result<Checked, ArchiveError> {
        let settings = runtime::Config::new().with_worker_threads(2).with_storage_directory(scratch);
        runtime::Runner::new(settings).start(|context| async move {
            let shared = Arc::new(Shared::new(self.rules.clone(), Host::of_machine()));
            let genesis = genesis_block::<runtime::Context, H>(&shared);
            let app = App::<H>::new(shared, genesis);
            let state = State::open(context).await;
            loop {
                let before = self.trail.clone();
                let Some((block, _)) = self.next()? else { break };
                state.apply(&app, &block, before).await?;
                app.shared.learn(&block);
                progress(block.header.height);
            }
            self.end()
        })
    }
}

impl<R: Read + Send + 'static> Archive<R> {
    /// Checks every byte and puts each block with its finality proof into an empty ledger folder, from which a node then applies
    /// them by itself. What it holds of votes is nothing: such a validator abstains until the next epoch.
    pub fn restore(
        mut self,
        folder: PathBuf,
        progress: impl Fn(u64) + Send + 'static,
    ) -> Result<Checked, ArchiveError> {
        let settings = runtime::Config::new().with_worker_threads(2).with_storage_directory(folder);
        runtime::Runner::new(settings).start(|context| async move {
            let cache = CacheRef::new(crate::engine::PAGE_SIZE, crate::engine::PAGE_CACHE);
            let (mut finalizations, mut blocks) = open_archives(&context, &cache, self.rules.suite()).await;
            while let Some((block, finality)) = self.next()? {
                let (height, digest) = (block.header.height, block.digest());
                if let Some(finality) = finality {
                    let roster = self.rosters.of(&block.header).expect("it was just checked");
                    let certificate = certificate_of(&finality, roster, digest);
                    finalizations = finalizations.put(height, digest, &certificate).await.map_err(disk)?;
                }
                blocks = blocks.put(height, digest, &Arc::new(block)).await.map_err(disk)?;
                if height.is_multiple_of(DURABLE_EVERY) {
                    (finalizations, blocks) =
                        (finalizations.sync().await.map_err(disk)?, blocks.sync().await.map_err(disk)?);
                }
                progress(height);
            }
            finalizations.sync().await.map_err(disk)?;
            blocks.sync().await.map_err(disk)?;
            self.end()
        })
    }
}

fn disk(e: impl std::fmt::Display) -> ArchiveError {
    ArchiveError::Io(std::io::Error::other(e.to_string()))
}

struct State<E: Engine, H: TreeHash>(Dbs<E, H>);

impl<E: Engine, H: TreeHash> State<E, H> {
    async fn open(context: E) -> Self {
        let cache = CacheRef::new(crate::engine::PAGE_SIZE, crate::engine::PAGE_CACHE);
        Self(Dbs::<E, H>::init(context.child("state"), state_config(&cache), None).await)
    }

    async fn apply(&self, app: &App<H>, block: &Block, before: Option<Trail>) -> Result<(), ArchiveError> {
        let header = &block.header;
        let damaged = |what: &str| ArchiveError::Damaged { height: header.height, what: what.to_owned() };
        let batches = self.0.new_batches().await;
        let known = app.roster(header.epoch);
        let context = BlockContext { height: header.height, time_ms: header.time_ms, roster: &known.roster };
        let commands = block.entries.iter().map(|e| e.command.clone()).collect();
        let trail = before.filter(|_| block.end.is_some());
        let applied = app.execute::<E>(context, commands, batches, trail, false).await;
        let Executed { entries, end, merkleized } =
            applied.ok_or_else(|| damaged("a command was ordered before"))?;
        let same = entries.iter().zip(block.entries.iter()).all(|(a, b)| a.outcome_bytes == b.outcome_bytes);
        if !same {
            return Err(damaged("a command comes out otherwise than the block says"));
        }
        if end.as_ref() != block.end.as_deref() {
            return Err(damaged("the epoch ends otherwise than the block says"));
        }
        if our_digest(&merkleized.root()) != header.state_root {
            return Err(damaged("the state comes out otherwise than the block says"));
        }
        self.0.apply(merkleized).await;
        if header.height.is_multiple_of(DURABLE_EVERY) {
            self.0.finalize().await.durable().await;
        }
        Ok(())
    }
}
