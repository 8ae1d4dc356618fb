//! How long to wait before a far side is asked again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The first wait, doubled each time up to the last.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(300);
/// Where somebody has to mend something.
const REFUSED: Duration = Duration::from_secs(600);
/// A far side that asks for more than this does not mean it, or does not mean us.
const LONGEST: Duration = Duration::from_secs(3600);

/// Exponential back-off with jitter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It went well.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after another failure. What the far side asked for is the least. Half of the wait is chance, lest
    /// all agents that a far side has turned away come back together.
    pub fn failed(&mut self, asked: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = FIRST.saturating_mul(1 << (self.failures - 1).min(16)).min(LAST);
        let own = wait / 2 + part(wait / 2);
        match asked {
            // A little later than asked: its clock and ours are not one.
            Some(asked) => own.max(asked.min(LONGEST) + part(Duration::from_secs(1))),
            None => own,
        }
    }

    /// How long to wait where credentials or settings are wrong.
    pub fn refused(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        REFUSED / 2 + part(REFUSED / 2)
    }
}

/// A random part of `whole`.
fn part(whole: Duration) -> Duration {
    // Keyed anew each time by the standard library, from the system's randomness.
    let chance = RandomState::new().hash_one(0) % 1024;
    whole * u32::try_from(chance).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_heed_what_was_asked() {
        let mut backoff = Backoff::default();
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let (wait, whole) = (backoff.failed(None), Duration::from_secs(seconds));
            assert!(wait >= whole / 2 && wait < whole, "{wait:?} of {whole:?}");
        }
        backoff.reset();
        let asked = Duration::from_secs(42);
        let wait = backoff.failed(Some(asked));
        assert!(wait >= asked && wait < asked + Duration::from_secs(1), "{wait:?}");
        assert!(backoff.failed(Some(Duration::MAX)) <= LONGEST + Duration::from_secs(1));
        let waits: Vec<Duration> = (0..20).map(|_| Backoff::default().failed(None)).collect();
        assert!(waits.iter().any(|w| *w != waits[0]), "no jitter: {waits:?}");
        assert!(backoff.refused() >= REFUSED / 2);
    }
}
