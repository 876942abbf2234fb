//! The one door to the bucket: *did the write happen?*
//!
//! A [`Store`] is a root (`memory://`, a local directory, or a bucket) under which objects are created, read, listed and
//! deleted. Objects never change: the way to write is [`Store::create`], a PUT-if-absent whose outcome is one of
//! *done*, *not done* and *unknown*; large ones are created [in parts](Store::create_in_parts). Only a hint, which may be wrong without harm, is written by [`Store::overwrite`]. What a store must give for that is create-if-absent and listings that show what
//! was created before. A cloud store is asked at a pace that it bears ([`pace`]), and again where it is slow ([`hedge`]).
//!
//! 1. What a create reports as done is durable: on a local directory file and directory are synced.
//! 2. A reader never gets fewer bytes than it asked for, nor bytes that are not durable.
//! 3. Every operation ends: attempts are bounded in number and time, and so is the wait before each for its [turn](pace).
//! 4. No clock and no chance but what comes in: waits are in tokio's time, jitter comes from [`StoreOptions::seed`].
//!
//! This crate knows nothing of what is in the objects, except that a writer's nonce is near the end of each
//! (see [`create`]).

pub mod address;
pub mod backend;
pub mod buffers;
pub mod check;
pub mod create;
pub mod faults;
pub mod hedge;
pub mod histogram;
pub mod key;
pub mod pace;
pub mod price;
pub mod upload;

mod cloud;
mod counts;
mod gate;
mod health;
mod local;
mod memory;
mod open;
mod overwrite;
mod payload;
mod read;
mod read_only;
mod redact;
mod remedy;
mod request;
mod retry;
mod span;
mod store;

pub use address::Address;
pub use backend::{Backend, Cause, Listed, StoreDate};
pub use buffers::BufferPool;
pub use counts::{Counts, Latencies, OperationCounts};
pub use create::{CreateError, Created};
pub use gate::Paced;
pub use health::Trouble;
pub use hedge::Hedging;
pub use histogram::Histogram;
pub use key::{Directory, Key, KeyError};
pub use memory::MemoryBackend;
pub use open::OpenError;
pub use overwrite::OverwriteError;
pub use pace::{Pacing, Priority};
pub use payload::Payload;
pub use read::{DeleteError, ListError, Listing, ReadError, Suffix};
pub use redact::redact_url;
pub use retry::RetryPolicy;
pub use span::TRACE_TARGET;
pub use store::{Store, StoreOptions, Variables};
pub use upload::Upload;
