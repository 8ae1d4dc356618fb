//! Capabilities for a child. The agent hands on none by itself: what a child is to have stands in the ambient set of the
//! thread that starts it, for as long as starting takes (capabilities(7)).

use std::marker::PhantomData;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, set_capabilities,
};

/// journalctl: journals belong to root and the group systemd-journal.
pub(crate) const JOURNALCTL: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;
/// iptables-legacy and ipset; the lock file of iptables is root's.
pub(crate) const LEGACY: CapabilitySet =
    CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW).union(CapabilitySet::DAC_READ_SEARCH);

/// While this lives, what this thread starts has the capabilities.
#[must_use]
pub(crate) struct Lent {
    /// It is this thread's.
    _here: PhantomData<*const ()>,
}

/// Lends what of `wanted` is held. A child that lacks something says so better than we could.
pub(crate) fn lend(wanted: CapabilitySet) -> Lent {
    if let Err(e) = raise(wanted) {
        tracing::debug!("nothing could be lent to a program: {e}");
    }
    Lent { _here: PhantomData }
}

fn raise(wanted: CapabilitySet) -> rustix::io::Result<()> {
    let held = capabilities(None)?;
    let lent = held.permitted & wanted;
    // Only what is inheritable can be ambient.
    set_capabilities(None, CapabilitySets { inheritable: lent, ..held })?;
    lent.iter().try_for_each(|one| configure_capability_in_ambient_set(one, true))
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Both only make it less, which nothing refuses.
        let _cleared = clear_ambient_capability_set();
        if let Ok(held) = capabilities(None) {
            let none = CapabilitySets { inheritable: CapabilitySet::empty(), ..held };
            let _cleared = set_capabilities(None, none);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What a child has: the lines of proc(5).
    fn child() -> String {
        let out = Command::new("grep").args(["CapAmb", "/proc/self/status"]).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn a_child_has_what_is_lent_and_the_next_one_nothing() {
        assert!(
            nix::unistd::geteuid().is_root(),
            "capabilities can be lent by root alone: run tests/run as root"
        );
        assert_eq!(child(), "CapAmb:\t0000000000000000");
        let lent = lend(JOURNALCTL);
        assert_eq!(child(), "CapAmb:\t0000000000000004");
        drop(lent);
        assert_eq!(child(), "CapAmb:\t0000000000000000");
        let inheritable = capabilities(None).unwrap().inheritable;
        assert!(inheritable.is_empty(), "{inheritable:?}");
    }
}
