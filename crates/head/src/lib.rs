//! The control plane: holds what the user declared, decides what shall run where, tells
//! workers and routers, and answers the admin API.
//!
//! [`world`] decides, as pure functions. Everything else is a thin shell around it.
//!
//! Not here: the data path. Routers serve and workers answer without the head.

pub mod assignments;
pub mod table;
pub mod world;
