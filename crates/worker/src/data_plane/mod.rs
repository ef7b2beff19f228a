//! The data plane: what a router sends on its stream becomes calls of replicas, and their answers
//! frames on the same stream.
//!
//! - `service`: the gRPC service and its server
//! - `stream`: reads one router's frames
//! - `calls`: the requests that are open on one stream
//! - `job`: one call, from its permit to its last frame
//! - `answer`: the frames of one answer, sent in order and ended exactly once
//! - `inbound`, `window`: bodies in, bodies out, and the credit for both
//! - `batches`: frames waiting to be written, joined into messages
//! - `convert`: frames to requests and responses to frames
//!
//! Not here: what a replica is (`replica`), and how long it may be asked (`gate`).

mod answer;
mod batches;
mod calls;
mod convert;
mod inbound;
mod job;
mod service;
mod stream;
mod window;

pub(crate) use job::Job;
pub(crate) use service::{DataPlane, serve};
