//! Serves: configuration, keys, vault, HTTP API and pages of one department's node, and wires its parts.

mod accounts;
mod api;
mod cases;
mod config;
mod consortium;
mod demo_door;
mod face;
mod keep;
mod lists;
mod matters;
mod node;
mod notices;
mod officers;
mod pages;
mod portal;
mod publications;
mod reconcile;
mod records;
mod resources;
mod serve;
mod session;
mod sharing;
mod subscriptions;
mod terminals;
mod tokens;
mod vault;
mod votes;

pub use api::{check_body_bytes, openapi};
pub use config::{Config, ConfigError};
pub use demo_door::{DemoDoor, Persona};
pub use node::{Node, StartError, read_genesis, read_roster};
pub use portal::PortalSettings;
pub use vault::SqliteVault;
