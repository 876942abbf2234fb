//! A broker from its start to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use lakebed_compact::{Cleaner, CompactionOptions, Compactor, KeyOptions, Merger, Retainer, Turn};
use lakebed_fetch::{Fetch, Published};
use lakebed_ingest::{Committed, Ingest};
use lakebed_lake::{Catalog, CatalogOptions};
use lakebed_log::{Closed, Log, Offload, Seams};
use lakebed_store::{Store, StoreOptions};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;
use tonic_health::server::HealthReporter;

use crate::admission::inflated_bytes_max;
use crate::check::{self, UnsafeError};
use crate::config::{Config, SecretProperties, Wrong};
use crate::damage::DamageLog;
use crate::groups::{self, Groups, machine::Limits};
use crate::grpc;
use crate::http::{self, listener::Lifetime};
use crate::kafka::{Service, listener};
use crate::metrics::Metrics;
use crate::producer_ids::ProducerIds;
use crate::readiness::Readiness;
use crate::request_memory::RequestBudgets;
use crate::rooms::Rooms;
use crate::tables::catalog::Fresh;
use crate::tables::{TableOptions, Tables};
use crate::topics::{Topics, settings};

mod expiring;
mod merging;
mod parts;
mod quiet;

use parts::{Parts, part_ended};

/// How long what was accepted may take to become durable when the broker stops: less than the 30 s that supervisors give it.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(20);
/// How long connections may take to end after what was accepted is durable.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// A merge holds about three times its bytes: one so many-th of the memory, within these bounds.
const MERGE_SHARE: u64 = 64;
const MERGE_BYTES_MIN: u64 = 2 << 20;
const MERGE_BYTES_MAX: u64 = 64 << 20;

/// Where each key of a partition was seen last is held in memory while keys are compacted: one so many-th of the memory, within these bounds
/// (16 MiB hold 460,000 keys).
const KEYS_SHARE: usize = 32;
const KEYS_BYTES_MIN: usize = 1 << 20;
const KEYS_BYTES_MAX: usize = 512 << 20;
/// What is written of table files is in memory a row group at a time, about three times (encoded, decoded again in parts, on its way to the store):
/// one so many-th of the memory, within these bounds.
const GROUP_SHARE: usize = 32;
const GROUP_BYTES_MIN: usize = 4 << 20;
const GROUP_BYTES_MAX: usize = 64 << 20;

/// From this part of the live runs that there may be on, merging no longer waits for what is worth it.
const RUNS_HIGH_SHARE: usize = 5;

/// A broker that serves.
#[derive(Debug)]
pub struct Broker {
    rooms: Arc<Rooms>,
    kafka_address: SocketAddr,
    http_address: SocketAddr,
    lifetime: Lifetime,
    health: HealthReporter,
    parts: Parts,
}

/// Why a broker does not start. Nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings are wrong.
    #[error("the configuration is wrong: {}", problems.iter().map(|wrong| format!("{} {}", wrong.setting, wrong.what)).collect::<Vec<_>>().join("; "))]
    Config {
        /// All that is wrong.
        problems: Vec<Wrong>,
    },
    /// The store can't be opened.
    #[error("the store {url} can't be opened")]
    Store {
        /// The store.
        url: String,
        /// Why.
        source: lakebed_store::OpenError,
    },
    /// The store is not one that the log can rest on.
    #[error(transparent)]
    Unsafe(#[from] UnsafeError),
    /// The log can't be opened.
    #[error("the log in {url} can't be opened")]
    Log {
        /// The store.
        url: String,
        /// Why.
        source: lakebed_log::OpenError,
        /// What a person can do about it, where the store says it.
        remedy: Option<String>,
    },
    /// A port can't be bound.
    #[error("{purpose} can't listen on {address}")]
    Listen {
        /// Which listener.
        purpose: &'static str,
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
}

impl StartError {
    /// The setting whose value could not be used, where it is one.
    pub fn setting(&self) -> Option<&'static str> {
        match self {
            Self::Config { .. } => None,
            Self::Store { .. } | Self::Unsafe(_) | Self::Log { .. } => Some("store"),
            Self::Listen { purpose: "Kafka", .. } => Some("kafka_listen"),
            Self::Listen { .. } => Some("listen"),
        }
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config { .. } => "CONFIG_INVALID",
            Self::Store { source: lakebed_store::OpenError::InUse { .. }, .. } => "STORE_IN_USE",
            Self::Store { .. } => "STORE_NOT_OPENED",
            Self::Unsafe(UnsafeError::Broken { .. }) => "STORE_UNSAFE",
            Self::Unsafe(_) => "STORE_NOT_ASKED",
            Self::Log { source: lakebed_log::OpenError::Rootless { .. }, .. } => "ROOT_LOST",
            Self::Log { .. } => "LOG_NOT_OPENED",
            Self::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => "ADDRESS_IN_USE",
            Self::Listen { .. } => "NOT_LISTENING",
        }
    }

    /// What a person can do about it, where that is known.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Config { .. } => None,
            Self::Store { source: lakebed_store::OpenError::InUse { .. }, .. } => {
                Some("stop the other process, or choose another directory with --store".to_owned())
            }
            Self::Store { .. } => {
                Some("check the URL of the store, its credentials, and that they allow to write there".to_owned())
            }
            Self::Unsafe(error) => error.remedy(),
            Self::Log { remedy: Some(remedy), .. } => Some(remedy.clone()),
            Self::Log { url, source: lakebed_log::OpenError::Rootless { left }, .. } => Some(without_root(url, left)),
            Self::Log { .. } => Some("nothing in the store was touched; look at the object that is named".to_owned()),
            Self::Listen { purpose, source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
                let flag = if *purpose == "Kafka" { "--kafka-listen" } else { "--listen" };
                Some(format!(
                    "another process has that port: choose another with {flag} ADDR, or port 0 for a free one"
                ))
            }
            Self::Listen { purpose, .. } => {
                let flag = if *purpose == "Kafka" { "--kafka-listen" } else { "--listen" };
                Some(format!("give an address of this machine with {flag} ADDR"))
            }
        }
    }
}

/// What can be done where the log has lost its root.
fn without_root(url: &str, left: &lakebed_log::Left) -> String {
    let whole = "put lakebed.json back from a backup or an earlier version of the object";
    let anew = "to begin an empty cluster all the same, choose another root with --store, or move";
    match left {
        lakebed_log::Left { recovery: true, .. } => {
            format!("run `lakebed recover {url}` again: it begins anew what was interrupted")
        }
        lakebed_log::Left { log: Some(_), table: Some(_), .. } => format!(
            "{whole}; if it is lost, move cells/ elsewhere, keep it, and run `lakebed recover {url}`, which makes a cluster of the tables (docs/recovery.md); \
             {anew} both cells/ and tables/ away"
        ),
        lakebed_log::Left { table: Some(_), .. } => format!(
            "put lakebed.json and cells/ back from a backup; if they are lost, run `lakebed recover {url}`, which makes a cluster of the tables \
             (docs/recovery.md); {anew} tables/ away"
        ),
        lakebed_log::Left { .. } => format!("{whole}; {anew} cells/ away"),
    }
}

/// How a broker ended without having been asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The log closed: this broker commits nothing more.
    #[error("{0}")]
    LogClosed(Closed),
    /// A part of the broker ended that must not.
    #[error("the {part} ended: {why}")]
    PartEnded {
        /// Which part.
        part: &'static str,
        /// What is known of it.
        why: String,
    },
    /// The store took nothing more while the broker was stopping.
    #[error(
        "what producers had sent could not be made durable within {} s of stopping, so its fate is unknown to them: see what the store says",
        DRAIN_MAX.as_secs()
    )]
    NotDrained,
}

impl Broker {
    /// Opens the store and the log, and serves.
    ///
    /// # Errors
    /// [`StartError`]; the log may have been taken over.
    /// # Cost
    /// The requests of opening a log; see [`Log::open`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let problems = config.validate();
        if !problems.is_empty() {
            return Err(StartError::Config { problems });
        }
        let url = config.store.to_string();
        let free_buffers_bytes = config.budget().free_bodies_bytes;
        let options = StoreOptions { seed: seams().seed, free_buffers_bytes, ..StoreOptions::default() };
        let store = Store::open(config.store.expose(), &options).map_err(|source| StartError::Store { url, source })?;
        Self::start_on(store, config).await
    }

    /// As [`Broker::start`], on a store that is open already; `config.store` only says what kind it is.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn start_on(store: Store, config: Config) -> Result<Self, StartError> {
        // Before the log is taken over: a broker that can't serve must not fence one that does.
        let kafka = bind("Kafka", &config.kafka_listen).await?;
        let http = bind("HTTP", &config.http_listen).await?;
        let (kafka_address, http_address) = (address(&kafka), address(&http));
        let (rooms, publishing, merging) = open(store, config).await?;
        let rooms = Arc::new(rooms);
        let lifetime = Lifetime::default();
        let request_budgets = RequestBudgets::new(rooms.config.budget().requests_bytes);
        let service = Arc::new(Service::new(Arc::clone(&rooms), request_budgets.clone()));
        let listener = listener::listen(kafka, service, lifetime.shutdown.clone(), lifetime.clients.clone());
        let clients = lifetime.clients.clone();
        let prober = quiet::probe_when_quiet(rooms.log.clone(), clients, Arc::clone(&rooms.metrics));
        let about = grpc::About {
            kafka_address: rooms.config.advertise.clone().unwrap_or_else(|| kafka_address.to_string()),
            http_address: http_address.to_string(),
            started: tokio::time::Instant::now(),
        };
        let (services, health) = grpc::routes(Arc::clone(&rooms), about).await;
        let options = http::listener::Options {
            router: http::router(Arc::clone(&rooms), services, request_budgets),
            config: rooms.config.clone(),
            metrics: Arc::clone(&rooms.metrics),
            seed: rooms.seams.seed,
        };
        let http_listener = http::listener::listen(http, options, lifetime.clone());
        let expirer = expiring::expire_idle_producers(rooms.log.clone(), rooms.config.producer_id_expiration);
        let (listening, listening_http, probing) = (spawn(listener), spawn(http_listener), spawn(prober));
        let (grouping, expiring) = (spawn(rooms.groups.clone().run()), spawn(expirer));
        let tabling = spawn(rooms.tables.clone().run());
        let retainer = rooms.retainer.clone();
        let retaining = spawn(async move { retainer.run().await });
        let parts =
            Parts { listening, listening_http, publishing, merging, tabling, retaining, grouping, probing, expiring };
        tracing::info!(kafka = %kafka_address, http = %http_address, store = rooms.store.url(), "the broker serves");
        Ok(Self { rooms, kafka_address, http_address, lifetime, health, parts })
    }

    /// Where Kafka clients connect.
    pub fn kafka_address(&self) -> SocketAddr {
        self.kafka_address
    }

    /// Where gRPC and HTTP clients connect.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// The root of the log as a URL, without secrets.
    pub fn store_url(&self) -> &str {
        self.rooms.store.url()
    }

    /// The rooms that the listeners work with.
    pub fn rooms(&self) -> &Arc<Rooms> {
        &self.rooms
    }

    /// Serves until `asked_to_stop` resolves, then stops in order: no more requests are read, what was accepted becomes durable and
    /// is answered.
    ///
    /// # Errors
    /// [`RunError`] if it ended before that.
    pub async fn run_until(mut self, asked_to_stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let log = &self.rooms.log;
        let mut outcome = tokio::select! {
            biased;
            closed = log.closed() => Err(RunError::LogClosed(closed)),
            () = self.rooms.ingest.ended() => Err(part_ended(log, "write path", Ok(()))),
            ended = self.parts.ended(log) => Err(ended),
            () = asked_to_stop => Ok(()),
        };
        self.rooms.readiness.drain((self.rooms.seams.wall)());
        grpc::stop_serving(&self.health).await;
        let Lifetime { shutdown, drained, cut, connections, clients } = &self.lifetime;
        shutdown.cancel();
        clients.close();
        // Readers that wait for records would wait on.
        self.rooms.fetch.stop_waiting();
        self.rooms.groups.stop();
        if outcome.is_ok() && tokio::time::timeout(DRAIN_MAX, self.rooms.ingest.drain()).await.is_err() {
            outcome = Err(RunError::NotDrained);
        }
        drained.cancel();
        connections.close();
        // Every stream has been told, and says its status; who does not read it is not waited for.
        if tokio::time::timeout(CLOSE_MAX, async { (connections.wait().await, clients.wait().await) }).await.is_err() {
            tracing::warn!(connections = connections.len() + clients.len(), "connections were cut off");
        }
        cut.cancel();
        connections.wait().await;
        self.parts.stop().await;
        outcome
    }
}

fn spawn(part: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(part))
}

async fn bind(purpose: &'static str, address: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen {
        purpose,
        address: address.to_owned(),
        source,
    })
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("a bound listener has an address")
}

/// The rooms, and the tasks that publish and merge.
async fn open(
    store: Store,
    config: Config,
) -> Result<(Rooms, AbortOnDropHandle<()>, AbortOnDropHandle<()>), StartError> {
    let seams = seams();
    match config.accept_unsafe_store {
        false => check::refuse_unsafe(&store, seams.seed).await?,
        true => tracing::warn!(store = store.url(), "whether the store keeps what the log needs is not asked, as told"),
    }
    let opened = Log::open(store.clone(), lakebed_log::Options::default(), seams.clone()).await;
    let log = opened.map_err(|source| {
        let remedy = store.remedy(&source);
        StartError::Log { url: store.url().to_owned(), source, remedy }
    })?;
    let budget = config.budget();
    let flush_interval = config.flush_interval.unwrap_or_else(|| default_flush_interval(store.url()));
    let ingest_options = lakebed_ingest::Options {
        flush_bytes: config.flush_bytes,
        flush_interval,
        buffer_bytes: budget.ingest_bytes,
        live_runs_max: budget.live_runs_max,
        ..lakebed_ingest::Options::default()
    };
    let (ingest, committed) = Ingest::start(log.clone(), ingest_options);
    let fetch_options = lakebed_fetch::Options {
        tail_bytes: budget.tail_bytes,
        cache_bytes: budget.cache_bytes,
        ..lakebed_fetch::Options::default()
    };
    let fetch = Fetch::new(log.clone(), store.clone(), fetch_options);
    let metrics = Arc::new(Metrics::new());
    let publishing = spawn(publish(committed, fetch.clone(), Arc::clone(&metrics), seams.clone()));
    let (merger, compactor, cleaner) = rewriters(&config, &log, &store);
    let cleaning = cleaner.counts();
    let merges = merger.counts();
    let merging = spawn(merging::merge(merger, compactor.clone(), cleaner, ingest.clone()));
    let producer_ids = ProducerIds::new(log.clone());
    let topics = Topics::new(log.clone(), config.default_partitions, config.partitions_max, seams.seed);
    let groups = Groups::new(log.clone(), groups_options(&config, flush_interval));
    let tables = Tables::new(log.clone(), store.clone(), compactor.clone(), TableOptions::default());
    let retainer = Retainer::new(log.clone(), store.clone(), compactor.clone(), config.retention_check_interval);
    let catalog = Catalog::new(Arc::new(Fresh::new(tables.clone())), catalog_options(&config));
    let rooms = Rooms {
        config,
        store,
        log,
        ingest,
        fetch,
        topics,
        producer_ids,
        catalog,
        groups,
        seams,
        damage: DamageLog::default(),
        metrics,
        readiness: Readiness::default(),
        merges,
        tables,
        compactor,
        cleaning,
        retainer,
        inflating: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
        inflated_bytes_max: inflated_bytes_max(&budget),
        turns: AtomicU32::new(0),
    };
    Ok((rooms, publishing, merging))
}

fn catalog_options(config: &Config) -> CatalogOptions {
    let told = config.catalog_properties.iter().flat_map(SecretProperties::expose);
    let told = told.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    CatalogOptions { refresh: config.catalog_refresh, config: told, ..CatalogOptions::default() }
}

/// What merges and what compacts, which take turns, and what compacts keys.
fn rewriters(config: &Config, log: &Log, store: &Store) -> (Merger, Compactor, Cleaner) {
    let merge_bytes_max = (config.memory_bytes as u64 / MERGE_SHARE).clamp(MERGE_BYTES_MIN, MERGE_BYTES_MAX);
    let merge_options = lakebed_compact::Options {
        bytes_max: merge_bytes_max,
        runs_high: config.budget().live_runs_max / RUNS_HIGH_SHARE,
        ..lakebed_compact::Options::default()
    };
    let compaction_options = CompactionOptions {
        bytes: config.compaction_bytes,
        age_min: config.compaction_age_min,
        age_max: config.compaction_age_max,
        quiet_per_hour: config.compaction_quiet_per_hour,
        file_bytes_max: config.table_file_bytes,
        group_bytes: (config.memory_bytes / GROUP_SHARE).clamp(GROUP_BYTES_MIN, GROUP_BYTES_MAX),
        retention: settings::retention,
        ..CompactionOptions::default()
    };
    let turn = Turn::default();
    let merger = Merger::new(log.clone(), store.clone(), merge_options).taking_turns(turn.clone());
    let key_options = KeyOptions {
        map_bytes: (config.memory_bytes / KEYS_SHARE).clamp(KEYS_BYTES_MIN, KEYS_BYTES_MAX),
        file_bytes_max: compaction_options.file_bytes_max / 2,
        group_bytes: compaction_options.group_bytes,
        retention: compaction_options.retention,
    };
    let compactor = Compactor::new(log.clone(), store.clone(), compaction_options, turn);
    let cleaner = Cleaner::new(log.clone(), store.clone(), key_options, &compactor);
    (merger, compactor, cleaner)
}

/// Hands what was committed to the readers. Ends with the write path.
async fn publish(mut committed: mpsc::Receiver<Vec<Committed>>, fetch: Fetch, metrics: Arc<Metrics>, seams: Seams) {
    while let Some(batches) = committed.recv().await {
        let published = batches.into_iter().map(|batch| {
            let Committed { partition, base_offset, last_offset, batch } = batch;
            Published { partition, base_offset, last_offset, batch }
        });
        fetch.publish(&published.collect::<Vec<Published>>());
        metrics.published((seams.wall)());
    }
}

/// The spacing of flushes that suits what a write costs there.
fn groups_options(config: &Config, interval: Duration) -> groups::Options {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let bytes = config.budget().groups_bytes;
    groups::Options {
        limits: Limits {
            session_min: millis(config.group_session_timeout_min),
            session_max: millis(config.group_session_timeout_max),
            initial_delay: millis(config.group_initial_rebalance_delay),
            members_max: config.group_members_max,
            bytes_max: bytes / 4 * 3,
        },
        interval,
        retention: config.offsets_retention,
        waiting_bytes: bytes / 4,
    }
}

fn default_flush_interval(url: &str) -> Duration {
    match url.split(':').next() {
        Some("memory") => Duration::ZERO,
        Some("file") => Duration::from_millis(2),
        _ => Duration::from_millis(250),
    }
}

/// The one place where the clock and randomness of the machine come in.
#[allow(clippy::disallowed_methods)]
fn seams() -> Seams {
    let wall = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    };
    Seams { wall: Arc::new(wall), seed: rand::random(), offload: Offload::Blocking }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spacing_of_flushes_goes_by_the_kind_of_store() {
        for (url, expected_ms) in
            [("memory://", 0), ("file:///data", 2), ("s3://bucket/root", 250), ("gs://bucket", 250)]
        {
            assert_eq!(default_flush_interval(url), Duration::from_millis(expected_ms), "{url}");
        }
    }

    #[tokio::test]
    async fn a_part_that_ends_ends_the_broker_and_is_named() {
        type Ends = fn(&Broker);
        let parts: [(&str, Ends); 8] = [
            ("Kafka listener", |broker| broker.parts.listening.abort()),
            ("hand-over to readers", |broker| broker.parts.publishing.abort()),
            ("merging", |broker| broker.parts.merging.abort()),
            ("publication of tables", |broker| broker.parts.tabling.abort()),
            ("retention", |broker| broker.parts.retaining.abort()),
            ("look for a takeover", |broker| broker.parts.probing.abort()),
            ("HTTP listener", |broker| broker.parts.listening_http.abort()),
            ("expiry of producers", |broker| broker.parts.expiring.abort()),
        ];
        for (name, end) in parts {
            let broker = Broker::start(Config::default()).await.unwrap();
            end(&broker);
            let told = broker.run_until(std::future::pending()).await.unwrap_err();
            assert!(matches!(told, RunError::PartEnded { part, .. } if part == name), "{name}: {told}");
            assert_eq!(told.to_string().lines().count(), 1, "{told}");
        }
    }
}
