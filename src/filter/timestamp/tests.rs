use proptest::prelude::*;

use super::*;

const NOW: &str = "2025-01-03T12:00:00Z";

fn at(text: &str) -> Timestamp {
    Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

fn read_in(zone: &str, stamp: &str, now: &str) -> Option<String> {
    let mut reader = Reader::new(TimeZone::get(zone).unwrap());
    reader.read(stamp.as_bytes(), at(now)).map(|t| t.to_string())
}

fn read(stamp: &str) -> Option<String> {
    read_in("UTC", stamp, NOW)
}

#[test]
fn stamps_of_all_formats_are_read() {
    for (stamp, expected) in [
        ("31/Dec/2024:13:26:07 +0100", "2024-12-31T12:26:07Z"),
        ("31/Dec/2024:13:26:07 -0330", "2024-12-31T16:56:07Z"),
        ("2025/01/02 22:46:54", "2025-01-02T22:46:54Z"),
        ("2025-01-02T22:46:54.123456789+01:00", "2025-01-02T21:46:54.123Z"),
        ("2025-01-02T22:46:54Z", "2025-01-02T22:46:54Z"),
        ("2025-01-02 22:46:54,5", "2025-01-02T22:46:54.5Z"),
        ("2025-01-02 22:46:54 +0000 UTC", ""),
        ("20250102T224654Z", "2025-01-02T22:46:54Z"),
        ("Jan  2 22:46:54", "2025-01-02T22:46:54Z"),
        ("Jan 02 22:46:54", "2025-01-02T22:46:54Z"),
        ("Dec 31 22:46:54", "2024-12-31T22:46:54Z"),
        ("Thu Jan  2 22:46:54 2025", "2025-01-02T22:46:54Z"),
        ("Thu Jan 02 22:46:54.678 2025", "2025-01-02T22:46:54.678Z"),
        ("Thu, 02 Jan 2025 22:46:54 +0100", "2025-01-02T21:46:54Z"),
        ("Jan 2, 2025 22:46:54", "2025-01-02T22:46:54Z"),
        ("02-Jan-2025 22:46:54", "2025-01-02T22:46:54Z"),
        ("02/01/2025 22:46:54", "2025-01-02T22:46:54Z"),
        ("02.01.2025 22:46:54", "2025-01-02T22:46:54Z"),
        ("1735858014", "2025-01-02T22:46:54Z"),
        ("1735858014.25", "2025-01-02T22:46:54.25Z"),
        ("1735858014250", "2025-01-02T22:46:54.25Z"),
        ("1735858014250999", "2025-01-02T22:46:54.25Z"),
        ("2024-12-31T23:59:60Z", "2024-12-31T23:59:59Z"),
    ] {
        assert_eq!(read(stamp).unwrap_or_default(), expected, "{stamp}");
    }
}

#[test]
fn what_is_no_time_is_refused() {
    for stamp in [
        "",
        "-",
        "31/Dez/2024:13:26:07 +0100",
        "30/Feb/2024:13:26:07 +0100",
        "2025-13-02T22:46:54Z",
        "2025-01-02T24:46:54Z",
        "29/Feb/2025:00:00:00 +0000",
        "2025-01-02",
        "22:46:54",
        "123",
        "173585801",
        "Jan 32 00:00:00",
        "2025-01-02T22:46:54Zx",
        "99999999999999999999",
        "2025-01-02T22:46:541",
    ] {
        assert_eq!(read(stamp), None, "{stamp}");
    }
}

#[test]
fn a_zone_is_filled_in() {
    assert_eq!(read_in("Europe/Berlin", "2025/01/02 22:46:54", NOW).unwrap(), "2025-01-02T21:46:54Z");
    assert_eq!(read_in("Europe/Berlin", "2025/07/02 22:46:54", NOW).unwrap(), "2025-07-02T20:46:54Z");
    // 02:30 does not exist on this day, and occurs twice on the other.
    assert_eq!(read_in("Europe/Berlin", "2025/03/30 02:30:00", NOW).unwrap(), "2025-03-30T01:30:00Z");
    assert_eq!(read_in("Europe/Berlin", "2025/10/26 02:30:00", NOW).unwrap(), "2025-10-26T00:30:00Z");
}

#[test]
fn a_missing_year_is_the_latest_that_is_not_ahead() {
    assert_eq!(read_in("UTC", "Dec 31 23:59:59", "2025-01-01T00:00:01Z").unwrap(), "2024-12-31T23:59:59Z");
    assert_eq!(read_in("UTC", "Jan  1 00:00:01", "2024-12-31T23:59:59Z").unwrap(), "2025-01-01T00:00:01Z");
    assert_eq!(read_in("UTC", "Jan  5 00:00:00", NOW).unwrap(), "2024-01-05T00:00:00Z");
    assert_eq!(read_in("UTC", "Feb 29 10:00:00", NOW).unwrap(), "2024-02-29T10:00:00Z");
}

#[test]
fn a_stamp_is_found_where_programs_put_it() {
    for (line, expected) in [
        ("2025-01-02 22:46:54 x", Some("2025-01-02 22:46:54")),
        ("[02/Jan/2025:22:46:54 +0000] x", Some("02/Jan/2025:22:46:54 +0000")),
        ("1.2.3.4 - - [02/Jan/2025:22:46:54 +0000] \"GET", Some("02/Jan/2025:22:46:54 +0000")),
        ("<38>1 2025-01-02T22:46:54.1Z web1 sshd", Some("2025-01-02T22:46:54.1Z")),
        ("<38>Jan  2 22:46:54 web1 sshd", Some("Jan  2 22:46:54")),
        ("ERROR 2025-01-02 22:46:54,123 x", Some("2025-01-02 22:46:54,123")),
        ("Jan  2 22:46:54 2025 x", Some("Jan  2 22:46:54 2025")),
        ("1735858014.25 x", Some("1735858014.25")),
        ("user said 2025-01-02 22:46:54 x", None),
        ("", None),
    ] {
        let found = detect(line.as_bytes()).map(|r| &line[r]);
        assert_eq!(found, expected, "{line}");
    }
}

proptest! {
    #[test]
    fn the_calendar_agrees_with_jiff(ms in 0i64..253_402_300_799_000, offset in -14i32..=14) {
        let t = jiff::Timestamp::from_millisecond(ms).unwrap();
        let zoned = t.to_zoned(TimeZone::fixed(jiff::tz::offset(offset as i8)));
        let stamp = zoned.strftime("%Y-%m-%dT%H:%M:%S.%3f%:z").to_string();
        let got = Reader::new(TimeZone::UTC).read(stamp.as_bytes(), Timestamp::default());
        prop_assert_eq!(got.map(Timestamp::as_millis), Some(ms), "{}", stamp);
        let clf = zoned.strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
        let got = Reader::new(TimeZone::UTC).read(clf.as_bytes(), Timestamp::default());
        prop_assert_eq!(got.map(Timestamp::as_millis), Some(ms.div_euclid(1000) * 1000), "{}", clf);
    }

    #[test]
    fn days_and_dates_are_inverse(days in -800_000i64..4_000_000) {
        let (y, m, d) = civil_of(days);
        prop_assert_eq!(days_of(y, m, d), days);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(prop::sample::select(b"0123456789/:-. +JanThuZ[<>,".to_vec()), 0..48), now in any::<i64>()) {
        let now = Timestamp::from_millis(now);
        let _ = Reader::new(TimeZone::UTC).read(&bytes, now);
        if let Some(range) = detect(&bytes) {
            prop_assert!(range.start < range.end && range.end <= bytes.len());
        }
    }
}
