//! Changes of the consortium: who may propose and approve what, and what the next epoch begins with.

use crate::{
    BlockContext, Overlay,
    tests::{MINUTE_MS, World, name, text},
};
use crypto::{Credentials, SigningKey};
use model::*;

impl World {
    pub(crate) fn proposal(&self, by: &str, change: Change) -> Propose {
        let expires_ms = self.time_ms + 60 * MINUTE_MS;
        let message = Propose::signing_bytes(&self.rules.chain, &name(by), &change, expires_ms);
        Propose { change, expires_ms, officer: self.keys[by].system.sign(&message) }
    }

    pub(crate) fn propose(&mut self, by: &str, change: Change) -> ProposalId {
        let proposal = self.proposal(by, change);
        ProposalId(self.accept(by, Body::Propose(proposal)).0)
    }

    fn approval(&self, by: &str, proposal: ProposalId, key: &SigningKey) -> Body {
        let message = Approve::signing_bytes(&self.rules.chain, &name(by), &proposal);
        Body::Approve(Approve { proposal, officer: key.sign(&message) })
    }

    pub(crate) fn approve(&mut self, by: &str, proposal: ProposalId) -> Outcome {
        let key = self.keys[by].security.clone();
        let body = self.approval(by, proposal, &key);
        self.submit(by, body).1
    }

    fn adopt(&mut self, change: Change) {
        self.adopt_for(change, 1);
    }

    fn adopt_for(&mut self, change: Change, epoch: u64) {
        let proposal = self.propose("bureau", change);
        for by in ["bureau", "court"] {
            assert_eq!(self.approve(by, proposal), Outcome::Accepted(Fact::Recorded));
        }
        assert_eq!(self.approve("police", proposal), Outcome::Accepted(Fact::Adopted(epoch)));
    }

    fn end_epoch(&mut self) {
        let mut overlay = Overlay::new(self.rules.suite());
        let block = BlockContext { height: self.height, time_ms: self.time_ms, roster: &self.roster };
        let next = loop {
            match self.rules.end_epoch(&mut overlay, block, Digest([1; 32]), Digest([2; 32])) {
                Ok(end) => break end.roster,
                Err(missing) => {
                    for key in missing.0.iter().map(|key| key.digest(self.rules.suite())) {
                        overlay.insert(key, self.state.get(&key).cloned());
                    }
                }
            }
        };
        self.state.extend(overlay.into_writes());
        next.check(self.rules.suite()).unwrap();
        self.roster = next;
    }
}

fn newcomer(w: &World) -> (Credentials, Change) {
    let new = Credentials::random(w.rules.suite());
    let member = new.member(name("water"), text("water"), true, "127.0.0.1:2".into());
    let change = new.put(&w.rules.chain, member);
    (new, change)
}

#[test]
fn a_department_joins_when_the_epoch_ends_after_three_approvals() {
    let mut w = World::new();
    let (new, change) = newcomer(&w);
    w.adopt(change);
    assert!(w.roster.member(&name("water")).is_none(), "not before the epoch ends");
    w.end_epoch();
    assert_eq!((w.roster.epoch, w.roster.members.len()), (1, 5));
    w.keys.insert("water", new);
    w.accept("water", Body::Anchor(Anchor { topic: name("t"), data: vec![] }));
    // nothing is done twice
    w.end_epoch();
    assert_eq!((w.roster.epoch, w.roster.members.len()), (1, 5));
}

#[test]
fn nobody_approves_alone_twice_or_with_anothers_or_the_proposers_key() {
    let mut w = World::new();
    let (_, change) = newcomer(&w);
    let mut forged = w.proposal("bureau", change.clone());
    forged.officer = w.keys["bureau"].security.sign(b"something else");
    w.refuse("bureau", Body::Propose(forged), Refusal::BadSignature);
    let proposal = w.propose("bureau", change);
    let system = w.keys["court"].system.clone();
    let by_system = w.approval("court", proposal, &system);
    w.refuse("court", by_system, Refusal::BadSignature);
    let command = w.keys["court"].keys.command.clone();
    let by_node = w.approval("court", proposal, &command);
    w.refuse("court", by_node, Refusal::BadSignature);
    let security = w.keys["court"].security.clone();
    let by_other = w.approval("court", proposal, &security);
    w.refuse("police", by_other, Refusal::BadSignature);
    assert_eq!(w.approve("court", proposal), Outcome::Accepted(Fact::Recorded));
    assert_eq!(w.approve("court", proposal), Outcome::Refused(Refusal::ApprovedBefore));
    assert_eq!(w.approve("police", proposal), Outcome::Accepted(Fact::Recorded));
    assert_eq!(w.approve("bureau", proposal), Outcome::Accepted(Fact::Adopted(1)));
    assert_eq!(w.approve("registry", proposal), Outcome::Refused(Refusal::WrongState));
    assert_eq!(w.approve("registry", ProposalId([1; 32])), Outcome::Refused(Refusal::UnknownProposal));
}

#[test]
fn a_proposal_expires() {
    let mut w = World::new();
    let (_, change) = newcomer(&w);
    let proposal = w.propose("bureau", change);
    w.time_ms += 61 * MINUTE_MS;
    assert_eq!(w.approve("court", proposal), Outcome::Refused(Refusal::UnknownProposal));
}

#[test]
fn a_consortium_never_becomes_one_that_cannot_go_on() {
    let mut w = World::new();
    let unfit = |w: &mut World, change: Change| {
        let proposal = w.proposal("bureau", change);
        w.refuse("bureau", Body::Propose(proposal), Refusal::UnfitChange);
    };
    unfit(&mut w, Change::Remove(name("court")));
    unfit(&mut w, Change::Remove(name("nobody")));
    unfit(&mut w, Change::SetApprovals(1));
    unfit(&mut w, Change::SetApprovals(5));
    unfit(&mut w, Change::SetProtocol(3));
    // keys that are none: the first bytes of a point that is not on the curve, the neutral element
    let broken = Credentials::random(Suite::International);
    let mut neutral = [0; 32];
    neutral[0] = 1;
    for node_key in [NodeKey([2; 32]), NodeKey(neutral)] {
        let member = broken.member(name("water"), text("water"), true, "127.0.0.1:2".into());
        let change = broken.put(&w.rules.chain, Member { node_key, ..member });
        unfit(&mut w, change);
    }
    let member = broken.member(name("water"), text(&"水".repeat(100)), false, "127.0.0.1:2".into());
    let change = broken.put(&w.rules.chain, member);
    unfit(&mut w, change);
    // keys of the other suite, keys of another department, an entry its department did not sign
    let foreign = Credentials::random(Suite::National);
    let member = foreign.member(name("water"), text("water"), false, "127.0.0.1:2".into());
    let change = foreign.put(&w.rules.chain, member);
    unfit(&mut w, change);
    let mut stolen = Credentials::random(Suite::International);
    stolen.keys.seal = w.keys["court"].keys.seal.clone();
    let member = stolen.member(name("water"), text("water"), false, "127.0.0.1:2".into());
    let change = stolen.put(&w.rules.chain, member);
    unfit(&mut w, change);
    let (new, change) = newcomer(&w);
    let Change::Put(member, _) = change else { unreachable!() };
    let unsigned = Change::Put(member, new.security.sign(b"something else"));
    let proposal = w.proposal("bureau", unsigned);
    w.refuse("bureau", Body::Propose(proposal), Refusal::BadSignature);
    // two changes each of which would do alone
    let (_, change) = newcomer(&w);
    w.adopt(change);
    let first = w.propose("bureau", Change::Remove(name("court")));
    let second = w.propose("bureau", Change::Remove(name("registry")));
    for by in ["bureau", "court"] {
        w.approve(by, first);
        w.approve(by, second);
    }
    assert_eq!(w.approve("police", first), Outcome::Accepted(Fact::Adopted(1)));
    assert_eq!(w.approve("police", second), Outcome::Refused(Refusal::UnfitChange));
    w.end_epoch();
    assert_eq!(w.roster.validators().len(), 4);
}

#[test]
fn a_vote_key_rotates_by_itself_and_a_new_entry_outdoes_it() {
    let mut w = World::new();
    let before = w.roster.member(&name("court")).unwrap().vote_key;
    let chain = w.rules.chain;
    let rotate = |by: &str, key: &SigningKey| Body::RotateVote(Credentials::rotation(&chain, &name(by), key));
    let fresh = || SigningKey::random(Suite::International);
    let (first, second) = (fresh(), fresh());
    w.accept("court", rotate("court", &first));
    w.refuse("court", rotate("court", &second), Refusal::TooEarly);
    let others = w.keys["police"].vote.clone();
    w.refuse("bureau", rotate("bureau", &others), Refusal::UnfitChange);
    // nobody rotates to a key that is somebody else's, or of the other suite
    w.refuse("bureau", rotate("court", &second), Refusal::BadSignature);
    w.refuse("bureau", rotate("bureau", &SigningKey::random(Suite::National)), Refusal::BadSignature);
    w.end_epoch();
    let after = w.roster.member(&name("court")).unwrap().vote_key;
    assert_eq!((after, after == before), (first.public(), false));
    // an entry written before, with the key destroyed since, does not bring it back
    let old = w.keys["court"].member(name("court"), text("court"), true, "127.0.0.1:9".into());
    assert_eq!(old.vote_key, before);
    let change = w.keys["court"].put(&chain, old);
    w.adopt(change);
    w.end_epoch();
    let court = w.roster.member(&name("court")).unwrap();
    assert_eq!((court.vote_key, court.address.as_str()), (first.public(), "127.0.0.1:9"));
    w.height += 8 * w.rules.genesis.epoch_blocks;
    // a department whose keys were stolen is given new ones: the thief's rotation no longer counts
    w.accept("court", rotate("court", &fresh()));
    let new = Credentials::random(Suite::International);
    let member = new.member(name("court"), text("court"), true, "127.0.0.1:3".into());
    let change = new.put(&w.rules.chain, member);
    w.adopt_for(change, 9);
    w.height += 8 * w.rules.genesis.epoch_blocks;
    w.refuse("court", rotate("court", &fresh()), Refusal::WrongState);
    w.end_epoch();
    assert_eq!(w.roster.member(&name("court")).unwrap().vote_key, new.vote.public());
    assert_eq!(w.roster.members.len(), 4);
}

#[test]
fn the_rules_change_with_an_epoch() {
    let mut w = World::new();
    w.adopt(Change::SetProtocol(2));
    let large = || Body::Anchor(Anchor { topic: name("t"), data: vec![0; 5000] });
    w.accept("court", large());
    w.end_epoch();
    w.refuse("court", large(), Refusal::Oversized);
    assert_eq!((w.roster.protocol, w.roster.epoch), (2, 1));
}

#[test]
fn those_who_vote_now_can_always_go_on_without_the_newcomers() {
    let mut w = World::new();
    let join = |w: &mut World, id: &str| {
        let new = Credentials::random(Suite::International);
        let change =
            new.put(&w.rules.chain, new.member(name(id), text(id), true, format!("127.0.0.1:{}", id.len())));
        w.proposal("bureau", change)
    };
    // five validators need four, and four vote now; six need five
    let first = join(&mut w, "gas");
    let first = ProposalId(w.accept("bureau", Body::Propose(first)).0);
    for by in ["bureau", "court", "police"] {
        w.approve(by, first);
    }
    let second = join(&mut w, "water");
    w.refuse("bureau", Body::Propose(second.clone()), Refusal::UnfitChange);
    w.end_epoch();
    w.accept("bureau", Body::Propose(second));
}

#[test]
fn one_department_does_not_fill_the_list_of_proposals() {
    let mut w = World::new();
    for _ in 0..4 {
        let proposal = w.proposal("bureau", Change::SetApprovals(2));
        w.accept("bureau", Body::Propose(proposal));
    }
    let fifth = w.proposal("bureau", Change::SetApprovals(2));
    w.refuse("bureau", Body::Propose(fifth), Refusal::Oversized);
    let once = w.proposal("court", Change::SetApprovals(2));
    w.accept("court", Body::Propose(once.clone()));
    w.refuse("court", Body::Propose(once), Refusal::ApprovedBefore);
}
