//! Docker's json-file: one record on each line of the file.
//!
//! ```text
//! {"log":"GET / 200\n","stream":"stdout","time":"2026-11-21T07:00:00.123456789Z"}
//! ```
//! dockerd cuts a line of more than 16 KiB into several records, of which only the last ends with a newline; records of the
//! two streams may stand between them. A piece that was taken for a line would be a line that a client wrote: one whose beginning
//! is not known is no line.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::filter::timestamp::Reader;
use crate::source::unbroken;
use crate::types::Timestamp;

/// A line that began so many bytes ago will not be ended: its container has died.
const PATIENCE: u64 = 1 << 20;

/// How far back it is looked for what came before: several records of 16 KiB, every byte escaped.
const BACK: u64 = 256 * 1024;

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
}

/// Puts the lines of one file together.
#[derive(Debug)]
pub(crate) struct Decoder {
    longest: usize,
    streams: [Stream; 2],
    line: Vec<u8>,
    /// Where in the file the record begins that is being taken, and where the next one is expected.
    at: Option<u64>,
    next: Option<u64>,
    /// Records that were none.
    pub(crate) malformed: u64,
    /// Lines that were too long, or whose beginning is not known.
    pub(crate) left_out: u64,
}

#[derive(Debug, Default)]
struct Stream {
    /// The pieces so far of a line.
    text: Vec<u8>,
    /// A line has begun, in the record there in the file.
    open: Option<u64>,
    /// It is not to be handed over: it is too long, or its beginning is not known.
    unfit: bool,
}

/// A line of the container's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) text: &'a [u8],
    /// When dockerd got it.
    pub(crate) at: Option<Timestamp>,
}

impl Decoder {
    /// Lines of more bytes are left out.
    pub(crate) fn new(longest: usize) -> Self {
        Self {
            longest,
            streams: Default::default(),
            line: Vec::new(),
            at: None,
            next: None,
            malformed: 0,
            left_out: 0,
        }
    }

    /// Records that begin at `offset` of the file at `path` follow. If they do not follow on what was there before, it is looked up
    /// whether the records before them ended their lines.
    pub(crate) fn seek(&mut self, path: &Path, offset: u64) {
        if self.next == Some(offset) {
            return;
        }
        self.next = Some(offset);
        self.streams = Default::default();
        if offset > 0 && self.look_back(path, offset).is_err() {
            self.doubt();
        }
    }

    /// The record that ends at `end` begins at `begin`: what lies between it and the one before was left out.
    pub(crate) fn advance(&mut self, begin: u64, end: u64) {
        if self.next != Some(begin) {
            self.doubt();
        }
        (self.at, self.next) = (Some(begin), Some(end));
    }

    /// Where in the file to begin again, should this process end now: at the first record of a line that is not ended.
    pub(crate) fn resume(&self) -> Option<u64> {
        let begun = self.streams.iter().filter_map(|stream| stream.open).min()?;
        (self.next? - begun < PATIENCE).then_some(begun)
    }

    /// Takes a record; a line if it ends one.
    pub(crate) fn record(&mut self, record: &[u8]) -> Option<Line<'_>> {
        // dockerd writes UTF-8; whatever else there may be is replaced.
        let text = String::from_utf8_lossy(record);
        let Ok(record) = serde_json::from_str::<Record<'_>>(&text) else {
            self.malformed += 1;
            self.doubt();
            return None;
        };
        let stream = &mut self.streams[usize::from(record.stream == "stderr")];
        let piece = record.log.as_bytes();
        let ends = piece.ends_with(b"\n");
        stream.open = stream.open.or(self.at);
        if stream.text.len() + piece.len() > self.longest + 2 {
            stream.unfit = true;
            stream.text = Vec::new();
        }
        if !stream.unfit {
            stream.text.extend_from_slice(piece);
        }
        if !ends {
            return None;
        }
        stream.open = None;
        if std::mem::take(&mut stream.unfit) {
            self.left_out += 1;
            return None;
        }
        self.line.clear();
        std::mem::swap(&mut self.line, &mut stream.text);
        self.line.pop();
        if self.line.ends_with(b"\r") {
            self.line.pop();
        }
        if let Cow::Owned(unbroken) = unbroken(&self.line) {
            self.line = unbroken;
        }
        Some(Line { text: &self.line, at: read(&record.time) })
    }

    /// The next record of each stream may be the end of a line.
    fn doubt(&mut self) {
        for stream in &mut self.streams {
            *stream = Stream { text: Vec::new(), open: None, unfit: true };
        }
    }

    fn look_back(&mut self, path: &Path, offset: u64) -> io::Result<()> {
        let from = offset.saturating_sub(BACK);
        let mut bytes = vec![0; usize::try_from(offset - from).unwrap_or(0)];
        File::open(path)?.read_exact_at(&mut bytes, from)?;
        let mut last = [None, None];
        let records = bytes.split(|b| *b == b'\n').skip(usize::from(from > 0));
        for record in records.filter(|record| !record.is_empty()) {
            let text = String::from_utf8_lossy(record);
            match serde_json::from_str::<Record<'_>>(&text) {
                Ok(record) => last[usize::from(record.stream == "stderr")] = Some(record.log.ends_with('\n')),
                Err(_) => last = [Some(false); 2],
            }
        }
        // Nothing at all in sight: this is not the file that it was.
        if last == [None, None] {
            return Err(io::ErrorKind::NotFound.into());
        }
        for (stream, ended) in self.streams.iter_mut().zip(last) {
            // A stream that has been silent for so long is not in the middle of a line: its pieces come at once.
            *stream = Stream { text: Vec::new(), open: None, unfit: ended == Some(false) };
        }
        Ok(())
    }
}

/// The time of a record.
pub(crate) fn time(record: &[u8]) -> Option<Timestamp> {
    read(&serde_json::from_slice::<Record<'_>>(record).ok()?.time)
}

fn read(time: &str) -> Option<Timestamp> {
    Reader::new(TimeZone::UTC).read(time.as_bytes(), Timestamp::default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(log: &str, stream: &str) -> String {
        let log = serde_json::to_string(log).unwrap();
        format!(r#"{{"log":{log},"stream":"{stream}","time":"2026-11-21T07:00:00.123456789Z"}}"#)
    }

    fn take(decoder: &mut Decoder, log: &str, stream: &str) -> Option<String> {
        let record = record(log, stream);
        decoder.record(record.as_bytes()).map(|line| String::from_utf8(line.text.to_vec()).unwrap())
    }

    #[test]
    fn records_become_lines() {
        let mut decoder = Decoder::new(100);
        let text = record("caf\u{e9} \"x\"\r\n", "stdout");
        let line = decoder.record(text.as_bytes()).unwrap();
        assert_eq!(line.text, "caf\u{e9} \"x\"".as_bytes());
        assert_eq!(line.at, Some(Timestamp::from_millis(1_795_244_400_123)));
        assert_eq!(time(text.as_bytes()), line.at);
        let escaped =
            br#"{"log":"\u003ca\u003e \u00e9\ud83d\ude00\n","stream":"stdout","attrs":{"k":"v"},"time":"x"}"#;
        let line = decoder.record(escaped).unwrap();
        assert_eq!((line.text, line.at), ("<a> \u{e9}\u{1f600}".as_bytes(), None));
        assert_eq!(decoder.record(b"{\"log\":\"a\xff\\n\"}").unwrap().text, "a\u{fffd}".as_bytes());
    }

    #[test]
    fn pieces_are_joined_stream_by_stream() {
        let mut decoder = Decoder::new(100);
        assert_eq!(take(&mut decoder, "one ", "stdout"), None);
        assert_eq!(take(&mut decoder, "error\n", "stderr").unwrap(), "error");
        assert_eq!(take(&mut decoder, "two ", "stdout"), None);
        assert_eq!(take(&mut decoder, "three\n", "stdout").unwrap(), "one two three");
        assert_eq!(take(&mut decoder, "a\nb\0c\n", "stdout").unwrap(), "a#012b#000c", "never two lines");
    }

    #[test]
    fn no_piece_of_a_long_line_is_a_line() {
        let mut decoder = Decoder::new(10);
        assert_eq!(take(&mut decoder, &"x".repeat(9), "stdout"), None);
        assert_eq!(take(&mut decoder, &"x".repeat(9), "stdout"), None);
        assert_eq!(take(&mut decoder, "forged", "stdout"), None);
        assert_eq!(take(&mut decoder, "forged\n", "stdout"), None);
        assert_eq!(take(&mut decoder, "fine\n", "stdout").unwrap(), "fine");
        assert_eq!(decoder.left_out, 1);
        assert_eq!(take(&mut decoder, "0123456789\n", "stdout").unwrap(), "0123456789");
    }

    #[test]
    fn what_follows_a_gap_may_be_the_end_of_a_line() {
        let mut decoder = Decoder::new(100);
        decoder.seek(Path::new("/nonexistent"), 0);
        decoder.advance(0, 10);
        assert_eq!(take(&mut decoder, "one\n", "stdout").unwrap(), "one");
        // A record too long to be read stood at 10.
        decoder.advance(90_000, 90_010);
        assert_eq!(take(&mut decoder, "forged\n", "stdout"), None);
        decoder.advance(90_010, 90_020);
        assert_eq!(take(&mut decoder, "fine\n", "stdout").unwrap(), "fine");
        assert_eq!(decoder.record(b"{\"log\":"), None);
        assert_eq!(take(&mut decoder, "forged\n", "stdout"), None);
        assert_eq!(decoder.malformed, 1);
    }

    #[test]
    fn what_came_before_is_looked_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        let records = [record("a\n", "stderr"), record("long ", "stdout"), record("b\n", "stderr")];
        let mut offsets = vec![0_u64];
        let mut file = String::new();
        for record in records {
            file += &(record + "\n");
            offsets.push(file.len() as u64);
        }
        std::fs::write(&path, &file).unwrap();
        for (offset, whole) in
            [(offsets[0], true), (offsets[1], true), (offsets[2], false), (offsets[3], false)]
        {
            let mut decoder = Decoder::new(100);
            decoder.seek(&path, offset);
            assert_eq!(take(&mut decoder, "x\n", "stdout").is_some(), whole, "at {offset}");
            assert_eq!(take(&mut decoder, "y\n", "stdout").unwrap(), "y");
            decoder.seek(&path, offset);
            assert_eq!(take(&mut decoder, "z\n", "stderr").unwrap(), "z");
        }
        let mut decoder = Decoder::new(100);
        decoder.seek(&dir.path().join("gone"), 10);
        assert_eq!(take(&mut decoder, "x\n", "stdout"), None, "nothing is known");
    }

    #[test]
    fn it_is_begun_again_at_a_whole_line() {
        let mut decoder = Decoder::new(100);
        decoder.seek(Path::new("/x"), 0);
        for (n, log, stream, resume) in [
            (0, "a\n", "stdout", None),
            (10, "long ", "stdout", Some(10)),
            (20, "b\n", "stderr", Some(10)),
            (30, "longer ", "stdout", Some(10)),
            (40, "end\n", "stdout", None),
        ] {
            decoder.advance(n, n + 10);
            take(&mut decoder, log, stream);
            assert_eq!(decoder.resume(), resume, "behind {log:?}");
        }
        decoder.advance(50, 60);
        take(&mut decoder, "never ended", "stdout");
        decoder.advance(60, 60 + PATIENCE);
        take(&mut decoder, "b\n", "stderr");
        assert_eq!(decoder.resume(), None);
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_line_however_it_is_cut(text: String, cuts in proptest::collection::vec(0_usize..50, 0..5)) {
            let mut decoder = Decoder::new(10_000);
            let chars: Vec<char> = text.chars().filter(|c| *c != '\n').chain(['\n']).collect();
            let mut lines = Vec::new();
            let mut rest = &chars[..];
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len() - 1));
                lines.extend(take(&mut decoder, &piece.iter().collect::<String>(), "stdout"));
                rest = after;
            }
            lines.extend(take(&mut decoder, &rest.iter().collect::<String>(), "stdout"));
            prop_assert_eq!(lines.len(), 1);
            prop_assert!(!lines[0].contains(['\n', '\r', '\0']));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let mut decoder = Decoder::new(100);
            if let Some(line) = decoder.record(&bytes) {
                prop_assert!(!line.text.contains(&b'\n'));
            }
        }
    }
}
