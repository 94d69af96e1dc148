//! Checks declared files against the standard and the live schema, once, before anything is answered.

use crate::{
    declare::{
        Column, Connector, ElementKind, Entity, Given, Known, LookupBy, Nearest, PredicateQuery, Query, Rows,
        Standard, Take, Test, Through, Transform,
    },
    rule::Rule,
    source::{Select, Source, SourceError},
    transform::{normal, stored_forms},
};
use model::FieldId;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The most rows of one subject that are read.
pub const ROWS_MAX: u64 = 1_000;
/// The most rows of a table whose column is looked up by reading it.
pub const SCAN_MAX: u64 = 200_000;

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
    pub(crate) none: Vec<String>,
    pub(crate) parted: Option<String>,
    pub(crate) scan: bool,
}

impl Resolved {
    /// Of no column: a value as it is.
    pub(crate) fn plain(kind: ElementKind) -> Self {
        Self { name: String::new(), kind, transform: vec![], none: vec![], parted: None, scan: false }
    }

    fn bytes(&self) -> bool {
        self.transform.contains(&Transform::Gbk)
    }
}

/// What a column is compared with.
#[derive(Clone, Debug)]
pub(crate) enum With {
    /// What is looked for: the subject, or what was found on the way from it.
    Sought,
    /// A parameter.
    Parameter(FieldId),
    /// A value, as in the standard.
    Fixed(String),
}

/// A read ready to run.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) table: String,
    /// Columns that must have a value.
    pub(crate) conditions: Vec<(FieldId, With)>,
    /// Every column that is read, those of the conditions among them.
    pub(crate) columns: Vec<(FieldId, Resolved)>,
    pub(crate) keep: Option<Rule>,
}

impl Read {
    pub(crate) fn column(&self, id: &FieldId) -> &Resolved {
        &self.columns.iter().find(|(column, _)| column == id).expect("compiled with its columns").1
    }

    /// Whether the whole table must be read.
    pub(crate) fn scans(&self) -> bool {
        self.conditions.iter().any(|(id, with)| matches!(with, With::Sought) && self.column(id).scan)
    }

    /// The read for the source, without conditions.
    pub(crate) fn select(&self) -> Select {
        let columns = self.columns.iter().map(|(_, c)| (c.name.clone(), c.bytes())).collect();
        let limit = if self.scans() { SCAN_MAX } else { ROWS_MAX };
        Select { table: self.table.clone(), columns, conditions: vec![], limit: limit + 1 }
    }
}

/// A look-up on the way from the subject.
#[derive(Clone, Debug)]
pub(crate) struct Hop {
    pub(crate) read: Read,
    pub(crate) take: FieldId,
    pub(crate) optional: bool,
}

/// How rows are found.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    pub(crate) hops: Vec<Hop>,
    pub(crate) read: Read,
    /// For a further place: what is read of it by the names of the first place's columns, and its own.
    pub(crate) names: Option<BTreeMap<FieldId, FieldId>>,
}

/// The parameters a query or predicate takes.
pub(crate) type Parameters = BTreeMap<FieldId, Parameter>;

/// A parameter.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    /// The column whose form it is brought into.
    pub(crate) form: Resolved,
    /// Whether it may be left out.
    pub(crate) optional: bool,
}

/// A query ready to run.
#[derive(Clone, Debug)]
pub(crate) struct CompiledQuery {
    pub(crate) parameters: Parameters,
    pub(crate) places: Vec<Lookup>,
    pub(crate) known: Option<Lookup>,
    pub(crate) nearest: Option<Nearest>,
    pub(crate) rows: Rows,
    pub(crate) order: Option<FieldId>,
    pub(crate) fields: BTreeMap<FieldId, Take>,
}

/// A predicate ready to run.
#[derive(Clone, Debug)]
pub(crate) struct CompiledPredicate {
    pub(crate) parameters: Parameters,
    pub(crate) places: Vec<Lookup>,
    pub(crate) known: Option<Lookup>,
    pub(crate) test: CompiledTest,
}

/// A test ready to run.
#[derive(Clone, Debug)]
pub(crate) enum CompiledTest {
    Exists,
    Absent,
    All(Rule),
    One(RowTest),
}

/// A test of the one row there is.
#[derive(Clone, Debug)]
pub(crate) enum RowTest {
    Holds(Rule, Option<Rule>),
    Equals(BTreeMap<FieldId, FieldId>),
    In(BTreeMap<FieldId, Vec<String>>),
    AtMost(BTreeMap<FieldId, i64>),
}

pub(crate) struct Compiler<'a> {
    pub(crate) connector: &'a Connector,
    pub(crate) standard: &'a Standard,
    /// Types by column, by table.
    pub(crate) schema: &'a Schema,
    /// As it was when the gateway was opened, where it was.
    pub(crate) first: Option<&'a Schema>,
    /// Codes that stand in the database and in no declared list, by table and column.
    pub(crate) strange: &'a BTreeMap<(String, String), usize>,
}

/// The types of a database's columns, by table and column; the tables that a mapping names.
pub(crate) type Schema = BTreeMap<String, BTreeMap<String, String>>;

/// Reads the schema of every table the mapping names.
pub(crate) async fn schema<S: Source>(connector: &Connector, source: &S) -> Result<Schema, SourceError> {
    let mut schema = Schema::new();
    for entity in connector.entities.values() {
        if !schema.contains_key(&entity.table) {
            schema.insert(entity.table.clone(), source.columns(&entity.table).await?.into_iter().collect());
        }
    }
    Ok(schema)
}

/// Where a place's columns are looked up, with all it takes.
struct Place<'a> {
    entity: &'a FieldId,
    subject: &'a FieldId,
    through: &'a [Through],
    parameters: &'a BTreeMap<FieldId, FieldId>,
    fixed: &'a BTreeMap<FieldId, String>,
    keep: Option<&'a str>,
}

impl<'a> Compiler<'a> {
    pub(crate) fn entity(&self, id: &FieldId) -> Result<&'a Entity, String> {
        let entity = self.connector.entities.get(id).ok_or(format!("there is no entity `{id}`"))?;
        if self.schema[&entity.table].is_empty() {
            return Err(format!("the database has no table or view `{}`", entity.table));
        }
        Ok(entity)
    }

    pub(crate) fn column(&self, entity: &Entity, id: &FieldId) -> Result<Resolved, String> {
        let declared = entity
            .columns
            .get(id)
            .ok_or(format!("the entity on `{}` declares no column `{id}`", entity.table))?;
        let Column { column, element, transform, none, parted, stored_type, lookup } = declared;
        let found = self.schema[&entity.table]
            .get(column)
            .ok_or(format!("`{}` has no column `{column}` any more, or never had", entity.table))?;
        let first = self.first.and_then(|schema| schema.get(&entity.table)?.get(column));
        if let Some(expected) = stored_type.as_ref().or(first).filter(|expected| *expected != found) {
            return Err(format!(
                "`{}.{column}` was of type {expected} and is {found} now: look at its mapping, then start the node again",
                entity.table
            ));
        }
        if let Some(count) = self.strange.get(&(entity.table.clone(), column.clone())) {
            return Err(format!(
                "`{}.{column}` has {count} code(s) that the declared list has not: add them to `codes`",
                entity.table
            ));
        }
        let kind = self.kind(element)?;
        if transform.iter().skip(1).any(|t| *t == Transform::Gbk) {
            return Err(format!("`gbk` must be the first transform of `{id}`"));
        }
        Ok(Resolved {
            name: column.clone(),
            kind,
            transform: transform.clone(),
            none: none.clone(),
            parted: parted.clone(),
            scan: *lookup == LookupBy::Scan,
        })
    }

    fn kind(&self, element: &FieldId) -> Result<ElementKind, String> {
        let found = self.standard.elements.get(element);
        Ok(found.ok_or(format!("the standard has no data element `{element}`"))?.kind)
    }

    /// A column that a value is looked for in.
    pub(crate) fn sought(&self, entity: &Entity, id: &FieldId) -> Result<Resolved, String> {
        let column = self.column(entity, id)?;
        if column.parted.is_some() {
            return Err(format!("`{id}` has several values in a cell: nothing is looked for in it"));
        }
        if !column.scan && !column.transform.iter().all(Transform::undoes) {
            return Err(format!(
                "`{id}` is stored in forms that cannot be told from the value: give it `lookup: scan`, or map a column or view \
                 that has one form"
            ));
        }
        Ok(column)
    }

    /// A rule on the columns of an entity.
    fn rule(&self, text: &str, entity: &Entity, parameters: &Parameters) -> Result<Rule, String> {
        let columns = entity.columns.iter().map(|(id, c)| Ok((id.clone(), self.kind(&c.element)?)));
        Rule::compile(text, &columns.collect::<Result<_, String>>()?, parameters)
    }

    fn read(
        &self,
        place: &Place<'_>,
        parameters: &Parameters,
        also_read: &[FieldId],
        more_rules: &[&Rule],
    ) -> Result<Read, String> {
        let entity = self.entity(place.entity)?;
        let mut columns = BTreeMap::from([(place.subject.clone(), self.sought(entity, place.subject)?)]);
        let mut conditions = vec![(place.subject.clone(), With::Sought)];
        for (name, column) in place.parameters {
            columns.insert(column.clone(), self.sought(entity, column)?);
            conditions.push((column.clone(), With::Parameter(name.clone())));
        }
        for (column, value) in place.fixed {
            let resolved = self.column(entity, column)?;
            let unfit = |e| format!("`where` wants `{column}` to be `{value}`, which it never is: {e}");
            let value = normal(value, &resolved).map_err(unfit)?;
            if resolved.transform.iter().all(Transform::undoes) {
                match stored_forms(&value, &resolved) {
                    Ok(forms) if !forms.is_empty() => {}
                    Ok(_) => return Err(unfit("its code list has no such word".into())),
                    Err(e) => return Err(unfit(e)),
                }
            }
            columns.insert(column.clone(), resolved);
            conditions.push((column.clone(), With::Fixed(value)));
        }
        let keep = place.keep.map(|text| self.rule(text, entity, parameters)).transpose()?;
        let of_rules = keep.iter().chain(more_rules.iter().copied()).flat_map(|rule| rule.columns());
        let needed: BTreeSet<FieldId> = of_rules.chain(also_read).cloned().collect();
        for column in needed {
            let resolved = self.column(entity, &column)?;
            columns.entry(column).or_insert(resolved);
        }
        Ok(Read { table: entity.table.clone(), conditions, columns: columns.into_iter().collect(), keep })
    }

    fn hops(&self, through: &[Through], parameters: &Parameters) -> Result<Vec<Hop>, String> {
        let none = BTreeMap::new();
        through
            .iter()
            .map(|hop| {
                let place = Place {
                    entity: &hop.entity,
                    subject: &hop.subject,
                    through: &[],
                    parameters: &none,
                    fixed: &hop.fixed,
                    keep: hop.keep.as_deref(),
                };
                let read = self.read(&place, parameters, std::slice::from_ref(&hop.take), &[])?;
                Ok(Hop { read, take: hop.take.clone(), optional: hop.optional })
            })
            .collect()
    }

    /// The first place and all others, whose columns go by the names of the first.
    fn places(
        &self,
        first: &Place<'_>,
        also: &[crate::declare::Also],
        parameters: &Parameters,
        read: &[FieldId],
        rules: &[&Rule],
    ) -> Result<Vec<Lookup>, String> {
        let hops = self.hops(first.through, parameters)?;
        let names = None;
        let mut places = vec![Lookup { hops, read: self.read(first, parameters, read, rules)?, names }];
        let of_rules = rules.iter().flat_map(|rule| rule.columns());
        let wanted: BTreeSet<&FieldId> = read.iter().chain(of_rules).collect();
        for other in also {
            let own = |column: &FieldId| other.columns.get(column).unwrap_or(column).clone();
            let narrowing =
                first.parameters.iter().map(|(name, column)| (name.clone(), own(column))).collect();
            let place = Place {
                entity: &other.entity,
                subject: &other.subject,
                through: &other.through,
                parameters: &narrowing,
                fixed: &other.fixed,
                keep: other.keep.as_deref(),
            };
            let names: BTreeMap<FieldId, FieldId> =
                wanted.iter().map(|name| ((*name).clone(), own(name))).collect();
            let read: Vec<FieldId> = names.values().cloned().collect();
            places.push(Lookup {
                hops: self.hops(&other.through, parameters)?,
                read: self.read(&place, parameters, &read, &[])?,
                names: Some(names),
            });
        }
        Ok(places)
    }

    fn known(&self, known: Option<&Known>) -> Result<Option<Lookup>, String> {
        let Some(known) = known else { return Ok(None) };
        let none = (BTreeMap::new(), BTreeMap::new());
        let place = Place {
            entity: &known.entity,
            subject: &known.subject,
            through: &[],
            parameters: &none.0,
            fixed: &none.1,
            keep: None,
        };
        let read = self.read(&place, &Parameters::new(), &[], &[])?;
        Ok(Some(Lookup { hops: vec![], read, names: None }))
    }

    fn parameters(
        &self,
        entity: &FieldId,
        compared: &BTreeMap<FieldId, FieldId>,
        given: &BTreeMap<FieldId, Given>,
        optional: &[FieldId],
    ) -> Result<Parameters, String> {
        let entity = self.entity(entity)?;
        let mut parameters = Parameters::new();
        let mut add = |name: &FieldId, form: Resolved| {
            parameters.insert(name.clone(), Parameter { form, optional: optional.contains(name) });
        };
        for (name, column) in compared {
            add(name, self.column(entity, column)?);
        }
        for (name, given) in given {
            match given {
                Given::Like { like } => add(name, self.column(entity, like)?),
                Given::Element(element) => add(name, Resolved::plain(self.kind(element)?)),
            }
        }
        match optional.iter().find(|name| !parameters.contains_key(*name)) {
            Some(name) => Err(format!("`{name}` is optional and no parameter")),
            None => Ok(parameters),
        }
    }

    /// Compiles a query.
    pub(crate) fn query(&self, query: &Query) -> Result<CompiledQuery, String> {
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
        let parameters = self.parameters(&query.entity, &query.parameters, &query.given, &query.optional)?;
        let place = Place {
            entity: &query.entity,
            subject: &query.subject,
            through: &query.through,
            parameters: &query.parameters,
            fixed: &query.fixed,
            keep: query.keep.as_deref(),
        };
        let mut read: Vec<FieldId> = query.fields.values().flat_map(Take::columns).collect();
        read.extend(query.order.clone());
        let entity = self.entity(&query.entity)?;
        for take in query.fields.values() {
            if matches!(take, Take::Sum { .. })
                && take
                    .columns()
                    .iter()
                    .any(|c| self.column(entity, c).is_ok_and(|c| c.kind != ElementKind::Integer))
            {
                return Err("only whole numbers are summed".into());
            }
        }
        let scored = query.fields.iter().filter_map(|(id, take)| match take {
            Take::Score { score } => Some((id, score)),
            _ => None,
        });
        for (id, column) in scored {
            if query.nearest.as_ref().map(|n| &n.column) != Some(column) {
                return Err(format!("`{id}` scores a column that `nearest` does not name"));
            }
            let field = resource.fields.iter().find(|f| &f.id == id);
            if field.is_some_and(|f| self.kind(&f.element) != Ok(ElementKind::Integer)) {
                return Err(format!("`{id}` is a score: its element is a whole number"));
            }
        }
        if let Some(nearest) = &query.nearest {
            self.nearest(nearest, query, entity)?;
            read.push(nearest.column.clone());
        }
        Ok(CompiledQuery {
            nearest: query.nearest.clone(),
            places: self.places(&place, &query.also, &parameters, &read, &[])?,
            known: self.known(query.known.as_ref())?,
            parameters,
            rows: query.rows,
            order: query.order.clone(),
            fields: query.fields.clone(),
        })
    }

    /// Checks which rows a query finds near.
    fn nearest(&self, nearest: &Nearest, query: &Query, entity: &Entity) -> Result<(), String> {
        let Nearest { column, to, least, .. } = nearest;
        // further places too: their own column of the same meaning
        let mut compared = vec![self.column(entity, column)?];
        for also in &query.also {
            compared
                .push(self.column(self.entity(&also.entity)?, also.columns.get(column).unwrap_or(column))?);
        }
        if compared.iter().any(|column| column.kind != ElementKind::Text || column.parted.is_some()) {
            return Err(format!("`nearest` compares one address a row, and `{column}` is none"));
        }
        if query.fields.values().any(|take| matches!(take, Take::Sum { .. })) {
            return Err("what is near is not summed: an address that is not found would owe nothing".into());
        }
        if !query.given.contains_key(to) || query.optional.contains(to) {
            return Err(format!(
                "`nearest` is near to `{to}`, which is no parameter of `given` that must be there"
            ));
        }
        // up to forty are other places
        if !(41..=100).contains(least) {
            return Err("the `least` score of `nearest` is from 41 to 100".into());
        }
        match &query.order {
            Some(_) => Err("`nearest` orders the rows: leave out `order`".into()),
            None => Ok(()),
        }
    }

    /// Compiles a predicate.
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
        let compared = match &predicate.test {
            Test::Equals(columns) => {
                columns.iter().map(|(column, name)| (name.clone(), column.clone())).collect()
            }
            _ => BTreeMap::new(),
        };
        let all: BTreeMap<_, _> = predicate.parameters.clone().into_iter().chain(compared).collect();
        let parameters = self.parameters(&predicate.entity, &all, &predicate.given, &predicate.optional)?;
        let entity = self.entity(&predicate.entity)?;
        let rule = |text: &String| self.rule(text, entity, &parameters);
        let (test, read): (_, Vec<FieldId>) = match &predicate.test {
            Test::Exists => (CompiledTest::Exists, vec![]),
            Test::Absent => (CompiledTest::Absent, vec![]),
            Test::All(text) => (CompiledTest::All(rule(text)?), vec![]),
            Test::Holds { is, unknown } => {
                let test = RowTest::Holds(rule(is)?, unknown.as_ref().map(rule).transpose()?);
                (CompiledTest::One(test), vec![])
            }
            Test::Equals(columns) => {
                (CompiledTest::One(RowTest::Equals(columns.clone())), columns.keys().cloned().collect())
            }
            Test::In(columns) => {
                (CompiledTest::One(RowTest::In(columns.clone())), columns.keys().cloned().collect())
            }
            Test::AtMost(columns) => {
                (CompiledTest::One(RowTest::AtMost(columns.clone())), columns.keys().cloned().collect())
            }
        };
        let rules: Vec<&Rule> = match &test {
            CompiledTest::All(rule) | CompiledTest::One(RowTest::Holds(rule, None)) => vec![rule],
            CompiledTest::One(RowTest::Holds(is, Some(unknown))) => vec![is, unknown],
            _ => vec![],
        };
        let place = Place {
            entity: &predicate.entity,
            subject: &predicate.subject,
            through: &predicate.through,
            parameters: &predicate.parameters,
            fixed: &predicate.fixed,
            keep: predicate.keep.as_deref(),
        };
        Ok(CompiledPredicate {
            places: self.places(&place, &predicate.also, &parameters, &read, &rules)?,
            known: self.known(predicate.known.as_ref())?,
            parameters,
            test,
        })
    }
}
