//! A term: what a broker is to the log for a while, the sequencer's or a follower's. The rooms of a term go with it.
//!
//! A broker that is fenced, or is to take over, does what it would do if it were started anew, in the same process and on the same ports: what is in
//! memory was true of the term before. Connections are told to come again, as when a broker stops.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use lakebed_compact::{Cleaner, CompactionOptions, Compactor, KeyOptions, Merger, Retainer, Turn};
use lakebed_fetch::{Fetch, Published};
use lakebed_ingest::{Committed, Ingest};
use lakebed_lake::{Catalog, CatalogOptions};
use lakebed_log::{Log, Seams};
use lakebed_model::{CommitNumber, State};
use lakebed_store::{Priority, Store};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tonic_health::server::HealthReporter;

use super::ground::Ground;
use super::parts::{Parts, part_ended};
use super::{RunError, default_flush_interval, expiring, merging, quiet};
use crate::admission::inflated_bytes_max;
use crate::cluster::leads;
use crate::config::{Config, SecretProperties};
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

/// How long connections may take to end when a term does: clients wait for the next one.
const CHANGE_MAX: Duration = Duration::from_secs(1);

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

/// See the module.
#[derive(Debug)]
pub(super) struct Term {
    pub(super) rooms: Arc<Rooms>,
    pub(super) lifetime: Lifetime,
    pub(super) health: HealthReporter,
    pub(super) parts: Parts,
}

impl Term {
    /// Serves a log that was opened just now.
    pub(super) async fn begin(ground: &Ground, log: Log) -> Self {
        let (rooms, publishing, merging) = connect(ground, log);
        let rooms = Arc::new(rooms);
        let is_leading = leads(&rooms.log);
        let lifetime = Lifetime::default();
        let request_budgets = RequestBudgets::new(rooms.config.budget().requests_bytes);
        let service = Arc::new(Service::new(Arc::clone(&rooms), request_budgets.clone()));
        let (shutdown, clients) = (lifetime.shutdown.clone(), lifetime.clients.clone());
        let listener = listener::listen(
            Arc::clone(&ground.kafka),
            Arc::clone(&service),
            shutdown,
            lifetime.cut.clone(),
            clients.clone(),
        );
        let prober = quiet::probe_when_quiet(rooms.log.clone(), clients, Arc::clone(&rooms.metrics));
        let about = grpc::About {
            kafka_address: ground.kafka_advertised(),
            http_address: ground.http_address.to_string(),
            started: ground.started,
        };
        let (services, health) = grpc::routes(Arc::clone(&service), about).await;
        let options = http::listener::Options {
            router: http::router(Arc::clone(&rooms), services, request_budgets),
            config: rooms.config.clone(),
            metrics: Arc::clone(&rooms.metrics),
            seed: rooms.seams.seed,
        };
        let http_listener = http::listener::listen(Arc::clone(&ground.http), options, lifetime.clone());
        let expirer = expiring::expire_idle_producers(rooms.log.clone(), rooms.config.producer_id_expiration);
        let retainer = rooms.retainer.clone();
        if !is_leading {
            // Members look for the coordinator, and find the sequencer.
            rooms.groups.stop();
        }
        // Some parts only a sequencer has.
        let parts = Parts {
            listening: spawn(listener),
            listening_http: spawn(http_listener),
            publishing,
            merging,
            tabling: part_of(is_leading, rooms.tables.clone().run()),
            retaining: part_of(is_leading, async move { retainer.run().await }),
            grouping: part_of(is_leading, rooms.groups.clone().run()),
            probing: part_of(is_leading, prober),
            expiring: part_of(is_leading, expirer),
            keeping_members: match &ground.cluster {
                Some(cluster) => part_of(is_leading, Arc::clone(cluster).keep_members(rooms.log.clone())),
                None => spawn(std::future::pending()),
            },
        };
        Self { rooms, lifetime, health, parts }
    }

    /// Waits until the term is over, and says why.
    ///
    /// # Cancel It goes on.
    pub(super) async fn ended(&mut self) -> RunError {
        let log = &self.rooms.log;
        tokio::select! {
            biased;
            closed = log.closed() => RunError::LogClosed(closed),
            () = self.rooms.ingest.ended() => part_ended(log, "write path", Ok(())),
            ended = self.parts.ended(log) => ended,
        }
    }

    /// Ends the term: nobody is served by its rooms any more.
    pub(super) async fn end(self) {
        let Self { rooms, lifetime, parts, .. } = self;
        lifetime.shutdown.cancel();
        lifetime.clients.close();
        rooms.fetch.stop_waiting();
        rooms.groups.stop();
        // The log is closed, so whatever was accepted is answered at once.
        drop(tokio::time::timeout(CHANGE_MAX, rooms.ingest.drain()).await);
        close(&lifetime, CHANGE_MAX).await;
        parts.stop().await;
    }
}

/// Ends the connections of a term, of which no more requests are read already.
pub(super) async fn close(lifetime: &Lifetime, within: Duration) {
    let Lifetime { drained, cut, connections, clients, .. } = lifetime;
    drained.cancel();
    connections.close();
    // Every stream has been told, and says its status; who does not read it is not waited for.
    if tokio::time::timeout(within, async { (connections.wait().await, clients.wait().await) }).await.is_err() {
        tracing::warn!(connections = connections.len() + clients.len(), "connections were cut off");
    }
    cut.cancel();
    connections.wait().await;
}

fn spawn(part: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(part))
}

/// A part that only some terms have; in others nothing is done in its place.
fn part_of(is_leading: bool, part: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    if is_leading { spawn(part) } else { spawn(std::future::pending()) }
}

/// The rooms of a term, and the tasks that publish and merge.
fn connect(ground: &Ground, log: Log) -> (Rooms, AbortOnDropHandle<()>, AbortOnDropHandle<()>) {
    let (config, store, seams) = (ground.config.clone(), ground.store.clone(), log.seams());
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
    // Before readers see what is durable now: what comes after it is told to them.
    let (commits, seen) = (log.watch(), log.state());
    let fetch = Fetch::new(log.clone(), store.with_priority(Priority::Tail), fetch_options);
    let metrics = Arc::clone(&ground.metrics);
    let publishing = match leads(&log) {
        true => spawn(publish(committed, fetch.clone(), Arc::clone(&metrics), seams.clone())),
        false => spawn(see(log.clone(), commits, seen, fetch.clone())),
    };
    let background = store.with_priority(Priority::Compaction);
    let (merger, compactor, cleaner) = rewriters(&config, &log, &background);
    let cleaning = cleaner.counts();
    let merges = merger.counts();
    let merging = part_of(leads(&log), merging::merge(merger, compactor.clone(), cleaner, ingest.clone()));
    let producer_ids = ProducerIds::new(log.clone());
    let topics = Topics::new(log.clone(), config.default_partitions, config.partitions_max, seams.seed);
    let groups = Groups::new(log.clone(), groups_options(&config, flush_interval));
    let tables =
        Tables::new(log.clone(), store.with_priority(Priority::Tail), compactor.clone(), TableOptions::default());
    let retainer = Retainer::new(log.clone(), background, compactor.clone(), config.retention_check_interval);
    let catalog = Catalog::new(Arc::new(Fresh::new(tables.clone())), catalog_options(&config));
    let rooms = Rooms {
        config,
        store: store.with_priority(Priority::Backfill),
        log,
        cluster: ground.cluster.clone(),
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
    (rooms, publishing, merging)
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

/// Hands what this broker has committed to the readers. Ends with the write path.
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

/// Lets readers see what another broker has committed. Ends with the log.
async fn see(log: Log, mut commits: watch::Receiver<CommitNumber>, mut seen: State, fetch: Fetch) {
    while commits.changed().await.is_ok() {
        let state = log.state();
        fetch.see(state.grown_since(&seen));
        seen = state;
    }
}

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
