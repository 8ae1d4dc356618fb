//! HAProxy's log, which syslog writes: a file of its own, one for all, or the journal.

use std::path::Path;
use std::rc::Rc;

use super::dialect::{Dialect, Kind};
use super::look::Look;

/// Where rsyslog puts it: by the file that Debian's package brings, or with everything else.
const FILES: [&str; 6] = [
    "/var/log/haproxy.log",
    "/var/log/haproxy/haproxy.log",
    "/var/log/host/haproxy.log",
    "/logs/haproxy.log",
    "/var/log/syslog",
    "/var/log/messages",
];

pub(super) fn look(look: &mut Look) {
    let host = Rc::clone(&look.host);
    let unit = look.installed(&["haproxy.service"]);
    for file in FILES {
        let path = Path::new(file);
        let own = path.file_name().is_some_and(|name| name == "haproxy.log");
        if !host.has(file) || (!own && (unit.is_none() || look.findings.jails.contains_key(&Kind::Haproxy))) {
            continue;
        }
        if own {
            look.file(&host, path, Kind::Haproxy);
        } else if let Ok((mut file, _)) = host.open(path)
            && look
                .sampler
                .read(&mut file, false)
                .is_ok_and(|sample| sample.dialect == Some(Dialect::Haproxy))
        {
            look.file(&host, path, Kind::Haproxy);
        }
    }
    if look.findings.jails.contains_key(&Kind::Haproxy) {
        return;
    }
    if let Some((unit, place)) = unit {
        if look.journal().is_some() {
            let how =
                format!("{unit} is installed ({place}), and there is no file of its log: the journal has it");
            look.unit(Kind::Haproxy, &unit, how);
        } else {
            look.findings.note(format!(
                "{unit} is installed ({place}), and its log was found neither in a file nor in a journal (`log /dev/log local0` and \
                 `option httplog` in haproxy.cfg)"
            ));
        }
    }
}
