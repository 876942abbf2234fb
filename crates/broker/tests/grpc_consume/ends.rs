//! How streams end that do not end by themselves.

use std::sync::Arc;

use lakebed_broker::{Broker, Config, RunError};
use lakebed_store::{Directory, MemoryBackend, Payload, Store, StoreOptions};
use lakebed_wire::v1;
use tonic::Code;

use crate::client::{Running, all, all_there_is, offsets, reason, reason_of};

#[tokio::test]
async fn a_broker_that_stops_tells_streams_to_go_also_those_without_credit() {
    let (broker, mut client) = Running::with_topic(1).await;
    client.produce_singly(0, 0..3).await;
    let mut without_credit = client.open(all()).await.unwrap();
    without_credit.heartbeat().await;
    let mut idle = client.consume(all()).await.unwrap();
    let mut read = 0;
    idle.heartbeat().await;
    while read < 3 {
        read += offsets(&idle.batch().await).len();
    }
    let mut paused = client.open(all()).await.unwrap();
    paused.heartbeat().await;
    paused.pause(&[], true);
    let ended = broker.ask_to_stop();
    for mut stream in [without_credit, idle, paused] {
        let status = stream.failure().await;
        assert_eq!((status.code(), reason_of(&status).as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
    }
    ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_waits_for_the_head_of_the_answer_before_it_speaks_is_served() {
    let (broker, mut client) = Running::with_topic(1).await;
    let mut stream = client.open_silently().await;
    stream.say(v1::consume_request::Request::Init(all()));
    stream.heartbeat().await;
    drop((client, stream));
    broker.stop().await;
}

#[tokio::test]
async fn a_broker_that_stops_does_not_wait_for_a_client_that_does_not_read() {
    let (broker, mut client) = Running::with_topic(1).await;
    for _ in 0..16 {
        client.produce(0, (0..10).map(|_| vec![b'v'; 100_000])).await;
    }
    let mut own = broker.client().await;
    let mut stuck = own.consume(all()).await.unwrap();
    stuck.heartbeat().await;
    drop(client);
    broker.ask_to_stop().await.unwrap().unwrap();
    // It finds what was on its way, and then that the broker has gone.
    let status = stuck.failure().await;
    assert!(status.code() != Code::Ok, "{status:?}");
}

#[tokio::test]
async fn a_fenced_broker_ends_its_streams_and_says_why() {
    let store = Store::new("memory://", Arc::new(MemoryBackend::default()), &StoreOptions::default());
    let first = Running::run(Broker::start_on(store.clone(), Config::default()).await.unwrap());
    let mut client = first.client().await;
    client.create(1).await;
    let mut stream = client.open(all()).await.unwrap();
    stream.heartbeat().await;
    let second = Running::run(Broker::start_on(store, Config::default()).await.unwrap());
    // The first learns of the takeover by its next write.
    let write = v1::CreateTopicRequest { name: "another".to_owned(), ..Default::default() };
    client.call::<_, v1::CreateTopicResponse>("/lakebed.v1.AdminService/CreateTopic", write).await.unwrap_err();
    let status = stream.failure().await;
    assert_eq!((status.code(), reason_of(&status).as_str()), (Code::Unavailable, "FENCED"));
    assert!(matches!(first.ended.await.unwrap(), Err(RunError::LogClosed(_))));
    drop(client);
    second.stop().await;
}

#[tokio::test]
async fn a_topic_that_is_deleted_ends_its_streams() {
    let (broker, mut client) = Running::with_topic(1).await;
    client.produce_singly(0, 0..2).await;
    let mut with_credit = client.consume(all()).await.unwrap();
    let mut without = client.open(all()).await.unwrap();
    with_credit.batch().await;
    without.heartbeat().await;
    client.delete().await;
    client.create(1).await;
    client.produce_singly(0, 0..2).await;
    for mut stream in [with_credit, without] {
        let status = stream.failure().await;
        assert_eq!((status.code(), reason_of(&status).as_str()), (Code::NotFound, "TOPIC_NOT_FOUND"));
    }
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn a_damaged_object_ends_a_stream_behind_the_records_before_it_and_is_named() {
    const VALUE: &[u8] = b"a value that breaks";
    let store = Store::new("memory://", Arc::new(MemoryBackend::default()), &StoreOptions::default());
    let config = Config { tail: false, ..Config::default() };
    let broker = Running::run(Broker::start_on(store.clone(), config).await.unwrap());
    let mut client = broker.client().await;
    client.create(1).await;
    client.produce_singly(0, 0..2).await;
    client.produce(0, [VALUE.to_vec()]).await;
    client.produce_singly(0, 3..4).await;
    let damaged = damage(&store, VALUE).await;

    let mut stream = client.consume(all_there_is()).await.unwrap();
    let mut read = Vec::new();
    let status = loop {
        match stream.next().await {
            Ok(v1::consume_response::Response::Batch(batch)) => read.extend(offsets(&batch)),
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(read, [0, 1]);
    assert_eq!(status.code(), Code::DataLoss);
    let (reason, facts) = reason(&status);
    let told = (reason.as_str(), facts["object"].as_str(), facts["partition"].as_str());
    assert_eq!(told, ("DAMAGED_OBJECT", damaged.as_str(), "0"));
    let start = crate::client::start(v1::start_position::Position::Offset(3));
    let behind = client.consume_to_the_end(v1::ConsumeInit { start, ..all_there_is() }).await;
    assert_eq!(behind.places(), [(0, 3)], "what is behind it can be read");
    drop((stream, client));
    broker.stop().await;
}

/// Changes a value in the object that holds it; answers with the object's key.
async fn damage(store: &Store, value: &[u8]) -> String {
    let listing = store.list(&Directory::root(), None, 1000).await.unwrap();
    for object in listing.objects {
        let mut bytes = store.get(&object.key).await.unwrap().to_vec();
        if let Some(at) = bytes.windows(value.len()).position(|window| window == value) {
            bytes[at] ^= 1;
            store.delete(std::slice::from_ref(&object.key)).await.unwrap();
            store.create(&object.key, Payload::from(bytes)).await.unwrap();
            return object.key.to_string();
        }
    }
    panic!("no object holds the value");
}
