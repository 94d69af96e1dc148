//! The handler's part that somebody asks for: cases are opened, signed, confirmed, resumed and refused.

use crate::{
    case::{PASSED_OVER, REFUSED_BY_OFFICER},
    package::Package,
    run::{Flow, FlowError},
    view::local_minute,
};
use chain::ChainError;
use crypto::Opening;
use gateway::Source;
use model::*;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// How long a consent serves: thirty days.
const CONSENT_LIFETIME_MS: u64 = 30 * DAY_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const HOUR_MS: u64 = 3_600_000;
/// How long the API waits for the ledger.
const PATIENCE: Duration = Duration::from_secs(60);

/// A person as the form names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// A condition of the matter does not hold; what the package says of it.
    #[error("{} / {}", .0.zh, .0.en)]
    NotEligible(Text),
    /// The ledger refused.
    #[error("the ledger refused: {}", .0.code())]
    Refused(Refusal),
    /// A terminal identified as many people today as it may.
    #[error(
        "this terminal identified {0} people today, and may not identify more; take another, or raise `terminal_per_day`"
    )]
    TerminalLimit(u32),
    /// It cannot be erased yet.
    #[error("the case cannot be erased: {0}")]
    Kept(crate::Kept),
    /// The ledger could not be reached.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The vault could not be used.
    #[error(transparent)]
    Vault(#[from] crate::VaultError),
}

/// The longest value of a form, and the longest name of an officer or whoever else asks, in characters.
pub(crate) const VALUE_CHARS_MAX: usize = 128;
/// The longest reason an officer may give, in characters.
pub(crate) const REASON_CHARS_MAX: usize = 500;

/// Whether what somebody writes of themselves or as their reason is there, and no longer than it may be.
pub(crate) fn check_words(field: &'static str, words: &str, most: usize) -> Result<(), CaseError> {
    if (1..=most).contains(&words.trim().chars().take(most + 1).count()) {
        return Ok(());
    }
    Err(CaseError::Invalid { field: field.into(), message: format!("it has from 1 to {most} characters") })
}

impl Person {
    /// As a package refers to them.
    fn values(&self) -> BTreeMap<String, String> {
        [("id".to_owned(), self.id.clone()), ("name".to_owned(), self.name.clone())].into()
    }
}

fn texts(form: &BTreeMap<FieldId, String>) -> BTreeMap<String, String> {
    form.iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
}

/// The people of an application, in the order of the package's roles.
fn people_of(
    package: &Package,
    given: &BTreeMap<RoleId, Person>,
) -> Result<Vec<(RoleId, Person)>, CaseError> {
    let invalid = |role: &RoleId, message: &str| CaseError::Invalid {
        field: role.to_string(),
        message: message.into(),
    };
    // names that are none are not repeated: they may be anything
    if given.keys().any(|id| !package.parties.iter().any(|r| &r.id == id)) {
        return Err(CaseError::Invalid {
            field: "parties".into(),
            message: "the matter has other parties".into(),
        });
    }
    let mut people = Vec::new();
    for role in &package.parties {
        let Some(person) = given.get(&role.id) else {
            if role.optional {
                continue;
            }
            return Err(invalid(&role.id, "it is missing"));
        };
        let id = identifier::resident(&person.id).map_err(|e| invalid(&role.id, &e.to_string()))?;
        let name = person.name.trim().to_owned();
        if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
            return Err(invalid(&role.id, "the name is missing or longer than 64 characters"));
        }
        // the same person twice in one role would sign twice for one share of a thing
        let same_role = |other: &RoleId| {
            let of = |id: &RoleId| package.parties.iter().find(|p| &p.id == id).and_then(|p| p.of.clone());
            of(other).is_some() && of(other) == of(&role.id)
        };
        if people.iter().any(|(other, p): &(RoleId, Person)| p.id == id && same_role(other)) {
            return Err(invalid(&role.id, "the same person stands in this role already"));
        }
        people.push((role.id.clone(), Person { id, name }));
    }
    Ok(people)
}

impl<S: Source> Flow<S> {
    /// Opens a case. The same application while one is open is refused as [`Refusal::Duplicate`].
    pub async fn open_case(&self, new: NewCase) -> Result<CaseId, CaseError> {
        let package = self.package(&new.matter).ok_or(CaseError::Unknown("matter"))?;
        if !self.is_published(&package) {
            return Err(CaseError::Unknown("matter"));
        }
        let form = self.form_of(&package, &new.form)?;
        let people = people_of(&package, &new.parties)?;
        let mut values = BTreeMap::from([("form".to_owned(), texts(&form))]);
        values.extend(people.iter().map(|(role, person)| (role.to_string(), person.values())));
        let now = self.host.now_ms();
        for condition in &package.eligibility {
            if !crate::case::holds(&package, &condition.when, &values, now).unwrap_or(false) {
                return Err(CaseError::NotEligible(condition.says.clone()));
            }
        }
        let mut kept = BTreeMap::new();
        let mut parties = Vec::new();
        for (role, person) in people {
            let opening = Opening::fresh("party", person.id.clone());
            let pseudonym = Pseudonym(crypto::random());
            parties.push(Party { role: role.clone(), pseudonym, subject: opening.commitment(self.suite()) });
            kept.insert(role, (person, opening));
        }
        let same: Vec<_> = package.same.iter().map(|f| form.get(f).cloned().unwrap_or_default()).collect();
        let tag = crypto::keyed_hash(
            self.suite(),
            self.keys.storage.bytes(),
            "tongban/same/1",
            &encode(&(package.id.as_str(), same)),
        );
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

    /// What was filled in, each value as its data element has it.
    fn form_of(
        &self,
        package: &Package,
        given: &BTreeMap<FieldId, String>,
    ) -> Result<BTreeMap<FieldId, String>, CaseError> {
        let invalid = |field: &FieldId, message: &str| CaseError::Invalid {
            field: field.to_string(),
            message: message.into(),
        };
        if given.keys().any(|id| !package.form.iter().any(|f| &f.id == id)) {
            return Err(CaseError::Invalid {
                field: "form".into(),
                message: "the matter has other fields".into(),
            });
        }
        let mut form = BTreeMap::new();
        for field in &package.form {
            let value = given.get(&field.id).map(|v| v.trim()).filter(|v| !v.is_empty());
            let Some(value) = value else {
                if field.optional {
                    continue;
                }
                return Err(invalid(&field.id, "it is missing"));
            };
            if value.chars().count() > VALUE_CHARS_MAX || value.chars().any(char::is_control) {
                return Err(invalid(
                    &field.id,
                    "it is longer than 128 characters, or holds control characters",
                ));
            }
            let chosen = |c: &crate::package::Choice| c.id.as_str() == value;
            if !field.choices.is_empty() && !field.choices.iter().any(chosen) {
                return Err(invalid(&field.id, "it is none of the values to choose from"));
            }
            let value = self.gateway.standard().value(&field.element, value);
            form.insert(field.id.clone(), value.map_err(|message| invalid(&field.id, &message))?);
        }
        Ok(form)
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
        let days = self.subscribed_days(case, role);
        let lifetime = CONSENT_LIFETIME_MS.max(u64::from(days) * DAY_MS + HOUR_MS);
        // the ledger takes no longer one, and its clock may be a little behind
        let expires_ms = self.host.now_ms() + lifetime.min(180 * DAY_MS - HOUR_MS);
        let nonce = u64::from_le_bytes(crypto::random());
        self.consent_of(case, role, language, expires_ms, nonce)
    }

    /// The longest subscription on a party's consent that this case may come to, in days.
    fn subscribed_days(&self, id: CaseId, role: &RoleId) -> u32 {
        let state = self.lock();
        let Some(case) = state.cases.get(&id) else { return 0 };
        let Some(package) = self.packages.get(&case.matter) else { return 0 };
        let items = case.consent_items(&package, role);
        items.iter().filter_map(|i| package.step(&i.step)?.subscribe_days).max().unwrap_or(0)
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
        let items = case.consent_items(&package, role);
        let (_, roster) = self.chain.roster();
        let resources: Option<Vec<_>> = items.iter().map(|item| self.catalogue.get(&item.resource)).collect();
        let resources = resources.ok_or(CaseError::Unknown("resource"))?;
        let mut lines = Vec::new();
        for (item, resource) in items.iter().zip(&resources) {
            let step = package.step(&item.step).ok_or(CaseError::Unknown("step"))?;
            let fields = resource.fields.iter().map(|f| (&f.id, &f.title));
            let titles: BTreeMap<_, _> =
                fields.chain(resource.predicates.iter().map(|p| (&p.id, &p.title))).collect();
            let names = item.what.names();
            lines.push(ConsentLine {
                recipient: &roster.member(&item.recipient).ok_or(CaseError::Unknown("department"))?.title,
                holder: &roster.member(&item.holder).ok_or(CaseError::Unknown("department"))?.title,
                resource: &resource.title,
                names: names.iter().filter_map(|n| titles.get(n).copied()).collect(),
                purpose: step.purpose.as_ref().ok_or(CaseError::Unknown("purpose"))?,
                subscribe: step.subscribe_days.map(|days| (days, step.subscribe_after_end)),
            });
        }
        let text = consent_text(
            language,
            &package.title,
            id,
            &named.title,
            &local_minute(expires_ms),
            package.retain_days,
            &lines,
        );
        let terms = ConsentTerms {
            chain: self.chain.rules().chain,
            case: id,
            role: role.clone(),
            subject: party.subject,
            items,
            language,
            text: crypto::hash(self.suite(), "tongban/text/1", &[text.as_bytes()]),
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
        let text = self.text_of(&terms)?;
        // the exact words outlive any later change of a title
        self.vault.put(&format!("case/{}/text/{}", terms.case, terms.text), text.as_bytes()).await?;
        let event = self.accepted(Body::GiveConsent(GiveConsent { terms, signature })).await?;
        Ok(ConsentId(event.id.0))
    }

    /// The text of terms, where they are what a party would be shown now.
    ///
    /// # Errors
    /// Where they are others, or there is no such case or role.
    pub fn text_of(&self, terms: &ConsentTerms) -> Result<String, CaseError> {
        let (text, shown) =
            self.consent_of(terms.case, &terms.role, terms.language, terms.expires_ms, terms.nonce)?;
        if shown != *terms {
            return Err(CaseError::Invalid {
                field: "terms".into(),
                message: "they are not the ones that were shown".into(),
            });
        }
        Ok(text)
    }

    /// Records a party's withdrawal.
    pub async fn withdraw_consent(&self, consent: ConsentId, signature: [u8; 64]) -> Result<(), CaseError> {
        self.accepted(Body::WithdrawConsent(WithdrawConsent { consent, signature })).await.map(drop)
    }

    /// A person confirms an adverse decision that waits for them (PIPL 24); the case is settled as its rule says.
    pub async fn confirm_decision(&self, case: CaseId, officer: &str) -> Result<(), CaseError> {
        check_words("officer", officer, VALUE_CHARS_MAX)?;
        let (step, result) =
            self.lock().unconfirmed.get(&case).cloned().ok_or(CaseError::Unknown("decision that waits"))?;
        let opening = Opening::fresh("officer", officer);
        self.vault
            .put(&format!("case/{case}/officer/{}", opening.commitment(self.suite())), &encode(&opening))
            .await?;
        let decide =
            self.decision(case, &step, result.as_str(), Some(opening.commitment(self.suite()))).await?;
        self.accepted(Body::Decide(decide)).await?;
        self.lock().unconfirmed.remove(&case);
        Ok(())
    }

    /// Lets a case that rests go on: the decision it rests on and what that decision read are made once more. `who` asks
    /// for it and why; both stay in the vault.
    pub async fn resume_case(&self, id: CaseId, who: &str, reason: &str) -> Result<(), CaseError> {
        check_words("who", who, VALUE_CHARS_MAX)?;
        check_words("reason", reason, REASON_CHARS_MAX)?;
        let again = {
            let state = self.lock();
            let case = state.cases.get(&id).ok_or(CaseError::Unknown("case"))?;
            let package = self.packages.get(&case.matter).ok_or(CaseError::Unknown("matter"))?;
            if !case.may_resume(&package) {
                return Err(CaseError::Refused(Refusal::WrongState));
            }
            case.again(&package)
        };
        let event = self.resume(id, again, &format!("{who}: {reason}")).await?;
        match event.outcome {
            Outcome::Accepted(_) => {
                self.caught_up(event.height).await;
                self.work_as_handler();
                Ok(())
            }
            Outcome::Refused(refusal) => Err(CaseError::Refused(refusal)),
        }
    }

    pub(crate) async fn resume(
        &self,
        id: CaseId,
        again: Vec<StepId>,
        reason: &str,
    ) -> Result<Event, FlowError> {
        let opening = Opening::fresh("resumed", reason);
        self.vault
            .put(&format!("case/{id}/resumed/{}", opening.commitment(self.suite())), &encode(&opening))
            .await?;
        let resume = ResumeCase { case: id, again, reason: opening.commitment(self.suite()) };
        Ok(self.submit_and_wait(Body::ResumeCase(resume), PATIENCE).await?)
    }

    /// An officer refuses a case that rests, before its pivot. Who and why stay in the vault; the code is public.
    pub async fn refuse_case(&self, id: CaseId, officer: &str, reason: &str) -> Result<(), CaseError> {
        check_words("who", officer, VALUE_CHARS_MAX)?;
        check_words("reason", reason, REASON_CHARS_MAX)?;
        let (step, inputs) = {
            let state = self.lock();
            let case = state.cases.get(&id).ok_or(CaseError::Unknown("case"))?;
            let package = self.packages.get(&case.matter).ok_or(CaseError::Unknown("matter"))?;
            if !case.may_refuse(&package) {
                return Err(CaseError::Refused(Refusal::WrongState));
            }
            let resting = case.settled.as_ref().filter(|s| !s.outcome.is_final());
            let inputs = case.commitments.iter().map(|(_, c)| *c).collect();
            (resting.ok_or(CaseError::Unknown("case that rests"))?.step.clone(), inputs)
        };
        let opening = Opening::fresh("officer", officer);
        self.vault
            .put(&format!("case/{id}/officer/{}", opening.commitment(self.suite())), &encode(&opening))
            .await?;
        self.vault.put(&format!("case/{id}/note"), reason.as_bytes()).await?;
        let decide = Decide {
            case: id,
            step: step.clone(),
            rule: crypto::hash(self.suite(), "tongban/rule/1", &[b"an officer's own decision"]),
            inputs,
            passed: false,
            reason: self.committed(id, REFUSED_BY_OFFICER).await?,
            adverse: true,
            confirmed_by: Some(opening.commitment(self.suite())),
        };
        let decided = self.accepted(Body::Decide(decide)).await?;
        // settled as every refusal is, after what was done is undone
        self.caught_up(decided.height).await;
        self.work_as_handler();
        Ok(())
    }

    /// Waits until a case is over; at once where something has to be undone first, which may take a department days.
    pub async fn over_soon(&self, id: CaseId) {
        loop {
            let seen = self.changes.get();
            let waits = {
                let state = self.lock();
                let case = state.cases.get(&id).filter(|c| !c.is_over());
                let package = case.and_then(|c| self.packages.get(&c.matter));
                case.zip(package).is_some_and(|(c, package)| !c.holds_anything(&package))
            };
            if !waits || !self.changes.reached(seen + 1).await {
                return;
            }
        }
    }

    /// An officer who looked into why a case rests lets it pass the rule it rests on, where the package allows that; the other rules
    /// of the decision are looked at again. Who and why stay in the vault.
    pub async fn pass_case(&self, id: CaseId, officer: &str, reason: &str) -> Result<(), CaseError> {
        check_words("who", officer, VALUE_CHARS_MAX)?;
        check_words("reason", reason, REASON_CHARS_MAX)?;
        let (step, result, inputs) = {
            let state = self.lock();
            let case = state.cases.get(&id).ok_or(CaseError::Unknown("case"))?;
            let package = self.packages.get(&case.matter).ok_or(CaseError::Unknown("matter"))?;
            let rule = case.may_pass(&package).ok_or(CaseError::Refused(Refusal::WrongState))?;
            let settled = case.settled.as_ref().ok_or(CaseError::Unknown("case that rests"))?;
            let inputs = case.commitments.iter().map(|(_, c)| *c).collect();
            (settled.step.clone(), rule.result.clone(), inputs)
        };
        let opening = Opening::fresh("officer", officer);
        let confirmed = opening.commitment(self.suite());
        self.vault.put(&format!("case/{id}/officer/{confirmed}"), &encode(&opening)).await?;
        self.vault.put(&format!("case/{id}/passed/{step}/{result}"), reason.as_bytes()).await?;
        let decide = Decide {
            case: id,
            step: step.clone(),
            rule: crypto::hash(self.suite(), "tongban/rule/1", &[b"an officer's own decision"]),
            inputs,
            passed: true,
            reason: self.committed(id, &format!("{PASSED_OVER}{result}")).await?,
            adverse: false,
            confirmed_by: Some(confirmed),
        };
        self.accepted(Body::Decide(decide)).await?;
        let event = self.resume(id, vec![step], &format!("{officer}: {reason}")).await?;
        match event.outcome {
            Outcome::Accepted(_) => {
                self.caught_up(event.height).await;
                self.work_as_handler();
                Ok(())
            }
            Outcome::Refused(refusal) => Err(CaseError::Refused(refusal)),
        }
    }

    /// What an officer wrote to the applicant when they refused the case.
    pub async fn note(&self, id: CaseId) -> Option<String> {
        let note = self.vault.get(&format!("case/{id}/note")).await.ok().flatten()?;
        String::from_utf8(note).ok()
    }

    pub(crate) async fn accepted(&self, body: Body) -> Result<Event, CaseError> {
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
        self.followed.reached(height).await;
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
        values.insert("form".to_string(), texts(&kept.form));
        for (role, (person, _)) in kept.parties {
            values.insert(role.to_string(), person.values());
        }
        Ok(values)
    }

    pub(crate) async fn party_opening(&self, case: CaseId, role: &RoleId) -> Result<Opening, FlowError> {
        let kept = self.vault.get(&format!("case/{case}/form")).await?;
        let kept: Option<Kept> = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        kept.and_then(|mut k| k.parties.remove(role))
            .map(|(_, o)| o)
            .ok_or(FlowError::Inconsistent("a case's form is gone"))
    }
}
