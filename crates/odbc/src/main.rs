//! `tongban-odbc`: one connection through an ODBC driver, in a process of its own. `tongban` starts it, asks over standard input, a JSON
//! document a line, and reads the answers from standard output (`gateway::odbc`). Whoever starts it by hand may ask it the same.

use gateway::odbc::{
    Cell, JOURNAL, READ_BYTES_MAX, Reply, Request, STATEMENT_SECONDS, Statement, VALUE_BYTES_MAX,
};
use odbc_api::{
    Connection, ConnectionOptions, Cursor, CursorImpl, CursorRow, DataType, Error, ParameterCollectionRef,
    ResultSetMetadata as _,
    buffers::Indicator,
    environment,
    handles::StatementImpl,
    parameter::{InputParameter, VarBinaryBox, VarBinarySliceMut, VarCell, VarWCharBox, WideText},
};
use std::io::{BufRead as _, Write as _};

/// How long connecting may take, in seconds.
const CONNECT_SECONDS: u32 = 8;
/// The most memory the process may have, in bytes: drivers keep whole results, and a table may be large.
const MEMORY_MAX: u64 = 2 << 30;
/// The longest line of a request, in bytes.
const LINE_BYTES_MAX: u64 = 16 << 20;

fn main() {
    // where a limit cannot be set the gateway's own time limit still holds
    let _ = rlimit::setrlimit(rlimit::Resource::AS, MEMORY_MAX, MEMORY_MAX);
    // what a driver that crashes had in memory is on no disk
    let _ = rlimit::setrlimit(rlimit::Resource::CORE, 0, 0);
    let mut input = std::io::stdin().lock();
    let mut connection = None;
    loop {
        let mut line = Vec::new();
        let mut bounded = std::io::Read::take(&mut input, LINE_BYTES_MAX);
        match bounded.read_until(b'\n', &mut line) {
            Ok(n) if n > 0 && line.last() == Some(&b'\n') => {}
            // the end, or what nobody who knows this program sends
            _ => return,
        }
        let reply = match (serde_json::from_slice(&line), &connection) {
            (Ok(Request::Open { connection: to, read_only }), None) => match open(&to, read_only) {
                Ok(opened) => {
                    connection = Some(opened);
                    Reply::Open
                }
                Err(reply) => reply,
            },
            (Ok(request), Some(connection)) => answer(connection, request).unwrap_or_else(|reply| reply),
            (Ok(_), None) => Reply::Failed { why: "it is not connected".into() },
            (Err(_), _) => Reply::Failed { why: "this is no request".into() },
        };
        let mut out = std::io::stdout().lock();
        let text = serde_json::to_string(&reply).expect("a reply can be written as JSON");
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn failed(why: impl Into<String>) -> Reply {
    Reply::Failed { why: why.into() }
}

/// An error's state and number. Its message may quote a value, and is not passed on.
struct Told {
    state: String,
    native: i32,
}

fn told(e: &Error) -> Option<Told> {
    match e {
        Error::Diagnostics { record, .. } => {
            Some(Told { state: record.state.as_str().to_owned(), native: record.native_error })
        }
        _ => None,
    }
}

fn reply_to(e: Error) -> Reply {
    match told(&e) {
        Some(Told { state, native }) => failed(format!("code {state}/{native}")),
        None => failed("the driver failed without a code"),
    }
}

/// A connection and whose it is: drivers put what their databases say of themselves into numbers of their own.
struct Connected {
    connection: Connection<'static>,
    dbms: String,
}

impl Connected {
    /// What came of a write: whether the database's own rules refuse it.
    fn written(&self, e: Error) -> Reply {
        let Some(Told { state, native }) = told(&e) else { return reply_to(e) };
        // SQLSTATE class 23: a violated constraint; P0001 and 45000: raised by a trigger
        let by_state = state.starts_with("23") || state == "P0001" || state == "45000";
        let by_number = match &self.dbms {
            // sqlite.org/rescode.html: a constraint, or raised by a trigger
            dbms if dbms.contains("sqlite") => native == 19,
            // ORA-20000 to ORA-20999: raise_application_error
            dbms if dbms.contains("oracle") => (20_000..21_000).contains(&native.unsigned_abs()),
            // -20000 to -30000: raised by a user's own block (DM8 SQL manual)
            dbms if dbms.starts_with("dm") => (20_000..=30_000).contains(&native.unsigned_abs()),
            _ => false,
        };
        if by_state || by_number { Reply::Refused } else { reply_to(e) }
    }

    /// Whether a statement failed because there is no such table: SQLSTATE 42S02, PostgreSQL's own 42P01; SQLite's driver tells every
    /// mistake in a statement as HY000/1.
    fn lacks_table(&self, told: &Told) -> bool {
        let sqlite = self.dbms.contains("sqlite") && told.state == "HY000" && told.native == 1;
        told.state == "42S02" || told.state == "42P01" || sqlite
    }

    /// Runs a statement, in time where the driver knows time limits; one without has the gateway's.
    fn run(
        &self,
        sql: &str,
        values: impl ParameterCollectionRef,
    ) -> Result<Option<CursorImpl<StatementImpl<'_>>>, Error> {
        let mut statement = self.connection.preallocate()?;
        let _ = statement.set_query_timeout_sec(STATEMENT_SECONDS);
        statement.into_cursor(sql, values)
    }
}

fn open(to: &str, read_only: bool) -> Result<Connected, Reply> {
    let options = ConnectionOptions { login_timeout_sec: Some(CONNECT_SECONDS), ..Default::default() };
    let environment = environment().map_err(|_| failed("the machine has no ODBC driver manager"))?;
    let connection = environment.connect_with_connection_string(to, options).map_err(reply_to)?;
    let quote = connection.identifier_quote_char().map_err(reply_to)?;
    if quote != Some('"') {
        return Err(failed("names are not quoted as SQL has it here; use the source of this database's own"));
    }
    let dbms = connection.database_management_system_name().map_err(reply_to)?.to_lowercase();
    let connection = Connected { connection, dbms };
    if !read_only {
        let journal = format!(
            "CREATE TABLE {JOURNAL} (\"key\" VARCHAR(191) NOT NULL PRIMARY KEY, \"result\" VARCHAR(4000) NOT NULL)"
        );
        // it is there already, or an administrator makes it
        let _ = connection.run(&journal, ());
    }
    Ok(connection)
}

/// Text as UTF-16: bytes would be in whatever encoding the driver takes the process to have.
fn wide(text: &str) -> VarWCharBox {
    VarWCharBox::from_str_slice(text)
}

fn values(cells: Vec<Cell>) -> Result<Vec<Box<dyn InputParameter>>, Reply> {
    let value = |cell| -> Result<Box<dyn InputParameter>, Reply> {
        Ok(match cell {
            Cell::Text(text) => Box::new(wide(&text)),
            Cell::Bytes { hex } => {
                let bytes = hex::decode(hex).map_err(|_| failed("bytes are in hexadecimal"))?;
                Box::new(VarBinaryBox::from_vec(bytes))
            }
        })
    };
    cells.into_iter().map(value).collect()
}

fn answer(connection: &Connected, request: Request) -> Result<Reply, Reply> {
    match request {
        Request::Open { .. } => Err(failed("it is connected")),
        Request::Describe { sql } => describe(connection, &sql),
        Request::Read { sql, values, bytes, limit } => read(connection, &sql, values, &bytes, limit),
        Request::Write { key, result, statements } => write(connection, &key, &result, statements),
    }
}

fn describe(connection: &Connected, sql: &str) -> Result<Reply, Reply> {
    let described = connection.run(sql, ()).and_then(|cursor| {
        let Some(mut cursor) = cursor else { return Ok(vec![]) };
        let n = u16::try_from(cursor.num_result_cols()?).unwrap_or_default();
        (1..=n).map(|i| Ok((cursor.col_name(i)?, type_name(&cursor.col_data_type(i)?)))).collect()
    });
    match described {
        Ok(columns) => Ok(Reply::Columns { columns }),
        Err(e) if told(&e).is_some_and(|t| connection.lacks_table(&t)) => {
            Ok(Reply::Columns { columns: vec![] })
        }
        Err(e) => Err(reply_to(e)),
    }
}

/// A type as SQL writes it: `varchar(28)`, `decimal(12,2)`.
fn type_name(kind: &DataType) -> String {
    let sized = |name: &str, length: &Option<std::num::NonZeroUsize>| match length {
        Some(length) => format!("{name}({length})"),
        None => name.to_owned(),
    };
    match kind {
        DataType::Char { length } | DataType::WChar { length } => sized("char", length),
        DataType::Varchar { length } | DataType::WVarchar { length } => sized("varchar", length),
        DataType::Numeric { precision, scale } => format!("numeric({precision},{scale})"),
        DataType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        // the rest by its name: `integer`, `date`, `longvarbinary`
        other => {
            let name = format!("{other:?}").to_lowercase();
            name.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
        }
    }
}

fn text(row: &mut CursorRow<'_>, column: u16, buffer: &mut Vec<u16>) -> Result<Option<Cell>, Reply> {
    // characters of the largest value there may be, one more, and what ends them
    buffer.resize(VALUE_BYTES_MAX + 2, 0);
    let mut value = VarCell::<_, WideText>::from_buffer(buffer.as_mut_slice(), Indicator::Null);
    row.get_data(column, &mut value).map_err(reply_to)?;
    if !value.is_complete() {
        // one that is too long is refused as too long
        return Ok(Some(Cell::Text("x".repeat(VALUE_BYTES_MAX + 1))));
    }
    Ok(value.as_utf16().map(|text| Cell::Text(text.to_string())))
}

fn binary(row: &mut CursorRow<'_>, column: u16) -> Result<Option<Cell>, Reply> {
    let mut buffer = vec![0; VALUE_BYTES_MAX + 1];
    let mut value = VarBinarySliceMut::from_buffer(buffer.as_mut_slice(), Indicator::Null);
    row.get_data(column, &mut value).map_err(reply_to)?;
    if !value.is_complete() {
        return Ok(Some(Cell::Bytes { hex: hex::encode(vec![0; VALUE_BYTES_MAX + 1]) }));
    }
    Ok(value.as_bytes().map(|bytes| Cell::Bytes { hex: hex::encode(bytes) }))
}

fn read(
    connection: &Connected,
    sql: &str,
    sought: Vec<Cell>,
    bytes: &[bool],
    limit: u64,
) -> Result<Reply, Reply> {
    let sought = values(sought)?;
    let cursor = match connection.run(sql, sought.as_slice()) {
        Ok(cursor) => cursor,
        // SQLSTATE class 22: the value is none of the column's type, so that nothing equals it
        Err(e) if told(&e).is_some_and(|t| t.state.starts_with("22")) => {
            return Ok(Reply::Rows { rows: vec![] });
        }
        Err(e) => return Err(reply_to(e)),
    };
    let Some(mut cursor) = cursor else { return Err(failed("the statement reads nothing")) };
    let (mut rows, mut total, mut buffer) = (Vec::new(), 0, Vec::new());
    while (rows.len() as u64) < limit {
        let Some(mut row) = cursor.next_row().map_err(reply_to)? else { break };
        let mut cells = Vec::with_capacity(bytes.len());
        for (column, bytes) in (1..).zip(bytes) {
            let cell = if *bytes { binary(&mut row, column) } else { text(&mut row, column, &mut buffer) }?;
            total += match &cell {
                Some(Cell::Text(text)) => text.len(),
                Some(Cell::Bytes { hex }) => hex.len() / 2,
                None => 0,
            };
            cells.push(cell);
        }
        if total > READ_BYTES_MAX {
            return Err(failed("it gave more than one answer may hold"));
        }
        rows.push(cells);
    }
    Ok(Reply::Rows { rows })
}

fn write(
    connection: &Connected,
    key: &str,
    result: &str,
    statements: Vec<Statement>,
) -> Result<Reply, Reply> {
    connection.connection.set_autocommit(false).map_err(reply_to)?;
    let mut done = transaction(connection, key, result, statements);
    if matches!(done, Ok(Reply::Written { before: None })) {
        if let Err(e) = connection.connection.commit() {
            let _ = connection.connection.rollback();
            done = Err(connection.written(e));
        }
    } else {
        connection.connection.rollback().map_err(reply_to)?;
    }
    connection.connection.set_autocommit(true).map_err(reply_to)?;
    done
}

fn kept(connection: &Connected, key: &str) -> Result<Option<String>, Reply> {
    let sql = format!("SELECT \"result\" FROM {JOURNAL} WHERE \"key\" = ?");
    let cursor = connection.run(&sql, &wide(key));
    let Some(mut cursor) = cursor.map_err(reply_to)? else { return Ok(None) };
    let Some(mut row) = cursor.next_row().map_err(reply_to)? else { return Ok(None) };
    match text(&mut row, 1, &mut Vec::new())? {
        Some(Cell::Text(result)) => Ok(Some(result)),
        _ => Err(failed("the action journal is damaged")),
    }
}

fn transaction(
    connection: &Connected,
    key: &str,
    result: &str,
    statements: Vec<Statement>,
) -> Result<Reply, Reply> {
    if let Some(before) = kept(connection, key)? {
        return Ok(Reply::Written { before: Some(before) });
    }
    let enter = format!("INSERT INTO {JOURNAL} VALUES (?, ?)");
    let entered = (&wide(key), &wide(result));
    if let Err(e) = connection.run(&enter, entered) {
        // somebody else entered it in between: after that one's transaction it is there
        let reply = connection.written(e);
        if !matches!(reply, Reply::Refused) {
            return Err(reply);
        }
        connection.connection.rollback().map_err(reply_to)?;
        return match kept(connection, key)? {
            Some(before) => Ok(Reply::Written { before: Some(before) }),
            None => Err(failed("the action journal takes no key")),
        };
    }
    for Statement { sql, values: new, expect } in statements {
        let new = values(new)?;
        let mut statement = connection.connection.preallocate().map_err(reply_to)?;
        // a driver without time limits has the gateway's
        let _ = statement.set_query_timeout_sec(STATEMENT_SECONDS);
        statement.execute(&sql, new.as_slice()).map_err(|e| connection.written(e))?;
        let found = statement.row_count().map_err(reply_to)?.unwrap_or_default() as u64;
        if found != expect {
            return Ok(Reply::RowCount { expected: expect, found });
        }
    }
    Ok(Reply::Written { before: None })
}
