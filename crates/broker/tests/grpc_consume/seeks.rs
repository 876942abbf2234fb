//! Seek and pause while records are on their way.

use lakebed_wire::v1;
use lakebed_wire::v1::consume_response::Response;
use lakebed_wire::v1::start_position::Position;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::client::{MUCH, Running, all, offsets, reason_of};

const RECORDS: u64 = 3000;

#[tokio::test]
async fn nothing_of_an_old_place_comes_after_the_answer_to_a_seek() {
    const SEED: u64 = 17;
    let (broker, mut client) = Running::with_topic(2).await;
    for partition in 0..2 {
        client.produce(partition, (0..RECORDS).map(|n| vec![n as u8; 100])).await;
    }
    for format in [v1::Format::Records, v1::Format::KafkaBatches, v1::Format::ArrowIpc] {
        let mut random = StdRng::seed_from_u64(SEED);
        let mut stream = client.open(v1::ConsumeInit { format: format.into(), ..all() }).await.unwrap();
        stream.grant(MUCH, 0);
        let mut expected = [0_i64; 2];
        let (mut asked, mut answered) = (Vec::new(), 0);
        while answered < 200 {
            stream.grant(0, random.random_range(1..100));
            if random.random_bool(0.5) {
                let (partition, offset) = (random.random_range(0..2), random.random_range(0..RECORDS as i64));
                stream.seek(asked.len() as u64, partition, Position::Offset(offset));
                asked.push((partition, offset));
            }
            for _ in 0..random.random_range(0..2) {
                if asked.len() == answered {
                    break;
                }
                match stream.next().await.unwrap() {
                    Response::SeekAck(ack) => {
                        let (partition, offset) = asked[answered];
                        assert_eq!((ack.seek_id, ack.partition, ack.next_offset), (answered as u64, partition, offset));
                        expected[partition as usize] = offset;
                        answered += 1;
                    }
                    Response::Batch(batch) => {
                        let next = &mut expected[batch.partition as usize];
                        let wanted: Vec<i64> = offsets(&batch).into_iter().filter(|offset| offset >= next).collect();
                        assert_eq!(wanted, (*next..batch.next_offset).collect::<Vec<i64>>(), "seed {SEED}");
                        *next = batch.next_offset;
                    }
                    Response::Heartbeat(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn a_seek_goes_to_every_kind_of_place_and_the_token_goes_with_it() {
    let (broker, mut client) = Running::with_topic(1).await;
    let record = |n: i64| v1::Record { timestamp: Some(1000 + n), ..Default::default() };
    client.produce_records(0, (0..10).map(record).collect()).await;
    let mut stream = client.open(all()).await.unwrap();
    stream.heartbeat().await;
    let places = [
        (Position::Latest(v1::Latest {}), 10),
        (Position::Earliest(v1::Earliest {}), 0),
        (Position::Timestamp(1004), 4),
        (Position::Timestamp(9999), 10),
        (Position::Offset(7), 7),
    ];
    for (seek_id, (position, expected)) in (0..).zip(places) {
        stream.seek(seek_id, 0, position);
        let Response::SeekAck(ack) = stream.next().await.unwrap() else { panic!("an answer") };
        assert_eq!((ack.seek_id, ack.next_offset), (seek_id, expected));
    }
    stream.grant(MUCH, 1);
    let batch = stream.batch().await;
    assert_eq!(offsets(&batch), [7]);
    let rest = client.consume_to_the_end(crate::client::resume(&batch.resume_token)).await;
    assert_eq!(rest.places(), [(0, 8), (0, 9)]);
    drop((stream, client));
    broker.stop().await;
}

#[tokio::test]
async fn a_seek_that_can_not_be_done_ends_the_stream_with_the_reason() {
    let (broker, mut client) = Running::with_topic(1).await;
    client.produce_singly(0, 0..3).await;
    let wrong = [
        (0, Some(Position::Offset(4)), "OFFSET_OUT_OF_RANGE"),
        (0, Some(Position::Offset(-1)), "INVALID_REQUEST"),
        (1, Some(Position::Offset(0)), "INVALID_REQUEST"),
        (0, None, "INVALID_REQUEST"),
    ];
    for (partition, position, expected) in wrong {
        let mut stream = client.open(all()).await.unwrap();
        let start = position.map(|position| v1::StartPosition { position: Some(position) });
        stream.say(v1::consume_request::Request::Seek(v1::ConsumeSeek { seek_id: 1, partition, start }));
        assert_eq!(reason_of(&stream.failure().await), expected);
    }
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn a_seek_back_revives_a_partition_that_has_ended() {
    let (broker, mut client) = Running::with_topic(2).await;
    for partition in 0..2 {
        client.produce_singly(partition, 0..4).await;
    }
    let stop = Some(v1::StopBounds { offset: Some(3), ..Default::default() });
    let mut stream = client.open(v1::ConsumeInit { stop, ..all() }).await.unwrap();
    stream.heartbeat().await;
    stream.pause(&[1], true);
    stream.grant(MUCH, MUCH);
    let mut got = offsets(&stream.batch().await);
    while got.len() < 3 {
        got.extend(offsets(&stream.batch().await));
    }
    assert_eq!(got, [0, 1, 2]);
    let Response::PartitionEnd(end) = stream.next().await.unwrap() else { panic!("an end") };
    assert_eq!((end.partition, end.next_offset), (0, 3));
    stream.seek(5, 0, Position::Offset(1));
    let Response::SeekAck(ack) = stream.next().await.unwrap() else { panic!("an answer") };
    assert_eq!(ack.next_offset, 1);
    stream.pause(&[], false);
    let read = stream.read_out().await;
    let mut places = read.places();
    places.sort_unstable();
    assert_eq!(places, [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
    let mut ends = read.ends;
    ends.sort_unstable();
    assert_eq!(ends, [(0, 3), (1, 3)]);
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn a_paused_partition_is_silent_while_others_go_on_and_comes_back_where_it_was() {
    let (broker, mut client) = Running::with_topic(2).await;
    let mut stream = client.consume(all()).await.unwrap();
    stream.heartbeat().await;
    stream.pause(&[0], true);
    // A seek is answered in its order: behind it the pause holds.
    stream.seek(1, 1, Position::Earliest(v1::Earliest {}));
    let Response::SeekAck(_) = stream.next().await.unwrap() else { panic!("an answer") };
    for n in 0..20 {
        client.produce_singly(0, n..n + 1).await;
        client.produce_singly(1, n..n + 1).await;
        let batch = stream.batch().await;
        assert_eq!((batch.partition, offsets(&batch)), (1, vec![n as i64]));
    }
    stream.pause(&[0], false);
    let mut got = Vec::new();
    while got.len() < 20 {
        let batch = stream.batch().await;
        assert_eq!(batch.partition, 0);
        got.extend(offsets(&batch));
    }
    assert_eq!(got, (0..20).collect::<Vec<i64>>());
    drop((stream, client));
    broker.stop().await;
}
