//! `stockade setup`: looks at the host, proposes a configuration, and writes it when told to.
//!
//! ```text
//! host ─► look: usual places, containers, sshd, Cloudflare ─► findings ─► proposal: text with reasons, read back
//!                                                                              │ told to
//!                                                                              ▼
//!                                            place: the file ─► check ─► observe: the last day, run through the jails
//! ```
//! What is found was written by others: names of files and containers, configuration, log lines. None of it is followed out of
//! its place, none becomes more than one value in the proposal, and no program is run to find it.

mod changes;
mod conf;
mod containers;
mod dialect;
mod finding;
mod haproxy;
mod input;
mod logs;
mod look;
mod observe;
mod person;
mod place;
mod proposal;
mod report;
mod sample;
mod sshd;
mod traefik;
mod tree;
mod yaml;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};

use self::finding::{Findings, shown};
use self::person::Person;
use self::proposal::Proposal;
use super::{Failure, check, print};
use crate::cli::exit;

/// What became of the proposal.
enum Outcome {
    /// The file says it: it was written, or did so before.
    InPlace,
    /// It was shown, with nobody there to say yes.
    Shown,
    /// Somebody said no.
    Refused,
}

/// Proposes a configuration for the host below `root`, and writes it to `path` after confirmation or with `yes`.
pub(super) fn run(path: &Path, root: &Path, yes: bool, observe: bool) -> Result<()> {
    let findings = look::look(root)?;
    let people = person::look(root, std::env::var("SSH_CONNECTION").ok().as_deref());
    eprint!("{}", report::found(&findings, &people));
    if !proposal::is_worth_it(&findings) {
        eprint!("\n{}", report::NOTHING);
        return Err(Failure::quiet(exit::NO).into());
    }
    let proposal = Proposal::new(&findings, &people)?;
    match offer(path, &proposal, yes)? {
        Outcome::InPlace => finish(path, &proposal, &findings, &people, observe),
        Outcome::Shown => Ok(()),
        Outcome::Refused => Err(Failure::quiet(exit::NO).into()),
    }
}

/// Writes the file if that is wanted.
fn offer(path: &Path, proposal: &Proposal, yes: bool) -> Result<Outcome> {
    if proposal::says_the_same(path, proposal) {
        eprintln!("\n{} says the same already (comments aside): nothing to write.", shown(path));
        return Ok(Outcome::InPlace);
    }
    let there = path.exists();
    if !yes {
        print(&format!("\n{}", proposal.text.trim_end()))?;
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            eprintln!(
                "\nNothing was written: there is no terminal to ask at. `stockade setup --yes` writes this to {}.",
                shown(path)
            );
            return Ok(Outcome::Shown);
        }
        if there {
            print(&format!(
                "\nWhat changes in {}, comments aside:\n{}",
                shown(path),
                changes::told(path, &proposal.text)
            ))?;
        }
        if !confirmed(path, there)? {
            eprintln!("Nothing was written.");
            return Ok(Outcome::Refused);
        }
    }
    let kept = place::write(path, &proposal.text)?;
    eprintln!("\nWritten to {}.", shown(path));
    if let Some(kept) = kept {
        eprintln!("What was there is kept as {}.", shown(&kept));
    }
    Ok(Outcome::InPlace)
}

fn confirmed(path: &Path, there: bool) -> Result<bool> {
    let mut out = io::stdout().lock();
    let keeps = if there { " What is there is kept beside it." } else { "" };
    write!(out, "\nWrite it to {}?{keeps} [y/N] ", shown(path))?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("failed to read the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Checks what is in place now, and shows what it would have done.
fn finish(
    path: &Path,
    proposal: &Proposal,
    findings: &Findings,
    people: &[Person],
    observe: bool,
) -> Result<()> {
    // Before the check, which may leave this network namespace and with it the right to read logs.
    let observed = observe.then(|| observe::observe(&proposal.config, findings)).transpose();
    print("")?;
    let checked = check::run(path, false, false);
    if let Some(observed) = observed.context("failed to go through the last day's logs")? {
        print(&format!("\n{}", observed.told(people).trim_end()))?;
    }
    checked?;
    print(&format!("\n{}", report::next(path, &proposal.config).trim_end()))
}
