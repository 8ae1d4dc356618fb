//! Whose logs the jails of containers mean, at the time.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::jails::SourceOptions;
use super::reader::Plan;
use super::snapshot::{Snapshot, SourceState};
use crate::source::docker::{Catalogue, Container, Driver, Selector};
use crate::source::journal::Matches;
use crate::types::{JailId, Timestamp};

/// Containers are looked for so often. A look is a listing and two stat(2) for each container.
const LOOK: Duration = Duration::from_secs(1);
/// A log is followed for so long after its container was removed: it is read to its end.
const LINGER: Duration = Duration::from_secs(60);

/// The log of a container that a jail means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerLog {
    pub(super) jail: JailId,
    pub(super) path: String,
    /// The container's name.
    pub(super) name: String,
    /// It was made while we looked.
    pub(super) new: bool,
}

/// What a look brought, when it is not what the last one did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) logs: Vec<ContainerLog>,
    /// Containers that log to systemd's journal.
    pub(super) journals: Vec<(JailId, Matches)>,
}

/// Looks for containers.
#[derive(Default)]
pub(super) struct Containers {
    wanted: Vec<Wanted>,
    options: Option<Arc<SourceOptions>>,
    catalogue: Catalogue,
    looked: Option<Timestamp>,
    /// Why none can be found.
    problem: Option<String>,
    found: Found,
    /// Logs whose containers are gone, and since when.
    parting: Vec<(ContainerLog, Timestamp)>,
    /// Containers whose driver was complained about.
    told: HashSet<String>,
}

/// What a jail wants.
struct Wanted {
    jail: JailId,
    name: String,
    selector: Selector,
    /// The containers that fit; `None` before the first look.
    fitting: Option<Vec<Container>>,
    /// Those that were made while we looked.
    new: HashSet<String>,
}

impl Containers {
    /// Takes over a plan.
    pub(super) fn plan(&mut self, plan: &Plan) {
        let mut before = std::mem::take(&mut self.wanted);
        for ready in &plan.jails {
            for selector in &ready.jail.docker {
                let known = before.iter().position(|w| w.jail == ready.id && w.selector == *selector);
                self.wanted.push(known.map_or_else(
                    || Wanted {
                        jail: ready.id,
                        name: ready.jail.name.clone(),
                        selector: selector.clone(),
                        fitting: None,
                        new: HashSet::new(),
                    },
                    |n| before.swap_remove(n),
                ));
            }
        }
        if self.options.as_ref().is_none_or(|options| options.docker != plan.options.docker) {
            self.catalogue = Catalogue::default();
            self.wanted.iter_mut().for_each(|wanted| wanted.fitting = None);
        }
        self.options = Some(Arc::clone(&plan.options));
        self.looked = None;
    }

    /// Looks, if it is time; what there is to follow, if that has changed.
    pub(super) fn look(&mut self, now: Timestamp) -> Option<Found> {
        let due = self.looked.is_none_or(|looked| now < looked || now.since(looked) >= LOOK);
        if !due || (self.wanted.is_empty() && self.found == Found::default()) {
            return None;
        }
        self.looked = Some(now);
        let root = &self.options.as_ref()?.docker;
        let all = match self.catalogue.look(root) {
            Ok(all) => all,
            Err(e) => {
                let problem = format!(
                    "no containers can be found in {}/containers: {e} (is Docker here? `docker: {{ root: … }}` names its \
                     directory; in a container, mount it read-only)",
                    root.display()
                );
                if !self.wanted.is_empty() && self.problem.as_ref() != Some(&problem) {
                    tracing::warn!("{problem}; looking again until there are some");
                    self.problem = Some(problem);
                }
                Vec::new()
            }
        };
        if !all.is_empty() {
            self.problem = None;
        }
        // Who owns Docker's directory is who its daemon runs as: nobody else can say so to journald.
        let owner = std::fs::metadata(root).map_or(0, |meta| meta.uid());
        let mut found = Found::default();
        for wanted in &mut self.wanted {
            wanted.take(&all, &mut self.told);
            for container in wanted.fitting.iter().flatten() {
                match &container.driver {
                    Driver::File(path) => found.logs.push(ContainerLog {
                        jail: wanted.jail,
                        path: path.display().to_string(),
                        name: container.name.clone(),
                        new: wanted.new.contains(&container.id),
                    }),
                    Driver::Journal => {
                        found.journals.push((wanted.jail, Matches::of_container(&container.name, owner)));
                    }
                    Driver::Other(_) => {}
                }
            }
        }
        self.told.retain(|id| all.iter().any(|container| container.id == *id));
        self.part(&mut found, now);
        found.journals.sort();
        found.journals.dedup();
        if found == self.found {
            return None;
        }
        self.found = Found { logs: found.logs.clone(), journals: found.journals.clone() };
        Some(found)
    }

    /// Keeps logs whose containers are gone for a while.
    fn part(&mut self, found: &mut Found, now: Timestamp) {
        let jails: HashSet<JailId> = self.wanted.iter().map(|wanted| wanted.jail).collect();
        let there = |log: &ContainerLog, logs: &[ContainerLog]| {
            logs.iter().any(|l| (l.jail, &l.path) == (log.jail, &log.path))
        };
        self.parting.retain(|(log, since)| {
            now.since(*since) < LINGER && jails.contains(&log.jail) && !there(log, &found.logs)
        });
        for log in &self.found.logs {
            if !there(log, &found.logs)
                && !self.parting.iter().any(|(l, _)| l == log)
                && jails.contains(&log.jail)
            {
                let gone = std::fs::symlink_metadata(&log.path).is_err();
                // One that is still there was let go of by the configuration, or is another container's now.
                if gone && !self.parting.iter().any(|(l, _)| l.path == log.path && l.jail == log.jail) {
                    self.parting.push((log.clone(), now));
                }
            }
        }
        found.logs.extend(self.parting.iter().map(|(log, _)| log.clone()));
        found.logs.sort_by(|a, b| (a.jail, &a.path).cmp(&(b.jail, &b.path)));
        found.logs.dedup_by(|a, b| (a.jail, &a.path) == (b.jail, &b.path));
    }

    /// Adds what is known to a snapshot.
    pub(super) fn tell(&self, snapshot: &mut Snapshot) {
        for wanted in &self.wanted {
            let containers: Vec<_> = wanted.fitting.iter().flatten().map(told).collect();
            let problem = self.problem.clone().or_else(|| {
                containers.is_empty().then(|| "no such container yet: it is waited for".to_owned())
            });
            snapshot.sources.push(SourceState {
                jails: vec![wanted.jail],
                kind: "docker",
                told: json!({
                    "select": wanted.selector.to_string(), "containers": containers, "problem": problem,
                }),
            });
        }
    }
}

fn told(container: &Container) -> serde_json::Value {
    let file = match &container.driver {
        Driver::File(path) => Some(path),
        _ => None,
    };
    json!({
        "name": container.name, "id": container.id, "driver": container.driver.word(), "file": file,
        "running": container.running, "problem": container.driver.problem(),
    })
}

impl Wanted {
    /// Compares what there is with what there was.
    fn take(&mut self, all: &[Container], told: &mut HashSet<String>) {
        let fitting: Vec<Container> = all.iter().filter(|c| self.selector.fits(c)).cloned().collect();
        let jail = self.name.as_str();
        let before: HashMap<&str, &Container> =
            self.fitting.iter().flatten().map(|c| (c.id.as_str(), c)).collect();
        for container in &fitting {
            if !before.contains_key(container.id.as_str()) {
                tracing::info!(
                    jail,
                    id = container.id,
                    "container {} logs by {}",
                    container.name,
                    container.driver.word()
                );
                if self.fitting.is_some() {
                    self.new.insert(container.id.clone());
                }
            }
            if let Some(problem) = container.driver.problem().filter(|_| told.insert(container.id.clone())) {
                tracing::error!(jail, "container {}: {problem}", container.name);
            }
        }
        for container in self.fitting.iter().flatten() {
            if !fitting.iter().any(|c| c.id == container.id) {
                tracing::info!(jail, id = container.id, "container {} is gone", container.name);
                self.new.remove(&container.id);
            }
        }
        self.fitting = Some(fitting);
    }
}
