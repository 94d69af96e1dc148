//! The part of the API that whoever keeps the ledger for years uses: its archive, pruning what the archive holds, and what a holder
//! owes people and auditors.

use crate::api::{JsonBody, Problem, Shared};
use axum::{
    Json,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use chain::PruneError;
use flow::StatementError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How many bytes of records one answer carries, about.
const ARCHIVE_BYTES: usize = 4 << 20;

#[derive(Deserialize)]
pub(crate) struct ArchiveQuery {
    from: u64,
    to: Option<u64>,
}

/// Final blocks with their proofs, as archives keep them, from a height on and up to another; as many as fit.
#[utoipa::path(get, path = "/api/v1/archive",
    params(("from" = u64, Query), ("to" = Option<u64>, Query)),
    responses((status = 200, content_type = "application/octet-stream"), (status = 400, body = Problem)))]
pub(crate) async fn archive(
    State(served): Shared,
    Query(query): Query<ArchiveQuery>,
) -> Result<Response, Problem> {
    let chain = served.flow.chain();
    let to = query.to.unwrap_or(u64::MAX).min(chain.height());
    let mut records = Vec::new();
    for height in query.from.max(1)..=to {
        let Some(record) = chain.archived(height).await? else { break };
        records.extend(record);
        if records.len() >= ARCHIVE_BYTES {
            break;
        }
    }
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], records).into_response())
}

/// What to prune.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PruneBody {
    /// Blocks below this height.
    below: u64,
    /// Only say what would be pruned.
    #[serde(default)]
    dry_run: bool,
}

/// What is pruned.
#[derive(Serialize, ToSchema)]
pub(crate) struct Pruned {
    /// Blocks below this height.
    below: u64,
}

/// Drops blocks from the node's ledger folder that its archive holds; the epoch under way and the one before stay.
#[utoipa::path(post, path = "/api/v1/prune", request_body = PruneBody,
    responses((status = 200, body = Pruned), (status = 409, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn prune(
    State(served): Shared,
    JsonBody(body): JsonBody<PruneBody>,
) -> Result<Json<Pruned>, Problem> {
    let chain = served.flow.chain().clone();
    // an index may have to be written first
    let pruned = tokio::task::spawn_blocking(move || match body.dry_run {
        true => chain.prunable(body.below),
        false => chain.prune(body.below),
    });
    let pruned = pruned.await.map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "pruning failed; the log says more")
    })?;
    let below = pruned.map_err(|e| {
        let (status, code) = match &e {
            PruneError::NoArchive => (StatusCode::CONFLICT, "no_archive"),
            PruneError::Archive(..) => (StatusCode::CONFLICT, "archive"),
            PruneError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
        };
        Problem::new(status, code, e.to_string())
    })?;
    Ok(Json(Pruned { below }))
}

/// About whom a statement is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatementBody {
    /// The person's identifier. Whoever asks was identified as that person.
    person: String,
}

impl From<StatementError> for Problem {
    fn from(e: StatementError) -> Self {
        let (status, code) = match &e {
            StatementError::Chain(_) | StatementError::Vault(_) | StatementError::Seal(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
            StatementError::Forgotten(_) => (StatusCode::CONFLICT, "forgotten"),
            StatementError::Stranger(_) => (StatusCode::NOT_FOUND, "unknown_department"),
            StatementError::Refused(code) => (StatusCode::CONFLICT, *code),
        };
        Self::new(status, code, e.to_string())
    }
}

/// States all this department answered about a person, as a file that `tongban verify` takes; its hash is anchored on the ledger.
#[utoipa::path(post, path = "/api/v1/statements", request_body = StatementBody,
    responses((status = 200, content_type = "application/json"), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn statement(
    State(served): Shared,
    JsonBody(body): JsonBody<StatementBody>,
) -> Result<Response, Problem> {
    if body.person.is_empty() || body.person.len() > 64 {
        let detail = "an identifier has 1 to 64 bytes";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail));
    }
    let statement = served.flow.state(&body.person).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], statement.to_bytes()).into_response())
}

#[derive(Deserialize)]
pub(crate) struct OpeningsQuery {
    auditor: String,
}

/// The openings of all this department's answers, sealed to an auditor's department.
#[utoipa::path(get, path = "/api/v1/openings", params(("auditor" = String, Query)),
    responses((status = 200, content_type = "application/octet-stream"), (status = 404, body = Problem)))]
pub(crate) async fn openings(
    State(served): Shared,
    Query(query): Query<OpeningsQuery>,
) -> Result<Response, Problem> {
    let auditor = query.auditor.parse().map_err(|_| {
        Problem::new(StatusCode::NOT_FOUND, "unknown_department", "there is no such department")
    })?;
    let sealed = served.flow.openings_for(&auditor).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], sealed).into_response())
}

/// The last header of the newest epoch that is over, to be published elsewhere.
#[utoipa::path(get, path = "/api/v1/checkpoint",
    responses((status = 200, content_type = "application/json"), (status = 404, body = Problem)))]
pub(crate) async fn checkpoint(State(served): Shared) -> Result<Json<proof::Checkpoint>, Problem> {
    let checkpoint = served.flow.chain().checkpoint().await?;
    checkpoint.map(Json).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "first_epoch",
            "there is no checkpoint before the first epoch is over",
        )
    })
}

/// The most heights one link is made for: an access log's.
const LINKED_MAX: usize = 1_100;

/// What to link.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkBody {
    /// The heights of a receipt's events.
    heights: Vec<u64>,
    /// The height of the checkpoint.
    checkpoint: u64,
}

/// Shows that blocks come before a checkpoint, for `tongban verify --link`.
#[utoipa::path(post, path = "/api/v1/links", request_body = LinkBody,
    responses((status = 200, content_type = "application/json"), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn link(
    State(served): Shared,
    JsonBody(body): JsonBody<LinkBody>,
) -> Result<Json<proof::Link>, Problem> {
    if body.heights.len() > LINKED_MAX {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            "too many heights for one link",
        ));
    }
    Ok(Json(served.flow.chain().link(&body.heights, body.checkpoint).await?))
}
