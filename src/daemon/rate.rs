//! Lines per second, over the last ten.

use crate::types::Timestamp;

const SECONDS: usize = 10;

/// A count for each of the last ten seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate {
    counts: [u64; SECONDS],
    second: i64,
}

impl Rate {
    /// `n` more at `now`.
    pub(super) fn add(&mut self, n: u64, now: Timestamp) {
        let slot = self.turn(now);
        self.counts[slot] += n;
    }

    /// What another count has.
    pub(super) fn join(&mut self, other: &Self, now: Timestamp) {
        let mut other = other.clone();
        other.turn(now);
        self.turn(now);
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
    }

    /// Per second over the last ten full seconds and the current one's part.
    pub(super) fn per_second(&mut self, now: Timestamp) -> u64 {
        self.turn(now);
        self.counts.iter().sum::<u64>() / SECONDS as u64
    }

    /// Empties what is older than ten seconds; the slot of `now`. A clock that went back starts over.
    fn turn(&mut self, now: Timestamp) -> usize {
        let second = now.as_millis().div_euclid(1000);
        let passed = usize::try_from(second.saturating_sub(self.second)).unwrap_or(SECONDS).min(SECONDS);
        for step in 0..passed {
            self.counts[slot(second.saturating_sub(i64::try_from(step).unwrap_or(0)))] = 0;
        }
        self.second = second;
        slot(second)
    }
}

fn slot(second: i64) -> usize {
    usize::try_from(second.rem_euclid(SECONDS as i64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_ten_seconds_does_not_count() {
        let mut rate = Rate::default();
        let at = Timestamp::from_secs;
        rate.add(100, at(1000));
        rate.add(50, at(1005));
        assert_eq!(rate.per_second(at(1009)), 15);
        let mut other = Rate::default();
        other.add(70, at(999));
        other.add(30, at(1003));
        let mut both = rate.clone();
        both.join(&other, at(1009));
        assert_eq!(both.per_second(at(1009)), 18);
        assert_eq!(rate.per_second(at(1010)), 5);
        assert_eq!(rate.per_second(at(2000)), 0);
        rate.add(30, at(500));
        assert_eq!(rate.per_second(at(500)), 3, "after the clock was set back");
    }
}
