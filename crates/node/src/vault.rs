//! The vault in a node's own SQLite database: every value encrypted, bound to its place.

use crypto::StorageKey;
use flow::{Vault, VaultError};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::path::Path;

/// A vault in a SQLite file.
pub struct SqliteVault {
    pool: SqlitePool,
    key: StorageKey,
}

fn failed(e: sqlx::Error) -> VaultError {
    VaultError(match e {
        sqlx::Error::Database(e) => format!("database code {}", e.code().unwrap_or_default()),
        other => format!("{other:?}").split(['(', '{', ' ']).next().unwrap_or_default().to_owned(),
    })
}

impl SqliteVault {
    /// Opens or makes the file. What is written survives a crash of the process at once.
    pub async fn open(path: &Path, key: StorageKey) -> Result<Self, VaultError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // what is erased is overwritten
            .pragma("secure_delete", "ON")
            .synchronous(SqliteSynchronous::Normal);
        let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.map_err(failed)?;
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS vault (place TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        )
        .execute(&pool)
        .await
        .map_err(failed)?;
        Ok(Self { pool, key })
    }

    /// Closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Vault for SqliteVault {
    fn put<'a>(&'a self, place: &'a str, value: &'a [u8]) -> flow::VaultFuture<'a, ()> {
        Box::pin(async move {
            let stored = self.key.encrypt(place.as_bytes(), value);
            sqlx::query(
                "INSERT INTO vault VALUES (?, ?) ON CONFLICT (place) DO UPDATE SET value = excluded.value",
            )
            .bind(place.to_owned())
            .bind(stored)
            .execute(&self.pool)
            .await
            .map_err(failed)?;
            Ok(())
        })
    }

    fn get<'a>(&'a self, place: &'a str) -> flow::VaultFuture<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            let stored: Option<Vec<u8>> = sqlx::query_scalar("SELECT value FROM vault WHERE place = ?")
                .bind(place.to_owned())
                .fetch_optional(&self.pool)
                .await
                .map_err(failed)?;
            stored
                .map(|bytes| {
                    self.key.decrypt(place.as_bytes(), &bytes).ok_or_else(|| {
                        VaultError("an entry does not decrypt: it was changed, or the key is another".into())
                    })
                })
                .transpose()
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> flow::VaultFuture<'a, Vec<String>> {
        Box::pin(async move {
            sqlx::query_scalar(
                "SELECT place FROM vault WHERE place >= ?1 AND place < ?1 || char(1114111) ORDER BY place",
            )
            .bind(prefix.to_owned())
            .fetch_all(&self.pool)
            .await
            .map_err(failed)
        })
    }

    fn erase<'a>(&'a self, prefix: &'a str) -> flow::VaultFuture<'a, u64> {
        Box::pin(async move {
            let done = sqlx::query("DELETE FROM vault WHERE place >= ?1 AND place < ?1 || char(1114111)")
                .bind(prefix.to_owned())
                .execute(&self.pool)
                .await
                .map_err(failed)?;
            Ok(done.rows_affected())
        })
    }
}
