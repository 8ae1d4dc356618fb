//! Copies of our table in files that are loaded at boot.
//!
//! Who saves the ruleset with `nft list ruleset` saves our table too. Loading it brings back bans that are over; and where
//! it has header bans the file cannot be loaded at all, because nft prints `xt match` and does not read it: at the next boot
//! the host has no firewall.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::kernel::ruleset::TABLE;

/// What distributions load at boot, and directories of files that these include.
const FILES: [&str; 2] = ["etc/nftables.conf", "etc/sysconfig/nftables.conf"];
const DIRECTORIES: [&str; 2] = ["etc/nftables.d", "etc/nftables"];
/// So much of a file is looked at, in bytes.
const LOOK: u64 = 4 << 20;

/// A copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Where.
    pub file: PathBuf,
    /// The line it begins at.
    pub line: usize,
    /// The file has expressions that nft cannot read.
    pub unreadable: bool,
}

/// The copies in files under `root`, and the files that could not be read.
#[must_use]
pub fn copies(root: &Path) -> (Vec<Copy>, Vec<PathBuf>) {
    let mut files: Vec<PathBuf> = FILES.iter().map(|file| root.join(file)).collect();
    for directory in DIRECTORIES {
        let entries = fs::read_dir(root.join(directory)).into_iter().flatten();
        let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        found.retain(|path| path.is_file());
        found.sort_unstable();
        files.extend(found.into_iter().take(100));
    }
    let (mut copies, mut hidden) = (Vec::new(), Vec::new());
    for file in files {
        let mut bytes = Vec::new();
        match File::open(&file).and_then(|opened| opened.take(LOOK).read_to_end(&mut bytes)) {
            Ok(_) => copies.extend(find(&String::from_utf8_lossy(&bytes)).map(|(line, unreadable)| Copy {
                file,
                line,
                unreadable,
            })),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => hidden.push(file),
        }
    }
    (copies, hidden)
}

/// The line on which a table of ours begins, and whether anything in the text is what nft prints and does not read.
fn find(text: &str) -> Option<(usize, bool)> {
    let ours = |line: &str| {
        let spaced = line.replace('{', " { ");
        let words: Vec<&str> = spaced.split_ascii_whitespace().collect();
        let words = match words.as_slice() {
            ["add" | "create", rest @ ..] => rest,
            all => all,
        };
        matches!(words, ["table", "inet" | "bridge", name, ..] if *name == TABLE)
    };
    let at = text.lines().position(ours)?;
    let unreadable = text.lines().any(|line| {
        line.split_ascii_whitespace()
            .zip(line.split_ascii_whitespace().skip(1))
            .any(|pair| pair == ("xt", "match"))
    });
    Some((at + 1, unreadable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_ours_is_found_however_it_is_written() {
        for text in [
            "table inet stockade {\n",
            "table inet stockade{",
            "  add table inet stockade\n",
            "table bridge stockade { # x",
        ] {
            assert_eq!(find(text), Some((1, false)), "{text}");
        }
        for text in
            ["table inet stockade2 {", "# table inet stockade {", "table ip stockade {", "flush ruleset", ""]
        {
            assert_eq!(find(text), None, "{text}");
        }
        assert_eq!(
            find("flush ruleset\n\ntable inet stockade {\n x xt match \"bpf\" drop\n"),
            Some((3, true))
        );
    }

    #[test]
    fn files_and_directories_are_looked_through() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(copies(root.path()), (vec![], vec![]));
        let directory = root.path().join("etc/nftables.d");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("a.nft"), "table inet filter {\n}\n").unwrap();
        fs::write(directory.join("b.nft"), "\ntable inet stockade {\n}\n").unwrap();
        let copy = Copy { file: directory.join("b.nft"), line: 2, unreadable: false };
        assert_eq!(copies(root.path()), (vec![copy], vec![]));
    }
}
