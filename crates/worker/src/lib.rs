//! The worker: hosts replicas, answers routers, attends the head.
//!
//! ```text
//! head  --assignment-->  session -> host -> one actor per replica
//!       <--report------  session <- board <- (each replica's status)
//! router --frames----->  data_plane -> gate (permit) -> the replica's actor -> the user's code
//! ```
//! The cores are pure: `assignment` (what has to change), `lifecycle` (a replica's phases),
//! `gpus`, `health`, `backoff`. Everything else is a thin shell around them.
//!
//! Not here: deciding what runs where and what replaces a failed replica (the head), choosing a
//! replica for a request (the router), models (they are applications like any other).

mod advertise;
mod assignment;
mod backoff;
mod board;
mod data_plane;
mod error;
mod gate;
mod gpus;
mod health;
mod host;
mod lifecycle;
pub mod metrics;
mod replica;
mod report;
mod run;
mod session;
#[doc(hidden)]
pub mod simulation;
mod standstill;

pub use error::WorkerError;
pub use run::{WorkerConfig, run};
