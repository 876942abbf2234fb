//! Hedges: a request that is slow is sent a second time, and the first good answer counts (Dean and Barroso, "The Tail at Scale", 2013).
//!
//! 1. Only what may be sent twice without harm: reads, and creates (see [`create`](crate::create)). Nothing large, and nothing that nobody
//!    waits for.
//! 2. Slow is what takes longer than all but one in [`SLOW_ONE_IN`] of the last requests of its kind and size did. Before enough of them were
//!    answered, nothing is.
//! 3. Hedges are a few percent of the requests of a kind at most: each earns a part of one, and the parts that are saved are few.
//! 4. A hedge never waits for a place, and takes none that somebody waits for: a store that is busy or throttles gets none.
//!
//! SUBTLE: what is not waited for any more may be applied later, as after a timeout: a create even behind the deletion of what its hedge has created.
//! Keys are not used twice, and what the log deletes is looked for again, so that leaves an orphan at worst; whoever can't bear it asks
//! [without hedges](Store::without_hedges).
//!
//! SUBTLE: it goes over another connection than the first one, which is still in use there, since the client speaks HTTP/1. Over HTTP/2 it would
//! follow the first onto the connection that may be what is slow.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::backend::{Failure, Span};
use crate::counts::Counter;
use crate::request::Pass;
use crate::store::Store;

/// When slow requests are sent a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedging {
    /// Most second requests, in percent of the requests of a kind (PUT, GET). Default 5; 0: none. More: fewer slow ones, and a bill that is
    /// higher by as much.
    pub percent_max: u32,
    /// Least time that the first is given. Default 5 ms: below, there is less to gain than a request costs.
    pub delay_min: Duration,
    /// How many requests of a kind and size must have been answered before it is known what is slow. Default 64.
    pub learned_min: usize,
}

impl Default for Hedging {
    fn default() -> Self {
        Self { percent_max: 5, delay_min: Duration::from_millis(5), learned_min: 64 }
    }
}

/// One in so many is slow: as many as the budget lets be sent again.
const SLOW_ONE_IN: usize = 20;
/// Requests of a kind and size of which the times are kept. At four a second, that is the last minute.
const TIMES_KEPT: usize = 256;
/// After so many more of them it is looked again what is slow.
const LEARNED_EVERY: usize = 16;
/// Hedges that can be saved up for a bad moment.
const SAVED_MAX: u64 = 10;
/// What a hedge costs in parts of one, of which each request earns its percents.
const HEDGE_PARTS: u64 = 100;
/// Requests up to each of these sizes take about as long as each other. What is larger is not hedged: it is slow because it is large, and would
/// share the line with its hedge.
const SIZES_MAX: [u64; 5] = [64 << 10, 512 << 10, 2 << 20, 5 << 20, 10 << 20];
/// Those classes, and one of objects that are read whole, of which the size is not known.
const CLASSES: usize = SIZES_MAX.len() + 1;

/// Requests that take about as long as each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(usize);

impl Class {
    /// That of a body; `None` if it is too large.
    pub(crate) fn of_size(size_bytes: u64) -> Option<Self> {
        SIZES_MAX.iter().position(|max| size_bytes <= *max).map(Self)
    }

    /// That of a reading.
    pub(crate) fn of_span(span: &Span) -> Option<Self> {
        match span {
            Span::All => Some(Self(SIZES_MAX.len())),
            Span::Range(range) => Self::of_size(range.end - range.start),
            Span::Last(length) => Self::of_size(*length),
        }
    }
}

/// What is known of requests of one kind.
#[derive(Debug)]
pub(crate) struct Hedges {
    options: Hedging,
    times: [Mutex<Times>; CLASSES],
    /// Parts of hedges that were earned and not spent.
    saved: AtomicU64,
}

/// How long the last requests of a class took.
#[derive(Debug, Default)]
struct Times {
    last: Vec<Duration>,
    /// How many were ever learned.
    learned: usize,
    slow: Option<Duration>,
}

impl Hedges {
    pub(crate) fn new(options: Hedging) -> Self {
        Self { options, times: Default::default(), saved: AtomicU64::new(0) }
    }

    /// One more request of the kind is made.
    fn earn(&self) {
        let earned = |saved: u64| Some((saved + u64::from(self.options.percent_max)).min(SAVED_MAX * HEDGE_PARTS));
        // It never fails: there is always a new value.
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earned);
    }

    /// Takes what a hedge costs, if it is there.
    fn spend(&self) -> bool {
        let spent = |saved: u64| saved.checked_sub(HEDGE_PARTS);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_ok()
    }

    /// After what time a request of a class is slow, if that is known.
    fn delay(&self, class: Class) -> Option<Duration> {
        let times = self.times[class.0].lock().unwrap_or_else(PoisonError::into_inner);
        times.slow.map(|slow| slow.max(self.options.delay_min))
    }

    fn learn(&self, class: Class, time: Duration) {
        let mut times = self.times[class.0].lock().unwrap_or_else(PoisonError::into_inner);
        times.learn(time, self.options.learned_min);
    }
}

impl Times {
    fn learn(&mut self, time: Duration, learned_min: usize) {
        match self.last.get_mut(self.learned % TIMES_KEPT) {
            Some(oldest) => *oldest = time,
            None => self.last.push(time),
        }
        self.learned += 1;
        let is_due = self.slow.is_none() || self.learned.is_multiple_of(LEARNED_EVERY);
        if is_due && self.learned >= learned_min.max(1) {
            let mut sorted = self.last.clone();
            let place = sorted.len() - 1 - sorted.len() / SLOW_ONE_IN;
            self.slow = Some(*sorted.select_nth_unstable(place).1);
        }
    }
}

/// What came of a request that may have been sent twice.
pub(crate) struct Hedged<T> {
    /// The answer that counts.
    pub(crate) outcome: Result<T, Failure>,
    /// What became of the other request.
    pub(crate) other: Other,
}

/// The request whose answer does not count.
pub(crate) enum Other {
    /// There was none.
    None,
    /// Nobody waits for its answer any more.
    Unanswered,
    /// It failed before.
    Failed(Failure),
}

impl Store {
    /// Waits for `first`, which has been sent; if it is slow, makes and sends a second one too. An answer, or a failure that `settles` it,
    /// counts at once; of other failures, the last.
    ///
    /// # Cancel
    /// Both are dropped.
    pub(crate) async fn hedged<T, Second: Future<Output = Result<T, Failure>>>(
        &self,
        counter: &Counter,
        class: Option<Class>,
        first: impl Future<Output = Result<T, Failure>>,
        second: impl FnOnce(Pass) -> Second,
        settles: impl Fn(&Failure) -> bool,
    ) -> Hedged<T> {
        let Some(hedges) = &counter.hedges else { return Hedged { outcome: first.await, other: Other::None } };
        hedges.earn();
        let (begun, mut first) = (Instant::now(), pin!(first));
        let delay = class.filter(|_| self.may_hedge()).and_then(|class| hedges.delay(class));
        let early = match delay {
            Some(delay) => timeout(delay, &mut first).await.ok(),
            None => Some(first.as_mut().await),
        };
        let hedged = match early {
            Some(outcome) => Hedged { outcome, other: Other::None },
            None => match self.free_pass().filter(|_| hedges.spend()) {
                None => Hedged { outcome: first.await, other: Other::None },
                Some(pass) => {
                    counter.hedge_sent();
                    self.race(counter, first, second(pass), settles).await
                }
            },
        };
        if let (Some(class), Ok(_)) = (class, &hedged.outcome) {
            hedges.learn(class, begun.elapsed());
        }
        hedged
    }

    async fn race<T>(
        &self,
        counter: &Counter,
        mut first: impl Future<Output = Result<T, Failure>> + Unpin,
        second: impl Future<Output = Result<T, Failure>>,
        settles: impl Fn(&Failure) -> bool,
    ) -> Hedged<T> {
        let mut second = pin!(second);
        let counts = |outcome: &Result<T, Failure>| outcome.as_ref().err().is_none_or(&settles);
        let (outcome, is_second) = tokio::select! {
            biased;
            outcome = &mut first => (outcome, false),
            outcome = &mut second => (outcome, true),
        };
        let failure = match outcome {
            outcome if counts(&outcome) => {
                counter.hedge_ended(is_second);
                return Hedged { outcome, other: Other::Unanswered };
            }
            Ok(_) => unreachable!("an answer counts"),
            Err(failure) => failure,
        };
        let outcome = if is_second { first.await } else { second.await };
        counter.hedge_ended(!is_second && counts(&outcome));
        Hedged { outcome, other: Other::Failed(failure) }
    }
}

#[cfg(test)]
mod tests;
