//! One merge: read the live runs of some objects, verify them, write one segment, swap.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use lakebed_log::{AppendError, Log};
use lakebed_model::{
    Change, Merge, MergedRun, ObjectId, Offset, PartitionKey, Refusal, RowsHash, Run, SegmentId, State,
};
use lakebed_segment::body::{Body, SealError, seal_pieces_in};
use lakebed_segment::commit::segment_object;
use lakebed_segment::footer::{Footer, Parsed};
use lakebed_segment::layout;
use lakebed_segment::row_set::RowSet;
use lakebed_segment::rows::Piece;
use lakebed_store::{CreateError, Created, Key, ReadError, Store};

use crate::plan::Plan;

/// How much of the end of an object is read first; most footers fit.
const FOOTER_GUESS_BYTES: u64 = 16 * 1024;
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

/// Why a merge did not happen. The log is as it was, or, if the fate is unknown, merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// An object is missing, or not what it was. Nothing of it is rewritten. The plan may be old, or another broker may have taken over
    /// and reclaimed it: it is damage only if it is still named behind a barrier.
    #[error("object {key} can't be merged: {what}")]
    Damaged {
        /// Which object.
        object: ObjectId,
        /// Its key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// The objects are no longer what was planned: another change came first.
    #[error("another change came first: {0}")]
    Stale(Refusal),
    /// An object could not be read now; others perhaps can.
    #[error("an object can't be read now")]
    Read {
        /// Which object.
        object: ObjectId,
        /// Why.
        source: ReadError,
    },
    /// The segment could not be written now.
    #[error(transparent)]
    Write(#[from] CreateError),
    /// Another object stands where the segment should. Ids have 64 random bits: a second one is a bug, and what stands there is not ours.
    #[error("another object stands at {key}, where a merged segment should")]
    Taken {
        /// Its key.
        key: String,
    },
    /// The rows don't fit into one object.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The log did not take the swap.
    #[error(transparent)]
    Append(#[from] AppendError),
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
/// [`MergeError`]
/// # Cost
/// Two GETs an object at least (footer, pages), one PUT, its share of a commit. Holds the rows and the new segment in memory.
/// # Cancel
/// May leave a segment that nothing names; reclaim deletes it.
pub async fn merge(log: &Log, store: &Store, state: &State, plan: &Plan) -> Result<Merged, MergeError> {
    let segment = SegmentId::from(log.mint());
    // Till the swap is durable the boundary must not pass the new object.
    let _hold = log.hold(segment);
    let mut work = read(log, store, state, plan).await?;
    work.sort_by_key(|piece| (piece.partition, piece.base));
    let runs = swapped_runs(&work);
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
    let key = key_of(&layout::segment_key(identity.cell, segment));
    match store.create(&key, object).await? {
        Created::New | Created::Mine => {}
        Created::Other => return Err(MergeError::Taken { key: key.to_string() }),
    }
    let merged = Merged { objects: plan.objects.len(), runs_before, runs_after: runs.len(), bytes };
    match log.change(Change::Merge(Merge { segment, runs })).await {
        Ok(_) => Ok(merged),
        Err(AppendError::Refused(refusal)) => Err(MergeError::Stale(refusal)),
        Err(error) => Err(error.into()),
    }
}

/// Consecutive runs of a partition become one. The hashes are those of the rows that were read, not those of the state.
fn swapped_runs(work: &[Piecework]) -> Vec<MergedRun> {
    let mut runs: Vec<MergedRun> = Vec::new();
    let mut first_row = 0;
    for piece in work {
        let rows = piece.run.rows;
        match runs.last_mut() {
            Some(last)
                if last.partition == piece.partition && last.base_offset.checked_add(last.rows) == Some(piece.base) =>
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
async fn read(log: &Log, store: &Store, state: &State, plan: &Plan) -> Result<Vec<Piecework>, MergeError> {
    let (visited, chosen) = (state.clone(), plan.clone());
    let live = log.seams().offload.run(move || live_runs(&visited, &chosen)).await;
    let reads = live.into_iter().map(|(object, runs)| read_object(log, store, state, object, runs));
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

async fn read_object(
    log: &Log,
    store: &Store,
    state: &State,
    object: ObjectId,
    runs: Vec<(PartitionKey, Offset, Run)>,
) -> Result<Vec<Piecework>, MergeError> {
    let cell = log.identity().cell;
    let text = match object {
        ObjectId::Segment(id) => layout::segment_key(cell, id),
        ObjectId::Commit(number) => {
            layout::commit_key(cell, state.place_of(number).expect("invariant 2: named commits are folded"))
        }
    };
    let key = key_of(&text);
    let damaged = |what: String| MergeError::Damaged { object, key: key.to_string(), what };
    let missing = |error| match error {
        ReadError::NotFound { .. } => damaged("nothing stands there".to_owned()),
        source => MergeError::Read { object, source },
    };
    let footer = read_footer(store, &key).await.map_err(missing)?.map_err(damaged)?;
    if footer.identity != log.identity() {
        return Err(damaged("it belongs to another cluster or cell".to_owned()));
    }
    let mut work = Vec::with_capacity(runs.len());
    for (partition, base, run) in runs {
        let rows = run.first_row..run.first_row.saturating_add(run.rows);
        let ranges = footer.ranges(rows.clone()).map_err(|error| damaged(error.to_string()))?;
        let parts = read_ranges(store, &key, ranges).await.map_err(missing)?;
        let rows = footer.read(rows, &parts).map_err(|error| damaged(error.to_string()))?;
        if rows.hash() != run.hash {
            return Err(damaged(format!(
                "the rows of {partition} from offset {base} on are not those that were committed"
            )));
        }
        work.push(Piecework { partition, base, run, rows });
    }
    Ok(work)
}

async fn read_footer(store: &Store, key: &Key) -> Result<Result<Footer, String>, ReadError> {
    let mut length = FOOTER_GUESS_BYTES;
    loop {
        let suffix = store.get_suffix(key, length).await?;
        match Footer::parse(&suffix.bytes, suffix.object_size_bytes) {
            Ok(Parsed::Whole(footer)) => return Ok(Ok(footer)),
            Ok(Parsed::NeedsSuffix(needed)) if needed > length => length = needed,
            Ok(Parsed::NeedsSuffix(needed)) => return Ok(Err(format!("its footer asks for {needed} bytes"))),
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
}

async fn read_ranges(store: &Store, key: &Key, ranges: Vec<Range<u64>>) -> Result<Vec<(u64, Bytes)>, ReadError> {
    let mut parts = Vec::with_capacity(ranges.len());
    for range in ranges {
        parts.push((range.start, store.get_range(key, range).await?));
    }
    Ok(parts)
}

fn key_of(text: &str) -> Key {
    Key::new(text).expect("keys of the layout are valid")
}
