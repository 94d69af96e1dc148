//! What the rest of a node sees of the ledger: submit, follow, read, prove.

use crate::{
    Host, Level,
    block::{Admitted, Block, D, leaves},
    pool::{Pool, Rejected},
    rosters::{Rosters, Trails},
    scheme::{Certificate, Scheme, Signature},
    shelf::Shelf,
};
use bytes::Bytes;
use commonware_consensus::{
    simplex::types::{Finalization, Proposal},
    types::{Epoch, Round, View},
};
use commonware_cryptography::certificate::Signers;
use commonware_utils::Participant;
use ledger::{Key, Position, Rules};
use model::*;
use proof::{Checkpoint, End, EventProof, Finality, Link, Linked, Role, RosterChange, Vote};
use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

/// How many final blocks are kept in memory for followers.
const RECENT: usize = 512;

/// Why the ledger could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChainError {
    /// The command was not taken in.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The engine has stopped.
    #[error("this node's ledger engine has stopped; see its log, then start the node again")]
    Stopped,
    /// The command was not ordered in time.
    #[error("the ledger did not order the command within {0:?}: too few validators may be up")]
    TimedOut(Duration),
    /// No such command, or not final here yet.
    #[error("no such command is final on this node")]
    Unknown,
}

/// Why nothing is pruned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PruneError {
    /// The node has no archive.
    #[error("this node has no archive: name one as `archive` in node.toml and start it again")]
    NoArchive,
    /// The archive cannot be read.
    #[error("the archive {0} cannot be read: {1}")]
    Archive(String, String),
    /// The engine has stopped.
    #[error("the ledger's engine has stopped")]
    Stopped,
}

/// A sealed message from another department's node, off the ledger.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The department whose node sent it, as its connection proved.
    pub from: DepartmentId,
    /// What it sent.
    pub bytes: Bytes,
}

/// The events of one final block.
#[derive(Debug, Clone)]
pub struct BlockEvents {
    /// The height.
    pub height: u64,
    /// The block's time in milliseconds since 1970.
    pub time_ms: u64,
    /// The hash of the header.
    pub hash: Digest,
    /// The events in their order.
    pub events: Vec<Event>,
}

pub(crate) enum Request {
    Block(u64, oneshot::Sender<Option<Block>>),
    Finality(u64, oneshot::Sender<Option<Finality>>),
    Record(Digest, oneshot::Sender<Option<Vec<u8>>>),
    Prune(u64),
    Metrics(oneshot::Sender<String>),
    Tell(Vec<Arc<Admitted>>),
    Post(DepartmentId, Bytes),
    Stop,
}

/// What the engine's tasks and the handles share within one node.
pub(crate) struct Shared {
    pub(crate) rules: Rules,
    pub(crate) pool: Pool,
    pub(crate) host: Host,
    head: Level,
    /// The height again, which closing does not change.
    height: Level,
    /// The newest epoch whose roster is known.
    pub(crate) epoch: Level,
    /// Whether a change waits for the end of the epoch: then leaders do not wait with blocks until it ends.
    hurry: AtomicBool,
    /// Whether this node votes in the epoch it is in.
    votes: AtomicBool,
    /// Where this node's archive lies, or will; and the archive, once it is there.
    pub(crate) archive: OnceLock<PathBuf>,
    pub(crate) shelf: OnceLock<Shelf>,
    pub(crate) rosters: Arc<Rosters>,
    pub(crate) trails: Mutex<Trails>,
    recent: Mutex<VecDeque<Block>>,
    waiters: Mutex<BTreeMap<CommandId, Vec<oneshot::Sender<Event>>>>,
    last_block: Mutex<Duration>,
}

impl Shared {
    pub(crate) fn new(rules: Rules, host: Host) -> Self {
        Self {
            pool: Pool::new(rules.clone(), host.clone()),
            rosters: Arc::new(Rosters::new(&rules)),
            rules,
            head: Level::default(),
            height: Level::default(),
            epoch: Level::default(),
            hurry: AtomicBool::new(false),
            votes: AtomicBool::new(false),
            archive: OnceLock::new(),
            shelf: OnceLock::new(),
            trails: Mutex::default(),
            recent: Mutex::default(),
            waiters: Mutex::default(),
            last_block: Mutex::new(host.steady()),
            host,
        }
    }

    pub(crate) fn height(&self) -> u64 {
        self.height.get()
    }

    pub(crate) fn note_block(&self) {
        *self.last_block.lock().expect("no holder panics") = self.host.steady();
    }

    pub(crate) fn since_block(&self) -> Duration {
        self.host.steady().saturating_sub(*self.last_block.lock().expect("no holder panics"))
    }

    pub(crate) fn hurries(&self) -> bool {
        self.hurry.load(Ordering::SeqCst)
    }

    pub(crate) fn note_voting(&self, votes: bool) {
        self.votes.store(votes, Ordering::SeqCst);
    }

    /// Takes note of a block for the trail of its epoch.
    pub(crate) fn note_trail(&self, block: &Block) {
        self.trails.lock().expect("no holder panics").note(&self.rules, &block.header, block.hash());
    }

    /// Learns the roster an epoch's last block names.
    pub(crate) fn learn(&self, last: &Block) {
        let Some(end) = &last.end else { return };
        let next = last.header.epoch + 1;
        self.rosters.learn(&self.rules, next, &end.roster);
        self.hurry.store(false, Ordering::SeqCst);
        self.epoch.raise(next);
    }

    /// Takes note of a final block. May be called again for the same block after a restart.
    pub(crate) fn finalized(&self, block: &Block) {
        let height = block.header.height;
        if block.entries.iter().any(|e| matches!(e.outcome, Outcome::Accepted(Fact::Adopted(_)))) {
            self.hurry.store(true, Ordering::SeqCst);
        }
        self.learn(block);
        self.pool.settle(block.entries.iter().map(|e| &e.command));
        {
            let mut recent = self.recent.lock().expect("no holder panics");
            recent.push_back(block.clone());
            if recent.len() > RECENT {
                recent.pop_front();
            }
        }
        // before anybody is told of a command in it: they may read the block at once
        self.height.raise(height);
        self.head.raise(height);
        {
            let mut waiters = self.waiters.lock().expect("no holder panics");
            if !waiters.is_empty() {
                for (index, entry) in block.entries.iter().enumerate() {
                    for waiter in waiters.remove(&entry.command.id).unwrap_or_default() {
                        let _ = waiter.send(event(block, index));
                    }
                }
                waiters.retain(|_, list| {
                    list.retain(|w| !w.is_closed());
                    !list.is_empty()
                });
            }
        }
    }

    /// The engine has stopped: whoever waits for it learns so.
    pub(crate) fn close(&self) {
        self.head.close();
        self.epoch.close();
        self.waiters.lock().expect("no holder panics").clear();
    }

    fn recent(&self, height: u64) -> Option<Block> {
        let recent = self.recent.lock().expect("no holder panics");
        let first = recent.front()?.header.height;
        recent.get(height.checked_sub(first)? as usize).filter(|b| b.header.height == height).cloned()
    }
}

fn event(block: &Block, index: usize) -> Event {
    let entry = &block.entries[index];
    Event {
        height: block.header.height,
        index: index as u32,
        time_ms: block.header.time_ms,
        id: entry.command.id,
        command: entry.command.signed.clone(),
        outcome: entry.outcome.clone(),
    }
}

pub(crate) fn events_of(block: &Block) -> BlockEvents {
    BlockEvents {
        height: block.header.height,
        time_ms: block.header.time_ms,
        hash: block.hash(),
        events: (0..block.entries.len()).map(|i| event(block, i)).collect(),
    }
}

/// Commands that were submitted, each with what tells that it is final.
pub struct Submitted(Vec<Result<(CommandId, oneshot::Receiver<Event>), ChainError>>);

impl Submitted {
    /// Each command by itself, to be waited for apart from the others.
    pub fn each(self) -> impl Iterator<Item = Self> {
        self.0.into_iter().map(|one| Self(vec![one]))
    }
}

/// A handle on this node's ledger. Cloning is cheap.
#[derive(Clone)]
pub struct Chain {
    pub(crate) shared: Arc<Shared>,
    pub(crate) requests: mpsc::UnboundedSender<Request>,
}

impl Chain {
    /// The rules: chain ID and genesis.
    pub fn rules(&self) -> &Rules {
        &self.shared.rules
    }

    /// The roster in force, and its epoch.
    pub fn roster(&self) -> (u64, Arc<Roster>) {
        let (epoch, known) = self.shared.rosters.newest();
        (epoch, known.roster.clone())
    }

    /// Whether this node votes in the epoch it is in: not where it is no validator, or lost its record of votes.
    pub fn votes(&self) -> bool {
        self.shared.votes.load(Ordering::SeqCst)
    }

    /// Waits until an epoch is reached; false where the engine stopped instead.
    pub async fn epoch_reached(&self, epoch: u64) -> bool {
        self.shared.epoch.reached(epoch).await
    }

    /// The height of the newest block this node knows to be final.
    pub fn height(&self) -> u64 {
        self.shared.height()
    }

    /// How many commands wait at this node.
    pub fn waiting(&self) -> usize {
        self.shared.pool.len()
    }

    /// Takes commands in to be ordered, given as their canonical bytes; a verdict for each. Taking in the same command
    /// twice is harmless: the ledger orders it once.
    pub fn submit(&self, commands: Vec<Bytes>) -> Vec<Result<CommandId, Rejected>> {
        let decoded = commands.into_iter().map(Admitted::decode).collect();
        let (_, known) = self.shared.rosters.newest();
        let verdicts = self.shared.pool.admit(&known.roster, decoded, self.shared.host.now_ms(), true);
        let told: Vec<_> = verdicts.iter().filter_map(|v| v.as_ref().ok().cloned()).collect();
        if !told.is_empty() {
            let _ = self.requests.send(Request::Tell(told));
        }
        verdicts.into_iter().map(|v| v.map(|c| c.id)).collect()
    }

    /// Submits commands and waits until each is final.
    pub async fn submit_and_wait(
        &self,
        commands: Vec<Bytes>,
        patience: Duration,
    ) -> Vec<Result<Event, ChainError>> {
        self.ordered(self.submit_to_wait(commands), patience).await
    }

    /// Submits commands, to be waited for with [`Self::ordered`]. Signatures are verified here: a long batch keeps its thread busy.
    pub fn submit_to_wait(&self, commands: Vec<Bytes>) -> Submitted {
        if self.requests.is_closed() {
            return Submitted(commands.iter().map(|_| Err(ChainError::Stopped)).collect());
        }
        let decoded: Vec<_> = commands.iter().map(|c| Admitted::decode(c.clone()).map(|a| a.id)).collect();
        let mut waiting = Vec::with_capacity(commands.len());
        {
            let mut waiters = self.shared.waiters.lock().expect("no holder panics");
            for id in &decoded {
                let (sender, receiver) = oneshot::channel();
                if let Some(id) = id {
                    waiters.entry(*id).or_default().push(sender);
                }
                waiting.push(receiver);
            }
        }
        let verdicts = self.submit(commands).into_iter().zip(waiting);
        Submitted(verdicts.map(|(verdict, receiver)| Ok((verdict?, receiver))).collect())
    }

    /// Waits until each of the submitted commands is final.
    pub async fn ordered(&self, submitted: Submitted, patience: Duration) -> Vec<Result<Event, ChainError>> {
        let deadline = self.shared.host.steady() + patience;
        let mut results = Vec::with_capacity(submitted.0.len());
        for taken_in in submitted.0 {
            results.push(match taken_in {
                Err(error) => Err(error),
                Ok((id, receiver)) => match self.shared.host.timeout(self.left(deadline), receiver).await {
                    Some(Ok(event)) => Ok(event),
                    Some(Err(_)) => Err(ChainError::Stopped),
                    // ordered before this call, perhaps: then it is on record
                    None => self.event(id).await.map_err(|_| ChainError::TimedOut(patience)),
                },
            });
        }
        results
    }

    fn left(&self, deadline: Duration) -> Duration {
        deadline.saturating_sub(self.shared.host.steady())
    }

    /// Time and tasks of this node.
    pub fn host(&self) -> &Host {
        &self.shared.host
    }

    /// The events from a height on, block by block, each block once and in order.
    pub fn events(&self, from: u64) -> Events {
        Events { chain: self.clone(), next: from.max(1) }
    }

    /// Waits until a height is final here.
    pub async fn reached(&self, height: u64) {
        self.shared.head.reached(height).await;
    }

    pub(crate) async fn block(&self, height: u64) -> Result<Block, ChainError> {
        if let Some(block) = self.shared.recent(height) {
            return Ok(block);
        }
        let (sender, receiver) = oneshot::channel();
        self.requests.send(Request::Block(height, sender)).map_err(|_| ChainError::Stopped)?;
        match receiver.await.map_err(|_| ChainError::Stopped)? {
            Some(block) => Ok(block),
            None => self.shelved(height).map(|(block, _)| block).ok_or(ChainError::Unknown),
        }
    }

    /// A block that was pruned here, from the archive.
    fn shelved(&self, height: u64) -> Option<(Block, Option<Finality>)> {
        let shelf = self.shared.shelf.get()?;
        shelf.read(height).unwrap_or_else(|e| {
            error!(height, archive = %shelf.path().display(), error = %e, "a pruned block cannot be read from the archive");
            None
        })
    }

    /// Up to which height, exclusive, blocks below a height can be pruned: as far as the archive holds them, and never the epoch
    /// under way and the one before.
    pub fn prunable(&self, below: u64) -> Result<u64, PruneError> {
        let path = self.shared.archive.get().ok_or(PruneError::NoArchive)?;
        let failed = |e: std::io::Error| PruneError::Archive(path.display().to_string(), e.to_string());
        if self.shared.shelf.get().is_none() {
            let opened = Shelf::open(path, self.shared.rules.clone()).map_err(failed)?;
            let _ = self.shared.shelf.set(opened);
        }
        let shelf = self.shared.shelf.get().expect("just set");
        shelf.refresh().map_err(failed)?;
        let genesis = &self.shared.rules.genesis;
        let kept_from = genesis.epoch_of(self.height()).saturating_sub(1) * genesis.epoch_blocks;
        Ok(below.min(kept_from).min(shelf.height() + 1))
    }

    /// Prunes blocks below a height from this node's folder, as far as they can be: they are read from the archive from now on.
    /// Returns the height below which it prunes.
    pub fn prune(&self, below: u64) -> Result<u64, PruneError> {
        let below = self.prunable(below)?;
        self.requests.send(Request::Prune(below)).map_err(|_| PruneError::Stopped)?;
        Ok(below)
    }

    /// The events of one final block.
    pub async fn block_events(&self, height: u64) -> Result<BlockEvents, ChainError> {
        Ok(events_of(&self.block(height).await?))
    }

    /// The event of a final command.
    pub async fn event(&self, id: CommandId) -> Result<Event, ChainError> {
        let position = self.position(id).await?;
        let block = self.block(position.height).await?;
        Ok(event(&block, position.index as usize))
    }

    async fn position(&self, id: CommandId) -> Result<Position, ChainError> {
        self.record(&Key::Command(id)).await?.ok_or(ChainError::Unknown)
    }

    /// Reads a record of the state.
    pub async fn record<T: borsh::BorshDeserialize>(&self, key: &Key) -> Result<Option<T>, ChainError> {
        let (sender, receiver) = oneshot::channel();
        self.requests
            .send(Request::Record(key.digest(self.shared.rules.suite()), sender))
            .map_err(|_| ChainError::Stopped)?;
        let bytes = receiver.await.map_err(|_| ChainError::Stopped)?;
        Ok(bytes.map(|b| decode(&b).expect("the state holds only what the ledger encoded")))
    }

    /// Proves that a command was ordered and what came of it.
    pub async fn prove(&self, id: CommandId, role: Role) -> Result<EventProof, ChainError> {
        let position = self.position(id).await?;
        let block = self.block(position.height).await?;
        let suite = self.shared.rules.suite();
        let leaves = leaves(suite, &block.entries);
        let index = position.index as usize;
        let entry = &block.entries[index];
        let mut walk = Vec::new();
        let mut height = position.height;
        let finality = loop {
            if let Some(finality) = self.finality(height).await? {
                break finality;
            }
            height += 1;
            self.reached(height).await;
            walk.push(encode(&self.block(height).await?.header));
        };
        Ok(EventProof {
            role,
            command: entry.command.bytes.to_vec(),
            outcome: entry.outcome_bytes.clone(),
            index: position.index,
            size: block.entries.len() as u32,
            path: merkle::path(crypto::tree(suite), &leaves, index),
            header: encode(&block.header),
            walk,
            finality,
        })
    }

    /// The first epoch of the roster that is in force in an epoch.
    async fn roster_since(&self, epoch: u64) -> Result<u64, ChainError> {
        if let Some(known) = self.shared.rosters.of(epoch) {
            return Ok(known.roster.epoch);
        }
        let last = self.block(self.shared.rules.genesis.last_of(epoch - 1)).await?;
        last.end.as_ref().map(|end| end.roster.epoch).ok_or(ChainError::Unknown)
    }

    /// Every change of the roster up to an epoch, as receipts carry them.
    pub async fn roster_changes(&self, epoch: u64) -> Result<Vec<RosterChange>, ChainError> {
        let mut changes = Vec::new();
        let mut since = self.roster_since(epoch).await?;
        while since > 0 {
            let height = self.shared.rules.genesis.last_of(since - 1);
            let last = self.block(height).await?;
            let finality = self.finality(height).await?.ok_or(ChainError::Unknown)?;
            let end = last.end.as_ref().ok_or(ChainError::Unknown)?;
            changes.push(RosterChange {
                header: encode(&last.header),
                finality,
                roster: encode(&end.roster),
                blocks: end.blocks,
                past: end.past,
            });
            since = self.roster_since(since - 1).await?;
        }
        changes.reverse();
        Ok(changes)
    }

    /// The last header of an epoch, and what it sums up.
    async fn end_of(&self, epoch: u64) -> Result<(Header, End), ChainError> {
        let last = self.block(self.shared.rules.genesis.last_of(epoch)).await?;
        let end = last.end.as_ref().ok_or(ChainError::Unknown)?;
        let roster = crypto::roster_hash(self.shared.rules.suite(), &end.roster);
        Ok((last.header.clone(), End { roster, blocks: end.blocks, past: end.past }))
    }

    /// The last header of the newest epoch that is over, to be published elsewhere; `None` in the first epoch.
    pub async fn checkpoint(&self) -> Result<Option<Checkpoint>, ChainError> {
        let rules = &self.shared.rules;
        let Some(epoch) = rules.genesis.epoch_of(self.height() + 1).checked_sub(1) else { return Ok(None) };
        let (header, end) = self.end_of(epoch).await?;
        let hash = crypto::header_hash(rules.suite(), &header);
        Ok(Some(Checkpoint { format: 1, chain_id: rules.chain, hash, header: encode(&header), end }))
    }

    /// Shows that heights come before a checkpoint, which must be this ledger's last header of an epoch.
    pub async fn link(&self, heights: &[u64], checkpoint: u64) -> Result<Link, ChainError> {
        let (genesis, suite) = (&self.shared.rules.genesis, self.shared.rules.suite());
        let tree = crypto::tree(suite);
        if !genesis.ends_epoch(checkpoint) || heights.iter().any(|height| *height > checkpoint) {
            return Err(ChainError::Unknown);
        }
        let newest = genesis.epoch_of(checkpoint);
        let mut past = Vec::with_capacity(newest as usize);
        let leaf = |header: &Header| crypto::header_leaf(suite, &crypto::header_hash(suite, header));
        for epoch in 0..newest {
            past.push(leaf(&self.block(genesis.last_of(epoch)).await?.header));
        }
        let mut headers = Vec::with_capacity(heights.len());
        let mut of_epoch: (u64, Vec<Digest>) = (u64::MAX, vec![]);
        for height in heights {
            let epoch = genesis.epoch_of(*height);
            let (last, end) = self.end_of(epoch).await?;
            let mut in_epoch = vec![];
            if *height != last.height {
                let first = epoch * genesis.epoch_blocks;
                if of_epoch.0 != epoch {
                    let mut leaves = Vec::with_capacity(genesis.epoch_blocks as usize);
                    for before in first..last.height {
                        leaves.push(leaf(&self.block(before).await?.header));
                    }
                    of_epoch = (epoch, leaves);
                }
                in_epoch = merkle::path(tree, &of_epoch.1, (height - first) as usize);
            }
            let in_past = if epoch < newest { merkle::path(tree, &past, epoch as usize) } else { vec![] };
            headers.push(Linked { height: *height, in_epoch, last: encode(&last), end, in_past });
        }
        let (header, _) = self.end_of(newest).await?;
        Ok(Link { format: 1, checkpoint: crypto::header_hash(suite, &header), headers })
    }

    /// The finality proof of a height itself, where there is one.
    pub(crate) async fn finality(&self, height: u64) -> Result<Option<Finality>, ChainError> {
        let (sender, receiver) = oneshot::channel();
        self.requests.send(Request::Finality(height, sender)).map_err(|_| ChainError::Stopped)?;
        let own = receiver.await.map_err(|_| ChainError::Stopped)?;
        Ok(own.or_else(|| self.shelved(height)?.1))
    }

    /// Sends a sealed message to another department's node. It may be lost: whoever needs it asks again.
    pub fn post(&self, to: DepartmentId, letter: Vec<u8>) {
        let _ = self.requests.send(Request::Post(to, letter.into()));
    }

    /// The engine's metrics in the Prometheus text format.
    pub async fn metrics(&self) -> Result<String, ChainError> {
        let (sender, receiver) = oneshot::channel();
        self.requests.send(Request::Metrics(sender)).map_err(|_| ChainError::Stopped)?;
        receiver.await.map_err(|_| ChainError::Stopped)
    }

    /// Resolves when the engine has stopped, asked to or not.
    pub async fn stopped(&self) {
        self.requests.closed().await;
    }

    /// Stops the engine; what is final stays final.
    pub fn stop(&self) {
        let _ = self.requests.send(Request::Stop);
    }
}

/// The stream of final blocks.
pub struct Events {
    chain: Chain,
    next: u64,
}

impl Events {
    /// The next block, waiting for it where it is not final yet.
    pub async fn next(&mut self) -> Result<BlockEvents, ChainError> {
        let next = self.next;
        if !self.chain.shared.head.reached(next).await {
            return Err(ChainError::Stopped);
        }
        let block = self.chain.block_events(next).await?;
        self.next += 1;
        Ok(block)
    }
}

/// Finality as receipts carry it.
pub(crate) fn finality_of(certificate: &Finalization<Scheme, D>) -> Finality {
    let proposal = &certificate.proposal;
    let votes = certificate.certificate.signers.iter().zip(&certificate.certificate.signatures);
    Finality {
        epoch: proposal.round.epoch().get(),
        view: proposal.round.view().get(),
        parent_view: proposal.parent.get(),
        votes: votes.map(|(signer, s)| Vote { signer: signer.get(), signature: s.0.to_vec() }).collect(),
    }
}

/// Finality as the engine keeps it.
pub(crate) fn certificate_of(finality: &Finality, roster: &Roster, payload: D) -> Finalization<Scheme, D> {
    let signers = finality.votes.iter().map(|vote| Participant::new(vote.signer));
    let signers = Signers::new(roster.validators().len() as u32, signers);
    let signature =
        |vote: &Vote| Signature(vote.signature[..].try_into().expect("a checked vote has 64 bytes"));
    let round = Round::new(Epoch::new(finality.epoch), View::new(finality.view));
    Finalization {
        proposal: Proposal::new(round, View::new(finality.parent_view), payload),
        certificate: Certificate {
            signers: signers.expect("checked votes are each a validator's, once"),
            signatures: finality.votes.iter().map(signature).collect(),
        },
    }
}
