//! `tongban policy`: what a holder lets be asked for, in Cedar.

use crate::{
    archive::{self, client},
    say,
    sharing::{Write, submit},
};
use anyhow::{Context as _, Result, ensure};
use clap::Subcommand;
use ledger::{Policy, Trial, Tried};
use model::{Body, DepartmentId, SetPolicy};
use node::Config;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What `tongban policy` can do.
#[derive(Subcommand)]
pub enum PolicyCommand {
    /// Read a policy and hold it against what calls are; changes nothing. --schema prints what policies can be about.
    ///
    /// Example: tongban policy check court.cedar
    Check {
        /// The policy's file.
        #[arg(required_unless_present = "schema")]
        file: Option<PathBuf>,
        /// Print the Cedar schema instead, for editors.
        #[arg(long)]
        schema: bool,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Try a policy on every call an archive holds: which were granted and would not be, which were refused and would be granted.
    /// Every command is applied again, offline; nothing is changed.
    ///
    /// Example: tongban policy replay court.cedar --holder court --archive audit.archive --genesis genesis.json
    Replay {
        /// The policy's file.
        file: PathBuf,
        /// Whose policy it would be.
        #[arg(long)]
        holder: DepartmentId,
        /// The archive (`tongban ledger export`).
        #[arg(long)]
        archive: PathBuf,
        /// The consortium's genesis.
        #[arg(long)]
        genesis: PathBuf,
        /// Print one JSON document, with every call that would come out otherwise.
        #[arg(long)]
        json: bool,
    },
    /// Set this department's policy over its own resources; it decides from the next block on. Try it with `policy replay` first.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban policy set court.cedar --config nodes/court/node.toml
    Set {
        /// The policy's file.
        #[arg(required_unless_present = "none")]
        file: Option<PathBuf>,
        /// Take the policy back instead.
        #[arg(long, conflicts_with = "file")]
        none: bool,
        /// How it is written.
        #[command(flatten)]
        write: Write,
    },
    /// Show a department's policy, as it stands on the ledger.
    ///
    /// Example: tongban policy show court --config nodes/audit/node.toml
    Show {
        /// The department.
        department: DepartmentId,
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

impl PolicyCommand {
    /// Whether one JSON document is wanted.
    pub fn json(&self) -> bool {
        match self {
            Self::Check { json, .. } | Self::Replay { json, .. } | Self::Show { json, .. } => *json,
            Self::Set { write, .. } => write.json,
        }
    }
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

/// Runs a command. What is wrong with a policy or an archive is the answer no.
///
/// # Errors
/// Where a file or the node cannot be used, or the ledger refuses.
pub async fn policy(command: PolicyCommand) -> Result<Option<String>> {
    match command {
        PolicyCommand::Check { schema: true, .. } => {
            say!("{}", ledger::POLICY_SCHEMA.trim_end());
            Ok(None)
        }
        PolicyCommand::Check { file, json, .. } => {
            let file = file.context("the policy's file is missing")?;
            let problem = Policy::parse(&read(&file)?).err().map(|e| e.to_string());
            if json {
                say!(
                    "{}",
                    json!({ "valid": problem.is_none(), "problems": problem.iter().collect::<Vec<_>>() })
                );
            } else if problem.is_none() {
                say!("{} is in order", file.display());
            }
            Ok(problem.map(|p| format!("{}: {p}", file.display())))
        }
        PolicyCommand::Replay { file, holder, archive, genesis, json } => {
            let policy = match Policy::parse(&read(&file)?) {
                Ok(policy) => policy,
                Err(e) => return Ok(Some(format!("{}: {e}", file.display()))),
            };
            let trial = Arc::new(Trial::of(holder.clone(), policy));
            let tried = trial.clone();
            let replayed =
                tokio::task::spawn_blocking(move || archive::replay(&archive, &genesis, Some(tried)))
                    .await??;
            if let Some(problem) = replayed.problem {
                return Ok(Some(format!("the archive is damaged, and nothing can be said: {problem}")));
            }
            say_trial(&holder, &trial, json);
            Ok(None)
        }
        PolicyCommand::Set { file, write, .. } => {
            let (text, words) = match &file {
                Some(file) => (read(file)?, format!("set the policy of {}", file.display())),
                None => (String::new(), "take the policy back".to_owned()),
            };
            if let Some(file) = &file {
                ensure!(!text.is_empty(), "{} is empty; to take a policy back, use --none", file.display());
                Policy::parse(&text).with_context(|| format!("the policy in {}", file.display()))?;
            }
            let config = Config::read(&write.config)?;
            let now: Value = client(&config).get(&format!("/api/v1/policies/{}", config.department)).await?;
            let version = now["version"].as_u64().context("the node says which policy there is")? as u32 + 1;
            submit(&write, vec![(Body::SetPolicy(SetPolicy { version, text }), words)]).await?;
            Ok(None)
        }
        PolicyCommand::Show { department, config, json } => {
            let found: Value =
                client(&Config::read(&config)?).get(&format!("/api/v1/policies/{department}")).await?;
            let text = found["text"].as_str().unwrap_or_default();
            if json {
                say!("{}", json!({ "policy": found }));
            } else if text.is_empty() {
                say!("{department} has no policy: consents, statutes and budgets decide alone");
            } else {
                say!("// version {}\n{}", found["version"], text.trim_end());
            }
            Ok(None)
        }
    }
}

/// Says what would come out otherwise: for people, counted by who asks for what and by which policy decides.
fn say_trial(holder: &DepartmentId, trial: &Trial, json: bool) {
    let found = trial.found();
    let changed: Vec<_> = found.iter().filter(|(_, t)| t.allowed != t.would.allowed).collect();
    if json {
        let calls: Vec<_> = changed
            .iter()
            .map(|(id, Tried { height, question: q, allowed, would })| {
                json!({
                    "call": id, "height": height, "asker": q.asker, "resource": q.resource, "matter": q.matter, "step": q.step,
                    "basis": q.basis, "names": q.names, "was": verdict(*allowed), "would_be": verdict(would.allowed),
                    "because": would.because,
                })
            })
            .collect();
        say!("{}", json!({ "holder": holder, "calls": found.len(), "changed": calls }));
        return;
    }
    say!("{} calls came to where {holder} decides; {} would come out otherwise", found.len(), changed.len());
    let mut groups: BTreeMap<(bool, String), usize> = BTreeMap::new();
    for (_, t) in &changed {
        let q = &t.question;
        let because = match t.would.because.join(", ") {
            none if none.is_empty() => "nothing permits it".to_owned(),
            ids => ids,
        };
        let group =
            format!("{} <- {} ({}, {}, {}): {because}", q.asker, q.resource, q.matter, q.step, q.basis);
        *groups.entry((t.would.allowed, group)).or_default() += 1;
    }
    for ((allowed, group), count) in groups {
        say!("{count:>7} would be {:<7}  {group}", verdict(allowed));
    }
}

fn verdict(allowed: bool) -> &'static str {
    if allowed { "granted" } else { "refused" }
}
