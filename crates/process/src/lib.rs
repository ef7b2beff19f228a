//! What the process of every role needs: addresses and connections, ids, telemetry, signals.
//!
//! Not here: anything about applications, replicas or requests.

pub mod ids;
pub mod metrics;
pub mod net;
pub mod signals;
pub mod telemetry;
