//! Merges in the world: a few objects become one segment, so that commits with rows can be reclaimed, too.

use std::sync::Arc;
use std::time::Duration;

use lakebed_log::AppendError;
use lakebed_model::{Change, Merge, MergedRun, Offset, PartitionKey, Refusal, RowsHash, Run, SegmentId, State};
use lakebed_segment::body::{Body, seal_pieces};
use lakebed_segment::commit::segment_object;
use lakebed_segment::layout;
use lakebed_segment::row_set::RowSet;
use lakebed_segment::rows::Piece;
use lakebed_store::{Created, Key};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use crate::broker::Sequencer;
use crate::climate::within;
use crate::rows::{object_key, read_run};
use crate::world::World;

/// Merges until the broker is gone.
pub(crate) async fn run(world: Arc<World>, broker: Arc<Sequencer>, seed: u64) {
    let gate = Arc::clone(&broker.gate);
    gate.unless_dead(merge_on(world, broker, StdRng::seed_from_u64(seed))).await;
}

async fn merge_on(world: Arc<World>, broker: Arc<Sequencer>, mut rng: StdRng) {
    while broker.log.is_closed().is_none() {
        sleep(Duration::from_millis(within(&mut rng, world.climate.merge_ms))).await;
        let state = broker.log.state();
        // Adjacent runs of each partition that lie in the oldest objects.
        let objects: Vec<_> = state.objects().map(|(id, _)| id).take(rng.random_range(2..30)).collect();
        let runs: Vec<_> = state.runs().filter(|(_, _, run)| objects.contains(&run.object)).collect();
        if runs.len() >= 2 {
            merge(&world, &broker, &state, &runs).await;
        }
    }
}

async fn merge(world: &World, broker: &Sequencer, state: &State, runs: &[(PartitionKey, Offset, Run)]) -> Option<()> {
    let id = SegmentId::from(broker.log.mint());
    let _hold = broker.log.hold(id);
    let mut read: Vec<RowSet> = Vec::new();
    for (_, _, run) in runs {
        read.push(read_run(&broker.store, &object_key(&broker.log, state, run)?, run).await.ok()?);
    }
    let (merged, body) = compose(id, runs, &read);
    let object = segment_object(&broker.log.identity(), id, broker.log.nonce(), body);
    let key = Key::new(layout::segment_key(broker.log.identity().cell, id)).ok()?;
    let created = broker.store.create(&key, object).await.ok()?;
    if created == Created::Other {
        world.trace.anomaly("segment-taken", format!("{key} of {:?}", broker.gate));
        return None;
    }
    match broker.log.change(Change::Merge(merged)).await {
        Ok(_) => world.trace.count("merges"),
        Err(AppendError::Refused(Refusal::MergeDiffers { .. } | Refusal::Malformed { .. })) => {
            world.trace.anomaly("merge-refused", format!("{key} of {:?}", broker.gate));
        }
        Err(_) => {}
    }
    Some(())
}

/// One run for each stretch of adjacent runs.
fn compose(segment: SegmentId, runs: &[(PartitionKey, Offset, Run)], read: &[RowSet]) -> (Merge, Body) {
    let mut merged: Vec<MergedRun> = Vec::new();
    let mut row = 0;
    for ((key, base, run), rows) in runs.iter().zip(read) {
        match merged.last_mut() {
            Some(last) if last.partition == *key && last.base_offset.get() + last.rows == base.get() => {
                last.hash = last.hash.concat(rows.hash(), run.rows);
                last.rows += run.rows;
            }
            _ => merged.push(MergedRun {
                partition: *key,
                base_offset: *base,
                rows: run.rows,
                first_row: row,
                hash: RowsHash::EMPTY.concat(rows.hash(), run.rows),
            }),
        }
        row += run.rows;
    }
    let pieces: Vec<Piece<'_, RowSet>> = runs
        .iter()
        .zip(read)
        .map(|((key, _, _), rows)| Piece { partition: *key, source: rows, rows: 0..rows.len() })
        .collect();
    let body = seal_pieces(&pieces).expect("rows that were sealed once can be sealed again");
    (Merge { segment, runs: merged }, body)
}
