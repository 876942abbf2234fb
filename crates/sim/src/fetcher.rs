//! Consumers of a live broker's read path: what `fetch` gives is what stands at those offsets, and what it refuses is not there.

use std::sync::Arc;
use std::time::Duration;

use lakebed_fetch::{Fetch, FetchError, FetchPartition, FetchRequest, Fetched, Options, records};
use lakebed_log::Log;
use lakebed_model::{Offset, PartitionKey};
use lakebed_store::Store;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use crate::broker::Broker;
use crate::history::Fate;
use crate::world::World;

/// The read path of a broker, with caches so small that they are missed.
pub(crate) fn open(log: &Log, store: &Store, rng: &mut StdRng) -> Fetch {
    let options = Options {
        tail_bytes: rng.random_range(0..4) * 2_000,
        cache_bytes: rng.random_range(0..4) * 10_000,
        chunk_bytes: 4_096,
        backfill_requests_max: rng.random_range(1..4),
        batch_bytes: 1_024,
    };
    Fetch::new(log.clone(), store.clone(), options)
}

/// Fetches until the broker is gone.
pub(crate) async fn run(world: Arc<World>, broker: Arc<Broker>, seed: u64) {
    let gate = Arc::clone(&broker.gate);
    gate.unless_dead(fetch_on(world, broker, StdRng::seed_from_u64(seed))).await;
}

/// What was known when a fetch began.
struct Before {
    end: u64,
    /// Whether the topic was there, and nobody had tried to delete it.
    is_there: bool,
}

async fn fetch_on(world: Arc<World>, broker: Arc<Broker>, mut rng: StdRng) {
    let Some(fetch) = &broker.fetch else { return };
    while broker.log.is_closed().is_none() {
        sleep(Duration::from_millis(rng.random_range(10..200))).await;
        let Some(key) = world.partition(&mut rng) else { continue };
        let before = before(&world, key);
        // Mostly something that is there, sometimes what is not there yet, or never will be.
        let offset = rng.random_range(0..=before.end + 2);
        let partition = FetchPartition { key, offset: Offset::new(offset), bytes_max: rng.random_range(1..4) * 1_000 };
        let request = FetchRequest {
            partitions: vec![partition],
            bytes_max: 4_000,
            bytes_min: rng.random_range(0..2),
            wait_max: Duration::from_millis(rng.random_range(0..400)),
        };
        broker.gate.pass().await;
        for answer in fetch.fetch(request).await {
            judge(&world, &broker, (key, offset), &before, answer);
        }
    }
}

fn before(world: &World, key: PartitionKey) -> Before {
    let history = world.history();
    let topic = history.topics.get(&key.topic);
    Before {
        end: history.acked_end.get(&key).copied().unwrap_or(0),
        is_there: topic.is_some_and(|topic| matches!(topic.created, Fate::Acked(_)) && topic.deleted.is_none()),
    }
}

fn judge(
    world: &World,
    broker: &Broker,
    (key, offset): (PartitionKey, u64),
    before: &Before,
    answer: Result<Fetched, FetchError>,
) {
    let tried_start = world.history().tried_start.get(&key).copied().unwrap_or(0);
    let deleted = world.history().topics.get(&key.topic).is_none_or(|topic| topic.deleted.is_some());
    let wrong = match &answer {
        Ok(fetched) => return observe(world, broker, (key, offset), fetched),
        Err(FetchError::Damaged { .. }) => true,
        Err(FetchError::UnknownTopicOrPartition) => before.is_there && !deleted,
        Err(FetchError::OffsetOutOfRange { .. }) => {
            world.trace.count("offsets out of range");
            offset >= tried_start && offset <= before.end
        }
        Err(FetchError::Unavailable { .. }) => false,
    };
    if wrong {
        let what = format!("{key} at {offset} of {:?}, acknowledged to {}: {answer:?}", broker.gate, before.end);
        world.trace.anomaly("refused-read", what);
    }
}

fn observe(world: &World, broker: &Broker, (key, offset): (PartitionKey, u64), fetched: &Fetched) {
    let who = format!("a fetch of {}", broker.gate.name());
    let mut next = None;
    for batch in &fetched.batches {
        world.trace.count("batches fetched");
        let (base, end) = (batch.base_offset.get(), batch.next_offset().get());
        let follows = next.map_or(base <= offset && offset < end, |next| next == base);
        if !follows {
            world.trace.anomaly("gap", format!("{who}: {key} at {offset}: {base}..{end} after {next:?}"));
        }
        next = Some(end);
        // What goes over the wire begins with the base offset.
        let head: Vec<u8> = batch.chunks().flatten().take(8).collect();
        if head != base.to_be_bytes() {
            world.trace.anomaly("inconsistent-offsets", format!("{who}: {key} at {base} is sent as {head:?}"));
        }
    }
    for record in records(fetched, Offset::ZERO) {
        match record {
            Ok(record) => {
                let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
                world.history().observe(&who, key, record.offset.get(), &value);
            }
            Err(error) => world.trace.anomaly("refused-read", format!("{who}: {key} at {offset}: {error}")),
        }
    }
    if next.is_some_and(|next| next != fetched.next_offset.get() || next > fetched.high_watermark.get()) {
        world.trace.anomaly("gap", format!("{who}: {key} goes on at {} after {next:?}", fetched.next_offset));
    }
    world.history().observe_end(key, fetched.high_watermark.get());
}
