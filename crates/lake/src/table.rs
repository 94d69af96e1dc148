//! Tables: Delta tables of Parquet files sorted by subject. Files of one commit cover ranges of subjects that do not overlap and form a
//! *run*; a file's name tells its run and range, so that a look-up goes to one file of each run.

use crate::{config::Config, dataset::Dataset};
use anyhow::{Context as _, Result, bail};
use arrow::datatypes::DataType as Arrow;
use deltalake_core::{
    DeltaTable, DeltaTableBuilder,
    kernel::{
        Action, Add, DataType, StructField, Transaction,
        transaction::{CommitBuilder, CommitProperties},
    },
    logstore::{LogStoreRef, StorageConfig, default_logstore},
    operations::create::CreateBuilder,
    protocol::{DeltaOperation, SaveMode},
};
use object_store::{
    ObjectStore, ObjectStoreExt as _, aws::AmazonS3Builder, local::LocalFileSystem, path::Path as StorePath,
    prefix::PrefixStore,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use url::Url;

/// What a subject is stored as.
pub type SubjectKey = [u8; 16];

/// A file of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Its path below the table.
    pub path: String,
    /// The run it belongs to.
    pub run: String,
    /// The first eight bytes of its lowest and highest subject keys; everything, where the data set is about nobody.
    pub range: (u64, u64),
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl DataFile {
    /// Names a new file.
    pub fn new(run: &str, range: (u64, u64), number: usize, rows: u64, bytes: u64) -> Self {
        let path = format!("{run}/{number:04}-{:016x}-{:016x}.parquet", range.0, range.1);
        Self { path, run: run.to_owned(), range, rows, bytes }
    }

    /// Reads a path's name.
    fn parse(path: &str, rows: u64, bytes: u64) -> Option<Self> {
        let (run, file) = path.rsplit_once('/')?;
        let mut parts = file.strip_suffix(".parquet")?.split('-').skip(1);
        let mut bound = || u64::from_str_radix(parts.next()?, 16).ok();
        let range = (bound()?, bound()?);
        Some(Self { path: path.to_owned(), run: run.to_owned(), range, rows, bytes })
    }

    /// Whether a subject may be in it.
    pub fn may_hold(&self, key: &SubjectKey) -> bool {
        (self.range.0..=self.range.1).contains(&prefix(key))
    }

    fn add(&self, data_change: bool, stats: &Value) -> Action {
        Action::Add(Add {
            path: self.path.clone(),
            partition_values: HashMap::new(),
            size: self.bytes as i64,
            modification_time: now_ms(),
            data_change,
            stats: Some(stats.to_string()),
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        })
    }
}

/// The first eight bytes of a key, in order.
pub fn prefix(key: &[u8]) -> u64 {
    u64::from_be_bytes(key[..8].try_into().expect("keys have 16 bytes"))
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// A new run's name.
pub fn new_run() -> String {
    format!("{:012x}{}", now_ms(), hex::encode(crypto::random::<4>()))
}

/// What one commit does.
#[derive(Default)]
pub struct Commit {
    /// New files.
    pub add: Vec<DataFile>,
    /// Files that go.
    pub remove: Vec<DataFile>,
    /// Batches and how far each is taken in.
    pub taken: Vec<(String, i64)>,
    /// Facts for the table's history.
    pub facts: BTreeMap<String, Value>,
    /// Whether rows come or go; not, where they are only laid out anew.
    pub data_change: bool,
}

/// A table of the platform.
pub struct Table {
    delta: DeltaTable,
    /// Its files, by paths below the table.
    store: Arc<dyn ObjectStore>,
    /// The same for an engine that scans: a store, and what stands before the paths in it.
    scanned: (Arc<dyn ObjectStore>, String),
}

fn address(config: &Config, id: &str) -> Result<Url> {
    if config.data.contains("://") {
        let base = format!("{}/{id}/", config.data.trim_end_matches('/'));
        return Url::parse(&base).with_context(|| format!("{base} is no address"));
    }
    let folder = std::path::Path::new(&config.data).join(id);
    Url::from_directory_path(&folder).map_err(|()| anyhow::anyhow!("{} is no folder", folder.display()))
}

/// The table's files and log: in a folder, or in an S3-compatible store, whose secrets come from the environment. Commits there rely on
/// its conditional writes (`If-None-Match`), so that two writers never make the same version.
fn unopened(config: &Config, url: Url) -> Result<Table> {
    match url.scheme() {
        "file" => {
            let folder = url.to_file_path().map_err(|()| anyhow::anyhow!("{url} is no folder"))?;
            let store = LocalFileSystem::new_with_prefix(folder)?.with_automatic_cleanup(true);
            let store: Arc<dyn ObjectStore> = Arc::new(store);
            let scanned = (store.clone(), String::new());
            Ok(Table { delta: DeltaTableBuilder::from_url(url)?.build()?, store, scanned })
        }
        "s3" => {
            let mut builder = AmazonS3Builder::from_env().with_url(url.as_str());
            for (name, value) in &config.storage {
                let key = name
                    .parse()
                    .with_context(|| format!("`storage.{name}` in lake.toml is no setting of S3"))?;
                builder = builder.with_config(key, value);
            }
            let root: Arc<dyn ObjectStore> = Arc::new(builder.build()?);
            let prefix = StorePath::from(url.path());
            let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(root.clone(), prefix));
            let log = default_logstore(store.clone(), root.clone(), &url, &StorageConfig::default());
            let scanned = (root, format!("{}/", url.path().trim_matches('/')));
            Ok(Table { delta: DeltaTable::new(log), store, scanned })
        }
        other => bail!("`data` in lake.toml is a folder or begins with s3://, not {other}://"),
    }
}

fn delta_type(kind: &Arrow) -> DataType {
    match kind {
        Arrow::Binary => DataType::BINARY,
        Arrow::Date32 => DataType::DATE,
        Arrow::Int64 => DataType::LONG,
        Arrow::Float64 => DataType::DOUBLE,
        _ => DataType::STRING,
    }
}

impl Table {
    /// Opens a data set's table; none where nothing was taken in yet.
    pub async fn open(config: &Config, dataset: &Dataset) -> Result<Option<Self>> {
        let url = address(config, dataset.id())?;
        if url.scheme() == "file" && !url.to_file_path().is_ok_and(|p| p.join("_delta_log").is_dir()) {
            return Ok(None);
        }
        let mut table = unopened(config, url)?;
        if !table.delta.verify_deltatable_existence().await? {
            return Ok(None);
        }
        table.delta.load().await?;
        let found = table.delta.snapshot()?.snapshot().arrow_schema();
        let found: Vec<_> =
            found.fields().iter().map(|f| (f.name().clone(), delta_type(f.data_type()))).collect();
        let wanted: Vec<_> =
            dataset.schema.fields().iter().map(|f| (f.name().clone(), delta_type(f.data_type()))).collect();
        if found != wanted {
            bail!(
                "{}: its table has other columns than are declared; give the changed data set a new id, take its batches in there, and \
                 drop the old one",
                dataset.id()
            );
        }
        Ok(Some(table))
    }

    /// Opens a data set's table, or makes it.
    pub async fn open_or_create(config: &Config, dataset: &Dataset) -> Result<Self> {
        if let Some(table) = Self::open(config, dataset).await? {
            return Ok(table);
        }
        let url = address(config, dataset.id())?;
        if let Ok(folder) = url.to_file_path() {
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        let Self { delta, store, scanned } = unopened(config, url)?;
        let columns = dataset.schema.fields().iter();
        let columns = columns.map(|f| StructField::new(f.name(), delta_type(f.data_type()), f.is_nullable()));
        let delta = CreateBuilder::new()
            .with_log_store(delta.log_store())
            .with_table_name(dataset.id())
            .with_comment(&dataset.declared.title.en)
            .with_columns(columns)
            .with_save_mode(SaveMode::ErrorIfExists)
            .await?;
        Ok(Self { delta, store, scanned })
    }

    /// Takes in what others committed.
    pub async fn refresh(&mut self) -> Result<()> {
        Ok(self.delta.update_state().await?)
    }

    /// The newest version it knows.
    pub fn version(&self) -> u64 {
        self.delta.version().unwrap_or(0)
    }

    /// Where its files are, for a reader of paths below the table.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    /// Where an engine that scans finds them: a store, and what stands before the paths in it.
    pub fn scanned(&self) -> (Arc<dyn ObjectStore>, &str) {
        (self.scanned.0.clone(), &self.scanned.1)
    }

    fn log(&self) -> LogStoreRef {
        self.delta.log_store()
    }

    /// Its files now, by run and range.
    pub fn files(&self) -> Result<Vec<DataFile>> {
        let snapshot = self.delta.snapshot()?;
        let log = snapshot.log_data();
        let files = log.iter().map(|view| {
            let rows = view.num_records().unwrap_or(0) as u64;
            let path = view.path();
            DataFile::parse(&path, rows, view.size() as u64).with_context(|| {
                format!("{path} is no file of this platform's: was the table written by another program?")
            })
        });
        let mut files = files.collect::<Result<Vec<_>>>()?;
        files.sort_by(|a, b| (&a.run, a.range, &a.path).cmp(&(&b.run, b.range, &b.path)));
        Ok(files)
    }

    /// How far a batch is taken in.
    pub async fn taken(&self, batch: &str) -> Result<Option<i64>> {
        let log = self.log();
        Ok(self.delta.snapshot()?.transaction_version(&*log, batch).await?)
    }

    /// Makes one commit, whole or not at all.
    pub async fn commit(&mut self, commit: Commit) -> Result<()> {
        let going: std::collections::BTreeSet<&str> = commit.remove.iter().map(|f| f.path.as_str()).collect();
        let snapshot = self.delta.snapshot()?;
        let mut actions: Vec<Action> = snapshot
            .log_data()
            .iter()
            .filter(|view| going.contains(&*view.path()))
            .map(|view| Action::Remove(view.remove_action(commit.data_change)))
            .collect();
        if actions.len() != going.len() {
            bail!("the table changed meanwhile; nothing was committed, try again");
        }
        for file in &commit.add {
            actions.push(file.add(commit.data_change, &json!({ "numRecords": file.rows })));
        }
        let taken = commit.taken.into_iter();
        let taken =
            taken.map(|(batch, to)| Transaction::new_with_last_update(batch, to, Some(now_ms()))).collect();
        let operation = match (commit.data_change, commit.remove.is_empty()) {
            (true, true) => {
                DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None }
            }
            (true, false) => {
                DeltaOperation::Write { mode: SaveMode::Overwrite, partition_by: None, predicate: None }
            }
            (false, _) => DeltaOperation::Optimize { predicate: None, target_size: 0 },
        };
        let properties = CommitProperties::default()
            .with_application_transactions(taken)
            .with_metadata(commit.facts)
            // a change that somebody else made in between is looked at again, not merged blindly
            .with_max_retries(0);
        let log = self.log();
        CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(snapshot as &dyn deltalake_core::kernel::transaction::TableReference), log, operation)
            .await
            .context("another machine changed the table meanwhile; nothing was committed, run this again")?;
        self.refresh().await
    }

    /// The last commits, newest first, with their facts.
    pub async fn history(&self, limit: usize) -> Result<Vec<Value>> {
        use futures::TryStreamExt as _;
        let commits: Vec<_> = self.delta.history(Some(limit)).try_collect().await?;
        Ok(commits.into_iter().map(|c| serde_json::to_value(c).unwrap_or_default()).collect())
    }

    /// Deletes files that no version from now on uses: those given, which this process took out of the table, and those of work that was
    /// never committed. Whose work that is, is known in a folder, where one process at a time writes (`Writing`); in a store that others
    /// may write to as well, it must be a day old. Returns their paths.
    pub async fn vacuum(&self, removed: &[String]) -> Result<Vec<String>> {
        use futures::TryStreamExt as _;
        let used: std::collections::BTreeSet<String> = self.files()?.into_iter().map(|f| f.path).collect();
        let alone = self.delta.table_url().scheme() == "file";
        let all: Vec<_> = self.store.list(None).try_collect().await?;
        let mut gone = Vec::new();
        for object in all {
            let path = object.location.to_string();
            if path.starts_with("_delta_log") || used.contains(&path) || !path.ends_with(".parquet") {
                continue;
            }
            let old = now_ms() - object.last_modified.timestamp_millis() > ABANDONED_MS;
            if alone || old || removed.contains(&path) {
                self.store.delete(&StorePath::from(path.as_str())).await?;
                gone.push(path);
            }
        }
        Ok(gone)
    }
}

/// After so long, work in a store that nobody committed is abandoned.
const ABANDONED_MS: i64 = 24 * 3600 * 1000;

/// The right to change a data set's table: one process on this machine at a time has it.
pub struct Writing(#[expect(dead_code, reason = "held, not read")] std::fs::File);

impl Writing {
    /// Takes it, or says that somebody else has it.
    pub fn begin(config: &Config, dataset: &Dataset) -> Result<Self> {
        let folder = config.work.join("locks");
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(dataset.id());
        let file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(std::fs::TryLockError::WouldBlock) => {
                bail!(
                    "another process is changing {}: wait until it is done, and run this again",
                    dataset.id()
                )
            }
            Err(std::fs::TryLockError::Error(e)) => Err(e).with_context(|| path.display().to_string()),
        }
    }
}

/// How many files may hold the same subject, at most: how many ranges lie over each other.
pub fn overlap(files: &[DataFile]) -> usize {
    let begins = files.iter().map(|f| (f.range.0, 0));
    let mut bounds: Vec<(u64, u8)> = begins.chain(files.iter().map(|f| (f.range.1, 1))).collect();
    bounds.sort_unstable();
    let (mut depth, mut most) = (0, 0);
    for (_, end) in bounds {
        if end == 1 {
            depth -= 1;
        } else {
            depth += 1;
            most = most.max(depth);
        }
    }
    most
}
