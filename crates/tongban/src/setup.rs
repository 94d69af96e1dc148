//! Making a consortium: keys, genesis, and one folder for each department.

use anyhow::{Context as _, Result, bail};
use crypto::{Keys, chain_id, store_keys};
use model::{ChainId, DepartmentId, Genesis, Member, Suite, Text};
use node::Config;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// `consortium.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What the consortium calls itself.
    pub name: String,
    /// The departments.
    pub departments: Vec<PlannedDepartment>,
}

/// A department of the plan.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedDepartment {
    /// Its ID.
    pub id: DepartmentId,
    /// Its name.
    pub title: Text,
    /// Whether its node votes.
    #[serde(default)]
    pub validator: bool,
    /// Where its node listens for the others.
    pub listen: SocketAddr,
    /// Where its node serves its API and pages.
    pub http: SocketAddr,
}

/// A consortium on disk.
pub struct Made {
    /// The chain ID.
    pub chain: ChainId,
    /// The genesis.
    pub genesis: Genesis,
    /// The keys, by department.
    pub keys: BTreeMap<DepartmentId, Keys>,
}

/// Where the files of a department's node lie.
pub fn node_dir(out: &Path, id: &DepartmentId) -> PathBuf {
    out.join("nodes").join(id.as_str())
}

/// Writes keys, genesis and node configurations under `out/nodes/`. `extra` completes each configuration.
pub fn make(
    plan: &Plan,
    out: &Path,
    passphrase: &str,
    time_ms: u64,
    mut extra: impl FnMut(&mut Config),
) -> Result<Made> {
    let mut keys = BTreeMap::new();
    let mut members = Vec::new();
    for department in &plan.departments {
        let own = Keys::random();
        members.push(Member {
            id: department.id.clone(),
            title: department.title.clone(),
            command_key: own.command.public(),
            seal_key: own.seal.public(),
            node_key: own.node.public(),
            validator: department.validator,
        });
        if keys.insert(department.id.clone(), own).is_some() {
            bail!("department `{}` stands twice in the plan", department.id);
        }
    }
    members.sort_by(|a, b| a.id.cmp(&b.id));
    let genesis =
        Genesis { format: 1, name: plan.name.clone(), suite: Suite::International, time_ms, members };
    genesis.check().map_err(anyhow::Error::msg)?;
    let text = serde_json::to_string_pretty(&genesis)?;
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    std::fs::write(out.join("genesis.json"), &text)?;
    let addresses: BTreeMap<_, _> = plan.departments.iter().map(|d| (d.id.clone(), d.listen)).collect();
    for department in &plan.departments {
        let dir = node_dir(out, &department.id);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        std::fs::write(dir.join("genesis.json"), &text)?;
        store_keys(&dir.join("keys"), passphrase, &keys[&department.id])?;
        let mut config = Config {
            department: department.id.clone(),
            listen: department.listen,
            http: department.http,
            genesis: "genesis.json".into(),
            keys: "keys".into(),
            ledger: "ledger".into(),
            vault: "vault.db".into(),
            database: "department.db".into(),
            connector: "connector.yaml".into(),
            standard: "elements.yaml".into(),
            matters: vec![],
            api_token: Some(hex::encode(crypto::random::<16>())),
            addresses: addresses.clone(),
        };
        extra(&mut config);
        std::fs::write(dir.join("node.toml"), toml::to_string_pretty(&config)?)?;
    }
    Ok(Made { chain: chain_id(&genesis), genesis, keys })
}

/// Completes a department's folder with an empty connector and database, for its engineer to fill.
pub async fn skeleton(dir: &Path, id: &DepartmentId) -> Result<()> {
    std::fs::write(
        dir.join("connector.yaml"),
        format!("# What this department answers: see docs/connector.md\nformat: 1\ndepartment: {id}\n"),
    )?;
    std::fs::write(dir.join("elements.yaml"), ELEMENTS)?;
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join("department.db")).create_if_missing(true);
    sqlx::Connection::close(<sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await?)
        .await?;
    Ok(())
}

/// The shared standard that comes with the program.
pub const ELEMENTS: &str = include_str!("../../../standards/elements.yaml");
