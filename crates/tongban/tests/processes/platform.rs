//! A department's data are gathered by the data platform, which from then on is its source: calls run as before, with files changed and
//! nothing else. And what is about nobody is published, on the ledger's record only.

use crate::{Processes, config, tongban};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tongban::{
    client::Client,
    demo,
    play::{Driver, Play},
    setup::node_dir,
};

const MARRIAGES: &str = "
format: 1
id: civil.marriages
resource: civil.marriage
title: { zh: 婚姻登记, en: Marriages }
department: civil
officer: 婚姻登记处
mode: snapshot
subject: person
columns:
  - { id: person, column: person_id, element: person.id, required: true, sensitivity: 4 }
  - { id: state, element: marriage.state, transform: [{ codes: { J: married, L: divorced, X: void } }], words: [married, divorced, void] }
aggregates: [{ role: publisher, by: [state], at_least: 10 }]
";

const PLAN: &str = r#"
format: 1
id: civil.by-state
title: { zh: 婚姻登记数, en: Marriages by state }
about: { zh: 各状态的登记人数。, en: People registered in each state. }
department: civil
department_title: { zh: 民政局, en: Civil affairs }
officer: 婚姻登记处
licence: { id: CC-BY-4.0, title: Creative Commons Attribution 4.0 }
update: monthly
theme: SOCI
keywords: [{ zh: 婚姻, en: marriage }]
rows: totals
from: { query: { role: publisher, sql: "select state, count(*) as n from civil_marriages group by state order by state" } }
columns:
  - { id: state, type: code, title: { zh: 状态, en: State } }
  - { id: n, type: integer, role: people, title: { zh: 人数, en: People } }
round_to: 10
"#;

struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lake(program: &Path, home: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(program)
        .args(arguments)
        .current_dir(home)
        .env("TONGBAN_PASSPHRASE", demo::PASSPHRASE)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code(), said)
}

fn lake_done(program: &Path, home: &Path, arguments: &[&str]) -> String {
    let (code, said) = lake(program, home, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    said
}

pub async fn a_department_answers_from_the_platform(
    dir: &Path,
    processes: &mut Processes,
    driver: &Driver,
    play: &Play,
) {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_tongban")).with_file_name("tongban-lake");
    if !program.exists() {
        eprintln!("skipped: {} is not built", program.display());
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let home = temporary.path().join("lake");
    std::fs::create_dir(&home).unwrap();
    // `tongban lake` is `tongban-lake`
    let out = Command::new(env!("CARGO_BIN_EXE_tongban"))
        .args(["lake", "init", home.to_str().unwrap()])
        .env("TONGBAN_PASSPHRASE", demo::PASSPHRASE)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    std::fs::write(home.join("datasets/marriages.yaml"), MARRIAGES).unwrap();

    // the department's table, as a file
    let database = dir.join("departments/civil/department.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&database);
    let mut db = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT person_id, state FROM v_spouse").fetch_all(&mut db).await.unwrap();
    assert!(rows.len() > 1000);
    let lines: String = rows.iter().map(|(person, state)| format!("{person},{state}\n")).collect();
    std::fs::write(home.join("spouses.csv"), format!("person_id,state\n{lines}")).unwrap();
    lake_done(&program, &home, &["ingest", "civil.marriages", "spouses.csv"]);

    let address = demo::free_addresses(1).unwrap()[0];
    let token = "a token between the platform and the department";
    std::fs::write(home.join("token"), token).unwrap();
    std::fs::copy(dir.join("genesis.json"), home.join("genesis.json")).unwrap();
    std::fs::write(
        home.join("lake.toml"),
        format!("listen = \"{address}\"\ntoken_file = \"token\"\ngenesis = \"genesis.json\"\n"),
    )
    .unwrap();
    let serve = || {
        let serving = Command::new(&program)
            .args(["serve"])
            .current_dir(&home)
            .env("TONGBAN_PASSPHRASE", demo::PASSPHRASE)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(home.join("log")).unwrap())
            .spawn();
        Served(serving.unwrap())
    };
    let serving = serve();

    // the department's node reads from the platform: its connector and one line of its settings change
    let civil = "civil".parse().unwrap();
    processes.kill("civil");
    let connector = config(dir, &civil).connector;
    let declared = std::fs::read_to_string(&connector).unwrap();
    let service = "service:\n  token_file: lake.token\n  reads: { v_spouse: { post: /tables/civil.marriages/lookup, at: /rows } }\nentities:";
    let changed = declared
        .replace("entities:", service)
        .replace("column: person_id,", "column: person,")
        .replace(", transform: [{ codes: { J: married, L: divorced, X: void } }]", "");
    assert_ne!(declared, changed);
    std::fs::write(&connector, changed).unwrap();
    let settings = node_dir(dir, &civil).join("node.toml");
    std::fs::write(node_dir(dir, &civil).join("lake.token"), token).unwrap();
    let toml = std::fs::read_to_string(&settings).unwrap();
    let lines = toml.lines().map(|line| match line.starts_with("database = ") {
        true => format!("database = \"http://{address}\"\nplatform = \"http://{address}\""),
        false => line.to_owned(),
    });
    std::fs::write(&settings, lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    // nothing is left to read but the platform
    std::fs::rename(&database, database.with_extension("away")).unwrap();
    processes.start(&civil);
    let node = Client::new(config(dir, &civil).http, "");
    until("the department's node serves", async || node.get::<Value>("/api/v1/status").await.is_ok()).await;
    let report = driver.run(play).await.unwrap().remove(0);
    assert_eq!(report.outcome, "closed", "a case with a call answered from the platform");
    assert!(
        report.receipts.iter().any(|r| r.contains("spouse") || r.contains("marri")),
        "{:?}",
        report.receipts
    );
    let log = std::fs::read_to_string(home.join("log")).unwrap();
    assert!(rows.iter().all(|(person, _)| !log.contains(person)), "nobody is in the platform's log");

    // open data: no decision, no publication; with it, the file verifies, and the portal serves it on the node's own address
    std::fs::write(home.join("plan.yaml"), PLAN).unwrap();
    let (code, said) = lake(&program, &home, &["publish", "plan.yaml"]);
    assert!(code == Some(2) && said.contains("name the department's node"), "{said}");
    let at = format!("http://{}", config(dir, &civil).http);
    std::fs::write(home.join("node-token"), config(dir, &civil).api_token.unwrap()).unwrap();
    let (code, said) = lake(&program, &home, &["publish", "plan.yaml", "--node", &at]);
    assert!(code == Some(2) && said.contains("did not record"), "without the node's token: {said}");
    let elsewhere = format!("http://{}", config(dir, &"tax".parse().unwrap()).http);
    std::fs::write(home.join("tax-token"), config(dir, &"tax".parse().unwrap()).api_token.unwrap()).unwrap();
    let (code, said) = lake(
        &program,
        &home,
        &["publish", "plan.yaml", "--node", &elsewhere, "--node-token-file", "tax-token"],
    );
    assert!(code == Some(2) && said.contains("not_yours"), "nobody decides for another department: {said}");
    lake_done(&program, &home, &["publish", "plan.yaml", "--node", &at, "--node-token-file", "node-token"]);
    let file = home.join("work/open/civil.by-state/v1/publication.json");
    let genesis = dir.join("genesis.json");
    let (code, facts) =
        tongban(&["verify", file.to_str().unwrap(), "--genesis", genesis.to_str().unwrap(), "--json"]);
    assert_eq!(
        (code, &facts["facts"]["kind"], &facts["facts"]["holder"]),
        (Some(0), &"publication".into(), &"civil".into()),
        "{facts}"
    );
    let bytes = std::fs::read(&file).unwrap();
    let read = node::read_genesis(&genesis).unwrap();
    for at in (0..bytes.len()).step_by(bytes.len() / 97) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(proof::verify_publication(&changed, &read).is_err(), "byte {at} may be changed");
    }
    let there = async || {
        let page = node.get_bytes("/open/civil.by-state?lang=en").await.unwrap_or_default();
        String::from_utf8_lossy(&page).contains("stands on the ledger")
    };
    until("the portal serves it", there).await;
    let csv = String::from_utf8(node.get_bytes("/open/civil.by-state/v1/data.csv").await.unwrap()).unwrap();
    assert!(csv.starts_with("state,n\n") && csv.contains("married,"), "{csv}");
    let found: Value = node.get("/api/3/action/package_search?q=marriage").await.unwrap();
    assert_eq!(found["result"]["count"], 1);
    // with another's decision a publication is not served
    drop(serving);
    std::fs::write(home.join("plan-2.yaml"), PLAN.replace("civil.by-state", "civil.again")).unwrap();
    lake_done(&program, &home, &["publish", "plan-2.yaml", "--node", &at, "--node-token-file", "node-token"]);
    std::fs::copy(&file, home.join("work/open/civil.again/v1/publication.json")).unwrap();
    let _serving = serve();
    let listed = async || node.get::<Value>("/api/3/action/package_list").await.is_ok();
    until("the portal serves again", listed).await;
    let listed: Value = node.get("/api/3/action/package_list").await.unwrap();
    assert_eq!(listed["result"], serde_json::json!(["civil.by-state"]));
    let log = std::fs::read_to_string(home.join("log")).unwrap();
    assert!(log.contains("the decision on the ledger is about something else"), "{log}");

    // back to its own database
    processes.kill("civil");
    std::fs::write(&connector, declared).unwrap();
    std::fs::write(&settings, toml).unwrap();
    std::fs::rename(database.with_extension("away"), &database).unwrap();
    processes.start(&civil);
    until("the department's node serves again", async || node.get::<Value>("/api/v1/status").await.is_ok())
        .await;
}

async fn until(what: &str, is: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !is().await {
        assert!(begun.elapsed() < Duration::from_secs(90), "never: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
