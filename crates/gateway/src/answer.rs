//! Running declared queries, predicates and actions for one subject.

use crate::{
    compile::{CompiledPredicate, Compiler, Problem, Read, Resolved},
    declare::{Action, Connector, Standard, StatementKind, Test},
    source::{Source, SourceError, Write, Written},
    transform::{Stored, check, to_standard, to_stored},
};
use model::{FieldId, OperationId, Resource, ResourceId, Suite, What};
use std::collections::BTreeMap;

/// A gateway on one department's database.
pub struct Gateway<S> {
    connector: Connector,
    source: S,
    queries: BTreeMap<ResourceId, Read>,
    predicates: BTreeMap<(ResourceId, FieldId), CompiledPredicate>,
    actions: BTreeMap<OperationId, CompiledAction>,
    problems: Vec<Problem>,
}

struct CompiledAction {
    declared: Action,
    /// For each statement: its table, then columns by name.
    columns: Vec<(String, BTreeMap<FieldId, Resolved>)>,
}

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

impl<S: Source> Gateway<S> {
    /// Compiles a department's files against its database. Problems close only what they name.
    pub async fn open(connector: Connector, standard: &Standard, source: S) -> Result<Self, SourceError> {
        let compiler = Compiler::new(&connector, standard, &source).await?;
        let mut problems = Vec::new();
        let mut queries = BTreeMap::new();
        for query in &connector.queries {
            match compiler.query(query) {
                Ok(read) => drop(queries.insert(query.resource.clone(), read)),
                Err(message) => problems.push(Problem { at: format!("query {}", query.resource), message }),
            }
        }
        let mut predicates = BTreeMap::new();
        for predicate in &connector.predicates {
            match compiler.predicate(predicate) {
                Ok(compiled) => {
                    predicates.insert((predicate.resource.clone(), predicate.id.clone()), compiled);
                }
                Err(message) => problems.push(Problem {
                    at: format!("predicate {}.{}", predicate.resource, predicate.id),
                    message,
                }),
            }
        }
        let mut actions = BTreeMap::new();
        for action in &connector.actions {
            match compile_action(&compiler, action) {
                Ok(compiled) => drop(actions.insert(action.id.clone(), compiled)),
                Err(message) => problems.push(Problem { at: format!("action {}", action.id), message }),
            }
        }
        Ok(Self { queries, predicates, actions, problems, connector, source })
    }

    /// What is closed, and why.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Every declaration with its state, as `connector check` prints it.
    pub fn report(&self) -> Vec<Checked> {
        let queries = self.connector.queries.iter().map(|q| format!("query {}", q.resource));
        let predicates =
            self.connector.predicates.iter().map(|p| format!("predicate {}.{}", p.resource, p.id));
        let actions = self.connector.actions.iter().map(|a| format!("action {}", a.id));
        let checked = |id: String| {
            let problems: Vec<_> =
                self.problems.iter().filter(|p| p.at == id).map(|p| p.message.clone()).collect();
            Checked { status: if problems.is_empty() { "ok" } else { "closed" }, id, problems }
        };
        queries.chain(predicates).chain(actions).map(checked).collect()
    }

    /// The department's catalogue entries.
    pub fn resources(&self) -> &[Resource] {
        &self.connector.resources
    }

    /// The database.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Answers for one subject: the named fields, or yes / no / unknown.
    pub async fn answer(
        &self,
        resource: &ResourceId,
        what: &What,
        subject: &str,
        parameters: &BTreeMap<FieldId, String>,
    ) -> Result<Answered, GatewayError> {
        match what {
            What::Fields(fields) => {
                let read = self.queries.get(resource).ok_or(GatewayError::Undeclared)?;
                let mut row =
                    one(self.run(read, subject, parameters).await?)?.ok_or(GatewayError::NotFound)?;
                fields
                    .iter()
                    .map(|f| row.remove(f).map(|v| (f.clone(), v)).ok_or(GatewayError::Undeclared))
                    .collect()
            }
            What::Predicate(id) => {
                let key = (resource.clone(), id.clone());
                let predicate = self.predicates.get(&key).ok_or(GatewayError::Undeclared)?;
                let answer = self.test(predicate, subject, parameters).await?;
                Ok(vec![(id.clone(), answer.to_owned())])
            }
        }
    }

    async fn test(
        &self,
        predicate: &CompiledPredicate,
        subject: &str,
        parameters: &BTreeMap<FieldId, String>,
    ) -> Result<&'static str, GatewayError> {
        let rows = self.run(&predicate.read, subject, parameters).await?;
        let yes = |holds: bool| if holds { "yes" } else { "no" };
        if matches!(predicate.test, Test::Exists) {
            if rows.is_empty()
                && let Some(known) = &predicate.known
                && self.run(known, subject, parameters).await?.is_empty()
            {
                return Ok("unknown");
            }
            return Ok(yes(!rows.is_empty()));
        }
        let row = match one(rows) {
            Ok(Some(row)) => row,
            Ok(None) => return Ok("unknown"),
            Err(_) => return Ok("ambiguous"),
        };
        Ok(match &predicate.test {
            Test::Exists => unreachable!("answered above"),
            Test::Equals(columns) => {
                for name in columns.values() {
                    if !parameters.contains_key(name) {
                        return Err(GatewayError::Parameter(name.to_string()));
                    }
                }
                yes(columns.iter().all(|(column, name)| row.get(column) == parameters.get(name)))
            }
            Test::In(columns) => {
                yes(columns.iter().all(|(column, words)| row.get(column).is_some_and(|v| words.contains(v))))
            }
            Test::AtMost(columns) => yes(columns.iter().all(|(column, most)| {
                row.get(column).and_then(|v| v.parse::<i64>().ok()).is_some_and(|n| n <= *most)
            })),
        })
    }

    async fn run(
        &self,
        read: &Read,
        subject: &str,
        parameters: &BTreeMap<FieldId, String>,
    ) -> Result<Vec<BTreeMap<FieldId, String>>, GatewayError> {
        let store = |name: &str, value: &str, column: &Resolved| {
            let value = check(value, column.kind).map_err(|_| GatewayError::Parameter(name.to_owned()))?;
            to_stored(&value, &column.transform).map_err(|_| GatewayError::Parameter(name.to_owned()))
        };
        let mut binds = vec![store("subject", subject, &read.subject)?];
        for (name, column) in &read.parameters {
            let value = parameters.get(name).ok_or_else(|| GatewayError::Parameter(name.to_string()))?;
            binds.push(store(name.as_str(), value, column)?);
        }
        for (value, column) in &read.fixed {
            binds.push(to_stored(value, &column.transform).map_err(GatewayError::Value)?);
        }
        let rows = self.source.select(&read.select, &binds).await?;
        rows.into_iter()
            .map(|row| {
                read.outputs
                    .iter()
                    .zip(row)
                    .map(|((name, column), cell)| {
                        let value = match cell {
                            None => String::new(),
                            Some(stored) => to_standard(stored, &column.transform, column.kind)
                                .map_err(GatewayError::Value)?,
                        };
                        Ok((name.clone(), value))
                    })
                    .collect()
            })
            .collect()
    }

    /// Performs a declared action once for this key (case and step): repeated, it returns the first result.
    pub async fn perform(
        &self,
        operation: &OperationId,
        key: &str,
        parameters: &BTreeMap<FieldId, String>,
    ) -> Result<Performed, GatewayError> {
        let action = self.actions.get(operation).ok_or(GatewayError::Undeclared)?;
        for name in &action.declared.parameters {
            if !parameters.contains_key(name) {
                return Err(GatewayError::Parameter(name.to_string()));
            }
        }
        // a number in the department's own system, which need not follow the ledger's suite
        let serial = crypto::hash(Suite::International, "tongban/serial/1", &[key.as_bytes()]);
        let serial = serial.to_string()[..10].to_ascii_uppercase();
        let value_of = |text: &str| -> Result<String, GatewayError> {
            match text.split_at_checked(1) {
                Some(("$", name)) => {
                    let name: FieldId = name.parse().map_err(|_| GatewayError::Parameter(name.to_owned()))?;
                    parameters.get(&name).cloned().ok_or_else(|| GatewayError::Parameter(name.to_string()))
                }
                Some(("#", "serial")) => Ok(serial.clone()),
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
            writes.push(Write {
                table: table.clone(),
                insert: statement.kind == StatementKind::Insert,
                set: statement
                    .set
                    .iter()
                    .map(store)
                    .collect::<Result<Vec<(String, Stored)>, GatewayError>>()?,
                pick: statement.pick.iter().map(store).collect::<Result<Vec<_>, GatewayError>>()?,
                expect: statement.expect,
            });
        }
        let mut result: Performed = action
            .declared
            .result
            .iter()
            .map(|name| {
                let value = if name.as_str() == "serial" {
                    Some(serial.clone())
                } else {
                    parameters.get(name).cloned()
                };
                value.map(|v| (name.clone(), v)).ok_or_else(|| GatewayError::Parameter(name.to_string()))
            })
            .collect::<Result<_, _>>()?;
        if let Written::Before(first) = self.source.write_once(key, &writes, &result).await? {
            result = first;
        }
        Ok(result)
    }
}

fn one(mut rows: Vec<BTreeMap<FieldId, String>>) -> Result<Option<BTreeMap<FieldId, String>>, GatewayError> {
    match rows.len() {
        0 | 1 => Ok(rows.pop()),
        _ => Err(GatewayError::Ambiguous),
    }
}

fn compile_action<S: Source>(compiler: &Compiler<'_, S>, action: &Action) -> Result<CompiledAction, String> {
    let mut columns = Vec::new();
    for statement in &action.statements {
        let entity = compiler.entity(&statement.entity)?;
        if statement.kind == StatementKind::Update && statement.pick.is_empty() {
            return Err("an update without `where` would change every row".into());
        }
        let mut resolved = BTreeMap::new();
        for column in statement.set.keys().chain(statement.pick.keys()) {
            resolved.insert(column.clone(), compiler.column(entity, column)?);
        }
        for value in statement.set.values().chain(statement.pick.values()) {
            if let Some(name) = value.strip_prefix('$')
                && !action.parameters.iter().any(|p| p.as_str() == name)
            {
                return Err(format!("`${name}` is no parameter of the action"));
            }
        }
        columns.push((entity.table.clone(), resolved));
    }
    Ok(CompiledAction { declared: action.clone(), columns })
}
