//! Sinks against real servers: without an agent and without root, for what the agent has to do with it is in `e2e`.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

#[path = "../support/http.rs"]
mod http;

mod cloudflare;
mod cloudflare_api;
mod cloudflare_ranges;
mod exec;
mod frame;
mod mail;
mod map;
mod owner;
mod smtp;
mod support;
mod telegram;
mod webhook;
