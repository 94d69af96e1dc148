//! The consortium's state: typed keys and records, and the overlay decisions are made on.

use borsh::{BorshDeserialize, BorshSerialize};
use model::*;
use std::collections::{BTreeMap, HashMap};

/// A key of the state. Its hash is where the record lives in the authenticated database.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Key {
    /// Where a command was ordered: [`Position`].
    Command(CommandId),
    /// A catalogue entry: [`Resource`].
    Resource(ResourceId),
    /// The newest version of a matter: `u32`.
    MatterVersion(MatterId),
    /// A version of a matter: [`MatterRecord`].
    Matter(MatterId, u32),
    /// A holder's approval of a statutory basis: [`ApproveBasis`].
    Approval(DepartmentId, ApprovalId),
    /// An enrolled terminal of a department: `bool`, whether active.
    Terminal(DepartmentId, PublicKey),
    /// A case: [`CaseRecord`].
    Case(CaseId),
    /// The open case of an application's tag: [`CaseId`].
    OpenTag(MatterId, Digest),
    /// A consent: [`ConsentRecord`].
    Consent(ConsentId),
    /// The consent in force of a party: [`ConsentId`].
    PartyConsent(CaseId, RoleId),
    /// A call: [`CallRecord`].
    Call(CallId),
    /// The newest call of a step, with its attempt: `(CallId, u32)`.
    StepCall(CaseId, StepId),
    /// How many calls of an asker were granted: `u64`.
    Granted(DepartmentId),
    /// How many calls a holder answered: `u64`.
    Answered(DepartmentId),
    /// How many confirmations an asker let lapse: `u64`.
    Lapsed(DepartmentId),
    /// An action: [`ActionRecord`].
    Action(ActionId),
    /// The newest action of a step: [`ActionId`].
    StepAction(CaseId, StepId),
    /// The decision of a step: [`CommandId`].
    StepDecision(CaseId, StepId),
    /// Whether a resumed case may make a step's call or decision once more: `bool`.
    Again(CaseId, StepId),
    /// A proposed change of the consortium: [`ProposalRecord`].
    Proposal(ProposalId),
    /// The proposals that may still be approved: `Vec<OpenProposal>`.
    OpenProposals,
    /// The epoch in which a department last rotated its vote key: `u64`.
    Rotated(DepartmentId),
    /// What changes when the next epoch begins: [`Due`].
    Due,
    /// The hashes of all ended epochs' last headers: [`merkle::Frontier`].
    Past,
    /// The rules of sharing: [`Sharing`].
    Sharing,
    /// An application project: [`ProjectRecord`].
    Project(DepartmentId, ProjectId),
    /// A share request: [`ShareRecord`].
    Share(ShareRef),
    /// The approval a statutory call rests on, of its holder: [`ApprovalId`].
    CallBasis(CallId),
    /// How much is used of what a share request granted: [`Spent`].
    ShareSpent(ShareRef),
    /// How much of a resource a department may use, in one matter or in all together: [`Budget`].
    Budget(ResourceId, DepartmentId, Option<MatterId>),
    /// How much it uses: [`Spent`].
    Spent(ResourceId, DepartmentId, Option<MatterId>),
    /// The newest alert about a department's use of a resource: [`AlertRecord`].
    Alert(ResourceId, DepartmentId),
    /// The alerts that wait to be explained: `Vec<(ResourceId, DepartmentId)>`.
    OpenAlerts,
    /// The newest objection to a value of a call: [`ObjectionRecord`].
    Objection(CallId, FieldId),
    /// What may be subscribed to in a version of a matter: [`SubscribableRecord`].
    Subscribable(MatterId, u32),
    /// A subscription: [`SubscriptionRecord`].
    Subscription(SubscriptionId),
    /// The newest subscription of a step: [`SubscriptionId`].
    StepSubscription(CaseId, StepId),
    /// A holder's policy: [`PolicyRecord`].
    Policy(DepartmentId),
    /// What can be undone in the cases of a version of a matter: `Vec<Undo>`.
    Undo(MatterId, u32),
    /// What was done in a case and can be undone: [`HeldRecord`].
    Held(CaseId),
    /// Whether an action was requested as one that can be undone: `bool`.
    HeldAct(ActionId),
    /// What a catalogue entry is described as: [`DescribeResource`].
    Description(ResourceId),
    /// The steps of a version of a matter whose calls are asked by lists: `Vec<StepId>`.
    Listed(MatterId, u32),
    /// A list: [`ListRecord`].
    List(ListId),
    /// The newest list a case is in for a step: [`InList`].
    CaseList(CaseId, StepId),
}

impl Key {
    /// Where the record lives in the authenticated database.
    pub fn digest(&self, suite: Suite) -> Digest {
        crypto::hash(suite, "tongban/key/1", &[&encode(self)])
    }
}

/// A list of cases whose calls of one step are asked together.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ListRecord {
    /// The step.
    pub step: StepId,
    /// Who proposed it.
    pub asker: DepartmentId,
    /// Who is asked.
    pub holder: DepartmentId,
    /// Its cases.
    pub cases: Vec<CaseId>,
    /// The last moment a call may be asked under it, in milliseconds since 1970.
    pub until_ms: u64,
    /// Where it stands.
    pub state: ListState,
}

/// The list a case is in for a step.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct InList {
    /// The list.
    pub list: ListId,
    /// Until when the case is in no other, in milliseconds since 1970; 0 where the list was refused.
    pub until_ms: u64,
}

/// Where a list stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ListState {
    /// Its holder has not answered.
    Proposed,
    /// Its holder agreed.
    Agreed,
    /// Its holder refused.
    Refused,
}

/// A proposed change of the consortium.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ProposalRecord {
    /// Who proposed it.
    pub proposer: DepartmentId,
    /// What is to change.
    pub change: Change,
    /// Void if not approved by then, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Who approved it.
    pub approvals: Vec<DepartmentId>,
    /// The epoch from which it is in force, once it has the approvals it needs.
    pub adopted: Option<u64>,
}

/// A proposal that may still be approved.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct OpenProposal {
    /// The proposal.
    pub id: ProposalId,
    /// Who proposed it.
    pub proposer: DepartmentId,
    /// Void if not approved by then, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// What changes when the next epoch begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Due {
    /// Approved changes, in the order they were approved.
    pub changes: Vec<Change>,
    /// New vote keys, by department.
    pub votes: BTreeMap<DepartmentId, PublicKey>,
}

impl Due {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.votes.is_empty()
    }
}

/// Where a command was ordered and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Position {
    /// The block.
    pub height: u64,
    /// The position in the block.
    pub index: u32,
}

/// A published matter as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct MatterRecord {
    /// The department that handles its cases.
    pub handler: DepartmentId,
    /// What was published.
    pub published: PublishMatter,
}

/// A case.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CaseRecord {
    /// The matter.
    pub matter: MatterId,
    /// The version it runs.
    pub version: u32,
    /// The department that handles it.
    pub handler: DepartmentId,
    /// The keyed hash that finds duplicates.
    pub tag: Digest,
    /// The parties.
    pub parties: Vec<PartyRecord>,
    /// How it ended or where it rests, once settled.
    pub outcome: Option<CaseOutcome>,
    /// How many actions were requested and have not failed: above zero, the case can be neither withdrawn nor refused.
    pub acting: u32,
    /// How often it was resumed with something to be made once more.
    pub resumed: u32,
    /// How many calls were granted in it.
    pub granted: u32,
    /// How many calls were refused in it.
    pub refused: u32,
}

/// A party of a case.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PartyRecord {
    /// As opened.
    pub party: Party,
    /// Once identified.
    pub identified: Option<Identified>,
}

/// How a party was identified.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Identified {
    /// The key they sign with.
    pub signer: PublicKey,
    /// How sure it is.
    pub level: AssuranceLevel,
}

/// A consent.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ConsentRecord {
    /// What was consented to.
    pub terms: ConsentTerms,
    /// Whether it was withdrawn.
    pub withdrawn: bool,
}

/// Where a call stands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum CallState {
    /// Waits for the holder.
    Granted,
    /// Waits for the asker's confirmation until this time.
    Answered {
        /// Milliseconds since 1970.
        confirm_by_ms: u64,
    },
    /// The holder had no answer.
    Declined,
    /// The asker opened it and everything matched.
    Opened,
    /// The asker disputed it.
    Disputed,
    /// The asker let the deadline pass.
    Lapsed,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CallRecord {
    /// The case.
    pub case: CaseId,
    /// The step.
    pub step: StepId,
    /// Who asked.
    pub asker: DepartmentId,
    /// Who answers.
    pub holder: DepartmentId,
    /// How many fields were asked.
    pub names: u32,
    /// The consent it rests on.
    pub consent: Option<ConsentId>,
    /// When the holder must have answered.
    pub answer_by_ms: u64,
    /// Where it stands.
    pub state: CallState,
}

/// Where an action stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ActionState {
    /// Waits for the performer.
    Requested,
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// Done, and undone.
    Undone,
}

/// What was done in a case before its pivot, and can be undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct HeldRecord {
    /// How many such acts were requested, and neither failed nor were undone.
    pub acts: u32,
    /// Whether undoing has begun: nothing else is done from then on.
    pub undoing: bool,
}

/// An action.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ActionRecord {
    /// The case.
    pub case: CaseId,
    /// The step.
    pub step: StepId,
    /// Who performs it.
    pub performer: DepartmentId,
    /// Where it stands.
    pub state: ActionState,
}

/// An application project.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ProjectRecord {
    /// As registered.
    pub project: RegisterProject,
    /// When it was registered, in milliseconds since 1970.
    pub at_ms: u64,
    /// When it was ended before its time, by whom, and why.
    pub ended: Option<(u64, DepartmentId, String)>,
}

impl ProjectRecord {
    /// Whether it goes on at a time.
    pub fn lives(&self, now_ms: u64) -> bool {
        self.ended.is_none() && self.project.until_ms >= now_ms
    }
}

/// Where a share request stands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ShareState {
    /// Waits for the holder to accept or refuse it.
    Requested,
    /// Waits for the holder to decide.
    Accepted,
    /// Refused by the holder.
    Refused(ShareRefusal, String),
    /// Waits for a coordinator.
    Disputed(String),
    /// A coordinator ruled that the holder has to grant it.
    Overruled(String),
    /// A coordinator ruled that it stays refused.
    Upheld(String),
    /// Granted: [`Key::Approval`] has what exactly.
    Granted,
    /// Granted once, and taken back.
    Revoked(String),
    /// Given up by the asker.
    Withdrawn,
}

/// A share request.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ShareRecord {
    /// As requested.
    pub request: RequestShare,
    /// Where it stands.
    pub state: ShareState,
    /// Since when, in milliseconds since 1970.
    pub at_ms: u64,
    /// By when whoever is to act has to, in milliseconds since 1970; 0 where nobody is.
    pub due_ms: u64,
    /// How many such clocks ran out before something was done.
    pub missed: u32,
}

/// How much of a resource a department uses.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Spent {
    /// The first day of use.
    pub since: Day,
    /// The newest.
    pub day: Day,
    /// Calls granted on it.
    pub calls: u32,
    /// The moving average of calls a day before it (an eighth new each day), in thousandths.
    pub average_milli: u64,
}

impl Spent {
    /// Nothing used, as on the first day.
    pub(crate) fn nothing(today: Day) -> Self {
        Self { since: today, day: today, calls: 0, average_milli: 0 }
    }

    /// As it stands on a later day, when nothing was used on it yet.
    pub fn on(mut self, day: Day) -> Self {
        let mut calls = u64::from(self.calls);
        let days = day.0.saturating_sub(self.day.0);
        // after so many days without use nothing is left of the average
        for _ in 0..days.min(128) {
            self.average_milli = (self.average_milli * 7 + calls * 1000) / 8;
            calls = 0;
        }
        if days > 0 {
            (self.day, self.calls) = (day, 0);
        }
        self
    }
}

/// What is unusual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Unusual {
    /// More was asked than the budget allows.
    OverBudget,
    /// Much more was asked than on other days.
    Surge,
}

impl Unusual {
    /// The word of APIs and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OverBudget => "over_budget",
            Self::Surge => "surge",
        }
    }
}

/// An alert about a department's use of a resource.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AlertRecord {
    /// What is unusual.
    pub unusual: Unusual,
    /// The day.
    pub day: Day,
    /// By when it has to be explained, in milliseconds since 1970: from then on nothing is granted until it is.
    pub due_ms: u64,
    /// When it was explained, and how.
    pub explained: Option<(u64, String)>,
}

/// An objection to a value.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ObjectionRecord {
    /// Who objects.
    pub asker: DepartmentId,
    /// Who answers.
    pub holder: DepartmentId,
    /// What is wrong.
    pub wrong: Wrong,
    /// When it was raised, in milliseconds since 1970.
    pub at_ms: u64,
    /// By when it has to be answered.
    pub due_ms: u64,
    /// When it was answered, and what came of it.
    pub answer: Option<(u64, Verdict)>,
}

/// A holder's policy over its own resources.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PolicyRecord {
    /// The version.
    pub version: u32,
    /// The text in Cedar; empty where it was taken back.
    pub text: String,
}

/// What may be subscribed to in a version of a matter.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SubscribableRecord {
    /// The block that has the declaration: only consents after it are to it.
    pub height: u64,
    /// Which answers, and for how long.
    pub steps: Vec<Subscribable>,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SubscriptionRecord {
    /// The case.
    pub case: CaseId,
    /// The call step.
    pub step: StepId,
    /// Who is told.
    pub asker: DepartmentId,
    /// Who tells.
    pub holder: DepartmentId,
    /// The consent it rests on, where it is one.
    pub consent: Option<ConsentId>,
    /// The last moment it serves, in milliseconds since 1970.
    pub until_ms: u64,
    /// Whether it goes on after the case's end.
    pub after_end: bool,
    /// How many changes were told.
    pub changes: u32,
    /// Whether it was ended before its time.
    pub ended: bool,
}

impl SubscriptionRecord {
    /// Whether it goes on at a time, as far as its consent or basis goes on.
    pub fn lives(&self, now_ms: u64) -> bool {
        !self.ended && self.until_ms >= now_ms
    }
}

/// Records were not fetched yet: at least these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub Vec<Key>);

/// Records fetched from the state below, with the writes of this block on top.
pub struct Overlay {
    suite: Suite,
    fetched: HashMap<Digest, Option<Vec<u8>>>,
    written: BTreeMap<Digest, Vec<u8>>,
}

impl Overlay {
    /// An overlay that knows nothing yet, for a ledger of this suite.
    pub fn new(suite: Suite) -> Self {
        Self { suite, fetched: HashMap::new(), written: BTreeMap::new() }
    }

    /// Puts in a record as it stands below this block (`None`: absent).
    pub fn insert(&mut self, key: Digest, record: Option<Vec<u8>>) {
        self.fetched.insert(key, record);
    }

    /// Whether a record is known to be there.
    pub fn has(&self, key: &Digest) -> bool {
        self.written.contains_key(key) || matches!(self.fetched.get(key), Some(Some(_)))
    }

    /// A record's bytes, where it is known to be there.
    pub fn peek(&self, key: &Digest) -> Option<&[u8]> {
        self.written.get(key).or_else(|| self.fetched.get(key)?.as_ref()).map(Vec::as_slice)
    }

    /// What this block wrote, in ascending order of keys.
    pub fn into_writes(self) -> BTreeMap<Digest, Vec<u8>> {
        self.written
    }

    fn get(&self, key: &Key) -> Result<Option<&[u8]>, Missing> {
        let digest = key.digest(self.suite);
        if let Some(bytes) = self.written.get(&digest) {
            return Ok(Some(bytes));
        }
        match self.fetched.get(&digest) {
            Some(record) => Ok(record.as_deref()),
            None => Err(Missing(vec![key.clone()])),
        }
    }
}

/// Why a decision stopped.
pub(crate) enum Stop {
    Missing(Missing),
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The reads and writes of one command; writes reach the overlay only if the command is decided.
pub(crate) struct Decision<'a> {
    overlay: &'a Overlay,
    pub(crate) writes: Vec<(Digest, Vec<u8>)>,
}

impl<'a> Decision<'a> {
    pub(crate) fn on(overlay: &'a Overlay) -> Self {
        Self { overlay, writes: Vec::new() }
    }

    /// Reads a record. A decision reads before it writes, so its own writes are not looked at.
    pub(crate) fn get<T: BorshDeserialize>(&self, key: &Key) -> Result<Option<T>, Stop> {
        let bytes = self.overlay.get(key).map_err(Stop::Missing)?;
        Ok(bytes.map(|b| decode(b).expect("the state holds only what this crate encoded")))
    }

    /// Has all these records fetched at once that are not yet, where a decision reads many.
    pub(crate) fn want(&self, keys: impl Iterator<Item = Key>) -> Result<(), Stop> {
        let missing: Vec<_> = keys.filter(|key| self.overlay.get(key).is_err()).collect();
        if missing.is_empty() { Ok(()) } else { Err(Stop::Missing(Missing(missing))) }
    }

    /// Reads a record that must be there.
    pub(crate) fn need<T: BorshDeserialize>(&self, key: &Key, otherwise: Refusal) -> Result<T, Stop> {
        self.get(key)?.ok_or(Stop::Refused(otherwise))
    }

    pub(crate) fn put<T: BorshSerialize>(&mut self, key: &Key, record: &T) {
        self.writes.push((key.digest(self.overlay.suite), encode(record)));
    }

    /// Adds one to a counter and returns its new value.
    pub(crate) fn count(&mut self, key: &Key) -> Result<u64, Stop> {
        let next = self.get::<u64>(key)?.unwrap_or(0) + 1;
        if planted("number_reused") && next % 5 == 0 {
            return Ok(next);
        }
        self.put(key, &next);
        Ok(next)
    }
}

/// Ends a decision with a refusal unless the condition holds.
pub(crate) fn ensure(holds: bool, otherwise: Refusal) -> Result<(), Stop> {
    if holds { Ok(()) } else { Err(Stop::Refused(otherwise)) }
}

impl Overlay {
    pub(crate) fn commit(&mut self, writes: Vec<(Digest, Vec<u8>)>) {
        self.written.extend(writes);
    }
}
