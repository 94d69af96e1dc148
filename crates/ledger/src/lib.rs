//! Decides: applies ordered commands to the consortium's state, purely, and yields one event for each.
//!
//! Nothing here reads a clock, a network, a random source or a disk. Time is the block's. State comes through
//! [`Overlay`], which says [`Missing`] when it was not fetched yet; the caller fetches and applies again, so that
//! deciding itself never waits.

mod actions;
mod apply;
mod calls;
mod cases;
mod catalogue;
mod consents;
mod governance;
#[cfg(test)]
mod governance_tests;
#[cfg(test)]
mod list_tests;
mod lists;
mod policy;
#[cfg(test)]
mod policy_tests;
mod sharing;
#[cfg(test)]
mod sharing_tests;
mod state;
#[cfg(test)]
mod subscription_tests;
mod subscriptions;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod undo_tests;

pub use apply::{
    ANCHOR_BYTES_MAX, BlockContext, COMMAND_LIFETIME_MS_MAX, CONFIRM_WITHIN_MS, Rules, first_reads,
};
pub use policy::{POLICY_SCHEMA, Policy, PolicyError, Question, Trial, Tried, Verdict};
pub use sharing::basis_serves;
pub use state::{
    ActionRecord, ActionState, AlertRecord, CallRecord, CallState, CaseRecord, ConsentRecord, Due,
    HeldRecord, Identified, InList, Key, ListRecord, ListState, MatterRecord, Missing, ObjectionRecord,
    OpenProposal, Overlay, PartyRecord, PolicyRecord, Position, ProjectRecord, ProposalRecord, ShareRecord,
    ShareState, Spent, SubscribableRecord, SubscriptionRecord, Unusual,
};
