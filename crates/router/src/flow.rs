//! How many requests left their replica, and how long they were there: what the head sizes a
//! deployment by. How many came is counted by the queue, under the lock that it holds anyway.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mobula_proto::v1;

/// The counts of one deployment, since the router began to route to it.
#[derive(Default)]
pub struct Flow {
    served: AtomicU64,
    service_us: AtomicU64,
}

// === impl Flow ===

impl Flow {
    /// A request left its slot.
    pub fn served(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.service_us.fetch_add(us, Ordering::Relaxed);
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts as the head is told them. A request that is being counted may be in one of
    /// them and not yet in the other; the next report has it.
    pub fn report(&self, arrivals: u64) -> v1::RequestFlow {
        v1::RequestFlow {
            arrivals,
            served: self.served.load(Ordering::Relaxed),
            service_us: self.service_us.load(Ordering::Relaxed),
        }
    }
}
