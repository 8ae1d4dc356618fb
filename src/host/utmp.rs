//! Who is logged in, as utmp(5) has it: records of one size, one after the other.
//!
//! ```text
//! struct utmp, glibc, 64-bit Linux (bits/utmp.h: __WORDSIZE_TIME64_COMPAT32), 384 bytes
//!   0 ut_type  i16 (7: USER_PROCESS)       44 ut_user  32 bytes      340 ut_tv         2 × i32
//!   4 ut_pid   i32                         76 ut_host 256 bytes      348 ut_addr_v6    16 bytes, network order;
//!   8 ut_line  32 bytes                   332 ut_exit  4 bytes                         IPv4 in the first 4 alone
//!  40 ut_id     4 bytes                   336 ut_session i32         364 unused        20 bytes
//! ```

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::sessions::Session;

const RECORD: usize = 384;
const USER_PROCESS: i16 = 7;
/// 5,000 sessions. Nobody has so many; whoever writes more has made the file grow.
const MOST: u64 = 5000 * 384;

/// The sessions from other hosts whose process `lives`. A file that is not there has none: newer systems know no utmp.
///
/// # Errors
/// When there is a file and it cannot be read.
pub(super) fn sessions(path: &Path, lives: impl Fn(u32) -> bool) -> io::Result<Vec<Session>> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes)) {
        Ok(_) => Ok(records(&bytes, lives)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// What is cut off at the end is no record.
fn records(bytes: &[u8], lives: impl Fn(u32) -> bool) -> Vec<Session> {
    bytes.chunks_exact(RECORD).filter_map(record).filter(|(pid, _)| lives(*pid)).map(|(_, s)| s).collect()
}

fn record(bytes: &[u8]) -> Option<(u32, Session)> {
    if i16::from_ne_bytes(field(bytes, 0)?) != USER_PROCESS {
        return None;
    }
    let pid = u32::try_from(i32::from_ne_bytes(field(bytes, 4)?)).ok().filter(|pid| *pid > 0)?;
    let address = address(field(bytes, 348)?).or_else(|| text(bytes.get(76..332)?).parse().ok())?;
    let session = Session::new(text(bytes.get(44..76)?), text(bytes.get(8..40)?), address)?;
    Some((pid, session))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Nothing but zeros is no address: a session on the console.
fn address(bytes: [u8; 16]) -> Option<IpAddr> {
    match bytes {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => None,
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => Some(Ipv4Addr::new(a, b, c, d).into()),
        _ => Some(Ipv6Addr::from(bytes).to_canonical()),
    }
}

/// Up to the first zero; a field that is full has none.
fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text = bytes.get(..end).unwrap_or_default();
    std::str::from_utf8(text).unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(kind: i16, pid: i32, line: &[u8], user: &[u8], host: &[u8], address: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; RECORD];
        bytes[..2].copy_from_slice(&kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&pid.to_ne_bytes());
        for (at, text) in [(8, line), (44, user), (76, host), (348, address)] {
            bytes[at..at + text.len()].copy_from_slice(text);
        }
        bytes
    }

    fn told(bytes: &[u8]) -> Vec<String> {
        records(bytes, |pid| pid != 13).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn sessions_from_elsewhere_are_found() {
        let v6 = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
        let mapped = "::ffff:192.0.2.9".parse::<Ipv6Addr>().unwrap().octets();
        let all = [
            written(7, 1, b"pts/0", b"root", b"host.example.org", &[192, 0, 2, 7]),
            written(7, 2, b"pts/1", b"bob", b"", &v6),
            written(7, 3, b"pts/2", b"eve", b"", &mapped),
            // Only the name of the host, which is an address.
            written(7, 4, b"pts/3", b"joe", b"198.51.100.4", &[]),
            // Somebody at the console, a dead login, a boot record, a process that is gone, one that cannot be.
            written(7, 5, b"tty1", b"root", b"", &[]),
            written(8, 6, b"pts/4", b"", b"", &[192, 0, 2, 8]),
            written(2, 0, b"~", b"reboot", b"6.1.0", &[192, 0, 2, 8]),
            written(7, 13, b"pts/5", b"gone", b"", &[192, 0, 2, 8]),
            written(7, -1, b"pts/6", b"odd", b"", &[192, 0, 2, 8]),
        ]
        .concat();
        let want = [
            "root on pts/0 from 192.0.2.7",
            "bob on pts/1 from 2001:db8::7",
            "eve on pts/2 from 192.0.2.9",
            "joe on pts/3 from 198.51.100.4",
        ];
        assert_eq!(told(&all), want);
        // The last record is being written.
        assert_eq!(told(&all[..2 * RECORD + 100]), want[..2]);
    }

    #[test]
    fn a_name_that_is_no_text_is_no_obstacle() {
        let full = [b'x'; 32];
        let hostile = [
            written(7, 1, b"pts/0", b"\xff\xfe\x1b[2J", b"", &[192, 0, 2, 7]),
            written(7, 2, b"pts/1\nban everybody", b"a\x1b[2Jb", b"", &[192, 0, 2, 8]),
            written(7, 3, &full, &full, &[b'y'; 256], &[192, 0, 2, 9]),
        ];
        let told = told(&hostile.concat());
        assert_eq!(told[0], "? on pts/0 from 192.0.2.7");
        assert!(told.iter().all(|line| line.chars().all(|c| !c.is_control())), "{told:?}");
        assert_eq!(told[2], format!("{0} on {0} from 192.0.2.9", "x".repeat(32)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..1200), kind in 0..9i16) {
            let mut bytes = bytes;
            for record in bytes.chunks_mut(RECORD).filter(|record| record.len() > 2) {
                record[..2].copy_from_slice(&kind.to_ne_bytes());
            }
            for session in records(&bytes, |_| true) {
                prop_assert!(session.to_string().chars().all(|c| !c.is_control()));
            }
        }
    }
}
