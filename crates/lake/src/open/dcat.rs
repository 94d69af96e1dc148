//! The portal as linked data: DCAT-AP 3.0.1 in JSON-LD and Turtle, page by page.

use super::{
    plan::{Access, Entry, UPDATES},
    portal::Catalogue,
};
use crate::open::plan::OpenFile;
use serde_json::{Value, json};

/// The EU's authority tables that DCAT-AP takes its controlled values from.
const AUTHORITY: &str = "http://publications.europa.eu/resource/authority";
/// Entries of a page.
pub const PAGE: usize = 500;

const PREFIXES: [(&str, &str); 8] = [
    ("dcat", "http://www.w3.org/ns/dcat#"),
    ("dct", "http://purl.org/dc/terms/"),
    ("foaf", "http://xmlns.com/foaf/0.1/"),
    ("vcard", "http://www.w3.org/2006/vcard/ns#"),
    ("rdfs", "http://www.w3.org/2000/01/rdf-schema#"),
    ("xsd", "http://www.w3.org/2001/XMLSchema#"),
    ("spdx", "http://spdx.org/rdf/terms#"),
    ("hydra", "http://www.w3.org/ns/hydra/core#"),
];

fn tagged(text: &model::Text) -> Value {
    json!([{ "@language": "zh-CN", "@value": text.zh }, { "@language": "en", "@value": text.en }])
}

fn time(ms: u64) -> Value {
    json!({ "@type": "xsd:dateTime", "@value": iso(ms) })
}

/// A time as RFC 3339 writes it, in UTC.
pub fn iso(ms: u64) -> String {
    chrono::DateTime::from_timestamp_millis(ms as i64)
        .map_or_else(String::new, |t| t.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The media type of a format.
pub fn media_type(format: &str) -> &'static str {
    match format {
        "CSV" => "text/csv",
        "JSON" => "application/json",
        "XLSX" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        _ => "application/vnd.apache.parquet",
    }
}

fn file_type(format: &str) -> &'static str {
    match format {
        "CSV" => "CSV",
        "JSON" => "JSON",
        "XLSX" => "XLSX",
        _ => "PARQUET",
    }
}

fn distribution(base: &str, entry: &Entry, file: &OpenFile) -> Value {
    let page = format!("{base}/open/{}", entry.id());
    let download = format!("{page}/v{}/{}", entry.version, file.name);
    let media = format!("https://www.iana.org/assignments/media-types/{}", media_type(&file.format));
    let mut out = json!({
        "@id": format!("{download}#distribution"),
        "@type": "dcat:Distribution",
        "dct:title": file.name,
        "dcat:accessURL": { "@id": page, "@type": "rdfs:Resource" },
        "dct:format": { "@id": format!("{AUTHORITY}/file-type/{}", file_type(&file.format)), "@type": "dct:MediaTypeOrExtent" },
        "dcat:mediaType": { "@id": media, "@type": "dct:MediaType" },
        "dcat:byteSize": { "@type": "xsd:nonNegativeInteger", "@value": file.bytes.to_string() },
        "dct:license": licence(base, entry),
        "spdx:checksum": {
            "@id": format!("{download}#checksum"),
            "@type": "spdx:Checksum",
            "spdx:algorithm": { "@id": "http://spdx.org/rdf/terms#checksumAlgorithm_sha256", "@type": "spdx:ChecksumAlgorithm" },
            "spdx:checksumValue": { "@type": "xsd:hexBinary", "@value": file.sha256 },
        },
        "dct:issued": time(entry.modified_ms),
    });
    if entry.plan.access == Access::Open {
        out["dcat:downloadURL"] = json!({ "@id": download, "@type": "rdfs:Resource" });
    }
    out
}

fn licence(base: &str, entry: &Entry) -> Value {
    let id = match &entry.plan.licence.url {
        Some(url) => url.clone(),
        None => format!("{base}/open?licence={}", entry.plan.licence.id),
    };
    json!({ "@id": id, "@type": "dct:LicenseDocument" })
}

fn dataset(base: &str, entry: &Entry) -> Value {
    let plan = &entry.plan;
    let access = if plan.access == Access::Open { "PUBLIC" } else { "RESTRICTED" };
    let mut out = json!({
        "@id": format!("{base}/open/{}#dataset", entry.id()),
        "@type": "dcat:Dataset",
        "dct:title": tagged(&plan.title),
        "dct:description": tagged(&plan.about),
        "dct:identifier": entry.id(),
        "dcat:version": entry.version.to_string(),
        "dct:issued": time(entry.issued_ms),
        "dct:modified": time(entry.modified_ms),
        "dct:publisher": agent(base, plan.department.as_str(), &plan.department_title),
        "dcat:contactPoint": {
            "@id": format!("{base}/open/{}#contact", entry.id()),
            "@type": ["vcard:Kind", "vcard:Organization"], "vcard:fn": plan.officer,
        },
        "dct:accessRights": { "@id": format!("{AUTHORITY}/access-right/{access}"), "@type": "dct:RightsStatement" },
        "dcat:theme": { "@id": format!("{AUTHORITY}/data-theme/{}", plan.theme), "@type": "http://www.w3.org/2004/02/skos/core#Concept" },
        "dcat:landingPage": { "@id": format!("{base}/open/{}", entry.id()), "@type": "foaf:Document" },
        "dcat:keyword": plan.keywords.iter().flat_map(|k| tagged(k).as_array().cloned().unwrap_or_default()).collect::<Vec<_>>(),
        "dcat:distribution": entry.files.iter().map(|f| distribution(base, entry, f)).collect::<Vec<_>>(),
    });
    if let Some((_, word)) = UPDATES.iter().find(|(word, _)| *word == plan.update) {
        out["dct:accrualPeriodicity"] =
            json!({ "@id": format!("{AUTHORITY}/frequency/{word}"), "@type": "dct:Frequency" });
    }
    if let Some(source) = &plan.source {
        out["dct:provenance"] = json!({
            "@id": format!("{base}/open/{}#provenance", entry.id()), "@type": "dct:ProvenanceStatement", "rdfs:label": source,
        });
    }
    out
}

fn agent(base: &str, id: &str, title: &model::Text) -> Value {
    json!({ "@id": format!("{base}/open?department={id}"), "@type": "foaf:Agent", "foaf:name": tagged(title) })
}

/// One page of the catalogue, from 1.
pub fn document(base: &str, catalogue: &Catalogue, page: usize) -> Value {
    let served: Vec<&Entry> = catalogue.entries.iter().filter(|e| e.withdrawn.is_none()).collect();
    let pages = served.len().div_ceil(PAGE).max(1);
    let title = model::Text { zh: "开放数据目录".into(), en: "Open data catalogue".into() };
    let about = model::Text {
        zh: "各部门经披露风险检查、由责任人决定公开的数据集。".into(),
        en: "Data sets that departments published after a check of disclosure risk and a responsible officer's decision.".into(),
    };
    let datasets: Vec<Value> =
        served.iter().skip((page - 1) * PAGE).take(PAGE).map(|e| dataset(base, e)).collect();
    let publisher = model::Text { zh: "政务数据平台".into(), en: "Government data platform".into() };
    let context: serde_json::Map<String, Value> =
        PREFIXES.map(|(prefix, iri)| (prefix.to_owned(), json!(iri))).into_iter().collect();
    let mut graph = vec![json!({
        "@id": format!("{base}/open#catalogue"),
        "@type": "dcat:Catalog",
        "dct:title": tagged(&title),
        "dct:description": tagged(&about),
        "dct:publisher": { "@id": format!("{base}/open#publisher"), "@type": "foaf:Agent", "foaf:name": tagged(&publisher) },
        "foaf:homepage": { "@id": format!("{base}/open"), "@type": "foaf:Document" },
        "dcat:dataset": datasets,
    })];
    if pages > 1 {
        let address = |n: usize| json!({ "@id": format!("{base}/catalog.jsonld?page={n}") });
        let mut view = json!({
            "@id": format!("{base}/catalog.jsonld?page={page}"),
            "@type": "hydra:PartialCollectionView",
            "hydra:first": address(1),
            "hydra:last": address(pages),
        });
        if page < pages {
            view["hydra:next"] = address(page + 1);
        }
        graph.push(view);
    }
    json!({ "@context": context, "@graph": graph })
}

/// The same as Turtle.
pub fn turtle(document: &Value) -> String {
    let mut out = String::new();
    for (prefix, iri) in PREFIXES {
        out += &format!("@prefix {prefix}: <{iri}> .\n");
    }
    for node in document["@graph"].as_array().into_iter().flatten() {
        let mut later = vec![node];
        while let Some(node) = later.pop() {
            let Some(id) = node["@id"].as_str() else { continue };
            let mut lines = Vec::new();
            for (name, value) in node.as_object().into_iter().flatten().filter(|(name, _)| *name != "@id") {
                let values = value.as_array().map_or_else(|| vec![value], |list| list.iter().collect());
                let terms: Vec<String> = values.into_iter().map(|v| term(name, v, &mut later)).collect();
                if !terms.is_empty() {
                    let name = if name == "@type" { "a" } else { name };
                    lines.push(format!("    {name} {}", terms.join(", ")));
                }
            }
            // what is only named elsewhere has nothing to say of itself
            if !lines.is_empty() {
                out += &format!("\n{}\n{} .\n", reference(id), lines.join(" ;\n"));
            }
        }
    }
    out
}

fn reference(iri: &str) -> String {
    let short =
        PREFIXES.iter().any(|(prefix, _)| iri.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(':')));
    if short {
        iri.to_owned()
    } else {
        format!("<{}>", iri.replace(['<', '>', '"', ' ', '{', '}', '|', '\\', '^', '`'], "_"))
    }
}

fn term<'a>(name: &str, value: &'a Value, later: &mut Vec<&'a Value>) -> String {
    if name == "@type" {
        return reference(value.as_str().unwrap_or_default());
    }
    if let Some(id) = value["@id"].as_str() {
        later.push(value);
        return reference(id);
    }
    let text = |text: &str| serde_json::to_string(text).unwrap_or_default();
    let literal = text(value["@value"].as_str().or(value.as_str()).unwrap_or_default());
    match (value["@language"].as_str(), value["@type"].as_str()) {
        (Some(language), _) => format!("{literal}@{language}"),
        (None, Some(kind)) => format!("{literal}^^{kind}"),
        (None, None) => literal,
    }
}
