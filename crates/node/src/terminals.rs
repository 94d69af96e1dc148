//! The part of the API about this department's terminals, and the one way from a terminal's word to the ledger.

use crate::api::{Served, Shared};
use axum::{Json, extract::State};
use flow::CaseError;
use model::{Assertion, IdentityMethod};
use serde::Serialize;
use utoipa::ToSchema;

/// A terminal of this department.
#[derive(Serialize, ToSchema)]
pub(crate) struct TerminalBody {
    /// Its key, as `tongban terminal key` prints it.
    key: String,
    /// Whether it may vouch for people.
    active: bool,
    /// How many people it identified today.
    today: u32,
    /// How many it may, with their document or face alone; none where nothing limits it.
    per_day: Option<u32>,
}

impl Served {
    /// Records that a terminal identified a party, unless it did so too often today. Who has a key of their own on a device, or was
    /// vouched for by an identity provider, is not counted against it: what a clerk would sign for them shows.
    pub(crate) async fn identify(&self, assertion: Assertion, signature: [u8; 64]) -> Result<(), CaseError> {
        let counted = assertion.method.is_terminals_word();
        if assertion.method != IdentityMethod::Passkey && assertion.signer != assertion.terminal {
            let message = "whoever has no key of their own signs on the terminal's own pad".to_owned();
            return Err(CaseError::Invalid { field: "signer".into(), message });
        }
        if let Some(most) = self.terminal_per_day.filter(|_| counted) {
            let terminals = self.flow.terminals();
            if terminals.iter().any(|t| t.key == assertion.terminal && t.today >= most) {
                return Err(CaseError::TerminalLimit(most));
            }
        }
        self.flow.identify(assertion, signature).await
    }
}

#[utoipa::path(get, path = "/api/v1/terminals", responses((status = 200, body = Vec<TerminalBody>)))]
pub(crate) async fn list(State(served): Shared) -> Json<Vec<TerminalBody>> {
    let terminals = served.flow.terminals().into_iter().map(|t| TerminalBody {
        key: t.key.to_string(),
        active: t.active,
        today: t.today,
        per_day: served.terminal_per_day,
    });
    Json(terminals.collect())
}
