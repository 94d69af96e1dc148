//! Scenarios: what departments answer and people do in one run of a matter, and what must come of it. One file serves
//! `tongban matter simulate`, which scripts the answers, and the demo and its tests, which put the data behind them into the
//! departments' own databases.

use model::*;
use schemars::JsonSchema;
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path};

/// A scenario file, format 1: `scenarios/NAME.yaml` of a package.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The format: 1.
    pub format: u32,
    /// What happens, in a few words.
    pub title: Text,
    /// The scenario this one is like; what is written here is put over it, and `data` comes after its.
    #[serde(default)]
    pub like: Option<String>,
    /// How often the demo draws it, against the others; 0: never.
    #[serde(default)]
    pub share: u32,
    /// What of the demo's city it plays with beside people: `sale` is a home that is sold.
    #[serde(default)]
    pub setting: Option<Code>,
    /// What is special about people it names; the others are drawn.
    #[serde(default)]
    pub people: BTreeMap<FieldId, Trait>,
    /// Who stands in which role.
    #[serde(default)]
    pub parties: BTreeMap<RoleId, FieldId>,
    /// What is filled in. `{ann.name}`, `{n}` and, by its setting, `{sale.unit}` stand for what is drawn.
    #[serde(default)]
    pub form: BTreeMap<FieldId, String>,
    /// What `matter simulate` has departments answer, by step.
    #[serde(default)]
    pub answers: BTreeMap<StepId, Scripted>,
    /// What the demo does to departments' own databases beforehand: SQL statements, whose `{…}` are bound.
    #[serde(default)]
    pub data: BTreeMap<DepartmentId, Vec<String>>,
    /// The party that withdraws its consent right after it signed.
    #[serde(default)]
    pub withdraws: Option<RoleId>,
    /// The department whose node is down for a while.
    #[serde(default)]
    pub down: Option<DepartmentId>,
    /// Whether the application is made a second time while the first is open.
    #[serde(default)]
    pub twice: bool,
    /// What people do each time the case rests.
    #[serde(default)]
    pub then: Vec<Doing>,
    /// What must come of it; never taken over from the scenario this one is like.
    #[serde(default)]
    pub expect: Option<Expected>,
}

/// What is special about a person.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trait {
    /// The day they were born, `yyyy-mm-dd`.
    pub born: String,
}

/// What a department answers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scripted {
    /// It fails with a code.
    Failed(Failed),
    /// It says nothing, and lets its deadline pass.
    Silent(Silent),
    /// Values by name.
    Values(BTreeMap<FieldId, String>),
}

/// A failure.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// Its code.
    pub failed: Code,
}

/// Silence.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Silent {
    /// Until the deadline has passed.
    pub silent: bool,
}

/// What somebody does when the case rests: one of three.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Doing {
    /// The applicant has settled what was missing; how.
    #[serde(default)]
    pub resume: Option<String>,
    /// An officer lets the case pass the rule it rests on; why.
    #[serde(default)]
    pub pass: Option<String>,
    /// An officer refuses; why.
    #[serde(default)]
    pub refuse: Option<String>,
    /// What departments answer from then on.
    #[serde(default)]
    pub answers: BTreeMap<StepId, Scripted>,
    /// What changed in departments' databases.
    #[serde(default)]
    pub data: BTreeMap<DepartmentId, Vec<String>>,
}

/// What must come of a scenario.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// How the case ends or where it rests.
    pub outcome: CaseOutcome,
    /// The code of why.
    #[serde(default)]
    pub reason: Option<Code>,
    /// How these steps stand then: `done`, `failed`, `skipped`, `not_started`, `waiting`.
    #[serde(default)]
    pub steps: BTreeMap<StepId, String>,
}

impl Scenario {
    /// The JSON Schema of a scenario file (draft 2020-12), for editors.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// Reads a scenario and the ones it is like; `read` gives the text of a scenario of the same package by its name.
    pub fn load(name: &str, read: &dyn Fn(&str) -> Result<String, String>) -> Result<Self, String> {
        let mut chain = Vec::new();
        let mut next = Some(name.to_owned());
        while let Some(name) = next {
            if chain.len() == 4 {
                return Err(format!("{name}: a scenario is like another at most three times over"));
            }
            let scenario: Self = serde_saphyr::from_str(&read(&name)?)
                .map_err(|e| format!("{name}: {}", e.to_string().lines().next().unwrap_or_default()))?;
            if scenario.format != 1 {
                return Err(format!(
                    "{name}: format {} is not supported; this program reads format 1",
                    scenario.format
                ));
            }
            next = scenario.like.clone();
            chain.push(scenario);
        }
        let mut whole = chain.pop().expect("at least the one that was asked for");
        while let Some(over) = chain.pop() {
            whole = whole.under(over);
        }
        whole.check().map_err(|e| format!("{name}: {e}"))?;
        Ok(whole)
    }

    /// The scenarios of a package folder, by name.
    pub fn read_all(dir: &Path) -> Result<BTreeMap<String, Self>, String> {
        let folder = dir.join("scenarios");
        let mut all = BTreeMap::new();
        let Ok(files) = std::fs::read_dir(&folder) else { return Ok(all) };
        for file in files {
            let path = file.map_err(|e| format!("{}: {e}", folder.display()))?.path();
            let name = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_owned();
            if path.extension().is_some_and(|e| e == "yaml") {
                all.insert(name.clone(), Self::load(&name, &|name| Self::text(&folder, name))?);
            }
        }
        Ok(all)
    }

    /// One scenario by its file.
    pub fn read(file: &Path) -> Result<Self, String> {
        let folder = file.parent().unwrap_or(Path::new("."));
        let name = file.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        Self::load(name, &|name| Self::text(folder, name))
    }

    fn text(folder: &Path, name: &str) -> Result<String, String> {
        let path = folder.join(format!("{name}.yaml"));
        std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn under(mut self, over: Self) -> Self {
        self.people.extend(over.people);
        self.parties.extend(over.parties);
        self.form.extend(over.form);
        self.answers.extend(over.answers);
        for (department, statements) in over.data {
            self.data.entry(department).or_default().extend(statements);
        }
        Self {
            format: over.format,
            title: over.title,
            like: over.like,
            share: over.share,
            setting: over.setting.or(self.setting),
            withdraws: over.withdraws.or(self.withdraws),
            down: over.down.or(self.down),
            twice: over.twice,
            then: if over.then.is_empty() { self.then } else { over.then },
            expect: over.expect,
            ..self
        }
    }

    fn check(&self) -> Result<(), String> {
        for doing in &self.then {
            let said = [&doing.resume, &doing.pass, &doing.refuse].into_iter().flatten().count();
            if said != 1 {
                return Err("each of `then` says one of resume, pass and refuse".into());
            }
        }
        if self.expect.is_none() {
            return Err("it says what to `expect`".into());
        }
        Ok(())
    }
}

/// The text with what `{…}` stands for in it; which one is not known otherwise.
pub fn fill(text: &str, known: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (pieces, values) = pieces(text, known)?;
    let mut filled = String::new();
    for (i, piece) in pieces.iter().enumerate() {
        filled.push_str(piece);
        filled.extend(values.get(i).map(String::as_str));
    }
    Ok(filled)
}

/// A text parted where `{…}` stands, with what it stands for: for statements, whose values are bound.
pub fn pieces(
    text: &str,
    known: &dyn Fn(&str) -> Option<String>,
) -> Result<(Vec<String>, Vec<String>), String> {
    let (mut pieces, mut values) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) =
            after.split_once('}').ok_or_else(|| format!("a `{{` is not closed in `{text}`"))?;
        values.push(known(name).ok_or_else(|| format!("`{{{name}}}` stands for nothing"))?);
        pieces.push(before.to_owned());
        rest = after;
    }
    pieces.push(rest.to_owned());
    Ok((pieces, values))
}
