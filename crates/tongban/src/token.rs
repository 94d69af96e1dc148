//! `tongban token`: API tokens with a name, scopes and a last day.

use crate::{archive::client, officer::How, say, sharing::word};
use anyhow::{Context as _, Result};
use clap::{Subcommand, ValueEnum};
use model::Day;
use node::Config;
use serde_json::{Value, json};

/// What `tongban token` can do.
#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token for one terminal, portal or report, and print it. It is kept nowhere.
    ///
    /// Example: tongban token add window-3 --scope cases --until 2027-12-31 --config nodes/bureau/node.toml
    Add {
        /// Its name: small letters, digits and -._, a letter first.
        name: String,
        /// What it opens; more than one where it is given again.
        #[arg(long, required = true)]
        scope: Vec<Scope>,
        /// Its last day.
        #[arg(long)]
        until: Day,
        /// How.
        #[command(flatten)]
        how: How,
    },
    /// Remove a token: it opens nothing from then on.
    ///
    /// Example: tongban token remove window-3 --config nodes/bureau/node.toml
    Remove {
        /// Its name.
        name: String,
        /// How.
        #[command(flatten)]
        how: How,
    },
    /// List the tokens there are: names, scopes, last days.
    ///
    /// Example: tongban token list --config nodes/bureau/node.toml
    List {
        /// How.
        #[command(flatten)]
        how: How,
    },
}

/// What a token opens.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Scope {
    /// Case work: open, identify, consent, decide, receipts, lists.
    Cases,
    /// What the department's office reads: reconciliation, connector, terminals, subscriptions, lists.
    Office,
    /// Keeping the ledger: archive, prune, statements, openings, links, publications.
    Keeping,
}

impl TokenCommand {
    fn how(&self) -> &How {
        match self {
            Self::Add { how, .. } | Self::Remove { how, .. } | Self::List { how } => how,
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
/// Where the node cannot be used, or has such a token already, or none.
pub async fn token(command: TokenCommand) -> Result<()> {
    let How { config, json } = command.how();
    let (client, json) = (client(&Config::read(config)?), *json);
    match &command {
        TokenCommand::Add { name, scope, until, .. } => {
            let scopes: Vec<_> = scope.iter().filter_map(ValueEnum::to_possible_value).collect();
            let scopes: Vec<_> = scopes.iter().map(|s| s.get_name()).collect();
            let body = json!({ "name": name, "scopes": scopes, "until": until.to_string() });
            let made = client.post("/api/v1/tokens", body).await?;
            match json {
                true => say!("{made}"),
                false => {
                    say!("{}\nsent as `Authorization: Bearer …`; it is kept nowhere", word(&made, "token"))
                }
            }
        }
        TokenCommand::Remove { name, .. } => {
            client.delete(&format!("/api/v1/tokens/{name}")).await?;
            match json {
                true => say!("{}", json!({ "removed": name })),
                false => say!("{name} is removed and opens nothing any more"),
            }
        }
        TokenCommand::List { .. } => {
            let all: Value = client.get("/api/v1/tokens").await?;
            if json {
                say!("{}", json!({ "tokens": all }));
                return Ok(());
            }
            let all = all.as_array().context("the node answers with a list")?;
            if all.is_empty() {
                say!(
                    "there is only the administrator's token, in node.toml; `tongban token add` makes narrower ones"
                );
            }
            for t in all {
                let scopes: Vec<_> =
                    t["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                say!("{:<16} {:<24} until {}", word(t, "name"), scopes.join(","), word(t, "until"));
            }
        }
    }
    Ok(())
}
