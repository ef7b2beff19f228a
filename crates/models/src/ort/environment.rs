//! The process's one ONNX Runtime.
//!
//! The runtime allows a single environment for a process, so this is one of the two globals of
//! the house (the other is the metrics recorder).

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ort::environment::Environment;

use crate::ModelError;

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// The runtime that was loaded.
#[derive(Clone)]
pub struct Runtime {
    /// Sessions are made in it.
    pub environment: Environment,
    /// The library that it came from.
    pub library: PathBuf,
}

/// The runtime, loaded from the library at `path` by the first caller; later callers get the same
/// one, whatever their path.
pub fn runtime(path: &Path) -> Result<Runtime, ModelError> {
    // A panic while it was held left either no runtime or a whole one.
    let mut slot = RUNTIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(runtime) = slot.as_ref() {
        return Ok(runtime.clone());
    }
    let bad = |reason: String| ModelError::BadFile {
        path: path.to_owned(),
        reason,
    };
    let environment = ort::init_from(path)
        .map_err(|error| bad(error.to_string()))?
        .with_name("mobula")
        .with_telemetry(false)
        .build()
        .map_err(|error| bad(error.to_string()))?;
    let runtime = Runtime {
        environment,
        library: path.to_owned(),
    };
    *slot = Some(runtime.clone());
    Ok(runtime)
}
