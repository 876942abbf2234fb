//! Generates the gRPC clients of `proto/` over the messages of crate `lakebed-wire`. Needs no `protoc`.

use std::error::Error;
use std::path::PathBuf;

const FILES: [&str; 4] = [
    "lakebed/v1/produce_service.proto",
    "lakebed/v1/consume_service.proto",
    "lakebed/v1/admin_service.proto",
    "lakebed/v1/group_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let proto = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", proto.display());
    tonic_prost_build::configure()
        .build_server(false)
        .build_client(true)
        .extern_path(".lakebed.v1", "::lakebed_wire::v1")
        .extern_path(".google.rpc", "::lakebed_wire::rpc")
        .emit_rerun_if_changed(false)
        .compile_fds(protox::compile(FILES, [&proto])?)?;
    Ok(())
}
