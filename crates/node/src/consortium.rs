//! The API's view of the consortium itself: who is in it, and which changes are proposed.

use crate::api::{Problem, Shared};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use chain::Chain;
use ledger::{Key, OpenProposal, ProposalRecord};
use model::{Change, ProposalId};
use serde::Serialize;
use utoipa::ToSchema;

/// The roster in force.
#[derive(Serialize, ToSchema)]
pub struct RosterBody {
    /// The epoch.
    pub epoch: u64,
    /// The roster, as roster files have it.
    #[schema(value_type = Object)]
    pub roster: model::Roster,
}

/// A proposed change of the consortium.
#[derive(Serialize, ToSchema)]
pub struct ProposalBody {
    /// The proposal.
    pub id: String,
    /// `open`, `adopted` or `expired`.
    pub status: String,
    /// The department that proposed it.
    pub proposer: String,
    /// `put`, `remove`, `set_approvals`, `set_protocol` or `set_sharing`.
    pub change: String,
    /// The department it is about, the new number, or the new rules of sharing.
    pub value: String,
    /// The departments that approved it.
    pub approvals: Vec<String>,
    /// How many are needed.
    pub needed: u32,
    /// Void if not approved by then, in milliseconds since 1970.
    pub expires_ms: u64,
    /// The epoch from which it is in force, once adopted.
    pub in_force_from: Option<u64>,
}

fn body(chain: &Chain, id: ProposalId, record: ProposalRecord) -> ProposalBody {
    let (change, value) = match &record.change {
        Change::Put(member, _) => ("put", member.id.to_string()),
        Change::Remove(id) => ("remove", id.to_string()),
        Change::SetApprovals(n) => ("set_approvals", n.to_string()),
        Change::SetProtocol(n) => ("set_protocol", n.to_string()),
        Change::SetSharing(rules) => ("set_sharing", serde_json::to_string(rules).unwrap_or_default()),
    };
    let status = match record.adopted {
        Some(_) => "adopted",
        None if record.expires_ms < chain.host().now_ms() => "expired",
        None => "open",
    };
    ProposalBody {
        id: id.to_string(),
        status: status.into(),
        proposer: record.proposer.to_string(),
        change: change.into(),
        value,
        approvals: record.approvals.iter().map(ToString::to_string).collect(),
        needed: chain.roster().1.approvals,
        expires_ms: record.expires_ms,
        in_force_from: record.adopted,
    }
}

#[utoipa::path(get, path = "/api/v1/roster", responses((status = 200, body = RosterBody)))]
pub(crate) async fn roster(State(served): Shared) -> Json<RosterBody> {
    let (epoch, roster) = served.flow.chain().roster();
    Json(RosterBody { epoch, roster: (*roster).clone() })
}

#[utoipa::path(get, path = "/api/v1/proposals", responses((status = 200, body = Vec<ProposalBody>)))]
pub(crate) async fn proposals(State(served): Shared) -> Result<Json<Vec<ProposalBody>>, Problem> {
    let chain = served.flow.chain();
    let open: Vec<OpenProposal> = chain.record(&Key::OpenProposals).await?.unwrap_or_default();
    let mut list = Vec::with_capacity(open.len());
    for OpenProposal { id, .. } in open {
        if let Some(record) = chain.record(&Key::Proposal(id)).await? {
            list.push(body(chain, id, record));
        }
    }
    Ok(Json(list))
}

#[utoipa::path(get, path = "/api/v1/proposals/{id}", params(("id" = String, Path)),
    responses((status = 200, body = ProposalBody), (status = 404, body = Problem)))]
pub(crate) async fn proposal(
    State(served): Shared,
    Path(id): Path<String>,
) -> Result<Json<ProposalBody>, Problem> {
    let chain = served.flow.chain();
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "not_found", "no such proposal is final here");
    let id: ProposalId = id.parse().map_err(|_| unknown())?;
    let record: Option<ProposalRecord> = chain.record(&Key::Proposal(id)).await?;
    record.map(|record| Json(body(chain, id, record))).ok_or_else(unknown)
}
