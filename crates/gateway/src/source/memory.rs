//! A source in memory: for simulations, where thousands of departments' databases live and die in one process.

use super::{Select, Source, SourceError, Write, Written};
use crate::transform::Stored;
use model::FieldId;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

type Row = BTreeMap<String, String>;

#[derive(Default)]
struct Tables {
    columns: BTreeMap<String, Vec<String>>,
    rows: BTreeMap<String, Vec<Row>>,
    journal: BTreeMap<String, BTreeMap<FieldId, String>>,
    /// How often each key changed rows: more than once is a fault of [`Memory::write_once`] or of its caller.
    performed: BTreeMap<String, u32>,
}

/// Tables of texts. Clones share them; what was written outlives a node's crash, as a database server does.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Tables>>);

impl Memory {
    fn lock(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Puts a table in, with its columns and rows in their order.
    pub fn table(&self, name: &str, columns: &[&str], rows: &[Vec<String>]) {
        let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
        let rows = rows.iter().map(|row| columns.iter().cloned().zip(row.iter().cloned()).collect());
        let mut tables = self.lock();
        tables.rows.insert(name.to_owned(), rows.collect());
        tables.columns.insert(name.to_owned(), columns);
    }

    /// The rows of a table.
    pub fn rows(&self, name: &str) -> Vec<BTreeMap<String, String>> {
        self.lock().rows.get(name).cloned().unwrap_or_default()
    }

    /// How often each action's key changed rows.
    pub fn performed(&self) -> BTreeMap<String, u32> {
        self.lock().performed.clone()
    }
}

fn text(value: &Stored) -> Option<&str> {
    match value {
        Stored::Text(text) => Some(text),
        Stored::Bytes(_) => None,
    }
}

fn fits(row: &Row, picks: &[(&String, &[Stored])]) -> bool {
    picks
        .iter()
        .all(|(column, forms)| forms.iter().any(|value| row.get(*column).map(String::as_str) == text(value)))
}

impl Source for Memory {
    async fn columns(&self, table: &str) -> Result<Vec<(String, String)>, SourceError> {
        let columns = self.lock().columns.get(table).cloned().unwrap_or_default();
        Ok(columns.into_iter().map(|column| (column, "text".to_owned())).collect())
    }

    async fn distinct(
        &self,
        table: &str,
        column: &str,
        _bytes: bool,
        limit: u64,
    ) -> Result<Vec<Stored>, SourceError> {
        let values: BTreeSet<String> =
            self.rows(table).into_iter().filter_map(|mut r| r.remove(column)).collect();
        Ok(values.into_iter().take(limit as usize).map(Stored::Text).collect())
    }

    async fn select(
        &self,
        select: &Select,
        binds: &[Stored],
    ) -> Result<Vec<Vec<Option<Stored>>>, SourceError> {
        let mut rest = binds;
        let mut picks = Vec::new();
        for (column, forms) in &select.conditions {
            let (these, others) = rest.split_at_checked(*forms).unwrap_or((rest, &[]));
            picks.push((column, these));
            rest = others;
        }
        let tables = self.lock();
        let rows = tables.rows.get(&select.table).map(Vec::as_slice).unwrap_or_default();
        let cells = |row: &Row| {
            select.columns.iter().map(|(column, _)| row.get(column).cloned().map(Stored::Text)).collect()
        };
        Ok(rows.iter().filter(|r| fits(r, &picks)).take(select.limit as usize).map(cells).collect())
    }

    async fn write_once(
        &self,
        key: &str,
        writes: &[Write],
        result: &BTreeMap<FieldId, String>,
    ) -> Result<Written, SourceError> {
        let mut tables = self.lock();
        if let Some(before) = tables.journal.get(key)
            && !model::planted("action_twice")
        {
            return Ok(Written::Before(before.clone()));
        }
        let mut rows = tables.rows.clone();
        for write in writes {
            let table = rows.entry(write.table.clone()).or_default();
            let set = || write.set.iter().filter_map(|(c, v)| Some((c.clone(), text(v)?.to_owned())));
            if write.insert {
                table.push(set().collect());
                continue;
            }
            let picks: Vec<_> = write.pick.iter().map(|(column, forms)| (column, forms.as_slice())).collect();
            let mut found = 0;
            for row in table.iter_mut().filter(|row| fits(row, &picks)) {
                row.extend(set());
                found += 1;
            }
            if found != write.expect {
                return Err(SourceError::RowCount { expected: write.expect, found });
            }
        }
        tables.rows = rows;
        tables.journal.insert(key.to_owned(), result.clone());
        *tables.performed.entry(key.to_owned()).or_default() += 1;
        Ok(Written::Now)
    }
}
