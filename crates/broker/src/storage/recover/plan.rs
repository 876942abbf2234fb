//! What a table's files and metadata make of its topic: partitions, runs, settings; and what of its records is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use lakebed_lake::{StandingFile, StandingTable};
use lakebed_model::snapshot::PartitionSnapshot;
use lakebed_model::{ObjectId, Offset, Partition, PartitionIndex, PartitionKey, Run, TableFileId, TopicId, TopicName};
use lakebed_segment::layout;
use lakebed_segment::table::{VALUE_FORMAT, ValueFormat};
use lakebed_store::Store;

use super::super::file::{ObjectError, TableFile};
use super::choose::{Candidate, Chosen, Offsets, Taken, choose};
use super::facts::facts_of;
use super::verify::Found;
use super::{Missing, RecoverError, RecoveredTopic};
use crate::tables::told::Told;
use crate::topics::settings;

/// What a topic is told whose settings are not known, for nothing may expire before somebody has said what should.
const KEEP_ALL: [&str; 2] = ["retention.bytes", "retention.ms"];
const CLEANUP_POLICY: &str = "cleanup.policy";

/// A topic as it will be.
pub(super) struct Planned {
    pub(super) id: TopicId,
    pub(super) name: TopicName,
    pub(super) table: String,
    pub(super) version: u32,
    pub(super) config: BTreeMap<String, String>,
    /// By index. Runs don't follow one another where records are missing.
    pub(super) partitions: Vec<PartitionSnapshot>,
    /// The files that can be read, and how many rows each has.
    files: Vec<(TableFileId, u64)>,
    pub(super) told: RecoveredTopic,
    /// Records that no file has that can be read, by partition and offset.
    pub(super) missing: Vec<Missing>,
    /// What is wrong besides, and keeps the topic from being recovered as it was.
    pub(super) wrong: Vec<String>,
}

/// The files that the newest version of a table shows.
pub(super) fn shown_ids(standing: &StandingTable) -> BTreeSet<TableFileId> {
    standing.files.iter().filter_map(id_of).collect()
}

fn id_of(file: &StandingFile) -> Option<TableFileId> {
    file.uri.rsplit('/').next()?.strip_suffix(".parquet")?.parse().ok()
}

/// Decides which files make a topic; or says why there is none.
pub(super) async fn plan(store: &Store, found: &Found) -> Result<Result<Planned, String>, RecoverError> {
    // A table of that name may have been another topic's before: the newest version says whose it is, else the newest file.
    let newest = found.newest.as_ref().and_then(|newest| newest.told.as_ref().ok());
    let of_metadata = newest.map(|(id, _)| TopicId::new(*id));
    let Some(id) = of_metadata.or_else(|| found.files.last().map(|file| file.topic)) else {
        return Ok(Err("none of its files can be read, and its metadata can't either".to_owned()));
    };
    let named = newest.and_then(|(_, properties)| TopicName::new(properties.get("lakebed.topic")?).ok());
    let Some(name) = found.names.get(&id).cloned().or(named).filter(|name| name.table_name() == found.table) else {
        return Ok(Err("neither its files nor its metadata tell the name of its topic".to_owned()));
    };
    let files: Vec<Candidate> = found.files.iter().filter(|file| file.topic == id).cloned().collect();
    let shown = found.standing.as_ref().map(shown_ids);
    let chosen = choose(&files, shown.as_ref());
    let (config, mut notes) = config_of(found, id);
    let (mut missing, mut wrong) = (Gaps::default(), Vec::new());
    look_for_gaps(found, &files, &chosen, shown.as_ref(), (&mut missing, &mut wrong));
    let starts = found.told.as_ref().map(|told| told.log_starts.clone()).unwrap_or_default();
    missing.begin_at(&starts);
    let count = partition_count(found, &chosen, &missing, &mut notes);
    if chosen.compacted && found.told.is_err() {
        notes.push("keys of it were compacted; set cleanup.policy if they should go on to be".to_owned());
    }
    let versions = found.newest.as_ref().and_then(|newest| newest.versions.last());
    let mut planned = Planned {
        told: RecoveredTopic {
            name: name.as_str().to_owned(),
            id: id.to_string(),
            version: versions.map_or(0, |version| version.get()) + 1,
            config: config.clone(),
            notes,
            ..RecoveredTopic::default()
        },
        id,
        table: found.table.clone(),
        version: versions.map_or(0, |version| version.get()) + 1,
        config,
        partitions: Vec::new(),
        files: files.iter().map(|file| (file.id, file.runs.iter().map(|run| run.rows).sum())).collect(),
        missing: missing.told(name.as_str()),
        wrong,
        name,
    };
    let mut used = BTreeSet::new();
    for index in 0..count {
        let taken = chosen.partitions.get(&index).map(Vec::as_slice).unwrap_or_default();
        let start = starts.get(&index).copied().unwrap_or(Offset::ZERO);
        let end = missing.end_of(index);
        let mut runs = Vec::new();
        for taken in taken.iter().filter(|taken| taken.end() > start.get()) {
            used.insert(taken.file);
            match run_of(store, &found.table, &files, taken).await {
                Ok(run) => runs.push((taken.base, run)),
                Err(ObjectError::Store(error)) => return Err(error.into()),
                Err(ObjectError::Damaged(what)) => return Ok(Err(format!("file {}: {what}", taken.file))),
            }
        }
        if chosen.odd.contains(&index) {
            runs.iter_mut().for_each(|(_, run)| run.clean = false);
        }
        let key = PartitionKey::new(id, PartitionIndex::new(index));
        planned.add(key, (start, end.max(taken.last().map_or(0, Taken::end))), runs);
    }
    planned.told.files = used.len();
    planned.told.superseded = files.len() - used.len();
    Ok(Ok(planned))
}

impl Planned {
    /// One more partition, which begins at `start` or its first run, and ends at `end`.
    fn add(&mut self, key: PartitionKey, (start, end): (Offset, u64), runs: Vec<(Offset, Run)>) {
        let end = Offset::new(end).max(start);
        // What lies below is there, too, until a compaction leaves it out.
        let log_start = runs.first().map_or(end, |(base, _)| (*base).max(start));
        for (base, run) in &runs {
            let below = if run.has_gaps() { 0 } else { start.get().saturating_sub(base.get()) };
            self.told.rows += run.rows - below.min(run.rows);
        }
        self.told.partitions.push((key.partition.get(), log_start.get(), end.get()));
        let bounds = Partition { log_start, high_watermark: end };
        self.partitions.push(PartitionSnapshot { key, bounds, runs, producers: Vec::new() });
    }
}

/// Records that are missing, by partition: which, whether that is sure, and why.
#[derive(Debug, Default)]
struct Gaps(BTreeMap<u32, Vec<(Range<u64>, bool, String)>>);

impl Gaps {
    /// Adds what is not known yet of some offsets.
    fn add(&mut self, partition: u32, offsets: Range<u64>, is_sure: bool, why: &str) {
        let known = self.0.entry(partition).or_default();
        let mut next = offsets.start;
        let mut fresh = Vec::new();
        for (other, ..) in known.iter().filter(|(other, ..)| other.end > offsets.start && other.start < offsets.end) {
            if other.start > next {
                fresh.push(next..other.start);
            }
            next = next.max(other.end);
        }
        if next < offsets.end {
            fresh.push(next..offsets.end);
        }
        known.extend(fresh.into_iter().map(|offsets| (offsets, is_sure, why.to_owned())));
        known.sort_by_key(|(offsets, ..)| offsets.start);
        if known.is_empty() {
            self.0.remove(&partition);
        }
    }

    /// Nothing below a log start is missing.
    fn begin_at(&mut self, starts: &BTreeMap<u32, Offset>) {
        for (partition, start) in starts {
            if let Some(known) = self.0.get_mut(partition) {
                known.iter_mut().for_each(|(offsets, ..)| offsets.start = offsets.start.max(start.get()));
                known.retain(|(offsets, ..)| !offsets.is_empty());
            }
        }
        self.0.retain(|_, known| !known.is_empty());
    }

    /// The offset behind the last that is missing of a partition.
    fn end_of(&self, partition: u32) -> u64 {
        self.0.get(&partition).into_iter().flatten().map(|(offsets, ..)| offsets.end).max().unwrap_or(0)
    }

    fn told(&self, topic: &str) -> Vec<Missing> {
        let all = self.0.iter().flat_map(|(partition, known)| known.iter().map(move |one| (*partition, one)));
        let told = all.map(|(partition, (offsets, is_sure, why))| Missing {
            topic: topic.to_owned(),
            partition,
            first_offset: offsets.start,
            last_offset: offsets.end - 1,
            is_sure: *is_sure,
            why: why.clone(),
        });
        told.collect()
    }
}

/// Finds what no file has that can be read.
///
/// A file that the newest version does not show counts only if it is newer than all that it shows: the others were superseded.
fn look_for_gaps(
    found: &Found,
    files: &[Candidate],
    chosen: &Chosen,
    shown: Option<&BTreeSet<TableFileId>>,
    (missing, wrong): (&mut Gaps, &mut Vec<String>),
) {
    let newest = shown.and_then(|shown| shown.last());
    let counts = |id: &TableFileId| shown.is_none_or(|shown| shown.contains(id) || Some(id) > newest);
    for (id, damaged) in found.damaged.iter().filter(|(id, _)| counts(id)) {
        let why = format!("file {id} can't be read: {}", damaged.what);
        match &damaged.offsets {
            Some(runs) => {
                for (partition, offsets) in runs {
                    for lacks in chosen.lacks(*partition, offsets.clone()) {
                        missing.add(*partition, lacks, true, &why);
                    }
                }
            }
            None => look_by_metadata(found, *id, chosen, &why, (missing, wrong)),
        }
    }
    let stands = |id: &TableFileId| found.damaged.contains_key(id) || files.iter().any(|file| file.id == *id);
    for id in shown.into_iter().flatten().filter(|id| !stands(id)) {
        let why = match found.files.iter().any(|file| file.id == *id) {
            true => format!("file {id} is another topic's, and the newest version of the table shows it"),
            false => format!("file {id} is missing, which the newest version of the table shows"),
        };
        look_by_metadata(found, *id, chosen, &why, (missing, wrong));
    }
    for (partition, hole) in &chosen.holes {
        missing.add(*partition, hole.clone(), true, "no file that can be read has them");
    }
    for (partition, doubled, id) in &chosen.doubled {
        let offsets = Offsets(*partition, doubled.clone());
        wrong.push(format!(
            "file {id} has {offsets}, and so has a newer one that the newest version of the table shows, too"
        ));
    }
    if chosen.compacted && shown.is_none() && !found.damaged.is_empty() {
        wrong.push(
            "keys of it were compacted, a file can't be read, and no metadata tells which of the others belong together: values may be there \
             again that later records had made obsolete"
                .to_owned(),
        );
    }
    for partition in &chosen.odd {
        wrong.push(format!("in partition {partition} compacted records follow others: values may be there again that these had made obsolete"));
    }
}

/// The same of a file that does not tell its runs: the metadata has the lowest and the highest of its partitions and offsets.
fn look_by_metadata(
    found: &Found,
    id: TableFileId,
    chosen: &Chosen,
    why: &str,
    (missing, wrong): (&mut Gaps, &mut Vec<String>),
) {
    let mut files = found.standing.iter().flat_map(|standing| &standing.files);
    let Some(extent) = files.find(|file| id_of(file) == Some(id)).and_then(|file| file.bounds) else {
        wrong.push(format!("{why}; nothing tells which records it has"));
        return;
    };
    let ((first, last), (low, high)) = (extent.partitions, extent.offsets);
    for partition in first..=last {
        for lacks in chosen.lacks(partition, low..high.saturating_add(1)) {
            missing.add(partition, lacks, first == last, why);
        }
    }
}

/// How many partitions there are.
fn partition_count(found: &Found, chosen: &Chosen, missing: &Gaps, notes: &mut Vec<String>) -> u32 {
    let of_files = chosen.partitions.keys().chain(missing.0.keys()).max().map_or(1, |last| last + 1);
    match &found.told {
        Ok(told) if told.partitions >= of_files => told.partitions,
        Ok(told) => {
            notes.push(format!(
                "its metadata tells of {} partitions, and there are records of {of_files}",
                told.partitions
            ));
            of_files
        }
        Err(why) => {
            notes.push(format!(
                "{why}: its partitions are those with records, its settings are the defaults, and nothing expires (retention.ms=-1)"
            ));
            of_files
        }
    }
}

/// The settings of a topic, and what is to be said of them.
fn config_of(found: &Found, id: TopicId) -> (BTreeMap<String, String>, Vec<String>) {
    let of_files = found.formats.get(&id).copied();
    let keep_all = || KEEP_ALL.map(|name| (name.to_owned(), "-1".to_owned()));
    let (mut config, mut notes) = (BTreeMap::new(), Vec::new());
    match &found.told {
        Err(_) => config.extend(keep_all()),
        Ok(Told { config: told, .. }) => {
            for (name, value) in told {
                match settings::check(&[(name.clone(), value.clone())].into()) {
                    Ok(()) => drop(config.insert(name.clone(), value.clone())),
                    Err(error) => notes.push(format!("its metadata tells of a setting that can't be: {error}")),
                }
            }
            let is_bad = |name: &str| told.contains_key(name) && !config.contains_key(name);
            let bad: Vec<&str> = KEEP_ALL.into_iter().filter(|name| is_bad(name)).collect();
            if is_bad(CLEANUP_POLICY) {
                config.extend(keep_all());
            }
            config.extend(bad.into_iter().map(|name| (name.to_owned(), "-1".to_owned())));
        }
    }
    let told = config.get(VALUE_FORMAT).and_then(|word| ValueFormat::of_word(word)).unwrap_or_default();
    if let Some(format) = of_files.filter(|format| *format != told) {
        if found.told.is_ok() {
            notes.push(format!(
                "its metadata tells of {VALUE_FORMAT}={told}, and its newest file has {format}, which counts"
            ));
        }
        config.insert(VALUE_FORMAT.to_owned(), format.word().to_owned());
    }
    (config, notes)
}

/// The run of rows that are taken from a file; read again if they are not all of a run of that file.
async fn run_of(store: &Store, table: &str, files: &[Candidate], taken: &Taken) -> Result<Run, ObjectError> {
    let file = files.iter().find(|file| file.id == taken.file).expect("what is taken is a candidate's");
    let of_file = &file.runs[taken.run];
    let object = ObjectId::Table(taken.file);
    let skipped = taken.base.since(of_file.base);
    let (rows, span, clean) = match of_file.has_gaps() {
        // Taken whole.
        true => (of_file.rows, of_file.span, of_file.clean),
        false => (taken.span, taken.span, of_file.clean),
    };
    let first_row = of_file.first_row + skipped;
    let facts = if rows == of_file.rows {
        of_file.facts
    } else {
        let opened = TableFile::open(store, super::super::key(&layout::table_file_key(table, taken.file))).await?;
        facts_of(&opened, first_row..first_row + rows).await?
    };
    Ok(Run { rows, span, clean, object, first_row, bytes: facts.bytes, timestamps: facts.timestamps, hash: facts.hash })
}

impl Planned {
    /// The files of which rows are taken, but not all.
    pub(super) fn partial_files(&self) -> Vec<TableFileId> {
        let mut taken: BTreeMap<ObjectId, u64> = BTreeMap::new();
        for (_, run) in self.partitions.iter().flat_map(|partition| &partition.runs) {
            *taken.entry(run.object).or_default() += run.rows;
        }
        let is_partial =
            |(id, rows): &&(TableFileId, u64)| taken.get(&ObjectId::Table(*id)).is_some_and(|taken| taken != rows);
        self.files.iter().filter(is_partial).map(|(id, _)| *id).collect()
    }
}
