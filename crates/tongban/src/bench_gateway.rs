//! `tongban bench gateway`: look-ups through a connector beside the same look-ups through the bare driver, in turns.

use crate::{
    bench::{cpu_pressure, cpu_seconds},
    say,
};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use gateway::{Connected, Connector, Gateway, Standard};
use indicatif::ProgressBar;
use model::{FieldId, ResourceId, What};
use serde_json::json;
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// A PostgreSQL database to make the table `tongban_bench` in.
    #[arg(long, env = "TONGBAN_DATABASE", hide_env_values = true)]
    database: String,
    /// How many rows the table has; it is filled where it has others.
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// How many look-ups are under way at a time.
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// How long to measure, half of it for each.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// How many turns each has.
const TURNS: u32 = 4;

const STANDARD: &str = "
format: 1
elements:
  number: { type: text, title: { zh: 号, en: Number } }
  name: { type: text, title: { zh: 名, en: Name } }
  state: { type: code, title: { zh: 状态, en: State } }
  date: { type: date, title: { zh: 日期, en: Date } }
";

const CONNECTOR: &str = "
format: 1
department: bench
resources:
  - { id: bench.account, version: 1, title: { zh: 账户, en: Account }, holder: bench, officer: bench, subject: person, share: conditional,
      basis: bench, standard: bench, update: realtime, predicates: [],
      fields: [{ id: name, element: name, title: { zh: 名, en: Name }, sensitivity: 1 },
               { id: state, element: state, title: { zh: 状态, en: State }, sensitivity: 1 },
               { id: since, element: date, title: { zh: 日期, en: Since }, sensitivity: 1 }] }
entities:
  account:
    table: tongban_bench
    columns:
      number: { column: number, element: number }
      name: { column: name, element: name, transform: [trim] }
      state: { column: state, element: state, transform: [{ codes: { '0': open, '1': closed } }] }
      since: { column: since, element: date }
queries:
  - { resource: bench.account, entity: account, subject: number, fields: { name: name, state: state, since: since } }
";

async fn fill(pool: &PgPool, rows: u64) -> Result<()> {
    let there: Option<String> =
        sqlx::query_scalar("SELECT to_regclass('tongban_bench')::text").fetch_one(pool).await?;
    if there.is_some() {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM tongban_bench").fetch_one(pool).await?;
        if count as u64 == rows {
            return Ok(());
        }
        sqlx::query("DROP TABLE tongban_bench").execute(pool).await?;
    }
    sqlx::query("CREATE TABLE tongban_bench (number char(18), name varchar(60), state char(1), since date)")
        .execute(pool)
        .await?;
    let bar = ProgressBar::new(rows).with_message("rows");
    let step = 500_000;
    for begin in (0..rows).step_by(step) {
        let sql = "INSERT INTO tongban_bench SELECT lpad(n::text, 18, '0'), '户主' || n, (n % 2)::text, date '2000-01-01' + (n % 7000)::int \
                   FROM generate_series($1::bigint, $2::bigint) n";
        let end = (begin + step as u64).min(rows) - 1;
        sqlx::query(sql).bind(begin as i64).bind(end as i64).execute(pool).await?;
        bar.set_position(end);
    }
    sqlx::query("ALTER TABLE tongban_bench ADD PRIMARY KEY (number)").execute(pool).await?;
    sqlx::query("ANALYZE tongban_bench").execute(pool).await?;
    bar.finish_and_clear();
    Ok(())
}

/// Numbers without a pattern that a cache could use, the same for both.
fn numbers(seed: u64, rows: u64) -> impl Iterator<Item = String> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        // xorshift (Marsaglia, 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{:018}", state % rows)
    })
}

/// Runs look-ups for a while; how long each took, in microseconds.
async fn turn<F, W>(options: &Options, seed: u64, duration: Duration, look_up: F) -> Result<Vec<u64>>
where
    F: Fn(String) -> W + Clone + Send + 'static,
    W: Future<Output = Result<()>> + Send,
{
    let mut tasks = Vec::new();
    for task in 0..options.connections {
        let (look_up, rows) = (look_up.clone(), options.rows);
        tasks.push(tokio::spawn(async move {
            let (begun, mut took) = (Instant::now(), Vec::new());
            for number in numbers(seed + u64::from(task), rows) {
                if begun.elapsed() >= duration {
                    break;
                }
                let asked = Instant::now();
                look_up(number).await?;
                took.push(asked.elapsed().as_micros() as u64);
            }
            anyhow::Ok(took)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

fn summary(mut took: Vec<u64>, seconds: f64, cpu: f64) -> serde_json::Value {
    took.sort_unstable();
    let at = |q: f64| {
        took.get(((took.len() as f64 * q) as usize).min(took.len().saturating_sub(1))).copied().unwrap_or(0)
    };
    let ms = |us: u64| us as f64 / 1000.0;
    json!({
        "per_second": took.len() as f64 / seconds,
        "latency_ms": { "p50": ms(at(0.5)), "p99": ms(at(0.99)), "p999": ms(at(0.999)) },
        "cpu_seconds_per_1000": cpu / took.len().max(1) as f64 * 1000.0,
    })
}

/// Runs `tongban bench gateway`.
pub async fn gateway(options: Options) -> Result<()> {
    if !options.database.starts_with("postgres") {
        bail!("--database names a PostgreSQL database for this benchmark: postgres://user@host/database");
    }
    let pool = PgPoolOptions::new().max_connections(options.connections).connect(&options.database).await;
    let pool = pool.with_context(|| format!("connecting to {}", ::gateway::shown(&options.database)))?;
    fill(&pool, options.rows).await?;
    let connector = Connector::parse("bench", CONNECTOR)?;
    let source = Connected::open(&options.database, Path::new(""), &connector, true).await?;
    let gateway = Arc::new(Gateway::open(connector, &Standard::parse("bench", STANDARD)?, source).await?);
    anyhow::ensure!(gateway.problems().is_empty(), "{:?}", gateway.problems());

    let resource: ResourceId = "bench.account".parse().expect("a name");
    let fields = ["name", "state", "since"].map(|f| f.parse::<FieldId>().expect("a name"));
    let what = Arc::new(What::Fields(fields.to_vec()));
    let through = {
        let gateway = gateway.clone();
        move |number: String| {
            let (gateway, resource, what) = (gateway.clone(), resource.clone(), what.clone());
            async move {
                let answer = gateway.answer(&resource, &what, &number, &BTreeMap::new()).await?;
                anyhow::ensure!(answer.len() == 3, "three fields");
                Ok(())
            }
        }
    };
    let bare = {
        let pool = pool.clone();
        move |number: String| {
            let pool = pool.clone();
            async move {
                let sql =
                    "SELECT name, state, since::text FROM tongban_bench WHERE number = $1::char(18) LIMIT 2";
                let rows = sqlx::query(sql).bind(number).fetch_all(&pool).await?;
                anyhow::ensure!(rows.len() == 1, "one row");
                Ok(())
            }
        }
    };
    let each = Duration::from_secs_f64(options.seconds as f64 / f64::from(2 * TURNS));
    turn(&options, 1, Duration::from_secs(2), bare.clone()).await?;
    turn(&options, 1, Duration::from_secs(2), through.clone()).await?;
    let (mut of_driver, mut of_gateway, mut cpu) = (Vec::new(), Vec::new(), [0.0; 2]);
    for n in 0..TURNS {
        let seed = 1000 + u64::from(n) * 100;
        let begun = cpu_seconds();
        of_driver.extend(turn(&options, seed, each, bare.clone()).await?);
        cpu[0] += cpu_seconds() - begun;
        let begun = cpu_seconds();
        of_gateway.extend(turn(&options, seed, each, through.clone()).await?);
        cpu[1] += cpu_seconds() - begun;
    }
    let seconds = each.as_secs_f64() * f64::from(TURNS);
    let ratio = of_gateway.len() as f64 / of_driver.len().max(1) as f64;
    let (driver, gateway) = (summary(of_driver, seconds, cpu[0]), summary(of_gateway, seconds, cpu[1]));
    if options.json {
        let mut document = gateway;
        document["driver"] = driver;
        document["ratio"] = json!(ratio);
        document["cpu_pressure"] = json!({ "avg10": cpu_pressure() });
        document["conditions"] = json!({ "rows": options.rows, "connections": options.connections, "seconds": seconds, "source": "PostgreSQL" });
        say!("{document}");
    } else {
        for (name, found) in [("driver", &driver), ("gateway", &gateway)] {
            say!(
                "{name:<8} {:>8.0}/s  p50 {:.2} ms  p99 {:.2} ms  {:.3} CPU-s per 1,000",
                found["per_second"].as_f64().unwrap_or_default(),
                found["latency_ms"]["p50"].as_f64().unwrap_or_default(),
                found["latency_ms"]["p99"].as_f64().unwrap_or_default(),
                found["cpu_seconds_per_1000"].as_f64().unwrap_or_default()
            );
        }
        say!("the gateway has {ratio:.2} of the bare driver's rate; CPU pressure {:.0} %", cpu_pressure());
    }
    Ok(())
}
