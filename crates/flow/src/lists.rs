//! Batch exchange (名单核验), on both sides. What a package asks by lists is not asked when its turn comes: the handler's node gathers the
//! cases that wait for it and proposes a list; the holder's agrees, by itself up to the number its connector says, else through an officer;
//! and then all calls of the list are asked in one submission, with their sealed requests in one letter. Each is a call of its own.

use crate::{
    case::{Case, StepState},
    letter::Message,
    package::{Listing, Package, Step},
    run::{Flow, FlowError},
    steps::ORDERED_WITHIN,
};
use gateway::Source;
use model::*;
use std::collections::{BTreeMap, BTreeSet};
use tracing::{info, warn};

/// How long a list stands: long enough for an officer to answer in office hours, over a weekend.
const LIST_LIVES_MS: u64 = 4 * 24 * 3_600_000;
/// What is refused or fails is tried again after this.
const AGAIN_MS: u64 = 30_000;
/// Nothing is asked in a list's last minute: the ledger's clock decides, and this node's may be behind.
const LAST_MS: u64 = 60_000;
/// For how long after its end a list is still shown: ninety days.
const SHOWN_MS: u64 = 90 * 24 * 3_600_000;
/// The time the number counts for that a holder's node agrees to by itself.
const DAY_MS: u64 = 24 * 3_600_000;
/// Why a case is handed to a person whose list was refused.
const LIST_REFUSED: &str = "list_refused";
/// Why a case is handed to a person whose list nobody answered.
const LIST_UNANSWERED: &str = "list_unanswered";

/// A list, as its asker or its holder knows it.
#[derive(Clone, Debug)]
pub struct List {
    /// The list.
    pub id: ListId,
    /// Who proposed it.
    pub asker: DepartmentId,
    /// Who is asked.
    pub holder: DepartmentId,
    /// Out of which resource.
    pub resource: ResourceId,
    /// The matter and version of its cases.
    pub matter: (MatterId, u32),
    /// The step whose calls it is of.
    pub step: StepId,
    /// How many cases it has.
    pub cases: u32,
    /// When it was proposed, in milliseconds since 1970.
    pub proposed_ms: u64,
    /// The last moment a call may be asked under it.
    pub until_ms: u64,
    /// When its holder answered, and what: agreed, or refused with a code.
    pub answer: Option<(u64, Result<(), Code>)>,
}

impl List {
    /// Whether its cases are in no other list meanwhile.
    fn stands(&self, now_ms: u64) -> bool {
        !matches!(self.answer, Some((_, Err(_)))) && self.until_ms >= now_ms
    }
}

/// What is known of a case's step that is asked by lists.
#[derive(Default)]
struct Place {
    /// The newest list it is in.
    list: Option<ListId>,
    /// Whether it was handed to a person because of that list, and not gone on with.
    handed: bool,
    /// When a person last let it go on after that, in milliseconds since 1970.
    looked_at_ms: Option<u64>,
}

/// What is done for lists, each at most once at a time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Propose((MatterId, u32), StepId),
    Ask(ListId),
    Answer(ListId),
}

/// The lists this node has a part in, and what waits to be put in one.
#[derive(Default)]
pub(crate) struct Lists {
    known: BTreeMap<ListId, List>,
    /// Of this handler's cases that are not over.
    places: BTreeMap<CaseId, BTreeMap<StepId, Place>>,
    /// Lists this holder's node has not looked at.
    unanswered: BTreeSet<ListId>,
    /// Versions of matters whose lists are declared on the ledger, with their steps.
    declared: BTreeMap<(MatterId, u32), Vec<StepId>>,
    /// Whom the steps of published matters ask, out of which resource.
    needs: BTreeMap<(MatterId, u32), BTreeMap<StepId, (DepartmentId, ResourceId)>>,
    /// Steps whose lists an officer of the handler wants proposed now.
    wanted: BTreeSet<(MatterId, StepId)>,
    under_way: BTreeSet<Work>,
    /// What is not tried before a time, in milliseconds since 1970.
    later: BTreeMap<Work, u64>,
}

/// What a case's step waits for that is asked by lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListWait {
    /// Until others wait too, or at this time, in milliseconds since 1970.
    Gathers(u64),
    /// For the holder's word on the list.
    Proposed(ListId),
    /// To be asked with the others.
    Agreed(ListId),
}

/// Something to do for lists.
pub(crate) enum Due {
    Propose { matter: (MatterId, u32), step: StepId, cases: Vec<CaseId> },
    Ask { list: ListId, step: StepId, cases: Vec<CaseId> },
    Answer(ListId),
}

impl Due {
    fn work(&self) -> Work {
        match self {
            Self::Propose { matter, step, .. } => Work::Propose(matter.clone(), step.clone()),
            Self::Ask { list, .. } => Work::Ask(*list),
            Self::Answer(list) => Work::Answer(*list),
        }
    }
}

impl Lists {
    /// Takes in an accepted event, whosever it is.
    pub(crate) fn note(&mut self, event: &Event, me: &DepartmentId) {
        let signer = &event.command.command.signer;
        match &event.command.command.body {
            Body::PublishMatter(new) => {
                let needs =
                    new.needs.iter().map(|n| (n.step.clone(), (n.holder.clone(), n.resource.clone())));
                self.needs.insert((new.id.clone(), new.version), needs.collect());
            }
            Body::DeclareListed(new) => {
                self.declared.insert((new.matter.clone(), new.version), new.steps.clone());
            }
            Body::ProposeList(new) => {
                let matter = (new.matter.clone(), new.version);
                let need = self.needs.get(&matter).and_then(|needs| needs.get(&new.step)).cloned();
                let Some((holder, resource)) = need else { return };
                if signer != me && holder != *me {
                    return;
                }
                let id = ListId(event.id.0);
                if holder == *me {
                    self.unanswered.insert(id);
                }
                if signer == me {
                    for case in &new.cases {
                        let place =
                            self.places.entry(*case).or_default().entry(new.step.clone()).or_default();
                        (place.list, place.handed) = (Some(id), false);
                    }
                }
                let list = List {
                    id,
                    asker: signer.clone(),
                    holder,
                    resource,
                    matter,
                    step: new.step.clone(),
                    cases: new.cases.len() as u32,
                    proposed_ms: event.time_ms,
                    until_ms: new.until_ms,
                    answer: None,
                };
                self.known.retain(|_, list| list.until_ms + SHOWN_MS > event.time_ms);
                self.known.insert(id, list);
            }
            Body::AnswerList(new) => {
                self.unanswered.remove(&new.list);
                if let Some(list) = self.known.get_mut(&new.list) {
                    list.answer = Some((event.time_ms, new.refused.clone().map_or(Ok(()), Err)));
                }
            }
            Body::SettleCase(new) if signer == me => {
                if new.outcome.is_final() {
                    self.places.remove(&new.case);
                } else if self.turned_away(new.case, &new.step, event.time_ms).is_some()
                    && let Some(place) = self.places.get_mut(&new.case).and_then(|c| c.get_mut(&new.step))
                {
                    place.handed = true;
                }
            }
            Body::ResumeCase(new) if signer == me => {
                let places = self.places.get_mut(&new.case).into_iter().flatten();
                for (_, place) in places.filter(|(_, place)| place.handed) {
                    (place.handed, place.looked_at_ms) = (false, Some(event.time_ms));
                }
            }
            _ => {}
        }
    }

    /// Whether the ledger knows which calls of a version are asked by lists.
    pub(crate) fn are_declared(&self, matter: &(MatterId, u32)) -> bool {
        self.declared.contains_key(matter)
    }

    /// What a case's step waits for, where it is asked by lists, on the ledger too.
    pub(crate) fn wait(&self, case: &Case, step: &Step, package: &Package, now_ms: u64) -> Option<ListWait> {
        let declared = self.declared.get(&case.matter).is_some_and(|steps| steps.contains(&step.id));
        let listing = step.list.as_ref().filter(|_| declared && !planted("unlisted"))?;
        let place = self.place(case.id, &step.id);
        let list = place.and_then(|p| self.known.get(&p.list?)).filter(|l| l.stands(now_ms));
        Some(match list {
            Some(list) if list.answer.is_none() => ListWait::Proposed(list.id),
            Some(list) => ListWait::Agreed(list.id),
            None => {
                let looked_at_ms = place.and_then(|p| p.looked_at_ms).unwrap_or(0);
                let since_ms = ready_since(case, step, package).max(looked_at_ms);
                ListWait::Gathers(since_ms + u64::from(listing.every_minutes) * 60_000)
            }
        })
    }

    fn place(&self, case: CaseId, step: &StepId) -> Option<&Place> {
        self.places.get(&case)?.get(step)
    }

    /// Why a person has to look at a case's step, where its newest list was refused or ended unanswered, and nobody let the case go on
    /// because of that.
    pub(crate) fn turned_away(&self, case: CaseId, step: &StepId, now_ms: u64) -> Option<&'static str> {
        let place = self.place(case, step)?;
        let list = self.known.get(&place.list?)?;
        let (at_ms, code) = match &list.answer {
            Some((at_ms, Err(_))) => (*at_ms, LIST_REFUSED),
            None if list.until_ms < now_ms => (list.until_ms, LIST_UNANSWERED),
            _ => return None,
        };
        place.looked_at_ms.is_none_or(|seen| seen < at_ms).then_some(code)
    }

    /// What the ledger refused is tried again later.
    pub(crate) fn hold_off(&mut self, case: CaseId, step: &StepId, now_ms: u64) {
        if let Some(list) = self.place(case, step).and_then(|p| p.list) {
            self.later.insert(Work::Ask(list), now_ms + AGAIN_MS);
        }
    }

    /// What is due of the steps that wait to be asked by lists: by matter and step, their cases.
    pub(crate) fn due(&mut self, ready: Ready, now_ms: u64) -> Vec<Due> {
        self.later.retain(|_, at_ms| *at_ms > now_ms);
        let (mut due, mut remain) = (Vec::new(), BTreeSet::new());
        for ((matter, step), Waiting { listing, waits }) in ready {
            let mut agreed: BTreeMap<ListId, Vec<CaseId>> = BTreeMap::new();
            let mut gathering: Vec<(u64, CaseId)> = Vec::new();
            for (case, wait) in waits {
                match wait {
                    ListWait::Agreed(id) => agreed.entry(id).or_default().push(case),
                    ListWait::Proposed(_) => {}
                    ListWait::Gathers(until_ms) => gathering.push((until_ms, case)),
                }
            }
            for (list, cases) in agreed {
                if self.known.get(&list).is_some_and(|l| l.until_ms >= now_ms + LAST_MS) {
                    due.push(Due::Ask { list, step: step.clone(), cases });
                }
            }
            gathering.sort();
            let most = (listing.most as usize).min(LIST_CASES_MAX);
            let wanted = (matter.0.clone(), step.clone());
            let full = gathering.len() >= most;
            let late = gathering.first().is_some_and(|(until_ms, _)| *until_ms <= now_ms);
            if gathering.is_empty() || !(full || late || self.wanted.contains(&wanted)) {
                continue;
            }
            let is_under_way = self.under_way.contains(&Work::Propose(matter.clone(), step.clone()));
            if gathering.len() > most || is_under_way {
                remain.insert(wanted);
            }
            let mut cases: Vec<_> = gathering.into_iter().take(most).map(|(_, case)| case).collect();
            cases.sort();
            due.push(Due::Propose { matter, step, cases });
        }
        // what does not wait yet is proposed when its time comes
        self.wanted.retain(|wanted| remain.contains(wanted));
        due.extend(self.unanswered.iter().map(|id| Due::Answer(*id)));
        due.retain(|item| !self.later.contains_key(&item.work()) && self.under_way.insert(item.work()));
        due
    }

    /// How many cases this holder's node or its officers agreed to be asked about within a day, by an asker out of a resource.
    fn agreed_to(&self, list: &List, now_ms: u64) -> u32 {
        let same =
            |l: &&List| l.asker == list.asker && l.holder == list.holder && l.resource == list.resource;
        let agreed = |l: &&List| matches!(&l.answer, Some((at_ms, Ok(()))) if at_ms + DAY_MS > now_ms);
        self.known.values().filter(same).filter(agreed).fold(0, |n, l| n.saturating_add(l.cases))
    }
}

/// When all before a step had ended, in milliseconds since 1970.
fn ready_since(case: &Case, step: &Step, package: &Package) -> u64 {
    let ended = step.after.iter().filter_map(|before| match case.state(before) {
        StepState::Done(at) | StepState::Failed(at, _) | StepState::Waiting(at) => Some(at),
        // not taken in this case
        StepState::NotStarted | StepState::Skipped => {
            package.step(before).map(|step| ready_since(case, step, package))
        }
    });
    ended.max().unwrap_or(case.opened_ms)
}

impl<S: Source> Flow<S> {
    /// The lists this department proposed, or was proposed and is the holder of; newest first.
    pub fn lists(&self) -> Vec<List> {
        let mut lists: Vec<List> = self.lock().lists.known.values().cloned().collect();
        lists.sort_by_key(|list| std::cmp::Reverse((list.proposed_ms, list.id)));
        lists
    }

    /// Has the cases that gather for a step of a matter proposed now, however few they are. Returns how many gather.
    ///
    /// # Errors
    /// Where this department handles no such matter, or its step is not asked by lists.
    pub fn propose_now(&self, matter: &MatterId, step: &StepId) -> Result<usize, crate::CaseError> {
        let listed = |lists: &Lists| {
            lists.declared.iter().any(|((id, _), steps)| id == matter && steps.contains(step))
        };
        if self.package(matter).is_none() || !listed(&self.lock().lists) {
            return Err(crate::CaseError::Unknown("step asked by lists"));
        }
        let cases: Vec<CaseId> = {
            let state = self.lock();
            let open = |c: &&Case| c.matter.0 == *matter && c.settled.is_none();
            state.cases.values().filter(open).map(|c| c.id).collect()
        };
        let gathers = |case: &CaseId| {
            let wait = self.case(*case).and_then(|view| view.waits.get(step).copied());
            matches!(wait, Some(ListWait::Gathers(_)))
        };
        let gathering = cases.iter().filter(|case| gathers(case)).count();
        self.lock().lists.wanted.insert((matter.clone(), step.clone()));
        self.work_as_handler();
        Ok(gathering)
    }

    pub(crate) fn start_lists(&self, due: Vec<Due>) {
        for item in due {
            let flow = self.clone();
            self.host.spawn(async move {
                let work = item.work();
                let done = match item {
                    Due::Propose { matter, step, cases } => flow.propose_list(matter, step, cases).await,
                    Due::Ask { step, cases, .. } => flow.ask_list(&step, cases).await.map(|()| true),
                    Due::Answer(list) => flow.answer_list(list).await.map(|()| true),
                };
                if let Err(e) = &done {
                    warn!(error = %e, "a list could not be seen to; it is tried again");
                }
                let lists = &mut flow.lock().lists;
                if !matches!(done, Ok(true)) {
                    lists.later.insert(work.clone(), flow.host.now_ms() + AGAIN_MS);
                }
                lists.under_way.remove(&work);
            });
        }
    }

    /// Proposes a list; false where the ledger refuses.
    async fn propose_list(
        &self,
        (matter, version): (MatterId, u32),
        step: StepId,
        cases: Vec<CaseId>,
    ) -> Result<bool, FlowError> {
        let until_ms = self.host.now_ms() + LIST_LIVES_MS;
        let (n, first) = (cases.len(), cases[0]);
        let list = ProposeList { matter, version, step, cases, until_ms };
        let event = self.submit_and_wait(Body::ProposeList(list), ORDERED_WITHIN).await?;
        self.caught_up(event.height).await;
        if let Outcome::Refused(refusal) = event.outcome {
            // one of them ended meanwhile, say: those that still wait are gathered anew
            info!(cases = n, first = %first.short(), code = refusal.code(), "a list was refused by the ledger");
            return Ok(false);
        }
        Ok(true)
    }

    /// Asks all calls of a list in one submission, with their requests in as few letters as hold them. What comes of each is seen to
    /// by itself.
    async fn ask_list(&self, step: &StepId, cases: Vec<CaseId>) -> Result<(), FlowError> {
        let (mut asked, mut commands, mut letters) = (Vec::new(), Vec::new(), BTreeMap::new());
        for case in cases {
            // as a step that is asked by itself: until the ledger has it, or says no
            if !self.lock().under_way.insert((case, step.clone())) {
                continue;
            }
            match self.prepare_ask(case, step).await {
                Ok(prepared) => {
                    asked.push(case);
                    commands.push(prepared.command);
                    let requests: &mut Vec<_> = letters.entry(prepared.holder).or_default();
                    requests.push((prepared.call, prepared.sealed));
                }
                // one that cannot be asked holds up no other
                Err(e) => {
                    warn!(case = %case.short(), %step, error = %e, "a call of a list could not be asked; it is tried again");
                    let mut state = self.lock();
                    state.under_way.remove(&(case, step.clone()));
                    state.lists.hold_off(case, step, self.host.now_ms());
                }
            }
        }
        for (holder, requests) in letters {
            self.post_all(&holder, requests, Message::Requests);
        }
        let submitted = self.chain.submit_to_wait(commands);
        for (case, one) in asked.into_iter().zip(submitted.each()) {
            let (flow, step) = (self.clone(), step.clone());
            self.host.spawn(async move {
                let result = flow.chain.ordered(one, ORDERED_WITHIN).await.remove(0);
                flow.after_step(case, &step, result).await;
            });
        }
        Ok(())
    }

    /// As holder: agrees to a list, up to the number of subjects a day that its connector says; what is more waits for an officer.
    async fn answer_list(&self, id: ListId) -> Result<(), FlowError> {
        let now_ms = self.host.now_ms();
        {
            let lists = &mut self.lock().lists;
            let list = lists.known.get(&id).filter(|l| l.answer.is_none() && l.until_ms >= now_ms).cloned();
            let fits = list.map(|list| {
                let cases = lists.agreed_to(&list, now_ms).saturating_add(list.cases);
                (cases <= self.gateway.lists(&list.resource), cases)
            });
            let Some((true, _)) = fits else {
                if let Some((_, cases)) = fits {
                    info!(list = %id.short(), cases, "a list waits for an officer: `tongban list`");
                }
                lists.unanswered.remove(&id);
                return Ok(());
            };
        }
        let agreed = Body::AnswerList(AnswerList { list: id, refused: None });
        let event = self.submit_and_wait(agreed, ORDERED_WITHIN).await?;
        self.caught_up(event.height).await;
        // where the ledger says no, an officer may still
        self.lock().lists.unanswered.remove(&id);
        Ok(())
    }
}

/// The cases whose step waits to be asked by lists.
pub(crate) struct Waiting {
    pub(crate) listing: Listing,
    pub(crate) waits: Vec<(CaseId, ListWait)>,
}

/// What waits to be asked by lists, by matter and step, as [`Lists::due`] takes it.
pub(crate) type Ready = BTreeMap<((MatterId, u32), StepId), Waiting>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::tests::{World, name};

    const MINUTE_MS: u64 = 60_000;
    const PACKAGE: &str = r#"
format: 1
id: pension
version: 1
title: { zh: 养老金, en: Pension }
handler: bureau
appeal: { zh: 复议, en: Review }
bases: { duty: { zh: 某法第一条, en: "Some Law, article 1" } }
parties: [{ id: owner, title: { zh: 参保人, en: pensioner } }]
form: []
same: []
steps:
  - { id: identify, kind: identify, party: owner, title: { zh: 核验, en: Identify } }
  - id: alive
    kind: call
    after: [identify]
    party: owner
    holder: police
    resource: police.identity
    what: { predicate: alive }
    basis: { statutory: duty }
    list: { every_minutes: 10, most: 3 }
    title: { zh: 健在, en: Alive }
    purpose: { zh: 核验, en: to check }
  - { id: pay, kind: act, after: [alive], pivot: true, performer: fund, operation: pay, title: { zh: 发放, en: Pay } }
"#;

    struct Listing {
        lists: Lists,
        world: World,
        events: u8,
    }

    impl Listing {
        fn new() -> Self {
            let package = Package::parse("pension", PACKAGE).unwrap();
            let mut listing = Self { lists: Lists::default(), world: World::of(package, "owner"), events: 0 };
            assert_eq!(listing.wait(), None, "not before the ledger knows");
            let published = listing.world.package.publication(Suite::International);
            listing.at(500, Body::PublishMatter(published));
            let declared = listing.world.package.listed().unwrap();
            assert_eq!(declared.steps, [name("alive")]);
            listing.at(1_000, Body::DeclareListed(declared));
            listing
        }

        fn at(&mut self, time_ms: u64, body: Body) -> ListId {
            self.events += 1;
            let mut event = crate::simulate::event(self.events.into(), time_ms, body);
            event.command.command.signer = name("bureau");
            self.lists.note(&event, &name("bureau"));
            ListId(event.id.0)
        }

        fn wait(&self) -> Option<ListWait> {
            let step = self.world.package.step(&name("alive")).unwrap();
            self.lists.wait(&self.world.case, step, &self.world.package, self.world.now)
        }

        fn proposed(&mut self, time_ms: u64) -> ListId {
            let list = ProposeList {
                matter: name("pension"),
                version: 1,
                step: name("alive"),
                cases: vec![self.world.case.id],
                until_ms: time_ms + 30 * MINUTE_MS,
            };
            self.at(time_ms, Body::ProposeList(list))
        }

        fn settled(&mut self, time_ms: u64, step: &str, outcome: CaseOutcome) {
            let (case, step) = (self.world.case.id, name(step));
            let settle = SettleCase { case, outcome, step, reason: Commitment([0; 32]) };
            self.at(time_ms, Body::SettleCase(settle));
        }

        fn resumed(&mut self, time_ms: u64) {
            let case = self.world.case.id;
            self.at(
                time_ms,
                Body::ResumeCase(ResumeCase { case, again: vec![], reason: Commitment([0; 32]) }),
            );
        }

        fn turned_away(&self, now_ms: u64) -> Option<&'static str> {
            self.lists.turned_away(self.world.case.id, &name("alive"), now_ms)
        }

        fn due(&mut self, waits: &[(u8, ListWait)], now_ms: u64) -> Vec<Due> {
            let step = self.world.package.step(&name("alive")).unwrap();
            let listing = step.list.clone().unwrap();
            let waits = waits.iter().map(|(id, wait)| (CaseId([*id; 32]), *wait)).collect();
            let ready = [(((name("pension"), 1), name("alive")), Waiting { listing, waits })].into();
            self.lists.due(ready, now_ms)
        }
    }

    fn refuse(list: ListId) -> Body {
        Body::AnswerList(AnswerList { list, refused: Some(name("too_many")) })
    }

    #[test]
    fn a_case_waits_from_when_it_was_ready_and_what_was_refused_is_a_persons() {
        let mut w = Listing::new();
        // identified at 2,000
        assert_eq!(w.wait(), Some(ListWait::Gathers(2_000 + 10 * MINUTE_MS)));
        let list = w.proposed(3_000);
        assert_eq!(w.wait(), Some(ListWait::Proposed(list)));
        w.at(4_000, refuse(list));
        assert_eq!(w.turned_away(4_000), Some(LIST_REFUSED));
        // what it rests for at another step is no answer to that
        w.settled(4_100, "pay", CaseOutcome::NeedsHuman);
        w.resumed(4_200);
        assert_eq!(w.turned_away(4_200), Some(LIST_REFUSED));
        // handed to a person, and gone on with: it waits from then on
        w.settled(4_300, "alive", CaseOutcome::NeedsHuman);
        assert_eq!(w.turned_away(4_300), Some(LIST_REFUSED));
        w.resumed(5_000);
        assert_eq!(w.turned_away(5_000), None);
        assert_eq!(w.wait(), Some(ListWait::Gathers(5_000 + 10 * MINUTE_MS)));
        // an older resumption answers no later refusal, nor silence
        let list = w.proposed(6_000);
        w.at(7_000, refuse(list));
        assert_eq!(w.turned_away(7_000), Some(LIST_REFUSED));
        w.settled(7_100, "alive", CaseOutcome::NeedsHuman);
        w.resumed(7_200);
        w.proposed(8_000);
        assert_eq!(w.turned_away(9_000), None);
        let later = 8_000 + 31 * MINUTE_MS;
        assert_eq!(w.turned_away(later), Some(LIST_UNANSWERED));
        w.settled(later, "alive", CaseOutcome::NeedsHuman);
        w.resumed(later + 1);
        assert_eq!(w.turned_away(later + 1), None);
        let list = w.proposed(later + 2);
        w.at(later + 3, Body::AnswerList(AnswerList { list, refused: None }));
        assert_eq!(w.wait(), Some(ListWait::Agreed(list)));
        // one that was agreed to ends without fault: what was not asked is gathered anew, at once
        w.world.now = later + 31 * MINUTE_MS;
        assert!(matches!(w.wait(), Some(ListWait::Gathers(until)) if until < w.world.now));
        assert_eq!(w.turned_away(w.world.now), None);
        w.settled(w.world.now, "pay", CaseOutcome::Closed);
        assert!(w.lists.places.is_empty(), "nothing is kept of a case that is over");
    }

    #[test]
    fn a_list_is_proposed_when_it_is_late_full_or_wanted_and_once() {
        let gathers = |until_ms| ListWait::Gathers(until_ms);
        let cases = |due: Vec<Due>| -> Vec<Vec<u8>> {
            let of = |due| match due {
                Due::Propose { cases, .. } => cases.iter().map(|c| c.0[0]).collect(),
                _ => panic!("a proposal"),
            };
            due.into_iter().map(of).collect()
        };
        let mut w = Listing::new();
        let done = |w: &mut Listing| w.lists.under_way.clear();
        assert!(w.due(&[(1, gathers(100)), (2, gathers(50))], 49).is_empty());
        // late: with all that gather, in order, and not again while it is under way
        assert_eq!(cases(w.due(&[(2, gathers(50)), (1, gathers(100))], 50)), [[1, 2]]);
        assert!(w.due(&[(2, gathers(50)), (1, gathers(100)), (3, gathers(0))], 60).is_empty());
        done(&mut w);
        // full: the three that have waited longest
        let waits = [(7, gathers(400)), (4, gathers(200)), (5, gathers(300)), (6, gathers(100))];
        assert_eq!(cases(w.due(&waits, 0)), [[4, 5, 6]]);
        // wanted: as soon as nothing is under way, until none gathers, and what comes later is not
        let wanted = |w: &mut Listing| w.lists.wanted.insert((name("pension"), name("alive")));
        wanted(&mut w);
        assert!(w.due(&waits, 0).is_empty());
        done(&mut w);
        assert_eq!(cases(w.due(&waits, 0)), [[4, 5, 6]]);
        done(&mut w);
        assert_eq!(cases(w.due(&waits[..1], 0)), [[7]]);
        done(&mut w);
        assert!(w.due(&[(8, gathers(100))], 0).is_empty());
        wanted(&mut w);
        assert!(w.due(&[], 0).is_empty());
        assert!(w.due(&[(9, gathers(100))], 0).is_empty());
        // what the ledger refused waits
        let propose = Work::Propose((name("pension"), 1), name("alive"));
        w.lists.later.insert(propose, 1_000);
        assert!(w.due(&[(9, gathers(100))], 1_000 - 1).is_empty());
        assert_eq!(cases(w.due(&[(9, gathers(100))], 1_000)), [[9]]);
    }

    #[test]
    fn all_of_an_agreed_list_are_asked_at_once_but_in_its_last_minute() {
        let mut w = Listing::new();
        let (one, two) = (w.proposed(1_000), w.proposed(1_000));
        let waits = [(3, ListWait::Agreed(one)), (4, ListWait::Proposed(two)), (5, ListWait::Agreed(one))];
        let last = 1_000 + 29 * MINUTE_MS;
        assert!(w.due(&waits, last + 1).is_empty());
        match &w.due(&waits, last)[..] {
            [Due::Ask { list, cases, .. }] => assert_eq!((*list, cases.len()), (one, 2)),
            _ => panic!("one list is asked"),
        }
        assert!(w.due(&waits, last).is_empty(), "it is under way");
    }

    #[test]
    fn a_holder_answers_what_is_its_own_and_counts_what_it_agreed_to_in_a_day() {
        let mut w = Listing::new();
        let propose = |w: &mut Listing, time_ms| {
            let cases = vec![w.world.case.id];
            let (matter, step) = (name("pension"), name("alive"));
            let list = ProposeList { matter, version: 1, step, cases, until_ms: time_ms + 30 * MINUTE_MS };
            w.events += 1;
            let mut event = crate::simulate::event(w.events.into(), time_ms, Body::ProposeList(list));
            event.command.command.signer = name("bureau");
            for me in ["police", "power"] {
                w.lists.note(&event, &name(me));
            }
            ListId(event.id.0)
        };
        let first = propose(&mut w, 1_000);
        assert_eq!(w.lists.unanswered, BTreeSet::from([first]), "once, at its holder");
        let of = |w: &Listing, list, now_ms| w.lists.agreed_to(&w.lists.known[&list], now_ms);
        assert_eq!(of(&w, first, 2_000), 0);
        w.at(2_000, Body::AnswerList(AnswerList { list: first, refused: None }));
        assert!(w.lists.unanswered.is_empty());
        let second = propose(&mut w, 3_000);
        assert_eq!((of(&w, second, 3_000), of(&w, second, 2_000 + DAY_MS)), (1, 0));
        // what is long over is not kept
        let third = propose(&mut w, 3_000 + 31 * MINUTE_MS + SHOWN_MS);
        assert_eq!(w.lists.known.keys().collect::<Vec<_>>(), [&third]);
    }
}
