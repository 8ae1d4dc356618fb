//! What setup says on the terminal: what it found, what it did not, what to do next.

use std::fmt::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::finding::{Findings, shown};
use super::person::Person;
use crate::cli::DEFAULT_CONFIG;
use crate::config::Config;
use crate::daemon::printable;
use crate::kernel::capability::namespace::Place;

/// So much that may not be read is named.
const DENIED: usize = 10;

/// Everything that was found, and what was not.
pub(super) fn found(findings: &Findings, people: &[Person]) -> String {
    let mut out = String::from("Found on this host:\n");
    for (kind, sources) in &findings.jails {
        let all = sources.logpath.iter().chain(&sources.docker).chain(&sources.journal);
        for found in all {
            item(&mut out, &format!("{}: {}", kind.jail(), found.how));
        }
        for heed in &sources.heed {
            item(&mut out, heed);
        }
    }
    for why in &findings.cloudflare {
        item(&mut out, &format!("Cloudflare in front: {why}"));
    }
    for why in &findings.tunnel {
        item(&mut out, &format!("Cloudflare's tunnel: {why}"));
    }
    for person in people {
        item(&mut out, &format!("{}: {}", person.address, person.how));
    }
    if out.lines().count() == 1 {
        item(&mut out, "nothing to watch");
    }
    if !findings.notes.is_empty() || !findings.denied.is_empty() {
        out.push_str("Not proposed:\n");
    }
    for note in &findings.notes {
        item(&mut out, note);
    }
    for path in findings.denied.iter().take(DENIED) {
        item(&mut out, &format!("{}: may not be read by this user", shown(path)));
    }
    if findings.denied.len() > DENIED {
        item(&mut out, &format!("{} more may not be read by this user", findings.denied.len() - DENIED));
    }
    if !findings.denied.is_empty() {
        item(&mut out, "run setup as root to have it look there");
    }
    out
}

fn item(out: &mut String, text: &str) {
    // Writing into a string cannot fail.
    let _ = writeln!(out, "  - {}", printable(text.as_bytes()));
}

/// Nothing was found: what was looked for, and what to do by hand.
pub(super) const NOTHING: &str = "\
There is nothing to propose: a configuration without a jail would watch nothing, and look as if it did. So nothing was written.
Looked for:
  - logs in /var/log/nginx, /var/log/apache2, /var/log/httpd, /var/log/traefik, /var/log/npm, /data/logs, /opt/npm/data/logs,
    /opt/nginx-proxy-manager/data/logs, /logs and the directories in it, and those that nginx, Apache and Traefik name in /etc
  - Docker's containers in /var/lib/docker (their mounts, and their own logs), and Podman's volumes
  - HAProxy and sshd: /var/log/haproxy.log, /var/log/auth.log, /var/log/secure, and systemd's journal
In a container, mount the host's logs to /logs and /var/lib/docker/containers to the same place, both read-only. Logs elsewhere:
write a jail yourself,
  jails:
    web:
      filter: nginx-forceful-browsing
      logpath: /srv/logs/access.log
and try it: `stockade test nginx-forceful-browsing /srv/logs/access.log`, `stockade check`.
";

/// How the new configuration comes into force.
pub(super) fn next(path: &Path, config: &Config) -> String {
    let option =
        if path == Path::new(DEFAULT_CONFIG) { String::new() } else { format!(" --config {}", shown(path)) };
    if UnixStream::connect(&config.paths.control).is_ok() {
        format!("An agent runs: `stockade reload{option}` has it read this.\n")
    } else if Place::here().container.is_some() {
        "Next: start this container anew (`docker compose up -d --force-recreate`), and it is in force.\n"
            .to_owned()
    } else if option.is_empty() && Path::new("/run/systemd/system").is_dir() {
        "Next: `systemctl enable --now stockade` starts the agent, now and at every boot.\n".to_owned()
    } else {
        format!(
            "Next: `stockade run{option}` runs the agent; with `--observe` it only tells whom it would ban.\n"
        )
    }
}
