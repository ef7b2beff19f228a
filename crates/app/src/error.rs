//! Errors of an application's code, one type per thing that can go wrong in its life.

use thiserror::Error;

/// The application could not be built from its `import_path` and `args`.
#[derive(Debug, Error)]
pub enum BuildError {
    /// No application of that name is compiled in.
    #[error("no application '{import_path}' here; the import paths that exist are: {known}")]
    UnknownImportPath {
        /// What the config asked for.
        import_path: String,
        /// What there is, comma separated.
        known: String,
    },
    /// `args` or the environment hold a value that the builder does not take.
    #[error("{0}")]
    Invalid(String),
}

/// A replica could not be constructed. The text becomes the deployment's message.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// `user_config` was not accepted; the config before it stays in force.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// The replica is not well.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct HealthError(pub String);

/// A call failed in a way that is the replica's fault. The client sees a plain 500; the text is
/// logged. What is the client's fault is a [`crate::Response`] with a 4xx status.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct CallError(pub String);
