//! The client side: commands that speak to the admin API of a running Mobula (or Ray head).

pub mod deploy;
pub mod http;
pub mod show;
pub mod shutdown;
pub mod target;
