//! Consumers of a live broker: they read through its durable state, and now and then behind a barrier.

use std::sync::Arc;
use std::time::Duration;

use lakebed_model::{CommitNumber, Offset, PartitionKey, Run, State};
use lakebed_segment::rows::RowSource;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use crate::broker::Broker;
use crate::rows::{RunError, object_key, read_run};
use crate::world::World;

/// Reads until the broker is gone.
pub(crate) async fn run(world: Arc<World>, broker: Arc<Broker>, seed: u64) {
    let gate = Arc::clone(&broker.gate);
    gate.unless_dead(read_on(world, broker, StdRng::seed_from_u64(seed))).await;
}

async fn read_on(world: Arc<World>, broker: Arc<Broker>, mut rng: StdRng) {
    let mut reached = CommitNumber::ZERO;
    while broker.log.is_closed().is_none() {
        sleep(Duration::from_millis(rng.random_range(20..250))).await;
        let state =
            if rng.random_range(0..3) == 0 { behind_barrier(&world, &broker).await } else { Some(broker.log.state()) };
        let Some(state) = state else { continue };
        if state.number() < reached {
            let what = format!("{} of {reached} commits in {:?}", state.number(), broker.gate);
            world.trace.anomaly("state-went-back", what);
        }
        reached = state.number();
        world.history().observe_state(broker.gate.name(), &state);
        let runs = state.run_count();
        for (topic, known) in state.topics() {
            for partition in 0..known.partitions {
                let key = PartitionKey::new(topic, lakebed_model::PartitionIndex::new(partition));
                let end = state.partition(key).map_or(Offset::ZERO, |bounds| bounds.high_watermark);
                world.history().observe_end(key, end.get());
            }
        }
        if runs == 0 {
            continue;
        }
        // Mostly the newest runs, sometimes any.
        let index = if rng.random_range(0..2) == 0 {
            rng.random_range(0..runs)
        } else {
            runs - 1 - rng.random_range(0..runs.min(4))
        };
        let Some((key, base, run)) = state.runs().nth(index) else { continue };
        read(&world, &broker, &state, (key, base, run)).await;
    }
}

/// Whatever was acknowledged by anybody before the barrier began is in the state that it gives.
async fn behind_barrier(world: &World, broker: &Broker) -> Option<State> {
    let (acked, starts) = {
        let history = world.history();
        (history.acked_end.clone(), history.acked_start.clone())
    };
    broker.gate.pass().await;
    let state = broker.log.barrier().await.ok()?;
    world.trace.count(if broker.leads() { "barriers" } else { "barriers of followers" });
    for (key, end) in acked {
        let Some(bounds) = state.partition(key) else { continue };
        if bounds.high_watermark.get() < end {
            let what = format!(
                "{key} ends at {} behind a barrier of {:?}, acknowledged up to {end}",
                bounds.high_watermark, broker.gate
            );
            world.trace.anomaly("stale-barrier", what);
        }
    }
    for (key, start) in starts {
        if state.partition(key).is_some_and(|bounds| bounds.log_start.get() < start) {
            let what = format!("{key} begins below {start} behind a barrier of {:?}", broker.gate);
            world.trace.anomaly("stale-barrier", what);
        }
    }
    Some(state)
}

async fn read(world: &World, broker: &Broker, state: &State, (key, base, run): (PartitionKey, Offset, Run)) {
    let Some(object) = object_key(&broker.log, state, key.topic, &run) else {
        return world
            .trace
            .anomaly("missing-object", format!("{key} at {base} lies in {:?}, which has no place", run.object));
    };
    match read_run(&broker.store, &object, &run).await {
        Ok(rows) => {
            world.trace.count("runs read");
            let who = format!("a consumer of {}", broker.gate.name());
            let mut history = world.history();
            for row in 0..rows.row_count() {
                let value = String::from_utf8_lossy(rows.value(row).unwrap_or_default()).into_owned();
                history.observe(&who, key, base.get() + row as u64, &value);
            }
        }
        Err(RunError::Store) => {}
        // An old plan: behind a barrier it is damage only if it is still named. Where a commit was reclaimed, a takeover that
        // came late may stand, so another object says no more than none.
        Err(error) => {
            world.trace.count("old plans");
            let Ok(state) = broker.log.barrier().await else { return };
            if state.object(run.object).is_some() {
                let what = format!("{object} is named behind a barrier of {:?}: {error}", broker.gate);
                world.trace.anomaly("missing-object", what);
            }
        }
    }
}
