//! `run --wait`: where there is no configuration yet, or one with mistakes, it is waited for.
//!
//! A container that ends is started again, ends again, and what it had to say scrolls by. One that waits says once what it
//! lacks, answers `ping` with it, and begins as soon as the file is right.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::sync::mpsc;

use super::CALLS;
use super::signals::{Ask, Signals};
use crate::cli::exit;
use crate::commands::{control_socket, load};
use crate::config::{Config, ConfigError};
use crate::control::{self, Call, Request, Response, Server};

/// A file's number, its time of change, its length.
type Stamp = (u64, i64, i64, u64);

/// The file is looked at so often.
const LOOK: Duration = Duration::from_secs(1);

/// The configuration, once there is one without mistakes; `None` when told to end before.
pub(super) fn wait_for(path: &Path) -> Result<Option<Config>> {
    // Looked at before it is read: a change in between is one.
    let seen = stamp(path);
    match load(path) {
        Ok(config) => Ok(Some(config)),
        Err(error) => wait(path, error, seen),
    }
}

fn wait(path: &Path, mut error: ConfigError, mut seen: Option<Stamp>) -> Result<Option<Config>> {
    let socket = control_socket(path);
    let mut signals = Signals::listen(&socket).context("failed to listen to signals")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (calls, mut orders) = mpsc::channel(CALLS);
        let server = Server::bind(&socket).await?;
        let server = server.start(calls).context("failed to serve the control socket")?;
        tell(path, &error);
        let found = loop {
            tokio::select! {
                biased;
                ask = signals.next() => if ask == Ask::Stop { break None },
                Some(call) = orders.recv() => if answer(path, &error, call) { break None },
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = stamp(path);
            if now == seen {
                continue;
            }
            seen = now;
            match load(path) {
                Ok(config) => break Some(config),
                Err(other) => error = other,
            }
            tell(path, &error);
        };
        let server = server.close().await;
        control::linger().await;
        server.end();
        Ok(found)
    })
}

/// What is wrong, and that it is waited; on standard error, because how to log stands in the configuration.
fn tell(path: &Path, error: &ConfigError) {
    eprintln!("stockade: {}\nstockade: {}", chain(error), what_to_do(path, error));
}

fn chain(error: &ConfigError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn what_to_do(path: &Path, error: &ConfigError) -> String {
    let file = path.display();
    match error {
        ConfigError::Read { .. } => format!(
            "nothing is followed and nobody is banned: waiting for {file} (`stockade setup` proposes one; in a container, \
             mount the directory it is in)"
        ),
        ConfigError::Mistakes(_) => {
            format!("nothing is followed and nobody is banned: waiting for {file} to be corrected")
        }
    }
}

/// Answers whoever asks meanwhile; whether it is to end.
fn answer(path: &Path, error: &ConfigError, (request, reply): Call) -> bool {
    let (response, ends) = match request {
        Request::Stop { .. } => (Response::Ok(json!({ "bans": 0 })), true),
        Request::Ping => {
            (Response::error(exit::NO, format!("{}\n{}", chain(error), what_to_do(path, error))), false)
        }
        _ => (Response::error(exit::UNREACHABLE, what_to_do(path, error)), false),
    };
    // Who asked may have gone.
    drop(reply.send(response));
    ends
}

/// Which file it is, and when it was last changed, as far as the file system tells.
fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}
