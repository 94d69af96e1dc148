//! `tongban backup` and `tongban restore`: all that only this node has, in one folder, while it runs; and a node's folder
//! out of it again.
//!
//! Keys and the vault are encrypted in the backup as they are in the node. The department's own database is not in it: it has
//! its own backup. Nor is the record of votes, which must never be older than the votes: a restored validator abstains
//! until the next epoch.

use crate::{archive, say, setup};
use anyhow::{Context as _, Result, bail};
use model::{ChainId, DepartmentId, Digest, Suite};
use node::Config;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    fs::File,
    io::Read as _,
    path::{Component, Path, PathBuf},
};

const MANIFEST: &str = "backup.json";
/// The folder of everything but the archive; each backup has a new one, named in its list.
const PARTS: &str = "parts";
const ARCHIVE: &str = "ledger.archive";
/// Files are hashed in pieces of this length.
const PIECE: usize = 1 << 20;

/// What a backup holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    department: DepartmentId,
    chain_id: ChainId,
    /// The newest height of its archive.
    height: u64,
    /// How much of the archive is this backup's; a later one, finished or not, adds to its end.
    archive_bytes: u64,
    /// The folder in which the files lie.
    parts: PathBuf,
    /// When it was made, in milliseconds since 1970.
    time_ms: u64,
    files: Vec<Entry>,
}

/// A file of a backup.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Below the folder of the parts.
    path: PathBuf,
    bytes: u64,
    /// SHA-256 over the SHA-256 of each mebibyte.
    hash: Digest,
}

fn hash(path: &Path) -> Result<(u64, Digest)> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let (mut bytes, mut pieces) = (0, Vec::new());
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        pieces.extend_from_slice(&crypto::digest(Suite::International, &[&piece]).0);
    }
    Ok((bytes, crypto::digest(Suite::International, &[&pieces])))
}

/// Copies a file or a folder and all below it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let context = || format!("copying {} to {}", from.display(), to.display());
    if from.is_dir() {
        std::fs::create_dir_all(to).with_context(context)?;
        for entry in std::fs::read_dir(from).with_context(context)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    let parent = to.parent().context("a file lies in a folder")?;
    std::fs::create_dir_all(parent).with_context(context)?;
    std::fs::copy(from, to).with_context(context)?;
    File::open(to)?.sync_all().with_context(context)
}

fn files_below(dir: &Path, at: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = at.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => files_below(&entry.path(), &path, files)?,
            false => files.push(path),
        }
    }
    files.sort();
    Ok(())
}

/// Where each part of a node lies in a backup and in a folder restored from one: the configuration with these paths, and
/// from where to where each is copied.
fn arranged(config: &Config) -> (Config, Vec<(PathBuf, PathBuf)>) {
    let mut arranged = config.clone();
    let mut parts = Vec::new();
    let mut put = |setting: &mut PathBuf, name: PathBuf| {
        parts.push((std::mem::replace(setting, name.clone()), name));
    };
    put(&mut arranged.genesis, "genesis.json".into());
    put(&mut arranged.keys, "keys".into());
    put(&mut arranged.votes, "votes".into());
    put(&mut arranged.connector, "connector.yaml".into());
    put(&mut arranged.standard, "elements.yaml".into());
    for (i, dir) in arranged.matters.iter_mut().enumerate() {
        let name = dir.file_name().map_or_else(|| format!("matter-{i}").into(), ToOwned::to_owned);
        put(dir, Path::new("matters").join(name));
    }
    if arranged.packages.exists() {
        put(&mut arranged.packages, "packages".into());
    }
    if let Some(portal) = &mut arranged.portal {
        put(&mut portal.key, "portal.key".into());
    }
    if let Some(roster) = &mut arranged.roster {
        put(roster, "roster.json".into());
    }
    arranged.vault = "vault.db".into();
    arranged.ledger = "ledger".into();
    arranged.archive = Some(ARCHIVE.into());
    arranged.first_start = "first-start".into();
    (arranged, parts)
}

/// Makes a backup of a running node, or brings an earlier one in the same folder up to date. Until the new one is whole the
/// earlier one stays what it was.
pub async fn backup(config: &Path, out: &Path, json: bool) -> Result<()> {
    let config = Config::read(config)?;
    let chain_id = crypto::chain_id(&node::read_genesis(&config.genesis)?);
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let is_ours =
        |name: &str| name.starts_with(ARCHIVE) || name.starts_with(PARTS) || name.starts_with(MANIFEST);
    if out.join(MANIFEST).exists() {
        let earlier = manifest(out)?;
        if (&earlier.department, earlier.chain_id) != (&config.department, chain_id) {
            bail!(
                "{} holds a backup of {} on another ledger or of another department",
                out.display(),
                earlier.department
            );
        }
    } else if std::fs::read_dir(out)?.flatten().any(|e| !is_ours(&e.file_name().to_string_lossy())) {
        bail!("{} is not empty and holds no backup: choose another folder", out.display());
    }
    let exported = archive::export(&config, &out.join(ARCHIVE)).await?;
    let time_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64);
    let name = PathBuf::from(format!("{PARTS}-{time_ms}"));
    let parts = out.join(&name);
    std::fs::create_dir(&parts).with_context(|| format!("making {}", parts.display()))?;
    let (arranged, copies) = arranged(&config);
    for (from, to) in copies {
        copy(&from, &parts.join(to))?;
    }
    copy_vault(&config.vault, &parts.join("vault.db")).await?;
    setup::write_settings(&parts.join("node.toml"), &arranged)?;

    let mut names = Vec::new();
    files_below(&parts, Path::new(""), &mut names)?;
    let mut files = Vec::new();
    for path in names {
        let (bytes, hash) = hash(&parts.join(&path))?;
        files.push(Entry { path, bytes, hash });
    }
    let count = files.len();
    let made = Manifest {
        format: 1,
        department: config.department,
        chain_id,
        height: exported.height,
        archive_bytes: exported.bytes,
        parts: name.clone(),
        time_ms,
        files,
    };
    let partial = out.join("backup.json.partial");
    std::fs::write(&partial, serde_json::to_vec_pretty(&made)?)?;
    File::open(&partial)?.sync_all()?;
    // from here on the new one is the backup
    std::fs::rename(&partial, out.join(MANIFEST))?;
    File::open(out)?.sync_all()?;
    for entry in std::fs::read_dir(out)?.flatten() {
        let old = entry.file_name().to_string_lossy().starts_with(PARTS) && *entry.file_name() != *name;
        if old {
            std::fs::remove_dir_all(entry.path())
                .with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    let bytes = archive::bytes_of(out);
    if json {
        say!(
            "{}",
            json!({ "height": exported.height, "files": count, "bytes": bytes, "new_blocks": exported.new_blocks })
        );
    } else {
        say!(
            "{} holds all that only this node has: {count} files and the ledger up to height {} ({bytes} bytes)",
            out.display(),
            exported.height
        );
        say!(
            "The department's own database is not in it. Carry it to another machine; the passphrase is not in it either."
        );
    }
    Ok(())
}

/// Copies a vault that is in use, whole as of one moment.
async fn copy_vault(from: &Path, to: &Path) -> Result<()> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(from);
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options)
        .await
        .with_context(|| format!("opening the vault {}", from.display()))?;
    sqlx::query("VACUUM INTO ?")
        .bind(to.to_str().context("the folder's name is text")?.to_owned())
        .execute(&mut connection)
        .await
        .context("copying the vault")?;
    sqlx::Connection::close(connection).await?;
    File::open(to)?.sync_all().context("copying the vault")
}

fn manifest(backup: &Path) -> Result<Manifest> {
    let file = backup.join(MANIFEST);
    let text = std::fs::read(&file)
        .with_context(|| format!("{}: no backup, or one that was not finished", file.display()))?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no list of a backup", file.display()))?;
    let inside = |path: &Path| path.components().all(|c| matches!(c, Component::Normal(_)));
    if manifest.format != 1 || !inside(&manifest.parts) || !manifest.files.iter().all(|f| inside(&f.path)) {
        bail!("{} is no list of a backup of format 1", file.display());
    }
    Ok(manifest)
}

/// What is missing or damaged in a backup.
fn damage(backup: &Path, manifest: &Manifest) -> Vec<String> {
    let parts = backup.join(&manifest.parts);
    let wrong = |entry: &Entry| match hash(&parts.join(&entry.path)) {
        Ok(found) if found == (entry.bytes, entry.hash) => None,
        Ok(_) => Some(format!("{} was changed", entry.path.display())),
        Err(e) => Some(format!("{}: {e:#}", entry.path.display())),
    };
    manifest.files.iter().filter_map(wrong).collect()
}

/// Makes a node's folder out of a backup. With `dry_run` everything is checked and nothing written. Says what is wrong with the
/// backup, where something is.
pub fn restore(backup: &Path, out: &Path, dry_run: bool, json: bool) -> Result<Option<String>> {
    let manifest = manifest(backup)?;
    let mut problems = damage(backup, &manifest);
    if std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            "{} is not empty: restore into a folder of its own, then move it to where the node was",
            out.display()
        );
    }
    let (file, parts) = (backup.join(ARCHIVE), backup.join(&manifest.parts));
    if problems.is_empty() {
        let checked = archive::fsck(&file, &parts.join("genesis.json"), manifest.archive_bytes)?;
        let short = checked.problem.is_none() && checked.document["height"] != manifest.height;
        problems.extend(checked.problem);
        problems.extend(short.then(|| format!("{ARCHIVE} ends before block {}", manifest.height)));
    }
    if !problems.is_empty() {
        if json {
            say!("{}", json!({ "problems": problems }));
        }
        return Ok(Some(format!("the backup is damaged, and nothing was restored: {}", problems.join("; "))));
    }
    if !dry_run && let Err(e) = unpack(backup, &manifest, out) {
        std::fs::remove_dir_all(out).with_context(|| format!("removing {}", out.display()))?;
        return Err(e.context("nothing was restored"));
    }
    if json {
        let document = json!({
            "department": manifest.department, "chain_id": manifest.chain_id, "height": manifest.height, "dry_run": dry_run, "problems": [],
        });
        say!("{document}");
    } else if dry_run {
        say!("the backup of {} is whole, up to height {}", manifest.department, manifest.height);
    } else {
        say!("{} is the node of {} as of height {}", out.display(), manifest.department, manifest.height);
        say!("Make sure that the old one never runs again, look at `database` in node.toml, and start it:");
        say!("  tongban node --config {}", out.join("node.toml").display());
        say!("A validator votes again from the next epoch on.");
    }
    Ok(None)
}

fn unpack(backup: &Path, manifest: &Manifest, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let parts = backup.join(&manifest.parts);
    for entry in &manifest.files {
        copy(&parts.join(&entry.path), &out.join(&entry.path))?;
    }
    let file = out.join(ARCHIVE);
    copy(&backup.join(ARCHIVE), &file)?;
    File::options().write(true).open(&file)?.set_len(manifest.archive_bytes)?;
    archive::restore(&file, &out.join("genesis.json"), &out.join("ledger"))?;
    Ok(())
}
