//! The read side of CKAN's Action API (version 3), so that what harvests CKAN harvests this portal unchanged.

use super::{
    data::{self, Wanted},
    dcat::{iso, media_type},
    plan::{Access, Entry, THEMES},
    portal::{Catalogue, FACETS, Facet, Portal, Search},
};
use crate::serve::Served;
use axum::{
    Json,
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use gateway::ElementKind;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Why an action gives no result.
enum Stop {
    NotFound(&'static str),
    Invalid(&'static str, String),
}

type Outcome = Result<Value, Stop>;

/// The actions served.
const ACTIONS: [&str; 21] = [
    "site_read",
    "status_show",
    "package_list",
    "package_show",
    "package_search",
    "package_autocomplete",
    "current_package_list_with_resources",
    "resource_show",
    "resource_search",
    "group_list",
    "group_show",
    "group_package_show",
    "organization_list",
    "organization_show",
    "tag_list",
    "tag_show",
    "license_list",
    "format_autocomplete",
    "datastore_search",
    "datastore_info",
    "help_show",
];

/// `/api/3/action/{action}`: parameters from the query or a JSON body.
pub async fn action(
    State(served): State<Arc<Served>>,
    Path(action): Path<String>,
    method: Method,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response {
    let mut parameters = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        parameters.insert(name.into_owned(), value.into_owned().into());
    }
    let help = format!("{}/api/3/action/help_show?name={action}", served.base());
    if method == Method::POST && !body.is_empty() {
        match serde_json::from_slice::<Map<String, Value>>(&body) {
            Ok(object) => parameters.extend(object),
            Err(_) => {
                let error = json!({ "__type": "Validation Error", "message": "the body is no JSON object" });
                let answer = json!({ "help": help, "success": false, "error": error });
                return (StatusCode::BAD_REQUEST, Json(answer)).into_response();
            }
        }
    }
    let asked =
        Asked { served: &served, portal: &served.portal, catalogue: served.portal.catalogue(), parameters };
    match asked.run(&action) {
        Ok(result) => Json(json!({ "help": help, "success": true, "result": result })).into_response(),
        Err(Stop::NotFound(what)) => {
            let error = json!({ "__type": "Not Found Error", "message": format!("Not found: {what}") });
            (StatusCode::NOT_FOUND, Json(json!({ "help": help, "success": false, "error": error })))
                .into_response()
        }
        Err(Stop::Invalid(name, message)) => {
            let error = json!({ "__type": "Validation Error", name: [message] });
            (StatusCode::CONFLICT, Json(json!({ "help": help, "success": false, "error": error })))
                .into_response()
        }
    }
}

struct Asked<'a> {
    served: &'a Served,
    portal: &'a Portal,
    catalogue: Arc<Catalogue>,
    parameters: Map<String, Value>,
}

impl Asked<'_> {
    fn text(&self, name: &str) -> Option<String> {
        match self.parameters.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }

    fn number(&self, name: &'static str, default: usize, most: usize) -> Result<usize, Stop> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => {
                let number: usize =
                    text.parse().map_err(|_| Stop::Invalid(name, "Invalid integer".into()))?;
                Ok(number.min(most))
            }
        }
    }

    fn is(&self, name: &str) -> bool {
        self.text(name).is_some_and(|t| matches!(t.to_lowercase().as_str(), "true" | "1" | "yes"))
    }

    fn served_entries(&self) -> impl Iterator<Item = &Entry> {
        self.catalogue.entries.iter().filter(|e| e.withdrawn.is_none())
    }

    fn entry(&self, id: &str) -> Result<&Entry, Stop> {
        self.catalogue.get(id).filter(|e| e.withdrawn.is_none()).ok_or(Stop::NotFound("package"))
    }

    fn id(&self) -> Result<String, Stop> {
        let id = self.text("id").or_else(|| self.text("name_or_id"));
        id.ok_or_else(|| Stop::Invalid("id", "Missing value".into()))
    }

    fn run(&self, action: &str) -> Outcome {
        match action {
            "site_read" => Ok(true.into()),
            "status_show" => Ok(json!({
                "ckan_version": "2.11.0", "site_title": "Tongban open data", "site_url": self.served.base(),
                "site_description": "", "locale_default": "zh_Hans_CN", "extensions": ["datastore"], "error_emails_to": null,
            })),
            "package_list" => {
                let mut names: Vec<&str> = self.served_entries().map(Entry::id).collect();
                names.sort_unstable();
                self.slice(names.into_iter().map(Into::into).collect())
            }
            "current_package_list_with_resources" => {
                let (limit, offset) =
                    (self.number("limit", 100, 1000)?, self.number("offset", 0, usize::MAX)?);
                Ok(self.served_entries().skip(offset).take(limit).map(|e| self.package(e)).collect())
            }
            "package_show" => Ok(self.package(self.entry(&self.id()?)?)),
            "package_search" => self.package_search(),
            "package_autocomplete" => {
                let search = Search {
                    words: self.text("q").unwrap_or_default(),
                    limit: self.number("limit", 10, 100)?,
                    ..Search::default()
                };
                let found = self.catalogue.search(&search).map_err(|e| Stop::Invalid("q", e.to_string()))?;
                let entries = found.places.iter().map(|at| &self.catalogue.entries[*at]);
                Ok(entries
                    .map(|e| json!({ "name": e.id(), "title": e.plan.title.zh, "match_field": "title", "match_displayed": e.plan.title.zh }))
                    .collect())
            }
            "resource_show" => {
                let (entry, at) = self.resource(&self.id()?)?;
                Ok(self.resource_value(entry, at))
            }
            "resource_search" => {
                let query = self.text("query").unwrap_or_default().to_lowercase();
                let (field, wanted) = query.split_once(':').unwrap_or(("name", &query));
                let mut found = Vec::new();
                for entry in self.served_entries() {
                    for at in 0..entry.files.len() {
                        let value = self.resource_value(entry, at);
                        if value[field].as_str().is_some_and(|t| t.to_lowercase().contains(wanted)) {
                            found.push(value);
                        }
                    }
                }
                let count = found.len();
                let (limit, offset) =
                    (self.number("limit", 100, 1000)?, self.number("offset", 0, usize::MAX)?);
                let results: Vec<Value> = found.into_iter().skip(offset).take(limit).collect();
                Ok(json!({ "count": count, "results": results }))
            }
            "group_list" => self.groups(Facet::Theme),
            "organization_list" => self.groups(Facet::Department),
            "group_show" => self.group(Facet::Theme, &self.id()?, "group"),
            "organization_show" => self.group(Facet::Department, &self.id()?, "organization"),
            "group_package_show" => {
                let id = self.id()?;
                let limit = self.number("limit", 100, 1000)?;
                Ok(self
                    .served_entries()
                    .filter(|e| e.plan.theme.eq_ignore_ascii_case(&id))
                    .take(limit)
                    .map(|e| self.package(e))
                    .collect())
            }
            "tag_list" => {
                let tags = self.tags();
                match self.is("all_fields") {
                    true => Ok(tags.keys().map(|tag| tag_value(tag)).collect()),
                    false => Ok(tags.into_keys().map(Value::from).collect()),
                }
            }
            "tag_show" => {
                let id = self.id()?;
                let count = *self.tags().get(&id).ok_or(Stop::NotFound("tag"))?;
                let mut tag = tag_value(&id);
                tag["package_count"] = count.into();
                Ok(tag)
            }
            "license_list" => {
                let mut licences = BTreeMap::new();
                for e in self.served_entries() {
                    licences.insert(e.plan.licence.id.clone(), &e.plan.licence);
                }
                Ok(licences
                    .into_values()
                    .map(|l| json!({ "id": l.id, "title": l.title, "url": l.url, "status": "active", "od_conformance": "not reviewed" }))
                    .collect())
            }
            "format_autocomplete" => Ok(json!(["csv", "json", "xlsx", "parquet"])),
            "datastore_search" => self.datastore_search(),
            "datastore_info" => {
                let (entry, _) = self.resource(&self.id()?)?;
                let fields: Map<String, Value> = entry
                    .plan
                    .columns
                    .iter()
                    .map(|c| (c.id.to_string(), datastore_type(c.kind).into()))
                    .collect();
                Ok(json!({ "meta": { "count": entry.rows }, "schema": fields }))
            }
            "help_show" => {
                let name = self.text("name").unwrap_or_default();
                match ACTIONS.contains(&name.as_str()) {
                    true => {
                        Ok(format!("{name}: as CKAN's own, read only. https://docs.ckan.org/en/2.11/api/")
                            .into())
                    }
                    false => Err(Stop::NotFound("action")),
                }
            }
            _ => Err(Stop::NotFound("action")),
        }
    }

    /// What `limit` and `offset` leave of a list; all of it without a limit.
    fn slice(&self, list: Vec<Value>) -> Outcome {
        let (limit, offset) =
            (self.number("limit", usize::MAX, usize::MAX)?, self.number("offset", 0, usize::MAX)?);
        Ok(list.into_iter().skip(offset).take(limit).collect())
    }

    fn tags(&self) -> BTreeMap<String, usize> {
        let mut tags = BTreeMap::new();
        for keyword in self.served_entries().flat_map(|e| &e.plan.keywords) {
            for word in [&keyword.zh, &keyword.en] {
                *tags.entry(word.clone()).or_default() += 1;
            }
        }
        tags
    }

    /// Parts like `theme:ENVI` or `organization:"weather"` of a filter query.
    fn filters(&self, query: &str) -> Result<Vec<(Facet, String)>, Stop> {
        let mut facets = Vec::new();
        for part in query.replace(" AND ", " ").split_whitespace() {
            let part = part.trim_start_matches('+');
            let Some((name, value)) = part.split_once(':') else { continue };
            let value = value.trim_matches(['"', '(', ')']).to_owned();
            let facet = match name {
                "groups" | "theme" => Facet::Theme,
                "organization" | "owner_org" | "department" => Facet::Department,
                "res_format" | "format" => Facet::Format,
                "license_id" | "licence" => Facet::Licence,
                "access" => Facet::Access,
                "*" | "state" | "dataset_type" | "type" | "capacity" | "entity_type" => continue,
                _ => return Err(Stop::Invalid("fq", format!("cannot filter by `{name}`"))),
            };
            facets.push((facet, self.facet_value(facet, value)));
        }
        Ok(facets)
    }

    /// The value as entries have it, whatever its letters' case.
    fn facet_value(&self, facet: Facet, value: String) -> String {
        let entries = self.catalogue.entries.iter();
        let mut all = entries.flat_map(|e| super::portal::values(e, facet));
        all.find(|v| v.eq_ignore_ascii_case(&value)).map_or(value, ToOwned::to_owned)
    }

    fn package_search(&self) -> Outcome {
        let words = self.text("q").unwrap_or_default();
        let words = if matches!(words.trim(), "*:*" | "*") { String::new() } else { words };
        // `tags:word` and the like in the query are words to look for
        let words = words
            .split_whitespace()
            .map(|w| w.split_once(':').map_or(w, |(_, w)| w))
            .collect::<Vec<_>>()
            .join(" ");
        let mut query = self.text("fq").unwrap_or_default();
        if let Some(list) = self.parameters.get("fq_list").and_then(Value::as_array) {
            query += &list.iter().filter_map(Value::as_str).map(|f| format!(" {f}")).collect::<String>();
        }
        let (limit, offset) = (self.number("rows", 10, 1000)?, self.number("start", 0, usize::MAX)?);
        let search = Search { words, facets: self.filters(&query)?, offset: 0, limit: usize::MAX >> 1 };
        let sort = self.text("sort").unwrap_or_default();
        let by_name = sort.starts_with("name") || sort.starts_with("title");
        let search = if by_name { search } else { Search { offset, limit, ..search } };
        let found = self.catalogue.search(&search).map_err(|e| Stop::Invalid("q", e.to_string()))?;
        let mut entries: Vec<&Entry> = found.places.iter().map(|at| &self.catalogue.entries[*at]).collect();
        if by_name {
            entries.sort_by(|a, b| a.id().cmp(b.id()));
            if sort.ends_with("desc") {
                entries.reverse();
            }
            entries = entries.into_iter().skip(offset).take(limit).collect();
        }
        let results: Vec<Value> = entries.into_iter().map(|e| self.package(e)).collect();
        let wanted = self.facet_fields();
        let (mut facets, mut search_facets) = (Map::new(), Map::new());
        for (name, facet) in wanted {
            let counts = found.facets.get(&facet).cloned().unwrap_or_default();
            let items: Vec<Value> = counts
                .iter()
                .map(|(v, n)| json!({ "name": v, "display_name": self.display(facet, v), "count": n }))
                .collect();
            facets.insert(
                name.clone(),
                counts.into_iter().map(|(v, n)| (v, n.into())).collect::<Map<_, _>>().into(),
            );
            search_facets.insert(name.clone(), json!({ "title": name, "items": items }));
        }
        Ok(json!({
            "count": found.total, "sort": if by_name { sort } else { "score desc, metadata_modified desc".into() },
            "facets": facets, "results": results, "search_facets": search_facets,
        }))
    }

    fn facet_fields(&self) -> Vec<(String, Facet)> {
        let asked = match self.parameters.get("facet.field") {
            Some(Value::Array(list)) => {
                list.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
            }
            Some(Value::String(text)) => match serde_json::from_str::<Vec<String>>(text) {
                Ok(list) => list,
                Err(_) => text.split(',').map(ToOwned::to_owned).collect(),
            },
            _ => vec![],
        };
        let facet = |name: &str| match name {
            "groups" => Some(Facet::Theme),
            "organization" => Some(Facet::Department),
            "res_format" => Some(Facet::Format),
            "license_id" => Some(Facet::Licence),
            _ => FACETS.iter().find(|(_, n)| *n == name).map(|(f, _)| *f),
        };
        asked.into_iter().filter_map(|name| facet(&name).map(|f| (name, f))).collect()
    }

    fn display(&self, facet: Facet, value: &str) -> String {
        match facet {
            Facet::Theme => THEMES.iter().find(|t| t.0 == value).map_or(value, |t| t.1).to_owned(),
            Facet::Department => {
                let mut entries = self.catalogue.entries.iter();
                entries
                    .find(|e| e.plan.department.as_str() == value)
                    .map_or(value.to_owned(), |e| e.plan.department_title.zh.clone())
            }
            _ => value.to_owned(),
        }
    }

    fn groups(&self, facet: Facet) -> Outcome {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in self.served_entries() {
            for value in super::portal::values(entry, facet) {
                *counts.entry(value).or_default() += 1;
            }
        }
        match self.is("all_fields") {
            true => {
                Ok(counts.into_iter().map(|(value, count)| self.group_value(facet, value, count)).collect())
            }
            false => Ok(counts.into_keys().map(Value::from).collect()),
        }
    }

    fn group_value(&self, facet: Facet, value: &str, count: usize) -> Value {
        let title = self.display(facet, value);
        let organisation = facet == Facet::Department;
        json!({
            "id": value, "name": value, "title": title, "display_name": title, "description": "", "image_display_url": "", "image_url": "",
            "package_count": count, "is_organization": organisation, "type": if organisation { "organization" } else { "group" },
            "state": "active", "approval_status": "approved", "created": null, "num_followers": 0,
        })
    }

    fn group(&self, facet: Facet, id: &str, what: &'static str) -> Outcome {
        let value = self.facet_value(facet, id.to_owned());
        let of_group: Vec<&Entry> = self
            .served_entries()
            .filter(|e| super::portal::values(e, facet).contains(&value.as_str()))
            .collect();
        if of_group.is_empty() {
            return Err(Stop::NotFound(what));
        }
        let mut group = self.group_value(facet, &value, of_group.len());
        if self.is("include_datasets") {
            group["packages"] = of_group.iter().take(1000).map(|e| self.package(e)).collect();
        }
        Ok(group)
    }

    fn resource(&self, id: &str) -> Result<(&Entry, usize), Stop> {
        let (package, format) = id.rsplit_once(':').ok_or(Stop::NotFound("resource"))?;
        let entry = self.entry(package).map_err(|_| Stop::NotFound("resource"))?;
        let at = entry.files.iter().position(|f| f.format.eq_ignore_ascii_case(format));
        at.map(|at| (entry, at)).ok_or(Stop::NotFound("resource"))
    }

    fn resource_value(&self, entry: &Entry, at: usize) -> Value {
        let file = &entry.files[at];
        let url = format!("{}/open/{}/v{}/{}", self.served.base(), entry.id(), entry.version, file.name);
        let modified = iso(entry.modified_ms).trim_end_matches('Z').to_owned();
        json!({
            "id": format!("{}:{}", entry.id(), file.format.to_lowercase()), "package_id": entry.id(), "name": file.name,
            "description": "", "format": file.format, "mimetype": media_type(&file.format), "mimetype_inner": null, "size": file.bytes,
            "hash": file.sha256, "url": url, "url_type": "", "resource_type": "file", "position": at, "state": "active",
            "created": modified, "last_modified": modified, "metadata_modified": modified, "cache_url": null, "cache_last_updated": null,
            "datastore_active": entry.plan.access == Access::Open,
        })
    }

    fn package(&self, entry: &Entry) -> Value {
        let plan = &entry.plan;
        let tags: Vec<Value> =
            plan.keywords.iter().flat_map(|k| [tag_value(&k.zh), tag_value(&k.en)]).collect();
        let resources: Vec<Value> = (0..entry.files.len()).map(|at| self.resource_value(entry, at)).collect();
        let theme = self.display(Facet::Theme, &plan.theme);
        let naive = |ms| iso(ms).trim_end_matches('Z').to_owned();
        let extras = [
            ("title_en", plan.title.en.clone()),
            ("notes_en", plan.about.en.clone()),
            ("update_frequency", plan.update.clone()),
            ("rows", entry.rows.to_string()),
            ("version", entry.version.to_string()),
        ];
        let extras: Vec<Value> =
            extras.into_iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        json!({
            "id": entry.id(), "name": entry.id(), "title": plan.title.zh, "notes": plan.about.zh, "type": "dataset", "state": "active",
            "private": false, "isopen": plan.access == Access::Open, "version": entry.version.to_string(),
            "url": format!("{}/open/{}", self.served.base(), entry.id()),
            "author": plan.department_title.zh, "author_email": null, "maintainer": plan.officer, "maintainer_email": null,
            "license_id": plan.licence.id, "license_title": plan.licence.title, "license_url": plan.licence.url,
            "metadata_created": naive(entry.issued_ms), "metadata_modified": naive(entry.modified_ms),
            "owner_org": plan.department.as_str(), "creator_user_id": null,
            "organization": self.group_value(Facet::Department, plan.department.as_str(), 0),
            "groups": [{ "id": plan.theme, "name": plan.theme, "title": theme, "display_name": theme, "description": "", "image_display_url": "" }],
            "tags": tags, "num_tags": plan.keywords.len() * 2, "resources": resources, "num_resources": entry.files.len(),
            "extras": extras, "relationships_as_subject": [], "relationships_as_object": [],
        })
    }

    fn datastore_search(&self) -> Outcome {
        let id = self.text("resource_id").or_else(|| self.text("id"));
        let id = id.ok_or_else(|| Stop::Invalid("resource_id", "Missing value".into()))?;
        let (entry, _) = self.resource(&id)?;
        if entry.plan.access == Access::Conditional {
            return Err(Stop::Invalid("resource_id", "this data set has to be asked for".into()));
        }
        let mut filters = BTreeMap::new();
        let given = match self.parameters.get("filters") {
            Some(Value::String(text)) => serde_json::from_str(text)
                .map_err(|_| Stop::Invalid("filters", "not a JSON object".into()))?,
            Some(Value::Object(object)) => object.clone(),
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err(Stop::Invalid("filters", "not a JSON object".into())),
        };
        for (name, value) in given {
            let one = |v: &Value| v.as_str().map_or_else(|| v.to_string(), ToOwned::to_owned);
            let values =
                value.as_array().map_or_else(|| vec![one(&value)], |list| list.iter().map(one).collect());
            filters.insert(name, values);
        }
        let list = |name: &str| -> Vec<String> {
            match self.parameters.get(name) {
                Some(Value::Array(list)) => {
                    list.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
                }
                Some(Value::String(text)) => {
                    text.split(',').map(|f| f.trim().to_owned()).filter(|f| !f.is_empty()).collect()
                }
                _ => vec![],
            }
        };
        let sort = list("sort").into_iter().map(|part| {
            let (name, way) = part.split_once(' ').unwrap_or((&part, "asc"));
            (name.trim_matches('"').to_owned(), way.trim().eq_ignore_ascii_case("desc"))
        });
        let (limit, offset) = (self.number("limit", 100, 32_000)?, self.number("offset", 0, usize::MAX)?);
        let wanted = Wanted {
            filters,
            contains: self.text("q"),
            sort: sort.collect(),
            fields: list("fields"),
            offset,
            limit,
        };
        let rows = self.portal.rows(entry).map_err(|e| Stop::Invalid("resource_id", e.to_string()))?;
        let picked = data::pick(entry, &rows, &wanted).map_err(|e| Stop::Invalid("query", e.to_string()))?;
        self.portal.count(entry.id(), |u| &mut u.questions);
        let (total, mut records) = picked;
        for (at, record) in records.iter_mut().enumerate() {
            record.insert("_id".into(), (offset + at + 1).into());
        }
        let mut fields = vec![json!({ "id": "_id", "type": "int" })];
        let given = entry
            .plan
            .columns
            .iter()
            .filter(|c| wanted.fields.is_empty() || wanted.fields.iter().any(|f| f == c.id.as_str()));
        fields.extend(given.map(|c| json!({ "id": c.id, "type": datastore_type(c.kind) })));
        Ok(json!({
            "include_total": true, "limit": limit, "offset": offset, "records_format": "objects", "resource_id": id,
            "total": total, "total_was_estimated": false, "fields": fields, "records": records,
            "_links": {
                "start": format!("/api/3/action/datastore_search?resource_id={id}&limit={limit}"),
                "next": format!("/api/3/action/datastore_search?resource_id={id}&limit={limit}&offset={}", offset + limit),
            },
        }))
    }
}

fn tag_value(tag: &str) -> Value {
    json!({ "id": tag, "name": tag, "display_name": tag, "state": "active", "vocabulary_id": null })
}

fn datastore_type(kind: ElementKind) -> &'static str {
    match kind {
        ElementKind::Integer => "int8",
        ElementKind::Number => "float8",
        ElementKind::Date => "date",
        _ => "text",
    }
}
