//! How good a data set is, measured: completeness, validity, uniqueness, timeliness, agreement with other sources; as figures, as a page
//! with charts, and as issues that go back to the responsible department with a clock.

use crate::{
    dataset::{Dataset, SUBJECT},
    lake::Lake,
    lookup::text,
    query::{engine, register, run, sql_name},
    table::{Table, now_ms},
};
use anyhow::{Context as _, Result, bail};
use askama::Template;
use datafusion::execution::context::SessionContext;
use gateway::ElementKind;
use model::Day;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Working days until an issue must be answered.
const CLOCK_DAYS: u16 = 10;
/// Below this share a measure becomes an issue.
const GOOD: f64 = 0.98;

/// What was found of a column.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ColumnProfile {
    /// The column.
    pub column: String,
    /// The data element it carries.
    pub element: String,
    /// Rows with a value.
    pub present: u64,
    /// Different values, about.
    pub distinct: u64,
    /// The smallest value, where that says nothing of a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least: Option<String>,
    /// The largest value, where that says nothing of a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greatest: Option<String>,
    /// Rows whose word is not in the declared list.
    pub strange: u64,
    /// The most frequent words and how often they occur, of columns with words; those of fewer than ten rows are left out.
    pub frequent: Vec<(String, u64)>,
}

/// A measure from 0 to 1 and what it counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measure {
    /// `completeness`, `validity`, `uniqueness`, `timeliness` or `agreement`.
    pub name: String,
    /// What it is about, where it is about one thing: a column, another data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// The share that is good.
    pub share: f64,
    /// How many were looked at.
    pub counted: u64,
    /// How many are not good.
    pub bad: u64,
}

/// A report on a data set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The data set.
    pub dataset: String,
    /// Its title.
    pub title: model::Text,
    /// Who answers for it.
    pub department: String,
    /// The responsible post.
    pub officer: String,
    /// The table's version that was looked at.
    pub version: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its rows.
    pub rows: u64,
    /// The mean of all measures.
    pub score: f64,
    /// The measures.
    pub measures: Vec<Measure>,
    /// Its columns.
    pub columns: Vec<ColumnProfile>,
    /// Rows refused when batches were taken in, by column and reason.
    pub refused: BTreeMap<String, u64>,
}

/// Something a department must put right, or explain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Issue {
    /// Its name: data set and what is wrong.
    pub id: String,
    /// Who must answer.
    pub department: String,
    /// The responsible post.
    pub officer: String,
    /// What is wrong, in figures.
    pub measure: Measure,
    /// When it was found, in milliseconds since 1970.
    pub since_ms: u64,
    /// When it must be answered, in milliseconds since 1970.
    pub due_ms: u64,
    /// The department's answer.
    pub answer: Option<String>,
    /// When a later report found it put right, in milliseconds since 1970.
    pub mended_ms: Option<u64>,
}

async fn number(context: &SessionContext, sql: &str) -> Result<u64> {
    let batches = run(context, sql).await?;
    let batch = batches.iter().find(|b| b.num_rows() > 0).context("no figure came back")?;
    Ok(text(batch.column(0), 0).parse().unwrap_or(0))
}

fn quoted(id: &str) -> String {
    format!("\"{}\"", id.replace('"', "\"\""))
}

/// Looks at a data set.
pub async fn report(lake: &Lake, dataset: &Dataset) -> Result<Report> {
    let context = engine(lake.config.memory_mb)?;
    if !register(&context, lake, dataset).await? {
        bail!("nothing was taken into {} yet", dataset.id());
    }
    let table = Table::open(&lake.config, dataset).await?.context("the table")?;
    let name = quoted(&sql_name(dataset.id()));
    let rows = number(&context, &format!("select count(*) from {name}")).await?;
    let declared = &dataset.declared;
    let mut measures = Vec::new();
    let mut measure = |name: &str, of: Option<&str>, counted: u64, bad: u64| {
        let share = if counted == 0 { 1.0 } else { 1.0 - bad as f64 / counted as f64 };
        measures.push(Measure { name: name.into(), of: of.map(Into::into), share, counted, bad });
    };
    let mut columns = Vec::new();
    for column in dataset.columns.iter().filter(|c| declared.subject.as_ref() != Some(&c.id)) {
        let id = quoted(column.id.as_str());
        let present = number(&context, &format!("select count({id}) from {name}")).await?;
        let distinct = number(&context, &format!("select approx_distinct({id}) from {name}")).await?;
        let ordered =
            matches!(column.cell.kind(), ElementKind::Date | ElementKind::Integer | ElementKind::Number);
        let (mut least, mut greatest) = (None, None);
        if ordered && column.declared.sensitivity <= 2 && present > 0 {
            let found = run(&context, &format!("select min({id}), max({id}) from {name}")).await?;
            least = Some(text(found[0].column(0), 0));
            greatest = Some(text(found[0].column(1), 0));
        }
        let mut frequent = Vec::new();
        let mut strange = 0;
        if column.cell.kind() == ElementKind::Code && column.declared.sensitivity <= 3 {
            let sql = format!(
                "select {id}, count(*) from {name} where {id} is not null group by {id} having count(*) >= 10 order by 2 desc, 1 limit 12"
            );
            for batch in run(&context, &sql).await? {
                for row in 0..batch.num_rows() {
                    frequent
                        .push((text(batch.column(0), row), text(batch.column(1), row).parse().unwrap_or(0)));
                }
            }
        }
        if !column.declared.words.is_empty() {
            let words: Vec<_> =
                column.declared.words.iter().map(|w| format!("'{}'", w.replace('\'', "''"))).collect();
            let sql = format!("select count(*) from {name} where {id} not in ({})", words.join(", "));
            strange = number(&context, &sql).await?;
            measure("validity", Some(column.id.as_str()), present, strange);
        }
        measure("completeness", Some(column.id.as_str()), rows, rows - present);
        columns.push(ColumnProfile {
            column: column.id.to_string(),
            element: column.declared.element.to_string(),
            present,
            distinct,
            least,
            greatest,
            strange,
            frequent,
        });
    }
    let refused = refused(&table).await?;
    let refused_rows: u64 = refused.values().sum();
    measure("validity", None, rows + refused_rows, refused_rows);
    if !declared.key.is_empty() {
        let mut by: Vec<String> = declared.key.iter().map(|k| quoted(k.as_str())).collect();
        if declared.subject.is_some() {
            by.retain(|k| Some(k.trim_matches('"')) != declared.subject.as_ref().map(model::FieldId::as_str));
            by.push(quoted(SUBJECT));
        }
        let by = by.join(", ");
        let sql =
            format!("select coalesce(sum(n - 1), 0) from (select count(*) as n from {name} group by {by})");
        measure("uniqueness", None, rows, number(&context, &sql).await?);
    }
    if let (Some(day), Some(within)) = (&declared.day, declared.timely_days) {
        let day = quoted(day.as_str());
        let newest = run(&context, &format!("select max({day}) from {name}")).await?;
        let newest = crate::convert::days(&text(newest[0].column(0), 0)).unwrap_or(0);
        let late = (now_ms() / 86_400_000) - i64::from(newest) - i64::from(within);
        // a data set that is late by as long again as it may be is of no use
        let bad = (late.max(0) as u64).min(u64::from(within.max(1)));
        measure("timeliness", None, u64::from(within.max(1)), bad);
    }
    for other in &declared.agrees {
        let with = lake.dataset(other.with.as_str())?;
        if !register(&context, lake, with).await? {
            continue;
        }
        let their = quoted(&sql_name(with.id()));
        let (mine, theirs) = (quoted(other.column.as_str()), quoted(other.theirs.as_str()));
        let joined = format!(
            "from {name} a join {their} b on a.{SUBJECT} = b.{SUBJECT} where a.{mine} is not null and b.{theirs} is not null"
        );
        let both = number(&context, &format!("select count(*) {joined}")).await?;
        let differ =
            number(&context, &format!("select count(*) {joined} and a.{mine} <> b.{theirs}")).await?;
        measure("agreement", Some(with.id()), both, differ);
    }
    let score = measures.iter().map(|m| m.share).sum::<f64>() / measures.len().max(1) as f64;
    Ok(Report {
        dataset: dataset.id().to_owned(),
        title: declared.title.clone(),
        department: declared.department.to_string(),
        officer: declared.officer.clone(),
        version: table.version(),
        at_ms: now_ms() as u64,
        rows,
        score,
        measures,
        columns,
        refused,
    })
}

/// Rows refused, as the table's history tells it.
async fn refused(table: &Table) -> Result<BTreeMap<String, u64>> {
    let mut refused = BTreeMap::new();
    for commit in table.history(1000).await? {
        let count = commit["tongbanRefused"].as_u64().unwrap_or(0);
        if count > 0 {
            let batch = commit["tongbanBatch"].as_str().unwrap_or("?").to_owned();
            *refused.entry(format!("batch {batch}")).or_default() += count;
        }
    }
    Ok(refused)
}

fn issues_file(lake: &Lake) -> PathBuf {
    lake.config.work.join("issues.json")
}

/// The issues there are, by name.
pub fn issues(lake: &Lake) -> Result<BTreeMap<String, Issue>> {
    match std::fs::read(issues_file(lake)) {
        Ok(bytes) => serde_json::from_slice(&bytes).context("the list of issues is damaged"),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(e) => Err(e.into()),
    }
}

fn keep_issues(lake: &Lake, issues: &BTreeMap<String, Issue>) -> Result<()> {
    std::fs::create_dir_all(&lake.config.work)?;
    let file = issues_file(lake);
    let next = file.with_extension("next");
    std::fs::write(&next, serde_json::to_vec_pretty(issues)?)?;
    Ok(std::fs::rename(next, file)?)
}

/// Opens an issue for each measure that is not good, and closes those that are put right. Returns the open ones of this data set.
pub fn follow(lake: &Lake, report: &Report) -> Result<Vec<Issue>> {
    let mut all = issues(lake)?;
    let calendar = model::WorkingDays::default();
    for measure in &report.measures {
        let of = measure.of.as_deref().unwrap_or("all");
        let id = format!("{}/{}/{of}", report.dataset, measure.name);
        let bad = measure.share < GOOD;
        let open = all.get(&id).is_some_and(|issue| issue.mended_ms.is_none());
        match (bad, open) {
            (true, false) => {
                let issue = Issue {
                    id: id.clone(),
                    department: report.department.clone(),
                    officer: report.officer.clone(),
                    measure: measure.clone(),
                    since_ms: report.at_ms,
                    due_ms: calendar.deadline_ms(report.at_ms, CLOCK_DAYS),
                    answer: None,
                    mended_ms: None,
                };
                all.insert(id, issue);
            }
            (true, true) => all.get_mut(&id).expect("it is open").measure = measure.clone(),
            (false, true) => all.get_mut(&id).expect("it is open").mended_ms = Some(report.at_ms),
            (false, false) => {}
        }
    }
    keep_issues(lake, &all)?;
    let prefix = format!("{}/", report.dataset);
    Ok(all.into_values().filter(|i| i.id.starts_with(&prefix) && i.mended_ms.is_none()).collect())
}

/// Notes a department's answer to an issue.
pub fn answer(lake: &Lake, id: &str, note: &str) -> Result<Issue> {
    if note.trim().is_empty() || note.len() > 2000 {
        bail!("an answer has 1 to 2,000 bytes");
    }
    let mut all = issues(lake)?;
    let issue =
        all.get_mut(id).with_context(|| format!("no issue `{id}`; `tongban-lake issue list` shows them"))?;
    issue.answer = Some(note.to_owned());
    let issue = issue.clone();
    keep_issues(lake, &all)?;
    Ok(issue)
}

/// Days from now until an issue is due; negative when it is overdue.
pub fn days_left(issue: &Issue) -> i64 {
    (issue.due_ms as i64 - now_ms()).div_euclid(86_400_000)
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    issues: &'a [Issue],
    day: String,
}

impl Page<'_> {
    fn percent(&self, share: &f64) -> String {
        format!("{:.1} %", share * 100.0)
    }
    fn width(&self, share: &f64) -> String {
        format!("{:.1}", share.clamp(0.0, 1.0) * 300.0)
    }
    fn share(&self, present: &u64) -> f64 {
        if self.report.rows == 0 { 1.0 } else { *present as f64 / self.report.rows as f64 }
    }
    fn due(&self, issue: &&Issue) -> String {
        Day::of(issue.due_ms).to_string()
    }
}

/// The report as a page of its own, without script.
pub fn page(report: &Report, issues: &[Issue]) -> Result<String> {
    Ok(Page { report, issues, day: Day::of(report.at_ms).to_string() }.render()?)
}
