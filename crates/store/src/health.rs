//! Whether the store answers, as the requests say that were made anyway: nothing is asked to find out.
//!
//! 1. A store is in trouble if several requests of one kind in a row got no answer that says anything about objects.
//! 2. One answer ends the trouble of its kind. So does silence: what was so long ago says nothing of now.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::Failure;

/// One that fails is repeated and usually done at the second or third try: that is no trouble yet.
const FAILURES_MIN: u32 = 3;
/// A failure counts for so long. Longer than an attempt and the wait before the next take together.
const REMEMBERED: Duration = Duration::from_secs(30);

/// What is wrong with a store.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// Which requests: `PUT`, `GET`, `LIST` or `DELETE`.
    pub operation: &'static str,
    /// When the first of them failed.
    pub since: Instant,
    /// How many have failed since.
    pub failures: u32,
    /// Why the last one did.
    pub why: String,
}

/// What is known of one kind of request.
#[derive(Debug)]
pub(crate) struct Health {
    operation: &'static str,
    /// Whether there is something in `failing`: what succeeds looks at no lock.
    is_failing: AtomicBool,
    failing: Mutex<Option<Failing>>,
}

#[derive(Debug)]
struct Failing {
    trouble: Trouble,
    last: Instant,
}

impl Health {
    pub(crate) fn new(operation: &'static str) -> Self {
        Self { operation, is_failing: AtomicBool::new(false), failing: Mutex::new(None) }
    }

    /// The store has answered.
    pub(crate) fn answered(&self) {
        if self.is_failing.load(Ordering::Relaxed) {
            *self.lock() = None;
            self.is_failing.store(false, Ordering::Relaxed);
        }
    }

    /// A request has failed at `now`.
    pub(crate) fn failed(&self, failure: &Failure, now: Instant) {
        let mut failing = self.lock();
        let fresh = failing.take().filter(|failing| now.saturating_duration_since(failing.last) < REMEMBERED);
        let (since, failures) = fresh.map_or((now, 0), |failing| (failing.trouble.since, failing.trouble.failures));
        let trouble =
            Trouble { operation: self.operation, since, failures: failures.saturating_add(1), why: failure.why() };
        *failing = Some(Failing { trouble, last: now });
        drop(failing);
        self.is_failing.store(true, Ordering::Relaxed);
    }

    /// What is wrong at `now`.
    pub(crate) fn trouble(&self, now: Instant) -> Option<Trouble> {
        let failing = self.lock();
        let failing = failing.as_ref()?;
        let counts =
            failing.trouble.failures >= FAILURES_MIN && now.saturating_duration_since(failing.last) < REMEMBERED;
        counts.then(|| failing.trouble.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Failing>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::FailureKind;

    fn fail(health: &Health, now: Instant) {
        health.failed(&Failure::new(FailureKind::NotSent, "connection refused"), now);
    }

    #[tokio::test(start_paused = true)]
    async fn several_failures_in_a_row_are_trouble_until_an_answer_or_silence() {
        let health = Health::new("PUT");
        let start = Instant::now();
        fail(&health, start);
        fail(&health, start);
        assert!(health.trouble(start).is_none(), "twice is no trouble yet");
        let later = start + REMEMBERED / 2;
        fail(&health, later);
        let trouble = health.trouble(later).unwrap();
        assert_eq!((trouble.operation, trouble.since, trouble.failures), ("PUT", start, 3));
        assert!(trouble.why.contains("connection refused"), "{}", trouble.why);
        assert!(health.trouble(later + REMEMBERED).is_none(), "nobody has asked for long");
        fail(&health, later + REMEMBERED);
        assert!(health.trouble(later + REMEMBERED).is_none(), "what comes after a silence counts anew");
        health.answered();
        (0..2).for_each(|_| fail(&health, later + REMEMBERED));
        assert!(health.trouble(later + REMEMBERED).is_none(), "an answer ends it");
    }
}
