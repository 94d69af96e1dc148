//! Changes of the consortium itself: proposed by a department's system officer, approved by the security officers of as many
//! departments as the roster says, made when the next epoch begins (rules of sharing: at once).

use crate::{
    apply::{BlockContext, Rules, Scene},
    state::{Decision, Due, Key, OpenProposal, ProposalRecord, Stop, ensure},
};
use model::*;

/// The most proposals of one department that may wait for approval.
const OPEN_MAX: usize = 4;
/// A department rotates its vote key at most once in so many epochs: every rotation is carried by every later receipt.
const ROTATION_EPOCHS_LEAST: u64 = 8;
/// The most changes between two epochs.
const CHANGES_MAX: usize = 64;
/// The longest a proposal may wait: 30 days.
const PROPOSAL_LIFETIME_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// A system officer proposes a change that the consortium could go on with.
pub(crate) fn propose(scene: &Scene<'_>, state: &mut Decision<'_>, new: &Propose) -> Result<Fact, Stop> {
    let now = scene.block.time_ms;
    ensure(
        new.expires_ms > now && new.expires_ms - now <= PROPOSAL_LIFETIME_MS_MAX,
        Refusal::UnknownProposal,
    )?;
    let message = Propose::signing_bytes(&scene.rules.chain, scene.signer, &new.change, new.expires_ms);
    let mut open = open_proposals(scene, state)?;
    let own = open.iter().filter(|o| &o.proposer == scene.signer);
    ensure(own.clone().count() < OPEN_MAX, Refusal::Oversized)?;
    // one signature of the officer proposes once
    ensure(own.clone().all(|o| o.expires_ms != new.expires_ms), Refusal::ApprovedBefore)?;
    let officers = &own_entry(scene)?.officers;
    ensure(crypto::verify(&officers.system, &message, &new.officer), Refusal::BadSignature)?;
    let due: Due = state.get(&Key::Due)?.unwrap_or_default();
    check_fit(scene, &due, &new.change)?;
    let id = ProposalId(scene.id.0);
    open.push(OpenProposal { id, proposer: scene.signer.clone(), expires_ms: new.expires_ms });
    state.put(&Key::OpenProposals, &open);
    let record = ProposalRecord {
        proposer: scene.signer.clone(),
        change: new.change.clone(),
        expires_ms: new.expires_ms,
        approvals: vec![],
        adopted: None,
    };
    state.put(&Key::Proposal(id), &record);
    Ok(Fact::Recorded)
}

/// A security officer approves a proposal. The approval that completes the number needed adopts it.
pub(crate) fn approve(scene: &Scene<'_>, state: &mut Decision<'_>, new: &Approve) -> Result<Fact, Stop> {
    let key = Key::Proposal(new.proposal);
    let mut proposal: ProposalRecord = state.need(&key, Refusal::UnknownProposal)?;
    let open = proposal.expires_ms >= scene.block.time_ms;
    ensure(open, Refusal::UnknownProposal)?;
    ensure(proposal.adopted.is_none(), Refusal::WrongState)?;
    let message = Approve::signing_bytes(&scene.rules.chain, scene.signer, &new.proposal);
    let officers = &own_entry(scene)?.officers;
    ensure(crypto::verify(&officers.security, &message, &new.officer), Refusal::BadSignature)?;
    ensure(!proposal.approvals.contains(scene.signer), Refusal::ApprovedBefore)?;
    proposal.approvals.push(scene.signer.clone());
    let roster = scene.block.roster;
    let counted = proposal.approvals.iter().filter(|id| roster.member(id).is_some()).count();
    if counted < roster.approvals as usize && !planted("one_approval") {
        state.put(&key, &proposal);
        return Ok(Fact::Recorded);
    }
    let mut due: Due = state.get(&Key::Due)?.unwrap_or_default();
    ensure(due.changes.len() < CHANGES_MAX, Refusal::Oversized)?;
    check_fit(scene, &due, &proposal.change)?;
    let rest: Vec<_> = open_proposals(scene, state)?.into_iter().filter(|o| o.id != new.proposal).collect();
    if let Change::SetSharing(sharing) = &proposal.change {
        let epoch = scene.rules.genesis.epoch_of(scene.block.height);
        proposal.adopted = Some(epoch);
        state.put(&Key::Sharing, &**sharing);
        state.put(&key, &proposal);
        state.put(&Key::OpenProposals, &rest);
        return Ok(Fact::Adopted(epoch));
    }
    if let Change::Put(member, _) = &proposal.change
        && has_new_keys(scene, member)
    {
        due.votes.remove(&member.id);
    }
    due.changes.push(proposal.change.clone());
    let epoch = scene.rules.genesis.epoch_of(scene.block.height) + 1;
    proposal.adopted = Some(epoch);
    state.put(&key, &proposal);
    state.put(&Key::OpenProposals, &rest);
    state.put(&Key::Due, &due);
    Ok(Fact::Adopted(epoch))
}

/// A department will vote with another key from the next epoch on.
pub(crate) fn rotate_vote(
    scene: &Scene<'_>,
    state: &mut Decision<'_>,
    new: &RotateVote,
) -> Result<Fact, Stop> {
    let own = own_entry(scene)?;
    ensure(own.validator, Refusal::NotYours)?;
    let message = RotateVote::signing_bytes(&scene.rules.chain, scene.signer, &new.vote_key);
    let possessed = new.vote_key.suite() == scene.rules.suite()
        && crypto::is_key(&new.vote_key)
        && crypto::verify(&new.vote_key, &message, &new.possession);
    ensure(possessed, Refusal::BadSignature)?;
    let rotated = Key::Rotated(scene.signer.clone());
    let epoch = scene.rules.genesis.epoch_of(scene.block.height);
    let last: Option<u64> = state.get(&rotated)?;
    ensure(last.is_none_or(|last| epoch >= last + ROTATION_EPOCHS_LEAST), Refusal::TooEarly)?;
    let mut due: Due = state.get(&Key::Due)?.unwrap_or_default();
    let replaced = |c: &Change| match c {
        Change::Put(member, _) => &member.id == scene.signer && has_new_keys(scene, member),
        Change::Remove(id) => id == scene.signer,
        Change::SetApprovals(_) | Change::SetProtocol(_) | Change::SetSharing(_) => false,
    };
    ensure(!due.changes.iter().any(replaced), Refusal::WrongState)?;
    due.votes.insert(scene.signer.clone(), new.vote_key);
    let fits = next_roster(scene.block, scene.rules, &due).check(scene.rules.suite()).is_ok();
    ensure(fits && new.vote_key != own.vote_key, Refusal::UnfitChange)?;
    state.put(&rotated, &epoch);
    state.put(&Key::Due, &due);
    Ok(Fact::Recorded)
}

/// Whether an entry gives its department another command key: then its keys were lost or stolen, and all are new.
fn has_new_keys(scene: &Scene<'_>, member: &Member) -> bool {
    scene.block.roster.member(&member.id).is_none_or(|m| m.command_key != member.command_key)
}

/// What the last block of an epoch says; what was due is done.
pub(crate) fn end_epoch(
    rules: &Rules,
    state: &mut Decision<'_>,
    block: BlockContext<'_>,
    blocks: Digest,
    before: Digest,
) -> Result<EpochEnd, Stop> {
    let due: Due = state.get(&Key::Due)?.unwrap_or_default();
    let mut past: merkle::Frontier = state.get(&Key::Past)?.unwrap_or_default();
    let roster = if due.is_empty() { block.roster.clone() } else { next_roster(block, rules, &due) };
    if !due.is_empty() {
        state.put(&Key::Due, &Due::default());
    }
    let tree = crypto::tree(rules.suite());
    if rules.genesis.epoch_of(block.height) > 0 {
        past.push(tree, crypto::header_leaf(rules.suite(), &before));
        state.put(&Key::Past, &past);
    }
    Ok(EpochEnd { roster, blocks, past: past.root(tree) })
}

fn next_roster(block: BlockContext<'_>, rules: &Rules, due: &Due) -> Roster {
    let mut next = block.roster.clone();
    next.epoch = rules.genesis.epoch_of(block.height) + 1;
    for change in &due.changes {
        change.apply(&mut next);
    }
    for member in &mut next.members {
        if let Some(key) = due.votes.get(&member.id) {
            member.vote_key = *key;
        }
    }
    next
}

/// The signer's entry in the roster.
fn own_entry<'a>(scene: &Scene<'a>) -> Result<&'a Member, Stop> {
    scene.block.roster.member(scene.signer).ok_or(Stop::Refused(Refusal::NotYours))
}

/// The proposals that may still be approved.
fn open_proposals(scene: &Scene<'_>, state: &Decision<'_>) -> Result<Vec<OpenProposal>, Stop> {
    let mut open: Vec<OpenProposal> = state.get(&Key::OpenProposals)?.unwrap_or_default();
    open.retain(|o| o.expires_ms >= scene.block.time_ms);
    Ok(open)
}

/// The consortium must be able to go on with a change, after all that is due already.
fn check_fit(scene: &Scene<'_>, due: &Due, change: &Change) -> Result<(), Stop> {
    let mut next = next_roster(scene.block, scene.rules, due);
    match change {
        Change::Put(member, signature) => {
            let said = member.signing_bytes(&scene.rules.chain);
            ensure(crypto::verify(&member.command_key, &said, signature), Refusal::BadSignature)?;
            ensure(crypto::check_keys(member).is_ok(), Refusal::UnfitChange)?;
        }
        Change::Remove(id) => ensure(next.member(id).is_some(), Refusal::UnfitChange)?,
        Change::SetProtocol(protocol) => ensure(*protocol == next.protocol + 1, Refusal::UnfitChange)?,
        Change::SetApprovals(_) => {}
        Change::SetSharing(sharing) => {
            ensure(sharing.check(scene.block.roster).is_ok(), Refusal::UnfitChange)?;
        }
    }
    change.apply(&mut next);
    // those who vote now and go on must be able to make blocks final, whether newcomers' nodes come up or not
    let validators = next.validators();
    let stays = |m: &&&Member| {
        let now = scene.block.roster.member(&m.id);
        now.is_some_and(|now| now.validator && now.node_key == m.node_key && now.command_key == m.command_key)
    };
    let staying = validators.iter().filter(stays).count();
    ensure(staying >= Quorum::of(validators.len()), Refusal::UnfitChange)?;
    ensure(next.check(scene.rules.suite()).is_ok(), Refusal::UnfitChange)
}
