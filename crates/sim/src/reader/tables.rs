//! Tables for the reader that shares nothing with the code under test: what each version must show by the log, and what it does show by
//! its Iceberg metadata.

use std::collections::{BTreeMap, BTreeSet};

use apache_avro::types::Value as Avro;
use bytes::Bytes;
use serde_json::Value;

use super::{Fold, Objects, Partition, Run, array, json, number, text};

/// What the log says that one version of a table shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    /// The number of the commit that allotted it.
    pub commit: u64,
    /// The keys of its files.
    pub files: BTreeSet<String>,
    /// Where each partition of the topic began and ended then.
    pub bounds: BTreeMap<Partition, (u64, u64)>,
}

/// The versions of all tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    /// The newest of each topic that has one.
    pub newest: BTreeMap<String, u64>,
    /// The newest that the log says is published.
    pub published: BTreeMap<String, u64>,
    /// The greatest of any topic that was deleted.
    pub gone: u64,
    /// Every version that was allotted since the fold began, by the table's name and its number.
    pub versions: BTreeMap<(String, u64), Version>,
}

/// What a version shows by its metadata.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    /// The number of the commit that its summary names.
    pub commit: u64,
    /// How many rows each file has, by the key of the file.
    pub files: BTreeMap<String, u64>,
}

impl Tables {
    pub(super) fn restore(&mut self, topic: &Value) -> Result<(), String> {
        if let Some(table) = topic.get("table") {
            let id = text(&topic["topic"])?;
            self.newest.insert(id.clone(), number(&table[0])?);
            self.published.insert(id, number(&table[1])?);
        }
        Ok(())
    }

    pub(super) fn publish(&mut self, entry: &Value) -> Result<(), String> {
        let (topic, version) = (text(&entry["topic"])?, number(&entry["version"])?);
        if self.newest.get(&topic).is_none_or(|newest| *newest < version) {
            return Err(format!("version {version} of {topic} is published, and was never allotted"));
        }
        let known = self.published.entry(topic).or_default();
        *known = version.max(*known);
        Ok(())
    }

    pub(super) fn forget(&mut self, topic: &str) {
        self.published.remove(topic);
        self.gone = self.gone.max(self.newest.remove(topic).unwrap_or(0));
    }
}

impl Fold {
    /// The key of a table file.
    pub(super) fn table_file_key(&self, topic: &str, file: &str) -> Result<String, String> {
        Ok(format!("tables/default/{}/data/{file}.parquet", self.table_name(topic)?))
    }

    fn table_name(&self, topic: &str) -> Result<String, String> {
        let name = self.topics.get(topic).ok_or(format!("{topic} does not exist"))?;
        Ok(name.to_ascii_lowercase().replace('.', "_"))
    }

    /// Cuts rows below the log start off the run that holds it.
    pub(super) fn apply_trim(&mut self, trim: &Value) -> Result<(), String> {
        let partition = (text(&trim["topic"])?, number(&trim["partition"])?);
        let (offset, rows) = (number(&trim["offset"])?, number(&trim["rows"])?);
        let contents = self.partitions.get_mut(&partition).ok_or(format!("{partition:?} does not exist"))?;
        // Runs may be cut differently here: what is one run of the log can be several that follow one another in one object.
        let cut: Vec<(u64, Run)> = contents.runs.range(..offset).map(|(base, run)| (*base, run.clone())).collect();
        let cut: Vec<_> = cut.into_iter().filter(|(base, run)| base + run.rows > offset.saturating_sub(rows)).collect();
        let covered: u64 = cut.iter().map(|(base, run)| run.rows.min(offset - base)).sum();
        let left = contents.runs.get(&offset).cloned().or_else(|| {
            let (base, run) = cut.last().filter(|(base, run)| base + run.rows > offset)?;
            Some(Run { first_row: run.first_row + (offset - base), rows: base + run.rows - offset, ..run.clone() })
        });
        let Some(left) = left else { return Err(format!("nothing of {partition:?} lies at {offset}")) };
        let same = cut
            .iter()
            .all(|(base, run)| run.object == left.object && run.first_row + (offset - base) == left.first_row);
        if offset > contents.start || covered != rows || !same {
            return Err(format!("{rows} rows below {offset} of {partition:?} are cut off {cut:?}"));
        }
        contents.runs.retain(|base, _| !cut.iter().any(|(cut, _)| cut == base));
        contents.runs.insert(offset, left);
        Ok(())
    }

    pub(super) fn apply_compact(&mut self, compact: &Value) -> Result<(), String> {
        let topic = text(&compact["topic"])?;
        let mut coming: BTreeMap<Partition, BTreeMap<u64, Run>> = BTreeMap::new();
        for file in array(&compact["files"])? {
            let object = self.table_file_key(&topic, &text(&file["file"])?)?;
            let mut first_row = 0;
            for run in array(&file["runs"])? {
                let (partition, base, rows) = (number(&run[0])?, number(&run[1])?, number(&run[2])?);
                let runs = coming.entry((topic.clone(), partition)).or_default();
                runs.insert(base, Run { object: object.clone(), first_row, rows });
                first_row += rows;
            }
        }
        for (partition, coming) in coming {
            let contents = self.partitions.get_mut(&partition).ok_or(format!("{partition:?} does not exist"))?;
            // Whole runs are replaced, by as many rows at the same offsets.
            let rows = |runs: &BTreeMap<u64, Run>| -> BTreeSet<u64> {
                runs.iter().flat_map(|(base, run)| *base..base + run.rows).collect()
            };
            let new = rows(&coming);
            let mut replaced = contents.runs.clone();
            replaced.retain(|base, run| (*base..base + run.rows).any(|offset| new.contains(&offset)));
            if rows(&replaced) != new {
                return Err(format!("a compaction of {new:?} of {partition:?} replaces {:?}", rows(&replaced)));
            }
            contents.runs.retain(|base, _| !replaced.contains_key(base));
            contents.runs.extend(coming);
        }
        self.change_table(&topic)
    }

    /// Allots the next version of a topic's table, and notes what it must show.
    pub(super) fn change_table(&mut self, topic: &str) -> Result<(), String> {
        let table = self.table_name(topic)?;
        let known = self.tables.newest.entry(topic.to_owned()).or_default();
        // However much a commit changes, it allots one version, which shows what comes of all of it.
        let changed = self.tables.versions.get(&(table.clone(), *known)).is_some_and(|one| one.commit == self.number);
        if !changed {
            *known = self.tables.gone.max(*known) + 1;
        }
        let (number, mut files) = (*known, BTreeSet::new());
        let mut bounds = BTreeMap::new();
        for (partition, contents) in self.partitions.iter().filter(|((of, _), _)| of == topic) {
            bounds.insert(partition.clone(), (contents.start, contents.end));
            let live = contents.runs.iter().filter(|(base, run)| **base + run.rows > contents.start);
            files.extend(live.map(|(_, run)| run.object.clone()).filter(|object| is_table_file(object)));
        }
        let version = Version { commit: self.number, files, bounds };
        match self.tables.versions.insert((table.clone(), number), version) {
            // An entry may move several log starts of a topic, or compact and move them: the commit shows what comes of all.
            Some(before) if before.commit != self.number => {
                Err(format!("version {number} of {table} is allotted twice"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether an object is a table file, by its key.
pub(super) fn is_table_file(key: &str) -> bool {
    key.starts_with("tables/")
}

/// A snapshot of those to which metadata leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    /// What the version shows.
    Current,
    /// The first that the table had, of those that are still in sight.
    Oldest,
}

/// What a version shows, or did: its metadata, manifest list and manifests, read by the Iceberg specification.
pub(crate) fn snapshot(metadata: &Bytes, pick: Pick, objects: &Objects) -> Result<Snapshot, String> {
    let metadata = json(metadata)?;
    let current = &metadata["current-snapshot-id"];
    let snapshots = array(&metadata["snapshots"])?;
    let found = match pick {
        Pick::Current => snapshots.iter().find(|one| one["snapshot-id"] == *current),
        Pick::Oldest => snapshots.iter().min_by_key(|one| one["sequence-number"].as_u64()),
    };
    let found = found.ok_or(format!("no snapshot {current}"))?;
    let commit = text(&found["summary"]["lakebed.commit"])?;
    let commit = commit.parse().map_err(|_| format!("{commit} is no number of a commit"))?;
    let mut shown = Snapshot { commit, files: BTreeMap::new() };
    for manifest in rows_of(&key_of(&text(&found["manifest-list"])?)?, objects)? {
        for entry in rows_of(&key_of(&string(&manifest, "manifest_path")?)?, objects)? {
            let Some(Avro::Int(status)) = field(&entry, "status") else {
                return Err("an entry without status".to_owned());
            };
            let file = field(&entry, "data_file").ok_or("an entry without a file")?;
            let Some(Avro::Long(rows)) = field(file, "record_count") else {
                return Err("a file without rows".to_owned());
            };
            // 2: it was deleted.
            if *status == 2 {
                continue;
            }
            let key = key_of(&string(file, "file_path")?)?;
            if shown.files.insert(key.clone(), *rows as u64).is_some() {
                return Err(format!("{key} is shown twice"));
            }
        }
    }
    Ok(shown)
}

/// The key in a URI of this bucket.
fn key_of(uri: &str) -> Result<String, String> {
    let at = uri.find("tables/").ok_or(format!("{uri} is not in this bucket"))?;
    Ok(uri[at..].to_owned())
}

fn rows_of(key: &str, objects: &Objects) -> Result<Vec<Avro>, String> {
    let object = objects.get(key).ok_or(format!("{key} is not there"))?;
    let reader = apache_avro::Reader::new(&object[..]).map_err(|error| format!("{key}: {error}"))?;
    reader.collect::<Result<_, _>>().map_err(|error| format!("{key}: {error}"))
}

fn field<'a>(record: &'a Avro, name: &str) -> Option<&'a Avro> {
    let Avro::Record(fields) = record else { return None };
    let value = &fields.iter().find(|(field, _)| field == name)?.1;
    Some(if let Avro::Union(_, inner) = value { inner } else { value })
}

fn string(record: &Avro, name: &str) -> Result<String, String> {
    match field(record, name) {
        Some(Avro::String(text)) => Ok(text.clone()),
        other => Err(format!("{name} is {other:?}")),
    }
}
