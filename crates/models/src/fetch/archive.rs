//! Takes single files out of a package: a gzipped tar or a zip (a wheel is one).
//!
//! Only files that were asked for are written, each to the place the caller names; nothing in the
//! archive decides a path on this machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

/// Copies the files named by `wanted` (path in the archive -> destinations) and returns the paths
/// that were not found. A destination's size may not pass `bytes_max`.
pub fn extract(
    archive: &Path,
    wanted: &BTreeMap<String, Vec<PathBuf>>,
    bytes_max: u64,
) -> io::Result<Vec<String>> {
    let mut missing: Vec<String> = wanted.keys().cloned().collect();
    let mut magic = [0; 2];
    File::open(archive)?.read_exact(&mut magic)?;
    match &magic {
        b"PK" => from_zip(archive, wanted, bytes_max, &mut missing)?,
        [0x1f, 0x8b] => from_tgz(archive, wanted, bytes_max, &mut missing)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the archive is neither a zip nor a gzipped tar",
            ));
        }
    }
    Ok(missing)
}

fn from_tgz(
    archive: &Path,
    wanted: &BTreeMap<String, Vec<PathBuf>>,
    bytes_max: u64,
    missing: &mut Vec<String>,
) -> io::Result<()> {
    let mut tar = tar::Archive::new(GzDecoder::new(File::open(archive)?));
    for entry in tar.entries()? {
        let entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let Some(destinations) = wanted.get(&name) else {
            continue;
        };
        write_all(entry, destinations, bytes_max)?;
        missing.retain(|path| *path != name);
        if missing.is_empty() {
            break;
        }
    }
    Ok(())
}

fn from_zip(
    archive: &Path,
    wanted: &BTreeMap<String, Vec<PathBuf>>,
    bytes_max: u64,
    missing: &mut Vec<String>,
) -> io::Result<()> {
    let mut zip = zip::ZipArchive::new(File::open(archive)?).map_err(io::Error::other)?;
    for (name, destinations) in wanted {
        match zip.by_name(name) {
            Ok(entry) => {
                write_all(entry, destinations, bytes_max)?;
                missing.retain(|path| path != name);
            }
            Err(zip::result::ZipError::FileNotFound) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(())
}

fn write_all(entry: impl Read, destinations: &[PathBuf], bytes_max: u64) -> io::Result<()> {
    let Some((first, others)) = destinations.split_first() else {
        return Ok(());
    };
    let mut file = File::create(first)?;
    // One byte beyond the limit tells a file that is too long from one that just fits.
    let copied = io::copy(&mut entry.take(bytes_max + 1), &mut file)?;
    if copied > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a file in the archive is larger than {bytes_max} bytes"),
        ));
    }
    file.flush()?;
    file.sync_all()?;
    for other in others {
        std::fs::copy(first, other)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tgz(path: &Path, files: &[(&str, &[u8])]) {
        let gz = flate2::write::GzEncoder::new(File::create(path).unwrap(), Default::default());
        let mut tar = tar::Builder::new(gz);
        for (name, data) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append_data(&mut header, name, *data).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
    }

    fn zip_file(path: &Path, files: &[(&str, &[u8])]) {
        let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
        for (name, data) in files {
            zip.start_file(*name, zip::write::SimpleFileOptions::default())
                .unwrap();
            zip.write_all(data).unwrap();
        }
        zip.finish().unwrap();
    }

    #[test]
    fn both_kinds_give_the_wanted_files_and_name_the_missing_ones() {
        let dir = tempfile::tempdir().unwrap();
        let files: &[(&str, &[u8])] = &[("p/a", b"alpha"), ("p/b", b"beta")];
        for kind in ["tgz", "zip"] {
            let archive = dir.path().join(kind);
            match kind {
                "tgz" => tgz(&archive, files),
                _ => zip_file(&archive, files),
            }
            let (out, twin) = (dir.path().join("out"), dir.path().join("twin"));
            let wanted = BTreeMap::from([
                ("p/b".to_owned(), vec![out.clone(), twin.clone()]),
                ("p/c".to_owned(), vec![dir.path().join("c")]),
            ]);
            let missing = extract(&archive, &wanted, 100).unwrap();
            assert_eq!(missing, ["p/c"], "{kind}");
            assert_eq!(std::fs::read(&out).unwrap(), b"beta", "{kind}");
            assert_eq!(std::fs::read(&twin).unwrap(), b"beta", "{kind}");
            std::fs::remove_file(out).unwrap();
        }
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("a");
        tgz(&archive, &[("big", &[0; 101])]);
        let wanted = BTreeMap::from([("big".to_owned(), vec![dir.path().join("big")])]);
        let error = extract(&archive, &wanted, 100).unwrap_err();
        assert!(error.to_string().contains("larger than 100"), "{error}");
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "<html>not found</html>").unwrap();
        assert!(extract(&path, &BTreeMap::new(), 100).is_err());
    }
}
