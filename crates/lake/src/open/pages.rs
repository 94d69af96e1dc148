//! The portal's pages: search, one data set, its files, its rows for programs. They work without script.

use super::{
    chart::{self, Drawing},
    data::{self, Wanted},
    dcat::{self, iso, media_type},
    gate::Report,
    plan::{Access, Entry, THEMES},
    portal::{Catalogue, FACETS, Facet, Portal, Search, Usage, Word},
};
use crate::{serve::Served, table::now_ms};
use askama::Template;
use axum::{
    Form, Json,
    extract::{FromRequestParts, Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{Html, IntoResponse, Redirect, Response},
};
use fluent_templates::{LanguageIdentifier, Loader as _, fluent_bundle::FluentValue, static_loader};
use model::{Language, Text};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{borrow::Cow, collections::HashMap, convert::Infallible, sync::Arc};
use tower_http::services::ServeFile;

static_loader! {
    static LOCALES = {
        locales: "./locales",
        fallback_language: "en",
        customise: |bundle| bundle.set_use_isolating(false),
    };
}

/// Entries of a page of results.
const PAGE: usize = 20;
/// Rows of a preview.
const PREVIEW: usize = 20;

/// What every page needs of its request: its language.
pub struct Visit {
    served: Arc<Served>,
    language: Language,
    asked: bool,
}

fn language_of(tag: &str) -> Option<Language> {
    [Language::English, Language::Chinese].into_iter().find(|l| l.tag() == tag)
}

impl FromRequestParts<Arc<Served>> for Visit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, served: &Arc<Served>) -> Result<Self, Infallible> {
        let header =
            |name| parts.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
        let query = parts.uri.query().unwrap_or_default();
        let asked = query.split('&').find_map(|pair| language_of(pair.strip_prefix("lang=")?));
        let kept = header(header::COOKIE)
            .split(';')
            .find_map(|c| language_of(c.trim().strip_prefix("tongban_lang=")?));
        let english = header(header::ACCEPT_LANGUAGE).trim_start().starts_with("en");
        let preferred = if english { Language::English } else { Language::Chinese };
        Ok(Self {
            served: served.clone(),
            language: asked.or(kept).unwrap_or(preferred),
            asked: asked.is_some(),
        })
    }
}

impl Visit {
    fn get(&self, key: &str) -> String {
        let language: LanguageIdentifier = self.language.tag().parse().expect("a language tag");
        LOCALES.lookup(&language, key)
    }

    fn with(&self, key: &str, values: &[(&'static str, String)]) -> String {
        let language: LanguageIdentifier = self.language.tag().parse().expect("a language tag");
        let values = values.iter().map(|(name, value)| {
            let value = match value.parse::<f64>() {
                Ok(number) => FluentValue::from(number),
                Err(_) => FluentValue::from(value.clone()),
            };
            (Cow::Borrowed(*name), value)
        });
        LOCALES.lookup_with_args(&language, key, &values.collect::<HashMap<_, _>>())
    }

    fn counted(&self, key: &str, n: &usize) -> String {
        self.with(key, &[("n", n.to_string())])
    }

    fn pick<'a>(&self, text: &'a Text) -> &'a str {
        text.get(self.language)
    }

    fn tag(&self) -> &'static str {
        self.language.tag()
    }

    fn other(&self) -> &'static str {
        if self.language == Language::Chinese { "en" } else { "zh-CN" }
    }

    fn show(&self, page: &impl Template) -> Response {
        let mut response = Html(page.render().expect("a template renders into memory")).into_response();
        if self.asked {
            let cookie = format!("tongban_lang={}; Path=/; SameSite=Strict; Max-Age=31536000", self.tag());
            if let Ok(value) = HeaderValue::from_str(&cookie) {
                response.headers_mut().append(header::SET_COOKIE, value);
            }
        }
        response
    }

    fn error(&self, status: StatusCode, key: &str) -> Response {
        (status, self.show(&ErrorPage { v: self, message: self.get(key) })).into_response()
    }

    fn day(&self, ms: &u64) -> String {
        iso(*ms).get(..10).unwrap_or_default().to_owned()
    }

    fn size(&self, bytes: &u64) -> String {
        match *bytes {
            b if b < 10_000 => format!("{b} B"),
            b if b < 10_000_000 => format!("{} KB", b / 1000),
            b => format!("{} MB", b / 1_000_000),
        }
    }
}

#[derive(Template)]
#[template(path = "open_error.html")]
struct ErrorPage<'a> {
    v: &'a Visit,
    message: String,
}

/// A value of a facet as the page offers it.
struct Offer {
    label: String,
    count: usize,
    address: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "open_search.html")]
struct SearchPage<'a> {
    v: &'a Visit,
    words: String,
    total: usize,
    entries: Vec<&'a Entry>,
    facets: Vec<(String, Vec<Offer>)>,
    kept: Vec<(String, String)>,
    previous: Option<String>,
    next: Option<String>,
}

impl SearchPage<'_> {
    fn theme(&self, entry: &&&Entry) -> String {
        label(self.v, &self.v.served.portal.catalogue(), Facet::Theme, &entry.plan.theme)
    }
}

/// What people call a facet's value.
fn label(v: &Visit, catalogue: &Catalogue, facet: Facet, value: &str) -> String {
    match facet {
        Facet::Theme => {
            let theme = THEMES.iter().find(|t| t.0 == value);
            let chinese = v.language == Language::Chinese;
            theme.map_or(value, |t| if chinese { t.1 } else { t.2 }).to_owned()
        }
        Facet::Department => {
            let entry = catalogue.entries.iter().find(|e| e.plan.department.as_str() == value);
            entry.map_or(value.to_owned(), |e| v.pick(&e.plan.department_title).to_owned())
        }
        Facet::Access => v.get(&format!("access-{value}")),
        Facet::Format | Facet::Licence => value.to_owned(),
    }
}

fn address(words: &str, facets: &[(Facet, String)], page: usize) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    if !words.is_empty() {
        query.append_pair("q", words);
    }
    for (facet, value) in facets {
        let name = FACETS.iter().find(|(f, _)| f == facet).expect("every facet has a name").1;
        query.append_pair(name, value);
    }
    if page > 1 {
        query.append_pair("page", &page.to_string());
    }
    let query = query.finish();
    if query.is_empty() { "/open".into() } else { format!("/open?{query}") }
}

/// `/open`.
pub async fn search(v: Visit, Query(query): Query<HashMap<String, String>>) -> Response {
    let catalogue = v.served.portal.catalogue();
    let words: String = query.get("q").map(|q| q.chars().take(200).collect()).unwrap_or_default();
    let facets: Vec<(Facet, String)> = FACETS
        .iter()
        .filter_map(|(facet, name)| Some((*facet, query.get(*name).filter(|v| !v.is_empty())?.clone())))
        .collect();
    let page = query.get("page").and_then(|p| p.parse::<usize>().ok()).unwrap_or(1).clamp(1, 100_000);
    let asked =
        Search { words: words.clone(), facets: facets.clone(), offset: (page - 1) * PAGE, limit: PAGE };
    let Ok(found) = catalogue.search(&asked) else {
        return v.error(StatusCode::INTERNAL_SERVER_ERROR, "error-unknown");
    };
    let mut offered = Vec::new();
    for (facet, name) in FACETS {
        let counts = found.facets.get(&facet).map(Vec::as_slice).unwrap_or_default();
        let offers = counts.iter().take(12).map(|(value, count)| {
            let chosen = facets.iter().any(|(f, v)| *f == facet && v == value);
            let mut next: Vec<_> = facets.iter().filter(|(f, _)| *f != facet).cloned().collect();
            if !chosen {
                next.push((facet, value.clone()));
            }
            Offer {
                label: label(&v, &catalogue, facet, value),
                count: *count,
                address: address(&words, &next, 1),
                chosen,
            }
        });
        let offers: Vec<Offer> = offers.collect();
        if offers.len() > 1 || offers.iter().any(|o| o.chosen) {
            offered.push((v.get(&format!("facet-{name}")), offers));
        }
    }
    let name = |facet: &Facet| FACETS.iter().find(|(f, _)| f == facet).map_or("", |(_, n)| n).to_owned();
    let entries = found.places.iter().map(|at| &catalogue.entries[*at]).collect();
    let page = SearchPage {
        v: &v,
        total: found.total,
        entries,
        facets: offered,
        kept: facets.iter().map(|(f, value)| (name(f), value.clone())).collect(),
        previous: (page > 1).then(|| address(&words, &facets, page - 1)),
        next: (page * PAGE < found.total).then(|| address(&words, &facets, page + 1)),
        words,
    };
    v.show(&page)
}

#[derive(Template)]
#[template(path = "open_set.html")]
struct SetPage<'a> {
    v: &'a Visit,
    e: &'a Entry,
    theme: String,
    base: String,
    preview: Vec<Vec<String>>,
    chart: Option<(String, Drawing)>,
    map: Option<Drawing>,
    usage: Usage,
    report: Option<Report>,
    on_ledger: bool,
    versions: Vec<u32>,
    linked: String,
    thanks: bool,
}

impl SetPage<'_> {
    fn percent(&self) -> String {
        format!("{:.1} %", self.e.complete * 100.0)
    }
    fn kind(&self, column: &super::plan::PlanColumn) -> String {
        let word = serde_json::to_value(column.kind).unwrap_or_default();
        self.v.get(&format!("type-{}", word.as_str().unwrap_or("text")))
    }
    fn open(&self) -> bool {
        self.e.plan.access == Access::Open
    }
    fn frequency(&self) -> String {
        self.v.get(&format!("frequency-{}", self.e.plan.update))
    }
    fn first(&self) -> String {
        self.v.counted("preview", &self.preview.len())
    }
    fn seen(&self) -> String {
        let usage = self.usage;
        let values = [("views", usage.views), ("downloads", usage.downloads), ("questions", usage.questions)];
        self.v.with("usage-counts", &values.map(|(name, n)| (name, n.to_string())))
    }
}

/// `/open/{id}`.
pub async fn set(v: Visit, Path(id): Path<String>, Query(query): Query<HashMap<String, String>>) -> Response {
    let portal = &v.served.portal;
    let catalogue = portal.catalogue();
    let Some(entry) = catalogue.get(&id) else { return v.error(StatusCode::NOT_FOUND, "error-unknown") };
    portal.count(entry.id(), |u| &mut u.views);
    let folder = portal.version_folder(entry.id(), entry.version);
    // what was taken back is described and not shown
    let gone = entry.withdrawn.is_some();
    let first = if gone { vec![] } else { data::read(&folder, PREVIEW).unwrap_or_default() };
    let preview = first.iter().flat_map(|b| {
        (0..b.num_rows()).map(|row| {
            b.columns()
                .iter()
                .map(|a| if a.is_null(row) { String::new() } else { crate::lookup::text(a, row) })
                .collect()
        })
    });
    let all = (!gone && entry.plan.access == Access::Open).then(|| portal.rows(entry).ok()).flatten();
    let drawn = all.as_ref().and_then(|rows| {
        let declared = entry.plan.chart.as_ref()?;
        let title = |id: &model::FieldId| {
            let column = entry.plan.columns.iter().find(|c| c.id == *id);
            column.map_or(id.to_string(), |c| v.pick(&c.title).to_owned())
        };
        let key = match declared.kind {
            super::plan::ChartKind::Bar => "chart-mean",
            super::plan::ChartKind::Line => "chart-line",
            super::plan::ChartKind::Scatter => "chart-scatter",
        };
        let label = v.with(key, &[("x", title(&declared.x)), ("y", title(&declared.y))]);
        chart::chart(entry, rows, &label).map(|drawing| (label, drawing))
    });
    let map = all.as_ref().and_then(|rows| chart::map(entry, rows, v.pick(&entry.plan.title)));
    let report = std::fs::read(folder.join("gate.json")).ok().and_then(|b| serde_json::from_slice(&b).ok());
    let page = SetPage {
        v: &v,
        e: entry,
        theme: label(&v, &catalogue, Facet::Theme, &entry.plan.theme),
        base: v.served.base(),
        preview: preview.collect(),
        chart: drawn,
        map,
        usage: portal.usage(entry.id()),
        report,
        on_ledger: folder.join("publication.json").exists(),
        versions: if gone { vec![] } else { (1..=entry.version).rev().collect() },
        linked: linked(&v, entry),
        thanks: query.contains_key("thanks"),
    };
    let status = if gone { StatusCode::GONE } else { StatusCode::OK };
    (status, v.show(&page)).into_response()
}

/// The data set as search engines read it (schema.org); safe within a script element.
fn linked(v: &Visit, entry: &Entry) -> String {
    let base = v.served.base();
    let plan = &entry.plan;
    let downloads: Vec<Value> = entry
        .files
        .iter()
        .filter(|_| plan.access == Access::Open)
        .map(|f| {
            let address = format!("{base}/open/{}/v{}/{}", entry.id(), entry.version, f.name);
            json!({ "@type": "DataDownload", "encodingFormat": media_type(&f.format), "contentUrl": address })
        })
        .collect();
    let document = json!({
        "@context": "https://schema.org",
        "@type": "Dataset",
        "name": v.pick(&plan.title),
        "description": v.pick(&plan.about),
        "url": format!("{base}/open/{}", entry.id()),
        "identifier": entry.id(),
        "version": entry.version.to_string(),
        "license": plan.licence.url.as_ref().unwrap_or(&plan.licence.id),
        "keywords": plan.keywords.iter().map(|k| v.pick(k)).collect::<Vec<_>>(),
        "datePublished": iso(entry.issued_ms),
        "dateModified": iso(entry.modified_ms),
        "isAccessibleForFree": true,
        "creator": { "@type": "GovernmentOrganization", "name": v.pick(&plan.department_title) },
        "variableMeasured": plan.columns.iter().map(|c| v.pick(&c.title)).collect::<Vec<_>>(),
        "distribution": downloads,
    });
    document.to_string().replace('<', "\\u003c")
}

/// `/open/{id}/v{version}/{file}`: in pieces where they are asked for (ranges).
pub async fn file(
    v: Visit,
    Path((id, version, name)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    let portal = &v.served.portal;
    let catalogue = portal.catalogue();
    let version: Option<u32> = version.strip_prefix('v').and_then(|n| n.parse().ok());
    let entry = catalogue.get(&id).filter(|e| e.withdrawn.is_none());
    let (Some(entry), Some(version)) = (entry, version.filter(|n| *n >= 1)) else {
        return v.error(StatusCode::NOT_FOUND, "error-unknown");
    };
    let evidence = matches!(name.as_str(), "gate.json" | "publication.json" | "entry.json");
    let is_data = ["data.csv", "data.json", "data.xlsx", "data.parquet"].contains(&name.as_str());
    if version > entry.version || !(evidence || is_data) {
        return v.error(StatusCode::NOT_FOUND, "error-unknown");
    }
    if is_data && entry.plan.access == Access::Conditional {
        return v.error(StatusCode::FORBIDDEN, "request-note");
    }
    if is_data {
        portal.count(entry.id(), |u| &mut u.downloads);
    }
    let path = portal.version_folder(entry.id(), version).join(&name);
    let format = match name.rsplit('.').next() {
        Some("csv") => "CSV",
        Some("json") => "JSON",
        Some("xlsx") => "XLSX",
        _ => "Parquet",
    };
    let Ok(response) = ServeFile::new(path).try_call(request).await else {
        return v.error(StatusCode::NOT_FOUND, "error-unknown");
    };
    if response.status() == StatusCode::NOT_FOUND {
        return v.error(StatusCode::NOT_FOUND, "error-unknown");
    }
    let mut response = response.into_response();
    let kind = if format == "CSV" { "text/csv; charset=utf-8" } else { media_type(format) };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if is_data {
        let save = format!(
            "attachment; filename=\"{}.v{version}.{}\"",
            entry.id(),
            name.rsplit('.').next().unwrap_or_default()
        );
        if let Ok(save) = HeaderValue::from_str(&save) {
            response.headers_mut().insert(header::CONTENT_DISPOSITION, save);
        }
    }
    response
}

/// What somebody writes.
#[derive(Deserialize)]
pub struct Written {
    kind: String,
    text: String,
    #[serde(default)]
    contact: String,
}

/// `POST /open/{id}/words`: feedback, or a request for access.
pub async fn words(
    v: Visit,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(written): Form<Written>,
) -> Response {
    let catalogue = v.served.portal.catalogue();
    let Some(entry) = catalogue.get(&id) else { return v.error(StatusCode::NOT_FOUND, "error-unknown") };
    // a form of another site's is none of ours
    let site = headers.get("sec-fetch-site").and_then(|s| s.to_str().ok()).unwrap_or("same-origin");
    let fits = matches!(site, "same-origin" | "none")
        && matches!(written.kind.as_str(), "feedback" | "request")
        && !written.text.trim().is_empty()
        && written.text.chars().count() <= 2000
        && written.contact.chars().count() <= 200
        && super::gate::looks(&written.text).is_empty();
    if !fits {
        return v.error(StatusCode::UNPROCESSABLE_ENTITY, "error-invalid");
    }
    if !v.served.may_write() {
        return v.error(StatusCode::TOO_MANY_REQUESTS, "error-often");
    }
    let contact = (!written.contact.trim().is_empty()).then_some(written.contact);
    let word = Word { at_ms: now_ms() as u64, kind: written.kind, text: written.text, contact };
    match v.served.portal.keep_word(entry.id(), &word) {
        Ok(()) => Redirect::to(&format!("/open/{}?thanks#words", entry.id())).into_response(),
        Err(_) => v.error(StatusCode::SERVICE_UNAVAILABLE, "error-unknown"),
    }
}

fn problem(status: StatusCode, code: &str, detail: String) -> Response {
    let body = json!({ "type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(), "code": code, "detail": detail });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

/// `/api/v1/open/{id}/rows`: rows by a cursor, filtered by columns.
pub async fn rows(
    State(served): State<Arc<Served>>,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let portal: &Portal = &served.portal;
    let catalogue = portal.catalogue();
    let Some(entry) = catalogue.get(&id).filter(|e| e.withdrawn.is_none()) else {
        return problem(StatusCode::NOT_FOUND, "not_found", "there is no such data set".into());
    };
    if entry.plan.access == Access::Conditional {
        return problem(StatusCode::FORBIDDEN, "on_request", "this data set has to be asked for".into());
    }
    let limit = match query.get("limit").map(|l| l.parse::<usize>()) {
        None => 100,
        Some(Ok(n)) if (1..=10_000).contains(&n) => n,
        Some(_) => {
            return problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "`limit` is from 1 to 10000".into());
        }
    };
    let offset = match query.get("after") {
        None => 0,
        Some(cursor) => match cursor.split_once('-').map(|(v, n)| (v.parse::<u32>(), n.parse::<usize>())) {
            Some((Ok(version), Ok(offset))) if version == entry.version => offset,
            Some((Ok(_), Ok(_))) => {
                return problem(
                    StatusCode::GONE,
                    "newer_version",
                    "there is a newer version: begin again without `after`".into(),
                );
            }
            _ => {
                return problem(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "invalid",
                    "`after` is no cursor of this data set".into(),
                );
            }
        },
    };
    let filters = query.iter().filter(|(name, _)| !matches!(name.as_str(), "limit" | "after" | "lang"));
    let filters = filters.map(|(name, value)| (name.clone(), vec![value.clone()])).collect();
    let wanted = Wanted { filters, offset, limit, ..Wanted::default() };
    let rows = match portal.rows(entry) {
        Ok(rows) => rows,
        Err(e) => return problem(StatusCode::UNPROCESSABLE_ENTITY, "too_large", e.to_string()),
    };
    portal.count(entry.id(), |u| &mut u.questions);
    match data::pick(entry, &rows, &wanted) {
        Ok((total, records)) => {
            let next = (offset + limit < total).then(|| format!("{}-{}", entry.version, offset + limit));
            Json(json!({ "id": entry.id(), "version": entry.version, "total": total, "rows": records, "next": next })).into_response()
        }
        Err(e) => problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid", e.to_string()),
    }
}

/// `/catalog.jsonld` and `/catalog.ttl`.
pub async fn catalog(
    State(served): State<Arc<Served>>,
    Path(form): Path<String>,
    Query(query): Query<Map<String, Value>>,
) -> Response {
    let page = query
        .get("page")
        .and_then(Value::as_str)
        .and_then(|p| p.parse::<usize>().ok())
        .unwrap_or(1)
        .clamp(1, 1_000_000);
    let document = dcat::document(&served.base(), &served.portal.catalogue(), page);
    match form.as_str() {
        "ttl" => {
            ([(header::CONTENT_TYPE, "text/turtle; charset=utf-8")], dcat::turtle(&document)).into_response()
        }
        _ => ([(header::CONTENT_TYPE, "application/ld+json")], document.to_string()).into_response(),
    }
}

/// `/sitemap.xml`.
pub async fn sitemap(State(served): State<Arc<Served>>) -> Response {
    let base = served.base();
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\n",
    );
    out += &format!("<url><loc>{base}/open</loc></url>\n");
    for entry in served.portal.catalogue().entries.iter().filter(|e| e.withdrawn.is_none()).take(49_999) {
        out += &format!(
            "<url><loc>{base}/open/{}</loc><lastmod>{}</lastmod></url>\n",
            entry.id(),
            iso(entry.modified_ms)
        );
    }
    out += "</urlset>\n";
    ([(header::CONTENT_TYPE, "application/xml; charset=utf-8")], out).into_response()
}

/// A page for what is not there.
pub async fn nothing(v: Visit) -> Response {
    v.error(StatusCode::NOT_FOUND, "error-unknown")
}
