//! What the environment says: where models are kept, how they are fetched.
//!
//! The environment comes in as a map (a replica's own, with the config laid over the process's),
//! so nothing below reads the process's variables.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Environment variables by name.
pub type Env = BTreeMap<String, String>;

/// The public model hub.
const HUB_ENDPOINT_DEFAULT: &str = "https://huggingface.co";

/// The variable that says which runtime a process loads: one for all replicas in it.
pub const RUNTIME_VARIABLE: &str = "MOBULA_RUNTIME";

/// Where models are and how to get them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The per-user cache: `MOBULA_CACHE`, else `$XDG_CACHE_HOME/mobula`, else `~/.cache/mobula`.
    pub cache: PathBuf,
    /// `HF_HOME`: a hub cache that may hold models already; `~/.cache/huggingface` by default.
    pub hf_home: Option<PathBuf>,
    /// `HF_ENDPOINT`, without a slash at its end.
    pub hub_endpoint: String,
    /// `HF_TOKEN`.
    pub hub_token: Option<Secret>,
    /// `MOBULA_OFFLINE` or `HF_HUB_OFFLINE`: the network is not touched.
    pub offline: bool,
    /// `ORT_DYLIB_PATH`: the user's own runtime library.
    pub runtime_path: Option<PathBuf>,
    /// `MOBULA_RUNTIME`: which of the locked runtimes, `cpu` (the default) or `cuda`.
    pub runtime: String,
    /// `MOBULA_NPM`: the npm that packages are asked from; `npm` by default.
    pub npm: PathBuf,
    /// `MOBULA_PYTHON`: the Python whose pip packages are asked from; `python3` by default.
    pub python: PathBuf,
}

/// A text that no log and no error shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

// === impl Settings ===

impl Settings {
    /// Reads the settings out of an environment.
    pub fn from_env(env: &Env) -> Settings {
        let home = path(env, "HOME").unwrap_or_else(|| PathBuf::from("."));
        let user_cache = path(env, "XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        Settings {
            cache: path(env, "MOBULA_CACHE").unwrap_or_else(|| user_cache.join("mobula")),
            hf_home: Some(path(env, "HF_HOME").unwrap_or_else(|| user_cache.join("huggingface"))),
            hub_endpoint: value(env, "HF_ENDPOINT")
                .unwrap_or(HUB_ENDPOINT_DEFAULT)
                .trim_end_matches('/')
                .to_owned(),
            hub_token: value(env, "HF_TOKEN").map(|token| Secret(token.to_owned())),
            offline: flag(env, "MOBULA_OFFLINE") || flag(env, "HF_HUB_OFFLINE"),
            runtime_path: path(env, "ORT_DYLIB_PATH"),
            runtime: value(env, RUNTIME_VARIABLE).unwrap_or("cpu").to_owned(),
            npm: path(env, "MOBULA_NPM").unwrap_or_else(|| PathBuf::from("npm")),
            python: path(env, "MOBULA_PYTHON").unwrap_or_else(|| PathBuf::from("python3")),
        }
    }

    /// Reads the settings out of this process's environment, for a `main` and for tests.
    pub fn from_process() -> Settings {
        Settings::from_env(&std::env::vars().collect())
    }
}

// === impl Secret ===

impl Secret {
    /// The text, for the one place that sends it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A variable that is set and not empty.
pub(crate) fn value<'a>(env: &'a Env, name: &str) -> Option<&'a str> {
    env.get(name)
        .map(|value| value.trim())
        .filter(|value| !value.is_empty())
}

fn path(env: &Env, name: &str) -> Option<PathBuf> {
    value(env, name).map(PathBuf::from)
}

fn flag(env: &Env, name: &str) -> bool {
    let on = ["1", "on", "yes", "true"];
    value(env, name).is_some_and(|value| on.contains(&value.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_cache_is_the_users_unless_named() {
        let home = Settings::from_env(&env(&[("HOME", "/home/u")]));
        assert_eq!(home.cache, PathBuf::from("/home/u/.cache/mobula"));
        let xdg = Settings::from_env(&env(&[("HOME", "/home/u"), ("XDG_CACHE_HOME", "/x")]));
        assert_eq!(xdg.cache, PathBuf::from("/x/mobula"));
        let named = Settings::from_env(&env(&[("MOBULA_CACHE", "/m"), ("XDG_CACHE_HOME", "/x")]));
        assert_eq!(named.cache, PathBuf::from("/m"));
    }

    #[test]
    fn either_offline_variable_closes_the_network_and_zero_does_not() {
        for (name, value, offline) in [
            ("MOBULA_OFFLINE", "1", true),
            ("HF_HUB_OFFLINE", "true", true),
            ("MOBULA_OFFLINE", "0", false),
            ("MOBULA_OFFLINE", "", false),
        ] {
            assert_eq!(Settings::from_env(&env(&[(name, value)])).offline, offline);
        }
    }

    #[test]
    fn the_hub_token_never_shows() {
        let settings = Settings::from_env(&env(&[("HF_TOKEN", "hf_secret")]));
        assert!(!format!("{settings:?}").contains("hf_secret"));
        assert_eq!(
            settings.hub_token.as_ref().map(Secret::expose),
            Some("hf_secret")
        );
    }
}
