//! What keeps jails from banning, and bans from blocking, told once of each cause.

use super::{Agent, leaks};
use crate::clock;
use crate::kernel::capability::namespace::Place;

impl Agent {
    /// Says of each new cause of leaks what would stop it.
    pub(super) async fn tell_leaks(&mut self) {
        if !self.leaks.is_news() {
            return;
        }
        let packets = self.guard.packets(clock::now()).await;
        let namespace = Place::here().network;
        let mut causes = Vec::new();
        for (jail, way, cause) in self.leaks.untold() {
            let covering = self.engine.bans_of(jail, cause.offender);
            let stopped = covering.map(|ban| packets.of(ban)).fold(None, |sum, n| match (sum, n) {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            });
            let running = self.jails.jails.iter().find(|ready| ready.id == jail);
            let ports = running.map_or(&[][..], |ready| &ready.jail.ports);
            let matcher = self.guard.headers.matcher();
            let advice = way.advice(&leaks::Facts { ports, stopped, namespace, matcher });
            let jail = self.registry.name(jail).unwrap_or("?");
            tracing::warn!(
                jail,
                "{} is banned, but its requests still come {}: {advice}. (Told once; `stockade status` counts them)",
                cause.offender,
                way.told()
            );
            let told = (
                jail.to_owned(),
                cause.offender,
                format!("its requests still come {}: {advice}", way.told()),
            );
            causes.push(told);
            cause.advice = Some(advice);
        }
        for (jail, offender, advice) in causes {
            self.tell_leak(jail, offender, advice);
        }
    }

    /// Says, once of each jail and kind, what keeps it from banning.
    pub(super) fn look_around(&mut self) {
        let Some(worker) = &self.worker else { return };
        let open = self.engine.open_counts(clock::now());
        let mut lines = worker.snapshot().lines;
        for ready in &self.jails.jails {
            let stats = self.engine.stats_with(ready.id, &open).unwrap_or_default();
            let told = self.told.entry(ready.id).or_default();
            let blind = lines.remove(&ready.id).and_then(|lines| lines.warning());
            let forgotten = (stats.forgotten > 0).then(|| {
                "more addresses offend than limits.offenders and limits.memory let be remembered: the least recent are forgotten".to_owned()
            });
            let crowded = (stats.crowded_out > 0).then(|| {
                "there are more bans than limits.memory has room for: those that end first make room"
                    .to_owned()
            });
            let early = (stats.future_clamped > 0).then(|| {
                "lines are stamped in the future: is the log's time zone another one (see timezone)?"
                    .to_owned()
            });
            let late = (stats.too_old > 0).then(|| {
                "bans were over before their lines were read: the log was read late, or is stamped in the past (see \
                 timezone)"
                    .to_owned()
            });
            for (seen, warning) in told.each().zip([blind, forgotten, crowded, early, late]) {
                let Some(warning) = warning.filter(|_| !*seen) else { continue };
                tracing::warn!(jail = ready.jail.name, "{warning}");
                *seen = true;
            }
        }
    }
}

/// What was said of a jail already: it is blind, forgets, is crowded, is early, is late.
#[derive(Debug, Default)]
pub(super) struct Told([bool; 5]);

impl Told {
    fn each(&mut self) -> impl Iterator<Item = &mut bool> {
        self.0.iter_mut()
    }
}
