//! A message of syslog: RFC 5424, or what is called RFC 3164 and varies from program to program.
//!
//! ```text
//! <38>1 2026-11-21T07:00:00.123456+01:00 HOST sshd 12 ID47 [origin ip="192.0.2.1"] MESSAGE
//! <38>Nov 21 07:00:00 HOST sshd[12]: MESSAGE          over a network
//! <38>Nov 21 07:00:00 sshd[12]: MESSAGE               from syslog(3)
//! <38>2026-11-21T07:00:00.123456+01:00 HOST sshd[12]: MESSAGE    from rsyslog
//! ```

use jiff::tz::TimeZone;

use crate::filter::timestamp::Reader;
use crate::source::{Head, Shape, escape, unbroken};
use crate::types::Timestamp;

/// A program's name, and a host's, is no longer than this where there is no rule to tell (RFC 5424 allows 48 and 255).
const WORD_MAX: usize = 255;

/// A datagram, taken apart. Whatever it holds is what the sender says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its time stamp, if it says its zone: one without is the sender's local time, whatever that is.
    pub stamp: Option<&'a [u8]>,
    /// The host, where one is named.
    pub host: &'a [u8],
    /// The program, where one is named.
    pub program: &'a [u8],
    /// Its process.
    pub pid: Option<&'a [u8]>,
    /// What was logged.
    pub text: &'a [u8],
    /// It begins as a message of syslog does.
    pub well_formed: bool,
}

impl<'a> Message<'a> {
    /// Takes a datagram apart. What is no message of syslog is all text.
    #[must_use]
    pub fn parse(datagram: &'a [u8]) -> Self {
        let datagram = trimmed(datagram);
        let (priority, rest) = match priority(datagram) {
            Some(rest) => (true, rest),
            None => (false, datagram),
        };
        if priority
            && let Some(rest) = rest.strip_prefix(b"1 ")
            && let Some(message) = modern(rest)
        {
            return message;
        }
        let Some((stamp, rest)) = stamp(rest) else {
            // A text without a time may still name its program: `<38>sshd[12]: MESSAGE`.
            let (program, pid, text) = tag(rest).unwrap_or((b"", None, rest));
            return Self { program, pid, text, well_formed: priority, ..Self::default() };
        };
        let message = Self { stamp, well_formed: priority, ..Self::default() };
        if let Some((program, pid, text)) = tag(rest) {
            return Self { program, pid, text, ..message };
        }
        let Some((host, rest)) = word(rest) else { return Self { text: rest, ..message } };
        let (program, pid, text) = tag(rest).unwrap_or((b"", None, rest));
        Self { host, program, pid, text, ..message }
    }

    /// When it was, if it says so in a way that leaves no doubt.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        Reader::new(TimeZone::UTC).read(self.stamp?, Timestamp::default())
    }

    /// Puts it into `line` as one line; `host` is for a message that names none, `received` for one without a time.
    pub fn render(&self, shape: Shape, host: &[u8], received: Timestamp, line: &mut Vec<u8>) {
        line.clear();
        match shape {
            Shape::Message => line.extend_from_slice(&unbroken(self.text)),
            Shape::Syslog => {
                let at = self.time().unwrap_or(received).as_millis().saturating_mul(1000);
                let host = if self.host.is_empty() { host } else { self.host };
                Head { at, host, program: self.program, pid: self.pid }.write(line);
                escape(self.text, line);
            }
        }
    }
}

/// Without what some programs put behind a message: a newline, a NUL.
fn trimmed(mut datagram: &[u8]) -> &[u8] {
    while let [rest @ .., b'\n' | b'\r' | 0] = datagram {
        datagram = rest;
    }
    datagram
}

/// What follows `<38>`.
fn priority(datagram: &[u8]) -> Option<&[u8]> {
    let rest = datagram.strip_prefix(b"<")?;
    let digits = rest.iter().take(4).take_while(|b| b.is_ascii_digit()).count();
    let rest = rest.get(digits..)?.strip_prefix(b">")?;
    (1..=3).contains(&digits).then_some(rest)
}

/// RFC 5424, behind the version.
fn modern(rest: &[u8]) -> Option<Message<'_>> {
    let mut parts = [&b""[..]; 5];
    let mut rest = rest;
    for part in &mut parts {
        (*part, rest) = word(rest)?;
    }
    let [stamp, host, program, pid, _id] = parts.map(|part| if part == b"-" { &b""[..] } else { part });
    if !stamp.is_empty() && !stamp.contains(&b'T') {
        return None;
    }
    let text = structured(rest)?;
    let text = text.strip_prefix(b" ").unwrap_or(text);
    Some(Message {
        stamp: (!stamp.is_empty()).then_some(stamp),
        host,
        program,
        pid: (!pid.is_empty()).then_some(pid),
        text: text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text),
        well_formed: true,
    })
}

/// What follows the structured data: `-`, or elements in brackets, in whose quoted values a backslash escapes `"`, `\` and `]`.
fn structured(rest: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = rest.strip_prefix(b"-") {
        return (rest.is_empty() || rest[0] == b' ').then_some(rest);
    }
    let mut rest = rest;
    loop {
        let inner = rest.strip_prefix(b"[")?;
        let (mut quoted, mut escaped) = (false, false);
        let end = inner.iter().position(|&b| {
            let closes = b == b']' && !quoted;
            match b {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => {}
            }
            closes
        })?;
        rest = &inner[end + 1..];
        match rest.first() {
            None | Some(b' ') => return Some(rest),
            Some(b'[') => {}
            Some(_) => return None,
        }
    }
}

/// A stamp and what follows it: an ISO stamp, which says its zone, or `Nov 21 07:00:00`, which does not.
fn stamp(rest: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    if rest.first()?.is_ascii_digit() {
        let (stamp, rest) = word(rest)?;
        let fine = stamp.len() >= 19 && stamp[4] == b'-' && stamp[7] == b'-' && matches!(stamp[10], b'T');
        let zoned = stamp.ends_with(b"Z") || stamp.get(19..)?.iter().any(|b| matches!(b, b'+' | b'-'));
        return fine.then_some((zoned.then_some(stamp), rest));
    }
    let (stamp, rest) = rest.split_at_checked(15)?;
    let shape = b"aaa _d dd:dd:dd";
    let fits = shape.iter().zip(stamp).all(|(want, b)| match want {
        b'a' => b.is_ascii_alphabetic(),
        b'd' => b.is_ascii_digit(),
        b'_' => *b == b' ' || b.is_ascii_digit(),
        other => b == other,
    });
    // Some put a fraction of the second behind it.
    let fraction =
        rest.strip_prefix(b".").map_or(0, |f| 1 + f.iter().take_while(|b| b.is_ascii_digit()).count());
    let rest = rest[fraction..].strip_prefix(b" ")?;
    fits.then_some((None, rest))
}

/// Program, process and text.
type Tagged<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8]);

/// `PROGRAM:`, `PROGRAM[PID]:` and the text behind it.
fn tag(rest: &[u8]) -> Option<Tagged<'_>> {
    let end = rest.iter().take(WORD_MAX).position(|&b| b <= b' ' || matches!(b, b':' | b'['))?;
    let (program, rest) = rest.split_at(end);
    if program.is_empty() {
        return None;
    }
    let (pid, rest) = match rest.strip_prefix(b"[") {
        Some(rest) => {
            let end = rest.iter().take(WORD_MAX).position(|&b| b <= b' ' || matches!(b, b']'))?;
            (Some(&rest[..end]), rest[end..].strip_prefix(b"]")?)
        }
        None => (None, rest),
    };
    let rest = rest.strip_prefix(b":")?;
    // `10.0.0.1:5000 …` is text, not a program: behind a tag there is a blank, or nothing.
    if !rest.is_empty() && rest[0] != b' ' {
        return None;
    }
    Some((program, pid, rest.strip_prefix(b" ").unwrap_or(rest)))
}

/// A word and what follows the one blank behind it.
fn word(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = rest.iter().take(WORD_MAX + 1).position(|b| *b == b' ')?;
    (end > 0).then(|| (&rest[..end], &rest[end + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(datagram: &str) -> [String; 4] {
        let message = Message::parse(datagram.as_bytes());
        let told = |text: &[u8]| String::from_utf8(text.to_vec()).unwrap();
        [told(message.host), told(message.program), told(message.pid.unwrap_or(b"none")), told(message.text)]
    }

    #[test]
    fn messages_as_programs_write_them() {
        for (datagram, wanted) in [
            // RFC 5424's own examples, and logger's.
            (
                "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed",
                ["mymachine.example.com", "su", "none", "'su root' failed"],
            ),
            (
                "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time.",
                ["192.0.2.1", "myproc", "8710", "%% It's time."],
            ),
            (
                r#"<165>1 2003-10-11T22:14:15.003Z h e - ID47 [a@3 i="3" s="A\"] b"][b@4] An event"#,
                ["h", "e", "none", "An event"],
            ),
            ("<165>1 - - - - - -", ["", "", "none", ""]),
            (
                r#"<13>1 2026-11-21T07:54:41.123456+00:00 vm sshd 12 - [timeQuality tzKnown="1"] Failed"#,
                ["vm", "sshd", "12", "Failed"],
            ),
            // logger --udp --rfc3164, nginx, syslog(3), haproxy.
            ("<13>Nov 21 07:54:41 vm sshd[12]: Failed password", ["vm", "sshd", "12", "Failed password"]),
            (
                "<190>Nov  1 07:54:41 vm nginx: 203.0.113.7 - - [x] \"GET / HTTP/1.1\"",
                ["vm", "nginx", "none", "203.0.113.7 - - [x] \"GET / HTTP/1.1\""],
            ),
            ("<38>Nov 21 07:54:41 sshd[12]: a: b\n\0", ["", "sshd", "12", "a: b"]),
            (
                "<134>Nov 21 07:54:41 haproxy[7]: 10.0.0.1:5000 [x] f",
                ["", "haproxy", "7", "10.0.0.1:5000 [x] f"],
            ),
            (
                "<38>2026-11-21T07:54:41.123456+01:00 web postfix/smtpd[9]: NOQUEUE",
                ["web", "postfix/smtpd", "9", "NOQUEUE"],
            ),
            ("<134>Nov 21 07:54:41.123 vm app: x", ["vm", "app", "none", "x"]),
            // No priority, no tag, no time, nothing.
            ("Nov 21 07:54:41 vm sshd[12]: x", ["vm", "sshd", "12", "x"]),
            ("<13>Nov 21 07:54:41 vm plain text", ["vm", "", "none", "plain text"]),
            ("<13>sshd: x", ["", "sshd", "none", "x"]),
            ("10.0.0.1:5000 [x] f", ["", "", "none", "10.0.0.1:5000 [x] f"]),
            ("<9999>x", ["", "", "none", "<9999>x"]),
            ("<>", ["", "", "none", "<>"]),
            ("", ["", "", "none", ""]),
            // What pretends to be RFC 5424 and is not.
            (
                "<34>1 2003-10-11T22:14:15.003Z h su - ID47 [x",
                ["", "", "none", "1 2003-10-11T22:14:15.003Z h su - ID47 [x"],
            ),
        ] {
            assert_eq!(read(datagram), wanted, "{datagram:?}");
        }
    }

    #[test]
    fn only_a_stamp_with_a_zone_is_a_time() {
        let at = |datagram: &str| Message::parse(datagram.as_bytes()).time();
        assert_eq!(
            at("<38>1 2026-11-21T08:00:00.5+01:00 h a - - - x"),
            Some(Timestamp::from_millis(1_795_244_400_500))
        );
        assert_eq!(at("<38>2026-11-21T07:00:00Z h a: x"), Some(Timestamp::from_secs(1_795_244_400)));
        assert_eq!(at("<38>2026-11-21T07:00:00 h a: x"), None);
        assert_eq!(at("<38>Nov 21 07:00:00 h a: x"), None);
        assert_eq!(at("<38>1 2026-13-21T08:00:00Z h a - - - x"), None);
    }

    #[test]
    fn a_message_is_one_line_as_rsyslog_writes_it() {
        let mut line = Vec::new();
        let received = Timestamp::from_millis(1_795_244_400_123);
        let message = Message::parse(b"<38>Nov 21 07:00:00 sshd[12]: a\nNov 21 07:00:00 h sshd[1]: b\x1b");
        message.render(Shape::Syslog, b"here", received, &mut line);
        assert_eq!(
            line,
            b"2026-11-21T07:00:00.123000+00:00 here sshd[12]: a#012Nov 21 07:00:00 h sshd[1]: b#033"
        );
        message.render(Shape::Message, b"here", received, &mut line);
        assert_eq!(line, b"a#012Nov 21 07:00:00 h sshd[1]: b\x1b");
    }

    proptest! {
        #[test]
        fn any_datagram_is_one_line(datagram: Vec<u8>) {
            let mut line = Vec::new();
            for shape in [Shape::Syslog, Shape::Message] {
                Message::parse(&datagram).render(shape, b"h", Timestamp::default(), &mut line);
                prop_assert!(!line.iter().any(|b| matches!(b, b'\n' | b'\r' | 0)));
            }
        }

        #[test]
        fn nearly_right_datagrams_are_one_line(datagram in "(<[0-9]{0,4}>)?(1 )?(Nov 21 07:00:00 |2026-11-21T07:00:00[Z+]? |- )?[ -~\n]{0,60}") {
            let mut line = Vec::new();
            Message::parse(datagram.as_bytes()).render(Shape::Syslog, b"h", Timestamp::default(), &mut line);
            prop_assert!(!line.contains(&b'\n'));
        }
    }
}
