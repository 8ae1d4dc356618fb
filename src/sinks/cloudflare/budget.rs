//! How many requests may be made: Cloudflare counts all that an account's owner makes, in the dashboard too, and who makes
//! more than 1,200 in five minutes is blocked for five minutes with everything.

use std::time::{Duration, Instant};

/// What Cloudflare counts over (developers.cloudflare.com/fundamentals/api/reference/limits).
pub(super) const WINDOW: Duration = Duration::from_secs(300);
/// What part of the requests may be made at once. The others come evenly over the window, so that a new ban never waits
/// for the window's end; and both together are never more than was allowed.
const BURST: u32 = 5;

/// A token bucket. No five minutes see more than `requests`.
#[derive(Debug)]
pub(super) struct Budget {
    burst: f64,
    /// Tokens a second.
    rate: f64,
    tokens: f64,
    at: Instant,
    /// Nothing is sent before.
    closed: Option<Instant>,
}

impl Budget {
    pub(super) fn new(requests: u32, now: Instant) -> Self {
        let burst = f64::from((requests / BURST).max(1));
        let rate = (f64::from(requests) - burst).max(1.0) / WINDOW.as_secs_f64();
        Self { burst, rate, tokens: burst, at: now, closed: None }
    }

    /// Whether a request may be made now.
    pub(super) fn is_open(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.closed.is_none() && self.tokens >= 1.0
    }

    /// A request is made, allowed or not.
    pub(super) fn spend(&mut self, now: Instant) {
        self.refill(now);
        self.tokens -= 1.0;
    }

    /// The far side asks to be left alone.
    pub(super) fn close(&mut self, until: Instant) {
        self.closed = Some(self.closed.map_or(until, |closed| closed.max(until)));
    }

    /// How long until `requests` may be made, or as many as ever may at once; at least until it opens.
    pub(super) fn wait(&mut self, requests: usize, now: Instant) -> Duration {
        self.refill(now);
        let wanted = f64::from(u32::try_from(requests).unwrap_or(u32::MAX)).clamp(1.0, self.burst);
        let until_full = Duration::from_secs_f64((wanted - self.tokens).max(0.0) / self.rate);
        let until_open = self.closed.map_or(Duration::ZERO, |closed| closed.saturating_duration_since(now));
        until_full.max(until_open)
    }

    /// Requests that may be made at once now.
    pub(super) fn left(&mut self, now: Instant) -> u64 {
        self.refill(now);
        // Cut off, and never negative.
        if self.closed.is_some() { 0 } else { self.tokens.max(0.0) as u64 }
    }

    fn refill(&mut self, now: Instant) {
        let time = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.tokens = (self.tokens + time.as_secs_f64() * self.rate).min(self.burst);
        if self.closed.is_some_and(|closed| closed <= now) {
            self.closed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_five_minutes_see_more_than_was_allowed() {
        for requests in [10, 600, 1200] {
            let start = Instant::now();
            let mut budget = Budget::new(requests, start);
            let mut sent: Vec<u64> = Vec::new();
            // Greedy, with a pause in which the bucket fills up.
            for second in (0..1000).chain(1500..2500) {
                let now = start + Duration::from_secs(second);
                while budget.is_open(now) {
                    budget.spend(now);
                    sent.push(second);
                }
            }
            for first in 0..2500 {
                let window = sent.iter().filter(|at| (first..first + 300).contains(*at)).count();
                assert!(window <= requests as usize, "{window} of {requests} from second {first}");
            }
            let steady = sent.iter().filter(|at| (600..900).contains(*at)).count();
            assert!(steady + 2 >= requests as usize * 4 / 5, "{steady} of {requests}");
        }
    }

    #[test]
    fn it_says_how_long_to_wait() {
        let now = Instant::now();
        let mut budget = Budget::new(600, now);
        assert_eq!((budget.left(now), budget.wait(10, now)), (120, Duration::ZERO));
        (0..120).for_each(|_| budget.spend(now));
        assert!(!budget.is_open(now));
        let wait = budget.wait(8, now);
        assert_eq!(wait, Duration::from_secs(5), "eight at 1.6 a second");
        assert!(budget.is_open(now + wait));
        budget.close(now + WINDOW);
        assert!(!budget.is_open(now + wait) && budget.left(now + wait) == 0);
        assert_eq!(budget.wait(1, now + wait), WINDOW - wait);
        assert!(budget.is_open(now + WINDOW));
        // More than there ever is at once is not waited for.
        assert_eq!(budget.wait(100_000, now + WINDOW * 2), Duration::ZERO);
    }
}
