//! Matter packages: a service as a folder of declared files.

use model::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, RwLock},
};

/// The references of a text like `form.unit` or `one.name | other.name`, each as (group, name).
pub(crate) fn alternatives(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('|').filter_map(|one| one.trim().split_once('.'))
}

/// How many of one role a case may have.
pub(crate) const REPEAT_MAX: u8 = 9;

/// The k-th of a repeated name: `founder`, `founder_2`.
fn numbered<T: Clone + std::fmt::Display + std::str::FromStr>(id: &T, k: u8) -> T {
    if k == 1 {
        return id.clone();
    }
    // a name too long for its number stays as it is, and is found out as one that stands twice
    format!("{id}_{k}").parse().unwrap_or_else(|_| id.clone())
}

/// A matter package, format 1.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// The format: 1.
    pub format: u32,
    /// The matter.
    pub id: MatterId,
    /// The version.
    pub version: u32,
    /// What people call it.
    pub title: Text,
    /// What it does for whom, in a sentence or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Text>,
    /// The department that handles its cases.
    pub handler: DepartmentId,
    /// What must hold of the form and the parties for an application to be taken, in CEL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub eligibility: Vec<Eligibility>,
    /// The parties' roles.
    pub parties: Vec<PartyRole>,
    /// What the applicant fills in.
    pub form: Vec<FormField>,
    /// The form fields that make two applications the same.
    pub same: Vec<FieldId>,
    /// What it costs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fees: Vec<Fee>,
    /// What the applicant has in the end, as the departments returned it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Output>,
    /// The statutes its calls rest on, by the name steps refer to them with; the holders approve each beforehand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bases: BTreeMap<ApprovalId, Text>,
    /// How a refusal can be appealed, where the rule that refuses says nothing of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appeal: Option<Text>,
    /// After how many days from its end a case's form, answers and reasons are erased at its handler; without it they are kept until
    /// an officer erases them. Whoever consents reads it (PIPL 17, 19).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_days: Option<u32>,
    /// The graph.
    pub steps: Vec<Step>,
    /// The file's text: what is published is named by it, whatever a later program reads out of it.
    #[serde(skip)]
    pub text: String,
}

/// A condition of an application.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Eligibility {
    /// The condition, in CEL over `form` and the parties: `legal.age >= 18`.
    pub when: String,
    /// What the applicant is told where it does not hold.
    pub says: Text,
}

/// A role and its title.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartyRole {
    /// The role.
    pub id: RoleId,
    /// What people call it.
    pub title: Text,
    /// Whether a case may do without; steps about a party that is not there are skipped.
    #[serde(default, skip_serializing_if = "is_default")]
    pub optional: bool,
    /// How many there may be, at most nine: `founder`, `founder_2`, `founder_3`. Every step about the role is there for each of
    /// them; rules see such a step, and the role, as a list of those that are there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub repeat: u8,
    /// The role of the file this is one of, where it is repeated.
    #[serde(skip)]
    pub of: Option<RoleId>,
}

/// A field of the form.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FormField {
    /// Its name.
    pub id: FieldId,
    /// Its data element: says what its values are.
    pub element: FieldId,
    /// What people call it.
    pub title: Text,
    /// Whether it may be left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub optional: bool,
    /// The values to choose from, where only these are taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
    /// A word of help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<Text>,
}

/// A value to choose.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The value.
    pub id: FieldId,
    /// What people call it.
    pub title: Text,
}

/// What something costs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fee {
    /// What it is for.
    pub title: Text,
    /// How much, in fen; 0: nothing.
    pub fen: u64,
    /// Who is paid.
    pub payee: DepartmentId,
    /// The rule it is charged under.
    pub basis: Text,
}

/// A value the applicant has in the end.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// What people call it.
    pub title: Text,
    /// Which: `licence.credit_code`.
    pub from: String,
}

/// A step of the graph.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name.
    pub id: StepId,
    /// What people call it.
    pub title: Text,
    /// The steps that must be done before.
    #[serde(default)]
    pub after: Vec<StepId>,
    /// What it is.
    pub kind: StepKind,
    /// Where this is false, the step is skipped; CEL over what is known when the steps before it are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_if: Option<String>,
    /// The party concerned (identify, sign, call).
    #[serde(default)]
    pub party: Option<RoleId>,
    /// A reference to the subject, where it is not the party: `form.unit`.
    #[serde(default)]
    pub subject: Option<String>,
    /// Who answers (call).
    #[serde(default)]
    pub holder: Option<DepartmentId>,
    /// The resource asked (call).
    #[serde(default)]
    pub resource: Option<ResourceId>,
    /// What is asked (call).
    #[serde(default)]
    pub what: Option<What>,
    /// Why it is lawful (call).
    #[serde(default)]
    pub basis: Option<Basis>,
    /// What it is for (call).
    #[serde(default)]
    pub purpose: Option<Text>,
    /// Named references: `form.unit`, `seller.name`, `deed.deed_no`; of several with `|` between them, the first that is there.
    #[serde(default)]
    pub parameters: BTreeMap<FieldId, String>,
    /// The rules of a decision; the first that holds decides, none means pass.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Who performs (act).
    #[serde(default)]
    pub performer: Option<DepartmentId>,
    /// The declared operation (act).
    #[serde(default)]
    pub operation: Option<OperationId>,
    /// Whether the case cannot go back after this.
    #[serde(default)]
    pub pivot: bool,
    /// What undoes it where the case ends before the pivot (act).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoBy>,
    /// How many hours the holder or performer has (call, act); 72 where neither these nor working days are said.
    #[serde(default)]
    pub within_hours: Option<u32>,
    /// How many working days they have, by the consortium's calendar, the day of the request not counted (call, act): 15 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_days: Option<u16>,
    /// For how many days the handler is told that the answer has changed, and asks for it again (call).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscribe_days: Option<u32>,
    /// Whether also after the case's end; else it ends with the case (call).
    #[serde(default, skip_serializing_if = "is_default")]
    pub subscribe_after_end: bool,
    /// Asked together with the same step of other cases, by lists its holder agrees to (call).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<Listing>,
    /// The step of the file this is one of, where its party is repeated.
    #[serde(skip)]
    pub of: Option<StepId>,
    /// The act that this step undoes: such a step is in no file, and is taken only where a case ends before its pivot.
    #[serde(skip)]
    pub undoes: Option<StepId>,
}

/// When the cases that wait for a call are put in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    /// After the first of them has waited so long, in minutes: at most seven days.
    pub every_minutes: u32,
    /// As soon as so many wait, and never more in one list: 500 at most, 200 where it is not said.
    #[serde(default = "two_hundred")]
    pub most: u32,
}

fn two_hundred() -> u32 {
    200
}

/// A compensation: an action of the same department.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UndoBy {
    /// The declared operation.
    pub operation: OperationId,
    /// As of a step, and what the act returned: `reserve.serial`. Without any, those of the act.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<FieldId, String>,
    /// What people call it.
    pub title: Text,
}

impl Step {
    /// The step that undoes this one.
    fn undoing(&self) -> Option<Self> {
        let undo = self.undo.clone()?;
        let parameters = if undo.parameters.is_empty() { self.parameters.clone() } else { undo.parameters };
        Some(Self {
            id: undoing(&self.id),
            title: undo.title,
            after: vec![self.id.clone()],
            operation: Some(undo.operation),
            parameters,
            undo: None,
            only_if: None,
            of: None,
            undoes: Some(self.id.clone()),
            ..self.clone()
        })
    }
}

/// The name of the step that undoes another.
pub(crate) fn undoing(act: &StepId) -> StepId {
    // a name too long for this stays as it is, and is found out as one that stands twice
    format!("undo_{act}").parse().unwrap_or_else(|_| act.clone())
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Establish who a party is.
    Identify,
    /// A party signs their consent.
    Sign,
    /// A call for data or a yes/no.
    Call,
    /// A decision by rules over what was opened.
    Decide,
    /// A declared write in a department's own system.
    Act,
}

impl StepKind {
    /// The word used in APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Sign => "sign",
            Self::Call => "call",
            Self::Decide => "decide",
            Self::Act => "act",
        }
    }
}

/// Why a call is lawful, as packages write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The party's consent.
    Consent,
    /// An approved statutory basis.
    Statutory(ApprovalId),
    /// The party's own access.
    SelfAccess,
}

/// A rule of a decision, in CEL over what was opened: `seizure.seized != "no"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The condition.
    pub when: String,
    /// The result's code.
    pub result: Code,
    /// What becomes of the case.
    pub outcome: CaseOutcome,
    /// The legal ground, as people read it.
    pub ground: Text,
    /// Whether an officer who looked into it may let the case pass this rule, with a reason.
    #[serde(default, skip_serializing_if = "is_default")]
    pub may_pass: bool,
    /// How it can be appealed, where it is not as the package says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appeal: Option<Text>,
}

/// Why a package cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {message}")]
pub struct PackageError {
    /// The file.
    pub file: String,
    /// What is wrong.
    pub message: String,
}

impl Package {
    /// The JSON Schema of a package file (draft 2020-12), for editors.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// Reads `matter.yaml` of a package folder.
    pub fn read(dir: &Path) -> Result<Self, PackageError> {
        let path = dir.join("matter.yaml");
        let file = path.display().to_string();
        let text = std::fs::read_to_string(&path)
            .map_err(|e| PackageError { file: file.clone(), message: e.to_string() })?;
        Self::parse(&file, &text)
    }

    /// Reads a package's text and checks what the engine relies on: nothing of it may be an error to [`crate::lint()`].
    pub fn parse(file: &str, text: &str) -> Result<Self, PackageError> {
        let (package, problems) = crate::lint::lint(file, text, None);
        match problems.into_iter().find(|p| p.severity == crate::lint::Severity::Error) {
            Some(problem) => {
                let message = format!("line {}: {}", problem.line, problem.message);
                Err(PackageError { file: file.to_owned(), message })
            }
            None => package.ok_or_else(|| PackageError { file: file.to_owned(), message: "empty".into() }),
        }
    }

    /// Gives every repeated role and each of its steps their copies: `founder`, `founder_2`, …
    pub(crate) fn expand(&mut self) {
        let counts: BTreeMap<RoleId, u8> = self.parties.iter().map(|p| (p.id.clone(), p.repeat)).collect();
        let count = |step: &Step| step.party.as_ref().and_then(|r| counts.get(r)).map_or(1, |n| (*n).max(1));
        let copies: BTreeMap<StepId, (Option<RoleId>, u8)> =
            self.steps.iter().map(|s| (s.id.clone(), (s.party.clone(), count(s)))).collect();
        let mut parties = Vec::new();
        for party in std::mem::take(&mut self.parties) {
            let several = party.repeat > 1;
            for k in 1..=party.repeat.max(1) {
                let mut copy = party.clone();
                copy.id = numbered(&party.id, k);
                copy.optional |= k > 1;
                copy.of = several.then(|| party.id.clone());
                if k > 1 {
                    copy.title.zh = format!("{}（{k}）", party.title.zh);
                    copy.title.en = format!("{} {k}", party.title.en);
                }
                parties.push(copy);
            }
        }
        let mut steps = Vec::new();
        for step in std::mem::take(&mut self.steps) {
            let several = count(&step) > 1;
            for k in 1..=count(&step) {
                let mut copy = step.clone();
                copy.id = numbered(&step.id, k);
                copy.of = several.then(|| step.id.clone());
                let ours = step.party.as_ref().filter(|_| several);
                copy.party = step.party.as_ref().map(|r| numbered(r, if several { k } else { 1 }));
                let of_copy = |reference: &String| {
                    let one = |(group, name): (&str, &str)| match ours {
                        // what this very copy returned
                        _ if several && group == step.id.as_str() => {
                            format!("{}.{name}", numbered(&step.id, k))
                        }
                        Some(role) if group == role.as_str() => format!("{}.{name}", numbered(role, k)),
                        _ => format!("{group}.{name}"),
                    };
                    alternatives(reference).map(one).collect::<Vec<_>>().join(" | ")
                };
                copy.subject = step.subject.as_ref().map(of_copy);
                let renamed = |parameters: &BTreeMap<FieldId, String>| {
                    parameters.iter().map(|(n, from)| (n.clone(), of_copy(from))).collect()
                };
                copy.parameters = renamed(&step.parameters);
                if let Some(undo) = &mut copy.undo {
                    undo.parameters = renamed(&undo.parameters);
                }
                copy.after = step
                    .after
                    .iter()
                    .flat_map(|before| match copies.get(before) {
                        Some((role, _)) if several && role.as_ref() == ours => vec![numbered(before, k)],
                        Some((_, n)) => (1..=*n).map(|i| numbered(before, i)).collect(),
                        None => vec![before.clone()],
                    })
                    .collect();
                if k > 1 {
                    copy.title.zh = format!("{}（{k}）", step.title.zh);
                    copy.title.en = format!("{} ({k})", step.title.en);
                }
                let undoing = copy.undoing();
                steps.push(copy);
                steps.extend(undoing);
            }
        }
        (self.parties, self.steps) = (parties, steps);
    }

    /// The step no case goes back after; the package was checked to have it.
    pub fn pivot(&self) -> &Step {
        self.steps.iter().find(|s| s.pivot).expect("a checked package has a pivot")
    }

    /// Whether a condition can be told from the application alone: the form and the parties.
    pub(crate) fn is_known_from_start(&self, when: &str) -> bool {
        let given = |name: &String| {
            let role = |p: &PartyRole| p.of.as_ref().unwrap_or(&p.id).as_str() == name;
            name == "form" || self.parties.iter().any(role)
        };
        Self::names_read(when).iter().all(given)
    }

    /// What a rule reads, in CEL's own words: the names before the first dot.
    pub(crate) fn names_read(text: &str) -> Vec<String> {
        let Ok(program) = cel::Program::compile(text) else { return Vec::new() };
        program.references().variables().into_iter().map(str::to_owned).collect()
    }

    /// How a refusal by a rule can be appealed.
    pub fn appeal<'a>(&'a self, rule: &'a Rule) -> Option<&'a Text> {
        rule.appeal.as_ref().or(self.appeal.as_ref())
    }

    /// The call steps whose answers a rule reads.
    pub fn calls_read_by(&self, rule: &Rule) -> Vec<StepId> {
        let names = Self::names_read(&rule.when);
        let named = |s: &Step| names.iter().any(|n| n == s.of.as_ref().unwrap_or(&s.id).as_str());
        let read = |s: &&Step| s.kind == StepKind::Call && named(s);
        self.steps.iter().filter(read).map(|s| s.id.clone()).collect()
    }

    /// A step by its name.
    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.steps.iter().find(|s| &s.id == id)
    }

    /// The hash that names this package on the ledger: of the file, byte for byte.
    pub fn hash(&self, suite: Suite) -> Digest {
        crypto::hash(suite, "tongban/package/1", &[self.text.as_bytes()])
    }

    /// The command that publishes it on a ledger of a suite.
    pub fn publication(&self, suite: Suite) -> PublishMatter {
        let needs = self.steps.iter().filter(|s| s.kind == StepKind::Call).map(|s| self.need(s)).collect();
        let actions = self
            .steps
            .iter()
            .filter(|s| s.kind == StepKind::Act)
            .filter_map(|s| Some((s.id.clone(), s.performer.clone()?, s.operation.clone()?)))
            .collect();
        PublishMatter {
            id: self.id.clone(),
            version: self.version,
            title: self.title.clone(),
            package: self.hash(suite),
            needs,
            actions,
        }
    }

    /// The command that declares which of its answers may be subscribed to, where any may.
    pub fn subscribable(&self) -> Option<DeclareSubscriptions> {
        let of = |s: &Step| {
            let (step, after_end) = (s.id.clone(), s.subscribe_after_end);
            Some(Subscribable { step, days: s.subscribe_days?, after_end })
        };
        let steps: Vec<_> = self.steps.iter().filter_map(of).collect();
        (!steps.is_empty()).then(|| DeclareSubscriptions {
            matter: self.id.clone(),
            version: self.version,
            steps,
        })
    }

    /// The command that declares which of its acts are undone, where any are.
    pub fn undone(&self) -> Option<DeclareUndo> {
        let pair = |s: &Step| Some(Undo { act: s.undoes.clone()?, by: s.id.clone() });
        let acts: Vec<_> = self.steps.iter().filter_map(pair).collect();
        (!acts.is_empty()).then(|| DeclareUndo { matter: self.id.clone(), version: self.version, acts })
    }

    /// The command that declares which of its calls are asked by lists, where any are.
    pub fn listed(&self) -> Option<DeclareListed> {
        let steps: Vec<_> = self.steps.iter().filter(|s| s.list.is_some()).map(|s| s.id.clone()).collect();
        (!steps.is_empty()).then(|| DeclareListed { matter: self.id.clone(), version: self.version, steps })
    }

    /// The commands that have to follow its publication, before the first case.
    pub fn declarations(&self) -> Vec<Body> {
        let subscribable = self.subscribable().map(Body::DeclareSubscriptions);
        let undone = self.undone().map(Body::DeclareUndo);
        subscribable.into_iter().chain(undone).chain(self.listed().map(Body::DeclareListed)).collect()
    }

    /// The data need of a call step; the package was checked to have its parts.
    pub fn need(&self, step: &Step) -> Need {
        let complete = "a call step of a checked package is complete";
        Need {
            step: step.id.clone(),
            party: step.party.clone().expect(complete),
            recipient: self.handler.clone(),
            holder: step.holder.clone().expect(complete),
            resource: step.resource.clone().expect(complete),
            what: step.what.clone().expect(complete),
            basis: match step.basis.as_ref().expect(complete) {
                Basis::Consent => NeedBasis::Consent,
                Basis::Statutory(id) => NeedBasis::Statutory(id.clone()),
                Basis::SelfAccess => NeedBasis::SelfAccess,
            },
            purpose: step.purpose.clone().expect(complete),
        }
    }
}

/// The packages a node handles: a case runs the version it started with, so none is ever dropped.
#[derive(Default)]
pub(crate) struct Packages(RwLock<BTreeMap<(MatterId, u32), Arc<Package>>>);

impl Packages {
    pub(crate) fn put(&self, package: Package) {
        let mut all = self.0.write().expect("no holder of this lock panics");
        all.insert((package.id.clone(), package.version), Arc::new(package));
    }

    pub(crate) fn get(&self, matter: &(MatterId, u32)) -> Option<Arc<Package>> {
        self.0.read().expect("no holder of this lock panics").get(matter).cloned()
    }

    /// The newest version of every matter, by name.
    pub(crate) fn newest(&self) -> Vec<Arc<Package>> {
        let all = self.0.read().expect("no holder of this lock panics");
        let newest: BTreeMap<_, _> = all.iter().map(|((id, _), package)| (id, package)).collect();
        newest.into_values().cloned().collect()
    }
}

/// What rules may call (CEL's own).
const FUNCTIONS: [&str; 18] = [
    "all",
    "contains",
    "double",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "has",
    "int",
    "map",
    "matches",
    "max",
    "min",
    "size",
    "startsWith",
    "string",
    "uint",
    "bytes",
];

/// Whether a text is CEL and calls what there is; says what is wrong.
pub(crate) fn check_cel(text: &str) -> Result<(), String> {
    let program = cel::Program::compile(text)
        .map_err(|e| e.to_string().lines().next().unwrap_or_default().to_owned())?;
    // operators have names that begin with no letter
    let strange = |f: &&str| f.starts_with(char::is_alphabetic) && !FUNCTIONS.contains(f);
    match program.references().functions().into_iter().find(strange) {
        Some(function) => Err(format!("there is no function `{function}`")),
        None => Ok(()),
    }
}
