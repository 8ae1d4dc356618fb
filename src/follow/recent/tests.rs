use std::io::Write;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Lines are `<seconds> text`; any other line has no time.
fn stamp(line: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(line).ok()?;
    Some(Timestamp::from_secs(text.split(' ').next()?.parse().ok()?))
}

/// Begins the text and says how many times a line's time was asked for.
fn run(text: &[u8], from: From, now: i64) -> (Begin, u32) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text).unwrap();
    let mut asked = 0;
    let mut stamp = |line: &[u8]| {
        asked += 1;
        stamp(line)
    };
    (begin(&file, text.len() as u64, from, Timestamp::from_secs(now), &mut stamp).unwrap(), asked)
}

fn recent(text: &[u8], window: u64, now: i64) -> (Begin, u32) {
    run(text, From::Recent(Duration::from_secs(window)), now)
}

#[test]
fn the_end_is_after_the_last_complete_line() {
    assert_eq!(run(b"", From::End, 0).0.offset, 0);
    assert_eq!(run(b"abc\nde", From::End, 0).0.offset, 4);
    assert_eq!(run(b"de", From::End, 0).0.offset, 0);
    let long = vec![b'x'; PROBE + 7];
    assert_eq!(
        run(&long, From::End, 0).0,
        Begin { offset: long.len() as u64, inside_line: true, blind: false }
    );
}

#[test]
fn a_big_file_is_searched_without_reading_it() {
    let mut text = Vec::new();
    for second in 0..200_000 {
        writeln!(text, "{second} {:>60}", "x").unwrap();
    }
    let (begin, asked) = recent(&text, 1000, 200_000);
    assert!(text[..begin.offset as usize].ends_with(b"\n"));
    assert!(text[begin.offset as usize..].starts_with(b"199000 "));
    // 14 MB: 8 steps with one line each, then at most one probe of lines.
    assert!(asked < 8 + 1000, "{asked}");
}

#[test]
fn a_file_without_times_is_read_from_near_its_end() {
    let text = b"no time here\n".repeat(200_000);
    let (begin, _) = recent(&text, 10, 1000);
    assert!(begin.blind);
    assert!(text[..begin.offset as usize].ends_with(b"\n"));
    let rest = text.len() as u64 - begin.offset;
    assert!((BLIND - 13..=BLIND).contains(&rest), "{rest}");
    assert_eq!(recent(b"no time\n", 10, 1000).0, Begin { offset: 0, inside_line: false, blind: true });
    assert_eq!(recent(b"", 10, 1000).0, Begin::default());
    assert_eq!(recent(b"5 not complete", 10, 1000).0, Begin::default());
}

#[test]
fn one_huge_line_is_not_a_line_of_the_past() {
    let text = vec![b'x'; 3 * BLIND as usize];
    let (begin, asked) = recent(&text, 10, 1000);
    assert!(begin.inside_line && begin.blind);
    assert_eq!(asked, 0);
}

#[test]
fn nothing_recent_begins_at_the_end() {
    let text = b"1 a\n2 b\n".repeat(50_000);
    assert_eq!(recent(&text, 10, 1000).0.offset, text.len() as u64);
    assert_eq!(recent(b"1 a\n2 b\n3 c", 10, 1000).0.offset, 8);
}

proptest! {
    /// Times that ascend, lines without a time between them: no recent line is passed over, and what is read besides
    /// is bounded. Not promised: that nothing old is read (a stretch without times may hide the place).
    #[test]
    fn no_recent_line_is_passed_over(
        runs in prop::collection::vec((0..40_i64, 0..400_usize, 0..3000_usize), 0..60),
        window in 0..600_u64,
    ) {
        let (mut text, mut second, mut starts) = (Vec::new(), 0, Vec::new());
        for (step, untimed, length) in runs {
            second += step;
            starts.push((second, text.len() as u64));
            writeln!(text, "{second} {}", "x".repeat(length)).unwrap();
            for _ in 0..untimed {
                text.extend_from_slice(b"  at some.stack.frame(of.a.program)\n");
            }
        }
        let cutoff = second - i64::try_from(window).unwrap();
        let (begin, _) = recent(&text, window, second);
        let offset = begin.offset as usize;
        prop_assert!(!begin.inside_line);
        prop_assert!(offset == 0 || text[offset - 1] == b'\n');
        if let Some((_, first)) = starts.iter().find(|(at, _)| *at >= cutoff) {
            prop_assert!(begin.offset <= *first, "begun at {} after {first}", begin.offset);
        }
    }

    /// With a time in every line the place is exact.
    #[test]
    fn the_first_recent_line_is_found(steps in prop::collection::vec((0..3_i64, 0..900_usize), 1..800), window in 0..500_u64) {
        let (mut text, mut second, mut starts) = (Vec::new(), 0, Vec::new());
        for (step, length) in steps {
            second += step;
            starts.push((second, text.len() as u64));
            writeln!(text, "{second} {}", "x".repeat(length)).unwrap();
        }
        let cutoff = second - i64::try_from(window).unwrap();
        let first = starts.iter().find(|(at, _)| *at >= cutoff).map_or(text.len() as u64, |(_, start)| *start);
        prop_assert_eq!(recent(&text, window, second).0.offset, first);
    }
}
