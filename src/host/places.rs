//! Where the host tells about itself.

use std::path::PathBuf;

/// The files and directories that are read. [`Places::default`] is right outside of tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Which servers names are asked of (resolv.conf(5)).
    pub resolv_conf: PathBuf,
    /// The same, behind systemd-resolved's own listener (systemd-resolved.service(8)).
    pub resolved: PathBuf,
    /// Who is logged in (utmp(5)).
    pub utmp: PathBuf,
    /// Who is logged in, as systemd-logind knows it: a file for each session.
    pub sessions: PathBuf,
    /// Processes (proc(5)).
    pub proc: PathBuf,
    /// Network interfaces (sysfs(5)).
    pub net: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            resolved: "/run/systemd/resolve/resolv.conf".into(),
            utmp: "/run/utmp".into(),
            sessions: "/run/systemd/sessions".into(),
            proc: "/proc".into(),
            net: "/sys/class/net".into(),
        }
    }
}
