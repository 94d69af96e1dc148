//! A department's HTTP service with JSON answers. Reads are tried again; an action is posted with an `Idempotency-Key`, so that one
//! whose answer was lost is posted again with the same key and done once. A service that keeps failing is left alone for a while.

use super::{Select, Source, SourceError, Write, Written};
use crate::{
    declare::{Service as Declared, ServiceRead},
    transform::Stored,
};
use model::FieldId;
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// The most bytes of one answer.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How often a request is made, at most.
const TRIES: u32 = 3;
/// In how many forms what is looked for is asked for, at most.
const FORMS_MAX: usize = 8;
/// After so many requests in a row that failed, the service is left alone.
const FAILURES_MAX: u32 = 5;
/// For so long.
const REST: Duration = Duration::from_secs(10);

/// A service and how it is spoken to.
pub struct Service {
    base: Url,
    declared: Declared,
    /// What an answer's rows are declared to have, by read.
    columns: BTreeMap<String, BTreeSet<String>>,
    client: Client,
    token: Option<String>,
    failures: AtomicU32,
    rests_until: Mutex<Option<Instant>>,
}

fn failed(what: impl Into<String>) -> SourceError {
    SourceError::Failed(what.into())
}

/// Chooses what TLS is done with in this process. Call it before any HTTP client is made.
pub fn use_tls() {
    // whoever chose before has chosen
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl Service {
    /// A service at an address. Its bearer token comes from the environment variable or the file that the connector names.
    pub(crate) fn open(
        base: &str,
        folder: &Path,
        declared: Option<&Declared>,
        columns: BTreeMap<String, BTreeSet<String>>,
    ) -> Result<Self, SourceError> {
        let declared = declared.cloned().ok_or_else(|| failed("the connector declares no `service`"))?;
        if let Some((name, _)) =
            declared.reads.iter().find(|(_, read)| read.get.is_some() == read.post.is_some())
        {
            return Err(failed(format!("the read `{name}` of the service has one of `get` and `post`")));
        }
        // a read that no entity is on is none that is made
        let reads = declared.reads.iter().filter_map(|(name, read)| Some((name, read, columns.get(name)?)));
        let reads = reads.flat_map(|(name, read, known)| {
            let named = read.get.iter().chain(&read.post).flat_map(|path| names_in(path));
            named.filter(|column| !known.contains(*column)).map(move |column| (name, column))
        });
        let writes =
            declared.writes.iter().flat_map(|(name, path)| names_in(path).map(move |column| (name, column)));
        if let Some((name, column)) = reads.chain(writes).next() {
            return Err(failed(format!(
                "`{name}` of the service names `{{{column}}}`, and no entity on it has a column that the service calls so"
            )));
        }
        let base = Url::parse(base).map_err(|_| failed("its address is none"))?;
        if base.query().is_some() || !base.username().is_empty() {
            return Err(failed("its address has a query or an account: tokens go into the environment"));
        }
        let token = match (&declared.token_env, &declared.token_file) {
            (Some(name), _) => {
                Some(std::env::var(name).map_err(|_| failed(format!("set {name} to the service's token")))?)
            }
            (None, Some(file)) => {
                let file = folder.join(file);
                let token = std::fs::read_to_string(&file);
                let token =
                    token.map_err(|e| failed(format!("reading the token in {}: {e}", file.display())))?;
                Some(token.trim().to_owned())
            }
            (None, None) => None,
        };
        use_tls();
        let client = Client::builder()
            .timeout(Duration::from_millis(declared.timeout_ms))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_| failed("no client can be made"))?;
        let (failures, rests_until) = (AtomicU32::new(0), Mutex::new(None));
        Ok(Self { base, declared, columns, client, token, failures, rests_until })
    }

    /// The address of a path with its query, where `{column}` is what is looked for; a part of the query whose column is not looked
    /// for is left out.
    fn url(&self, path: &str, values: &BTreeMap<&str, &str>) -> Result<Url, SourceError> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut url = self.base.clone();
        {
            let mut segments = url.path_segments_mut().map_err(|()| failed("its address has no path"))?;
            segments.pop_if_empty();
            for segment in path.split('/').filter(|s| !s.is_empty()) {
                let segment = filled(segment, values)
                    .ok_or_else(|| failed("its path names a column that nothing is looked for in"))?;
                // a value may not leave its place in the path
                if matches!(segment.as_str(), "" | "." | "..") {
                    return Err(failed("a value is no part of a path"));
                }
                segments.push(&segment);
            }
        }
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let Some(value) = filled(value, values) {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        Ok(url)
    }

    /// Reads once, for what is looked for.
    async fn read(
        &self,
        read: &ServiceRead,
        values: &BTreeMap<&str, &str>,
    ) -> Result<Vec<Map<String, Value>>, SourceError> {
        let (status, bytes) = match (&read.get, &read.post) {
            (Some(path), None) => self.request(Method::GET, self.url(path, values)?, None).await?,
            (None, Some(path)) => {
                let body = json!(values);
                self.request(Method::POST, self.url(path, &BTreeMap::new())?, Some((None, &body))).await?
            }
            _ => return Err(failed("a read of a service has one of `get` and `post`")),
        };
        match status {
            StatusCode::NOT_FOUND => Ok(vec![]),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(failed("the service refuses the token")),
            status if !status.is_success() => Err(failed(format!("the service answered {status}"))),
            _ => Self::rows(read, &bytes),
        }
    }

    /// One request, made again where nothing or a failure of the service's own came back.
    async fn request(
        &self,
        method: Method,
        url: Url,
        body: Option<(Option<&str>, &Value)>,
    ) -> Result<(StatusCode, Vec<u8>), SourceError> {
        let resting = *self.rests_until.lock().expect("no holder of this lock panics");
        if resting.is_some_and(|until| until > Instant::now()) {
            return Err(failed("the service failed again and again, and is left alone for a while"));
        }
        let mut last = SourceError::TimedOut;
        for n in 0..TRIES {
            if n > 0 {
                tokio::time::sleep(Duration::from_millis(100 * 3_u64.pow(n - 1))).await;
            }
            match self.once(method.clone(), url.clone(), body).await {
                Ok((status, _)) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                    last = failed(format!("the service answered {status}"));
                }
                Ok(answer) => {
                    self.failures.store(0, SeqCst);
                    return Ok(answer);
                }
                Err(e) => last = e,
            }
        }
        if self.failures.fetch_add(1, SeqCst) + 1 >= FAILURES_MAX {
            self.failures.store(0, SeqCst);
            *self.rests_until.lock().expect("no holder of this lock panics") = Some(Instant::now() + REST);
        }
        Err(last)
    }

    async fn once(
        &self,
        method: Method,
        url: Url,
        body: Option<(Option<&str>, &Value)>,
    ) -> Result<(StatusCode, Vec<u8>), SourceError> {
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some((key, body)) = body {
            if let Some(key) = key {
                request = request.header("Idempotency-Key", key);
            }
            request = request.json(body);
        }
        // the client's own message holds the address, and that what is looked for
        let gone = |e: reqwest::Error| match e.is_timeout() {
            true => SourceError::TimedOut,
            false => failed("the service cannot be reached"),
        };
        let mut answer = request.send().await.map_err(gone)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(gone)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(failed("the service answered with more than one answer may hold"));
            }
        }
        Ok((answer.status(), bytes))
    }

    fn rows(read: &ServiceRead, bytes: &[u8]) -> Result<Vec<Map<String, Value>>, SourceError> {
        let mut answer: Value =
            serde_json::from_slice(bytes).map_err(|_| failed("the service's answer is no JSON"))?;
        let found = match read.at.is_empty() {
            true => answer.take(),
            false => answer.pointer_mut(&read.at).map(Value::take).unwrap_or_default(),
        };
        let shape = || failed("the service's answer has no rows where they are declared");
        match found {
            Value::Null => Ok(vec![]),
            Value::Object(row) => Ok(vec![row]),
            Value::Array(rows) => rows
                .into_iter()
                .map(|row| if let Value::Object(row) = row { Ok(row) } else { Err(shape()) })
                .collect(),
            _ => Err(shape()),
        }
    }
}

/// The names that a template has in braces.
fn names_in(template: &str) -> impl Iterator<Item = &str> {
    template.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0))
}

/// A template with values for its `{names}`; none where one has no value. What stands in a value is never a template.
fn filled(template: &str, values: &BTreeMap<&str, &str>) -> Option<String> {
    let (mut out, mut rest) = (String::new(), template);
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        out += before;
        out += values.get(name)?;
        rest = after;
    }
    Some(out + rest)
}

fn text(value: &Value) -> Result<Option<Stored>, SourceError> {
    Ok(match value {
        Value::Null => None,
        Value::String(text) => Some(Stored::Text(text.clone())),
        Value::Number(n) => Some(Stored::Text(n.to_string())),
        Value::Bool(b) => Some(Stored::Text(b.to_string())),
        _ => return Err(failed("a value of the service's answer is a list or an object")),
    })
}

impl Source for Service {
    async fn columns(&self, table: &str) -> Result<Vec<(String, String)>, SourceError> {
        let known = self.declared.reads.contains_key(table) || self.declared.writes.contains_key(table);
        let columns = self.columns.get(table).filter(|_| known).into_iter().flatten();
        Ok(columns.map(|column| (column.clone(), "json".to_owned())).collect())
    }

    async fn select(
        &self,
        select: &Select,
        binds: &[Stored],
    ) -> Result<Vec<Vec<Option<Stored>>>, SourceError> {
        let read = self.declared.reads.get(&select.table);
        let read = read.ok_or_else(|| failed("the connector declares no such read of the service"))?;
        // in each of its forms; whatever comes back is compared in the standard's
        let (mut wanted, mut rest) = (vec![BTreeMap::new()], binds);
        for (column, forms) in &select.conditions {
            let (these, others) = rest.split_at_checked(*forms).unwrap_or((rest, &[]));
            let texts = these.iter().filter_map(|form| match form {
                Stored::Text(value) => Some(value.as_str()),
                Stored::Bytes(_) => None,
            });
            let texts: Vec<&str> = texts.collect();
            let before = std::mem::take(&mut wanted);
            for values in before {
                for text in &texts {
                    let mut values: BTreeMap<&str, &str> = values.clone();
                    values.insert(column, text);
                    wanted.push(values);
                }
            }
            rest = others;
        }
        if wanted.len() > FORMS_MAX {
            return Err(failed(
                "what is looked for may be stored in too many forms to ask a service for each",
            ));
        }
        let mut rows: Vec<Map<String, Value>> = Vec::new();
        for values in &wanted {
            // a service that does not tell the forms apart gives the same rows again
            let found = self.read(read, values).await?;
            let new: Vec<_> = found.into_iter().filter(|row| !rows.contains(row)).collect();
            rows.extend(new);
        }
        let row = |row: Map<String, Value>| {
            let row = Value::Object(row);
            let cell = |(column, _): &(String, bool)| {
                let value = if column.starts_with('/') { row.pointer(column) } else { row.get(column) };
                text(value.ok_or_else(|| failed(format!("the service's answer has no `{column}`")))?)
            };
            select.columns.iter().map(cell).collect()
        };
        rows.into_iter().take(select.limit as usize).map(row).collect()
    }

    async fn probe(&self, table: &str) -> Result<(), SourceError> {
        let Some(read) = self.declared.reads.get(table) else { return Ok(()) };
        let columns = self.columns.get(table).into_iter().flatten();
        // nobody's: whether it knows them is no matter
        let values: BTreeMap<&str, &str> = columns.map(|column| (column.as_str(), "0")).collect();
        let body = json!({});
        let (method, url, body) = match (&read.get, &read.post) {
            (Some(path), _) => (Method::GET, self.url(path, &values)?, None),
            (None, Some(path)) => (Method::POST, self.url(path, &BTreeMap::new())?, Some((None, &body))),
            (None, None) => return Ok(()),
        };
        match self.once(method, url, body).await?.0 {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(failed("the service refuses the token")),
            status if status.is_server_error() => Err(failed(format!("the service answered {status}"))),
            _ => Ok(()),
        }
    }

    fn lists(&self) -> bool {
        false
    }

    async fn distinct(
        &self,
        _table: &str,
        _column: &str,
        _bytes: bool,
        _limit: u64,
    ) -> Result<Vec<Stored>, SourceError> {
        Err(failed("a service cannot be asked for all it has"))
    }

    async fn write_once(
        &self,
        key: &str,
        writes: &[Write],
        _result: &BTreeMap<FieldId, String>,
    ) -> Result<Written, SourceError> {
        let [write] = writes else { return Err(failed("an action of a service is one request")) };
        let path = self.declared.writes.get(&write.table).filter(|_| write.insert);
        let path = path.ok_or_else(|| failed("the connector declares no such write of the service"))?;
        let values = write.set.iter().map(|(column, value)| match value {
            Stored::Text(text) => Ok((column.clone(), Value::String(text.clone()))),
            Stored::Bytes(_) => Err(failed("a service takes no bytes")),
        });
        let body = Value::Object(values.collect::<Result<_, _>>()?);
        let url = self.url(path, &BTreeMap::new())?;
        let (status, _) = self.request(Method::POST, url, Some((Some(key), &body))).await?;
        match status {
            // what it answers to a key it knows is the first answer again
            status if status.is_success() => Ok(Written::Now),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(failed("the service refuses the token")),
            status if status.is_client_error() => Err(SourceError::Refused),
            status => Err(failed(format!("the service answered {status}"))),
        }
    }
}
