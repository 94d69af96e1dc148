//! `tongban list`: calls of many cases that are asked together, once their holder agreed to it.

use crate::{
    archive::client,
    say,
    sharing::{self, Write, word},
};
use anyhow::{Context as _, Result};
use clap::Subcommand;
use model::{AnswerList, Body, Code, ListId, MatterId, StepId};
use node::Config;
use serde_json::{Value, json};
use std::path::PathBuf;

/// What `tongban list` can do.
#[derive(Subcommand)]
pub enum ListCommand {
    /// Show the lists this department proposed, and those it is asked to agree to.
    ///
    /// Example: tongban list show --config nodes/police/node.toml
    Show {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// As handler, propose the cases that wait for a step now, and not only when their time comes.
    ///
    /// Example: tongban list propose pension alive --config nodes/security/node.toml
    Propose {
        /// The matter.
        matter: MatterId,
        /// The step.
        step: StepId,
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// As holder, agree to a list: its calls may then be asked, each by itself.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban list agree LIST --config nodes/police/node.toml
    Agree {
        /// The list.
        id: ListId,
        /// How it is written.
        #[command(flatten)]
        write: Write,
    },
    /// As holder, refuse a list: its cases are handed to a person.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban list refuse LIST --reason too_many --config nodes/police/node.toml
    Refuse {
        /// The list.
        id: ListId,
        /// Why, as a code of lower-case letters, digits and `_`; it is public.
        #[arg(long)]
        reason: Code,
        /// How it is written.
        #[command(flatten)]
        write: Write,
    },
}

impl ListCommand {
    /// Whether one JSON document is wanted.
    pub fn json(&self) -> bool {
        match self {
            Self::Show { json, .. } | Self::Propose { json, .. } => *json,
            Self::Agree { write, .. } | Self::Refuse { write, .. } => write.json,
        }
    }
}

/// Runs a command.
///
/// # Errors
/// Where the node cannot be used, there is no such list, or the ledger refuses.
pub async fn list(command: ListCommand) -> Result<()> {
    match command {
        ListCommand::Show { config, json } => {
            let all: Vec<Value> = client(&Config::read(&config)?).get("/api/v1/lists").await?;
            if json {
                say!("{}", json!({ "lists": all }));
                return Ok(());
            }
            if all.is_empty() {
                say!("there are no lists");
            }
            for l in &all {
                say!(
                    "{}  {:<9}  {} case(s) of {} ({})  {} asks {}",
                    word(l, "id"),
                    word(l, "standing"),
                    l["cases"],
                    word(l, "matter"),
                    word(l, "step"),
                    word(l, "asker"),
                    word(l, "resource")
                );
            }
            Ok(())
        }
        ListCommand::Propose { matter, step, config, json } => {
            let body = json!({ "matter": matter, "step": step });
            let proposed = client(&Config::read(&config)?).post("/api/v1/lists", body).await?;
            match proposed["cases"].as_u64() {
                _ if json => say!("{proposed}"),
                Some(0) => say!("no case gathers for {step} of {matter}: there is nothing to propose"),
                cases => say!(
                    "cases that are proposed for {step} of {matter}: {}; `tongban list show` says how it stands",
                    cases.unwrap_or_default()
                ),
            }
            Ok(())
        }
        ListCommand::Agree { id, write } => {
            let body = Body::AnswerList(AnswerList { list: id, refused: None });
            sharing::submit(&write, vec![(body, format!("agree to list {id}"))])
                .await
                .context("agreeing to a list")
        }
        ListCommand::Refuse { id, reason, write } => {
            let body = Body::AnswerList(AnswerList { list: id, refused: Some(reason) });
            sharing::submit(&write, vec![(body, format!("refuse list {id}"))])
                .await
                .context("refusing a list")
        }
    }
}
