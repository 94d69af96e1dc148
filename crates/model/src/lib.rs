//! Names every noun and command of the platform, with typed IDs, canonical bytes and check-digit rules.
//!
//! Canonical bytes are [Borsh](https://borsh.io): every value has exactly one encoding, decoding is strict
//! (no trailing bytes, no unknown tags, no invalid UTF-8) and bounded by the input's length.

mod block;
mod case;
mod catalogue;
mod command;
mod consent;
mod day;
mod event;
mod genesis;
mod id;
pub mod identifier;
mod key;
mod list;
mod planted;
mod policy;
mod roster;
mod sharing;
mod subscription;
mod text;
mod undo;

pub use block::{Header, Quorum, merkle};
pub use case::{CaseOutcome, Need, NeedBasis, Party, What};
pub use catalogue::{
    Category, DESCRIPTION_PROTOCOL, DescribeResource, Description, Field, Predicate, Resource, ShareClass,
    SubjectKind,
};
pub use command::*;
pub use consent::{
    Assertion, AssuranceLevel, ConsentItem, ConsentLine, ConsentTerms, FACE_PROTOCOL, IdentityMethod,
    OIDC_PROTOCOL, consent_text,
};
pub use day::{Day, DayError, WorkingDays};
pub use event::{Event, Fact, Outcome, Refusal};
pub use genesis::Genesis;
pub use id::*;
pub use key::{PublicKey, SealKey};
pub use list::*;
#[cfg(feature = "sim")]
pub use planted::plant;
pub use planted::planted;
pub use policy::*;
pub use roster::{Change, EpochEnd, MEMBERS_MAX, Member, Officers, PROTOCOLS, Roster, TITLE_BYTES_MAX};
pub use sharing::*;
pub use subscription::*;
pub use text::{Language, Text};
pub use undo::*;

/// The greatest length of one signed command, in bytes. Longer texts are content-addressed blobs.
pub const COMMAND_BYTES_MAX: usize = 64 * 1024;

/// Decodes one canonical value and refuses anything that is not its only encoding.
pub fn decode<T: borsh::BorshDeserialize>(bytes: &[u8]) -> Result<T, DecodeError> {
    borsh::from_slice(bytes).map_err(|e| DecodeError(e.to_string()))
}

/// Encodes a value as its canonical bytes.
pub fn encode<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("encoding into memory cannot fail")
}

/// Bytes that are not the canonical encoding of the expected value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not canonical bytes: {0}")]
pub struct DecodeError(String);
