//! What registries have answered, by the range they answered for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Owner;

/// Networks change hands seldom.
const KNOWN: Duration = Duration::from_secs(3 * 24 * 3600);
/// A registry that did not answer, or knows nothing, is asked again after this.
const NOT_KNOWN: Duration = Duration::from_secs(3600);
/// So many ranges, and so many addresses without an answer, are remembered.
const MOST: usize = 1000;

/// Bounded: when it is full, what would be forgotten first goes.
#[derive(Debug, Default)]
pub(super) struct Cache {
    ranges: Vec<Range>,
    /// Addresses about which nothing is known, and until when they are not asked about again.
    unknown: HashMap<IpAddr, Instant>,
}

#[derive(Debug)]
struct Range {
    first: IpAddr,
    last: IpAddr,
    owner: Arc<Owner>,
    until: Instant,
}

impl Cache {
    /// Whether asking about it would be in vain.
    pub(super) fn knows(&mut self, address: IpAddr) -> bool {
        let now = Instant::now();
        self.get(address).is_some() || self.unknown.get(&address).is_some_and(|until| *until > now)
    }

    pub(super) fn get(&mut self, address: IpAddr) -> Option<Arc<Owner>> {
        let now = Instant::now();
        self.ranges.retain(|range| range.until > now);
        let holds = |range: &&Range| range.first <= address && address <= range.last;
        // The narrowest is who uses it. (Addresses compare as numbers within a family, and IPv4 comes before IPv6.)
        let narrower = |a: &&Range, b: &&Range| b.first.cmp(&a.first).then(a.last.cmp(&b.last));
        self.ranges.iter().filter(holds).min_by(narrower).map(|range| Arc::clone(&range.owner))
    }

    /// Remembers an answer, with the range that it is about.
    pub(super) fn put(&mut self, address: IpAddr, answer: Option<(Owner, Option<(IpAddr, IpAddr)>)>) {
        let now = Instant::now();
        let Some((owner, range)) = answer else {
            self.unknown.retain(|_, until| *until > now);
            if self.unknown.len() < MOST {
                self.unknown.insert(address, now + NOT_KNOWN);
            }
            return;
        };
        self.unknown.remove(&address);
        let (first, last) = range.filter(|range| is_plausible(address, *range)).unwrap_or((address, address));
        self.ranges.retain(|range| (range.first, range.last) != (first, last));
        if self.ranges.len() >= MOST {
            self.ranges.remove(0);
        }
        self.ranges.push(Range { first, last, owner: Arc::new(owner), until: now + KNOWN });
    }
}

/// Whether an answer about `address` can be one about all of this range: none is as wide as what registries are given.
fn is_plausible(address: IpAddr, (first, last): (IpAddr, IpAddr)) -> bool {
    let narrow = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => last.to_bits().saturating_sub(first.to_bits()) < 1 << 24,
        (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits().saturating_sub(first.to_bits()) < 1 << 108,
        _ => false,
    };
    narrow && first <= address && address <= last && first.is_ipv4() == address.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn owner(name: &str) -> Owner {
        Owner { name: name.to_owned(), ..Owner::default() }
    }

    #[test]
    fn the_narrowest_range_answers() {
        let mut cache = Cache::default();
        cache.put(ip("5.1.2.3"), Some((owner("wide"), Some((ip("5.1.0.0"), ip("5.1.255.255"))))));
        cache.put(ip("5.1.2.4"), Some((owner("narrow"), Some((ip("5.1.2.0"), ip("5.1.2.255"))))));
        let mut name = |text: &str| cache.get(ip(text)).map(|owner| owner.name.clone());
        assert_eq!(name("5.1.2.9").as_deref(), Some("narrow"));
        assert_eq!(name("5.1.3.9").as_deref(), Some("wide"));
        assert_eq!(name("5.2.0.1"), None);
        assert_eq!(name("::5"), None);
    }

    #[test]
    fn an_answer_is_not_believed_for_more_than_it_can_be_about() {
        for range in [
            ("0.0.0.0", "255.255.255.255"),
            ("6.0.0.0", "6.0.0.255"),
            ("5.2.0.0", "5.1.0.0"),
            ("::", "ffff::"),
        ] {
            let mut cache = Cache::default();
            cache.put(ip("5.1.2.3"), Some((owner("x"), Some((ip(range.0), ip(range.1))))));
            assert!(cache.get(ip("5.1.2.3")).is_some() && cache.get(ip("5.1.2.4")).is_none(), "{range:?}");
        }
    }

    #[test]
    fn it_is_bounded() {
        let mut cache = Cache::default();
        for n in 0..3000_u32 {
            let address = IpAddr::V4((0x0500_0000 + n).into());
            cache.put(address, (n % 2 == 0).then(|| (owner("x"), None)));
        }
        assert!(cache.ranges.len() <= MOST && cache.unknown.len() <= MOST);
        assert!(cache.knows(ip("5.0.11.182")));
    }
}
