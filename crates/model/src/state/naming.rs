//! Which objects are named: each by the runs whose rows it holds, and no longer.

use super::{ObjectId, Refusal, Run, State};
use crate::commit::TrimRun;
use crate::ids::{Offset, PartitionKey};

impl State {
    /// Drops the runs of a partition that end at or below `end`, and returns them.
    pub(super) fn drop_runs(&mut self, key: PartitionKey, end: Offset) -> Vec<Run> {
        let gone: Vec<(Offset, Run)> = self
            .runs_of(key)
            .take_while(|(base, run)| base.checked_add(run.span).is_some_and(|run_end| run_end <= end))
            .collect();
        for (base, run) in &gone {
            self.runs.remove(&(key, *base));
            self.unname(run);
        }
        gone.into_iter().map(|(_, run)| run).collect()
    }

    /// Cuts rows below the log start off the run that holds it.
    ///
    /// # Errors
    /// [`Refusal::MergeStale`] if another change came first. That the rows are those of the run can't be seen from them alone: what is left
    /// gets the hash that it must have if they are, and a rewrite of it is refused otherwise.
    pub(super) fn trim_run(&mut self, trim: &TrimRun) -> Result<(), Refusal> {
        let TrimRun { partition: key, offset, rows, hash, bytes, timestamps } = *trim;
        let bounds = self.partition(key).ok_or(Refusal::UnknownPartition { partition: key })?;
        if offset > bounds.log_start {
            return Err(Refusal::Malformed { what: "rows above the log start are not cut off" });
        }
        let stale = Refusal::MergeStale { partition: key, base_offset: offset };
        let Some((base, run)) = self.runs_from(key, offset).next().filter(|(base, _)| *base < offset) else {
            return Err(stale);
        };
        // Rows of a run with gaps don't follow from offsets: only compaction of keys rewrites it.
        if run.has_gaps() || offset.since(base) != rows || rows >= run.rows {
            return Err(stale);
        }
        if bytes > run.bytes {
            return Err(Refusal::Malformed { what: "a part of a run has more bytes than the run" });
        }
        let left = run.rows - rows;
        let hash = run.hash.without_first(hash, left);
        let kept = Run { rows: left, span: left, first_row: run.first_row + rows, bytes, timestamps, hash, ..run };
        self.runs.remove(&(key, base));
        self.runs.insert((key, offset), kept);
        let object = self.objects.get_mut(&run.object).expect("invariant 2: the object of a run is known");
        object.live_bytes -= run.bytes - bytes;
        object.is_partial = matches!(run.object, ObjectId::Table(_));
        Ok(())
    }

    pub(crate) fn name(&mut self, run: &Run) {
        let mut object = self.objects.get(&run.object).copied().unwrap_or_default();
        object.count(run);
        self.objects.insert(run.object, object);
    }

    pub(crate) fn unname(&mut self, run: &Run) {
        let mut object = *self.objects.get(&run.object).expect("invariant 2: the object of a run is known");
        object.live_runs -= 1;
        object.live_bytes -= run.bytes;
        if object.live_runs == 0 {
            self.objects.remove(&run.object);
        } else {
            object.is_partial = matches!(run.object, ObjectId::Table(_));
            self.objects.insert(run.object, object);
        }
    }
}
