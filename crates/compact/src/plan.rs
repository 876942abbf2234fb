//! Which objects to merge next: a pure function of the state.
//!
//! Objects fall into tiers by what is still named in them; a tier with enough objects is merged, the smallest tier first. So a row is
//! rewritten at most once a tier, and objects stay few: about `fan_in` a tier.
//!
//! Tiers bound the objects, not the runs: large objects of many partitions are left alone, each with a run of every partition. So when
//! runs press and no tier is full, what saves most runs is merged: a tier that is not full, or a [`window`], which is a stretch of
//! partitions out of many objects, however large those are.

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
    /// Whether runs become fewer at any price: see [`merge`](crate::merge()).
    pub pressed: bool,
}

/// Where a run begins: runs are in this order.
pub type RunKey = (PartitionKey, Offset);

impl Plan {
    /// All live runs of some objects, which are in ascending order.
    pub fn whole(objects: Vec<ObjectId>) -> Self {
        Self { objects, within: None, pressed: false }
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
    let full = Tiers::new(state, without, options.bytes_max / FIT_AT_LEAST).full(options);
    let pressed = state.run_count() >= options.runs_high;
    full.or_else(|| pressed.then(|| most_saving(state, options, without)).flatten())
}

/// What saves most runs: a stretch, or the objects of a tier. It waits for no number of objects, so each flush that comes while runs press
/// may make something worth merging: whatever saves more has to go before it, or a trickle of small flushes would be all that is merged.
fn most_saving(state: &State, options: &Options, without: &BTreeSet<ObjectId>) -> Option<Plan> {
    let tiers = Tiers::new(state, without, options.bytes_max / FIT_AT_LEAST_PRESSED);
    let mut best: Option<(Plan, usize)> = None;
    let whole = tiers.first_of_each(options).into_iter().filter_map(|plan| window::saving_of(state, plan));
    for (plan, saving) in whole.chain(window::best(state, options, without)) {
        // Of equals the smaller tier, which costs less.
        if best.as_ref().is_none_or(|(_, most)| saving > *most) {
            best = Some((plan, saving));
        }
    }
    best.map(|(plan, _)| Plan { pressed: true, ..plan })
}

/// Objects by what is named in them, the smallest first.
struct Tiers(Vec<Vec<(ObjectId, u64)>>);

impl Tiers {
    /// The objects of which at most `bytes_most` are live, but those in `without`.
    fn new(state: &State, without: &BTreeSet<ObjectId>, bytes_most: u64) -> Self {
        let mut tiers: Vec<Vec<(ObjectId, u64)>> = Vec::new();
        for (id, object) in state.objects() {
            if matches!(id, ObjectId::Table(_)) || object.live_bytes > bytes_most || without.contains(&id) {
                continue;
            }
            let tier = tier_of(object.live_bytes);
            if tiers.len() <= tier {
                tiers.resize(tier + 1, Vec::new());
            }
            tiers[tier].push((id, object.live_bytes));
        }
        Self(tiers)
    }

    /// The objects of the smallest tier that is full: of objects, or of bytes.
    fn full(&self, options: &Options) -> Option<Plan> {
        let full = |tier: &&Vec<(ObjectId, u64)>| {
            let bytes: u64 = tier.iter().map(|(_, bytes)| bytes).sum();
            tier.len() >= options.fan_in.max(2) || (tier.len() >= 2 && bytes >= options.bytes_max)
        };
        self.0.iter().find(full).map(|tier| first_of(tier, options))
    }

    /// One merge of each tier that has objects to merge.
    fn first_of_each(&self, options: &Options) -> Vec<Plan> {
        self.0.iter().filter(|tier| tier.len() >= 2).map(|tier| first_of(tier, options)).collect()
    }
}

/// As many objects of a tier as one merge takes.
fn first_of(tier: &[(ObjectId, u64)], options: &Options) -> Plan {
    let mut objects = Vec::new();
    let mut bytes = 0_u64;
    for (id, object_bytes) in tier {
        bytes += object_bytes;
        if objects.len() == options.objects_max || (bytes > options.bytes_max && objects.len() >= 2) {
            break;
        }
        objects.push(*id);
    }
    Plan::whole(objects)
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
