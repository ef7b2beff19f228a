//! ONNX Runtime: the one environment of the process, and sessions of text models.

mod environment;
mod memory;
mod session;

pub use environment::environment;
pub use memory::give_back_memory;
pub use session::{Graph, OutputTensor, Session, SessionOptions};
