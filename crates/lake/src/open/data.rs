//! The rows of a publication: built from a plan, written in four formats, read again.

use super::plan::{Entry, From, OpenFile, Plan, PlanColumn, Role};
use crate::{
    convert::Converter,
    dataset::{Column, Dataset, Declaration},
    input::Input,
    lake::Lake,
    lookup::text,
    query,
};
use anyhow::{Context as _, Result, bail};
use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, RecordBatch},
    datatypes::{DataType, Float64Type, Int64Type},
};
use gateway::{Element, ElementKind, Standard};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, io::Write as _, path::Path, sync::Arc};

/// The most rows of a publication.
pub const ROWS_MAX: usize = 20_000_000;
/// The most rows of a sheet, the header not counted.
const SHEET_ROWS: usize = 1_048_575;

/// The name in the standard of an element that is nothing but a type.
fn element(kind: ElementKind) -> &'static str {
    match kind {
        ElementKind::Integer => "integer",
        ElementKind::Number => "number",
        ElementKind::Date => "date",
        ElementKind::Code => "code",
        ElementKind::CreditCode => "credit_code",
        ElementKind::UnitCode => "unit_code",
        ElementKind::ResidentId => "resident_id",
        ElementKind::Text => "text",
    }
}

/// A plan's columns as a data set about nobody.
fn as_dataset(plan: &Plan, form: &crate::dataset::FileForm) -> Result<Dataset> {
    let kinds = [
        ElementKind::Integer,
        ElementKind::Number,
        ElementKind::Date,
        ElementKind::Code,
        ElementKind::CreditCode,
        ElementKind::UnitCode,
        ElementKind::Text,
        ElementKind::ResidentId,
    ];
    let elements = kinds.map(|kind| {
        let title = model::Text { zh: element(kind).into(), en: element(kind).into() };
        (element(kind).parse().expect("a name"), Element { kind, title })
    });
    let standard = Standard { format: 1, elements: elements.into() };
    let columns = plan.columns.iter().map(|c| Column {
        id: c.id.clone(),
        column: c.column.clone(),
        element: element(c.kind).parse().expect("a name"),
        title: Some(c.title.clone()),
        transform: c.transform.clone(),
        none: c.none.clone(),
        required: false,
        sensitivity: 1,
        words: Default::default(),
    });
    let declared = Declaration {
        format: 1,
        id: plan.id.clone(),
        resource: plan.id.clone(),
        title: plan.title.clone(),
        about: None,
        department: plan.department.clone(),
        officer: plan.officer.clone(),
        mode: Default::default(),
        subject: None,
        key: vec![],
        day: None,
        retention_days: None,
        timely_days: None,
        file: form.clone(),
        gone: None,
        agrees: vec![],
        columns: columns.collect(),
        aggregates: vec![],
    };
    Dataset::new(declared, &standard)
}

/// The rows a plan publishes. A row that does not fit its columns stops it: what is published is whole.
pub async fn build(lake: &Lake, plan: &Plan, folder: &Path) -> Result<Vec<RecordBatch>> {
    let rows = match &plan.from {
        From::Query { role, sql } => {
            let found = query::results(lake, role, sql, ROWS_MAX).await?;
            let as_planned = as_dataset(plan, &Default::default())?;
            found.iter().map(|batch| cast(batch, &plan.columns, &as_planned)).collect::<Result<Vec<_>>>()?
        }
        From::File { path, form } => {
            let dataset = Arc::new(as_dataset(plan, form)?);
            let path = folder.join(path);
            let mut input = Input::open(&path, &dataset)?;
            let converter = Converter::new(&dataset, &input, lake.config.suite, [0; 32])?;
            let (mut rows, mut count) = (Vec::new(), 0);
            while let Some(chunk) = input.next_chunk()? {
                let (batch, refused) = converter.convert(&chunk)?;
                if let Some(refused) = refused.first() {
                    bail!(
                        "{}: row {}, column {}: {}",
                        path.display(),
                        refused.number,
                        refused.column,
                        refused.reason
                    );
                }
                count += batch.num_rows();
                if count > ROWS_MAX {
                    bail!("{}: more than {ROWS_MAX} rows", path.display());
                }
                rows.push(batch);
            }
            rows
        }
    };
    match plan.round_to {
        Some(to) => rows.iter().map(|batch| rounded(batch, plan, i64::from(to))).collect(),
        None => Ok(rows),
    }
}

fn cast(batch: &RecordBatch, columns: &[PlanColumn], dataset: &Dataset) -> Result<RecordBatch> {
    let arrays = columns.iter().zip(dataset.schema.fields()).map(|(column, field)| {
        let name = column.column.as_deref().unwrap_or(column.id.as_str());
        let found = batch.column_by_name(name).with_context(|| {
            let schema = batch.schema();
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            format!("the question's results have no `{name}`; they have: {}", names.join(", "))
        })?;
        arrow::compute::cast(found, field.data_type()).with_context(|| format!("`{name}` has another type"))
    });
    Ok(RecordBatch::try_new(dataset.schema.clone(), arrays.collect::<Result<Vec<_>>>()?)?)
}

fn rounded(batch: &RecordBatch, plan: &Plan, to: i64) -> Result<RecordBatch> {
    let arrays = plan.columns.iter().zip(batch.columns()).map(|(column, array)| -> ArrayRef {
        let near = |n: i64| (n + to / 2).div_euclid(to) * to;
        match (column.role == Role::People, array.data_type()) {
            (true, DataType::Int64) => {
                Arc::new(array.as_primitive::<Int64Type>().unary::<_, Int64Type>(near))
            }
            (true, DataType::Float64) => Arc::new(
                array.as_primitive::<Float64Type>().unary::<_, Float64Type>(|n| near(n as i64) as f64),
            ),
            _ => array.clone(),
        }
    });
    Ok(RecordBatch::try_new(batch.schema(), arrays.collect())?)
}

/// A cell for JSON: numbers as numbers.
pub fn json(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        _ => text(array, row).into(),
    }
}

/// A row for JSON.
pub fn record(batch: &RecordBatch, row: usize) -> Map<String, Value> {
    let schema = batch.schema();
    schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(f, array)| (f.name().clone(), json(array, row)))
        .collect()
}

/// Writes the rows as CSV, JSON, XLSX (where a sheet is large enough) and Parquet.
pub fn write(folder: &Path, plan: &Plan, rows: &[RecordBatch]) -> Result<Vec<OpenFile>> {
    let mut csv = csv::Writer::from_path(folder.join("data.csv"))?;
    csv.write_record(plan.columns.iter().map(|c| c.id.as_str()))?;
    let mut list = std::io::BufWriter::new(std::fs::File::create(folder.join("data.json"))?);
    let total: usize = rows.iter().map(RecordBatch::num_rows).sum();
    let mut book = (total <= SHEET_ROWS).then(rust_xlsxwriter::Workbook::new);
    let mut sheet = book.as_mut().map(|book| book.add_worksheet_with_constant_memory()).transpose()?;
    if let Some(sheet) = &mut sheet {
        for (at, column) in plan.columns.iter().enumerate() {
            sheet.write_string(0, at as u16, column.id.as_str())?;
        }
    }
    let mut written = 0;
    list.write_all(b"[")?;
    for batch in rows {
        for row in 0..batch.num_rows() {
            let cells =
                batch.columns().iter().map(|a| if a.is_null(row) { String::new() } else { text(a, row) });
            csv.write_record(cells)?;
            list.write_all(if written > 0 { b",\n" } else { b"\n" })?;
            serde_json::to_writer(&mut list, &record(batch, row))?;
            if let Some(sheet) = &mut sheet {
                for (at, array) in batch.columns().iter().enumerate() {
                    let (line, at) = (written as u32 + 1, at as u16);
                    match json(array, row) {
                        Value::Null => {}
                        Value::Number(n) => drop(sheet.write_number(line, at, n.as_f64().unwrap_or(0.0))?),
                        other => drop(sheet.write_string(line, at, other.as_str().unwrap_or_default())?),
                    }
                }
            }
            written += 1;
        }
    }
    list.write_all(b"\n]\n")?;
    list.flush()?;
    csv.flush()?;
    if let Some(book) = &mut book {
        book.save(folder.join("data.xlsx"))?;
    }
    if let Some(first) = rows.first() {
        let file = std::fs::File::create(folder.join("data.parquet"))?;
        let mut writer = ArrowWriter::try_new(file, first.schema(), None)?;
        for batch in rows {
            writer.write(batch)?;
        }
        writer.close()?;
    }
    let mut files = Vec::new();
    for (name, format) in
        [("data.csv", "CSV"), ("data.json", "JSON"), ("data.xlsx", "XLSX"), ("data.parquet", "Parquet")]
    {
        if let Ok(bytes) = std::fs::metadata(folder.join(name)) {
            let sha256 = sha256_of(&folder.join(name))?;
            files.push(OpenFile { name: name.into(), format: format.into(), bytes: bytes.len(), sha256 });
        }
    }
    Ok(files)
}

/// The SHA-256 of a file's bytes, in hexadecimal.
pub fn sha256_of(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = std::io::Read::read(&mut file, &mut buffer)?;
        if read == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}

/// Reads rows again, at most so many.
pub fn read(folder: &Path, most: usize) -> Result<Vec<RecordBatch>> {
    let path = folder.join("data.parquet");
    if !path.exists() {
        return Ok(vec![]);
    }
    let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(file)?.with_limit(most).with_batch_size(8192).build()?;
    Ok(reader.collect::<Result<Vec<_>, _>>()?)
}

/// The share of cells that have a value.
pub fn complete(rows: &[RecordBatch]) -> f64 {
    let (mut cells, mut none) = (0, 0);
    for batch in rows {
        cells += batch.num_rows() * batch.num_columns();
        none += batch.columns().iter().map(|a| a.null_count()).sum::<usize>();
    }
    if cells == 0 { 1.0 } else { 1.0 - none as f64 / cells as f64 }
}

/// What is asked of an entry's rows.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Columns and the values one of which they must have, as text.
    pub filters: BTreeMap<String, Vec<String>>,
    /// A text that some cell must contain.
    pub contains: Option<String>,
    /// Columns to order by, and whether the other way round.
    pub sort: Vec<(String, bool)>,
    /// Columns to give.
    pub fields: Vec<String>,
    /// Rows to pass over.
    pub offset: usize,
    /// Rows to give.
    pub limit: usize,
}

/// Picks rows: how many there are, and those wanted. Fails where a column is not there.
pub fn pick(
    entry: &Entry,
    rows: &[RecordBatch],
    wanted: &Wanted,
) -> Result<(usize, Vec<Map<String, Value>>)> {
    let named = |name: &str| match entry.plan.columns.iter().any(|c| c.id.as_str() == name) {
        true => Ok(()),
        false => bail!("there is no column `{name}`"),
    };
    wanted
        .filters
        .keys()
        .chain(&wanted.fields)
        .chain(wanted.sort.iter().map(|(name, _)| name))
        .try_for_each(|n| named(n))?;
    let mut found: Vec<(usize, usize)> = Vec::new();
    let needle = wanted.contains.as_ref().map(|t| t.to_lowercase());
    for (at, batch) in rows.iter().enumerate() {
        for row in 0..batch.num_rows() {
            let fits = wanted.filters.iter().all(|(name, values)| {
                batch.column_by_name(name).is_some_and(|a| !a.is_null(row) && values.contains(&text(a, row)))
            });
            let has = needle.as_ref().is_none_or(|needle| {
                batch
                    .columns()
                    .iter()
                    .any(|a| !a.is_null(row) && text(a, row).to_lowercase().contains(needle))
            });
            if fits && has {
                found.push((at, row));
            }
        }
    }
    for (name, reverse) in wanted.sort.iter().rev() {
        let key = |&(at, row): &(usize, usize)| {
            rows[at].column_by_name(name).map(|a| json(a, row)).unwrap_or_default()
        };
        found.sort_by(|a, b| {
            let order = compare(&key(a), &key(b));
            if *reverse { order.reverse() } else { order }
        });
    }
    let total = found.len();
    let records = found.into_iter().skip(wanted.offset).take(wanted.limit).map(|(at, row)| {
        let mut record = record(&rows[at], row);
        if !wanted.fields.is_empty() {
            record.retain(|name, _| wanted.fields.contains(name));
        }
        record
    });
    Ok((total, records.collect()))
}

fn compare(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => a.as_str().unwrap_or_default().cmp(b.as_str().unwrap_or_default()),
    }
}
