//! What the simulation runs of a router besides its public cores. Not for anybody else.

pub use crate::answers::Answers;
pub use crate::deployment::pause_after;
pub use crate::exchange::may_repeat;
pub use crate::flow::Flow;
