//! The configured jails, put together: numbers, compiled filters, policies, and what each of the stages needs of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use ipnet::IpNet;
use jiff::tz::TimeZone;

use super::ranges;
use crate::config::{AllowEntry, Config, Jail, Sink};
use crate::engine::{Allowlist, Escalation, Policy};
use crate::filter::timestamp::zone;
use crate::filter::{Filter, Trust};
use crate::host;
use crate::kernel::Layout;
use crate::source::Shape;
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

    /// All names that were ever given a number, by number.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
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
    /// Its name, to be shared.
    pub name: Arc<str>,
    /// As configured.
    pub jail: Jail,
    /// Its filter.
    pub filter: Arc<Filter>,
    /// What the engine is told.
    pub policy: Policy,
    /// What of an entry of the journal or a message of syslog its filter is given.
    pub shape: Shape,
}

/// What holds for all sources besides files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceOptions {
    /// Where the journal is; `None`: where journald keeps it.
    pub journal: Option<PathBuf>,
    /// Where Docker keeps its files.
    pub docker: PathBuf,
    /// Who may send over UDP.
    pub senders: Vec<IpNet>,
    /// The mode of Unix sockets.
    pub mode: u32,
    /// A longer line is left out, in bytes.
    pub longest: usize,
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
    /// What Cloudflare connects from.
    pub cloudflare: Vec<IpNet>,
    /// About sources besides files.
    pub options: Arc<SourceOptions>,
    /// Oddities of filters that are no mistakes.
    pub warnings: Vec<String>,
}

/// A jail whose bans are told has its offenders' bans counted, also if they do not grow.
fn counting(config: &Config, jail: &Jail) -> Option<Arc<Escalation>> {
    let hears =
        |sink: &&Sink| jail.sinks.contains(&sink.name) && (sink.kind.is_mirror() || !sink.events.is_empty());
    config.sinks.iter().find(hears).map(|_| Arc::new(Escalation::counting()))
}

impl Jails {
    /// Compiles the filters of `config`.
    ///
    /// # Errors
    /// A filter that does not compile, naming it, or a host that does not tell its addresses.
    pub fn new(config: &Config, registry: &mut Registry) -> Result<Self> {
        let own = host::own_networks()?;
        let cloudflare = ranges::load(config);
        let networks = |entries: &[AllowEntry]| networks(entries, &own, &cloudflare);
        // Jails that share a filter share its compiled form, and so what it makes of each line.
        let mut compiled: BTreeMap<(String, Option<String>), Arc<Filter>> = BTreeMap::new();
        let mut jails = Vec::new();
        let mut warnings = Vec::new();
        for jail in &config.jails {
            let key = (jail.filter_name.clone(), jail.timezone.clone());
            let filter = match compiled.get(&key) {
                Some(filter) => Arc::clone(filter),
                None => {
                    // What the jail says of its log's zone goes before what the filter says, and that before the host's.
                    let mut filter = Filter::compile(&jail.filter_name, &jail.filter, &TimeZone::system())?;
                    if let Some(name) = &jail.timezone {
                        filter = filter.in_zone(zone(name).with_context(|| unknown_zone(&jail.name, name))?);
                    }
                    warnings.extend(
                        filter.warnings().iter().map(|w| format!("filter {}: {w}", jail.filter_name)),
                    );
                    let filter = Arc::new(filter);
                    compiled.insert(key, Arc::clone(&filter));
                    filter
                }
            };
            let extra = networks(&jail.ignoreip);
            let policy = Policy {
                maxretry: jail.maxretry,
                findtime: jail.findtime,
                bantime: jail.bantime,
                escalation: jail.escalation.clone().or_else(|| counting(config, jail)),
                ipv6_prefix: jail.ipv6_prefix,
                allowlist: (!extra.is_empty()).then(|| Arc::new(extra.into_iter().collect())),
            };
            let made_for = if filter.reads_syslog() { Shape::Syslog } else { Shape::Message };
            let shape = jail.render.unwrap_or(made_for);
            jails.push(Ready {
                id: registry.id(&jail.name),
                name: jail.name.as_str().into(),
                jail: jail.clone(),
                filter,
                policy,
                shape,
            });
        }
        Ok(Self {
            jails,
            trust: Arc::new(Trust::new(networks(&config.trusted_proxies))),
            allowlist: networks(&config.ignoreip).into_iter().collect(),
            options: Arc::new(SourceOptions {
                journal: config.sources.journal.clone(),
                docker: config.sources.docker.clone(),
                senders: networks(&config.sources.senders),
                mode: config.sources.mode,
                longest: config.limits.line,
            }),
            warnings,
            cloudflare,
        })
    }

    /// Whose word `config` believes, alone.
    ///
    /// # Errors
    /// A host that does not tell its addresses.
    pub fn trust(config: &Config) -> Result<Trust> {
        Ok(Trust::new(networks(&config.trusted_proxies, &host::own_networks()?, &ranges::load(config))))
    }

    /// The shape of the table for these jails. Those that only observe have no place there, and so none of their bans has.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let enforced = self.jails.iter().filter(|ready| !ready.jail.observe);
        let steps = enforced.clone().filter_map(|r| r.jail.escalation.as_ref()?.neighbours.as_ref());
        Layout::new(enforced.map(|r| (r.id, r.jail.name.as_str(), &r.jail.ports[..], r.jail.ipv6_prefix)))
            .with_prefixes(steps.flat_map(|n| n.ipv6.iter().copied()))
    }

    /// Whether bans of this jail are decided and told, but not enforced.
    #[must_use]
    pub fn observed(&self, id: JailId) -> bool {
        self.jails.iter().any(|ready| ready.id == id && ready.jail.observe)
    }

    /// The jail called `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Ready> {
        self.jails.iter().find(|ready| ready.jail.name == name)
    }
}

fn networks(entries: &[AllowEntry], own: &[IpNet], cloudflare: &[IpNet]) -> Vec<IpNet> {
    let mut nets = Vec::new();
    for entry in entries {
        match entry {
            AllowEntry::Net(net) => nets.push(*net),
            AllowEntry::OwnHost => nets.extend(own),
            AllowEntry::Cloudflare => nets.extend(cloudflare),
        }
    }
    nets
}

fn unknown_zone(jail: &str, zone: &str) -> String {
    format!("jail {jail}: timezone {zone:?} is not known on this host (is the package tzdata installed?)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jails_zone_goes_before_the_filters() {
        let text = "filters:\n  f: { failregex: 'x <HOST>', timezone: '+05:00' }\njails:\n  a: { filter: f, logpath: /a }\n  \
                    b: { filter: f, logpath: /b, timezone: UTC }\n";
        let config = Config::parse(text, "test", &crate::config::Shipped::NONE).unwrap();
        let jails = Jails::new(&config, &mut Registry::default()).unwrap();
        let at = |n: usize| {
            let seen = jails.jails[n].filter.examine(
                b"2025-01-02 10:00:00 x 192.0.2.1",
                crate::types::Timestamp::default(),
                &jails.trust,
            );
            seen.at.unwrap().to_string()
        };
        assert_eq!((at(0).as_str(), at(1).as_str()), ("2025-01-02T05:00:00Z", "2025-01-02T10:00:00Z"));
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
