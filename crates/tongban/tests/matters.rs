//! Every scenario of every shipped matter, in the dry run and on a real consortium: both come out as the file says.

use serde_json::{Value, json};
use std::{path::Path, process::Command, sync::Arc};
use tongban::{
    city::City,
    demo::{AT_ONCE, Demo, run_plays},
    play::{CaseReport, Casting},
    stage::{self, Matter},
};

mod common;

#[test]
fn every_shipped_package_is_in_order_and_its_dry_runs_come_out_as_they_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for name in stage::matter_names() {
        // as the designer checks it: against the standard and all departments' files, without so much as a warning
        let checked = Command::new(env!("CARGO_BIN_EXE_tongban"))
            .current_dir(&root)
            .args(["matter", "check", &format!("matters/{name}"), "--standard", "standards/elements.yaml"])
            .args(["--connectors", "demo/departments", "--json"])
            .output()
            .unwrap();
        let found: Value = serde_json::from_slice(&checked.stdout).unwrap();
        assert_eq!((checked.status.code(), &found["problems"]), (Some(0), &json!([])), "{name}");
        let Matter { package, scenarios } = stage::matter(&name).unwrap();
        assert!(scenarios.len() >= 5, "{name} shows its exceptions");
        for (scenario, script) in scenarios {
            let run = flow::simulate::simulate(&package, &script)
                .unwrap_or_else(|e| panic!("{name}: {scenario}: {e}"));
            assert!(run.differs.is_empty(), "{name}: {scenario}: {:?}", run.differs);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scenario_comes_out_on_a_real_consortium_as_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let names = stage::matter_names();
    let mut casting = Casting::new(Arc::new(City::new(1)));
    let mut plays = Vec::new();
    for name in &names {
        let matter = stage::matter(name).unwrap();
        for scenario in matter.scenarios.keys() {
            plays.push(casting.cast(&matter, scenario).unwrap());
        }
    }
    let twice = plays.iter().filter(|p| p.scenario.twice).count();
    let count = plays.len() + twice;
    let matters = stage::matters(&names).unwrap();
    let suite = model::Suite::International;
    let mut demo = Demo::start(&data, 0, suite, &mut casting, matters).await.unwrap();
    let reports = run_plays(&mut demo, plays, AT_ONCE, true).await.unwrap();
    demo.stop().await;
    assert_eq!(reports.len(), count);
    let genesis = node::read_genesis(&data.join("genesis.json")).unwrap();
    for report in &reports {
        assert!(report.differs.is_empty(), "{} {}: {:?}", report.matter, report.scenario, report.differs);
        assert!(report.signatures <= 1, "one signature a person");
        for receipt in &report.receipts {
            let bytes = std::fs::read(Path::new(receipt)).unwrap();
            proof::verify(&bytes, &genesis).unwrap_or_else(|e| panic!("{receipt}: {e}"));
        }
    }
    // the credit code the market regulator gave out is the one everybody after it wrote down, and it is a valid one
    let at = |department: &str| data.join("departments").join(department).join("department.db");
    let codes =
        common::column(&at("market"), "SELECT tyshxydm FROM qydj WHERE djh IS NOT NULL ORDER BY 1").await;
    assert!(codes.len() >= 5 && codes.iter().all(|c| model::identifier::credit(c).as_deref() == Ok(c)));
    for (department, sql) in [
        ("tax", "SELECT credit_code FROM taxpayer ORDER BY 1"),
        ("police", "SELECT xydm FROM yz_ba ORDER BY 1"),
    ] {
        assert_eq!(common::column(&at(department), sql).await, codes, "{department}");
    }
    // a name is reserved where a case still goes on, was used where it came to its licence, and is free again where it did not
    let reserved = common::column(&at("market"), "SELECT zt FROM qymc_bl").await;
    let count = |state: &str| reserved.iter().filter(|s| *s == state).count();
    let did = |report: &&CaseReport, step: &str| {
        report.steps.iter().any(|s| s["step"] == step && s["status"] == "done")
    };
    let starts: Vec<_> = reports.iter().filter(|r| r.matter == "enterprise-start").collect();
    let released = starts.iter().filter(|r| did(r, "undo_reserve")).count();
    let used = starts.iter().filter(|r| did(r, "licence")).count();
    let all = starts.iter().filter(|r| did(r, "reserve")).count();
    assert!(released >= 2 && used >= 5, "{released} {used}");
    assert_eq!((count("释放"), count("使用"), reserved.len()), (released, used, all));
    assert_eq!(count("保留"), all - released - used);
    common::check_nobody_is_on_the_ledger(&data, vec![]).await;
}
