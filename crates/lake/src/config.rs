//! `lake.toml`: every setting with its default, unknown keys refused, those of the environment applied.

use anyhow::{Context as _, Result, bail};
use model::Suite;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// The settings of a data platform. Paths are relative to the file's folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where tables are: a folder, or `s3://bucket/prefix` (`TONGBAN_LAKE_DATA`).
    #[serde(default = "default_data")]
    pub data: String,
    /// The folder of data set declarations.
    #[serde(default = "default_datasets")]
    pub datasets: PathBuf,
    /// The shared standard.
    #[serde(default = "default_standard")]
    pub standard: PathBuf,
    /// The key that subjects are stored under; its passphrase comes from `TONGBAN_PASSPHRASE`.
    #[serde(default = "default_key")]
    pub key: PathBuf,
    /// The folder for rows that were refused, reports, and what is published.
    #[serde(default = "default_work")]
    pub work: PathBuf,
    /// The suite its hashes are made in.
    #[serde(default = "default_suite")]
    pub suite: Suite,
    /// Where it serves look-ups and open data (`TONGBAN_LAKE_LISTEN`).
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where people reach the open-data portal, for links in its documents.
    #[serde(default)]
    pub public_address: Option<String>,
    /// The file with the token that look-ups over HTTP want; without it they are not served.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The consortium's genesis: with it only data sets are served whose publication its ledger recorded.
    #[serde(default)]
    pub genesis: Option<PathBuf>,
    /// How much memory taking in, compacting and queries may use, in MiB each (`TONGBAN_LAKE_MEMORY_MB`).
    #[serde(default = "default_memory")]
    pub memory_mb: usize,
    /// What the object store needs: `aws_endpoint`, `aws_region`, … Secrets come from the environment (`AWS_ACCESS_KEY_ID`, …).
    #[serde(default)]
    pub storage: BTreeMap<String, String>,
    /// The folder of the file.
    #[serde(skip)]
    pub dir: PathBuf,
}

fn default_data() -> String {
    "data".into()
}
fn default_datasets() -> PathBuf {
    "datasets".into()
}
fn default_standard() -> PathBuf {
    "elements.yaml".into()
}
fn default_key() -> PathBuf {
    "lake.key".into()
}
fn default_work() -> PathBuf {
    "work".into()
}
fn default_suite() -> Suite {
    Suite::International
}
fn default_listen() -> SocketAddr {
    ([127, 0, 0, 1], 8500).into()
}
fn default_memory() -> usize {
    512
}

/// What `tongban-lake init` writes.
pub const TEMPLATE: &str = include_str!("lake.toml");

impl Config {
    /// Reads a file, applies the environment, and makes paths absolute.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{}: cannot be read; `tongban-lake init` makes one", path.display()))?;
        let mut config: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        if let Ok(data) = std::env::var("TONGBAN_LAKE_DATA") {
            config.data = data;
        }
        if let Ok(listen) = std::env::var("TONGBAN_LAKE_LISTEN") {
            config.listen =
                listen.parse().context("TONGBAN_LAKE_LISTEN is not an address like 127.0.0.1:8500")?;
        }
        if let Ok(memory) = std::env::var("TONGBAN_LAKE_MEMORY_MB") {
            config.memory_mb = memory.parse().context("TONGBAN_LAKE_MEMORY_MB is not a number of MiB")?;
        }
        if config.memory_mb < 64 {
            bail!("{}: memory_mb is less than 64", path.display());
        }
        let dir = std::path::absolute(path)?.parent().unwrap_or(Path::new(".")).to_owned();
        if !config.data.contains("://") {
            config.data = dir.join(&config.data).to_string_lossy().into_owned();
        }
        for path in [&mut config.datasets, &mut config.standard, &mut config.key, &mut config.work]
            .into_iter()
            .chain(config.token_file.as_mut())
            .chain(config.genesis.as_mut())
        {
            *path = dir.join(&*path);
        }
        config.dir = dir;
        Ok(config)
    }

    /// The passphrase of the key file.
    pub fn passphrase() -> Result<String> {
        std::env::var("TONGBAN_PASSPHRASE")
            .context("set TONGBAN_PASSPHRASE to the passphrase of the key file")
    }
}
