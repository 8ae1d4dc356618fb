//! Orders by hand, from text to the engine's commands.

use std::net::IpAddr;

use ipnet::IpNet;

use super::jails::Registry;
use crate::cli::exit;
use crate::config::duration;
use crate::engine::{Command, Engine, Unban};
use crate::types::{BanTime, JailId};

/// Why an order is not understood.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("{0:?} is neither an address (203.0.113.7) nor a network (2001:db8::/48)")]
    NotAnOffender(String),
    #[error("{text:?} is no length of time: {reason} (write 2h, 1d12h or permanent)")]
    NotATime { text: String, reason: String },
    #[error("there is no jail {name:?} (there are: {known})")]
    NoSuchJail { name: String, known: String },
}

impl OrderError {
    /// What who asked should end with: to be asked about what is not there is no wrong usage.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::NoSuchJail { .. } => exit::NO,
            Self::NotAnOffender(_) | Self::NotATime { .. } => exit::USAGE,
        }
    }
}

/// The jail called `name`, among those that run.
pub(super) fn jail(
    name: &str,
    registry: &Registry,
    running: impl Iterator<Item = JailId> + Clone,
) -> Result<JailId, OrderError> {
    registry.find(name).filter(|id| running.clone().any(|running| running == *id)).ok_or_else(|| {
        let known: Vec<&str> = running.filter_map(|id| registry.name(id)).collect();
        OrderError::NoSuchJail { name: name.to_owned(), known: known.join(", ") }
    })
}

/// A ban of `offenders` in `jail`. An address is banned as the jail would ban it, so an IPv6 one by its prefix;
/// a network (also one of a single address, `2001:db8::1/128`) as it stands.
pub(super) fn ban(
    engine: &Engine,
    jail: JailId,
    offenders: &[String],
    time: Option<&str>,
    reason: Option<&str>,
    force: bool,
) -> Result<Command, OrderError> {
    let mut nets = Vec::with_capacity(offenders.len());
    for text in offenders {
        nets.push(match text.parse::<IpAddr>() {
            // One that is never banned has no prefix to be banned by; the refusal shall name the address itself.
            Ok(address) => engine.offender(jail, address).unwrap_or_else(|| IpNet::from(address)),
            Err(_) => network(text)?,
        });
    }
    let time = time.map(ban_time).transpose()?;
    Ok(Command::Ban { jail, nets, time, reason: reason.unwrap_or("by hand").as_bytes().to_vec(), force })
}

/// An unban of `offenders`, or of everybody when there are none.
pub(super) fn unban(offenders: &[String], jail: Option<JailId>) -> Result<Command, OrderError> {
    if offenders.is_empty() {
        return Ok(Command::Unban { what: Unban::All, jail });
    }
    let nets = offenders.iter().map(|text| network(text)).collect::<Result<_, _>>()?;
    Ok(Command::Unban { what: Unban::Nets(nets), jail })
}

/// An address or a network.
pub(super) fn network(text: &str) -> Result<IpNet, OrderError> {
    text.parse::<IpAddr>()
        .map(IpNet::from)
        .or_else(|_| text.parse::<IpNet>())
        .map_err(|_| OrderError::NotAnOffender(text.to_owned()))
}

fn ban_time(text: &str) -> Result<BanTime, OrderError> {
    duration::parse_ban_time(text)
        .map_err(|reason| OrderError::NotATime { text: text.to_owned(), reason: reason.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_named() {
        let error = unban(&["203.0.113.7".to_owned(), "nowhere".to_owned()], None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"nowhere\" is neither an address (203.0.113.7) nor a network (2001:db8::/48)"
        );
    }

    #[test]
    fn no_offenders_means_all() {
        assert_eq!(unban(&[], None).unwrap(), Command::Unban { what: Unban::All, jail: None });
    }
}
