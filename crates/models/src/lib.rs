//! ONNX models: fetching and checking their files, tokenization, sessions, batching, and the
//! applications that are built in.
//!
//! Not here: where a replica runs and how requests reach it (`mobula-app` has the seam).

pub mod batch;
pub mod engine;
mod error;
pub mod fetch;
mod head;
pub mod metrics;
pub mod model;
pub mod ort;
pub mod pool;
pub mod resolve;
pub mod settings;
pub mod tokenize;

pub use error::{FetchError, ModelError};
