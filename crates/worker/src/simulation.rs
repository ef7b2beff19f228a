//! What the simulation runs of a worker: the pure cores that the real one is made of. Not for
//! anybody else.

pub use crate::assignment::{Change, Limits, Order, Told, UserConfig, diff};
pub use crate::backoff::Backoff;
pub use crate::gate::{Gate, Mode, Permit, Refusal};
pub use crate::health::{Health, Verdict, jittered};
pub use crate::lifecycle::{Event, Phase, mode, next, reported};
pub use crate::session::REPORT_INTERVAL;
pub use crate::standstill::time_owed;
