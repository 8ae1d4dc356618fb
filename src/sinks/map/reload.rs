//! The server's own programs: one that says whether it could read the new file, and one that has it do so.

use std::time::Duration;

use super::super::process::{self, Outcome};
use crate::config::sinks::Map;

/// What programs of servers and containers may need of the agent's environment; no secret is called so.
const KEPT: [&str; 4] = ["HOME", "TZ", "DOCKER_HOST", "XDG_RUNTIME_DIR"];

/// Whether the server can read what is in the file now; `Ok` also where nothing tests it.
pub(super) async fn test(settings: &Map) -> Result<(), String> {
    match &settings.test {
        Some(words) => run("the test", words, settings.timeout).await.map(drop),
        None => Ok(()),
    }
}

/// Has the server read the file; what the program said.
pub(super) async fn reload(settings: &Map) -> Result<Option<String>, String> {
    match &settings.reload {
        Some(words) => run("the reload", words, settings.timeout).await.map(Some),
        None => Ok(None),
    }
}

/// What the program said if all was well; else what failed.
pub(super) async fn run(what: &str, words: &[String], limit: Duration) -> Result<String, String> {
    let kept = KEPT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let line = words.join(" ");
    match process::run(words, kept, b"", limit).await {
        Ok(outcome) if outcome.is_good() => Ok(said(&outcome)),
        Ok(outcome) => Err(format!("{what} `{line}` failed: {}", said(&outcome))),
        Err(e) => Err(format!("{what} `{line}` cannot be run: {e}")),
    }
}

fn said(outcome: &Outcome) -> String {
    let text = outcome.text();
    text.strip_prefix("exit status: 0: ").unwrap_or(&text).to_owned()
}
