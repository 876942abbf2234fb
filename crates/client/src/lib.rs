//! The Rust gRPC client.

/// The generated gRPC clients; their messages are those of `lakebed_wire::v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod services {
    tonic::include_proto!("lakebed.v1");
}
