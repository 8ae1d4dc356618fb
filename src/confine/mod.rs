//! What the agent may do is made less by itself, whoever started it: as root by hand, in a container, or by systemd, whose unit
//! leaves nothing to drop.
//!
//! Capabilities, securebits and `no_new_privs` belong to a thread, and a new thread has those of the one that makes it. So all
//! of this is done before there is a second one. What is not held need not be dropped: where the kernel does not let us (a
//! container without CAP_SETPCAP), there was little to begin with, and what is left is told.

mod hint;
mod lend;
mod needs;

use std::fmt;
use std::io;

use nix::sys::prctl;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits,
};

pub use self::hint::hint;
pub(crate) use self::lend::{JOURNALCTL, LEGACY, lend};
pub use self::needs::{Needs, programs};
use crate::config::Config;

/// Drops what an agent with this configuration does not need, and tells what is left. Only while there is one thread.
pub fn confine(config: &Config, observe: bool) {
    match drop_all_but(&Needs::of(config, observe)) {
        Ok(kept) => tracing::info!("{kept}"),
        Err(e) => tracing::warn!(
            "failed to drop what is not needed ({e}): the agent goes on with what it was started with"
        ),
    }
}

/// Whether a program that needs raw sockets could be lent the right to them.
pub(crate) fn may_use_raw_sockets() -> bool {
    capabilities(None).is_ok_and(|held| held.permitted.contains(CapabilitySet::NET_RAW))
}

/// What is left.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    capabilities: CapabilitySet,
    /// What `execve` could give; all of it only to programs that a sink runs.
    bounding: CapabilitySet,
    no_new_privs: bool,
    /// Sinks whose programs are run as whoever the agent is.
    programs: Vec<String>,
}

fn drop_all_but(needs: &Needs) -> io::Result<Kept> {
    let held = capabilities(None)?;
    let keep = held.permitted & needs.capabilities;
    // Nothing is handed on by itself; see `lend`.
    clear_ambient_capability_set()?;
    if needs.programs.is_empty() {
        for one in bounding().difference(needs.capabilities).iter() {
            match remove_capability_from_bounding_set(one) {
                // Without CAP_SETPCAP it cannot be, and what `execve` can give does not matter without new privileges.
                Ok(()) | Err(rustix::io::Errno::PERM) => {}
                Err(e) => return Err(e.into()),
            }
        }
        // From here on the user 0 is a user as any other: a child has what it is lent, and no more.
        let as_any_other = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
        match set_capabilities_secure_bits(as_any_other) {
            Ok(()) | Err(rustix::io::Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
        prctl::set_no_new_privs()?;
    }
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    // Memory holds tokens: no core file of it, and nobody of the same user looks into it.
    prctl::set_dumpable(false)?;
    Ok(Kept {
        capabilities: keep,
        bounding: bounding(),
        no_new_privs: prctl::get_no_new_privs()?,
        programs: needs.programs.clone(),
    })
}

/// What `execve` can give at most.
fn bounding() -> CapabilitySet {
    // The kernel refuses numbers behind its last.
    let known = (0..63).map(|n| CapabilitySet::from_bits_retain(1 << n));
    known.filter(|one| capability_is_in_bounding_set(*one) == Ok(true)).collect()
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "capabilities kept: {}", Names(self.capabilities))?;
        if self.programs.is_empty() {
            return f.write_str("; what is run gets no others");
        }
        // Under no_new_privs not even root's programs have more than who runs them (capabilities(7)).
        let how = if self.no_new_privs || self.bounding.difference(self.capabilities).is_empty() {
            "with no others"
        } else {
            "with all that their user may have"
        };
        write!(f, "; programs are run for the sinks {}, {how}", self.programs.join(", "))
    }
}

/// Capabilities by their names, as `--cap-add` and `AmbientCapabilities=` take them.
struct Names(CapabilitySet);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (n, (name, _)) in self.0.iter_names().enumerate() {
            write!(f, "{}CAP_{name}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told() {
        let capabilities = CapabilitySet::NET_ADMIN | CapabilitySet::DAC_READ_SEARCH;
        let mut kept =
            Kept { capabilities, bounding: capabilities, no_new_privs: true, programs: Vec::new() };
        let told = "capabilities kept: CAP_DAC_READ_SEARCH, CAP_NET_ADMIN";
        assert_eq!(kept.to_string(), format!("{told}; what is run gets no others"));
        kept.programs = vec!["mail".to_owned(), "web".to_owned()];
        let told = format!("{told}; programs are run for the sinks mail, web, with");
        assert_eq!(kept.to_string(), format!("{told} no others"));
        kept.bounding = CapabilitySet::all();
        assert_eq!(kept.to_string(), format!("{told} no others"));
        kept.no_new_privs = false;
        assert_eq!(kept.to_string(), format!("{told} all that their user may have"));
        kept.capabilities = CapabilitySet::empty();
        assert!(kept.to_string().starts_with("capabilities kept: none; "));
    }
}
