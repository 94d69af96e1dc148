//! `tongban backup` and `tongban restore`: all that only this node has, in one folder, while it runs; and a node's folder
//! out of it again.
//!
//! Keys and the vault are encrypted in the backup as they are in the node. The department's own database is not in it: it has
//! its own backup. Nor is the record of votes, which must never be older than the votes: a restored validator abstains
//! until the next epoch.

use crate::{archive, say};
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
    /// When it was made, in milliseconds since 1970.
    time_ms: u64,
    files: Vec<Entry>,
}

/// A file of a backup.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Below the backup's folder.
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
    if let Some(roster) = &mut arranged.roster {
        put(roster, "roster.json".into());
    }
    arranged.vault = "vault.db".into();
    arranged.ledger = "ledger".into();
    arranged.archive = Some(ARCHIVE.into());
    arranged.first_start = "first-start".into();
    (arranged, parts)
}

/// Makes a backup of a running node, or brings an earlier one in the same folder up to date.
pub async fn backup(config: &Path, out: &Path, json: bool) -> Result<()> {
    let config = Config::read(config)?;
    let chain_id = crypto::chain_id(&node::read_genesis(&config.genesis)?);
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    if out.join(MANIFEST).exists() {
        let earlier = manifest(out)?;
        if (&earlier.department, earlier.chain_id) != (&config.department, chain_id) {
            bail!(
                "{} holds a backup of {} on another ledger or of another department",
                out.display(),
                earlier.department
            );
        }
        // until it is whole again, it is none
        std::fs::remove_file(out.join(MANIFEST))?;
    } else if std::fs::read_dir(out)?.any(|e| e.is_ok_and(|e| e.file_name() != ARCHIVE)) {
        bail!("{} is not empty and holds no backup: choose another folder", out.display());
    }
    let exported = archive::export(&config, &out.join(ARCHIVE)).await?;
    let (arranged, parts) = arranged(&config);
    for (_, to) in &parts {
        let to = out.join(to);
        if to.is_dir() {
            std::fs::remove_dir_all(&to)?;
        }
    }
    for (from, to) in parts {
        copy(&from, &out.join(to))?;
    }
    let vault = out.join("vault.db");
    if vault.exists() {
        std::fs::remove_file(&vault)?;
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&config.vault);
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options)
        .await
        .with_context(|| format!("opening the vault {}", config.vault.display()))?;
    sqlx::query("VACUUM INTO ?")
        .bind(vault.to_str().context("the folder's name is text")?.to_owned())
        .execute(&mut connection)
        .await
        .context("copying the vault")?;
    sqlx::Connection::close(connection).await?;
    std::fs::write(out.join("node.toml"), toml::to_string_pretty(&arranged)?)?;

    let mut names = Vec::new();
    files_below(out, Path::new(""), &mut names)?;
    let mut files = Vec::new();
    // the archive proves itself, and grows
    let own = [ARCHIVE.to_owned(), format!("{ARCHIVE}.index")];
    for path in names.into_iter().filter(|p| !own.iter().any(|own| p == Path::new(own))) {
        let (bytes, hash) = hash(&out.join(&path))?;
        files.push(Entry { path, bytes, hash });
    }
    let time_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64);
    let count = files.len();
    let made = Manifest {
        format: 1,
        department: config.department,
        chain_id,
        height: exported.height,
        time_ms,
        files,
    };
    let partial = out.join("backup.json.partial");
    std::fs::write(&partial, serde_json::to_vec_pretty(&made)?)?;
    File::open(&partial)?.sync_all()?;
    std::fs::rename(&partial, out.join(MANIFEST))?;
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

fn manifest(backup: &Path) -> Result<Manifest> {
    let file = backup.join(MANIFEST);
    let text = std::fs::read(&file)
        .with_context(|| format!("{}: no backup, or one that was not finished", file.display()))?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no list of a backup", file.display()))?;
    let inside = |path: &Path| path.components().all(|c| matches!(c, Component::Normal(_)));
    if manifest.format != 1 || !manifest.files.iter().all(|f| inside(&f.path)) {
        bail!("{} is no list of a backup of format 1", file.display());
    }
    Ok(manifest)
}

/// What is missing or damaged in a backup.
fn damage(backup: &Path, manifest: &Manifest) -> Vec<String> {
    let wrong = |entry: &Entry| match hash(&backup.join(&entry.path)) {
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
    let (file, genesis) = (backup.join(ARCHIVE), backup.join("genesis.json"));
    if problems.is_empty() {
        problems.extend(archive::fsck(&file, &genesis)?.problem);
    }
    if !problems.is_empty() {
        if json {
            say!("{}", json!({ "problems": problems }));
        }
        return Ok(Some(format!("the backup is damaged, and nothing was restored: {}", problems.join("; "))));
    }
    if !dry_run {
        std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
        for entry in &manifest.files {
            copy(&backup.join(&entry.path), &out.join(&entry.path))?;
        }
        copy(&file, &out.join(ARCHIVE))?;
        archive::restore(&file, &genesis, &out.join("ledger"))?;
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
