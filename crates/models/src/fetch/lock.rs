//! The lock file: which files a default model consists of, their SHA-256, and where to get them.
//!
//! It is committed beside the code and compiled in, so a binary knows exactly the bytes that it
//! was tested with. Not here: network, disk.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::FetchError;

const LOCK_TEXT: &str = include_str!("../../models.lock.json");

/// The only layout of the lock file so far.
const LOCK_VERSION: u32 = 1;

/// The id under which ONNX Runtime itself stands in the lock, once for each platform.
pub const RUNTIME_ID: &str = "onnxruntime";

/// The whole lock file.
#[derive(Clone, Debug, Deserialize)]
pub struct Lock {
    version: u32,
    /// Every entry, in the file's order.
    pub entries: Vec<Entry>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The ONNX Runtime library.
    Runtime,
    /// A model: a graph, a tokenizer, its configuration.
    Model,
}

/// What a model is for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Text to vector.
    Embed,
    /// A query and texts to scores.
    Rerank,
    /// Text to labels.
    Classify,
}

/// One model, or the runtime for one platform.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    /// As users name it: `sentence-transformers/all-MiniLM-L6-v2`.
    pub id: String,
    /// Runtime or model.
    pub kind: Kind,
    /// `linux-x86_64`; models have none.
    pub platform: Option<String>,
    /// The runtime's version; models have none.
    pub version: Option<String>,
    /// What the runtime computes on: `cpu`, or `cuda` as well; models have none.
    pub variant: Option<String>,
    /// What a model is for.
    pub task: Option<Task>,
    /// One line for a listing.
    #[serde(default)]
    pub about: String,
    /// SPDX expression of the files.
    pub license: String,
    /// Whether the built-in applications use it unless told otherwise.
    #[serde(default)]
    pub default: bool,
    /// `mean` or `cls`, where the files themselves do not say.
    pub pooling: Option<String>,
    /// Whether vectors are scaled to length 1.
    pub normalize: Option<bool>,
    /// The longest input the model was made for, in tokens.
    pub tokens_max: Option<usize>,
    /// Name of a classification head that is compiled in.
    pub head: Option<String>,
    /// The files, under the names they have in the cache.
    pub files: Vec<LockedFile>,
    /// Where to get them, in the order of trying.
    pub sources: Vec<Source>,
}

/// A file and the only bytes it may have.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct LockedFile {
    /// Name in the cache.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// A place that has an entry's files. `paths` maps a name in the cache to the path there.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Source {
    /// A repository of the model hub.
    Hub {
        /// `org/name`.
        repo: String,
        /// Branch, tag or commit.
        revision: String,
        /// Name in the cache -> path in the repository.
        paths: BTreeMap<String, String>,
    },
    /// A package of the npm registry that the user's npm is set to.
    Npm(Package),
    /// A wheel of the Python index that the user's pip is set to.
    Pypi(Package),
}

/// A package of a registry and the files inside.
#[derive(Clone, Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub package: String,
    /// Its version.
    pub version: String,
    /// Which wheel, where there are several.
    pub tags: Option<WheelTags>,
    /// The archive as the registry serves it.
    pub archive: Archive,
    /// Name in the cache -> path in the archive.
    pub paths: BTreeMap<String, String>,
}

/// Pins one wheel among those for several Pythons and platforms.
#[derive(Clone, Debug, Deserialize)]
pub struct WheelTags {
    /// `3.11`.
    pub python_version: String,
    /// `cp`.
    pub implementation: String,
    /// `cp311`.
    pub abi: String,
    /// `manylinux_2_28_x86_64`.
    pub platform: String,
}

/// The bytes of a package.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Archive {
    /// Length in bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
}

// === impl Lock ===

impl Lock {
    /// The lock that is compiled in.
    pub fn embedded() -> Result<Lock, FetchError> {
        Lock::parse(LOCK_TEXT)
    }

    /// Reads a lock file.
    pub fn parse(text: &str) -> Result<Lock, FetchError> {
        let lock: Lock =
            serde_json::from_str(text).map_err(|error| FetchError::Lock(error.to_string()))?;
        if lock.version != LOCK_VERSION {
            return Err(FetchError::Lock(format!(
                "version is {}, this build reads {LOCK_VERSION}",
                lock.version
            )));
        }
        for entry in &lock.entries {
            entry.check().map_err(FetchError::Lock)?;
        }
        Ok(lock)
    }

    /// The model of that id.
    pub fn model(&self, id: &str) -> Option<&Entry> {
        self.models().find(|entry| entry.id == id)
    }

    /// All models.
    pub fn models(&self) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(|entry| entry.kind == Kind::Model)
    }

    /// The runtime for a platform such as `linux-x86_64` that computes on `variant`.
    pub fn runtime(&self, platform: &str, variant: &str) -> Result<&Entry, FetchError> {
        let runtimes = || {
            self.entries
                .iter()
                .filter(|entry| entry.kind == Kind::Runtime)
        };
        runtimes()
            .find(|entry| {
                entry.platform.as_deref() == Some(platform)
                    && entry.variant.as_deref() == Some(variant)
            })
            .ok_or_else(|| FetchError::Platform {
                wanted: format!("{platform} ({variant})"),
                known: runtimes()
                    .filter_map(Entry::runs_on)
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }
}

// === impl Entry ===

impl Entry {
    /// Changes whenever a byte of the files does; part of the cache's directory name, so that a
    /// newer lock never meets the files of an older one.
    pub fn digest(&self) -> String {
        let hashes = self.files.iter().map(|file| file.sha256.as_str());
        let mut digest = crate::fetch::hash::hex_of(hashes.collect::<Vec<_>>().join("\n"));
        digest.truncate(12);
        digest
    }

    /// A runtime's `linux-x86_64 (cpu)`.
    fn runs_on(&self) -> Option<String> {
        let (platform, variant) = (self.platform.as_ref()?, self.variant.as_ref()?);
        Some(format!("{platform} ({variant})"))
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    fn check(&self) -> Result<(), String> {
        for file in &self.files {
            let plain = !file.name.contains(['/', '\\']) && !file.name.starts_with('.');
            if !plain {
                return Err(format!("{}: file name '{}' is a path", self.id, file.name));
            }
        }
        for source in &self.sources {
            for file in &self.files {
                if !source.paths().contains_key(&file.name) {
                    return Err(format!(
                        "{}: {} lacks a path for {}",
                        self.id,
                        source.describe(),
                        file.name
                    ));
                }
            }
        }
        Ok(())
    }
}

// === impl Source ===

impl Source {
    /// Name in the cache -> path there.
    pub fn paths(&self) -> &BTreeMap<String, String> {
        match self {
            Source::Hub { paths, .. } => paths,
            Source::Npm(package) | Source::Pypi(package) => &package.paths,
        }
    }

    /// For messages: `npm:name@version`.
    pub fn describe(&self) -> String {
        match self {
            Source::Hub { repo, revision, .. } => format!("hub:{repo}@{revision}"),
            Source::Npm(package) => format!("npm:{}@{}", package.package, package.version),
            Source::Pypi(package) => format!("pypi:{}=={}", package.package, package.version),
        }
    }

    /// The archive that holds the files, where it is one.
    pub fn archive(&self) -> Option<&Archive> {
        match self {
            Source::Hub { .. } => None,
            Source::Npm(package) | Source::Pypi(package) => Some(&package.archive),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_lock_is_whole_and_has_one_default_for_each_task() {
        let lock = Lock::embedded().unwrap();
        for task in [Task::Embed, Task::Rerank, Task::Classify] {
            let defaults = lock.models().filter(|e| e.default && e.task == Some(task));
            assert_eq!(defaults.count(), 1, "{task:?}");
        }
        for entry in &lock.entries {
            assert!(!entry.files.is_empty() && !entry.sources.is_empty());
            for file in &entry.files {
                assert_eq!(file.sha256.len(), 64, "{} {}", entry.id, file.name);
            }
        }
    }

    #[test]
    fn a_platform_without_a_runtime_is_told_which_ones_have() {
        let error = Lock::embedded()
            .unwrap()
            .runtime("windows-x86_64", "cpu")
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("windows-x86_64 (cpu)") && text.contains("linux-x86_64 (cpu)"),
            "{text}"
        );
    }

    #[test]
    fn a_variant_that_does_not_exist_is_told_which_ones_do() {
        let lock = Lock::embedded().unwrap();
        let error = lock.runtime("linux-x86_64", "rocm").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("linux-x86_64 (rocm)"), "{text}");
        assert!(text.contains("linux-x86_64 (cuda)"), "{text}");
    }

    #[test]
    fn both_runtimes_are_of_one_version_and_cuda_brings_its_provider() {
        let lock = Lock::embedded().unwrap();
        let [cpu, cuda] = ["cpu", "cuda"].map(|v| lock.runtime("linux-x86_64", v).unwrap());
        assert_eq!(cpu.version, cuda.version);
        assert_ne!(cpu.digest(), cuda.digest());
        assert_eq!(
            cpu.files[0].name, cuda.files[0].name,
            "the library comes first"
        );
        let providers: Vec<&str> = cuda.files[1..].iter().map(|f| f.name.as_str()).collect();
        // The library looks for them beside itself, under these names.
        let wanted = [
            "libonnxruntime_providers_cuda.so",
            "libonnxruntime_providers_shared.so",
        ];
        assert_eq!(providers, wanted);
    }

    #[test]
    fn a_file_name_that_is_a_path_is_refused() {
        let text = LOCK_TEXT.replace("\"name\": \"model.onnx\"", "\"name\": \"../model.onnx\"");
        let error = Lock::parse(&text).unwrap_err();
        assert!(error.to_string().contains("is a path"), "{error}");
    }
}
