//! Lists: which cases' calls of one step may be asked together, once their holder agreed to it.

use crate::{
    apply::Scene,
    cases::open_case,
    sharing,
    state::{CaseRecord, Decision, InList, Key, ListRecord, ListState, MatterRecord, Stop, ensure},
};
use model::*;

/// The handler declares, once for each version, which steps' calls are asked by lists, and only so.
pub(crate) fn declare(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &DeclareListed,
) -> Result<Fact, Stop> {
    let matter: MatterRecord =
        state.need(&Key::Matter(new.matter.clone(), new.version), Refusal::UnknownMatter)?;
    ensure(&matter.handler == scene.signer, Refusal::NotYours)?;
    let needs = &matter.published.needs;
    ensure(!new.steps.is_empty() && new.steps.len() <= needs.len(), Refusal::WrongShape)?;
    let mut steps: Vec<_> = new.steps.iter().collect();
    steps.sort();
    steps.dedup();
    ensure(steps.len() == new.steps.len(), Refusal::WrongShape)?;
    for step in steps {
        let need = needs.iter().find(|n| &n.step == step).ok_or(Refusal::UndeclaredStep)?;
        // the handler asks by lists, and nobody on a person's own behalf
        let asks = &need.recipient == scene.signer && need.basis != NeedBasis::SelfAccess;
        ensure(asks, Refusal::UndeclaredStep)?;
    }
    let key = Key::Listed(new.matter.clone(), new.version);
    ensure(state.get::<Vec<StepId>>(&key)?.is_none(), Refusal::AlreadyUsed)?;
    state.put(&key, &new.steps);
    Ok(Fact::Recorded)
}

/// The handler proposes a list of its open cases to the holder.
pub(crate) fn propose(scene: &Scene<'_>, state: &mut Decision<'_>, new: &ProposeList) -> Result<Fact, Stop> {
    let matter: MatterRecord =
        state.need(&Key::Matter(new.matter.clone(), new.version), Refusal::UnknownMatter)?;
    ensure(&matter.handler == scene.signer, Refusal::NotYours)?;
    let listed: Vec<StepId> =
        state.need(&Key::Listed(new.matter.clone(), new.version), Refusal::UndeclaredStep)?;
    ensure(listed.contains(&new.step), Refusal::UndeclaredStep)?;
    let need = matter.published.needs.iter().find(|n| n.step == new.step).ok_or(Refusal::UndeclaredStep)?;
    ensure(!new.cases.is_empty() && new.cases.is_sorted_by(|a, b| a < b), Refusal::WrongShape)?;
    ensure(new.cases.len() <= LIST_CASES_MAX, Refusal::Oversized)?;
    let now = scene.block.time_ms;
    let lives = now + LIST_LIVES_MS_LEAST..=now + LIST_LIVES_MS_MAX;
    ensure(lives.contains(&new.until_ms), Refusal::TooLate)?;
    let place = |case: &CaseId| Key::CaseList(*case, new.step.clone());
    state.want(new.cases.iter().flat_map(|case| [Key::Case(*case), place(case)]))?;
    let held = InList { list: ListId(scene.id.0), until_ms: new.until_ms };
    for case in &new.cases {
        let record = open_case(state, *case)?;
        ensure(&record.handler == scene.signer, Refusal::NotYours)?;
        ensure(record.matter == new.matter && record.version == new.version, Refusal::UnknownMatter)?;
        let before = state.get::<InList>(&place(case))?;
        ensure(before.is_none_or(|before| before.until_ms < now), Refusal::AlreadyUsed)?;
        state.put(&place(case), &held);
    }
    let record = ListRecord {
        step: new.step.clone(),
        asker: scene.signer.clone(),
        holder: need.holder.clone(),
        cases: new.cases.clone(),
        until_ms: new.until_ms,
        state: ListState::Proposed,
    };
    state.put(&Key::List(held.list), &record);
    Ok(Fact::Recorded)
}

/// The holder agrees to a list or refuses it, once.
pub(crate) fn answer(scene: &Scene<'_>, state: &mut Decision<'_>, new: &AnswerList) -> Result<Fact, Stop> {
    let key = Key::List(new.list);
    let mut record: ListRecord = state.need(&key, Refusal::UnknownList)?;
    ensure(&record.holder == scene.signer, Refusal::NotYours)?;
    ensure(record.state == ListState::Proposed, Refusal::WrongState)?;
    ensure(record.until_ms >= scene.block.time_ms, Refusal::TooLate)?;
    record.state = match &new.refused {
        None => ListState::Agreed,
        Some(code) => {
            sharing::plain(code.as_str())?;
            // while it stands they are in no other: each may be put in one now
            let free = InList { list: new.list, until_ms: 0 };
            for case in &record.cases {
                state.put(&Key::CaseList(*case, record.step.clone()), &free);
            }
            ListState::Refused
        }
    };
    state.put(&key, &record);
    Ok(Fact::Recorded)
}

/// A step declared for lists is asked only for a case of a list its holder agreed to, while that stands.
pub(crate) fn check(
    scene: &Scene<'_>,
    state: &Decision<'_>,
    case: &CaseRecord,
    ask: &Ask,
) -> Result<(), Stop> {
    if scene.block.roster.protocol < LIST_PROTOCOL || planted("unlisted") {
        return Ok(());
    }
    let listed: Option<Vec<StepId>> = state.get(&Key::Listed(case.matter.clone(), case.version))?;
    if !listed.is_some_and(|steps| steps.contains(&ask.step)) {
        return Ok(());
    }
    let held: InList = state.need(&Key::CaseList(ask.case, ask.step.clone()), Refusal::NotListed)?;
    let record: ListRecord = state.need(&Key::List(held.list), Refusal::NotListed)?;
    let stands = record.state == ListState::Agreed && record.until_ms >= scene.block.time_ms;
    ensure(stands, Refusal::NotListed)
}
