//! Wires the engine: network, archives, state, consensus. One thread and one runtime for each node.

use crate::{
    app::{App, Dbs, Engine, Op, Paced, RECORD_BYTES_MAX, genesis_block},
    block::{Admitted, Block, D, engine_digest, engine_key},
    epochs::Epochs,
    handle::{Chain, Letter, Request, Shared, finality_of},
    host::Host,
    rosters::{Committees, Peers},
    scheme::Scheme,
    shelf::Shelf,
    tree::{Sm3, TreeHash},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use commonware_broadcast::buffered;
use commonware_codec::{Copying, DecodeExt as _};
use commonware_consensus::{
    marshal::{
        self,
        core::Actor as Marshal,
        resolver::p2p as marshal_resolver,
        standard::{Deferred, Standard},
    },
    simplex::{self, types::Finalization},
    types::{FixedEpocher, Height, ViewDelta},
};
use commonware_cryptography::{
    ChaCha20Poly1305, Digested, Digestible as _, Sha256, Signer as _, certificate::Verifier as _, ed25519,
};
use commonware_glue::stateful::{
    Config as StatefulConfig, Stateful, SyncPlan,
    db::{AttachableResolver, Shared as SharedDb, SyncEngineConfig},
    probe,
};
use commonware_p2p::{
    Address, AddressableManager as _, Blocker, Ingress, Receiver, Recipients, Sender, authenticated::lookup,
    max_message_size, utils::mux,
};
use commonware_parallel::Sequential;
use commonware_runtime::{
    Handle, IoBuf, Quota, Runner as _, Spawner as _, Supervisor as _, buffer::paged::CacheRef,
    tokio as runtime,
};
use commonware_storage::{
    archive::prunable,
    journal::contiguous::variable::Config as LogConfig,
    mmr::{self, full::Config as TreeConfig},
    qmdb::{current::VariableConfig, sync::source},
    translator::EightCap,
};
use commonware_stream::{
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::{Hostname, NZDuration, NZU16, NZU64, NZUsize, ordered::Map};
use crypto::{SigningKey, VoteKeys};
use ledger::Rules;
use model::{DepartmentId, MEMBERS_MAX, NodeKey, PublicKey, Roster, Suite};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU64, NonZeroUsize},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

pub(crate) const PAGE_SIZE: NonZeroU16 = NZU16!(4084);
pub(crate) const PAGE_CACHE: NonZeroUsize = NZUsize!(2048);
pub(crate) const BUFFER: NonZeroUsize = NZUsize!(65536);
/// How many views consensus keeps its own copies of blocks for, and how many views one file of them holds: a file goes
/// only whole, so both bound what is stored twice.
const VIEWS_KEPT: ViewDelta = ViewDelta::new(32);
const VIEWS_PER_SECTION: NonZeroU64 = NZU64!(64);
pub(crate) const MAILBOX: NonZeroUsize = NZUsize!(1024);
/// The longest message between two nodes off the ledger.
const LETTER_BYTES_MAX: usize = 1 << 20;
/// A command this node submitted is told again after this, unless it was ordered.
const RETELL: Duration = Duration::from_secs(2);

/// What a node's engine needs.
pub struct Config {
    /// The ledger's rules.
    pub rules: Rules,
    /// This department.
    pub department: DepartmentId,
    /// The node key of this department.
    pub node_key: SigningKey,
    /// Its vote keys.
    pub vote_keys: Arc<dyn VoteKeys>,
    /// Whether it is known that the vote key has never been used: only a first start. A node that starts on an empty folder
    /// otherwise has lost its votes, and abstains until the next epoch.
    pub first_start: bool,
    /// Where it listens for other nodes.
    pub listen: SocketAddr,
    /// Where nodes of newer rosters than the genesis' listen, for a node that joins late.
    pub introductions: Vec<(NodeKey, String)>,
    /// The folder the ledger is kept in.
    pub storage: PathBuf,
    /// Where an archive of this ledger lies, or will: blocks this node pruned are read from it.
    pub archive: Option<PathBuf>,
    /// Where sealed messages from other nodes go.
    pub letters: mpsc::Sender<Letter>,
}

/// Why an engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration does not fit the genesis.
    #[error("{0}")]
    Config(String),
    /// The thread cannot be started.
    #[error("the ledger's thread cannot start: {0}")]
    Thread(std::io::Error),
}

/// A source of state that has none: nodes catch up from blocks.
#[derive(Clone)]
struct FromBlocks;

#[derive(Debug, thiserror::Error)]
#[error("state is rebuilt from blocks")]
struct OnlyBlocks;

impl source::Source for FromBlocks {
    type Family = mmr::Family;
    type Digest = D;
    type Op = Op;
    type Error = OnlyBlocks;

    async fn serve(&self, _: source::Request<mmr::Family>) -> source::Result<Self> {
        Err(OnlyBlocks)
    }
}

impl<DB: Send + Sync + 'static> AttachableResolver<DB> for FromBlocks {
    async fn attach_database(&self, _: SharedDb<DB>) {}
}

/// Starts a node's engine on a thread of its own and returns a handle on it. Not there for this crate's own unit tests: it is what
/// makes compiling the engine take minutes.
#[cfg(not(test))]
pub fn start(config: Config) -> Result<Chain, StartError> {
    let name = format!("ledger-{}", config.department);
    let (chain, node) = prepare(config, Host::of_machine())?;
    std::thread::Builder::new().name(name).spawn(move || node.run()).map_err(StartError::Thread)?;
    Ok(chain)
}

/// Checks a configuration and makes a node of it that is not running yet.
pub fn prepare(config: Config, host: Host) -> Result<(Chain, Node), StartError> {
    config.rules.genesis.check().map_err(StartError::Config)?;
    config.rules.genesis.members.iter().try_for_each(crypto::check_keys).map_err(StartError::Config)?;
    if !matches!(config.node_key.public(), PublicKey::Ed25519(_)) {
        return Err(StartError::Config("a node key is an Ed25519 key in either suite".into()));
    }
    let founder = config.rules.genesis.roster().member(&config.department).map(|m| m.node_key);
    if founder.is_some_and(|key| key != node_key(&config.node_key)) && config.introductions.is_empty() {
        return Err(StartError::Config(format!(
            "the node key is not that of {} in the genesis; a department that was given new keys starts with a roster file",
            config.department
        )));
    }
    if founder.is_none() && config.introductions.is_empty() {
        return Err(StartError::Config(format!(
            "{} is not in the genesis of this consortium; a department that joined later starts with a roster file",
            config.department
        )));
    }
    let shared = Arc::new(Shared::new(config.rules.clone(), host));
    if let Some(path) = &config.archive {
        let _ = shared.archive.set(path.clone());
    }
    if let Some(path) = config.archive.as_ref().filter(|path| path.exists()) {
        let opened = Shelf::open(path, config.rules.clone());
        let shelf = opened.map_err(|e| StartError::Config(format!("the archive {}: {e}", path.display())))?;
        let _ = shared.shelf.set(shelf);
    }
    let (requests, receiver) = mpsc::unbounded_channel();
    let chain = Chain { shared: shared.clone(), requests };
    Ok((chain, Node { config, shared, receiver }))
}

fn node_key(key: &SigningKey) -> NodeKey {
    match key.public() {
        PublicKey::Ed25519(bytes) => NodeKey(bytes),
        PublicKey::Sm2(_) => unreachable!("checked when the node was prepared"),
    }
}

/// The key by which nodes know each other.
pub type Key = ed25519::PublicKey;

/// How many channels nodes talk through: votes, certificates, consensus resolver, blocks to catch up with, block
/// broadcast, commands told, sealed letters.
pub const CHANNELS: u64 = 7;

/// How many messages a second, and at once, a channel takes from one peer.
pub fn quota_of(channel: u64) -> Quota {
    let burst = if matches!(channel, 2..=4) { 64 } else { 256 };
    Quota::per_second(std::num::NonZeroU32::new(4096).expect("not zero"))
        .allow_burst(std::num::NonZeroU32::new(burst).expect("not zero"))
}

/// Told, for each epoch, which nodes to stay connected with, and where they listen.
pub type Track = Box<dyn FnMut(u64, Vec<(Key, String)>) + Send>;

/// What a node talks through: its channels in the order of their numbers, over a real network or a simulated one.
pub struct Wires<S, R, B> {
    /// Votes.
    pub votes: (S, R),
    /// Certificates.
    pub certificates: (S, R),
    /// The consensus resolver.
    pub resolver: (S, R),
    /// Blocks to catch up with.
    pub backfill: (S, R),
    /// Blocks as they are proposed.
    pub broadcast: (S, R),
    /// Commands told to validators.
    pub told: (S, R),
    /// Sealed letters between departments.
    pub posted: (S, R),
    /// Where peers that break the protocol are reported.
    pub blocker: B,
    /// Told of each epoch's nodes.
    pub track: Track,
    /// Ends when the network does.
    pub network: Handle<()>,
}

/// A node that was checked and is not running yet.
pub struct Node {
    config: Config,
    shared: Arc<Shared>,
    receiver: mpsc::UnboundedReceiver<Request>,
}

fn archive<C>(name: &str, cache: &CacheRef, codec_config: C) -> prunable::Config<EightCap, C> {
    prunable::Config {
        translator: EightCap,
        metadata_partition: format!("{name}-meta"),
        key_partition: format!("{name}-key"),
        key_page_cache: cache.clone(),
        value_partition: format!("{name}-value"),
        compression: None,
        codec_config,
        items_per_section: NZU64!(1024),
        key_write_buffer: BUFFER,
        value_write_buffer: BUFFER,
        replay_buffer: BUFFER,
    }
}

type LedgerMail = marshal::core::Mailbox<Scheme, Standard<Block>>;
type Kept<E, V> = prunable::Archive<EightCap, E, D, V>;

/// Opens what a node keeps of the ledger: finality proofs and blocks by height.
pub(crate) async fn open_archives<E: Engine>(
    context: &E,
    cache: &CacheRef,
    suite: Suite,
) -> (Kept<E, Finalization<Scheme, D>>, Kept<E, Arc<Block>>) {
    let proofs = archive("finalizations", cache, Scheme::certificate_codec_config_unbounded());
    let finalizations = prunable::Archive::init(context.child("finalizations"), proofs)
        .await
        .expect("the archive of finality proofs opens");
    let blocks = prunable::Archive::init(context.child("blocks"), archive("blocks", cache, suite))
        .await
        .expect("the archive of blocks opens");
    (finalizations, blocks)
}

type StateConfig = VariableConfig<EightCap, ((), (commonware_codec::RangeCfg<usize>, ())), Sequential>;

/// How the state is kept on disk.
pub(crate) fn state_config(cache: &CacheRef) -> StateConfig {
    VariableConfig {
        merkle_config: TreeConfig {
            journal_partition: "state-tree".to_string(),
            metadata_partition: "state-tree-meta".to_string(),
            items_per_blob: NZU64!(65536),
            write_buffer: BUFFER,
            replay_buffer: BUFFER,
            strategy: Sequential,
            page_cache: cache.clone(),
        },
        journal_config: LogConfig {
            partition: "state-log".to_string(),
            items_per_section: NZU64!(65536),
            compression: None,
            codec_config: ((), ((0..=RECORD_BYTES_MAX).into(), ())),
            page_cache: cache.clone(),
            write_buffer: BUFFER,
            replay_buffer: BUFFER,
        },
        grafted_metadata_partition: "state-grafted".to_string(),
        translator: EightCap,
        init_cache: Some(NZUsize!(65536)),
        init_buffer: NZUsize!(1 << 21),
        init_concurrency: (),
    }
}

impl Node {
    #[cfg(not(test))]
    fn run(self) {
        let storage = self.config.storage.clone();
        let department = self.config.department.clone();
        let settings = runtime::Config::new().with_worker_threads(2).with_storage_directory(storage);
        runtime::Runner::new(settings).start(|context| async move {
            let stopper = context.child("stopper");
            let wires = self.dial(&context);
            self.serve(context, wires).await;
            let _ = stopper.stop(0, Some(Duration::from_secs(5))).await;
        });
        info!(%department, "ledger engine stopped");
    }

    /// The largest message of any channel.
    pub fn largest_message(&self) -> u32 {
        let n = MEMBERS_MAX as u32;
        max_message_size(&[
            mux::prefixed(simplex::max_payload_size::<Scheme, D>(n)),
            marshal::max_payload_size::<Standard<Block>, Scheme>(n, &self.config.rules.suite()),
            probe::max_payload_size::<Standard<Block>, Scheme>(n),
            LETTER_BYTES_MAX + 64,
        ])
    }

    fn identity(&self) -> ed25519::PrivateKey {
        ed25519::PrivateKey::decode(Copying(&self.config.node_key.seed()[..]))
            .expect("a seed is a private key")
    }

    /// Connects to the other departments' nodes over TCP.
    #[cfg(not(test))]
    fn dial(
        &self,
        context: &runtime::Context,
    ) -> Wires<
        impl Sender<PublicKey = Key> + use<>,
        impl Receiver<PublicKey = Key> + use<>,
        impl Blocker<PublicKey = Key> + use<>,
    > {
        let handshake = Cups::<_, ChaCha20Poly1305>::new(
            Sake {
                signer: self.identity(),
                synchrony_bound: Duration::from_secs(5),
                max_handshake_age: Duration::from_secs(10),
                version: sake::Version::V1,
            },
            cups::Version::V1,
        );
        let namespace = crypto::vote_namespace(&self.config.rules.chain);
        let most = NonZeroUsize::new(MEMBERS_MAX + self.config.introductions.len()).expect("at least one");
        let largest = self.largest_message();
        let mut p2p =
            lookup::Config::local(handshake, &namespace, self.config.listen, most, largest, NZUsize!(1024));
        // those of the epoch before may still need something
        p2p.tracked_peer_sets = NZUsize!(2);
        // nodes are known by their keys; behind a name or a translated address the sender's is another
        p2p.bypass_ip_check = true;
        let (mut network, oracle) = lookup::Network::new(context.child("network"), p2p);
        let (mut tracker, introduced) = (oracle.clone(), self.config.introductions.clone());
        let track = move |epoch: u64, nodes: Vec<(Key, String)>| {
            let introduced =
                introduced.iter().filter_map(|(key, at)| Some((engine_key(key).ok()?, at.clone())));
            let mut peers: BTreeMap<Key, Address> = BTreeMap::new();
            for (key, at) in introduced.chain(nodes) {
                match address_of(&at) {
                    Some(address) => drop(peers.insert(key, address)),
                    None => warn!(address = %at, "this address of a department's node is none"),
                }
            }
            let peers: Map<Key, Address> =
                peers.into_iter().collect::<Vec<_>>().try_into().expect("each key stands once");
            let _ = tracker.track(epoch, peers);
        };
        let mut register = |channel| network.register(channel, quota_of(channel));
        let votes = register(0);
        let certificates = register(1);
        let resolver = register(2);
        let backfill = register(3);
        let broadcast = register(4);
        let told = register(5);
        let posted = register(6);
        Wires {
            votes,
            certificates,
            resolver,
            backfill,
            broadcast,
            told,
            posted,
            blocker: oracle,
            track: Box::new(track),
            network: network.start(),
        }
    }

    /// Runs the node until its engine stops or is asked to.
    pub async fn serve<E, S, R, B>(self, context: E, wires: Wires<S, R, B>)
    where
        E: Engine,
        S: Sender<PublicKey = Key>,
        R: Receiver<PublicKey = Key>,
        B: Blocker<PublicKey = Key>,
    {
        match self.config.rules.suite() {
            Suite::International => self.serve_in::<E, Sha256, S, R, B>(context, wires).await,
            Suite::National => self.serve_in::<E, Sm3, S, R, B>(context, wires).await,
        }
    }

    async fn serve_in<E, H, S, R, B>(self, context: E, wires: Wires<S, R, B>)
    where
        E: Engine,
        H: TreeHash,
        S: Sender<PublicKey = Key>,
        R: Receiver<PublicKey = Key>,
        B: Blocker<PublicKey = Key>,
    {
        let public = self.identity().public_key();
        let Self { config, shared, receiver } = self;
        let Wires {
            votes,
            certificates,
            resolver,
            backfill,
            broadcast,
            told,
            posted,
            blocker,
            track,
            network,
        } = wires;
        let ((mut tell, mut told), (mut post, mut posted)) = (told, posted);
        let _closing = Closing(shared.clone());
        let suite = config.rules.suite();
        let cache = CacheRef::new(PAGE_SIZE, PAGE_CACHE);
        let introduced = config.introductions.iter().filter_map(|(key, _)| engine_key(key).ok()).collect();
        let peers = Peers::new(&shared.rosters.newest().1.roster, introduced);
        let epocher = FixedEpocher::new(
            NonZeroU64::new(config.rules.genesis.epoch_blocks).expect("a checked genesis has at least 8"),
        );

        let marshal_network = marshal_resolver::init(
            context.child("marshal_resolver"),
            marshal_resolver::Config {
                public_key: public.clone(),
                peer_provider: peers.clone(),
                blocker: blocker.clone(),
                mailbox_size: MAILBOX,
                fetch_timeout: NZDuration!(Duration::from_secs(1)),
                fetch_retry_delay: Duration::from_millis(100),
                priority_requests: false,
                priority_responses: false,
            },
            backfill,
        );
        let (buffer_engine, buffer) = buffered::Engine::new(
            context.child("broadcast"),
            buffered::Config {
                public_key: public.clone(),
                mailbox_size: MAILBOX,
                deque_size: 16,
                priority: false,
                codec_config: suite,
                peer_provider: peers.clone(),
                strategy: Sequential,
            },
        );
        buffer_engine.start(broadcast);
        let (finalizations, blocks) = open_archives(&context, &cache, suite).await;
        let genesis = genesis_block::<E, H>(&shared);
        shared.note_trail(&genesis);
        let plan = SyncPlan::init(context.child("plan"), "plan".to_string()).await;
        let (marshal, ledger_mail, floor) = Marshal::<_, Standard<Block>, _, _, _, _, _>::init(
            context.child("marshal"),
            finalizations,
            blocks,
            marshal::Config {
                provider: Committees::new(config.rules.clone(), shared.rosters.clone()),
                epocher: epocher.clone(),
                start: plan.marshal_start(Digested::precomputed(genesis.clone(), genesis.digest())),
                partition_prefix: "marshal".to_string(),
                mailbox_size: MAILBOX,
                view_retention: VIEWS_KEPT,
                prunable_items_per_section: VIEWS_PER_SECTION,
                page_cache: cache.clone(),
                replay_buffer: BUFFER,
                key_write_buffer: BUFFER,
                value_write_buffer: BUFFER,
                block_codec_config: suite,
                max_repair: NZUsize!(32),
                max_pending_acks: NZUsize!(32),
                strategy: Sequential,
            },
        )
        .await;
        let (state, state_mail) = Stateful::new(
            context.child("stateful"),
            StatefulConfig {
                application: App::<H>::new(shared.clone(), genesis.clone()),
                db_config: state_config(&cache),
                provider: shared.pool.clone(),
                marshal: (ledger_mail.clone(), floor),
                mailbox_size: MAILBOX,
                plan,
                resolvers: FromBlocks,
                sync_config: SyncEngineConfig {
                    fetch_batch_size: NZU64!(64),
                    apply_batch_size: NZU64!(1024),
                    max_outstanding_requests: NZUsize!(8),
                },
                prune_config: None,
                strategy: Sequential,
            },
        );
        let paced = Paced { inner: state_mail.clone(), shared: shared.clone() };
        let deferred = Deferred::new(context.child("deferred"), paced, ledger_mail.clone(), epocher);
        // where this node stopped says which epoch it is in, and the last block before that which roster
        let next = floor.processed().map_or(0, |p| p.height().get()) + 1;
        let epoch = config.rules.genesis.epoch_of(next);
        let marshal = marshal.start(state_mail.clone(), buffer, marshal_network);
        let missing = pruned_and_gone(&ledger_mail, &shared, next).await;
        if let Some(height) = missing {
            error!(
                height,
                "the ledger folder was pruned, and the archive that `archive` in node.toml names does not hold this block: put the archive back"
            );
            return;
        }
        if epoch > 0 {
            let height = config.rules.genesis.last_of(epoch - 1);
            match ledger_mail.get_block(Height::new(height)).await {
                Some(last) => shared.learn(last.inner()),
                None => {
                    error!(
                        height,
                        "the last block of the epoch before this node's is missing: restore the ledger folder"
                    );
                    return;
                }
            }
        }
        let state = state.start();
        let epochs = Epochs {
            context: context.child("epochs"),
            shared: shared.clone(),
            me: node_key(&config.node_key),
            keys: config.vote_keys.clone(),
            marshal: ledger_mail.clone(),
            automaton: deferred,
            blocker,
            peers,
            track,
            cache,
            first_start: config.first_start,
            unswept: epoch.saturating_sub(4),
        };
        // the epoch's end sums up its headers: what came before this start is read again beside everything else
        let (reader, trails) = (ledger_mail.clone(), shared.clone());
        context.child("trail").spawn(move |_| async move {
            let first = epoch * trails.rules.genesis.epoch_blocks;
            for height in first..next {
                let Some(block) = reader.get_block(Height::new(height)).await else { return };
                trails.note_trail(block.inner());
            }
        });
        let engine = context
            .child("consensus")
            .spawn(move |_| async move { epochs.run(epoch, votes, certificates, resolver).await });

        // commands told by other nodes
        let shared_told = shared.clone();
        context.child("told").spawn(move |_| async move {
            while let Ok((_, message)) = told.recv().await {
                let now_ms = shared_told.host.now_ms();
                let (_, known) = shared_told.rosters.newest();
                shared_told.pool.admit(&known.roster, unframe(message.as_ref()), now_ms, false);
            }
        });
        // sealed messages from other nodes
        let letters = config.letters.clone();
        let shared_posted = shared.clone();
        context.child("posted").spawn(move |_| async move {
            while let Ok((from, message)) = posted.recv().await {
                let (_, known) = shared_posted.rosters.newest();
                let Some(from) = sender_of(&known.roster, &from) else { continue };
                let letter = Letter { from, bytes: Bytes::copy_from_slice(message.as_ref()) };
                if letters.try_send(letter).is_err() {
                    warn!("too many messages from other nodes are waiting; one was dropped, its sender will repeat it");
                }
            }
        });
        // own commands that were not ordered soon are told again
        let (retold, mut retell) = mpsc::unbounded_channel();
        let shared_retell = shared.clone();
        context.child("retell").spawn(move |runtime| async move {
            loop {
                runtime.sleep(Duration::from_millis(500)).await;
                let (_, known) = shared_retell.rosters.newest();
                let stale = shared_retell.pool.stale(&known.roster, shared_retell.host.now_ms(), RETELL);
                if !stale.is_empty() && retold.send(stale).is_err() {
                    break;
                }
            }
        });

        let mut receiver = receiver;
        let databases = state_mail.clone();
        let service = context.child("service");
        let own_letters = config.letters.clone();
        let department = config.department.clone();
        let requests = async move {
            let mut database: Option<Dbs<E, H>> = None;
            loop {
                let request = tokio::select! {
                    biased;
                    request = receiver.recv() => match request { Some(r) => r, None => return },
                    Some(stale) = retell.recv() => Request::Tell(stale),
                };
                match request {
                    Request::Stop => return,
                    Request::Tell(commands) => {
                        let (_, known) = shared.rosters.newest();
                        let validators = known.roster.validators().into_iter();
                        let validators = validators.filter_map(|m| engine_key(&m.node_key).ok());
                        let others: Vec<_> = validators.filter(|v| *v != public).collect();
                        for message in frame(&commands) {
                            tell.send(Recipients::Some(others.clone()), IoBuf::from(message), false);
                        }
                    }
                    Request::Post(to, letter) if to == config.department => {
                        let _ = own_letters.try_send(Letter { from: to, bytes: letter });
                    }
                    Request::Post(to, letter) if letter.len() <= LETTER_BYTES_MAX => {
                        let (_, known) = shared.rosters.newest();
                        if let Some(key) = known.roster.member(&to).and_then(|m| engine_key(&m.node_key).ok())
                        {
                            post.send(Recipients::One(key), IoBuf::from(letter.to_vec()), false);
                        }
                    }
                    Request::Post(to, letter) => {
                        error!(%to, bytes = letter.len(), "a message to another node is longer than 1 MiB and was not sent");
                    }
                    Request::Block(height, reply) => {
                        let mail = ledger_mail.clone();
                        service.child("block").spawn(move |_| async move {
                            let _ = reply
                                .send(mail.get_block(Height::new(height)).await.map(|b| b.inner().clone()));
                        });
                    }
                    Request::Finality(height, reply) => {
                        let mail = ledger_mail.clone();
                        service.child("finality").spawn(move |_| async move {
                            let certificate = mail.get_finalization(Height::new(height)).await;
                            let _ = reply.send(certificate.as_ref().map(finality_of));
                        });
                    }
                    Request::Prune(height) => ledger_mail.prune(Height::new(height)),
                    Request::Record(key, reply) => {
                        if database.is_none() {
                            database = Some(databases.subscribe_databases().await);
                        }
                        let database = database.clone().expect("just set");
                        service.child("record").spawn(move |_| async move {
                            let record = database.read().await.get(&engine_digest(&key)).await;
                            let _ = reply.send(record.expect("the state database can be read"));
                        });
                    }
                    Request::Metrics(reply) => {
                        let _ = reply.send(service.encode());
                    }
                }
            }
        };
        tokio::select! {
            biased;
            stopped = Handle::select([network, marshal, state, engine]) => {
                error!(%department, ?stopped, "a part of the ledger engine stopped");
            }
            () = requests => {}
        }
    }
}

/// The first block before `next` that is neither in the ledger folder nor on the shelf, where there is such a one.
async fn pruned_and_gone(ledger: &LedgerMail, shared: &Shared, next: u64) -> Option<u64> {
    let shelved = shared.shelf.get().map_or(0, Shelf::height);
    let first = shelved + 1;
    (first < next && ledger.get_block(Height::new(first)).await.is_none()).then_some(first)
}

/// Where a node listens: an address and port, or a name and port, which is looked up whenever it is dialled.
fn address_of(at: &str) -> Option<Address> {
    if let Ok(socket) = at.parse::<SocketAddr>() {
        return Some(socket.into());
    }
    let (host, port) = at.rsplit_once(':')?;
    let ingress = Ingress::Dns { host: Hostname::new(host).ok()?, port: port.parse().ok()? };
    Some(Address::Asymmetric { ingress, egress: ([0, 0, 0, 0], 0).into() })
}

/// The department a node belongs to.
fn sender_of(roster: &Roster, node: &Key) -> Option<DepartmentId> {
    let of = |m: &&model::Member| m.node_key.0[..] == node.as_ref()[..];
    roster.members.iter().find(of).map(|m| m.id.clone())
}

/// Tells whoever waits that the engine is gone, however it went.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Packs commands into messages of at most half a mebibyte.
fn frame(commands: &[Arc<Admitted>]) -> Vec<Bytes> {
    let mut messages = Vec::new();
    let mut message = BytesMut::new();
    for command in commands {
        if !message.is_empty() && message.len() + command.bytes.len() > LETTER_BYTES_MAX / 2 {
            messages.push(message.split().freeze());
        }
        message.put_u32_le(command.bytes.len() as u32);
        message.put_slice(&command.bytes);
    }
    if !message.is_empty() {
        messages.push(message.freeze());
    }
    messages
}

/// Unpacks what [`frame`] packed; a malformed rest yields one malformed command.
fn unframe(mut message: &[u8]) -> Vec<Option<Admitted>> {
    let mut commands = Vec::new();
    while let Some((length, rest)) = message.split_first_chunk::<4>() {
        let Some((command, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else {
            commands.push(None);
            break;
        };
        commands.push(Admitted::decode(Bytes::copy_from_slice(command)));
        message = rest;
    }
    commands
}
