//! The read path over a real log on a store in memory.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lakebed_log::{Log, Offload, Seams};
use lakebed_model::{
    Change, FlushBody, FlushProposal, Offset, Outcome, PartitionIndex, PartitionKey, ProposedRun, TopicId, TopicName,
};
use lakebed_segment::batch::{
    self, Codec, Encoder, Fields, Limits, Record, TimestampType, decode, split, with_log_append_time,
};
use lakebed_segment::row_hash::facts;
use lakebed_segment::rows::BodyBatch;
use lakebed_segment::{body, layout};
use lakebed_store::backend::Backend;
use lakebed_store::{Key, MemoryBackend, Store, StoreOptions};
use tokio::time::Instant;

use crate::{Fetch, FetchError, FetchPartition, FetchRequest, Fetched, FetchedRecord, Options, Published, records};

mod damage;
mod gaps;
mod polls;
mod timestamps;

const TIME_MS: i64 = 1_700_000_000_000;
const LIMITS: Limits = Limits { max_decompressed_bytes: 1 << 24 };

fn key(partition: u32) -> PartitionKey {
    PartitionKey::new(TopicId::new(uuid::Uuid::from_u128(1)), PartitionIndex::new(partition))
}

/// A record: timestamp, and a number from which the rest follows (nulls, empties and headers among them).
fn push(encoder: &mut Encoder, index: usize, number: u64, timestamp_ms: i64) {
    let value = format!("value of {number}").repeat(1 + (number % 7) as usize);
    let key = number.to_be_bytes();
    let key = [None, Some(&b""[..]), Some(&key[..])][(number % 3) as usize];
    let value = if number % 11 == 5 { None } else { Some(value.as_bytes()) };
    let headers = [(&b"h"[..], Some(&b"1"[..])), (&b"h"[..], None), (&b""[..], Some(&b""[..]))];
    let headers = &headers[..(number % 4) as usize];
    encoder.push(Record { offset: index as i64, timestamp_ms, key, value }, headers.iter().copied()).unwrap();
}

fn encode(codec: Codec, numbers: Range<u64>) -> Bytes {
    let timestamp_type = TimestampType::Create;
    let fields = Fields { codec, timestamp_type, producer: None, is_transactional: false };
    let mut encoder = Encoder::new(fields, 1024);
    for (index, number) in numbers.enumerate() {
        push(&mut encoder, index, number, if number % 13 == 7 { -1 } else { TIME_MS + number as i64 });
    }
    encoder.finish().unwrap()
}

/// A log with a topic of four partitions, a read path, and what was committed to it.
struct World {
    backend: Arc<dyn Backend>,
    store: Store,
    log: Log,
    fetch: Fetch,
    committed: Vec<Published>,
}

impl World {
    async fn new(options: Options) -> Self {
        Self::on(Arc::new(MemoryBackend::default()), options).await
    }

    async fn on(backend: Arc<dyn Backend>, options: Options) -> Self {
        let store = Store::new("memory://", Arc::clone(&backend), &StoreOptions::default());
        let seams = Seams { wall: Arc::new(|| TIME_MS), seed: 1, offload: Offload::Inline };
        let log = Log::open(store.clone(), lakebed_log::Options::default(), seams).await.unwrap();
        let name = TopicName::new("orders").unwrap();
        let topic = Change::CreateTopic { id: key(0).topic, name, partitions: 4, config: Default::default() };
        log.change(topic).await.unwrap();
        let fetch = Fetch::new(log.clone(), store.clone(), options);
        Self { backend, store, log, fetch, committed: Vec::new() }
    }

    /// Commits one flush of such batches, in ascending order of partitions; the log stamps those with a time.
    async fn commit(&mut self, batches: &[(u32, Bytes, Option<i64>)]) -> Vec<Published> {
        let decoded: Vec<_> =
            batches.iter().map(|(_, bytes, _)| decode(bytes.clone(), &LIMITS).unwrap().rows).collect();
        let body_batches: Vec<BodyBatch<'_>> = batches
            .iter()
            .zip(&decoded)
            .map(|((partition, _, log_append_time_ms), rows)| BodyBatch {
                partition: key(*partition),
                rows,
                log_append_time_ms: *log_append_time_ms,
            })
            .collect();
        let mut runs: Vec<ProposedRun> = Vec::new();
        let mut row = 0;
        for batch in &body_batches {
            if runs.last().is_none_or(|run| run.partition != batch.partition) {
                runs.push(ProposedRun { partition: batch.partition, first_row: row, batches: Vec::new() });
            }
            row += batch.rows.len() as u64;
            runs.last_mut().unwrap().batches.push(facts(batch, TIME_MS, None));
        }
        let body = body::seal(&body_batches, TIME_MS).unwrap();
        let proposal = FlushProposal {
            id: self.log.mint(),
            broker: self.log.nonce(),
            previous: None,
            body: FlushBody::Inline,
            ingest_time_ms: TIME_MS,
            runs,
        };
        let outcome = self.log.submit(proposal, Some(body)).await.await.unwrap();
        let outcomes = outcome.runs.iter().flat_map(|(key, outcomes)| outcomes.iter().map(|outcome| (*key, *outcome)));
        let published = outcomes.zip(batches).zip(&decoded).map(|(((partition, outcome), (_, bytes, stamp)), rows)| {
            let Outcome::Appended(base_offset) = outcome else { panic!("{outcome:?}") };
            let last_offset = Offset::new(base_offset.get() + rows.len() as u64 - 1);
            let batch = stamp.map_or(bytes.clone(), |time_ms| with_log_append_time(bytes, time_ms));
            Published { partition, base_offset, last_offset, batch }
        });
        let published: Vec<Published> = published.collect();
        self.committed.extend(published.iter().cloned());
        published
    }

    /// Commits and publishes.
    async fn produce(&mut self, batches: &[(u32, Bytes, Option<i64>)]) {
        let published = self.commit(batches).await;
        self.fetch.publish(&published);
    }

    /// Commits 20 flushes of two partitions with all codecs, and log append time in the second.
    async fn fill(&mut self) {
        let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
        for flush in 0..20_u64 {
            let at = flush * 100;
            let codec = |i: u64| codecs[((flush + i) % 5) as usize];
            let stamp = Some(TIME_MS + flush as i64);
            let batches = [
                (0, encode(codec(0), at..at + 3 + flush), None),
                (0, encode(codec(1), at + 50..at + 51), None),
                (1, encode(codec(2), at..at + 5), stamp),
                (2, encode(codec(3), at..at + 2), None),
            ];
            self.produce(&batches).await;
        }
    }

    /// What the batches that were committed hold, decoded from the producers' own bytes.
    fn expected(&self, partition: u32) -> Vec<FetchedRecord> {
        let of_partition: Vec<Published> =
            self.committed.iter().filter(|one| one.partition == key(partition)).cloned().collect();
        let mut tail = crate::tail::Tail::new(usize::MAX, std::iter::empty());
        tail.publish(&of_partition);
        let crate::tail::TailRead::Hit(batches) = tail.read(key(partition), Offset::ZERO, usize::MAX) else { panic!() };
        let next_offset = batches.last().unwrap().next_offset();
        let fetched = Fetched { batches, high_watermark: next_offset, log_start: Offset::ZERO, next_offset };
        records(&fetched, Offset::ZERO).map(Result::unwrap).collect()
    }

    async fn fetch_one(&self, partition: u32, offset: u64, bytes_max: usize) -> Result<Fetched, FetchError> {
        self.fetch.fetch(request(&[(partition, offset)], bytes_max)).await.pop().unwrap()
    }

    /// Everything from `offset` on, fetch by fetch, as a Kafka client decodes it.
    async fn consume(&self, partition: u32, mut offset: u64, bytes_max: usize) -> Vec<FetchedRecord> {
        let mut all = Vec::new();
        loop {
            let fetched = self.fetch_one(partition, offset, bytes_max).await.unwrap();
            if fetched.batches.is_empty() {
                assert_eq!(fetched.high_watermark.get(), offset);
                return all;
            }
            all.extend(records(&over_the_wire(&fetched), Offset::new(offset)).map(Result::unwrap));
            offset = fetched.next_offset.get();
        }
    }

    fn gets(&self) -> u64 {
        self.store.counts().get.requests()
    }
}

/// The same, from the bytes that a client gets: offsets come out of the batches themselves.
fn over_the_wire(fetched: &Fetched) -> Fetched {
    let mut bytes = BytesMut::new();
    fetched.chunks().for_each(|chunk| bytes.extend_from_slice(&chunk));
    assert_eq!(bytes.len(), fetched.size_bytes());
    let batches = split(bytes.freeze()).unwrap().into_iter().map(|batch| {
        let header = batch::Header::peek(&batch).unwrap();
        assert_eq!(header.partition_leader_epoch, 0);
        let base = header.base_offset as u64;
        let last_offset = Offset::new(base + header.last_offset_delta as u64);
        crate::FetchedBatch { base_offset: Offset::new(base), last_offset, head: Bytes::new(), batch }
    });
    Fetched { batches: batches.collect(), ..fetched.clone() }
}

fn request(partitions: &[(u32, u64)], bytes_max: usize) -> FetchRequest {
    let partitions = partitions.iter().map(|(partition, offset)| FetchPartition {
        key: key(*partition),
        offset: Offset::new(*offset),
        bytes_max,
    });
    FetchRequest { partitions: partitions.collect(), bytes_max, bytes_min: 1, wait_max: Duration::ZERO }
}

fn no_tail() -> Options {
    Options { tail_bytes: 0, batch_bytes: 1024, ..Options::default() }
}

#[tokio::test]
async fn the_tail_and_the_store_give_identical_records() {
    let options = [Options::default(), no_tail(), Options { chunk_bytes: 4096, cache_bytes: 0, ..no_tail() }];
    for options in options {
        let mut world = World::new(options.clone()).await;
        world.fill().await;
        for partition in 0..3 {
            let expected = world.expected(partition);
            assert_eq!(world.consume(partition, 0, 1 << 20).await, expected, "{options:?}");
            for offset in [1, 7, 60, 99] {
                let rest = expected.get(offset..).unwrap_or_default();
                assert_eq!(world.consume(partition, offset.min(expected.len()) as u64, 300).await, rest, "{options:?}");
            }
        }
        assert_eq!(world.gets() > 20, options.tail_bytes == 0, "{} requests", world.gets());
    }
}

#[tokio::test]
async fn what_the_tail_has_evicted_comes_from_the_store_and_the_rest_from_the_tail() {
    let mut world = World::new(Options { tail_bytes: 10_000, ..no_tail() }).await;
    world.fill().await;
    let expected = world.expected(0);
    assert_eq!(world.consume(0, 0, 1 << 20).await, expected);
    let cold = world.gets();
    assert!(cold > 0);
    let recent = expected.len() - 3;
    assert_eq!(world.consume(0, recent as u64, 1 << 20).await, expected[recent..]);
    assert_eq!(world.gets(), cold);
}

#[tokio::test]
async fn a_new_process_reads_what_was_durable_before_it() {
    let mut world = World::new(Options::default()).await;
    world.fill().await;
    world.fetch = Fetch::new(world.log.clone(), world.store.clone(), Options::default());
    assert_eq!(world.consume(1, 0, 1 << 20).await, world.expected(1));
}

#[tokio::test]
async fn many_consumers_of_one_place_pay_once() {
    let mut world = World::new(no_tail()).await;
    world.fill().await;
    let before = world.gets();
    let consumers = (0..20).map(|_| world.consume(0, 0, 1 << 20));
    let read = futures::future::join_all(consumers).await;
    assert!(read.iter().all(|one| one == &read[0]));
    assert_eq!(world.gets() - before, 20, "one request for each of the small objects");
    world.consume(1, 0, 1 << 20).await;
    assert_eq!(world.gets() - before, 20, "other partitions of the same objects are there too");
}

#[tokio::test]
async fn a_large_object_is_read_by_its_footer_and_the_chunks_that_are_needed() {
    let mut world = World::new(Options { chunk_bytes: 64 << 10, batch_bytes: 64 << 10, ..no_tail() }).await;
    let large: Vec<_> = (0..4).map(|partition| (partition, encode(Codec::None, 0..10_000), None)).collect();
    world.produce(&large).await;
    let object_bytes = world.store.counts().put.bytes;
    assert!(object_bytes > 1 << 20);
    let before = world.store.counts().get;
    let fetched = world.fetch_one(2, 5_000, 1000).await.unwrap();
    let first = &fetched.batches[0];
    assert!(first.base_offset <= Offset::new(5_000) && first.last_offset >= Offset::new(5_000));
    assert!(fetched.size_bytes() < 150_000);
    let after = world.store.counts().get;
    let (requests, bytes) = (after.requests() - before.requests(), after.bytes - before.bytes);
    assert!(bytes < object_bytes / 2 && requests < 20, "{bytes} of {object_bytes} bytes in {requests} requests");
    assert_eq!(world.consume(2, 0, 1 << 20).await, world.expected(2));
    let all = world.store.counts().get.requests();
    world.consume(2, 0, 1 << 20).await;
    assert_eq!(world.store.counts().get.requests(), all, "it is cached now");
}

#[tokio::test]
async fn limits_hold_but_for_the_first_batch() {
    for options in [Options::default(), no_tail()] {
        let mut world = World::new(options).await;
        world.fill().await;
        let answers = world.fetch.fetch(request(&[(0, 0), (1, 0)], 1)).await;
        let sizes: Vec<usize> = answers.iter().map(|answer| answer.as_ref().unwrap().batches.len()).collect();
        assert_eq!(sizes, [1, 0]);
        for bytes_max in [500, 1500, 5000] {
            let answers = world.fetch.fetch(request(&[(0, 0), (1, 0), (2, 0)], bytes_max)).await;
            let bytes: usize = answers.iter().map(|answer| answer.as_ref().unwrap().size_bytes()).sum();
            assert!(bytes <= bytes_max && bytes > bytes_max / 4, "{bytes} of {bytes_max}");
        }
    }
}

#[tokio::test]
async fn offsets_outside_and_partitions_that_do_not_exist_are_told_apart_from_offsets_to_come() {
    let mut world = World::new(Options::default()).await;
    let published = world.commit(&[(0, encode(Codec::None, 0..3), None)]).await;
    let answers = world.fetch.fetch(request(&[(0, 0), (0, 2), (0, 3), (0, 4), (9, 0)], 1000)).await;
    for answer in &answers[..3] {
        assert_eq!(answer.as_ref().unwrap().batches.len(), 0, "durable, but not visible yet: it waits");
    }
    let [Err(FetchError::OffsetOutOfRange { high_watermark, .. }), Err(FetchError::UnknownTopicOrPartition)] =
        &answers[3..]
    else {
        panic!("{answers:?}")
    };
    assert_eq!(*high_watermark, Offset::new(3));
    assert_eq!(world.fetch.visible(key(0)), Offset::ZERO);
    world.fetch.publish(&published);
    assert_eq!(world.fetch_one(0, 0, 1000).await.unwrap().next_offset, Offset::new(3));
    world.log.change(Change::MoveLogStart { partition: key(0), offset: Offset::new(2) }).await.unwrap();
    assert!(
        matches!(world.fetch_one(0, 1, 1000).await, Err(FetchError::OffsetOutOfRange { log_start, .. }) if log_start == Offset::new(2))
    );
    assert_eq!(world.fetch_one(0, 2, 1000).await.unwrap().log_start, Offset::new(2));
}

#[test]
fn the_options_name_all_their_problems() {
    assert_eq!(Options::default().validate(), Ok(()));
    let wrong = Options { chunk_bytes: 1, backfill_requests_max: 0, batch_bytes: 1, ..Options::default() };
    assert_eq!(wrong.validate().unwrap_err().len(), 3);
}

/// A fetch must be able to move between threads.
fn _is_send(fetch: Fetch, asked: FetchRequest) -> impl Send {
    async move { (fetch.fetch(asked).await, fetch.max_timestamp(key(0)).await) }
}

fn commit_key(world: &World, number: u64) -> Key {
    let place = world.log.state().place_of(lakebed_model::CommitNumber::new(number)).unwrap();
    Key::new(layout::commit_key(world.log.identity().cell, place)).unwrap()
}
