//! One run: the whole consortium in one deterministic process, its people, its misfortunes, and what was seen.

use crate::{
    check,
    disk::{Disk, Fuse},
    people::{carry, change},
    plan::{AUDIT, Death, Partition, Plan, TROUBLE_MS},
    wires::{Rough, Roughness},
    world::{Database, Department, START_MS, World, name},
};
use chain::{BlockEvents, Chain, Host, Key, Wires};
use commonware_codec::{Copying, DecodeExt as _};
use commonware_p2p::{
    Recipients, Sender as _,
    simulated::{self, Link, Network, Oracle, SplitOrigin, SplitTarget},
};
use commonware_runtime::{
    Clock as _, Handle, IoBuf, Runner as _, Spawner as _, Storage as _, Supervisor as _, deterministic,
};
use commonware_utils::{NZUsize, Probability};
use crypto::SigningKey;
use flow::{Flow, Settings};
use gateway::Gateway;
use ledger::Rules;
use model::*;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::{Notify, mpsc};

pub(crate) type Context = deterministic::Context;
type CityFlow = Flow<Database>;

/// How long the city has to come to rest once all misfortunes are over, in virtual milliseconds.
pub(crate) const REST_WITHIN_MS: u64 = 120_000;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// A hash of everything that happened: the same seed gives the same.
    pub fingerprint: String,
    /// The newest height.
    pub height: u64,
    /// How every case ended.
    pub outcomes: Vec<String>,
    /// How many crashes struck.
    pub crashes: u64,
    /// How many persistence points were passed.
    pub points: u64,
    /// What was wrong; empty where all held.
    pub violations: Vec<String>,
}

/// What everybody sees of the ledger, and what they owe it.
#[derive(Default)]
pub struct Seen {
    /// Every height as it was first seen, and when, in virtual milliseconds.
    pub blocks: Mutex<BTreeMap<u64, (BlockEvents, u64)>>,
    /// Commands whose finality was told to a client, with the height.
    pub told: Mutex<Vec<(CommandId, u64)>>,
    /// When which payload came to the asker.
    pub arrivals: Mutex<Vec<(CallId, u64)>>,
    /// What was found wrong on the way.
    pub violations: Mutex<Vec<String>>,
    /// Cases opened, by sale.
    pub cases: Mutex<BTreeMap<usize, Vec<CaseId>>>,
}

impl Seen {
    /// Notes something wrong.
    pub fn wrong(&self, what: String) {
        self.violations.lock().expect("no holder panics").push(what);
    }
}

/// The running city.
pub struct City {
    /// What it is made of.
    pub world: World,
    /// What was seen.
    pub seen: Seen,
    flows: Vec<Mutex<Option<CityFlow>>>,
    strikes: Vec<Notify>,
    down_ms: Vec<AtomicU64>,
    crashes: AtomicU64,
    over: AtomicBool,
    /// Whether a department's disk is lost when its node next dies.
    wipe: Vec<AtomicBool>,
    /// The epoch a department's node was in when its disk was lost, and one more; 0: it was not.
    wiped: Vec<AtomicU64>,
    /// Whether audit's key votes from two nodes at once.
    pub(crate) twin: AtomicBool,
    rough: Arc<Roughness>,
}

pub(crate) fn ms(context: &Context) -> u64 {
    context.current().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

pub(crate) async fn wait(context: &Context, ms: u64) {
    context.sleep(Duration::from_millis(ms)).await;
}

fn key(department: &Department) -> Key {
    Key::decode(Copying(&department.own.keys.node_key().0[..])).expect("a node key")
}

/// Runs the city of a seed, with these bugs planted.
pub fn run(seed: u64, bugs: &[&str]) -> Report {
    // some bugs need a plan that tempts them
    model::plant(bugs);
    let plan = Plan::new(seed);
    run_plan(seed, plan, bugs)
}

/// Runs a plan.
pub fn run_plan(seed: u64, plan: Plan, bugs: &[&str]) -> Report {
    let mut planted = bugs.to_vec();
    planted.extend(plan.lies.iter());
    model::plant(&planted);
    let mut entropy = [0; 32];
    entropy[..8].copy_from_slice(&seed.to_le_bytes());
    crypto::seeded::this_thread(Some(entropy));
    let config = deterministic::Config::new()
        .with_seed(seed)
        .with_cycle(Duration::from_micros(100))
        .with_start_time(std::time::UNIX_EPOCH + Duration::from_millis(START_MS))
        .with_timeout(Some(Duration::from_secs(900)))
        .with_catch_panics(true);
    let running = || deterministic::Runner::new(config).start(|context| live(context, seed, plan));
    let report = std::panic::catch_unwind(std::panic::AssertUnwindSafe(running));
    crypto::seeded::this_thread(None);
    model::plant(&[]);
    report.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let what = what.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Report {
            fingerprint: String::new(),
            height: 0,
            outcomes: vec![],
            crashes: 0,
            points: 0,
            violations: vec![format!("the run panicked: {what}")],
        }
    })
}

async fn live(context: Context, seed: u64, plan: Plan) -> Report {
    let world = World::new(seed, &plan);
    let n = world.departments.len();
    let city = Arc::new(City {
        seen: Seen::default(),
        flows: (0..n).map(|_| Mutex::default()).collect(),
        strikes: (0..n).map(|_| Notify::new()).collect(),
        down_ms: (0..n).map(|_| AtomicU64::new(0)).collect(),
        crashes: AtomicU64::new(0),
        over: AtomicBool::new(false),
        wipe: (0..n).map(|_| AtomicBool::new(false)).collect(),
        wiped: (0..n).map(|_| AtomicU64::new(0)).collect(),
        twin: AtomicBool::new(false),
        rough: Arc::default(),
        world,
    });
    for (department, skew) in city.world.departments.iter().zip(&plan.skews_ms) {
        department.skew_ms.store(*skew, SeqCst);
    }
    watch_payloads(&context, &city);
    let mut keys: Vec<_> = city.world.departments.iter().map(key).collect();
    // one more that is no department: an intruder, or a member that cheats
    let intruder = crypto::Keys::random(Suite::International);
    keys.push(Key::decode(Copying(&intruder.node_key().0[..])).expect("a key"));
    let (network, oracle) = Network::new_with_peers(
        context.child("network"),
        simulated::Config {
            max_size: 16 << 20,
            max_peers_per_set: NZUsize!(16),
            disconnect_on_block: true,
            tracked_peer_sets: NZUsize!(1),
        },
        keys.clone(),
    )
    .await;
    network.start();
    let link = |lost: u64| Link {
        latency: Duration::from_millis(plan.latency_ms),
        jitter: Duration::from_millis(plan.jitter_ms),
        success_rate: Probability::new(1000 - lost, 1000).expect("at most one"),
    };
    connect(&oracle, &keys, &link(0)).await;
    if plan.twin {
        city.twin.store(true, SeqCst);
    }
    for i in 0..n {
        let (city, oracle) = (city.clone(), oracle.clone());
        context.child("keeper").with_attribute("who", i).spawn(move |context| keep(context, city, oracle, i));
    }
    let settled = tell_the_story(&context, &city, &oracle, &keys, &plan, &link).await;
    if let Err(what) = settled {
        city.seen.wrong(what);
    } else {
        check::all(&city, &plan).await;
    }
    let outcomes = outcomes(&city);
    city.over.store(true, SeqCst);
    for flow in &city.flows {
        flow.lock().expect("no holder panics").take();
    }
    for department in &city.world.departments {
        department.vault.watch.lock().expect("no holder panics").take();
    }
    let mut violations = city.seen.violations.lock().expect("no holder panics").clone();
    violations.dedup();
    Report {
        fingerprint: context.auditor().state(),
        height: city.seen.blocks.lock().expect("no holder panics").keys().next_back().copied().unwrap_or(0),
        outcomes,
        crashes: city.crashes.load(SeqCst),
        points: city.world.departments.iter().map(|d| d.fuse.passed()).sum(),
        violations,
    }
}

fn watch_payloads(context: &Context, city: &Arc<City>) {
    let clock = context.child("clock");
    let watched = Arc::downgrade(city);
    *city.world.department("bureau").vault.watch.lock().expect("no holder panics") =
        Some(Box::new(move |place: &str| {
            let call = place.strip_prefix("early/").or(place.strip_prefix("opened/"));
            let (Some(call), Some(city)) = (call.and_then(|c| c.parse().ok()), watched.upgrade()) else {
                return;
            };
            city.seen.arrivals.lock().expect("no holder panics").push((call, ms(&clock)));
        }));
}

async fn connect(oracle: &Oracle<Key, Context>, keys: &[Key], link: &Link) {
    for from in keys {
        for to in keys.iter().filter(|k| *k != from) {
            let _ = oracle.remove_link(from.clone(), to.clone()).await;
            let _ = oracle.add_link(from.clone(), to.clone(), link.clone()).await;
        }
    }
}

/// Keeps one department's node alive: starts it, lets it die, starts it again.
async fn keep(context: Context, city: Arc<City>, oracle: Oracle<Key, Context>, i: usize) {
    let department = &city.world.departments[i];
    for life in 0u64.. {
        department.fuse.renew();
        let mut root = begin(&context, &city, &oracle, i, life).await;
        tokio::select! {
            biased;
            () = department.fuse.died.notified() => {}
            () = city.strikes[i].notified() => {}
            ended = &mut root => {
                if !city.over.load(SeqCst) {
                    city.seen.wrong(format!("the node of {} stopped by itself: {ended:?}", department.id));
                }
                return;
            }
        }
        root.abort();
        let gone = city.flows[i].lock().expect("no holder panics").take();
        if city.wipe[i].swap(false, SeqCst) {
            let epoch = gone.map_or(0, |flow| flow.chain().roster().0);
            city.wiped[i].fetch_max(epoch + 1, SeqCst);
            wait(&context, 50).await;
            for partition in department.fuse.take_opened() {
                let _ = context.remove(&partition, None).await;
            }
        }
        city.crashes.fetch_add(1, SeqCst);
        wait(&context, 50 + city.down_ms[i].load(SeqCst)).await;
    }
}

/// One life of a node.
async fn begin(
    context: &Context,
    city: &Arc<City>,
    oracle: &Oracle<Key, Context>,
    i: usize,
    life: u64,
) -> Handle<()> {
    let department = &city.world.departments[i];
    let me = key(department);
    for other in city.world.departments.iter().map(key).filter(|k| *k != me) {
        // blocks last as long as a process does
        let _ = oracle.unblock(me.clone(), other.clone()).await;
    }
    let control = oracle.control(me);
    // whom the twin talks to; the first node has all others
    let keys: Vec<_> = city.world.departments.iter().map(key).collect();
    let split = crypto::random::<1>()[0];
    let twin_has =
        move |peer: &Key| keys.iter().position(|k| k == peer).is_some_and(|i| split >> (i % 8) & 1 == 1);
    let twin = i == 0 && city.twin.load(SeqCst);
    let (mut channels, mut twins) = (Vec::new(), Vec::new());
    for channel in 0..chain::CHANNELS {
        let (sender, receiver) =
            control.register(channel, chain::quota_of(channel)).await.expect("the network runs");
        let (to_twin, from_twin) = (twin_has.clone(), twin_has.clone());
        let all = city.world.departments.iter().map(key).collect::<Vec<_>>();
        let (first, second) = sender.split_with(move |origin, recipients, _| {
            if !twin {
                return Some(recipients.clone());
            }
            let wanted = match recipients {
                Recipients::All => all.clone(),
                Recipients::Some(some) => some.clone(),
                Recipients::One(one) => vec![one.clone()],
            };
            let second = matches!(origin, SplitOrigin::Secondary);
            Some(Recipients::Some(wanted.into_iter().filter(|k| to_twin(k) == second).collect()))
        });
        let (firsts, seconds) = receiver.split_with(context.child("split"), move |(peer, _)| {
            if twin && from_twin(peer) { SplitTarget::Secondary } else { SplitTarget::Primary }
        });
        channels.push(Some((first, Rough::new(firsts, city.rough.clone(), channel >= 5))));
        twins.push(Some((second, Rough::new(seconds, city.rough.clone(), false))));
    }
    let wires = self::wires(channels, &control);
    if twin {
        let (city, wires) = (city.clone(), self::wires(twins, &control));
        let named = context.child("twin").with_attribute("life", life);
        named.spawn(move |context| async move {
            let department = &city.world.departments[i];
            let disk = Disk::new(context, "twin-", Arc::new(Fuse::new(&[])));
            let host = Host::of_engine(disk.child("host"), department.skew_ms.clone());
            let (letters, _received) = mpsc::channel(1024);
            let (_chain, node) =
                chain::prepare(config(&city, i, true, letters), host).expect("a right configuration");
            node.serve(disk, wires).await;
        });
    }
    let city = city.clone();
    let named = context.child("node").with_attribute("who", i).with_attribute("life", life);
    named.spawn(move |context| async move {
        let department = &city.world.departments[i];
        let disk = Disk::new(context, &format!("{}-", department.id), department.fuse.clone());
        let host = Host::of_engine(disk.child("host"), department.skew_ms.clone());
        let (letters, received) = mpsc::channel(1024);
        let (chain, node) = chain::prepare(config(&city, i, life == 0, letters), host.clone())
            .expect("a right configuration");
        let gateway =
            Gateway::open(department.connector.clone(), &city.world.standard, department.source.clone())
                .await;
        let gateway = Arc::new(gateway.expect("a database in memory"));
        assert!(gateway.problems().is_empty(), "{:?}", gateway.problems());
        let packages =
            if department.id.as_str() == "bureau" { vec![city.world.package.clone()] } else { vec![] };
        follow(&host, &city, i, &chain, &disk);
        let flow = Flow::start(Settings {
            chain,
            department: department.id.clone(),
            keys: department.own.keys.clone(),
            vault: department.vault.clone(),
            gateway,
            packages,
            withholdings: city.world.withholdings(&department.id),
            watch_every: Duration::from_secs(5),
            letters: received,
        });
        *city.flows[i].lock().expect("no holder panics") = Some(flow);
        drop(host);
        node.serve(disk, wires).await;
    })
}

/// Channels in the order of their numbers, as a node takes them.
fn wires<S, R, B: Clone>(mut channels: Vec<Option<(S, R)>>, blocker: &B) -> Wires<S, R, B> {
    let mut take = |channel: usize| channels[channel].take().expect("taken once");
    Wires {
        votes: take(0),
        certificates: take(1),
        resolver: take(2),
        backfill: take(3),
        broadcast: take(4),
        told: take(5),
        posted: take(6),
        blocker: blocker.clone(),
        track: Box::new(|_, _| {}),
        network: Handle::from_future(std::future::pending()),
    }
}

fn config(city: &City, i: usize, first_start: bool, letters: mpsc::Sender<chain::Letter>) -> chain::Config {
    let department = &city.world.departments[i];
    let nowhere: SocketAddr = ([127, 0, 0, 1], 1).into();
    chain::Config {
        rules: Rules::of(city.world.genesis.clone()),
        department: department.id.clone(),
        node_key: department.own.keys.node.clone(),
        vote_keys: department.votes.clone(),
        first_start,
        listen: nowhere,
        introductions: vec![],
        storage: "".into(),
        archive: None,
        letters,
    }
}

/// Notes every block this node sees final: all must see the same.
fn follow<E: chain::Engine>(host: &Host, city: &Arc<City>, i: usize, chain: &Chain, context: &E) {
    let (chain, city) = (chain.clone(), city.clone());
    let clock = context.child("clock");
    // what was lost before this life; a life that ends may run on for a moment
    let wiped = city.wiped[i].load(SeqCst);
    host.spawn(async move {
        let mut events = chain.events(1);
        while let Ok(block) = events.next().await {
            let now =
                clock.current().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
            if block.time_ms > now + check::AHEAD_MS_MAX {
                city.seen.wrong(format!(
                    "block {} is {} ms ahead of the time",
                    block.height,
                    block.time_ms - now
                ));
            }
            if chain.votes() && chain.roster().0 < wiped {
                let who = &city.world.departments[i].id;
                city.seen.wrong(format!("{who} votes in epoch {} again, and has lost its votes", wiped - 1));
            }
            let mut blocks = city.seen.blocks.lock().expect("no holder panics");
            let (first, _) = blocks.entry(block.height).or_insert_with(|| (block.clone(), now));
            if first.hash != block.hash {
                city.seen.wrong(format!("two blocks are final at height {}", block.height));
            }
        }
    });
}

impl City {
    /// A department's flow, where its node is up.
    pub fn flow(&self, id: &str) -> Option<CityFlow> {
        let i = self.world.departments.iter().position(|d| d.id.as_str() == id)?;
        self.flows[i].lock().expect("no holder panics").clone()
    }
}

/// What a request comes to, or nothing where no answer comes: a node may die on the way.
pub(crate) async fn answered<T>(context: &Context, request: impl Future<Output = T>) -> Option<T> {
    let mut late = std::pin::pin!(context.sleep(Duration::from_secs(40)));
    let mut request = std::pin::pin!(request);
    tokio::select! {
        biased;
        done = &mut request => Some(done),
        () = &mut late => None,
    }
}

/// Tries until something comes of it, with a pause between tries.
pub(crate) async fn until<T, F>(
    context: &Context,
    city: &City,
    what: &str,
    within_ms: u64,
    mut try_it: impl FnMut() -> F,
) -> Result<T, String>
where
    F: Future<Output = Option<T>>,
{
    let deadline = ms(context) + within_ms;
    loop {
        if let Some(Some(done)) = answered(context, try_it()).await {
            return Ok(done);
        }
        // once something is wrong nothing else has to come
        if let Some(wrong) = city.seen.violations.lock().expect("no holder panics").first() {
            return Err(wrong.clone());
        }
        if ms(context) > deadline {
            return Err(format!("{what} did not come within {within_ms} ms"));
        }
        wait(context, 40).await;
    }
}

type LinkOf<'a> = &'a (dyn Fn(u64) -> Link + Sync);

async fn tell_the_story(
    context: &Context,
    city: &Arc<City>,
    oracle: &Oracle<Key, Context>,
    keys: &[Key],
    plan: &Plan,
    link: LinkOf<'_>,
) -> Result<(), String> {
    for (id, body) in city.world.publications() {
        until(context, city, "a publication", 60_000, || async {
            let flow = city.flow(id.as_str())?;
            let event = flow.submit_and_wait(body.clone(), Duration::from_secs(20)).await.ok()?;
            note_told(city, &event);
            Some(())
        })
        .await?;
    }
    // trouble begins
    connect(oracle, keys, &link(plan.lost)).await;
    for (chance, value) in [&city.rough.doubled, &city.rough.held, &city.rough.damaged].iter().zip(plan.rough)
    {
        chance.store(value, SeqCst);
    }
    strike(context, city, plan);
    cut(context, oracle, keys, plan, link);
    if plan.forged {
        forge(context, city, oracle, keys.last().expect("the intruder")).await;
    }
    let mut shifts = Vec::new();
    for (at_ms, shift) in plan.shifts.clone() {
        let city = city.clone();
        let named = context.child("shift").with_attribute("at", at_ms);
        shifts.push(named.spawn(move |context| async move {
            wait(&context, at_ms).await;
            change(&context, &city, shift).await
        }));
    }
    let mut people = Vec::new();
    for (i, sale) in city.world.sales.iter().cloned().enumerate() {
        let city = city.clone();
        let named = context.child("people").with_attribute("sale", i);
        people.push(named.spawn(move |context| async move { carry(&context, &city, i, &sale).await }));
    }
    wait(context, TROUBLE_MS + 2_600).await;
    for chance in [&city.rough.doubled, &city.rough.held, &city.rough.damaged] {
        chance.store(0, SeqCst);
    }
    for department in &city.world.departments {
        department.fuse.spare();
    }
    connect(oracle, keys, &link(0)).await;
    for (i, person) in people.into_iter().enumerate() {
        match person.await {
            Ok(done) => done.map_err(|e| format!("sale {i} ({:?}): {e}", city.world.sales[i].kind))?,
            Err(e) => return Err(format!("sale {i} could not be carried: {e}")),
        }
    }
    for shift in shifts {
        match shift.await {
            Ok(done) => done.map_err(|e| format!("a change of the consortium: {e}"))?,
            Err(e) => return Err(format!("a change of the consortium could not be made: {e}")),
        }
    }
    all_caught_up(context, city).await
}

pub(crate) fn note_told(city: &City, event: &Event) {
    city.seen.told.lock().expect("no holder panics").push((event.id, event.height));
}

/// Every node reaches the newest height, and every call is confirmed.
async fn all_caught_up(context: &Context, city: &Arc<City>) -> Result<(), String> {
    let tip = city.seen.blocks.lock().expect("no holder panics").keys().next_back().copied().unwrap_or(0);
    // the others have cut off whoever voted twice
    for department in city.world.departments.iter().skip(usize::from(city.twin.load(SeqCst))) {
        until(context, city, &format!("{} at height {tip}", department.id), REST_WITHIN_MS, || async {
            let flow = city.flow(department.id.as_str())?;
            (flow.chain().height() >= tip).then_some(())
        })
        .await?;
        if let Some(flow) = city.flow(department.id.as_str()) {
            flow.caught_up(tip).await;
        }
    }
    until(context, city, "the confirmation of every opened call", REST_WITHIN_MS, || async {
        check::unconfirmed(city).is_none().then_some(())
    })
    .await
    .map_err(|e| format!("{e}: {}", check::unconfirmed(city).unwrap_or_default()))
}

/// Crashes nodes as planned.
fn strike(context: &Context, city: &Arc<City>, plan: &Plan) {
    // a twin is fault enough for its department
    for crash in plan.crashes.clone().into_iter().filter(|c| !plan.twin || c.who != AUDIT) {
        let city = city.clone();
        context.child("strike").spawn(move |context| async move {
            wait(&context, crash.at_ms).await;
            city.down_ms[crash.who].store(crash.down_ms, SeqCst);
            let fuse = &city.world.departments[crash.who].fuse;
            match crash.death {
                Death::Now => city.strikes[crash.who].notify_one(),
                Death::Wiped => {
                    city.wipe[crash.who].store(true, SeqCst);
                    city.strikes[crash.who].notify_one();
                }
                Death::Points(points) => fuse.burn_after(points),
                Death::Acted => fuse.burn_at("acted"),
                Death::Opened => fuse.burn_at("opened"),
            }
        });
    }
}

/// Cuts departments off as planned, and reconnects them.
fn cut(context: &Context, oracle: &Oracle<Key, Context>, keys: &[Key], plan: &Plan, link: LinkOf<'_>) {
    let lost = plan.lost;
    for Partition { at_ms, who, one_way, for_ms } in plan.partitions.clone() {
        let (oracle, keys, link) = (oracle.clone(), keys.to_vec(), link(lost));
        context.child("cut").spawn(move |context| async move {
            wait(&context, at_ms).await;
            let mut links = Vec::new();
            for (i, a) in keys.iter().enumerate() {
                for (j, b) in keys.iter().enumerate() {
                    let out = who.contains(&i) && !who.contains(&j);
                    let back = !one_way && who.contains(&j) && !who.contains(&i);
                    if out || back {
                        links.push((a.clone(), b.clone()));
                    }
                }
            }
            for (a, b) in &links {
                let _ = oracle.remove_link(a.clone(), b.clone()).await;
            }
            wait(&context, for_ms).await;
            for (a, b) in links {
                let _ = oracle.remove_link(a.clone(), b.clone()).await;
                let _ = oracle.add_link(a, b, link.clone()).await;
            }
        });
    }
}

/// Tells every validator commands in the police's name with another's signature.
async fn forge(context: &Context, city: &Arc<City>, oracle: &Oracle<Key, Context>, me: &Key) {
    let intruder = SigningKey::random(city.world.genesis.suite);
    let body = Body::Anchor(Anchor { topic: name("forged"), data: vec![1; 30] });
    let command = Command {
        chain: crypto::chain_id(&city.world.genesis),
        signer: name("police"),
        nonce: 1,
        expires_ms: ms(context) + 3_600_000,
        body,
    };
    let bytes = encode(&crypto::signed(&intruder, command));
    let mut message = (bytes.len() as u32).to_le_bytes().to_vec();
    message.extend_from_slice(&bytes);
    let (mut sender, _) =
        oracle.control(me.clone()).register(5, chain::quota_of(5)).await.expect("the network runs");
    sender.send(Recipients::All, IoBuf::from(message), false);
}

fn outcomes(city: &City) -> Vec<String> {
    let Some(flow) = city.flow("bureau") else { return Vec::new() };
    let cases = city.seen.cases.lock().expect("no holder panics");
    cases
        .iter()
        .flat_map(|(sale, ids)| ids.iter().map(move |id| (sale, id)))
        .map(|(sale, id)| {
            let settled = flow.case(*id).and_then(|v| v.case.settled);
            let settled =
                settled.map_or("none".to_owned(), |s| format!("{} ({})", s.outcome.as_str(), s.reason));
            format!("{:?}: {settled}", city.world.sales[*sale].kind)
        })
        .collect()
}
