//! Rules on rows in CEL (<https://cel.dev>): no loops without end, no reading or writing of anything else.
//!
//! A rule sees the columns of one row by their names, as the standard writes them: whole numbers as numbers, everything else as
//! text, and null where there is nothing; and the call's parameters as members of `given`. Days are `yyyy-mm-dd`, so `<` compares
//! them; `days(day)` counts them.

use crate::{compile::Parameters, declare::ElementKind};
use cel::{Context, Env, ExecutionError, Program, Value};
use model::FieldId;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

/// A row: values as in the standard, by column.
pub(crate) type Row = BTreeMap<FieldId, Option<String>>;

/// A compiled rule with the columns it reads.
#[derive(Clone)]
pub(crate) struct Rule {
    program: Arc<Program>,
    columns: BTreeMap<FieldId, ElementKind>,
    parameters: Parameters,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rule").field("columns", &self.columns).finish_non_exhaustive()
    }
}

static STANDARD: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));
/// The longest rule, in bytes.
const BYTES_MAX: usize = 4096;

impl Rule {
    /// Compiles a rule, and tries it on a row of sample values: a name that is none, or a comparison of a number with a text, is an
    /// error now and not at the first call.
    pub(crate) fn compile(
        text: &str,
        columns: &BTreeMap<FieldId, ElementKind>,
        parameters: &Parameters,
    ) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("the rule is longer than {BYTES_MAX} bytes"));
        }
        let program = Program::compile(text).map_err(|e| format!("the rule `{text}` cannot be read: {e}"))?;
        let read: Vec<String> = program.references().variables().into_iter().map(str::to_owned).collect();
        let mut used = BTreeMap::new();
        for name in read.iter().filter(|name| *name != "given") {
            let column = name.parse().ok().and_then(|id: FieldId| columns.get_key_value(&id));
            let (id, kind) =
                column.ok_or_else(|| format!("the rule `{text}` reads `{name}`, which is no column"))?;
            used.insert(id.clone(), *kind);
        }
        let rule = Self { program: Arc::new(program), columns: used, parameters: parameters.clone() };
        let sample = |kind: &ElementKind| match kind {
            ElementKind::Integer => "0".to_owned(),
            ElementKind::Date => "2000-01-01".to_owned(),
            _ => "text".to_owned(),
        };
        let row = rule.columns.iter().map(|(id, kind)| (id.clone(), Some(sample(kind)))).collect();
        let given = parameters.iter().map(|(id, p)| (id.clone(), sample(&p.form.kind))).collect();
        rule.holds(&row, &given).map_err(|e| format!("the rule `{text}` cannot be evaluated: {e}"))?;
        Ok(rule)
    }

    /// The columns it reads.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &FieldId> {
        self.columns.keys()
    }

    /// Whether it is true of a row. The error says nothing of any value.
    pub(crate) fn holds(&self, row: &Row, given: &BTreeMap<FieldId, String>) -> Result<bool, String> {
        let mut context = Context::with_env(STANDARD.clone());
        let days = |day: Arc<String>| {
            days(&day).ok_or_else(|| ExecutionError::function_error("days", "it is no day"))
        };
        context.add_function("days", days).map_err(|e| e.to_string())?;
        for (id, kind) in &self.columns {
            context.add_variable_from_value(
                id.to_string(),
                value(row.get(id).and_then(Option::as_deref), *kind),
            );
        }
        let given: HashMap<String, Value> = self
            .parameters
            .iter()
            .map(|(id, p)| (id.to_string(), value(given.get(id).map(String::as_str), p.form.kind)))
            .collect();
        context.add_variable_from_value("given", given);
        match self.program.execute(&context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err("it is neither true nor false".into()),
            // the engine's message may quote a value
            Err(ExecutionError::UndeclaredReference(name)) => Err(format!("`{name}` is nothing it knows")),
            Err(ExecutionError::NoSuchKey(name)) => Err(format!("no parameter `{name}` is given")),
            Err(_) => Err("two of its values cannot be compared".into()),
        }
    }
}

fn value(text: Option<&str>, kind: ElementKind) -> Value {
    match (text, kind) {
        (None, _) => Value::Null,
        (Some(text), ElementKind::Integer) => text.parse::<i64>().map_or(Value::Null, Value::Int),
        (Some(text), _) => Value::String(Arc::new(text.to_owned())),
    }
}

/// The number of a day, from 1970-01-01 on (Howard Hinnant, days_from_civil).
fn days(day: &str) -> Option<i64> {
    let mut parts = day.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || !(0..=9999).contains(&year) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Parameter, Resolved};

    fn name(text: &str) -> FieldId {
        text.parse().unwrap()
    }

    fn compile(text: &str) -> Result<Rule, String> {
        let columns =
            [("from", ElementKind::Date), ("until", ElementKind::Date), ("owed", ElementKind::Integer)];
        let columns = columns.map(|(id, kind)| (name(id), kind)).into();
        let as_of = Parameter { form: Resolved::plain(ElementKind::Date), optional: false };
        Rule::compile(text, &columns, &[(name("as_of"), as_of)].into())
    }

    #[test]
    fn days_are_counted() {
        assert_eq!(days("1970-01-01"), Some(0));
        assert_eq!(days("2019-04-17").unwrap() - days("2018-04-17").unwrap(), 365);
        assert_eq!(days("2020-03-01").unwrap() - days("2020-02-28").unwrap(), 2);
        assert_eq!(days("1969-12-31"), Some(-1));
        assert_eq!(days("yesterday"), None);
    }

    #[test]
    fn a_rule_reads_its_row_and_what_is_given() {
        let rule =
            compile("from <= given.as_of && (until == null || given.as_of < until) && owed == 0").unwrap();
        let row = |from: &str, until: Option<&str>| -> Row {
            [
                (name("from"), Some(from.to_owned())),
                (name("until"), until.map(str::to_owned)),
                (name("owed"), Some("0".into())),
            ]
            .into()
        };
        let given = [(name("as_of"), "2019-04-17".to_owned())].into();
        assert_eq!(rule.holds(&row("2019-04-17", None), &given), Ok(true));
        assert_eq!(rule.holds(&row("2019-04-16", Some("2019-04-17")), &given), Ok(false));
        assert_eq!(rule.holds(&row("2019-04-18", None), &given), Ok(false));
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_said_when_it_is_compiled() {
        for (text, says) in [
            ("from <", "cannot be read"),
            ("nothing == 1", "no column"),
            ("owed == 'x' || owed < from", "cannot be compared"),
            ("given.nothing == from", "given"),
            ("owed", "neither true nor false"),
        ] {
            let e = compile(text).unwrap_err();
            assert!(e.contains(says), "{text}: {e}");
        }
    }
}
