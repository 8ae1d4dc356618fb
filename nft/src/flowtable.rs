//! Flowtables: the kernel's short cut for forwarded connections, as far as they are listed.

use std::sync::Arc;

use crate::table::{Family, Table};
use crate::wire::Message;

const NFTA_FLOWTABLE_TABLE: u16 = 1;
const NFTA_FLOWTABLE_NAME: u16 = 2;

/// A flowtable. A connection that a rule put into it passes at the hook ingress, and no other hook sees its packets
/// (Documentation/networking/nf_flowtable.rst).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flowtable {
    family: Family,
    table: Arc<str>,
    name: Arc<str>,
}

impl Flowtable {
    /// The flowtable of this name.
    #[must_use]
    pub fn new(table: &Table, name: &str) -> Self {
        Self { family: table.family, table: Arc::clone(&table.name), name: name.into() }
    }

    /// Its table's family.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Its table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// ```text
    /// NFTA_FLOWTABLE_TABLE { string }
    /// NFTA_FLOWTABLE_NAME  { string }
    /// ```
    pub(crate) fn read(message: &Message<'_>) -> Option<Self> {
        let a = message.attributes();
        Some(Self {
            family: Family::from_number(message.family()),
            table: a.str(NFTA_FLOWTABLE_TABLE)?.into(),
            name: a.str(NFTA_FLOWTABLE_NAME)?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;
    use crate::wire::{Writer, messages};

    #[test]
    fn a_listed_one_is_read() {
        let mut w = Writer::new();
        w.nft_message(sys::NFT_MSG_NEWFLOWTABLE, 0, 1, 1, |w| {
            w.str(NFTA_FLOWTABLE_TABLE, "filter");
            w.str(NFTA_FLOWTABLE_NAME, "fast");
        });
        let read: Vec<Flowtable> = messages(w.as_bytes()).filter_map(|m| Flowtable::read(&m)).collect();
        assert_eq!(read, [Flowtable::new(&Table::new(Family::Inet, "filter"), "fast")]);
    }
}
