//! How many requests a store is asked at once, who goes first, and when it is left alone: the rule. Callers are made to wait by it in
//! [`gate`](crate::gate).
//!
//! 1. At most `limit` requests are under way. It rises by about one for each `limit` answers while half of it is in use, and halves when the store
//!    throttles: additive increase, multiplicative decrease (Chiu and Jain, 1989), as TCP does it.
//! 2. Of them at most three quarters are for other things than producing, half for neither producing nor the tail, a quarter for what
//!    waits for nobody. So a place for produce is never taken by anything else.
//! 3. A store that throttles is left alone by everybody, for a time that doubles until it answers again.
//! 4. What was sent before the store was last throttled says nothing new of it: many are throttled together, and count as one.
//!
//! It has no clock and no chance of its own.

use std::time::Duration;

use tokio::time::Instant;

/// What a request is for. Those that wait for a place get it in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A producer waits for it, or the log does.
    #[default]
    Produce,
    /// Somebody waits for what is newest: a consumer near the end, a query.
    Tail,
    /// Somebody reads what is old.
    Backfill,
    /// Nobody waits for it: merging, compaction, retention, deleting.
    Compaction,
}

impl Priority {
    /// All of them, the first first.
    pub const ALL: [Self; 4] = [Self::Produce, Self::Tail, Self::Backfill, Self::Compaction];
    /// Their names, in the order of [`ALL`](Self::ALL).
    pub const NAMES: [&'static str; 4] = ["produce", "tail", "backfill", "compaction"];
}

/// Bounds of the requests that are under way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacing {
    /// How many at first. Default 64. More: less waiting after a start, but more at once for a store that has not been asked yet.
    pub requests_first: u32,
    /// How many at most. Default 256, which is 5,000 requests a second at 50 ms. More: more throughput from a store that bears it.
    pub requests_max: u32,
}

impl Default for Pacing {
    fn default() -> Self {
        Self { requests_first: 64, requests_max: 256 }
    }
}

/// The limit that always stays: one place for produce, and one for the rest.
const LIMIT_MIN: u32 = 2;
/// Of four parts of the limit, how many a priority may use together with those after it.
const SHARES: [u32; 4] = [4, 3, 2, 1];
/// Doublings of the rest that are counted.
const THROTTLES_MAX: u32 = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: f64,
    limit_max: f64,
    under_way: [u32; 4],
    /// How often the store was throttled.
    round: u64,
    /// How often since it last answered.
    throttles: u32,
    rest_until: Option<Instant>,
}

/// A request that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    priority: Priority,
    round: u64,
    /// Whether it takes a place.
    counts: bool,
}

impl Pace {
    pub(crate) fn new(pacing: &Pacing) -> Self {
        let limit_max = pacing.requests_max.max(LIMIT_MIN);
        Self {
            limit: f64::from(pacing.requests_first.clamp(LIMIT_MIN, limit_max)),
            limit_max: f64::from(limit_max),
            under_way: [0; 4],
            round: 0,
            throttles: 0,
            rest_until: None,
        }
    }

    /// How many may be under way.
    pub(crate) fn limit(&self) -> u32 {
        // Between LIMIT_MIN and a u32.
        self.limit as u32
    }

    /// How many are.
    pub(crate) fn under_way(&self) -> u32 {
        self.under_way.iter().sum()
    }

    /// Until when the store is left alone, if it is at `now`.
    pub(crate) fn rest_until(&self, now: Instant) -> Option<Instant> {
        self.rest_until.filter(|until| *until > now)
    }

    /// Until when the store was left alone last, or is.
    pub(crate) fn last_rest_until(&self) -> Option<Instant> {
        self.rest_until
    }

    /// Whether one more may be sent. Whoever goes before `priority` may then, too.
    pub(crate) fn admits(&self, priority: Priority, now: Instant) -> bool {
        let has_place = |first: usize| {
            let most = (self.limit() * SHARES[first] / SHARES[0]).max(1);
            self.under_way[first..].iter().sum::<u32>() < most
        };
        self.rest_until(now).is_none() && (0..=priority as usize).all(has_place)
    }

    /// One is sent.
    pub(crate) fn begin(&mut self, priority: Priority) -> Begun {
        self.under_way[priority as usize] += 1;
        Begun { priority, round: self.round, counts: true }
    }

    /// One is sent that takes no place: it has waited for too long.
    pub(crate) fn begin_beyond(&self, priority: Priority) -> Begun {
        Begun { priority, round: self.round, counts: false }
    }

    /// The store has answered it.
    pub(crate) fn answered(&mut self, begun: Begun) {
        if begun.round != self.round {
            return;
        }
        self.throttles = 0;
        if f64::from(self.under_way()) >= self.limit / 2.0 {
            self.limit = (self.limit + 1.0 / self.limit).min(self.limit_max);
        }
    }

    /// The store has throttled it at `now`. `rest` says how long to leave it alone after so many times in a row.
    pub(crate) fn throttled(&mut self, begun: Begun, now: Instant, rest: impl FnOnce(u32) -> Duration) {
        if begun.round != self.round {
            return;
        }
        self.round += 1;
        self.limit = (self.limit / 2.0).max(f64::from(LIMIT_MIN));
        self.rest_until = Some(now + rest(self.throttles));
        self.throttles = (self.throttles + 1).min(THROTTLES_MAX);
    }

    /// It is under way no more.
    pub(crate) fn end(&mut self, begun: Begun) {
        if begun.counts {
            self.under_way[begun.priority as usize] -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
