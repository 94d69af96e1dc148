//! Measures the platform on generated rows: the reference table of eight columns, eight rows a person on average.

use crate::{
    compact, config::Config, dataset::Dataset, ingest, lake::Lake, lookup::Lookup, query, table::Table,
};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use serde_json::{Value, json};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// The reference table.
const DECLARATION: &str = r#"
format: 1
id: bench.events
resource: bench.events
title: { zh: 基准表, en: Reference table }
department: bench
officer: bench
subject: person
key: [record]
day: on
columns:
  - { id: person, element: person.id, required: true, sensitivity: 4 }
  - { id: record, element: deed.number }
  - { id: kind, element: deed.state }
  - { id: district, element: deed.state }
  - { id: amount, element: money.fen, sensitivity: 3 }
  - { id: on, element: date }
  - { id: count, element: org.staff }
  - { id: state, element: deed.state }
aggregates:
  - { role: bench, by: [district, kind, state, on], of: [amount, count], at_least: 5 }
"#;

/// Rows of a generated file.
const FILE_ROWS: u64 = 10_000_000;

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Rows to generate and take in.
    #[arg(long, default_value_t = 10_000_000)]
    pub rows: u64,
    /// Seconds of look-ups.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Clients that look up at the same time.
    #[arg(long, default_value_t = 32)]
    pub clients: usize,
    /// Look-ups a second all clients together make; without it as fast as they can.
    #[arg(long)]
    pub rate: Option<u64>,
    /// The folder; what an earlier run with as many rows left there is used again.
    #[arg(long, default_value = "lake-bench")]
    pub dir: PathBuf,
    /// Memory in MiB.
    #[arg(long, default_value_t = 1024)]
    pub memory_mb: usize,
    /// Instead of a table, search a portal of so many generated publications.
    #[arg(long)]
    pub entries: Option<usize>,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Searches a portal of generated publications.
fn portal(entries: usize, seconds: u64) -> Result<Value> {
    const PLACES: [&str; 16] = [
        "东城",
        "西城",
        "朝阳",
        "海淀",
        "丰台",
        "石景山",
        "门头沟",
        "房山",
        "通州",
        "顺义",
        "昌平",
        "大兴",
        "怀柔",
        "平谷",
        "密云",
        "延庆",
    ];
    const THINGS: [(&str, &str); 12] = [
        ("空气质量", "air quality"),
        ("公交站点", "bus stops"),
        ("养老机构", "care homes"),
        ("企业登记", "company registrations"),
        ("停车场", "car parks"),
        ("学校", "schools"),
        ("降水量", "rainfall"),
        ("垃圾清运", "waste collection"),
        ("用电量", "electricity use"),
        ("图书馆", "libraries"),
        ("交通流量", "traffic counts"),
        ("绿地", "green spaces"),
    ];
    let themes = crate::open::plan::THEMES;
    let entry = |n: usize| -> Result<crate::open::plan::Entry> {
        let (place, (zh, en)) = (PLACES[n % 16], THINGS[n / 16 % 12]);
        let plan = json!({
            "format": 1, "id": format!("set.n{n}"), "title": { "zh": format!("{place}区{zh}数据（{n}）"), "en": format!("{en} of district {} ({n})", n % 16) },
            "about": { "zh": format!("{place}区各街道{zh}的逐月统计，含数量和变化。"), "en": format!("Monthly {en} of each street, with counts and changes.") },
            "department": format!("dep{}", n % 40), "department_title": { "zh": format!("第{}局", n % 40), "en": format!("Bureau {}", n % 40) },
            "officer": "数据专员", "licence": { "id": "CC-BY-4.0", "title": "CC BY 4.0" }, "update": "monthly", "theme": themes[n % 13].0,
            "keywords": [{ "zh": zh, "en": en }], "rows": "things", "from": { "file": { "path": "x.csv" } },
            "columns": [{ "id": "a", "title": { "zh": "街道", "en": "Street" } }, { "id": "b", "title": { "zh": "数量", "en": "Count" } }],
        });
        let files = ["CSV", "JSON", "XLSX", "Parquet"]
            .map(|f| json!({ "name": "data", "format": f, "bytes": 1, "sha256": "" }));
        let entry = json!({ "plan": plan, "version": 1, "issued_ms": n, "modified_ms": n, "rows": 1, "complete": 1.0, "files": files });
        Ok(serde_json::from_value(entry)?)
    };
    let begun = Instant::now();
    let catalogue =
        crate::open::portal::Catalogue::new((0..entries).map(entry).collect::<Result<Vec<_>>>()?)?;
    let indexed = begun.elapsed().as_secs_f64();
    let mut rng = SmallRng::seed_from_u64(1);
    let (mut times, mut found) = (Vec::new(), 0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        let (zh, en) = THINGS[rng.random_range(0..12)];
        let place = PLACES[rng.random_range(0..16)];
        let words = match rng.random_range(0..5) {
            0 => zh.to_owned(),
            1 => en.to_owned(),
            2 => format!("{place}{zh}"),
            3 => "statistics monthly".to_owned(),
            _ => String::new(),
        };
        let search = crate::open::portal::Search { words, limit: 20, ..Default::default() };
        let asked = Instant::now();
        found += catalogue.search(&search)?.total;
        times.push(asked.elapsed().as_micros() as u64);
    }
    times.sort_unstable();
    if found == 0 {
        bail!("the searches found nothing");
    }
    Ok(json!({
        "entries": entries,
        "indexed_seconds": indexed,
        "latency_ms": { "p50": at(&times, 0.5), "p95": at(&times, 0.95), "p99": at(&times, 0.99) },
        "per_second": times.len() as f64 / seconds as f64,
        "peak_memory_mb": peak_mb(),
        "cpu_pressure": pressure(),
    }))
}

/// The `n`th person of the bench: a number that passes its check digit and belongs to nobody.
fn person(n: u64) -> String {
    let (day, seq, region) = (n % 20_000, n / 20_000 % 1000, 990_100 + n / 20_000_000);
    let (year, month, day) = (1950 + day / 336, day / 28 % 12 + 1, day % 28 + 1);
    let first = format!("{region:06}{year:04}{month:02}{day:02}{seq:03}");
    let check = model::identifier::resident_check(first.as_bytes()).expect("17 digits");
    format!("{first}{}", char::from(check))
}

fn generate(path: &Path, first: u64, rows: u64, people: u64) -> Result<()> {
    const KINDS: [&str; 12] =
        ["登记", "变更", "注销", "查询", "缴费", "退费", "申领", "换领", "补领", "预约", "投诉", "建议"];
    const STATES: [&str; 4] = ["办结", "办理中", "退回", "撤回"];
    let mut rng = SmallRng::seed_from_u64(first);
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
    writeln!(out, "person,record,kind,district,amount,on,count,state")?;
    for row in first..first + rows {
        let n = rng.random_range(0..people);
        let (kind, state) = (KINDS[rng.random_range(0..12)], STATES[rng.random_range(0..40).min(3)]);
        let (district, amount) = (110_101 + rng.random_range(0..16), rng.random_range(1..5_000_000));
        let day = rng.random_range(0..3650);
        let (y, m, d) = (2016 + day / 365, day % 365 / 31 + 1, day % 28 + 1);
        let count = rng.random_range(1..9);
        writeln!(
            out,
            "{},R{row:012},{kind},{district},{amount},{y}-{m:02}-{d:02},{count},{state}",
            person(n)
        )?;
    }
    out.flush()?;
    Ok(())
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 =
        fields.get(11..13).unwrap_or_default().iter().filter_map(|f| f.parse::<f64>().ok()).sum();
    ticks / 100.0
}

fn pressure() -> Value {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let avg10 = text.split_whitespace().find_map(|w| w.strip_prefix("avg10=")?.parse::<f64>().ok());
    json!({ "avg10": avg10 })
}

fn peak_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1024)
}

/// Milliseconds at a share of sorted microseconds.
fn at(sorted: &[u64], share: f64) -> f64 {
    let place = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(place).map_or(0.0, |us| *us as f64 / 1000.0)
}

async fn look_ups(lookup: &Arc<Lookup>, options: &Options, people: u64, seconds: u64) -> Result<Value> {
    let stop = Arc::new(AtomicBool::new(false));
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let mut tasks = Vec::new();
    for client in 0..options.clients {
        let (lookup, stop) = (lookup.clone(), stop.clone());
        let pause = options.rate.map(|r| Duration::from_secs_f64(options.clients as f64 / r as f64));
        tasks.push(tokio::spawn(async move {
            let mut rng = SmallRng::seed_from_u64(client as u64 + 1);
            let (mut times, mut rows) = (Vec::new(), 0);
            while !stop.load(Relaxed) {
                if let Some(pause) = pause {
                    // waiting times of independent people, not a beat
                    tokio::time::sleep(pause.mul_f64(-f64::ln(1.0 - rng.random_range(0.0..1.0)))).await;
                }
                let who = person(rng.random_range(0..people));
                let asked = Instant::now();
                rows += lookup.rows(&who).await?.iter().map(|b| b.num_rows()).sum::<usize>();
                times.push(asked.elapsed().as_micros() as u64);
            }
            Ok::<_, anyhow::Error>((times, rows))
        }));
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Relaxed);
    let (mut times, mut rows) = (Vec::new(), 0);
    for task in tasks {
        let (of_task, found) = task.await??;
        times.extend(of_task);
        rows += found;
    }
    let took = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    if rows == 0 {
        bail!("the look-ups found nothing");
    }
    Ok(json!({
        "per_second": times.len() as f64 / took,
        "latency_ms": { "p50": at(&times, 0.5), "p99": at(&times, 0.99), "p999": at(&times, 0.999) },
        "cpu_ms_each": (cpu_seconds() - cpu) * 1000.0 / times.len() as f64,
        "rows_each": rows as f64 / times.len() as f64,
    }))
}

/// Takes in, looks up, scans, and prints what came of it.
pub async fn bench(options: Options, say: &mut dyn FnMut(&str)) -> Result<()> {
    if let Some(entries) = options.entries {
        let measured = portal(entries, options.seconds)?;
        say(&if options.json { measured.to_string() } else { serde_json::to_string_pretty(&measured)? });
        return Ok(());
    }
    std::fs::create_dir_all(options.dir.join("datasets"))?;
    let standard = include_str!("../../../standards/elements.yaml");
    std::fs::write(options.dir.join("elements.yaml"), standard)?;
    std::fs::write(options.dir.join("datasets/events.yaml"), DECLARATION)?;
    let settings = format!("memory_mb = {}\n", options.memory_mb);
    std::fs::write(options.dir.join("lake.toml"), settings)?;
    let lake = Lake::open(Config::read(&options.dir.join("lake.toml"))?)?;
    let dataset: Arc<Dataset> = lake.dataset("bench.events")?.clone();
    let key = [7; 32];
    let people = (options.rows / 8).max(1);
    let there = match Table::open(&lake.config, &dataset).await? {
        Some(table) => table.files()?.iter().map(|f| f.rows).sum(),
        None => 0,
    };
    let mut taking = Value::Null;
    if there != options.rows {
        if there > 0 {
            bail!(
                "{} holds {there} rows already; use another --dir, or --rows {there}",
                options.dir.display()
            );
        }
        let (mut rows, mut seconds, mut cpu, mut csv_bytes) = (0, 0.0, 0.0, 0);
        let bar = ProgressBar::hidden();
        while rows < options.rows {
            let file = options.dir.join("batch.csv");
            let some = FILE_ROWS.min(options.rows - rows);
            generate(&file, rows, some, people)?;
            csv_bytes += std::fs::metadata(&file)?.len();
            let before = cpu_seconds();
            let how = ingest::Options { batch: Some(format!("from-{rows}")), ..Default::default() };
            let taken = ingest::ingest(&lake.config, &dataset, &key, &file, &how, &bar).await?;
            (seconds, cpu) = (seconds + taken.seconds, cpu + cpu_seconds() - before);
            rows += taken.rows;
            std::fs::remove_file(&file)?;
            if !options.json {
                say(&format!("{rows} rows, {:.0}/s", rows as f64 / seconds));
            }
        }
        let compacted = compact::compact(&lake.config, &dataset, true, &bar).await?;
        taking = json!({
            "rows_per_second": rows as f64 / seconds,
            "seconds": seconds,
            "cpu_seconds_per_million": cpu * 1e6 / rows as f64,
            "csv_bytes": csv_bytes,
            "compacted_seconds": compacted.seconds,
            "rows_per_second_with_compaction": rows as f64 / (seconds + compacted.seconds),
        });
    }
    let table = Table::open(&lake.config, &dataset).await?.context("the table")?;
    let files = table.files()?;
    let (rows, bytes): (u64, u64) = (files.iter().map(|f| f.rows).sum(), files.iter().map(|f| f.bytes).sum());
    // cold: nothing known of any file, and nothing in the system's memory where we may empty it
    let emptied = std::process::Command::new("sync").status().is_ok()
        && std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok();
    let lookup = Arc::new(Lookup::open(&lake.config, &dataset, key).await?);
    let mut cold = look_ups(&lookup, &options, people, options.seconds.min(5)).await?;
    cold["caches_emptied"] = emptied.into();
    let hot = look_ups(&lookup, &options, people, options.seconds).await?;
    let context = query::engine(options.memory_mb)?;
    query::register(&context, &lake, &dataset).await?;
    let sql = "select district, kind, count(*), sum(amount) from bench_events group by district, kind";
    query::run(&context, sql).await?;
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    query::run(&context, sql).await?;
    let (took, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let document = json!({
        "rows": rows,
        "bytes": bytes,
        "bytes_per_row": bytes as f64 / rows as f64,
        "files": files.len(),
        "ingest": taking,
        "lookup": { "clients": options.clients, "hot": hot, "cold": cold },
        "latency_ms": hot["latency_ms"],
        "per_second": hot["per_second"],
        "scan": { "sql": sql, "seconds": took, "rows_per_second": rows as f64 / took, "rows_per_cpu_second": rows as f64 / cpu },
        "peak_memory_mb": peak_mb(),
        "cpu_pressure": pressure(),
        "conditions": { "memory_mb": options.memory_mb, "people": people, "rate": options.rate },
    });
    say(&if options.json { document.to_string() } else { serde_json::to_string_pretty(&document)? });
    Ok(())
}
