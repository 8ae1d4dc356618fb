//! Packets between two containers on one bridge: whether the IP hooks see them, and connection tracking.

use std::fs;
use std::path::Path;

use super::{Answer, Feature};

/// What proc(5) and sysfs tell of this network namespace.
pub(super) fn answers() -> [(Feature, Answer); 3] {
    let call = ["iptables", "ip6tables"].map(|which| {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{which}");
        (which, fs::read_to_string(path).ok())
    });
    let there = call.iter().any(|(_, value)| value.is_some());
    let proc = Path::new("/proc/sys/net").is_dir();
    let tracked = Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists();
    [
        (Feature::BrNetfilter, loaded(there, proc, "br_netfilter is not loaded")),
        (
            Feature::BrNetfilterCall,
            switches(&call.map(|(which, value)| (which, value.unwrap_or_default())), proc),
        ),
        (Feature::Conntrack, loaded(tracked, proc, "nf_conntrack is not loaded")),
    ]
}

fn loaded(there: bool, proc: bool, not: &str) -> Answer {
    match (there, proc) {
        (true, _) => Answer::Yes,
        (false, true) => Answer::No(not.to_owned()),
        (false, false) => Answer::Unknown("/proc/sys/net is not mounted".to_owned()),
    }
}

fn switches(values: &[(&str, String)], proc: bool) -> Answer {
    if values.iter().all(|(_, value)| value.is_empty()) {
        return loaded(false, proc, "br_netfilter is not loaded");
    }
    let off: Vec<String> = values
        .iter()
        .filter(|(_, value)| value.trim() != "1")
        .map(|(which, _)| format!("net.bridge.bridge-nf-call-{which}"))
        .collect();
    if off.is_empty() { Answer::Yes } else { Answer::No(format!("{} is 0", off.join(" and "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_switches_must_be_on() {
        let of = |four: &str, six: &str| {
            switches(&[("iptables", four.to_owned()), ("ip6tables", six.to_owned())], true)
        };
        assert_eq!(of("1\n", "1\n"), Answer::Yes);
        assert_eq!(of("0\n", "1\n"), Answer::No("net.bridge.bridge-nf-call-iptables is 0".into()));
        assert!(of("0\n", "0\n").reason().is_some_and(|reason| reason.contains("-ip6tables is 0")));
        assert_eq!(of("", ""), Answer::No("br_netfilter is not loaded".into()));
        assert!(matches!(switches(&[("iptables", String::new())], false), Answer::Unknown(_)));
    }
}
