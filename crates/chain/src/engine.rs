//! Wires the engine: network, archives, state, consensus. One thread and one runtime for each node.

use crate::{
    app::{App, Dbs, Op, Paced, RECORD_BYTES_MAX, genesis_block, now_ms},
    block::{Admitted, Block, D, engine_digest},
    handle::{Chain, Letter, Request, Shared, finality_of},
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
    simplex::{
        self,
        config::{Floor, ForwardPolicy, SkipPolicy},
        elector::RoundRobin,
        scheme::ed25519::Scheme,
    },
    types::{Epoch, FixedEpocher, Height, ViewDelta},
};
use commonware_cryptography::{
    ChaCha20Poly1305, Digested, Digestible as _, Sha256, Signer as _,
    certificate::{ConstantProvider, Verifier as _},
    ed25519,
};
use commonware_glue::stateful::{
    Config as StatefulConfig, Stateful, SyncPlan,
    db::{AttachableResolver, Shared as SharedDb, SyncEngineConfig},
    probe,
};
use commonware_p2p::{
    Address, AddressableManager as _, Receiver as _, Recipients, Sender as _, authenticated::lookup,
    max_message_size, utils::StaticProvider,
};
use commonware_parallel::Sequential;
use commonware_runtime::{
    Handle, IoBuf, Metrics as _, Quota, Runner as _, Spawner, Supervisor as _, buffer::paged::CacheRef,
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
use commonware_utils::{
    NZDuration, NZU16, NZU64, NZUsize,
    ordered::{Map, Set},
};
use crypto::SigningKey;
use ledger::Rules;
use model::{DepartmentId, PublicKey};
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

const PAGE_SIZE: NonZeroU16 = NZU16!(4084);
const PAGE_CACHE: NonZeroUsize = NZUsize!(2048);
const BUFFER: NonZeroUsize = NZUsize!(65536);
const MAILBOX: NonZeroUsize = NZUsize!(1024);
/// The committee stays until membership changes arrive: one epoch without end.
const EPOCH_BLOCKS: NonZeroU64 = NZU64!(u64::MAX);
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
    /// Where it listens for other nodes.
    pub listen: SocketAddr,
    /// Where every department's node listens, this one included.
    pub addresses: BTreeMap<DepartmentId, SocketAddr>,
    /// The folder the ledger is kept in.
    pub storage: PathBuf,
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

fn engine_key(key: &PublicKey) -> Result<ed25519::PublicKey, StartError> {
    ed25519::PublicKey::decode(Copying(&key.0[..]))
        .map_err(|_| StartError::Config(format!("the genesis has an invalid node key {key}")))
}

/// Starts a node's engine on a thread of its own and returns a handle on it.
pub fn start(config: Config) -> Result<Chain, StartError> {
    let genesis = config.rules.genesis.clone();
    genesis.check().map_err(StartError::Config)?;
    let member = genesis.member(&config.department).ok_or_else(|| {
        StartError::Config(format!("{} is not in the genesis of this consortium", config.department))
    })?;
    if member.node_key != config.node_key.public() {
        return Err(StartError::Config(format!(
            "the node key is not that of {} in the genesis",
            config.department
        )));
    }
    let mut nodes = BTreeMap::new();
    for member in &genesis.members {
        let address = config.addresses.get(&member.id).ok_or_else(|| {
            StartError::Config(format!("no address is configured for the node of {}", member.id))
        })?;
        nodes.insert(member.id.clone(), (engine_key(&member.node_key)?, *address));
    }
    let shared = Arc::new(Shared::new(config.rules.clone()));
    let (requests, receiver) = mpsc::unbounded_channel();
    let chain = Chain { shared: shared.clone(), requests };
    let validators = genesis.validators().iter().map(engine_key).collect::<Result<Vec<_>, _>>()?;
    let name = format!("ledger-{}", config.department);
    let node = Node { config, shared, nodes, validators, receiver };
    std::thread::Builder::new().name(name).spawn(move || node.run()).map_err(StartError::Thread)?;
    Ok(chain)
}

struct Node {
    config: Config,
    shared: Arc<Shared>,
    nodes: BTreeMap<DepartmentId, (ed25519::PublicKey, SocketAddr)>,
    validators: Vec<ed25519::PublicKey>,
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

fn quota(per_second: u32, burst: u32) -> Quota {
    Quota::per_second(std::num::NonZeroU32::new(per_second).expect("not zero"))
        .allow_burst(std::num::NonZeroU32::new(burst).expect("not zero"))
}

impl Node {
    fn run(self) {
        let storage = self.config.storage.clone();
        let department = self.config.department.clone();
        let settings = runtime::Config::new().with_worker_threads(2).with_storage_directory(storage);
        runtime::Runner::new(settings).start(|context| self.serve(context));
        info!(%department, "ledger engine stopped");
    }

    async fn serve(self, context: runtime::Context) {
        let Self { config, shared, nodes, validators, receiver } = self;
        let me = ed25519::PrivateKey::decode(Copying(&config.node_key.seed()[..]))
            .expect("a seed is a private key");
        let public = me.public_key();
        let committee: Set<ed25519::PublicKey> = Set::from_iter_dedup(validators.iter().cloned());
        let namespace = crypto::vote_namespace(&config.rules.chain);
        let scheme = Scheme::signer(&namespace, committee.clone(), me.clone())
            .unwrap_or_else(|| Scheme::verifier(&namespace, committee.clone()));
        let n = validators.len() as u32;
        let cache = CacheRef::new(PAGE_SIZE, PAGE_CACHE);

        let largest = max_message_size(&[
            simplex::max_payload_size::<Scheme, D>(n),
            marshal::max_payload_size::<Standard<Block>, Scheme>(n, &()),
            probe::max_payload_size::<Standard<Block>, Scheme>(n),
            LETTER_BYTES_MAX + 64,
        ]);
        let handshake = Cups::<_, ChaCha20Poly1305>::new(
            Sake {
                signer: me.clone(),
                synchrony_bound: Duration::from_secs(5),
                max_handshake_age: Duration::from_secs(10),
                version: sake::Version::V1,
            },
            cups::Version::V1,
        );
        let most = NonZeroUsize::new(nodes.len() + 1).expect("at least one");
        let mut p2p =
            lookup::Config::local(handshake, &namespace, config.listen, most, largest, NZUsize!(1024));
        p2p.tracked_peer_sets = NZUsize!(1);
        let (mut network, mut oracle) = lookup::Network::new(context.child("network"), p2p);
        let peers: Map<ed25519::PublicKey, Address> = nodes
            .values()
            .map(|(key, address)| (key.clone(), Address::from(*address)))
            .collect::<Vec<_>>()
            .try_into()
            .expect("node keys are unique: the genesis was checked");
        let _ = oracle.track(0, peers);
        let votes = network.register(0, quota(4096, 256));
        let certificates = network.register(1, quota(4096, 256));
        let resolver = network.register(2, quota(4096, 64));
        let backfill = network.register(3, quota(4096, 64));
        let broadcast = network.register(4, quota(4096, 64));
        let (mut tell, mut told) = network.register(5, quota(4096, 256));
        let (mut post, mut posted) = network.register(6, quota(4096, 256));
        let network = network.start();
        let provider = StaticProvider::new(0, committee.clone());

        let marshal_network = marshal_resolver::init(
            context.child("marshal_resolver"),
            marshal_resolver::Config {
                public_key: public.clone(),
                peer_provider: provider.clone(),
                blocker: oracle.clone(),
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
                codec_config: (),
                peer_provider: provider,
                strategy: Sequential,
            },
        );
        buffer_engine.start(broadcast);
        let finalizations = prunable::Archive::init(
            context.child("finalizations"),
            archive("finalizations", &cache, Scheme::certificate_codec_config_unbounded()),
        )
        .await
        .expect("the archive of finality proofs opens");
        let blocks = prunable::Archive::init(context.child("blocks"), archive("blocks", &cache, ()))
            .await
            .expect("the archive of blocks opens");
        let genesis = genesis_block::<runtime::Context>(&shared);
        let plan = SyncPlan::init(context.child("plan"), "plan".to_string()).await;
        let (marshal, ledger_mail, floor) = Marshal::<_, Standard<Block>, _, _, _, _, _>::init(
            context.child("marshal"),
            finalizations,
            blocks,
            marshal::Config {
                provider: ConstantProvider::new(scheme.clone()),
                epocher: FixedEpocher::new(EPOCH_BLOCKS),
                start: plan.marshal_start(Digested::precomputed(genesis.clone(), genesis.digest())),
                partition_prefix: "marshal".to_string(),
                mailbox_size: MAILBOX,
                view_retention: ViewDelta::new(64),
                prunable_items_per_section: NZU64!(1024),
                page_cache: cache.clone(),
                replay_buffer: BUFFER,
                key_write_buffer: BUFFER,
                value_write_buffer: BUFFER,
                block_codec_config: (),
                max_repair: NZUsize!(32),
                max_pending_acks: NZUsize!(32),
                strategy: Sequential,
            },
        )
        .await;
        let (state, state_mail) = Stateful::new(
            context.child("stateful"),
            StatefulConfig {
                application: App { shared: shared.clone(), genesis: genesis.clone() },
                db_config: VariableConfig {
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
                },
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
        let deferred = Deferred::new(
            context.child("deferred"),
            paced,
            ledger_mail.clone(),
            FixedEpocher::new(EPOCH_BLOCKS),
        );
        let marshal = marshal.start(state_mail.clone(), buffer, marshal_network);
        let state = state.start();
        let engine = simplex::Engine::new(
            context.child("simplex"),
            simplex::Config {
                scheme,
                elector: RoundRobin::<Sha256>::default(),
                blocker: oracle.clone(),
                automaton: deferred.clone(),
                relay: deferred.clone(),
                reporter: deferred,
                strategy: Sequential,
                partition: "simplex".to_string(),
                mailbox_size: MAILBOX,
                epoch: Epoch::zero(),
                floor: Floor::Genesis(genesis.digest()),
                replay_buffer: BUFFER,
                write_buffer: BUFFER,
                page_cache: cache,
                leader_timeout: Duration::from_millis(1500),
                certification_timeout: Duration::from_secs(3),
                timeout_retry: Duration::from_millis(500),
                view_retention: ViewDelta::new(64),
                skip: SkipPolicy::Enabled {
                    timeout: Duration::from_secs(5),
                    budget: simplex::SkipBudget::Participants,
                },
                fetch_timeout: NZDuration!(Duration::from_secs(1)),
                fetch_retry_delay: Duration::from_millis(200),
                forward: ForwardPolicy::Disabled,
                track_historical_votes: false,
            },
        );
        let engine = engine.start(votes, certificates, resolver);

        // commands told by other nodes
        let pool = shared.pool.clone();
        context.child("told").spawn(move |_| async move {
            while let Ok((_, message)) = told.recv().await {
                pool.admit(unframe(message.as_ref()), now_ms(), false);
            }
        });
        // sealed messages from other nodes
        let departments: BTreeMap<ed25519::PublicKey, DepartmentId> =
            nodes.iter().map(|(id, (key, _))| (key.clone(), id.clone())).collect();
        let letters = config.letters.clone();
        context.child("posted").spawn(move |_| async move {
            while let Ok((from, message)) = posted.recv().await {
                let Some(from) = departments.get(&from).cloned() else { continue };
                let letter = Letter { from, bytes: Bytes::copy_from_slice(message.as_ref()) };
                if letters.try_send(letter).is_err() {
                    warn!("too many messages from other nodes are waiting; one was dropped, its sender will repeat it");
                }
            }
        });
        // own commands that were not ordered soon are told again
        let (retold, mut retell) = mpsc::unbounded_channel();
        let pool = shared.pool.clone();
        context.child("retell").spawn(move |runtime| async move {
            use commonware_runtime::Clock as _;
            loop {
                runtime.sleep(Duration::from_millis(500)).await;
                let stale = pool.stale(now_ms(), RETELL);
                if !stale.is_empty() && retold.send(stale).is_err() {
                    break;
                }
            }
        });

        let others: Vec<_> = validators.iter().filter(|v| **v != public).cloned().collect();
        let mut receiver = receiver;
        let databases = state_mail.clone();
        let service = context.child("service");
        let stopper = context.child("stopper");
        let own_letters = config.letters.clone();
        let department = config.department.clone();
        let requests = async move {
            let mut database: Option<Dbs<runtime::Context>> = None;
            loop {
                let request = tokio::select! {
                    request = receiver.recv() => match request { Some(r) => r, None => return },
                    Some(stale) = retell.recv() => Request::Tell(stale),
                };
                match request {
                    Request::Stop => return,
                    Request::Tell(commands) => {
                        for message in frame(&commands) {
                            tell.send(Recipients::Some(others.clone()), IoBuf::from(message), false);
                        }
                    }
                    Request::Post(to, letter) if to == config.department => {
                        let _ = own_letters.try_send(Letter { from: to, bytes: letter });
                    }
                    Request::Post(to, letter) if letter.len() <= LETTER_BYTES_MAX => {
                        if let Some((key, _)) = nodes.get(&to) {
                            post.send(Recipients::One(key.clone()), IoBuf::from(letter.to_vec()), false);
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
                            let _ = reply.send(certificate.as_ref().and_then(finality_of));
                        });
                    }
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
            stopped = Handle::select([network, marshal, state, engine]) => {
                error!(%department, ?stopped, "a part of the ledger engine stopped");
            }
            () = requests => {
                let _ = stopper.stop(0, Some(Duration::from_secs(5))).await;
            }
        }
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
