//! Text that was found, as YAML: whatever it holds, it stays one value, and in a comment one line.

use std::fmt::Write as _;

use crate::daemon::printable;

/// A scalar: plain where nothing in it means anything to YAML, in quotes where it does, with escapes where it must.
pub(super) fn scalar(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-' | b'*' | b'=');
    // What begins with another character may be a number, a dash, an alias.
    if text.starts_with(|c: char| c == '/' || c == '_' || c.is_ascii_alphabetic())
        && text.bytes().all(plain)
        && !is_word(text)
    {
        return text.to_owned();
    }
    if !text.chars().any(crate::log::is_hostile) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if crate::log::is_hostile(c) => {
                // Writing into a string cannot fail.
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Words that YAML reads as something else than text.
fn is_word(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n"
    )
}

/// Appends `text` as a comment of one line, however long it is.
pub(super) fn remark(out: &mut String, indent: usize, text: &str) {
    let text = printable(text.as_bytes());
    let _ = writeln!(out, "{}# {text}", " ".repeat(indent));
}

/// Appends `text` as a comment, with lines of about 120 characters; what cannot be printed is replaced.
pub(super) fn comment(out: &mut String, indent: usize, text: &str) {
    const WIDTH: usize = 120;
    let lead = format!("{}#", " ".repeat(indent));
    let mut line = lead.clone();
    for word in printable(text.as_bytes()).split(' ').filter(|word| !word.is_empty()) {
        if line.len() > lead.len() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line.clone_from(&lead);
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

/// A path as a source names it: nothing in it is a glob.
pub(super) fn literal(path: &str) -> String {
    let mut out = String::new();
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[') {
            out.extend(['[', c, ']']);
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::commands::SHIPPED;
    use crate::config::Config;

    fn read(path: &str) -> Vec<String> {
        let text = format!("jails:\n  a:\n    filter: sshd\n    logpath:\n      - {}\n", scalar(path));
        Config::parse(&text, "test", &SHIPPED).unwrap().jails[0].logpath.clone()
    }

    #[test]
    fn a_path_is_read_as_it_was_written() {
        for path in [
            "/a",
            "/a b: #c",
            "/it's",
            "/x\n    enabled: false",
            "/\"\\",
            "/\u{1b}[2J",
            "/\u{2028}\u{202e}",
            "/ü",
        ] {
            assert_eq!(read(path), [path], "{}", scalar(path));
        }
        assert_eq!(scalar("/var/log/nginx/*access*.log"), "/var/log/nginx/*access*.log");
        assert_eq!(scalar("no"), "'no'");
    }

    #[test]
    fn a_comment_stays_one() {
        let mut out = String::new();
        comment(&mut out, 2, "found: a\nb\r\u{85}c \u{1b}[2J");
        assert_eq!(out, "  # found: a\u{fffd}b\u{fffd}\u{fffd}c \u{fffd}[2J\n");
        out.clear();
        comment(&mut out, 0, &"word ".repeat(100));
        assert!(out.lines().all(|line| line.starts_with("# word") && line.len() <= 120), "{out}");
    }

    proptest! {
        #[test]
        fn every_path_is_read_as_it_was_written(path in "/[^\u{0}]{1,40}") {
            prop_assert_eq!(read(&path), [path]);
        }

        #[test]
        fn a_literal_means_its_path_alone(path in "(/[ab*?\\[\\]!^-]{1,4}){1,3}", other in "(/[ab*?\\[\\]!^-]{1,4}){1,3}") {
            let matches = crate::follow::pattern_matches(&literal(&path), Path::new(&path));
            prop_assert!(matches, "{}", literal(&path));
            let same = Path::new(&path) == Path::new(&other);
            prop_assert_eq!(crate::follow::pattern_matches(&literal(&path), Path::new(&other)), same);
        }
    }
}
