//! Many worlds, on a few threads, each with a runtime of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::climate::Climate;
use crate::world::{Report, World};

/// What must have been exercised by any run of many worlds: a run that was too tame proves nothing.
pub const EXERCISED: [&str; 73] = [
    "GETs hedged",
    "PUTs hedged",
    "answers lost",
    "barriers",
    "barriers of followers",
    "batches acknowledged",
    "batches fetched",
    "batches unknown",
    "bodies cut",
    "callers told who is no sequencer",
    "checkpoints damaged",
    "checkpoints dropped",
    "clusters",
    "clusters settled",
    "commits of old generations refused",
    "commits pushed",
    "commits reclaimed",
    "compactions",
    "crashes",
    "duplicates answered",
    "expectations met",
    "expectations refused",
    "fates looked up",
    "fenced sequencers",
    "flushes below the boundary",
    "flushes known when sent again",
    "flushes out of order",
    "flushes sent again",
    "followers",
    "generations begun",
    "groups deleted",
    "hand-overs",
    "hand-overs done",
    "hedges that were first",
    "hints audited",
    "late PUTs",
    "late PUTs declined",
    "late commits reclaimed",
    "log starts moved",
    "manifests read",
    "members gone",
    "members joined",
    "members left",
    "merges",
    "merges of neighbours",
    "merges of stretches",
    "messages doubled",
    "messages to followers lost",
    "neighbours",
    "objects in parts",
    "offsets committed",
    "offsets out of range",
    "old snapshots held",
    "partitions",
    "partitions added",
    "partitions from the store",
    "producer ids given",
    "producers forgotten",
    "read-backs",
    "segments reclaimed",
    "sequencers that upload",
    "snapshots held",
    "streams begun",
    "successors",
    "successors that came second",
    "table files deleted",
    "table files written",
    "table metadata deleted",
    "tables refreshed",
    "takeovers",
    "versions published",
    "void takeovers",
    "zombies at once",
];

/// What came of many worlds.
#[derive(Debug, Default)]
pub struct Summary {
    /// How many were run to their end.
    pub worlds: u64,
    /// What was exercised.
    pub counters: BTreeMap<&'static str, u64>,
    /// The wrong one with the lowest seed.
    pub wrong: Option<Report>,
}

impl Summary {
    fn add(&mut self, report: Report) {
        self.worlds += 1;
        for (name, count) in &report.counters {
            *self.counters.entry(name).or_default() += count;
        }
        let lowest = self.wrong.as_ref().is_none_or(|wrong| report.seed < wrong.seed);
        if !report.anomalies.is_empty() && lowest {
            self.wrong = Some(report);
        }
    }

    /// What should have been exercised and was not.
    pub fn idle(&self) -> Vec<&'static str> {
        EXERCISED.into_iter().filter(|name| self.counters.get(name).is_none_or(|count| *count == 0)).collect()
    }
}

/// Runs a world for each seed until one is wrong.
pub fn run(seeds: Range<u64>, threads: usize, climate: impl Fn(u64) -> Climate + Sync) -> Summary {
    let summary = Mutex::new(Summary::default());
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let report = World::run(seed, climate(seed), false);
            failed.fetch_or(!report.anomalies.is_empty(), Ordering::Relaxed);
            summary.lock().expect("no thread panics while it reports").add(report);
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    summary.into_inner().expect("no thread panics while it reports")
}
