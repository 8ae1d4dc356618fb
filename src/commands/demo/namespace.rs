//! A network of our own: fresh namespaces, a loopback interface that is up, and addresses on it.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};

use crate::commands::link::{LOOPBACK, Links};

/// Moves this process into a network namespace of its own, by way of a user namespace of its own where it is not root.
/// The process must still be single-threaded: the kernel demands it for a user namespace (unshare(2)).
pub(super) fn enter() -> Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if uid.is_root() {
        return unshare(CloneFlags::CLONE_NEWNET)
            .context("failed to make a network namespace (in a container, run it with --cap-add SYS_ADMIN)");
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).context(
        "failed to make a user and network namespace: this kernel does not allow it to ordinary users \
         (see sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces and \
         kernel.apparmor_restrict_unprivileged_userns); run it as root",
    )?;
    // Who may not change groups may map one (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny").context("failed to write /proc/self/setgroups")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("failed to write /proc/self/gid_map")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("failed to write /proc/self/uid_map")
}

/// Brings the loopback interface up and gives it the address of the `server`, and the network of its `clients` (24 bits),
/// of which one address alone is this host's own: what is its own is never banned.
pub(super) fn prepare(server: IpAddr, clients: IpAddr) -> Result<()> {
    let links = Links::open()?;
    links.up(LOOPBACK)?;
    links.add_address(LOOPBACK, server)?;
    links.add_network(LOOPBACK, clients, 24)
}
