//! Tables, sets and chains.

use std::fmt;

use super::{Span, TableContent};
use crate::chain::{Base, Chain, Hook, Policy};
use crate::element::Element;
use crate::key::{Key, KeyType};
use crate::rule::Rule;
use crate::set::Set;
use crate::sys;
use crate::table::{Family, Table};

impl fmt::Display for TableContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.table.family, self.table.name)?;
        table_flags(f, &self.table)?;
        // The flags are a paragraph of their own.
        let mut first = self.table.flags == 0;
        let mut blank = |f: &mut fmt::Formatter<'_>| {
            if std::mem::take(&mut first) { Ok(()) } else { writeln!(f) }
        };
        for (set, elements) in &self.sets {
            blank(f)?;
            write_set(f, "\t", set, elements)?;
        }
        for (chain, rules) in &self.chains {
            blank(f)?;
            write_chain(f, "\t", chain, rules)?;
        }
        f.write_str("}")
    }
}

impl fmt::Display for Table {
    /// The table as `nft list` shows it, without what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family, self.name)?;
        table_flags(f, self)?;
        f.write_str("}")
    }
}

impl fmt::Display for Set {
    /// The set as `nft list` shows it, without its elements.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_set(f, "", self, &[])
    }
}

impl fmt::Display for Chain {
    /// The chain as `nft list` shows it, without its rules.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_chain(f, "", self, &[])
    }
}

fn table_flags(f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
    if table.flags == 0 { Ok(()) } else { writeln!(f, "\t{}", table_flag_words(table)) }
}

/// `flags owner,persist`
pub(super) fn table_flag_words(table: &Table) -> String {
    let known = [
        (sys::NFT_TABLE_F_DORMANT, "dormant"),
        (sys::NFT_TABLE_F_OWNER, "owner"),
        (sys::NFT_TABLE_F_PERSIST, "persist"),
    ];
    format!("flags {}", words(table.flags, &known))
}

fn words(flags: u32, known: &[(u32, &str)]) -> String {
    let set: Vec<_> = known.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, word)| *word).collect();
    set.join(",")
}

fn write_set(f: &mut fmt::Formatter<'_>, indent: &str, set: &Set, elements: &[Element]) -> fmt::Result {
    writeln!(f, "{indent}set {} {{", set.name)?;
    for line in set_lines(set) {
        writeln!(f, "{indent}\t{line}")?;
    }
    if !elements.is_empty() {
        write!(f, "{indent}\telements = {{ ")?;
        let per_line = elements_per_line(set);
        let mut sorted: Vec<_> = elements.iter().map(|e| (sort_key(&e.key), e)).collect();
        sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (i, (_, element)) in sorted.iter().enumerate() {
            match i {
                0 => {}
                i if i % per_line == 0 => write!(f, ",\n{indent}\t\t     ")?,
                _ => f.write_str(", ")?,
            }
            write!(f, "{element}")?;
        }
        writeln!(f, " }}")?;
    }
    writeln!(f, "{indent}}}")
}

/// What stands in a set's braces, the elements excepted.
pub(super) fn set_lines(set: &Set) -> Vec<String> {
    let types: Vec<_> = set.key.types().iter().map(|t| type_name(*t)).collect();
    let mut lines = vec![format!("type {}", types.join(" . "))];
    if let Some(size) = set.size {
        lines.push(format!("size {size}"));
    }
    let known = [
        (sys::NFT_SET_INTERVAL, "interval"),
        (sys::NFT_SET_EVAL, "dynamic"),
        (sys::NFT_SET_TIMEOUT, "timeout"),
    ];
    // A default timeout says it already.
    let implied = if set.timeout.is_some() { sys::NFT_SET_TIMEOUT } else { 0 };
    let flags = words(set.flags & !implied, &known);
    if !flags.is_empty() {
        lines.push(format!("flags {flags}"));
    }
    if set.counter {
        lines.push("counter".to_owned());
    }
    if let Some(timeout) = set.timeout {
        lines.push(format!("timeout {}", Span(timeout)));
    }
    lines
}

fn type_name(key: KeyType) -> String {
    match key {
        KeyType::Ipv4Addr => "ipv4_addr".to_owned(),
        KeyType::Ipv6Addr => "ipv6_addr".to_owned(),
        KeyType::InetProto => "inet_proto".to_owned(),
        KeyType::InetService => "inet_service".to_owned(),
        KeyType::Other { number, len } => format!("type-{number}-of-{len}-bytes"),
    }
}

fn elements_per_line(set: &Set) -> usize {
    match set.key.types() {
        [KeyType::InetProto | KeyType::InetService] => 5,
        [KeyType::Ipv4Addr] => 2,
        _ => 1,
    }
}

/// nft sorts keys as numbers; the bytes of a concatenation as one little endian number.
fn sort_key(key: &Key) -> Vec<u8> {
    let mut bytes: Vec<u8> = key.values().iter().flat_map(|v| v.bounds().0.as_bytes().to_vec()).collect();
    if matches!(key, Key::Concat(_)) {
        bytes.reverse();
    }
    bytes
}

fn write_chain(f: &mut fmt::Formatter<'_>, indent: &str, chain: &Chain, rules: &[Rule]) -> fmt::Result {
    writeln!(f, "{indent}chain {} {{", chain.name)?;
    if let Some(base) = &chain.base {
        writeln!(f, "{indent}\t{}", base_line(chain.family, base))?;
    }
    for rule in rules {
        writeln!(f, "{indent}\t{rule}")?;
    }
    writeln!(f, "{indent}}}")
}

/// `type filter hook prerouting priority raw; policy accept;`
pub(super) fn base_line(family: Family, base: &Base) -> String {
    let hook = match base.hook {
        Hook::Prerouting => "prerouting".to_owned(),
        Hook::Input => "input".to_owned(),
        Hook::Forward => "forward".to_owned(),
        Hook::Output => "output".to_owned(),
        Hook::Postrouting => "postrouting".to_owned(),
        Hook::Other(n) => n.to_string(),
    };
    let policy = match base.policy {
        Policy::Accept => "accept",
        Policy::Drop => "drop",
    };
    let priority = priority(family, base);
    format!("type {} hook {hook} priority {priority}; policy {policy};", base.kind.word())
}

/// A name where there is one within ten steps, else the number.
fn priority(family: Family, base: &Base) -> String {
    let (pre, out, post) = (Some(Hook::Prerouting), Some(Hook::Output), Some(Hook::Postrouting));
    let names: &[(&str, i32, Option<Hook>)] = match family {
        Family::Bridge => {
            &[("dstnat", -300, pre), ("filter", -200, None), ("out", 100, out), ("srcnat", 300, post)]
        }
        Family::Ip | Family::Ip6 | Family::Inet => &[
            ("raw", -300, None),
            ("mangle", -150, None),
            ("dstnat", -100, pre),
            ("filter", 0, None),
            ("security", 50, None),
            ("srcnat", 100, post),
        ],
        _ => &[("filter", 0, None)],
    };
    for (name, value, hook) in names {
        if hook.is_some_and(|hook| hook != base.hook) {
            continue;
        }
        match base.priority.saturating_sub(*value) {
            0 => return (*name).to_owned(),
            offset @ 1..=10 => return format!("{name} + {offset}"),
            offset @ -10..=-1 => return format!("{name} - {}", -offset),
            _ => {}
        }
    }
    base.priority.to_string()
}
