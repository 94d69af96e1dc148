//! `tongban officer`: who may sign in to a node's pages.

use crate::{archive::client, say, sharing::word};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand, ValueEnum};
use node::Config;
use serde_json::{Value, json};
use std::path::PathBuf;

/// What `tongban officer` can do.
#[derive(Subcommand)]
pub enum OfficerCommand {
    /// Invite an officer. Prints a code that serves once, within three days: with it the officer chooses a passphrase and sets up
    /// an authenticator on the page /signin/first. Hand it over in person.
    ///
    /// Example: tongban officer add wang --title "L. Wang, window 3" --role clerk --config nodes/bureau/node.toml
    Add {
        /// The account's name: small letters, digits and -._, a letter first.
        name: String,
        /// How the officer is named where an act of theirs is on record.
        #[arg(long)]
        title: String,
        /// What they may do on the pages; both where it is given twice.
        #[arg(long, required = true)]
        role: Vec<Role>,
        /// How.
        #[command(flatten)]
        how: How,
    },
    /// Invite an officer anew who forgot the passphrase or lost the authenticator. What they had serves no more, and they are signed
    /// out everywhere.
    ///
    /// Example: tongban officer invite wang --config nodes/bureau/node.toml
    Invite {
        /// The account's name.
        name: String,
        /// How.
        #[command(flatten)]
        how: How,
    },
    /// Remove an officer, who is signed out everywhere. What they did stays on record.
    ///
    /// Example: tongban officer remove wang --config nodes/bureau/node.toml
    Remove {
        /// The account's name.
        name: String,
        /// How.
        #[command(flatten)]
        how: How,
    },
    /// List officers: their roles, whether they have signed in, and whether they are kept out after wrong attempts.
    ///
    /// Example: tongban officer list --config nodes/bureau/node.toml
    List {
        /// How.
        #[command(flatten)]
        how: How,
    },
}

/// What an officer may do.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Role {
    /// The one window: cases of all people.
    Clerk,
    /// What the department answers for: share requests, limits, alerts, objections, the connector.
    Data,
}

/// How a command reaches the node.
#[derive(Args)]
pub struct How {
    /// The configuration of this department's node, which must be running.
    #[arg(long)]
    pub(crate) config: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

impl OfficerCommand {
    fn how(&self) -> &How {
        match self {
            Self::Add { how, .. }
            | Self::Invite { how, .. }
            | Self::Remove { how, .. }
            | Self::List { how } => how,
        }
    }

    /// Whether one JSON document is wanted.
    pub fn json(&self) -> bool {
        self.how().json
    }
}

/// Runs a command.
///
/// # Errors
/// Where the node cannot be used, or has such an officer already, or none.
pub async fn officer(command: OfficerCommand) -> Result<()> {
    let How { config, json } = command.how();
    let (client, json) = (client(&Config::read(config)?), *json);
    let invited = |invitation: Value| match json {
        true => say!("{invitation}"),
        false => say!(
            "{}  {}\nthe code serves once, within three days, on the page /signin/first of this node; it is kept nowhere",
            word(&invitation, "name"),
            word(&invitation, "code")
        ),
    };
    match &command {
        OfficerCommand::Add { name, title, role, .. } => {
            let roles: Vec<_> =
                role.iter().map(|r| r.to_possible_value().expect("no role is hidden")).collect();
            let roles: Vec<_> = roles.iter().map(|r| r.get_name()).collect();
            let body = json!({ "name": name, "title": title, "roles": roles });
            invited(client.post("/api/v1/officers", body).await?);
        }
        OfficerCommand::Invite { name, .. } => {
            invited(client.post(&format!("/api/v1/officers/{name}/invitation"), Value::Null).await?);
        }
        OfficerCommand::Remove { name, .. } => {
            client.delete(&format!("/api/v1/officers/{name}")).await?;
            match json {
                true => say!("{}", json!({ "removed": name })),
                false => say!("{name} is removed and signed out everywhere"),
            }
        }
        OfficerCommand::List { .. } => {
            let all: Value = client.get("/api/v1/officers").await?;
            if json {
                say!("{}", json!({ "officers": all }));
                return Ok(());
            }
            let all = all.as_array().context("the node answers with a list")?;
            if all.is_empty() {
                say!("no officer may sign in; `tongban officer add` invites one");
            }
            for o in all {
                let roles = o["roles"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let roles: Vec<_> = roles.collect();
                let kept_out = if o["wait_until_ms"] == 0 { "" } else { "  kept out after wrong attempts" };
                say!(
                    "{:<16} {:<8} {:<12} {}{kept_out}",
                    word(o, "name"),
                    word(o, "state"),
                    roles.join(","),
                    word(o, "title")
                );
            }
        }
    }
    Ok(())
}
