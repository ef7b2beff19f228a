//! ONNX Runtime: the one environment of the process, and sessions of text models.

mod environment;
mod session;

pub use environment::environment;
pub use session::{Graph, OutputTensor, Session, SessionOptions};
