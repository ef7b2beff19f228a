//! The control plane: holds what the user declared, decides what shall run where, tells
//! workers and routers, and answers the admin API.
//!
//! [`world`] decides, as pure functions; [`table`], [`assignments`] and [`status`] and [`overview`]
//! say what follows for others. The rest is a thin shell: the controller owns the world, the executor
//! writes to the store, sessions talk to workers and routers, provisioners make workers.
//!
//! Not here: the data path. Routers serve and workers answer without the head.

pub mod admin;
pub mod assignments;
mod changed;
mod control_loop;
mod controller;
pub mod decisions;
mod documents;
mod edit;
mod elected;
mod error;
mod executor;
#[cfg(test)]
mod executor_tests;
mod handle;
pub mod history;
mod loop_stats;
mod message;
pub mod metrics;
mod outbox;
pub mod overview;
mod prepare;
#[cfg(test)]
mod prepare_tests;
pub mod provision;
mod record;
mod restore;
mod run;
mod sessions;
#[doc(hidden)]
pub mod simulation;
pub mod status;
pub mod table;
#[cfg(test)]
mod table_tests;
#[doc(hidden)]
pub mod wire;
pub mod world;

pub use elected::{ElectedConfig, NewProvisioner, run_elected};
pub use error::HeadError;
pub use run::{HeadConfig, run};
