//! What can go wrong: getting a model, and running it. Variants by what the caller can do.

use std::path::PathBuf;

use thiserror::Error;

use crate::ort::Device;

/// A file of a model, or the runtime, could not be had.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The lock file is not one.
    #[error("models.lock.json: {0}")]
    Lock(String),
    /// There is no runtime for this machine.
    #[error(
        "no ONNX Runtime is locked for {wanted}, only for {known}; MOBULA_RUNTIME chooses among \
         those of a platform, ORT_DYLIB_PATH names a libonnxruntime 1.31 or newer of your own"
    )]
    Platform {
        /// This machine, and what was to be computed on.
        wanted: String,
        /// Those that work.
        known: String,
    },
    /// The network may not be used and the files are not here.
    #[error(
        "{id} is not in the cache ({missing}) and MOBULA_OFFLINE or HF_HUB_OFFLINE forbids the \
         network; run `mobula models fetch` where there is one and copy the directory {cache}"
    )]
    Offline {
        /// The model.
        id: String,
        /// Where it was looked for.
        missing: PathBuf,
        /// The cache as a whole.
        cache: PathBuf,
    },
    /// Every source failed.
    #[error("{id} could not be fetched: {}", list(failures))]
    NoSource {
        /// The model.
        id: String,
        /// One text for each source, in the order of trying.
        failures: Vec<String>,
    },
    /// A name that cannot be a model.
    #[error("'{name}' is not a model name: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The disk said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A model could not be loaded or run.
#[derive(Debug, Error)]
pub enum ModelError {
    /// Its files could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A file is there but not what it should be.
    #[error("{}: {reason}", path.display())]
    BadFile {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A GPU was asked for and cannot be used.
    #[error("num_gpus gives this replica {device}, which cannot be used: {reason}")]
    Gpu {
        /// Which one.
        device: Device,
        /// What is missing, and what to do.
        reason: String,
    },
    /// A setting (environment, `args`, `user_config`) has a value that is not taken.
    #[error("{0}")]
    Setting(String),
    /// The caller's input does not fit the model.
    #[error("{0}")]
    Input(String),
    /// The caller's input is longer than the model takes, and may not be cut.
    #[error(
        "the input has {tokens} tokens, at most {tokens_max} are allowed; set truncate to cut it"
    )]
    TooLong {
        /// Tokens of the input, special ones included.
        tokens: usize,
        /// What the model takes.
        tokens_max: usize,
    },
    /// The engine failed.
    #[error("inference failed: {0}")]
    Engine(String),
    /// More waits than the engine's queue takes.
    #[error("the engine's queue is full ({0} rows)")]
    Overloaded(usize),
    /// The engine's threads have ended.
    #[error("the engine has stopped")]
    Stopped,
}

impl FetchError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> FetchError {
        let path = path.into();
        move |source| FetchError::Io { path, source }
    }
}

fn list(failures: &[String]) -> String {
    if failures.is_empty() {
        return "it has no sources".to_owned();
    }
    failures.join("; ")
}
