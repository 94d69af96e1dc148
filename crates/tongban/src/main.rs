//! The command line: one program for citizens' offices, engineers, auditors and operators.

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use serde_json::json;
use std::{path::PathBuf, process::ExitCode};
use tongban::{
    archive, audit, backup, bench, bench_case, bench_catalogue, bench_gateway, case, catalogue, city,
    connector, demo, doctor, face, govern, list, matter, officer, policy, project, say, setup, sharing,
    subscription, terminal, token,
};

/// Departments share a citizen's data one transaction at a time, under consent, with proof.
#[derive(Parser)]
#[command(name = "tongban", version, propagate_version = true)]
struct Cli {
    /// Logs as text or as JSON lines.
    #[arg(long, global = true, default_value = "text", value_parser = ["text", "json"])]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a whole consortium on this machine, carry cases of a matter through it, and open the portal.
    ///
    /// Examples: tongban demo
    ///           tongban demo --headless --matter enterprise-start --cases 100 --json
    Demo {
        /// Stop after the cases instead of serving the portal.
        #[arg(long)]
        headless: bool,
        /// The matter: house-transfer, enterprise-start, newborn or restaurant.
        #[arg(long, default_value = "house-transfer")]
        matter: String,
        /// How many cases.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=400))]
        cases: u16,
        /// The cryptographic suite: `international`, or `national` (SM2, SM3, SM4).
        #[arg(long, default_value = "international", value_parser = tongban::suite)]
        suite: model::Suite,
        /// The seed of the city.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The folder everything is written to; an earlier demo's is cleared.
        #[arg(long, default_value = "demo-data")]
        data: PathBuf,
        /// The portal's port.
        #[arg(long, default_value_t = 8400)]
        port: u16,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Make a consortium from a plan: keys, genesis, one folder for each department.
    Consortium {
        #[command(subcommand)]
        command: ConsortiumCommand,
    },
    /// Run one department's node.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban node --config nodes/tax/node.toml
    Node {
        /// Its configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Departments of the consortium: list, join, leave, new keys.
    Department {
        #[command(subcommand)]
        command: govern::DepartmentCommand,
    },
    /// Changes of the consortium that departments approve.
    Governance {
        #[command(subcommand)]
        command: govern::GovernanceCommand,
    },
    /// Look at everything a node needs: keys, roster, ports, disk, database, other nodes. Changes nothing.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban doctor --config nodes/tax/node.toml
    Doctor {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Verify a receipt or a statement offline, with nothing but the genesis.
    ///
    /// Example: tongban verify call-deed.json --genesis genesis.json
    Verify {
        /// The receipt or statement.
        receipt: PathBuf,
        #[command(flatten)]
        against: audit::Against,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Copy all that only this node has to a folder, while it runs: keys, vote keys, vault, files, and the ledger's archive.
    ///
    /// Example: tongban backup --config nodes/tax/node.toml --out /mnt/backup/tax
    Backup {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// The folder; an earlier backup in it is brought up to date.
        #[arg(long)]
        out: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Make a node's folder out of a backup, every byte of it checked first.
    ///
    /// Example: tongban restore /mnt/backup/tax --out nodes/tax
    Restore {
        /// The backup.
        backup: PathBuf,
        /// The new folder of the node; it must be empty.
        #[arg(long)]
        out: PathBuf,
        /// Check the backup and write nothing.
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Have a running node state all its department answered about a person; the statement is anchored on the ledger.
    ///
    /// Example: tongban statement --config nodes/police/node.toml --person person.txt --out statement.json
    Statement {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// A file with the identifier of the person, who was identified.
        #[arg(long)]
        person: PathBuf,
        /// The file to write.
        #[arg(long)]
        out: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Hold a department to its statements: did it open every answer, and leave out none?
    Audit {
        #[command(subcommand)]
        command: audit::AuditCommand,
    },
    /// Archive the ledger, check every byte of an archive, apply it again, prune what it holds, restore from it.
    Ledger {
        #[command(subcommand)]
        command: LedgerCommand,
    },
    /// Matter packages: check, dry-run, draw, publish, list.
    Matter {
        #[command(subcommand)]
        command: matter::MatterCommand,
    },
    /// The catalogue of data resources on the ledger: publish what a department answers for, search, show.
    Resource {
        #[command(subcommand)]
        command: catalogue::ResourceCommand,
    },
    /// Statutory bases that holders approve beforehand.
    Basis {
        #[command(subcommand)]
        command: catalogue::BasisCommand,
    },
    /// Apply to use another department's data, decide such requests, dispute, rule, revoke.
    Share {
        #[command(subcommand)]
        command: sharing::ShareCommand,
    },
    /// What a department lets be asked for out of its resources, in Cedar: check, try on past calls, set, show.
    Policy {
        #[command(subcommand)]
        command: policy::PolicyCommand,
    },
    /// Application projects: what a department registers that it uses data for.
    Project {
        #[command(subcommand)]
        command: project::ProjectCommand,
    },
    /// How much of a resource a department may use, alerts about unusual use, and the daily reconciliation.
    Budget {
        #[command(subcommand)]
        command: sharing::BudgetCommand,
    },
    /// Objections to values that calls gave, and the holders' answers.
    Objection {
        #[command(subcommand)]
        command: sharing::ObjectionCommand,
    },
    /// Face verification: calibrate it on local photographs, compare two.
    Face {
        #[command(subcommand)]
        command: face::FaceCommand,
    },
    /// Counter terminals, whose word identifies people: make a key, enrol, revoke, list.
    Terminal {
        #[command(subcommand)]
        command: terminal::TerminalCommand,
    },
    /// Who may sign in to this node's pages: window clerks and data officers.
    Officer {
        #[command(subcommand)]
        command: officer::OfficerCommand,
    },
    /// API tokens with a name, scopes and a last day, beside the administrator's in node.toml.
    Token {
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// Cases of this handler: erase what is held of their people.
    Case {
        #[command(subcommand)]
        command: case::CaseCommand,
    },
    /// Calls of many cases that are asked together, once their holder agreed.
    List {
        #[command(subcommand)]
        command: list::ListCommand,
    },
    /// What this department is told of when it changes: list, fetch, end.
    Subscription {
        #[command(subcommand)]
        command: subscription::SubscriptionCommand,
    },
    /// Try a department's files against its own data.
    Connector {
        #[command(subcommand)]
        command: connector::ConnectorCommand,
    },
    /// The demo's invented city in the forms departments keep their data in, to try connecting with.
    City {
        #[command(subcommand)]
        command: city::CityCommand,
    },
    /// Measure real components.
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// The city's data platform and its open data: handed over to the sibling program `tongban-lake`.
    ///
    /// Example: tongban lake ingest market.registrations 2026-11.csv.gz
    #[command(disable_help_flag = true)]
    Lake {
        /// What `tongban-lake` is asked.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Print the OpenAPI document of a node.
    #[command(hide = true)]
    Openapi,
    /// Print the JSON Schema of a file format, for editors: `connector`, `standard`, `matter`, `scenario`, `sharing` or `project`.
    ///
    /// Example: tongban schema connector > connector.schema.json
    Schema {
        /// The format.
        #[arg(value_parser = ["connector", "standard", "matter", "scenario", "sharing", "project"])]
        format: String,
    },
}

#[derive(Subcommand)]
enum ConsortiumCommand {
    /// Write keys, genesis and folders.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban consortium init consortium.toml --out city
    Init {
        /// The plan.
        file: PathBuf,
        /// The folder to write to; it must be empty.
        #[arg(long)]
        out: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum LedgerCommand {
    /// Write every final block of a running node to an archive; an archive that exists is gone on with.
    ///
    /// Example: tongban ledger export --config nodes/audit/node.toml --out audit.archive
    Export {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// The archive.
        #[arg(long)]
        out: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Check every byte of an archive, offline: order, signatures, events, finality.
    ///
    /// Example: tongban ledger fsck audit.archive --genesis genesis.json
    Fsck {
        /// The archive.
        archive: PathBuf,
        /// The consortium's genesis.
        #[arg(long)]
        genesis: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Apply every command of an archive again, offline: each outcome and state root must come out the same.
    ///
    /// Example: tongban ledger replay audit.archive --genesis genesis.json
    Replay {
        /// The archive.
        archive: PathBuf,
        /// The consortium's genesis.
        #[arg(long)]
        genesis: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Bring the node's archive (`archive` in node.toml) up to date, check every byte of it, and let the running node drop what it
    /// holds. Old receipts still verify, and the node still proves old events, from the archive.
    ///
    /// Example: tongban ledger prune --config nodes/tax/node.toml --dry-run
    Prune {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Export and check, and say what would be pruned.
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Put an archive's blocks into the empty ledger folder of a node that does not run, checking each: faster than fetching them
    /// from the others, and possible when nobody else has them.
    ///
    /// Example: tongban ledger restore audit.archive --config nodes/tax/node.toml
    Restore {
        /// The archive.
        archive: PathBuf,
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Write the newest checkpoint, the last header of an epoch: published elsewhere, it pins the past.
    ///
    /// Example: tongban ledger checkpoint --config nodes/audit/node.toml --out checkpoint.json
    Checkpoint {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// The file to write.
        #[arg(long)]
        out: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Show that what a receipt or statement proves comes before a checkpoint, for `verify --checkpoint … --link …`.
    ///
    /// Example: tongban ledger link call-deed.json --checkpoint checkpoint.json --config nodes/audit/node.toml --out link.json
    Link {
        /// The receipt or statement.
        receipt: PathBuf,
        /// The checkpoint.
        #[arg(long)]
        checkpoint: PathBuf,
        /// The configuration of any department's node.
        #[arg(long)]
        config: PathBuf,
        /// The file to write.
        #[arg(long)]
        out: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum BenchCommand {
    /// Final commands a second through the client API of real nodes on this machine.
    ///
    /// Example: tongban bench ledger --validators 4 --bytes 512 --in-flight 1000 --seconds 20 --json
    Ledger(bench::Options),
    /// Whole cases a second, and how long each takes from application to end.
    ///
    /// Example: tongban bench case --matter enterprise-start --cases 50 --at-once 4 --json
    Case(bench_case::CaseOptions),
    /// Whole calls, from asking to the opened payload, at a steady rate.
    ///
    /// Example: tongban bench call --rate 50 --seconds 20 --json
    Call(bench_case::CallOptions),
    /// Receipts verified offline on one core.
    ///
    /// Example: tongban bench verify --suite national --json
    Verify(bench_case::VerifyOptions),
    /// Look-ups a second through a connector on PostgreSQL, beside the bare driver's in the same run.
    ///
    /// Example: tongban bench gateway --database postgres://bench@127.0.0.1/bench --rows 10000000 --connections 32 --json
    Gateway(bench_gateway::Options),
    /// Searches of a large catalogue in Chinese and English.
    ///
    /// Example: tongban bench catalogue --entries 100000 --json
    Catalogue(bench_catalogue::Options),
    /// The data platform: taking in, look-ups, scans. Handed over to `tongban-lake bench`.
    ///
    /// Example: tongban bench lake --rows 10000000 --json
    #[command(disable_help_flag = true)]
    Lake {
        /// What `tongban-lake bench` is asked.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

/// The answer is no (exit 1), as opposed to a failure to try (exit 2).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct No(String);

/// The default filter: the engine's parts say a lot that is no news to an operator. `RUST_LOG` replaces it.
const QUIET: &str = "warn,commonware_storage=error,commonware_p2p=error,commonware_consensus=error,\
    commonware_runtime=error,commonware_broadcast=off,commonware_resolver=off,commonware_glue=error";

/// What an operator is told of a node beside: who signed in, what waits for an officer, when an epoch begins.
const TOLD: &str = "security=info,node=info,flow=info,chain=info,gateway=info";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| match cli.command {
            Command::Node { .. } => tracing_subscriber::EnvFilter::new(format!("{QUIET},{TOLD}")),
            _ => tracing_subscriber::EnvFilter::new(QUIET),
        });
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if cli.log == "json" {
        logs.json().init()
    } else {
        logs.init()
    }
    let json = matches!(
        &cli.command,
        Command::Demo { json: true, .. }
            | Command::Verify { json: true, .. }
            | Command::Doctor { json: true, .. }
            | Command::Backup { json: true, .. }
            | Command::Statement { json: true, .. }
            | Command::Restore { json: true, .. }
            | Command::Consortium { command: ConsortiumCommand::Init { json: true, .. } }
            | Command::Ledger {
                command: LedgerCommand::Export { json: true, .. }
                    | LedgerCommand::Fsck { json: true, .. }
                    | LedgerCommand::Replay { json: true, .. }
                    | LedgerCommand::Prune { json: true, .. }
                    | LedgerCommand::Restore { json: true, .. }
                    | LedgerCommand::Checkpoint { json: true, .. }
                    | LedgerCommand::Link { json: true, .. }
            }
    ) || match &cli.command {
        Command::Department { command } => command.json(),
        Command::Governance { command } => command.json(),
        Command::Audit { command } => command.json(),
        Command::Resource { command } => command.json(),
        Command::Basis { command } => command.json(),
        Command::Share { command } => command.json(),
        Command::Project { command } => command.json(),
        Command::Budget { command } => command.json(),
        Command::Objection { command } => command.json(),
        Command::Matter { command } => command.json(),
        Command::Connector { command } => command.json(),
        Command::City { command } => command.json(),
        Command::Face { command } => command.json(),
        Command::Terminal { command } => command.json(),
        Command::Policy { command } => command.json(),
        Command::Case { command } => command.json(),
        Command::Token { command } => command.json(),
        Command::Officer { command } => command.json(),
        Command::List { command } => command.json(),
        Command::Subscription { command } => command.json(),
        _ => false,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: the program cannot start its threads: {e}");
            return ExitCode::from(2);
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let no = e.downcast_ref::<No>().is_some();
            if json && !no {
                let document = json!({ "error": { "code": "failed", "message": format!("{e:#}"), "hint": "see --help" } });
                say!("{document}");
            }
            if !no || !json {
                eprintln!("error: {e:#}");
            }
            ExitCode::from(if no { 1 } else { 2 })
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo { headless, matter, cases, suite, seed, data, port, json } => {
            let cases = cases.into();
            demo::run(demo::Options { headless, matter, cases, suite, seed, data, port, json }).await
        }
        Command::Consortium { command: ConsortiumCommand::Init { file, out, json } } => {
            init(file, out, json).await
        }
        Command::Node { config } => serve(config).await,
        Command::Department { command } => govern::department(command).await,
        Command::Governance { command } => govern::governance(command).await,
        Command::Doctor { config, json } => {
            match doctor::doctor(&config, std::env::var("TONGBAN_PASSPHRASE").ok(), json).await? {
                0 => Ok(()),
                n => Err(No(format!("{n} thing(s) are not well")).into()),
            }
        }
        Command::Verify { receipt, against, json } => unless(audit::verify(&receipt, &against, json)?),
        Command::Statement { config, person, out, json } => {
            audit::statement(&config, &person, &out, json).await
        }
        Command::Audit { command } => unless(audit::audit(command).await?),
        Command::Ledger { command: LedgerCommand::Export { config, out, json } } => {
            archive::export_and_say(&config, &out, json).await
        }
        Command::Ledger { command: LedgerCommand::Fsck { archive: file, genesis, json } } => {
            let done =
                tokio::task::spawn_blocking(move || archive::fsck(&file, &genesis, u64::MAX)).await??;
            archived(done, json)
        }
        Command::Ledger { command: LedgerCommand::Replay { archive: file, genesis, json } } => {
            let done = tokio::task::spawn_blocking(move || archive::replay(&file, &genesis, None)).await??;
            archived(done, json)
        }
        Command::Ledger { command: LedgerCommand::Prune { config, dry_run, json } } => {
            unless(archive::prune(&config, dry_run, json).await?)
        }
        Command::Ledger { command: LedgerCommand::Restore { archive: file, config, json } } => {
            let restored = move || archive::restore_and_say(&file, &config, json);
            unless(tokio::task::spawn_blocking(restored).await??)
        }
        Command::Ledger { command: LedgerCommand::Checkpoint { config, out, json } } => {
            audit::checkpoint(&config, &out, json).await
        }
        Command::Ledger { command: LedgerCommand::Link { receipt, checkpoint, config, out, json } } => {
            audit::link(&receipt, &checkpoint, &config, &out, json).await
        }
        Command::Backup { config, out, json } => backup::backup(&config, &out, json).await,
        Command::Restore { backup: from, out, dry_run, json } => {
            let restored = move || backup::restore(&from, &out, dry_run, json);
            unless(tokio::task::spawn_blocking(restored).await??)
        }
        Command::Resource { command } => unless(catalogue::resource(command).await?),
        Command::Basis { command } => catalogue::basis(command).await,
        Command::Share { command } => sharing::share(command).await,
        Command::Project { command } => project::project(command).await,
        Command::Budget { command } => unless(sharing::budget(command).await?),
        Command::Objection { command } => sharing::objection(command).await,
        Command::Matter { command } => unless(matter::matter(command).await?),
        Command::Terminal { command } => terminal::terminal(command).await,
        Command::Policy { command } => unless(policy::policy(command).await?),
        Command::Case { command } => unless(case::case(command).await?),
        Command::List { command } => list::list(command).await,
        Command::Token { command } => token::token(command).await,
        Command::Officer { command } => officer::officer(command).await,
        Command::Subscription { command } => subscription::subscription(command).await,
        Command::Face { command } => tokio::task::spawn_blocking(move || face::run(command)).await?,
        Command::Connector { command } => unless(connector::connector(command).await?),
        Command::City { command } => city::city(command).await,
        Command::Bench { command: BenchCommand::Ledger(options) } => bench::ledger(options).await,
        Command::Bench { command: BenchCommand::Case(options) } => bench_case::case(options).await,
        Command::Bench { command: BenchCommand::Call(options) } => bench_case::call(options).await,
        Command::Bench { command: BenchCommand::Verify(options) } => bench_case::verify(options).await,
        Command::Bench { command: BenchCommand::Gateway(options) } => bench_gateway::gateway(options).await,
        Command::Bench { command: BenchCommand::Catalogue(options) } => bench_catalogue::catalogue(&options),
        Command::Schema { format } => {
            let schema = match format.as_str() {
                "standard" => serde_json::to_value(gateway::Standard::schema())?,
                "matter" => flow::Package::schema(),
                "scenario" => flow::scenario::Scenario::schema(),
                "sharing" => sharing::rules_schema(),
                "project" => project::project_schema(),
                _ => serde_json::to_value(gateway::Connector::schema())?,
            };
            say!("{}", serde_json::to_string_pretty(&schema)?);
            Ok(())
        }
        Command::Lake { arguments } => Err(hand_over(&arguments)),
        Command::Bench { command: BenchCommand::Lake { arguments } } => {
            let all: Vec<_> = std::iter::once("bench".into()).chain(arguments).collect();
            Err(hand_over(&all))
        }
        Command::Openapi => {
            say!("{}", node::openapi().trim_end());
            Ok(())
        }
    }
}

/// Becomes the data platform's program, which lies beside this one; says what to do where it does not.
fn hand_over(arguments: &[std::ffi::OsString]) -> anyhow::Error {
    use std::os::unix::process::CommandExt as _;
    let beside = std::env::current_exe().ok().and_then(|me| Some(me.parent()?.join("tongban-lake")));
    let program = beside.filter(|p| p.exists()).unwrap_or_else(|| "tongban-lake".into());
    let e = std::process::Command::new(&program).args(arguments).exec();
    match e.kind() {
        std::io::ErrorKind::NotFound => {
            anyhow::anyhow!(
                "the data platform's program is not built: run `cargo build --release -p tongban-lake`"
            )
        }
        _ => anyhow::Error::new(e).context(program.display().to_string()),
    }
}

/// Says no where something is wrong with what was looked at.
fn unless(problem: Option<String>) -> Result<()> {
    problem.map_or(Ok(()), |problem| Err(No(problem).into()))
}

fn archived(done: archive::Outcome, json: bool) -> Result<()> {
    if json {
        say!("{}", done.document);
    }
    match done.problem {
        Some(problem) => Err(No(problem).into()),
        None => {
            if !json {
                say!(
                    "in order to height {}: {} commands, {} bytes, state root {}",
                    done.document["height"],
                    done.document["commands"],
                    done.document["command_bytes"],
                    done.document["state_root"].as_str().unwrap_or_default()
                );
            }
            Ok(())
        }
    }
}

async fn init(file: PathBuf, out: PathBuf, json: bool) -> Result<()> {
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let plan: setup::Plan = toml::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    if out.exists() && std::fs::read_dir(&out)?.next().is_some() {
        anyhow::bail!("{} is not empty; choose another folder with --out", out.display());
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64;
    let made = setup::make(&plan, &out, &setup::passphrase()?, now, |_| {})?;
    for id in made.keys.keys() {
        setup::skeleton(&setup::node_dir(&out, id), id).await?;
    }
    let departments: Vec<_> = made.keys.keys().map(|id| id.as_str()).collect();
    if json {
        say!("{}", json!({ "chain_id": made.chain, "departments": departments }));
    } else {
        say!(
            "Consortium {} with {} departments under {}",
            made.chain.short(),
            departments.len(),
            out.display()
        );
        say!(
            "Next: carry nodes/NAME to its machine, fill in connector.yaml, and run `tongban node --config node.toml`."
        );
    }
    Ok(())
}

/// With less room than this the engine cannot write: 4 MiB.
const DISK_FULL_BYTES: u64 = 4 << 20;

async fn serve(config: PathBuf) -> Result<()> {
    let config = node::Config::read(&config)?;
    let ledger = config.ledger.clone();
    let node = node::Node::start(config, &setup::passphrase()?, None).await?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let failed = tokio::select! {
        _ = tokio::signal::ctrl_c() => false,
        _ = terminate.recv() => false,
        () = node.chain().stopped() => true,
    };
    node.stop().await;
    if failed {
        if doctor::free_bytes(&ledger).is_some_and(|bytes| bytes < DISK_FULL_BYTES) {
            anyhow::bail!(
                "the disk of the ledger folder {} is full: make room and start the node again; nothing that was final is lost",
                ledger.display()
            );
        }
        anyhow::bail!("the ledger engine stopped by itself; its log says why");
    }
    Ok(())
}
