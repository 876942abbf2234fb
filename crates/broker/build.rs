//! Generates the gRPC servers of `proto/` over the messages of crate `lakebed-wire`. Needs no `protoc`.

use std::error::Error;
use std::path::PathBuf;

const FILES: [&str; 4] = [
    "lakebed/v1/produce_service.proto",
    "lakebed/v1/consume_service.proto",
    "lakebed/v1/admin_service.proto",
    "lakebed/v1/group_service.proto",
];

const CLUSTER: &str = "lakebed/cluster/v1/cluster_service.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let proto = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", proto.display());
    // What brokers tell each other: each is a server and a client of it.
    tonic_prost_build::configure()
        .build_server(true)
        .build_client(true)
        .extern_path(".lakebed.cluster.v1", "::lakebed_wire::cluster")
        .emit_rerun_if_changed(false)
        .compile_fds(protox::compile([CLUSTER], [&proto])?)?;
    tonic_prost_build::configure()
        .build_server(true)
        .build_client(false)
        .codec_path("crate::grpc::codec::Codec")
        // Those that carry records are written straight from the log's bytes.
        .extern_path(".lakebed.v1.ConsumeResponse", "::lakebed_wire::outgoing::ConsumeAnswer")
        .extern_path(".lakebed.v1.FetchResponse", "::lakebed_wire::outgoing::FetchAnswer")
        .extern_path(".lakebed.v1", "::lakebed_wire::v1")
        // Requests whose records stay in place until they are looked at.
        .extern_path(".lakebed.v1.ProduceRequest", "::lakebed_wire::received::ProduceRequest")
        .extern_path(".lakebed.v1.ProduceStreamRequest", "::lakebed_wire::received::ProduceStreamRequest")
        .extern_path(".google.rpc", "::lakebed_wire::rpc")
        .emit_rerun_if_changed(false)
        .compile_fds(protox::compile(FILES, [&proto])?)?;
    Ok(())
}
