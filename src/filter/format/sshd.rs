//! OpenSSH's server, over syslog or the journal.
//!
//! ```text
//! Jan  2 15:04:05 HOST sshd[123]: MESSAGE                      (RFC 3164, perhaps with `<38>` before it)
//! 2025-01-02T15:04:05.123456+01:00 HOST sshd-session[123]: MESSAGE
//! <38>1 2025-01-02T15:04:05.123456+01:00 HOST sshd 123 - - MESSAGE   (RFC 5424)
//! ```
//! | `event` | message |
//! |---|---|
//! | `failed` | `Failed METHOD for USER from ADDR port N ssh2` |
//! | `failed-invalid` | `Failed METHOD for invalid user USER from ADDR port N ssh2` |
//! | `invalid` | `Invalid user USER from ADDR[ port N]` |
//! | `pam` | `error: PAM: REASON for [illegal user ]USER from ADDR` |
//! | `exceeded` | `error: maximum authentication attempts exceeded for [invalid user ]USER from ADDR port N ssh2` |
//! | `too-many` | `Disconnecting authenticating\|invalid user USER ADDR port N: Too many authentication failures` |
//! | `not-allowed` | `User USER from ADDR not allowed because REASON` |
//! | `closed` | `Connection closed\|reset by authenticating\|invalid user USER ADDR port N` |
//!
//! Hazard: the user name is the client's, blanks and all: `x from 9.9.9.9 port 22 ssh2`. Messages are therefore read from their end,
//! where the daemon wrote the address last; what may follow is a fixed text. A failed public key may carry the name in
//! a certificate behind the address, so it is read only when a single ` from ` leaves no choice. sshd writes control characters as
//! `\012`, so a name cannot begin a line.

use memchr::memmem::{find, find_iter, rfind};

use super::{Parsed, cut, cut_last, is_number};
use crate::filter::fields::{Field, Fields};

pub(super) const FIELDS: &[Field] =
    &[Field::Time, Field::Peer, Field::Host, Field::Event, Field::Method, Field::User, Field::Message];

pub(super) fn parse(line: &[u8]) -> Parsed<'_> {
    let Some((mut fields, message)) = head(line) else { return Parsed::Mismatch };
    fields.set(Field::Message, message);
    if let Some(seen) = seen(message) {
        fields.set(Field::Event, seen.event);
        fields.set(Field::Method, seen.method);
        fields.set(Field::User, seen.user);
        fields.set(Field::Peer, seen.peer);
    }
    Parsed::Fields(fields)
}

/// Time, host and message, if the program is the daemon.
fn head(line: &[u8]) -> Option<(Fields<'_>, &[u8])> {
    let mut fields = Fields::default();
    let mut rest = line;
    if let Some((priority, after)) = rest.strip_prefix(b"<").and_then(|r| cut(r, b'>')) {
        if priority.len() > 3 || !is_number(priority) {
            return None;
        }
        rest = after;
        if let Some(after) = rest.strip_prefix(b"1 ") {
            // TIME HOST APP PID MSGID -, then the message. Structured data is not accepted: sshd writes none.
            let mut parts = [&b""[..]; 6];
            let mut after = after;
            for part in &mut parts {
                (*part, after) = cut(after, b' ')?;
            }
            fields.set(Field::Time, parts[0]);
            fields.set(Field::Host, parts[1]);
            let is_ours =
                is_daemon(parts[2]) && (is_number(parts[3]) || parts[3] == b"-") && parts[5] == b"-";
            return is_ours.then(|| (fields, after.strip_prefix(b"\xef\xbb\xbf").unwrap_or(after)));
        }
    }
    // `Jan  2 15:04:05` has blanks in it, an ISO stamp has none.
    let (time, rest) = if rest.first()?.is_ascii_digit() {
        cut(rest, b' ')?
    } else {
        let (time, rest) = rest.split_at_checked(15)?;
        (time, rest.strip_prefix(b" ")?)
    };
    // Another program's line may hold all of the rest, in a client's words; it does not begin with a time.
    if !is_stamp(time) {
        return None;
    }
    let (host, rest) = cut(rest, b' ')?;
    let (tag, message) = cut(rest, b' ')?;
    let tag = tag.strip_suffix(b":")?;
    let program = match tag.strip_suffix(b"]") {
        Some(tag) => {
            let (program, pid) = cut(tag, b'[')?;
            is_number(pid).then_some(program)?
        }
        None => tag,
    };
    fields.set(Field::Time, time);
    fields.set(Field::Host, host);
    is_daemon(program).then_some((fields, message))
}

/// Whether it has the shape of `Jan  2 15:04:05`, or begins as `2025-01-02T15:04:05`.
fn is_stamp(text: &[u8]) -> bool {
    let fits = |shape: &[u8]| {
        text.len() >= shape.len()
            && shape.iter().zip(text).all(|(want, b)| match want {
                b'a' => b.is_ascii_alphabetic(),
                b'd' => b.is_ascii_digit(),
                b'_' => *b == b' ' || b.is_ascii_digit(),
                other => b == other,
            })
    };
    (text.len() == 15 && fits(b"aaa _d dd:dd:dd")) || fits(b"dddd-dd-ddTdd:dd:dd")
}

fn is_daemon(program: &[u8]) -> bool {
    matches!(program, b"sshd" | b"sshd-session" | b"sshd-auth")
}

struct Seen<'a> {
    event: &'static [u8],
    method: &'a [u8],
    user: &'a [u8],
    peer: &'a [u8],
}

fn seen(message: &[u8]) -> Option<Seen<'_>> {
    let message = message.strip_suffix(b" [preauth]").unwrap_or(message);
    let message = message.strip_prefix(b"error: ").unwrap_or(message);
    if let Some(rest) = message.strip_prefix(b"Failed ") {
        return failed(rest);
    }
    if let Some(rest) =
        message.strip_prefix(b"Invalid user ").or_else(|| message.strip_prefix(b"Illegal user "))
    {
        let (user, end) = from(rest)?;
        let peer = with_port(end).or_else(|| word(end))?;
        return Some(Seen { event: b"invalid", method: b"", user, peer });
    }
    if let Some(rest) = message.strip_prefix(b"PAM: ") {
        let (text, end) = from(rest)?;
        let (_, user) = split(text, b" for ")?;
        let user = user.strip_prefix(b"illegal user ").unwrap_or(user);
        return Some(Seen { event: b"pam", method: b"", user, peer: word(end)? });
    }
    if let Some(rest) = message.strip_prefix(b"maximum authentication attempts exceeded for ") {
        let (user, end) = from(rest)?;
        let peer = with_port(end.strip_suffix(b" ssh2")?)?;
        let user = user.strip_prefix(b"invalid user ").unwrap_or(user);
        return Some(Seen { event: b"exceeded", method: b"", user, peer });
    }
    if let Some(rest) = message.strip_prefix(b"Disconnecting ") {
        let (user, peer) = named(rest.strip_suffix(b": Too many authentication failures")?)?;
        return Some(Seen { event: b"too-many", method: b"", user, peer });
    }
    if let Some(rest) = message.strip_prefix(b"Connection ") {
        let rest = rest.strip_prefix(b"closed by ").or_else(|| rest.strip_prefix(b"reset by "))?;
        let (user, peer) = named(rest)?;
        return Some(Seen { event: b"closed", method: b"", user, peer });
    }
    if let Some(rest) = message.strip_prefix(b"User ") {
        // Only users that exist get here, so the name is the system's.
        let (user, rest) = split(rest, b" from ")?;
        let (peer, _) = split(rest, b" not allowed because ")?;
        return Some(Seen { event: b"not-allowed", method: b"", user: word(user)?, peer: word(peer)? });
    }
    None
}

/// `METHOD for [invalid user ]USER from ADDR port N ssh2[: KEY]`
fn failed(text: &[u8]) -> Option<Seen<'_>> {
    let (method, rest) = split(text, b" for ")?;
    word(method)?;
    let (user, end) = from(rest)?;
    let end = match end.strip_suffix(b" ssh2") {
        Some(end) => end,
        // Key and certificate are told only of public keys.
        None => split(end, b" ssh2: ")?.0,
    };
    let carries_names = matches!(method, b"publickey" | b"hostbased");
    if (carries_names || !text.ends_with(b" ssh2")) && find_iter(rest, b" from ").nth(1).is_some() {
        return None;
    }
    let peer = with_port(end)?;
    Some(match user.strip_prefix(b"invalid user ").or_else(|| user.strip_prefix(b"illegal user ")) {
        Some(user) => Seen { event: b"failed-invalid", method, user, peer },
        None => Seen { event: b"failed", method, user, peer },
    })
}

/// `authenticating|invalid user USER ADDR port N`: user and address.
fn named(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = text.strip_prefix(b"authenticating user ").or_else(|| text.strip_prefix(b"invalid user "))?;
    let at = rfind(rest, b" port ")?;
    let (user, peer) = cut_last(&rest[..at], b' ')?;
    is_number(&rest[at + 6..]).then_some((user, peer))
}

/// Split at the last ` from `.
fn from(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = rfind(text, b" from ")?;
    Some((&text[..at], &text[at + 6..]))
}

/// `ADDR port N`, all of it.
fn with_port(text: &[u8]) -> Option<&[u8]> {
    let (peer, port) = split(text, b" port ")?;
    if is_number(port) { word(peer) } else { None }
}

/// The text, if there is no blank in it.
fn word(text: &[u8]) -> Option<&[u8]> {
    (!text.is_empty() && !text.contains(&b' ')).then_some(text)
}

fn split<'a>(text: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = find(text, mark)?;
    Some((&text[..at], &text[at + mark.len()..]))
}
