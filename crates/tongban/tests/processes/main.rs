//! A consortium of separate processes: killed validators lose nothing and fork nothing.

#[path = "../common/mod.rs"]
mod common;
mod connecting;
mod keeping;
mod lists;
mod matters;
mod platform;
#[path = "../common/service.rs"]
mod service;
mod sharing;
mod subscriptions;

use anyhow::Result;
use bytes::{BufMut as _, BytesMut};
use keeping::a_pruned_node_and_one_from_a_backup_know_all_they_knew;
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
    city::City,
    client::Client,
    demo,
    play::{CaseReport, Casting, Driver, Play},
    setup::node_dir,
    stage,
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
            .env("RUST_LOG", "info,sqlx=debug")
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
        let bytes = encode(&crypto::signed(&made.keys[&id].keys.command, command));
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

/// Blocks of an epoch: some pass in the test.
const EPOCH_BLOCKS: u64 = 256;

/// How many cases run at once.
const AT_ONCE: usize = 6;

fn spawn(driver: &Driver, plays: &[Play]) -> Vec<tokio::task::JoinHandle<Result<Vec<CaseReport>>>> {
    let gate = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    plays
        .iter()
        .cloned()
        .map(|play| {
            let (driver, gate) = (driver.clone(), gate.clone());
            tokio::spawn(async move {
                let _permit = gate.acquire_owned().await?;
                driver.run(&play).await
            })
        })
        .collect()
}

fn ended<T>(tasks: &[tokio::task::JoinHandle<T>]) -> usize {
    tasks.iter().filter(|t| t.is_finished()).count()
}

async fn all_closed(tasks: Vec<tokio::task::JoinHandle<Result<Vec<CaseReport>>>>) -> Vec<CaseReport> {
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
    let matters = stage::matters(&["house-transfer".into()]).unwrap();
    let made = demo::write_consortium(&dir, port, Suite::International, EPOCH_BLOCKS, &city, &matters)
        .await
        .unwrap();
    let gas = node_dir(&dir, &"gas".parse().unwrap()).join("node.toml");
    let toml = std::fs::read_to_string(&gas).unwrap();
    std::fs::write(&gas, toml.replace("connector_check_seconds = 30", "connector_check_seconds = 1"))
        .unwrap();
    let changes = service::Service::start().await.unwrap();
    subscriptions::set_up(&dir, &changes);
    let mut processes = Processes { dir: dir.clone(), children: BTreeMap::new() };
    for id in made.keys.keys() {
        processes.start(id);
    }
    let bureau: DepartmentId = "bureau".parse().unwrap();
    let bureau = Client::new(config(&dir, &bureau).http, config(&dir, &bureau).api_token.as_deref().unwrap());
    ready(&bureau).await;
    for id in made.keys.keys() {
        ready(&Client::new(config(&dir, id).http, "")).await;
    }
    let door = demo::door(vec![], Suite::International);
    let resources = made.keys.keys().flat_map(|id| {
        let connector = gateway::Connector::read(&config(&dir, id).connector).unwrap();
        connector.resources.into_iter().map(move |r| (id.clone(), r))
    });
    for round in demo::publications(resources.collect(), door.terminal.public(), &matters).unwrap() {
        publish(&dir, &made, round).await.unwrap();
    }
    let driver = Driver::new(bureau.clone(), made.chain, door, dir.clone());
    let mut casting = Casting::new(city.clone());
    let plain: Vec<_> = (0..CASES + 8).map(|_| casting.cast(&matters[0], demo::PLAIN).unwrap()).collect();
    let unpaid = casting.cast(&matters[0], "tax-unpaid").unwrap();

    hostile_bodies_are_answered_with_problems(&dir).await;
    connecting::the_catalogue_follows_the_connectors(&dir);
    connecting::a_query_is_tried(&dir, &city.sales[0]);
    connecting::drift_closes_what_it_touches(&dir).await;

    // one of four validators dies in the middle of a hundred cases: nothing stops, nothing is lost
    let tasks = spawn(&driver, &plain[..CASES]);
    when(|| ended(&tasks) >= 15).await;
    processes.kill("audit");
    let before = ended(&tasks);
    when(|| ended(&tasks) >= before + 25).await;

    // the second dies: no block becomes final, and no case advances
    processes.kill("police");
    // what was under way may still end; then everything stands, where idle blocks would come every second
    let begun = Instant::now();
    let (stopped_at, before) = loop {
        let at = (height(&bureau).await, ended(&tasks));
        tokio::time::sleep(Duration::from_secs(4)).await;
        if at == (height(&bureau).await, ended(&tasks)) {
            break at;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(40),
            "two of four make no block final, and no case advances"
        );
    };
    assert!(before < CASES - 20, "it is still in the middle: {before}");

    // one returns: everything that waited is done
    processes.start(&"police".parse().unwrap());
    let reports = all_closed(tasks).await;
    assert_eq!(reports.len(), CASES);
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
            assert!(begun.elapsed() < Duration::from_secs(180), "{id} catches up");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for height in (1..=tip).step_by(7).chain([stopped_at, stopped_at + 1, tip]) {
            let path = format!("/api/v1/blocks/{height}");
            assert_eq!(client.get::<Value>(&path).await.unwrap(), bureau.get::<Value>(&path).await.unwrap());
        }
    }

    a_parked_case_goes_on(&dir, &driver, &unpaid, &bureau).await;
    matters::a_matter_is_added_with_files_alone(&dir, &driver, &mut casting, &bureau).await;
    lists::calls_are_asked_by_lists(&dir, &driver, &mut casting, &bureau, &mut processes).await;

    sharing::departments_come_to_share(&dir);
    sharing::budgets_hold(&dir, &driver, &bureau, &plain[CASES + 1..CASES + 5]).await;
    sharing::an_objection_is_answered(&dir, &bureau, &reports[0].id).await;
    sharing::the_day_is_reconciled(&dir, &city).await;

    sharing::a_holders_policy_decides(&dir, &driver, &bureau, &plain[CASES + 7]).await;

    subscriptions::a_change_before_the_pivot_stops_the_case(&dir, &driver, &plain[CASES + 6], &bureau).await;
    subscriptions::a_change_after_the_end_is_told(
        &dir,
        &driver,
        &mut casting,
        &bureau,
        &changes,
        &mut processes,
    )
    .await;

    what_a_node_needs_is_looked_at(&dir);
    nobody_is_overrun(config(&dir, &"bureau".parse().unwrap()).http).await;
    platform::a_department_answers_from_the_platform(&dir, &mut processes, &driver, &plain[CASES]).await;

    a_department_joins_and_another_leaves(&dir, &mut processes, &bureau).await;
    // what was proved before the consortium changed holds after, from the genesis alone
    for receipt in reports.iter().flat_map(|r| &r.receipts).step_by(97) {
        proof::verify(&std::fs::read(receipt).unwrap(), &genesis).unwrap();
    }
    // and what is done now holds too, and brings the changes along
    let report = driver.run(&plain[CASES + 5]).await.unwrap().remove(0);
    assert_eq!(report.outcome, "closed");
    for receipt in &report.receipts {
        let bytes = std::fs::read(receipt).unwrap();
        let receipt: proof::Receipt = serde_json::from_slice(&bytes).unwrap();
        assert!(!receipt.rosters.is_empty());
        proof::verify(&bytes, &genesis).unwrap();
        let mut without = receipt;
        without.rosters.pop();
        assert!(proof::verify(&without.to_bytes(), &genesis).is_err(), "no change can be left out");
    }
    let receipt = std::path::PathBuf::from(&report.receipts[0]);
    second_verifier(&dir, &receipt);

    let archive = the_ledger_is_archived_and_applied_again(&dir, temporary.path());
    sharing::a_policy_is_tried_on_the_past(&dir, &archive);

    a_published_header_pins_the_past(&dir, &reports[0], temporary.path());

    a_holder_states_and_is_held_to_it(&dir, &plain[0], &archive, temporary.path());

    a_pruned_node_and_one_from_a_backup_know_all_they_knew(&dir, &mut processes, &reports, temporary.path())
        .await;

    matters::it_is_still_there(&dir);

    // nobody is in a ledger, vault, log or metric
    let mut metrics = Vec::new();
    for id in made.keys.keys() {
        let client = Client::new(config(&dir, id).http, "");
        metrics.push((format!("the metrics of {id}"), client.get_bytes("/metrics").await.unwrap()));
    }
    assert!(metrics.iter().all(|(_, text)| text.len() > 1_000));
    common::check_nobody_is_on_the_ledger(&dir, metrics).await;

    // the demo's door is in no other mode: a node on its own offers nobody to sign in as
    let page = bureau.get_bytes("/").await.unwrap();
    assert!(!String::from_utf8_lossy(&page).contains("/demo/enter"), "no persona outside the demo");
}

/// The page's verifier agrees, where Node.js is there to run it.
fn second_verifier(dir: &Path, receipt: &Path) {
    let cli = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/assets/verify-cli.mjs");
    match Command::new("node").arg(cli).arg(dir.join("genesis.json")).arg(receipt).output() {
        Ok(out) => assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout)),
        Err(_) => eprintln!("skipped: node is not installed"),
    }
}

fn tongban(arguments: &[&str]) -> (Option<i32>, Value) {
    let out = Command::new(env!("CARGO_BIN_EXE_tongban"))
        .args(arguments)
        .env("TONGBAN_PASSPHRASE", demo::PASSPHRASE)
        .output()
        .unwrap();
    (out.status.code(), serde_json::from_slice(&out.stdout).unwrap_or_default())
}

/// A running node is well; one whose vote key is gone, and one started twice, are told so.
fn what_a_node_needs_is_looked_at(dir: &Path) {
    let config =
        |id: &str| node_dir(dir, &id.parse().unwrap()).join("node.toml").to_str().unwrap().to_owned();
    let look = |id: &str| tongban(&["doctor", "--json", "--config", &config(id)]);
    let (code, report) = look("police");
    assert_eq!(code, Some(0), "{report}");
    assert!(report["checks"].as_array().unwrap().len() >= 9, "{report}");
    // nobody else reads the settings, and doctor sees where somebody could
    let settings = |report: &Value| {
        let check = report["checks"].as_array().unwrap().iter().find(|c| c["name"] == "settings").cloned();
        check.unwrap()["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(settings(&report), "ok", "{report}");
    let mode = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(config("police"), mode).unwrap();
    };
    mode(0o644);
    assert_eq!(settings(&look("police").1), "warning");
    mode(0o600);
    // its running node goes on with the right ones
    let toml = std::fs::read_to_string(config("police")).unwrap();
    let elsewhere = config("police").replace("node.toml", "elsewhere.toml");
    std::fs::write(
        &elsewhere,
        format!("votes = \"votes-elsewhere\"\n{}", toml.replace("votes = ", "# votes = ")),
    )
    .unwrap();
    let (code, report) = tongban(&["doctor", "--json", "--config", &elsewhere]);
    assert_eq!(code, Some(1));
    let failed = report["checks"].as_array().unwrap().iter().find(|c| c["status"] == "failed").unwrap();
    assert_eq!(failed["name"], "vote key");
    let twice = Command::new(env!("CARGO_BIN_EXE_tongban"))
        .args(["node", "--config", &config("police")])
        .env("TONGBAN_PASSPHRASE", demo::PASSPHRASE)
        .output()
        .unwrap();
    assert_eq!(twice.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&twice.stderr).contains("another process runs on it"));
}

/// What anybody may send costs a bounded time, and no answer can be used against whoever reads it in a browser.
async fn nobody_is_overrun(address: std::net::SocketAddr) {
    let http = reqwest::Client::new();
    let commands = format!("http://{address}/api/v1/commands");
    let batch = |n: usize| [4u32.to_le_bytes(), [7; 4]].concat().repeat(n);
    let answer = http.post(&commands).body(batch(1024)).send().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap().chunks(9).filter(|a| a[0] == 2).count(), 1024);
    assert_eq!(http.post(&commands).body(batch(1025)).send().await.unwrap().status(), 400);
    for path in [
        "/",
        "/api/v1/status",
        "/api/v1/cases",
        "/api/none",
        "/healthz",
        "/none",
        "/catalogue.jsonld",
        "/open",
    ] {
        let answer = http.get(format!("http://{address}{path}")).send().await.unwrap();
        let header = |name: &str| {
            let value = answer.headers().get(name).unwrap_or_else(|| panic!("{path} lacks {name}"));
            value.to_str().unwrap().to_owned()
        };
        assert!(header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
    }
}

/// By commands and files only: a heating company joins with a voting node, and the water company leaves.
async fn a_department_joins_and_another_leaves(dir: &Path, processes: &mut Processes, bureau: &Client) {
    let of =
        |id: &str, file: &str| node_dir(dir, &id.parse().unwrap()).join(file).to_str().unwrap().to_owned();
    let begun_at = height(bureau).await;
    let (_, listed) = tongban(&["department", "list", "--json", "--config", &of("tax", "node.toml")]);
    let roster = dir.join("roster.json");
    std::fs::write(&roster, listed["roster"].to_string()).unwrap();
    let free: Vec<String> = demo::free_addresses(2).unwrap().iter().map(ToString::to_string).collect();
    let (genesis, home) = (dir.join("genesis.json"), node_dir(dir, &"heating".parse().unwrap()));
    let (genesis, roster) = (genesis.to_str().unwrap(), roster.to_str().unwrap());
    let (code, made) = tongban(&[
        "department",
        "init",
        "heating",
        "--title-zh",
        "热力公司",
        "--title-en",
        "Heating company",
        "--genesis",
        genesis,
        "--roster",
        roster,
        "--listen",
        &free[0],
        "--http",
        &free[1],
        "--validator",
        "--out",
        home.to_str().unwrap(),
        "--json",
    ]);
    assert_eq!(code, Some(0), "{made}");
    let entry = made["entry"].as_str().unwrap();
    // nobody is taken in with an entry it did not sign
    let changed = std::fs::read_to_string(entry).unwrap().replace("Heating company", "Another company");
    let forged = dir.join("forged.json");
    std::fs::write(&forged, changed).unwrap();
    let officer = |id: &str, who: &str| of(id, &format!("officers/{who}"));
    let add = |entry: &str, officer: &str, more: &[&str]| {
        let config = of("tax", "node.toml");
        tongban(
            &[&["department", "add", entry, "--officer", officer, "--json", "--config", &config], more]
                .concat(),
        )
    };
    assert_eq!(add(forged.to_str().unwrap(), &officer("tax", "system"), &[]).0, Some(2));
    assert_eq!(
        add(entry, &officer("tax", "security"), &[]).0,
        Some(2),
        "the security officer proposes nothing"
    );
    assert_eq!(add(entry, &officer("tax", "system"), &["--dry-run"]).0, Some(0));
    assert_eq!(
        tongban(&["governance", "list", "--json", "--config", &of("tax", "node.toml")]).1["proposals"],
        serde_json::json!([])
    );
    let (code, proposed) = add(entry, &officer("tax", "system"), &[]);
    assert_eq!(code, Some(0), "{proposed}");
    let approve = |by: &str, proposed: &Value| {
        let id = proposed["proposal"]["id"].as_str().unwrap();
        let (config, security) = (of(by, "node.toml"), officer(by, "security"));
        tongban(&["governance", "approve", id, "--officer", &security, "--json", "--config", &config])
    };
    let approvers = ["tax", "court", "gas", "power", "registry", "civil"];
    let mut last = Value::Null;
    for by in approvers {
        let (code, answer) = approve(by, &proposed);
        assert_eq!(code, Some(0), "{answer}");
        last = answer["proposal"].clone();
    }
    assert_eq!(
        (last["status"].as_str(), last["approvals"].as_u64(), last["needed"].as_u64()),
        (Some("adopted"), Some(6), Some(6))
    );
    assert_eq!(approve("police", &proposed).0, Some(2), "it is adopted already");

    processes.start(&"heating".parse().unwrap());
    let heating = Client::new(free[1].parse().unwrap(), "");
    let begun = Instant::now();
    loop {
        let status = heating.get::<Value>("/api/v1/status").await.unwrap_or_default();
        if status["votes"] == true && status["departments"].as_array().is_some_and(|d| d.len() == 12) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(300), "the newcomer votes: {status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let config = of("tax", "node.toml");
    let (code, proposed) = tongban(&[
        "department",
        "remove",
        "water",
        "--officer",
        &officer("tax", "system"),
        "--json",
        "--config",
        &config,
    ]);
    assert_eq!(code, Some(0), "{proposed}");
    for by in ["tax", "court", "gas", "power", "registry"] {
        approve(by, &proposed);
    }
    // the newcomer has a say
    assert_eq!(approve("heating", &proposed).1["proposal"]["status"], "adopted");
    let begun = Instant::now();
    loop {
        let status: Value = bureau.get("/api/v1/status").await.unwrap();
        if status["departments"].as_array().is_some_and(|d| d.len() == 11) {
            assert_eq!(status["validators"], 5);
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "the water company leaves: {status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // and is back, so that whole cases can run: nothing else of the ledger has changed for it
    let gone = || {
        let (_, listed) = tongban(&["department", "list", "--json", "--config", &config]);
        listed["roster"]["members"].as_array().unwrap().iter().all(|m| m["id"] != "water")
    };
    when(gone).await;
    assert!(height(bureau).await > begun_at + EPOCH_BLOCKS);
    let returned = water_returns(dir, &of);
    let (code, proposed) = add(returned.to_str().unwrap(), &officer("tax", "system"), &[]);
    assert_eq!(code, Some(0), "{proposed}");
    for by in approvers {
        approve(by, &proposed);
    }
    let begun = Instant::now();
    loop {
        let status: Value = bureau.get("/api/v1/status").await.unwrap();
        if status["departments"].as_array().is_some_and(|d| d.len() == 12) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "the water company is back: {status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The water company's entry in the genesis, signed anew.
fn water_returns(dir: &Path, of: &impl Fn(&str, &str) -> String) -> std::path::PathBuf {
    let genesis = node::read_genesis(&dir.join("genesis.json")).unwrap();
    let member = genesis.members.iter().find(|m| m.id.as_str() == "water").unwrap().clone();
    let keys = crypto::load_keys(Path::new(&of("water", "keys")), demo::PASSPHRASE).unwrap();
    let entry = tongban::setup::Entry::sign(crypto::chain_id(&genesis), member, &keys.command);
    let file = dir.join("water.json");
    std::fs::write(&file, serde_json::to_string(&entry).unwrap()).unwrap();
    file
}

/// How many cases run around the kills.
const CASES: usize = 100;

async fn when(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(180), "it came to hold");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Any node's archive holds in every byte, and comes out the same when applied again by nobody's node.
fn the_ledger_is_archived_and_applied_again(dir: &Path, scratch: &Path) -> std::path::PathBuf {
    let (archive, genesis) = (scratch.join("ledger.archive"), dir.join("genesis.json"));
    let ledger = |arguments: &[&std::ffi::OsStr]| {
        let out = Command::new(env!("CARGO_BIN_EXE_tongban")).arg("ledger").args(arguments).output().unwrap();
        (out.status.code(), serde_json::from_slice::<Value>(&out.stdout).unwrap_or_default())
    };
    let export = |id: &str| {
        let config = node_dir(dir, &id.parse().unwrap()).join("node.toml");
        ledger(&[
            "export".as_ref(),
            "--json".as_ref(),
            "--config".as_ref(),
            config.as_ref(),
            "--out".as_ref(),
            archive.as_ref(),
        ])
    };
    let check = |what: &str| {
        ledger(&[what.as_ref(), archive.as_ref(), "--genesis".as_ref(), genesis.as_ref(), "--json".as_ref()])
    };
    let (code, exported) = export("tax");
    assert_eq!(code, Some(0));
    // cut off, it is gone on with, from another department's node
    let file = std::fs::OpenOptions::new().write(true).open(&archive).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    assert_eq!(check("fsck").0, Some(1), "half a block is noticed");
    assert_eq!(export("police").0, Some(0));
    for what in ["fsck", "replay"] {
        let (code, checked) = check(what);
        assert_eq!(code, Some(0), "{checked}");
        assert!(checked["height"].as_u64() >= exported["height"].as_u64());
        assert!(checked["commands"].as_u64().unwrap() > 4_000);
    }
    let mut bytes = std::fs::read(&archive).unwrap();
    for at in (60..bytes.len()).step_by(bytes.len() / 12) {
        bytes[at] ^= 4;
        std::fs::write(&archive, &bytes).unwrap();
        let (code, checked) = check("fsck");
        assert_eq!(code, Some(1), "a changed byte at {at}");
        assert!(checked["problems"][0].as_str().unwrap().contains("at height"));
        bytes[at] ^= 4;
    }
    std::fs::write(&archive, &bytes).unwrap();
    archive
}

/// A receipt from before holds under a checkpoint that was published; under one of another past it does not.
fn a_published_header_pins_the_past(dir: &Path, report: &CaseReport, scratch: &Path) {
    let config = node_dir(dir, &"gas".parse().unwrap()).join("node.toml");
    let (config, genesis) = (config.to_str().unwrap(), dir.join("genesis.json"));
    let at = |name: &str| scratch.join(name).to_str().unwrap().to_owned();
    let ledger =
        |arguments: &[&str]| tongban(&[&["ledger"], arguments, &["--json", "--config", config]].concat());
    let (code, made) = ledger(&["checkpoint", "--out", &at("checkpoint.json")]);
    assert_eq!(code, Some(0), "{made}");
    let logs = report.receipts.iter().filter(|r| r.ends_with("access-log.json"));
    for receipt in logs.chain(&report.receipts[..1]) {
        let linked =
            ledger(&["link", receipt, "--checkpoint", &at("checkpoint.json"), "--out", &at("link.json")]);
        assert_eq!(linked.0, Some(0), "{}", linked.1);
        let verify = |more: &[&str]| {
            let all = ["verify", receipt, "--json", "--genesis", genesis.to_str().unwrap()];
            tongban(&[&all, more].concat())
        };
        let (pin, link) = (at("checkpoint.json"), at("link.json"));
        let (code, answer) = verify(&["--checkpoint", &pin, "--link", &link]);
        assert_eq!(code, Some(0), "{answer}");
        let (code, answer) = verify(&["--checkpoint", &pin]);
        assert_eq!(code, Some(1));
        assert!(answer["reason"].as_str().unwrap().contains("tongban ledger link"), "{answer}");
        // no digit of pin or link can be another
        let genesis = node::read_genesis(&genesis).unwrap();
        let bytes = std::fs::read(receipt).unwrap();
        let (pin, link) = (std::fs::read_to_string(&pin).unwrap(), std::fs::read_to_string(&link).unwrap());
        let holds = |pin: &str, link: &str| {
            let (Ok(pin), Ok(link)) = (serde_json::from_str(pin), serde_json::from_str(link)) else {
                return false;
            };
            proof::verify_at(&bytes, &genesis, &pin, Some(&link)).is_ok()
        };
        assert!(holds(&pin, &link));
        let other = |text: &str, i: usize| {
            let mut changed = text.as_bytes().to_vec();
            changed[i] = if changed[i] == b'7' { b'3' } else { b'7' };
            String::from_utf8(changed).unwrap()
        };
        for i in (0..pin.len()).filter(|i| pin.as_bytes()[*i].is_ascii_hexdigit()) {
            assert!(!holds(&other(&pin, i), &link), "digit {i} of the checkpoint");
        }
        for i in (0..link.len()).step_by(3).filter(|i| link.as_bytes()[*i].is_ascii_hexdigit()) {
            assert!(!holds(&pin, &other(&link, i)), "digit {i} of the link");
        }
    }
}

/// The police state what they answered about a seller; the audit office, with the ledger and the openings, finds it true. A
/// statement changed in any part is none, nor is one about somebody else.
fn a_holder_states_and_is_held_to_it(dir: &Path, play: &Play, archive: &Path, scratch: &Path) {
    let of = |id: &str| node_dir(dir, &id.parse().unwrap()).join("node.toml").to_str().unwrap().to_owned();
    let at = |name: &str| scratch.join(name).to_str().unwrap().to_owned();
    let (seller, buyer) = (&play.people["seller"].id, &play.people["buyer"].id);
    std::fs::write(at("person"), seller).unwrap();
    std::fs::write(at("another"), buyer).unwrap();
    let (holder, auditor) = (of("police"), of("audit"));
    let (code, stated) = tongban(&[
        "statement",
        "--json",
        "--config",
        &holder,
        "--person",
        &at("person"),
        "--out",
        &at("statement.json"),
    ]);
    assert_eq!(code, Some(0), "{stated}");
    assert!(!stated["facts"]["fields"].as_array().unwrap().is_empty(), "{stated}");
    let genesis = dir.join("genesis.json");
    let verify = |person: &str| {
        let genesis = genesis.to_str().unwrap();
        tongban(&["verify", &at("statement.json"), "--genesis", genesis, "--json", "--person", &at(person)])
    };
    assert_eq!(verify("person").0, Some(0));
    let (code, answer) = verify("another");
    assert_eq!((code, answer["reason"].as_str()), (Some(1), Some("the statement is about another person")));
    let read = node::read_genesis(&genesis).unwrap();
    let bytes = std::fs::read(at("statement.json")).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains(seller), "it names nobody");
    for i in (0..bytes.len()).step_by(5) {
        let mut changed = bytes.clone();
        changed[i] ^= 1;
        let passes =
            proof::verify_statement(&changed, &read).is_ok_and(|(s, _)| s.is_about(read.suite, seller));
        assert!(!passes, "byte {i}");
    }
    let (code, _) =
        tongban(&["audit", "openings", "--config", &holder, "--auditor", "audit", "--out", &at("openings")]);
    assert_eq!(code, Some(0));
    let (code, answer) =
        tongban(&["ledger", "export", "--json", "--config", &auditor, "--out", archive.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{answer}");
    let check = |who: &str, config: &str| {
        tongban(&[
            "audit",
            "check",
            &at("openings"),
            "--holder",
            who,
            "--archive",
            archive.to_str().unwrap(),
            "--config",
            config,
            "--statement",
            &at("statement.json"),
            "--json",
        ])
    };
    let (code, found) = check("police", &auditor);
    assert_eq!(code, Some(0), "{found}");
    assert!(found["answers"].as_u64().unwrap() > 100, "{found}");
    assert_eq!(found["findings"], serde_json::json!([]));
    // for nobody else's eyes, and nobody else's
    assert_eq!(check("police", &of("tax")).0, Some(2));
    assert_eq!(check("tax", &auditor).0, Some(2));
}

async fn ready(client: &Client) {
    let begun = Instant::now();
    while client.get_bytes("/readyz").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(120), "the node came up");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Kills a node and starts it again.
async fn again(processes: &mut Processes, dir: &Path, id: &str) {
    processes.kill(id);
    let id = id.parse().unwrap();
    processes.start(&id);
    let config = config(dir, &id);
    ready(&Client::new(config.http, "")).await;
}

/// The buyer pays the tax, asks to go on, and signs nothing again; the first call and decision stay on record.
async fn a_parked_case_goes_on(dir: &Path, driver: &Driver, unpaid: &Play, bureau: &Client) {
    let parked = driver.run(unpaid).await.unwrap().remove(0);
    assert_eq!(parked.outcome, "parked");
    common::execute(
        &dir.join("departments/tax/department.db"),
        "UPDATE tax_settlement SET paid_fen = payable_fen, paid = 'Y', paid_on = '20261123' WHERE contract_no = ?",
        unpaid.thing("sale.contract"),
    )
    .await;
    let path = format!("/api/v1/cases/{}", parked.id);
    let asked = serde_json::json!({ "who": "buyer", "reason": "税已缴清" });
    bureau.post(&format!("{path}/resume"), asked.clone()).await.unwrap();
    let begun = Instant::now();
    let case = loop {
        let case: Value = bureau.get(&path).await.unwrap();
        if case["outcome"] == "closed" {
            break case;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{case}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let names: Vec<String> = bureau.get(&format!("{path}/receipts")).await.unwrap();
    for expected in ["call-tax", "call-tax-try2", "decision-review", "decision-review-try2"] {
        assert!(names.iter().any(|n| n == expected), "{expected} in {names:?}");
    }
    assert_eq!(
        names.iter().filter(|n| n.starts_with("call-")).count() as u64,
        case["calls"].as_u64().unwrap()
    );
    let genesis = node::read_genesis(&dir.join("genesis.json")).unwrap();
    for name in names {
        proof::verify(&bureau.get_bytes(&format!("{path}/receipts/{name}")).await.unwrap(), &genesis)
            .unwrap();
    }
    // what is over does not go on
    let again = bureau.post(&format!("{path}/resume"), asked).await.unwrap_err();
    assert_eq!(again.downcast_ref::<tongban::client::Refused>().unwrap().code, "wrong_state");
}

/// Whatever is sent, the answer is a problem document that repeats nothing of it.
async fn hostile_bodies_are_answered_with_problems(dir: &Path) {
    const SECRET: &str = "11010519491231002X";
    let config = config(dir, &"bureau".parse().unwrap());
    let token = config.api_token.clone().unwrap();
    let at = |path: &str| format!("http://{}{path}", config.http);
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let deep = "[".repeat(200_000);
    let bodies = [
        String::new(),
        SECRET.to_owned(),
        format!("{{\"matter\": \"{SECRET}"),
        format!("{{\"matter\": {{\"{SECRET}\": 1}}}}"),
        format!("{{\"{SECRET}\": 1}}"),
        format!("{{\"matter\": \"{SECRET}\", \"form\": {{}}, \"parties\": {{}}}}"),
        format!("{{\"terms\": \"{SECRET}\", \"signature\": \"{SECRET}\"}}"),
        "null".into(),
        deep,
    ];
    let id = "0".repeat(64);
    let cases = ["", "/x/identify", "/x/consent", "/x/withdraw", "/x/confirm", "/x/resume", "/x/refuse"];
    let cases = cases.map(|path| format!("/api/v1/cases{}", path.replace('x', &id)));
    let others = ["/api/v1/statements", "/api/v1/links", "/api/v1/prune"].map(str::to_owned);
    for path in cases.into_iter().chain(others) {
        for body in &bodies {
            let sent = http.post(at(&path)).bearer_auth(&token).header("content-type", "application/json");
            let answer = match sent.body(body.clone()).send().await {
                Ok(answer) => answer,
                Err(e) => panic!("{path}: {e}"),
            };
            let (status, kind) = (answer.status(), answer.headers()["content-type"].clone());
            assert!(status.is_client_error(), "{path}: {status}");
            assert_eq!(kind, "application/problem+json", "{path}");
            let text = answer.text().await.unwrap();
            assert!(!text.contains(SECRET), "{path}: {text}");
        }
    }
    let gets = [
        ("/api/v1/blocks/x", 400),
        ("/api/v1/blocks/99999999", 404),
        ("/api/v1/nothing", 404),
        ("/api/v1/cases/x", 400),
        ("/api/v1/cases/%ff", 400),
        ("/api/v1/commands", 405),
    ];
    for (path, status) in gets {
        let answer = http.get(at(path)).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
    }
    // without the token, nothing
    let answer = http.get(at("/api/v1/cases")).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    // pages answer with pages
    for (path, status) in
        [("/nothing", 404), ("/case/x", 401), ("/explorer/block/0", 404), ("/explorer/record/x", 404)]
    {
        let answer = http.get(at(path)).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/html"), "{path}");
    }
}
