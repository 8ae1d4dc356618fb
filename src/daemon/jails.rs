//! The configured jails, put together: numbers, compiled filters, policies, and what each of the stages needs of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use ipnet::IpNet;
use jiff::tz::{Offset, TimeZone};

use crate::config::{AllowEntry, Config, Jail};
use crate::engine::{Allowlist, Policy};
use crate::filter::{Filter, Trust};
use crate::host;
use crate::kernel::Layout;
use crate::types::JailId;

/// Numbers for names, given once and never again: what is under way over a reload still names the right jail.
#[derive(Debug, Default)]
pub struct Registry(Vec<String>);

impl Registry {
    /// The number of the jail `name`, a new one for a new name.
    pub fn id(&mut self, name: &str) -> JailId {
        let at = self.0.iter().position(|known| known == name).unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        });
        // 65,535 jails were configured in this process' life: the rest share the last number.
        JailId(u16::try_from(at).unwrap_or(u16::MAX))
    }

    /// The number of the jail `name`, if it was ever configured.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<JailId> {
        let at = self.0.iter().position(|known| known == name)?;
        Some(JailId(u16::try_from(at).unwrap_or(u16::MAX)))
    }

    /// The name of a number that was given out.
    #[must_use]
    pub fn name(&self, id: JailId) -> Option<&str> {
        self.0.get(usize::from(id.0)).map(String::as_str)
    }
}

/// A jail, ready to run.
#[derive(Clone)]
pub struct Ready {
    /// Its number.
    pub id: JailId,
    /// As configured.
    pub jail: Jail,
    /// Its filter.
    pub filter: Arc<Filter>,
    /// What the engine is told.
    pub policy: Policy,
}

/// All jails, ready to run.
#[derive(Clone)]
pub struct Jails {
    /// In the configuration's order.
    pub jails: Vec<Ready>,
    /// Whose word about a client's address is believed.
    pub trust: Arc<Trust>,
    /// Who is never banned.
    pub allowlist: Allowlist,
    /// Oddities of filters that are no mistakes.
    pub warnings: Vec<String>,
}

impl Jails {
    /// Compiles the filters of `config`.
    ///
    /// # Errors
    /// A filter that does not compile, naming it, or a host that does not tell its addresses.
    pub fn new(config: &Config, registry: &mut Registry) -> Result<Self> {
        let own = host::own_networks()?;
        let networks = |entries: &[AllowEntry]| networks(entries, &own);
        // Jails that share a filter share its compiled form, and so what it makes of each line.
        let mut compiled: BTreeMap<(String, Option<String>), Arc<Filter>> = BTreeMap::new();
        let mut jails = Vec::new();
        let mut warnings = Vec::new();
        for jail in &config.jails {
            let zone = jail.timezone.clone().or_else(|| jail.filter.timezone.clone());
            let key = (jail.filter_name.clone(), zone.clone());
            let filter = match compiled.get(&key) {
                Some(filter) => Arc::clone(filter),
                None => {
                    let zone = time_zone(zone.as_deref()).with_context(|| format!("jail {}", jail.name))?;
                    let filter = Arc::new(Filter::compile(&jail.filter_name, &jail.filter, &zone)?);
                    warnings.extend(
                        filter.warnings().iter().map(|w| format!("filter {}: {w}", jail.filter_name)),
                    );
                    compiled.insert(key, Arc::clone(&filter));
                    filter
                }
            };
            let extra = networks(&jail.ignoreip);
            let policy = Policy {
                maxretry: jail.maxretry,
                findtime: jail.findtime,
                bantime: jail.bantime,
                ipv6_prefix: jail.ipv6_prefix,
                allowlist: (!extra.is_empty()).then(|| Arc::new(extra.into_iter().collect())),
            };
            jails.push(Ready { id: registry.id(&jail.name), jail: jail.clone(), filter, policy });
        }
        Ok(Self {
            jails,
            trust: Arc::new(Trust::new(networks(&config.trusted_proxies))),
            allowlist: networks(&config.ignoreip).into_iter().collect(),
            warnings,
        })
    }

    /// Whose word `config` believes, alone.
    ///
    /// # Errors
    /// A host that does not tell its addresses.
    pub fn trust(config: &Config) -> Result<Trust> {
        Ok(Trust::new(networks(&config.trusted_proxies, &host::own_networks()?)))
    }

    /// The shape of the table for these jails.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::new(
            self.jails.iter().map(|r| (r.id, r.jail.name.as_str(), &r.jail.ports[..], r.jail.ipv6_prefix)),
        )
    }

    /// The jail called `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Ready> {
        self.jails.iter().find(|ready| ready.jail.name == name)
    }
}

fn networks(entries: &[AllowEntry], own: &[IpNet]) -> Vec<IpNet> {
    let mut nets = Vec::new();
    for entry in entries {
        match entry {
            AllowEntry::Net(net) => nets.push(*net),
            AllowEntry::OwnHost => nets.extend(own),
        }
    }
    nets
}

/// The zone of time stamps that carry none: the one named, else the host's.
fn time_zone(name: Option<&str>) -> Result<TimeZone> {
    let Some(name) = name else { return Ok(TimeZone::system()) };
    fixed_offset(name)
        .or_else(|| TimeZone::get(name).ok())
        .with_context(|| format!("timezone {name:?} is not known here (is the package tzdata installed?)"))
}

/// `UTC`, or `+01:00`.
fn fixed_offset(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let (sign, rest) = match name.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let seconds = hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60;
    Some(TimeZone::fixed(Offset::from_seconds(sign * seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_a_name_or_an_offset() {
        let offset =
            |name: &str| time_zone(Some(name)).map(|z| z.to_offset(jiff::Timestamp::UNIX_EPOCH).seconds());
        assert_eq!(offset("UTC").unwrap(), 0);
        assert_eq!(offset("+05:30").unwrap(), 19_800);
        assert_eq!(offset("-01:00").unwrap(), -3600);
        assert!(offset("Nowhere/Town").unwrap_err().to_string().contains("Nowhere/Town"));
    }

    #[test]
    fn a_jail_keeps_its_number() {
        let mut registry = Registry::default();
        let (a, b) = (registry.id("a"), registry.id("b"));
        assert_ne!(a, b);
        assert_eq!(registry.id("a"), a);
        assert_eq!(registry.find("b"), Some(b));
        assert_eq!(registry.find("c"), None);
        assert_eq!(registry.name(b), Some("b"));
    }
}
