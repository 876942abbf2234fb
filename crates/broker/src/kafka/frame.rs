//! Frames: a length of four bytes, then that many bytes.
//!
//! 1. Nothing is allocated for a claim: a buffer grows with what arrives.
//! 2. The bytes of frames that are being read or worked on are accounted broker-wide before they are read, step by step as they
//!    arrive; when there is no room, their sockets are not read. A claim alone takes one step from the others. Produce has a budget of
//!    its own, so that producers who wait leave room for everybody else.
//! 3. Only Produce may be large: decoding inflates the other messages many times over.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use lakebed_store::buffers::{BufferPool, STEP_BYTES};
use lakebed_wire::kafka;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::time::timeout;

use crate::request_memory::{RequestBudget, RequestBudgets, RequestMemory};

/// Small frames are cut out of a read buffer of this size; a large one is read past it.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// What a frame may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameLimits {
    /// Largest Produce, in bytes.
    pub(crate) produce_bytes_max: usize,
    /// Largest of all others, in bytes.
    pub(crate) other_bytes_max: usize,
    /// Longest pause between frames.
    pub(crate) idle_max: Duration,
    /// Longest pause within a frame; then it is given up with its share of memory.
    pub(crate) stall_max: Duration,
}

fn budget_of(budgets: &RequestBudgets, api_key: i16) -> &RequestBudget {
    if api_key == kafka::PRODUCE { &budgets.produce } else { &budgets.other }
}

/// One frame without its length.
#[derive(Debug)]
pub(crate) struct Frame {
    /// From the request header on.
    pub(crate) bytes: Bytes,
    /// Its share of the budget; dropped when somebody else accounts for the bytes, or when it is answered.
    pub(crate) memory: RequestMemory,
}

/// Why no frame can be read any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The claim is out of bounds.
    #[error(transparent)]
    Length(#[from] kafka::FrameError),
    /// The peer closed in the middle.
    #[error("the peer closed after {received} of {claimed} bytes of a frame")]
    Cut {
        /// What arrived.
        received: usize,
        /// What was announced.
        claimed: usize,
    },
    /// The peer went silent in the middle.
    #[error("nothing arrived for too long after {received} of {claimed} bytes of a frame")]
    Stalled {
        /// What arrived.
        received: usize,
        /// What was announced.
        claimed: usize,
    },
    /// No request for too long.
    #[error("idle for {} s", idle.as_secs())]
    Idle {
        /// The limit.
        idle: Duration,
    },
    /// The socket failed.
    #[error("reading failed")]
    Io(#[from] std::io::Error),
}

/// Cuts frames out of a stream of bytes.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    source: BufReader<R>,
    pool: BufferPool,
    budgets: RequestBudgets,
    limits: FrameLimits,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames from `source`.
    pub(crate) fn new(source: R, pool: BufferPool, budgets: RequestBudgets, limits: FrameLimits) -> Self {
        Self { source: BufReader::with_capacity(READ_BUFFER_BYTES, source), pool, budgets, limits }
    }

    /// The next frame; `None` if the peer closed between frames.
    ///
    /// # Cancel
    /// Part of a frame may be lost: after that, only close.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let idle = self.limits.idle_max;
        if timeout(idle, self.source.fill_buf()).await.map_err(|_| FrameError::Idle { idle })??.is_empty() {
            return Ok(None);
        }
        // The length, and the API key behind it, which decides on the limit.
        let mut head = Vec::with_capacity(6);
        self.read_to(&mut head, 4).await?;
        let claimed = (&head[..4]).get_i32();
        let frame_bytes = kafka::frame_length(claimed, self.limits.produce_bytes_max)?;
        self.read_to(&mut head, 6).await.map_err(|error| error.of_frame(4, frame_bytes))?;
        let api_key = (&head[4..]).get_i16();
        if api_key != kafka::PRODUCE {
            kafka::frame_length(claimed, self.limits.other_bytes_max)?;
        }
        let mut memory = RequestMemory::default();
        let mut buffer = self.pool.take_for_claim(frame_bytes);
        buffer.put_i16(api_key);
        let mut allowed = 0;
        while buffer.len() < frame_bytes {
            let step = allowed.max(STEP_BYTES).min(frame_bytes - allowed);
            budget_of(&self.budgets, api_key).grow(&mut memory, step).await;
            allowed += step;
            buffer.reserve_exact(allowed - buffer.len());
            self.read_to(&mut buffer, allowed).await.map_err(|error| error.of_frame(0, frame_bytes))?;
        }
        Ok(Some(Frame { bytes: self.pool.freeze(buffer), memory }))
    }

    /// Reads until `buffer` holds `end` bytes, for which it has room.
    async fn read_to(&mut self, buffer: &mut Vec<u8>, end: usize) -> Result<(), FrameError> {
        while buffer.len() < end {
            let received = buffer.len();
            let mut target = (&mut *buffer).limit(end - received);
            match timeout(self.limits.stall_max, self.source.read_buf(&mut target)).await {
                Err(_) => return Err(FrameError::Stalled { received, claimed: end }),
                Ok(Ok(0)) => return Err(FrameError::Cut { received, claimed: end }),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl FrameError {
    /// The same, counted from the beginning of the frame instead of that of its length.
    fn of_frame(self, head: usize, claimed: usize) -> Self {
        match self {
            Self::Cut { received, .. } => Self::Cut { received: received - head, claimed },
            Self::Stalled { received, .. } => Self::Stalled { received: received - head, claimed },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FrameLimits = FrameLimits {
        produce_bytes_max: 1 << 20,
        other_bytes_max: 1 << 16,
        idle_max: Duration::from_secs(600),
        stall_max: Duration::from_secs(600),
    };

    fn reader(input: Vec<u8>) -> FrameReader<std::io::Cursor<Vec<u8>>> {
        FrameReader::new(std::io::Cursor::new(input), BufferPool::new(1 << 20), RequestBudgets::new(1 << 20), LIMITS)
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes
    }

    #[tokio::test]
    async fn frames_come_whole_and_in_order_whatever_their_size() {
        let bodies: Vec<Vec<u8>> = [8, 9, 20_000, 300_000, 8]
            .iter()
            .map(|size| (0..*size).map(|i| (i % 7) as u8 * u8::from(i > 1)).collect())
            .collect();
        let mut reader = reader(bodies.iter().flat_map(|body| framed(body)).collect());
        for body in &bodies {
            assert_eq!(reader.next().await.unwrap().unwrap().bytes, body);
        }
        assert!(reader.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_claim_out_of_bounds_is_refused_before_anything_is_read() {
        for claimed in [i32::MAX, i32::MIN, -1, 0, 7, (1 << 20) + 1] {
            let error = reader(claimed.to_be_bytes().to_vec()).next().await.unwrap_err();
            assert!(matches!(error, FrameError::Length(_)), "{error}");
        }
    }

    #[tokio::test]
    async fn only_produce_may_be_large() {
        let mut metadata = framed(&[0; (1 << 16) + 1]);
        metadata[5] = 3;
        let error = reader(metadata).next().await.unwrap_err();
        assert!(matches!(error, FrameError::Length(kafka::FrameError::TooLarge { .. })), "{error}");
        assert!(reader(framed(&[0; (1 << 16) + 1])).next().await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_half_sent_frame_is_an_error_that_says_how_much_came() {
        let mut input = framed(&[0; 1000]);
        input.truncate(104);
        let error = reader(input).next().await.unwrap_err();
        assert!(matches!(error, FrameError::Cut { received: 100, claimed: 1000 }), "{error}");
    }

    #[tokio::test]
    async fn a_silent_peer_is_given_up_between_frames_and_within_one() {
        let soon = Duration::from_millis(1);
        let (mut peer, socket) = tokio::io::duplex(64);
        let limits = FrameLimits { idle_max: soon, stall_max: soon, ..LIMITS };
        let mut reader = FrameReader::new(socket, BufferPool::new(0), RequestBudgets::new(1 << 20), limits);
        assert!(matches!(reader.next().await.unwrap_err(), FrameError::Idle { .. }));
        tokio::io::AsyncWriteExt::write_all(&mut peer, &[0, 0, 0, 90, 0, 0, 0]).await.unwrap();
        assert!(matches!(reader.next().await.unwrap_err(), FrameError::Stalled { received: 3, claimed: 90 }));
    }

    /// Reads frames of which all are accounted in `budget`.
    fn read_with(budget: &RequestBudget, input: Vec<u8>) -> FrameReader<std::io::Cursor<Vec<u8>>> {
        let budgets = RequestBudgets { produce: budget.clone(), other: budget.clone() };
        FrameReader::new(std::io::Cursor::new(input), BufferPool::new(0), budgets, LIMITS)
    }

    #[tokio::test]
    async fn produce_frames_that_wait_leave_room_for_others() {
        let budgets = RequestBudgets::new(256 * 1024);
        let read = |input| FrameReader::new(std::io::Cursor::new(input), BufferPool::new(0), budgets.clone(), LIMITS);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(read(framed(&[0; 60_000])).next().await.unwrap().unwrap());
        }
        let mut fourth = read(framed(&[0; 60_000]));
        assert!(futures::poll!(std::pin::pin!(fourth.next())).is_pending(), "no room for Produce is left");
        let mut metadata = framed(&[0; 60_000]);
        metadata[5] = 3;
        assert!(read(metadata).next().await.unwrap().is_some());
    }

    #[tokio::test]
    async fn frames_of_all_connections_share_one_budget() {
        let budget = RequestBudget::new(64 * 1024);
        let first = read_with(&budget, framed(&[0; 60_000])).next().await.unwrap().unwrap();
        let mut other = read_with(&budget, framed(&[0; 60_000]));
        let mut second = std::pin::pin!(other.next());
        assert!(futures::poll!(&mut second).is_pending());
        drop(first.memory);
        assert!(second.await.unwrap().is_some());
    }

    #[tokio::test]
    async fn large_frames_that_fill_the_budget_together_get_through_one_by_one() {
        let budget = RequestBudget::new(5 * STEP_BYTES);
        let large = framed(&[0; 15 * STEP_BYTES]);
        let reading = (0..5).map(|_| {
            let mut reader = read_with(&budget, large.clone());
            async move { reader.next().await.unwrap().unwrap().bytes.len() }
        });
        assert_eq!(futures::future::join_all(reading).await, [15 * STEP_BYTES; 5]);
    }
}
