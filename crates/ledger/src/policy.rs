//! A holder's policy in [Cedar](https://docs.cedarpolicy.com), published on the ledger and evaluated inside the commit, after everything else
//! that has to hold for a call. Cedar's evaluation is pure: the same text and question give the same answer on every node. Its version is pinned,
//! and belongs to the protocol.

use crate::{
    apply::Scene,
    sharing,
    state::{CaseRecord, Decision, Key, PolicyRecord, Spent, Stop, ensure},
};
use cedar_policy::{
    Authorizer, Context, Decision as Said, Entities, Entity, EntityUid, PolicySet, Request,
    RestrictedExpression, Schema, ValidationMode, Validator,
};
use model::*;
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, LazyLock, Mutex},
};

/// What policies can be about.
pub const POLICY_SCHEMA: &str = include_str!("policy.cedarschema");

/// The most policies in one text.
const POLICIES_MAX: usize = 64;
/// The most operators in one policy, and the deepest nesting of brackets: evaluating is recursive, and no node may run out of stack where
/// another does not.
const OPERATORS_MAX: usize = 128;
const DEPTH_MAX: usize = 16;
/// How many compiled texts are remembered.
const REMEMBERED: usize = 64;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema::from_cedarschema_str(POLICY_SCHEMA).expect("the schema of policies is in order").0
});

/// What is wrong with the text of a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Longer, deeper or more than is taken in.
    #[error("{0}")]
    TooLarge(String),
    /// Not Cedar.
    #[error("not Cedar: {0}")]
    Syntax(String),
    /// Cedar, and about things that there are not.
    #[error("it does not fit what calls are: {0}")]
    Invalid(String),
}

/// A policy that can be evaluated.
#[derive(Debug)]
pub struct Policy {
    set: PolicySet,
}

/// What is asked of a policy: a call that everything else allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub asker: DepartmentId,
    /// Who would answer.
    pub holder: DepartmentId,
    /// Out of which resource.
    pub resource: ResourceId,
    /// `unconditional` or `conditional`.
    pub share: &'static str,
    /// The highest sensitivity of the fields asked, 0 for a predicate.
    pub sensitivity: u8,
    /// In a case of which matter.
    pub matter: MatterId,
    /// For which step.
    pub step: StepId,
    /// `consent`, `statutory` or `self_access`.
    pub basis: &'static str,
    /// The approval of a statutory basis; else empty.
    pub approval: String,
    /// The fields, or the predicate.
    pub names: Vec<FieldId>,
    /// Whether it is a yes/no question.
    pub predicate: bool,
    /// How the party was identified: `low`, `substantial`, `high`, or `none`.
    pub assurance: &'static str,
    /// Which try of the step it is, from 0.
    pub attempt: u32,
    /// How many calls of this resource the asker was granted today.
    pub calls_today: u32,
    /// How many calls were granted in this case.
    pub calls_in_case: u32,
    /// The hour of the day in China, 0 to 23.
    pub hour: u8,
    /// Whether today is worked, by the consortium's calendar.
    pub working_day: bool,
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the call may be granted.
    pub allowed: bool,
    /// The policies that decided, by their `@id` or position; none where nothing permits it.
    pub because: Vec<String>,
}

/// Whether a text is small and shallow enough to be read and evaluated by every node.
fn check_shape(text: &str) -> Result<(), PolicyError> {
    let too = |what: String| Err(PolicyError::TooLarge(what));
    if text.len() > POLICY_BYTES_MAX {
        return too(format!("it is longer than {POLICY_BYTES_MAX} bytes"));
    }
    let (mut depth, mut operators, mut policies) = (0usize, 0usize, 0usize);
    let mut chars = text.chars().peekable();
    let mut word = String::new();
    while let Some(c) = chars.next() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        if matches!(std::mem::take(&mut word).as_str(), "if" | "like" | "has" | "in" | "is") {
            operators += 1;
        }
        match c {
            '"' => {
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '/' if chars.peek() == Some(&'/') => while chars.next().is_some_and(|c| c != '\n') {},
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '&' | '|' | '!' | '<' | '>' | '=' | '+' | '-' | '*' | '.' => operators += 1,
            ';' => {
                policies += 1;
                operators = 0;
            }
            _ => {}
        }
        if depth > DEPTH_MAX {
            return too(format!("brackets are nested deeper than {DEPTH_MAX}"));
        }
        if operators > OPERATORS_MAX {
            return too(format!("policy {} has more than {OPERATORS_MAX} operators", policies + 1));
        }
        if policies > POLICIES_MAX {
            return too(format!("it has more than {POLICIES_MAX} policies"));
        }
    }
    Ok(())
}

fn uid(kind: &str, id: &str) -> EntityUid {
    let kind = kind.parse().expect("the kinds of the schema are names");
    EntityUid::from_type_name_and_id(kind, cedar_policy::EntityId::new(id))
}

impl Policy {
    /// Reads a text, and holds it against what calls are.
    ///
    /// # Errors
    /// Where it is too large, no Cedar, a template, or speaks of what there is not.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        check_shape(text)?;
        // its first line says what; the rest may repeat the text
        let first = |e: &dyn std::fmt::Display| e.to_string().lines().next().unwrap_or_default().to_owned();
        let set: PolicySet = text.parse().map_err(|e: cedar_policy::ParseErrors| {
            PolicyError::Syntax(e.iter().map(|e| first(e)).collect::<Vec<_>>().join("; "))
        })?;
        if set.num_of_templates() > 0 {
            return Err(PolicyError::Invalid("templates are not taken; write policies".into()));
        }
        if set.num_of_policies() == 0 {
            return Err(PolicyError::Invalid("it says nothing".into()));
        }
        let result = Validator::new(SCHEMA.clone()).validate(&set, ValidationMode::Strict);
        if !result.validation_passed() {
            let all: Vec<_> = result.validation_errors().map(|e| first(e)).collect();
            return Err(PolicyError::Invalid(all.join("; ")));
        }
        Ok(Self { set })
    }

    /// Whether a call may be granted. What cannot be evaluated is not.
    pub fn decide(&self, q: &Question) -> Verdict {
        let text = |t: &str| RestrictedExpression::new_string(t.to_owned());
        let number = |n: u64| RestrictedExpression::new_long(i64::try_from(n).unwrap_or(i64::MAX));
        let truth = RestrictedExpression::new_bool;
        let context = [
            ("matter", text(q.matter.as_str())),
            ("step", text(q.step.as_str())),
            ("basis", text(q.basis)),
            ("approval", text(&q.approval)),
            ("names", RestrictedExpression::new_set(q.names.iter().map(|n| text(n.as_str())))),
            ("predicate", truth(q.predicate)),
            ("assurance", text(q.assurance)),
            ("attempt", number(q.attempt.into())),
            ("calls_today", number(q.calls_today.into())),
            ("calls_in_case", number(q.calls_in_case.into())),
            ("hour", number(q.hour.into())),
            ("working_day", truth(q.working_day)),
        ];
        let context = context.into_iter().map(|(name, value)| (name.to_owned(), value));
        let attributes = [("share", text(q.share)), ("sensitivity", number(q.sensitivity.into()))];
        let attributes: HashMap<_, _> =
            attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let (principal, resource) =
            (uid("Department", q.asker.as_str()), uid("Resource", q.resource.as_str()));
        let said = || {
            let context = Context::from_pairs(context).ok()?;
            let action = uid("Action", "ask");
            let request =
                Request::new(principal.clone(), action, resource.clone(), context, Some(&SCHEMA)).ok()?;
            let resource = Entity::new(resource, attributes, HashSet::new()).ok()?;
            let entities = [Entity::new_no_attrs(principal, HashSet::new()), resource];
            let entities = Entities::from_entities(entities, Some(&SCHEMA)).ok()?;
            Some(Authorizer::new().is_authorized(&request, &self.set, &entities))
        };
        let Some(said) = said() else { return Verdict { allowed: false, because: vec![] } };
        // Cedar leaves out a policy that cannot be evaluated; one that forbids must not be left out
        let failed = said.diagnostics().errors().next().is_some();
        let mut because: Vec<String> = said
            .diagnostics()
            .reason()
            .map(|id| self.set.annotation(id, "id").map_or_else(|| id.to_string(), str::to_owned))
            .collect();
        because.sort();
        Verdict { allowed: said.decision() == Said::Allow && !failed, because }
    }
}

/// A compiled text, remembered: reading one takes longer than all else a call is decided by.
fn compiled(suite: Suite, text: &str) -> Option<Arc<Policy>> {
    type Remembered = (HashMap<Digest, Arc<Policy>>, VecDeque<Digest>);
    static COMPILED: LazyLock<Mutex<Remembered>> = LazyLock::new(Mutex::default);
    let hash = crypto::hash(suite, "tongban/policy/1", &[text.as_bytes()]);
    if let Some(policy) = COMPILED.lock().expect("no holder of this lock panics").0.get(&hash) {
        return Some(policy.clone());
    }
    let policy = Arc::new(Policy::parse(text).ok()?);
    let mut remembered = COMPILED.lock().expect("no holder of this lock panics");
    let (by_hash, order) = &mut *remembered;
    if by_hash.insert(hash, policy.clone()).is_none() {
        order.push_back(hash);
    }
    if order.len() > REMEMBERED
        && let Some(oldest) = order.pop_front()
    {
        by_hash.remove(&oldest);
    }
    Some(policy)
}

/// A holder publishes its policy, or takes it back.
pub(crate) fn set(scene: &Scene<'_>, state: &mut Decision<'_>, new: &SetPolicy) -> Result<Fact, Stop> {
    let key = Key::Policy(scene.signer.clone());
    let old: Option<PolicyRecord> = state.get(&key)?;
    ensure(new.version == old.map_or(0, |o| o.version) + 1, Refusal::WrongVersion)?;
    let fits = new.text.is_empty() || compiled(scene.rules.suite(), &new.text).is_some();
    ensure(fits, Refusal::UnfitPolicy)?;
    state.put(&key, &PolicyRecord { version: new.version, text: new.text.clone() });
    Ok(Fact::Recorded)
}

/// Asks the holder's policy, where it has one, about a call that everything else allows.
pub(crate) fn check(
    scene: &Scene<'_>,
    state: &Decision<'_>,
    new: &Ask,
    case: &CaseRecord,
    need: &Need,
    resource: &Resource,
) -> Result<(), Stop> {
    let text = state.get::<PolicyRecord>(&Key::Policy(need.holder.clone()))?.map(|p| p.text);
    let text = text.filter(|text| !text.is_empty());
    let trial = scene.rules.trial.as_ref().filter(|t| t.holder == need.holder);
    if text.is_none() && trial.is_none() {
        return Ok(());
    }
    let question = question(scene, state, new, case, need, resource)?;
    let allowed = match &text {
        Some(text) => compiled(scene.rules.suite(), text).is_some_and(|p| p.decide(&question).allowed),
        None => true,
    };
    if let Some(trial) = trial {
        trial.note(scene.id, scene.block.height, question, allowed);
    }
    ensure(allowed, Refusal::PolicyForbids)
}

fn question(
    scene: &Scene<'_>,
    state: &Decision<'_>,
    new: &Ask,
    case: &CaseRecord,
    need: &Need,
    resource: &Resource,
) -> Result<Question, Stop> {
    let now = scene.block.time_ms;
    let today = Day::of(now);
    let names = need.what.names();
    let asked = resource.fields.iter().filter(|f| names.contains(&f.id));
    let party = case.parties.iter().find(|p| p.party.role == need.party);
    let level = party.and_then(|p| p.identified.as_ref()).map(|i| i.level);
    let spent: Option<Spent> = state.get(&Key::Spent(resource.id.clone(), scene.signer.clone(), None))?;
    Ok(Question {
        asker: scene.signer.clone(),
        holder: need.holder.clone(),
        resource: resource.id.clone(),
        share: if resource.share == ShareClass::Unconditional { "unconditional" } else { "conditional" },
        sensitivity: asked.map(|f| f.sensitivity).max().unwrap_or(0),
        matter: case.matter.clone(),
        step: need.step.clone(),
        basis: match &need.basis {
            NeedBasis::Consent => "consent",
            NeedBasis::Statutory(_) => "statutory",
            NeedBasis::SelfAccess => "self_access",
        },
        approval: match &need.basis {
            NeedBasis::Statutory(id) => id.to_string(),
            _ => String::new(),
        },
        predicate: matches!(need.what, What::Predicate(_)),
        names,
        assurance: match level {
            None => "none",
            Some(AssuranceLevel::Low) => "low",
            Some(AssuranceLevel::Substantial) => "substantial",
            Some(AssuranceLevel::High) => "high",
        },
        attempt: new.attempt,
        calls_today: spent.map_or(0, |s| s.on(today).calls),
        calls_in_case: case.granted,
        hour: ((now - today.begins_ms()) / 3_600_000) as u8,
        working_day: sharing::rules(state)?.calendar.is_working(today),
    })
}

/// A policy tried on past calls while a ledger is applied again: what it would have said, beside what was.
#[derive(Debug)]
pub struct Trial {
    holder: DepartmentId,
    policy: Policy,
    found: Mutex<BTreeMap<CommandId, Tried>>,
}

/// A past call, and what came of it then and would now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The block.
    pub height: u64,
    /// The call.
    pub question: Question,
    /// Whether the policy of that time allowed it.
    pub allowed: bool,
    /// What the new one says.
    pub would: Verdict,
}

impl Trial {
    /// Of a holder's new policy.
    pub fn of(holder: DepartmentId, policy: Policy) -> Self {
        Self { holder, policy, found: Mutex::default() }
    }

    fn note(&self, id: CommandId, height: u64, question: Question, allowed: bool) {
        let would = self.policy.decide(&question);
        let tried = Tried { height, question, allowed, would };
        self.found.lock().expect("no holder of this lock panics").insert(id, tried);
    }

    /// All calls that came to where a policy decides, in order.
    pub fn found(&self) -> Vec<(CommandId, Tried)> {
        let found = self.found.lock().expect("no holder of this lock panics");
        let mut all: Vec<_> = found.iter().map(|(id, tried)| (*id, tried.clone())).collect();
        all.sort_by_key(|(id, tried)| (tried.height, *id));
        all
    }
}
