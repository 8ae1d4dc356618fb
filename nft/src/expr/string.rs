//! The match `string` of xtables: looks for bytes anywhere in a packet.
//!
//! ```text
//! struct xt_string_info of revision 1 (include/uapi/linux/netfilter/xt_string.h)
//!   0  u16  from_offset    where a match may begin, counted from the network header; the host's byte order
//!   2  u16  to_offset
//!   4  char algo[16]       "bm" or "kmp"
//!  20  char pattern[128]
//! 148  u8   patlen
//! 149  u8   flags          1 inverted, 2 case is ignored
//! 152  ptr  config         the kernel's
//! 160
//! ```

use super::Expr;

/// `XT_STRING_MAX_PATTERN_SIZE`
const PATTERN_MAX: usize = 128;
const FLAG_IGNORE_CASE: u8 = 2;
const PATTERN: usize = 20;
const SIZE: usize = 160;

impl Expr {
    /// `xt match "string"`: whether `pattern` begins within the first `to` bytes of the packet, counted from its network
    /// header. Found with Boyer and Moore's algorithm, which misses what lies across two fragments of a socket buffer.
    /// `None` for no pattern, and for one of more than 128 bytes: the kernel takes neither.
    #[must_use]
    pub fn xt_string(pattern: &[u8], ignore_case: bool, to: u16) -> Option<Self> {
        if pattern.is_empty() || pattern.len() > PATTERN_MAX {
            return None;
        }
        let mut info = vec![0u8; SIZE];
        info[2..4].copy_from_slice(&to.to_ne_bytes());
        info[4..6].copy_from_slice(b"bm");
        info[PATTERN..PATTERN + pattern.len()].copy_from_slice(pattern);
        info[148] = pattern.len() as u8;
        info[149] = if ignore_case { FLAG_IGNORE_CASE } else { 0 };
        Some(Self::Match { name: "string".into(), rev: 1, info: info.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_is_the_kernels() {
        let Some(Expr::Match { name, rev: 1, info }) = Expr::xt_string(b"abc", true, 258) else { panic!() };
        assert_eq!((&*name, info.len()), ("string", 160));
        assert_eq!((&info[0..2], &info[2..4]), (&[0, 0][..], &258u16.to_ne_bytes()[..]));
        assert_eq!(&info[4..24], b"bm\0\0\0\0\0\0\0\0\0\0\0\0\0\0abc\0");
        assert_eq!((info[148], info[149]), (3, 2));
    }

    #[test]
    fn what_the_kernel_would_not_take_is_not_made() {
        assert_eq!(Expr::xt_string(b"", false, 100), None);
        assert_eq!(Expr::xt_string(&[b'a'; 129], false, 100), None);
        assert!(Expr::xt_string(&[b'a'; 128], false, 100).is_some());
    }
}
