//! Regex filters: fail2ban's `failregex` and `ignoreregex`, in linear time.
//!
//! Before a pattern is tried the line's time stamp is cut out, as fail2ban does it (see [`timestamp::detect`] for where it is looked
//! for): of `2025-01-02 10:00:00 login failed`, ` login failed` remains, of `1.2.3.4 - - [DATE] "GET` remains `1.2.3.4 - - [] "GET`. A `^` at
//! the beginning of a pattern also takes the blanks that are left there. All patterns are tried in one pass over the line.
//!
//! What a tag such as `<HOST>` captured is an address only if it stands alone: directly beside a letter, a digit, or a dot or hyphen that
//! goes on, it is part of a longer word (`9.9.9.9.evil.example`) and is no offender.

mod dialect;

use std::net::IpAddr;
use std::ops::Range;

use regex::bytes::{CaptureLocations, Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use super::client;
use super::timestamp;

/// The patterns of one filter.
#[derive(Clone, Debug)]
pub(crate) struct Patterns {
    fail: Vec<Fail>,
    ignore: Vec<Regex>,
    /// All of `fail`: whether one of them matches costs one pass.
    any: RegexSet,
    any_ignore: RegexSet,
    /// `fail` in the engine's dialect, to build a set over several filters.
    sources: Vec<String>,
}

/// A pattern could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternReason {
    /// The engine cannot do this, by design.
    #[error("{0} is not supported by the linear-time engine; rewrite the pattern without it")]
    Unsupported(String),
    /// A tag nobody knows.
    #[error("`{0}` is no known tag; write `\\<` for a plain `<`")]
    UnknownTag(String),
    /// A tag without its partner.
    #[error("the tag `{0}` has no partner")]
    Unclosed(String),
    /// There is no group for the address.
    #[error("it has no group for the address; put `<HOST>` where the address stands")]
    NoAddress,
    /// It is no regular expression.
    #[error("{0}")]
    Syntax(String),
}

/// A pattern matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// Which `failregex`, counted from 0.
    pub(crate) pattern: usize,
    /// The address it captured, if that is one.
    pub(crate) address: Option<IpAddr>,
}

#[derive(Clone, Debug)]
struct Fail {
    regex: Regex,
    /// Numbers of the groups that hold an address.
    addresses: Vec<usize>,
}

/// What the engine may use for one set of patterns; far above any real filter.
const SIZE_LIMIT: usize = 64 << 20;

/// Where a line's stamp is, and the line without it in `scratch`, unless the stamp stands at its beginning.
pub(crate) fn cut<'a>(line: &'a [u8], scratch: &'a mut Vec<u8>) -> (&'a [u8], Option<Range<usize>>) {
    match timestamp::detect(line) {
        None => (line, None),
        Some(range) if range.start == 0 => (&line[range.end..], Some(range)),
        Some(range) => {
            scratch.clear();
            scratch.extend_from_slice(&line[..range.start]);
            scratch.extend_from_slice(&line[range.end..]);
            (scratch, Some(range))
        }
    }
}

impl Patterns {
    /// Compiles a filter's patterns. Also gives warnings, each with the pattern's number; an error comes with the key and the pattern.
    pub(crate) fn compile(
        fail: &[String],
        ignore: &[String],
    ) -> Result<(Self, Vec<String>), (&'static str, String, PatternReason)> {
        let mut warnings = Vec::new();
        let mut compiled = Vec::new();
        let mut sources = Vec::new();
        for (n, pattern) in fail.iter().enumerate() {
            let at = |reason| ("failregex", pattern.clone(), reason);
            let t = dialect::translate(pattern, true).map_err(at)?;
            if t.addresses.is_empty() {
                return Err(at(PatternReason::NoAddress));
            }
            warnings.extend(t.warnings.iter().map(|w| format!("failregex {}: {w}", n + 1)));
            let regex = build(&t.regex).map_err(at)?;
            let addresses = t
                .addresses
                .iter()
                .filter_map(|name| regex.capture_names().position(|n| n == Some(name.as_str())))
                .collect();
            compiled.push(Fail { regex, addresses });
            sources.push(t.regex);
        }
        let mut ignored = Vec::new();
        let mut ignore_sources = Vec::new();
        for pattern in ignore {
            let at = |reason| ("ignoreregex", pattern.clone(), reason);
            let t = dialect::translate(pattern, true).map_err(at)?;
            ignored.push(build(&t.regex).map_err(at)?);
            ignore_sources.push(t.regex);
        }
        let any = set(&sources).map_err(|r| ("failregex", sources.join("\n"), r))?;
        let any_ignore = set(&ignore_sources).map_err(|r| ("ignoreregex", ignore_sources.join("\n"), r))?;
        Ok((Self { fail: compiled, ignore: ignored, any, any_ignore, sources }, warnings))
    }

    /// One set over several filters; `None` if it would be too large, and each has to be asked.
    pub(crate) fn union<'p>(all: impl Iterator<Item = &'p Self>) -> Option<RegexSet> {
        let sources: Vec<String> = all.flat_map(|p| p.sources.iter().cloned()).collect();
        set(&sources).ok()
    }

    /// The pattern in the engine's dialect.
    pub(crate) fn source(&self, pattern: usize) -> &str {
        self.sources.get(pattern).map_or("", String::as_str)
    }

    /// Room for the groups of every pattern, to be made once and used for every line.
    pub(crate) fn locations(&self) -> Vec<CaptureLocations> {
        self.fail.iter().map(|f| f.regex.capture_locations()).collect()
    }

    /// The first pattern that matches and captures an address, or else the first that matches.
    pub(crate) fn find(&self, text: &[u8], locations: &mut [CaptureLocations]) -> Option<Match> {
        if !self.any.is_match(text) {
            return None;
        }
        let mut first = None;
        for (pattern, (fail, locations)) in self.fail.iter().zip(locations).enumerate() {
            if fail.regex.captures_read(locations, text).is_none() {
                continue;
            }
            let group = fail.addresses.iter().find_map(|&g| locations.get(g));
            let address = group.and_then(|(start, end)| standing_alone(text, start, end));
            if address.is_some() {
                return Some(Match { pattern, address });
            }
            first = first.or(Some(Match { pattern, address }));
        }
        first
    }

    /// The number of the first `ignoreregex` that matches.
    pub(crate) fn ignored(&self, text: &[u8]) -> Option<usize> {
        if !self.any_ignore.is_match(text) {
            return None;
        }
        self.ignore.iter().position(|r| r.is_match(text))
    }

    /// The named groups of a pattern in a text it matches.
    pub(crate) fn groups<'t>(&self, pattern: usize, text: &'t [u8]) -> Vec<(String, &'t [u8])> {
        let Some(regex) = self.fail.get(pattern).map(|f| &f.regex) else { return Vec::new() };
        let Some(captures) = regex.captures(text) else { return Vec::new() };
        regex
            .capture_names()
            .flatten()
            .filter_map(|name| Some((name.to_owned(), captures.name(name)?.as_bytes())))
            .collect()
    }
}

/// The address at `start..end`, if it is one and no part of a longer word.
fn standing_alone(text: &[u8], start: usize, end: usize) -> Option<IpAddr> {
    let joins = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'%');
    if start > 0 && joins(text[start - 1]) {
        return None;
    }
    match text[end..] {
        [b, ..] if b.is_ascii_alphanumeric() || matches!(b, b'_' | b'%') => return None,
        // The end of a sentence is not the middle of a name.
        [b'.' | b'-', b, ..] if joins(b) => return None,
        _ => {}
    }
    client::address(&text[start..end])
}

fn build(regex: &str) -> Result<Regex, PatternReason> {
    let build = |unicode| RegexBuilder::new(regex).unicode(unicode).size_limit(SIZE_LIMIT).build();
    build(false).or_else(|_| build(true)).map_err(|e| PatternReason::Syntax(e.to_string()))
}

fn set(regexes: &[String]) -> Result<RegexSet, PatternReason> {
    let build = |unicode| RegexSetBuilder::new(regexes).unicode(unicode).size_limit(SIZE_LIMIT).build();
    build(false).or_else(|_| build(true)).map_err(|e| PatternReason::Syntax(e.to_string()))
}

#[cfg(test)]
mod tests;
