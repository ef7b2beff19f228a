//! Counts one request exactly once, however it ends: answered, cut off, or given up by the
//! client, in which case the future that serves it is dropped without a word.

use std::sync::Arc;
use std::time::Instant;

use http::Method;

use crate::core::{Core, RouteEntry};
use crate::metrics::{Ingress, RouteMetrics};

/// One request in progress.
pub struct Tally {
    core: Arc<Core>,
    ingress: Ingress,
    route: Option<Arc<RouteEntry>>,
    method: Method,
    came: Instant,
    /// Status that is counted when the tally is dropped; the client's doing until it is set.
    status: u16,
}

// === impl Tally ===

impl Tally {
    /// A request came.
    pub fn begin(core: &Arc<Core>, ingress: Ingress, method: Method) -> Tally {
        let (ongoing, gone) = match ingress {
            Ingress::Http => (&core.http, crate::metrics::CLIENT_GONE),
            Ingress::Grpc => (&core.grpc, grpc_gone()),
        };
        ongoing.begin();
        Tally {
            core: Arc::clone(core),
            ingress,
            route: None,
            method,
            came: Instant::now(),
            status: gone,
        }
    }

    /// It leads here.
    pub fn set_route(&mut self, route: &Arc<RouteEntry>) {
        self.route = Some(Arc::clone(route));
    }

    /// When it came.
    pub fn came(&self) -> Instant {
        self.came
    }

    /// It was answered with this status; counted now, with the time it took.
    pub fn end(mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let (ongoing, nowhere) = match self.ingress {
            Ingress::Http => (&self.core.http, &self.core.nowhere_http),
            Ingress::Grpc => (&self.core.grpc, &self.core.nowhere_grpc),
        };
        ongoing.end();
        let metrics: &RouteMetrics = match &self.route {
            Some(route) => &route.metrics,
            None => nowhere,
        };
        metrics.answered(&self.method, self.status, self.came.elapsed());
    }
}

fn grpc_gone() -> u16 {
    u16::try_from(i32::from(tonic::Code::Cancelled)).unwrap_or(1)
}
