//! Bans by an address in a request head, as xt_string rules of iptables-legacy.
//!
//! ```text
//! INPUT, FORWARD, OUTPUT, DOCKER-USER      jump to
//!   STOCKADE_HEADERS   one rule per header: its name is in the packet, go to
//!     STOCKADE_HEADS   one rule per ban: its address is in the packet, and the ban is not over, jump to
//!       STOCKADE_H_n   one rule per spelling, exact on both sides: reset or drop
//! ```
//!
//! So a packet without such a header costs a search per header, one with it a search per ban, and only one that names a
//! banned address more than that. The name and the address are looked for in one packet: a head that comes in several
//! is found where no packet ends between the two.
//!
//! A rule has no timeout. With xt_time it is over by itself when the ban is, to the second, also without an agent; where
//! the kernel has no xt_time the agent alone removes it.

use std::cmp::Ordering;

use hashbrown::HashMap;
use ipnet::IpNet;

use super::iptables::{Family, Saved, Wanted};
use super::program::ProgramError;
use super::rules::{FILTER, FILTER_JUMPS};
use super::table::{Table, is_made};
use super::{LegacyError, Look};
use crate::config::{HeaderAction, Headers};
use crate::kernel::disjoint::End;
use crate::kernel::header::{Pattern, patterns, patterns::common};
use crate::types::Timestamp;

const HEADERS: &str = "STOCKADE_HEADERS";
const HEADS: &str = "STOCKADE_HEADS";
/// In front of the number of a ban's own chain.
const BAN: &str = "STOCKADE_H_";
/// So far into a packet is searched: 4 KB of head, and as much again. Bulk transfers, whose packets come to us in one
/// piece of up to 64 KB, are so not searched whole.
const WINDOW: &str = "8192";
/// The last second that every xt_time can name (2038-01-19T03:14:07).
const TIME_MAX: i64 = i32::MAX as i64;

/// The rules, and the bans they are for.
pub struct LegacyHeaders {
    tables: Vec<Table>,
    headers: Headers,
    bans: HashMap<IpNet, End>,
    /// Whether rules can say when they end.
    timed: bool,
    /// What this host lacks.
    lacks: Option<String>,
    chosen: Chosen,
    /// What the tables were last made to be.
    wanted: Wanted,
    /// Packets that rules stopped which are there no more.
    counted: HashMap<IpNet, u64>,
}

/// Which bans are enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Chosen {
    /// These; the number of a ban is that of its chain.
    enforced: Vec<IpNet>,
    /// Not these, and whether they could be said as text: then there are too many.
    left_out: Vec<(IpNet, bool)>,
}

impl LegacyHeaders {
    /// Finds the programs, and asks the kernel whether it can do it: a rule is made in a chain that no packet passes, and
    /// removed.
    ///
    /// # Errors
    /// When a program is not installed, or the kernel does not take the rules. A host without IPv6 is none.
    pub async fn open(headers: Headers) -> Result<Self, LegacyError> {
        let mut tables = vec![open(Family::Ipv4, &headers).await?];
        let mut lacks = None;
        match open(Family::Ipv6, &headers).await {
            Ok(table) => tables.push(table),
            Err(_) if !super::has_ipv6() => {}
            Err(e) => lacks = Some(format!("requests over IPv6 are not looked into: {e}")),
        }
        let mut timed = true;
        for table in &tables {
            timed &= table.takes("-m time --datestop 2038-01-01T00:00:00 -j RETURN").await.is_ok();
        }
        let (bans, chosen, wanted) = (HashMap::new(), Chosen::default(), Wanted::default());
        Ok(Self { tables, headers, bans, timed, lacks, chosen, wanted, counted: HashMap::new() })
    }

    /// Takes everything out that an agent left here, without asking whether it could be made again.
    ///
    /// # Errors
    /// When a program fails. Where there are no programs, or was never a rule, there is nothing.
    pub async fn sweep() -> Result<(), ProgramError> {
        for family in [Family::Ipv4, Family::Ipv6] {
            if is_made(family, FILTER)
                && let Ok(mut table) = Table::open(family, &[FILTER], is_ours).await
            {
                table.clear().await?;
            }
        }
        Ok(())
    }

    /// How many bans are enforced.
    #[must_use]
    pub fn installed(&self) -> usize {
        self.chosen.enforced.len()
    }

    /// Which bans are not, and whether their addresses can be said as text: then there is no room for them (see
    /// `headers.max_rules`).
    #[must_use]
    pub fn left_out(&self) -> &[(IpNet, bool)] {
        &self.chosen.left_out
    }

    /// What this host lacks, and what that means.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let untimed = "header bans end on time only while the agent runs: this kernel has no xt_time";
        let notes = [(!self.timed).then(|| untimed.to_owned()), self.lacks.clone()];
        notes.into_iter().flatten()
    }

    /// Enforces `bans` and no others, whatever the tables hold now.
    ///
    /// # Errors
    /// When a program fails; then nothing has changed in at least one family.
    pub async fn settle(
        &mut self,
        bans: impl IntoIterator<Item = (IpNet, End)>,
        now: Timestamp,
    ) -> Result<(), LegacyError> {
        self.bans = bans.into_iter().collect();
        self.write(now).await
    }

    /// Enforces the changed bans: a new end, or none of it any more. All of them are one transaction in each family.
    ///
    /// # Errors
    /// As [`settle`](Self::settle), which is due then.
    pub async fn apply(
        &mut self,
        changes: impl IntoIterator<Item = (IpNet, Option<End>)>,
        now: Timestamp,
    ) -> Result<(), LegacyError> {
        for (net, change) in changes {
            match change {
                Some(end) => self.bans.insert(net, end),
                None => self.bans.remove(&net),
            };
        }
        self.write(now).await
    }

    async fn write(&mut self, now: Timestamp) -> Result<(), LegacyError> {
        self.bans.retain(|_, end| end.is_none_or(|end| end > now));
        let (wanted, chosen) = wanted(&self.headers, &self.bans, self.timed);
        let same = wanted == self.wanted;
        for table in &mut self.tables {
            // Also where nothing changed for us it may have for others.
            let gone = if same { table.write(&wanted).await? } else { table.rewrite(&wanted).await? };
            count(&gone, &self.chosen, &mut self.counted);
        }
        self.counted.retain(|net, _| self.bans.contains_key(net));
        (self.wanted, self.chosen) = (wanted, chosen);
        Ok(())
    }

    /// Packets stopped, by ban.
    ///
    /// # Errors
    /// When a program fails.
    pub async fn packets(&self) -> Result<HashMap<IpNet, u64>, LegacyError> {
        let mut packets = self.counted.clone();
        for table in &self.tables {
            count(&table.saved().await?, &self.chosen, &mut packets);
        }
        Ok(packets)
    }

    /// Whether somebody has changed something of ours.
    ///
    /// # Errors
    /// When a program fails.
    pub async fn look(&self) -> Result<Look, LegacyError> {
        for table in &self.tables {
            if let Some(changed) = table.look(&self.wanted).await? {
                return Ok(Look::Changed(changed));
            }
        }
        Ok(Look::Fine)
    }

    /// Removes our chains and the jumps to them.
    ///
    /// # Errors
    /// When a program fails. What is not there is no error.
    pub async fn remove(&mut self) -> Result<(), LegacyError> {
        for table in &mut self.tables {
            table.clear().await?;
        }
        self.bans.clear();
        (self.wanted, self.chosen) = (Wanted::default(), Chosen::default());
        self.counted.clear();
        Ok(())
    }
}

async fn open(family: Family, headers: &Headers) -> Result<Table, LegacyError> {
    let table = Table::open(family, &[FILTER], is_ours).await?;
    let pattern = Pattern { bytes: b"\nx:".to_vec(), ignore_case: true };
    table.takes(&format!("{} -j {}", string(&pattern), verdict(headers.action))).await?;
    Ok(table)
}

fn is_ours(chain: &str) -> bool {
    chain == HEADERS
        || chain == HEADS
        || chain == super::table::PROBE
        || chain.strip_prefix(BAN).is_some_and(|n| n.parse::<usize>().is_ok())
}

/// Adds what the rules of each ban have counted.
fn count(saved: &Saved, chosen: &Chosen, packets: &mut HashMap<IpNet, u64>) {
    for (chain, stopped) in saved.packets() {
        let number = chain.strip_prefix(BAN).and_then(|n| n.parse::<usize>().ok());
        if let Some(net) = number.and_then(|n| chosen.enforced.get(n)) {
            *packets.entry(*net).or_default() += stopped;
        }
    }
}

/// The chains for these bans, and which bans that are.
fn wanted(headers: &Headers, bans: &HashMap<IpNet, End>, timed: bool) -> (Wanted, Chosen) {
    let mut order: Vec<(&IpNet, &End)> = bans.iter().collect();
    // Those that end last come first; the addresses are for the same order every time.
    order.sort_by(|(a, a_end), (b, b_end)| latest_first(**a_end, **b_end).then(a.cmp(b)));
    let mut chosen = Chosen::default();
    let verdict = verdict(headers.action);
    let mut chains: Vec<(String, Vec<String>)> = Vec::new();
    let mut heads = Vec::new();
    for (net, end) in order {
        let found = patterns(*net).and_then(|all| Some((common(&all)?, all)));
        let Some((common, all)) = found else {
            chosen.left_out.push((*net, false));
            continue;
        };
        if chosen.enforced.len() == usize::from(headers.max_rules) {
            chosen.left_out.push((*net, true));
            continue;
        }
        let chain = format!("{BAN}{}", chosen.enforced.len());
        chosen.enforced.push(*net);
        heads.push(format!("{}{} -j {chain}", until(*end, timed), string(&common)));
        let rules = all.iter().map(|pattern| format!("{} -j {verdict}", string(pattern))).collect();
        chains.push((chain, rules));
    }
    let names = headers.names.iter().map(|name| {
        let bytes = format!("\n{name}:").into_bytes();
        // Not a jump: a packet with several of the headers is searched once.
        format!("{} -g {HEADS}", string(&Pattern { bytes, ignore_case: true }))
    });
    let names = if chosen.enforced.is_empty() { Vec::new() } else { names.collect() };
    chains.push((HEADS.to_owned(), heads));
    chains.push((HEADERS.to_owned(), names));
    let [input, forward, docker] = FILTER_JUMPS;
    // What a proxy on this host sends out, it sends to a container or to itself.
    let jumps = [input, forward, "OUTPUT", docker].map(|from| (from, HEADERS.to_owned())).to_vec();
    (Wanted { chains, jumps }, chosen)
}

fn latest_first(a: End, b: End) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) => b.cmp(&a),
    }
}

fn verdict(action: HeaderAction) -> &'static str {
    match action {
        HeaderAction::Reset => "REJECT --reject-with tcp-reset",
        HeaderAction::Drop => "DROP",
    }
}

/// A match, in hexadecimal, so that nothing in it means anything to those who read it.
fn string(pattern: &Pattern) -> String {
    let hex: String = pattern.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let case = if pattern.ignore_case { " --icase" } else { "" };
    format!("-p tcp -m string --hex-string \"|{hex}|\" --algo bm --to {WINDOW}{case}")
}

/// A match that holds until then.
fn until(end: End, timed: bool) -> String {
    let Some(end) = end.filter(|_| timed) else { return String::new() };
    let second = end.as_millis().div_euclid(1000);
    match jiff::Timestamp::from_second(second) {
        Ok(stop) if second <= TIME_MAX => {
            format!("-m time --datestop {} ", stop.strftime("%Y-%m-%dT%H:%M:%S"))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(max_rules: u16) -> Headers {
        Headers {
            names: vec!["x-real-ip".to_owned(), "cf-connecting-ip".to_owned()],
            max_rules,
            ..Headers::default()
        }
    }

    fn bans(list: &[(&str, Option<i64>)]) -> HashMap<IpNet, End> {
        list.iter().map(|(net, end)| (net.parse().unwrap(), end.map(Timestamp::from_secs))).collect()
    }

    #[test]
    fn the_whole_input() {
        let all = bans(&[("2001:db8:1:2::/64", None), ("203.0.0.0/16", Some(1_800_000_000))]);
        let (wanted, chosen) = wanted(&headers(256), &all, true);
        assert!(chosen.enforced.len() == 2 && chosen.left_out.is_empty(), "{chosen:?}");
        let saved = Saved::read(
            ":INPUT\n:FORWARD\n:OUTPUT\n:DOCKER-USER\n:STOCKADE_H_7\n:STOCKADE\n-A OUTPUT -j ACCEPT\n",
        );
        let change = saved.change("filter", &wanted, is_ours);
        assert_eq!(change, include_str!("../../../tests/golden/headers.iptables"));
        assert!(change.lines().all(|line| line.len() < 1000), "lines are short enough for any version");
    }

    #[test]
    fn those_that_end_last_are_enforced_and_the_others_counted() {
        let all = bans(&[
            ("192.0.2.1/32", Some(100)),
            ("192.0.2.2/32", None),
            ("192.0.2.3/32", Some(300)),
            ("2001:db8::/56", None),
        ]);
        let (wanted, chosen) = wanted(&headers(2), &all, false);
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(chosen.enforced, [net("192.0.2.2/32"), net("192.0.2.3/32")]);
        assert_eq!(chosen.left_out, [(net("2001:db8::/56"), false), (net("192.0.2.1/32"), true)]);
        let heads = &wanted.chains[2];
        assert_eq!(heads.0, HEADS);
        let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
        assert!(
            heads.1[0].contains(&hex("192.0.2.2")) && heads.1[1].contains(&hex("192.0.2.3")),
            "{heads:?}"
        );
        assert!(!heads.1[0].contains("datestop") && !heads.1[1].contains("datestop"));
    }

    #[test]
    fn without_bans_nothing_is_searched() {
        let (wanted, _) = wanted(&headers(2), &HashMap::new(), true);
        assert!(wanted.chains.iter().all(|(_, rules)| rules.is_empty()), "{wanted:?}");
    }

    #[test]
    fn ends_in_utc_and_only_those_that_can_be_said() {
        let at = |seconds| until(Some(Timestamp::from_secs(seconds)), true);
        assert_eq!(at(1_800_000_000), "-m time --datestop 2027-01-15T08:00:00 ");
        assert_eq!(at(TIME_MAX), "-m time --datestop 2038-01-19T03:14:07 ");
        assert_eq!(at(TIME_MAX + 1), "", "the agent removes it");
        assert_eq!(until(None, true), "");
        assert_eq!(until(Some(Timestamp::from_secs(1)), false), "");
    }

    #[test]
    fn only_our_chains_are_ours() {
        assert!(is_ours(HEADERS) && is_ours(HEADS) && is_ours("STOCKADE_H_12"));
        assert!(
            !is_ours("STOCKADE") && !is_ours("STOCKADE_1") && !is_ours("STOCKADE_H_") && !is_ours("INPUT")
        );
    }
}
