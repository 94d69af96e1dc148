//! The genesis: the only thing a verifier has to trust.

use crate::{DepartmentId, PublicKey, SealKey, Suite, Text};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// A department at genesis.
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
    /// Identifies its node to the others; a validator votes with it.
    pub node_key: PublicKey,
    /// Whether its node votes.
    pub validator: bool,
}

/// The genesis of a consortium. Its hash is the chain ID.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// The format of this file: 1.
    pub format: u32,
    /// What the consortium calls itself.
    pub name: String,
    /// The cryptographic suite.
    pub suite: Suite,
    /// When it was made, in milliseconds since 1970.
    pub time_ms: u64,
    /// The departments, in ascending order of their IDs.
    pub members: Vec<Member>,
}

impl Genesis {
    /// The bytes whose hash is the chain ID.
    pub fn identity_bytes(&self) -> Vec<u8> {
        [b"tongban/genesis/1\0".as_slice(), &crate::encode(self)].concat()
    }

    /// A member by its ID.
    pub fn member(&self, id: &DepartmentId) -> Option<&Member> {
        self.members.iter().find(|m| &m.id == id)
    }

    /// The vote keys of the validators in ascending order: position `i` is signer `i` of a finality proof.
    pub fn validators(&self) -> Vec<PublicKey> {
        let mut keys: Vec<_> = self.members.iter().filter(|m| m.validator).map(|m| m.node_key).collect();
        keys.sort();
        keys
    }

    /// What must hold of a genesis beyond its encoding; says what does not.
    pub fn check(&self) -> Result<(), String> {
        if self.format != 1 {
            return Err(format!("format {} is not supported; this program reads format 1", self.format));
        }
        if !self.members.windows(2).all(|w| w[0].id < w[1].id) {
            return Err("members must stand in ascending order of their IDs, each once".into());
        }
        if self.validators().len() < 4 {
            return Err("a consortium needs at least 4 validators to bear one fault".into());
        }
        let mut keys: Vec<_> = self.members.iter().flat_map(|m| [m.command_key, m.node_key]).collect();
        keys.sort();
        if keys.windows(2).any(|w| w[0] == w[1]) {
            return Err("two keys are equal; every department needs keys of its own".into());
        }
        Ok(())
    }
}
