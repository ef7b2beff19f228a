//! The ingress: route table, admission, queues, dispatch.
//!
//! A request walks through `ingress` (HTTP or gRPC), `table` (which deployment), `exchange` (one
//! request from admission to answer), `deployment` and `queue` (which replica, and when), and
//! `dispatch` (the connection to its worker). `answers` counts how versions of the code do that
//! share the requests, `flow` what passed through. `session` brings the table. `core` is what they share.
//!
//! The cores are pure: `table`, `queue`, `ranking`,
//! `ingress::{builtin, headers, problem}`.
//!
//! Not here: what is deployed and where (the head), and running it (the worker).

mod answers;
mod core;
mod deployment;
mod dispatch;
mod error;
mod exchange;
mod flow;
#[doc(hidden)]
pub mod fuzzing;
mod ingress;
pub mod limits;
pub mod metrics;
pub mod queue;
mod ranking;
mod session;
#[doc(hidden)]
pub mod simulation;
mod sync;
pub mod table;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mobula_process::access::Credentials;
use mobula_process::admin::Readiness;
use mobula_process::net::Addr;
use tokio_util::sync::CancellationToken;

pub use crate::error::RouterError;

use crate::core::Core;
use crate::session::Identity;

/// What a router has to be told.
pub struct RouterConfig {
    /// The heads; any of them that answers will do.
    pub head: Vec<Addr>,
    /// What to show the heads and the workers.
    pub credentials: Credentials,
    /// Where to listen for HTTP, whatever the deployed config says.
    pub http_addr: Option<SocketAddr>,
    /// The same for gRPC.
    pub grpc_addr: Option<SocketAddr>,
    /// Told when the router serves, and when it goes away.
    pub readiness: Readiness,
    /// 56 hex digits, new for each process.
    pub router_id: String,
    /// The machine.
    pub node_id: String,
    /// Its address.
    pub node_ip: String,
    /// Encoded `FileDescriptorSet`s of the gRPC services that applications answer, for
    /// reflection.
    pub descriptor_sets: Vec<&'static [u8]>,
    /// Ends the router, after what is in progress has ended.
    pub shutdown: CancellationToken,
    /// Limits that an operator may change.
    pub limits: RouterLimits,
}

/// Limits that an operator may change; all others are constants in [`limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterLimits {
    /// Largest request body over HTTP.
    pub body_bytes_max: u64,
}

impl Default for RouterLimits {
    fn default() -> RouterLimits {
        RouterLimits {
            body_bytes_max: limits::BODY_BYTES_MAX,
        }
    }
}

/// Runs a router until it is told to stop and has drained.
///
/// # Errors
/// Only for what it was given: no head, or descriptors that do not decode.
pub async fn run(config: RouterConfig) -> Result<(), RouterError> {
    let RouterConfig {
        head,
        credentials,
        http_addr,
        grpc_addr,
        readiness,
        router_id,
        node_id,
        node_ip,
        descriptor_sets,
        shutdown,
        limits,
    } = config;
    if head.is_empty() {
        return Err(RouterError::NoHead);
    }
    metrics::describe();
    metrics::publish_limits(limits.body_bytes_max);
    let core = Arc::new(Core::new(&router_id, &node_id, &node_ip, credentials));
    let identity = Identity {
        router_id,
        node_id,
        node_ip,
    };
    let stop = CancellationToken::new();
    let session = session::run(Arc::clone(&core), head, identity, stop.clone());
    let ports = ingress::Ports {
        core: Arc::clone(&core),
        body_bytes_max: limits.body_bytes_max,
        descriptor_sets,
        http_addr,
        grpc_addr,
    };
    let ending = shutdown.child_token();
    let serve = async {
        let serving = async {
            let served = ingress::run(ports, ending.clone()).await;
            // It only ends by itself when it cannot serve at all.
            ending.cancel();
            served
        };
        let (served, told) = tokio::join!(serving, say_goodbye(&core, &readiness, &ending));
        core.lasting.close();
        let left = limits::DRAIN_SECONDS_MAX.saturating_sub(told.elapsed());
        drop(tokio::time::timeout(left, core.lasting.wait()).await);
        // The answers are out: now the workers and the head may go.
        core.workers_stop.cancel();
        core.workers_tasks.close();
        core.workers_tasks.wait().await;
        core.record_shutdown(told.elapsed());
        stop.cancel();
        served
    };
    let ((), served) = tokio::join!(session, serve);
    served
}

/// Says that the router is going away, as soon as it is told so.
async fn say_goodbye(core: &Core, readiness: &Readiness, shutdown: &CancellationToken) -> Instant {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = say_ready(core, readiness) => shutdown.cancelled().await,
    }
    readiness.set_ending();
    core.set_draining();
    Instant::now()
}

/// A router is ready once it has a table and every port that the table asks for is open.
async fn say_ready(core: &Core, readiness: &Readiness) {
    let mut versions = core.version.subscribe();
    let mut listening = core.listening.subscribe();
    loop {
        let table = core.snapshot.load();
        let open = {
            let ports = listening.borrow_and_update();
            !ports.http_addr.is_empty() && !ports.grpc_addr.is_empty()
        };
        if table.table.version > 0 && (table.table.ingress.is_none() || open) {
            return readiness.set_ready();
        }
        drop(table);
        // Both senders live in `core`.
        tokio::select! {
            _ = versions.changed() => {}
            _ = listening.changed() => {}
        }
    }
}
