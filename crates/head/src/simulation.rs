//! What the simulation runs of a head: the same loop, store access and recovery as the real one.
//! Not for anybody else.

pub use crate::control_loop::{ControlLoop, Heard};
pub use crate::documents::StoredConfig;
pub use crate::elected::FencedStore;
pub use crate::error::HeadError;
pub use crate::executor::Executor;
pub use crate::history::End;
pub use crate::message::{DeployError, Deployed, Proposal, ScaleError};
pub use crate::prepare::Preparer;
pub use crate::restore::restore;
pub use crate::sessions::SESSION_SILENT_MAX;
