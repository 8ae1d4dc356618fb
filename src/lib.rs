//! stockade follows logs, counts offenses per jail and bans offenders in nf_tables over netlink.
//!
//! The modules stand in the order of the flow: [`follow`] turns files into lines, [`filter`] lines into offenses,
//! [`engine`] offenses into decisions, [`kernel`] decisions into elements of nf_tables sets;
//! [`ledger`] remembers them, and [`sinks`] hear of them.
#![forbid(unsafe_code)]

pub mod clock;
pub mod types;

pub mod config;

pub mod follow;
pub mod source;

pub mod filter;

pub mod engine;

pub mod kernel;

pub mod ledger;

pub mod sinks;

pub mod budget;
pub mod daemon;

pub mod cli;
pub mod commands;
pub mod confine;
pub mod control;
pub mod host;
pub mod log;
