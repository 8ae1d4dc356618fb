//! Text of others, made harmless.

/// One line of at most `longest` bytes: what would break it, move a cursor or reorder what is read is written as `\n`,
/// `\u{202e}` and so on.
pub(crate) fn harmless(text: &str, longest: usize) -> String {
    let mut out = String::with_capacity(text.len().min(longest));
    for c in text.chars() {
        if out.len() >= longest {
            out.push('…');
            break;
        }
        if crate::log::is_hostile(c) {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    out
}

/// What of a name may stand in a header: names of jails are of these characters anyway.
pub(super) fn name(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(64).collect()
}

/// `1 ban`, `2 bans`.
pub(super) fn number(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_a_line_and_ends() {
        let hostile = "a\r\n.\r\nSubject: x\0\u{1b}[2J\u{202e}é\u{2028}";
        let text = harmless(hostile, 1000);
        assert_eq!(text, "a\\r\\n.\\r\\nSubject: x\\0\\u{1b}[2J\\u{202e}é\\u{2028}");
        assert_eq!(harmless(&"é".repeat(1000), 7), "éééé…");
        assert_eq!(harmless("abc", 3), "abc");
        assert_eq!(name("np\nm é\r: x"), "npmx");
    }
}
