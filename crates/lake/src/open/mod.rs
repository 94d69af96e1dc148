//! Open data: what is published for everyone, after a gate that looks for people in it, and an officer's decision on the ledger.

mod chart;
pub mod ckan;
pub mod data;
pub mod dcat;
pub mod gate;
#[cfg(test)]
mod gate_tests;
pub mod pages;
pub mod plan;
pub mod portal;
mod publish;

use anyhow::Result;
use clap::Subcommand;
use std::path::PathBuf;

pub use plan::plan_schema;

/// What the gate or the officer refused: exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Commands of open data.
#[derive(Subcommand)]
pub enum OpenCommand {
    /// Publish a data set by its plan: build the files, run the disclosure-risk gate, have the officer's decision recorded on the ledger.
    ///
    /// Example: tongban-lake publish plans/registrations-by-district.yaml --dry-run
    ///          tongban-lake publish plans/registrations-by-district.yaml --node http://127.0.0.1:8441 --node-token-file token
    Publish {
        /// The plan.
        plan: PathBuf,
        /// Build, run the gate, and publish nothing.
        #[arg(long)]
        dry_run: bool,
        /// Where the decision is recorded.
        #[command(flatten)]
        by: Deciding,
    },
    /// Take a publication back; its page says so and why.
    ///
    /// Example: tongban-lake withdraw registrations.by-district --note "counted twice" --node http://127.0.0.1:8441
    Withdraw {
        /// The publication.
        id: String,
        /// Why, for everyone to read.
        #[arg(long)]
        note: String,
        /// Where the decision is recorded.
        #[command(flatten)]
        by: Deciding,
    },
}

/// Where a decision is recorded.
#[derive(clap::Args, Clone)]
pub struct Deciding {
    /// The responsible department's node.
    #[arg(long)]
    pub node: Option<String>,
    /// The file with the token of its API.
    #[arg(long)]
    pub node_token_file: Option<PathBuf>,
    /// The platform's settings.
    #[arg(long, default_value = "lake.toml")]
    pub config: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

impl OpenCommand {
    /// Whether one JSON document is wanted.
    pub fn json(&self) -> bool {
        match self {
            Self::Publish { by, .. } | Self::Withdraw { by, .. } => by.json,
        }
    }
}

/// Runs a command of open data.
pub async fn run(command: OpenCommand, say: &mut (dyn FnMut(&str) + Send)) -> Result<()> {
    match command {
        OpenCommand::Publish { plan, dry_run, by } => publish::publish(&plan, dry_run, &by, say).await,
        OpenCommand::Withdraw { id, note, by } => publish::withdraw(&id, &note, &by, say).await,
    }
}
