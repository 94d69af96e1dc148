//! The demo as a user runs it: outcomes, receipts checked in separate processes, and no trace of people on the ledger.

use serde_json::Value;
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{collections::BTreeSet, path::Path, process::Command};

mod common;

use common::column;

const TONGBAN: &str = env!("CARGO_BIN_EXE_tongban");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cases_end_in_named_states_with_receipts_that_hold_and_no_person_on_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (report, log) = demo(&data, "international", 60);
    let cases = report["cases"].as_array().unwrap();
    let named =
        ["closed", "closed_partly", "refused", "withdrawn", "parked", "needs_human", "blocked", "duplicate"];
    let mut seen = BTreeSet::new();
    for case in cases {
        let outcome = case["outcome"].as_str().unwrap();
        assert!(named.contains(&outcome), "{case}");
        seen.insert((case["scenario"].as_str().unwrap().to_owned(), outcome.to_owned()));
        assert_eq!(case["differs"], serde_json::json!([]), "{case}");
        assert!(case["signatures"].as_u64().unwrap() <= 1);
        assert_eq!(case["documents_uploaded"], 0);
    }
    let expected = [
        ("arrears", "parked"),
        ("gas-locked", "closed_partly"),
        ("plain", "closed"),
        ("power-down", "closed"),
        ("seizure", "refused"),
        ("tax-unpaid", "parked"),
        ("twice", "closed"),
        ("twice", "duplicate"),
        ("withdrawn", "withdrawn"),
    ];
    let expected: BTreeSet<_> = expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    assert_eq!(seen, expected, "every exception ends in its named state");

    assert!(check_receipts(dir.path(), &data, cases) > 500);
    check_power_company(&data, cases).await;
    common::check_nobody_is_on_the_ledger(&data, vec![("the log".into(), log.into_bytes())]).await;
}

/// The same city in the national suite: every signature, vote, hash and seal is SM2, SM3 and SM4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_national_consortium_does_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (report, log) = demo(&data, "national", 20);
    let cases = report["cases"].as_array().unwrap();
    assert!(cases.iter().filter(|c| c["outcome"] == "closed").count() >= 10);
    let genesis = std::fs::read_to_string(data.join("genesis.json")).unwrap();
    assert!(genesis.contains("\"sm2:") && !genesis.contains("ed25519:") && !genesis.contains("x25519:"));
    assert!(check_receipts(dir.path(), &data, cases) > 150);
    check_power_company(&data, cases).await;
    common::check_nobody_is_on_the_ledger(&data, vec![("the log".into(), log.into_bytes())]).await;
}

fn demo(data: &Path, suite: &str, cases: usize) -> (Value, String) {
    let out = Command::new(TONGBAN)
        .args(["demo", "--headless", "--json", "--cases", &cases.to_string(), "--suite", suite])
        .args(["--port", "0", "--seed", "1", "--data"])
        .arg(data)
        .env("RUST_LOG", "debug,sqlx=debug")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{}", &log[log.len().saturating_sub(4000)..]);
    let report: Value = serde_json::from_slice(&out.stdout).expect("one JSON document and nothing else");
    assert_eq!(report["cases"].as_array().unwrap().len(), cases);
    (report, log)
}

/// Receipts are checked by a separate process with nothing else in its folder, and one of each kind byte by byte.
fn check_receipts(dir: &Path, data: &Path, cases: &[Value]) -> usize {
    let genesis: model::Genesis =
        serde_json::from_slice(&std::fs::read(data.join("genesis.json")).unwrap()).unwrap();
    let alone = dir.join("alone");
    std::fs::create_dir(&alone).unwrap();
    let (mut count, mut flipped) = (0, BTreeSet::new());
    for case in cases {
        let receipts = case["receipts"].as_array().unwrap();
        let calls = receipts.iter().filter(|r| r.as_str().unwrap().contains("/call-")).count();
        if case["outcome"] != "duplicate" {
            assert!(receipts.iter().any(|r| r.as_str().unwrap().ends_with("/access-log.json")));
            assert_eq!(calls as u64, case["calls"].as_u64().unwrap(), "a receipt for every call");
        }
        for receipt in receipts {
            let path = Path::new(receipt.as_str().unwrap());
            let bytes = std::fs::read(path).unwrap();
            proof::verify(&bytes, &genesis).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            count += 1;
            let kind = path.file_name().unwrap().to_str().unwrap().split('-').next().unwrap().to_owned();
            if flipped.insert(kind) {
                verify_alone(&alone, data, path);
                let step = if genesis.suite == model::Suite::National { 61 } else { 7 };
                for i in (0..bytes.len()).step_by(step) {
                    let mut changed = bytes.clone();
                    changed[i] ^= 1;
                    assert!(proof::verify(&changed, &genesis).is_err(), "{}: byte {i}", path.display());
                }
                second_verifier(data, path);
            }
            if path.ends_with("access-log.json") {
                let rests = matches!(case["outcome"].as_str(), Some("parked" | "needs_human" | "blocked"));
                no_call_can_be_left_out(&bytes, &genesis, calls, rests);
            }
        }
    }
    assert_eq!(flipped.len(), 5, "receipts of calls, consents, actions, decisions and access logs");
    count
}

/// An access log names every call of its case up to a settlement (a case at rest may go on), and is none without any one of them.
fn no_call_can_be_left_out(bytes: &[u8], genesis: &model::Genesis, calls: usize, rests: bool) {
    let log: proof::Receipt = serde_json::from_slice(bytes).unwrap();
    let facts = proof::verify(bytes, genesis).unwrap();
    let until = if rests { "so far" } else { "complete" };
    assert_eq!((facts.fields.len(), facts.status), (calls, format!("{until}: {calls} granted, 0 refused")));
    for i in log.events.len() - calls..log.events.len() {
        let mut without = log.clone();
        without.events.remove(i);
        assert!(proof::verify(&without.to_bytes(), genesis).is_err());
    }
}

fn verify_alone(alone: &Path, data: &Path, receipt: &Path) {
    std::fs::copy(data.join("genesis.json"), alone.join("genesis.json")).unwrap();
    std::fs::copy(receipt, alone.join("receipt.json")).unwrap();
    let verify = || {
        Command::new(TONGBAN)
            .args(["verify", "receipt.json", "--genesis", "genesis.json", "--json"])
            .current_dir(alone)
            .output()
            .unwrap()
    };
    let out = verify();
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stdout));
    let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(answer["valid"], true);
    // white space is no change of meaning, and still refused
    let mut text = std::fs::read(receipt).unwrap();
    text.push(b'\n');
    std::fs::write(alone.join("receipt.json"), text).unwrap();
    let out = verify();
    assert_eq!(out.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(answer["reason"].as_str().unwrap().contains("canonical"));
}

/// The page's verifier agrees, where Node.js is there to run it.
fn second_verifier(data: &Path, receipt: &Path) {
    let cli = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/assets/verify-cli.mjs");
    let out = Command::new("node").arg(cli).arg(data.join("genesis.json")).arg(receipt).output();
    match out {
        Ok(out) => assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout)),
        Err(_) => eprintln!("skipped: node is not installed"),
    }
}

/// Every closed case changed its account's holder, once; no other account changed.
async fn check_power_company(data: &Path, cases: &[Value]) {
    let registered = |c: &&Value| matches!(c["outcome"].as_str(), Some("closed" | "closed_partly"));
    let closed = cases.iter().filter(registered).count();
    let power = data.join("departments/power/department.db");
    let done = column(&power, "SELECT key FROM tongban_action_journal").await;
    assert_eq!(done.len(), closed);
    let city = tongban::city::City::new(1);
    let mut changed = 0;
    for (sale, holder) in holders(&city, &power).await {
        if holder == sale.buyer.id {
            changed += 1;
        } else {
            assert_eq!(holder, sale.seller.id);
        }
    }
    assert_eq!(changed, closed);
}

async fn holders<'a>(city: &'a tongban::city::City, power: &Path) -> Vec<(&'a tongban::city::Sale, String)> {
    let options = SqliteConnectOptions::new().filename(power).read_only(true);
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    let mut holders = Vec::new();
    for sale in &city.sales {
        let row = sqlx::query("SELECT zjh FROM dl_yh WHERE yhh = ?").bind(sale.power_account.clone());
        holders.push((sale, row.fetch_one(&mut db).await.unwrap().get(0)));
    }
    holders
}
