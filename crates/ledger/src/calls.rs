//! The call: Asked → Granted | Refused → Answered → Opened | Disputed | lapsed.

use crate::{
    apply::{CONFIRM_WITHIN_MS, Scene},
    cases::matter_of,
    catalogue::has_name,
    consents::covers,
    lists, policy, sharing,
    state::{CallRecord, CallState, CaseRecord, ConsentRecord, Decision, Key, Stop, ensure},
    subscriptions,
};
use model::*;

/// The most calls granted in one case: more than any matter needs, and no more than an access log can hold.
const CALLS_MAX: u32 = 1000;
/// The longest a holder may be given to answer: 30 days.
const ANSWER_WITHIN_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// Grants or refuses a call from the case, the matter's declared need, the catalogue and the basis.
pub(crate) fn ask(scene: &Scene<'_>, state: &mut Decision<'_>, new: &Ask) -> Result<Fact, Stop> {
    let mut case = subscriptions::case_to_ask(scene, state, new.case, &new.step)?;
    ensure(case.granted < CALLS_MAX, Refusal::Oversized)?;
    let matter = matter_of(state, &case)?;
    let declared = matter.published.needs.iter().find(|n| n.step == new.step && &n.recipient == scene.signer);
    let need = declared.ok_or(Refusal::UndeclaredStep)?;
    let resource: Resource = state.need(&Key::Resource(need.resource.clone()), Refusal::UnknownResource)?;
    let answers = resource.holder == need.holder && scene.block.roster.member(&need.holder).is_some();
    ensure(answers, Refusal::UnknownResource)?;
    ensure(!matches!(resource.share, ShareClass::NotShared { .. }), Refusal::NotShared)?;
    let names = need.what.names();
    ensure(names.iter().all(|n| has_name(&resource, n)), Refusal::UnknownField)?;
    check_basis(scene, state, new, &case, need)?;
    lists::check(scene, state, &case, new)?;
    check_first_or_retry(scene, state, new)?;
    let now = scene.block.time_ms;
    ensure(new.answer_by_ms > now && new.answer_by_ms - now <= ANSWER_WITHIN_MS_MAX, Refusal::TooLate)?;
    // a policy that is only tried is tried on what was asked under earlier rules too
    if scene.block.roster.protocol >= POLICY_PROTOCOL || scene.rules.trial.is_some() {
        policy::check(scene, state, new, &case, need, &resource)?;
    }
    if scene.block.roster.protocol >= SHARING_PROTOCOL {
        sharing::spend(scene, state, &case.matter, need)?;
        if let NeedBasis::Statutory(id) = &need.basis {
            state.put(&Key::CallBasis(CallId(scene.id.0)), id);
        }
    }

    let number = state.count(&Key::Granted(scene.signer.clone()))?;
    let call = CallId(scene.id.0);
    state.put(&Key::StepCall(new.case, new.step.clone()), &(call, new.attempt));
    let record = CallRecord {
        case: new.case,
        step: new.step.clone(),
        asker: scene.signer.clone(),
        holder: need.holder.clone(),
        names: names.len() as u32,
        consent: new.consent,
        answer_by_ms: new.answer_by_ms,
        state: CallState::Granted,
    };
    state.put(&Key::Call(call), &record);
    case.granted += 1;
    if !planted("uncounted_call") || case.granted % 3 != 0 {
        state.put(&Key::Case(new.case), &case);
    }
    Ok(Fact::Granted(number, case.granted))
}

/// The declared basis must be there: the party's consent in force, the holder's approval, or the party's own access.
fn check_basis(
    scene: &Scene<'_>,
    state: &Decision<'_>,
    new: &Ask,
    case: &CaseRecord,
    need: &Need,
) -> Result<(), Stop> {
    let now = scene.block.time_ms;
    match &need.basis {
        NeedBasis::Consent => {
            let id = new.consent.ok_or(Refusal::NoConsent)?;
            let consent: ConsentRecord = state.need(&Key::Consent(id), Refusal::NoConsent)?;
            let of_party = consent.terms.case == new.case && consent.terms.role == need.party;
            ensure(of_party && consent.terms.items.iter().any(|i| covers(i, need)), Refusal::NoConsent)?;
            consent_in_force(&consent, now)
        }
        NeedBasis::Statutory(id) => {
            ensure(new.consent.is_none(), Refusal::NoConsent)?;
            sharing::check_basis(scene, state, id, &case.matter, need)
        }
        NeedBasis::SelfAccess => {
            ensure(new.consent.is_none(), Refusal::NoConsent)?;
            let party =
                case.parties.iter().find(|p| p.party.role == need.party).ok_or(Refusal::WrongParty)?;
            ensure(party.identified.is_some(), Refusal::NotIdentified)
        }
    }
}

/// A step's call is used once. It may be tried again where the last try gave no data: declined, disputed, or unanswered
/// past its deadline.
fn check_first_or_retry(scene: &Scene<'_>, state: &mut Decision<'_>, new: &Ask) -> Result<(), Stop> {
    let last: Option<(CallId, u32)> = state.get(&Key::StepCall(new.case, new.step.clone()))?;
    let again = Key::Again(new.case, new.step.clone());
    let Some((call, attempt)) = last else {
        ensure(new.attempt == 0, Refusal::AlreadyUsed)?;
        state.put(&again, &false);
        return Ok(());
    };
    let last: CallRecord = state.need(&Key::Call(call), Refusal::UnknownCall)?;
    let gave_nothing = match last.state {
        CallState::Declined | CallState::Disputed => true,
        CallState::Granted => last.answer_by_ms < scene.block.time_ms,
        CallState::Answered { .. } | CallState::Opened | CallState::Lapsed => false,
    };
    // never two at once: one that may still be answered is waited for
    let may = gave_nothing || (last.state != CallState::Granted && state.get(&again)?.unwrap_or(false));
    ensure(may && new.attempt == attempt + 1, Refusal::AlreadyUsed)?;
    state.put(&again, &false);
    Ok(())
}

pub(crate) fn consent_in_force(consent: &ConsentRecord, now: u64) -> Result<(), Stop> {
    ensure(!consent.withdrawn, Refusal::ConsentWithdrawn)?;
    ensure(consent.terms.expires_ms >= now, Refusal::ConsentExpired)
}

/// The holder answers a granted call in time; the consent or statutory basis must still be in force at this point of the order.
pub(crate) fn answer(scene: &Scene<'_>, state: &mut Decision<'_>, new: &Answer) -> Result<Fact, Stop> {
    let mut call: CallRecord = state.need(&Key::Call(new.call), Refusal::UnknownCall)?;
    ensure(&call.holder == scene.signer, Refusal::NotYours)?;
    ensure(call.state == CallState::Granted, Refusal::WrongState)?;
    let case = subscriptions::case_to_ask(scene, state, call.case, &call.step)?;
    let now = scene.block.time_ms;
    ensure(call.answer_by_ms >= now, Refusal::TooLate)?;
    if let Some(id) = call.consent.filter(|_| !planted("answer_after_withdrawal")) {
        let consent: ConsentRecord = state.need(&Key::Consent(id), Refusal::NoConsent)?;
        consent_in_force(&consent, now)?;
    }
    call.state = match &new.reply {
        Reply::Data { commitments, .. } => {
            ensure(commitments.len() as u32 == call.names, Refusal::WrongShape)?;
            check_basis_still_serves(scene, state, new.call, &call, &case)?;
            CallState::Answered { confirm_by_ms: now + CONFIRM_WITHIN_MS }
        }
        Reply::Declined(_) => CallState::Declined,
    };
    state.put(&Key::Call(new.call), &call);
    Ok(Fact::Answered(state.count(&Key::Answered(scene.signer.clone()))?))
}

/// What was taken back serves no longer, as a consent that was withdrawn: from protocol 3 on. A holder can still decline.
fn check_basis_still_serves(
    scene: &Scene<'_>,
    state: &Decision<'_>,
    id: CallId,
    call: &CallRecord,
    case: &CaseRecord,
) -> Result<(), Stop> {
    if scene.block.roster.protocol < SHARING_PROTOCOL {
        return Ok(());
    }
    let Some(basis) = state.get::<ApprovalId>(&Key::CallBasis(id))? else { return Ok(()) };
    let matter = matter_of(state, case)?;
    let need = matter.published.needs.iter().find(|n| n.step == call.step && n.recipient == call.asker);
    sharing::check_basis(scene, state, &basis, &case.matter, need.ok_or(Refusal::UndeclaredStep)?)
}

/// The asker confirms or disputes an answer by its deadline.
pub(crate) fn confirm(scene: &Scene<'_>, state: &mut Decision<'_>, new: &Confirm) -> Result<Fact, Stop> {
    let mut call: CallRecord = state.need(&Key::Call(new.call), Refusal::UnknownCall)?;
    ensure(&call.asker == scene.signer, Refusal::NotYours)?;
    let CallState::Answered { confirm_by_ms } = call.state else { return Err(Refusal::WrongState.into()) };
    ensure(scene.block.time_ms <= confirm_by_ms, Refusal::TooLate)?;
    call.state = if new.dispute.is_some() { CallState::Disputed } else { CallState::Opened };
    state.put(&Key::Call(new.call), &call);
    Ok(Fact::Recorded)
}

/// After the deadline, silence is recorded and counted against the asker.
pub(crate) fn lapse(scene: &Scene<'_>, state: &mut Decision<'_>, new: &Lapse) -> Result<Fact, Stop> {
    let mut call: CallRecord = state.need(&Key::Call(new.call), Refusal::UnknownCall)?;
    ensure(&call.holder == scene.signer, Refusal::NotYours)?;
    let CallState::Answered { confirm_by_ms } = call.state else { return Err(Refusal::WrongState.into()) };
    ensure(scene.block.time_ms > confirm_by_ms, Refusal::TooEarly)?;
    call.state = CallState::Lapsed;
    state.count(&Key::Lapsed(call.asker.clone()))?;
    state.put(&Key::Call(new.call), &call);
    Ok(Fact::Recorded)
}
