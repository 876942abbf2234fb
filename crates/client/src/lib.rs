//! The Rust client of Lakebed's gRPC API.
//!
//! [`Client`] creates topics, produces and fetches; [`Consumer`] is a stream of batches that grants credit as it is read. Errors say
//! what became of the request: see [`ClientError::is_retriable`] and [`ClientError::may_have_happened`].
//!
//! What it does not do: batch, retry or reconnect by itself.

mod connection;
mod consumer;
mod error;

pub use connection::Client;
pub use consumer::{ConsumeOptions, Consumer, Start};
pub use error::ClientError;
pub use lakebed_wire::kafka::partition_for_key;

/// The generated gRPC clients; their messages are those of `lakebed_wire::v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod services {
    tonic::include_proto!("lakebed.v1");
}
