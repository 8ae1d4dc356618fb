//! Whether sinks can be reached and take our credentials. Nothing is changed there.

use std::time::Duration;

use anyhow::Result;

use super::finding::{Finding, Mark, Section};
use crate::config::Config;
use crate::daemon::jails::Jails;
use crate::sinks::{self, Checked, Context};

/// So long one sink may take; all are tried at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// A finding or more for each sink.
pub(super) fn look(config: &Config, jails: &Jails) -> Result<Vec<Finding>> {
    if config.sinks.is_empty() {
        return Ok(Vec::new());
    }
    let context = Context::of(config, None);
    context.book.set(jails.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(async {
        let mut tries = tokio::task::JoinSet::new();
        for (at, sink) in config.sinks.iter().cloned().enumerate() {
            let context = context.clone();
            tries.spawn(async move {
                let checked = match tokio::time::timeout(PATIENCE, sinks::check(&sink, &context)).await {
                    Ok(checked) => checked,
                    Err(_) => vec![Checked::bad(format!("no answer within {} s", PATIENCE.as_secs()))],
                };
                (at, sink.name, checked)
            });
        }
        let mut all = tries.join_all().await;
        all.sort_by_key(|(at, ..)| *at);
        all
    });
    runtime.shutdown_background();
    let of_sink = |(_, name, checked): (usize, String, Vec<Checked>)| {
        checked.into_iter().map(move |checked| {
            let mark = if checked.good { Mark::Ok } else { Mark::No };
            Finding::new(Section::Sinks, mark, name.clone(), checked.text)
        })
    };
    Ok(findings.into_iter().flat_map(of_sink).collect())
}
