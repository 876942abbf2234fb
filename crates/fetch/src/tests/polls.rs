//! Long polls.

use super::*;

const WAIT_MAX: Duration = Duration::from_secs(5);

fn poll(partitions: &[(u32, u64)], bytes_min: usize) -> FetchRequest {
    FetchRequest { bytes_min, wait_max: WAIT_MAX, ..request(partitions, 1 << 20) }
}

#[tokio::test(start_paused = true)]
async fn a_poll_wakes_on_the_publication_of_its_partitions_and_not_before() {
    let mut world = World::new(Options::default()).await;
    let start = Instant::now();
    let fetch = world.fetch.clone();
    let mut waiting = Box::pin(fetch.fetch(poll(&[(0, 0), (1, 0)], 1)));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    world.produce(&[(2, encode(Codec::None, 0..1), None)]).await;
    assert!(futures::poll!(waiting.as_mut()).is_pending(), "another partition");
    let published = world.commit(&[(1, encode(Codec::None, 0..1), None)]).await;
    assert!(futures::poll!(waiting.as_mut()).is_pending(), "durable, but not published");
    world.fetch.publish(&published);
    let answers = waiting.await;
    assert_eq!(answers[1].as_ref().unwrap().next_offset, Offset::new(1));
    assert_eq!((start.elapsed(), world.fetch.waiting()), (Duration::ZERO, 0));
}

#[tokio::test(start_paused = true)]
async fn a_poll_waits_for_its_bytes_or_the_end_of_its_time() {
    let mut world = World::new(Options::default()).await;
    let start = Instant::now();
    let one = encode(Codec::None, 0..1);
    let fetch = world.fetch.clone();
    let mut waiting = Box::pin(fetch.fetch(poll(&[(0, 0)], 2 * one.len())));
    world.produce(&[(0, one.clone(), None)]).await;
    assert!(futures::poll!(waiting.as_mut()).is_pending(), "one batch is too little");
    world.produce(&[(0, one, None)]).await;
    assert_eq!(waiting.await[0].as_ref().unwrap().batches.len(), 2);
    assert_eq!(start.elapsed(), Duration::ZERO);

    let answers = world.fetch.fetch(poll(&[(0, 2), (3, 0)], 1)).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().batches.is_empty()));
    assert_eq!((start.elapsed(), world.fetch.waiting()), (WAIT_MAX, 0));
}

#[tokio::test(start_paused = true)]
async fn an_error_is_answered_at_once_and_a_dropped_poll_leaves_nothing() {
    let world = World::new(Options::default()).await;
    let start = Instant::now();
    let answers = world.fetch.fetch(poll(&[(0, 0), (9, 0)], 1)).await;
    assert_eq!(answers[1].as_ref().unwrap_err(), &FetchError::UnknownTopicOrPartition);
    assert_eq!(start.elapsed(), Duration::ZERO);
    let mut waiting = Box::pin(world.fetch.fetch(poll(&[(0, 0), (1, 0)], 1)));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    assert_eq!(world.fetch.waiting(), 2);
    drop(waiting);
    assert_eq!(world.fetch.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_every_poll_is_answered_with_what_there_is() {
    let world = World::new(Options::default()).await;
    let start = Instant::now();
    let mut waiting = Box::pin(world.fetch.fetch(poll(&[(0, 0)], 1)));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    world.fetch.stop_waiting();
    for answers in [waiting.await, world.fetch.fetch(poll(&[(1, 0)], 1)).await] {
        assert!(answers[0].as_ref().unwrap().batches.is_empty());
    }
    assert_eq!((start.elapsed(), world.fetch.waiting()), (Duration::ZERO, 0));
}

#[tokio::test(start_paused = true)]
async fn a_watch_sees_every_publication_of_its_partitions_until_it_is_dropped() {
    let mut world = World::new(Options::default()).await;
    let places = request(&[(0, 0), (1, 0)], 1).partitions;
    let places = || places.iter().map(|place| (place.key, place.offset));
    let fetch = world.fetch.clone();
    assert_eq!(fetch.first_readable(places()), None);
    let watch = fetch.watch(places().map(|(key, _)| key));
    let end = Offset::new(1);
    let mut visible = Box::pin(fetch.wait_visible(places().nth(1).unwrap().0, end));
    assert!(futures::poll!(visible.as_mut()).is_pending());
    world.produce(&[(2, encode(Codec::None, 0..1), None)]).await;
    assert!(futures::poll!(Box::pin(watch.woken())).is_pending(), "another partition");
    let published = world.commit(&[(1, encode(Codec::None, 0..1), None)]).await;
    assert!(futures::poll!(visible.as_mut()).is_pending(), "durable, but not published");
    world.fetch.publish(&published);
    watch.woken().await;
    visible.await;
    assert_eq!(fetch.first_readable(places()), Some(1));
    assert!(futures::poll!(Box::pin(watch.woken())).is_pending(), "woken once");
    assert_eq!(fetch.waiting(), 2);

    let mut stopped = Box::pin(fetch.stopped());
    assert!(futures::poll!(stopped.as_mut()).is_pending());
    fetch.stop_waiting();
    stopped.await;
    watch.woken().await;
    fetch.wait_visible(places().next().unwrap().0, end).await;
    drop(watch);
    assert_eq!(fetch.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_durable_before_is_seen_even_by_who_waits_for_nothing() {
    let mut world = World::new(Options::default()).await;
    world.produce(&[(0, encode(Codec::None, 0..1), None)]).await;
    let published = world.commit(&[(0, encode(Codec::None, 1..2), None)]).await;
    let fetch = world.fetch.clone();
    let at_once = FetchRequest { bytes_min: 0, wait_max: Duration::ZERO, ..poll(&[(0, 0)], 0) };
    let mut reading = Box::pin(fetch.fetch(at_once));
    assert!(futures::poll!(reading.as_mut()).is_pending(), "its producer may have been answered");
    world.fetch.publish(&published);
    let answers = reading.await;
    let fetched = answers[0].as_ref().unwrap();
    assert_eq!((fetched.batches.len(), fetched.high_watermark), (2, Offset::new(2)));
}
