//! What Cloudflare connects from (`cloudflare` in `ignoreip` and `trusted_proxies`): as shipped, or as its API says, kept in
//! `paths.state` so that a start without a network has it.
//!
//! Who stands there may speak for others and is never banned. So nothing is believed that cannot be such a list; and a
//! fetch that fails changes nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::clock;
use crate::config::sinks::CloudflareRanges;
use crate::config::{Config, names};
use crate::sinks::backoff::Backoff;
use crate::sinks::http::{Http, HttpOptions};
use crate::types::Timestamp;

/// The file in `paths.state`.
const FILE: &str = "cloudflare-ranges.json";
/// So many networks are not those of one company's proxies: there are 22.
const MOST: usize = 200;
/// Wider than this none is.
const WIDEST: (u8, u8) = (8, 20);
/// Networks that cannot be anybody's proxies on the Internet: RFC 6890 and its kin. A list with one of them is no list.
const IMPOSSIBLE: [&str; 18] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "::/16",
    "2001:db8::/32",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    fetched: Timestamp,
    networks: Vec<IpNet>,
}

/// What Cloudflare connects from, as far as is known under this configuration.
#[must_use]
pub fn load(config: &Config) -> Vec<IpNet> {
    let kept = config.cloudflare_ranges.as_ref().and_then(|_| read(&config.paths.state));
    kept.map_or_else(shipped, |kept| kept.networks)
}

fn shipped() -> Vec<IpNet> {
    names::CLOUDFLARE.iter().filter_map(|net| net.parse().ok()).collect()
}

/// What is kept, if it can be believed.
fn read(state: &Path) -> Option<Kept> {
    let text = fs::read(state.join(FILE)).ok()?;
    let kept: Kept = serde_json::from_slice(&text).ok()?;
    judge(&kept.networks).ok()?;
    Some(kept)
}

/// Refreshes what is kept, on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Refresher {
    settings: CloudflareRanges,
    _stop: oneshot::Sender<()>,
}

impl Refresher {
    /// Begins to. Nothing waits for it: who wants to know what is kept [loads](load) it now and then.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(settings: &CloudflareRanges, state: &Path) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (task, state) = (settings.clone(), state.to_owned());
        std::thread::Builder::new().name("ranges".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = refresh(task, state) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { settings: settings.clone(), _stop: stop })
    }

    /// Puts in the place of `running` what the configuration says now.
    pub fn reconfigure(running: &mut Option<Self>, config: &Config) {
        if running.as_ref().map(|refresher| &refresher.settings) == config.cloudflare_ranges.as_ref() {
            return;
        }
        *running = config.cloudflare_ranges.as_ref().and_then(|settings| {
            Self::start(settings, &config.paths.state)
                .inspect_err(|e| tracing::error!("failed to refresh Cloudflare's ranges: {e}"))
                .ok()
        });
    }
}

async fn refresh(settings: CloudflareRanges, state: PathBuf) {
    let mut backoff = Backoff::default();
    let mut told = None;
    loop {
        let age = read(&state).map(|kept| clock::now().since(kept.fetched));
        if let Some(rest) =
            age.and_then(|age| settings.refresh.checked_sub(age)).filter(|rest| !rest.is_zero())
        {
            tokio::time::sleep(rest).await;
            continue;
        }
        let outcome = match fetch(&settings.url).await {
            Ok(networks) => keep(&state, networks),
            Err(e) => Err(e),
        };
        match outcome {
            Ok(()) => {
                backoff.reset();
                told = None;
                // Also where the clock was set back.
                tokio::time::sleep(settings.refresh.min(Duration::from_secs(1))).await;
            }
            Err(e) => {
                let text = format!("{e:#}");
                if told.as_ref() != Some(&text) {
                    tracing::warn!("failed to refresh Cloudflare's ranges: {text}; they stay what they were");
                    told = Some(text);
                }
                tokio::time::sleep(backoff.failed(None)).await;
            }
        }
    }
}

/// Asks the API.
///
/// # Errors
/// Without an answer, and with one that cannot be Cloudflare's ranges.
async fn fetch(url: &str) -> Result<Vec<IpNet>> {
    let http = Http::new(&HttpOptions::default(), Vec::new())?;
    let answer = http.send(http.client.get(url)).await?;
    if !answer.is_success() {
        return Err(answer.trouble("").into());
    }
    let value: Value = serde_json::from_slice(&answer.body).context("the answer is not JSON")?;
    let list = |name: &str| -> Result<Vec<IpNet>> {
        let all = value["result"][name].as_array().filter(|all| !all.is_empty() && all.len() <= MOST);
        let all = all.with_context(|| format!("the answer has no list {name} of a plausible length"))?;
        all.iter()
            .map(|net| net.as_str().and_then(|net| net.parse().ok()).context("an entry is not a network"))
            .collect()
    };
    let mut networks = list("ipv4_cidrs")?;
    networks.extend(list("ipv6_cidrs")?);
    judge(&networks)?;
    Ok(networks)
}

/// Whether this can be what Cloudflare connects from.
fn judge(networks: &[IpNet]) -> Result<()> {
    if networks.is_empty() || networks.len() > MOST {
        bail!("{} networks are not Cloudflare's", networks.len());
    }
    let impossible: Vec<IpNet> = IMPOSSIBLE.iter().filter_map(|net| net.parse().ok()).collect();
    for net in networks {
        let widest = if net.addr().is_ipv4() { WIDEST.0 } else { WIDEST.1 };
        if net.prefix_len() < widest || *net != net.trunc() {
            bail!("{net} is not plausible");
        }
        if impossible.iter().any(|other| other.contains(net) || net.contains(other)) {
            bail!("{net} is not a network of the Internet");
        }
    }
    Ok(())
}

/// Whole or not at all.
fn keep(state: &Path, mut networks: Vec<IpNet>) -> Result<()> {
    networks.sort_unstable();
    networks.dedup();
    let (path, temporary) = (state.join(FILE), state.join(format!(".{FILE}")));
    let text = serde_json::to_vec(&Kept { fetched: clock::now(), networks })?;
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, &path))
        .with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_cloudflares_is_believed() {
        let judged = |nets: &[&str]| judge(&nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>());
        assert!(judge(&shipped()).is_ok());
        assert_eq!(shipped().len(), names::CLOUDFLARE.len());
        for wrong in [
            "0.0.0.0/0",
            "64.0.0.0/7",
            "10.1.0.0/16",
            "127.0.0.1/32",
            "192.0.2.0/24",
            "198.51.100.7/32",
            "224.0.0.0/8",
            "169.254.1.0/24",
            "::/0",
            "2000::/3",
            "2606:4700::/19",
            "2001:db8::/32",
            "fe80::/64",
            "::1/128",
            "::ffff:104.16.0.0/109",
            "104.16.0.1/13",
        ] {
            assert!(judged(&["104.16.0.0/13", wrong]).is_err(), "{wrong}");
        }
        assert!(judged(&[]).is_err());
        let many: Vec<String> = (0..=MOST).map(|n| format!("104.16.{n}.0/32")).collect();
        assert!(judged(&many.iter().map(String::as_str).collect::<Vec<_>>()).is_err());
    }
}
