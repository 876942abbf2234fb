//! Kafka, gRPC and HTTP listeners, configuration and telemetry: where rooms meet.
//!
//! [`Broker::start`] opens the store and the log, connects the write path to the read path, and serves. A broker keeps no state that
//! is not on the bucket. Invariants:
//!
//! 1. Nothing is answered that is not durable.
//! 2. When the log closes (another broker has taken over), nothing more is acknowledged, and [`Broker::run_until`] says why.
//! 3. What a peer claims allocates nothing; what it sends is bounded, per request, per connection and for all together.
//!
//! The way of a request: [`kafka`] (framing, guard, handler) -> `lakebed-ingest` or `lakebed-fetch` -> the answer; refusals are named
//! by the one table in [`reason`].

mod admission;
mod broker;
pub mod check;
mod cluster;
pub mod config;
mod connections;
mod damage;
mod groups;
mod grpc;
mod http;
mod kafka;
pub mod metrics;
#[cfg(test)]
mod one_record;
mod producer_ids;
pub mod readiness;
pub mod reason;
mod request_memory;
mod rooms;
pub mod storage;
pub mod tables;
pub mod topics;

pub use broker::{Broker, RunError, StartError};
pub use config::Config;
pub use damage::DamageLog;
pub use lakebed_store::TRACE_TARGET;
pub use producer_ids::{ProducerIdError, ProducerIds};
pub use rooms::Rooms;
pub use tables::reading::{ReadTableError, table_location};

/// The generated gRPC servers; their messages are those of `lakebed_wire::v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod services {
    tonic::include_proto!("lakebed.v1");

    /// What brokers tell each other.
    pub(crate) mod cluster {
        tonic::include_proto!("lakebed.cluster.v1");
    }
}
