//! What was acknowledged is there after a restart; a fenced broker says so and ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::{FetchRequest, ProduceResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, HeaderVersion};
use lakebed_broker::{Broker, Config, RunError, StartError};
use lakebed_log::Closed;
use lakebed_segment::batch::Codec;
use lakebed_store::faults::{Fault, FaultBackend, Operation, Outcome as Fate, Symptom};
use lakebed_store::{Directory, MemoryBackend, Store, StoreOptions};

use crate::client::{Client, Running, batch, fetch_of, produce_of};
use crate::http::{get, get_from};

fn on(directory: &tempfile::TempDir) -> Config {
    Config { store: format!("file://{}", directory.path().display()).into(), ..Config::default() }
}

#[tokio::test]
async fn a_restart_keeps_topics_records_and_offsets() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Running::start(on(&directory)).await;
    let mut client = broker.client().await;
    let id = client.topic("t").await.topic_id;
    for value in [b"one", b"two"] {
        assert_eq!(client.produce("t", 3, batch(Codec::Zstd, &[value])).await.error_code, 0);
    }
    drop(client);
    broker.stop().await;

    let broker = Running::start(on(&directory)).await;
    let mut client = broker.client().await;
    assert_eq!(client.topic("t").await.topic_id, id);
    let fetched = client.fetch("t", 3, 0).await;
    assert_eq!((fetched.error_code, fetched.high_watermark), (0, 2));
    let records = fetched.records.unwrap();
    for value in [&b"one"[..], b"two"] {
        assert!(records.windows(3).any(|window| window == value), "{value:?}");
    }
    assert_eq!(client.produce("t", 3, batch(Codec::None, &[b"three"])).await.base_offset, 2);
    broker.stop().await;
}

/// How many commits and segments there are.
async fn objects_with_rows(store: &Store) -> usize {
    let listing = store.list(&Directory::root(), None, 1000).await.unwrap();
    assert!(!listing.more);
    let keys = listing.objects.iter().map(|object| object.key.as_str());
    keys.filter(|key| key.contains("/log/") || key.contains("/segments/")).count()
}

#[tokio::test]
async fn a_flush_of_ten_thousand_partitions_is_one_object_and_all_of_them_are_read_back() {
    const PARTITIONS: i32 = 10_000;
    let store = Store::new("memory://", Arc::new(MemoryBackend::default()), &StoreOptions::default());
    let config = Config { default_partitions: PARTITIONS as u32, ..Config::default() };
    let broker = Running::run(Broker::start_on(store.clone(), config).await.unwrap());
    let mut client = broker.client().await;
    assert_eq!(client.topic("wide").await.partitions.len(), PARTITIONS as usize);
    let mut request = produce_of("wide", 0, -1, Bytes::new());
    request.topic_data[0].partition_data = (0..PARTITIONS)
        .map(|index| {
            let value = format!("value {index}");
            PartitionProduceData::default()
                .with_index(index)
                .with_records(Some(batch(Codec::None, &[value.as_bytes()])))
        })
        .collect();
    let before = objects_with_rows(&store).await;
    let answer = client.call(9, &request).await;
    assert_eq!(objects_with_rows(&store).await - before, 1);
    let answered = &answer.responses[0].partition_responses;
    assert_eq!(answered.len(), PARTITIONS as usize);
    assert!(answered.iter().all(|partition| partition.error_code == 0 && partition.base_offset == 0));
    broker.stop().await;

    // A broker that has the objects alone reads each of them.
    let broker = Running::run(Broker::start_on(store, Config::default()).await.unwrap());
    let mut client = broker.client().await;
    for index in (0..PARTITIONS).step_by(97) {
        let records = client.fetch("wide", index, 0).await.records.unwrap();
        let value = format!("value {index}");
        assert!(records.windows(value.len()).any(|window| window == value.as_bytes()), "partition {index}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_broker_whose_store_is_full_ends_in_bounded_time_and_says_that_it_did_not_drain() {
    let (refused, mut was_refused) = tokio::sync::watch::channel(0);
    let full = Arc::new(AtomicBool::new(false));
    let is_full = Arc::clone(&full);
    let faults = move |operation: &Operation<'_>| {
        if !matches!(operation, Operation::Create { .. }) || !is_full.load(Ordering::SeqCst) {
            return Fault::NONE;
        }
        refused.send_modify(|count| *count += 1);
        Fault::at_once(Fate::LostWith(Symptom::Refused))
    };
    let backend = FaultBackend::new(Arc::new(MemoryBackend::default()), faults);
    let store = Store::new("memory://", Arc::new(backend), &StoreOptions::default());
    let broker = Running::run(Broker::start_on(store, Config::default()).await.unwrap());
    let mut client = broker.client().await;
    client.topic("t").await;
    assert_eq!(client.produce("t", 0, batch(Codec::None, &[b"kept"])).await.error_code, 0);
    full.store(true, Ordering::SeqCst);
    client.send(9, &produce_of("t", 0, -1, batch(Codec::None, &[b"waits"]))).await;
    was_refused.wait_for(|count| *count > 1).await.unwrap();
    // From here on only the clock has to move.
    tokio::time::pause();
    broker.stop.send(()).unwrap();
    let ended = broker.ended.await.unwrap().unwrap_err();
    assert!(matches!(ended, RunError::NotDrained), "{ended}");
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Running::start(on(&directory)).await;
    let error = Broker::start(on(&directory)).await.unwrap_err();
    assert!(matches!(error, StartError::Store { .. }), "{error}");
    broker.stop().await;
    Running::start(on(&directory)).await.stop().await;
}

#[tokio::test]
async fn a_broker_that_was_taken_over_acknowledges_nothing_more_and_says_why() {
    let backend = Arc::new(MemoryBackend::default());
    let store = || Store::new("memory://", Arc::clone(&backend) as _, &StoreOptions::default());
    let first = Running::run(Broker::start_on(store(), Config::default()).await.unwrap());
    let mut client = first.client().await;
    client.topic("t").await;
    assert_eq!(client.produce("t", 0, batch(Codec::None, &[b"mine"])).await.error_code, 0);

    let second = Running::run(Broker::start_on(store(), Config::default()).await.unwrap());
    // The next flush of the first finds the takeover: refused with a code that clients retry elsewhere, or cut off.
    client.send(9, &produce_of("t", 0, -1, batch(Codec::None, &[b"lost"]))).await;
    if let Some(mut answer) = client.receive_frame().await {
        ResponseHeader::decode(&mut answer, ProduceResponse::header_version(9)).unwrap();
        let answer = ProduceResponse::decode(&mut answer, 9).unwrap();
        let code = answer.responses[0].partition_responses[0].error_code;
        assert_eq!(code, ResponseError::NotLeaderOrFollower.code());
    }
    let ended = first.ended.await.unwrap().unwrap_err();
    assert!(matches!(ended, RunError::LogClosed(Closed::Fenced { .. })), "{ended}");
    assert_eq!(ended.to_string().lines().count(), 1);

    let mut client = second.client().await;
    assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 1);
    assert_eq!(client.produce("t", 0, batch(Codec::None, &[b"yours"])).await.base_offset, 1);
    second.stop().await;
}

#[tokio::test]
async fn wrong_settings_are_told_before_anything_is_touched() {
    let config = Config { memory_bytes: 0, default_partitions: 0, ..Config::default() };
    let error = Broker::start(config).await.unwrap_err();
    assert!(matches!(&error, StartError::Config { problems } if problems.len() == 2), "{error}");
}

#[tokio::test]
async fn a_quiet_broker_that_was_taken_over_learns_it_while_a_client_is_connected() {
    let backend = Arc::new(MemoryBackend::default());
    let store = || Store::new("memory://", Arc::clone(&backend) as _, &StoreOptions::default());
    let first = Running::run(Broker::start_on(store(), Config::default()).await.unwrap());
    let mut client = first.client().await;
    client.topic("t").await;
    let second = Running::run(Broker::start_on(store(), Config::default()).await.unwrap());
    // Nobody asks the first for anything.
    let ended = first.ended.await.unwrap().unwrap_err();
    assert!(matches!(ended, RunError::LogClosed(Closed::Fenced { .. })), "{ended}");
    assert!(client.is_closed().await);
    second.stop().await;
}

#[tokio::test]
async fn a_broker_that_stops_answers_who_waits_for_records() {
    let broker = Broker::start(Config::default()).await.unwrap();
    let rooms = Arc::clone(broker.rooms());
    let broker = Running::run(broker);
    let mut client = broker.client().await;
    client.topic("t").await;
    let sent = client.send(12, &fetch_of("t", 0, 0, i32::MAX)).await;
    while rooms.fetch.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    drop(rooms);
    broker.stop().await;
    let (received, answer) = client.receive::<FetchRequest>(12).await;
    assert_eq!((received, answer.error_code), (sent, 0));
    let partition = &answer.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.high_watermark), (0, 0));
    assert!(client.is_closed().await);
}

/// What became of the one batch of a Produce request in version 9.
async fn answered(client: &mut Client) -> i16 {
    let mut answer = client.receive_frame().await.expect("an answer, and no closed connection");
    ResponseHeader::decode(&mut answer, ProduceResponse::header_version(9)).unwrap();
    ProduceResponse::decode(&mut answer, 9).unwrap().responses[0].partition_responses[0].error_code
}

#[tokio::test]
async fn producers_that_are_held_when_the_broker_stops_are_answered() {
    const VALUE_BYTES: usize = 300_000;
    let full = Arc::new(AtomicBool::new(false));
    let is_full = Arc::clone(&full);
    let faults = move |operation: &Operation<'_>| match operation {
        Operation::Create { .. } if is_full.load(Ordering::SeqCst) => Fault::at_once(Fate::LostWith(Symptom::Refused)),
        _ => Fault::NONE,
    };
    let backend = FaultBackend::new(Arc::new(MemoryBackend::default()), faults);
    let store = Store::new("memory://", Arc::new(backend), &StoreOptions::default());
    let config = Config { memory_bytes: 64 << 20, ..Config::default() };
    let broker = Broker::start_on(store, config).await.unwrap();
    let rooms = Arc::clone(broker.rooms());
    let broker = Running::run(broker);
    broker.client().await.topic("t").await;
    full.store(true, Ordering::SeqCst);
    // One after another, until there is no room for the next.
    let mut producers = Vec::new();
    let mut each_bytes = 0;
    loop {
        let free_bytes = rooms.ingest.free_bytes();
        let mut client = broker.client().await;
        client.send(9, &produce_of("t", 0, -1, batch(Codec::None, &[&[7; VALUE_BYTES]]))).await;
        producers.push(client);
        let arrived =
            format!("lakebed_kafka_requests_total{{request=\"Produce\",version=\"9\"}} {}\n", producers.len());
        while !get(&broker, "/metrics").await.contains(&arrived) {
            tokio::task::yield_now().await;
        }
        if free_bytes < each_bytes {
            break;
        }
        while rooms.ingest.free_bytes() == free_bytes {
            tokio::task::yield_now().await;
        }
        each_bytes = free_bytes - rooms.ingest.free_bytes();
    }
    drop(rooms);
    let Running { http, stop, ended, .. } = broker;
    stop.send(()).unwrap();
    // The broker says that it stops, for as long as that takes.
    let mut told = String::new();
    while !told.contains("SHUTTING_DOWN") {
        told = get_from(http, "/readyz").await;
    }
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert!(get_from(http, "/metrics").await.contains("lakebed_not_ready{reason=\"SHUTTING_DOWN\"} 1.0\n"));
    full.store(false, Ordering::SeqCst);
    let (mut done, mut refused) = (0, 0);
    for client in &mut producers {
        match answered(client).await {
            0 => done += 1,
            code if code == ResponseError::NotLeaderOrFollower.code() => refused += 1,
            code => panic!("code {code}"),
        }
    }
    assert_eq!((done, refused), (producers.len() - 1, 1));
    ended.await.unwrap().unwrap();
}
