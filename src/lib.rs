//! x
#![forbid(unsafe_code)]
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod engine;
pub mod filter;
pub mod follow;
pub mod host;
pub mod log;
pub mod types;
pub mod kernel {
    pub mod desired;
    pub mod disjoint;
    pub mod layout;
}
