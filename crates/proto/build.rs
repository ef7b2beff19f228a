//! Compiles `proto/` with protox, so that no protoc has to be installed.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let files = [
        "mobula/cluster/v1/control.proto",
        "mobula/cluster/v1/data.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(files, [&root])?;
    tonic_prost_build::configure()
        .bytes(".mobula.cluster.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
