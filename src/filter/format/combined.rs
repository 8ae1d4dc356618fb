//! The combined and common formats of nginx and Apache, and Apache's `vhost_combined`.
//!
//! ```text
//! [VHOST:PORT ]ADDR - USER [TIME] "REQUEST" STATUS BYTES[ "REF" "UA"[ ...]]
//! ```
//! Hazard: user, request, referer and user agent are the client's. Both servers escape a quote inside of them (nginx
//! `\x22`, Apache `\"`, and both the backslash), so the first quote that is not escaped opens the request; the stamp is the one directly
//! before it, whatever brackets a user name holds. Whatever follows the user agent is not looked at.

use super::{CLF_STAMP, Parsed, cut, is_clf_stamp, quoted, set_request};
use crate::filter::client;
use crate::filter::fields::{Field, Fields, Statuses};

pub(super) const FIELDS: &[Field] = &[
    Field::Time,
    Field::Peer,
    Field::Status,
    Field::Method,
    Field::Host,
    Field::Uri,
    Field::Protocol,
    Field::UserAgent,
    Field::Referer,
    Field::User,
    Field::Length,
];

pub(super) fn parse<'a>(line: &'a [u8], interest: &Statuses) -> Parsed<'a> {
    fields(line, interest).unwrap_or(Parsed::Mismatch)
}

fn fields<'a>(line: &'a [u8], interest: &Statuses) -> Option<Parsed<'a>> {
    let quote = super::bare_quote(line)?;
    let (head, rest) = line.split_at(quote);
    let (request, rest) = quoted(rest)?;
    let rest = rest.strip_prefix(b" ")?;
    let status = rest.get(..3)?;
    let digits = super::status(status)?;
    let rest = rest[3..].strip_prefix(b" ")?;
    // ` [TIME] ` before the quote
    let head = head.strip_suffix(b"] ")?;
    let (head, time) = head.split_at_checked(head.len().checked_sub(CLF_STAMP)?)?;
    let head = head.strip_suffix(b" [")?;
    if !is_clf_stamp(time) {
        return None;
    }
    let who = who(head)?;
    if !interest.contains(digits) {
        return Some(Parsed::Skip);
    }
    let (length, rest) = cut(rest, b' ').unwrap_or((rest, b""));
    if length != b"-" && !super::is_number(length) {
        return None;
    }
    let mut fields = Fields::default();
    fields.set(Field::Time, time);
    fields.set(Field::Status, status);
    fields.set(Field::Peer, who.peer);
    fields.set(Field::User, who.user);
    fields.set(Field::Length, length);
    if let Some(vhost) = who.vhost {
        fields.set(Field::Host, vhost);
    }
    set_request(&mut fields, request);
    if let Some((referer, rest)) = quoted(rest) {
        fields.set(Field::Referer, referer);
        if let Some((agent, _)) = rest.strip_prefix(b" ").and_then(quoted) {
            fields.set(Field::UserAgent, agent);
        }
    }
    Some(Parsed::Fields(fields))
}

/// The beginning of a line.
struct Who<'a> {
    vhost: Option<&'a [u8]>,
    peer: &'a [u8],
    user: &'a [u8],
}

/// `ADDR - USER` or `VHOST:PORT ADDR - USER`
///
/// The identity behind the address must be `-`: what identd would tell there is a client's word too. An address in the second place
/// is believed only behind something that cannot be the address itself.
fn who(head: &[u8]) -> Option<Who<'_>> {
    let (first, rest) = cut(head, b' ')?;
    if let Some(user) = rest.strip_prefix(b"- ") {
        return Some(Who { vhost: None, peer: first, user });
    }
    let (name, port) = super::cut_last(first, b':')?;
    let (peer, rest) = cut(rest, b' ')?;
    let user = rest.strip_prefix(b"- ")?;
    let is_vhost = !name.is_empty() && super::is_number(port) && client::address(peer).is_some();
    is_vhost.then_some(Who { vhost: Some(name), peer, user })
}
