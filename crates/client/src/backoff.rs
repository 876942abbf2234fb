//! How long to wait before the next attempt.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Attempts that follow one another at growing distances, with jitter, for a bounded time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Longest wait before the first further attempt; each next one may wait twice as long.
    pub first: Duration,
    /// Longest wait between two attempts.
    pub wait_max: Duration,
    /// How long trouble may last before it is told to the caller. Zero: it is told at once.
    pub give_up_after: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(50),
            wait_max: Duration::from_secs(5),
            give_up_after: Duration::from_secs(120),
        }
    }
}

/// The waits of one trouble.
#[derive(Debug)]
pub(crate) struct Backoff {
    retry: Retry,
    attempts: u32,
    jitter: RandomState,
}

impl Backoff {
    pub(crate) fn new(retry: Retry) -> Self {
        Self { retry, attempts: 0, jitter: RandomState::new() }
    }

    /// The next wait: between half and the whole of a bound that doubles, so that clients that were cut off together come back apart.
    pub(crate) fn next(&mut self) -> Duration {
        let doubled = self.retry.first.saturating_mul(1 << self.attempts.min(20));
        self.attempts = self.attempts.saturating_add(1);
        let bound = doubled.min(self.retry.wait_max);
        let share = (self.jitter.hash_one(self.attempts) % 1024) as u32;
        bound / 2 + bound / 2 * share / 1024
    }

    /// The trouble is over.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_begin_again() {
        let mut backoff = Backoff::new(Retry::default());
        let waits: Vec<u128> = (0..12).map(|_| backoff.next().as_millis()).collect();
        for (attempt, wait) in waits.iter().enumerate() {
            let bound = (50_u128 << attempt).min(5000);
            assert!((bound / 2..=bound).contains(wait), "attempt {attempt} waited {wait} ms");
        }
        backoff.reset();
        assert!(backoff.next().as_millis() <= 50);
    }
}
