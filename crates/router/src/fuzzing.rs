//! What is read from others, fed with any bytes: for the targets in `fuzz/`, and as property tests
//! beside each function. They panic when something is not as it has to be.

pub use crate::dispatch::fuzzing::frames;
pub use crate::ingress::fuzzing::{grpc_message, request};
