//! Who is in the consortium, with which keys, under which rules: fixed for an epoch, changed only between epochs.

use crate::{DepartmentId, Digest, NodeKey, PublicKey, SealKey, Sharing, Suite, Text};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// The protocol versions (rules of the ledger) this program knows.
pub const PROTOCOLS: RangeInclusive<u32> = 1..=8;

/// The most departments of one consortium.
pub const MEMBERS_MAX: usize = 64;
/// The longest name of a department in either language, in bytes.
pub const TITLE_BYTES_MAX: usize = 256;

/// The keys of a department's officers. Two people: who administers the system proposes changes, who is responsible for
/// security approves them (三员分立). The third, the auditor, reads, and has no key that changes anything.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Officers {
    /// Proposes changes of the consortium.
    pub system: PublicKey,
    /// Approves them.
    pub security: PublicKey,
}

/// A department of the consortium.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its ID.
    pub id: DepartmentId,
    /// Its name.
    pub title: Text,
    /// Signs its commands.
    pub command_key: PublicKey,
    /// Payloads for it are sealed to this.
    pub seal_key: SealKey,
    /// Identifies its node to the others.
    pub node_key: NodeKey,
    /// Votes on blocks, where the node is a validator.
    pub vote_key: PublicKey,
    /// Whether its node votes.
    pub validator: bool,
    /// Where its node listens for the others: an address and port such as `10.1.2.3:8500`.
    pub address: String,
    /// The keys of its officers.
    pub officers: Officers,
}

impl Member {
    /// What a department signs with its command key to say that this entry is its own.
    pub fn signing_bytes(&self, chain: &crate::ChainId) -> Vec<u8> {
        [b"tongban/member/1\0".as_slice(), &chain.0, &crate::encode(self)].concat()
    }

    fn keys(&self) -> [PublicKey; 4] {
        [self.command_key, self.vote_key, self.officers.system, self.officers.security]
    }
}

/// The departments of a consortium and its rules, from one epoch on.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roster {
    /// The first epoch it is in force.
    pub epoch: u64,
    /// The version of the ledger's rules.
    pub protocol: u32,
    /// How many departments must approve a change.
    pub approvals: u32,
    /// The departments, in ascending order of their IDs.
    pub members: Vec<Member>,
}

impl Roster {
    /// A department by its ID.
    pub fn member(&self, id: &DepartmentId) -> Option<&Member> {
        self.members.binary_search_by(|m| m.id.cmp(id)).ok().map(|i| &self.members[i])
    }

    /// The validators in ascending order of their node keys: position `i` is signer `i` of a finality proof.
    pub fn validators(&self) -> Vec<&Member> {
        let mut validators: Vec<_> = self.members.iter().filter(|m| m.validator).collect();
        validators.sort_by_key(|m| m.node_key);
        validators
    }

    /// What must hold of a roster; says what does not.
    pub fn check(&self, suite: Suite) -> Result<(), String> {
        if !self.members.windows(2).all(|w| w[0].id < w[1].id) {
            return Err("members must stand in ascending order of their IDs, each once".into());
        }
        if self.members.len() > MEMBERS_MAX || self.members.is_empty() {
            return Err(format!("a consortium has 1 to {MEMBERS_MAX} departments"));
        }
        if self.members.iter().filter(|m| m.validator).count() < 4 {
            return Err("a consortium needs at least 4 validators to bear one fault".into());
        }
        // as many as may be malicious cannot change anything, and as many as may be down cannot prevent everything
        let (departments, faulty) = (self.members.len() as u32, (self.members.len() as u32 - 1) / 3);
        let (least, most) = ((faulty + 1).max(2), departments - faulty);
        if !(least..=most).contains(&self.approvals) {
            return Err(format!(
                "changes need the approval of {least} to {most} of {departments} departments, not of {}",
                self.approvals
            ));
        }
        let long = |m: &&Member| m.title.zh.len().max(m.title.en.len()) > TITLE_BYTES_MAX;
        if let Some(member) = self.members.iter().find(long) {
            return Err(format!("the name of {} is longer than {TITLE_BYTES_MAX} bytes", member.id));
        }
        let foreign =
            |m: &&Member| m.seal_key.suite() != suite || m.keys().iter().any(|k| k.suite() != suite);
        if let Some(member) = self.members.iter().find(foreign) {
            return Err(format!("a key of {} is of another suite than the consortium's", member.id));
        }
        if let Some(member) = self.members.iter().find(|m| m.address.is_empty() || m.address.len() > 255) {
            return Err(format!("{} needs an address its node listens at", member.id));
        }
        let all_once = |mut keys: Vec<Vec<u8>>| {
            keys.sort();
            keys.windows(2).all(|w| w[0] != w[1])
        };
        let signing = self.members.iter().flat_map(Member::keys).map(|k| k.as_bytes().to_vec());
        let nodes = self.members.iter().map(|m| m.node_key.0.to_vec());
        let seals = self.members.iter().map(|m| m.seal_key.as_bytes().to_vec());
        if !all_once(signing.chain(nodes).collect()) || !all_once(seals.collect()) {
            return Err("two keys are equal; every department needs keys of its own for every purpose".into());
        }
        Ok(())
    }
}

/// What the last block of an epoch says: who is in the consortium from the next block on, and what came before, so that any
/// header can be proved from a later epoch's last.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EpochEnd {
    /// The roster of the next epoch.
    pub roster: Roster,
    /// The root over the hashes of this epoch's headers, but the last.
    pub blocks: Digest,
    /// The root over the hashes of all earlier epochs' last headers.
    pub past: Digest,
}

/// A change of the consortium. It needs the approval of as many departments as the roster says, and takes effect when the
/// next epoch begins; rules of sharing take effect at once.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Change {
    /// Takes a department in, or gives one that is in new keys, another address, name or vote; with its own signature
    /// (by the command key in the entry) over [`Member::signing_bytes`]. Where the command key stays, so does the vote key.
    Put(Box<Member>, [u8; 64]),
    /// Removes a department.
    Remove(DepartmentId),
    /// Sets how many departments must approve a change.
    SetApprovals(u32),
    /// Activates the next version of the ledger's rules.
    SetProtocol(u32),
    /// Sets the rules of sharing (from protocol 3 on); nothing in the roster changes.
    SetSharing(Box<Sharing>),
}

impl Change {
    /// The roster with this change made. The members stay in order; nothing is checked.
    pub fn apply(&self, roster: &mut Roster) {
        match self {
            Self::Put(member, _) => match roster.members.binary_search_by(|m| m.id.cmp(&member.id)) {
                Ok(i) => {
                    let old = std::mem::replace(&mut roster.members[i], (**member).clone());
                    // the same department goes on voting with the key it votes with: it may have rotated it since
                    if old.command_key == member.command_key {
                        roster.members[i].vote_key = old.vote_key;
                    }
                }
                Err(i) => roster.members.insert(i, (**member).clone()),
            },
            Self::Remove(id) => roster.members.retain(|m| &m.id != id),
            Self::SetApprovals(approvals) => roster.approvals = *approvals,
            Self::SetProtocol(protocol) => roster.protocol = *protocol,
            Self::SetSharing(_) => {}
        }
    }
}
