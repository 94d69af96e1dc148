//! A department's engineer tries files, publishes what the department answers for, and sees what no longer fits.

use crate::{config, tongban};
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tongban::{city::Sale, client::Client, setup::node_dir};

/// The catalogue is what connectors declare; a changed entry is a new version, and only its holder's.
pub fn the_catalogue_follows_the_connectors(dir: &Path) {
    let home = node_dir(dir, &"water".parse().unwrap());
    let config = home.join("node.toml");
    let config = config.to_str().unwrap();
    let resource = |what: &[&str]| tongban(&[&["resource"], what, &["--json", "--config", config]].concat());
    let (code, answer) = resource(&["check"]);
    assert_eq!((code, &answer["resources"][0]["status"]), (Some(0), &json!("published")), "{answer}");

    let file = dir.join("departments/water/connector.yaml");
    let declared = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, declared.replace("客户服务部", "营业部")).unwrap();
    assert_eq!(resource(&["check"]).0, Some(1), "it is declared otherwise than published");
    let (code, answer) = resource(&["publish", "--dry-run"]);
    assert_eq!((code, &answer["resources"][0]["status"]), (Some(0), &json!("changed")));
    assert_eq!(resource(&["check"]).0, Some(1), "a dry run publishes nothing");
    let (code, answer) = resource(&["publish"]);
    assert_eq!(code, Some(0), "{answer}");
    assert_eq!(
        answer["resources"][0],
        json!({ "id": "water.account", "version": 2, "status": "published now" })
    );
    let begun = Instant::now();
    while resource(&["check"]).0 != Some(0) {
        assert!(begun.elapsed() < Duration::from_secs(60), "its own node knows it");
        std::thread::sleep(Duration::from_millis(200));
    }
    // the node still answers by the file it began with, and says so
    let checks = tongban(&["doctor", "--json", "--config", config]).1["checks"].clone();
    let outdated = checks.as_array().unwrap().iter().find(|c| c["name"] == "files");
    assert_eq!(outdated.map(|c| &c["status"]), Some(&json!("warning")), "{checks}");
    let (_, shown) = resource(&["show", "water.account"]);
    assert_eq!((&shown["officer"], &shown["version"]), (&json!("营业部"), &json!(2)));
    // what it is described as is published like it, found, and exported as the national standard has it
    let described = format!(
        "{}descriptions:\n  water.account:\n    about: {{ zh: 用水户的结清情况, en: Whether bills are paid }}\n    keywords: [{{ zh: 抄表, en: meter }}]\n    \
         category: {{ scheme: 主题分类, name: {{ zh: 供水, en: Water }}, code: Z1 }}\n    code: 307001000000/000009\n    \
         process: {{ zh: 营业, en: Billing }}\n    scope: {{ zh: 全市, en: The city }}\n    format: 数据库\n",
        std::fs::read_to_string(&file).unwrap()
    );
    std::fs::write(&file, &described).unwrap();
    let (code, answer) = resource(&["publish"]);
    let row = json!({ "id": "water.account, described", "version": 1, "status": "published now" });
    assert_eq!((code, &answer["resources"][1]), (Some(0), &row), "{answer}");
    let begun = Instant::now();
    while resource(&["check"]).0 != Some(0) {
        assert!(begun.elapsed() < Duration::from_secs(60), "its own node knows it");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(resource(&["list", "抄表"]).1["total"], 1);
    // a number that may be somebody's is on no ledger
    std::fs::write(&file, described.replace("抄表", "13900000000")).unwrap();
    let (code, answer) = resource(&["publish"]);
    assert!(code == Some(2) && answer.to_string().contains("unfit_text"), "{answer}");
    std::fs::write(&file, &described).unwrap();
    let (code, found) = resource(&["list", "用水", "bills"]);
    assert_eq!(
        (code, &found["total"], &found["resources"][0]["id"]),
        (Some(0), &json!(1), &json!("water.account"))
    );
    assert_eq!(resource(&["list", "nothing", "like", "it"]).1["total"], 0);
    assert_eq!(resource(&["show", "no.such"]).0, Some(2));

    let (code, answer) = tongban(&[
        "basis",
        "approve",
        "arrears-check",
        "--asker",
        "bureau",
        "--matter",
        "house-transfer",
        "--resource",
        "water.account",
        "--names",
        "settled",
        "--citation",
        "城市供水条例",
        "--json",
        "--config",
        config,
    ]);
    assert_eq!((code, &answer["id"]), (Some(0), &json!("arrears-check")), "{answer}");
}

/// The dry run of one query for one subject, masked, at the department itself.
pub fn a_query_is_tried(dir: &Path, sale: &Sale) {
    let standard = dir.join("elements.yaml");
    let attempt = |department: &str, query: &str, subject: Value, more: &[&str]| {
        let home = dir.join("departments").join(department);
        let (connector, database) = (home.join("connector.yaml"), home.join("department.db"));
        let files = [standard.to_str().unwrap(), connector.to_str().unwrap()];
        let fixed = ["--database", database.to_str().unwrap(), "--query", query, "--json"];
        let subject = subject.to_string();
        tongban(&[&["connector", "try"], &files[..], &fixed, &["--subject", &subject], more].concat())
    };
    let asked = json!({ "subject": sale.seller.id, "name": sale.seller.name });
    let (code, answer) = attempt("police", "police.identity.name_matches", asked, &[]);
    assert_eq!((code, &answer["answer"]["name_matches"]), (Some(0), &json!("yes")), "{answer}");
    assert!(answer["ms"].as_f64().is_some() && answer["as_of"].is_string());
    let (code, masked) =
        attempt("registry", "registry.deed", json!({ "unit": sale.unit, "holder": sale.seller.id }), &[]);
    assert_eq!(code, Some(0), "{masked}");
    let open = json!({ "unit": sale.unit, "holder": sale.seller.id });
    let (_, open) = attempt("registry", "registry.deed", open, &["--unmasked"]);
    let location = open["answer"]["location"].as_str().unwrap();
    assert!(location.chars().count() > 6 && masked["answer"]["location"] != location);
    assert!(masked["answer"]["location"].as_str().unwrap().contains('*'), "{masked}");
    let (code, answer) =
        attempt("police", "police.identity.name_matches", json!({ "subject": "1' OR 1=1", "name": "" }), &[]);
    assert_eq!((code, &answer["reason"]), (Some(1), &json!("bad_parameter")));
    let (code, answer) = attempt("police", "police.everything", json!({}), &[]);
    assert_eq!(code, Some(2), "{answer}");
    assert!(
        answer["error"]["message"].as_str().unwrap().contains("police.identity.name_matches"),
        "{answer}"
    );
}

/// A column of the gas company's database is renamed under a running node: what reads it is closed at once, by name, and serves
/// again when it is back.
pub async fn drift_closes_what_it_touches(dir: &Path) {
    let config = config(dir, &"gas".parse().unwrap());
    let client = Client::new(config.http, config.api_token.as_deref().unwrap());
    let closed = async || -> Vec<String> {
        let report: Value = client.get("/api/v1/connector").await.unwrap();
        let closed = report["queries"].as_array().unwrap().iter().filter(|q| q["status"] == "closed");
        closed.map(|q| q["id"].as_str().unwrap().to_owned()).collect()
    };
    let until = async |expected: &[&str]| {
        let begun = Instant::now();
        while closed().await != expected {
            assert!(begun.elapsed() < Duration::from_secs(60), "{expected:?} is closed within a minute");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let file = dir.join("departments/gas/department.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
    let mut db = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    let rename = "ALTER TABLE gas_customer RENAME COLUMN owed_fen TO owes_fen";
    sqlx::query(rename).execute(&mut db).await.unwrap();
    until(&["predicate gas.account.settled"]).await;
    let metrics = String::from_utf8(client.get_bytes("/metrics").await.unwrap()).unwrap();
    assert!(metrics.contains("tongban_connector_closed 1\n"));
    sqlx::query("ALTER TABLE gas_customer RENAME COLUMN owes_fen TO owed_fen")
        .execute(&mut db)
        .await
        .unwrap();
    until(&[]).await;
}
