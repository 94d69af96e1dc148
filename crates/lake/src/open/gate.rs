//! The disclosure-risk gate: looks for people in what is about to be published, and says so before anybody else finds them.
//!
//! Identifiers of Chinese and general forms, names and addresses in context; k-anonymity (Sweeney 2002) and l-diversity
//! (Machanavajjhala 2006) over the declared quasi-identifiers; counts about too few; differences between versions that are.

use super::plan::{About, Plan, Role};
use crate::lookup::text;
use arrow::array::{Array as _, RecordBatch};
use model::identifier;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nobody may publish this.
    Never,
    /// The officer may answer for it in the plan.
    Ask,
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Its code.
    pub code: String,
    /// The column, or the columns parted by commas.
    pub column: String,
    /// How many rows.
    pub rows: u64,
    /// How bad it is.
    pub severity: Severity,
    /// What it means, and what to do.
    pub message: String,
    /// Why the officer answers for it, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<String>,
}

/// What the gate says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The publication.
    pub dataset: String,
    /// Its version.
    pub version: u32,
    /// Rows looked at.
    pub rows: u64,
    /// The fewest rows of a combination of quasi-identifiers, where rows are about people.
    pub k: Option<u64>,
    /// The fewest different sensitive values of one.
    pub l: Option<u64>,
    /// What was found.
    pub findings: Vec<Finding>,
    /// Whether it may be published.
    pub passes: bool,
}

/// What a piece of text looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Looks {
    /// A resident identity number.
    ResidentId,
    /// A mobile phone number.
    Phone,
    /// A bank card number.
    BankCard,
    /// A unified social credit code.
    CreditCode,
    /// An e-mail address.
    Email,
    /// An address down to the door.
    Address,
}

impl Looks {
    fn code(self) -> &'static str {
        match self {
            Self::ResidentId => "resident_id",
            Self::Phone => "phone",
            Self::BankCard => "bank_card",
            Self::CreditCode => "credit_code",
            Self::Email => "email",
            Self::Address => "address",
        }
    }
}

fn half_width(c: char) -> char {
    match c {
        '\u{3000}' => ' ',
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        _ => c,
    }
}

fn luhn(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, d)| {
            let d = u32::from(d - b'0');
            if at % 2 == 0 {
                d
            } else if d > 4 {
                d * 2 - 9
            } else {
                d * 2
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Everything a text looks like.
pub fn looks(cell: &str) -> Vec<Looks> {
    let cell: String = cell.chars().map(half_width).collect();
    let mut found = Vec::new();
    // digits and letters that only single separators part are one number
    let chars: Vec<char> = cell.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        if !chars[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        let (mut joined, mut plain, mut end) = (String::new(), true, at);
        while end < chars.len() {
            let c = chars[end];
            if c.is_ascii_alphanumeric() {
                joined.push(c.to_ascii_uppercase());
            } else if matches!(c, ' ' | '-' | '.' | '\u{b7}')
                && joined.ends_with(|d: char| d.is_ascii_digit())
                && chars.get(end + 1).is_some_and(char::is_ascii_digit)
            {
                plain = false;
            } else {
                break;
            }
            end += 1;
        }
        number(&joined, plain, &mut found);
        at = end.max(at + 1);
    }
    if let Some(middle) = cell.find('@') {
        let before = cell[..middle].chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric());
        let host: String = cell[middle + 1..]
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
            .collect();
        if before && host.trim_matches('.').contains('.') {
            found.push(Looks::Email);
        }
    }
    let street = ["路", "街", "巷", "胡同", "小区", "村", "里", "园", "苑"].iter().any(|w| cell.contains(w));
    let door = ["号楼", "单元", "室", "门牌", "号院"].iter().filter(|w| cell.contains(*w)).count();
    if street && door >= 1 && cell.chars().any(|c| c.is_ascii_digit()) {
        found.push(Looks::Address);
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn number(run: &str, plain: bool, found: &mut Vec<Looks>) {
    let digits = run.bytes().all(|b| b.is_ascii_digit());
    match run.len() {
        18 if identifier::resident(run).is_ok() => found.push(Looks::ResidentId),
        18 if identifier::credit(run).is_ok() => found.push(Looks::CreditCode),
        15 if digits && identifier::renewed(run).is_some_and(|id| identifier::resident(&id).is_ok()) => {
            found.push(Looks::ResidentId);
        }
        11 if digits && run.starts_with('1') && matches!(run.as_bytes()[1], b'3'..=b'9') => {
            found.push(Looks::Phone);
        }
        13 if digits && run.starts_with("861") && matches!(run.as_bytes()[3], b'3'..=b'9') => {
            found.push(Looks::Phone);
        }
        // a number of a place or a device may have as many digits: cards begin with 3 to 6 and pass Luhn's check
        16..=19
            if digits
                && matches!(run.as_bytes()[0], b'3'..=b'6')
                && luhn(run)
                && (plain || run.len() != 17) =>
        {
            found.push(Looks::BankCard);
        }
        _ => {}
    }
}

/// The hundred most frequent family names of the seventh census, which cover about 85 % of people.
const FAMILY_NAMES: &str = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤";

/// Whether a cell reads like a Chinese person's name.
fn like_a_name(cell: &str) -> bool {
    let count = cell.chars().count();
    let han = cell.chars().all(|c| ('\u{4e00}'..='\u{9fff}').contains(&c) || c == '·');
    (2..=4).contains(&count) && han && cell.chars().next().is_some_and(|c| FAMILY_NAMES.contains(c))
}

/// Looks at rows, and at the version before where there is one.
pub fn gate(plan: &Plan, version: u32, rows: &[RecordBatch], before: Option<&[RecordBatch]>) -> Report {
    let mut findings = Vec::new();
    let total: u64 = rows.iter().map(|b| b.num_rows() as u64).sum();
    let mut find = |code: &str, column: &str, rows: u64, severity: Severity, message: String| {
        findings.push(Finding {
            code: code.into(),
            column: column.into(),
            rows,
            severity,
            message,
            accepted: None,
        });
    };
    for column in &plan.columns {
        let (mut seen, mut names, mut present): (BTreeMap<Looks, u64>, u64, u64) = Default::default();
        for batch in rows {
            let Some(array) = batch.column_by_name(column.id.as_str()) else { continue };
            for row in 0..array.len() {
                if array.is_null(row) {
                    continue;
                }
                present += 1;
                let cell = text(array, row);
                for look in looks(&cell) {
                    *seen.entry(look).or_default() += 1;
                }
                names += u64::from(like_a_name(cell.trim()));
            }
        }
        for (look, rows) in seen {
            let severity = if look == Looks::ResidentId || look == Looks::BankCard {
                Severity::Never
            } else {
                Severity::Ask
            };
            let what = match look {
                Looks::ResidentId => "resident identity numbers: leave the column out",
                Looks::Phone => {
                    "mobile phone numbers: leave them out, or say in `accept` that they are an office's"
                }
                Looks::BankCard => "bank card numbers: leave the column out",
                Looks::CreditCode => {
                    "credit codes: say in `accept` that the organisations are public, or leave them out"
                }
                Looks::Email => {
                    "e-mail addresses: leave them out, or say in `accept` that they are an office's"
                }
                Looks::Address => {
                    "addresses down to the door: coarsen them, or say in `accept` that they are public places"
                }
            };
            find(look.code(), column.id.as_str(), rows, severity, what.into());
        }
        let title = format!("{} {} {}", column.id, column.title.zh, column.title.en).to_lowercase();
        let called = ["姓名", "名字", "联系人", "法定代表人", "负责人", "person", "full name", "surname"]
            .iter()
            .any(|word| title.contains(word));
        let share = if present == 0 { 0.0 } else { names as f64 / present as f64 };
        if present > 0 && (called && share > 0.1 || share > 0.6) {
            let message =
                "names of people: leave the column out, or say in `accept` that they hold a public office"
                    .to_owned();
            find("person_name", column.id.as_str(), names, Severity::Ask, message);
        }
    }
    let (mut k, mut l) = (None, None);
    let of = |role: Role| plan.columns.iter().filter(move |c| c.role == role).map(|c| c.id.as_str());
    let quasi: Vec<&str> = of(Role::Quasi).collect();
    let sensitive: Vec<&str> = of(Role::Sensitive).collect();
    if plan.rows == About::People {
        for column in plan.columns.iter().filter(|c| c.role == Role::Plain) {
            let message =
                "where rows are about people, say of each column whether it is `quasi` or `sensitive`"
                    .to_owned();
            find("no_role", column.id.as_str(), total, Severity::Never, message);
        }
        let mut classes: HashMap<String, (u64, HashSet<String>)> = HashMap::new();
        for batch in rows {
            for row in 0..batch.num_rows() {
                let class = classes.entry(joined(batch, &quasi, row)).or_default();
                class.0 += 1;
                class.1.insert(joined(batch, &sensitive, row));
            }
        }
        k = classes.values().map(|(rows, _)| *rows).min();
        let few: u64 =
            classes.values().filter(|(rows, _)| *rows < u64::from(plan.k)).map(|(rows, _)| rows).sum();
        if few > 0 {
            let message = format!(
                "rows that share their quasi-identifiers with fewer than {} rows in all: coarsen the columns (age groups, districts)",
                plan.k
            );
            find("k_anonymity", &quasi.join(","), few, Severity::Never, message);
        }
        if !sensitive.is_empty() {
            l = classes.values().map(|(_, values)| values.len() as u64).min();
            let alike: u64 = classes
                .values()
                .filter(|(_, v)| (v.len() as u64) < u64::from(plan.l))
                .map(|(rows, _)| rows)
                .sum();
            if alike > 0 {
                let message = format!(
                    "rows whose quasi-identifiers give away the sensitive value, fewer than {} different ones: coarsen the columns",
                    plan.l
                );
                find("l_diversity", &sensitive.join(","), alike, Severity::Never, message);
            }
        }
    }
    for column in of(Role::People) {
        let small = rows
            .iter()
            .flat_map(|b| numbers(b, column))
            .filter(|n| (1..i64::from(plan.k)).contains(n))
            .count();
        if small > 0 {
            let message =
                format!("counts of fewer than {} people: group more coarsely, or set `round_to`", plan.k);
            find("small_cell", column, small as u64, Severity::Never, message);
        }
        if let Some(before) = before {
            let close = differences(plan, rows, before, column)
                .filter(|d| (1..u64::from(plan.k)).contains(d))
                .count();
            if close > 0 {
                let message = format!(
                    "counts that differ from the version before by fewer than {} people, who are told by the difference: set `round_to`",
                    plan.k
                );
                find("differencing", column, close as u64, Severity::Never, message);
            }
        }
    }
    if plan.rows == About::Totals && of(Role::People).next().is_none() {
        let message =
            "totals are about people: say which column is a number of `people`, so that small ones are found"
                .to_owned();
        find("no_count", "*", total, Severity::Ask, message);
    }
    for finding in findings.iter_mut().filter(|f| f.severity == Severity::Ask) {
        let accepted =
            plan.accept.iter().find(|a| a.code == finding.code && a.column.as_str() == finding.column);
        finding.accepted = accepted.map(|a| a.reason.clone());
    }
    let passes = findings.iter().all(|f| f.accepted.is_some());
    Report { dataset: plan.id.to_string(), version, rows: total, k, l, findings, passes }
}

/// The values of several columns of a row as one text.
fn joined(batch: &RecordBatch, columns: &[&str], row: usize) -> String {
    let cells = columns
        .iter()
        .filter_map(|c| batch.column_by_name(c))
        .map(|array| if array.is_null(row) { "\u{1}".to_owned() } else { text(array, row) });
    cells.collect::<Vec<_>>().join("\u{0}")
}

fn numbers<'a>(batch: &'a RecordBatch, column: &str) -> impl Iterator<Item = i64> + 'a {
    let array = batch.column_by_name(column);
    array
        .into_iter()
        .flat_map(|array| {
            (0..array.len())
                .filter(|row| !array.is_null(*row))
                .filter_map(|row| text(array, row).parse::<f64>().ok())
        })
        .map(|n| n as i64)
}

/// By how much counts differ between versions, cell by cell.
fn differences(
    plan: &Plan,
    now: &[RecordBatch],
    before: &[RecordBatch],
    column: &str,
) -> impl Iterator<Item = u64> {
    // what a cell is about: every column that is no number
    let dimensions: Vec<&str> = plan
        .columns
        .iter()
        .filter(|c| {
            c.role != Role::People
                && !matches!(c.kind, gateway::ElementKind::Number | gateway::ElementKind::Integer)
        })
        .map(|c| c.id.as_str())
        .collect();
    let cells = |rows: &[RecordBatch]| -> HashMap<String, i64> {
        let mut cells = HashMap::new();
        for batch in rows {
            let Some(array) = batch.column_by_name(column) else { continue };
            for row in 0..batch.num_rows() {
                if let Ok(n) = text(array, row).parse::<f64>() {
                    cells.insert(joined(batch, &dimensions, row), n as i64);
                }
            }
        }
        cells
    };
    let (now, before) = (cells(now), cells(before));
    now.into_iter()
        .filter_map(move |(cell, n)| before.get(&cell).map(|b| n.abs_diff(*b)))
        .collect::<Vec<_>>()
        .into_iter()
}
