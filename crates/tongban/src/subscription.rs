//! `tongban subscription`: what this department is told of when it changes.

use crate::{
    archive::client,
    say,
    sharing::{self, Write, word},
};
use anyhow::{Context as _, Result};
use clap::Subcommand;
use model::{Body, Day, EndSubscription, SubscriptionId};
use node::Config;
use serde_json::{Value, json};
use std::path::PathBuf;

/// What `tongban subscription` can do.
#[derive(Subcommand)]
pub enum SubscriptionCommand {
    /// List what this department subscribes to: from whom, until when, and how many changes came.
    ///
    /// Example: tongban subscription list --config nodes/bureau/node.toml
    List {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Print the changes of a subscription as CloudEvents, from a number on. Values are masked unless --unmasked.
    ///
    /// Example: tongban subscription events SUBSCRIPTION --after 2 --config nodes/bureau/node.toml
    Events {
        /// The subscription.
        id: SubscriptionId,
        /// Only those after this number.
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Show what was received, and not only which fields.
        #[arg(long)]
        unmasked: bool,
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// End a subscription at once, as the department that is told or as the one that tells.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban subscription end SUBSCRIPTION --config nodes/registry/node.toml
    End {
        /// The subscription.
        id: SubscriptionId,
        /// How it is written.
        #[command(flatten)]
        write: Write,
    },
}

impl SubscriptionCommand {
    /// Whether one JSON document is wanted.
    pub fn json(&self) -> bool {
        match self {
            Self::List { json, .. } | Self::Events { json, .. } => *json,
            Self::End { write, .. } => write.json,
        }
    }
}

/// Runs a command.
///
/// # Errors
/// Where the node cannot be used, there is no such subscription, or the ledger refuses.
pub async fn subscription(command: SubscriptionCommand) -> Result<()> {
    match command {
        SubscriptionCommand::List { config, json } => {
            let all: Vec<Value> = client(&Config::read(&config)?).get("/api/v1/subscriptions").await?;
            if json {
                say!("{}", json!({ "subscriptions": all }));
                return Ok(());
            }
            if all.is_empty() {
                say!("this department subscribes to nothing");
            }
            for s in &all {
                let until = Day::of(s["until_ms"].as_u64().unwrap_or(0));
                say!(
                    "{}  {:<9}  until {until}  {} of {} changes here  {} ({})",
                    word(s, "id"),
                    word(s, "standing"),
                    s["delivered"],
                    s["changes"],
                    word(s, "resource"),
                    word(s, "step")
                );
            }
            Ok(())
        }
        SubscriptionCommand::Events { id, after, unmasked, config, json } => {
            let path = format!("/api/v1/subscriptions/{id}/events?after={after}");
            let mut events: Vec<Value> = client(&Config::read(&config)?).get(&path).await?;
            if !unmasked {
                events.iter_mut().for_each(mask);
            }
            if json {
                say!("{}", json!({ "events": events }));
                return Ok(());
            }
            if events.is_empty() {
                say!("no change came after number {after}");
            }
            for event in &events {
                let data = &event["data"];
                let what = match data["declined"].as_str() {
                    Some(code) => format!("no longer answered: {code}"),
                    None => data["fields"].to_string(),
                };
                say!("{}  {}  {}  {what}", data["number"], word(event, "time"), word(event, "source"));
            }
            Ok(())
        }
        SubscriptionCommand::End { id, write } => {
            let body = Body::EndSubscription(EndSubscription { subscription: id });
            sharing::submit(&write, vec![(body, format!("end subscription {id}"))])
                .await
                .context("ending a subscription")
        }
    }
}

/// Leaves the names of what was received, and takes the values out.
fn mask(event: &mut Value) {
    if let Some(fields) = event["data"]["fields"].as_object_mut() {
        fields.values_mut().for_each(|value| *value = json!("***"));
    }
}
