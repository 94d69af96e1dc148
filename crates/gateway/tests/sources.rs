//! One connector and the same questions on every kind of source give the same answers; what changes or lies closes what it touches,
//! and nothing else.

mod common;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use common::{load, mariadb, postgres};
use gateway::{Connected, Connector, Gateway, GatewayError, SourceError, Standard};
use model::What;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

const STANDARD: &str = "
format: 1
elements:
  number: { type: text, title: { zh: 户号, en: Account } }
  unit: { type: unit_code, title: { zh: 不动产单元号, en: Unit } }
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
  - { id: water.account, version: 1, title: { zh: 账户, en: Account }, holder: water, officer: 营业部, subject: unit, share: conditional,
      basis: law, standard: std, update: realtime, predicates: [{ id: settled, title: { zh: 是否结清, en: Settled } }],
      fields: [{ id: name, element: name, title: { zh: 姓名, en: Name }, sensitivity: 3 },
               { id: owed, element: fen, title: { zh: 欠费, en: Owed }, sensitivity: 2 },
               { id: opened, element: date, title: { zh: 开户, en: Opened }, sensitivity: 1 }] }
  - { id: water.numbers, version: 1, title: { zh: 户号, en: Numbers }, holder: water, officer: 营业部, subject: unit, share: conditional,
      basis: law, standard: std, update: realtime, predicates: [],
      fields: [{ id: numbers, element: number, title: { zh: 户号, en: Numbers }, sensitivity: 2 },
               { id: total, element: fen, title: { zh: 合计, en: Total }, sensitivity: 2 }] }
  - { id: water.holder, version: 1, title: { zh: 户主, en: Holder }, holder: water, officer: 营业部, subject: person, share: conditional,
      basis: law, standard: std, update: realtime, fields: [], predicates: [{ id: holds, title: { zh: 是否户主, en: Holds } }] }
  - { id: water.by_number, version: 1, title: { zh: 按户号, en: By number }, holder: water, officer: 营业部, subject: person,
      share: conditional, basis: law, standard: std, update: realtime, predicates: [],
      fields: [{ id: name, element: name, title: { zh: 姓名, en: Name }, sensitivity: 3 }] }
files:
  accounts: { file: 'accounts*.FILE', encoding: ENCODING }
service:
  token_file: token
  timeout_ms: 300
  reads: { accounts: { get: '/accounts?unit={unit}&holder={holder}&number={number}', at: /rows } }
  writes: { transfers: /transfers }
entities:
  account:
    table: accounts
    columns:
      number: { column: number, element: number }
      unit: { column: unit, element: unit, transform: [{ unit_groups: '-' }] }
      person: { column: holder, element: person, transform: [old_id] }
      name: { column: name, element: name, transform: [no_space] }
      state: { column: state, element: state, transform: [{ codes: { '0': open, '1': closed } }] }
      owed: { column: owed, element: fen, transform: [yuan_to_fen] }
      opened: { column: opened, element: date, transform: [{ date: DATE }], none: ['00000000'] }
queries:
  - { resource: water.account, entity: account, subject: unit, where: { state: open }, fields: { name: name, owed: owed, opened: opened } }
  - { resource: water.numbers, entity: account, subject: unit, rows: many, order: number, fields: { numbers: number, total: { sum: owed } } }
  - { resource: water.by_number, entity: account, subject: number, fields: { name: name } }
predicates:
  - { resource: water.account, id: settled, entity: account, subject: unit, where: { state: open }, test: { all: 'owed == 0' } }
  - { resource: water.holder, id: holds, entity: account, subject: person, test: exists }
";

const ACTION: &str = "
actions:
  - { id: change_holder, parameters: [number, new_id, new_name],
      statements: [{ entity: account, kind: update, set: { person: $new_id, name: $new_name }, where: { number: $number, state: open }, expect: 1 }],
      result: [number] }
";

const SERVICE_ACTION: &str = "
actions:
  - { id: change_holder, parameters: [number, new_id, new_name],
      statements: [{ entity: transfer, kind: insert, set: { number: $number, person: $new_id, name: $new_name }, expect: 1 }],
      result: [number] }
";

const HEADER: [&str; 7] = ["number", "unit", "holder", "name", "state", "owed", "opened"];
const ROWS: [[&str; 7]; 4] = [
    ["A1", "110108-001-002-GB-00003-F-00010001", "11010519491231002X", "王 小明", "0", "12.30", "20180305"],
    [
        "A2",
        "110108-001-002-GB-00003-F-00010001",
        "110105491231002",
        "古丽娜尔·阿依古丽",
        "1",
        "0.00",
        "00000000",
    ],
    [
        "A3",
        "110108-001-002-GB-00003-F-00010002",
        "11010519491231002x",
        "x'; DROP TABLE accounts; --",
        "0",
        "0",
        "20190101",
    ],
    ["A4", "110108-001-002-GB-00003-F-00010003", "34052419800101001X", "李\"四,", "0", "-3.05", "20190101"],
];
const UNIT_1: &str = "110108001002GB00003F00010001";
const UNIT_2: &str = "110108001002GB00003F00010002";
const PERSON: &str = "11010519491231002X";

fn declared(file: &str, encoding: &str, date: &str, action: &str) -> Connector {
    let mut text = CONNECTOR.replace("FILE", file).replace("ENCODING", encoding).replace("DATE", date);
    if action == SERVICE_ACTION {
        text = text.replace(
            "queries:\n",
            "  transfer:\n    table: transfers\n    columns:\n      number: { column: account, element: number }\n      person: { column: \
             new_holder, element: person }\n      name: { column: new_name, element: name }\nqueries:\n",
        );
    }
    Connector::parse("connector", &(text + action)).unwrap()
}

async fn open(connector: Connector, address: &str, dir: &Path) -> Gateway<Connected> {
    let source = Connected::open(address, dir, &connector, false).await.unwrap();
    let gateway =
        Gateway::open(connector, &Standard::parse("standard", STANDARD).unwrap(), source).await.unwrap();
    assert!(gateway.problems().is_empty(), "{address}: {:#?}", gateway.problems());
    gateway
}

async fn fields(
    gateway: &Gateway<Connected>,
    resource: &str,
    names: &[&str],
    subject: &str,
) -> Result<Vec<String>, GatewayError> {
    let what = What::Fields(names.iter().map(|n| n.parse().unwrap()).collect());
    let answer = gateway.answer(&resource.parse().unwrap(), &what, subject, &BTreeMap::new()).await?;
    Ok(answer.into_iter().map(|(_, value)| value).collect())
}

async fn predicate(
    gateway: &Gateway<Connected>,
    resource: &str,
    id: &str,
    subject: &str,
) -> Result<String, GatewayError> {
    let what = What::Predicate(id.parse().unwrap());
    Ok(gateway.answer(&resource.parse().unwrap(), &what, subject, &BTreeMap::new()).await?.remove(0).1)
}

async fn account(gateway: &Gateway<Connected>) -> Result<Vec<String>, GatewayError> {
    fields(gateway, "water.account", &["name", "owed", "opened"], UNIT_1).await
}

/// What must come out whatever the data lies in.
async fn the_same_answers(gateway: &Gateway<Connected>, kind: &str) {
    assert_eq!(account(gateway).await.unwrap(), ["王小明", "1230", "2018-03-05"], "{kind}");
    let numbers = fields(gateway, "water.numbers", &["numbers", "total"], UNIT_1).await.unwrap();
    assert_eq!(numbers, [r#"["A1","A2"]"#, "1230"], "{kind}");
    assert_eq!(predicate(gateway, "water.account", "settled", UNIT_1).await.unwrap(), "no", "{kind}");
    assert_eq!(predicate(gateway, "water.account", "settled", UNIT_2).await.unwrap(), "yes", "{kind}");
    let nowhere = "110108001002GB00003F00019999";
    assert_eq!(predicate(gateway, "water.account", "settled", nowhere).await.unwrap(), "unknown", "{kind}");
    assert!(matches!(
        fields(gateway, "water.numbers", &["total"], nowhere).await,
        Err(GatewayError::NotFound)
    ));
    // in every form it is stored in
    assert_eq!(predicate(gateway, "water.holder", "holds", PERSON).await.unwrap(), "yes", "{kind}");
    assert_eq!(
        predicate(gateway, "water.holder", "holds", "130102193002113799").await.unwrap(),
        "no",
        "{kind}"
    );
    assert_eq!(
        fields(gateway, "water.by_number", &["name"], "A3").await.unwrap(),
        ["x';DROPTABLEaccounts;--"]
    );
    assert_eq!(fields(gateway, "water.by_number", &["name"], "A4").await.unwrap(), ["李\"四,"]);
    // nothing that is written into a value is more than a value
    for hostile in [
        "x' OR '1'='1",
        "A1'; DROP TABLE accounts; --",
        "A1\0",
        "%",
        "A_",
        "a1",
        "../A1",
        "{unit}",
        "A1&unit=",
        " A1",
        "",
    ] {
        let found = fields(gateway, "water.by_number", &["name"], hostile).await;
        assert!(matches!(found, Err(GatewayError::NotFound)), "{kind}: {hostile:?}: {found:?}");
    }
    let long = "A".repeat(1 << 20);
    assert!(matches!(
        fields(gateway, "water.by_number", &["name"], &long).await,
        Err(GatewayError::Parameter(_))
    ));
    for wrong in ["110105194912310021", "", "1' OR 1=1"] {
        assert!(matches!(
            predicate(gateway, "water.holder", "holds", wrong).await,
            Err(GatewayError::Parameter(_))
        ));
    }
}

async fn perform(gateway: &Gateway<Connected>, key: &str, number: &str) -> Result<String, GatewayError> {
    let parameters = [("number", number), ("new_id", "34052419800101001X"), ("new_name", "王 小明")];
    let parameters = parameters.map(|(k, v)| (k.parse().unwrap(), v.to_owned())).into();
    let done = gateway.perform(&"change_holder".parse().unwrap(), key, &parameters).await?;
    Ok(done.values().next().unwrap().clone())
}

/// An action is done once for its key, and whole or not at all.
async fn acts_once(gateway: &Gateway<Connected>, kind: &str) {
    let holds = || predicate(gateway, "water.holder", "holds", "34052419800101001X");
    assert_eq!(perform(gateway, "case-1", "A1").await.unwrap(), "A1", "{kind}");
    assert_eq!(
        perform(gateway, "case-1", "A3").await.unwrap(),
        "A1",
        "{kind}: repeated, it gives the first result"
    );
    assert_eq!(holds().await.unwrap(), "yes");
    assert_eq!(
        fields(gateway, "water.by_number", &["name"], "A3").await.unwrap(),
        ["x';DROPTABLEaccounts;--"]
    );
    for (key, number) in [("case-2", "A2"), ("case-3", "nowhere")] {
        let refused = perform(gateway, key, number).await;
        let counted =
            matches!(refused, Err(GatewayError::Source(SourceError::RowCount { expected: 1, found: 0 })));
        assert!(counted, "{kind}: {refused:?}");
        // and its key is free
        assert!(perform(gateway, key, "A3").await.is_ok(), "{kind}");
    }
    assert_eq!(account(gateway).await.unwrap(), ["王小明", "1230", "2018-03-05"], "{kind}");
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The table as a script, days as days and amounts as decimals where the database has them.
fn script(types: [&str; 7], day: impl Fn(&str) -> String) -> String {
    let columns: Vec<_> = HEADER.iter().zip(types).map(|(name, kind)| format!("{name} {kind}")).collect();
    let mut script = format!("CREATE TABLE accounts ({});\n", columns.join(", "));
    for row in ROWS {
        let mut values: Vec<_> = row.iter().map(|text| quoted(text)).collect();
        values[6] = day(row[6]);
        script += &format!("INSERT INTO accounts VALUES ({});\n", values.join(", "));
    }
    script
}

fn day(text: &str) -> String {
    match text {
        "00000000" => "NULL".into(),
        text => format!("'{}-{}-{}'", &text[..4], &text[4..6], &text[6..]),
    }
}

fn csv(separator: &str) -> String {
    let cell = |text: &&str| format!("\"{}\"", text.replace('"', "\"\""));
    let line = |row: &[&str]| row.iter().map(cell).collect::<Vec<_>>().join(separator);
    let rows: Vec<_> = [HEADER].iter().chain(&ROWS).map(|row| line(row)).collect();
    rows.join("\r\n") + "\r\n"
}

async fn sqlite(dir: &Path, name: &str, action: &str) -> Gateway<Connected> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join(name)).create_if_missing(true);
    let mut db = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    let script = script(["TEXT"; 7], quoted);
    sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&mut db).await.unwrap();
    sqlx::Connection::close(db).await.unwrap();
    open(declared("csv", "utf8", "yyyymmdd", action), name, dir).await
}

#[tokio::test]
async fn a_sqlite_file() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = sqlite(dir.path(), "water.db", ACTION).await;
    the_same_answers(&gateway, "SQLite").await;
    acts_once(&gateway, "SQLite").await;
}

/// What a declaration says is held to when it is compiled, and in every place it names.
#[tokio::test]
async fn declarations_are_held_to_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    drop(sqlite(dir.path(), "s.db", ACTION).await);
    let reopened = async |text: String| {
        let connector = Connector::parse("connector", &text).unwrap();
        let source = Connected::open("s.db", dir.path(), &connector, false).await.unwrap();
        Gateway::open(connector, &Standard::parse("standard", STANDARD).unwrap(), source).await.unwrap()
    };
    let text = CONNECTOR.replace("FILE", "csv").replace("ENCODING", "utf8").replace("DATE", "yyyymmdd");

    // a parameter narrows the rows of a further place too
    let also = "
  - { resource: water.account, id: settled, entity: account, subject: unit, parameters: { who: person }, where: { state: open },
      also: [{ entity: account, subject: unit, where: { state: closed } }], test: { all: 'owed == 0' } }";
    let single = "
  - { resource: water.account, id: settled, entity: account, subject: unit, where: { state: open }, test: { all: 'owed == 0' } }";
    assert!(text.contains(single));
    let gateway = reopened(text.replace(single, also)).await;
    assert!(gateway.problems().is_empty(), "{:#?}", gateway.problems());
    let settled = async |who: &str| {
        let what = What::Predicate("settled".parse().unwrap());
        let given = BTreeMap::from([("who".parse().unwrap(), who.to_owned())]);
        gateway.answer(&"water.account".parse().unwrap(), &what, UNIT_1, &given).await.unwrap()[0].1.clone()
    };
    assert_eq!(settled(PERSON).await, "no", "both rows are this person's, one of them by an old number");
    assert_eq!(settled("34052419800101001X").await, "unknown", "and neither of the two is another's");

    // a word that no code stands for can never be found: that is said at once
    let gateway = reopened(text.replace("state: open }, test", "state: opened }, test")).await;
    let problems = gateway.problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].at, "predicate water.account.settled");
    assert!(problems[0].message.contains("no such word"), "{}", problems[0].message);

    // rows to change are found in every form they may be stored in, by columns that can be looked for
    let by_person = ACTION
        .replace("where: { number: $number, state: open }", "where: { number: $number, person: $old_id }");
    let by_person = by_person.replace("[number, new_id, new_name]", "[number, old_id, new_id, new_name]");
    let gateway = reopened(text.clone() + &by_person).await;
    let parameters =
        [("number", "A2"), ("old_id", PERSON), ("new_id", "34052419800101001X"), ("new_name", "李四")];
    let parameters = parameters.map(|(name, value)| (name.parse().unwrap(), value.to_owned())).into();
    gateway.perform(&"change_holder".parse().unwrap(), "case/step", &parameters).await.unwrap();
    let by_name = ACTION.replace("where: { number: $number, state: open }", "where: { name: $new_name }");
    let problems = reopened(text + &by_name).await.problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].at, "action change_holder");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_database_and_what_changes_in_it() {
    let Some(mut server) = postgres() else {
        println!("skipped: PostgreSQL is not installed");
        return;
    };
    let types =
        ["varchar(8) PRIMARY KEY", "char(34)", "varchar(18)", "text", "char(1)", "numeric(10,2)", "date"];
    load(&server.url, script(types, day).as_bytes());
    let gateway = open(declared("csv", "utf8", "yyyy-mm-dd", ACTION), &server.url, Path::new("")).await;
    the_same_answers(&gateway, "PostgreSQL").await;
    acts_once(&gateway, "PostgreSQL").await;

    // a column goes: what reads it is closed, the rest serves; it comes back, and all serves
    let sql = |text: &str| load(&server.url, text.as_bytes());
    sql("ALTER TABLE accounts RENAME COLUMN owed TO owes");
    let new = gateway.refresh().await.unwrap();
    let closed = |gateway: &Gateway<Connected>| -> Vec<String> {
        gateway.report().into_iter().filter(|c| c.status == "closed").map(|c| c.id).collect()
    };
    let reads_owed = ["query water.account", "query water.numbers", "predicate water.account.settled"];
    assert_eq!(closed(&gateway), reads_owed);
    assert!(new[0].message.contains("no column `owed`"), "{new:?}");
    assert!(matches!(account(&gateway).await, Err(GatewayError::Undeclared)));
    assert_eq!(fields(&gateway, "water.by_number", &["name"], "A4").await.unwrap(), ["李\"四,"]);
    sql("ALTER TABLE accounts RENAME COLUMN owes TO owed");
    gateway.refresh().await.unwrap();
    assert_eq!(closed(&gateway), [""; 0]);
    // its type changes
    sql("ALTER TABLE accounts ALTER COLUMN owed TYPE double precision");
    gateway.refresh().await.unwrap();
    assert_eq!(closed(&gateway), reads_owed);
    sql("ALTER TABLE accounts ALTER COLUMN owed TYPE numeric(10,2)");
    // a code comes that nobody declared; codes are looked at seldom where that takes long
    let until = async |expected: &[&str]| {
        let begun = std::time::Instant::now();
        while closed(&gateway) != expected {
            assert!(begun.elapsed() < Duration::from_secs(60), "{expected:?}: {:?}", gateway.problems());
            tokio::time::sleep(Duration::from_millis(50)).await;
            gateway.refresh().await.unwrap();
        }
    };
    sql("UPDATE accounts SET state = '7' WHERE number = 'A4'");
    until(&["query water.account", "predicate water.account.settled", "action change_holder"]).await;
    let problems = gateway.problems();
    assert!(problems.iter().all(|p| p.message.contains("1 code(s)")), "{problems:?}");
    sql("UPDATE accounts SET state = '0' WHERE number = 'A4'");
    until(&[]).await;

    // its own rules refuse; nothing is changed and nothing of it is said
    sql("ALTER TABLE accounts ADD CONSTRAINT not_him CHECK (holder <> '34052419800101001X') NOT VALID");
    let refused = perform(&gateway, "case-9", "A3").await.unwrap_err();
    assert!(matches!(refused, GatewayError::Source(SourceError::Refused)), "{refused}");
    sql("ALTER TABLE accounts DROP CONSTRAINT not_him");

    // far too many rows for one subject, and a value far too long
    sql(
        "INSERT INTO accounts SELECT 'B' || n, '110108-001-002-GB-00003-F-00010009', NULL, 'n', '0', 0, NULL FROM generate_series(1, 5000) n",
    );
    let many = fields(&gateway, "water.numbers", &["numbers"], "110108001002GB00003F00010009").await;
    assert!(matches!(many, Err(GatewayError::Value(_))), "{many:?}");
    sql("UPDATE accounts SET name = repeat('x', 100000000) WHERE number = 'A4'");
    let long = fields(&gateway, "water.by_number", &["name"], "A4").await;
    assert!(matches!(long, Err(GatewayError::Value(_))));
    // it takes longer than anybody waits
    sql(
        "ALTER TABLE accounts RENAME TO real; CREATE VIEW accounts AS SELECT real.* FROM real, (SELECT pg_sleep(60)) s",
    );
    let slow = fields(&gateway, "water.by_number", &["name"], "A1").await.unwrap_err();
    assert!(matches!(slow, GatewayError::Source(_)) && slow.code().is_none(), "{slow}");
    server.stop();
    let gone = fields(&gateway, "water.by_number", &["name"], "A1").await.unwrap_err();
    assert!(gone.code().is_none(), "it is worth trying again: {gone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mariadb_database() {
    let Some(server) = mariadb() else {
        println!("skipped: MariaDB is not installed");
        return;
    };
    let types = [
        "varchar(8) PRIMARY KEY",
        "char(34)",
        "varchar(18)",
        "varchar(60)",
        "char(1)",
        "decimal(10,2)",
        "date",
    ];
    load(&server.url, script(types, day).as_bytes());
    let gateway = open(declared("csv", "utf8", "yyyy-mm-dd", ACTION), &server.url, Path::new("")).await;
    the_same_answers(&gateway, "MariaDB").await;
    acts_once(&gateway, "MariaDB").await;
}

#[tokio::test]
async fn files_in_utf8_gbk_gzip_and_workbooks() {
    for (kind, encoding) in [("csv", "utf8"), ("csv", "gbk"), ("csv.gz", "utf8"), ("xlsx", "utf8")] {
        let dir = tempfile::tempdir().unwrap();
        let text = csv(",");
        let path = dir.path().join(format!("accounts-1.{kind}"));
        match (kind, encoding) {
            ("xlsx", _) => {
                let mut book = rust_xlsxwriter::Workbook::new();
                let sheet = book.add_worksheet();
                for (i, row) in [HEADER].iter().chain(&ROWS).enumerate() {
                    for (j, cell) in row.iter().enumerate() {
                        sheet.write_string(i as u32, j as u16, *cell).unwrap();
                    }
                }
                book.save(&path).unwrap();
            }
            ("csv.gz", _) => {
                let file = std::fs::File::create(&path).unwrap();
                let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
                gz.write_all(text.as_bytes()).unwrap();
                gz.finish().unwrap();
            }
            (_, "gbk") => std::fs::write(&path, encoding_rs::GBK.encode(&text).0).unwrap(),
            _ => std::fs::write(&path, format!("\u{feff}{text}")).unwrap(),
        }
        let gateway = open(declared(kind, encoding, "yyyymmdd", ""), "files:", dir.path()).await;
        the_same_answers(&gateway, &format!("{kind} in {encoding}")).await;
        let kept = std::fs::read_dir(dir.path().join("history")).unwrap().count();
        assert_eq!(kept, 1, "what serves is kept");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_taken_in_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let drop = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    drop("accounts-1.csv", csv(",").as_bytes());
    let gateway = open(declared("csv", "utf8", "yyyymmdd", ""), "files:", dir.path()).await;
    let owed = async || fields(&gateway, "water.account", &["owed"], UNIT_1).await.map(|v| v[0].clone());
    assert_eq!(owed().await.unwrap(), "1230");
    let header = csv(",").lines().next().unwrap().to_owned() + "\r\n";
    let garbage: [(&str, Vec<u8>); 5] = [
        ("accounts-2.csv", vec![0xff, 0xfe, 0x80]),
        ("accounts-3.csv", b"number,unit\r\nA1\r\n".to_vec()),
        ("accounts-4.csv", b"number,number\r\nA1,A2\r\n".to_vec()),
        ("accounts-5.csv", vec![]),
        // an export that failed: nobody has an account any more
        ("accounts-5-empty.csv", header.into_bytes()),
    ];
    for (name, bytes) in garbage {
        // a newer one than those before
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(name, &bytes);
        gateway.refresh().await.unwrap();
        let problems = gateway.problems();
        assert!(
            problems.iter().any(|p| p.at == "table accounts" && p.message.contains("still serves")),
            "{problems:?}"
        );
        assert_eq!(owed().await.unwrap(), "1230", "{name}");
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop("accounts-6.csv", csv(",").replace("12.30", "99.99").as_bytes());
    gateway.refresh().await.unwrap();
    assert!(gateway.problems().is_empty());
    assert_eq!(owed().await.unwrap(), "9999", "the newest serves");
    // whoever starts while the newest is broken takes the one before it, of the folder or of what served once
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop("accounts-6-broken.csv", &[0xff, 0xfe, 0x80]);
    for there in [true, false] {
        if !there {
            for name in ["accounts-1.csv", "accounts-6.csv"] {
                std::fs::remove_file(dir.path().join(name)).unwrap();
            }
        }
        let connector = declared("csv", "utf8", "yyyymmdd", "");
        let source = Connected::open("files:", dir.path(), &connector, false).await.unwrap();
        let standard = Standard::parse("standard", STANDARD).unwrap();
        let again = Gateway::open(connector, &standard, source).await.unwrap();
        let problems = again.problems();
        let told = |p: &gateway::Problem| {
            p.message.contains("`accounts-6-broken.csv`") && p.message.contains("still serves")
        };
        assert!(problems.iter().any(told), "{problems:?}");
        let found = fields(&again, "water.account", &["owed"], UNIT_1).await.map(|v| v[0].clone());
        assert_eq!(found.unwrap(), "9999", "in the folder: {there}");
        again.refresh().await.unwrap();
        assert_eq!(fields(&again, "water.account", &["owed"], UNIT_1).await.unwrap()[0], "9999");
    }
    // another header: what reads the missing column is closed
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop("accounts-7.csv", csv(",").replace("owed", "owes").as_bytes());
    gateway.refresh().await.unwrap();
    assert!(matches!(owed().await, Err(GatewayError::Undeclared)));
    assert_eq!(fields(&gateway, "water.by_number", &["name"], "A4").await.unwrap(), ["李\"四,"]);
}

#[tokio::test]
async fn a_mapping_is_tried_on_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let looked = async |text: String| {
        std::fs::write(dir.path().join("accounts-1.csv"), text).unwrap();
        let gateway = open(declared("csv", "utf8", "yyyymmdd", ""), "files:", dir.path()).await;
        gateway.look_at_values(500).await.unwrap()
    };
    let well = looked(csv(",")).await;
    assert!(well.len() == 7 && well.iter().all(|l| l.looked > 1), "{well:?}");
    assert!(well.iter().all(|l| (l.unfit, l.unfound) == (0, 0) && l.unread.is_none()), "{well:?}");
    // an amount that is none, and a unit in other groups than are declared: it is read, and nobody would find it
    let ill = csv(",")
        .replace("12.30", "1万")
        .replace("110108-001-002-GB-00003-F-00010002", "110108-001002-GB00003-F00010002");
    let ill = looked(ill).await;
    let of = |column: &str| ill.iter().find(|l| l.column == column).unwrap();
    assert_eq!((of("account.owed").unfit, of("account.owed").stored.as_str()), (1, "accounts.owed"));
    assert!(of("account.owed").why.as_ref().is_some_and(|why| !why.contains('万')), "{ill:?}");
    assert_eq!((of("account.unit").unfit, of("account.unit").unfound), (0, 1));
    assert_eq!(ill.iter().map(|l| l.unfit + l.unfound).sum::<u64>(), 2, "{ill:?}");
}

/// How the service behaves.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mood {
    Well,
    Flaky,
    Down,
    Hangs,
    Garbage,
    OtherShape,
    Endless,
    Missing,
}

struct Water {
    mood: Mutex<Mood>,
    asked: Mutex<u64>,
    done: Mutex<BTreeMap<String, Value>>,
}

fn rows_as_json() -> Vec<Value> {
    ROWS.iter()
        .map(|row| HEADER.iter().zip(row).map(|(k, v)| ((*k).to_owned(), json!(v))).collect())
        .collect()
}

fn authorised(headers: &HeaderMap) -> bool {
    headers.get("authorization").is_some_and(|v| v == "Bearer secret")
}

async fn accounts(
    State(water): State<Arc<Water>>,
    headers: HeaderMap,
    Query(asked): Query<BTreeMap<String, String>>,
) -> Response {
    if !authorised(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let n = {
        let mut n = water.asked.lock().unwrap();
        *n += 1;
        *n
    };
    let mood = *water.mood.lock().unwrap();
    match mood {
        Mood::Flaky if n % 2 == 1 => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Mood::Down => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Mood::Hangs => tokio::time::sleep(Duration::from_secs(3600)).await,
        Mood::Garbage => return "<html>".into_response(),
        Mood::OtherShape => return Json(json!({ "rows": [[1, 2]] })).into_response(),
        Mood::Endless => return vec![b'1'; 64 << 20].into_response(),
        Mood::Missing => return Json(json!({ "rows": [{ "number": "A1" }] })).into_response(),
        Mood::Well | Mood::Flaky => {}
    }
    let fits = |row: &Value| {
        let plain = |text: &str| text.replace('-', "");
        ["unit", "number"].iter().all(|name| {
            let asked = asked.get(*name).map(String::as_str).unwrap_or_default();
            asked.is_empty() || plain(row[*name].as_str().unwrap()) == plain(asked)
        })
    };
    Json(json!({ "rows": rows_as_json().into_iter().filter(fits).collect::<Vec<_>>() })).into_response()
}

async fn transfers(State(water): State<Arc<Water>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let key = headers.get("idempotency-key").unwrap().to_str().unwrap().to_owned();
    let again = water.done.lock().unwrap().get(&key).cloned();
    if let Some(before) = again {
        return if before == body {
            Json(json!({})).into_response()
        } else {
            StatusCode::UNPROCESSABLE_ENTITY.into_response()
        };
    }
    if body["account"] == "A2" {
        return StatusCode::CONFLICT.into_response();
    }
    water.done.lock().unwrap().insert(key, body);
    // done, and the answer lost
    if *water.mood.lock().unwrap() == Mood::Flaky {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    StatusCode::CREATED.into_response()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_service_that_is_not_always_well() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "secret\n").unwrap();
    let water =
        Arc::new(Water { mood: Mutex::new(Mood::Well), asked: Mutex::new(0), done: Mutex::default() });
    let router = Router::new().route("/accounts", get(accounts)).route("/transfers", post(transfers));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router.with_state(water.clone())).into_future());
    let connector = || declared("csv", "utf8", "yyyymmdd", SERVICE_ACTION);
    let gateway = open(connector(), &address, dir.path()).await;
    the_same_answers(&gateway, "HTTP").await;

    // what is declared is held against the service by asking for nobody, and a name it does not know is no name
    let asked = *water.asked.lock().unwrap();
    assert!(gateway.look_at_values(500).await.unwrap().is_empty());
    assert_eq!(*water.asked.lock().unwrap(), asked + 1);
    let mut wrong = connector();
    wrong.service.as_mut().unwrap().reads.get_mut("accounts").unwrap().get =
        Some("/accounts?unit={place}".into());
    let refused = Connected::open(&address, dir.path(), &wrong, false).await.err().unwrap();
    assert!(refused.to_string().contains("`{place}`"), "{refused}");

    let set = |mood: Mood| *water.mood.lock().unwrap() = mood;
    set(Mood::Flaky);
    for _ in 0..5 {
        assert_eq!(
            account(&gateway).await.unwrap(),
            ["王小明", "1230", "2018-03-05"],
            "what failed is asked again"
        );
    }
    // an action whose answer was lost is done once
    for _ in 0..2 {
        let lost = perform(&gateway, "case-1", "A1").await;
        assert!(lost.is_ok() || lost.is_err_and(|e| e.code().is_none()), "done, or worth trying again");
    }
    assert_eq!(water.done.lock().unwrap().len(), 1);
    set(Mood::Well);
    assert_eq!(perform(&gateway, "case-1", "A1").await.unwrap(), "A1");
    let refused = perform(&gateway, "case-2", "A2").await;
    assert!(matches!(refused, Err(GatewayError::Source(SourceError::Refused))), "{refused:?}");

    for mood in [Mood::Garbage, Mood::OtherShape, Mood::Endless, Mood::Missing, Mood::Hangs] {
        set(mood);
        // a gateway of its own: one that was let down too often leaves the service alone
        let gateway = open(connector(), &address, dir.path()).await;
        let e = account(&gateway).await.unwrap_err();
        assert!(e.code().is_none() && !e.to_string().contains("110108"), "{mood:?}: {e}");
    }
    set(Mood::Down);
    for _ in 0..5 {
        assert!(account(&gateway).await.is_err());
    }
    set(Mood::Well);
    let before = *water.asked.lock().unwrap();
    assert!(account(&gateway).await.is_err(), "it is left alone for a while");
    assert_eq!(*water.asked.lock().unwrap(), before);

    std::fs::write(dir.path().join("token"), "another").unwrap();
    let gateway = open(connector(), &address, dir.path()).await;
    assert!(account(&gateway).await.unwrap_err().to_string().contains("refuses the token"));
    let looked = gateway.look_at_values(500).await.unwrap();
    assert!(
        looked.iter().any(|l| l.unread.as_ref().is_some_and(|why| why.contains("refuses the token"))),
        "{looked:?}"
    );
}

/// A service that compares numbers as they are written: people with an old number are found by it, once each, and rows may be nested.
#[tokio::test]
async fn a_service_is_asked_in_every_form_a_value_may_be_stored_in() {
    const PEOPLE: &str = "
format: 1
department: water
resources:
  - { id: water.card, version: 1, title: { zh: 卡, en: Card }, holder: water, officer: 营业部, subject: person, share: conditional,
      basis: law, standard: std, update: realtime, predicates: [],
      fields: [{ id: number, element: number, title: { zh: 卡号, en: Number }, sensitivity: 2 }] }
service: { reads: { cards: { get: '/cards?id={id}', at: /found } } }
entities:
  card:
    table: cards
    columns:
      person: { column: id, element: person, transform: [old_id] }
      number: { column: /card/no, element: number }
queries:
  - { resource: water.card, entity: card, subject: person, fields: { number: number } }
";
    async fn cards(Query(asked): Query<BTreeMap<String, String>>) -> Json<Value> {
        let known = [("110105491231002", "K1"), ("110108195710089025", "K2")];
        let found = known.iter().filter(|(id, _)| Some(*id) == asked.get("id").map(String::as_str));
        Json(
            json!({ "found": found.map(|(id, card)| json!({ "id": id, "card": { "no": card } })).collect::<Vec<_>>() }),
        )
    }
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, Router::new().route("/cards", get(cards))).into_future());
    let gateway = open(Connector::parse("connector", PEOPLE).unwrap(), &address, dir.path()).await;
    assert_eq!(fields(&gateway, "water.card", &["number"], PERSON).await.unwrap(), ["K1"]);
}

#[tokio::test]
async fn an_address_is_found_by_how_near_it_is() {
    const ROWS: &str = "community,number,address\n\
        月坛,E1,某市三里河街5号院3号楼2单元501室\n\
        月坛,E2,三里河街5号院3号楼2单元502室\n\
        月坛,E3,三里河街5号院3号楼1单元501室\n\
        月坛,E4,\n\
        展览路,E5,三里河街5号院3号楼2单元501室\n";
    const FILES: &str = "
format: 1
department: power
resources:
  - { id: power.near, version: 1, title: { zh: 附近户号, en: Near }, holder: power, officer: 营业部, subject: unit, share: conditional,
      basis: law, standard: std, update: realtime, predicates: [],
      fields: [{ id: number, element: number, title: { zh: 户号, en: Account }, sensitivity: 2 },
               { id: likeness, element: score, title: { zh: 相似度, en: Likeness }, sensitivity: 1 }] }
files:
  accounts: { file: 'accounts.csv' }
entities:
  account:
    table: accounts
    columns:
      number: { column: number, element: number }
      community: { column: community, element: name }
      address: { column: address, element: address }
queries:
  - { resource: power.near, entity: account, subject: community, given: { at: address },
      nearest: { column: address, to: at, drop: [某市] }ROWS, fields: { number: number, likeness: { score: address } } }
";
    const STANDARD: &str = "
format: 1
elements:
  number: { type: text, title: { zh: 户号, en: Account } }
  name: { type: text, title: { zh: 社区, en: Community } }
  address: { type: text, title: { zh: 地址, en: Address } }
  score: { type: integer, title: { zh: 相似度, en: Likeness } }
";
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("accounts.csv"), ROWS).unwrap();
    let standard = Standard::parse("standard", STANDARD).unwrap();
    let open = async |text: String| {
        let connector = Connector::parse("connector", &text).unwrap();
        let source = Connected::open("files:.", dir.path(), &connector, true).await.unwrap();
        Gateway::open(connector, &standard, source).await.unwrap()
    };
    let ask = async |gateway: &Gateway<Connected>, community: &str, at: &str| {
        let what = What::Fields(["number", "likeness"].map(|n| n.parse().unwrap()).to_vec());
        let given = [("at".parse().unwrap(), at.to_owned())].into();
        let answer = gateway.answer(&"power.near".parse().unwrap(), &what, community, &given).await;
        answer.map(|values| values.into_iter().map(|(_, value)| value).collect::<Vec<_>>())
    };
    let one = open(FILES.replace("ROWS", "")).await;
    assert!(one.problems().is_empty(), "{:?}", one.problems());
    assert_eq!(ask(&one, "月坛", "三里河街 5-3-2-501").await.unwrap(), ["E1", "100"]);
    assert_eq!(ask(&one, "月坛", "三里河街3号楼2单元502").await.unwrap(), ["E2", "85"]);
    // without the entrance it may be either; another door is none of these; nobody's community has none
    assert!(matches!(ask(&one, "月坛", "三里河街5-3-501").await, Err(GatewayError::Ambiguous)));
    assert!(matches!(ask(&one, "月坛", "三里河街5-3-2-503").await, Err(GatewayError::NotFound)));
    assert!(matches!(ask(&one, "别处", "三里河街5-3-2-501").await, Err(GatewayError::NotFound)));
    // all that may be meant, for a person to choose from: the nearest first
    let many = open(FILES.replace("ROWS", ", rows: many")).await;
    let candidates = ask(&many, "月坛", "三里河街5-3-501").await.unwrap();
    assert_eq!(candidates, [r#"["E1","E3"]"#, r#"["85","85"]"#]);
    let missing = what_is_asked_without(&many).await;
    assert!(matches!(missing, Err(GatewayError::Parameter(name)) if name == "at"));
    // what cannot be meant is said when the files are checked
    for (from, to, expected) in [
        ("to: at", "to: elsewhere", "no parameter of `given`"),
        ("drop: [某市]", "least: 101", "from 41 to 100"),
        ("{ score: address }", "{ score: number }", "that `nearest` does not name"),
        ("element: score", "element: number", "its element is a whole number"),
        ("ROWS", ", order: number", "leave out `order`"),
    ] {
        let text = FILES.replace(from, to).replace("ROWS", "");
        let problems = open(text).await.problems();
        assert!(problems.iter().any(|p| p.message.contains(expected)), "{expected}: {problems:?}");
    }
}

async fn what_is_asked_without(gateway: &Gateway<Connected>) -> Result<(), GatewayError> {
    let what = What::Fields(vec!["number".parse().unwrap()]);
    gateway.answer(&"power.near".parse().unwrap(), &what, "月坛", &BTreeMap::new()).await.map(drop)
}
