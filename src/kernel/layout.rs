//! Which set a ban goes to.
//!
//! A *scope* is what a ban covers: all traffic, or some ports. Each scope has sets of its own for single addresses (hash
//! sets: one more element costs microseconds), for IPv6 prefixes of each configured length (hash sets too, looked up
//! with the address masked), and for networks of any other length (small interval sets, in which one more element
//! costs milliseconds when they are large).

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;

use crate::types::JailId;

/// Everything the table's shape depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Prefix lengths under 128 that jails ban IPv6 offenders by, one by one or as many of one prefix.
    pub prefixes: BTreeSet<u8>,
    /// The scopes; the first is all traffic.
    pub scopes: Vec<Scope>,
}

/// What a ban covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// In front of the names of its sets; empty for all traffic.
    pub name: String,
    /// Destination ports, TCP and UDP, as the client dials them; empty for all traffic.
    pub ports: Vec<u16>,
    /// The jails that ban in this scope.
    pub jails: Vec<JailId>,
}

/// What a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Single IPv4 addresses.
    Single4,
    /// Single IPv6 addresses.
    Single6,
    /// IPv6 networks of this length.
    Prefix6(u8),
    /// Other IPv4 networks.
    Nets4,
    /// Other IPv6 networks.
    Nets6,
}

impl Kind {
    /// Interval sets hold networks that must not overlap.
    #[must_use]
    pub fn is_interval(self) -> bool {
        matches!(self, Self::Nets4 | Self::Nets6)
    }

    /// Whether its elements are IPv6.
    #[must_use]
    pub fn is_ipv6(self) -> bool {
        !matches!(self, Self::Single4 | Self::Nets4)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single4 => f.write_str("banned4"),
            Self::Single6 => f.write_str("banned6"),
            Self::Prefix6(length) => write!(f, "banned6_{length}"),
            Self::Nets4 => f.write_str("nets4"),
            Self::Nets6 => f.write_str("nets6"),
        }
    }
}

impl Kind {
    /// The kind of a set of ours by its name, also of one that an agent with another configuration made.
    #[must_use]
    pub fn of_name(set: &str) -> Option<Self> {
        let ends = |kind: Self| {
            let name = kind.to_string();
            set == name
                || set
                    .strip_suffix(&name)
                    .is_some_and(|scope| scope.starts_with("ports_") && scope.ends_with('_'))
        };
        let length = set.rsplit_once('_').and_then(|(_, length)| length.parse().ok()).filter(|n| *n < 128);
        length
            .map(Self::Prefix6)
            .into_iter()
            .chain([Self::Single4, Self::Nets4, Self::Single6, Self::Nets6])
            .find(|kind| ends(*kind))
    }
}

/// One set of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId {
    /// Index into [`Layout::scopes`].
    pub scope: usize,
    /// What it holds.
    pub kind: Kind,
}

impl Layout {
    /// The layout for these jails: number, name, ports, IPv6 prefix length.
    #[must_use]
    pub fn new<'a>(jails: impl IntoIterator<Item = (JailId, &'a str, &'a [u16], u8)>) -> Self {
        let all = Scope { name: String::new(), ports: Vec::new(), jails: Vec::new() };
        let mut layout = Self { prefixes: BTreeSet::new(), scopes: vec![all] };
        for (id, name, ports, prefix) in jails {
            if prefix < 128 {
                layout.prefixes.insert(prefix);
            }
            // Jails with the same ports share their sets.
            match layout.scopes.iter_mut().find(|scope| scope.ports == ports) {
                Some(scope) => scope.jails.push(id),
                None => layout.scopes.push(Scope {
                    name: set_name_part(name),
                    ports: ports.to_vec(),
                    jails: vec![id],
                }),
            }
        }
        layout
    }

    /// The same with hash sets for IPv6 networks of these lengths, too.
    #[must_use]
    pub fn with_prefixes(mut self, lengths: impl IntoIterator<Item = u8>) -> Self {
        self.prefixes.extend(lengths.into_iter().filter(|length| *length < 128));
        self
    }

    /// All sets, in the order they are made.
    pub fn sets(&self) -> impl Iterator<Item = SetId> {
        (0..self.scopes.len()).flat_map(|scope| self.kinds().map(move |kind| SetId { scope, kind }))
    }

    /// The kinds of set each scope has.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        [Kind::Single4, Kind::Nets4, Kind::Single6]
            .into_iter()
            .chain(self.prefixes.iter().map(|length| Kind::Prefix6(*length)))
            .chain([Kind::Nets6])
    }

    /// The set a ban by `jail` goes to; `None` for a jail that is not (or no longer) configured.
    #[must_use]
    pub fn place(&self, jail: JailId, offender: IpNet) -> Option<SetId> {
        let scope = self.scopes.iter().position(|scope| scope.jails.contains(&jail))?;
        Some(SetId { scope, kind: self.kind(offender) })
    }

    fn kind(&self, offender: IpNet) -> Kind {
        match (offender, offender.prefix_len()) {
            (IpNet::V4(_), 32) => Kind::Single4,
            (IpNet::V4(_), _) => Kind::Nets4,
            (IpNet::V6(_), 128) => Kind::Single6,
            (IpNet::V6(_), length) if self.prefixes.contains(&length) => Kind::Prefix6(length),
            (IpNet::V6(_), _) => Kind::Nets6,
        }
    }

    /// The set's name in the table.
    #[must_use]
    pub fn name(&self, set: SetId) -> String {
        match self.scopes[set.scope].name.as_str() {
            "" => set.kind.to_string(),
            scope => format!("{scope}_{}", set.kind),
        }
    }
}

/// A jail's name as part of a set's name, kept as it is so that no two jails share one: nft(8) takes all that a jail's name
/// may hold. The word in front keeps a jail called `banned4` apart from the set of that name.
fn set_name_part(jail: &str) -> String {
    format!("ports_{jail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: JailId = JailId(0);
    const SSH: JailId = JailId(1);

    fn layout() -> Layout {
        Layout::new([(ALL, "npm", &[][..], 64), (SSH, "my-ssh", &[22][..], 56)])
    }

    fn name(jail: JailId, net: &str) -> String {
        let layout = layout();
        layout.name(layout.place(jail, net.parse().unwrap()).unwrap())
    }

    #[test]
    fn a_ban_goes_to_the_set_of_its_kind_and_scope() {
        assert_eq!(name(ALL, "192.0.2.1/32"), "banned4");
        assert_eq!(name(ALL, "192.0.2.0/24"), "nets4");
        assert_eq!(name(ALL, "2001:db8::1/128"), "banned6");
        assert_eq!(name(ALL, "2001:db8::/64"), "banned6_64");
        assert_eq!(name(ALL, "2001:db8::/48"), "nets6");
        assert_eq!(name(SSH, "192.0.2.1/32"), "ports_my-ssh_banned4");
        assert_eq!(name(SSH, "2001:db8::/56"), "ports_my-ssh_banned6_56");
    }

    #[test]
    fn prefixes_that_neighbours_lead_to_have_hash_sets() {
        let layout = layout().with_prefixes([64, 48, 128]);
        assert_eq!(layout.prefixes, [48, 56, 64].into());
        let place = |net: &str| layout.place(SSH, net.parse().unwrap()).map(|set| set.kind);
        assert_eq!(place("2001:db8::/48"), Some(Kind::Prefix6(48)));
        assert_eq!(place("2001:db8::/52"), Some(Kind::Nets6));
    }

    #[test]
    fn two_jails_never_share_a_name() {
        let layout = Layout::new([(ALL, "my-ssh", &[22][..], 64), (SSH, "my_ssh", &[80][..], 64)]);
        let names: BTreeSet<String> = layout.sets().map(|set| layout.name(set)).collect();
        assert_eq!(names.len(), layout.sets().count());
    }

    #[test]
    fn a_sets_name_tells_its_kind() {
        for set in layout().sets() {
            assert_eq!(Kind::of_name(&layout().name(set)), Some(set.kind));
        }
        for other in ["ports_a_ports", "mine", "banned4x", "banned6_200", "x_banned4"] {
            assert_eq!(Kind::of_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_jail_that_is_not_configured_has_no_place() {
        assert_eq!(layout().place(JailId(9), "192.0.2.1/32".parse().unwrap()), None);
    }

    #[test]
    fn jails_with_the_same_ports_share_sets() {
        let layout = Layout::new([(ALL, "a", &[22][..], 64), (SSH, "b", &[22][..], 64)]);
        assert_eq!(layout.scopes.len(), 2);
        assert_eq!(layout.scopes[1].jails, [ALL, SSH]);
    }
}
