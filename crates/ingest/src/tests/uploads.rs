//! Flushes that are uploaded to `segments/` before they are committed.

use lakebed_model::ObjectId;

use super::*;

#[tokio::test]
async fn several_segments_are_uploaded_at_once_and_committed_in_the_order_of_their_batches() {
    let world = World::new().await;
    let (ingest, mut listener) = Ingest::start_uploading(world.log.clone(), world.store.clone(), at_once());
    world.gated.close();
    let mut tickets = Vec::new();
    for partition in [0, 0, 1] {
        tickets.extend(ingest.produce(vec![(key(partition), batch_of(2))]).await);
        settle().await;
    }
    assert_eq!(world.gated.held(), 3);
    world.gated.open();
    let answers = all(tickets).await;
    assert_eq!(answers.iter().map(base).collect::<Vec<u64>>(), [0, 2, 0]);
    let bases: Vec<u64> = taken(&mut listener).iter().map(|one| one.base_offset.get()).collect();
    assert_eq!(bases, [0, 2, 0]);
    let objects: Vec<ObjectId> = world.log.state().objects().map(|(id, _)| id).collect();
    assert!(objects.len() == 3 && objects.iter().all(|object| matches!(object, ObjectId::Segment(_))), "{objects:?}");
}

#[tokio::test]
async fn a_segment_that_can_not_be_uploaded_is_not_done_and_those_behind_it_go_on() {
    let world = World::new().await;
    let (ingest, _listener) = Ingest::start_uploading(world.log.clone(), world.store.clone(), at_once());
    *world.gated.refused.lock().unwrap() = Some("segments/");
    let answers = all(ingest.produce(vec![(key(0), batch_of(1)), (key(1), batch_of(1))]).await).await;
    for answer in answers {
        assert!(matches!(answer, Err(ProduceError::NotDone { why: Obstacle::Upload(_) })), "{answer:?}");
    }
    *world.gated.refused.lock().unwrap() = None;
    let answers = all(ingest.produce(vec![(key(0), batch_of(1))]).await).await;
    assert_eq!((base(&answers[0]), world.high_watermark(0)), (0, 1));
    ingest.drain().await;
}
