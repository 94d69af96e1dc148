//! Opening, deciding and settling cases.

use crate::{
    actions::held,
    apply::Scene,
    state::{CaseRecord, Decision, Key, MatterRecord, PartyRecord, Stop, ensure},
};
use model::*;

/// The most parties a case may have.
const PARTIES_MAX: usize = 64;
/// The most steps one resumption repeats.
const AGAIN_MAX: usize = 128;
/// The most times one case is resumed: what its parties consented to stays bounded.
const RESUMED_MAX: u32 = 16;

/// The matter's handler opens a case of its newest version; the same application is open only once.
pub(crate) fn open(scene: &Scene<'_>, state: &mut Decision<'_>, new: &OpenCase) -> Result<Fact, Stop> {
    let matter: MatterRecord =
        state.need(&Key::Matter(new.matter.clone(), new.version), Refusal::UnknownMatter)?;
    ensure(&matter.handler == scene.signer, Refusal::NotYours)?;
    let newest: u32 = state.need(&Key::MatterVersion(new.matter.clone()), Refusal::UnknownMatter)?;
    ensure(new.version == newest, Refusal::WrongVersion)?;
    let tag = Key::OpenTag(new.matter.clone(), new.tag);
    if let Some(open) = state.get::<CaseId>(&tag)?.filter(|_| !planted("duplicate_case")) {
        let open: CaseRecord = state.need(&Key::Case(open), Refusal::UnknownCase)?;
        ensure(open.outcome.is_some_and(CaseOutcome::is_final), Refusal::Duplicate)?;
    }
    ensure((1..=PARTIES_MAX).contains(&new.parties.len()), Refusal::WrongShape)?;
    let mut roles: Vec<_> = new.parties.iter().map(|p| &p.role).collect();
    roles.sort();
    roles.dedup();
    ensure(roles.len() == new.parties.len(), Refusal::WrongShape)?;
    let case = CaseId(scene.id.0);
    state.put(&tag, &case);
    let parties = new.parties.iter().map(|p| PartyRecord { party: p.clone(), identified: None }).collect();
    let record = CaseRecord {
        matter: new.matter.clone(),
        version: new.version,
        handler: scene.signer.clone(),
        tag: new.tag,
        parties,
        outcome: None,
        acting: 0,
        resumed: 0,
        granted: 0,
        refused: 0,
    };
    state.put(&Key::Case(case), &record);
    Ok(Fact::Recorded)
}

/// The handler records a decision; an adverse one only with a person's confirmation.
pub(crate) fn decide(scene: &Scene<'_>, state: &mut Decision<'_>, new: &Decide) -> Result<Fact, Stop> {
    let case = open_case(state, new.case)?;
    ensure(&case.handler == scene.signer, Refusal::NotYours)?;
    ensure(!new.adverse || new.confirmed_by.is_some(), Refusal::Unconfirmed)?;
    ensure(!new.adverse || case.acting == 0, Refusal::WrongState)?;
    let key = Key::StepDecision(new.case, new.step.clone());
    // a case that rests is in the hands of a person, whose decision takes the place of the one it rests on
    let again = Key::Again(new.case, new.step.clone());
    let may = state.get::<CommandId>(&key)?.is_none()
        || case.outcome.is_some()
        || state.get(&again)?.unwrap_or(false);
    ensure(may, Refusal::AlreadyUsed)?;
    state.put(&again, &false);
    state.put(&key, &scene.id);
    Ok(Fact::Recorded)
}

/// The handler lets a case that rests go on; the named steps may be called or decided once more.
pub(crate) fn resume(scene: &Scene<'_>, state: &mut Decision<'_>, new: &ResumeCase) -> Result<Fact, Stop> {
    let mut case = open_case(state, new.case)?;
    ensure(&case.handler == scene.signer, Refusal::NotYours)?;
    ensure(case.outcome.is_some(), Refusal::WrongState)?;
    let repeats = u32::from(!new.again.is_empty());
    ensure(case.resumed + repeats <= RESUMED_MAX, Refusal::WrongState)?;
    ensure(new.again.len() <= AGAIN_MAX, Refusal::Oversized)?;
    case.outcome = None;
    case.resumed += repeats;
    state.put(&Key::Case(new.case), &case);
    for step in &new.again {
        state.put(&Key::Again(new.case, step.clone()), &true);
    }
    Ok(Fact::Recorded)
}

/// The handler settles a case. A case that merely rests (parked, needs a human, blocked) may be settled again.
pub(crate) fn settle(scene: &Scene<'_>, state: &mut Decision<'_>, new: &SettleCase) -> Result<Fact, Stop> {
    let mut case = open_case(state, new.case)?;
    ensure(&case.handler == scene.signer, Refusal::NotYours)?;
    let undone = matches!(new.outcome, CaseOutcome::Withdrawn | CaseOutcome::Refused);
    ensure(case.acting == 0 || !undone || planted("undo_after_pivot"), Refusal::WrongState)?;
    let held = held(scene, state, new.case)?;
    // what was done before the pivot is undone first; and a case in which that has begun does not end in any other way
    ensure(held.acts == 0 || !undone || planted("left_standing"), Refusal::WrongState)?;
    ensure(!held.undoing || undone || !new.outcome.is_final(), Refusal::WrongState)?;
    case.outcome = Some(new.outcome);
    state.put(&Key::Case(new.case), &case);
    Ok(Fact::Settled(case.granted, case.refused))
}

/// The handler counts the calls of a case that is over once more: under a subscription some may have come since it was settled.
pub(crate) fn count(scene: &Scene<'_>, state: &mut Decision<'_>, new: &CountCase) -> Result<Fact, Stop> {
    let case: CaseRecord = state.need(&Key::Case(new.case), Refusal::UnknownCase)?;
    ensure(&case.handler == scene.signer, Refusal::NotYours)?;
    ensure(case.outcome.is_some_and(CaseOutcome::is_final), Refusal::WrongState)?;
    Ok(Fact::Settled(case.granted, case.refused))
}

/// Counts a call that was refused in a case, so that no refusal is missing from the case's count. Only departments that the
/// matter lets ask anything at all are counted: others cannot raise it.
pub(crate) fn count_refusal(state: &mut Decision<'_>, id: CaseId, signer: &DepartmentId) -> Result<(), Stop> {
    let Some(mut case) = state.get::<CaseRecord>(&Key::Case(id))? else { return Ok(()) };
    let matter = matter_of(state, &case)?;
    if matter.published.needs.iter().any(|n| &n.recipient == signer) {
        case.refused = case.refused.saturating_add(1);
        state.put(&Key::Case(id), &case);
    }
    Ok(())
}

/// Reads a case in which things can still happen.
pub(crate) fn open_case(state: &Decision<'_>, id: CaseId) -> Result<CaseRecord, Stop> {
    let case: CaseRecord = state.need(&Key::Case(id), Refusal::UnknownCase)?;
    ensure(!case.outcome.is_some_and(CaseOutcome::is_final), Refusal::CaseClosed)?;
    Ok(case)
}

/// Reads the matter version a case runs.
pub(crate) fn matter_of(state: &Decision<'_>, case: &CaseRecord) -> Result<MatterRecord, Stop> {
    state.need(&Key::Matter(case.matter.clone(), case.version), Refusal::UnknownMatter)
}
