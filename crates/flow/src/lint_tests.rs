//! Each mistake a package can have, and that nothing else is found.

use super::*;

const PACKAGE: &str = r#"
format: 1
id: permit
version: 1
title: { zh: 许可, en: Permit }
handler: bureau
appeal: { zh: 复议, en: Review }
bases: { duty: { zh: 某法第一条, en: "Some Law, article 1" } }
parties:
  - { id: owner, title: { zh: 业主, en: owner }, repeat: 3 }
  - { id: agent, title: { zh: 代理人, en: agent }, optional: true }
form:
  - { id: place, element: unit.code, title: { zh: 地点, en: Place } }
  - { id: size, element: number, title: { zh: 面积, en: Size }, optional: true }
same: [place]
outputs: [{ title: { zh: 编号, en: Number }, from: issue.serial }]
steps:
  - { id: identify_owner, kind: identify, party: owner, title: { zh: 核验, en: Identify } }
  - { id: identify_agent, kind: identify, party: agent, title: { zh: 核验, en: Identify } }
  - { id: seized, kind: call, after: [identify_owner], party: owner, subject: form.place, holder: registry, resource: registry.restriction, what: { predicate: seized }, basis: { statutory: duty }, title: { zh: 查封, en: Seizure }, purpose: { zh: 核验, en: to check } }
  - id: precheck
    kind: decide
    after: [seized, identify_agent]
    title: { zh: 预检, en: Pre-check }
    rules: [{ when: 'seized.exists(s, s.seized != "no")', result: is_seized, outcome: refused, ground: { zh: 查封, en: seized } }]
  - { id: sign_owner, kind: sign, after: [precheck], party: owner, title: { zh: 签署, en: Sign } }
  - { id: name, kind: call, after: [sign_owner], party: owner, holder: police, resource: police.identity, what: { predicate: name_matches }, basis: consent, parameters: { name: owner.name }, title: { zh: 姓名, en: Name }, purpose: { zh: 核验, en: to verify } }
  - id: review
    kind: decide
    after: [name]
    title: { zh: 审核, en: Review }
    rules: [{ when: '!name.all(n, n.name_matches == "yes")', result: other_name, outcome: needs_human, may_pass: true, ground: { zh: 不一致, en: differs } }]
  - { id: issue, kind: act, after: [review], pivot: true, performer: registry, operation: issue, parameters: { place: form.place, owner: owner.id }, title: { zh: 发证, en: Issue } }
  - { id: post, kind: act, after: [issue], only_if: 'has(form.size)', performer: bureau, operation: post, parameters: { number: issue.serial, size: form.size }, title: { zh: 寄送, en: Post } }
"#;

fn codes(text: &str) -> Vec<&'static str> {
    lint("matter.yaml", text, None).1.iter().map(|p| p.code).collect()
}

#[test]
fn each_mistake_is_found_by_its_code_and_nothing_else_is() {
    assert_eq!(lint("matter.yaml", PACKAGE, None).1, []);
    for (from, to, expected) in [
        ("format: 1", "format: 2", &["format"][..]),
        ("title: { zh: 许可, en: Permit }", "title: { zh: 许可, en: '' }", &["missing_text"]),
        ("purpose: { zh: 核验, en: to check }", "purpose: { zh: '', en: to check }", &["missing_text"]),
        ("basis: { statutory: duty }", "basis: { statutory: duty }, subscribe_days: 367", &["subscription"]),
        ("basis: consent", "basis: consent, subscribe_days: 181", &["subscription"]),
        ("basis: consent", "basis: consent, subscribe_after_end: true", &["subscription"]),
        ("basis: consent", "basis: self_access, subscribe_days: 1", &["subscription", "nothing_to_sign"]),
        ("kind: act, after: [review]", "kind: act, subscribe_days: 1, after: [review]", &["subscription"]),
        ("has(form.size)", "days(form.size) > 3", &["rule_invalid"]),
        ("has(form.size)", "int(form.size) > 3", &[]),
        ("basis: consent", "basis: consent, within_days: 15", &[]),
        ("basis: consent", "basis: consent, within_days: 16", &["deadline"]),
        ("handler: bureau", "handler: bureau\nretain_days: 36526", &["retention"]),
        ("handler: bureau", "handler: bureau\nretain_days: 36525", &[]),
        ("basis: consent", "basis: consent, within_hours: 0", &["deadline"]),
        ("basis: consent", "basis: consent, within_hours: 1, within_days: 1", &["deadline"]),
        ("kind: sign, after", "kind: sign, within_days: 1, after", &["deadline"]),
        ("basis: consent", "basis: consent, list: { every_minutes: 60 }", &[]),
        ("basis: consent", "basis: consent, list: { every_minutes: 0 }", &["list"]),
        ("basis: consent", "basis: consent, list: { every_minutes: 10081 }", &["list"]),
        (
            "basis: { statutory: duty }",
            "basis: { statutory: duty }, list: { every_minutes: 1, most: 501 }",
            &["list"],
        ),
        ("basis: consent", "basis: consent, subscribe_days: 9, list: { every_minutes: 1 }", &["list"]),
        ("basis: consent", "basis: self_access, list: { every_minutes: 1 }", &["list", "nothing_to_sign"]),
        ("kind: act, after: [review]", "kind: act, list: { every_minutes: 1 }, after: [review]", &["list"]),
        ("basis: { statutory: duty }", "basis: { statutory: other }", &["missing_basis", "over_collection"]),
        (", purpose: { zh: 核验, en: to check }", "", &["missing_basis"]),
        ("ground: { zh: 查封, en: seized }", "ground: { zh: '', en: seized }", &["missing_basis"]),
        ("appeal: { zh: 复议, en: Review }\n", "", &["no_appeal"]),
        ("result: is_seized", "result: pass", &["wrong_outcome"]),
        ("result: is_seized", "result: passed_over_seizure", &["wrong_outcome"]),
        (
            "rules: [{ when: '!name",
            "rules: [{ when: 'name.size() > 9', result: other_name, outcome: needs_human, ground: { zh: 多, en: many } }, { when: '!name",
            &["repeated"],
        ),
        ("outcome: refused", "outcome: closed", &["wrong_outcome"]),
        ("outcome: needs_human, may_pass", "outcome: parked, may_pass", &["wrong_outcome"]),
        (
            "after: [identify_owner], party: owner, subject",
            "party: owner, subject",
            &["not_awaited", "unidentified"],
        ),
        (
            "after: [sign_owner], party: owner",
            "after: [precheck], party: owner",
            &["unsigned", "not_awaited"],
        ),
        ("after: [seized, identify_agent]", "after: [seized, identify_agent, review]", &["cycle"]),
        ("after: [seized, identify_agent]", "after: [seized, identify_agent, issued]", &["unknown_step"]),
        ("after: [seized, identify_agent]", "after: [seized]", &["not_awaited"]),
        (
            "{ id: identify_agent, kind: identify, party: agent",
            "{ id: identify_agent, kind: identify, party: nobody",
            &["unknown_party"],
        ),
        ("{ id: identify_agent, kind", "{ id: identify_owner, kind", &["repeated", "unknown_step"]),
        ("repeat: 3", "repeat: 30", &["repeated"]),
        ("owner: owner.id", "owner: owners.id", &["unknown_reference"]),
        ("owner: owner.id", "owner: seized.seizure", &[]),
        ("place: form.place", "place: form.places", &["unknown_reference"]),
        ("place: form.place", "place: place", &["unknown_reference"]),
        ("number: issue.serial", "number: sign_owner.at", &["unknown_reference"]),
        ("from: issue.serial", "from: issue", &["unknown_reference"]),
        ("parameters: { name: owner.name }", "parameters: { name: issue.serial }", &["not_before"]),
        ("s.seized != \"no\")", "s.seized != )", &["rule_invalid", "over_collection"]),
        ("'has(form.size)'", "'1 > 0'", &["unreachable"]),
        ("after: [review], pivot: true", "after: [review]", &["pivot"]),
        (
            "after: [issue], only_if",
            "after: [review], only_if",
            &["not_before", "missing_compensation", "not_awaited"],
        ),
        ("size: form.size }", "}", &[]),
        (
            "only_if: 'has(form.size)', performer: bureau, operation: post, parameters: { number: issue.serial, size: form.size }",
            "performer: bureau, operation: post, parameters: {}",
            &["over_collection"],
        ),
        ("holder: police, resource", "holders: police, resource", &["format"]),
        (
            "party: owner, title: { zh: 签署, en: Sign }",
            "party: agent, title: { zh: 签署, en: Sign }",
            &["nothing_to_sign", "unsigned"],
        ),
    ] {
        assert!(PACKAGE.contains(from), "{from}");
        let mut found = codes(&PACKAGE.replacen(from, to, 1));
        let mut expected = expected.to_vec();
        found.sort_unstable();
        found.dedup();
        expected.sort_unstable();
        assert_eq!(
            found,
            expected,
            "{from} → {to}: {:#?}",
            lint("m", &PACKAGE.replacen(from, to, 1), None).1
        );
    }
}

#[test]
fn a_step_after_the_pivot_cannot_refuse() {
    let late = format!(
        "{PACKAGE}  - {{ id: late, kind: decide, after: [issue], title: {{ zh: 晚, en: Late }}, rules: [{{ when: 'issue.serial == \"\"', result: empty, outcome: refused, ground: {{ zh: 空, en: empty }} }}] }}\n"
    );
    assert_eq!(codes(&late), ["undoes_pivot"]);
}

#[test]
fn problems_say_where_they_are() {
    let text = PACKAGE.replace("size: form.size", "size: form.sizes");
    let (_, problems) = lint("p/matter.yaml", &text, None);
    let line = text.lines().position(|l| l.contains("id: post")).unwrap() + 1;
    assert_eq!((problems[0].line, problems[0].path.as_str()), (line, "p/matter.yaml"));
    let (package, problems) = lint("p/matter.yaml", "format: 1\nid: [", None);
    assert!(package.is_none() && problems[0].line >= 1);
}

#[test]
fn a_repeated_role_and_its_steps_have_their_copies() {
    let package = Package::parse("matter.yaml", PACKAGE).unwrap();
    let ids: Vec<_> = package.parties.iter().map(|p| (p.id.as_str(), p.optional)).collect();
    assert_eq!(ids, [("owner", false), ("owner_2", true), ("owner_3", true), ("agent", true)]);
    let step = |id: &str| package.steps.iter().find(|s| s.id.as_str() == id).unwrap();
    let after = |id: &str| step(id).after.iter().map(StepId::to_string).collect::<Vec<_>>();
    // its own sign step, and of others' all
    assert_eq!(after("name_2"), ["sign_owner_2"]);
    assert_eq!(after("precheck"), ["seized", "seized_2", "seized_3", "identify_agent"]);
    let name: FieldId = "name".parse().unwrap();
    assert_eq!(step("name_3").parameters[&name], "owner_3.name");
    assert_eq!(package.calls_read_by(&step("review").rules[0]).len(), 3);
    assert_eq!(package.publication(Suite::International).needs.len(), 6);
}

#[test]
fn names_in_strings_and_calls_are_no_references() {
    let (found, bound) = members(r#"has(a.b) && c.exists(x, x.y != "d.e") && f.matches('g.h') && i < 3"#);
    let found: Vec<_> = found.iter().map(|(a, b)| (a.as_str(), b.as_deref())).collect();
    assert!(found.contains(&("a", Some("b"))) && found.contains(&("x", Some("y"))), "{found:?}");
    assert!(found.contains(&("c", None)) && found.contains(&("f", None)) && found.contains(&("i", None)));
    assert!(!found.iter().any(|(a, _)| ["d", "g"].contains(a)), "{found:?}");
    assert!(bound.contains("x"));
}
