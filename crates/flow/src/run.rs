//! The loop of a node: final events and other nodes' messages in, commands and messages out.

use crate::{
    case::Case,
    catalogue::Catalogue,
    holder::Holder,
    letter::Message,
    lists::Lists,
    notices::Notice,
    package::{Package, Packages},
    sharing::Known,
    statement::{Answers, Withholding},
    subscriptions::Subscriptions,
    terminals::Terminals,
    vault::{Vault, VaultError},
};
use bytes::Bytes;
use chain::{BlockEvents, Chain, ChainError, Host, Letter, Level};
use crypto::Keys;
use gateway::{Gateway, Source};
use model::*;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tracing::{debug, warn};

/// How often unfinished business is looked at again.
const TICK: Duration = Duration::from_millis(500);
/// How old a block may be, by this node's clock, to be acted on; in milliseconds. A node that was restored from a backup reads
/// the blocks it lacks, and must not act on each as if it were the newest.
const FRESH_MS: u64 = 60_000;
/// A node whose blocks are old by its clock for so long, and come no faster than time passes, has them all: its clock is wrong.
const CLOCK_WRONG_AFTER_MS: u64 = 30_000;
/// How many letters are handled at once.
const LETTERS_AT_ONCE: usize = 256;
/// How long commands of this node stay valid.
const COMMAND_LIFETIME_MS: u64 = 3_600_000;

/// What a node's flow needs.
pub struct Settings<S> {
    /// The ledger.
    pub chain: Chain,
    /// This department.
    pub department: DepartmentId,
    /// Its keys.
    pub keys: Keys,
    /// Its vault.
    pub vault: Arc<dyn Vault>,
    /// Its gateway.
    pub gateway: Arc<Gateway<S>>,
    /// The packages it knows, as handler.
    pub packages: Vec<Package>,
    /// Which calls are withheld from statements, as holder.
    pub withholdings: Vec<Withholding>,
    /// How often, as holder, it looks whether what is subscribed to has changed; zero: it lets nobody subscribe.
    pub watch_every: Duration,
    /// Messages from other nodes.
    pub letters: mpsc::Receiver<Letter>,
}

/// What the ledger published, by name: the command that published it last.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) matters: BTreeMap<(MatterId, u32), (CommandId, Digest)>,
    pub(crate) approvals: BTreeMap<(DepartmentId, ApprovalId), CommandId>,
    /// Versions of matters whose acts can be undone.
    pub(crate) undone: BTreeSet<(MatterId, u32)>,
}

impl Published {
    /// Notes which catalogue entry and approval a call rested on when it was asked: later versions are not its own.
    fn stand_behind(&self, catalogue: &Catalogue, case: &mut Case, package: &Package, step: &StepId) {
        // the newest of the step: under a subscription, where there is one of those after it
        let delivered = case.deliveries.iter_mut().rfind(|d| &d.step == step).map(|d| &mut d.call);
        let newest = delivered.into_iter().chain(case.calls.get_mut(step)).max_by_key(|call| call.attempt);
        let (Some(declared), Some(call)) = (package.step(step), newest) else { return };
        call.resource = declared.resource.as_ref().and_then(|r| catalogue.published_by(r));
        if let (Some(crate::Basis::Statutory(id)), Some(holder)) = (&declared.basis, &declared.holder) {
            call.approval = self.approvals.get(&(holder.clone(), id.clone())).copied();
        }
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) cases: BTreeMap<CaseId, Case>,
    pub(crate) published: Published,
    pub(crate) known: Known,
    pub(crate) terminals: Terminals,
    /// What people are to be told, oldest first.
    pub(crate) notices: VecDeque<Notice>,
    /// Steps for which a command is under way, so that none is submitted twice.
    pub(crate) under_way: BTreeSet<(CaseId, StepId)>,
    /// Decisions that wait for a person: the rule's result.
    pub(crate) unconfirmed: BTreeMap<CaseId, (StepId, Code)>,
    pub(crate) calls: BTreeMap<CallId, (CaseId, StepId)>,
    pub(crate) actions: BTreeMap<ActionId, (CaseId, StepId)>,
    pub(crate) consents: BTreeMap<ConsentId, CaseId>,
    /// When a call was last confirmed by the reminder.
    pub(crate) confirmed: BTreeMap<CallId, u64>,
    pub(crate) proofs: BTreeMap<CommandId, proof::EventProof>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) lists: Lists,
    /// Cases that were anchored as erased, and are to be erased in the vault.
    pub(crate) erasing: BTreeSet<CaseId>,
    /// When this node last looked whose time is over.
    pub(crate) erased_look_ms: u64,
    /// Whether erasing is under way.
    pub(crate) erases: bool,
    /// Whether the past is folded in.
    pub(crate) live: bool,
}

/// Tells whoever waits that nothing more comes, however the loop ended.
struct Closing([Arc<Level>; 2]);

impl Drop for Closing {
    fn drop(&mut self) {
        for level in &self.0 {
            level.close();
        }
    }
}

/// A node's flow. Cloning is cheap.
pub struct Flow<S: Source> {
    pub(crate) host: Host,
    pub(crate) chain: Chain,
    pub(crate) me: DepartmentId,
    pub(crate) keys: Keys,
    pub(crate) vault: Arc<dyn Vault>,
    pub(crate) gateway: Arc<Gateway<S>>,
    pub(crate) packages: Arc<Packages>,
    pub(crate) catalogue: Catalogue,
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) holder: Arc<Mutex<Holder>>,
    pub(crate) answers: Arc<Mutex<Answers>>,
    pub(crate) withholdings: Arc<Vec<Withholding>>,
    pub(crate) secret: Arc<OnceCell<[u8; 32]>>,
    /// The subscriptions that may be to this holder's answers.
    pub(crate) watched: Arc<Mutex<BTreeSet<SubscriptionId>>>,
    /// Held while it is decided whether a person may be answered about once more today: the day counted on.
    pub(crate) counting: Arc<tokio::sync::Mutex<Day>>,
    /// Grows with every change of a case, for whoever waits.
    pub(crate) changes: Arc<Level>,
    /// The height up to which events were taken in.
    pub(crate) followed: Arc<Level>,
    letters_at_once: Arc<Semaphore>,
    /// How many requests came in letters of several.
    together: Arc<AtomicU64>,
}

impl<S: Source> Clone for Flow<S> {
    fn clone(&self) -> Self {
        Self {
            host: self.host.clone(),
            chain: self.chain.clone(),
            me: self.me.clone(),
            keys: self.keys.clone(),
            vault: self.vault.clone(),
            gateway: self.gateway.clone(),
            packages: self.packages.clone(),
            catalogue: self.catalogue.clone(),
            state: self.state.clone(),
            holder: self.holder.clone(),
            answers: self.answers.clone(),
            withholdings: self.withholdings.clone(),
            secret: self.secret.clone(),
            watched: self.watched.clone(),
            counting: self.counting.clone(),
            changes: self.changes.clone(),
            followed: self.followed.clone(),
            letters_at_once: self.letters_at_once.clone(),
            together: self.together.clone(),
        }
    }
}

/// Whether a block of this time is the newest there is, as far as a clock tells (both in milliseconds since 1970). `first_old` keeps
/// the first block that was not, with the clock then.
fn is_new(time_ms: u64, now_ms: u64, first_old: &mut Option<(u64, u64)>) -> bool {
    if now_ms <= time_ms + FRESH_MS {
        return true;
    }
    let (first_ms, at_ms) = *first_old.get_or_insert((time_ms, now_ms));
    let passed = now_ms.saturating_sub(at_ms);
    if passed < CLOCK_WRONG_AFTER_MS {
        return false;
    }
    // who catches up reads an hour in seconds
    if time_ms.saturating_sub(first_ms) > 2 * passed {
        *first_old = Some((time_ms, now_ms));
        return false;
    }
    warn!(ahead_ms = now_ms - time_ms, "this node's clock is ahead of the ledger's time: set it");
    true
}

impl<S: Source> Flow<S> {
    /// Starts following the ledger, until the chain stops.
    pub fn start(settings: Settings<S>) -> Self {
        let packages = Packages::default();
        settings.packages.into_iter().for_each(|p| packages.put(p));
        let flow = Self {
            host: settings.chain.host().clone(),
            chain: settings.chain,
            me: settings.department,
            keys: settings.keys,
            vault: settings.vault,
            gateway: settings.gateway,
            packages: Arc::new(packages),
            catalogue: Catalogue::default(),
            state: Arc::default(),
            holder: Arc::default(),
            answers: Arc::default(),
            withholdings: Arc::new(settings.withholdings),
            secret: Arc::default(),
            watched: Arc::default(),
            counting: Arc::default(),
            changes: Arc::default(),
            followed: Arc::default(),
            letters_at_once: Arc::new(Semaphore::new(LETTERS_AT_ONCE)),
            together: Arc::default(),
        };
        flow.host.spawn(flow.clone().run(settings.letters));
        flow.host.spawn(flow.clone().watch(settings.watch_every));
        flow
    }

    /// The ledger.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The department this node is of.
    pub fn department(&self) -> &DepartmentId {
        &self.me
    }

    /// How many requests came in letters of several, since the node started.
    pub fn requests_together(&self) -> u64 {
        self.together.load(SeqCst)
    }

    /// Grows whenever a case changes.
    pub fn changes(&self) -> &Level {
        &self.changes
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    async fn run(self, mut letters: mpsc::Receiver<Letter>) {
        let _closing = Closing([self.followed.clone(), self.changes.clone()]);
        let mut events = self.chain.events(1);
        let rest = |host: &Host| {
            let host = host.clone();
            Box::pin(async move { host.sleep(TICK).await })
        };
        let mut tick = rest(&self.host);
        let mut known = if planted("half_past") { 0 } else { self.known_before().await };
        let (mut live, mut was_live, mut first_old) = (false, false, None);
        loop {
            tokio::select! {
                biased;
                () = &mut tick => {
                    if live {
                        self.remind();
                        self.work();
                    }
                    tick = rest(&self.host);
                }
                Some(letter) = letters.recv() => self.receive(letter),
                block = events.next() => match block {
                    Ok(block) => {
                        let caught_up = block.height >= self.chain.height();
                        live |= caught_up && block.height >= known && is_new(block.time_ms, self.host.now_ms(), &mut first_old);
                        if live && !block.events.is_empty() {
                            known = known.max(block.height);
                            self.keep_known(known).await;
                        }
                        self.take_in(&block, was_live).await;
                        was_live = live;
                        self.lock().live = live;
                        if live && caught_up && !block.events.is_empty() {
                            self.work();
                        }
                    }
                    Err(ChainError::Stopped) => return,
                    Err(e) => {
                        warn!(error = %e, "a final block could not be read; trying again");
                        self.host.sleep(TICK).await;
                    }
                },
            }
        }
    }

    /// The height this node has acted on in an earlier life. It may have to read its blocks again, from a backup or from the others,
    /// and would do half of what it did a second time if it acted on any before that.
    async fn known_before(&self) -> u64 {
        loop {
            match self.vault.get(&self.known_place()).await {
                Ok(kept) => return kept.and_then(|bytes| model::decode(&bytes).ok()).unwrap_or_default(),
                Err(e) => {
                    warn!(error = %e, "the vault cannot be read; trying again");
                    self.host.sleep(TICK).await;
                }
            }
        }
    }

    async fn keep_known(&self, height: u64) {
        while let Err(e) = self.vault.put(&self.known_place(), &encode(&height)).await {
            warn!(error = %e, height, "the vault cannot be written; trying again");
            self.host.sleep(TICK).await;
        }
    }

    /// A vault may outlive a consortium: each has its own heights.
    fn known_place(&self) -> String {
        format!("known/{}", self.chain.rules().chain)
    }

    /// Starts whatever is due, without waiting for it.
    fn work(&self) {
        self.work_as_holder();
        self.work_as_handler();
        self.work_as_subscriber();
    }

    /// Sends again what may have been lost.
    fn remind(&self) {
        let flow = self.clone();
        self.host.spawn(async move {
            if let Err(e) = flow.repeat_requests().await.and(flow.repeat_deliveries().await) {
                debug!(error = %e, "a reminder could not be sent");
            }
            if let Err(e) = flow.erase_due().await {
                warn!(error = %e, "cases whose time is over could not be erased; it is tried again in an hour");
            }
        });
    }

    fn receive(&self, letter: Letter) {
        let Ok(message) = model::decode::<Message>(&letter.bytes) else {
            warn!(from = %letter.from, "a message from another node is malformed; it was dropped");
            return;
        };
        // a letter too many is dropped: whoever needs its answer sends it again
        let Ok(permit) = self.letters_at_once.clone().try_acquire_owned() else { return };
        let flow = self.clone();
        self.host.spawn(async move {
            let _permit = permit;
            let from = letter.from.clone();
            if let Err(e) = flow.handle(letter.from, message).await {
                warn!(%from, error = %e, "a message from another node could not be handled");
            }
        });
    }

    async fn handle(&self, from: DepartmentId, message: Message) -> Result<(), FlowError> {
        match message {
            Message::Request { call, sealed } => self.take_request(&from, call.0, sealed),
            Message::Requests(all) => {
                self.together.fetch_add(all.len() as u64, SeqCst);
                all.into_iter().for_each(|(call, sealed)| self.keep_request(&from, call.0, sealed));
                self.work_as_holder();
            }
            Message::Payloads(all) => {
                for (call, sealed) in all {
                    // one that cannot be kept is fetched again, and holds up no other
                    if let Err(e) = self.open_one(call, sealed).await {
                        warn!(%from, call = %call.short(), error = %e, "a payload could not be opened; it is fetched again");
                    }
                }
                self.work_as_handler();
            }
            Message::Task { action, sealed } => self.take_request(&from, action.0, sealed),
            Message::Fetch { call } => self.release_again(from, call).await?,
            Message::Payload { call, sealed } => self.open_payload(call, sealed).await?,
            Message::Result { action, sealed } => self.take_result(action, sealed).await?,
            Message::FetchResult { action } => self.result_again(from, action).await?,
        }
        Ok(())
    }

    /// Folds one block into what this node knows; waits out a vault that cannot be read.
    async fn take_in(&self, block: &BlockEvents, live: bool) {
        let mut changed = false;
        let mut released = Vec::new();
        for event in &block.events {
            released.extend(self.follow_as_holder(event, live));
            changed |= loop {
                match self.take_in_event(event).await {
                    Ok(changed) => break changed,
                    Err(e) => {
                        warn!(error = %e, height = block.height, "the vault cannot be read; trying again");
                        self.host.sleep(TICK).await;
                    }
                }
            };
        }
        if !released.is_empty() {
            self.spawn_release(released);
        }
        self.note_answers(block);
        self.followed.raise(block.height);
        if changed {
            self.changes.step();
        }
    }

    async fn take_in_event(&self, event: &Event) -> Result<bool, VaultError> {
        let Outcome::Accepted(_) = event.outcome else { return Ok(false) };
        self.follow_subscription(event);
        let signer = &event.command.command.signer;
        if let Body::Anchor(anchor) = &event.command.command.body
            && signer == &self.me
        {
            self.note_erased(anchor, event.time_ms);
        }
        {
            let mut state = self.lock();
            state.known.note(signer, &event.command.command.body);
            state.lists.note(event, &self.me);
            if signer == &self.me {
                state.terminals.note(&event.command.command.body, event.time_ms);
            }
            match &event.command.command.body {
                Body::PublishResource(r) => {
                    self.catalogue.put(event.id, event.time_ms, r);
                }
                Body::DescribeResource(d) => {
                    self.catalogue.describe(event.time_ms, d);
                }
                Body::PublishMatter(m) => {
                    state.published.matters.insert((m.id.clone(), m.version), (event.id, m.package));
                }
                Body::DeclareUndo(d) => {
                    state.published.undone.insert((d.matter.clone(), d.version));
                }
                Body::ApproveBasis(a) => {
                    state.published.approvals.insert((signer.clone(), a.id.clone()), event.id);
                }
                Body::OpenCase(open) if signer == &self.me => {
                    state.cases.insert(CaseId(event.id.0), Case::opened(event, open));
                }
                Body::Ask(c) if signer == &self.me => {
                    state.calls.insert(CallId(event.id.0), (c.case, c.step.clone()));
                }
                Body::RequestAction(c) if signer == &self.me => {
                    state.actions.insert(ActionId(event.id.0), (c.case, c.step.clone()));
                }
                Body::GiveConsent(c) if signer == &self.me => {
                    state.consents.insert(ConsentId(event.id.0), c.terms.case);
                }
                _ => {}
            }
        }
        let Some(id) = self.case_of(event) else { return Ok(false) };
        self.note_notice(event, id);
        if matches!(&event.command.command.body, Body::OpenCase(_)) {
            let values = self.case_values(id).await?;
            if let Some(case) = self.lock().cases.get_mut(&id) {
                case.values = values;
            }
            return Ok(true);
        }
        let reopened = match &event.command.command.body {
            Body::Answer(c) => self.opened_before(c.call).await?,
            _ => None,
        };
        let returned = match &event.command.command.body {
            Body::ReportAction(c) if c.failure.is_none() => {
                let step = self.lock().actions.get(&c.action).map(|(_, step)| step.clone());
                match step {
                    Some(step) => self.returned_before(id, &step).await?.map(|values| (step, values)),
                    None => None,
                }
            }
            _ => None,
        };
        let reason = self.reason(event).await?;
        let mut state = self.lock();
        let State { cases, under_way, published, subscriptions, .. } = &mut *state;
        let Some(case) = cases.get_mut(&id) else { return Ok(false) };
        let Some(package) = self.packages.get(&case.matter) else { return Ok(false) };
        if let Body::Ask(Ask { step, .. })
        | Body::RequestAction(RequestAction { step, .. })
        | Body::Decide(Decide { step, .. })
        | Body::SettleCase(SettleCase { step, .. }) = &event.command.command.body
        {
            under_way.remove(&(id, step.clone()));
        }
        if matches!(event.command.command.body, Body::ResumeCase(_)) {
            under_way.retain(|(case, _)| *case != id);
        }
        subscriptions.note(event, case, &package);
        case.apply(event, &package, &reason);
        if let Body::Ask(ask) = &event.command.command.body {
            published.stand_behind(&self.catalogue, case, &package, &ask.step);
        }
        if let Body::ReportAction(report) = &event.command.command.body {
            self.spawn_early_result(report.action);
        }
        if let Some((step, values)) = returned {
            case.returned_here(&step, values);
        }
        if let (Some((_, values, _)), Body::Answer(answer)) = (&reopened, &event.command.command.body)
            && case.delivered_here(answer.call, values.clone())
        {
            return Ok(true);
        }
        if let Some((step, values, commitments)) = reopened {
            case.opened_here(&step, values, commitments, event.time_ms);
        } else if let Body::Answer(Answer { call, reply: Reply::Data { .. } }) = &event.command.command.body {
            self.spawn_open_early(*call);
        }
        Ok(true)
    }

    /// The case of this node's an event belongs to.
    fn case_of(&self, event: &Event) -> Option<CaseId> {
        let state = self.lock();
        let id = match &event.command.command.body {
            Body::OpenCase(_) => CaseId(event.id.0),
            Body::Identify(c) => c.assertion.case,
            Body::GiveConsent(c) => c.terms.case,
            Body::WithdrawConsent(c) => *state.consents.get(&c.consent)?,
            Body::Ask(c) => c.case,
            Body::Answer(c) => state.calls.get(&c.call)?.0,
            Body::Confirm(c) => state.calls.get(&c.call)?.0,
            Body::Lapse(c) => state.calls.get(&c.call)?.0,
            Body::Object(c) => state.calls.get(&c.call)?.0,
            Body::AnswerObjection(c) => state.calls.get(&c.call)?.0,
            Body::RequestAction(c) => c.case,
            Body::ReportAction(c) => state.actions.get(&c.action)?.0,
            Body::Decide(c) => c.case,
            Body::SettleCase(c) => c.case,
            Body::ResumeCase(c) => c.case,
            Body::CountCase(c) => c.case,
            Body::Subscribe(c) => state.calls.get(&c.call)?.0,
            Body::NoteChange(c) => state.subscriptions.case_of(&c.subscription)?,
            Body::EndSubscription(c) => state.subscriptions.case_of(&c.subscription)?,
            _ => return None,
        };
        state.cases.contains_key(&id).then_some(id)
    }

    /// Signs a command of this department.
    pub(crate) fn sign(&self, body: Body) -> (CommandId, Bytes) {
        let command = Command {
            chain: self.chain.rules().chain,
            signer: self.me.clone(),
            nonce: u64::from_le_bytes(crypto::random()),
            expires_ms: self.host.now_ms() + COMMAND_LIFETIME_MS,
            body,
        };
        let signed = crypto::signed(&self.keys.command, command);
        (crypto::command_id(&signed), encode(&signed).into())
    }

    /// Signs and submits a command; it goes on being told to the validators until it is ordered.
    pub(crate) fn submit(&self, body: Body) -> Result<CommandId, FlowError> {
        let (_, bytes) = self.sign(body);
        Ok(self.chain.submit(vec![bytes]).remove(0).map_err(ChainError::from)?)
    }

    /// Submits a command of this department and waits until it is final.
    pub async fn submit_and_wait(&self, body: Body, patience: Duration) -> Result<Event, ChainError> {
        let (_, bytes) = self.sign(body);
        self.chain.submit_and_wait(vec![bytes], patience).await.remove(0)
    }

    pub(crate) fn post(&self, to: &DepartmentId, message: &Message) {
        self.chain.post(to.clone(), encode(message));
    }

    pub(crate) fn member(&self, id: &DepartmentId) -> Result<Member, FlowError> {
        self.chain.roster().1.member(id).cloned().ok_or(FlowError::Inconsistent("no such member"))
    }

    /// The suite of the consortium.
    pub(crate) fn suite(&self) -> Suite {
        self.chain.rules().suite()
    }
}

/// Why a step could not be performed now. Never holds personal data.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlowError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("a message could not be sealed or opened: {0}")]
    Seal(#[from] crypto::SealError),
    #[error("{0}")]
    Inconsistent(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn who_catches_up_waits_until_what_it_reads_is_new() {
        let (mut first_old, mut now, mut block) = (None, 24 * HOUR_MS, 0);
        // an hour of blocks a second
        while block + FRESH_MS < now {
            assert!(!is_new(block, now, &mut first_old), "{block} at {now}");
            (block, now) = (block + HOUR_MS, now + 1_000);
        }
        assert!(is_new(block, now, &mut first_old));
    }

    #[test]
    fn whose_clock_is_ahead_begins_all_the_same() {
        let (mut first_old, ahead) = (None, HOUR_MS);
        let at = |seconds: u64, first_old: &mut Option<_>| {
            is_new(seconds * 1_000, seconds * 1_000 + ahead, first_old)
        };
        assert!((0..30).all(|s| !at(s, &mut first_old)));
        assert!(at(30, &mut first_old));
        assert!(is_new(HOUR_MS, 0, &mut None), "whose clock is behind cannot tell");
    }
}
