//! A matter nobody wrote Rust for: checked, tried, published on the running ledger, and carried through.

use crate::{config, tongban};
use model::DepartmentId;
use serde_json::{Value, json};
use std::path::Path;
use tongban::{
    client::Client,
    play::{Casting, Driver},
    setup::node_dir,
    stage::Matter,
};

const PACKAGE: &str = r#"
format: 1
id: seal-lost
version: 1
title: { zh: "公章遗失补办", en: "Replace a lost seal" }
handler: bureau
parties: [{ id: legal, title: { zh: "法定代表人", en: "legal representative" } }]
form:
  - { id: code, element: org.credit_code, title: { zh: "统一社会信用代码", en: "Credit code" } }
  - { id: name, element: org.name, title: { zh: "企业名称", en: "Name" } }
same: [code]
eligibility:
  - { when: 'legal.age >= 18', says: { zh: "须年满十八周岁", en: "must be of age" } }
outputs: [{ title: { zh: "备案编码", en: "Registration" }, from: seal.serial }]
steps:
  - { id: identify, kind: identify, party: legal, title: { zh: "核验身份", en: "Identify" } }
  - { id: sign, kind: sign, after: [identify], party: legal, title: { zh: "签署", en: "Sign" } }
  - id: identity
    kind: call
    after: [sign]
    party: legal
    holder: police
    resource: police.identity
    what: { predicate: name_matches }
    basis: consent
    parameters: { name: legal.name }
    title: { zh: "核验姓名", en: "Verify the name" }
    purpose: { zh: "核验申请人身份", en: "to verify the applicant" }
  - id: review
    kind: decide
    after: [identity]
    title: { zh: "审核", en: "Review" }
    rules:
      - { when: 'identity.name_matches != "yes"', result: other_name, outcome: needs_human, may_pass: true, ground: { zh: "姓名不一致", en: "another name" } }
  - id: seal
    kind: act
    after: [review]
    pivot: true
    performer: police
    operation: file_seal
    parameters: { credit_code: form.code, name: form.name, legal_id: legal.id }
    title: { zh: "公章备案", en: "Register the seal" }
"#;

const SCENARIO: &str = r#"
format: 1
title: { zh: "补办", en: "Replaced" }
parties: { legal: ann }
form: { code: 91110000600037341L, name: 某公司 }
answers: { identity: { name_matches: "no" }, seal: { serial: S1 } }
data: { police: ["UPDATE rk_jbxx SET xm = xm || '某' WHERE gmsfhm = {ann.id}"] }
then: [{ pass: 户口簿已核对 }]
expect: { outcome: closed, steps: { seal: done } }
"#;

/// The designer's whole way, with the commands as written in docs/matter.md.
pub async fn a_matter_is_added_with_files_alone(
    dir: &Path,
    driver: &Driver,
    casting: &mut Casting,
    bureau: &Client,
) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("scenarios")).unwrap();
    let file = folder.path().join("matter.yaml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    std::fs::write(folder.path().join("scenarios/plain.yaml"), SCENARIO).unwrap();
    let package = folder.path().to_str().unwrap();
    let node = node_dir(dir, &"bureau".parse().unwrap()).join("node.toml");
    let node = node.to_str().unwrap();

    // what is wrong is said by line and code, and is published nowhere
    write(
        &PACKAGE
            .replace("after: [review]", "after: [identity]")
            .replace("purpose: { zh: \"核验申请人身份\"", "purpose: { zh: \"\""),
    );
    let (code, found) = tongban(&["matter", "check", package, "--json"]);
    let codes: Vec<_> =
        found["problems"].as_array().unwrap().iter().map(|p| p["code"].as_str().unwrap()).collect();
    assert_eq!((code, codes), (Some(1), vec!["missing_text", "not_awaited"]), "{found}");
    assert_eq!(found["problems"][0]["line"], 18, "{found}");
    assert_eq!(tongban(&["matter", "publish", package, "--config", node, "--json"]).0, Some(1));

    write(PACKAGE);
    let connectors = dir.join("departments/police/connector.yaml");
    let standard = dir.join("elements.yaml");
    let (code, found) = tongban(&[
        "matter",
        "check",
        package,
        "--standard",
        standard.to_str().unwrap(),
        "--connectors",
        connectors.to_str().unwrap(),
        "--json",
    ]);
    assert_eq!((code, &found["problems"]), (Some(0), &json!([])), "{found}");
    let picture = folder.path().join("run.svg");
    let (code, found) =
        tongban(&["matter", "simulate", package, "--svg", picture.to_str().unwrap(), "--json"]);
    assert_eq!((code, &found["runs"][0]["run"]["outcome"]), (Some(0), &json!("closed")), "{found}");
    assert_eq!(found["runs"][0]["run"]["rested"], json!(["needs_human: other_name"]));
    assert!(std::fs::read_to_string(picture).unwrap().contains("公章备案"));

    // published and handed over: cases of it are opened without a restart
    let (code, would) = tongban(&["matter", "publish", package, "--config", node, "--dry-run", "--json"]);
    assert_eq!((code, &would["needs"][0]["resource"]), (Some(0), &json!("police.identity")), "{would}");
    let (code, done) = tongban(&["matter", "publish", package, "--config", node, "--json"]);
    assert_eq!((code, &done["version"]), (Some(0), &json!(1)), "{done}");
    let (code, listed) = tongban(&["matter", "list", "--config", node, "--json"]);
    let ids: Vec<_> = listed["matters"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    assert_eq!((code, ids), (Some(0), vec![&json!("house-transfer"), &json!("seal-lost")]), "{listed}");
    let matter = Matter::read(folder.path()).unwrap();
    let play = casting.cast(&matter, "plain").unwrap();
    let report = driver.run(&play).await.unwrap().remove(0);
    assert_eq!((report.outcome.as_str(), &report.differs), ("closed", &vec![]));

    // another package under the same name and version is not what was published
    let taken = bureau.post("/api/v1/matters", json!({ "text": PACKAGE.replace("遗失", "丢失") })).await;
    let code = taken.unwrap_err().downcast_ref::<tongban::client::Refused>().unwrap().code.clone();
    assert_eq!(code, "not_published");
    // nor is it taken in by another department
    let police = config(dir, &"police".parse::<DepartmentId>().unwrap());
    let police = Client::new(police.http, police.api_token.as_deref().unwrap());
    let taken = police.post("/api/v1/matters", json!({ "text": PACKAGE })).await;
    let code = taken.unwrap_err().downcast_ref::<tongban::client::Refused>().unwrap().code.clone();
    assert_eq!(code, "not_found");

    // who is too young, what is no credit code and who has no place in it are told so, and nothing is opened
    let case = |code: &str, id: &str| json!({ "matter": "seal-lost", "form": { "code": code, "name": "某公司" }, "parties": { "legal": { "id": id, "name": "某" } } });
    let child = tongban::city::stranger("2015-03-02", 1).unwrap().id;
    let adult = tongban::city::stranger("1985-03-02", 1).unwrap().id;
    let wrong = format!("{}{}", &adult[..17], if adult.ends_with('1') { '2' } else { '1' });
    for (body, expected) in [
        (case("91110000600037341L", &child), "not_eligible"),
        (case("91110000600037342L", &adult), "invalid"),
        (case("91110000600037341L", &wrong), "invalid"),
    ] {
        let refused = bureau.post("/api/v1/cases", body).await.unwrap_err();
        let refused = refused.downcast_ref::<tongban::client::Refused>().unwrap();
        assert_eq!(refused.code, expected);
        assert!(!refused.detail.contains(&child) && !refused.detail.contains(&adult));
    }
    // nor is a reason without end kept
    for (who, reason) in
        [("张三", "长".repeat(501)), ("张三", " ".into()), (&*"三".repeat(129), "缺件".into())]
    {
        let path = format!("/api/v1/cases/{}/refuse", "0".repeat(64));
        let refused = bureau.post(&path, json!({ "who": who, "reason": reason })).await.unwrap_err();
        assert_eq!(refused.downcast_ref::<tongban::client::Refused>().unwrap().code, "invalid");
    }
    let shown: Value = bureau.get("/api/v1/matters/seal-lost").await.unwrap();
    assert_eq!(shown["form"]["required"], json!(["code", "name"]), "{shown}");
}

/// A node that was started again still handles what was handed to it.
pub fn it_is_still_there(dir: &Path) {
    let node = node_dir(dir, &"bureau".parse().unwrap()).join("node.toml");
    let (_, listed) = tongban(&["matter", "list", "--config", node.to_str().unwrap(), "--json"]);
    let found = listed["matters"].as_array().unwrap().iter().find(|m| m["id"] == "seal-lost");
    assert_eq!(found.map(|m| &m["published"]), Some(&json!(true)), "{listed}");
}
