//! Workers and routers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{ROUTERS_SHOWN_MAX, WORKERS_SHOWN_MAX, seconds_since, shortened};
use crate::status::router_status;
use crate::world::observed::{Router, Worker};
use crate::world::placement::Free;
use crate::world::{Now, Resources, World};

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerView {
    pub id: String,
    pub node_id: String,
    pub node_ip: String,
    pub pid: u32,
    /// Its release.
    pub version: String,
    /// `ready`, `out of reach`, `draining` or `emptied`.
    pub state: &'static str,
    /// Seconds since it was heard of.
    pub heard_s: f64,
    /// Replicas that are there, or about to be.
    pub replicas: u32,
    /// Units that it has. Memory is bytes; absent: it has no limit.
    pub total: BTreeMap<String, f64>,
    /// Units that replicas and their bundles hold.
    pub used: BTreeMap<String, f64>,
    pub labels: BTreeMap<String, String>,
}

/// One router.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouterView {
    pub id: String,
    pub node_ip: String,
    pub pid: u32,
    /// Its release.
    pub version: String,
    /// As in the Serve document.
    pub status: &'static str,
    /// Empty: it does not listen.
    pub http_addr: String,
    /// As `http_addr`.
    pub grpc_addr: String,
    /// Why it does not serve.
    pub error: String,
    /// The table in force.
    pub table_version: u64,
    /// For so many seconds it has not had the newest table.
    pub behind_s: Option<f64>,
    /// Seconds since it was heard of.
    pub heard_s: f64,
    /// Requests that wait in it.
    pub waiting: u64,
    /// Requests that it has given to replicas.
    pub ongoing: u64,
}

/// The first ones by id.
pub fn workers(world: &World, free: &Free, now: Now) -> Vec<WorkerView> {
    let mut replicas: BTreeMap<&str, u32> = BTreeMap::new();
    for (_, deployment) in world.deployments() {
        for replica in deployment.replicas.values() {
            *replicas.entry(&replica.worker).or_default() += 1;
        }
    }
    let shown = world.workers.values().take(WORKERS_SHOWN_MAX);
    shown
        .map(|worker| {
            let mut used = worker.capacity.clone();
            used.take(free.on(worker));
            WorkerView {
                id: worker.id.clone(),
                node_id: worker.node_id.clone(),
                node_ip: worker.node_ip.clone(),
                pid: worker.pid,
                version: worker.version.clone(),
                state: state(world, worker),
                heard_s: seconds_since(worker.heard_ms, now),
                replicas: replicas.get(worker.id.as_str()).copied().unwrap_or(0),
                total: units(&worker.capacity),
                used: units(&used),
                labels: worker.labels.clone(),
            }
        })
        .collect()
}

/// What matters most of it.
fn state(world: &World, worker: &Worker) -> &'static str {
    if worker.away || worker.disconnected_since_ms.is_some() {
        "out of reach"
    } else if worker.draining {
        "draining"
    } else if world.compaction.empties(&worker.id) {
        "emptied"
    } else {
        "ready"
    }
}

fn units(resources: &Resources) -> BTreeMap<String, f64> {
    let units = resources.iter();
    units
        .map(|(name, units)| (name.to_owned(), units))
        .collect()
}

/// The first ones by id.
pub fn routers(world: &World, now: Now) -> Vec<RouterView> {
    let shown = world.routers.values().take(ROUTERS_SHOWN_MAX);
    shown.map(|router| router_view(router, now)).collect()
}

fn router_view(router: &Router, now: Now) -> RouterView {
    let loads = router.loads.values();
    let (waiting, ongoing) = loads.fold((0, 0), |(waiting, ongoing), load| {
        (
            waiting + u64::from(load.queued),
            ongoing + u64::from(load.ongoing),
        )
    });
    RouterView {
        id: router.id.clone(),
        node_ip: router.node_ip.clone(),
        pid: router.pid,
        version: router.version.clone(),
        status: router_status(router),
        http_addr: router.http_addr.clone(),
        grpc_addr: router.grpc_addr.clone(),
        error: shortened(&router.error),
        table_version: router.table_version,
        behind_s: router
            .behind_since_ms
            .map(|since| seconds_since(since, now)),
        heard_s: seconds_since(router.heard_ms, now),
        waiting,
        ongoing,
    }
}
