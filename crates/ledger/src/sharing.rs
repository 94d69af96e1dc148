//! How departments come to share, how much, and what they do about wrong data. From protocol 3 on.

use crate::{
    apply::{BlockContext, Scene},
    cases::matter_of,
    catalogue::{NAMES_MAX, has_name},
    state::{
        AlertRecord, CallRecord, CallState, CaseRecord, Decision, Key, ObjectionRecord, ProjectRecord,
        ShareRecord, ShareState, Spent, Stop, Unusual, ensure,
    },
};
use model::*;

/// The most needs, and the most matters, of a project.
const NEEDS_MAX: usize = 128;
/// The longest a project or share may be asked for: 5 years.
const LIFETIME_MS_MAX: u64 = 5 * 366 * 86_400_000;
/// The most alerts in the list of those that wait.
const ALERTS_MAX: usize = 256;
/// How many days of use tell what is usual.
const USUAL_AFTER_DAYS: u32 = 7;

fn rules(state: &Decision<'_>) -> Result<Sharing, Stop> {
    Ok(state.get(&Key::Sharing)?.unwrap_or_default())
}

fn due(scene: &Scene<'_>, rules: &Sharing, days: u16) -> u64 {
    rules.calendar.deadline_ms(scene.block.time_ms, days)
}

fn plain(text: &str) -> Result<(), Stop> {
    ensure(is_plain(text), Refusal::UnfitText)
}

fn lives(scene: &Scene<'_>, until_ms: u64) -> Result<(), Stop> {
    let now = scene.block.time_ms;
    ensure(until_ms > now && until_ms - now <= LIFETIME_MS_MAX, Refusal::TooLate)
}

/// A resource of a holder that may be shared, with all these names.
fn shared(
    scene: &Scene<'_>,
    state: &Decision<'_>,
    holder: &DepartmentId,
    id: &ResourceId,
    names: &[FieldId],
) -> Result<(), Stop> {
    let resource: Resource = state.need(&Key::Resource(id.clone()), Refusal::UnknownResource)?;
    let answers = &resource.holder == holder && scene.block.roster.member(holder).is_some();
    ensure(answers, Refusal::UnknownResource)?;
    ensure(!matches!(resource.share, ShareClass::NotShared { .. }), Refusal::NotShared)?;
    ensure(!names.is_empty(), Refusal::WrongShape)?;
    ensure(names.iter().all(|n| has_name(&resource, n)), Refusal::UnknownField)
}

/// A department registers what a project of its own uses.
pub(crate) fn register_project(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &RegisterProject,
) -> Result<Fact, Stop> {
    let names: usize = new.needs.iter().map(|n| n.names.len()).sum();
    let fits = new.needs.len() <= NEEDS_MAX && new.matters.len() <= NEEDS_MAX && names <= NAMES_MAX;
    ensure(fits, Refusal::Oversized)?;
    ensure(!new.needs.is_empty() && !new.matters.is_empty(), Refusal::WrongShape)?;
    for text in [&new.title.zh, &new.title.en, &new.purpose.zh, &new.purpose.en, &new.citation] {
        plain(text)?;
    }
    lives(scene, new.until_ms)?;
    let key = Key::Project(scene.signer.clone(), new.id.clone());
    let old: Option<ProjectRecord> = state.get(&key)?;
    ensure(old.is_none_or(|p| !p.lives(scene.block.time_ms)), Refusal::AlreadyUsed)?;
    for need in &new.needs {
        ensure(&need.holder != scene.signer, Refusal::NotYours)?;
        shared(scene, state, &need.holder, &need.resource, &need.names)?;
    }
    let record = ProjectRecord { project: new.clone(), at_ms: scene.block.time_ms, ended: None };
    state.put(&key, &record);
    Ok(Fact::Recorded)
}

/// Its owner or a coordinator ends a project: nothing is granted or answered for it from here on.
pub(crate) fn end_project(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &EndProject,
) -> Result<Fact, Stop> {
    let may = &new.owner == scene.signer || rules(state)?.coordinators.contains(scene.signer);
    ensure(may, Refusal::NotYours)?;
    plain(&new.note)?;
    let key = Key::Project(new.owner.clone(), new.id.clone());
    let mut record: ProjectRecord = state.need(&key, Refusal::UnknownProject)?;
    let now = scene.block.time_ms;
    ensure(record.lives(now), Refusal::UnknownProject)?;
    record.ended = Some((now, scene.signer.clone(), new.note.clone()));
    state.put(&key, &record);
    Ok(Fact::Recorded)
}

/// The signer's project, where it goes on.
fn living_project(
    scene: &Scene<'_>,
    state: &Decision<'_>,
    owner: &DepartmentId,
    id: &ProjectId,
) -> Result<RegisterProject, Stop> {
    let key = Key::Project(owner.clone(), id.clone());
    let record: ProjectRecord = state.need(&key, Refusal::UnknownProject)?;
    ensure(record.lives(scene.block.time_ms), Refusal::UnknownProject)?;
    Ok(record.project)
}

/// A department applies to use a resource of another, for a project within what that registered.
pub(crate) fn request(scene: &Scene<'_>, state: &mut Decision<'_>, new: &RequestShare) -> Result<Fact, Stop> {
    ensure(&new.holder != scene.signer, Refusal::NotYours)?;
    ensure(new.names.len() <= NAMES_MAX, Refusal::Oversized)?;
    ensure(new.per_day > 0, Refusal::WrongShape)?;
    for text in [&new.citation, &new.purpose.zh, &new.purpose.en] {
        plain(text)?;
    }
    lives(scene, new.until_ms)?;
    shared(scene, state, &new.holder, &new.resource, &new.names)?;
    if let Some(id) = &new.project {
        let project = living_project(scene, state, scene.signer, id)?;
        let need = |need: &Use| {
            need.holder == new.holder
                && need.resource == new.resource
                && need.per_day >= new.per_day
                && new.names.iter().all(|n| need.names.contains(n))
        };
        let within = project.matters.contains(&new.matter)
            && project.until_ms >= new.until_ms
            && project.needs.iter().any(need);
        ensure(within, Refusal::WrongShape)?;
    }
    let share = ShareRef { holder: new.holder.clone(), asker: scene.signer.clone(), id: new.id.clone() };
    let key = Key::Share(share);
    if let Some(old) = state.get::<ShareRecord>(&key)? {
        let over = match old.state {
            ShareState::Refused(..) | ShareState::Upheld(_) | ShareState::Revoked(_) => true,
            ShareState::Granted => old.request.until_ms < scene.block.time_ms,
            _ => false,
        };
        ensure(over, Refusal::AlreadyUsed)?;
    }
    let rules = rules(state)?;
    let record = ShareRecord {
        request: new.clone(),
        state: ShareState::Requested,
        at_ms: scene.block.time_ms,
        due_ms: due(scene, &rules, rules.accept_days),
        missed: 0,
    };
    state.put(&key, &record);
    Ok(Fact::Recorded)
}

impl ShareRecord {
    /// Moves on; notes whether a clock had run out.
    fn becomes(&mut self, scene: &Scene<'_>, state: ShareState, due_ms: u64) {
        let now = scene.block.time_ms;
        self.missed += u32::from(self.due_ms != 0 && self.due_ms < now);
        (self.state, self.at_ms, self.due_ms) = (state, now, due_ms);
    }

    /// Whether the holder was to act and let the clock run out.
    fn is_overdue(&self, now_ms: u64) -> bool {
        let holders =
            matches!(self.state, ShareState::Requested | ShareState::Accepted | ShareState::Overruled(_));
        holders && self.due_ms < now_ms
    }
}

/// The holder accepts or refuses a request.
pub(crate) fn reply(scene: &Scene<'_>, state: &mut Decision<'_>, new: &ReplyShare) -> Result<Fact, Stop> {
    let share = ShareRef { holder: scene.signer.clone(), asker: new.asker.clone(), id: new.id.clone() };
    let key = Key::Share(share);
    let mut record: ShareRecord = state.need(&key, Refusal::UnknownShare)?;
    match &new.reply {
        ShareReply::Accept => {
            ensure(record.state == ShareState::Requested, Refusal::WrongState)?;
            let rules = rules(state)?;
            record.becomes(scene, ShareState::Accepted, due(scene, &rules, rules.decide_days));
        }
        ShareReply::Refuse { reason, note } => {
            let open = matches!(record.state, ShareState::Requested | ShareState::Accepted);
            ensure(open, Refusal::WrongState)?;
            plain(note)?;
            record.becomes(scene, ShareState::Refused(*reason, note.clone()), 0);
        }
    }
    state.put(&key, &record);
    Ok(Fact::Recorded)
}

/// An approval that answers a share request must stay within it. One that answers none stands on its own, as long as it does not
/// take the name of another department's.
pub(crate) fn grant(scene: &Scene<'_>, state: &mut Decision<'_>, new: &ApproveBasis) -> Result<(), Stop> {
    let now = scene.block.time_ms;
    let old: Option<ApproveBasis> = state.get(&Key::Approval(scene.signer.clone(), new.id.clone()))?;
    ensure(old.is_none_or(|o| o.asker == new.asker || o.expires_ms < now), Refusal::AlreadyUsed)?;
    let share = ShareRef { holder: scene.signer.clone(), asker: new.asker.clone(), id: new.id.clone() };
    let key = Key::Share(share);
    let Some(mut record) = state.get::<ShareRecord>(&key)? else { return Ok(()) };
    let request = &record.request;
    let within = request.resource == new.resource
        && request.matter == new.matter
        && request.until_ms >= new.expires_ms
        && new.names.iter().all(|n| request.names.contains(n));
    ensure(within, Refusal::WrongShape)?;
    if let Some(project) = &request.project {
        living_project(scene, state, &new.asker, project)?;
    }
    let budget = Key::Budget(new.resource.clone(), new.asker.clone(), Some(new.matter.clone()));
    let old: Budget = state.get(&budget)?.unwrap_or_default();
    state.put(&budget, &Budget { per_day: Some(request.per_day), ..old });
    record.becomes(scene, ShareState::Granted, 0);
    state.put(&key, &record);
    Ok(())
}

/// The asker takes a refusal, or the holder's silence past its clock, to the coordinators.
pub(crate) fn dispute(scene: &Scene<'_>, state: &mut Decision<'_>, new: &DisputeShare) -> Result<Fact, Stop> {
    plain(&new.note)?;
    let share = ShareRef { holder: new.holder.clone(), asker: scene.signer.clone(), id: new.id.clone() };
    let key = Key::Share(share);
    let mut record: ShareRecord = state.need(&key, Refusal::UnknownShare)?;
    let refused = matches!(record.state, ShareState::Refused(..));
    let waits = matches!(record.state, ShareState::Requested | ShareState::Accepted);
    ensure(refused || waits || matches!(record.state, ShareState::Overruled(_)), Refusal::WrongState)?;
    ensure(refused || record.is_overdue(scene.block.time_ms), Refusal::TooEarly)?;
    let rules = rules(state)?;
    // what nobody could rule on would stay in dispute for ever
    let neutral =
        |c: &DepartmentId| c != scene.signer && c != &new.holder && scene.block.roster.member(c).is_some();
    ensure(rules.coordinators.iter().any(neutral), Refusal::NoCoordinator)?;
    record.becomes(scene, ShareState::Disputed(new.note.clone()), due(scene, &rules, rules.rule_days));
    state.put(&key, &record);
    Ok(Fact::Recorded)
}

/// A coordinator that is neither holder nor asker rules on a dispute, or on a request whose holder keeps silent.
pub(crate) fn rule(scene: &Scene<'_>, state: &mut Decision<'_>, new: &RuleShare) -> Result<Fact, Stop> {
    let rules = rules(state)?;
    let party = &new.share.holder == scene.signer || &new.share.asker == scene.signer;
    ensure(rules.coordinators.contains(scene.signer) && !party, Refusal::NotYours)?;
    plain(&new.note)?;
    let key = Key::Share(new.share.clone());
    let mut record: ShareRecord = state.need(&key, Refusal::UnknownShare)?;
    let disputed = matches!(record.state, ShareState::Disputed(_));
    ensure(disputed || record.is_overdue(scene.block.time_ms), Refusal::WrongState)?;
    let (next, due_ms) = match new.grant {
        true => (ShareState::Overruled(new.note.clone()), due(scene, &rules, rules.decide_days)),
        false => (ShareState::Upheld(new.note.clone()), 0),
    };
    record.becomes(scene, next, due_ms);
    state.put(&key, &record);
    Ok(Fact::Recorded)
}

/// The holder takes back an approval: nothing is granted or answered under it from here on.
pub(crate) fn revoke(scene: &Scene<'_>, state: &mut Decision<'_>, new: &RevokeBasis) -> Result<Fact, Stop> {
    plain(&new.note)?;
    let now = scene.block.time_ms;
    let key = Key::Approval(scene.signer.clone(), new.id.clone());
    let mut approval: ApproveBasis = state.need(&key, Refusal::BasisNotApproved)?;
    ensure(approval.expires_ms >= now, Refusal::BasisNotApproved)?;
    let (holder, asker, id) = (scene.signer.clone(), approval.asker.clone(), new.id.clone());
    let share = Key::Share(ShareRef { holder, asker, id });
    if let Some(mut record) =
        state.get::<ShareRecord>(&share)?.filter(|record| record.state == ShareState::Granted)
    {
        record.becomes(scene, ShareState::Revoked(new.note.clone()), 0);
        state.put(&share, &record);
    }
    approval.expires_ms = now.saturating_sub(1);
    if !planted("revocation_ignored") {
        state.put(&key, &approval);
    }
    Ok(Fact::Recorded)
}

/// An approval serves while it has not expired, and the project it was granted for goes on.
pub(crate) fn check_in_force(
    scene: &Scene<'_>,
    state: &Decision<'_>,
    holder: &DepartmentId,
    approval: &ApproveBasis,
) -> Result<(), Stop> {
    ensure(approval.expires_ms >= scene.block.time_ms, Refusal::BasisNotApproved)?;
    let (holder, asker, id) = (holder.clone(), approval.asker.clone(), approval.id.clone());
    let share: Option<ShareRecord> = state.get(&Key::Share(ShareRef { holder, asker, id }))?;
    if let Some(project) = share.and_then(|s| s.request.project) {
        living_project(scene, state, &approval.asker, &project).map_err(|stop| match stop {
            Stop::Refused(_) => Stop::Refused(Refusal::BasisNotApproved),
            missing => missing,
        })?;
    }
    Ok(())
}

/// A holder sets how much of a resource of its own a department may use.
pub(crate) fn set_budget(scene: &Scene<'_>, state: &mut Decision<'_>, new: &SetBudget) -> Result<Fact, Stop> {
    let resource: Resource = state.need(&Key::Resource(new.resource.clone()), Refusal::UnknownResource)?;
    ensure(&resource.holder == scene.signer && &new.asker != scene.signer, Refusal::NotYours)?;
    let key = Key::Budget(new.resource.clone(), new.asker.clone(), new.matter.clone());
    state.put(&key, &new.budget);
    Ok(Fact::Recorded)
}

/// Counts a call against the budgets it falls under; notes what is unusual.
pub(crate) fn spend(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    matter: &MatterId,
    resource: &ResourceId,
) -> Result<(), Stop> {
    let (now, today) = (scene.block.time_ms, Day::of(scene.block.time_ms));
    let alert: Option<AlertRecord> = state.get(&Key::Alert(resource.clone(), scene.signer.clone()))?;
    ensure(alert.is_none_or(|a| a.explained.is_some() || a.due_ms >= now), Refusal::Unexplained)?;
    for of in [Some(matter.clone()), None] {
        let name = (resource.clone(), scene.signer.clone(), of.clone());
        let budget: Budget =
            state.get(&Key::Budget(name.0.clone(), name.1.clone(), name.2.clone()))?.unwrap_or_default();
        let key = Key::Spent(name.0, name.1, name.2);
        let first = Spent { since: today, day: today, calls: 0, average_milli: 0 };
        let mut spent = state.get(&key)?.unwrap_or(first).on(today);
        ensure(budget.per_day.is_none_or(|most| spent.calls < most), Refusal::OverBudget)?;
        spent.calls = spent.calls.saturating_add(1);
        state.put(&key, &spent);
        if of.is_none() && today.0.saturating_sub(spent.since.0) >= USUAL_AFTER_DAYS {
            let rules = rules(state)?;
            let much = u64::from(spent.calls) * 1000 > spent.average_milli * u64::from(rules.surge_times);
            if much && spent.calls > rules.surge_floor {
                raise(scene.block, state, resource, scene.signer, Unusual::Surge)?;
            }
        }
    }
    Ok(())
}

/// A call that was refused because its budget is used up raises an alert.
pub(crate) fn overspent(
    block: BlockContext<'_>,
    state: &mut Decision<'_>,
    ask: &Ask,
    asker: &DepartmentId,
) -> Result<(), Stop> {
    let case: CaseRecord = state.need(&Key::Case(ask.case), Refusal::UnknownCase)?;
    let matter = matter_of(state, &case)?;
    let need = matter.published.needs.iter().find(|n| n.step == ask.step && &n.recipient == asker);
    let need = need.ok_or(Refusal::UndeclaredStep)?;
    raise(block, state, &need.resource, asker, Unusual::OverBudget)
}

/// Raises an alert, once a day, unless one waits already.
fn raise(
    block: BlockContext<'_>,
    state: &mut Decision<'_>,
    resource: &ResourceId,
    asker: &DepartmentId,
    unusual: Unusual,
) -> Result<(), Stop> {
    let (key, day) = (Key::Alert(resource.clone(), asker.clone()), Day::of(block.time_ms));
    let old: Option<AlertRecord> = state.get(&key)?;
    if old.is_some_and(|a| a.explained.is_none() || a.day == day) {
        return Ok(());
    }
    let rules = rules(state)?;
    let due_ms = rules.calendar.deadline_ms(block.time_ms, rules.answer_days);
    state.put(&key, &AlertRecord { unusual, day, due_ms, explained: None });
    let mut open: Vec<(ResourceId, DepartmentId)> = state.get(&Key::OpenAlerts)?.unwrap_or_default();
    if open.len() < ALERTS_MAX {
        open.push((resource.clone(), asker.clone()));
        state.put(&Key::OpenAlerts, &open);
    }
    Ok(())
}

/// The department whose use was unusual explains it.
pub(crate) fn explain(scene: &Scene<'_>, state: &mut Decision<'_>, new: &ExplainAlert) -> Result<Fact, Stop> {
    plain(&new.note)?;
    let name = (new.resource.clone(), scene.signer.clone());
    let key = Key::Alert(name.0.clone(), name.1.clone());
    let mut alert: AlertRecord = state.need(&key, Refusal::WrongState)?;
    ensure(alert.explained.is_none() && alert.day == new.day, Refusal::WrongState)?;
    alert.explained = Some((scene.block.time_ms, new.note.clone()));
    state.put(&key, &alert);
    let mut open: Vec<(ResourceId, DepartmentId)> = state.get(&Key::OpenAlerts)?.unwrap_or_default();
    open.retain(|other| *other != name);
    state.put(&Key::OpenAlerts, &open);
    Ok(Fact::Recorded)
}

/// The asker of an answered call objects to one of its values.
pub(crate) fn object(scene: &Scene<'_>, state: &mut Decision<'_>, new: &Object) -> Result<Fact, Stop> {
    let call: CallRecord = state.need(&Key::Call(new.call), Refusal::UnknownCall)?;
    ensure(&call.asker == scene.signer, Refusal::NotYours)?;
    let answered = matches!(
        call.state,
        CallState::Answered { .. } | CallState::Opened | CallState::Disputed | CallState::Lapsed
    );
    ensure(answered, Refusal::WrongState)?;
    let case: CaseRecord = state.need(&Key::Case(call.case), Refusal::UnknownCase)?;
    let matter = matter_of(state, &case)?;
    let need = matter.published.needs.iter().find(|n| n.step == call.step && n.recipient == call.asker);
    let asked = need.is_some_and(|n| n.what.names().contains(&new.name));
    ensure(asked, Refusal::UnknownField)?;
    let key = Key::Objection(new.call, new.name.clone());
    let old: Option<ObjectionRecord> = state.get(&key)?;
    ensure(old.is_none_or(|o| o.answer.is_some()), Refusal::AlreadyUsed)?;
    let rules = rules(state)?;
    let record = ObjectionRecord {
        asker: call.asker,
        holder: call.holder,
        wrong: new.wrong,
        at_ms: scene.block.time_ms,
        due_ms: due(scene, &rules, rules.answer_days),
        answer: None,
    };
    state.put(&key, &record);
    Ok(Fact::Recorded)
}

/// The holder answers an objection: corrected, or on which ground not.
pub(crate) fn answer_objection(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &AnswerObjection,
) -> Result<Fact, Stop> {
    plain(&new.note)?;
    let key = Key::Objection(new.call, new.name.clone());
    let mut record: ObjectionRecord = state.need(&key, Refusal::WrongState)?;
    ensure(&record.holder == scene.signer, Refusal::NotYours)?;
    ensure(record.answer.is_none(), Refusal::WrongState)?;
    record.answer = Some((scene.block.time_ms, new.corrected, new.note.clone()));
    state.put(&key, &record);
    Ok(Fact::Recorded)
}
