//! What a run shows while it goes on: a line on stderr, if that is a terminal.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::{histogram, line};

/// How often the line changes.
const EVERY: Duration = Duration::from_secs(1);

/// Counts what was done since the line changed last.
pub(super) struct Meter {
    bar: ProgressBar,
    recent: Option<Mutex<Recent>>,
}

struct Recent {
    since: Instant,
    latency_us: Histogram<u64>,
    bytes: u64,
}

impl Meter {
    /// A meter over so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let bar = ProgressBar::new(bytes);
        let style = ProgressStyle::with_template("{bar:20} {binary_bytes} of {binary_total_bytes} {msg}");
        bar.set_style(style.expect("the template is well formed"));
        let recent = Recent { since: Instant::now(), latency_us: histogram(), bytes: 0 };
        let recent = (!bar.is_hidden()).then(|| Mutex::new(recent));
        Self { bar, recent }
    }

    /// Something was done, and took so long.
    pub(super) fn done(&self, bytes: u64, latency_us: u64) {
        let Some(recent) = &self.recent else { return };
        let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.latency_us.saturating_record(latency_us);
        recent.bytes += bytes;
        let elapsed = recent.since.elapsed();
        if elapsed >= EVERY {
            let rate = recent.bytes as f64 / 1e6 / elapsed.as_secs_f64();
            self.bar.set_message(format!("{rate:.1} MB/s, {}", line(&recent.latency_us)));
            self.bar.inc(recent.bytes);
            *recent = Recent { since: Instant::now(), latency_us: histogram(), bytes: 0 };
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
