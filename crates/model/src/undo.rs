//! Compensation: what is done in a case before its pivot is undone where the case ends there (a saga; Garcia-Molina and Salem, 1987).

use crate::*;
use borsh::{BorshDeserialize, BorshSerialize};

/// The protocol version from which acts can be undone.
pub const UNDO_PROTOCOL: u32 = 6;

/// See [`Body::DeclareUndo`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DeclareUndo {
    /// The matter, published by the signer before.
    pub matter: MatterId,
    /// Its version.
    pub version: u32,
    /// What undoes what.
    pub acts: Vec<Undo>,
}

/// An act and what undoes it; both are actions of the matter by the same department.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Undo {
    /// The step that is undone.
    pub act: StepId,
    /// The step that undoes it.
    pub by: StepId,
}
