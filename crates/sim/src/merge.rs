//! Merges in the world: the real ones, of what the plan says, or of any objects, so that commits with rows are reclaimed, too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lakebed_compact::{Options, Plan, RewriteError, merge, plan};
use lakebed_model::{ObjectId, Refusal, State};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use crate::broker::Broker;
use crate::climate::within;
use crate::world::World;

/// Merges until the broker is gone.
pub(crate) async fn run(world: Arc<World>, broker: Arc<Broker>, seed: u64) {
    let gate = Arc::clone(&broker.gate);
    gate.unless_dead(merge_on(world, broker, StdRng::seed_from_u64(seed))).await;
}

async fn merge_on(world: Arc<World>, broker: Arc<Broker>, mut rng: StdRng) {
    while broker.log.is_closed().is_none() {
        sleep(Duration::from_millis(within(&mut rng, world.climate.merge_ms))).await;
        let state = broker.log.state();
        let Some(plan) = choose(&state, &mut rng) else { continue };
        if plan.within.is_some() {
            world.trace.count("merges of stretches");
        }
        match merge(&broker.log, &broker.store, &state, &plan).await {
            Ok(merged) => {
                world.trace.count("merges");
                world.trace.add("runs merged", merged.runs_before as u64);
            }
            Err(error) => judge(&world, &broker, &error).await,
        }
    }
}

/// What the broker would merge, or anything.
fn choose(state: &State, rng: &mut StdRng) -> Option<Plan> {
    if rng.random_range(0..2) == 0 {
        let options = Options {
            fan_in: rng.random_range(2..8),
            objects_max: rng.random_range(2..40),
            bytes_max: [1_000, 10_000, 1 << 20][rng.random_range(0..3)],
            runs_high: rng.random_range(1..200),
        };
        return plan(state, &options, &BTreeSet::new());
    }
    let of_log = |id: &ObjectId| !matches!(id, ObjectId::Table(_));
    let objects: Vec<_> = state.objects().map(|(id, _)| id).filter(of_log).take(rng.random_range(1..30)).collect();
    (!objects.is_empty()).then_some(Plan::whole(objects))
}

/// A merge may fail for many reasons, but never because the rows differ, and only an old plan meets other objects.
async fn judge(world: &World, broker: &Broker, error: &RewriteError) {
    world.trace.count("merges failed");
    match error {
        RewriteError::Stale(Refusal::MergeDiffers { .. } | Refusal::Malformed { .. })
        | RewriteError::Taken { .. }
        | RewriteError::Seal(_) => {
            world.trace.anomaly("merge-refused", format!("{error} by {:?}", broker.gate));
        }
        RewriteError::Damaged { object, .. } => {
            let Ok(state) = broker.log.barrier().await else { return };
            if state.object(*object).is_some() {
                world.trace.anomaly("missing-object", format!("{error}, behind a barrier of {:?}", broker.gate));
            }
        }
        _ => {}
    }
}
