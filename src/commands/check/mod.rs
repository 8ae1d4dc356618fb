//! `stockade check`: is the configuration right, what can this kernel and this process do, what will be enforced where.
//!
//! Nothing is changed. What may not be asked in this network namespace is asked in one made for it, which is the last
//! thing that is done: there is no way back from there.

mod features;
mod finding;
mod host;
mod lockout;
mod logs;
mod print;
mod sinks;
mod sources;
mod visible;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::tz::TimeZone;
use nft::{Connection, Family, Table};
use nix::sched::{CloneFlags, unshare};

use self::features::Report;
use self::finding::{Finding, Mark, Section};
use self::print::Told;
use super::{Failure, load, print as say};
use crate::cli::exit;
use crate::config::{Config, MatcherChoice};
use crate::daemon::jails::{Jails, Ready, Registry};
use crate::daemon::policy;
use crate::filter::Filter;
use crate::kernel::backend::BackendKind;
use crate::kernel::capability::bpf::Heads;
use crate::kernel::capability::choice::{self, Chosen};
use crate::kernel::capability::docker::Docker;
use crate::kernel::capability::namespace::Place;
use crate::kernel::capability::others::View;
use crate::kernel::capability::{Answer, Capabilities, Feature};
use crate::kernel::header::HeaderRules;
use crate::kernel::{Layout, Ruleset};

/// So long logs may be read: an answer within a second is worth more than one about every log.
const READING: Duration = Duration::from_millis(400);

/// Checks `path`, and prints what was found.
pub(super) fn run(path: &Path, json: bool, print_ruleset: bool) -> Result<()> {
    let config = load(path)?;
    let jails = Jails::new(&config, &mut Registry::default())?;
    if print_ruleset {
        let headers = HeaderRules::planned(&jails.layout(), &config.headers);
        return say(Ruleset::new(jails.layout()).with_headers(&headers).trim_end());
    }
    // Also filters that no jail uses (yet): what is written must hold.
    for (name, definition) in &config.filters {
        Filter::compile(name, definition, &TimeZone::system())?;
    }
    let told = look(path, &config, &jails)?;
    say(if json { told.to_json().to_string() } else { told.to_text() }.trim_end())?;
    if told.is_good() { Ok(()) } else { Err(Failure::quiet(exit::NO).into()) }
}

fn look(path: &Path, config: &Config, jails: &Jails) -> Result<Told> {
    let own = crate::host::local_networks()?;
    let around = visible::Surroundings::new(&jails.trust, &own, Instant::now() + READING);
    let sections: Vec<Section> =
        jails.jails.iter().map(|r| Section::Jail(r.jail.name.clone(), policy(&r.jail))).collect();
    let logs: Vec<Vec<Finding>> = jails
        .jails
        .iter()
        .zip(&sections)
        .map(|(ready, section)| {
            let files = (!ready.jail.logpath.is_empty()).then(|| logs::look(ready, section));
            files.into_iter().chain(sources::look(ready, &jails.options, section)).collect()
        })
        .collect();
    let seen: Vec<visible::Seen> = jails.jails.iter().map(|ready| visible::look(ready, &around)).collect();
    let saved = host::saved(Path::new("/"));
    let place = Place::here();
    let around_here = lockout::look();
    // From where the agent will be, and so before this process leaves its network namespace.
    let of_sinks = sinks::look(config, jails)?;
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();

    let layout = jails.layout();
    let heads = Heads { names: &config.headers.names, prefixes: &layout.prefixes };
    let mut kernel = runtime()?.block_on(Kernel::ask(&layout, &heads));
    // The last thing: this process is a stranger to its own files from then on.
    if kernel.able.is_refused() && unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).is_ok() {
        runtime()?.block_on(kernel.ask_elsewhere(&layout));
    }

    let backend = choice::backend(config.backend, &kernel.table, &kernel.able);
    let matcher = choice::matcher(&config.headers, backend.what, &kernel.able);
    let called_for = |feature| choice::called_for(backend.what, matcher.what, &config.headers, feature);
    let mut findings = vec![configuration(path, config, jails)];
    findings.push(backend_finding(&backend, &kernel));
    findings.push(matcher_finding(&matcher, config, seen.iter().any(visible::Seen::need_heads)));
    let of_jails = jails.jails.iter().zip(&seen).zip(&sections).zip(&logs);
    for (((ready, seen), section), logs) in of_jails {
        findings.extend(logs.iter().cloned());
        findings.extend(observed(ready, section));
        findings.extend(visible::judge(ready, seen, matcher.what, &around, section));
    }
    let unreadable = logs.iter().flatten().any(|finding| finding.what == "logs" && finding.mark == Mark::No);
    let calls = host::Calls { logs: unreadable, bpf: called_for(Feature::BpfLoad) };
    findings.extend(host::capabilities(&kernel.able.privileges, &calls));
    findings.push(host::network(&place));
    findings.extend(lockout::findings(&around_here, &place));
    findings.push(host::docker(&kernel.docker, &kernel.view));
    findings.extend(host::before_ours(&kernel.view));
    findings.extend(saved);
    findings.extend(of_sinks);
    let features = Feature::ALL.map(|feature| Report::new(feature, &kernel.able, called_for(feature))).into();
    let warnings = config.warnings.iter().map(ToString::to_string).chain(jails.warnings.iter().cloned());
    Ok(Told {
        findings,
        features,
        backend: backend.map(BackendKind::word),
        matcher: matcher.map(MatcherChoice::word),
        warnings: warnings.collect(),
    })
}

/// What netlink tells.
struct Kernel {
    able: Capabilities,
    /// Whether it would take our table, with the sets and rules that the configuration asks for.
    table: Answer,
    /// What others have in nf_tables, or why it cannot be seen.
    view: Result<View, String>,
    docker: Docker,
    /// What is known of nf_tables was asked in a namespace made for it.
    elsewhere: bool,
}

impl Kernel {
    async fn ask(layout: &Layout, heads: &Heads<'_>) -> Self {
        let (able, table, view) = match Connection::open() {
            Ok(mut connection) => {
                let able = Capabilities::probe(Ok(&mut connection), heads).await;
                let table = takes(layout, &mut connection).await;
                (able, table, View::read(&mut connection).await.map_err(|e| e.to_string()))
            }
            Err(e) => {
                let why = format!("netlink cannot be used: {e}");
                let able = Capabilities::probe(Err(why.clone()), heads).await;
                (able, Answer::No(why.clone()), Err(why))
            }
        };
        let docker = Docker::look(view.as_ref().ok()).await;
        Self { able, table, view, docker, elsewhere: false }
    }

    /// In a network namespace of our own, where nothing is but the same kernel.
    async fn ask_elsewhere(&mut self, layout: &Layout) {
        let Ok(mut connection) = Connection::open() else { return };
        self.able.ask_again(&mut connection).await;
        self.table = takes(layout, &mut connection).await;
        self.elsewhere = true;
    }
}

/// Whether the kernel would take our table; it is asked under another name, so that one that is there is not in the way.
async fn takes(layout: &Layout, connection: &mut Connection) -> Answer {
    let table = Table::new(Family::Inet, "stockade-check").dormant();
    match Ruleset::in_table(layout.clone(), table).probe(connection).await {
        Ok(refused) => match refused.first() {
            None => Answer::Yes,
            Some(rejection) => Answer::No(rejection.to_string()),
        },
        Err(e) if e.is_permission() => {
            Answer::Unknown("nf_tables may not be asked without CAP_NET_ADMIN".to_owned())
        }
        Err(e) => Answer::No(e.to_string()),
    }
}

fn configuration(path: &Path, config: &Config, jails: &Jails) -> Finding {
    let what = path.display().to_string();
    match jails.jails.len() {
        0 => Finding::new(
            Section::Configuration,
            Mark::No,
            what,
            "no jail is enabled: nothing will be followed (see the jails section of config.yaml)",
        ),
        n => {
            let jails = if n == 1 { "1 jail".to_owned() } else { format!("{n} jails") };
            let told = format!("{jails}, {} entries in ignoreip", config.ignoreip.len());
            Finding::new(Section::Configuration, Mark::Ok, what, told)
        }
    }
}

/// A jail that enforces nothing must not be taken for one that does.
fn observed(ready: &Ready, section: &Section) -> Option<Finding> {
    ready.jail.observe.then(|| {
        let told = "its bans are decided and told, and nothing is enforced (observe: true)";
        Finding::new(section.clone(), Mark::Heed, "observe", told)
    })
}

fn backend_finding(chosen: &Chosen<BackendKind>, kernel: &Kernel) -> Finding {
    let of = |mark, told: String| Finding::new(Section::Enforcement, mark, "bans by source", told);
    match chosen.what {
        Some(backend) if kernel.elsewhere => {
            of(Mark::Ok, format!("{}: {} (asked in a namespace made for it)", backend.word(), chosen.why))
        }
        Some(backend) => of(Mark::Ok, format!("{}: {}", backend.word(), chosen.why)),
        None if !chosen.known => of(Mark::Unknown, chosen.why.clone())
            .advice("run check as root, or with CAP_NET_ADMIN, to find out"),
        None => of(Mark::No, chosen.why.clone())
            .advice("see below which features are missing, and how to come by them"),
    }
}

fn matcher_finding(chosen: &Chosen<MatcherChoice>, config: &Config, called_for: bool) -> Finding {
    let of = |mark, told: String| Finding::new(Section::Enforcement, mark, "header bans", told);
    match (chosen.what, config.headers.matcher) {
        (Some(MatcherChoice::Bpf), _) => of(Mark::Ok, format!("bpf: {}", chosen.why)),
        (Some(matcher), _) => {
            let told = format!(
                "{}, for up to {} bans (headers.max_rules): {}",
                matcher.word(),
                config.headers.max_rules,
                chosen.why
            );
            of(Mark::Ok, told)
        }
        (None, MatcherChoice::Off) if called_for => {
            of(Mark::Heed, format!("{}, though clients come through proxies elsewhere", chosen.why))
        }
        (None, MatcherChoice::Off) => of(Mark::Unneeded, chosen.why.clone()),
        (None, _) if !chosen.known => of(Mark::Unknown, chosen.why.clone())
            .advice("run check as root, or with CAP_NET_ADMIN, to find out"),
        // What nobody needs and nobody asked for is no failure.
        (None, MatcherChoice::Auto) if !called_for => of(Mark::Heed, chosen.why.clone())
            .advice("no log shows clients that come through a proxy elsewhere, so nothing is lost for now"),
        (None, _) => of(Mark::No, chosen.why.clone())
            .advice("see below how to come by what is missing, or write `headers: { matcher: off }`"),
    }
}
