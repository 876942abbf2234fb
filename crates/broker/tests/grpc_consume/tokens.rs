//! Resume tokens: exact, and good on any broker at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use lakebed_broker::{Broker, Config};
use lakebed_model::{Change, Offset, PartitionIndex, PartitionKey};
use lakebed_store::{MemoryBackend, Store, StoreOptions};
use lakebed_wire::v1;
use lakebed_wire::v1::consume_response::Response;
use tonic::Code;

use crate::client::{Client, Running, TOPIC, all, all_there_is, earliest, reason, reason_of, resume, values};

const PARTITIONS: i32 = 3;
const EACH: u64 = 20;

async fn fill(client: &mut Client) {
    for n in 0..EACH {
        for partition in 0..PARTITIONS {
            client.produce_singly(partition, n..n + 1).await;
        }
    }
}

/// All records that there should be.
fn everything() -> BTreeSet<(i32, i64)> {
    (0..PARTITIONS).flat_map(|partition| (0..EACH as i64).map(move |offset| (partition, offset))).collect()
}

/// Reads in small messages, of which each has its token, and checks for each token that it goes on exactly behind what came up to it.
async fn check_tokens(client: &mut Client, other: &mut Client, format: v1::Format) {
    let mut stream = client.open(v1::ConsumeInit { format: format.into(), ..all() }).await.unwrap();
    let mut so_far = BTreeSet::new();
    let mut tokens: Vec<(Bytes, BTreeSet<(i32, i64)>)> = vec![(stream.heartbeat().await.resume_token, so_far.clone())];
    stream.grant(1 << 40, 0);
    while so_far.len() < everything().len() {
        stream.grant(0, 3);
        // Three records at most come for it, in one message or several.
        let before = so_far.len();
        let wanted = (before + 3).min(everything().len());
        while so_far.len() < wanted {
            let batch = stream.batch().await;
            for offset in crate::client::offsets(&batch) {
                assert!(so_far.insert((batch.partition, offset)), "{} {offset} came twice", batch.partition);
            }
            tokens.push((batch.resume_token, so_far.clone()));
        }
    }
    let mut interleaved = 0;
    for (token, so_far) in &tokens {
        let rest = other.consume_to_the_end(v1::ConsumeInit { format: format.into(), ..resume(token) }).await;
        let places = rest.places();
        let mut together = so_far.clone();
        for place in &places {
            assert!(together.insert(*place), "{place:?} came twice");
        }
        assert_eq!(together, everything());
        let per_partition: BTreeMap<i32, usize> = so_far.iter().fold(BTreeMap::new(), |mut counts, (partition, _)| {
            *counts.entry(*partition).or_default() += 1;
            counts
        });
        interleaved += usize::from(per_partition.len() == PARTITIONS as usize);
    }
    assert!(interleaved > 10, "partitions took turns");
}

#[tokio::test]
async fn each_token_names_the_place_behind_its_message_for_the_whole_stream() {
    let (broker, mut client) = Running::with_topic(PARTITIONS).await;
    fill(&mut client).await;
    let mut other = broker.client().await;
    for format in [v1::Format::Records, v1::Format::KafkaBatches, v1::Format::ArrowIpc] {
        check_tokens(&mut client, &mut other, format).await;
    }
    drop((client, other));
    broker.stop().await;
}

#[tokio::test]
async fn a_token_is_good_on_a_broker_that_has_taken_over_and_on_that_which_comes_after_it() {
    let store = Store::new("memory://", Arc::new(MemoryBackend::default()), &StoreOptions::default());
    let start = async || Running::run(Broker::start_on(store.clone(), Config::default()).await.unwrap());
    let first = start().await;
    let mut client = first.client().await;
    client.create(PARTITIONS).await;
    fill(&mut client).await;
    let mut stream = client.open(all()).await.unwrap();
    stream.grant(1 << 40, 7);
    let mut read = BTreeSet::new();
    let mut token = Bytes::new();
    while read.len() < 7 {
        let batch = stream.batch().await;
        read.extend(crate::client::offsets(&batch).into_iter().map(|offset| (batch.partition, offset)));
        token = batch.resume_token;
    }
    // The second takes over while the first still runs, and adds records.
    let second = start().await;
    let mut other = second.client().await;
    for partition in 0..PARTITIONS {
        other.produce_singly(partition, EACH..EACH + 1).await;
    }
    let expected = |read: &BTreeSet<(i32, i64)>| {
        let added = (0..PARTITIONS).map(|partition| (partition, EACH as i64));
        everything().into_iter().chain(added).filter(|place| !read.contains(place)).collect::<BTreeSet<_>>()
    };
    let rest = other.consume_to_the_end(resume(&token)).await;
    assert_eq!(rest.places().into_iter().collect::<BTreeSet<_>>(), expected(&read));
    drop((client, stream, other));
    second.stop().await;

    let third = start().await;
    let mut client = third.client().await;
    let rest = client.consume_to_the_end(resume(&token)).await;
    assert_eq!(rest.places().into_iter().collect::<BTreeSet<_>>(), expected(&read), "read from objects alone");
    let last = rest.batches.last().unwrap().resume_token.clone();
    let nothing = client.consume_to_the_end(resume(&last)).await;
    assert_eq!(nothing.places(), []);
    assert_eq!(nothing.ends.len(), PARTITIONS as usize);
    drop(client);
    third.stop().await;
    drop(first);
}

async fn refused(client: &mut Client, init: v1::ConsumeInit) -> (Code, String) {
    let status = client.refused(init).await;
    (status.code(), reason_of(&status))
}

#[tokio::test]
async fn what_is_no_token_of_this_topic_is_refused() {
    let (broker, mut client) = Running::with_topic(PARTITIONS).await;
    fill(&mut client).await;
    let token = client.consume_to_the_end(all_there_is()).await.batches[0].resume_token.clone();

    let not_a_token = (Code::InvalidArgument, "INVALID_RESUME_TOKEN".to_owned());
    let mut flipped = token.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let mut newer = token.to_vec();
    newer[0] = 2;
    for wrong in [Bytes::from_static(b"?"), token.slice(..20), flipped.into(), newer.into(), vec![1; 1 << 20].into()] {
        assert_eq!(refused(&mut client, resume(&wrong)).await, not_a_token, "{} bytes", wrong.len());
    }
    let invalid = (Code::InvalidArgument, "INVALID_REQUEST".to_owned());
    assert_eq!(refused(&mut client, v1::ConsumeInit { start: earliest(), ..resume(&token) }).await, invalid);
    let partitions = vec![v1::PartitionStart { partition: 0, start: None }];
    assert_eq!(refused(&mut client, v1::ConsumeInit { partitions, ..resume(&token) }).await, invalid);

    let (other, mut stranger) = Running::with_topic(PARTITIONS).await;
    assert_eq!(refused(&mut stranger, resume(&token)).await, not_a_token, "another cluster");
    drop(stranger);
    other.stop().await;

    client.delete().await;
    client.create(PARTITIONS).await;
    assert_eq!(refused(&mut client, resume(&token)).await, (Code::NotFound, "TOPIC_NOT_FOUND".to_owned()));
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn a_place_that_is_no_longer_kept_is_refused_with_what_is() {
    let (broker, mut client) = Running::with_topic(1).await;
    client.produce_singly(0, 0..10).await;
    let mut stream = client.open(all()).await.unwrap();
    let token = stream.heartbeat().await.resume_token;
    drop(stream);
    let partition = PartitionKey::new(broker.topic_id(), PartitionIndex::ZERO);
    broker.rooms.log.change(Change::MoveLogStart { partition, offset: Offset::new(4) }).await.unwrap();
    let status = client.refused(resume(&token)).await;
    assert_eq!(status.code(), Code::OutOfRange);
    let (reason, facts) = reason(&status);
    assert_eq!(reason, "OFFSET_OUT_OF_RANGE");
    assert_eq!((facts["earliest"].as_str(), facts["latest"].as_str()), ("4", "10"));
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn partitions_that_are_added_join_a_stream_of_all_and_its_tokens() {
    let (broker, mut client) = Running::with_topic(1).await;
    client.produce_singly(0, 0..2).await;
    let mut all_of_them = client.consume(all()).await.unwrap();
    let named = vec![v1::PartitionStart { partition: 0, start: earliest() }];
    let mut only_one = client.consume(v1::ConsumeInit { partitions: named, ..all() }).await.unwrap();
    let before = all_of_them.batch().await.resume_token;
    let of_one = only_one.batch().await.resume_token;

    broker.rooms.log.change(Change::AddPartitions { id: broker.topic_id(), partitions: 3 }).await.unwrap();
    client.produce_singly(2, 0..3).await;
    let mut got = 0;
    while got < 3 {
        match all_of_them.next().await.unwrap() {
            Response::Batch(batch) => {
                assert_eq!(batch.partition, 2);
                got += values(&batch).len();
            }
            Response::Heartbeat(heartbeat) => {
                let partitions: Vec<i32> = heartbeat.tails.iter().map(|tail| tail.partition).collect();
                assert!(partitions == [0] || partitions == [0, 1, 2], "{partitions:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    let joined = client.consume_to_the_end(resume(&before)).await;
    let from_two = joined.places().into_iter().filter(|(partition, _)| *partition == 2).count();
    assert_eq!((from_two, joined.ends.len()), (3, 3), "an old token begins with the first record of what was added");
    let named = client.consume_to_the_end(resume(&of_one)).await;
    assert!(named.ends.iter().all(|(partition, _)| *partition == 0), "{named:?}");
    drop((all_of_them, only_one, client));
    broker.stop().await;
}

#[tokio::test]
async fn a_stream_has_a_thousand_partitions_at_most() {
    let (broker, mut client) = Running::with_topic(1001).await;
    let (code, why) = refused(&mut client, all()).await;
    assert_eq!((code, why.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
    let first = |count| (0..count).map(|partition| v1::PartitionStart { partition, start: None }).collect();
    assert_eq!(
        refused(&mut client, v1::ConsumeInit { partitions: first(1001), ..all() }).await.0,
        Code::InvalidArgument
    );
    client.produce_singly(999, 0..1).await;
    let init = v1::ConsumeInit { partitions: first(1000), ..all_there_is() };
    let read = client.consume_to_the_end(init).await;
    assert_eq!((read.places(), read.ends.len()), (vec![(999, 0)], 1000));
    let token = read.batches[0].resume_token.clone();
    assert!(token.len() < 16 << 10, "{}", token.len());
    assert_eq!(client.consume_to_the_end(resume(&token)).await.ends.len(), 1000);
    assert_eq!(
        client
            .fetch(v1::FetchRequest { topic: TOPIC.to_owned(), partition: 1000, ..Default::default() })
            .await
            .unwrap()
            .next_offset,
        0
    );
    drop(client);
    broker.stop().await;
}
