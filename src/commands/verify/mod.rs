//! `stockade verify`: is this address blocked? Not what the sets say counts, but what becomes of its packets.
//!
//! All objects of our tables are copied into a network namespace that a wire joins to another, and connections are made
//! over it. Nothing is sent anywhere else, and nothing is changed here: but hits in the maps of a BPF matcher, which the
//! copy shares with the original, are counted there.

mod address;
mod installed;
mod probe;
mod report;
mod trial;
mod wire;

use std::path::Path;

use anyhow::{Context, Result};
use nft::Connection;

use self::address::Asked;
use self::installed::Installed;
use super::{Failure, load_or_empty, print};
use crate::cli::exit;

/// Tries an address or one of a network against what is installed, and prints what became of it.
pub(super) fn run(config: &Path, address: &str, json: bool) -> Result<()> {
    let asked = Asked::parse(address).map_err(|e| Failure::new(exit::USAGE, e.to_string()))?;
    let headers = load_or_empty(config)?.headers;
    // One thread: what it opens is in the namespace it is in.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(async {
        let mut kernel = Connection::open().context("failed to open nf_tables")?;
        match Installed::read(&mut kernel).await? {
            Some(installed) => anyhow::Ok(Some(trial::hold(&asked, &headers.names, &installed).await?)),
            None => Ok(None),
        }
    })?;
    let Some(findings) = findings else {
        if json {
            print(&report::json_nothing(&asked).to_string())?;
        }
        return Err(Failure::new(exit::NO, "nothing is installed in this network namespace").into());
    };
    print(&if json { report::json(&asked, &findings).to_string() } else { report::text(&asked, &findings) })?;
    match report::blocked(&findings) {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::quiet(exit::NO).into()),
        None => Err(Failure::quiet(exit::REFUSED).into()),
    }
}
