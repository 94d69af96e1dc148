//! The declared files as written.

use model::{DepartmentId, FieldId, OperationId, Resource, ResourceId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// The shared standard: data elements by ID.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standard {
    /// The format: 1.
    pub format: u32,
    /// The elements.
    pub elements: BTreeMap<FieldId, Element>,
}

/// A data element (数据元).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Element {
    /// What its values are.
    #[serde(rename = "type")]
    pub kind: ElementKind,
    /// What people call it.
    pub title: model::Text,
}

/// What the values of an element are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ElementKind {
    /// Any text.
    Text,
    /// A resident identity number (GB 11643).
    ResidentId,
    /// A unified social credit code (GB 32100).
    CreditCode,
    /// A real-estate unit code (GB/T 37346), 28 characters without separators.
    UnitCode,
    /// A day, `yyyy-mm-dd`.
    Date,
    /// A whole number; amounts of money are in fen.
    Integer,
    /// A word of a code list.
    Code,
}

/// Everything a department declares.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connector {
    /// The format: 1.
    pub format: u32,
    /// The department.
    pub department: DepartmentId,
    /// Its catalogue entries.
    #[serde(default)]
    pub resources: Vec<Resource>,
    /// Its mapping: tables or views, column by column.
    #[serde(default)]
    pub entities: BTreeMap<FieldId, Entity>,
    /// How its resources are answered.
    #[serde(default)]
    pub queries: Vec<Query>,
    /// Its predicates.
    #[serde(default)]
    pub predicates: Vec<PredicateQuery>,
    /// Its declared writes.
    #[serde(default)]
    pub actions: Vec<Action>,
}

/// A table or view and what its columns mean.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entity {
    /// The table or view.
    pub table: String,
    /// Its columns by the name used in queries.
    pub columns: BTreeMap<FieldId, Column>,
}

/// A column and how its values become those of an element.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The column's name in the database.
    pub column: String,
    /// The data element it carries.
    pub element: FieldId,
    /// The steps from the stored value to the element's, in order.
    #[serde(default)]
    pub transform: Vec<Transform>,
}

/// A step from a stored value to an element's value. Each can be undone, so that a value can be looked for as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    /// White space around the value is dropped.
    Trim,
    /// Full-width letters, digits and punctuation become half-width.
    HalfWidth,
    /// The bytes are GBK; must come first.
    Gbk,
    /// A day in this pattern becomes `yyyy-mm-dd`: `yyyymmdd`, `yyyy/mm/dd`, `yyyy年mm月dd日`.
    Date(String),
    /// A stored code becomes a word of the standard's code list.
    Codes(BTreeMap<String, String>),
    /// Yuan with up to two decimals become fen.
    YuanToFen,
    /// A unit code written in groups parted by this separator becomes 28 characters.
    UnitGroups(String),
}

/// How fields of a resource are answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The resource.
    pub resource: ResourceId,
    /// The entity asked.
    pub entity: FieldId,
    /// The column that holds the subject.
    pub subject: FieldId,
    /// Named parameters and the columns they are compared with.
    #[serde(default)]
    pub parameters: BTreeMap<FieldId, FieldId>,
    /// Columns with a fixed value (as in the standard).
    #[serde(default, rename = "where")]
    pub fixed: BTreeMap<FieldId, String>,
    /// The resource's fields and the columns that answer them.
    pub fields: BTreeMap<FieldId, FieldId>,
}

/// How a predicate of a resource is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredicateQuery {
    /// The resource.
    pub resource: ResourceId,
    /// The predicate.
    pub id: FieldId,
    /// The entity asked.
    pub entity: FieldId,
    /// The column that holds the subject.
    pub subject: FieldId,
    /// Named parameters and the columns they narrow the rows with.
    #[serde(default)]
    pub parameters: BTreeMap<FieldId, FieldId>,
    /// Columns with a fixed value (as in the standard).
    #[serde(default, rename = "where")]
    pub fixed: BTreeMap<FieldId, String>,
    /// The test.
    pub test: Test,
    /// For `exists`: an entity and column that must know the subject, or the answer is unknown.
    #[serde(default)]
    pub known: Option<Known>,
}

/// Where a subject must be known.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The entity.
    pub entity: FieldId,
    /// The column that holds the subject.
    pub subject: FieldId,
}

/// What a predicate tests.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// Yes where a row is found, no where none is.
    Exists,
    /// Yes where all these columns equal their parameters, no where one does not, unknown without a row.
    Equals(BTreeMap<FieldId, FieldId>),
    /// Yes where the column has one of these values, no where it has another, unknown without a row.
    In(BTreeMap<FieldId, Vec<String>>),
    /// Yes where the number in this column is between 0 and the given one, inclusive; unknown without a row.
    AtMost(BTreeMap<FieldId, i64>),
}

/// A declared write: one transaction, run once for each case and step.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// The operation's name.
    pub id: OperationId,
    /// The parameters it takes.
    pub parameters: Vec<FieldId>,
    /// Its statements, in order.
    pub statements: Vec<Statement>,
    /// The parameters its result repeats, for the one who requested it.
    #[serde(default)]
    pub result: Vec<FieldId>,
}

/// One statement of an action. Values are parameters (`$name`), generated values (`#serial`, `#today`) or constants,
/// as in the standard; they are stored in the department's own form.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The entity written to.
    pub entity: FieldId,
    /// Update rows or insert one.
    pub kind: StatementKind,
    /// Columns and their new values.
    pub set: BTreeMap<FieldId, String>,
    /// Columns and the values that pick the rows (updates).
    #[serde(default, rename = "where")]
    pub pick: BTreeMap<FieldId, String>,
    /// How many rows must be affected; otherwise everything is undone.
    pub expect: u64,
}

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatementKind {
    /// Change rows.
    Update,
    /// Add a row.
    Insert,
}

/// Why a declared file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    /// It cannot be read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{file}: {message}")]
    Format {
        /// The file.
        file: String,
        /// What is wrong, with its line.
        message: String,
    },
}

/// Reads one YAML file of a known type.
pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, DeclareError> {
    let file = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|source| DeclareError::Io { file: file.clone(), source })?;
    parse(&file, &text)
}

fn parse<T: serde::de::DeserializeOwned>(file: &str, text: &str) -> Result<T, DeclareError> {
    serde_saphyr::from_str(text)
        .map_err(|e| DeclareError::Format { file: file.to_owned(), message: e.to_string() })
}

impl Standard {
    /// Reads a standard file.
    pub fn read(path: &Path) -> Result<Self, DeclareError> {
        read(path)
    }

    /// Reads a standard's text; `file` names it in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, DeclareError> {
        parse(file, text)
    }
}

impl Connector {
    /// Reads a connector's text; `file` names it in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, DeclareError> {
        parse(file, text)
    }

    /// Reads a department's connector file.
    pub fn read(path: &Path) -> Result<Self, DeclareError> {
        read(path)
    }
}
