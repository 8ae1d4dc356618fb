//! The types of a program's functions, which the kernel wants to know before one may be passed to a helper.
//!
//! The BPF Type Format is described in the kernel's `Documentation/bpf/btf.rst`. Only what is asked for is told: every
//! function is `static int name()`.

use std::io;
use std::os::fd::OwnedFd;

use super::sys::{self, Attr};

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: u32 = 24;
const KIND_INT: u32 = 1 << 24;
const KIND_FUNC: u32 = 12 << 24;
const KIND_FUNC_PROTO: u32 = 13 << 24;
/// Signed, no offset, 32 bits.
const INT_ENCODING: u32 = 1 << 24 | 32;
const INT: u32 = 1;
const PROTO: u32 = 2;
/// The first function's type; the others follow.
pub(super) const FIRST_FUNCTION: u32 = 3;

/// Loads the types of functions with these names.
pub(super) fn load(functions: &[&str]) -> io::Result<OwnedFd> {
    let blob = blob(functions);
    let mut attr = Attr::new().pointer(0, blob.as_slice()).u32(16, blob.len() as u32);
    // SAFETY: `blob` is as long as said, and only read.
    unsafe { sys::open(sys::BTF_LOAD, &mut attr) }
}

fn blob(functions: &[&str]) -> Vec<u8> {
    let mut strings = vec![0];
    let mut name = |text: &str| {
        let at = strings.len() as u32;
        strings.extend(text.bytes().chain([0]));
        at
    };
    let mut types = vec![name("int"), KIND_INT, 4, INT_ENCODING, 0, KIND_FUNC_PROTO, INT];
    for function in functions {
        types.extend([name(function), KIND_FUNC, PROTO]);
    }
    let types_len = 4 * types.len() as u32;
    let mut out = Vec::new();
    out.extend(MAGIC.to_ne_bytes());
    out.extend([1, 0]);
    for word in [HEADER_LEN, 0, types_len, types_len, strings.len() as u32] {
        out.extend(word.to_ne_bytes());
    }
    for word in types {
        out.extend(word.to_ne_bytes());
    }
    out.extend(strings);
    out
}
