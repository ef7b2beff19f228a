//! The process's one ONNX Runtime environment.
//!
//! The runtime allows a single environment for a process, so this is one of the two globals of
//! the house (the other is the metrics recorder).

use std::path::Path;
use std::sync::Mutex;

use ort::environment::Environment;

use crate::ModelError;

static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// The environment, made from the library at `path` by the first caller; later callers get the
/// same one, whatever their path.
pub fn environment(path: &Path) -> Result<Environment, ModelError> {
    // A panic while it was held left either no environment or a whole one.
    let mut slot = ENVIRONMENT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(environment) = slot.as_ref() {
        return Ok(environment.clone());
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
    *slot = Some(environment.clone());
    Ok(environment)
}
