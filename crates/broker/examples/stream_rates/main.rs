//! How fast the streams of the gRPC API are, beside what they are compared with, in the same run: Kafka's Produce and Fetch for batches
//! of 64 records of 1 KiB, and a bare tonic echo of the same messages for single records. The store is memory.
//!
//! Each measurement has a server process of its own: its processor time can be told, and what one leaves behind (memory, runs to
//! merge) does not weigh on the next.
//!
//! `cargo run --release -p lakebed-broker --example stream_rates [SECONDS]` measures everything once, and prints one line of JSON.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement prints, and may stop where it is surprised"
)]

mod consume;
mod kafka;
mod produce;
mod server;

use std::time::Duration;

use bytes::Bytes;
use lakebed_segment::batch::{Codec, Encoder, Fields, Record, TimestampType};
use lakebed_wire::v1;
use prost::Message;
use serde_json::{Value, json};
use tokio::time::Instant;

use server::Server;

const TOPIC: &str = "rate";
/// Records of a batch, and bytes of a record.
const RECORDS: usize = 64;
const RECORD_BYTES: usize = 1024;
/// Bytes of a record that goes alone.
const SINGLE_BYTES: usize = 100;
/// Messages that a producer has under way: single records, and batches. Of those two flushes, so that one gathers while the other is
/// on its way, by whatever protocol it came.
const SINGLES_IN_FLIGHT: usize = 64;
const BATCHES_IN_FLIGHT: usize = 256;

/// What was done within the time, and what it cost the server.
struct Measured {
    /// Messages, or records.
    count: u64,
    elapsed: Duration,
    cpu: Duration,
}

/// Measures what happens from its beginning to its end.
struct Meter<'a> {
    server: &'a Server,
    begun: Instant,
    cpu: Duration,
}

impl<'a> Meter<'a> {
    fn begin(server: &'a Server) -> Self {
        Self { server, begun: Instant::now(), cpu: server.cpu() }
    }

    fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    fn end(self, count: u64) -> Measured {
        Measured { count, elapsed: self.begun.elapsed(), cpu: self.server.cpu() - self.cpu }
    }
}

impl Measured {
    fn per_second(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }

    /// Of so many single messages or records.
    fn singles(&self) -> Value {
        json!({ "per_s": self.per_second(), "cpu_us": self.cpu.as_secs_f64() * 1e6 / self.count as f64 })
    }

    /// Of so many batches.
    fn batches(&self) -> Value {
        let bytes = self.count as f64 * (RECORDS * RECORD_BYTES) as f64;
        let gib = bytes / f64::from(1 << 30);
        json!({ "mb_s": bytes / 1e6 / self.elapsed.as_secs_f64(), "cpu_s_per_gib": self.cpu.as_secs_f64() / gib })
    }
}

/// Records without keys, as a message of `lakebed.v1.Records` and as a batch of Kafka's.
fn records(count: usize, bytes: usize) -> (Bytes, Bytes) {
    let value: Bytes = (0..bytes).map(|at| b"0123456789abcdefghijklmnop"[at * 7 % 26]).collect();
    let record = v1::Record { value: Some(value.clone()), ..v1::Record::default() };
    let fields =
        Fields { codec: Codec::None, timestamp_type: TimestampType::Create, producer: None, is_transactional: false };
    let mut encoder = Encoder::new(fields, count * (bytes + 16));
    for offset in 0..count {
        let record = Record { offset: offset as i64, timestamp_ms: 1_700_000_000_000, key: None, value: Some(&value) };
        encoder.push(record, []).unwrap();
    }
    (v1::Records { records: vec![record; count] }.encode_to_vec().into(), encoder.finish().unwrap())
}

#[tokio::main]
async fn main() {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("serve") {
        return server::serve().await;
    }
    let time = Duration::from_secs_f64(argument.map_or(2.0, |seconds| seconds.parse().unwrap()));
    let (single, _) = records(1, SINGLE_BYTES);
    let (many, batch) = records(RECORDS, RECORD_BYTES);
    let echo = {
        let server = Server::spawn();
        produce::stream(&server, server.echo, single.clone(), SINGLES_IN_FLIGHT, time).await
    };
    let singles = {
        let server = Server::spawn();
        produce::stream(&server, server.http, single.clone(), SINGLES_IN_FLIGHT, time).await
    };
    let kafka = kafka::produce(&Server::spawn(), batch.clone(), BATCHES_IN_FLIGHT, time).await;
    let streamed = {
        let server = Server::spawn();
        produce::stream(&server, server.http, many, BATCHES_IN_FLIGHT, time).await
    };
    let produced = json!({
        "echo": echo.singles(), "singles": singles.singles(), "kafka": kafka.batches(), "stream": streamed.batches(),
    });
    let consumed = consume::measure(&single, &batch, time).await;
    println!("{}", json!({ "produce": produced, "consume": consumed }));
}
