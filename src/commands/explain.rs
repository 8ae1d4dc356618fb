//! `stockade explain`: one line, step by step.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::test::offender;
use super::{Failure, load, print};
use crate::cli::exit;
use crate::clock;
use crate::config::duration::{Shown, ShownBanTime};
use crate::daemon::jails::{Jails, Ready, Registry};
use crate::daemon::{policy, printable, shown};
use crate::engine::{Engine, Escalation, Limits, Verdict};
use crate::filter::Outcome;
use crate::types::{BanTime, Offense, Timestamp};

/// Explains `line` (`-`: the first line of standard input) for each jail, or for the one called `only`.
pub(super) fn run(config: &Path, line: &str, only: Option<&str>) -> Result<()> {
    let config = load(config)?;
    let jails = Jails::new(&config, &mut Registry::default())?;
    let mut text = line.as_bytes().to_vec();
    if line == "-" {
        text.clear();
        std::io::stdin().take(1 << 20).read_to_end(&mut text).context("failed to read standard input")?;
    }
    let line = text.split(|b| *b == b'\n').next().unwrap_or_default();
    ensure!(!line.is_empty(), Failure::new(exit::USAGE, "there is no line to explain"));
    let chosen: Vec<&Ready> = match only {
        None => jails.jails.iter().collect(),
        Some(name) => jails.find(name).into_iter().collect(),
    };
    if chosen.is_empty() {
        let what = only
            .map_or_else(|| "no jail is configured".to_owned(), |name| format!("there is no jail {name:?}"));
        bail!(Failure::new(if only.is_some() { exit::NO } else { exit::USAGE }, what));
    }
    let mut engine = Engine::new(Limits::default());
    engine.set_allowlist(jails.allowlist.clone(), Timestamp::default());
    for ready in &jails.jails {
        engine.set_jail(ready.id, ready.policy.clone(), Timestamp::default());
    }
    for (n, ready) in chosen.into_iter().enumerate() {
        if n > 0 {
            print("")?;
        }
        explain(&jails, ready, &mut engine, line)?;
    }
    Ok(())
}

fn explain(jails: &Jails, ready: &Ready, engine: &mut Engine, line: &[u8]) -> Result<()> {
    let now = clock::now();
    let say = |what: &str, told: &str| print(&format!("  {what:9} {told}"));
    print(&format!("jail {} (filter {}, {})", ready.jail.name, ready.jail.filter_name, policy(&ready.jail)))?;
    let seen = ready.filter.examine(line, now, &jails.trust);
    match (seen.format, seen.outcome) {
        (Some(format), _) => say("format", format)?,
        (None, Outcome::Missed) => {
            return say("format", "none of the filter's formats understands this line");
        }
        (None, _) => say("format", "regular expressions")?,
    }
    for (name, value) in &seen.fields {
        say("field", &format!("{name} = {}", printable(value)))?;
    }
    match seen.at {
        Some(at) => say("time", &at.to_string())?,
        None => say("time", "none: the line counts from its arrival")?,
    }
    let because = seen.because.as_deref().map(|because| format!(": {because}")).unwrap_or_default();
    say("filter", &format!("{}{because}", seen.outcome.word()))?;
    let (Outcome::Matched, Some(who)) = (seen.outcome, seen.who) else {
        return say("decision", "none: the line is no offense");
    };
    say("offender", &offender(who))?;
    let Some(address) = who.offender() else {
        return say("decision", "none: nobody can be held responsible (see trusted_proxies)");
    };
    let at = seen.at.unwrap_or(now);
    let told = match engine.offense(Offense { jail: ready.id, offender: address, at, line }, at) {
        Verdict::Allowlisted => format!("none: {address} is never banned (see ignoreip)"),
        Verdict::Refused => format!("none: {address} must not be banned at the moment"),
        Verdict::Banned => "ban at once".to_owned(),
        _ => {
            let banned = engine.offender(ready.id, address).map_or_else(|| address.to_string(), shown);
            format!("one of the {} offenses that ban {banned}", ready.policy.maxretry)
        }
    };
    say("decision", &told)?;
    match &ready.policy.escalation {
        Some(escalation) => say("repeaters", &lengths(escalation, ready.policy.bantime)),
        None => Ok(()),
    }
}

/// How long the first bans of an offender are: `1h, then 5h, 1d6h, ... (and up to 34m of jitter)`.
fn lengths(escalation: &Escalation, bantime: BanTime) -> String {
    let length = |earlier| ShownBanTime(escalation.time(bantime, earlier, 0)).to_string();
    let later: Vec<String> = (1..=5).map(length).collect();
    let jitter = match escalation.jitter {
        Duration::ZERO => String::new(),
        jitter => format!(" (and up to {} of jitter)", Shown(jitter)),
    };
    format!("banned for {}, then {}, ...{jitter}", length(0), later.join(", "))
}
