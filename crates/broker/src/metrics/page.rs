//! The page: everything that is counted, in the order of the table, as OpenMetrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use lakebed_fetch::CacheUse;
use lakebed_store::{OperationCounts, Priority};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::grpc::CODES;
use super::samples::{Samples, Value};
use super::table::{Kind, METRICS};
use super::{CLOSE_CAUSES, Metrics, Traffic};
use crate::reason;
use crate::rooms::Rooms;

/// Operations of the store in the order of [`lakebed_store::price::Prices::dollars`].
const OPERATIONS: [&str; 4] = ["put", "get", "list", "delete"];

/// Writes the page of a broker.
pub(super) fn render(rooms: &Arc<Rooms>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("lakebed");
    registry.register_collector(Box::new(Page { rooms: Arc::clone(rooms) }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Page {
    rooms: Arc<Rooms>,
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let samples = gather(&self.rooms);
        for described in METRICS {
            let Some(values) = samples.by_metric.get(described.name) else { continue };
            let kind = match described.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let unit = described.unit.map(|unit| Unit::Other(unit.to_owned()));
            let mut family = encoder.encode_descriptor(described.name, described.means, unit.as_ref(), kind)?;
            for (labels, value) in values {
                if labels.is_empty() {
                    write(&mut family, value)?;
                } else {
                    write(&mut family.encode_family(labels)?, value)?;
                }
            }
        }
        Ok(())
    }
}

fn write(encoder: &mut MetricEncoder<'_>, value: &Value) -> Result<(), fmt::Error> {
    match value {
        Value::Count(count) => encoder.encode_counter::<NoLabelSet, u64, u64>(count, None),
        Value::Sum(sum) => encoder.encode_counter::<NoLabelSet, f64, f64>(sum, None),
        Value::Level(level) => encoder.encode_gauge(level),
        Value::Histogram(counted) => {
            // Bounds are whole microseconds or bytes; which, the bounds themselves tell.
            let scale = if is_of_times(counted) { 1e6 } else { 1.0 };
            let cells = counted.cells.iter().map(|(bound, count)| (*bound as f64 / scale, *count));
            let cells: Vec<(f64, u64)> = cells.chain([(f64::MAX, counted.above)]).collect();
            encoder.encode_histogram::<NoLabelSet>(counted.sum as f64 / scale, counted.count(), &cells, None)
        }
    }
}

fn is_of_times(counted: &lakebed_store::histogram::Counted) -> bool {
    let bounds = counted.cells.iter().map(|(bound, _)| bound);
    bounds.eq(lakebed_store::histogram::TIME_BOUNDS_MICROS)
}

fn gather(rooms: &Rooms) -> Samples {
    let mut samples = Samples::default();
    broker(&mut samples, rooms);
    connections(&mut samples, &rooms.metrics);
    kafka(&mut samples, &rooms.metrics);
    grpc(&mut samples, &rooms.metrics);
    ingest(&mut samples, rooms);
    log(&mut samples, rooms);
    store(&mut samples, rooms);
    caches(&mut samples, rooms);
    merging(&mut samples, rooms);
    retention(&mut samples, rooms);
    groups(&mut samples, rooms);
    loops(&mut samples, rooms);
    samples
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn broker(samples: &mut Samples, rooms: &Rooms) {
    samples.level("application_build", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    samples.sum("application_uptime", &[], rooms.metrics.started.elapsed().as_secs_f64());
    let not_ready = rooms.readiness.reasons(rooms);
    samples.level("ready", &[], f64::from(u8::from(not_ready.is_empty())));
    for reason in crate::readiness::REASONS {
        let applies = not_ready.iter().any(|one| one.reason == *reason);
        samples.level("not_ready", &[("reason", reason)], f64::from(u8::from(applies)));
    }
    let state = rooms.log.state();
    samples.level("cluster_topics", &[], state.topics().count() as f64);
    samples.level("cluster_partitions", &[], state.partition_count() as f64);
}

fn connections(samples: &mut Samples, metrics: &Metrics) {
    let ports = [
        ("kafka_connections", "kafka_connections_accepted", "kafka_connections_closed", &metrics.kafka_connections),
        ("http_connections", "http_connections_accepted", "http_connections_closed", &metrics.http_connections),
    ];
    for (now, accepted, closed, counts) in ports {
        let (opened, ended) = (load(&counts.opened), load(&counts.ended));
        samples.level(now, &[], opened.saturating_sub(ended) as f64);
        samples.count(accepted, &[], opened);
        for (cause, count) in CLOSE_CAUSES.iter().zip(&counts.closed) {
            samples.count(closed, &[("cause", cause)], load(count));
        }
    }
}

fn kafka(samples: &mut Samples, metrics: &Metrics) {
    for counts in &metrics.apis {
        for (version, count) in (counts.api.min..).zip(&counts.versions) {
            // One of each is there from the start; other versions when a client comes with them.
            if load(count) > 0 || version == counts.api.max {
                let labels = [("request", counts.api.name), ("version", &*version.to_string())];
                samples.count("kafka_requests", &labels, load(count));
            }
        }
        samples.histogram("kafka_request_latency", &[("request", counts.api.name)], counts.latency.counted());
    }
    let (produced, fetched) = (&metrics.kafka_produced, &metrics.kafka_fetched);
    samples.count("kafka_records_produced", &[], load(&produced.records));
    samples.count("kafka_records_fetched", &[], load(&fetched.records));
    directions(samples, "kafka_batches", produced, fetched, |traffic| &traffic.batches);
    directions(samples, "kafka_request", produced, fetched, |traffic| &traffic.bytes);
}

fn directions(
    samples: &mut Samples,
    metric: &'static str,
    produced: &Traffic,
    fetched: &Traffic,
    of: impl Fn(&Traffic) -> &AtomicU64,
) {
    samples.count(metric, &[("direction", "produce")], load(of(produced)));
    samples.count(metric, &[("direction", "fetch")], load(of(fetched)));
}

fn grpc(samples: &mut Samples, metrics: &Metrics) {
    for method in &metrics.grpc.methods {
        for (code, count) in CODES.iter().zip(&method.ended) {
            if load(count) > 0 || *code == "OK" {
                samples.count("grpc_requests", &[("method", &method.name), ("code", code)], load(count));
            }
        }
        if method.streams {
            samples.level("grpc_streams", &[("method", &method.name)], method.open() as f64);
        } else {
            samples.histogram("grpc_request_latency", &[("method", &method.name)], method.latency.counted());
        }
    }
    samples.histogram("grpc_produce_latency", &[], metrics.grpc_produce_latency.counted());
    let (produced, fetched) = (&metrics.grpc_produced, &metrics.grpc_fetched);
    samples.count("grpc_records_produced", &[], load(&produced.records));
    samples.count("grpc_records_fetched", &[], load(&fetched.records));
    directions(samples, "grpc_record", produced, fetched, |traffic| &traffic.bytes);
}

fn ingest(samples: &mut Samples, rooms: &Rooms) {
    let mut named: Vec<(&str, u64)> = Vec::new();
    for (row, count) in reason::TABLE.iter().zip(&rooms.metrics.refused) {
        // Some reasons share a name.
        match named.iter_mut().find(|(name, _)| *name == row.name) {
            Some((_, sum)) => *sum += load(count),
            None => named.push((row.name, load(count))),
        }
    }
    for (name, count) in named {
        samples.count("produce_batches_refused", &[("reason", name)], count);
    }
    let counts = rooms.ingest.counts();
    samples.count("produce_records_appended", &[], load(&counts.records));
    samples.histogram("flush_size", &[], counts.flush_bytes.counted());
    samples.histogram("flush_age", &[], counts.flush_age_micros.counted());
    samples.histogram("flush_duration", &[], counts.flush_micros.counted());
    let buffer_bytes = rooms.ingest.buffer_bytes();
    samples.level("produce_buffer", &[], buffer_bytes.saturating_sub(rooms.ingest.free_bytes()) as f64);
    samples.level("produce_buffer_limit", &[], buffer_bytes as f64);
    samples.count("produce_throttled", &[], rooms.ingest.throttled());
    samples.level("produce_throttled_now", &[], rooms.ingest.held_now() as f64);
}

fn log(samples: &mut Samples, rooms: &Rooms) {
    let (state, counts) = (rooms.log.state(), rooms.log.counts());
    samples.level("log_commit_number", &[], state.number().get() as f64);
    samples.level("log_epoch", &[], state.place().directory.epoch.get() as f64);
    samples.level("log_checkpoint_number", &[], load(&counts.checkpoint_number) as f64);
    let boundary_ms = u64::try_from(state.reclaim_boundary().ulid().0 >> 80).unwrap_or(0);
    samples.level("log_reclaim_boundary_timestamp", &[], boundary_ms as f64 / 1e3);
    samples.histogram("log_commit_latency", &[], counts.commit_micros.counted());
    samples.level("log_commits_in_flight", &[], counts.in_flight() as f64);
    let oldest = counts.oldest_in_flight().unwrap_or_default();
    samples.level("log_oldest_commit_in_flight", &[], oldest.as_secs_f64());
    samples.level("log_live_runs", &[], state.run_count() as f64);
    samples.level("log_live_runs_limit", &[], rooms.config.budget().live_runs_max as f64);
    samples.level("log_live_objects", &[], state.object_count() as f64);
    samples.count("log_checkpoints", &[], load(&counts.checkpoints));
    samples.count("log_objects_reclaimed", &[], load(&counts.reclaimed));
    samples.count("log_keeping_failures", &[], load(&counts.keeping_failures));
}

fn store(samples: &mut Samples, rooms: &Rooms) {
    let (counts, latencies) = (rooms.store.counts(), rooms.store.latencies());
    let by_operation = [counts.put, counts.get, counts.list, counts.delete];
    let latencies = [latencies.put, latencies.get, latencies.list, latencies.delete];
    let dollars = rooms.store.prices().dollars(&counts);
    let all = OPERATIONS.into_iter().zip(by_operation).zip(latencies).zip(dollars);
    for (((op, counts), latency), dollars) in all {
        let OperationCounts { succeeded, declined, throttled, timed_out, refused, failed, cancelled, .. } = counts;
        let OperationCounts { bytes, hedges, hedges_won, .. } = counts;
        let outcomes = [
            ("succeeded", succeeded),
            ("declined", declined),
            ("throttled", throttled),
            ("timeout", timed_out),
            ("refused", refused),
            ("failed", failed),
            ("cancelled", cancelled),
        ];
        for (outcome, count) in outcomes {
            samples.count("store_requests", &[("op", op), ("outcome", outcome)], count);
        }
        samples.histogram("store_request_latency", &[("op", op)], latency);
        if matches!(op, "put" | "get") {
            samples.count("store_body", &[("op", op)], bytes);
            samples.count("store_hedges", &[("op", op), ("outcome", "won")], hedges_won);
            samples.count("store_hedges", &[("op", op), ("outcome", "lost")], hedges.saturating_sub(hedges_won));
        }
        samples.sum("store_cost", &[("op", op)], dollars);
    }
    let paced = rooms.store.paced();
    samples.level("store_requests_limit", &[], paced.map_or(0.0, |paced| f64::from(paced.limit)));
    samples.level("store_requests_in_flight", &[], paced.map_or(0.0, |paced| f64::from(paced.under_way)));
    for (index, priority) in Priority::NAMES.into_iter().enumerate() {
        let waiting = paced.map_or(0, |paced| paced.waiting[index]);
        samples.level("store_requests_waiting", &[("priority", priority)], waiting as f64);
    }
    samples.level("store_in_trouble", &[], f64::from(u8::from(rooms.store.trouble().is_some())));
}

fn caches(samples: &mut Samples, rooms: &Rooms) {
    let caches = rooms.fetch.caches();
    let all =
        [("tail", caches.tail), ("footers", caches.footers), ("ranges", caches.ranges), ("batches", caches.batches)];
    for (cache, CacheUse { hits, misses, bytes, bytes_max }) in all {
        samples.count("cache_hits", &[("cache", cache)], hits);
        samples.count("cache_misses", &[("cache", cache)], misses);
        samples.level("cache_size", &[("cache", cache)], bytes as f64);
        samples.level("cache_limit", &[("cache", cache)], bytes_max as f64);
    }
    samples.level("fetch_partitions_waiting", &[], rooms.fetch.waiting() as f64);
}

fn merging(samples: &mut Samples, rooms: &Rooms) {
    let counts = &rooms.merges;
    samples.count("merge_merges", &[], load(&counts.merges));
    samples.count("merge_failures", &[], load(&counts.failures));
    samples.count("merge_objects", &[], load(&counts.objects));
    samples.count("merge_runs", &[], load(&counts.runs));
    samples.count("merge_written", &[], load(&counts.bytes));
    samples.level("merge_objects_set_aside", &[], load(&counts.set_aside) as f64);
    let counts = rooms.compactor.counts();
    samples.count("compaction_compactions", &[], load(&counts.compactions));
    samples.count("compaction_failures", &[], load(&counts.failures));
    samples.count("compaction_files", &[], load(&counts.files));
    samples.count("compaction_read", &[], load(&counts.bytes_in));
    samples.count("compaction_written", &[], load(&counts.bytes_out));
    samples.count("compaction_misfits", &[], load(&counts.misfits));
    samples.level("compaction_backlog", &[], load(&counts.backlog_bytes) as f64);
    samples.level("compaction_backlog_age", &[], load(&counts.backlog_age_ms) as f64 / 1e3);
    samples.level("compaction_objects_set_aside", &[], load(&counts.set_aside) as f64);
    let counts = &rooms.cleaning;
    samples.count("key_compactions", &[], load(&counts.compactions));
    samples.count("key_compaction_failures", &[], load(&counts.failures));
    samples.count("key_compaction_rows_in", &[], load(&counts.rows_in));
    samples.count("key_compaction_rows_out", &[], load(&counts.rows_out));
    samples.count("key_compaction_read", &[], load(&counts.bytes_in));
    samples.count("key_compaction_written", &[], load(&counts.bytes_out));
}

fn retention(samples: &mut Samples, rooms: &Rooms) {
    let counts = rooms.retainer.counts();
    for (cause, removed) in [("age", &counts.by_age), ("size", &counts.by_size)] {
        samples.count("retention_records_removed", &[("cause", cause)], load(&removed.records));
        samples.count("retention_removed", &[("cause", cause)], load(&removed.bytes));
        samples.count("retention_files_removed", &[("cause", cause)], load(&removed.files));
    }
    samples.count("retention_failures", &[], load(&counts.failures));
    let is_paused = counts.paused_since_ms.load(Ordering::Relaxed) != 0;
    samples.level("retention_paused", &[], f64::from(u8::from(is_paused)));
    samples.level("clock_skew", &[], counts.skew_ms.load(Ordering::Relaxed) as f64 / 1e3);
}

fn groups(samples: &mut Samples, rooms: &Rooms) {
    let (state, counts) = (rooms.log.state(), rooms.groups.counts());
    let (loaded, members, bytes) = rooms.groups.size();
    samples.level("kafka_consumer_groups", &[], state.group_count().max(loaded) as f64);
    samples.level("kafka_consumer_group_consumers", &[], members as f64);
    samples.level("kafka_consumer_group_memory", &[], bytes as f64);
    samples.level("kafka_consumer_group_memory_limit", &[], rooms.groups.bytes_max() as f64);
    samples.level("kafka_consumer_group_state", &[], state.groups_bytes() as f64);
    samples.count("kafka_consumer_group_rebalances", &[], load(&counts.generations));
    samples.count("kafka_consumer_group_offset_commits", &[], load(&counts.commits));
    samples.count("kafka_consumer_group_offsets_committed", &[], load(&counts.offsets));
    samples.count("kafka_consumer_group_log_writes", &[], load(&counts.writes));
    samples.count("kafka_consumer_group_expiries", &[], load(&counts.expired));
}

fn loops(samples: &mut Samples, rooms: &Rooms) {
    let (log, metrics) = (rooms.log.counts(), &rooms.metrics);
    let (compactions, retention) = (rooms.compactor.counts(), rooms.retainer.counts());
    let all: [(&str, &AtomicI64); 8] = [
        ("merge", &rooms.merges.success_at_ms),
        ("compaction", &compactions.success_at_ms),
        ("retention", &retention.success_at_ms),
        ("checkpoint", &log.checkpoint_at_ms),
        ("reclaim", &log.reclaim_at_ms),
        ("probe", &metrics.probe_at_ms),
        ("publish", &metrics.publish_at_ms),
        ("offsets_expiry", &rooms.groups.counts().expiry_at_ms),
    ];
    for (name, at_ms) in all {
        let seconds = at_ms.load(Ordering::Relaxed) as f64 / 1e3;
        samples.level("loop_last_success_timestamp", &[("loop", name)], seconds);
    }
}
