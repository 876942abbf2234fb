//! A stretch of runs, in the order of partitions and offsets, that one merge can take: what saves most runs when they press.
//!
//! Merging stretches ends with runs that are no smaller than half a merge, or one run a partition: so the number of runs is bounded by
//! that of partitions and by the bytes, whatever the flushes were.

use std::collections::BTreeSet;

use lakebed_model::{ObjectId, Offset, State};

use super::{Options, Plan, RunKey};

/// Runs are worth rewriting if they lose at least one of so many.
const WORTH_ONE_OF: usize = 4;

/// A stretch in the making.
struct Stretch {
    start: RunKey,
    /// The last run.
    last: RunKey,
    objects: BTreeSet<ObjectId>,
    bytes: u64,
    count: Count,
}

/// Runs before and after a merge.
#[derive(Default)]
struct Count {
    runs: usize,
    merged: usize,
    /// Where a run must begin to be merged with the one before.
    joint: Option<RunKey>,
}

impl Count {
    fn add(&mut self, key: RunKey, rows: u64) {
        self.runs += 1;
        self.merged += usize::from(self.joint != Some(key));
        self.joint = key.1.checked_add(rows).map(|end| (key.0, end));
    }

    fn saving(&self) -> usize {
        self.runs - self.merged
    }

    fn is_worth(&self) -> bool {
        let saving = self.saving();
        saving > 0 && saving * WORTH_ONE_OF >= self.runs
    }
}

impl Stretch {
    fn finish(self) -> Option<(Plan, usize)> {
        let saving = self.count.saving();
        let within = self.start..(self.last.0, Offset::new(self.last.1.get() + 1));
        let plan = Plan { objects: self.objects.into_iter().collect(), within: Some(within), pressed: true };
        self.count.is_worth().then_some((plan, saving))
    }
}

/// The stretch that saves most runs, and how many. Runs of objects in `without`, and those of more than half of `bytes_max`, stay.
pub(super) fn best(state: &State, options: &Options, without: &BTreeSet<ObjectId>) -> Option<(Plan, usize)> {
    let mut best: Option<(Plan, usize)> = None;
    let mut open: Option<Stretch> = None;
    let mut close = |stretch: Option<Stretch>| {
        if let Some((plan, saving)) = stretch.and_then(Stretch::finish)
            && best.as_ref().is_none_or(|(_, most)| saving > *most)
        {
            best = Some((plan, saving));
        }
    };
    for (partition, base, run) in state.runs() {
        if without.contains(&run.object) || matches!(run.object, ObjectId::Table(_)) {
            continue;
        }
        if run.bytes > options.bytes_max / 2 {
            close(open.take());
            continue;
        }
        let fits = |stretch: &Stretch| {
            stretch.bytes + run.bytes <= options.bytes_max
                && (stretch.objects.len() < options.objects_max || stretch.objects.contains(&run.object))
        };
        if open.as_ref().is_some_and(|stretch| !fits(stretch)) {
            close(open.take());
        }
        let key = (partition, base);
        let stretch = open.get_or_insert_with(|| Stretch {
            start: key,
            last: key,
            objects: BTreeSet::new(),
            bytes: 0,
            count: Count::default(),
        });
        stretch.last = key;
        stretch.bytes += run.bytes;
        stretch.objects.insert(run.object);
        stretch.count.add(key, run.rows);
    }
    close(open);
    best
}

/// A plan and how many runs it saves, if that is worth it.
pub(super) fn saving_of(state: &State, plan: Plan) -> Option<(Plan, usize)> {
    let mut count = Count::default();
    for (partition, base, run) in state.runs() {
        if plan.takes((partition, base), run.object) {
            count.add((partition, base), run.rows);
        }
    }
    count.is_worth().then(|| (plan, count.saving()))
}
