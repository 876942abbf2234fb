//! The write path over a real log on a store in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use lakebed_log::{Closed, Log, Offload, Seams};
use lakebed_model::{BatchRefusal, Change, Offset, PartitionIndex, PartitionKey, TopicId, TopicName};
use lakebed_segment::batch::{Codec, Encoder, Fields, Limits, Producer, Record, TimestampType, decode_stored};
use lakebed_store::{Store, StoreOptions};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::{Admitted, BatchLimits, Committed, Ingest, Obstacle, Options, ProduceError, Produced, Ticket, admit};

mod gate;
mod lone_producer;
mod throttle;
mod uploads;

use gate::Gated;

const WALL_MS: i64 = 1_700_000_000_000;

fn fields(codec: Codec, producer: Option<Producer>) -> Fields {
    Fields { codec, timestamp_type: TimestampType::Create, producer, is_transactional: false }
}

/// A batch with one record for each value.
fn encode(fields: Fields, values: &[&[u8]]) -> Bytes {
    let mut encoder = Encoder::new(fields, 1024);
    for (index, value) in values.iter().enumerate() {
        let record = Record { offset: index as i64, timestamp_ms: WALL_MS, key: None, value: Some(value) };
        encoder.push(record, []).unwrap();
    }
    encoder.finish().unwrap()
}

fn limits() -> BatchLimits {
    BatchLimits {
        message_bytes_max: 1 << 20,
        decompressed_bytes_max: 1 << 20,
        timestamp_before_max_ms: 1000,
        timestamp_after_max_ms: 1000,
        now_ms: WALL_MS,
        log_append: false,
        keys_required: false,
    }
}

fn batch_of(rows: usize) -> Admitted {
    admit(encode(fields(Codec::None, None), &vec![&b"value"[..]; rows]), &limits()).unwrap()
}

fn batch_from(producer: i64, sequence: i32, rows: usize) -> Admitted {
    let producer = Producer { id: producer, epoch: 0, base_sequence: sequence };
    admit(encode(fields(Codec::None, Some(producer)), &vec![&b"value"[..]; rows]), &limits()).unwrap()
}

fn key(partition: u32) -> PartitionKey {
    PartitionKey::new(TopicId::new(topic_uuid()), PartitionIndex::new(partition))
}

fn topic_uuid() -> uuid::Uuid {
    uuid::Uuid::from_u128(1)
}

fn seams(seed: u64) -> Seams {
    Seams { wall: Arc::new(|| WALL_MS), seed, offload: Offload::Inline }
}

/// A log with a topic of four partitions, over a store that can be held back.
struct World {
    store: Store,
    gated: Arc<Gated>,
    log: Log,
}

impl World {
    async fn new() -> Self {
        let gated = Arc::new(Gated::default());
        let store = Store::new("memory://", Arc::clone(&gated) as _, &StoreOptions::default());
        let log = Log::open(store.clone(), lakebed_log::Options::default(), seams(1)).await.unwrap();
        let name = TopicName::new("orders").unwrap();
        let topic = Change::CreateTopic { id: key(0).topic, name, partitions: 4, config: Default::default() };
        log.change(topic).await.unwrap();
        Self { store, gated, log }
    }

    fn high_watermark(&self, partition: u32) -> u64 {
        self.log.state().partition(key(partition)).unwrap().high_watermark.get()
    }
}

fn at_once() -> Options {
    Options { flush_interval: Duration::ZERO, ..Options::default() }
}

/// Lets every task go as far as it can.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

async fn all(tickets: Vec<Ticket>) -> Vec<Result<Produced, ProduceError>> {
    futures::future::join_all(tickets).await
}

fn base(answer: &Result<Produced, ProduceError>) -> u64 {
    answer.as_ref().unwrap().base_offset.get()
}

/// Everything that was committed so far.
fn taken(listener: &mut mpsc::Receiver<Vec<Committed>>) -> Vec<Committed> {
    std::iter::from_fn(|| listener.try_recv().ok()).flatten().collect()
}

#[tokio::test]
async fn nothing_is_acknowledged_before_its_commit_is_durable() {
    let world = World::new().await;
    let (ingest, mut listener) = Ingest::start(world.log.clone(), at_once());
    world.gated.close();
    let mut tickets = ingest.produce(vec![(key(0), batch_of(3)), (key(1), batch_of(2))]).await;
    settle().await;
    assert_eq!(world.gated.held(), 1, "the commit is on its way");
    assert!(tickets.iter_mut().all(|ticket| ticket.now_or_never().is_none()));
    assert!(taken(&mut listener).is_empty());
    world.gated.open();
    let answers = all(tickets).await;
    assert_eq!((base(&answers[0]), base(&answers[1])), (0, 0));
    assert_eq!((world.high_watermark(0), world.high_watermark(1)), (3, 2));
    assert_eq!(taken(&mut listener).len(), 2, "whoever listens knew before");
}

#[tokio::test]
async fn batches_get_offsets_in_the_order_in_which_they_were_handed_over() {
    let world = World::new().await;
    let options = Options { flush_bytes: 500, flushes_in_flight_max: 3, ..at_once() };
    let (ingest, mut listener) = Ingest::start(world.log.clone(), options);
    let listening = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(committed) = listener.recv().await {
            all.extend(committed);
        }
        all
    });
    let mut expected = [0_u64; 4];
    let mut tickets = Vec::new();
    let mut sent: Vec<Vec<Bytes>> = vec![Vec::new(); 4];
    for round in 0..100_u32 {
        let call: Vec<(PartitionKey, Admitted)> =
            (0..3).map(|i| (key((round + i) % 4), batch_of(1 + (round % 5) as usize))).collect();
        for (key, admitted) in &call {
            sent[key.partition.get() as usize].push(admitted.batch.clone());
        }
        tickets.extend(ingest.produce(call.clone()).await.into_iter().zip(call));
    }
    for (ticket, (key, admitted)) in tickets {
        let next = &mut expected[key.partition.get() as usize];
        assert_eq!(ticket.await.unwrap().base_offset, Offset::new(*next));
        *next += u64::from(admitted.records());
    }
    drop(ingest);
    let committed = listening.await.unwrap();
    for partition in 0..4 {
        let of_partition: Vec<&Committed> = committed.iter().filter(|one| one.partition == key(partition)).collect();
        let mut next = 0;
        for (one, sent) in of_partition.iter().zip(&sent[partition as usize]) {
            assert_eq!(one.base_offset.get(), next);
            assert_eq!(one.batch.as_ptr(), sent.as_ptr(), "the producer's own bytes");
            next = one.last_offset.get() + 1;
        }
        assert_eq!((of_partition.len(), next), (sent[partition as usize].len(), world.high_watermark(partition)));
    }
    assert!(world.log.state().number().get() > 20, "there were many flushes");
}

#[tokio::test]
async fn producers_wait_at_the_bound_and_go_on_when_there_is_room() {
    let world = World::new().await;
    let cost = batch_of(1).cost_bytes();
    let options = Options { buffer_bytes: 3 * cost + cost / 2, flush_bytes: 1, ..at_once() };
    let buffer_bytes = options.buffer_bytes;
    let (ingest, mut listener) = Ingest::start(world.log.clone(), options);
    world.gated.close();
    let mut tickets = Vec::new();
    for _ in 0..3 {
        tickets.extend(ingest.produce(vec![(key(0), batch_of(1))]).await);
    }
    let mut fourth = Box::pin(ingest.produce(vec![(key(0), batch_of(1))]));
    let mut fifth = Box::pin(ingest.produce(vec![(key(0), batch_of(1))]));
    for _ in 0..3 {
        assert!(futures::poll!(fourth.as_mut()).is_pending() && futures::poll!(fifth.as_mut()).is_pending());
        settle().await;
    }
    drop(fifth);
    world.gated.open();
    tickets.extend(fourth.await);
    let answers = all(tickets).await;
    assert_eq!(answers.iter().map(base).collect::<Vec<u64>>(), [0, 1, 2, 3]);
    assert_eq!(ingest.free_bytes(), buffer_bytes, "all room is given back, the dropped caller's too");
    assert_eq!(taken(&mut listener).len(), 4);
}

#[tokio::test]
async fn a_batch_larger_than_the_buffer_is_turned_away_and_a_call_larger_than_it_goes_in_parts() {
    let world = World::new().await;
    let buffer_bytes = 3 * batch_of(1).cost_bytes() + 10;
    let (ingest, _listener) = Ingest::start(world.log.clone(), Options { buffer_bytes, ..at_once() });
    let large = batch_of(1000);
    assert!(large.cost_bytes() > buffer_bytes);
    let mut call = vec![(key(0), batch_of(1)), (key(0), large)];
    call.extend((0..8).map(|_| (key(0), batch_of(1))));
    let answers = all(ingest.produce(call).await).await;
    let too_large = Obstacle::TooLarge { bytes: batch_of(1000).cost_bytes(), buffer_bytes };
    assert_eq!(answers[1], Err(ProduceError::NotDone { why: too_large }));
    let bases: Vec<u64> = answers.iter().enumerate().filter(|(i, _)| *i != 1).map(|(_, answer)| base(answer)).collect();
    assert_eq!(bases, (0..9).collect::<Vec<u64>>());
}

#[tokio::test]
async fn each_batch_gets_its_own_outcome_back_from_the_group_that_it_was_proposed_in() {
    let world = World::new().await;
    let (ingest, mut listener) = Ingest::start(world.log.clone(), at_once());
    let missing = PartitionKey::new(key(0).topic, PartitionIndex::new(9));
    let call = vec![
        (key(0), batch_of(3)),
        (key(0), batch_of(2)),
        (key(0), batch_from(5, 0, 2)),
        (missing, batch_of(1)),
        (key(0), batch_of(1)),
        (key(0), batch_from(5, 0, 2)),
        (key(0), batch_from(5, 7, 1)),
        (key(0), batch_of(4)),
        (key(0), batch_of(1)),
        (missing, batch_of(1)),
        (key(0), batch_of(2).expecting(Offset::new(12))),
        (key(0), batch_of(2).expecting(Offset::new(13))),
        (key(0), batch_of(1)),
    ];
    let answers = all(ingest.produce(call).await).await;
    let outcome = |answer: &Result<Produced, ProduceError>| match answer {
        Ok(produced) => Ok((produced.base_offset.get(), produced.duplicate)),
        Err(ProduceError::Refused(refusal)) => Err(*refusal),
        Err(other) => panic!("{other}"),
    };
    let expected = [
        Ok((0, false)),
        Ok((3, false)),
        Ok((5, false)),
        Err(BatchRefusal::UnknownPartition),
        Ok((7, false)),
        Ok((5, true)),
        Err(BatchRefusal::OutOfOrderSequence),
        Ok((8, false)),
        Ok((12, false)),
        Err(BatchRefusal::UnknownPartition),
        Err(BatchRefusal::OffsetMismatch { next: Offset::new(13) }),
        Ok((13, false)),
        Ok((15, false)),
    ];
    assert_eq!(answers.iter().map(outcome).collect::<Vec<_>>(), expected);
    let committed: Vec<(u64, u64)> =
        taken(&mut listener).iter().map(|one| (one.base_offset.get(), one.last_offset.get())).collect();
    assert_eq!(
        committed,
        [(0, 2), (3, 4), (5, 6), (7, 7), (8, 11), (12, 12), (13, 14), (15, 15)],
        "what was not appended is not there"
    );
    assert_eq!(world.log.state().number().get(), 3, "one takeover, one topic, one flush");
}

#[tokio::test]
async fn a_topic_with_log_append_time_gets_the_time_of_its_flush() {
    let world = World::new().await;
    let (ingest, mut listener) = Ingest::start(world.log.clone(), at_once());
    let old = BatchLimits { log_append: true, now_ms: WALL_MS + 1_000_000, ..limits() };
    let stamped = admit(encode(fields(Codec::Lz4, None), &[b"a", b"b"]), &old).unwrap();
    let answers = all(ingest.produce(vec![(key(0), stamped), (key(1), batch_of(1))]).await).await;
    assert_eq!(answers[0].as_ref().unwrap().log_append_time_ms, Some(WALL_MS));
    assert_eq!(answers[1].as_ref().unwrap().log_append_time_ms, None);
    let committed = taken(&mut listener);
    let stored = decode_stored(committed[0].batch.clone(), &Limits { max_decompressed_bytes: 1 << 20 }).unwrap();
    assert_eq!(stored.timestamp_type, TimestampType::LogAppend);
    assert_eq!(stored.rows.timestamps_ms, [WALL_MS, WALL_MS]);
}

#[tokio::test]
async fn a_fenced_log_answers_that_nothing_was_done() {
    let world = World::new().await;
    let (ingest, mut listener) = Ingest::start(world.log.clone(), at_once());
    assert_eq!(base(&all(ingest.produce(vec![(key(0), batch_of(1))]).await).await[0]), 0);
    let other = Log::open(world.store.clone(), lakebed_log::Options::default(), seams(2)).await.unwrap();
    let answers = all(ingest.produce(vec![(key(0), batch_of(1)), (key(1), batch_of(1))]).await).await;
    for answer in answers {
        assert!(
            matches!(answer, Err(ProduceError::NotDone { why: Obstacle::Log(Closed::Fenced { .. }) })),
            "{answer:?}"
        );
    }
    assert_eq!(other.state().partition(key(0)).unwrap().high_watermark, Offset::new(1));
    assert_eq!(taken(&mut listener).len(), 1);
}

#[tokio::test]
async fn who_drops_a_ticket_a_call_or_the_listener_loses_nothing_and_leaks_nothing() {
    let world = World::new().await;
    let (ingest, listener) = Ingest::start(world.log.clone(), at_once());
    let free = ingest.free_bytes();
    drop(listener);
    drop(ingest.produce(vec![(key(0), batch_of(2))]).await);
    let answers = all(ingest.produce(vec![(key(0), batch_of(1))]).await).await;
    assert_eq!(base(&answers[0]), 2);
    assert_eq!(ingest.free_bytes(), free);
}

#[tokio::test]
async fn a_drain_flushes_at_once_answers_everything_and_turns_later_batches_away() {
    let world = World::new().await;
    let options = Options { flush_interval: Duration::from_secs(3600), ..Options::default() };
    let (ingest, mut listener) = Ingest::start(world.log.clone(), options);
    let mut tickets = ingest.produce(vec![(key(0), batch_of(1))]).await;
    settle().await;
    tickets.extend(ingest.produce(vec![(key(0), batch_of(1))]).await);
    settle().await;
    assert_eq!(world.high_watermark(0), 1, "the second waits for its interval");
    ingest.drain().await;
    let answers: Vec<_> = tickets.into_iter().map(|ticket| ticket.now_or_never().unwrap()).collect();
    assert_eq!(answers.iter().map(base).collect::<Vec<u64>>(), [0, 1]);
    assert_eq!(taken(&mut listener).len(), 2);
    let late = all(ingest.produce(vec![(key(0), batch_of(1))]).await).await;
    assert_eq!(late, [Err(ProduceError::NotDone { why: Obstacle::ShuttingDown })]);
    ingest.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_lone_record_is_flushed_at_once_and_the_next_flush_begins_an_interval_later() {
    let world = World::new().await;
    let options = Options { flush_interval: Duration::from_millis(250), ..Options::default() };
    let (ingest, mut listener) = Ingest::start(world.log.clone(), options);
    tokio::spawn(async move { while listener.recv().await.is_some() {} });
    let start = Instant::now();
    all(ingest.produce(vec![(key(0), batch_of(1))]).await).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    let commits = world.log.state().number();
    let second = ingest.produce(vec![(key(0), batch_of(1))]).await;
    tokio::time::advance(Duration::from_millis(100)).await;
    let third = ingest.produce(vec![(key(1), batch_of(1))]).await;
    all(second).await;
    all(third).await;
    assert_eq!(start.elapsed(), Duration::from_millis(250));
    assert_eq!(world.log.state().number(), commits.next(), "they share a flush");
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_is_flushed_before_its_time() {
    let world = World::new().await;
    let flush_bytes = 20 * batch_of(1).size_bytes();
    let options = Options { flush_interval: Duration::from_secs(3600), flush_bytes, ..Options::default() };
    let (ingest, mut listener) = Ingest::start(world.log.clone(), options);
    tokio::spawn(async move { while listener.recv().await.is_some() {} });
    let start = Instant::now();
    for _ in 0..5 {
        let call = (0..20).map(|_| (key(0), batch_of(1))).collect();
        all(ingest.produce(call).await).await;
    }
    assert_eq!((start.elapsed(), world.high_watermark(0)), (Duration::ZERO, 100));
}

#[tokio::test]
async fn a_slow_listener_holds_answers_back_and_loses_no_order() {
    let world = World::new().await;
    let (ingest, mut listener) = Ingest::start(world.log.clone(), Options { flush_bytes: 1, ..at_once() });
    let mut tickets = Vec::new();
    for _ in 0..40 {
        tickets.extend(ingest.produce(vec![(key(0), batch_of(1))]).await);
    }
    settle().await;
    let done = tickets.iter_mut().filter_map(|ticket| ticket.now_or_never()).count();
    assert_eq!(done, crate::ingest::COMMITTED_MAX, "no producer is answered before the listener has its batch");
    let mut heard = Vec::new();
    while heard.len() < 40 {
        heard.extend(listener.recv().await.unwrap());
    }
    assert_eq!(heard.iter().map(|one| one.base_offset.get()).collect::<Vec<u64>>(), (0..40).collect::<Vec<u64>>());
    assert_eq!(all(tickets.split_off(done)).await.iter().map(base).next_back(), Some(39));
}

#[test]
fn a_batch_is_admitted_within_its_topics_limits_only() {
    let sent = encode(fields(Codec::None, None), &[b"a", b"b"]);
    assert_eq!(admit(sent.clone(), &limits()).unwrap().records(), 2);
    let with = |change: fn(&mut BatchLimits)| {
        let mut limits = limits();
        change(&mut limits);
        admit(sent.clone(), &limits).err().map(|error| error.to_string())
    };
    let too_large = format!("the batch has {} bytes, but its topic allows 20", sent.len());
    assert_eq!(with(|limits| limits.message_bytes_max = 20), Some(too_large));
    for change in [|limits: &mut BatchLimits| limits.now_ms += 1001, |limits: &mut BatchLimits| limits.now_ms -= 1001] {
        assert!(with(change).unwrap().contains("timestamp"), "the window is 1000 ms to both sides");
    }
    assert_eq!(with(|limits| limits.now_ms += 1000), None);
    assert_eq!(with(|limits| limits.now_ms -= 1000), None);
    let far = |limits: &mut BatchLimits| (limits.now_ms, limits.log_append) = (0, true);
    assert_eq!(with(far), None, "the producer's time does not count there");

    let mut without_time = Encoder::new(fields(Codec::None, None), 100);
    without_time.push(Record { offset: 0, timestamp_ms: -1, key: None, value: None }, []).unwrap();
    assert!(admit(without_time.finish().unwrap(), &limits()).is_ok());

    let transactional = Fields { is_transactional: true, ..fields(Codec::None, None) };
    let refused = admit(encode(transactional, &[b"a"]), &limits()).unwrap_err();
    assert_eq!(refused.to_string(), "transactions are not supported");
    let mut damaged = sent.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(admit(damaged.into(), &limits()).is_err());
}

#[test]
fn a_compressed_batch_counts_what_it_takes_once_it_is_decompressed() {
    let zeros = vec![0; 100_000];
    let sent = encode(fields(Codec::Zstd, None), &[&zeros]);
    let admitted = admit(sent.clone(), &limits()).unwrap();
    assert!(sent.len() < 1000 && admitted.cost_bytes() > 200_000);
    let bounded = BatchLimits { decompressed_bytes_max: 50_000, ..limits() };
    assert!(admit(sent, &bounded).is_err());
}

#[test]
fn the_options_name_all_their_problems() {
    assert_eq!(Options::default().validate(), Ok(()));
    let wrong = Options { flush_bytes: 0, buffer_bytes: 1, flushes_in_flight_max: 0, ..Options::default() };
    assert_eq!(wrong.validate().unwrap_err().len(), 3);
}
