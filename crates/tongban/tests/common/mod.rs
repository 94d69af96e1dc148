//! What tests of the whole share: reading departments' databases, and looking for people where none may be.

use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

fn files_under(dir: &Path, into: &mut Vec<PathBuf>) {
    // a running node drops files it no longer needs
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => files_under(&entry.path(), into),
            false => into.push(entry.path()),
        }
    }
}

pub async fn column(database: &Path, sql: &'static str) -> Vec<String> {
    let options = SqliteConnectOptions::new().filename(database).read_only(true);
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    let rows = sqlx::query(sql).fetch_all(&mut db).await.unwrap();
    rows.iter().map(|r| r.get::<String, _>(0)).collect()
}

/// Copies a database that is in use, as a backup does.
#[allow(dead_code, reason = "not every test does")]
pub async fn copy(database: &Path, to: &Path) {
    let options = SqliteConnectOptions::new().filename(database);
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("VACUUM INTO ?").bind(to.to_str().unwrap().to_owned()).execute(&mut db).await.unwrap();
}

/// Changes one row of a department's own database, as its own people would.
#[allow(dead_code, reason = "not every test does")]
pub async fn execute(database: &Path, sql: &'static str, value: &str) {
    let options = SqliteConnectOptions::new().filename(database);
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    let done = sqlx::query(sql).bind(value.to_owned()).execute(&mut db).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

/// Whether a find stands where it is there by chance. Ten digits of an account come by in millions of hexadecimal ones, and behind the
/// point of a metric (0.0103200012 seconds); six bytes of a name of two characters in gigabytes that are encrypted, though hardly with
/// what stands before a text.
fn is_by_chance(hay: &[u8], at: usize, length: usize) -> bool {
    let (before, found, after) = (&hay[..at], &hay[at..at + length], &hay[at + length..]);
    if found.iter().all(u8::is_ascii_digit) {
        let hex = |b: &&u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        let run = before.iter().rev().take_while(hex).count() + length + after.iter().take_while(hex).count();
        return run >= 32 || matches!(before, [.., b'0'..=b'9', b'.']);
    }
    length < 8 && !before.last().is_none_or(|b| *b == length as u8 || b"\"'=:, /|>\n\0".contains(b))
}

#[test]
fn what_is_there_by_chance_is_no_find() {
    let chance =
        |hay: &str, needle: &str| is_by_chance(hay.as_bytes(), hay.find(needle).unwrap(), needle.len());
    assert!(chance("sent/5fa0cc0103200012be77120fd9aa31c09d1e44b7/1", "0103200012"));
    assert!(chance("seconds 0.0103200012", "0103200012"));
    assert!(chance("\u{7f}\u{3}q王芳", "王芳"));
    for plain in ["\"account\":\"0103200012\"", "\n0103200012cafe", "0103200012", " 0103200012"] {
        assert!(!chance(plain, "0103200012"), "{plain}");
    }
    assert!(
        !chance("\u{6}王芳", "王芳") && !chance("name=王芳", "王芳") && !chance("\u{7f}王小芳", "王小芳")
    );
}

/// Identifiers, names, addresses, contract and deed numbers of everybody in the city, and their plain hashes, are nowhere
/// in any node's folder (ledger, vault, keys, its own log) nor in what else is handed in: logs, metrics.
pub async fn check_nobody_is_on_the_ledger(data: &Path, more: Vec<(String, Vec<u8>)>) {
    let departments = data.join("departments");
    let mut canaries: Vec<String> = Vec::new();
    let sources: [(&str, &'static str); 12] = [
        ("police", "SELECT gmsfhm FROM rk_jbxx"),
        ("registry", "SELECT zl FROM bdc_dy"),
        ("registry", "SELECT bdcqzh FROM bdc_qz"),
        ("registry", "SELECT bdcdyh FROM bdc_dy"),
        ("housing", "SELECT htbh FROM wq_ht"),
        ("power", "SELECT yhh FROM dl_yh"),
        ("power", "SELECT lxdh FROM dl_yh"),
        ("power", "SELECT DISTINCT trim(yhmc) FROM dl_yh"),
        ("market", "SELECT qymc FROM qydj"),
        ("market", "SELECT tyshxydm FROM qydj"),
        ("health", "SELECT cert_no FROM birth_record"),
        ("bank", "SELECT yyzh FROM yykh"),
    ];
    // a consortium has the departments that its matters take
    for (department, sql) in sources {
        if !departments.join(department).exists() {
            continue;
        }
        canaries.extend(column(&departments.join(department).join("department.db"), sql).await);
    }
    let mut needles: BTreeSet<Vec<u8>> = BTreeSet::new();
    for canary in &canaries {
        needles.insert(canary.as_bytes().to_vec());
        for suite in [model::Suite::International, model::Suite::National] {
            let hash = crypto::digest(suite, &[canary.as_bytes()]);
            needles.insert(hash.0.to_vec());
            needles.insert(hash.to_string().into_bytes());
        }
    }
    assert!(needles.len() > 20_000);
    let mut files = Vec::new();
    files_under(&data.join("nodes"), &mut files);
    files.retain(|f| !f.ends_with("node.toml") && !f.ends_with("genesis.json"));
    assert!(files.iter().any(|f| f.to_string_lossy().contains("/ledger/")));
    // a running node removes what it no longer needs: a file may be gone between listing and reading
    let read = |file: &PathBuf| match std::fs::read(file) {
        Ok(bytes) => Some((file.display().to_string(), bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => panic!("{}: {e}", file.display()),
    };
    let mut haystacks: Vec<(String, Vec<u8>)> = files.iter().filter_map(read).collect();
    haystacks.extend(more);
    // a scan by the first eight bytes of each needle keeps this linear
    let mut heads: std::collections::HashMap<[u8; 6], Vec<&[u8]>> = std::collections::HashMap::new();
    for needle in &needles {
        heads.entry(needle[..6].try_into().unwrap()).or_default().push(needle);
    }
    let mut bytes = 0;
    for (name, hay) in &haystacks {
        bytes += hay.len();
        for window in 0..hay.len().saturating_sub(6) {
            let head: [u8; 6] = hay[window..window + 6].try_into().unwrap();
            for needle in heads.get(&head).into_iter().flatten() {
                let found = hay[window..].starts_with(needle) && !is_by_chance(hay, window, needle.len());
                let around = &hay[window.saturating_sub(40)..hay.len().min(window + needle.len() + 40)];
                let (needle, around) = (needle.escape_ascii(), around.escape_ascii());
                assert!(!found, "{name} holds the canary {needle} at {window}: {around}");
            }
        }
    }
    assert!(bytes > 1_000_000, "something was scanned: {bytes}");
}
