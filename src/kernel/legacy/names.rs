//! What our sets and chains are called.
//!
//! An ipset's name has at most 31 bytes (`IPSET_MAXNAMELEN` in linux/netfilter/ipset/ip_set.h, with the NUL), and a jail's
//! name, which the sets of some ports are named after in nf_tables, up to 64. So there stands a number made of it, the
//! same at every start: another order of the jails does not give one jail's bans to another.

use crate::kernel::layout::{Kind, Layout, SetId};

/// In front of every name of a set of ours.
const SETS: &str = "stockade_";
/// The chain that looks sources up.
pub(super) const CHAIN: &str = "STOCKADE";

/// The names for one layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// One per scope; the first has none.
    numbers: Vec<u32>,
}

impl Names {
    pub(super) fn new(layout: &Layout) -> Self {
        let mut numbers: Vec<u32> = Vec::new();
        for scope in &layout.scopes {
            let mut number = fnv(scope.name.as_bytes());
            while numbers.contains(&number) {
                number = number.wrapping_add(1);
            }
            numbers.push(number);
        }
        Self { numbers }
    }

    /// A set's name.
    pub(super) fn set(&self, id: SetId) -> String {
        match id.scope {
            0 => format!("{SETS}{}", id.kind),
            scope => {
                let number = self.numbers.get(scope).copied().unwrap_or_default();
                format!("{SETS}p{number:08x}_{}", id.kind)
            }
        }
    }
}

/// What a set of ours holds, by its name, also of one that an agent with another configuration made; `None` for a set of
/// others.
pub(super) fn kind_of_set(name: &str) -> Option<Kind> {
    let rest = name.strip_prefix(SETS)?;
    let number = |part: &str| part.len() == 9 && part.starts_with('p') && part[1..].bytes().all(is_hex);
    let kind = match rest.split_once('_') {
        Some((first, kind)) if number(first) => kind,
        _ => rest,
    };
    Kind::of_name(kind).filter(|of| of.to_string() == kind)
}

/// The chain of a scope.
pub(super) fn chain(scope: usize) -> String {
    match scope {
        0 => CHAIN.to_owned(),
        n => format!("{CHAIN}_{n}"),
    }
}

/// Whether a chain is one of those that look sources up.
pub(super) fn is_chain(name: &str) -> bool {
    name.strip_prefix(CHAIN).is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('_').is_some_and(|n| n.parse::<usize>().is_ok())
    })
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// FNV-1a, 32 bits: what matters is that it stays the same for ever.
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::JailId;

    fn layout() -> Layout {
        let long = "a".repeat(64);
        Layout::new([
            (JailId(0), "npm", &[][..], 64),
            (JailId(1), "my-ssh", &[22][..], 127),
            (JailId(2), &long, &[80][..], 64),
        ])
    }

    #[test]
    fn every_set_has_a_short_name_of_its_own_that_tells_its_kind() {
        let layout = layout();
        let names = Names::new(&layout);
        let all: std::collections::BTreeSet<String> = layout.sets().map(|set| names.set(set)).collect();
        assert_eq!(all.len(), layout.sets().count());
        assert!(
            all.contains("stockade_banned4") && all.contains("stockade_pccea05e1_banned6_127"),
            "{all:?}"
        );
        for set in layout.sets() {
            assert!(names.set(set).len() <= 31);
            assert_eq!(kind_of_set(&names.set(set)), Some(set.kind));
        }
        for other in ["f2b-sshd", "stockade_mine", "stockade_ports_a_banned4", "stockade_p1_banned4"] {
            assert_eq!(kind_of_set(other), None, "{other}");
        }
    }

    #[test]
    fn another_order_of_jails_gives_the_same_names() {
        let other = Layout::new([(JailId(1), "my-ssh", &[22][..], 127)]);
        let (here, there) = (Names::new(&layout()), Names::new(&other));
        let set = SetId { scope: 1, kind: Kind::Single4 };
        assert_eq!(here.set(set), there.set(set));
    }

    #[test]
    fn only_our_chains_are_ours() {
        for ours in ["STOCKADE", "STOCKADE_1", "STOCKADE_12"] {
            assert!(is_chain(ours), "{ours}");
        }
        for other in ["STOCKADE_HEADERS", "STOCKADES", "STOCKADE_", "DOCKER-USER", "STOCKADE_1a"] {
            assert!(!is_chain(other), "{other}");
        }
        assert_eq!((chain(0), chain(2)), ("STOCKADE".to_owned(), "STOCKADE_2".to_owned()));
    }
}
