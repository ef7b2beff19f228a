//! Where `mobula run` keeps its state and its sockets.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A Unix socket's path has at most 107 bytes; the longest name below the directory is
/// `/worker-63.sock`.
const SOCKET_DIR_BYTES_MAX: usize = 90;

/// The state directory: the one asked for, or the user's default. Made if need be.
pub fn open(asked: Option<PathBuf>) -> Result<PathBuf> {
    let dir = match asked {
        Some(dir) => dir,
        None => default_dir()?,
    };
    make_private(&dir)?;
    std::fs::canonicalize(&dir).with_context(|| format!("cannot use {}", dir.display()))
}

fn default_dir() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(base) = set("XDG_STATE_HOME") {
        return Ok(PathBuf::from(base).join("mobula"));
    }
    match set("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".local/state/mobula")),
        None => bail!("neither XDG_STATE_HOME nor HOME is set; say --state-dir"),
    }
}

/// The directory for sockets: below the state directory, which one process at a time may use;
/// a temporary one where that path would be too long for a socket.
pub fn sockets(state_dir: &Path) -> Result<SocketDir> {
    let below = state_dir.join("run");
    if below.as_os_str().len() <= SOCKET_DIR_BYTES_MAX {
        make_private(&below)?;
        return Ok(SocketDir {
            path: below,
            _temporary: None,
        });
    }
    let temporary = tempfile::Builder::new()
        .prefix("mobula-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in("/tmp")?;
    Ok(SocketDir {
        path: temporary.path().to_owned(),
        _temporary: Some(temporary),
    })
}

/// A directory that only its user may enter; a temporary one is removed when this is dropped.
pub struct SocketDir {
    pub path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

/// Makes a directory that only its user may enter. Whoever may enter it may command workers, so
/// one of somebody else is refused.
fn make_private(dir: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.with_context(|| format!("cannot make {}", dir.display()))?;
    let metadata = std::fs::metadata(dir)?;
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        bail!(
            "{} belongs to user {}, not to {user}",
            dir.display(),
            metadata.uid()
        );
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot close {} to other users", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_lie_in_a_directory_that_only_the_user_may_enter() {
        let base = tempfile::tempdir().unwrap();
        let state = open(Some(base.path().join("state"))).unwrap();
        let deep = open(Some(base.path().join("a-rather-long-name/".repeat(6)))).unwrap();
        for dir in [&state, &deep] {
            let sockets = sockets(dir).unwrap();
            let mode = std::fs::metadata(&sockets.path).unwrap().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", sockets.path.display());
            assert!(sockets.path.as_os_str().len() <= SOCKET_DIR_BYTES_MAX);
        }
    }
}
