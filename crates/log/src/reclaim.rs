//! Reclaim: deleting objects that the state no longer names.
//!
//! 1. A commit is deleted when it lies below the older of the two kept checkpoints and that checkpoint's state names none of its
//!    rows. Takeovers never.
//! 2. An object beyond the takeover of a directory is deleted: it landed late, and nobody reads there. It frees no place that anybody
//!    could write to and be believed: a sequencer that is fenced stops at the takeover, which stays.
//! 3. A segment is deleted when it lies below the reclaim boundary of the durable state and that state does not name it: no later
//!    commit can name it, for the state refuses what lies below the boundary.
//! 4. Only objects of this cell are touched. Deleting twice is harmless.

use std::sync::Arc;

use lakebed_model::{ObjectId, State};
use lakebed_store::Key;

use crate::checkpoint::KeepError;
use crate::handle::Shared;

/// Reclaims by the older kept checkpoint, whose state is `older`.
///
/// # Cost   One LIST per 1000 objects of the log and of `segments/`, one DELETE per 1000 deleted.
/// # Cancel What was deleted stays deleted; the next pass goes on.
pub(crate) async fn reclaim(shared: &Arc<Shared>, older: &State) -> Result<(), KeepError> {
    let durable = shared.state();
    let commits = sweep(shared, &shared.bucket.log_directory(), |key| is_dead_commit(shared, older, key)).await?;
    let segments =
        sweep(shared, &shared.bucket.segments_directory(), |key| is_dead_segment(shared, &durable, key)).await?;
    shared.counts.reclaim_done((commits + segments) as u64, shared.now_ms());
    tracing::debug!(commits, segments, "reclaimed");
    Ok(())
}

fn is_dead_commit(shared: &Shared, older: &State, key: &Key) -> bool {
    let Some(place) = shared.bucket.place_of(key) else { return false };
    let Some(number) = older.number_at(place) else {
        // Not a place of the log up to the checkpoint: beyond a takeover of it, or newer, or not ours to judge.
        return older.takeover_of(place.directory).is_some_and(|takeover| place.index > takeover.index);
    };
    let takeover = older.is_takeover(number) && !shared.broken.reclaims_takeovers();
    let named = older.object(ObjectId::Commit(number)).is_some() && !shared.broken.reclaims_named_rows();
    !takeover && !named
}

fn is_dead_segment(shared: &Shared, durable: &State, key: &Key) -> bool {
    let Some(id) = shared.bucket.segment_of(key) else { return false };
    id < durable.reclaim_boundary() && durable.object(ObjectId::Segment(id)).is_none()
}

/// Deletes the objects of a directory that are dead; how many.
async fn sweep(
    shared: &Arc<Shared>,
    directory: &lakebed_store::Directory,
    is_dead: impl Fn(&Key) -> bool,
) -> Result<usize, KeepError> {
    let mut deleted = 0;
    let mut after: Option<Key> = None;
    loop {
        let (keys, more) = shared.bucket.list(directory, after.as_ref()).await?;
        after = keys.last().cloned();
        let dead: Vec<Key> = keys.into_iter().filter(|key| is_dead(key)).collect();
        shared.bucket.delete(&dead).await?;
        deleted += dead.len();
        if !more {
            return Ok(deleted);
        }
    }
}
