//! The command line: one program for citizens' offices, engineers, auditors and operators.

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use serde_json::json;
use std::{path::PathBuf, process::ExitCode};
use tongban::{bench, demo, setup};

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
    /// Start a whole consortium on this machine, carry a house transfer through it, and open the portal.
    ///
    /// Example: tongban demo --headless --cases 100 --json
    Demo {
        /// Stop after the cases instead of serving the portal.
        #[arg(long)]
        headless: bool,
        /// The matter.
        #[arg(long, default_value = "house-transfer")]
        matter: String,
        /// How many cases.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=400))]
        cases: u16,
        /// The cryptographic suite (national comes with a later release).
        #[arg(long, default_value = "international", value_parser = ["international"])]
        suite: String,
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
    /// Verify a receipt offline, with nothing but the genesis.
    ///
    /// Example: tongban verify call-deed.json --genesis genesis.json
    Verify {
        /// The receipt.
        receipt: PathBuf,
        /// The consortium's genesis.
        #[arg(long)]
        genesis: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Check a matter package.
    Matter {
        #[command(subcommand)]
        command: MatterCommand,
    },
    /// Check a department's files against its database.
    Connector {
        #[command(subcommand)]
        command: ConnectorCommand,
    },
    /// Measure real components.
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Print the OpenAPI document of a node.
    #[command(hide = true)]
    Openapi,
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
enum MatterCommand {
    /// Read a package and say what is wrong with it.
    ///
    /// Example: tongban matter check matters/house-transfer
    Check {
        /// The package's folder.
        dir: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum ConnectorCommand {
    /// Compile a connector against a live database; change nothing.
    ///
    /// Example: tongban connector check elements.yaml connector.yaml --database department.db
    Check {
        /// The standard and the connector file.
        #[arg(num_args = 2, required = true)]
        files: Vec<PathBuf>,
        /// The SQLite database file.
        #[arg(long)]
        database: PathBuf,
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
}

/// The answer is no (exit 1), as opposed to a failure to try (exit 2).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct No(String);

/// The default filter: the engine's parts say a lot that is no news to an operator. `RUST_LOG` replaces it.
const QUIET: &str = "warn,commonware_storage=error,commonware_p2p=error,commonware_consensus=error,\
    commonware_runtime=error,commonware_broadcast=off,commonware_resolver=off,commonware_glue=error";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(QUIET));
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
            | Command::Consortium { command: ConsortiumCommand::Init { json: true, .. } }
            | Command::Matter { command: MatterCommand::Check { json: true, .. } }
            | Command::Connector { command: ConnectorCommand::Check { json: true, .. } }
    );
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
                println!("{document}");
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
        Command::Demo { headless, matter, cases, suite: _, seed, data, port, json } => {
            demo::run(demo::Options { headless, matter, cases: cases.into(), seed, data, port, json }).await
        }
        Command::Consortium { command: ConsortiumCommand::Init { file, out, json } } => {
            init(file, out, json).await
        }
        Command::Node { config } => serve(config).await,
        Command::Verify { receipt, genesis, json } => verify(receipt, genesis, json),
        Command::Matter { command: MatterCommand::Check { dir, json } } => check_matter(dir, json),
        Command::Connector { command: ConnectorCommand::Check { files, database, json } } => {
            check_connector(files, database, json).await
        }
        Command::Bench { command: BenchCommand::Ledger(options) } => bench::ledger(options).await,
        Command::Openapi => {
            print!("{}", node::openapi());
            Ok(())
        }
    }
}

fn passphrase() -> Result<String> {
    std::env::var("TONGBAN_PASSPHRASE").context("set TONGBAN_PASSPHRASE to the passphrase of the key file")
}

async fn init(file: PathBuf, out: PathBuf, json: bool) -> Result<()> {
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let plan: setup::Plan = toml::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    if out.exists() && std::fs::read_dir(&out)?.next().is_some() {
        anyhow::bail!("{} is not empty; choose another folder with --out", out.display());
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64;
    let made = setup::make(&plan, &out, &passphrase()?, now, |_| {})?;
    for id in made.keys.keys() {
        setup::skeleton(&setup::node_dir(&out, id), id).await?;
    }
    let departments: Vec<_> = made.keys.keys().map(|id| id.as_str()).collect();
    if json {
        println!("{}", json!({ "chain_id": made.chain, "departments": departments }));
    } else {
        println!(
            "Consortium {} with {} departments under {}",
            made.chain.short(),
            departments.len(),
            out.display()
        );
        println!(
            "Next: carry nodes/NAME to its machine, fill in connector.yaml, and run `tongban node --config node.toml`."
        );
    }
    Ok(())
}

async fn serve(config: PathBuf) -> Result<()> {
    let config = node::Config::read(&config)?;
    let node = node::Node::start(config, &passphrase()?, None).await?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let failed = tokio::select! {
        _ = tokio::signal::ctrl_c() => false,
        _ = terminate.recv() => false,
        () = node.chain().stopped() => true,
    };
    node.stop().await;
    if failed {
        anyhow::bail!("the ledger engine stopped by itself; its log says why");
    }
    Ok(())
}

fn verify(receipt: PathBuf, genesis: PathBuf, json: bool) -> Result<()> {
    let file = std::fs::read(&receipt).with_context(|| format!("reading {}", receipt.display()))?;
    let genesis = node::read_genesis(&genesis)?;
    match proof::verify(&file, &genesis) {
        Ok(facts) if json => {
            println!("{}", json!({ "valid": true, "reason": "", "facts": facts }));
            Ok(())
        }
        Ok(facts) => {
            println!("valid");
            let facts = serde_json::to_value(&facts)?;
            for (name, value) in facts.as_object().into_iter().flatten() {
                println!("  {name:<10} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            }
            Ok(())
        }
        Err(rejected) => {
            if json {
                println!("{}", json!({ "valid": false, "reason": rejected.0, "facts": null }));
            }
            Err(No(format!("{} is not valid: {rejected}", receipt.display())).into())
        }
    }
}

fn check_matter(dir: PathBuf, json: bool) -> Result<()> {
    let checked = flow::Package::read(&dir);
    if json {
        let problems: Vec<_> = checked
            .as_ref()
            .err()
            .map(|e| json!({ "severity": "error", "path": e.file, "line": 0, "code": "package", "message": e.message }))
            .into_iter()
            .collect();
        println!("{}", json!({ "problems": problems }));
    }
    let package = checked.map_err(|e| No(e.to_string()))?;
    if !json {
        println!(
            "{} version {}: {} steps, no problem found",
            package.id,
            package.version,
            package.steps.len()
        );
    }
    Ok(())
}

async fn check_connector(files: Vec<PathBuf>, database: PathBuf, json: bool) -> Result<()> {
    let standard = gateway::Standard::read(&files[0])?;
    let connector = gateway::Connector::read(&files[1])?;
    let source = gateway::Sqlite::open_read_only(&database).await?;
    let gateway = gateway::Gateway::open(connector, &standard, source).await?;
    let problems = gateway.problems();
    if json {
        println!("{}", json!({ "queries": gateway.report() }));
    } else {
        for query in gateway.report() {
            println!("{:<8} {}", query.status, query.id);
            for problem in query.problems {
                println!("         {problem}");
            }
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(No(format!("{} declaration(s) do not fit the database", problems.len())).into())
    }
}
