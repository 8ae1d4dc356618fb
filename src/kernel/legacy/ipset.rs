//! Sets, as ipset(8) makes and lists them.
//!
//! Everything goes through `ipset restore`: one process for any number of lines. It is no transaction: what stands before a
//! line that is refused happens all the same, so lines are written such that none depends on being the last.

use hashbrown::HashSet;

use super::element::{self, Entry};
use super::program::{Program, ProgramError};
use crate::kernel::layout::Kind;

/// So many elements a set takes. It costs nothing until they are there.
pub(super) const MAXELEM: u32 = 1 << 22;
/// The most lines that may be refused before we give up: a set that is full counts as one.
const REFUSALS_MAX: usize = 16;
/// `ipset`.
#[derive(Debug)]
pub(super) struct Ipset(pub(super) Program);

/// A set that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    /// `hash:ip` and its kin.
    kind: String,
    /// Its parameters, as `create` takes them.
    header: String,
    /// How many elements it has; old kernels do not say.
    pub(super) entries: Option<u64>,
}

/// A line that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) line: String,
    pub(super) complaint: String,
    /// How many more lines were left out for it: a full set takes none of those after it either.
    pub(super) more: usize,
}

impl Refusal {
    /// The set took as many elements as it can.
    pub(super) fn is_full(&self) -> bool {
        self.complaint.contains("is full")
    }

    /// The set that the line names.
    pub(super) fn set(&self) -> &str {
        set_of(&self.line).unwrap_or_default()
    }
}

impl Ipset {
    /// All sets, ours and others', without their elements.
    pub(super) async fn sets(&self) -> Result<Vec<Listed>, ProgramError> {
        Ok(listed(&self.0.run(&["list", "-terse"], "").await?))
    }

    /// The elements of a set.
    pub(super) async fn entries(&self, set: &str) -> Result<Vec<Entry>, ProgramError> {
        Ok(self.0.run(&["save", set], "").await?.lines().filter_map(element::entry).collect())
    }

    /// Carries `lines` out, also when some of them are refused: which.
    pub(super) async fn restore(&self, mut lines: Vec<String>) -> Result<Vec<Refusal>, ProgramError> {
        let mut refusals: Vec<Refusal> = Vec::new();
        while !lines.is_empty() {
            let mut input = lines.join("\n");
            input.push('\n');
            let Err(failure) = self.0.run(&["restore", "-exist"], &input).await else { break };
            let refused = failure.complaint().and_then(refused_line);
            let Some((at, complaint)) = refused.filter(|(at, _)| (1..=lines.len()).contains(at)) else {
                return Err(failure);
            };
            if refusals.len() >= REFUSALS_MAX {
                return Err(failure);
            }
            let line = lines.remove(at - 1);
            let mut refusal = Refusal { line, complaint, more: 0 };
            // Lines before it may not have been sent yet: all that remain are carried out (again), which does no harm.
            if refusal.is_full() {
                let (set, before) = (refusal.set().to_owned(), lines.len());
                let mut n = 0;
                lines.retain(|line| {
                    n += 1;
                    n < at || !line.starts_with("add ") || set_of(line) != Some(&set)
                });
                refusal.more = before - lines.len();
            }
            refusals.push(refusal);
        }
        Ok(refusals)
    }
}

/// The line that makes a set.
pub(super) fn create(name: &str, kind: Kind) -> String {
    let (of, family) = shape(kind);
    format!("create {name} {of} family {family} maxelem {MAXELEM} timeout 0 counters comment")
}

impl Listed {
    /// Whether it can hold bans of this kind as we write them.
    pub(super) fn fits(&self, kind: Kind) -> bool {
        let (of, family) = shape(kind);
        let words: Vec<&str> = self.header.split_whitespace().collect();
        let has = |word| words.contains(&word);
        self.kind == of
            && words.windows(2).any(|pair| pair == ["family", family])
            && ["timeout", "counters", "comment"].into_iter().all(has)
            && !["netmask", "bitmask", "markmask"].into_iter().any(has)
    }
}

fn shape(kind: Kind) -> (&'static str, &'static str) {
    let of = if matches!(kind, Kind::Single4 | Kind::Single6) { "hash:ip" } else { "hash:net" };
    (of, if kind.is_ipv6() { "inet6" } else { "inet" })
}

/// `ipset list -terse`.
fn listed(text: &str) -> Vec<Listed> {
    let mut out: Vec<Listed> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if key == "Name" {
            let name = value.to_owned();
            out.push(Listed { name, kind: String::new(), header: String::new(), entries: None });
        }
        let Some(last) = out.last_mut() else { continue };
        match key {
            "Type" => value.clone_into(&mut last.kind),
            "Header" => value.clone_into(&mut last.header),
            "Number of entries" => last.entries = value.parse().ok(),
            _ => {}
        }
    }
    out
}

/// The number of the line that `ipset restore` complains about, and the complaint.
fn refused_line(complaint: &str) -> Option<(usize, String)> {
    let (_, rest) = complaint.split_once("Error in line ")?;
    let (number, why) = rest.split_once(": ")?;
    Some((number.parse().ok()?, why.to_owned()))
}

fn set_of(line: &str) -> Option<&str> {
    line.split(' ').nth(1)
}

/// Sets whose bans did not all find room, for a message.
pub(super) fn full(refusals: &[Refusal]) -> Option<String> {
    let full: Vec<&Refusal> = refusals.iter().filter(|refusal| refusal.is_full()).collect();
    let bans: usize = full.iter().map(|refusal| 1 + refusal.more).sum();
    let sets: HashSet<&str> = full.iter().map(|refusal| refusal.set()).collect();
    let mut sets: Vec<&str> = sets.into_iter().collect();
    sets.sort_unstable();
    (bans > 0).then(|| format!("{bans} bans are not in force: the ipset {} is full", sets.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_as_ipset_makes_them() {
        assert_eq!(
            create("stockade_banned4", Kind::Single4),
            "create stockade_banned4 hash:ip family inet maxelem 4194304 timeout 0 counters comment"
        );
        assert_eq!(
            create("stockade_banned6_64", Kind::Prefix6(64)),
            "create stockade_banned6_64 hash:net family inet6 maxelem 4194304 timeout 0 counters comment"
        );
    }

    #[test]
    fn a_listing_tells_whether_a_set_is_as_we_make_it() {
        let text = "Name: stockade_banned4\nType: hash:ip\nRevision: 6\nHeader: family inet hashsize 1024 maxelem 10 timeout 0 counters comment bucketsize 12\nSize in memory: 514\nReferences: 0\nNumber of entries: 2\n\nName: f2b\nType: hash:net\nHeader: family inet6 hashsize 1024 maxelem 10\n";
        let sets = listed(text);
        assert_eq!((sets[0].name.as_str(), sets[0].entries), ("stockade_banned4", Some(2)));
        assert!(sets[0].fits(Kind::Single4) && !sets[0].fits(Kind::Single6) && !sets[0].fits(Kind::Nets4));
        assert_eq!(sets[1].entries, None);
        assert!(!sets[1].fits(Kind::Nets6), "without timeouts and comments");
    }

    #[test]
    fn a_complaint_names_its_line() {
        assert_eq!(
            refused_line("ipset v7.17: Error in line 12: Hash is full, cannot add more elements"),
            Some((12, "Hash is full, cannot add more elements".to_owned()))
        );
        assert_eq!(refused_line("Kernel error received: Operation not permitted"), None);
    }
}
