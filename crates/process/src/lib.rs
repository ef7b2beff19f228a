//! What the process of every role needs: addresses and connections and who may
//! use them, the admin port, ids, telemetry, signals.
//!
//! Not here: anything about applications, replicas or requests.

pub mod access;
pub mod admin;
pub mod busy_poll;
mod encrypted_key;
pub mod https;
pub mod ids;
mod local;
pub mod metrics;
pub mod net;
mod prompt;
mod recorders;
pub mod refusals;
pub mod release;
pub mod repeats;
pub mod signals;
pub mod telemetry;
pub mod tls;
pub mod token;
