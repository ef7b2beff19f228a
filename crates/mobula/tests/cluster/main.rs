//! The roles as separate processes over TCP: the real binary, joined by token or certificate,
//! and killed while requests go on.
#![expect(clippy::unwrap_used, reason = "these are tests")]

mod access;
mod admin_tls;
mod authority;
mod client;
mod elected;
mod heads;
mod house;
mod life;
mod load;
mod placement;
#[path = "../../../store/tests/support/ports.rs"]
mod ports;
mod process;
mod rollbacks;
mod rotation;
mod share;
mod store_away;
mod tls;
mod upgrade;
