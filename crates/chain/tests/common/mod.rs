//! Departments with their nodes on this machine, over real sockets.
#![allow(dead_code, reason = "not every test needs everything")]

use chain::{Chain, Config};
use crypto::{Credentials, SigningKey, VoteKeys, signed};
use ledger::Rules;
use model::*;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::mpsc;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// Vote keys in memory.
#[derive(Default)]
pub struct Kept(Mutex<Vec<SigningKey>>);

impl Kept {
    pub fn fresh(&self, suite: Suite) -> SigningKey {
        let key = SigningKey::random(suite);
        self.0.lock().unwrap().push(key.clone());
        key
    }
}

impl VoteKeys for Kept {
    fn find(&self, public: &PublicKey) -> Option<SigningKey> {
        self.0.lock().unwrap().iter().find(|k| k.public() == *public).cloned()
    }
}

/// A department and its node.
pub struct Department {
    pub id: DepartmentId,
    pub own: Credentials,
    pub listen: SocketAddr,
    pub votes: Arc<Kept>,
    pub archive: Mutex<Option<PathBuf>>,
}

pub fn department(i: usize, suite: Suite) -> Department {
    let own = Credentials::random(suite);
    let votes = Kept(Mutex::new(vec![own.vote.clone()]));
    Department {
        id: format!("d{i}").parse().unwrap(),
        own,
        listen: free_address(),
        votes: Arc::new(votes),
        archive: Mutex::default(),
    }
}

pub fn departments(n: usize, suite: Suite) -> Vec<Department> {
    (0..n).map(|i| department(i, suite)).collect()
}

impl Department {
    pub fn member(&self, validator: bool) -> Member {
        let title = Text { zh: self.id.to_string(), en: self.id.to_string() };
        self.own.member(self.id.clone(), title, validator, self.listen.to_string())
    }

    pub fn start(&self, rules: &Rules, dir: &Path) -> Chain {
        self.start_with(rules, dir.join(self.id.as_str()), true, vec![])
    }

    pub fn start_with(
        &self,
        rules: &Rules,
        storage: PathBuf,
        first_start: bool,
        introductions: Vec<(NodeKey, String)>,
    ) -> Chain {
        let (letters, _) = mpsc::channel(16);
        chain::start(Config {
            rules: rules.clone(),
            department: self.id.clone(),
            node_key: self.own.keys.node.clone(),
            vote_keys: self.votes.clone(),
            first_start,
            listen: self.listen,
            introductions,
            storage,
            archive: self.archive.lock().unwrap().clone(),
            letters,
        })
        .unwrap()
    }

    pub fn command(&self, rules: &Rules, nonce: u64, body: Body) -> bytes::Bytes {
        let command = Command {
            chain: rules.chain,
            signer: self.id.clone(),
            nonce,
            expires_ms: now_ms() + 60_000,
            body,
        };
        encode(&signed(&self.own.keys.command, command)).into()
    }

    /// Stops its node; when this returns, its port is free.
    pub async fn stop(&self, chain: &Chain) {
        chain.stop();
        chain.stopped().await;
        while std::net::TcpListener::bind(self.listen).is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn anchor(&self, rules: &Rules, nonce: u64) -> bytes::Bytes {
        self.command(rules, nonce, Body::Anchor(Anchor { topic: "test".parse().unwrap(), data: vec![7; 64] }))
    }
}

pub fn genesis(departments: &[Department], validators: usize, epoch_blocks: u64) -> Genesis {
    let members = departments.iter().enumerate().map(|(i, d)| d.member(i < validators)).collect();
    let genesis = Genesis {
        format: 1,
        name: "test".into(),
        suite: departments[0].own.keys.command.public().suite(),
        time_ms: now_ms(),
        epoch_blocks,
        protocol: 1,
        approvals: 3,
        members,
    };
    genesis.check().unwrap();
    genesis
}

pub fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A port below the range that outgoing connections take theirs from.
pub fn free_address() -> SocketAddr {
    // no two of this process are the same, nor those of two processes that start together
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 12_000 + (std::process::id() % 200) as u16 * 100;
    let port = || base + NEXT.fetch_add(1, SeqCst) % 100;
    let bound = std::iter::repeat_with(port).find_map(|p| std::net::TcpListener::bind(("127.0.0.1", p)).ok());
    bound.unwrap().local_addr().unwrap()
}

/// Proposes a change and lets three departments approve it; the epoch from which it is in force.
pub async fn adopt(rules: &Rules, by: &[&Department], chain: &Chain, change: Change) -> u64 {
    let expires_ms = now_ms() + 3_600_000;
    let message = Propose::signing_bytes(&rules.chain, &by[0].id, &change, expires_ms);
    let proposal = Propose { change, expires_ms, officer: by[0].own.system.sign(&message) };
    let nonce = u64::from_le_bytes(crypto::random());
    let command = by[0].command(rules, nonce, Body::Propose(proposal));
    let event = chain.submit_and_wait(vec![command], PATIENCE).await.remove(0).unwrap();
    assert_eq!(event.outcome, Outcome::Accepted(Fact::Recorded));
    let proposal = ProposalId(event.id.0);
    let mut last = event.outcome;
    for department in &by[..3] {
        let message = Approve::signing_bytes(&rules.chain, &department.id, &proposal);
        let approval = Approve { proposal, officer: department.own.security.sign(&message) };
        let command = department.command(rules, nonce, Body::Approve(approval));
        last = chain.submit_and_wait(vec![command], PATIENCE).await.remove(0).unwrap().outcome;
    }
    let Outcome::Accepted(Fact::Adopted(epoch)) = last else { panic!("{last:?}") };
    epoch
}
