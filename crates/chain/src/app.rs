//! The engine's application: builds blocks from the pool and checks others' blocks, by the ledger's rules.

use crate::{
    block::{Admitted, Block, Ctx, D, Entry, engine_digest, leaves, our_digest},
    handle::Shared,
    pool::Pool,
};
use commonware_consensus::{Handoff, marshal::ancestry::Ancestry, simplex::scheme::ed25519::Scheme};
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
use futures::StreamExt as _;
use ledger::{BlockContext, Overlay, first_reads};
use model::{Digest, Header, merkle};
use rand_core::CryptoRng;
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The longest record of the state, in bytes.
pub(crate) const RECORD_BYTES_MAX: usize = 128 * 1024;
/// An idle leader proposes an empty block after this.
const HEARTBEAT: Duration = Duration::from_millis(900);
/// With little to do, blocks are at least this far apart, so that commands share the cost of a block.
const BLOCK_INTERVAL: Duration = Duration::from_millis(30);
/// With this many commands waiting, a leader does not wait.
const BUSY: usize = 128;
/// How far a block's time may be ahead of a validator's clock before the validator holds back its vote.
const DRIFT_MS_MAX: u64 = 2_000;

/// No ledger stands still for longer than this between two blocks: ten years.
const PAUSE_MS_MAX: u64 = 10 * 365 * 86_400_000;

/// The authenticated state database.
pub(crate) type Qmdb<E> =
    variable::Db<mmr::Family, E, D, Vec<u8>, commonware_cryptography::Sha256, EightCap, 32, Sequential>;
/// An operation of its log.
pub(crate) type Op = Operation<mmr::Family, D, Vec<u8>>;
/// As the engine holds it.
pub(crate) type Dbs<E> = SharedDb<Qmdb<E>>;
type Batches<E> = <Dbs<E> as DatabaseSet<E>>::Unmerkleized;
type Merkleized<E> = <Dbs<E> as DatabaseSet<E>>::Merkleized;

/// Milliseconds since 1970 by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// What the engine can run on.
pub(crate) trait Engine: Spawner + StorageContext + CryptoRng + Clock {}
impl<E: Spawner + StorageContext + CryptoRng + Clock> Engine for E {}

/// The block everything starts from.
pub(crate) fn genesis_block<E: Engine>(shared: &Shared) -> Block {
    let target = <Dbs<E> as DatabaseSet<E>>::initial_sync_targets();
    let rules = &shared.rules;
    let header = Header {
        chain: Digest(rules.chain.0),
        epoch: 0,
        view: 0,
        leader: rules.genesis.validators()[0].0,
        parent_view: 0,
        parent: Digest::default(),
        height: 0,
        time_ms: rules.genesis.time_ms,
        state_root: Digest::default(),
        log_root: our_digest(&target.root),
        log_start: *target.range.start(),
        log_end: *target.range.end(),
        event_root: merkle::root(crypto::sha256, &[]),
    };
    Block::from_header(header).expect("a genesis has valid keys")
}

/// The application.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) shared: Arc<Shared>,
    pub(crate) genesis: Block,
}

impl App {
    /// Whether a command was ordered in a block that is final here, and so will never be ordered again.
    fn is_final(&self, position: &[u8]) -> bool {
        model::decode::<ledger::Position>(position).is_ok_and(|p| p.height <= self.shared.height())
    }

    /// Decides commands on the state of the parent. `None` where one is already ordered and `skip` is false.
    async fn execute<E: Engine>(
        &self,
        block: BlockContext,
        commands: Vec<Arc<Admitted>>,
        mut batches: Batches<E>,
        skip: bool,
    ) -> Option<(Vec<Entry>, Merkleized<E>)> {
        let mut overlay = Overlay::default();
        let mut keys = Vec::with_capacity(commands.len() * 3);
        for command in &commands {
            keys.push(engine_digest(&ledger::Key::Command(command.id).digest()));
            keys.extend(first_reads(&command.signed.command).iter().map(|k| engine_digest(&k.digest())));
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
            let ordered = overlay.has(&ledger::Key::Command(command.id).digest());
            if ordered || !seen.insert(command.id) {
                if !skip {
                    return None;
                }
                if overlay.peek(&ledger::Key::Command(command.id).digest()).is_some_and(|p| self.is_final(p))
                {
                    self.shared.pool.settle(std::iter::once(&command));
                }
                continue;
            }
            let index = entries.len() as u32;
            let outcome = loop {
                match self.shared.rules.apply(&mut overlay, block, index, command.id, &command.signed.command)
                {
                    Ok(outcome) => break outcome,
                    Err(missing) => {
                        let digest = missing.0.digest();
                        let record = batches
                            .get(&engine_digest(&digest))
                            .await
                            .expect("the state database can be read");
                        overlay.insert(digest, record);
                    }
                }
            };
            let outcome_bytes = model::encode(&outcome);
            entries.push(Entry { command, outcome, outcome_bytes });
        }
        for (key, record) in overlay.into_writes() {
            batches = batches.write(engine_digest(&key), Some(record));
        }
        Some((entries, batches.merkleize().await.expect("the state database can be merkleized")))
    }
}

impl<E: Engine> Application<E> for App {
    type SigningScheme = Scheme;
    type Context = Ctx;
    type Block = Block;
    type Databases = Dbs<E>;
    type Captured = ();
    type Provider = Pool;
    type Input = ();

    fn sync_targets(block: &Block) -> <Dbs<E> as DatabaseSet<E>>::SyncTargets {
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
        batches: Batches<E>,
        input: Input<(), Pool>,
    ) -> Option<Proposed<Self, E>> {
        let mut ancestry = Box::pin(ancestry);
        let parent = ancestry.next().await?;
        let parent = parent.inner();
        let (height, time_ms) = (parent.header.height + 1, now_ms().max(parent.header.time_ms));
        let commands = input.provider.draw(parent.header.height, self.shared.height());
        let (entries, merkleized) =
            self.execute::<E>(BlockContext { height, time_ms }, commands, batches, true).await?;
        let bounds = merkleized.bounds();
        let header = Header {
            chain: Digest(self.shared.rules.chain.0),
            epoch: context.round.epoch().get(),
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
            event_root: merkle::root(crypto::sha256, &leaves(&entries)),
        };
        self.shared.pool.carried(height, entries.iter().map(|e| e.command.id));
        Some(Proposed { block: Block::new(header, context, entries), merkleized })
    }

    async fn process(
        &mut self,
        (runtime, _): (E, Ctx),
        ancestry: impl Ancestry<Block>,
        batches: Batches<E>,
        finality: Finality,
    ) -> Option<Merkleized<E>> {
        let mut ancestry = Box::pin(ancestry);
        let block = ancestry.next().await?;
        let block = block.inner();
        let header = &block.header;
        let commands: Vec<_> = block.entries.iter().map(|e| e.command.clone()).collect();
        if finality == Finality::Candidate {
            let parent = ancestry.next().await?;
            let parent = parent.inner();
            let fits = header.chain.0 == self.shared.rules.chain.0
                && header.height == parent.header.height + 1
                && header.time_ms >= parent.header.time_ms
                && header.time_ms <= parent.header.time_ms.saturating_add(PAUSE_MS_MAX);
            if !fits || !self.shared.pool.verify(&commands) {
                return None;
            }
            while header.time_ms > now_ms() + DRIFT_MS_MAX {
                runtime.sleep(Duration::from_millis(50)).await;
            }
        }
        let context = BlockContext { height: header.height, time_ms: header.time_ms };
        let (entries, merkleized) = self.execute::<E>(context, commands, batches, false).await?;
        let same = entries.iter().zip(block.entries.iter()).all(|(a, b)| a.outcome_bytes == b.outcome_bytes);
        if !same || our_digest(&merkleized.root()) != header.state_root {
            return None;
        }
        self.shared.pool.carried(header.height, block.entries.iter().map(|e| e.command.id));
        self.shared.note_block();
        Some(merkleized)
    }

    async fn capture(&mut self, _: (E, Ctx), _: &Block, _: &Merkleized<E>, _: Reader<Qmdb<E>>) {}

    async fn finalized(&mut self, _: (E, Ctx), block: &Block, (): (), _: Reader<Qmdb<E>>) {
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
        let begun = Instant::now();
        loop {
            let arrived = self.shared.pool.arrived.notified();
            let fresh = self.shared.pool.fresh(self.shared.height());
            let waited = begun.elapsed();
            let since_block = self.shared.since_block();
            if fresh >= BUSY || waited >= HEARTBEAT || (fresh > 0 && since_block >= BLOCK_INTERVAL) {
                break;
            }
            let wait = if fresh > 0 { BLOCK_INTERVAL - since_block } else { HEARTBEAT - waited };
            tokio::select! {
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
