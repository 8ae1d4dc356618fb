//! The crate against the kernel it runs on, with nft(8) as the judge. Every test is in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the report")]

mod bpf;
mod commit;
mod events;
mod get;
mod golden;
mod listing;
mod model;
mod namespace;
mod unrest;
