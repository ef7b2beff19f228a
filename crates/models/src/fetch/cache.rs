//! The cache on disk: one directory for each model, that appears under its name only when it is
//! whole; one lock, so that workers that start together download once.
//!
//! ```text
//! ~/.cache/mobula/
//!   models/sentence-transformers--all-MiniLM-L6-v2/<digest of the files>/model.onnx, ...
//!   runtime/onnxruntime-1.31.1-linux-x86_64/<digest>/libonnxruntime.so.1.31.1
//!   staging/    parts of downloads; kept when one is cut, so that the next goes on
//!   lock        held (flock) while one process downloads
//! ```

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::lock::{Entry, Kind};
use super::progress::Progress;
use crate::FetchError;

/// The per-user cache.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// Held while one process fetches; let go when dropped.
pub struct CacheLock(#[expect(dead_code, reason = "the lock lives as long as the file")] File);

impl Cache {
    /// The cache below `root`; nothing is created yet.
    pub fn new(root: impl Into<PathBuf>) -> Cache {
        Cache { root: root.into() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a locked entry's files are once they are here.
    pub fn entry_dir(&self, entry: &Entry) -> PathBuf {
        let group = match entry.kind {
            Kind::Model => self.root.join("models").join(flat(&entry.id)),
            // The digest alone tells variants apart.
            Kind::Runtime => self.root.join("runtime").join(format!(
                "{}-{}-{}",
                entry.id,
                entry.version.as_deref().unwrap_or("0"),
                entry.platform.as_deref().unwrap_or("any")
            )),
        };
        group.join(entry.digest())
    }

    /// Where the files of a hub model that is not locked are.
    pub fn hub_dir(&self, name: &str) -> PathBuf {
        self.root.join("models").join(flat(name)).join("hub")
    }

    /// Whether a locked entry is here: every file, at its length. The hash was checked before the
    /// directory got its name.
    pub fn holds(&self, entry: &Entry) -> bool {
        let dir = self.entry_dir(entry);
        entry.files.iter().all(|file| {
            fs::metadata(dir.join(&file.name)).is_ok_and(|found| found.len() == file.size)
        })
    }

    /// The directory where the parts of one download live until it is whole.
    pub fn staging(&self, name: &str) -> Result<PathBuf, FetchError> {
        let dir = self.root.join("staging").join(flat(name));
        fs::create_dir_all(&dir).map_err(FetchError::io(&dir))?;
        Ok(dir)
    }

    /// Waits until no other process fetches.
    pub fn lock(&self, progress: &dyn Progress) -> Result<CacheLock, FetchError> {
        fs::create_dir_all(&self.root).map_err(FetchError::io(&self.root))?;
        let path = self.root.join("lock");
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(FetchError::io(&path))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            progress.note("waiting for another process that is fetching");
            flock(&file, FlockOperation::LockExclusive)
                .map_err(|errno| FetchError::io(&path)(errno.into()))?;
        }
        Ok(CacheLock(file))
    }

    /// Gives a staged directory its final name. What was there before (a broken copy) goes first.
    pub fn publish(&self, staged: &Path, dir: &Path) -> Result<(), FetchError> {
        if dir.exists() {
            fs::remove_dir_all(dir).map_err(FetchError::io(dir))?;
        }
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(FetchError::io(parent))?;
        }
        fs::rename(staged, dir).map_err(FetchError::io(dir))
    }
}

/// `org/name` as one path component.
fn flat(name: &str) -> String {
    name.replace('/', "--")
}
