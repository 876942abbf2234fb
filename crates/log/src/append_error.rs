//! What becomes of a request that got no outcome, and how a log ends. Every variant says what happened to the bytes.

use std::time::Duration;

use lakebed_model::{Place, Refusal};

/// Why a flush has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// It did not happen and never will under this submission.
    #[error("not committed: {why}")]
    NotDone {
        /// What stood in the way.
        why: Closed,
    },
    /// It may have been committed.
    #[error("it is unknown whether it was committed: {why}")]
    Unknown {
        /// What stood in the way of knowing.
        why: Closed,
    },
    /// The flush as a whole is refused.
    #[error("refused: {0}")]
    Refused(Refusal),
}

/// Why a change has no outcome.
pub type ChangeError = AppendError;

/// Why a barrier can't be passed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BarrierError {
    /// The log is closed.
    #[error("the log can't be read up to its end: {why}")]
    Closed {
        /// Why.
        why: Closed,
    },
    /// The store gave no answer that would prove where the log ends. Asking again may help.
    #[error("the store has not shown within {} s where the log ends: it can't be reached, or takes no commits", after.as_secs())]
    Unproven {
        /// For how long it was waited for.
        after: Duration,
    },
}

/// Why a log takes no more requests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// Another broker has taken over.
    #[error(
        "another broker has taken over the log: what stands at {at} is not of this broker, which commits nothing more"
    )]
    Fenced {
        /// Where the other's commit stands.
        at: Place,
    },
    /// The log itself is wrong; a human must look.
    #[error("the log is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// Another broker is the sequencer, which this one follows.
    #[error("this broker commits nothing: the sequencer is the one at {sequencer}")]
    Follows {
        /// Where it can be reached.
        sequencer: String,
    },
    /// This broker has followed, and is now to take over.
    #[error("this broker takes the log over just now")]
    Successor,
    /// This broker is shutting down.
    #[error("the broker is shutting down")]
    ShuttingDown,
}
