//! `stockade check`: is the configuration right, can this kernel do it, are the logs there.

use std::fs::File;
use std::path::Path;

use anyhow::Result;
use jiff::tz::TimeZone;
use nft::Connection;
use serde_json::{Value, json};

use super::{Failure, load, print};
use crate::cli::exit;
use crate::config::Config;
use crate::daemon::jails::{Jails, Ready, Registry};
use crate::daemon::policy;
use crate::filter::Filter;
use crate::follow::matching_files;
use crate::kernel::Ruleset;
use crate::kernel::header::HeaderRules;

/// One thing that was looked at.
struct Finding {
    /// Nothing configured fails for it.
    good: bool,
    what: String,
    /// What was found, and what to do about it.
    told: String,
}

/// Checks `path`, and prints what was found.
pub(super) fn run(path: &Path, json: bool, print_ruleset: bool) -> Result<()> {
    let config = load(path)?;
    let jails = Jails::new(&config, &mut Registry::default())?;
    let ruleset = Ruleset::new(jails.layout());
    if print_ruleset {
        let headers = HeaderRules::planned(&jails.layout(), &config.headers);
        return print(ruleset.with_headers(&headers).trim_end());
    }
    // Also filters that no jail uses (yet): what is written must hold.
    for (name, definition) in &config.filters {
        Filter::compile(name, definition, &TimeZone::system())?;
    }
    let mut findings = vec![configuration(path, &config, &jails)];
    findings.extend(kernel(&ruleset)?);
    findings.extend(jails.jails.iter().map(logs));
    let good = findings.iter().all(|finding| finding.good);
    if json {
        let value = |finding: &Finding| -> Value {
            json!({ "what": finding.what, "ok": finding.good, "told": finding.told })
        };
        let warnings: Vec<String> = warnings(&config, &jails).collect();
        print(
            &json!({
                "ok": good, "findings": findings.iter().map(value).collect::<Vec<_>>(), "warnings": warnings,
            })
            .to_string(),
        )?;
    } else {
        for finding in &findings {
            print(&format!(
                "{}  {}: {}",
                if finding.good { "ok " } else { "NO " },
                finding.what,
                finding.told
            ))?;
        }
        for warning in warnings(&config, &jails) {
            print(&format!("     warning: {warning}"))?;
        }
    }
    if good { Ok(()) } else { Err(Failure::quiet(exit::NO).into()) }
}

fn warnings(config: &Config, jails: &Jails) -> impl Iterator<Item = String> {
    config.warnings.iter().map(ToString::to_string).chain(jails.warnings.iter().cloned())
}

fn configuration(path: &Path, config: &Config, jails: &Jails) -> Finding {
    let told = match jails.jails.len() {
        0 => "no jail is enabled: nothing will be followed (see the jails section of config.yaml)".to_owned(),
        n => format!("{n} jails, {} entries in ignoreip", config.ignoreip.len()),
    };
    Finding { good: !jails.jails.is_empty(), what: path.display().to_string(), told }
}

/// Asks the kernel whether it would take our table, in a transaction that is never committed.
fn kernel(ruleset: &Ruleset) -> Result<Vec<Finding>> {
    let what = "kernel: table inet stockade".to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let failed = |told: String| Finding { good: false, what: what.clone(), told };
    Ok(runtime.block_on(async {
        let mut connection = match Connection::open() {
            Ok(connection) => connection,
            Err(e) => {
                return vec![failed(format!("{e} (is nf_tables in this kernel? try modprobe nf_tables)"))];
            }
        };
        let refused = match ruleset.probe(&mut connection).await {
            Ok(refused) => refused,
            Err(e) if e.is_permission() => {
                return vec![failed(format!("{e} (run it as root, or grant CAP_NET_ADMIN)"))];
            }
            Err(e) => return vec![failed(e.to_string())],
        };
        if refused.is_empty() {
            let told = "sets with timeouts, intervals and rules at prerouting are available".to_owned();
            return vec![Finding { good: true, what: what.clone(), told }];
        }
        let advice = " (this kernel lacks a part of nf_tables, CONFIG_NF_TABLES_INET, or a table inet stockade of another \
                      make is in the way)";
        refused.iter().map(|e| failed(format!("{e}{advice}"))).collect()
    }))
}

/// Whether a jail's logs are there and can be read.
fn logs(ready: &Ready) -> Finding {
    let what = format!("jail {} ({})", ready.jail.name, policy(&ready.jail));
    let mut good = true;
    let mut told = Vec::new();
    for pattern in &ready.jail.logpath {
        let (files, mut failed) = matching_files(pattern);
        if files.is_empty() && failed.is_empty() {
            // No mistake: a log that does not exist yet is waited for.
            told.push(format!("{pattern}: no such file yet, will be waited for"));
        }
        failed.extend(files.iter().filter_map(|file| Some((file.clone(), File::open(file).err()?))));
        for (path, e) in failed {
            good = false;
            told.push(format!("{}: {e} (let the agent read it: owner, group or ACL)", path.display()));
        }
        if files.len() == 1 {
            told.push(files[0].display().to_string());
        } else if files.len() > 1 {
            told.push(format!("{pattern}: {} files", files.len()));
        }
    }
    Finding { good, what, told: told.join("; ") }
}
