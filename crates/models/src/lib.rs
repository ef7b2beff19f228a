//! ONNX models: fetching and checking their files, tokenization, sessions, batching, and the
//! applications that are built in.
//!
//! Not here: where a replica runs and how requests reach it (`mobula-app` has the seam).

pub mod api;
pub mod apps;
pub mod batch;
pub mod engine;
mod error;
pub mod fetch;
pub mod grpc;
mod head;
pub mod metrics;
pub mod model;
mod offsets;
pub mod ort;
pub mod pool;
pub mod resolve;
pub mod settings;
pub mod tokenize;

pub use apps::register;
pub use error::{FetchError, ModelError};
