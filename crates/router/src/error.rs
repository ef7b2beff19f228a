//! Why a router ends other than by being told to.

use thiserror::Error;

/// The router could not start. Nothing that happens later ends it: it retries.
#[derive(Debug, Error)]
pub enum RouterError {
    /// It would never get a route table.
    #[error("head: no address given; a router needs at least one")]
    NoHead,
    /// A descriptor set that was linked in does not decode.
    #[error("descriptor_sets: not usable for gRPC reflection: {0}")]
    Descriptors(String),
}
