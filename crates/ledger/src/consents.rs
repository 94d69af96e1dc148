//! Terminals, identification and consent.

use crate::{
    actions::held,
    apply::Scene,
    cases::{matter_of, open_case},
    state::{ConsentRecord, Decision, Identified, Key, Stop, ensure},
};
use model::*;

/// How far a terminal's clock may be from the block's: 10 minutes.
const CLOCK_SKEW_MS_MAX: u64 = 600_000;
/// The most permissions in one consent.
const ITEMS_MAX: usize = 128;
/// The longest a consent may serve: 180 days.
const CONSENT_LIFETIME_MS_MAX: u64 = 180 * 24 * 3_600_000;

/// A department enrols or revokes a terminal of its own.
pub(crate) fn enrol_terminal(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &EnrolTerminal,
) -> Result<Fact, Stop> {
    ensure(new.key.suite() == scene.rules.suite(), Refusal::BadSignature)?;
    state.put(&Key::Terminal(scene.signer.clone(), new.key), &new.active);
    Ok(Fact::Recorded)
}

/// The handler records that one of its active terminals identified a party whose commitment the case names.
pub(crate) fn identify(scene: &Scene<'_>, state: &mut Decision<'_>, new: &Identify) -> Result<Fact, Stop> {
    let said = &new.assertion;
    let mut case = open_case(state, said.case)?;
    ensure(&case.handler == scene.signer, Refusal::NotYours)?;
    let terminal = Key::Terminal(scene.signer.clone(), said.terminal);
    ensure(state.get(&terminal)?.unwrap_or(false), Refusal::UnknownTerminal)?;
    let party = case.parties.iter_mut().find(|p| p.party.role == said.role).ok_or(Refusal::WrongParty)?;
    // a party is identified once: another key could neither withdraw nor have signed what was signed before
    ensure(party.identified.is_none(), Refusal::AlreadyUsed)?;
    ensure(party.party.subject == said.subject && said.chain == scene.rules.chain, Refusal::WrongParty)?;
    ensure(said.at_ms.abs_diff(scene.block.time_ms) <= CLOCK_SKEW_MS_MAX, Refusal::Expired)?;
    let signed = crypto::verify(&said.terminal, &said.signing_bytes(), &new.signature);
    ensure(signed && said.signer.suite() == scene.rules.suite(), Refusal::BadSignature)?;
    party.identified = Some(Identified { signer: said.signer, level: said.level });
    state.put(&Key::Case(said.case), &case);
    Ok(Fact::Recorded)
}

/// An identified party consents, with the key named at identification, to needs the matter declares for them.
/// One consent for each party and case; after a withdrawal or expiry a new one may be given.
pub(crate) fn give(scene: &Scene<'_>, state: &mut Decision<'_>, new: &GiveConsent) -> Result<Fact, Stop> {
    let terms = &new.terms;
    ensure(terms.items.len() <= ITEMS_MAX, Refusal::Oversized)?;
    let case = open_case(state, terms.case)?;
    ensure(&case.handler == scene.signer, Refusal::NotYours)?;
    // a case that goes back asks for nothing more
    ensure(!held(scene, state, terms.case)?.undoing, Refusal::WrongState)?;
    let party = case.parties.iter().find(|p| p.party.role == terms.role).ok_or(Refusal::WrongParty)?;
    ensure(party.party.subject == terms.subject && terms.chain == scene.rules.chain, Refusal::WrongParty)?;
    let identified = party.identified.as_ref().ok_or(Refusal::NotIdentified)?;
    let matter = matter_of(state, &case)?;
    for item in &terms.items {
        let declared = matter.published.needs.iter().any(|n| covers(item, n) && n.party == terms.role);
        ensure(declared, Refusal::UndeclaredStep)?;
    }
    let mut steps: Vec<_> = terms.items.iter().map(|i| &i.step).collect();
    steps.sort();
    steps.dedup();
    ensure(!steps.is_empty() && steps.len() == terms.items.len(), Refusal::WrongShape)?;
    let now = scene.block.time_ms;
    ensure(
        terms.expires_ms > now && terms.expires_ms - now <= CONSENT_LIFETIME_MS_MAX,
        Refusal::ConsentExpired,
    )?;
    let current = Key::PartyConsent(terms.case, terms.role.clone());
    if let Some(id) = state.get::<ConsentId>(&current)? {
        let old: ConsentRecord = state.need(&Key::Consent(id), Refusal::NoConsent)?;
        ensure(old.withdrawn || old.terms.expires_ms < now, Refusal::ConsentRepeated)?;
    }
    ensure(
        crypto::verify(&identified.signer, &terms.signing_bytes(), &new.signature),
        Refusal::BadSignature,
    )?;
    let id = ConsentId(scene.id.0);
    state.put(&current, &id);
    state.put(&Key::Consent(id), &ConsentRecord { terms: terms.clone(), withdrawn: false });
    Ok(Fact::Recorded)
}

/// A party withdraws, with the same key. Answers ordered after this are refused.
pub(crate) fn withdraw(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &WithdrawConsent,
) -> Result<Fact, Stop> {
    let mut consent: ConsentRecord = state.need(&Key::Consent(new.consent), Refusal::NoConsent)?;
    ensure(!consent.withdrawn, Refusal::ConsentWithdrawn)?;
    let case: crate::CaseRecord = state.need(&Key::Case(consent.terms.case), Refusal::UnknownCase)?;
    let party =
        case.parties.iter().find(|p| p.party.role == consent.terms.role).ok_or(Refusal::WrongParty)?;
    let identified = party.identified.as_ref().ok_or(Refusal::NotIdentified)?;
    let message = WithdrawConsent::signing_bytes(scene.rules.chain, new.consent);
    ensure(crypto::verify(&identified.signer, &message, &new.signature), Refusal::BadSignature)?;
    consent.withdrawn = true;
    state.put(&Key::Consent(new.consent), &consent);
    Ok(Fact::Recorded)
}

/// Whether a consent item is exactly what a declared need says, and that need rests on consent.
pub(crate) fn covers(item: &ConsentItem, need: &Need) -> bool {
    need.basis == NeedBasis::Consent
        && item.step == need.step
        && item.recipient == need.recipient
        && item.holder == need.holder
        && item.resource == need.resource
        && item.what == need.what
}
