//! A consumer whose connection is cut.

use std::collections::BTreeMap;

use futures::StreamExt;
use lakebed_client::{Batch, Client, ClientError, Consumer, Payload, Retry, Start, Stop};
use lakebed_wire::v1;

use crate::broker::{Broker, eager, text};
use crate::proxy::{Cut, Direction, Proxy, positions};

const PARTITIONS: i32 = 3;
const RECORDS: i64 = 50;
const POSITIONS: u64 = 300;
const TOPIC: &str = "read";

/// A topic with so many records in each partition; each says where it is.
async fn fill(client: &Client) {
    client.create_topic(TOPIC, Some(PARTITIONS), BTreeMap::new()).await.unwrap();
    for partition in 0..PARTITIONS {
        // Several batches, so that there are places to go on at.
        for begin in (0..RECORDS).step_by(10) {
            let record = |offset| v1::Record {
                value: Some(format!("{partition}/{offset}").into()),
                headers: vec![v1::Header { key: "padding".to_owned(), value: Some("x".repeat(60).into()) }],
                ..v1::Record::default()
            };
            client.produce(TOPIC, Some(partition), (begin..begin + 10).map(record).collect()).await.unwrap();
        }
    }
}

/// Reads all; asserts that each record comes once, in order.
async fn read_all(mut consumer: Consumer, place: &str) {
    let mut next: BTreeMap<i32, i64> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    while next.values().any(|next| *next < RECORDS) {
        let batch =
            consumer.next().await.expect("it goes on for ever").unwrap_or_else(|error| panic!("{place}: {error}"));
        check(&batch, &mut next, place);
    }
}

fn check(batch: &Batch, next: &mut BTreeMap<i32, i64>, place: &str) {
    let Payload::Records(records) = &batch.payload else { panic!("{place}: no records") };
    let next = next.get_mut(&batch.partition).unwrap();
    for record in records {
        assert_eq!(record.offset, Some(*next), "{place}: partition {}", batch.partition);
        assert_eq!(text(record.value.clone()), format!("{}/{next}", batch.partition), "{place}");
        *next += 1;
    }
    assert_eq!(batch.next_offset, *next, "{place}");
}

async fn open(client: &Client) -> Result<Consumer, ClientError> {
    // So small that credit is granted all the time.
    client.consumer(TOPIC, Start::Earliest).window_bytes(1500).retry(eager()).open().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_cut_off_anywhere_gets_every_record_once_in_order() {
    let broker = Broker::start("memory://");
    let direct = Client::connect(&broker.address).await.unwrap();
    fill(&direct).await;
    let whole = Proxy::start(&broker.address, None).await;
    let client = Client::connect(&whole.address).await.unwrap();
    read_all(open(&client).await.unwrap(), "uncut").await;
    let mut resumed = 0;
    for direction in [Direction::ToBroker, Direction::ToClient] {
        for after_bytes in positions(whole.bytes(direction), POSITIONS) {
            let place = format!("{direction:?} after {after_bytes} bytes");
            let proxy = Proxy::start(&broker.address, Some(Cut { direction, after_bytes, connections: 3 })).await;
            // The first connection may be cut before there is a stream: that is told, and nothing was read.
            let Ok(client) = Client::connect(&proxy.address).await else { continue };
            let Ok(consumer) = open(&client).await else { continue };
            read_all(consumer, &place).await;
            resumed += u64::from(proxy.connections() > 2);
        }
    }
    assert!(resumed > POSITIONS / 4, "streams were lost and resumed, {resumed} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_all_cut_still_bring_every_record_once() {
    let broker = Broker::start("memory://");
    let direct = Client::connect(&broker.address).await.unwrap();
    fill(&direct).await;
    for after_bytes in [2600, 3333, 4100, 5000] {
        let cut = Cut { direction: Direction::ToClient, after_bytes, connections: u64::MAX };
        let proxy = Proxy::start(&broker.address, Some(cut)).await;
        let client = Client::connect(&proxy.address).await.unwrap();
        read_all(open(&client).await.unwrap(), &format!("after {after_bytes} bytes")).await;
        assert!(proxy.connections() > 3, "{} connections after {after_bytes} bytes", proxy.connections());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_hold_over_lost_connections() {
    let broker = Broker::start("memory://");
    let direct = Client::connect(&broker.address).await.unwrap();
    fill(&direct).await;
    let total = u64::try_from(RECORDS).unwrap() * u64::try_from(PARTITIONS).unwrap();
    let bounds = [
        (Stop { latest: true, ..Stop::default() }, total),
        (Stop { offset: Some(20), ..Stop::default() }, 20 * u64::try_from(PARTITIONS).unwrap()),
        (Stop { records: Some(77), ..Stop::default() }, 77),
    ];
    for (stop, expected) in bounds {
        for after_bytes in [2600, 4000, 5003] {
            let place = format!("{stop:?} after {after_bytes} bytes");
            let cut = Cut { direction: Direction::ToClient, after_bytes, connections: 4 };
            let proxy = Proxy::start(&broker.address, Some(cut)).await;
            let client = Client::connect(&proxy.address).await.unwrap();
            let consumer =
                client.consumer(TOPIC, Start::Earliest).window_bytes(1500).retry(eager()).stop(stop).open().await;
            let mut consumer = consumer.unwrap();
            let mut next: BTreeMap<i32, i64> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
            while let Some(batch) = consumer.next().await {
                check(&batch.unwrap_or_else(|error| panic!("{place}: {error}")), &mut next, &place);
            }
            let read: i64 = next.values().sum();
            assert_eq!(u64::try_from(read), Ok(expected), "{place}: {next:?}");
            assert!(proxy.connections() > 2, "{place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_and_a_pause_outlive_the_connection() {
    let broker = Broker::start("memory://");
    let direct = Client::connect(&broker.address).await.unwrap();
    fill(&direct).await;
    for after_bytes in (300..6000).step_by(67) {
        let place = format!("after {after_bytes} bytes");
        let cut = Cut { direction: Direction::ToClient, after_bytes, connections: 3 };
        let proxy = Proxy::start(&broker.address, Some(cut)).await;
        let Ok(client) = Client::connect(&proxy.address).await else { continue };
        let builder = client.consumer(TOPIC, Start::Latest).window_bytes(1500).retry(eager());
        let Ok(mut consumer) = builder.open().await else { continue };
        consumer.pause(&[2], true).await.unwrap();
        for partition in 0..PARTITIONS {
            consumer.seek(partition, Start::Offset(30)).await.unwrap();
        }
        let mut next: BTreeMap<i32, i64> = (0..PARTITIONS).map(|partition| (partition, 30)).collect();
        while next[&0] < RECORDS || next[&1] < RECORDS {
            let batch = consumer.next().await.unwrap().unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_ne!(batch.partition, 2, "{place}: it is paused");
            check(&batch, &mut next, &place);
        }
        consumer.pause(&[2], false).await.unwrap();
        while next[&2] < RECORDS {
            let batch = consumer.next().await.unwrap().unwrap_or_else(|error| panic!("{place}: {error}"));
            check(&batch, &mut next, &place);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_that_does_not_pass_is_told_and_ends_the_stream() {
    let mut broker = Broker::start("memory://");
    let client = Client::connect(&broker.address).await.unwrap();
    fill(&client).await;
    let missing = client.consumer("nobody", Start::Earliest).open().await.err().unwrap();
    assert_eq!(missing.reason(), "TOPIC_NOT_FOUND");
    let mut beyond = client.consumer(TOPIC, Start::Earliest).open().await.unwrap();
    beyond.seek(0, Start::Offset(1000)).await.unwrap();
    let error = loop {
        match beyond.next().await.expect("an error comes before the end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), "OFFSET_OUT_OF_RANGE");
    assert!(beyond.next().await.is_none(), "an error is the end");
    // The broker goes for good: that is told after the time for it.
    let retry = Retry { give_up_after: std::time::Duration::from_millis(200), ..eager() };
    let mut left = client.consumer(TOPIC, Start::Latest).retry(retry).open().await.unwrap();
    broker.kill();
    let error = left.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::NotConnected { .. }), "{error:?}");
    assert!(left.next().await.is_none());
}
