//! SQLite.

use super::{Select, Source, SourceError, Write, Written};
use crate::transform::Stored;
use model::FieldId;
use sea_query::{Alias, Expr, ExprTrait as _, Query, SqliteQueryBuilder};
use sqlx::{
    AssertSqlSafe, Row as _, Sqlite as Db, SqlitePool,
    query::Query as Prepared,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use std::{collections::BTreeMap, path::Path, time::Duration};

/// How long one statement may take.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// The table the gateway keeps in a department's database, so that an action and its key are one transaction.
const JOURNAL: &str = "tongban_action_journal";

/// A SQLite database file.
#[derive(Clone)]
pub struct Sqlite {
    reads: SqlitePool,
    writes: SqlitePool,
}

/// The primary code of a violated constraint or raised trigger (sqlite.org/rescode.html).
const CONSTRAINT: u32 = 19;

fn failed(e: sqlx::Error) -> SourceError {
    let code = e.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse::<u32>().ok());
    if code.is_some_and(|code| code & 0xff == CONSTRAINT) {
        return SourceError::Refused;
    }
    // a driver's message may quote a value; only its kind is passed on
    SourceError::Failed(match e {
        sqlx::Error::Database(e) => format!("code {}", e.code().unwrap_or_default()),
        sqlx::Error::PoolTimedOut => "no connection was free".into(),
        other => format!("{other:?}").split(['(', '{', ' ']).next().unwrap_or_default().to_owned(),
    })
}

async fn limited<T>(work: impl Future<Output = Result<T, SourceError>>) -> Result<T, SourceError> {
    tokio::time::timeout(TIME_LIMIT, work).await.unwrap_or(Err(SourceError::TimedOut))
}

fn bind<'q>(query: Prepared<'q, Db, SqliteArguments>, value: &Stored) -> Prepared<'q, Db, SqliteArguments> {
    match value {
        Stored::Text(text) => query.bind(text.clone()),
        Stored::Bytes(bytes) => query.bind(bytes.clone()),
    }
}

impl Sqlite {
    /// Opens an existing database file: reads through read-only connections, actions through one that may write.
    pub async fn open(path: &Path) -> Result<Self, SourceError> {
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(TIME_LIMIT);
        let reads = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options.clone().read_only(true))
            .await
            .map_err(failed)?;
        let writes = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.journal_mode(SqliteJournalMode::Wal))
            .await
            .map_err(failed)?;
        let journal =
            format!("CREATE TABLE IF NOT EXISTS {JOURNAL} (key TEXT PRIMARY KEY, result TEXT NOT NULL)");
        sqlx::query(AssertSqlSafe(journal)).execute(&writes).await.map_err(failed)?;
        Ok(Self { reads, writes })
    }

    /// Opens a file for checking only: nothing in it is changed, and actions fail.
    pub async fn open_read_only(path: &Path) -> Result<Self, SourceError> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(TIME_LIMIT);
        let reads =
            SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(failed)?;
        Ok(Self { writes: reads.clone(), reads })
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.reads.close().await;
        self.writes.close().await;
    }
}

impl Source for Sqlite {
    async fn columns(&self, table: &str) -> Result<Vec<String>, SourceError> {
        let rows = sqlx::query("SELECT name FROM pragma_table_info(?)").bind(table.to_owned());
        let rows = limited(async { rows.fetch_all(&self.reads).await.map_err(failed) }).await?;
        Ok(rows.iter().filter_map(|r| r.try_get(0).ok()).collect())
    }

    async fn select(
        &self,
        select: &Select,
        binds: &[Stored],
    ) -> Result<Vec<Vec<Option<Stored>>>, SourceError> {
        let sql = select_sql(select);
        let mut prepared = sqlx::query(AssertSqlSafe(sql));
        for value in binds {
            prepared = bind(prepared, value);
        }
        prepared = prepared.bind(select.limit as i64);
        let rows = limited(async { prepared.fetch_all(&self.reads).await.map_err(failed) }).await?;
        let cell = |row: &sqlx::sqlite::SqliteRow, i: usize, bytes: bool| {
            if bytes {
                row.try_get::<Option<Vec<u8>>, _>(i).map(|v| v.map(Stored::Bytes))
            } else {
                row.try_get::<Option<String>, _>(i).map(|v| v.map(Stored::Text))
            }
        };
        rows.iter()
            .map(|row| {
                select
                    .columns
                    .iter()
                    .enumerate()
                    .map(|(i, (_, b))| cell(row, i, *b).map_err(failed))
                    .collect()
            })
            .collect()
    }

    async fn write_once(
        &self,
        key: &str,
        writes: &[Write],
        result: &BTreeMap<FieldId, String>,
    ) -> Result<Written, SourceError> {
        limited(async {
            let mut transaction = self.writes.begin().await.map_err(failed)?;
            let text = serde_json::to_string(result).expect("a map of texts can be written as JSON");
            let entered =
                sqlx::query(AssertSqlSafe(format!("INSERT OR IGNORE INTO {JOURNAL} VALUES (?, ?)")))
                    .bind(key.to_owned())
                    .bind(text)
                    .execute(&mut *transaction)
                    .await
                    .map_err(failed)?;
            if entered.rows_affected() == 0 {
                let before: String =
                    sqlx::query_scalar(AssertSqlSafe(format!("SELECT result FROM {JOURNAL} WHERE key = ?")))
                        .bind(key.to_owned())
                        .fetch_one(&mut *transaction)
                        .await
                        .map_err(failed)?;
                let before = serde_json::from_str(&before)
                    .map_err(|_| SourceError::Failed("the action journal is damaged".into()))?;
                return Ok(Written::Before(before));
            }
            for write in writes {
                let sql = write_sql(write);
                let mut prepared = sqlx::query(AssertSqlSafe(sql));
                for (_, value) in write.set.iter().chain(&write.pick) {
                    prepared = bind(prepared, value);
                }
                let found = prepared.execute(&mut *transaction).await.map_err(failed)?.rows_affected();
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
}

/// The text of a read; identifiers are quoted by the builder, values are placeholders.
fn select_sql(select: &Select) -> String {
    let mut query = Query::select();
    query.from(Alias::new(&select.table)).limit(select.limit);
    for (column, bytes) in &select.columns {
        let kind = if *bytes { "BLOB" } else { "TEXT" };
        query.expr(Expr::col(Alias::new(column)).cast_as(Alias::new(kind)));
    }
    for column in &select.conditions {
        query.and_where(Expr::col(Alias::new(column)).eq(""));
    }
    query.build(SqliteQueryBuilder).0
}

/// The text of a write.
fn write_sql(write: &Write) -> String {
    if write.insert {
        let mut insert = Query::insert();
        insert
            .into_table(Alias::new(&write.table))
            .columns(write.set.iter().map(|(c, _)| Alias::new(c)))
            .values_panic(write.set.iter().map(|_| Expr::val("")));
        return insert.build(SqliteQueryBuilder).0;
    }
    let mut update = Query::update();
    update.table(Alias::new(&write.table));
    for (column, _) in &write.set {
        update.value(Alias::new(column), Expr::val(""));
    }
    for (column, _) in &write.pick {
        update.and_where(Expr::col(Alias::new(column)).eq(""));
    }
    update.build(SqliteQueryBuilder).0
}
