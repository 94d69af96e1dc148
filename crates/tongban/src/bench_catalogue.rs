//! `tongban bench catalogue`: searching a large catalogue, as the page and the API do.

use crate::{
    bench::{cpu_pressure, cpu_seconds},
    say,
};
use anyhow::{Result, ensure};
use clap::Args;
use flow::Catalogue;
use model::*;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use std::time::Instant;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// How many entries.
    #[arg(long, default_value_t = 100_000)]
    entries: u32,
    /// How many searches.
    #[arg(long, default_value_t = 2_000)]
    searches: u32,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Words that entries are named with and searched by, in both languages.
const WORDS: [(&str, &str); 16] = [
    ("不动产", "Real estate"),
    ("婚姻", "Marriage"),
    ("户籍", "Household"),
    ("社会保险", "Social insurance"),
    ("公积金", "Housing fund"),
    ("营业执照", "Business licence"),
    ("纳税", "Tax"),
    ("失信", "Dishonest"),
    ("机动车", "Vehicle"),
    ("学籍", "School enrolment"),
    ("用电", "Electricity"),
    ("用水", "Water"),
    ("燃气", "Gas"),
    ("行政处罚", "Administrative penalty"),
    ("建设许可", "Building permit"),
    ("残疾人", "Disability"),
];

/// One page of results.
const PAGE: usize = 100;

fn entry(i: u32, rng: &mut impl rand::Rng) -> Resource {
    let mut pick = || WORDS[rng.random_range(0..WORDS.len())];
    let text = |(zh, en): (&str, &str), what: (&str, &str)| Text {
        zh: format!("{zh}{}", what.0),
        en: format!("{en} {}", what.1),
    };
    let title = {
        let (a, b) = (pick(), pick());
        Text { zh: format!("{}{}登记信息{i}", a.0, b.0), en: format!("{} {} register {i}", a.1, b.1) }
    };
    let fields = (0..8).map(|n| Field {
        id: format!("field{n}").parse().expect("a name"),
        element: format!("element{n}").parse().expect("a name"),
        title: text(pick(), ("编号", "number")),
        sensitivity: 2,
    });
    Resource {
        id: format!("department{}.resource{i}", i % 97).parse().expect("a name"),
        version: 1,
        title,
        fields: fields.collect(),
        holder: format!("department{}", i % 97).parse().expect("a name"),
        officer: "office".into(),
        subject: SubjectKind::Person,
        share: ShareClass::Conditional,
        basis: "law".into(),
        standard: "standard".into(),
        update: "daily".into(),
        predicates: vec![],
    }
}

/// Runs `tongban bench catalogue`.
pub fn catalogue(options: &Options) -> Result<()> {
    ensure!(options.entries > 0 && options.searches > 0, "there must be something to search, and a search");
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let catalogue = Catalogue::default();
    for i in 0..options.entries {
        catalogue.put(CommandId([0; 32]), 0, &entry(i, &mut rng));
    }
    let (mut took, mut found) = (Vec::new(), 0u64);
    let begun = cpu_seconds();
    for n in 0..options.searches {
        let mut pick = || WORDS[rng.random_range(0..WORDS.len())];
        // one word or two, in either language; a word that is rare, and one that nothing has
        let words = match n % 6 {
            0 => pick().0.to_owned(),
            1 => pick().1.to_owned(),
            2 => format!("{} {}", pick().0, pick().0),
            3 => format!("{} {}", pick().1, pick().0),
            4 => format!("register {}", rng.random_range(0..options.entries)),
            _ => "无此数据 nothing".to_owned(),
        };
        let at = Instant::now();
        let (total, page) = catalogue.search(&words, 0, PAGE);
        took.push(at.elapsed().as_secs_f64() * 1000.0);
        found += total as u64;
        ensure!(page.len() == total.min(PAGE), "a page holds what was found");
    }
    let cpu = (cpu_seconds() - begun) * 1000.0 / f64::from(options.searches);
    took.sort_by(f64::total_cmp);
    let at = |q: f64| took[((took.len() - 1) as f64 * q) as usize];
    if options.json {
        say!(
            "{}",
            json!({
                "per_second": 1000.0 / (took.iter().sum::<f64>() / took.len() as f64),
                "latency_ms": { "p50": at(0.5), "p95": at(0.95), "p99": at(0.99) },
                "cpu_seconds_per_1000": cpu,
                "found": found,
                "cpu_pressure": { "avg10": cpu_pressure() },
                "conditions": { "entries": options.entries, "searches": options.searches, "threads": 1 },
            })
        );
    } else {
        say!(
            "{} entries: p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms; {cpu:.2} CPU-s per 1,000; CPU pressure {:.0} %",
            options.entries,
            at(0.5),
            at(0.95),
            at(0.99),
            cpu_pressure()
        );
    }
    Ok(())
}
