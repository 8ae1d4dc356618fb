//! Lines as Nginx Proxy Manager writes them, and who attacks in them.

use std::fmt::Write;

/// The address of attacker `n`; one in five is IPv6.
pub(crate) fn attacker(n: u64) -> String {
    if n.is_multiple_of(5) {
        format!("2a0e:{:x}:{:x}::1", n % 0xffff, n / 0xffff + 1)
    } else {
        format!("45.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255)
    }
}

/// One line of an NPM proxy host's access log for a second given as its stamp.
pub(crate) fn line(
    out: &mut String,
    stamp: &str,
    status: u16,
    path: &str,
    client: &str,
    agent: &str,
    length: u64,
) {
    let method = if length.is_multiple_of(10) { "POST" } else { "GET" };
    let written = writeln!(
        out,
        "[{stamp}] - {status} {status} - {method} https cloud.example.org \"{path}\" [Client {client}] \
         [Length {length}] [Gzip -] [Sent-to ct-nextcloud] \"{agent}\" \"https://cloud.example.org/\""
    );
    debug_assert!(written.is_ok(), "a String takes everything");
}
