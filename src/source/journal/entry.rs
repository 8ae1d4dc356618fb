//! An entry of the journal, as `journalctl --output=json` writes it: one object on one line.
//!
//! ```text
//! {"__CURSOR":"s=…","__REALTIME_TIMESTAMP":"1795247695002877","_HOSTNAME":"web","_PID":"12","MESSAGE":"…", …}
//! ```
//! A value is text; an array of numbers, its bytes, where it is no printable UTF-8; `null` where it is too large; and an array
//! of these where the entry has the field several times. Fields that begin with an underscore are written by journald, all
//! others by who logs.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use crate::source::{Head, Shape, escape, unbroken};
use crate::types::Timestamp;

/// What `--output-fields` asks for, besides what every entry has.
pub(super) const FIELDS: &str = "MESSAGE,SYSLOG_IDENTIFIER,_COMM,_PID,_HOSTNAME,CONTAINER_ID_FULL,\
                                 CONTAINER_PARTIAL_MESSAGE,CONTAINER_PARTIAL_ID,CONTAINER_PARTIAL_ORDINAL";

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where it is in the journal.
    pub cursor: Cow<'a, str>,
    /// When journald received it, in microseconds since the epoch. The sender has no say in it, and `--since` goes by it.
    pub at: i64,
    host: Cow<'a, [u8]>,
    program: Cow<'a, [u8]>,
    pid: Cow<'a, [u8]>,
    /// What was logged; none where the entry holds none, several or too much.
    pub message: Option<Cow<'a, [u8]>>,
    /// Docker cuts long lines into several entries.
    pub(super) piece: Option<Piece<'a>>,
}

/// Which piece of which line of a container's log an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// What the pieces of one line share.
    pub(super) line: Cow<'a, [u8]>,
    /// Whether another follows.
    pub(super) goes_on: bool,
    /// Whether others came before; a Docker before 18.09 does not say.
    pub(super) first: Option<bool>,
}

/// What journalctl wrote is no entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// It is no object of fields.
    #[error("what journalctl wrote is no entry: {0}")]
    Json(#[from] serde_json::Error),
    /// It has no cursor or no time.
    #[error("what journalctl wrote has no {0}")]
    Without(&'static str),
}

impl<'a> Entry<'a> {
    /// Reads a line of journalctl's.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(line: &'a [u8]) -> Result<Self, EntryError> {
        let raw: Raw<'a> = serde_json::from_slice(line)?;
        let Field::One(Cow::Borrowed(cursor)) = raw.cursor else { return Err(EntryError::Without("cursor")) };
        let cursor = std::str::from_utf8(cursor).map_err(|_| EntryError::Without("cursor"))?;
        let at = raw.at.bytes().and_then(|b| std::str::from_utf8(b).ok()?.parse().ok());
        let program = if raw.identifier.bytes().is_some() { raw.identifier } else { raw.comm };
        // The end of a line that a Docker before 18.09 cut up looks like any other entry of the container.
        let piece = raw.container.bytes().is_some().then(|| Piece {
            goes_on: raw.partial.bytes() == Some(b"true"),
            first: raw.ordinal.bytes().map(|ordinal| ordinal == b"1"),
            line: if raw.partial_id.bytes().is_some() { raw.partial_id } else { raw.container }.or_empty(),
        });
        Ok(Self {
            cursor: Cow::Borrowed(cursor),
            at: at.ok_or(EntryError::Without("time"))?,
            host: raw.host.or_empty(),
            program: program.or_empty(),
            pid: raw.pid.or_empty(),
            message: match raw.message {
                Field::One(message) => Some(message),
                Field::Unfit => None,
            },
            piece,
        })
    }

    /// When it was, as filters and jails count it.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.at.div_euclid(1000))
    }

    /// Puts `message`, of which this entry is (the end), into `line` as one line.
    pub fn render(&self, message: &[u8], shape: Shape, line: &mut Vec<u8>) {
        line.clear();
        // Who ended a message with a newline did not mean a second line.
        let message = message.strip_suffix(b"\n").unwrap_or(message);
        match shape {
            Shape::Message => line.extend_from_slice(&unbroken(message)),
            Shape::Syslog => {
                Head { at: self.at, host: &self.host, program: &self.program, pid: Some(&self.pid) }
                    .write(line);
                escape(message, line);
            }
        }
    }
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, default, rename = "__CURSOR")]
    cursor: Field<'a>,
    #[serde(borrow, default, rename = "__REALTIME_TIMESTAMP")]
    at: Field<'a>,
    #[serde(borrow, default, rename = "_HOSTNAME")]
    host: Field<'a>,
    #[serde(borrow, default, rename = "SYSLOG_IDENTIFIER")]
    identifier: Field<'a>,
    #[serde(borrow, default, rename = "_COMM")]
    comm: Field<'a>,
    #[serde(borrow, default, rename = "_PID")]
    pid: Field<'a>,
    #[serde(borrow, default, rename = "MESSAGE")]
    message: Field<'a>,
    #[serde(borrow, default, rename = "CONTAINER_ID_FULL")]
    container: Field<'a>,
    #[serde(borrow, default, rename = "CONTAINER_PARTIAL_MESSAGE")]
    partial: Field<'a>,
    #[serde(borrow, default, rename = "CONTAINER_PARTIAL_ID")]
    partial_id: Field<'a>,
    #[serde(borrow, default, rename = "CONTAINER_PARTIAL_ORDINAL")]
    ordinal: Field<'a>,
}

/// A field that the entry has once; or not, or several times, or too large.
#[derive(Clone, Debug, Default)]
enum Field<'a> {
    One(Cow<'a, [u8]>),
    #[default]
    Unfit,
}

impl<'a> Field<'a> {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::One(bytes) => Some(bytes),
            Self::Unfit => None,
        }
    }

    fn or_empty(self) -> Cow<'a, [u8]> {
        match self {
            Self::One(bytes) => bytes,
            Self::Unfit => Cow::Borrowed(b""),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, an array of bytes, or null")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Field::One(Cow::Borrowed(text.as_bytes())))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Field::One(Cow::Owned(text.as_bytes().to_vec())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Field::Unfit)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut bytes = Vec::new();
        let mut fits = true;
        while let Some(item) = items.next_element::<Item>()? {
            match item {
                Item::Byte(b) => bytes.push(b),
                Item::Other => fits = false,
            }
        }
        Ok(if fits { Field::One(Cow::Owned(bytes)) } else { Field::Unfit })
    }
}

/// A part of an array.
enum Item {
    Byte(u8),
    /// A value of a field that the entry has several times.
    Other,
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemVisitor;
        impl<'de> Visitor<'de> for ItemVisitor {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte, or a value")
            }

            fn visit_u64<E>(self, n: u64) -> Result<Item, E> {
                Ok(u8::try_from(n).map_or(Item::Other, Item::Byte))
            }

            fn visit_str<E>(self, _: &str) -> Result<Item, E> {
                Ok(Item::Other)
            }

            fn visit_unit<E>(self) -> Result<Item, E> {
                Ok(Item::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Item, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Item::Other)
            }
        }
        deserializer.deserialize_any(ItemVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As journalctl 252 wrote it, of `MESSAGE=two\nlines \0 \xff` sent to journald's native socket.
    const BYTES: &str = r#"{"__MONOTONIC_TIMESTAMP":"22906123195","__REALTIME_TIMESTAMP":"1795247695194266","_PID":"15837","__CURSOR":"s=826187448e79443493989a7084b3a770;i=a49;b=c05dbbbfbed94e6c92d55c74f292281d;m=5554fb3bb;t=660c4ad27e89a;x=917103b6c702e5b3","_HOSTNAME":"vm","_COMM":"python3","SYSLOG_IDENTIFIER":"sshd","_BOOT_ID":"c05dbbbfbed94e6c92d55c74f292281d","MESSAGE":[116,119,111,10,108,105,110,101,115,32,0,32,255]}"#;

    fn rendered(line: &str, shape: Shape) -> Vec<u8> {
        let entry = Entry::parse(line.as_bytes()).unwrap();
        let mut out = Vec::new();
        entry.render(entry.message.as_deref().unwrap(), shape, &mut out);
        out
    }

    #[test]
    fn an_entry_is_one_line() {
        assert_eq!(
            rendered(BYTES, Shape::Syslog),
            b"2026-11-21T07:54:55.194266+00:00 vm sshd[15837]: two#012lines #000 \xff"
        );
        assert_eq!(rendered(BYTES, Shape::Message), b"two#012lines #000 \xff");
        let entry = Entry::parse(BYTES.as_bytes()).unwrap();
        assert!(entry.cursor.starts_with("s=8261"));
        assert_eq!(entry.time(), Timestamp::from_millis(1_795_247_695_194));
        assert_eq!(entry.piece, None);
    }

    fn with(fields: &str) -> String {
        format!(r#"{{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1000000",{fields}}}"#)
    }

    #[test]
    fn what_has_no_single_message_has_none() {
        for message in ["null", r#"["a","b"]"#, "[[97],[98]]", r#"["a",[98]]"#, "[97,256]", "[null,null]"] {
            let text = with(&format!(r#""MESSAGE":{message}"#));
            assert_eq!(Entry::parse(text.as_bytes()).unwrap().message, None, "{text}");
        }
        assert_eq!(Entry::parse(with(r#""MESSAGE":[]"#).as_bytes()).unwrap().message.unwrap().as_ref(), b"");
        for text in [
            r#"{"MESSAGE":"x"}"#,
            r#"{"__CURSOR":"c","__REALTIME_TIMESTAMP":"soon"}"#,
            "{}",
            "[]",
            "",
            "{\"a\":",
        ] {
            assert!(Entry::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn who_logs_cannot_write_the_head() {
        let forged = with(
            r#""SYSLOG_IDENTIFIER":"sshd[1]: Failed","_COMM":"logger","_PID":"7","MESSAGE":"x\u001b[2J\r\n""#,
        );
        assert_eq!(
            rendered(&forged, Shape::Syslog),
            b"1970-01-01T00:00:01.000000+00:00 - sshd_1___Failed[7]: x#033[2J#015"
        );
        let unnamed = with(r#""SYSLOG_IDENTIFIER":["a","b"],"_COMM":"logger","MESSAGE":"x""#);
        assert_eq!(rendered(&unnamed, Shape::Syslog), b"1970-01-01T00:00:01.000000+00:00 - logger: x");
    }

    #[test]
    fn pieces_of_a_containers_line() {
        let piece = |fields: &str| Entry::parse(with(fields).as_bytes()).unwrap().into_piece();
        let id = r#""MESSAGE":"x","CONTAINER_ID_FULL":"abc""#;
        let new = r#""CONTAINER_PARTIAL_ID":"p""#;
        assert_eq!(piece(id), Some(("abc".into(), false, None)));
        assert_eq!(
            piece(&format!(r#"{id},"CONTAINER_PARTIAL_MESSAGE":"true""#)),
            Some(("abc".into(), true, None))
        );
        assert_eq!(
            piece(&format!(
                r#"{id},{new},"CONTAINER_PARTIAL_MESSAGE":"true","CONTAINER_PARTIAL_ORDINAL":"1""#
            )),
            Some(("p".into(), true, Some(true)))
        );
        assert_eq!(
            piece(&format!(r#"{id},{new},"CONTAINER_PARTIAL_ORDINAL":"2""#)),
            Some(("p".into(), false, Some(false)))
        );
        assert_eq!(piece(r#""MESSAGE":"x","CONTAINER_PARTIAL_MESSAGE":"true""#), None);
    }

    impl Entry<'_> {
        fn into_piece(self) -> Option<(String, bool, Option<bool>)> {
            let piece = self.piece?;
            Some((String::from_utf8(piece.line.into_owned()).unwrap(), piece.goes_on, piece.first))
        }
    }

    proptest! {
        #[test]
        fn any_message_is_one_line(message: Vec<u8>, identifier: String) {
            let identifier = serde_json::to_string(&identifier).unwrap();
            let message = serde_json::to_string(&message).unwrap();
            let text = with(&format!(r#""SYSLOG_IDENTIFIER":{identifier},"MESSAGE":{message}"#));
            for shape in [Shape::Syslog, Shape::Message] {
                let line = rendered(&text, shape);
                prop_assert!(!line.iter().any(|b| matches!(b, b'\n' | b'\r' | 0)));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Entry::parse(&bytes);
        }
    }
}
