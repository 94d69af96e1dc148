//! Subscriptions: who may be told that what a call answered has changed, for how long, and that it was.

use crate::{
    apply::Scene,
    calls::consent_in_force,
    cases::{matter_of, open_case},
    sharing,
    state::{
        CallRecord, CallState, CaseRecord, ConsentRecord, Decision, Key, MatterRecord, Position, Stop,
        SubscribableRecord, SubscriptionRecord, ensure,
    },
};
use model::*;

const DAY_MS: u64 = 24 * 3_600_000;
/// The most changes told under one subscription: each lets one call be made, and a case has room for a thousand.
const CHANGES_MAX: u32 = 1000;

/// The handler declares, once for each version, which answers of its matter may be subscribed to. Consents and approvals from before do
/// not cover it: see [`subscribe`].
pub(crate) fn declare(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &DeclareSubscriptions,
) -> Result<Fact, Stop> {
    let matter: MatterRecord =
        state.need(&Key::Matter(new.matter.clone(), new.version), Refusal::UnknownMatter)?;
    ensure(&matter.handler == scene.signer, Refusal::NotYours)?;
    let needs = &matter.published.needs;
    ensure(!new.steps.is_empty() && new.steps.len() <= needs.len(), Refusal::WrongShape)?;
    let mut steps: Vec<_> = new.steps.iter().map(|s| &s.step).collect();
    steps.sort();
    steps.dedup();
    ensure(steps.len() == new.steps.len(), Refusal::WrongShape)?;
    for Subscribable { step, days, .. } in &new.steps {
        let need = needs.iter().find(|n| &n.step == step).ok_or(Refusal::UndeclaredStep)?;
        // what people look up about themselves is not kept up to date for anybody
        ensure(need.basis != NeedBasis::SelfAccess, Refusal::UndeclaredStep)?;
        ensure((1..=SUBSCRIPTION_DAYS_MAX).contains(days), Refusal::WrongShape)?;
    }
    let key = Key::Subscribable(new.matter.clone(), new.version);
    ensure(state.get::<SubscribableRecord>(&key)?.is_none(), Refusal::AlreadyUsed)?;
    state.put(&key, &SubscribableRecord { height: scene.block.height, steps: new.steps.clone() });
    Ok(Fact::Recorded)
}

/// The asker of an opened call subscribes to changes of its answer, no longer than declared and than what the call rests on.
pub(crate) fn subscribe(scene: &Scene<'_>, state: &mut Decision<'_>, new: &Subscribe) -> Result<Fact, Stop> {
    let call: CallRecord = state.need(&Key::Call(new.call), Refusal::UnknownCall)?;
    ensure(&call.asker == scene.signer, Refusal::NotYours)?;
    ensure(call.state == CallState::Opened, Refusal::WrongState)?;
    let case = open_case(state, call.case)?;
    let newest: (CallId, u32) =
        state.need(&Key::StepCall(call.case, call.step.clone()), Refusal::UnknownCall)?;
    ensure(newest.0 == new.call, Refusal::WrongState)?;
    let declared: SubscribableRecord =
        state.need(&Key::Subscribable(case.matter.clone(), case.version), Refusal::UndeclaredStep)?;
    let of_step = declared.steps.iter().find(|s| s.step == call.step);
    let Subscribable { days, after_end, .. } = of_step.ok_or(Refusal::UndeclaredStep)?.clone();
    let now = scene.block.time_ms;
    let longest = now + u64::from(days) * DAY_MS;
    ensure(new.until_ms > now && new.until_ms <= longest, Refusal::TooLate)?;
    match call.consent {
        Some(id) => {
            let consent: ConsentRecord = state.need(&Key::Consent(id), Refusal::NoConsent)?;
            consent_in_force(&consent, now)?;
            ensure(new.until_ms <= consent.terms.expires_ms, Refusal::ConsentExpired)?;
            // the text of a consent from before the declaration said nothing of it
            let given: Position = state.need(&Key::Command(CommandId(id.0)), Refusal::NoConsent)?;
            ensure(given.height > declared.height, Refusal::NoConsent)?;
        }
        None => {
            let basis: ApprovalId = state.need(&Key::CallBasis(new.call), Refusal::BasisNotApproved)?;
            check_basis(scene, state, &basis, &call, &case)?;
            let approval: ApproveBasis =
                state.need(&Key::Approval(call.holder.clone(), basis), Refusal::BasisNotApproved)?;
            ensure(new.until_ms <= approval.expires_ms, Refusal::BasisNotApproved)?;
        }
    }
    let place = Key::StepSubscription(call.case, call.step.clone());
    if let Some(id) = state.get::<SubscriptionId>(&place)? {
        let old: SubscriptionRecord = state.need(&Key::Subscription(id), Refusal::UnknownSubscription)?;
        ensure(!old.lives(now), Refusal::AlreadyUsed)?;
    }
    let id = SubscriptionId(scene.id.0);
    let record = SubscriptionRecord {
        case: call.case,
        step: call.step,
        asker: call.asker,
        holder: call.holder,
        consent: call.consent,
        until_ms: new.until_ms,
        after_end,
        changes: 0,
        ended: false,
    };
    state.put(&place, &id);
    state.put(&Key::Subscription(id), &record);
    Ok(Fact::Recorded)
}

fn check_basis(
    scene: &Scene<'_>,
    state: &Decision<'_>,
    basis: &ApprovalId,
    call: &CallRecord,
    case: &CaseRecord,
) -> Result<(), Stop> {
    let matter = matter_of(state, case)?;
    let need = matter.published.needs.iter().find(|n| n.step == call.step && n.recipient == call.asker);
    sharing::check_basis(scene, state, basis, &case.matter, need.ok_or(Refusal::UndeclaredStep)?)
}

/// The holder notes a change: the step may be asked once more. What changed is not said here.
pub(crate) fn note_change(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &NoteChange,
) -> Result<Fact, Stop> {
    let key = Key::Subscription(new.subscription);
    let mut record: SubscriptionRecord = state.need(&key, Refusal::UnknownSubscription)?;
    ensure(&record.holder == scene.signer, Refusal::NotYours)?;
    ensure(record.lives(scene.block.time_ms), Refusal::UnknownSubscription)?;
    if let Some(id) = record.consent {
        let consent: ConsentRecord = state.need(&Key::Consent(id), Refusal::NoConsent)?;
        consent_in_force(&consent, scene.block.time_ms)?;
    }
    case_to_ask(scene, state, record.case, &record.step)?;
    ensure(record.changes < CHANGES_MAX, Refusal::Oversized)?;
    ensure(new.number == record.changes + 1, Refusal::AlreadyUsed)?;
    record.changes = new.number;
    state.put(&Key::Again(record.case, record.step.clone()), &true);
    state.put(&key, &record);
    Ok(Fact::Recorded)
}

/// Its asker or its holder ends a subscription.
pub(crate) fn end(scene: &Scene<'_>, state: &mut Decision<'_>, new: &EndSubscription) -> Result<Fact, Stop> {
    let key = Key::Subscription(new.subscription);
    let mut record: SubscriptionRecord = state.need(&key, Refusal::UnknownSubscription)?;
    ensure(&record.asker == scene.signer || &record.holder == scene.signer, Refusal::NotYours)?;
    ensure(!record.ended, Refusal::UnknownSubscription)?;
    record.ended = true;
    state.put(&key, &record);
    Ok(Fact::Recorded)
}

/// The case a step's call may be asked and answered in: an open one, or one that is over while a subscription to
/// that step lives that was declared to outlast it.
pub(crate) fn case_to_ask(
    scene: &Scene<'_>,
    state: &Decision<'_>,
    id: CaseId,
    step: &StepId,
) -> Result<CaseRecord, Stop> {
    let case: CaseRecord = state.need(&Key::Case(id), Refusal::UnknownCase)?;
    let outcome = case.outcome.filter(|o| o.is_final());
    let Some(outcome) = outcome else { return Ok(case) };
    // what was refused or withdrawn has no purpose left
    ensure(matches!(outcome, CaseOutcome::Closed | CaseOutcome::ClosedPartly), Refusal::CaseClosed)?;
    ensure(scene.block.roster.protocol >= SUBSCRIPTION_PROTOCOL, Refusal::CaseClosed)?;
    let subscription: SubscriptionId =
        state.need(&Key::StepSubscription(id, step.clone()), Refusal::CaseClosed)?;
    let record: SubscriptionRecord = state.need(&Key::Subscription(subscription), Refusal::CaseClosed)?;
    ensure(record.after_end && record.lives(scene.block.time_ms), Refusal::CaseClosed)?;
    Ok(case)
}
