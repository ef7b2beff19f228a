//! What one engine run takes. Pure: which of the waiting rows go together ([`plan`]), and the
//! padded tensors made of them ([`Padded`]). No threads, no clock.

mod pad;
mod plan;

pub use pad::{Padded, Tokens};
pub use plan::{Decision, Limits, Waiting, decide};
