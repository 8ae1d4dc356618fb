//! The packages as a person installs them: the files that `packaging/build` made, on a Debian that is booted for it, with
//! a real systemd and a firewall of its own. The commands of docs/install.md are what is run.
#![expect(clippy::unwrap_used, reason = "what a test relies on and does not find fails the test")]

mod deb;
mod dist;
#[path = "../support/docs.rs"]
mod docs;
mod lint;
mod machine;
mod reproduce;
mod root;
mod rpm;
mod scene;
