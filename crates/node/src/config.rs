//! `node.toml`: every setting with its default, unknown keys refused, each overridable as `TONGBAN_…`.

use model::DepartmentId;
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// The settings of one node. Paths are relative to the file's folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The department this node is of.
    pub department: DepartmentId,
    /// Where it listens for other nodes (`TONGBAN_LISTEN`).
    pub listen: SocketAddr,
    /// Where it serves its API and pages (`TONGBAN_HTTP`).
    pub http: SocketAddr,
    /// The genesis file.
    #[serde(default = "default_genesis")]
    pub genesis: PathBuf,
    /// The key file; its passphrase comes from `TONGBAN_PASSPHRASE`.
    #[serde(default = "default_keys")]
    pub keys: PathBuf,
    /// The folder of the ledger.
    #[serde(default = "default_ledger")]
    pub ledger: PathBuf,
    /// The database of the vault.
    #[serde(default = "default_vault")]
    pub vault: PathBuf,
    /// The department's own data (`TONGBAN_DATABASE`): a SQLite file, `postgres://…`, `mysql://…`, `files:FOLDER`, or a service at
    /// `http(s)://…`.
    pub database: String,
    /// The department's connector file.
    pub connector: PathBuf,
    /// How often the node looks whether the department's data still fits its connector, in seconds.
    #[serde(default = "default_connector_check_seconds")]
    pub connector_check_seconds: u64,
    /// The shared standard.
    pub standard: PathBuf,
    /// Folders of matter packages this department handles.
    #[serde(default)]
    pub matters: Vec<PathBuf>,
    /// The folder of packages that `tongban matter publish` hands to the running node.
    #[serde(default = "default_packages")]
    pub packages: PathBuf,
    /// The bearer token the API wants for anything but signed commands, reads of the ledger and health.
    #[serde(default)]
    pub api_token: Option<String>,
    /// Whether people reach this node through TLS alone, by a server before it (`TONGBAN_BEHIND_TLS`): cookies are then sent through
    /// TLS only, and browsers are told to come through TLS only.
    #[serde(default)]
    pub behind_tls: bool,
    /// Where the data platform serves (`tongban-lake serve`), for open data on this node's pages (`TONGBAN_PLATFORM`).
    #[serde(default)]
    pub platform: Option<String>,
    /// The calibration file of face verification (`TONGBAN_FACE`); without it no face is compared. `tongban face calibrate` writes it.
    #[serde(default)]
    pub face: Option<PathBuf>,
    /// The identity provider citizens sign in with on this node's pages; without it they come to the counter.
    #[serde(default)]
    pub portal: Option<crate::PortalSettings>,
    /// The department's message service (`TONGBAN_NOTICES`): who was identified at a terminal, or signed on its pad, is told through it.
    /// docs/notices.md says what it is sent.
    #[serde(default)]
    pub notices: Option<String>,
    /// The bearer token the message service wants (`TONGBAN_NOTICES_TOKEN`).
    #[serde(default)]
    pub notices_token: Option<String>,
    /// How many people one of this department's terminals may identify a day with their document or face alone; 0: any number. A
    /// clerk who makes up people reaches it (`TONGBAN_TERMINAL_PER_DAY`).
    #[serde(default = "default_terminal_per_day")]
    pub terminal_per_day: u32,
    /// The department's own service for changes of what it subscribes to (`TONGBAN_CHANGES`): each is handed to it as a CloudEvent.
    #[serde(default)]
    pub changes: Option<String>,
    /// The bearer token that service wants (`TONGBAN_CHANGES_TOKEN`).
    #[serde(default)]
    pub changes_token: Option<String>,
    /// How often, in seconds, the node looks whether what others subscribe to has changed in the department's data; 0: nobody may
    /// subscribe (`TONGBAN_WATCH_SECONDS`).
    #[serde(default = "default_watch_seconds")]
    pub watch_seconds: u64,
    /// The folder of this node's vote keys.
    #[serde(default = "default_votes")]
    pub votes: PathBuf,
    /// The file that is there until this validator has first voted: then an empty ledger folder is no lost one.
    #[serde(default = "default_first_start")]
    pub first_start: PathBuf,
    /// After how many epochs the node votes with a fresh key and destroys the old one; 0: never by itself.
    #[serde(default = "default_vote_key_epochs")]
    pub vote_key_epochs: u64,
    /// A roster file newer than the genesis, for a department that joined later: tells where the others' nodes listen.
    #[serde(default)]
    pub roster: Option<PathBuf>,
    /// An archive of this ledger (`tongban ledger export`): the node reads from it what it pruned.
    #[serde(default)]
    pub archive: Option<PathBuf>,
    /// Which calls this department lawfully withholds from its statements, on which ground, and until when.
    #[serde(default)]
    pub withheld: Vec<flow::Withholding>,
    /// The folder of the file.
    #[serde(skip)]
    pub dir: PathBuf,
}

fn default_connector_check_seconds() -> u64 {
    30
}
fn default_terminal_per_day() -> u32 {
    300
}
fn default_watch_seconds() -> u64 {
    60
}
fn default_packages() -> PathBuf {
    "packages".into()
}
fn default_votes() -> PathBuf {
    "votes".into()
}
fn default_first_start() -> PathBuf {
    "first-start".into()
}
fn default_vote_key_epochs() -> u64 {
    336
}

fn default_genesis() -> PathBuf {
    "genesis.json".into()
}
fn default_keys() -> PathBuf {
    "keys".into()
}
fn default_ledger() -> PathBuf {
    "ledger".into()
}
fn default_vault() -> PathBuf {
    "vault.db".into()
}

/// The address of a department's data, with a path of its own below a folder.
fn below(address: &str, dir: &Path) -> String {
    let local = |path: &str| dir.join(path).to_string_lossy().into_owned();
    match address.split_once(':') {
        // a connection string may hold anything, and names no path of ours
        Some(("odbc", _)) => address.to_owned(),
        _ if address.contains("://") => address.to_owned(),
        Some((kind @ ("files" | "sqlite"), path)) => format!("{kind}:{}", local(path)),
        _ => local(address),
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {message}")]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// What is wrong.
    pub message: String,
}

impl Config {
    /// Reads a file, applies the environment, and makes paths absolute.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let wrong = |message: String| ConfigError { file: file.clone(), message };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let mut config: Self = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        for (name, setting) in [("TONGBAN_LISTEN", &mut config.listen), ("TONGBAN_HTTP", &mut config.http)] {
            if let Ok(value) = std::env::var(name) {
                *setting = value
                    .parse()
                    .map_err(|_| wrong(format!("{name} is not an address like 127.0.0.1:8400")))?;
            }
        }
        if let Ok(value) = std::env::var("TONGBAN_DATABASE") {
            config.database = value;
        }
        if let Ok(value) = std::env::var("TONGBAN_PLATFORM") {
            config.platform = Some(value);
        }
        for (name, setting) in [
            ("TONGBAN_NOTICES", &mut config.notices),
            ("TONGBAN_NOTICES_TOKEN", &mut config.notices_token),
            ("TONGBAN_CHANGES", &mut config.changes),
            ("TONGBAN_CHANGES_TOKEN", &mut config.changes_token),
        ] {
            if let Ok(value) = std::env::var(name) {
                *setting = Some(value);
            }
        }
        if let Ok(value) = std::env::var("TONGBAN_TERMINAL_PER_DAY") {
            config.terminal_per_day =
                value.parse().map_err(|_| wrong("TONGBAN_TERMINAL_PER_DAY is not a number".into()))?;
        }
        if let Ok(value) = std::env::var("TONGBAN_WATCH_SECONDS") {
            config.watch_seconds =
                value.parse().map_err(|_| wrong("TONGBAN_WATCH_SECONDS is not a number".into()))?;
        }
        if let Ok(value) = std::env::var("TONGBAN_BEHIND_TLS") {
            config.behind_tls =
                value.parse().map_err(|_| wrong("TONGBAN_BEHIND_TLS is neither true nor false".into()))?;
        }
        if let (Some(portal), Ok(value)) = (&mut config.portal, std::env::var("TONGBAN_PORTAL_SECRET")) {
            portal.secret = Some(value);
        }
        if let Ok(value) = std::env::var("TONGBAN_FACE") {
            config.face = Some(value.into());
        }
        let whole = std::path::absolute(path).map_err(|e| wrong(e.to_string()))?;
        let dir = whole.parent().unwrap_or(Path::new("/"));
        config.dir = dir.to_owned();
        config.database = below(&config.database, dir);
        let paths = [
            &mut config.genesis,
            &mut config.keys,
            &mut config.ledger,
            &mut config.vault,
            &mut config.connector,
            &mut config.standard,
            &mut config.votes,
            &mut config.packages,
            &mut config.first_start,
        ];
        for path in paths
            .into_iter()
            .chain(config.matters.iter_mut())
            .chain(config.roster.as_mut())
            .chain(config.face.as_mut())
            .chain(config.portal.as_mut().map(|portal| &mut portal.key))
            .chain(config.archive.as_mut())
        {
            *path = dir.join(&*path);
        }
        Ok(config)
    }

    /// Connects to the department's own data.
    pub async fn connect(
        &self,
        connector: &gateway::Connector,
        read_only: bool,
    ) -> Result<gateway::Connected, gateway::SourceError> {
        gateway::Connected::open(&self.database, &self.dir, connector, read_only).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_wherever_the_file_is_named_from() {
        let home = tempfile::tempdir_in(".").unwrap();
        let file = Path::new(home.path().file_name().unwrap()).join("node.toml");
        let text = "department = 'water'\nlisten = '127.0.0.1:1'\nhttp = '127.0.0.1:2'\ndatabase = 'department.db'\nconnector = \
                    'connector.yaml'\nstandard = 'elements.yaml'\n";
        std::fs::write(&file, text).unwrap();
        let config = Config::read(&file).unwrap();
        let whole = std::env::current_dir().unwrap().join(file.parent().unwrap());
        assert_eq!(config.database, whole.join("department.db").display().to_string());
        assert_eq!(config.dir, whole);
        assert_eq!(config.keys, whole.join("keys"));
    }

    #[test]
    fn only_paths_are_below_the_configuration() {
        let below = |address: &str| below(address, Path::new("/etc/tongban"));
        assert_eq!(below("department.db"), "/etc/tongban/department.db");
        assert_eq!(below("sqlite:department.db"), "sqlite:/etc/tongban/department.db");
        assert_eq!(below("files:drop"), "files:/etc/tongban/drop");
        for whole in [
            "postgres://tongban:secret@10.0.0.5/registry",
            "https://gas.example/api",
            "odbc:DSN=registry;UID=tongban;PWD=a://b",
        ] {
            assert_eq!(below(whole), whole);
        }
    }
}
