//! A stream's task without sockets, on a clock that only tests move.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lakebed_wire::v1;
use lakebed_wire::v1::consume_response::Response;
use prost::Message;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::Budget;
use super::feed::Feed;
use super::outbox::{MESSAGE_BYTES_MAX, Outgoing};
use crate::broker::Broker;
use crate::config::Config;
use crate::grpc::Services;
use crate::http::ending::Ending;
use crate::topics::NewTopic;

const TOPIC: &str = "t";

async fn next(outgoing: &mut Outgoing) -> Response {
    let answer = outgoing.next().await.unwrap().unwrap();
    v1::ConsumeResponse::decode(&answer.encode_to_vec()[..]).unwrap().response.unwrap()
}

#[tokio::test]
async fn a_stream_that_has_nothing_to_send_says_that_it_lives_before_fifteen_seconds_have_passed() {
    let broker = Broker::start(Config::default()).await.unwrap();
    let rooms = Arc::clone(broker.rooms());
    let new = NewTopic { name: TOPIC.to_owned(), partitions: Some(3), config: Default::default() };
    rooms.topics.create(new, false).await.unwrap();
    let services = Services {
        rooms,
        consume_budget: Budget::new(MESSAGE_BYTES_MAX),
        joined: crate::grpc::groups::Streams::new(0),
        about: Arc::default(),
    };
    tokio::time::pause();
    let init = v1::ConsumeInit { topic: TOPIC.to_owned(), ..Default::default() };
    let (feed, mut outgoing) = Feed::open(&services, init).await.unwrap();
    let (_said, requests) = tokio::sync::mpsc::channel(1);
    tokio::spawn(feed.run(Ending::default(), ReceiverStream::new(requests)));
    let mut last = Instant::now();
    for count in 0..5 {
        let Response::Heartbeat(heartbeat) = next(&mut outgoing).await else { panic!("a heartbeat") };
        let tails: Vec<(i32, i64)> = heartbeat.tails.iter().map(|tail| (tail.partition, tail.high_watermark)).collect();
        assert_eq!(tails, [(0, 0), (1, 0), (2, 0)]);
        assert!(!heartbeat.resume_token.is_empty());
        let silence = last.elapsed();
        assert!(silence <= Duration::from_secs(15), "{silence:?}");
        assert!(count == 0 || silence >= Duration::from_secs(10), "not more often than needed: {silence:?}");
        last = Instant::now();
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_listened_to_only_so_far() {
    let broker = Broker::start(Config::default()).await.unwrap();
    let rooms = Arc::clone(broker.rooms());
    let new = NewTopic { name: TOPIC.to_owned(), partitions: Some(1), config: Default::default() };
    rooms.topics.create(new, false).await.unwrap();
    let services = Services {
        rooms,
        consume_budget: Budget::new(MESSAGE_BYTES_MAX),
        joined: crate::grpc::groups::Streams::new(0),
        about: Arc::default(),
    };
    let init = v1::ConsumeInit { topic: TOPIC.to_owned(), ..Default::default() };
    let (feed, mut outgoing) = Feed::open(&services, init).await.unwrap();
    const SEEKS: u64 = 1000;
    let (said, requests) = tokio::sync::mpsc::channel(1);
    tokio::spawn(feed.run(Ending::default(), ReceiverStream::new(requests)));
    let saying = tokio::spawn(async move {
        for seek_id in 0..SEEKS {
            let position = v1::start_position::Position::Earliest(v1::Earliest {});
            let start = Some(v1::StartPosition { position: Some(position) });
            let seek = v1::consume_request::Request::Seek(v1::ConsumeSeek { seek_id, partition: 0, start });
            said.send(Ok(v1::ConsumeRequest { request: Some(seek) })).await.unwrap();
        }
        said
    });
    // Only the clock can move when the stream listens no more.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!saying.is_finished());
    assert!(outgoing.waiting() <= 65, "{}", outgoing.waiting());
    let mut answered = 0;
    while answered < SEEKS {
        match next(&mut outgoing).await {
            Response::SeekAck(ack) => {
                assert_eq!(ack.seek_id, answered);
                answered += 1;
            }
            Response::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
    drop(saying.await.unwrap());
}
