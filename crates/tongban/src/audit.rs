//! `tongban verify`, `statement` and `audit`: what is proved, what a holder states, and whether it is true.

use crate::{archive::client, say, setup};
use anyhow::{Context as _, Result, bail, ensure};
use chain::Archive;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use ledger::Rules;
use model::{DepartmentId, Suite};
use node::Config;
use proof::{
    Checkpoint, Facts, Link, Rejected,
    audit::{Audit, Finding, Openings, openings_context},
};
use serde_json::json;
use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

/// `tongban audit …`.
#[derive(Subcommand)]
pub enum AuditCommand {
    /// At the holder: write the openings of all its answers, sealed to the auditor's department, which alone can read them.
    ///
    /// Example: tongban audit openings --config nodes/police/node.toml --auditor audit --out police.openings
    Openings {
        /// The holder's configuration.
        #[arg(long)]
        config: PathBuf,
        /// The auditor's department.
        #[arg(long)]
        auditor: DepartmentId,
        /// The file to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// At the auditor: check that a holder opened every answer, and that its statements leave out none. Exits 1 where the holder is
    /// convicted of something.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban audit check police.openings --holder police --archive audit.archive
    /// --config nodes/audit/node.toml --statement statement.json
    Check {
        /// The openings.
        openings: PathBuf,
        /// Whose they are.
        #[arg(long)]
        holder: DepartmentId,
        /// An archive of the ledger, from any department, not older than the statements.
        #[arg(long)]
        archive: PathBuf,
        /// The auditor's configuration: genesis and keys.
        #[arg(long)]
        config: PathBuf,
        /// Statements of the holder.
        #[arg(long)]
        statement: Vec<PathBuf>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

impl AuditCommand {
    /// Whether it prints one JSON document.
    pub fn json(&self) -> bool {
        matches!(self, Self::Check { json: true, .. })
    }
}

/// The identifier in a file: on a command line it would be seen by others.
fn person(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// What a receipt or statement is verified against.
#[derive(Args)]
pub struct Against {
    /// The consortium's genesis.
    #[arg(long)]
    genesis: PathBuf,
    /// A file with the identifier of the person a statement is about.
    #[arg(long)]
    person: Option<PathBuf>,
    /// A checkpoint from a source of your own: what the file proves must come before it. It refutes a past that was forged with
    /// retired vote keys.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// The link from the file to the checkpoint, from any department (`tongban ledger link`).
    #[arg(long, requires = "checkpoint")]
    link: Option<PathBuf>,
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is no {what}", path.display()))
}

/// Verifies a receipt or a statement, and says why it is not valid where it is not.
pub fn verify(file: &Path, against: &Against, json: bool) -> Result<Option<String>> {
    let Against { genesis, person: about, checkpoint, link } = against;
    let checkpoint =
        checkpoint.as_deref().map(|path| read_json::<Checkpoint>(path, "checkpoint")).transpose()?;
    let link = link.as_deref().map(|path| read_json::<Link>(path, "link")).transpose()?;
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let genesis = node::read_genesis(genesis)?;
    let about = about.as_deref().map(person).transpose()?;
    let verified = if proof::is_statement(&bytes) {
        proof::verify_statement(&bytes, &genesis).and_then(|(statement, facts)| {
            let fits = about.as_ref().is_none_or(|person| statement.is_about(genesis.suite, person));
            if fits { Ok(facts) } else { Err(Rejected("the statement is about another person".into())) }
        })
    } else if proof::is_publication(&bytes) {
        ensure!(about.is_none(), "a publication is about nobody: leave --person out");
        proof::verify_publication(&bytes, &genesis).map(|(_, facts)| facts)
    } else {
        ensure!(about.is_none(), "only a statement is about a person: leave --person out for a receipt");
        proof::verify(&bytes, &genesis)
    };
    let verified = verified.and_then(|facts| match &checkpoint {
        Some(checkpoint) => proof::verify_at(&bytes, &genesis, checkpoint, link.as_ref()),
        None => Ok(facts),
    });
    match verified {
        Ok(facts) => {
            if json {
                say!("{}", json!({ "valid": true, "reason": "", "facts": facts }));
            } else {
                say_facts(&facts)?;
            }
            Ok(None)
        }
        Err(rejected) => {
            if json {
                say!("{}", json!({ "valid": false, "reason": rejected.0, "facts": null }));
            }
            Ok(Some(format!("{} is not valid: {rejected}", file.display())))
        }
    }
}

fn say_facts(facts: &Facts) -> Result<()> {
    say!("valid");
    for (name, value) in serde_json::to_value(facts)?.as_object().into_iter().flatten() {
        let lines: Vec<String> = match value {
            _ if name == "time" => vec![format!("{} (UTC+8)", flow::local_minute(facts.time))],
            serde_json::Value::String(text) => vec![text.clone()],
            serde_json::Value::Array(items) => {
                items.iter().filter_map(|i| Some(i.as_str()?.to_owned())).collect()
            }
            other => vec![other.to_string()],
        };
        for (i, line) in lines.iter().filter(|line| !line.is_empty()).enumerate() {
            say!("  {:<10} {line}", if i == 0 { name } else { "" });
        }
    }
    Ok(())
}

/// `tongban ledger checkpoint`: the newest checkpoint, for publication elsewhere.
pub async fn checkpoint(config: &Path, out: &Path, json: bool) -> Result<()> {
    let checkpoint: Checkpoint = client(&Config::read(config)?).get("/api/v1/checkpoint").await?;
    std::fs::write(out, serde_json::to_vec(&checkpoint)?)
        .with_context(|| format!("writing {}", out.display()))?;
    if json {
        say!("{}", json!({ "file": out, "hash": checkpoint.hash }));
    } else {
        say!("{} holds the checkpoint; print its hash where nobody can change it:", out.display());
        say!("{}", checkpoint.hash);
    }
    Ok(())
}

/// `tongban ledger link`: shows that what a receipt or statement proves comes before a checkpoint.
pub async fn link(file: &Path, checkpoint: &Path, config: &Path, out: &Path, json: bool) -> Result<()> {
    let config = Config::read(config)?;
    let genesis = node::read_genesis(&config.genesis)?;
    let pin = read_json::<Checkpoint>(checkpoint, "checkpoint")?.check(&genesis)?;
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let heights: Vec<u64> = proof::headers_of(&bytes)?.iter().map(|h| h.height).collect();
    if let Some(newer) = heights.iter().find(|height| **height > pin.height) {
        bail!(
            "the checkpoint is of height {}, and {} proves something at {newer}",
            pin.height,
            file.display()
        );
    }
    let body = json!({ "heights": heights, "checkpoint": pin.height });
    let link = client(&config).post_for_bytes("/api/v1/links", body).await?;
    std::fs::write(out, &link).with_context(|| format!("writing {}", out.display()))?;
    if json {
        say!("{}", json!({ "file": out, "heights": heights }));
    } else {
        say!("{} links {} to the checkpoint at height {}", out.display(), file.display(), pin.height);
    }
    Ok(())
}

/// Has a running node state what its department answered about a person.
pub async fn statement(config: &Path, about: &Path, out: &Path, json: bool) -> Result<()> {
    let config = Config::read(config)?;
    let bytes =
        client(&config).post_for_bytes("/api/v1/statements", json!({ "person": person(about)? })).await?;
    std::fs::write(out, &bytes).with_context(|| format!("writing {}", out.display()))?;
    let genesis = node::read_genesis(&config.genesis)?;
    let (_, facts) = proof::verify_statement(&bytes, &genesis)?;
    if json {
        say!("{}", json!({ "file": out, "facts": facts }));
    } else {
        say!("{}: {} states {} about this person", out.display(), facts.holder, facts.status);
        say!("Check it: tongban verify {} --genesis {}", out.display(), config.genesis.display());
    }
    Ok(())
}

/// Runs `tongban audit …`. Says what the holder is convicted of, where it is.
pub async fn audit(command: AuditCommand) -> Result<Option<String>> {
    match command {
        AuditCommand::Openings { config, auditor, out } => {
            let config = Config::read(&config)?;
            let sealed = client(&config).get_bytes(&format!("/api/v1/openings?auditor={auditor}")).await?;
            std::fs::write(&out, &sealed).with_context(|| format!("writing {}", out.display()))?;
            say!(
                "{} holds the openings of all answers of {}, for {auditor} only",
                out.display(),
                config.department
            );
            Ok(None)
        }
        AuditCommand::Check { openings, holder, archive, config, statement, json } => {
            let check = move || check(&openings, &holder, &archive, &config, &statement, json);
            tokio::task::spawn_blocking(check).await?
        }
    }
}

fn check(
    openings: &Path,
    holder: &DepartmentId,
    archive: &Path,
    config: &Path,
    statements: &[PathBuf],
    json: bool,
) -> Result<Option<String>> {
    let config = Config::read(config)?;
    let genesis = node::read_genesis(&config.genesis)?;
    let suite: Suite = genesis.suite;
    let keys = crypto::load_keys(&config.keys, &setup::passphrase()?)?;
    let sealed = std::fs::read(openings).with_context(|| format!("reading {}", openings.display()))?;
    let context = openings_context(&crypto::chain_id(&genesis), holder, &config.department);
    let opened = crypto::open(&keys.seal, &context, &sealed)
        .ok()
        .and_then(|plain| model::decode::<Openings>(&plain).ok());
    let opened = opened.with_context(|| {
        format!(
            "{} does not open: it is not of {holder}, or not for {}",
            openings.display(),
            config.department
        )
    })?;
    let input = File::open(archive).with_context(|| format!("opening {}", archive.display()))?;
    let style = ProgressStyle::with_template("{pos} blocks {per_sec}").expect("a template");
    let bar = ProgressBar::new_spinner().with_style(style);
    let mut audit = Audit::of(suite, holder.clone());
    let checked = Archive::open(BufReader::new(input), Rules::of(genesis.clone()))?.follow(|block| {
        block.events.iter().for_each(|event| audit.follow(event));
        bar.set_position(block.height);
    })?;
    bar.finish_and_clear();
    let mut findings = audit.check_openings(&opened);
    for path in statements {
        let file = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let verified = proof::verify_statement(&file, &genesis);
        let (statement, facts) =
            verified.with_context(|| format!("{} is no valid statement", path.display()))?;
        ensure!(
            &statement.stated.holder == holder,
            "{} is a statement of {}",
            path.display(),
            statement.stated.holder
        );
        ensure!(
            statement.stated.height <= checked.height,
            "the archive ends before {} was made: export it again",
            path.display()
        );
        findings.extend(audit.check_statement(&statement, facts.time, &opened));
    }
    if json {
        let document = json!({
            "holder": holder, "height": checked.height, "answers": audit.answers(), "statements": statements.len(),
            "grounds": opened.grounds.iter().map(|g| &g.value).collect::<Vec<_>>(), "findings": findings,
        });
        say!("{document}");
    } else {
        say!(
            "{holder} gave {} answers up to height {}; {} statement(s) looked at",
            audit.answers(),
            checked.height,
            statements.len()
        );
        findings.iter().for_each(|finding| say!("  {}", told(finding)));
    }
    let n = findings.len();
    Ok((n > 0).then(|| format!("{holder} is convicted of {n} thing(s) by what it signed")))
}

fn told(finding: &Finding) -> String {
    match finding {
        Finding::Unopened { number, .. } => {
            format!("answer {number} is not opened: it hides whom it was about")
        }
        Finding::FalseOpening { number, .. } => format!("answer {number} is opened falsely"),
        Finding::LeftOut { numbers, withheld, .. } => {
            format!("a statement leaves out answers {numbers:?} and counts {withheld} as withheld")
        }
        Finding::Invented { number, .. } => {
            format!("a statement lists answer {number}, which is not as it says")
        }
        Finding::Miscounted { up_to, given, .. } => {
            format!("a statement speaks of {up_to} answers where there were {given}")
        }
        Finding::Ungrounded { .. } => {
            "a statement withholds answers on a ground that was not shown or had expired".into()
        }
    }
}
