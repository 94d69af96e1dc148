//! The command line's parts: the demo with its synthetic city, consortium set-up, the API client and benchmarks.

pub mod bench;
pub mod city;
pub mod client;
pub mod decoders;
pub mod demo;
pub mod setup;
