//! The catalogue of data resources as people read it: what can be asked of whom, on which basis, and who answers for it.

use super::visit::Visit;
use askama::Template;
use axum::{
    extract::{Path, Query},
    http::StatusCode,
    response::Response,
};
use model::{Resource, ShareClass, SubjectKind};
use serde::Deserialize;

/// How many entries one page shows.
const SHOWN: usize = 100;

#[derive(Deserialize)]
pub(super) struct Search {
    #[serde(default)]
    q: String,
}

struct Row {
    id: String,
    title: String,
    holder: String,
    subject: String,
    share: String,
    names: String,
}

fn subject(visit: &Visit, kind: SubjectKind) -> String {
    visit.t.get(match kind {
        SubjectKind::Person => "subject-person",
        SubjectKind::Organisation => "subject-organisation",
        SubjectKind::Unit => "subject-unit",
    })
}

fn share(visit: &Visit, class: &ShareClass) -> String {
    match class {
        ShareClass::Unconditional => visit.t.get("share-unconditional"),
        ShareClass::Conditional => visit.t.get("share-conditional"),
        ShareClass::NotShared { citation } => format!("{}: {citation}", visit.t.get("share-not")),
    }
}

fn row(visit: &Visit, resource: &Resource) -> Row {
    let titles = resource.fields.iter().map(|f| &f.title).chain(resource.predicates.iter().map(|p| &p.title));
    let names: Vec<String> = titles.map(|title| visit.t.pick(title).to_owned()).collect();
    Row {
        id: resource.id.to_string(),
        title: visit.t.pick(&resource.title).to_owned(),
        holder: visit.department(resource.holder.as_str()),
        subject: subject(visit, resource.subject),
        share: share(visit, &resource.share),
        names: visit.t.join(&names),
    }
}

#[derive(Template)]
#[template(path = "catalogue.html")]
struct CataloguePage<'a> {
    v: &'a Visit,
    at: &'static str,
    q: String,
    total: usize,
    rows: Vec<Row>,
}

pub(super) async fn catalogue(visit: Visit, Query(search): Query<Search>) -> Response {
    let (total, resources) = visit.served.flow.catalogue().search(&search.q, 0, SHOWN);
    let rows = resources.iter().map(|resource| row(&visit, resource)).collect();
    visit.show(&CataloguePage { v: &visit, at: "catalogue", q: search.q, total, rows })
}

struct FieldRow {
    title: String,
    id: String,
    element: String,
    sensitivity: u8,
}

#[derive(Template)]
#[template(path = "resource.html")]
struct ResourcePage<'a> {
    v: &'a Visit,
    at: &'static str,
    row: Row,
    version: u32,
    officer: String,
    basis: String,
    standard: String,
    update: String,
    fields: Vec<FieldRow>,
    predicates: Vec<FieldRow>,
    /// What it is described as: a sentence, and further rows by their key.
    about: String,
    described: Vec<(&'static str, String)>,
    /// Whether it is this department's own, and what of it is closed.
    own: bool,
    closed: Vec<String>,
}

pub(super) async fn resource(visit: Visit, Path(id): Path<String>) -> Response {
    let found = id.parse().ok().and_then(|id| visit.served.flow.catalogue().listed(&id));
    let Some(listed) = found else { return visit.error(StatusCode::NOT_FOUND, "error-unknown") };
    let resource = listed.resource;
    let (mut about, mut described) = (String::new(), Vec::new());
    if let Some(d) = listed.description.as_ref().map(|d| &d.description) {
        let t = &visit.t;
        about = t.pick(&d.about).to_owned();
        let words: Vec<String> = d.keywords.iter().map(|word| t.pick(word).to_owned()).collect();
        let category = format!("{} {} {}", d.category.scheme, t.pick(&d.category.name), d.category.code);
        let open = match &d.open {
            None => t.get("catalogue-open-no"),
            Some(condition) if condition.is_empty() => t.get("catalogue-open-yes"),
            Some(condition) => format!("{}: {condition}", t.get("catalogue-open-yes")),
        };
        described = vec![
            ("catalogue-process", t.pick(&d.process).to_owned()),
            ("catalogue-scope", t.pick(&d.scope).to_owned()),
            ("catalogue-category", category),
            ("catalogue-code", d.code.clone()),
            ("catalogue-format", d.format.clone()),
            ("catalogue-keywords", t.join(&words)),
            ("catalogue-open", open),
        ];
        described.retain(|(_, value)| !value.is_empty());
    }
    let own = resource.holder == visit.served.department;
    let of_it = |id: &str| {
        let id = id.split_once(' ').map_or(id, |(_, id)| id);
        id.strip_prefix(resource.id.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let problems = if own { visit.served.gateway.problems() } else { vec![] };
    let closed =
        problems.into_iter().filter(|p| of_it(&p.at)).map(|p| format!("{}: {}", p.at, p.message)).collect();
    let fields = resource.fields.iter().map(|f| FieldRow {
        title: visit.t.pick(&f.title).to_owned(),
        id: f.id.to_string(),
        element: f.element.to_string(),
        sensitivity: f.sensitivity,
    });
    let predicates = resource.predicates.iter().map(|p| FieldRow {
        title: visit.t.pick(&p.title).to_owned(),
        id: p.id.to_string(),
        element: String::new(),
        sensitivity: 0,
    });
    visit.show(&ResourcePage {
        v: &visit,
        at: "catalogue",
        row: row(&visit, &resource),
        version: resource.version,
        officer: resource.officer.clone(),
        basis: resource.basis.clone(),
        standard: resource.standard.clone(),
        update: visit.t.or(&format!("update-{}", resource.update), "update-other"),
        fields: fields.collect(),
        predicates: predicates.collect(),
        about,
        described,
        own,
        closed,
    })
}
