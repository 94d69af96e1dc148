//! One department's node: ledger engine, gateway, flow and server, wired.

use crate::{Config, DemoDoor, SqliteVault, api, pages};
use axum::Router;
use chain::Chain;
use flow::{Flow, Package, Settings};
use gateway::{Connector, Gateway, Sqlite, Standard};
use ledger::Rules;
use model::Genesis;
use std::{net::SocketAddr, path::Path, sync::Arc};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
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
    pub flow: Flow<Sqlite>,
    /// Where it serves.
    pub http: SocketAddr,
    gateway: Arc<Gateway<Sqlite>>,
    vault: Arc<SqliteVault>,
    tasks: Vec<JoinHandle<()>>,
}

/// Reads a genesis file.
pub fn read_genesis(path: &Path) -> Result<Genesis, StartError> {
    let wrong = |e: String| StartError::File(format!("{}: {e}", path.display()));
    let text = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let genesis: Genesis = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
    genesis.check().map_err(wrong)?;
    Ok(genesis)
}

impl Node {
    /// Starts a node. The demo door exists only where the demo passes one in.
    pub async fn start(config: Config, passphrase: &str, door: Option<DemoDoor>) -> Result<Self, StartError> {
        let file = |e: &dyn std::fmt::Display| StartError::File(e.to_string());
        let genesis = read_genesis(&config.genesis)?;
        let keys = crypto::load_keys(&config.keys, passphrase)?;
        let standard = Standard::read(&config.standard).map_err(|e| file(&e))?;
        let connector = Connector::read(&config.connector).map_err(|e| file(&e))?;
        if connector.department != config.department {
            return Err(StartError::File(format!("{} is of another department", config.connector.display())));
        }
        let database = |source| StartError::Database { path: config.database.display().to_string(), source };
        let source = Sqlite::open(&config.database).await.map_err(database)?;
        let gateway = Arc::new(Gateway::open(connector, &standard, source).await.map_err(database)?);
        for problem in gateway.problems() {
            warn!(at = %problem.at, problem = %problem.message, "this is closed until its mapping fits the schema again");
        }
        let packages = config.matters.iter().map(|dir| Package::read(dir)).collect::<Result<Vec<_>, _>>();
        let packages = packages.map_err(|e| file(&e))?;
        let vault = Arc::new(SqliteVault::open(&config.vault, keys.storage.clone()).await?);
        let (sender, letters) = mpsc::channel(4096);
        let chain = chain::start(chain::Config {
            rules: Rules::of(genesis),
            department: config.department.clone(),
            node_key: keys.node.clone(),
            listen: config.listen,
            addresses: config.addresses.clone(),
            storage: config.ledger.clone(),
            letters: sender,
        })?;
        let (flow, follower) = Flow::start(Settings {
            chain,
            department: config.department.clone(),
            keys,
            vault: vault.clone(),
            gateway: gateway.clone(),
            packages,
            letters,
        });
        let listener =
            TcpListener::bind(config.http).await.map_err(|e| StartError::Listen(config.http, e))?;
        let http = listener.local_addr().map_err(|e| StartError::Listen(config.http, e))?;
        let state = Arc::new(api::Served {
            flow: flow.clone(),
            department: config.department.clone(),
            token: config.api_token.clone(),
            door,
            sessions: Default::default(),
        });
        let router: Router = api::router(state.clone()).merge(pages::router(state));
        let server = tokio::spawn(async move {
            if let Err(e) = axum::serve(listener, router).await {
                warn!(error = %e, "the HTTP server stopped");
            }
        });
        info!(department = %config.department, %http, "node started");
        Ok(Self { config, flow, http, gateway, vault, tasks: vec![follower, server] })
    }

    /// The ledger.
    pub fn chain(&self) -> &Chain {
        self.flow.chain()
    }

    /// The gateway.
    pub fn gateway(&self) -> &Gateway<Sqlite> {
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
