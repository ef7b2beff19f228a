//! The model hub: a file's URL, a model's files by name, and the hub's own cache on this machine.

use std::fs;
use std::path::{Path, PathBuf};

use super::http::{self, Download, DownloadError};
use super::progress::Progress;
use crate::FetchError;
use crate::settings::Settings;

/// `org/name` and the two parts' characters; the hub's own limit is 96.
const NAME_BYTES_MAX: usize = 128;

/// Files of a model that is not in the lock: where they may lie in its repository (the first that
/// exists is taken) and whether it can do without.
const HUB_FILES: &[HubFile] = &[
    HubFile::needed("model.onnx", &["onnx/model.onnx", "model.onnx"]),
    HubFile::needed("tokenizer.json", &["tokenizer.json", "onnx/tokenizer.json"]),
    HubFile::optional("config.json", &["config.json", "onnx/config.json"]),
    HubFile::optional("tokenizer_config.json", &["tokenizer_config.json"]),
    HubFile::optional("pooling_config.json", &["1_Pooling/config.json"]),
    HubFile::optional("sentence_bert_config.json", &["sentence_bert_config.json"]),
    HubFile::optional("modules.json", &["modules.json"]),
    HubFile::optional(
        "model.onnx_data",
        &["onnx/model.onnx_data", "model.onnx_data"],
    ),
];

/// A file of a hub model.
pub struct HubFile {
    /// Its name in the cache.
    pub name: &'static str,
    /// Where it may lie in the repository.
    pub paths: &'static [&'static str],
    /// Whether a model without it can be served.
    pub needed: bool,
}

impl HubFile {
    const fn needed(name: &'static str, paths: &'static [&'static str]) -> HubFile {
        HubFile {
            name,
            paths,
            needed: true,
        }
    }

    const fn optional(name: &'static str, paths: &'static [&'static str]) -> HubFile {
        HubFile {
            name,
            paths,
            needed: false,
        }
    }
}

/// Every file that a model of the hub may have.
pub fn files() -> &'static [HubFile] {
    HUB_FILES
}

/// The URL of a file at a revision.
pub fn url(settings: &Settings, repo: &str, revision: &str, path: &str) -> String {
    format!("{}/{repo}/resolve/{revision}/{path}", settings.hub_endpoint)
}

/// Refuses what cannot be a repository's name before it becomes part of a URL or a path.
pub fn check_name(name: &str) -> Result<(), FetchError> {
    let bad = |reason: &str| FetchError::BadName {
        name: name.chars().take(NAME_BYTES_MAX).collect(),
        reason: reason.to_owned(),
    };
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(bad("it must have 1 to 128 bytes"));
    }
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 2 {
        return Err(bad("it must be 'name' or 'organisation/name'"));
    }
    let plain = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if !parts.iter().all(plain) {
        return Err(bad(
            "only letters, digits, '-', '_', '.' and one '/' are allowed",
        ));
    }
    Ok(())
}

/// A model in the hub's cache layout below `HF_HOME`, as images bake it in: the snapshot that
/// `refs/main` names, else any that holds a graph.
pub fn snapshot(settings: &Settings, name: &str) -> Option<PathBuf> {
    let home = settings.hf_home.as_ref()?;
    let repo = home
        .join("hub")
        .join(format!("models--{}", name.replace('/', "--")));
    let snapshots = repo.join("snapshots");
    let named = fs::read_to_string(repo.join("refs").join("main"))
        .ok()
        .map(|revision| snapshots.join(revision.trim()));
    let others = fs::read_dir(&snapshots)
        .into_iter()
        .flatten()
        .filter_map(|dir| dir.ok().map(|dir| dir.path()));
    let mut others: Vec<PathBuf> = others.collect();
    others.sort();
    named.into_iter().chain(others).find(|dir| has_graph(dir))
}

fn has_graph(dir: &Path) -> bool {
    dir.join("onnx").join("model.onnx").is_file() || dir.join("model.onnx").is_file()
}

/// Downloads the files of a model that is not in the lock into `dir`.
pub fn fetch_by_name(
    settings: &Settings,
    name: &str,
    dir: &Path,
    progress: &dyn Progress,
) -> Result<(), String> {
    let agent = http::agent();
    for file in files() {
        let target = dir.join(file.name);
        if target.is_file() {
            continue;
        }
        let part = dir.join(format!("{}.part", file.name));
        let mut found = false;
        for path in file.paths {
            let what = format!("{name}/{path}");
            let request = Download {
                url: &url(settings, name, "main", path),
                token: settings.hub_token.as_ref(),
                what: &what,
                size: None,
                sha256: None,
            };
            match http::download(&agent, &request, &part, progress) {
                Ok(()) => {
                    fs::rename(&part, &target).map_err(|error| error.to_string())?;
                    progress.finish(&what);
                    found = true;
                    break;
                }
                Err(DownloadError::NotFound) => {}
                Err(other) => return Err(format!("{path}: {other}")),
            }
        }
        if !found && file.needed {
            return Err(format!("the repository has no {}", file.paths.join(" or ")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_the_cache() {
        for name in ["bert", "org/name", "sentence-transformers/all-MiniLM-L6-v2"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "../x",
            "a/b/c",
            "a/../b",
            "a b",
            "a/.hidden",
            "org/",
            "x?y",
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
