//! The judge: what clients were told and saw, against the log as an independent reader finds it.
//!
//! It replays the log twice: from its first commit out of the archive of everything that ever stood in the bucket (the log as it was
//! written), and from the newest checkpoint out of what stands there now (the log as a newcomer finds it). Both must agree with each
//! other, with a fresh [`Log::open`](lakebed_log::Log::open), and with every client.

use std::collections::{BTreeMap, BTreeSet};

use lakebed_log::Log;
use lakebed_model::{ObjectId, PartitionIndex, PartitionKey, TopicId};
use lakebed_segment::layout;

use crate::history::{Fate, History, Row};
use crate::reader::{Fold, Objects, Partition, Reader, RowCache, takeover_of};
use crate::trace::Trace;
use crate::world::World;
use crate::{groups, tables};

/// Rows by offset.
pub(crate) type Rows = BTreeMap<u64, Row>;

/// What the cells of a world come to, together.
#[derive(Default)]
struct Judged {
    rows: BTreeMap<Partition, Rows>,
    created: BTreeSet<String>,
    topics: BTreeSet<String>,
    bounds: BTreeMap<Partition, (u64, u64)>,
}

/// Judges a world that has ended.
pub(crate) async fn check(world: &std::sync::Arc<World>) {
    let trace = &world.trace;
    let mut logs = Vec::new();
    for cell in 0..world.climate.cells {
        match world.open_in_peace(cell).await {
            Ok(opened) => logs.push(opened),
            Err(error) => return trace.anomaly("unopenable-log", error),
        }
    }
    let archive = world.bucket.archive();
    let first: Objects = archive.iter().map(|(key, objects)| (key.clone(), objects[0].clone())).collect();
    let standing: Objects = world.bucket.contents().await;
    let mut judged = Judged::default();
    for (cell, (log, store)) in (0..).zip(&logs) {
        let written = match Reader::new(&first, cell).fold(false) {
            Ok(fold) => fold,
            Err(error) => return trace.anomaly("contradictory-log", error),
        };
        let found = match Reader::new(&standing, cell).fold(true) {
            Ok(fold) => fold,
            Err(error) => return trace.anomaly("unreadable-log", error),
        };
        count_void_takeovers(trace, &archive, &written);
        count_late_commits(trace, &archive, &standing, &written);
        trace.add("commits", written.number);
        compare_folds(trace, &written, &found);
        compare_state(trace, log, &found, &standing);
        let mut cache = RowCache::default();
        let rows = match all_rows(&Reader::new(&first, cell), &written.appended, &mut cache) {
            Ok(rows) => rows,
            Err(error) => return trace.anomaly("contradictory-log", error),
        };
        match all_rows(&Reader::new(&standing, cell), &found.partitions, &mut cache) {
            Ok(standing_rows) => compare_rows(trace, &written, &rows, &standing_rows),
            Err(error) => trace.anomaly("lost-write", format!("a run can't be read: {error}")),
        }
        check_flushes(trace, &written);
        if cell == world.climate.cell {
            check_producer_ids(trace, &world.history(), &written, log);
            check_places(trace, &world.history(), &written);
            groups::check(trace, &world.history().groups, &written.groups, &log.state());
            tables::check(trace, &written, &first, &rows);
            tables::check_end(world, (log, store), &written, &rows).await;
        }
        judged.rows.extend(rows);
        judged.created.extend(written.created);
        judged.topics.extend(written.topics.into_keys());
        judged.bounds.extend(written.partitions.into_iter().map(|(key, one)| (key, (one.start, one.end))));
    }
    let history = world.history();
    check_topics(trace, &history, &judged);
    check_bounds(trace, &history, &judged);
    check_sent(trace, &history, &judged.rows);
    check_order(trace, &history, &judged.rows);
    check_seen(trace, &history, &judged.rows);
}

/// Where partitions begin and how many there are is what was acknowledged, and nothing that nobody tried.
fn check_bounds(trace: &Trace, history: &History, judged: &Judged) {
    for (key, tried) in &history.tried_start {
        let acked = history.acked_start.get(key).copied().unwrap_or(0);
        let Some((start, _)) = judged.bounds.get(&partition_of(*key)) else { continue };
        if *start < acked || start > tried {
            trace.anomaly("log-start", format!("{key} begins at {start}; acknowledged was {acked}, tried {tried}"));
        }
    }
    for (topic, count) in &history.partitions {
        let last = (topic.to_string(), u64::from(*count) - 1);
        if !judged.bounds.contains_key(&last) {
            trace.anomaly("lost-write", format!("{count} partitions of {topic} were acknowledged"));
        }
    }
}

/// Counts what landed beyond the takeover of a directory, and what of it was reclaimed.
fn count_late_commits(
    trace: &Trace,
    archive: &BTreeMap<String, Vec<bytes::Bytes>>,
    standing: &Objects,
    written: &Fold,
) {
    let firsts: Vec<(u64, &String)> = written.directories.iter().map(|(first, name)| (*first, name)).collect();
    for pair in firsts.windows(2) {
        let prefix = format!("cells/{}/log/{}/", written.cell, pair[0].1);
        let takeover = format!("{prefix}{:012}.parquet", pair[1].0 - pair[0].0 - 1);
        for key in archive.keys().filter(|key| key.starts_with(&prefix) && **key > takeover) {
            trace.count("commits that landed late");
            if !standing.contains_key(key) {
                trace.count("late commits reclaimed");
            }
        }
        if !standing.contains_key(&takeover) {
            trace.anomaly("missing-takeover", takeover);
        }
    }
}

fn all_rows(
    reader: &Reader<'_>,
    partitions: &BTreeMap<Partition, crate::reader::Contents>,
    cache: &mut RowCache,
) -> Result<BTreeMap<Partition, Rows>, String> {
    let mut all = BTreeMap::new();
    for (partition, contents) in partitions {
        let mut rows = Rows::new();
        for (base, run) in contents.runs.iter().filter(|(base, run)| **base + run.rows > contents.start) {
            rows.extend((*base..).zip(reader.rows(partition, (*base, run), cache)?));
        }
        all.insert(partition.clone(), rows);
    }
    Ok(all)
}

fn count_void_takeovers(trace: &Trace, archive: &BTreeMap<String, Vec<bytes::Bytes>>, written: &Fold) {
    let followed: BTreeSet<&String> = written.directories.values().collect();
    let prefix = format!("cells/{}/log/", written.cell);
    for (key, objects) in archive.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        for object in objects {
            if takeover_of(object).is_some_and(|next| !followed.contains(&next)) {
                trace.count("void takeovers");
                trace.note(format_args!("void takeover at {key}"));
            }
        }
    }
}

fn compare_folds(trace: &Trace, written: &Fold, found: &Fold) {
    if (written.number, &written.place, &written.topics) != (found.number, &found.place, &found.topics) {
        let what = format!(
            "{} commits to {:?} were written, a newcomer finds {} to {:?}",
            written.number, written.place, found.number, found.place
        );
        trace.anomaly("forked-log", what);
    }
    if written.producer_ids != found.producer_ids {
        let what =
            format!("{} producer ids were allotted, a newcomer finds {}", written.producer_ids, found.producer_ids);
        trace.anomaly("forked-log", what);
    }
    if written.nodes != found.nodes {
        trace.anomaly("forked-log", format!("members are {:?}, a newcomer finds {:?}", written.nodes, found.nodes));
    }
    if written.directories != found.directories {
        trace.anomaly("forked-log", format!("{:?} against {:?}", written.directories, found.directories));
    }
}

fn key_of((topic, partition): &Partition) -> Option<PartitionKey> {
    let topic = TopicId::new(topic.parse().ok()?);
    Some(PartitionKey::new(topic, PartitionIndex::new(u32::try_from(*partition).ok()?)))
}

fn partition_of(key: PartitionKey) -> Partition {
    (key.topic.to_string(), u64::from(key.partition.get()))
}

/// The state of a fresh open is what the reader finds, and every object that it names is there.
fn compare_state(trace: &Trace, log: &Log, found: &Fold, standing: &Objects) {
    let state = log.state();
    if state.number().get() != found.number || state.place().directory.to_string() != found.place.0 {
        let what = format!("{} at {} against {} at {:?}", state.number(), state.place(), found.number, found.place);
        trace.anomaly("state-differs", what);
    }
    for (partition, contents) in &found.partitions {
        let bounds = key_of(partition).and_then(|key| state.partition(key));
        let found = (contents.start, contents.end);
        if bounds.is_none_or(|bounds| (bounds.log_start.get(), bounds.high_watermark.get()) != found) {
            trace.anomaly("state-differs", format!("{partition:?} is {bounds:?}, the reader has {found:?}"));
        }
    }
    let nodes = state.nodes().map(|node| {
        let id = u64::try_from(node.id.get()).expect("members are numbered from 1 on");
        (id, (format!("{:016x}", node.member.nonce.get()), node.member.kafka, node.member.http))
    });
    let nodes: BTreeMap<u64, (String, String, String)> = nodes.collect();
    if nodes != found.nodes.by_id {
        trace.anomaly("state-differs", format!("members {nodes:?}, the reader has {:?}", found.nodes));
    }
    if state.partition_count() != found.partitions.len() {
        trace.anomaly("state-differs", format!("{} partitions", state.partition_count()));
    }
    for (id, _) in state.objects() {
        let key = match id {
            ObjectId::Commit(number) => {
                state.place_of(number).map(|place| layout::commit_key(log.identity().cell, place))
            }
            ObjectId::Segment(id) => Some(layout::segment_key(log.identity().cell, id)),
            // The key of a table file has its topic's name; that its rows can be read is asked of each run.
            ObjectId::Table(_) => continue,
        };
        if key.as_ref().is_none_or(|key| !standing.contains_key(key)) {
            trace.anomaly("missing-object", format!("{id:?} ({key:?}) is named"));
        }
    }
    // Runs may be cut differently, but they cover the same offsets with the same rows of the same objects.
    for (key, base, run) in state.runs() {
        let holding = found.partitions.get(&partition_of(key)).and_then(|contents| {
            let (start, other) = contents.runs.range(..=base.get()).next_back()?;
            (base.get() < start + other.rows).then(|| other.first_row + (base.get() - start))
        });
        if holding != Some(run.first_row) {
            trace.anomaly(
                "state-differs",
                format!("{key} at {base} is row {}, the reader has {holding:?}", run.first_row),
            );
        }
    }
}

fn compare_rows(trace: &Trace, written: &Fold, rows: &BTreeMap<Partition, Rows>, standing: &BTreeMap<Partition, Rows>) {
    for (partition, contents) in &written.partitions {
        let empty = Rows::new();
        let from = |rows: &Rows| rows.range(contents.start..).map(|(offset, row)| (*offset, row.clone())).collect();
        let before: Rows = from(rows.get(partition).unwrap_or(&empty));
        let now: Rows = from(standing.get(partition).unwrap_or(&empty));
        if before != now {
            let differs = before.iter().find(|(offset, row)| now.get(offset) != Some(row));
            trace
                .anomaly("lost-write", format!("{partition:?}: {} rows, now {}; {differs:?}", before.len(), now.len()));
        }
    }
}

/// Every state that a broker had was one of the log as it was written.
fn check_places(trace: &Trace, history: &History, written: &Fold) {
    for (number, place) in &history.places {
        let directory = written.directories.range(..=number).next_back().filter(|_| *number <= written.number);
        let stands = directory.map(|(first, name)| (name.clone(), number - first));
        if stands.as_ref() != Some(&(place.directory.to_string(), place.index)) {
            trace
                .anomaly("vanished", format!("a broker had {number} commits to {place}, the log has {stands:?} there"));
        }
    }
}

/// Every producer id that was given is allotted, and will be given to nobody else.
fn check_producer_ids(trace: &Trace, history: &History, written: &Fold, log: &Log) {
    if let Some(last) = history.producer_ids.last().filter(|last| **last >= written.producer_ids) {
        let what = format!("number {last} was given, but {} are allotted", written.producer_ids);
        trace.anomaly("producer-id-not-durable", what);
    }
    let allotted = log.state().producer_ids_allotted();
    if allotted != written.producer_ids {
        trace.anomaly("state-differs", format!("{allotted} producer ids, the reader has {}", written.producer_ids));
    }
    trace.add("producers forgotten in the log", written.forgotten);
}

/// A flush is in the log once, and flushes of one broker are in flush order.
fn check_flushes(trace: &Trace, written: &Fold) {
    for (broker, ids) in &written.flushes {
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] >= pair[1]) {
            trace.anomaly("flush-order", format!("{} stands before {} of {broker}", pair[0], pair[1]));
        }
    }
}

fn check_topics(trace: &Trace, history: &History, judged: &Judged) {
    for (id, fate) in &history.topics {
        let id = id.to_string();
        let (created, exists) = (judged.created.contains(&id), judged.topics.contains(&id));
        let wrong = match (fate.created, fate.deleted) {
            (Fate::Acked(_), _) if !created => Some("lost-write"),
            (Fate::NotDone, _) if created => Some("aborted-read"),
            (_, Some(Fate::Acked(_))) if exists => Some("lost-write"),
            (_, None | Some(Fate::NotDone)) if created && !exists => Some("aborted-read"),
            _ => None,
        };
        if let Some(name) = wrong {
            trace.anomaly(name, format!("topic {id}: {fate:?}, created: {created}, exists: {exists}"));
        }
    }
}

/// Acknowledged records are where they were acknowledged, those that were not done are nowhere, and none is there twice.
fn check_sent(trace: &Trace, history: &History, rows: &BTreeMap<Partition, Rows>) {
    let mut places: BTreeMap<&str, Vec<(&Partition, u64)>> = BTreeMap::new();
    for (partition, rows) in rows {
        for (offset, row) in rows {
            places.entry(&row.value).or_default().push((partition, *offset));
        }
    }
    for (value, places) in &places {
        if places.len() > 1 {
            trace.anomaly("duplicate", format!("{value:?} is at {places:?}"));
        }
    }
    for sent in &history.sent {
        let partition = partition_of(sent.partition);
        let found = sent.rows.iter().filter(|row| places.contains_key(row.value.as_str())).count();
        if let Some(expected) = sent.expected {
            check_place(trace, expected, &sent.rows, &places);
        }
        match sent.fate {
            Fate::Acked(base) => {
                for (offset, row) in (base..).zip(&sent.rows) {
                    let at = rows.get(&partition).and_then(|rows| rows.get(&offset));
                    if at != Some(row) {
                        let what = format!("{row:?} was acknowledged at {offset} of {partition:?}, where {at:?} is");
                        trace.anomaly("lost-write", what);
                    }
                }
            }
            Fate::NotDone if found > 0 => {
                let what = format!(
                    "{:?} was reported as not done and is at {:?}",
                    sent.rows,
                    places.get(sent.rows[0].value.as_str())
                );
                trace.anomaly("aborted-read", what);
            }
            Fate::Unknown if found != 0 && found != sent.rows.len() => {
                trace.anomaly("torn-batch", format!("{found} of {:?}", sent.rows));
            }
            _ => {}
        }
    }
}

/// A batch that expected an offset is there or nowhere.
fn check_place(trace: &Trace, expected: u64, rows: &[Row], places: &BTreeMap<&str, Vec<(&Partition, u64)>>) {
    for (offset, row) in (expected..).zip(rows) {
        let elsewhere = places.get(row.value.as_str()).is_some_and(|places| places.iter().any(|(_, at)| *at != offset));
        if elsewhere {
            trace.anomaly("expectation-ignored", format!("{row:?} expected {offset} and is at {places:?}"));
        }
    }
}

/// What a writer sent to a partition over one lane is there in the order in which it was sent.
fn check_order(trace: &Trace, history: &History, rows: &BTreeMap<Partition, Rows>) {
    let mut offsets: BTreeMap<&str, u64> = BTreeMap::new();
    for (offset, row) in rows.values().flatten() {
        offsets.insert(&row.value, *offset);
    }
    let mut last: BTreeMap<(usize, u64, PartitionKey), (u64, &Row)> = BTreeMap::new();
    for sent in &history.sent {
        for row in &sent.rows {
            let Some(offset) = offsets.get(row.value.as_str()) else { continue };
            let previous = last.insert((sent.writer, sent.lane, sent.partition), (*offset, row));
            if let Some((before, earlier)) = previous
                && before >= *offset
            {
                trace.anomaly(
                    "nonmonotonic-send",
                    format!("{row:?} at {offset} was sent after {earlier:?} at {before}"),
                );
            }
        }
    }
}

/// What anybody saw is there.
fn check_seen(trace: &Trace, history: &History, rows: &BTreeMap<Partition, Rows>) {
    for ((key, offset), value) in &history.seen {
        let at = rows.get(&partition_of(*key)).and_then(|rows| rows.get(offset));
        if at.is_none_or(|row| row.value != *value) {
            trace.anomaly("vanished", format!("{value:?} was seen at {offset} of {key}, where {at:?} is"));
        }
    }
    for (key, end) in &history.seen_end {
        let last = rows.get(&partition_of(*key)).and_then(|rows| rows.keys().next_back());
        if last.map_or(0, |last| last + 1) < *end {
            trace.anomaly("vanished", format!("{key} was seen to end at {end}, its last offset is {last:?}"));
        }
    }
}
