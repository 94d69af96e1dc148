//! The catalogue as linked data, for other catalogues to harvest: DCAT-AP 3.0 in JSON-LD 1.1.
//!
//! Every entry is a `dcat:Dataset` without a distribution: there is nothing to download, an entry is asked call by call. What an
//! entry answers stands in its keywords, in both languages.

use crate::api::Shared;
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use flow::Listed;
use model::{ChainId, DepartmentId, Roster, ShareClass, SubjectKind, Text};
use serde_json::{Map, Value, json};

/// The EU's authority tables that DCAT-AP takes its controlled values from.
const AUTHORITY: &str = "http://publications.europa.eu/resource/authority";

fn tagged(text: &Text) -> Value {
    json!([{ "@language": "zh-CN", "@value": text.zh }, { "@language": "en", "@value": text.en }])
}

/// How often a resource is brought up to date, as the authority table names it; none for words it does not know.
fn frequency(update: &str) -> Option<&'static str> {
    Some(match update {
        "realtime" => "CONT",
        "hourly" => "HOURLY",
        "daily" => "DAILY",
        "weekly" => "WEEKLY",
        "monthly" => "MONTHLY",
        "quarterly" => "QUARTERLY",
        "yearly" => "ANNUAL",
        "irregular" => "IRREG",
        "never" => "NEVER",
        _ => return None,
    })
}

fn agent(chain: &ChainId, roster: &Roster, id: &DepartmentId) -> Value {
    let name = roster.member(id).map_or_else(|| json!(id.as_str()), |member| tagged(&member.title));
    json!({ "@id": format!("urn:tongban:{chain}:department:{id}"), "@type": "foaf:Agent", "foaf:name": name })
}

fn dataset(chain: &ChainId, roster: &Roster, listed: &Listed) -> Value {
    let (resource, described) = (&listed.resource, listed.description.as_ref().map(|d| &d.description));
    let about = match resource.subject {
        SubjectKind::Person => ["一个自然人", "one person"],
        SubjectKind::Organisation => ["一个组织", "one organisation"],
        SubjectKind::Unit => ["一个不动产单元", "one real-estate unit"],
    };
    let titles: Vec<&Text> = resource
        .fields
        .iter()
        .map(|f| &f.title)
        .chain(resource.predicates.iter().map(|p| &p.title))
        .collect();
    let joined = |pick: fn(&Text) -> &str, by| titles.iter().map(|t| pick(t)).collect::<Vec<_>>().join(by);
    let asked = Text {
        zh: format!("每次查询{}：{}", about[0], joined(|t| &t.zh, "、")),
        en: format!("Asked about {} at a time: {}", about[1], joined(|t| &t.en, ", ")),
    };
    let description = match described {
        Some(d) => {
            Text { zh: format!("{} {}", d.about.zh, asked.zh), en: format!("{} {}", d.about.en, asked.en) }
        }
        None => asked,
    };
    let words = titles.iter().copied().chain(described.iter().flat_map(|d| &d.keywords));
    let (access, rights) = match &resource.share {
        ShareClass::Unconditional => ("RESTRICTED", "无条件共享 (shared with every department)".to_owned()),
        ShareClass::Conditional => {
            ("RESTRICTED", "有条件共享 (shared under a consent or an approved statutory basis)".to_owned())
        }
        ShareClass::NotShared { citation } => ("NON_PUBLIC", format!("不予共享 (not shared): {citation}")),
    };
    let mut dataset = json!({
        "@id": format!("urn:tongban:{chain}:resource:{}", resource.id),
        "@type": "dcat:Dataset",
        "dct:title": tagged(&resource.title),
        "dct:description": tagged(&description),
        "dct:identifier": resource.id.as_str(),
        "dcat:version": resource.version.to_string(),
        "dct:publisher": agent(chain, roster, &resource.holder),
        "dcat:contactPoint": { "@type": ["vcard:Kind", "vcard:Organization"], "vcard:fn": resource.officer },
        "dct:accessRights": { "@id": format!("{AUTHORITY}/access-right/{access}"), "@type": "dct:RightsStatement" },
        "dct:rights": { "@type": "dct:RightsStatement", "rdfs:label": rights },
        "dct:provenance": { "@type": "dct:ProvenanceStatement", "rdfs:label": resource.basis },
        "dct:conformsTo": { "@type": "dct:Standard", "dct:title": resource.standard },
        "dcat:keyword": words.flat_map(|t| tagged(t).as_array().cloned()).flatten().collect::<Vec<_>>(),
    });
    if let Some(word) = frequency(&resource.update) {
        dataset["dct:accrualPeriodicity"] =
            json!({ "@id": format!("{AUTHORITY}/frequency/{word}"), "@type": "dct:Frequency" });
    }
    dataset
}

/// The whole document.
fn document(chain: &ChainId, name: &str, roster: &Roster, resources: &[Listed]) -> Value {
    let prefixes = [
        ("dcat", "http://www.w3.org/ns/dcat#"),
        ("dct", "http://purl.org/dc/terms/"),
        ("foaf", "http://xmlns.com/foaf/0.1/"),
        ("vcard", "http://www.w3.org/2006/vcard/ns#"),
        ("rdfs", "http://www.w3.org/2000/01/rdf-schema#"),
    ];
    let context: Map<String, Value> =
        prefixes.map(|(prefix, iri)| (prefix.to_owned(), json!(iri))).into_iter().collect();
    let title = Text { zh: format!("{name} 数据资源目录"), en: format!("Data catalogue of {name}") };
    let description = Text {
        zh: "各部门可以回答什么、依据什么、由谁负责；目录只有条目，没有数据。".into(),
        en: "What each department can answer, on which basis, and who is responsible; it lists entries, never data.".into(),
    };
    let consortium = json!({
        "@id": format!("urn:tongban:{chain}"), "@type": "foaf:Agent", "foaf:name": name,
    });
    json!({
        "@context": context,
        "@id": format!("urn:tongban:{chain}:catalogue"),
        "@type": "dcat:Catalog",
        "dct:title": tagged(&title),
        "dct:description": tagged(&description),
        "dct:publisher": consortium,
        "dcat:dataset": resources.iter().map(|r| dataset(chain, roster, r)).collect::<Vec<_>>(),
    })
}

/// `/catalogue.jsonld`.
pub(super) async fn catalogue(State(served): Shared) -> Response {
    let rules = served.flow.chain().rules();
    let (_, roster) = served.flow.chain().roster();
    let document = document(&rules.chain, &rules.genesis.name, &roster, &served.flow.catalogue().all());
    ([(header::CONTENT_TYPE, "application/ld+json")], document.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn resource(share: &str, update: &str) -> Listed {
        let resource = serde_json::from_value(json!({
            "id": "tax.clearance", "version": 3, "title": { "zh": "完税", "en": "Tax clearance" }, "holder": "tax",
            "officer": "征管处", "subject": "unit", "share": serde_json::from_str::<Value>(share).unwrap(), "basis": "税收征管法",
            "standard": "GB/T 1", "update": update,
            "fields": [{ "id": "amount", "element": "fen", "title": { "zh": "税额", "en": "Amount" }, "sensitivity": 2 }],
            "predicates": [{ "id": "paid", "title": { "zh": "是否完税", "en": "Paid" } }],
        }))
        .unwrap();
        Listed { resource: Arc::new(resource), description: None, published_ms: 0, changed_ms: 0 }
    }

    #[test]
    fn every_entry_has_what_dcat_ap_demands() {
        let roster = Roster { epoch: 0, protocol: 1, approvals: 1, members: vec![] };
        let entries = [
            resource(r#""conditional""#, "realtime"),
            resource(r#"{"not_shared":{"citation":"某法第九条"}}"#, "见公告"),
        ];
        let document = document(&ChainId([1; 32]), "演示", &roster, &entries);
        for mandatory in ["dct:title", "dct:description", "dct:publisher"] {
            assert!(document[mandatory].is_object() || document[mandatory].is_array(), "{mandatory}");
        }
        let datasets = document["dcat:dataset"].as_array().unwrap();
        assert_eq!(datasets.len(), 2);
        let first = &datasets[0];
        assert_eq!(first["dct:title"][0], json!({ "@language": "zh-CN", "@value": "完税" }));
        assert_eq!(
            first["dct:description"][1]["@value"],
            "Asked about one real-estate unit at a time: Amount, Paid"
        );
        assert_eq!(first["dcat:keyword"].as_array().unwrap().len(), 4);
        assert_eq!(first["dct:accrualPeriodicity"]["@id"], format!("{AUTHORITY}/frequency/CONT"));
        assert_eq!(first["dct:accessRights"]["@id"], format!("{AUTHORITY}/access-right/RESTRICTED"));
        let second = &datasets[1];
        assert_eq!(second["dct:accessRights"]["@id"], format!("{AUTHORITY}/access-right/NON_PUBLIC"));
        assert_eq!(second["dct:rights"]["rdfs:label"], "不予共享 (not shared): 某法第九条");
        assert!(second.get("dct:accrualPeriodicity").is_none(), "words the table does not know are left out");
        // every prefix that is used is declared
        let text = document.to_string();
        for used in
            text.split('"').filter(|t| t.contains(':') && !t.starts_with("http") && !t.starts_with("urn:"))
        {
            let prefix = used.split(':').next().unwrap();
            let name =
                prefix.len() < 8 && prefix.bytes().all(|b| b.is_ascii_lowercase()) && !prefix.is_empty();
            assert!(!name || document["@context"].get(prefix).is_some(), "{used}");
        }
    }
}
