//! `lakebed bench`: writes pre-encoded batches, reads them with consumers, checks every byte that comes back.
//!
//! 1. Without `--rate`, latency is from sending a request to its acknowledgement, with `--in-flight` requests outstanding: a closed loop, so it
//!    is the latency at the rate that is printed, not at any other. With `--rate`, batches are due at even intervals, and latency counts from
//!    then: a broker that stalls is charged for every batch that had to wait (Tene: coordinated omission).
//! 2. What is read back is compared with what was written, record by record, and so is a hash over all of it; a difference ends the run with an
//!    error.
//! 3. `disk` measures what the directory itself can do, in the same way that the local store writes: the floor.

mod disk;
mod grpc;
mod hash;
mod kafka;
mod load;
mod meter;
mod pool;
mod stream;

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::args::{BenchArgs, BenchTarget, Phase};
use crate::failure::Failure;
use crate::output::{Format, Output};

pub(crate) async fn run(args: BenchArgs, output: Output) -> Result<(), Failure> {
    let report = match args.what {
        BenchTarget::Disk => disk::run(&args)?,
        BenchTarget::Kafka | BenchTarget::Grpc | BenchTarget::GrpcUnary => load::run(&args).await?,
    };
    // The flag is older than `-o`.
    let output = if args.json { Output { format: Format::Jsonl } } else { output };
    report.print(output)
}

/// What was measured.
pub(crate) struct Report {
    pub(crate) what: BenchTarget,
    pub(crate) phase: Phase,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    /// Of acknowledgements; of what a consumer waited for, if reading is measured.
    pub(crate) latency_us: Histogram<u64>,
    /// From when a batch was sent, or due, until a consumer had it.
    pub(crate) end_to_end_us: Option<Histogram<u64>>,
    /// Bytes that consumers read back and checked.
    pub(crate) verified_bytes: u64,
    /// Over all that was written, and read back.
    pub(crate) hash: Option<u64>,
    pub(crate) rate: Option<u64>,
}

impl Report {
    fn print(&self, output: Output) -> Result<(), Failure> {
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        let (records_per_s, megabytes_per_s) = (self.records as f64 / seconds, self.bytes as f64 / 1e6 / seconds);
        let what = match self.what {
            BenchTarget::Kafka => "kafka",
            BenchTarget::Grpc => "grpc",
            BenchTarget::GrpcUnary => "grpc-unary",
            BenchTarget::Disk => "disk",
        };
        let phase = match self.phase {
            Phase::EndToEnd => "end-to-end",
            Phase::Produce => "produce",
            Phase::Consume => "consume",
        };
        let hash = self.hash.map(|hash| format!("{hash:016x}"));
        let mut facts = json!({
            "what": what, "phase": phase, "records": self.records, "bytes": self.bytes, "seconds": seconds,
            "records_per_s": records_per_s, "megabytes_per_s": megabytes_per_s, "target_records_per_s": self.rate,
            "verified_bytes": self.verified_bytes, "hash": hash, "end_to_end": self.end_to_end_us.as_ref().map(quantiles),
        });
        if let (Value::Object(facts), Value::Object(latency)) = (&mut facts, quantiles(&self.latency_us)) {
            facts.extend(latency);
        }
        output.one(&facts, || {
            let target = self.rate.map_or(String::new(), |rate| format!(" of {rate} asked for"));
            let mut text = format!(
                "what          {what}, {phase}\nrecords       {} ({} bytes) in {seconds:.2} s\n\
                 rate          {records_per_s:.0} records/s{target}\nthroughput    {megabytes_per_s:.1} MB/s\n\
                 latency       {}\n",
                self.records,
                self.bytes,
                line(&self.latency_us)
            );
            if let Some(end_to_end) = &self.end_to_end_us {
                text += &format!("end to end    {}\n", line(end_to_end));
            }
            if let Some(hash) = hash {
                text += &format!("hash          {hash}, of what was written and of what was read\n");
            }
            text + &format!("verified      {} bytes read back and compared\n", self.verified_bytes)
        })
    }
}

fn milliseconds(histogram: &Histogram<u64>) -> [f64; 4] {
    let quantile = |q: f64| histogram.value_at_quantile(q) as f64 / 1e3;
    [quantile(0.5), quantile(0.9), quantile(0.99), histogram.max() as f64 / 1e3]
}

fn quantiles(histogram: &Histogram<u64>) -> Value {
    let [p50, p90, p99, max] = milliseconds(histogram);
    json!({ "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "max_ms": max })
}

/// Quantiles for people.
fn line(histogram: &Histogram<u64>) -> String {
    let [p50, p90, p99, max] = milliseconds(histogram);
    format!("p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, max {max:.2} ms")
}

/// An empty histogram of microseconds up to a minute, three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid")
}

/// Microseconds for the histogram.
pub(crate) fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).clamp(1, 60_000_000)
}
