//! ONNX Runtime: the one of the process, and sessions of text models on the processor or a GPU.

mod device;
mod environment;
mod memory;
mod placed;
mod session;

pub use device::Device;
pub use environment::{Runtime, runtime};
pub use memory::give_back_memory;
pub use session::{Graph, OutputTensor, Session, SessionOptions};
