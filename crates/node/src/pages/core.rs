//! The catalogue as the national standard writes it: the core metadata of GB/T 21063.3-2007 by its elements' short names, without the
//! optional addresses `onLineSrc` and `ServInfo` (entries are asked call by call, from whichever node one has); and in `guide` what the
//! guide to the catalogue of government information resources (发改高技〔2017〕1272号) asks for beside them.
//!
//! It follows the standard's set of elements. Its text and schema were not at hand, so that nothing here claims to be valid against them.

use crate::api::Shared;
use askama::Template;
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use flow::Listed;
use model::{Day, Roster, ShareClass};

struct Entry {
    id: String,
    title: String,
    published: String,
    changed: String,
    about: String,
    holder: String,
    officer: String,
    keywords: Vec<String>,
    scheme: String,
    category: String,
    category_code: String,
    code: String,
    format: String,
    share_type: u8,
    share_condition: String,
    is_open: u8,
    open_condition: String,
    update: String,
    items: Vec<(String, String)>,
    related: Vec<String>,
}

#[derive(Template)]
#[template(path = "core-metadata.xml")]
struct Document<'a> {
    name: &'a str,
    entries: Vec<Entry>,
}

/// The update cycle in the guide's own words.
fn cycle(update: &str) -> &str {
    match update {
        "realtime" => "实时",
        "daily" => "每日",
        "weekly" => "每周",
        "monthly" => "每月",
        "quarterly" => "每季度",
        "yearly" => "每年",
        _ => "其他",
    }
}

/// Without what no XML document may hold (XML 1.0, 2.2).
fn fit(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')).collect()
}

fn entry(roster: &Roster, listed: &Listed) -> Entry {
    let resource = &listed.resource;
    let described = listed.description.as_ref().map(|d| &d.description);
    let holder = roster.member(&resource.holder).map_or(resource.holder.to_string(), |m| m.title.zh.clone());
    let titles = resource.fields.iter().map(|f| &f.title).chain(resource.predicates.iter().map(|p| &p.title));
    let titles: Vec<&str> = titles.map(|t| t.zh.as_str()).collect();
    let elements = resource.fields.iter().map(|f| (fit(&f.title.zh), f.element.to_string()));
    let questions = resource.predicates.iter().map(|p| (fit(&p.title.zh), "yes_no".to_owned()));
    // 1: unconditional, 2: conditional, 3: not shared
    let (share_type, share_condition) = match &resource.share {
        ShareClass::Unconditional => (1, fit(&resource.basis)),
        ShareClass::Conditional => (2, format!("经本人授权或者依法核准（{}）", fit(&resource.basis))),
        ShareClass::NotShared { citation } => (3, fit(citation)),
    };
    let mut keywords: Vec<String> =
        described.iter().flat_map(|d| &d.keywords).map(|word| word.zh.clone()).collect();
    if keywords.is_empty() {
        keywords = titles.iter().map(|title| fit(title)).collect();
    }
    Entry {
        id: resource.id.to_string(),
        title: fit(&resource.title.zh),
        published: Day::of(listed.published_ms).to_string(),
        changed: Day::of(listed.changed_ms).to_string(),
        about: fit(&described.map_or_else(|| titles.join("、"), |d| d.about.zh.clone())),
        // what nobody classified stands under its department
        scheme: described.map_or("部门分类".into(), |d| d.category.scheme.clone()),
        category: described.map_or(holder.clone(), |d| d.category.name.zh.clone()),
        category_code: described.map_or(resource.holder.to_string(), |d| d.category.code.clone()),
        code: described.map_or(resource.id.to_string(), |d| d.code.clone()),
        format: described.map_or("服务接口".into(), |d| d.format.clone()),
        is_open: u8::from(described.is_some_and(|d| d.open.is_some())),
        open_condition: described.and_then(|d| d.open.clone()).unwrap_or_default(),
        update: cycle(&resource.update).to_owned(),
        items: elements.chain(questions).collect(),
        related: described.map(|d| d.related.clone()).unwrap_or_default(),
        officer: fit(&resource.officer),
        holder,
        keywords,
        share_type,
        share_condition,
    }
}

/// `/catalogue.xml`.
pub(super) async fn catalogue(State(served): Shared) -> Response {
    let rules = served.flow.chain().rules();
    let (_, roster) = served.flow.chain().roster();
    let entries = served.flow.catalogue().all().iter().map(|listed| entry(&roster, listed)).collect();
    match (Document { name: &rules.genesis.name, entries }).render() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/xml; charset=utf-8")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{DescribeResource, Resource};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn resource(share: Value) -> Arc<Resource> {
        let resource = json!({
            "id": "tax.clearance", "version": 3, "title": { "zh": "完税 <信息>\u{7}", "en": "Tax clearance" }, "holder": "tax",
            "officer": "征管处", "subject": "unit", "share": share, "basis": "税收征管法", "standard": "GB/T 1", "update": "weekly",
            "fields": [{ "id": "amount", "element": "money.fen", "title": { "zh": "税额", "en": "Amount" }, "sensitivity": 2 }],
            "predicates": [{ "id": "paid", "title": { "zh": "是否完税", "en": "Paid" } }],
        });
        Arc::new(serde_json::from_value(resource).unwrap())
    }

    fn render(listed: Listed) -> String {
        let roster = Roster { epoch: 0, protocol: 1, approvals: 1, members: vec![] };
        Document { name: "演示", entries: vec![entry(&roster, &listed)] }.render().unwrap()
    }

    fn element<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        text.split(&open).skip(1).map(|rest| rest.split(&close).next().unwrap()).collect()
    }

    #[test]
    fn every_mandatory_element_is_there_described_or_not() {
        let bare = Listed {
            resource: resource(json!("conditional")),
            description: None,
            published_ms: 0,
            changed_ms: 0,
        };
        let described: DescribeResource = serde_json::from_value(json!({
            "resource": "tax.clearance", "version": 1, "description": {
                "about": { "zh": "房屋交易税款是否缴清", "en": "Whether tax was paid" },
                "keywords": [{ "zh": "契税", "en": "deed tax" }],
                "category": { "scheme": "主题分类", "name": { "zh": "税务", "en": "Taxation" }, "code": "ZCC00" },
                "code": "307021022100/000009",
                "process": { "zh": "征收", "en": "Collection" }, "scope": { "zh": "全市", "en": "The city" },
                "format": "数据库", "open": "", "related": ["307021022100/000010"],
            },
        }))
        .unwrap();
        let full = Listed {
            resource: resource(json!({ "not_shared": { "citation": "某法第九条" } })),
            description: Some(Arc::new(described)),
            published_ms: 1_795_449_600_000,
            changed_ms: 1_795_449_600_000 + 86_400_000,
        };
        let (bare, full) = (render(bare), render(full));
        for name in [
            "mdId",
            "resTitle",
            "pubDate",
            "abstract",
            "rpOrgName",
            "keyword",
            "cateStd",
            "cateName",
            "cateCode",
            "resID",
        ] {
            for text in [&bare, &full] {
                assert!(element(text, name).iter().all(|v| !v.is_empty()), "{name} in {text}");
                assert!(!element(text, name).is_empty(), "{name} in {text}");
            }
        }
        assert!(!bare.contains("<信息>") && !bare.contains('\u{7}'), "{bare}");
        assert_eq!(element(&bare, "shareType"), ["2"]);
        assert_eq!(element(&bare, "updateCycle"), ["每周"]);
        assert_eq!(element(&bare, "dataElement"), ["money.fen", "yes_no"]);
        assert_eq!(element(&full, "resID"), ["307021022100/000009"]);
        assert_eq!(element(&full, "keyword"), ["契税"]);
        assert_eq!(element(&full, "shareCondition"), ["某法第九条"]);
        assert_eq!(element(&full, "isOpen"), ["1"]);
        assert_eq!(element(&full, "relatedCode"), ["307021022100/000010"]);
        assert_eq!(
            (element(&full, "pubDate"), element(&full, "mdDateUpd")),
            (vec!["2026-11-24"], vec!["2026-11-25"])
        );
    }
}
