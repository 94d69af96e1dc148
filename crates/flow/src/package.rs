//! Matter packages: a service as a folder of declared files.

use model::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// A matter package, format 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// The department that handles its cases.
    pub handler: DepartmentId,
    /// The parties' roles.
    pub parties: Vec<Named>,
    /// What the applicant fills in.
    pub form: Vec<FormField>,
    /// The form fields that make two applications the same.
    pub same: Vec<FieldId>,
    /// The graph.
    pub steps: Vec<Step>,
}

/// A role and its title.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// The role.
    pub id: RoleId,
    /// What people call it.
    pub title: Text,
}

/// A field of the form.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormField {
    /// Its name.
    pub id: FieldId,
    /// Its data element.
    pub element: FieldId,
    /// What people call it.
    pub title: Text,
}

/// A step of the graph.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Named references: `form.unit`, `seller.name`, `deed.deed_no`.
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
    /// How many hours the holder or performer has (call, act); three days where it is not said.
    #[serde(default)]
    pub within_hours: Option<u32>,
}

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Reads `matter.yaml` of a package folder.
    pub fn read(dir: &Path) -> Result<Self, PackageError> {
        let path = dir.join("matter.yaml");
        let file = path.display().to_string();
        let text = std::fs::read_to_string(&path)
            .map_err(|e| PackageError { file: file.clone(), message: e.to_string() })?;
        Self::parse(&file, &text)
    }

    /// Reads a package's text and checks what the engine relies on.
    pub fn parse(file: &str, text: &str) -> Result<Self, PackageError> {
        let wrong = |message: String| PackageError { file: file.to_owned(), message };
        let package: Self = serde_saphyr::from_str(text).map_err(|e| wrong(e.to_string()))?;
        package.check().map_err(wrong)?;
        Ok(package)
    }

    fn check(&self) -> Result<(), String> {
        if self.format != 1 {
            return Err(format!("format {} is not supported; this program reads format 1", self.format));
        }
        let mut known = BTreeSet::new();
        for step in &self.steps {
            for before in &step.after {
                if !known.contains(before) {
                    return Err(format!(
                        "step {}: `after` names {before}, which is no earlier step",
                        step.id
                    ));
                }
            }
            if !known.insert(&step.id) {
                return Err(format!("step {} stands twice", step.id));
            }
            let complete = match step.kind {
                StepKind::Identify | StepKind::Sign => step.party.is_some(),
                StepKind::Call => {
                    step.party.is_some()
                        && step.holder.is_some()
                        && step.resource.is_some()
                        && step.what.is_some()
                        && step.basis.is_some()
                        && step.purpose.is_some()
                }
                StepKind::Decide => !step.rules.is_empty(),
                StepKind::Act => step.performer.is_some() && step.operation.is_some(),
            };
            if !complete {
                return Err(format!(
                    "step {}: a {} step lacks a field it needs",
                    step.id,
                    step.kind.as_str()
                ));
            }
            if let Some(role) = &step.party
                && !self.parties.iter().any(|p| &p.id == role)
            {
                return Err(format!("step {}: there is no party {role}", step.id));
            }
            for rule in &step.rules {
                cel::Program::compile(&rule.when)
                    .map_err(|e| format!("step {}: rule {}: {e}", step.id, rule.result))?;
            }
        }
        if self.steps.iter().filter(|s| s.pivot).count() != 1 {
            return Err("a matter has exactly one pivot".into());
        }
        Ok(())
    }

    /// The call steps whose answers a rule reads.
    pub fn calls_read_by(&self, rule: &Rule) -> Vec<StepId> {
        let Ok(program) = cel::Program::compile(&rule.when) else { return Vec::new() };
        let references = program.references();
        let read = |s: &&Step| s.kind == StepKind::Call && references.has_variable(s.id.as_str());
        self.steps.iter().filter(read).map(|s| s.id.clone()).collect()
    }

    /// A step by its name.
    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.steps.iter().find(|s| &s.id == id)
    }

    /// The hash that names this package on the ledger.
    pub fn hash(&self, suite: Suite) -> Digest {
        let canonical = serde_json::to_vec(self).expect("a package can be written as JSON");
        crypto::hash(suite, "tongban/package/1", &[&canonical])
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

    /// What a party is asked to consent to.
    pub fn consent_items(&self, role: &RoleId) -> Vec<ConsentItem> {
        self.steps
            .iter()
            .filter(|s| s.kind == StepKind::Call && s.party.as_ref() == Some(role))
            .filter(|s| matches!(s.basis, Some(Basis::Consent)))
            .map(|s| self.need(s))
            .map(|n| ConsentItem {
                step: n.step,
                recipient: n.recipient,
                holder: n.holder,
                resource: n.resource,
                what: n.what,
            })
            .collect()
    }
}
