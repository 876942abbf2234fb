//! When the next flush is due: flushes that are not full begin at least an interval apart.

use std::time::Duration;

use tokio::time::Instant;

/// Tokio's timers go off up to a millisecond late, and a busy machine adds to that.
const TIMER_LATENESS_MAX: Duration = Duration::from_millis(2);

/// See the module. Time comes in.
#[derive(Debug)]
pub(crate) struct Spacing {
    interval: Duration,
    began: Option<Instant>,
}

impl Spacing {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, began: None }
    }

    /// When a flush is due for a record that is there at `now`.
    pub(crate) fn due(&self, now: Instant) -> Instant {
        self.began.map_or(now, |began| began + self.interval)
    }

    /// A flush begins at `now`.
    ///
    /// SUBTLE: one that a late timer began counts from when it was due, else every interval would be longer by the lateness of its
    /// timer: 3 ms in place of 2.
    pub(crate) fn begin(&mut self, now: Instant) {
        let due = self.due(now);
        let late = now.saturating_duration_since(due);
        self.began = Some(if late <= TIMER_LATENESS_MAX { due.min(now) } else { now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(10);

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_record_after_a_quiet_interval_is_due_at_once_and_the_next_one_waits() {
        let start = Instant::now();
        let mut spacing = Spacing::new(INTERVAL);
        assert_eq!(spacing.due(start), start);
        spacing.begin(start);
        assert_eq!(spacing.due(start + ms(3)), start + ms(10));
        let quiet = start + ms(50);
        assert!(spacing.due(quiet) <= quiet);
        spacing.begin(quiet);
        assert_eq!(spacing.due(quiet + ms(1)), quiet + ms(10));
    }

    #[tokio::test(start_paused = true)]
    async fn late_timers_do_not_stretch_the_interval_and_a_full_flush_restarts_it() {
        let start = Instant::now();
        let mut spacing = Spacing::new(INTERVAL);
        spacing.begin(start);
        spacing.begin(start + ms(11));
        assert_eq!(spacing.due(start + ms(12)), start + ms(20));
        spacing.begin(start + ms(13));
        assert_eq!(
            spacing.due(start + ms(14)),
            start + ms(23),
            "a full flush before its time counts from its beginning"
        );
        spacing.begin(start + ms(40));
        assert_eq!(spacing.due(start + ms(41)), start + ms(50), "far behind, nothing is made up for");
    }
}
