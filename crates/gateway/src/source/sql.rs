//! SQL databases: SQLite, PostgreSQL, MySQL and MariaDB.
//!
//! Statements are built from declared identifiers, which the builder quotes; values are always bound. Everything is read as text, or
//! as bytes where an encoding is declared, each value cut off where it is longer than any may be.

use super::{
    Select, Source, SourceError, Write, Written,
    odbc::{JOURNAL, READ_BYTES_MAX},
};
use crate::transform::{Stored, VALUE_BYTES_MAX};
use futures::TryStreamExt as _;
use model::FieldId;
use sea_query::{
    Alias, Expr, ExprTrait as _, Func, MysqlQueryBuilder, PostgresQueryBuilder, Query, QueryStatementWriter,
    SqliteQueryBuilder,
};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, Row as _,
    mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions},
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions},
};
use std::{
    collections::BTreeMap,
    path::Path,
    str::FromStr as _,
    sync::{Arc, Mutex},
    time::Duration,
};

/// How long one statement may take.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Connections for reading, at most; they are made as they are needed.
const READERS: u32 = 32;

/// What differs between the databases.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
    MySql,
    /// What every SQL database with quoted identifiers and `?` understands; its driver casts and counts rows.
    Odbc,
}

/// The types of a table's columns, as the database names them.
type Types = Arc<Mutex<BTreeMap<String, BTreeMap<String, String>>>>;

fn name_of(text: &str) -> Alias {
    Alias::new(text)
}

impl Dialect {
    fn text(self) -> &'static str {
        match self {
            Self::Sqlite | Self::Postgres | Self::Odbc => "TEXT",
            Self::MySql => "CHAR",
        }
    }

    fn bytes(self) -> &'static str {
        match self {
            Self::Sqlite | Self::Odbc => "BLOB",
            Self::Postgres => "BYTEA",
            Self::MySql => "BINARY",
        }
    }

    fn build(self, statement: &impl QueryStatementWriter) -> String {
        match self {
            Self::Sqlite | Self::Odbc => statement.build(SqliteQueryBuilder).0,
            Self::Postgres => statement.build(PostgresQueryBuilder).0,
            Self::MySql => statement.build(MysqlQueryBuilder).0,
        }
    }

    /// A column as text or bytes, cut off where it is too long.
    fn cell(self, column: &str, bytes: bool) -> Expr {
        if self == Self::Odbc {
            return Expr::col(name_of(column));
        }
        let kind = if bytes { self.bytes() } else { self.text() };
        let cast = Expr::col(name_of(column)).cast_as(Alias::new(kind));
        let end = Expr::cust((VALUE_BYTES_MAX + 1).to_string());
        Func::cust(Alias::new("SUBSTR")).args([cast, Expr::cust("1"), end]).into()
    }

    /// A placeholder for a value of a column: PostgreSQL compares and stores only what is of the column's type.
    fn placeholder(self, column: &str, value: &Stored, types: &BTreeMap<String, String>) -> Expr {
        match (self, value, types.get(column)) {
            (Self::Postgres, Stored::Text(_), Some(kind)) => Expr::val("").cast_as(Alias::new(kind)),
            _ => Expr::val(""),
        }
    }

    pub(super) fn select(
        self,
        select: &Select,
        binds: &[Stored],
        types: &BTreeMap<String, String>,
    ) -> String {
        let mut query = Query::select();
        query.from(table_of(&select.table));
        for (column, bytes) in &select.columns {
            query.expr(self.cell(column, *bytes));
        }
        let mut binds = binds.iter();
        for (column, forms) in &select.conditions {
            let values = binds.by_ref().take(*forms).map(|value| self.placeholder(column, value, types));
            query.and_where(Expr::col(name_of(column)).is_in(values.collect::<Vec<_>>()));
        }
        if self != Self::Odbc {
            query.limit(select.limit);
        }
        self.build(&query)
    }

    /// Reads no row of a table, for the sake of its columns.
    pub(super) fn describe(table: &str) -> String {
        let mut query = Query::select();
        query.from(table_of(table)).expr(Expr::cust("*")).and_where(Expr::cust("1 = 0"));
        Self::Odbc.build(&query)
    }

    pub(super) fn distinct(self, table: &str, column: &str, bytes: bool, limit: u64) -> String {
        let mut query = Query::select();
        query.distinct().from(table_of(table)).expr(self.cell(column, bytes));
        query.and_where(Expr::col(name_of(column)).is_not_null());
        if self != Self::Odbc {
            query.limit(limit);
        }
        self.build(&query)
    }

    pub(super) fn write(self, write: &Write, types: &BTreeMap<String, String>) -> String {
        let value = |(column, value): &(String, Stored)| self.placeholder(column, value, types);
        if write.insert {
            let mut insert = Query::insert();
            insert
                .into_table(table_of(&write.table))
                .columns(write.set.iter().map(|(c, _)| name_of(c)))
                .values_panic(write.set.iter().map(value));
            return self.build(&insert);
        }
        let mut update = Query::update();
        update.table(table_of(&write.table));
        for pair in &write.set {
            update.value(name_of(&pair.0), value(pair));
        }
        for (column, forms) in &write.pick {
            let values = forms.iter().map(|form| self.placeholder(column, form, types));
            update.and_where(Expr::col(name_of(column)).is_in(values.collect::<Vec<_>>()));
        }
        self.build(&update)
    }

    fn journal(self) -> String {
        let kind = if self == Self::MySql { "VARCHAR(191)" } else { "TEXT" };
        let key = self.key();
        format!(
            "CREATE TABLE IF NOT EXISTS {JOURNAL} ({key} {kind} NOT NULL PRIMARY KEY, result TEXT NOT NULL)"
        )
    }

    fn key(self) -> &'static str {
        if self == Self::MySql { "`key`" } else { "\"key\"" }
    }

    fn enter(self) -> String {
        match self {
            Self::Sqlite | Self::Odbc => format!("INSERT OR IGNORE INTO {JOURNAL} VALUES (?, ?)"),
            Self::Postgres => format!("INSERT INTO {JOURNAL} VALUES ($1, $2) ON CONFLICT DO NOTHING"),
            Self::MySql => format!("INSERT IGNORE INTO {JOURNAL} VALUES (?, ?)"),
        }
    }

    fn entered(self) -> String {
        let place = if self == Self::Postgres { "$1" } else { "?" };
        format!("SELECT result FROM {JOURNAL} WHERE {} = {place}", self.key())
    }
}

fn table_of(table: &str) -> sea_query::TableRef {
    match table.split_once('.') {
        Some((schema, table)) => (name_of(schema), name_of(table)).into(),
        None => name_of(table).into(),
    }
}

/// What came of a driver's error. Its message may quote a value, so only its code or kind is passed on.
pub(super) fn failed(e: sqlx::Error) -> SourceError {
    SourceError::Failed(match e {
        sqlx::Error::Database(e) => {
            let code = e.code().unwrap_or_default().into_owned();
            // SQLite: 19, violated constraint or raised trigger (sqlite.org/rescode.html). SQLSTATE: class 23, violated constraint;
            // P0001 and 45000, raised by a trigger (PostgreSQL and MySQL manuals)
            let sqlite = code.len() < 5 && code.parse::<u32>().is_ok_and(|code| code & 0xff == 19);
            if sqlite || code.starts_with("23") || code == "P0001" || code == "45000" {
                return SourceError::Refused;
            }
            match said(&code) {
                "" => format!("code {code}"),
                said => format!("code {code}: {said}"),
            }
        }
        sqlx::Error::PoolTimedOut => "no connection was free, or none could be made".into(),
        sqlx::Error::Io(e) => format!("it cannot be reached ({})", e.kind()),
        other => format!("{other:?}").split(['(', '{', ' ']).next().unwrap_or_default().to_owned(),
    })
}

/// What the codes mean that somebody meets who connects a database: SQLSTATE of PostgreSQL and MySQL, and SQLite's result codes. The
/// database's own words may hold values.
fn said(code: &str) -> &'static str {
    match code {
        "28000" | "28P01" => "the account or its password is refused",
        "3D000" | "42000" => "there is no such database, or the account may not use it",
        "42501" => "the account may not read or write this",
        "42P01" | "42S02" => "there is no such table",
        "57014" | "70100" => "it took too long",
        "14" => "the file cannot be opened: is it there, and may this account read it",
        "26" => "the file is no SQLite database",
        _ => "",
    }
}

/// Whether a value cannot be of the column's type: then nothing can equal it (SQLSTATE class 22, data exception).
fn of_no_such_type(e: &sqlx::Error) -> bool {
    matches!(e, sqlx::Error::Database(e) if e.code().is_some_and(|code| code.len() == 5 && code.starts_with("22")))
}

async fn limited<T>(work: impl Future<Output = Result<T, SourceError>>) -> Result<T, SourceError> {
    tokio::time::timeout(TIME_LIMIT + Duration::from_secs(1), work)
        .await
        .unwrap_or(Err(SourceError::TimedOut))
}

macro_rules! bound {
    ($query:expr, $values:expr) => {{
        let mut query = $query;
        for value in $values {
            query = match value {
                Stored::Text(text) => query.bind(text.clone()),
                Stored::Bytes(bytes) => query.bind(bytes.clone()),
            };
        }
        query
    }};
}

/// A source on a pool of one of the databases.
macro_rules! source {
    ($(#[$doc:meta])* $name:ident, $pool:ty, $dialect:expr) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name {
            reads: $pool,
            writes: Option<$pool>,
            types: Types,
        }

        impl $name {
            fn types_of(&self, table: &str) -> BTreeMap<String, String> {
                self.types.lock().expect("no holder of this lock panics").get(table).cloned().unwrap_or_default()
            }

            fn cells(
                row: &<$pool as HasRow>::Row,
                columns: &[bool],
                total: &mut usize,
            ) -> Result<Vec<Option<Stored>>, SourceError> {
                let cell = |(i, bytes): (usize, &bool)| {
                    if *bytes {
                        row.try_get::<Option<Vec<u8>>, _>(i).map(|v| v.map(Stored::Bytes)).map_err(failed)
                    } else {
                        row.try_get::<Option<String>, _>(i).map(|v| v.map(Stored::Text)).map_err(failed)
                    }
                };
                let cells: Vec<_> = columns.iter().enumerate().map(cell).collect::<Result<_, _>>()?;
                *total += cells.iter().flatten().map(Stored::len).sum::<usize>();
                if *total > READ_BYTES_MAX {
                    return Err(SourceError::Failed("it gave more than one answer may hold".into()));
                }
                Ok(cells)
            }
        }

        impl Source for $name {
            async fn columns(&self, table: &str) -> Result<Vec<(String, String)>, SourceError> {
                let found = limited(self.described(table)).await?;
                let mut types = self.types.lock().expect("no holder of this lock panics");
                types.insert(table.to_owned(), found.iter().cloned().collect());
                Ok(found)
            }

            async fn select(
                &self,
                select: &Select,
                binds: &[Stored],
            ) -> Result<Vec<Vec<Option<Stored>>>, SourceError> {
                let sql = $dialect.select(select, binds, &self.types_of(&select.table));
                let columns: Vec<bool> = select.columns.iter().map(|(_, bytes)| *bytes).collect();
                limited(async {
                    let query = bound!(sqlx::query(AssertSqlSafe(sql)), binds).bind(select.limit as i64);
                    let mut rows = query.fetch(&self.reads);
                    let (mut read, mut total) = (Vec::new(), 0);
                    loop {
                        match rows.try_next().await {
                            Ok(Some(row)) => read.push(Self::cells(&row, &columns, &mut total)?),
                            Ok(None) => return Ok(read),
                            Err(e) if of_no_such_type(&e) => return Ok(vec![]),
                            Err(e) => return Err(failed(e)),
                        }
                    }
                })
                .await
            }

            async fn distinct(
                &self,
                table: &str,
                column: &str,
                bytes: bool,
                limit: u64,
            ) -> Result<Vec<Stored>, SourceError> {
                let sql = $dialect.distinct(table, column, bytes, limit);
                limited(async {
                    let query = sqlx::query(AssertSqlSafe(sql)).bind(limit as i64);
                    let rows = query.fetch_all(&self.reads).await.map_err(failed)?;
                    let mut total = 0;
                    let cells = rows.iter().map(|row| Self::cells(row, &[bytes], &mut total));
                    Ok(cells.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().flatten().collect())
                })
                .await
            }

            async fn write_once(
                &self,
                key: &str,
                writes: &[Write],
                result: &BTreeMap<FieldId, String>,
            ) -> Result<Written, SourceError> {
                let Some(pool) = &self.writes else {
                    return Err(SourceError::Failed("it was opened for reading only".into()));
                };
                limited(async {
                    let mut transaction = pool.begin().await.map_err(failed)?;
                    let text = serde_json::to_string(result).expect("a map of texts can be written as JSON");
                    let entered = sqlx::query(AssertSqlSafe($dialect.enter())).bind(key.to_owned()).bind(text);
                    let entered = entered.execute(&mut *transaction).await.map_err(failed)?;
                    if entered.rows_affected() == 0 {
                        let before = sqlx::query_scalar(AssertSqlSafe($dialect.entered())).bind(key.to_owned());
                        let before: String = before.fetch_one(&mut *transaction).await.map_err(failed)?;
                        let before = serde_json::from_str(&before)
                            .map_err(|_| SourceError::Failed("the action journal is damaged".into()))?;
                        return Ok(Written::Before(before));
                    }
                    for write in writes {
                        let sql = $dialect.write(write, &self.types_of(&write.table));
                        let picks = write.pick.iter().flat_map(|(_, forms)| forms);
                        let values = write.set.iter().map(|(_, value)| value).chain(picks);
                        let query = bound!(sqlx::query(AssertSqlSafe(sql)), values);
                        let found = query.execute(&mut *transaction).await.map_err(failed)?.rows_affected();
                        if found != write.expect {
                            transaction.rollback().await.map_err(failed)?;
                            return Err(SourceError::RowCount { expected: write.expect, found });
                        }
                    }
                    transaction.commit().await.map_err(failed)?;
                    Ok(Written::Now)
                })
                .await
            }

            async fn close(&self) {
                self.reads.close().await;
                if let Some(writes) = &self.writes {
                    writes.close().await;
                }
            }
        }
    };
}

/// The row type of a pool.
trait HasRow {
    type Row;
}
impl<DB: sqlx::Database> HasRow for sqlx::Pool<DB> {
    type Row = DB::Row;
}

source! {
    /// A SQLite database file.
    Sqlite, SqlitePool, Dialect::Sqlite
}
source! {
    /// A PostgreSQL database.
    Postgres, PgPool, Dialect::Postgres
}
source! {
    /// A MySQL or MariaDB database.
    MySql, MySqlPool, Dialect::MySql
}

impl Sqlite {
    /// Opens an existing database file: reads through read-only connections, actions through one that may write.
    pub async fn open(path: &Path) -> Result<Self, SourceError> {
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(TIME_LIMIT);
        let read_only = Self::open_read_only(path).await?;
        let writes = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.journal_mode(SqliteJournalMode::Wal))
            .await
            .map_err(failed)?;
        writes.execute(AssertSqlSafe(Dialect::Sqlite.journal())).await.map_err(failed)?;
        Ok(Self { writes: Some(writes), ..read_only })
    }

    /// Opens a file for checking only: nothing in it is changed, and actions fail.
    pub async fn open_read_only(path: &Path) -> Result<Self, SourceError> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(TIME_LIMIT);
        let reads =
            SqlitePoolOptions::new().max_connections(4).connect_with(options).await.map_err(failed)?;
        Ok(Self { reads, writes: None, types: Types::default() })
    }

    async fn described(&self, table: &str) -> Result<Vec<(String, String)>, SourceError> {
        let rows = sqlx::query("SELECT name, lower(type) FROM pragma_table_info(?)").bind(table.to_owned());
        let rows = rows.fetch_all(&self.reads).await.map_err(failed)?;
        rows.iter().map(|r| Ok((r.try_get(0).map_err(failed)?, r.try_get(1).map_err(failed)?))).collect()
    }
}

impl Postgres {
    /// Connects to a database by its address (`postgres://user:password@host:port/database?sslmode=…`). Times are those of China.
    pub async fn open(url: &str, read_only: bool) -> Result<Self, SourceError> {
        let options = PgConnectOptions::from_str(url).map_err(failed)?.application_name("tongban");
        let limit = TIME_LIMIT.as_millis().to_string();
        let options = options.options([("statement_timeout", limit.as_str()), ("TimeZone", "Asia/Shanghai")]);
        let pool = |n: u32| PgPoolOptions::new().max_connections(n).acquire_timeout(CONNECT_LIMIT);
        let reading = options.clone().options([("default_transaction_read_only", "on")]);
        let reads = pool(READERS).connect_with(reading).await.map_err(failed)?;
        let writes = if read_only {
            None
        } else {
            let writes = pool(2).connect_with(options).await.map_err(failed)?;
            // an account that may not make tables has it made by the database's administrator
            let _ = writes.execute(AssertSqlSafe(Dialect::Postgres.journal())).await;
            Some(writes)
        };
        Ok(Self { reads, writes, types: Types::default() })
    }

    async fn described(&self, table: &str) -> Result<Vec<(String, String)>, SourceError> {
        // a name as the builder quotes it, found on the search path
        let sql = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
                   WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
        let quoted: Vec<String> =
            table.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
        let rows = sqlx::query(sql).bind(quoted.join(".")).fetch_all(&self.reads).await.map_err(failed)?;
        rows.iter().map(|r| Ok((r.try_get(0).map_err(failed)?, r.try_get(1).map_err(failed)?))).collect()
    }
}

impl MySql {
    /// Connects to a database by its address (`mysql://user:password@host:port/database?ssl-mode=…`). Times are those of China.
    pub async fn open(url: &str, read_only: bool) -> Result<Self, SourceError> {
        let options =
            MySqlConnectOptions::from_str(&url.replacen("mariadb://", "mysql://", 1)).map_err(failed)?;
        let options = options.timezone(String::from("+08:00"));
        let pool = |n: u32, reading: bool| {
            MySqlPoolOptions::new().max_connections(n).acquire_timeout(CONNECT_LIMIT).after_connect(
                move |connection, _| {
                    Box::pin(async move {
                        // MariaDB counts seconds, MySQL milliseconds and only for reads; each knows its own
                        let limits = [
                            format!("SET SESSION max_statement_time = {}", TIME_LIMIT.as_secs()),
                            format!("SET SESSION max_execution_time = {}", TIME_LIMIT.as_millis()),
                        ];
                        for limit in limits {
                            match connection.execute(AssertSqlSafe(limit)).await {
                                Ok(_) => break,
                                Err(sqlx::Error::Database(_)) => {}
                                Err(e) => return Err(e),
                            }
                        }
                        if reading {
                            connection.execute("SET SESSION TRANSACTION READ ONLY").await?;
                        }
                        connection.ping().await
                    })
                },
            )
        };
        let reads = pool(READERS, true).connect_with(options.clone()).await.map_err(failed)?;
        let writes = if read_only {
            None
        } else {
            let writes = pool(2, false).connect_with(options).await.map_err(failed)?;
            let _ = writes.execute(AssertSqlSafe(Dialect::MySql.journal())).await;
            Some(writes)
        };
        Ok(Self { reads, writes, types: Types::default() })
    }

    async fn described(&self, table: &str) -> Result<Vec<(String, String)>, SourceError> {
        let sql = "SELECT CAST(column_name AS CHAR), CAST(column_type AS CHAR) FROM information_schema.columns \
                   WHERE table_schema = COALESCE(?, DATABASE()) AND table_name = ? ORDER BY ordinal_position";
        let (schema, table) = match table.split_once('.') {
            Some((schema, table)) => (Some(schema.to_owned()), table),
            None => (None, table),
        };
        let query = sqlx::query(sql).bind(schema).bind(table.to_owned());
        let rows = query.fetch_all(&self.reads).await.map_err(failed)?;
        rows.iter().map(|r| Ok((r.try_get(0).map_err(failed)?, r.try_get(1).map_err(failed)?))).collect()
    }
}
