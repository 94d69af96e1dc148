//! Follows events, performs the steps due at this node and submits what comes of them.
//!
//! Deciding what is due is synchronous and pure ([`case`]); performing it is another loop ([`Flow`]). A node plays two
//! parts: as holder it answers calls and performs actions, as handler it drives the cases of its matters.

pub mod case;
mod catalogue;
mod erase;
mod evidence;
pub mod graph;
mod handler;
mod holder;
mod letter;
pub mod lint;
mod lists;
mod notices;
mod package;
mod publication;
mod receipts;
mod run;
pub mod scenario;
mod sharing;
pub mod simulate;
mod statement;
mod steps;
mod subscriptions;
mod terminals;
mod undo;
mod vault;
mod view;

pub use catalogue::{Catalogue, Listed};
pub use erase::{ERASED_TOPIC, Kept};
pub use evidence::Evidence;
pub use handler::{CaseError, NewCase, Person};
pub use letter::check_letter_bytes;
pub use lint::lint;
pub use lists::{List, ListWait};
pub use notices::{Happened, NOTICE_MS_MAX, Notice};
pub use package::{Basis, FormField, Listing, Package, PackageError, PartyRole, Rule, Step, StepKind};
pub use receipts::receipt_name;
pub use run::{Flow, Settings};
pub use sharing::HeldAnswers;
pub use statement::{StatementError, Withholding};
pub use subscriptions::Subscription;
pub use terminals::Terminal;
pub use vault::{Vault, VaultError, VaultFuture};
pub use view::{CaseView, local_minute};
