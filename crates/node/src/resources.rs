//! The part of the API about data resources: the catalogue on the ledger, and how this department's own connector fares.

use crate::api::{Problem, Shared};
use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use utoipa::ToSchema;

/// The most entries of one answer.
const ENTRIES_MAX: usize = 500;

#[derive(Deserialize)]
pub(crate) struct Search {
    #[serde(default)]
    q: String,
    limit: Option<usize>,
    #[serde(default)]
    offset: usize,
}

/// Catalogue entries.
#[derive(Serialize, ToSchema)]
pub(crate) struct Resources {
    /// How many there are.
    total: usize,
    /// Those from `offset` on, by name, as their holders published them; at most 500.
    #[schema(value_type = Vec<Object>)]
    resources: Vec<model::Resource>,
}

/// The catalogue: entries with all words of `q` in their name, title, holder or fields.
#[utoipa::path(get, path = "/api/v1/resources", params(("q" = Option<String>, Query), ("limit" = Option<usize>, Query), ("offset" = Option<usize>, Query)),
    responses((status = 200, body = Resources)))]
pub(crate) async fn list(State(served): Shared, Query(search): Query<Search>) -> Json<Resources> {
    let most = search.limit.unwrap_or(ENTRIES_MAX).min(ENTRIES_MAX);
    let (total, resources) = served.flow.catalogue().search(&search.q, search.offset, most);
    let resources = resources.iter().map(|r| (**r).clone()).collect();
    Json(Resources { total, resources })
}

/// One catalogue entry.
#[utoipa::path(get, path = "/api/v1/resources/{id}", params(("id" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Problem)))]
pub(crate) async fn show(
    State(served): Shared,
    Path(id): Path<String>,
) -> Result<Json<model::Resource>, Problem> {
    let found = id.parse().ok().and_then(|id| served.flow.resource(&id));
    let missing =
        || Problem::new(StatusCode::NOT_FOUND, "unknown_resource", "there is no such catalogue entry");
    found.map(|found| Json((*found).clone())).ok_or_else(missing)
}

/// What a catalogue entry is described as: its core metadata (GB/T 21063.3).
#[utoipa::path(get, path = "/api/v1/resources/{id}/description", params(("id" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Problem)))]
pub(crate) async fn description(
    State(served): Shared,
    Path(id): Path<String>,
) -> Result<Json<model::DescribeResource>, Problem> {
    let listed = id.parse().ok().and_then(|id| served.flow.catalogue().listed(&id));
    let described = listed.and_then(|listed| listed.description);
    let missing = || Problem::new(StatusCode::NOT_FOUND, "no_description", "this entry is not described");
    described.map(|found| Json((*found).clone())).ok_or_else(missing)
}

/// A declaration and whether it serves.
#[derive(Serialize, ToSchema)]
pub(crate) struct Declaration {
    /// `query registry.title`, `predicate …` or `action …`.
    id: String,
    /// `ok`, or `closed` until it fits the database again.
    status: &'static str,
    /// Why it is closed.
    problems: Vec<String>,
}

/// How the connector fits the department's database.
#[derive(Serialize, ToSchema)]
pub(crate) struct Connector {
    /// Every declaration.
    queries: Vec<Declaration>,
    /// What else is wrong: a file that cannot be taken in.
    problems: Vec<String>,
    /// Whether the connector's or the standard's file was changed since the node started: it answers by the old ones until it is
    /// started again.
    outdated: bool,
}

/// The files a node answers by, as they were when it started.
pub(crate) struct Files(Vec<(PathBuf, Vec<u8>)>);

impl Files {
    /// Reads them.
    pub(crate) fn read(paths: &[&std::path::Path]) -> std::io::Result<Self> {
        let all = paths.iter().map(|path| Ok((path.to_path_buf(), std::fs::read(path)?)));
        all.collect::<std::io::Result<_>>().map(Self)
    }

    /// Whether one of them is another by now.
    pub(crate) fn changed(&self) -> bool {
        self.0.iter().any(|(path, was)| std::fs::read(path).is_ok_and(|now| now != *was))
    }
}

/// How this department's connector fits its database: looked at every half minute.
#[utoipa::path(get, path = "/api/v1/connector", responses((status = 200, body = Connector)))]
pub(crate) async fn connector(State(served): Shared) -> Json<Connector> {
    let report = served.gateway.report().into_iter();
    let queries = report.map(|c| Declaration { id: c.id, status: c.status, problems: c.problems }).collect();
    let rest = served.gateway.problems().into_iter().filter(|p| p.at.starts_with("table "));
    let problems = rest.map(|p| format!("{}: {}", p.at, p.message)).collect();
    Json(Connector { queries, problems, outdated: served.files.changed() })
}
