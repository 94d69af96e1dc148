//! Data sets as declared: one file ties a table of the platform to a catalogue entry, column by column.

use anyhow::{Context as _, Result, bail};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use gateway::{Cell, ElementKind, Encoding, Standard, Transform};
use model::{DepartmentId, FieldId, ResourceId, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

/// The column that holds what a subject is stored as: 16 bytes of a keyed hash.
pub const SUBJECT: &str = "subject_key";

/// A data set declaration.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// The format: 1.
    pub format: u32,
    /// The data set's name: a table of this name is made.
    pub id: ResourceId,
    /// The catalogue entry whose data it gathers.
    pub resource: ResourceId,
    /// What people call it.
    pub title: Text,
    /// What it holds, in a sentence or two.
    #[serde(default)]
    pub about: Option<Text>,
    /// The department that answers for it.
    pub department: DepartmentId,
    /// The post that is responsible for it.
    pub officer: String,
    /// How batches come.
    #[serde(default)]
    pub mode: Mode,
    /// The column that says whom a row is about. It is stored as a keyed hash, and rows are looked up by it. Without it the data
    /// set is about nobody.
    #[serde(default)]
    pub subject: Option<FieldId>,
    /// The columns that make a row one row, besides its subject: what is counted as a duplicate, and replaced in `changes`.
    #[serde(default)]
    pub key: Vec<FieldId>,
    /// The column with the day of what a row tells: for timeliness and retention.
    #[serde(default)]
    pub day: Option<FieldId>,
    /// Rows older than so many days, by `day`, are removed by `tongban-lake retain`.
    #[serde(default)]
    pub retention_days: Option<u32>,
    /// How many days after its day a row should have come, for the report on quality.
    #[serde(default)]
    pub timely_days: Option<u32>,
    /// How its files are written.
    #[serde(default)]
    pub file: FileForm,
    /// In `changes`: the column and the values in it that say that a row is gone.
    #[serde(default)]
    pub gone: Option<Gone>,
    /// Other data sets whose values of the same subjects must be the same.
    #[serde(default)]
    pub agrees: Vec<Agrees>,
    /// Its columns in order.
    pub columns: Vec<Column>,
    /// What may be asked about all rows together, by role; nothing without it.
    #[serde(default)]
    pub aggregates: Vec<Aggregates>,
}

/// How batches of a data set come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Each batch adds rows.
    #[default]
    Append,
    /// Each batch is the whole of it and takes the place of what was there.
    Snapshot,
    /// Each batch holds rows that are new or changed, by `key`, or gone.
    Changes,
}

/// How a file of a data set is written.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileForm {
    /// The encoding of a text file.
    #[serde(default)]
    pub encoding: Encoding,
    /// What parts the fields of a CSV file.
    #[serde(default = "comma")]
    pub separator: char,
    /// The sheet of a workbook; without it the first.
    #[serde(default)]
    pub sheet: Option<String>,
}

fn comma() -> char {
    ','
}

impl Default for FileForm {
    fn default() -> Self {
        Self { encoding: Encoding::Utf8, separator: ',', sheet: None }
    }
}

/// What says that a row is gone.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gone {
    /// The column of the file.
    pub column: String,
    /// The values in it.
    pub values: BTreeSet<String>,
}

/// A value that another data set has too.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Agrees {
    /// The other data set.
    pub with: ResourceId,
    /// The column here.
    pub column: FieldId,
    /// The column there.
    pub theirs: FieldId,
}

/// A column.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name in the table.
    pub id: FieldId,
    /// Its name in files; without it the same.
    #[serde(default)]
    pub column: Option<String>,
    /// The data element it carries.
    pub element: FieldId,
    /// What people call it; without it what the standard says.
    #[serde(default)]
    pub title: Option<Text>,
    /// The steps from the written value to the element's, in order, as in a connector.
    #[serde(default)]
    pub transform: Vec<Transform>,
    /// Written values that mean that there is none, beside the empty one.
    #[serde(default)]
    pub none: Vec<String>,
    /// Whether a row without it is refused.
    #[serde(default)]
    pub required: bool,
    /// Sensitivity from 1 (public) to 4 (sensitive personal information, PIPL 28).
    #[serde(default = "one")]
    pub sensitivity: u8,
    /// The words it may have; others are counted by the report on quality.
    #[serde(default)]
    pub words: BTreeSet<String>,
}

fn one() -> u8 {
    1
}

/// What a role may ask about all rows together.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aggregates {
    /// The role, as `tongban-lake query --role` names it.
    pub role: String,
    /// Columns results may be grouped and filtered by.
    #[serde(default)]
    pub by: BTreeSet<FieldId>,
    /// Numbers that may be summed and averaged.
    #[serde(default)]
    pub of: BTreeSet<FieldId>,
    /// Rows this role sees: column and the values it may have.
    #[serde(default)]
    pub only: BTreeMap<FieldId, BTreeSet<String>>,
    /// A result about fewer subjects (rows, where there is no subject) than this is left out.
    #[serde(default = "five")]
    pub at_least: u32,
}

fn five() -> u32 {
    5
}

/// A column made ready.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Its name in the table.
    pub id: FieldId,
    /// Its name in files.
    pub header: String,
    /// How its cells are read.
    pub cell: Cell,
    /// As declared.
    pub declared: Column,
}

/// A data set made ready: declaration, columns and schema.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// As declared.
    pub declared: Declaration,
    /// Its columns, the subject's among them.
    pub columns: Vec<Ready>,
    /// The table's schema: the subject's key first, where there is a subject; its column is not kept.
    pub schema: SchemaRef,
}

/// The type a kind of element is kept as.
fn kept(kind: ElementKind) -> DataType {
    match kind {
        ElementKind::Date => DataType::Date32,
        ElementKind::Integer => DataType::Int64,
        ElementKind::Number => DataType::Float64,
        ElementKind::Text
        | ElementKind::Code
        | ElementKind::ResidentId
        | ElementKind::CreditCode
        | ElementKind::UnitCode => DataType::Utf8,
    }
}

impl Dataset {
    /// The JSON Schema of a declaration (draft 2020-12), for editors.
    pub fn schema_of_declarations() -> serde_json::Value {
        schemars::schema_for!(Declaration).to_value()
    }

    /// Reads and checks a declaration.
    pub fn read(path: &Path, standard: &Standard) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let declared: Declaration =
            serde_saphyr::from_str(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
        Self::new(declared, standard).with_context(|| path.display().to_string())
    }

    /// Checks a declaration against the standard.
    pub fn new(declared: Declaration, standard: &Standard) -> Result<Self> {
        if declared.format != 1 {
            bail!("this program reads `format: 1`");
        }
        let mut columns = Vec::new();
        let mut seen = BTreeSet::new();
        for column in &declared.columns {
            let header = column.column.clone().unwrap_or_else(|| column.id.to_string());
            if column.id.as_str() == SUBJECT || !seen.insert(column.id.clone()) {
                bail!("column `{}` is declared twice, or its name is taken", column.id);
            }
            let as_column = gateway::Column {
                column: header.clone(),
                element: column.element.clone(),
                transform: column.transform.clone(),
                none: column.none.clone(),
                parted: None,
                stored_type: None,
                lookup: Default::default(),
            };
            let cell = Cell::new(standard, &as_column).map_err(anyhow::Error::msg)?;
            if !(1..=4).contains(&column.sensitivity) {
                bail!("column `{}`: sensitivity is from 1 to 4", column.id);
            }
            columns.push(Ready { id: column.id.clone(), header, cell, declared: column.clone() });
        }
        let named = |id: &FieldId, role: &str| match columns.iter().find(|c| c.id == *id) {
            Some(column) => Ok(column),
            None => bail!("`{role}` names the column `{id}`, which is not declared"),
        };
        if let Some(subject) = &declared.subject {
            let kind = named(subject, "subject")?.cell.kind();
            if matches!(kind, ElementKind::Date | ElementKind::Integer | ElementKind::Number) {
                bail!("`subject` is a column with an identifier");
            }
        }
        for id in declared.key.iter().chain(declared.agrees.iter().map(|a| &a.column)) {
            named(id, "key")?;
        }
        if let Some(day) = &declared.day
            && named(day, "day")?.cell.kind() != ElementKind::Date
        {
            bail!("`day` is a column with a date");
        }
        if declared.day.is_none() && (declared.retention_days.is_some() || declared.timely_days.is_some()) {
            bail!("`retention_days` and `timely_days` need `day`");
        }
        if declared.mode == Mode::Changes && declared.key.is_empty() {
            bail!("`mode: changes` needs `key`: what makes a row one row");
        }
        if declared.gone.is_some() && declared.mode != Mode::Changes {
            bail!("`gone` belongs to `mode: changes`");
        }
        for rule in &declared.aggregates {
            for id in rule.by.iter().chain(rule.only.keys()) {
                let column = named(id, "aggregates")?;
                if declared.subject.as_ref() == Some(id) || column.declared.sensitivity >= 4 {
                    bail!(
                        "`aggregates` of {}: nobody groups by `{id}`, which is about single people",
                        rule.role
                    );
                }
            }
            for id in &rule.of {
                let kind = named(id, "aggregates")?.cell.kind();
                if !matches!(kind, ElementKind::Integer | ElementKind::Number) {
                    bail!("`aggregates` of {}: `{id}` is no number", rule.role);
                }
            }
            if declared.subject.is_some() && rule.at_least < 3 {
                bail!("`aggregates` of {}: `at_least` is 3 or more where rows are about people", rule.role);
            }
        }
        let mut fields = Vec::new();
        if declared.subject.is_some() {
            fields.push(Field::new(SUBJECT, DataType::Binary, false));
        }
        for column in columns.iter().filter(|c| declared.subject.as_ref() != Some(&c.id)) {
            fields.push(Field::new(column.id.as_str(), kept(column.cell.kind()), true));
        }
        if fields.is_empty() {
            bail!("no columns are declared");
        }
        Ok(Self { declared, columns, schema: Arc::new(Schema::new(fields)) })
    }

    /// Its name.
    pub fn id(&self) -> &str {
        self.declared.id.as_str()
    }

    /// Where the subject's column is among the columns.
    pub fn subject_at(&self) -> Option<usize> {
        let subject = self.declared.subject.as_ref()?;
        self.columns.iter().position(|c| c.id == *subject)
    }

    /// The column of a name.
    pub fn column(&self, id: &str) -> Option<&Ready> {
        self.columns.iter().find(|c| c.id.as_str() == id)
    }
}
