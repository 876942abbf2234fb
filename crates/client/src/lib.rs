//! The Rust client of Lakebed's gRPC API.
//!
//! [`Client`] creates topics, produces and fetches with calls that answer once. [`Producer`] batches records and streams them;
//! [`Consumer`] is a stream of batches that grants credit as it is read; [`GroupConsumer`] is one that shares topics with the other members of its
//! group. All reconnect. Errors say what became of what was sent: see
//! [`ClientError::is_retriable`] and [`ClientError::may_have_happened`].
//!
//! ```no_run
//! use futures::StreamExt;
//! use lakebed_client::{Client, ClientError, Message, Start};
//!
//! # async fn example() -> Result<(), ClientError> {
//! let client = Client::connect("127.0.0.1:7070").await?;
//!
//! let producer = client.producer("orders").open().await?;
//! let stored = producer.send(Message::new("42 pies").key("alice")).await?.await?;
//! println!("partition {} has it at offset {}", stored.partition, stored.offset);
//! producer.close().await?;
//!
//! let mut records = client.consumer("orders", Start::Earliest).open().await?.records();
//! while let Some(record) = records.next().await {
//!     let (partition, record) = record?;
//!     println!("{partition} {:?} {:?}", record.offset, record.value);
//! }
//! # Ok(())
//! # }
//! ```

mod backoff;
mod connection;
mod consumer;
mod dial;
mod error;
mod group;
mod message;
mod producer;

pub use backoff::Retry;
pub use connection::{Client, ClientBuilder, Readiness};
pub use consumer::{Batch, Consumer, ConsumerBuilder, Payload, Records, Start, Stop, Tail};
pub use error::ClientError;
pub use group::{GroupBatch, GroupBuilder, GroupConsumer, GroupRecords};
pub use lakebed_wire::kafka::partition_for_key;
pub use message::Message;
pub use producer::{Ack, Producer, ProducerBuilder, Stored};

/// The generated gRPC clients; their messages are those of `lakebed_wire::v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod services {
    tonic::include_proto!("lakebed.v1");
}
