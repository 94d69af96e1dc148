//! The command line's parts: the demo with its synthetic city, consortium set-up, the API client and benchmarks.

pub mod archive;
pub mod audit;
pub mod backup;
pub mod bench;
pub mod bench_case;
pub mod bench_catalogue;
pub mod bench_gateway;
pub mod case;
pub mod catalogue;
pub mod city;
pub mod client;
pub mod connector;
pub mod decoders;
pub mod demo;
pub mod doctor;
pub mod face;
pub mod govern;
pub mod list;
pub mod matter;
pub mod officer;
pub mod out;
pub mod play;
pub mod policy;
pub mod project;
pub mod setup;
pub mod sharing;
pub mod stage;
pub mod subscription;
pub mod terminal;
pub mod token;

/// Reads the word of a suite, for the command line.
pub fn suite(word: &str) -> Result<model::Suite, String> {
    let suites = [model::Suite::International, model::Suite::National];
    suites.into_iter().find(|s| s.as_str() == word).ok_or_else(|| "use `international` or `national`".into())
}
