//! The genesis: the only thing a verifier has to trust.

use crate::{Member, PROTOCOLS, Roster, Suite};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// The genesis of a consortium. Its hash is the chain ID.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// The format of this file: 1.
    pub format: u32,
    /// What the consortium calls itself.
    pub name: String,
    /// The cryptographic suite, for good.
    pub suite: Suite,
    /// When it was made, in milliseconds since 1970.
    pub time_ms: u64,
    /// How many blocks an epoch has, for good: departments join and leave, keys and rules change between epochs only.
    pub epoch_blocks: u64,
    /// The version of the ledger's rules it begins with.
    pub protocol: u32,
    /// How many departments must approve a change of the consortium.
    pub approvals: u32,
    /// The departments, in ascending order of their IDs.
    pub members: Vec<Member>,
}

impl Genesis {
    /// The bytes whose hash is the chain ID.
    pub fn identity_bytes(&self) -> Vec<u8> {
        [b"tongban/genesis/1\0".as_slice(), &crate::encode(self)].concat()
    }

    /// The roster of the first epoch.
    pub fn roster(&self) -> Roster {
        Roster { epoch: 0, protocol: self.protocol, approvals: self.approvals, members: self.members.clone() }
    }

    /// The epoch a height belongs to.
    pub fn epoch_of(&self, height: u64) -> u64 {
        height / self.epoch_blocks
    }

    /// Whether an epoch ends with this height.
    pub fn ends_epoch(&self, height: u64) -> bool {
        (height + 1).is_multiple_of(self.epoch_blocks)
    }

    /// The last height of an epoch.
    pub fn last_of(&self, epoch: u64) -> u64 {
        epoch.saturating_add(1).saturating_mul(self.epoch_blocks) - 1
    }

    /// What must hold of a genesis beyond its encoding; says what does not.
    pub fn check(&self) -> Result<(), String> {
        if self.format != 1 {
            return Err(format!("format {} is not supported; this program reads format 1", self.format));
        }
        if !PROTOCOLS.contains(&self.protocol) {
            return Err(format!(
                "protocol {} is not known; this program knows {} to {}",
                self.protocol,
                PROTOCOLS.start(),
                PROTOCOLS.end()
            ));
        }
        if !(8..=1 << 20).contains(&self.epoch_blocks) {
            return Err("an epoch has 8 to 1048576 blocks".into());
        }
        self.roster().check(self.suite)
    }
}
