//! A stream that goes well, and batches that don't: answers in order, refusals one by one, the window.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use lakebed_broker::Config;
use lakebed_segment::batch::{Codec, Encoder, Fields, Record, TimestampType};
use lakebed_store::faults::{FaultBackend, Operation};
use lakebed_store::{MemoryBackend, Store, StoreOptions};
use lakebed_wire::v1;
use lakebed_wire::v1::produce_stream_request::Request as Say;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use crate::client::{Running, STREAM, Stream, batch, connect, of_records, say, values};
use crate::faults::Gate;

#[tokio::test]
async fn answers_come_in_the_order_of_the_batches_and_refusals_stand_between_them() {
    let broker = Running::in_memory().await;
    broker.topic("t", 3).await;
    let mut stream = Stream::open(broker.http, "t", None).await;
    assert_eq!(stream.window.partition_count, 3);
    assert!(stream.window.window_bytes > 0 && stream.window.window_batches > 0 && stream.window.message_bytes_max > 0);
    let (mut expected, mut next) = (Vec::new(), [0; 3]);
    for id in 0..300_u64 {
        let partition = (id % 4) as i32;
        let value = format!("{id}");
        stream.send(v1::ProduceBatch { partition: Some(partition), ..batch(id, &[value.as_bytes(), b"second"]) }).await;
        expected.push(match next.get_mut(partition as usize) {
            Some(next) => {
                *next += 2;
                (id, Ok((partition, *next - 2, *next - 1)))
            }
            None => (id, Err("NotFound PARTITION_NOT_FOUND".to_owned())),
        });
    }
    stream.close();
    let (told, ended) = stream.rest().await;
    assert_eq!((told, ended.map(|status| status.to_string())), (expected, None));
    for partition in 0..3 {
        let firsts: Vec<Bytes> = values(&broker.rooms, "t", partition).await.into_iter().step_by(2).collect();
        let sent: Vec<Bytes> =
            (0..300).filter(|id| id % 4 == partition).map(|id| Bytes::from(format!("{id}"))).collect();
        assert_eq!(firsts, sent, "in the order in which they were sent");
    }
    broker.stop().await;
}

fn keyed(key: &'static str) -> v1::Record {
    v1::Record { key: Some(Bytes::from_static(key.as_bytes())), ..v1::Record::default() }
}

fn kafka(values: &[&[u8]], codec: Codec) -> Bytes {
    let fields = Fields { codec, timestamp_type: TimestampType::Create, producer: None, is_transactional: false };
    let mut encoder = Encoder::new(fields, 1024);
    for (offset, value) in (0..).zip(values) {
        encoder.push(Record { offset, timestamp_ms: -1, key: None, value: Some(value) }, []).unwrap();
    }
    encoder.finish().unwrap()
}

fn of_kafka(correlation_id: u64, batch: Bytes) -> v1::ProduceBatch {
    let payload = Some(v1::produce_batch::Payload::KafkaBatch(batch));
    v1::ProduceBatch { correlation_id, payload, ..v1::ProduceBatch::default() }
}

#[tokio::test]
async fn a_batch_that_is_refused_says_why_and_leaves_the_stream_and_the_topic_as_they_were() {
    let broker = Running::in_memory().await;
    broker.topic_with("t", 7, &[("max.message.bytes", "1000"), ("message.timestamp.after.max.ms", "1000")]).await;
    let at = |timestamp| v1::Record { timestamp: Some(timestamp), ..v1::Record::default() };
    let mut damaged = kafka(&[b"x"], Codec::None).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let mut future = kafka(&[b"x"], Codec::None).to_vec();
    future[16] = 0;
    let on = |partition, batch| v1::ProduceBatch { partition: Some(partition), ..batch };
    let headless = v1::ProduceBatch::default();
    let invalid = "InvalidArgument INVALID_REQUEST";
    let cases = [
        (on(7, batch(1, &[b"x"])), "NotFound PARTITION_NOT_FOUND"),
        (on(-1, batch(2, &[b"x"])), "NotFound PARTITION_NOT_FOUND"),
        (v1::ProduceBatch { correlation_id: 3, ..headless }, invalid),
        (batch(4, &[]), invalid),
        (of_records(5, vec![v1::Record { offset: Some(0), ..v1::Record::default() }]), invalid),
        (of_records(6, vec![keyed("a"), v1::Record::default(), keyed("b"), keyed("c"), keyed("d")]), invalid),
        (of_records(7, vec![at(-1)]), "InvalidArgument INVALID_TIMESTAMP"),
        (of_records(8, vec![at(i64::MAX)]), "InvalidArgument INVALID_TIMESTAMP"),
        (of_records(9, vec![at(7_258_118_400_000)]), "InvalidArgument INVALID_TIMESTAMP"),
        (batch(10, &[&[0; 1000]]), "InvalidArgument MESSAGE_TOO_LARGE"),
        (of_kafka(11, kafka(&[b"x"], Codec::None)), invalid),
        (on(0, of_kafka(12, Bytes::from(damaged))), "InvalidArgument CORRUPT_BATCH"),
        (on(0, of_kafka(13, Bytes::from(future))), "InvalidArgument CORRUPT_BATCH"),
        (on(0, of_kafka(14, Bytes::from_static(b"not a batch"))), "InvalidArgument CORRUPT_BATCH"),
        (on(0, of_kafka(15, Bytes::new())), "InvalidArgument CORRUPT_BATCH"),
        (on(0, of_kafka(16, kafka(&[&[0; 1000]], Codec::None))), "InvalidArgument MESSAGE_TOO_LARGE"),
    ];
    let mut stream = Stream::open(broker.http, "t", None).await;
    for (batch, expected) in cases {
        let id = batch.correlation_id;
        stream.send(batch).await;
        assert_eq!(stream.hear().await.unwrap().unwrap(), (id, Err(expected.to_owned())));
    }
    for partition in 0..7 {
        assert!(values(&broker.rooms, "t", partition).await.is_empty());
    }
    stream.send(on(0, of_kafka(17, kafka(&[b"one", b"two"], Codec::Zstd)))).await;
    assert_eq!(stream.hear().await.unwrap().unwrap(), (17, Ok((0, 0, 1))));
    assert_eq!(values(&broker.rooms, "t", 0).await, [Bytes::from_static(b"one"), Bytes::from_static(b"two")]);
    drop(stream);
    broker.stop().await;
}

#[tokio::test]
async fn where_no_partition_is_named_keys_choose_it_and_records_without_take_turns() {
    let broker = Running::in_memory().await;
    broker.topic("t", 7).await;
    let mut stream = Stream::open(broker.http, "t", None).await;
    let key = b"customer-17";
    let expected = lakebed_wire::kafka::partition_for_key(key, 7) as i32;
    let record = v1::Record { key: Some(Bytes::from_static(key)), ..v1::Record::default() };
    stream.send(of_records(1, vec![v1::Record::default(), record.clone(), record])).await;
    assert_eq!(stream.hear().await.unwrap().unwrap(), (1, Ok((expected, 0, 2))));
    let mut seen = std::collections::BTreeSet::new();
    for id in 2..9 {
        stream.send(batch(id, &[b"x"])).await;
        seen.insert(stream.hear().await.unwrap().unwrap().1.unwrap().0);
    }
    assert_eq!(seen.len(), 7);
    let mut named = Stream::open(broker.http, "t", Some(4)).await;
    named.send(of_records(1, vec![keyed("a"), keyed("b"), keyed("c")])).await;
    assert_eq!(named.hear().await.unwrap().unwrap().1.unwrap().0, 4);
    named.send(v1::ProduceBatch { partition: Some(5), ..batch(2, &[b"x"]) }).await;
    assert_eq!(named.hear().await.unwrap().unwrap().1.unwrap().0, 5, "the batch's own partition goes first");
    drop((stream, named));
    broker.stop().await;
}

#[tokio::test]
async fn a_batch_that_expects_an_offset_stands_there_or_is_refused_with_the_offset_that_is_next() {
    let broker = Running::in_memory().await;
    broker.topic("t", 2).await;
    let mut stream = Stream::open(broker.http, "t", Some(0)).await;
    let expecting = |id, offset| v1::ProduceBatch { expected_next_offset: Some(offset), ..batch(id, &[b"a", b"b"]) };
    let mismatch = || Err("Aborted OFFSET_MISMATCH".to_owned());
    let invalid = || Err("InvalidArgument INVALID_REQUEST".to_owned());
    // All at once: each is decided after those before it.
    for (id, offset) in (0..).zip([0, 0, 2, 5, 4, -1]) {
        stream.send(expecting(id, offset)).await;
    }
    let expected = [Ok((0, 0, 1)), mismatch(), Ok((0, 2, 3)), mismatch(), Ok((0, 4, 5)), invalid()];
    for (id, expected) in (0..).zip(expected) {
        assert_eq!(stream.hear().await.unwrap().unwrap(), (id, expected));
    }
    assert_eq!(values(&broker.rooms, "t", 0).await.len(), 6);
    let mut unnamed = Stream::open(broker.http, "t", None).await;
    unnamed.send(expecting(1, 0)).await;
    assert_eq!(unnamed.hear().await.unwrap().unwrap(), (1, invalid()), "no partition is named");

    // Many want the same offset: one gets it.
    let racing = (0..8).map(|_| async {
        let mut stream = Stream::open(broker.http, "t", Some(1)).await;
        stream.send(expecting(1, 0)).await;
        stream.hear().await.unwrap().unwrap().1
    });
    let told = futures::future::join_all(racing).await;
    assert_eq!(told.iter().filter(|told| **told == Ok((1, 0, 1))).count(), 1);
    assert_eq!(told.iter().filter(|told| **told == mismatch()).count(), 7);
    drop((stream, unnamed));
    broker.stop().await;
}

#[tokio::test]
async fn a_stream_sees_that_its_topic_grows_and_that_it_goes() {
    use lakebed_model::Change;
    let broker = Running::in_memory().await;
    broker.topic("t", 1).await;
    let mut stream = Stream::open(broker.http, "t", Some(0)).await;
    let id = broker.rooms.log.state().topic_id("t").unwrap();
    broker.rooms.log.change(Change::AddPartitions { id, partitions: 2 }).await.unwrap();
    stream.send(v1::ProduceBatch { partition: Some(1), ..batch(1, &[b"x"]) }).await;
    assert_eq!(stream.hear().await.unwrap().unwrap(), (1, Ok((1, 0, 0))));
    broker.rooms.log.change(Change::DeleteTopic { id }).await.unwrap();
    broker.topic("t", 2).await;
    stream.send(batch(2, &[b"x"])).await;
    let told = stream.hear().await.unwrap().unwrap();
    assert_eq!(told, (2, Err("NotFound TOPIC_NOT_FOUND".to_owned())), "a topic of the same name is another topic");
    assert!(values(&broker.rooms, "t", 0).await.is_empty());
    drop(stream);
    broker.stop().await;
}

#[tokio::test]
async fn beyond_the_window_nothing_is_read_until_answers_have_gone_out() {
    const BATCH_BYTES: usize = 100_000;
    const BATCHES: u64 = 200;
    let gate = Gate::default();
    let held = gate.clone();
    let faults = move |operation: &Operation<'_>| held.decide(operation);
    let backend = FaultBackend::new(Arc::new(MemoryBackend::default()), faults);
    let store = Store::new("memory://", Arc::new(backend), &StoreOptions::default());
    let config = Config { memory_bytes: 64 << 20, ..Config::default() };
    let broker = Running::on(store, config).await;
    broker.topic("t", 1).await;

    // The client counts what is taken from it.
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    let value = vec![7; BATCH_BYTES];
    let init = say(Say::Init(v1::ProduceInit { topic: "t".to_owned(), partition: Some(0) }));
    let batches = (0..BATCHES).map(move |id| {
        counted.fetch_add(1, Ordering::SeqCst);
        say(Say::Batch(batch(id, &[&value])))
    });
    let requests = futures::stream::once(async { init }).chain(futures::stream::iter(batches));
    let mut grpc = Grpc::new(connect(broker.http).await);
    grpc.ready().await.unwrap();
    let codec: ProstCodec<v1::ProduceStreamRequest, v1::ProduceStreamResponse> = ProstCodec::default();
    let request = tonic::Request::new(requests);
    gate.close();
    let mut responses = grpc.streaming(request, PathAndQuery::from_static(STREAM), codec).await.unwrap().into_inner();
    let first = responses.next().await.unwrap().unwrap().response;
    let Some(v1::produce_stream_response::Response::InitAck(window)) = first else { panic!("{first:?}") };
    let window = window.window_bytes / BATCH_BYTES as u64;
    while taken.load(Ordering::SeqCst) < window {
        tokio::task::yield_now().await;
    }
    // Others are served all the while, and the stream has every occasion to take more.
    let mut other = Stream::raw(broker.http).await;
    for _ in 0..50 {
        other.0.send(v1::ProduceStreamRequest { request: None }).await.unwrap();
        assert!(other.1.next().await.unwrap().is_err());
        other = Stream::raw(broker.http).await;
    }
    let most = taken.load(Ordering::SeqCst);
    // What HTTP/2 and the client's own buffers hold comes on top of the window.
    let elsewhere = 40;
    assert!(most <= window + elsewhere, "{most} batches were taken, the window is {window}");
    gate.open();
    for id in 0..BATCHES {
        let answer = responses.next().await.unwrap().unwrap().response.unwrap();
        let v1::produce_stream_response::Response::Ack(ack) = answer else { panic!("{answer:?}") };
        assert_eq!((ack.correlation_id, ack.base_offset), (id, id as i64));
    }
    assert!(responses.next().await.is_none());
    drop(other);
    broker.stop().await;
}

#[tokio::test]
async fn a_unary_request_keeps_to_the_same_rules() {
    let broker = Running::in_memory().await;
    broker.topic("t", 7).await;
    let channel = connect(broker.http).await;
    let call = |request: v1::ProduceRequest| {
        let mut grpc = Grpc::new(channel.clone());
        async move {
            grpc.ready().await.unwrap();
            let codec: ProstCodec<v1::ProduceRequest, v1::ProduceResponse> = ProstCodec::default();
            let path = PathAndQuery::from_static("/lakebed.v1.ProduceService/Produce");
            let answer = grpc.unary(tonic::Request::new(request), path, codec).await;
            answer.map(tonic::Response::into_inner).map_err(|status| (crate::client::reason(&status), status))
        }
    };
    let records = |records: Vec<v1::Record>| v1::ProduceRequest {
        topic: "t".to_owned(),
        payload: Some(v1::produce_request::Payload::Records(v1::Records { records })),
        ..v1::ProduceRequest::default()
    };
    let (refused, status) = call(records(vec![keyed("a"), keyed("b"), keyed("c"), keyed("d")])).await.unwrap_err();
    assert_eq!(refused, "InvalidArgument INVALID_REQUEST");
    assert!(status.message().starts_with("records 0 and "), "{}", status.message());
    let named = v1::ProduceRequest { partition: Some(3), ..records(vec![keyed("a"), keyed("b")]) };
    let produced = call(named).await.unwrap();
    assert_eq!((produced.partition, produced.base_offset, produced.last_offset), (3, 0, 1));
    broker.stop().await;
}
