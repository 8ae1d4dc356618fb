//! Whether a jail's sources besides files are there and can be read.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;

use super::finding::{Finding, Mark, Section};
use crate::daemon::jails::{Ready, SourceOptions};
use crate::source::docker::{Catalogue, Driver};
use crate::source::journal;
use crate::source::syslog::Address;

/// A finding for each kind of source that the jail has. Nothing is listened at and nothing is removed.
pub(super) fn look(ready: &Ready, options: &SourceOptions, section: &Section) -> Vec<Finding> {
    let of = |(mark, what, told): (Mark, &str, String)| Finding::new(section.clone(), mark, what, told);
    let mut findings = Vec::new();
    findings.extend(ready.jail.journal.as_ref().map(|matches| of(look_at_journal(matches, options))));
    if !ready.jail.docker.is_empty() {
        findings.push(of(look_at_docker(ready, options)));
    }
    findings.extend(ready.jail.listen.iter().map(|address| of(look_at_listener(address))));
    findings
}

fn look_at_journal(matches: &journal::Matches, options: &SourceOptions) -> (Mark, &'static str, String) {
    let (mark, told) = match journal::last_entry(matches, options.journal.as_deref()) {
        Ok(Some(at)) => (Mark::Ok, format!("{matches}: the last entry is of {at}")),
        Ok(None) => (Mark::Heed, format!("{matches}: no entry fits yet, will be waited for")),
        Err(e) => (Mark::No, format!("{matches}: {e}")),
    };
    (mark, "journal", told)
}

fn look_at_docker(ready: &Ready, options: &SourceOptions) -> (Mark, &'static str, String) {
    let all = match Catalogue::default().look(&options.docker) {
        Ok(all) => all,
        Err(e) => return (Mark::No, "docker", format!("{}/containers: {e}", options.docker.display())),
    };
    let mut mark = Mark::Ok;
    let mut told = Vec::new();
    for selector in &ready.jail.docker {
        let mut fitting = all.iter().filter(|container| selector.fits(container)).peekable();
        if fitting.peek().is_none() {
            mark = if mark == Mark::No { mark } else { Mark::Heed };
            told.push(format!("{selector}: no such container yet, will be waited for"));
        }
        for container in fitting {
            let unreadable = match &container.driver {
                Driver::File(path) => {
                    std::fs::File::open(path).err().map(|e| format!("{}: {e}", path.display()))
                }
                Driver::Journal => {
                    journal::missing_journal(options.journal.as_deref()).err().map(|e| e.to_string())
                }
                Driver::Other(_) => None,
            };
            match container.driver.problem().or(unreadable) {
                Some(problem) => {
                    mark = Mark::No;
                    told.push(format!("{}: {problem}", container.name));
                }
                None => told.push(format!("{} logs by {}", container.name, container.driver.word())),
            }
        }
    }
    (mark, "docker", told.join("; "))
}

fn look_at_listener(address: &Address) -> (Mark, &'static str, String) {
    let taken = match address {
        Address::Udp(at) => UdpSocket::bind(at).err().map(|e| e.to_string()),
        Address::Unix(path) => match UnixDatagram::unbound().and_then(|socket| socket.connect(path)) {
            Ok(()) => Some("somebody listens there".to_owned()),
            Err(_) if path.exists() && !is_socket(path) => {
                Some("there is a file that is no socket".to_owned())
            }
            Err(_) => None,
        },
    };
    match taken {
        None => (Mark::Ok, "listen", format!("{address}: free, or will be taken over")),
        // Most likely by the agent that runs.
        Some(why) => (Mark::Heed, "listen", format!("{address}: {why}; by a running agent, if all is well")),
    }
}

fn is_socket(path: &std::path::Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}
