//! A network of our own: fresh namespaces, a loopback interface that is up, and addresses on it.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context, Result};
use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Ifa, RtAddrFamily, RtScope, Rtm};
use neli::consts::socket::NlFamily;
use neli::nl::NlPayload;
use neli::router::synchronous::NlRouter;
use neli::rtnl::{Ifaddrmsg, IfaddrmsgBuilder, Ifinfomsg, IfinfomsgBuilder, RtattrBuilder};
use neli::types::{Buffer, RtBuffer};
use neli::utils::Groups;
use nix::sched::{CloneFlags, unshare};

/// The loopback interface is the first of every network namespace.
const LOOPBACK: u8 = 1;

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

/// Brings the loopback interface up and gives it `addresses`.
pub(super) fn prepare(addresses: &[IpAddr]) -> Result<()> {
    let (route, _) =
        NlRouter::connect(NlFamily::Route, None, Groups::empty()).context("failed to open rtnetlink")?;
    let up = IfinfomsgBuilder::default()
        .ifi_family(RtAddrFamily::Unspecified)
        .ifi_index(i32::from(LOOPBACK))
        .up()
        .build()?;
    let answers = route
        .send::<Rtm, Ifinfomsg, Rtm, Ifinfomsg>(Rtm::Newlink, NlmF::ACK, NlPayload::Payload(up))
        .context("failed to bring the loopback interface up")?;
    for answer in answers {
        answer.context("failed to bring the loopback interface up")?;
    }
    for address in addresses {
        let failed = || format!("failed to give the loopback interface the address {address}");
        let (family, bytes) = match address {
            IpAddr::V4(a) => (RtAddrFamily::Inet, a.octets().to_vec()),
            IpAddr::V6(a) => (RtAddrFamily::Inet6, a.octets().to_vec()),
        };
        let mut attributes = RtBuffer::new();
        attributes
            .push(RtattrBuilder::default().rta_type(Ifa::Local).rta_payload(Buffer::from(bytes)).build()?);
        let message = IfaddrmsgBuilder::default()
            .ifa_family(family)
            .ifa_prefixlen(if address.is_ipv4() { 32 } else { 128 })
            .ifa_scope(RtScope::Universe)
            .ifa_index(u32::from(LOOPBACK))
            .rtattrs(attributes)
            .build()?;
        let answers = route
            .send::<Rtm, Ifaddrmsg, Rtm, Ifaddrmsg>(
                Rtm::Newaddr,
                NlmF::CREATE | NlmF::EXCL | NlmF::ACK,
                NlPayload::Payload(message),
            )
            .with_context(failed)?;
        for answer in answers {
            answer.with_context(failed)?;
        }
    }
    Ok(())
}
