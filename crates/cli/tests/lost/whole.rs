//! What producers and consumers do while nothing is cut: batches, bounds, partitions, errors, formats.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lakebed_client::{Client, ClientError, Message, Payload, Producer, Start, Stop, partition_for_key};
use lakebed_wire::v1;

use crate::broker::{Broker, eager, values};
use crate::proxy::Proxy;

/// Long enough that only what is full or flushed is sent.
const FOR_EVER: Duration = Duration::from_secs(3600);

async fn topic(broker: &Broker, name: &str, partitions: i32) -> Client {
    let client = Client::connect(&broker.address).await.unwrap();
    client.create_topic(name, Some(partitions), BTreeMap::new()).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_where_their_keys_say_and_by_turns_without_one() {
    let broker = Broker::start("memory://");
    let client = topic(&broker, "t", 4).await;
    let producer = client.producer("t").linger(FOR_EVER).batch_records(2).open().await.unwrap();
    let mut acks = Vec::new();
    for number in 0..16_u8 {
        let key = format!("key {}", number % 8);
        acks.push((Some(key.clone()), producer.send(Message::new("x").key(key)).await.unwrap()));
    }
    for _ in 0..8 {
        acks.push((None, producer.send(Message::new("x")).await.unwrap()));
    }
    producer.flush().await.unwrap();
    let mut turns = Vec::new();
    for (key, ack) in acks {
        let stored = ack.await.unwrap();
        match key {
            Some(key) => assert_eq!(u32::try_from(stored.partition), Ok(partition_for_key(key.as_bytes(), 4)), "{key}"),
            None => turns.push(stored.partition),
        }
    }
    assert_eq!(turns.iter().collect::<BTreeSet<_>>().len(), 4, "each has its turn: {turns:?}");
    assert!(turns.windows(2).any(|pair| pair[0] == pair[1]), "those of a batch stay together: {turns:?}");
    assert_eq!(producer.acknowledged(), 24);
    producer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_sent_when_its_time_has_come_or_it_is_flushed() {
    let broker = Broker::start("memory://");
    let client = topic(&broker, "t", 1).await;
    let patient = client.producer("t").linger(FOR_EVER).open().await.unwrap();
    let mut waiting = patient.send(Message::new("flushed")).await.unwrap();
    let quick = client.producer("t").linger(Duration::from_millis(1)).open().await.unwrap();
    quick.send(Message::new("quick")).await.unwrap().await.unwrap();
    assert!(futures::poll!(&mut waiting).is_pending(), "nobody has asked for it");
    patient.flush().await.unwrap();
    assert_eq!(waiting.await.unwrap().offset, 1);
    // Dropped without a word: what was sent is delivered all the same.
    let last = patient.send(Message::new("dropped")).await.unwrap();
    drop(patient);
    assert_eq!(last.await.unwrap().offset, 2);
    assert_eq!(values(&client, "t", 0).await, ["quick", "flushed", "dropped"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_takes_no_more_than_its_room_until_something_is_answered() {
    let broker = Broker::start("memory://");
    let client = topic(&broker, "t", 1).await;
    let producer = client.producer("t").linger(FOR_EVER).buffer_bytes(10_000).open().await.unwrap();
    let mut sent = 0;
    let waits = loop {
        let mut send = Box::pin(send_owned(producer.clone()));
        // Only the room is waited for: the driver takes what is sent.
        match futures::poll!(&mut send) {
            std::task::Poll::Ready(()) => sent += 1,
            std::task::Poll::Pending => break send,
        }
        assert!(sent < 10, "10,000 bytes have no room for ten records of a thousand");
    };
    assert_eq!(sent, 9);
    producer.flush().await.unwrap();
    waits.await;
    producer.close().await.unwrap();
    assert_eq!(values(&client, "t", 0).await.len(), 10);
}

async fn send_owned(producer: Producer) {
    drop(producer.send(Message::new(vec![b'x'; 1000])).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_refused_does_not_take_others_with_it() {
    let broker = Broker::start("memory://");
    let client = topic(&broker, "t", 2).await;
    let producer = client.producer("t").batch_records(1).open().await.unwrap();
    let mut acks = Vec::new();
    let large = Bytes::from(vec![b'x'; 3 << 20]);
    let nowhere = Message::new("nowhere").partition(7);
    let negative = Message::new("negative").partition(0).timestamp_ms(-5);
    let messages = [
        Message::new("a").partition(0),
        Message::new(large).partition(0),
        nowhere,
        negative,
        Message::new("b").partition(0),
    ];
    for message in messages {
        acks.push(producer.send(message).await.unwrap());
    }
    let error = producer.flush().await.unwrap_err();
    assert_eq!(error.reason(), "MESSAGE_TOO_LARGE", "the first failure");
    producer.flush().await.unwrap();
    let mut outcomes = Vec::new();
    for ack in acks {
        outcomes.push(match ack.await {
            Ok(stored) => format!("{}", stored.offset),
            Err(error) => {
                assert!(!error.may_have_happened() && !error.is_retriable(), "{error}");
                error.reason().to_owned()
            }
        });
    }
    assert_eq!(outcomes, ["0", "MESSAGE_TOO_LARGE", "PARTITION_NOT_FOUND", "INVALID_TIMESTAMP", "1"]);
    let clone = producer.clone();
    producer.close().await.unwrap();
    assert!(matches!(clone.send(Message::new("c")).await, Err(ClientError::Closed)));
    let missing = client.producer("nobody").open().await.unwrap_err();
    assert_eq!(missing.reason(), "TOPIC_NOT_FOUND");
    client.delete_topic("t").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_tried_in_turn_also_when_the_one_in_use_is_lost() {
    let broker = Broker::start("memory://");
    topic(&broker, "t", 1).await;
    let nobody = Client::builder().address("127.0.0.1:1").address("127.0.0.1:2").connect().await.unwrap_err();
    assert!(nobody.to_string().starts_with("no connection to 127.0.0.1:1,127.0.0.1:2: "), "{nobody}");
    assert!(Client::builder().connect().await.is_err() && Client::connect("not an address").await.is_err());
    let (first, second) = (Proxy::start(&broker.address, None).await, Proxy::start(&broker.address, None).await);
    let client = Client::builder().address("127.0.0.1:1").address(&first.address).address(&second.address);
    let client =
        client.connect_timeout(Duration::from_secs(5)).call_timeout(Duration::from_secs(30)).connect().await.unwrap();
    let producer = client.producer("t").retry(eager()).open().await.unwrap();
    let mut records = client.consumer("t", Start::Earliest).retry(eager()).open().await.unwrap().records();
    producer.send(Message::new("first")).await.unwrap().await.unwrap();
    records.next().await.unwrap().unwrap();
    assert!(first.connections() > 0 && second.connections() == 0);
    drop(first);
    producer.send(Message::new("second")).await.unwrap().await.unwrap();
    let (_, record) = records.next().await.unwrap().unwrap();
    assert_eq!(record.value.as_deref(), Some(&b"second"[..]));
    assert!(second.connections() >= 2, "the producer's and the consumer's");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_comes_whole_through_a_small_window() {
    let broker = Broker::start("memory://");
    let client = topic(&broker, "t", 2).await;
    let producer = client.producer("t").batch_bytes(16 << 10).open().await.unwrap();
    for number in 0..4000 {
        let message = Message::new(vec![b'v'; 500]).key(format!("{number}")).header("h", "1");
        drop(producer.send(message).await.unwrap());
    }
    producer.close().await.unwrap();
    let stop = Stop { latest: true, ..Stop::default() };
    for format in [v1::Format::Records, v1::Format::KafkaBatches, v1::Format::ArrowIpc] {
        let consumer = client.consumer("t", Start::Earliest).format(format).window_bytes(20_000).stop(stop);
        let mut consumer = consumer.open().await.unwrap();
        let mut next = BTreeMap::new();
        let mut batches = 0;
        while let Some(batch) = consumer.next().await {
            let batch = batch.unwrap();
            next.insert(batch.partition, batch.next_offset);
            batches += 1;
        }
        assert_eq!(next.values().sum::<i64>(), 4000, "{format:?}");
        assert!(batches > 50, "{format:?}: a window of 20,000 bytes takes many turns, not {batches}");
        assert!(consumer.tails().values().all(|tail| tail.ended && tail.next_offset == tail.high_watermark));
    }
    let values_only = client.consumer("t", Start::Earliest).partition(1).fields([v1::RecordField::Value]).stop(stop);
    let mut values_only = values_only.open().await.unwrap();
    while let Some(batch) = values_only.next().await {
        let Payload::Records(records) = batch.unwrap().payload else { panic!("no records") };
        assert!(
            records.iter().all(|record| record.key.is_none() && record.headers.is_empty() && record.value.is_some())
        );
        assert!(records.iter().all(|record| record.offset.is_some() && record.timestamp.is_none()));
    }
    let batches = client.consumer("t", Start::Earliest).format(v1::Format::KafkaBatches).open().await.unwrap();
    let error = batches.records().next().await.unwrap().unwrap_err();
    assert_eq!(error.reason(), "INVALID_REQUEST", "batches are no records");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_on_behind_the_batch_that_it_came_with() {
    let broker = Broker::start("memory://");
    let client = topic(&broker, "t", 3).await;
    for number in 0..30 {
        client
            .produce(
                "t",
                Some(number % 3),
                vec![v1::Record { value: Some(format!("{number}").into()), ..v1::Record::default() }],
            )
            .await
            .unwrap();
    }
    let mut first = client.consumer("t", Start::Earliest).window_bytes(1).open().await.unwrap();
    let mut seen = Vec::new();
    let mut token = Bytes::new();
    for _ in 0..5 {
        let batch = first.next().await.unwrap().unwrap();
        let Payload::Records(records) = batch.payload else { panic!("no records") };
        seen.extend(records.into_iter().map(|record| (batch.partition, record.offset)));
        token = batch.resume_token;
    }
    // What it has read ahead is not behind the token.
    assert_eq!(first.resume_token(), token);
    let stop = Stop { latest: true, ..Stop::default() };
    let mut rest = client.consumer("t", Start::Latest).resume(token).stop(stop).open().await.unwrap().records();
    while let Some(record) = rest.next().await {
        let (partition, record) = record.unwrap();
        seen.push((partition, record.offset));
    }
    let expected: Vec<_> = (0..3).flat_map(|partition| (0..10).map(move |offset| (partition, Some(offset)))).collect();
    seen.sort_unstable();
    assert_eq!(seen, expected, "each once");
    let wrong = client.consumer("t", Start::Latest).resume("no token").open().await.err().unwrap();
    assert_eq!(wrong.reason(), "INVALID_RESUME_TOKEN");
}
