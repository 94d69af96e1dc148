//! Where a department's data is: one trait, real drivers behind it.

use crate::transform::Stored;
use model::FieldId;
use std::collections::BTreeMap;

mod connected;
mod files;
pub mod memory;
pub mod odbc;
mod service;
mod sql;

pub use connected::{Connected, shown};
pub use service::use_tls;
pub use sql::Sqlite;

/// Why a source did not answer. Never holds a value.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be reached, or it failed.
    #[error("the database failed: {0}")]
    Failed(String),
    /// Its own rules refused the write; everything was undone.
    #[error("the database's own rules refuse the action; nothing was changed")]
    Refused,
    /// It took longer than allowed.
    #[error("the database did not answer in time")]
    TimedOut,
    /// A write affected another number of rows than declared; everything was undone.
    #[error(
        "a statement of the action would have changed {found} rows where {expected} were declared; nothing was changed"
    )]
    RowCount {
        /// As declared.
        expected: u64,
        /// As found.
        found: u64,
    },
}

/// A compiled read: fixed text, one bind for each condition.
#[derive(Clone, Debug)]
pub struct Select {
    pub(crate) table: String,
    /// Columns to read, and whether as bytes.
    pub(crate) columns: Vec<(String, bool)>,
    /// Columns and how many forms each may have one of, in bind order.
    pub(crate) conditions: Vec<(String, usize)>,
    /// The most rows to read.
    pub(crate) limit: u64,
}

/// A compiled write.
#[derive(Clone, Debug)]
pub struct Write {
    pub(crate) table: String,
    pub(crate) insert: bool,
    pub(crate) set: Vec<(String, Stored)>,
    /// Columns and every form the value may be stored in.
    pub(crate) pick: Vec<(String, Vec<Stored>)>,
    pub(crate) expect: u64,
}

/// The outcome of an idempotent write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was done now.
    Now,
    /// It had been done before, with this result.
    Before(BTreeMap<FieldId, String>),
}

/// A department's own database.
pub trait Source: Send + Sync + 'static {
    /// The columns of a table or view and their types, or an empty list where there is none.
    fn columns(&self, table: &str)
    -> impl Future<Output = Result<Vec<(String, String)>, SourceError>> + Send;

    /// Reads at most `limit` rows. Read-only; ends within the source's time limit, and with bounded memory.
    fn select(
        &self,
        select: &Select,
        binds: &[Stored],
    ) -> impl Future<Output = Result<Vec<Vec<Option<Stored>>>, SourceError>> + Send;

    /// The distinct values of a column, at most so many.
    fn distinct(
        &self,
        table: &str,
        column: &str,
        bytes: bool,
        limit: u64,
    ) -> impl Future<Output = Result<Vec<Stored>, SourceError>> + Send;

    /// Runs writes in one transaction, once for each `key`: a repeated key changes nothing and returns the first
    /// result. Any row count other than declared undoes everything.
    fn write_once(
        &self,
        key: &str,
        writes: &[Write],
        result: &BTreeMap<FieldId, String>,
    ) -> impl Future<Output = Result<Written, SourceError>> + Send;

    /// Takes in what changed outside: files that were dropped.
    fn refresh(&self) -> impl Future<Output = Result<(), SourceError>> + Send {
        async { Ok(()) }
    }

    /// Whether a table can be read at all, by asking for nobody: what no look at its columns shows.
    fn probe(&self, _table: &str) -> impl Future<Output = Result<(), SourceError>> + Send {
        async { Ok(()) }
    }

    /// Whether all values of a column can be listed.
    fn lists(&self) -> bool {
        true
    }

    /// Tables that could not be taken in as they are now, and why.
    fn troubles(&self) -> Vec<(String, String)> {
        vec![]
    }

    /// Lets go of connections.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}
