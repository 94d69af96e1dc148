//! The JSON Schemas that editors use take every connector of this repository, and refuse what the program refuses.

use gateway::{Connector, Standard};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn files(below: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(below);
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files.filter(|f| f.extension().is_some_and(|e| e == "yaml")).collect()
}

fn read(file: &Path) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn schemas_say_what_the_program_says() {
    let (connector, standard) = (Connector::schema(), Standard::schema());
    let connectors = jsonschema::validator_for(&connector).unwrap();
    let standards = jsonschema::validator_for(&standard).unwrap();
    let mut seen = 0;
    for file in files("../../demo/departments").iter().chain(&files("tests/departments")) {
        let validator = if file.ends_with("elements.yaml") { &standards } else { &connectors };
        let errors: Vec<_> = validator.iter_errors(&read(file)).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", file.display());
        seen += 1;
    }
    for file in files("../../standards") {
        assert!(standards.is_valid(&read(&file)), "{}", file.display());
        seen += 1;
    }
    assert!(seen >= 20, "{seen}");

    let whole = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/departments/registry.yaml"));
    let wrong: [fn(&mut Value); 5] = [
        |v| drop(v.as_object_mut().unwrap().remove("department")),
        |v| v["unknown"] = 1.into(),
        |v| v["resources"][0]["id"] = "No Name".into(),
        |v| v["resources"][0]["share"] = "everything".into(),
        |v| v["format"] = "one".into(),
    ];
    for (i, change) in wrong.into_iter().enumerate() {
        let mut changed = whole.clone();
        change(&mut changed);
        assert!(!connectors.is_valid(&changed), "change {i}");
        assert!(
            Connector::parse("changed", &serde_json::to_string(&changed).unwrap()).is_err(),
            "change {i}"
        );
    }
}
