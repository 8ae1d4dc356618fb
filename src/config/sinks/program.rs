//! A program and its arguments, for sinks that run one: never a line for a shell.

use super::super::cursor::{Cursor, Section};
use super::super::raw::span;
use super::super::report::{Report, shown};
use std::time::Duration;

/// A list: an absolute path, and arguments. None of them goes through a shell.
pub(super) fn read(cursor: &Cursor<'_>, report: &mut Report) -> Option<Vec<String>> {
    let items = cursor.items();
    let Some(first) = items.first() else {
        cursor.mistake(report, "is empty; name a program and its arguments, such as [/usr/sbin/nginx, -t]");
        return None;
    };
    if let ([only], Some(text)) = (items.as_slice(), cursor.plain())
        && text.split_whitespace().count() > 1
    {
        let words: Vec<&str> = text.split_whitespace().collect();
        only.mistake(
            report,
            format!(
                "no shell is used; write a list of the program and each argument: [{}]",
                shown(&words.join(", "))
            ),
        );
        return None;
    }
    let program = first.absolute(report)?.to_owned();
    let mut words = vec![program];
    for item in items.iter().skip(1) {
        let word = item.text(report)?;
        if word.contains('\0') {
            item.mistake(report, "an argument cannot hold a NUL");
            return None;
        }
        words.push(word.to_owned());
    }
    Some(words)
}

/// A time within these bounds.
pub(super) fn time(
    key: &str,
    (least, most): (u64, u64),
    keys: &Section<'_>,
    report: &mut Report,
) -> Option<Duration> {
    keys.read(key, report, |c, r| {
        let time = span(c, r)?;
        if time < Duration::from_secs(least) || time > Duration::from_secs(most) {
            c.mistake(r, format!("must be from {least}s to {}m", most / 60));
            return None;
        }
        Some(time)
    })
}
