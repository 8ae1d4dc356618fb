//! x
#![forbid(unsafe_code)]
pub mod clock;
pub mod types;
pub mod config;
pub mod follow;
pub mod filter;
pub mod engine;
pub mod host;
pub mod control;
pub mod cli;
pub mod log;
pub mod kernel { pub mod layout; pub mod disjoint; pub mod desired; }
