//! Opening, deciding and settling cases.

use crate::{
    apply::Scene,
    state::{CaseRecord, Decision, Key, MatterRecord, PartyRecord, Stop, ensure},
};
use model::*;

/// The most parties a case may have.
const PARTIES_MAX: usize = 64;

/// The matter's handler opens a case of its newest version; the same application is open only once.
pub(crate) fn open(scene: &Scene<'_>, state: &mut Decision<'_>, new: &OpenCase) -> Result<Fact, Stop> {
    let matter: MatterRecord =
        state.need(&Key::Matter(new.matter.clone(), new.version), Refusal::UnknownMatter)?;
    ensure(&matter.handler == scene.signer, Refusal::NotYours)?;
    let newest: u32 = state.need(&Key::MatterVersion(new.matter.clone()), Refusal::UnknownMatter)?;
    ensure(new.version == newest, Refusal::WrongVersion)?;
    let tag = Key::OpenTag(new.matter.clone(), new.tag);
    if let Some(open) = state.get::<CaseId>(&tag)? {
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
    };
    state.put(&Key::Case(case), &record);
    Ok(Fact::Recorded)
}

/// The handler records a decision; an adverse one only with a person's confirmation.
pub(crate) fn decide(scene: &Scene<'_>, state: &mut Decision<'_>, new: &Decide) -> Result<Fact, Stop> {
    let case = open_case(state, new.case)?;
    ensure(&case.handler == scene.signer, Refusal::NotYours)?;
    ensure(!new.adverse || new.confirmed_by.is_some(), Refusal::Unconfirmed)?;
    let key = Key::StepDecision(new.case, new.step.clone());
    ensure(state.get::<CommandId>(&key)?.is_none(), Refusal::AlreadyUsed)?;
    state.put(&key, &scene.id);
    Ok(Fact::Recorded)
}

/// The handler settles a case. A case that merely rests (parked, needs a human, blocked) may be settled again.
pub(crate) fn settle(scene: &Scene<'_>, state: &mut Decision<'_>, new: &SettleCase) -> Result<Fact, Stop> {
    let mut case = open_case(state, new.case)?;
    ensure(&case.handler == scene.signer, Refusal::NotYours)?;
    let undone = matches!(new.outcome, CaseOutcome::Withdrawn | CaseOutcome::Refused);
    ensure(case.acting == 0 || !undone, Refusal::WrongState)?;
    case.outcome = Some(new.outcome);
    state.put(&Key::Case(new.case), &case);
    Ok(Fact::Recorded)
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
