//! Producer ids are given and idle producers are forgotten, all the time.
//!
//! What is forgotten here is what may be: producers of which no batch can come any more. A real clock only says that nobody has come for
//! long; the clocks of this world are wrong, and its batches may be late.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lakebed_model::{PartitionIndex, PartitionKey, State};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};

use crate::climate::within;
use crate::world::World;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks for ids and expiries until the end.
pub(crate) async fn run(world: Arc<World>) {
    let mut rng = world.rng("producers", 0);
    while !world.has_ended() {
        sleep(Duration::from_millis(within(&mut rng, world.climate.produce_ms) * 3)).await;
        if rng.random_range(0..3) == 0 {
            expire(&world, &mut rng).await;
        } else {
            allot(&world, &mut rng).await;
        }
    }
}

async fn allot(world: &World, rng: &mut StdRng) {
    let count = rng.random_range(1..=1000);
    let Some(broker) = world.sequencer(rng) else { return };
    let asked = broker.gate.unless_dead(async {
        broker.gate.pass().await;
        broker.log.allot_producer_ids(count).await
    });
    let Ok(Some(Ok(given))) = timeout(PATIENCE, asked).await else { return };
    world.trace.note(format_args!("producer ids {given:?} are given"));
    world.trace.add("producer ids given", given.end - given.start);
    let mut history = world.history();
    for number in given {
        if !history.producer_ids.insert(number) {
            world.trace.anomaly("producer-id-given-twice", format!("number {number}"));
            return;
        }
    }
}

async fn expire(world: &World, rng: &mut StdRng) {
    let retired = world.history().retired_producers.clone();
    let Some(broker) = world.sequencer(rng) else { return };
    let asked = broker.gate.unless_dead(async {
        broker.gate.pass().await;
        broker.log.expire_producers_by(move |state| latest_expiry(state, &retired)).await
    });
    if let Ok(Some(Ok(forgotten))) = timeout(PATIENCE, asked).await {
        world.trace.add("producers forgotten", forgotten);
    }
}

/// The latest time before which only retired producers wrote last.
fn latest_expiry(state: &State, retired: &BTreeSet<(PartitionKey, i64)>) -> i64 {
    let keys = state.topics().flat_map(|(id, topic)| {
        (0..topic.partitions).map(move |index| PartitionKey::new(id, PartitionIndex::new(index)))
    });
    let producers = keys.flat_map(|key| state.producers_of(key).map(move |(id, known)| (key, id, known.last_ms)));
    let kept = producers.filter(|(key, id, _)| !retired.contains(&(*key, id.get())));
    kept.map(|(_, _, last_ms)| last_ms).min().unwrap_or(i64::MAX)
}
