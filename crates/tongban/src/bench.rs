//! `tongban bench`: load on real nodes through their client API.

use crate::say;
use crate::{
    archive::bytes_of,
    client::Client,
    demo::free_addresses,
    setup::{self, Plan, PlannedDepartment, node_dir},
};
use anyhow::{Result, bail};
use clap::Args;
use crypto::signed;
use model::*;
use node::{Config, Node};
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, mpsc},
};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// How many validators.
    #[arg(long, default_value_t = 4)]
    validators: usize,
    /// The length of a signed command in bytes.
    #[arg(long, default_value_t = 512)]
    bytes: usize,
    /// How many commands wait for finality at a time.
    #[arg(long, default_value_t = 1000)]
    in_flight: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Submit this many a second, one a request, instead of as many as possible.
    #[arg(long)]
    rate: Option<u64>,
    /// The cryptographic suite.
    #[arg(long, default_value = "international", value_parser = crate::suite)]
    suite: Suite,
    /// How many of the validators are down.
    #[arg(long, default_value_t = 0)]
    down: usize,
    /// Let everything between two nodes take half of this, each way: an emulated round trip in milliseconds.
    #[arg(long, default_value_t = 0)]
    rtt_ms: u64,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// CPU seconds of this process so far.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}

pub(crate) fn cpu_pressure() -> f64 {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    text.split("avg10=")
        .nth(1)
        .and_then(|t| t.split(' ').next())
        .and_then(|t| t.parse().ok())
        .unwrap_or_default()
}

struct Source {
    chain: ChainId,
    id: DepartmentId,
    key: crypto::SigningKey,
    bytes: usize,
    nonce: AtomicU64,
}

impl Source {
    fn command(&self, padding: usize) -> Vec<u8> {
        let command = Command {
            chain: self.chain,
            signer: self.id.clone(),
            nonce: self.nonce.fetch_add(1, Ordering::Relaxed),
            expires_ms: now_ms() + 600_000,
            body: Body::Anchor(Anchor { topic: "bench".parse().expect("a name"), data: vec![7; padding] }),
        };
        encode(&signed(&self.key, command))
    }

    fn batch(&self, n: usize) -> Vec<u8> {
        let padding = self.bytes.saturating_sub(self.command(0).len());
        let mut batch = Vec::with_capacity(n * (self.bytes + 4));
        for _ in 0..n {
            let command = self.command(padding);
            batch.extend_from_slice(&(command.len() as u32).to_le_bytes());
            batch.extend_from_slice(&command);
        }
        batch
    }
}

/// Whatever comes on one address goes on to another, each way late by `delay`.
async fn slow_cable(near: TcpListener, far: SocketAddr, delay: Duration) {
    while let Ok((from, _)) = near.accept().await {
        tokio::spawn(async move {
            let Ok(to) = TcpStream::connect(far).await else { return };
            let _ = (from.set_nodelay(true), to.set_nodelay(true));
            let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
            tokio::join!(late(from_read, to_write, delay), late(to_read, from_write, delay));
        });
    }
}

async fn late(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut under_way) = mpsc::unbounded_channel::<(tokio::time::Instant, Vec<u8>)>();
    let read = async move {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(n @ 1..) = from.read(&mut piece).await {
            if sender.send((tokio::time::Instant::now() + delay, piece[..n].to_vec())).is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, piece)) = under_way.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

/// Final commands a second, and their latency from the client's side.
pub async fn ledger(options: Options) -> Result<()> {
    if options.validators < 4 || options.bytes < 256 || options.in_flight == 0 {
        bail!("needs at least 4 validators, 256 bytes a command and one in flight");
    }
    if options.down > (options.validators - 1) / 3 {
        bail!("with {} of {} validators down nothing becomes final", options.down, options.validators);
    }
    let temporary = tempfile::tempdir()?;
    let dir = temporary.path().to_owned();
    let free = free_addresses(options.validators * 2)?;
    let departments = (0..options.validators).map(|i| PlannedDepartment {
        id: format!("d{i:02}").parse().expect("a name"),
        title: Text { zh: format!("部门{i}"), en: format!("Department {i}") },
        validator: true,
        listen: free[i],
        http: free[options.validators + i],
    });
    let plan = Plan::new("bench", options.suite, departments.collect());
    let made = setup::make(&plan, &dir, "bench", now_ms(), |_| {})?;
    let mut nodes = Vec::new();
    for id in made.keys.keys() {
        setup::skeleton(&node_dir(&dir, id), id).await?;
        let mut config = Config::read(&node_dir(&dir, id).join("node.toml"))?;
        if options.rtt_ms > 0 {
            // the address the others know is the far end of a slow cable
            let cable = TcpListener::bind(config.listen).await?;
            config.listen = free_addresses(1)?[0];
            tokio::spawn(slow_cable(cable, config.listen, Duration::from_micros(options.rtt_ms * 500)));
        }
        nodes.push(Node::start(config, "bench", None).await?);
    }
    let up = options.validators - options.down;
    let sources: Vec<_> = made
        .keys
        .iter()
        .map(|(id, keys)| {
            Arc::new(Source {
                chain: made.chain,
                id: id.clone(),
                key: keys.keys.command.clone(),
                bytes: options.bytes,
                nonce: AtomicU64::new(0),
            })
        })
        .collect();
    let clients: Vec<_> = nodes.iter().map(|n| Client::new(n.http, "")).collect();
    // until the first commands are final, nodes are still finding each other
    for (client, source) in clients.iter().zip(&sources) {
        client.commands(source.batch(1)).await?;
    }
    for node in nodes.drain(up..) {
        node.stop().await;
    }
    let (clients, sources) = (&clients[..up], &sources[..up]);

    let latencies = Arc::new(Mutex::new(Vec::<u64>::new()));
    let refused = Arc::new(AtomicU64::new(0));
    let (cpu, disk, begun) = (cpu_seconds(), bytes_of(&dir), Instant::now());
    let until = begun + Duration::from_secs(options.seconds);
    let mut tasks = Vec::new();
    let (all, bad_ones) = (latencies.clone(), refused.clone());
    let run = move |client: Client, batch: Vec<u8>, n: usize| {
        let (latencies, refused) = (all.clone(), bad_ones.clone());
        async move {
            let sent = Instant::now();
            let answer = client.commands(batch).await?;
            let took = sent.elapsed().as_micros() as u64;
            let bad = answer.chunks(9).filter(|a| a[0] != 0).count();
            refused.fetch_add(bad as u64, Ordering::Relaxed);
            latencies.lock().await.extend(std::iter::repeat_n(took, n - bad));
            anyhow::Ok(())
        }
    };
    if let Some(rate) = options.rate {
        let mut interval = tokio::time::interval(Duration::from_nanos(1_000_000_000 / rate.max(1)));
        let mut i = 0;
        while Instant::now() < until {
            interval.tick().await;
            let (client, source) = (clients[i % clients.len()].clone(), &sources[i % sources.len()]);
            tasks.push(tokio::spawn(run(client, source.batch(1), 1)));
            i += 1;
        }
    } else {
        let batch = 50.min(options.in_flight);
        for i in 0..options.in_flight / batch {
            let (client, source, run) =
                (clients[i % clients.len()].clone(), sources[i % sources.len()].clone(), run.clone());
            tasks.push(tokio::spawn(async move {
                while Instant::now() < until {
                    run(client.clone(), source.batch(batch), batch).await?;
                }
                anyhow::Ok(())
            }));
        }
    }
    for task in tasks {
        task.await??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (cpu, pressure) = (cpu_seconds() - cpu, cpu_pressure());
    let mut latencies = std::mem::take(&mut *latencies.lock().await);
    latencies.sort_unstable();
    let done = latencies.len() as f64;
    let grown = bytes_of(&dir).saturating_sub(disk) as f64;
    let at = |p: f64| latencies.get(((done - 1.0) * p) as usize).copied().unwrap_or_default() as f64 / 1000.0;
    let refused = refused.load(Ordering::Relaxed);
    let document = json!({
        "per_second": (done / seconds).round(),
        "latency_ms": { "p50": at(0.5), "p99": at(0.99), "p999": at(0.999) },
        "cpu_seconds_per_1000": cpu / done * 1000.0,
        "disk_bytes_per_op": grown / done / options.validators as f64,
        "cpu_pressure": { "avg10": pressure },
        "refused": refused,
        "conditions": {
            "validators": options.validators, "bytes": options.bytes, "in_flight": options.in_flight, "rate": options.rate,
            "rtt_ms": options.rtt_ms, "seconds": seconds, "suite": options.suite.as_str(), "down": options.down, "cores": std::thread::available_parallelism().map_or(0, |n| n.get()),
            "clients": "in the same process, signing every command", "height": nodes[0].chain().height(),
        },
    });
    if options.json {
        say!("{document}");
    } else {
        say!("{}", serde_json::to_string_pretty(&document)?);
    }
    for node in nodes {
        node.stop().await;
    }
    // the engines' threads close their files
    tokio::time::sleep(Duration::from_millis(300)).await;
    if refused > 0 {
        bail!("{refused} commands were not accepted")
    }
    Ok(())
}
