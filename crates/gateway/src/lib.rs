//! Answers grants and performs actions on a department's own database through declared files.
//!
//! Three kinds of file describe a department: the shared *standard* (data elements), its *mapping* (tables and columns
//! to elements), and its *queries and actions*. They are compiled once against the live schema; a request names a
//! declared query and never carries query text. This crate returns answers and submits nothing.

mod answer;
mod compile;
mod declare;
mod source;
mod transform;

pub use answer::{Answered, Checked, Gateway, GatewayError, Performed};
pub use compile::Problem;
pub use declare::{Connector, DeclareError, Standard};
pub use source::{Select, Source, SourceError, Write, Written, memory::Memory, sqlite::Sqlite};
pub use transform::Stored;
