//! The declared files as written.

use model::{DepartmentId, Description, FieldId, OperationId, Resource, ResourceId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// The shared standard: data elements by ID.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Standard {
    /// The format: 1.
    pub format: u32,
    /// The elements.
    pub elements: BTreeMap<FieldId, Element>,
}

/// A data element (数据元).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Element {
    /// What its values are.
    #[serde(rename = "type")]
    pub kind: ElementKind,
    /// What people call it.
    pub title: model::Text,
}

/// What the values of an element are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// A number with decimals: what is measured.
    Number,
}

/// Everything a department declares.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connector {
    /// The format: 1.
    pub format: u32,
    /// The department.
    pub department: DepartmentId,
    /// Its catalogue entries.
    #[serde(default)]
    pub resources: Vec<Resource>,
    /// What the catalogue says of them beside: core metadata (GB/T 21063.3).
    #[serde(default)]
    pub descriptions: BTreeMap<ResourceId, Description>,
    /// How many subjects on lists of one asker's the node agrees to by itself within 24 hours, by resource; without it, or for more, an
    /// officer decides.
    #[serde(default)]
    pub lists: BTreeMap<ResourceId, u32>,
    /// Where the source is files that are dropped into a folder: its tables.
    #[serde(default)]
    pub files: BTreeMap<String, FileTable>,
    /// Where the source is an HTTP service: how it is spoken to.
    #[serde(default)]
    pub service: Option<Service>,
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
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entity {
    /// The table or view.
    pub table: String,
    /// Its columns by the name used in queries.
    pub columns: BTreeMap<FieldId, Column>,
}

/// A column and how its values become those of an element.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The column's name in the database.
    pub column: String,
    /// The data element it carries.
    pub element: FieldId,
    /// The steps from the stored value to the element's, in order.
    #[serde(default)]
    pub transform: Vec<Transform>,
    /// Stored values that mean that there is none, beside NULL.
    #[serde(default)]
    pub none: Vec<String>,
    /// What parts several values in one cell; the value is then a JSON list.
    #[serde(default)]
    pub parted: Option<String>,
    /// The type the database must say it has, such as `character(28)`; another one is drift.
    #[serde(default, rename = "type")]
    pub stored_type: Option<String>,
    /// How a value is looked for in it.
    #[serde(default)]
    pub lookup: LookupBy,
}

/// How a value is looked for in a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LookupBy {
    /// As it is stored: the database finds it, by its index where it has one.
    #[default]
    Stored,
    /// The table is read and every value compared as the standard writes it: for what is stored in many forms, in tables of up to
    /// [`crate::SCAN_MAX`] rows.
    Scan,
}

/// A step from a stored value to an element's value. Where each can be undone, a value is looked for as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    /// White space around the value is dropped.
    Trim,
    /// All white space is dropped, the full-width one too. Cannot be undone.
    NoSpace,
    /// Letters become capitals. Cannot be undone.
    Upper,
    /// Full-width letters, digits and punctuation become half-width.
    HalfWidth,
    /// Each of these texts becomes the other. Cannot be undone.
    Replace(BTreeMap<String, String>),
    /// The bytes are GBK; must come first.
    Gbk,
    /// A day in this pattern becomes `yyyy-mm-dd`: `yyyymmdd`, `yyyy/mm/dd`, `yyyy年mm月dd日`; a single `m` or `d` is
    /// one digit or two. A time of day may follow it.
    Date(String),
    /// A stored code becomes a word of the standard's code list.
    Codes(BTreeMap<String, String>),
    /// Yuan with up to two decimals become fen.
    YuanToFen,
    /// A unit code written in groups becomes 28 characters: the separator, where the groups are those of GB/T 37346, or both.
    UnitGroups(Groups),
    /// A resident number may be an old one of 15 digits: it becomes the one of 18 that GB 11643 makes of it. Where the register says
    /// that a person was given another one, look that up instead.
    OldId,
    /// An address in any of its usual forms becomes one form, for comparing. Cannot be undone.
    Address(AddressForm),
}

impl Transform {
    /// Whether a standard value can be turned back into what is stored.
    pub(crate) fn undoes(&self) -> bool {
        !matches!(self, Self::NoSpace | Self::Upper | Self::Replace(_) | Self::Address(_))
    }
}

/// How a unit code is written in groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Groups {
    /// 6, 3, 3, 2, 5, 1 and 8 characters parted by this.
    Standard(String),
    /// Other groups.
    Of {
        /// What parts them.
        by: String,
        /// Their lengths, 28 together.
        lengths: Vec<usize>,
    },
}

/// What is to be known about addresses to compare them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressForm {
    /// Names of cities and districts that may stand in front, and are dropped, in this order.
    #[serde(default)]
    pub drop: Vec<String>,
    /// How many numbers a whole address has: yard, building, entrance, room. One with fewer or more is none.
    pub numbers: usize,
}

/// A table in files that are dropped into the source's folder.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileTable {
    /// The file's name; one `*` stands for what changes from drop to drop, and the newest file counts. By its ending: `.csv`,
    /// `.csv.gz`, `.xlsx`, `.xls`, `.ods`.
    pub file: String,
    /// The encoding of a CSV file.
    #[serde(default)]
    pub encoding: Encoding,
    /// The sheet of a workbook; without it the first.
    #[serde(default)]
    pub sheet: Option<String>,
    /// What parts the fields of a CSV file.
    #[serde(default = "comma")]
    pub separator: char,
    /// Whether a file with a header and no rows is taken in: without it, that is an export that failed.
    #[serde(default)]
    pub may_be_empty: bool,
}

fn comma() -> char {
    ','
}

/// The encoding of a text file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    #[default]
    Utf8,
    /// GBK (its superset GB 18030 too).
    Gbk,
}

/// An HTTP service with JSON answers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The environment variable with the bearer token.
    #[serde(default)]
    pub token_env: Option<String>,
    /// The file with the bearer token, below the folder of the node's configuration.
    #[serde(default)]
    pub token_file: Option<std::path::PathBuf>,
    /// How long one request may take, in milliseconds.
    #[serde(default = "two_seconds")]
    pub timeout_ms: u64,
    /// What stands for tables to read.
    #[serde(default)]
    pub reads: BTreeMap<String, ServiceRead>,
    /// What stands for tables to insert into: paths that a JSON object of the values is posted to, with an `Idempotency-Key`.
    #[serde(default)]
    pub writes: BTreeMap<String, String>,
}

fn two_seconds() -> u64 {
    2_000
}

/// A read of a service.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceRead {
    /// The path and query, with `{column}` where a value looked for goes. 404 means that there is nothing.
    #[serde(default)]
    pub get: Option<String>,
    /// In place of `get`: a path that a JSON object of the values looked for is posted to, so that they stand in no address.
    #[serde(default)]
    pub post: Option<String>,
    /// Where the row or list of rows is in the answer, as a JSON pointer; empty: the answer itself.
    #[serde(default)]
    pub at: String,
}

/// How fields of a resource are answered.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The resource.
    pub resource: ResourceId,
    /// The entity asked.
    pub entity: FieldId,
    /// The column that holds the subject.
    pub subject: FieldId,
    /// What is looked up on the way from the subject to the entity, in order.
    #[serde(default)]
    pub through: Vec<Through>,
    /// Named parameters and the columns they are compared with.
    #[serde(default)]
    pub parameters: BTreeMap<FieldId, FieldId>,
    /// Parameters that only rules read.
    #[serde(default)]
    pub given: BTreeMap<FieldId, Given>,
    /// Which parameters may be left out: then they narrow nothing, and are null in rules.
    #[serde(default)]
    pub optional: Vec<FieldId>,
    /// Columns with a fixed value (as in the standard).
    #[serde(default, rename = "where")]
    pub fixed: BTreeMap<FieldId, String>,
    /// A rule (CEL) on the columns of a row, and on `given`: only rows for which it is true count.
    #[serde(default)]
    pub keep: Option<String>,
    /// Further places where rows of the same kind are.
    #[serde(default)]
    pub also: Vec<Also>,
    /// Where the subject must be known; otherwise there is no answer.
    #[serde(default)]
    pub known: Option<Known>,
    /// Only rows whose address is near to one that is given count: of one row the nearest, of many each, the nearest first.
    #[serde(default)]
    pub nearest: Option<Nearest>,
    /// One row, or all there are: then a field's value is a JSON list, in the rows' order.
    #[serde(default)]
    pub rows: Rows,
    /// The column by which many rows are ordered.
    #[serde(default)]
    pub order: Option<FieldId>,
    /// The resource's fields and what answers them.
    pub fields: BTreeMap<FieldId, Take>,
}

/// Which rows have an address that may be the one that is given. Two rows equally near make the answer ambiguous.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nearest {
    /// The column that holds the address.
    pub column: FieldId,
    /// The parameter, of `given`, it is compared with.
    pub to: FieldId,
    /// Names of cities and districts that may stand in front, and are dropped, in this order.
    #[serde(default)]
    pub drop: Vec<String>,
    /// The least score of a row that counts, from 41 to 100: 100 says the same; from 90 on all of it agrees; 40 and less is another
    /// place.
    #[serde(default = "sixty")]
    pub least: u32,
}

fn sixty() -> u32 {
    60
}

/// What a parameter that rules read is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Given {
    /// A value of a data element.
    Element(FieldId),
    /// A value like those of a column, brought into the same form.
    Like {
        /// The column.
        like: FieldId,
    },
}

/// How many rows an answer is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// One: a second makes the answer ambiguous.
    #[default]
    One,
    /// All.
    Many,
}

/// What answers a field.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Take {
    /// A column.
    Column(FieldId),
    /// A column that must say the same in every row; otherwise the answer is ambiguous.
    Same {
        /// The column.
        same: FieldId,
    },
    /// The sum of a column of whole numbers over all rows, less that of another.
    Sum {
        /// The column.
        sum: FieldId,
        /// The other.
        #[serde(default)]
        less: Option<FieldId>,
    },
    /// How near the row's address is, where the query asks for the nearest: from 0 to 100.
    Score {
        /// The column that holds the address.
        score: FieldId,
    },
}

impl Take {
    /// The columns it reads.
    pub(crate) fn columns(&self) -> Vec<FieldId> {
        match self {
            Self::Column(column)
            | Self::Same { same: column }
            | Self::Sum { sum: column, less: None }
            | Self::Score { score: column } => vec![column.clone()],
            Self::Sum { sum, less: Some(less) } => vec![sum.clone(), less.clone()],
        }
    }
}

/// Something looked up on the way: from then on its value is what is looked for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Through {
    /// The entity.
    pub entity: FieldId,
    /// The column that holds what is looked for.
    pub subject: FieldId,
    /// Columns with a fixed value.
    #[serde(default, rename = "where")]
    pub fixed: BTreeMap<FieldId, String>,
    /// A rule on its rows.
    #[serde(default)]
    pub keep: Option<String>,
    /// The column whose value is looked for next. Two different ones make the answer ambiguous.
    pub take: FieldId,
    /// Where nothing is found, what was looked for stays; without this there is no row then.
    #[serde(default)]
    pub optional: bool,
}

/// A further place with rows of the same kind.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Also {
    /// The entity.
    pub entity: FieldId,
    /// The column that holds the subject.
    pub subject: FieldId,
    /// What is looked up on the way.
    #[serde(default)]
    pub through: Vec<Through>,
    /// Columns with a fixed value.
    #[serde(default, rename = "where")]
    pub fixed: BTreeMap<FieldId, String>,
    /// A rule on its rows.
    #[serde(default)]
    pub keep: Option<String>,
    /// For columns of the first entity that are read: its own of the same meaning.
    #[serde(default)]
    pub columns: BTreeMap<FieldId, FieldId>,
}

/// How a predicate of a resource is answered.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
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
    /// What is looked up on the way from the subject to the entity, in order.
    #[serde(default)]
    pub through: Vec<Through>,
    /// Named parameters and the columns they narrow the rows with.
    #[serde(default)]
    pub parameters: BTreeMap<FieldId, FieldId>,
    /// Parameters that only rules read.
    #[serde(default)]
    pub given: BTreeMap<FieldId, Given>,
    /// Which parameters may be left out: then they narrow nothing, and are null in rules.
    #[serde(default)]
    pub optional: Vec<FieldId>,
    /// Columns with a fixed value (as in the standard).
    #[serde(default, rename = "where")]
    pub fixed: BTreeMap<FieldId, String>,
    /// A rule (CEL) on the columns of a row, and on `given`: only rows for which it is true count.
    #[serde(default)]
    pub keep: Option<String>,
    /// Further places where rows of the same kind are.
    #[serde(default)]
    pub also: Vec<Also>,
    /// The test.
    pub test: Test,
    /// An entity and column that must know the subject, or the answer is unknown.
    #[serde(default)]
    pub known: Option<Known>,
}

/// Where a subject must be known.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The entity.
    pub entity: FieldId,
    /// The column that holds the subject.
    pub subject: FieldId,
}

/// What a predicate tests.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// Yes where a row is found, no where none is.
    Exists,
    /// Yes where no row is found, no where one is.
    Absent,
    /// Yes where this rule (CEL) is true for every row, no where it is not for one, unknown without a row.
    All(String),
    /// What a rule (CEL) says of the one row; unknown without a row, or where the second rule is true.
    Holds {
        /// The rule.
        is: String,
        /// When nobody can tell.
        #[serde(default)]
        unknown: Option<String>,
    },
    /// Yes where all these columns equal their parameters, no where one does not, unknown without a row.
    Equals(BTreeMap<FieldId, FieldId>),
    /// Yes where the column has one of these values, no where it has another, unknown without a row.
    In(BTreeMap<FieldId, Vec<String>>),
    /// Yes where the number in this column is between 0 and the given one, inclusive; unknown without a row.
    AtMost(BTreeMap<FieldId, i64>),
}

/// A declared write: one transaction, run once for each case and step.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
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
    /// The action that undoes it, where a case ends before anything final was done.
    #[serde(default)]
    pub compensation: Option<OperationId>,
}

/// One statement of an action. Values are parameters (`$name`), a generated number (`#serial`) or constants,
/// as in the standard; they are stored in the department's own form.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// The JSON Schema of a standard file (draft 2020-12), for editors.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// Reads a standard file.
    pub fn read(path: &Path) -> Result<Self, DeclareError> {
        read(path)
    }

    /// A value as an element's kind wants it; why it is none otherwise, without the value. What the standard does not name is text.
    pub fn value(&self, element: &FieldId, value: &str) -> Result<String, String> {
        let kind = self.elements.get(element).map_or(ElementKind::Text, |e| e.kind);
        crate::transform::check(value, kind)
    }

    /// Reads a standard's text; `file` names it in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, DeclareError> {
        parse(file, text)
    }
}

impl Connector {
    /// The JSON Schema of a connector file (draft 2020-12), for editors.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// Reads a connector's text; `file` names it in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, DeclareError> {
        parse(file, text)
    }

    /// Reads a department's connector file.
    pub fn read(path: &Path) -> Result<Self, DeclareError> {
        read(path)
    }
}
