//! The part of the API about lists: what this department proposed, and what it was proposed as holder.

use crate::api::{Problem, Shared};
use axum::{Json, extract::State, http::StatusCode};
use flow::List;
use model::{MatterId, StepId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most lists of one answer.
const LISTS_MAX: usize = 500;

/// A list of cases whose calls of one step are asked together.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListBody {
    /// The list.
    id: String,
    /// Who proposed it.
    asker: String,
    /// Who is asked.
    holder: String,
    /// The matter and its version.
    matter: String,
    version: u32,
    /// The step.
    step: String,
    /// Out of which resource.
    resource: String,
    /// How many cases it has.
    cases: u32,
    /// When it was proposed, in milliseconds since 1970.
    proposed_ms: u64,
    /// The last moment a call may be asked under it.
    until_ms: u64,
    /// Where it stands: `proposed`, `agreed`, `refused` or `expired`.
    standing: &'static str,
    /// Why it was refused.
    reason: Option<String>,
}

fn body(list: List, now_ms: u64) -> ListBody {
    let standing = match list.answer {
        Some((_, Err(_))) => "refused",
        _ if list.until_ms < now_ms => "expired",
        None => "proposed",
        Some((_, Ok(()))) => "agreed",
    };
    ListBody {
        id: list.id.to_string(),
        asker: list.asker.to_string(),
        holder: list.holder.to_string(),
        matter: list.matter.0.to_string(),
        version: list.matter.1,
        step: list.step.to_string(),
        resource: list.resource.to_string(),
        cases: list.cases,
        proposed_ms: list.proposed_ms,
        until_ms: list.until_ms,
        standing,
        reason: list.answer.and_then(|(_, answer)| answer.err()).map(|code| code.to_string()),
    }
}

/// Lists this department proposed or was proposed in the last ninety days, newest first: 500 at most.
#[utoipa::path(get, path = "/api/v1/lists", responses((status = 200, body = Vec<ListBody>)))]
pub(crate) async fn list(State(served): Shared) -> Json<Vec<ListBody>> {
    let now_ms = crate::api::now_ms();
    Json(served.flow.lists().into_iter().take(LISTS_MAX).map(|list| body(list, now_ms)).collect())
}

/// Which cases are to be proposed now.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProposeBody {
    /// The matter.
    #[schema(value_type = String)]
    matter: MatterId,
    /// The step.
    #[schema(value_type = String)]
    step: StepId,
}

/// How many cases gather, and are proposed.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProposedBody {
    /// The cases, in lists of as many as the package says; none where all that wait are in a list before.
    cases: usize,
}

/// Has the cases that gather for a step proposed now, however few they are.
#[utoipa::path(post, path = "/api/v1/lists", request_body = ProposeBody,
    responses((status = 202, body = ProposedBody), (status = 404, body = Problem)))]
pub(crate) async fn propose(
    State(served): Shared,
    crate::api::JsonBody(asked): crate::api::JsonBody<ProposeBody>,
) -> Result<(StatusCode, Json<ProposedBody>), Problem> {
    let cases = served.flow.propose_now(&asked.matter, &asked.step)?;
    Ok((StatusCode::ACCEPTED, Json(ProposedBody { cases })))
}
