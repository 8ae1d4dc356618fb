//! Members of a JSON object, in one pass forward and without allocation.
//!
//! Only what is asked for is looked into; a nested value is skipped by counting brackets outside of strings, so depth costs nothing.

use std::borrow::Cow;

use memchr::memchr;

/// A member's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// What stands between the quotes, escapes unresolved.
    Text(&'a [u8]),
    /// A number, `true` or `false`.
    Word(&'a [u8]),
    /// `null`.
    Null,
    /// An object with its braces.
    Object(&'a [u8]),
    /// An array with its brackets.
    Array(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The text of it, if it is one value; `null` is the empty text.
    pub(crate) fn text(self) -> Option<&'a [u8]> {
        match self {
            Self::Text(t) | Self::Word(t) => Some(t),
            Self::Null => Some(b""),
            Self::Object(_) | Self::Array(_) => None,
        }
    }
}

/// The members of an object, or the elements of an array (whose keys are empty).
pub(crate) struct Members<'a> {
    rest: &'a [u8],
    close: u8,
    begun: bool,
}

/// The text is no JSON, or not all of it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl<'a> Members<'a> {
    /// `text` is an object or an array, and nothing else but blanks around it.
    pub(crate) fn of(text: &'a [u8]) -> Option<Self> {
        let text = text.trim_ascii();
        let close = match text.first()? {
            b'{' => b'}',
            b'[' => b']',
            _ => return None,
        };
        // A line that was cut is seen here already.
        (text.len() > 1 && text.last() == Some(&close)).then(|| Self {
            rest: &text[1..],
            close,
            begun: false,
        })
    }

    /// The next member; `None` after the last one, if the object ends where the text ends.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(&'a [u8], Value<'a>)>, Malformed> {
        self.blanks();
        match self.rest.first() {
            Some(&b) if b == self.close => {
                return if self.rest.len() == 1 { Ok(None) } else { Err(Malformed) };
            }
            Some(b',') if self.begun => {
                self.rest = &self.rest[1..];
                self.blanks();
            }
            Some(_) if !self.begun => {}
            _ => return Err(Malformed),
        }
        self.begun = true;
        let mut key: &[u8] = b"";
        if self.close == b'}' {
            key = self.string()?;
            self.blanks();
            self.rest = self.rest.strip_prefix(b":").ok_or(Malformed)?;
            self.blanks();
        }
        Ok(Some((key, self.value()?)))
    }

    fn blanks(&mut self) {
        // Almost always there is none.
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.rest.first() {
            self.rest = &self.rest[1..];
        }
    }

    #[inline]
    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let inner = self.rest.strip_prefix(b"\"").ok_or(Malformed)?;
        let end = string_end(inner).ok_or(Malformed)?;
        self.rest = &inner[end + 1..];
        Ok(&inner[..end])
    }

    #[inline]
    fn value(&mut self) -> Result<Value<'a>, Malformed> {
        let text = self.rest;
        match text.first().ok_or(Malformed)? {
            b'"' => self.string().map(Value::Text),
            b'{' | b'[' => {
                let end = nested_end(text).ok_or(Malformed)?;
                self.rest = &text[end..];
                Ok(if text[0] == b'{' { Value::Object(&text[..end]) } else { Value::Array(&text[..end]) })
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                let end = text
                    .iter()
                    .position(|b| !matches!(b, b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E'))
                    .ok_or(Malformed)?;
                let word = &text[..end];
                self.rest = &text[end..];
                match word {
                    b"null" => Ok(Value::Null),
                    b"true" | b"false" => Ok(Value::Word(word)),
                    [b'-' | b'0'..=b'9', ..] => Ok(Value::Word(word)),
                    _ => Err(Malformed),
                }
            }
            _ => Err(Malformed),
        }
    }
}

/// Where the closing quote of a string is, behind whose opening one `inner` begins.
///
/// Most strings are short, so eight bytes are looked at at a time instead of setting up a vector search for each.
#[inline]
fn string_end(inner: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < 64 {
        let Some(word) = inner.get(at..at + 8).and_then(|w| w.try_into().ok()).map(u64::from_le_bytes) else {
            break;
        };
        let found = zero_bytes(word ^ (ONES * b'"' as u64)) | zero_bytes(word ^ (ONES * b'\\' as u64));
        if found != 0 {
            at += found.trailing_zeros() as usize / 8;
            if inner[at] == b'"' {
                return Some(at);
            }
            break;
        }
        at += 8;
    }
    Some(at + super::bare_quote(inner.get(at..)?)?)
}

const ONES: u64 = u64::from_le_bytes([1; 8]);

/// The highest bit of the first byte that is zero, and perhaps of later ones.
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

/// Where the object or array ends that `text` begins with.
fn nested_end(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0usize, 0usize);
    loop {
        match text.get(at)? {
            b'"' => at += string_end(&text[at + 1..])? + 1,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// The bytes a string's text stands for. An escape that is none stays as it is written.
pub(crate) fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(mut at) = memchr(b'\\', text) else { return Cow::Borrowed(text) };
    let mut out = Vec::with_capacity(text.len());
    let mut copied = 0;
    while at < text.len() {
        let Some((bytes, length)) = escape(&text[at..]) else {
            at += 1;
            match memchr(b'\\', &text[at..]) {
                Some(next) => at += next,
                None => break,
            }
            continue;
        };
        out.extend_from_slice(&text[copied..at]);
        let mut buffer = [0; 4];
        out.extend_from_slice(bytes.encode_utf8(&mut buffer).as_bytes());
        at += length;
        copied = at;
        match memchr(b'\\', &text[at..]) {
            Some(next) => at += next,
            None => break,
        }
    }
    out.extend_from_slice(&text[copied..]);
    Cow::Owned(out)
}

/// The character that the escape at the beginning of `text` stands for, and the escape's length.
fn escape(text: &[u8]) -> Option<(char, usize)> {
    let c = match text.get(1)? {
        b'n' => '\n',
        b't' => '\t',
        b'r' => '\r',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b @ (b'"' | b'\\' | b'/') => char::from(*b),
        b'u' => {
            let first = hex(text.get(2..6)?)?;
            if let Some(c) = char::from_u32(first) {
                return Some((c, 6));
            }
            // One half of a pair; a half alone is the replacement character.
            let second = text.get(6..12).filter(|t| t.starts_with(b"\\u")).and_then(|t| hex(&t[2..]));
            return Some(match second {
                Some(second @ 0xDC00..=0xDFFF) if first < 0xDC00 => {
                    (char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00))?, 12)
                }
                _ => (char::REPLACEMENT_CHARACTER, 6),
            });
        }
        _ => return None,
    };
    Some((c, 2))
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |n, &b| Some(n * 16 + char::from(b).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All members of the outermost object, if it is well-formed.
    fn members(text: &[u8]) -> Option<Vec<(Vec<u8>, Value<'_>)>> {
        let mut members = Members::of(text)?;
        let mut out = Vec::new();
        loop {
            match members.next() {
                Ok(Some((k, v))) => out.push((unescape(k).into_owned(), v)),
                Ok(None) => return Some(out),
                Err(Malformed) => return None,
            }
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[a\"\\\\\u{0}\u{1f600}é{}\\[\\], :]{0,6}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::Array),
                prop::collection::hash_map("[ab\"\\\\{}]{0,3}", inner, 0..4)
                    .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn members_are_those_serde_finds(value in json()) {
            let text = value.to_string();
            let serde_json::Value::Object(object) = &value else {
                prop_assert_ne!(text.as_bytes()[0], b'{');
                return Ok(());
            };
            let got = members(text.as_bytes()).expect("well-formed");
            prop_assert_eq!(got.len(), object.len());
            for (key, value) in got {
                let expected = &object[std::str::from_utf8(&key).unwrap()];
                let text = match value {
                    Value::Text(t) => {
                        let text = unescape(t);
                        prop_assert_eq!(text.as_ref(), expected.as_str().unwrap().as_bytes());
                        continue;
                    }
                    Value::Null => b"null",
                    Value::Word(t) | Value::Object(t) | Value::Array(t) => t,
                };
                prop_assert_eq!(&serde_json::from_slice::<serde_json::Value>(text).unwrap(), expected);
            }
        }

        #[test]
        fn a_cut_object_is_malformed(value in json(), cut in any::<prop::sample::Index>()) {
            let text = value.to_string();
            if text.starts_with('{') {
                prop_assert_eq!(members(&text.as_bytes()[..cut.index(text.len())]), None);
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(prop::sample::select(b"{}[]\":,\\u0dD8 nulltrue-1\xff".to_vec()), 0..40)) {
            let _ = members(&bytes);
            let _ = unescape(&bytes);
        }
    }

    #[test]
    fn bombs_cost_no_stack() {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(members(text.as_bytes()).map(|m| m.len()), Some(1));
        assert_eq!(members("{\"a\":".repeat(100_000).as_bytes()), None);
    }

    #[test]
    fn what_is_malformed_is_said_to_be() {
        for text in [
            "",
            "{",
            "}",
            "{}x",
            "{,}",
            "{\"a\":1,}",
            "{\"a\":1 \"b\":2}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":nope}",
            "{a:1}",
            "{\"a\":1}}",
        ] {
            assert_eq!(members(text.as_bytes()), None, "{text}");
        }
        assert_eq!(members(b" { \"a\" : 1 , \"b\" : null } ").map(|m| m.len()), Some(2));
    }
}
