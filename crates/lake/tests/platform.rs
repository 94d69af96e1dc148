//! What departments rely on: rows come in once, are found, are counted without telling about anybody, and go when they must.

mod common;

use common::{Place, VISITS, person, visits};
use std::{collections::BTreeSet, io::Write as _, time::Duration};

#[test]
fn one_table_from_five_kinds_of_file() {
    let place = Place::new(&[
        ("visits.yaml", VISITS),
        (
            "gbk.yaml",
            &VISITS
                .replace("hall.visits", "hall.gbk")
                .replace("encoding: utf8", "encoding: gbk, separator: \"|\""),
        ),
    ]);
    let text = visits(0..300, 2);
    let ask = |dataset: &str, n: u64| {
        let found = place.json(&["lookup", dataset], &format!("{}\n", person(n)));
        let mut rows: Vec<String> =
            found["rows"].as_array().unwrap().iter().map(ToString::to_string).collect();
        rows.sort();
        rows
    };
    place.write("visits.csv", &text);
    assert_eq!(place.json(&["ingest", "hall.visits", "visits.csv"], "")["rows"], 600);
    let expected = ask("hall.visits", 7);
    assert_eq!(expected.len(), 2);
    // fields stand in no particular order
    let has = |row: &String| ["西城", "\"fee\":\"1750\"", "2026-11-08"].iter().all(|part| row.contains(part));
    assert_eq!(expected.iter().filter(|row| has(row)).count(), 1, "{expected:?}");
    // GBK with another separator, packed
    let parted = text.replace(',', "|");
    let (gbk, _, _) = encoding_rs::GBK.encode(&parted);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&gbk).unwrap();
    place.write("visits.csv.gz", packed.finish().unwrap());
    assert_eq!(place.json(&["ingest", "hall.gbk", "visits.csv.gz"], "")["rows"], 600);
    assert_eq!(ask("hall.gbk", 7), expected);
    // the same rows as JSON lines, a workbook and Parquet are other batches: only duplicates of rows tell
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    let mut lines = String::new();
    for row in &rows[1..] {
        let object: serde_json::Map<String, serde_json::Value> =
            rows[0].iter().zip(row).map(|(h, v)| ((*h).to_owned(), (*v).into())).collect();
        lines += &format!("{}\n", serde_json::Value::Object(object));
    }
    place.write("visits.jsonl", lines);
    let mut book = rust_xlsxwriter::Workbook::new();
    let sheet = book.add_worksheet();
    for (at, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            sheet.write_string(at as u32, column as u16, *cell).unwrap();
        }
    }
    book.save(place.path().join("visits.xlsx")).unwrap();
    let columns = (0..rows[0].len()).map(|column| {
        let cells: Vec<&str> = rows[1..].iter().map(|row| row[column]).collect();
        (
            rows[0][column],
            std::sync::Arc::new(arrow::array::StringArray::from(cells)) as arrow::array::ArrayRef,
        )
    });
    let batch = arrow::array::RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(place.path().join("visits.parquet")).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    for (number, file) in ["visits.jsonl", "visits.xlsx", "visits.parquet"].into_iter().enumerate() {
        assert_eq!(place.json(&["ingest", "hall.visits", file], "")["rows"], 600, "{file}");
        assert_eq!(ask("hall.visits", 7).len(), 2 * (number + 2), "{file}");
    }
    let distinct: BTreeSet<String> = ask("hall.visits", 7).into_iter().collect();
    assert_eq!(distinct.into_iter().collect::<Vec<_>>(), expected, "every kind of file gives the same rows");
    // an old number of fifteen digits is the same person
    let old = format!("{}{}", &person(7)[..6], &person(7)[8..17]);
    assert_eq!(ask("hall.visits", 7).len(), {
        let found = place.json(&["lookup", "hall.visits"], &old);
        found["rows"].as_array().unwrap().len()
    });
    // nobody is found who is not there, and what is no identifier is refused without being repeated
    assert_eq!(place.json(&["lookup", "hall.visits"], &person(999))["rows"].as_array().unwrap().len(), 0);
    let said = place.refused(&["lookup", "hall.visits"], "110101190001011234");
    assert!(
        said.contains("not a valid resident identity number") && !said.contains("110101190001011234"),
        "{said}"
    );
}

#[test]
fn a_batch_comes_in_once_and_bad_rows_are_kept_aside() {
    let place = Place::visits();
    let mut text = visits(0..100, 1);
    text += "123,R-bad,1,东城,1.00,20261101\n"; // no identity number
    text += &format!("{},R-code,9,东城,1.00,20261101\n", person(1)); // no such code
    text += &format!("{},R-day,1,东城,1.00,20260230\n", person(1)); // no such day
    text += &format!("{},R-short,1\n", person(1)); // fields are missing
    place.write("a.csv", &text);
    let strict = place.refused(&["ingest", "hall.visits", "a.csv", "--max-bad", "0.01"], "");
    assert!(strict.contains("4 of 104 rows were refused"), "{strict}");
    assert_eq!(place.rows(), 0, "a batch with too many bad rows changes nothing");
    let tried = place.json(&["ingest", "hall.visits", "a.csv", "--dry-run"], "");
    assert_eq!((&tried["rows"], place.rows()), (&100.into(), 0));
    let taken = place.json(&["ingest", "hall.visits", "a.csv"], "");
    assert_eq!(taken["rows"], 100);
    let refused = taken["batches"][0]["refused"].to_string();
    for reason in [
        "not a valid resident identity number",
        "not in the declared list",
        "not a valid date",
        "the row has 3 fields",
    ] {
        assert!(refused.contains(reason), "{reason}: {refused}");
    }
    let kept = std::fs::read_to_string(taken["batches"][0]["quarantine"].as_str().unwrap()).unwrap();
    assert_eq!(kept.lines().count(), 4);
    assert!(
        kept.contains("R-code") && kept.contains("\"number\":102"),
        "a refused row is kept as it came: {kept}"
    );
    let again = place.json(&["ingest", "hall.visits", "a.csv"], "");
    assert_eq!(
        (&again["rows"], &again["batches"][0]["before"], place.rows()),
        (&0.into(), &true.into(), 100)
    );
    // a file without its columns, a quotation mark that never closes, no file at all
    place.write("b.csv", "SFZH,LSH\n1,2\n");
    assert!(
        place.refused(&["ingest", "hall.visits", "b.csv"], "").contains("has no column SX, XZQH, JE, RQ")
    );
    place.write("c.csv", format!("SFZH,LSH,SX,XZQH,JE,RQ\n\"{}", "x".repeat(3 << 20)));
    assert!(place.refused(&["ingest", "hall.visits", "c.csv"], "").contains("longer than 1 MiB"));
    assert!(place.refused(&["ingest", "hall.visits", "d.csv"], "").contains("d.csv"));
    assert!(place.refused(&["ingest", "nothing", "a.csv"], "").contains("there are: hall.visits"));
    assert_eq!(place.rows(), 100);
}

#[test]
fn killed_anywhere_it_loses_and_doubles_nothing() {
    let place = Place::visits();
    let text = visits(0..30_000, 4);
    place.write("a.csv", &text);
    place.write("lake.toml", "memory_mb = 64\n");
    let mut cut = 0;
    for delay in (0..40).map(|n| 20 + n * 35) {
        let mut child = place
            .command(&["ingest", "hall.visits", "a.csv", "--json"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        // SIGKILL
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break;
        }
        cut += 1;
    }
    assert!(cut >= 3, "it was cut off {cut} times only");
    place.json(&["ingest", "hall.visits", "a.csv"], "");
    assert_eq!(place.rows(), 120_000);
    let report = place.json(&["quality", "hall.visits"], "");
    let uniqueness =
        report["report"]["measures"].as_array().unwrap().iter().find(|m| m["name"] == "uniqueness").unwrap();
    assert_eq!((&uniqueness["counted"], &uniqueness["bad"]), (&120_000.into(), &0.into()));
    // files of work that was cut off are gone after laying out anew, and every row is still there
    place.json(&["compact", "hall.visits", "--full"], "");
    let used = place.json(&["stats", "hall.visits"], "")["datasets"][0]["files"].as_u64().unwrap();
    let there = walk(&place.path().join("data/hall.visits"))
        .into_iter()
        .filter(|f| f.ends_with(".parquet") && !f.contains("_delta_log"));
    assert_eq!(there.count() as u64, used);
    assert_eq!(place.rows(), 120_000);
    for n in [0, 777, 29_999] {
        assert_eq!(place.json(&["lookup", "hall.visits"], &person(n))["rows"].as_array().unwrap().len(), 4);
    }
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => files.extend(walk(&entry.path())),
            false => files.push(entry.path().to_string_lossy().into_owned()),
        }
    }
    files
}

#[test]
fn look_ups_go_to_few_files_and_no_identifier_is_stored() {
    let place = Place::visits();
    for batch in 0..7 {
        place.write("a.csv", visits(batch * 50..batch * 50 + 200, 1).replace(",R1", &format!(",B{batch}R1")));
        place.json(&["ingest", "hall.visits", "a.csv"], "");
        let overlap = place.json(&["stats", "hall.visits"], "")["datasets"][0]["overlap"].as_u64().unwrap();
        assert!(overlap <= 4, "after batch {batch} a look-up goes to {overlap} files");
    }
    let rows = |n| place.json(&["lookup", "hall.visits"], &person(n))["rows"].as_array().unwrap().len();
    // batch b holds the people from 50 b to 50 b + 199
    assert_eq!([0, 60, 120, 199, 320, 499].map(rows), [1, 2, 3, 4, 4, 1]);
    let full = place.json(&["compact", "hall.visits", "--full"], "");
    assert_eq!((&full["runs"], place.rows()), (&1.into(), 1400));
    assert_eq!([0, 60, 120, 199, 320, 499].map(rows), [1, 2, 3, 4, 4, 1]);
    for file in walk(&place.path().join("data")) {
        let bytes = std::fs::read(&file).unwrap();
        let plain = String::from_utf8_lossy(&bytes);
        for n in [0, 60, 320] {
            assert!(!plain.contains(&person(n)), "{file} holds an identifier");
        }
    }
}

#[test]
fn one_process_changes_a_table_at_a_time_and_look_ups_go_on() {
    let place = Place::visits();
    place.write("a.csv", visits(0..20_000, 4));
    place.json(&["ingest", "hall.visits", "a.csv"], "");
    let names: Vec<String> = (0..4).map(|n| format!("b{n}.csv")).collect();
    for (n, name) in names.iter().enumerate() {
        let from = 30_000 + n as u64 * 5_000;
        place.write(name, visits(from..from + 5_000, 4));
    }
    let lookup = |n: u64| {
        let found = place.json(&["lookup", "hall.visits"], &person(n));
        found["rows"].as_array().unwrap().len()
    };
    // all at once: whoever comes second is told so and changes nothing; then each is run again
    let all: Vec<_> = names
        .iter()
        .map(|name| {
            let mut command = place.command(&["ingest", "hall.visits", name]);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut refused = 0;
    for child in all {
        assert_eq!(lookup(77), 4, "look-ups go on");
        let out = child.wait_with_output().unwrap();
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(said.contains("another process is changing hall.visits"), "{said}");
            refused += 1;
        }
    }
    assert!(refused >= 1, "four began at once");
    for name in &names {
        place.json(&["ingest", "hall.visits", name], "");
    }
    assert_eq!(place.rows(), 160_000);
    place.json(&["compact", "hall.visits", "--full"], "");
    assert_eq!((place.rows(), lookup(77), lookup(30_001), lookup(49_999)), (160_000, 4, 4, 4));
}

#[test]
fn a_snapshot_takes_the_place_and_changes_are_merged() {
    let snapshot = VISITS
        .replace("hall.visits", "hall.snapshot")
        .replace("subject: person", "subject: person\nmode: snapshot");
    let changes = VISITS
        .replace("hall.visits", "hall.changes")
        .replace("subject: person", "subject: person\nmode: changes\ngone: { column: OP, values: [D] }");
    let place = Place::new(&[("snapshot.yaml", &snapshot), ("changes.yaml", &changes)]);
    let rows = |dataset: &str| place.json(&["stats", dataset], "")["rows"].clone();
    place.write("a.csv", visits(0..100, 1));
    place.write("b.csv", visits(50..120, 1));
    place.json(&["ingest", "hall.snapshot", "a.csv"], "");
    place.json(&["ingest", "hall.snapshot", "b.csv"], "");
    assert_eq!(rows("hall.snapshot"), 70, "the second snapshot is the whole of it");
    let with_op = |text: String, op: &str| {
        text.replace('\n', &format!(",{op}\n")).replacen(&format!("RQ,{op}"), "RQ,OP", 1)
    };
    place.write("c.csv", with_op(visits(0..100, 1), "I"));
    place.json(&["ingest", "hall.changes", "c.csv"], "");
    assert_eq!(rows("hall.changes"), 100);
    let changed = with_op(visits(10..20, 1), "D")
        + &with_op(visits(20..30, 1).replace(".5,", ".9,"), "U").replacen(
            "SFZH,LSH,SX,XZQH,JE,RQ,OP\n",
            "",
            1,
        );
    place.write("d.csv", changed);
    place.json(&["ingest", "hall.changes", "d.csv"], "");
    assert_eq!(rows("hall.changes"), 90);
    let of = |n| place.json(&["lookup", "hall.changes"], &person(n))["rows"].clone();
    assert_eq!(of(15).as_array().unwrap().len(), 0);
    assert_eq!(of(25)[0]["fee"], "3590");
    assert_eq!(of(35)[0]["fee"], "4550");
    // taken in again nothing changes
    place.json(&["ingest", "hall.changes", "d.csv"], "");
    assert_eq!(rows("hall.changes"), 90);
}

#[test]
fn who_is_erased_is_in_no_version_and_old_rows_go() {
    let place = Place::visits();
    place.write("a.csv", visits(0..200, 2) + &format!("{},R-bad,9,东城,1.00,20261101\n", person(5)));
    place.json(&["ingest", "hall.visits", "a.csv"], "");
    let before = walk(&place.path().join("data"));
    assert_eq!(place.json(&["erase", "hall.visits", "--dry-run"], &person(5))["rows"], 2);
    assert_eq!(place.rows(), 400);
    let erased = place.json(&["erase", "hall.visits"], &person(5));
    assert_eq!(erased["rows"], 2);
    assert_eq!(erased["erasure"]["erased"]["quarantined"], 1);
    assert_eq!(place.rows(), 398);
    assert_eq!(place.json(&["lookup", "hall.visits"], &person(5))["rows"].as_array().unwrap().len(), 0);
    let deleted: Vec<String> = erased["erasure"]["erased"]["deleted"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d.as_str().unwrap().to_owned())
        .collect();
    assert!(!deleted.is_empty());
    let now = walk(&place.path().join("data"));
    for file in &deleted {
        assert!(
            before.iter().any(|f| f.ends_with(file.as_str()))
                && !now.iter().any(|f| f.ends_with(file.as_str())),
            "{file}"
        );
    }
    for file in walk(&place.path().join("work")) {
        assert!(
            !std::fs::read_to_string(&file).unwrap_or_default().contains(&person(5)),
            "{file} still names the person"
        );
    }
    // the proof names the person to whoever has the salt, and to nobody else
    let salt: crypto::Salt = serde_json::from_value(erased["salt"].clone()).unwrap();
    let commitment = crypto::commit(model::Suite::International, &salt, "person", person(5).as_bytes());
    assert_eq!(erased["erasure"]["subject"], commitment.to_string());
    let kept = place.json(&["retain", "hall.visits", "--today", "2036-11-25"], "");
    assert!(kept["rows"].as_u64().unwrap() > 100, "{kept}");
    assert_eq!(place.rows() + kept["rows"].as_u64().unwrap(), 398);
}

#[test]
fn questions_tell_about_many_and_never_about_one() {
    let place = Place::visits();
    let mut text = visits(0..300, 1);
    // a district of three people, and one where one person paid nearly everything
    for n in 1000..1003 {
        text += &format!("{},S{n},1,延庆,99.00,20261105\n", person(n));
    }
    for n in 2000..2010 {
        text += &format!("{},L{n},1,密云,{}.00,20261105\n", person(n), if n == 2000 { 900_000 } else { 1 });
    }
    place.write("a.csv", text);
    place.json(&["ingest", "hall.visits", "a.csv"], "");
    let ask = |sql: &str| place.json(&["query", "--role", "statistician", sql], "")["rows"].clone();
    let by_district =
        ask("select district, count(*) as n from hall_visits group by district order by district");
    let districts: Vec<&str> =
        by_district.as_array().unwrap().iter().map(|r| r["district"].as_str().unwrap()).collect();
    assert_eq!(districts, ["东城", "密云", "海淀", "西城"], "延庆 has three people only");
    let sums = ask("select district, sum(fee) as s from hall_visits group by district");
    assert!(!sums.to_string().contains("密云"), "one person makes up nearly all of it: {sums}");
    assert_eq!(sums.as_array().unwrap().len(), 3);
    assert_eq!(ask("select count(distinct subject_key) as people from hall_visits")[0]["people"], "313");
    assert_eq!(
        ask("select count(*) as n from hall_visits where district = '延庆'").as_array().unwrap().len(),
        0
    );
    let avg = ask(
        "select kind, avg(fee) as a from hall_visits where \"on\" >= date '2026-11-01' and district <> '密云' group by kind having count(*) > 10",
    );
    assert_eq!(avg.as_array().unwrap().len(), 1, "{avg}");
    let kept = std::fs::read_to_string(place.path().join("work/questions.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), 5, "every question that was answered is kept");
    let own = place.json(&["query", "--role", "district-1", "select count(*) as n from hall_visits"], "");
    assert_eq!(own["rows"][0]["n"], "100", "the role sees its own district only");
    for (sql, why) in [
        ("select * from hall_visits", "one aggregate"),
        ("select fee from hall_visits limit 1", "one aggregate"),
        ("select record, count(*) from hall_visits group by record", "may not group"),
        ("select subject_key, count(*) from hall_visits group by subject_key", "may not group"),
        ("select count(*) from hall_visits where record = 'R7-0'", "may not group or filter"),
        ("select count(*) from hall_visits where fee > 100", "may not group or filter"),
        ("select max(fee) from hall_visits", "may not ask"),
        ("select sum(fee * 2) from hall_visits", "without a calculation"),
        (
            "select sum(case when record = 'R7-0' then fee else 0 end) from hall_visits",
            "without a calculation",
        ),
        ("select sum(fee) filter (where district = '延庆') from hall_visits", "no filter"),
        ("select array_agg(fee) from hall_visits", ""),
        ("select count(*) from hall_visits a join hall_visits b on a.record = b.record", "one table"),
        (
            "select count(*) from hall_visits where district in (select district from hall_visits)",
            "one table",
        ),
        (
            "select count(*) from (select district, count(*) as n from hall_visits group by district)",
            "one aggregate",
        ),
        ("select district, count(*) over (partition by district) from hall_visits", ""),
        ("select count(*) from hall_visits group by grouping sets ((district), ())", ""),
        ("select count(*) from hall_visits union all select count(*) from hall_visits", "one table"),
        ("select count(*), 1 from information_schema.tables", ""),
        ("create table x as select count(*) from hall_visits", ""),
        ("copy (select count(*) from hall_visits) to 'x.csv'", ""),
        ("insert into hall_visits values (1)", ""),
        ("select count(*) from 'a.csv'", ""),
        ("explain select count(*) from hall_visits", ""),
        ("set datafusion.execution.batch_size = 1", ""),
        ("select", ""),
    ] {
        let (code, out, err) = place.run(&["query", "--role", "statistician", sql], "");
        assert_ne!(code, 0, "{sql} was answered: {out}");
        assert!(err.contains(why), "{sql}: {err}");
    }
    assert!(
        place
            .refused(&["query", "--role", "stranger", "select count(*) from hall_visits"], "")
            .contains("no data set")
    );
}

#[test]
fn quality_is_measured_and_goes_back_to_who_answers_for_it() {
    let other = "
format: 1
id: hall.addresses
resource: hall.addresses
title: { zh: 地址, en: Addresses }
department: police
officer: 户籍科
subject: person
agrees: [{ with: hall.visits, column: district, theirs: district }]
columns:
  - { id: person, element: person.id }
  - { id: district, element: deed.state }
";
    let place = Place::new(&[("visits.yaml", VISITS), ("addresses.yaml", other)]);
    let mut text = visits(0..100, 1);
    text = text.replace(".5,202611", ".5,").replacen(".5,", ".5,202611", 60); // forty rows without a whole day are refused
    place.write("a.csv", text);
    assert!(place.refused(&["ingest", "hall.visits", "a.csv"], "").contains("rows were refused"));
    place.json(&["ingest", "hall.visits", "a.csv", "--max-bad", "0.5"], "");
    let mut moved = "person,district\n".to_owned();
    for n in 0..60 {
        moved += &format!(
            "{},{}\n",
            person(n),
            if n < 30 { "通州" } else { ["东城", "西城", "海淀"][(n % 3) as usize] }
        );
    }
    place.write("b.csv", moved);
    place.json(&["ingest", "hall.addresses", "b.csv"], "");
    let report = place.json(&["quality", "hall.visits", "--out", "report.html"], "");
    let measure = |report: &serde_json::Value, name: &str| {
        let all = report["report"]["measures"].as_array().unwrap().clone();
        all.into_iter().filter(|m| m["name"] == name).map(|m| m["bad"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((measure(&report, "validity"), measure(&report, "completeness")), (40, 0));
    let page = std::fs::read_to_string(place.path().join("report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("hall.visits/validity/all"));
    let agreement = place.json(&["quality", "hall.addresses"], "");
    assert_eq!(measure(&agreement, "agreement"), 30);
    assert_eq!(agreement["issues"][0]["department"], "police");
    place.json(
        &["issue", "answer", "hall.visits/validity/all", "--note", "the export was cut off; sent again"],
        "",
    );
    let issues = place.json(&["issue", "list"], "");
    assert_eq!(issues["issues"].as_array().unwrap().len(), 2);
    let due = issues["issues"][0]["due_ms"].as_u64().unwrap();
    let since = issues["issues"][0]["since_ms"].as_u64().unwrap();
    // whatever day this runs on: the end, in Beijing, of the tenth working day
    assert_eq!(due, model::WorkingDays::default().deadline_ms(since, 10));
    assert_eq!((due + 8 * 3_600_000 + 1) % 86_400_000, 0, "the last millisecond of a day");
    // put right, the issue closes by itself
    place.write("c.csv", visits(0..3000, 1));
    place.json(&["ingest", "hall.visits", "c.csv"], "");
    place.json(&["quality", "hall.visits"], "");
    let issues = place.json(&["issue", "list"], "");
    let closed =
        issues["issues"].as_array().unwrap().iter().find(|i| i["id"] == "hall.visits/validity/all").unwrap();
    assert!(closed["mended_ms"].is_u64(), "{closed}");
}

#[test]
fn declarations_that_cannot_be_meant_are_refused() {
    let place = Place::visits();
    for (from, to, why) in [
        ("subject: person", "subject: nobody", "not declared"),
        ("subject: person", "subject: fee", "an identifier"),
        ("day: on", "day: kind", "a date"),
        ("element: person.id", "element: person.nothing", "no data element"),
        ("sensitivity: 4", "sensitivity: 9", "from 1 to 4"),
        ("by: [district, kind, on]", "by: [person]", "single people"),
        ("of: [fee]", "of: [kind]", "no number"),
        ("at_least: 5", "at_least: 1", "3 or more"),
        ("key: [record]", "mode: changes", "needs `key`"),
        ("format: 1", "format: 2", "format: 1"),
        ("officer: 数据专员", "officer: 数据专员\nsurprise: 1", "surprise"),
    ] {
        place.write("datasets/visits.yaml", VISITS.replacen(from, to, 1));
        let said = place.refused(&["check"], "");
        assert!(said.contains(why), "{to}: {said}");
    }
    place.write("datasets/visits.yaml", VISITS);
    place.json(&["check"], "");
    place.write("a.csv", visits(0..10, 1));
    place.json(&["ingest", "hall.visits", "a.csv"], "");
    place.write(
        "datasets/visits.yaml",
        VISITS.replace("id: district", "id: area").replace("district", "area"),
    );
    place.write("b.csv", visits(10..20, 1));
    assert!(
        place.refused(&["ingest", "hall.visits", "b.csv"], "").contains("other columns than are declared")
    );
}
