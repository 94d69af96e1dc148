//! `sim`: runs seeds and says which fail.

use clap::Parser;
use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

/// Runs a whole consortium from seeds, with faults, and checks what must hold.
///
/// Example: cargo run --release -p sim -- --from 0 --seeds 300
#[derive(Parser)]
struct Cli {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Plants a bug, by name.
    #[arg(long)]
    bug: Vec<String>,
    /// Runs every seed twice and compares.
    #[arg(long)]
    twice: bool,
    /// How many run at once.
    #[arg(long, default_value_t = 2)]
    at_once: usize,
    /// Says what each seed came to.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let bugs: Vec<&str> = cli.bug.iter().map(String::as_str).collect();
    let (next, failed) = (AtomicU64::new(cli.from), Mutex::new(Vec::new()));
    let begun = Instant::now();
    let (crashes, points) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..cli.at_once {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= cli.from + cli.seeds {
                        return;
                    }
                    if cli.verbose {
                        println!("seed {seed}: {:?}", sim::plan::Plan::new(seed));
                    }
                    let mut report = sim::run(seed, &bugs);
                    if cli.twice && sim::run(seed, &bugs) != report {
                        report.violations.push("the same seed came out otherwise the second time".into());
                    }
                    crashes.fetch_add(report.crashes, SeqCst);
                    points.fetch_add(report.points, SeqCst);
                    if cli.verbose {
                        println!("seed {seed}: {report:?}");
                    }
                    if !report.violations.is_empty() {
                        println!("seed {seed} FAILED: {}", report.violations.join("; "));
                        failed.lock().expect("no holder panics").push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no holder panics");
    println!(
        "{} seeds, {} failed, {} crashes, {} persistence points, {:.1} s",
        cli.seeds,
        failed.len(),
        crashes.load(SeqCst),
        points.load(SeqCst),
        begun.elapsed().as_secs_f64()
    );
    if let Some(seed) = failed.first() {
        println!("replay: cargo run --release -p sim -- --from {seed} --verbose (RUST_LOG=debug says more)");
        return ExitCode::from(1);
    }
    ExitCode::SUCCESS
}
