//! Objects as nft(8) prints them: `Display` of a [`Ruleset`] is what `nft list ruleset` says, `Display` of a
//! [`Batch`](crate::Batch) is what `nft -f` reads.
//!
//! Measured against nft 1.0.6: tabs, how many elements stand on a line, the names of priorities, which protocol
//! checks are left out because the condition after them implies them.

mod batch;
mod key;
mod object;
mod rule;

use std::fmt;
use std::time::Duration;

use crate::chain::Chain;
use crate::element::Element;
use crate::rule::Rule;
use crate::set::Set;
use crate::table::Table;

/// Tables with all that is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The tables in order.
    pub tables: Vec<TableContent>,
}

/// A table with all that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableContent {
    /// The table.
    pub table: Table,
    /// Its sets in order, each with its elements.
    pub sets: Vec<(Set, Vec<Element>)>,
    /// Its chains in order, each with its rules.
    pub chains: Vec<(Chain, Vec<Rule>)>,
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tables.iter().try_for_each(|t| writeln!(f, "{t}"))
    }
}

/// A duration as nft writes it, `1d2h3m4s500ms`: whole milliseconds, zero parts left out.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms == 0 {
            return f.write_str("0s");
        }
        let parts = [
            (ms / 86_400_000, "d"),
            (ms / 3_600_000 % 24, "h"),
            (ms / 60_000 % 60, "m"),
            (ms / 1000 % 60, "s"),
        ];
        for (n, unit) in parts.into_iter().chain([(ms % 1000, "ms")]).filter(|(n, _)| *n > 0) {
            write!(f, "{n}{unit}")?;
        }
        Ok(())
    }
}
