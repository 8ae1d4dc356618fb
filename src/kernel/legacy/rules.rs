//! The rules that look sources up: which tables, chains and jumps.

use super::iptables::{Family, Wanted};
use super::names::{CHAIN, Names, chain};
use crate::kernel::layout::{Kind, Layout, SetId};

/// The table that packets pass first: a drop there holds for the host's own services and for published container ports
/// alike, whatever others accept later.
pub(super) const RAW: &str = "raw";
/// Where the kernel has no raw table.
pub(super) const FILTER: &str = "filter";

/// Jumps in the raw table.
const RAW_JUMPS: [&str; 1] = ["PREROUTING"];
/// Jumps in the filter table. Docker puts its own jumps in front of ours in FORWARD when it restarts, and never touches
/// DOCKER-USER.
pub(super) const FILTER_JUMPS: [&str; 3] = ["INPUT", "FORWARD", "DOCKER-USER"];

/// What `table` should have for `layout`.
pub(super) fn wanted(layout: &Layout, names: &Names, family: Family, table: &str) -> Wanted {
    let mut first = lookups(layout, names, family, 0);
    let mut chains = Vec::new();
    for (n, scope) in layout.scopes.iter().enumerate().skip(1) {
        for (low, high) in ranges(&scope.ports) {
            let ports = if low == high { low.to_string() } else { format!("{low}:{high}") };
            for protocol in ["tcp", "udp"] {
                first.push(if table == RAW {
                    format!("-p {protocol} -m {protocol} --dport {ports} -j {}", chain(n))
                } else {
                    // After NAT: what the client dialed, conntrack remembers.
                    format!("-p {protocol} -m conntrack --ctorigdstport {ports} -j {}", chain(n))
                });
            }
        }
        chains.push((chain(n), lookups(layout, names, family, n)));
    }
    chains.push((chain(0), first));
    let jumps: &[&str] = if table == RAW { &RAW_JUMPS } else { &FILTER_JUMPS };
    Wanted { chains, jumps: jumps.iter().map(|from| (*from, CHAIN.to_owned())).collect() }
}

fn lookups(layout: &Layout, names: &Names, family: Family, scope: usize) -> Vec<String> {
    let kinds = layout.kinds().filter(|kind: &Kind| kind.is_ipv6() == family.is_ipv6());
    kinds.map(|kind| format!("-m set --match-set {} src -j DROP", names.set(SetId { scope, kind }))).collect()
}

/// Sorted ports as ranges.
fn ranges(ports: &[u16]) -> Vec<(u16, u16)> {
    let mut out: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match out.last_mut() {
            Some((_, high)) if high.checked_add(1) == Some(*port) => *high = *port,
            _ => out.push((*port, *port)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::iptables::Saved;
    use super::super::names::is_chain;
    use super::*;
    use crate::types::JailId;

    fn written(family: Family, table: &str) -> String {
        let layout =
            Layout::new([(JailId(0), "npm", &[][..], 64), (JailId(1), "my-ssh", &[22, 8000, 8001][..], 64)]);
        let wanted = wanted(&layout, &Names::new(&layout), family, table);
        let saved = Saved::read(":INPUT\n:FORWARD\n:PREROUTING\n:OUTPUT\n");
        saved.change(table, &wanted, is_chain)
    }

    #[test]
    fn ipv4_in_the_raw_table() {
        assert_eq!(
            written(Family::Ipv4, RAW),
            "*raw
:STOCKADE_1 - [0:0]
:STOCKADE - [0:0]
-I PREROUTING -j STOCKADE
-A STOCKADE_1 -m set --match-set stockade_pccea05e1_banned4 src -j DROP
-A STOCKADE_1 -m set --match-set stockade_pccea05e1_nets4 src -j DROP
-A STOCKADE -m set --match-set stockade_banned4 src -j DROP
-A STOCKADE -m set --match-set stockade_nets4 src -j DROP
-A STOCKADE -p tcp -m tcp --dport 22 -j STOCKADE_1
-A STOCKADE -p udp -m udp --dport 22 -j STOCKADE_1
-A STOCKADE -p tcp -m tcp --dport 8000:8001 -j STOCKADE_1
-A STOCKADE -p udp -m udp --dport 8000:8001 -j STOCKADE_1
COMMIT
"
        );
    }

    #[test]
    fn ipv6_without_a_raw_table() {
        assert_eq!(
            written(Family::Ipv6, FILTER),
            "*filter
:STOCKADE_1 - [0:0]
:STOCKADE - [0:0]
-I FORWARD -j STOCKADE
-I INPUT -j STOCKADE
-A STOCKADE_1 -m set --match-set stockade_pccea05e1_banned6 src -j DROP
-A STOCKADE_1 -m set --match-set stockade_pccea05e1_banned6_64 src -j DROP
-A STOCKADE_1 -m set --match-set stockade_pccea05e1_nets6 src -j DROP
-A STOCKADE -m set --match-set stockade_banned6 src -j DROP
-A STOCKADE -m set --match-set stockade_banned6_64 src -j DROP
-A STOCKADE -m set --match-set stockade_nets6 src -j DROP
-A STOCKADE -p tcp -m conntrack --ctorigdstport 22 -j STOCKADE_1
-A STOCKADE -p udp -m conntrack --ctorigdstport 22 -j STOCKADE_1
-A STOCKADE -p tcp -m conntrack --ctorigdstport 8000:8001 -j STOCKADE_1
-A STOCKADE -p udp -m conntrack --ctorigdstport 8000:8001 -j STOCKADE_1
COMMIT
"
        );
    }

    #[test]
    fn ports_that_follow_each_other_are_a_range() {
        assert_eq!(ranges(&[1, 2, 3, 5, 65534, 65535]), [(1, 3), (5, 5), (65534, 65535)]);
    }
}
