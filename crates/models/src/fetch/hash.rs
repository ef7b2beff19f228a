//! SHA-256 of files and texts.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Read at a time: large enough that the system call costs nothing beside the hashing.
const CHUNK_BYTES: usize = 256 * 1024;

/// The SHA-256 of bytes, in lower-case hex.
pub fn hex_of(bytes: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(bytes.as_ref()))
}

/// The SHA-256 of a file, in lower-case hex.
pub fn hex_of_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&chunk[..read]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_its_bytes_hash_alike() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let data = vec![7; CHUNK_BYTES + 1];
        std::fs::write(&path, &data).unwrap();
        assert_eq!(hex_of_file(&path).unwrap(), hex_of(&data));
        assert_eq!(&hex_of("abc")[..8], "ba7816bf");
    }
}
