//! What sinks are told: decisions after the kernel has them, and what becomes of the agent.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Agent;
use super::jails::{Jails, Ready};
use crate::clock;
use crate::config::Config;
use crate::sinks::desired::Want;
use crate::sinks::event::{Banned, Event, EventKind, Fault, Leaked, Started, Stopped, Unbanned};
use crate::sinks::words::cut;
use crate::types::{Ban, Decision, JailId, Offense, Timestamp};

/// So long after an agent was told to end its notifiers have had their last words: it has a second in all.
const LAST_WORDS: Duration = Duration::from_millis(750);
/// Who lifts all bans waits at most so long for the mirrors.
const WITHDRAWAL: Duration = Duration::from_secs(10);
/// The same error is told again after this time.
const AGAIN: Duration = Duration::from_secs(3600);
/// So many errors are told apart.
const ERRORS: usize = 64;
/// So many lines wait for their decisions at most: decisions are carried out after each batch.
const DECIDING: usize = 4096;

/// The lines that decided bans: longer than what a ban keeps, for those who are told.
#[derive(Debug, Default)]
pub(super) struct Deciding(VecDeque<(JailId, IpAddr, Box<[u8]>)>);

impl Deciding {
    pub(super) fn note(&mut self, offense: &Offense<'_>) {
        if self.0.len() < DECIDING {
            self.0.push_back((offense.jail, offense.offender, offense.line.into()));
        }
    }

    /// The line that decided `ban`, whose decisions come in the order of their lines; `None` for a ban by hand or of a prefix.
    fn of(&mut self, ban: &Ban) -> Option<Box<[u8]>> {
        let is_its =
            |(jail, who, _): &(JailId, IpAddr, Box<[u8]>)| *jail == ban.jail && ban.offender.contains(who);
        let at = self.0.iter().position(is_its)?;
        let line = self.0.remove(at)?.2;
        self.0.drain(..at);
        Some(line)
    }
}

/// What was logged as an error, each thing once an hour.
pub(super) struct Errors {
    logged: mpsc::Receiver<String>,
    told: HashMap<String, Timestamp>,
}

impl Errors {
    /// Hears of what is logged from now on.
    pub(super) fn begin() -> Self {
        Self { logged: crate::log::errors(), told: HashMap::new() }
    }

    /// Waits for the next. Cancel-safe.
    pub(super) async fn next(&mut self) -> String {
        match self.logged.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    fn is_new(&mut self, error: &str, now: Timestamp) -> bool {
        self.told.retain(|_, at| now.since(*at) < AGAIN);
        if self.told.contains_key(error) || self.told.len() >= ERRORS {
            return false;
        }
        self.told.insert(error.to_owned(), now);
        true
    }
}

impl Agent {
    /// Tells of decisions that the kernel has, or has refused.
    pub(super) fn tell_decisions(&mut self, decisions: &[Decision]) {
        if !self.sinks.is_empty() {
            let problem = self.guard.error.clone();
            for decision in decisions {
                self.tell_decision(decision, problem.as_deref());
            }
            self.release_if_forgetful();
        }
        self.deciding.0.clear();
    }

    fn tell_decision(&mut self, decision: &Decision, problem: Option<&str>) {
        let ban = decision.ban();
        let whole = if let Decision::Ban(ban) = decision { self.deciding.of(ban) } else { None };
        // A jail that is gone has no sinks any more.
        let Some(ready) = self.jails.jails.iter().find(|ready| ready.id == ban.jail) else { return };
        let names = &ready.jail.sinks;
        if names.is_empty() {
            return;
        }
        let observed = ready.jail.observe;
        if let Decision::Unban(ban, reason) = decision {
            self.sinks.unban(names, ban.offender, ban.jail);
            let event = Event::Unban(Unbanned {
                at: clock::now(),
                jail: ready.jail.name.clone(),
                offender: ban.offender,
                since: ban.since,
                reason: reason.word().to_owned(),
                observed,
            });
            return self.sinks.tell(event, Some(names));
        }
        let count = self.bans_so_far(ban);
        if !observed {
            self.sinks.ban(names, ban.offender, &want(ready, ban, count));
        }
        if !self.sinks.anybody_hears(names, EventKind::Ban) {
            return;
        }
        let prolonged = matches!(decision, Decision::Prolong(_));
        let line: &[u8] = whole.as_deref().unwrap_or(&ban.evidence);
        let banned = Banned {
            at: clock::now(),
            jail: ready.jail.name.clone(),
            offender: ban.offender,
            since: ban.since,
            until: ban.until,
            offenses: ban.offenses,
            count,
            prolonged,
            observed,
            problem: problem.map(str::to_owned),
            line: cut(&String::from_utf8_lossy(line), Banned::LINE).to_owned(),
            fields: fields(ready, &self.jails, line),
        };
        self.sinks.tell(Event::Ban(banned), Some(names));
    }

    /// Bans of this offender by this jail, with this one; 0: not known.
    fn bans_so_far(&self, ban: &Ban) -> u32 {
        self.engine.record(ban.jail, ban.offender).map_or(0, |record| record.count)
    }

    /// Gives mirrors all bans that they are to show.
    pub(super) fn show_bans(&self) {
        self.sinks.show(|sink| {
            let shown =
                |ready: &&Ready| !ready.jail.observe && ready.jail.sinks.iter().any(|name| name == sink);
            let jails: HashMap<JailId, &Ready> =
                self.jails.jails.iter().filter(shown).map(|ready| (ready.id, ready)).collect();
            let of = |ban: &Ban| {
                let count = self.bans_so_far(ban);
                jails.get(&ban.jail).map(|ready| (ban.offender, want(ready, ban, count)))
            };
            self.engine.bans().filter_map(of).collect()
        });
    }

    /// The agent enforces.
    pub(super) fn tell_start(&mut self) {
        self.show_bans();
        let event = Event::Start(Started {
            at: clock::now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            jails: self.jails.jails.len(),
            bans: self.engine.bans().count(),
            backend: self.guard.choice.backend.word().to_owned(),
        });
        self.sinks.tell(event, None);
        self.release_if_forgetful();
    }

    /// The agent ends.
    pub(super) fn tell_stop(&mut self, bans: usize, flushed: bool) {
        self.sinks.tell(Event::Stop(Stopped { at: clock::now(), bans, flushed }), None);
        self.release_if_forgetful();
    }

    /// Ends the sinks; the names of mirrors that still show what was lifted, if they were to take it back.
    pub(super) async fn end_sinks(&mut self, begun: Instant, withdraw: bool, written: bool) -> Vec<String> {
        if self.sinks.is_empty() {
            return Vec::new();
        }
        let by = match (withdraw, written) {
            (true, _) => begun + WITHDRAWAL,
            (false, true) => begun + LAST_WORDS,
            // The disk has used up the time.
            (false, false) => begun,
        };
        let unfinished = self.sinks.end(by.saturating_duration_since(Instant::now()), withdraw).await;
        for name in &unfinished {
            let what = if self.sinks.is_mirror(name) { "shows" } else { "has to tell" };
            tracing::warn!("the sink {name} still {what} something; the next start takes it up");
        }
        unfinished.into_iter().filter(|name| self.sinks.is_mirror(name)).collect()
    }

    /// Requests of a banned offender come through.
    pub(super) fn tell_leak(&mut self, jail: String, offender: IpAddr, advice: String) {
        let names = self.jails.find(&jail).map(|ready| ready.jail.sinks.clone()).unwrap_or_default();
        let event = Event::Leak(Leaked { at: clock::now(), jail, offender: IpNet::from(offender), advice });
        self.sinks.tell(event, Some(&names));
        self.release_if_forgetful();
    }

    /// Something was logged as an error.
    pub(super) fn tell_error(&mut self, message: String) {
        let at = clock::now();
        if !self.sinks.is_empty() && self.errors.is_new(&message, at) {
            self.sinks.tell(Event::Error(Fault { at, message }), None);
            self.release_if_forgetful();
        }
    }

    /// The sinks of another configuration.
    pub(super) fn reconfigure_sinks(&mut self, config: &Config, jails: &Jails) -> Result<()> {
        let sinks = if self.observing { &[][..] } else { &config.sinks };
        self.sinks.reconfigure(sinks).context("failed to start the thread of the sinks")?;
        self.sinks.set_jails(jails);
        Ok(())
    }

    /// Without a ledger nothing waits for being written.
    fn release_if_forgetful(&mut self) {
        if self.keeper.is_forgetful() {
            drop(self.sinks.to_write(false));
            self.sinks.release();
        }
    }
}

fn want(ready: &Ready, ban: &Ban, count: u32) -> Want {
    Want {
        id: ban.jail,
        jail: Arc::clone(&ready.name),
        since: ban.since,
        until: ban.until,
        offenses: ban.offenses,
        count,
    }
}

/// What the jail's filter reads out of the line. A line that was cut, or a reason given by hand, may say nothing to it.
fn fields(ready: &Ready, jails: &Jails, line: &[u8]) -> std::collections::BTreeMap<String, String> {
    let examined = ready.filter.examine(line, clock::now(), &jails.trust);
    let named = examined.fields.into_iter().filter(|(_, value)| !value.is_empty() && **value != *b"-");
    named
        .map(|(name, value)| (name, cut(&String::from_utf8_lossy(&value), Banned::FIELD).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_for_its_ban() {
        let mut deciding = Deciding::default();
        let note = |deciding: &mut Deciding, jail, who: &str, line: &[u8]| {
            let at = Timestamp::default();
            deciding.note(&Offense { jail: JailId(jail), offender: who.parse().unwrap(), at, line });
        };
        for (jail, who) in [(0, "192.0.2.1"), (1, "192.0.2.1"), (0, "2001:db8::7"), (0, "192.0.2.9")] {
            note(&mut deciding, jail, who, format!("{jail} {who}").as_bytes());
        }
        let ban = |jail, offender: &str| Ban {
            jail: JailId(jail),
            offender: offender.parse().unwrap(),
            since: Timestamp::default(),
            until: None,
            offenses: 1,
            evidence: b"cut".as_slice().into(),
            forced: false,
        };
        let mut of =
            |jail, offender| deciding.of(&ban(jail, offender)).map(|l| String::from_utf8(l.into()).unwrap());
        assert_eq!(of(1, "192.0.2.1/32").as_deref(), Some("1 192.0.2.1"), "of its own jail");
        assert_eq!(of(0, "2001:db8::/64").as_deref(), Some("0 2001:db8::7"), "in its prefix");
        assert_eq!(of(0, "198.51.100.0/24"), None, "by hand");
        assert_eq!(of(0, "192.0.2.9/32").as_deref(), Some("0 192.0.2.9"));
        assert_eq!(deciding.0.len(), 0);
    }

    #[test]
    fn an_error_is_told_once_an_hour() {
        let mut errors = Errors { logged: mpsc::channel(1).1, told: HashMap::new() };
        let at = Timestamp::from_secs;
        assert!(errors.is_new("a", at(0)) && !errors.is_new("a", at(3599)) && errors.is_new("b", at(10)));
        assert!(errors.is_new("a", at(3600)));
    }
}
