//! A cluster made anew from its tables, after its log and checkpoints were lost.
//!
//! 1. Every file is read and verified before anything is written, and what is written refers to what was read: offsets and hashes are those of
//!    the rows.
//! 2. An offset is served from one file: of those that the newest version of the table shows, else the newest that has it. So no row is lost
//!    that a file has, and none comes twice. See [`choose`].
//! 3. What can't be read is told by name, with the offsets that are missing. Unless told to go on without, nothing is written then; see [`mend`].
//! 4. Tables keep their ids and go on with a version above all that stand; the files stay where they are.

mod choose;
mod facts;
mod mend;
mod plan;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use lakebed_log::FoundError;
use lakebed_log::{found, mark_as_to_be_founded, may_be_founded};
use lakebed_model::ids::{Directory, Epoch};
use lakebed_model::{CommitNumber, FeatureLevel, Generation, NodeId, Nonce, Place, SegmentId, Snapshot, Table, Topic};
use lakebed_segment::commit::Identity;
use lakebed_segment::layout;
use lakebed_store::{DeleteError, Key, ListError, ReadError, Store, StoreOptions};
use uuid::Uuid;

use super::StorageError;
use mend::Mint;
use plan::{Planned, plan};
use verify::Verifier;

/// How a cluster is recovered.
#[derive(Debug, Clone)]
pub struct RecoverOptions {
    /// Verify everything, and write nothing.
    pub dry_run: bool,
    /// Go on without what can't be read, in place of stopping: it is set aside, and the rest is recovered.
    pub set_aside: bool,
    /// The time, in milliseconds since 1970.
    pub now_ms: i64,
    /// Must differ between processes.
    pub seed: u64,
}

/// What a recovery came to.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The root, without secrets.
    pub url: String,
    /// The cluster, as the files name it.
    pub cluster_id: Uuid,
    /// Whether an earlier recovery had been interrupted.
    pub resumed: bool,
    /// Whether the cluster stands now.
    pub written: bool,
    /// What is in it, by name.
    pub topics: Vec<RecoveredTopic>,
    /// Tables of which nothing can be recovered, and why.
    pub left_out: Vec<(String, String)>,
    /// What can't be read, by key, and why. Not all of it may have been needed.
    pub damaged: Vec<(String, String)>,
    /// Records that no file has that can be read.
    pub missing: Vec<Missing>,
    /// What is wrong with a topic besides.
    pub wrong: Vec<(String, String)>,
    /// What was set aside: its former key, and its new one.
    pub set_aside: Vec<(String, String)>,
}

impl Recovered {
    /// Whether everything comes back, as far as anything tells.
    pub fn is_whole(&self) -> bool {
        self.left_out.is_empty() && self.missing.is_empty() && self.wrong.is_empty()
    }
}

/// Records of a partition that no file has that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Their topic.
    pub topic: String,
    /// Their partition.
    pub partition: u32,
    /// The first offset.
    pub first_offset: u64,
    /// The last offset.
    pub last_offset: u64,
    /// Whether they are missing for sure; else all that is known is that there may have been some of these.
    pub is_sure: bool,
    /// Why.
    pub why: String,
}

/// A topic that was recovered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveredTopic {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Where each partition begins and ends.
    pub partitions: Vec<(u32, u64, u64)>,
    /// How many files hold its records.
    pub files: usize,
    /// Files that others have taken the place of.
    pub superseded: usize,
    /// How many records it has.
    pub rows: u64,
    /// The version with which its table goes on.
    pub version: u32,
    /// Its settings.
    pub config: BTreeMap<String, String>,
    /// What is not known of it, or is not as its metadata tells.
    pub notes: Vec<String>,
}

/// Why nothing was recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The store could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The log can't be made there, or could not be written.
    #[error("a log can't be made there")]
    Found(#[from] FoundError),
    /// There are no tables.
    #[error("there are no files of tables at {url}")]
    Nothing {
        /// The root.
        url: String,
    },
    /// The files are of several clusters.
    #[error("the files are of several clusters: {one} has cluster {}, {other} has {}", of_one.cluster_id, of_other.cluster_id)]
    Clusters {
        /// A file.
        one: String,
        /// Whose it is.
        of_one: Identity,
        /// Another.
        other: String,
        /// Whose that is.
        of_other: Identity,
    },
    /// A cluster of several cells can't be recovered.
    #[error("{file} is of cell {}, and only clusters of one cell can be recovered", of.cell)]
    Cells {
        /// A file.
        file: String,
        /// Whose it is.
        of: Identity,
    },
    /// What is to be written in place of what is missing could not be.
    #[error("{file}: {what}")]
    NotMended {
        /// The file.
        file: String,
        /// Why.
        what: String,
    },
    /// The cluster stands, but what was set aside could not be deleted from its former place.
    #[error("the cluster stands, but what was set aside could not be deleted")]
    NotDeleted(#[from] DeleteError),
}

impl From<ListError> for RecoverError {
    fn from(error: ListError) -> Self {
        Self::Storage(error.into())
    }
}

impl From<ReadError> for RecoverError {
    fn from(error: ReadError) -> Self {
        Self::Storage(error.into())
    }
}

/// Makes a cluster of the tables below `url`. `progress` is called with the bytes of files that were verified, and of all.
///
/// # Errors
/// [`RecoverError`]; the root is as it was, but for what the next recovery removes.
/// # Cancel As a crash: to be repeated.
/// # Cost   Every byte of the files is read once, and a few twice.
pub async fn recover(
    url: &str,
    options: &RecoverOptions,
    progress: impl FnMut(u64, u64),
) -> Result<Recovered, RecoverError> {
    let store_options = StoreOptions { seed: options.seed, ..StoreOptions::default() };
    let opened = match options.dry_run {
        true => Store::open_read_only(url, &store_options),
        // Must exist: what is made here is nobody's tables.
        false => Store::open_read_only(url, &store_options).and_then(|_| Store::open(url, &store_options)),
    };
    let store =
        opened.map_err(|source| StorageError::Open { url: lakebed_store::redact_url(url).into_owned(), source })?;
    recover_on(&store, options, progress).await
}

async fn recover_on(
    store: &Store,
    options: &RecoverOptions,
    mut progress: impl FnMut(u64, u64),
) -> Result<Recovered, RecoverError> {
    let resumed = may_be_founded(store).await?.is_some();
    let mut recovered = Recovered { url: store.url().to_owned(), resumed, ..Recovered::default() };
    let mut verifier = Verifier::new(store, resumed);
    let tables = verifier.list().await?;
    let mut plans: Vec<Planned> = Vec::new();
    let (mut version_gone, mut highest) = (0, SegmentId::MIN);
    for (table, files) in tables {
        highest = files.iter().map(|(id, _, _)| SegmentId::from(*id)).fold(highest, SegmentId::max);
        let found = verifier.table(table, &files, &mut recovered.damaged, &mut progress).await?;
        let newest = found.newest.as_ref().and_then(|newest| newest.versions.last());
        version_gone = version_gone.max(newest.map_or(0, |version| version.get()));
        match plan(store, &found).await? {
            Ok(planned) => plans.push(planned),
            Err(why) => recovered.left_out.push((found.table, why)),
        }
    }
    let Some((_, identity)) = verifier.identity else {
        return Err(RecoverError::Nothing { url: recovered.url });
    };
    recovered.cluster_id = identity.cluster_id;
    plans.sort_by(|one, other| one.name.cmp(&other.name));
    for planned in &plans {
        recovered.missing.extend(planned.missing.iter().cloned());
        let of_topic = |what: &String| (planned.told.name.clone(), what.clone());
        recovered.wrong.extend(planned.wrong.iter().map(of_topic));
    }
    if !options.dry_run && (recovered.is_whole() || options.set_aside) {
        let known = Known { identity, version_gone, highest };
        write(store, options, &mut plans, known, &mut recovered).await?;
        recovered.written = true;
    }
    recovered.topics = plans.into_iter().map(|plan| plan.told).collect();
    Ok(recovered)
}

/// What is known of the cluster besides its topics.
struct Known {
    identity: Identity,
    version_gone: u32,
    /// The highest id of a file that stands.
    highest: SegmentId,
}

/// Writes what the plans need, and the log, and sets aside what can't be read.
async fn write(
    store: &Store,
    options: &RecoverOptions,
    plans: &mut [Planned],
    mut known: Known,
    recovered: &mut Recovered,
) -> Result<(), RecoverError> {
    let (seed, now_ms) = (options.seed, options.now_ms);
    let unreadable = if options.set_aside { unreadable(store, recovered).await? } else { Vec::new() };
    if !recovered.is_whole() || !unreadable.is_empty() {
        mark_as_to_be_founded(store, seed).await?;
    }
    let mut mint = Mint::new(known.highest.ulid(), now_ms, u128::from(seed));
    for planned in plans.iter_mut() {
        if let Some(id) = mend::close_holes(store, known.identity, planned, &mut mint).await? {
            known.highest = known.highest.max(id.into());
        }
    }
    mend::set_aside(store, &unreadable).await?;
    let snapshot = snapshot(plans, &known, now_ms);
    found(store, known.identity.cluster_id, snapshot, (seed, now_ms)).await?;
    let moved = |from: &Key| (from.to_string(), format!("{}{from}", mend::SET_ASIDE));
    recovered.set_aside = unreadable.iter().map(moved).collect();
    Ok(store.delete(&unreadable).await?)
}

/// What is to be set aside: files that can't be read, and all of the tables of which nothing can be recovered.
async fn unreadable(store: &Store, recovered: &Recovered) -> Result<Vec<Key>, RecoverError> {
    let files = recovered.damaged.iter().map(|(key, _)| super::key(key));
    let mut keys: BTreeSet<Key> = files.filter(|key| layout::parse_table_file_key(key.as_str()).is_some()).collect();
    for (table, _) in &recovered.left_out {
        keys.extend(mend::objects_of(store, table).await?);
    }
    Ok(keys.into_iter().collect())
}

/// The state that the planned topics make.
fn snapshot(plans: &[Planned], known: &Known, now_ms: i64) -> Snapshot {
    // Set when the log is made.
    let nowhere = Directory { epoch: Epoch::ZERO, nonce: Nonce::new(0) };
    let mut snapshot = Snapshot {
        owner_address: String::new(),
        nodes: Vec::new(),
        highest_node: NodeId::ZERO,
        number: CommitNumber::ZERO,
        place: Place { directory: nowhere, index: 0 },
        owner: None,
        feature_level: FeatureLevel::new(1),
        boundary: SegmentId::MIN,
        highest: known.highest,
        directories: Vec::new(),
        // SUBTLE: which ids were given is lost with the log. Never as many as there have been milliseconds, so these are new: a producer
        // that got an id of another that still writes would have its records taken for that one's.
        producer_ids: u64::try_from(now_ms).unwrap_or(0),
        topics: Vec::new(),
        flushes: Vec::new(),
        partitions: Vec::new(),
        generation_gone: Generation::ZERO,
        groups: Vec::new(),
        table_version_gone: known.version_gone,
        tables: Vec::new(),
        partial_files: Vec::new(),
    };
    let mut plans: Vec<&Planned> = plans.iter().collect();
    plans.sort_by_key(|plan| plan.id);
    for plan in plans {
        let partitions = u32::try_from(plan.partitions.len()).unwrap_or(u32::MAX);
        let config = Arc::new(plan.config.clone());
        snapshot.topics.push((plan.id, Topic { name: plan.name.clone(), partitions, config }));
        snapshot.partitions.extend(plan.partitions.iter().cloned());
        snapshot.partial_files.extend(plan.partial_files());
        let table = Table { version: plan.version, published: 0, commit: CommitNumber::ZERO, time_ms: now_ms };
        snapshot.tables.push((plan.id, table));
        tracing::debug!(table = plan.table, "a table is recovered");
    }
    snapshot
}
