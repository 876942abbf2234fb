//! What is counted: a small set, each with its unit in its name and bounded labels.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lakebed_store::{Counts, OperationCounts};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::rooms::Rooms;

/// Which kind of Kafka request, and its version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabels {
    api: &'static str,
    version: i64,
}

/// Why a connection was not taken or was closed by us.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

/// What was asked of the store, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    operation: &'static str,
    outcome: &'static str,
}

/// What was asked of the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

/// A counter whose value is kept elsewhere.
type Mirrored = Counter<u64, AtomicU64>;

/// All metrics of one broker.
pub struct Metrics {
    registry: Registry,
    requests: Family<ApiLabels, Counter>,
    connections: Gauge,
    connections_closed: Family<CauseLabels, Counter>,
    http_connections: Gauge,
    http_connections_accepted: Counter,
    http_connections_closed: Family<CauseLabels, Counter>,
    produce_bytes: Counter,
    produce_batches: Counter,
    produce_refused: Family<CauseLabels, Counter>,
    produce_seconds: Histogram,
    fetch_bytes: Counter,
    fetch_seconds: Histogram,
    commits: Mirrored,
    store_requests: Family<StoreLabels, Mirrored>,
    store_bytes: Family<OperationLabels, Mirrored>,
    buffer_bytes: Gauge,
    merges: Mirrored,
    flushes: Mirrored,
    flush_bytes: Mirrored,
    flush_seconds: Counter<f64, AtomicU64>,
    produce_throttled: Mirrored,
    live_runs: Gauge,
    live_objects: Gauge,
    topics: Gauge,
    partitions: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// From half a millisecond to half a minute, doubling.
fn latency() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.0005, 2.0, 17))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that have counted nothing.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("lakebed"),
            requests: Family::default(),
            connections: Gauge::default(),
            connections_closed: Family::default(),
            http_connections: Gauge::default(),
            http_connections_accepted: Counter::default(),
            http_connections_closed: Family::default(),
            produce_bytes: Counter::default(),
            produce_batches: Counter::default(),
            produce_refused: Family::default(),
            produce_seconds: latency(),
            fetch_bytes: Counter::default(),
            fetch_seconds: latency(),
            commits: Counter::default(),
            store_requests: Family::default(),
            store_bytes: Family::default(),
            buffer_bytes: Gauge::default(),
            merges: Counter::default(),
            flushes: Counter::default(),
            flush_bytes: Counter::default(),
            flush_seconds: Counter::default(),
            produce_throttled: Counter::default(),
            live_runs: Gauge::default(),
            live_objects: Gauge::default(),
            topics: Gauge::default(),
            partitions: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("kafka_requests", "Kafka requests by API and version", self.requests.clone());
        registry.register("kafka_connections", "Kafka connections now", self.connections.clone());
        let closed = self.connections_closed.clone();
        registry.register("kafka_connections_closed", "Kafka connections closed by the broker, by cause", closed);
        registry.register("http_connections", "Connections of the HTTP port now", self.http_connections.clone());
        let accepted = self.http_connections_accepted.clone();
        registry.register("http_connections_accepted", "Connections of the HTTP port that were accepted", accepted);
        let closed = self.http_connections_closed.clone();
        registry.register(
            "http_connections_closed",
            "Connections of the HTTP port closed by the broker, by cause",
            closed,
        );
        registry.register("produce_bytes", "Bytes of record batches acknowledged", self.produce_bytes.clone());
        registry.register("produce_batches", "Record batches acknowledged", self.produce_batches.clone());
        let refused = self.produce_refused.clone();
        registry.register("produce_batches_refused", "Record batches not acknowledged, by reason", refused);
        let seconds = self.produce_seconds.clone();
        registry.register("produce_seconds", "From a produce request's arrival to its answer", seconds);
        registry.register("fetch_bytes", "Bytes of record batches sent to consumers", self.fetch_bytes.clone());
        let seconds = self.fetch_seconds.clone();
        registry.register("fetch_seconds", "From a fetch request's arrival to its answer, waiting included", seconds);
        registry.register("commits", "Commits in the log that are durable, of all brokers", self.commits.clone());
        let requests = self.store_requests.clone();
        registry.register("store_requests", "Requests to the store, by operation and outcome", requests);
        let bytes = self.store_bytes.clone();
        registry.register("store_bytes", "Bytes of bodies sent to the store and received from it", bytes);
        let buffered = self.buffer_bytes.clone();
        registry.register("buffer_bytes", "Memory held by batches that are not durable yet", buffered);
        registry.register("flushes", "Flushes that were committed", self.flushes.clone());
        registry.register("flush_bytes", "Bytes of the flushes that were committed", self.flush_bytes.clone());
        let seconds = self.flush_seconds.clone();
        registry.register("flush_seconds", "Time that flushes took from sealing to durable, added up", seconds);
        registry.register("merges", "Merges of small objects that were committed", self.merges.clone());
        registry.register(
            "produce_throttled",
            "How often producers were made to wait because merging lagged behind",
            self.produce_throttled.clone(),
        );
        registry.register("live_runs", "Runs that the state names", self.live_runs.clone());
        registry.register("live_objects", "Objects whose rows the state names", self.live_objects.clone());
        registry.register("topics", "Topics", self.topics.clone());
        registry.register("partitions", "Partitions of all topics", self.partitions.clone());
    }

    /// Lets a room register its own metrics.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The text that Prometheus scrapes (OpenMetrics), with what the rooms count themselves as it is now.
    pub(crate) fn render(&self, rooms: &Rooms) -> Result<String, fmt::Error> {
        let state = rooms.log.state();
        self.commits.inner().store(state.number().get(), Ordering::Relaxed);
        self.merges.inner().store(rooms.merges.merges.load(Ordering::Relaxed), Ordering::Relaxed);
        self.produce_throttled.inner().store(rooms.ingest.throttled(), Ordering::Relaxed);
        let flushes = rooms.ingest.counts();
        self.flushes.inner().store(flushes.flushes.load(Ordering::Relaxed), Ordering::Relaxed);
        self.flush_bytes.inner().store(flushes.flush_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        let seconds = flushes.flush_micros.load(Ordering::Relaxed) as f64 / 1e6;
        self.flush_seconds.inner().store(seconds.to_bits(), Ordering::Relaxed);
        self.mirror_store(&rooms.store.counts());
        let gauge = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge(&self.live_runs, state.run_count());
        gauge(&self.live_objects, state.object_count());
        gauge(&self.topics, state.topics().count());
        gauge(&self.partitions, state.partition_count());
        gauge(&self.buffer_bytes, rooms.config.budget().ingest_bytes.saturating_sub(rooms.ingest.free_bytes()));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn mirror_store(&self, counts: &Counts) {
        let operation = |operation: &'static str, counts: &OperationCounts| {
            let outcomes = [
                ("succeeded", counts.succeeded),
                ("declined", counts.declined),
                ("throttled", counts.throttled),
                ("failed", counts.failed),
            ];
            for (outcome, count) in outcomes {
                let labels = StoreLabels { operation, outcome };
                self.store_requests.get_or_create(&labels).inner().store(count, Ordering::Relaxed);
            }
            let labels = OperationLabels { operation };
            self.store_bytes.get_or_create(&labels).inner().store(counts.bytes, Ordering::Relaxed);
        };
        operation("put", &counts.put);
        operation("get", &counts.get);
        operation("list", &counts.list);
        operation("delete", &counts.delete);
    }

    pub(crate) fn request(&self, api: &'static str, version: i16) {
        self.requests.get_or_create(&ApiLabels { api, version: i64::from(version) }).inc();
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.inc();
    }

    pub(crate) fn connection_ended(&self) {
        self.connections.dec();
    }

    pub(crate) fn connection_closed_by_us(&self, cause: &'static str) {
        self.connections_closed.get_or_create(&CauseLabels { cause }).inc();
    }

    pub(crate) fn http_connection_opened(&self) {
        self.http_connections.inc();
        self.http_connections_accepted.inc();
    }

    pub(crate) fn http_connection_ended(&self) {
        self.http_connections.dec();
    }

    pub(crate) fn http_connection_closed_by_us(&self, cause: &'static str) {
        self.http_connections_closed.get_or_create(&CauseLabels { cause }).inc();
    }

    pub(crate) fn produced(&self, bytes: usize) {
        self.produce_batches.inc();
        self.produce_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn produce_refused(&self, reason: &'static str) {
        self.produce_refused.get_or_create(&CauseLabels { cause: reason }).inc();
    }

    pub(crate) fn produce_answered(&self, elapsed: Duration) {
        self.produce_seconds.observe(elapsed.as_secs_f64());
    }

    pub(crate) fn fetched(&self, bytes: usize, elapsed: Duration) {
        self.fetch_bytes.inc_by(bytes as u64);
        self.fetch_seconds.observe(elapsed.as_secs_f64());
    }

    pub(crate) fn consumed(&self, bytes: usize) {
        self.fetch_bytes.inc_by(bytes as u64);
    }
}
