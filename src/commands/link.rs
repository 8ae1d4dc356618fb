//! Interfaces of a network namespace that is ours, over rtnetlink: wires, addresses, routes.

use std::ffi::CString;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Ifa, IfaF, Iff, Ifla, RtAddrFamily, RtScope, RtTable, Rta, Rtm, Rtn, Rtprot};
use neli::consts::socket::NlFamily;
use neli::nl::{NlPayload, Nlmsghdr};
use neli::router::synchronous::NlRouter;
use neli::rtnl::{
    Ifaddrmsg, IfaddrmsgBuilder, Ifinfomsg, IfinfomsgBuilder, RtattrBuilder, Rtmsg, RtmsgBuilder,
};
use neli::types::{Buffer, RtBuffer};
use neli::utils::Groups;

/// The loopback interface is the first of every network namespace.
pub(super) const LOOPBACK: u32 = 1;

/// `VETH_INFO_PEER`, `linux/veth.h`
const VETH_INFO_PEER: u16 = 1;
/// `IFLA_INFO_KIND` and `IFLA_INFO_DATA`, `linux/if_link.h`
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
/// Of both ends of a wire: the kernel sends what needs no neighbour to be found ([`Links::up_wire`]) to the address of its
/// own end.
const WIRE_ADDRESS: [u8; 6] = [0x02, 0, 0, 0x53, 0x54, 0x4b];
/// `struct ifinfomsg`
const IFINFOMSG: usize = 16;

/// A socket in the network namespace that the thread was in when it was opened.
pub(super) struct Links(NlRouter);

impl Links {
    pub(super) fn open() -> Result<Self> {
        let (router, _) =
            NlRouter::connect(NlFamily::Route, None, Groups::empty()).context("failed to open rtnetlink")?;
        Ok(Self(router))
    }

    /// Makes a pair of interfaces: what goes into one comes out of the other, which is of the same name and in another
    /// namespace.
    pub(super) fn add_wire(&self, name: &str, peer: BorrowedFd<'_>) -> Result<()> {
        let zero_ended = CString::new(name)?;
        let descriptor = peer.as_raw_fd().to_ne_bytes();
        let peer = [
            &[0; IFINFOMSG][..],
            &attribute(IFLA_ADDRESS, &WIRE_ADDRESS),
            &attribute(IFLA_IFNAME, zero_ended.as_bytes_with_nul()),
            &attribute(IFLA_NET_NS_FD, &descriptor),
        ]
        .concat();
        let info = [
            attribute(IFLA_INFO_KIND, b"veth"),
            attribute(IFLA_INFO_DATA, &attribute(VETH_INFO_PEER, &peer)),
        ]
        .concat();
        let mut attributes = RtBuffer::new();
        attributes.push(
            RtattrBuilder::default()
                .rta_type(Ifla::Ifname)
                .rta_payload(Buffer::from(zero_ended.as_bytes_with_nul()))
                .build()?,
        );
        attributes.push(
            RtattrBuilder::default()
                .rta_type(Ifla::Address)
                .rta_payload(Buffer::from(WIRE_ADDRESS.to_vec()))
                .build()?,
        );
        attributes
            .push(RtattrBuilder::default().rta_type(Ifla::Linkinfo).rta_payload(Buffer::from(info)).build()?);
        let message =
            IfinfomsgBuilder::default().ifi_family(RtAddrFamily::Unspecified).rtattrs(attributes).build()?;
        self.change_link(Rtm::Newlink, NlmF::CREATE | NlmF::EXCL, message)
            .context("failed to make a veth pair (is the module veth there?)")
    }

    /// Brings an interface up.
    pub(super) fn up(&self, index: u32) -> Result<()> {
        let message = IfinfomsgBuilder::default()
            .ifi_family(RtAddrFamily::Unspecified)
            .ifi_index(i32::try_from(index)?)
            .up()
            .build()?;
        self.change_link(Rtm::Newlink, NlmF::empty(), message)
            .with_context(|| format!("failed to bring interface {index} up"))
    }

    /// Brings an end of a wire up. Nobody is asked where an address is to be found: an IPv6 address answers to such questions
    /// only some time after it was added, and they are asked again only after a second.
    pub(super) fn up_wire(&self, index: u32) -> Result<()> {
        let flags = Iff::UP | Iff::NOARP;
        let message = IfinfomsgBuilder::default()
            .ifi_family(RtAddrFamily::Unspecified)
            .ifi_index(i32::try_from(index)?)
            .ifi_flags(flags)
            .ifi_change(flags)
            .build()?;
        self.change_link(Rtm::Newlink, NlmF::empty(), message)
            .with_context(|| format!("failed to bring interface {index} up"))
    }

    /// Whether packets go out of an interface. Asking for this one interface also has the kernel do at once, since Linux
    /// 6.8, what it otherwise does within a second of the other end's coming up (`linkwatch_sync_dev` in
    /// net/core/rtnetlink.c).
    pub(super) fn is_running(&self, index: u32) -> Result<bool> {
        let message = IfinfomsgBuilder::default()
            .ifi_family(RtAddrFamily::Unspecified)
            .ifi_index(i32::try_from(index)?)
            .build()?;
        let failed = || format!("failed to ask for interface {index}");
        let mut running = false;
        let payload = NlPayload::Payload(message);
        let answers = self
            .0
            .send::<Rtm, Ifinfomsg, Rtm, Ifinfomsg>(Rtm::Getlink, NlmF::ACK, payload)
            .with_context(failed)?;
        for answer in answers {
            let answer: Nlmsghdr<Rtm, Ifinfomsg> = answer.with_context(failed)?;
            running |= answer.get_payload().is_some_and(|link| link.ifi_flags().contains(Iff::RUNNING));
        }
        Ok(running)
    }

    /// Gives an interface an address, and none of the network around it. Nobody is asked whether it is in use already,
    /// which for IPv6 would take a second.
    pub(super) fn add_address(&self, index: u32, address: IpAddr) -> Result<()> {
        self.add_network(index, address, if address.is_ipv4() { 32 } else { 128 })
    }

    /// The same with the network around it, of so many bits. All of a loopback interface's network is this host.
    pub(super) fn add_network(&self, index: u32, address: IpAddr, length: u8) -> Result<()> {
        let mut attributes = RtBuffer::new();
        attributes.push(
            RtattrBuilder::default()
                .rta_type(Ifa::Local)
                .rta_payload(Buffer::from(octets(address)))
                .build()?,
        );
        let message = IfaddrmsgBuilder::default()
            .ifa_family(family(address))
            .ifa_prefixlen(length)
            .ifa_flags(IfaF::NODAD)
            .ifa_scope(RtScope::Universe)
            .ifa_index(index)
            .rtattrs(attributes)
            .build()?;
        let flags = NlmF::CREATE | NlmF::EXCL | NlmF::ACK;
        let done = (|| {
            let payload = NlPayload::Payload(message);
            for answer in self.0.send::<Rtm, Ifaddrmsg, Rtm, Ifaddrmsg>(Rtm::Newaddr, flags, payload)? {
                answer?;
            }
            anyhow::Ok(())
        })();
        done.with_context(|| format!("failed to give interface {index} the address {address}"))
    }

    /// Everything of this family is to be found at the other end of the interface.
    pub(super) fn add_default_route(&self, index: u32, of: IpAddr) -> Result<()> {
        let mut attributes = RtBuffer::new();
        attributes.push(
            RtattrBuilder::default()
                .rta_type(Rta::Oif)
                .rta_payload(Buffer::from(index.to_ne_bytes().to_vec()))
                .build()?,
        );
        let message = RtmsgBuilder::default()
            .rtm_family(family(of))
            .rtm_dst_len(0)
            .rtm_src_len(0)
            .rtm_tos(0)
            .rtm_table(RtTable::Main)
            .rtm_protocol(Rtprot::Static)
            .rtm_scope(if of.is_ipv4() { RtScope::Link } else { RtScope::Universe })
            .rtm_type(Rtn::Unicast)
            .rtattrs(attributes)
            .build()?;
        let flags = NlmF::CREATE | NlmF::EXCL | NlmF::ACK;
        let done = (|| {
            let payload = NlPayload::Payload(message);
            for answer in self.0.send::<Rtm, Rtmsg, Rtm, Rtmsg>(Rtm::Newroute, flags, payload)? {
                answer?;
            }
            anyhow::Ok(())
        })();
        done.with_context(|| format!("failed to add a route by interface {index}"))
    }

    fn change_link(&self, kind: Rtm, flags: NlmF, message: Ifinfomsg) -> Result<()> {
        let payload = NlPayload::Payload(message);
        for answer in self.0.send::<Rtm, Ifinfomsg, Rtm, Ifinfomsg>(kind, flags | NlmF::ACK, payload)? {
            answer?;
        }
        Ok(())
    }
}

fn family(address: IpAddr) -> RtAddrFamily {
    if address.is_ipv4() { RtAddrFamily::Inet } else { RtAddrFamily::Inet6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// `struct rtattr` with its payload, padded to four bytes.
fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
