//! The holder's and performer's part: answer granted calls, perform requested actions, release what is final.

use crate::steps::ORDERED_WITHIN;
use crate::{
    letter::{
        ActionResult, Message, Payload, Request, Task, payload_context, request_context, result_context,
        sealed_hash,
    },
    run::{Flow, FlowError},
    subscriptions::Answered,
};
use crypto::{Opening, Salt, SealSecret};
use gateway::{GatewayError, Source};
use ledger::{ActionRecord, ActionState, CallRecord, CallState, CaseRecord, Key, MatterRecord, ShareRecord};
use model::*;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use tracing::{info, warn};

/// How many requests, and how many bytes of them, one sender may have waiting here. The oldest make room: whoever still
/// needs an answer asks again.
const REQUESTS_MAX: usize = 2048;
const REQUEST_BYTES_MAX: usize = 32 << 20;
/// The most bytes of sealed things in one letter: well below what a letter may have.
const LETTER_BYTES: usize = 512 << 10;

/// Sealed requests and tasks whose grant this node has not acted on, by sender: nobody can put another's in the place of
/// one, and none fills more than its own share. They live in memory only, because their sender repeats them.
#[derive(Default)]
struct Requests(BTreeMap<DepartmentId, Sent>);

#[derive(Default)]
struct Sent {
    sealed: HashMap<[u8; 32], Vec<u8>>,
    order: VecDeque<[u8; 32]>,
    bytes: usize,
}

impl Requests {
    fn put(&mut self, from: &DepartmentId, id: [u8; 32], sealed: Vec<u8>) {
        let sent = self.0.entry(from.clone()).or_default();
        if sealed.len() > REQUEST_BYTES_MAX {
            return;
        }
        sent.bytes += sealed.len();
        match sent.sealed.insert(id, sealed) {
            Some(before) => sent.bytes -= before.len(),
            None => sent.order.push_back(id),
        }
        while sent.order.len() > REQUESTS_MAX || sent.bytes > REQUEST_BYTES_MAX {
            let Some(oldest) = sent.order.pop_front() else { break };
            sent.bytes -= sent.sealed.remove(&oldest).map_or(0, |s| s.len());
        }
    }

    /// The bytes the ledger names by this hash, where they came; others are as good as none.
    fn get(&self, suite: Suite, from: &DepartmentId, id: [u8; 32], hash: Digest) -> Option<Vec<u8>> {
        self.0.get(from)?.sealed.get(&id).filter(|sealed| sealed_hash(suite, sealed) == hash).cloned()
    }

    fn remove(&mut self, from: &DepartmentId, id: [u8; 32]) {
        let Some(sent) = self.0.get_mut(from) else { return };
        if let Some(sealed) = sent.sealed.remove(&id) {
            sent.bytes -= sealed.len();
            sent.order.retain(|other| *other != id);
        }
    }
}

fn payload_place(call: CallId, payload: Digest) -> String {
    format!("payload/{call}/{payload}")
}

/// Unfinished business of a holder.
#[derive(Default)]
pub(crate) struct Holder {
    /// Granted calls to this holder without an answer.
    granted: BTreeMap<CallId, (Ask, DepartmentId)>,
    /// Requested actions of this performer without a report.
    requested: BTreeMap<ActionId, (RequestAction, DepartmentId)>,
    /// Answers of this holder without a confirmation: when they became final, and the payload's hash.
    unconfirmed: BTreeMap<CallId, (u64, Digest)>,
    /// Calls and actions being worked on.
    busy: BTreeSet<[u8; 32]>,
    requests: Requests,
}

impl<S: Source> Flow<S> {
    fn holder(&self) -> std::sync::MutexGuard<'_, Holder> {
        self.holder.lock().expect("no holder of this lock panics")
    }

    /// Keeps the list of unfinished business. Which calls are this department's shows when they are looked up. Returns the call whose
    /// payload may leave now.
    pub(crate) fn follow_as_holder(&self, event: &Event, live: bool) -> Option<CallId> {
        let signer = &event.command.command.signer;
        let mine = signer == &self.me;
        let accepted = matches!(event.outcome, Outcome::Accepted(_));
        let mut holder = self.holder();
        match &event.command.command.body {
            Body::Ask(c) if accepted => {
                holder.granted.insert(CallId(event.id.0), (c.clone(), signer.clone()));
            }
            Body::Answer(c) => {
                if accepted {
                    holder.granted.remove(&c.call);
                }
                let Reply::Data { payload, .. } = &c.reply else { return None };
                if mine && accepted {
                    holder.unconfirmed.insert(c.call, (event.time_ms, *payload));
                    // Sealed: the answer is final, and only now does the payload leave. What became final before this
                    // node started is fetched by whoever lacks it.
                    return live.then_some(c.call);
                } else if mine && live {
                    drop(holder);
                    info!(call = %c.call.short(), "an answer was refused by the ledger; its payload is destroyed");
                    self.spawn_destroy(c.call, *payload);
                }
            }
            Body::Confirm(c) if accepted => {
                // opened: the sealed copy has served; disputed: it is evidence, and stays
                if let (Some((_, payload)), None, true) =
                    (holder.unconfirmed.remove(&c.call), c.dispute, live)
                {
                    drop(holder);
                    self.spawn_destroy(c.call, payload);
                }
            }
            Body::Lapse(c) if accepted => {
                holder.unconfirmed.remove(&c.call);
            }
            Body::RequestAction(c) if accepted => {
                holder.requested.insert(ActionId(event.id.0), (c.clone(), signer.clone()));
            }
            Body::ReportAction(c) if accepted => {
                holder.requested.remove(&c.action);
                drop(holder);
                if mine {
                    self.spawn_result(c.action);
                }
            }
            _ => {}
        }
        None
    }

    /// Keeps a sealed request or task until the ledger grants it.
    pub(crate) fn keep_request(&self, from: &DepartmentId, id: [u8; 32], sealed: Vec<u8>) {
        self.holder().requests.put(from, id, sealed);
    }

    /// Keeps it, and looks whether it is granted.
    pub(crate) fn take_request(&self, from: &DepartmentId, id: [u8; 32], sealed: Vec<u8>) {
        self.keep_request(from, id, sealed);
        self.work_as_holder();
    }

    /// Starts answering and performing what is granted and known.
    pub(crate) fn work_as_holder(&self) {
        let (calls, actions) = {
            let mut holder = self.holder();
            let calls: Vec<_> = holder.granted.iter().map(|(id, c)| (*id, c.clone())).collect();
            let actions: Vec<_> = holder.requested.iter().map(|(id, c)| (*id, c.clone())).collect();
            let calls: Vec<_> = calls.into_iter().filter(|(id, _)| holder.busy.insert(id.0)).collect();
            let actions: Vec<_> = actions.into_iter().filter(|(id, _)| holder.busy.insert(id.0)).collect();
            (calls, actions)
        };
        for (id, (ask, asker)) in calls {
            let flow = self.clone();
            self.host.spawn(async move {
                match flow.answer(id, &ask, &asker).await {
                    Ok(true) => drop(flow.holder().granted.remove(&id)),
                    Ok(false) => {}
                    Err(e) => warn!(call = %id.short(), error = %e, "a call could not be answered yet"),
                }
                flow.holder().busy.remove(&id.0);
            });
        }
        for (id, (request, handler)) in actions {
            let flow = self.clone();
            self.host.spawn(async move {
                match flow.perform(id, &request, &handler).await {
                    Ok(true) => drop(flow.holder().requested.remove(&id)),
                    Ok(false) => {}
                    Err(e) => warn!(action = %id.short(), error = %e, "an action could not be performed yet"),
                }
                flow.holder().busy.remove(&id.0);
            });
        }
    }

    /// Answers one granted call. False: not now (nothing to do here, or its request has not come).
    async fn answer(&self, id: CallId, ask: &Ask, asker: &DepartmentId) -> Result<bool, FlowError> {
        let Some(call) = self.chain.record::<CallRecord>(&Key::Call(id)).await? else { return Ok(false) };
        if call.holder != self.me || call.state != CallState::Granted {
            return Ok(true);
        }
        let Some(sealed) = self.holder().requests.get(self.suite(), asker, id.0, ask.sealed) else {
            return Ok(false);
        };
        let case: CaseRecord = self.record(Key::Case(ask.case)).await?;
        let matter: MatterRecord = self.record(Key::Matter(case.matter.clone(), case.version)).await?;
        let need = matter.published.needs.iter().find(|n| n.step == ask.step);
        let need = need.ok_or(FlowError::Inconsistent("a granted call is not declared by its matter"))?;
        let reply = match check_request(&self.keys.seal, &self.me, ask, asker, &case, need, &sealed) {
            Err(code) => {
                warn!(call = %id.short(), %code, "a granted call does not fit what came with it; it is declined");
                Reply::Declined(code)
            }
            Ok(_) if self.basis_ended(need, &case.matter).await? => {
                warn!(call = %id.short(), "a call's statutory basis has ended; nothing is read for it");
                Reply::Declined("basis_ended".parse().expect("a name"))
            }
            Ok(request) if !self.spend_on_person(id, &request.subject, asker, &case.matter, need).await? => {
                warn!(call = %id.short(), %asker, "a call is over the budget for one person; it is declined");
                Reply::Declined("over_budget".parse().expect("a name"))
            }
            Ok(request) => match self
                .gateway
                .answer(&need.resource, &need.what, &request.subject, &request.parameters)
                .await
            {
                Ok(values) => {
                    let answered = Answered::Values(&values);
                    self.keep_for_subscriptions(id, &request, &case, &ask.step, &answered).await?;
                    self.keep_for_statements(id, &request, asker, &case.matter, need).await?;
                    self.seal_payload(id, asker, values).await?
                }
                Err(e) => match e.code() {
                    Some(code) => {
                        if matches!(e, GatewayError::NotFound | GatewayError::Ambiguous) {
                            let answered = Answered::Nothing;
                            self.keep_for_subscriptions(id, &request, &case, &ask.step, &answered).await?;
                        }
                        Reply::Declined(code.parse().expect("codes are names"))
                    }
                    None => {
                        warn!(call = %id.short(), error = %e, "the source did not serve; trying again");
                        return Ok(false);
                    }
                },
            },
        };
        let event = self.submit_and_wait(Body::Answer(Answer { call: id, reply }), ORDERED_WITHIN).await?;
        if event.outcome == Outcome::Refused(Refusal::BasisNotApproved) {
            // taken back while it was being answered: the asker is told, and need not wait out its deadline
            let reply = Reply::Declined("basis_ended".parse().expect("a name"));
            self.submit_and_wait(Body::Answer(Answer { call: id, reply }), ORDERED_WITHIN).await?;
        }
        self.holder().requests.remove(asker, id.0);
        Ok(true)
    }

    /// Whether this holder's approval a need rests on no longer serves it, as far as this node knows.
    async fn basis_ended(&self, need: &Need, matter: &MatterId) -> Result<bool, FlowError> {
        let NeedBasis::Statutory(id) = &need.basis else { return Ok(false) };
        let approval: ApproveBasis = self.record(Key::Approval(self.me.clone(), id.clone())).await?;
        let share = ShareRef { holder: self.me.clone(), asker: need.recipient.clone(), id: id.clone() };
        let share: Option<ShareRecord> = self.chain.record(&Key::Share(share)).await?;
        let project = match share.as_ref().and_then(|s| s.request.project.clone()) {
            Some(id) => self.chain.record(&Key::Project(need.recipient.clone(), id)).await?,
            None => None,
        };
        let now = self.host.now_ms();
        Ok(!ledger::basis_serves(&approval, share.as_ref(), project.as_ref(), matter, need, now))
    }

    async fn seal_payload(
        &self,
        id: CallId,
        asker: &DepartmentId,
        values: Vec<(FieldId, String)>,
    ) -> Result<Reply, FlowError> {
        let openings: Vec<_> =
            values.into_iter().map(|(name, value)| Opening::fresh(name.as_str(), value)).collect();
        let commitments = openings.iter().map(|o| o.commitment(self.suite())).collect();
        let as_of_ms = self.host.now_ms();
        let payload = encode(&Payload { call: id, as_of_ms, openings });
        let to = self.member(asker)?;
        let sealed = crypto::seal(&to.seal_key, &payload_context(id, asker), &payload)?;
        let payload = sealed_hash(self.suite(), &sealed);
        self.vault.put(&payload_place(id, payload), &sealed).await?;
        if planted("release_before_final") {
            self.post(asker, &Message::Payload { call: id, sealed });
        }
        Ok(Reply::Data { commitments, payload, as_of_ms })
    }

    /// Sends the payloads of calls whose answers became final together, to each asker in as few letters as hold them.
    pub(crate) fn spawn_release(&self, calls: Vec<CallId>) {
        let flow = self.clone();
        self.host.spawn(async move {
            let mut letters: BTreeMap<DepartmentId, Vec<(CallId, Vec<u8>)>> = BTreeMap::new();
            for call in calls {
                let released = async {
                    let record = flow.chain.record::<CallRecord>(&Key::Call(call)).await?;
                    let Some(asker) = record.map(|r| r.asker) else { return Ok(None) };
                    Ok::<_, FlowError>(flow.releasable(&asker, call).await?.map(|sealed| (asker, sealed)))
                };
                match released.await {
                    Ok(Some((asker, sealed))) => letters.entry(asker).or_default().push((call, sealed)),
                    Ok(None) => {}
                    Err(e) => {
                        warn!(call = %call.short(), error = %e, "a payload could not be released; the asker will fetch it");
                    }
                }
            }
            for (asker, payloads) in letters {
                flow.post_calls(&asker, payloads, |call, sealed| Message::Payload { call, sealed }, Message::Payloads);
            }
        });
    }

    /// Posts what is of calls: together where there are several, and nobody's program is too old for that.
    pub(crate) fn post_calls(
        &self,
        to: &DepartmentId,
        all: Vec<(CallId, Vec<u8>)>,
        one: impl Fn(CallId, Vec<u8>) -> Message,
        together: impl Fn(Vec<(CallId, Vec<u8>)>) -> Message,
    ) {
        if all.len() > 1 && self.chain.roster().1.protocol >= LIST_PROTOCOL {
            return self.post_all(to, all, together);
        }
        for (call, sealed) in all {
            self.post(to, &one(call, sealed));
        }
    }

    /// Posts sealed things in as few letters as hold them.
    pub(crate) fn post_all(
        &self,
        to: &DepartmentId,
        all: Vec<(CallId, Vec<u8>)>,
        letter: impl Fn(Vec<(CallId, Vec<u8>)>) -> Message,
    ) {
        let (mut now, mut bytes) = (Vec::new(), 0);
        for one in all {
            if bytes + one.1.len() > LETTER_BYTES && !now.is_empty() {
                self.post(to, &letter(std::mem::take(&mut now)));
                bytes = 0;
            }
            bytes += one.1.len();
            now.push(one);
        }
        if !now.is_empty() {
            self.post(to, &letter(now));
        }
    }

    /// Sends a payload whose answer is final on this node, to its asker only.
    pub(crate) async fn release_again(&self, to: DepartmentId, call: CallId) -> Result<(), FlowError> {
        if let Some(sealed) = self.releasable(&to, call).await? {
            self.post(&to, &Message::Payload { call, sealed });
        }
        Ok(())
    }

    /// A payload whose answer is final on this node, for its asker only.
    async fn releasable(&self, to: &DepartmentId, call: CallId) -> Result<Option<Vec<u8>>, FlowError> {
        let Some(record) = self.chain.record::<CallRecord>(&Key::Call(call)).await? else { return Ok(None) };
        let is_final =
            matches!(record.state, CallState::Answered { .. } | CallState::Opened | CallState::Disputed);
        if record.holder != self.me || record.asker != *to || !is_final {
            return Ok(None);
        }
        // only the very payload whose answer is final
        let Some((_, payload)) = self.holder().unconfirmed.get(&call).copied() else { return Ok(None) };
        Ok(self.vault.get(&payload_place(call, payload)).await?)
    }

    fn spawn_destroy(&self, call: CallId, payload: Digest) {
        let flow = self.clone();
        self.host.spawn(async move {
            if let Err(e) = flow.vault.erase(&payload_place(call, payload)).await {
                warn!(call = %call.short(), error = %e, "a refused payload could not be destroyed");
            }
        });
    }

    /// Performs one requested action, once. False: not now.
    async fn perform(
        &self,
        id: ActionId,
        request: &RequestAction,
        handler: &DepartmentId,
    ) -> Result<bool, FlowError> {
        let Some(action) = self.chain.record::<ActionRecord>(&Key::Action(id)).await? else {
            return Ok(false);
        };
        if action.performer != self.me || action.state != ActionState::Requested {
            return Ok(true);
        }
        let Some(sealed) = self.holder().requests.get(self.suite(), handler, id.0, request.sealed) else {
            return Ok(false);
        };
        let case: CaseRecord = self.record(Key::Case(request.case)).await?;
        let matter: MatterRecord = self.record(Key::Matter(case.matter, case.version)).await?;
        let declared = matter.published.actions.iter().find(|a| a.0 == request.step);
        let (_, _, operation) =
            declared.ok_or(FlowError::Inconsistent("a requested action is not declared"))?;
        let context = request_context(request.case, &request.step, handler, &self.me);
        let task: Option<Task> = crypto::open(&self.keys.seal, &context, &sealed)
            .ok()
            .and_then(|plain| decode(&plain).ok())
            .filter(|task: &Task| task.commitment(self.suite()) == request.parameters);
        let key = format!("{}/{}", request.case, request.step);
        let (failure, values) = match task {
            None => (Some("request_unreadable".to_owned()), BTreeMap::new()),
            Some(task) => match self.gateway.perform(operation, &key, &task.parameters).await {
                Ok(values) => (None, values),
                Err(e @ GatewayError::Source(gateway::SourceError::RowCount { .. })) => {
                    warn!(action = %id.short(), error = %e, "an action was undone");
                    (Some("row_count".to_owned()), BTreeMap::new())
                }
                Err(e) => match e.code() {
                    Some(code) => (Some(code.to_owned()), BTreeMap::new()),
                    None => return Ok(false),
                },
            },
        };
        let result = ActionResult { salt: Salt::random(), values };
        self.vault.put(&format!("result/{id}"), &encode(&result)).await?;
        let failure = failure.map(|code| code.parse().expect("codes are names"));
        let report =
            Body::ReportAction(ReportAction { action: id, failure, result: result.commitment(self.suite()) });
        self.submit_and_wait(report, ORDERED_WITHIN).await?;
        self.holder().requests.remove(handler, id.0);
        Ok(true)
    }

    fn spawn_result(&self, id: ActionId) {
        let flow = self.clone();
        self.host.spawn(async move {
            if let Err(e) = flow.send_result(id).await {
                warn!(action = %id.short(), error = %e, "an action's result could not be sent");
            }
        });
    }

    /// Sends what an action returned to the case's handler.
    async fn send_result(&self, id: ActionId) -> Result<(), FlowError> {
        let record: ActionRecord = self.record(Key::Action(id)).await?;
        let case: CaseRecord = self.record(Key::Case(record.case)).await?;
        let Some(result) = self.vault.get(&format!("result/{id}")).await? else { return Ok(()) };
        let to = self.member(&case.handler)?;
        let sealed = crypto::seal(&to.seal_key, &result_context(id, &case.handler), &result)?;
        self.post(&case.handler, &Message::Result { action: id, sealed });
        Ok(())
    }

    /// Sends it again to the handler that lacks it, and to nobody else; only once the report is final.
    pub(crate) async fn result_again(&self, from: DepartmentId, id: ActionId) -> Result<(), FlowError> {
        let Some(record) = self.chain.record::<ActionRecord>(&Key::Action(id)).await? else { return Ok(()) };
        let case: CaseRecord = self.record(Key::Case(record.case)).await?;
        if record.performer == self.me && record.state == ActionState::Done && case.handler == from {
            self.send_result(id).await?;
        }
        Ok(())
    }

    /// Records silence: answers whose confirmation deadline has passed.
    pub(crate) fn record_silence(&self) -> Result<(), FlowError> {
        let now = self.host.now_ms();
        let mut overdue = Vec::new();
        for (call, (at, _)) in &mut self.holder().unconfirmed {
            if *at + ledger::CONFIRM_WITHIN_MS + 1_000 < now {
                overdue.push(*call);
                // until the lapse is on record it is tried again every ten seconds
                *at += 10_000;
            }
        }
        for call in overdue {
            self.submit(Body::Lapse(Lapse { call }))?;
        }
        Ok(())
    }

    pub(crate) async fn record<T: borsh::BorshDeserialize>(&self, key: Key) -> Result<T, FlowError> {
        self.chain
            .record(&key)
            .await?
            .ok_or(FlowError::Inconsistent("a record the ledger must hold is missing here"))
    }
}

/// The subject is bound through the call, the identity assertion and the consent: all open to the same identifier. The
/// error is the code the call is declined with.
fn check_request(
    secret: &SealSecret,
    me: &DepartmentId,
    ask: &Ask,
    asker: &DepartmentId,
    case: &CaseRecord,
    need: &Need,
    sealed: &[u8],
) -> Result<Request, Code> {
    let code = |text: &str| text.parse::<Code>().expect("a name");
    let suite = secret.suite();
    if sealed_hash(suite, sealed) != ask.sealed {
        return Err(code("request_changed"));
    }
    let context = request_context(ask.case, &ask.step, asker, me);
    let plain = crypto::open(secret, &context, sealed).map_err(|_| code("request_unreadable"))?;
    let request: Request = decode(&plain).map_err(|_| code("request_unreadable"))?;
    if planted("skip_subject_check") {
        return Ok(request);
    }
    if request.commitment(suite) != ask.subject {
        return Err(code("subject_mismatch"));
    }
    if need.basis == NeedBasis::Consent || need.basis == NeedBasis::SelfAccess {
        let party = case.parties.iter().find(|p| p.party.role == need.party).ok_or(code("no_such_party"))?;
        let opening = request.party.as_ref().ok_or(code("subject_unbound"))?;
        let same = opening.name == "party"
            && opening.commitment(suite) == party.party.subject
            && opening.value == request.subject;
        if !same || party.identified.is_none() {
            return Err(code("subject_mismatch"));
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITE: Suite = Suite::National;
    use ledger::{Identified, PartyRecord};

    const SELLER: &str = "11010519491231002X";
    const OTHER: &str = "110101199003079999";

    fn name<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
        text.parse().unwrap()
    }

    struct Scene {
        secret: SealSecret,
        case: CaseRecord,
        need: Need,
        party: Opening,
    }

    impl Scene {
        fn new(basis: NeedBasis) -> Self {
            let party = Opening::fresh("party", SELLER);
            let identified =
                Some(Identified { signer: PublicKey::Ed25519([1; 32]), level: AssuranceLevel::Substantial });
            let record = Party {
                role: name("seller"),
                pseudonym: Pseudonym([2; 32]),
                subject: party.commitment(SUITE),
            };
            let case = CaseRecord {
                matter: name("sale"),
                version: 1,
                handler: name("bureau"),
                tag: Digest([0; 32]),
                parties: vec![PartyRecord { party: record, identified }],
                outcome: None,
                acting: 0,
                resumed: 0,
                granted: 0,
                refused: 0,
            };
            let text = Text { zh: "为何".into(), en: "why".into() };
            let need = Need {
                step: name("own"),
                party: name("seller"),
                recipient: name("bureau"),
                holder: name("police"),
                resource: name("police.identity"),
                what: What::Predicate(name("matches")),
                basis,
                purpose: text,
            };
            Self { secret: SealSecret::random(SUITE), case, need, party }
        }

        fn request(&self, subject: &str, party: Option<Opening>) -> Request {
            Request { salt: Salt::random(), subject: subject.into(), parameters: BTreeMap::new(), party }
        }

        /// Seals a request and asks with the given subject commitment.
        fn check(&self, request: &Request, subject: Commitment, step: &str) -> Result<Request, Code> {
            let context = request_context(CaseId([7; 32]), &name(step), &name("bureau"), &name("police"));
            let sealed = crypto::seal(&self.secret.public(), &context, &encode(request)).unwrap();
            let ask = Ask {
                case: CaseId([7; 32]),
                step: name("own"),
                attempt: 0,
                consent: None,
                subject,
                sealed: sealed_hash(SUITE, &sealed),
                answer_by_ms: 1,
            };
            let (me, asker) = (name("police"), name("bureau"));
            check_request(&self.secret, &me, &ask, &asker, &self.case, &self.need, &sealed)
        }
    }

    #[test]
    fn only_the_person_who_was_identified_and_consented_is_answered_for() {
        let scene = Scene::new(NeedBasis::Consent);
        let right = scene.request(SELLER, Some(scene.party.clone()));
        assert!(scene.check(&right, right.commitment(SUITE), "own").is_ok());
        let mismatch = Err(name::<Code>("subject_mismatch"));
        // another person under this person's consent
        let swapped = scene.request(OTHER, Some(scene.party.clone()));
        assert_eq!(scene.check(&swapped, swapped.commitment(SUITE), "own").map(drop), mismatch);
        // with an opening made up for them
        let made_up = scene.request(OTHER, Some(Opening::fresh("party", OTHER)));
        assert_eq!(scene.check(&made_up, made_up.commitment(SUITE), "own").map(drop), mismatch);
        // a request that does not open the call's own commitment
        assert_eq!(scene.check(&right, swapped.commitment(SUITE), "own").map(drop), mismatch);
        // no opening at all
        let unbound = scene.request(SELLER, None);
        assert_eq!(
            scene.check(&unbound, unbound.commitment(SUITE), "own").map(drop),
            Err(name("subject_unbound"))
        );
        // a request sealed for another step
        assert_eq!(
            scene.check(&right, right.commitment(SUITE), "other").map(drop),
            Err(name("request_unreadable"))
        );
    }

    #[test]
    fn requests_of_one_sender_are_bounded_and_leave_the_others_alone() {
        let mut requests = Requests::default();
        let id = |i: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&i.to_le_bytes());
            id
        };
        let (bureau, police) = (name("bureau"), name("police"));
        requests.put(&police, id(1), vec![1; 10]);
        for i in 0..3 * REQUESTS_MAX as u32 {
            requests.put(&bureau, id(i), vec![2; 10]);
        }
        requests.put(&bureau, id(u32::MAX), vec![3; REQUEST_BYTES_MAX]);
        assert_eq!(requests.0[&bureau].bytes, REQUEST_BYTES_MAX);
        assert_eq!(requests.0[&bureau].order.len(), 1, "the oldest made room");
        let right = sealed_hash(SUITE, &[1; 10]);
        assert_eq!(requests.get(SUITE, &police, id(1), right), Some(vec![1; 10]));
        assert_eq!(
            requests.get(SUITE, &bureau, id(1), sealed_hash(SUITE, &[2; 10])),
            None,
            "and one sender's are not another's"
        );
        // only the bytes the ledger names serve, and damage is made good by sending again
        requests.put(&police, id(1), vec![9; 10]);
        assert_eq!(requests.get(SUITE, &police, id(1), right), None);
        requests.put(&police, id(1), vec![1; 10]);
        assert_eq!(requests.get(SUITE, &police, id(1), right), Some(vec![1; 10]));
        requests.remove(&police, id(1));
        assert_eq!(requests.0[&police].bytes, 0);
    }

    #[test]
    fn nobody_is_answered_for_before_they_were_identified() {
        let mut scene = Scene::new(NeedBasis::SelfAccess);
        scene.case.parties[0].identified = None;
        let right = scene.request(SELLER, Some(scene.party.clone()));
        assert_eq!(
            scene.check(&right, right.commitment(SUITE), "own").map(drop),
            Err(name("subject_mismatch"))
        );
    }

    #[test]
    fn changed_bytes_are_not_even_opened() {
        let scene = Scene::new(NeedBasis::Consent);
        let ask = Ask {
            case: CaseId([7; 32]),
            step: name("own"),
            attempt: 0,
            consent: None,
            subject: Commitment([0; 32]),
            sealed: Digest([0; 32]),
            answer_by_ms: 1,
        };
        let garbage = vec![7; 500];
        let (me, asker) = (name("police"), name("bureau"));
        let checked = check_request(&scene.secret, &me, &ask, &asker, &scene.case, &scene.need, &garbage);
        assert_eq!(checked.map(drop), Err(name("request_changed")));
    }
}
