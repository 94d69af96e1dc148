//! Files as they come – CSV, JSON lines, workbooks, Parquet – read as rows of text, piece by piece.

use crate::dataset::Dataset;
use anyhow::{Context as _, Result, bail};
use arrow::{array::AsArray as _, datatypes::DataType};
use calamine::{Data, Reader as _};
use encoding_rs_io::DecodeReaderBytesBuilder;
use gateway::Encoding;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Rows of a chunk.
const CHUNK_ROWS: usize = 16_384;
/// Bytes of a chunk, about.
const CHUNK_BYTES: usize = 4 << 20;
/// The longest row, in bytes: a quotation mark that is never closed must not fill the memory.
const ROW_BYTES_MAX: u64 = 1 << 20;

/// Rows of fields, in one piece of memory.
#[derive(Default)]
pub struct Rows {
    data: Vec<u8>,
    /// Where each field ends.
    ends: Vec<usize>,
    /// How many fields there are up to the end of each row.
    rows: Vec<usize>,
    /// Rows that are dropped from the front.
    dropped: usize,
}

/// A row of fields.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    of: &'a Rows,
    from: usize,
    to: usize,
}

impl<'a> Row<'a> {
    /// How many fields it has.
    pub fn width(&self) -> usize {
        self.to - self.from
    }

    /// A field.
    pub fn field(&self, at: usize) -> &'a [u8] {
        let at = self.from + at;
        let begin = if at == 0 { 0 } else { self.of.ends[at - 1] };
        &self.of.data[begin..self.of.ends[at]]
    }

    /// The row in one line, fields parted by tabs.
    pub fn shown(&self) -> String {
        let fields: Vec<_> = (0..self.width()).map(|at| String::from_utf8_lossy(self.field(at))).collect();
        fields.join("\t")
    }
}

impl Rows {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len() - self.dropped
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A row.
    pub fn row(&self, at: usize) -> Row<'_> {
        let at = at + self.dropped;
        let from = if at == 0 { 0 } else { self.rows[at - 1] };
        Row { of: self, from, to: self.rows[at] }
    }

    /// Drops rows from the front.
    pub fn drop_first(&mut self, rows: usize) {
        self.dropped += rows;
    }

    fn push(&mut self, field: &[u8]) {
        self.data.extend_from_slice(field);
        self.ends.push(self.data.len());
    }

    fn end_row(&mut self) {
        self.rows.push(self.ends.len());
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= CHUNK_ROWS || self.data.len() >= CHUNK_BYTES
    }
}

/// Rows that follow each other in a file.
pub struct Chunk {
    /// How many rows stand before them.
    pub first: u64,
    /// The rows.
    pub rows: Rows,
}

/// How far a file was read, for a progress bar.
#[derive(Clone, Default)]
pub struct Position(Arc<AtomicU64>);

impl Position {
    /// Bytes read.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

struct Counted<R> {
    inner: R,
    position: Position,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(into)?;
        self.position.0.fetch_add(read as u64, Relaxed);
        Ok(read)
    }
}

/// Refuses to give more bytes than one row may have, until the row is read.
struct Bounded<R> {
    inner: R,
    left: Arc<AtomicU64>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let left = self.left.load(Relaxed);
        if left == 0 {
            return Err(std::io::Error::other(
                "a row is longer than 1 MiB: is a quotation mark never closed?",
            ));
        }
        let read = self.inner.read(into)?;
        self.left.store(left.saturating_sub(read as u64), Relaxed);
        Ok(read)
    }
}

enum Form {
    Csv { reader: csv::Reader<Box<dyn Read + Send>>, record: csv::ByteRecord, left: Arc<AtomicU64> },
    Lines { reader: Box<dyn BufRead + Send>, line: Vec<u8> },
    Sheet { rows: std::vec::IntoIter<Vec<String>> },
    Parquet { reader: Box<ParquetRecordBatchReader> },
}

/// A file that is being read.
pub struct Input {
    headers: Vec<String>,
    form: Form,
    read: u64,
    bytes: u64,
    position: Position,
}

/// The file's name without `.gz`, in small letters.
fn plain_name(path: &Path) -> (String, bool) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    match name.strip_suffix(".gz") {
        Some(plain) => (plain.to_owned(), true),
        None => (name, false),
    }
}

impl Input {
    /// Opens a file by its ending: `.csv`, `.tsv`, `.jsonl`, `.ndjson` (each also `.gz`), `.xlsx`, `.xls`, `.ods`, `.parquet`.
    pub fn open(path: &Path, dataset: &Dataset) -> Result<Self> {
        let form = &dataset.declared.file;
        let context = || path.display().to_string();
        let file = File::open(path).with_context(context)?;
        let bytes = file.metadata().with_context(context)?.len();
        let position = Position::default();
        let (name, packed) = plain_name(path);
        let ending = name.rsplit('.').next().unwrap_or_default().to_owned();
        let counted = Counted { inner: file, position: position.clone() };
        let text = || -> Box<dyn Read + Send> {
            let raw: Box<dyn Read + Send> = match packed {
                true => {
                    Box::new(flate2::read::MultiGzDecoder::new(BufReader::with_capacity(1 << 16, counted)))
                }
                false => Box::new(counted),
            };
            match form.encoding {
                Encoding::Utf8 => raw,
                Encoding::Gbk => {
                    let decoder =
                        DecodeReaderBytesBuilder::new().encoding(Some(encoding_rs::GB18030)).build(raw);
                    Box::new(decoder)
                }
            }
        };
        let (headers, form) = match ending.as_str() {
            "csv" | "tsv" | "txt" => {
                let separator =
                    if ending == "tsv" { b'\t' } else { u8::try_from(form.separator).unwrap_or(b',') };
                let left = Arc::new(AtomicU64::new(ROW_BYTES_MAX));
                let bounded: Box<dyn Read + Send> = Box::new(Bounded { inner: text(), left: left.clone() });
                let mut reader = csv::ReaderBuilder::new()
                    .delimiter(separator)
                    .flexible(true)
                    .buffer_capacity(1 << 18)
                    .from_reader(bounded);
                let headers = reader.byte_headers().with_context(context)?;
                let headers = headers.iter().enumerate().map(|(at, header)| {
                    let header = String::from_utf8_lossy(header);
                    let header = if at == 0 { header.trim_start_matches('\u{feff}') } else { &header };
                    header.trim().to_owned()
                });
                let headers = headers.collect();
                (headers, Form::Csv { reader, record: csv::ByteRecord::new(), left })
            }
            "jsonl" | "ndjson" => {
                let reader = Box::new(BufReader::with_capacity(1 << 18, text()));
                (declared_headers(dataset), Form::Lines { reader, line: Vec::new() })
            }
            "xlsx" | "xls" | "ods" => {
                let mut book = calamine::open_workbook_auto(path).with_context(context)?;
                let sheet = match &form.sheet {
                    Some(sheet) => sheet.clone(),
                    None => book.sheet_names().first().cloned().context("the workbook has no sheet")?,
                };
                let range = book.worksheet_range(&sheet).with_context(context)?;
                let mut rows = range.rows().map(|row| row.iter().map(cell).collect::<Vec<_>>());
                let headers = rows.next().unwrap_or_default();
                let headers = headers.into_iter().map(|h| h.trim().to_owned()).collect();
                let rows: Vec<_> = rows.filter(|row| row.iter().any(|cell| !cell.is_empty())).collect();
                (headers, Form::Sheet { rows: rows.into_iter() })
            }
            "parquet" => {
                let file = File::open(path).with_context(context)?;
                let builder = ParquetRecordBatchReaderBuilder::try_new(file).with_context(context)?;
                let headers = builder.schema().fields().iter().map(|f| f.name().clone()).collect();
                let reader = builder.with_batch_size(CHUNK_ROWS).build().with_context(context)?;
                (headers, Form::Parquet { reader: Box::new(reader) })
            }
            _ => bail!(
                "{}: a file ends in .csv, .tsv, .jsonl, .ndjson (each also .gz), .xlsx, .xls, .ods or .parquet",
                path.display()
            ),
        };
        Ok(Self { headers, form, read: 0, bytes, position })
    }

    /// Its columns' names.
    pub fn headers(&self) -> &[String] {
        &self.headers
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How far it is read.
    pub fn position(&self) -> Position {
        self.position.clone()
    }

    /// The next rows; none at the end.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        let mut rows = Rows::default();
        match &mut self.form {
            Form::Csv { reader, record, left } => {
                while !rows.is_full() {
                    let more = reader.read_byte_record(record).context("reading the file")?;
                    left.store(ROW_BYTES_MAX, Relaxed);
                    if !more {
                        break;
                    }
                    for field in record.iter() {
                        rows.push(field);
                    }
                    rows.end_row();
                }
            }
            Form::Lines { reader, line } => {
                while !rows.is_full() {
                    line.clear();
                    let read = reader
                        .by_ref()
                        .take(ROW_BYTES_MAX)
                        .read_until(b'\n', line)
                        .context("reading the file")?;
                    if read == 0 {
                        break;
                    }
                    if read as u64 == ROW_BYTES_MAX && line.last() != Some(&b'\n') {
                        bail!("a line is longer than 1 MiB");
                    }
                    if line.trim_ascii().is_empty() {
                        continue;
                    }
                    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line) {
                        Ok(object) => {
                            for header in &self.headers {
                                rows.push(json_text(object.get(header)).as_bytes());
                            }
                        }
                        // as one field: refused with the other rows that do not have their header's width
                        Err(_) => rows.push(line.trim_ascii()),
                    }
                    rows.end_row();
                }
            }
            Form::Sheet { rows: left } => {
                while !rows.is_full()
                    && let Some(row) = left.next()
                {
                    for field in row {
                        rows.push(field.as_bytes());
                    }
                    rows.end_row();
                }
                self.position.0.store(self.bytes, Relaxed);
            }
            Form::Parquet { reader } => {
                if let Some(batch) = reader.next() {
                    let batch = batch.context("reading the file")?;
                    let text = batch.columns().iter().map(|c| arrow::compute::cast(c, &DataType::Utf8));
                    let text = text.collect::<Result<Vec<_>, _>>().context("a column is no plain value")?;
                    let columns: Vec<_> = text.iter().map(|c| c.as_string::<i32>()).collect();
                    for row in 0..batch.num_rows() {
                        for column in &columns {
                            use arrow::array::Array as _;
                            rows.push(if column.is_null(row) { b"" } else { column.value(row).as_bytes() });
                        }
                        rows.end_row();
                    }
                    self.position.0.fetch_add(batch.num_rows() as u64, Relaxed);
                }
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let first = self.read;
        self.read += rows.len() as u64;
        Ok(Some(Chunk { first, rows }))
    }
}

fn declared_headers(dataset: &Dataset) -> Vec<String> {
    let mut headers: Vec<String> = dataset.columns.iter().map(|c| c.header.clone()).collect();
    headers.extend(dataset.declared.gone.as_ref().map(|gone| gone.column.clone()));
    headers.dedup();
    headers
}

fn json_text(value: Option<&serde_json::Value>) -> String {
    use serde_json::Value;
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A workbook's cell as text; days as `yyyy-mm-dd`.
fn cell(data: &Data) -> String {
    match data {
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
