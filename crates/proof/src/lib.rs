//! Verifies receipts offline: no network, no clock, nothing but the receipt and the genesis.
//!
//! The format is specified in `docs/receipt.md`; a second implementation in plain JavaScript is held to the same
//! golden receipts.

mod facts;
mod receipt;
mod verify;

pub use facts::Facts;
pub use receipt::{EventProof, Finality, Kind, Receipt, Role, Vote};
pub use verify::{Rejected, verify};
