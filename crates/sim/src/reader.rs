//! A reader of the bucket that shares nothing with the code under test: what `docs/format.md` says, and the `parquet` crate.
//!
//! It takes every outcome as the commits record it, and complains where they contradict one another.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

use crate::groups::FoundGroups;
use crate::history::Row;

mod nodes;
mod tables;

pub(crate) use nodes::Nodes;
pub(crate) use tables::{Pick, Snapshot, Tables, Version, snapshot};

/// Objects by their keys.
pub(crate) type Objects = BTreeMap<String, Bytes>;

/// A partition by its topic's id and its index.
pub(crate) type Partition = (String, u64);

/// Rows of one partition in one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// The key of the object.
    pub object: String,
    /// The first row in it.
    pub first_row: u64,
    /// How many.
    pub rows: u64,
}

/// What stands in a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The first offset that counts.
    pub start: u64,
    /// The offset after the last.
    pub end: u64,
    /// Runs by base offset.
    pub runs: BTreeMap<u64, Run>,
}

/// The fold of a log, by hand.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fold {
    /// Which cell.
    pub cell: u16,
    /// How many commits.
    pub number: u64,
    /// The directory of the next commit, and its place there.
    pub place: (String, u64),
    /// The first commit of each directory.
    pub directories: BTreeMap<u64, String>,
    /// Names of topics by their ids.
    pub topics: BTreeMap<String, String>,
    /// What stands in each partition of a topic that is there.
    pub partitions: BTreeMap<Partition, Contents>,
    /// What was ever appended to each partition, where it was appended, deleted topics too.
    pub appended: BTreeMap<Partition, Contents>,
    /// Flush ids of each broker, in the order of the log.
    pub flushes: BTreeMap<String, Vec<String>>,
    /// How many producer ids were allotted.
    pub producer_ids: u64,
    /// How many producers were forgotten since the fold began.
    pub forgotten: u64,
    /// Generations and committed offsets.
    pub groups: FoundGroups,
    /// Versions of tables, and what they show.
    pub tables: Tables,
    /// The members.
    pub nodes: Nodes,
    /// Every topic that was ever created.
    pub created: Vec<String>,
}

/// Reads objects.
pub(crate) struct Reader<'a> {
    objects: &'a Objects,
    cell: u16,
}

impl<'a> Reader<'a> {
    /// A reader of one cell in these objects.
    pub(crate) fn new(objects: &'a Objects, cell: u16) -> Self {
        Self { objects, cell }
    }

    /// Folds the log: from the newest readable checkpoint if `from_checkpoint`, else from its first commit.
    pub(crate) fn fold(&self, from_checkpoint: bool) -> Result<Fold, String> {
        let root = json(self.objects.get("lakebed.json").ok_or("no lakebed.json")?)?;
        let first = text(&root["cells"][usize::from(self.cell)]["directory"])?;
        let mut fold = Fold { cell: self.cell, place: (first.clone(), 0), ..Fold::default() };
        fold.directories.insert(0, first);
        if from_checkpoint {
            for (key, manifest) in self.objects.iter().rev() {
                if key.starts_with(&format!("cells/{}/checkpoints/", self.cell))
                    && key.ends_with("/manifest.json")
                    && let Ok(found) = self.checkpoint(manifest)
                {
                    fold = found;
                    break;
                }
            }
        }
        loop {
            let key = format!("cells/{}/log/{}/{:012}.parquet", self.cell, fold.place.0, fold.place.1);
            let Some(object) = self.objects.get(&key) else { return Ok(fold) };
            let commit = commit_of(object).map_err(|error| format!("{key}: {error}"))?;
            fold.apply(&key, &commit).map_err(|error| format!("{key}: {error}"))?;
        }
    }

    fn checkpoint(&self, manifest: &Bytes) -> Result<Fold, String> {
        let manifest = json(manifest)?;
        let mut parts = Vec::new();
        for part in array(&manifest["parts"])? {
            let (checkpoint, name) = (number(&part["checkpoint"])?, text(&part["name"])?);
            let key = format!("cells/{}/checkpoints/{checkpoint:020}/{name}", self.cell);
            parts.push(json(self.objects.get(&key).ok_or(format!("no {key}"))?)?);
        }
        let (base, buckets) = parts.split_first().ok_or("no parts")?;
        let mut fold = Fold {
            cell: self.cell,
            number: number(&base["number"])?,
            place: (text(&base["directory"])?, number(&base["index"])?),
            producer_ids: number(&base["producer_ids"])?,
            ..Fold::default()
        };
        for directory in array(&base["directories"])? {
            fold.directories.insert(number(&directory[0])?, text(&directory[1])?);
        }
        for topic in array(&base["topics"])? {
            fold.topics.insert(text(&topic["topic"])?, text(&topic["name"])?);
            fold.tables.restore(topic)?;
        }
        fold.tables.gone = number(&base["table_version_gone"])?;
        fold.nodes.restore(base)?;
        fold.groups.gone = number(&base["generation_gone"])?;
        for bucket in buckets {
            for partition in array(bucket)? {
                if partition.get("group").is_some() {
                    fold.groups.restore(partition)?;
                    continue;
                }
                let (start, end) = (number(&partition["log_start"])?, number(&partition["high_watermark"])?);
                let mut contents = Contents { start, end, runs: BTreeMap::new() };
                for run in array(&partition["runs"])? {
                    let object = match &run[2] {
                        Value::String(id) => fold.segment_key(id),
                        Value::Array(file) => fold.table_file_key(&text(&partition["topic"])?, &text(&file[0])?)?,
                        commit => fold.commit_key(number(commit)?)?,
                    };
                    let (rows, first_row) = (number(&run[1])?, number(&run[3])?);
                    contents.runs.insert(number(&run[0])?, Run { object, first_row, rows });
                }
                let key = (text(&partition["topic"])?, number(&partition["partition"])?);
                fold.partitions.insert(key, contents);
            }
        }
        Ok(fold)
    }

    /// The rows of a run that begins at offset `base`.
    pub(crate) fn rows(
        &self,
        partition: &Partition,
        (base, run): (u64, &Run),
        cache: &mut RowCache,
    ) -> Result<Vec<Row>, String> {
        let object = self.objects.get(&run.object).ok_or(format!("{} is not there", run.object))?;
        let rows = cache.of(&run.object, object)?;
        let range = run.first_row as usize..(run.first_row + run.rows) as usize;
        let rows = rows.get(range).ok_or(format!("{} has {} rows", run.object, rows.len()))?;
        if let Some(other) = rows.iter().find(|row| row.partition != *partition) {
            return Err(format!("{} has a row of {:?} where {partition:?} should be", run.object, other.partition));
        }
        for (offset, row) in (base..).zip(rows) {
            if row.offset.is_some_and(|written| written != offset) {
                return Err(format!(
                    "{} has offset {:?} of {partition:?} where {offset} should be",
                    run.object, row.offset
                ));
            }
        }
        Ok(rows.iter().map(|row| row.row.clone()).collect())
    }
}

impl Fold {
    fn commit_key(&self, commit: u64) -> Result<String, String> {
        let (first, directory) = self.directories.range(..=commit).next_back().ok_or("no directory")?;
        Ok(format!("cells/{}/log/{directory}/{:012}.parquet", self.cell, commit - first))
    }

    fn segment_key(&self, id: &str) -> String {
        format!("cells/{}/segments/{id}.parquet", self.cell)
    }

    fn apply(&mut self, key: &str, commit: &Value) -> Result<(), String> {
        let place = (text(&commit["directory"])?, number(&commit["index"])?);
        if number(&commit["number"])? != self.number || place != self.place {
            return Err(format!("it says that it is commit {} at {place:?}, not {}", commit["number"], self.number));
        }
        self.place.1 += 1;
        for entry in array(&commit["entries"])? {
            self.apply_entry(key, entry)?;
        }
        self.number += 1;
        Ok(())
    }

    fn apply_entry(&mut self, key: &str, entry: &Value) -> Result<(), String> {
        let (kind, entry) = entry.as_object().and_then(|entry| entry.iter().next()).ok_or("an empty entry")?;
        match kind.as_str() {
            "takeover" => {
                self.place = (text(&entry["next"])?, 0);
                self.directories.insert(self.number + 1, self.place.0.clone());
            }
            "create_topic" => {
                let topic = text(&entry["topic"])?;
                for partition in 0..number(&entry["partitions"])? {
                    self.partitions.insert((topic.clone(), partition), Contents::default());
                }
                self.created.push(topic.clone());
                self.topics.insert(topic, text(&entry["name"])?);
            }
            "delete_topic" => {
                let topic = text(&entry["topic"])?;
                self.partitions.retain(|(other, _), _| *other != topic);
                self.groups.forget_topic(&topic);
                self.tables.forget(&topic);
                self.topics.remove(&topic).ok_or("a topic that does not exist is deleted")?;
            }
            "add_partitions" => {
                let topic = text(&entry["topic"])?;
                for partition in 0..number(&entry["partitions"])? {
                    self.partitions.entry((topic.clone(), partition)).or_default();
                }
            }
            "move_log_start" => {
                let partition = (text(&entry["topic"])?, number(&entry["partition"])?);
                let offset = number(&entry["offset"])?;
                let contents = self.partitions.get_mut(&partition).ok_or(format!("{partition:?} does not exist"))?;
                if offset <= contents.start || offset > contents.end {
                    return Err(format!("{partition:?} of {}..{} begins at {offset}", contents.start, contents.end));
                }
                let dropped = contents.runs.iter().any(|(base, run)| {
                    let end = base + run.rows;
                    end > contents.start && end <= offset && tables::is_table_file(&run.object)
                });
                // Runs below it stay in the books, for a merge may name one of which a part counts; they are not read.
                contents.start = offset;
                if dropped {
                    self.change_table(&partition.0)?;
                }
            }
            "trim_run" => self.apply_trim(entry)?,
            "compact" => self.apply_compact(entry)?,
            "publish_table" => self.tables.publish(entry)?,
            "flush" => self.apply_flush(key, entry)?,
            "merge" => self.apply_merge(entry)?,
            "allot_producer_ids" => {
                let (first, count) = (number(&entry["first"])?, number(&entry["count"])?);
                if first != self.producer_ids || count == 0 {
                    return Err(format!("{count} producer ids from {first} on, not from {}", self.producer_ids));
                }
                self.producer_ids += count;
            }
            "expire_producers" => self.forgotten += number(&entry["forgotten"])?,
            "start_generation" | "commit_offsets" | "expire_offsets" | "delete_group" => {
                self.groups.apply(kind, entry)?
            }
            "join" => self.nodes.join(entry)?,
            "leave" => self.nodes.leave(entry)?,
            "move_reclaim_boundary" | "raise_feature_level" | "alter_topic" => {}
            other => return Err(format!("an entry {other}, which this world does not make")),
        }
        Ok(())
    }

    fn apply_flush(&mut self, key: &str, flush: &Value) -> Result<(), String> {
        let id = text(&flush["id"])?;
        let object = if flush["body"] == "inline" { key.to_owned() } else { self.segment_key(&id) };
        self.flushes.entry(text(&flush["broker"])?).or_default().push(id);
        for topic in array(&flush["topics"])? {
            for run in array(&topic["runs"])? {
                let partition = (text(&topic["topic"])?, number(&run["partition"])?);
                let mut row = number(&run["first_row"])?;
                for batch in array(&run["batches"])? {
                    let rows = number(&batch[0])?;
                    self.check_expectation(&partition, batch)?;
                    if batch[1] == "appended" {
                        let run = Run { object: object.clone(), first_row: row, rows };
                        self.append(&partition, number(&batch[2])?, run)?;
                    }
                    row += rows;
                }
            }
        }
        Ok(())
    }

    /// A batch that expected an offset has it, or was refused where the next was another.
    fn check_expectation(&self, partition: &Partition, batch: &Value) -> Result<(), String> {
        let end = self.partitions.get(partition).map(|contents| contents.end);
        let wrong = match (batch[1].as_str(), batch[10].as_u64()) {
            (Some("appended"), Some(expected)) => number(&batch[2])? != expected,
            (Some("offset_mismatch"), Some(expected)) => end != Some(number(&batch[2])?) || end == Some(expected),
            (Some("offset_mismatch"), None) => true,
            _ => false,
        };
        if wrong { Err(format!("{partition:?} ends at {end:?}, and has {batch}")) } else { Ok(()) }
    }

    fn append(&mut self, partition: &Partition, base: u64, run: Run) -> Result<(), String> {
        let contents = self.partitions.get_mut(partition).ok_or(format!("{partition:?} does not exist"))?;
        for contents in [contents, self.appended.entry(partition.clone()).or_default()] {
            // A reader that began at a checkpoint does not know what was appended before.
            if contents.end != base && !contents.runs.is_empty() {
                return Err(format!("{partition:?} goes on at {base}, but ends at {}", contents.end));
            }
            contents.end = base + run.rows;
            contents.runs.insert(base, run.clone());
        }
        Ok(())
    }

    fn apply_merge(&mut self, merge: &Value) -> Result<(), String> {
        let object = self.segment_key(&text(&merge["segment"])?);
        for run in array(&merge["runs"])? {
            let partition = (text(&run["topic"])?, number(&run["partition"])?);
            let (base, rows) = (number(&run["base_offset"])?, number(&run["rows"])?);
            let contents = self.partitions.get_mut(&partition).ok_or(format!("{partition:?} does not exist"))?;
            let replaced: Vec<u64> = contents.runs.range(base..base + rows).map(|(base, _)| *base).collect();
            let sum: u64 = replaced.iter().filter_map(|base| contents.runs.remove(base)).map(|run| run.rows).sum();
            if sum != rows || replaced.first() != Some(&base) {
                return Err(format!("a merge of {rows} rows of {partition:?} at {base} replaces {sum}"));
            }
            contents.runs.insert(base, Run { object: object.clone(), first_row: number(&run["first_row"])?, rows });
        }
        Ok(())
    }
}

/// The next directory that an object names, if it is a takeover.
pub(crate) fn takeover_of(object: &Bytes) -> Option<String> {
    let commit = commit_of(object).ok()?;
    text(&commit["entries"][0]["takeover"]["next"]).ok()
}

fn commit_of(object: &Bytes) -> Result<Value, String> {
    let file = SerializedFileReader::new(object.clone()).map_err(|error| error.to_string())?;
    let pairs = file.metadata().file_metadata().key_value_metadata().ok_or("no key-values")?;
    let pair = pairs.iter().find(|pair| pair.key == "lakebed.commit").ok_or("no lakebed.commit")?;
    serde_json::from_str(pair.value.as_deref().unwrap_or_default()).map_err(|error| error.to_string())
}

/// Rows of objects that were read already.
#[derive(Default)]
pub(crate) struct RowCache {
    rows: BTreeMap<(String, usize), Vec<Placed>>,
}

/// A row where it stands in an object.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    /// Whose it is.
    pub partition: Partition,
    /// Its offset, if the object says it.
    pub offset: Option<u64>,
    /// The record.
    pub row: Row,
}

impl RowCache {
    pub(crate) fn of(&mut self, key: &str, object: &Bytes) -> Result<&[Placed], String> {
        // Objects of one key may differ: what stood there first, and what stands there now.
        let known = (key.to_owned(), object.as_ptr() as usize);
        if !self.rows.contains_key(&known) {
            let rows = read_rows(object).map_err(|error| format!("{key}: {error}"))?;
            self.rows.insert(known.clone(), rows);
        }
        Ok(&self.rows[&known])
    }
}

fn read_rows(object: &Bytes) -> Result<Vec<Placed>, String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(object.clone()).map_err(|error| error.to_string())?;
    // The rows of a table file are of one topic, which stands in its footer.
    let pairs = builder.metadata().file_metadata().key_value_metadata();
    let topic = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == "lakebed.topic_id")?.value.clone());
    let names = ["_lakebed_topic", "_kafka_partition", "_kafka_offset", "_kafka_timestamp", "key", "value"];
    let mask = ProjectionMask::roots(
        builder.parquet_schema(),
        builder
            .schema()
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| names.contains(&field.name().as_str()))
            .map(|(index, _)| index),
    );
    let reader = builder.with_projection(mask).build().map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    for batch in reader {
        take_rows(&batch.map_err(|error| error.to_string())?, topic.as_deref(), &mut rows)?;
    }
    Ok(rows)
}

fn take_rows(batch: &RecordBatch, topic: Option<&str>, rows: &mut Vec<Placed>) -> Result<(), String> {
    let column = |name: &str| batch.column_by_name(name).ok_or(format!("no column {name}"));
    let topics = batch.column_by_name("_lakebed_topic").map(|column| column.as_fixed_size_binary());
    let partitions = column("_kafka_partition")?.as_primitive::<Int32Type>();
    let offsets = batch.column_by_name("_kafka_offset").map(|column| column.as_primitive::<Int64Type>());
    let times = column("_kafka_timestamp")?.as_primitive::<TimestampMicrosecondType>();
    let keys = column("key")?.as_binary::<i32>();
    let values = column("value")?.as_binary::<i32>();
    for row in 0..batch.num_rows() {
        let topic = match (topics, topic) {
            (Some(topics), _) => {
                uuid::Uuid::from_slice(topics.value(row)).map_err(|error| error.to_string())?.to_string()
            }
            (None, Some(topic)) => topic.to_owned(),
            (None, None) => return Err("rows of no topic".to_owned()),
        };
        rows.push(Placed {
            partition: (topic, partitions.value(row) as u64),
            offset: offsets.map(|offsets| offsets.value(row) as u64),
            row: Row {
                key: keys.is_valid(row).then(|| String::from_utf8_lossy(keys.value(row)).into_owned()),
                value: String::from_utf8_lossy(values.value(row)).into_owned(),
                timestamp_ms: if times.is_valid(row) { times.value(row) / 1_000 } else { -1 },
            },
        });
    }
    Ok(())
}

pub(crate) fn json(bytes: &Bytes) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

pub(crate) fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or(format!("{value} is no text"))
}

pub(crate) fn number(value: &Value) -> Result<u64, String> {
    value.as_u64().ok_or(format!("{value} is no number"))
}

pub(crate) fn array(value: &Value) -> Result<&Vec<Value>, String> {
    value.as_array().ok_or(format!("{value} is no list"))
}
