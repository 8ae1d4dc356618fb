//! What an agent needs, by its configuration and its host.

use std::path::Path;

use rustix::thread::CapabilitySet;

use crate::config::Config;
use crate::config::sinks::{Kind, Way};
use crate::kernel::backend;

/// What every agent needs: nf_tables, the matcher of header bans, logs of others.
const ALWAYS: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    pub(super) capabilities: CapabilitySet,
    /// Sinks that run programs of the administrator's. What those need nobody here knows.
    pub(super) programs: Vec<String>,
}

impl Needs {
    /// What an agent with this configuration needs on this host.
    #[must_use]
    pub fn of(config: &Config, observe: bool) -> Self {
        let mut capabilities = ALWAYS;
        // iptables-legacy talks to the kernel through a raw socket.
        if !observe && backend::may_be_legacy(config) {
            capabilities |= CapabilitySet::NET_RAW;
        }
        // Where systemd-logind does not tell who is logged in, only sshd's own processes do, and only to who may trace them.
        if !has_logind(Path::new("/run/systemd")) {
            capabilities |= CapabilitySet::SYS_PTRACE;
        }
        // Who observes tells no sink.
        Self { capabilities, programs: if observe { Vec::new() } else { programs(config) } }
    }
}

/// Whether systemd runs here (sd_booted(3)), and has a place where its logind tells of sessions. Either alone may be what a
/// package or a mount has left.
fn has_logind(run: &Path) -> bool {
    run.join("system").is_dir() && run.join("sessions").is_dir()
}

/// The names of sinks that run programs.
#[must_use]
pub fn programs(config: &Config) -> Vec<String> {
    let runs = |kind: &Kind| match kind {
        Kind::Exec(_) => true,
        Kind::Map(map) => map.test.is_some() || map.reload.is_some(),
        Kind::Mail(mail) => matches!(mail.way, Way::Sendmail(_)),
        Kind::Cloudflare(_) | Kind::Telegram(_) | Kind::Webhook(_) => false,
    };
    config.sinks.iter().filter(|sink| runs(&sink.kind)).map(|sink| sink.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_programs_is_known() {
        let text = "
sinks:
  hook: { kind: exec, command: [/bin/true] }
  silent: { kind: map, format: list, path: /tmp/list }
  tested: { kind: map, format: list, path: /tmp/list2, reload: [/bin/true] }
  post: { kind: mail, from: a@example.org, to: b@example.org, sendmail: /usr/sbin/sendmail }
  server: { kind: mail, from: a@example.org, to: b@example.org, server: mail.example.org }
";
        let shipped = crate::config::Shipped { names: &[], text: |_| None };
        let config = Config::parse(text, "test", &shipped).unwrap();
        assert_eq!(programs(&config), ["hook", "tested", "post"]);
        let needs = Needs::of(&config, true);
        assert_eq!((needs.programs.len(), needs.capabilities.contains(CapabilitySet::NET_RAW)), (0, false));
    }

    #[test]
    fn sshd_is_looked_into_only_where_nobody_else_tells() {
        let dir = tempfile::tempdir().unwrap();
        for (name, has) in [("sessions", false), ("system", true)] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            assert_eq!(has_logind(dir.path()), has, "{name}");
        }
    }
}
