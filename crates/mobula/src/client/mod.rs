//! The client side: commands that speak to the admin API of a running Mobula (or Ray head).

pub mod application;
pub mod deploy;
pub mod history;
pub mod http;
pub mod import;
pub mod plan;
mod running;
pub mod show;
pub mod shutdown;
pub mod target;
