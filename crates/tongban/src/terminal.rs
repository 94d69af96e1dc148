//! `tongban terminal`: the counter terminals whose word identifies people.

use crate::{
    govern::{Own, client},
    say,
    sharing::{self, Write},
};
use anyhow::{Context as _, Result, ensure};
use clap::Subcommand;
use crypto::SigningKey;
use model::{Body, EnrolTerminal, PublicKey, Suite};
use node::Config;
use serde_json::{Value, json};
use std::path::PathBuf;

/// What `tongban terminal` can do.
#[derive(Subcommand)]
pub enum TerminalCommand {
    /// Make a key for a terminal, in a file encrypted with TONGBAN_PASSPHRASE, and print its public part. Done on the terminal itself.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban terminal key --out window-3.key --suite national
    Key {
        /// The file to write; it must not exist.
        #[arg(long)]
        out: PathBuf,
        /// The consortium's suite.
        #[arg(long, default_value = "international", value_parser = crate::suite)]
        suite: Suite,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Enrol a terminal of this department: from then on its word identifies people in this department's cases.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban terminal enrol ed25519:… --config nodes/bureau/node.toml
    Enrol {
        /// Its public key.
        key: PublicKey,
        /// How it is written.
        #[command(flatten)]
        write: Write,
    },
    /// Take a terminal's enrolment back, at once. What it vouched for before stays on record.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban terminal revoke ed25519:… --config nodes/bureau/node.toml
    Revoke {
        /// Its public key.
        key: PublicKey,
        /// How it is written.
        #[command(flatten)]
        write: Write,
    },
    /// List this department's terminals: which are in use, and how many people each identified today.
    ///
    /// Example: tongban terminal list --config nodes/bureau/node.toml
    List {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

impl TerminalCommand {
    /// Whether one JSON document is wanted.
    pub fn json(&self) -> bool {
        match self {
            Self::Key { json, .. } | Self::List { json, .. } => *json,
            Self::Enrol { write, .. } | Self::Revoke { write, .. } => write.json,
        }
    }
}

/// Runs a command.
///
/// # Errors
/// Where a file or the node cannot be used, the key is of another suite, or the ledger refuses.
pub async fn terminal(command: TerminalCommand) -> Result<()> {
    match command {
        TerminalCommand::Key { out, suite, json } => {
            ensure!(!out.exists(), "{} is there already; a key is never written over", out.display());
            let (seed, key) = loop {
                let seed = crypto::random::<32>();
                // one in about 2^32 is no key of the national suite
                if let Some(key) = SigningKey::from_seed(suite, seed) {
                    break (seed, key.public());
                }
            };
            crypto::store_secret(&out, &crate::setup::passphrase()?, suite, &seed)?;
            if json {
                say!("{}", json!({ "key": key.to_string(), "file": out }));
            } else {
                say!(
                    "{key}\nthe terminal's key is in {}; enrol it with `tongban terminal enrol {key} …`",
                    out.display()
                );
            }
            Ok(())
        }
        TerminalCommand::Enrol { key, write } => put(key, true, &write).await,
        TerminalCommand::Revoke { key, write } => put(key, false, &write).await,
        TerminalCommand::List { config, json } => {
            let client = client(&Config::read(&config)?);
            let all: Value = client.get("/api/v1/terminals").await?;
            if json {
                say!("{}", json!({ "terminals": all }));
                return Ok(());
            }
            let all = all.as_array().context("the node answers with a list")?;
            if all.is_empty() {
                say!("no terminal is enrolled");
            }
            for t in all {
                let standing = if t["active"] == true { "in use " } else { "revoked" };
                let most = t["per_day"].as_u64().map(|n| format!(" of {n}")).unwrap_or_default();
                say!(
                    "{standing}  {}  {}{most} people today",
                    t["key"].as_str().unwrap_or_default(),
                    t["today"]
                );
            }
            Ok(())
        }
    }
}

async fn put(key: PublicKey, active: bool, write: &Write) -> Result<()> {
    let suite = Own::open(&write.config)?.rules.suite();
    ensure!(key.suite() == suite, "the key is of another suite than the consortium's ({})", suite.as_str());
    let words = format!("{} terminal {key}", if active { "enrol" } else { "revoke" });
    sharing::submit(write, vec![(Body::EnrolTerminal(EnrolTerminal { key, active }), words)]).await
}
