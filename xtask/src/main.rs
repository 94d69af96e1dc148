//! Chores of the repository: `cargo xtask test | tidy | generate | screenshots | soak`.
//!
//! `test` installs what the tests need (Debian packages, through apt) and runs every functional test; it is what
//! `.ci/run` calls. `tidy` is the part of it that reads and does not run.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

/// Packages the tests use beyond Rust and a C compiler: a browser to walk the pages, Node.js to run the page's receipt
/// verifier, what makes networks of their own and loses packets in them, database servers, which tests start for themselves,
/// pip for clients that others wrote, and ODBC with two drivers.
const PACKAGES: [(&str, &str); 15] = [
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
    ("node", "nodejs"),
    ("fc-list", "fonts-noto-cjk"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("kill", "procps"),
    ("psql", "postgresql"),
    ("mariadbd", "mariadb-server"),
    ("mariadb", "mariadb-client"),
    ("pip3", "python3-pip"),
    ("/usr/include/sql.h", "unixodbc-dev"),
    ("odbcinst", "odbcinst"),
    ("/usr/share/psqlodbc", "odbc-postgresql"),
    ("/usr/share/sqliteodbc", "libsqliteodbc"),
];

/// Who may import whom, by crate; a path down the list of DESIGN.md's section 4.
const IMPORTS: [(&str, &[&str]); 15] = [
    ("model", &[]),
    ("crypto", &["model"]),
    ("ledger", &["model", "crypto"]),
    ("proof", &["model", "crypto"]),
    ("chain", &["model", "crypto", "ledger", "proof"]),
    ("identity", &["model", "crypto"]),
    ("face", &["model", "crypto"]),
    ("gateway", &["model", "crypto", "proof"]),
    ("tongban-odbc", &["model", "gateway"]),
    ("tongban-lake", &["model", "crypto", "proof", "gateway"]),
    ("flow", &["model", "crypto", "ledger", "proof", "chain", "gateway", "identity"]),
    ("node", &["model", "crypto", "ledger", "proof", "chain", "identity", "face", "gateway", "flow"]),
    (
        "tongban",
        &["model", "crypto", "ledger", "proof", "chain", "identity", "face", "gateway", "flow", "node"],
    ),
    ("sim", &["model", "crypto", "ledger", "proof", "chain", "identity", "gateway", "flow"]),
    ("xtask", &[]),
];

/// Outside libraries that only some crates may name, by prefix.
const CONFINED: [(&str, &[&str]); 11] = [
    ("cedar-policy", &["ledger"]),
    ("commonware-", &["chain", "sim"]),
    ("sqlx", &["gateway", "node", "tongban"]),
    ("axum", &["node", "tongban", "tongban-lake"]),
    ("askama", &["node", "tongban-lake"]),
    ("datafusion", &["tongban-lake"]),
    ("deltalake", &["tongban-lake"]),
    ("tantivy", &["tongban-lake"]),
    ("rten", &["face"]),
    ("odbc", &["tongban-odbc"]),
    ("openidconnect", &["identity"]),
];

/// Licences a dependency may have (each alternative of an `OR`, all of an `AND`).
const LICENCES: [&str; 15] = [
    "Apache-2.0",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "CC0-1.0",
    "Unlicense",
    "Unicode-3.0",
    "BSL-1.0",
    "OpenSSL",
    "CDLA-Permissive-2.0",
    "MPL-2.0",
];

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let done = match task.as_str() {
        "test" => test(),
        "tidy" => tidy(),
        "generate" => generated(true),
        "screenshots" => screenshots(),
        "soak" => soak(),
        _ => {
            eprintln!("usage: cargo xtask test | tidy | generate | screenshots | soak");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::from(1)
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("== {name}");
    let begun = Instant::now();
    let done = work().with_context(|| name.to_owned())?;
    eprintln!("   {name}: {} s", begun.elapsed().as_secs());
    Ok(done)
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let status =
        Command::new("cargo").args(arguments).current_dir(root()).status().context("running cargo")?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}

fn test() -> Result<()> {
    step("install", install)?;
    step("tidy", tidy)?;
    // the tests use the same build as `cargo run`: one profile, one set of features
    step("build", || cargo(&["build", "--release", "--workspace", "--all-targets", "--locked"]))?;
    let counted = step("tests", run_tests)?;
    step("generated documents", || generated(false))?;
    println!("{} passed, {} failed, {} skipped", counted.0, counted.1, counted.2);
    if counted.1 > 0 || counted.0 == 0 {
        bail!("some tests failed");
    }
    Ok(())
}

/// Whether a program is on the path; or, where it is none that one runs, whether its file or folder is there.
fn present(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let found = Command::new("sh")
        .args(["-c", &format!("PATH=$PATH:/usr/sbin:/sbin command -v {program}")])
        .stdout(Stdio::null())
        .status();
    found.is_ok_and(|s| s.success())
}

fn install() -> Result<()> {
    let missing: Vec<_> =
        PACKAGES.iter().filter(|(program, _)| !present(program)).map(|(_, package)| *package).collect();
    let cjk =
        Command::new("sh").args(["-c", "fc-list :lang=zh | grep -q ."]).status().is_ok_and(|s| s.success());
    let mut missing = missing;
    if !cjk && !missing.contains(&"fonts-noto-cjk") {
        missing.push("fonts-noto-cjk");
    }
    if missing.is_empty() {
        return Ok(());
    }
    println!("the tests need these Debian packages, which are installed now: {}", missing.join(" "));
    if !present("apt-get") {
        bail!("this is no Debian; install by hand what corresponds to: {}", missing.join(" "));
    }
    let apt = |arguments: &[&str]| -> Result<()> {
        let status = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            bail!(
                "apt-get {} failed; run this as root, or install by hand: {}",
                arguments[0],
                missing.join(" ")
            );
        }
        Ok(())
    };
    apt(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(&arguments)
}

/// Runs the tests and adds up cargo's counts.
fn run_tests() -> Result<(u64, u64, u64)> {
    let out = Command::new("cargo")
        .args(["test", "--release", "--workspace", "--no-fail-fast", "--locked"])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    print!("{text}");
    let mut sums = (0, 0, 0);
    for line in text.lines().filter(|l| l.starts_with("test result:")) {
        let count = |word: &str| {
            line.split(['.', ';'])
                .find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        sums = (sums.0 + count("passed"), sums.1 + count("failed"), sums.2 + count("ignored"));
    }
    if !out.status.success() && sums.1 == 0 {
        sums.1 = 1;
    }
    Ok(sums)
}

fn tidy() -> Result<()> {
    step("format", || cargo(&["fmt", "--all", "--check"]))?;
    step("imports and licences", check_metadata)?;
    step("sizes", check_sizes)?;
    step("clippy", || {
        cargo(&[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--locked",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ])
    })?;
    step("docs", || {
        let status = Command::new("cargo")
            .args(["doc", "--release", "--workspace", "--no-deps", "--locked", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings")
            .current_dir(root())
            .status()?;
        if !status.success() {
            bail!("the documentation has warnings");
        }
        Ok(())
    })
}

fn metadata() -> Result<Value> {
    let out = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()?;
    serde_json::from_slice(&out.stdout).context("reading cargo metadata")
}

fn check_metadata() -> Result<()> {
    let metadata = metadata()?;
    let allowed: BTreeMap<&str, &[&str]> = IMPORTS.into();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let name = package["name"].as_str().unwrap_or_default();
        if !package["source"].is_null() {
            let licence = package["license"].as_str().unwrap_or("none").replace('/', " OR ");
            if !licence_fits(&licence) {
                wrong.push(format!("{name}: its licence is {licence}"));
            }
            continue;
        }
        let Some(may) = allowed.get(name) else {
            wrong.push(format!(
                "{name}: add it to the import table in xtask, with a reason in ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let is_test = dependency["kind"].as_str() == Some("dev");
            if allowed.contains_key(to) && !may.contains(&to) {
                wrong.push(format!("{name} must not import {to}"));
            }
            for (prefix, owners) in CONFINED {
                if to.starts_with(prefix) && !owners.contains(&name) && !is_test {
                    wrong.push(format!("{name} must not name {to}: only {} may", owners.join(", ")));
                }
            }
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// Whether an SPDX expression can be met with the licences allowed.
fn licence_fits(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ");
    plain.split(" AND ").all(|all| {
        all.split(" OR ").any(|one| {
            let base = one.trim().split(" WITH ").next().unwrap_or_default().trim();
            LICENCES.contains(&base)
        })
    })
}

/// Source files stay readable: at most 900 lines, tests and tables included.
fn check_sizes() -> Result<()> {
    let out = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root()).output()?;
    for file in String::from_utf8_lossy(&out.stdout).lines() {
        let lines = std::fs::read_to_string(root().join(file)).map_or(0, |t| t.lines().count());
        if lines > 900 {
            bail!("{file} has {lines} lines; part it along its subjects");
        }
    }
    Ok(())
}

/// Documents that the program prints, and where they are committed.
const GENERATED: [(&str, &str, &[&str]); 9] = [
    ("docs/openapi.json", "tongban", &["openapi"]),
    ("docs/schemas/connector.json", "tongban", &["schema", "connector"]),
    ("docs/schemas/standard.json", "tongban", &["schema", "standard"]),
    ("docs/schemas/matter.json", "tongban", &["schema", "matter"]),
    ("docs/schemas/scenario.json", "tongban", &["schema", "scenario"]),
    ("docs/schemas/sharing.json", "tongban", &["schema", "sharing"]),
    ("docs/schemas/project.json", "tongban", &["schema", "project"]),
    ("docs/schemas/dataset.json", "tongban-lake", &["schema", "dataset"]),
    ("docs/schemas/publication.json", "tongban-lake", &["schema", "publication"]),
];

/// Compares the committed documents with what the program prints, or writes them.
fn generated(write: bool) -> Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    if write {
        // the same build as the tests use
        cargo(&["build", "--release", "--workspace", "--all-targets", "--locked"])?;
    }
    for (file, program, arguments) in GENERATED {
        let program = target.join("release").join(program);
        let out = Command::new(&program).args(arguments).output();
        let out = out.with_context(|| format!("running {}", program.display()))?;
        let committed = root().join(file);
        if write {
            std::fs::write(&committed, &out.stdout).with_context(|| format!("writing {file}"))?;
        } else if std::fs::read(&committed).unwrap_or_default() != out.stdout {
            bail!(
                "{file} is not what the program says; run `cargo xtask generate` and look at the difference"
            );
        }
    }
    Ok(())
}

/// Fuzzes every decoder for five minutes, where nightly and cargo-fuzz are there.
fn fuzz() -> Result<()> {
    let version = Command::new("cargo").args(["+nightly", "fuzz", "--version"]).output();
    if !version.is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: fuzzing needs nightly and `cargo install cargo-fuzz`");
        return Ok(());
    }
    for entry in std::fs::read_dir(root().join("fuzz/fuzz_targets"))?.flatten() {
        let name = entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned();
        cargo(&["+nightly", "fuzz", "run", &name, "--", "-max_total_time=300"])?;
    }
    Ok(())
}

/// Pictures of every page in both languages and themes, wide and narrow, to be looked at.
fn screenshots() -> Result<()> {
    step("install", install)?;
    let folder = root().join("target/screenshots");
    let status = Command::new("cargo")
        .args(["test", "--release", "--workspace", "--locked", "--test", "pages", "--test", "citizens"])
        .env("TONGBAN_SCREENSHOTS", &folder)
        .current_dir(root())
        .status()?;
    if !status.success() {
        bail!("the pages' test failed");
    }
    println!("the pictures are in {}", folder.display());
    Ok(())
}

/// The long runs: many cases from several seeds, fuzzing, and the benchmarks.
fn soak() -> Result<()> {
    cargo(&["build", "--release", "--workspace", "--locked"])?;
    let program = root().join("target/release/tongban");
    let run = |arguments: &[&str]| -> Result<()> {
        eprintln!("== tongban {}", arguments.join(" "));
        if !Command::new(&program).args(arguments).current_dir(root()).status()?.success() {
            bail!("tongban {} failed", arguments.join(" "));
        }
        Ok(())
    };
    for seed in ["11", "12", "13"] {
        run(&[
            "demo",
            "--headless",
            "--cases",
            "300",
            "--seed",
            seed,
            "--port",
            "0",
            "--data",
            "target/soak-demo",
        ])?;
    }
    cargo(&["run", "--release", "--locked", "-p", "sim", "--", "--seeds", "10000"])?;
    fuzz()?;
    for suite in ["international", "national"] {
        run(&[
            "demo",
            "--headless",
            "--cases",
            "100",
            "--suite",
            suite,
            "--port",
            "0",
            "--data",
            "target/soak-demo",
        ])?;
        for validators in ["4", "7", "16"] {
            run(&["bench", "ledger", "--seconds", "60", "--suite", suite, "--validators", validators])?;
        }
        run(&["bench", "ledger", "--seconds", "60", "--suite", suite, "--down", "1"])?;
        run(&["bench", "ledger", "--seconds", "60", "--suite", suite, "--rate", "200"])?;
    }
    Ok(())
}
