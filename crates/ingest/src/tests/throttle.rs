//! What becomes of producers at the limit on live runs.

use lakebed_model::CommitNumber;

use super::*;

async fn produce_to(ingest: &Ingest, partitions: std::ops::Range<u32>) -> Vec<Result<Produced, ProduceError>> {
    all(ingest.produce(partitions.map(|partition| (key(partition), batch_of(1))).collect()).await).await
}

#[tokio::test]
async fn producers_wait_till_merging_has_seen_the_state_as_it_is_and_are_refused_if_it_has_nothing_left_to_do() {
    let world = World::new().await;
    let (ingest, mut listener) = Ingest::start(world.log.clone(), Options { live_runs_max: 4, ..at_once() });
    tokio::spawn(async move { while listener.recv().await.is_some() {} });
    let before = world.log.state().number();
    assert!(produce_to(&ingest, 0..4).await.iter().all(Result::is_ok));
    let full = world.log.state().number();
    assert!(before < full);
    // Merging had nothing to do, but that was before the runs were too many.
    ingest.merging_exhausted(before);
    let mut held = Box::pin(produce_to(&ingest, 0..1));
    settle().await;
    assert!(futures::poll!(held.as_mut()).is_pending());
    assert_eq!(ingest.throttled(), 1);
    ingest.merging_exhausted(full);
    let refused = [Err(ProduceError::NotDone { why: Obstacle::RunsExhausted { live_runs: 4, live_runs_max: 4 } })];
    assert_eq!(held.await, refused);
    assert_eq!(produce_to(&ingest, 0..1).await, refused, "at once");
    assert_eq!((world.log.state().number(), ingest.throttled()), (full, 1));
    // Another commit: merging may have something to do again, so they wait for what it finds.
    let other = Change::CreateTopic {
        id: TopicId::new(uuid::Uuid::from_u128(2)),
        name: TopicName::new("others").unwrap(),
        partitions: 1,
        config: Default::default(),
    };
    world.log.change(other).await.unwrap();
    let mut held = Box::pin(produce_to(&ingest, 0..1));
    settle().await;
    assert!(futures::poll!(held.as_mut()).is_pending());
    ingest.merging_exhausted(CommitNumber::new(full.get() + 1));
    assert_eq!(held.await, refused);
}

#[tokio::test]
async fn after_merging_had_nothing_left_producers_go_on_as_soon_as_the_runs_are_fewer_than_their_limit() {
    let world = World::new().await;
    let (ingest, mut listener) = Ingest::start(world.log.clone(), Options { live_runs_max: 16, ..at_once() });
    tokio::spawn(async move { while listener.recv().await.is_some() {} });
    let other = TopicId::new(uuid::Uuid::from_u128(2));
    let name = TopicName::new("others").unwrap();
    let topic = Change::CreateTopic { id: other, name, partitions: 1, config: Default::default() };
    world.log.change(topic).await.unwrap();
    let to_other = PartitionKey::new(other, PartitionIndex::new(0));
    assert!(all(ingest.produce(vec![(to_other, batch_of(1))]).await).await[0].is_ok());
    for partitions in [0..4, 0..4, 0..4, 0..3] {
        assert!(produce_to(&ingest, partitions).await.iter().all(Result::is_ok));
    }
    assert_eq!(world.log.state().run_count(), 16);
    ingest.merging_exhausted(world.log.state().number());
    assert!(produce_to(&ingest, 0..1).await[0].is_err());
    world.log.change(Change::DeleteTopic { id: other }).await.unwrap();
    assert_eq!(world.log.state().run_count(), 15, "merging would have to bring them below 14");
    assert!(produce_to(&ingest, 0..1).await[0].is_ok());
}
