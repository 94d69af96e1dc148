//! What is asked by lists: three people's calls wait for the police to agree, are asked together, and are still each a call of its own.

use crate::{Processes, ready, second_verifier, tongban};
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tongban::{
    client::Client,
    play::{CaseReport, Casting, Driver, Play},
    setup::node_dir,
    stage::Matter,
};

const PACKAGE: &str = r#"
format: 1
id: roll
version: 1
title: { zh: "名册核验", en: "Verify a roll" }
handler: bureau
retain_days: 0
parties: [{ id: owner, title: { zh: "本人", en: "applicant" } }]
form: [{ id: unit, element: unit.code, title: { zh: "不动产单元号", en: "Unit" } }]
same: [unit]
steps:
  - { id: identify, kind: identify, party: owner, title: { zh: "核验身份", en: "Identify" } }
  - { id: sign, kind: sign, after: [identify], party: owner, title: { zh: "签署", en: "Sign" } }
  - id: name
    kind: call
    after: [sign]
    party: owner
    holder: police
    resource: police.identity
    what: { predicate: name_matches }
    basis: consent
    parameters: { name: owner.name }
    list: { every_minutes: 600, most: 3 }
    title: { zh: "核验姓名", en: "Verify the name" }
    purpose: { zh: "核验名册", en: "to verify the roll" }
  - id: review
    kind: decide
    after: [name]
    title: { zh: "审核", en: "Review" }
    rules:
      - { when: 'name.name_matches != "yes"', result: other_name, outcome: needs_human, ground: { zh: "姓名不一致", en: "the name differs" } }
  - id: file
    kind: act
    after: [review]
    pivot: true
    performer: bureau
    operation: file_result
    parameters: { person: owner.id, name: owner.name }
    title: { zh: "登记", en: "File" }
outputs: [{ title: { zh: "登记号", en: "Number" }, from: file.serial }]
"#;

const SCENARIO: &str = r#"
format: 1
title: { zh: "核验", en: "Verified" }
setting: sale
parties: { owner: seller }
form: { unit: "{sale.unit}" }
answers: { name: { name_matches: "yes" }, file: { serial: S1 } }
expect: { outcome: closed }
"#;

fn office(dir: &Path, id: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let config = node_dir(dir, &id.parse().unwrap()).join("node.toml").to_str().unwrap().to_owned();
    tongban(&[&["list"], arguments, &["--json", "--config", &config]].concat())
}

/// The newest list, once it stands so at a department's node.
async fn list(dir: &Path, at: &str, standing: &str) -> Value {
    let begun = Instant::now();
    loop {
        let (code, shown) = office(dir, at, &["show"]);
        assert_eq!(code, Some(0), "{shown}");
        if shown["lists"][0]["standing"] == standing {
            return shown["lists"][0].clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "a list is {standing} at {at}: {shown}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A case, once its call waits so.
async fn waits(driver: &Driver, id: &str, waits: &str) -> Value {
    let begun = Instant::now();
    loop {
        let case = driver.case(id).await.unwrap();
        let name = case["steps"].as_array().unwrap().iter().find(|s| s["step"] == "name").unwrap();
        if name["waits"] == waits {
            assert_eq!(name["status"], "not_started");
            return case;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "its call {waits}: {case}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn sign(driver: &Driver, play: &Play) -> (String, tokio::task::JoinHandle<CaseReport>) {
    let id = driver.until_signing(play).await.unwrap();
    let (driver, play, of) = (driver.clone(), play.clone(), id.clone());
    (id, tokio::spawn(async move { driver.finish(&play, &of).await.unwrap() }))
}

/// Three wait for a list, one of them thinks again; a fourth is refused, looked at, and put into the next one.
pub async fn calls_are_asked_by_lists(
    dir: &Path,
    driver: &Driver,
    casting: &mut Casting,
    bureau: &Client,
    processes: &mut Processes,
) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("scenarios")).unwrap();
    std::fs::write(folder.path().join("matter.yaml"), PACKAGE).unwrap();
    std::fs::write(folder.path().join("scenarios/plain.yaml"), SCENARIO).unwrap();
    let config = node_dir(dir, &"bureau".parse().unwrap()).join("node.toml");
    let publish = ["matter", "publish", folder.path().to_str().unwrap(), "--json", "--config"];
    let (code, published) = tongban(&[&publish[..], &[config.to_str().unwrap()]].concat());
    assert_eq!(code, Some(0), "{published}");
    let matter = Matter::read(folder.path()).unwrap();
    let plays: Vec<_> = (0..4).map(|_| casting.cast(&matter, "plain").unwrap()).collect();
    let (code, unknown) = office(dir, "bureau", &["propose", "roll", "file"]);
    assert_eq!(code, Some(2), "{unknown}");
    let (code, none) = office(dir, "bureau", &["propose", "roll", "name"]);
    assert_eq!((code, &none["cases"]), (Some(0), &json!(0)), "{none}");

    let (first, first_ends) = sign(driver, &plays[0]).await;
    let gathers = waits(driver, &first, "list_gathers").await;
    assert_eq!(gathers["outcome"], "open");
    let (second, second_ends) = sign(driver, &plays[1]).await;
    let (third, third_ends) = sign(driver, &plays[2]).await;
    // full: proposed by itself, and no case looks as if it only waited
    for id in [&first, &second, &third] {
        let case = waits(driver, id, "list_proposed").await;
        assert_eq!((&case["outcome"], &case["waits_for"]), (&json!("blocked"), &json!("police")), "{case}");
    }
    let proposed = list(dir, "police", "proposed").await;
    assert_eq!(
        (&proposed["cases"], &proposed["asker"], &proposed["resource"]),
        (&json!(3), &json!("bureau"), &json!("police.identity"))
    );
    let id = proposed["id"].as_str().unwrap();
    let (code, refused) = office(dir, "bureau", &["agree", id]);
    assert_eq!(code, Some(2), "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("not_yours"), "{refused}");
    // one thinks again while it lies there, and is not asked about
    driver.withdraw_first(&plays[2], &third).await.unwrap();
    let third_ends = third_ends.await.unwrap();
    assert_eq!(third_ends.outcome, "withdrawn");
    assert!(third_ends.receipts.iter().all(|r| !r.contains("call-name")), "{:?}", third_ends.receipts);
    let (code, agreed) = office(dir, "police", &["agree", id]);
    assert_eq!(code, Some(0), "{agreed}");
    let genesis = node::read_genesis(&dir.join("genesis.json")).unwrap();
    for ends in [first_ends, second_ends] {
        let report = ends.await.unwrap();
        assert_eq!(report.outcome, "closed");
        let call = report.receipts.iter().find(|r| r.contains("call-name")).unwrap();
        proof::verify(&std::fs::read(call).unwrap(), &genesis).unwrap();
        second_verifier(dir, Path::new(call));
    }

    // their requests came in one letter
    let police = crate::config(dir, &"police".parse().unwrap());
    let metrics = Client::new(police.http, "").get_bytes("/metrics").await.unwrap();
    let together = String::from_utf8(metrics).unwrap();
    let together = together.lines().find_map(|l| l.strip_prefix("tongban_requests_together_total ")).unwrap();
    assert!(together.parse::<u64>().unwrap() >= 2, "{together}");

    // the fourth gathers; an officer does not wait for others, and the police do not agree
    let (fourth, fourth_ends) = sign(driver, &plays[3]).await;
    waits(driver, &fourth, "list_gathers").await;
    let (code, open) = erase(dir, &[&fourth], &[]);
    assert_eq!((code, &open["cases"][0]["kept"]), (Some(1), &json!("it is not over yet")), "{open}");
    let (code, one) = office(dir, "bureau", &["propose", "roll", "name"]);
    assert_eq!((code, &one["cases"]), (Some(0), &json!(1)), "{one}");
    let proposed = list(dir, "police", "proposed").await;
    let (code, refused) =
        office(dir, "police", &["refuse", proposed["id"].as_str().unwrap(), "--reason", "too_few"]);
    assert_eq!(code, Some(0), "{refused}");
    let report = fourth_ends.await.unwrap();
    assert_eq!((report.outcome.as_str(), report.reason.as_str()), ("needs_human", "list_refused"));
    assert_eq!(list(dir, "bureau", "refused").await["reason"], "too_few");
    let body = json!({ "who": "clerk", "reason": "已与公安沟通" });
    bureau.post(&format!("/api/v1/cases/{fourth}/resume"), body).await.unwrap();
    waits(driver, &fourth, "list_gathers").await;
    assert_eq!(office(dir, "bureau", &["propose", "roll", "name"]).1["cases"], 1);
    let proposed = list(dir, "police", "proposed").await;
    assert_eq!(office(dir, "police", &["agree", proposed["id"].as_str().unwrap()]).0, Some(0));
    let begun = Instant::now();
    while driver.case(&fourth).await.unwrap()["outcome"] != "closed" {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is closed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    a_closed_case_is_erased(dir, bureau, &first, &second, processes).await;
}

fn erase(dir: &Path, ids: &[&str], more: &[&str]) -> (Option<i32>, Value) {
    let config = node_dir(dir, &"bureau".parse().unwrap()).join("node.toml").to_str().unwrap().to_owned();
    let why = ["--who", "clerk", "--reason", "asked for", "--json", "--config", &config];
    tongban(&[&["case", "erase"], ids, &why[..], more].concat())
}

async fn vault(dir: &Path) -> Vec<String> {
    let file = node_dir(dir, &"bureau".parse().unwrap()).join("vault.db");
    crate::common::column(&file, "SELECT place FROM vault").await
}

/// By hand at once, by its package when the time is over; what was proved of it goes on being proved.
async fn a_closed_case_is_erased(
    dir: &Path,
    bureau: &Client,
    by_hand: &str,
    by_package: &str,
    processes: &mut Processes,
) {
    let path = |id: &str| format!("/api/v1/cases/{id}");
    let mut proved = Vec::new();
    for name in bureau.get::<Vec<String>>(&format!("{}/receipts", path(by_hand))).await.unwrap() {
        let at = format!("{}/receipts/{name}", path(by_hand));
        proved.push((at.clone(), bureau.get_bytes(&at).await.unwrap()));
    }
    let backup = tempfile::tempdir().unwrap();
    let backup = backup.path().join("vault.db");
    let file = node_dir(dir, &"bureau".parse().unwrap()).join("vault.db");
    crate::common::copy(&file, &backup).await;
    let held = vault(dir).await;
    assert!(held.iter().any(|place| place.starts_with(&format!("case/{by_hand}/"))));
    let (code, could) = erase(dir, &[by_hand], &["--dry-run"]);
    assert_eq!((code, &could["cases"][0]["kept"]), (Some(0), &json!("")), "{could}");
    assert_eq!(vault(dir).await.len(), held.len());
    let (code, done) = erase(dir, &[by_hand], &[]);
    assert_eq!((code, &done["cases"][0]["kept"]), (Some(0), &json!("")), "{done}");
    assert_eq!(erase(dir, &[by_hand], &[]).0, Some(0), "once more does nothing");
    let left: Vec<_> = vault(dir).await.into_iter().filter(|place| place.contains(by_hand)).collect();
    let text = format!("case/{by_hand}/text/");
    let (texts, left): (Vec<_>, Vec<_>) = left.into_iter().partition(|place| place.starts_with(&text));
    assert_eq!(texts.len(), 1, "the words that were signed name nobody");
    assert_eq!(left, [format!("erasure/{by_hand}/done"), format!("erasure/{by_hand}/why")]);
    // with an answer in "opened" and a request and a task in "sent"
    assert!(vault(dir).await.len() + 4 <= held.len());
    let case: Value = bureau.get(&path(by_hand)).await.unwrap();
    assert!(case["erased_ms"].is_u64() && case["reason"] == "" && case["outcome"] == "closed", "{case}");
    // the vault comes back from a backup of before: what the ledger says was erased is erased again
    processes.kill("bureau");
    for gone in ["vault.db", "vault.db-wal", "vault.db-shm"] {
        let _ = std::fs::remove_file(file.with_file_name(gone));
    }
    std::fs::copy(&backup, &file).unwrap();
    assert!(vault(dir).await.iter().any(|place| place.starts_with(&format!("case/{by_hand}/form"))));
    processes.start(&"bureau".parse().unwrap());
    ready(bureau).await;
    let begun = Instant::now();
    while !bureau.get::<Value>(&path(by_package)).await.is_ok_and(|case| case["erased_ms"].is_u64()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is erased when its time is over");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let case: Value = bureau.get(&path(by_hand)).await.unwrap();
    assert!(case["erased_ms"].is_u64() && case["outcome"] == "closed", "{case}");
    assert_eq!(
        case["steps"].as_array().unwrap().iter().filter(|s| s["status"] == "done").count(),
        5,
        "{case}"
    );
    for (at, before) in proved {
        assert_eq!(bureau.get_bytes(&at).await.unwrap(), before, "{at}");
    }
    for id in [by_hand, by_package] {
        let done = [format!("erasure/{id}/done")];
        loop {
            let places = vault(dir).await.into_iter();
            let left: Vec<_> = places.filter(|p| p.contains(id) && !p.contains("/text/")).collect();
            if left == done {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "its places in the vault go: {left:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
