//! One connector and the same questions through two ODBC drivers; what a driver may do to its process, the node does not notice.

#[path = "../../gateway/tests/common/mod.rs"]
mod servers;

use gateway::{Connected, Connector, Gateway, GatewayError, Source as _, SourceError, Standard};
use model::What;
use servers::{free_port, load, postgres};
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const STANDARD: &str = "
format: 1
elements:
  number: { type: text, title: { zh: 户号, en: Account } }
  person: { type: resident_id, title: { zh: 公民身份号码, en: Person } }
  name: { type: text, title: { zh: 姓名, en: Name } }
  state: { type: code, title: { zh: 状态, en: State } }
  fen: { type: integer, title: { zh: 金额, en: Amount } }
  date: { type: date, title: { zh: 日期, en: Date } }
";

const CONNECTOR: &str = "
format: 1
department: water
resources:
  - { id: water.account, version: 1, title: { zh: 账户, en: Account }, holder: water, officer: 营业部, subject: person, share: conditional,
      basis: law, standard: std, update: realtime, predicates: [{ id: holds, title: { zh: 是否户主, en: Holds } }],
      fields: [{ id: name, element: name, title: { zh: 姓名, en: Name }, sensitivity: 3 },
               { id: owed, element: fen, title: { zh: 欠费, en: Owed }, sensitivity: 2 },
               { id: district, element: name, title: { zh: 片区, en: District }, sensitivity: 1 },
               { id: opened, element: date, title: { zh: 开户, en: Opened }, sensitivity: 1 }] }
  - { id: water.slow, version: 1, title: { zh: 慢, en: Slow }, holder: water, officer: 营业部, subject: person, share: conditional,
      basis: law, standard: std, update: realtime, predicates: [],
      fields: [{ id: name, element: name, title: { zh: 姓名, en: Name }, sensitivity: 3 }] }
  - { id: water.huge, version: 1, title: { zh: 多, en: Huge }, holder: water, officer: 营业部, subject: person, share: conditional,
      basis: law, standard: std, update: realtime, predicates: [],
      fields: [{ id: name, element: name, title: { zh: 姓名, en: Name }, sensitivity: 3 }] }
entities:
  account:
    table: 账户
    columns:
      number: { column: number, element: number }
      person: { column: holder, element: person }
      name: { column: Name, element: name }
      state: { column: state, element: state, transform: [{ codes: { '0': open, '1': closed } }] }
      owed: { column: owed, element: fen, transform: [yuan_to_fen] }
      district: { column: district, element: name, transform: [gbk] }
      opened: { column: opened, element: date, transform: [{ date: yyyy-mm-dd }] }
  slow: { table: slow, columns: { person: { column: holder, element: person }, name: { column: name, element: name } } }
  huge: { table: huge, columns: { person: { column: holder, element: person }, name: { column: name, element: name } } }
queries:
  - { resource: water.account, entity: account, subject: person, where: { state: open },
      fields: { name: name, owed: owed, opened: opened, district: district } }
  - { resource: water.slow, entity: slow, subject: person, fields: { name: name } }
  - { resource: water.huge, entity: huge, subject: person, fields: { name: name } }
predicates:
  - { resource: water.account, id: holds, entity: account, subject: person, parameters: { number: number }, test: exists }
actions:
  - { id: change_holder, parameters: [number, old_id, new_id, new_name],
      statements: [{ entity: account, kind: update, set: { person: $new_id, name: $new_name }, where: { number: $number, person: $old_id }, expect: 1 }],
      result: [number] }
  - { id: open_account, parameters: [number, new_id, new_name],
      statements: [{ entity: account, kind: insert, set: { number: $number, person: $new_id, name: $new_name, state: open, owed: '0' }, expect: 1 }],
      result: [number] }
";

// 海淀 in GBK; numbers of nobody (sequence numbers of centenarians, GB 11643)
const ROWS: &str = "
INSERT INTO \"账户\" VALUES ('A1', '11010819800102998X', '王·小明', '0', 12.30, BYTES, '2018-03-05');
INSERT INTO \"账户\" VALUES ('A2', '110108198001019968', 'x''; DROP TABLE slow; --', '1', 0, NULL, NULL);
";
const PERSON: &str = "11010819800102998X";
const OTHER: &str = "110108198001019968";

fn tables(text: &str, bytes: &str, blob: &str, sleep: &str, many: &str) -> String {
    let rows = ROWS.replace("BYTES", bytes);
    format!(
        "CREATE TABLE \"账户\" (number {text} PRIMARY KEY, holder {text} NOT NULL, \"Name\" {text}, state {text}, owed NUMERIC(12,2), \
         district {blob}, opened DATE);{rows}
         CREATE VIEW slow AS SELECT holder, {sleep} AS name FROM \"账户\";
         CREATE VIEW huge AS {many};"
    )
}

async fn open(connection: &str) -> Gateway<Connected> {
    let connector = Connector::parse("connector", CONNECTOR).unwrap();
    let source =
        Connected::open(&format!("odbc:{connection}"), Path::new(""), &connector, false).await.unwrap();
    let gateway =
        Gateway::open(connector, &Standard::parse("standard", STANDARD).unwrap(), source).await.unwrap();
    assert!(gateway.problems().is_empty(), "{connection}: {:#?}", gateway.problems());
    gateway
}

fn given(pairs: &[(&str, &str)]) -> BTreeMap<model::FieldId, String> {
    pairs.iter().map(|(k, v)| (k.parse().unwrap(), (*v).to_owned())).collect()
}

async fn field(
    gateway: &Gateway<Connected>,
    resource: &str,
    names: &[&str],
    subject: &str,
) -> Result<Vec<String>, GatewayError> {
    let what = What::Fields(names.iter().map(|n| n.parse().unwrap()).collect());
    let answer = gateway.answer(&resource.parse().unwrap(), &what, subject, &BTreeMap::new()).await?;
    Ok(answer.into_iter().map(|(_, value)| value).collect())
}

async fn holds(gateway: &Gateway<Connected>, person: &str, number: &str) -> String {
    let what = What::Predicate("holds".parse().unwrap());
    let (resource, given) = ("water.account".parse().unwrap(), given(&[("number", number)]));
    gateway.answer(&resource, &what, person, &given).await.unwrap().remove(0).1
}

async fn everything_is_answered_and_done_once(gateway: &Gateway<Connected>) {
    let all = ["name", "owed", "opened", "district"];
    let answer = field(gateway, "water.account", &all, PERSON).await.unwrap();
    assert_eq!(answer, ["王·小明", "1230", "2018-03-05", "海淀"]);
    assert!(matches!(field(gateway, "water.account", &all, OTHER).await, Err(GatewayError::NotFound)));
    assert_eq!(holds(gateway, OTHER, "A2").await, "yes");
    assert_eq!(holds(gateway, OTHER, "A1").await, "no");
    assert_eq!(holds(gateway, OTHER, "A2' OR '1'='1").await, "no");

    let change = "change_holder".parse().unwrap();
    let values =
        given(&[("number", "A1"), ("old_id", PERSON), ("new_id", OTHER), ("new_name", "李'四\";𠮷")]);
    let first = gateway.perform(&change, "case/step", &values).await.unwrap();
    // delivered again, at the same time and later: nothing more happens, and the first result comes back
    let again = (0..4).map(|_| gateway.perform(&change, "case/step", &values));
    for result in futures::future::join_all(again).await {
        assert_eq!(result.unwrap(), first);
    }
    assert_eq!(field(gateway, "water.account", &["name"], OTHER).await.unwrap(), ["李'四\";𠮷"]);
    // another one finds no such row, and leaves nothing behind
    let none = gateway.perform(&change, "case/other", &values).await;
    assert!(
        matches!(none, Err(GatewayError::Source(SourceError::RowCount { expected: 1, found: 0 }))),
        "{none:?}"
    );
    // the database's own rules
    let open = "open_account".parse().unwrap();
    let values = given(&[("number", "A1"), ("new_id", PERSON), ("new_name", "某")]);
    let refused = gateway.perform(&open, "case/third", &values).await;
    assert!(matches!(refused, Err(GatewayError::Source(SourceError::Refused))), "{refused:?}");
    let values = given(&[("number", "A9"), ("new_id", PERSON), ("new_name", "某")]);
    gateway.perform(&open, "case/third", &values).await.unwrap();
    assert_eq!(holds(gateway, PERSON, "A9").await, "yes");
}

/// The programs this process started.
fn programs() -> Vec<String> {
    let found = Command::new("pgrep").args(["-P", &std::process::id().to_string(), "tongban-odbc"]).output();
    String::from_utf8(found.unwrap().stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_drivers_give_the_same_answers_and_a_bad_one_harms_nobody() {
    let drivers = Command::new("odbcinst").args(["-q", "-d"]).output();
    let drivers = drivers.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    if !drivers.contains("[SQLite3]") || !drivers.contains("[PostgreSQL Unicode]") {
        println!("skipped: no ODBC drivers for SQLite and PostgreSQL are installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("water.db");
    let script =
        tables("TEXT", "X'BAA3B5ED'", "BLOB", "holder", "SELECT holder, holder AS name FROM \"账户\"");
    let mut python = Command::new("python3")
        .args(["-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.stdin.read())"])
        .arg(&file)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), script.as_bytes()).unwrap();
    assert!(python.wait().unwrap().success());
    let gateway = open(&format!("Driver=SQLite3;Database={};Timeout=5000", file.display())).await;
    everything_is_answered_and_done_once(&gateway).await;
    gateway.source().close().await;

    let Some(server) = postgres() else {
        println!("skipped: PostgreSQL is not installed");
        return;
    };
    // many rows, more than a driver that keeps them all may have memory for
    let many =
        "SELECT '11010819800102998X' AS holder, repeat('x', 1000) AS name FROM generate_series(1, 8000000)";
    let sleep = "CASE WHEN pg_sleep(30) IS NULL THEN '' ELSE holder END";
    let script = tables("VARCHAR(200)", "'\\xBAA3B5ED'", "BYTEA", sleep, many);
    load(&server.url, script.as_bytes());
    let port = server.url.rsplit_once(':').and_then(|(_, rest)| rest.split_once('/')).unwrap().0.to_owned();
    let connection = format!(
        "Driver=PostgreSQL Unicode;Servername=127.0.0.1;Port={port};Database=city;Username=tongban;ByteaAsLongVarBinary=1"
    );
    let gateway = open(&connection).await;
    everything_is_answered_and_done_once(&gateway).await;

    // a statement that hangs, and one whose result has no end: an error in time, and the next call is answered
    for resource in ["water.slow", "water.huge"] {
        let begun = Instant::now();
        let failed = field(&gateway, resource, &["name"], PERSON).await;
        assert!(matches!(failed, Err(GatewayError::Source(_) | GatewayError::Ambiguous)), "{failed:?}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{resource}: {:?}", begun.elapsed());
        // the server may still be at it for a while
        let (what, given) = (What::Predicate("holds".parse().unwrap()), given(&[("number", "A2")]));
        let (resource, begun) = ("water.account".parse().unwrap(), Instant::now());
        while let Err(e) = gateway.answer(&resource, &what, OTHER, &given).await {
            assert!(begun.elapsed() < Duration::from_secs(60), "{e}");
        }
    }
    // killed while it is idle
    for program in programs() {
        Command::new("kill").args(["-9", &program]).status().unwrap();
    }
    assert_eq!(holds(&gateway, OTHER, "A2").await, "yes");

    // what is not there is told, and no password
    let connector = Connector::parse("connector", CONNECTOR).unwrap();
    for wrong in ["Driver=No Such;PWD=geheim", "DSN=nobody;PWD=geheim"] {
        let failed = Connected::open(&format!("odbc:{wrong}"), Path::new(""), &connector, true).await;
        let told = failed.err().unwrap().to_string();
        assert!(told.contains("IM002") || told.contains("01000"), "{told}");
        assert!(!told.contains("geheim"), "{told}");
    }
    let nobody = format!("Driver=PostgreSQL Unicode;Servername=127.0.0.1;Port={};Database=city", free_port());
    let failed = Connected::open(&format!("odbc:{nobody}"), Path::new(""), &connector, true).await;
    let told = failed.err().unwrap().to_string();
    assert!(told.contains("code 08"), "{told}");
    gateway.source().close().await;
    // they are killed, and gone once the system has taken them away
    let begun = Instant::now();
    while !programs().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?} still run", programs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
