//! Writes rows as Parquet files sorted by subject, several ranges of subjects at once.

use crate::{
    dataset::{Dataset, SUBJECT},
    table::{DataFile, prefix},
};
use anyhow::{Context as _, Result};
use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, BinaryArray, RecordBatch},
    compute::interleave_record_batch,
    datatypes::DataType,
};
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path as StorePath};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties, WriterVersion},
    schema::types::ColumnPath,
};
use std::{collections::HashSet, sync::Arc};

/// Rows of a file, at most.
pub const FILE_ROWS: usize = 2 << 20;
/// Rows of a page: what a look-up reads of each column.
const PAGE_ROWS: usize = 1024;
/// Rows of a row group.
const GROUP_ROWS: usize = 1 << 19;
/// Rows written at once.
const SLICE_ROWS: usize = 1 << 14;
/// A column whose sample has fewer distinct values than this share is written with a dictionary.
const DICTIONARY_SHARE: f64 = 0.05;

/// How files of a data set are written, by a sample of its rows.
pub fn properties(dataset: &Dataset, sample: &RecordBatch) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("a level of zstd")))
        .set_dictionary_enabled(false)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_column_index_truncate_length(Some(16));
    for (field, column) in dataset.schema.fields().iter().zip(sample.columns()) {
        let path = ColumnPath::from(field.name().as_str());
        if field.name() == SUBJECT {
            properties = properties
                .set_column_statistics_enabled(path.clone(), EnabledStatistics::Page)
                .set_column_encoding(path, Encoding::DELTA_BYTE_ARRAY);
            continue;
        }
        if few(column) {
            properties = properties.set_column_dictionary_enabled(path, true);
            continue;
        }
        let encoding = match field.data_type() {
            DataType::Int64 | DataType::Date32 => Encoding::DELTA_BINARY_PACKED,
            DataType::Utf8 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            _ => Encoding::PLAIN,
        };
        properties = properties.set_column_encoding(path, encoding);
    }
    properties.build()
}

/// Whether a column has few distinct values.
fn few(column: &ArrayRef) -> bool {
    let rows = column.len().min(20_000);
    let sample = column.slice(0, rows);
    let Ok(text) = arrow::compute::cast(&sample, &DataType::Utf8) else { return false };
    let distinct: HashSet<&str> = text.as_string::<i32>().iter().flatten().collect();
    (distinct.len() as f64) < (rows as f64 * DICTIONARY_SHARE).max(64.0)
}

/// Where a row is: its key's first bytes, then batch and row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    key: u64,
    batch: u32,
    row: u32,
}

/// The subject keys of a batch.
pub fn keys(batch: &RecordBatch) -> Option<&BinaryArray> {
    batch.column_by_name(SUBJECT).map(|c| c.as_binary::<i32>())
}

/// The places of all rows in order of their subjects; rows of one subject stay in the order they came in.
fn order(batches: &[RecordBatch]) -> Vec<Place> {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let mut places = Vec::with_capacity(rows);
    for (at, batch) in batches.iter().enumerate() {
        let keys = keys(batch);
        for row in 0..batch.num_rows() {
            let key = keys.map_or(0, |k| prefix(k.value(row)));
            places.push(Place { key, batch: at as u32, row: row as u32 });
        }
    }
    places.sort_unstable();
    // eight bytes tell nearly all subjects apart; where they do not, the whole key decides
    let whole = |p: &Place| keys(&batches[p.batch as usize]).map(|k| k.value(p.row as usize));
    let mut from = 0;
    while from < places.len() {
        let to = from + places[from..].iter().take_while(|p| p.key == places[from].key).count();
        if places[from + 1..to].iter().any(|p| whole(p) != whole(&places[from])) {
            places[from..to].sort_by(|a, b| whole(a).cmp(&whole(b)).then(a.cmp(b)));
        }
        from = to;
    }
    places
}

/// Writes rows as one run of files, on two threads. The files are there, and in no version of the table yet.
pub async fn write_run(
    dataset: &Arc<Dataset>,
    store: &Arc<dyn ObjectStore>,
    run: &str,
    batches: Vec<RecordBatch>,
    first_number: usize,
) -> Result<Vec<DataFile>> {
    let sample = match batches.iter().max_by_key(|b| b.num_rows()) {
        Some(batch) if batch.num_rows() > 0 => batch.clone(),
        _ => return Ok(vec![]),
    };
    let properties = properties(dataset, &sample);
    let batches = Arc::new(batches);
    let ordered = {
        let batches = batches.clone();
        tokio::task::spawn_blocking(move || order(&batches)).await?
    };
    let files = ordered.len().div_ceil(FILE_ROWS);
    // two files at least, so that both cores write; small runs are one
    let files = if ordered.len() > FILE_ROWS / 8 { files.max(2) } else { 1 };
    let each = ordered.len().div_ceil(files);
    let ordered = Arc::new(ordered);
    let mut work = Vec::new();
    let mut from = 0;
    while from < ordered.len() {
        let mut to = (from + each).min(ordered.len());
        // a subject's rows stay in one file
        while to < ordered.len()
            && ordered[to].key == ordered[to - 1].key
            && dataset.declared.subject.is_some()
        {
            to += 1;
        }
        work.push((from, to));
        from = to;
    }
    let mut written = Vec::new();
    for (pair_at, pair) in work.chunks(2).enumerate() {
        let tasks: Vec<_> = pair
            .iter()
            .map(|&(from, to)| {
                let (batches, ordered, properties) = (batches.clone(), ordered.clone(), properties.clone());
                tokio::task::spawn_blocking(move || encode(&batches, &ordered[from..to], properties))
            })
            .collect();
        for (at, task) in tasks.into_iter().enumerate() {
            let bytes = task.await??;
            let (from, to) = pair[at];
            let range = match dataset.declared.subject {
                Some(_) => (ordered[from].key, ordered[to - 1].key),
                None => (0, u64::MAX),
            };
            let number = first_number + pair_at * 2 + at;
            let file = DataFile::new(run, range, number, (to - from) as u64, bytes.len() as u64);
            let path = StorePath::from(file.path.as_str());
            store.put(&path, bytes.into()).await.with_context(|| format!("writing {path}"))?;
            written.push(file);
        }
    }
    Ok(written)
}

fn encode(batches: &[RecordBatch], places: &[Place], properties: WriterProperties) -> Result<Vec<u8>> {
    let schema = batches[0].schema();
    let all: Vec<&RecordBatch> = batches.iter().collect();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties))?;
    for slice in places.chunks(SLICE_ROWS) {
        let picked: Vec<(usize, usize)> = slice.iter().map(|p| (p.batch as usize, p.row as usize)).collect();
        writer.write(&interleave_record_batch(&all, &picked)?)?;
    }
    writer.close()?;
    Ok(bytes)
}
