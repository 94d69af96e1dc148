//! Keeps the city's data platform: takes batches in, looks single subjects up, answers questions about all rows together, measures
//! quality, erases, and publishes what is not personal as open data.
//!
//! Tables are Delta tables of Parquet on an object store, readable by any Delta client. A subject is never stored by its identifier but
//! under a keyed hash, by which rows are sorted: files cover ranges of it, and a look-up reads one page of each column. `docs/lake.md` is
//! the guide.

pub mod bench;
pub mod compact;
pub mod config;
mod convert;
pub mod dataset;
pub mod ingest;
mod input;
mod lake;
pub mod lookup;
pub mod open;
pub mod quality;
pub mod query;
mod reader;
pub mod serve;
mod table;
mod write;

pub use config::Config;
pub use convert::{days, subject_key};
pub use dataset::Dataset;
pub use lake::{Lake, init};
pub use table::{Table, overlap};
