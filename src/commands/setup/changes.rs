//! What a proposal changes in a file, line by line, comments aside.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use crate::daemon::printable;

/// Of a longer file it is only told that it is.
const LINES: usize = 2000;
const SIZE: u64 = 1 << 20;

/// What goes (`-`) and what comes (`+`), in the order of the files.
pub(super) fn told(path: &Path, proposed: &str) -> String {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(SIZE).read_to_end(&mut bytes));
    if let Err(e) = read {
        return format!("  what is there cannot be read: {e}");
    }
    let text = String::from_utf8_lossy(&bytes);
    let (old, new) = (lines(&text), lines(proposed));
    if old.len().max(new.len()) > LINES {
        return format!("  {} lines become {}", old.len(), new.len());
    }
    let mut out = String::new();
    for (sign, line) in difference(&old, &new) {
        let _ = writeln!(out, "  {sign} {}", printable(line.as_bytes()));
    }
    out.trim_end().to_owned()
}

fn lines(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim_end)
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .collect()
}

/// The longest common subsequence says what stays.
fn difference<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<(char, &'t str)> {
    let mut longest = vec![vec![0u16; new.len() + 1]; old.len() + 1];
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            longest[i][j] =
                if a == b { longest[i + 1][j + 1] + 1 } else { longest[i + 1][j].max(longest[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            out.push(('-', old[i]));
            i += 1;
        } else {
            out.push(('+', new[j]));
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, "# x\njails:\n  a:\n    logpath: /a\n\u{1b}[2J: 1\nlog: {}\n").unwrap();
        let told = told(&path, "# y\njails:\n  a:\n    logpath: /b # why\nlog: {}\n");
        assert_eq!(told, "  -     logpath: /a\n  - \u{fffd}[2J: 1\n  +     logpath: /b # why");
    }
}
