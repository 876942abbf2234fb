//! What a cluster owes when nothing harms it any more: soon exactly one broker leads, and takes what is produced.

use std::sync::Arc;
use std::time::Duration;

use lakebed_ingest::ProduceError;
use tokio::time::{Instant, sleep, timeout};

use crate::batches::{admitted, encode, rows};
use crate::broker::Broker;
use crate::history::Fate;
use crate::world::World;

/// How soon.
const WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a batch may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// The writer of those who look.
const WRITER: usize = 2_000;

/// Waits for the cluster to settle.
pub(crate) async fn check(world: &Arc<World>) {
    let began = Instant::now();
    let mut rng = world.rng("liveness", 0);
    let mut number = 0;
    let leading = |world: &World| world.leaders().iter().map(|one| one.gate.name().to_owned()).collect::<Vec<_>>();
    while began.elapsed() < WITHIN {
        sleep(LOOK_EVERY).await;
        if world.trace.has_anomaly() {
            return;
        }
        let leaders = world.leaders();
        let ([leader], Some(key)) = (leaders.as_slice(), world.partition(&mut rng)) else { continue };
        let rows = rows(&mut rng, WRITER, number);
        number += rows.len() as u64;
        let batch = encode(&rows, None);
        let id = world.history().send(WRITER, number, key, rows);
        let fate = produce(leader, key, batch).await;
        world.history().settle(id, fate);
        let is_alone = matches!(world.leaders().as_slice(), [only] if Arc::ptr_eq(only, leader));
        if matches!(fate, Fate::Acked(_)) && is_alone {
            world.trace.note(format_args!("the cluster has settled under {}", leader.gate.name()));
            world.trace.count("clusters settled");
            return;
        }
    }
    world.trace.anomaly("unsettled-cluster", format!("after {WITHIN:?} in peace {:?} lead", leading(world)));
}

async fn produce(leader: &Broker, key: lakebed_model::PartitionKey, batch: bytes::Bytes) -> Fate {
    let asked = leader.gate.unless_dead(async {
        let mut tickets = leader.ingest.produce(vec![(key, admitted(batch))]).await;
        tickets.pop().expect("each batch has a ticket").await
    });
    match timeout(PATIENCE, asked).await {
        Ok(Some(Ok(produced))) => Fate::Acked(produced.base_offset.get()),
        Ok(Some(Err(ProduceError::Refused(_) | ProduceError::NotDone { .. }))) => Fate::NotDone,
        Ok(Some(Err(ProduceError::Unknown { .. })) | None) | Err(_) => Fate::Unknown,
    }
}
