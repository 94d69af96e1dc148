//! The part of the API about matters: what this department handles, and taking in a package that was published.

use crate::api::{JsonBody, Problem, Shared, bad};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use flow::{CaseError, Package};
use model::{FieldId, Text};
use serde::{Deserialize, Serialize};
use std::path::Path as File;
use utoipa::ToSchema;

/// The largest package file: 256 KiB.
const PACKAGE_BYTES_MAX: usize = 256 << 10;

/// A matter somebody can apply for here.
#[derive(Serialize, ToSchema)]
pub(crate) struct Matter {
    /// The matter.
    id: String,
    /// Its newest version here.
    version: u32,
    /// What people call it.
    #[schema(value_type = Object)]
    title: Text,
    /// What it does for whom.
    #[schema(value_type = Option<Object>)]
    summary: Option<Text>,
    /// Whether this very version is on the ledger, so that cases can be opened.
    published: bool,
    /// The parties.
    parties: Vec<Party>,
    /// What the applicant fills in, as a JSON Schema (draft 2020-12).
    #[schema(value_type = Object)]
    form: serde_json::Value,
}

/// A role of a matter.
#[derive(Serialize, ToSchema)]
pub(crate) struct Party {
    /// The role.
    id: String,
    /// What people call it.
    #[schema(value_type = Object)]
    title: Text,
    /// Whether a case may do without.
    optional: bool,
}

/// A package, as its file has it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PackageBody {
    /// The text of `matter.yaml`.
    text: String,
}

fn matter(served: &crate::api::Served, package: &Package) -> Matter {
    Matter {
        id: package.id.to_string(),
        version: package.version,
        title: package.title.clone(),
        summary: package.summary.clone(),
        published: served.flow.is_published(package),
        parties: package
            .parties
            .iter()
            .map(|p| Party { id: p.id.to_string(), title: p.title.clone(), optional: p.optional })
            .collect(),
        form: form_schema(package, &|element| {
            served.gateway.standard().elements.get(element).map(|e| e.kind)
        }),
    }
}

/// What the applicant fills in, as a JSON Schema; values are texts whatever they mean, as on a form.
fn form_schema(
    package: &Package,
    kind: &dyn Fn(&FieldId) -> Option<gateway::ElementKind>,
) -> serde_json::Value {
    use gateway::ElementKind;
    let mut properties = serde_json::Map::new();
    for field in &package.form {
        let mut schema = serde_json::json!({
            "type": "string", "title": field.title.zh, "maxLength": 128, "x-title-en": field.title.en, "x-element": field.element,
        });
        match kind(&field.element) {
            Some(ElementKind::Integer) => schema["pattern"] = "^-?[0-9]+$".into(),
            Some(ElementKind::Date) => schema["format"] = "date".into(),
            Some(ElementKind::CreditCode | ElementKind::ResidentId) => schema["minLength"] = 18.into(),
            _ => {}
        }
        if !field.choices.is_empty() {
            schema["oneOf"] = field
                .choices
                .iter()
                .map(|c| serde_json::json!({ "const": c.id, "title": c.title.zh }))
                .collect();
        }
        properties.insert(field.id.to_string(), schema);
    }
    let required: Vec<_> = package.form.iter().filter(|f| !f.optional).map(|f| f.id.to_string()).collect();
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    })
}

/// The matters this department handles.
#[utoipa::path(get, path = "/api/v1/matters", responses((status = 200, body = Vec<Matter>)))]
pub(crate) async fn list(State(served): Shared) -> Json<Vec<Matter>> {
    Json(served.flow.packages().iter().map(|p| matter(&served, p)).collect())
}

/// One matter.
#[utoipa::path(get, path = "/api/v1/matters/{id}", params(("id" = String, Path)),
    responses((status = 200, body = Matter), (status = 404, body = Problem)))]
pub(crate) async fn show(State(served): Shared, Path(id): Path<String>) -> Result<Json<Matter>, Problem> {
    let found = id.parse().ok().and_then(|id| served.flow.package(&id));
    let missing =
        || Problem::new(StatusCode::NOT_FOUND, "unknown_matter", "this department handles no such matter");
    found.map(|p| Json(matter(&served, &p))).ok_or_else(missing)
}

/// Takes in a package that this department published on the ledger: from then on cases are opened under it, without a restart.
#[utoipa::path(post, path = "/api/v1/matters", request_body = PackageBody,
    responses((status = 201, body = Matter), (status = 400, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn take(
    State(served): Shared,
    JsonBody(body): JsonBody<PackageBody>,
) -> Result<(StatusCode, Json<Matter>), Problem> {
    if body.text.len() > PACKAGE_BYTES_MAX {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "a package has at most 256 KiB",
        ));
    }
    let package = Package::parse("matter.yaml", &body.text).map_err(|e| bad(e.to_string()))?;
    served.flow.caught_up(served.flow.chain().height()).await;
    served.flow.take_package(package.clone()).map_err(|e| match e {
        CaseError::Refused(_) => Problem::new(
            StatusCode::CONFLICT,
            "not_published",
            "this very package is not on the ledger; publish it first, and hand in the same file",
        ),
        other => other.into(),
    })?;
    keep(&served.packages, &package).map_err(|e| {
        tracing::error!(error = %e, "a package cannot be written; it is forgotten when the node stops");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "not_kept",
            "the package serves, and could not be written to disk",
        )
    })?;
    Ok((StatusCode::CREATED, Json(matter(&served, &package))))
}

/// Keeps a package for the next start, whole or not at all.
fn keep(folder: &File, package: &Package) -> std::io::Result<()> {
    let home = folder.join(format!("{}-{}", package.id, package.version));
    std::fs::create_dir_all(&home)?;
    let (temporary, file) = (home.join("matter.yaml.new"), home.join("matter.yaml"));
    std::fs::write(&temporary, &package.text)?;
    std::fs::File::open(&temporary)?.sync_all()?;
    std::fs::rename(temporary, file)
}

/// The packages that were handed to the node before.
pub(crate) fn kept(folder: &File) -> Result<Vec<Package>, flow::PackageError> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let folders = entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.join("matter.yaml").exists());
    folders.map(|dir| Package::read(&dir)).collect()
}
