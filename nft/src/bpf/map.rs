//! Maps: memory that a program and the process share.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::sys::{self, Attr};

/// How a map looks keys up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// By equality.
    Hash,
    /// The longest prefix: a key is a `u32` length in bits, then that many bits in network order, padded.
    Prefix,
}

impl MapKind {
    fn number(self) -> u32 {
        match self {
            Self::Hash => 1,
            Self::Prefix => 11,
        }
    }
}

/// A map. Its elements take memory as they are added.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    kind: MapKind,
    key: usize,
    value: usize,
}

/// How many elements one call moves.
const CHUNK: usize = 4096;

impl Map {
    /// Makes a map of at most `capacity` elements, with keys and values of so many bytes.
    ///
    /// # Errors
    /// `EPERM` without `CAP_BPF`.
    pub fn new(name: &str, kind: MapKind, key: usize, value: usize, capacity: u32) -> io::Result<Self> {
        let mut attr = Attr::new()
            .u32(0, kind.number())
            .u32(4, key as u32)
            .u32(8, value as u32)
            .u32(12, capacity)
            .u32(16, sys::BPF_F_NO_PREALLOC)
            .name(28, name);
        // SAFETY: no addresses.
        let fd = unsafe { sys::open(sys::MAP_CREATE, &mut attr)? };
        Ok(Self { fd, kind, key, value })
    }

    /// Adds or replaces elements: `keys` and `values` one behind the other.
    ///
    /// # Errors
    /// How many elements were written before the one that failed, and why; `E2BIG` when the map is full.
    ///
    /// # Panics
    /// When `keys` and `values` are not of the same number of elements.
    pub fn insert(&self, keys: &[u8], values: &[u8]) -> Result<(), (usize, io::Error)> {
        let n = self.count(keys);
        assert!(keys.len() == n * self.key && values.len() == n * self.value, "as many keys as values");
        if self.kind == MapKind::Prefix || n == 1 {
            let each = keys.chunks(self.key).zip(values.chunks(self.value));
            return each.enumerate().try_for_each(|(i, (k, v))| self.insert_one(k, v).map_err(|e| (i, e)));
        }
        let chunks = keys.chunks(self.key * CHUNK).zip(values.chunks(self.value * CHUNK));
        for (i, (keys, values)) in chunks.enumerate() {
            let mut attr = Attr::new()
                .pointer(16, keys)
                .pointer(24, values)
                .u32(32, self.count(keys) as u32)
                .fd(36, self.as_raw_fd());
            // SAFETY: both are `count` elements long, and only read.
            let done = unsafe { sys::bpf(sys::MAP_UPDATE_BATCH, &mut attr) };
            done.map_err(|e| (i * CHUNK + attr.get(32) as usize, e))?;
        }
        Ok(())
    }

    /// Removes an element: whether it was there.
    ///
    /// # Errors
    /// When the system refuses.
    ///
    /// # Panics
    /// When the key is of another length.
    pub fn remove(&self, key: &[u8]) -> io::Result<bool> {
        assert_eq!(key.len(), self.key, "a key of the map's length");
        let mut attr = Attr::new().fd(0, self.as_raw_fd()).pointer(8, key);
        // SAFETY: `key` is as long as the map's keys, and only read.
        match unsafe { sys::bpf(sys::MAP_DELETE_ELEM, &mut attr) } {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The value of a key (with [`MapKind::Prefix`], of the longest prefix that covers it).
    ///
    /// # Errors
    /// When the system refuses.
    ///
    /// # Panics
    /// When the key is of another length.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        assert_eq!(key.len(), self.key, "a key of the map's length");
        let mut value = vec![0u8; self.value];
        let mut attr = Attr::new().fd(0, self.as_raw_fd()).pointer(8, key).pointer(16, value.as_mut_slice());
        // SAFETY: `key` is as long as the map's keys and `value` as its values; nothing else holds `value`.
        match unsafe { sys::bpf(sys::MAP_LOOKUP_ELEM, &mut attr) } {
            Ok(_) => Ok(Some(value)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Calls `each` with every key and its value. Elements that come or go meanwhile may be told or not.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn for_each(&self, mut each: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        // Where to go on, in the kernel's words: a bucket's number, or a key.
        let mut token = vec![0u8; self.key.max(4)];
        let mut next = token.clone();
        let mut begun = false;
        // A bucket goes whole into one answer: with bad luck it needs more room.
        let mut room = CHUNK;
        loop {
            let (mut keys, mut values) = (vec![0u8; self.key * room], vec![0u8; self.value * room]);
            let mut attr = Attr::new()
                .pointer(8, next.as_mut_slice())
                .pointer(16, keys.as_mut_slice())
                .pointer(24, values.as_mut_slice())
                .u32(32, room as u32)
                .fd(36, self.as_raw_fd());
            if begun {
                attr = attr.pointer(0, token.as_slice());
            }
            // SAFETY: keys and values have room for `room` elements, the tokens for a key and for a bucket's number.
            let result = unsafe { sys::bpf(sys::MAP_LOOKUP_BATCH, &mut attr) };
            let end = match result {
                Ok(_) => false,
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => true,
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && room < CHUNK << 8 => {
                    room *= 2;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let n = (attr.get(32) as usize).min(room);
            let found = keys.chunks(self.key).zip(values.chunks(self.value)).take(n);
            found.for_each(|(key, value)| each(key, value));
            if end {
                return Ok(());
            }
            begun = true;
            std::mem::swap(&mut token, &mut next);
        }
    }

    fn insert_one(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let mut attr = Attr::new().fd(0, self.as_raw_fd()).pointer(8, key).pointer(16, value);
        // SAFETY: both are as long as the map's, and only read.
        unsafe { sys::bpf(sys::MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    fn count(&self, keys: &[u8]) -> usize {
        keys.len() / self.key
    }
}

impl AsRawFd for Map {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
