//! The part of the API about final blocks and their records, as the public may see them.

use crate::api::{Problem, Shared, bad};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use chain::Chain;
use model::{Body, Event, Outcome};
use serde::Serialize;
use utoipa::ToSchema;

/// A final block as the public may see it.
#[derive(Serialize, ToSchema)]
pub struct BlockBody {
    /// The height.
    pub height: u64,
    /// The time in milliseconds since 1970.
    pub time_ms: u64,
    /// The hash of the header.
    pub hash: String,
    /// Its events: command ID, signer, kind and outcome.
    pub events: Vec<EventBody>,
}

/// An event as the public may see it.
#[derive(Serialize, ToSchema)]
pub struct EventBody {
    /// The command.
    pub id: String,
    /// The department that signed it.
    pub signer: String,
    /// Its kind.
    pub kind: String,
    /// `accepted`, or the refusal's code.
    pub outcome: String,
}

/// How many blocks back the newest records are looked for, and how many are kept.
const BLOCKS_BACK: u64 = 300;
const RECORDS_KEPT: usize = 50;

/// The newest records, newest first, as far as they were asked for: each block is read once, however many look.
#[derive(Default)]
pub(crate) struct Newest {
    height: u64,
    events: Vec<Event>,
}

impl Newest {
    /// The newest records as of now.
    pub(crate) async fn now(&mut self, chain: &Chain) -> &[Event] {
        let tip = chain.height();
        let mut newer = Vec::new();
        if self.height < tip.saturating_sub(BLOCKS_BACK) {
            // nobody looked for long: what was kept would follow a hole
            (self.height, self.events) = (tip.saturating_sub(BLOCKS_BACK), vec![]);
        }
        for height in (self.height + 1..=tip).rev() {
            if newer.len() >= RECORDS_KEPT {
                break;
            }
            let Ok(block) = chain.block_events(height).await else {
                self.events.clear();
                break;
            };
            newer.extend(block.events.into_iter().rev());
        }
        newer.append(&mut self.events);
        newer.truncate(RECORDS_KEPT);
        (self.height, self.events) = (tip, newer);
        &self.events
    }
}

pub(crate) fn kind_of(body: &Body) -> &'static str {
    match body {
        Body::PublishResource(_) => "publish_resource",
        Body::PublishMatter(_) => "publish_matter",
        Body::ApproveBasis(_) => "approve_basis",
        Body::EnrolTerminal(_) => "enrol_terminal",
        Body::OpenCase(_) => "open_case",
        Body::Identify(_) => "identify",
        Body::GiveConsent(_) => "give_consent",
        Body::WithdrawConsent(_) => "withdraw_consent",
        Body::Ask(_) => "ask",
        Body::Answer(_) => "answer",
        Body::Confirm(_) => "confirm",
        Body::Lapse(_) => "lapse",
        Body::RequestAction(_) => "request_action",
        Body::ReportAction(_) => "report_action",
        Body::Decide(_) => "decide",
        Body::SettleCase(_) => "settle_case",
        Body::Anchor(_) => "anchor",
        Body::ResumeCase(_) => "resume_case",
        Body::Propose(_) => "propose",
        Body::Approve(_) => "approve",
        Body::RotateVote(_) => "rotate_vote",
        Body::RegisterProject(_) => "register_project",
        Body::EndProject(_) => "end_project",
        Body::RequestShare(_) => "request_share",
        Body::ReplyShare(_) => "reply_share",
        Body::WithdrawShare(_) => "withdraw_share",
        Body::DisputeShare(_) => "dispute_share",
        Body::RuleShare(_) => "rule_share",
        Body::RevokeBasis(_) => "revoke_basis",
        Body::SetBudget(_) => "set_budget",
        Body::ExplainAlert(_) => "explain_alert",
        Body::Object(_) => "object",
        Body::AnswerObjection(_) => "answer_objection",
        Body::DeclareSubscriptions(_) => "declare_subscriptions",
        Body::DeclareUndo(_) => "declare_undo",
        Body::DescribeResource(_) => "describe_resource",
        Body::DeclareListed(_) => "declare_listed",
        Body::ProposeList(_) => "propose_list",
        Body::AnswerList(_) => "answer_list",
        Body::Subscribe(_) => "subscribe",
        Body::NoteChange(_) => "note_change",
        Body::EndSubscription(_) => "end_subscription",
        Body::CountCase(_) => "count_case",
        Body::SetPolicy(_) => "set_policy",
    }
}

#[utoipa::path(get, path = "/api/v1/blocks/{height}", params(("height" = u64, Path)),
    responses((status = 200, body = BlockBody), (status = 404, body = Problem)))]
pub(crate) async fn block(
    State(served): Shared,
    Path(height): Path<String>,
) -> Result<Json<BlockBody>, Problem> {
    let chain = served.flow.chain();
    let height = height.parse().map_err(|_| bad("a height is a whole number"))?;
    if height == 0 || height > chain.height() {
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", "no such block is final here"));
    }
    let block = chain.block_events(height).await?;
    let event = |e: &Event| EventBody {
        id: e.id.to_string(),
        signer: e.command.command.signer.to_string(),
        kind: kind_of(&e.command.command.body).into(),
        outcome: match &e.outcome {
            Outcome::Accepted(_) => "accepted".into(),
            Outcome::Refused(refusal) => refusal.code().into(),
        },
    };
    Ok(Json(BlockBody {
        height,
        time_ms: block.time_ms,
        hash: block.hash.to_string(),
        events: block.events.iter().map(event).collect(),
    }))
}
