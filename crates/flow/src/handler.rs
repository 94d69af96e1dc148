//! The handler's part: open cases, take signatures, ask, decide, request, settle.

use crate::{
    case::{Case, Due, StepState},
    letter::{
        ActionResult, Message, Payload, Request, Task, payload_context, request_context, result_context,
        sealed_hash,
    },
    package::{Package, Step},
    run::{Flow, FlowError, now_ms},
};
use chain::ChainError;
use crypto::{Opening, Salt};
use gateway::Source;
use model::*;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use tracing::{error, warn};

/// How long a holder has to answer and a performer to report: three days.
const ANSWER_WITHIN_MS: u64 = 3 * 24 * 3_600_000;
/// How long a consent serves: thirty days.
const CONSENT_LIFETIME_MS: u64 = 30 * 24 * 3_600_000;
/// How long a command of a step may take to be ordered before it is given up and made again.
pub(crate) const ORDERED_WITHIN: Duration = Duration::from_secs(3600);
/// What was opened is confirmed again after this, where no confirmation was ordered.
const CONFIRM_AGAIN_MS: u64 = 15_000;
/// A payload must have come within this after its answer; then the answer is disputed.
const PAYLOAD_WITHIN_MS: u64 = 300_000;
/// How long the API waits for the ledger.
const PATIENCE: Duration = Duration::from_secs(30);

/// A person as the form names them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// The resident identity number.
    pub id: String,
    /// The name.
    pub name: String,
}

/// An application.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCase {
    /// The matter.
    pub matter: MatterId,
    /// The form.
    pub form: BTreeMap<FieldId, String>,
    /// The parties by role.
    pub parties: BTreeMap<RoleId, Person>,
}

/// What a case keeps in the vault.
#[derive(Serialize, Deserialize)]
struct Kept {
    form: BTreeMap<FieldId, String>,
    parties: BTreeMap<RoleId, (Person, Opening)>,
}

/// Why something could not be done with a case. Fit to show; never holds personal data.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// No such case, matter or role here.
    #[error("there is no such {0} at this department")]
    Unknown(&'static str),
    /// A form field or identifier is missing or wrong.
    #[error("`{field}` is not valid: {message}")]
    Invalid {
        /// The field.
        field: String,
        /// What is wrong.
        message: String,
    },
    /// The ledger refused.
    #[error("the ledger refused: {}", .0.code())]
    Refused(Refusal),
    /// The ledger could not be reached.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The vault could not be used.
    #[error(transparent)]
    Vault(#[from] crate::VaultError),
}

impl<S: Source> Flow<S> {
    /// Opens a case. The same application while one is open is refused as [`Refusal::Duplicate`].
    pub async fn open_case(&self, new: NewCase) -> Result<CaseId, CaseError> {
        let package = self.newest_package(&new.matter)?;
        let mut form = BTreeMap::new();
        for field in &package.form {
            let invalid =
                |message: &str| CaseError::Invalid { field: field.id.to_string(), message: message.into() };
            let value = new.form.get(&field.id).map(|v| v.trim()).filter(|v| !v.is_empty());
            let value = value.ok_or_else(|| invalid("it is missing"))?;
            let value = match field.element.as_str() {
                "unit.code" => identifier::unit(value).map_err(|e| invalid(&e.to_string()))?,
                _ if value.chars().count() > 128 => return Err(invalid("it is longer than 128 characters")),
                _ => value.to_owned(),
            };
            form.insert(field.id.clone(), value);
        }
        let mut kept = BTreeMap::new();
        let mut parties = Vec::new();
        for role in &package.parties {
            let invalid =
                |message: &str| CaseError::Invalid { field: role.id.to_string(), message: message.into() };
            let person = new.parties.get(&role.id).ok_or_else(|| invalid("it is missing"))?;
            let id = identifier::resident(&person.id).map_err(|e| invalid(&e.to_string()))?;
            let name = person.name.trim().to_owned();
            if name.is_empty() || name.chars().count() > 64 {
                return Err(invalid("the name is missing or longer than 64 characters"));
            }
            let opening = Opening::fresh("party", id.clone());
            let pseudonym = Pseudonym(crypto::random());
            parties.push(Party { role: role.id.clone(), pseudonym, subject: opening.commitment() });
            kept.insert(role.id.clone(), (Person { id, name }, opening));
        }
        let same: Vec<_> = package.same.iter().map(|f| form.get(f).cloned().unwrap_or_default()).collect();
        let tag =
            crypto::keyed_hash(&self.keys.storage.0, "tongban/same/1", &encode(&(package.id.as_str(), same)));
        let open = OpenCase { matter: package.id.clone(), version: package.version, tag, parties };
        let (id, bytes) = self.sign(Body::OpenCase(open));
        let case = CaseId(id.0);
        let kept = serde_json::to_vec(&Kept { form, parties: kept }).expect("a form can be written as JSON");
        self.vault.put(&format!("case/{case}/form"), &kept).await?;
        let event = self.chain.submit_and_wait(vec![bytes], PATIENCE).await.remove(0)?;
        if let Outcome::Refused(refusal) = event.outcome {
            self.vault.erase(&format!("case/{case}/")).await?;
            return Err(CaseError::Refused(refusal));
        }
        self.caught_up(event.height).await;
        Ok(case)
    }

    /// Records that a terminal identified a party; the key in the assertion is the one they will sign with.
    pub async fn identify(&self, assertion: Assertion, signature: [u8; 64]) -> Result<(), CaseError> {
        self.accepted(Body::Identify(Identify { assertion, signature })).await.map(drop)
    }

    /// The text a party would sign, and the exact terms.
    pub fn consent_draft(
        &self,
        case: CaseId,
        role: &RoleId,
        language: Language,
    ) -> Result<(String, ConsentTerms), CaseError> {
        let expires_ms = now_ms() + CONSENT_LIFETIME_MS;
        let nonce = u64::from_le_bytes(crypto::random());
        self.consent_of(case, role, language, expires_ms, nonce)
    }

    /// The same again for given expiry and nonce.
    fn consent_of(
        &self,
        id: CaseId,
        role: &RoleId,
        language: Language,
        expires_ms: u64,
        nonce: u64,
    ) -> Result<(String, ConsentTerms), CaseError> {
        let state = self.lock();
        let case = state.cases.get(&id).ok_or(CaseError::Unknown("case"))?;
        let package = self.packages.get(&case.matter).ok_or(CaseError::Unknown("matter"))?;
        let party = case.parties.iter().find(|p| &p.role == role).ok_or(CaseError::Unknown("role"))?;
        let named = package.parties.iter().find(|p| &p.id == role).ok_or(CaseError::Unknown("role"))?;
        let items = package.consent_items(role);
        let genesis = &self.chain.rules().genesis;
        let mut lines = Vec::new();
        for item in &items {
            let step = package.step(&item.step).ok_or(CaseError::Unknown("step"))?;
            let (_, resource) =
                state.published.resources.get(&item.resource).ok_or(CaseError::Unknown("resource"))?;
            let fields = resource.fields.iter().map(|f| (&f.id, &f.title));
            let titles: BTreeMap<_, _> =
                fields.chain(resource.predicates.iter().map(|p| (&p.id, &p.title))).collect();
            let names = item.what.names();
            lines.push(ConsentLine {
                recipient: &genesis.member(&item.recipient).ok_or(CaseError::Unknown("department"))?.title,
                holder: &genesis.member(&item.holder).ok_or(CaseError::Unknown("department"))?.title,
                resource: &resource.title,
                names: names.iter().filter_map(|n| titles.get(n).copied()).collect(),
                purpose: step.purpose.as_ref().ok_or(CaseError::Unknown("purpose"))?,
            });
        }
        let text =
            consent_text(language, &package.title, id, &named.title, &local_minute(expires_ms), &lines);
        let terms = ConsentTerms {
            chain: self.chain.rules().chain,
            case: id,
            role: role.clone(),
            subject: party.subject,
            items,
            language,
            text: crypto::hash("tongban/text/1", &[text.as_bytes()]),
            expires_ms,
            nonce,
        };
        Ok((text, terms))
    }

    /// The text behind a consent that was given: the same bytes, written again from its terms.
    pub(crate) async fn consent_text_of(&self, terms: &ConsentTerms) -> Option<String> {
        let kept = self.vault.get(&format!("case/{}/text/{}", terms.case, terms.text)).await.ok().flatten();
        if let Some(text) = kept.and_then(|bytes| String::from_utf8(bytes).ok()) {
            return Some(text);
        }
        let (text, again) =
            self.consent_of(terms.case, &terms.role, terms.language, terms.expires_ms, terms.nonce).ok()?;
        (again.text == terms.text).then_some(text)
    }

    /// Records a party's signature over the terms they were shown.
    pub async fn give_consent(
        &self,
        terms: ConsentTerms,
        signature: [u8; 64],
    ) -> Result<ConsentId, CaseError> {
        let (text, shown) =
            self.consent_of(terms.case, &terms.role, terms.language, terms.expires_ms, terms.nonce)?;
        if shown != terms {
            return Err(CaseError::Invalid {
                field: "terms".into(),
                message: "they are not the ones that were shown".into(),
            });
        }
        // the exact words outlive any later change of a title
        self.vault.put(&format!("case/{}/text/{}", terms.case, terms.text), text.as_bytes()).await?;
        let event = self.accepted(Body::GiveConsent(GiveConsent { terms, signature })).await?;
        Ok(ConsentId(event.id.0))
    }

    /// Records a party's withdrawal.
    pub async fn withdraw_consent(&self, consent: ConsentId, signature: [u8; 64]) -> Result<(), CaseError> {
        self.accepted(Body::WithdrawConsent(WithdrawConsent { consent, signature })).await.map(drop)
    }

    /// A person confirms an adverse decision that waits for them (PIPL 24); the case is settled as its rule says.
    pub async fn confirm_decision(&self, case: CaseId, officer: &str) -> Result<(), CaseError> {
        let (step, result) =
            self.lock().unconfirmed.get(&case).cloned().ok_or(CaseError::Unknown("decision that waits"))?;
        let opening = Opening::fresh("officer", officer);
        self.vault.put(&format!("case/{case}/officer"), &encode(&opening)).await?;
        let decide = self.decision(case, &step, result, true, Some(opening.commitment()))?;
        self.accepted(Body::Decide(decide)).await?;
        self.lock().unconfirmed.remove(&case);
        Ok(())
    }

    async fn accepted(&self, body: Body) -> Result<Event, CaseError> {
        let event = self.submit_and_wait(body, PATIENCE).await?;
        match event.outcome {
            Outcome::Accepted(_) => {
                self.caught_up(event.height).await;
                Ok(event)
            }
            Outcome::Refused(refusal) => Err(CaseError::Refused(refusal)),
        }
    }

    /// Waits until this node's cases have taken in a height.
    pub async fn caught_up(&self, height: u64) {
        let _ = self.followed.subscribe().wait_for(|h| *h >= height).await;
    }

    fn newest_package(&self, matter: &MatterId) -> Result<&Package, CaseError> {
        self.packages
            .iter()
            .filter(|((id, _), _)| id == matter)
            .map(|(_, p)| p)
            .next_back()
            .ok_or(CaseError::Unknown("matter"))
    }

    /// The form and names of a case, as values its package can refer to.
    pub(crate) async fn case_values(
        &self,
        case: CaseId,
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, crate::VaultError> {
        let Some(kept) = self.vault.get(&format!("case/{case}/form")).await? else {
            return Ok(BTreeMap::new());
        };
        let kept: Kept =
            serde_json::from_slice(&kept).map_err(|_| crate::VaultError("a kept form is damaged".into()))?;
        let mut values = BTreeMap::new();
        values.insert("form".to_string(), kept.form.into_iter().map(|(k, v)| (k.to_string(), v)).collect());
        for (role, (person, _)) in kept.parties {
            let person = [("id".to_string(), person.id), ("name".to_string(), person.name)].into();
            values.insert(role.to_string(), person);
        }
        Ok(values)
    }

    async fn party_opening(&self, case: CaseId, role: &RoleId) -> Result<Opening, FlowError> {
        let kept = self.vault.get(&format!("case/{case}/form")).await?;
        let kept: Option<Kept> = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        kept.and_then(|mut k| k.parties.remove(role))
            .map(|(_, o)| o)
            .ok_or(FlowError::Inconsistent("a case's form is gone"))
    }

    /// Starts whatever is due in this handler's cases.
    pub(crate) fn work_as_handler(&self) {
        let mut due = Vec::new();
        {
            let mut state = self.lock();
            let crate::run::State { cases, under_way, unconfirmed, .. } = &mut *state;
            for case in cases.values().filter(|c| c.settled.is_none()) {
                let Some(package) = self.packages.get(&case.matter) else { continue };
                for item in case.due(package) {
                    let step = match &item {
                        Due::Call(step) | Due::Decide(step) | Due::Act(step) => step.clone(),
                        Due::Settle(settle) => settle.step.clone(),
                    };
                    let waits = unconfirmed.get(&case.id).is_some_and(|(s, _)| *s == step)
                        && matches!(item, Due::Decide(_));
                    if !waits && under_way.insert((case.id, step.clone())) {
                        due.push((case.id, step, item));
                    }
                }
            }
        }
        for (case, step, item) in due {
            let flow = self.clone();
            tokio::spawn(async move {
                let done = match &item {
                    Due::Call(step) => flow.ask(case, step).await,
                    Due::Decide(step) => flow.decide(case, step),
                    Due::Act(step) => flow.request(case, step).await,
                    Due::Settle(settle) => flow.settle(settle.clone()).await,
                };
                if let Err(e) = done {
                    warn!(case = %case.short(), %step, error = %e, "a step could not be performed; it is tried again");
                    flow.lock().under_way.remove(&(case, step));
                }
            });
        }
    }

    /// Settles a case; where the ledger refuses (something was ordered in between), it is looked at again.
    async fn settle(&self, settle: SettleCase) -> Result<(), FlowError> {
        let place = (settle.case, settle.step.clone());
        let event = self.submit_and_wait(Body::SettleCase(settle), ORDERED_WITHIN).await?;
        if let Outcome::Refused(refusal) = event.outcome {
            warn!(case = %place.0.short(), code = refusal.code(), "the ledger refused to settle a case; it is looked at again");
            self.caught_up(event.height).await;
            self.lock().under_way.remove(&place);
        }
        Ok(())
    }

    fn with_case<T>(&self, id: CaseId, read: impl FnOnce(&Case, &Package) -> T) -> Result<T, FlowError> {
        let state = self.lock();
        let case = state.cases.get(&id).ok_or(FlowError::Inconsistent("no such case"))?;
        let package = self.packages.get(&case.matter).ok_or(FlowError::Inconsistent("no such matter"))?;
        Ok(read(case, package))
    }

    fn parameters(case: &Case, step: &Step) -> Option<BTreeMap<FieldId, String>> {
        step.parameters.iter().map(|(name, from)| Some((name.clone(), case.value(from)?.clone()))).collect()
    }

    async fn ask(&self, id: CaseId, step_id: &StepId) -> Result<(), FlowError> {
        let prepared = self.with_case(id, |case, package| {
            let step = package.step(step_id)?;
            let need = package.need(step);
            let subject = match &step.subject {
                Some(reference) => case.value(reference)?.clone(),
                None => case.value(&format!("{}.id", need.party))?.clone(),
            };
            let consent = match need.basis {
                NeedBasis::Consent => Some(ConsentId(case.consents.get(&need.party)?.0.0)),
                _ => None,
            };
            let attempt = case.calls.get(step_id).map_or(0, |c| c.attempt + 1);
            Some((need, subject, consent, attempt, Self::parameters(case, step)?))
        })?;
        let (need, subject, consent, attempt, parameters) =
            prepared.ok_or(FlowError::Inconsistent("a call's subject or parameter is not known yet"))?;
        let party = match need.basis {
            NeedBasis::Statutory(_) => None,
            _ => Some(self.party_opening(id, &need.party).await?),
        };
        let request = Request { salt: Salt::random(), subject, parameters, party };
        let context = request_context(id, step_id, &self.me, &need.holder);
        let holder = self.member(&need.holder)?;
        let sealed = crypto::seal(&holder.seal_key, &context, &encode(&request))?;
        let ask = Ask {
            case: id,
            step: step_id.clone(),
            attempt,
            consent,
            subject: request.commitment(),
            sealed: sealed_hash(&sealed),
            answer_by_ms: now_ms() + ANSWER_WITHIN_MS,
        };
        let (command, bytes) = self.sign(Body::Ask(ask));
        self.vault.put(&format!("sent/{}", CallId(command.0)), &sealed).await?;
        self.post(&need.holder, &Message::Request { call: CallId(command.0), sealed });
        self.submit_step(id, step_id, bytes)
    }

    /// Submits the command of a step and, should the ledger refuse it, lets the step be looked at again.
    fn submit_step(&self, id: CaseId, step: &StepId, bytes: bytes::Bytes) -> Result<(), FlowError> {
        let (flow, step) = (self.clone(), step.clone());
        tokio::spawn(async move {
            let results = flow.chain.submit_and_wait(vec![bytes], ORDERED_WITHIN).await;
            match results.into_iter().next() {
                Some(Ok(Event { outcome: Outcome::Refused(refusal), .. })) => {
                    warn!(case = %id.short(), %step, code = refusal.code(), "the ledger refused a step");
                    let settle = SettleCase {
                        case: id,
                        outcome: CaseOutcome::NeedsHuman,
                        step: step.clone(),
                        reason: refusal.code().parse().expect("codes are names"),
                    };
                    // after a withdrawal the case is settled as withdrawn, not handed to a person
                    if !matches!(
                        refusal,
                        Refusal::ConsentWithdrawn | Refusal::CaseClosed | Refusal::AlreadyUsed
                    ) && let Err(e) = flow.submit(Body::SettleCase(settle))
                    {
                        error!(case = %id.short(), error = %e, "a refused step could not be handed to a person");
                    }
                }
                Some(Err(e)) => {
                    warn!(case = %id.short(), %step, error = %e, "a step's command was not ordered; it is tried again");
                    flow.lock().under_way.remove(&(id, step));
                }
                _ => {}
            }
        });
        Ok(())
    }

    fn decision(
        &self,
        id: CaseId,
        step_id: &StepId,
        result: Code,
        adverse: bool,
        confirmed_by: Option<Commitment>,
    ) -> Result<Decide, FlowError> {
        self.with_case(id, |case, package| {
            let step = package.step(step_id)?;
            let rules = serde_json::to_vec(&step.rules).expect("rules can be written as JSON");
            Some(Decide {
                case: id,
                step: step_id.clone(),
                rule: crypto::hash("tongban/rule/1", &[&rules]),
                inputs: case.commitments.clone(),
                result,
                adverse,
                confirmed_by,
            })
        })?
        .ok_or(FlowError::Inconsistent("no such step"))
    }

    fn decide(&self, id: CaseId, step_id: &StepId) -> Result<(), FlowError> {
        let rule = self.with_case(id, |case, package| {
            let step = package.step(step_id).ok_or("no such step".to_string())?;
            case.decide(step).map(|rule| rule.cloned())
        })?;
        let (result, adverse) = match rule {
            Ok(None) => ("pass".parse().expect("a name"), false),
            Ok(Some(rule)) => (rule.result, rule.outcome == CaseOutcome::Refused),
            Err(message) => {
                error!(case = %id.short(), step = %step_id, %message, "a rule cannot be evaluated; a person is asked");
                let reason = "rule_failed".parse().expect("a name");
                let settle =
                    SettleCase { case: id, outcome: CaseOutcome::NeedsHuman, step: step_id.clone(), reason };
                return self.submit(Body::SettleCase(settle)).map(drop);
            }
        };
        if adverse {
            let mut state = self.lock();
            state.unconfirmed.insert(id, (step_id.clone(), result));
            state.under_way.remove(&(id, step_id.clone()));
            drop(state);
            self.changes.send_modify(|n| *n += 1);
            return Ok(());
        }
        let decide = self.decision(id, step_id, result, false, None)?;
        let (_, bytes) = self.sign(Body::Decide(decide));
        self.submit_step(id, step_id, bytes)
    }

    async fn request(&self, id: CaseId, step_id: &StepId) -> Result<(), FlowError> {
        let prepared = self.with_case(id, |case, package| {
            let step = package.step(step_id)?;
            Some((step.performer.clone()?, Self::parameters(case, step)?))
        })?;
        let (performer, parameters) =
            prepared.ok_or(FlowError::Inconsistent("an action's parameter is not known"))?;
        let task = Task { salt: Salt::random(), parameters };
        let context = request_context(id, step_id, &self.me, &performer);
        let sealed = crypto::seal(&self.member(&performer)?.seal_key, &context, &encode(&task))?;
        let request = RequestAction {
            case: id,
            step: step_id.clone(),
            parameters: task.commitment(),
            sealed: sealed_hash(&sealed),
            report_by_ms: now_ms() + ANSWER_WITHIN_MS,
        };
        let (command, bytes) = self.sign(Body::RequestAction(request));
        self.vault.put(&format!("sent/{}", CallId(command.0)), &sealed).await?;
        self.post(&performer, &Message::Task { action: ActionId(command.0), sealed });
        self.submit_step(id, step_id, bytes)
    }

    /// Opens a payload whose answer is final here, and confirms or disputes it.
    pub(crate) async fn open_payload(&self, call: CallId, sealed: Vec<u8>) -> Result<(), FlowError> {
        let Some((case, step)) = self.lock().calls.get(&call).cloned() else { return Ok(()) };
        let answer = self.with_case(case, |c, package| {
            let names = package.step(&step).and_then(|s| s.what.as_ref().map(What::names))?;
            let reply = c.calls.get(&step).filter(|k| k.id == call)?.answer.clone()?.1;
            (c.state(&step) != StepState::NotStarted && !c.values.contains_key(step.as_str()))
                .then_some((names, reply))
        })?;
        // not final here yet, or opened before: the reminder fetches it again where it is needed
        let Some((names, Reply::Data { commitments, payload, .. })) = answer else {
            if self.with_case(case, |c, _| !c.values.contains_key(step.as_str()))? {
                self.vault.put(&format!("early/{call}"), &sealed).await?;
            }
            return Ok(());
        };
        let opened = (sealed_hash(&sealed) == payload)
            .then(|| crypto::open(&self.keys.seal, &payload_context(call, &self.me), &sealed).ok())
            .flatten()
            .and_then(|plain| decode::<Payload>(&plain).ok())
            .filter(|p| p.call == call && p.openings.len() == names.len())
            .filter(|p| {
                p.openings
                    .iter()
                    .zip(&names)
                    .zip(&commitments)
                    .all(|((o, name), c)| o.name == name.as_str() && o.commitment() == *c)
            });
        let Some(opened) = opened else {
            if sealed_hash(&sealed) != payload {
                return Ok(()); // somebody else's bytes; the holder's are fetched again
            }
            let reason = Opening::fresh("dispute", "the payload does not match its commitments");
            self.submit(Body::Confirm(Confirm { call, dispute: Some(reason.commitment()) }))?;
            return Ok(());
        };
        self.vault.put(&format!("opened/{call}"), &encode(&opened.openings)).await?;
        self.take_openings(case, &step, &opened.openings);
        self.submit(Body::Confirm(Confirm { call, dispute: None }))?;
        self.work_as_handler();
        Ok(())
    }

    /// Opens a payload that came before its answer was final on this node.
    pub(crate) fn spawn_open_early(&self, call: CallId) {
        let flow = self.clone();
        tokio::spawn(async move {
            if let Err(e) = flow.open_early(call).await {
                warn!(call = %call.short(), error = %e, "an early payload could not be opened; it is fetched again");
            }
        });
    }

    /// Whether a payload had come early.
    async fn open_early(&self, call: CallId) -> Result<bool, FlowError> {
        let place = format!("early/{call}");
        let Some(sealed) = self.vault.get(&place).await? else { return Ok(false) };
        self.vault.erase(&place).await?;
        self.open_payload(call, sealed).await?;
        Ok(true)
    }

    fn take_openings(&self, case: CaseId, step: &StepId, openings: &[Opening]) {
        let mut state = self.lock();
        let Some(case) = state.cases.get_mut(&case) else { return };
        if case.values.contains_key(step.as_str()) {
            return;
        }
        let values = openings.iter().map(|o| (o.name.clone(), o.value.clone())).collect();
        case.opened_here(step, values, openings.iter().map(Opening::commitment).collect(), now_ms());
        drop(state);
        self.changes.send_modify(|n| *n += 1);
    }

    /// What this node opened of a call before, where it did.
    #[allow(clippy::type_complexity)]
    pub(crate) async fn opened_before(
        &self,
        call: CallId,
    ) -> Result<Option<(StepId, BTreeMap<String, String>, Vec<Commitment>)>, crate::VaultError> {
        let Some((_, step)) = self.lock().calls.get(&call).cloned() else { return Ok(None) };
        let Some(bytes) = self.vault.get(&format!("opened/{call}")).await? else { return Ok(None) };
        let openings: Vec<Opening> =
            decode(&bytes).map_err(|_| crate::VaultError("an opened payload is damaged".into()))?;
        let commitments = openings.iter().map(Opening::commitment).collect();
        Ok(Some((step, openings.into_iter().map(|o| (o.name, o.value)).collect(), commitments)))
    }

    /// Keeps what an action returned, where it matches its commitment.
    pub(crate) async fn take_result(&self, action: ActionId, sealed: Vec<u8>) -> Result<(), FlowError> {
        let Some((case, step)) = self.lock().actions.get(&action).cloned() else { return Ok(()) };
        let Ok(plain) = crypto::open(&self.keys.seal, &result_context(action, &self.me), &sealed) else {
            return Ok(());
        };
        let Ok(result) = decode::<ActionResult>(&plain) else { return Ok(()) };
        let report = self.with_case(case, |c, _| c.actions.get(&step).and_then(|a| a.report.clone()))?;
        let Some((report, None)) = report else {
            // it came before the report was final here
            self.vault.put(&format!("early-result/{action}"), &sealed).await?;
            return Ok(());
        };
        let event = self.chain.event(report).await?;
        if matches!(&event.command.command.body, Body::ReportAction(r) if r.result == result.commitment()) {
            self.vault.put(&format!("case/{case}/result/{step}"), &encode(&result)).await?;
        }
        Ok(())
    }

    /// Takes in a result that came before its report was final here.
    pub(crate) fn spawn_early_result(&self, action: ActionId) {
        let flow = self.clone();
        tokio::spawn(async move {
            let taken = async {
                let place = format!("early-result/{action}");
                let Some(sealed) = flow.vault.get(&place).await? else { return Ok(()) };
                flow.vault.erase(&place).await?;
                flow.take_result(action, sealed).await
            };
            if let Err(e) = taken.await {
                warn!(action = %action.short(), error = %e, "an action's early result could not be kept");
            }
        });
    }

    /// Confirms again what was opened before a crash could confirm it, and disputes answers whose payload never came.
    fn confirm_again(&self) -> Result<(), FlowError> {
        let mut confirmations = Vec::new();
        {
            let mut state = self.lock();
            let crate::run::State { cases, confirmed, .. } = &mut *state;
            for (step, call, opened) in cases.values().flat_map(|c| {
                c.calls.iter().map(|(step, call)| (step, call, c.values.contains_key(step.as_str())))
            }) {
                let answered =
                    matches!(&call.answer, Some((_, Reply::Data { .. }))) && call.confirm.is_none();
                let Some(since) = call.answered_ms.filter(|_| answered) else { continue };
                let waited = now_ms().saturating_sub(since);
                let due = if opened { waited > CONFIRM_AGAIN_MS } else { waited > PAYLOAD_WITHIN_MS };
                if due && confirmed.get(&call.id).is_none_or(|at| now_ms() > at + CONFIRM_AGAIN_MS) {
                    confirmed.insert(call.id, now_ms());
                    confirmations.push((call.id, opened, step.clone()));
                }
            }
        }
        for (call, opened, step) in confirmations {
            if !opened {
                warn!(call = %call.short(), %step, "the payload of a final answer never came; the answer is disputed");
            }
            let dispute = (!opened).then(|| Opening::fresh("dispute", "the payload never came").commitment());
            self.submit(Body::Confirm(Confirm { call, dispute }))?;
        }
        Ok(())
    }

    /// Sends requests again whose answer has not come, fetches payloads that have not, and records silence.
    pub(crate) async fn repeat_requests(&self) -> Result<(), FlowError> {
        self.record_silence()?;
        self.confirm_again()?;
        let mut repeats = Vec::new();
        {
            let state = self.lock();
            for case in state.cases.values().filter(|c| !c.is_over()) {
                let Some(package) = self.packages.get(&case.matter) else { continue };
                let stale = |step: &StepId| matches!(case.state(step), StepState::Waiting(since) if since + 1_000 < now_ms());
                for (step, call) in case.calls.iter().filter(|(s, _)| stale(s)) {
                    let Some(holder) = package.step(step).and_then(|s| s.holder.clone()) else { continue };
                    repeats.push((holder, call.id.0, true, call.answer.is_some()));
                }
                for (step, action) in case.actions.iter().filter(|(s, a)| stale(s) && a.report.is_none()) {
                    let Some(performer) = package.step(step).and_then(|s| s.performer.clone()) else {
                        continue;
                    };
                    repeats.push((performer, action.id.0, false, false));
                }
            }
        }
        for (to, id, is_call, answered) in repeats {
            if answered {
                if !self.open_early(CallId(id)).await? {
                    self.post(&to, &Message::Fetch { call: CallId(id) });
                }
            } else if let Some(sealed) = self.vault.get(&format!("sent/{}", CallId(id))).await? {
                let message = match is_call {
                    true => Message::Request { call: CallId(id), sealed },
                    false => Message::Task { action: ActionId(id), sealed },
                };
                self.post(&to, &message);
            }
        }
        Ok(())
    }
}

/// A time as local minute in China (UTC+8): `2026-11-23 10:05`.
pub(crate) fn local_minute(ms: u64) -> String {
    let seconds = ms / 1000 + 8 * 3600;
    let (days, rest) = ((seconds / 86_400) as i64, seconds % 86_400);
    // civil-from-days, H. Hinnant, "chrono-compatible low-level date algorithms"
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", rest / 3600, rest % 3600 / 60)
}
