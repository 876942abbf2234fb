//! A cluster made anew from its tables, after its log and checkpoints were lost.
//!
//! 1. Every file is read and verified before anything is written, and what is written refers to what was read: offsets and hashes are those of
//!    the rows.
//! 2. An offset is served from one file: of those that the newest version of the table shows, else the newest that has it. So no row is lost
//!    that a file has, and none comes twice. See [`choose`].
//! 3. What can't be read is told by name. Unless told to leave such topics out, nothing is written then.
//! 4. Tables keep their ids and go on with a version above all that stand; the files stay where they are.

mod choose;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lakebed_lake::{StandingError, StandingTable};
use lakebed_log::{FoundError, found, may_be_founded};
use lakebed_model::Nonce;
use lakebed_model::ids::{Directory, Epoch};
use lakebed_model::snapshot::PartitionSnapshot;
use lakebed_model::{
    Cell, CommitNumber, FeatureLevel, Generation, ObjectId, Offset, Partition, PartitionIndex, PartitionKey, Place,
    RowsHash, Run, SegmentId, Snapshot, Table, TableFileId, TimestampRange, Topic, TopicId, TopicName,
};
use lakebed_segment::commit::Identity;
use lakebed_segment::layout;
use lakebed_segment::row_set::RowSet;
use lakebed_segment::rows::RowSource;
use lakebed_segment::table::{VALUE_FORMAT, ValueFormat};
use lakebed_store::{Key, ListError, ReadError, Store, StoreOptions};
use uuid::Uuid;

use super::fate::name_of;
use super::file::{ObjectError, TableFile};
use super::{Listing, StorageError, directory, tables_of};
use choose::{Candidate, Chosen, choose};

/// Rows without a time.
const NO_TIMESTAMP_MS: i64 = -1;
/// What a recovered topic is told, for nothing may expire before somebody has said what should.
const KEEP_ALL: [(&str, &str); 2] = [("retention.bytes", "-1"), ("retention.ms", "-1")];

/// How a cluster is recovered.
#[derive(Debug, Clone)]
pub struct RecoverOptions {
    /// Verify everything, and write nothing.
    pub dry_run: bool,
    /// Leave topics out whose records can't all be read, in place of stopping.
    pub skip_damaged: bool,
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
    /// Tables that are not in it, and why.
    pub left_out: Vec<(String, String)>,
    /// Files that can't be read, by key, and why. Those of topics that are in it were not needed.
    pub damaged: Vec<(String, String)>,
}

/// A topic that was recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// A run: its partition, its first offset, and how many rows it has.
type Stretch = (u32, Offset, u64);

/// What was found of one table.
struct Found {
    table: String,
    standing: Option<StandingTable>,
    /// Verified files, ascending.
    files: Vec<Candidate>,
    names: BTreeMap<TopicId, TopicName>,
    /// What the values of each topic are, as its newest file has them.
    formats: BTreeMap<TopicId, ValueFormat>,
    /// Files that can't be read, with their runs if these can.
    damaged: BTreeMap<TableFileId, Option<Vec<Stretch>>>,
}

/// A topic as it will be.
struct Planned {
    id: TopicId,
    name: TopicName,
    table: String,
    version: u32,
    value_format: ValueFormat,
    partitions: Vec<PartitionSnapshot>,
    told: RecoveredTopic,
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
    let mut verifier = Verifier { store, identity: None, done: 0, total: 0 };
    let tables = verifier.list().await?;
    let mut plans: Vec<Planned> = Vec::new();
    let (mut version_gone, mut highest, mut partial) = (0, SegmentId::MIN, Vec::new());
    for (table, files) in tables {
        highest = files.iter().map(|(id, _, _)| SegmentId::from(*id)).fold(highest, SegmentId::max);
        let found = verifier.table(table, &files, &mut recovered.damaged, &mut progress).await?;
        let newest = found.standing.as_ref().and_then(|standing| standing.versions.last());
        version_gone = version_gone.max(newest.map_or(0, |version| version.get()));
        match plan(store, &found).await? {
            Ok(planned) => {
                partial.extend(partial_files(&found.files, &planned.partitions));
                plans.push(planned);
            }
            Err(why) => recovered.left_out.push((found.table, why)),
        }
    }
    let Some((_, identity)) = verifier.identity else {
        return Err(RecoverError::Nothing { url: recovered.url });
    };
    recovered.cluster_id = identity.cluster_id;
    recovered.topics = plans.iter().map(|plan| plan.told.clone()).collect();
    recovered.topics.sort_by(|one, other| one.name.cmp(&other.name));
    if options.dry_run || !recovered.left_out.is_empty() && !options.skip_damaged {
        return Ok(recovered);
    }
    let mut snapshot = snapshot(plans, version_gone, highest, options.now_ms);
    snapshot.partial_files = partial;
    found(store, identity.cluster_id, snapshot, (options.seed, options.now_ms)).await?;
    recovered.written = true;
    Ok(recovered)
}

/// The state that the planned topics make.
fn snapshot(mut plans: Vec<Planned>, version_gone: u32, highest: SegmentId, now_ms: i64) -> Snapshot {
    plans.sort_by_key(|plan| plan.id);
    // Set when the log is made.
    let nowhere = Directory { epoch: Epoch::ZERO, nonce: Nonce::new(0) };
    let mut snapshot = Snapshot {
        number: CommitNumber::ZERO,
        place: Place { directory: nowhere, index: 0 },
        owner: None,
        feature_level: FeatureLevel::new(1),
        boundary: SegmentId::MIN,
        highest,
        directories: Vec::new(),
        // SUBTLE: which ids were given is lost with the log. Never as many as there have been milliseconds, so these are new: a producer
        // that got an id of another that still writes would have its records taken for that one's.
        producer_ids: u64::try_from(now_ms).unwrap_or(0),
        topics: Vec::new(),
        flushes: Vec::new(),
        partitions: Vec::new(),
        generation_gone: Generation::ZERO,
        groups: Vec::new(),
        table_version_gone: version_gone,
        tables: Vec::new(),
        partial_files: Vec::new(),
    };
    for plan in plans {
        let partitions = u32::try_from(plan.partitions.len()).unwrap_or(u32::MAX);
        let mut config: BTreeMap<String, String> =
            KEEP_ALL.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        if plan.value_format != ValueFormat::default() {
            config.insert(VALUE_FORMAT.to_owned(), plan.value_format.word().to_owned());
        }
        snapshot.topics.push((plan.id, Topic { name: plan.name, partitions, config: Arc::new(config) }));
        snapshot.partitions.extend(plan.partitions);
        let table = Table { version: plan.version, published: 0, commit: CommitNumber::ZERO, time_ms: now_ms };
        snapshot.tables.push((plan.id, table));
        tracing::debug!(table = plan.table, "a table is recovered");
    }
    snapshot
}

/// Decides which files make a topic; or says why there is none.
async fn plan(store: &Store, found: &Found) -> Result<Result<Planned, String>, RecoverError> {
    let standing = found.standing.as_ref();
    // A table of that name may have been another topic's before: the newest version says whose it is, else the newest file.
    let of_metadata = standing.map(|standing| TopicId::new(standing.table_uuid));
    let Some(id) = of_metadata.or_else(|| found.files.last().map(|file| file.topic)) else {
        return Ok(Err("none of its files can be read, and it has no metadata".to_owned()));
    };
    let named = standing.and_then(|standing| TopicName::new(standing.topic.as_deref()?).ok());
    let Some(name) = found.names.get(&id).cloned().or(named).filter(|name| name.table_name() == found.table) else {
        return Ok(Err("neither its files nor its metadata tell the name of its topic".to_owned()));
    };
    let files: Vec<Candidate> = found.files.iter().filter(|file| file.topic == id).cloned().collect();
    let shown: Option<BTreeSet<TableFileId>> = standing.map(|standing| {
        let ids = standing
            .files
            .iter()
            .filter_map(|file| file.uri.rsplit('/').next()?.strip_suffix(".parquet")?.parse().ok());
        ids.collect()
    });
    let chosen = match choose(&files, shown.as_ref()) {
        Ok(chosen) => chosen,
        Err(gap) => {
            let why = match found.damaged.is_empty() {
                true => format!("no file has {gap}"),
                false => format!("no file that can be read has {gap}; {} can't be", found.damaged.len()),
            };
            return Ok(Err(why));
        }
    };
    if let Some(why) = lost(found, &chosen, shown.as_ref()) {
        return Ok(Err(why));
    }
    let mut used = BTreeSet::new();
    let mut told = RecoveredTopic {
        name: name.as_str().to_owned(),
        id: id.to_string(),
        partitions: Vec::new(),
        files: 0,
        superseded: 0,
        rows: 0,
        version: standing.and_then(|standing| standing.versions.last()).map_or(0, |version| version.get()) + 1,
    };
    let count = chosen.partitions.keys().next_back().map_or(1, |last| last + 1);
    let mut partitions = Vec::new();
    for index in 0..count {
        let key = PartitionKey::new(id, PartitionIndex::new(index));
        let mut runs = Vec::new();
        for taken in chosen.partitions.get(&index).map(Vec::as_slice).unwrap_or_default() {
            used.insert(taken.file);
            let run = match run_of(store, &found.table, &files, taken).await {
                Ok(run) => run,
                Err(ObjectError::Store(error)) => return Err(error.into()),
                Err(ObjectError::Damaged(what)) => return Ok(Err(format!("file {}: {what}", taken.file))),
            };
            told.rows += run.rows;
            runs.push((taken.base, run));
        }
        let log_start = runs.first().map_or(Offset::ZERO, |(base, _)| *base);
        let high_watermark = runs.last().map_or(log_start, |(base, run)| Offset::new(base.get() + run.rows));
        told.partitions.push((index, log_start.get(), high_watermark.get()));
        let bounds = Partition { log_start, high_watermark };
        partitions.push(PartitionSnapshot { key, bounds, runs, producers: Vec::new() });
    }
    told.files = used.len();
    told.superseded = files.len() - used.len();
    let value_format = found.formats.get(&id).copied().unwrap_or_default();
    Ok(Ok(Planned { id, name, table: found.table.clone(), version: told.version, value_format, partitions, told }))
}

/// The files of which rows are taken, but not all.
fn partial_files(files: &[Candidate], partitions: &[PartitionSnapshot]) -> Vec<TableFileId> {
    let mut taken: BTreeMap<ObjectId, u64> = BTreeMap::new();
    for (_, run) in partitions.iter().flat_map(|partition| &partition.runs) {
        *taken.entry(run.object).or_default() += run.rows;
    }
    let is_partial = |file: &&Candidate| {
        let rows: u64 = file.runs.iter().map(|run| run.rows).sum();
        taken.get(&ObjectId::Table(file.id)).is_some_and(|taken| *taken != rows)
    };
    files.iter().filter(is_partial).map(|file| file.id).collect()
}

/// The run of rows that are taken from a file; read again if they are not all of a run of that file.
async fn run_of(store: &Store, table: &str, files: &[Candidate], taken: &choose::Taken) -> Result<Run, ObjectError> {
    let file = files.iter().find(|file| file.id == taken.file).expect("what is taken is a candidate's");
    let of_file = &file.runs[taken.run];
    let facts = if taken.base == of_file.base && taken.rows == of_file.rows {
        of_file.facts
    } else {
        let opened = TableFile::open(store, super::key(&layout::table_file_key(table, taken.file))).await?;
        let first = of_file.first_row + taken.base.since(of_file.base);
        facts_of(&opened, first..first + taken.rows).await?
    };
    let first_row = of_file.first_row + taken.base.since(of_file.base);
    Ok(Run {
        rows: taken.rows,
        span: taken.rows,
        clean: false,
        object: ObjectId::Table(taken.file),
        first_row,
        bytes: facts.bytes,
        timestamps: facts.timestamps,
        hash: facts.hash,
    })
}

/// What the state knows of rows besides where they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Facts {
    bytes: u64,
    timestamps: Option<TimestampRange>,
    hash: RowsHash,
}

impl Facts {
    fn add(&mut self, rows: &RowSet) {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, |bytes| bytes.len() as u64);
        for row in 0..rows.len() {
            let headers = rows.headers(row).map(|(key, value)| key.len() as u64 + length(value));
            self.bytes += length(rows.key(row)) + length(rows.value(row)) + headers.sum::<u64>();
            let time_ms = rows.timestamp_ms(row);
            if time_ms != NO_TIMESTAMP_MS {
                let one = TimestampRange { first_ms: time_ms, last_ms: time_ms };
                self.timestamps = TimestampRange::union(self.timestamps, Some(one));
            }
        }
        self.hash = self.hash.concat(rows.hash(), rows.len() as u64);
    }
}

async fn facts_of(file: &TableFile<'_>, rows: std::ops::Range<u64>) -> Result<Facts, ObjectError> {
    let mut facts = Facts::default();
    for part in file.parts(rows) {
        facts.add(&file.rows(part).await?.rows);
    }
    Ok(facts)
}

/// Reads files.
struct Verifier<'a> {
    store: &'a Store,
    /// Whose files they are, by the first that was read.
    identity: Option<(String, Identity)>,
    done: u64,
    total: u64,
}

type Listed = Vec<(TableFileId, Key, u64)>;

impl Verifier<'_> {
    /// The files of every table.
    async fn list(&mut self) -> Result<Vec<(String, Listed)>, RecoverError> {
        let mut tables = Vec::new();
        for name in tables_of(self.store).await? {
            let mut files = Vec::new();
            let mut listing = Listing::of(self.store, directory(&layout::table_data_prefix(&name.table)));
            while let Some(page) = listing.next().await? {
                for listed in page {
                    if let Some((_, id)) = layout::parse_table_file_key(listed.key.as_str()) {
                        self.total += listed.size_bytes;
                        files.push((id, listed.key, listed.size_bytes));
                    }
                }
            }
            tables.push((name.table, files));
        }
        Ok(tables)
    }

    /// Reads and verifies all of a table.
    async fn table(
        &mut self,
        table: String,
        listed: &Listed,
        damaged: &mut Vec<(String, String)>,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<Found, RecoverError> {
        let standing = match lakebed_lake::standing(self.store, &name_of(&table)).await {
            Ok(standing) => standing,
            Err(StandingError::Damaged { key, what }) => {
                damaged.push((key, what));
                None
            }
            Err(source) => return Err(StorageError::Table { table, source }.into()),
        };
        let mut found = Found {
            table,
            standing,
            files: Vec::new(),
            names: BTreeMap::new(),
            formats: BTreeMap::new(),
            damaged: BTreeMap::new(),
        };
        for (id, key, size_bytes) in listed {
            match self.file(&found.table, *id, key).await {
                Ok((candidate, name, format)) => {
                    found.formats.insert(candidate.topic, format);
                    found.names.insert(candidate.topic, name);
                    found.files.push(candidate);
                }
                Err(Unread::Damaged(what)) => {
                    damaged.push((key.to_string(), what));
                    let runs = TableFile::open(self.store, key.clone()).await.ok().map(|file| {
                        file.footer.runs().map(|(partition, base, rows)| (partition.get(), base, rows)).collect()
                    });
                    found.damaged.insert(*id, runs);
                }
                Err(Unread::Stop(error)) => return Err(error),
            }
            self.done += size_bytes;
            progress(self.done, self.total);
        }
        Ok(found)
    }

    async fn file(
        &mut self,
        table: &str,
        id: TableFileId,
        key: &Key,
    ) -> Result<(Candidate, TopicName, ValueFormat), Unread> {
        let file = TableFile::open(self.store, key.clone()).await?;
        let name = file.footer.name.clone();
        if name.id != id || name.topic.table_name() != table {
            return Err(Unread::Damaged("it is not the file that its key says".to_owned()));
        }
        let identity = file.footer.identity;
        if identity.cell != Cell::ZERO {
            return Err(Unread::Stop(RecoverError::Cells { file: key.to_string(), of: identity }));
        }
        let (one, of_one) = self.identity.get_or_insert_with(|| (key.to_string(), identity)).clone();
        if of_one != identity {
            let (other, of_other) = (key.to_string(), identity);
            return Err(Unread::Stop(RecoverError::Clusters { one, of_one, other, of_other }));
        }
        if file.footer.has_gaps() {
            // Not damaged, but nothing here can name a run with gaps.
            let what = "keys were compacted in it, and recovery does not know such files yet".to_owned();
            return Err(Unread::Damaged(what));
        }
        let mut runs = Vec::new();
        let mut first_row = 0;
        for (partition, base, rows) in file.footer.runs() {
            let mut facts = Facts::default();
            for part in file.parts(first_row..first_row + rows) {
                let read = file.rows(part.clone()).await?;
                let first = base.get() + part.start - first_row;
                let same = read.partitions.iter().all(|found| *found == partition)
                    && read.offsets.iter().zip(first..).all(|(found, expected)| found.get() == expected);
                if !same {
                    let what =
                        format!("its rows from {first} on are not those of partition {partition} from {base} on");
                    return Err(Unread::Damaged(what));
                }
                facts.add(&read.rows);
            }
            runs.push(choose::FileRun { partition: partition.get(), base, rows, first_row, facts });
            first_row += rows;
        }
        file.verify_the_rest().await?;
        Ok((Candidate { id, topic: name.topic_id, runs }, name.topic, file.footer.value_format))
    }
}

/// Why a file is no candidate.
enum Unread {
    Damaged(String),
    Stop(RecoverError),
}

impl From<ObjectError> for Unread {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Damaged(what) => Self::Damaged(what),
            ObjectError::Store(error) => Self::Stop(error.into()),
        }
    }
}

/// A file with rows that count and that no other has, as far as that is known: what is wrong with it.
///
/// A file that the newest version does not show counts only if it is newer than all that it shows: the others were superseded.
fn lost(found: &Found, chosen: &Chosen, shown: Option<&BTreeSet<TableFileId>>) -> Option<String> {
    let newest = shown.and_then(|shown| shown.last());
    let counts = |id: &TableFileId| shown.is_none_or(|shown| shown.contains(id) || Some(id) > newest);
    let lost = found.damaged.iter().find(|(id, runs)| {
        let is_covered = runs.as_ref().is_some_and(|runs| runs.iter().all(|run| chosen.covers(*run)));
        counts(id) && !is_covered
    });
    if let Some((id, _)) = lost {
        return Some(format!("file {id} can't be read, and no other is known to have all of its rows"));
    }
    let stands = |id: &TableFileId| found.damaged.contains_key(id) || found.files.iter().any(|file| file.id == *id);
    let missing = shown.into_iter().flatten().find(|id| !stands(id));
    missing.map(|id| format!("file {id} is missing, which the newest version of the table shows"))
}
