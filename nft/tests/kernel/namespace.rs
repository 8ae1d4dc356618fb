//! A network namespace of the test's own. It is the thread's, and a test has a thread, so
//! that tests do not meet under `cargo test` either.

use std::future::Future;
use std::process::{Command, Stdio};

use tokio::runtime::Runtime;

/// Runs a test in a network namespace of its own.
///
/// A test that cannot have one fails: it must never work on the host's ruleset.
pub(crate) fn enter(test: impl Future<Output = ()>) {
    enter_with(|runtime| runtime.block_on(test));
}

/// The same for a test that is not one future. As root the thread moves to a new namespace; anybody else starts the
/// test again as root of a new user namespace, for which a process must not have threads yet.
pub(crate) fn enter_with(test: impl FnOnce(&Runtime)) {
    // SAFETY: geteuid cannot fail and touches no memory.
    if unsafe { libc::geteuid() } != 0 {
        let test = std::thread::current().name().unwrap().to_owned();
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new("unshare");
        command.arg("--map-root-user").arg(program).args(["--exact", &test, "--nocapture"]);
        assert!(command.status().expect("unshare(1) is needed").success(), "{test} failed, see above");
        return;
    }
    // SAFETY: unshare takes flags and touches no memory of ours.
    let r = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(r, 0, "a network namespace is needed: {}", std::io::Error::last_os_error());
    test(&tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));
}

/// Runs `nft` with these arguments in this namespace and gives what it printed.
pub(crate) fn nft(args: &[&str]) -> String {
    let output = Command::new("nft")
        .env("TZ", "UTC")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("nft(8) is needed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft {args:?}: {stderr}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Feeds a script to `nft -f -`.
pub(crate) fn nft_script(script: &str) {
    use std::io::Write as _;
    let mut child = Command::new("nft")
        .env("TZ", "UTC")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("nft(8) is needed");
    child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("nft reads");
    assert!(child.wait().expect("nft ends").success(), "nft refused:\n{script}");
}

/// Without ` expires …`, which no two listings have in common.
pub(crate) fn without_expiry(listing: &str) -> String {
    let mut words = listing.split(' ').peekable();
    let mut out = Vec::new();
    while let Some(word) = words.next() {
        if word != "expires" {
            out.push(word.to_owned());
            continue;
        }
        // The time, and what stands behind it without a blank: a comma, the end of the line.
        let time = words.next().unwrap_or_default();
        let end = time.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(time.len());
        if let Some(last) = out.last_mut() {
            last.push_str(&time[end..]);
        }
    }
    out.join(" ")
}

/// Gives up every capability of the thread, as a process without privileges.
pub(crate) fn drop_capabilities() {
    // struct __user_cap_header_struct { version 3, this thread } and two empty __user_cap_data_struct.
    let mut header = [0x2008_0522u32, 0];
    let data = [0u32; 6];
    // SAFETY: capset reads both arrays, which have the sizes that version 3 asks for, and writes at most the header.
    let r = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), data.as_ptr()) };
    assert_eq!(r, 0, "capset: {}", std::io::Error::last_os_error());
}
