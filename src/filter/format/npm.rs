//! Nginx Proxy Manager's access logs.
//!
//! ```text
//! proxy:    [TIME] CACHE UPSTREAM STATUS - METHOD SCHEME HOST "URI" [Client ADDR] [Length N] [Gzip R] [Sent-to S] "UA" "REF"
//! standard: [TIME] STATUS - METHOD SCHEME HOST "URI" [Client ADDR] [Length N] [Gzip R] "UA" "REF"
//! ```
//! `UPSTREAM` is a list (`502, 200`, or `502 : 200` after an internal redirect) when nginx tried several servers. A field
//! `[CF-conn-IP ADDR]` may stand behind the client; other bracketed fields are passed over.
//!
//! Hazard: URI, user agent, referer and the header behind `CF-conn-IP` are the client's. nginx writes a quote inside of
//! them as `\x22`, so quotes are structure, and everything up to `[Client ADDR]` is certain when read from the left: nginx itself
//! makes the method, scheme and host tokens without blanks. What follows may be cut short by a limit of the line's length; then only
//! the fields that are missing are missing.

use memchr::memchr;

use super::{CLF_STAMP, Parsed, cut, is_clf_stamp};
use crate::filter::fields::{Field, Fields, Statuses};

pub(super) const FIELDS: &[Field] = &[
    Field::Time,
    Field::Peer,
    Field::Forwarded,
    Field::Status,
    Field::UpstreamStatus,
    Field::Method,
    Field::Scheme,
    Field::Host,
    Field::Uri,
    Field::UserAgent,
    Field::Referer,
    Field::SentTo,
    Field::Length,
];

/// Where the part behind `[TIME] ` begins.
const HEAD: usize = CLF_STAMP + 3;

#[inline]
pub(super) fn parse<'a>(line: &'a [u8], interest: &Statuses) -> Parsed<'a> {
    // A cheap look at the frame; the stamp itself is looked at when the line matters.
    if line.len() < HEAD + 8 || line[0] != b'[' || line[HEAD - 2] != b']' || line[HEAD - 1] != b' ' {
        return Parsed::Mismatch;
    }
    let Some(head) = statuses(&line[HEAD..]) else { return Parsed::Mismatch };
    let Some(digits) = super::status(head.status) else { return Parsed::Mismatch };
    if !interest.contains(digits) {
        return Parsed::Skip;
    }
    request(line, &head).map_or(Parsed::Mismatch, Parsed::Fields)
}

/// What stands before the request.
struct Head<'a> {
    /// The last one, in the proxy format.
    upstream: Option<&'a [u8]>,
    status: &'a [u8],
    rest: &'a [u8],
}

/// `CACHE UPSTREAM STATUS - ` or `STATUS - `
#[inline]
fn statuses(text: &[u8]) -> Option<Head<'_>> {
    if text[0].is_ascii_digit() {
        let (status, rest) = text.split_at_checked(3)?;
        return Some(Head { upstream: None, status, rest: rest.strip_prefix(b" - ")? });
    }
    let mut at =
        if text[0] == b'-' { 1 } else { text.iter().take(12).take_while(|b| b.is_ascii_uppercase()).count() };
    if at == 0 || text.get(at) != Some(&b' ') {
        return None;
    }
    at += 1;
    loop {
        let length = if *text.get(at)? == b'-' { 1 } else { 3 };
        let item = text.get(at..at + length)?;
        if length == 3 && !item.iter().all(u8::is_ascii_digit) {
            return None;
        }
        at += length;
        let rest = text.get(at..)?;
        if rest.starts_with(b", ") {
            at += 2;
        } else if rest.starts_with(b" : ") {
            at += 3;
        } else {
            let (status, rest) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
            return Some(Head { upstream: Some(item), status, rest: rest.strip_prefix(b" - ")? });
        }
    }
}

fn request<'a>(line: &'a [u8], head: &Head<'a>) -> Option<Fields<'a>> {
    let time = &line[1..1 + CLF_STAMP];
    if !is_clf_stamp(time) {
        return None;
    }
    let (method, rest) = cut(head.rest, b' ')?;
    let (scheme, rest) = cut(rest, b' ')?;
    let (host, rest) = cut(rest, b' ')?;
    // None of the three can hold a quote, so the first quote is the URI's.
    if [method, scheme, host].iter().any(|token| token.contains(&b'"')) {
        return None;
    }
    let (uri, rest) = cut(rest.strip_prefix(b"\"")?, b'"')?;
    let (client, mut rest) = cut(rest.strip_prefix(b" [Client ")?, b']')?;
    let mut fields = Fields::default();
    fields.set(Field::Time, time);
    fields.set(Field::Status, head.status);
    if let Some(upstream) = head.upstream {
        fields.set(Field::UpstreamStatus, upstream);
    }
    fields.set(Field::Method, method);
    fields.set(Field::Scheme, scheme);
    fields.set(Field::Host, host);
    fields.set(Field::Uri, uri);
    fields.set(Field::Peer, client);
    if let Some(after) = rest.strip_prefix(b" [CF-conn-IP ") {
        // A header with a bracket in it is no address: the field is taken up to where the next known one begins.
        let (forwarded, after) = match memchr::memmem::find(after, b"] [Length ") {
            Some(end) => (&after[..end], &after[end + 1..]),
            None => (after, &after[after.len()..]),
        };
        fields.set(Field::Forwarded, forwarded);
        rest = after;
    }
    brackets(&mut fields, rest);
    Some(fields)
}

/// ` [Length N] [Gzip R] [Sent-to S] "UA" "REF"`, as far as it is there.
fn brackets<'a>(fields: &mut Fields<'a>, mut rest: &'a [u8]) {
    while let Some(inner) = rest.strip_prefix(b" [") {
        let Some(end) = memchr(b']', inner) else { return };
        let (field, after) = (&inner[..end], &inner[end + 1..]);
        if let Some(length) = field.strip_prefix(b"Length ") {
            fields.set(Field::Length, length);
        } else if let Some(server) = field.strip_prefix(b"Sent-to ") {
            fields.set(Field::SentTo, server);
        }
        rest = after;
    }
    let Some((agent, after)) = rest.strip_prefix(b" \"").and_then(|r| cut(r, b'"')) else { return };
    fields.set(Field::UserAgent, agent);
    if let Some((referer, _)) = after.strip_prefix(b" \"").and_then(|r| cut(r, b'"')) {
        fields.set(Field::Referer, referer);
    }
}
