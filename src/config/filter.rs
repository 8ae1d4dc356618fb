//! Filters as they are written: those of `filters:`, and the shipped ones, each a document of its own.

use super::cursor::Cursor;
use super::report::{ConfigError, Report, shown};
use super::tree::{self, Key, Kind};
use crate::filter::definition::{Clause, Definition, Pattern};

const KEYS: &[&str] =
    &["format", "match", "ignore", "failregex", "ignoreregex", "time", "peer", "forwarded", "timezone"];

/// Reads a document that is one filter. `origin` is what mistakes call it.
///
/// Only the shape is looked at: regular expressions, formats and fields are judged when the filter is compiled.
pub fn definition(text: &str, origin: &str) -> Result<Definition, ConfigError> {
    let mut report = Report::new(origin);
    let found = tree::read(text, &mut report).map(|node| read(&Cursor::root(&node), &mut report));
    report.finish().map(|_| found.unwrap_or_default())
}

/// Reads a filter; what cannot be read is reported and left out.
pub(super) fn read(cursor: &Cursor<'_>, report: &mut Report) -> Definition {
    if !cursor.is_map(report) {
        return Definition::default();
    }
    let section = cursor.section(KEYS, report);
    let mut texts = |key: &str| {
        let all = section.read(key, report, |c, r| {
            nonempty(c, r);
            Some(c.list(r, |c, r| c.some_text(r).map(str::to_owned)))
        });
        all.unwrap_or_default()
    };
    let (formats, failregex, ignoreregex) = (texts("format"), texts("failregex"), texts("ignoreregex"));
    let mut conditions =
        |key: &str| section.read(key, report, |c, r| Some(clauses(c, r))).unwrap_or_default();
    let (matches, ignore) = (conditions("match"), conditions("ignore"));
    let mut field = |key: &str| section.read(key, report, json_path);
    let (time, peer, forwarded) = (field("time"), field("peer"), field("forwarded"));
    let timezone = section.read("timezone", report, timezone);

    let has = |key: &str| section.get(key).is_some();
    let json = formats.iter().any(|f| f == "json");
    if !(has("format") && has("match")) && (has("match") || !has("failregex")) {
        cursor.mistake(report, needs(has("format"), has("match")));
    }
    if let Some(c) = section.get("ignore").filter(|_| !has("format")) {
        c.mistake(report, "is about the fields of a format; name the format with `format:`");
    }
    for key in ["time", "peer", "forwarded"] {
        if let Some(c) = section.get(key).filter(|_| !json) {
            c.mistake(report, "is only read with `format: json`; other formats know their own fields");
        }
    }
    if let Some(c) = section.get("format").filter(|_| json && !has("peer") && !has("forwarded")) {
        c.mistake(
            report,
            "json lines do not say which field is the address; name it with `peer:`, such as `.client_ip`",
        );
    }
    Definition { formats, matches, ignore, failregex, ignoreregex, time, peer, forwarded, timezone }
}

/// Reads a time zone: `UTC`, an offset such as `+01:00`, or an IANA name.
pub(super) fn timezone(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    let text = cursor.some_text(report)?;
    if text == "UTC" || is_offset(text) {
        return Some(text.to_owned());
    }
    let shaped = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'+'))
        && !text.ends_with('/')
        && !text.contains("//");
    // Without a database on this host no name can be judged here.
    let known = || jiff::tz::db().is_definitively_empty() || jiff::tz::TimeZone::get(text).is_ok();
    if !shaped || !known() {
        let text = format!(
            "`{}` is not a time zone; write UTC, +01:00 or a name such as Europe/Berlin",
            shown(text)
        );
        cursor.mistake(report, text);
        return None;
    }
    Some(text.to_owned())
}

/// `+01:00`, at most a day off.
fn is_offset(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(['+', '-']) else { return false };
    let Some((hours, minutes)) = rest.split_once(':') else { return false };
    let below = |t: &str, end: u8| {
        t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit()) && t.parse().is_ok_and(|n: u8| n < end)
    };
    below(hours, 24) && below(minutes, 60)
}

fn needs(format: bool, matches: bool) -> &'static str {
    match (format, matches) {
        (true, false) => "a filter with a format needs `match:`, the fields of a line that is an offense",
        (false, true) => "a filter with `match:` needs `format:`, the format whose fields it names",
        _ => "a filter needs `format:` and `match:`, or `failregex:`",
    }
}

fn clauses(cursor: &Cursor<'_>, report: &mut Report) -> Vec<Clause> {
    nonempty(cursor, report);
    cursor.list(report, clause)
}

fn clause(cursor: &Cursor<'_>, report: &mut Report) -> Option<Clause> {
    if !matches!(&cursor.node.kind, Kind::Map(_)) {
        let text =
            format!("expected a map of fields and values, such as `status: 404`, found {}", cursor.found());
        cursor.mistake(report, text);
        return None;
    }
    let mut fields = Vec::new();
    for (key, value) in cursor.entries(report) {
        if field_name(key, &value, report) {
            nonempty(&value, report);
            fields.push((key.text.clone(), value.list(report, pattern)));
        }
    }
    if let Kind::Map(entries) = &cursor.node.kind
        && entries.is_empty()
    {
        cursor.mistake(report, "is empty, and so true of every line");
    }
    Some(Clause(fields))
}

fn field_name(key: &Key, value: &Cursor<'_>, report: &mut Report) -> bool {
    let fine = !key.text.is_empty() && key.text.chars().all(|c| !c.is_control() && !c.is_whitespace());
    if !fine {
        report.mistake(Some(key.at), value.path, "is not the name of a field");
    }
    fine
}

fn nonempty(cursor: &Cursor<'_>, report: &mut Report) {
    if matches!(&cursor.node.kind, Kind::Seq(items) if items.is_empty()) {
        cursor.mistake(report, "the list is empty; nothing would ever match it");
    }
}

fn json_path(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    let text = cursor.some_text(report)?;
    if !text.starts_with('.') || text.len() < 2 || text.ends_with('.') || text.contains("..") {
        let text = format!(
            "`{}` is not the path of a field; write it from the outermost key, such as `.request.ip`",
            shown(text)
        );
        cursor.mistake(report, text);
        return None;
    }
    Some(text.to_owned())
}

/// Whether a value is quoted makes no difference, so that `[404, '4xx']` may be quoted as one likes.
fn pattern(cursor: &Cursor<'_>, report: &mut Report) -> Option<Pattern> {
    if matches!(&cursor.node.kind, Kind::Scalar(s) if s.is_null()) {
        cursor.mistake(report, "has no value; for a field that is absent write '-'");
        return None;
    }
    let text = cursor.text(report)?;
    if text.is_empty() {
        cursor.mistake(report, "is empty and would match everything; for a field that is absent write '-'");
        return None;
    }
    if text == "-" {
        return Some(Pattern::Absent);
    }
    if let Some(n) = number(text) {
        return Some(Pattern::Number(n));
    }
    match range(text) {
        Some((low, high)) if low <= high => Some(Pattern::Range(low, high)),
        Some(_) => {
            cursor.mistake(report, format!("the range `{}` ends before it begins", shown(text)));
            None
        }
        None => Some(Pattern::Regex(text.to_owned())),
    }
}

fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// `400-499`, or a class of three digits: `4xx`, `40x`.
fn range(text: &str) -> Option<(i64, i64)> {
    if let Some((low, high)) = text.split_once('-') {
        return Some((number(low)?, number(high).filter(|n| *n >= 0)?));
    }
    let digits = text.trim_end_matches(['x', 'X']);
    if text.len() != 3 || digits.len() == text.len() || !digits.starts_with(|c| matches!(c, '1'..='9')) {
        return None;
    }
    let low = number(digits)?;
    let span = 10_i64.pow(u32::try_from(text.len() - digits.len()).ok()?);
    Some((low * span, low * span + span - 1))
}
