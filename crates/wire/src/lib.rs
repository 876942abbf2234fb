//! What is on the wire: the messages of our gRPC API, and what must be known of Kafka's requests before one is decoded.
//!
//! Pure: no I/O, no runtime, no clock. Services are generated in crates `broker` and `client` over [`v1`].

/// Kafka's protocol: which requests we take, and guards that make them safe to decode.
pub mod kafka;

/// Answers with many records, written straight from the bytes in which the records are.
pub mod outgoing;

/// What producers send over gRPC, with their records left in place.
pub mod received;

/// Messages of `proto/lakebed/v1`, generated. The comments there are the reference.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/lakebed.v1.rs"));
}

/// Messages of `proto/lakebed/cluster/v1`, generated: what brokers tell each other.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod cluster {
    include!(concat!(env!("OUT_DIR"), "/lakebed.cluster.v1.rs"));
}

/// `google.rpc.Status`, generated.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod rpc {
    include!(concat!(env!("OUT_DIR"), "/google.rpc.rs"));
}

/// The compiled `proto/` with everything that it imports, as an encoded `google.protobuf.FileDescriptorSet`: what
/// gRPC reflection serves.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lakebed.v1.descriptors"));

#[cfg(test)]
mod tests;
