//! The engine's application: builds blocks from the pool and checks others' blocks, by the ledger's rules.

use crate::{
    block::{Admitted, Block, Ctx, D, Entry, end_hash, engine_digest, event_root, our_digest},
    handle::Shared,
    pool::Pool,
    rosters::{Known, Trail, trail_of},
    scheme::Scheme,
    tree::TreeHash,
};
use commonware_consensus::{Handoff, marshal::ancestry::Ancestry};
use commonware_cryptography::{Digested, Digestible as _};
use commonware_glue::stateful::{
    Application, Finality, Input, Proposed,
    db::{DatabaseSet, Merkleized as _, Reader, Shared as SharedDb, Unmerkleized as _},
};
use commonware_parallel::Sequential;
use commonware_runtime::{Clock, Spawner};
use commonware_storage::{
    Context as StorageContext, mmr,
    qmdb::{any::ordered::variable::Operation, current::ordered::variable, sync::Target},
    translator::EightCap,
};
use commonware_utils::{non_empty_range, range::NonEmptyRange};
use futures::{Stream, StreamExt as _};
use ledger::{BlockContext, Missing, Overlay, first_reads};
use model::{Digest, EpochEnd, Header};
use rand_core::CryptoRng;
use std::{collections::HashSet, marker::PhantomData, sync::Arc, time::Duration};

/// The longest record of the state, in bytes.
pub(crate) const RECORD_BYTES_MAX: usize = 128 * 1024;
/// An idle leader proposes an empty block after this.
const HEARTBEAT: Duration = Duration::from_millis(900);
/// With little to do, blocks are at least this far apart, so that commands share the cost of a block.
const BLOCK_INTERVAL: Duration = Duration::from_millis(33);
/// With this many commands waiting, a leader does not wait.
const BUSY: usize = 128;
/// How far a block's time may be ahead of a validator's clock before the validator holds back its vote.
pub(crate) const DRIFT_MS_MAX: u64 = 2_000;

/// No ledger stands still for longer than this between two blocks: ten years.
const PAUSE_MS_MAX: u64 = 10 * 365 * 86_400_000;

/// The authenticated state database, on the hash of the suite.
pub(crate) type Qmdb<E, H> = variable::Db<mmr::Family, E, D, Vec<u8>, H, EightCap, 32, Sequential>;
/// An operation of its log.
pub(crate) type Op = Operation<mmr::Family, D, Vec<u8>>;
/// As the engine holds it.
pub(crate) type Dbs<E, H> = SharedDb<Qmdb<E, H>>;
type Batches<E, H> = <Dbs<E, H> as DatabaseSet<E>>::Unmerkleized;
type Merkleized<E, H> = <Dbs<E, H> as DatabaseSet<E>>::Merkleized;

/// What the engine can run on.
pub trait Engine: Spawner + StorageContext + CryptoRng + Clock {}
impl<E: Spawner + StorageContext + CryptoRng + Clock> Engine for E {}

/// The block everything starts from.
pub(crate) fn genesis_block<E: Engine, H: TreeHash>(shared: &Shared) -> Block {
    let target = <Dbs<E, H> as DatabaseSet<E>>::initial_sync_targets();
    let rules = &shared.rules;
    let first = shared.rosters.of(0).expect("the genesis' roster is known");
    let header = Header {
        chain: Digest(rules.chain.0),
        epoch: 0,
        view: 0,
        leader: first.roster.validators()[0].node_key.0,
        parent_view: 0,
        parent: Digest::default(),
        height: 0,
        time_ms: rules.genesis.time_ms,
        state_root: Digest::default(),
        log_root: our_digest(&target.root),
        log_start: *target.range.start(),
        log_end: *target.range.end(),
        event_root: event_root(rules.suite(), &[]),
        roster: first.hash,
        epoch_end: Digest::default(),
    };
    Block::from_header(rules.suite(), header).expect("a genesis has valid keys")
}

/// The application.
pub(crate) struct App<H> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) genesis: Block,
    hash: PhantomData<H>,
}

impl<H> Clone for App<H> {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone(), self.genesis.clone())
    }
}

/// What a block's commands come to.
pub(crate) struct Executed<E: Engine, H: TreeHash> {
    pub(crate) entries: Vec<Entry>,
    pub(crate) end: Option<EpochEnd>,
    pub(crate) merkleized: Merkleized<E, H>,
}

impl<H> App<H> {
    pub(crate) fn new(shared: Arc<Shared>, genesis: Block) -> Self {
        Self { shared, genesis, hash: PhantomData }
    }

    /// Whether a command was ordered in a block that is final here, and so will never be ordered again.
    fn is_final(&self, position: &[u8]) -> bool {
        model::decode::<ledger::Position>(position).is_ok_and(|p| p.height <= self.shared.height())
    }

    /// Decides commands on the state of the parent, and ends the epoch where `trail` says what came before in it. `None`
    /// where a command is already ordered and `skip` is false.
    pub(crate) async fn execute<E: Engine>(
        &self,
        block: BlockContext<'_>,
        commands: Vec<Arc<Admitted>>,
        mut batches: Batches<E, H>,
        trail: Option<Trail>,
        skip: bool,
    ) -> Option<Executed<E, H>>
    where
        H: TreeHash,
    {
        let suite = self.shared.rules.suite();
        let position = |id| ledger::Key::Command(id).digest(suite);
        let mut overlay = Overlay::new(suite);
        let mut keys = Vec::with_capacity(commands.len() * 3);
        for command in &commands {
            keys.push(engine_digest(&position(command.id)));
            keys.extend(first_reads(&command.signed.command).iter().map(|k| engine_digest(&k.digest(suite))));
        }
        keys.sort_unstable();
        keys.dedup();
        let refs: Vec<&D> = keys.iter().collect();
        let records = batches.get_many(&refs).await.expect("the state database can be read");
        for (key, record) in keys.iter().zip(records) {
            overlay.insert(our_digest(key), record);
        }
        let mut entries = Vec::with_capacity(commands.len());
        let mut seen = HashSet::with_capacity(commands.len());
        for command in commands {
            let place = position(command.id);
            if overlay.has(&place) || !seen.insert(command.id) {
                if !skip {
                    return None;
                }
                if overlay.peek(&place).is_some_and(|p| self.is_final(p)) {
                    self.shared.pool.settle(std::iter::once(&command));
                }
                continue;
            }
            let index = entries.len() as u32;
            let outcome = loop {
                match self.shared.rules.apply(&mut overlay, block, index, command.id, &command.signed.command)
                {
                    Ok(outcome) => break outcome,
                    Err(missing) => fetch::<E, H>(&batches, &mut overlay, suite, &missing).await,
                }
            };
            let outcome_bytes = model::encode(&outcome);
            entries.push(Entry { command, outcome, outcome_bytes });
        }
        let mut end = None;
        if let Some(trail) = trail {
            let blocks = trail.root(&self.shared.rules);
            while end.is_none() {
                match self.shared.rules.end_epoch(&mut overlay, block, blocks, trail.before) {
                    Ok(ended) => end = Some(ended),
                    Err(missing) => fetch::<E, H>(&batches, &mut overlay, suite, &missing).await,
                }
            }
        }
        for (key, record) in overlay.into_writes() {
            batches = batches.write(engine_digest(&key), Some(record));
        }
        let merkleized = batches.merkleize().await.expect("the state database can be merkleized");
        Some(Executed { entries, end, merkleized })
    }

    /// The trail of a parent whose child ends an epoch.
    async fn trail(
        &self,
        height: u64,
        parent: &Block,
        ancestry: impl Stream<Item = Digested<Block>> + Unpin,
    ) -> Option<Option<Trail>> {
        let rules = &self.shared.rules;
        if !rules.genesis.ends_epoch(height) {
            return Some(None);
        }
        trail_of(rules, &self.shared.trails, parent, ancestry).await.map(Some)
    }

    /// The roster of an epoch; it was named by the last block before it.
    pub(crate) fn roster(&self, epoch: u64) -> Arc<Known> {
        self.shared.rosters.of(epoch).expect("an epoch's blocks come after the block that names its roster")
    }
}

async fn fetch<E: Engine, H: TreeHash>(
    batches: &Batches<E, H>,
    overlay: &mut Overlay,
    suite: model::Suite,
    missing: &Missing,
) {
    let digests: Vec<_> = missing.0.iter().map(|key| key.digest(suite)).collect();
    let keys: Vec<D> = digests.iter().map(engine_digest).collect();
    let refs: Vec<&D> = keys.iter().collect();
    let records = batches.get_many(&refs).await.expect("the state database can be read");
    for (digest, record) in digests.into_iter().zip(records) {
        overlay.insert(digest, record);
    }
}

impl<E: Engine, H: TreeHash> Application<E> for App<H> {
    type SigningScheme = Scheme;
    type Context = Ctx;
    type Block = Block;
    type Databases = Dbs<E, H>;
    type Captured = ();
    type Provider = Pool;
    type Input = ();

    fn sync_targets(block: &Block) -> <Dbs<E, H> as DatabaseSet<E>>::SyncTargets {
        let range: NonEmptyRange<mmr::Location> = non_empty_range!(
            mmr::Location::new(block.header.log_start),
            mmr::Location::new(block.header.log_end)
        );
        Target::new(engine_digest(&block.header.log_root), range)
    }

    async fn genesis(&mut self) -> Block {
        self.genesis.clone()
    }

    async fn propose(
        &mut self,
        (_, context): (E, Ctx),
        ancestry: impl Ancestry<Block>,
        batches: Batches<E, H>,
        input: Input<(), Pool>,
    ) -> Option<Proposed<Self, E>> {
        let mut ancestry = Box::pin(ancestry);
        let parent = ancestry.next().await?;
        let parent = parent.inner();
        let suite = self.shared.rules.suite();
        let (height, time_ms) =
            (parent.header.height + 1, self.shared.host.now_ms().max(parent.header.time_ms));
        let epoch = context.round.epoch().get();
        let known = self.roster(epoch);
        let trail = self.trail(height, parent, ancestry).await?;
        let commands = input.provider.draw(&known.roster, parent.header.height, self.shared.height());
        let block = BlockContext { height, time_ms, roster: &known.roster };
        let Executed { entries, end, merkleized } =
            self.execute::<E>(block, commands, batches, trail, true).await?;
        let bounds = merkleized.bounds();
        let header = Header {
            chain: Digest(self.shared.rules.chain.0),
            epoch,
            view: context.round.view().get(),
            leader: context.leader.as_ref().try_into().expect("a public key has 32 bytes"),
            parent_view: context.parent.0.get(),
            parent: our_digest(&parent.digest()),
            height,
            time_ms,
            state_root: our_digest(&merkleized.root()),
            log_root: our_digest(&merkleized.ops_root()),
            log_start: *merkleized.sync_boundary(),
            log_end: *bounds.tip.size,
            event_root: event_root(suite, &entries),
            roster: known.hash,
            epoch_end: end_hash(suite, end.as_ref()),
        };
        self.shared.pool.carried(height, entries.iter().map(|e| e.command.id));
        let block = Block::new(suite, header, context, end, entries);
        self.shared.note_trail(&block);
        Some(Proposed { block, merkleized })
    }

    async fn process(
        &mut self,
        (runtime, _): (E, Ctx),
        ancestry: impl Ancestry<Block>,
        batches: Batches<E, H>,
        finality: Finality,
    ) -> Option<Merkleized<E, H>> {
        let mut ancestry = Box::pin(ancestry);
        let block = ancestry.next().await?;
        let block = block.inner();
        let header = &block.header;
        let rules = &self.shared.rules;
        let known = self.roster(header.epoch);
        let commands: Vec<_> = block.entries.iter().map(|e| e.command.clone()).collect();
        let ends = rules.genesis.ends_epoch(header.height);
        let mut trail = None;
        if finality == Finality::Candidate || ends {
            let parent = ancestry.next().await?;
            let parent = parent.inner();
            let fits = header.chain.0 == rules.chain.0
                && header.height == parent.header.height + 1
                && header.epoch == rules.genesis.epoch_of(header.height)
                && header.roster == known.hash
                && block.end.is_some() == ends
                && header.time_ms >= parent.header.time_ms
                && header.time_ms <= parent.header.time_ms.saturating_add(PAUSE_MS_MAX);
            if !fits {
                return None;
            }
            trail = self.trail(header.height, parent, ancestry).await?;
        }
        if finality == Finality::Candidate {
            if !self.shared.pool.verify(&known.roster, &commands) {
                return None;
            }
            while header.time_ms > self.shared.host.now_ms() + DRIFT_MS_MAX && !model::planted("any_time") {
                runtime.sleep(Duration::from_millis(50)).await;
            }
        }
        let context = BlockContext { height: header.height, time_ms: header.time_ms, roster: &known.roster };
        let Executed { entries, end, merkleized } =
            self.execute::<E>(context, commands, batches, trail, false).await?;
        let same = entries.iter().zip(block.entries.iter()).all(|(a, b)| a.outcome_bytes == b.outcome_bytes)
            && end.as_ref() == block.end.as_deref();
        if !same || our_digest(&merkleized.root()) != header.state_root {
            return None;
        }
        self.shared.pool.carried(header.height, block.entries.iter().map(|e| e.command.id));
        self.shared.note_block();
        self.shared.note_trail(block);
        Some(merkleized)
    }

    async fn capture(&mut self, _: (E, Ctx), _: &Block, _: &Merkleized<E, H>, _: Reader<Qmdb<E, H>>) {}

    async fn finalized(&mut self, _: (E, Ctx), block: &Block, (): (), _: Reader<Qmdb<E, H>>) {
        self.shared.finalized(block);
    }
}

/// Waits before a leader builds, so that idle leaders do not fill the ledger with empty blocks, and blocks under light
/// load are shared. It waits outside the engine's state actor, which goes on finalising meanwhile.
#[derive(Clone)]
pub(crate) struct Paced<I> {
    pub(crate) inner: I,
    pub(crate) shared: Arc<Shared>,
}

impl<E, I> commonware_consensus::Application<E> for Paced<I>
where
    E: Engine,
    I: commonware_consensus::Application<E, SigningScheme = Scheme, Context = Ctx, Block = Block, Input = ()>
        + Sync,
{
    type SigningScheme = Scheme;
    type Context = Ctx;
    type Block = Block;
    type Input = ();

    async fn prepare(&mut self, _: (E, Ctx), _: impl Ancestry<Block>, (): ()) -> Handoff<Digested<Block>> {
        Handoff::Wait
    }

    async fn propose(
        &mut self,
        (runtime, context): (E, Ctx),
        ancestry: impl Ancestry<Block>,
        (): (),
    ) -> Option<Digested<Block>> {
        let begun = self.shared.host.steady();
        loop {
            let arrived = self.shared.pool.arrived.notified();
            let fresh = self.shared.pool.fresh(self.shared.height());
            let waited = self.shared.host.steady().saturating_sub(begun);
            let since_block = self.shared.since_block();
            // an adopted change waits for the end of the epoch: then blocks come as fast as they can
            let due = waited >= HEARTBEAT || self.shared.hurries();
            if fresh >= BUSY || due || (fresh > 0 && since_block >= BLOCK_INTERVAL) {
                break;
            }
            let wait = if fresh > 0 { BLOCK_INTERVAL - since_block } else { HEARTBEAT - waited };
            tokio::select! {
                biased;
                () = arrived, if fresh == 0 => {}
                () = runtime.sleep(wait) => {}
            }
        }
        self.shared.note_block();
        self.inner.propose((runtime, context), ancestry, ()).await
    }

    async fn verify(&mut self, context: (E, Ctx), ancestry: impl Ancestry<Block>) -> bool {
        self.inner.verify(context, ancestry).await
    }
}
