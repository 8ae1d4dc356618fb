//! Who runs setup, from where: the address that must not be locked out.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::config::names::{LOOPBACK, PRIVATE};
use crate::host::{Places, Surroundings};

/// An address somebody is logged in from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) address: IpAddr,
    /// In words.
    pub(super) how: String,
}

impl Person {
    /// Whether `private` names it already.
    pub(super) fn is_private(&self) -> bool {
        let nets = PRIVATE.iter().chain(&LOOPBACK).filter_map(|net| net.parse::<IpNet>().ok());
        nets.into_iter().any(|net| net.contains(&self.address))
    }
}

/// The one who runs setup first, then everybody who is logged in from elsewhere.
pub(super) fn look(root: &Path, ssh_connection: Option<&str>) -> Vec<Person> {
    let mut found = Vec::new();
    // `CLIENT PORT SERVER PORT`, as sshd(8) sets it.
    let own = ssh_connection.and_then(|text| text.split(' ').next()?.parse::<IpAddr>().ok());
    if let Some(address) = own.map(|address| address.to_canonical()).filter(|address| !address.is_loopback())
    {
        found.push(Person { address, how: "you are logged in from there".to_owned() });
    }
    let mut surroundings = Surroundings::new(below(root));
    surroundings.scan();
    for session in surroundings.look().sessions {
        if found.iter().all(|person| person.address != session.address) {
            found.push(Person {
                address: session.address,
                how: format!("{} is logged in from there", session.who),
            });
        }
    }
    found
}

/// The places of the host that is looked at.
fn below(root: &Path) -> Places {
    let places = Places::default();
    if root == Path::new("/") {
        return places;
    }
    let place = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    Places {
        resolv_conf: place(&places.resolv_conf),
        resolved: place(&places.resolved),
        utmp: place(&places.utmp),
        sessions: place(&places.sessions),
        proc: place(&places.proc),
        net: place(&places.net),
    }
}
