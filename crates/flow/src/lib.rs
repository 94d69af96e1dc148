//! Follows events, performs the steps due at this node and submits what comes of them.
//!
//! Deciding what is due is synchronous and pure ([`case`]); performing it is another loop ([`Flow`]). A node plays two
//! parts: as holder it answers calls and performs actions, as handler it drives the cases of its matters.

pub mod case;
mod catalogue;
mod handler;
mod holder;
mod letter;
mod package;
mod receipts;
mod run;
mod sharing;
mod statement;
mod steps;
mod vault;
mod view;

pub use catalogue::Catalogue;
pub use handler::{CaseError, NewCase, Person};
pub use letter::check_letter_bytes;
pub use package::{Basis, Package, PackageError, Step, StepKind};
pub use receipts::receipt_name;
pub use run::{Flow, Settings};
pub use sharing::HeldAnswers;
pub use statement::{StatementError, Withholding};
pub use vault::{Vault, VaultError, VaultFuture};
pub use view::{CaseView, local_minute};
