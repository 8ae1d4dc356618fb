//! Conditions on fields, compiled.

use std::borrow::Cow;

use regex::bytes::{Regex, RegexBuilder};

use super::asset;
use super::definition::{Clause, Pattern};
use super::fields::{Field, Fields, Statuses};
use super::format::{Format, Paths, PathsError};

/// A clause, compiled: all tests hold, the cheap ones being asked first.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    tests: Vec<Test>,
}

/// A condition could not be compiled. `key` is the field as written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConditionError {
    #[error("`{key}` is no field of {formats}, which have: {known}")]
    UnknownField { key: String, formats: String, known: String },
    #[error("`{key}`: {source}")]
    Path { key: String, source: PathsError },
    #[error("`{key}`: `{pattern}` is no regular expression: {reason}")]
    Pattern { key: String, pattern: String, reason: String },
    #[error("`{key}`: `{pattern}` is not `yes` or `no`")]
    NotBoolean { key: String, pattern: String },
    #[error("`{key}` has no value to compare with")]
    NoPattern { key: String },
    #[error("a clause without conditions would hold for every line")]
    Empty,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// A value as it was read.
    Slot(usize),
    /// The path without the query.
    Path,
    /// Whether the path is that of a static file.
    Static,
}

#[derive(Clone, Debug)]
struct Test {
    subject: Subject,
    /// The field, as written.
    key: String,
    numbers: Vec<(i64, i64)>,
    absent: bool,
    patterns: Vec<Regex>,
    /// For [`Subject::Static`].
    wanted: bool,
}

/// Names of derived fields that every format with a `uri` has.
const DERIVED: [&str; 2] = ["path", "static"];

impl Condition {
    /// Compiles a clause for the formats of its filter; `paths` are extended by those it names.
    pub(crate) fn compile(
        clause: &Clause,
        formats: &[Format],
        paths: &mut Paths,
    ) -> Result<Self, ConditionError> {
        let mut tests = Vec::with_capacity(clause.0.len());
        for (key, patterns) in &clause.0 {
            let subject = subject(key, formats, paths)?;
            tests.push(Test::compile(subject, key, patterns)?);
        }
        if tests.is_empty() {
            return Err(ConditionError::Empty);
        }
        tests.sort_by_key(|t| (!t.patterns.is_empty(), t.subject == Subject::Static));
        Ok(Self { tests })
    }

    /// Whether all tests hold.
    pub(crate) fn holds(&self, fields: &Fields<'_>) -> bool {
        self.tests.iter().all(|t| t.holds(fields))
    }

    /// Adds the statuses with which it can hold.
    pub(crate) fn add_interest(&self, statuses: &mut Statuses) {
        let mut tests = self.tests.iter().filter(|t| t.subject == Subject::Slot(Field::Status as usize));
        match tests.next() {
            Some(t) if t.patterns.is_empty() && !t.absent => {
                for &(first, last) in &t.numbers {
                    statuses.insert(first, last);
                }
            }
            _ => *statuses = Statuses::ALL,
        }
    }

    /// The condition in words, for `explain`.
    pub(crate) fn describe(&self) -> String {
        self.tests.iter().map(Test::describe).collect::<Vec<_>>().join(", ")
    }
}

impl Test {
    fn compile(subject: Subject, key: &str, patterns: &[Pattern]) -> Result<Self, ConditionError> {
        let mut test = Self {
            subject,
            key: key.to_owned(),
            numbers: Vec::new(),
            absent: false,
            patterns: Vec::new(),
            wanted: true,
        };
        if patterns.is_empty() {
            return Err(ConditionError::NoPattern { key: key.to_owned() });
        }
        for pattern in patterns {
            if subject == Subject::Static {
                test.wanted = truth(pattern).ok_or_else(|| ConditionError::NotBoolean {
                    key: key.to_owned(),
                    pattern: written(pattern),
                })?;
                continue;
            }
            match pattern {
                Pattern::Number(n) => test.numbers.push((*n, *n)),
                Pattern::Range(first, last) => test.numbers.push((*first, *last)),
                Pattern::Absent => test.absent = true,
                Pattern::Regex(text) => {
                    test.patterns.push(regex(text).map_err(|e| ConditionError::Pattern {
                        key: key.to_owned(),
                        pattern: text.clone(),
                        reason: e.to_string(),
                    })?);
                }
            }
        }
        Ok(test)
    }

    fn holds(&self, fields: &Fields<'_>) -> bool {
        if self.subject == Subject::Static {
            let uri = fields.text(Field::Uri as usize).unwrap_or_default();
            return asset::is_static(&uri) == self.wanted;
        }
        let Some(value) = value(self.subject, fields) else { return self.absent };
        if !self.numbers.is_empty()
            && let Some(n) = number(&value)
            && self.numbers.iter().any(|r| (r.0..=r.1).contains(&n))
        {
            return true;
        }
        self.patterns.iter().any(|p| p.is_match(&value))
    }

    fn describe(&self) -> String {
        let mut values: Vec<String> = self
            .numbers
            .iter()
            .map(|&(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
            .collect();
        if self.absent {
            values.push("-".to_owned());
        }
        values.extend(self.patterns.iter().map(|p| p.as_str().to_owned()));
        if self.subject == Subject::Static {
            values.push(if self.wanted { "yes" } else { "no" }.to_owned());
        }
        format!("{}: {}", self.key, values.join(" | "))
    }
}

/// The derived fields of a line, for `explain`: name and value.
pub(crate) fn derived<'a>(fields: &Fields<'a>) -> Option<(&'static str, Cow<'a, [u8]>)> {
    fields.text(Field::Uri as usize).map(|uri| {
        let is = asset::is_static(&uri);
        (DERIVED[1], Cow::Borrowed(if is { &b"yes"[..] } else { b"no" }))
    })
}

/// A regular expression over bytes, so that a line of broken UTF-8 is no way around it.
pub(crate) fn regex(text: &str) -> Result<Regex, regex::Error> {
    match RegexBuilder::new(text).unicode(false).build() {
        Ok(r) => Ok(r),
        // Classes such as `\p{L}` or `[é]` need Unicode.
        Err(_) => RegexBuilder::new(text).build(),
    }
}

fn subject(key: &str, formats: &[Format], paths: &mut Paths) -> Result<Subject, ConditionError> {
    if formats.contains(&Format::Json) && key.starts_with('.') {
        return paths
            .add(key)
            .map(Subject::Slot)
            .map_err(|source| ConditionError::Path { key: key.to_owned(), source });
    }
    let has = |field: Field| formats.iter().any(|f| f.fields().contains(&field));
    match key {
        "path" if has(Field::Uri) => return Ok(Subject::Path),
        "static" if has(Field::Uri) => return Ok(Subject::Static),
        _ => {}
    }
    if let Some(field) = Field::named(key).filter(|&f| has(f)) {
        return Ok(Subject::Slot(field as usize));
    }
    let mut known: Vec<&str> = Field::NAMES.iter().filter(|n| has(n.0)).map(|n| n.1).collect();
    if has(Field::Uri) {
        known.extend(DERIVED);
    }
    let formats: Vec<&str> = formats.iter().map(|f| f.name()).collect();
    Err(ConditionError::UnknownField {
        key: key.to_owned(),
        formats: formats.join(", "),
        known: known.join(", "),
    })
}

fn value<'a>(subject: Subject, fields: &Fields<'a>) -> Option<Cow<'a, [u8]>> {
    match subject {
        Subject::Slot(slot) => fields.text(slot),
        Subject::Path | Subject::Static => {
            let uri = fields.text(Field::Uri as usize)?;
            let end = uri.iter().position(|&b| b == b'?').unwrap_or(uri.len());
            Some(match uri {
                Cow::Borrowed(uri) => Cow::Borrowed(&uri[..end]),
                Cow::Owned(mut uri) => {
                    uri.truncate(end);
                    Cow::Owned(uri)
                }
            })
        }
    }
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn truth(pattern: &Pattern) -> Option<bool> {
    match pattern {
        Pattern::Number(1) => Some(true),
        Pattern::Number(0) => Some(false),
        Pattern::Regex(word) => match word.as_str() {
            "yes" | "true" => Some(true),
            "no" | "false" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn written(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Number(n) => n.to_string(),
        Pattern::Range(first, last) => format!("{first}-{last}"),
        Pattern::Absent => "-".to_owned(),
        Pattern::Regex(text) => text.clone(),
    }
}
