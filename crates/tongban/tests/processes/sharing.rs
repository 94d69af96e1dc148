//! Departments come to share: they ask, refuse, dispute, rule, grant and take back; budgets hold; what is wrong is objected to; and the
//! day reconciles. By commands and files only.

use crate::{config, second_verifier, tongban};
use model::{Body, Day, DepartmentId};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tongban::{
    city::City,
    client::Client,
    play::{Driver, Play},
    setup::node_dir,
};

/// Runs a command of a department, and its node's file.
struct Office<'a>(&'a Path);

impl Office<'_> {
    fn file(&self, id: &str, file: &str) -> String {
        node_dir(self.0, &id.parse().unwrap()).join(file).to_str().unwrap().to_owned()
    }

    fn run(&self, id: &str, arguments: &[&str]) -> (Option<i32>, Value) {
        let config = self.file(id, "node.toml");
        tongban(&[arguments, &["--json", "--config", &config]].concat())
    }

    #[track_caller]
    fn done(&self, id: &str, arguments: &[&str]) -> Value {
        let (code, answer) = self.run(id, arguments);
        assert_eq!(code, Some(0), "{answer}");
        answer
    }

    #[track_caller]
    fn refused(&self, id: &str, arguments: &[&str], why: &str) {
        let (code, answer) = self.run(id, arguments);
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(code == Some(2) && message.contains(why), "{answer}");
    }

    /// Waits until a list of a department's node is as it should be: another node may be a block behind.
    fn until(&self, id: &str, arguments: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let found = self.done(id, arguments);
            if holds(&found) {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{arguments:?} came to hold: {found}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// From a project to a basis that serves, with a refusal, a dispute and a ruling on the way; then it is taken back.
pub fn departments_come_to_share(dir: &Path) {
    let office = Office(dir);
    let rules = dir.join("sharing.toml");
    std::fs::write(
        &rules,
        "format = 1\ncoordinators = [\"audit\"]\ndecide_days = 5\n\n[calendar]\nholidays = [\"2027-01-01\"]\n",
    )
    .unwrap();
    let rules = rules.to_str().unwrap();
    let system = office.file("tax", "officers/system");
    let propose = ["governance", "propose", "--sharing", rules, "--officer", &system];
    let proposed = office.done("tax", &propose);
    let id = proposed["proposal"]["id"].as_str().unwrap().to_owned();
    let mut last = Value::Null;
    for by in ["tax", "court", "gas", "power", "registry", "civil"] {
        let security = office.file(by, "officers/security");
        last = office.done(by, &["governance", "approve", &id, "--officer", &security]);
    }
    assert_eq!(last["proposal"]["status"], "adopted", "{last}");
    let unknown = dir.join("unknown.toml");
    std::fs::write(&unknown, "format = 1\ncoordinators = [\"nobody\"]\n").unwrap();
    let unknown = ["governance", "propose", "--sharing", unknown.to_str().unwrap(), "--officer", &system];
    office.refused("tax", &unknown, "nobody is no department");

    let file = dir.join("project.toml");
    let until = Day(Day::of(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64).0 + 300);
    let project = format!(
        r#"
format = 1
id = "deed-tax-relief"
title = {{ zh = "契税优惠核验", en = "Deed tax relief" }}
purpose = {{ zh = "核验家庭住房优惠", en = "to verify relief for families" }}
citation = "《契税法》第七条"
until = "{until}"

[[needs]]
basis = "family-check"
holder = "civil"
resource = "civil.marriage"
names = ["married"]
matter = "house-transfer"
per_day = 20
"#
    );
    std::fs::write(&file, project.replace("第七条", "身份证 11010519491231002X")).unwrap();
    let register = ["project", "register", file.to_str().unwrap()];
    office.refused("tax", &register, "everybody can read it");
    std::fs::write(&file, project).unwrap();
    let would = office.done("tax", &[&register[..], &["--dry-run"]].concat());
    assert_eq!((&would["dry_run"], would["commands"].as_array().unwrap().len()), (&json!(true), 2));
    assert_eq!(office.done("tax", &["project", "list", "--department", "tax"])["projects"], json!([]));
    office.done("tax", &register);
    office.refused("tax", &register, "already_used");

    let state = |state: &'static str| {
        move |found: &Value| found["shares"].as_array().unwrap().iter().any(|s| s["state"] == state)
    };
    let list = ["share", "list", "--department", "tax"];
    let open = office.until("civil", &[&list[..], &["--open"]].concat(), state("requested"));
    let share = &open["shares"][0];
    assert_eq!(
        (&share["id"], &share["waits_for"], &share["overdue"]),
        (&json!("family-check"), &json!("holder"), &json!(false))
    );
    assert!(share["due_ms"].as_u64() > share["since_ms"].as_u64());

    let decide = |more: &[&str]| {
        office.run("civil", &[&["share", "decide", "family-check", "--asker", "tax"], more].concat())
    };
    assert_eq!(decide(&["--accept"]).0, Some(0));
    assert_eq!(decide(&["--accept"]).0, Some(2), "once");
    assert_eq!(decide(&["--refuse", "beyond_need"]).0, Some(2), "not without saying why");
    let dispute = ["share", "dispute", "family-check", "--holder", "civil", "--note", "第七条要求核验"];
    office.refused("tax", &dispute, "too_early");
    assert_eq!(decide(&["--refuse", "beyond_need", "--note", "以纸质证明为限"]).0, Some(0));
    office.until("tax", &list, state("refused"));
    office.done("tax", &dispute);
    office.until("audit", &list, state("disputed"));
    let rule = [
        "share",
        "rule",
        "family-check",
        "--holder",
        "civil",
        "--asker",
        "tax",
        "--grant",
        "--note",
        "依据充分",
    ];
    office.refused("court", &rule, "not_yours");
    office.done("audit", &rule);
    office.until("civil", &list, state("overruled"));
    let (code, granted) = decide(&["--grant"]);
    assert_eq!(code, Some(0), "{granted}");
    office.until("tax", &list, state("granted"));
    let budgets = office.until("tax", &["budget", "list", "--department", "tax"], |b| {
        b["budgets"].as_array().unwrap().iter().any(|b| b["per_day"] == 20)
    });
    let granted = &budgets["budgets"][0];
    assert_eq!((&granted["matter"], &granted["basis"]), (&json!("house-transfer"), &json!("family-check")));

    let revoke = ["share", "revoke", "family-check", "--note", "项目调整"];
    office.done("civil", &[&revoke[..], &["--dry-run"]].concat());
    office.until("civil", &list, state("granted"));
    office.done("civil", &revoke);
    office.until("tax", &list, state("revoked"));
    office.done("tax", &["share", "withdraw", "family-check", "--holder", "civil"]);
    office.until("civil", &list, state("withdrawn"));
    office.done("audit", &["project", "end", "deed-tax-relief", "--owner", "tax", "--note", "用途已变"]);
    office
        .until("tax", &["project", "list", "--department", "tax"], |p| p["projects"][0]["state"] == "ended");
}

/// What a budget does not allow is refused, raises an alert and goes to a person; set otherwise, cases go through again.
pub async fn budgets_hold(dir: &Path, driver: &Driver, bureau: &Client, plays: &[Play]) {
    let office = Office(dir);
    let set = |holder: &str, resource: &str, more: &[&str]| {
        office
            .done(holder, &[&["budget", "set", "--asker", "bureau", "--resource", resource], more].concat());
        // the holder's own node enforces one of them
        office.until(holder, &["budget", "list"], |b| {
            b["budgets"]
                .as_array()
                .unwrap()
                .iter()
                .any(|b| b["resource"] == resource && b["matter"].is_null())
        });
    };
    set("court", "court.dishonest", &["--per-day", "1"]);
    let report = driver.run(&plays[0]).await.unwrap().remove(0);
    assert_eq!(report.outcome, "needs_human", "over what the court lets it ask today");
    let alert = |found: &Value| found["alerts"].as_array().is_some_and(|a| !a.is_empty());
    let alerts = office.until("bureau", &["budget", "alerts"], alert);
    assert_eq!(
        (&alerts["alerts"][0]["unusual"], &alerts["alerts"][0]["resource"]),
        (&json!("over_budget"), &json!("court.dishonest"))
    );
    let explain = ["budget", "explain", "court.dishonest", "--note", "集中办理日"];
    office.refused("court", &explain, "no alert");
    office.done("bureau", &explain);
    office.until("court", &["budget", "alerts"], |found| !alert(found));
    set("court", "court.dishonest", &[]);

    // three values about one person a day, and the deed has three: a second case of the same person is declined
    set("registry", "registry.deed", &["--per-person", "2"]);
    let report = driver.run(&plays[1]).await.unwrap().remove(0);
    assert_eq!(report.outcome, "needs_human", "the holder itself declines");
    let case: Value = bureau.get(&format!("/api/v1/cases/{}", report.id)).await.unwrap();
    let deed = case["steps"].as_array().unwrap().iter().find(|s| s["step"] == "deed").unwrap();
    assert_eq!((&deed["status"], &deed["code"]), (&json!("failed"), &json!("over_budget")), "{case}");
    set("registry", "registry.deed", &["--per-person", "6"]);
    let report = driver.run(&plays[2]).await.unwrap().remove(0);
    assert_eq!(report.outcome, "closed");
}

/// A value is objected to and corrected; the call's receipt shows both, to either verifier.
pub async fn an_objection_is_answered(dir: &Path, bureau: &Client, case: &str) {
    let office = Office(dir);
    let path = format!("/api/v1/cases/{case}/receipts/call-contract");
    let file: PathBuf = dir.join("objected.json");
    let read = async || {
        let bytes = bureau.get_bytes(&path).await.unwrap();
        std::fs::write(&file, &bytes).unwrap();
        serde_json::from_slice::<proof::Receipt>(&bytes).unwrap()
    };
    let receipt = read().await;
    let ask = receipt.events.iter().find(|e| e.role == proof::Role::Ask).unwrap();
    let ask: model::SignedCommand = model::decode(&ask.command).unwrap();
    assert!(matches!(ask.command.body, Body::Ask(_)));
    let call = crypto::command_id(&ask).to_string();
    let raise = ["objection", "raise", &call, "price", "--wrong", "outdated"];
    office.refused("police", &raise, "not_yours");
    office.done("bureau", &raise);
    office.refused("bureau", &raise, "already_used");
    let open = office.until("housing", &["objection", "list", "--open"], |found| {
        found["objections"].as_array().is_some_and(|o| !o.is_empty())
    });
    assert_eq!(
        (&open["objections"][0]["call"], &open["objections"][0]["name"]),
        (&json!(call), &json!("price"))
    );
    let answer = ["objection", "answer", &call, "price", "--verdict", "corrected"];
    office.refused("registry", &answer, "not_yours");
    office.done("housing", &answer);
    office.until("bureau", &["objection", "list"], |found| found["objections"][0]["state"] == "corrected");
    let begun = Instant::now();
    let receipt = loop {
        let receipt = read().await;
        if receipt.events.last().is_some_and(|e| e.role == proof::Role::Reply) {
            break receipt;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the receipt shows the answer");
    };
    let genesis = node::read_genesis(&dir.join("genesis.json")).unwrap();
    let facts = proof::verify(&receipt.to_bytes(), &genesis).unwrap();
    assert_eq!(
        (facts.status.as_str(), &facts.objections[..]),
        ("opened", &["price: corrected".to_owned()][..])
    );
    second_verifier(dir, &file);
    let mut without = receipt.clone();
    without.events.pop();
    let facts = proof::verify(&without.to_bytes(), &genesis).unwrap();
    assert_eq!(facts.objections, ["price: outdated"], "an earlier state");
    let mut turned = receipt.clone();
    let last = turned.events.len() - 1;
    turned.events.swap(last, last - 1);
    assert!(proof::verify(&turned.to_bytes(), &genesis).is_err(), "no answer without an objection");
}

/// Today is reconciled at a holder and at the handler: what they keep and what the ledger says agree.
pub async fn the_day_is_reconciled(dir: &Path, city: &City) {
    let office = Office(dir);
    let today = Day::of(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64).to_string();
    let day = |id: &str| office.run(id, &["budget", "reconcile", "--day", &today]);
    let (code, registry) = day("registry");
    assert_eq!((code, &registry["differences"]), (Some(0), &json!([])), "{registry}");
    let lines = registry["as_holder"].as_array().unwrap();
    let restriction = lines.iter().find(|l| l["resource"] == "registry.restriction").unwrap();
    let number = |key: &str| restriction[key].as_u64().unwrap();
    assert!(number("granted") >= 200 && number("granted") == 2 * number("cases"), "{restriction}");
    assert_eq!(
        (number("answered"), number("opened")),
        (number("granted"), number("granted")),
        "{restriction}"
    );
    let (code, bureau) = day("bureau");
    assert_eq!(code, Some(0), "{bureau}");
    let over = bureau["refused"].as_array().unwrap().iter().find(|r| r["code"] == "over_budget");
    assert_eq!(over.map(|r| &r["count"]), Some(&json!(1)), "{bureau}");
    assert!(bureau["as_asker"].as_array().unwrap().len() >= 8, "{bureau}");
    assert!(!bureau.to_string().contains(&city.sales[0].seller.id));

    // what was answered and is not known any more is told
    let registry = config(dir, &"registry".parse::<DepartmentId>().unwrap());
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&registry.vault);
    let mut db = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    let forget = "CREATE TABLE away AS SELECT * FROM vault WHERE place LIKE 'answered/%' LIMIT 3";
    sqlx::query(forget).execute(&mut db).await.unwrap();
    let gone = "DELETE FROM vault WHERE place IN (SELECT place FROM away)";
    sqlx::query(gone).execute(&mut db).await.unwrap();
    let (code, report) = day("registry");
    assert_eq!(code, Some(1));
    assert_eq!(
        (&report["differences"][0]["code"], &report["differences"][0]["count"]),
        (&json!("not_kept"), &json!(3)),
        "{report}"
    );
    sqlx::query("INSERT INTO vault SELECT * FROM away").execute(&mut db).await.unwrap();
    sqlx::query("DROP TABLE away").execute(&mut db).await.unwrap();
    assert_eq!(day("registry").0, Some(0));
}

/// The court's own rule stops a call at once, and lets it through when it is taken back.
pub async fn a_holders_policy_decides(dir: &Path, driver: &Driver, bureau: &Client, play: &Play) {
    let office = Office(dir);
    let file = dir.join("court.cedar");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "permit (principal, action, resource) when { context.person == \"x\" };").unwrap();
    assert_eq!(tongban(&["policy", "check", path, "--json"]).0, Some(1));
    office.refused("court", &["policy", "set", path], "the policy in");
    std::fs::write(&file, POLICY).unwrap();
    assert_eq!(
        tongban(&["policy", "check", path, "--json"]),
        (Some(0), json!({ "valid": true, "problems": [] }))
    );
    let would = office.done("court", &["policy", "set", path, "--dry-run"]);
    assert_eq!(
        (&would["dry_run"], office.done("court", &["policy", "show", "court"])["policy"]["version"].as_u64()),
        (&json!(true), Some(0))
    );
    office.done("court", &["policy", "set", path]);
    office.until("gas", &["policy", "show", "court"], |p| p["policy"]["text"] == POLICY);

    let id = driver.until_signing(play).await.unwrap();
    let report = driver.finish(play, &id).await.unwrap();
    assert_eq!((report.outcome.as_str(), report.reason.as_str()), ("needs_human", "policy_forbids"));
    office.done("court", &["policy", "set", "--none"]);
    let body = json!({ "who": "clerk", "reason": "法院已调整取用规则" });
    bureau.post(&format!("/api/v1/cases/{id}/resume"), body).await.unwrap();
    assert_eq!(driver.finish(play, &id).await.unwrap().outcome, "closed");
}

const POLICY: &str = r#"permit (principal, action, resource);
@id("not-the-bureau")
forbid (principal == Department::"bureau", action, resource == Resource::"court.dishonest") when { context.basis == "statutory" };
"#;

/// What the court's rule would have meant for every call so far, before it is set.
pub fn a_policy_is_tried_on_the_past(dir: &Path, archive: &Path) {
    let file = dir.join("court.cedar");
    let genesis = dir.join("genesis.json");
    let (file, archive, genesis) =
        (file.to_str().unwrap(), archive.to_str().unwrap(), genesis.to_str().unwrap());
    let replay = |file: &str, holder: &str| {
        tongban(&[
            "policy",
            "replay",
            file,
            "--holder",
            holder,
            "--archive",
            archive,
            "--genesis",
            genesis,
            "--json",
        ])
    };
    let (code, tried) = replay(file, "court");
    let changed = tried["changed"].as_array().unwrap();
    // every call of a hundred cases and more was granted; the one it stopped then, it would stop again
    assert_eq!(
        (code, tried["calls"].as_u64().unwrap() as usize),
        (Some(0), changed.len() + 1),
        "{}",
        tried["calls"]
    );
    assert!(changed.len() > 100);
    for call in changed {
        assert_eq!((&call["was"], &call["would_be"]), (&json!("granted"), &json!("refused")), "{call}");
        assert_eq!(
            (&call["resource"], &call["because"]),
            (&json!("court.dishonest"), &json!(["not-the-bureau"]))
        );
    }
    let open = dir.join("open.cedar");
    std::fs::write(&open, "permit (principal, action, resource);").unwrap();
    let (code, tried) = replay(open.to_str().unwrap(), "court");
    assert_eq!(
        (code, tried["changed"].as_array().unwrap().len()),
        (Some(0), 1),
        "only what was stopped would be granted"
    );
    assert_eq!(tried["changed"][0]["would_be"], "granted");
}
