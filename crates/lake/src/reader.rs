//! Reads the rows of a range of subjects: by a file's page index, only the pages that may hold them.

use crate::{
    dataset::SUBJECT,
    table::{DataFile, SubjectKey},
    write::keys,
};
use anyhow::{Context as _, Result};
use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use bytes::Bytes;
use futures::{FutureExt as _, TryStreamExt as _, future::BoxFuture};
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path as StorePath};
use parquet::{
    arrow::{
        ParquetRecordBatchStreamBuilder,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector},
        async_reader::AsyncFileReader,
    },
    file::{
        metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader},
        page_index::column_index::ColumnIndexMetaData,
    },
};
use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, RwLock},
};

/// Files of one table, with what was learnt of their pages.
pub struct Files {
    store: Arc<dyn ObjectStore>,
    known: RwLock<HashMap<String, ArrowReaderMetadata>>,
}

impl Files {
    /// Files of a store.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, known: RwLock::default() }
    }

    /// Forgets files that are no longer there.
    pub fn keep(&self, files: &[DataFile]) {
        let used: std::collections::HashSet<&str> = files.iter().map(|f| f.path.as_str()).collect();
        self.known.write().expect("never poisoned").retain(|path, _| used.contains(path.as_str()));
    }

    fn open(&self, file: &DataFile) -> Stored {
        Stored { store: self.store.clone(), path: StorePath::from(file.path.as_str()), bytes: file.bytes }
    }

    async fn known(&self, file: &DataFile) -> Result<ArrowReaderMetadata> {
        if let Some(known) = self.known.read().expect("never poisoned").get(&file.path) {
            return Ok(known.clone());
        }
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let known = ArrowReaderMetadata::load_async(&mut self.open(file), options)
            .await
            .with_context(|| format!("{} is missing or damaged", file.path))?;
        self.known.write().expect("never poisoned").insert(file.path.clone(), known.clone());
        Ok(known)
    }

    /// The rows whose subject key is within bounds, both included, in the file's order; all rows without bounds.
    pub async fn rows(
        &self,
        file: &DataFile,
        within: Option<(&SubjectKey, &SubjectKey)>,
    ) -> Result<Vec<RecordBatch>> {
        let known = self.known(file).await?;
        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.open(file), known.clone());
        let Some((low, high)) = within else {
            let all = builder.with_batch_size(1 << 14).build()?.try_collect().await;
            return all.with_context(|| format!("{} is damaged", file.path));
        };
        let (groups, selection) = pages(known.metadata(), low, high);
        if groups.is_empty() {
            return Ok(vec![]);
        }
        let rows: Vec<RecordBatch> = builder
            .with_batch_size(1 << 14)
            .with_row_groups(groups)
            .with_row_selection(selection)
            .build()?
            .try_collect()
            .await
            .with_context(|| format!("{} is damaged", file.path))?;
        let mut kept = Vec::new();
        for batch in rows {
            let keys = keys(&batch).context("the table has no subject")?;
            let mask: BooleanArray =
                keys.iter().map(|k| k.map(|k| &low[..] <= k && k <= &high[..])).collect();
            let batch = filter_record_batch(&batch, &mask)?;
            if batch.num_rows() > 0 {
                kept.push(batch);
            }
        }
        Ok(kept)
    }
}

/// A file in a store, read piece by piece.
struct Stored {
    store: Arc<dyn ObjectStore>,
    path: StorePath,
    bytes: u64,
}

impl AsyncFileReader for Stored {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { Ok(self.store.get_range(&self.path, range).await?) }.boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { Ok(self.store.get_ranges(&self.path, &ranges).await?) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let policy = options.map_or(PageIndexPolicy::Skip, ArrowReaderOptions::column_index_policy);
            let bytes = self.bytes;
            let reader =
                ParquetMetaDataReader::new().with_page_index_policy(policy).with_prefetch_hint(Some(1 << 16));
            Ok(Arc::new(reader.load_and_finish(self, bytes).await?))
        }
        .boxed()
    }
}

/// The row groups and pages that may hold keys within bounds.
fn pages(file: &ParquetMetaData, low: &SubjectKey, high: &SubjectKey) -> (Vec<usize>, RowSelection) {
    let column = file.file_metadata().schema_descr().columns().iter().position(|c| c.name() == SUBJECT);
    let (mut groups, mut selectors) = (Vec::new(), Vec::new());
    for (at, group) in file.row_groups().iter().enumerate() {
        let rows = group.num_rows() as usize;
        let index = column.and_then(|column| {
            let index = file.column_index()?.get(at)?.get(column)?;
            let offsets = file.offset_index()?.get(at)?.get(column)?.page_locations();
            match index {
                ColumnIndexMetaData::BYTE_ARRAY(index) => Some((index, offsets)),
                _ => None,
            }
        });
        let Some((index, offsets)) = index else {
            groups.push(at);
            selectors.push(RowSelector::select(rows));
            continue;
        };
        let mut of_group = Vec::new();
        for (page, location) in offsets.iter().enumerate() {
            let begin = location.first_row_index as usize;
            let end = offsets.get(page + 1).map_or(rows, |next| next.first_row_index as usize);
            let may = match (index.min_value(page), index.max_value(page)) {
                (Some(min), Some(max)) => min <= &high[..] && &low[..] <= max,
                _ => true,
            };
            let length = end - begin;
            of_group.push(if may { RowSelector::select(length) } else { RowSelector::skip(length) });
        }
        if of_group.iter().any(|s| !s.skip) {
            groups.push(at);
            selectors.extend(of_group);
        }
    }
    (groups, RowSelection::from(selectors))
}
