//! Who is logged in right now, from where.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::places::Places;
use super::{logind, utmp};
use crate::kernel::capability::namespace::FIRST_PID_NAMESPACE;

/// Names in utmp are no longer.
const NAME: usize = 32;

/// Somebody who is logged in from another host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session {
    /// The user; letters, digits and ASCII signs alone, whatever was written.
    pub who: String,
    /// The terminal, or what else the session is.
    pub on: String,
    /// The other host.
    pub address: IpAddr,
}

impl Session {
    /// `None` for an address that is nobody's: who is logged in from this very host cannot be locked out.
    pub(super) fn new(who: &str, on: &str, address: IpAddr) -> Option<Self> {
        let address = address.to_canonical();
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return None;
        }
        Some(Self { who: name(who), on: name(on), address })
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} from {}", self.who, self.on, self.address)
    }
}

fn name(text: &str) -> String {
    let printable = |c: char| if c.is_ascii_graphic() || c.is_alphanumeric() { c } else { '?' };
    match text {
        "" => "?".to_owned(),
        text => text.chars().take(NAME).map(printable).collect(),
    }
}

/// What utmp and systemd-logind tell, and what of it could not be read.
pub(super) fn recorded(places: &Places) -> (Vec<Session>, Vec<String>) {
    let lives = |pid: u32| lives(&places.proc, pid);
    // In a container with processes of its own the host's are not there. What logind keeps is believed all the same: it
    // removes the file when the session ends. In utmp records stay when a host crashes.
    let ours = fs::read_link(places.proc.join("self/ns/pid"));
    let foreign = ours.is_ok_and(|link| link.as_os_str() != FIRST_PID_NAMESPACE);
    let may_live = |pid: u32| foreign || lives(pid);
    let mut problems = Vec::new();
    let mut found = Vec::new();
    let told = [
        (&places.utmp, utmp::sessions(&places.utmp, lives)),
        (&places.sessions, logind::sessions(&places.sessions, may_live)),
    ];
    for (path, sessions) in told {
        match sessions {
            Ok(sessions) => found.extend(sessions),
            Err(e) => problems.push(format!("{}: {e}", path.display())),
        }
    }
    (found, problems)
}

/// Whether there is such a process.
fn lives(proc: &Path, pid: u32) -> bool {
    proc.join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_logged_in_from_nowhere() {
        for address in ["0.0.0.0", "127.0.0.1", "::1", "::", "::ffff:127.0.0.1", "224.0.0.1"] {
            assert_eq!(Session::new("root", "pts/0", address.parse().unwrap()), None, "{address}");
        }
        assert!(Session::new("root", "pts/0", "192.0.2.1".parse().unwrap()).is_some());
    }

    /// In a container the session's process cannot be seen, the file that logind keeps of it can be mounted.
    #[test]
    fn where_the_hosts_processes_are_not_there_logind_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| dir.path().join(name);
        let places =
            Places { sessions: of("sessions"), proc: of("proc"), utmp: of("utmp"), ..Places::default() };
        fs::create_dir_all(&places.sessions).unwrap();
        fs::create_dir_all(places.proc.join("self/ns")).unwrap();
        let session = "STATE=active\nUSER=root\nLEADER=4711\nREMOTE_HOST=192.0.2.7\n";
        fs::write(places.sessions.join("1"), session).unwrap();
        for (namespace, seen) in [(FIRST_PID_NAMESPACE, 0), ("pid:[4026532999]", 1)] {
            let link = places.proc.join("self/ns/pid");
            drop(fs::remove_file(&link));
            std::os::unix::fs::symlink(namespace, &link).unwrap();
            let roots = recorded(&places).0.into_iter().filter(|session| session.who == "root").count();
            assert_eq!(roots, seen, "in {namespace}");
        }
    }

    #[test]
    fn a_process_that_is_there_lives() {
        let proc = Path::new("/proc");
        assert!(lives(proc, std::process::id()));
        assert!(!lives(proc, u32::MAX));
    }
}
