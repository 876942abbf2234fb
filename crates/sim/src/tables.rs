//! Tables in the world: the real compaction, publication and deletion of files, and analysts who ask for a fresh table and hold what they
//! were given for nearly as long as they may.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lakebed_broker::tables::{TableError, TableOptions, Tables};
use lakebed_compact::{CompactionOptions, Compactor, RewriteError, Turn};
use lakebed_log::Log;
use lakebed_model::{Change, Compaction, PartitionKey, Refusal, TopicId};
use lakebed_store::Store;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use crate::broker::Broker;
use crate::checker::Rows;
use crate::climate::within;
use crate::process::Gate;
use crate::reader::{Fold, Objects, Pick, RowCache, Snapshot, snapshot};
use crate::trace::Trace;
use crate::world::World;

/// Brokers of a world agree on how long files stay.
const GRACE: Duration = Duration::from_secs(3);
/// A reader that holds a snapshot ends within that time.
const HELD_MS_MAX: u64 = 2_500;

/// The tables of one broker.
pub(crate) fn open(log: &Log, store: &Store, rng: &mut StdRng) -> (Compactor, Tables) {
    let options = CompactionOptions {
        bytes: rng.random_range(200..5_000),
        age_least: Duration::from_millis(rng.random_range(0..200)),
        age_min: Duration::from_millis(rng.random_range(100..1_500)),
        age_max: Duration::from_secs(3),
        file_bytes_max: rng.random_range(1_500..40_000),
        group_bytes: rng.random_range(500..20_000),
        job_bytes_max: rng.random_range(500..20_000),
        quiet_per_hour: 1_000_000,
        ..CompactionOptions::default()
    };
    let compactor = Compactor::new(log.clone(), store.clone(), options, Turn::default());
    let tables = Tables::new(log.clone(), store.clone(), compactor.clone(), TableOptions { grace: GRACE });
    (compactor, tables)
}

/// Compacts and publishes, and lets analysts in, until the broker is gone.
pub(crate) async fn run(world: Arc<World>, broker: Arc<Broker>, seed: u64) {
    if !world.climate.tables {
        return;
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let (compactor, tables) = open(&broker.log, &broker.store, &mut rng);
    let analysts = analyse(Arc::clone(&world), Arc::clone(&broker), tables.clone(), rng);
    let work = async {
        tokio::join!(biased; compactor.run(), tables.run(), analysts);
    };
    broker.gate.unless_dead(work).await;
    let counts = compactor.counts();
    let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
    world.trace.add("compactions", load(&counts.compactions));
    world.trace.add("table files written", load(&counts.files));
}

async fn analyse(world: Arc<World>, broker: Arc<Broker>, tables: Tables, mut rng: StdRng) {
    while broker.log.is_closed().is_none() {
        sleep(Duration::from_millis(within(&mut rng, world.climate.analyst_ms))).await;
        let Some(key) = world.partition(&mut rng) else { continue };
        // A process that was paused may be no sequencer any more when it goes on.
        broker.gate.pass().await;
        let known = acknowledged(&world, key.topic);
        match tables.refresh(key.topic).await {
            Ok(()) => {}
            Err(error) => {
                judge(&world, &broker.gate, &error);
                continue;
            }
        }
        broker.gate.pass().await;
        let state = broker.log.state();
        let (Some(table), Some(topic)) = (state.table(key.topic), state.topic(key.topic)) else { continue };
        let name = topic.name.table_name();
        let held_ms = rng.random_range(0..=HELD_MS_MAX);
        let version = u64::from(table.published);
        // Only the newest leads to what stands for sure; clocks are wrong here, and say how long other metadata stays.
        let is_newest = world.bucket.newest_version(&name) == Some(version);
        let reader = Held { topic: key.topic, name, version, held_ms };
        if is_newest && rng.random_range(0..2) == 0 {
            tokio::spawn(reader.go_back(Arc::clone(&world)));
        } else {
            tokio::spawn(reader.hold(Arc::clone(&world), known));
        }
    }
}

/// What is acknowledged of the partitions of a topic: where they begin and end at least.
struct Acknowledged {
    starts: BTreeMap<PartitionKey, u64>,
    ends: BTreeMap<PartitionKey, u64>,
}

fn acknowledged(world: &World, topic: TopicId) -> Acknowledged {
    let history = world.history();
    let of_topic = |known: &BTreeMap<PartitionKey, u64>| {
        known.iter().filter(|(key, _)| key.topic == topic).map(|(key, offset)| (*key, *offset)).collect()
    };
    Acknowledged { starts: of_topic(&history.acked_start), ends: of_topic(&history.acked_end) }
}

/// Refreshing may fail for many reasons, but never because what was written is wrong.
fn judge(world: &World, gate: &Gate, error: &TableError) {
    world.trace.count("refreshes failed");
    let wrong = match error {
        // Others say that the plan was old; what a barrier says of it is asked elsewhere.
        TableError::Compact(error) => matches!(
            error,
            RewriteError::Stale(Refusal::MergeDiffers { .. } | Refusal::Malformed { .. })
                | RewriteError::Taken { .. }
                | RewriteError::Unfaithful { .. }
                | RewriteError::Table(_)
        ),
        TableError::Publish(error) => {
            matches!(error, lakebed_lake::PublishError::Invalid { .. } | lakebed_lake::PublishError::Taken { .. })
        }
        _ => false,
    };
    if wrong {
        world.trace.anomaly("table-refused", format!("{error:?} by {gate:?}"));
    }
}

/// A version that was published, and how long its reader holds it.
struct Held {
    topic: TopicId,
    name: String,
    version: u64,
    held_ms: u64,
}

impl Held {
    /// Reads what the version shows, and again when some time has passed.
    async fn hold(self, world: Arc<World>, known: Acknowledged) {
        let who = format!("a reader of version {} of {}", self.version, self.name);
        let Some(shown) = self.load(&world, &who, Pick::Current).await else { return };
        world.trace.count("tables refreshed");
        let rows = match read(&world, &who, &shown).await {
            Ok(rows) => rows,
            Err(error) => return complain(&world, self.topic, &who, error),
        };
        check_bounds(&world, &who, &known, &rows);
        if self.read_again(&world, &who, (&shown, &rows)).await {
            world.trace.count("snapshots held");
        }
    }

    /// Reads the oldest snapshot to which the version leads, and again when some time has passed.
    async fn go_back(self, world: Arc<World>) {
        let who = format!("a reader of the oldest snapshot of version {} of {}", self.version, self.name);
        let Some(shown) = self.load(&world, &who, Pick::Oldest).await else { return };
        let rows = match read(&world, &who, &shown).await {
            Ok(rows) => rows,
            Err(error) => return complain(&world, self.topic, &who, error),
        };
        if self.read_again(&world, &who, (&shown, &rows)).await {
            world.trace.count("old snapshots held");
        }
    }

    /// Waits, reads files again and plans anew; whether all is as it was.
    async fn read_again(
        &self,
        world: &World,
        who: &str,
        (shown, rows): (&Snapshot, &BTreeMap<(String, u64), Rows>),
    ) -> bool {
        sleep(Duration::from_millis(self.held_ms)).await;
        match read(world, who, shown).await {
            Ok(again) if again == *rows => {}
            Ok(_) => {
                world.trace.anomaly("changed-table", who.to_owned());
                return false;
            }
            Err(error) => {
                complain(world, self.topic, who, error);
                return false;
            }
        }
        // What has been superseded goes by clocks that are wrong here.
        world.bucket.newest_version(&self.name) != Some(self.version)
            || self.load(world, who, Pick::Current).await.is_some()
    }

    async fn load(&self, world: &World, who: &str, pick: Pick) -> Option<Snapshot> {
        load(world, who, (self.topic, &self.name, self.version), pick).await
    }
}

/// What was acknowledged before a table was asked for counts in it: records that were added, and those that were removed.
fn check_bounds(world: &World, who: &str, known: &Acknowledged, rows: &BTreeMap<(String, u64), Rows>) {
    let of = |key: &PartitionKey| rows.get(&(key.topic.to_string(), u64::from(key.partition.get())));
    for (key, end) in &known.ends {
        let start = world.history().tried_start.get(key).copied().unwrap_or(0);
        let last = of(key).and_then(|rows| rows.keys().next_back());
        if *end > start && last.is_none_or(|last| last + 1 < *end) {
            let what =
                format!("{who}: {key} ends after {last:?}, and was acknowledged up to {end} before it was asked for");
            world.trace.anomaly("stale-table", what);
        }
    }
    for (key, start) in &known.starts {
        let first = of(key).and_then(|rows| rows.keys().next());
        if first.is_some_and(|first| first < start) {
            let what = format!("{who}: {key} begins at {first:?}, and was to begin at {start} before it was asked for");
            world.trace.anomaly("untrimmed-table", what);
        }
    }
}

/// What stands of a topic that is being deleted stays as long as that of any other.
fn complain(world: &World, topic: TopicId, who: &str, error: String) {
    world.trace.anomaly("missing-object", format!("{who}, of topic {topic}: {error}"));
}

async fn load(world: &World, who: &str, (topic, name, version): (TopicId, &str, u64), pick: Pick) -> Option<Snapshot> {
    let mut objects = Objects::new();
    let key = format!("tables/default/{name}/metadata/v{version}.metadata.json");
    loop {
        let wanted = match objects.get(&key).map(|metadata| snapshot(metadata, pick, &objects)) {
            None => key.clone(),
            Some(Ok(shown)) => return Some(shown),
            Some(Err(error)) => match error.strip_suffix(" is not there") {
                Some(key) => key.to_owned(),
                None => {
                    world.trace.anomaly("unreadable-table", format!("{who}: {error}"));
                    return None;
                }
            },
        };
        match world.bucket.object(&wanted).await {
            Some(object) => objects.insert(wanted, object),
            None => {
                let deleted_ms = world.history().topics.get(&topic).and_then(|fate| fate.deleted_ms);
                let grace_ms = GRACE.as_millis() as u64;
                if deleted_ms.is_none_or(|at| world.trace.now_ms() < at + grace_ms) {
                    complain(world, topic, who, format!("{wanted} does not stand"));
                }
                return None;
            }
        };
    }
}

/// The rows of a snapshot, by partition and offset.
async fn read(world: &World, who: &str, shown: &Snapshot) -> Result<BTreeMap<(String, u64), Rows>, String> {
    let mut objects = Objects::new();
    for key in shown.files.keys() {
        let object: Option<Bytes> = world.bucket.object(key).await;
        objects.insert(key.clone(), object.ok_or(format!("{key} does not stand"))?);
    }
    rows_of(&world.trace, who, shown, &objects, &mut RowCache::default())
}

fn rows_of(
    trace: &Trace,
    who: &str,
    shown: &Snapshot,
    objects: &Objects,
    cache: &mut RowCache,
) -> Result<BTreeMap<(String, u64), Rows>, String> {
    let mut all: BTreeMap<(String, u64), Rows> = BTreeMap::new();
    for (key, count) in &shown.files {
        let object = objects.get(key).ok_or(format!("{key} is not there"))?;
        let placed = cache.of(key, object)?;
        if placed.len() as u64 != *count {
            trace.anomaly("unreadable-table", format!("{who}: {key} has {} rows, not {count}", placed.len()));
        }
        for placed in placed {
            let offset = placed.offset.ok_or(format!("{key} has no offsets"))?;
            let rows = all.entry(placed.partition.clone()).or_default();
            if rows.insert(offset, placed.row.clone()).is_some() {
                trace.anomaly("duplicate", format!("{who}: {offset} of {:?} is shown twice", placed.partition));
            }
        }
    }
    Ok(all)
}

/// Every version that was ever published shows exactly the files that the log says, and their rows are a prefix of the log.
pub(crate) fn check(trace: &Trace, written: &Fold, archive: &Objects, rows: &BTreeMap<(String, u64), Rows>) {
    let mut cache = RowCache::default();
    for (key, metadata) in archive.iter().filter(|(key, _)| key.ends_with(".metadata.json")) {
        let Some((name, version)) = parse(key) else {
            trace.anomaly("unreadable-table", format!("{key} is no metadata of a version"));
            continue;
        };
        let Some(expected) = written.tables.versions.get(&(name.to_owned(), version)) else {
            trace.anomaly("wrong-table", format!("{key} was never allotted"));
            continue;
        };
        trace.count("versions published");
        let shown = match snapshot(metadata, Pick::Current, archive) {
            Ok(shown) => shown,
            Err(error) => {
                trace.anomaly("unreadable-table", format!("{key}: {error}"));
                continue;
            }
        };
        if shown.commit != expected.commit || !shown.files.keys().eq(&expected.files) {
            trace.anomaly("wrong-table", format!("{key} shows {shown:?}, but the log says {expected:?}"));
            continue;
        }
        match rows_of(trace, key, &shown, archive, &mut cache) {
            Ok(found) => check_prefix(trace, key, expected, &found, rows),
            Err(error) => trace.anomaly("unreadable-table", format!("{key}: {error}")),
        }
    }
}

fn parse(key: &str) -> Option<(&str, u64)> {
    let (name, file) = key.strip_prefix("tables/default/")?.split_once("/metadata/v")?;
    Some((name, file.strip_suffix(".metadata.json")?.parse().ok()?))
}

fn check_prefix(
    trace: &Trace,
    key: &str,
    expected: &crate::reader::Version,
    found: &BTreeMap<(String, u64), Rows>,
    written: &BTreeMap<(String, u64), Rows>,
) {
    let nothing = Rows::new();
    for (partition, shown) in found {
        let Some((start, end)) = expected.bounds.get(partition) else {
            trace.anomaly("wrong-table", format!("{key} shows {partition:?}, which is not of its topic"));
            continue;
        };
        let log = written.get(partition).unwrap_or(&nothing);
        if let Some((offset, row)) = shown.iter().find(|(offset, row)| log.get(offset) != Some(row)) {
            trace.anomaly("torn-table", format!("{key}: {row:?} at {offset} of {partition:?} is not what was written"));
        }
        // Below its log start a file may still show rows, until it is written anew: before a table is refreshed, and that is asked there.
        let counts: Vec<u64> = shown.range(start..).map(|(offset, _)| *offset).collect();
        let follows = (*start..).zip(&counts).all(|(expected, offset)| expected == *offset);
        if !follows || counts.last().is_some_and(|last| last >= end) {
            trace.anomaly("torn-table", format!("{key}: {partition:?} of {start}..{end} shows {counts:?}"));
        }
    }
}

/// When all is over every table can be made fresh, and then shows all that counts.
pub(crate) async fn check_end(
    world: &Arc<World>,
    (log, store): (&Log, &Store),
    written: &Fold,
    rows: &BTreeMap<(String, u64), Rows>,
) {
    if !world.climate.tables {
        return;
    }
    let (_, tables) = open(log, store, &mut world.rng("tables", 0));
    for topic in log.state().topics().map(|(id, _)| id).collect::<Vec<_>>() {
        if let Err(error) = tables.refresh(topic).await {
            world.trace.anomaly("unrefreshable-table", format!("{topic}: {error:?}"));
            continue;
        }
        let state = log.state();
        let (Some(table), Some(known)) = (state.table(topic), state.topic(topic)) else {
            world.trace.anomaly("unrefreshable-table", format!("{topic} has none"));
            continue;
        };
        let who = format!("the auditor of {topic}");
        let at = (topic, known.name.table_name(), u64::from(table.published));
        let Some(shown) = load(world, &who, (topic, &at.1, at.2), Pick::Current).await else { continue };
        let found = match read(world, &who, &shown).await {
            Ok(found) => found,
            Err(error) => {
                complain(world, topic, &who, error);
                continue;
            }
        };
        for (partition, contents) in written.partitions.iter().filter(|((of, _), _)| *of == topic.to_string()) {
            let nothing = Rows::new();
            let counts = rows.get(partition).unwrap_or(&nothing).range(contents.start..);
            if !found.get(partition).unwrap_or(&nothing).iter().eq(counts) {
                world.trace.anomaly("wrong-table", format!("{who}: {partition:?} differs from {}", contents.start));
            }
        }
    }
    let audit = check_hints(world, log, &tables);
    tokio::select! {
        biased;
        () = audit => {}
        () = tables.clone().run() => world.trace.anomaly("damaged-log", "the auditor's log has closed".to_owned()),
    }
}

/// The hint of each table names its newest version, and no other name has one: when what came late has been mended, after publications, and
/// after a deletion.
async fn check_hints(world: &World, log: &Log, tables: &Tables) {
    // The first survey, for what writes that came late have left.
    sleep(GRACE).await;
    compare_hints(world, log, "after a survey").await;
    let topics: Vec<TopicId> = log.state().topics().map(|(id, _)| id).collect();
    for topic in &topics {
        let change = Change::Compact(Compaction { topic: *topic, files: Vec::new() });
        if let Err(error) = log.change(change).await {
            world.trace.anomaly("unrefreshable-table", format!("{topic}: {error:?}"));
        }
        if let Err(error) = tables.refresh(*topic).await {
            world.trace.anomaly("unrefreshable-table", format!("{topic}: {error:?}"));
        }
    }
    compare_hints(world, log, "after publications").await;
    let Some(id) = topics.first().copied() else { return };
    if let Err(error) = log.change(Change::DeleteTopic { id }).await {
        world.trace.anomaly("lost-write", format!("{id} can't be deleted in peace: {error:?}"));
    }
    sleep(GRACE / 2).await;
    compare_hints(world, log, "after a deletion").await;
    world.trace.count("hints audited");
}

async fn compare_hints(world: &World, log: &Log, when: &str) {
    let state = log.state();
    let published = state.tables().filter(|(_, table)| table.published > 0);
    let expected: BTreeSet<(String, String)> = published
        .filter_map(|(topic, table)| Some((state.topic(topic)?.name.table_name(), table.published.to_string())))
        .collect();
    let contents = world.bucket.contents().await;
    let hints = contents.iter().filter_map(|(key, text)| {
        let name = key.strip_prefix("tables/default/")?.strip_suffix("/metadata/version-hint.text")?;
        Some((name.to_owned(), String::from_utf8_lossy(text).into_owned()))
    });
    let found: BTreeSet<(String, String)> = hints.collect();
    if found != expected {
        world.trace.anomaly("wrong-hint", format!("{when}: {found:?}, and not {expected:?}"));
    }
}
