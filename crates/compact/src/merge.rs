//! One merge: read the live runs of some objects, verify them, write one segment, swap.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use lakebed_log::{AppendError, Log};
use lakebed_model::{Change, Merge, MergedRun, ObjectId, Offset, PartitionKey, RowsHash, Run, SegmentId, State};
use lakebed_segment::body::{Body, SealError, seal_pieces_in};
use lakebed_segment::commit::segment_object;
use lakebed_segment::layout;
use lakebed_segment::row_set::RowSet;
use lakebed_segment::rows::{Piece, RowSource};
use lakebed_segment::table::{PartitionBy, TableSettings};
use lakebed_store::{Created, Key, Store};

use crate::objects::{OpenObject, RewriteError};
use crate::plan::Plan;
use crate::turn::Pace;

/// Objects that are read at once.
const READS_MAX: usize = 16;

/// What a merge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// Objects whose rows were re-homed.
    pub objects: usize,
    /// Runs that were replaced.
    pub runs_before: usize,
    /// Runs that took their place.
    pub runs_after: usize,
    /// Bytes of the new segment.
    pub bytes: u64,
}

/// One live run with its rows.
struct Piecework {
    partition: PartitionKey,
    base: Offset,
    run: Run,
    rows: RowSet,
}

/// Merges the live rows of the planned objects, or those of the planned stretch, into one segment.
///
/// # Errors
/// [`RewriteError`]
/// # Cost
/// Two GETs an object at least (footer, pages), one PUT, its share of a commit. Holds the rows and the new segment in memory.
/// # Cancel
/// May leave a segment that nothing names; reclaim deletes it.
pub async fn merge(log: &Log, store: &Store, state: &State, plan: &Plan) -> Result<Merged, RewriteError> {
    let segment = SegmentId::from(log.mint());
    // Till the swap is durable the boundary must not pass the new object.
    let _hold = log.hold(segment);
    let mut work = read(log, store, state, plan).await?;
    work.sort_by_key(|piece| (piece.partition, piece.base));
    let runs = swapped_runs(&work, |piece, next| {
        plan.pressed || table_partition(state, piece, true) == table_partition(state, next, false)
    });
    let (identity, nonce) = (log.identity(), log.nonce());
    let runs_before = work.len();
    let buffers = store.buffers().clone();
    let object = log.seams().offload.run(move || {
        let pieces: Vec<Piece<'_, RowSet>> = work
            .iter()
            .map(|piece| Piece { partition: piece.partition, source: &piece.rows, rows: 0..piece.rows.len() })
            .collect();
        let body: Body = seal_pieces_in(&pieces, |bytes| buffers.take(bytes))?;
        Ok::<Bytes, SealError>(buffers.freeze(segment_object(&identity, segment, nonce, body)))
    });
    let object = object.await?;
    let bytes = object.len() as u64;
    let key = Key::new(layout::segment_key(identity.cell, segment)).expect("keys of the layout are valid");
    match store.create(&key, object).await? {
        Created::New | Created::Mine => {}
        Created::Other => return Err(RewriteError::Taken { key: key.to_string() }),
    }
    let merged = Merged { objects: plan.objects.len(), runs_before, runs_after: runs.len(), bytes };
    match log.change(Change::Merge(Merge { segment, runs })).await {
        Ok(_) => Ok(merged),
        Err(AppendError::Refused(refusal)) => Err(RewriteError::Stale(refusal)),
        Err(error) => Err(error.into()),
    }
}

/// Which partition of its topic's table the last or the first row of a piece lies in.
///
/// Runs of two are left apart, for compaction puts a run into one file, and a file had better lie in one partition. When runs press it doesn't matter:
/// they must become fewer, and a table is right with such a file too.
fn table_partition(state: &State, piece: &Piecework, last: bool) -> i64 {
    let by = state.topic(piece.partition.topic).map(|topic| TableSettings::of(&topic.config).partition_by);
    let row = if last { piece.rows.len().saturating_sub(1) } else { 0 };
    by.filter(|by| *by != PartitionBy::Nothing && !piece.rows.is_empty())
        .map_or(0, |by| by.partition_of(piece.rows.ingest_time_ms(row)))
}

/// Consecutive runs of a partition become one if they may. The hashes are those of the rows that were read, not those of the state.
fn swapped_runs(work: &[Piecework], may_join: impl Fn(&Piecework, &Piecework) -> bool) -> Vec<MergedRun> {
    let mut runs: Vec<MergedRun> = Vec::new();
    let (mut first_row, mut previous) = (0, None);
    for piece in work {
        let rows = piece.run.rows;
        match (runs.last_mut(), previous.replace(piece)) {
            (Some(last), Some(before))
                if last.partition == piece.partition
                    && last.base_offset.checked_add(last.rows) == Some(piece.base)
                    && may_join(before, piece) =>
            {
                last.hash = last.hash.concat(piece.rows.hash(), rows);
                last.rows += rows;
            }
            _ => runs.push(MergedRun {
                partition: piece.partition,
                base_offset: piece.base,
                rows,
                first_row,
                hash: RowsHash::EMPTY.concat(piece.rows.hash(), rows),
            }),
        }
        first_row += rows;
    }
    runs
}

/// Reads and verifies the live runs of the planned objects.
async fn read(log: &Log, store: &Store, state: &State, plan: &Plan) -> Result<Vec<Piecework>, RewriteError> {
    let (visited, chosen) = (state.clone(), plan.clone());
    let live = log.seams().offload.run(move || live_runs(&visited, &chosen)).await;
    let reads = live.into_iter().map(|(object, runs)| read_runs(log, store, state, object, runs));
    let read: Vec<Vec<Piecework>> = stream::iter(reads).buffered(READS_MAX).try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}

/// The runs that a plan takes, by their objects.
fn live_runs(state: &State, plan: &Plan) -> BTreeMap<ObjectId, Vec<(PartitionKey, Offset, Run)>> {
    let mut live: BTreeMap<ObjectId, Vec<(PartitionKey, Offset, Run)>> = BTreeMap::new();
    for (partition, base, run) in state.runs() {
        if plan.takes((partition, base), run.object) {
            live.entry(run.object).or_default().push((partition, base, run));
        }
    }
    live
}

async fn read_runs(
    log: &Log,
    store: &Store,
    state: &State,
    object: ObjectId,
    runs: Vec<(PartitionKey, Offset, Run)>,
) -> Result<Vec<Piecework>, RewriteError> {
    let mut work = Vec::with_capacity(runs.len());
    let Some((first, ..)) = runs.first() else { return Ok(work) };
    let opened = OpenObject::open(log, store, state, *first, object, Pace::Urgent).await?;
    for (partition, base, run) in runs {
        let rows = opened.run(partition, base, &run).await?;
        work.push(Piecework { partition, base, run, rows });
    }
    Ok(work)
}
