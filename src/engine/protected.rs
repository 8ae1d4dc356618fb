//! Who must not be banned, because the host or whoever is on it would be locked out.

use std::fmt;

use ipnet::IpNet;

use super::allowlist::Allowlist;
use super::net::canonical;

/// Why an address is protected.
///
/// In the order of precedence: of an address that is protected for several reasons the first is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// It is one of the host's own addresses.
    Own,
    /// Packets leave the host through it.
    Gateway,
    /// Names are asked of it.
    Resolver {
        /// The file that names it.
        file: String,
    },
    /// Containers, or virtual machines, of this host have it.
    Bridge {
        /// The bridge.
        name: String,
    },
    /// Somebody is logged in from there.
    Session {
        /// The user.
        who: String,
        /// The terminal, or what else the session is.
        on: String,
    },
}

impl fmt::Display for Why {
    /// What can stand behind "192.0.2.1 ".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("is this host's own address"),
            Self::Gateway => f.write_str("is a gateway of this host"),
            Self::Resolver { file } => write!(f, "is a DNS server ({file})"),
            Self::Bridge { name } if is_dockers(name) => write!(f, "lies in the Docker network {name}"),
            Self::Bridge { name } => write!(f, "lies in the network of the bridge {name}"),
            Self::Session { who, on } => write!(f, "has a login session of {who} on {on} right now"),
        }
    }
}

/// Docker's default bridge, and those of networks without a name of their own for it (`br-` and twelve digits).
fn is_dockers(bridge: &str) -> bool {
    matches!(bridge, "docker0" | "docker_gwbridge")
        || bridge
            .strip_prefix("br-")
            .is_some_and(|id| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Addresses and networks that are not banned, each with why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// Canonical, sorted, each once.
    entries: Vec<(IpNet, Why)>,
    ranges: Allowlist,
}

impl Protected {
    /// The entry that forbids a ban of `net`, and why: one that shares an address with it.
    #[must_use]
    pub fn why(&self, net: IpNet) -> Option<&(IpNet, Why)> {
        if !self.ranges.overlaps(net) {
            return None;
        }
        let net = canonical(net);
        let overlapping =
            self.entries.iter().filter(|(entry, _)| entry.contains(&net) || net.contains(entry));
        overlapping.min_by_key(|(_, why)| why)
    }

    /// The same in words: `192.0.2.1 is a gateway of this host`; `None` where nothing forbids it.
    #[must_use]
    pub fn told(&self, net: IpNet) -> Option<String> {
        let (entry, why) = self.why(net)?;
        let net = canonical(net);
        Some(if entry.contains(&net) {
            format!("{} {why}", Shown(net))
        } else {
            format!("{} holds {}, which {why}", Shown(net), Shown(*entry))
        })
    }

    /// The networks: canonical, sorted, each once.
    pub fn nets(&self) -> impl Iterator<Item = IpNet> {
        self.entries.iter().map(|(net, _)| *net)
    }

    /// The entries.
    #[must_use]
    pub fn entries(&self) -> &[(IpNet, Why)] {
        &self.entries
    }

    /// Those of its networks that `before` lacks.
    pub(super) fn added_since(&self, before: &Self) -> Allowlist {
        let known = |net: &IpNet| before.entries.binary_search_by_key(net, |(net, _)| *net).is_ok();
        self.nets().filter(|net| !known(net)).collect()
    }

    pub(super) fn overlaps(&self, net: IpNet) -> bool {
        self.ranges.overlaps(net)
    }
}

impl FromIterator<(IpNet, Why)> for Protected {
    fn from_iter<I: IntoIterator<Item = (IpNet, Why)>>(entries: I) -> Self {
        let mut entries: Vec<(IpNet, Why)> =
            entries.into_iter().map(|(net, why)| (canonical(net), why)).collect();
        entries.sort_unstable();
        entries.dedup_by_key(|(net, _)| *net);
        let ranges = entries.iter().map(|(net, _)| *net).collect();
        Self { entries, ranges }
    }
}

/// A single address without its length.
struct Shown(IpNet);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, Engine, Limits, Policy, Reply, Verdict};
    use super::*;
    use crate::types::{Ban, Decision, JailId, Offense, Timestamp, UnbanReason};

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn list() -> Protected {
        [
            (net("192.0.2.7/32"), Why::Session { who: "root".to_owned(), on: "pts/0".to_owned() }),
            (net("192.0.2.7/32"), Why::Gateway),
            (net("172.18.0.9/16"), Why::Bridge { name: "br-0123456789ab".to_owned() }),
            (net("2001:db8::1/128"), Why::Own),
            (net("9.9.9.9/32"), Why::Resolver { file: "/etc/resolv.conf".to_owned() }),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn the_reason_is_told_in_words() {
        for (asked, told) in [
            ("192.0.2.7/32", "192.0.2.7 is a gateway of this host"),
            ("::ffff:192.0.2.7/128", "192.0.2.7 is a gateway of this host"),
            ("192.0.2.0/24", "192.0.2.0/24 holds 192.0.2.7, which is a gateway of this host"),
            ("172.18.4.4/32", "172.18.4.4 lies in the Docker network br-0123456789ab"),
            ("2001:db8::/64", "2001:db8::/64 holds 2001:db8::1, which is this host's own address"),
            ("9.9.9.9/32", "9.9.9.9 is a DNS server (/etc/resolv.conf)"),
        ] {
            assert_eq!(list().told(net(asked)).as_deref(), Some(told));
        }
        assert_eq!(list().told(net("192.0.2.8/32")), None);
        assert_eq!(
            list().told(net("0.0.0.0/0")).unwrap(),
            "0.0.0.0/0 holds 192.0.2.7, which is a gateway of this host"
        );
    }

    #[test]
    fn only_what_is_new_is_added() {
        let before = list();
        let mut entries = before.entries().to_vec();
        entries.push((net("198.51.100.1/32"), Why::Own));
        // Another reason for the same address is nothing new.
        entries.push((net("9.9.9.9/32"), Why::Gateway));
        let after: Protected = entries.into_iter().collect();
        assert_eq!(after.added_since(&before).entries(), [net("198.51.100.1/32")]);
        assert!(before.added_since(&after).entries().is_empty());
    }

    const JAIL: JailId = JailId(0);

    fn engine(protected: &[&str]) -> Engine {
        let mut engine = Engine::new(Limits::default());
        engine.set_jail(JAIL, Policy { maxretry: 2, ..Policy::default() }, at(0));
        engine.set_protected(protected.iter().map(|n| (net(n), Why::Gateway)).collect(), at(0));
        engine
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(1_800_000_000 + seconds)
    }

    fn offend(engine: &mut Engine, who: &str, seconds: i64) -> Verdict {
        let now = at(seconds);
        engine.offense(Offense { jail: JAIL, offender: who.parse().unwrap(), at: now, line: b"" }, now)
    }

    #[test]
    fn a_protected_offender_is_refused_until_it_is_not_protected_any_more() {
        let mut engine = engine(&["192.0.2.7/32"]);
        assert_eq!(offend(&mut engine, "192.0.2.7", 1), Verdict::Counted { count: 1 });
        assert_eq!(offend(&mut engine, "192.0.2.7", 2), Verdict::Refused);
        assert_eq!(offend(&mut engine, "192.0.2.7", 3), Verdict::Refused);
        assert_eq!(engine.stats(JAIL, at(3)).unwrap().refused, 2);
        assert_eq!(engine.poll_decision(), None);
        engine.set_protected(Protected::default(), at(4));
        assert_eq!(offend(&mut engine, "192.0.2.7", 4), Verdict::Banned);
    }

    #[test]
    fn a_prefix_that_holds_somebody_protected_is_not_banned_as_a_whole() {
        let mut engine = engine(&["2001:db8::1/128"]);
        assert_eq!(engine.offender(JAIL, "2001:db8::2".parse().unwrap()), Some(net("2001:db8::2/128")));
        assert_eq!(engine.offender(JAIL, "2001:db8:0:1::2".parse().unwrap()), Some(net("2001:db8:0:1::/64")));
        offend(&mut engine, "2001:db8::2", 1);
        assert_eq!(offend(&mut engine, "2001:db8::2", 2), Verdict::Banned);
        assert!(engine.ban(JAIL, net("2001:db8::2/128")).is_some());
    }

    #[test]
    fn who_becomes_protected_is_let_in_unless_the_ban_was_forced() {
        let mut engine = engine(&[]);
        let mut ban = |nets: &[&str], force| {
            let nets = nets.iter().map(|n| net(n)).collect();
            engine
                .command(Command::Ban { jail: JAIL, nets, time: None, reason: vec![], force }, at(1))
                .unwrap()
        };
        ban(&["192.0.2.7/32", "198.51.100.0/24", "203.0.113.1/32"], false);
        ban(&["192.0.2.8/32"], true);
        // What is banned already is forced from then on.
        assert_eq!(ban(&["203.0.113.1/32"], true), Reply::Banned { new: 0, prolonged: 1, unchanged: 0 });
        while engine.poll_decision().is_some() {}
        let session = |n: &str| (net(n), Why::Session { who: "root".to_owned(), on: "pts/0".to_owned() });
        let sessions = ["192.0.2.7/32", "192.0.2.8/32", "198.51.100.9/32", "203.0.113.1/32"];
        engine.set_protected(sessions.map(session).into_iter().collect(), at(2));
        let lifted: Vec<Decision> = std::iter::from_fn(|| engine.poll_decision()).collect();
        assert_eq!(lifted.len(), 2, "{lifted:?}");
        assert!(lifted.iter().all(|d| matches!(d, Decision::Unban(_, UnbanReason::Protected))));
        let mut stay: Vec<_> = engine.bans().map(|b| (b.offender, b.forced)).collect();
        stay.sort();
        assert_eq!(stay, [(net("192.0.2.8/32"), true), (net("203.0.113.1/32"), true)]);
    }

    #[test]
    fn an_order_is_refused_with_the_reason_and_the_way_to_force_it() {
        let mut engine = engine(&["192.0.2.7/32"]);
        let order = |nets: &[&str], force| {
            let nets = nets.iter().map(|n| net(n)).collect();
            Command::Ban { jail: JAIL, nets, time: None, reason: vec![], force }
        };
        let refused = engine.command(order(&["192.0.2.9/32", "192.0.2.0/25"], false), at(1)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "192.0.2.0/25 holds 192.0.2.7, which is a gateway of this host; use --force to ban it all the same"
        );
        assert_eq!(engine.bans().count(), 0, "all or none");
        assert!(engine.command(order(&["192.0.2.0/25"], true), at(1)).is_ok());
    }

    #[test]
    fn a_forced_ban_is_taken_over_and_another_is_not() {
        let ban = |forced| Ban {
            jail: JAIL,
            offender: net("192.0.2.7/32"),
            since: at(0),
            until: None,
            offenses: 0,
            evidence: crate::types::Evidence::default(),
            forced,
        };
        assert!(!engine(&["192.0.2.7/32"]).adopt(ban(false)));
        assert!(engine(&["192.0.2.7/32"]).adopt(ban(true)));
    }
}
