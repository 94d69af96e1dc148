//! Databases behind an ODBC driver (Oracle, DM, Kingbase, …).
//!
//! A driver is a shared library of its vendor's, loaded into the process that calls it. So none is loaded into the node: each connection
//! is a program of its own, `tongban-odbc`, spoken to over its standard input and output, a JSON document a line. A driver that crashes,
//! hangs or fills its memory takes that program with it and nothing else; the next call starts another.

use super::{Select, Source, SourceError, Write, Written, sql::Dialect};
use crate::transform::Stored;
use model::FieldId;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Stdio,
    sync::Mutex,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Semaphore,
};

/// How long one statement may take, in seconds.
pub const STATEMENT_SECONDS: usize = 5;
/// The most bytes of one value.
pub const VALUE_BYTES_MAX: usize = crate::transform::VALUE_BYTES_MAX;
/// The most bytes one read takes into memory.
pub const READ_BYTES_MAX: usize = 64 << 20;
/// The table the gateway keeps in a department's database, so that an action and its key are one transaction. Columns: `key`, `result`.
pub const JOURNAL: &str = "tongban_action_journal";

/// The program.
const PROGRAM: &str = "tongban-odbc";
/// The environment variable that names it where it lies elsewhere.
const PROGRAM_VARIABLE: &str = "TONGBAN_ODBC";
/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer may take: a statement's time, and some for the driver to say that it is over.
const ANSWER_LIMIT: Duration = Duration::from_secs(STATEMENT_SECONDS as u64 + 1);
/// Connections at a time, each a process.
const CONNECTIONS: usize = 4;
/// After connecting failed it is not tried again for so long.
const REST: Duration = Duration::from_secs(2);
/// The most bytes of one line from the program: a read as JSON, every byte of it escaped.
const LINE_BYTES_MAX: u64 = 7 * READ_BYTES_MAX as u64;

/// What the program is asked, a line each.
#[derive(Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// Connects; the first line.
    Open {
        /// The connection string.
        connection: String,
        /// Whether actions fail.
        read_only: bool,
    },
    /// The columns of what a statement would read, and their types; none where it fails because there is no such table.
    Describe {
        /// The statement.
        sql: String,
    },
    /// Reads rows.
    Read {
        /// The statement, with `?` for each value.
        sql: String,
        /// The values.
        values: Vec<Cell>,
        /// Which columns are read as bytes.
        bytes: Vec<bool>,
        /// The most rows.
        limit: u64,
    },
    /// Runs statements in one transaction, once for each key.
    Write {
        /// The key.
        key: String,
        /// What is kept with it.
        result: String,
        /// The statements.
        statements: Vec<Statement>,
    },
}

/// A statement that changes rows.
#[derive(Serialize, Deserialize)]
pub struct Statement {
    /// The statement, with `?` for each value.
    pub sql: String,
    /// The values.
    pub values: Vec<Cell>,
    /// How many rows it must affect.
    pub expect: u64,
}

/// A value.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// Text.
    Text(String),
    /// Bytes, in hexadecimal.
    Bytes {
        /// The bytes.
        hex: String,
    },
}

/// What the program answers, a line each. Nothing here quotes a value.
#[derive(Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Reply {
    /// It is connected.
    Open,
    /// Names and types of columns.
    Columns {
        /// In order.
        columns: Vec<(String, String)>,
    },
    /// Rows.
    Rows {
        /// In order.
        rows: Vec<Vec<Option<Cell>>>,
    },
    /// It was done now, or before with this result.
    Written {
        /// What was kept with the key.
        before: Option<String>,
    },
    /// A statement would have changed another number of rows; everything was undone.
    RowCount {
        /// As declared.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// The database's own rules refuse it; everything was undone.
    Refused,
    /// It failed.
    Failed {
        /// How, by code.
        why: String,
    },
}

/// What of a connection string is shown. Drivers name their secrets as they like.
const SHOWN: [&str; 12] = [
    "driver",
    "dsn",
    "filedsn",
    "server",
    "servername",
    "host",
    "port",
    "database",
    "db",
    "dbq",
    "uid",
    "username",
];

/// A connection string with what is known to be no secret.
pub(super) fn shown(connection: &str) -> String {
    // a value in braces may hold semicolons: what follows a secret may belong to it, and is not shown
    let known = |part: &&str| {
        let name = part.split('=').next().unwrap_or_default().trim().to_lowercase();
        SHOWN.contains(&name.as_str()) && !(part.contains('/') && name == "uid")
    };
    let parts: Vec<&str> = connection.split(';').collect();
    let first = parts.iter().copied().take_while(known).collect::<Vec<_>>();
    let rest = if first.len() < parts.len() { ";…" } else { "" };
    format!("{}{rest}", first.join(";"))
}

/// A running program and its two ends.
struct Worker {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    // killed when it is dropped
    _child: Child,
}

fn failed(what: impl Into<String>) -> SourceError {
    SourceError::Failed(what.into())
}

/// Where the program lies: named in the environment, beside this one, or on the path.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os(PROGRAM_VARIABLE) {
        return named.into();
    }
    let own = std::env::current_exe().unwrap_or_default();
    let mut beside = own.parent();
    // tests lie in a folder below programs
    if beside.is_some_and(|dir| dir.ends_with("deps")) {
        beside = beside.and_then(std::path::Path::parent);
    }
    match beside.map(|dir| dir.join(PROGRAM)) {
        Some(there) if there.is_file() => there,
        _ => PROGRAM.into(),
    }
}

impl Worker {
    async fn start(connection: &str, read_only: bool) -> Result<Self, SourceError> {
        let program = program();
        let mut command = Command::new(&program);
        // a vendor's library has no business with what unlocks the node
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TONGBAN_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| {
            failed(format!(
                "starting `{}` failed ({}); install it beside tongban, or name it in {PROGRAM_VARIABLE}",
                program.display(),
                e.kind()
            ))
        })?;
        let input = child.stdin.take().ok_or_else(|| failed("the ODBC program has no input"))?;
        let output = child.stdout.take().ok_or_else(|| failed("the ODBC program has no output"))?;
        let mut worker = Self { input, output: BufReader::new(output), _child: child };
        let open = Request::Open { connection: connection.to_owned(), read_only };
        match worker.ask(&open, CONNECT_LIMIT).await? {
            Reply::Open => Ok(worker),
            Reply::Failed { why } => Err(failed(format!("connecting failed: {why}"))),
            _ => Err(failed("the ODBC program answered something else")),
        }
    }

    async fn ask(&mut self, request: &Request, limit: Duration) -> Result<Reply, SourceError> {
        let mut line = serde_json::to_vec(request).expect("a request can be written as JSON");
        line.push(b'\n');
        let gone = |_| failed("the ODBC program ended");
        let work = async {
            self.input.write_all(&line).await.map_err(gone)?;
            let mut answer = Vec::new();
            let mut bounded = (&mut self.output).take(LINE_BYTES_MAX);
            bounded.read_until(b'\n', &mut answer).await.map_err(gone)?;
            if answer.last() != Some(&b'\n') {
                return Err(failed("the ODBC program ended"));
            }
            serde_json::from_slice(&answer).map_err(|_| failed("the ODBC program answered no JSON"))
        };
        tokio::time::timeout(limit, work).await.unwrap_or(Err(SourceError::TimedOut))
    }
}

/// A database behind an ODBC driver.
pub struct Odbc {
    connection: String,
    read_only: bool,
    idle: Mutex<Vec<Worker>>,
    permits: Semaphore,
    /// Since when connecting fails, and how.
    rests: Mutex<Option<(Instant, String)>>,
}

impl Odbc {
    /// Connects with a connection string. Drivers and data sources are those of the machine (`odbcinst.ini`, `odbc.ini`).
    pub(crate) async fn open(connection: &str, read_only: bool) -> Result<Self, SourceError> {
        let first = Worker::start(connection, read_only).await?;
        Ok(Self {
            connection: connection.to_owned(),
            read_only,
            idle: Mutex::new(vec![first]),
            permits: Semaphore::new(CONNECTIONS),
            rests: Mutex::default(),
        })
    }

    fn take(&self) -> Option<Worker> {
        self.idle.lock().expect("no holder of this lock panics").pop()
    }

    async fn started(&self) -> Result<Worker, SourceError> {
        let resting = self.rests.lock().expect("no holder of this lock panics").clone();
        if let Some((since, why)) = resting
            && since.elapsed() < REST
        {
            return Err(SourceError::Failed(why));
        }
        let started = Worker::start(&self.connection, self.read_only).await;
        let mut rests = self.rests.lock().expect("no holder of this lock panics");
        *rests = started.as_ref().err().map(|e| (Instant::now(), e.to_string()));
        started
    }

    /// Asks a program that is free, or another one where none is, or where it ended while it was idle. Whatever is asked may be asked
    /// twice: reads, and writes with a key.
    async fn ask(&self, request: &Request) -> Result<Reply, SourceError> {
        let _permit = tokio::time::timeout(CONNECT_LIMIT, self.permits.acquire())
            .await
            .map_err(|_| failed("no connection was free"))?
            .map_err(|_| failed("it was closed"))?;
        let mut found = None;
        while let Some(mut worker) = self.take() {
            match worker.ask(request, ANSWER_LIMIT).await {
                Ok(reply) => {
                    found = Some((worker, reply));
                    break;
                }
                Err(e @ SourceError::TimedOut) => return Err(e),
                Err(_) => {}
            }
        }
        let (worker, reply) = match found {
            Some(found) => found,
            None => {
                let mut worker = self.started().await?;
                let reply = worker.ask(request, ANSWER_LIMIT).await?;
                (worker, reply)
            }
        };
        // after a failure the connection may be of no more use
        if !matches!(reply, Reply::Failed { .. }) {
            self.idle.lock().expect("no holder of this lock panics").push(worker);
        }
        match reply {
            Reply::Failed { why } => Err(SourceError::Failed(why)),
            Reply::Refused => Err(SourceError::Refused),
            Reply::RowCount { expected, found } => Err(SourceError::RowCount { expected, found }),
            reply => Ok(reply),
        }
    }

    async fn rows(
        &self,
        sql: String,
        values: Vec<Cell>,
        bytes: Vec<bool>,
        limit: u64,
    ) -> Result<Vec<Vec<Option<Stored>>>, SourceError> {
        match self.ask(&Request::Read { sql, values, bytes, limit }).await? {
            Reply::Rows { rows } => {
                let row =
                    |row: Vec<Option<Cell>>| row.into_iter().map(|c| c.map(stored).transpose()).collect();
                rows.into_iter().map(row).collect()
            }
            _ => Err(failed("the ODBC program answered something else")),
        }
    }
}

fn stored(cell: Cell) -> Result<Stored, SourceError> {
    Ok(match cell {
        Cell::Text(text) => Stored::Text(text),
        Cell::Bytes { hex } => {
            Stored::Bytes(hex::decode(hex).map_err(|_| failed("the ODBC program's bytes are none"))?)
        }
    })
}

fn cell(value: &Stored) -> Cell {
    match value {
        Stored::Text(text) => Cell::Text(text.clone()),
        Stored::Bytes(bytes) => Cell::Bytes { hex: hex::encode(bytes) },
    }
}

impl Source for Odbc {
    async fn columns(&self, table: &str) -> Result<Vec<(String, String)>, SourceError> {
        let sql = Dialect::describe(table);
        match self.ask(&Request::Describe { sql }).await? {
            Reply::Columns { columns } => Ok(columns),
            _ => Err(failed("the ODBC program answered something else")),
        }
    }

    async fn select(
        &self,
        select: &Select,
        binds: &[Stored],
    ) -> Result<Vec<Vec<Option<Stored>>>, SourceError> {
        let sql = Dialect::Odbc.select(select, binds, &BTreeMap::new());
        let bytes = select.columns.iter().map(|(_, bytes)| *bytes).collect();
        self.rows(sql, binds.iter().map(cell).collect(), bytes, select.limit).await
    }

    async fn distinct(
        &self,
        table: &str,
        column: &str,
        bytes: bool,
        limit: u64,
    ) -> Result<Vec<Stored>, SourceError> {
        let sql = Dialect::Odbc.distinct(table, column, bytes, limit);
        let rows = self.rows(sql, vec![], vec![bytes], limit).await?;
        Ok(rows.into_iter().flatten().flatten().collect())
    }

    async fn write_once(
        &self,
        key: &str,
        writes: &[Write],
        result: &BTreeMap<FieldId, String>,
    ) -> Result<Written, SourceError> {
        if self.read_only {
            return Err(failed("it was opened for reading only"));
        }
        let statement = |write: &Write| {
            let picks = write.pick.iter().flat_map(|(_, forms)| forms);
            let values = write.set.iter().map(|(_, value)| value).chain(picks);
            let sql = Dialect::Odbc.write(write, &BTreeMap::new());
            Statement { sql, values: values.map(cell).collect(), expect: write.expect }
        };
        let result = serde_json::to_string(result).expect("a map of texts can be written as JSON");
        let statements = writes.iter().map(statement).collect();
        match self.ask(&Request::Write { key: key.to_owned(), result, statements }).await? {
            Reply::Written { before: None } => Ok(Written::Now),
            Reply::Written { before: Some(before) } => serde_json::from_str(&before)
                .map(Written::Before)
                .map_err(|_| failed("the action journal is damaged")),
            _ => Err(failed("the ODBC program answered something else")),
        }
    }

    async fn close(&self) {
        self.permits.close();
        self.idle.lock().expect("no holder of this lock panics").clear();
    }
}

#[cfg(test)]
mod tests {

    #[test]
    fn passwords_are_not_shown() {
        let shown = |text: &str| crate::shown(&format!("odbc:{text}"));
        assert_eq!(shown("DSN=registry"), "odbc:DSN=registry");
        assert_eq!(shown("Driver={DM8};UID=tongban;PWD=se;cret;x=y"), "odbc:Driver={DM8};UID=tongban;…");
        assert_eq!(shown("DSN=a;Password={b;c};d"), "odbc:DSN=a;…");
        assert_eq!(shown("DSN=a;AccessToken=b"), "odbc:DSN=a;…");
        assert_eq!(shown("DSN=a;UID=scott/tiger"), "odbc:DSN=a;…");
    }
}
