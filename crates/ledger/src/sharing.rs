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

/// The most needs of a project.
const NEEDS_MAX: usize = 128;
/// The longest a project or share may be asked for: 5 years.
const LIFETIME_MS_MAX: u64 = 5 * 366 * 86_400_000;
/// The most alerts in the list of those that wait.
const ALERTS_MAX: usize = 256;
/// How many days of use tell what is usual.
const USUAL_AFTER_DAYS: u32 = 7;

pub(crate) fn rules(state: &Decision<'_>) -> Result<Sharing, Stop> {
    Ok(state.get(&Key::Sharing)?.unwrap_or_default())
}

fn due(scene: &Scene<'_>, rules: &Sharing, days: u16) -> u64 {
    rules.calendar.deadline_ms(scene.block.time_ms, days)
}

/// A text that is public: bounded, and without what looks like a number of a person.
pub(crate) fn plain(text: &str) -> Result<(), Stop> {
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
    ensure(new.needs.len() <= NEEDS_MAX && names <= NAMES_MAX, Refusal::Oversized)?;
    ensure(!new.needs.is_empty(), Refusal::WrongShape)?;
    for text in [&new.title.zh, &new.title.en, &new.purpose.zh, &new.purpose.en, &new.citation] {
        plain(text)?;
    }
    lives(scene, new.until_ms)?;
    let key = Key::Project(scene.signer.clone(), new.id.clone());
    // under an ended project's name nothing comes to life again: its grants last no longer than it was to
    let old: Option<ProjectRecord> = state.get(&key)?;
    ensure(old.is_none_or(|p| p.project.until_ms < scene.block.time_ms), Refusal::AlreadyUsed)?;
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
                && need.matter == new.matter
                && need.per_day >= new.per_day
                && new.names.iter().all(|n| need.names.contains(n))
        };
        let within = project.until_ms >= new.until_ms && project.needs.iter().any(need);
        ensure(within, Refusal::WrongShape)?;
    }
    let now = scene.block.time_ms;
    let share = ShareRef { holder: new.holder.clone(), asker: scene.signer.clone(), id: new.id.clone() };
    let key = Key::Share(share.clone());
    let old: Option<ShareRecord> = state.get(&key)?;
    // a name that already lets somebody ask is taken
    let approval: Option<ApproveBasis> = state
        .get(&Key::Approval(new.holder.clone(), new.id.clone()))?
        .filter(|a: &ApproveBasis| a.expires_ms >= now);
    let free = match (&old, &approval) {
        (_, Some(approval)) if &approval.asker != scene.signer => false,
        (None, approval) => approval.is_none(),
        (Some(old), _) => match old.state {
            ShareState::Refused(..)
            | ShareState::Upheld(_)
            | ShareState::Revoked(_)
            | ShareState::Withdrawn => true,
            ShareState::Granted => old.request.until_ms < now || !project_lives(state, &share, old, now)?,
            _ => false,
        },
    };
    ensure(free, Refusal::AlreadyUsed)?;
    let rules = rules(state)?;
    let record = ShareRecord {
        request: new.clone(),
        state: ShareState::Requested,
        at_ms: now,
        due_ms: due(scene, &rules, rules.accept_days),
        missed: old.map_or(0, |old| old.missed),
    };
    state.put(&key, &record);
    Ok(Fact::Recorded)
}

/// Whether the project a request is for goes on; one that is for none needs none.
fn project_lives(
    state: &Decision<'_>,
    share: &ShareRef,
    record: &ShareRecord,
    now_ms: u64,
) -> Result<bool, Stop> {
    let Some(id) = &record.request.project else { return Ok(true) };
    let project: Option<ProjectRecord> = state.get(&Key::Project(share.asker.clone(), id.clone()))?;
    Ok(project.is_some_and(|p| p.lives(now_ms)))
}

/// The asker gives up a request that is not granted.
pub(crate) fn withdraw(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &WithdrawShare,
) -> Result<Fact, Stop> {
    let share = ShareRef { holder: new.holder.clone(), asker: scene.signer.clone(), id: new.id.clone() };
    let key = Key::Share(share);
    let mut record: ShareRecord = state.need(&key, Refusal::UnknownShare)?;
    let over = matches!(record.state, ShareState::Granted | ShareState::Withdrawn);
    ensure(!over, Refusal::WrongState)?;
    record.becomes(scene, ShareState::Withdrawn, 0);
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

/// An approval that answers a share request must stay within it, and be all of it where a coordinator ruled so. One that answers
/// none stands on its own, as long as it does not take the name of another department's.
pub(crate) fn grant(scene: &Scene<'_>, state: &mut Decision<'_>, new: &ApproveBasis) -> Result<(), Stop> {
    let now = scene.block.time_ms;
    ensure(!new.names.is_empty(), Refusal::WrongShape)?;
    ensure(new.expires_ms > now, Refusal::TooLate)?;
    let old: Option<ApproveBasis> = state.get(&Key::Approval(scene.signer.clone(), new.id.clone()))?;
    ensure(old.is_none_or(|o| o.asker == new.asker || o.expires_ms < now), Refusal::AlreadyUsed)?;
    let share = ShareRef { holder: scene.signer.clone(), asker: new.asker.clone(), id: new.id.clone() };
    let key = Key::Share(share);
    let Some(mut record) = state.get::<ShareRecord>(&key)? else { return Ok(()) };
    ensure(record.state != ShareState::Withdrawn, Refusal::WrongState)?;
    let request = &record.request;
    let within = request.resource == new.resource
        && request.matter == new.matter
        && request.until_ms >= new.expires_ms
        && new.names.iter().all(|n| request.names.contains(n));
    let whole = request.until_ms == new.expires_ms && request.names.iter().all(|n| new.names.contains(n));
    let ruled = matches!(record.state, ShareState::Overruled(_));
    ensure(within && (whole || !ruled), Refusal::WrongShape)?;
    if let Some(project) = &request.project {
        living_project(scene, state, &new.asker, project)?;
    }
    record.becomes(scene, ShareState::Granted, 0);
    state.put(&key, &record);
    Ok(())
}

/// The asker takes a refusal, a revocation, or the holder's silence past its clock, to the coordinators.
pub(crate) fn dispute(scene: &Scene<'_>, state: &mut Decision<'_>, new: &DisputeShare) -> Result<Fact, Stop> {
    plain(&new.note)?;
    let share = ShareRef { holder: new.holder.clone(), asker: scene.signer.clone(), id: new.id.clone() };
    let key = Key::Share(share);
    let mut record: ShareRecord = state.need(&key, Refusal::UnknownShare)?;
    let refused = matches!(record.state, ShareState::Refused(..) | ShareState::Revoked(_));
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

/// Whether an approval serves a need of a matter at a time: it is in force and covers all of it; where it answers a share request,
/// that stands granted; and the project it was granted for goes on. The ledger and the holder's node both go by this.
pub fn basis_serves(
    approval: &ApproveBasis,
    share: Option<&ShareRecord>,
    project: Option<&ProjectRecord>,
    matter: &MatterId,
    need: &Need,
    now_ms: u64,
) -> bool {
    approval.asker == need.recipient
        && &approval.matter == matter
        && approval.resource == need.resource
        && approval.expires_ms >= now_ms
        && need.what.names().iter().all(|n| approval.names.contains(n))
        && share.is_none_or(|s| {
            let goes_on = s.request.project.is_none() || project.is_some_and(|p| p.lives(now_ms));
            s.state == ShareState::Granted && goes_on
        })
}

/// The approval a need rests on must serve it here and now.
pub(crate) fn check_basis(
    scene: &Scene<'_>,
    state: &Decision<'_>,
    id: &ApprovalId,
    matter: &MatterId,
    need: &Need,
) -> Result<(), Stop> {
    let approval: ApproveBasis =
        state.need(&Key::Approval(need.holder.clone(), id.clone()), Refusal::BasisNotApproved)?;
    let (mut share, mut project) = (None::<ShareRecord>, None::<ProjectRecord>);
    if scene.block.roster.protocol >= SHARING_PROTOCOL {
        let (holder, asker) = (need.holder.clone(), need.recipient.clone());
        share = state.get(&Key::Share(ShareRef { holder, asker, id: id.clone() }))?;
        if let Some(of) = share.as_ref().and_then(|s| s.request.project.clone()) {
            project = state.get(&Key::Project(need.recipient.clone(), of))?;
        }
    }
    let serves = basis_serves(&approval, share.as_ref(), project.as_ref(), matter, need, scene.block.time_ms);
    ensure(serves, Refusal::BasisNotApproved)
}

/// A holder sets how much of a resource of its own a department may use.
pub(crate) fn set_budget(scene: &Scene<'_>, state: &mut Decision<'_>, new: &SetBudget) -> Result<Fact, Stop> {
    let resource: Resource = state.need(&Key::Resource(new.resource.clone()), Refusal::UnknownResource)?;
    ensure(&resource.holder == scene.signer && &new.asker != scene.signer, Refusal::NotYours)?;
    let key = Key::Budget(new.resource.clone(), new.asker.clone(), new.matter.clone());
    state.put(&key, &new.budget);
    Ok(Fact::Recorded)
}

/// Counts a call against what it was granted under and the holder's budgets; notes what is unusual.
pub(crate) fn spend(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    matter: &MatterId,
    need: &Need,
) -> Result<(), Stop> {
    let (asker, resource) = (scene.signer, &need.resource);
    let alert: Option<AlertRecord> = state.get(&Key::Alert(resource.clone(), asker.clone()))?;
    let explained = alert.is_none_or(|a| a.explained.is_some() || a.due_ms >= scene.block.time_ms);
    ensure(explained, Refusal::Unexplained)?;
    if let NeedBasis::Statutory(id) = &need.basis {
        let share = ShareRef { holder: need.holder.clone(), asker: asker.clone(), id: id.clone() };
        if let Some(record) = state.get::<ShareRecord>(&Key::Share(share.clone()))? {
            count(scene, state, Key::ShareSpent(share), Some(record.request.per_day))?;
        }
    }
    for of in [Some(matter.clone()), None] {
        let name = (resource.clone(), asker.clone(), of.clone());
        let budget: Option<Budget> =
            state.get(&Key::Budget(name.0.clone(), name.1.clone(), name.2.clone()))?;
        let most = budget.and_then(|b| b.per_day);
        let spent = count(scene, state, Key::Spent(name.0, name.1, name.2), most)?;
        if of.is_none() && spent.day.0.saturating_sub(spent.since.0) >= USUAL_AFTER_DAYS {
            let rules = rules(state)?;
            let usual = spent.average_milli.saturating_mul(u64::from(rules.surge_times));
            if u64::from(spent.calls) * 1000 > usual && spent.calls > rules.surge_floor {
                raise(scene.block, state, resource, asker, Unusual::Surge)?;
            }
        }
    }
    Ok(())
}

/// Counts one more call today, where it may be.
fn count(scene: &Scene<'_>, state: &mut Decision<'_>, key: Key, most: Option<u32>) -> Result<Spent, Stop> {
    let today = Day::of(scene.block.time_ms);
    let mut spent = state.get::<Spent>(&key)?.unwrap_or_else(|| Spent::nothing(today)).on(today);
    ensure(most.is_none_or(|most| spent.calls < most), Refusal::OverBudget)?;
    spent.calls = spent.calls.saturating_add(1);
    state.put(&key, &spent);
    Ok(spent)
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

/// The holder answers an objection.
pub(crate) fn answer_objection(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &AnswerObjection,
) -> Result<Fact, Stop> {
    let key = Key::Objection(new.call, new.name.clone());
    let mut record: ObjectionRecord = state.need(&key, Refusal::WrongState)?;
    ensure(&record.holder == scene.signer, Refusal::NotYours)?;
    ensure(record.answer.is_none(), Refusal::WrongState)?;
    record.answer = Some((scene.block.time_ms, new.verdict));
    state.put(&key, &record);
    Ok(Fact::Recorded)
}
