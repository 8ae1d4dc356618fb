//! Who owns a network: asked of the registries by RDAP (RFC 9082), within bounds, and remembered.
//!
//! Nothing waits for it: what is not known in time is not shown. What registries answer is text of others; anybody can
//! register a network under a name of his own.

mod cache;
mod rdap;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::cache::Cache;
use self::rdap::Rdap;
use super::http::{Http, HttpOptions};
use super::mail::text::harmless;
use super::trouble::Trouble;

/// IANA's list of the registries responsible (RFC 9224); `/ipv4.json` and `/ipv6.json` are added.
pub const IANA: &str = "https://data.iana.org/rdap";
/// So many are asked about at once.
const AT_ONCE: usize = 4;
/// So many are asked about for one message.
const MOST: usize = 20;
/// One is answered within this time, redirects included.
const ONE: Duration = Duration::from_secs(5);
/// So much of a value is kept, in bytes.
const VALUE: usize = 100;

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registry {
    /// The registry that the list at this URL names.
    Listed(String),
    /// This server; `/ip/ADDRESS` is added.
    Server(String),
}

/// Who owns a network, as far as its registry says. All of it is bounded and harmless to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The network's name, as `EXAMPLE-NET`.
    pub name: String,
    /// The registry's own key for it.
    pub handle: String,
    /// Its addresses, as the registry writes them.
    pub range: String,
    /// Two letters.
    pub country: String,
    /// To whom it is registered.
    pub organisation: String,
    /// Whom to write to about abuse.
    pub abuse: String,
}

impl Owner {
    /// Makes what others wrote harmless.
    fn tidied(self) -> Self {
        let tidy = |text: String| harmless(text.trim(), VALUE);
        Self {
            name: tidy(self.name),
            handle: tidy(self.handle),
            range: tidy(self.range),
            country: tidy(self.country),
            organisation: tidy(self.organisation),
            abuse: tidy(self.abuse),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() { &self.handle } else { &self.name };
        let parts = [&self.range, name, &self.organisation, &self.country, &self.abuse];
        let mut first = true;
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            f.write_str(if first { "" } else { ", " })?;
            f.write_str(part)?;
            first = false;
        }
        if first { f.write_str("not known") } else { Ok(()) }
    }
}

/// Asks, and remembers what was answered.
#[derive(Clone, Debug)]
pub struct Owners {
    rdap: Arc<Rdap>,
    cache: Arc<Mutex<Cache>>,
}

impl Owners {
    /// Nothing is asked yet. `options` as for other HTTP; no request takes longer than some seconds.
    ///
    /// # Errors
    /// When HTTP cannot be begun.
    pub fn new(registry: Registry, options: &HttpOptions) -> Result<Self, Trouble> {
        let options = HttpOptions { timeout: options.timeout.min(ONE), ..options.clone() };
        let rdap = Arc::new(Rdap::new(registry, Http::new(&options, Vec::new())?));
        Ok(Self { rdap, cache: Arc::default() })
    }

    /// The owners of these networks, as far as they are known at the end of `patience`. Cancel-safe: what was answered is
    /// remembered.
    pub async fn of(&self, offenders: &[IpNet], patience: Duration) -> HashMap<IpNet, Arc<Owner>> {
        let end = Instant::now() + patience;
        let mut asked: Vec<IpAddr> = Vec::new();
        for offender in offenders {
            let address = offender.network();
            if asked.len() < MOST
                && is_public(address)
                && !asked.contains(&address)
                && !self.cache().knows(address)
            {
                asked.push(address);
            }
        }
        if !patience.is_zero() {
            // Whoever is not done then is dropped with the set.
            drop(timeout_at(end, self.ask(asked)).await);
        }
        let mut cache = self.cache();
        offenders.iter().filter_map(|net| Some((*net, cache.get(net.network())?))).collect()
    }

    async fn ask(&self, addresses: Vec<IpAddr>) {
        let mut tasks = JoinSet::new();
        for address in addresses {
            // Two neighbours are asked about once, where the first answer is there in time.
            if tasks.len() >= AT_ONCE {
                tasks.join_next().await;
            }
            if self.cache().knows(address) {
                continue;
            }
            let (rdap, cache) = (Arc::clone(&self.rdap), Arc::clone(&self.cache));
            tasks.spawn(async move {
                let answer = tokio::time::timeout(ONE, rdap.owner(address)).await;
                let owner = answer.ok().and_then(Result::ok).flatten();
                cache.lock().unwrap_or_else(PoisonError::into_inner).put(address, owner);
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks about one address, for `stockade check`: what is wrong, if anything is.
    ///
    /// # Errors
    /// When there is no answer that can be understood.
    pub async fn try_one(&self, address: IpAddr) -> Result<Option<Arc<Owner>>, Trouble> {
        match tokio::time::timeout(ONE, self.rdap.owner(address)).await {
            Ok(answer) => Ok(answer?.map(|(owner, _)| Arc::new(owner))),
            Err(_) => Err(Trouble::later(format!("no answer within {} s", ONE.as_secs()))),
        }
    }
}

/// Whether a registry can know it: nothing about addresses of one's own networks is told to others.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(a) => {
            let [first, second, third, _] = a.octets();
            let reserved = first == 0
                || first >= 240
                || (first == 100 && second & 0xc0 == 64)
                || (first == 198 && second & 0xfe == 18)
                || (first, second, third) == (192, 0, 0);
            !(reserved
                || a.is_private()
                || a.is_loopback()
                || a.is_link_local()
                || a.is_multicast()
                || a.is_documentation())
        }
        // Only 2000::/3 is given out; 2001:db8::/32 is for documents, 2001::/23 and 2002::/16 for protocols.
        IpAddr::V6(a) => {
            let [first, second, ..] = a.segments();
            first & 0xe000 == 0x2000
                && !(first == 0x2001 && (second == 0xdb8 || second < 0x200))
                && first != 0x2002
                && first != 0x3fff
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_are_given_out_are_asked_about() {
        for text in [
            "10.1.2.3",
            "127.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "0.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.7",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002::1",
            "::ffff:10.0.0.1",
            "64:ff9b::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in ["8.8.8.8", "1.1.1.1", "100.128.0.1", "198.20.0.1", "2a00::1", "2001:4860::1", "2606::1"]
        {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn an_owner_is_one_harmless_line() {
        let hostile = "A\r\nBcc: x\u{202e}\0".to_owned() + &"x".repeat(1000);
        let owner =
            Owner { name: hostile.clone(), organisation: hostile, ..Owner::default() }.tidied().to_string();
        assert!(owner.len() < 300 && !owner.contains(crate::log::is_hostile), "{owner}");
        assert_eq!(Owner::default().to_string(), "not known");
    }
}
