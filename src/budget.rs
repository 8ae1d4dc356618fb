//! What `limits.memory` is divided into.
//!
//! The agent holds what strangers make it hold: offenders, bans, lines. Each of these has a bound of its own, and the bounds
//! are chosen here so that they keep below `limits.memory` *all at once*, also in the moments when a part of them
//! is there twice: as a checkpoint on its way to the ledger, or as a listing of the kernel that is compared with the ban
//! table. `benches/floods.rs` and the test `floods` measure the whole program against it.

use crate::config::Config;
use crate::config::resolve::{HISTORY, OFFENDERS};
use crate::engine::Limits;

/// The program, its threads and allocator, SQLite's cache and write buffers, sixteen jails with filters (measured: 12 to
/// 16 MiB), and what a checkpoint of any size takes besides its rows.
const FIXED: u64 = 28 << 20;
/// Ten batches of offenses on their way from the reader: 400 KiB of lines, and 80 bytes about each of 1024.
const BATCHES: u64 = 10 * 1024 * (400 + 80);
/// The reader's buffer holds a line of the greatest length and is at least so large; lines are looked at where they lie.
const BUFFER: u64 = 256 << 10;
/// A followed file: its mark with the first and last bytes, in the reader, in the keeper and in a checkpoint, its matcher and
/// its place in the status. For so many files there is room in the budget: the systems that follow more have memory.
const FILE: u64 = 8 << 10;
const FILES: u64 = 2_000;

/// A ban without its evidence. At rest 170 bytes: the ban and its place in the table (88), in the index (10), in the
/// order of ends (32) and what is around its evidence (40). While the whole table is compared with the kernel's, the
/// listing, what is desired, what differs and the messages are as much again twice. Measured, all in all: 530.
const BAN: u64 = 600;
/// An offender: 72 bytes, 10 in the index, 5 in the list of changes; 64 in a checkpoint; and as much again of the table for
/// the moment in which it grows.
const OFFENDER: u64 = 260;
/// A record of a repeater: 56 bytes, 10 in the index, 48 in a checkpoint.
const RECORD: u64 = 150;
/// TLS, certificates and connections, where there are sinks, and the end of a log that is searched for lines.
const SINKS: u64 = 16 << 20;
/// What a notifier has to tell: see `sinks::queue`, and a message of it.
const NOTIFIER: u64 = 14 << 20;
/// A ban that a mirror shows: what is to be shown (130 bytes), and a file's text or the difference while it is made.
const SHOWN: u64 = 200;
/// A time beyond the three that an offender has room for, and once more in a checkpoint.
const TIME: u64 = 16;

/// What may be remembered, and what is to be told if that is less than was asked for.
#[must_use]
pub fn limits(config: &Config) -> (Limits, Vec<String>) {
    let reader = BATCHES + BUFFER.max(2 * bytes(config.limits.line)) + FILES * FILE;
    let mirrors = config.sinks.iter().filter(|sink| sink.kind.is_mirror()).count() as u64;
    let notifiers = config.sinks.len() as u64 - mirrors;
    let sinks = if config.sinks.is_empty() { 0 } else { SINKS + notifiers * NOTIFIER };
    // The smallest budget and the longest line leave a quarter at least.
    let rest = config.limits.memory.saturating_sub(FIXED + reader + sinks).max(config.limits.memory / 4);
    let share = |percent: u64, each: u64| usize::try_from(rest / 100 * percent / each).unwrap_or(usize::MAX);
    let (offenders, history) = (share(25, OFFENDER), share(15, RECORD));
    let limits = Limits {
        offenders: config.limits.offenders.min(offenders),
        history: config.limits.history.min(history),
        times: share(10, TIME),
        bans: share(40, BAN + mirrors * SHOWN),
        evidence: share(10, 1),
    };
    // What nobody asked for is no disappointment: the defaults are "as many as usual", or as there is room for.
    let lowered = |key: &str, asked: usize, room: usize, usual: u64| {
        (room < asked && asked as u64 != usual)
            .then(|| format!("limits.{key} is {asked}, and limits.memory has room for {room}: that holds"))
    };
    let told = [
        lowered("offenders", config.limits.offenders, offenders, OFFENDERS),
        lowered("history", config.limits.history, history, HISTORY),
    ];
    (limits, told.into_iter().flatten().collect())
}

fn bytes(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Shipped;
    use crate::types::Ban;

    fn of(limits: &str) -> (Limits, Vec<String>) {
        let text = format!("jails: {{}}\nlimits: {limits}");
        let nothing = Shipped { names: &[], text: |_| None };
        super::limits(&Config::parse(&text, "f", &nothing).unwrap())
    }

    #[test]
    fn the_parts_keep_below_the_whole() {
        for (memory, line) in [(64, 512), (64, 16_777_216), (256, 65_536), (4096, 65_536)] {
            let (limits, _) =
                of(&format!("{{ memory: {memory}M, line: {line}, offenders: 50000000, history: 50000000 }}"));
            let all = bytes(limits.offenders) * OFFENDER
                + bytes(limits.times) * TIME
                + bytes(limits.bans) * BAN
                + bytes(limits.history) * RECORD
                + bytes(limits.evidence);
            assert!(all < memory << 20, "{memory}M: {limits:?}");
            assert!(limits.offenders > 1000 && limits.bans > 1000, "{memory}M: {limits:?}");
        }
    }

    #[test]
    fn the_default_has_room_for_what_is_promised() {
        let (limits, told) = of("{}");
        assert!(told.is_empty(), "{told:?}");
        assert_eq!((limits.offenders, limits.history), (200_000, 200_000));
        assert!(limits.bans >= 120_000, "{limits:?}");
    }

    #[test]
    fn less_than_was_asked_for_is_told() {
        let (limits, told) = of("{ memory: 64M, offenders: 300000, history: 300000 }");
        assert_eq!(told.len(), 2);
        assert!(told[0].contains(&format!("has room for {}", limits.offenders)), "{told:?}");
    }

    #[test]
    fn sinks_have_their_part() {
        let sinks =
            "sinks:\n  map: { format: list, path: /a }\n  mail: { to: a@example.org, sendmail: /bin/true }\n";
        let nothing = Shipped { names: &[], text: |_| None };
        let config = Config::parse(&format!("jails: {}\n{sinks}", "{}"), "f", &nothing).unwrap();
        let (limits, told) = limits(&config);
        assert!(told.is_empty(), "{told:?}");
        let all = bytes(limits.bans) * (BAN + SHOWN) + SINKS + NOTIFIER + FIXED;
        assert!(all < config.limits.memory && limits.bans > 60_000, "{limits:?}");
    }

    #[test]
    fn a_ban_is_as_large_as_reckoned() {
        assert!(size_of::<Option<Ban>>() <= 80, "{}", size_of::<Option<Ban>>());
    }
}
