//! From a plan to a published version: build, gate, files, decision, and only then the place where the portal looks.

use super::{
    Deciding, Refused,
    data::{self, sha256_of},
    gate::{self, Report},
    plan::{Entry, Plan},
};
use crate::{config::Config, lake::Lake, table::now_ms};
use anyhow::{Context as _, Result, bail};
use proof::{Decided, PublishedFile, Verdict};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The folder of publications.
pub fn folder(config: &Config) -> PathBuf {
    config.work.join("open")
}

/// The newest version of a publication, from 1; 0 where there is none.
pub fn newest(config: &Config, id: &str) -> u32 {
    let entries = std::fs::read_dir(folder(config).join(id)).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|e| e.file_name().to_string_lossy().strip_prefix('v')?.parse().ok());
    numbers.max().unwrap_or(0)
}

/// Reads a version's entry.
pub fn entry(folder: &Path) -> Result<Entry> {
    let path = folder.join("entry.json");
    let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))
}

fn digest(hex_text: &str) -> Result<model::Digest> {
    let bytes: [u8; 32] = hex::decode(hex_text)?.try_into().ok().context("a hash")?;
    Ok(model::Digest(bytes))
}

/// Publishes by a plan.
pub(super) async fn publish(
    path: &Path,
    dry_run: bool,
    by: &Deciding,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<()> {
    let lake = Lake::open(Config::read(&by.config)?)?;
    let plan = Plan::read(path)?;
    let rows = data::build(&lake, &plan, path.parent().unwrap_or(Path::new("."))).await?;
    if rows.iter().all(|b| b.num_rows() == 0) {
        bail!("there are no rows to publish");
    }
    let home = folder(&lake.config).join(plan.id.as_str());
    let last = newest(&lake.config, plan.id.as_str());
    let version = last + 1;
    let earlier = match last {
        0 => None,
        _ => Some(home.join(format!("v{last}"))),
    };
    let before = earlier.as_deref().map(|folder| data::read(folder, data::ROWS_MAX)).transpose()?;
    let report = gate::gate(&plan, version, &rows, before.as_deref());
    if !report.passes || dry_run {
        tell(&report, by.json, say);
        if !report.passes {
            return Err(Refused(format!("{} is not published: the gate found people in it", plan.id)).into());
        }
        return Ok(());
    }
    std::fs::create_dir_all(&home)?;
    let staged = tempfile::Builder::new().prefix(".next-").tempdir_in(&home)?;
    let files = data::write(staged.path(), &plan, &rows)?;
    let issued_ms = match &earlier {
        Some(folder) => entry(folder)?.issued_ms,
        None => now_ms() as u64,
    };
    let (total, complete) = (report.rows, data::complete(&rows));
    let entry = Entry {
        plan,
        version,
        issued_ms,
        modified_ms: now_ms() as u64,
        rows: total,
        complete,
        files,
        withdrawn: None,
    };
    std::fs::write(staged.path().join("entry.json"), serde_json::to_vec_pretty(&entry)?)?;
    std::fs::write(staged.path().join("gate.json"), serde_json::to_vec_pretty(&report)?)?;
    let mut decided = Vec::new();
    for name in entry.files.iter().map(|f| f.name.as_str()).chain(["entry.json", "gate.json"]) {
        let sha256 = digest(&sha256_of(&staged.path().join(name))?)?;
        decided.push(PublishedFile { name: name.into(), sha256 });
    }
    let accepted: Vec<String> = report
        .findings
        .iter()
        .filter_map(|f| f.accepted.as_ref().map(|why| format!("{}: {why}", f.code)))
        .collect();
    let height = decide(
        &lake,
        by,
        &entry,
        Verdict::Publish,
        decided,
        &accepted.join("; "),
        &staged.path().join("publication.json"),
    )
    .await?;
    let place = home.join(format!("v{version}"));
    let staged = staged.keep();
    #[cfg(unix)]
    std::fs::set_permissions(&staged, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::fs::rename(&staged, &place).with_context(|| place.display().to_string())?;
    // a newer version takes the place of a withdrawal
    let _ = std::fs::remove_file(home.join("withdrawn.json"));
    if by.json {
        let bytes: u64 = entry.files.iter().map(|f| f.bytes).sum();
        let document = json!({ "id": entry.id(), "version": version, "rows": total, "bytes": bytes, "height": height, "report": report, "folder": place });
        say(&document.to_string());
    } else {
        say(&format!("{} v{version}: {total} rows published under {}", entry.id(), place.display()));
        if let Some(height) = height {
            say(&format!("the decision stands on the ledger at height {height}"));
        }
    }
    Ok(())
}

/// Takes a publication back.
pub(super) async fn withdraw(
    id: &str,
    note: &str,
    by: &Deciding,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<()> {
    let lake = Lake::open(Config::read(&by.config)?)?;
    let last = newest(&lake.config, id);
    if last == 0 {
        bail!("there is no publication `{id}`");
    }
    let home = folder(&lake.config).join(id);
    let entry = entry(&home.join(format!("v{last}")))?;
    let height =
        decide(&lake, by, &entry, Verdict::Withdraw, vec![], note, &home.join("withdrawal.json")).await?;
    let note = json!({ "version": last, "note": note, "at_ms": now_ms() });
    std::fs::write(home.join("withdrawn.json"), note.to_string())?;
    say(&if by.json {
        json!({ "id": id, "version": last, "height": height }).to_string()
    } else {
        format!("{id}: taken back")
    });
    Ok(())
}

/// Has a decision recorded by the department's node, and keeps the proof. Its height.
async fn decide(
    lake: &Lake,
    by: &Deciding,
    entry: &Entry,
    verdict: Verdict,
    files: Vec<PublishedFile>,
    note: &str,
    keep: &Path,
) -> Result<Option<u64>> {
    let decided = Decided {
        department: entry.plan.department.clone(),
        officer: entry.plan.officer.clone(),
        dataset: entry.plan.id.clone(),
        version: entry.version,
        verdict,
        licence: entry.plan.licence.id.clone(),
        files,
        note: note.to_owned(),
    };
    decided.check().map_err(anyhow::Error::msg)?;
    let Some(node) = &by.node else {
        if lake.config.genesis.is_some() {
            bail!(
                "this platform publishes only what the ledger recorded: name the department's node with --node"
            );
        }
        return Ok(None);
    };
    let token = match &by.node_token_file {
        Some(file) => std::fs::read_to_string(file).with_context(|| file.display().to_string())?,
        None => String::new(),
    };
    // a token goes to the address it is for, and not on to another
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let request = client.post(format!("{}/api/v1/publications", node.trim_end_matches('/')));
    let response = request.bearer_auth(token.trim()).json(&decided).send().await;
    let response = response.with_context(|| format!("the node at {node} cannot be reached; does it run?"))?;
    let status = response.status();
    let file = response.bytes().await?;
    if !status.is_success() {
        let problem: Value = serde_json::from_slice(&file).unwrap_or_default();
        bail!(
            "the node did not record the decision: {}",
            problem["detail"].as_str().unwrap_or(status.as_str())
        );
    }
    let mut height = None;
    if let Some(genesis) = &lake.config.genesis {
        let genesis = serde_json::from_slice(&std::fs::read(genesis)?).context("the genesis file")?;
        let (publication, facts) =
            proof::verify_publication(&file, &genesis).map_err(|e| anyhow::anyhow!(e.0))?;
        if publication.decided != decided {
            bail!("the node recorded another decision");
        }
        height = Some(facts.height);
    }
    std::fs::write(keep, &file)?;
    Ok(height)
}

fn tell(report: &Report, json: bool, say: &mut (dyn FnMut(&str) + Send)) {
    if json {
        say(&json!({ "report": report }).to_string());
        return;
    }
    say(&format!("{} v{}: {} rows looked at", report.dataset, report.version, report.rows));
    if let Some(k) = report.k {
        say(&format!("  every combination of quasi-identifiers is shared by {k} rows or more"));
    }
    for finding in &report.findings {
        let state =
            finding.accepted.as_deref().map_or("not accepted".to_owned(), |why| format!("accepted: {why}"));
        say(&format!(
            "  {} in {}: {} rows; {} ({state})",
            finding.code, finding.column, finding.rows, finding.message
        ));
    }
    say(if report.passes { "  the gate lets it pass" } else { "  the gate does not let it pass" });
}
