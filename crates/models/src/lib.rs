//! ONNX models: fetching and checking their files, tokenization, sessions, batching, and the
//! applications that are built in.
//!
//! Not here: where a replica runs and how requests reach it (`mobula-app` has the seam).

mod error;
pub mod fetch;
pub mod settings;

pub use error::{FetchError, ModelError};
