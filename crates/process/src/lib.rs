//! What the process of every role needs: addresses and connections and who may
//! use them, certificates and tokens that change in service, the admin port, ids, telemetry,
//! signals.
//!
//! Not here: anything about applications, replicas or requests.

pub mod access;
pub mod admin;
pub mod busy_poll;
pub mod client_tls;
mod encrypted_key;
pub mod follow;
pub mod http_client;
pub mod https;
mod identity;
pub mod ids;
pub mod io;
mod itself;
mod local;
pub mod metrics;
pub mod net;
pub mod pem;
mod prompt;
mod recorders;
pub mod refusals;
pub mod release;
pub mod repeats;
pub mod signals;
pub mod telemetry;
pub mod tls;
pub mod token;
