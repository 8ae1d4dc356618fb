//! Amounts of memory: `256M`, `1G`, or plain bytes.

use super::cursor::Cursor;
use super::report::{Report, shown};

/// The least memory with which the agent is of use, and the most it may be told to take.
const LEAST: u64 = 64 << 20;
const MOST: u64 = 1 << 40;

/// A number of bytes between [`LEAST`] and [`MOST`].
pub(super) fn read(cursor: &Cursor<'_>, report: &mut Report) -> Option<u64> {
    let text = cursor.text(report)?;
    let bytes = parse(text).filter(|bytes| (LEAST..=MOST).contains(bytes));
    if bytes.is_none() {
        let text =
            format!("expected an amount of memory from 64M to 1T, such as 256M, found `{}`", shown(text));
        cursor.mistake(report, text);
    }
    bytes
}

/// Binary multiples, as systemd's `MemoryMax=` has them (systemd.resource-control(5)).
fn parse(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)? {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return None,
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(parse("256M"), Some(256 << 20));
        assert_eq!(parse("1g"), Some(1 << 30));
        assert_eq!(parse("67108864"), Some(64 << 20));
        for wrong in ["", "M", "1.5G", "-1M", "1 G", "1MB", "99999999999999999999", "18446744073709551615T"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
