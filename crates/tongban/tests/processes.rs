//! A consortium of separate processes: killed validators lose nothing and fork nothing.

use anyhow::Result;
use bytes::{BufMut as _, BytesMut};
use model::*;
use node::Config;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tongban::{
    city::{City, Exception, Sale},
    client::Client,
    demo::{self, Driver},
    setup::node_dir,
};

struct Processes {
    dir: std::path::PathBuf,
    children: BTreeMap<DepartmentId, Child>,
}

impl Processes {
    fn start(&mut self, id: &DepartmentId) {
        let child = Command::new(env!("CARGO_BIN_EXE_tongban"))
            .args(["node", "--config"])
            .arg(node_dir(&self.dir, id).join("node.toml"))
            .env("TONGBAN_PASSPHRASE", demo::PASSPHRASE)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(node_dir(&self.dir, id).join("log")).unwrap())
            .spawn()
            .unwrap();
        self.children.insert(id.clone(), child);
    }

    /// `kill -9`.
    fn kill(&mut self, id: &str) {
        let mut child = self.children.remove(&id.parse::<DepartmentId>().unwrap()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn config(dir: &Path, id: &DepartmentId) -> Config {
    Config::read(&node_dir(dir, id).join("node.toml")).unwrap()
}

/// Signs and submits commands at their own departments' nodes and waits until all are final.
async fn publish(dir: &Path, made: &tongban::setup::Made, commands: Vec<(DepartmentId, Body)>) -> Result<()> {
    for (id, body) in commands {
        let expires_ms =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64 + 60_000;
        let command = Command_ { chain: made.chain, signer: id.clone(), nonce: 1, expires_ms, body };
        let bytes = encode(&crypto::signed(&made.keys[&id].command, command));
        let mut batch = BytesMut::new();
        batch.put_u32_le(bytes.len() as u32);
        batch.put_slice(&bytes);
        let answer = Client::new(config(dir, &id).http, "").commands(batch.to_vec()).await?;
        assert_eq!(answer[0], 0, "a command of {id} is accepted");
    }
    Ok(())
}

use model::Command as Command_;

async fn height(client: &Client) -> u64 {
    let status: Value = client.get("/api/v1/status").await.unwrap();
    status["height"].as_u64().unwrap()
}

fn spawn(driver: &Driver, sales: &[Sale]) -> Vec<tokio::task::JoinHandle<Result<Vec<demo::CaseReport>>>> {
    sales
        .iter()
        .cloned()
        .map(|sale| {
            let driver = driver.clone();
            tokio::spawn(async move { driver.run(&sale).await })
        })
        .collect()
}

async fn all_closed(
    tasks: Vec<tokio::task::JoinHandle<Result<Vec<demo::CaseReport>>>>,
) -> Vec<demo::CaseReport> {
    let mut reports = Vec::new();
    for task in tasks {
        let report = task.await.unwrap().unwrap().remove(0);
        assert_eq!(report.outcome, "closed");
        reports.push(report);
    }
    reports
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_validators_lose_nothing_and_fork_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("city");
    let city = Arc::new(City::new(3));
    let port = demo::free_addresses(1).unwrap()[0].port();
    let made = demo::write_consortium(&dir, port, &city).await.unwrap();
    let mut processes = Processes { dir: dir.clone(), children: BTreeMap::new() };
    for id in made.keys.keys() {
        processes.start(id);
    }
    let bureau: DepartmentId = "bureau".parse().unwrap();
    let bureau = Client::new(config(&dir, &bureau).http, config(&dir, &bureau).api_token.as_deref().unwrap());
    let begun = Instant::now();
    while bureau.get_bytes("/readyz").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the consortium came up");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let door = demo::door(&city);
    let resources = made.keys.keys().flat_map(|id| {
        let connector = gateway::Connector::read(&config(&dir, id).connector).unwrap();
        connector.resources.into_iter().map(move |r| (id.clone(), r))
    });
    for round in demo::publications(resources.collect(), door.terminal.public()).unwrap() {
        publish(&dir, &made, round).await.unwrap();
    }
    let driver = Driver::new(bureau.clone(), made.chain, door, dir.join("receipts"));
    let plain: Vec<_> = city.sales.iter().filter(|s| s.exception.is_none()).cloned().collect();
    assert!(plain.iter().all(|s| s.exception != Some(Exception::PowerDown)));

    // one of four validators dies while cases run: nothing stops, nothing is lost
    let tasks = spawn(&driver, &plain[..8]);
    tokio::time::sleep(Duration::from_millis(700)).await;
    processes.kill("audit");
    all_closed(tasks).await;

    // the second dies: no block becomes final, and no case advances
    processes.kill("police");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stopped_at = height(&bureau).await;
    let tasks = spawn(&driver, &plain[8..14]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(height(&bureau).await, stopped_at, "two of four make no block final");

    // one returns: everything that waited is done
    processes.start(&"police".parse().unwrap());
    let reports = all_closed(tasks).await;
    let genesis = node::read_genesis(&dir.join("genesis.json")).unwrap();
    for receipt in reports.iter().flat_map(|r| &r.receipts) {
        proof::verify(&std::fs::read(receipt).unwrap(), &genesis).unwrap();
    }

    // the other returns, catches up, and every node has the same blocks
    processes.start(&"audit".parse().unwrap());
    let tip = height(&bureau).await;
    for id in ["audit", "police", "registry", "power", "tax"] {
        let client = Client::new(config(&dir, &id.parse().unwrap()).http, "");
        let begun = Instant::now();
        while client.get::<Value>(&format!("/api/v1/blocks/{tip}")).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{id} catches up");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for height in [1, stopped_at, stopped_at + 1, tip] {
            let path = format!("/api/v1/blocks/{height}");
            assert_eq!(client.get::<Value>(&path).await.unwrap(), bureau.get::<Value>(&path).await.unwrap());
        }
    }

    // the demo's door is in no other mode: a node on its own offers nobody to sign in as
    let page = bureau.get_bytes("/").await.unwrap();
    assert!(!String::from_utf8_lossy(&page).contains("/demo/enter"), "no persona outside the demo");
}
