//! What befalls the city in one run, drawn from the seed.

use model::{LIST_PROTOCOL, SHARING_PROTOCOL, Suite, UNDO_PROTOCOL, planted};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// At what a node dies.
#[derive(Clone, Copy, Debug)]
pub enum Death {
    /// At once.
    Now,
    /// After so many further persistence points.
    Points(u64),
    /// When it has next changed its own database for an action, and not yet said so.
    Acted,
    /// When it has next kept what it opened, and not yet confirmed it.
    Opened,
    /// At once, and its disk is lost.
    Wiped,
}

/// A crash of one department's node.
#[derive(Clone, Debug)]
pub struct Crash {
    /// When it is armed, in milliseconds after the first case.
    pub at_ms: u64,
    /// The department, by position.
    pub who: usize,
    /// At what it dies.
    pub death: Death,
    /// How long it stays down.
    pub down_ms: u64,
}

/// A department cut off from the others for a while.
#[derive(Clone, Debug)]
pub struct Partition {
    /// When, in milliseconds after the first case.
    pub at_ms: u64,
    /// Who is cut off.
    pub who: Vec<usize>,
    /// Whether only what they send is lost.
    pub one_way: bool,
    /// For how long.
    pub for_ms: u64,
}

/// A change of the consortium in the middle of it all.
#[derive(Clone, Copy, Debug)]
pub enum Shift {
    /// A validator votes with another key from the next epoch on.
    Rotate(usize),
    /// The gas company's node becomes a validator, and then the audit office's no longer is one.
    Swap,
    /// The rules change to their next version.
    Protocol,
    /// The registry takes back the statutory basis on which it is asked.
    Revoke,
}

/// A run's misfortunes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many sales run.
    pub sales: usize,
    /// The cryptographic suite.
    pub suite: Suite,
    /// The version of the rules it begins with.
    pub protocol: u32,
    /// How many blocks an epoch has.
    pub epoch_blocks: u64,
    /// Changes of the consortium, and when they are begun, in milliseconds after the first case.
    pub shifts: Vec<(u64, Shift)>,
    /// Mean delay of every link in milliseconds.
    pub latency_ms: u64,
    /// Its standard deviation.
    pub jitter_ms: u64,
    /// Lost messages in a thousand.
    pub lost: u64,
    /// Doubled, held back and damaged messages in a thousand, off the consensus channels.
    pub rough: [u32; 3],
    /// How far each clock is off, in milliseconds.
    pub skews_ms: Vec<i64>,
    /// Crashes.
    pub crashes: Vec<Crash>,
    /// Partitions.
    pub partitions: Vec<Partition>,
    /// Whether an intruder sends commands in other departments' names.
    pub forged: bool,
    /// Lies that departments tell throughout.
    pub lies: Vec<&'static str>,
    /// A second node that votes with audit's key, from its own disk, to some of the others.
    pub twin: bool,
}

/// Departments by position, those that misfortunes aim at.
pub const AUDIT: usize = 0;
/// See [`AUDIT`].
pub const BUREAU: usize = 1;
/// See [`AUDIT`].
pub const GAS: usize = 2;
/// See [`AUDIT`].
pub const POWER: usize = 4;
/// See [`AUDIT`].
pub const REGISTRY: usize = 5;
/// How many departments there are.
pub const DEPARTMENTS: usize = 6;
/// How far a clock is off that is a fault.
const HOUR_MS: i64 = 3_600_000;
/// How long misfortunes go on, in milliseconds.
pub const TROUBLE_MS: u64 = 6_000;

impl Plan {
    /// Whether the registry takes back its basis.
    pub fn revokes(&self) -> bool {
        self.shifts.iter().any(|(_, shift)| matches!(shift, Shift::Revoke))
    }

    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x706c_616e);
        let chance = |rng: &mut ChaCha8Rng, of: u32| rng.random_range(0..of) == 0;
        let crashes = (0..rng.random_range(0..4))
            .map(|_| {
                let (at_ms, down_ms) = (rng.random_range(0..TROUBLE_MS), rng.random_range(50..2_500));
                let (who, death) = match rng.random_range(0..8) {
                    0 | 1 => ([GAS, POWER, REGISTRY][rng.random_range(0..3)], Death::Acted),
                    2 => (BUREAU, Death::Opened),
                    3 if !chance(&mut rng, 3) => (rng.random_range(0..DEPARTMENTS), Death::Wiped),
                    3 => (rng.random_range(0..DEPARTMENTS), Death::Now),
                    _ => (rng.random_range(0..DEPARTMENTS), Death::Points(rng.random_range(0..60))),
                };
                Crash { at_ms, who, death, down_ms }
            })
            .collect();
        let partitions = (0..rng.random_range(0..2))
            .map(|_| Partition {
                at_ms: rng.random_range(0..TROUBLE_MS),
                who: match rng.random_range(0..3) {
                    0 => vec![rng.random_range(0..DEPARTMENTS), rng.random_range(0..DEPARTMENTS)],
                    _ => vec![rng.random_range(0..DEPARTMENTS)],
                },
                one_way: chance(&mut rng, 3),
                for_ms: rng.random_range(200..2_500),
            })
            .collect();
        let mut skews_ms: Vec<_> = (0..DEPARTMENTS).map(|_| rng.random_range(-900..900)).collect();
        if chance(&mut rng, 5) {
            // one validator's clock runs an hour ahead
            skews_ms[AUDIT] = HOUR_MS;
        }
        let rough = if chance(&mut rng, 2) { [30, 30, 10] } else { [0, 0, 0] };
        // epochs and what changes between them
        let epoch_blocks = [24, 48, 1 << 20][rng.random_range(0..3)];
        let mut shifts = Vec::new();
        if epoch_blocks < 1 << 20 {
            for _ in 0..rng.random_range(0..3) {
                let shift = match rng.random_range(0..5) {
                    0 => Shift::Swap,
                    1 => Shift::Protocol,
                    _ => Shift::Rotate([0, 1, 3, 5][rng.random_range(0..4)]),
                };
                shifts.push((rng.random_range(0..TROUBLE_MS), shift));
            }
        }
        let twin = chance(&mut rng, 6);
        if twin {
            shifts.retain(|(_, shift)| !matches!(shift, Shift::Swap | Shift::Rotate(AUDIT)));
        }
        let mut crashes: Vec<Crash> = crashes;
        // who lost its votes abstains until the next epoch: one such validator is a fault the others bear, beside no other
        let another = twin || skews_ms[AUDIT] == HOUR_MS;
        let mut wiped = false;
        for crash in &mut crashes {
            if matches!(crash.death, Death::Wiped) && (wiped || another || epoch_blocks == 1 << 20) {
                crash.death = Death::Now;
            }
            wiped |= matches!(crash.death, Death::Wiped);
        }
        let sales = rng.random_range(2..5);
        let suite = if chance(&mut rng, 25) { Suite::National } else { Suite::International };
        let mut plan = Self {
            sales,
            suite,
            protocol: 1,
            epoch_blocks,
            shifts,
            latency_ms: rng.random_range(3..30),
            jitter_ms: rng.random_range(0..10),
            lost: if chance(&mut rng, 3) { rng.random_range(1..30) } else { 0 },
            rough,
            skews_ms,
            crashes,
            partitions,
            forged: chance(&mut rng, 3),
            lies: if chance(&mut rng, 10) { vec!["liar_subject"] } else { vec![] },
            twin,
        };
        if chance(&mut rng, 2) {
            plan.protocol =
                [SHARING_PROTOCOL, UNDO_PROTOCOL, LIST_PROTOCOL, LIST_PROTOCOL][rng.random_range(0..4)];
            if chance(&mut rng, 4) {
                plan.shifts.push((rng.random_range(0..TROUBLE_MS / 4), Shift::Revoke));
            }
        }
        if planted("left_standing") {
            plan.protocol = UNDO_PROTOCOL;
        }
        if planted("half_past") {
            let (at_ms, down_ms) = (rng.random_range(1_500..6_000), rng.random_range(300..1_500));
            // one fault of a validator, and no other
            plan.crashes = vec![Crash { at_ms, who: BUREAU, death: Death::Wiped, down_ms }];
            (plan.twin, plan.skews_ms) = (false, vec![0; plan.skews_ms.len()]);
            (plan.partitions, plan.shifts) = (vec![], vec![]);
        }
        if planted("unlisted") {
            plan.protocol = LIST_PROTOCOL;
        }
        plan
    }
}
