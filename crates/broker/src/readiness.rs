//! Whether the broker can do its work now, and if not, why: for `/readyz` and the metrics.
//!
//! 1. Nothing is asked of the store: what its last requests met is what counts.
//! 2. Every reason has a name of a bounded list, a sentence with what to do, and since when it applies.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lakebed_log::Closed;
use serde::Serialize;

use crate::reason::Reason;
use crate::rooms::Rooms;

/// A sequencer that has not been reached for so long and that nobody has succeeded works, or can't be succeeded.
const LOST_MAX: Duration = Duration::from_secs(5);
/// A commit that is under way for longer is stuck: a slow store takes seconds.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(10);

const STORE_UNAVAILABLE: &str = "STORE_UNAVAILABLE";
const COMMIT_STUCK: &str = "COMMIT_STUCK";
const OVERLOADED: &str = "OVERLOADED";
const FENCED: &str = "FENCED";
const DAMAGED_OBJECT: &str = "DAMAGED_OBJECT";
const SHUTTING_DOWN: &str = "SHUTTING_DOWN";
const SEQUENCER_UNREACHABLE: &str = "SEQUENCER_UNREACHABLE";
const CLOCK_SKEW: &str = "CLOCK_SKEW";

/// All reasons that there can be.
pub(crate) const REASONS: &[&str] =
    &[STORE_UNAVAILABLE, COMMIT_STUCK, OVERLOADED, FENCED, DAMAGED_OBJECT, SHUTTING_DOWN, SEQUENCER_UNREACHABLE];

/// Why the broker is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotReady {
    /// Its name.
    pub reason: &'static str,
    /// What is wrong and what to do, for a person.
    pub message: String,
    /// Since when, as RFC 3339 in UTC.
    pub since: String,
}

/// What is known beside the rooms.
#[derive(Debug, Default)]
pub struct Readiness {
    draining_ms: OnceLock<i64>,
    closed_ms: OnceLock<i64>,
}

impl Readiness {
    /// The broker is asked to stop.
    pub(crate) fn drain(&self, now_ms: i64) {
        self.draining_ms.get_or_init(|| now_ms);
    }

    /// Everything that stands in the way of the broker's work; empty if it is ready.
    pub fn reasons(&self, rooms: &Rooms) -> Vec<NotReady> {
        let now_ms = (rooms.seams.wall)();
        let mut reasons = Vec::new();
        let mut add = |reason, since_ms, message| reasons.push(NotReady { reason, message, since: rfc3339(since_ms) });
        if let Some(draining_ms) = self.draining_ms.get() {
            add(
                SHUTTING_DOWN,
                *draining_ms,
                "the broker is stopping: what was accepted is made durable and answered".to_owned(),
            );
        }
        if let Some(closed) = rooms.log.is_closed() {
            let name = closed_name(&closed);
            add(name, *self.closed_ms.get_or_init(|| now_ms), closed.to_string());
        }
        if let Some(trouble) = rooms.store.trouble() {
            let message = format!(
                "{} requests of kind {} in a row got no answer from {}: {}; see that the store runs and can be reached",
                trouble.failures,
                trouble.operation,
                rooms.store.url(),
                trouble.why
            );
            add(STORE_UNAVAILABLE, before(now_ms, trouble.since.elapsed()), message);
        }
        if let Some(lost) = rooms.log.counts().sequencer_lost().filter(|lost| *lost > LOST_MAX) {
            let message = format!(
                "the sequencer at {} has not been reached for {} s, so nothing can be passed on to it: see that this broker can connect to that address, which is advertise_http of that one",
                rooms.log.state().owner_address(),
                lost.as_secs()
            );
            add(SEQUENCER_UNREACHABLE, before(now_ms, lost), message);
        }
        if let Some(age) = rooms.log.counts().oldest_in_flight().filter(|age| *age > COMMIT_TIME_MAX) {
            let message = format!(
                "a commit has been under way for {} s, and nothing is acknowledged before it is durable: see that the store has room and takes writes",
                age.as_secs()
            );
            add(COMMIT_STUCK, before(now_ms, age), message);
        }
        if let Some(since_ms) = rooms.ingest.throttled_since_ms() {
            let (runs, limit) = (rooms.log.state().run_count(), rooms.config.budget().live_runs_max);
            let message = format!(
                "{runs} runs are live of at most {limit}, so producers wait for merging: delete topics that are not needed, or give the broker more memory, if it lasts"
            );
            add(OVERLOADED, since_ms, message);
        }
        reasons
    }
}

/// What stands in the way of nothing that clients ask for, and should be looked at all the same.
pub(crate) fn warnings(rooms: &Rooms) -> Vec<NotReady> {
    let counts = rooms.retainer.counts();
    let paused_since_ms = counts.paused_since_ms.load(Ordering::Relaxed);
    let paused = (paused_since_ms != 0).then(|| NotReady {
        reason: CLOCK_SKEW,
        message: format!(
            "this machine's clock is {} s ahead of the store's, so retention is paused and removes nothing: set the one that is wrong",
            counts.skew_ms.load(Ordering::Relaxed) / 1000
        ),
        since: rfc3339(paused_since_ms),
    });
    paused.into_iter().collect()
}

fn closed_name(closed: &Closed) -> &'static str {
    match closed {
        Closed::ShuttingDown => SHUTTING_DOWN,
        Closed::Fenced { .. } | Closed::Follows { .. } | Closed::Successor | Closed::Damaged { .. } => {
            Reason::from(closed).row().name
        }
    }
}

fn before(now_ms: i64, elapsed: Duration) -> i64 {
    now_ms.saturating_sub(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

fn rfc3339(ms: i64) -> String {
    let since = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string()
}
