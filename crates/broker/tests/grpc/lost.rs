//! Clients that go away, at every step: what the write path has taken goes its way, the rest is as if never sent, and nothing is kept.

use bytes::{Bytes, BytesMut};
use lakebed_wire::v1;
use lakebed_wire::v1::produce_stream_request::Request as Say;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::client::GrpcService;
use tonic::codegen::http;
use tonic::transport::Channel;

use crate::client::{Running, STREAM, Stream, batch, connect, framed, reason, say, values};

/// Passes on what a client sends, but only its first `bytes` bytes; then cuts both sides off.
async fn cut_after(bytes: usize, broker: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(broker).await.unwrap();
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let forth = async {
            let (mut left, mut buffer) = (bytes, vec![0; 4096]);
            while left > 0 {
                let most = left.min(buffer.len());
                let count = from_client.read(&mut buffer[..most]).await.unwrap_or(0);
                if count == 0 || to_server.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
                left -= count;
            }
        };
        let back = tokio::io::copy(&mut from_server, &mut to_client);
        tokio::select! {
            () = forth => {}
            _ = back => {}
        }
    });
    address
}

/// A value so large that no two batches share a frame of HTTP/2.
fn value(id: u64) -> String {
    format!("{id:04000}")
}

/// Waits until the write path holds nothing any more.
async fn settled(broker: &Running, free_bytes: usize) {
    while broker.rooms.ingest.free_bytes() != free_bytes {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_that_is_lost_at_any_byte_leaves_a_prefix_of_what_was_sent_with_all_that_was_acknowledged() {
    const BATCHES: u64 = 12;
    let broker = Running::in_memory().await;
    let free_bytes = broker.rooms.ingest.free_bytes();
    let (mut none, mut some, mut all) = (0, 0, 0);
    for (attempt, bytes) in (60..320_000).step_by(8_009).enumerate() {
        let topic = format!("t{attempt}");
        broker.topic(&topic, 1).await;
        let address = cut_after(bytes, broker.http).await;
        let name = topic.clone();
        let client = async move {
            let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await;
            let Ok(channel) = channel else { return 0 };
            let batches = (0..BATCHES).map(|id| say(Say::Batch(batch(id, &[value(id).as_bytes(); 6]))));
            let init = say(Say::Init(v1::ProduceInit { topic, partition: Some(0) }));
            let requests = futures::stream::iter(std::iter::once(init).chain(batches));
            let mut grpc = tonic::client::Grpc::new(channel);
            if grpc.ready().await.is_err() {
                return 0;
            }
            let codec: tonic_prost::ProstCodec<v1::ProduceStreamRequest, v1::ProduceStreamResponse> =
                tonic_prost::ProstCodec::default();
            let path = http::uri::PathAndQuery::from_static(STREAM);
            let Ok(answer) = grpc.streaming(tonic::Request::new(requests), path, codec).await else { return 0 };
            let mut responses = answer.into_inner();
            let mut acknowledged = 0;
            while let Ok(Some(answer)) = responses.message().await {
                if let Some(v1::produce_stream_response::Response::Ack(ack)) = answer.response {
                    assert_eq!(ack.correlation_id, acknowledged);
                    acknowledged += 1;
                }
            }
            acknowledged
        };
        let acknowledged = client.await;
        settled(&broker, free_bytes).await;
        let there = values(&broker.rooms, &name, 0).await;
        let stored = there.len() as u64 / 6;
        let expected: Vec<Bytes> = (0..stored).flat_map(|id| vec![Bytes::from(value(id)); 6]).collect();
        assert_eq!(there, expected, "cut after {bytes} bytes: whole batches, in order, without a gap");
        assert!(acknowledged <= stored, "cut after {bytes} bytes: {acknowledged} acknowledged, {stored} stored");
        match stored {
            0 => none += 1,
            BATCHES => all += 1,
            _ => some += 1,
        }
    }
    assert!(none > 0 && some > 0 && all > 0, "cut at every step: {none} none, {some} some, {all} all");
    broker.stop().await;
}

/// A request whose body is these bytes, then silence.
fn bytes_then_silence(chunks: Vec<Bytes>) -> http::Request<tonic::body::Body> {
    use futures::StreamExt;
    let chunks = futures::stream::iter(chunks.into_iter().map(Ok::<_, std::convert::Infallible>));
    let body = axum::body::Body::from_stream(chunks.chain(futures::stream::pending()));
    http::Request::post(STREAM)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(body))
        .unwrap()
}

fn opening() -> Bytes {
    framed(&say(Say::Init(v1::ProduceInit { topic: "t".to_owned(), partition: Some(0) })))
}

/// Sends a request as it is.
async fn call(channel: &mut Channel, request: http::Request<tonic::body::Body>) -> http::Response<tonic::body::Body> {
    std::future::poll_fn(|context| GrpcService::poll_ready(channel, context)).await.unwrap();
    channel.call(request).await.unwrap()
}

/// The status with which a response ends, after so many messages.
async fn end_of(response: http::Response<tonic::body::Body>) -> (usize, tonic::Status) {
    use axum::body::HttpBody;
    let mut body = Box::pin(response.into_body());
    let mut received = BytesMut::new();
    loop {
        let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await.unwrap().unwrap();
        match frame.into_data() {
            Ok(data) => received.extend_from_slice(&data),
            Err(frame) => {
                let status = tonic::Status::from_header_map(frame.trailers_ref().unwrap()).unwrap();
                let mut messages = 0;
                while !received.is_empty() {
                    let length = u32::from_be_bytes(received[1..5].try_into().unwrap()) as usize;
                    drop(received.split_to(5 + length));
                    messages += 1;
                }
                return (messages, status);
            }
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_message_end_the_stream_when_what_came_before_is_answered() {
    let broker = Running::in_memory().await;
    broker.topic("t", 1).await;
    let good = framed(&say(Say::Batch(batch(1, &[b"x"]))));
    let cases: [(&'static [u8], &str); 5] = [
        (b"\0\0\0\0\x02\x12\x05", "InvalidArgument INVALID_REQUEST"),
        (b"\x02\0\0\0\0", "InvalidArgument INVALID_REQUEST"),
        (b"\x01\0\0\0\0", "InvalidArgument INVALID_REQUEST"),
        (b"\0\0\0\0\x02\x0b\x0c", "InvalidArgument INVALID_REQUEST"),
        (b"\0\xff\xff\xff\xff", "InvalidArgument MESSAGE_TOO_LARGE"),
    ];
    for (place, (wrong, expected)) in cases.into_iter().enumerate() {
        let request = bytes_then_silence(vec![opening(), good.clone(), Bytes::from_static(wrong)]);
        let (messages, status) = end_of(call(&mut connect(broker.http).await, request).await).await;
        assert_eq!((messages, reason(&status)), (2, expected.to_owned()), "{wrong:?}: {status}");
        assert_eq!(values(&broker.rooms, "t", 0).await.len(), place + 1);
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_no_answers_and_goes_leaves_nothing_behind() {
    let broker = Running::in_memory().await;
    broker.topic("t", 1).await;
    let free_bytes = broker.rooms.ingest.free_bytes();
    for _ in 0..5 {
        let stream = Stream::open(broker.http, "t", Some(0)).await;
        for id in 0..50 {
            stream.send(batch(id, &[&[7; 1000]])).await;
        }
        drop(stream);
    }
    settled(&broker, free_bytes).await;
    // Nothing is waited for when the broker stops, or this would take its limits.
    broker.stop().await;
}
