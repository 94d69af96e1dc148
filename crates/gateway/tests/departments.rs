//! A synthetic city's departments in their own formats, mapped by files only, give every expected answer. The data is not part of
//! this repository: without it the test says "skipped".

mod common;

use common::{Server, free_port, load, mariadb, postgres};
use gateway::{Connected, Connector, Gateway, GatewayError, Standard};
use model::{FieldId, What};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
};

const TOKEN: &str = "gas-test-token";

fn declared(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/departments").join(format!("{name}.yaml"))
}

async fn open(department: &str, address: &str, base: &Path) -> Gateway<Connected> {
    let connector = Connector::read(&declared(department)).unwrap();
    let standard = Standard::read(&declared("elements")).unwrap();
    let source = Connected::open(address, base, &connector, true).await.unwrap();
    let gateway = Gateway::open(connector, &standard, source).await.unwrap();
    assert!(gateway.problems().is_empty(), "{department}: {:#?}", gateway.problems());
    gateway
}

fn unpacked(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).unwrap();
    match path.extension().is_some_and(|e| e == "gz") {
        true => flate2::read::GzDecoder::new(file).read_to_end(&mut bytes),
        false => std::io::BufReader::new(file).read_to_end(&mut bytes),
    }
    .unwrap();
    bytes
}

async fn sqlite(data: &Path, department: &str, dir: &Path) -> Gateway<Connected> {
    let file = dir.join(format!("{department}.db"));
    let script = String::from_utf8(unpacked(&data.join(format!("{department}.sql")))).unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let mut db = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&mut db).await.unwrap();
    sqlx::Connection::close(db).await.unwrap();
    open(department, file.to_str().unwrap(), dir).await
}

/// The departments with their sources.
struct City {
    departments: BTreeMap<&'static str, Gateway<Connected>>,
    _servers: Vec<Server>,
    _dir: tempfile::TempDir,
}

type Answer = Result<Vec<(FieldId, String)>, GatewayError>;

impl City {
    async fn new(data: &Path) -> Option<Self> {
        let (postgres, mariadb) = (postgres()?, mariadb()?);
        let dir = tempfile::tempdir().unwrap();
        let mut departments = BTreeMap::new();
        for (department, file, url) in [
            ("registry", "registry.sql.gz", &postgres.url),
            ("police", "police.sql.gz", &postgres.url),
            ("market", "market.sql", &postgres.url),
            ("tax", "tax.sql", &mariadb.url),
            ("power", "power.sql.gz", &mariadb.url),
        ] {
            load(url, &unpacked(&data.join(file)));
            departments.insert(department, open(department, url, dir.path()).await);
        }
        for department in ["civil", "water"] {
            departments.insert(department, sqlite(data, department, dir.path()).await);
        }
        for (department, file) in
            [("court", "court.csv"), ("credit", "credit.csv.gz"), ("housing", "housing.csv")]
        {
            let drop = dir.path().join(department);
            std::fs::create_dir(&drop).unwrap();
            std::fs::copy(data.join(file), drop.join(file)).unwrap();
            departments
                .insert(department, open(department, &format!("files:{department}"), dir.path()).await);
        }
        let port = free_port();
        let mut service = Command::new("python3");
        service.arg(data.join("gas_service.py")).args(["--port", &port.to_string(), "--token", TOKEN]);
        // faults that a gateway has to live with
        service.args(["--error-rate", "0.1", "--lost-rate", "0.05", "--jitter-ms", "5"]);
        let ready = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        let gas = Server::of(service, format!("http://127.0.0.1:{port}"), ready);
        std::fs::write(dir.path().join("gas.token"), TOKEN).unwrap();
        departments.insert("gas", open("gas", &gas.url, dir.path()).await);
        Some(Self { departments, _servers: vec![postgres, mariadb, gas], _dir: dir })
    }

    async fn ask(
        &self,
        department: &str,
        resource: &str,
        what: What,
        subject: &str,
        given: &Value,
    ) -> Answer {
        let given = given.as_object().unwrap().iter();
        let given = given.map(|(k, v)| (k.parse().unwrap(), v.as_str().unwrap().to_owned())).collect();
        self.departments[department].answer(&resource.parse().unwrap(), &what, subject, &given).await
    }

    /// The fields of a resource, by name.
    async fn fields(
        &self,
        resource: &str,
        names: &[&str],
        subject: &str,
        given: Value,
    ) -> Result<BTreeMap<String, String>, GatewayError> {
        let department = resource.split('.').next().unwrap();
        let what = What::Fields(names.iter().map(|n| n.parse().unwrap()).collect());
        let answer = self.ask(department, resource, what, subject, &given).await?;
        Ok(answer.into_iter().map(|(id, value)| (id.to_string(), value)).collect())
    }

    /// A predicate of a resource, as the expected answers write it.
    async fn predicate(&self, resource: &str, id: &str, subject: &str, given: Value) -> Value {
        let department = resource.split('.').next().unwrap();
        let answer = self
            .ask(department, resource, What::Predicate(id.parse().unwrap()), subject, &given)
            .await
            .unwrap();
        match answer[0].1.as_str() {
            "yes" => json!(true),
            "no" => json!(false),
            word => json!(word),
        }
    }

    /// All numbers a person has or had.
    async fn numbers_of(&self, person: &str) -> Vec<String> {
        let mut numbers = vec![person.to_owned()];
        match self.fields("police.former", &["numbers"], person, json!({})).await {
            Ok(answer) => numbers.extend(list(&answer["numbers"])),
            Err(GatewayError::NotFound) => {}
            Err(e) => panic!("{e}"),
        }
        numbers
    }

    /// The number of 18 characters that a person has now; an old one may have led to two.
    async fn number_now(&self, number: &str) -> Result<String, GatewayError> {
        if number.len() != 15 {
            return Ok(number.to_owned());
        }
        Ok(self.fields("police.number", &["number"], number, json!({})).await?.remove("number").unwrap())
    }

    async fn owners(&self, unit: &str) -> Value {
        let names = ["tenure", "names", "numbers", "parts", "whole"];
        let answer = match self.fields("registry.owners", &names, unit, json!({})).await {
            Ok(answer) => answer,
            Err(e) => return what_it_says(&e),
        };
        let (names, numbers) = (list(&answer["names"]), list(&answer["numbers"]));
        let (parts, whole) = (list(&answer["parts"]), list(&answer["whole"]));
        let mut owners = Vec::new();
        for i in 0..names.len() {
            let share =
                if parts[i].is_empty() { Value::Null } else { json!(format!("{}/{}", parts[i], whole[i])) };
            let id = self.number_now(&numbers[i]).await.unwrap();
            owners.push(json!({ "name": names[i], "id": id, "share": share }));
        }
        json!({ "mode": answer["tenure"], "owners": owners })
    }

    async fn accounts(&self, unit: &str) -> Value {
        let place = match self.fields("registry.location", &["location"], unit, json!({})).await {
            Ok(mut answer) => answer.remove("location").unwrap(),
            Err(e) => return what_it_says(&e),
        };
        match self.fields("power.accounts", &["numbers"], &place, json!({})).await {
            Ok(answer) => json!(list(&answer["numbers"])),
            // a place that is not written out is that of no account
            Err(GatewayError::Parameter(_)) => json!("unknown"),
            Err(e) => what_it_says(&e),
        }
    }

    async fn spouse(&self, person: &str, as_of: &str) -> Value {
        let mut marriages = BTreeMap::new();
        for number in self.numbers_of(person).await {
            let given = json!({ "as_of": as_of });
            match self.fields("civil.marriage", &["spouse", "certificate"], &number, given).await {
                Ok(answer) => drop(marriages.insert(answer["certificate"].clone(), answer["spouse"].clone())),
                Err(GatewayError::NotFound) => {}
                Err(e) => return what_it_says(&e),
            }
        }
        let mut spouses = marriages.into_values();
        match (spouses.next(), spouses.next()) {
            (None, _) => Value::Null,
            (Some(_), Some(_)) => json!("ambiguous"),
            (Some(spouse), None) if spouse.is_empty() => json!("unknown"),
            (Some(spouse), None) => match self.number_now(&spouse).await {
                Ok(number) => json!(number),
                Err(e) => what_it_says(&e),
            },
        }
    }

    async fn is_debtor(&self, person: &str, as_of: &str) -> Value {
        for number in self.numbers_of(person).await {
            if self.predicate("court.debtor", "listed", &number, json!({ "as_of": as_of })).await
                == json!(true)
            {
                return json!(true);
            }
        }
        json!(false)
    }

    async fn answer(&self, question: &str, subject: &Value, as_of: &str) -> Value {
        let of = |name: &str| subject[name].as_str().unwrap();
        let on_the_day = json!({ "as_of": as_of });
        match question {
            "registry.owners_of_unit" => self.owners(of("unit")).await,
            "registry.has_seizure" => {
                self.predicate("registry.restriction", "seized", of("unit"), on_the_day).await
            }
            "registry.has_mortgage" => {
                self.predicate("registry.restriction", "mortgaged", of("unit"), on_the_day).await
            }
            "power.accounts_for_unit" => self.accounts(of("unit")).await,
            "power.arrears_fen" => {
                match self.fields("power.bills", &["arrears"], of("account"), json!({})).await {
                    Ok(answer) => json!(answer["arrears"].parse::<i64>().unwrap()),
                    Err(e) => what_it_says(&e),
                }
            }
            "tax.paid" => self.predicate("tax.settlement", "paid", of("contract"), json!({})).await,
            "court.is_debtor" => self.is_debtor(of("id"), as_of).await,
            "credit.blacklisted" => {
                let number = subject["id"].as_str().or(subject["uscc"].as_str()).unwrap();
                let mut given = on_the_day;
                if let Some(sector) = subject["sector"].as_str() {
                    let word = match sector {
                        "SW" => "taxation",
                        "HG" => "customs",
                        "SP" => "food_safety",
                        "JZ" => "construction",
                        "JT" => "transport",
                        "LD" => "labour",
                        other => other,
                    };
                    given["sector"] = json!(word);
                }
                self.predicate("credit.list", "listed", number, given).await
            }
            "police.identity_matches" => {
                let given = json!({ "name": of("name") });
                self.predicate("police.person", "matches", of("id"), given).await
            }
            "civil.spouse_of" => self.spouse(of("id"), as_of).await,
            "market.name_available" => {
                self.predicate("market.name", "available", of("name"), on_the_day).await
            }
            other => panic!("nobody declared how to answer {other}"),
        }
    }
}

fn list(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap()
}

fn what_it_says(e: &GatewayError) -> Value {
    match e {
        GatewayError::NotFound => json!("unknown"),
        GatewayError::Ambiguous => json!("ambiguous"),
        e => panic!("{e}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_expected_answer_is_given() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/departments");
    if !data.join("expected.jsonl").exists() {
        println!("skipped: there is no {}", data.display());
        return;
    }
    let Some(city) = City::new(&data).await else {
        println!("skipped: PostgreSQL or MariaDB is not installed");
        return;
    };
    let expected = std::fs::read_to_string(data.join("expected.jsonl")).unwrap();
    let (mut asked, mut wrong) = (0, Vec::new());
    for line in expected.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let question = line["question"].as_str().unwrap();
        // what a whole case comes to belongs to matters
        if question.starts_with("case.") {
            continue;
        }
        asked += 1;
        let answer =
            city.answer(question, &line["subject"], line["as_of"].as_str().unwrap_or("2019-04-17")).await;
        if answer != line["answer"] {
            wrong.push(format!("{}: {answer} where {} was expected", line["id"], line["answer"]));
        }
    }
    assert!(asked >= 198, "{asked}");
    assert!(wrong.is_empty(), "{} of {asked} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
