//! How long, how often and how far apart an operation is tried: bounded, spread by chance, in tokio's time.

use std::sync::Mutex;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, timeout};

use crate::backend::{Failure, FailureKind};

/// An attempt that was given up: no answer came in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} ms", time_max.as_millis())]
pub(crate) struct TimedOut {
    time_max: Duration,
}

/// Bounds of the attempts that one call makes.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Most attempts of one call. Default 64. More: longer patience with a store that fails at once.
    pub attempts_max: u32,
    /// Longest time of one attempt. Default 20 s. Less: a hung connection is noticed sooner, but a large object on a
    /// slow line may never get through. A request waits for its [turn](crate::pace) as long at most, before that.
    pub attempt_time_max: Duration,
    /// Time after which no further attempt begins. Default 60 s.
    pub time_max: Duration,
    /// Mean wait before the second attempt, doubled each time. Default 25 ms.
    pub wait_min: Duration,
    /// Bound of that doubling. Default 2 s, so that a store that was away is used again within 3 s of its return.
    pub wait_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 64,
            attempt_time_max: Duration::from_secs(20),
            time_max: Duration::from_secs(60),
            wait_min: Duration::from_millis(25),
            wait_max: Duration::from_secs(2),
        }
    }
}

impl RetryPolicy {
    /// The mean wait after so many doublings.
    pub(crate) fn mean_wait(&self, doublings: u32) -> Duration {
        self.wait_min.saturating_mul(1 << doublings.min(16)).min(self.wait_max)
    }
}

/// A call that gets no good answer for so long is worth a line in the log.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two such lines of one store.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// The policy with its own source of chance; shared by all calls on a store.
#[derive(Debug)]
pub(crate) struct Retry {
    policy: RetryPolicy,
    random: Mutex<StdRng>,
    /// When it was last told that the store is in trouble.
    told: Mutex<Option<Instant>>,
}

/// The attempts of one call.
pub(crate) struct Attempts<'a> {
    retry: &'a Retry,
    begun: Instant,
    deadline: Instant,
    made: u32,
    /// Requests beyond one an attempt.
    hedges: u32,
}

impl Retry {
    pub(crate) fn new(policy: RetryPolicy, seed: u64) -> Self {
        Self { policy, random: Mutex::new(StdRng::seed_from_u64(seed)), told: Mutex::default() }
    }

    pub(crate) fn begin(&self) -> Attempts<'_> {
        let begun = Instant::now();
        Attempts { retry: self, begun, deadline: begun + self.policy.time_max, made: 0, hedges: 0 }
    }

    /// Waits for what was sent, for no longer than one attempt may take.
    ///
    /// # Errors
    /// The request's own failure, or [`FailureKind::Doubt`] by [`TimedOut`] when it took too long.
    pub(crate) async fn time_limited<T>(&self, sent: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let time_max = self.policy.attempt_time_max;
        match timeout(time_max, sent).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::new(FailureKind::Doubt, TimedOut { time_max })),
        }
    }
}

impl Attempts<'_> {
    /// How many requests were sent.
    pub(crate) fn made(&self) -> u32 {
        self.made + self.hedges
    }

    /// One more attempt is made.
    pub(crate) fn begin_one(&mut self) {
        self.made += 1;
    }

    /// The attempt was made by two requests.
    pub(crate) fn count_hedge(&mut self) {
        self.hedges += 1;
    }

    /// Whether it is time to tell that this call gets no good answer.
    pub(crate) fn is_to_be_told(&self) -> bool {
        let now = Instant::now();
        let mut told = self.retry.told.lock().expect("no code panics while it looks at the time");
        let due = now - self.begun >= PATIENCE && told.is_none_or(|told| now - told >= TOLD_EVERY);
        if due {
            *told = Some(now);
        }
        due
    }

    /// Waits before the next attempt; `false` if there may be none.
    pub(crate) async fn wait(&mut self) -> bool {
        let wait = self.next_wait();
        if self.made >= self.retry.policy.attempts_max || Instant::now() + wait >= self.deadline {
            return false;
        }
        tokio::time::sleep(wait).await;
        true
    }

    /// Between half and one and a half of the mean, so that those who failed together do not come back together.
    fn next_wait(&self) -> Duration {
        let mean = self.retry.policy.mean_wait(self.made.saturating_sub(1));
        let mut random = self.retry.random.lock().expect("no code panics while it draws");
        mean.mul_f64(random.random_range(0.5..1.5))
    }
}
