//! From what was typed to what it means: defaults filled in, filters found, contradictions reported.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::cursor::nearest;
use super::escalation::{self, RawEscalation};
use super::raw::{RawConfig, RawFilter, RawJail, RawNamed};
use super::report::{Location, Path, Report, shown};
use super::{Config, Jail, Leaks, Limits, Log, Paths, Shipped, filter, names};
use crate::filter::definition::Definition;
use crate::source::journal::Matches;
use crate::types::BanTime;

const STATE: &str = "/var/lib/stockade";
use super::DEFAULT_CONTROL as CONTROL;
const IGNOREIP: [&str; 2] = ["loopback", "self"];
const TRUSTED_PROXIES: [&str; 2] = ["loopback", "private"];
/// So many offenders are remembered where nothing is configured.
pub(crate) const OFFENDERS: u64 = 200_000;
/// So many repeaters are remembered where nothing is configured.
pub(crate) const HISTORY: u64 = 200_000;
const LINE: u64 = 65_536;
const MEMORY: u64 = 256 << 20;
const MAXRETRY: u32 = 5;
const TEN_MINUTES: Duration = Duration::from_secs(600);
const IPV6_PREFIX: u8 = 64;
const GRACE: Duration = Duration::from_secs(10);

/// The configuration that `raw` states. It is to be used only if no mistake was reported: what one is about is left
/// out.
pub(super) fn resolve(raw: RawConfig, shipped: &Shipped<'_>, report: &mut Report) -> Config {
    let mut filters = Filters::new(raw.filters, *shipped, report);
    let mut jails = Vec::new();
    raw.sources.judge("defaults", &raw.defaults.sources, report);
    for jail in &raw.jails {
        raw.sources.judge(
            &Path::Key(&Path::Key(&Path::Root, "jails"), &jail.name).to_string(),
            &jail.value.sources,
            report,
        );
    }
    let known: Vec<&str> = raw.sinks.iter().map(|sink| sink.name.as_str()).collect();
    find_sinks("defaults", &raw.defaults, &known, report);
    for jail in &raw.jails {
        let path = Path::Key(&Path::Key(&Path::Root, "jails"), &jail.name).to_string();
        find_sinks(&path, &jail.value, &known, report);
    }
    for RawNamed { name, at, value } in raw.jails {
        let jail =
            resolve_jail(name, at, value, &raw.defaults, raw.escalation.as_ref(), &mut filters, report);
        jails.extend(jail.filter(|jail| jail.enabled));
    }
    if let Some(RawFilter { name: Some(name), at }) = &raw.defaults.filter {
        // Also when every jail names its own: what is written must hold.
        filters.find(name, *at, "defaults.filter", report);
    }
    if jails.is_empty() {
        report.warning(None, "", "no jail is enabled, so nothing is watched; add one under `jails:`");
    }
    for sink in &raw.sinks {
        if !jails.iter().any(|jail| jail.sinks.contains(&sink.name)) {
            let path = Path::Key(&Path::Key(&Path::Root, "sinks"), &sink.name).to_string();
            let text = "no jail uses it; add its name to `sinks:` of jails, or of `defaults`";
            report.warning(Some(sink.at), path, text);
        }
    }
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Config {
        jails,
        filters: filters.known.into_iter().filter_map(|(name, found)| Some((name, found?))).collect(),
        ignoreip: raw.ignoreip.unwrap_or_else(|| names::entries(&IGNOREIP)),
        trusted_proxies: raw.trusted_proxies.unwrap_or_else(|| names::entries(&TRUSTED_PROXIES)),
        sinks: raw.sinks.into_iter().filter_map(|sink| sink.value).collect(),
        cloudflare_ranges: raw.cloudflare_ranges,
        sources: raw.sources.resolve(),
        backend: raw.backend.unwrap_or_default(),
        headers: raw.headers.resolve(),
        paths: Paths {
            state: raw.state.unwrap_or_else(|| PathBuf::from(STATE)),
            control: raw.control.unwrap_or_else(|| PathBuf::from(CONTROL)),
        },
        limits: Limits {
            offenders: size(raw.offenders.unwrap_or(OFFENDERS)),
            history: size(raw.history.unwrap_or(HISTORY)),
            line: size(raw.line.unwrap_or(LINE)),
            memory: raw.memory.unwrap_or(MEMORY),
        },
        leaks: Leaks { grace: raw.grace.unwrap_or(GRACE) },
        log: Log { level: raw.level.unwrap_or_default(), format: raw.format.unwrap_or_default() },
        warnings: Vec::new(),
    }
}

fn resolve_jail(
    name: String,
    at: Location,
    own: RawJail,
    defaults: &RawJail,
    escalation: Option<&RawEscalation>,
    filters: &mut Filters<'_>,
    report: &mut Report,
) -> Option<Jail> {
    let jails = Path::Key(&Path::Root, "jails");
    let path = Path::Key(&jails, &name);
    // As in fail2ban, a jail without a filter has the one of its own name.
    let (filter, key) = match (own.filter, &defaults.filter) {
        (Some(filter), _) => (filter, format!("{path}.filter")),
        (None, Some(filter)) => (filter.clone(), "defaults.filter".to_owned()),
        (None, None) => (RawFilter { name: Some(name.clone()), at }, path.to_string()),
    };
    let found = filter.name.and_then(|name| Some((filters.find(&name, filter.at, &key, report)?, name)));
    let logpath = own.logpath.or_else(|| defaults.logpath.clone());
    let journal = own.sources.journal.or_else(|| defaults.sources.journal.clone());
    let docker = own.sources.docker.or_else(|| defaults.sources.docker.clone());
    let listen = own.sources.listen.or_else(|| defaults.sources.listen.clone());
    if logpath.is_none() && journal.is_none() && docker.is_none() && listen.is_none() {
        let text =
            "has no logpath; name the files to follow with `logpath:` (or `journal:`, `docker:`, `listen:`)";
        report.mistake(Some(at), path, text);
    }
    let bantime = own.bantime.or(defaults.bantime).unwrap_or(BanTime::For(TEN_MINUTES));
    let layers = [own.escalation.as_ref(), defaults.escalation.as_ref(), escalation];
    let escalation = escalation::resolve(layers, bantime, report);
    let (filter, filter_name) = found?;
    Some(Jail {
        enabled: own.enabled.or(defaults.enabled).unwrap_or(true),
        filter_name,
        filter,
        logpath: logpath.unwrap_or_default(),
        journal: journal.filter(|all| !all.is_empty()).map(Matches::any),
        docker: distinct(docker.unwrap_or_default()),
        listen: distinct(listen.unwrap_or_default().into_iter().map(|(address, _)| address)),
        render: own.sources.shape.or(defaults.sources.shape),
        from: own.from.or(defaults.from).unwrap_or_default(),
        maxretry: own.maxretry.or(defaults.maxretry).unwrap_or(MAXRETRY),
        findtime: own.findtime.or(defaults.findtime).unwrap_or(TEN_MINUTES),
        bantime,
        escalation: escalation.map(Arc::new),
        ipv6_prefix: own.ipv6_prefix.or(defaults.ipv6_prefix).unwrap_or(IPV6_PREFIX),
        ignoreip: own.ignoreip.or_else(|| defaults.ignoreip.clone()).unwrap_or_default(),
        ports: own.ports.or_else(|| defaults.ports.clone()).unwrap_or_default(),
        observe: own.observe.or(defaults.observe).unwrap_or(false),
        timezone: own.timezone.or_else(|| defaults.timezone.clone()),
        sinks: distinct(names_of(own.sinks.as_ref().or(defaults.sinks.as_ref()))),
        name,
    })
}

fn names_of(sinks: Option<&Vec<(String, Location)>>) -> impl Iterator<Item = String> {
    sinks.into_iter().flatten().map(|(name, _)| name.clone())
}

/// Reports names that no sink has.
fn find_sinks(path: &str, jail: &RawJail, known: &[&str], report: &mut Report) {
    for (name, at) in jail.sinks.iter().flatten() {
        if known.contains(&name.as_str()) {
            continue;
        }
        let hint = match nearest(name, known.iter().copied()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => "define it under `sinks:`".to_owned(),
        };
        report.mistake(
            Some(*at),
            format!("{path}.sinks"),
            format!("there is no sink `{}`; {hint}", shown(name)),
        );
    }
}

/// Each once, in their order.
fn distinct<T: PartialEq>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut out = Vec::new();
    for item in all {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

/// The filters a jail can name; a shipped one is read when it is first asked for.
struct Filters<'a> {
    shipped: Shipped<'a>,
    known: HashMap<String, Option<Arc<Definition>>>,
}

impl<'a> Filters<'a> {
    fn new(own: Vec<RawNamed<Definition>>, shipped: Shipped<'a>, report: &mut Report) -> Self {
        let mut known = HashMap::new();
        let filters = Path::Key(&Path::Root, "filters");
        for RawNamed { name, at, value } in own {
            if shipped.names.contains(&name.as_str()) {
                let path = Path::Key(&filters, &name);
                report.warning(
                    Some(at),
                    path,
                    "replaces the shipped filter of this name; rename it to keep both",
                );
            }
            known.insert(name, Some(Arc::new(value)));
        }
        Self { shipped, known }
    }

    /// The filter of that name; if there is none, the report says so with `at` and `path`.
    fn find(&mut self, name: &str, at: Location, path: &str, report: &mut Report) -> Option<Arc<Definition>> {
        if let Some(found) = self.known.get(name) {
            return found.clone();
        }
        let Some(text) = (self.shipped.text)(name) else {
            let own = self.known.keys().map(String::as_str);
            let hint = match nearest(name, own.chain(self.shipped.names.iter().copied())) {
                Some(word) => format!("did you mean `{word}`?"),
                None => "define it under `filters:`, or name another with `filter:`".to_owned(),
            };
            report.mistake(Some(at), path, format!("there is no filter `{}`; {hint}", shown(name)));
            return None;
        };
        let found = match filter::definition(text, &format!("the shipped filter {}", shown(name))) {
            Ok(definition) => Some(Arc::new(definition)),
            Err(e) => {
                report.absorb(e.mistakes());
                None
            }
        };
        self.known.insert(name.to_owned(), found.clone());
        found
    }
}
