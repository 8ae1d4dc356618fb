//! Lines of offenders that are banned already: requests that came through in spite of the ban.
//!
//! Each is counted, and put down to a *cause*: the jail, and whose packets carried it. A cause is told once, with what would
//! stop it; an offender that goes on says nothing new.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::config::names;
use crate::engine::{Engine, FUTURE_TOLERANCE};
use crate::filter::Trust;
use crate::kernel::capability::namespace::Network;
use crate::types::{JailId, Offense, Peer, Timestamp};

/// So many causes are told apart; what exceeds them is only counted. A list of trusted proxies may be long.
const CAUSES: usize = 256;

/// What came through, and how.
#[derive(Debug, Default)]
pub(super) struct Leaks {
    /// Lines in all, since the start or the last change of the configuration.
    pub(super) count: u64,
    causes: HashMap<(JailId, Way), Cause>,
    /// What Cloudflare connects from; `None`: as shipped.
    cloudflare: Option<Trust>,
}

/// How packets of a banned offender arrive: peers that are stopped in the same way are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Way {
    /// With its own address.
    Direct,
    /// With that of a trusted proxy.
    Proxy(IpAddr),
    /// With one of Cloudflare's, which are many and change from request to request.
    Cloudflare,
    /// The log does not say.
    Unknown,
}

/// What a cause amounts to so far.
#[derive(Debug)]
pub(super) struct Cause {
    pub(super) count: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// The last offender.
    pub(super) offender: IpAddr,
    /// What would stop it; `None` until it was told.
    pub(super) advice: Option<String>,
}

/// What there is to know about a cause.
pub(super) struct Facts<'a> {
    /// The ports that the jail's bans close; none are all.
    pub(super) ports: &'a [u16],
    /// Packets that the ban has stopped; `None` where its element is not in the kernel.
    pub(super) stopped: Option<u64>,
    pub(super) namespace: Network,
    /// What looks into request heads; `off` when nothing does.
    pub(super) matcher: &'a str,
}

impl Leaks {
    /// Counts an offense if it is a leak: it happened more than `grace` after its offender's ban was in force, and after
    /// the table was `whole` again if somebody had broken it.
    pub(super) fn see(
        &mut self,
        engine: &Engine,
        offense: &Offense<'_>,
        peer: Peer,
        now: Timestamp,
        whole: Timestamp,
        grace: Duration,
    ) {
        let Some(since) = engine.in_force_since(offense.jail, offense.offender) else { return };
        let at = offense.at;
        // What is stamped far in the future says nothing about when it happened.
        if at <= since.max(whole).saturating_add(grace) || at > now.saturating_add(FUTURE_TOLERANCE) {
            return;
        }
        self.count += 1;
        let key = (offense.jail, self.way(peer));
        if let Some(cause) = self.causes.get_mut(&key) {
            cause.count += 1;
            (cause.last, cause.offender) = (cause.last.max(at), offense.offender);
        } else if self.causes.len() < CAUSES {
            let cause = Cause { count: 1, first: at, last: at, offender: offense.offender, advice: None };
            self.causes.insert(key, cause);
        }
    }

    /// Causes that are to be told.
    pub(super) fn untold(&mut self) -> impl Iterator<Item = (JailId, Way, &mut Cause)> {
        self.causes
            .iter_mut()
            .filter(|(_, cause)| cause.advice.is_none())
            .map(|((jail, way), cause)| (*jail, *way, cause))
    }

    /// Whether there are any.
    pub(super) fn is_news(&self) -> bool {
        self.causes.values().any(|cause| cause.advice.is_none())
    }

    /// Another configuration may have stopped them, or not: what still leaks is told again: all is counted anew.
    pub(super) fn begin_anew(&mut self) {
        *self = Self { cloudflare: self.cloudflare.take(), ..Self::default() };
    }

    /// What Cloudflare connects from, as it is known now.
    pub(super) fn know(&mut self, cloudflare: &[IpNet]) {
        self.cloudflare = Some(Trust::new(cloudflare.to_vec()));
    }

    fn way(&self, peer: Peer) -> Way {
        static SHIPPED: LazyLock<Trust> =
            LazyLock::new(|| Trust::new(names::CLOUDFLARE.iter().filter_map(|n| n.parse().ok()).collect()));
        let cloudflare = self.cloudflare.as_ref().unwrap_or(&SHIPPED);
        match peer {
            Peer::Offender => Way::Direct,
            Peer::Proxy(proxy) if cloudflare.trusts(proxy) => Way::Cloudflare,
            Peer::Proxy(proxy) => Way::Proxy(proxy),
            Peer::Unknown => Way::Unknown,
        }
    }

    /// Lines of one jail.
    pub(super) fn of(&self, jail: JailId) -> u64 {
        self.causes.iter().filter(|((id, _), _)| *id == jail).map(|(_, cause)| cause.count).sum()
    }

    /// For `status`.
    pub(super) fn value<'a>(&self, name: impl Fn(JailId) -> Option<&'a str>, only: Option<JailId>) -> Value {
        let mut causes: Vec<_> =
            self.causes.iter().filter(|((id, _), _)| only.is_none_or(|only| only == *id)).collect();
        causes.sort_by_key(|(key, _)| **key);
        let causes = causes.into_iter().map(|((jail, way), cause)| {
            json!({
                "jail": name(*jail),
                "peer": way.word(),
                "count": cause.count,
                "first": cause.first.to_string(),
                "last": cause.last.to_string(),
                "last_offender": cause.offender.to_string(),
                "advice": cause.advice,
            })
        });
        json!({
            "count": only.map_or(self.count, |jail| self.of(jail)),
            "causes": causes.collect::<Vec<_>>(),
        })
    }
}

impl Way {
    /// `direct`, `cloudflare`, `unknown`, or the proxy's address.
    pub(super) fn word(self) -> String {
        match self {
            Self::Direct => "direct".to_owned(),
            Self::Proxy(proxy) => proxy.to_string(),
            Self::Cloudflare => "cloudflare".to_owned(),
            Self::Unknown => "unknown".to_owned(),
        }
    }

    /// To be read after "its requests still come ".
    pub(super) fn told(self) -> String {
        match self {
            Self::Direct => "directly".to_owned(),
            Self::Proxy(proxy) => format!("through the trusted proxy {proxy}"),
            Self::Cloudflare => "through Cloudflare".to_owned(),
            Self::Unknown => "through a peer that the log does not name".to_owned(),
        }
    }

    /// What would stop them.
    pub(super) fn advice(self, facts: &Facts<'_>) -> String {
        match self {
            Self::Direct => direct(facts),
            Self::Proxy(proxy) => {
                format!(
                    "the packets carry {proxy}: {}; else deny the address in the proxy itself",
                    headers(facts)
                )
            }
            Self::Cloudflare => format!(
                "the packets carry Cloudflare's addresses: {}; else block the address at Cloudflare",
                headers(facts)
            ),
            Self::Unknown => format!(
                "the log gives only the list that a proxy wrote: {}; else deny the address in the proxy or at Cloudflare",
                headers(facts)
            ),
        }
    }
}

/// What header bans, the only ones that see an address in a head, have to do with it.
fn headers(facts: &Facts<'_>) -> String {
    if facts.matcher == "off" {
        return "only header bans see its address there, and they are off (see headers.matcher, and `stockade check`)"
            .to_owned();
    }
    format!(
        "header bans (matcher {}) did not see its address: does the proxy speak TLS or HTTP/2 to the application, does it \
         pass the address on in a header that headers.names does not name, or do its packets not pass here?",
        facts.matcher
    )
}

fn direct(facts: &Facts<'_>) -> String {
    let rewritten = "is the address from a header that the web server believes (real_ip, remoteip)? then the packets are \
                     a proxy's: use header bans, Cloudflare or the proxy's own deny list";
    let mut advice = Vec::new();
    if !facts.ports.is_empty() {
        let ports: Vec<String> = facts.ports.iter().take(8).map(ToString::to_string).collect();
        let more = if facts.ports.len() > ports.len() { " and others" } else { "" };
        advice.push(format!(
            "its bans close port {}{more} only: do these requests go to another one? (leave `ports` out to close all)",
            ports.join(", ")
        ));
    }
    match facts.stopped {
        Some(n) if n > 0 => advice.push(format!(
            "the ban has stopped {n} packets, so others take another way: does a flowtable offload connections past the \
             rules? {rewritten}"
        )),
        _ => {
            let network = match facts.namespace {
                Network::Own => {
                    "the agent is in a network namespace of its own, and the service's packets do not pass there: run it \
                     in the host's (Docker: network_mode: host)"
                }
                Network::Unknown => {
                    "is the agent in the host's network namespace? (Docker: network_mode: host)"
                }
                Network::Host => {
                    "do the service's packets pass this host's network namespace at all, or does another host write this log?"
                }
            };
            advice.push(format!("the ban has not stopped one packet: {network}; {rewritten}"));
        }
    }
    advice.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Command, Limits, Policy};
    use crate::types::BanTime;

    const JAIL: JailId = JailId(0);

    fn at(s: i64) -> Timestamp {
        Timestamp::from_secs(1_800_000_000 + s)
    }

    /// An engine that has banned 192.0.2.0/24 at the start.
    fn engine() -> Engine {
        let mut engine = Engine::new(Limits::default());
        engine.set_jail(JAIL, Policy::default(), at(0));
        let nets = vec!["192.0.2.0/24".parse().unwrap()];
        let ban = Command::Ban {
            jail: JAIL,
            nets,
            time: Some(BanTime::Permanent),
            reason: Vec::new(),
            force: false,
        };
        engine.command(ban, at(0)).unwrap();
        engine
    }

    struct Seen(Engine, Leaks);

    impl Seen {
        fn see(&mut self, who: &str, peer: Peer, when: i64, whole: i64) -> u64 {
            let offense = Offense { jail: JAIL, offender: who.parse().unwrap(), at: at(when), line: b"" };
            self.1.see(&self.0, &offense, peer, at(1000), at(whole), Duration::from_secs(10));
            self.1.count
        }
    }

    #[test]
    fn a_leak_is_what_happens_after_the_grace() {
        let mut seen = Seen(engine(), Leaks::default());
        assert_eq!(seen.see("192.0.2.1", Peer::Offender, -5, 0), 0, "before the ban");
        assert_eq!(seen.see("192.0.2.1", Peer::Offender, 10, 0), 0, "within the grace");
        assert_eq!(seen.see("198.51.100.1", Peer::Offender, 100, 0), 0, "not banned");
        assert_eq!(seen.see("192.0.2.1", Peer::Offender, 1061, 0), 0, "from a clock that cannot be right");
        assert_eq!(seen.see("192.0.2.1", Peer::Offender, 100, 95), 0, "somebody had flushed the table");
        assert!(!seen.1.is_news());
        assert_eq!(seen.see("192.0.2.1", Peer::Offender, 11, 0), 1);
        assert!(seen.1.is_news());
    }

    #[test]
    fn a_cause_is_a_jail_and_a_way_and_there_are_so_many() {
        let mut seen = Seen(engine(), Leaks::default());
        for n in 0..100 {
            seen.see("192.0.2.1", Peer::Offender, 20 + n, 0);
        }
        seen.see("192.0.2.1", Peer::Proxy("10.0.0.1".parse().unwrap()), 20, 0);
        seen.see("192.0.2.1", Peer::Proxy("173.245.48.9".parse().unwrap()), 20, 0);
        seen.see("192.0.2.2", Peer::Proxy("2400:cb00::1".parse().unwrap()), 21, 0);
        let value = seen.1.value(|_| Some("npm"), None);
        assert_eq!(value["count"], 103);
        let causes: Vec<_> =
            value["causes"].as_array().unwrap().iter().map(|c| (&c["peer"], &c["count"])).collect();
        let wanted = [("direct", 100), ("10.0.0.1", 1), ("cloudflare", 2)].map(|(p, n)| (json!(p), json!(n)));
        assert_eq!(causes, wanted.each_ref().map(|(p, n)| (p, n)));
        assert_eq!(value["causes"][2]["last_offender"], "192.0.2.2");
        for n in 0..=u16::MAX {
            let [a, b] = n.to_be_bytes();
            seen.see("192.0.2.1", Peer::Proxy([10, 1, a, b].into()), 20, 0);
        }
        assert_eq!(seen.1.value(|_| None, None)["causes"].as_array().unwrap().len(), CAUSES);
        assert_eq!(seen.1.count, 103 + 65_536);
    }

    #[test]
    fn the_advice_goes_by_what_is_known() {
        let advice = |way: Way, ports: &[u16], stopped, namespace| {
            way.advice(&Facts { ports, stopped, namespace, matcher: "off" })
        };
        let has = |text: String, words: &[&str], lacks: &[&str]| {
            assert!(words.iter().all(|w| text.contains(w)), "{text}");
            assert!(!lacks.iter().any(|w| text.contains(w)), "{text}");
        };
        let blind = Some(0);
        has(advice(Way::Direct, &[], blind, Network::Own), &["network_mode: host", "of its own"], &["port"]);
        has(
            advice(Way::Direct, &[22], blind, Network::Host),
            &["close port 22 only", "pass this host's"],
            &[],
        );
        has(advice(Way::Direct, &[], Some(7), Network::Own), &["flowtable", "stopped 7"], &["network_mode"]);
        let proxy = Way::Proxy("10.0.0.1".parse().unwrap());
        has(
            advice(proxy, &[], None, Network::Host),
            &["carry 10.0.0.1", "headers.matcher", "deny"],
            &["TLS"],
        );
        let seen = Facts { ports: &[], stopped: None, namespace: Network::Host, matcher: "bpf" };
        has(
            proxy.advice(&seen),
            &["carry 10.0.0.1", "matcher bpf", "TLS", "headers.names", "deny"],
            &["off"],
        );
        has(advice(Way::Cloudflare, &[], None, Network::Host), &["at Cloudflare"], &["in the proxy"]);
    }
}
