//! What the demo is made of, out of files that are part of the program: its departments, and the shipped matters with their
//! scenarios. A department or a matter is added there with files alone.

use anyhow::{Context as _, Result, bail};
use flow::{Package, scenario::Scenario};
use model::{DepartmentId, Text};
use rust_embed::RustEmbed;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

#[derive(RustEmbed)]
#[folder = "../../matters/"]
struct Matters;

#[derive(RustEmbed)]
#[folder = "../../demo/"]
struct Files;

fn text<E: RustEmbed>(path: &str) -> Option<String> {
    String::from_utf8(E::get(path)?.data.into_owned()).ok()
}

/// A department of the demo.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Department {
    /// Its ID.
    pub id: DepartmentId,
    /// Its name.
    pub title: Text,
    /// Whether its node votes.
    #[serde(default)]
    pub validator: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Consortium {
    departments: Vec<Department>,
}

/// A shipped matter.
pub struct Matter {
    /// Its package.
    pub package: Package,
    /// Its scenarios by name.
    pub scenarios: BTreeMap<String, Scenario>,
}

impl Matter {
    /// A matter of a package folder.
    pub fn read(dir: &Path) -> Result<Self> {
        let scenarios = Scenario::read_all(dir).map_err(anyhow::Error::msg)?;
        Ok(Self { package: Package::read(dir)?, scenarios })
    }
}

/// The names of the shipped matters.
pub fn matter_names() -> Vec<String> {
    let names: BTreeSet<_> =
        Matters::iter().filter_map(|p| Some(p.strip_suffix("/matter.yaml")?.to_owned())).collect();
    names.into_iter().collect()
}

/// A shipped matter by its name.
pub fn matter(name: &str) -> Result<Matter> {
    let Some(text) = text::<Matters>(&format!("{name}/matter.yaml")) else {
        bail!("there is no matter `{name}`; the demo has: {}", matter_names().join(", "));
    };
    let package = Package::parse(&format!("matters/{name}/matter.yaml"), &text)?;
    let folder = format!("{name}/scenarios/");
    let mut scenarios = BTreeMap::new();
    for path in Matters::iter() {
        let Some(scenario) = path.strip_prefix(&folder).and_then(|p| p.strip_suffix(".yaml")) else {
            continue;
        };
        let read = |name: &str| {
            self::text::<Matters>(&format!("{folder}{name}.yaml"))
                .ok_or_else(|| format!("there is no scenario {name}"))
        };
        let loaded = Scenario::load(scenario, &read).map_err(anyhow::Error::msg);
        scenarios.insert(scenario.to_owned(), loaded.with_context(|| format!("matters/{path}"))?);
    }
    Ok(Matter { package, scenarios })
}

/// All departments of the demo.
pub fn all_departments() -> Result<Vec<Department>> {
    let all = text::<Files>("consortium.yaml").context("the demo's consortium is missing")?;
    let all: Consortium = serde_saphyr::from_str(&all).context("demo/consortium.yaml")?;
    Ok(all.departments)
}

/// The departments that these matters take: those that vote, and those a matter names.
pub fn departments(matters: &[Matter]) -> Result<Vec<Department>> {
    let all = all_departments()?;
    let named: BTreeSet<&DepartmentId> = matters
        .iter()
        .flat_map(|m| {
            let steps = m.package.steps.iter().flat_map(|s| s.holder.iter().chain(&s.performer));
            steps.chain([&m.package.handler])
        })
        .collect();
    if let Some(unknown) = named.iter().find(|id| !all.iter().any(|d| d.id == ***id)) {
        bail!("a matter names {unknown}, which demo/consortium.yaml does not");
    }
    Ok(all.into_iter().filter(|d| d.validator || named.contains(&d.id)).collect())
}

/// A department's connector file.
pub fn connector(id: &DepartmentId) -> Result<String> {
    Ok(text::<Files>(&format!("departments/{id}.yaml"))
        .unwrap_or_else(|| format!("format: 1\ndepartment: {id}\n")))
}

/// What a department's database has beside the city's tables, as SQL statements, each on lines of its own.
pub fn statements(id: &str) -> String {
    text::<Files>(&format!("departments/{id}.sql")).unwrap_or_default()
}

/// The matters of these names.
pub fn matters(names: &[String]) -> Result<Vec<Matter>> {
    names.iter().map(|name| matter(name)).collect()
}
