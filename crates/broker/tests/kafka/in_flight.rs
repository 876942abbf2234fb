//! Several requests of one connection at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ProduceRequest;
use lakebed_broker::{Broker, Config};
use lakebed_segment::batch::{Codec, Encoder, Fields, Producer, Record, TimestampType};
use lakebed_store::faults::{Fault, FaultBackend, Operation, Outcome};
use lakebed_store::{MemoryBackend, Store, StoreOptions};

use crate::client::{Running, now_ms, produce_of};
use crate::http::get;

/// A batch of one record of an idempotent producer.
pub(crate) fn stamped(id: i64, base_sequence: i32) -> Bytes {
    let producer = Some(Producer { id, epoch: 0, base_sequence });
    let fields =
        Fields { codec: Codec::None, timestamp_type: TimestampType::Create, producer, is_transactional: false };
    let mut encoder = Encoder::new(fields, 256);
    encoder.push(Record { offset: 0, timestamp_ms: now_ms(), key: None, value: Some(b"x") }, []).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn five_requests_of_a_connection_are_taken_before_the_first_is_answered_and_are_answered_in_order() {
    const LATENCY: Duration = Duration::from_secs(20);
    let (slow, creates) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (is_slow, created) = (Arc::clone(&slow), Arc::clone(&creates));
    let faults = move |operation: &Operation<'_>| {
        if !matches!(operation, Operation::Create { .. }) || is_slow.load(Ordering::SeqCst) == 0 {
            return Fault::NONE;
        }
        created.fetch_add(1, Ordering::SeqCst);
        Fault { before: LATENCY, after: Duration::ZERO, outcome: Outcome::Answered }
    };
    let backend = FaultBackend::new(Arc::new(MemoryBackend::default()), faults);
    let store = Store::new("memory://", Arc::new(backend), &StoreOptions::default());
    let broker = Running::run(Broker::start_on(store, Config::default()).await.unwrap());
    let mut client = broker.client().await;
    client.topic("t").await;
    slow.store(1, Ordering::SeqCst);
    for sequence in 0..5 {
        client.send(9, &produce_of("t", 0, -1, stamped(7, sequence))).await;
    }
    // A sixth that is counted when it has arrived: then the five before it are started.
    client.send(9, &produce_of("nobody", 0, -1, stamped(7, 5))).await;
    let counted = "lakebed_kafka_requests_total{request=\"Produce\",version=\"9\"} 6";
    while !get(&broker, "/metrics").await.lines().any(|line| line == counted) {}
    // From here on only the clock has to move: by one latency, and not by one for each.
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    for offset in 0..5 {
        let (_, answer) = client.receive::<ProduceRequest>(9).await;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, offset));
    }
    assert!(begun.elapsed() < 2 * LATENCY, "{:?}", begun.elapsed());
    assert!((1..=5).contains(&creates.load(Ordering::SeqCst)));
    tokio::time::resume();
    slow.store(0, Ordering::SeqCst);
    broker.stop().await;
}
