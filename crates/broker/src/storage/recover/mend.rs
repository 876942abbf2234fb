//! What is done where records are missing and the operator wants the others: holes are closed, and what can't be read is set aside.
//!
//! 1. The runs of a partition follow one another. So the file before a hole is written anew, with a run that covers the hole's offsets without
//!    having rows for them, as compaction of keys leaves them: consumers pass over it, and no offset is given twice.
//! 2. What can't be read is copied to `set-aside/` under its own key before anything of the new log counts, and deleted from its place
//!    afterwards: a broker deletes what nothing names.

use std::collections::BTreeMap;

use bytes::Bytes;
use lakebed_model::snapshot::PartitionSnapshot;
use lakebed_model::{ObjectId, Offset, PartitionIndex, Run, TableFileId};
use lakebed_segment::commit::Identity;
use lakebed_segment::layout;
use lakebed_segment::table::{TableFileName, TableSettings, TableWriter};
use lakebed_store::{Created, Key, Store};

use super::super::file::{ObjectError, TableFile};
use super::super::{Listing, directory, key};
use super::RecoverError;
use super::facts::Facts;
use super::plan::Planned;
use super::verify::facts_of_run;

/// Where things are set aside.
pub(super) const SET_ASIDE: &str = "set-aside/";

/// A run that is written anew: where it is in the plan, and how far it reaches then.
struct Rewritten {
    partition: usize,
    index: usize,
    end: Offset,
}

/// Ids of files, each greater than all before.
pub(super) struct Mint {
    next: ulid::Ulid,
}

impl Mint {
    /// Ids above `highest`, of this time or later.
    pub(super) fn new(highest: ulid::Ulid, now_ms: i64, random: u128) -> Self {
        let now_ms = u64::try_from(now_ms).unwrap_or(0);
        Self { next: ulid::Ulid::from_parts(now_ms.max(highest.timestamp_ms() + 1), random >> 1) }
    }

    fn take(&mut self) -> TableFileId {
        let id = self.next;
        self.next = ulid::Ulid(id.0 + 1);
        TableFileId::new(id)
    }
}

/// Closes the holes of a topic. Answers with the highest id of the files that were written.
///
/// # Errors
/// [`RecoverError`]; files may have been written that nothing names.
/// # Cost One file before each hole is read, written and read again; it is held in memory meanwhile.
pub(super) async fn close_holes(
    store: &Store,
    identity: Identity,
    planned: &mut Planned,
    mint: &mut Mint,
) -> Result<Option<TableFileId>, RecoverError> {
    let mut highest = None;
    for (file, runs) in files_before_holes(&planned.partitions) {
        let id = mint.take();
        let table = planned.table.clone();
        let written = rewrite(store, identity, planned, (file, id), runs).await;
        written.map_err(|error| match error {
            ObjectError::Store(error) => RecoverError::from(error),
            ObjectError::Damaged(what) => RecoverError::NotMended { file: layout::table_file_key(&table, file), what },
        })?;
        highest = Some(id);
    }
    Ok(highest)
}

/// The files that are before a hole, with all of their runs, in order.
fn files_before_holes(partitions: &[PartitionSnapshot]) -> BTreeMap<TableFileId, Vec<Rewritten>> {
    let mut files: BTreeMap<TableFileId, (bool, Vec<Rewritten>)> = BTreeMap::new();
    for (partition, snapshot) in partitions.iter().enumerate() {
        for (index, (base, run)) in snapshot.runs.iter().enumerate() {
            let ObjectId::Table(file) = run.object else { continue };
            let next = snapshot.runs.get(index + 1).map_or(snapshot.bounds.high_watermark, |(next, _)| *next);
            let (is_before, runs) = files.entry(file).or_default();
            *is_before |= run.end(*base) < next;
            runs.push(Rewritten { partition, index, end: next });
        }
    }
    files.into_iter().filter(|(_, (is_before, _))| *is_before).map(|(file, (_, runs))| (file, runs)).collect()
}

/// Writes a file anew, each run up to where the next begins, and names it in the plan.
async fn rewrite(
    store: &Store,
    identity: Identity,
    planned: &mut Planned,
    (file, id): (TableFileId, TableFileId),
    runs: Vec<Rewritten>,
) -> Result<(), ObjectError> {
    let unwritable = |error: lakebed_segment::table::TableError| ObjectError::Damaged(error.to_string());
    let source = TableFile::open(store, key(&layout::table_file_key(&planned.table, file))).await?;
    let name = TableFileName { id, topic_id: planned.id, topic: planned.name.clone() };
    let settings = TableSettings::of(&planned.config);
    let mut writer = TableWriter::new(&identity, name, settings).map_err(unwritable)?;
    let (mut made, mut first_row) = (Vec::new(), 0);
    for Rewritten { partition, index, end } in &runs {
        let partition = &planned.partitions[*partition];
        let (base, run) = partition.runs[*index];
        let partition = partition.key.partition;
        let span = end.since(base);
        writer.begin_run(partition, base).map_err(unwritable)?;
        let mut facts = Facts::default();
        for part in source.parts(run.first_row..run.first_row + run.rows) {
            let read = source.rows(part).await?;
            for (row, offset) in read.offsets.iter().enumerate() {
                writer.place(*offset, &read.rows, row).map_err(unwritable)?;
            }
            facts.add(&read.rows, (span != run.rows).then_some(&read.offsets[..]));
        }
        let cleaned = if run.clean { cleaned(&source, (partition, base), &run, *end) } else { Vec::new() };
        writer.end_run(*end, &cleaned).map_err(unwritable)?;
        let Facts { bytes, timestamps, hash } = facts;
        made.push(Run { span, first_row, object: ObjectId::Table(id), bytes, timestamps, hash, ..run });
        first_row += run.rows;
    }
    let bytes = Bytes::from(writer.finish().map_err(unwritable)?);
    let to = key(&layout::table_file_key(&planned.table, id));
    create(store, &to, bytes).await?;
    let written = TableFile::open(store, to).await?;
    for (at, run) in runs.iter().zip(made) {
        planned.partitions[at.partition].runs[at.index].1 = run;
    }
    read_back(&written, &planned.partitions, &runs).await
}

/// Compares what was written with what the plan says of it.
async fn read_back(
    written: &TableFile<'_>,
    partitions: &[PartitionSnapshot],
    runs: &[Rewritten],
) -> Result<(), ObjectError> {
    for (at, described) in runs.iter().zip(written.footer.described_runs()) {
        let run = partitions[at.partition].runs[at.index].1;
        let facts = facts_of_run(written, &described, run.first_row).await?;
        let same = (described.rows, described.span, described.is_clean) == (run.rows, run.span, run.clean);
        if !same || facts != (Facts { bytes: run.bytes, timestamps: run.timestamps, hash: run.hash }) {
            return Err(ObjectError::Damaged("what was written in its place does not read back".to_owned()));
        }
    }
    Ok(())
}

/// When the keys of a run were compacted first, up to where it reaches now.
fn cleaned(
    source: &TableFile<'_>,
    (partition, base): (PartitionIndex, Offset),
    run: &Run,
    end: Offset,
) -> Vec<(Offset, i64)> {
    let mut cleaned = source.footer.cleaned(partition, base, run.first_row);
    match cleaned.last_mut() {
        Some((to, _)) => *to = end,
        // Of what nobody knows the time, it begins as late as can be: no tombstone goes too early.
        None => cleaned.push((end, i64::MAX)),
    }
    cleaned
}

/// Copies objects to where things are set aside.
///
/// # Errors
/// [`RecoverError`]
/// # Cost A GET and a PUT each; one at a time is in memory.
pub(super) async fn set_aside(store: &Store, keys: &[Key]) -> Result<(), RecoverError> {
    for from in keys {
        let bytes = store.get(from).await?;
        let to = key(&format!("{SET_ASIDE}{from}"));
        create(store, &to, bytes).await.map_err(|error| match error {
            ObjectError::Store(error) => RecoverError::from(error),
            ObjectError::Damaged(what) => RecoverError::NotMended { file: to.to_string(), what },
        })?;
    }
    Ok(())
}

/// Everything that stands of a table.
pub(super) async fn objects_of(store: &Store, table: &str) -> Result<Vec<Key>, RecoverError> {
    let mut listing = Listing::of(store, directory(&layout::table_prefix(table)));
    let mut keys = Vec::new();
    while let Some(page) = listing.next().await? {
        keys.extend(page.into_iter().map(|listed| listed.key));
    }
    Ok(keys)
}

async fn create(store: &Store, to: &Key, bytes: Bytes) -> Result<(), ObjectError> {
    match store.create(to, bytes).await {
        Ok(Created::New | Created::Mine) => Ok(()),
        Ok(Created::Other) => Err(ObjectError::Damaged("another object stands there: move it away".to_owned())),
        Err(error) => Err(ObjectError::Damaged(error.to_string())),
    }
}
