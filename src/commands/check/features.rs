//! The features of kernel and system: what each is for, what is done without it, and how to come by it.

use serde_json::{Value, json};

use super::finding::{Finding, Mark, Section};
use crate::kernel::capability::{Answer, Capabilities, Feature};

/// What is to be said about one feature.
pub(super) struct Report {
    feature: Feature,
    answer: Answer,
    /// The configuration calls for it.
    needed: bool,
    advice: Option<String>,
}

impl Report {
    pub(super) fn new(feature: Feature, able: &Capabilities, needed: bool) -> Self {
        let answer = able.of(feature);
        let advice = (!answer.is_yes()).then(|| advice(feature, &answer, able)).flatten();
        Self { feature, answer, needed, advice }
    }

    /// A feature that is missing is done without, so it is never a NO by itself: what cannot be enforced for it is said where
    /// bans are.
    pub(super) fn mark(&self) -> Mark {
        match (&self.answer, self.needed) {
            (Answer::Yes, _) => Mark::Ok,
            (_, false) => Mark::Unneeded,
            (Answer::No(_), true) => Mark::Heed,
            (Answer::Unknown(_), true) => Mark::Unknown,
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let available = match self.answer {
            Answer::Yes => Some(true),
            Answer::No(_) => Some(false),
            Answer::Unknown(_) => None,
        };
        json!({
            "feature": self.feature.name(), "available": available, "reason": self.answer.reason(),
            "needed": self.needed, "used_for": used_for(self.feature), "instead": instead(self.feature),
            "advice": self.advice,
        })
    }

    pub(super) fn to_finding(&self) -> Finding {
        let used_for = used_for(self.feature);
        let told = match self.answer.reason() {
            None => used_for.to_owned(),
            Some(reason) => format!("{reason} (for {used_for})"),
        };
        let mut finding = Finding::new(Section::Kernel, self.mark(), self.feature.name(), told);
        if matches!(finding.mark, Mark::Heed | Mark::Unknown) {
            finding = finding.advice(format!("instead: {}", instead(self.feature)));
            finding.advice.extend(self.advice.clone());
        }
        finding
    }
}

fn used_for(feature: Feature) -> &'static str {
    match feature {
        Feature::InetTable => "bans by source: one table for IPv4 and IPv6, in front of all others",
        Feature::IpTable => "tables of Docker and iptables-nft; none of ours",
        Feature::BridgeTable => "header bans between containers on one bridge",
        Feature::Timeout => "bans that end on time, also when the agent is dead",
        Feature::Interval => "bans of networks",
        Feature::Concatenation => "sets of address and port; none of ours",
        Feature::Destroy => "removing what may not be there",
        Feature::Owner => "a table that nobody else can change",
        Feature::Persist => "such a table that outlives the agent",
        Feature::RejectInet => "header bans that end the connection at once (headers.action: reset)",
        Feature::RejectBridge => {
            "header bans that end the connection at once between containers on one bridge"
        }
        Feature::InnerHeader => "telling packets with a request head from others, and PROXY protocol headers",
        Feature::BpfInet => "header bans by a BPF program",
        Feature::BpfIp => "nothing of ours: family inet is enough",
        Feature::BpfBridge => "header bans by a BPF program between containers on one bridge",
        Feature::BpfLoad => "header bans by a BPF program: any number of them at the same cost",
        Feature::StringInet => "header bans by a rule for each ban",
        Feature::StringIp => "nothing of ours: family inet is enough",
        Feature::StringBridge => "header bans by a rule for each ban between containers on one bridge",
        Feature::BrNetfilter => "letting family inet see what passes between containers on one bridge",
        Feature::BrNetfilterCall => "its switches: without them it does nothing",
        Feature::Conntrack => "NAT and published ports; bans come before it and do not need it",
        Feature::IptablesLegacy => "bans where the kernel has no nf_tables (backend: legacy)",
        Feature::IpTables => "the kernel's side of iptables-legacy",
        Feature::StringLegacy => "header bans where nf_tables cannot (headers.matcher: legacy)",
        Feature::Ipset => "the sets of banned addresses of backend: legacy",
        Feature::XtSet => "looking into these sets from iptables-legacy",
    }
}

fn instead(feature: Feature) -> &'static str {
    match feature {
        Feature::InetTable | Feature::Timeout | Feature::Interval => {
            "iptables-legacy and ipset (backend: auto), where these are available"
        }
        Feature::IpTable
        | Feature::BpfIp
        | Feature::StringIp
        | Feature::Concatenation
        | Feature::Conntrack => "nothing needs to be done",
        Feature::BridgeTable | Feature::BpfBridge | Feature::StringBridge => {
            "requests between containers on one bridge are seen only through br_netfilter, with \
             net.bridge.bridge-nf-call-iptables=1"
        }
        Feature::Destroy => "it is made and removed in one transaction",
        Feature::Owner | Feature::Persist => "changes by others are seen at once and repaired",
        Feature::RejectInet | Feature::RejectBridge => {
            "the request's packets are dropped; the proxy waits until it gives up"
        }
        Feature::InnerHeader => {
            "a byte behind a TCP header of the usual length decides, and PROXY protocol headers are not looked at"
        }
        Feature::BpfInet | Feature::BpfLoad => {
            "a rule for each ban (headers.matcher: auto or string), for up to headers.max_rules bans"
        }
        Feature::StringInet => "a BPF program, or iptables-legacy",
        Feature::BrNetfilter | Feature::BrNetfilterCall => {
            "a table of family bridge sees that traffic without it"
        }
        Feature::IptablesLegacy | Feature::IpTables | Feature::Ipset | Feature::XtSet => {
            "nf_tables (backend: nft)"
        }
        Feature::StringLegacy => "match string or a BPF program in nf_tables",
    }
}

/// What to install or to grant; `None` where nothing would help.
fn advice(feature: Feature, answer: &Answer, able: &Capabilities) -> Option<String> {
    let reason = answer.reason()?;
    if let Answer::Unknown(_) = answer
        && feature.is_asked_by_netlink()
    {
        return Some("run check as root, or with CAP_NET_ADMIN, to find out".to_owned());
    }
    Some(match feature {
        Feature::BpfLoad if reason.starts_with("without CAP_") => {
            "grant CAP_BPF and CAP_PERFMON (docker: --cap-add BPF --cap-add PERFMON; systemd: AmbientCapabilities=); \
             before Linux 5.8 it is CAP_SYS_ADMIN"
                .to_owned()
        }
        Feature::BpfLoad if reason.starts_with("a user namespace") => {
            "run the agent outside of it: a rootless container cannot have it".to_owned()
        }
        Feature::BpfLoad => "take a newer kernel, or see what locks this one down".to_owned(),
        Feature::BrNetfilterCall if reason.ends_with(" is 0") => {
            "sysctl -w net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1".to_owned()
        }
        Feature::BrNetfilterCall => able.modules.advice(&["br_netfilter"]),
        Feature::IptablesLegacy => "install the package iptables (iptables-legacy on Fedora and RHEL)".to_owned(),
        Feature::Ipset if reason.starts_with("there is no ipset") => "install the package ipset".to_owned(),
        Feature::Owner => "Linux 5.12 has it".to_owned(),
        Feature::Persist => "Linux 6.9 has it".to_owned(),
        Feature::Destroy => "Linux 6.3 has it".to_owned(),
        Feature::InnerHeader => "Linux 5.16 has it".to_owned(),
        Feature::RejectInet if !reason.starts_with("this kernel has no") => "Linux 5.9 has it".to_owned(),
        _ if feature.modules().is_empty() => return None,
        _ => able.modules.advice(feature.modules()),
    })
}
