//! The commit log of one cell: append, follow, take over, barrier, checkpoint, reclaim.
//!
//! Safety comes from create-if-absent alone, never from a clock or a lease. Six rules carry it, each with a switch in
//! [`broken`] that leaves it out and a simulation that notices:
//!
//! 1. takeovers are never reclaimed;
//! 2. LIST checkpoints after taking over;
//! 3. LIST checkpoints before following a takeover;
//! 4. acknowledge in order;
//! 5. nothing in flight enters a checkpoint, a push, a read or a high watermark;
//! 6. LIST checkpoints when fenced: only if none covers the place did what was in flight not happen.
//!
//! The way of a request: [`Log::submit`] or [`Log::change`] -> `sequencer` (decides, encodes, puts, in one task) -> durable state ->
//! answer. A fenced log answers everything that did not happen with `NotDone` and closes; see [`Log::closed`].

pub mod append_error;
pub mod broken;
mod bucket;
mod checkpoint;
mod counts;
mod feed;
mod fenced;
mod follower;
mod found;
mod handle;
mod join;
mod left;
mod look;
mod open;
mod peers;
mod producers;
mod reclaim;
mod replay;
mod seams;
mod sequencer;
#[cfg(test)]
mod tests;

pub use append_error::{AppendError, BarrierError, ChangeError, Closed};
pub use bucket::DamagedObject;
pub use counts::Counts;
pub use feed::{Fed, Feed};
pub use follower::Following;
pub use found::{FoundError, Interrupted, found, mark_as_to_be_founded, may_be_founded};
pub use handle::{Hold, Log, Pending, Role};
pub use join::{Joined, Known, nonce_of};
pub use left::Left;
pub use look::{Looked, load_checkpoint, look, read_root};
pub use open::{OpenError, Options};
pub use peers::{Follow, PeerError, Peers, Tidings, Told};
pub use replay::ReplayError;
pub use seams::{Offload, Seams, Wall};
