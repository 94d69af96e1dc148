//! Rows as written become rows of a table; what does not fit is refused, row by row, with the reason.

use crate::{
    dataset::{Dataset, Ready, SUBJECT},
    input::{Chunk, Input},
    table::SubjectKey,
};
use anyhow::{Result, bail};
use arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, RecordBatch,
        StringBuilder,
    },
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use chrono::NaiveDate;
use gateway::ElementKind;
use model::Suite;
use serde::Serialize;
use std::{borrow::Cow, sync::Arc};

/// The column that says that a row is gone, in files that are merged and never part of a table.
pub const GONE: &str = "gone_now";

/// A row that was refused.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// Its number in the file, from 1, the header not counted.
    pub number: u64,
    /// The column that does not fit.
    pub column: String,
    /// Why; never the value.
    pub reason: String,
    /// The row as it came, fields parted as in the file. This is personal data.
    pub row: String,
}

/// The stored form of a subject: the first half of a keyed hash of its identifier.
pub fn subject_key(suite: Suite, key: &[u8; 32], identifier: &str) -> SubjectKey {
    let hash = crypto::keyed_hash(suite, key, "tongban/lake/subject/1", identifier.as_bytes());
    hash.0[..16].try_into().expect("half of 32")
}

/// The days since 1970 of a day as the standard writes it.
pub fn days(text: &str) -> Option<i32> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some((date - NaiveDate::default()).num_days() as i32)
}

enum Value<'a> {
    None,
    Text(Cow<'a, str>),
    Integer(i64),
    Number(f64),
    Day(i32),
}

fn value<'a>(column: &Ready, text: &'a str) -> Result<Value<'a>, String> {
    let kind = column.cell.kind();
    let fits = |value: &str| -> Result<Value<'a>, String> {
        match kind {
            ElementKind::Integer => {
                value.parse().map(Value::Integer).map_err(|_| "the value is not a valid whole number".into())
            }
            ElementKind::Number => {
                let number = value.parse::<f64>().ok().filter(|n| n.is_finite());
                number.map(Value::Number).ok_or_else(|| "the value is not a valid number".into())
            }
            ElementKind::Date => {
                days(value).map(Value::Day).ok_or_else(|| "the value is not a valid date".into())
            }
            _ => Ok(Value::Text(Cow::Owned(value.to_owned()))),
        }
    };
    if text.is_empty() {
        return Ok(Value::None);
    }
    let typed = matches!(kind, ElementKind::Integer | ElementKind::Number | ElementKind::Date);
    if typed && column.cell.is_plain() {
        return fits(text);
    }
    match column.cell.read(text)? {
        None => Ok(Value::None),
        Some(read) if typed => fits(&read),
        Some(read) => Ok(Value::Text(read)),
    }
}

enum Builder {
    Text(StringBuilder),
    Integer(Int64Builder),
    Number(Float64Builder),
    Day(Date32Builder),
}

impl Builder {
    fn new(column: &Ready, rows: usize) -> Self {
        match column.cell.kind() {
            ElementKind::Integer => Self::Integer(Int64Builder::with_capacity(rows)),
            ElementKind::Number => Self::Number(Float64Builder::with_capacity(rows)),
            ElementKind::Date => Self::Day(Date32Builder::with_capacity(rows)),
            _ => Self::Text(StringBuilder::with_capacity(rows, rows * 16)),
        }
    }

    fn push(&mut self, value: Value<'_>) {
        match (self, value) {
            (Self::Text(b), Value::Text(text)) => b.append_value(text),
            (Self::Integer(b), Value::Integer(n)) => b.append_value(n),
            (Self::Number(b), Value::Number(n)) => b.append_value(n),
            (Self::Day(b), Value::Day(d)) => b.append_value(d),
            (Self::Text(b), _) => b.append_null(),
            (Self::Integer(b), _) => b.append_null(),
            (Self::Number(b), _) => b.append_null(),
            (Self::Day(b), _) => b.append_null(),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut b) => Arc::new(b.finish()),
            Self::Integer(mut b) => Arc::new(b.finish()),
            Self::Number(mut b) => Arc::new(b.finish()),
            Self::Day(mut b) => Arc::new(b.finish()),
        }
    }
}

/// Converts chunks of one file.
pub struct Converter {
    dataset: Arc<Dataset>,
    /// Where each declared column is in the file.
    places: Vec<usize>,
    /// How many fields a row has.
    width: usize,
    gone: Option<usize>,
    subject: Option<usize>,
    suite: Suite,
    key: [u8; 32],
    schema: SchemaRef,
}

impl Converter {
    /// The converter of a file into a data set's rows; fails where the file lacks a declared column.
    pub fn new(dataset: &Arc<Dataset>, input: &Input, suite: Suite, key: [u8; 32]) -> Result<Self> {
        let find = |header: &str| input.headers().iter().position(|h| h == header);
        let mut places = Vec::new();
        let mut missing = Vec::new();
        for column in &dataset.columns {
            match find(&column.header) {
                Some(place) => places.push(place),
                None => missing.push(column.header.clone()),
            }
        }
        let gone = dataset.declared.gone.as_ref().map(|gone| (find(&gone.column), gone.column.clone()));
        if let Some((None, name)) = &gone {
            missing.push(name.clone());
        }
        if !missing.is_empty() {
            bail!("the file has no column {}; it has: {}", missing.join(", "), input.headers().join(", "));
        }
        let mut fields = dataset.schema.fields().to_vec();
        if gone.is_some() {
            fields.push(Arc::new(Field::new(GONE, DataType::Boolean, false)));
        }
        Ok(Self {
            dataset: dataset.clone(),
            places,
            width: input.headers().len(),
            gone: gone.and_then(|(place, _)| place),
            subject: dataset.subject_at(),
            suite,
            key,
            schema: Arc::new(Schema::new(fields)),
        })
    }

    /// Converts rows; those that do not fit come back with the reason.
    pub fn convert(&self, chunk: &Chunk) -> Result<(RecordBatch, Vec<Refused>)> {
        let columns = &self.dataset.columns;
        let rows = chunk.rows.len();
        let mut builders: Vec<Builder> = columns.iter().map(|c| Builder::new(c, rows)).collect();
        let mut keys = BinaryBuilder::with_capacity(rows, rows * 16);
        let mut gone = BooleanBuilder::with_capacity(rows);
        let mut refused = Vec::new();
        let mut values = Vec::with_capacity(columns.len());
        for at in 0..rows {
            let row = chunk.rows.row(at);
            values.clear();
            let mut refuse = |column: &str, reason: String| {
                let (number, row) = (chunk.first + at as u64 + 1, row.shown());
                refused.push(Refused { number, column: column.to_owned(), reason, row });
            };
            if row.width() != self.width {
                refuse("*", format!("the row has {} fields, its header {}", row.width(), self.width));
                continue;
            }
            let mut fits = true;
            for (column, place) in columns.iter().zip(&self.places) {
                let Ok(text) = std::str::from_utf8(row.field(*place)) else {
                    refuse(column.id.as_str(), "the text is not in the declared encoding".into());
                    fits = false;
                    break;
                };
                let must =
                    column.declared.required || self.subject.is_some_and(|s| columns[s].id == column.id);
                match value(column, text) {
                    Ok(Value::None) if must => {
                        refuse(column.id.as_str(), "the value is missing".into());
                        fits = false;
                    }
                    Ok(value) => values.push(value),
                    Err(reason) => {
                        refuse(column.id.as_str(), reason);
                        fits = false;
                    }
                }
                if !fits {
                    break;
                }
            }
            if !fits {
                continue;
            }
            for (at, (builder, value)) in builders.iter_mut().zip(values.drain(..)).enumerate() {
                match (&value, self.subject == Some(at)) {
                    (Value::Text(identifier), true) => {
                        keys.append_value(subject_key(self.suite, &self.key, identifier));
                    }
                    _ => builder.push(value),
                }
            }
            if let (Some(place), Some(declared)) = (self.gone, &self.dataset.declared.gone) {
                let word = String::from_utf8_lossy(row.field(place));
                gone.append_value(declared.values.contains(word.trim()));
            }
        }
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        if self.schema.field(0).name() == SUBJECT {
            arrays.push(Arc::new(keys.finish()));
        }
        for (at, builder) in builders.into_iter().enumerate() {
            if self.subject != Some(at) {
                arrays.push(builder.finish());
            }
        }
        if self.gone.is_some() {
            arrays.push(Arc::new(gone.finish()));
        }
        Ok((RecordBatch::try_new(self.schema.clone(), arrays)?, refused))
    }
}
