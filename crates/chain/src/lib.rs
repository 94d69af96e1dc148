//! Orders commands on the BFT engine, keeps blocks and authenticated state, makes proofs.
//!
//! There is one write door, [`Chain::submit`], and one stream out, [`Chain::events`]. The consensus engine is named
//! only in this crate. Every node runs it on a thread of its own; a node whose department is no validator follows
//! the same blocks without voting.

#![cfg_attr(test, allow(dead_code, unused_imports, reason = "unit tests leave out what starts an engine"))]

mod app;
mod archive;
mod block;
mod engine;
mod epochs;
mod handle;
mod host;
mod pool;
mod rosters;
mod scheme;
mod shelf;
mod tree;

pub use app::Engine;
pub use archive::{Archive, ArchiveError, Checked, MAGIC};
pub use block::check_block_bytes;
#[cfg(not(test))]
pub use engine::start;
pub use engine::{CHANNELS, Config, Key, Node, StartError, Track, Wires, prepare, quota_of};
pub use handle::{BlockEvents, Chain, ChainError, Events, Letter, PruneError, Submitted};
pub use host::{Host, Level};
pub use pool::Rejected;
