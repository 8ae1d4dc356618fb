//! The shapes of time stamps. Nothing here knows a zone or the current time.

use std::ops::RangeInclusive;

/// What a stamp says, before a zone or a missing year is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Milliseconds since the epoch.
    Epoch(i64),
    /// A date and a time of day.
    Civil(Civil),
}

/// A date and a time of day, each part within its range; that the month has so many days is checked later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Civil {
    /// Absent in syslog's stamps.
    pub(super) year: Option<i16>,
    pub(super) month: u8,
    pub(super) day: u8,
    /// Second of the day; a leap second is the second before it.
    pub(super) second: u32,
    pub(super) millis: u32,
    /// Seconds east of UTC, if the stamp says.
    pub(super) offset: Option<i32>,
}

/// The stamp that `text` begins with, and its length.
pub(super) fn parse(text: &[u8]) -> Option<(Moment, usize)> {
    let mut c = Cursor { text, at: 0 };
    let moment = match text.first()? {
        b'0'..=b'9' => match c.digit_run() {
            1 | 2 => Moment::Civil(day_first(&mut c)?),
            4 => Moment::Civil(year_first(&mut c)?),
            8 => Moment::Civil(compact(&mut c)?),
            10 | 13 | 16 | 19 => Moment::Epoch(epoch(&mut c)?),
            _ => return None,
        },
        b'A'..=b'Z' => Moment::Civil(month_first(&mut c)?),
        _ => return None,
    };
    // `2025-01-02 10:00:001` is not a stamp with something behind it.
    if text.get(c.at).is_some_and(u8::is_ascii_digit) { None } else { Some((moment, c.at)) }
}

/// `2025-01-02T15:04:05.678+01:00`, `2025-01-02 15:04:05,678`, `2025/01/02 15:04:05`
fn year_first(c: &mut Cursor<'_>) -> Option<Civil> {
    let year = i16::try_from(c.fixed(4, 1970..=9999)?).ok()?;
    let separator = c.any(b"-/")?;
    let month = c.fixed(2, 1..=12)?;
    c.any(&[separator])?;
    let day = c.fixed(2, 1..=31)?;
    c.any(b"T t_")?;
    let (second, millis) = c.time()?;
    let offset = c.offset();
    Some(Civil { year: Some(year), month: month as u8, day: day as u8, second, millis, offset })
}

/// `20250102T150405Z`, `20250102 150405`
fn compact(c: &mut Cursor<'_>) -> Option<Civil> {
    let year = i16::try_from(c.fixed(4, 1970..=9999)?).ok()?;
    let month = c.fixed(2, 1..=12)?;
    let day = c.fixed(2, 1..=31)?;
    c.any(b"T ")?;
    let second = c.fixed(2, 0..=23)? * 3600 + c.fixed(2, 0..=59)? * 60 + c.fixed(2, 0..=60)?.min(59);
    let millis = c.fraction();
    let offset = c.offset();
    Some(Civil { year: Some(year), month: month as u8, day: day as u8, second, millis, offset })
}

/// `02/Jan/2025:15:04:05 +0100`, `2-Jan-2025 15:04:05`, `02 Jan 2025 15:04:05`, `02/01/2025 15:04:05`, `02.01.2025 15:04:05`
///
/// A numeric day comes first: the month-first order of the USA cannot be told from it.
fn day_first(c: &mut Cursor<'_>) -> Option<Civil> {
    let day = c.number(2, 1..=31)?;
    let separator = c.any(b"/-. ")?;
    let month =
        if c.peek()?.is_ascii_digit() && separator != b' ' { c.number(2, 1..=12)? } else { c.month()? };
    c.any(&[separator])?;
    let year = i16::try_from(c.fixed(4, 1970..=9999)?).ok()?;
    c.any(b": T")?;
    let (second, millis) = c.time()?;
    let offset = c.offset();
    Some(Civil { year: Some(year), month: month as u8, day: day as u8, second, millis, offset })
}

/// `Jan  2 15:04:05`, `Thu Jan 02 15:04:05.678 2025`, `Thu Jan 2 2025 15:04:05`, `Thu, 02 Jan 2025 15:04:05 +0000`
fn month_first(c: &mut Cursor<'_>) -> Option<Civil> {
    if c.weekday() {
        c.any(b",");
        c.any(b" ")?;
        if c.peek()?.is_ascii_digit() {
            return day_first(c);
        }
    }
    let month = c.month()? as u8;
    c.any(b" ")?;
    c.any(b" ");
    let day = c.number(2, 1..=31)? as u8;
    c.any(b",");
    c.any(b" ")?;
    let early = c.digit_run() == 4;
    let mut year = None;
    if early {
        year = Some(i16::try_from(c.fixed(4, 1970..=9999)?).ok()?);
        c.any(b" ")?;
    }
    let (second, millis) = c.time()?;
    let mut offset = None;
    if !early {
        let before = c.at;
        if c.any(b" ").is_some() && c.digit_run() == 4 {
            year = c.fixed(4, 1970..=9999).and_then(|y| i16::try_from(y).ok());
        }
        if year.is_none() {
            c.at = before;
        }
    }
    if year.is_some() {
        offset = c.offset();
    }
    Some(Civil { year, month, day, second, millis, offset })
}

/// Seconds (10 digits, perhaps with a fraction), milliseconds (13), microseconds (16) or nanoseconds (19).
fn epoch(c: &mut Cursor<'_>) -> Option<i64> {
    let digits = c.digit_run();
    let mut value = 0i64;
    for _ in 0..digits {
        value = value.checked_mul(10)?.checked_add(i64::from(c.text[c.at] - b'0'))?;
        c.at += 1;
    }
    Some(match digits {
        10 => value * 1000 + i64::from(c.fraction()),
        13 => value,
        16 => value / 1000,
        _ => value / 1_000_000,
    })
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn digit_run(&self) -> usize {
        self.text[self.at..].iter().take(20).take_while(|b| b.is_ascii_digit()).count()
    }

    /// One byte out of `set`, which is returned.
    fn any(&mut self, set: &[u8]) -> Option<u8> {
        let b = self.peek().filter(|b| set.contains(b))?;
        self.at += 1;
        Some(b)
    }

    fn fixed(&mut self, digits: usize, range: RangeInclusive<u32>) -> Option<u32> {
        let mut value = 0u32;
        for &b in self.text.get(self.at..self.at + digits)? {
            if !b.is_ascii_digit() {
                return None;
            }
            value = value * 10 + u32::from(b - b'0');
        }
        self.at += digits;
        range.contains(&value).then_some(value)
    }

    fn number(&mut self, most: usize, range: RangeInclusive<u32>) -> Option<u32> {
        let digits = self.digit_run();
        if digits == 0 || digits > most { None } else { self.fixed(digits, range) }
    }

    fn month(&mut self) -> Option<u32> {
        let n = match self.text.get(self.at..self.at + 3)? {
            b"Jan" => 1,
            b"Feb" => 2,
            b"Mar" => 3,
            b"Apr" => 4,
            b"May" => 5,
            b"Jun" => 6,
            b"Jul" => 7,
            b"Aug" => 8,
            b"Sep" => 9,
            b"Oct" => 10,
            b"Nov" => 11,
            b"Dec" => 12,
            _ => return None,
        };
        self.at += 3;
        Some(n)
    }

    fn weekday(&mut self) -> bool {
        let is = matches!(
            self.text.get(self.at..self.at + 3),
            Some(b"Mon" | b"Tue" | b"Wed" | b"Thu" | b"Fri" | b"Sat" | b"Sun")
        );
        if is {
            self.at += 3;
        }
        is
    }

    /// `15:04:05` and perhaps a fraction: the second of the day, and milliseconds.
    fn time(&mut self) -> Option<(u32, u32)> {
        let hour = self.fixed(2, 0..=23)?;
        self.any(b":")?;
        let minute = self.fixed(2, 0..=59)?;
        self.any(b":")?;
        let second = self.fixed(2, 0..=60)?.min(59);
        Some((hour * 3600 + minute * 60 + second, self.fraction()))
    }

    fn fraction(&mut self) -> u32 {
        let start = self.at;
        if self.any(b".,").is_none() || self.digit_run() == 0 {
            self.at = start;
            return 0;
        }
        let mut millis = 0;
        let mut weight = 100;
        while let Some(b @ b'0'..=b'9') = self.peek() {
            millis += u32::from(b - b'0') * weight;
            weight /= 10;
            self.at += 1;
        }
        millis
    }

    /// `Z`, ` UTC`, `+01:00`, ` +0100`: seconds east of UTC. What is none of these is left alone.
    fn offset(&mut self) -> Option<i32> {
        let start = self.at;
        let found = self.offset_strict();
        if found.is_none() {
            self.at = start;
        }
        found
    }

    fn offset_strict(&mut self) -> Option<i32> {
        self.any(b" ");
        let rest = &self.text[self.at..];
        for word in [&b"UTC"[..], b"GMT", b"Z"] {
            if rest.starts_with(word) && !rest.get(word.len()).is_some_and(u8::is_ascii_alphanumeric) {
                self.at += word.len();
                return Some(0);
            }
        }
        let sign = if self.any(b"+-")? == b'-' { -1 } else { 1 };
        let hours = self.fixed(2, 0..=23)?;
        self.any(b":");
        let minutes = self.fixed(2, 0..=59)?;
        if self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return None;
        }
        Some(sign * (hours as i32 * 3600 + minutes as i32 * 60))
    }
}
