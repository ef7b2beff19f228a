//! Why a worker could not run. What goes wrong with one replica is in its report instead.

use mobula_process::net::NetError;
use thiserror::Error;

/// A worker that cannot do its work; the process should end.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The data plane's address cannot be used.
    #[error("data plane: {0}")]
    Listen(#[from] NetError),
    /// The data plane's server failed.
    #[error("data plane stopped: {0}")]
    Serve(String),
    /// The actor that owns the replicas did not start or has died.
    #[error("replica host: {0}")]
    Host(String),
}
