//! Compiles the public gRPC messages with protox, so that no protoc has to be installed, and
//! keeps their descriptors for reflection.

use std::path::PathBuf;

const PROTO: &str = "mobula/inference/v1/inference.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.join(PROTO).display());
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).open_file(PROTO)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("inference.descriptors"),
        compiler.encode_file_descriptor_set(),
    )?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
