//! One question to ipset, nf_tables' older neighbour: does the kernel have a type of set?

use std::io;

use crate::connection::Connection;
use crate::sys;
use crate::table::Family;

/// `IPSET_CMD_TYPE` of `linux/netfilter/ipset/ip_set.h`.
const IPSET_CMD_TYPE: u16 = 13;
const IPSET_ATTR_PROTOCOL: u16 = 1;
const IPSET_ATTR_TYPENAME: u16 = 3;
const IPSET_ATTR_REVISION: u16 = 4;
const IPSET_ATTR_FAMILY: u16 = 5;
/// Version 6 is from Linux 2.6.39; kernels of version 7 answer it as well.
const PROTOCOL: u8 = 6;

impl Connection {
    /// Whether the kernel has ipset's sets of this type (`hash:net`) for [`Family::Ip`] or [`Family::Ip6`]: the
    /// highest revision of it. Nothing is made; the kernel may load the module.
    ///
    /// # Errors
    /// `ENOENT` and other numbers of the kernel where there is no such type, `EINVAL` where there is no ipset, `EPERM`
    /// for want of `CAP_NET_ADMIN`.
    pub async fn ipset_type(&mut self, name: &str, family: Family) -> io::Result<u8> {
        // The kernel counts families as the socket API does: IPv4 is 2 and IPv6 is 10.
        let family = family.number();
        let kind = (sys::NFNL_SUBSYS_IPSET << 8) | IPSET_CMD_TYPE;
        let found = self
            .ask(
                kind,
                family,
                |w| {
                    w.attr(IPSET_ATTR_PROTOCOL, &[PROTOCOL]);
                    w.str(IPSET_ATTR_TYPENAME, name);
                    w.attr(IPSET_ATTR_FAMILY, &[family]);
                },
                |message, all: &mut Vec<u8>| {
                    if message.kind == kind {
                        let revision = message.attributes().get(IPSET_ATTR_REVISION);
                        all.extend(revision.and_then(|bytes| bytes.first()));
                    }
                },
            )
            .await?;
        found.first().copied().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}
