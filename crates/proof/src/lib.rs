//! Verifies receipts offline: no network, no clock, nothing but the receipt and the genesis.
//!
//! The format is specified in `docs/receipt.md`; a second implementation in plain JavaScript is held to the same
//! golden receipts.

pub mod audit;
#[cfg(test)]
mod audit_tests;
mod checkpoint;
mod facts;
mod publication;
mod receipt;
mod statement;
mod verify;

pub use checkpoint::{Checkpoint, End, Link, Linked, headers_of, verify_at};
pub use facts::Facts;
pub use publication::{
    Decided, PUBLICATION_TOPIC, Publication, PublicationKind, PublishedFile, Verdict, is_publication,
    verify_publication,
};
pub use receipt::{EventProof, Finality, Kind, Receipt, Role, RosterChange, Vote};
pub use statement::{
    STATEMENT_TOPIC, Stated, StatedAnswer, Statement, StatementKind, Withheld, is_statement,
    person_commitment, verify_statement,
};
pub use verify::{Rejected, Rosters, verify, verify_finality};
