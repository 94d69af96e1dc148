//! `tongban department` and `tongban governance`: who is in the consortium, and how that changes.

use crate::{
    client::Client,
    say,
    setup::{self, Entry, Newcomer},
};
use anyhow::{Context as _, Result, bail};
use bytes::{BufMut as _, BytesMut};
use clap::{Args, Subcommand};
use crypto::{Credentials, Keys, SigningKey, VoteKeyFolder};
use ledger::Rules;
use model::{
    Approve, Body, ChainId, Change, Command, DepartmentId, Member, ProposalId, Propose, Roster,
    SHARING_PROTOCOL, Text, encode,
};
use node::Config;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long a proposal waits for approvals by default: 14 days.
const PROPOSAL_DAYS: u64 = 14;

/// Departments of the consortium.
#[derive(Subcommand)]
pub enum DepartmentCommand {
    /// Say which departments are in the consortium, and which vote.
    ///
    /// Example: tongban department list --config nodes/tax/node.toml
    List(Read),
    /// Make the folder of a department that wants to join, and its signed entry for the others to take in.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban department init heating --title-zh 热力公司 --title-en "Heating company"
    ///   --genesis genesis.json --roster roster.json --listen 10.1.2.9:8500 --http 10.1.2.9:8400 --out heating
    Init {
        /// Its ID.
        id: DepartmentId,
        /// Its Chinese name.
        #[arg(long)]
        title_zh: String,
        /// Its English name.
        #[arg(long)]
        title_en: String,
        /// The consortium's genesis.
        #[arg(long)]
        genesis: PathBuf,
        /// A roster file of today, from any department (`tongban department list --json --config …` prints one under `roster`).
        #[arg(long)]
        roster: PathBuf,
        /// Where its node listens for the others.
        #[arg(long)]
        listen: SocketAddr,
        /// Where its node serves its API and pages.
        #[arg(long)]
        http: SocketAddr,
        /// Whether its node is to vote.
        #[arg(long)]
        validator: bool,
        /// The folder to write to; it must be empty.
        #[arg(long)]
        out: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Write this department's own entry, signed, with another vote, address or name, for the others to take in.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban department entry --validator true --config nodes/tax/node.toml --out tax.json
    Entry {
        /// The configuration of this department's node.
        #[arg(long)]
        config: PathBuf,
        /// Whether its node is to vote.
        #[arg(long)]
        validator: Option<bool>,
        /// Where its node listens for the others.
        #[arg(long)]
        address: Option<String>,
        /// The file to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Propose that a department is taken in, or given what its new entry says.
    ///
    /// Example: tongban department add heating/entry.json --officer officers/system --config nodes/tax/node.toml
    Add {
        /// The department's signed entry.
        entry: PathBuf,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// Propose that a department leaves.
    ///
    /// Example: tongban department remove heating --officer officers/system --config nodes/tax/node.toml
    Remove {
        /// The department.
        id: DepartmentId,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// Let this department's validator vote with a fresh key from the next epoch on. It also does so by itself.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban department rotate-vote --config nodes/tax/node.toml
    RotateVote(Read),
}

/// Changes that departments approve.
#[derive(Subcommand)]
pub enum GovernanceCommand {
    /// List the proposals that wait for approval.
    ///
    /// Example: tongban governance list --config nodes/tax/node.toml
    List(Read),
    /// Propose another version of the ledger's rules, how many departments must approve a change, or the rules of sharing.
    ///
    /// Example: tongban governance propose --protocol 3 --officer officers/system --config nodes/tax/node.toml
    #[command(group = clap::ArgGroup::new("change").required(true).args(["protocol", "approvals", "sharing"]))]
    Propose {
        /// The next version of the ledger's rules.
        #[arg(long)]
        protocol: Option<u32>,
        /// How many departments must approve a change.
        #[arg(long)]
        approvals: Option<u32>,
        /// A file with the rules of sharing; docs/sharing.md describes it.
        #[arg(long)]
        sharing: Option<PathBuf>,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// Approve a proposal, as the security officer of this department.
    ///
    /// Example: tongban governance approve PROPOSAL --officer officers/security --config nodes/tax/node.toml
    Approve {
        /// The proposal.
        proposal: ProposalId,
        /// How.
        #[command(flatten)]
        write: Write,
    },
}

/// What reading takes.
#[derive(Args)]
pub struct Read {
    /// The configuration of this department's node, which must be running.
    #[arg(long)]
    config: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// What proposing and approving take.
#[derive(Args)]
pub struct Write {
    /// The configuration of this department's node, which must be running. The passphrase of its keys comes from
    /// TONGBAN_PASSPHRASE.
    #[arg(long)]
    config: PathBuf,
    /// The key file of the officer. Its passphrase comes from TONGBAN_OFFICER_PASSPHRASE, or is that of the node's keys.
    #[arg(long)]
    officer: PathBuf,
    /// Check everything and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

impl DepartmentCommand {
    /// Whether the output is JSON.
    pub fn json(&self) -> bool {
        match self {
            Self::List(read) | Self::RotateVote(read) => read.json,
            Self::Init { json, .. } => *json,
            Self::Add { write, .. } | Self::Remove { write, .. } => write.json,
            Self::Entry { .. } => false,
        }
    }
}

impl GovernanceCommand {
    /// Whether the output is JSON.
    pub fn json(&self) -> bool {
        match self {
            Self::List(read) => read.json,
            Self::Propose { write, .. } | Self::Approve { write, .. } => write.json,
        }
    }
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// A department's own node, and what signs its commands.
pub(crate) struct Own {
    pub(crate) config: Config,
    client: Client,
    keys: Keys,
    pub(crate) rules: Rules,
}

impl Own {
    pub(crate) fn open(config: &Path) -> Result<Self> {
        let config = Config::read(config)?;
        let keys = crypto::load_keys(&config.keys, &setup::passphrase()?)?;
        let rules = Rules::of(node::read_genesis(&config.genesis)?);
        Ok(Self { client: client(&config), keys, rules, config })
    }

    fn chain(&self) -> ChainId {
        self.rules.chain
    }

    async fn member(&self) -> Result<Member> {
        let (_, roster) = roster(&self.client).await?;
        let member = roster.member(&self.config.department).cloned();
        member.with_context(|| format!("{} is not in the consortium", self.config.department))
    }

    /// The version of the ledger's rules in force.
    pub(crate) async fn protocol(&self) -> Result<u32> {
        Ok(roster(&self.client).await?.1.protocol)
    }

    /// Whether the running node answers by other files than those there are by now.
    pub(crate) async fn outdated(&self) -> Result<bool> {
        Ok(self.client.get::<Value>("/api/v1/connector").await?["outdated"] == true)
    }

    /// Submits a command of this department and waits until it is final; the refusal's code where it is refused.
    pub(crate) async fn submit(&self, body: Body) -> Result<String> {
        let command = Command {
            chain: self.chain(),
            signer: self.config.department.clone(),
            nonce: u64::from_le_bytes(crypto::random()),
            expires_ms: now_ms() + 300_000,
            body,
        };
        let signed = crypto::signed(&self.keys.command, command);
        let id = crypto::command_id(&signed);
        let bytes = encode(&signed);
        let mut batch = BytesMut::new();
        batch.put_u32_le(bytes.len() as u32);
        batch.put_slice(&bytes);
        let answer = self.client.commands(batch.to_vec()).await?;
        match answer.first() {
            Some(0) => Ok(id.to_string()),
            Some(1) => {
                let height = u64::from_le_bytes(answer[1..9].try_into().expect("nine bytes for a command"));
                let block: Value = self.client.get(&format!("/api/v1/blocks/{height}")).await?;
                let events = block["events"].as_array().cloned().unwrap_or_default();
                let event = events.iter().find(|e| e["id"] == id.to_string());
                let code = event.and_then(|e| e["outcome"].as_str()).unwrap_or("refused").to_owned();
                let advice = advice(&code);
                Err(LedgerRefused { code, advice }.into())
            }
            Some(2) => bail!(
                "the node did not take the command in: is {} (still) in the consortium?",
                self.config.department
            ),
            _ => bail!(
                "the command was not ordered in time; `tongban governance list` says whether it was later"
            ),
        }
    }
}

/// The ledger refused a command.
#[derive(Debug, thiserror::Error)]
#[error("the ledger refused it: {code} ({advice})")]
pub struct LedgerRefused {
    /// The refusal's stable code.
    pub code: String,
    advice: &'static str,
}

/// What to do about a refusal.
fn advice(code: &str) -> &'static str {
    match code {
        "bad_signature" => "the officer's key is not the one in the roster, or is the other officer's",
        "unfit_change" => {
            "the consortium could not go on with it: too few validators, equal keys, a foreign suite, no next version"
        }
        "unknown_proposal" => "there is no such proposal, or it has expired; see `tongban governance list`",
        "approved_before" => "this department has approved it; others have to",
        "wrong_state" => "it has moved on already; list it to see where it stands",
        "already_used" => "there is one by this name already",
        "unknown_share" => "there is no such share request; see `tongban share list`",
        "unknown_project" => "there is no such project, or it has ended; see `tongban project list`",
        "unknown_resource" => "the holder published no such resource; see `tongban resource list`",
        "unknown_field" => "the resource has no such field or predicate; see `tongban resource show`",
        "no_coordinator" => {
            "the rules of sharing name nobody who could rule on it: `tongban governance propose --sharing …`"
        }
        "unfit_text" => {
            "a text for everybody is empty, too long, or holds what looks like a number of a person"
        }
        "wrong_shape" => "it is empty, or goes beyond what was asked for or registered",
        "too_early" => {
            "its time has not come: a deadline still runs, or the vote key was rotated within eight epochs"
        }
        "oversized" => {
            "this department has four proposals that wait for approval; let some expire or be approved"
        }
        _ => "see docs/operations.md",
    }
}

fn officer(file: &Path) -> Result<SigningKey> {
    let own = std::env::var("TONGBAN_OFFICER_PASSPHRASE").ok().filter(|own| !own.is_empty());
    let passphrase = own.map_or_else(setup::passphrase, Ok)?;
    Ok(crypto::load_officer(file, &passphrase)?)
}

pub(crate) fn client(config: &Config) -> Client {
    Client::new(config.http, config.api_token.as_deref().unwrap_or_default())
}

async fn roster(client: &Client) -> Result<(u64, Roster)> {
    let body: Value = client.get("/api/v1/roster").await?;
    let epoch = body["epoch"].as_u64().context("the node says its epoch")?;
    Ok((epoch, serde_json::from_value(body["roster"].clone()).context("the node says its roster")?))
}

/// Runs `tongban department`.
pub async fn department(command: DepartmentCommand) -> Result<()> {
    match command {
        DepartmentCommand::List(read) => list_departments(&read).await,
        DepartmentCommand::Init {
            id,
            title_zh,
            title_en,
            genesis,
            roster,
            listen,
            http,
            validator,
            out,
            json,
        } => {
            if out.exists() && std::fs::read_dir(&out)?.next().is_some() {
                bail!("{} is not empty; choose another folder with --out", out.display());
            }
            let title = Text { zh: title_zh, en: title_en };
            let newcomer = Newcomer { id: id.clone(), title, validator, listen, http };
            let passphrase = setup::passphrase()?;
            let (_, entry) = setup::join(newcomer, &genesis, &roster, &out, &passphrase, |_| {}).await?;
            if json {
                say!("{}", json!({ "id": id, "entry": entry.display().to_string() }));
            } else {
                say!("The folder of {id} is {}; its entry is {}", out.display(), entry.display());
                say!(
                    "Next: fill in connector.yaml, start `tongban node --config {}/node.toml`,",
                    out.display()
                );
                say!(
                    "and hand the entry to a department that proposes it: tongban department add {}",
                    entry.display()
                );
            }
            Ok(())
        }
        DepartmentCommand::Entry { config, validator, address, out } => {
            let own = Own::open(&config)?;
            let mut member = own.member().await?;
            member.validator = validator.unwrap_or(member.validator);
            member.address = address.unwrap_or(member.address);
            let entry = Entry::sign(own.chain(), member, &own.keys.command);
            std::fs::write(&out, serde_json::to_string_pretty(&entry)?)
                .with_context(|| format!("writing {}", out.display()))?;
            say!(
                "Written to {}; next, a department proposes it: tongban department add {}",
                out.display(),
                out.display()
            );
            Ok(())
        }
        DepartmentCommand::Add { entry, write } => {
            let own = Own::open(&write.config)?;
            let change = Entry::read(&entry, &own.chain())?;
            propose(&own, change, &write).await
        }
        DepartmentCommand::Remove { id, write } => {
            propose(&Own::open(&write.config)?, Change::Remove(id), &write).await
        }
        DepartmentCommand::RotateVote(read) => {
            let own = Own::open(&read.config)?;
            let member = own.member().await?;
            if !member.validator {
                bail!("the node of {} does not vote", member.id);
            }
            let folder = VoteKeyFolder::open(&own.config.votes, own.keys.storage.clone())?;
            let key = folder.fresh()?;
            let vote_key = key.public();
            let rotation = Credentials::rotation(&own.chain(), &member.id, &key);
            if let Err(e) = own.submit(Body::RotateVote(rotation)).await {
                folder.destroy(&[vote_key])?;
                return Err(e);
            }
            if read.json {
                say!("{}", json!({ "vote_key": vote_key }));
            } else {
                say!(
                    "{} votes with {} from the next epoch on; then the old key is destroyed",
                    member.id,
                    vote_key.short()
                );
            }
            Ok(())
        }
    }
}

async fn list_departments(read: &Read) -> Result<()> {
    let config = Config::read(&read.config)?;
    let (epoch, roster) = roster(&client(&config)).await?;
    if read.json {
        say!("{}", json!({ "epoch": epoch, "roster": roster }));
        return Ok(());
    }
    say!(
        "epoch {epoch}, rules {}, {} of {} departments must approve a change",
        roster.protocol,
        roster.approvals,
        roster.members.len()
    );
    for member in &roster.members {
        let votes = if member.validator { "votes" } else { "" };
        say!("  {:<16} {:<6} {:<22} {}", member.id.as_str(), votes, member.address, member.title.en);
    }
    Ok(())
}

async fn propose(own: &Own, change: Change, write: &Write) -> Result<()> {
    let officer = officer(&write.officer)?;
    let member = own.member().await?;
    if officer.public() != member.officers.system {
        bail!("{} is not the key of the system officer of {}", write.officer.display(), member.id);
    }
    let (_, roster) = roster(&own.client).await?;
    let mut next = roster.clone();
    change.apply(&mut next);
    next.check(own.rules.suite())
        .map_err(|e| anyhow::anyhow!("the consortium could not go on with this: {e}"))?;
    if let Change::SetSharing(rules) = &change {
        let fits = roster.protocol >= SHARING_PROTOCOL;
        anyhow::ensure!(
            fits,
            "rules of sharing need protocol {SHARING_PROTOCOL}: `tongban governance propose --protocol …` first"
        );
        rules.check(&roster).map_err(|e| anyhow::anyhow!("these rules would not work: {e}"))?;
    }
    if write.dry_run {
        say!("it would be proposed, and need the approval of {} departments", roster.approvals);
        return Ok(());
    }
    let expires_ms = now_ms() + PROPOSAL_DAYS * 86_400_000;
    let message = Propose::signing_bytes(&own.chain(), &member.id, &change, expires_ms);
    let proposal = Propose { change, expires_ms, officer: officer.sign(&message) };
    let id = own.submit(Body::Propose(proposal)).await?;
    told(own, &id, write.json).await
}

async fn told(own: &Own, id: &str, json: bool) -> Result<()> {
    let proposal: Value = own.client.get(&format!("/api/v1/proposals/{id}")).await?;
    if json {
        say!("{}", json!({ "proposal": with_counts(proposal) }));
        return Ok(());
    }
    say!("{}", line_of(&proposal));
    match proposal["in_force_from"].as_u64() {
        Some(_) if proposal["change"] == "set_sharing" => say!("It is in force."),
        Some(epoch) => say!("It is in force from epoch {epoch} on, which begins within a few minutes."),
        None => {
            say!("Next: security officers approve it: tongban governance approve {id} --officer … --config …")
        }
    }
    Ok(())
}

/// A proposal with the number of approvals in place of their list, as the contract has it, and the list beside it.
fn with_counts(mut proposal: Value) -> Value {
    let by = proposal["approvals"].take();
    proposal["approvals"] = json!(by.as_array().map_or(0, Vec::len));
    proposal["approved_by"] = by;
    proposal
}

fn line_of(proposal: &Value) -> String {
    let text = |key: &str| proposal[key].as_str().unwrap_or_default().to_owned();
    let by: Vec<&str> =
        proposal["approvals"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!(
        "{}  {} {}  {} ({} of {}{}{})",
        text("id"),
        text("change"),
        text("value"),
        text("status"),
        by.len(),
        proposal["needed"],
        if by.is_empty() { "" } else { ": " },
        by.join(", ")
    )
}

/// Runs `tongban governance`.
pub async fn governance(command: GovernanceCommand) -> Result<()> {
    match command {
        GovernanceCommand::List(read) => {
            let config = Config::read(&read.config)?;
            let list: Vec<Value> = client(&config).get("/api/v1/proposals").await?;
            if read.json {
                say!("{}", json!({ "proposals": list.into_iter().map(with_counts).collect::<Vec<_>>() }));
            } else if list.is_empty() {
                say!("no proposal waits for approval");
            } else {
                list.iter().for_each(|proposal| say!("{}", line_of(proposal)));
            }
            Ok(())
        }
        GovernanceCommand::Propose { protocol, approvals, sharing, write } => {
            let change = match (protocol, approvals, sharing) {
                (Some(protocol), ..) => Change::SetProtocol(protocol),
                (_, Some(approvals), _) => Change::SetApprovals(approvals),
                (.., Some(file)) => Change::SetSharing(Box::new(crate::sharing::read_rules(&file)?)),
                (None, None, None) => bail!("say --protocol, --approvals or --sharing"),
            };
            propose(&Own::open(&write.config)?, change, &write).await
        }
        GovernanceCommand::Approve { proposal, write } => {
            let own = Own::open(&write.config)?;
            let officer = officer(&write.officer)?;
            let member = own.member().await?;
            if officer.public() != member.officers.security {
                bail!("{} is not the key of the security officer of {}", write.officer.display(), member.id);
            }
            if write.dry_run {
                let found: Value = own.client.get(&format!("/api/v1/proposals/{proposal}")).await?;
                say!("it would be approved: {}", line_of(&found));
                return Ok(());
            }
            let message = Approve::signing_bytes(&own.chain(), &member.id, &proposal);
            let approval = Approve { proposal, officer: officer.sign(&message) };
            own.submit(Body::Approve(approval)).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            told(&own, &proposal.to_string(), write.json).await
        }
    }
}
