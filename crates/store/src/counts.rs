//! What was asked of the store and what came of it, in requests, bytes and time: every attempt counts, as it does on the bill.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::backend::{Failure, FailureKind};
use crate::health::{Health, Trouble};
use crate::hedge::{Hedges, Hedging};
use crate::histogram::{Counted, Histogram};
use crate::retry::TimedOut;

/// Requests of one kind since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationCounts {
    /// Requests that did what was asked.
    pub succeeded: u64,
    /// Requests with a definite no: something stood there (PUT), nothing stood there (GET).
    pub declined: u64,
    /// Requests that the store throttled.
    pub throttled: u64,
    /// Requests that were not answered in time.
    pub timed_out: u64,
    /// Requests that the store refused: no permission, no space, a malformed request.
    pub refused: u64,
    /// Requests that failed otherwise.
    pub failed: u64,
    /// Requests whose answer nobody waited for any more.
    pub cancelled: u64,
    /// Bytes of bodies in the requests that succeeded: sent (PUT) or received (GET).
    pub bytes: u64,
    /// Requests that were sent because another was slow. They are among those above, as that other is.
    pub hedges: u64,
    /// Hedges whose answer came first.
    pub hedges_won: u64,
}

/// All requests since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Creates.
    pub put: OperationCounts,
    /// Reads, sizes and read-backs.
    pub get: OperationCounts,
    /// Listings; one that spans several pages of the store counts once for each thousand objects.
    pub list: OperationCounts,
    /// Deletes; one request may name many objects.
    pub delete: OperationCounts,
}

impl OperationCounts {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.succeeded + self.declined + self.throttled + self.timed_out + self.refused + self.failed + self.cancelled
    }

    /// Requests that providers charge for: those that they answered with other than "later" or "my fault". One without an answer may
    /// have been done.
    pub fn billed(&self) -> u64 {
        self.succeeded + self.declined + self.timed_out + self.refused + self.cancelled
    }
}

impl Counts {
    /// All requests of every kind.
    pub fn requests(&self) -> u64 {
        self.put.requests() + self.get.requests() + self.list.requests() + self.delete.requests()
    }
}

/// How long requests took from being sent to being answered, in microseconds, whatever the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latencies {
    /// Creates.
    pub put: Counted,
    /// Reads, sizes and read-backs.
    pub get: Counted,
    /// Listings.
    pub list: Counted,
    /// Deletes.
    pub delete: Counted,
}

#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) put: Counter,
    pub(crate) get: Counter,
    pub(crate) list: Counter,
    pub(crate) delete: Counter,
}

/// One kind of request.
#[derive(Debug)]
pub(crate) struct Counter {
    succeeded: AtomicU64,
    declined: AtomicU64,
    throttled: AtomicU64,
    timed_out: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    bytes: AtomicU64,
    hedges_sent: AtomicU64,
    hedges_won: AtomicU64,
    latency: Histogram,
    health: Health,
    /// Which of them are sent a second time; `None` if none is.
    pub(crate) hedges: Option<Hedges>,
}

impl Counters {
    pub(crate) fn new(hedging: Option<Hedging>) -> Self {
        Self {
            put: Counter::new("PUT", hedging),
            get: Counter::new("GET", hedging),
            list: Counter::new("LIST", None),
            delete: Counter::new("DELETE", None),
        }
    }

    pub(crate) fn snapshot(&self) -> Counts {
        Counts {
            put: self.put.snapshot(),
            get: self.get.snapshot(),
            list: self.list.snapshot(),
            delete: self.delete.snapshot(),
        }
    }

    pub(crate) fn latencies(&self) -> Latencies {
        Latencies {
            put: self.put.latency.counted(),
            get: self.get.latency.counted(),
            list: self.list.latency.counted(),
            delete: self.delete.latency.counted(),
        }
    }

    /// The trouble that has lasted longest.
    pub(crate) fn trouble(&self, now: Instant) -> Option<Trouble> {
        let all = [&self.put, &self.get, &self.list, &self.delete];
        all.into_iter().filter_map(|counter| counter.health.trouble(now)).min_by_key(|trouble| trouble.since)
    }
}

impl Counter {
    fn new(operation: &'static str, hedging: Option<Hedging>) -> Self {
        let zero = AtomicU64::default;
        Self {
            succeeded: zero(),
            declined: zero(),
            throttled: zero(),
            timed_out: zero(),
            refused: zero(),
            failed: zero(),
            cancelled: zero(),
            bytes: zero(),
            hedges_sent: zero(),
            hedges_won: zero(),
            latency: Histogram::of_times(),
            health: Health::new(operation),
            hedges: hedging.filter(|hedging| hedging.percent_max > 0).map(Hedges::new),
        }
    }

    /// Counts one attempt with its time limit; `bytes` of its result are those of the bodies. One that is dropped counts as cancelled.
    pub(crate) async fn counted<T>(
        &self,
        bytes: impl FnOnce(&T) -> u64,
        attempt: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        let mut unanswered = Unanswered { counter: self, answered: false };
        let outcome = attempt.await;
        unanswered.answered = true;
        let ended = Instant::now();
        self.latency.observe_time(ended - begun);
        match &outcome {
            Ok(value) => {
                add(&self.succeeded, 1);
                add(&self.bytes, bytes(value));
                self.health.answered();
            }
            Err(failure) => self.failure(failure, ended),
        }
        outcome
    }

    fn failure(&self, failure: &Failure, now: Instant) {
        match failure.kind {
            FailureKind::Exists | FailureKind::Absent => {
                add(&self.declined, 1);
                return self.health.answered();
            }
            FailureKind::Throttled => add(&self.throttled, 1),
            FailureKind::Refused => add(&self.refused, 1),
            _ if failure.cause.is::<TimedOut>() => add(&self.timed_out, 1),
            _ => add(&self.failed, 1),
        }
        self.health.failed(failure, now);
    }

    /// Counts further requests that a successful attempt needed.
    pub(crate) fn further(&self, requests: u64) {
        add(&self.succeeded, requests);
    }

    /// A hedge is sent.
    pub(crate) fn hedge_sent(&self) {
        add(&self.hedges_sent, 1);
    }

    /// The answer that counts has come, perhaps that of the hedge.
    pub(crate) fn hedge_ended(&self, is_won: bool) {
        add(&self.hedges_won, u64::from(is_won));
    }

    fn snapshot(&self) -> OperationCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        OperationCounts {
            succeeded: count(&self.succeeded),
            declined: count(&self.declined),
            throttled: count(&self.throttled),
            timed_out: count(&self.timed_out),
            refused: count(&self.refused),
            failed: count(&self.failed),
            cancelled: count(&self.cancelled),
            bytes: count(&self.bytes),
            hedges: count(&self.hedges_sent),
            hedges_won: count(&self.hedges_won),
        }
    }
}

struct Unanswered<'a> {
    counter: &'a Counter,
    answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            add(&self.counter.cancelled, 1);
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
