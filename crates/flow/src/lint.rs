//! What is wrong with a matter package, for its designer: `tongban matter check`. What is an error here is refused everywhere.

use crate::case::{DATA_CHANGED, NO_ANSWER, PASSED_OVER, REFUSED_BY_OFFICER, RULE_FAILED};
use crate::package::{Basis, Listing, Package, REPEAT_MAX, Rule, Step, StepKind, alternatives};
use gateway::{Connector, ElementKind, Standard};
use model::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The package cannot be used.
    Error,
    /// It can be used, and somebody should look at it.
    Warning,
}

/// Something wrong with a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub path: String,
    /// The line, from 1; 0 where it is the whole file.
    pub line: usize,
    /// A stable word for the kind of problem.
    pub code: &'static str,
    /// What is wrong, with what to do about it.
    pub message: String,
}

/// What departments declare that a package can be held against.
#[derive(Default)]
pub struct Declared {
    elements: BTreeMap<FieldId, ElementKind>,
    resources: BTreeMap<ResourceId, Resource>,
    /// The parameters an operation takes, and what it returns.
    operations: BTreeMap<(DepartmentId, OperationId), (Vec<FieldId>, Vec<FieldId>)>,
    /// What undoes an operation.
    compensations: BTreeMap<(DepartmentId, OperationId), OperationId>,
}

impl Declared {
    /// What these files declare.
    pub fn of(standard: &Standard, connectors: &[Connector]) -> Self {
        let elements = standard.elements.iter().map(|(id, e)| (id.clone(), e.kind)).collect();
        let mut declared = Self { elements, ..Self::default() };
        for connector in connectors {
            declared.resources.extend(connector.resources.iter().map(|r| (r.id.clone(), r.clone())));
            let actions = connector.actions.iter().map(|a| {
                ((connector.department.clone(), a.id.clone()), (a.parameters.clone(), a.result.clone()))
            });
            declared.operations.extend(actions);
            let undone = |a: &gateway::Action| {
                let operation = (connector.department.clone(), a.id.clone());
                Some((operation, a.compensation.clone()?))
            };
            declared.compensations.extend(connector.actions.iter().filter_map(undone));
        }
        declared
    }
}

/// Words the engine itself says of decisions and settlements: a rule that took one would be read as something else.
const OWN_RESULTS: [&str; 9] = [
    "pass",
    "all_done",
    "handed_to_a_person",
    "consent_withdrawn",
    "not_resumed_in_time",
    REFUSED_BY_OFFICER,
    NO_ANSWER,
    RULE_FAILED,
    DATA_CHANGED,
];
/// The longest a consent may serve, in days, by the ledger's rules.
const CONSENT_DAYS_MAX: u32 = 180;
/// The longest condition, in bytes.
const RULE_BYTES_MAX: usize = 4096;
/// The most working days of a step: with holidays among them they are less than the thirty days the ledger takes.
const DAYS_MAX: u16 = 15;
/// The longest a case may be kept by its package: a hundred years.
const RETAIN_DAYS_MAX: u32 = 36_525;

struct Lint<'a> {
    file: &'a str,
    text: &'a str,
    package: &'a Package,
    /// The steps that come before each step, however far.
    before: BTreeMap<&'a StepId, BTreeSet<&'a StepId>>,
    problems: Vec<Problem>,
    /// What is read somewhere: `form.unit`, `deed.deed_no`.
    used: BTreeSet<String>,
}

/// Reads a package's text and lists what is wrong with it. Where departments' files are given, it is held against them too.
/// The package, with the copies of its repeated roles, where it can be read at all.
pub fn lint(file: &str, text: &str, declared: Option<&Declared>) -> (Option<Package>, Vec<Problem>) {
    let read: Result<Package, _> = serde_saphyr::from_str(text);
    let mut package = match read {
        Ok(package) => Package { text: text.to_owned(), ..package },
        Err(e) => {
            let line = e.location().map_or(0, |at| at.line() as usize);
            // its first line says what; the rest repeats the file
            let message = e.to_string().lines().next().unwrap_or_default().to_owned();
            let path = file.to_owned();
            let problem = Problem { severity: Severity::Error, path, line, code: "format", message };
            return (None, vec![problem]);
        }
    };
    let mut lint = Lint {
        file,
        text,
        package: &package,
        before: BTreeMap::new(),
        problems: Vec::new(),
        used: BTreeSet::new(),
    };
    if lint.order() {
        lint.whole();
        for step in &package.steps {
            lint.step(step);
        }
        lint.uses();
        if let Some(declared) = declared {
            lint.against(declared);
        }
    }
    let mut problems = lint.problems;
    let fit = problems.iter().all(|p| p.severity != Severity::Error);
    if fit {
        package.expand();
        let mut ids: BTreeSet<&str> = BTreeSet::new();
        let names = package.steps.iter().map(|s| s.id.as_str());
        let twice: Vec<_> = names.filter(|id| !ids.insert(id)).map(str::to_owned).collect();
        for id in twice {
            let message = format!("step {id} stands twice once repeated roles have their copies");
            let path = file.to_owned();
            problems.push(Problem { severity: Severity::Error, path, line: 0, code: "repeated", message });
        }
    }
    problems.sort_by_key(|p| (p.severity, p.line));
    (Some(package), problems)
}

/// The names with a dot in a CEL text, outside of its strings, as (name, member); and the names its macros bind.
fn members(text: &str) -> (Vec<(String, Option<String>)>, BTreeSet<String>) {
    let (mut found, mut bound) = (Vec::new(), BTreeSet::new());
    let chars: Vec<char> = text.chars().collect();
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        if c == '"' || c == '\'' {
            i += 1;
            while i < chars.len() && chars[i] != c {
                i += if chars[i] == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if c.is_ascii_alphabetic() || c == '_' {
            let mut path = vec![String::new()];
            while i < chars.len() && (chars[i].is_ascii_alphanumeric() || matches!(chars[i], '_' | '.')) {
                match chars[i] {
                    '.' => path.push(String::new()),
                    c => path.last_mut().expect("never empty").push(c),
                }
                i += 1;
            }
            let called = chars.get(i) == Some(&'(');
            let last = path.last().map(String::as_str).unwrap_or_default();
            if called && matches!(last, "exists" | "exists_one" | "all" | "filter" | "map") {
                let name: String = chars[i + 1..].iter().take_while(|c| **c != ',').collect();
                bound.insert(name.trim().to_owned());
                path.pop();
            } else if called {
                path.pop();
            }
            if let Some(first) = path.first().filter(|p| !p.is_empty()) {
                found.push((first.clone(), path.get(1).cloned()));
            }
        } else {
            i += 1;
        }
    }
    (found, bound)
}

impl<'a> Lint<'a> {
    fn put(&mut self, severity: Severity, at: &str, code: &'static str, message: String) {
        let line = if at.is_empty() { 0 } else { self.line_of(at) };
        self.problems.push(Problem { severity, path: self.file.to_owned(), line, code, message });
    }

    fn error(&mut self, at: &str, code: &'static str, message: String) {
        self.put(Severity::Error, at, code, message);
    }

    fn warn(&mut self, at: &str, code: &'static str, message: String) {
        self.put(Severity::Warning, at, code, message);
    }

    /// The line that begins what goes by this name.
    fn line_of(&self, name: &str) -> usize {
        let is = |line: &str| {
            ["id:", "result:", "from:", "when:"].iter().any(|key| {
                line.split_once(key).is_some_and(|(_, rest)| {
                    let rest = rest.trim_start().trim_start_matches(['\'', '"']);
                    rest.strip_prefix(name).is_some_and(|r| {
                        !r.starts_with(|c: char| c.is_ascii_alphanumeric() || "_-.".contains(c))
                    })
                })
            })
        };
        self.text.lines().position(is).map_or(0, |i| i + 1)
    }

    /// What comes before what. False where that cannot be told.
    fn order(&mut self) -> bool {
        let ids: Vec<_> = self.package.steps.iter().map(|s| &s.id).collect();
        for (i, step) in self.package.steps.iter().enumerate() {
            if ids[..i].contains(&&step.id) {
                self.error(step.id.as_str(), "repeated", format!("step {} stands twice", step.id));
            }
            for before in &step.after {
                let message = match ids.iter().position(|id| *id == before) {
                    None => (
                        "unknown_step",
                        format!("step {}: `after` names {before}, which is no step", step.id),
                    ),
                    Some(j) if j == i || (j > i && self.leads_to(&step.id, before)) => (
                        "cycle",
                        format!(
                            "step {}: `after` names {before}, which itself comes after {}",
                            step.id, step.id
                        ),
                    ),
                    Some(j) if j > i => (
                        "order",
                        format!(
                            "step {}: `after` names {before}, which stands further down; write it before",
                            step.id
                        ),
                    ),
                    _ => continue,
                };
                self.error(step.id.as_str(), message.0, message.1);
            }
        }
        if !self.problems.is_empty() {
            return false;
        }
        for step in &self.package.steps {
            let mut all: BTreeSet<&StepId> = step.after.iter().collect();
            all.extend(step.after.iter().flat_map(|b| self.before.get(b).into_iter().flatten().copied()));
            self.before.insert(&step.id, all);
        }
        true
    }

    /// Whether a step comes after another, by whatever way; for packages whose order is not right yet.
    fn leads_to(&self, from: &StepId, to: &StepId) -> bool {
        let (mut seen, mut next) = (BTreeSet::new(), vec![to]);
        while let Some(id) = next.pop() {
            if id == from {
                return true;
            }
            if seen.insert(id) {
                let step = self.package.steps.iter().find(|s| &s.id == id);
                next.extend(step.into_iter().flat_map(|s| &s.after));
            }
        }
        false
    }

    fn comes_before(&self, a: &StepId, b: &StepId) -> bool {
        self.before.get(b).is_some_and(|all| all.contains(a))
    }

    fn said(&mut self, at: &str, what: &str, text: &Text) {
        if text.zh.trim().is_empty() || text.en.trim().is_empty() {
            self.error(at, "missing_text", format!("{what} is not written in both Chinese and English"));
        }
    }

    /// What concerns the package as a whole.
    fn whole(&mut self) {
        let p = self.package;
        if p.format != 1 {
            self.error(
                "",
                "format",
                format!("format {} is not supported; this program reads format 1", p.format),
            );
        }
        self.said(p.id.as_str(), "the title", &p.title);
        if p.retain_days.is_some_and(|days| days > RETAIN_DAYS_MAX) {
            let message = format!(
                "`retain_days` is at most {RETAIN_DAYS_MAX}; without it cases are kept until an officer erases them"
            );
            self.error("", "retention", message);
        }
        if p.parties.is_empty() {
            self.error("", "incomplete", "a matter has at least one party".into());
        }
        let mut names: BTreeSet<&str> = BTreeSet::from(["form"]);
        let roles = p.parties.iter().map(|r| r.id.as_str());
        for name in roles.chain(p.steps.iter().map(|s| s.id.as_str())) {
            if !names.insert(name) {
                self.error(
                    name,
                    "repeated",
                    format!("`{name}` is the name of two things (parties and steps share their names)"),
                );
            }
        }
        for role in &p.parties {
            self.said(role.id.as_str(), &format!("the title of party {}", role.id), &role.title);
            if role.repeat > REPEAT_MAX {
                self.error(
                    role.id.as_str(),
                    "repeated",
                    format!("party {}: at most {REPEAT_MAX} of a role", role.id),
                );
            }
        }
        if p.parties.iter().all(|r| r.optional) && !p.parties.is_empty() {
            self.error("", "incomplete", "at least one party is not optional: somebody applies".into());
        }
        let mut fields = BTreeSet::new();
        for field in &p.form {
            self.said(field.id.as_str(), &format!("the title of field {}", field.id), &field.title);
            if !fields.insert(&field.id) {
                self.error(field.id.as_str(), "repeated", format!("form field {} stands twice", field.id));
            }
            for choice in &field.choices {
                self.said(
                    field.id.as_str(),
                    &format!("choice {} of field {}", choice.id, field.id),
                    &choice.title,
                );
            }
        }
        for name in &p.same {
            match p.form.iter().find(|f| &f.id == name) {
                Some(field) if !field.optional => {
                    self.used.insert(format!("form.{name}"));
                }
                _ => self.error(
                    "",
                    "unknown_reference",
                    format!("`same` names {name}, which is no required form field"),
                ),
            }
        }
        for condition in &p.eligibility {
            self.said(&condition.when, "what a condition says", &condition.says);
            self.cel(&condition.when, &condition.when, "a condition of the application", None);
        }
        for (id, statute) in &p.bases {
            self.said(id.as_str(), &format!("the statute of {id}"), statute);
            let rests = |s: &Step| matches!(&s.basis, Some(Basis::Statutory(of)) if of == id);
            if !p.steps.iter().any(rests) {
                self.warn(
                    "",
                    "over_collection",
                    format!("no step rests on the basis {id}; do not have it approved"),
                );
            }
        }
        for fee in &p.fees {
            self.said("", "a fee", &fee.title);
            self.said("", "a fee's basis", &fee.basis);
        }
        for output in &p.outputs {
            self.said(&output.from, "an output", &output.title);
            self.reference(&output.from, &format!("output `{}`", output.from), &output.from, None);
        }
        let pivots: Vec<_> = p.steps.iter().filter(|s| s.pivot).collect();
        match pivots[..] {
            [pivot] if pivot.kind != StepKind::Act || pivot.only_if.is_some() => {
                self.error(
                    pivot.id.as_str(),
                    "pivot",
                    format!("step {}: the pivot is an act that every case comes to", pivot.id),
                );
            }
            [_] => {}
            _ => self.error("", "pivot", "a matter has exactly one pivot".into()),
        }
    }

    fn step(&mut self, step: &'a Step) {
        let (p, at) = (self.package, step.id.as_str());
        self.said(at, &format!("the title of step {at}"), &step.title);
        let lacking: Vec<_> = match step.kind {
            StepKind::Identify | StepKind::Sign => vec![("party", step.party.is_none())],
            StepKind::Call => vec![
                ("party", step.party.is_none()),
                ("holder", step.holder.is_none()),
                ("resource", step.resource.is_none()),
                ("what", step.what.is_none()),
            ],
            StepKind::Decide => vec![("rules", step.rules.is_empty())],
            StepKind::Act => {
                vec![("performer", step.performer.is_none()), ("operation", step.operation.is_none())]
            }
        };
        for (name, _) in lacking.iter().filter(|(_, lacks)| *lacks) {
            self.error(at, "incomplete", format!("step {at}: a {} step needs `{name}`", step.kind.as_str()));
        }
        if step.kind == StepKind::Call && (step.basis.is_none() || step.purpose.is_none()) {
            self.error(
                at,
                "missing_basis",
                format!("step {at}: a call says on which `basis` and for what `purpose` it is made"),
            );
        }
        if let Some(Basis::Statutory(id)) = &step.basis
            && !p.bases.contains_key(id)
        {
            self.error(
                at,
                "missing_basis",
                format!("step {at} rests on `{id}`; cite the statute under `bases`"),
            );
        }
        let waits = matches!(step.kind, StepKind::Call | StepKind::Act);
        let time = (step.within_hours, step.within_days);
        if !matches!(
            (waits, time),
            (_, (None, None)) | (true, (Some(1..=720), None) | (None, Some(1..=DAYS_MAX)))
        ) {
            let message = format!(
                "step {at}: a call or act has `within_hours`, 1 to 720, or `within_days`, 1 to {DAYS_MAX} working days"
            );
            self.error(at, "deadline", message);
        }
        match step.subscribe_days {
            Some(days) => self.subscribable(step, days),
            None if step.subscribe_after_end => {
                let message =
                    format!("step {at}: `subscribe_after_end` says nothing without `subscribe_days`");
                self.error(at, "subscription", message);
            }
            None => {}
        }
        if let Some(listing) = &step.list {
            self.listing(step, listing);
        }
        if let Some(purpose) = &step.purpose {
            self.said(at, &format!("the purpose of step {at}"), purpose);
        }
        if let Some(role) = &step.party {
            if !p.parties.iter().any(|r| &r.id == role) {
                self.error(at, "unknown_party", format!("step {at}: there is no party {role}"));
            }
            self.comes_in_time(step, role);
        }
        let consents = |s: &&Step| s.party == step.party && matches!(s.basis, Some(Basis::Consent));
        if step.kind == StepKind::Sign && !p.steps.iter().any(|s| consents(&s)) {
            self.error(
                at,
                "nothing_to_sign",
                format!("step {at}: no call rests on this party's consent, so that there is nothing to sign"),
            );
        }
        for (name, from) in &step.parameters {
            self.reference(at, &format!("step {at}: parameter {name}"), from, Some(step));
        }
        if let Some(from) = &step.subject {
            self.reference(at, &format!("step {at}: its subject"), from, Some(step));
        }
        if let Some(when) = &step.only_if {
            let read = self.cel(at, when, &format!("step {at}: `only_if`"), Some(step));
            if read == Some(0) {
                self.error(
                    at,
                    "unreachable",
                    format!("step {at}: `only_if` reads nothing, so that the step is always or never taken"),
                );
            }
        }
        for (i, rule) in step.rules.iter().enumerate() {
            self.rule(step, rule);
            let result = rule.result.as_str();
            if step.rules[..i].iter().any(|r| r.result == rule.result) {
                let message = format!(
                    "step {at}: two rules come out as {result}; what follows is looked up by that word"
                );
                self.error(result, "repeated", message);
            }
            if OWN_RESULTS.contains(&result) || result.starts_with(PASSED_OVER) {
                self.error(
                    result,
                    "wrong_outcome",
                    format!("step {at}: `{result}` is a word of the engine's own; call the result otherwise"),
                );
            }
        }
        self.saga(step);
    }

    /// Nobody's data moves before they are identified, and none on their consent before they gave it.
    fn comes_in_time(&mut self, step: &Step, role: &RoleId) {
        let at = step.id.as_str();
        let earlier = |kind: StepKind| {
            let of = |s: &&Step| s.kind == kind && s.party.as_ref() == Some(role);
            self.package.steps.iter().filter(of).any(|s| self.comes_before(&s.id, &step.id))
        };
        let (identified, signed) = (earlier(StepKind::Identify), earlier(StepKind::Sign));
        if step.kind != StepKind::Identify && !identified {
            self.error(
                at,
                "unidentified",
                format!("step {at} comes before {role} is identified; let it come after that step"),
            );
        }
        if matches!(step.basis, Some(Basis::Consent)) && !signed {
            self.error(
                at,
                "unsigned",
                format!("step {at} rests on the consent of {role} and comes before it is signed"),
            );
        }
    }

    /// Only a call on consent or a statutory duty may be kept up to date, and no longer than what it rests on can last.
    fn subscribable(&mut self, step: &Step, days: u32) {
        let (at, most) = match step.basis {
            Some(Basis::Consent) => (step.id.as_str(), CONSENT_DAYS_MAX),
            Some(Basis::Statutory(_)) => (step.id.as_str(), SUBSCRIPTION_DAYS_MAX),
            Some(Basis::SelfAccess) | None => (step.id.as_str(), 0),
        };
        if step.kind != StepKind::Call || most == 0 {
            let message =
                format!("step {at}: `subscribe_days` is for a call on consent or a statutory basis");
            self.error(at, "subscription", message);
        } else if !(1..=most).contains(&days) {
            self.error(at, "subscription", format!("step {at}: `subscribe_days` is 1 to {most} here"));
        }
    }

    /// Only what the handler asks of another department's is asked by lists.
    fn listing(&mut self, step: &Step, listing: &Listing) {
        let at = step.id.as_str();
        if step.kind != StepKind::Call || matches!(step.basis, Some(Basis::SelfAccess) | None) {
            let message = format!("step {at}: `list` is for a call on consent or a statutory basis");
            self.error(at, "list", message);
        } else if step.subscribe_days.is_some() {
            let message = format!(
                "step {at}: what is asked by lists cannot be subscribed to; a change would be asked outside of them"
            );
            self.error(at, "list", message);
        } else if !(1..=7 * 24 * 60).contains(&listing.every_minutes) {
            self.error(at, "list", format!("step {at}: `every_minutes` of `list` is 1 to 10080, seven days"));
        } else if !(1..=LIST_CASES_MAX as u32).contains(&listing.most) {
            self.error(at, "list", format!("step {at}: `most` of `list` is 1 to {LIST_CASES_MAX}"));
        }
    }

    fn rule(&mut self, step: &'a Step, rule: &Rule) {
        let (at, name) = (rule.result.as_str(), format!("step {}: rule {}", step.id, rule.result));
        self.cel(at, &rule.when, &name, Some(step));
        if rule.ground.zh.trim().is_empty() || rule.ground.en.trim().is_empty() {
            self.error(at, "missing_basis", format!("{name}: its `ground` is not written in both languages"));
        }
        match rule.outcome {
            CaseOutcome::Refused if self.package.appeal(rule).is_none() => {
                self.error(at, "no_appeal", format!("{name} refuses and does not say how to appeal; write `appeal` here or for the package"));
            }
            CaseOutcome::Refused | CaseOutcome::Parked | CaseOutcome::NeedsHuman => {}
            other => self.error(
                at,
                "wrong_outcome",
                format!("{name}: an outcome is refused, parked or needs_human, and not {}", other.as_str()),
            ),
        }
        if rule.may_pass && rule.outcome != CaseOutcome::NeedsHuman {
            self.error(
                at,
                "wrong_outcome",
                format!("{name}: only where the outcome is needs_human may an officer let the case pass"),
            );
        }
    }

    /// What is done before the pivot must be undone when the case ends there; what comes after must not undo it.
    fn saga(&mut self, step: &Step) {
        let Some(pivot) = self.package.steps.iter().find(|s| s.pivot) else { return };
        let (at, after) = (step.id.as_str(), self.comes_before(&pivot.id, &step.id));
        let before = step.kind == StepKind::Act && !after && !step.pivot;
        match &step.undo {
            None if before => self.error(
                at,
                "missing_compensation",
                format!(
                    "step {at} writes before the pivot {} and nothing undoes it; declare `undo`, or let it come after",
                    pivot.id
                ),
            ),
            Some(_) if !before => self.error(
                at,
                "undoes_pivot",
                format!("step {at}: only an act before the pivot {} is undone", pivot.id),
            ),
            Some(undo) => {
                self.said(at, &format!("the title of what undoes step {at}"), &undo.title);
                for (name, from) in &undo.parameters {
                    let what = format!("step {at}: parameter {name} of its `undo`");
                    // what the act itself returned is known by then
                    if alternatives(from).count() != from.split('|').count() {
                        self.reference(at, &what, from, None);
                    } else {
                        for (group, name) in alternatives(from) {
                            self.named(at, &what, group, Some(name), (group != at).then_some(step));
                        }
                    }
                }
                let taken = crate::package::undoing(&step.id);
                if taken == step.id || self.package.step(&taken).is_some() {
                    let message = format!("step {at}: what undoes it would be called {taken}; rename one");
                    self.error(at, "duplicate", message);
                }
            }
            None => {}
        }
        if after && step.rules.iter().any(|r| r.outcome == CaseOutcome::Refused) {
            self.error(
                at,
                "undoes_pivot",
                format!("step {at} comes after the pivot {} and refuses the case", pivot.id),
            );
        }
        if !after && !step.pivot && !self.comes_before(&step.id, &pivot.id) {
            self.warn(
                at,
                "not_awaited",
                format!("the pivot {} does not wait for step {at}, and nothing after it uses it", pivot.id),
            );
        }
    }

    /// A reference of the form `group.name`: does what it names come before?
    fn reference(&mut self, at: &str, what: &str, from: &str, step: Option<&Step>) {
        let count = alternatives(from).count();
        if count == 0 || count != from.split('|').count() {
            self.error(
                at,
                "unknown_reference",
                format!("{what}: `{from}` is no reference like form.unit or deed.number"),
            );
        }
        for (group, name) in alternatives(from) {
            self.named(at, what, group, Some(name), step);
        }
    }

    fn named(&mut self, at: &str, what: &str, group: &str, name: Option<&str>, step: Option<&Step>) {
        let p = self.package;
        self.used.insert(name.map_or(group.to_owned(), |n| format!("{group}.{n}")));
        if group == "form" {
            if !name.is_some_and(|n| p.form.iter().any(|f| f.id.as_str() == n)) {
                self.error(
                    at,
                    "unknown_reference",
                    format!("{what} reads form.{}, which is no field of the form", name.unwrap_or_default()),
                );
            }
        } else if let Some(role) = p.parties.iter().find(|r| r.id.as_str() == group) {
            if role.repeat <= 1 && !matches!(name, Some("id" | "name" | "age" | "born")) {
                self.error(
                    at,
                    "unknown_reference",
                    format!("{what}: of party {group} there are id, name, born and age"),
                );
            }
        } else if let Some(source) = p.steps.iter().find(|s| s.id.as_str() == group) {
            let repeated =
                source.party.as_ref().is_some_and(|r| p.parties.iter().any(|x| &x.id == r && x.repeat > 1));
            let names: Vec<_> = source.what.iter().flat_map(What::names).collect();
            let has = |n: &str| source.kind == StepKind::Act || names.iter().any(|x| x.as_str() == n);
            if !matches!(source.kind, StepKind::Call | StepKind::Act) {
                self.error(at, "unknown_reference", format!("{what}: step {group} gives no values"));
            } else if let Some(n) = name.filter(|n| !repeated && !has(n)) {
                self.error(at, "unknown_reference", format!("{what}: step {group} does not ask for {n}"));
            }
            if let Some(step) = step.filter(|s| !self.comes_before(&source.id, &s.id)) {
                self.error(
                    at,
                    "not_before",
                    format!("{what} reads step {group}; let {} come after it", step.id),
                );
            }
        } else {
            self.error(at, "unknown_reference", format!("{what}: there is no `{group}`"));
        }
    }

    /// A condition in CEL; how many names it reads, where it can be read.
    fn cel(&mut self, at: &str, text: &str, what: &str, step: Option<&Step>) -> Option<usize> {
        if text.len() > RULE_BYTES_MAX {
            self.error(at, "rule_invalid", format!("{what} is longer than {RULE_BYTES_MAX} bytes"));
            return None;
        }
        if let Err(wrong) = crate::package::check_cel(text) {
            self.error(at, "rule_invalid", format!("{what} cannot be read: {wrong}"));
            return None;
        }
        let (found, bound) = members(text);
        let mut read = 0;
        for (group, name) in &found {
            if bound.contains(group) {
                // one of a list: whichever list it is, its member is read
                self.used.extend(name.iter().map(|n| format!("*.{n}")));
            } else if !matches!(group.as_str(), "true" | "false" | "null" | "in" | "size" | "int" | "has") {
                read += 1;
                self.named(at, what, group, name.as_deref(), step);
            }
        }
        Some(read)
    }

    /// Nothing is asked for that nobody uses.
    fn uses(&mut self) {
        let p = self.package;
        let used = |group: &str, name: &FieldId| {
            self.used.contains(&format!("{group}.{name}")) || self.used.contains(&format!("*.{name}"))
        };
        let mut unused = Vec::new();
        for field in p.form.iter().filter(|f| !used("form", &f.id)) {
            let message =
                format!("form field {} is used by no step, rule or output; do not ask for it", field.id);
            unused.push((field.id.to_string(), message));
        }
        // what a party reads of their own is shown to them
        let calls = p
            .steps
            .iter()
            .filter(|s| s.kind == StepKind::Call && !matches!(s.basis, Some(Basis::SelfAccess)));
        for step in calls {
            for name in step.what.iter().flat_map(What::names).filter(|n| !used(step.id.as_str(), n)) {
                let message = format!(
                    "step {}: {name} is used by no rule, parameter or output; do not ask for it",
                    step.id
                );
                unused.push((step.id.to_string(), message));
            }
        }
        for (at, message) in unused {
            self.warn(&at, "over_collection", message);
        }
    }

    /// Held against what departments declare.
    fn against(&mut self, declared: &Declared) {
        let p = self.package;
        for field in &p.form {
            let at = field.id.as_str();
            if !declared.elements.contains_key(&field.element) {
                self.error(
                    at,
                    "unknown_element",
                    format!("form field {at}: the standard has no element {}", field.element),
                );
            }
            // what a look-up goes by has to be said
            let reference = format!("form.{at}");
            let mut keys = p
                .steps
                .iter()
                .filter(|s| s.kind == StepKind::Call)
                .flat_map(|s| s.parameters.values().chain(&s.subject));
            if keys.any(|key| *key == reference) {
                continue;
            }
            let known = declared
                .resources
                .values()
                .filter(|r| r.subject == SubjectKind::Person)
                .find(|r| r.fields.iter().any(|f| f.element == field.element));
            if let Some(resource) = known {
                self.warn(
                    at,
                    "citizen_asked",
                    format!(
                        "form field {at}: {} already has {}; call it in place of asking",
                        resource.id, field.element
                    ),
                );
            }
        }
        for step in &p.steps {
            let at = step.id.as_str();
            if let (Some(id), Some(holder), Some(what)) = (&step.resource, &step.holder, &step.what) {
                match declared.resources.get(id) {
                    None => self.error(
                        at,
                        "unknown_resource",
                        format!("step {at}: nobody declares the resource {id}"),
                    ),
                    Some(resource) if &resource.holder != holder => {
                        self.error(
                            at,
                            "wrong_holder",
                            format!("step {at}: {id} is held by {}", resource.holder),
                        );
                    }
                    Some(resource) => {
                        let field = |n: &FieldId| resource.fields.iter().any(|f| &f.id == n);
                        let question = |n: &FieldId| resource.predicates.iter().any(|f| &f.id == n);
                        let lacks = |n: &&FieldId| match what {
                            What::Fields(_) => !field(n),
                            What::Predicate(_) => !question(n),
                        };
                        for name in what.names().iter().filter(lacks) {
                            self.error(at, "unknown_name", format!("step {at}: {id} does not have {name}"));
                        }
                    }
                }
            }
            if let (Some(performer), Some(undo)) = (&step.performer, &step.undo) {
                let parameters = if undo.parameters.is_empty() { &step.parameters } else { &undo.parameters };
                match declared.operations.get(&(performer.clone(), undo.operation.clone())) {
                    None => self.error(
                        at,
                        "unknown_operation",
                        format!("step {at}: {performer} declares no action {} to undo it by", undo.operation),
                    ),
                    Some((wanted, _)) => {
                        for name in wanted.iter().filter(|n| !parameters.contains_key(*n)) {
                            let message = format!(
                                "step {at}: {} of {performer} wants the parameter {name}",
                                undo.operation
                            );
                            self.error(at, "incomplete", message);
                        }
                    }
                }
                let own = step.operation.as_ref().map(|o| (performer.clone(), o.clone()));
                let compensation = own.and_then(|o| declared.compensations.get(&o));
                if compensation.is_some_and(|c| *c != undo.operation) {
                    let message =
                        format!("step {at}: {performer} undoes it by another action than {}", undo.operation);
                    self.error(at, "wrong_compensation", message);
                }
            }
            if let (Some(performer), Some(operation)) = (&step.performer, &step.operation) {
                match declared.operations.get(&(performer.clone(), operation.clone())) {
                    None => self.error(
                        at,
                        "unknown_operation",
                        format!("step {at}: {performer} declares no action {operation}"),
                    ),
                    Some((parameters, returned)) => {
                        for name in parameters.iter().filter(|n| !step.parameters.contains_key(*n)) {
                            self.error(
                                at,
                                "incomplete",
                                format!("step {at}: {operation} of {performer} wants the parameter {name}"),
                            );
                        }
                        let reads: Vec<_> = self
                            .used
                            .iter()
                            .filter_map(|u| u.strip_prefix(&format!("{at}.")))
                            .map(str::to_owned)
                            .collect();
                        for name in
                            reads.iter().filter(|n| !returned.iter().any(|r| r.as_str() == n.as_str()))
                        {
                            self.error(
                                at,
                                "unknown_reference",
                                format!("step {at}: {operation} of {performer} does not return {name}"),
                            );
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "lint_tests.rs"]
mod tests;
