//! nginx's error log, as Nginx Proxy Manager writes it too.
//!
//! ```text
//! 2025/01/02 22:46:54 [error] 254#254: *24053 MESSAGE, client: ADDR, server: NAME, request: "R", upstream: "U", host: "H", referrer: "X"
//! ```
//! Hazard: nginx escapes nothing here. Request, host and referrer are raw, and a message such as `open() "/path" failed` holds the
//! path *decoded*, so a client can put `, client: 9.9.9.9, server: x` before the true one, and even (`%0A`) begin a line of its own.
//!
//! Which address is certain: the first `, client: ` of the line, when nothing before it can be a client's text. That is so
//! when the message holds no quotes, is not a script's, or is one of those whose quoted part is the configuration's or cannot hold
//! a colon (the user of basic authentication). A line with any other message gives no peer, and neither do the lines behind
//! it as long as they may belong to the same record: nginx cuts a record at 2048 bytes.

use memchr::memmem::find;

use super::{Memory, Parsed};
use crate::filter::fields::{Field, Fields};

pub(super) const FIELDS: &[Field] = &[
    Field::Time,
    Field::Peer,
    Field::Level,
    Field::Message,
    Field::Server,
    Field::Method,
    Field::Uri,
    Field::Protocol,
    Field::Upstream,
    Field::Host,
    Field::Referer,
];

/// `NGX_MAX_ERROR_STR`: so long is a record at most, its newline included.
const RECORD: usize = 2048;

/// Length of `2025/01/02 22:46:54`.
const STAMP: usize = 19;

pub(super) fn parse<'a>(line: &'a [u8], memory: &mut Memory) -> Parsed<'a> {
    let doubtful = memory.doubtful > 0;
    memory.doubtful = memory.doubtful.saturating_sub(line.len() + 1);
    let Some((mut fields, text)) = head(line) else { return Parsed::Mismatch };
    let end = comma(text, b", client: ");
    let message = &text[..end.unwrap_or(text.len())];
    fields.set(Field::Message, message);
    if !is_certain(message) {
        memory.doubtful = memory.doubtful.max(RECORD.saturating_sub(line.len() + 1));
        return Parsed::Fields(fields);
    }
    if let Some(end) = end {
        let rest = &text[end + b", client: ".len()..];
        // Without a server behind it the address may have been cut.
        if let Some(end) = memchr::memchr(b',', rest)
            && let Some(rest_of_line) = rest[end..].strip_prefix(b", server: ")
        {
            // Another program's line may begin with text that imitates all of this, but then it goes on differently.
            if !doubtful && is_whole(rest_of_line) {
                fields.set(Field::Peer, &rest[..end]);
            }
            trailer(&mut fields, rest_of_line);
        }
    }
    Parsed::Fields(fields)
}

/// Where `mark`, which begins with a comma, first stands. Commas are rare in this log, and a search by needle is dear to set up.
fn comma(text: &[u8], mark: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b',', text).find(|&at| text[at..].starts_with(mark))
}

/// `STAMP [LEVEL] PID#TID: *CONNECTION `, and the text behind it.
fn head(line: &[u8]) -> Option<(Fields<'_>, &[u8])> {
    let (time, rest) = line.split_at_checked(STAMP)?;
    if time[4] != b'/' || time[7] != b'/' || time[10] != b' ' || time[13] != b':' || time[16] != b':' {
        return None;
    }
    let (level, rest) = super::cut(rest.strip_prefix(b" [")?, b']')?;
    if level.is_empty() || level.len() > 8 || !level.iter().all(u8::is_ascii_lowercase) {
        return None;
    }
    let (process, rest) = super::cut(rest.strip_prefix(b" ")?, b' ')?;
    let (pid, tid) = super::cut(process.strip_suffix(b":")?, b'#')?;
    if !super::is_number(pid) || !super::is_number(tid) {
        return None;
    }
    let rest = match rest.strip_prefix(b"*").and_then(|r| super::cut(r, b' ')) {
        Some((connection, text)) if super::is_number(connection) => text,
        _ => rest,
    };
    let mut fields = Fields::default();
    fields.set(Field::Time, time);
    fields.set(Field::Level, level);
    Some((fields, rest))
}

/// Whether no part of the message can be a client's text, or none that holds the delimiter.
fn is_certain(message: &[u8]) -> bool {
    const CONFIGURED: [&[u8]; 4] = [
        b"limiting requests, ",
        b"delaying request, ",
        b"limiting connections by zone ",
        b"delaying requests, ",
    ];
    if CONFIGURED.iter().any(|m| message.starts_with(m)) {
        return true;
    }
    // `user "NAME": password mismatch`: a name in basic authentication ends at the first colon.
    if let Some(rest) = message.strip_prefix(b"user \"") {
        return rest.ends_with(b"\": password mismatch")
            || (find(rest, b"\" was not found in \"").is_some() && rest.ends_with(b"\""));
    }
    let scripted = message.starts_with(b"[") || message.starts_with(b"js: ");
    // A name to resolve may come from any variable.
    let resolved = find(message, b"resolve").is_some();
    !scripted && !resolved && memchr::memchr2(b'"', b'\'', message).is_none()
}

/// Whether `NAME, request: …` ends as nginx ends a line: after the name, which is one word of the configuration, or with
/// the quote of a part that it knows. One that was cut because it
/// was too long is held against nobody.
fn is_whole(text: &[u8]) -> bool {
    let (name, rest) = text.split_at(memchr::memchr(b',', text).unwrap_or(text.len()));
    if name.iter().any(|b| matches!(b, b' ' | b'"')) {
        return false;
    }
    rest.is_empty() || (PARTS.iter().any(|part| rest.starts_with(part.0)) && rest.ends_with(b"\""))
}

/// `NAME, request: "R", upstream: "U", host: "H", referrer: "X"`. The values are the client's and raw: good to describe a line by,
/// never to attribute it.
fn trailer<'a>(fields: &mut Fields<'a>, text: &'a [u8]) {
    let (mut part, mut from, mut next) = (Part::Value(Field::Server), 0, 0);
    for comma in memchr::memchr_iter(b',', text) {
        let rest = &text[comma..];
        // Each part stands at most once, and in this order.
        if let Some(n) = (next..PARTS.len()).find(|&n| rest.starts_with(PARTS[n].0)) {
            keep(fields, part, &text[from..comma]);
            (part, from, next) = (PARTS[n].1, comma + PARTS[n].0.len(), n + 1);
        }
    }
    keep(fields, part, &text[from..]);
}

const PARTS: [(&[u8], Part); 5] = [
    (b", request: \"", Part::Request),
    (b", subrequest: \"", Part::Other),
    (b", upstream: \"", Part::Value(Field::Upstream)),
    (b", host: \"", Part::Value(Field::Host)),
    (b", referrer: \"", Part::Value(Field::Referer)),
];

#[derive(Clone, Copy)]
enum Part {
    Value(Field),
    Request,
    Other,
}

fn keep<'a>(fields: &mut Fields<'a>, part: Part, value: &'a [u8]) {
    let inner = value.strip_suffix(b"\"").unwrap_or(value);
    match part {
        Part::Value(field) => fields.set(field, inner),
        Part::Request => super::set_request(fields, inner),
        Part::Other => {}
    }
}
