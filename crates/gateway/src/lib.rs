//! Answers grants and performs actions on a department's own database through declared files.
//!
//! Three kinds of file describe a department: the shared *standard* (data elements), its *mapping* (tables and columns
//! to elements), and its *queries and actions*. They are compiled against the live schema; a request names a
//! declared query and never carries query text. This crate returns answers and submits nothing.

mod answer;
mod cell;
mod compile;
mod declare;
mod nearness;
mod rule;
mod source;
mod transform;

pub use answer::{Answered, Checked, Gateway, GatewayError, Looked, Performed};
pub use cell::Cell;
pub use compile::{Problem, ROWS_MAX, SCAN_MAX};
pub use declare::{
    Action, Column, Connector, DeclareError, Element, ElementKind, Encoding, Standard, Transform,
};
pub use source::{
    Connected, Select, Source, SourceError, Sqlite, Write, Written, memory::Memory, odbc, shown, use_tls,
};
pub use transform::Stored;
