//! The built-in applications with the default models, called as a worker calls them.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod client;
mod configs;
mod grpc;
mod refusals;
