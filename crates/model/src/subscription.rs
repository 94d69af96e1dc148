//! Subscriptions (订阅): a department learns that what it was told of one person has changed. Never of a table: of one step of one
//! case, about the subject of a call that was granted and opened, and under the same consent or statutory basis as that call.
//!
//! What is told is only *that* something changed. What it is now, the asker asks for as ever: [`Ask`](crate::Ask), granted or
//! refused, answered, sealed, opened, with a receipt each.

use crate::*;
use borsh::{BorshDeserialize, BorshSerialize};

/// The protocol version from which there are subscriptions.
pub const SUBSCRIPTION_PROTOCOL: u32 = 5;

/// The longest a subscription may last, in days.
pub const SUBSCRIPTION_DAYS_MAX: u32 = 366;

/// See [`Body::DeclareSubscriptions`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DeclareSubscriptions {
    /// The matter, published by the signer before.
    pub matter: MatterId,
    /// Its version.
    pub version: u32,
    /// The answers that may be subscribed to.
    pub steps: Vec<Subscribable>,
}

/// An answer that may be subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Subscribable {
    /// The call step.
    pub step: StepId,
    /// For how many days at most.
    pub days: u32,
    /// Whether also after the case's end: only what it is for then still goes on.
    pub after_end: bool,
}

/// See [`Body::Subscribe`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Subscribe {
    /// The call whose answer it is about: the signer's, opened, and the newest of its step.
    pub call: CallId,
    /// The last moment it serves, in milliseconds since 1970; no later than the consent or approval of that call.
    pub until_ms: u64,
}

/// See [`Body::NoteChange`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct NoteChange {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The how-manyeth change it is, from 1: a repetition is refused.
    pub number: u32,
}

/// See [`Body::EndSubscription`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EndSubscription {
    /// The subscription, of the signer as asker or as holder.
    pub subscription: SubscriptionId,
}

/// See [`Body::CountCase`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CountCase {
    /// The case, which is over.
    pub case: CaseId,
}
