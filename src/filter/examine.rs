//! One line, step by step: for `stockade test` and `stockade explain`.

use std::borrow::Cow;

use super::client::{Attribution, Trust};
use super::compile::{Filter, Kind, Structured, Verdict};
use super::condition;
use super::fields::{Field, Fields, Statuses};
use super::format::{Format, Memory, Parsed};
use super::pattern::{self, Patterns};
use super::timestamp::Reader;
use crate::types::Timestamp;

/// What a filter makes of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination<'a> {
    /// The format that understood the line; `None` for filters of patterns too.
    pub format: Option<&'static str>,
    /// What was read: name and value, JSON's escapes resolved. For patterns, the named groups.
    pub fields: Vec<(String, Cow<'a, [u8]>)>,
    /// What became of the line.
    pub outcome: Outcome,
    /// The condition or pattern that decided, in words.
    pub because: Option<String>,
    /// Whom the line would be held against, when it matched.
    pub who: Option<Attribution>,
    /// The log's time, if the line has one that can be read.
    pub at: Option<Timestamp>,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is an offense.
    Matched,
    /// It would be one, but an `ignore` or `ignoreregex` holds.
    Ignored,
    /// It was understood, or is for patterns to understand, and none matched.
    Passed,
    /// No format of the filter understood it.
    Missed,
}

impl Outcome {
    /// The word for it: `matched`, `ignored`, `passed` or `missed`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Ignored => "ignored",
            Self::Passed => "passed",
            Self::Missed => "missed",
        }
    }
}

impl Filter {
    /// Examines a line (without its newline) by itself. A [`super::Matcher`] knows the lines before it as well, and may hold one
    /// against nobody that seems certain here.
    #[must_use]
    pub fn examine<'a>(&self, line: &'a [u8], now: Timestamp, trust: &Trust) -> Examination<'a> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut reader = Reader::new(self.zone.clone());
        match &self.kind {
            Kind::Structured(structured) => {
                for &format in &structured.formats {
                    let paths = Some(&structured.paths);
                    if let Parsed::Fields(fields) =
                        format.parse(line, &Statuses::ALL, paths, &mut Memory::default())
                    {
                        return understood(structured, format, &fields, now, trust, &mut reader);
                    }
                }
                Examination {
                    format: None,
                    fields: Vec::new(),
                    outcome: Outcome::Missed,
                    because: None,
                    who: None,
                    at: None,
                }
            }
            Kind::Regex(patterns) => searched(patterns, line, now, trust, &mut reader),
        }
    }
}

fn understood<'a>(
    structured: &Structured,
    format: Format,
    fields: &Fields<'a>,
    now: Timestamp,
    trust: &Trust,
    reader: &mut Reader,
) -> Examination<'a> {
    let mut shown: Vec<(String, Cow<'a, [u8]>)> = Vec::new();
    if format == Format::Json {
        for (slot, name) in structured.paths.names().iter().enumerate() {
            shown.extend(fields.text(slot).map(|value| (name.clone(), value)));
        }
    } else {
        for (field, name) in Field::NAMES {
            shown.extend(fields.text(field as usize).map(|value| (name.to_owned(), value)));
        }
        shown.extend(condition::derived(fields).map(|(name, value)| (name.to_owned(), value)));
    }
    let (outcome, because) = match structured.judge(fields) {
        Verdict::Matched(n) => {
            (Outcome::Matched, Some(format!("match {}", structured.matches[n].describe())))
        }
        Verdict::Ignored(n) => {
            (Outcome::Ignored, Some(format!("ignore {}", structured.ignore[n].describe())))
        }
        Verdict::Passed => (Outcome::Passed, None),
    };
    Examination {
        format: Some(format.name()),
        fields: shown,
        outcome,
        because,
        who: (outcome == Outcome::Matched).then(|| fields.attribution(trust)),
        at: fields.get(Field::Time).and_then(|stamp| reader.read(stamp, now)),
    }
}

fn searched<'a>(
    patterns: &Patterns,
    line: &'a [u8],
    now: Timestamp,
    trust: &Trust,
    reader: &mut Reader,
) -> Examination<'a> {
    let mut scratch = Vec::new();
    let (text, stamp) = pattern::cut(line, &mut scratch);
    let mut found = Examination {
        format: None,
        fields: Vec::new(),
        outcome: Outcome::Passed,
        because: None,
        who: None,
        at: stamp.and_then(|range| reader.read(&line[range], now)),
    };
    let Some(matched) = patterns.find(text, &mut patterns.locations()) else { return found };
    found.fields = patterns
        .groups(matched.pattern, text)
        .into_iter()
        .map(|(name, value)| (name, Cow::Owned(value.to_vec())))
        .collect();
    if let Some(n) = patterns.ignored(text) {
        found.outcome = Outcome::Ignored;
        found.because = Some(format!("ignoreregex {}", n + 1));
        return found;
    }
    found.outcome = Outcome::Matched;
    found.because = Some(format!("failregex {}: {}", matched.pattern + 1, patterns.source(matched.pattern)));
    found.who = Some(match matched.address {
        Some(peer) => trust.offender(peer, b""),
        None => Attribution::Unattributable { peer: None },
    });
    found
}
