//! The line that a filter is given of an entry or a message.

use std::borrow::Cow;

/// What of an entry of the journal or a message of syslog makes the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All of it, as rsyslog writes it into a file: time, host, program, message.
    Syslog,
    /// The message alone.
    Message,
}

/// A name in a line's head is cut to so many bytes.
const NAME_MAX: usize = 128;

/// What stands before the message in [`Shape::Syslog`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    /// Microseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) host: &'a [u8],
    pub(crate) program: &'a [u8],
    pub(crate) pid: Option<&'a [u8]>,
}

impl Head<'_> {
    /// Appends `2026-11-21T07:00:00.123456+00:00 HOST PROGRAM[PID]: `.
    ///
    /// Names are written by who logs: none of them can end its place in the head early.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let at = jiff::Timestamp::from_microsecond(self.at).unwrap_or_default();
        out.extend_from_slice(at.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00 ").to_string().as_bytes());
        name(self.host, out);
        out.push(b' ');
        name(self.program, out);
        if let Some(pid) = self.pid.filter(|pid| !pid.is_empty()) {
            out.push(b'[');
            name(pid, out);
            out.push(b']');
        }
        out.extend_from_slice(b": ");
    }
}

/// One word: what would end it is `_`; `-` when there is nothing.
fn name(text: &[u8], out: &mut Vec<u8>) {
    if text.is_empty() {
        out.push(b'-');
    }
    let text = &text[..text.len().min(NAME_MAX)];
    let plain = |b: u8| if b <= b' ' || matches!(b, b':' | b'[' | b']' | 0x7f) { b'_' } else { b };
    out.extend(text.iter().map(|&b| plain(b)));
}

/// Appends text without control characters: each but the tab is written as `#` and three octal digits, as rsyslog does
/// (`$EscapeControlCharactersOnReceive`).
pub(crate) fn escape(text: &[u8], out: &mut Vec<u8>) {
    for &b in text {
        if (b < b' ' && b != b'\t') || b == 0x7f { octal(b, out) } else { out.push(b) }
    }
}

/// The text without what ends a line or a text: line feeds, carriage returns and NULs are written as [`escape`] does.
pub(crate) fn unbroken(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr3(b'\n', b'\r', 0, text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len() + 8);
    for &b in text {
        if matches!(b, b'\n' | b'\r' | 0) { octal(b, &mut out) } else { out.push(b) }
    }
    Cow::Owned(out)
}

fn octal(b: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'#', b'0' + (b >> 6), b'0' + (b >> 3 & 7), b'0' + (b & 7)]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_as_rsyslog_writes_it() {
        let mut out = Vec::new();
        let head = Head { at: 1_795_244_400_123_456, host: b"web", program: b"sshd", pid: Some(b"12") };
        head.write(&mut out);
        assert_eq!(out, b"2026-11-21T07:00:00.123456+00:00 web sshd[12]: ");
    }

    #[test]
    fn a_name_stays_in_its_place() {
        let mut out = Vec::new();
        Head { at: -1, host: b"", program: b"sshd: Failed [x]\n", pid: Some(b"") }.write(&mut out);
        assert_eq!(out, b"1969-12-31T23:59:59.999999+00:00 - sshd__Failed__x__: ");
    }

    proptest! {
        #[test]
        fn nothing_becomes_two_lines(text: Vec<u8>, host: Vec<u8>, program: Vec<u8>, pid: Option<Vec<u8>>, at: i64) {
            let mut out = Vec::new();
            Head { at, host: &host, program: &program, pid: pid.as_deref() }.write(&mut out);
            prop_assert_eq!(out.iter().filter(|b| **b == b' ').count(), 3);
            escape(&text, &mut out);
            prop_assert!(!out.iter().any(|b| matches!(b, b'\n' | b'\r' | 0)));
            prop_assert!(!unbroken(&text).iter().any(|b| matches!(b, b'\n' | b'\r' | 0)));
        }
    }
}
