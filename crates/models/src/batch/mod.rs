//! What one engine run takes. Pure: the order of the waiting rows ([`Queue`]), which of them go
//! together ([`decide`]), and the padded tensors made of them ([`Padded`]). No threads, no clock.

mod pad;
mod plan;
mod queue;

pub use pad::{Padded, Tokens};
pub use plan::{Decision, Limits, Waiting, decide};
pub use queue::{Queue, Queued};
