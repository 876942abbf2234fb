//! The rooms of one broker, opened and connected: what every listener works with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lakebed_fetch::Fetch;
use lakebed_ingest::Ingest;
use lakebed_lake::Catalog;
use lakebed_log::{Log, Seams};
use lakebed_store::Store;
use tokio::sync::Semaphore;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::damage::DamageLog;
use crate::groups::Groups;
use crate::metrics::Metrics;
use crate::producer_ids::ProducerIds;
use crate::readiness::Readiness;
use crate::tables::Tables;
use crate::topics::Topics;

/// The rooms of one broker.
#[derive(Debug)]
pub struct Rooms {
    /// What the broker was told.
    pub config: Config,
    /// The door to the bucket.
    pub store: Store,
    /// The commit log.
    pub log: Log,
    /// The write path.
    pub ingest: Ingest,
    /// The other brokers; none if the store is this process's alone.
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// The read path.
    pub fetch: Fetch,
    /// Topics.
    pub topics: Topics,
    /// Ids for idempotent producers.
    pub producer_ids: ProducerIds,
    /// The tables' REST catalog.
    pub catalog: Catalog,
    /// Consumer groups.
    pub(crate) groups: Groups,
    /// The clock, the seed, and where heavy work runs.
    pub seams: Seams,
    /// What was told of damaged objects.
    pub damage: DamageLog,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether the broker can do its work.
    pub readiness: Readiness,
    /// What merging has done.
    pub merges: Arc<lakebed_compact::Counts>,
    /// Puts rows into table files.
    pub compactor: lakebed_compact::Compactor,
    /// What the compaction of keys has done.
    pub cleaning: Arc<lakebed_compact::CleaningCounts>,
    /// Removes what topics don't keep.
    pub retainer: lakebed_compact::Retainer,
    /// Publishes tables.
    pub(crate) tables: Tables,
    /// Requests with compressed batches that are decompressed and not in the ingest buffer yet: as many as there are cores.
    pub(crate) inflating: Arc<Semaphore>,
    /// Most bytes of one request's batches once decompressed.
    pub(crate) inflated_bytes_max: usize,
    /// How many records without key and partition have been placed.
    pub(crate) turns: AtomicU32,
}

impl Rooms {
    /// Counts up, so that records without a key go round the partitions.
    pub(crate) fn next_turn(&self) -> u32 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }
}
