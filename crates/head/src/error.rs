//! Why the head cannot run.

use mobula_process::net::NetError;
use mobula_store::StoreError;
use thiserror::Error;

/// The head ends with one of these; whoever supervises the process decides what then.
#[derive(Debug, Error)]
pub enum HeadError {
    /// The store cannot be read at the start.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What an earlier head stored cannot be understood.
    #[error("the stored state cannot be read: {0}")]
    Stored(String),
    /// The controller did not start, or ended by itself.
    #[error("the controller failed: {0}")]
    Controller(String),
    /// Workers and routers cannot connect.
    #[error("the cluster service failed: {0}")]
    Cluster(String),
    /// An address is not usable.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The version to be compatible with is not usable.
    #[error("ray_version: '{0}' is no version; write it as 2.60.0")]
    RayVersion(String),
}
