//! Publication plans as declared, and what the portal keeps of a publication.

use anyhow::{Context as _, Result, bail};
use gateway::{ElementKind, Transform};
use model::{DepartmentId, FieldId, ResourceId, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, path::Path};

/// A plan: what is published, from what, and what is known about people in it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The format: 1.
    pub format: u32,
    /// The publication's name: its address on the portal.
    pub id: ResourceId,
    /// What people call it.
    pub title: Text,
    /// What it holds, in a few sentences.
    pub about: Text,
    /// The responsible department.
    pub department: DepartmentId,
    /// What people call the department.
    pub department_title: Text,
    /// The post of the officer who decides.
    pub officer: String,
    /// The licence.
    pub licence: Licence,
    /// Where the data come from, in words.
    #[serde(default)]
    pub source: Option<String>,
    /// How often it is brought up to date: `daily`, `weekly`, `monthly`, `quarterly`, `yearly`, `irregular`, `never`.
    pub update: String,
    /// Its theme, as the EU's authority table of data themes names them: `GOVE`, `TRAN`, `ENVI`, `ECON`, `SOCI`, `HEAL`, `EDUC`, …
    pub theme: String,
    /// Words it is found by.
    #[serde(default)]
    pub keywords: Vec<Text>,
    /// Whether everybody may download it, or has to ask.
    #[serde(default)]
    pub access: Access,
    /// What one row is about.
    pub rows: About,
    /// Where the rows come from.
    pub from: From,
    /// Its columns in order.
    pub columns: Vec<PlanColumn>,
    /// The fewest people a combination of quasi-identifiers, or a count of people, may be about.
    #[serde(default = "five")]
    pub k: u32,
    /// The fewest different sensitive values a combination of quasi-identifiers may have.
    #[serde(default = "two")]
    pub l: u32,
    /// Counts of people are rounded to multiples of this.
    #[serde(default)]
    pub round_to: Option<u32>,
    /// Findings of the gate that the officer answers for.
    #[serde(default)]
    pub accept: Vec<Accept>,
    /// A chart.
    #[serde(default)]
    pub chart: Option<Chart>,
}

fn five() -> u32 {
    5
}
fn two() -> u32 {
    2
}

/// A licence.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// Its short name, such as `CC-BY-4.0`.
    pub id: String,
    /// What people call it.
    pub title: String,
    /// Where its text is.
    #[serde(default)]
    pub url: Option<String>,
}

/// Who may download.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Everybody.
    #[default]
    Open,
    /// Who asks and is let: only the description, the dictionary and the first rows are public.
    Conditional,
}

/// What one row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// A thing that is no person: a station, a plant, a day's weather.
    Things,
    /// Several people together: counts and sums.
    Totals,
    /// One person, without identifiers.
    People,
}

/// Where the rows of a publication come from.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum From {
    /// A question to the platform in a role; the results are totals.
    Query {
        /// The role.
        role: String,
        /// The question.
        sql: String,
    },
    /// A file beside the plan.
    File {
        /// Its path.
        path: std::path::PathBuf,
        /// How it is written.
        #[serde(default)]
        form: crate::dataset::FileForm,
    },
}

/// A column of a publication.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanColumn {
    /// Its name.
    pub id: FieldId,
    /// Its name in the file or the question's results; without it the same.
    #[serde(default)]
    pub column: Option<String>,
    /// What its values are.
    #[serde(rename = "type", default = "plain_text")]
    pub kind: ElementKind,
    /// What people call it.
    pub title: Text,
    /// The unit of its numbers.
    #[serde(default)]
    pub unit: Option<String>,
    /// What part it plays.
    #[serde(default)]
    pub role: Role,
    /// The steps from the written value to the published one, in order, as in a connector.
    #[serde(default)]
    pub transform: Vec<Transform>,
    /// Written values that mean that there is none.
    #[serde(default)]
    pub none: Vec<String>,
}

fn plain_text() -> ElementKind {
    ElementKind::Text
}

/// What part a column plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Nothing special.
    #[default]
    Plain,
    /// Together with others it may tell who a row is about: age, sex, district, occupation.
    Quasi,
    /// What one would not want to be known of oneself.
    Sensitive,
    /// A number of people.
    People,
    /// Degrees north.
    Latitude,
    /// Degrees east.
    Longitude,
}

/// A finding the officer answers for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// The finding's code.
    pub code: String,
    /// The column it is about.
    pub column: FieldId,
    /// Why that is right; published with the decision.
    pub reason: String,
}

/// A chart of two columns.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chart {
    /// `bar`, `line` or `scatter`.
    pub kind: ChartKind,
    /// The column along.
    pub x: FieldId,
    /// The column up.
    pub y: FieldId,
}

/// Kinds of charts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChartKind {
    /// The mean of `y` for each `x`.
    Bar,
    /// `y` along `x`, in order.
    Line,
    /// A point for each row.
    Scatter,
}

/// The themes of the authority table, with what they are called.
pub const THEMES: [(&str, &str, &str); 13] = [
    ("AGRI", "农业、渔业、林业和食品", "Agriculture, fisheries, forestry and food"),
    ("ECON", "经济与金融", "Economy and finance"),
    ("EDUC", "教育、文化与体育", "Education, culture and sport"),
    ("ENER", "能源", "Energy"),
    ("ENVI", "环境", "Environment"),
    ("GOVE", "政府与公共部门", "Government and public sector"),
    ("HEAL", "卫生健康", "Health"),
    ("INTR", "国际", "International issues"),
    ("JUST", "司法与公共安全", "Justice, legal system and public safety"),
    ("REGI", "地区与城市", "Regions and cities"),
    ("SOCI", "人口与社会", "Population and society"),
    ("TECH", "科学与技术", "Science and technology"),
    ("TRAN", "交通", "Transport"),
];

/// The words for how often something is brought up to date, as DCAT-AP's authority table has them.
pub const UPDATES: [(&str, &str); 9] = [
    ("realtime", "CONT"),
    ("hourly", "HOURLY"),
    ("daily", "DAILY"),
    ("weekly", "WEEKLY"),
    ("monthly", "MONTHLY"),
    ("quarterly", "QUARTERLY"),
    ("yearly", "ANNUAL"),
    ("irregular", "IRREG"),
    ("never", "NEVER"),
];

/// The JSON Schema of a plan (draft 2020-12), for editors.
pub fn plan_schema() -> serde_json::Value {
    schemars::schema_for!(Plan).to_value()
}

impl Plan {
    /// Reads and checks a plan.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let plan: Self =
            serde_saphyr::from_str(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
        plan.check().with_context(|| path.display().to_string())?;
        Ok(plan)
    }

    fn check(&self) -> Result<()> {
        if self.format != 1 {
            bail!("this program reads `format: 1`");
        }
        if !THEMES.iter().any(|(id, ..)| *id == self.theme) {
            bail!("`theme` is one of {}", THEMES.map(|t| t.0).join(", "));
        }
        if !UPDATES.iter().any(|(word, _)| *word == self.update) {
            bail!("`update` is one of {}", UPDATES.map(|u| u.0).join(", "));
        }
        let web = |url: &String| url.starts_with("https://") || url.starts_with("http://");
        if !self.licence.url.as_ref().is_none_or(web) {
            bail!("`licence.url` begins with https:// or http://");
        }
        let mut seen = BTreeSet::new();
        if self.columns.is_empty() || !self.columns.iter().all(|c| seen.insert(&c.id)) {
            bail!("`columns` names each column once");
        }
        if self.k < 3 || (self.rows == About::People && self.l < 2) {
            bail!("`k` is 3 or more, and `l` 2 or more where rows are about people");
        }
        if let Some(chart) = &self.chart {
            for id in [&chart.x, &chart.y] {
                if !seen.contains(id) {
                    bail!("`chart` names `{id}`, which is no column");
                }
            }
        }
        if self.round_to.is_some_and(|to| to < 2) {
            bail!("`round_to` is 2 or more");
        }
        Ok(())
    }
}

/// A file of a publication.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenFile {
    /// Its name.
    pub name: String,
    /// `CSV`, `JSON`, `XLSX` or `Parquet`.
    pub format: String,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// A version of a publication as the portal keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The plan it was made by.
    pub plan: Plan,
    /// Its version, from 1.
    pub version: u32,
    /// When the first version was published, in milliseconds since 1970.
    pub issued_ms: u64,
    /// When this one was, in milliseconds since 1970.
    pub modified_ms: u64,
    /// Its rows.
    pub rows: u64,
    /// The share of cells that have a value.
    pub complete: f64,
    /// Its files.
    pub files: Vec<OpenFile>,
    /// Why it was taken back, if it was.
    #[serde(default)]
    pub withdrawn: Option<String>,
}

impl Entry {
    /// Its name.
    pub fn id(&self) -> &str {
        self.plan.id.as_str()
    }
}
