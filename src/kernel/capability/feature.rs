//! The features of kernel and system that are of use here.

/// One feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Tables of family inet, with base chains at prerouting and output.
    InetTable,
    /// Tables of family ip.
    IpTable,
    /// Tables of family bridge.
    BridgeTable,
    /// Sets whose elements end by themselves.
    Timeout,
    /// Sets of networks.
    Interval,
    /// Sets of address and port.
    Concatenation,
    /// `reject with tcp reset` in family inet at prerouting and output.
    RejectInet,
    /// The same in family bridge at prerouting.
    RejectBridge,
    /// xtables' match "string" in rules of family inet.
    StringInet,
    /// The same in family ip.
    StringIp,
    /// The same in family bridge.
    StringBridge,
    /// xtables' match "bpf" in rules of family inet.
    BpfInet,
    /// The same in family ip.
    BpfIp,
    /// The same in family bridge.
    BpfBridge,
    /// `@ih`: what follows the TCP header.
    InnerHeader,
    /// Tables that only their owner may change.
    Owner,
    /// Tables with an owner that stay when it is gone.
    Persist,
    /// `destroy`: removing what may not be there.
    Destroy,
    /// Loading BPF programs.
    BpfLoad,
    /// `br_netfilter`: IP hooks for packets between the ports of a bridge.
    BrNetfilter,
    /// Its switches `net.bridge.bridge-nf-call-iptables` and `-ip6tables`.
    BrNetfilterCall,
    /// Connection tracking.
    Conntrack,
    /// `iptables-legacy-restore` and `ip6tables-legacy-restore`.
    IptablesLegacy,
    /// The kernel's `ip_tables` and `ip6_tables`.
    IpTables,
    /// xtables' match "string" for iptables-legacy.
    StringLegacy,
    /// The program `ipset` and the kernel's `hash:ip` and `hash:net`.
    Ipset,
    /// xtables' match "set", by which iptables-legacy looks into ipset's sets.
    XtSet,
}

impl Feature {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 27] = [
        Self::InetTable,
        Self::IpTable,
        Self::BridgeTable,
        Self::Timeout,
        Self::Interval,
        Self::Concatenation,
        Self::Destroy,
        Self::Owner,
        Self::Persist,
        Self::RejectInet,
        Self::RejectBridge,
        Self::InnerHeader,
        Self::BpfInet,
        Self::BpfIp,
        Self::BpfBridge,
        Self::BpfLoad,
        Self::StringInet,
        Self::StringIp,
        Self::StringBridge,
        Self::BrNetfilter,
        Self::BrNetfilterCall,
        Self::Conntrack,
        Self::IptablesLegacy,
        Self::IpTables,
        Self::StringLegacy,
        Self::Ipset,
        Self::XtSet,
    ];

    /// Its name, which programs may rely on.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InetTable => "table-inet",
            Self::IpTable => "table-ip",
            Self::BridgeTable => "table-bridge",
            Self::Timeout => "timeout",
            Self::Interval => "interval",
            Self::Concatenation => "concatenation",
            Self::RejectInet => "reject-inet",
            Self::RejectBridge => "reject-bridge",
            Self::StringInet => "match-string-inet",
            Self::StringIp => "match-string-ip",
            Self::StringBridge => "match-string-bridge",
            Self::BpfInet => "match-bpf-inet",
            Self::BpfIp => "match-bpf-ip",
            Self::BpfBridge => "match-bpf-bridge",
            Self::InnerHeader => "inner-header",
            Self::Owner => "owner",
            Self::Persist => "persist",
            Self::Destroy => "destroy",
            Self::BpfLoad => "bpf-load",
            Self::BrNetfilter => "br-netfilter",
            Self::BrNetfilterCall => "br-netfilter-call",
            Self::Conntrack => "conntrack",
            Self::IptablesLegacy => "iptables-legacy",
            Self::IpTables => "ip-tables",
            Self::StringLegacy => "match-string-legacy",
            Self::Ipset => "ipset",
            Self::XtSet => "match-set-legacy",
        }
    }

    /// Whether nf_tables or ipset is asked about it over netlink.
    #[must_use]
    pub fn is_asked_by_netlink(self) -> bool {
        !matches!(
            self,
            Self::BpfLoad
                | Self::BrNetfilter
                | Self::BrNetfilterCall
                | Self::Conntrack
                | Self::IptablesLegacy
                | Self::IpTables
                | Self::StringLegacy
                | Self::XtSet
        )
    }

    /// What must be there before it can be.
    #[must_use]
    pub fn needs(self) -> Option<Self> {
        match self {
            Self::Timeout
            | Self::Interval
            | Self::Concatenation
            | Self::RejectInet
            | Self::StringInet
            | Self::BpfInet
            | Self::InnerHeader
            | Self::Owner => Some(Self::InetTable),
            Self::StringIp | Self::BpfIp => Some(Self::IpTable),
            Self::StringBridge | Self::BpfBridge | Self::RejectBridge => Some(Self::BridgeTable),
            Self::Persist => Some(Self::Owner),
            _ => None,
        }
    }

    /// The kernel modules that bring it, where it is in modules.
    #[must_use]
    pub fn modules(self) -> &'static [&'static str] {
        match self {
            Self::InetTable | Self::IpTable | Self::BridgeTable => &["nf_tables"],
            Self::Timeout | Self::Interval | Self::Concatenation => &["nf_tables"],
            Self::RejectInet => &["nft_reject_inet"],
            Self::RejectBridge => &["nft_reject_bridge"],
            Self::StringInet | Self::StringIp | Self::StringBridge => &["nft_compat", "xt_string"],
            Self::BpfInet | Self::BpfIp | Self::BpfBridge => &["nft_compat", "xt_bpf"],
            Self::BrNetfilter => &["br_netfilter"],
            Self::Conntrack => &["nf_conntrack"],
            Self::IpTables => &["ip_tables", "ip6_tables"],
            Self::StringLegacy => &["xt_string"],
            Self::Ipset => &["ip_set", "ip_set_hash_ip", "ip_set_hash_net"],
            Self::XtSet => &["xt_set"],
            Self::InnerHeader
            | Self::Owner
            | Self::Persist
            | Self::Destroy
            | Self::BpfLoad
            | Self::BrNetfilterCall
            | Self::IptablesLegacy => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_feature_is_listed_once_and_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Feature::ALL.into_iter().map(Feature::name).collect();
        assert_eq!(names.len(), Feature::ALL.len());
        assert_eq!(Feature::ALL.into_iter().collect::<BTreeSet<_>>().len(), Feature::ALL.len());
        // The last variant's number is one less than how many there are.
        assert_eq!(Feature::XtSet as usize + 1, Feature::ALL.len());
    }
}
