//! What clients speak: HTTP on one port, gRPC on another.
//!
//! Ports open when the table first has an ingress and close, after what is in progress has
//! ended, when it is gone. Not here: where requests go (`table`, `queue`, `exchange`).

mod builtin;
mod connection;
mod door;
pub(crate) mod fuzzing;
mod grpc;
mod grpc_builtin;
mod grpc_message;
mod grpc_stream;
mod headers;
mod http;
mod lasting;
mod listener;
mod pieces;
mod problem;
mod quiet;
mod reply;
mod serve;
mod tally;
mod websocket;

pub use grpc::GrpcIngress;
pub use http::HttpIngress;
pub use listener::{Ports, run};
