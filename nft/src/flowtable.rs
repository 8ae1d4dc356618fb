//! Flowtables: the kernel's short cut for forwarded connections, as far as they are listed.

use std::sync::Arc;

use crate::table::Family;
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
