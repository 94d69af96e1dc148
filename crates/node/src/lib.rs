//! Serves: configuration, keys, vault, HTTP API and pages of one department's node, and wires its parts.

mod api;
mod config;
mod demo_door;
mod node;
mod pages;
mod session;
mod vault;

pub use api::openapi;
pub use config::{Config, ConfigError};
pub use demo_door::{DemoDoor, Persona};
pub use node::{Node, StartError, read_genesis};
pub use vault::SqliteVault;
