//! How compaction of keys takes the place of what it compacted: the same offsets, fewer rows.
//!
//! The rows are others, so no hash can tell that they are the right ones; what must hold all the same is checked here: no offset is left
//! without a run that covers it, nothing grows, nothing but table files of a topic that wants it is touched, and no file of which rows were
//! replaced is named any more, or its readers would see both.

use std::collections::BTreeSet;

use super::{ObjectId, Refusal, Run, State};
use crate::commit::{CleanedFile, CleanedRun, KeyCompaction, TimestampRange};
use crate::ids::{Offset, PartitionKey, SegmentId, TableFileId};
use crate::topic::compacts_keys;

const TOO_MANY: Refusal = Refusal::Malformed { what: "a compaction of keys has more rows than can be counted" };

impl State {
    /// Swaps whole runs of table files for what is left of them in new ones, and allots the next version of the topic's table.
    ///
    /// # Errors
    /// [`Refusal::MergeStale`] if another change came first (the files are orphans), [`Refusal::KeysStay`] if the topic does not want
    /// it. On an error the caller drops this state.
    pub(crate) fn compact_keys(&mut self, compaction: &KeyCompaction) -> Result<(), Refusal> {
        self.check_cleaned(compaction)?;
        let runs: Vec<(TableFileId, CleanedRun)> =
            compaction.files.iter().flat_map(|file| file.runs.iter().map(|run| (file.id, *run))).collect();
        let mut touched = BTreeSet::new();
        for chain in runs.chunk_by(|(_, one), (_, next)| follows(one, next)) {
            self.replace(chain, &mut touched)?;
        }
        if !touched.iter().copied().eq(compaction.replaces.iter().map(|file| ObjectId::Table(*file))) {
            let (partition, base_offset) = runs.first().map_or_else(
                || (PartitionKey::first_of(compaction.topic), Offset::ZERO),
                |(_, run)| (run.partition, run.base_offset),
            );
            return Err(Refusal::MergeStale { partition, base_offset });
        }
        if touched.iter().any(|object| self.objects.contains_key(object)) {
            return Err(Refusal::Malformed { what: "a compaction of keys leaves rows of a file behind" });
        }
        for file in &compaction.files {
            self.highest = self.highest.max(file.id.into());
        }
        self.change_table(compaction.topic)
    }

    /// What can be said of the files alone.
    fn check_cleaned(&self, compaction: &KeyCompaction) -> Result<(), Refusal> {
        let malformed = |what| Err(Refusal::Malformed { what });
        let known = self.topics.get(&compaction.topic).ok_or(Refusal::UnknownTopic { id: compaction.topic })?;
        if !compacts_keys(&known.config) {
            return Err(Refusal::KeysStay { topic: compaction.topic });
        }
        if compaction.files.is_empty() || compaction.files.iter().any(|file| file.runs.is_empty()) {
            return malformed("a compaction of keys without files, or a file without runs");
        }
        let mut ids = BTreeSet::new();
        let mut previous: Option<(PartitionKey, Offset)> = None;
        for CleanedFile { id, runs } in &compaction.files {
            if SegmentId::from(*id) < self.boundary {
                return Err(Refusal::BelowReclaimBoundary { id: (*id).into(), boundary: self.boundary });
            }
            if self.objects.contains_key(&ObjectId::Table(*id)) || !ids.insert(*id) {
                return Err(Refusal::TableFileKnown { file: *id });
            }
            let mut next_row = 0_u64;
            for run in runs {
                if run.partition.topic != compaction.topic {
                    return malformed("a table file has rows of one topic");
                }
                if previous.is_some_and(|previous| previous >= (run.partition, run.base_offset)) {
                    return malformed("the runs of a compaction of keys ascend by partition and offset");
                }
                if run.first_row != next_row || run.rows == 0 || run.rows > run.span {
                    return malformed("a run of a compaction of keys has a row at least, and no more than offsets");
                }
                next_row = next_row.checked_add(run.rows).ok_or(TOO_MANY)?;
                previous = Some((run.partition, run.base_offset));
            }
        }
        Ok(())
    }

    /// Puts runs that follow one another in the place of those that covered the same offsets; notes the objects that had them.
    fn replace(
        &mut self,
        chain: &[(TableFileId, CleanedRun)],
        touched: &mut BTreeSet<ObjectId>,
    ) -> Result<(), Refusal> {
        let (Some((_, first)), Some((_, last))) = (chain.first(), chain.last()) else { return Ok(()) };
        let (key, base) = (first.partition, first.base_offset);
        let stale = || Refusal::MergeStale { partition: key, base_offset: base };
        let end = last.base_offset.checked_add(last.span).ok_or_else(stale)?;
        let replaced: Vec<(Offset, Run)> = self.runs_from(key, base).take_while(|(base, _)| *base < end).collect();
        let mut expected = base;
        let (mut rows, mut bytes, mut timestamps) = (0_u64, 0_u64, None);
        for (base, run) in &replaced {
            if *base != expected || !matches!(run.object, ObjectId::Table(_)) {
                return Err(stale());
            }
            expected = run.end(*base);
            rows += run.rows;
            bytes += run.bytes;
            timestamps = TimestampRange::union(timestamps, run.timestamps);
        }
        // Below the log start nothing is named: where a run would end there, the log start has moved meanwhile.
        let log_start = self.partition(key).map_or(Offset::ZERO, |bounds| bounds.log_start);
        let is_below = |run: &CleanedRun| run.base_offset.checked_add(run.span).is_none_or(|end| end <= log_start);
        if expected != end || chain.iter().any(|(_, run)| is_below(run)) {
            return Err(stale());
        }
        let counts = chain.iter().try_fold((0_u64, 0_u64), |(rows, bytes), (_, run)| {
            Some((rows.checked_add(run.rows)?, bytes.checked_add(run.bytes)?))
        });
        let widest = chain.iter().fold(timestamps, |all, (_, run)| TimestampRange::union(all, run.timestamps));
        if counts.is_none_or(|counts| counts.0 > rows || counts.1 > bytes) || widest != timestamps {
            return Err(Refusal::Malformed { what: "a compaction of keys makes more of what it compacts" });
        }
        for (base, run) in &replaced {
            self.runs.remove(&(key, *base));
            self.unname(run);
            touched.insert(run.object);
        }
        for (file, cleaned) in chain {
            let run = cleaned.of_file(*file);
            self.runs.insert((key, cleaned.base_offset), run);
            self.name(&run);
        }
        Ok(())
    }
}

/// Whether a run begins where the one before it ends.
fn follows(one: &CleanedRun, next: &CleanedRun) -> bool {
    one.partition == next.partition && one.base_offset.checked_add(one.span) == Some(next.base_offset)
}

impl CleanedRun {
    fn of_file(&self, file: TableFileId) -> Run {
        let Self { rows, span, clean, first_row, bytes, timestamps, hash, .. } = *self;
        Run { rows, span, clean, object: ObjectId::Table(file), first_row, bytes, timestamps, hash }
    }
}
