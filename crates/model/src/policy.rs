//! A holder's policy over its own resources: what it lets be asked for, beyond what consents, statutes and budgets already say.

use borsh::{BorshDeserialize, BorshSerialize};

/// The protocol version from which holders may have policies.
pub const POLICY_PROTOCOL: u32 = 5;

/// The longest text of a policy, in bytes.
pub const POLICY_BYTES_MAX: usize = 16 * 1024;

/// See [`Body::SetPolicy`](crate::Body::SetPolicy).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SetPolicy {
    /// Grows by one with every text.
    pub version: u32,
    /// The whole of it, in Cedar; empty: there is none any more.
    pub text: String,
}
