//! Batch exchange without bulk leakage: an agreed list of open cases, whose calls of one step are asked together. Each is a call of its
//! own, with its own grant, subject commitment, basis, budget and receipt; a list lets nothing through that a single call would not.

use crate::*;
use borsh::{BorshDeserialize, BorshSerialize};

/// The protocol version from which calls can be asked by lists.
pub const LIST_PROTOCOL: u32 = 7;
/// The most cases of one list.
pub const LIST_CASES_MAX: usize = 500;
/// The shortest a list may stand when it is proposed, in milliseconds: half an hour.
pub const LIST_LIVES_MS_LEAST: u64 = 30 * 60_000;
/// The longest a list may stand, in milliseconds: seven days.
pub const LIST_LIVES_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// See [`Body::DeclareListed`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DeclareListed {
    /// The matter, published by the signer before.
    pub matter: MatterId,
    /// Its version.
    pub version: u32,
    /// The steps whose calls are asked by lists, and only so.
    pub steps: Vec<StepId>,
}

/// See [`Body::ProposeList`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ProposeList {
    /// The matter of the cases.
    pub matter: MatterId,
    /// Its version.
    pub version: u32,
    /// The step whose calls are to be asked.
    pub step: StepId,
    /// The cases, ascending: one subject of each.
    pub cases: Vec<CaseId>,
    /// The last moment a call may be asked under the list, in milliseconds since 1970.
    pub until_ms: u64,
}

/// See [`Body::AnswerList`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AnswerList {
    /// The list.
    pub list: ListId,
    /// None: agreed. Some: refused, with a code, which is public: one with the form of a number of a person is not taken.
    pub refused: Option<Code>,
}
