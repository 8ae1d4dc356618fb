//! What this process may do.

use std::fs;

/// Capabilities that matter here (capabilities(7)), by their numbers in `linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Reading files that are not one's own.
    DacReadSearch,
    /// Changing nf_tables.
    NetAdmin,
    /// Nearly everything; before Linux 5.8 also what the two below are for.
    SysAdmin,
    /// BPF programs that compute with addresses.
    Perfmon,
    /// BPF programs and maps.
    Bpf,
}

impl Capability {
    /// Its name, as Docker's `--cap-add` and systemd's `AmbientCapabilities=` take it with `CAP_` in front.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::DacReadSearch => 2,
            Self::NetAdmin => 12,
            Self::SysAdmin => 21,
            Self::Perfmon => 38,
            Self::Bpf => 39,
        }
    }
}

/// The effective capabilities of this process, and over what they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// `None`: `/proc/self/status` could not be read.
    effective: Option<u64>,
    /// Whether the user namespace is the host's first; `None`: not known.
    initial: Option<bool>,
}

impl Privileges {
    /// Reads them.
    #[must_use]
    pub fn of_this_process() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let map = fs::read_to_string("/proc/self/uid_map").ok();
        Self { effective: effective(&status), initial: map.map(|map| is_initial(&map)) }
    }

    /// What `/proc/PID/status` tells of a process, whose user namespace is not known.
    #[must_use]
    pub fn told_by(status: &str) -> Self {
        Self { effective: effective(status), initial: None }
    }

    /// These, of the host's user namespace.
    #[must_use]
    pub fn of(capabilities: &[Capability]) -> Self {
        let bits = capabilities.iter().fold(0, |bits, capability| bits | 1 << capability.number());
        Self { effective: Some(bits), initial: Some(true) }
    }

    /// Whether it is held; `None`: not known.
    #[must_use]
    pub fn holds(&self, capability: Capability) -> Option<bool> {
        self.effective.map(|bits| bits >> capability.number() & 1 == 1)
    }

    /// Whether they hold in the host's user namespace, not only in one of a container's; `None`: not known.
    #[must_use]
    pub fn is_initial(&self) -> Option<bool> {
        self.initial
    }
}

/// The line `CapEff:` of `/proc/PID/status` (proc(5)), a number in hexadecimal.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The first user namespace maps all users to themselves (user_namespaces(7)). One that maps all of them as well was made
/// by somebody who may do everything.
fn is_initial(map: &str) -> bool {
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_bits_of_a_hexadecimal_number() {
        let of = |status: &str| Privileges { effective: effective(status), initial: None };
        let docker = of("Name:\tx\nCapInh:\tffffffffffffffff\nCapEff:\t00000000a80425fb\nCapBnd:\t0\n");
        assert_eq!(docker.holds(Capability::NetAdmin), Some(false));
        let all = of("CapEff:\t000001ffffffffff\n");
        for capability in
            [Capability::NetAdmin, Capability::Bpf, Capability::Perfmon, Capability::DacReadSearch]
        {
            assert_eq!(all.holds(capability), Some(true), "{capability:?}");
        }
        let one = of("CapEff:\t0000000000001000\n");
        assert_eq!((one.holds(Capability::NetAdmin), one.holds(Capability::Bpf)), (Some(true), Some(false)));
        assert_eq!(of("CapEff:\tx\n").holds(Capability::Bpf), None);
        assert_eq!(of("").holds(Capability::Bpf), None);
    }

    #[test]
    fn the_first_user_namespace_maps_everybody() {
        assert!(is_initial("         0          0 4294967295\n"));
        assert!(!is_initial("         0       1000          1\n"));
        assert!(!is_initial("         0     100000      65536\n"));
        assert!(!is_initial(""));
    }
}
