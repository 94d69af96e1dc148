//! `tongban case`: what an office does with cases beside the one-window page.

use crate::{archive::client, say, sharing::word};
use anyhow::Result;
use clap::Subcommand;
use model::CaseId;
use node::Config;
use serde_json::{Value, json};
use std::path::PathBuf;

/// What `tongban case` can do.
#[derive(Subcommand)]
pub enum CaseCommand {
    /// As handler, erase what is held of the people of cases that are over. It cannot be undone.
    ///
    /// Form, answers, results, notes and reasons go; that a case was erased is on the ledger, and its receipts stay valid. A
    /// matter with `retain_days` does this by itself. Parties no longer find the case under "who used my data".
    ///
    /// Example: tongban case erase CASE --who "L. Wang" --reason "asked for by the applicant" --dry-run --config nodes/bureau/node.toml
    Erase {
        /// The cases.
        #[arg(required = true)]
        ids: Vec<CaseId>,
        /// Who erases them; it stays in the vault.
        #[arg(long)]
        who: String,
        /// Why; it stays in the vault.
        #[arg(long)]
        reason: String,
        /// Only say which of them can be erased.
        #[arg(long)]
        dry_run: bool,
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

impl CaseCommand {
    /// Whether one JSON document is wanted.
    pub fn json(&self) -> bool {
        let Self::Erase { json, .. } = self;
        *json
    }
}

/// Runs a command; what is amiss where not all of the cases could be erased.
///
/// # Errors
/// Where the node cannot be used, or has no such case.
pub async fn case(command: CaseCommand) -> Result<Option<String>> {
    let CaseCommand::Erase { ids, who, reason, dry_run, config, json } = command;
    let client = client(&Config::read(&config)?);
    let mut done: Vec<Value> = Vec::new();
    for id in ids {
        let body = json!({ "who": who, "reason": reason, "dry_run": dry_run });
        let answer = client.post(&format!("/api/v1/cases/{id}/erase"), body).await?;
        if !json {
            match (word(&answer, "kept"), dry_run) {
                ("", true) => say!("{}  can be erased", id.short()),
                ("", false) => say!("{}  erased", id.short()),
                (kept, _) => say!("{}  kept: {kept}", id.short()),
            }
        }
        done.push(answer);
    }
    if json {
        say!("{}", json!({ "cases": done, "dry_run": dry_run }));
    }
    let kept = done.iter().filter(|answer| !word(answer, "kept").is_empty()).count();
    Ok((kept > 0).then(|| format!("{kept} of {} cases cannot be erased yet", done.len())))
}
