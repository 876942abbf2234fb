//! Responses on their way out: parts that are written one after another, record payloads among them without a copy.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::Encodable;
use lakebed_wire::kafka::Api;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// A client that takes nothing for this long is given up.
const STALL_MAX: Duration = Duration::from_secs(30);
/// At most this many parts go into one system call.
const SLICES_MAX: usize = 64;

/// A whole response with its length in front.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Response {
    parts: Vec<Bytes>,
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    /// It is answered.
    Send(Response),
    /// It has no answer (Produce with acks=0).
    Nothing,
    /// It can't be answered: the connection is closed.
    Close {
        /// Why, for the log.
        why: String,
    },
}

/// Where a response goes: what the encoder must know of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    /// The kind of request.
    pub(crate) api: &'static Api,
    /// Its version.
    pub(crate) version: i16,
    /// Its number, chosen by the client.
    pub(crate) correlation_id: i32,
}

impl ReplyTo {
    /// The answer with this body.
    pub(crate) fn send(&self, body: &impl Encodable) -> Reply {
        let mut bytes = BytesMut::with_capacity(256);
        bytes.put_u32(0);
        bytes.put_i32(self.correlation_id);
        if self.api.response_header_version(self.version) >= 1 {
            bytes.put_u8(0); // No tagged fields.
        }
        match body.encode(&mut bytes, self.version) {
            Ok(()) => {
                let length = u32::try_from(bytes.len() - 4).expect("a response is bounded far below 4 GiB");
                bytes[..4].copy_from_slice(&length.to_be_bytes());
                Reply::Send(Response::of_parts(vec![bytes.freeze()]))
            }
            Err(error) => self.unencodable(error),
        }
    }

    /// What is left to do when an answer can't be encoded: a bug of ours.
    pub(crate) fn unencodable(&self, error: impl std::fmt::Display) -> Reply {
        tracing::error!(api = self.api.name, version = self.version, %error, "an answer can't be encoded");
        Reply::Close { why: format!("the answer to {} v{} can't be encoded: {error}", self.api.name, self.version) }
    }
}

impl Response {
    /// A response in parts, of which the first begins with the length of all.
    pub(crate) fn of_parts(parts: Vec<Bytes>) -> Self {
        Self { parts }
    }

    /// All its bytes in one piece.
    pub(crate) fn into_bytes(mut self) -> Bytes {
        match self.parts.len() {
            1 => self.parts.swap_remove(0),
            _ => self.parts.concat().into(),
        }
    }
}

/// Responses that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    parts: VecDeque<Bytes>,
    bytes: usize,
}

impl Outgoing {
    /// Appends a response.
    pub(crate) fn push(&mut self, response: Response) {
        for part in response.parts {
            self.bytes += part.len();
            if !part.is_empty() {
                self.parts.push_back(part);
            }
        }
    }

    /// How many bytes wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes everything.
    ///
    /// # Errors
    /// The socket's, or `TimedOut` if the peer takes nothing for half a minute.
    pub(crate) async fn write_to(&mut self, sink: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        while !self.parts.is_empty() {
            let slices: Vec<IoSlice<'_>> = self.parts.iter().take(SLICES_MAX).map(|part| IoSlice::new(part)).collect();
            let written = timeout(STALL_MAX, sink.write_vectored(&slices)).await??;
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.advance(written);
        }
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while written > 0 {
            let first = self.parts.front_mut().expect("no more is written than there was");
            if first.len() > written {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_pushed_arrives_in_order_through_any_socket_buffer() {
        let mut outgoing = Outgoing::default();
        let mut expected = Vec::new();
        for size in [0_usize, 1, 300, 70_000] {
            let parts = [&b"head"[..], &vec![size as u8; size], b"end"].map(Bytes::copy_from_slice);
            let response = Response::of_parts(parts.to_vec());
            expected.extend_from_slice(&response.clone().into_bytes());
            outgoing.push(response);
        }
        assert_eq!(outgoing.bytes(), expected.len());
        let (mut near, mut far) = tokio::io::duplex(37);
        let writing = async {
            outgoing.write_to(&mut near).await.unwrap();
            drop(near);
        };
        let mut received = Vec::new();
        tokio::join!(writing, async { tokio::io::copy(&mut far, &mut received).await.unwrap() });
        assert_eq!(received, expected);
        assert_eq!(outgoing.bytes(), 0);
    }
}
