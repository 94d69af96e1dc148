//! Every decoder at a boundary, as one function of bytes each: fuzz targets call them, and a test feeds them changed
//! samples. None may panic, and what decodes must encode to the same bytes.

use borsh::BorshDeserialize;
use model::{Genesis, SignedCommand};

fn round_trip<T: BorshDeserialize + borsh::BorshSerialize>(bytes: &[u8]) {
    if let Ok(value) = model::decode::<T>(bytes) {
        assert_eq!(model::encode(&value), bytes, "one value has one encoding");
    }
}

/// A signed command, as clients and peers send it.
pub fn command(bytes: &[u8]) {
    round_trip::<SignedCommand>(bytes);
}

/// A block, as peers send it and archives keep it.
pub fn block(bytes: &[u8]) {
    chain::check_block_bytes(bytes);
}

/// A letter of another department's node.
pub fn letter(bytes: &[u8]) {
    flow::check_letter_bytes(bytes);
}

/// A receipt file against a genesis of each suite.
pub fn receipt(bytes: &[u8]) {
    for genesis in sample_geneses() {
        let _ = proof::verify(bytes, &genesis);
    }
}

/// A statement file, and the same bytes as a checkpoint and a link, against a genesis of each suite.
pub fn statement(bytes: &[u8]) {
    for genesis in sample_geneses() {
        let _ = proof::verify_statement(bytes, &genesis);
        let _ = proof::verify_publication(bytes, &genesis);
        let _ = proof::headers_of(bytes);
        if let Ok(checkpoint) = serde_json::from_slice::<proof::Checkpoint>(bytes) {
            let _ = checkpoint.check(&genesis);
        }
        let _ = serde_json::from_slice::<proof::Link>(bytes);
    }
    if let Ok(openings) = model::decode::<proof::audit::Openings>(bytes) {
        assert_eq!(model::encode(&openings), bytes, "openings have one encoding");
    }
}

/// A genesis file.
pub fn genesis(bytes: &[u8]) {
    if let Ok(genesis) = serde_json::from_slice::<Genesis>(bytes) {
        let _ = genesis.check();
        round_trip::<Genesis>(&model::encode(&genesis));
    }
}

/// A department's connector file.
pub fn connector(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = gateway::Connector::parse("fuzz", text);
    }
}

/// A matter package, and its picture.
pub fn package(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(package) = flow::Package::parse("fuzz", text) {
        let _ = package.publication(model::Suite::International);
        let _ = flow::graph::svg(&package, model::Language::English, &Default::default(), &|d| d.to_string());
    }
}

/// A scenario of a package, and its dry run.
pub fn scenario(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(scenario) = flow::scenario::Scenario::load("fuzz", &|_| Ok(text.to_owned())) else { return };
    if let Ok(matter) = crate::stage::matter("enterprise-start") {
        let _ = flow::simulate::simulate(&matter.package, &scenario);
    }
}

/// A holder's policy, as a command carries it, and what it says of a call.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(policy) = ledger::Policy::parse(text) else { return };
    let _ = policy.decide(&ledger::Question {
        asker: "bureau".parse().expect("a name"),
        holder: "court".parse().expect("a name"),
        resource: "court.dishonest".parse().expect("a name"),
        share: "conditional",
        sensitivity: 3,
        matter: "house-transfer".parse().expect("a name"),
        step: "listed".parse().expect("a name"),
        basis: "statutory",
        approval: "execution-check".into(),
        names: vec!["listed".parse().expect("a name")],
        predicate: true,
        assurance: "high",
        attempt: 0,
        calls_today: 7,
        calls_in_case: 3,
        hour: 9,
        working_day: true,
    });
}

/// What a node and the program that holds an ODBC connection say to each other, a line each.
pub fn odbc(bytes: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<gateway::odbc::Request>(bytes) {
        let text = serde_json::to_vec(&request).expect("a request can be written as JSON");
        assert!(serde_json::from_slice::<gateway::odbc::Request>(&text).is_ok());
    }
    if let Ok(reply) = serde_json::from_slice::<gateway::odbc::Reply>(bytes) {
        let text = serde_json::to_vec(&reply).expect("a reply can be written as JSON");
        assert!(serde_json::from_slice::<gateway::odbc::Reply>(&text).is_ok());
    }
}

/// A picture of a terminal's camera or a document.
pub fn picture(bytes: &[u8]) {
    if let Ok(picture) = ::face::Picture::decode(bytes) {
        assert!(picture.width() * picture.height() <= 16_000_000);
    }
}

/// A JSON body of the API.
pub fn body(bytes: &[u8]) {
    node::check_body_bytes(bytes);
}

/// The geneses of `fuzz/corpus/genesis`, where receipts of the corpus come from: one of each suite.
fn sample_geneses() -> impl Iterator<Item = Genesis> {
    let files = [
        include_bytes!("../../../fuzz/corpus/genesis/demo.json").as_slice(),
        include_bytes!("../../../fuzz/corpus/genesis/national.json"),
    ];
    files.into_iter().filter_map(|file| serde_json::from_slice(file).ok())
}
