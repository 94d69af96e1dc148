//! Public keys: each says of which algorithm it is, so that no key of one suite passes for another's.

use crate::{IdError, Suite};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

macro_rules! key {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident($length:literal) = $word:literal of $suite:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
        pub enum $name { $($(#[$variant_doc])* $variant([u8; $length])),* }

        impl $name {
            /// The suite it belongs to.
            pub fn suite(&self) -> Suite {
                match self { $(Self::$variant(_) => Suite::$suite),* }
            }

            /// The key's bytes, without its algorithm.
            pub fn as_bytes(&self) -> &[u8] {
                match self { $(Self::$variant(bytes) => bytes),* }
            }

            /// The algorithm and the first eight hexadecimal digits, for people.
            pub fn short(&self) -> String {
                self.to_string().chars().take(16).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Self::$variant(bytes) => write!(f, concat!($word, ":{}"), hex::encode(bytes))),* }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}…", self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let (word, digits) = text.split_once(':').ok_or(IdError::Key)?;
                if digits.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(IdError::Key);
                }
                $(if word == $word {
                    let mut bytes = [0; $length];
                    hex::decode_to_slice(digits, &mut bytes).map_err(|_| IdError::Key)?;
                    return Ok(Self::$variant(bytes));
                })*
                Err(IdError::Key)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                <String as Deserialize>::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

key! {
    /// A public signing key.
    PublicKey {
        /// Ed25519, 32 bytes (RFC 8032).
        Ed25519(32) = "ed25519" of International,
        /// SM2, a compressed point of 33 bytes (GM/T 0003, SEC 1).
        Sm2(33) = "sm2" of National,
    }
}

key! {
    /// A public key to which payloads are sealed.
    SealKey {
        /// X25519, 32 bytes (RFC 7748).
        X25519(32) = "x25519" of International,
        /// SM2, a compressed point of 33 bytes.
        Sm2(33) = "sm2" of National,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_itself_only() {
        for key in [PublicKey::Ed25519([7; 32]), PublicKey::Sm2([3; 33])] {
            assert_eq!(key.to_string().parse::<PublicKey>(), Ok(key));
            assert!(key.to_string().to_uppercase().parse::<PublicKey>().is_err());
        }
        let as_other = PublicKey::Ed25519([7; 32]).to_string().replace("ed25519", "sm2");
        assert!(as_other.parse::<PublicKey>().is_err(), "no key passes for another algorithm's");
        assert!("ed25519".parse::<PublicKey>().is_err());
    }
}
