//! Who is logged in over SSH, as sshd(8) itself shows it: also without a terminal, and where nothing writes utmp.
//!
//! An established connection to port 22 proves nothing: whoever is guessing a password has one. What tells them apart is the
//! title that sshd gives the process that serves a connection (`setproctitle` in OpenSSH's session.c, auth2.c, monitor.c;
//! watched on 9.2):
//!
//! | title                                                                       | the other side               |
//! |-----------------------------------------------------------------------------|------------------------------|
//! | `sshd: [accepted]`, `sshd: root [net]`, `sshd: unknown [priv]`, `… [preauth]`, `… [pam]` | has not proved who it is, or a helper |
//! | `sshd: root@pts/0`, `sshd: root@notty`                                      | is logged in                 |
//! | `sshd: root`                                                                | is, and forwards ports alone |
//!
//! since 9.8 with `sshd-session: ` in front. Anybody can give a process of his own such a title, so its program must be called
//! that way, too, and belong to root.
//!
//! Whose connection it is stands in `/proc/net/tcp`, by the inode of one of the process' sockets. It may have others: those of
//! forwarded ports, whose peers are anybody.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::sessions::Session;

/// A process, and when it was started: numbers are used again.
type Process = (u32, u64);

/// The sessions of sshd. What was found of a process is kept, because the peer of a connection does not change.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: HashMap<Process, Option<Session>>,
}

/// A process of sshd that serves somebody who is logged in.
struct Served {
    process: Process,
    who: String,
    on: String,
    /// Its sockets: descriptor and inode.
    sockets: Vec<(u32, u64)>,
}

impl Peers {
    /// The sessions now, and what could not be looked into. Whose session is in the directory `recorded` (systemd-logind's) need
    /// not be: it takes CAP_SYS_PTRACE.
    pub(super) fn look(&mut self, proc: &Path, recorded: &Path) -> (Vec<Session>, Option<String>) {
        let mut problem = None;
        let mut known = HashMap::new();
        let mut new = Vec::new();
        for pid in processes(proc) {
            let dir = proc.join(pid.to_string());
            let Some((who, on)) = logged_in(&dir) else { continue };
            let Some(started) = started(&dir) else { continue };
            let process = (pid, started);
            if let Some(session) = self.known.get(&process) {
                known.insert(process, session.clone());
                continue;
            }
            match is_roots(&dir).and_then(|roots| Ok((roots, sockets(&dir)?))) {
                Ok((true, sockets)) => new.push(Served { process, who, on, sockets }),
                // A pretender.
                Ok((false, _)) => {
                    known.insert(process, None);
                }
                // It has ended.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied && is_recorded(&dir, recorded) => {
                    known.insert(process, None);
                }
                Err(e) => problem = Some(format!("process {pid} of sshd: {e}")),
            }
        }
        if !new.is_empty() {
            let wanted = new.iter().flat_map(|served| &served.sockets).map(|(_, inode)| *inode).collect();
            match Connections::read(proc, &wanted) {
                Ok(connections) => known.extend(new.into_iter().map(|served| {
                    let peer = connections.peer(&served.sockets);
                    (served.process, peer.and_then(|peer| Session::new(&served.who, &served.on, peer)))
                })),
                Err(e) => problem = Some(format!("connections: {e}")),
            }
        }
        self.known = known;
        (self.known.values().flatten().cloned().collect(), problem)
    }
}

fn processes(proc: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The user and the terminal, if this is a process of sshd that serves somebody who is logged in.
fn logged_in(dir: &Path) -> Option<(String, String)> {
    // The name first: it costs less than the command line, and few processes are called that way.
    if !matches!(read(&dir.join("comm"))?.trim_end(), "sshd" | "sshd-session") {
        return None;
    }
    let line = read(&dir.join("cmdline"))?;
    let (who, on) = title(line.split('\0').next()?)?;
    Some((who.to_owned(), on.to_owned()))
}

/// See the table above.
fn title(title: &str) -> Option<(&str, &str)> {
    let served = title.strip_prefix("sshd: ").or_else(|| title.strip_prefix("sshd-session: "))?;
    if served.is_empty() || served.starts_with('/') || served.contains([' ', '[', ']']) {
        return None;
    }
    match served.rsplit_once('@') {
        Some((_, "notty")) | None => Some((served.trim_end_matches("@notty"), "ssh")),
        Some(parts) => Some(parts),
    }
}

/// The 22nd field (proc(5)); the second, the name, may hold anything.
fn started(dir: &Path) -> Option<u64> {
    let stat = read(&dir.join("stat"))?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether the program is sshd, and root's.
fn is_roots(dir: &Path) -> io::Result<bool> {
    let exe = dir.join("exe");
    let path = fs::read_link(&exe)?;
    // After an upgrade it is called `/usr/sbin/sshd (deleted)`.
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_sshd = matches!(name.trim_end_matches(" (deleted)"), "sshd" | "sshd-session");
    Ok(is_sshd && fs::metadata(&exe)?.uid() == 0)
}

/// Whether systemd-logind knows the session that a process belongs to, by its control group: `…/session-4.scope`.
fn is_recorded(dir: &Path, recorded: &Path) -> bool {
    let groups = read(&dir.join("cgroup")).unwrap_or_default();
    let session =
        |part: &str| Some(part.trim_end().strip_prefix("session-")?.strip_suffix(".scope")?.to_owned());
    groups
        .split(['/', '\n'])
        .filter_map(session)
        .filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric()))
        .any(|id| recorded.join(id).is_file())
}

/// The process' sockets, by descriptor.
fn sockets(dir: &Path) -> io::Result<Vec<(u32, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir.join("fd"))?.flatten() {
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        found.extend(inode.map(|inode| (fd, inode)));
    }
    found.sort_unstable();
    Ok(found)
}

/// A small file whose text need not be text.
fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(4096).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What `/proc/net/tcp` and `tcp6` tell of the sockets that matter.
#[derive(Debug, Default)]
struct Connections {
    /// By inode: the own port, and the peer.
    established: HashMap<u64, (u16, IpAddr)>,
    /// Ports that somebody listens on, and with which socket.
    listening: HashMap<u64, u16>,
    ports: HashSet<u16>,
}

const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

impl Connections {
    fn read(proc: &Path, wanted: &HashSet<u64>) -> io::Result<Self> {
        let mut connections = Self::default();
        for table in ["net/tcp", "net/tcp6"] {
            let file = match File::open(proc.join(table)) {
                Ok(file) => file,
                // A kernel without IPv6.
                Err(e) if e.kind() == io::ErrorKind::NotFound && table == "net/tcp6" => continue,
                Err(e) => return Err(e),
            };
            for line in BufReader::new(file).lines() {
                connections.add(&line?, wanted);
            }
        }
        Ok(connections)
    }

    fn add(&mut self, line: &str, wanted: &HashSet<u64>) -> Option<()> {
        let mut words = line.split_ascii_whitespace();
        let (local, remote, state) = (words.nth(1)?, words.next()?, words.next()?);
        let inode: u64 = words.nth(5)?.parse().ok()?;
        let (_, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        if state == LISTEN {
            self.listening.insert(inode, port);
            self.ports.insert(port);
        } else if state == ESTABLISHED && wanted.contains(&inode) {
            self.established.insert(inode, (port, address(remote.split_once(':')?.0)?));
        }
        Some(())
    }

    /// Whose connection a process with these sockets serves. Not a connection to a port that the process itself listens on:
    /// that came by a forwarded port (`ssh -R`). And rather one to a port that somebody listens on than one to elsewhere
    /// (`ssh -L`); of several the first that was opened.
    fn peer(&self, sockets: &[(u32, u64)]) -> Option<IpAddr> {
        let own: HashSet<u16> =
            sockets.iter().filter_map(|(_, inode)| self.listening.get(inode)).copied().collect();
        let mut served = sockets
            .iter()
            .filter_map(|(_, inode)| self.established.get(inode))
            .filter(|(port, _)| !own.contains(port));
        let first = served.clone().next();
        served.find(|(port, _)| self.ports.contains(port)).or(first).map(|(_, peer)| *peer)
    }
}

/// An address in `/proc/net/tcp`: words of 32 bits in the order of the machine's bytes, in hexadecimal digits.
fn address(digits: &str) -> Option<IpAddr> {
    let word = |n: usize| u32::from_str_radix(digits.get(8 * n..8 * n + 8)?, 16).ok().map(u32::to_ne_bytes);
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (n, four) in bytes.as_chunks_mut().0.iter_mut().enumerate() {
                *four = word(n)?;
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_who_is_logged_in_has_a_session() {
        for (text, want) in [
            ("sshd: root@pts/0", Some(("root", "pts/0"))),
            ("sshd: root@pts/0,pts/1", Some(("root", "pts/0,pts/1"))),
            ("sshd: root@notty", Some(("root", "ssh"))),
            ("sshd: bob@example.org@notty", Some(("bob@example.org", "ssh"))),
            ("sshd: root", Some(("root", "ssh"))),
            ("sshd-session: root@pts/0", Some(("root", "pts/0"))),
            ("sshd: [accepted]", None),
            ("sshd: [net]", None),
            ("sshd: root [net]", None),
            ("sshd: root [priv]", None),
            ("sshd: root [preauth]", None),
            ("sshd: root [pam]", None),
            ("sshd: unknown [priv]", None),
            ("sshd: bob@pts/0 [net]", None),
            ("sshd-session: root [priv]", None),
            ("sshd-auth: root [net]", None),
            ("sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups", None),
            ("/usr/sbin/sshd", None),
            ("sshd: ", None),
            ("bash", None),
        ] {
            assert_eq!(title(text), want, "{text}");
        }
    }

    fn connections(lines: &[&str], wanted: &[u64]) -> Connections {
        let mut connections = Connections::default();
        let wanted = wanted.iter().copied().collect();
        for line in lines {
            connections.add(line, &wanted);
        }
        connections
    }

    const LINES: [&str; 6] = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        // Port 22 listens (inode 10); the session (11); what it forwards elsewhere (12); a port it listens on (13), and who
        // has come by it (14).
        "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 10 1 0 100 0 0 10 0",
        "   1: 010200C0:0016 070200C0:971C 01 00000000:00000000 02:000AFC0A 00000000     0        0 11 2 0 21 4 23 15 -1",
        "   2: 010200C0:9C40 080200C0:0050 01 00000000:00000000 02:000AFC0A 00000000     0        0 12 2 0 21 4 23 15 -1",
        "   3: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1 0 100 0 0 10 0",
        "   4: 010200C0:1F90 090200C0:971D 01 00000000:00000000 02:000AFC0A 00000000     0        0 14 2 0 21 4 23 15 -1",
    ];

    #[test]
    fn who_comes_by_a_forwarded_port_has_no_session() {
        if cfg!(target_endian = "big") {
            return;
        }
        let all = connections(&LINES, &[11, 12, 13, 14]);
        let peer = |sockets: &[(u32, u64)]| all.peer(sockets).map(|peer| peer.to_string());
        assert_eq!(peer(&[(4, 11), (7, 12), (9, 13), (10, 14)]).as_deref(), Some("192.0.2.7"));
        // Descriptors are used again: the forwarded connection may have a lower one.
        assert_eq!(peer(&[(3, 12), (4, 11)]).as_deref(), Some("192.0.2.7"));
        assert_eq!(peer(&[(3, 14), (5, 13)]), None);
        // Nobody listens any more: sshd was stopped, its sessions go on.
        let rest = connections(&[LINES[2], LINES[3]], &[11, 12]);
        assert_eq!(rest.peer(&[(4, 11), (7, 12)]).unwrap().to_string(), "192.0.2.7");
        // Sockets that are not there are those of another network namespace.
        assert_eq!(all.peer(&[(4, 99)]), None);
    }

    #[test]
    fn addresses_are_words_of_the_machine() {
        if cfg!(target_endian = "big") {
            return;
        }
        for (digits, want) in [
            ("0100007F", Some("127.0.0.1")),
            ("B80D0120000000000000000001000000", Some("2001:db8::1")),
            ("0000000000000000FFFF0000070200C0", Some("192.0.2.7")),
            ("0100007", None),
            ("zz00007F", None),
            ("", None),
        ] {
            assert_eq!(address(digits).map(|a| a.to_string()).as_deref(), want, "{digits}");
        }
    }

    #[test]
    fn a_session_is_known_by_its_control_group() {
        let dir = tempfile::tempdir().unwrap();
        let recorded = dir.path().join("sessions");
        fs::create_dir(&recorded).unwrap();
        fs::write(recorded.join("4"), "").unwrap();
        for (group, known) in [
            ("0::/user.slice/user-0.slice/session-4.scope\n", true),
            ("1:name=systemd:/user.slice/user-0.slice/session-4.scope\n0::/\n", true),
            ("0::/user.slice/user-0.slice/session-5.scope\n", false),
            ("0::/system.slice/ssh.service\n", false),
            ("0::/session-.scope\n", false),
        ] {
            fs::write(dir.path().join("cgroup"), group).unwrap();
            assert_eq!(is_recorded(dir.path(), &recorded), known, "{group}");
        }
    }

    #[test]
    fn this_process_is_none_of_sshds() {
        let (_, problem) = Peers::default().look(Path::new("/proc"), Path::new("/run/systemd/sessions"));
        assert_eq!(problem.filter(|_| nix::unistd::geteuid().is_root()), None);
        let own = Path::new("/proc/self");
        assert_eq!(logged_in(own), None);
        assert!(started(own).unwrap() > 0);
        assert!(!is_roots(own).unwrap(), "not called sshd");
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line in "( *[0-9]{1,3}: )?([0-9A-F]{8}|[0-9A-F]{32}|.{0,12})(:.{0,6})? .{0,40}", text in ".{0,40}") {
            connections(&[&line], &[1]);
            title(&format!("sshd: {text}"));
        }
    }
}
