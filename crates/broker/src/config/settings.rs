//! The one table of settings: what a file, a variable, a flag and the documentation know of them comes from here.
//!
//! To add a setting: a field of [`Config`](super::Config) with its value in `Config::default`, a row in [`TABLE`], the sample in the
//! test below, and `lakebed docs configuration > docs/configuration.md`. Everything else follows: the key in the file
//! (`flush_interval`), the variable (`LAKEBED_FLUSH_INTERVAL`), the flag (`--flush-interval`), its validation, `config template`,
//! `config show` and the help texts. A number that serves all brokers well is a constant, not a setting.
//!
//! A value that may hold a secret is a [`SecretUrl`](super::SecretUrl) (or a type like it), so that nothing prints it.

use std::time::Duration;

use super::value::{Kind, Value};
use super::{Config, MEMORY_BYTES_MIN};

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in the file. With capitals behind `LAKEBED_` the variable, with dashes the flag.
    pub name: &'static str,
    /// Which chapter of the documentation it stands in.
    pub group: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Where `auto` is a value: what it stands for.
    pub auto: Option<&'static str>,
    /// What it is: one sentence without its full stop.
    pub what: &'static str,
    /// What more and less do to latency, memory and requests, or when to change it.
    pub effect: &'static str,
    /// Whether it is for tests: help texts leave it out.
    pub for_tests: bool,
    get: fn(&Config) -> Value,
    set: fn(&mut Config, Value),
}

/// What is wrong with a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The name of the setting.
    pub setting: &'static str,
    /// What is wrong, for a person: "must be …".
    pub what: String,
}

impl Setting {
    /// The setting of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TABLE.iter().find(|setting| setting.name == name)
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("LAKEBED_{}", self.name.to_ascii_uppercase())
    }

    /// The flag, without its dashes in front.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Its value in `config`, without secrets.
    pub fn value(&self, config: &Config) -> Value {
        (self.get)(config)
    }

    /// Reads a value as it is written, and sets it.
    ///
    /// # Errors
    /// What is wrong with it, for a person. Nothing is set.
    pub fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        let value = match self.auto {
            Some(_) if text == super::AUTO => Value::Auto,
            _ => self.kind.parse(text)?,
        };
        (self.set)(config, value);
        Ok(())
    }

    /// What is wrong with its value in `config`, if anything is.
    pub(super) fn complaint(&self, config: &Config) -> Option<Wrong> {
        self.kind.complaint(&self.value(config)).map(|what| Wrong { setting: self.name, what })
    }
}

const STORE: &str = "Store";
const LISTENERS: &str = "Listeners";
const CLUSTER: &str = "Cluster";
const TOPICS: &str = "Topics";
const FLUSHES: &str = "Memory and flushes";
const CONNECTIONS: &str = "Connections";
const GROUPS: &str = "Consumer groups";
const TABLES: &str = "Tables";
const WATCHING: &str = "Watching";

const fn sizes(min: u64, max: u64) -> Kind {
    Kind::Size { min, max }
}

const fn seconds(min: u64, max: u64) -> Kind {
    Kind::Span { min: Duration::from_secs(min), max: Duration::from_secs(max) }
}

fn text_of(text: Option<&String>) -> Value {
    text.map_or(Value::Auto, |text| Value::Text(text.clone()))
}

/// All settings, in the order in which they are shown.
pub const TABLE: &[Setting] = &[
    Setting {
        name: "store",
        group: STORE,
        kind: Kind::Url,
        auto: None,
        what: "Where the data is: file:///directory or a path, memory://, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix",
        effect: "Each produce waits for one write there: 1 ms on a local disk, tens of milliseconds on a bucket, nothing in memory, \
                 where it is lost on exit. Credentials come from the store's own variables (AWS_…, GOOGLE_…, AZURE_…), never from here",
        for_tests: false,
        get: |config| Value::Text(config.store.to_string()),
        set: |config, value| config.store = value.text().unwrap_or_default().into(),
    },
    Setting {
        name: "accept_unsafe_store",
        group: STORE,
        kind: Kind::Switch,
        auto: None,
        what: "Whether a store is used that is known not to keep what the log needs, or that was not asked",
        effect: "On, the broker serves where `lakebed check storage` failed, and records are lost there; off, a bucket that was never checked \
                 is asked when the broker starts, with two PUTs",
        for_tests: false,
        get: |config| Value::Switch(config.accept_unsafe_store),
        set: |config, value| config.accept_unsafe_store = value.switch(),
    },
    Setting {
        name: "kafka_listen",
        group: LISTENERS,
        kind: Kind::Address,
        auto: None,
        what: "Address for Kafka clients; port 0 takes a free one",
        effect: "0.0.0.0 or [::] serves other machines; there is no authentication yet, so only on a network that you trust",
        for_tests: false,
        get: |config| Value::Text(config.kafka_listen.clone()),
        set: |config, value| config.kafka_listen = value.text().unwrap_or_default(),
    },
    Setting {
        name: "listen",
        group: LISTENERS,
        kind: Kind::Address,
        auto: None,
        what: "Address for gRPC and HTTP (health, metrics); port 0 takes a free one",
        effect: "As kafka_listen",
        for_tests: false,
        get: |config| Value::Text(config.http_listen.clone()),
        set: |config, value| config.http_listen = value.text().unwrap_or_default(),
    },
    Setting {
        name: "advertise",
        group: LISTENERS,
        kind: Kind::Address,
        auto: Some("where each client reached the broker"),
        what: "HOST:PORT that Kafka clients are told to connect to",
        effect: "Set it where something between translates addresses: a load balancer, a container's port mapping",
        for_tests: false,
        get: |config| text_of(config.advertise.as_ref()),
        set: |config, value| config.advertise = value.text(),
    },
    Setting {
        name: "advertise_http",
        group: CLUSTER,
        kind: Kind::Address,
        auto: Some("where it listens, or the address from which the machine reaches others"),
        what: "HOST:PORT by which the other brokers of the cluster reach the address of listen",
        effect: "Set it where that is another one: a name in a container network. A wrong one costs time: the others take the log over from a \
                 sequencer that they can't reach",
        for_tests: false,
        get: |config| text_of(config.advertise_http.as_ref()),
        set: |config, value| config.advertise_http = value.text(),
    },
    Setting {
        name: "zone",
        group: CLUSTER,
        kind: Kind::Text,
        auto: Some("none"),
        what: "The availability zone that the broker runs in",
        effect: "Shown to the other brokers and by `lakebed cluster info`",
        for_tests: false,
        get: |config| text_of(config.zone.as_ref()),
        set: |config, value| config.zone = value.text(),
    },
    Setting {
        name: "takeover_after",
        group: CLUSTER,
        kind: seconds(1, 60),
        auto: None,
        what: "How long nothing is heard of a sequencer that hangs, and its log does not move, before another broker takes over",
        effect: "Less: producers wait less when a sequencer hangs or its network is cut; more: a slow network or a long pause makes for fewer \
                 takeovers. One whose process ends is succeeded at once. It never decides what is durable",
        for_tests: false,
        get: |config| Value::Span(config.takeover_after),
        set: |config, value| config.takeover_after = value.span().unwrap_or_default(),
    },
    Setting {
        name: "auto_create_topics",
        group: TOPICS,
        kind: Kind::Switch,
        auto: None,
        what: "Whether a topic that a Kafka client asks for, or a gRPC client produces to, is created when it does not exist",
        effect: "On, a mistyped name makes a topic; each topic that is made is one commit",
        for_tests: false,
        get: |config| Value::Switch(config.auto_create_topics),
        set: |config, value| config.auto_create_topics = value.switch(),
    },
    Setting {
        name: "default_partitions",
        group: TOPICS,
        kind: Kind::Count { min: 1, max: lakebed_model::topic::PARTITIONS_MAX as u64 },
        auto: None,
        what: "Partitions of a topic that is created without a number",
        effect: "More let more consumers of a group share the work; requests do not grow with them. They can be added later, never taken away",
        for_tests: false,
        get: |config| Value::Count(config.default_partitions.into()),
        set: |config, value| config.default_partitions = u32::try_from(value.number()).unwrap_or(u32::MAX),
    },
    Setting {
        name: "producer_id_expiration",
        group: TOPICS,
        kind: seconds(1, 365 * 86_400),
        auto: None,
        what: "How long a partition remembers an idempotent producer that does not write (Kafka's producer.id.expiration.ms)",
        effect: "A batch that is sent again later than that is stored again; more keeps the state and its checkpoints larger where \
                 producers come and go, within a bound of 4,000 a partition and 200,000 in all",
        for_tests: false,
        get: |config| Value::Span(config.producer_id_expiration),
        set: |config, value| config.producer_id_expiration = value.span().unwrap_or_default(),
    },
    Setting {
        name: "retention_check_interval",
        group: TOPICS,
        kind: Kind::Span { min: Duration::from_millis(10), max: Duration::from_secs(86_400) },
        auto: None,
        what: "How often it is looked for records that retention.ms and retention.bytes of their topics don't keep (Kafka's \
               log.retention.check.interval.ms)",
        effect: "More keeps records so much longer than they must be; less costs commits, and rewrites of table files that hold records which \
                 go and others. Where nothing goes a look costs no request",
        for_tests: false,
        get: |config| Value::Span(config.retention_check_interval),
        set: |config, value| config.retention_check_interval = value.span().unwrap_or_default(),
    },
    Setting {
        name: "partitions_max",
        group: TOPICS,
        kind: Kind::Count { min: 1, max: 10_000_000 },
        auto: None,
        what: "Most partitions of all topics together; a topic that would make more is refused",
        effect: "An idle partition costs up to 4 KiB of memory in every broker. Less keeps a client that makes topics without end from taking it",
        for_tests: false,
        get: |config| Value::Count(config.partitions_max as u64),
        set: |config, value| config.partitions_max = value.number(),
    },
    Setting {
        name: "memory",
        group: FLUSHES,
        kind: sizes(MEMORY_BYTES_MIN as u64, 1 << 44),
        auto: None,
        what: "Memory for buffers and caches together; the process takes up to 128 MiB more",
        effect: "More serves more consumers from memory (fewer GETs) and takes larger bursts; at its bound producers wait. A twelfth each \
                 buffers requests, waits to be durable and caches objects, two twelfths keep the newest batches",
        for_tests: false,
        get: |config| Value::Size(config.memory_bytes as u64),
        set: |config, value| config.memory_bytes = value.number(),
    },
    Setting {
        name: "flush_interval",
        group: FLUSHES,
        kind: Kind::Span { min: Duration::ZERO, max: Duration::from_secs(60) },
        auto: Some("250ms on a bucket, 2ms on a local directory, 0ms in memory"),
        what: "Spacing of flushes; the first record after a quiet interval is flushed at once",
        effect: "More costs fewer PUTs (at 250ms at most 4 a second and broker, whatever the number of partitions) and makes larger objects; \
                 less acknowledges sooner: half of it is the mean wait of a produce before its PUT",
        for_tests: false,
        get: |config| config.flush_interval.map_or(Value::Auto, Value::Span),
        set: |config, value| config.flush_interval = value.span(),
    },
    Setting {
        name: "flush_bytes",
        group: FLUSHES,
        kind: sizes(1, 256 << 20),
        auto: None,
        what: "A flush begins when this many bytes wait, before its interval has passed",
        effect: "More makes fewer and larger PUTs under load, and holds more memory while they are on their way; less acknowledges a \
                 burst in smaller steps",
        for_tests: false,
        get: |config| Value::Size(config.flush_bytes as u64),
        set: |config, value| config.flush_bytes = value.number(),
    },
    Setting {
        name: "request_bytes_max",
        group: CONNECTIONS,
        kind: sizes(1 << 20, 1 << 30),
        auto: None,
        what: "Largest Kafka request; a connection that announces a larger one is closed",
        effect: "More takes larger batches; one request may then take that much of the memory at once",
        for_tests: false,
        get: |config| Value::Size(config.request_bytes_max as u64),
        set: |config, value| config.request_bytes_max = value.number(),
    },
    Setting {
        name: "connections_max",
        group: CONNECTIONS,
        kind: Kind::Count { min: 1, max: 1_000_000 },
        auto: None,
        what: "Most connections of each of the two ports; one more is closed at once",
        effect: "An idle connection costs some 10 KiB. More needs a higher limit of open files (ulimit -n), too",
        for_tests: false,
        get: |config| Value::Count(config.connections_max as u64),
        set: |config, value| config.connections_max = value.number(),
    },
    Setting {
        name: "connections_per_address_max",
        group: CONNECTIONS,
        kind: Kind::Count { min: 1, max: 1_000_000 },
        auto: None,
        what: "Most connections from one address, of each of the two ports",
        effect: "Less keeps one host from taking all connections; behind a proxy all clients have one address",
        for_tests: false,
        get: |config| Value::Count(config.connections_per_address_max as u64),
        set: |config, value| config.connections_per_address_max = value.number(),
    },
    Setting {
        name: "connection_idle_max",
        group: CONNECTIONS,
        kind: seconds(1, 7 * 86_400),
        auto: None,
        what: "A Kafka connection without a request for this long is closed",
        effect: "Less frees the connections of clients that are gone sooner; below a client's own limit (9 minutes by default) it makes \
                 clients connect again",
        for_tests: false,
        get: |config| Value::Span(config.connection_idle_max),
        set: |config, value| config.connection_idle_max = value.span().unwrap_or_default(),
    },
    Setting {
        name: "connection_age_max",
        group: CONNECTIONS,
        kind: Kind::Span { min: Duration::from_millis(1), max: Duration::from_secs(365 * 86_400) },
        auto: None,
        what: "Age at which a connection for gRPC and HTTP takes no more calls, give or take a tenth",
        effect: "Less moves clients sooner to brokers that have come later; more saves connecting again",
        for_tests: false,
        get: |config| Value::Span(config.connection_age_max),
        set: |config, value| config.connection_age_max = value.span().unwrap_or_default(),
    },
    Setting {
        name: "connection_age_grace",
        group: CONNECTIONS,
        kind: seconds(0, 365 * 86_400),
        auto: None,
        what: "How long calls may go on after that before their streams are ended",
        effect: "Less frees old connections sooner; more lets long calls end by themselves",
        for_tests: false,
        get: |config| Value::Span(config.connection_age_grace),
        set: |config, value| config.connection_age_grace = value.span().unwrap_or_default(),
    },
    Setting {
        name: "cors_origins",
        group: CONNECTIONS,
        kind: Kind::Origins,
        auto: Some("none"),
        what: "Web pages of these origins may call by gRPC-Web from a browser",
        effect: "There is no authentication: a page that may call can do whatever the machine of its reader may",
        for_tests: false,
        get: |config| text_of(config.cors_origins.as_ref()),
        set: |config, value| config.cors_origins = value.text(),
    },
    Setting {
        name: "group_session_timeout_min",
        group: GROUPS,
        kind: seconds(0, 86_400),
        auto: None,
        what: "Shortest session timeout that a member of a consumer group may ask for",
        effect: "Less lets the partitions of a member that died be given to others sooner, and takes one that paused for dead",
        for_tests: false,
        get: |config| Value::Span(config.group_session_timeout_min),
        set: |config, value| config.group_session_timeout_min = value.span().unwrap_or_default(),
    },
    Setting {
        name: "group_session_timeout_max",
        group: GROUPS,
        kind: seconds(1, 7 * 86_400),
        auto: None,
        what: "Longest session timeout that a member of a consumer group may ask for",
        effect: "More lets members pause for longer; the partitions of one that died stay unread for as long",
        for_tests: false,
        get: |config| Value::Span(config.group_session_timeout_max),
        set: |config, value| config.group_session_timeout_max = value.span().unwrap_or_default(),
    },
    Setting {
        name: "group_initial_rebalance_delay",
        group: GROUPS,
        kind: seconds(0, 600),
        auto: None,
        what: "How long a new consumer group waits for more members, anew with each that joins",
        effect: "More spares rebalances when many consumers start together; 0s lets a lone consumer begin at once (`lakebed dev` does)",
        for_tests: false,
        get: |config| Value::Span(config.group_initial_rebalance_delay),
        set: |config, value| config.group_initial_rebalance_delay = value.span().unwrap_or_default(),
    },
    Setting {
        name: "group_consumer_session_timeout",
        group: GROUPS,
        kind: seconds(1, 86_400),
        auto: None,
        what: "How long a consumer that the broker assigns its partitions may be silent before it is taken for gone (Kafka's group.consumer.session.timeout.ms)",
        effect: "Less lets the partitions of one that died be given to others sooner, and takes one that paused for dead",
        for_tests: false,
        get: |config| Value::Span(config.group_consumer_session_timeout),
        set: |config, value| config.group_consumer_session_timeout = value.span().unwrap_or_default(),
    },
    Setting {
        name: "group_consumer_heartbeat_interval",
        group: GROUPS,
        kind: Kind::Span { min: Duration::from_millis(50), max: Duration::from_secs(3600) },
        auto: None,
        what: "How often such a consumer is told to say that it is there (Kafka's group.consumer.heartbeat.interval.ms)",
        effect: "Less moves partitions sooner from one consumer to another, and costs a small request each time; nothing is written for it",
        for_tests: false,
        get: |config| Value::Span(config.group_consumer_heartbeat_interval),
        set: |config, value| config.group_consumer_heartbeat_interval = value.span().unwrap_or_default(),
    },
    Setting {
        name: "group_members_max",
        group: GROUPS,
        kind: Kind::Count { min: 1, max: 1_000_000 },
        auto: None,
        what: "Most members of a consumer group",
        effect: "Each costs some KiB of the memory, and every rebalance waits for all of them",
        for_tests: false,
        get: |config| Value::Count(config.group_members_max as u64),
        set: |config, value| config.group_members_max = value.number(),
    },
    Setting {
        name: "offsets_retention",
        group: GROUPS,
        kind: Kind::Span { min: Duration::from_secs(1), max: Duration::from_secs(3650 * 86_400) },
        auto: None,
        what: "How long the committed offsets of a consumer group are kept after its last member has left",
        effect: "Less forgets groups sooner, whose consumers then begin where auto.offset.reset says; more keeps them in the state, some 200 bytes each",
        for_tests: false,
        get: |config| Value::Span(config.offsets_retention),
        set: |config, value| config.offsets_retention = value.span().unwrap_or_default(),
    },
    Setting {
        name: "compaction_bytes",
        group: TABLES,
        kind: sizes(1 << 20, 1 << 40),
        auto: None,
        what: "A topic's rows go from the log into table files when so many bytes of them are in none",
        effect: "More makes fewer and larger files and fewer requests; less makes tables fresher for those who don't load them through the catalog",
        for_tests: false,
        get: |config| Value::Size(config.compaction_bytes),
        set: |config, value| config.compaction_bytes = value.number() as u64,
    },
    Setting {
        name: "compaction_age_min",
        group: TABLES,
        kind: seconds(10, 7 * 86_400),
        auto: None,
        what: "Or when the oldest of them have waited so long, if compaction_bytes come in that time; the fewer bytes, the longer",
        effect: "Less makes tables of busy topics fresher, and costs seven requests that write or list for each compaction",
        for_tests: false,
        get: |config| Value::Span(config.compaction_age_min),
        set: |config, value| config.compaction_age_min = value.span().unwrap_or_default(),
    },
    Setting {
        name: "compaction_age_max",
        group: TABLES,
        kind: seconds(10, 30 * 86_400),
        auto: None,
        what: "The longest that rows of a quiet topic wait for it",
        effect: "Less makes tables of quiet topics fresher, as far as compaction_quiet_per_hour lets it; more makes fewer files and requests",
        for_tests: false,
        get: |config| Value::Span(config.compaction_age_max),
        set: |config, value| config.compaction_age_max = value.span().unwrap_or_default(),
    },
    Setting {
        name: "compaction_quiet_per_hour",
        group: TABLES,
        kind: Kind::Count { min: 0, max: 1_000_000 },
        auto: None,
        what: "Compactions an hour that age alone causes, of all topics together",
        effect: "What quiet topics may cost: 2000 are about $50 a month at $5 a million requests. With 0 their rows stay in the log until a table is loaded",
        for_tests: false,
        get: |config| Value::Count(config.compaction_quiet_per_hour.into()),
        set: |config, value| config.compaction_quiet_per_hour = u32::try_from(value.number()).unwrap_or(u32::MAX),
    },
    Setting {
        name: "table_file_bytes",
        group: TABLES,
        kind: sizes(1 << 20, 4 << 30),
        auto: None,
        what: "About how large a table file becomes at most",
        effect: "Readers like files of 128MiB and more. It costs no memory: files leave it a row group at a time, each a thirty-second of memory, 4MiB to 64MiB",
        for_tests: false,
        get: |config| Value::Size(config.table_file_bytes as u64),
        set: |config, value| config.table_file_bytes = value.number(),
    },
    Setting {
        name: "catalog_refresh",
        group: TABLES,
        kind: Kind::Switch,
        auto: None,
        what: "Whether a table that is loaded through the catalog first shows everything acknowledged, if its client doesn't say",
        effect: "Off, loading is faster and costs no requests that write, and shows what was published last; a client asks for more with X-Lakebed-Refresh: true",
        for_tests: false,
        get: |config| Value::Switch(config.catalog_refresh),
        set: |config, value| config.catalog_refresh = value.switch(),
    },
    Setting {
        name: "catalog_properties",
        group: TABLES,
        kind: Kind::Properties,
        auto: Some("nothing: clients bring their own"),
        what: "What clients of the catalog are told with each table, such as s3.endpoint=http://minio.example:9000,s3.region=eu-central-1",
        effect: "Whoever can reach the HTTP port is told it, credentials too (s3.access-key-id, s3.secret-access-key): give those of a user who may only read, \
                 in a file or a variable, since flags are seen by others on the machine. \
                 A value has no comma. It is never shown, but for endpoints and regions",
        for_tests: false,
        get: |config| config.catalog_properties.as_ref().map_or(Value::Auto, |told| Value::Text(told.to_string())),
        set: |config, value| config.catalog_properties = value.text().map(Into::into),
    },
    Setting {
        name: "tail",
        group: FLUSHES,
        kind: Kind::Switch,
        auto: None,
        what: "Whether fresh records are served from memory",
        effect: "Off, each fetch reads the store: for tests of that path, and slower",
        for_tests: true,
        get: |config| Value::Switch(config.tail),
        set: |config, value| config.tail = value.switch(),
    },
    Setting {
        name: "log",
        group: WATCHING,
        kind: Kind::Text,
        auto: None,
        what: "What is logged: error, warn, info, debug, trace, or a filter such as info,lakebed_log=debug",
        effect: "warn tells what an operator must look at, info what has changed besides; debug costs throughput. RUST_LOG, if set, stands over it",
        for_tests: false,
        get: |config| Value::Text(config.log.clone()),
        set: |config, value| config.log = value.text().unwrap_or_default(),
    },
    Setting {
        name: "log_format",
        group: WATCHING,
        kind: Kind::Choice(&["text", "json"]),
        auto: Some("text on a terminal, json elsewhere"),
        what: "How log lines look",
        effect: "json is one object a line, for programs that gather logs",
        for_tests: false,
        get: |config| text_of(config.log_format.as_ref()),
        set: |config, value| config.log_format = value.text(),
    },
    Setting {
        name: "otlp_endpoint",
        group: WATCHING,
        kind: Kind::Url,
        auto: Some("no traces"),
        what: "Collector that traces are sent to, by OTLP over gRPC, such as http://127.0.0.1:4317",
        effect: "A span for each request, flush and call to the store costs a few microseconds; without a collector they cost nothing",
        for_tests: false,
        get: |config| text_of(config.otlp_endpoint.as_ref()),
        set: |config, value| config.otlp_endpoint = value.text(),
    },
    Setting {
        name: "otlp_one_in",
        group: WATCHING,
        kind: Kind::Count { min: 1, max: 1_000_000 },
        auto: None,
        what: "One of so many requests and flushes is traced",
        effect: "More spares the collector; a call that comes with a traceparent is traced if its caller's is",
        for_tests: false,
        get: |config| Value::Count(config.otlp_one_in.into()),
        set: |config, value| config.otlp_one_in = u32::try_from(value.number()).unwrap_or(u32::MAX),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A value of each setting that is not its default.
    const SAMPLES: &[(&str, &str)] = &[
        ("store", "/elsewhere"),
        ("accept_unsafe_store", "true"),
        ("kafka_listen", "[::1]:1"),
        ("listen", "[::1]:2"),
        ("advertise", "kafka.example:3"),
        ("advertise_http", "http.example:4"),
        ("zone", "eu-central-1a"),
        ("takeover_after", "5s"),
        ("auto_create_topics", "false"),
        ("default_partitions", "7"),
        ("producer_id_expiration", "5s"),
        ("retention_check_interval", "6s"),
        ("partitions_max", "8"),
        ("memory", "100MiB"),
        ("flush_interval", "77ms"),
        ("flush_bytes", "1MiB"),
        ("request_bytes_max", "2MiB"),
        ("connections_max", "11"),
        ("connections_per_address_max", "12"),
        ("connection_idle_max", "13s"),
        ("connection_age_max", "14m"),
        ("connection_age_grace", "15m"),
        ("cors_origins", "https://console.example:8443"),
        ("group_session_timeout_min", "7s"),
        ("group_session_timeout_max", "20m"),
        ("group_initial_rebalance_delay", "17s"),
        ("group_consumer_session_timeout", "31s"),
        ("group_consumer_heartbeat_interval", "700ms"),
        ("group_members_max", "18"),
        ("offsets_retention", "19m"),
        ("compaction_bytes", "2MiB"),
        ("compaction_age_min", "21s"),
        ("compaction_age_max", "22m"),
        ("compaction_quiet_per_hour", "23"),
        ("table_file_bytes", "24MiB"),
        ("catalog_refresh", "false"),
        ("catalog_properties", "s3.region=eu-central-1,client.region=eu-central-1"),
        ("tail", "false"),
        ("log", "debug"),
        ("log_format", "json"),
        ("otlp_endpoint", "http://127.0.0.1:4317"),
        ("otlp_one_in", "16"),
    ];

    #[test]
    fn every_setting_is_shown_as_it_was_set_and_leaves_the_others_alone() {
        let (mut config, default) = (Config::default(), Config::default());
        for (name, text) in SAMPLES {
            let setting = Setting::named(name).unwrap();
            setting.set(&mut config, text).unwrap();
            assert_eq!(setting.value(&config).to_string(), *text, "{name} is shown as it was set");
            let mut alone = default.clone();
            setting.set(&mut alone, text).unwrap();
            let others = TABLE.iter().filter(|other| other.name != *name);
            for other in others {
                assert_eq!(other.value(&alone), other.value(&default), "{name} leaves {} alone", other.name);
            }
        }
        assert_eq!(SAMPLES.len(), TABLE.len());
    }

    #[test]
    fn every_field_of_the_configuration_has_a_setting() {
        let (mut config, default) = (Config::default(), Config::default());
        for (name, text) in SAMPLES {
            Setting::named(name).unwrap().set(&mut config, text).unwrap();
        }
        // A field that is missing here does not compile; one without a setting is as it was by default.
        macro_rules! differ {
            ($($field:ident)*) => {
                let Config { $($field),* } = config;
                $(assert_ne!($field, default.$field, stringify!($field));)*
            };
        }
        differ!(
            store accept_unsafe_store kafka_listen http_listen advertise advertise_http zone takeover_after memory_bytes auto_create_topics
            default_partitions producer_id_expiration retention_check_interval partitions_max flush_interval flush_bytes
            request_bytes_max tail connections_max connections_per_address_max connection_idle_max
            connection_age_max connection_age_grace cors_origins group_session_timeout_min
            group_session_timeout_max group_initial_rebalance_delay group_consumer_session_timeout
            group_consumer_heartbeat_interval group_members_max offsets_retention compaction_bytes
            compaction_age_min compaction_age_max compaction_quiet_per_hour table_file_bytes
            catalog_refresh catalog_properties log log_format otlp_endpoint otlp_one_in
        );
    }

    #[test]
    fn every_setting_says_what_it_is_and_what_it_does() {
        for setting in TABLE {
            assert!(setting.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", setting.name);
            assert!(setting.what.len() > 10 && setting.effect.len() > 10, "{}", setting.name);
            assert!(!setting.what.ends_with('.') && !setting.effect.ends_with('.'), "{}", setting.name);
            assert_eq!(TABLE.iter().filter(|other| other.name == setting.name).count(), 1, "{}", setting.name);
        }
    }

    #[test]
    fn auto_is_a_value_where_it_stands_for_something() {
        for setting in TABLE {
            let mut config = Config::default();
            let shown = setting.set(&mut config, "auto").map(|()| setting.value(&config));
            match setting.auto {
                Some(_) => assert_eq!(shown, Ok(Value::Auto), "{}", setting.name),
                None if matches!(setting.kind, Kind::Url | Kind::Text) => {}
                None => assert!(shown.is_err(), "{}", setting.name),
            }
        }
    }
}
