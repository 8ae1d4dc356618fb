//! The value of one field of a key, and its bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The value of one field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Value {
    /// An address.
    Addr(IpAddr),
    /// A network shorter than one address; its host bits are zero. [`Value::from`] sees to both.
    Net(IpNet),
    /// A port.
    Service(u16),
    /// A transport protocol.
    Proto(u8),
    /// From the first to the last, both included. [`Value::between`] makes a network of it where it is one.
    Range(Box<Self>, Box<Self>),
    /// The bytes of a type this crate does not read.
    Bytes(Box<[u8]>),
}

impl Value {
    /// From `first` to `last`, both included: the address or network when it is one, so that equal ranges are equal
    /// values. When `last` is not after `first`, `first` alone.
    #[must_use]
    pub fn between(first: Self, last: Self) -> Self {
        if first >= last {
            return first;
        }
        match (&first, &last) {
            (Self::Addr(a), Self::Addr(b)) => match net_between(*a, *b) {
                Some(net) => Self::Net(net),
                None => Self::Range(first.into(), last.into()),
            },
            _ => Self::Range(first.into(), last.into()),
        }
    }

    /// The network this is, an address being the smallest.
    #[must_use]
    pub fn net(&self) -> Option<IpNet> {
        match self {
            Self::Addr(a) => Some(IpNet::from(*a)),
            Self::Net(net) => Some(*net),
            _ => None,
        }
    }

    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        match self {
            Self::Addr(one) => *one == address,
            Self::Net(net) => net.contains(&address),
            Self::Range(first, last) => match (&**first, &**last) {
                // Of another family it is before or after all of a range's.
                (Self::Addr(first), Self::Addr(last)) => (first..=last).contains(&&address),
                _ => false,
            },
            Self::Service(_) | Self::Proto(_) | Self::Bytes(_) => false,
        }
    }

    /// First and last value; the same for a single one.
    pub(crate) fn bounds(&self) -> (Raw, Raw) {
        match self {
            Self::Addr(a) => (Raw::addr(*a), Raw::addr(*a)),
            Self::Net(net) => (Raw::addr(net.network()), Raw::addr(net.broadcast())),
            Self::Service(n) => (Raw::new(&n.to_be_bytes()), Raw::new(&n.to_be_bytes())),
            Self::Proto(n) => (Raw::new(&[*n]), Raw::new(&[*n])),
            Self::Range(a, b) => (a.bounds().0, b.bounds().1),
            Self::Bytes(b) => (Raw::new(b), Raw::new(b)),
        }
    }
}

/// The network that begins at `first` and ends at `last`, if there is one.
fn net_between(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let prefix = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return None,
    };
    let net = IpNet::new(first, u8::try_from(prefix).ok()?).ok()?;
    (net.network() == first && net.broadcast() == last).then_some(net)
}

impl From<IpAddr> for Value {
    fn from(addr: IpAddr) -> Self {
        Self::Addr(addr)
    }
}

impl From<Ipv4Addr> for Value {
    fn from(addr: Ipv4Addr) -> Self {
        Self::Addr(addr.into())
    }
}

impl From<Ipv6Addr> for Value {
    fn from(addr: Ipv6Addr) -> Self {
        Self::Addr(addr.into())
    }
}

impl From<IpNet> for Value {
    fn from(net: IpNet) -> Self {
        if net.prefix_len() == net.max_prefix_len() { Self::Addr(net.addr()) } else { Self::Net(net.trunc()) }
    }
}

impl From<u16> for Value {
    fn from(port: u16) -> Self {
        Self::Service(port)
    }
}

/// Up to 64 bytes of a key, the most the kernel takes, without an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raw {
    bytes: [u8; 64],
    len: u8,
}

impl Raw {
    pub(crate) const EMPTY: Self = Self { bytes: [0; 64], len: 0 };

    /// Cuts what is longer: the length then does not fit the set, and the element is refused.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut raw = Self::EMPTY;
        raw.push(bytes);
        raw
    }

    pub(crate) fn addr(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(a) => Self::new(&a.octets()),
            IpAddr::V6(a) => Self::new(&a.octets()),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        let n = bytes.len().min(self.bytes.len() - at);
        self.bytes[at..at + n].copy_from_slice(&bytes[..n]);
        self.len += n as u8;
    }

    /// Zeros up to the next multiple of four.
    pub(crate) fn pad(&mut self) {
        self.len = self.len.next_multiple_of(4);
    }

    /// The next value, or `None` when this is the last one there is.
    pub(crate) fn successor(mut self) -> Option<Self> {
        for byte in self.bytes[..usize::from(self.len)].iter_mut().rev() {
            let (next, carry) = byte.overflowing_add(1);
            *byte = next;
            if !carry {
                return Some(self);
            }
        }
        None
    }

    /// The value before; the last one there is before zero.
    pub(crate) fn predecessor(mut self) -> Self {
        for byte in self.bytes[..usize::from(self.len)].iter_mut().rev() {
            let (next, borrow) = byte.overflowing_sub(1);
            *byte = next;
            if !borrow {
                break;
            }
        }
        self
    }
}
