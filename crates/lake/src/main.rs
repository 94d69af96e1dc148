//! The data platform's command line. `tongban lake X` hands over to `tongban-lake X`.

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lake::{
    Config, Dataset, Lake, Table, bench, compact, ingest, lookup::Lookup, open, quality, query, serve,
};
use serde_json::{Value, json};
use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

/// The city's data platform: take in, look up, ask, measure, erase, publish.
#[derive(Parser)]
#[command(name = "tongban-lake", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Clone)]
struct At {
    /// The platform's settings.
    #[arg(long, default_value = "lake.toml")]
    config: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Make a platform's folder: settings, key, a folder for data set declarations.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban-lake init city-lake
    Init {
        /// The folder.
        dir: PathBuf,
        /// The suite hashes are made in: `international` or `national`.
        #[arg(long, default_value = "international", value_parser = suite)]
        suite: model::Suite,
    },
    /// Check every data set declaration. Changes nothing.
    ///
    /// Example: tongban-lake check --config city-lake/lake.toml
    Check {
        #[command(flatten)]
        at: At,
    },
    /// Take files into a data set, each exactly once; what was cut off goes on. Bad rows are kept aside with the reason.
    ///
    /// Example: tongban-lake ingest market.registrations 2026-11.csv.gz
    Ingest {
        /// The data set.
        dataset: String,
        /// The files: .csv, .tsv, .jsonl (each also .gz), .xlsx, .xls, .ods, .parquet.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The batch's name; without it the hash of the file. One file only.
        #[arg(long)]
        batch: Option<String>,
        /// The share of rows that may be refused.
        #[arg(long, default_value_t = 0.05)]
        max_bad: f64,
        /// Read and check everything, and take in nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        at: At,
    },
    /// Look up all rows of one subject. The identifier comes from standard input, so that it stands in no list of processes.
    ///
    /// Example: echo 110108199003070123 | tongban-lake lookup market.registrations
    Lookup {
        /// The data set.
        dataset: String,
        #[command(flatten)]
        at: At,
    },
    /// Ask about all rows together, in SQL, in a role that declarations name. Results about too few are left out.
    ///
    /// Example: tongban-lake query --role statistician "select district, count(*) from market_registrations group by district"
    Query {
        /// The question.
        sql: String,
        /// The role.
        #[arg(long)]
        role: String,
        #[command(flatten)]
        at: At,
    },
    /// Merge runs of files, so that a look-up goes to few; delete files that nothing uses.
    ///
    /// Example: tongban-lake compact market.registrations --full
    Compact {
        /// The data set.
        dataset: String,
        /// Merge everything into one run.
        #[arg(long)]
        full: bool,
        #[command(flatten)]
        at: At,
    },
    /// What is there: rows, files, bytes, by data set.
    ///
    /// Example: tongban-lake stats --json
    Stats {
        /// One data set.
        dataset: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// Take out all rows of one subject, from every version and from refused rows; writes what shows it. The identifier comes from
    /// standard input.
    ///
    /// Example: echo 110108199003070123 | tongban-lake erase market.registrations --dry-run
    Erase {
        /// The data set.
        dataset: String,
        /// Say how many rows it would be.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        at: At,
    },
    /// Take out rows older than the declared retention.
    ///
    /// Example: tongban-lake retain market.registrations
    Retain {
        /// The data set.
        dataset: String,
        /// The day it is, instead of today.
        #[arg(long)]
        today: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// Measure a data set's quality; open and close issues for the responsible department.
    ///
    /// Example: tongban-lake quality market.registrations --out report.html
    Quality {
        /// The data set.
        dataset: String,
        /// Write the report as a page.
        #[arg(long)]
        out: Option<PathBuf>,
        #[command(flatten)]
        at: At,
    },
    /// Issues of quality that departments must answer.
    Issue {
        #[command(subcommand)]
        command: IssueCommand,
    },
    /// Open data: the disclosure-risk gate, the officer's decision, publication.
    #[command(flatten)]
    Open(open::OpenCommand),
    /// Serve look-ups (to departments' gateways) and the open-data portal.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban-lake serve --config lake.toml
    Serve {
        #[command(flatten)]
        at: At,
    },
    /// Measure taking in, look-ups and scans on generated rows.
    ///
    /// Example: tongban-lake bench --rows 10000000 --dir /tmp/lake-bench --json
    Bench(bench::Options),
    /// Print the JSON Schema of a file: `dataset` or `publication`.
    #[command(hide = true)]
    Schema {
        /// The format.
        #[arg(value_parser = ["dataset", "publication"])]
        format: String,
    },
}

#[derive(Subcommand)]
enum IssueCommand {
    /// List issues, open ones first.
    ///
    /// Example: tongban-lake issue list
    List {
        #[command(flatten)]
        at: At,
    },
    /// Note the responsible department's answer.
    ///
    /// Example: tongban-lake issue answer "market.registrations/completeness/seats" --note "collected from 2027 on"
    Answer {
        /// The issue.
        id: String,
        /// The answer.
        #[arg(long)]
        note: String,
        #[command(flatten)]
        at: At,
    },
}

fn suite(word: &str) -> Result<model::Suite, String> {
    [model::Suite::International, model::Suite::National]
        .into_iter()
        .find(|s| s.as_str() == word)
        .ok_or_else(|| "the suites are `international` and `national`".into())
}

impl Command {
    fn json(&self) -> bool {
        match self {
            Self::Init { .. } | Self::Serve { .. } | Self::Schema { .. } => false,
            Self::Check { at }
            | Self::Ingest { at, .. }
            | Self::Lookup { at, .. }
            | Self::Query { at, .. }
            | Self::Compact { at, .. }
            | Self::Stats { at, .. }
            | Self::Erase { at, .. }
            | Self::Retain { at, .. }
            | Self::Quality { at, .. }
            | Self::Issue { command: IssueCommand::List { at } | IssueCommand::Answer { at, .. } } => at.json,
            Self::Open(command) => command.json(),
            Self::Bench(options) => options.json,
        }
    }
}

/// An answer that is no: exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct No(String);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "warn,lake=info,tongban_lake=info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    gateway::use_tls();
    let json = cli.command.json();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: the program cannot start its threads: {e}");
            return ExitCode::from(2);
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let no = e.is::<No>() || e.is::<open::Refused>();
            if json && !no {
                let message = format!("{e:#}");
                say(&json!({ "error": { "code": "failed", "message": message, "hint": "see --help" } })
                    .to_string());
            }
            if !(json && no) {
                eprintln!("error: {e:#}");
            }
            ExitCode::from(if no { 1 } else { 2 })
        }
    }
}

/// Prints a line; a reader that went away is no error.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn lake_of(at: &At) -> Result<Lake> {
    Lake::open(Config::read(&at.config)?)
}

fn bar(json: bool, unit: &str) -> ProgressBar {
    let bar = ProgressBar::no_length();
    let hidden = json || !std::io::stderr().is_terminal();
    bar.set_draw_target(if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() });
    let template = match unit {
        "bytes" => "{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        _ => "{bar:32} {human_pos}/{human_len} {per_sec} {eta}",
    };
    bar.with_style(ProgressStyle::with_template(template).expect("a template"))
}

/// An identifier from standard input.
fn identifier() -> Result<String> {
    if std::io::stdin().is_terminal() {
        eprint!("Identifier of the subject: ");
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let line = line.trim();
    if line.is_empty() {
        bail!("no identifier came from standard input");
    }
    Ok(line.to_owned())
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Init { dir, suite } => {
            lake::init(&dir, suite, include_str!("../../../standards/elements.yaml"))?;
            say(&format!("A data platform under {}", dir.display()));
            say("Next: write data set declarations into datasets/ (docs/lake.md), and `tongban-lake check`.");
            Ok(())
        }
        Command::Check { at } => {
            let lake = lake_of(&at)?;
            let ids: Vec<_> = lake.datasets.keys().collect();
            if at.json {
                say(&json!({ "datasets": ids }).to_string());
            } else {
                ids.iter().for_each(|id| say(&format!("{id}: in order")));
            }
            Ok(())
        }
        Command::Ingest { dataset, files, batch, max_bad, dry_run, at } => {
            if batch.is_some() && files.len() > 1 {
                bail!("--batch names one file's batch");
            }
            let lake = lake_of(&at)?;
            let (dataset, key) = (lake.dataset(&dataset)?.clone(), lake.key()?);
            let mut all = Vec::new();
            for file in &files {
                let options = ingest::Options { batch: batch.clone(), max_bad, dry_run };
                let bar = bar(at.json, "bytes");
                let taken = ingest::ingest(&lake.config, &dataset, &key, file, &options, &bar).await;
                let taken = taken.with_context(|| file.display().to_string())?;
                if !at.json {
                    say_taken(file, &taken, dry_run);
                }
                all.push(taken);
            }
            // many small batches are many runs: laid out anew when there are too many
            if !dry_run {
                compact::compact(&lake.config, &dataset, false, &bar(at.json, "rows")).await?;
            }
            if at.json {
                let rows: u64 = all.iter().map(|t| t.rows).sum();
                let bytes: u64 = all.iter().map(|t| t.bytes).sum();
                let seconds: f64 = all.iter().map(|t| t.seconds).sum();
                say(&json!({ "rows": rows, "bytes": bytes, "seconds": seconds, "batches": all }).to_string());
            }
            Ok(())
        }
        Command::Lookup { dataset, at } => {
            let lake = lake_of(&at)?;
            let dataset = lake.dataset(&dataset)?;
            let lookup = Lookup::open(&lake.config, dataset, lake.key()?).await?;
            let identifier = identifier()?;
            let begun = std::time::Instant::now();
            let records = lookup.records(&identifier).await?;
            let ms = begun.elapsed().as_secs_f64() * 1000.0;
            if at.json {
                let latency = json!({ "p50": ms, "p99": ms });
                say(&json!({ "rows": records, "latency_ms": latency }).to_string());
            } else {
                for record in &records {
                    say(&Value::Object(record.clone()).to_string());
                }
                say(&format!("{} rows in {ms:.1} ms", records.len()));
            }
            Ok(())
        }
        Command::Query { sql, role, at } => {
            let lake = lake_of(&at)?;
            let begun = std::time::Instant::now();
            let answer = query::ask(&lake, &role, &sql).await?;
            let seconds = begun.elapsed().as_secs_f64();
            if at.json {
                let document = json!({ "columns": answer.columns, "rows": answer.rows, "seconds": seconds });
                say(&document.to_string());
            } else {
                say(&answer.columns.join("\t"));
                for row in &answer.rows {
                    let cells = answer.columns.iter().map(|c| row[c].as_str().unwrap_or("").to_owned());
                    say(&cells.collect::<Vec<_>>().join("\t"));
                }
                say(&format!(
                    "{} results in {seconds:.2} s; results about too few are left out",
                    answer.rows.len()
                ));
            }
            Ok(())
        }
        Command::Compact { dataset, full, at } => {
            let lake = lake_of(&at)?;
            let dataset = lake.dataset(&dataset)?.clone();
            let done = compact::compact(&lake.config, &dataset, full, &bar(at.json, "rows")).await?;
            if at.json {
                say(&serde_json::to_string(&done)?);
            } else {
                say(&format!(
                    "{} files ({} over each other) became {} ({}), {} rows written anew in {:.1} s, {} old files deleted",
                    done.files_before,
                    done.runs_before,
                    done.files,
                    done.runs,
                    thousands(done.rows),
                    done.seconds,
                    done.deleted
                ));
            }
            Ok(())
        }
        Command::Stats { dataset, at } => stats(&lake_of(&at)?, dataset.as_deref(), at.json).await,
        Command::Erase { dataset, dry_run, at } => erase(&lake_of(&at)?, &dataset, dry_run, at.json).await,
        Command::Retain { dataset, today, at } => {
            let lake = lake_of(&at)?;
            let dataset = lake.dataset(&dataset)?.clone();
            let keep =
                dataset.declared.retention_days.context("the data set declares no `retention_days`")?;
            let today = match today {
                Some(day) => lake::days(&day).context("--today is a day like 2026-11-27")?,
                None => {
                    (std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() / 86_400)
                        as i32
                }
            };
            let erased = compact::retain(&lake.config, &dataset, today - keep as i32).await?;
            if at.json {
                say(&serde_json::to_string(&erased)?);
            } else {
                say(&format!("{} rows were past their retention and are gone", thousands(erased.rows)));
            }
            Ok(())
        }
        Command::Quality { dataset, out, at } => {
            let lake = lake_of(&at)?;
            let dataset = lake.dataset(&dataset)?.clone();
            let report = quality::report(&lake, &dataset).await?;
            let issues = quality::follow(&lake, &report)?;
            if let Some(out) = &out {
                std::fs::write(out, quality::page(&report, &issues)?)
                    .with_context(|| out.display().to_string())?;
            }
            if at.json {
                say(&json!({ "report": report, "issues": issues }).to_string());
            } else {
                say(&format!(
                    "{}: {} rows, score {:.1} %",
                    report.dataset,
                    thousands(report.rows),
                    report.score * 100.0
                ));
                for m in &report.measures {
                    let of = m.of.as_deref().unwrap_or("all");
                    say(&format!(
                        "  {:<13} {of:<24} {:>6.1} %  {} of {}",
                        m.name,
                        m.share * 100.0,
                        m.bad,
                        m.counted
                    ));
                }
                issues.iter().for_each(|i| say(&format!("  issue {}: {} must answer", i.id, i.department)));
            }
            Ok(())
        }
        Command::Issue { command: IssueCommand::List { at } } => {
            let mut all: Vec<_> = quality::issues(&lake_of(&at)?)?.into_values().collect();
            all.sort_by_key(|i| (i.mended_ms.is_some(), i.due_ms));
            if at.json {
                say(&json!({ "issues": all }).to_string());
            }
            for issue in all.iter().filter(|_| !at.json) {
                let state = match (issue.mended_ms, &issue.answer, quality::days_left(issue)) {
                    (Some(_), ..) => "put right".to_owned(),
                    (None, Some(_), _) => "answered".to_owned(),
                    (None, None, left) if left < 0 => "OVERDUE".to_owned(),
                    (None, None, left) => format!("{left} days left"),
                };
                say(&format!(
                    "{}  {}  {:.1} %  {state}",
                    issue.id,
                    issue.department,
                    issue.measure.share * 100.0
                ));
            }
            Ok(())
        }
        Command::Issue { command: IssueCommand::Answer { id, note, at } } => {
            let issue = quality::answer(&lake_of(&at)?, &id, &note)?;
            say(&if at.json { serde_json::to_string(&issue)? } else { format!("{}: answered", issue.id) });
            Ok(())
        }
        Command::Open(command) => open::run(command, &mut |line| say(line)).await,
        Command::Serve { at } => serve::serve(lake_of(&at)?).await,
        Command::Bench(options) => bench::bench(options, &mut |line| say(line)).await,
        Command::Schema { format } => {
            let schema = match format.as_str() {
                "publication" => open::plan_schema(),
                _ => Dataset::schema_of_declarations(),
            };
            say(&serde_json::to_string_pretty(&schema)?);
            Ok(())
        }
    }
}

fn say_taken(file: &std::path::Path, taken: &ingest::Taken, dry_run: bool) {
    let name = file.display();
    if taken.before {
        say(&format!("{name}: taken in before, nothing to do ({} rows)", thousands(taken.read)));
        return;
    }
    let refused: u64 = taken.refused.values().sum();
    let rate = taken.rows as f64 / taken.seconds.max(0.001);
    let verb = if dry_run { "would be taken in" } else { "taken in" };
    say(&format!(
        "{name}: {} rows {verb}, {refused} refused, {}/s",
        thousands(taken.rows),
        thousands(rate as u64)
    ));
    for (reason, count) in &taken.refused {
        say(&format!("  {count} × {reason}"));
    }
    if let Some(place) = &taken.quarantine {
        say(&format!("  the refused rows are kept beside {}", place.display()));
    }
}

async fn stats(lake: &Lake, only: Option<&str>, json: bool) -> Result<()> {
    let mut all = Vec::new();
    for (id, dataset) in lake.datasets.iter().filter(|(id, _)| only.is_none_or(|only| only == *id)) {
        let Some(table) = Table::open(&lake.config, dataset).await? else {
            all.push(
                json!({ "dataset": id, "rows": 0, "files": 0, "bytes": 0, "overlap": 0, "version": null }),
            );
            continue;
        };
        let files = table.files()?;
        all.push(json!({
            "dataset": id,
            "rows": files.iter().map(|f| f.rows).sum::<u64>(),
            "files": files.len(),
            "bytes": files.iter().map(|f| f.bytes).sum::<u64>(),
            "overlap": lake::overlap(&files),
            "version": table.version(),
        }));
    }
    if all.is_empty() {
        bail!("no such data set");
    }
    if json {
        let sum = |key: &str| all.iter().map(|d| d[key].as_u64().unwrap_or(0)).sum::<u64>();
        say(&json!({ "rows": sum("rows"), "bytes": sum("bytes"), "datasets": all }).to_string());
        return Ok(());
    }
    for d in &all {
        let n = |key: &str| d[key].as_u64().unwrap_or(0);
        let each = n("bytes") as f64 / n("rows").max(1) as f64;
        let id = d["dataset"].as_str().unwrap_or_default();
        say(&format!(
            "{id}: {} rows in {} files, {} bytes ({each:.1} a row), a look-up goes to {} of them at most",
            thousands(n("rows")),
            n("files"),
            thousands(n("bytes")),
            n("overlap")
        ));
    }
    Ok(())
}

async fn erase(lake: &Lake, dataset: &str, dry_run: bool, json: bool) -> Result<()> {
    let dataset = lake.dataset(dataset)?.clone();
    let identifier = identifier()?;
    let lookup = Lookup::open(&lake.config, &dataset, lake.key()?).await?;
    let there: usize = lookup.rows(&identifier).await?.iter().map(|b| b.num_rows()).sum();
    if dry_run {
        say(&if json {
            json!({ "rows": there, "dry_run": true }).to_string()
        } else {
            format!("{there} rows would go")
        });
        return Ok(());
    }
    let key = lake::subject_key(lake.config.suite, &lake.key()?, &lookup.standard_form(&identifier)?);
    let erased = compact::erase(&lake.config, &dataset, &key, &identifier).await?;
    lookup.refresh().await?;
    let left: usize = lookup.rows(&identifier).await?.iter().map(|b| b.num_rows()).sum();
    if left > 0 {
        return Err(No(format!(
            "{left} rows are still there: rows of this subject came in meanwhile; run it again"
        ))
        .into());
    }
    // who holds salt and identifier can show whom it was about; nobody else learns it
    let salt = crypto::Salt::random();
    let commitment = crypto::commit(lake.config.suite, &salt, "person", identifier.as_bytes());
    let proof = json!({ "format": 1, "kind": "erasure", "subject": commitment, "erased": erased });
    let folder = lake.config.work.join("erasures");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{}.json", commitment.to_string().get(..16).unwrap_or_default()));
    std::fs::write(&file, serde_json::to_vec_pretty(&proof)?)?;
    if json {
        let document = json!({ "rows": erased.rows, "salt": salt, "proof": file, "erasure": proof });
        say(&document.to_string());
    } else {
        say(&format!(
            "{} rows and {} refused rows are gone, {} files deleted from the store",
            erased.rows,
            erased.quarantined,
            erased.deleted.len()
        ));
        say(&format!("what shows it: {}; give the person its salt {}", file.display(), json!(salt)));
    }
    Ok(())
}
