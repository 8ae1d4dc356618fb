//! What a set's key is made of ([`KeyType`]), and one key ([`Key`]).

use std::net::IpAddr;

use ipnet::IpNet;

use crate::value::Value;

/// The type of a key, or of one field of a concatenation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeyType {
    /// `ipv4_addr`, 4 bytes.
    Ipv4Addr,
    /// `ipv6_addr`, 16 bytes.
    Ipv6Addr,
    /// `inet_proto`, 1 byte: a transport protocol's number.
    InetProto,
    /// `inet_service`, 2 bytes: a port.
    InetService,
    /// A type this crate does not read: nft(8)'s number and the length in bytes.
    Other {
        /// nft(8)'s number of the type; 0 when unknown.
        number: u8,
        /// Bytes.
        len: u8,
    },
}

impl KeyType {
    /// `enum datatypes` of nft(8); the kernel only keeps it.
    const fn number(self) -> u32 {
        match self {
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Other { number, .. } => number as u32,
        }
    }

    const fn from_number(number: u32) -> Option<Self> {
        match number {
            7 => Some(Self::Ipv4Addr),
            8 => Some(Self::Ipv6Addr),
            12 => Some(Self::InetProto),
            13 => Some(Self::InetService),
            _ => None,
        }
    }

    pub(crate) const fn byte_len(self) -> u32 {
        match self {
            Self::Ipv4Addr => 4,
            Self::Ipv6Addr => 16,
            Self::InetProto => 1,
            Self::InetService => 2,
            Self::Other { len, .. } => len as u32,
        }
    }

    /// Bytes as a value of this type.
    fn value(self, bytes: &[u8]) -> Value {
        let exact = match self {
            Self::Ipv4Addr => <[u8; 4]>::try_from(bytes).ok().map(|b| Value::Addr(IpAddr::from(b))),
            Self::Ipv6Addr => <[u8; 16]>::try_from(bytes).ok().map(|b| Value::Addr(IpAddr::from(b))),
            Self::InetProto => <[u8; 1]>::try_from(bytes).ok().map(|b| Value::Proto(b[0])),
            Self::InetService => {
                <[u8; 2]>::try_from(bytes).ok().map(|b| Value::Service(u16::from_be_bytes(b)))
            }
            Self::Other { .. } => None,
        };
        exact.unwrap_or_else(|| Value::Bytes(bytes.into()))
    }
}

/// Most fields of a concatenation: nft(8) has six bits for each in a 32-bit number.
const MAX_FIELDS: usize = 5;

/// One key type, or the fields of a concatenation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTypes {
    fields: [KeyType; MAX_FIELDS],
    len: u8,
}

impl KeyTypes {
    pub(crate) fn from_slice(types: &[KeyType]) -> Self {
        let mut fields = [KeyType::Other { number: 0, len: 0 }; MAX_FIELDS];
        let len = types.len().min(MAX_FIELDS);
        fields[..len].copy_from_slice(&types[..len]);
        Self { fields, len: len as u8 }
    }

    /// The fields in order; one for a set that is no concatenation.
    #[must_use]
    pub fn types(&self) -> &[KeyType] {
        &self.fields[..usize::from(self.len)]
    }

    /// Whether there is more than one field.
    #[must_use]
    pub fn is_concatenation(&self) -> bool {
        self.len > 1
    }

    /// A key's bytes (as [`Event`](crate::Event)s carry them) as a key. Bytes that do not fit are kept as such.
    #[must_use]
    pub fn decode(&self, bytes: &[u8]) -> Key {
        if !self.is_concatenation() {
            return Key::One(self.fields[0].value(bytes));
        }
        match self.split(bytes) {
            Some(fields) => Key::Concat(fields.map(|(t, b)| t.value(b)).collect()),
            None => Key::One(Value::Bytes(bytes.into())),
        }
    }

    /// From first to last, both included.
    pub(crate) fn decode_range(&self, first: &[u8], last: &[u8]) -> Key {
        if !self.is_concatenation() {
            return Key::One(Value::between(self.fields[0].value(first), self.fields[0].value(last)));
        }
        match (self.split(first), self.split(last)) {
            (Some(a), Some(b)) => {
                Key::Concat(a.zip(b).map(|((t, a), (_, b))| Value::between(t.value(a), t.value(b))).collect())
            }
            _ => Key::One(Value::Range(Value::Bytes(first.into()).into(), Value::Bytes(last.into()).into())),
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.types().iter().fold(0, |n, t| (n << 6) | (t.number() & 0x3f))
    }

    /// Fields of a concatenation start at multiples of four.
    pub(crate) fn byte_len(&self) -> u32 {
        match self.types() {
            [one] => one.byte_len(),
            fields => fields.iter().map(|t| t.byte_len().next_multiple_of(4)).sum(),
        }
    }

    /// libnftables' `enum byteorder`: 2 big endian, 1 the host's (types we do not know), 0 a concatenation.
    pub(crate) fn byte_order(&self) -> u32 {
        match self.types() {
            [KeyType::Other { .. }] => 1,
            [_] => 2,
            _ => 0,
        }
    }

    /// Types this crate does not know make the whole key one `Other`, unless the field lengths are given.
    pub(crate) fn from_wire(number: u32, len: u32, lens: &[u32]) -> Self {
        let mut types = Vec::with_capacity(MAX_FIELDS);
        for i in (0..MAX_FIELDS as u32).rev() {
            let n = (number >> (6 * i)) & 0x3f;
            if n == 0 && types.is_empty() {
                continue;
            }
            let field_len = lens.get(types.len()).map_or(0, |l| *l as u8);
            types.push(KeyType::from_number(n).unwrap_or(KeyType::Other { number: n as u8, len: field_len }));
        }
        let whole = Self::from_slice(&types);
        if number >> 30 == 0 && whole.byte_len() == len && !types.is_empty() {
            return whole;
        }
        let number = u8::try_from(number).unwrap_or(0);
        Self::from_slice(&[KeyType::Other { number, len: u8::try_from(len).unwrap_or(u8::MAX) }])
    }

    fn split<'a>(&'a self, bytes: &'a [u8]) -> Option<impl Iterator<Item = (KeyType, &'a [u8])>> {
        let mut at = 0;
        (bytes.len() == self.byte_len() as usize).then(|| {
            self.types().iter().map(move |t| {
                let len = t.byte_len() as usize;
                let field = bytes.get(at..at + len).unwrap_or(&[]);
                at += len.next_multiple_of(4);
                (*t, field)
            })
        })
    }
}

macro_rules! from_arrays {
    ($($n:literal)*) => {$(
        impl From<[KeyType; $n]> for KeyTypes {
            fn from(types: [KeyType; $n]) -> Self {
                Self::from_slice(&types)
            }
        }
    )*};
}
from_arrays!(2 3 4 5);

/// One key of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Of a set with one key type.
    One(Value),
    /// Of a concatenation: one value per field.
    Concat(Box<[Value]>),
}

impl Key {
    /// The key of a set's catch-all element (`*`, kernel 5.13), which matches what no other element does. It is only
    /// listed; it cannot be added.
    #[must_use]
    pub fn catch_all() -> Self {
        Self::Concat(Box::default())
    }

    /// The network this is, an address being the smallest; `None` for ports, concatenations and other ranges.
    #[must_use]
    pub fn net(&self) -> Option<IpNet> {
        match self {
            Self::One(value) => value.net(),
            Self::Concat(_) => None,
        }
    }

    /// Whether this is an address, or a network or range of them, that `address` is of.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        match self {
            Self::One(value) => value.covers(address),
            Self::Concat(_) => false,
        }
    }

    /// The fields.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Concat(values) => values,
        }
    }
}

impl<T: Into<Value>> From<T> for Key {
    fn from(value: T) -> Self {
        Self::One(value.into())
    }
}

impl<A: Into<Value>, B: Into<Value>> From<(A, B)> for Key {
    fn from((a, b): (A, B)) -> Self {
        Self::Concat([a.into(), b.into()].into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_covers_the_addresses_in_it() {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let net = Key::from("192.0.2.0/24".parse::<IpNet>().unwrap());
        let range = Key::One(Value::between(addr("192.0.2.5").into(), addr("192.0.2.9").into()));
        for (key, address, covered) in [
            (&net, "192.0.2.255", true),
            (&net, "192.0.3.0", false),
            (&range, "192.0.2.5", true),
            (&range, "192.0.2.9", true),
            (&range, "192.0.2.10", false),
            (&range, "::1", false),
            (&Key::from(addr("::1")), "::1", true),
            (&Key::from(22u16), "::1", false),
        ] {
            assert_eq!(key.covers(addr(address)), covered, "{key:?} {address}");
        }
    }
}
