//! Topics come and go: two that stay, get more partitions and lose old records, and others that are created and deleted all the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lakebed_log::AppendError;
use lakebed_model::{Change, Offset, PartitionIndex, PartitionKey, Refusal, TopicId, TopicName};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};

use crate::climate::within;
use crate::history::{Fate, TopicFate};
use crate::world::World;

/// Most partitions of a topic that stays.
const PARTITIONS_MAX: u32 = 6;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Administers topics until the end.
pub(crate) async fn run(world: Arc<World>) {
    let mut rng = world.rng("admin", 0);
    for (name, partitions) in [("alpha", 2), ("beta", 1)] {
        let id = topic_id(&mut rng);
        let mut doubt = false;
        loop {
            if world.has_ended() {
                return;
            }
            let fate = create(&world, &mut rng, (id, name, partitions)).await;
            // What one attempt left in doubt, a later one that was not done leaves there.
            doubt |= fate == Fate::Unknown;
            let fate = if doubt && fate == Fate::NotDone { Fate::Unknown } else { fate };
            world.history().topics.insert(id, TopicFate { created: fate, deleted: None, deleted_ms: None });
            if matches!(fate, Fate::Acked(_)) {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        world.offer_topic(id, partitions);
        tokio::spawn(alter(Arc::clone(&world), id));
    }
    let mut number = 0;
    while !world.has_ended() {
        sleep(Duration::from_millis(within(&mut rng, world.climate.admin_ms))).await;
        let id = topic_id(&mut rng);
        number += 1;
        let partitions = rng.random_range(1..=3);
        let fate = create(&world, &mut rng, (id, &format!("passing-{number}"), partitions)).await;
        world.history().topics.insert(id, TopicFate { created: fate, deleted: None, deleted_ms: None });
        if !matches!(fate, Fate::Acked(_)) {
            continue;
        }
        world.trace.count("topics created");
        world.offer_topic(id, partitions);
        sleep(Duration::from_millis(within(&mut rng, world.climate.admin_ms))).await;
        let tried = TopicFate { created: fate, deleted: Some(Fate::Unknown), deleted_ms: Some(world.trace.now_ms()) };
        world.history().topics.insert(id, tried);
        let deleted = change(&world, &mut rng, Change::DeleteTopic { id }).await;
        world.history().topics.insert(id, TopicFate { deleted: Some(deleted), ..tried });
        if matches!(deleted, Fate::Acked(_)) {
            world.trace.count("topics deleted");
        }
        sleep(Duration::from_millis(within(&mut rng, world.climate.produce_ms))).await;
        world.withdraw_topic(id);
    }
}

/// Moves the log starts of a topic that stays, and adds partitions to it.
async fn alter(world: Arc<World>, id: TopicId) {
    let mut rng = world.rng("alterer", u64::from(id.uuid().as_bytes()[0]));
    while !world.has_ended() {
        sleep(Duration::from_millis(within(&mut rng, world.climate.admin_ms))).await;
        let Some(partitions) = world.partitions_of(id) else { return };
        if partitions < PARTITIONS_MAX && rng.random_range(0..4) == 0 {
            let more = Change::AddPartitions { id, partitions: partitions + 1 };
            if matches!(change(&world, &mut rng, more).await, Fate::Acked(_)) {
                world.trace.count("partitions added");
                world.history().partitions.insert(id, partitions + 1);
                world.offer_topic(id, partitions + 1);
            }
        } else {
            let partition = PartitionKey::new(id, PartitionIndex::new(rng.random_range(0..partitions)));
            move_log_start(&world, &mut rng, partition).await;
        }
    }
}

async fn move_log_start(world: &World, rng: &mut StdRng, partition: PartitionKey) {
    let offset = {
        let mut history = world.history();
        let end = history.acked_end.get(&partition).copied().unwrap_or(0);
        let offset = rng.random_range(0..=end);
        let tried = history.tried_start.entry(partition).or_default();
        *tried = offset.max(*tried);
        offset
    };
    if matches!(
        change(world, rng, Change::MoveLogStart { partition, offset: Offset::new(offset) }).await,
        Fate::Acked(_)
    ) {
        world.trace.count("log starts moved");
        let mut history = world.history();
        let acked = history.acked_start.entry(partition).or_default();
        *acked = offset.max(*acked);
    }
}

fn topic_id(rng: &mut StdRng) -> TopicId {
    TopicId::new(uuid::Builder::from_random_bytes(rng.random()).into_uuid())
}

async fn create(world: &World, rng: &mut StdRng, (id, name, partitions): (TopicId, &str, u32)) -> Fate {
    let name = TopicName::new(name).expect("names here are valid");
    change(world, rng, Change::CreateTopic { id, name, partitions, config: BTreeMap::new() }).await
}

/// One attempt; a topic that is there already was created by an earlier one.
async fn change(world: &World, rng: &mut StdRng, change: Change) -> Fate {
    let Some(broker) = world.sequencer(rng) else { return Fate::NotDone };
    let asked = broker.gate.unless_dead(async {
        broker.gate.pass().await;
        let answer = broker.log.change(change).await;
        broker.gate.pass().await;
        answer
    });
    match timeout(PATIENCE, asked).await {
        Ok(Some(Ok(_) | Err(AppendError::Refused(Refusal::TopicExists { .. })))) => Fate::Acked(0),
        Ok(Some(Err(AppendError::NotDone { .. } | AppendError::Refused(_)))) => Fate::NotDone,
        Ok(Some(Err(AppendError::Unknown { .. })) | None) | Err(_) => Fate::Unknown,
    }
}
