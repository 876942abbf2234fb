//! One connection: requests of crate kafka-protocol and their answers.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A request as it stands on the wire.
pub(crate) fn frame<R: Request>(version: i16, request: &R) -> Vec<u8> {
    let mut body = BytesMut::new();
    let header = RequestHeader::default().with_request_api_key(R::KEY).with_request_api_version(version);
    header.encode(&mut body, R::header_version(version)).unwrap();
    request.encode(&mut body, version).unwrap();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

/// What an answer says.
pub(crate) fn decoded<R: Request>(version: i16, mut answer: Bytes) -> R::Response {
    ResponseHeader::decode(&mut answer, R::Response::header_version(version)).unwrap();
    R::Response::decode(&mut answer, version).unwrap()
}

pub(crate) struct Connection {
    pub(crate) reading: OwnedReadHalf,
    pub(crate) writing: OwnedWriteHalf,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (reading, writing) = stream.into_split();
        Self { reading, writing }
    }

    pub(crate) async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.writing.write_all(&frame(version, request)).await.unwrap();
        decoded::<R>(version, answer(&mut self.reading).await)
    }
}

/// The next whole answer.
pub(crate) async fn answer(reading: &mut OwnedReadHalf) -> Bytes {
    let length = reading.read_u32().await.unwrap();
    let mut answer = BytesMut::zeroed(length as usize);
    reading.read_exact(&mut answer).await.unwrap();
    answer.freeze()
}
