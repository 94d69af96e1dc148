//! What a valid receipt proves, for people and machines.

use crate::Kind;
use serde::Serialize;

/// The facts of a valid receipt. None of them names a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// What it is evidence of.
    pub kind: Kind,
    /// The department that asked, requested or decided.
    pub asker: String,
    /// The department that answered or performed; empty where there is none.
    pub holder: String,
    /// What it was for, in Chinese; the step's ID where the matter declares no text.
    pub purpose: String,
    /// The legal basis: `consent`, `statutory: citation`, `self_access`, or empty.
    pub basis: String,
    /// How surely the consenting party was identified; empty where no consent is involved.
    pub assurance: String,
    /// The matter.
    pub matter: String,
    /// The case.
    pub case: String,
    /// The step.
    pub step: String,
    /// The fields or the predicate asked, or the names permitted.
    pub fields: Vec<String>,
    /// Where it stands: `granted`, `refused: code`, `answered`, `declined: code`, `opened`, `disputed`, `given`,
    /// `withdrawn`, `requested`, `done`, `failed: code`, `passed`, `not_passed`, `complete: n granted, m refused`,
    /// `so far: n granted, m refused`.
    pub status: String,
    /// Objections to values of the call: `name: untrue` (or another word of what is wrong) while it waits for the holder, then
    /// `name: corrected`, `confirmed`, `unproven` or `elsewhere`.
    pub objections: Vec<String>,
    /// The height of the main event's block.
    pub height: u64,
    /// The time of that block in milliseconds since 1970.
    pub time: u64,
}
