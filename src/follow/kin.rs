//! What rotation makes of a log's name.

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Which rotation a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    /// The log itself.
    Current,
    /// `.1`, `.2`, …: the higher, the older.
    Number(u32),
    /// `-20261121`, `.2026-11-21`, `-20261121-1795248000`, …: its digits; the higher, the newer.
    Date(Vec<u8>),
}

impl Generation {
    /// What `name` is to the log of that name, if that is certain.
    pub(super) fn of(log: &[u8], name: &[u8]) -> Option<Self> {
        if log == name {
            return Some(Self::Current);
        }
        let name = name.strip_suffix(b".gz").unwrap_or(name);
        let stem = stem(log);
        let suffix = match name.strip_prefix(log) {
            Some(suffix) => suffix,
            // `extension .log` in logrotate: what is added stands before it.
            None => name.strip_prefix(stem)?.strip_suffix(&log[stem.len()..])?,
        };
        let (&mark, rest) = suffix.split_first()?;
        if mark == b'.' && rest.len() <= 4 && rest.first()? != &b'0' && rest.iter().all(u8::is_ascii_digit) {
            return std::str::from_utf8(rest).ok()?.parse().ok().map(Self::Number);
        }
        let date = matches!(mark, b'.' | b'-' | b'_')
            && rest.first()?.is_ascii_digit()
            && rest
                .iter()
                .all(|c| c.is_ascii_digit() || matches!(c, b'-' | b'.' | b'_' | b':' | b'T' | b'Z'));
        let digits: Vec<u8> = rest.iter().copied().filter(u8::is_ascii_digit).collect();
        (date && digits.len() >= 8).then_some(Self::Date(digits))
    }

    /// Whether it came after the other one; `None` if that cannot be told.
    pub(super) fn is_newer_than(&self, other: &Self) -> Option<bool> {
        Some(match (self, other) {
            (Self::Current, _) => other != self,
            (_, Self::Current) => false,
            (Self::Number(a), Self::Number(b)) => a < b,
            (Self::Date(a), Self::Date(b)) if a.len() == b.len() => a > b,
            _ => return None,
        })
    }

    /// The older one first.
    pub(super) fn by_age(a: &Self, b: &Self) -> Ordering {
        match (a.is_newer_than(b), b.is_newer_than(a)) {
            (Some(true), _) => Ordering::Greater,
            (_, Some(true)) => Ordering::Less,
            _ => Ordering::Equal,
        }
    }
}

/// The name without its extension: `access` of `access.log`.
pub(super) fn stem(log: &[u8]) -> &[u8] {
    match log.iter().rposition(|&c| c == b'.') {
        Some(i) if i > 0 => &log[..i],
        _ => log,
    }
}

/// Whether rotation may have made `name` of the log's, or it is the log's own.
pub(super) fn is_kin(log: &[u8], name: &[u8]) -> bool {
    if name.starts_with(log) {
        return true;
    }
    let stem = stem(log);
    let name = name.strip_suffix(b".gz").unwrap_or(name);
    name.strip_prefix(stem)
        .and_then(|rest| rest.strip_suffix(&log[stem.len()..]))
        .is_some_and(|added| added.len() > 1 && matches!(added[0], b'.' | b'-' | b'_'))
}

/// The names of logs of which `name` may be a copy or a rotated file, the longest first: `a.log` for `a.log.1`,
/// `a.log-20261121` and `a-20261121.log`.
pub(super) fn logs_of(name: &OsStr) -> Vec<OsString> {
    let bytes = name.as_bytes();
    let extension = &bytes[stem(bytes).len()..];
    let mut logs = Vec::new();
    for i in (1..bytes.len()).rev().filter(|&i| matches!(bytes[i], b'.' | b'-' | b'_')) {
        let prefix = &bytes[..i];
        logs.push(OsStr::from_bytes(prefix).to_owned());
        if i + extension.len() < bytes.len() && !extension.is_empty() {
            logs.push(OsStr::from_bytes(&[prefix, extension].concat()).to_owned());
        }
    }
    logs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_told_by_their_names() {
        let of = |name: &str| Generation::of(b"a.log", name.as_bytes());
        let date = |digits: &str| Some(Generation::Date(digits.as_bytes().to_vec()));
        assert_eq!(of("a.log"), Some(Generation::Current));
        assert_eq!(of("a.log.1"), Some(Generation::Number(1)));
        assert_eq!(of("a.1.log"), Some(Generation::Number(1)));
        assert_eq!(of("a.log.12.gz"), Some(Generation::Number(12)));
        assert_eq!(of("a.log-20261121"), date("20261121"));
        assert_eq!(of("a.log-20261121.gz"), date("20261121"));
        assert_eq!(of("a.log.2026-11-21"), date("20261121"));
        assert_eq!(of("a-20261121.log"), date("20261121"));
        assert_eq!(of("a.log-20261121-1795248000"), date("202611211795248000"));
        for name in [
            "b.log.1",
            "a.log1",
            "a.log.bak",
            "a.log.",
            "a.log.0x",
            "a.log-old",
            "a.log.1.xz",
            "a.log-1",
            "a",
        ] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn the_newer_is_told_where_it_can_be() {
        let of = |name: &str| Generation::of(b"a.log", name.as_bytes()).unwrap();
        let newer = |a: &str, b: &str| of(a).is_newer_than(&of(b));
        assert_eq!(newer("a.log.1", "a.log.2.gz"), Some(true));
        assert_eq!(newer("a.log.10", "a.log.9"), Some(false));
        assert_eq!(newer("a.log", "a.log.1"), Some(true));
        assert_eq!(newer("a.log", "a.log"), Some(false));
        assert_eq!(newer("a.log-20261121", "a.log-20261120"), Some(true));
        assert_eq!(newer("a.log-20261121", "a.log.1"), None);
        assert_eq!(newer("a.log-2026112109", "a.log-20261121"), None);
    }

    #[test]
    fn names_lead_back_to_the_log() {
        for name in ["a.log.1", "a.log-20261121", "a-20261121.log", "a.1.log", "a.log.2.gz", "a.log_old"] {
            assert!(logs_of(OsStr::new(name)).contains(&"a.log".into()), "{name}");
            assert!(is_kin(b"a.log", name.as_bytes()), "{name}");
        }
        for name in ["ab.log", "b.log", "a", "a-b"] {
            assert!(!is_kin(b"a.log", name.as_bytes()), "{name}");
        }
        assert!(!logs_of(OsStr::new("a.log")).contains(&"a.log".into()));
        assert!(!logs_of(OsStr::new("a")).contains(&"a".into()));
    }
}
