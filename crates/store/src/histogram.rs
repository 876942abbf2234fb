//! How often a number fell between which bounds: what rooms count of times and sizes, for whoever shows it.
//!
//! Observing takes no lock and allocates nothing. Numbers are whole: microseconds, bytes, counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Microseconds, from a quarter of a millisecond to half a minute: what requests, flushes and commits take.
pub const TIME_BOUNDS_MICROS: &[u64] = &[
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000,
];

/// Bytes, from a kibibyte to 64 MiB: what flushes and objects have.
pub const SIZE_BOUNDS_BYTES: &[u64] =
    &[1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20, 16 << 20, 64 << 20];

/// See the module.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One more than bounds: the last is for what lies above all of them.
    cells: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a histogram had counted at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Each bound, inclusive, with how many numbers lie at or below it and above the one before.
    pub cells: Vec<(u64, u64)>,
    /// How many lie above all bounds.
    pub above: u64,
    /// All numbers added up.
    pub sum: u64,
}

impl Histogram {
    /// One that has counted nothing. The bounds ascend.
    pub fn new(bounds: &'static [u64]) -> Self {
        let cells = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, cells, sum: AtomicU64::new(0) }
    }

    /// One of times, in microseconds.
    pub fn of_times() -> Self {
        Self::new(TIME_BOUNDS_MICROS)
    }

    /// One of sizes, in bytes.
    pub fn of_sizes() -> Self {
        Self::new(SIZE_BOUNDS_BYTES)
    }

    /// Counts a number.
    pub fn observe(&self, number: u64) {
        let cell = self.bounds.partition_point(|bound| *bound < number);
        self.cells[cell].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(number, Ordering::Relaxed);
    }

    /// Counts a time, in microseconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// What was counted so far. What is observed meanwhile may be in the cells and not in the sum yet.
    pub fn counted(&self) -> Counted {
        let count = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let cells = self.bounds.iter().copied().zip(self.cells.iter().map(count)).collect();
        let above = self.cells.last().map_or(0, count);
        Counted { cells, above, sum: self.sum.load(Ordering::Relaxed) }
    }
}

impl Counted {
    /// How many numbers were counted.
    pub fn count(&self) -> u64 {
        self.cells.iter().map(|(_, count)| count).sum::<u64>() + self.above
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_at_the_first_bound_that_is_not_below_it() {
        let histogram = Histogram::new(&[10, 20]);
        [0, 10, 11, 20, 21, u64::MAX / 2].into_iter().for_each(|number| histogram.observe(number));
        let counted = histogram.counted();
        assert_eq!(counted.cells, [(10, 2), (20, 2)]);
        assert_eq!((counted.above, counted.count(), counted.sum), (2, 6, 62 + u64::MAX / 2));
    }

    #[test]
    fn bounds_ascend() {
        assert!(TIME_BOUNDS_MICROS.is_sorted_by(|a, b| a < b) && SIZE_BOUNDS_BYTES.is_sorted_by(|a, b| a < b));
    }
}
