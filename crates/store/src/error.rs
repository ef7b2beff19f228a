//! What can go wrong, by what the caller can do about it.

use thiserror::Error;

/// Variants by what the caller can do.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A check did not hold; nothing was written. Read again and decide anew.
    #[error("somebody else changed '{key}' in between")]
    Conflict {
        /// The first key whose check failed.
        key: String,
    },
    /// The writer is not the leader any more; nothing was written. Step down.
    #[error("this process does not lead any more; nothing was written")]
    Fenced,
    /// Not executed; the same call may succeed later.
    #[error("the state store is not available: {0}")]
    Unavailable(String),
    /// Perhaps executed. Read again before deciding anything.
    #[error("the state store did not say whether the write happened: {0}")]
    Unknown(String),
    /// The call itself is wrong, and will be wrong again.
    #[error("{0}")]
    Invalid(String),
    /// What is stored cannot be read.
    #[error("the state store is damaged: {0}")]
    Corrupt(String),
}
