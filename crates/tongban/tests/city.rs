//! The invented city in every form departments keep their data in: declared files alone give every expected answer, whatever the form.

#[path = "../../gateway/tests/common/mod.rs"]
mod servers;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use servers::{Server, free_port, mariadb, postgres};
use std::{
    path::Path,
    process::{Command, Output},
};

const TOKEN: &str = "city-test-token";

fn tongban(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tongban"));
    Ok(command.args(arguments).env("TONGBAN_CITY_TOKEN", TOKEN).output()?)
}

fn document(output: &Output) -> Result<Value> {
    serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn write(form: &str, out: &Path, database: Option<&str>) -> Result<Value> {
    let out = out.display().to_string();
    let mut arguments = vec!["city", "write", "--form", form, "--out", &out, "--json"];
    arguments.extend(database.iter().flat_map(|address| ["--database", address]));
    let output = tongban(&arguments)?;
    ensure!(output.status.success(), "{form}: {}", String::from_utf8_lossy(&output.stderr));
    document(&output)
}

/// Checks and tests a department's files; says how many questions were asked.
fn answers(form: &str, standard: &str, department: &Value, database: &str) -> Result<u64> {
    let connector = department["connector"].as_str().context("its connector")?;
    let expected = department["expected"].as_str().context("its questions")?;
    let checked = tongban(&["connector", "check", standard, connector, "--database", database, "--json"])?;
    let report = document(&checked)?;
    // a service cannot be looked at as a whole, and says nothing about codes
    ensure!(checked.status.success(), "{form} {connector}: {report}");
    // and every value that is stored fits what is declared, in the form it is looked for in
    let values = report["values"].as_array().context("what came of its values")?;
    let unfit = values.iter().find(|v| v["unfit"] != 0 || v["unfound"] != 0);
    ensure!(unfit.is_none(), "{form} {connector}: {unfit:?}");
    let looked = values.iter().any(|v| v["looked"] != 0);
    ensure!(looked || form == "service" || !connector.contains("registry"), "{form} {connector}: {report}");
    let files = ["connector", "test", standard, connector, "--database", database, "--expected", expected];
    let questions = department["questions"].as_u64().unwrap_or_default();
    let tested = tongban(&[&files[..], &["--json"]].concat())?;
    if questions == 0 {
        return Ok(0);
    }
    let report = document(&tested)?;
    ensure!(tested.status.success() && report["right"] == questions, "{form} {connector}: {report}");
    Ok(questions)
}

fn every_answer_of(form: &str, dir: &Path, database: Option<&str>) -> Result<u64> {
    let out = dir.join(form);
    let written = write(form, &out, database)?;
    let standard = written["standard"].as_str().context("the standard")?;
    let departments = written["departments"].as_array().context("departments")?;
    let mut asked = 0;
    for department in departments {
        let service;
        let address = match (database, department["database"].as_str()) {
            (Some(address), _) | (None, Some(address)) => address,
            (None, None) => {
                let port = free_port();
                let home = out.join(department["department"].as_str().context("its name")?);
                let mut command = Command::new(env!("CARGO_BIN_EXE_tongban"));
                command.args(["city", "serve", "--from"]).arg(home).env("TONGBAN_CITY_TOKEN", TOKEN);
                command.args(["--listen", &format!("127.0.0.1:{port}")]);
                let ready = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
                service = Server::of(command, format!("http://127.0.0.1:{port}"), ready);
                &service.url
            }
        };
        asked += answers(form, standard, department, address)?;
    }
    Ok(asked)
}

#[test]
fn every_form_of_the_city_gives_every_answer() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let asked = every_answer_of("sqlite", dir.path(), None)?;
    ensure!(asked > 300, "{asked} questions");
    for form in ["csv", "csv-gbk", "excel", "service"] {
        assert_eq!(every_answer_of(form, dir.path(), None)?, asked, "{form}");
    }
    for (form, server) in [("postgres", postgres()), ("mariadb", mariadb())] {
        let Some(server) = server else {
            println!("skipped: {form} is not installed");
            continue;
        };
        assert_eq!(every_answer_of(form, dir.path(), Some(&server.url))?, asked, "{form}");
        let odbc = Path::new(env!("CARGO_BIN_EXE_tongban")).with_file_name("tongban-odbc");
        if form == "postgres" && odbc.exists() && Path::new("/usr/share/psqlodbc").exists() {
            // the same tables through a driver of somebody else's
            let port = server.url.rsplit(':').next().and_then(|rest| rest.split('/').next());
            let connection = format!(
                "odbc:Driver=PostgreSQL Unicode;Servername=127.0.0.1;Port={};Database=city;Username=tongban;ByteaAsLongVarBinary=1",
                port.context("the server's port")?
            );
            let out = dir.path().join(form);
            let standard = out.join("elements.yaml").display().to_string();
            for id in ["housing", "power", "registry"] {
                let file = |name: &str| json!(out.join(id).join(name).display().to_string());
                let questions = std::fs::read_to_string(out.join(id).join("expected.jsonl"))?.lines().count();
                let department = json!({ "connector": file("connector.yaml"), "expected": file("expected.jsonl"), "questions": questions });
                answers("odbc", &standard, &department, &connection)?;
            }
        }
    }
    Ok(())
}

#[test]
fn what_cannot_be_meant_is_refused_and_a_wrong_answer_is_told_without_its_value() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("city");
    let place = out.display().to_string();
    let refused = tongban(&["city", "write", "--form", "csv", "--department", "nobody", "--out", &place])?;
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the demo has"));
    let refused = tongban(&["city", "write", "--form", "postgres", "--out", &place])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--database"), "{refused:?}");

    let out = dir.path().join("one");
    let place = out.display().to_string();
    let written = tongban(&["city", "write", "--form", "csv", "--department", "registry", "--out", &place])?;
    ensure!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    // nothing is written over
    let again = tongban(&["city", "write", "--form", "csv", "--department", "registry", "--out", &place])?;
    assert_eq!(again.status.code(), Some(2));

    let expected = out.join("registry/expected.jsonl");
    let questions = std::fs::read_to_string(&expected)?;
    let other = questions.replacen("\"tenure\":\"sole\"", "\"tenure\":\"joint\"", 1);
    std::fs::write(&expected, other + "\n")?;
    let (standard, connector) = (out.join("elements.yaml"), out.join("registry/connector.yaml"));
    let test = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tongban"));
        command.args(["connector", "test"]).arg(&standard).arg(&connector).arg("--expected").arg(&expected);
        command.arg("--database").arg(format!("files:{}", out.join("registry/data").display())).output()
    };
    let told = test()?;
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    let said = String::from_utf8_lossy(&told.stdout);
    assert!(said.contains("expected.jsonl:1 registry.deed: tenure"), "{said}");
    assert!(!said.contains("sole") && !said.contains("joint"), "no value is told: {said}");
    std::fs::write(&expected, "{\"query\":\"registry.deed\",\"subject\":990000194901010017}\n")?;
    let malformed = test()?;
    assert_eq!(malformed.status.code(), Some(2));
    let said = String::from_utf8_lossy(&malformed.stderr).into_owned();
    assert!(said.contains("expected.jsonl:1") && !said.contains("990000194901010017"), "{said}");
    Ok(())
}
