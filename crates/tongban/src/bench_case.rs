//! `tongban bench case`, `call` and `verify`: whole cases, the calls in them, and their receipts, on a whole consortium.

use crate::{
    bench::{cpu_pressure, cpu_seconds},
    city::City,
    demo::{Demo, PLAIN, run_plays},
    play::{Casting, Play},
    say, stage,
};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use model::Suite;
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::interval;

/// What to measure of cases.
#[derive(Args)]
pub struct CaseOptions {
    /// The matter.
    #[arg(long, default_value = "house-transfer")]
    matter: String,
    /// How many cases, all of them plain.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=390))]
    cases: u16,
    /// How many run at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    at_once: u16,
    /// The cryptographic suite.
    #[arg(long, default_value = "international", value_parser = crate::suite)]
    suite: Suite,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// What to measure of calls.
#[derive(Args)]
pub struct CallOptions {
    /// How many calls a second.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(3..=300))]
    rate: u64,
    /// For how long.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The cryptographic suite.
    #[arg(long, default_value = "international", value_parser = crate::suite)]
    suite: Suite,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// What to measure of receipts.
#[derive(Args)]
pub struct VerifyOptions {
    /// For how long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The cryptographic suite.
    #[arg(long, default_value = "international", value_parser = crate::suite)]
    suite: Suite,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// A consortium for one matter, and so many plain plays.
async fn on_stage(dir: &Path, matter: &str, suite: Suite, cases: usize) -> Result<(Demo, Vec<Play>)> {
    let mut casting = Casting::new(Arc::new(City::new(1)));
    let played = stage::matter(matter)?;
    let plays = (0..cases).map(|_| casting.cast(&played, PLAIN)).collect::<Result<Vec<_>>>()?;
    let demo = Demo::start(&dir.join("data"), 0, suite, &mut casting, vec![played]).await?;
    Ok((demo, plays))
}

/// The places a distribution is told by.
fn latency(samples: &mut [u64]) -> Value {
    samples.sort_unstable();
    let at = |p: f64| {
        samples.get(((samples.len() as f64 - 1.0) * p).round() as usize).copied().unwrap_or_default()
    };
    json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "p999": at(0.999) })
}

fn print(document: &Value, json: bool) -> Result<()> {
    if json {
        say!("{document}");
    } else {
        say!("{}", serde_json::to_string_pretty(document)?);
    }
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, |n| n.get())
}

/// Plain cases from application to end, people taking no time but that of their requests.
pub async fn case(options: CaseOptions) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut demo, plays) =
        on_stage(dir.path(), &options.matter, options.suite, usize::from(options.cases) + 2).await?;
    let (warm, plays) = (plays[..2].to_vec(), plays[2..].to_vec());
    run_plays(&mut demo, warm, 1, true).await?;
    let (cpu, begun) = (cpu_seconds(), Instant::now());
    let reports = run_plays(&mut demo, plays, usize::from(options.at_once), options.json).await?;
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let pressure = cpu_pressure();
    demo.stop().await;
    let unexpected = reports.iter().find(|r| !r.differs.is_empty());
    ensure!(unexpected.is_none(), "a case came out otherwise: {:?}", unexpected.map(|r| &r.differs));
    let mut elapsed: Vec<_> = reports.iter().map(|r| r.elapsed_ms).collect();
    let (calls, actions) = reports.first().map_or((0, 0), |r| (r.calls, r.actions));
    let document = json!({
        "per_second": reports.len() as f64 / seconds,
        "latency_ms": latency(&mut elapsed),
        "cpu_seconds_per_1000": cpu / reports.len() as f64 * 1000.0,
        "cpu_pressure": { "avg10": pressure },
        "conditions": {
            "matter": options.matter, "cases": reports.len(), "at_once": options.at_once, "suite": options.suite.as_str(),
            "calls_a_case": calls, "actions_a_case": actions, "seconds": seconds, "cores": cores(),
            "departments": "answer at once; all nodes and clients in this process",
        },
    });
    print(&document, options.json)
}

/// Whole calls, from asking to the opened payload, at a steady rate: the three that follow when the seller of a home is identified.
pub async fn call(options: CallOptions) -> Result<()> {
    const CALLS_A_CASE: u64 = 3;
    let dir = tempfile::tempdir()?;
    let cases = usize::try_from(options.rate * options.seconds / CALLS_A_CASE)?;
    ensure!(
        (1..=390).contains(&cases),
        "{} calls take {cases} homes that are sold, and the city has 390: lower --rate or --seconds",
        options.rate * options.seconds
    );
    let (demo, plays) = on_stage(dir.path(), "house-transfer", options.suite, cases + 2).await?;
    let driver = demo.driver();
    for play in &plays[..2] {
        driver.calls_before_signing(play).await?;
    }
    let (cpu, begun) = (cpu_seconds(), Instant::now());
    let mut turns = interval(Duration::from_secs_f64(CALLS_A_CASE as f64 / options.rate as f64));
    let mut tasks = Vec::new();
    for play in plays.into_iter().skip(2) {
        turns.tick().await;
        let driver = driver.clone();
        tasks.push(tokio::spawn(async move { driver.calls_before_signing(&play).await }));
    }
    let (mut whole, mut granted) = (Vec::new(), Vec::new());
    for task in tasks {
        let (took, each) = task.await??;
        whole.push(took);
        granted.extend(each);
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let pressure = cpu_pressure();
    demo.stop().await;
    let done = granted.len() as f64;
    let document = json!({
        "per_second": done / seconds,
        // the slowest of a case's three, as its terminal sees it: from the answer to the identification on
        "latency_ms": latency(&mut whole),
        // by the ledger's clock: from the block that granted the call
        "granted_to_opened_ms": latency(&mut granted),
        "cpu_seconds_per_1000": cpu / done * 1000.0,
        "cpu_pressure": { "avg10": pressure },
        "conditions": {
            "rate": options.rate, "calls": granted.len(), "suite": options.suite.as_str(), "seconds": seconds, "cores": cores(),
            "each": "with its case opened and its party identified", "clients": "in the same process",
        },
    });
    print(&document, options.json)
}

/// Receipts verified offline, one after the other on one core.
pub async fn verify(options: VerifyOptions) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut demo, plays) = on_stage(dir.path(), "house-transfer", options.suite, 1).await?;
    let reports = run_plays(&mut demo, plays, 1, true).await?;
    demo.stop().await;
    let genesis = node::read_genesis(&dir.path().join("data/genesis.json"))?;
    let files = &reports.first().context("a case was run")?.receipts;
    let receipts: Vec<_> = files.iter().map(std::fs::read).collect::<Result<_, _>>()?;
    let (mut took, begun) = (Vec::new(), Instant::now());
    while begun.elapsed() < Duration::from_secs(options.seconds) {
        for receipt in &receipts {
            let one = Instant::now();
            proof::verify(receipt, &genesis)?;
            took.push(one.elapsed().as_micros() as u64);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let done = took.len() as f64;
    let document = json!({
        "per_second": done / seconds,
        "latency_us": latency(&mut took),
        "cpu_seconds_per_1000": seconds / done * 1000.0,
        "cpu_pressure": { "avg10": cpu_pressure() },
        "conditions": {
            "receipts": receipts.len(), "bytes": receipts.iter().map(Vec::len).sum::<usize>() / receipts.len().max(1),
            "suite": options.suite.as_str(), "seconds": seconds, "cores_used": 1,
        },
    });
    print(&document, options.json)
}
