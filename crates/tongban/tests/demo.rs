//! The demo as a user runs it: outcomes, receipts checked in separate processes, and no trace of people on the ledger.

use serde_json::Value;
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

const TONGBAN: &str = env!("CARGO_BIN_EXE_tongban");

fn files_under(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        match entry.metadata().unwrap().is_dir() {
            true => files_under(&entry.path(), into),
            false => into.push(entry.path()),
        }
    }
}

async fn column(database: &Path, sql: &'static str) -> Vec<String> {
    let options = SqliteConnectOptions::new().filename(database).read_only(true);
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    let rows = sqlx::query(sql).fetch_all(&mut db).await.unwrap();
    rows.iter().map(|r| r.get::<String, _>(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cases_end_in_named_states_with_receipts_that_hold_and_no_person_on_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let out = Command::new(TONGBAN)
        .args(["demo", "--headless", "--json", "--cases", "60", "--port", "0", "--seed", "1", "--data"])
        .arg(&data)
        .env("RUST_LOG", "debug,sqlx=debug")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{}", &log[log.len().saturating_sub(4000)..]);
    let report: Value = serde_json::from_slice(&out.stdout).expect("one JSON document and nothing else");

    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 60);
    let named =
        ["closed", "closed_partly", "refused", "withdrawn", "parked", "needs_human", "blocked", "duplicate"];
    let mut seen = BTreeSet::new();
    for case in cases {
        let outcome = case["outcome"].as_str().unwrap();
        assert!(named.contains(&outcome), "{case}");
        seen.insert((case["exception"].as_str().unwrap_or("plain").to_owned(), outcome.to_owned()));
        assert!(case["signatures"].as_u64().unwrap() <= 1);
        assert_eq!(case["documents_uploaded"], 0);
    }
    let expected = [
        ("Arrears", "parked"),
        ("PowerDown", "closed"),
        ("Seizure", "refused"),
        ("Twice", "closed"),
        ("Twice", "duplicate"),
        ("UnpaidTax", "parked"),
        ("Withdrawn", "withdrawn"),
        ("plain", "closed"),
    ];
    let expected: BTreeSet<_> = expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    assert_eq!(seen, expected, "every exception ends in its named state");

    check_receipts(dir.path(), &data, cases);
    check_power_company(&data, cases).await;
    check_nobody_is_on_the_ledger(&data, &log).await;
}

/// Receipts are checked by a separate process with nothing else in its folder, and one of each kind byte by byte.
fn check_receipts(dir: &Path, data: &Path, cases: &[Value]) {
    let genesis: model::Genesis =
        serde_json::from_slice(&std::fs::read(data.join("genesis.json")).unwrap()).unwrap();
    let alone = dir.join("alone");
    std::fs::create_dir(&alone).unwrap();
    let (mut count, mut flipped) = (0, BTreeSet::new());
    for case in cases {
        let receipts = case["receipts"].as_array().unwrap();
        let calls = receipts.iter().filter(|r| r.as_str().unwrap().contains("/call-")).count();
        if case["outcome"] != "duplicate" {
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
                for i in (0..bytes.len()).step_by(7) {
                    let mut changed = bytes.clone();
                    changed[i] ^= 1;
                    assert!(proof::verify(&changed, &genesis).is_err(), "{}: byte {i}", path.display());
                }
                second_verifier(data, path);
            }
        }
    }
    assert_eq!(flipped.len(), 4, "receipts of calls, consents, actions and decisions");
    assert!(count > 500, "{count} receipts");
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
    let closed = cases.iter().filter(|c| c["outcome"] == "closed").count();
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

/// Identifiers, names, addresses, contract and deed numbers of everybody in the city, and their plain hashes, are nowhere
/// in any node's folder (ledger, vault, keys) nor in the log at its most talkative.
async fn check_nobody_is_on_the_ledger(data: &Path, log: &str) {
    let departments = data.join("departments");
    let mut canaries: Vec<String> = Vec::new();
    let sources: [(&str, &'static str); 7] = [
        ("police", "SELECT gmsfhm FROM rk_jbxx"),
        ("registry", "SELECT zl FROM bdc_dy"),
        ("registry", "SELECT bdcqzh FROM bdc_qz"),
        ("registry", "SELECT bdcdyh FROM bdc_dy"),
        ("housing", "SELECT htbh FROM wq_ht"),
        ("power", "SELECT yhh FROM dl_yh"),
        ("power", "SELECT DISTINCT trim(yhmc) FROM dl_yh WHERE length(trim(yhmc)) > 2"),
    ];
    for (department, sql) in sources {
        canaries.extend(column(&departments.join(department).join("department.db"), sql).await);
    }
    let mut needles: BTreeSet<Vec<u8>> = BTreeSet::new();
    for canary in &canaries {
        let hash = crypto::sha256(&[canary.as_bytes()]);
        needles.insert(canary.as_bytes().to_vec());
        needles.insert(hash.0.to_vec());
        needles.insert(hash.to_string().into_bytes());
    }
    assert!(needles.len() > 40_000);
    let mut files = Vec::new();
    files_under(&data.join("nodes"), &mut files);
    files.retain(|f| !f.ends_with("node.toml") && !f.ends_with("genesis.json"));
    assert!(files.iter().any(|f| f.to_string_lossy().contains("/ledger/")));
    let mut haystacks: Vec<(String, Vec<u8>)> =
        files.iter().map(|f| (f.display().to_string(), std::fs::read(f).unwrap())).collect();
    haystacks.push(("the log".into(), log.as_bytes().to_vec()));
    // a scan by the first eight bytes of each needle keeps this linear
    let mut heads: std::collections::HashMap<[u8; 6], Vec<&[u8]>> = std::collections::HashMap::new();
    for needle in &needles {
        heads.entry(needle[..6].try_into().unwrap()).or_default().push(needle);
    }
    let mut bytes = 0;
    for (name, hay) in &haystacks {
        bytes += hay.len();
        for window in 0..hay.len().saturating_sub(6) {
            let head: [u8; 6] = hay[window..window + 6].try_into().unwrap();
            for needle in heads.get(&head).into_iter().flatten() {
                assert!(!hay[window..].starts_with(needle), "{name} holds a canary at {window}");
            }
        }
    }
    assert!(bytes > 1_000_000, "something was scanned: {bytes}");
}
