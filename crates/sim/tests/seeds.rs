//! Many seeds hold, the same seed comes out the same, and every planted bug is caught. Plain threads, because chance and
//! planted bugs are a thread's own, and the deterministic runtime bears no other runtime around it.

use sim::{BUGS, Report};
use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering::SeqCst},
};

/// How many seeds run here; `cargo xtask soak` runs ten thousand.
const SEEDS: u64 = 500;
/// How many seeds a planted bug may hide for.
const HIDES: u64 = 80;
const AT_ONCE: usize = 2;

fn each(seeds: impl Iterator<Item = u64> + Send, work: impl Fn(u64) + Sync) {
    let seeds = Mutex::new(seeds);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.lock().unwrap().next() else { return };
                    work(seed);
                }
            });
        }
    });
}

#[test]
fn every_seed_holds() {
    let failed = Mutex::new(Vec::new());
    let (crashes, points) = (AtomicU64::new(0), AtomicU64::new(0));
    each(0..SEEDS, |seed| {
        let report = sim::run(seed, &[]);
        crashes.fetch_add(report.crashes, SeqCst);
        points.fetch_add(report.points, SeqCst);
        if !report.violations.is_empty() {
            failed.lock().unwrap().push((seed, report.violations));
        }
    });
    let failed = failed.into_inner().unwrap();
    for (seed, violations) in &failed {
        println!(
            "seed {seed}: {violations:?}\n  replay: cargo run --release -p sim -- --from {seed} --verbose"
        );
    }
    assert!(failed.is_empty(), "{} of {SEEDS} seeds failed", failed.len());
    assert!(crashes.into_inner() > SEEDS, "trouble really came");
    assert!(points.into_inner() > 1000 * SEEDS);
}

#[test]
fn a_seed_comes_out_the_same_every_time() {
    each(0..8, |seed| {
        let runs: Vec<Report> = (0..2).map(|_| sim::run(seed, &[])).collect();
        assert_eq!(runs[0], runs[1], "seed {seed}");
    });
}

#[test]
fn every_planted_bug_is_caught() {
    for (bug, what) in BUGS {
        let caught = AtomicU64::new(u64::MAX);
        let until_caught = (0..HIDES).take_while(|_| caught.load(SeqCst) == u64::MAX);
        each(until_caught, |seed| {
            if !sim::run(seed, &[bug]).violations.is_empty() {
                caught.fetch_min(seed, SeqCst);
            }
        });
        let seed = caught.into_inner();
        assert_ne!(seed, u64::MAX, "{bug} ({what}) hid for {HIDES} seeds");
        println!("{bug} is caught by seed {seed}");
    }
}
