//! Files that a department drops into a folder: CSV and workbooks. The newest file of each table serves; one that cannot be taken in
//! leaves the one before in service, and is reported. Each version that served is kept under `history/`.

use super::{Select, Source, SourceError, Sqlite, Write, Written};
use crate::{
    declare::{Encoding, FileTable},
    transform::Stored,
};
use calamine::{Data, Reader as _};
use model::FieldId;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::{Duration, SystemTime},
};
use tracing::{info, warn};

/// The most bytes of a file, unpacked.
const FILE_BYTES_MAX: u64 = 512 << 20;
/// How many files are tried where nothing serves yet.
const VERSIONS_TRIED: usize = 5;
/// Where tables lie while they serve; what a killed process left there is removed after a day.
const WORK: &str = ".tongban";
/// Where versions that served are kept.
const HISTORY: &str = "history";

/// A folder of files.
pub struct Files {
    dir: PathBuf,
    tables: BTreeMap<String, FileTable>,
    /// Columns that are looked up as they are stored, by table.
    indexed: BTreeMap<String, BTreeSet<String>>,
    /// Whether versions that served are kept.
    keeps: bool,
    loaded: RwLock<BTreeMap<String, Arc<Loaded>>>,
    troubles: RwLock<BTreeMap<String, String>>,
    refreshing: tokio::sync::Mutex<()>,
}

/// A file that serves.
struct Loaded {
    version: Version,
    sqlite: Sqlite,
    columns: Vec<String>,
    _file: tempfile::TempPath,
}

/// What tells a file from its next version.
#[derive(Clone, PartialEq, Eq)]
struct Version {
    path: PathBuf,
    modified: SystemTime,
    bytes: u64,
}

fn failed(what: impl std::fmt::Display) -> SourceError {
    SourceError::Failed(what.to_string())
}

impl Files {
    /// Opens a folder. What is wrong with a file closes only its table.
    pub(crate) async fn open(
        dir: &Path,
        tables: &BTreeMap<String, FileTable>,
        indexed: BTreeMap<String, BTreeSet<String>>,
        keeps: bool,
    ) -> Result<Self, SourceError> {
        if !dir.is_dir() {
            return Err(failed(format!("{} is no folder", dir.display())));
        }
        let work = dir.join(WORK);
        std::fs::create_dir_all(&work).map_err(|e| failed(format!("making {}: {e}", work.display())))?;
        for entry in std::fs::read_dir(&work).into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|m| m.elapsed().ok());
            if age.is_some_and(|age| age > Duration::from_secs(86_400)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        let files = Self {
            dir: dir.to_owned(),
            tables: tables.clone(),
            indexed,
            keeps,
            loaded: RwLock::default(),
            troubles: RwLock::default(),
            refreshing: tokio::sync::Mutex::default(),
        };
        files.refresh().await?;
        Ok(files)
    }

    fn table(&self, table: &str) -> Option<Arc<Loaded>> {
        self.loaded.read().expect("no holder of this lock panics").get(table).cloned()
    }

    /// The files of a table in a folder, the newest first; `kept` ones have a hash before their names.
    fn versions(dir: &Path, declared: &FileTable, kept: bool) -> Result<Vec<Version>, String> {
        let (before, after) = declared.file.split_once('*').unwrap_or((&declared.file, ""));
        let fits = |name: &str| {
            let name = if kept { name.split_once('-').map_or("", |(_, name)| name) } else { name };
            match declared.file.contains('*') {
                true => {
                    name.len() >= before.len() + after.len()
                        && name.starts_with(before)
                        && name.ends_with(after)
                }
                false => name == declared.file,
            }
        };
        let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let versions =
            entries.flatten().filter(|e| e.file_name().to_str().is_some_and(fits)).filter_map(|e| {
                let meta = e.metadata().ok().filter(std::fs::Metadata::is_file)?;
                Some(Version { path: e.path(), modified: meta.modified().ok()?, bytes: meta.len() })
            });
        let mut versions: Vec<_> = versions.collect();
        versions.sort_by(|a, b| (b.modified, &b.path).cmp(&(a.modified, &a.path)));
        match versions.is_empty() {
            true => Err(format!("there is no file `{}` in {}", declared.file, dir.display())),
            false => Ok(versions),
        }
    }

    /// The newest file, where it does not serve yet; where it cannot be taken in and nothing serves, the newest before it that can,
    /// of the folder or of what served once. Returns also what is wrong.
    async fn next(&self, table: &str, declared: &FileTable) -> (Option<Loaded>, Option<String>) {
        let serving = self.table(table);
        let mut versions = match Self::versions(&self.dir, declared, false) {
            Ok(versions) => versions,
            Err(e) => return (None, Some(e)),
        };
        versions.truncate(VERSIONS_TRIED);
        versions.extend(Self::versions(&self.dir.join(HISTORY), declared, true).unwrap_or_default());
        let mut trouble = None;
        for version in versions.into_iter().take(2 * VERSIONS_TRIED) {
            if serving.as_ref().is_some_and(|s| s.version == version) {
                return (None, trouble);
            }
            let name = version.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match self.load(table, declared, version).await {
                Ok(loaded) => return (Some(loaded), trouble),
                Err(e) => trouble = trouble.or(Some(format!("`{name}`: {e}"))),
            }
            if serving.is_some() {
                break;
            }
        }
        (None, trouble)
    }

    async fn load(&self, table: &str, declared: &FileTable, version: Version) -> Result<Loaded, String> {
        let (path, how) = (version.path.clone(), declared.clone());
        let read = tokio::task::spawn_blocking(move || rows_of(&path, &how));
        let mut rows = read.await.map_err(|_| "reading it failed".to_owned())??.into_iter();
        let columns: Vec<String> = rows.next().ok_or("it has no header")?;
        let mut seen = BTreeSet::new();
        if columns.iter().any(|name| name.is_empty() || !seen.insert(name)) {
            return Err("its header has an empty name, or one twice".into());
        }
        let count = rows.len();
        if count == 0 && !declared.may_be_empty {
            return Err("it has no rows (`may_be_empty: true` where that is right)".into());
        }
        let work = self.dir.join(WORK);
        let made = tempfile::Builder::new().suffix(".db").tempfile_in(&work);
        let file = made.map_err(|e| format!("making a file in {}: {e}", work.display()))?.into_temp_path();
        let gone = |e: sqlx::Error| format!("keeping it failed: {}", super::sql::failed(e));
        let options = SqliteConnectOptions::new().filename(&file).pragma("synchronous", "OFF");
        let mut db = SqliteConnection::connect_with(&options).await.map_err(gone)?;
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let named = columns.iter().map(|c| format!("{} TEXT", quoted(c))).collect::<Vec<_>>().join(", ");
        db.execute(AssertSqlSafe(format!("CREATE TABLE {} ({named})", quoted(table)))).await.map_err(gone)?;
        let places = vec!["?"; columns.len()].join(", ");
        let insert = format!("INSERT INTO {} VALUES ({places})", quoted(table));
        let mut transaction = db.begin().await.map_err(gone)?;
        for row in rows {
            let mut query = sqlx::query(AssertSqlSafe(insert.clone()));
            for cell in row {
                query = query.bind(cell);
            }
            query.execute(&mut *transaction).await.map_err(gone)?;
        }
        transaction.commit().await.map_err(gone)?;
        for (i, column) in self.indexed.get(table).into_iter().flatten().enumerate() {
            if columns.contains(column) {
                let sql = format!("CREATE INDEX \"i{i}\" ON {} ({})", quoted(table), quoted(column));
                db.execute(AssertSqlSafe(sql)).await.map_err(gone)?;
            }
        }
        db.close().await.map_err(gone)?;
        let sqlite = Sqlite::open_read_only(&file).await.map_err(|e| e.to_string())?;
        if self.keeps && version.path.parent() == Some(&self.dir) {
            self.keep(&version).map_err(|e| format!("keeping a copy in {HISTORY} failed: {e}"))?;
        }
        let name = version.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        info!(table, file = name, rows = count, "a file is taken in");
        Ok(Loaded { version, sqlite, columns, _file: file })
    }

    /// Keeps a copy of what serves from now on, under its name with its hash.
    fn keep(&self, version: &Version) -> std::io::Result<()> {
        let history = self.dir.join(HISTORY);
        std::fs::create_dir_all(&history)?;
        let bytes = std::fs::read(&version.path)?;
        let hash = crypto::digest(model::Suite::International, &[&bytes]).to_string();
        let name = version.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kept = history.join(format!("{}-{name}", &hash[..12]));
        if !kept.exists() {
            let partial = history.join(format!(".{}-{name}", &hash[..12]));
            std::fs::write(&partial, bytes)?;
            std::fs::rename(partial, kept)?;
        }
        Ok(())
    }
}

/// All rows of a file, the header first.
fn rows_of(path: &Path, how: &FileTable) -> Result<Vec<Vec<String>>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let file = File::open(path).map_err(|e| e.to_string())?;
    if name.ends_with(".csv") || name.ends_with(".csv.gz") {
        let mut bytes = Vec::new();
        let read = match name.ends_with(".gz") {
            true => flate2::read::MultiGzDecoder::new(file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes),
            false => file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes),
        };
        read.map_err(|e| e.to_string())?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
        }
        return csv_rows(&bytes, how);
    }
    if file.metadata().map_err(|e| e.to_string())?.len() > FILE_BYTES_MAX {
        return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
    }
    let mut workbook = calamine::open_workbook_auto(path).map_err(|_| "it is no workbook".to_owned())?;
    let sheet = match &how.sheet {
        Some(sheet) => sheet.clone(),
        None => workbook.sheet_names().first().cloned().ok_or("it has no sheet")?,
    };
    let range = workbook.worksheet_range(&sheet).map_err(|_| format!("it has no sheet `{sheet}`"))?;
    Ok(range.rows().map(|row| row.iter().map(cell_text).collect()).collect())
}

fn csv_rows(bytes: &[u8], how: &FileTable) -> Result<Vec<Vec<String>>, String> {
    let encoding = match how.encoding {
        Encoding::Utf8 => encoding_rs::UTF_8,
        Encoding::Gbk => encoding_rs::GB18030,
    };
    let (text, bad) = encoding.decode_with_bom_removal(bytes);
    if bad {
        return Err(format!("it has bytes that are not {}, which is its `encoding`", encoding.name()));
    }
    let separator = u8::try_from(how.separator).map_err(|_| "its separator is no ASCII character")?;
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).delimiter(separator).from_reader(text.as_bytes());
    // the reader's own message may quote a row
    let row = |(i, record): (usize, csv::Result<csv::StringRecord>)| match record {
        Ok(record) => Ok(record.iter().map(str::to_owned).collect()),
        Err(_) => Err(format!("row {} has another number of fields than the header", i + 1)),
    };
    reader.records().enumerate().map(row).collect()
}

/// A cell as text: whole numbers without a decimal point, days as `yyyy-mm-dd`.
fn cell_text(cell: &Data) -> String {
    match cell {
        Data::Empty | Data::Error(_) => String::new(),
        Data::Float(n) if n.fract() == 0.0 && n.abs() < 1e15 => format!("{n:.0}"),
        Data::DateTime(time) if time.is_datetime() => {
            let (year, month, day, hour, minute, second, _) = time.to_ymd_hms_milli();
            match (hour, minute, second) {
                (0, 0, 0) => format!("{year:04}-{month:02}-{day:02}"),
                _ => format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"),
            }
        }
        other => other.to_string(),
    }
}

impl Source for Files {
    async fn columns(&self, table: &str) -> Result<Vec<(String, String)>, SourceError> {
        let columns = self.table(table).map(|t| t.columns.clone()).unwrap_or_default();
        Ok(columns.into_iter().map(|column| (column, "text".to_owned())).collect())
    }

    async fn select(
        &self,
        select: &Select,
        binds: &[Stored],
    ) -> Result<Vec<Vec<Option<Stored>>>, SourceError> {
        let table = self.table(&select.table).ok_or_else(|| failed("there is no such file"))?;
        table.sqlite.select(select, binds).await
    }

    async fn distinct(
        &self,
        table: &str,
        column: &str,
        bytes: bool,
        limit: u64,
    ) -> Result<Vec<Stored>, SourceError> {
        let loaded = self.table(table).ok_or_else(|| failed("there is no such file"))?;
        loaded.sqlite.distinct(table, column, bytes, limit).await
    }

    async fn write_once(
        &self,
        _key: &str,
        _writes: &[Write],
        _result: &BTreeMap<FieldId, String>,
    ) -> Result<Written, SourceError> {
        Err(failed("files that are dropped are only read"))
    }

    async fn refresh(&self) -> Result<(), SourceError> {
        let _refreshing = self.refreshing.lock().await;
        for (table, declared) in &self.tables {
            let (new, trouble) = self.next(table, declared).await;
            if let Some(new) = new {
                let mut loaded = self.loaded.write().expect("no holder of this lock panics");
                loaded.insert(table.clone(), Arc::new(new));
            }
            let serves = self.table(table).is_some();
            let mut troubles = self.troubles.write().expect("no holder of this lock panics");
            match trouble {
                None => drop(troubles.remove(table)),
                Some(e) => {
                    let rest = if serves { "; the one before still serves" } else { "" };
                    let trouble = format!("the newest file cannot be taken in: {e}{rest}");
                    if troubles.insert(table.clone(), trouble.clone()).as_ref() != Some(&trouble) {
                        warn!(table, "{trouble}");
                    }
                }
            }
        }
        Ok(())
    }

    fn troubles(&self) -> Vec<(String, String)> {
        let troubles = self.troubles.read().expect("no holder of this lock panics");
        troubles.iter().map(|(table, trouble)| (table.clone(), trouble.clone())).collect()
    }
}
