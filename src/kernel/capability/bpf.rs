//! Whether this process may load BPF programs.

use std::collections::BTreeSet;

use nft::bpf::{LoadError, probe};

use super::Answer;
use super::privilege::{Capability, Privileges};
use crate::kernel::header::BpfMatcher;

/// What the program that looks into request heads is made for.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// The headers, in lower case.
    pub names: &'a [String],
    /// The lengths of the IPv6 prefixes that are banned.
    pub prefixes: &'a BTreeSet<u8>,
}

/// Has the kernel load the smallest program, then the very one that is to be used, and closes both.
pub(super) fn may_load(heads: &Heads<'_>, privileges: &Privileges) -> Answer {
    match probe().and_then(|()| BpfMatcher::load(heads.names, heads.prefixes).map(drop)) {
        Ok(()) => Answer::Yes,
        Err(e) if e.is_permission() => refused(privileges),
        Err(LoadError::System(e)) => Answer::No(format!("the kernel refuses to load a BPF program: {e}")),
        Err(LoadError::Verifier { error, .. }) => {
            Answer::No(format!("the kernel's verifier refuses the program ({error}); it takes Linux 5.17"))
        }
    }
}

/// `bpf(2)` asks for CAP_BPF to load and CAP_PERFMON to compute with pointers, both in the first user namespace, since Linux
/// 5.8; CAP_SYS_ADMIN stands for both, and is what older kernels ask for. Attaching to nf_tables takes CAP_NET_ADMIN.
fn derived(privileges: &Privileges) -> Answer {
    if privileges.is_initial() == Some(false) {
        return Answer::No("a user namespace has no say over BPF, whatever its capabilities".to_owned());
    }
    let held = |capability| privileges.holds(capability);
    match (held(Capability::SysAdmin), held(Capability::Bpf), held(Capability::Perfmon)) {
        (Some(true), ..) | (_, Some(true), Some(true)) => Answer::Yes,
        (Some(false), Some(bpf), Some(perfmon)) => {
            let missing = [(bpf, Capability::Bpf), (perfmon, Capability::Perfmon)];
            let names: Vec<&str> =
                missing.iter().filter(|(held, _)| !held).map(|(_, capability)| capability.name()).collect();
            Answer::No(format!("without {}", names.join(" and ")))
        }
        _ => Answer::Unknown("/proc/self/status does not tell which capabilities are held".to_owned()),
    }
}

/// The kernel has refused for want of a right: which one, as far as that can be told.
fn refused(privileges: &Privileges) -> Answer {
    match derived(privileges) {
        Answer::Yes | Answer::Unknown(_) => Answer::No(
            "the kernel does not permit it, though the capabilities are held (a security module, a seccomp filter, \
             or a locked down kernel)"
                .to_owned(),
        ),
        no => no,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpf_takes_two_capabilities_or_the_big_one() {
        use Capability::{Bpf, NetAdmin, Perfmon, SysAdmin};
        let of = |held: &[Capability]| derived(&Privileges::of(held));
        assert_eq!(of(&[Bpf, Perfmon, NetAdmin]), Answer::Yes);
        assert_eq!(of(&[SysAdmin]), Answer::Yes);
        assert_eq!(of(&[Bpf]), Answer::No("without CAP_PERFMON".into()));
        assert_eq!(of(&[NetAdmin]), Answer::No("without CAP_BPF and CAP_PERFMON".into()));
        assert!(matches!(derived(&Privileges::default()), Answer::Unknown(_)));
    }
}
