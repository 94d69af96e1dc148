//! A ledger that is pruned, backed up and restored loses nothing.

use crate::{EPOCH_BLOCKS, Processes, again, config, height, ready, tongban};
use model::DepartmentId;
use serde_json::Value;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tongban::{client::Client, play::CaseReport, setup::node_dir};

/// The bureau's node prunes its ledger and starts again; then its machine is lost, and one made from its backup goes on. Both
/// prove what was proved before. A validator's lost ledger is restored from an archive.
pub async fn a_pruned_node_and_one_from_a_backup_know_all_they_knew(
    dir: &Path,
    processes: &mut Processes,
    reports: &[CaseReport],
    scratch: &Path,
) {
    let home = node_dir(dir, &"bureau".parse().unwrap());
    let file = home.join("node.toml");
    let (toml, out) = (file.to_str().unwrap(), scratch.join("backup"));
    let prune = |more: &[&str]| tongban(&[&["ledger", "prune", "--json", "--config", toml], more].concat());
    let (code, answer) = prune(&[]);
    assert_eq!(code, Some(2));
    assert!(
        answer["error"]["message"].as_str().unwrap().contains("archive = \"ledger.archive\""),
        "{answer}"
    );

    let before = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("archive = \"ledger.archive\"\n{before}")).unwrap();
    again(processes, dir, "bureau").await;
    let bureau = config(dir, &"bureau".parse().unwrap());
    let bureau = Client::new(bureau.http, bureau.api_token.as_deref().unwrap());
    let (code, would) = prune(&["--dry-run"]);
    assert_eq!(code, Some(0), "{would}");
    assert_eq!(would["dry_run"], true, "{would}");
    // whole files of 1,024 blocks are pruned: wait until there is one
    let begun = Instant::now();
    while height(&bureau).await < 6 * EPOCH_BLOCKS + 8 {
        assert!(begun.elapsed() < Duration::from_secs(600), "idle blocks come");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (code, pruned) = prune(&[]);
    assert_eq!(code, Some(0), "{pruned}");
    assert!(pruned["below"].as_u64().unwrap() > 1_024, "whole files are there to be pruned: {pruned}");
    let bytes = |at: &str| pruned["ledger_bytes"][at].as_u64().unwrap();
    assert!(bytes("after") < bytes("before"), "{pruned}");
    proves_what_it_proved(dir, &bureau, reports).await;
    again(processes, dir, "bureau").await;
    proves_what_it_proved(dir, &bureau, reports).await;

    // without its archive a pruned node does not pretend
    processes.kill("bureau");
    let (archive, away) = (home.join("ledger.archive"), home.join("away.archive"));
    std::fs::rename(&archive, &away).unwrap();
    processes.start(&"bureau".parse().unwrap());
    let mut child = processes.children.remove(&"bureau".parse::<DepartmentId>().unwrap()).unwrap();
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(begun.elapsed() < Duration::from_secs(60), "it stops"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(!status.success());
    assert!(std::fs::read_to_string(home.join("log")).unwrap().contains("put the archive back"));
    std::fs::rename(&away, &archive).unwrap();
    processes.start(&"bureau".parse().unwrap());
    ready(&bureau).await;

    // a backup of the running node, twice into one folder; then the machine is lost
    let backup = || tongban(&["backup", "--json", "--config", toml, "--out", out.to_str().unwrap()]);
    let (code, first) = backup();
    assert_eq!(code, Some(0), "{first}");
    let (code, second) = backup();
    assert_eq!(code, Some(0), "{second}");
    assert!(second["new_blocks"].as_u64() < first["new_blocks"].as_u64());
    // one that is interrupted leaves the one before as it was
    let list = std::fs::read(out.join("backup.json")).unwrap();
    let other = home.join("other.toml");
    std::fs::write(&other, std::fs::read_to_string(&file).unwrap().replace("vault.db", "lost.db")).unwrap();
    let (code, answer) =
        tongban(&["backup", "--json", "--config", other.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!(code, Some(2), "there is no vault to copy: {answer}");
    assert_eq!(std::fs::read(out.join("backup.json")).unwrap(), list);
    let mut file = std::fs::File::options().append(true).open(out.join("ledger.archive")).unwrap();
    std::io::Write::write_all(&mut file, &[200, 0, 0, 0, 1]).unwrap();
    let restore = |more: &[&str]| {
        tongban(
            &[&["restore", out.to_str().unwrap(), "--json", "--out", home.to_str().unwrap()], more].concat(),
        )
    };
    assert_eq!(restore(&[]).0, Some(2), "never over what is there");
    processes.kill("bureau");
    let lost = scratch.join("lost");
    std::fs::rename(&home, &lost).unwrap();
    let list: Value = serde_json::from_slice(&list).unwrap();
    let keys = out.join(list["parts"].as_str().unwrap()).join("keys");
    let whole = std::fs::read(&keys).unwrap();
    let mut changed = whole.clone();
    changed[20] ^= 1;
    std::fs::write(&keys, changed).unwrap();
    let (code, answer) = restore(&[]);
    assert_eq!((code, home.exists()), (Some(1), false), "{answer}");
    assert_eq!(answer["problems"][0], "keys was changed");
    std::fs::write(&keys, whole).unwrap();
    assert_eq!((restore(&["--dry-run"]).0, home.exists()), (Some(0), false));
    let (code, answer) = restore(&[]);
    assert_eq!(code, Some(0), "{answer}");
    processes.start(&"bureau".parse().unwrap());
    ready(&bureau).await;
    proves_what_it_proved(dir, &bureau, reports).await;

    // a validator's ledger is lost, and comes back from an archive; its votes do not, so it does not vote yet
    let audit = node_dir(dir, &"audit".parse().unwrap());
    processes.kill("audit");
    std::fs::remove_dir_all(audit.join("ledger")).unwrap();
    let (archive, toml) = (home.join("ledger.archive"), audit.join("node.toml"));
    let restore = |archive: &Path| {
        tongban(&[
            "ledger",
            "restore",
            archive.to_str().unwrap(),
            "--json",
            "--config",
            toml.to_str().unwrap(),
        ])
    };
    let mut bytes = std::fs::read(&archive).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    let damaged = scratch.join("damaged.archive");
    std::fs::write(&damaged, bytes).unwrap();
    let (code, answer) = restore(&damaged);
    assert_eq!(code, Some(1), "{answer}");
    let (code, answer) = restore(&archive);
    assert_eq!(code, Some(0), "{answer}");
    assert_eq!(restore(&archive).0, Some(2), "never over what is there");
    let epoch = bureau.get::<Value>("/api/v1/status").await.unwrap()["epoch"].as_u64();
    processes.start(&"audit".parse().unwrap());
    let client = Client::new(config(dir, &"audit".parse().unwrap()).http, "");
    ready(&client).await;
    let tip = height(&bureau).await;
    let begun = Instant::now();
    while height(&client).await < tip {
        assert!(begun.elapsed() < Duration::from_secs(180), "it catches up");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let status: Value = client.get("/api/v1/status").await.unwrap();
    let forgot = status["votes"] == false || status["epoch"].as_u64() > epoch;
    assert!(forgot, "it does not vote in an epoch it may have voted in: {status}");
}

/// The first blocks are there, and old cases' receipts are made anew and hold.
async fn proves_what_it_proved(dir: &Path, bureau: &Client, reports: &[CaseReport]) {
    let genesis = node::read_genesis(&dir.join("genesis.json")).unwrap();
    let first: Value = bureau.get("/api/v1/blocks/1").await.unwrap();
    assert_eq!(first["height"], 1);
    for report in reports.iter().step_by(33) {
        let path = format!("/api/v1/cases/{}/receipts", report.id);
        let begun = Instant::now();
        // after a start the case is known once the past was folded in
        let names = loop {
            match bureau.get::<Vec<String>>(&path).await {
                Ok(names) if names.len() == report.receipts.len() => break names,
                other => assert!(begun.elapsed() < Duration::from_secs(60), "{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        for name in names {
            let receipt = bureau.get_bytes(&format!("{path}/{name}")).await.unwrap();
            proof::verify(&receipt, &genesis).unwrap();
        }
    }
}
