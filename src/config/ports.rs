//! Ports: numbers, ranges, and the names services have.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use super::cursor::{Cursor, nearest};
use super::report::{Report, shown};

/// Names that hold on a host without `/etc/services` too.
const BUILTIN: &[(&str, u16)] = &[
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("http", 80),
    ("pop3", 110),
    ("imap", 143),
    ("imap2", 143),
    ("ldap", 389),
    ("https", 443),
    ("smtps", 465),
    ("submissions", 465),
    ("submission", 587),
    ("ldaps", 636),
    ("imaps", 993),
    ("pop3s", 995),
    ("mysql", 3306),
    ("sip", 5060),
    ("sips", 5061),
    ("postgresql", 5432),
    ("http-alt", 8080),
];

/// Reads one port or a list of them, sorted. An empty list is every port, and so are all of them.
pub(super) fn read(cursor: &Cursor<'_>, report: &mut Report) -> Vec<u16> {
    let mut out = BTreeSet::new();
    for item in cursor.items() {
        if let Some(text) = item.text(report) {
            // fail2ban writes the list as one text.
            for word in text.split([' ', '\t', ',']).filter(|w| !w.is_empty()) {
                match port(word) {
                    Ok((low, high)) => out.extend(low..=high),
                    Err(why) => item.mistake(report, why),
                }
            }
        }
    }
    if out.len() == usize::from(u16::MAX) { Vec::new() } else { out.into_iter().collect() }
}

fn port(word: &str) -> Result<(u16, u16), String> {
    let said = shown(word);
    let number = |t: &str| t.parse::<u16>().ok().filter(|n| *n > 0 && !t.starts_with('+'));
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return match named(word) {
            Some(port) => Ok((port, port)),
            None => Err(match nearest(word, BUILTIN.iter().map(|(name, _)| *name)) {
                Some(name) => format!("no service is named `{said}`; did you mean `{name}`?"),
                None => format!("no service is named `{said}`; write the number of its port"),
            }),
        };
    }
    let (low, high) = match word.split_once(['-', ':']) {
        Some((low, high)) => (number(low), number(high)),
        None => (number(word), number(word)),
    };
    match (low, high) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        (Some(_), Some(_)) => Err(format!("the range `{said}` ends before it begins")),
        _ => Err(format!(
            "`{said}` is not a port; ports are 1 to 65535, ranges such as 8000-8010, and service names"
        )),
    }
}

fn named(name: &str) -> Option<u16> {
    static SERVICES: OnceLock<String> = OnceLock::new();
    let services = SERVICES.get_or_init(|| {
        std::fs::read("/etc/services")
            .map_or_else(|_| String::new(), |b| String::from_utf8_lossy(&b).into_owned())
    });
    lookup(services, name).or_else(|| BUILTIN.iter().find(|(n, _)| *n == name).map(|(_, port)| *port))
}

/// The port of a service or of an alias of it, as services(5) lists them; TCP goes before UDP.
fn lookup(services: &str, name: &str) -> Option<u16> {
    let mut other = None;
    for line in services.lines() {
        let mut words = line.split('#').next().unwrap_or("").split_ascii_whitespace();
        let (Some(first), Some(port)) = (words.next(), words.next()) else { continue };
        if first != name && !words.any(|alias| alias == name) {
            continue;
        }
        match port.split_once('/') {
            Some((port, "tcp")) => return port.parse().ok(),
            Some((port, _)) => other = other.or_else(|| port.parse().ok()),
            None => {}
        }
    }
    other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ranges_and_names() {
        assert_eq!(port("22"), Ok((22, 22)));
        assert_eq!(port("8000-8010"), Ok((8000, 8010)));
        assert_eq!(port("8000:8010"), Ok((8000, 8010)));
        assert_eq!(port("https"), Ok((443, 443)));
        assert_eq!(port("1-65535"), Ok((1, 65535)));
        assert!(port("htps").unwrap_err().contains("did you mean `https`?"));
        assert!(port("9-8").unwrap_err().contains("ends before it begins"));
        for wrong in ["0", "65536", "80-", "-80", "80-x", "0x50", "80-90-100", "8.0", "1+2"] {
            assert!(port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn services_as_the_host_lists_them() {
        let text = "# comment\ntcpmux\t1/tcp\nhttp\t80/tcp www # WorldWideWeb\nodd 7/udp\nodd 8/tcp\nbroken\nweird x/tcp\n";
        assert_eq!(lookup(text, "http"), Some(80));
        assert_eq!(lookup(text, "www"), Some(80));
        assert_eq!(lookup(text, "odd"), Some(8));
        assert_eq!(lookup(text, "WorldWideWeb"), None);
        assert_eq!(lookup(text, "broken"), None);
        assert_eq!(lookup(text, "weird"), None);
    }
}
