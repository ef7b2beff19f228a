//! Compiles `proto/` with protox, so that no protoc has to be installed.

use std::path::{Path, PathBuf};

const CODEC: &str = "crate::codec::RoomyCodec";

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
        .codec_path(CODEC)
        // It holds a password.
        .skip_debug([".mobula.cluster.v1.TlsFiles"])
        .compile_fds(descriptors)?;
    serve_encoded(&root)
}

/// The head's side of the sessions once more, with a route table that is encoded already; all
/// other messages are those of above.
fn serve_encoded(root: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let control = protox::compile(["mobula/cluster/v1/control.proto"], [root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("head");
    std::fs::create_dir_all(&out)?;
    tonic_prost_build::configure()
        .build_client(false)
        .codec_path(CODEC)
        .extern_path(".mobula.cluster.v1", "crate::v1")
        .extern_path(
            ".mobula.cluster.v1.RouteTable",
            "crate::encoded::EncodedTable",
        )
        .out_dir(out)
        .compile_fds(control)?;
    Ok(())
}
