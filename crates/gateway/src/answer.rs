//! Running declared queries, predicates and actions for one subject.

use crate::{
    compile::{
        CompiledPredicate, CompiledQuery, CompiledTest, Compiler, Lookup, Parameters, Problem, ROWS_MAX,
        Read, Resolved, RowTest, SCAN_MAX, Schema, With, schema,
    },
    declare::{
        Action, Column, Connector, ElementKind, Nearest, Rows, Standard, StatementKind, Take, Transform,
    },
    nearness::Address,
    rule::{Row, Rule},
    source::{Source, SourceError, Write, Written},
    transform::{Stored, check, normal, read_cell, stored_forms, to_stored},
};
use model::{FieldId, OperationId, Resource, ResourceId, Suite, What};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

/// A gateway on one department's database.
pub struct Gateway<S> {
    connector: Connector,
    standard: Standard,
    source: S,
    first: Schema,
    codes: Mutex<BTreeMap<(String, String), Codes>>,
    serving: RwLock<Arc<Serving>>,
}

/// How many codes of a column no declared list has, and when it is worth looking again.
#[derive(Clone, Copy)]
struct Codes {
    strange: usize,
    again: Instant,
}

/// What is answered at the moment, and what is not.
#[derive(Default)]
struct Serving {
    queries: BTreeMap<ResourceId, CompiledQuery>,
    predicates: BTreeMap<(ResourceId, FieldId), CompiledPredicate>,
    actions: BTreeMap<OperationId, CompiledAction>,
    problems: Vec<Problem>,
}

struct CompiledAction {
    declared: Action,
    /// For each statement: its table, then columns by name.
    columns: Vec<(String, BTreeMap<FieldId, Resolved>)>,
}

/// The longest value that is looked for, in bytes.
const SOUGHT_BYTES_MAX: usize = 4096;
/// Looking at codes takes at most one part in so many of the source's time.
const CODES_SHARE: u32 = 100;
/// After looking at codes failed, or took too long, it is tried again after this.
const CODES_REST: Duration = Duration::from_secs(3600);
/// The most distinct values of a column that its code list is compared with.
const CODES_MAX: u64 = 1_000;

/// Named values in the order asked.
pub type Answered = Vec<(FieldId, String)>;

/// What an action returned, by name.
pub type Performed = BTreeMap<FieldId, String>;

/// Why there is no answer. The code is fit for the ledger; nothing here names a person or a value.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No declared query answers this, or it is closed because of a [`Problem`].
    #[error("no declared query answers this, or it is closed until its mapping fits the schema again")]
    Undeclared,
    /// A parameter is missing or of the wrong kind.
    #[error("parameter `{0}` is missing or not of its kind")]
    Parameter(String),
    /// There is no row for the subject.
    #[error("there is no entry for the subject")]
    NotFound,
    /// There is more than one row for the subject.
    #[error("there is more than one entry for the subject")]
    Ambiguous,
    /// A stored value does not fit the standard.
    #[error("a stored value does not fit the standard: {0}")]
    Value(String),
    /// The database did not serve.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl GatewayError {
    /// The stable code for the ledger, or none where it is worth trying again.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Undeclared => Some("undeclared"),
            Self::Parameter(_) => Some("bad_parameter"),
            Self::NotFound => Some("not_found"),
            Self::Ambiguous => Some("ambiguous"),
            Self::Value(_) => Some("bad_value"),
            Self::Source(SourceError::RowCount { .. }) => Some("row_count"),
            Self::Source(SourceError::Refused) => Some("refused_by_source"),
            Self::Source(_) => None,
        }
    }
}

/// A declaration and whether it serves.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Checked {
    /// What it is: `query power.account`.
    pub id: String,
    /// `ok` or `closed`.
    pub status: &'static str,
    /// Why it is closed.
    pub problems: Vec<String>,
}

/// What came of trying a column's mapping on what is stored. Nothing here is a value.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Looked {
    /// The column as declared: `account.owed`.
    pub column: String,
    /// As the source has it: `heating_account.arrears_yuan`.
    pub stored: String,
    /// How many different values were looked at.
    pub looked: u64,
    /// How many of them do not become what the standard says: an answer that reads one is refused (`bad_value`).
    pub unfit: u64,
    /// Why the first of them does not.
    pub why: Option<String>,
    /// Why it could not be looked at, where it could not.
    pub unread: Option<String>,
    /// How many of them nobody would find who looks for them, because they are stored in another form than the mapping makes.
    pub unfound: u64,
}

/// Leaves of rows those near enough to an address, the nearest first, and of one row that is asked for the nearest. Returns their scores.
fn near(
    rows: &mut Vec<Row>,
    nearest: &Nearest,
    wanted: Rows,
    given: &BTreeMap<FieldId, String>,
) -> Result<Vec<u32>, GatewayError> {
    let to = given.get(&nearest.to).ok_or_else(|| GatewayError::Parameter(nearest.to.to_string()))?;
    if to.len() > SOUGHT_BYTES_MAX {
        return Err(GatewayError::Parameter(nearest.to.to_string()));
    }
    let to = Address::new(to, nearest);
    let score = |row: &Row| {
        let address = row.get(&nearest.column).and_then(Option::as_deref);
        let address = address.filter(|address| address.len() <= SOUGHT_BYTES_MAX);
        address.map_or(0, |address| Address::new(address, nearest).score(&to))
    };
    let mut scored: Vec<(u32, Row)> = rows.drain(..).map(|row| (score(&row), row)).collect();
    scored.retain(|(score, _)| *score >= nearest.least);
    scored.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    if let (Rows::One, [(first, _), (second, _), ..]) = (wanted, &scored[..]) {
        if first == second {
            return Err(GatewayError::Ambiguous);
        }
        scored.truncate(1);
    }
    let scores;
    (scores, *rows) = scored.into_iter().unzip();
    Ok(scores)
}

impl<S: Source> Gateway<S> {
    /// Compiles a department's files against its database. Problems close only what they name.
    pub async fn open(connector: Connector, standard: &Standard, source: S) -> Result<Self, SourceError> {
        let first = schema(&connector, &source).await?;
        let (codes, serving) = (Mutex::default(), RwLock::default());
        let gateway = Self { connector, standard: standard.clone(), source, first, codes, serving };
        gateway.refresh().await?;
        Ok(gateway)
    }

    /// Looks at the database again: what no longer fits is closed, what fits again serves again. Says what changed.
    pub async fn refresh(&self) -> Result<Vec<Problem>, SourceError> {
        self.source.refresh().await?;
        let schema = schema(&self.connector, &self.source).await?;
        let strange = self.strange_codes(&schema).await;
        let compiler = Compiler {
            connector: &self.connector,
            standard: &self.standard,
            schema: &schema,
            first: Some(&self.first),
            strange: &strange,
        };
        let mut serving = Serving::compile(&compiler);
        let troubles = self.source.troubles().into_iter();
        serving
            .problems
            .extend(troubles.map(|(table, message)| Problem { at: format!("table {table}"), message }));
        let before = self.serving();
        let new = serving.problems.iter().filter(|p| !before.problems.contains(p)).cloned().collect();
        *self.serving.write().expect("no holder of this lock panics") = Arc::new(serving);
        Ok(new)
    }

    /// Codes in the database that no declared list has: how many, by table and column. A large table is looked at seldom, and one
    /// too large for it is judged row by row, as it is answered from.
    async fn strange_codes(&self, schema: &Schema) -> BTreeMap<(String, String), usize> {
        let mut all = BTreeMap::new();
        for entity in self.connector.entities.values() {
            for column in entity.columns.values() {
                let coded = column.transform.iter().any(|t| matches!(t, Transform::Codes(_)));
                let there =
                    schema.get(&entity.table).is_some_and(|columns| columns.contains_key(&column.column));
                if !coded || !there {
                    continue;
                }
                let key = (entity.table.clone(), column.column.clone());
                let known = self.codes.lock().expect("no holder of this lock panics").get(&key).copied();
                let codes = match known {
                    Some(codes) if codes.again > Instant::now() => codes,
                    _ => self.look_at_codes(&entity.table, column).await,
                };
                self.codes.lock().expect("no holder of this lock panics").insert(key.clone(), codes);
                if codes.strange > 0 {
                    all.insert(key, codes.strange);
                }
            }
        }
        all
    }

    async fn look_at_codes(&self, table: &str, column: &Column) -> Codes {
        let bytes = column.transform.contains(&Transform::Gbk);
        let begun = Instant::now();
        let found = self.source.distinct(table, &column.column, bytes, CODES_MAX).await;
        let rest = if found.is_ok() { begun.elapsed() * CODES_SHARE } else { CODES_REST };
        let form = Resolved {
            transform: column.transform.clone(),
            none: column.none.clone(),
            ..Resolved::plain(ElementKind::Code)
        };
        let strange = found
            .unwrap_or_default()
            .into_iter()
            .filter(|cell| read_cell(Some(cell.clone()), &form).is_err());
        Codes { strange: strange.count(), again: Instant::now() + rest }
    }

    fn serving(&self) -> Arc<Serving> {
        self.serving.read().expect("no holder of this lock panics").clone()
    }

    /// What is closed, and why.
    pub fn problems(&self) -> Vec<Problem> {
        self.serving().problems.clone()
    }

    /// Tries the mapping on stored values, up to so many different ones of each declared column: what an engineer wants to know before
    /// anybody asks. A column that cannot be listed (one too large for the time limit, one that the account may not read) says so; a
    /// service is only asked for nobody, once for each read.
    pub async fn look_at_values(&self, most: u64) -> Result<Vec<Looked>, SourceError> {
        let schema = schema(&self.connector, &self.source).await?;
        let strange = BTreeMap::new();
        let compiler = Compiler {
            connector: &self.connector,
            standard: &self.standard,
            schema: &schema,
            first: None,
            strange: &strange,
        };
        let queries = self.connector.queries.iter().map(|q| (&q.entity, &q.subject, &q.parameters));
        let predicates = self.connector.predicates.iter().map(|p| (&p.entity, &p.subject, &p.parameters));
        let sought: BTreeSet<(&FieldId, &FieldId)> = queries
            .chain(predicates)
            .flat_map(|(entity, subject, parameters)| {
                parameters.values().chain([subject]).map(move |column| (entity, column))
            })
            .collect();
        let mut all = Vec::new();
        for (id, entity) in &self.connector.entities {
            if let Err(e) = self.source.probe(&entity.table).await {
                all.push(Looked {
                    column: id.to_string(),
                    stored: entity.table.clone(),
                    unread: Some(e.to_string()),
                    ..Looked::default()
                });
            }
            for (name, column) in entity.columns.iter().filter(|_| self.source.lists()) {
                let Ok(form) = compiler.column(entity, name) else { continue };
                let bytes = column.transform.contains(&Transform::Gbk);
                let found = self.source.distinct(&entity.table, &column.column, bytes, most).await;
                let mut looked = Looked {
                    column: format!("{id}.{name}"),
                    stored: format!("{}.{}", entity.table, column.column),
                    unread: found.as_ref().err().map(ToString::to_string),
                    ..Looked::default()
                };
                for cell in found.unwrap_or_default() {
                    looked.looked += 1;
                    match read_cell(Some(cell.clone()), &form) {
                        Err(e) => {
                            looked.unfit += 1;
                            looked.why.get_or_insert(e);
                        }
                        // it is looked for as the value says that it is stored
                        Ok(Some(value)) if sought.contains(&(id, name)) && !form.scan => {
                            let forms = stored_forms(&value, &form).unwrap_or_default();
                            looked.unfound += u64::from(!forms.contains(&cell));
                        }
                        Ok(_) => {}
                    }
                }
                all.push(looked);
            }
        }
        Ok(all)
    }

    /// Every declaration with its state, as `connector check` prints it.
    pub fn report(&self) -> Vec<Checked> {
        let serving = self.serving();
        let queries = self.connector.queries.iter().map(|q| format!("query {}", q.resource));
        let predicates =
            self.connector.predicates.iter().map(|p| format!("predicate {}.{}", p.resource, p.id));
        let actions = self.connector.actions.iter().map(|a| format!("action {}", a.id));
        let checked = |id: String| {
            let problems: Vec<_> =
                serving.problems.iter().filter(|p| p.at == id).map(|p| p.message.clone()).collect();
            Checked { status: if problems.is_empty() { "ok" } else { "closed" }, id, problems }
        };
        queries.chain(predicates).chain(actions).map(checked).collect()
    }

    /// The department's catalogue entries.
    pub fn resources(&self) -> &[Resource] {
        &self.connector.resources
    }

    /// How many subjects of one list about a resource are agreed to without an officer.
    pub fn lists(&self, resource: &ResourceId) -> u32 {
        self.connector.lists.get(resource).copied().unwrap_or(0)
    }

    /// The shared standard.
    pub fn standard(&self) -> &Standard {
        &self.standard
    }

    /// The database.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Answers for one subject: the named fields, or yes / no / unknown / ambiguous.
    pub async fn answer(
        &self,
        resource: &ResourceId,
        what: &What,
        subject: &str,
        parameters: &BTreeMap<FieldId, String>,
    ) -> Result<Answered, GatewayError> {
        let serving = self.serving();
        match what {
            What::Fields(fields) => {
                let query = serving.queries.get(resource).ok_or(GatewayError::Undeclared)?;
                let mut answer = self.fields(query, subject, parameters).await?;
                fields
                    .iter()
                    .map(|f| answer.remove(f).map(|v| (f.clone(), v)).ok_or(GatewayError::Undeclared))
                    .collect()
            }
            What::Predicate(id) => {
                let key = (resource.clone(), id.clone());
                let predicate = serving.predicates.get(&key).ok_or(GatewayError::Undeclared)?;
                let answer = match self.test(predicate, subject, parameters).await {
                    Err(GatewayError::Ambiguous) => "ambiguous",
                    other => other?,
                };
                Ok(vec![(id.clone(), answer.to_owned())])
            }
        }
    }

    async fn fields(
        &self,
        query: &CompiledQuery,
        subject: &str,
        parameters: &BTreeMap<FieldId, String>,
    ) -> Result<BTreeMap<FieldId, String>, GatewayError> {
        let given = accept(&query.parameters, parameters)?;
        if let Some(known) = &query.known
            && self.rows(known, subject, &given).await?.is_empty()
        {
            return Err(GatewayError::NotFound);
        }
        let mut rows = self.rows_everywhere(&query.places, subject, &given).await?;
        let scores = match &query.nearest {
            Some(nearest) => near(&mut rows, nearest, query.rows, &given)?,
            None => vec![],
        };
        let sums = query.fields.values().all(|take| matches!(take, Take::Sum { .. }));
        match (query.rows, rows.len()) {
            // nothing to sum is nothing owed, of somebody who is known
            (_, 0) if !(sums && query.known.is_some()) => return Err(GatewayError::NotFound),
            (Rows::One, 2..) if !sums => return Err(GatewayError::Ambiguous),
            _ => {}
        }
        if let Some(order) = &query.order {
            rows.sort_by(|a, b| a.get(order).cmp(&b.get(order)));
        }
        let cell = |row: &Row, column: &FieldId| row.get(column).cloned().flatten().unwrap_or_default();
        let take = |take: &Take| match take {
            Take::Column(column) if query.rows == Rows::One => Ok(cell(&rows[0], column)),
            Take::Column(column) => {
                let all: Vec<String> = rows.iter().map(|row| cell(row, column)).collect();
                Ok(serde_json::to_string(&all).expect("a list of texts can be written as JSON"))
            }
            Take::Same { same } => {
                let values: BTreeSet<String> = rows.iter().map(|row| cell(row, same)).collect();
                let mut values = values.into_iter();
                match (values.next(), values.next()) {
                    (Some(value), None) => Ok(value),
                    _ => Err(GatewayError::Ambiguous),
                }
            }
            Take::Score { .. } if query.rows == Rows::One => Ok(scores[0].to_string()),
            Take::Score { .. } => {
                let all: Vec<String> = scores.iter().map(u32::to_string).collect();
                Ok(serde_json::to_string(&all).expect("a list of texts can be written as JSON"))
            }
            Take::Sum { sum, less } => {
                let too_large = || GatewayError::Value("a sum is too large".into());
                let mut total = 0_i64;
                for row in &rows {
                    let number = |column: &FieldId| cell(row, column).parse::<i64>().unwrap_or(0);
                    total = total.checked_add(number(sum)).ok_or_else(too_large)?;
                    if let Some(less) = less {
                        total = total.checked_sub(number(less)).ok_or_else(too_large)?;
                    }
                }
                Ok(total.to_string())
            }
        };
        query.fields.iter().map(|(id, how)| Ok((id.clone(), take(how)?))).collect()
    }

    async fn test(
        &self,
        predicate: &CompiledPredicate,
        subject: &str,
        parameters: &BTreeMap<FieldId, String>,
    ) -> Result<&'static str, GatewayError> {
        let given = accept(&predicate.parameters, parameters)?;
        let rows = self.rows_everywhere(&predicate.places, subject, &given).await?;
        if rows.is_empty()
            && let Some(known) = &predicate.known
            && self.rows(known, subject, &given).await?.is_empty()
        {
            return Ok("unknown");
        }
        let yes = |holds: bool| if holds { "yes" } else { "no" };
        let holds = |rule: &Rule, row: &Row| rule.holds(row, &given).map_err(GatewayError::Value);
        let (row, test) = match (&predicate.test, &rows[..]) {
            (CompiledTest::Exists, _) => return Ok(yes(!rows.is_empty())),
            (CompiledTest::Absent, _) => return Ok(yes(rows.is_empty())),
            (_, []) => return Ok("unknown"),
            (CompiledTest::All(rule), rows) => {
                for row in rows {
                    if !holds(rule, row)? {
                        return Ok("no");
                    }
                }
                return Ok("yes");
            }
            (CompiledTest::One(test), [row]) => (row, test),
            (CompiledTest::One(_), _) => return Ok("ambiguous"),
        };
        let cell = |column: &FieldId| row.get(column).and_then(Option::as_ref);
        // each column's part of the answer; none where the column is empty
        let parts: Vec<Option<bool>> = match test {
            RowTest::Holds(_, Some(unknown)) if holds(unknown, row)? => vec![None],
            RowTest::Holds(rule, _) => vec![Some(holds(rule, row)?)],
            RowTest::Equals(columns) => columns
                .iter()
                .map(|(column, name)| cell(column).map(|v| given.get(name) == Some(v)))
                .collect(),
            RowTest::In(columns) => {
                columns.iter().map(|(column, words)| cell(column).map(|v| words.contains(v))).collect()
            }
            RowTest::AtMost(columns) => columns
                .iter()
                .map(|(column, most)| cell(column).map(|v| v.parse::<i64>().is_ok_and(|n| n <= *most)))
                .collect(),
        };
        match parts.into_iter().collect::<Option<Vec<bool>>>() {
            None => Ok("unknown"),
            Some(parts) => Ok(yes(parts.into_iter().all(|part| part))),
        }
    }

    async fn rows_everywhere(
        &self,
        places: &[Lookup],
        subject: &str,
        given: &BTreeMap<FieldId, String>,
    ) -> Result<Vec<Row>, GatewayError> {
        let mut all = Vec::new();
        for place in places {
            all.extend(self.rows(place, subject, given).await?);
        }
        Ok(all)
    }

    /// The rows of one place for a subject.
    async fn rows(
        &self,
        lookup: &Lookup,
        subject: &str,
        given: &BTreeMap<FieldId, String>,
    ) -> Result<Vec<Row>, GatewayError> {
        let mut sought = subject.to_owned();
        for (i, hop) in lookup.hops.iter().enumerate() {
            let Some(rows) = self.read(&hop.read, &sought, given, i > 0).await? else { return Ok(vec![]) };
            let found: BTreeSet<String> =
                rows.into_iter().filter_map(|mut row| row.remove(&hop.take).flatten()).collect();
            let mut found = found.into_iter();
            match (found.next(), found.next()) {
                (None, _) if hop.optional => {}
                (None, _) => return Ok(vec![]),
                (Some(value), None) => sought = value,
                (Some(_), Some(_)) => return Err(GatewayError::Ambiguous),
            }
        }
        let rows =
            self.read(&lookup.read, &sought, given, !lookup.hops.is_empty()).await?.unwrap_or_default();
        let Some(names) = &lookup.names else { return Ok(rows) };
        let renamed = |row: Row| {
            names.iter().map(|(name, own)| (name.clone(), row.get(own).cloned().flatten())).collect()
        };
        Ok(rows.into_iter().map(renamed).collect())
    }

    /// The rows that fit what is sought, judged by what they say in the standard's form, whatever the source thinks is equal. None
    /// where something found on the way is not of the kind that is looked for next.
    async fn read(
        &self,
        read: &Read,
        sought: &str,
        given: &BTreeMap<FieldId, String>,
        on_the_way: bool,
    ) -> Result<Option<Vec<Row>>, GatewayError> {
        let (mut select, mut binds, mut wanted) = (read.select(), Vec::new(), Vec::new());
        for (id, with) in &read.conditions {
            let column = read.column(id);
            let (name, value) = match with {
                With::Sought => ("subject", sought),
                With::Parameter(name) => match given.get(name) {
                    Some(value) => (name.as_str(), value.as_str()),
                    None => continue,
                },
                With::Fixed(value) => ("where", value.as_str()),
            };
            if value.len() > SOUGHT_BYTES_MAX {
                return Err(GatewayError::Parameter(name.to_owned()));
            }
            let value = match normal(value, column) {
                Ok(value) => value,
                Err(_) if on_the_way && matches!(with, With::Sought) => return Ok(None),
                Err(_) => return Err(GatewayError::Parameter(name.to_owned())),
            };
            if !(column.scan
                || matches!(with, With::Fixed(_)) && !column.transform.iter().all(|t| t.undoes()))
            {
                let forms =
                    stored_forms(&value, column).map_err(|_| GatewayError::Parameter(name.to_owned()))?;
                select.conditions.push((column.name.clone(), forms.len()));
                binds.extend(forms);
            }
            wanted.push((id, value));
        }
        let rows = self.source.select(&select, &binds).await?;
        let scans = read.scans();
        if rows.len() as u64 >= select.limit {
            let most = if scans { SCAN_MAX } else { ROWS_MAX };
            return Err(GatewayError::Value(format!("there are more than {most} rows to look at")));
        }
        let mut fitting = Vec::new();
        'rows: for cells in rows {
            if cells.len() != read.columns.len() {
                return Err(
                    SourceError::Failed("it gave another number of columns than asked for".into()).into()
                );
            }
            let mut cells: BTreeMap<&FieldId, Option<Stored>> =
                read.columns.iter().map(|(id, _)| id).zip(cells).collect();
            let mut row = Row::new();
            for (id, value) in &wanted {
                let cell = cells.get_mut(id).and_then(Option::take);
                let found = match read_cell(cell, read.column(id)) {
                    Ok(found) => found,
                    // in a table that is read whole, others' damaged values are not this subject's
                    Err(_) if scans => continue 'rows,
                    Err(e) => return Err(GatewayError::Value(e)),
                };
                if found.as_ref() != Some(value) {
                    continue 'rows;
                }
                row.insert((*id).clone(), found);
            }
            for (id, column) in &read.columns {
                if !row.contains_key(id) {
                    let cell = cells.get_mut(id).and_then(Option::take);
                    let value = read_cell(cell, column);
                    row.insert(
                        id.clone(),
                        value.map_err(|e| GatewayError::Value(format!("`{}`: {e}", column.name)))?,
                    );
                }
            }
            let keep = match &read.keep {
                Some(rule) => rule.holds(&row, given).map_err(GatewayError::Value)?,
                None => true,
            };
            if keep {
                fitting.push(row);
            }
        }
        Ok(Some(fitting))
    }

    /// Performs a declared action once for this key (case and step): repeated, it returns the first result.
    pub async fn perform(
        &self,
        operation: &OperationId,
        key: &str,
        parameters: &BTreeMap<FieldId, String>,
    ) -> Result<Performed, GatewayError> {
        let serving = self.serving();
        let action = serving.actions.get(operation).ok_or(GatewayError::Undeclared)?;
        for name in &action.declared.parameters {
            if !parameters.contains_key(name) {
                return Err(GatewayError::Parameter(name.to_string()));
            }
        }
        // a number in the department's own system, which need not follow the ledger's suite
        let serial = crypto::hash(Suite::International, "tongban/serial/1", &[key.as_bytes()]);
        let serial = serial.to_string()[..10].to_ascii_uppercase();
        let credit_code = new_credit_code(key);
        let made = |name: &str| match name {
            "serial" => Some(serial.clone()),
            "credit_code" => Some(credit_code.clone()),
            _ => None,
        };
        let value_of = |text: &str| -> Result<String, GatewayError> {
            match text.split_at_checked(1) {
                Some(("$", name)) => {
                    let name: FieldId = name.parse().map_err(|_| GatewayError::Parameter(name.to_owned()))?;
                    parameters.get(&name).cloned().ok_or_else(|| GatewayError::Parameter(name.to_string()))
                }
                Some(("#", name)) => made(name).ok_or_else(|| GatewayError::Parameter(name.to_owned())),
                _ => Ok(text.to_owned()),
            }
        };
        let mut writes = Vec::new();
        for (statement, (table, columns)) in action.declared.statements.iter().zip(&action.columns) {
            let store = |(column, text): (&FieldId, &String)| {
                let resolved = &columns[column];
                let value = value_of(text)?;
                let value =
                    check(&value, resolved.kind).map_err(|_| GatewayError::Parameter(column.to_string()))?;
                let stored = to_stored(&value, &resolved.transform)
                    .map_err(|_| GatewayError::Parameter(column.to_string()))?;
                Ok((resolved.name.clone(), stored))
            };
            let find = |(column, text): (&FieldId, &String)| {
                let resolved = &columns[column];
                let unfit = |_| GatewayError::Parameter(column.to_string());
                let value = normal(&value_of(text)?, resolved).map_err(unfit)?;
                match stored_forms(&value, resolved) {
                    Ok(forms) if !forms.is_empty() => Ok((resolved.name.clone(), forms)),
                    _ => Err(GatewayError::Parameter(column.to_string())),
                }
            };
            writes.push(Write {
                table: table.clone(),
                insert: statement.kind == StatementKind::Insert,
                set: statement
                    .set
                    .iter()
                    .map(store)
                    .collect::<Result<Vec<(String, Stored)>, GatewayError>>()?,
                pick: statement.pick.iter().map(find).collect::<Result<Vec<_>, GatewayError>>()?,
                expect: statement.expect,
            });
        }
        let mut result: Performed = action
            .declared
            .result
            .iter()
            .map(|name| {
                let value = made(name.as_str()).or_else(|| parameters.get(name).cloned());
                value.map(|v| (name.clone(), v)).ok_or_else(|| GatewayError::Parameter(name.to_string()))
            })
            .collect::<Result<_, _>>()?;
        if let Written::Before(first) = self.source.write_once(key, &writes, &result).await? {
            result = first;
        }
        Ok(result)
    }
}

/// A unified social credit code (GB 32100) for an enterprise that is registered under this key: 91 for an enterprise of the
/// registration authorities, the district of Haidian, an organisation code (GB 11714) of the block that was left for codes of
/// this kind (MA…), and the check character.
fn new_credit_code(key: &str) -> String {
    const ALPHABET: &[u8; 31] = b"0123456789ABCDEFGHJKLMNPQRTUWXY";
    let hash = crypto::hash(Suite::International, "tongban/credit-code/1", &[key.as_bytes()]);
    let letters = hash.0[..6].iter().map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]));
    let organisation: String = "MA".chars().chain(letters).collect();
    let check =
        model::identifier::organisation_check(organisation.as_bytes()).expect("eight letters and digits");
    let first = format!("91110108{organisation}{}", char::from(check));
    let check = model::identifier::credit_check(first.as_bytes())
        .expect("seventeen characters of the code's alphabet");
    format!("{first}{}", char::from(check))
}

/// The parameters a declaration takes, each of its kind and in the form of the column it is compared with.
fn accept(
    declared: &Parameters,
    parameters: &BTreeMap<FieldId, String>,
) -> Result<BTreeMap<FieldId, String>, GatewayError> {
    let mut given = BTreeMap::new();
    for (name, parameter) in declared {
        let Some(value) = parameters.get(name) else {
            if parameter.optional {
                continue;
            }
            return Err(GatewayError::Parameter(name.to_string()));
        };
        let value = normal(value, &parameter.form).map_err(|_| GatewayError::Parameter(name.to_string()))?;
        given.insert(name.clone(), value);
    }
    Ok(given)
}

impl Serving {
    fn compile(compiler: &Compiler<'_>) -> Self {
        let mut serving = Self::default();
        let mut closed = |at: String, message: String| serving.problems.push(Problem { at, message });
        for query in &compiler.connector.queries {
            match compiler.query(query) {
                Ok(compiled) => drop(serving.queries.insert(query.resource.clone(), compiled)),
                Err(message) => closed(format!("query {}", query.resource), message),
            }
        }
        for predicate in &compiler.connector.predicates {
            let key = (predicate.resource.clone(), predicate.id.clone());
            match compiler.predicate(predicate) {
                Ok(compiled) => drop(serving.predicates.insert(key, compiled)),
                Err(message) => closed(format!("predicate {}.{}", key.0, key.1), message),
            }
        }
        for action in &compiler.connector.actions {
            let compiled = compensated(compiler, action).and_then(|()| compile_action(compiler, action));
            match compiled {
                Ok(compiled) => drop(serving.actions.insert(action.id.clone(), compiled)),
                Err(message) => closed(format!("action {}", action.id), message),
            }
        }
        serving
    }
}

/// Whether what undoes an action is declared, and takes only what the action took or returned.
fn compensated(compiler: &Compiler<'_>, action: &Action) -> Result<(), String> {
    let Some(id) = &action.compensation else { return Ok(()) };
    let found = compiler.connector.actions.iter().find(|a| &a.id == id && a.id != action.id);
    let found = found.ok_or_else(|| format!("its compensation `{id}` is no other action of this file"))?;
    let known = |name: &&FieldId| action.parameters.contains(name) || action.result.contains(name);
    match found.parameters.iter().find(|name| !known(name)) {
        Some(name) => {
            Err(format!("its compensation `{id}` takes `{name}`, which it neither takes nor returns"))
        }
        None => Ok(()),
    }
}

fn compile_action(compiler: &Compiler<'_>, action: &Action) -> Result<CompiledAction, String> {
    let mut columns = Vec::new();
    for statement in &action.statements {
        let entity = compiler.entity(&statement.entity)?;
        if statement.kind == StatementKind::Update && statement.pick.is_empty() {
            return Err("an update without `where` would change every row".into());
        }
        let mut resolved = BTreeMap::new();
        for column in statement.set.keys() {
            resolved.insert(column.clone(), compiler.column(entity, column)?);
        }
        for column in statement.pick.keys() {
            let found = compiler.sought(entity, column)?;
            if found.scan {
                return Err(format!(
                    "rows to change are picked by what is stored: `{column}` has `lookup: scan`"
                ));
            }
            resolved.insert(column.clone(), found);
        }
        for value in statement.set.values().chain(statement.pick.values()) {
            if let Some(name) = value.strip_prefix('$')
                && !action.parameters.iter().any(|p| p.as_str() == name)
            {
                return Err(format!("`${name}` is no parameter of the action"));
            }
            if value.starts_with('#') && !matches!(value.as_str(), "#serial" | "#credit_code") {
                return Err(format!(
                    "`{value}` is nothing an action can make; there are `#serial` and `#credit_code`"
                ));
            }
        }
        columns.push((entity.table.clone(), resolved));
    }
    Ok(CompiledAction { declared: action.clone(), columns })
}
