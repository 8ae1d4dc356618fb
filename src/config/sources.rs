//! Sources besides files: what a jail says of them, and what holds for all of a kind.

use std::path::PathBuf;

use super::cursor::{Cursor, Section};
use super::names::{self, AllowEntry};
use super::report::{Location, Report, clean, shown};
use crate::source::Shape;
use crate::source::docker::Selector;
use crate::source::journal::Matches;
use crate::source::syslog::Address;

/// Where dockerd keeps its files.
const DOCKER: &str = "/var/lib/docker";
/// Who may send over UDP.
const SENDERS: [&str; 1] = ["loopback"];
/// Everybody on this host, as with `/dev/log`.
const MODE: u32 = 0o666;

/// What holds for all sources of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// The directory of the journal's files; `None`: where journald keeps them.
    pub journal: Option<PathBuf>,
    /// The directory that Docker keeps `containers` in.
    pub docker: PathBuf,
    /// Who may send messages over UDP.
    pub senders: Vec<AllowEntry>,
    /// The mode of Unix sockets that are listened at.
    pub mode: u32,
}

/// As written.
#[derive(Debug, Default)]
pub(super) struct RawSources {
    pub(super) journal: Option<PathBuf>,
    pub(super) docker: Option<PathBuf>,
    pub(super) senders: Option<Vec<AllowEntry>>,
    pub(super) mode: Option<u32>,
}

impl RawSources {
    pub(super) fn resolve(self) -> Sources {
        Sources {
            journal: self.journal,
            docker: self.docker.unwrap_or_else(|| PathBuf::from(DOCKER)),
            senders: self.senders.unwrap_or_else(|| names::entries(&SENDERS)),
            mode: self.mode.unwrap_or(MODE),
        }
    }

    /// Who can send can have anybody banned, and over UDP a sender's address is what it says: that others may is to be said.
    pub(super) fn judge(&self, jail: &str, sources: &RawJailSources, report: &mut Report) {
        if self.lets_others_send() {
            return;
        }
        for (address, at) in sources.listen.iter().flatten().filter(|(address, _)| !address.is_local()) {
            let text = format!(
                "{address} can be reached from elsewhere; listen at 127.0.0.1, or name who may send there in `syslog: {{ senders: … }}`"
            );
            report.mistake(Some(*at), format!("{jail}.listen"), text);
        }
    }

    /// Whether somebody besides this host may send.
    fn lets_others_send(&self) -> bool {
        let local = |entry: &AllowEntry| match entry {
            AllowEntry::Net(net) => net.addr().is_loopback(),
            AllowEntry::OwnHost => true,
            AllowEntry::Cloudflare => false,
        };
        self.senders.as_ref().is_some_and(|senders| !senders.iter().all(local))
    }
}

/// The sources of a jail, as written.
#[derive(Clone, Debug, Default)]
pub(super) struct RawJailSources {
    /// One question: what any of the entries fits.
    pub(super) journal: Option<Vec<Matches>>,
    pub(super) docker: Option<Vec<Selector>>,
    pub(super) listen: Option<Vec<(Address, Location)>>,
    pub(super) shape: Option<Shape>,
}

/// Reads `journal: { directory: … }` of the document.
pub(super) fn journal(cursor: &Cursor<'_>, report: &mut Report) -> Option<PathBuf> {
    cursor.section(&["directory"], report).read("directory", report, |c, r| c.path(r))
}

/// Reads `docker: { root: … }` of the document.
pub(super) fn docker(cursor: &Cursor<'_>, report: &mut Report) -> Option<PathBuf> {
    cursor.section(&["root"], report).read("root", report, |c, r| c.path(r))
}

/// Reads `syslog: { senders: …, mode: … }` of the document.
pub(super) fn syslog(cursor: &Cursor<'_>, report: &mut Report, raw: &mut RawSources) {
    let keys = cursor.section(&["senders", "mode"], report);
    raw.senders = keys.read("senders", report, |c, r| Some(names::read(c, r)));
    raw.mode = keys.read("mode", report, mode);
}

/// Octal, with or without the 0 in front, as chmod(1) has it.
pub(super) fn mode(cursor: &Cursor<'_>, report: &mut Report) -> Option<u32> {
    let text = cursor.text(report)?;
    let mode = u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).ok();
    let mode = mode.filter(|mode| *mode <= 0o777 && text.len() >= 3 && !text.starts_with('+'));
    if mode.is_none() {
        let text = format!(
            "`{}` is not a mode such as 0660: three octal digits, for owner, group and others",
            shown(text)
        );
        cursor.mistake(report, text);
    }
    mode
}

/// Reads the sources of a jail.
pub(super) fn jail(keys: &Section<'_>, report: &mut Report) -> RawJailSources {
    RawJailSources {
        journal: keys.read("journal", report, |c, r| {
            list(c, r, "name entries, such as _SYSTEMD_UNIT=ssh.service", matches)
        }),
        docker: keys.read("docker", report, |c, r| list(c, r, "name a container", selector)),
        listen: keys.read("listen", report, |c, r| list(c, r, "name where to listen", address)),
        shape: keys.read("render", report, |c, r| {
            c.word(&[("syslog", Shape::Syslog), ("message", Shape::Message)], r)
        }),
    }
}

fn list<T>(
    cursor: &Cursor<'_>,
    report: &mut Report,
    what: &str,
    read: impl Fn(&Cursor<'_>, &mut Report) -> Option<T>,
) -> Option<Vec<T>> {
    if cursor.items().is_empty() {
        cursor.mistake(report, format!("the list is empty; {what}"));
    }
    Some(cursor.list(report, read))
}

fn matches(cursor: &Cursor<'_>, report: &mut Report) -> Option<Matches> {
    match Matches::parse(cursor.some_text(report)?) {
        Ok(matches) => {
            if let Some(term) = matches.forgeable() {
                let text = format!(
                    "any user of this host can write entries that fit `{}`, and so have anybody banned; add who logs, such as \
                     _SYSTEMD_UNIT=ssh.service or _UID=0",
                    shown(&term)
                );
                cursor.warning(report, text);
            }
            Some(matches)
        }
        Err(e) => {
            cursor.mistake(report, clean(&e.to_string()));
            None
        }
    }
}

fn selector(cursor: &Cursor<'_>, report: &mut Report) -> Option<Selector> {
    let read = Selector::parse(cursor.some_text(report)?);
    read.map_err(|e| cursor.mistake(report, clean(&e.to_string()))).ok()
}

fn address(cursor: &Cursor<'_>, report: &mut Report) -> Option<(Address, Location)> {
    let read = Address::parse(cursor.some_text(report)?);
    let address = read.map_err(|e| cursor.mistake(report, clean(&e.to_string()))).ok()?;
    Some((address, cursor.at()))
}
