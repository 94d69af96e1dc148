//! Commitments: salted hashes that bind a value without showing it.

use crate::{hash, random};
use borsh::{BorshDeserialize, BorshSerialize};
use model::{Commitment, Suite};
use serde::{Deserialize, Serialize};

/// 32 random bytes that make a commitment unguessable.
#[derive(Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Salt(pub [u8; 32]);

impl Salt {
    /// A fresh salt.
    pub fn random() -> Self {
        Self(random())
    }
}

impl Serialize for Salt {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Salt {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <String as Deserialize>::deserialize(d)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt(…)")
    }
}

/// Commits to a named value: `H("tongban/commit/1" 0 salt len(name) name value)`, the length as four bytes,
/// little end first. The name keeps a commitment from being opened as another field's.
pub fn commit(suite: Suite, salt: &Salt, name: &str, value: &[u8]) -> Commitment {
    let length = (name.len() as u32).to_le_bytes();
    Commitment(hash(suite, "tongban/commit/1", &[&salt.0, &length, name.as_bytes(), value]).0)
}

/// What opens a commitment: held back by whoever may see the value, never on the ledger.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Opening {
    /// The salt.
    pub salt: Salt,
    /// The name.
    pub name: String,
    /// The value, as text.
    pub value: String,
}

impl Opening {
    /// An opening with a fresh salt.
    pub fn fresh(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { salt: Salt::random(), name: name.into(), value: value.into() }
    }

    /// The commitment it opens.
    pub fn commitment(&self, suite: Suite) -> Commitment {
        commit(suite, &self.salt, &self.name, self.value.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITE: Suite = Suite::National;

    #[test]
    fn a_commitment_opens_only_with_its_own_salt_name_and_value() {
        let opening = Opening::fresh("holder_name", "王小明");
        let commitment = opening.commitment(SUITE);
        assert_eq!(opening.commitment(SUITE), commitment);
        assert_ne!(opening.commitment(Suite::International), commitment);
        for other in [
            Opening { value: "王小民".into(), ..opening.clone() },
            Opening { name: "holder_id".into(), ..opening.clone() },
            Opening { salt: Salt::random(), ..opening.clone() },
        ] {
            assert_ne!(other.commitment(SUITE), commitment);
        }
    }

    #[test]
    fn a_name_cannot_slide_into_the_value() {
        let salt = Salt([7; 32]);
        assert_ne!(commit(SUITE, &salt, "ab", b"c"), commit(SUITE, &salt, "a", b"bc"));
    }
}
