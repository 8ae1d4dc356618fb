//! `stockade test`: what a filter makes of a log, line by line.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::log::{Log, lines};
use super::{Failure, load_or_empty};
use crate::cli::{self, exit};
use crate::clock;
use crate::config::{Config, filter};
use crate::daemon::jails::Jails;
use crate::daemon::printable;
use crate::filter::definition::Definition;
use crate::filter::{Attribution, Examination, Filter, Outcome, builtin};

/// Runs `filter` (a name, or a failregex) over `file`.
pub(super) fn run(
    config: &Path,
    filter: &str,
    file: &Path,
    json: bool,
    print: Option<cli::Outcome>,
) -> Result<()> {
    let config = load_or_empty(config)?;
    let (name, definition) = find(&config, filter)?;
    let filter = Filter::compile(name, &definition, &TimeZone::system())?;
    for warning in filter.warnings() {
        eprintln!("stockade: warning: {warning}");
    }
    let trust = Jails::trust(&config)?;
    let now = clock::now();
    let mut log = Log::open(file, config.limits.line)?;
    let mut out = BufWriter::new(io::stdout());
    let (mut number, mut matched, mut ignored, mut missed, mut strange) = (0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
    while let Some(block) = log.block()? {
        for line in lines(block, config.limits.line) {
            number += 1;
            let seen = filter.examine(line, now, &trust);
            let outcome = outcome(&seen);
            strange += u64::from(seen.outcome == Outcome::Missed);
            match outcome {
                cli::Outcome::Matched => matched += 1,
                cli::Outcome::Ignored => ignored += 1,
                cli::Outcome::Missed => missed += 1,
            }
            if json && print.is_none_or(|wanted| wanted == outcome) {
                writeln!(out, "{}", value(number, outcome, &seen))?;
            } else if !json && print == Some(outcome) {
                let who = seen.who.map(|who| format!("{}  ", offender(who))).unwrap_or_default();
                writeln!(out, "{number}: {who}{}", printable(line))?;
            }
        }
    }
    if json {
        writeln!(
            out,
            "{}",
            json!({ "lines": number, "matched": matched, "ignored": ignored, "missed": missed })
        )?;
    } else {
        let strange =
            if strange > 0 { format!(" ({strange} not of the filter's format)") } else { String::new() };
        writeln!(out, "{number} lines: {matched} matched, {ignored} ignored, {missed} missed{strange}")?;
        if log.skipped > 0 {
            writeln!(out, "{} lines were too long (limits.line)", log.skipped)?;
        }
    }
    out.flush()?;
    Ok(())
}

/// The filter called `text`: the configuration's own, else a shipped one; else `text` is a failregex.
fn find<'a>(config: &Config, text: &'a str) -> Result<(&'a str, Arc<Definition>)> {
    if let Some(own) = config.filters.get(text) {
        return Ok((text, Arc::clone(own)));
    }
    if let Some(shipped) = builtin::text(text) {
        return Ok((text, Arc::new(filter::definition(shipped, text)?)));
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.chars().all(is_name) {
        let own = config.filters.keys().map(String::as_str);
        let mut known: Vec<&str> = own.chain(builtin::NAMES.iter().copied()).collect();
        known.sort_unstable();
        known.dedup();
        bail!(Failure::new(
            exit::USAGE,
            format!("there is no filter {text:?} (there are: {})", known.join(", "))
        ));
    }
    Ok(("regex", Arc::new(Definition { failregex: vec![text.to_owned()], ..Definition::default() })))
}

/// A line that no filter is about counts as missed, whether its format was understood or not.
fn outcome(seen: &Examination<'_>) -> cli::Outcome {
    match seen.outcome {
        Outcome::Matched => cli::Outcome::Matched,
        Outcome::Ignored => cli::Outcome::Ignored,
        Outcome::Passed | Outcome::Missed => cli::Outcome::Missed,
    }
}

pub(super) fn offender(who: Attribution) -> String {
    match who {
        Attribution::Offender(address) | Attribution::Behind { offender: address, .. } => address.to_string(),
        Attribution::Unattributable { peer: Some(peer) } => format!("nobody (only {peer}, a trusted proxy)"),
        Attribution::Unattributable { peer: None } => "nobody".to_owned(),
    }
}

fn value(number: u64, outcome: cli::Outcome, seen: &Examination<'_>) -> Value {
    let fields: Map<String, Value> =
        seen.fields.iter().map(|(name, text)| (name.clone(), json!(String::from_utf8_lossy(text)))).collect();
    json!({
        "line": number,
        "outcome": outcome.word(),
        "offender": seen.who.and_then(Attribution::offender),
        "at": seen.at.map(|at| at.to_string()),
        "fields": fields,
    })
}
