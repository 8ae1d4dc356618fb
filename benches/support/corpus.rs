//! Logs made up for benchmarks, with the truth about them: the same numbers on every machine.

use std::collections::{HashMap, VecDeque};

use crate::npm::{attacker, line};

/// Seconds from the first to the last line.
const SPAN: u64 = 86_400;
/// The policy the truth is told by, and the one the benchmark's jail has.
pub(crate) const MAXRETRY: usize = 15;
/// In seconds.
pub(crate) const FINDTIME: u64 = 60;
/// The share of lines that are offenses: one in ten.
const HOSTILE: u64 = 10;

const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "okhttp/4.12.0",
];
const PAGES: [&str; 4] =
    ["/", "/api/v1/status", "/photos/timeline?from=2024-11-01&to=2024-12-01", "/assets/app.4c1f.js"];
const PROBES: [&str; 4] =
    ["/wp-login.php", "/.env", "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php", "/owa/auth/logon.aspx"];

/// A generator of numbers that repeats itself from the same seed (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// The next number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// A log and who offends in it.
pub(crate) struct Corpus {
    /// The log.
    pub(crate) text: String,
    /// How many addresses reach [`MAXRETRY`] offenses within [`FINDTIME`].
    pub(crate) offenders: usize,
}

/// `lines` lines over a day. Attackers work in bursts; some stay just under the limit.
pub(crate) fn corpus(lines: u64) -> Corpus {
    let mut numbers = Numbers(1);
    let mut text = String::with_capacity(usize::try_from(lines).unwrap_or(0) * 260);
    let mut seen: HashMap<u64, VecDeque<u64>> = HashMap::new();
    let mut offenders = std::collections::HashSet::new();
    let mut stamp = (u64::MAX, String::new());
    for n in 0..lines {
        let second = n * SPAN / lines;
        if stamp.0 != second {
            let time = jiff::Timestamp::from_second(1_735_689_600 + i64::try_from(second).unwrap_or(0));
            let time = time.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            stamp = (second, time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string());
        }
        let pick = usize::try_from(numbers.below(4)).unwrap_or(0);
        let length = numbers.below(60_000);
        if numbers.below(HOSTILE) > 0 {
            let client = format!("80.{}.{}.9", numbers.below(20), numbers.below(250));
            line(&mut text, &stamp.1, 200, PAGES[pick], &client, AGENTS[pick], length);
            continue;
        }
        // A handful of attackers at a time, new ones every ten minutes: most reach the limit, the quiet ones do not.
        let who = second / 600 * 8 + numbers.below(if second.is_multiple_of(2) { 2 } else { 8 });
        line(&mut text, &stamp.1, 404, PROBES[pick], &attacker(who), "zgrab/0.x", length);
        let times = seen.entry(who).or_default();
        times.push_back(second);
        if times.len() > MAXRETRY {
            times.pop_front();
        }
        if times.len() == MAXRETRY && second - times[0] <= FINDTIME {
            offenders.insert(who);
        }
    }
    Corpus { text, offenders: offenders.len() }
}
