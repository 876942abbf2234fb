//! A producer over `ProduceStream`.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lakebed_wire::received::{self, ProduceStreamRequest, StreamRequest};
use lakebed_wire::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::server::Server;
use crate::{Measured, Meter, TOPIC};

/// A client with room for what is on its way.
pub(crate) async fn connect(address: SocketAddr) -> Grpc<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap().tcp_nodelay(true);
    let endpoint = endpoint.initial_stream_window_size(4 << 20).initial_connection_window_size(8 << 20);
    let mut grpc = Grpc::new(endpoint.connect().await.unwrap());
    grpc.ready().await.unwrap();
    grpc
}

/// Sends a message again and again over one stream, `in_flight` at a time; it has to be answered in order.
pub(crate) async fn stream(
    server: &Server,
    address: SocketAddr,
    payload: Bytes,
    in_flight: usize,
    time: Duration,
) -> Measured {
    let mut grpc = connect(address).await;
    // Messages as they are decoded by a broker: the records are encoded once.
    let codec: ProstCodec<ProduceStreamRequest, v1::ProduceStreamResponse> = Default::default();
    let (requests, receiver) = mpsc::channel(in_flight);
    let path = PathAndQuery::from_static("/lakebed.v1.ProduceService/ProduceStream");
    let opened = grpc.streaming(Request::new(ReceiverStream::new(receiver)), path, codec).await;
    let mut responses = opened.unwrap().into_inner();
    let init = v1::ProduceInit { topic: TOPIC.to_owned(), partition: Some(0) };
    requests.send(ProduceStreamRequest { request: Some(StreamRequest::Init(init)) }).await.unwrap();
    responses.next().await.unwrap().unwrap();
    let batch = |correlation_id| ProduceStreamRequest {
        request: Some(StreamRequest::Batch(received::ProduceBatch {
            correlation_id,
            payload: received::Payload { last: Some(received::Content::Records(payload.clone())), pieces: 1 },
            ..received::ProduceBatch::default()
        })),
    };
    let meter = Meter::begin(server);
    let (mut sent, mut answered) = (0, 0);
    while sent < in_flight as u64 {
        requests.send(batch(sent)).await.unwrap();
        sent += 1;
    }
    while answered < sent {
        let response = responses.next().await.unwrap().unwrap().response;
        let Some(v1::produce_stream_response::Response::Ack(ack)) = response else { panic!("{response:?}") };
        assert_eq!(ack.correlation_id, answered);
        answered += 1;
        if meter.elapsed() < time {
            requests.send(batch(sent)).await.unwrap();
            sent += 1;
        }
    }
    meter.end(answered)
}
