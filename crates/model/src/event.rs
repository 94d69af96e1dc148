//! Events: every command yields exactly one, accepted or refused.

use crate::*;
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Outcome {
    /// It took effect.
    Accepted(Fact),
    /// It took none, and this is why.
    Refused(Refusal),
}

/// What the ledger adds to an accepted command.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Fact {
    /// Nothing beyond the command.
    Recorded,
    /// A call was granted; the asker's gapless call number, and the case's, both from 1.
    Granted(u64, u32),
    /// A call was answered; the holder's gapless answer number, from 1.
    Answered(u64),
    /// A proposed change has the approvals it needs, and is made when this epoch begins.
    Adopted(u64),
    /// A case was settled; how many calls had been granted in it, and how many refused.
    Settled(u32, u32),
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident => $code:literal),* $(,)?) => {
        /// Why the ledger refused a command.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Refusal { $($(#[$doc])* $name),* }
        impl Refusal {
            /// The stable code used in APIs, pages and logs.
            pub fn code(self) -> &'static str { match self { $(Self::$name => $code),* } }
            /// Every refusal.
            pub const ALL: &'static [Refusal] = &[$(Self::$name),*];
        }
    };
}

refusals! {
    /// The command's expiry lies before the block's time, or too far after it.
    Expired => "expired",
    /// The command is longer or holds more than its kind allows.
    Oversized => "oversized",
    /// The signer is not responsible for this.
    NotYours => "not_yours",
    /// The version is not the one that follows.
    WrongVersion => "wrong_version",
    /// No such resource, or not published.
    UnknownResource => "unknown_resource",
    /// The resource has no such field or predicate.
    UnknownField => "unknown_field",
    /// The catalogue says this is not shared.
    NotShared => "not_shared",
    /// No such matter or version.
    UnknownMatter => "unknown_matter",
    /// The matter declares no such step for this signer.
    UndeclaredStep => "undeclared_step",
    /// No such case.
    UnknownCase => "unknown_case",
    /// The case is closed.
    CaseClosed => "case_closed",
    /// The same application is already open.
    Duplicate => "duplicate",
    /// The case has no such party, or its commitment is another.
    WrongParty => "wrong_party",
    /// The party has not been identified.
    NotIdentified => "not_identified",
    /// The terminal is not enrolled with the signer, or revoked.
    UnknownTerminal => "unknown_terminal",
    /// A signature inside the command does not verify.
    BadSignature => "bad_signature",
    /// The consent is missing, of another case or party, or does not cover this.
    NoConsent => "no_consent",
    /// The consent has expired.
    ConsentExpired => "consent_expired",
    /// The consent was withdrawn.
    ConsentWithdrawn => "consent_withdrawn",
    /// The party already gave a consent in this case.
    ConsentRepeated => "consent_repeated",
    /// The consent allows each recipient, resource and field once.
    AlreadyUsed => "already_used",
    /// The holder has not approved this statutory basis, or it has expired.
    BasisNotApproved => "basis_not_approved",
    /// No such call.
    UnknownCall => "unknown_call",
    /// The call is in another state.
    WrongState => "wrong_state",
    /// The answer does not have one commitment for each field asked.
    WrongShape => "wrong_shape",
    /// The deadline has passed.
    TooLate => "too_late",
    /// The deadline has not yet passed.
    TooEarly => "too_early",
    /// No such action.
    UnknownAction => "unknown_action",
    /// An adverse decision needs a person's confirmation.
    Unconfirmed => "unconfirmed",
    /// No such proposal, or it has expired.
    UnknownProposal => "unknown_proposal",
    /// The department has approved this before.
    ApprovedBefore => "approved_before",
    /// The consortium could not go on with this change: too few validators, equal keys, a foreign suite.
    UnfitChange => "unfit_change",
    /// The holder's budget for today is used up.
    OverBudget => "over_budget",
    /// An unusual use was not explained in time.
    Unexplained => "unexplained",
    /// No such project, or it has ended.
    UnknownProject => "unknown_project",
    /// No such share request.
    UnknownShare => "unknown_share",
    /// A text for everybody is empty, too long, or holds what looks like a number of a person.
    UnfitText => "unfit_text",
    /// No coordinator is named who could rule on it.
    NoCoordinator => "no_coordinator",
    /// No such subscription, or it has ended.
    UnknownSubscription => "unknown_subscription",
    /// The holder's policy does not permit it, or forbids it.
    PolicyForbids => "policy_forbids",
    /// The text is no policy, or larger than one may be.
    UnfitPolicy => "unfit_policy",
    /// No such list.
    UnknownList => "unknown_list",
    /// The step is asked by lists, and the case is in none its holder agreed to, or that has expired.
    NotListed => "not_listed",
}

/// A command as the ledger ordered it, with what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The block.
    pub height: u64,
    /// The position in the block, from 0.
    pub index: u32,
    /// The block's time in milliseconds since 1970.
    pub time_ms: u64,
    /// The command's ID.
    pub id: CommandId,
    /// The command.
    pub command: SignedCommand,
    /// What came of it.
    pub outcome: Outcome,
}

impl Event {
    /// What the block's event root commits to: position, signed bytes, outcome.
    pub fn leaf(index: u32, signed: &[u8], outcome: &[u8]) -> Vec<u8> {
        let mut leaf = Vec::with_capacity(signed.len() + outcome.len() + 12);
        leaf.extend_from_slice(&index.to_le_bytes());
        leaf.extend_from_slice(&(signed.len() as u32).to_le_bytes());
        leaf.extend_from_slice(signed);
        leaf.extend_from_slice(&(outcome.len() as u32).to_le_bytes());
        leaf.extend_from_slice(outcome);
        leaf
    }
}
