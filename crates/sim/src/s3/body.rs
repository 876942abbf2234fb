//! Bodies of answers: as they are, in pieces with pauses between them, or cut off.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::time::Instant;

use super::latency::Drawn;

/// A reason to close a connection.
pub(crate) type Broken = std::io::Error;

/// The body of an answer.
pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, Broken>;

/// How a body is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Largest piece.
    pub(crate) piece_bytes: usize,
    pub(crate) pace: Pace,
    /// After so many bytes the connection ends.
    pub(crate) cut_after: Option<u64>,
}

/// What passes before a piece is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// As much as the others before it.
    Every(Duration),
    /// As much as its bytes take, at so many in a second.
    BytesPerSecond(f64),
}

impl Pace {
    fn of(self, bytes: usize) -> Duration {
        match self {
            Self::Every(pause) => pause,
            Self::BytesPerSecond(rate) => {
                Drawn { wait: Duration::ZERO, bytes_per_second: Some(rate) }.carrying(bytes as u64)
            }
        }
    }
}

/// What ends a connection that was to be cut.
pub(crate) fn cut() -> Broken {
    Broken::other("cut off as told")
}

pub(crate) fn whole(bytes: impl Into<Bytes>) -> AnswerBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn as_it_is(body: s3s::Body) -> AnswerBody {
    body.map_err(Broken::other).boxed_unsync()
}

pub(crate) fn shaped(body: s3s::Body, shape: Shape) -> AnswerBody {
    StreamBody::new(pieces(body, shape)).boxed_unsync()
}

fn pieces(body: s3s::Body, shape: Shape) -> impl Stream<Item = Result<Frame<Bytes>, Broken>> + Send {
    let begin = (body, Bytes::new(), shape.cut_after, Instant::now());
    futures::stream::unfold(Some(begin), move |state| async move {
        let (mut body, mut rest, left, sent) = state?;
        if left == Some(0) {
            // SUBTLE: what was sent before reaches the socket only if the connection gets to write it before it ends.
            tokio::task::yield_now().await;
            return Some((Err(cut()), None));
        }
        while rest.is_empty() {
            rest = match body.next().await? {
                Ok(bytes) => bytes,
                Err(error) => return Some((Err(Broken::other(error)), None)),
            };
        }
        let left_now = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let piece = rest.split_to(rest.len().min(shape.piece_bytes).min(left_now));
        let left = left.map(|left| left - piece.len() as u64);
        // SUBTLE: by when each piece is due, not by the time since the one before: a timer is late by up to a millisecond, in which a fast
        // connection carries more than a piece.
        let due = sent + shape.pace.of(piece.len());
        tokio::time::sleep_until(due).await;
        Some((Ok(Frame::data(piece)), Some((body, rest, left, due))))
    })
}
