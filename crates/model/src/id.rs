//! One ID type per noun. Digests are 32 bytes, written as 64 lower-case hexadecimal digits; names are slugs.

use borsh::{BorshDeserialize, BorshSerialize, io};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// What is wrong with the text of an ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 64 lower-case hexadecimal digits.
    #[error("expected 64 lower-case hexadecimal digits")]
    Hex,
    /// Not an algorithm of this program's, a colon, and as many lower-case hexadecimal digits as its keys have.
    #[error("expected a key like ed25519: and 64 lower-case hexadecimal digits, or sm2: and 66")]
    Key,
    /// Not a slug: 1 to 64 characters of `a-z 0-9 - _ .`, beginning with a letter.
    #[error("`{0}` is not a name: use 1 to 64 of a-z 0-9 - _ . beginning with a letter")]
    Slug(String),
}

macro_rules! digest_id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
        pub struct $name(pub [u8; 32]);
        impl $name {
            /// The 32 bytes.
            pub fn as_bytes(&self) -> &[u8; 32] { &self.0 }
            /// The first eight hexadecimal digits, for people.
            pub fn short(&self) -> String { hex::encode(&self.0[..4]) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&hex::encode(self.0)) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, concat!(stringify!($name), "({}…)"), self.short()) }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                let mut bytes = [0; 32];
                if s.bytes().any(|b| b.is_ascii_uppercase()) { return Err(IdError::Hex); }
                hex::decode_to_slice(s, &mut bytes).map_err(|_| IdError::Hex)?;
                Ok(Self(bytes))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.collect_str(self) }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                <String as Deserialize>::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

digest_id! {
    /// A hash under the consortium's suite.
    Digest,
    /// The hash of the genesis: names one ledger.
    ChainId,
    /// The hash of a command's signed bytes.
    CommandId,
    /// A case: the ID of the command that opened it.
    CaseId,
    /// A consent: the ID of the command that gave it.
    ConsentId,
    /// A call: the ID of the command that asked.
    CallId,
    /// An action: the ID of the command that requested it.
    ActionId,
    /// A salted hash of one field or subject; the only trace of data on the ledger.
    Commitment,
    /// A per-case name of a person that says nothing of who it is.
    Pseudonym,
    /// A proposed change of the consortium: the ID of the command that proposed it.
    ProposalId,
    /// A subscription: the ID of the command that made it.
    SubscriptionId,
    /// A list of cases to be asked together: the ID of the command that proposed it.
    ListId,
    /// The Ed25519 key by which a node knows another, in either suite.
    NodeKey,
}

impl CommandId {
    /// This command read as what it created.
    pub fn as_digest(self) -> Digest {
        Digest(self.0)
    }
}

fn is_slug(s: &str) -> bool {
    (1..=64).contains(&s.len())
        && s.as_bytes()[0].is_ascii_lowercase()
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
}

macro_rules! name_id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize)]
        pub struct $name(String);
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                if is_slug(s) { Ok(Self(s.to_owned())) } else { Err(IdError::Slug(s.chars().take(64).collect())) }
            }
        }
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool { true }
            fn schema_name() -> std::borrow::Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": "^[a-z][a-z0-9._-]{0,63}$" })
            }
        }
        impl BorshDeserialize for $name {
            fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
                String::deserialize_reader(reader)?
                    .parse()
                    .map_err(|e: IdError| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.serialize_str(&self.0) }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                <String as Deserialize>::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

name_id! {
    /// A member organisation of the consortium.
    DepartmentId,
    /// A catalogue entry: what data a department can answer for.
    ResourceId,
    /// A field of a resource, or one of its predicates.
    FieldId,
    /// A kind of service.
    MatterId,
    /// A step of a matter's graph; a data need is named by the call step that has it.
    StepId,
    /// A role in a matter: `seller`, `buyer`.
    RoleId,
    /// A holder's prior approval of a statutory basis.
    ApprovalId,
    /// An application project of a department: what it uses data for.
    ProjectId,
    /// A declared write in a department's own system.
    OperationId,
    /// A short word of a closed or declared list: an outcome, a reason code.
    Code,
}
