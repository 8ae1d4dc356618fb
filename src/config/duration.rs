//! Lengths of time as fail2ban writes them: `10m`, `1d12h`, `2 weeks`, `3600`.
//!
//! A year is 365.25 days and a month a twelfth of it, as there. Its arithmetic (`1h+30m`, `2*10m`) and fractions
//! are not read: they are errors, never another length than was meant.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::types::BanTime;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
const YEAR: u64 = (365 * 3 + 366) * DAY / 4;
const MONTH: u64 = YEAR / 12;

/// The longest length that is read: what [`crate::types::Timestamp`] can still count in milliseconds.
const MAX_SECS: u64 = (i64::MAX / 1000) as u64;

/// What every unit may be called. `m` is minutes, `mo` months; case does not matter.
const UNITS: &[(u64, &[&str])] = &[
    (1, &["s", "ss", "se", "sec", "secs", "second", "seconds"]),
    (MINUTE, &["m", "mm", "mi", "min", "mins", "minute", "minutes"]),
    (HOUR, &["h", "hh", "ho", "hou", "hour", "hours"]),
    (DAY, &["d", "dd", "da", "day", "days"]),
    (WEEK, &["w", "ww", "we", "wee", "week", "weeks"]),
    (MONTH, &["mo", "mon", "month", "months"]),
    (YEAR, &["y", "yy", "ye", "yea", "year", "years"]),
];

/// Why a text is not a length of time.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DurationError {
    /// There is no text.
    #[error("is empty; write a length of time such as 10m or 1d12h")]
    Empty,
    /// A number is missing where one must stand.
    #[error("expected a number at `{0}`; write a length of time such as 10m or 1d12h")]
    NoNumber(String),
    /// One of several numbers has no unit.
    #[error("`{0}` has no unit; append s, m, h, d, w, mo or y")]
    NoUnit(String),
    /// The unit is not known.
    #[error("`{0}` is not a unit of time; known are s, m (minutes), h, d, w, mo (months) and y")]
    UnknownUnit(String),
    /// `1.5h` and the like.
    #[error("fractions are not read; write whole numbers, such as 1h30m")]
    Fraction,
    /// It begins with a minus.
    #[error("a length of time cannot be negative")]
    Negative,
    /// It cannot be counted in milliseconds.
    #[error("is longer than can be counted")]
    TooLong,
}

/// Reads a length of time in whole seconds. A number alone is seconds.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    if rest.starts_with('-') {
        return Err(DurationError::Negative);
    }
    if rest.bytes().all(|b| b.is_ascii_digit()) {
        return seconds(number(rest)?, 1, 0);
    }
    let mut total = 0;
    while !rest.is_empty() {
        let (digits, after) = split(rest, |c| c.is_ascii_digit());
        if digits.is_empty() {
            return Err(DurationError::NoNumber(short(rest)));
        }
        if after.starts_with(['.', ',']) {
            return Err(DurationError::Fraction);
        }
        let (word, after) = split(after.trim_start(), char::is_alphabetic);
        if word.is_empty() {
            return Err(DurationError::NoUnit(short(digits)));
        }
        let unit = unit(word).ok_or_else(|| DurationError::UnknownUnit(short(word)))?;
        total = seconds(number(digits)?, unit, total)?.as_secs();
        rest = after.trim_start();
    }
    Ok(Duration::from_secs(total))
}

/// Reads how long a ban lasts: a length of time, or `-1` or `permanent` for a ban without an end.
pub fn parse_ban_time(text: &str) -> Result<BanTime, DurationError> {
    let text = text.trim();
    if text == "-1" || text.eq_ignore_ascii_case("permanent") {
        return Ok(BanTime::Permanent);
    }
    parse(text).map(BanTime::For)
}

/// Shows a length of time so that [`parse`] reads it back: `1d12h`, `10m`, `0s`. What is below a second is not
/// shown; days are the largest unit, because they are the largest that everybody counts alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown(pub Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_secs();
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, word) in [(DAY, 'd'), (HOUR, 'h'), (MINUTE, 'm'), (1, 's')] {
            if left >= unit {
                write!(f, "{}{word}", left / unit)?;
                left %= unit;
            }
        }
        Ok(())
    }
}

/// Shows how long a ban lasts so that [`parse_ban_time`] reads it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownBanTime(pub BanTime);

impl fmt::Display for ShownBanTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            BanTime::For(d) => Shown(d).fmt(f),
            BanTime::Permanent => f.write_str("permanent"),
        }
    }
}

fn split(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !keep(c)).unwrap_or(text.len()))
}

fn unit(word: &str) -> Option<u64> {
    UNITS.iter().find(|(_, words)| words.iter().any(|w| w.eq_ignore_ascii_case(word))).map(|(secs, _)| *secs)
}

fn number(digits: &str) -> Result<u64, DurationError> {
    // Only digits come here, so it can only be too large.
    digits.parse().map_err(|_| DurationError::TooLong)
}

fn seconds(count: u64, unit: u64, more: u64) -> Result<Duration, DurationError> {
    let total = count.checked_mul(unit).and_then(|n| n.checked_add(more)).filter(|n| *n <= MAX_SECS);
    total.map(Duration::from_secs).ok_or(DurationError::TooLong)
}

fn short(text: &str) -> String {
    text.chars().take(20).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(text: &str) -> u64 {
        parse(text).unwrap().as_secs()
    }

    #[test]
    fn reads_what_fail2ban_reads() {
        // The totals are those its own test suite states for these texts.
        assert_eq!(secs("1y6mo30w15d12h35m25s"), 66_821_725);
        assert_eq!(secs("2yy 3mo 4ww 10dd 5hh 30mm 20ss"), 74_307_620);
        assert_eq!(secs("2 years 3 months 4 weeks 10 days 5 hours 30 minutes 20 seconds"), 74_307_620);
        assert_eq!(secs("3600"), 3600);
        assert_eq!(secs("10M"), 600);
        assert_eq!(secs(" 1h  30min "), 5400);
        assert_eq!(secs("0"), 0);
    }

    #[test]
    fn refuses_what_it_would_have_to_guess() {
        use DurationError as E;
        assert_eq!(parse(""), Err(E::Empty));
        assert_eq!(parse(" \t"), Err(E::Empty));
        assert_eq!(parse("m"), Err(E::NoNumber("m".into())));
        assert_eq!(parse("1h 30"), Err(E::NoUnit("30".into())));
        assert_eq!(parse("10 20"), Err(E::NoUnit("10".into())));
        assert_eq!(parse("10minuts"), Err(E::UnknownUnit("minuts".into())));
        assert_eq!(parse("1.5h"), Err(E::Fraction));
        assert_eq!(parse("-5m"), Err(E::Negative));
        assert_eq!(parse("1h+30m"), Err(E::NoNumber("+30m".into())));
        assert_eq!(parse("2*10m"), Err(E::NoUnit("2".into())));
        assert_eq!(parse("99999999999999999999"), Err(E::TooLong));
        assert_eq!(parse("9223372036854775s"), Ok(Duration::from_secs(MAX_SECS)));
        assert_eq!(parse("9223372036854776s"), Err(E::TooLong));
        assert_eq!(parse("9223372036854775s1s"), Err(E::TooLong));
        assert_eq!(parse("999999999999999999y"), Err(E::TooLong));
    }

    #[test]
    fn a_ban_may_have_no_end() {
        assert_eq!(parse_ban_time("-1"), Ok(BanTime::Permanent));
        assert_eq!(parse_ban_time("Permanent"), Ok(BanTime::Permanent));
        assert_eq!(parse_ban_time("1w"), Ok(BanTime::For(Duration::from_secs(WEEK))));
        assert_eq!(parse_ban_time("-2"), Err(DurationError::Negative));
        assert_eq!(ShownBanTime(BanTime::Permanent).to_string(), "permanent");
    }

    #[test]
    fn shows_the_largest_units_first() {
        let shown = |s| Shown(Duration::from_secs(s)).to_string();
        assert_eq!(shown(0), "0s");
        assert_eq!(shown(60), "1m");
        assert_eq!(shown(129_600), "1d12h");
        assert_eq!(shown(90 * DAY + 1), "90d1s");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(s in 0..=MAX_SECS) {
            let d = Duration::from_secs(s);
            prop_assert_eq!(parse(&Shown(d).to_string()), Ok(d));
            prop_assert_eq!(parse_ban_time(&ShownBanTime(BanTime::For(d)).to_string()), Ok(BanTime::For(d)));
        }

        #[test]
        fn parts_add_up(parts in prop::collection::vec((0u64..1000, 0usize..7, any::<prop::sample::Index>(), " {0,2}", " {0,2}"), 1..6)) {
            let mut text = String::new();
            let mut sum = 0;
            for (n, unit, word, before, after) in &parts {
                let (secs, words) = UNITS[*unit];
                text += &format!("{n}{before}{}{after}", words[word.index(words.len())]);
                sum += n * secs;
            }
            prop_assert_eq!(parse(&text), Ok(Duration::from_secs(sum)));
        }

        #[test]
        fn no_text_is_too_much(text in "[0-9a-z.,+* -]{0,12}|\\PC{0,12}") {
            let _ = parse_ban_time(&text);
        }
    }
}
