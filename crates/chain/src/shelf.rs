//! An archive that blocks are read from by height: what a node pruned from its own folder, it still has there.
//!
//! Beside the archive lies an index: for each height from 1 on, eight bytes, little end first, of where its record begins.
//! It holds nothing the archive does not, and is written anew where it does not fit.

use crate::{
    archive::{MAGIC, decode_block, read_part},
    block::Block,
};
use ledger::Rules;
use proof::Finality;
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Where the first record of an archive begins.
const BEGIN: u64 = MAGIC.len() as u64 + 32;

/// After so many entries of an index that do not fit, all of it is written anew: it is another archive's.
const DISTRUSTED: u64 = 64;

/// An archive with its index.
pub(crate) struct Shelf {
    path: PathBuf,
    rules: Rules,
    archive: File,
    index: File,
    height: AtomicU64,
    /// Held by whoever brings the index up to date.
    refreshing: Mutex<()>,
}

fn foreign(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Where the index of an archive lies.
fn index_of(archive: &Path) -> PathBuf {
    let mut name = archive.as_os_str().to_owned();
    name.push(".index");
    name.into()
}

impl Shelf {
    /// Opens an archive of the ledger with these rules, and brings its index up to date.
    pub(crate) fn open(path: &Path, rules: Rules) -> io::Result<Self> {
        let archive = File::open(path)?;
        let mut head = [0; BEGIN as usize];
        archive.read_exact_at(&mut head, 0)?;
        if head[..MAGIC.len()] != MAGIC[..] || head[MAGIC.len()..] != rules.chain.0 {
            return Err(foreign("it is no archive of this ledger"));
        }
        let index =
            File::options().read(true).write(true).create(true).truncate(false).open(index_of(path))?;
        let (path, height, refreshing) = (path.to_owned(), AtomicU64::new(0), Mutex::new(()));
        let shelf = Self { path, rules, archive, index, height, refreshing };
        shelf.refresh()?;
        Ok(shelf)
    }

    /// The newest height on it.
    pub(crate) fn height(&self) -> u64 {
        self.height.load(Ordering::SeqCst)
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn offset(&self, height: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.index.read_exact_at(&mut bytes, (height - 1) * 8)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The end of the record that begins at an offset; `None` where it is cut off.
    fn end_of(input: &mut (impl Read + io::Seek), offset: u64, length: u64) -> io::Result<Option<u64>> {
        let mut end = offset;
        for _ in 0..2 {
            let mut size = [0; 4];
            if end + 4 > length {
                return Ok(None);
            }
            input.seek(SeekFrom::Start(end))?;
            input.read_exact(&mut size)?;
            end += 4 + u64::from(u32::from_le_bytes(size));
        }
        Ok((end <= length).then_some(end))
    }

    /// Takes in what was added to the archive since.
    pub(crate) fn refresh(&self) -> io::Result<()> {
        let _refreshing = self.refreshing.lock().expect("no holder of this lock panics");
        let length = self.archive.metadata()?.len();
        let mut input = BufReader::new(File::open(&self.path)?);
        let mut misfits = 0;
        let mut height = self.index.metadata()?.len() / 8;
        // the index may have been written before the archive was cut off by a crash, or be another's
        let mut next = loop {
            if height == 0 {
                break BEGIN;
            }
            let offset = self.offset(height)?;
            let end = if offset < BEGIN { None } else { Self::end_of(&mut input, offset, length)? };
            match end {
                Some(end) if self.read_at(height, offset).is_ok() => break end,
                _ => {
                    misfits += 1;
                    height = if misfits < DISTRUSTED { height - 1 } else { 0 };
                }
            }
        };
        self.index.set_len(height * 8)?;
        let mut index = BufWriter::new(&self.index);
        index.seek(SeekFrom::Start(height * 8))?;
        while let Some(end) = Self::end_of(&mut input, next, length)? {
            index.write_all(&next.to_le_bytes())?;
            (next, height) = (end, height + 1);
        }
        index.flush()?;
        drop(index);
        self.height.store(height, Ordering::SeqCst);
        Ok(())
    }

    fn read_at(&self, height: u64, offset: u64) -> io::Result<(Block, Option<Finality>)> {
        let mut record = ReadAt { file: &self.archive, at: offset };
        let cut = || foreign("a record is cut off");
        let block = read_part(&mut record)?.ok_or_else(cut)?;
        let finality = read_part(&mut record)?.ok_or_else(cut)?;
        let block = decode_block(block, &self.rules).map_err(|e| foreign(&e))?;
        if block.header.height != height || block.header.chain.0 != self.rules.chain.0 {
            return Err(foreign("the record is of another height than its index says"));
        }
        let finality = match finality.is_empty() {
            true => None,
            false => Some(model::decode(&finality).map_err(|_| foreign("a finality proof is damaged"))?),
        };
        Ok((block, finality))
    }

    /// A block and its own finality proof; `None` where the archive does not reach so far.
    pub(crate) fn read(&self, height: u64) -> io::Result<Option<(Block, Option<Finality>)>> {
        if height == 0 || height > self.height() {
            return Ok(None);
        }
        self.read_at(height, self.offset(height)?).map(Some)
    }
}

/// Reads a file from a place on, without moving the position others read from.
struct ReadAt<'a> {
    file: &'a File,
    at: u64,
}

impl Read for ReadAt<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
