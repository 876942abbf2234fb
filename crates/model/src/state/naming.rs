//! Which objects are named: each by the runs whose rows it holds, and no longer.

use super::{Run, State};
use crate::ids::{Offset, PartitionKey};

impl State {
    /// Drops the runs of a partition that end at or below `end`, and returns them.
    pub(super) fn drop_runs(&mut self, key: PartitionKey, end: Offset) -> Vec<Run> {
        let gone: Vec<(Offset, Run)> = self
            .runs_of(key)
            .take_while(|(base, run)| base.checked_add(run.rows).is_some_and(|run_end| run_end <= end))
            .collect();
        for (base, run) in &gone {
            self.runs.remove(&(key, *base));
            self.unname(run);
        }
        gone.into_iter().map(|(_, run)| run).collect()
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
            self.objects.insert(run.object, object);
        }
    }
}
