//! What a node knows of the rosters in force and of the headers of the epoch under way.

use crate::{
    block::{Block, engine_key, our_digest},
    engine::Key,
    scheme::Scheme,
};
use commonware_consensus::types::Epoch;
use commonware_cryptography::{
    Digested, Digestible as _,
    certificate::{self, Scoped},
};
use commonware_p2p::{PeerSetSubscription, PeerSetUpdate, Provider, TrackedPeers};
use commonware_utils::{
    channel::mpsc::{self, UnboundedSender},
    ordered::Set,
};
use crypto::VoteKeys;
use futures::{Stream, StreamExt as _};
use ledger::Rules;
use model::{Digest, Header, NodeKey, PublicKey, Roster, merkle};
use std::{
    collections::{BTreeMap, HashMap, VecDeque, btree_map::Entry},
    sync::{Arc, Mutex, RwLock},
};

/// A roster and its hash.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) roster: Arc<Roster>,
    pub(crate) hash: Digest,
}

/// The rosters by epoch, as far as this node has followed. The last block of an epoch names the next one's, so a roster is
/// known before anything of its epoch is.
pub(crate) struct Rosters(RwLock<BTreeMap<u64, Arc<Known>>>);

impl Rosters {
    pub(crate) fn new(rules: &Rules) -> Self {
        let roster = Arc::new(rules.genesis.roster());
        let hash = crypto::roster_hash(rules.suite(), &roster);
        Self(RwLock::new(BTreeMap::from([(0, Arc::new(Known { roster, hash }))])))
    }

    /// The roster in force in an epoch.
    pub(crate) fn of(&self, epoch: u64) -> Option<Arc<Known>> {
        self.0.read().expect("no holder panics").get(&epoch).cloned()
    }

    /// The newest roster.
    pub(crate) fn newest(&self) -> (u64, Arc<Known>) {
        let known = self.0.read().expect("no holder panics");
        known.last_key_value().map(|(epoch, known)| (*epoch, known.clone())).expect("the genesis' is known")
    }

    /// Learns the roster of an epoch.
    pub(crate) fn learn(&self, rules: &Rules, epoch: u64, roster: &Roster) {
        let mut known = self.0.write().expect("no holder panics");
        let (_, newest) = known.last_key_value().expect("the genesis' is known");
        let learnt = match *newest.roster == *roster {
            true => newest.clone(),
            false => {
                let hash = crypto::roster_hash(rules.suite(), roster);
                Arc::new(Known { roster: Arc::new(roster.clone()), hash })
            }
        };
        known.entry(epoch).or_insert(learnt);
    }
}

/// No vote keys: for nodes that only check.
pub(crate) struct NoKeys;

impl VoteKeys for NoKeys {
    fn find(&self, _: &PublicKey) -> Option<crypto::SigningKey> {
        None
    }
}

/// Checks certificates of every epoch whose roster is known.
#[derive(Clone)]
pub(crate) struct Committees {
    rules: Rules,
    rosters: Arc<Rosters>,
    kept: Arc<Mutex<BTreeMap<u64, Arc<Scheme>>>>,
}

impl Committees {
    pub(crate) fn new(rules: Rules, rosters: Arc<Rosters>) -> Self {
        Self { rules, rosters, kept: Arc::default() }
    }
}

impl certificate::Provider for Committees {
    type Scope = Epoch;
    type Scheme = Scheme;

    fn scoped(&self, epoch: Epoch) -> Option<Scoped<Scheme>> {
        let known = self.rosters.of(epoch.get())?;
        let mut kept = self.kept.lock().expect("no holder panics");
        let scheme = match kept.entry(known.roster.epoch) {
            Entry::Occupied(found) => found.get().clone(),
            Entry::Vacant(free) => {
                let nobody = NodeKey::default();
                let scheme = Scheme::of(&self.rules.chain, &known.roster, &nobody, &NoKeys, false).ok()?;
                free.insert(Arc::new(scheme)).clone()
            }
        };
        Some(Scoped::scheme(scheme))
    }
}

/// The nodes this one talks to, for the parts of the engine that ask them for something.
#[derive(Clone, Debug)]
pub(crate) struct Peers(Arc<Mutex<PeersNow>>);

#[derive(Debug)]
struct PeersNow {
    index: u64,
    /// Those a node that joined late was told of: the oldest rosters may have nobody left who answers.
    introduced: Vec<Key>,
    keys: Set<Key>,
    before: Set<Key>,
    subscribers: Vec<UnboundedSender<PeerSetUpdate<Key>>>,
}

impl PeersNow {
    fn update(&self) -> PeerSetUpdate<Key> {
        let all = Set::from_iter_dedup(self.keys.iter().chain(&self.before).cloned());
        PeerSetUpdate {
            index: self.index,
            latest: TrackedPeers::primary(self.keys.clone()),
            all: TrackedPeers::primary(all),
        }
    }
}

impl Peers {
    pub(crate) fn new(roster: &Roster, introduced: Vec<Key>) -> Self {
        let keys = peer_keys(roster, &introduced);
        let before = keys.clone();
        Self(Arc::new(Mutex::new(PeersNow { index: 0, introduced, before, keys, subscribers: vec![] })))
    }

    /// All but this node.
    pub(crate) fn others(&self, me: &NodeKey) -> Vec<Key> {
        let now = self.0.lock().expect("no holder panics");
        now.keys.iter().filter(|key| key.as_ref()[..] != me.0[..]).cloned().collect()
    }

    /// From here on, these.
    pub(crate) fn set(&self, index: u64, roster: &Roster) {
        let mut now = self.0.lock().expect("no holder panics");
        let keys = peer_keys(roster, &now.introduced);
        if keys == now.keys {
            return;
        }
        now.before = std::mem::replace(&mut now.keys, keys);
        now.index = index;
        let update = now.update();
        now.subscribers.retain(|subscriber| subscriber.send(update.clone()).is_ok());
    }
}

fn peer_keys(roster: &Roster, introduced: &[Key]) -> Set<Key> {
    let members = roster.members.iter().filter_map(|m| engine_key(&m.node_key).ok());
    Set::from_iter_dedup(members.chain(introduced.iter().cloned()))
}

impl Provider for Peers {
    type PublicKey = Key;

    async fn peer_set(&mut self, _: u64) -> Option<TrackedPeers<Key>> {
        Some(self.0.lock().expect("no holder panics").update().latest)
    }

    async fn subscribe(&mut self) -> PeerSetSubscription<Key> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut now = self.0.lock().expect("no holder panics");
        let _ = sender.send(now.update());
        now.subscribers.push(sender);
        receiver
    }
}

/// The headers of an epoch up to some block: what the epoch's last block sums up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trail {
    /// The hash of the last header before the epoch; zeros in the first.
    pub(crate) before: Digest,
    headers: merkle::Frontier,
}

impl Trail {
    /// The trail of a block: from its parent's, or as its epoch's first.
    pub(crate) fn after(
        rules: &Rules,
        parent: Option<&Self>,
        header: &Header,
        hash: &Digest,
    ) -> Option<Self> {
        if rules.genesis.epoch_of(header.height) * rules.genesis.epoch_blocks == header.height {
            return Some(Self::first(rules, header, hash));
        }
        Some(parent?.clone().with(rules, hash))
    }

    /// The trail of an epoch's first block.
    fn first(rules: &Rules, header: &Header, hash: &Digest) -> Self {
        Self { before: header.parent, headers: merkle::Frontier::default() }.with(rules, hash)
    }

    fn with(mut self, rules: &Rules, hash: &Digest) -> Self {
        let suite = rules.suite();
        self.headers.push(crypto::tree(suite), crypto::header_leaf(suite, hash));
        self
    }

    /// The root over the headers.
    pub(crate) fn root(&self, rules: &Rules) -> Digest {
        self.headers.root(crypto::tree(rules.suite()))
    }
}

/// How many blocks' trails are kept: more than are ever under way.
const TRAILS_KEPT: usize = 256;

/// The trails of recent blocks, by the hash of their headers.
#[derive(Default)]
pub(crate) struct Trails {
    kept: HashMap<Digest, Trail>,
    order: VecDeque<Digest>,
}

impl Trails {
    fn keep(&mut self, hash: Digest, trail: Trail) {
        if self.kept.insert(hash, trail).is_none() {
            self.order.push_back(hash);
            if self.order.len() > TRAILS_KEPT
                && let Some(old) = self.order.pop_front()
            {
                self.kept.remove(&old);
            }
        }
    }

    /// Takes note of a block where its parent's trail is known, or it is its epoch's first.
    pub(crate) fn note(&mut self, rules: &Rules, header: &Header, hash: Digest) {
        if let Some(trail) = Trail::after(rules, self.kept.get(&header.parent), header, &hash) {
            self.keep(hash, trail);
        }
    }

    pub(crate) fn get(&self, hash: &Digest) -> Option<Trail> {
        self.kept.get(hash).cloned()
    }
}

/// The trail of a block, from those kept or from its ancestors, which `ancestry` yields from its parent on.
pub(crate) async fn trail_of(
    rules: &Rules,
    trails: &Mutex<Trails>,
    block: &Block,
    mut ancestry: impl Stream<Item = Digested<Block>> + Unpin,
) -> Option<Trail> {
    let known = |hash: &Digest| trails.lock().expect("no holder panics").get(hash);
    if let Some(trail) = known(&block.hash()) {
        return Some(trail);
    }
    let mut headers = vec![(block.header.clone(), block.hash())];
    loop {
        let (oldest, hash) = headers.last().expect("never empty");
        if known(hash).is_some()
            || rules.genesis.epoch_of(oldest.height) * rules.genesis.epoch_blocks == oldest.height
        {
            break;
        }
        let parent = ancestry.next().await?;
        headers.push((parent.inner().header.clone(), our_digest(&parent.digest())));
    }
    let mut trails = trails.lock().expect("no holder panics");
    for (header, hash) in headers.iter().rev() {
        if trails.get(hash).is_none() {
            trails.note(rules, header, *hash);
        }
    }
    trails.get(&block.hash())
}
