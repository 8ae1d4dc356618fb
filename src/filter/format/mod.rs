//! Formats: how programs write their logs, each parsed by structure.
//!
//! The rule of all of them: whatever a client can write (path, user agent, referer, user name, host) may look
//! like any other part of the line. So a line is parsed from ends that nobody else can write, over delimiters that the program
//! escapes inside of values; where a program does not escape, the module says which reading is certain and which lines
//! are held against nobody.

mod combined;
mod json;
mod nginx_error;
mod npm;
pub(crate) mod object;
mod sshd;
mod traefik_clf;
mod traefik_json;

pub(crate) use self::json::{Paths, PathsError};
use super::fields::{Field, Fields, Statuses};

/// A way to write a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Npm,
    NginxError,
    Combined,
    TraefikJson,
    TraefikClf,
    Sshd,
    /// Any JSON object; the filter names the paths.
    Json,
}

/// What a parser makes of a line.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "boxed, the fields would be allocated for every line of interest"
)]
pub(crate) enum Parsed<'a> {
    /// The line is not of this format.
    Mismatch,
    /// It is, but its status interests no filter.
    Skip,
    /// It is.
    Fields(Fields<'a>),
}

/// What a parser must remember of the lines before, where a program lets a client break a line in two.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// So many further bytes may belong to a record that began earlier.
    doubtful: usize,
    /// A record began that was not ended.
    torn: bool,
}

impl Format {
    /// All of them, with their names in definitions.
    pub(crate) const NAMES: [(Self, &'static str); 7] = [
        (Self::Npm, "npm"),
        (Self::NginxError, "nginx_error"),
        (Self::Combined, "combined"),
        (Self::TraefikJson, "traefik_json"),
        (Self::TraefikClf, "traefik_clf"),
        (Self::Sshd, "sshd"),
        (Self::Json, "json"),
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|n| n.1 == name).map(|n| n.0)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }

    /// The fields it can give.
    pub(crate) fn fields(self) -> &'static [Field] {
        match self {
            Self::Npm => npm::FIELDS,
            Self::NginxError => nginx_error::FIELDS,
            Self::Combined => combined::FIELDS,
            Self::TraefikJson => traefik_json::FIELDS,
            Self::TraefikClf => traefik_clf::FIELDS,
            Self::Sshd => sshd::FIELDS,
            Self::Json => &[Field::Time, Field::Peer, Field::Forwarded],
        }
    }

    /// Reads a line; `paths` are those of [`Format::Json`], which reads nothing without them.
    #[inline]
    pub(crate) fn parse<'a>(
        self,
        line: &'a [u8],
        interest: &Statuses,
        paths: Option<&Paths>,
        memory: &mut Memory,
    ) -> Parsed<'a> {
        match self {
            Self::Npm => npm::parse(line, interest),
            Self::NginxError => nginx_error::parse(line, memory),
            Self::Combined => combined::parse(line, interest),
            Self::TraefikJson => traefik_json::parse(line, interest),
            Self::TraefikClf => traefik_clf::parse(line, interest, memory),
            Self::Sshd => sshd::parse(line),
            Self::Json => paths.map_or(Parsed::Mismatch, |p| p.parse(line)),
        }
    }

    /// The time stamp of a line, whatever its status.
    pub(crate) fn stamp<'a>(self, line: &'a [u8], paths: Option<&Paths>) -> Option<&'a [u8]> {
        // A fresh memory: the time of a doubtful line is no less its time.
        match self.parse(line, &Statuses::ALL, paths, &mut Memory::default()) {
            Parsed::Fields(f) => f.get(Field::Time),
            Parsed::Skip | Parsed::Mismatch => None,
        }
    }
}

/// Length of `02/Jan/2025:15:04:05 +0100`.
const CLF_STAMP: usize = 26;

/// Whether these bytes look like a stamp of that length; whether it is a time is seen when it is read.
#[inline]
fn is_clf_stamp(text: &[u8]) -> bool {
    text.len() == CLF_STAMP
        && text[2] == b'/'
        && text[6] == b'/'
        && text[11] == b':'
        && text[14] == b':'
        && text[17] == b':'
        && text[20] == b' '
        && matches!(text[21], b'+' | b'-')
        && [0, 1, 7, 8, 9, 10, 12, 13, 15, 16, 18, 19, 22, 23, 24, 25]
            .iter()
            .all(|&i| text[i].is_ascii_digit())
}

/// The byte `b` and everything before it, split off: `(before, after)`.
#[inline]
fn cut(text: &[u8], b: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b, text)?;
    Some((&text[..at], &text[at + 1..]))
}

/// The same from the right.
#[inline]
fn cut_last(text: &[u8], b: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memrchr(b, text)?;
    Some((&text[..at], &text[at + 1..]))
}

/// A value in quotes that `text` begins with, in which a backslash escapes; and what follows its closing quote.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = text.strip_prefix(b"\"")?;
    let end = bare_quote(inner)?;
    Some((&inner[..end], &inner[end + 1..]))
}

/// Where the first quote is that no backslash stands before; a backslash may itself be escaped.
#[inline]
fn bare_quote(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', text.get(from..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        from = at + 2;
    }
}

/// `GET /path HTTP/1.1` into its parts; a request that is none gives only itself as the URI.
fn set_request<'a>(fields: &mut Fields<'a>, request: &'a [u8]) {
    if let Some((method, rest)) = cut(request, b' ')
        && let Some((uri, protocol)) = cut_last(rest, b' ')
        && protocol.starts_with(b"HTTP/")
    {
        fields.set(Field::Method, method);
        fields.set(Field::Uri, uri);
        fields.set(Field::Protocol, protocol);
    } else {
        fields.set(Field::Uri, request);
    }
}

/// Three digits, or nothing.
#[inline]
fn status(text: &[u8]) -> Option<[u8; 3]> {
    let digits: [u8; 3] = text.try_into().ok()?;
    digits.iter().all(u8::is_ascii_digit).then_some(digits)
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests;
