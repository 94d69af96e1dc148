//! Subscriptions (订阅), on both sides. The asker subscribes to what a package says, and asks again when a change is noted; the holder
//! looks at its own source now and then, and notes that an answer it gave is no longer so.
//!
//! A change is found by comparing, so that one is told at least once whatever crashes when: what was answered last is kept as a
//! keyed hash, and the ledger knows whether a change was noted and not yet asked for.

use crate::{
    case::{Case, Delivery, StepState},
    letter::{Message, Request},
    package::Package,
    run::{Flow, FlowError, State},
    steps::ORDERED_WITHIN,
};
use borsh::{BorshDeserialize, BorshSerialize};
use gateway::{GatewayError, Source};
use ledger::{
    CallRecord, CallState, CaseRecord, ConsentRecord, Key, MatterRecord, SubscribableRecord,
    SubscriptionRecord,
};
use model::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tracing::{info, warn};

/// A refused call under a subscription is tried again after this, where trying again can help: an hour.
const AGAIN_MS: u64 = 3_600_000;
const DAY_MS: u64 = 86_400_000;
/// What is subscribed to is not looked at more often than this.
const LOOK_MIN: Duration = Duration::from_millis(500);

/// A subscription of this department's, as asker.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The subscription.
    pub id: SubscriptionId,
    /// The case.
    pub case: CaseId,
    /// The call step.
    pub step: StepId,
    /// When it began, in milliseconds since 1970.
    pub since_ms: u64,
    /// The last moment it serves.
    pub until_ms: u64,
    /// How many changes the holder noted.
    pub changes: u32,
    /// Whether it goes on after the case's end.
    pub after_end: bool,
    /// When it was ended before its time.
    pub ended_ms: Option<u64>,
    /// Whether a change was noted that is not asked for yet.
    pub(crate) waits: bool,
    /// Not asked for again before this.
    pub(crate) not_before_ms: u64,
}

/// What this department subscribes to.
#[derive(Default)]
pub(crate) struct Subscriptions {
    /// All of them, by ID.
    known: BTreeMap<SubscriptionId, Subscription>,
    /// Those of each case.
    of_case: BTreeMap<CaseId, Vec<SubscriptionId>>,
    /// Those something may still come of.
    active: BTreeSet<SubscriptionId>,
    /// Opened calls whose package says that they are subscribed to, and that are not yet.
    wanted: BTreeMap<CallId, (CaseId, StepId)>,
    /// What is under way: subscribing by call, asking by step, counting by case.
    under_way: BTreeSet<[u8; 32]>,
}

impl Subscriptions {
    /// Whether a case has a subscription that lives at a time (milliseconds since 1970).
    pub(crate) fn serve(&self, case: CaseId, now_ms: u64) -> bool {
        let mut of_case = self.of_case.get(&case).into_iter().flatten();
        of_case.any(|id| self.known.get(id).is_some_and(|s| s.lives(now_ms)))
    }

    /// Takes in an accepted event of this department's case, before the case does.
    pub(crate) fn note(&mut self, event: &Event, case: &Case, package: &Package) {
        match &event.command.command.body {
            Body::Confirm(Confirm { call, dispute: None }) => {
                let newest = case.calls.iter().find(|(_, c)| c.id == *call);
                let wanted = newest.filter(|(step, _)| {
                    package.step(step).is_some_and(|s| s.subscribe_days.is_some())
                        && !self.of(&case.id).any(|s| s.step == **step && s.lives(event.time_ms))
                });
                if let Some((step, _)) = wanted {
                    self.wanted.insert(*call, (case.id, step.clone()));
                }
            }
            Body::Subscribe(new) => {
                let Some((_, step)) = self.wanted.remove(&new.call).or_else(|| {
                    let found = case.calls.iter().find(|(_, c)| c.id == new.call)?;
                    Some((case.id, found.0.clone()))
                }) else {
                    return;
                };
                let id = SubscriptionId(event.id.0);
                let subscription = Subscription {
                    id,
                    case: case.id,
                    after_end: package.step(&step).is_some_and(|s| s.subscribe_after_end),
                    step,
                    since_ms: event.time_ms,
                    until_ms: new.until_ms,
                    changes: 0,
                    ended_ms: None,
                    waits: false,
                    not_before_ms: 0,
                };
                self.known.insert(id, subscription);
                self.of_case.entry(case.id).or_default().push(id);
                self.active.insert(id);
            }
            Body::NoteChange(new) => {
                if let Some(known) = self.known.get_mut(&new.subscription) {
                    known.changes = new.number;
                    known.waits = true;
                    known.not_before_ms = 0;
                }
            }
            Body::EndSubscription(new) => {
                if let Some(known) = self.known.get_mut(&new.subscription) {
                    known.ended_ms = Some(event.time_ms);
                }
            }
            Body::Ask(new) => {
                for id in self.of_case.get(&new.case).into_iter().flatten() {
                    if let Some(known) = self.known.get_mut(id).filter(|s| s.step == new.step) {
                        known.waits = false;
                    }
                }
            }
            _ => {}
        }
    }

    /// Those of a case, oldest first.
    fn of(&self, case: &CaseId) -> impl Iterator<Item = &Subscription> {
        self.of_case.get(case).into_iter().flatten().filter_map(|id| self.known.get(id))
    }

    /// The case of a subscription.
    pub(crate) fn case_of(&self, id: &SubscriptionId) -> Option<CaseId> {
        self.known.get(id).map(|s| s.case)
    }
}

impl Subscription {
    /// Whether it goes on, as far as its consent or basis goes on.
    pub fn lives(&self, now_ms: u64) -> bool {
        self.ended_ms.is_none() && self.until_ms >= now_ms
    }
}

/// What a holder keeps of an answer that may be subscribed to.
#[derive(BorshSerialize, BorshDeserialize)]
struct Watched {
    subject: String,
    parameters: BTreeMap<FieldId, String>,
    /// What was answered, as a keyed hash.
    answered: Digest,
}

fn watched_place(call: CallId) -> String {
    format!("watched/{call}")
}

/// Something to do for a subscription.
enum Due {
    Subscribe(CallId, u64),
    Ask(SubscriptionId, CaseId, StepId),
    Count(CaseId),
}

impl<S: Source> Flow<S> {
    fn knows_subscriptions(&self) -> bool {
        self.chain.roster().1.protocol >= SUBSCRIPTION_PROTOCOL
    }

    /// The subscriptions of this department as asker, oldest first.
    pub fn subscriptions(&self) -> Vec<Subscription> {
        let mut all: Vec<_> = self.lock().subscriptions.known.values().cloned().collect();
        all.sort_by_key(|s| (s.since_ms, s.id));
        all
    }

    /// The subscriptions of a case, oldest first.
    pub fn subscriptions_of(&self, case: CaseId) -> Vec<Subscription> {
        self.lock().subscriptions.of(&case).cloned().collect()
    }

    /// Subscribes, asks for what has changed, and counts what came after a case's end.
    pub(crate) fn work_as_subscriber(&self) {
        if !self.knows_subscriptions() {
            return;
        }
        let due = self.due_for_subscriptions();
        for item in due {
            let flow = self.clone();
            self.host.spawn(async move {
                let (key, done) = match item {
                    Due::Subscribe(call, until_ms) => (call.0, flow.subscribe(call, until_ms).await),
                    Due::Ask(id, case, step) => (id.0, flow.ask_changed(id, case, &step).await),
                    Due::Count(case) => (case.0, flow.count_again(case).await),
                };
                if let Err(e) = done {
                    warn!(error = %e, "a subscription could not be seen to; it is tried again");
                }
                flow.lock().subscriptions.under_way.remove(&key);
            });
        }
    }

    fn due_for_subscriptions(&self) -> Vec<Due> {
        let now = self.host.now_ms();
        let mut state = self.lock();
        let State { cases, subscriptions, .. } = &mut *state;
        let mut due = Vec::new();
        subscriptions.wanted.retain(|call, (case, step)| {
            let Some(case) = cases.get(case).filter(|c| !c.is_over()) else { return false };
            let Some(known) = case.calls.get(step).filter(|c| c.id == *call) else { return false };
            let days = self.packages.get(&case.matter).and_then(|p| p.step(step)?.subscribe_days);
            let Some(days) = days else { return false };
            let mut until = now + u64::from(days) * DAY_MS;
            if let Some(consent) = known.consent {
                let consent = case.consents.values().find(|c| c.0.0 == consent.0 && c.2.is_none());
                let Some((_, terms, _)) = consent else { return false };
                until = until.min(terms.expires_ms);
            }
            if subscriptions.under_way.insert(call.0) {
                due.push(Due::Subscribe(*call, until));
            }
            true
        });
        let Subscriptions { known, active, under_way, .. } = subscriptions;
        active.retain(|id| {
            let Some((s, case)) = known.get(id).and_then(|s| Some((s, cases.get(&s.case)?))) else {
                return false;
            };
            let newest = case.deliveries.iter().rfind(|d| d.step == s.step);
            let silent = newest.is_some_and(|d| d.call.answer.is_none() && d.call.answer_by_ms < now);
            let goes_on = s.lives(now) && (s.after_end || !case.is_over());
            // a step that is made again anyway brings the newest along
            let done = matches!(case.state(&s.step), StepState::Done(_));
            let asks = (s.waits || silent) && done && goes_on && s.not_before_ms <= now;
            if asks && under_way.insert(id.0) {
                due.push(Due::Ask(*id, s.case, s.step.clone()));
            }
            let over = case.is_over();
            let uncounted = over && case.counted.is_some_and(|(_, counted)| counted < case.log.len());
            // declined, there is nothing to confirm
            let ended = |d: &Delivery| {
                d.call.confirm.is_some() || matches!(d.call.answer, Some((_, Reply::Declined(_)))) || silent
            };
            let at_rest = newest.is_none_or(ended);
            if uncounted && at_rest && under_way.insert(s.case.0) {
                due.push(Due::Count(s.case));
            }
            goes_on || uncounted || !at_rest
        });
        due
    }

    async fn subscribe(&self, call: CallId, until_ms: u64) -> Result<(), FlowError> {
        let mut until_ms = until_ms;
        let record: Option<CallRecord> = self.chain.record(&Key::Call(call)).await?;
        if record.is_some_and(|c| c.consent.is_none())
            && let Some(basis) = self.chain.record::<ApprovalId>(&Key::CallBasis(call)).await?
            && let Some(holder) = self.holder_of(call)
            && let Some(approval) = self.chain.record::<ApproveBasis>(&Key::Approval(holder, basis)).await?
        {
            until_ms = until_ms.min(approval.expires_ms);
        }
        let body = Body::Subscribe(Subscribe { call, until_ms });
        let event = self.submit_and_wait(body, ORDERED_WITHIN).await?;
        if let Outcome::Refused(refusal) = event.outcome {
            // a declared version from before there were subscriptions, say: the case goes on without
            info!(call = %call.short(), code = refusal.code(), "an answer could not be subscribed to");
        }
        self.caught_up(event.height).await;
        self.lock().subscriptions.wanted.remove(&call);
        Ok(())
    }

    fn holder_of(&self, call: CallId) -> Option<DepartmentId> {
        let state = self.lock();
        let (case, step) = state.calls.get(&call)?;
        let package = self.packages.get(&state.cases.get(case)?.matter)?;
        package.step(step)?.holder.clone()
    }

    /// Asks for what a change was noted of.
    async fn ask_changed(&self, id: SubscriptionId, case: CaseId, step: &StepId) -> Result<(), FlowError> {
        let bytes = self.send_request(self.prepare_ask(case, step).await?);
        let result = self.chain.submit_and_wait(vec![bytes], ORDERED_WITHIN).await.remove(0)?;
        self.caught_up(result.height).await;
        let Outcome::Refused(refusal) = result.outcome else { return Ok(()) };
        let again = matches!(refusal, Refusal::OverBudget | Refusal::Unexplained);
        warn!(case = %case.short(), %step, code = refusal.code(), again, "what changed could not be asked for");
        let now = self.host.now_ms();
        if let Some(known) = self.lock().subscriptions.known.get_mut(&id) {
            known.waits = again;
            known.not_before_ms = if again { now + AGAIN_MS } else { u64::MAX };
        }
        Ok(())
    }

    /// Counts the calls of a case that is over once more, so that its access log is complete again.
    async fn count_again(&self, case: CaseId) -> Result<(), FlowError> {
        let event = self.submit_and_wait(Body::CountCase(CountCase { case }), ORDERED_WITHIN).await?;
        self.caught_up(event.height).await;
        Ok(())
    }

    /// Sends again what calls under subscriptions may have lost: the holder, the call, and whether it was answered.
    pub(crate) fn undelivered(&self) -> Vec<(DepartmentId, CallId, bool)> {
        let now = self.host.now_ms();
        let state = self.lock();
        let mut lost = Vec::new();
        let Subscriptions { known, active, .. } = &state.subscriptions;
        let cases: BTreeSet<CaseId> = active.iter().filter_map(|id| Some(known.get(id)?.case)).collect();
        for case in cases.iter().filter_map(|id| state.cases.get(id)) {
            let Some(package) = self.packages.get(&case.matter) else { continue };
            for d in &case.deliveries {
                let answered = matches!(d.call.answer, Some((_, Reply::Data { .. })));
                let open = d.call.confirm.is_none() && d.values.is_none() && d.asked_ms + 1_000 < now;
                let waits = answered || (d.call.answer.is_none() && d.call.answer_by_ms >= now);
                let holder = package.step(&d.step).and_then(|s| s.holder.clone());
                lost.extend(holder.filter(|_| open && waits).map(|h| (h, d.call.id, answered)));
            }
        }
        lost
    }

    /// Keeps, as holder, what was answered, where it may be subscribed to.
    pub(crate) async fn keep_for_subscriptions(
        &self,
        call: CallId,
        request: &Request,
        case: &CaseRecord,
        step: &StepId,
        answered: &Answered<'_>,
    ) -> Result<(), FlowError> {
        if !self.knows_subscriptions() {
            return Ok(());
        }
        let key = Key::Subscribable(case.matter.clone(), case.version);
        let declared: Option<SubscribableRecord> = self.chain.record(&key).await?;
        if !declared.is_some_and(|d| d.steps.iter().any(|s| &s.step == step)) {
            return Ok(());
        }
        let watched = Watched {
            subject: request.subject.clone(),
            parameters: request.parameters.clone(),
            answered: self.fingerprint(answered),
        };
        self.vault.put(&watched_place(call), &encode(&watched)).await?;
        Ok(())
    }

    fn fingerprint(&self, answered: &Answered<'_>) -> Digest {
        let bytes = match answered {
            Answered::Values(values) => encode(&(0u8, values)),
            Answered::Nothing => encode(&1u8),
        };
        crypto::keyed_hash(self.suite(), self.keys.storage.bytes(), "tongban/answered/1", &bytes)
    }

    /// Notes that somebody subscribed; whether to an answer of this department's shows when it is looked at.
    pub(crate) fn follow_subscription(&self, event: &Event) {
        if let Body::Subscribe(_) = &event.command.command.body {
            self.watched.lock().expect("no holder panics").insert(SubscriptionId(event.id.0));
        }
    }

    /// As holder, looks at what is subscribed to every so often, until the chain stops.
    pub(crate) async fn watch(self, every: Duration) {
        loop {
            tokio::select! {
                () = self.host.sleep(every.max(LOOK_MIN)) => {}
                () = self.chain.stopped() => return,
            }
            let ids: Vec<_> = self.watched.lock().expect("no holder panics").iter().copied().collect();
            for id in ids {
                match self.look_at(id, every.is_zero()).await {
                    Ok(true) => {}
                    Ok(false) => drop(self.watched.lock().expect("no holder panics").remove(&id)),
                    Err(e) => {
                        warn!(subscription = %id.short(), error = %e, "what is subscribed to could not be looked at; trying again")
                    }
                }
            }
        }
    }

    /// Looks whether what a subscription is about has changed. False: there is nothing more to look at.
    async fn look_at(&self, id: SubscriptionId, refuses: bool) -> Result<bool, FlowError> {
        let Some(record) = self.chain.record::<SubscriptionRecord>(&Key::Subscription(id)).await? else {
            return Ok(true);
        };
        if record.holder != self.me {
            return Ok(false);
        }
        let newest: Option<(CallId, u32)> =
            self.chain.record(&Key::StepCall(record.case, record.step.clone())).await?;
        let Some((call, _)) = newest else { return Ok(true) };
        if !self.goes_on(&record).await? {
            self.vault.erase(&watched_place(call)).await?;
            return Ok(false);
        }
        if refuses {
            info!(subscription = %id.short(), "this node lets nobody subscribe (`watch_seconds` is 0); the subscription is ended");
            let end = Body::EndSubscription(EndSubscription { subscription: id });
            self.submit_and_wait(end, ORDERED_WITHIN).await?;
            return Ok(false);
        }
        let noted: bool =
            self.chain.record(&Key::Again(record.case, record.step.clone())).await?.unwrap_or(false);
        let answered: Option<CallRecord> = self.chain.record(&Key::Call(call)).await?;
        if noted || answered.is_none_or(|c| c.state == CallState::Granted) {
            return Ok(true);
        }
        let Some(kept) = self.vault.get(&watched_place(call)).await? else { return Ok(true) };
        let watched: Watched =
            decode(&kept).map_err(|_| FlowError::Inconsistent("what was answered is damaged"))?;
        let case: CaseRecord = self.record(Key::Case(record.case)).await?;
        let matter: MatterRecord = self.record(Key::Matter(case.matter.clone(), case.version)).await?;
        let need = matter.published.needs.iter().find(|n| n.step == record.step);
        let need = need.ok_or(FlowError::Inconsistent("a subscription is to no declared need"))?;
        let now =
            self.gateway.answer(&need.resource, &need.what, &watched.subject, &watched.parameters).await;
        let now = match &now {
            Ok(values) => Answered::Values(values),
            Err(GatewayError::NotFound | GatewayError::Ambiguous) => Answered::Nothing,
            // not served just now, which says nothing of the data
            Err(_) => return Ok(true),
        };
        if self.fingerprint(&now) == watched.answered {
            return Ok(true);
        }
        let note = Body::NoteChange(NoteChange { subscription: id, number: record.changes + 1 });
        let event = self.submit_and_wait(note, ORDERED_WITHIN).await?;
        if let Outcome::Refused(refusal) = event.outcome {
            info!(subscription = %id.short(), code = refusal.code(), "a change was noted too late or too often");
        }
        Ok(true)
    }

    /// Whether a subscription and its consent go on.
    async fn goes_on(&self, record: &SubscriptionRecord) -> Result<bool, FlowError> {
        let now = self.host.now_ms();
        let consent: Option<ConsentRecord> = match record.consent {
            Some(id) => Some(self.record(Key::Consent(id)).await?),
            None => None,
        };
        let case: CaseRecord = self.record(Key::Case(record.case)).await?;
        let over = match case.outcome.filter(|o| o.is_final()) {
            Some(CaseOutcome::Closed | CaseOutcome::ClosedPartly) => !record.after_end,
            Some(_) => true,
            None => false,
        };
        Ok(!over && record.lives(now) && consent.is_none_or(|c| !c.withdrawn && c.terms.expires_ms >= now))
    }

    /// Asks the holders of calls under subscriptions again for what did not come.
    pub(crate) async fn repeat_deliveries(&self) -> Result<(), FlowError> {
        for (holder, call, answered) in self.undelivered() {
            if answered {
                if !self.open_early(call).await? {
                    self.post(&holder, &Message::Fetch { call });
                }
            } else if let Some(sealed) = self.vault.get(&format!("sent/{call}")).await? {
                self.post(&holder, &Message::Request { call, sealed });
            }
        }
        Ok(())
    }
}

/// What a source said.
pub(crate) enum Answered<'a> {
    /// Values by name.
    Values(&'a [(FieldId, String)]),
    /// No entry, or more than one.
    Nothing,
}
