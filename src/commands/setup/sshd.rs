//! sshd's log: the file that syslog writes, or the journal; never both, which would count everything twice.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::dialect::{Dialect, Kind};
use super::finding::{LogFile, age};
use super::logs::below;
use super::look::Look;
use super::yaml::literal;

/// Debian's and Ubuntu's file, and Fedora's.
const NAMES: [&str; 2] = ["auth.log", "secure"];
const PROGRAMS: [&str; 3] = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"];
/// A file that nobody wrote for so long was left behind by a syslog that is gone.
const STALE: Duration = Duration::from_secs(14 * 24 * 3600);

pub(super) fn look(look: &mut Look) {
    let host = Rc::clone(&look.host);
    let program = PROGRAMS.iter().find(|program| host.has(program));
    let unit = look.installed(&["ssh.service", "sshd.service"]);
    let mut directories: Vec<PathBuf> = ["/var/log", "/var/log/host", "/logs"].map(PathBuf::from).into();
    directories.extend(below(&host, "/logs"));
    for path in directories.iter().flat_map(|directory| NAMES.map(|name| directory.join(name))) {
        if file(look, &path, program.is_some() || unit.is_some()) {
            return;
        }
    }
    match (unit, program) {
        (Some((unit, place)), _) if look.journal().is_some() => {
            let how = format!("{unit} is installed ({place}), and no file of syslog's has its log: the journal has it");
            look.unit(Kind::Sshd, &unit, how);
        }
        (None, None) => look.findings.note("sshd is not installed, as far as can be seen".to_owned()),
        (_, _) => look.findings.note(
            "sshd is installed, and its log was found neither in a file (/var/log/auth.log, /var/log/secure) nor in a journal \
             (/var/log/journal, /run/log/journal): install rsyslog, or in a container mount one of them"
                .to_owned(),
        ),
    }
}

/// Proposes the file if it is sshd's log.
fn file(look: &mut Look, path: &Path, installed: bool) -> bool {
    let host = Rc::clone(&look.host);
    let mut file = match look.open(&host, path) {
        Ok(Some(file)) => file,
        Ok(None) => return false,
        Err(e) => {
            look.findings.failed(&host.path().join(path.strip_prefix("/").unwrap_or(path)), &e);
            return false;
        }
    };
    let sample = look.sampler.read(&mut file, false).unwrap_or_default();
    let modified = file.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let stale = SystemTime::now().duration_since(modified).is_ok_and(|passed| passed > STALE);
    // Others write there too: that its last lines are theirs says nothing.
    let ours = sample.dialect == Some(Dialect::Sshd) || (installed && !stale);
    let Some(place) = host.find(path).ok().and_then(|place| place.to_str().map(str::to_owned)) else {
        return false;
    };
    if !ours {
        return false;
    }
    let wrote = if sample.dialect == Some(Dialect::Sshd) {
        ", with lines of sshd"
    } else {
        ", where syslog writes for sshd"
    };
    let how = format!("{place}: last written {}{wrote}", age(modified));
    let log = LogFile { tree: Rc::clone(&host), path: path.to_owned(), docker: false };
    look.findings.path(Kind::Sshd, literal(&place), how, vec![log]);
    true
}
