//! Which objects to merge next: a pure function of the state.
//!
//! Objects fall into tiers by what is still named in them; a tier with enough objects is merged, the smallest tier first. So a row is
//! rewritten at most once a tier, and objects stay few: about `fan_in` a tier.
//!
//! Tiers bound the objects, not the runs: large objects of many partitions are left alone, each with a run of every partition. So when
//! runs press, [`window`] merges a stretch of partitions out of many objects, however large those are.

use std::collections::BTreeSet;
use std::ops::Range;

use lakebed_model::{ObjectId, Offset, PartitionKey, State};

mod window;

/// Tiers differ by this factor in size.
const TIER_FACTOR: u64 = 16;
/// The largest object of the first tier, in bytes.
const FIRST_TIER_BYTES: u64 = 64 * 1024;

/// Objects of which fewer than so many fit into one merge are large enough.
const FIT_AT_LEAST: u64 = 8;
/// The same when runs press.
const FIT_AT_LEAST_PRESSED: u64 = 2;

/// How merging is paced.
#[derive(Debug, Clone)]
pub struct Options {
    /// Objects of a tier that make it worth merging. More: fewer rewrites, more objects.
    pub fan_in: usize,
    /// Most objects of one merge.
    pub objects_max: usize,
    /// Most bytes of one merge; bounds its memory (about three times as much) and the size of what it makes. Objects of more than
    /// an eighth of it are left alone, since rewriting them would cost the store as much as taking them did and save few objects; from
    /// `runs_high` on only those of more than half of it are.
    pub bytes_max: u64,
    /// Live runs from which on merging no longer waits for a full tier.
    pub runs_high: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { fan_in: 256, objects_max: 1024, bytes_max: 32 * 1024 * 1024, runs_high: 200_000 }
    }
}

/// Objects to merge into one segment; at least two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The objects, ascending.
    pub objects: Vec<ObjectId>,
    /// Only runs that begin in here; `None` for all of the objects.
    pub within: Option<Range<RunKey>>,
}

/// Where a run begins: runs are in this order.
pub type RunKey = (PartitionKey, Offset);

impl Plan {
    /// All live runs of some objects, which are in ascending order.
    pub fn whole(objects: Vec<ObjectId>) -> Self {
        Self { objects, within: None }
    }

    /// Whether a run is to be merged.
    pub(crate) fn takes(&self, key: RunKey, object: ObjectId) -> bool {
        self.within.as_ref().is_none_or(|within| within.contains(&key)) && self.objects.binary_search(&object).is_ok()
    }
}

/// The next merge, if there is one worth doing. `without` are objects to leave alone.
///
/// # Cost
/// Visits every object, and every run when runs press: take it off the async threads when they are many.
pub fn plan(state: &State, options: &Options, without: &BTreeSet<ObjectId>) -> Option<Plan> {
    let pressed = state.run_count() >= options.runs_high;
    let whole = whole_objects(state, options, without, pressed);
    if !pressed {
        return whole;
    }
    // Runs are what presses, so the merge that saves more of them goes first.
    let window = window::best(state, options, without);
    let saved = whole.as_ref().map_or(0, |plan| window::saving(state, plan));
    window.filter(|(_, saving)| *saving > saved).map(|(plan, _)| plan).or(whole)
}

/// The objects of the smallest tier that is worth merging.
fn whole_objects(state: &State, options: &Options, without: &BTreeSet<ObjectId>, pressed: bool) -> Option<Plan> {
    let enough = if pressed { 2 } else { options.fan_in.max(2) };
    let small_enough = options.bytes_max / if pressed { FIT_AT_LEAST_PRESSED } else { FIT_AT_LEAST };
    let mut tiers: Vec<Vec<(ObjectId, u64)>> = Vec::new();
    for (id, object) in state.objects() {
        if object.live_bytes > small_enough || without.contains(&id) {
            continue;
        }
        let tier = tier_of(object.live_bytes);
        if tiers.len() <= tier {
            tiers.resize(tier + 1, Vec::new());
        }
        tiers[tier].push((id, object.live_bytes));
    }
    let full = |tier: &&Vec<(ObjectId, u64)>| {
        let bytes: u64 = tier.iter().map(|(_, bytes)| bytes).sum();
        tier.len() >= enough || (tier.len() >= 2 && bytes >= options.bytes_max)
    };
    let tier = tiers.iter().find(full)?;
    let mut objects = Vec::new();
    let mut bytes = 0_u64;
    for (id, object_bytes) in tier {
        bytes += object_bytes;
        if objects.len() == options.objects_max || (bytes > options.bytes_max && objects.len() >= 2) {
            break;
        }
        objects.push(*id);
    }
    Some(Plan::whole(objects))
}

fn tier_of(bytes: u64) -> usize {
    let mut tier = 0;
    let mut limit = FIRST_TIER_BYTES;
    while bytes > limit {
        tier += 1;
        limit = limit.saturating_mul(TIER_FACTOR);
    }
    tier
}
