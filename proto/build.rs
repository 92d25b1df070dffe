//! Compiles `proto/sagwan/v1/*.proto` with protox, a protobuf compiler in Rust, so that a build needs no protoc.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const PROTOS: [&str; 4] =
    ["sagwan/v1/common.proto", "sagwan/v1/log.proto", "sagwan/v1/group.proto", "sagwan/v1/admin.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(PROTOS, ["proto"])?;
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("sagwan.bin");
    // For the reflection service.
    std::fs::write(descriptors, files.encode_to_vec())?;
    tonic_prost_build::configure()
        // Record bytes stay slices of the received buffer.
        .bytes(".sagwan.v1")
        .compile_fds(files)?;
    Ok(())
}
