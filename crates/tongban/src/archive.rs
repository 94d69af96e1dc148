//! `tongban ledger`: an archive of every block, checked and applied again without any node.

use crate::{client::Client, say};
use anyhow::{Context as _, Result};
use chain::{Archive, ArchiveError, Checked};
use indicatif::{ProgressBar, ProgressStyle};
use ledger::Rules;
use serde_json::{Value, json};
use std::{
    fs::{File, OpenOptions},
    io::{BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Take, Write as _},
    path::Path,
    sync::Arc,
};

/// How far an archive was found in order, and what is wrong.
pub struct Outcome {
    /// The JSON document.
    pub document: Value,
    /// What is wrong; none where everything is in order.
    pub problem: Option<String>,
}

fn bar(length: u64, what: &'static str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {per_sec} {eta}").expect("a template");
    ProgressBar::new(length).with_style(style).with_message(what)
}

fn outcome(checked: Result<Checked, ArchiveError>) -> Result<Outcome> {
    let problem = match checked {
        Ok(c) => {
            let document = json!({
                "height": c.height,
                "state_root": c.state_root,
                "commands": c.commands,
                "command_bytes": c.command_bytes,
                "problems": [],
            });
            return Ok(Outcome { document, problem: None });
        }
        Err(ArchiveError::Io(e)) => return Err(e).context("reading the archive"),
        Err(e) => e.to_string(),
    };
    let document = json!({ "height": null, "state_root": null, "problems": [problem] });
    Ok(Outcome { document, problem: Some(problem) })
}

/// Opens an archive, of which only the first so many bytes count.
fn open(file: &Path, genesis: &Path, bytes: u64) -> Result<Archive<BufReader<Take<File>>>> {
    let rules = Rules::of(node::read_genesis(genesis)?);
    let input = File::open(file).with_context(|| format!("opening {}", file.display()))?;
    Ok(Archive::open(BufReader::new(input.take(bytes)), rules)?)
}

/// Checks every byte of an archive, up to so many.
pub fn fsck(file: &Path, genesis: &Path, bytes: u64) -> Result<Outcome> {
    let archive = match open(file, genesis, bytes) {
        Ok(archive) => archive,
        Err(e) => match e.downcast::<ArchiveError>() {
            Ok(e) => return outcome(Err(e)),
            Err(e) => return Err(e),
        },
    };
    let bar = bar(0, "blocks checked");
    let checked = archive.check(|height| bar.set_position(height));
    bar.finish_and_clear();
    outcome(checked)
}

/// Checks an archive and applies every command again, in a temporary folder; where a policy is given, it is tried on every call.
pub fn replay(file: &Path, genesis: &Path, trial: Option<Arc<ledger::Trial>>) -> Result<Outcome> {
    let archive = open(file, genesis, u64::MAX)?;
    let archive = match trial {
        Some(trial) => archive.trying(trial),
        None => archive,
    };
    let scratch = tempfile::tempdir().context("a temporary folder for the state")?;
    let bar = bar(0, "blocks applied");
    let shown = bar.clone();
    let checked = archive.replay(scratch.path().to_owned(), move |height| shown.set_position(height));
    bar.finish_and_clear();
    outcome(checked)
}

/// Where the next block goes in an archive that may exist: its height, and the offset after the last whole record.
fn resume(file: &mut File) -> Result<(u64, u64)> {
    let length = file.metadata()?.len();
    let begin = chain::MAGIC.len() as u64 + 32;
    let (mut height, mut offset) = (1, begin);
    while offset + 4 <= length {
        let mut end = offset;
        for _ in 0..2 {
            let mut size = [0; 4];
            file.seek(SeekFrom::Start(end))?;
            if file.read_exact(&mut size).is_err() {
                return Ok((height, offset));
            }
            end += 4 + u64::from(u32::from_le_bytes(size));
        }
        if end > length {
            break;
        }
        (height, offset) = (height + 1, end);
    }
    Ok((height, offset))
}

/// What an export came to.
pub struct Exported {
    /// The newest height the archive holds.
    pub height: u64,
    /// How many blocks are new in it.
    pub new_blocks: u64,
    /// How long it is.
    pub bytes: u64,
}

/// A client of the node of a configuration.
pub fn client(config: &node::Config) -> Client {
    Client::new(config.http, config.api_token.as_deref().unwrap_or_default())
}

/// Writes every final block of a running node to an archive; an archive that exists is gone on with.
pub async fn export(config: &node::Config, out: &Path) -> Result<Exported> {
    let client = client(config);
    let chain_id = chain_of(config)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(out)
        .with_context(|| format!("opening {}", out.display()))?;
    let head = [chain::MAGIC.as_slice(), &chain_id.0].concat();
    let (first, offset) = if file.metadata()?.len() == 0 {
        file.write_all(&head)?;
        (1, head.len() as u64)
    } else {
        let mut found = vec![0; head.len()];
        file.read_exact(&mut found).ok();
        anyhow::ensure!(found == head, "{} is no archive of this ledger", out.display());
        resume(&mut file)?
    };
    file.set_len(offset)?;
    file.seek(SeekFrom::Start(offset))?;
    let status: Value = client.get("/api/v1/status").await?;
    let tip = status["height"].as_u64().context("the node says its height")?;
    let bar = bar(tip, "blocks");
    let mut writer = BufWriter::new(file);
    let (mut next, mut covered) = (first, true);
    // it ends with a block that has a finality proof of its own
    while next <= tip || !covered {
        let records = client.get_bytes(&format!("/api/v1/archive?from={next}&to={}", tip.max(next))).await?;
        if records.is_empty() && next > tip {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            continue;
        }
        let mut rest = &records[..];
        let mut count = 0;
        while !rest.is_empty() {
            for _ in 0..2 {
                let (size, after) = rest.split_first_chunk::<4>().context("the node sent half a block")?;
                let size = u32::from_le_bytes(*size) as usize;
                rest = after.get(size..).context("the node sent half a block")?;
                covered = size > 0;
            }
            count += 1;
        }
        anyhow::ensure!(count > 0, "the node has no block {next}; it was pruned, or is not final there yet");
        writer.write_all(&records)?;
        next += count;
        bar.set_position(next - 1);
    }
    let file = writer.into_inner().context("writing the archive")?;
    file.sync_all().context("writing the archive")?;
    bar.finish_and_clear();
    let bytes = file.metadata()?.len();
    Ok(Exported { height: next - 1, new_blocks: next - first, bytes })
}

/// `tongban ledger export`.
pub async fn export_and_say(config: &Path, out: &Path, json: bool) -> Result<()> {
    let config = node::Config::read(config)?;
    let Exported { height, new_blocks, bytes } = export(&config, out).await?;
    if json {
        say!("{}", json!({ "height": height, "new_blocks": new_blocks, "bytes": bytes }));
    } else {
        say!("{} holds blocks 1 to {height} ({bytes} bytes), {new_blocks} of them new", out.display());
        say!("Check it: tongban ledger fsck {} --genesis {}", out.display(), config.genesis.display());
    }
    Ok(())
}

/// Puts an archive's blocks into the empty ledger folder of a node that does not run, checking each; a folder that could not be
/// filled whole is emptied again.
pub fn restore(file: &Path, genesis: &Path, ledger: &Path) -> Result<Checked> {
    let full =
        std::fs::read_dir(ledger).is_ok_and(|entries| entries.flatten().any(|e| e.file_name() != "owner"));
    anyhow::ensure!(
        !full,
        "the ledger folder {} is not empty: stop its node, and move what is there away first",
        ledger.display()
    );
    std::fs::create_dir_all(ledger).with_context(|| format!("making {}", ledger.display()))?;
    let archive = open(file, genesis, u64::MAX)?;
    let bar = bar(0, "blocks restored");
    let shown = bar.clone();
    let restored = archive.restore(ledger.to_owned(), move |height| shown.set_position(height));
    bar.finish_and_clear();
    if restored.is_err() {
        std::fs::remove_dir_all(ledger).with_context(|| format!("emptying {}", ledger.display()))?;
        std::fs::create_dir_all(ledger)?;
    }
    Ok(restored?)
}

/// `tongban ledger restore`. Says what is wrong with the archive, where something is.
pub fn restore_and_say(file: &Path, config: &Path, json: bool) -> Result<Option<String>> {
    let at = config;
    let config = node::Config::read(config)?;
    let restored = match restore(file, &config.genesis, &config.ledger) {
        Ok(restored) => restored,
        Err(e) => match e.downcast::<ArchiveError>() {
            Ok(ArchiveError::Io(e)) => return Err(e).context("restoring the archive"),
            Ok(e) => {
                if json {
                    say!("{}", json!({ "height": null, "problems": [e.to_string()] }));
                }
                return Ok(Some(format!("{e}; the ledger folder is left empty")));
            }
            Err(e) => return Err(e),
        },
    };
    if json {
        say!(
            "{}",
            json!({ "height": restored.height, "state_root": restored.state_root, "commands": restored.commands, "problems": [] })
        );
    } else {
        say!("{} holds blocks 1 to {} again, each checked", config.ledger.display(), restored.height);
        say!("Start the node: tongban node --config {}", at.display());
        say!("It applies them, fetches the rest from the others, and votes again from the next epoch on.");
    }
    Ok(None)
}

/// Bytes of a folder and all below it.
pub fn bytes_of(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |e: std::fs::DirEntry| match e.metadata() {
        Ok(m) if m.is_dir() => bytes_of(&e.path()),
        Ok(m) => m.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// `tongban ledger prune`: brings the node's archive up to date, checks every byte of it, and lets the running node drop from its
/// own folder what the archive holds. What is wrong with the archive is the answer no.
pub async fn prune(config: &Path, dry_run: bool, json: bool) -> Result<Option<String>> {
    let config = node::Config::read(config)?;
    let archive = config.archive.clone().context(
        "node.toml names no archive: add for example `archive = \"ledger.archive\"` and start the node again, so that it \
         reads from there what it no longer has itself",
    )?;
    let exported = export(&config, &archive).await?;
    let (file, genesis) = (archive.clone(), config.genesis.clone());
    let checked = tokio::task::spawn_blocking(move || fsck(&file, &genesis, u64::MAX)).await??;
    if let Some(problem) = checked.problem {
        if json {
            say!("{}", checked.document);
        }
        return Ok(Some(format!(
            "the archive {} is damaged, and nothing was pruned: {problem}",
            archive.display()
        )));
    }
    let before = bytes_of(&config.ledger);
    let body = json!({ "below": exported.height + 1, "dry_run": dry_run });
    let pruned = client(&config).post("/api/v1/prune", body).await?;
    let below = pruned["below"].as_u64().context("the node says what it prunes")?;
    // the engine removes whole files of 1,024 blocks, at its own pace
    let mut after = bytes_of(&config.ledger);
    for _ in 0..if dry_run { 0 } else { 100 } {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        after = bytes_of(&config.ledger);
        if after < before {
            break;
        }
    }
    if json {
        let document = json!({
            "below": below, "dry_run": dry_run, "archive_height": exported.height, "archive_bytes": exported.bytes,
            "ledger_bytes": { "before": before, "after": after }, "command_bytes": checked.document["command_bytes"], "problems": [],
        });
        say!("{document}");
    } else if dry_run {
        say!(
            "{} is whole up to height {}; blocks below {below} would be pruned",
            archive.display(),
            exported.height
        );
    } else {
        say!(
            "blocks below {below} are pruned, as whole files of 1,024; the node reads them from {}",
            archive.display()
        );
        say!("the ledger folder has {after} bytes; it had {before}. Keep a copy of the archive elsewhere.");
    }
    Ok(None)
}

fn chain_of(config: &node::Config) -> Result<model::ChainId> {
    Ok(crypto::chain_id(&node::read_genesis(&config.genesis)?))
}
