//! What was asked of the store and what came of it, in requests and bytes: every attempt counts, as it does on the bill.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::{Failure, FailureKind};

/// Requests of one kind since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationCounts {
    /// Requests that did what was asked.
    pub succeeded: u64,
    /// Requests with a definite no: something stood there (PUT), nothing stood there (GET).
    pub declined: u64,
    /// Requests that the store throttled.
    pub throttled: u64,
    /// Requests that failed otherwise, or were never answered.
    pub failed: u64,
    /// Bytes of bodies in the requests that succeeded: sent (PUT) or received (GET).
    pub bytes: u64,
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
        self.succeeded + self.declined + self.throttled + self.failed
    }
}

impl Counts {
    /// All requests of every kind.
    pub fn requests(&self) -> u64 {
        self.put.requests() + self.get.requests() + self.list.requests() + self.delete.requests()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) put: Counter,
    pub(crate) get: Counter,
    pub(crate) list: Counter,
    pub(crate) delete: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter {
    succeeded: AtomicU64,
    declined: AtomicU64,
    throttled: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Counts {
        Counts {
            put: self.put.snapshot(),
            get: self.get.snapshot(),
            list: self.list.snapshot(),
            delete: self.delete.snapshot(),
        }
    }
}

impl Counter {
    /// Counts one attempt; `bytes` of its result are those of the bodies. One that is dropped counts as failed.
    pub(crate) async fn counted<T>(
        &self,
        bytes: impl FnOnce(&T) -> u64,
        attempt: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut unanswered = Unanswered { counter: self, answered: false };
        let outcome = attempt.await;
        unanswered.answered = true;
        match &outcome {
            Ok(value) => {
                add(&self.succeeded, 1);
                add(&self.bytes, bytes(value));
            }
            Err(failure) => match failure.kind {
                FailureKind::Exists | FailureKind::Absent => add(&self.declined, 1),
                FailureKind::Throttled => add(&self.throttled, 1),
                _ => add(&self.failed, 1),
            },
        }
        outcome
    }

    /// Counts further requests that a successful attempt needed.
    pub(crate) fn further(&self, requests: u64) {
        add(&self.succeeded, requests);
    }

    fn snapshot(&self) -> OperationCounts {
        OperationCounts {
            succeeded: self.succeeded.load(Ordering::Relaxed),
            declined: self.declined.load(Ordering::Relaxed),
            throttled: self.throttled.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
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
            add(&self.counter.failed, 1);
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
