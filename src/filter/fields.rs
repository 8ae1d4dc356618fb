//! What a format reads out of a line.

use std::borrow::Cow;

use super::client::{self, Attribution, Trust};
use super::format::object;

/// A value a format may give. The name in a definition is the variant's in snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Field {
    /// The time stamp as written.
    Time,
    /// The address that connected.
    Peer,
    /// What a header claimed.
    Forwarded,
    /// The status sent to the client.
    Status,
    /// The status the upstream sent; the last one, if there were several.
    UpstreamStatus,
    Method,
    Scheme,
    Host,
    /// The request's path and query.
    Uri,
    Protocol,
    UserAgent,
    Referer,
    User,
    /// The container or server a proxy passed the request to.
    SentTo,
    Router,
    Message,
    Level,
    Server,
    Upstream,
    /// Body bytes sent.
    Length,
    /// What kind of message it is (see `sshd`).
    Event,
}

impl Field {
    /// All of them, with their names in definitions.
    pub(crate) const NAMES: [(Self, &'static str); 21] = [
        (Self::Time, "time"),
        (Self::Peer, "peer"),
        (Self::Forwarded, "forwarded"),
        (Self::Status, "status"),
        (Self::UpstreamStatus, "upstream_status"),
        (Self::Method, "method"),
        (Self::Scheme, "scheme"),
        (Self::Host, "host"),
        (Self::Uri, "uri"),
        (Self::Protocol, "protocol"),
        (Self::UserAgent, "user_agent"),
        (Self::Referer, "referer"),
        (Self::User, "user"),
        (Self::SentTo, "sent_to"),
        (Self::Router, "router"),
        (Self::Message, "message"),
        (Self::Level, "level"),
        (Self::Server, "server"),
        (Self::Upstream, "upstream"),
        (Self::Length, "length"),
        (Self::Event, "event"),
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|n| n.1 == name).map(|n| n.0)
    }
}

/// Places for values; the named fields come first, generic JSON numbers its own from 3 (0 to 2 mean the same in both).
pub(crate) const SLOTS: usize = 24;

/// How the address that is responsible is to be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sender {
    /// `peer` connected, `forwarded` is what it claimed.
    #[default]
    Peer,
    /// `peer` is a list whose sender is unknown.
    List,
}

/// The values of one line, as slices of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields<'a> {
    values: [Option<&'a [u8]>; SLOTS],
    /// Values are JSON texts that may hold escapes.
    json: bool,
    sender: Sender,
}

impl<'a> Fields<'a> {
    /// No values yet, and JSON texts to come; with `list`, the peer among them is a list.
    pub(crate) fn of_json(list: bool) -> Self {
        Self { json: true, sender: if list { Sender::List } else { Sender::Peer }, ..Self::default() }
    }

    /// No values yet, and a peer to come that is a list.
    pub(crate) fn of_list() -> Self {
        Self { sender: Sender::List, ..Self::default() }
    }

    pub(crate) fn set(&mut self, field: Field, value: &'a [u8]) {
        self.values[field as usize] = Some(value);
    }

    /// The value of a field as it stands in the line; absent, empty and `-` are one.
    pub(crate) fn get(&self, field: Field) -> Option<&'a [u8]> {
        self.slot(field as usize)
    }

    pub(crate) fn set_slot(&mut self, slot: usize, value: Option<&'a [u8]>) {
        self.values[slot] = value;
    }

    pub(crate) fn slot(&self, slot: usize) -> Option<&'a [u8]> {
        self.values[slot].filter(|v| !v.is_empty() && *v != b"-")
    }

    /// Whether something was written there at all.
    pub(crate) fn is_set(&self, field: Field) -> bool {
        self.values[field as usize].is_some()
    }

    /// The value of a place with JSON's escapes resolved.
    pub(crate) fn text(&self, slot: usize) -> Option<Cow<'a, [u8]>> {
        let raw = self.slot(slot)?;
        Some(if self.json { object::unescape(raw) } else { Cow::Borrowed(raw) })
    }

    /// Whom the line is held against.
    pub(crate) fn attribution(&self, trust: &Trust) -> Attribution {
        let Some(peer) = self.get(Field::Peer) else {
            return Attribution::Unattributable { peer: None };
        };
        match self.sender {
            Sender::List => trust.offender_of_list(peer),
            Sender::Peer => match client::endpoint(peer) {
                Some(peer) => trust.offender(peer, self.get(Field::Forwarded).unwrap_or_default()),
                None => Attribution::Unattributable { peer: None },
            },
        }
    }
}

/// The statuses some filter is interested in; a parser gives up on the others as soon as it knows the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statuses([u64; 16]);

impl Statuses {
    pub(crate) const NONE: Self = Self([0; 16]);
    pub(crate) const ALL: Self = Self([u64::MAX; 16]);

    pub(crate) fn insert(&mut self, first: i64, last: i64) {
        for status in first.max(0)..=last.min(999) {
            self.0[status as usize / 64] |= 1 << (status % 64);
        }
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine |= theirs;
        }
    }

    /// Whether a status of three digits is among them.
    #[inline]
    pub(crate) fn contains(&self, digits: [u8; 3]) -> bool {
        let [a, b, c] = digits.map(|d| usize::from(d.wrapping_sub(b'0')));
        let status = (a * 100 + b * 10 + c) & 1023;
        self.0[status / 64] >> (status % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_stand_in_the_order_of_the_variants() {
        for (i, (field, name)) in Field::NAMES.iter().enumerate() {
            assert_eq!(*field as usize, i, "{name}");
            assert_eq!(Field::named(name), Some(*field));
        }
        assert!(Field::NAMES.len() <= SLOTS);
    }

    #[test]
    fn a_set_of_statuses_holds_what_was_put_in() {
        let mut set = Statuses::NONE;
        set.insert(400, 404);
        set.insert(-5, 1);
        set.insert(998, 5000);
        for status in 0..1000u16 {
            let text = format!("{status:03}");
            let expected = (400..=404).contains(&status) || status <= 1 || status >= 998;
            assert_eq!(set.contains(text.as_bytes().try_into().unwrap()), expected, "{status}");
        }
    }
}
