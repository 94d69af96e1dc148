//! Making a consortium: keys, genesis, and one folder for each department.

use anyhow::{Context as _, Result, bail};
use crypto::{Credentials, VoteKeyFolder, chain_id, store_keys, store_officer};
use model::{ChainId, Change, DepartmentId, Genesis, Member, PROTOCOLS, Suite, Text};
use node::Config;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// `consortium.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What the consortium calls itself.
    pub name: String,
    /// The cryptographic suite, for good: `international` or `national`.
    #[serde(default = "default_suite")]
    pub suite: Suite,
    /// How many blocks an epoch has, for good.
    #[serde(default = "default_epoch_blocks")]
    pub epoch_blocks: u64,
    /// How many departments must approve a change; by default more than half of them.
    #[serde(default)]
    pub approvals: Option<u32>,
    /// The departments.
    pub departments: Vec<PlannedDepartment>,
}

fn default_suite() -> Suite {
    Suite::International
}
fn default_epoch_blocks() -> u64 {
    EPOCH_BLOCKS
}

/// How many blocks an epoch has where nothing else is said: half an hour of an idle consortium, one or two minutes under
/// load, and under half a minute where an adopted change waits.
pub const EPOCH_BLOCKS: u64 = 2048;

impl Plan {
    /// A plan with everything by default.
    pub fn new(name: &str, suite: Suite, departments: Vec<PlannedDepartment>) -> Self {
        let (name, epoch_blocks) = (name.to_owned(), default_epoch_blocks());
        Self { name, suite, epoch_blocks, approvals: None, departments }
    }
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
    /// The credentials, by department.
    pub keys: BTreeMap<DepartmentId, Credentials>,
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
        let own = Credentials::random(plan.suite);
        let (title, address) = (department.title.clone(), department.listen.to_string());
        members.push(own.member(department.id.clone(), title, department.validator, address));
        if keys.insert(department.id.clone(), own).is_some() {
            bail!("department `{}` stands twice in the plan", department.id);
        }
    }
    members.sort_by(|a, b| a.id.cmp(&b.id));
    let genesis = Genesis {
        format: 1,
        name: plan.name.clone(),
        suite: plan.suite,
        time_ms,
        epoch_blocks: plan.epoch_blocks,
        protocol: *PROTOCOLS.end(),
        approvals: plan.approvals.unwrap_or(members.len() as u32 / 2 + 1),
        members,
    };
    genesis.check().map_err(anyhow::Error::msg)?;
    let text = serde_json::to_string_pretty(&genesis)?;
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    std::fs::write(out.join("genesis.json"), &text)?;
    for department in &plan.departments {
        let dir = node_dir(out, &department.id);
        let own = &keys[&department.id];
        write_node(
            &dir,
            &text,
            own,
            passphrase,
            config_of(&department.id, department.listen, department.http),
            &mut extra,
        )?;
    }
    Ok(Made { chain: chain_id(&genesis), genesis, keys })
}

fn config_of(id: &DepartmentId, listen: SocketAddr, http: SocketAddr) -> Config {
    Config {
        department: id.clone(),
        listen,
        http,
        genesis: "genesis.json".into(),
        keys: "keys".into(),
        ledger: "ledger".into(),
        vault: "vault.db".into(),
        database: "department.db".into(),
        dir: PathBuf::new(),
        connector_check_seconds: 30,
        connector: "connector.yaml".into(),
        standard: "elements.yaml".into(),
        matters: vec![],
        packages: "packages".into(),
        platform: None,
        face: None,
        portal: None,
        terminal_per_day: 300,
        changes: None,
        changes_token: None,
        watch_seconds: 60,
        notices: None,
        notices_token: None,
        behind_tls: false,
        api_token: Some(hex::encode(crypto::random::<16>())),
        votes: "votes".into(),
        first_start: "first-start".into(),
        vote_key_epochs: 336,
        roster: None,
        archive: None,
        withheld: vec![],
    }
}

/// Writes a node's folder: genesis, keys, the officers' keys (to be given to them), the first vote key, configuration.
fn write_node(
    dir: &Path,
    genesis: &str,
    own: &Credentials,
    passphrase: &str,
    mut config: Config,
    extra: &mut impl FnMut(&mut Config),
) -> Result<()> {
    let officers = dir.join("officers");
    std::fs::create_dir_all(&officers).with_context(|| format!("making {}", officers.display()))?;
    std::fs::write(dir.join("genesis.json"), genesis)?;
    store_keys(&dir.join("keys"), passphrase, &own.keys)?;
    store_officer(&officers.join("system"), passphrase, &own.system)?;
    store_officer(&officers.join("security"), passphrase, &own.security)?;
    VoteKeyFolder::open(&dir.join("votes"), own.keys.storage.clone())?.keep(&own.vote)?;
    std::fs::write(
        dir.join("first-start"),
        "this validator has not voted yet; its node removes this file\n",
    )?;
    extra(&mut config);
    write_settings(&dir.join("node.toml"), &config)
}

/// The passphrase of a node's key file, from the environment.
pub fn passphrase() -> Result<String> {
    let passphrase = std::env::var("TONGBAN_PASSPHRASE").unwrap_or_default();
    anyhow::ensure!(
        !passphrase.is_empty(),
        "set TONGBAN_PASSPHRASE to the passphrase of the key file; an empty one protects nothing"
    );
    Ok(passphrase)
}

/// Writes a node's settings, which only its own account may read: the API's token stands in them.
pub fn write_settings(path: &Path, config: &Config) -> Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let writing = || format!("writing {}", path.display());
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(path).with_context(writing)?;
    // one that was there already keeps its mode otherwise
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).with_context(writing)?;
    file.write_all(toml::to_string_pretty(config)?.as_bytes()).with_context(writing)
}

/// A department's signed entry, which others propose to take in: a file it hands over.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The ledger.
    pub chain_id: ChainId,
    /// The entry.
    pub member: Member,
    /// The department's signature over it, by the command key in it.
    pub signature: String,
}

impl Entry {
    /// An entry signed with a department's command key.
    pub fn sign(chain_id: ChainId, member: Member, key: &crypto::SigningKey) -> Self {
        let signature = hex::encode(key.sign(&member.signing_bytes(&chain_id)));
        Self { chain_id, member, signature }
    }

    /// Reads an entry, of this ledger and signed by its department.
    pub fn read(path: &Path, chain: &ChainId) -> Result<Change> {
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let entry: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no entry of a department", path.display()))?;
        if entry.chain_id != *chain {
            bail!("{} is an entry for another ledger", path.display());
        }
        let mut signature = [0; 64];
        let decoded = hex::decode_to_slice(&entry.signature, &mut signature).is_ok();
        let signed = decoded
            && crypto::verify(&entry.member.command_key, &entry.member.signing_bytes(chain), &signature);
        if !signed {
            bail!("{} is not signed by the department itself", path.display());
        }
        Ok(Change::Put(Box::new(entry.member), signature))
    }
}

/// What a department that wants to join says of itself.
pub struct Newcomer {
    /// Its ID.
    pub id: DepartmentId,
    /// Its name.
    pub title: Text,
    /// Whether its node is to vote.
    pub validator: bool,
    /// Where its node listens for the others.
    pub listen: SocketAddr,
    /// Where its node serves its API and pages.
    pub http: SocketAddr,
}

/// Writes the folder of a department that wants to join, and its signed entry.
pub async fn join(
    newcomer: Newcomer,
    genesis_file: &Path,
    roster_file: &Path,
    out: &Path,
    passphrase: &str,
    mut extra: impl FnMut(&mut Config),
) -> Result<(Credentials, PathBuf)> {
    let genesis = node::read_genesis(genesis_file)?;
    let roster = node::read_roster(roster_file)?;
    if roster.member(&newcomer.id).is_some() {
        bail!("{} is in this consortium already", newcomer.id);
    }
    let own = Credentials::random(genesis.suite);
    let text = std::fs::read_to_string(genesis_file)?;
    let mut config = config_of(&newcomer.id, newcomer.listen, newcomer.http);
    config.roster = Some("roster.json".into());
    write_node(out, &text, &own, passphrase, config, &mut extra)?;
    std::fs::copy(roster_file, out.join("roster.json"))?;
    skeleton(out, &newcomer.id).await?;
    let address = newcomer.listen.to_string();
    let member = own.member(newcomer.id, newcomer.title, newcomer.validator, address);
    let entry = Entry::sign(chain_id(&genesis), member, &own.keys.command);
    let file = out.join("entry.json");
    std::fs::write(&file, serde_json::to_string_pretty(&entry)?)?;
    Ok((own, file))
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
