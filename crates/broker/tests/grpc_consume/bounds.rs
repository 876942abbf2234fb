//! Streams that end by themselves, exactly where they were told to.

use lakebed_wire::v1;
use lakebed_wire::v1::StopBounds;
use tonic::Code;

use crate::client::{Client, Read, Running, TOPIC, all, earliest, offsets, reason_of, start};

const FORMATS: [v1::Format; 3] = [v1::Format::Records, v1::Format::KafkaBatches, v1::Format::ArrowIpc];

/// Two partitions of twelve records, in batches of four; record n is of the time 1000 + 10 n, and of 9 + n bytes.
async fn filled() -> (Running, Client) {
    let (broker, mut client) = Running::with_topic(2).await;
    for partition in 0..2 {
        for batch in 0..3 {
            let record = |n: u64| v1::Record {
                key: Some("key".into()),
                value: Some(vec![b'v'; 6 + n as usize].into()),
                timestamp: Some(1000 + 10 * n as i64),
                ..Default::default()
            };
            client.produce_records(partition, (4 * batch..4 * batch + 4).map(record).collect()).await;
        }
    }
    (broker, client)
}

fn init(format: v1::Format, stop: StopBounds) -> v1::ConsumeInit {
    v1::ConsumeInit { format: format.into(), stop: Some(stop), ..all() }
}

fn of(read: &Read, partition: i32) -> Vec<i64> {
    let places = read.places();
    places.into_iter().filter(|place| place.0 == partition).map(|(_, offset)| offset).collect()
}

#[tokio::test]
async fn a_partition_ends_before_an_offset_a_time_or_where_it_ended_when_the_stream_began() {
    let (broker, mut client) = filled().await;
    let bounds = [
        (StopBounds { offset: Some(6), ..Default::default() }, 6),
        (StopBounds { offset: Some(8), ..Default::default() }, 8),
        (StopBounds { offset: Some(0), ..Default::default() }, 0),
        (StopBounds { timestamp: Some(1051), ..Default::default() }, 6),
        (StopBounds { timestamp: Some(1050), ..Default::default() }, 5),
        (StopBounds { timestamp: Some(1080), ..Default::default() }, 8),
        (StopBounds { timestamp: Some(0), ..Default::default() }, 0),
        (StopBounds { latest: true, ..Default::default() }, 12),
        (StopBounds { latest: true, offset: Some(3), timestamp: Some(1100), ..Default::default() }, 3),
        (StopBounds { latest: true, timestamp: Some(99_999), ..Default::default() }, 12),
    ];
    for format in FORMATS {
        for (stop, end) in bounds {
            let read = client.consume_to_the_end(init(format, stop)).await;
            for partition in 0..2 {
                assert_eq!(of(&read, partition), (0..end).collect::<Vec<i64>>(), "{stop:?} {format:?}");
            }
            let mut ends = read.ends.clone();
            ends.sort_unstable();
            assert_eq!(ends, [(0, end), (1, end)], "{stop:?} {format:?}");
            for batch in &read.batches {
                assert_eq!(batch.next_offset, offsets(batch).last().unwrap() + 1);
            }
        }
    }
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn a_partition_that_is_behind_its_bound_waits_for_what_comes_and_one_beyond_it_has_ended() {
    let (broker, mut client) = filled().await;
    let partition = |partition, offset| v1::PartitionStart {
        partition,
        start: start(v1::start_position::Position::Offset(offset)),
    };
    let stop = StopBounds { offset: Some(14), ..Default::default() };
    let mut stream = client
        .consume(v1::ConsumeInit { partitions: vec![partition(0, 10)], ..init(v1::Format::Records, stop) })
        .await
        .unwrap();
    assert_eq!(offsets(&stream.batch().await), [10, 11]);
    client.produce(0, [vec![], vec![], vec![]]).await;
    let read = stream.read_out().await;
    assert_eq!((read.places(), read.ends), (vec![(0, 12), (0, 13)], vec![(0, 14)]));

    let stop = StopBounds { offset: Some(5), ..Default::default() };
    let init = v1::ConsumeInit { partitions: vec![partition(1, 9)], ..init(v1::Format::Records, stop) };
    let read = client.consume_to_the_end(init).await;
    assert_eq!((read.places(), read.ends), (vec![], vec![(1, 9)]));
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn a_stream_ends_after_so_many_records_or_bytes_of_all_partitions() {
    let (broker, mut client) = filled().await;
    for records in [0, 1, 5, 12, 23, 24] {
        let stop = StopBounds { records: Some(records), ..Default::default() };
        let read = client.consume_to_the_end(init(v1::Format::Records, stop)).await;
        assert_eq!(read.places().len() as u64, records);
        let read = client.consume_to_the_end(init(v1::Format::KafkaBatches, stop)).await;
        assert_eq!(read.places().len() as u64, records.div_ceil(4) * 4, "whole batches");
    }
    // 24 is more than there is: such a stream waits.
    let partitions = vec![v1::PartitionStart { partition: 0, start: earliest() }];
    for bytes in [0, 1, 9, 10, 100, 170] {
        let stop = StopBounds { bytes: Some(bytes), ..Default::default() };
        let init = v1::ConsumeInit { partitions: partitions.clone(), ..init(v1::Format::Records, stop) };
        let read = client.consume_to_the_end(init).await;
        let mut sum = 0;
        let expected = (0..12).take_while(|n| {
            let before = sum;
            sum += 9 + n;
            before < bytes
        });
        assert_eq!(read.places().len(), expected.count(), "{bytes} bytes");
    }
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn a_stream_with_bounds_goes_on_when_its_client_has_said_all_and_one_without_ends() {
    let (broker, mut client) = filled().await;
    let stop = StopBounds { latest: true, ..Default::default() };
    let mut answers = client.consume(init(v1::Format::Records, stop)).await.unwrap().half_close();
    let mut records = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        if let Some(v1::consume_response::Response::Batch(batch)) = answer.response {
            records += offsets(&batch).len();
        }
    }
    assert_eq!(records, 24);
    let stream = client.open(init(v1::Format::Records, stop)).await.unwrap();
    stream.grant(1 << 20, 5);
    let mut answers = stream.half_close();
    let mut records = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        if let Some(v1::consume_response::Response::Batch(batch)) = answer.response {
            records += offsets(&batch).len();
        }
    }
    assert_eq!(records, 5, "it ends with its credit");
    let mut answers = client.consume(all()).await.unwrap().half_close();
    while answers.message().await.unwrap().is_some() {}
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn bounds_and_fields_that_make_no_sense_are_refused() {
    let (broker, mut client) = Running::with_topic(1).await;
    let negative = StopBounds { offset: Some(-1), ..Default::default() };
    let before_time = StopBounds { timestamp: Some(-1), ..Default::default() };
    let value = vec![v1::RecordField::Value.into()];
    let inits = [
        init(v1::Format::Records, negative),
        init(v1::Format::Records, before_time),
        v1::ConsumeInit { fields: value, format: v1::Format::KafkaBatches.into(), ..all() },
        v1::ConsumeInit { fields: vec![0], ..all() },
        v1::ConsumeInit { fields: vec![99], ..all() },
        v1::ConsumeInit { format: 9, ..all() },
        v1::ConsumeInit { start: start(v1::start_position::Position::Timestamp(-1)), ..all() },
        v1::ConsumeInit { start: start(v1::start_position::Position::Offset(-1)), ..all() },
    ];
    for init in inits {
        let status = client.refused(init.clone()).await;
        assert_eq!(
            (status.code(), reason_of(&status).as_str()),
            (Code::InvalidArgument, "INVALID_REQUEST"),
            "{init:?}"
        );
    }
    let status = client.refused(v1::ConsumeInit { topic: "nobody".to_owned(), ..all() }).await;
    assert_eq!(reason_of(&status), "TOPIC_NOT_FOUND");
    assert_eq!(TOPIC, all().topic);
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn a_stream_begins_at_exactly_the_first_record_of_a_time() {
    let (broker, mut client) = filled().await;
    for (timestamp, first) in [(0, 0), (1000, 0), (1001, 1), (1039, 4), (1040, 4), (1110, 11), (1111, 12)] {
        let position = start(v1::start_position::Position::Timestamp(timestamp));
        let stop = StopBounds { latest: true, ..Default::default() };
        for format in FORMATS {
            let init = v1::ConsumeInit { start: position, ..init(format, stop) };
            let mut stream = client.consume(init).await.unwrap();
            let tails = stream.heartbeat().await.tails;
            assert!(tails.iter().all(|tail| (tail.next_offset, tail.high_watermark) == (first, 12)), "{tails:?}");
            let read = stream.read_out().await;
            let wanted: Vec<i64> = of(&read, 1).into_iter().filter(|offset| *offset >= first).collect();
            assert_eq!(wanted, (first..12).collect::<Vec<i64>>(), "{timestamp}");
        }
    }
    drop(client);
    broker.stop().await;
}
