//! A platform as configured: its data sets, its standard, its key.

use crate::{config::Config, dataset::Dataset};
use anyhow::{Context as _, Result, bail};
use gateway::Standard;
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// A platform.
pub struct Lake {
    /// Its settings.
    pub config: Config,
    /// The shared standard.
    pub standard: Standard,
    /// Its data sets by name.
    pub datasets: BTreeMap<String, Arc<Dataset>>,
    key: std::sync::OnceLock<[u8; 32]>,
}

impl Lake {
    /// Reads settings, standard and declarations.
    pub fn open(config: Config) -> Result<Self> {
        let standard = Standard::read(&config.standard)?;
        let mut datasets = BTreeMap::new();
        for entry in
            std::fs::read_dir(&config.datasets).with_context(|| config.datasets.display().to_string())?
        {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "yaml") {
                let dataset = Dataset::read(&path, &standard)?;
                if datasets.insert(dataset.id().to_owned(), Arc::new(dataset)).is_some() {
                    bail!("{}: another file declares this data set too", path.display());
                }
            }
        }
        Ok(Self { config, standard, datasets, key: Default::default() })
    }

    /// A data set by its name.
    pub fn dataset(&self, id: &str) -> Result<&Arc<Dataset>> {
        let known = || self.datasets.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        self.datasets.get(id).with_context(|| {
            format!("no data set `{id}` in {}; there are: {}", self.config.datasets.display(), known())
        })
    }

    /// The key subjects are stored under.
    pub fn key(&self) -> Result<[u8; 32]> {
        if let Some(key) = self.key.get() {
            return Ok(*key);
        }
        let read = crypto::load_secret(&self.config.key, &Config::passphrase()?)?;
        Ok(*self.key.get_or_init(|| read))
    }
}

/// Makes a platform's folder: settings, key, a folder for declarations.
pub fn init(dir: &Path, suite: model::Suite, standard: &str) -> Result<()> {
    std::fs::create_dir_all(dir.join("datasets"))?;
    let settings = dir.join("lake.toml");
    if settings.exists() {
        bail!("{} is there already", settings.display());
    }
    crypto::store_secret(&dir.join("lake.key"), &Config::passphrase()?, suite, &crypto::random())?;
    std::fs::write(dir.join("elements.yaml"), standard)?;
    let template = crate::config::TEMPLATE;
    std::fs::write(
        settings,
        template.replace("suite = \"international\"", &format!("suite = \"{}\"", suite.as_str())),
    )?;
    Ok(())
}
