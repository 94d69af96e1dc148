//! Programs that others wrote read what this one writes: DuckDB and the deltalake package the tables, CKAN's own client the portal,
//! and the official SHACL engine the linked data. They come from PyPI; where that cannot be reached, this says "skipped".

mod common;

use common::{Place, person, visits};
use std::{
    path::PathBuf,
    process::{Child, Command},
    sync::OnceLock,
    time::Duration,
};

/// A folder with the packages, installed once for a checkout.
fn packages() -> Option<PathBuf> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    INSTALLED.get_or_init(install).clone()
}

fn install() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("python-3");
    if folder.join("done").exists() {
        return Some(folder);
    }
    let installed = Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-warn-conflicts",
            "--target",
        ])
        .arg(&folder)
        .args([
            "duckdb==1.4.*",
            "deltalake==1.*",
            "ckanapi==4.*",
            "pyshacl==0.30.*",
            "moto[s3]==5.*",
            "flask",
            "flask-cors",
        ])
        .status();
    if !installed.is_ok_and(|status| status.success()) {
        println!("skipped: python3 with pip and PyPI is needed for independent clients");
        return None;
    }
    std::fs::write(folder.join("done"), "").expect("written");
    Some(folder)
}

/// A process that ends with its test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn python(folder: &PathBuf, script: &str, arguments: &[&str]) -> String {
    let out = Command::new("python3")
        .arg("-c")
        .arg(script)
        .args(arguments)
        .env("PYTHONPATH", folder)
        .output()
        .expect("python3");
    assert!(
        out.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

#[test]
fn tables_and_portal_are_read_by_programs_others_wrote() {
    let Some(packages) = packages() else { return };
    let place = Place::visits();
    for batch in 0..6 {
        place.write("a.csv", visits(batch * 500..batch * 500 + 500, 2));
        place.json(&["ingest", "hall.visits", "a.csv"], "");
    }
    place.json(&["erase", "hall.visits"], &person(7));
    let table = place.path().join("data/hall.visits");
    let table = table.to_str().unwrap();
    // DuckDB's own delta reader is an extension that has to be fetched; it reads the files that the deltalake package names
    let script = "
import sys, duckdb
from deltalake import DeltaTable
table = DeltaTable(sys.argv[1])
uris = table.file_uris()
found = duckdb.execute('select count(*), count(distinct subject_key), sum(fee), min(\"on\"), count(distinct kind) from read_parquet(?)', [uris]).fetchone()
print(sorted(f.name for f in table.schema().fields), *found)
";
    let said = python(&packages, script, &[table]);
    assert!(
        said.starts_with("['district', 'fee', 'kind', 'on', 'record', 'subject_key'] 5998 2999 "),
        "{said}"
    );
    assert!(said.ends_with("2026-11-01 2"), "{said}");

    let plans = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../open-data/plans");
    for plan in std::fs::read_dir(plans).unwrap() {
        place.json(&["publish", plan.unwrap().path().to_str().unwrap()], "");
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let _served = Started(place.command(&["serve"]).env("TONGBAN_LAKE_LISTEN", &address).spawn().unwrap());
    for _ in 0..100 {
        if std::net::TcpStream::connect(&address).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let script = "
import sys
from ckanapi import RemoteCKAN, NotFound
c = RemoteCKAN('http://' + sys.argv[1])
names = c.action.package_list()
assert len(names) == 6, names
found = c.action.package_search(q='airports', rows=5, **{'facet.field': ['groups']})
assert found['count'] == 1 and found['results'][0]['name'] == 'transport.airports', found
shown = c.action.package_show(id='science.iris')
assert {r['format'] for r in shown['resources']} == {'CSV', 'JSON', 'XLSX', 'Parquet'}
for resource in shown['resources']:
    assert c.action.resource_show(id=resource['id'])['package_id'] == 'science.iris'
rows = c.action.datastore_search(resource_id='science.iris:csv', filters={'kind': 'setosa'}, limit=5)
assert rows['total'] == 50 and len(rows['records']) == 5, rows
assert c.action.organization_show(id='data')['package_count'] == 6
assert len(c.action.group_list(all_fields=True)) >= 4
assert 'weather' in c.action.tag_list()
assert c.action.status_show()['ckan_version']
try:
    c.action.package_show(id='nothing')
    raise AssertionError('found')
except NotFound:
    pass
import duckdb, urllib.request
for form in ['csv', 'json', 'parquet']:
    with urllib.request.urlopen(f'http://{sys.argv[1]}/open/science.wine/v1/data.{form}') as answer:
        open(f'{sys.argv[2]}/wine.{form}', 'wb').write(answer.read())
    count = duckdb.execute(f\"select count(*), round(avg(alcohol), 3) from '{sys.argv[2]}/wine.{form}'\").fetchone()
    assert count == (178, 13.001), (form, count)
print('good')
";
    let said = python(&packages, script, &[&address, place.path().to_str().unwrap()]);
    assert_eq!(said, "good");
    // the two forms of the linked data are one graph, and it has what DCAT-AP demands of catalogue, data sets and distributions
    let shapes = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dcat-ap-mandatory.ttl");
    let script = "
import sys, urllib.request
from rdflib import Graph
from rdflib.compare import isomorphic
from pyshacl import validate
get = lambda path: urllib.request.urlopen(f'http://{sys.argv[1]}/{path}').read().decode()
linked = Graph().parse(data=get('catalog.jsonld'), format='json-ld')
turtle = Graph().parse(data=get('catalog.ttl'), format='turtle')
assert len(linked) > 400 and isomorphic(linked, turtle), (len(linked), len(turtle))
conforms, _, text = validate(linked, shacl_graph=Graph().parse(sys.argv[2]), advanced=True)
assert conforms, text
print('good')
";
    let said = python(&packages, script, &[&address, shapes.to_str().unwrap()]);
    assert_eq!(said, "good");
}

#[test]
fn tables_lie_in_an_s3_compatible_store_as_well() {
    let Some(packages) = packages() else { return };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Command::new("python3")
        .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
        .env("PYTHONPATH", &packages)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("python3");
    let _server = Started(server);
    for _ in 0..300 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let endpoint = format!("http://127.0.0.1:{port}");
    let script = "
import sys, boto3
boto3.client('s3', endpoint_url=sys.argv[1], region_name='us-east-1', aws_access_key_id='k', aws_secret_access_key='s').create_bucket(Bucket='city')
print('good')
";
    assert_eq!(python(&packages, script, &[&endpoint]), "good");
    let place = Place::visits();
    place.write(
        "lake.toml",
        format!("data = \"s3://city/lake\"\n[storage]\naws_endpoint = \"{endpoint}\"\naws_region = \"us-east-1\"\naws_allow_http = \"true\"\n"),
    );
    let run = |arguments: &[&str], input: &str| {
        let mut command = place.command(arguments);
        command.arg("--json").env("AWS_ACCESS_KEY_ID", "k").env("AWS_SECRET_ACCESS_KEY", "s");
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes());
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stdout));
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()
    };
    for batch in 0..6 {
        place.write("a.csv", visits(batch * 100..batch * 100 + 100, 2));
        assert_eq!(run(&["ingest", "hall.visits", "a.csv"], "")["rows"], 200);
        assert_eq!(run(&["ingest", "hall.visits", "a.csv"], "")["rows"], 0);
    }
    assert_eq!(run(&["lookup", "hall.visits"], &person(321))["rows"].as_array().unwrap().len(), 2);
    assert_eq!(run(&["compact", "hall.visits", "--full"], "")["runs"], 1);
    assert_eq!(
        run(&["query", "--role", "statistician", "select count(*) as n from hall_visits"], "")["rows"][0]["n"],
        "1200"
    );
    assert_eq!(run(&["erase", "hall.visits"], &person(321))["rows"], 2);
    assert_eq!(run(&["stats", "hall.visits"], "")["rows"], 1198);
    assert!(!place.path().join("data").exists(), "nothing is beside the store");
}
