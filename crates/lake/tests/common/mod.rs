//! A platform in a folder of its own, and its program.
#![allow(dead_code)]

use lake::{Config, Lake};
use serde_json::Value;
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub const VISITS: &str = r#"
format: 1
id: hall.visits
resource: hall.visits
title: { zh: 办事记录, en: Visits }
department: bureau
officer: 数据专员
subject: person
key: [record]
day: on
retention_days: 3650
file: { encoding: utf8 }
columns:
  - { id: person, column: SFZH, element: person.id, transform: [trim, old_id], required: true, sensitivity: 4 }
  - { id: record, column: LSH, element: deed.number, required: true }
  - { id: kind, column: SX, element: deed.state, transform: [{ codes: { "1": 过户, "2": 开业, "3": 出生 } }], words: [过户, 开业, 出生] }
  - { id: district, column: XZQH, element: deed.state }
  - { id: fee, column: JE, element: money.fen, transform: [yuan_to_fen], none: ["-"], sensitivity: 3 }
  - { id: on, column: RQ, element: date, transform: [{ date: yyyymmdd }] }
aggregates:
  - { role: statistician, by: [district, kind, on], of: [fee], at_least: 5 }
  - { role: district-1, by: [kind], of: [fee], at_least: 5, only: { district: [东城] } }
"#;

/// A platform and where it lies.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new(declarations: &[(&str, &str)]) -> Self {
        let place = Self { dir: tempfile::tempdir().expect("a folder") };
        let out = place.run(&["init", "."], "");
        assert!(out.0 == 0, "{}", out.2);
        for (name, text) in declarations {
            std::fs::write(place.path().join("datasets").join(name), text).expect("written");
        }
        place
    }

    pub fn visits() -> Self {
        Self::new(&[("visits.yaml", VISITS)])
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tongban-lake"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env("TONGBAN_PASSPHRASE", "a passphrase of the tests");
        command.env_remove("TONGBAN_LAKE_DATA");
        command
    }

    /// Exit code, standard output, standard error.
    pub fn run(&self, arguments: &[&str], input: &str) -> (i32, String, String) {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        // a command that reads nothing has gone away
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        let out = child.wait_with_output().expect("it ends");
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
    }

    /// The JSON a command that succeeds prints.
    pub fn json(&self, arguments: &[&str], input: &str) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        let (code, out, err) = self.run(&all, input);
        assert_eq!(code, 0, "{arguments:?}: {out} {err}");
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {out}"))
    }

    /// The message of a command that fails.
    pub fn refused(&self, arguments: &[&str], input: &str) -> String {
        let (code, out, err) = self.run(arguments, input);
        assert_ne!(code, 0, "{arguments:?} should fail: {out}");
        err
    }

    pub fn lake(&self) -> Lake {
        Lake::open(Config::read(&self.path().join("lake.toml")).expect("settings")).expect("a platform")
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }

    pub fn rows(&self) -> u64 {
        self.json(&["stats", "hall.visits"], "")["rows"].as_u64().expect("a number")
    }
}

/// The `n`th synthetic person.
pub fn person(n: u64) -> String {
    let first =
        format!("990100{:04}{:02}{:02}{:03}", 1950 + n % 60, n / 60 % 12 + 1, n % 28 + 1, n / 720 % 1000);
    format!("{first}{}", char::from(model::identifier::resident_check(first.as_bytes()).expect("digits")))
}

/// Rows of visits as CSV: `each` for each of `people`.
pub fn visits(people: std::ops::Range<u64>, each: u64) -> String {
    let mut text = "SFZH,LSH,SX,XZQH,JE,RQ\n".to_owned();
    for n in people {
        for visit in 0..each {
            let district = ["东城", "西城", "海淀"][(n % 3) as usize];
            let day = 1 + (n + visit) % 28;
            text += &format!(
                "{},R{n}-{visit},{},{district},{}.5,202611{day:02}\n",
                person(n),
                1 + visit % 3,
                10 + n % 90
            );
        }
    }
    text
}
