//! The part of the API by which an administrator says who may sign in to the pages.

use crate::{
    api::{JsonBody, Problem, SECURITY, Shared, now_ms},
    officers::{OfficerBody, OfficerError, OfficerRole},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tracing::info;
use utoipa::ToSchema;

impl From<OfficerError> for Problem {
    fn from(e: OfficerError) -> Self {
        let (status, code) = match &e {
            OfficerError::Unknown => (StatusCode::NOT_FOUND, "unknown_officer"),
            OfficerError::Exists => (StatusCode::CONFLICT, "officer_exists"),
            OfficerError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            OfficerError::Vault(_) => (StatusCode::INTERNAL_SERVER_ERROR, "vault_unavailable"),
            _ => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        };
        Self::new(status, code, e.to_string())
    }
}

/// Everybody who may sign in to this node's pages as an officer.
#[utoipa::path(get, path = "/api/v1/officers", responses((status = 200, body = Vec<OfficerBody>)))]
pub(crate) async fn list(State(served): Shared) -> Result<Json<Vec<OfficerBody>>, Problem> {
    Ok(Json(served.officers.list(now_ms()).await?))
}

/// An officer to be invited.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddBody {
    /// The account's name: 2 to 32 small letters, digits and `-._`, a letter first.
    name: String,
    /// How the officer is named where an act of theirs is on record, 64 bytes at most.
    title: String,
    /// What they may do on the pages.
    roles: BTreeSet<OfficerRole>,
}

/// An invitation.
#[derive(Serialize, ToSchema)]
pub(crate) struct Invitation {
    /// The account's name.
    name: String,
    /// What the officer types on `/signin/first`, once and within three days. It is kept nowhere.
    code: String,
}

/// Invites an officer.
#[utoipa::path(post, path = "/api/v1/officers", request_body = AddBody,
    responses((status = 201, body = Invitation), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn add(
    State(served): Shared,
    JsonBody(body): JsonBody<AddBody>,
) -> Result<(StatusCode, Json<Invitation>), Problem> {
    let AddBody { name, title, roles } = body;
    let code = served.officers.add(&name, &title, roles, now_ms()).await?;
    info!(target: SECURITY, officer = name, "an officer was invited");
    Ok((StatusCode::CREATED, Json(Invitation { name, code })))
}

/// Invites an officer anew, who forgot the passphrase or lost the authenticator: what they had serves no more, and they are signed
/// out everywhere.
#[utoipa::path(post, path = "/api/v1/officers/{name}/invitation", params(("name" = String, Path)),
    responses((status = 201, body = Invitation), (status = 404, body = Problem)))]
pub(crate) async fn reset(
    State(served): Shared,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Invitation>), Problem> {
    let code = served.officers.reset(&name, now_ms()).await?;
    served.sessions.end_of(&name);
    info!(target: SECURITY, officer = name, "an officer was invited anew");
    Ok((StatusCode::CREATED, Json(Invitation { name, code })))
}

/// Removes an officer, who is signed out everywhere. What they did stays on record.
#[utoipa::path(delete, path = "/api/v1/officers/{name}", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn remove(State(served): Shared, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    served.officers.remove(&name).await?;
    served.sessions.end_of(&name);
    info!(target: SECURITY, officer = name, "an officer was removed");
    Ok(StatusCode::NO_CONTENT)
}
