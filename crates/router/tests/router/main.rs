//! The router between a fake head and fake workers that speak the real protocols, asked by real
//! HTTP and gRPC clients.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "tests")]

mod affinity;
mod breaker;
mod grpc;
mod head;
mod http_outcomes;
mod lasting;
mod lifecycle;
mod metrics;
mod replicas;
mod setup;
mod streaming;
mod versions;
mod worker;
