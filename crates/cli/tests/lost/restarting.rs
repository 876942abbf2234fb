//! Producers and consumers while the broker ends and comes back at the same port, on a directory.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use lakebed_client::{Client, ClientError, Message, Start, Stored};
use lakebed_wire::v1;

use crate::broker::{Broker, eager, text, values};

const RECORDS: usize = 240;
/// The broker is ended when so many more are acknowledged.
const BETWEEN: usize = 60;

/// How the broker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    Stop,
}

/// Sends records while the broker ends and comes back, and follows them; answers what became of each, what the consumer got, and what is there.
async fn through(
    end: End,
    of: impl Fn(&Client) -> lakebed_client::ProducerBuilder,
) -> (Vec<Result<Stored, ClientError>>, Vec<String>, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(&format!("file://{}", directory.path().display()));
    let client = Client::connect(&broker.address).await.unwrap();
    client.create_topic("t", Some(1), BTreeMap::new()).await.unwrap();
    let consumer = client.consumer("t", Start::Earliest).retry(eager()).open().await.unwrap();
    let follow = tokio::spawn(async move {
        let mut seen = Vec::new();
        let mut records = consumer.records();
        while seen.last().is_none_or(|last| last != "end") {
            let (_, record) = records.next().await.unwrap().unwrap();
            assert_eq!(record.offset, Some(seen.len() as i64), "each once, in order");
            seen.push(text(record.value));
        }
        seen
    });
    let producer = of(&client).batch_records(5).in_flight_batches(4).retry(eager()).open().await.unwrap();
    let mut outcomes = Vec::new();
    let mut waiting = std::collections::VecDeque::new();
    for number in 0..RECORDS {
        waiting.push_back(producer.send(Message::new(number.to_string())).await.unwrap());
        if waiting.len() >= 20 {
            outcomes.push(waiting.pop_front().unwrap().await);
        }
        // Some of them are on their way.
        if number % BETWEEN == BETWEEN / 2 {
            match end {
                End::Kill => broker.kill(),
                End::Stop => broker.stop(),
            }
            broker.start_again();
        }
    }
    for ack in waiting {
        outcomes.push(ack.await);
    }
    drop(producer.close().await);
    let direct = Client::connect(&broker.address).await.unwrap();
    let end = v1::Record { value: Some("end".into()), ..v1::Record::default() };
    direct.produce("t", Some(0), vec![end]).await.unwrap();
    let seen = follow.await.unwrap();
    let there = values(&direct, "t", 0).await;
    (outcomes, seen, there)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_drains_leaves_nothing_of_unknown_fate() {
    let (outcomes, seen, there) = through(End::Stop, |client| client.producer("t")).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        let stored = outcome.as_ref().unwrap_or_else(|error| panic!("{number}: {error:?}"));
        assert_eq!(stored.offset, number as i64);
    }
    let expected: Vec<String> = (0..RECORDS).map(|number| number.to_string()).chain(["end".to_owned()]).collect();
    assert_eq!(there, expected);
    assert_eq!(seen, there, "the consumer got what is there, once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_nothing_acknowledged_and_the_unknown_is_told() {
    let (outcomes, seen, there) = through(End::Kill, |client| client.producer("t")).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(stored) => assert_eq!(there[usize::try_from(stored.offset).unwrap()], number.to_string()),
            Err(error) => assert!(error.may_have_happened(), "{number}: {error:?}"),
        }
    }
    assert_eq!(there.iter().collect::<BTreeSet<_>>().len(), there.len(), "nothing is there twice");
    assert_eq!(seen, there, "the consumer got what is there, once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sole_writer_outlives_killed_brokers_exactly_once() {
    let (outcomes, seen, there) = through(End::Kill, |client| client.producer("t").sole_writer(true)).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        let stored = outcome.as_ref().unwrap_or_else(|error| panic!("{number}: {error:?}"));
        assert_eq!(stored.offset, number as i64);
    }
    let expected: Vec<String> = (0..RECORDS).map(|number| number.to_string()).chain(["end".to_owned()]).collect();
    assert_eq!(there, expected);
    assert_eq!(seen, there);
}
