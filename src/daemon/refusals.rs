//! Bans that were not, because they would have locked somebody out.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::types::{JailId, Timestamp};

/// The same is told again after so long.
const AGAIN: Duration = Duration::from_secs(3600);
/// So many addresses are remembered as told; beyond that nobody is told of, and status counts them all the same.
const TOLD: usize = 1024;
/// So many are shown of each jail, the latest first.
const SHOWN: usize = 5;

/// What was told, and what status shows.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    told: HashMap<(JailId, IpAddr), Timestamp>,
    latest: HashMap<JailId, VecDeque<Refusal>>,
}

#[derive(Debug)]
struct Refusal {
    who: IpAddr,
    why: String,
    at: Timestamp,
}

impl Refusals {
    /// Notes one; whether it is to be told.
    pub(super) fn note(&mut self, jail: JailId, who: IpAddr, why: &str, now: Timestamp) -> bool {
        let latest = self.latest.entry(jail).or_default();
        latest.retain(|refusal| refusal.who != who);
        latest.truncate(SHOWN - 1);
        latest.push_front(Refusal { who, why: why.to_owned(), at: now });
        // A clock that was set back must not silence it for long.
        let recent = |at: Timestamp| now.since(at).max(at.since(now)) < AGAIN;
        if self.told.get(&(jail, who)).is_some_and(|at| recent(*at)) {
            return false;
        }
        if self.told.len() >= TOLD {
            self.told.retain(|_, at| recent(*at));
        }
        let room = self.told.len() < TOLD;
        if room {
            self.told.insert((jail, who), now);
        }
        room
    }

    /// The latest of a jail, for `status`.
    pub(super) fn of(&self, jail: JailId) -> Value {
        let latest = self.latest.get(&jail).into_iter().flatten();
        latest
            .map(|r| json!({ "offender": r.who.to_string(), "why": r.why, "at": r.at.to_string() }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(1_800_000_000 + seconds)
    }

    fn who(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn each_is_told_once_an_hour() {
        let mut refusals = Refusals::default();
        assert!(refusals.note(JailId(0), who(1), "why", at(0)));
        assert!(!refusals.note(JailId(0), who(1), "why", at(3599)));
        assert!(refusals.note(JailId(1), who(1), "why", at(1)), "in another jail");
        assert!(refusals.note(JailId(0), who(1), "why", at(3600)));
    }

    #[test]
    fn memory_is_bounded_and_the_latest_are_shown() {
        let mut refusals = Refusals::default();
        let told = (0..5000).filter(|n| refusals.note(JailId(0), who(*n), "why", at(0))).count();
        assert_eq!((told, refusals.told.len()), (TOLD, TOLD));
        refusals.note(JailId(0), who(4998), "why not", at(9));
        let shown = refusals.of(JailId(0));
        let shown: Vec<_> =
            shown.as_array().unwrap().iter().map(|r| r["offender"].as_str().unwrap()).collect();
        let want = [4998, 4999, 4997, 4996, 4995].map(|n| who(n).to_string());
        assert_eq!(shown, want);
        assert!(refusals.note(JailId(0), who(9999), "why", at(4000)), "room again");
    }
}
