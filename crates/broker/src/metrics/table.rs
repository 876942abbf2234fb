//! Every metric: its name, what it means, and what to do about it. `docs/metrics.md` is made from this; a test holds it.

use std::fmt::Write;

/// What kind of number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 when the broker starts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How many numbers fell between which bounds, and their sum.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// Its name without prefix, unit and `_total`.
    pub name: &'static str,
    /// What kind of number.
    pub kind: Kind,
    /// The last word of its name, if it measures something.
    pub unit: Option<&'static str>,
    /// Its labels; each has few values, known beforehand.
    pub labels: &'static [&'static str],
    /// What it means, in a sentence.
    pub means: &'static str,
    /// When to look at it, and what to do.
    pub advice: &'static str,
}

impl Described {
    /// Its whole name, as one asks for it.
    pub fn full_name(&self) -> String {
        let unit = self.unit.map(|unit| format!("_{unit}")).unwrap_or_default();
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("lakebed_{}{unit}{total}", self.name)
    }
}

type Text = &'static str;
type Labels = &'static [&'static str];

const fn counter(name: Text, unit: Option<Text>, labels: Labels, means: Text, advice: Text) -> Described {
    Described { name, kind: Kind::Counter, unit, labels, means, advice }
}

const fn gauge(name: Text, unit: Option<Text>, labels: Labels, means: Text, advice: Text) -> Described {
    Described { name, kind: Kind::Gauge, unit, labels, means, advice }
}

const fn times(name: Text, labels: Labels, means: Text, advice: Text) -> Described {
    Described { name, kind: Kind::Histogram, unit: Some("seconds"), labels, means, advice }
}

const fn sizes(name: Text, labels: Labels, means: Text, advice: Text) -> Described {
    Described { name, kind: Kind::Histogram, unit: Some("bytes"), labels, means, advice }
}

const BYTES: Option<Text> = Some("bytes");
const SECONDS: Option<Text> = Some("seconds");

/// All metrics, in the order of the page.
#[rustfmt::skip]
pub const METRICS: &[Described] = &[
    gauge("application_build", None, &["version"], "Always 1; the label says what runs", "Compare between brokers after an upgrade."),
    counter("application_uptime", SECONDS, &[], "Time since the broker started", "One that falls back to 0 often is a broker that is restarted: read its last log lines."),
    gauge("ready", None, &[], "Whether the broker is ready (1), as /readyz says", "At 0 for a minute: ask /readyz why."),
    gauge("not_ready", None, &["reason"], "Whether a reason not to be ready applies (1)", "STORE_UNAVAILABLE: look at the store. COMMIT_STUCK: is the disk full, may the broker write? OVERLOADED: see merge_*. SEQUENCER_UNREACHABLE: can this broker connect to advertise_http of the sequencer? The others pass, or come with a stop."),
    gauge("cluster_topics", None, &[], "Topics", "Each takes some memory."),
    gauge("cluster_partitions", None, &[], "Partitions of all topics", "Each takes some memory, and a run at least."),
    gauge("http_connections", None, &[], "Connections of the HTTP port now, for gRPC and for pages", "Near connections.max new ones are closed at once."),
    counter("http_connections_accepted", None, &[], "Connections of the HTTP port that were accepted", "A high rate tells of clients that reconnect."),
    counter("http_connections_closed", None, &["cause"], "Connections of the HTTP port that the broker closed, by cause", "As kafka_connections_closed; age is what should happen."),
    counter("kafka_requests", None, &["request", "version"], "Kafka requests that arrived, by kind and version", "Which clients there are; a jump in Metadata or ApiVersions tells of clients that reconnect."),
    times("kafka_request_latency", &["request"], "From the last byte of a Kafka request to its answer, waiting included", "Produce: compare with flush_duration and the flush interval. Fetch waits for records as long as its client asks."),
    gauge("kafka_connections", None, &[], "Kafka connections now", "Near connections.max new ones are closed at once."),
    counter("kafka_connections_accepted", None, &[], "Kafka connections that were accepted", "A high rate tells of clients that reconnect."),
    counter("kafka_connections_closed", None, &["cause"], "Kafka connections that did not end as they should, by cause", "too_many_*: raise the limits or find the client. malformed, frame_length: something that is no Kafka client, or one over its limit; the log names the address."),
    counter("kafka_records_produced", None, &[], "Records of Kafka producers that were acknowledged", "Its rate is the traffic."),
    counter("kafka_records_fetched", None, &[], "Records sent to Kafka consumers", "Its rate is the traffic."),
    counter("kafka_batches", None, &["direction"], "Record batches of Kafka clients that were acknowledged (produce) or sent (fetch)", "Records divided by batches is the size of batches: below ten, producers should linger."),
    counter("kafka_request", BYTES, &["direction"], "Bytes of those batches, as they travel", "Its rate is the bandwidth."),
    counter("grpc_requests", None, &["method", "code"], "gRPC calls that ended, by method and code; paths that are not served are `other`", "UNAVAILABLE: see not_ready. INVALID_ARGUMENT: a client is wrong."),
    times("grpc_request_latency", &["method"], "From a unary gRPC call to the end of its answer", "As kafka_request_latency."),
    gauge("grpc_streams", None, &["method"], "Calls of streaming methods that are under way", "How many stream clients there are."),
    times("grpc_produce_latency", &[], "From the arrival of a gRPC producer's batch, in a stream or a call, to its answer", "As kafka_request_latency of Produce."),
    counter("grpc_records_produced", None, &[], "Records of gRPC producers that were acknowledged", "Its rate is the traffic."),
    counter("grpc_records_fetched", None, &[], "Records sent to gRPC consumers", "Its rate is the traffic."),
    counter("grpc_record", BYTES, &["direction"], "Bytes of batches that gRPC producers had acknowledged (produce), and of records sent to consumers (fetch)", "Its rate is the bandwidth."),
    counter("produce_batches_refused", None, &["reason"], "Batches that were not acknowledged, by reason", "STORE_UNAVAILABLE, OVERLOADED, OUTCOME_UNKNOWN: the broker or its store. The others: a producer."),
    counter("produce_records_appended", None, &[], "Records that this broker appended to the log, of all protocols, without duplicates", "Its rate is what is stored."),
    sizes("flush_size", &[], "Bytes of flushes that were committed", "Small ones cost more requests a byte: raise the flush interval, or let producers linger."),
    times("flush_age", &[], "For how long the oldest batch of a flush had waited when its sealing began", "Above the flush interval: earlier flushes are still in flight, so the store or the log is slow."),
    times("flush_duration", &[], "From the beginning of a flush's sealing until it was durable", "Mostly the store: see store_request_latency of put."),
    gauge("produce_buffer", BYTES, &[], "Memory held by batches that are not durable yet", "At its limit producers wait: the store is too slow, or the broker has too little memory."),
    gauge("produce_buffer_limit", BYTES, &[], "The most that produce_buffer may be", "More memory for the broker raises it."),
    counter("produce_throttled", None, &[], "How often producers were made to wait because merging lagged behind", "Growing: see merge_* and log_live_runs."),
    gauge("produce_throttled_now", None, &[], "Calls of producers that wait for merging now", "Above 0 for minutes: as produce_throttled."),
    gauge("log_commit_number", None, &[], "How many commits the log has, of all brokers and epochs", "Standing still under load: see log_oldest_commit_in_flight."),
    gauge("log_epoch", None, &[], "How many brokers have taken the log over so far", "Growing without restarts: two brokers take it from one another; stop one."),
    gauge("log_checkpoint_number", None, &[], "The commit up to which the newest checkpoint goes", "Far below log_commit_number (10,000): opening the log takes long; see log_keeping_failures."),
    gauge("log_reclaim_boundary_timestamp", SECONDS, &[], "The time in the reclaim boundary: segments that were made before it and are not named are deleted", "Standing still for days under load: something holds it back; please report."),
    times("log_commit_latency", &[], "From the sending of a commit until it was durable", "Mostly the store: see store_request_latency of put."),
    gauge("log_commits_in_flight", None, &[], "Commits that are sent and not durable yet", "At 4 all the time: the store bounds the throughput."),
    gauge("log_oldest_commit_in_flight", SECONDS, &[], "For how long the oldest of them has been under way; 0 without one", "Above 10: nothing is acknowledged; see what the log says of the store."),
    gauge("log_live_runs", None, &[], "Runs that the state names", "At its limit producers wait for merging."),
    gauge("log_live_runs_limit", None, &[], "The most live runs that there should be", "More memory for the broker raises it."),
    gauge("log_live_objects", None, &[], "Objects whose rows the state names", "Growing without end: merging does not keep up."),
    counter("log_checkpoints", None, &[], "Checkpoints that were written", "About one for every thousand commits or more."),
    counter("log_objects_reclaimed", None, &[], "Objects that were deleted because nothing names them any more", "None for days under load: see log_keeping_failures."),
    counter("log_keeping_failures", None, &[], "Checkpoints and passes of reclaim that failed", "Growing: the log says why; the store refuses, or is away."),
    counter("store_requests", None, &["op", "outcome"], "Requests to the store, every attempt, by what came of them: declined is a definite no, such as nothing there; cancelled is one that was not waited for, as the slower of a request and its hedge, or when a reading ahead goes too far", "throttled: spread the load or ask the provider. timeout, failed: the network or the store. refused: permissions, or a full disk."),
    times("store_request_latency", &["op"], "From the sending of a request to its answer, whatever the answer", "Rising: the store is slow; nothing here makes up for that but more in flight."),
    counter("store_body", BYTES, &["op"], "Bytes of bodies sent (put) and received (get)", "put divided by produced bytes is the write amplification."),
    counter("store_cost", Some("dollars"), &["op"], "About what these requests cost by the provider's list price: S3 and Google $5 a million put or list, $0.40 a million get; Azure $6.50 and $0.50; a local store nothing", "Its rate times 2.6 million is a month. Fewer flushes and larger ones cost less."),
    counter("store_hedges", None, &["op", "outcome"], "Second requests that were sent because the first was slow, by whose answer came first: won is the second's. They are among store_requests, and in store_cost", "At 5 % of store_requests and mostly won: single requests of the store are much slower than the others. Mostly lost: they cost as much and gain little; it is no reason to act."),
    gauge("store_requests_limit", None, &[], "How many requests may be under way to a cloud store at once; 0 if it is no cloud store. It halves when the store throttles, and rises again with its answers", "Far below 64 for long: the store throttles this broker; see store_requests throttled."),
    gauge("store_requests_in_flight", None, &[], "How many are", "At store_requests_limit all the time: the store bounds the throughput."),
    gauge("store_requests_waiting", None, &["priority"], "Requests that wait for their turn, by what they are for: produce goes first, compaction last", "produce above 0 for long: everything else waits, too; the store throttles, or hangs."),
    gauge("store_in_trouble", None, &[], "Whether the last requests of a kind got no answer (1)", "At 1 for a minute: look at the store and the way to it."),
    counter("cache_hits", None, &["cache"], "Values that were found: fresh batches (tail), footers and small objects, ranges of objects, rebuilt batches", "Compare with cache_misses."),
    counter("cache_misses", None, &["cache"], "Values that had to be fetched or made", "Many of the tail: consumers lag; more memory helps them."),
    gauge("cache_size", BYTES, &["cache"], "Memory that a cache holds", "At its limit the oldest values go."),
    gauge("cache_limit", BYTES, &["cache"], "The most that a cache holds", "More memory for the broker raises it."),
    gauge("fetch_partitions_waiting", None, &[], "Partitions that consumers wait for, each as often as it is", "How many long polls there are."),
    counter("merge_merges", None, &[], "Merges of small objects that were committed", "None while log_live_objects grows: see merge_failures."),
    counter("merge_failures", None, &[], "Merges that failed", "Growing: the log says why."),
    counter("merge_objects", None, &[], "Objects whose rows were merged into larger ones", "Its rate should be that of flushes."),
    counter("merge_runs", None, &[], "Runs that merges replaced", "As merge_objects."),
    counter("merge_written", BYTES, &[], "Bytes of the objects that merges wrote", "What merging costs in bandwidth."),
    gauge("merge_objects_set_aside", None, &[], "Objects that merging leaves alone: damaged or unreadable ones", "Above 0: the log names them; restore the object or delete its topic."),
    counter("compaction_compactions", None, &[], "Compactions that were committed: rows of a topic that went into table files, or small table files into larger ones", "None while compaction_backlog grows: see compaction_failures."),
    counter("compaction_failures", None, &[], "Compactions that failed", "Growing: the log says why."),
    counter("compaction_files", None, &[], "Table files that compactions wrote", "Many small ones are rewritten later: quiet topics make them."),
    counter("compaction_read", BYTES, &[], "Bytes of keys, values and headers that compactions re-homed", "Divided by produced bytes it is how often a byte is rewritten."),
    counter("compaction_written", BYTES, &[], "Bytes of the table files", "Divided by compaction_read it is what compression leaves."),
    counter("compaction_misfits", None, &[], "Rows that compactions put into table files with a value that is not what value.format of their topic says", "Growing: a producer sends what is not text, or not JSON. Its rows are in column _kafka_value_raw, consumers get them as ever."),
    gauge("compaction_backlog", BYTES, &[], "Bytes of keys, values and headers that are in no table file yet", "Growing without end: compaction can't keep up, or fails."),
    gauge("compaction_backlog_age", SECONDS, &[], "For how long the oldest of them have waited, as far as this process has seen", "Above an hour: compaction can't keep up, fails, or quiet topics are too many for its allowance."),
    gauge("compaction_objects_set_aside", None, &[], "Damaged objects that compaction leaves alone", "Above 0: the log names them; restore the object or delete its topic."),
    counter("key_compactions", None, &[], "Compactions of keys that were committed: table files of a topic with cleanup.policy=compact that were rewritten without obsolete records", "None on topics that are written: their dirty ratio is not reached, or key_compaction_failures grow."),
    counter("key_compaction_failures", None, &[], "Compactions of keys that failed", "Growing: the log says why."),
    counter("key_compaction_rows_in", None, &[], "Rows that compactions of keys looked at", "Minus key_compaction_rows_out it is how many went."),
    counter("key_compaction_rows_out", None, &[], "Rows that compactions of keys left", "As many as key_compaction_rows_in: keys hardly ever come twice, and the policy costs more than it saves."),
    counter("key_compaction_read", BYTES, &[], "Bytes of keys, values and headers that compactions of keys read, the dirty ones twice", "Divided by what is produced to such topics it is what the policy costs: 1 + 1 / min.cleanable.dirty.ratio at most, unless max.compaction.lag.ms or too little memory for the keys make it more."),
    counter("key_compaction_written", BYTES, &[], "Bytes of the table files that compactions of keys wrote", "See key_compaction_read."),
    counter("retention_records_removed", None, &["cause"], "Records that were removed because they were older than retention.ms of their topic (age), or their partition was larger than its retention.bytes (size)", "Their rate should be that of producing, retention.ms later."),
    counter("retention_removed", BYTES, &["cause"], "Bytes of keys, values and headers of those records", "As retention_records_removed."),
    counter("retention_files_removed", None, &["cause"], "Table files that went whole with them; running queries have an hour before they are deleted", "As retention_records_removed."),
    counter("retention_failures", None, &[], "Passes of retention that failed", "Growing: the log says why."),
    gauge("retention_paused", None, &[], "Whether retention is paused because this machine's clock and the store's disagree (1)", "At 1: set the clock that is wrong; see clock_skew. Nothing is lost, records stay longer."),
    gauge("clock_skew", SECONDS, &[], "By how much this machine's clock was ahead of the store's when they were compared last; 0 if the store has none of its own", "Beyond 300 either way retention is paused."),
    gauge("kafka_consumer_groups", None, &[], "Consumer groups that have members or committed offsets", "Growing without end: clients draw group names at random; offsets_retention forgets them."),
    gauge("kafka_consumer_group_consumers", None, &[], "Members of consumer groups, of all groups together", "Falling at once: see what the members log."),
    gauge("kafka_consumer_group_memory", BYTES, &[], "Memory held by members and their subscriptions", "At its limit nobody more is taken in (COORDINATOR_NOT_AVAILABLE): more memory for the broker raises it."),
    gauge("kafka_consumer_group_memory_limit", BYTES, &[], "The most that kafka_consumer_group_memory may be", "More memory for the broker raises it."),
    gauge("kafka_consumer_group_state", BYTES, &[], "What groups and their committed offsets count in the state; at most 64 MiB", "Near 64 MiB commits are refused: delete groups, or lower offsets_retention."),
    counter("kafka_consumer_group_rebalances", None, &[], "Generations of groups that began with members", "A high rate: members come and go, or are taken for gone; raise their session timeouts."),
    counter("kafka_consumer_group_offset_commits", None, &[], "Commits of offsets that became durable", "Its rate is that of consumers' commits."),
    counter("kafka_consumer_group_offsets_committed", None, &[], "Offsets in those commits", "Divided by commits: how many partitions consumers have."),
    counter("kafka_consumer_group_log_writes", None, &[], "Writes to the log by groups, each with all that waited", "At most one a flush interval, and one for each rebalance that could not wait."),
    counter("kafka_consumer_group_expiries", None, &[], "How often something of a group without members was let expire", "As offsets_retention says."),
    gauge("loop_last_success_timestamp", SECONDS, &["loop"], "When a background task last did what it is for, in seconds since 1970; 0 if not yet", "merge, compaction and retention also count when nothing is to be done; retention does not while it is paused. checkpoint and reclaim come after a thousand commits, offsets_expiry every ten minutes or a tenth of offsets_retention, probe when clients are connected and nothing is committed. Hours behind while commits go on: the log says why."),
];

/// The reference page.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\nThe broker's HTTP port answers `/metrics` as OpenMetrics, which Prometheus scrapes. A page asks nothing of the store. Counters begin at 0 when the broker starts. `deploy/alerts.yml` has alerts for Prometheus.\n\
         A histogram `x` is read as `x_bucket`, `x_sum` and `x_count`. This page is made from the broker's own table; a test holds it.\n\n\
         | name | type | labels | what it means | when to act |\n|---|---|---|---|---|\n",
    );
    for described in METRICS {
        let kind = match described.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels = described.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let (name, means, advice) = (described.full_name(), described.means, described.advice);
        writeln!(text, "| `{name}` | {kind} | {labels} | {means}. | {advice} |").expect("a string takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_end_with_what_they_measure() {
        let names: BTreeSet<String> = METRICS.iter().map(Described::full_name).collect();
        assert_eq!(names.len(), METRICS.len());
        for described in METRICS {
            let name = described.name;
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(!name.ends_with("_total") && described.unit.is_none_or(|unit| !name.ends_with(unit)), "{name}");
            assert!(!described.means.ends_with('.') && described.advice.ends_with('.'), "{name}");
        }
    }

    /// `LAKEBED_WRITE_DOCS=1` writes it.
    #[test]
    fn the_reference_page_is_that_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        if std::env::var_os("LAKEBED_WRITE_DOCS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == markdown(), "docs/metrics.md is behind the table: run this test with LAKEBED_WRITE_DOCS=1");
    }
}
