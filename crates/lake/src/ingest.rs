//! Takes in batches: a file becomes sorted rows of a table, exactly once, wherever the work is cut off.
//!
//! A batch is read in segments as large as memory allows. A segment's files are written first; one commit then makes its rows part of
//! the table *and* records how far the batch was read. Whoever is killed in between leaves files that no version uses; the next try
//! goes on at the last commit.

use crate::{
    compact,
    config::Config,
    convert::{Converter, Refused},
    dataset::{Dataset, Mode},
    input::{Chunk, Input},
    table::{Commit, DataFile, Table, Writing, new_run},
    write::write_run,
};
use anyhow::{Context as _, Result, bail};
use arrow::array::RecordBatch;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    time::Instant,
};

/// What taking in a batch came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Taken {
    /// The data set.
    pub dataset: String,
    /// The batch's name.
    pub batch: String,
    /// Rows of the file, those of earlier tries among them.
    pub read: u64,
    /// Rows taken in by this try.
    pub rows: u64,
    /// Rows refused by this try, by column and reason.
    pub refused: BTreeMap<String, u64>,
    /// Where refused rows are, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<PathBuf>,
    /// Whether the batch had been taken in whole before.
    pub before: bool,
    /// Bytes of the files written.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// How a batch is to be taken in.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The batch's name; without it the hash of the file's bytes.
    pub batch: Option<String>,
    /// The share of rows that may be refused before the batch is.
    pub max_bad: f64,
    /// Read and check everything, and take in nothing.
    pub dry_run: bool,
}

/// Chunks read ahead.
const AHEAD: usize = 8;

/// The hash of a file's bytes.
pub fn hash_of(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut HashWriter(&mut hash)).with_context(|| path.display().to_string())?;
    Ok(hex::encode(&hash.finalize()[..16]))
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What came of a chunk.
struct Converted {
    number: u64,
    read: u64,
    batch: RecordBatch,
    refused: Vec<Refused>,
}

/// Takes in one file.
pub async fn ingest(
    config: &Config,
    dataset: &Arc<Dataset>,
    key: &[u8; 32],
    path: &Path,
    options: &Options,
    bar: &ProgressBar,
) -> Result<Taken> {
    let begun = Instant::now();
    let batch = match &options.batch {
        Some(name) => name.clone(),
        None => hash_of(path)?,
    };
    let of_batch = format!("batch:{batch}");
    let whole = format!("batch:{batch}:whole");
    let mut taken = Taken { dataset: dataset.id().to_owned(), batch: batch.clone(), ..Taken::default() };
    let _writing = Writing::begin(config, dataset)?;
    let mut table = Table::open_or_create(config, dataset).await?;
    if let Some(rows) = table.taken(&whole).await? {
        taken.before = true;
        taken.read = rows as u64;
        return Ok(taken);
    }
    // only what adds rows can go on in the middle; the others are one commit
    let appends = dataset.declared.mode == Mode::Append;
    let skip = if appends { table.taken(&of_batch).await?.unwrap_or(0) as u64 } else { 0 };
    let input = Input::open(path, dataset)?;
    let total = input.bytes();
    bar.set_length(total);
    let position = input.position();
    let converter = Arc::new(Converter::new(dataset, &input, config.suite, *key)?);
    let results = convert(input, converter, skip);
    let budget = config.memory_mb * (1 << 20) / 3;
    let mut segment = Segment::default();
    let mut staged: Vec<DataFile> = Vec::new();
    let mut read = skip;
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    let mut bad = 0;
    let quarantine = config.work.join("quarantine").join(dataset.id());
    loop {
        let received = {
            let results = results.clone();
            tokio::task::spawn_blocking(move || results.lock().expect("never poisoned").recv()).await?
        };
        let done = received.is_err();
        if let Ok(converted) = received {
            let converted: Converted = converted?;
            waiting.insert(converted.number, converted);
        }
        while let Some(converted) = waiting.remove(&next) {
            next += 1;
            read += converted.read;
            bad += converted.refused.len() as u64;
            segment.push(converted);
            bar.set_position(position.get());
        }
        if !(done || segment.bytes > budget) {
            continue;
        }
        let too_many = bad as f64 > (read - skip) as f64 * options.max_bad && bad > 0;
        for refused in &segment.refused {
            *taken.refused.entry(format!("{}: {}", refused.column, refused.reason)).or_default() += 1;
        }
        if !segment.refused.is_empty() {
            let name = format!("{batch}-{:012}.jsonl", read - segment.read);
            taken.quarantine = Some(segment.keep_refused(&quarantine.join(name))?);
        }
        if too_many {
            bail!(
                "{bad} of {} rows were refused, more than {:.1} % allowed; none of them is lost: see {}. Correct the declaration or \
                 the file, or allow more with --max-bad",
                read - skip,
                options.max_bad * 100.0,
                taken.quarantine.as_deref().unwrap_or(&quarantine).display()
            );
        }
        let segment = std::mem::take(&mut segment);
        taken.rows += segment.rows;
        if options.dry_run {
            if done {
                break;
            }
            continue;
        }
        let run = new_run();
        let files = write_run(dataset, &table.store(), &run, segment.batches, 0).await?;
        taken.bytes += files.iter().map(|f| f.bytes).sum::<u64>();
        staged.extend(files);
        if appends && (done || !staged.is_empty()) {
            let mut marks = vec![(of_batch.clone(), read as i64)];
            if done {
                marks.push((whole.clone(), read as i64));
            }
            let facts = facts(&batch, read, segment.rows, segment.refused.len());
            let add = std::mem::take(&mut staged);
            table.commit(Commit { add, taken: marks, facts, data_change: true, ..Commit::default() }).await?;
        }
        if done {
            break;
        }
    }
    taken.read = read;
    if !appends && !options.dry_run {
        let facts = facts(&batch, read, taken.rows, bad as usize);
        let marks = vec![(of_batch, read as i64), (whole, read as i64)];
        let old = table.files()?;
        let add = match dataset.declared.mode {
            Mode::Changes => compact::merge(config, dataset, &table, &old, &staged).await?,
            _ => staged,
        };
        taken.bytes = add.iter().map(|f| f.bytes).sum();
        table.commit(Commit { add, remove: old, taken: marks, facts, data_change: true }).await?;
    }
    bar.finish_and_clear();
    taken.seconds = begun.elapsed().as_secs_f64();
    Ok(taken)
}

fn facts(batch: &str, read: u64, rows: u64, refused: usize) -> BTreeMap<String, serde_json::Value> {
    [
        ("tongbanBatch".to_owned(), json!(batch)),
        ("tongbanRead".to_owned(), json!(read)),
        ("tongbanRows".to_owned(), json!(rows)),
        ("tongbanRefused".to_owned(), json!(refused)),
    ]
    .into()
}

#[derive(Default)]
struct Segment {
    batches: Vec<RecordBatch>,
    refused: Vec<Refused>,
    read: u64,
    rows: u64,
    bytes: usize,
}

impl Segment {
    fn push(&mut self, converted: Converted) {
        self.read += converted.read;
        self.rows += converted.batch.num_rows() as u64;
        // refused rows are written as they came, and count for memory too
        self.bytes += converted.batch.get_array_memory_size();
        self.bytes += converted.refused.iter().map(|r| r.row.len() + 96).sum::<usize>();
        self.refused.extend(converted.refused);
        if converted.batch.num_rows() > 0 {
            self.batches.push(converted.batch);
        }
    }

    /// Writes refused rows to a file of their own that only its owner may read. A try that is made again writes the same file.
    fn keep_refused(&self, path: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(path.parent().expect("a file lies in a folder"))?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).with_context(|| path.display().to_string())?;
        let mut out = std::io::BufWriter::new(file);
        for refused in &self.refused {
            serde_json::to_writer(&mut out, refused)?;
            out.write_all(b"\n")?;
        }
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        Ok(path.to_owned())
    }
}

type Results = Arc<Mutex<mpsc::Receiver<Result<Converted>>>>;

/// Reads on one thread and converts on two; what comes of it arrives out of order, numbered.
fn convert(mut input: Input, converter: Arc<Converter>, skip: u64) -> Results {
    let (to_convert, chunks) = mpsc::sync_channel::<(u64, Chunk)>(AHEAD);
    let (to_collect, results) = mpsc::sync_channel(AHEAD);
    let chunks = Arc::new(Mutex::new(chunks));
    for _ in 0..2 {
        let (chunks, converter, to_collect) = (chunks.clone(), converter.clone(), to_collect.clone());
        std::thread::spawn(move || {
            loop {
                let next = chunks.lock().expect("never poisoned").recv();
                let Ok((number, chunk)) = next else { break };
                let read = chunk.rows.len() as u64;
                let converted = converter.convert(&chunk).map(|(batch, refused)| Converted {
                    number,
                    read,
                    batch,
                    refused,
                });
                if to_collect.send(converted).is_err() {
                    break;
                }
            }
        });
    }
    std::thread::spawn(move || {
        let mut left = skip;
        let mut number = 0;
        loop {
            match input.next_chunk() {
                Ok(Some(mut chunk)) => {
                    let drop = left.min(chunk.rows.len() as u64);
                    left -= drop;
                    chunk.rows.drop_first(drop as usize);
                    chunk.first += drop;
                    if chunk.rows.is_empty() {
                        continue;
                    }
                    if to_convert.send((number, chunk)).is_err() {
                        break;
                    }
                    number += 1;
                }
                Ok(None) => break,
                Err(e) => {
                    let _ = to_collect.send(Err(e));
                    break;
                }
            }
        }
    });
    Arc::new(Mutex::new(results))
}
