//! Actions: declared writes in a department's own system, once for each case and step; and what undoes those before the pivot.

use crate::{
    apply::Scene,
    cases::{matter_of, open_case},
    state::{ActionRecord, ActionState, CaseRecord, Decision, HeldRecord, Key, MatterRecord, Stop, ensure},
};
use model::*;

/// The handler declares, once for each version, which acts are undone by which.
pub(crate) fn declare_undo(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &DeclareUndo,
) -> Result<Fact, Stop> {
    let matter: MatterRecord =
        state.need(&Key::Matter(new.matter.clone(), new.version), Refusal::UnknownMatter)?;
    ensure(&matter.handler == scene.signer, Refusal::NotYours)?;
    let actions = &matter.published.actions;
    ensure(!new.acts.is_empty() && 2 * new.acts.len() <= actions.len(), Refusal::WrongShape)?;
    let mut steps: Vec<_> = new.acts.iter().flat_map(|u| [&u.act, &u.by]).collect();
    steps.sort();
    steps.dedup();
    // what undoes is not undone, and undoes one act
    ensure(steps.len() == 2 * new.acts.len(), Refusal::WrongShape)?;
    for Undo { act, by } in &new.acts {
        let performer = |step| actions.iter().find(|a| &a.0 == step).map(|a| &a.1);
        let (act, by) = (performer(act), performer(by));
        ensure(act.is_some() && by.is_some(), Refusal::UndeclaredStep)?;
        ensure(act == by, Refusal::WrongShape)?;
    }
    let key = Key::Undo(new.matter.clone(), new.version);
    ensure(state.get::<Vec<Undo>>(&key)?.is_none(), Refusal::AlreadyUsed)?;
    state.put(&key, &new.acts);
    Ok(Fact::Recorded)
}

/// What a step of a case is among those that can be undone.
enum Side {
    /// It cannot be undone: once it is requested, the case does not go back.
    Neither,
    /// It can be undone.
    Act,
    /// It undoes this step.
    Undoes(StepId),
}

fn side(scene: &Scene<'_>, state: &Decision<'_>, case: &CaseRecord, step: &StepId) -> Result<Side, Stop> {
    if scene.block.roster.protocol < UNDO_PROTOCOL {
        return Ok(Side::Neither);
    }
    let declared = state.get::<Vec<Undo>>(&Key::Undo(case.matter.clone(), case.version))?.unwrap_or_default();
    Ok(match declared.into_iter().find(|u| &u.act == step || &u.by == step) {
        Some(undo) if &undo.act == step => Side::Act,
        Some(undo) => Side::Undoes(undo.act),
        None => Side::Neither,
    })
}

/// What of a case was done and can be undone.
pub(crate) fn held(scene: &Scene<'_>, state: &Decision<'_>, case: CaseId) -> Result<HeldRecord, Stop> {
    if scene.block.roster.protocol < UNDO_PROTOCOL {
        return Ok(HeldRecord::default());
    }
    Ok(state.get(&Key::Held(case))?.unwrap_or_default())
}

/// The handler requests an action the matter declares. A step's action is requested again only after it failed. What undoes an act is
/// requested only after that was done, and before anything that cannot be undone was requested; nothing else is, from then on.
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
    let mut held = held(scene, state, new.case)?;
    match side(scene, state, &case, &new.step)? {
        Side::Neither => {
            ensure(!held.undoing, Refusal::WrongState)?;
            case.acting += 1;
            state.put(&Key::Case(new.case), &case);
        }
        Side::Act => {
            ensure(!held.undoing, Refusal::WrongState)?;
            held.acts += 1;
            state.put(&Key::Held(new.case), &held);
            state.put(&Key::HeldAct(id), &true);
        }
        Side::Undoes(act) => {
            ensure(case.acting == 0, Refusal::WrongState)?;
            let act: ActionId = state.need(&Key::StepAction(new.case, act), Refusal::WrongState)?;
            // one requested before this was declared cannot be undone
            ensure(state.get(&Key::HeldAct(act))?.unwrap_or(false), Refusal::WrongState)?;
            let act: ActionRecord = state.need(&Key::Action(act), Refusal::UnknownAction)?;
            ensure(act.state == ActionState::Done, Refusal::WrongState)?;
            held.undoing = true;
            state.put(&Key::Held(new.case), &held);
            state.put(&Key::HeldAct(id), &true);
        }
    }
    state.put(&key, &id);
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
    let failed = new.failure.is_some();
    let mut case: CaseRecord = state.need(&Key::Case(action.case), Refusal::UnknownCase)?;
    let mut held = held(scene, state, action.case)?;
    let mut side = side(scene, state, &case, &action.step)?;
    // what was requested before the declaration stays what it was
    if !matches!(side, Side::Neither) && !state.get(&Key::HeldAct(new.action))?.unwrap_or(false) {
        side = Side::Neither;
    }
    match side {
        Side::Neither if failed => {
            case.acting = case.acting.saturating_sub(1);
            state.put(&Key::Case(action.case), &case);
        }
        Side::Act if failed => {
            held.acts = held.acts.saturating_sub(1);
            state.put(&Key::Held(action.case), &held);
        }
        Side::Undoes(act) if !failed => {
            let id: ActionId = state.need(&Key::StepAction(action.case, act), Refusal::UnknownAction)?;
            let mut act: ActionRecord = state.need(&Key::Action(id), Refusal::UnknownAction)?;
            act.state = ActionState::Undone;
            state.put(&Key::Action(id), &act);
            held.acts = held.acts.saturating_sub(1);
            state.put(&Key::Held(action.case), &held);
        }
        _ => {}
    }
    action.state = if failed { ActionState::Failed } else { ActionState::Done };
    state.put(&Key::Action(new.action), &action);
    Ok(Fact::Recorded)
}
