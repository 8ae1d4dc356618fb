//! `stockade stop`: asks the agent to end; where none runs, `--flush` removes what one has left.

use std::path::Path;

use anyhow::Result;

use super::client::{TIMEOUT, counted, text};
use super::status::list;
use super::{Failure, SHIPPED, print};
use crate::cli::exit;
use crate::clock;
use crate::config::{Config, Paths};
use crate::control::{self, Alone, BindError, CallError, Request, Response};
use crate::kernel::leftovers;
use crate::ledger;

/// `stockade stop`.
///
/// # Errors
/// When no agent answers and `flush` is not asked for, or the kernel refuses to remove the table.
pub(super) fn run(config: &Path, flush: bool) -> Result<()> {
    let paths = Config::paths(config, &SHIPPED)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = match runtime.block_on(control::call(&paths.control, &Request::Stop { flush }, TIMEOUT)) {
        Ok(Response::Ok(done)) => done,
        Ok(Response::Error { code, message }) => return Err(Failure::new(code, message).into()),
        Err(e) if flush && e.is_nobody() => return runtime.block_on(flush_without_agent(&paths, &e)),
        Err(e) => return Err(Failure::new(exit::UNREACHABLE, e.to_string()).into()),
    };
    let bans = done["bans"].as_u64().unwrap_or(0);
    let unfinished: Vec<&str> = list(&done["unfinished"]).iter().map(text).collect();
    if flush && !unfinished.is_empty() {
        let names = unfinished.join(", ");
        print(&format!(
            "warning: not all was taken back from the sinks {names}; an agent that starts takes it up"
        ))?;
    }
    print(&match (flush, bans) {
        (true, n) => format!("stopped; {} lifted, the table is gone", counted(n, "ban")),
        (false, 0) => "stopped".to_owned(),
        (false, n) => {
            let (bans, run) = (counted(n, "ban"), if n == 1 { "stays" } else { "stay" });
            format!("stopped; {bans} {run} in the kernel to the end (stop --flush lifts them)")
        }
    })
}

/// Lifts every ban in the kernel and in the ledger. Mirrors keep theirs: it takes an agent to speak to them.
async fn flush_without_agent(paths: &Paths, unreachable: &CallError) -> Result<()> {
    // An agent with another control socket would bring everything back at once, and say that somebody broke it.
    let _alone = Alone::claim().await.map_err(|e| match e {
        BindError::NotAlone(pid) => Failure::new(
            exit::UNREACHABLE,
            format!(
                "{unreachable}\nAn agent runs all the same (pid {pid}), with another control socket: name its configuration \
                 with --config, or end it first"
            ),
        ),
        e => Failure::new(exit::REFUSED, e.to_string()),
    })?;
    let lifted = leftovers::remove(clock::now()).await.map_err(|e| {
        Failure::new(
            exit::REFUSED,
            format!("no agent runs, and its bans cannot be lifted without one: {e:#}"),
        )
    })?;
    match ledger::lift_all(&paths.state) {
        Ok(0) => {}
        Ok(n) => print(&format!("{} taken out of the ledger", counted(n, "ban")))?,
        Err(e) => eprintln!("stockade: warning: an agent that starts bans again whom the ledger names: {e}"),
    }
    print(&match lifted {
        None => "no agent runs, and there is no table".to_owned(),
        Some(n) => {
            let bans = counted(u64::try_from(n).unwrap_or(u64::MAX), "ban");
            format!("no agent runs; {bans} lifted, the table is gone")
        }
    })
}
