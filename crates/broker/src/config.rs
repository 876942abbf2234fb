//! What a broker is told when it starts. What each setting does, and how one is added, stands in [`settings`](TABLE).

use std::time::Duration;

mod secret;
mod settings;
mod value;

pub use secret::{SecretProperties, SecretUrl};
pub use settings::{Setting, TABLE, Wrong};
pub use value::{AUTO, Kind, Value, parse_size, parse_time_span};

/// Settings of one broker. [`Config::default`] is a broker in memory on free ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the log is: `memory://`, `file:///directory`, `s3://bucket/prefix`, `gs://…`, `az://…`.
    pub store: SecretUrl,
    /// Whether a store is used that is known not to keep what the log needs. Records are lost on such a store.
    pub accept_unsafe_store: bool,
    /// `host:port` for Kafka clients; port 0 takes a free one.
    pub kafka_listen: String,
    /// `host:port` for gRPC and HTTP; port 0 takes a free one.
    pub http_listen: String,
    /// `host:port` that Kafka clients are told to connect to. `None`: the address at which each of them reached us, which is right
    /// unless something between translates addresses.
    pub advertise: Option<String>,
    /// `host:port` by which other brokers, and through them nobody else, reach this one's HTTP port. `None`: where it listens, or the address from
    /// which this machine reaches others.
    pub advertise_http: Option<String>,
    /// The availability zone that the broker runs in.
    pub zone: Option<String>,
    /// A sequencer of which nothing is heard for so long, and whose log does not move, is succeeded.
    pub takeover_after: Duration,
    /// Memory that buffers and caches may take together, in bytes; see [`Budget`]. More serves more consumers from memory and takes
    /// larger bursts; at its bound producers wait.
    pub memory_bytes: usize,
    /// Whether a topic that a client asks for is created when it does not exist.
    pub auto_create_topics: bool,
    /// Partitions of a topic that is created without a number.
    pub default_partitions: u32,
    /// How long a partition remembers a producer that does not write (Kafka's `producer.id.expiration.ms`).
    pub producer_id_expiration: Duration,
    /// How often it is looked for records that are too old or too many (Kafka's `log.retention.check.interval.ms`).
    pub retention_check_interval: Duration,
    /// Most partitions of all topics together; a topic that would make more is refused.
    pub partitions_max: usize,
    /// Spacing of flushes. `None`: 250 ms on a bucket, 2 ms on a local directory, 0 in memory. More costs fewer requests; less
    /// acknowledges sooner. The first record after a quiet interval is flushed at once.
    pub flush_interval: Option<Duration>,
    /// A flush begins when this many bytes wait, before the interval has passed.
    pub flush_bytes: usize,
    /// Largest Produce request, in bytes.
    pub request_bytes_max: usize,
    /// Whether fresh batches are served from memory as they came. Off costs a read of the store per fetch; for tests.
    pub tail: bool,
    /// Most connections of each of the two ports; one more is closed at once.
    pub connections_max: usize,
    /// Most connections from one address, of each of the two ports.
    pub connections_per_address_max: usize,
    /// A Kafka connection without a request for this long is closed.
    pub connection_idle_max: Duration,
    /// Age at which a connection for gRPC and HTTP takes no more calls, give or take a tenth. Less moves clients sooner to brokers that
    /// have come later; more saves connecting again.
    pub connection_age_max: Duration,
    /// How long calls may go on after that before streams are ended.
    pub connection_age_grace: Duration,
    /// Web pages of these origins (`https://console.example:8443`, separated by commas, or `*` for all) may call by gRPC-Web from a
    /// browser. None by default: there is no authentication, and a page could do whatever its reader's machine may.
    pub cors_origins: Option<String>,
    /// Shortest session of a member of a group. Shorter ones are refused.
    pub group_session_timeout_min: Duration,
    /// Longest session of a member of a group. Longer ones are refused.
    pub group_session_timeout_max: Duration,
    /// How long the first rebalance of a group waits for more members after each that joins. More spares rebalances when many consumers
    /// start together; less lets the first of them begin sooner.
    pub group_initial_rebalance_delay: Duration,
    /// A member of a group whose partitions the broker assigns is taken for gone when it has not been heard of for this long.
    pub group_consumer_session_timeout: Duration,
    /// How often such a member is told to say that it is there.
    pub group_consumer_heartbeat_interval: Duration,
    /// Most members of a group.
    pub group_members_max: usize,
    /// How long committed offsets are kept once their group has no members.
    pub offsets_retention: Duration,
    /// A topic's rows go into table files when so many bytes of them are in none.
    pub compaction_bytes: u64,
    /// Or when the oldest of them have waited so long, if it is a busy topic.
    pub compaction_age_min: Duration,
    /// Or so long, if it is a quiet one.
    pub compaction_age_max: Duration,
    /// Compactions an hour that age alone causes, of all topics together.
    pub compaction_quiet_per_hour: u32,
    /// About how large a table file becomes at most, whatever the memory: a row group of it is held there while it is written.
    pub table_file_bytes: usize,
    /// Whether a table that is loaded through the catalog first shows everything acknowledged, if the client does not say.
    pub catalog_refresh: bool,
    /// What clients of the catalog are told with each table.
    pub catalog_properties: Option<SecretProperties>,
    /// What is logged: a level, or a filter of `tracing`. Whoever starts the broker sets up logging by it.
    pub log: String,
    /// `text` or `json`. `None`: text on a terminal, JSON elsewhere.
    pub log_format: Option<String>,
    /// The collector that traces are sent to, by OTLP over gRPC. `None`: nothing is traced.
    pub otlp_endpoint: Option<String>,
    /// One of so many requests and flushes is traced.
    pub otlp_one_in: u32,
}

/// Where the memory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Requests that are being received or worked on.
    pub requests_bytes: usize,
    /// Used request buffers that wait for the next request.
    pub free_buffers_bytes: usize,
    /// Used buffers of objects that wait for the next object.
    pub free_bodies_bytes: usize,
    /// What clients of HTTP/2 may send before it is read, beyond 64 KiB of each connection.
    pub windows_bytes: usize,
    /// Batches that are not durable yet.
    pub ingest_bytes: usize,
    /// Fresh batches as they came.
    pub tail_bytes: usize,
    /// Ranges of objects, and batches made of them.
    pub cache_bytes: usize,
    /// Backfills in flight.
    pub backfill_bytes: usize,
    /// Messages that wait for clients of Consume streams. As much again if there are very many streams.
    pub streams_bytes: usize,
    /// Members of groups, and commits of offsets that are not durable yet.
    pub groups_bytes: usize,
    /// Live runs of the log at which producers wait for merging.
    pub live_runs_max: usize,
    /// Largest response of one fetch.
    pub response_bytes_max: usize,
}

/// What the state holds for a live run, in bytes, about.
const RUN_BYTES: usize = 160;
/// More live runs than this make opening a log slow, however much memory there is.
const LIVE_RUNS_MAX: usize = 1_000_000;

/// The least memory with which a broker runs.
pub const MEMORY_BYTES_MIN: usize = 64 << 20;

impl Default for Config {
    fn default() -> Self {
        Self {
            store: "memory://".into(),
            accept_unsafe_store: false,
            kafka_listen: "127.0.0.1:0".to_owned(),
            http_listen: "127.0.0.1:0".to_owned(),
            advertise: None,
            advertise_http: None,
            zone: None,
            takeover_after: Duration::from_secs(1),
            memory_bytes: 1 << 30,
            auto_create_topics: true,
            default_partitions: 4,
            producer_id_expiration: Duration::from_secs(86_400),
            retention_check_interval: Duration::from_secs(300),
            partitions_max: 200_000,
            flush_interval: None,
            flush_bytes: 8 << 20,
            request_bytes_max: 64 << 20,
            tail: true,
            connections_max: 10_000,
            connections_per_address_max: 5_000,
            connection_idle_max: Duration::from_secs(600),
            connection_age_max: Duration::from_secs(1800),
            connection_age_grace: Duration::from_secs(300),
            cors_origins: None,
            group_session_timeout_min: Duration::from_secs(6),
            group_session_timeout_max: Duration::from_secs(1800),
            group_initial_rebalance_delay: Duration::ZERO,
            group_consumer_session_timeout: Duration::from_secs(45),
            group_consumer_heartbeat_interval: Duration::from_secs(5),
            group_members_max: 10_000,
            offsets_retention: Duration::from_secs(7 * 86_400),
            compaction_bytes: 64 << 20,
            compaction_age_min: Duration::from_secs(60),
            compaction_age_max: Duration::from_secs(3600),
            compaction_quiet_per_hour: 2000,
            table_file_bytes: 256 << 20,
            catalog_refresh: true,
            catalog_properties: None,
            log: "info".to_owned(),
            log_format: None,
            otlp_endpoint: None,
            otlp_one_in: 1,
        }
    }
}

/// What a broker is for: it decides defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `lakebed serve`: the store must be named, topics are made by hand.
    Serve,
    /// `lakebed dev`: a local directory, topics are made on first use.
    Dev,
}

impl Config {
    /// The defaults of a broker that is started by hand, on the ports that clients expect. In `serve` mode the store is still empty.
    pub fn of(mode: Mode) -> Self {
        let (store, auto_create_topics, default_partitions, delay) = match mode {
            Mode::Serve => ("", false, 1, Duration::from_secs(3)),
            Mode::Dev => ("./lakebed-data", true, 4, Duration::ZERO),
        };
        Self {
            store: store.into(),
            kafka_listen: "127.0.0.1:9092".to_owned(),
            http_listen: "127.0.0.1:7070".to_owned(),
            auto_create_topics,
            default_partitions,
            group_initial_rebalance_delay: delay,
            ..Self::default()
        }
    }

    /// All that is wrong with it; empty if it can be used.
    pub fn validate(&self) -> Vec<Wrong> {
        let mut problems: Vec<Wrong> = TABLE.iter().filter_map(|setting| setting.complaint(self)).collect();
        let fixed = split_address(&self.kafka_listen).is_ok_and(|(_, port)| port != 0);
        if fixed && self.kafka_listen == self.http_listen {
            problems.push(Wrong { setting: "listen", what: "must not be the same as kafka_listen".to_owned() });
        }
        if self.group_session_timeout_min > self.group_session_timeout_max {
            let what = "must not be above group_session_timeout_max".to_owned();
            problems.push(Wrong { setting: "group_session_timeout_min", what });
        }
        if self.compaction_age_min > self.compaction_age_max {
            let what = "must not be above compaction_age_max".to_owned();
            problems.push(Wrong { setting: "compaction_age_min", what });
        }
        if self.catalog_properties.as_ref().is_some_and(|properties| properties.check().is_err()) {
            let what = "must be NAME=VALUE, separated by commas, with every name once".to_owned();
            problems.push(Wrong { setting: "catalog_properties", what });
        }
        if self.group_consumer_heartbeat_interval >= self.group_consumer_session_timeout {
            let what = "must be below group_consumer_session_timeout".to_owned();
            problems.push(Wrong { setting: "group_consumer_heartbeat_interval", what });
        }
        problems
    }

    /// The origins whose pages may call.
    pub(crate) fn origins(&self) -> impl Iterator<Item = &str> {
        self.cors_origins.iter().flat_map(|origins| origins.split(',')).map(str::trim)
    }

    /// Host and port that clients are told, if they are told one.
    pub(crate) fn advertised(&self) -> Option<(String, u16)> {
        self.advertise.as_deref().and_then(|address| split_address(address).ok())
    }

    /// How the memory is split. Almost half is left for the state, merging, what the allocator keeps back,
    /// and the stacks of requests.
    pub fn budget(&self) -> Budget {
        let share = self.memory_bytes / 12;
        Budget {
            requests_bytes: share,
            free_buffers_bytes: share / 4,
            free_bodies_bytes: share / 2,
            windows_bytes: share / 2,
            ingest_bytes: share,
            tail_bytes: if self.tail { 2 * share } else { 0 },
            cache_bytes: share,
            backfill_bytes: share / 2,
            streams_bytes: share / 2,
            groups_bytes: share / 2,
            live_runs_max: (self.memory_bytes / 8 / RUN_BYTES).min(LIVE_RUNS_MAX),
            response_bytes_max: (share / 2).clamp(1 << 20, 52 << 20),
        }
    }
}

/// Whether it is `*`, or an origin as browsers write it: scheme, host and port, and nothing after them.
pub(crate) fn check_origin(text: &str) -> Result<(), &'static str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain =
        |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@*".contains(&byte));
    if text == "*" || rest.is_some_and(plain) {
        Ok(())
    } else {
        Err("must be *, or http:// or https:// with a host and maybe a port, and nothing after them")
    }
}

/// Host and port of `host:port`, `[v6]:port`.
///
/// # Errors
/// What is wrong, for a person.
pub(crate) fn split_address(text: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("must be HOST:PORT")?;
    let port = port.parse().map_err(|_| "the port must be 0 to 65535")?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() { Err("the host is missing") } else { Ok((host.to_owned(), port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_all_problems_are_told_at_once() {
        assert_eq!(Config::default().validate(), []);
        assert_eq!(Config::of(Mode::Dev).validate(), []);
        assert_eq!(Config::of(Mode::Serve).validate(), [Wrong { setting: "store", what: "must be given".to_owned() }]);
        let wrong = Config {
            memory_bytes: 1,
            default_partitions: 0,
            flush_bytes: 0,
            request_bytes_max: 1,
            connections_max: 0,
            connection_age_max: Duration::ZERO,
            connections_per_address_max: 0,
            connection_idle_max: Duration::ZERO,
            advertise: Some("nowhere".to_owned()),
            kafka_listen: "kafka.example:9092".to_owned(),
            http_listen: "kafka.example:9092".to_owned(),
            store: "".into(),
            cors_origins: Some("https://fine.example:1, https://x/,x".to_owned()),
            ..Config::default()
        };
        let problems = wrong.validate();
        assert_eq!(problems.len(), 12, "{problems:#?}");
        assert!(
            problems.contains(&Wrong { setting: "memory", what: "must be 64MiB to 16TiB".to_owned() }),
            "{problems:#?}"
        );
    }

    #[test]
    fn the_parts_of_the_budget_stay_below_the_memory() {
        for memory_bytes in [MEMORY_BYTES_MIN, 256 << 20, 1 << 30] {
            let budget = Config { memory_bytes, ..Config::default() }.budget();
            let sum = budget.requests_bytes
                + budget.free_buffers_bytes
                + budget.free_bodies_bytes
                + budget.windows_bytes
                + budget.ingest_bytes
                + budget.tail_bytes
                + budget.cache_bytes
                + budget.backfill_bytes
                + 2 * budget.streams_bytes
                + budget.groups_bytes;
            assert!(sum <= memory_bytes / 8 * 7, "{sum} of {memory_bytes}");
        }
    }

    #[test]
    fn addresses_are_split_at_the_last_colon() {
        assert_eq!(split_address("kafka.example:9092"), Ok(("kafka.example".to_owned(), 9092)));
        assert_eq!(split_address("[::1]:9092"), Ok(("::1".to_owned(), 9092)));
        for wrong in ["", "host", ":1", "host:", "host:70000"] {
            assert!(split_address(wrong).is_err(), "{wrong}");
        }
    }
}
