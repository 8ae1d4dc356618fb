//! Another configuration while the agent runs.

use anyhow::Result;

use super::jails::Jails;
use super::{Agent, plan, ranges};
use crate::clock;
use crate::commands::load;
use crate::config::{Config, MatcherChoice};
use crate::confine;
use crate::host;

impl Agent {
    /// Reads the configuration again, and tells the service manager so.
    pub(super) async fn reload(&mut self) -> Result<Vec<String>> {
        self.notifier.reloading();
        let reloaded = self.read_again().await;
        self.notifier.ready(&self.summary());
        reloaded
    }

    /// All of it is checked before anything is changed.
    async fn read_again(&mut self) -> Result<Vec<String>> {
        let mut config = load(&self.path)?;
        if self.observing {
            config.observe_all();
        }
        let jails = Jails::new(&config, &mut self.registry)?;
        let mut warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
        warnings.extend(jails.warnings.iter().cloned());
        let running = &self.config;
        if (&config.paths, config.backend, config.limits, config.log)
            != (&running.paths, running.backend, running.limits, running.log)
        {
            warnings.push("backend, paths, limits and log take effect at the next start".to_owned());
        }
        let (before, after) = (confine::programs(running), confine::programs(&config));
        if before.is_empty() && !after.is_empty() && !self.observing {
            warnings.push(format!(
                "programs of {} run with the few rights that the agent kept when no sink had any; restart it if they need more",
                after.join(", ")
            ));
        }
        if config.headers.matcher == MatcherChoice::Legacy && !confine::may_use_raw_sockets() {
            warnings.push(
                "`headers: { matcher: legacy }` takes CAP_NET_RAW, which the agent does not have (it keeps it only where it was asked \
                 for at the start): restart it"
                    .to_owned(),
            );
        }
        // Before the jails: their bans are to be told to those that are there from now on.
        self.reconfigure_sinks(&config, &jails)?;
        self.guard.headers.reconfigure(&config.headers, &jails.layout());
        let reshaped = self.adopt(&jails).await;
        if let Err(e) = reshaped {
            tracing::error!("{e:#}; trying again");
            warnings.push(format!("the kernel is not in line with it yet: {e:#}; the agent keeps trying"));
        }
        let Config { backend, paths, limits, log, .. } = self.config.clone();
        (self.jails, self.config) = (jails, Config { backend, paths, limits, log, ..config });
        ranges::Refresher::reconfigure(&mut self.refresher, &self.config);
        self.show_bans();
        self.told.clear();
        self.leaks.begin_anew();
        tracing::info!(jails = self.jails.jails.len(), "configuration read again");
        Ok(warnings)
    }

    /// Puts other jails in the place of those that run.
    async fn adopt(&mut self, jails: &Jails) -> Result<()> {
        let now = clock::now();
        self.engine.set_allowlist(jails.allowlist.clone(), now);
        for gone in self.jails.jails.iter().filter(|old| jails.find(&old.jail.name).is_none()) {
            self.engine.remove_jail(gone.id, now);
        }
        for ready in &jails.jails {
            self.engine.set_jail(ready.id, ready.policy.clone(), now);
        }
        if let Some(worker) = &self.worker {
            worker.replan(plan(jails));
        }
        self.leaks.know(&jails.cloudflare);
        self.guard.reshape(jails.layout(), &self.engine, &self.registry).await.map(drop)
    }

    /// `ignoreip: [self]` means what the host is now: addresses come and go with DHCP, VPNs and container networks. And
    /// `cloudflare` means what was last fetched.
    pub(super) async fn look_at_the_host(&mut self) {
        let refreshed = host::own_networks().map_err(anyhow::Error::from).and_then(|own| {
            let fetched = ranges::load(&self.config) != self.jails.cloudflare;
            if own == self.own && !fetched {
                return Ok(None);
            }
            self.own = own;
            Ok(Some((Jails::new(&self.config, &mut self.registry)?, fetched)))
        });
        match refreshed {
            Ok(None) => {}
            Ok(Some((jails, fetched))) => {
                if fetched {
                    tracing::info!("Cloudflare's ranges have changed: `cloudflare` means them now");
                } else {
                    tracing::info!("the host's own addresses have changed: `self` means them now");
                }
                if let Err(e) = self.adopt(&jails).await {
                    tracing::error!("{e:#}; trying again");
                }
                self.jails = jails;
                self.carry_out().await;
            }
            Err(e) => tracing::warn!("{e:#}: `self` stays what it was"),
        }
    }
}
