//! Where personal data lives: encrypted, keyed by place, erasable, never on the ledger.

use std::{future::Future, pin::Pin};

/// A future a vault returns.
pub type VaultFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, VaultError>> + Send + 'a>>;

/// The vault cannot be read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the vault cannot be used: {0}")]
pub struct VaultError(pub String);

/// A department's store of personal data. What was written survives a crash of the process; writing the same place twice keeps the
/// last value; reading what was erased gives nothing.
pub trait Vault: Send + Sync {
    /// Keeps a value.
    fn put<'a>(&'a self, place: &'a str, value: &'a [u8]) -> VaultFuture<'a, ()>;
    /// Reads a value.
    fn get<'a>(&'a self, place: &'a str) -> VaultFuture<'a, Option<Vec<u8>>>;
    /// The places that begin with a prefix, in order.
    fn list<'a>(&'a self, prefix: &'a str) -> VaultFuture<'a, Vec<String>>;
    /// Erases every value whose place begins with a prefix; says how many.
    fn erase<'a>(&'a self, prefix: &'a str) -> VaultFuture<'a, u64>;
}
