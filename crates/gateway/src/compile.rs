//! Checks declared files against the standard and the live schema, once, before anything is answered.

use crate::{
    declare::{Column, Connector, ElementKind, Entity, PredicateQuery, Query, Standard, Test, Transform},
    source::{Select, Source, SourceError},
};
use model::FieldId;
use serde::Serialize;
use std::collections::BTreeMap;

/// Something wrong with a declared file or the schema it meets. It closes only what it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The query, predicate, action or resource concerned: `query power.account`.
    pub at: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// A column resolved: its database name, element kind and transforms.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) name: String,
    pub(crate) kind: ElementKind,
    pub(crate) transform: Vec<Transform>,
}

impl Resolved {
    fn bytes(&self) -> bool {
        self.transform.contains(&Transform::Gbk)
    }
}

/// A read ready to run: conditions in bind order (subject, parameters, fixed values), then outputs.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) select: Select,
    pub(crate) subject: Resolved,
    pub(crate) parameters: Vec<(FieldId, Resolved)>,
    pub(crate) fixed: Vec<(String, Resolved)>,
    pub(crate) outputs: Vec<(FieldId, Resolved)>,
}

/// A predicate ready to run.
#[derive(Clone, Debug)]
pub(crate) struct CompiledPredicate {
    pub(crate) read: Read,
    pub(crate) test: Test,
    pub(crate) known: Option<Read>,
}

pub(crate) struct Compiler<'a, S> {
    pub(crate) connector: &'a Connector,
    pub(crate) standard: &'a Standard,
    pub(crate) schema: BTreeMap<String, Vec<String>>,
    kind: std::marker::PhantomData<S>,
}

impl<'a, S: Source> Compiler<'a, S> {
    /// Reads the schema of every table the mapping names.
    pub(crate) async fn new(
        connector: &'a Connector,
        standard: &'a Standard,
        source: &'a S,
    ) -> Result<Self, SourceError> {
        let mut schema = BTreeMap::new();
        for entity in connector.entities.values() {
            schema.insert(entity.table.clone(), source.columns(&entity.table).await?);
        }
        Ok(Self { connector, standard, schema, kind: std::marker::PhantomData })
    }

    pub(crate) fn entity(&self, id: &FieldId) -> Result<&'a Entity, String> {
        let entity = self.connector.entities.get(id).ok_or(format!("there is no entity `{id}`"))?;
        if self.schema[&entity.table].is_empty() {
            return Err(format!("the database has no table or view `{}`", entity.table));
        }
        Ok(entity)
    }

    pub(crate) fn column(&self, entity: &Entity, id: &FieldId) -> Result<Resolved, String> {
        let Column { column, element, transform } = entity
            .columns
            .get(id)
            .ok_or(format!("the entity on `{}` declares no column `{id}`", entity.table))?;
        if !self.schema[&entity.table].contains(column) {
            return Err(format!("`{}` has no column `{column}` any more, or never had", entity.table));
        }
        let element = self
            .standard
            .elements
            .get(element)
            .ok_or(format!("the standard has no data element `{element}`"))?;
        if transform.iter().skip(1).any(|t| *t == Transform::Gbk) {
            return Err(format!("`gbk` must be the first transform of `{id}`"));
        }
        Ok(Resolved { name: column.clone(), kind: element.kind, transform: transform.clone() })
    }

    fn read(
        &self,
        entity: &FieldId,
        subject: &FieldId,
        parameters: &BTreeMap<FieldId, FieldId>,
        fixed: &BTreeMap<FieldId, String>,
        outputs: impl Iterator<Item = (FieldId, FieldId)>,
        limit: u64,
    ) -> Result<Read, String> {
        let entity = self.entity(entity)?;
        let subject = self.column(entity, subject)?;
        let parameters: Vec<_> = parameters
            .iter()
            .map(|(name, column)| Ok((name.clone(), self.column(entity, column)?)))
            .collect::<Result<_, String>>()?;
        let fixed: Vec<_> = fixed
            .iter()
            .map(|(column, value)| Ok((value.clone(), self.column(entity, column)?)))
            .collect::<Result<_, String>>()?;
        let outputs: Vec<_> = outputs
            .map(|(name, column)| Ok((name, self.column(entity, &column)?)))
            .collect::<Result<_, String>>()?;
        let conditions = std::iter::once(&subject)
            .chain(parameters.iter().map(|(_, c)| c))
            .chain(fixed.iter().map(|(_, c)| c))
            .map(|c| c.name.clone())
            .collect();
        let mut columns: Vec<_> = outputs.iter().map(|(_, c)| (c.name.clone(), c.bytes())).collect();
        if columns.is_empty() {
            columns.push((subject.name.clone(), subject.bytes()));
        }
        let select = Select { table: entity.table.clone(), columns, conditions, limit };
        Ok(Read { select, subject, parameters, fixed, outputs })
    }

    /// Compiles a query: one subject, and a second row already says that the answer is ambiguous.
    pub(crate) fn query(&self, query: &Query) -> Result<Read, String> {
        let resource = self
            .connector
            .resources
            .iter()
            .find(|r| r.id == query.resource)
            .ok_or(format!("there is no resource `{}`", query.resource))?;
        for field in &resource.fields {
            if !query.fields.contains_key(&field.id) {
                return Err(format!("the query answers no field `{}` of the resource", field.id));
            }
        }
        let fields = query.fields.iter().map(|(a, b)| (a.clone(), b.clone()));
        self.read(&query.entity, &query.subject, &query.parameters, &query.fixed, fields, 2)
    }

    pub(crate) fn predicate(&self, predicate: &PredicateQuery) -> Result<CompiledPredicate, String> {
        let declared = self
            .connector
            .resources
            .iter()
            .any(|r| r.id == predicate.resource && r.predicates.iter().any(|p| p.id == predicate.id));
        if !declared {
            return Err(format!(
                "the resource `{}` lists no predicate `{}`",
                predicate.resource, predicate.id
            ));
        }
        let outputs: Vec<FieldId> = match &predicate.test {
            Test::Exists => vec![],
            Test::Equals(columns) => columns.keys().cloned().collect(),
            Test::In(columns) => columns.keys().cloned().collect(),
            Test::AtMost(columns) => columns.keys().cloned().collect(),
        };
        let read = self.read(
            &predicate.entity,
            &predicate.subject,
            &predicate.parameters,
            &predicate.fixed,
            outputs.into_iter().map(|c| (c.clone(), c)),
            2,
        )?;
        let known = match &predicate.known {
            Some(k) => Some(self.read(
                &k.entity,
                &k.subject,
                &BTreeMap::new(),
                &BTreeMap::new(),
                std::iter::empty(),
                1,
            )?),
            None => None,
        };
        Ok(CompiledPredicate { read, test: predicate.test.clone(), known })
    }
}
