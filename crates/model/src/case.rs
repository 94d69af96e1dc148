//! Cases (办件), their parties and the data needs a published matter declares.

use crate::{ApprovalId, Commitment, DepartmentId, FieldId, Pseudonym, ResourceId, RoleId, StepId, Text};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// What is asked of a resource: named fields, or one predicate.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Named fields, in the order given.
    Fields(Vec<FieldId>),
    /// One question.
    Predicate(FieldId),
}

impl What {
    /// The names asked for: the fields, or the one predicate.
    pub fn names(&self) -> Vec<FieldId> {
        match self {
            Self::Fields(fields) => fields.clone(),
            Self::Predicate(id) => vec![id.clone()],
        }
    }
}

/// Why a declared need is lawful.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeedBasis {
    /// The subject party's consent for this case (PIPL 13(1), 23).
    Consent,
    /// A statutory duty, served only where the holder approved it beforehand (PIPL 13(3)).
    Statutory(ApprovalId),
    /// The identified party's access to their own data, shown to themselves (PIPL 45).
    SelfAccess,
}

/// One data need of a matter, named by the step that has it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The call step that has the need.
    pub step: StepId,
    /// The party it concerns: whose data, and whose consent.
    pub party: RoleId,
    /// Who receives the answer.
    pub recipient: DepartmentId,
    /// Whose resource answers.
    pub holder: DepartmentId,
    /// The resource asked.
    pub resource: ResourceId,
    /// What is asked of it.
    pub what: What,
    /// Why it is lawful.
    pub basis: NeedBasis,
    /// What it is for, as the person reads it.
    pub purpose: Text,
}

/// A party of a case as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Party {
    /// The party's role in the matter.
    pub role: RoleId,
    /// The per-case pseudonym.
    pub pseudonym: Pseudonym,
    /// The salted commitment to the party's identifier.
    pub subject: Commitment,
}

/// How a case ended or where it rests: the closed set of the contract.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CaseOutcome {
    /// All done.
    Closed,
    /// The pivot is done; named utilities were handed to a person or cancelled.
    ClosedPartly,
    /// Refused with a reason and a way to appeal.
    Refused,
    /// Withdrawn by the applicant.
    Withdrawn,
    /// Waits for the applicant, with a deadline.
    Parked,
    /// In a named queue.
    NeedsHuman,
    /// Waits for a named department.
    Blocked,
    /// The same application is already open.
    Duplicate,
}

impl CaseOutcome {
    /// Whether nothing more can happen in the case.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Parked | Self::NeedsHuman | Self::Blocked)
    }

    /// The word the contract uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClosedPartly => "closed_partly",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
            Self::Parked => "parked",
            Self::NeedsHuman => "needs_human",
            Self::Blocked => "blocked",
            Self::Duplicate => "duplicate",
        }
    }
}
