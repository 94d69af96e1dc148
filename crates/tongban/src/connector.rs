//! `tongban connector`: what a department's engineer tries files with, at the department itself.

use crate::say;
use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use gateway::{Connected, Connector, Gateway, GatewayError, Standard};
use indicatif::ProgressBar;
use model::{FieldId, What};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

/// How many different values of each column `check` tries.
const VALUES_LOOKED_AT: u64 = 500;

/// `tongban connector …`.
#[derive(Subcommand)]
pub enum ConnectorCommand {
    /// Compile a connector against the live source and report drift; nothing is changed. Exits 1 where something does not fit.
    ///
    /// Example: tongban connector check elements.yaml connector.yaml --database postgres://reader@10.0.0.5/registry
    Check {
        /// The standard and the connector file.
        #[arg(num_args = 2, required = true)]
        files: Vec<PathBuf>,
        /// A SQLite file, `postgres://…`, `mysql://…`, `odbc:DSN=…`, `files:FOLDER`, or a service at `http(s)://…`. A password is better put into
        /// TONGBAN_DATABASE, where no other user of the machine sees it.
        #[arg(long, env = "TONGBAN_DATABASE", hide_env_values = true)]
        database: String,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Ask every question of a file and compare the answers: what a mapping's author keeps beside it. Exits 1 where one differs.
    ///
    /// A line is `{"query":"registry.deed","subject":{"subject":"…","unit":"…"},"answer":{"deed_no":"…"}}`, or with `"answer":null` and the
    /// `"reason"` (`not_found`, `ambiguous`, …). No value is printed.
    ///
    /// Example: tongban connector test elements.yaml connector.yaml --database department.db --expected expected.jsonl
    Test {
        /// The standard and the connector file.
        #[arg(num_args = 2, required = true)]
        files: Vec<PathBuf>,
        /// See `connector check`.
        #[arg(long, env = "TONGBAN_DATABASE", hide_env_values = true)]
        database: String,
        /// The file of questions and answers, one JSON object a line.
        #[arg(long)]
        expected: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Answer one declared query for one subject, at the department itself. Values are masked unless you ask for them.
    ///
    /// Example: tongban connector try elements.yaml connector.yaml --database department.db --query registry.deed
    /// --subject '{"unit":"110108001002GB00003F00010001"}'
    ///
    /// Example: tongban connector try elements.yaml connector.yaml --database department.db --query police.person.matches
    /// --subject '{"subject":"11010519491231002X","name":"王小明"}'
    Try {
        /// The standard and the connector file.
        #[arg(num_args = 2, required = true)]
        files: Vec<PathBuf>,
        /// See `connector check`.
        #[arg(long, env = "TONGBAN_DATABASE", hide_env_values = true)]
        database: String,
        /// The resource, or the resource and its predicate.
        #[arg(long)]
        query: String,
        /// A JSON object: the subject, by the name of its column or as `subject`, and the parameters.
        #[arg(long)]
        subject: String,
        /// Show values as they are.
        #[arg(long)]
        unmasked: bool,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

impl ConnectorCommand {
    /// Whether it prints one JSON document.
    pub fn json(&self) -> bool {
        let (Self::Check { json, .. } | Self::Test { json, .. } | Self::Try { json, .. }) = self;
        *json
    }
}

/// Runs `tongban connector …`. Says what does not fit, where something does not.
pub async fn connector(command: ConnectorCommand) -> Result<Option<String>> {
    match command {
        ConnectorCommand::Check { files, database, json } => check(&files, &database, json).await,
        ConnectorCommand::Test { files, database, expected, json } => {
            let (connector, gateway) = open(&files, &database).await?;
            test(&connector, &gateway, &expected, json).await
        }
        ConnectorCommand::Try { files, database, query, subject, unmasked, json } => {
            let (connector, gateway) = open(&files, &database).await?;
            let subject = serde_json::from_str(&subject).context("--subject is no JSON")?;
            attempt(&connector, &gateway, &query, subject, unmasked, json).await
        }
    }
}

async fn open(files: &[PathBuf], database: &str) -> Result<(Connector, Gateway<Connected>)> {
    let standard = Standard::read(&files[0])?;
    let connector = Connector::read(&files[1])?;
    let source = Connected::open(database, Path::new(""), &connector, true).await;
    let source = source.with_context(|| format!("opening {}", gateway::shown(database)))?;
    let gateway = Gateway::open(connector.clone(), &standard, source).await?;
    Ok((connector, gateway))
}

async fn check(files: &[PathBuf], database: &str, json: bool) -> Result<Option<String>> {
    let (_, gateway) = open(files, database).await?;
    let problems = gateway.problems();
    let values = gateway.look_at_values(VALUES_LOOKED_AT).await?;
    let tables: Vec<_> = problems.iter().filter(|p| p.at.starts_with("table ")).collect();
    if json {
        say!("{}", json!({ "queries": gateway.report(), "problems": tables, "values": values }));
    } else {
        for query in gateway.report() {
            say!("{:<8} {}", query.status, query.id);
            for problem in query.problems {
                say!("         {problem}");
            }
        }
        tables.iter().for_each(|problem| say!("{}: {}", problem.at, problem.message));
        for column in &values {
            if let Some(why) = &column.unread {
                say!("values   {} (`{}`) could not be looked at: {why}", column.column, column.stored);
            }
            if column.unfit > 0 {
                let why = column.why.as_deref().unwrap_or_default();
                let (unfit, looked) = (column.unfit, column.looked);
                say!(
                    "values   {} (`{}`): {unfit} of {looked} do not fit: {why}",
                    column.column,
                    column.stored
                );
            }
            if column.unfound > 0 {
                say!(
                    "values   {} (`{}`): {} of {} would not be found by whoever looks for them: they are stored in another form than \
                     the transforms undo",
                    column.column,
                    column.stored,
                    column.unfound,
                    column.looked
                );
            }
        }
    }
    // a column that is slow to list may still serve; one that the account may not read does not (SQLSTATE class 42), and
    // neither does a service that does not answer
    let fails = |why: &String| why.contains("code 42") || database.starts_with("http");
    let unread = values.iter().filter(|v| v.unread.as_ref().is_some_and(fails));
    let n = problems.len() + unread.count();
    Ok((n > 0).then(|| format!("{n} thing(s) do not fit the source")))
}

/// What is asked, about whom and with which parameters.
fn question(
    connector: &Connector,
    query: &str,
    given: Value,
) -> Result<(model::ResourceId, What, String, BTreeMap<FieldId, String>)> {
    let fields = connector.queries.iter().find(|q| q.resource.as_str() == query).map(|q| {
        let fields = What::Fields(q.fields.keys().cloned().collect());
        (q.resource.clone(), fields, &q.subject)
    });
    let predicate = connector.predicates.iter().find(|p| format!("{}.{}", p.resource, p.id) == query);
    let predicate = predicate.map(|p| (p.resource.clone(), What::Predicate(p.id.clone()), &p.subject));
    let Some((resource, what, column)) = fields.or(predicate) else {
        let queries = connector.queries.iter().map(|q| q.resource.to_string());
        let known: Vec<_> =
            queries.chain(connector.predicates.iter().map(|p| format!("{}.{}", p.resource, p.id))).collect();
        bail!("the connector declares no `{query}`; it declares {}", known.join(", "));
    };
    let Value::Object(mut given) = given else {
        bail!("the subject is a JSON object, for example {{\"{column}\":\"…\"}}")
    };
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Number(n) => Ok(n.to_string()),
        _ => bail!("what is given of the subject are texts"),
    };
    let about = given.remove("subject").or_else(|| given.remove(column.as_str()));
    // named by what it is, where there is nothing else
    let about = match about {
        None if given.len() == 1 => {
            given.iter().next().map(|(name, _)| name.clone()).and_then(|n| given.remove(&n))
        }
        about => about,
    };
    let about = text(about.with_context(|| format!("the subject names no `{column}` and no `subject`"))?)?;
    let parameters = given.into_iter().map(|(name, value)| Ok((name.parse()?, text(value)?)));
    Ok((resource, what, about, parameters.collect::<Result<_>>()?))
}

/// A question and its answer, as a line of the file has them.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    query: String,
    subject: Value,
    answer: Option<BTreeMap<String, String>>,
    #[serde(default)]
    reason: Option<String>,
}

async fn test(
    connector: &Connector,
    gateway: &Gateway<Connected>,
    file: &Path,
    json: bool,
) -> Result<Option<String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let lines: Vec<_> = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).collect();
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(lines.len() as u64) };
    let mut wrong = Vec::new();
    for (i, line) in &lines {
        let at = || format!("{}:{}", file.display(), i + 1);
        // the parser's own message may quote a value
        let expected = serde_json::from_str::<Expected>(line);
        let expected = expected.map_err(|e| {
            anyhow::anyhow!("{}: no question and answer (column {}); see --help", at(), e.column())
        })?;
        if expected.answer.is_none() && expected.reason.is_none() {
            bail!("{}: where there is no answer, say the `reason`: not_found, ambiguous, …", at());
        }
        let asked = question(connector, &expected.query, expected.subject).with_context(at)?;
        let (resource, what, about, parameters) = asked;
        let differs = match (gateway.answer(&resource, &what, &about, &parameters).await, expected.answer) {
            (Ok(found), Some(mut wanted)) => {
                let other =
                    found.iter().filter(|(id, value)| wanted.remove(id.as_str()).as_ref() != Some(value));
                let mut fields: Vec<String> = other.map(|(id, _)| id.to_string()).collect();
                fields.extend(wanted.into_keys());
                fields
            }
            (Ok(_), None) => vec!["an answer where none was expected".into()],
            (Err(e), None) if expected.reason.as_deref() == e.code() => vec![],
            (Err(e), _) => vec![e.to_string()],
        };
        bar.inc(1);
        if !differs.is_empty() {
            if !json {
                bar.suspend(|| say!("{} {}: {}", at(), expected.query, differs.join(", ")));
            }
            wrong.push(json!({ "line": i + 1, "query": expected.query, "differs": differs }));
        }
    }
    bar.finish_and_clear();
    let (asked, n) = (lines.len(), wrong.len());
    if json {
        say!("{}", json!({ "asked": asked, "right": asked - n, "wrong": wrong }));
    } else {
        say!("{} of {asked} answers are as expected", asked - n);
    }
    if asked == 0 {
        return Ok(Some(format!("{} asks nothing", file.display())));
    }
    Ok((n > 0).then(|| format!("{n} answer(s) are other than expected")))
}

fn masked(value: &str, unmasked: bool) -> Value {
    let one = |text: &str| match text {
        _ if unmasked => json!(text),
        "yes" | "no" | "unknown" | "ambiguous" | "" => json!(text),
        text => json!(model::identifier::mask(text)),
    };
    match serde_json::from_str::<Vec<String>>(value) {
        Ok(list) => list.iter().map(|text| one(text)).collect(),
        Err(_) => one(value),
    }
}

async fn attempt(
    connector: &Connector,
    gateway: &Gateway<Connected>,
    query: &str,
    subject: Value,
    unmasked: bool,
    json: bool,
) -> Result<Option<String>> {
    let (resource, what, about, parameters) = question(connector, query, subject)?;
    let begun = Instant::now();
    let answer = gateway.answer(&resource, &what, &about, &parameters).await;
    let ms = begun.elapsed().as_secs_f64() * 1000.0;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64);
    let as_of = flow::local_minute(now);
    let answer = match answer {
        Ok(answer) => answer,
        Err(e @ GatewayError::Source(_)) => return Err(e.into()),
        Err(e) => {
            if json {
                say!("{}", json!({ "answer": null, "reason": e.code(), "as_of": as_of, "ms": ms }));
            }
            let closed = gateway.problems().into_iter().find(|p| p.at.ends_with(query)).map(|p| p.message);
            let why = if matches!(e, GatewayError::Undeclared) { closed } else { None };
            return Ok(Some(why.unwrap_or_else(|| e.to_string())));
        }
    };
    if json {
        let answer: serde_json::Map<_, _> =
            answer.iter().map(|(id, value)| (id.to_string(), masked(value, unmasked))).collect();
        say!("{}", json!({ "answer": answer, "as_of": as_of, "ms": ms }));
    } else {
        for (id, value) in &answer {
            let shown = masked(value, unmasked);
            say!("{:<16} {}", id.as_str(), shown.as_str().map_or_else(|| shown.to_string(), str::to_owned));
        }
        say!("as of {as_of} (UTC+8), {ms:.1} ms");
    }
    Ok(None)
}
