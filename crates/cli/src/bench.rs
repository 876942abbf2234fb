//! `lakebed bench`: writes pre-encoded batches, follows them with consumers, checks every byte that comes back.
//!
//! 1. Latency is from sending a request to its acknowledgement, with `--in-flight` requests outstanding: a closed loop, so it is
//!    the latency at the rate that is printed, not at any other.
//! 2. What is read back is compared with what was written, record by record; a difference ends the run with an error.
//! 3. `disk` measures what the directory itself can do, in the same way that the local store writes: the floor.

mod disk;
mod grpc;
mod kafka;
mod pool;

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::args::{BenchArgs, BenchTarget};
use crate::failure::Failure;
use crate::output::{Format, Output};

pub(crate) async fn run(args: BenchArgs, output: Output) -> Result<(), Failure> {
    let report = match args.what {
        BenchTarget::Kafka => kafka::run(&args).await?,
        BenchTarget::Grpc => grpc::run(&args).await?,
        BenchTarget::Disk => disk::run(&args)?,
    };
    // The flag is older than `-o`.
    let output = if args.json { Output { format: Format::Jsonl } } else { output };
    report.print(output)
}

/// What was measured.
pub(crate) struct Report {
    pub(crate) what: &'static str,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    pub(crate) latency_us: Histogram<u64>,
    /// Bytes that consumers read back and checked.
    pub(crate) verified_bytes: u64,
}

impl Report {
    fn print(&self, output: Output) -> Result<(), Failure> {
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        let (records_per_s, megabytes_per_s) = (self.records as f64 / seconds, self.bytes as f64 / 1e6 / seconds);
        let quantile = |q: f64| self.latency_us.value_at_quantile(q) as f64 / 1e3;
        let (p50, p90, p99, max) = (quantile(0.5), quantile(0.9), quantile(0.99), self.latency_us.max() as f64 / 1e3);
        let facts = serde_json::json!({
            "what": self.what, "records": self.records, "bytes": self.bytes, "seconds": seconds,
            "records_per_s": records_per_s, "megabytes_per_s": megabytes_per_s,
            "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "max_ms": max, "verified_bytes": self.verified_bytes,
        });
        output.one(&facts, || {
            format!(
                "what          {}\nrecords       {} ({} bytes) in {seconds:.2} s\nrate          {records_per_s:.0} records/s\n\
                 throughput    {megabytes_per_s:.1} MB/s\nlatency       p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, max {max:.2} ms\n\
                 verified      {} bytes read back and compared\n",
                self.what, self.records, self.bytes, self.verified_bytes
            )
        })
    }
}

/// An empty histogram of microseconds up to a minute, three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid")
}

/// Microseconds for the histogram.
pub(crate) fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).clamp(1, 60_000_000)
}
