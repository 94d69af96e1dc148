//! One department's node: ledger engine, gateway, flow and server, wired.

use crate::{
    Config, DemoDoor, SqliteVault, api,
    face::Booth,
    matters,
    notices::{self, Service},
    officers::Officers,
    pages,
    portal::Portal,
    publications,
    resources::Files,
    serve,
    session::Sessions,
    subscriptions,
    tokens::Tokens,
    votes,
};
use axum::Router;
use chain::Chain;
use flow::{Flow, Package, Settings};
use gateway::{Connected, Connector, Gateway, Source as _, Standard};
use ledger::Rules;
use model::{DepartmentId, Genesis, Roster};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tracing::{info, warn};

/// Why a node cannot start, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file is missing or wrong.
    #[error("{0}")]
    File(String),
    /// The keys do not open.
    #[error(transparent)]
    Keys(#[from] crypto::KeyFileError),
    /// The department's database cannot be used.
    #[error("the department's database {path}: {source}")]
    Database {
        /// The file.
        path: String,
        /// Why.
        source: gateway::SourceError,
    },
    /// The vault cannot be used.
    #[error(transparent)]
    Vault(#[from] flow::VaultError),
    /// The ledger engine cannot start.
    #[error(transparent)]
    Chain(#[from] chain::StartError),
    /// The address is taken.
    #[error("cannot listen on {0}: {1}; is another node running there?")]
    Listen(SocketAddr, std::io::Error),
}

/// A running node.
pub struct Node {
    /// Its configuration.
    pub config: Config,
    /// Its flow.
    pub flow: Flow<Connected>,
    /// Where it serves.
    pub http: SocketAddr,
    gateway: Arc<Gateway<Connected>>,
    vault: Arc<SqliteVault>,
    tasks: Vec<JoinHandle<()>>,
    /// Held for as long as the node uses its ledger folder.
    _claim: File,
}

/// Claims a ledger folder for one process, of one department on one ledger.
fn claim(folder: &Path, genesis: &Genesis, department: &DepartmentId) -> Result<File, StartError> {
    let wrong = |what: String| StartError::File(format!("ledger folder {}: {what}", folder.display()));
    let io = |e: std::io::Error| wrong(e.to_string());
    std::fs::create_dir_all(folder).map_err(io)?;
    let mut options = File::options();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(folder.join("owner")).map_err(io)?;
    file.try_lock().map_err(|_| wrong("another process runs on it; stop that one first".into()))?;
    let mut found = String::new();
    file.read_to_string(&mut found).map_err(io)?;
    let own = format!("{department} on {}\n", crypto::chain_id(genesis));
    if found.is_empty() {
        file.write_all(own.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    } else if found != own {
        return Err(wrong(format!("it belongs to {}, and this is the node of {}", found.trim(), own.trim())));
    }
    Ok(file)
}

/// Reads a genesis file.
pub fn read_genesis(path: &Path) -> Result<Genesis, StartError> {
    let wrong = |e: String| StartError::File(format!("{}: {e}", path.display()));
    let text = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let genesis: Genesis = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
    genesis.check().map_err(wrong)?;
    Ok(genesis)
}

/// Reads a roster file: where the nodes of a consortium listen that changed since its genesis. It is a hint and nothing more.
pub fn read_roster(path: &Path) -> Result<Roster, StartError> {
    let wrong = |e: String| StartError::File(format!("{}: {e}", path.display()));
    let text = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))
}

fn closed(problem: &gateway::Problem) {
    // a file that cannot be taken in was said where it was found
    if problem.at.starts_with("table ") {
        return;
    }
    warn!(at = %problem.at, problem = %problem.message, "this is closed until its mapping fits the schema again");
}

/// Says that the department is not in the consortium, where the node still knows nothing of it after a while.
async fn say_where_it_is_not_in(chain: Chain, department: DepartmentId) {
    tokio::time::sleep(Duration::from_secs(10)).await;
    if chain.height() == 0 && chain.roster().1.member(&department).is_none() {
        warn!(%department, "not in the consortium as far as known here; the node follows once its department is taken in");
    }
}

/// Says that citizens cannot sign in although there is a provider, where the ledger takes no word of the portal's.
async fn say_where_citizens_cannot_sign_in(served: Arc<api::Served>) {
    tokio::time::sleep(Duration::from_secs(10)).await;
    if let (Some(portal), None) = (&served.portal, served.portal()) {
        let key = portal.terminal.public();
        warn!(%key, "citizens cannot sign in: the portal's key is not enrolled (`tongban terminal enrol`), or the ledger's protocol is below 8");
    }
}

/// Finds out that the department's database no longer fits its connector, or fits again.
async fn look_again(gateway: Arc<Gateway<Connected>>, files: Arc<Files>, every: Duration) {
    let mut outdated = false;
    loop {
        tokio::time::sleep(every).await;
        if outdated != files.changed() {
            outdated = !outdated;
            if outdated {
                warn!(
                    "the connector or the standard was changed: the node answers by the old files until it is started again"
                );
            }
        }
        let before = gateway.problems().len();
        match gateway.refresh().await {
            Ok(new) => {
                new.iter().for_each(closed);
                if before > 0 && gateway.problems().is_empty() {
                    info!("everything fits the department's data again, and serves");
                }
            }
            Err(e) => warn!(error = %e, "the department's database cannot be looked at"),
        }
    }
}

impl Node {
    /// Starts a node. The demo door exists only where the demo passes one in.
    pub async fn start(config: Config, passphrase: &str, door: Option<DemoDoor>) -> Result<Self, StartError> {
        let file = |e: &dyn std::fmt::Display| StartError::File(e.to_string());
        let genesis = read_genesis(&config.genesis)?;
        let claim = claim(&config.ledger, &genesis, &config.department)?;
        let keys = crypto::load_keys(&config.keys, passphrase)?;
        let files = Files::read(&[&config.connector, &config.standard]).map_err(|e| {
            let (connector, standard) = (config.connector.display(), config.standard.display());
            StartError::File(format!("reading {connector} and {standard}: {e}"))
        })?;
        let files = Arc::new(files);
        let standard = Standard::read(&config.standard).map_err(|e| file(&e))?;
        let connector = Connector::read(&config.connector).map_err(|e| file(&e))?;
        if connector.department != config.department {
            return Err(StartError::File(format!("{} is of another department", config.connector.display())));
        }
        let database = |source| StartError::Database { path: gateway::shown(&config.database), source };
        let source = config.connect(&connector, false).await.map_err(database)?;
        let gateway = Arc::new(Gateway::open(connector, &standard, source).await.map_err(database)?);
        for problem in gateway.problems() {
            closed(&problem);
        }
        let packages = config.matters.iter().map(|dir| Package::read(dir)).collect::<Result<Vec<_>, _>>();
        let mut packages = packages.map_err(|e| file(&e))?;
        packages.extend(matters::kept(&config.packages).map_err(|e| file(&e))?);
        let booth = config.face.as_deref().map(Booth::open).transpose().map_err(|e| file(&e))?;
        let portal = match &config.portal {
            Some(settings) => Some(Portal::open(settings, passphrase, genesis.suite).map_err(|e| file(&e))?),
            None => None,
        };
        let vault = Arc::new(SqliteVault::open(&config.vault, keys.storage.clone()).await?);
        // the engine takes this address on its own thread; here it can still be said plainly that it is taken
        drop(std::net::TcpListener::bind(config.listen).map_err(|e| StartError::Listen(config.listen, e))?);
        let tokens = Tokens::open(vault.clone()).await?;
        let (sender, letters) = mpsc::channel(4096);
        let introduced = config.roster.as_deref().map(read_roster).transpose()?;
        let introduced = introduced.map(|roster| roster.members).unwrap_or_default().into_iter();
        let vote_keys = Arc::new(crypto::VoteKeyFolder::open(&config.votes, keys.storage.clone())?);
        let chain = chain::start(chain::Config {
            rules: Rules::of(genesis),
            department: config.department.clone(),
            node_key: keys.node.clone(),
            vote_keys: vote_keys.clone(),
            first_start: config.first_start.exists(),
            listen: config.listen,
            introductions: introduced.map(|m| (m.node_key, m.address)).collect(),
            storage: config.ledger.clone(),
            archive: config.archive.clone(),
            letters: sender,
        })?;
        let flow = Flow::start(Settings {
            chain,
            department: config.department.clone(),
            keys,
            vault: vault.clone(),
            gateway: gateway.clone(),
            packages,
            withholdings: config.withheld.clone(),
            watch_every: Duration::from_secs(config.watch_seconds),
            letters,
        });
        let keeping =
            votes::keep(flow.clone(), vote_keys, config.vote_key_epochs, config.first_start.clone());
        let keeping = tokio::spawn(keeping);
        let listener =
            TcpListener::bind(config.http).await.map_err(|e| StartError::Listen(config.http, e))?;
        let http = listener.local_addr().map_err(|e| StartError::Listen(config.http, e))?;
        let state = Arc::new(api::Served {
            flow: flow.clone(),
            gateway: gateway.clone(),
            files: files.clone(),
            department: config.department.clone(),
            token: config.api_token.clone(),
            packages: config.packages.clone(),
            platform: config.platform.as_deref().map(publications::Platform::new),
            terminal_per_day: (config.terminal_per_day > 0).then_some(config.terminal_per_day),
            booth,
            door,
            portal,
            sessions: Sessions::new(config.behind_tls),
            verifying: Arc::new(Semaphore::new(api::VERIFYING_AT_ONCE)),
            newest: Default::default(),
            tokens,
            officers: Officers::new(
                vault.clone(),
                config.department.to_string(),
                flow.chain().rules().suite(),
            ),
        });
        if state.portal.is_some() {
            tokio::spawn(say_where_citizens_cannot_sign_in(state.clone()));
        }
        let router: Router =
            api::router(state.clone()).merge(publications::router(state.clone())).merge(pages::router(state));
        let router = serve::guarded(router, config.behind_tls, serve::PATIENCE);
        let server = tokio::spawn(serve::serve(listener, router, serve::PATIENCE));
        if !http.ip().is_loopback() && !config.behind_tls {
            warn!(%http, "pages and the API are served without TLS to other machines: see `behind_tls` in docs/operations.md");
        }
        info!(department = %config.department, %http, "node started");
        tokio::spawn(say_where_it_is_not_in(flow.chain().clone(), config.department.clone()));
        let every = Duration::from_secs(config.connector_check_seconds.max(1));
        let looking = tokio::spawn(look_again(gateway.clone(), files, every));
        let service = config.notices.as_deref().map(|url| Service::new(url, config.notices_token.clone()));
        let telling = tokio::spawn(notices::keep(flow.clone(), vault.clone(), service));
        let mut tasks = vec![server, keeping, looking, telling];
        if let Some(url) = &config.changes {
            let service = Service::new(url, config.changes_token.clone());
            tasks.push(tokio::spawn(subscriptions::hand_on(flow.clone(), vault.clone(), service)));
        }
        Ok(Self { config, flow, http, gateway, vault, tasks, _claim: claim })
    }

    /// The ledger.
    pub fn chain(&self) -> &Chain {
        self.flow.chain()
    }

    /// The gateway.
    pub fn gateway(&self) -> &Gateway<Connected> {
        &self.gateway
    }

    /// Stops everything; what is on disk stays.
    pub async fn stop(self) {
        self.chain().stop();
        for task in &self.tasks {
            task.abort();
        }
        self.vault.close().await;
        self.gateway.source().close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::Credentials;
    use model::{Suite, Text};

    fn genesis(name: &str) -> Genesis {
        let suite = Suite::International;
        let member = |i: usize| {
            let title = Text { zh: format!("部门{i}"), en: format!("Department {i}") };
            let id = format!("d{i}").parse().unwrap();
            Credentials::random(suite).member(id, title, true, "127.0.0.1:1".into())
        };
        Genesis {
            format: 1,
            name: name.into(),
            suite,
            time_ms: 1,
            epoch_blocks: 8,
            protocol: 1,
            approvals: 2,
            members: (0..4).map(member).collect(),
        }
    }

    #[test]
    fn a_ledger_folder_serves_one_process_of_one_department_on_one_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("ledger");
        let (one, other) = (genesis("one"), genesis("other"));
        let (d0, d1) = ("d0".parse().unwrap(), "d1".parse().unwrap());
        let held = claim(&folder, &one, &d0).unwrap();
        let error = claim(&folder, &one, &d0).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        drop(held);
        drop(claim(&folder, &one, &d0).unwrap());
        for (genesis, department) in [(&one, &d1), (&other, &d0)] {
            let error = claim(&folder, genesis, department).unwrap_err().to_string();
            assert!(error.contains("it belongs to d0 on"), "{error}");
        }
    }
}
