//! Our part of one table, kept as it should be.

use super::iptables::{Family, Iptables, Saved, Wanted};
use super::program::ProgramError;
use super::rules::{FILTER, RAW};

/// A table of one family that rules of ours are in.
#[derive(Debug)]
pub(super) struct Table {
    programs: Iptables,
    pub(super) name: &'static str,
    /// Which chains are ours.
    ours: fn(&str) -> bool,
    /// Our rules, as the program printed them after they were written.
    written: Option<Vec<String>>,
}

impl Table {
    /// The first of `names` that the kernel has.
    pub(super) async fn open(
        family: Family,
        names: &[&'static str],
        ours: fn(&str) -> bool,
    ) -> Result<Self, ProgramError> {
        let programs = Iptables::find(family).await?;
        let mut first = None;
        for name in names {
            match programs.saved(name).await {
                Ok(_) => return Ok(Self { programs, name, ours, written: None }),
                Err(e) => first = first.or(Some(e)),
            }
        }
        // It says the same of any table: no permission, no module.
        Err(first.unwrap_or(ProgramError::Missing { name: "iptables-legacy-restore", package: "iptables" }))
    }

    pub(super) fn family(&self) -> Family {
        self.programs.family
    }

    /// It, as it is.
    pub(super) async fn saved(&self) -> Result<Saved, ProgramError> {
        self.programs.saved(self.name).await
    }

    /// Makes our part `wanted`, where it is not: one transaction. Returns what was replaced, which is nothing where there was
    /// nothing to do.
    pub(super) async fn write(&mut self, wanted: &Wanted) -> Result<Saved, ProgramError> {
        let saved = self.saved().await?;
        if self.is_as_written(&saved) && saved.misplaced(wanted).is_none() {
            return Ok(Saved::default());
        }
        self.written = None;
        self.programs.restore(&saved.change(self.name, wanted, self.ours)).await?;
        self.written = Some(self.programs.saved(self.name).await?.of_ours(self.ours));
        Ok(saved)
    }

    /// As [`write`](Self::write), of rules that are other ones than before.
    pub(super) async fn rewrite(&mut self, wanted: &Wanted) -> Result<Saved, ProgramError> {
        self.written = None;
        self.write(wanted).await
    }

    /// What somebody has changed, to be read after "iptables-legacy was"; `None` while all is well.
    pub(super) async fn look(&self, wanted: &Wanted) -> Result<Option<String>, ProgramError> {
        let saved = self.programs.saved(self.name).await?;
        let program = if self.family().is_ipv6() { "ip6tables" } else { "iptables" };
        if let Some((from, to)) = saved.misplaced(wanted) {
            return Ok(Some(format!("changed: {program} had no jump to {to} in front of all in {from}")));
        }
        let same = self.is_as_written(&saved);
        Ok((!same).then(|| format!("changed: rules of ours in {program}'s table {} were others", self.name)))
    }

    fn is_as_written(&self, saved: &Saved) -> bool {
        self.written.as_ref().is_some_and(|rules| *rules == saved.of_ours(self.ours))
    }

    /// Takes what is ours out of every table.
    pub(super) async fn clear(&mut self) -> Result<(), ProgramError> {
        self.written = None;
        self.clear_one(RAW).await?;
        self.clear_one(FILTER).await
    }

    /// Takes out what an agent wrote to the other table, when the kernel had no raw table, or the other way round.
    pub(super) async fn clear_other(&self) -> Result<(), ProgramError> {
        self.clear_one(if self.name == RAW { FILTER } else { RAW }).await
    }

    async fn clear_one(&self, name: &str) -> Result<(), ProgramError> {
        // Asking about a table makes it: one that is not there has nothing of ours.
        if name != self.name && !is_made(self.family(), name) {
            return Ok(());
        }
        let saved = self.programs.saved(name).await?;
        if !saved.has_any(self.ours) {
            return Ok(());
        }
        self.programs.restore(&saved.change(name, &Wanted::default(), self.ours)).await
    }

    /// Whether the kernel takes a rule: it is written to a chain of ours that nothing jumps to, and removed in the same run.
    pub(super) async fn takes(&self, rule: &str) -> Result<(), ProgramError> {
        let (table, chain) = (self.name, PROBE);
        let input = format!(
            "*{table}\n:{chain} - [0:0]\n-A {chain} {rule}\nCOMMIT\n*{table}\n-F {chain}\n-X {chain}\nCOMMIT\n"
        );
        self.programs.restore(&input).await
    }
}

/// A chain that is there for a moment only.
pub(super) const PROBE: &str = "STOCKADE_PROBE";

/// Whether somebody uses a table in this network namespace: the kernel lists those that were made (netfilter's `x_tables.c`).
pub(super) fn is_made(family: Family, table: &str) -> bool {
    // Of this thread, whose namespace may not be that of the process.
    let names = if family.is_ipv6() {
        "/proc/thread-self/net/ip6_tables_names"
    } else {
        "/proc/thread-self/net/ip_tables_names"
    };
    std::fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == table))
}
