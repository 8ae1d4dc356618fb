//! Chains of our own in a table of iptables-legacy, and the jumps to them.
//!
//! `iptables-legacy-restore --noflush` takes a table's changes as one transaction: no packet passes between. A chain that is
//! declared is emptied if it is there and made if it is not; chains and rules of others are not touched.

use std::fmt::Write as _;

use hashbrown::HashSet;

use super::program::{Program, ProgramError};

/// How long others may hold the lock that all programs of iptables-legacy share, in seconds.
pub(super) const LOCK_WAIT: &str = "5";

/// The addresses that a set of programs is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub(super) fn is_ipv6(self) -> bool {
        self == Self::Ipv6
    }
}

/// `iptables-legacy-save` and `-restore`, or those of `ip6tables`.
#[derive(Debug)]
pub(super) struct Iptables {
    pub(super) family: Family,
    save: Program,
    restore: Program,
}

/// What a table should have of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Chains of ours and their rules, without `-A` and the chain. A chain is before those that jump to it.
    pub(super) chains: Vec<(String, Vec<String>)>,
    /// Jumps, each to be in front of all rules of others: from a chain of others, to one of ours. Where there is no such
    /// chain the jump is left out.
    pub(super) jumps: Vec<(&'static str, String)>,
}

/// A table as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    chains: Vec<String>,
    /// As `-A CHAIN ...`.
    rules: Vec<String>,
    /// Packets that each of them met.
    packets: Vec<u64>,
}

impl Iptables {
    /// Finds the programs.
    pub(super) async fn find(family: Family) -> Result<Self, ProgramError> {
        const PACKAGE: &str = "iptables";
        let ((save, save_perhaps), (restore, restore_perhaps)) = match family {
            Family::Ipv4 => {
                (("iptables-legacy-save", "iptables-save"), ("iptables-legacy-restore", "iptables-restore"))
            }
            Family::Ipv6 => (
                ("ip6tables-legacy-save", "ip6tables-save"),
                ("ip6tables-legacy-restore", "ip6tables-restore"),
            ),
        };
        Ok(Self {
            family,
            save: Program::find_legacy(save, save_perhaps, PACKAGE).await?,
            restore: Program::find_legacy(restore, restore_perhaps, PACKAGE).await?,
        })
    }

    /// A table, as it is. It fails where the kernel has no such table.
    pub(super) async fn saved(&self, table: &str) -> Result<Saved, ProgramError> {
        Ok(Saved::read(&self.save.run(&["-c", "-t", table], "").await?))
    }

    /// Takes what [`Saved::change`] wrote.
    pub(super) async fn restore(&self, input: &str) -> Result<(), ProgramError> {
        self.restore.run(&["--noflush", "-w", LOCK_WAIT], input).await.map(drop)
    }
}

impl Saved {
    pub(super) fn read(text: &str) -> Self {
        let mut saved = Self::default();
        for line in text.lines() {
            if let Some(chain) = line.strip_prefix(':') {
                saved.chains.extend(chain.split_whitespace().next().map(str::to_owned));
                continue;
            }
            let (counts, rule) = match line.strip_prefix('[').and_then(|line| line.split_once("] ")) {
                Some((counts, rule)) => (counts, rule),
                None => ("", line),
            };
            if rule.starts_with("-A ") {
                saved.rules.push(rule.trim_end().to_owned());
                let packets = counts.split(':').next().unwrap_or_default();
                saved.packets.push(packets.parse().unwrap_or_default());
            }
        }
        saved
    }

    /// Packets that the rules of each chain met, rule by rule.
    pub(super) fn packets(&self) -> impl Iterator<Item = (&str, u64)> {
        self.rules.iter().map(|rule| chain_of(rule)).zip(self.packets.iter().copied())
    }

    /// Whether it has a chain of this name.
    pub(super) fn has_chain(&self, name: &str) -> bool {
        self.chains.iter().any(|chain| chain == name)
    }

    /// Whether it has something of ours.
    pub(super) fn has_any(&self, ours: impl Fn(&str) -> bool) -> bool {
        self.chains.iter().any(|chain| ours(chain))
    }

    /// The rules in our chains, as the program prints them. Other versions print other words for the same rule, so this
    /// is compared with what was read after they were written, not with what was written.
    pub(super) fn of_ours(&self, ours: impl Fn(&str) -> bool) -> Vec<String> {
        let chains = self.chains.iter().filter(|chain| ours(chain)).map(|chain| format!(":{chain}"));
        let rules = self.rules.iter().filter(|rule| ours(chain_of(rule))).cloned();
        chains.chain(rules).collect()
    }

    /// Whether all jumps are where they should be; if not, the first that is not.
    pub(super) fn misplaced<'a>(&self, wanted: &'a Wanted) -> Option<&'a (&'static str, String)> {
        wanted.jumps.iter().find(|(from, to)| self.has_chain(from) && !self.is_placed(from, to))
    }

    /// One jump, and nothing in front of it but jumps to chains of ours.
    fn is_placed(&self, from: &str, to: &str) -> bool {
        let jump = jump(from, to);
        let of_chain = || self.rules.iter().filter(|rule| chain_of(rule) == from);
        of_chain().filter(|rule| **rule == jump).count() == 1
            && of_chain().take_while(|rule| **rule != jump).all(|rule| {
                rule.split_once(" -j ").is_some_and(|(_, to)| to.starts_with(super::names::CHAIN))
            })
    }

    /// What makes it into `wanted`, as one transaction. Chains that are `ours` and not wanted are removed, with every jump
    /// to them.
    pub(super) fn change(&self, table: &str, wanted: &Wanted, ours: impl Fn(&str) -> bool) -> String {
        let stay: HashSet<&str> = wanted.chains.iter().map(|(name, _)| name.as_str()).collect();
        let goes = |chain: &&String| ours(chain) && !stay.contains(chain.as_str());
        let stale: Vec<&String> = self.chains.iter().filter(goes).collect();
        let mut out = format!("*{table}\n");
        let declared = wanted.chains.iter().map(|(name, _)| name).chain(stale.iter().copied());
        for chain in declared {
            line(&mut out, format_args!(":{chain} - [0:0]"));
        }
        // Others' rules that jump to ours: the jumps that are not where they belong, and any to a chain that goes.
        let misplaced: Vec<&(&str, String)> = wanted
            .jumps
            .iter()
            .filter(|(from, to)| self.has_chain(from) && !self.is_placed(from, to))
            .collect();
        for rule in self.rules.iter().filter(|rule| !ours(chain_of(rule))) {
            let again = misplaced.iter().any(|(from, to)| *rule == jump(from, to));
            let dangles = target(rule).is_some_and(|to| stale.iter().any(|chain| *chain == to));
            // Ours alone, from a chain that it is not wanted in any more.
            let unwanted = target(rule).is_some_and(|to| {
                *rule == jump(chain_of(rule), to)
                    && ours(to)
                    && !wanted.jumps.iter().any(|(from, of)| *from == chain_of(rule) && of == to)
            });
            if (again || dangles || unwanted)
                && let Some(rest) = rule.strip_prefix("-A ")
            {
                line(&mut out, format_args!("-D {rest}"));
            }
        }
        // Each goes to the front, so the last one inserted is the first.
        for (from, to) in misplaced.into_iter().rev() {
            line(&mut out, format_args!("-I {from} -j {to}"));
        }
        for (chain, rules) in &wanted.chains {
            for rule in rules {
                line(&mut out, format_args!("-A {chain} {rule}"));
            }
        }
        for chain in stale {
            line(&mut out, format_args!("-X {chain}"));
        }
        out.push_str("COMMIT\n");
        out
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let written = writeln!(out, "{text}");
    debug_assert!(written.is_ok(), "a String takes everything");
}

fn jump(from: &str, to: &str) -> String {
    format!("-A {from} -j {to}")
}

fn chain_of(rule: &str) -> &str {
    rule.split(' ').nth(1).unwrap_or_default()
}

/// Where a rule jumps to, when that is the end of it: a jump to a chain takes no options.
fn target(rule: &str) -> Option<&str> {
    let mut words = rule.rsplit(' ');
    let to = words.next()?;
    matches!(words.next()?, "-j" | "-g").then_some(to)
}

#[cfg(test)]
mod tests {
    use super::super::names::is_chain;
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            chains: vec![
                ("STOCKADE_1".to_owned(), vec!["-m set --match-set b src -j DROP".to_owned()]),
                ("STOCKADE".to_owned(), vec!["-p tcp -m tcp --dport 22 -j STOCKADE_1".to_owned()]),
            ],
            jumps: ["INPUT", "FORWARD", "DOCKER-USER"].map(|from| (from, "STOCKADE".to_owned())).to_vec(),
        }
    }

    #[test]
    fn from_nothing() {
        let saved =
            Saved::read("*filter\n:INPUT ACCEPT [1:2]\n:FORWARD DROP [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n");
        assert_eq!(
            saved.change("filter", &wanted(), is_chain),
            "*filter
:STOCKADE_1 - [0:0]
:STOCKADE - [0:0]
-I FORWARD -j STOCKADE
-I INPUT -j STOCKADE
-A STOCKADE_1 -m set --match-set b src -j DROP
-A STOCKADE -p tcp -m tcp --dport 22 -j STOCKADE_1
COMMIT
"
        );
    }

    const SETTLED: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:DOCKER-USER - [0:0]
:STOCKADE - [0:0]
:STOCKADE_1 - [0:0]
:STOCKADE_HEADERS - [0:0]
-A INPUT -j STOCKADE_HEADERS
-A INPUT -j STOCKADE
-A INPUT -j ACCEPT
-A FORWARD -j STOCKADE
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j STOCKADE
-A DOCKER-USER -j RETURN
-A STOCKADE -p tcp -m tcp --dport 22 -j STOCKADE_1
-A STOCKADE_1 -m set --match-set b src -j DROP
COMMIT
";

    #[test]
    fn jumps_that_are_in_front_stay() {
        let saved = Saved::read(SETTLED);
        assert_eq!(saved.misplaced(&wanted()), None);
        let change = saved.change("filter", &wanted(), is_chain);
        assert!(!change.contains("-I ") && !change.contains("-D ") && !change.contains("-X "), "{change}");
        assert_eq!(
            saved.of_ours(is_chain),
            [
                ":STOCKADE",
                ":STOCKADE_1",
                "-A STOCKADE -p tcp -m tcp --dport 22 -j STOCKADE_1",
                "-A STOCKADE_1 -m set --match-set b src -j DROP"
            ]
        );
    }

    #[test]
    fn a_jump_that_others_came_before_or_that_is_there_twice_is_put_in_front() {
        for (broken, lines) in [
            (
                SETTLED.replace(
                    "-A FORWARD -j STOCKADE\n-A FORWARD -j DOCKER-USER",
                    "-A FORWARD -j DOCKER-USER\n-A FORWARD -j STOCKADE",
                ),
                "-D FORWARD -j STOCKADE\n-I FORWARD -j STOCKADE\n-A",
            ),
            (
                SETTLED.replace("-A INPUT -j ACCEPT", "-A INPUT -j ACCEPT\n-A INPUT -j STOCKADE"),
                "-D INPUT -j STOCKADE\n-D INPUT -j STOCKADE\n-I INPUT -j STOCKADE\n-A",
            ),
            (SETTLED.replace("-A DOCKER-USER -j STOCKADE\n", ""), "-I DOCKER-USER -j STOCKADE\n-A"),
        ] {
            let saved = Saved::read(&broken);
            assert!(saved.misplaced(&wanted()).is_some());
            let change = saved.change("filter", &wanted(), is_chain);
            assert!(change.contains(lines), "{change}");
        }
    }

    #[test]
    fn removal_takes_what_is_ours_and_nothing_else() {
        let admins =
            "-A INPUT -m comment --comment \"x -j STOCKADE_1\" -j ACCEPT\n-A FORWARD -i eth0 -j STOCKADE_1\n";
        let saved =
            Saved::read(&SETTLED.replace("-A INPUT -j ACCEPT\n", &format!("-A INPUT -j ACCEPT\n{admins}")));
        assert_eq!(
            saved.change("filter", &Wanted::default(), is_chain),
            "*filter
:STOCKADE - [0:0]
:STOCKADE_1 - [0:0]
-D INPUT -j STOCKADE
-D FORWARD -i eth0 -j STOCKADE_1
-D FORWARD -j STOCKADE
-D DOCKER-USER -j STOCKADE
-X STOCKADE
-X STOCKADE_1
COMMIT
"
        );
    }
}
