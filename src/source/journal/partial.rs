//! Lines of containers that Docker cut into several entries, put together again.
//!
//! dockerd's journald driver cuts a line after 16 KiB. A piece that was taken for a line would be a line that a client wrote.

use std::borrow::Cow;

use super::entry::Entry;

/// So many lines may be unfinished at once: one for each of a container's two streams.
const OPEN_MAX: usize = 32;
/// A line that was not ended within so many entries will not be: its container has died.
const PATIENCE: u64 = 1024;

/// The unfinished lines of one source.
#[derive(Debug)]
pub(crate) struct Joiner {
    open: Vec<Open>,
    longest: usize,
    seen: u64,
}

#[derive(Debug)]
struct Open {
    line: Vec<u8>,
    /// `None`: it is too long.
    text: Option<Vec<u8>>,
    since: u64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Joined<'e> {
    /// A whole message.
    Whole(Cow<'e, [u8]>),
    /// A piece, more of which will follow; or the end of what began before we listened.
    Piece,
    /// There is none, or it is too long.
    Unfit,
}

impl Joiner {
    /// Lines of more bytes are left out.
    pub(crate) fn new(longest: usize) -> Self {
        Self { open: Vec::new(), longest, seen: 0 }
    }

    /// Whether the entry, and what came before it, holds whole lines only: one may go on behind it.
    pub(crate) fn is_between_lines(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn take<'e>(&mut self, entry: &'e Entry<'_>) -> Joined<'e> {
        self.seen += 1;
        let (seen, longest) = (self.seen, self.longest);
        self.open.retain(|open| seen - open.since < PATIENCE);
        let message = entry.message.as_deref();
        let fit = |message: &[u8]| message.len() <= longest;
        let Some(piece) = &entry.piece else {
            return message.filter(|m| fit(m)).map_or(Joined::Unfit, |m| Joined::Whole(Cow::Borrowed(m)));
        };
        let at = self.open.iter().position(|open| open.line == *piece.line);
        if at.is_none() && piece.first == Some(false) {
            return Joined::Piece;
        }
        if !piece.goes_on {
            let Some(at) = at else {
                return message.filter(|m| fit(m)).map_or(Joined::Unfit, |m| Joined::Whole(Cow::Borrowed(m)));
            };
            let open = self.open.swap_remove(at);
            let whole = open.text.zip(message).map(|(mut text, message)| {
                text.extend_from_slice(message);
                text
            });
            return whole.filter(|m| fit(m)).map_or(Joined::Unfit, |m| Joined::Whole(Cow::Owned(m)));
        }
        let at = at.unwrap_or_else(|| {
            if self.open.len() >= OPEN_MAX {
                self.open.remove(0);
            }
            self.open.push(Open { line: piece.line.to_vec(), text: Some(Vec::new()), since: seen });
            self.open.len() - 1
        });
        let open = &mut self.open[at];
        match (&mut open.text, message) {
            (Some(text), Some(message)) if text.len() + message.len() <= longest => {
                text.extend_from_slice(message);
            }
            (text, _) => *text = None,
        }
        Joined::Piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(container: &str, message: &str, more: &str) -> String {
        format!(
            r#"{{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1","CONTAINER_ID_FULL":"{container}","MESSAGE":"{message}"{more}}}"#
        )
    }

    fn take(joiner: &mut Joiner, text: &str) -> Option<String> {
        let entry = Entry::parse(text.as_bytes()).unwrap();
        match joiner.take(&entry) {
            Joined::Whole(whole) => Some(String::from_utf8(whole.into_owned()).unwrap()),
            Joined::Piece => None,
            Joined::Unfit => Some("unfit".to_owned()),
        }
    }

    const PART: &str = r#","CONTAINER_PARTIAL_MESSAGE":"true""#;

    fn new(id: &str, n: u32, last: bool) -> String {
        let more = if last { "" } else { PART };
        format!(r#"{more},"CONTAINER_PARTIAL_ID":"{id}","CONTAINER_PARTIAL_ORDINAL":"{n}""#)
    }

    #[test]
    fn pieces_become_one_line() {
        let mut joiner = Joiner::new(10);
        assert_eq!(take(&mut joiner, &text("a", "one", "")).unwrap(), "one");
        assert_eq!(take(&mut joiner, &text("a", "abc", PART)), None);
        assert!(!joiner.is_between_lines());
        assert_eq!(take(&mut joiner, &text("b", "two", "")).unwrap(), "two");
        assert_eq!(take(&mut joiner, &text("a", "def", "")).unwrap(), "abcdef");
        assert!(joiner.is_between_lines());
        assert_eq!(take(&mut joiner, &text("a", "x", &new("p", 1, false))), None);
        assert_eq!(take(&mut joiner, &text("a", "1", &new("q", 1, false))), None);
        assert_eq!(take(&mut joiner, &text("a", "y", &new("p", 2, true))).unwrap(), "xy");
        assert_eq!(take(&mut joiner, &text("a", "2", &new("q", 2, true))).unwrap(), "12");
    }

    #[test]
    fn an_end_without_a_beginning_is_no_line() {
        let mut joiner = Joiner::new(10);
        assert_eq!(take(&mut joiner, &text("a", "forged", &new("p", 3, true))), None);
        assert_eq!(take(&mut joiner, &text("a", "forged", &new("p", 3, false))), None);
        assert!(joiner.is_between_lines());
    }

    #[test]
    fn no_part_of_a_long_line_is_a_line() {
        let mut joiner = Joiner::new(10);
        for _ in 0..3 {
            assert_eq!(take(&mut joiner, &text("a", "12345678", PART)), None);
        }
        assert_eq!(take(&mut joiner, &text("a", "1", "")).unwrap(), "unfit");
        assert_eq!(take(&mut joiner, &text("a", "12345678901", "")).unwrap(), "unfit");
        assert_eq!(take(&mut joiner, &text("a", "1", "")).unwrap(), "1");
    }

    #[test]
    fn memory_is_bounded() {
        let mut joiner = Joiner::new(10);
        for n in 0..1000 {
            take(&mut joiner, &text(&n.to_string(), "x", PART));
        }
        assert_eq!(joiner.open.len(), OPEN_MAX);
        for _ in 0..2000 {
            take(&mut joiner, &text("other", "x", ""));
        }
        assert!(joiner.is_between_lines(), "the containers have died");
    }
}
