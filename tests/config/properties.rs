//! What holds whatever the text: random configurations beside a naive model, and random bytes.

use std::time::Duration;

use proptest::prelude::*;
use stockade::config::duration::ShownBanTime;
use stockade::config::filter::definition;
use stockade::types::BanTime;

use super::*;

/// Pieces that mean something to the parser or to a key.
const PIECES: &[&str] = &[
    "jails", "filters", "defaults", "npm-404", "logpath", "ignoreip", "ports", "match", "maxretry",
    "findtime", "<<", ":", ": ", "\n", "\n  ", "\n    ", "- ", "[", "]", "{", "}", ",", "&a ", "*a", "'",
    "\"", "|", ">", "#", "!", "? ", "~", "-1", "4xx", "/a", "10m", "\t", "---", "0", "\\", "%", "\u{feff}",
    "\r",
];

/// Keys that are mistakes, and how far into them the place is that is told.
const BAD: &[(&str, usize)] = &[
    ("maxretry: 0", 10),
    ("maxretri: 1", 0),
    ("ports: [1, 0]", 11),
    ("from: 'x'", 6),
    ("enabled: no, enabled: no", 13),
];

/// What is set of a jail: four keys with tiny domains.
type Set = (Option<u32>, Option<u64>, Option<bool>, Option<Vec<u16>>);

fn set() -> impl Strategy<Value = Set> {
    use prop::option::of;
    (of(1..4u32), of(1..4u64), of(any::<bool>()), of(prop::collection::vec(1..4u16, 0..3)))
}

fn keys((maxretry, bantime, enabled, ports): &Set) -> String {
    let mut out = String::new();
    if let Some(n) = maxretry {
        out += &format!("maxretry: {n}, ");
    }
    if let Some(n) = bantime {
        out += &format!("bantime: {}, ", ShownBanTime(BanTime::For(Duration::from_secs(*n))));
    }
    if let Some(b) = enabled {
        out += &format!("enabled: {b}, ");
    }
    if let Some(p) = ports {
        out += &format!("ports: {p:?}, ");
    }
    out
}

proptest! {
    /// What a jail says goes before the defaults, and they before what is built in. It is not promised for the
    /// other keys, which are read by the same code.
    #[test]
    fn the_jail_then_the_defaults_then_the_program(defaults in set(), jails in prop::collection::vec(set(), 0..4)) {
        let mut text = format!("defaults: {{ {} }}\njails:\n", keys(&defaults));
        let mut wanted = Vec::new();
        for (i, jail) in jails.iter().enumerate() {
            text += &format!("  j{i}: {{ filter: npm-404, logpath: /a, {} }}\n", keys(jail));
            if jail.2.or(defaults.2).unwrap_or(true) {
                let mut ports = jail.3.clone().or_else(|| defaults.3.clone()).unwrap_or_default();
                ports.sort_unstable();
                ports.dedup();
                let bantime = Duration::from_secs(jail.1.or(defaults.1).unwrap_or(600));
                wanted.push((format!("j{i}"), jail.0.or(defaults.0).unwrap_or(5), BanTime::For(bantime), ports));
            }
        }
        let got = parse(&text).jails.into_iter().map(|j| (j.name, j.maxretry, j.bantime, j.ports));
        prop_assert_eq!(got.collect::<Vec<_>>(), wanted);
    }

    /// However good and bad lines are mixed, every bad one is told, at its place, and nothing else is.
    #[test]
    fn every_mistake_is_told_where_it_is(lines in prop::collection::vec(0..BAD.len() + 2, 0..20)) {
        let mut text = "jails:\n".to_owned();
        let mut wanted = Vec::new();
        for (i, kind) in lines.iter().enumerate() {
            let head = format!("  j{i:02}: {{ filter: npm-404, logpath: /a, ");
            let (keys, offset) = BAD.get(*kind).unwrap_or(&("maxretry: 1", 0));
            if *kind < BAD.len() {
                wanted.push((i + 2, head.len() + offset + 1));
            }
            text += &format!("{head}{keys} }}\n");
        }
        let place = |told: &String| {
            let mut numbers = told.strip_prefix("#! ")?.split(':').map(str::parse::<usize>);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        };
        prop_assert_eq!(told(&text).iter().filter_map(place).collect::<Vec<_>>(), wanted, "{}", text);
    }

    #[test]
    fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Config::parse_bytes(&bytes, "f", &SHIPPED);
    }

    #[test]
    fn no_pieces_are_too_much(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        let text = pieces.concat();
        let _ = told(&text);
        let _ = definition(&text, "f");
    }

    /// Nothing of the file reaches a terminal as it is.
    #[test]
    fn messages_hold_no_control_characters(text in "[\\x00-\\x7f\u{202e}]{0,12}", key in "\"?[a-z\\\\x1b]{1,8}\"?") {
        let text = format!("ignoreip: [{text:?}]\n{key}: 1\njails: {{ {text:?}: [] }}\n");
        for line in told(&text) {
            prop_assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{:?}", line);
        }
    }
}
