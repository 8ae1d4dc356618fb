//! Traefik's access log in its common log format, and `genericCLF`, which ends behind the user agent.
//!
//! ```text
//! HOST - USER [TIME] "METHOD PATH PROTO" STATUS SIZE "REF" "UA" COUNT "ROUTER" "SERVICE" 1ms
//! ```
//! Hazard: only referer and user agent are escaped (`"` as `\"`, the backslash not at all; before Traefik 3 not even that). HOST
//! is the raw `X-Forwarded-For` header where there is one, USER any bytes, PATH may hold blanks and quotes.
//!
//! The right end is certain: router and service are the configuration's, and inside of the two escaped values no quote
//! ever follows a blank, so each begins at the last blank and quote before its end. The left end is certain when there is one
//! ` - ` before one ` [TIME] "`; otherwise the line is held against nobody.
//!
//! A user of basic authentication may hold a newline, which tears a record in two. It cannot hold a colon, so no piece but the last has
//! a time: behind a torn piece, the next complete line is held against nobody. The user in `GET http://user@host/` may hold
//! everything (`%0A`, `%3A`), so such a request can write whole lines, and no reading of this format can tell. Traefik's
//! JSON format has none of these troubles; prefer it.

use memchr::memchr_iter;

use super::{CLF_STAMP, Memory, Parsed, cut_last, is_clf_stamp, is_number};
use crate::filter::client;
use crate::filter::fields::{Field, Fields, Statuses};

pub(super) const FIELDS: &[Field] = &[
    Field::Time,
    Field::Peer,
    Field::Status,
    Field::Method,
    Field::Uri,
    Field::Protocol,
    Field::UserAgent,
    Field::Referer,
    Field::User,
    Field::Router,
    Field::Upstream,
    Field::Length,
];

pub(super) fn parse<'a>(line: &'a [u8], interest: &Statuses, memory: &mut Memory) -> Parsed<'a> {
    let Some((wanted, mut fields)) = right(line).and_then(|tail| left(tail, interest)) else {
        memory.torn |= begins_record(line);
        return Parsed::Mismatch;
    };
    let torn = std::mem::take(&mut memory.torn);
    if !wanted {
        return Parsed::Skip;
    }
    if torn {
        fields.set(Field::Peer, b"-");
    }
    Parsed::Fields(fields)
}

/// Whether an address stands before a ` - `, as it does where a record begins.
fn begins_record(line: &[u8]) -> bool {
    dashes(line).take(8).any(|at| {
        let head = &line[..at];
        let start = memchr::memrchr2(b' ', b',', head).map_or(0, |b| b + 1);
        client::endpoint(&head[start..]).is_some()
    })
}

/// Where ` - ` stands.
fn dashes(text: &[u8]) -> impl Iterator<Item = usize> {
    memchr_iter(b'-', text)
        .filter(|&at| at > 0 && text[at - 1] == b' ' && text.get(at + 1) == Some(&b' '))
        .map(|at| at - 1)
}

/// What was read from the right end, and the text left of it.
struct Tail<'a> {
    /// `HOST - USER [TIME] "METHOD PATH PROTO`
    text: &'a [u8],
    status: &'a [u8],
    length: &'a [u8],
    referer: &'a [u8],
    agent: &'a [u8],
    router: &'a [u8],
    service: &'a [u8],
}

fn right(line: &[u8]) -> Option<Tail<'_>> {
    let (mut text, mut router, mut service): (_, &[u8], &[u8]) = (line, b"", b"");
    if let Some(rest) = line.strip_suffix(b"ms") {
        let (rest, duration) = cut_last(rest, b' ')?;
        (text, service) = last_quoted(rest)?;
        (text, router) = last_quoted(text)?;
        let (rest, count) = cut_last(text, b' ')?;
        if !is_number(duration) || !is_number(count) {
            return None;
        }
        text = rest;
    }
    let (text, agent) = last_quoted(text)?;
    let (text, referer) = last_quoted(text)?;
    let (text, length) = cut_last(text, b' ')?;
    let (text, status) = cut_last(text, b' ')?;
    super::status(status)?;
    let text = text.strip_suffix(b"\"")?;
    is_number(length).then_some(Tail { text, status, length, referer, agent, router, service })
}

/// ` "VALUE"` at the end of `text`: what stands before it, and the value.
fn last_quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = text.strip_suffix(b"\"")?;
    // From the right: a quote inside of the value stands behind a backslash, never behind a blank.
    let mut end = inner.len();
    loop {
        let at = memchr::memrchr(b'"', &inner[..end])?;
        match inner[..at].last()? {
            b' ' => return Some((&inner[..at - 1], &inner[at + 1..])),
            b'\\' => end = at,
            _ => return None,
        }
    }
}

/// Whether the status is of interest, and the fields, in which the peer is missing if it is not certain.
fn left<'a>(tail: Tail<'a>, interest: &Statuses) -> Option<(bool, Fields<'a>)> {
    let mut stamps = memchr_iter(b'[', tail.text).filter(|&at| {
        tail.text[..at].last() == Some(&b' ')
            && tail.text.get(at + 1..at + 1 + CLF_STAMP).is_some_and(is_clf_stamp)
            && tail.text[at + 1 + CLF_STAMP..].starts_with(b"] \"")
    });
    let at = stamps.next()? - 1;
    let (head, rest) = tail.text.split_at(at);
    let (time, request) = (&rest[2..2 + CLF_STAMP], &rest[CLF_STAMP + 5..]);
    let dash = dashes(head).next()?;
    let (host, user) = (&head[..dash], &head[dash + 3..]);
    let mut fields = Fields::of_list();
    if !super::status(tail.status).is_some_and(|s| interest.contains(s)) {
        return Some((false, fields));
    }
    if stamps.next().is_none() && dashes(user).next().is_none() {
        fields.set(Field::Peer, host);
    }
    fields.set(Field::Time, time);
    fields.set(Field::Status, tail.status);
    fields.set(Field::Length, tail.length);
    fields.set(Field::Referer, tail.referer);
    fields.set(Field::UserAgent, tail.agent);
    fields.set(Field::Router, tail.router);
    fields.set(Field::Upstream, tail.service);
    fields.set(Field::User, user);
    super::set_request(&mut fields, request);
    Some((true, fields))
}
