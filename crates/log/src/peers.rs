//! The other brokers, as a broker that follows sees them. The network is a seam: the server's is gRPC, a simulation's is its own.
//!
//! Nothing that a peer says decides safety. A commit that it pushes is durable, for a sequencer pushes none before; whether it is the next
//! one, the state says. Whether a peer is there at all only decides when it is tried to take over.

use std::fmt;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use lakebed_model::{Commit, CommitNumber, Nonce};
use lakebed_segment::commit::Identity;

/// What the sequencer tells who follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The next commit is durable: this one.
    Commit(Box<Commit>),
    /// So many commits are durable; they are to be read.
    Number(CommitNumber),
    /// It is there, and can write.
    Alive,
    /// It is about to stop: this broker is to take over.
    TakeOver,
}

/// Why the sequencer tells nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Nobody listens at its address, or it closed the connection: its process is gone.
    #[error("nobody answers at {address}")]
    Gone {
        /// The address.
        address: String,
    },
    /// Somebody answers there who is not the sequencer, or no more.
    #[error("the broker at {address} is not the sequencer")]
    NotSequencer {
        /// The address.
        address: String,
    },
    /// It may be there.
    #[error("the sequencer at {address} can't be reached: {why}")]
    Unreachable {
        /// The address.
        address: String,
        /// What is known.
        why: String,
    },
}

/// Whom to follow, and from where on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// Whose log it is.
    pub identity: Identity,
    /// The sequencer, by the nonce that owns the log's directory.
    pub sequencer: Nonce,
    /// Where it said that it can be reached.
    pub address: String,
    /// How many commits are known already.
    pub from: CommitNumber,
}

/// What a sequencer tells, one after another; an error ends it.
pub type Tidings = BoxStream<'static, Result<Told, PeerError>>;

/// The way to other brokers.
pub trait Peers: Send + Sync + fmt::Debug {
    /// Asks a sequencer to tell what becomes durable.
    ///
    /// # Cancel Nothing is left behind.
    fn follow(&self, follow: Follow) -> BoxFuture<'static, Result<Tidings, PeerError>>;
}
