//! How a merge takes the place of what it merged: same offsets, same counts, same rows.

use super::{ObjectId, Refusal, Run, State};
use crate::commit::{Merge, MergedRun, TimestampRange};
use crate::hash::RowsHash;
use crate::ids::{FlushId, Offset, PartitionKey};

const TOO_MANY: Refusal = Refusal::Malformed { what: "a merge has more rows or bytes than can be counted" };

impl State {
    /// Swaps whole runs for the runs of a merged segment.
    ///
    /// # Errors
    /// [`Refusal::MergeStale`] if another change came first (the segment is an orphan), [`Refusal::MergeDiffers`] if the rows are
    /// not the same. On an error the caller drops this state.
    pub(crate) fn merge(&mut self, merge: &Merge) -> Result<(), Refusal> {
        let segment = merge.segment;
        if segment < self.boundary {
            return Err(Refusal::BelowReclaimBoundary { id: segment, boundary: self.boundary });
        }
        // An id that was a flush's names that flush's rows for ever, even when none of them is live.
        let flushed = self.flushes.contains_key(&FlushId::new(segment.ulid()));
        if flushed || self.objects.contains_key(&ObjectId::Segment(segment)) {
            return Err(Refusal::SegmentKnown { segment });
        }
        if merge.runs.is_empty() {
            return Err(Refusal::Malformed { what: "a merge without runs" });
        }
        self.swap_all(ObjectId::Segment(segment), &merge.runs)?;
        self.highest = self.highest.max(segment);
        Ok(())
    }

    /// Puts the runs of a new object, which fill it, in the place of whole runs, and names it.
    pub(super) fn swap_all(&mut self, object: ObjectId, runs: &[MergedRun]) -> Result<(), Refusal> {
        let (mut next_row, mut bytes) = (0_u64, 0_u64);
        let mut previous: Option<(PartitionKey, Offset)> = None;
        for merged in runs {
            let begins = (merged.partition, merged.base_offset);
            if previous.is_some_and(|previous| previous >= begins) {
                return Err(Refusal::Malformed { what: "the runs of a merge ascend by partition and offset" });
            }
            previous = Some(begins);
            if merged.first_row != next_row || merged.rows == 0 {
                return Err(Refusal::Malformed { what: "the runs of a merge lie one after another from row 0" });
            }
            next_row = next_row.checked_add(merged.rows).ok_or(TOO_MANY)?;
            let run = self.swap(object, merged)?;
            bytes = bytes.checked_add(run.bytes).ok_or(TOO_MANY)?;
            self.name(&run);
        }
        Ok(())
    }

    /// Puts one merged run in the place of what it merged, which is no longer named; returns it, to be named.
    fn swap(&mut self, object: ObjectId, merged: &MergedRun) -> Result<Run, Refusal> {
        let key = merged.partition;
        let stale = || Refusal::MergeStale { partition: key, base_offset: merged.base_offset };
        let end = merged.base_offset.checked_add(merged.rows).ok_or_else(stale)?;
        let replaced: Vec<(Offset, Run)> =
            self.runs_from(key, merged.base_offset).take_while(|(base, _)| *base < end).collect();
        let mut expected = merged.base_offset;
        let mut whole = Run {
            rows: 0,
            span: merged.rows,
            clean: true,
            object,
            first_row: merged.first_row,
            bytes: 0,
            timestamps: None,
            hash: RowsHash::EMPTY,
        };
        for (base, run) in &replaced {
            // Rows of a run with gaps have not the offsets that a merged run gives them.
            if *base != expected || run.has_gaps() {
                return Err(stale());
            }
            expected = base.checked_add(run.rows).ok_or_else(stale)?;
            whole.hash = whole.hash.concat(run.hash, run.rows);
            whole.rows += run.rows;
            whole.clean &= run.clean;
            whole.bytes = whole.bytes.checked_add(run.bytes).ok_or(TOO_MANY)?;
            whole.timestamps = TimestampRange::union(whole.timestamps, run.timestamps);
        }
        if expected != end || replaced.is_empty() {
            return Err(stale());
        }
        let of_table = |run: &Run| matches!(run.object, ObjectId::Table(_));
        if !of_table(&whole) && replaced.iter().any(|(_, run)| of_table(run)) {
            // A compaction came first: rows never leave table files.
            return Err(stale());
        }
        if whole.hash != merged.hash {
            return Err(Refusal::MergeDiffers { partition: key, base_offset: merged.base_offset });
        }
        for (base, run) in &replaced {
            self.runs.remove(&(key, *base));
            self.unname(run);
        }
        self.runs.insert((key, merged.base_offset), whole);
        Ok(whole)
    }
}
