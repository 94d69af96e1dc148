//! Lays files out anew: merges runs, so that a look-up goes to few files; takes rows out, of one person or past their retention.

use crate::{
    config::Config,
    convert::GONE,
    dataset::{Dataset, Mode},
    reader::Files,
    table::{Commit, DataFile, SubjectKey, Table, Writing, new_run, overlap},
    write::{FILE_ROWS, keys, write_run},
};
use anyhow::{Context as _, Result};
use arrow::{
    array::{Array as _, AsArray as _, BooleanArray, RecordBatch},
    compute::{concat_batches, filter_record_batch},
    datatypes::Date32Type,
    row::{RowConverter, SortField},
};
use indicatif::ProgressBar;
use serde::Serialize;
use std::{collections::HashMap, sync::Arc, time::Instant};

/// Runs a table may have before they are merged.
pub const RUNS_MAX: usize = 4;

/// What laying out anew came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Compacted {
    /// Files and runs before.
    pub files_before: usize,
    /// Runs before.
    pub runs_before: usize,
    /// Files after.
    pub files: usize,
    /// Runs after: how many files a look-up goes to at most.
    pub runs: usize,
    /// Rows written anew.
    pub rows: u64,
    /// Bytes of all files after.
    pub bytes: u64,
    /// Files deleted that nothing uses any more.
    pub deleted: usize,
    /// How long it took.
    pub seconds: f64,
}

/// The runs to merge: none while there are few; else the smallest, until what is left is few and each much larger.
fn due(files: &[DataFile], full: bool) -> Vec<String> {
    let mut runs: HashMap<&str, u64> = HashMap::new();
    for file in files {
        *runs.entry(&file.run).or_default() += file.rows;
    }
    if runs.len() < 2 || (!full && runs.len() <= RUNS_MAX) {
        return vec![];
    }
    let mut runs: Vec<(u64, &str)> = runs.into_iter().map(|(run, rows)| (rows, run)).collect();
    runs.sort_unstable();
    if full {
        return runs.into_iter().map(|(_, run)| run.to_owned()).collect();
    }
    let (mut sum, mut take) = (0, 0);
    for (at, (rows, _)) in runs.iter().enumerate() {
        // a run four times as large as all before it together stays, if enough of the small ones go
        if runs.len() - at < RUNS_MAX && *rows > sum * 4 {
            break;
        }
        sum += rows;
        take = at + 1;
    }
    runs[..take.max(2)].iter().map(|(_, run)| (*run).to_owned()).collect()
}

/// Merges runs where there are too many, or all of them.
pub async fn compact(
    config: &Config,
    dataset: &Arc<Dataset>,
    full: bool,
    bar: &ProgressBar,
) -> Result<Compacted> {
    let begun = Instant::now();
    let _writing = Writing::begin(config, dataset)?;
    let mut table = Table::open(config, dataset).await?.context("nothing was taken in yet")?;
    let files = table.files()?;
    let mut removed = Vec::new();
    let mut done =
        Compacted { files_before: files.len(), runs_before: overlap(&files), ..Compacted::default() };
    let runs = due(&files, full);
    if !runs.is_empty() {
        let old: Vec<DataFile> = files.iter().filter(|f| runs.contains(&f.run)).cloned().collect();
        done.rows = old.iter().map(|f| f.rows).sum();
        bar.set_length(done.rows);
        let add = merge_with(config, dataset, &table, &old, &[], bar).await?;
        removed = old.iter().map(|f| f.path.clone()).collect();
        table.commit(Commit { add, remove: old, ..Commit::default() }).await?;
    }
    done.deleted = table.vacuum(&removed).await?.len();
    let files = table.files()?;
    done.files = files.len();
    done.runs = overlap(&files);
    done.bytes = files.iter().map(|f| f.bytes).sum();
    done.seconds = begun.elapsed().as_secs_f64();
    bar.finish_and_clear();
    Ok(done)
}

/// Merges what is there with what came, newest last: of rows that are one by their key the last stays, unless it says that it is gone.
pub async fn merge(
    config: &Config,
    dataset: &Arc<Dataset>,
    table: &Table,
    old: &[DataFile],
    new: &[DataFile],
) -> Result<Vec<DataFile>> {
    merge_with(config, dataset, table, old, new, &ProgressBar::hidden()).await
}

async fn merge_with(
    config: &Config,
    dataset: &Arc<Dataset>,
    table: &Table,
    old: &[DataFile],
    new: &[DataFile],
    bar: &ProgressBar,
) -> Result<Vec<DataFile>> {
    let store = table.store();
    let files = Files::new(store.clone());
    let rows: u64 = old.iter().chain(new).map(|f| f.rows).sum();
    let of_people = dataset.declared.subject.is_some();
    // as much at once as memory allows, by what a row of the files takes unpacked
    let budget = (config.memory_mb << 20) as u64 / 3;
    let per_row = 24 * dataset.schema.fields().len() as u64;
    let at_once = (budget / per_row).clamp(1 << 16, 4 * FILE_ROWS as u64);
    let parts = if of_people { rows.div_ceil(at_once).max(1) } else { 1 };
    let run = new_run();
    let mut written = Vec::new();
    for part in 0..parts {
        let low = bound(part, parts);
        let high = if part + 1 == parts { u64::MAX } else { bound(part + 1, parts) - 1 };
        let (low_key, high_key) = (widen(low, 0), widen(high, 0xff));
        let within = of_people.then_some((&low_key, &high_key));
        let mut batches = Vec::new();
        for file in old.iter().chain(new).filter(|f| !of_people || (f.range.0 <= high && low <= f.range.1)) {
            for batch in files.rows(file, within).await? {
                bar.inc(batch.num_rows() as u64);
                batches.push(batch);
            }
        }
        if dataset.declared.mode == Mode::Changes {
            batches = newest(dataset, batches)?;
        }
        written.extend(write_run(dataset, &store, &run, batches, written.len()).await?);
    }
    Ok(written)
}

/// Where a part of all keys begins.
fn bound(part: u64, parts: u64) -> u64 {
    ((u128::from(part) << 64) / u128::from(parts)) as u64
}

fn widen(prefix: u64, with: u8) -> SubjectKey {
    let mut key = [with; 16];
    key[..8].copy_from_slice(&prefix.to_be_bytes());
    key
}

/// Of rows with the same subject and key the last; none where that one is gone.
fn newest(dataset: &Dataset, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let mut ids: Vec<&str> = dataset.declared.key.iter().map(model::FieldId::as_str).collect();
    ids.retain(|id| dataset.schema.field_with_name(id).is_ok());
    let mut fields = Vec::new();
    for id in &ids {
        fields.push(SortField::new(dataset.schema.field_with_name(id)?.data_type().clone()));
    }
    let converter = RowConverter::new(fields)?;
    let mut last: HashMap<(Vec<u8>, Vec<u8>), (usize, usize)> = HashMap::new();
    for (at, batch) in batches.iter().enumerate() {
        let columns = ids.iter().map(|id| batch.column_by_name(id).cloned().context("a key column"));
        let rows = converter.convert_columns(&columns.collect::<Result<Vec<_>>>()?)?;
        let subjects = keys(batch);
        for row in 0..batch.num_rows() {
            let subject = subjects.map(|s| s.value(row).to_vec()).unwrap_or_default();
            let key = if ids.is_empty() { vec![] } else { rows.row(row).as_ref().to_vec() };
            last.insert((subject, key), (at, row));
        }
    }
    let mut masks: Vec<Vec<bool>> = batches.iter().map(|b| vec![false; b.num_rows()]).collect();
    for (at, row) in last.into_values() {
        masks[at][row] = true;
    }
    let mut kept = Vec::new();
    for (batch, mut mask) in batches.into_iter().zip(masks) {
        if let Some(gone) = batch.column_by_name(GONE) {
            let gone = gone.as_boolean();
            for (row, keep) in mask.iter_mut().enumerate() {
                *keep &= !gone.value(row);
            }
        }
        let columns: Vec<usize> = (0..dataset.schema.fields().len()).collect();
        let batch = filter_record_batch(&batch.project(&columns)?, &BooleanArray::from(mask))?;
        if batch.num_rows() > 0 {
            kept.push(batch);
        }
    }
    Ok(kept)
}

/// What taking rows out came to: enough to show later that it was done.
#[derive(Clone, Debug, Serialize)]
pub struct Erased {
    /// The data set.
    pub dataset: String,
    /// Rows taken out.
    pub rows: u64,
    /// Rows in quarantine that were taken out.
    pub quarantined: u64,
    /// The table's version before and after.
    pub versions: (u64, u64),
    /// Files that were deleted from the store.
    pub deleted: Vec<String>,
    /// Files written in their place.
    pub written: Vec<String>,
}

/// Rewrites every file in which `keep` drops rows, and deletes the old ones from the store at once: no earlier version has them either.
async fn take_out(
    config: &Config,
    dataset: &Arc<Dataset>,
    candidates: impl Fn(&DataFile) -> bool,
    keep: impl Fn(&RecordBatch) -> BooleanArray + Send,
) -> Result<Erased> {
    let _writing = Writing::begin(config, dataset)?;
    let mut table = Table::open(config, dataset).await?.context("nothing was taken in yet")?;
    let before = table.version();
    let store = table.store();
    let files = Files::new(store.clone());
    let (mut remove, mut add, mut gone) = (Vec::new(), Vec::new(), 0);
    for file in table.files()?.into_iter().filter(|f| candidates(f)) {
        let batches = files.rows(&file, None).await?;
        let mut kept = Vec::new();
        for batch in &batches {
            let left = filter_record_batch(batch, &keep(batch))?;
            gone += (batch.num_rows() - left.num_rows()) as u64;
            kept.push(left);
        }
        let left: u64 = kept.iter().map(|b| b.num_rows() as u64).sum();
        if left == file.rows {
            continue;
        }
        let schema = dataset.schema.clone();
        let whole = concat_batches(&schema, &kept)?;
        if whole.num_rows() > 0 {
            add.extend(
                write_run(dataset, &store, &format!("{}e{}", file.run, before), vec![whole], add.len())
                    .await?,
            );
        }
        remove.push(file);
    }
    let written = add.iter().map(|f| f.path.clone()).collect();
    let removed: Vec<String> = remove.iter().map(|f| f.path.clone()).collect();
    if !remove.is_empty() {
        table.commit(Commit { add, remove, data_change: true, ..Commit::default() }).await?;
    }
    let deleted = table.vacuum(&removed).await?;
    Ok(Erased {
        dataset: dataset.id().to_owned(),
        rows: gone,
        quarantined: 0,
        versions: (before, table.version()),
        deleted,
        written,
    })
}

/// Whether a row as it came names a person: by their number in the form given or in that of before 1999 with 15 digits, in full-width
/// digits, with a small x, or with spaces and hyphens in it.
fn names(line: &str, identifier: &str) -> bool {
    let plain = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        other => other,
    };
    let folded: String = line
        .chars()
        .map(plain)
        .filter(|c| !matches!(c, ' ' | '-' | '\u{3000}'))
        .collect::<String>()
        .to_ascii_uppercase();
    let stands = |number: &str| {
        folded.match_indices(number).any(|(at, found)| {
            let before = folded[..at].chars().next_back();
            let after = folded[at + found.len()..].chars().next();
            [before, after].into_iter().flatten().all(|c| !c.is_ascii_digit())
        })
    };
    let number = identifier.to_ascii_uppercase();
    line.contains(identifier)
        || stands(&number)
        || model::identifier::before_renewal(&number).is_some_and(|old| stands(&old))
}

/// Takes out all rows of one subject.
pub async fn erase(
    config: &Config,
    dataset: &Arc<Dataset>,
    key: &SubjectKey,
    identifier: &str,
) -> Result<Erased> {
    let mut erased = take_out(
        config,
        dataset,
        |f| f.may_hold(key),
        |batch| match keys(batch) {
            Some(keys) => keys.iter().map(|k| k.map(|k| k != &key[..])).collect(),
            None => BooleanArray::from(vec![true; batch.num_rows()]),
        },
    )
    .await?;
    // rows that were refused wait as they came
    let folder = config.work.join("quarantine").join(dataset.id());
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path())?;
        let left: Vec<&str> = text.lines().filter(|line| !names(line, identifier)).collect();
        let gone = text.lines().count() - left.len();
        if gone > 0 {
            erased.quarantined += gone as u64;
            std::fs::write(entry.path(), left.iter().map(|l| format!("{l}\n")).collect::<String>())?;
        }
    }
    Ok(erased)
}

/// Takes out rows whose day is before the first that is kept.
pub async fn retain(config: &Config, dataset: &Arc<Dataset>, first_day: i32) -> Result<Erased> {
    let day = dataset.declared.day.clone().context("the data set declares no `day`")?;
    take_out(
        config,
        dataset,
        |_| true,
        |batch| {
            let days = batch.column_by_name(day.as_str()).expect("declared").as_primitive::<Date32Type>();
            (0..days.len()).map(|row| Some(days.is_null(row) || days.value(row) >= first_day)).collect()
        },
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_refused_row_names_a_person_in_any_form_of_their_number() {
        let number = model::identifier::renewed("990000800203123").unwrap();
        let wide: String = number.chars().map(|c| char::from_u32(c as u32 + 0xfee0).unwrap()).collect();
        let spaced = format!("{} {} {}", &number[..6], &number[6..14], &number[14..]);
        for form in [number.clone(), number.to_lowercase(), wide, spaced, "990000800203123".into()] {
            assert!(names(&format!("7,\"{form}\",R-1"), &number), "{form}");
        }
        // another's longer number, and a neighbour's
        for other in ["9900008002031234", "19900008002031235", "990000800203124"] {
            assert!(!names(&format!("7,{other},R-1"), &number), "{other}");
        }
    }
}
