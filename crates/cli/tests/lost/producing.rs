//! A producer whose connection is cut.

use std::collections::BTreeMap;

use lakebed_client::{Client, ClientError, Message, ProducerBuilder, Stored};

use crate::broker::{Broker, eager, values};
use crate::proxy::{Cut, Direction, Proxy, positions};

const PARTITIONS: i32 = 2;
const RECORDS: i32 = 40;
/// Positions in each direction of one exchange.
const POSITIONS: u64 = 300;

/// Sends the records `0..RECORDS` by turns to the partitions, in batches of three; answers what became of each.
async fn send(producer: ProducerBuilder, in_flight: usize) -> Result<Vec<Result<Stored, ClientError>>, ClientError> {
    let producer = producer.batch_records(3).in_flight_batches(in_flight).retry(eager()).open().await?;
    let mut acks = Vec::new();
    for number in 0..RECORDS {
        let message = Message::new(format!("{number}")).partition(number % PARTITIONS);
        acks.push(producer.send(message).await?);
    }
    // What fails is told by the acknowledgements.
    drop(producer.flush().await);
    let mut outcomes = Vec::new();
    for ack in acks {
        outcomes.push(ack.await);
    }
    drop(producer.close().await);
    Ok(outcomes)
}

/// Where each value stands in the partitions.
async fn places(client: &Client, topic: &str) -> BTreeMap<i32, Vec<Stored>> {
    let mut places: BTreeMap<i32, Vec<Stored>> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for (offset, value) in (0..).zip(values(client, topic, partition).await) {
            let stored = Stored { partition, offset, log_append_time: None };
            places.entry(value.parse().unwrap()).or_default().push(stored);
        }
    }
    places
}

/// What holds in any case: what is acknowledged stands where it was said to, in the order in which it was sent.
fn check(places: &BTreeMap<i32, Vec<Stored>>, outcomes: &[Result<Stored, ClientError>], place: &str) {
    let mut last = BTreeMap::new();
    for (number, outcome) in (0..).zip(outcomes) {
        let found = places.get(&number).map_or(&[][..], Vec::as_slice);
        match outcome {
            Ok(stored) => {
                assert!(
                    found.contains(stored),
                    "{place}: {number} is acknowledged at {stored:?}, and stands at {found:?}"
                );
                let before = last.insert(stored.partition, stored.offset);
                assert!(before < Some(stored.offset), "{place}: {number} comes before what was sent before it");
            }
            Err(error) => assert!(
                error.may_have_happened() || found.is_empty(),
                "{place}: {number} is told not to be stored ({error}), and stands at {found:?}"
            ),
        }
    }
}

/// Runs an exchange once for each position in each direction; `of` makes the producer, `also` checks what holds beside.
async fn cut_everywhere(
    name: &str,
    of: impl Fn(&Client, &str) -> ProducerBuilder,
    also: impl Fn(&BTreeMap<i32, Vec<Stored>>, &[Result<Stored, ClientError>], &str),
) -> Vec<Result<Stored, ClientError>> {
    let broker = Broker::start("memory://");
    let direct = Client::connect(&broker.address).await.unwrap();
    direct.create_topic(name, Some(PARTITIONS), BTreeMap::new()).await.unwrap();
    let whole = Proxy::start(&broker.address, None).await;
    let client = Client::connect(&whole.address).await.unwrap();
    let outcomes = send(of(&client, name), 4).await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok), "nothing fails where nothing is cut");
    also(&places(&direct, name).await, &outcomes, "uncut");
    let mut all = Vec::new();
    let mut cut = 0;
    for direction in [Direction::ToBroker, Direction::ToClient] {
        for after_bytes in positions(whole.bytes(direction), POSITIONS) {
            let topic = format!("{name}-{direction:?}-{after_bytes}");
            direct.create_topic(&topic, Some(PARTITIONS), BTreeMap::new()).await.unwrap();
            let proxy = Proxy::start(&broker.address, Some(Cut { direction, after_bytes, connections: 3 })).await;
            // The connection of the client itself may be cut, or the one on which the stream is opened: then nothing was sent.
            let outcomes = match Client::connect(&proxy.address).await {
                Ok(client) => send(of(&client, &topic), 4).await.unwrap_or_default(),
                Err(_) => Vec::new(),
            };
            let places = places(&direct, &topic).await;
            check(&places, &outcomes, &topic);
            if !outcomes.is_empty() {
                also(&places, &outcomes, &topic);
                cut += u64::from(proxy.connections() > 2);
            }
            all.extend(outcomes);
        }
    }
    assert!(cut > POSITIONS / 4, "streams were lost and opened again, {cut} times");
    all
}

fn once(places: &BTreeMap<i32, Vec<Stored>>, place: &str) {
    for (number, found) in places {
        assert_eq!(found.len(), 1, "{place}: {number} stands at {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_is_cut_off_says_of_each_record_whether_it_is_stored_or_may_be() {
    let outcomes =
        cut_everywhere("told", |client, topic| client.producer(topic), |places, _, place| once(places, place)).await;
    let (mut stored, mut unknown) = (0, 0);
    for outcome in outcomes {
        match outcome {
            Ok(_) => stored += 1,
            Err(error) => {
                assert!(error.may_have_happened(), "what is not stored is sent again: {error}");
                unknown += 1;
            }
        }
    }
    assert!(stored > 0 && unknown > 0, "{stored} stored, {unknown} unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_least_once_stores_all_and_doubles_only_what_was_of_unknown_fate() {
    let outcomes = cut_everywhere(
        "at-least-once",
        |client, topic| client.producer(topic).retry_unknown(true),
        |places, outcomes, place| {
            assert_eq!(places.len(), outcomes.len(), "{place}: nothing is lost");
            assert!(outcomes.iter().all(Result::is_ok), "{place}: {outcomes:?}");
        },
    )
    .await;
    assert!(!outcomes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sole_writer_stores_each_record_once_in_order_wherever_it_is_cut_off() {
    cut_everywhere(
        "sole",
        |client, topic| client.producer(topic).sole_writer(true),
        |places, outcomes, place| {
            once(places, place);
            assert_eq!(places.len(), outcomes.len(), "{place}: nothing is lost");
            for (number, outcome) in (0..).zip(outcomes) {
                let expected = Stored {
                    partition: number % PARTITIONS,
                    offset: i64::from(number / PARTITIONS),
                    log_append_time: None,
                };
                assert_eq!(outcome.as_ref().ok(), Some(&expected), "{place}: {number}");
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_all_cut_still_bring_everything_there() {
    let broker = Broker::start("memory://");
    let direct = Client::connect(&broker.address).await.unwrap();
    direct.create_topic("idle", Some(PARTITIONS), BTreeMap::new()).await.unwrap();
    let idle = Proxy::start(&broker.address, None).await;
    let client = Client::connect(&idle.address).await.unwrap();
    client.producer("idle").open().await.unwrap().close().await.unwrap();
    for direction in [Direction::ToBroker, Direction::ToClient] {
        // A little more than it takes to open a stream.
        for more in [40, 111, 222] {
            let after_bytes = idle.bytes(direction) + more;
            let topic = format!("all-{direction:?}-{after_bytes}");
            direct.create_topic(&topic, Some(PARTITIONS), BTreeMap::new()).await.unwrap();
            let proxy =
                Proxy::start(&broker.address, Some(Cut { direction, after_bytes, connections: u64::MAX })).await;
            let client = Client::connect(&proxy.address).await.unwrap();
            // One at a time: with more, all that gets through could be without its answer each time.
            let outcomes = send(client.producer(&topic).retry_unknown(true), 1).await.unwrap();
            let places = places(&direct, &topic).await;
            check(&places, &outcomes, &topic);
            assert!(outcomes.iter().all(Result::is_ok) && places.len() == outcomes.len(), "{topic}: {outcomes:?}");
            // That of the client, one that was cut, and one more at least.
            assert!(proxy.connections() > 2, "{topic}: {} connections", proxy.connections());
        }
    }
}
