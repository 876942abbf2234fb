//! Generates the messages of `proto/` (no services) and their descriptors. Needs no `protoc`.

use std::error::Error;
use std::path::PathBuf;

const FILES: [&str; 6] = [
    "lakebed/v1/records.proto",
    "lakebed/v1/errors.proto",
    "lakebed/v1/produce_service.proto",
    "lakebed/v1/consume_service.proto",
    "lakebed/v1/admin_service.proto",
    "lakebed/v1/group_service.proto",
];

const CLUSTER: &str = "lakebed/cluster/v1/cluster_service.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let proto = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", proto.display());

    let mut compiler = protox::Compiler::new([&proto])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out_dir.join("lakebed.v1.descriptors"), compiler.encode_file_descriptor_set())?;

    // What brokers tell each other is not for clients, so not among what reflection serves.
    messages().bytes(".lakebed.cluster").compile_fds(protox::compile([CLUSTER], [&proto])?)?;
    // On its own, for the messages of Lakebed name it by its place in this crate.
    messages().compile_fds(protox::compile(["google/rpc/status.proto"], [&proto])?)?;
    messages()
        .extern_path(".google.rpc", "crate::rpc")
        // Payloads are slices of the buffer that arrived, never copies; maps have one order.
        .bytes(".lakebed.v1")
        .btree_map(".lakebed.v1")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn messages() -> tonic_prost_build::Builder {
    tonic_prost_build::configure().build_client(false).build_server(false).emit_rerun_if_changed(false)
}
