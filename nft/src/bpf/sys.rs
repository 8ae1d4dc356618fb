//! The system call bpf(2), whose argument is one of many structures (`union bpf_attr` in `linux/bpf.h`).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

pub(super) const MAP_CREATE: u32 = 0;
pub(super) const MAP_LOOKUP_ELEM: u32 = 1;
pub(super) const MAP_UPDATE_ELEM: u32 = 2;
pub(super) const MAP_DELETE_ELEM: u32 = 3;
pub(super) const PROG_LOAD: u32 = 5;
pub(super) const PROG_TEST_RUN: u32 = 10;
pub(super) const PROG_GET_FD_BY_ID: u32 = 13;
pub(super) const OBJ_GET_INFO_BY_FD: u32 = 15;
pub(super) const BTF_LOAD: u32 = 18;
pub(super) const MAP_LOOKUP_BATCH: u32 = 24;
pub(super) const MAP_UPDATE_BATCH: u32 = 26;

pub(super) const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
pub(super) const BPF_F_NO_PREALLOC: u32 = 1;

/// `union bpf_attr`: fields are put at their offsets, the rest is zero, as the kernel demands.
pub(super) struct Attr([u8; SIZE]);

/// Larger than any structure used here; the kernel takes what it does not know if it is zero.
const SIZE: usize = 128;

impl Attr {
    pub(super) fn new() -> Self {
        Self([0; SIZE])
    }

    pub(super) fn u32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    pub(super) fn fd(self, offset: usize, fd: RawFd) -> Self {
        self.u32(offset, fd.cast_unsigned())
    }

    pub(super) fn name(mut self, offset: usize, name: &str) -> Self {
        // `BPF_OBJ_NAME_LEN` is 16, the last byte NUL.
        let n = name.len().min(15);
        self.0[offset..offset + n].copy_from_slice(&name.as_bytes()[..n]);
        self
    }

    /// The address of what the kernel reads, or of what it writes when `memory` is mutably borrowed for the call.
    pub(super) fn pointer<T: ?Sized>(mut self, offset: usize, memory: *const T) -> Self {
        let address = memory.cast::<u8>() as usize as u64;
        self.0[offset..offset + 8].copy_from_slice(&address.to_ne_bytes());
        self
    }

    pub(super) fn get(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[offset..offset + 4]);
        u32::from_ne_bytes(bytes)
    }
}

/// # Safety
/// Every address in `attr` must be of memory as large as the command says, and writable where the command writes.
pub(super) unsafe fn bpf(command: u32, attr: &mut Attr) -> io::Result<RawFd> {
    loop {
        // SAFETY: `attr` is SIZE bytes long; what it points to is the caller's promise.
        let r = unsafe { libc::syscall(libc::SYS_bpf, command, attr.0.as_mut_ptr(), SIZE) };
        if r >= 0 {
            return Ok(r as RawFd);
        }
        let error = io::Error::last_os_error();
        // The verifier gives way to signals.
        if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) {
            return Err(error);
        }
    }
}

/// The same for commands that answer with a file descriptor.
///
/// # Safety
/// As [`bpf`].
pub(super) unsafe fn open(command: u32, attr: &mut Attr) -> io::Result<OwnedFd> {
    // SAFETY: as ours; the descriptor is new and nobody else's.
    unsafe { bpf(command, attr).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// How long ago the machine was started, suspended or not: the clock that programs read
/// ([`KTIME_GET_BOOT_NS`](super::helper::KTIME_GET_BOOT_NS)).
#[must_use]
pub fn boot_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` lives through the call. It cannot fail: Linux has had the clock since 2.6.39.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
