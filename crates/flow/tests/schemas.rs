//! The JSON Schemas that editors use take every shipped matter and scenario, and refuse what the program refuses.

use flow::{Package, scenario::Scenario};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.collect()
}

fn read(file: &Path) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn schemas_say_what_the_program_says() {
    let (package, scenario) = (Package::schema(), Scenario::schema());
    let packages = jsonschema::validator_for(&package).unwrap();
    let scenarios = jsonschema::validator_for(&scenario).unwrap();
    let mut seen = 0;
    for matter in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../matters")) {
        let all = files(&matter.join("scenarios")).into_iter().map(|f| (f, &scenarios));
        for (file, validator) in all.chain([(matter.join("matter.yaml"), &packages)]) {
            let errors: Vec<_> = validator.iter_errors(&read(&file)).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{}: {errors:?}", file.display());
            seen += 1;
        }
    }
    assert!(seen >= 40, "{seen}");

    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../matters/restaurant/matter.yaml");
    let whole = read(&whole);
    let wrong: [fn(&mut Value); 6] = [
        |v| drop(v.as_object_mut().unwrap().remove("handler")),
        |v| v["unknown"] = 1.into(),
        |v| v["steps"][0]["kind"] = "guess".into(),
        |v| v["steps"][0]["id"] = "No Name".into(),
        |v| v["parties"][0]["title"] = "owner".into(),
        |v| v["steps"][1]["basis"] = "because".into(),
    ];
    for (i, change) in wrong.into_iter().enumerate() {
        let mut changed = whole.clone();
        change(&mut changed);
        assert!(!packages.is_valid(&changed), "change {i}");
        assert!(Package::parse("changed", &serde_json::to_string(&changed).unwrap()).is_err(), "change {i}");
    }
}
