//! One replica: an actor around the user's code.
//!
//! - `actor`: owns the code and everything that runs on its behalf
//! - `blocking`: what keeps a call that blocks its thread from holding up the others
//! - `threads`: the same for all that is not a call
//! - `start`: from an assignment to a constructed, configured, healthy replica
//! - `checks`: one health check
//! - `tasks`: what runs beside the actor: health checks, `reconfigure`, drain
//!
//! Not here: which replicas there are (`host`), and frames (`data_plane`).

mod actor;
mod blocking;
mod checks;
mod start;
mod tasks;
mod threads;

pub(crate) use actor::{ReplicaActor, ReplicaArgs, ReplicaMsg};
pub(crate) use start::Builder;
pub(crate) use threads::Threads;

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Runs user code; a panic in it becomes its text.
pub(crate) fn unpanicked<T>(
    code: impl Future<Output = T>,
) -> impl Future<Output = Result<T, String>> {
    let caught = AssertUnwindSafe(code).catch_unwind();
    caught.map(|done| done.map_err(|panic| panic_text(panic.as_ref())))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("with no text"))
}
