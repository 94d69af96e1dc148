//! Every decoder is fed the fuzzing corpus and thousands of changed copies of it: cut, lengthened, with bytes and lengths
//! replaced. None may panic or accept two encodings of one value. `cargo xtask soak` fuzzes the same functions.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use tongban::decoders;

type Decoder = fn(&[u8]);

const DECODERS: [(&str, Decoder, usize); 13] = [
    ("body", decoders::body, 20_000),
    ("command", decoders::command, 20_000),
    ("block", decoders::block, 5_000),
    ("letter", decoders::letter, 20_000),
    ("receipt", decoders::receipt, 200),
    ("statement", decoders::statement, 500),
    ("genesis", decoders::genesis, 2_000),
    ("connector", decoders::connector, 300),
    ("package", decoders::package, 100),
    ("scenario", decoders::scenario, 100),
    ("picture", decoders::picture, 2_000),
    ("policy", decoders::policy, 1_000),
    ("odbc", decoders::odbc, 20_000),
];

fn changed(sample: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        match rng.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_slice(&sample[..at.min(sample.len())]),
            2 if at + 4 <= bytes.len() => bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes()),
            3 if at + 8 <= bytes.len() => bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes()),
            4 if !bytes.is_empty() => bytes[at] ^= 1 << rng.random_range(0..8),
            _ if !bytes.is_empty() => bytes[at] = rng.random_range(0..=255),
            _ => {}
        }
    }
    bytes
}

#[test]
fn no_decoder_panics_on_hostile_bytes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, decode, rounds) in DECODERS {
        let mut rng = ChaCha8Rng::seed_from_u64(0x70_6e_67);
        let mut samples = 0;
        for file in std::fs::read_dir(corpus.join(name)).unwrap().flatten() {
            let sample = std::fs::read(file.path()).unwrap();
            samples += 1;
            decode(&sample);
            for _ in 0..rounds {
                decode(&changed(&sample, &mut rng));
            }
        }
        decode(&[]);
        assert!(samples > 0, "the corpus of `{name}` is not empty");
    }
}

/// Receipts made by an earlier build stay valid, for both verifiers, in both suites: the format is frozen. And none is valid
/// under the other suite's genesis.
#[test]
fn golden_receipts_stay_valid() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let read = |name: &str| serde_json::from_slice(&std::fs::read(corpus.join(name)).unwrap()).unwrap();
    let geneses: [model::Genesis; 2] = [read("genesis/demo.json"), read("genesis/national.json")];
    for (suite, file) in [(0, "genesis/demo.json"), (1, "genesis/national.json")] {
        let mut kinds = std::collections::BTreeMap::new();
        for file in std::fs::read_dir(corpus.join("receipt")).unwrap().flatten() {
            if file.file_name().to_string_lossy().starts_with("national-") != (suite == 1) {
                continue;
            }
            let bytes = std::fs::read(file.path()).unwrap();
            let facts = proof::verify(&bytes, &geneses[suite]).unwrap();
            assert!(proof::verify(&bytes, &geneses[1 - suite]).is_err());
            kinds.insert(format!("{:?}", facts.kind), (facts.status, file.path()));
        }
        let statuses: Vec<_> =
            kinds.iter().map(|(kind, (status, _))| (kind.as_str(), status.as_str())).collect();
        assert_eq!(
            statuses,
            [
                ("AccessLog", "complete: 13 granted, 0 refused"),
                ("Action", "done"),
                ("Call", "opened"),
                ("Consent", "given"),
                ("Decision", "passed")
            ]
        );
        let cli = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/assets/verify-cli.mjs");
        let files = kinds.values().map(|(_, path)| path);
        match std::process::Command::new("node").arg(cli).arg(corpus.join(file)).args(files).output() {
            Ok(out) => assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout)),
            Err(_) => println!("skipped: node is not installed"),
        }
    }
}
