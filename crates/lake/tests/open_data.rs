//! The portal from a plan to a browser's, a harvester's and a program's request.

mod common;

use common::{Place, visits};
use serde_json::{Value, json};
use std::{path::Path, process::Child, time::Duration};

const BY_DISTRICT: &str = r#"
format: 1
id: visits.by-district
title: { zh: 各区办件量, en: Visits by district }
about: { zh: 每个区办了多少件。, en: How many visits each district had. }
department: bureau
department_title: { zh: 政务服务局, en: Service bureau }
officer: 数据专员
licence: { id: CC-BY-4.0, title: Creative Commons Attribution 4.0 }
update: monthly
theme: GOVE
keywords: [{ zh: 办件, en: visits }]
rows: totals
from: { query: { role: statistician, sql: "select district, count(*) as n from hall_visits group by district order by district" } }
columns:
  - { id: district, type: code, title: { zh: 区, en: District } }
  - { id: n, type: integer, role: people, title: { zh: 件数, en: Visits } }
chart: { kind: bar, x: district, y: n }
"#;

/// A portal that is served, and what asks it.
struct Portal {
    place: Place,
    child: Child,
    base: String,
    client: reqwest::blocking::Client,
}

impl Drop for Portal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Portal {
    fn serve(place: Place, settings: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        place.write("lake.toml", format!("listen = \"127.0.0.1:{port}\"\n{settings}"));
        let child = place.command(&["serve"]).spawn().unwrap();
        let base = format!("http://127.0.0.1:{port}");
        gateway::use_tls();
        let client =
            reqwest::blocking::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let portal = Self { place, child, base, client };
        portal.until("it is served", || portal.client.get(format!("{}/healthz", portal.base)).send().is_ok());
        portal
    }

    fn until(&self, what: &str, is: impl Fn() -> bool) {
        for _ in 0..200 {
            if is() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("never: {what}");
    }

    fn get(&self, path: &str) -> (u16, String) {
        let answer =
            self.client.get(format!("{}{path}", self.base)).header("accept-language", "en").send().unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    }

    fn json(&self, path: &str) -> Value {
        let (status, text) = self.get(path);
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}"))
    }

    fn action(&self, action: &str, body: Value) -> Value {
        let answer =
            self.client.post(format!("{}/api/3/action/{action}", self.base)).json(&body).send().unwrap();
        let answer: Value = answer.json().unwrap();
        assert_eq!(answer["success"], true, "{action}: {answer}");
        answer["result"].clone()
    }
}

/// The repository's real open data.
fn plans() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../open-data/plans");
    let mut plans: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path().display().to_string()).collect();
    plans.sort();
    plans
}

#[test]
fn real_data_sets_are_published_found_and_fetched() {
    let place = Place::visits();
    place.write("a.csv", visits(0..300, 1));
    place.json(&["ingest", "hall.visits", "a.csv"], "");
    place.write("by-district.yaml", BY_DISTRICT);
    for plan in plans() {
        let published = place.json(&["publish", &plan], "");
        assert_eq!(published["report"]["passes"], true, "{plan}");
    }
    place.json(&["publish", "by-district.yaml"], "");
    let p = Portal::serve(place, "");
    p.until("seven are served", || {
        p.json("/api/3/action/package_list")["result"].as_array().is_some_and(|l| l.len() == 7)
    });

    // found in both languages, by words and facets
    let count =
        |query: &str| p.json(&format!("/api/3/action/package_search?{query}"))["result"]["count"].clone();
    assert_eq!(
        [
            count("q=机场"),
            count("q=airports"),
            count("q=降水"),
            count("q=Precipitation"),
            count("q=nothing-like-it")
        ],
        [1, 1, 1, 1, 0]
    );
    assert_eq!(
        [
            count("fq=groups:ECON"),
            count("fq=res_format:CSV"),
            count("fq=organization:bureau"),
            count("q=办件&fq=theme:GOVE")
        ],
        [1, 7, 1, 1]
    );
    let (status, page) = p.get("/open?q=airports");
    assert!(
        status == 200 && page.contains("Airports of the United States") && !page.contains("Iris flowers"),
        "{page}"
    );
    let (_, page) = p.get("/open?q=%3Cscript%3Ealert(1)%3C%2Fscript%3E");
    assert!(!page.contains("<script>alert"), "what is searched for is text");

    // a page each: chart, map, dictionary, machine-readable description
    let (_, page) = p.get("/open/weather.seattle");
    for part in
        ["<svg class=\"chart\"", "application/ld+json", "Data dictionary", "2012-01-01", "data.parquet"]
    {
        assert!(page.contains(part), "{part}");
    }
    assert!(p.get("/open/transport.airports").1.contains("<svg class=\"map\""));
    let chinese = p.client.get(format!("{}/open/weather.seattle?lang=zh-CN", p.base)).send().unwrap();
    assert!(
        chinese.headers().contains_key("set-cookie") && chinese.text().unwrap().contains("西雅图逐日天气")
    );
    assert_eq!(p.get("/open/nothing").0, 404);
    assert_eq!(p.get("/nowhere").0, 404);

    // files whole and in pieces, and nothing beside them
    let file = format!("{}/open/weather.seattle/v1/data.csv", p.base);
    let whole = p.client.get(&file).send().unwrap();
    assert_eq!(whole.headers()["content-disposition"], "attachment; filename=\"weather.seattle.v1.csv\"");
    let whole = whole.text().unwrap();
    assert_eq!(whole.lines().count(), 1462);
    let piece = p.client.get(&file).header("range", "bytes=100-199").send().unwrap();
    assert_eq!(piece.status(), 206);
    assert_eq!(piece.text().unwrap(), whole[100..200]);
    for path in [
        "v2/data.csv",
        "v0/data.csv",
        "v1/words.jsonl",
        "v1/..%2f..%2fusage.json",
        "v1/data.exe",
        "x/data.csv",
    ] {
        assert_eq!(p.get(&format!("/open/weather.seattle/{path}")).0, 404, "{path}");
    }
    let (_, list) = p.get("/open/science.iris/v1/data.json");
    let list: Vec<Value> = serde_json::from_str(&list).unwrap();
    assert_eq!((list.len(), &list[0]["sepal_length"]), (150, &json!(5.1)));

    // rows for programs: a cursor, filters, and what is wrong with them
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = p.json(&format!("/api/v1/open/science.iris/rows?limit=40&kind=setosa{after}"));
        assert_eq!(page["total"], 50);
        seen.extend(page["rows"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 50);
    for (query, code) in
        [("nothing=1", 422), ("limit=0", 422), ("limit=x", 422), ("after=7", 422), ("after=9-1", 410)]
    {
        assert_eq!(p.get(&format!("/api/v1/open/science.iris/rows?{query}")).0, code, "{query}");
    }

    // CKAN's API
    let shown = p.action("package_show", json!({ "id": "science.wine" }));
    assert_eq!((&shown["num_resources"], &shown["license_id"]), (&json!(4), &json!("CC-BY-4.0")));
    let found = p.action(
        "datastore_search",
        json!({ "resource_id": "science.wine:csv", "filters": { "kind": ["1"] }, "sort": "alcohol desc", "limit": 3, "fields": ["alcohol", "kind"] }),
    );
    assert_eq!((&found["total"], &found["records"][0]["alcohol"]), (&json!(59), &json!(14.83)));
    let hostile = p
        .action("datastore_search", json!({ "resource_id": "science.wine:csv", "q": "'; drop table x; --" }));
    assert_eq!(hostile["total"], 0);
    let facets = p.action("package_search", json!({ "facet.field": ["groups", "organization"], "rows": 0 }));
    assert_eq!(facets["facets"]["organization"]["data"], 6);
    assert_eq!(p.get("/api/3/action/package_show?id=nothing").0, 404);
    assert_eq!(p.get("/api/3/action/package_delete?id=science.wine").0, 404);
    assert_eq!(p.get("/api/3/action/package_search?rows=x").0, 409);
    assert_eq!(
        p.get("/api/3/action/datastore_search?resource_id=science.wine:csv&filters=%7B%22a%22:1%7D").0,
        409
    );

    // linked data and the map of the site
    let document = p.json("/catalog.jsonld");
    assert_eq!(document["@graph"][0]["dcat:dataset"].as_array().unwrap().len(), 7);
    assert!(p.get("/catalog.ttl").1.contains("a dcat:Catalog"));
    assert_eq!(p.get("/sitemap.xml").1.matches("<loc>").count(), 8);

    // words go to the department and are shown to nobody; what looks like a number of a person is refused
    let words = |fields: &[(&str, &str)]| {
        p.client
            .post(format!("{}/open/science.iris/words", p.base))
            .form(fields)
            .send()
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(words(&[("kind", "feedback"), ("text", "第三行不对")]), 303);
    assert_eq!(words(&[("kind", "feedback"), ("text", "打 13800138000")]), 422);
    assert_eq!(words(&[("kind", "feedback"), ("text", " ")]), 422);
    assert_eq!(words(&[("kind", "spam"), ("text", "x")]), 422);
    let kept = std::fs::read_to_string(p.place.path().join("work/open/science.iris/words.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), 1);
    assert!(!p.get("/open/science.iris").1.contains("第三行不对"));

    // a new version is served without a restart; a cursor of the old one says so; taken back, only the page is left
    let old = p.json("/api/v1/open/visits.by-district/rows?limit=1")["next"].as_str().unwrap().to_owned();
    p.place.write("b.csv", visits(300..600, 1));
    p.place.json(&["ingest", "hall.visits", "b.csv"], "");
    p.place.json(&["publish", "by-district.yaml"], "");
    p.until("version 2 is served", || p.json("/api/v1/open/visits.by-district/rows")["version"] == 2);
    assert_eq!(p.get(&format!("/api/v1/open/visits.by-district/rows?after={old}")).0, 410);
    assert_eq!(p.get("/open/visits.by-district/v1/data.csv").0, 200);
    p.place.json(&["withdraw", "visits.by-district", "--note", "counted twice"], "");
    p.until("it is taken back", || p.get("/open/visits.by-district").0 == 410);
    assert!(p.get("/open/visits.by-district").1.contains("counted twice"));
    assert_eq!([count("q=办件"), count("")], [0, 6], "what was taken back is found no more");
    assert_eq!(p.get("/open/visits.by-district/v2/data.csv").0, 404);
    assert_eq!(p.get("/api/v1/open/visits.by-district/rows").0, 404);

    // a file that was changed on disk is not what was published
    let changed = p.place.path().join("work/open/science.wine/v1/data.csv");
    std::fs::write(&changed, std::fs::read_to_string(&changed).unwrap().replacen("14.23", "99.99", 1))
        .unwrap();
    let (place, path) = (&p.place, p.place.path().to_owned());
    drop(path);
    let second = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut again =
        place.command(&["serve"]).env("TONGBAN_LAKE_LISTEN", format!("127.0.0.1:{second}")).spawn().unwrap();
    let at = |path: &str| {
        p.client.get(format!("http://127.0.0.1:{second}{path}")).send().map(|a| a.status().as_u16())
    };
    p.until("the second portal is served", || at("/healthz").is_ok());
    assert_eq!((at("/open/science.wine").unwrap(), at("/open/science.iris").unwrap()), (404, 200));
    let _ = again.kill();
    let _ = again.wait();
}

#[test]
fn what_tells_about_people_is_not_published() {
    let place = Place::visits();
    place.write("a.csv", visits(0..300, 1));
    place.json(&["ingest", "hall.visits", "a.csv"], "");
    place.write("by-district.yaml", BY_DISTRICT);
    place.json(&["publish", "by-district.yaml"], "");
    // one more person in one district is told by the difference between versions
    place.write("b.csv", visits(300..301, 1));
    place.json(&["ingest", "hall.visits", "b.csv"], "");
    let (code, out, _) = place.run(&["publish", "by-district.yaml"], "");
    assert!(code == 1 && out.contains("differencing"), "{code} {out}");
    place.write("rounded.yaml", BY_DISTRICT.replace("chart:", "round_to: 10\nchart:"));
    place.json(&["publish", "rounded.yaml"], "");
    // a file with identity numbers never passes, whatever the plan accepts
    place.write("people.csv", format!("district,n\n{},7\n", common::person(4)));
    let from_file = BY_DISTRICT.replace("visits.by-district", "visits.people");
    let begin = from_file.find("from:").unwrap();
    let end = from_file[begin..].find('\n').unwrap() + begin;
    let mut plan = from_file.clone();
    plan.replace_range(
        begin..end,
        "from: { file: { path: people.csv } }\naccept: [{ code: resident_id, column: district, reason: no }]",
    );
    place.write("people.yaml", plan);
    let (code, out, err) = place.run(&["publish", "people.yaml"], "");
    assert!(code == 1 && out.contains("resident_id"), "{out}");
    assert!(
        !out.contains(&common::person(4)) && !err.contains(&common::person(4)),
        "the gate repeats nothing of what it found"
    );
    assert!(!place.path().join("work/open/visits.people").exists());
    // plans that cannot be meant
    for (from, to, why) in [
        ("theme: GOVE", "theme: NICE", "`theme` is one of"),
        ("update: monthly", "update: sometimes", "`update` is one of"),
        ("x: district", "x: nothing", "no column"),
        ("officer: 数据专员", "officer: 数据专员\nk: 1", "3 or more"),
        ("role: statistician", "role: stranger", "no data set"),
        ("select district, count(*) as n", "select district, max(fee) as n", "may not ask"),
        ("count(*) as n", "count(*) as m", "have no `n`"),
    ] {
        place.write("odd.yaml", BY_DISTRICT.replacen(from, to, 1));
        let said = place.refused(&["publish", "odd.yaml", "--dry-run"], "");
        assert!(said.contains(why), "{to}: {said}");
    }
    // with a genesis nothing is published without the ledger
    place.write("lake.toml", "genesis = \"genesis.json\"\n");
    place.write("genesis.json", "{}");
    let said = place.refused(&["publish", "rounded.yaml"], "");
    assert!(said.contains("name the department's node"), "{said}");
}

#[test]
fn look_ups_over_http_want_the_token() {
    let place = Place::visits();
    place.write("a.csv", visits(0..50, 2));
    place.json(&["ingest", "hall.visits", "a.csv"], "");
    place.write("token", "a token of the tests\n");
    let p = Portal::serve(place, "token_file = \"token\"\n");
    let ask = |token: &str, path: &str, body: Value| {
        let answer =
            p.client.post(format!("{}{path}", p.base)).bearer_auth(token).json(&body).send().unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    };
    let (right, path) = ("a token of the tests", "/tables/hall.visits/lookup");
    let (status, text) = ask(right, path, json!({ "person": common::person(3) }));
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, answer["rows"].as_array().unwrap().len()), (200, 2));
    assert_eq!(answer["rows"][0]["person"], common::person(3));
    assert!(answer["rows"][0].get("subject_key").is_none());
    let (_, text) = ask(right, path, json!({ "person": common::person(3), "record": "R3-1" }));
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["rows"].as_array().unwrap().len(), 1);
    assert_eq!(ask("another token of theirs", path, json!({ "person": common::person(3) })).0, 401);
    assert_eq!(ask(right, "/tables/nothing/lookup", json!({ "person": common::person(3) })).0, 404);
    for body in [
        json!({}),
        json!({ "record": "R3-0" }),
        json!({ "person": 7 }),
        json!({ "person": "x", "nothing": "y" }),
        json!([]),
    ] {
        assert!(matches!(ask(right, path, body.clone()).0, 415 | 422), "{body}");
    }
    let (status, text) = ask(right, path, json!({ "person": "110101190001011234" }));
    assert!(status == 503 && !text.contains("110101190001011234"), "{text}");
    // rows that come in while it serves are found
    p.place.write("b.csv", visits(60..70, 1));
    p.place.json(&["ingest", "hall.visits", "b.csv"], "");
    p.until("new rows are found", || {
        ask(right, path, json!({ "person": common::person(65) })).1.contains("R65")
    });
}
