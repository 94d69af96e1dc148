//! Actions: declared writes in a department's own system, once for each case and step.

use crate::{
    apply::Scene,
    cases::{matter_of, open_case},
    state::{ActionRecord, ActionState, CaseRecord, Decision, Key, Stop, ensure},
};
use model::*;

/// The handler requests an action the matter declares. A step's action is requested again only after it failed.
pub(crate) fn request(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &RequestAction,
) -> Result<Fact, Stop> {
    let mut case = open_case(state, new.case)?;
    ensure(&case.handler == scene.signer, Refusal::NotYours)?;
    let matter = matter_of(state, &case)?;
    let declared =
        matter.published.actions.iter().find(|a| a.0 == new.step).ok_or(Refusal::UndeclaredStep)?;
    let key = Key::StepAction(new.case, new.step.clone());
    if let Some(last) = state.get::<ActionId>(&key)? {
        let last: ActionRecord = state.need(&Key::Action(last), Refusal::UnknownAction)?;
        ensure(last.state == ActionState::Failed, Refusal::AlreadyUsed)?;
    }
    let id = ActionId(scene.id.0);
    state.put(&key, &id);
    case.acting += 1;
    state.put(&Key::Case(new.case), &case);
    let record = ActionRecord {
        case: new.case,
        step: new.step.clone(),
        performer: declared.1.clone(),
        state: ActionState::Requested,
    };
    state.put(&Key::Action(id), &record);
    Ok(Fact::Recorded)
}

/// The performer reports once. A report after the deadline still counts: what was done was done.
pub(crate) fn report(scene: &Scene<'_>, state: &mut Decision<'_>, new: &ReportAction) -> Result<Fact, Stop> {
    let mut action: ActionRecord = state.need(&Key::Action(new.action), Refusal::UnknownAction)?;
    ensure(&action.performer == scene.signer, Refusal::NotYours)?;
    ensure(action.state == ActionState::Requested, Refusal::WrongState)?;
    if new.failure.is_some() {
        let mut case: CaseRecord = state.need(&Key::Case(action.case), Refusal::UnknownCase)?;
        case.acting = case.acting.saturating_sub(1);
        state.put(&Key::Case(action.case), &case);
    }
    action.state = if new.failure.is_some() { ActionState::Failed } else { ActionState::Done };
    state.put(&Key::Action(new.action), &action);
    Ok(Fact::Recorded)
}
