//! Whose network this is.
//!
//! Bans hold for the packets of one network namespace. In the host's they hold for the host and for the containers whose
//! ports it publishes; in a container's they hold for that container alone.

use std::fs;
use std::path::Path;

/// A network namespace, seen from within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The one the kernel started with.
    Host,
    /// Another: a container's, or one made by hand.
    Own,
    /// It could not be told.
    Unknown,
}

/// Where this process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose network it sees.
    pub network: Network,
    /// What kind of container it is in, if any: `docker`, `podman`, …
    pub container: Option<&'static str>,
}

impl Place {
    /// Looks around.
    #[must_use]
    pub fn here() -> Self {
        let link = |path: &str| fs::read_link(path).ok().and_then(|link| link.to_str().map(str::to_owned));
        let network = network(
            Path::new("/proc/thread-self/net/dev").exists()
                && Path::new("/proc/sys/net/core/somaxconn").exists(),
            Path::new("/proc/sys/net/core/netdev_max_backlog").exists(),
            link("/proc/self/ns/pid").as_deref(),
            (link("/proc/thread-self/ns/net"), link("/proc/1/ns/net")),
        );
        let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let marks = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];
        let marked = marks.iter().find(|(file, _)| Path::new(file).exists()).map(|(_, kind)| *kind);
        Self { network, container: marked.or_else(|| of_cgroup(&cgroup)) }
    }
}

/// The first pid namespace has this number in every kernel (`PROC_PID_INIT_INO` of `linux/proc_ns.h`).
pub(crate) const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Most of `net.core.*` belongs to no network namespace and is shown in the first alone
/// (`net_core_table` of net/core/sysctl_net_core.c). Where that cannot be seen: who shares the network of process 1 is
/// at home, if process 1 is the host's and not a container's.
fn network(
    sysctls: bool,
    first: bool,
    pids: Option<&str>,
    (own, init): (Option<String>, Option<String>),
) -> Network {
    match (sysctls, first) {
        (true, true) => return Network::Host,
        (true, false) => return Network::Own,
        (false, _) => {}
    }
    match (pids == Some(FIRST_PID_NAMESPACE), own, init) {
        (true, Some(own), Some(init)) if own == init => Network::Host,
        (_, Some(own), Some(init)) if own != init => Network::Own,
        _ => Network::Unknown,
    }
}

/// Container managers name the control group after the container.
fn of_cgroup(cgroup: &str) -> Option<&'static str> {
    const MARKS: [(&str, &str); 7] = [
        ("kubepods", "kubernetes"),
        ("/docker", "docker"),
        ("libpod", "podman"),
        ("/lxc", "lxc"),
        ("machine.slice", "systemd-nspawn"),
        ("crio-", "cri-o"),
        ("containerd", "containerd"),
    ];
    let paths = || cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    // The daemons themselves run in a service of their own.
    let inside = |path: &str, mark: &str| path.contains(mark) && !path.ends_with(".service");
    MARKS.iter().find(|(mark, _)| paths().any(|path| inside(path, mark))).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_network_is_known_by_its_sysctls() {
        let net = |n: u32| Some(format!("net:[{n}]"));
        assert_eq!(network(true, true, None, (None, None)), Network::Host);
        // In a container process 1 is the container's own, and shares its network.
        assert_eq!(network(true, false, Some("pid:[4026532999]"), (net(1), net(1))), Network::Own);
        assert_eq!(network(false, false, Some(FIRST_PID_NAMESPACE), (net(1), net(1))), Network::Host);
        assert_eq!(network(false, false, Some(FIRST_PID_NAMESPACE), (net(1), net(2))), Network::Own);
        assert_eq!(network(false, false, Some("pid:[4026532999]"), (net(1), net(1))), Network::Unknown);
        assert_eq!(network(false, false, Some(FIRST_PID_NAMESPACE), (net(1), None)), Network::Unknown);
    }

    #[test]
    fn a_control_group_names_the_manager() {
        assert_eq!(of_cgroup("0::/docker/4b4f9c5dad6a\n"), Some("docker"));
        assert_eq!(of_cgroup("1:cpu:/kubepods/besteffort/pod1/2\n"), Some("kubernetes"));
        assert_eq!(of_cgroup("0::/machine.slice/libpod-1.scope\n"), Some("podman"));
        assert_eq!(of_cgroup("0::/system.slice/docker.service\n"), None);
        assert_eq!(of_cgroup("0::/user.slice/user-0.slice\n"), None);
        assert_eq!(of_cgroup("0::/\n"), None);
    }
}
