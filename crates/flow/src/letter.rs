//! What nodes send each other off the ledger: sealed requests, sealed payloads, and asking for them again.

use borsh::{BorshDeserialize, BorshSerialize};
use crypto::{Opening, Salt};
use model::{ActionId, CallId, CaseId, Commitment, DepartmentId, FieldId, StepId, Suite};
use std::collections::BTreeMap;

/// A message between two nodes. Any of them may be lost, repeated or forged; none is believed before the ledger agrees.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum Message {
    /// Asker to holder: what call this is, sealed.
    Request { call: CallId, sealed: Vec<u8> },
    /// Asker to holder: the payload has not come; send it again.
    Fetch { call: CallId },
    /// Holder to asker: the payload, released because its record is final.
    Payload { call: CallId, sealed: Vec<u8> },
    /// Handler to performer: what action this is, sealed.
    Task { action: ActionId, sealed: Vec<u8> },
    /// Performer to handler: what the action returned, sealed.
    Result { action: ActionId, sealed: Vec<u8> },
    /// Handler to performer: what the action returned has not come; send it again.
    FetchResult { action: ActionId },
    /// Asker to holder: what the calls of a list are, each sealed by itself.
    Requests(Vec<(CallId, Vec<u8>)>),
    /// Holder to asker: payloads that became final together, each sealed by itself.
    Payloads(Vec<(CallId, Vec<u8>)>),
}

/// What a sealed request holds: about whom, with which parameters, and the openings that bind it to the ledger.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Request {
    pub(crate) salt: Salt,
    pub(crate) subject: String,
    pub(crate) parameters: BTreeMap<FieldId, String>,
    /// The opening of the party's commitment in the case, where the call rests on that party's word.
    pub(crate) party: Option<Opening>,
}

impl Request {
    /// The subject commitment of the call.
    pub(crate) fn commitment(&self, suite: Suite) -> Commitment {
        proof::audit::subject_commitment(suite, &self.salt, &self.subject, &self.parameters)
    }
}

/// What a sealed task holds.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Task {
    pub(crate) salt: Salt,
    pub(crate) parameters: BTreeMap<FieldId, String>,
}

impl Task {
    /// The commitment to the parameters.
    pub(crate) fn commitment(&self, suite: Suite) -> Commitment {
        crypto::commit(suite, &self.salt, "action", &model::encode(&self.parameters))
    }
}

/// What a sealed payload holds.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Payload {
    pub(crate) call: CallId,
    pub(crate) as_of_ms: u64,
    pub(crate) openings: Vec<Opening>,
}

/// What an action returned.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct ActionResult {
    pub(crate) salt: Salt,
    pub(crate) values: BTreeMap<FieldId, String>,
}

impl ActionResult {
    /// The values by name.
    pub(crate) fn into_values(self) -> BTreeMap<String, String> {
        self.values.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    /// The commitment to the result.
    pub(crate) fn commitment(&self, suite: Suite) -> Commitment {
        crypto::commit(suite, &self.salt, "result", &model::encode(&self.values))
    }
}

/// What seals of each kind are bound to.
pub(crate) fn request_context(
    case: CaseId,
    step: &StepId,
    asker: &DepartmentId,
    holder: &DepartmentId,
) -> Vec<u8> {
    model::encode(&("request", case, step, asker, holder))
}

pub(crate) fn payload_context(call: CallId, asker: &DepartmentId) -> Vec<u8> {
    model::encode(&("payload", call, asker))
}

pub(crate) fn result_context(action: ActionId, handler: &DepartmentId) -> Vec<u8> {
    model::encode(&("result", action, handler))
}

/// The hash by which the ledger names sealed bytes.
pub(crate) fn sealed_hash(suite: Suite, sealed: &[u8]) -> model::Digest {
    crypto::hash(suite, "tongban/sealed/1", &[sealed])
}

/// Reads a letter and what it may hold; for fuzzing and hostile-input tests.
pub fn check_letter_bytes(bytes: &[u8]) {
    if let Ok(message) = model::decode::<Message>(bytes) {
        assert_eq!(model::encode(&message), bytes, "one letter has one encoding");
    }
    let _ = model::decode::<Request>(bytes).map(|r| r.commitment(Suite::National));
    let _ = model::decode::<Task>(bytes).map(|t| t.commitment(Suite::National));
    let _ = model::decode::<Payload>(bytes);
    let _ = model::decode::<ActionResult>(bytes).map(|r| r.commitment(Suite::National));
}
