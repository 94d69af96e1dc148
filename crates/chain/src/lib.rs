//! Orders commands on the BFT engine, keeps blocks and authenticated state, makes proofs.
//!
//! There is one write door, [`Chain::submit`], and one stream out, [`Chain::events`]. The consensus engine is named
//! only in this crate. Every node runs it on a thread of its own; a node whose department is no validator follows
//! the same blocks without voting.

mod app;
mod block;
mod engine;
mod handle;
mod pool;

pub use block::check_block_bytes;
pub use engine::{Config, StartError, start};
pub use handle::{BlockEvents, Chain, ChainError, Events, Letter};
pub use pool::Rejected;
