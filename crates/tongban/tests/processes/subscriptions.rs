//! What was answered changes afterwards: before the pivot the case stops, and after its end the department is told, as long as the person
//! lets it.

use crate::{Processes, common, second_verifier, service::Service, tongban};
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tongban::{
    client::Client,
    play::{Casting, Driver, Play},
    setup::node_dir,
    stage::Matter,
};

const PACKAGE: &str = r#"
format: 1
id: seat
version: 1
title: { zh: "企业住所备案", en: "Register an enterprise's seat" }
handler: bureau
parties: [{ id: owner, title: { zh: "产权人", en: "owner" } }]
form:
  - { id: unit, element: unit.code, title: { zh: "不动产单元号", en: "Unit" } }
  - { id: code, element: org.credit_code, title: { zh: "统一社会信用代码", en: "Credit code" } }
  - { id: name, element: org.name, title: { zh: "企业名称", en: "Name" } }
same: [unit]
steps:
  - { id: identify, kind: identify, party: owner, title: { zh: "核验身份", en: "Identify" } }
  - { id: sign, kind: sign, after: [identify], party: owner, title: { zh: "签署", en: "Sign" } }
  - id: deed
    kind: call
    after: [sign]
    party: owner
    holder: registry
    resource: registry.deed
    what: { fields: [location, tenure] }
    basis: consent
    subscribe_days: 60
    subscribe_after_end: true
    parameters: { unit: form.unit }
    title: { zh: "核验产权", en: "Verify ownership" }
    purpose: { zh: "核验住所产权", en: "to verify who owns the seat" }
  - id: review
    kind: decide
    after: [deed]
    title: { zh: "审核", en: "Review" }
    rules:
      - { when: 'deed.tenure == "share"', result: shared, outcome: needs_human, ground: { zh: "按份共有", en: "owned in shares" } }
  - id: seal
    kind: act
    after: [review]
    pivot: true
    performer: police
    operation: file_seal
    parameters: { credit_code: form.code, name: form.name, legal_id: owner.id }
    title: { zh: "备案", en: "Register" }
outputs: [{ title: { zh: "住所", en: "Seat" }, from: deed.location }]
"#;

const SCENARIO: &str = r#"
format: 1
title: { zh: "备案", en: "Registered" }
setting: sale
parties: { owner: seller }
form: { unit: "{sale.unit}", code: "9111010869990001XP", name: 某公司 }
answers: { deed: { location: 清荷路1号, tenure: sole }, seal: { serial: S1 } }
expect: { outcome: closed }
"#;

const MOVES: &str = "UPDATE bdc_dy SET zl = zl || '甲' WHERE bdcdyh = ?";

/// Lets the bureau's changes go to a service, and its holders look every second.
pub fn set_up(dir: &Path, service: &Service) {
    let file = |id: &str| node_dir(dir, &id.parse().unwrap()).join("node.toml");
    let toml = std::fs::read_to_string(file("bureau")).unwrap();
    let changes = format!("changes = {:?}\nchanges_token = \"let-me-in\"\n", service.address());
    std::fs::write(file("bureau"), changes + &toml).unwrap();
    let toml = std::fs::read_to_string(file("registry")).unwrap();
    std::fs::write(file("registry"), toml.replace("watch_seconds = 5", "watch_seconds = 1")).unwrap();
}

fn office(dir: &Path, id: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let config = node_dir(dir, &id.parse().unwrap()).join("node.toml").to_str().unwrap().to_owned();
    tongban(&[arguments, &["--json", "--config", &config]].concat())
}

/// The subscription of a case, once it is there.
async fn subscription(bureau: &Client, case: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let all: Vec<Value> = bureau.get("/api/v1/subscriptions").await.unwrap();
        if let Some(found) = all.iter().find(|s| s["case"] == case && holds(s)) {
            return found.clone();
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the subscription of {case} came to be so: {all:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A seizure entered while the parties sign: the case stops, is looked into, checked again, and goes on once it is lifted.
pub async fn a_change_before_the_pivot_stops_the_case(
    dir: &Path,
    driver: &Driver,
    play: &Play,
    bureau: &Client,
) {
    let id = driver.until_signing(play).await.unwrap();
    subscription(bureau, &id, |s| s["standing"] == "active" && s["step"] == "seizure").await;
    let registry = dir.join("departments/registry/department.db");
    let unit = play.thing("sale.unit");
    common::execute(&registry, "INSERT INTO bdc_xz VALUES (?, '01', '1')", unit).await;
    let begun = Instant::now();
    loop {
        let case = driver.case(&id).await.unwrap();
        if case["outcome"] == "needs_human" {
            assert_eq!(case["reason"], "data_changed", "{case}");
            let sign = case["steps"].as_array().unwrap().iter().find(|s| s["step"] == "sign_seller").unwrap();
            assert_eq!(sign["status"], "not_started", "{case}");
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the seizure is found: {case}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    common::execute(&registry, "DELETE FROM bdc_xz WHERE bdcdyh = ? AND xzlx = '01'", unit).await;
    let lifted = subscription(bureau, &id, |s| s["delivered"] == 2).await;
    let body = json!({ "who": "clerk", "reason": "查封已解除" });
    bureau.post(&format!("/api/v1/cases/{id}/resume"), body).await.unwrap();
    let report = driver.finish(play, &id).await.unwrap();
    assert_eq!((report.outcome.as_str(), report.reason.as_str()), ("closed", "all_done"));
    let genesis = node::read_genesis(&dir.join("genesis.json")).unwrap();
    for receipt in &report.receipts {
        proof::verify(&std::fs::read(receipt).unwrap(), &genesis)
            .unwrap_or_else(|e| panic!("{receipt}: {e}"));
    }
    // the first, two that were told, and the one made again
    let seizures = report.receipts.iter().filter(|r| r.contains("call-seizure")).count();
    assert_eq!(seizures, 4, "{:?}", report.receipts);

    // with the case it is over: nothing more is told
    subscription(bureau, &id, |s| s["standing"] == "expired").await;

    // its holder no longer tells; others have no say in it
    let subscription_id = lifted["id"].as_str().unwrap();
    let (code, refused) = office(dir, "gas", &["subscription", "end", subscription_id]);
    assert_eq!(code, Some(2), "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("not_yours"), "{refused}");
    assert_eq!(office(dir, "registry", &["subscription", "end", subscription_id]).0, Some(0));
    subscription(bureau, &id, |s| s["standing"] == "ended").await;
}

/// The owner's flat changes its address after the case is over: the department is told, with a receipt, until the owner withdraws.
pub async fn a_change_after_the_end_is_told(
    dir: &Path,
    driver: &Driver,
    casting: &mut Casting,
    bureau: &Client,
    service: &Service,
    processes: &mut Processes,
) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("scenarios")).unwrap();
    std::fs::write(folder.path().join("matter.yaml"), PACKAGE).unwrap();
    std::fs::write(folder.path().join("scenarios/plain.yaml"), SCENARIO).unwrap();
    let package = folder.path().to_str().unwrap();
    for _ in 0..2 {
        // a second time hands it over again, and declares nothing twice
        assert_eq!(office(dir, "bureau", &["matter", "publish", package]).0, Some(0));
    }
    let matter = Matter::read(folder.path()).unwrap();
    let play = casting.cast(&matter, "plain").unwrap();
    let id = driver.until_signing(&play).await.unwrap();
    let draft: Value = bureau.get(&format!("/api/v1/cases/{id}/consent/owner?lang=en")).await.unwrap();
    let text = draft["text"].as_str().unwrap();
    assert!(
        text.contains(
            "Should it change within 60 days, also after this case has ended, it may be received again."
        ),
        "{text}"
    );
    let report = driver.finish(&play, &id).await.unwrap();
    assert_eq!((report.outcome.as_str(), report.reason.as_str()), ("closed", "all_done"));
    let active = subscription(bureau, &id, |s| s["standing"] == "active").await;
    let of = active["id"].as_str().unwrap();
    let days = (active["until_ms"].as_u64().unwrap() - active["since_ms"].as_u64().unwrap()) / 86_400_000;
    assert!((59..=60).contains(&days), "{active}");

    let registry = dir.join("departments/registry/department.db");
    let unit = play.thing("sale.unit");
    common::execute(&registry, MOVES, unit).await;
    service.until(|told| told.iter().any(|e| e["data"]["subscription"] == of)).await.unwrap();
    // once more while the asking node is down: it is told when it is back, and nothing twice
    processes.kill("bureau");
    common::execute(&registry, MOVES, unit).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    processes.start(&"bureau".parse().unwrap());
    let told = |told: &[Value]| told.iter().filter(|e| e["data"]["subscription"] == of).count();
    service.until(|all| told(all) == 2).await.unwrap();
    let pushed: Vec<Value> = service.told().into_iter().filter(|e| e["data"]["subscription"] == of).collect();
    for (event, (number, ends)) in pushed.iter().zip([(1, "甲"), (2, "甲甲")]) {
        assert_eq!(
            (&event["specversion"], &event["type"]),
            (&json!("1.0"), &json!("cn.tongban.data.changed"))
        );
        assert_eq!(
            (&event["data"]["number"], &event["data"]["changed"]),
            (&json!(number), &json!(["location"]))
        );
        assert!(event["data"]["fields"]["location"].as_str().unwrap().ends_with(ends), "{event}");
        assert_eq!(event["source"], "/departments/registry/resources/registry.deed");
    }
    let path = format!("/api/v1/subscriptions/{of}/events");
    assert_eq!(
        bureau.get::<Vec<Value>>(&path).await.unwrap(),
        pushed,
        "what is fetched is what was handed on"
    );
    assert_eq!(bureau.get::<Vec<Value>>(&format!("{path}?after=1")).await.unwrap(), pushed[1..]);
    assert_eq!(bureau.get::<Vec<Value>>(&format!("{path}?limit=1")).await.unwrap(), pushed[..1]);
    assert!(bureau.get::<Vec<Value>>(&format!("{path}?after=x")).await.is_err());
    let (code, shown) = office(dir, "bureau", &["subscription", "events", of]);
    assert_eq!(
        (code, &shown["events"][0]["data"]["fields"]["location"]),
        (Some(0), &json!("***")),
        "{shown}"
    );
    let (code, listed) = office(dir, "bureau", &["subscription", "list"]);
    assert_eq!(code, Some(0), "{listed}");

    // each has its receipt, and the log of the case is complete again
    let genesis = node::read_genesis(&dir.join("genesis.json")).unwrap();
    let begun = Instant::now();
    loop {
        let log = bureau.get_bytes(&format!("/api/v1/cases/{id}/receipts/access-log")).await.unwrap();
        let facts = proof::verify(&log, &genesis).unwrap();
        if facts.status == "so far: 3 granted, 0 refused" {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", facts.status);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for (path, name) in [
        (pushed[1]["data"]["receipt"].as_str().unwrap().to_owned(), "call"),
        (format!("/api/v1/cases/{id}/receipts/access-log"), "log"),
    ] {
        let bytes = bureau.get_bytes(&path).await.unwrap();
        let facts = proof::verify(&bytes, &genesis).unwrap();
        assert_eq!(facts.case, id, "{facts:?}");
        let file = folder.path().join(format!("{name}.json"));
        std::fs::write(&file, bytes).unwrap();
        second_verifier(dir, &file);
    }

    driver.withdraw_first(&play, &id).await.unwrap();
    subscription(bureau, &id, |s| s["standing"] == "withdrawn").await;
    common::execute(&registry, MOVES, unit).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let after = subscription(bureau, &id, |_| true).await;
    assert_eq!((&after["changes"], &after["delivered"]), (&json!(2), &json!(2)), "nothing is told any more");
}
