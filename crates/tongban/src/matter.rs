//! `tongban matter`: what a matter designer does with a package, from the first check to publishing it.

use crate::{archive::client, govern::Own, say, stage};
use anyhow::{Context as _, Result, bail, ensure};
use clap::Subcommand;
use flow::{
    Package,
    lint::{Declared, Problem, Severity, lint},
    scenario::Scenario,
    simulate::{Run, simulate},
};
use gateway::{Connector, Standard};
use model::{Body, Language, StepId};
use node::Config;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// `tongban matter …`.
#[derive(Subcommand)]
pub enum MatterCommand {
    /// Check a package: what is an error is refused everywhere, a warning should be looked at. Exits 1 where there is an error.
    ///
    /// Examples: tongban matter check matters/house-transfer
    ///           tongban matter check matters/newborn --standard standards/elements.yaml --connectors demo/departments
    Check {
        /// The package's folder.
        dir: PathBuf,
        /// Departments' connector files, or folders of them: the package is held against what they declare.
        #[arg(long, num_args = 1.., requires = "standard")]
        connectors: Vec<PathBuf>,
        /// The shared standard.
        #[arg(long)]
        standard: Option<PathBuf>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Dry-run a package with its scenarios' scripted answers; nothing is sent anywhere. Exits 1 where one comes out otherwise than
    /// it expects.
    ///
    /// Examples: tongban matter simulate matters/restaurant
    ///           tongban matter simulate matters/restaurant --scenario matters/restaurant/scenarios/small.yaml --svg run.svg
    Simulate {
        /// The package's folder.
        dir: PathBuf,
        /// One scenario's file; all of the package where it is left out.
        #[arg(long)]
        scenario: Option<PathBuf>,
        /// Draw the graph with how the (last) run went to this file.
        #[arg(long)]
        svg: Option<PathBuf>,
        /// The drawing's language.
        #[arg(long, default_value = "zh-CN", value_parser = ["zh-CN", "en"])]
        lang: String,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Publish a package on the ledger and hand it to the running node, which opens cases of it from then on.
    ///
    /// Example: TONGBAN_PASSPHRASE=… tongban matter publish matters/house-transfer --config nodes/bureau/node.toml
    Publish {
        /// The package's folder.
        dir: PathBuf,
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Check the package and say what would be published.
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// List the matters a department handles, as its running node has them; without --config, those shipped with this program.
    ///
    /// Example: tongban matter list --config nodes/bureau/node.toml
    List {
        /// The node's configuration.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

impl MatterCommand {
    /// Whether it prints one JSON document.
    pub fn json(&self) -> bool {
        let (Self::Check { json, .. }
        | Self::Simulate { json, .. }
        | Self::Publish { json, .. }
        | Self::List { json, .. }) = self;
        *json
    }
}

/// Runs `tongban matter …`. Says no where the package is not in order, or a scenario comes out otherwise.
pub async fn matter(command: MatterCommand) -> Result<Option<String>> {
    match command {
        MatterCommand::Check { dir, connectors, standard, json } => {
            let declared = standard.map(|standard| declared(&standard, &connectors)).transpose()?;
            let (package, problems) = checked(&dir, declared.as_ref())?;
            Ok(say_problems(&dir, package.as_ref(), &problems, json))
        }
        MatterCommand::Simulate { dir, scenario, svg, lang, json } => {
            simulated(&dir, scenario.as_deref(), svg.as_deref(), &lang, json)
        }
        MatterCommand::Publish { dir, config, dry_run, json } => publish(&dir, &config, dry_run, json).await,
        MatterCommand::List { config, json } => list(config.as_deref(), json).await.map(|()| None),
    }
}

/// A package's file read and linted.
fn checked(dir: &Path, declared: Option<&Declared>) -> Result<(Option<Package>, Vec<Problem>)> {
    let file = dir.join("matter.yaml");
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("reading {}; a package is a folder with a matter.yaml", file.display()))?;
    Ok(lint(&file.display().to_string(), &text, declared))
}

/// What the files of a standard and of departments declare.
fn declared(standard: &Path, connectors: &[PathBuf]) -> Result<Declared> {
    let standard = Standard::read(standard)?;
    let mut files = Vec::new();
    for path in connectors {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let before = files.len();
        let entries = std::fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
        for entry in entries.filter_map(|e| Some(e.ok()?.path())) {
            // a department's file, or its folder with one
            let inside = entry.join("connector.yaml");
            match entry.extension().is_some_and(|e| e == "yaml") {
                true => files.push(entry),
                false if inside.is_file() => files.push(inside),
                false => {}
            }
        }
        ensure!(
            files.len() > before,
            "{} has no connector files: neither *.yaml nor */connector.yaml",
            path.display()
        );
    }
    let connectors: Vec<_> = files.iter().map(|f| Connector::read(f)).collect::<Result<_, _>>()?;
    Ok(Declared::of(&standard, &connectors))
}

fn say_problems(dir: &Path, package: Option<&Package>, problems: &[Problem], json: bool) -> Option<String> {
    let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
    if json {
        say!("{}", json!({ "problems": problems }));
    } else {
        for p in problems {
            let severity = if p.severity == Severity::Error { "error" } else { "warning" };
            say!("{}:{}: {severity} [{}] {}", p.path, p.line, p.code, p.message);
        }
        if let Some(package) = package.filter(|_| errors == 0) {
            say!(
                "{} version {}: {} steps, {} warning(s), no error",
                package.id,
                package.version,
                package.steps.len(),
                problems.len()
            );
        }
    }
    (errors > 0).then(|| format!("{}: {errors} error(s)", dir.display()))
}

fn simulated(
    dir: &Path,
    scenario: Option<&Path>,
    svg: Option<&Path>,
    lang: &str,
    json: bool,
) -> Result<Option<String>> {
    let package = Package::read(dir)?;
    let scenarios = match scenario {
        Some(file) => {
            let name = file.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_owned();
            BTreeMap::from([(name, Scenario::read(file).map_err(anyhow::Error::msg)?)])
        }
        None => Scenario::read_all(dir).map_err(anyhow::Error::msg)?,
    };
    if scenarios.is_empty() {
        bail!("{} has no scenarios/*.yaml; write one, or name it with --scenario", dir.display());
    }
    let mut runs: Vec<(String, Result<Run, String>)> = Vec::new();
    for (name, scenario) in &scenarios {
        runs.push((name.clone(), simulate(&package, scenario)));
    }
    if let Some(file) = svg {
        let language = if lang == "en" { Language::English } else { Language::Chinese };
        let states = match runs.last() {
            Some((_, Ok(run))) => run.steps.iter().map(|s| (s.step.clone(), s.status)).collect(),
            _ => BTreeMap::<StepId, _>::new(),
        };
        std::fs::write(file, flow::graph::svg(&package, language, &states, &|d| d.to_string()))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    let wrong = |run: &Result<Run, String>| run.as_ref().map_or(true, |r| !r.differs.is_empty());
    let failed = runs.iter().filter(|(_, run)| wrong(run)).count();
    if json {
        let all = runs.iter().map(|(name, run)| match run {
            Ok(run) => json!({ "scenario": name, "run": run }),
            Err(problem) => json!({ "scenario": name, "problem": problem }),
        });
        say!(
            "{}",
            json!({ "matter": package.id, "version": package.version, "runs": all.collect::<Vec<_>>() })
        );
    } else {
        for (name, run) in &runs {
            say_run(name, &scenarios[name], run, runs.len() == 1);
        }
    }
    Ok((failed > 0)
        .then(|| format!("{failed} of {} scenario(s) came out otherwise than expected", runs.len())))
}

fn say_run(name: &str, scenario: &Scenario, run: &Result<Run, String>, steps: bool) {
    match run {
        Err(problem) => say!("✗ {name}: {problem}"),
        Ok(run) => {
            let mark = if run.differs.is_empty() { '✓' } else { '✗' };
            let rested: String = run.rested.iter().map(|r| format!("{r} → ")).collect();
            say!("{mark} {name}: {rested}{} ({})  {}", run.outcome.as_str(), run.reason, scenario.title.zh);
            for problem in &run.differs {
                say!("    {problem}");
            }
            for s in run.steps.iter().filter(|_| steps) {
                let time = match (s.began_ms, s.ended_ms) {
                    (Some(a), Some(b)) => format!("{a:>7} … {b:<7} ms"),
                    _ => String::new(),
                };
                say!(
                    "    {:<20} {:<10} {:<9} {:<12} {time} {}",
                    s.step.as_str(),
                    s.department.as_str(),
                    s.kind,
                    s.status,
                    s.code
                );
            }
        }
    }
}

async fn publish(dir: &Path, config: &Path, dry_run: bool, json: bool) -> Result<Option<String>> {
    let (package, problems) = checked(dir, None)?;
    let errors = problems.iter().any(|p| p.severity == Severity::Error);
    let Some(package) = package.filter(|_| !errors) else {
        return Ok(say_problems(dir, None, &problems, json));
    };
    let own = Own::open(config)?;
    if dry_run {
        let new = package.publication(own.rules.suite());
        if json {
            let (hash, actions) = (new.package, new.actions.len());
            say!(
                "{}",
                json!({ "id": new.id, "version": new.version, "package": hash, "needs": new.needs, "actions": actions })
            );
        } else {
            let (needs, actions) = (new.needs.len(), new.actions.len());
            say!(
                "{} version {} would be published: {needs} data needs, {actions} actions",
                new.id,
                new.version
            );
        }
        return Ok(None);
    }
    // it is not published by half where the consortium knows too little
    let (needed, protocol) =
        (package.declarations().iter().map(Body::since).max().unwrap_or(1), own.protocol().await?);
    ensure!(
        needed <= protocol,
        "{} needs protocol {needed} of the ledger for what is subscribed to, undone or asked by lists, and the consortium is at {protocol}: nothing \
         was published. `tongban governance propose --protocol {}` first",
        package.id,
        protocol + 1
    );
    let node = client(&Config::read(config)?);
    let version = package.version;
    // published before, and only not handed over: then it is handed over now
    let command = match own.submit(Body::PublishMatter(package.publication(own.rules.suite()))).await {
        Ok(command) => Some(command),
        Err(e) => {
            if e.downcast_ref::<crate::govern::LedgerRefused>().is_none_or(|r| r.code != "wrong_version") {
                return Err(e.context(format!("publishing {} version {version}", package.id)));
            }
            None
        }
    };
    // declared before any case of it is opened: what was agreed to or done before would not be under it
    for declared in package.declarations() {
        let done = own.submit(declared).await;
        let before = |e: &anyhow::Error| {
            e.downcast_ref::<crate::govern::LedgerRefused>().is_some_and(|r| r.code == "already_used")
        };
        if let Err(e) = done.map(drop).or_else(|e| if before(&e) { Ok(()) } else { Err(e) }) {
            return Err(
                e.context(format!("declaring what of {} may be subscribed to and undone", package.id))
            );
        }
    }
    node.post("/api/v1/matters", json!({ "text": package.text })).await.with_context(|| {
        format!("handing {} version {version} to the node; where another version is on the ledger, raise `version` by one over it", package.id)
    })?;
    if json {
        say!("{}", json!({ "id": package.id, "version": version, "command": command }));
    } else {
        say!("{} version {version} is published, and cases of it can be opened", package.id);
    }
    Ok(None)
}

async fn list(config: Option<&Path>, json: bool) -> Result<()> {
    let matters: Vec<Value> = match config {
        Some(config) => client(&Config::read(config)?).get("/api/v1/matters").await?,
        None => {
            let shipped = stage::matter_names().into_iter().map(|name| {
                let matter = stage::matter(&name)?;
                let package = &matter.package;
                Ok(json!({
                    "id": package.id, "version": package.version, "title": package.title, "summary": package.summary,
                    "scenarios": matter.scenarios.keys().collect::<Vec<_>>(),
                }))
            });
            shipped.collect::<Result<_>>()?
        }
    };
    if json {
        say!("{}", json!({ "matters": matters }));
        return Ok(());
    }
    for matter in &matters {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let published = if matter["published"] == false { "  (not published)" } else { "" };
        say!(
            "{:<18} {:>3}  {}{published}",
            text(&matter["id"]),
            matter["version"],
            text(&matter["title"]["zh"])
        );
    }
    Ok(())
}
