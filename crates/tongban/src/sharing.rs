//! `tongban share`, `budget` and `objection`: how departments come to share, how much, and what they do about wrong data.

use crate::{archive::client, govern::Own, say};
use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use model::*;
use node::Config;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// `tongban share …`.
#[derive(Subcommand)]
pub enum ShareCommand {
    /// Apply to use a resource of another department under a statutory duty.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban share request restriction-check --holder registry --resource registry.restriction
    /// --names seized,objected --matter house-transfer --citation 不动产登记暂行条例第二十二条 --purpose-zh 核验能否过户
    /// --purpose-en "May it be transferred" --per-day 500 --until 2027-12-31 --config nodes/bureau/node.toml
    Request {
        /// The request's name; granted, it is the basis that matters refer to.
        id: ApprovalId,
        /// Who holds the resource.
        #[arg(long)]
        holder: DepartmentId,
        /// The resource.
        #[arg(long)]
        resource: ResourceId,
        /// The fields or predicates.
        #[arg(long, value_delimiter = ',', required = true)]
        names: Vec<FieldId>,
        /// The matter in whose cases it is used.
        #[arg(long)]
        matter: MatterId,
        /// The project of this department it is for.
        #[arg(long)]
        project: Option<ProjectId>,
        /// The statute.
        #[arg(long)]
        citation: String,
        /// What for, in Chinese.
        #[arg(long)]
        purpose_zh: String,
        /// What for, in English.
        #[arg(long)]
        purpose_en: String,
        /// How many calls a day.
        #[arg(long)]
        per_day: u32,
        /// The last day.
        #[arg(long)]
        until: Day,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// As holder, accept, grant or refuse a request.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban share decide restriction-check --asker bureau --grant --config nodes/registry/node.toml
    #[command(group = clap::ArgGroup::new("decision").required(true).args(["accept", "grant", "refuse"]))]
    Decide {
        /// The request.
        id: ApprovalId,
        /// Who asked.
        #[arg(long)]
        asker: DepartmentId,
        /// It is complete; the clock for deciding begins.
        #[arg(long)]
        accept: bool,
        /// Grant it: all of it, or only `--names` and only until `--until`.
        #[arg(long)]
        grant: bool,
        /// Refuse it, for a reason of the closed list.
        #[arg(long, requires = "note")]
        refuse: Option<RefuseReason>,
        /// The citation or explanation of a refusal; everybody can read it.
        #[arg(long)]
        note: Option<String>,
        /// Grant only these.
        #[arg(long, value_delimiter = ',', requires = "grant")]
        names: Vec<FieldId>,
        /// Grant only until this day.
        #[arg(long, requires = "grant")]
        until: Option<Day>,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// As asker, give up a request that is not granted.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban share withdraw restriction-check --holder registry --config nodes/bureau/node.toml
    Withdraw {
        /// The request.
        id: ApprovalId,
        /// Who was asked.
        #[arg(long)]
        holder: DepartmentId,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// As asker, take a refusal, a revocation, or silence past its deadline, to the coordinators.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban share dispute restriction-check --holder registry --note "article 22 obliges us to
    /// look" --config nodes/bureau/node.toml
    Dispute {
        /// The request.
        id: ApprovalId,
        /// Who refused or kept silent.
        #[arg(long)]
        holder: DepartmentId,
        /// Why you insist; everybody can read it.
        #[arg(long)]
        note: String,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// As coordinator, rule on a dispute, or on a request whose holder keeps silent.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban share rule restriction-check --holder registry --asker bureau --grant --note "both were
    /// heard" --config nodes/audit/node.toml
    #[command(group = clap::ArgGroup::new("ruling").required(true).args(["grant", "uphold"]))]
    Rule {
        /// The request.
        id: ApprovalId,
        /// Who holds the resource.
        #[arg(long)]
        holder: DepartmentId,
        /// Who asked.
        #[arg(long)]
        asker: DepartmentId,
        /// The holder has to grant it.
        #[arg(long)]
        grant: bool,
        /// It stays refused.
        #[arg(long)]
        uphold: bool,
        /// Why; everybody can read it.
        #[arg(long)]
        note: String,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// As holder, take back a basis you approved: from the next block on nothing is granted or answered under it.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban share revoke restriction-check --note "the duty has ended" --config
    /// nodes/registry/node.toml --dry-run
    Revoke {
        /// The basis.
        id: ApprovalId,
        /// Why; everybody can read it.
        #[arg(long)]
        note: String,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// List share requests, what is due first standing first.
    ///
    /// Example: tongban share list --open --config nodes/registry/node.toml
    List {
        /// Only what waits for somebody.
        #[arg(long)]
        open: bool,
        /// How.
        #[command(flatten)]
        read: Read,
    },
}

/// `tongban budget …`.
#[derive(Subcommand)]
pub enum BudgetCommand {
    /// As holder, set how much of a resource a department may use. What is left out is without a limit.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban budget set --asker bureau --resource registry.title --per-day 500 --per-person 20
    /// --config nodes/registry/node.toml
    Set {
        /// Whose use.
        #[arg(long)]
        asker: DepartmentId,
        /// Of which resource.
        #[arg(long)]
        resource: ResourceId,
        /// In the cases of one matter; otherwise of all together.
        #[arg(long)]
        matter: Option<MatterId>,
        /// The most calls a day.
        #[arg(long)]
        per_day: Option<u32>,
        /// The most values about one person a day, each field or question being one.
        #[arg(long)]
        per_person: Option<u32>,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// List budgets and what was used today.
    ///
    /// Example: tongban budget list --config nodes/registry/node.toml
    List(Read),
    /// List alerts about unusual use that wait to be explained.
    ///
    /// Example: tongban budget alerts --config nodes/bureau/node.toml
    Alerts(Read),
    /// As the department whose use was unusual, explain it.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban budget explain registry.title --note "the campaign week" --config
    /// nodes/bureau/node.toml
    Explain {
        /// The resource.
        resource: ResourceId,
        /// What happened; everybody can read it.
        #[arg(long)]
        note: String,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// Compare one day of the ledger with this department's own records. Exits 1 where they differ or something was left undone.
    ///
    /// Example: tongban budget reconcile --day 2026-11-25 --config nodes/registry/node.toml
    Reconcile {
        /// The day; yesterday, where none is given.
        #[arg(long)]
        day: Option<Day>,
        /// How.
        #[command(flatten)]
        read: Read,
    },
}

/// `tongban objection …`.
#[derive(Subcommand)]
pub enum ObjectionCommand {
    /// As asker, object to a value a call gave: the holder has to check it.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban objection raise CALL address --wrong outdated --config nodes/bureau/node.toml
    Raise {
        /// The call.
        call: CallId,
        /// The field or predicate.
        name: FieldId,
        /// What is wrong with it.
        #[arg(long)]
        wrong: WrongWord,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// As holder, answer an objection, in a word of a closed list.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban objection answer CALL address --verdict corrected --config nodes/police/node.toml
    Answer {
        /// The call.
        call: CallId,
        /// The field or predicate.
        name: FieldId,
        /// What came of it.
        #[arg(long)]
        verdict: VerdictWord,
        /// How.
        #[command(flatten)]
        write: Write,
    },
    /// List objections, those that wait first.
    ///
    /// Example: tongban objection list --open --config nodes/police/node.toml
    List {
        /// Only those that wait for an answer.
        #[arg(long)]
        open: bool,
        /// How.
        #[command(flatten)]
        read: Read,
    },
}

/// What reading takes.
#[derive(Args)]
pub struct Read {
    /// Only what this department asks for or holds.
    #[arg(long)]
    pub(crate) department: Option<DepartmentId>,
    /// The configuration of this department's node, which must be running.
    #[arg(long)]
    pub(crate) config: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What writing takes.
#[derive(Args)]
pub struct Write {
    /// The configuration of this department's node, which must be running. The passphrase of its keys comes from
    /// TONGBAN_PASSPHRASE.
    #[arg(long)]
    pub(crate) config: PathBuf,
    /// Say what would be signed and submitted, and do not.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum RefuseReason {
    /// The statute cited gives the asker no such duty.
    NoBasis,
    /// More is asked for than the duty needs.
    BeyondNeed,
    /// A law or decision forbids sharing it.
    Forbidden,
    /// Another department is the one to ask.
    NotHeld,
    /// The request leaves open what it is for.
    Unclear,
}

/// What is wrong with a value.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum WrongWord {
    /// It is not true.
    Untrue,
    /// It was true once.
    Outdated,
    /// Something is missing.
    Incomplete,
    /// It is about somebody else.
    AnotherPerson,
}

/// The JSON Schema of a file with rules of sharing.
pub fn rules_schema() -> Value {
    let mut schema = schemars::schema_for!(Sharing).to_value();
    schema["properties"]["format"] = json!({ "const": 1, "description": "The version of this format: 1." });
    schema["required"] = json!(["format"]);
    schema
}

/// What came of an objection.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum VerdictWord {
    /// The data was wrong, and is corrected.
    Corrected,
    /// The data agrees with the papers it rests on.
    Confirmed,
    /// Nothing was shown that speaks against the data.
    Unproven,
    /// Another department keeps the source; the objection belongs there.
    Elsewhere,
}

/// Reads a file with rules of sharing; what it does not say holds as the program has it.
pub(crate) fn read_rules(file: &Path) -> Result<Sharing> {
    let mut table: toml::Table = read_toml(file)?;
    let format = table.remove("format").and_then(|f| f.as_integer());
    ensure!(format == Some(1), "{}: say `format = 1`", file.display());
    table.try_into().with_context(|| format!("reading {}", file.display()))
}

pub(crate) fn read_toml<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    toml::from_str(&text).with_context(|| format!("reading {}", file.display()))
}

/// A text for everybody, refused here before it is signed.
pub(crate) fn public(what: &str, text: &str) -> Result<()> {
    ensure!(
        is_plain(text),
        "{what}: everybody can read it, so it must say something, in at most {NOTE_BYTES_MAX} bytes, without what looks like a \
         telephone or identity number"
    );
    Ok(())
}

impl ShareCommand {
    /// Whether it prints one JSON document.
    pub fn json(&self) -> bool {
        match self {
            Self::List { read, .. } => read.json,
            Self::Request { write, .. }
            | Self::Decide { write, .. }
            | Self::Withdraw { write, .. }
            | Self::Dispute { write, .. }
            | Self::Rule { write, .. }
            | Self::Revoke { write, .. } => write.json,
        }
    }
}

impl BudgetCommand {
    /// Whether it prints one JSON document.
    pub fn json(&self) -> bool {
        match self {
            Self::List(read) | Self::Alerts(read) | Self::Reconcile { read, .. } => read.json,
            Self::Set { write, .. } | Self::Explain { write, .. } => write.json,
        }
    }
}

impl ObjectionCommand {
    /// Whether it prints one JSON document.
    pub fn json(&self) -> bool {
        match self {
            Self::List { read, .. } => read.json,
            Self::Raise { write, .. } | Self::Answer { write, .. } => write.json,
        }
    }
}

/// Signs and submits commands of this department one after the other, each with what it does in words.
pub(crate) async fn submit(write: &Write, bodies: Vec<(Body, String)>) -> Result<()> {
    let mut done = Vec::new();
    if write.dry_run {
        for (_, words) in &bodies {
            done.push(json!({ "would": words }));
        }
    } else {
        let own = Own::open(&write.config)?;
        for (body, words) in bodies {
            let command = own.submit(body).await.with_context(|| words.clone())?;
            done.push(json!({ "command": command, "done": words }));
        }
    }
    if write.json {
        say!("{}", json!({ "dry_run": write.dry_run, "commands": done }));
    } else {
        let text = |d: &Value| d["would"].as_str().or(d["done"].as_str()).unwrap_or_default().to_owned();
        done.iter().for_each(|d| say!("{}{}", if write.dry_run { "would: " } else { "" }, text(d)));
    }
    Ok(())
}

/// Reads a list from the node, and prints it: as it is, or a line each.
pub(crate) async fn list(
    path: &str,
    key: &str,
    open: bool,
    read: &Read,
    line: fn(&Value) -> String,
) -> Result<()> {
    let department = read.department.as_ref().map(|d| format!("&department={d}")).unwrap_or_default();
    let found: Vec<Value> =
        client(&Config::read(&read.config)?).get(&format!("{path}?open={open}{department}")).await?;
    if read.json {
        say!("{}", json!({ key: found }));
    } else if found.is_empty() {
        say!("none");
    } else {
        found.iter().for_each(|entry| say!("{}", line(entry)));
    }
    Ok(())
}

pub(crate) fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// When something is due, for people.
fn due(value: &Value) -> String {
    match (value["due_ms"].as_u64().unwrap_or(0), value["overdue"] == true) {
        (0, _) => String::new(),
        (ms, false) => format!("due {}", Day::of(ms)),
        (ms, true) => format!("OVERDUE since {}", Day::of(ms)),
    }
}

/// Runs `tongban share …`.
pub async fn share(command: ShareCommand) -> Result<()> {
    match command {
        ShareCommand::Request {
            id,
            holder,
            resource,
            names,
            matter,
            project,
            citation,
            purpose_zh,
            purpose_en,
            per_day,
            until,
            write,
        } => {
            let purpose = Text { zh: purpose_zh, en: purpose_en };
            for (what, text) in
                [("--citation", &citation), ("--purpose-zh", &purpose.zh), ("--purpose-en", &purpose.en)]
            {
                public(what, text)?;
            }
            let words = format!("ask {holder} for {resource} in {matter} as `{id}`");
            let until_ms = until.ends_ms();
            let request = RequestShare {
                id,
                holder,
                resource,
                names,
                matter,
                project,
                citation,
                purpose,
                per_day,
                until_ms,
            };
            submit(&write, vec![(Body::RequestShare(request), words)]).await
        }
        ShareCommand::Decide { id, asker, accept, grant, refuse, note, names, until, write } => {
            let (body, words) = if grant {
                let approval = granted(&write, &id, &asker, names, until).await?;
                let words = format!(
                    "grant `{id}` to {asker}: {} of {} in {} until {}",
                    join(&approval.names),
                    approval.resource,
                    approval.matter,
                    Day::of(approval.expires_ms)
                );
                (Body::ApproveBasis(approval), words)
            } else {
                let (reply, words) = match (accept, refuse) {
                    (true, _) => (ShareReply::Accept, format!("accept `{id}` of {asker}")),
                    (false, Some(reason)) => {
                        let note = note.unwrap_or_default();
                        public("--note", &note)?;
                        let reason = match reason {
                            RefuseReason::NoBasis => ShareRefusal::NoBasis,
                            RefuseReason::BeyondNeed => ShareRefusal::BeyondNeed,
                            RefuseReason::Forbidden => ShareRefusal::Forbidden,
                            RefuseReason::NotHeld => ShareRefusal::NotHeld,
                            RefuseReason::Unclear => ShareRefusal::Unclear,
                        };
                        let words = format!("refuse `{id}` of {asker}: {}", reason.as_str());
                        (ShareReply::Refuse { reason, note }, words)
                    }
                    (false, None) => bail!("say --accept, --grant or --refuse"),
                };
                (Body::ReplyShare(ReplyShare { asker, id, reply }), words)
            };
            submit(&write, vec![(body, words)]).await
        }
        ShareCommand::Withdraw { id, holder, write } => {
            let words = format!("withdraw the request `{id}` to {holder}");
            submit(&write, vec![(Body::WithdrawShare(WithdrawShare { holder, id }), words)]).await
        }
        ShareCommand::Dispute { id, holder, note, write } => {
            public("--note", &note)?;
            let words = format!("take `{id}` of {holder} to the coordinators");
            submit(&write, vec![(Body::DisputeShare(DisputeShare { holder, id, note }), words)]).await
        }
        ShareCommand::Rule { id, holder, asker, grant, uphold: _, note, write } => {
            public("--note", &note)?;
            let words = match grant {
                true => format!("rule that {holder} has to grant `{id}` to {asker}"),
                false => format!("rule that `{id}` of {asker} stays refused by {holder}"),
            };
            let share = ShareRef { holder, asker, id };
            submit(&write, vec![(Body::RuleShare(RuleShare { share, grant, note }), words)]).await
        }
        ShareCommand::Revoke { id, note, write } => {
            public("--note", &note)?;
            let words = format!("take back the basis `{id}`: nothing more is granted or answered under it");
            submit(&write, vec![(Body::RevokeBasis(RevokeBasis { id, note }), words)]).await
        }
        ShareCommand::List { open, read } => {
            list("/api/v1/shares", "shares", open, &read, |s| {
                format!(
                    "{:<24} {:<10} <- {:<10} {:<28} {:<10} {} {}",
                    word(s, "id"),
                    word(s, "asker"),
                    word(s, "holder"),
                    word(s, "resource"),
                    word(s, "state"),
                    due(s),
                    word(s, "note")
                )
            })
            .await
        }
    }
}

fn join(names: &[FieldId]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What grants a request: all of it, or less.
async fn granted(
    write: &Write,
    id: &ApprovalId,
    asker: &DepartmentId,
    names: Vec<FieldId>,
    until: Option<Day>,
) -> Result<ApproveBasis> {
    let config = Config::read(&write.config)?;
    let path = format!("/api/v1/shares/{}/{asker}/{id}", config.department);
    let share: Value = client(&config).get(&path).await.with_context(|| {
        format!("{asker} asked this department for no `{id}`; `tongban share list` says what it did ask for")
    })?;
    let until_ms = share["until_ms"].as_u64().context("the node says until when it is asked for")?;
    let asked: Vec<FieldId> = serde_json::from_value(share["names"].clone())?;
    if let Some(other) = names.iter().find(|n| !asked.contains(n)) {
        bail!("--names: {other} was not asked for; asked for are {}", join(&asked));
    }
    Ok(ApproveBasis {
        id: id.clone(),
        asker: asker.clone(),
        matter: word(&share, "matter").parse()?,
        resource: word(&share, "resource").parse()?,
        names: if names.is_empty() { asked } else { names },
        citation: word(&share, "citation").to_owned(),
        expires_ms: until.map_or(until_ms, |day| day.ends_ms().min(until_ms)),
    })
}

/// Runs `tongban budget …`. Says no where a day does not reconcile.
pub async fn budget(command: BudgetCommand) -> Result<Option<String>> {
    match command {
        BudgetCommand::Set { asker, resource, matter, per_day, per_person, write } => {
            let of = matter.as_ref().map_or("all matters".to_owned(), ToString::to_string);
            let limit = |n: Option<u32>| n.map_or("no limit".to_owned(), |n| n.to_string());
            let words = format!(
                "let {asker} use {resource} in {of}: calls a day {}, values about a person a day {}",
                limit(per_day),
                limit(per_person)
            );
            let budget = Budget { per_day, per_person };
            let body = Body::SetBudget(SetBudget { asker, resource, matter, budget });
            submit(&write, vec![(body, words)]).await?;
            Ok(None)
        }
        BudgetCommand::List(read) => {
            list("/api/v1/budgets", "budgets", false, &read, |b| {
                let limit = |key: &str| b[key].as_u64().map_or("no limit".to_owned(), |n| n.to_string());
                format!(
                    "{:<10} {:<28} {:<16} {:<20} {} of {} today, {} values a person",
                    word(b, "asker"),
                    word(b, "resource"),
                    b["matter"].as_str().unwrap_or("all matters"),
                    b["basis"].as_str().unwrap_or("set by the holder"),
                    b["today"],
                    limit("per_day"),
                    limit("per_person")
                )
            })
            .await?;
            Ok(None)
        }
        BudgetCommand::Alerts(read) => {
            list("/api/v1/alerts", "alerts", true, &read, |a| {
                format!(
                    "{:<10} {:<28} {:<12} {} {}",
                    word(a, "asker"),
                    word(a, "resource"),
                    word(a, "unusual"),
                    word(a, "day"),
                    due(a)
                )
            })
            .await?;
            Ok(None)
        }
        BudgetCommand::Explain { resource, note, write } => {
            public("--note", &note)?;
            let config = Config::read(&write.config)?;
            let path = format!("/api/v1/alerts/{resource}/{}", config.department);
            let alert: Value = client(&config).get(&path).await.with_context(|| {
                format!(
                    "no alert about this department's use of {resource} waits; see `tongban budget alerts`"
                )
            })?;
            let day: Day = word(&alert, "day").parse()?;
            let words = format!("explain the unusual use of {resource} on {day}");
            let body = Body::ExplainAlert(ExplainAlert { resource, day, note });
            submit(&write, vec![(body, words)]).await?;
            Ok(None)
        }
        BudgetCommand::Reconcile { day, read } => reconcile(day, &read).await,
    }
}

async fn reconcile(day: Option<Day>, read: &Read) -> Result<Option<String>> {
    let path = day.map_or("/api/v1/reconciliation".to_owned(), |d| format!("/api/v1/reconciliation?day={d}"));
    let report: Value = client(&Config::read(&read.config)?).get(&path).await?;
    let empty = vec![];
    let lines = |key: &str| report[key].as_array().unwrap_or(&empty).clone();
    let differences = lines("differences");
    if read.json {
        say!("{report}");
    } else {
        say!("{} on {}", word(&report, "department"), word(&report, "day"));
        for (key, title) in [("as_holder", "asked of it"), ("as_asker", "asked by it")] {
            say!("{title}:");
            for l in lines(key) {
                say!(
                    "  {:<10} <- {:<10} {:<28} {:<16} granted {} in {} cases, answered {}, declined {}, opened {}, disputed {}, \
                     lapsed {}",
                    word(&l, "asker"),
                    word(&l, "holder"),
                    word(&l, "resource"),
                    word(&l, "matter"),
                    l["granted"],
                    l["cases"],
                    l["answered"],
                    l["declined"],
                    l["opened"],
                    l["disputed"],
                    l["lapsed"]
                );
            }
        }
        for l in lines("refused") {
            say!("refused: {:<10} {:<20} {}", word(&l, "asker"), word(&l, "code"), l["count"]);
        }
        for d in &differences {
            say!("DIFFERENCE {}: {} call(s)", word(d, "code"), d["count"]);
        }
    }
    Ok((!differences.is_empty()).then(|| {
        let codes: Vec<_> = differences.iter().map(|d| word(d, "code")).collect();
        format!(
            "the day does not reconcile: {}; docs/sharing.md says what to do about each",
            codes.join(", ")
        )
    }))
}

/// Runs `tongban objection …`.
pub async fn objection(command: ObjectionCommand) -> Result<()> {
    match command {
        ObjectionCommand::Raise { call, name, wrong, write } => {
            let wrong = match wrong {
                WrongWord::Untrue => Wrong::Untrue,
                WrongWord::Outdated => Wrong::Outdated,
                WrongWord::Incomplete => Wrong::Incomplete,
                WrongWord::AnotherPerson => Wrong::AnotherPerson,
            };
            let words = format!("object to {name} of call {}: {}", call.short(), wrong.as_str());
            submit(&write, vec![(Body::Object(Object { call, name, wrong }), words)]).await
        }
        ObjectionCommand::Answer { call, name, verdict, write } => {
            let verdict = match verdict {
                VerdictWord::Corrected => Verdict::Corrected,
                VerdictWord::Confirmed => Verdict::Confirmed,
                VerdictWord::Unproven => Verdict::Unproven,
                VerdictWord::Elsewhere => Verdict::Elsewhere,
            };
            let words =
                format!("answer the objection to {name} of call {}: {}", call.short(), verdict.as_str());
            submit(&write, vec![(Body::AnswerObjection(AnswerObjection { call, name, verdict }), words)])
                .await
        }
        ObjectionCommand::List { open, read } => {
            list("/api/v1/objections", "objections", open, &read, |o| {
                format!(
                    "{} {:<16} {:<10} <- {:<10} {:<14} {:<10} {}",
                    word(o, "call"),
                    word(o, "name"),
                    word(o, "asker"),
                    word(o, "holder"),
                    word(o, "wrong"),
                    word(o, "state"),
                    if word(o, "state") == "open" { due(o) } else { String::new() },
                )
            })
            .await
        }
    }
}
