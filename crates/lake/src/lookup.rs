//! Look-ups of one subject: to one file of each run, and in it to one page of each column.

use crate::{
    config::Config,
    convert::subject_key,
    dataset::{Dataset, SUBJECT},
    reader::Files,
    table::{DataFile, Table},
};
use anyhow::{Context as _, Result, bail};
use arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    datatypes::{DataType, Date32Type, Float64Type, Int64Type},
};
use serde_json::{Map, Value};
use std::sync::{Arc, RwLock};
use tokio::sync::Mutex;

/// The most rows of one look-up.
pub const ROWS_MAX: usize = 1000;

/// A table that is looked up in, at the newest version it was told of.
pub struct Lookup {
    dataset: Arc<Dataset>,
    table: Mutex<Table>,
    /// Files by their ranges' beginning, run by run.
    runs: RwLock<Vec<Vec<DataFile>>>,
    files: Files,
    suite: model::Suite,
    key: [u8; 32],
}

impl Lookup {
    /// Opens a data set.
    pub async fn open(config: &Config, dataset: &Arc<Dataset>, key: [u8; 32]) -> Result<Self> {
        if dataset.declared.subject.is_none() {
            bail!("{} is about nobody: ask it with `tongban-lake query`", dataset.id());
        }
        let table = Table::open(config, dataset).await?;
        let table = table.with_context(|| format!("nothing was taken into {} yet", dataset.id()))?;
        let files = Files::new(table.store());
        let lookup = Self {
            dataset: dataset.clone(),
            runs: RwLock::new(by_run(table.files()?)),
            table: Mutex::new(table),
            files,
            suite: config.suite,
            key,
        };
        Ok(lookup)
    }

    /// Takes in what was committed meanwhile; whether there was anything.
    pub async fn refresh(&self) -> Result<bool> {
        let mut table = self.table.lock().await;
        let before = table.version();
        table.refresh().await?;
        if table.version() != before {
            let files = table.files()?;
            self.files.keep(&files);
            *self.runs.write().expect("never poisoned") = by_run(files);
            return Ok(true);
        }
        Ok(false)
    }

    /// An identifier in the standard's form, which is what is hashed.
    pub fn standard_form(&self, identifier: &str) -> Result<String> {
        let at = self.dataset.subject_at().context("the data set has no subject")?;
        let read = self.dataset.columns[at].cell.read(identifier).map_err(anyhow::Error::msg)?;
        Ok(read.context("the identifier is empty")?.into_owned())
    }

    /// All rows of a subject; once more with the newest files where some were laid out anew meanwhile.
    pub async fn rows(&self, identifier: &str) -> Result<Vec<RecordBatch>> {
        match self.rows_now(identifier).await {
            Ok(rows) => Ok(rows),
            Err(first) => {
                if !self.refresh().await? {
                    return Err(first);
                }
                self.rows_now(identifier).await
            }
        }
    }

    /// All rows of a subject, by the identifier in the standard's form or as it is written in files.
    async fn rows_now(&self, identifier: &str) -> Result<Vec<RecordBatch>> {
        let key = subject_key(self.suite, &self.key, &self.standard_form(identifier)?);
        let candidates: Vec<DataFile> = {
            let runs = self.runs.read().expect("never poisoned");
            let of_run = runs.iter().flat_map(|run| {
                let end = run.partition_point(|f| f.range.0 <= crate::table::prefix(&key));
                // a range ends where the next begins; keys with the same first bytes stay in one file
                run[..end].iter().rev().take_while(|f| f.may_hold(&key)).cloned()
            });
            of_run.collect()
        };
        let mut found = Vec::new();
        for file in candidates {
            found.extend(self.files.rows(&file, Some((&key, &key))).await?);
        }
        Ok(found)
    }

    /// All rows of a subject as JSON objects of texts, with the subject as it was asked.
    pub async fn records(&self, identifier: &str) -> Result<Vec<Map<String, Value>>> {
        let subject = self.dataset.declared.subject.as_ref().context("the data set has no subject")?;
        let mut records = Vec::new();
        for batch in self.rows(identifier).await? {
            for row in 0..batch.num_rows() {
                let mut record = record(&batch, row);
                record.remove(SUBJECT);
                record.insert(subject.to_string(), identifier.into());
                records.push(record);
            }
        }
        if records.len() > ROWS_MAX {
            bail!("there are more than {ROWS_MAX} rows of this subject");
        }
        Ok(records)
    }
}

fn by_run(files: Vec<DataFile>) -> Vec<Vec<DataFile>> {
    let mut runs: Vec<Vec<DataFile>> = Vec::new();
    for file in files {
        match runs.last_mut() {
            Some(run) if run[0].run == file.run => run.push(file),
            _ => runs.push(vec![file]),
        }
    }
    runs
}

/// A row as an object of texts, numbers as the standard writes them; what is missing is null.
pub fn record(batch: &RecordBatch, row: usize) -> Map<String, Value> {
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(batch.columns());
    let values = fields.map(|(field, column)| {
        let value = match () {
            () if column.is_null(row) => Value::Null,
            () => text(column, row).into(),
        };
        (field.name().clone(), value)
    });
    values.collect()
}

/// A cell as the standard writes it.
pub fn text(column: &arrow::array::ArrayRef, row: usize) -> String {
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Date32 => {
            let day = column.as_primitive::<Date32Type>().value_as_date(row);
            day.map(|d| d.format("%Y-%m-%d").to_string()).unwrap_or_default()
        }
        DataType::Binary => hex::encode(column.as_binary::<i32>().value(row)),
        _ => arrow::util::display::array_value_to_string(column, row).unwrap_or_default(),
    }
}
