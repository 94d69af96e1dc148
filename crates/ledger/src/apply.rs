//! One command in, one outcome out.

use crate::{
    actions, calls, cases, catalogue, consents, governance, lists, policy, sharing,
    state::{Decision, Key, Missing, Overlay, Position, Stop, ensure},
    subscriptions,
};
use model::*;
use std::sync::Arc;

/// How far after a block's time a command may still expire: 24 hours.
pub const COMMAND_LIFETIME_MS_MAX: u64 = 24 * 3_600_000;

/// How long an asker has to confirm or dispute an answer: 10 minutes.
pub const CONFIRM_WITHIN_MS: u64 = 600_000;

/// What is fixed for the life of a ledger.
#[derive(Clone)]
pub struct Rules {
    /// The chain ID.
    pub chain: ChainId,
    /// The genesis.
    pub genesis: Arc<Genesis>,
    /// A policy that is tried on past calls, when a ledger is applied again for that. It changes no decision.
    pub trial: Option<Arc<crate::Trial>>,
}

/// From protocol 2 on, the most bytes of an anchor: what a checkpoint needs, and no store of files.
pub const ANCHOR_BYTES_MAX: usize = 4096;

/// What is fixed for one block.
#[derive(Clone, Copy, Debug)]
pub struct BlockContext<'a> {
    /// The height.
    pub height: u64,
    /// The time in milliseconds since 1970.
    pub time_ms: u64,
    /// The roster in force.
    pub roster: &'a Roster,
}

impl Rules {
    /// The rules of a genesis.
    pub fn of(genesis: Genesis) -> Self {
        Self { chain: crypto::chain_id(&genesis), genesis: Arc::new(genesis), trial: None }
    }

    /// The suite, fixed at genesis.
    pub fn suite(&self) -> Suite {
        self.genesis.suite
    }

    /// Whether a command may stand in a block at all: right chain and suite, a kind the protocol in force knows, a member of the
    /// roster in force as signer, and that member's signature left to check with the returned key. A command that may not is no command: it yields no event.
    pub fn admit(&self, roster: &Roster, command: &SignedCommand) -> Option<PublicKey> {
        let right = command.command.chain == self.chain
            && command.suite == self.genesis.suite
            && command.command.body.since() <= roster.protocol;
        right.then(|| roster.member(&command.command.signer).map(|m| m.command_key)).flatten()
    }

    /// Ends an epoch. Called once all commands of its last block are decided, with the root over the epoch's headers before
    /// that block and the hash of the last header before the epoch (zeros in the first); on [`Missing`], fetch that record
    /// and call again.
    pub fn end_epoch(
        &self,
        overlay: &mut Overlay,
        block: BlockContext<'_>,
        blocks: Digest,
        before: Digest,
    ) -> Result<EpochEnd, Missing> {
        let mut decision = Decision::on(overlay);
        let end = match governance::end_epoch(self, &mut decision, block, blocks, before) {
            Ok(end) => end,
            Err(Stop::Missing(missing)) => return Err(missing),
            Err(Stop::Refused(_)) => unreachable!("the end of an epoch is no command and cannot be refused"),
        };
        let writes = decision.writes;
        overlay.commit(writes);
        Ok(end)
    }

    /// Decides one admitted command at a position of a block. On [`Missing`], fetch that record and call again.
    pub fn apply(
        &self,
        overlay: &mut Overlay,
        block: BlockContext<'_>,
        index: u32,
        id: CommandId,
        command: &Command,
    ) -> Result<Outcome, Missing> {
        let mut decision = Decision::on(overlay);
        let outcome = match decide(self, &mut decision, block, id, command) {
            Ok(fact) => Outcome::Accepted(fact),
            Err(Stop::Missing(missing)) => return Err(missing),
            Err(Stop::Refused(refusal)) => {
                decision.writes.clear();
                if let Body::Ask(ask) = &command.body {
                    let counted = cases::count_refusal(&mut decision, ask.case, &command.signer);
                    let noted = match refusal {
                        Refusal::OverBudget => sharing::overspent(block, &mut decision, ask, &command.signer),
                        _ => Ok(()),
                    };
                    if let Err(Stop::Missing(missing)) = counted.and(noted) {
                        return Err(missing);
                    }
                }
                Outcome::Refused(refusal)
            }
        };
        decision.put(&Key::Command(id), &Position { height: block.height, index });
        let writes = decision.writes;
        overlay.commit(writes);
        Ok(outcome)
    }
}

/// What a decision may look at besides the state.
pub(crate) struct Scene<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) block: BlockContext<'a>,
    pub(crate) id: CommandId,
    pub(crate) signer: &'a DepartmentId,
}

fn decide(
    rules: &Rules,
    state: &mut Decision<'_>,
    block: BlockContext<'_>,
    id: CommandId,
    command: &Command,
) -> Result<Fact, Stop> {
    let now = block.time_ms;
    let lives =
        command.expires_ms >= now && command.expires_ms <= now.saturating_add(COMMAND_LIFETIME_MS_MAX);
    ensure(lives, Refusal::Expired)?;
    let scene = Scene { rules, block, id, signer: &command.signer };
    match &command.body {
        Body::PublishResource(c) => catalogue::publish_resource(&scene, state, c),
        Body::PublishMatter(c) => catalogue::publish_matter(&scene, state, c),
        Body::ApproveBasis(c) => catalogue::approve_basis(&scene, state, c),
        Body::EnrolTerminal(c) => consents::enrol_terminal(&scene, state, c),
        Body::OpenCase(c) => cases::open(&scene, state, c),
        Body::Decide(c) => cases::decide(&scene, state, c),
        Body::SettleCase(c) => cases::settle(&scene, state, c),
        Body::ResumeCase(c) => cases::resume(&scene, state, c),
        Body::Identify(c) => consents::identify(&scene, state, c),
        Body::GiveConsent(c) => consents::give(&scene, state, c),
        Body::WithdrawConsent(c) => consents::withdraw(&scene, state, c),
        Body::Ask(c) => calls::ask(&scene, state, c),
        Body::Answer(c) => calls::answer(&scene, state, c),
        Body::Confirm(c) => calls::confirm(&scene, state, c),
        Body::Lapse(c) => calls::lapse(&scene, state, c),
        Body::RequestAction(c) => actions::request(&scene, state, c),
        Body::ReportAction(c) => actions::report(&scene, state, c),
        Body::Anchor(c) => {
            ensure(block.roster.protocol < 2 || c.data.len() <= ANCHOR_BYTES_MAX, Refusal::Oversized)?;
            Ok(Fact::Recorded)
        }
        Body::Propose(c) => governance::propose(&scene, state, c),
        Body::Approve(c) => governance::approve(&scene, state, c),
        Body::RotateVote(c) => governance::rotate_vote(&scene, state, c),
        Body::RegisterProject(c) => sharing::register_project(&scene, state, c),
        Body::EndProject(c) => sharing::end_project(&scene, state, c),
        Body::RequestShare(c) => sharing::request(&scene, state, c),
        Body::ReplyShare(c) => sharing::reply(&scene, state, c),
        Body::WithdrawShare(c) => sharing::withdraw(&scene, state, c),
        Body::DisputeShare(c) => sharing::dispute(&scene, state, c),
        Body::RuleShare(c) => sharing::rule(&scene, state, c),
        Body::RevokeBasis(c) => sharing::revoke(&scene, state, c),
        Body::SetBudget(c) => sharing::set_budget(&scene, state, c),
        Body::ExplainAlert(c) => sharing::explain(&scene, state, c),
        Body::Object(c) => sharing::object(&scene, state, c),
        Body::AnswerObjection(c) => sharing::answer_objection(&scene, state, c),
        Body::DeclareSubscriptions(c) => subscriptions::declare(&scene, state, c),
        Body::Subscribe(c) => subscriptions::subscribe(&scene, state, c),
        Body::NoteChange(c) => subscriptions::note_change(&scene, state, c),
        Body::EndSubscription(c) => subscriptions::end(&scene, state, c),
        Body::CountCase(c) => cases::count(&scene, state, c),
        Body::SetPolicy(c) => policy::set(&scene, state, c),
        Body::DeclareUndo(c) => actions::declare_undo(&scene, state, c),
        Body::DescribeResource(c) => catalogue::describe_resource(&scene, state, c),
        Body::DeclareListed(c) => lists::declare(&scene, state, c),
        Body::ProposeList(c) => lists::propose(&scene, state, c),
        Body::AnswerList(c) => lists::answer(&scene, state, c),
    }
}

/// The keys a command is known to read before anything is fetched, so that a block's can be fetched at once.
/// Further keys show themselves as [`Missing`].
pub fn first_reads(command: &Command) -> Vec<Key> {
    match &command.body {
        Body::PublishResource(c) => vec![Key::Resource(c.id.clone())],
        Body::PublishMatter(c) => vec![Key::MatterVersion(c.id.clone())],
        Body::ApproveBasis(c) => vec![Key::Resource(c.resource.clone())],
        Body::EnrolTerminal(_) | Body::Anchor(_) => vec![],
        Body::OpenCase(c) => {
            vec![Key::Matter(c.matter.clone(), c.version), Key::OpenTag(c.matter.clone(), c.tag)]
        }
        Body::Identify(c) => {
            vec![Key::Case(c.assertion.case), Key::Terminal(command.signer.clone(), c.assertion.terminal)]
        }
        Body::GiveConsent(c) => {
            vec![Key::Case(c.terms.case), Key::PartyConsent(c.terms.case, c.terms.role.clone())]
        }
        Body::WithdrawConsent(c) => vec![Key::Consent(c.consent)],
        Body::Ask(c) => {
            let mut keys = vec![
                Key::Case(c.case),
                Key::StepCall(c.case, c.step.clone()),
                Key::Granted(command.signer.clone()),
            ];
            keys.extend(c.consent.map(Key::Consent));
            keys
        }
        Body::Answer(c) => vec![Key::Call(c.call), Key::Answered(command.signer.clone())],
        Body::Confirm(c) => vec![Key::Call(c.call)],
        Body::Lapse(c) => vec![Key::Call(c.call)],
        Body::RequestAction(c) => vec![Key::Case(c.case), Key::StepAction(c.case, c.step.clone())],
        Body::ReportAction(c) => vec![Key::Action(c.action)],
        Body::Decide(c) => vec![Key::Case(c.case)],
        Body::SettleCase(c) => vec![Key::Case(c.case)],
        Body::ResumeCase(c) => vec![Key::Case(c.case)],
        Body::Propose(_) => vec![Key::Due, Key::OpenProposals],
        Body::Approve(c) => vec![Key::Due, Key::OpenProposals, Key::Proposal(c.proposal)],
        Body::RotateVote(_) => vec![Key::Due, Key::Rotated(command.signer.clone())],
        Body::RegisterProject(c) => vec![Key::Project(command.signer.clone(), c.id.clone())],
        Body::EndProject(c) => vec![Key::Project(c.owner.clone(), c.id.clone()), Key::Sharing],
        Body::RequestShare(c) => {
            let (holder, asker, id) = (c.holder.clone(), command.signer.clone(), c.id.clone());
            vec![Key::Resource(c.resource.clone()), Key::Sharing, Key::Share(ShareRef { holder, asker, id })]
        }
        Body::ReplyShare(c) => {
            let (holder, asker, id) = (command.signer.clone(), c.asker.clone(), c.id.clone());
            vec![Key::Sharing, Key::Share(ShareRef { holder, asker, id })]
        }
        Body::WithdrawShare(c) => {
            let (holder, asker, id) = (c.holder.clone(), command.signer.clone(), c.id.clone());
            vec![Key::Share(ShareRef { holder, asker, id })]
        }
        Body::DisputeShare(c) => {
            let (holder, asker, id) = (c.holder.clone(), command.signer.clone(), c.id.clone());
            vec![Key::Sharing, Key::Share(ShareRef { holder, asker, id })]
        }
        Body::RuleShare(c) => vec![Key::Sharing, Key::Share(c.share.clone())],
        Body::RevokeBasis(c) => vec![Key::Approval(command.signer.clone(), c.id.clone())],
        Body::SetBudget(c) => vec![Key::Resource(c.resource.clone())],
        Body::ExplainAlert(c) => {
            vec![Key::Alert(c.resource.clone(), command.signer.clone()), Key::OpenAlerts]
        }
        Body::Object(c) => {
            vec![Key::Call(c.call), Key::Sharing, Key::Objection(c.call, c.name.clone())]
        }
        Body::AnswerObjection(c) => vec![Key::Objection(c.call, c.name.clone())],
        Body::DeclareSubscriptions(c) => {
            vec![Key::Matter(c.matter.clone(), c.version), Key::Subscribable(c.matter.clone(), c.version)]
        }
        Body::Subscribe(c) => vec![Key::Call(c.call)],
        Body::NoteChange(c) => vec![Key::Subscription(c.subscription)],
        Body::EndSubscription(c) => vec![Key::Subscription(c.subscription)],
        Body::CountCase(c) => vec![Key::Case(c.case)],
        Body::SetPolicy(_) => vec![Key::Policy(command.signer.clone())],
        Body::DescribeResource(c) => {
            vec![Key::Resource(c.resource.clone()), Key::Description(c.resource.clone())]
        }
        Body::DeclareListed(c) => {
            vec![Key::Matter(c.matter.clone(), c.version), Key::Listed(c.matter.clone(), c.version)]
        }
        Body::ProposeList(c) => {
            // its cases are many, and are read once the rest is in order
            vec![Key::Matter(c.matter.clone(), c.version), Key::Listed(c.matter.clone(), c.version)]
        }
        Body::AnswerList(c) => vec![Key::List(c.list)],
        Body::DeclareUndo(c) => {
            vec![Key::Matter(c.matter.clone(), c.version), Key::Undo(c.matter.clone(), c.version)]
        }
    }
}
