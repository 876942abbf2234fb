//! What a producer is answered, and the ticket by which it waits for that.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use lakebed_log::{AppendError, Closed};
use lakebed_model::{BatchRefusal, Offset, Refusal};
use tokio::sync::oneshot;

/// A batch that is in the log, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Whether it had been appended before, by an earlier attempt of its producer.
    pub duplicate: bool,
    /// The time that all its records got, if its topic has log append time. Not known of a duplicate.
    pub log_append_time_ms: Option<i64>,
    /// The first offset of its partition that can be read.
    pub log_start: Offset,
}

/// A batch that is not in the log, or perhaps is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// The log's rules refuse it: it is not in the log, and the same batch would be refused again.
    #[error("refused: {0}")]
    Refused(BatchRefusal),
    /// It is not in the log. It may be sent again.
    #[error("not committed: {why}")]
    NotDone {
        /// What stood in the way.
        why: Obstacle,
    },
    /// It may be in the log. Only an idempotent producer may send it again.
    #[error("it is unknown whether it was committed: {why}")]
    Unknown {
        /// What stood in the way of knowing.
        why: Obstacle,
    },
}

/// What stood in the way of a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The log is closed.
    #[error(transparent)]
    Log(Closed),
    /// The log refuses the flush as a whole.
    #[error("its flush was refused: {0}")]
    Flush(Refusal),
    /// The flush could not be sealed.
    #[error("its flush could not be sealed: {0}")]
    Seal(String),
    /// The segment could not be stored.
    #[error("its segment could not be stored: {0}")]
    Upload(String),
    /// It takes more memory than there is for all batches together.
    #[error("it needs {bytes} bytes of the buffer, which has {buffer_bytes}")]
    TooLarge {
        /// What it needs.
        bytes: usize,
        /// What there is.
        buffer_bytes: usize,
    },
    /// So many runs are live that no more fit into memory, and merging has nothing left to do that would make them fewer.
    #[error(
        "{live_runs} runs are live of at most {live_runs_max}, and nothing is left to merge: delete topics that are not needed, or give the broker more memory"
    )]
    RunsExhausted {
        /// How many are live.
        live_runs: usize,
        /// From how many on batches are turned away.
        live_runs_max: usize,
    },
    /// The write path is shutting down and takes no more batches.
    #[error("the broker is shutting down")]
    ShuttingDown,
    /// The write path broke off.
    #[error("the write path broke off")]
    BrokenOff,
}

impl From<AppendError> for ProduceError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NotDone { why } => Self::NotDone { why: Obstacle::Log(why) },
            AppendError::Unknown { why } => Self::Unknown { why: Obstacle::Log(why) },
            // A flush is submitted once under its id, so a refusal is about this submission: nothing of it was committed.
            AppendError::Refused(refusal) => Self::NotDone { why: Obstacle::Flush(refusal) },
        }
    }
}

/// What is sent to a ticket.
pub(crate) type Answer = Result<Produced, ProduceError>;

/// Resolves when the fate of one batch is known and durable.
///
/// # Cancel
/// Dropping it changes nothing for the batch.
#[derive(Debug)]
#[must_use = "a batch is acknowledged by its ticket"]
pub struct Ticket {
    receiver: oneshot::Receiver<Answer>,
}

impl Ticket {
    pub(crate) fn new() -> (oneshot::Sender<Answer>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self { receiver })
    }
}

impl Future for Ticket {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let answer = Pin::new(&mut self.receiver).poll(context);
        answer.map(|answer| answer.unwrap_or(Err(ProduceError::Unknown { why: Obstacle::BrokenOff })))
    }
}
