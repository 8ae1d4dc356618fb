//! The time a line was logged.

mod shape;

use std::ops::Range;

use jiff::tz::TimeZone;

use self::shape::{Civil, Moment};
use crate::types::Timestamp;

/// Reads stamps of all shapes, filling in what they leave out: the zone, and syslog's year.
///
/// The offset of the zone is remembered for a quarter of an hour of log time, so that a busy log does not search the
/// zone's rules for every offense.
#[derive(Clone, Debug)]
pub struct Reader {
    zone: TimeZone,
    /// A quarter of an hour of local time, counted from the epoch, and the zone's offset then.
    remembered: Option<(i64, i64)>,
}

/// A stamp may be this far in the future before a year is held to be the wrong one.
const AHEAD_MS: i64 = 86_400_000;

impl Reader {
    /// Stamps without a zone are meant in `zone`.
    #[must_use]
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, remembered: None }
    }

    /// The point in time that `stamp`, all of it, says.
    ///
    /// A stamp without a year is in the latest year that does not put it more than a day after `now`.
    #[must_use]
    pub fn read(&mut self, stamp: &[u8], now: Timestamp) -> Option<Timestamp> {
        let (moment, length) = shape::parse(stamp)?;
        if length != stamp.len() {
            return None;
        }
        match moment {
            Moment::Epoch(ms) => Some(Timestamp::from_millis(ms)),
            Moment::Civil(civil) => match civil.year {
                Some(year) => self.millis(&civil, year),
                None => {
                    let (this_year, _, _) = civil_of(now.as_millis().div_euclid(86_400_000));
                    let latest = now.as_millis().saturating_add(AHEAD_MS);
                    // Four years back reach a leap day.
                    (0..=5)
                        .filter_map(|back| i16::try_from(this_year + 1 - back).ok())
                        .filter_map(|year| self.millis(&civil, year))
                        .find(|&ms| ms <= latest)
                }
            }
            .map(Timestamp::from_millis),
        }
    }

    /// Milliseconds since the epoch; `None` when there is no such day.
    fn millis(&mut self, civil: &Civil, year: i16) -> Option<i64> {
        let days = days_of(i64::from(year), i64::from(civil.month), i64::from(civil.day));
        if civil.day > 28 && civil_of(days) != (i64::from(year), civil.month.into(), civil.day.into()) {
            return None;
        }
        let local = days * 86_400 + i64::from(civil.second);
        let offset = match civil.offset {
            Some(o) => i64::from(o),
            None => self.offset_at(local)?,
        };
        Some((local - offset) * 1000 + i64::from(civil.millis))
    }

    /// The zone's offset at the local time `local`. Of a time that occurs twice the earlier is taken.
    fn offset_at(&mut self, local: i64) -> Option<i64> {
        let quarter = local.div_euclid(900);
        if let Some((known, offset)) = self.remembered
            && known == quarter
        {
            return Some(offset);
        }
        let datetime = TimeZone::UTC.to_datetime(jiff::Timestamp::from_second(local).ok()?);
        let zoned = self.zone.to_ambiguous_timestamp(datetime).compatible().ok()?;
        let offset = local - zoned.as_second();
        self.remembered = Some((quarter, offset));
        Some(offset)
    }
}

/// Where in a line of an unknown format its time stamp is, if it has one.
///
/// Looked for, in this order: at the beginning of the line (behind a syslog priority `<38>`, its version `1`, or an opening
/// bracket), behind the first opening bracket within the first 256 bytes, and behind the first blank. The first place that holds a
/// stamp of a known shape decides. Brackets around the stamp do not belong to it, a zone and a fraction do.
///
/// No other place is searched: a date further right may be text an attacker wrote.
#[must_use]
pub fn detect(line: &[u8]) -> Option<Range<usize>> {
    let head = &line[..line.len().min(256)];
    let mut start = 0;
    if let [b'<', rest @ ..] = head {
        let digits = rest.iter().take(4).take_while(|b| b.is_ascii_digit()).count();
        if digits > 0 && rest.get(digits) == Some(&b'>') {
            start = digits + 2;
            if head[start..].starts_with(b"1 ") {
                start += 2;
            }
        }
    }
    if matches!(head.get(start), Some(b'[' | b'(')) {
        start += 1;
    }
    let bracket = memchr::memchr(b'[', head).map(|at| at + 1);
    let blank = memchr::memchr(b' ', head).map(|at| at + 1);
    [Some(start), bracket, blank]
        .into_iter()
        .flatten()
        .find_map(|at| shape::parse(&line[at..]).map(|(_, length)| at..at + length))
}

/// The zone that a configuration names: `UTC`, an offset such as `+01:00` or `-0330`, or an IANA name known to the host.
#[must_use]
pub fn zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let sign = match name.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return TimeZone::get(name).ok(),
    };
    let digits: String = name[1..].chars().filter(|&c| c != ':').collect();
    if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = (digits[..2].parse::<i32>().ok()?, digits[2..].parse::<i32>().ok()?);
    let offset = jiff::tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()?;
    (hours < 24 && minutes < 60).then(|| TimeZone::fixed(offset))
}

/// Days since the epoch of a day of the proleptic Gregorian calendar.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    // The year is taken to begin in March, so that the leap day is its last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a number of days since the epoch.
fn civil_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days - era * 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + carry, month, day)
}

#[cfg(test)]
mod tests;
