//! Everything a department brings along when it founds or joins a consortium.

use crate::{Keys, SigningKey};
use model::{ChainId, Change, DepartmentId, Member, Officers, RotateVote, Suite, Text};

/// A department's keys, its officers' and the first its validator votes with. The officers' belong to people, and lie
/// elsewhere than the node's.
#[derive(Clone)]
pub struct Credentials {
    /// The node's keys.
    pub keys: Keys,
    /// The first vote key.
    pub vote: SigningKey,
    /// The system officer's key.
    pub system: SigningKey,
    /// The security officer's key.
    pub security: SigningKey,
}

impl Credentials {
    /// Fresh credentials of a suite.
    pub fn random(suite: Suite) -> Self {
        Self {
            keys: Keys::random(suite),
            vote: SigningKey::random(suite),
            system: SigningKey::random(suite),
            security: SigningKey::random(suite),
        }
    }

    /// The department's entry in a roster.
    pub fn member(&self, id: DepartmentId, title: Text, validator: bool, address: String) -> Member {
        Member {
            id,
            title,
            command_key: self.keys.command.public(),
            seal_key: self.keys.seal.public(),
            node_key: self.keys.node_key(),
            vote_key: self.vote.public(),
            validator,
            address,
            officers: Officers { system: self.system.public(), security: self.security.public() },
        }
    }

    /// The command by which a department votes with another key.
    pub fn rotation(chain: &ChainId, department: &DepartmentId, key: &SigningKey) -> RotateVote {
        let vote_key = key.public();
        let possession = key.sign(&RotateVote::signing_bytes(chain, department, &vote_key));
        RotateVote { vote_key, possession }
    }

    /// The change that takes the department in, or gives it these keys, with its own signature.
    pub fn put(&self, chain: &ChainId, member: Member) -> Change {
        let signature = self.keys.command.sign(&member.signing_bytes(chain));
        Change::Put(Box::new(member), signature)
    }
}
