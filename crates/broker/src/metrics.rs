//! What is counted at the edge, and the page that shows it with what the rooms count themselves.
//!
//! 1. Counting takes no lock and allocates nothing: every label value is known beforehand and has its cell.
//! 2. The page is made when it is asked for; what a room counts is read from the room then.
//! 3. Every metric stands in one table (`table`), from which `docs/metrics.md` is made.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use lakebed_store::Histogram;
use lakebed_wire::kafka::{API_TABLE, Api};
use tokio::time::Instant;

use crate::reason;
use crate::rooms::Rooms;

mod grpc;
mod page;
mod samples;
mod table;

pub(crate) use grpc::{Call, GrpcCounts};
pub use table::{Described, Kind, METRICS, markdown};

/// Why we close a connection. The list bounds the label.
const CLOSE_CAUSES: [&str; 11] = [
    "too_many_connections",
    "too_many_connections_of_address",
    "lost",
    "idle",
    "cut_off",
    "frame_length",
    "malformed",
    "refused",
    "not_drained",
    "silent",
    "age",
];

/// Records that went one way through one protocol.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    batches: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
}

/// Connections of one port.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    opened: AtomicU64,
    ended: AtomicU64,
    closed: [AtomicU64; CLOSE_CAUSES.len()],
}

/// One kind of Kafka request.
#[derive(Debug)]
struct ApiCounts {
    api: &'static Api,
    /// One for each version that is shown, from the lowest on.
    versions: Box<[AtomicU64]>,
    latency: Histogram,
}

/// All that the edge counts.
pub struct Metrics {
    started: Instant,
    apis: Vec<ApiCounts>,
    kafka_connections: Connections,
    http_connections: Connections,
    refused: Vec<AtomicU64>,
    kafka_produced: Traffic,
    kafka_fetched: Traffic,
    grpc_produced: Traffic,
    grpc_fetched: Traffic,
    grpc: Arc<GrpcCounts>,
    grpc_produce_latency: Histogram,
    publish_at_ms: AtomicI64,
    probe_at_ms: AtomicI64,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Traffic {
    fn add(&self, batches: u64, records: u64, bytes: usize) {
        self.batches.fetch_add(batches, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Connections {
    fn open(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn close(&self, cause: &'static str) {
        let index = CLOSE_CAUSES.iter().position(|known| *known == cause).expect("a cause of the list");
        self.closed[index].fetch_add(1, Ordering::Relaxed);
    }
}

impl ApiCounts {
    fn new(api: &'static Api) -> Self {
        let versions = (api.min..=api.max).map(|_| AtomicU64::new(0)).collect();
        Self { api, versions, latency: Histogram::of_times() }
    }
}

impl Metrics {
    /// Metrics that have counted nothing; the broker's uptime counts from here.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            apis: API_TABLE.iter().map(ApiCounts::new).collect(),
            kafka_connections: Connections::default(),
            http_connections: Connections::default(),
            refused: reason::TABLE.iter().map(|_| AtomicU64::new(0)).collect(),
            kafka_produced: Traffic::default(),
            kafka_fetched: Traffic::default(),
            grpc_produced: Traffic::default(),
            grpc_fetched: Traffic::default(),
            grpc: Arc::new(GrpcCounts::new()),
            grpc_produce_latency: Histogram::of_times(),
            publish_at_ms: AtomicI64::new(0),
            probe_at_ms: AtomicI64::new(0),
        }
    }

    /// The text that Prometheus scrapes (OpenMetrics), with what the rooms count themselves as it is now.
    ///
    /// # Errors
    /// Those of writing into a string: none.
    pub fn render(rooms: &Arc<Rooms>) -> Result<String, fmt::Error> {
        page::render(rooms)
    }

    /// What the calls of gRPC are counted by.
    pub(crate) fn grpc(&self) -> &Arc<GrpcCounts> {
        &self.grpc
    }

    /// A Kafka request has arrived. Gives what [`Metrics::answered`] wants to know of it.
    pub(crate) fn request(&self, api: &'static Api, version: i16) -> usize {
        let index = API_TABLE.iter().position(|row| row.key == api.key).expect("an API of the table");
        let counts = &self.apis[index];
        let version = usize::try_from(version - api.min).unwrap_or(0).min(counts.versions.len() - 1);
        counts.versions[version].fetch_add(1, Ordering::Relaxed);
        index
    }

    /// A Kafka request was answered, so long after its last byte had arrived.
    pub(crate) fn answered(&self, request: usize, elapsed: Duration) {
        self.apis[request].latency.observe_time(elapsed);
    }

    pub(crate) fn connection_opened(&self) {
        self.kafka_connections.open();
    }

    pub(crate) fn connection_ended(&self) {
        self.kafka_connections.end();
    }

    pub(crate) fn connection_closed_by_us(&self, cause: &'static str) {
        self.kafka_connections.close(cause);
    }

    pub(crate) fn http_connection_opened(&self) {
        self.http_connections.open();
    }

    pub(crate) fn http_connection_ended(&self) {
        self.http_connections.end();
    }

    pub(crate) fn http_connection_closed_by_us(&self, cause: &'static str) {
        self.http_connections.close(cause);
    }

    /// A batch of a Kafka producer was acknowledged.
    pub(crate) fn produced(&self, records: u64, bytes: usize) {
        self.kafka_produced.add(1, records, bytes);
    }

    /// A batch of a gRPC producer was acknowledged.
    pub(crate) fn grpc_produced(&self, records: u64, bytes: usize) {
        self.grpc_produced.add(1, records, bytes);
    }

    /// A batch of a producer, of either protocol, was not acknowledged.
    pub(crate) fn produce_refused(&self, reason: &'static str) {
        let index = reason::TABLE.iter().position(|row| row.name == reason).expect("a reason of the table");
        self.refused[index].fetch_add(1, Ordering::Relaxed);
    }

    /// A batch of a gRPC producer was answered, so long after it had arrived.
    pub(crate) fn produce_answered(&self, elapsed: Duration) {
        self.grpc_produce_latency.observe_time(elapsed);
    }

    /// Batches were sent to a Kafka consumer.
    pub(crate) fn fetched(&self, batches: u64, records: u64, bytes: usize) {
        self.kafka_fetched.add(batches, records, bytes);
    }

    /// Records were sent to a gRPC consumer.
    pub(crate) fn grpc_fetched(&self, records: u64, bytes: u64) {
        self.grpc_fetched.add(1, records, usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// What was committed was handed to the readers.
    pub(crate) fn published(&self, now_ms: i64) {
        self.publish_at_ms.store(now_ms, Ordering::Relaxed);
    }

    /// It was seen that nobody else has taken over.
    pub(crate) fn probed(&self, now_ms: i64) {
        self.probe_at_ms.store(now_ms, Ordering::Relaxed);
    }
}
