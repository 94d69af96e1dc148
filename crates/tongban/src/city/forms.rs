//! `tongban city`: the demo's city in the forms departments keep their data in, each with the connector that maps it and with
//! questions whose answers are known.

use super::{Cell, City};
use crate::{say, stage};
use anyhow::{Context as _, Result, bail};
use axum::{
    Json, Router,
    extract::{Path as UrlPath, State},
    http::{HeaderMap, StatusCode, header},
    routing::post,
};
use clap::{Args, Subcommand, ValueEnum};
use gateway::Connector;
use model::DepartmentId;
use serde_json::{Map, Value, json};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, PgConnection, Row as _, SqliteConnection,
    SqlitePool, TypeInfo as _, ValueRef as _,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

/// `tongban city …`.
#[derive(Subcommand)]
pub enum CityCommand {
    /// Write departments of the invented city in a form of their own, with the connector that maps it and `expected.jsonl`.
    ///
    /// Example: tongban city write --form csv-gbk --department housing --out city
    ///
    /// Example: TONGBAN_DATABASE=postgres://tongban@127.0.0.1/city tongban city write --form postgres --out city
    Write(Write),
    /// Serve a department's data over HTTP as JSON, as a department without a database to share does. Write it first, as `--form service`.
    ///
    /// Example: tongban city serve --from city/gas --listen 127.0.0.1:8090
    Serve {
        /// The department's folder that `city write --form service` made.
        #[arg(long)]
        from: PathBuf,
        /// The address to listen on.
        #[arg(long, default_value = "127.0.0.1:8090")]
        listen: SocketAddr,
    },
}

/// What to write.
#[derive(Args)]
pub struct Write {
    /// The form.
    #[arg(long, value_enum)]
    form: Form,
    /// One department; without it all that hold data.
    #[arg(long)]
    department: Option<DepartmentId>,
    /// The folder; one for each department is made in it.
    #[arg(long)]
    out: PathBuf,
    /// For `postgres` and `mariadb`: the database; the city's tables are made in it. A password is better put into TONGBAN_DATABASE.
    #[arg(long, env = "TONGBAN_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// The seed of the city.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// A form data is kept in.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A SQLite file.
    Sqlite,
    /// Tables in a PostgreSQL database.
    Postgres,
    /// Tables in a MySQL or MariaDB database.
    Mariadb,
    /// CSV files in UTF-8.
    Csv,
    /// CSV files in GBK.
    CsvGbk,
    /// A workbook for each table.
    Excel,
    /// What `city serve` serves.
    Service,
}

impl CityCommand {
    /// Whether it prints one JSON document.
    pub fn json(&self) -> bool {
        matches!(self, Self::Write(Write { json: true, .. }))
    }
}

/// Runs `tongban city …`.
pub async fn city(command: CityCommand) -> Result<()> {
    match command {
        CityCommand::Write(options) => write(options).await,
        CityCommand::Serve { from, listen } => serve(&from, listen).await,
    }
}

/// A table or view of a department's database, whole.
struct Table {
    name: String,
    view: bool,
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

/// A department as it was written.
struct Written {
    /// What `--database` of `connector check` is; none for a service, whose address is chosen when it is served.
    database: Option<String>,
    /// The database's own rules that the form has no like of.
    left_out: Vec<String>,
}

async fn write(options: Write) -> Result<()> {
    let departments = stage::all_departments()?;
    let mut chosen = Vec::new();
    for department in departments {
        let text = stage::connector(&department.id)?;
        let connector = Connector::parse(&format!("demo/departments/{}.yaml", department.id), &text)?;
        let wanted = options.department.as_ref().is_none_or(|id| *id == department.id);
        if wanted && !connector.resources.is_empty() {
            chosen.push((department.id, text, connector));
        }
    }
    if chosen.is_empty() {
        let known = stage::all_departments()?.into_iter().map(|d| d.id.to_string()).collect::<Vec<_>>();
        bail!("no such department holds data; the demo has {}", known.join(", "));
    }
    std::fs::create_dir_all(&options.out).with_context(|| format!("making {}", options.out.display()))?;
    let standard = options.out.join("elements.yaml");
    std::fs::write(&standard, crate::setup::ELEMENTS)?;
    let city = City::new(options.seed);
    let mut report = Vec::new();
    for (id, text, connector) in chosen {
        let home = options.out.join(id.as_str());
        if home.exists() {
            bail!("{} is there already; remove it, or choose another --out", home.display());
        }
        std::fs::create_dir_all(&home)?;
        let questions = city.questions(id.as_str());
        let lines: String = questions.iter().map(|q| format!("{q}\n")).collect();
        std::fs::write(home.join("expected.jsonl"), lines)?;
        let written = department(&city, &id, &text, connector, &home, &options);
        let written = written.await.with_context(|| format!("writing {id}"))?;
        if !options.json {
            let database = written.database.as_deref().map(gateway::shown);
            say!(
                "{:<10} {:>4} questions   --database {}",
                id.as_str(),
                questions.len(),
                database.as_deref().unwrap_or("http://…, once `tongban city serve` runs")
            );
            written.left_out.iter().for_each(|what| say!("           left out: {what}"));
        }
        report.push(json!({
            "department": id,
            "connector": home.join("connector.yaml"),
            "expected": home.join("expected.jsonl"),
            "questions": questions.len(),
            "database": written.database.as_deref().map(gateway::shown),
            "left_out": written.left_out,
        }));
    }
    if options.json {
        say!("{}", json!({ "standard": standard, "departments": report }));
    } else {
        say!("Next: tongban connector test {} CONNECTOR --database … --expected FILE", standard.display());
    }
    Ok(())
}

async fn department(
    city: &City,
    id: &DepartmentId,
    text: &str,
    connector: Connector,
    home: &Path,
    options: &Write,
) -> Result<Written> {
    let file = home.join("department.db");
    city.write(id.as_str(), &file).await?;
    let (mut database, mut left_out, mut text) =
        (Some(file.display().to_string()), Vec::new(), text.to_owned());
    let tables = match options.form {
        Form::Sqlite => vec![],
        _ => tables(&file).await?,
    };
    let data = home.join("data");
    let files = |ending: &str, encoding: &str| {
        let declared = tables.iter().map(|table| {
            let file = format!("{}.{ending}", table.name);
            (table.name.clone(), json!({ "file": file, "encoding": encoding, "may_be_empty": true }))
        });
        json!({ "files": declared.collect::<Map<_, _>>() })
    };
    match options.form {
        Form::Sqlite => {}
        Form::Postgres | Form::Mariadb => {
            let address = options.database.as_deref();
            let address = address.context("name the database with --database or TONGBAN_DATABASE")?;
            let statements = translated(&file, options.form, &mut left_out).await?;
            match options.form {
                Form::Postgres => postgres(address, &statements, &tables).await,
                _ => mariadb(address, &statements, &tables).await,
            }?;
            std::fs::remove_file(&file)?;
            database = Some(address.to_owned());
        }
        Form::Csv | Form::CsvGbk | Form::Excel => {
            std::fs::create_dir(&data)?;
            let gbk = options.form == Form::CsvGbk;
            for table in &tables {
                match options.form {
                    Form::Excel => excel(table, &data.join(format!("{}.xlsx", table.name)))?,
                    _ => csv(table, gbk, &data.join(format!("{}.csv", table.name)))?,
                }
            }
            let ending = if options.form == Form::Excel { "xlsx" } else { "csv" };
            text = adapted(connector, files(ending, if gbk { "gbk" } else { "utf8" }))?;
            left_out.push("actions, and the rules they meet: files are only read".into());
            std::fs::remove_file(&file)?;
            database = Some(format!("files:{}", data.display()));
        }
        Form::Service => {
            decode(&file, &tables).await?;
            let reads =
                tables.iter().map(|t| (t.name.clone(), json!({ "post": format!("/rows/{}", t.name) })));
            let reads = reads.collect::<Map<_, _>>();
            text = adapted(connector, json!({ "service": { "token_env": TOKEN, "reads": reads } }))?;
            left_out.push("actions: the service is only read".into());
            database = None;
        }
    }
    std::fs::write(home.join("connector.yaml"), text)?;
    Ok(Written { database, left_out })
}

/// Makes texts of the bytes in a department's database: a service serves texts, and finds by them.
async fn decode(file: &Path, tables: &[Table]) -> Result<()> {
    let mut db = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await?;
    let mut transaction = db.begin().await?;
    for table in tables.iter().filter(|table| !table.view) {
        for (i, column) in table.columns.iter().enumerate() {
            let distinct: BTreeSet<&Vec<u8>> = table
                .rows
                .iter()
                .filter_map(|row| if let Cell::Bytes(bytes) = &row[i] { Some(bytes) } else { None })
                .collect();
            let sql = format!("UPDATE \"{}\" SET \"{column}\" = ? WHERE \"{column}\" = ?", table.name);
            for bytes in distinct {
                let text = text_of(&Cell::Bytes(bytes.clone()));
                let update = sqlx::query(AssertSqlSafe(sql.clone())).bind(text).bind(bytes.as_slice());
                update.execute(&mut *transaction).await?;
            }
        }
    }
    transaction.commit().await?;
    Ok(db.close().await?)
}

/// A connector for texts that are decoded already and cannot be written to, with where its tables are.
fn adapted(mut connector: Connector, place: Value) -> Result<String> {
    for column in connector.entities.values_mut().flat_map(|entity| entity.columns.values_mut()) {
        column.transform.retain(|step| !matches!(step, gateway::Transform::Gbk));
    }
    connector.actions.clear();
    let mut value = serde_json::to_value(connector)?;
    for (key, there) in place.as_object().into_iter().flatten() {
        value[key] = there.clone();
    }
    without_nothing(&mut value);
    Ok(serde_saphyr::to_string(&value)?)
}

/// Leaves out what says nothing.
fn without_nothing(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(without_nothing);
            map.retain(|_, v| !v.is_null() && v.as_object().is_none_or(|map| !map.is_empty()));
        }
        Value::Array(list) => list.iter_mut().for_each(without_nothing),
        _ => {}
    }
}

fn cells(row: &SqliteRow) -> Result<Vec<Cell>> {
    let cell = |i: usize| {
        let raw = row.try_get_raw(i)?;
        Ok(match raw.type_info().name() {
            _ if raw.is_null() => Cell::Null,
            "INTEGER" => Cell::Integer(row.try_get(i)?),
            "BLOB" => Cell::Bytes(row.try_get(i)?),
            _ => Cell::Text(row.try_get(i)?),
        })
    };
    (0..row.columns().len()).map(cell).collect()
}

async fn tables(file: &Path) -> Result<Vec<Table>> {
    let mut db = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await?;
    let named = "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY rowid";
    let named: Vec<(String, String)> = sqlx::query_as(named).fetch_all(&mut db).await?;
    let mut tables = Vec::new();
    for (name, kind) in named {
        let columns = sqlx::query_scalar("SELECT name FROM pragma_table_info(?)").bind(name.clone());
        let columns = columns.fetch_all(&mut db).await?;
        let select = AssertSqlSafe(format!("SELECT * FROM \"{name}\""));
        let rows = sqlx::query(select).fetch_all(&mut db).await?;
        let rows = rows.iter().map(cells).collect::<Result<_>>()?;
        tables.push(Table { name, view: kind == "view", columns, rows });
    }
    db.close().await?;
    Ok(tables)
}

/// The statements that make a department's tables, indexes and views, in another database's words. What it has no like of is left out.
async fn translated(file: &Path, form: Form, left_out: &mut Vec<String>) -> Result<Vec<String>> {
    let mut db = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await?;
    let made = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid";
    let made: Vec<(String, String, String)> = sqlx::query_as(made).fetch_all(&mut db).await?;
    db.close().await?;
    let mut statements = Vec::new();
    for (kind, name, sql) in made {
        let partial = kind == "index" && sql.contains(" WHERE ") && form == Form::Mariadb;
        if kind == "trigger" || partial {
            left_out.push(format!("the {kind} {name}"));
            continue;
        }
        statements.push(match form {
            Form::Postgres => sql
                .replace(" BLOB", " BYTEA")
                .replace("date('now', '-3 years')", "to_char(now() - interval '3 years', 'YYYY-MM-DD')"),
            _ => sql
                .replace(" TEXT", " VARCHAR(191)")
                .replace("date('now', '-3 years')", "DATE_FORMAT(NOW() - INTERVAL 3 YEAR, '%Y-%m-%d')"),
        });
    }
    Ok(statements)
}

/// Fills a database of another kind, all in one transaction where it can.
macro_rules! fill {
    ($connection:ty, $address:expr, $statements:expr, $tables:expr, $place:expr) => {{
        let connected = <$connection>::connect($address).await;
        let mut db = connected.with_context(|| format!("connecting to {}", gateway::shown($address)))?;
        let mut transaction = db.begin().await?;
        for statement in $statements {
            let done = transaction.execute(AssertSqlSafe(statement.clone())).await;
            done.with_context(|| format!("`{statement}` (give it a database without the city's tables)"))?;
        }
        for table in $tables.iter().filter(|table| !table.view) {
            for rows in table.rows.chunks(500) {
                let width = table.columns.len();
                let row = |i: usize| {
                    let places: Vec<String> = (1..=width).map(|k| $place(i * width + k)).collect();
                    format!("({})", places.join(", "))
                };
                let places = (0..rows.len()).map(row).collect::<Vec<_>>().join(", ");
                let sql = format!("INSERT INTO {} VALUES {places}", table.name);
                let mut query = sqlx::query(AssertSqlSafe(sql));
                for cell in rows.iter().flatten() {
                    query = match cell {
                        Cell::Null => query.bind(None::<String>),
                        Cell::Integer(n) => query.bind(*n),
                        Cell::Text(text) => query.bind(text.as_str()),
                        Cell::Bytes(bytes) => query.bind(bytes.as_slice()),
                    };
                }
                query.execute(&mut *transaction).await.with_context(|| format!("filling {}", table.name))?;
            }
        }
        transaction.commit().await?;
        db.close().await?;
        Ok(())
    }};
}

async fn postgres(address: &str, statements: &[String], tables: &[Table]) -> Result<()> {
    fill!(PgConnection, address, statements, tables, |n: usize| format!("${n}"))
}

async fn mariadb(address: &str, statements: &[String], tables: &[Table]) -> Result<()> {
    let address = &address.replacen("mariadb://", "mysql://", 1);
    fill!(MySqlConnection, address, statements, tables, |_| "?".to_owned())
}

/// A value as text; bytes are GBK in the city.
fn text_of(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Integer(n) => n.to_string(),
        Cell::Text(text) => text.clone(),
        Cell::Bytes(bytes) => encoding_rs::GBK.decode(bytes).0.into_owned(),
    }
}

fn csv(table: &Table, gbk: bool, file: &Path) -> Result<()> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record(&table.columns)?;
    for row in &table.rows {
        writer.write_record(row.iter().map(text_of))?;
    }
    let bytes = writer.into_inner()?;
    if !gbk {
        return Ok(std::fs::write(file, bytes)?);
    }
    let (bytes, _, strange) = encoding_rs::GBK.encode(std::str::from_utf8(&bytes)?);
    if strange {
        bail!("a character of {} is not in GBK", table.name);
    }
    Ok(std::fs::write(file, &bytes)?)
}

fn excel(table: &Table, file: &Path) -> Result<()> {
    let mut workbook = rust_xlsxwriter::Workbook::new();
    let sheet = workbook.add_worksheet();
    for (column, name) in (0..).zip(&table.columns) {
        sheet.write_string(0, column, name)?;
    }
    for (row, cells) in (1..).zip(&table.rows) {
        for (column, cell) in (0..).zip(cells) {
            match cell {
                Cell::Null => continue,
                Cell::Integer(n) => sheet.write_number(row, column, *n as f64)?,
                text => sheet.write_string(row, column, text_of(text))?,
            };
        }
    }
    Ok(workbook.save(file)?)
}

/// The environment variable with the service's bearer token.
const TOKEN: &str = "TONGBAN_CITY_TOKEN";
/// The most rows one request is answered with.
const ROWS_MAX: u32 = 1_001;

struct Served {
    db: SqlitePool,
    columns: BTreeMap<String, Vec<String>>,
    token: String,
}

async fn serve(from: &Path, listen: SocketAddr) -> Result<()> {
    let token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
    let token = token.with_context(|| format!("set {TOKEN} to the token that callers must bring"))?;
    let file = from.join("department.db");
    let tables = tables(&file).await.with_context(|| format!("reading {}", file.display()))?;
    let columns = tables.into_iter().map(|table| (table.name, table.columns)).collect();
    let options = SqliteConnectOptions::new().filename(&file).read_only(true);
    let db = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
    let served = Arc::new(Served { db, columns, token });
    let app = Router::new().route("/rows/{table}", post(rows)).with_state(served);
    let listener = tokio::net::TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("listening on {listen}"))?;
    say!("serving {} on http://{listen} until it is stopped (Ctrl-C)", from.display());
    let stopped = async { drop(tokio::signal::ctrl_c().await) };
    Ok(axum::serve(listener, app).with_graceful_shutdown(stopped).await?)
}

async fn rows(
    State(served): State<Arc<Served>>,
    UrlPath(table): UrlPath<String>,
    headers: HeaderMap,
    Json(sought): Json<BTreeMap<String, String>>,
) -> Result<Json<Value>, StatusCode> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|h| h.to_str().ok());
    if bearer.and_then(|b| b.strip_prefix("Bearer ")) != Some(served.token.as_str()) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let columns = served.columns.get(&table).ok_or(StatusCode::NOT_FOUND)?;
    // nobody is given a whole table
    if sought.is_empty() || sought.keys().any(|column| !columns.contains(column)) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let picks: Vec<_> = sought.keys().map(|column| format!("\"{column}\" = ?")).collect();
    let sql = format!("SELECT * FROM \"{table}\" WHERE {} LIMIT {ROWS_MAX}", picks.join(" AND "));
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for value in sought.values() {
        query = query.bind(value.as_str());
    }
    let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
    let found = query.fetch_all(&served.db).await.map_err(failed)?;
    let object = |row: &SqliteRow| {
        let cells = cells(row).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let values = cells.into_iter().map(|cell| match cell {
            Cell::Null => Value::Null,
            Cell::Integer(n) => json!(n),
            text => json!(text_of(&text)),
        });
        Ok(Value::Object(columns.iter().cloned().zip(values).collect()))
    };
    found.iter().map(object).collect::<Result<Vec<_>, StatusCode>>().map(|rows| Json(json!(rows)))
}
