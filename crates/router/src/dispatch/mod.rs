//! Speaking to workers: one connection and one long-lived exchange of frames per worker, many
//! calls multiplexed on it.
//!
//! Not here: which replica a call goes to (`queue`), and what a client is told (`ingress`).

mod call;
pub(crate) mod fuzzing;
mod link;
mod outbox;
mod upload;
#[cfg(test)]
mod upload_tests;
mod worker;

pub use call::{CallHandle, First};
pub use link::{Link, LinkClosed};
pub use upload::{Upload, UploadError};
pub use worker::{Worker, run as run_worker};
