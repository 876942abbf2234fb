//! How many requests a prefix is served in a second, as S3 partitions its keys.
//!
//! 1. Each prefix of each bucket may save up what one second allows, and gets it back evenly. A request beyond is refused and costs nothing.
//! 2. What is kept is bounded: of a prefix that has all it may save, nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bill::Operation;

/// Most prefixes that are kept; when so many are busy within one second, all begin anew.
const PREFIXES_MAX: usize = 10_000;
/// Highest limit: more can't be told apart in nanoseconds.
const PER_SECOND_MAX: u32 = 1_000_000;
/// What a prefix may save up.
const SAVED_MAX: Duration = Duration::from_secs(1);

/// How many requests a prefix is served in a second; those beyond are answered 503 `SlowDown`. By default what S3 Standard promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// PUT, COPY, POST and DELETE requests. 0 refuses all.
    pub writes_per_second: u32,
    /// GET, HEAD and LIST requests. 0 refuses all.
    pub reads_per_second: u32,
    /// How many parts of a key between slashes make its prefix: 0 is the whole bucket, as S3 has it before it divides a busy one.
    /// `None`: all but the last, as if it had divided whatever it can.
    pub prefix_parts: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { writes_per_second: 3_500, reads_per_second: 5_500, prefix_parts: None }
    }
}

impl Limits {
    pub(crate) fn problem(&self) -> Option<String> {
        let is_too_high = self.writes_per_second.max(self.reads_per_second) > PER_SECOND_MAX;
        is_too_high.then(|| format!("limits: at most {PER_SECOND_MAX} in a second can be counted"))
    }

    fn prefix<'a>(&self, key: &'a str) -> &'a str {
        let mut slashes = key.match_indices('/').map(|(at, _)| at);
        let end = match self.prefix_parts {
            None => slashes.next_back().unwrap_or(0),
            Some(0) => 0,
            Some(parts) => slashes.nth(parts - 1).or(key.rfind('/')).unwrap_or(0),
        };
        &key[..end]
    }
}

/// The time by which limits are kept.
#[derive(Debug, Clone)]
pub enum Clock {
    /// This machine's, since the given moment.
    Machine(tokio::time::Instant),
    /// So many milliseconds, as whoever holds this says.
    Manual(Arc<AtomicU64>),
}

impl Default for Clock {
    fn default() -> Self {
        Self::Machine(tokio::time::Instant::now())
    }
}

impl Clock {
    pub(crate) fn now(&self) -> Duration {
        match self {
            Self::Machine(begun) => begun.elapsed(),
            Self::Manual(ms) => Duration::from_millis(ms.load(Ordering::Relaxed)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Read,
    Write,
}

/// What each prefix has been served.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// By bucket and prefix: when it will have all that it may save. By the generic cell rate algorithm (ITU-T I.371), which needs no more.
    whole: BTreeMap<(String, Kind), Duration>,
}

impl Served {
    /// Whether a request is within the limits; if so, it counts.
    pub(crate) fn admit(
        &mut self,
        limits: &Limits,
        operation: Operation,
        (bucket, key): (&str, &str),
        now: Duration,
    ) -> bool {
        use Operation::{Abort, Begin, Complete, Delete, Get, Head, List, Other, Part, Put};
        let (kind, per_second) = match operation {
            Put | Delete | Begin | Part | Complete | Abort => (Kind::Write, limits.writes_per_second),
            Get | Head | List => (Kind::Read, limits.reads_per_second),
            Other => return true,
        };
        if per_second == 0 {
            return false;
        }
        if self.whole.len() >= PREFIXES_MAX {
            self.whole.retain(|_, whole| *whole > now);
            if self.whole.len() > PREFIXES_MAX / 2 {
                self.whole.clear();
            }
        }
        let whole = self.whole.entry((format!("{bucket}/{}", limits.prefix(key)), kind)).or_default();
        let next = (*whole).max(now) + SAVED_MAX / per_second;
        let admitted = next <= now + SAVED_MAX;
        if admitted {
            *whole = next;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// How many of `asked` requests are served at once.
    fn served(served: &mut Served, limits: &Limits, operation: Operation, key: &str, asked: usize, ms: u64) -> usize {
        (0..asked).filter(|_| served.admit(limits, operation, ("b", key), at(ms))).count()
    }

    #[test]
    fn each_prefix_is_served_what_a_second_allows_reads_and_writes_apart() {
        let (mut all, limits) = (Served::default(), Limits::default());
        let mut count = |operation, key, ms| served(&mut all, &limits, operation, key, 10_000, ms);
        assert_eq!(count(Operation::Put, "a/1", 0), 3500);
        assert_eq!(count(Operation::Delete, "a/2", 0), 0, "of the same prefix and kind");
        assert_eq!(count(Operation::Get, "a/1", 0), 5500);
        assert_eq!(count(Operation::List, "a/", 0), 0, "it lists what it may not read");
        assert_eq!(count(Operation::Put, "a/b/1", 0), 3500);
        assert_eq!(count(Operation::Put, "1", 0), 3500);
        assert_eq!(count(Operation::Other, "", 0), 10_000);
        assert_eq!(count(Operation::Part, "a/1", 500), 1750, "half a second later");
        assert_eq!(count(Operation::Begin, "a/1", 5000), 3500, "no more is saved than one second allows");
    }

    #[test]
    fn a_steady_load_is_served_up_to_the_limit() {
        let (mut all, limits) = (Served::default(), Limits { writes_per_second: 100, ..Limits::default() });
        let served: usize = (0..10_000).map(|ms| served(&mut all, &limits, Operation::Put, "a/1", 1, ms)).sum();
        assert_eq!(served, 100 + 10 * 100 - 1, "what it had saved, and that of ten seconds");
        let none = Limits { writes_per_second: 0, ..limits };
        assert!(!all.admit(&none, Operation::Put, ("b", "c/1"), at(100_000)));
    }

    #[test]
    fn a_prefix_is_made_of_the_parts_that_are_asked_for() {
        let limits = |prefix_parts| Limits { prefix_parts, ..Limits::default() };
        for (parts, key, expected) in [
            (None, "a/b/c", "a/b"),
            (None, "a", ""),
            (Some(0), "a/b/c", ""),
            (Some(1), "a/b/c", "a"),
            (Some(2), "a/b/c", "a/b"),
            (Some(9), "a/b/c", "a/b"),
            (Some(1), "a", ""),
        ] {
            assert_eq!(limits(parts).prefix(key), expected, "{parts:?} of {key}");
        }
    }

    #[test]
    fn of_prefixes_without_number_a_bounded_number_is_kept() {
        let (mut all, limits) = (Served::default(), Limits::default());
        for number in 0..100_000_u64 {
            let busy = number >= 50_000;
            let now = if busy { at(1_000_000) } else { at(10 * number) };
            assert!(all.admit(&limits, Operation::Put, ("b", &format!("{number}/x")), now));
            assert!(all.whole.len() <= PREFIXES_MAX);
        }
    }
}
