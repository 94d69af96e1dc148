//! Commands: the only way anything on the ledger changes. Each is signed by one department.

use crate::*;
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// The cryptographic suite of a consortium, fixed at genesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Suite {
    /// Ed25519 (ZIP 215 verification), SHA-256, HPKE (X25519, HKDF-SHA256, ChaCha20-Poly1305).
    International,
    /// SM2, SM3, SM4 (GM/T 0003, 0004, 0002).
    National,
}

impl Suite {
    /// The word the command line uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::International => "international",
            Self::National => "national",
        }
    }
}

/// What a department signs.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Command {
    /// The ledger it is meant for.
    pub chain: ChainId,
    /// The department that signs it.
    pub signer: DepartmentId,
    /// Makes otherwise equal commands different.
    pub nonce: u64,
    /// Refused in blocks later than this, in milliseconds since 1970.
    pub expires_ms: u64,
    /// What it asks the ledger to do.
    pub body: Body,
}

/// A command with its signature. Its canonical bytes are what clients submit and blocks carry.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedCommand {
    /// The suite of the signature.
    pub suite: Suite,
    /// The command.
    pub command: Command,
    /// The signature over [`SignedCommand::signing_bytes`].
    pub signature: [u8; 64],
}

impl SignedCommand {
    /// The bytes that are signed: a domain, the suite and the command's canonical bytes.
    pub fn signing_bytes(suite: Suite, command: &Command) -> Vec<u8> {
        let mut bytes = b"tongban/command/1\0".to_vec();
        borsh::to_writer(&mut bytes, &suite).expect("encoding into memory cannot fail");
        borsh::to_writer(&mut bytes, command).expect("encoding into memory cannot fail");
        bytes
    }
}

/// What a command asks the ledger to do.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Body {
    /// Publish or renew a catalogue entry.
    PublishResource(Resource),
    /// Publish a version of a matter with its declared data needs and actions.
    PublishMatter(PublishMatter),
    /// Approve, as holder, that an asker may use a resource in a matter under a cited statutory duty.
    ApproveBasis(ApproveBasis),
    /// Enrol a key that may vouch for people at a counter or terminal.
    EnrolTerminal(EnrolTerminal),
    /// Open a case.
    OpenCase(OpenCase),
    /// Record that a party was identified, and with which key they will sign.
    Identify(Identify),
    /// Record a party's consent.
    GiveConsent(GiveConsent),
    /// Record that a party withdrew a consent.
    WithdrawConsent(WithdrawConsent),
    /// Ask for data or a yes/no: the first step of a call.
    Ask(Ask),
    /// Answer a granted call with commitments.
    Answer(Answer),
    /// Confirm or dispute what was opened.
    Confirm(Confirm),
    /// Record that an asker let the confirmation deadline of a call pass in silence.
    Lapse(Lapse),
    /// Request a declared action in a department's own system.
    RequestAction(RequestAction),
    /// Report how a requested action ended.
    ReportAction(ReportAction),
    /// Record a decision with the rule and inputs it rests on.
    Decide(Decide),
    /// Record where a case rests or how it ended.
    SettleCase(SettleCase),
    /// Anchor bytes of the signer's own: a checkpoint, a statement, a hash of something elsewhere.
    Anchor(Anchor),
    /// Let a case that rests go on, with some of its calls and decisions made once more.
    ResumeCase(ResumeCase),
    /// Propose a change of the consortium.
    Propose(Propose),
    /// Approve a proposed change.
    Approve(Approve),
    /// Vote with another key from the next epoch on; every validator does so now and then by itself.
    RotateVote(RotateVote),
    /// Register an application project with all it uses (应用项目).
    RegisterProject(RegisterProject),
    /// End a project at once, and with it what was granted for it.
    EndProject(EndProject),
    /// Apply to use a resource of another department (共享申请).
    RequestShare(RequestShare),
    /// As holder, accept or refuse a share request.
    ReplyShare(ReplyShare),
    /// As asker, give up a request that is not granted.
    WithdrawShare(WithdrawShare),
    /// As asker, take a refusal, a revocation or the holder's silence to the coordinators.
    DisputeShare(DisputeShare),
    /// As coordinator, rule on a dispute, or on a request whose holder keeps silent.
    RuleShare(RuleShare),
    /// As holder, take back an approved basis at once.
    RevokeBasis(RevokeBasis),
    /// As holder, set how much of a resource a department may use.
    SetBudget(SetBudget),
    /// As asker, explain an unusual use.
    ExplainAlert(ExplainAlert),
    /// As asker, object to a value a call gave (数据异议).
    Object(Object),
    /// As holder, answer an objection.
    AnswerObjection(AnswerObjection),
    /// As handler, declare which answers of a matter may be subscribed to.
    DeclareSubscriptions(DeclareSubscriptions),
    /// Subscribe to changes of what a call answered (订阅).
    Subscribe(Subscribe),
    /// As holder, note that what was subscribed to has changed: it may be asked for once more.
    NoteChange(NoteChange),
    /// As asker or holder, end a subscription at once.
    EndSubscription(EndSubscription),
    /// As handler, count the calls of a case that is over once more: a subscription may have outlasted it.
    CountCase(CountCase),
    /// As holder, set the policy over the signer's own resources.
    SetPolicy(SetPolicy),
    /// As handler, declare which acts of a matter are undone where a case ends before its pivot.
    DeclareUndo(DeclareUndo),
    /// As holder, describe a catalogue entry of the signer's own.
    DescribeResource(DescribeResource),
    /// As handler, declare which steps' calls of a matter are asked by lists, and only so.
    DeclareListed(DeclareListed),
    /// As handler, propose a list of open cases whose calls of one step are asked together.
    ProposeList(ProposeList),
    /// As holder, agree to a list or refuse it.
    AnswerList(AnswerList),
}

impl Body {
    /// The protocol version from which a command like this may stand on a ledger.
    pub fn since(&self) -> u32 {
        match self {
            Self::RegisterProject(_)
            | Self::EndProject(_)
            | Self::RequestShare(_)
            | Self::ReplyShare(_)
            | Self::WithdrawShare(_)
            | Self::DisputeShare(_)
            | Self::RuleShare(_)
            | Self::RevokeBasis(_)
            | Self::SetBudget(_)
            | Self::ExplainAlert(_)
            | Self::Object(_)
            | Self::AnswerObjection(_) => SHARING_PROTOCOL,
            Self::Propose(Propose { change: Change::SetSharing(_), .. }) => SHARING_PROTOCOL,
            Self::DeclareSubscriptions(_)
            | Self::Subscribe(_)
            | Self::NoteChange(_)
            | Self::EndSubscription(_)
            | Self::CountCase(_) => SUBSCRIPTION_PROTOCOL,
            Self::SetPolicy(_) => POLICY_PROTOCOL,
            Self::DeclareUndo(_) => UNDO_PROTOCOL,
            Self::DescribeResource(_) => DESCRIPTION_PROTOCOL,
            Self::DeclareListed(_) | Self::ProposeList(_) | Self::AnswerList(_) => LIST_PROTOCOL,
            Self::Identify(new) if new.assertion.method == IdentityMethod::Face => FACE_PROTOCOL,
            Self::Identify(new) if new.assertion.method == IdentityMethod::Oidc => OIDC_PROTOCOL,
            _ => 1,
        }
    }
}

/// See [`Body::Propose`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Propose {
    /// What is to change.
    pub change: Change,
    /// Void if not approved by then, in milliseconds since 1970.
    pub expires_ms: u64,
    /// The signature of the proposing department's system officer over [`Propose::signing_bytes`].
    pub officer: [u8; 64],
}

impl Propose {
    /// What a system officer signs.
    pub fn signing_bytes(
        chain: &ChainId,
        department: &DepartmentId,
        change: &Change,
        expires_ms: u64,
    ) -> Vec<u8> {
        [b"tongban/propose/1\0".as_slice(), &chain.0, &encode(&(department, change, expires_ms))].concat()
    }
}

/// See [`Body::Approve`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Approve {
    /// The proposal.
    pub proposal: ProposalId,
    /// The signature of the approving department's security officer over [`Approve::signing_bytes`].
    pub officer: [u8; 64],
}

impl Approve {
    /// What a security officer signs.
    pub fn signing_bytes(chain: &ChainId, department: &DepartmentId, proposal: &ProposalId) -> Vec<u8> {
        [b"tongban/approve/1\0".as_slice(), &chain.0, &encode(&(department, proposal))].concat()
    }
}

/// See [`Body::RotateVote`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RotateVote {
    /// The new vote key.
    pub vote_key: PublicKey,
    /// Its signature over [`RotateVote::signing_bytes`]: nobody rotates to a key they do not have.
    pub possession: [u8; 64],
}

impl RotateVote {
    /// What the new vote key signs.
    pub fn signing_bytes(chain: &ChainId, department: &DepartmentId, vote_key: &PublicKey) -> Vec<u8> {
        [b"tongban/rotate-vote/1\0".as_slice(), &chain.0, &encode(&(department, vote_key))].concat()
    }
}

/// See [`Body::PublishMatter`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PublishMatter {
    /// The matter.
    pub id: MatterId,
    /// Grows by one with every publication.
    pub version: u32,
    /// What people call it.
    pub title: Text,
    /// The hash of the whole package.
    pub package: Digest,
    /// Every data need of its steps.
    pub needs: Vec<Need>,
    /// Every action of its steps: step, performer, operation.
    pub actions: Vec<(StepId, DepartmentId, OperationId)>,
}

/// See [`Body::ApproveBasis`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ApproveBasis {
    /// The approval's name, unique with its holder.
    pub id: ApprovalId,
    /// Who may ask under it.
    pub asker: DepartmentId,
    /// In which matter.
    pub matter: MatterId,
    /// For which resource of the signer.
    pub resource: ResourceId,
    /// For which fields or predicates.
    pub names: Vec<FieldId>,
    /// The statute that makes it lawful.
    pub citation: String,
    /// The last moment it serves, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// See [`Body::EnrolTerminal`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EnrolTerminal {
    /// The terminal's key.
    pub key: PublicKey,
    /// False revokes it.
    pub active: bool,
}

/// See [`Body::OpenCase`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct OpenCase {
    /// The matter.
    pub matter: MatterId,
    /// The version the case will run.
    pub version: u32,
    /// A keyed hash of what makes an application the same as another; only the handler can compute it.
    pub tag: Digest,
    /// The parties.
    pub parties: Vec<Party>,
}

/// See [`Body::Identify`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Identify {
    /// The assertion, signed by an enrolled terminal.
    pub assertion: Assertion,
    /// The terminal's signature over [`Assertion::signing_bytes`].
    pub signature: [u8; 64],
}

/// See [`Body::GiveConsent`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GiveConsent {
    /// What is consented to.
    pub terms: ConsentTerms,
    /// The signature of the party's key (named in their assertion) over [`ConsentTerms::signing_bytes`].
    pub signature: [u8; 64],
}

/// See [`Body::WithdrawConsent`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct WithdrawConsent {
    /// The consent.
    pub consent: ConsentId,
    /// The party's signature over [`WithdrawConsent::signing_bytes`].
    pub signature: [u8; 64],
}

impl WithdrawConsent {
    /// What the party signs to withdraw a consent.
    pub fn signing_bytes(chain: ChainId, consent: ConsentId) -> Vec<u8> {
        [b"tongban/withdraw/1\0".as_slice(), chain.as_bytes(), consent.as_bytes()].concat()
    }
}

/// See [`Body::Ask`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Ask {
    /// The case.
    pub case: CaseId,
    /// The declared need, by its step.
    pub step: StepId,
    /// Which try of this step it is, from 0.
    pub attempt: u32,
    /// The consent, where the need's basis is consent.
    pub consent: Option<ConsentId>,
    /// The salted commitment to the subject's identifier and the call's parameters.
    pub subject: Commitment,
    /// The hash of the sealed request that went to the holder beside this command.
    pub sealed: Digest,
    /// When the holder must have answered, in milliseconds since 1970.
    pub answer_by_ms: u64,
}

/// See [`Body::Answer`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Answer {
    /// The call.
    pub call: CallId,
    /// How it came out.
    pub reply: Reply,
}

/// A holder's reply.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Reply {
    /// There is an answer; the sealed payload is released once this is final.
    Data {
        /// One salted commitment for each field asked, in order.
        commitments: Vec<Commitment>,
        /// The hash of the sealed payload.
        payload: Digest,
        /// The time the data stands for, in milliseconds since 1970.
        as_of_ms: u64,
    },
    /// No answer, with a code that says nothing of the person.
    Declined(Code),
}

/// See [`Body::Confirm`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Confirm {
    /// The call.
    pub call: CallId,
    /// None: opened, and everything matches its commitments. Some: disputed, with the commitment to the reason.
    pub dispute: Option<Commitment>,
}

/// See [`Body::Lapse`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Lapse {
    /// The call.
    pub call: CallId,
}

/// See [`Body::RequestAction`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RequestAction {
    /// The case.
    pub case: CaseId,
    /// The step.
    pub step: StepId,
    /// The salted commitment to the action's parameters.
    pub parameters: Commitment,
    /// The hash of the sealed parameters that went to the performer beside this command.
    pub sealed: Digest,
    /// When the performer must have reported, in milliseconds since 1970.
    pub report_by_ms: u64,
}

/// See [`Body::ReportAction`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReportAction {
    /// The action.
    pub action: ActionId,
    /// None: done. Some: failed, with a code that says nothing of the person.
    pub failure: Option<Code>,
    /// The commitment to what the performer's system returned (a new deed number, say).
    pub result: Commitment,
}

/// See [`Body::Decide`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Decide {
    /// The case.
    pub case: CaseId,
    /// The step.
    pub step: StepId,
    /// The hash of the rule's text in the package.
    pub rule: Digest,
    /// The commitments of the values it read, so that whoever holds them can run it again.
    pub inputs: Vec<Commitment>,
    /// Whether the case goes on as if nothing stood against it.
    pub passed: bool,
    /// The commitment to what came out and why: reasons are sensitive, and stay in the handler's vault.
    pub reason: Commitment,
    /// Whether it is adverse to the applicant; then a person has confirmed it (PIPL 24).
    pub adverse: bool,
    /// The commitment to the name of the officer who confirmed it.
    pub confirmed_by: Option<Commitment>,
}

/// See [`Body::SettleCase`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SettleCase {
    /// The case.
    pub case: CaseId,
    /// How it ended or where it rests.
    pub outcome: CaseOutcome,
    /// The step it rests on or ended at.
    pub step: StepId,
    /// The commitment to the code that says why.
    pub reason: Commitment,
}

/// See [`Body::ResumeCase`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ResumeCase {
    /// The case.
    pub case: CaseId,
    /// The steps whose calls or decisions are made once more.
    pub again: Vec<StepId>,
    /// The commitment to who asked for it and why.
    pub reason: Commitment,
}

/// See [`Body::Anchor`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Anchor {
    /// What it is about.
    pub topic: Code,
    /// The bytes.
    pub data: Vec<u8>,
}
