//! Folds what happens into the world. Nothing is decided here beyond what a report means.

use super::intent::Deployment;
use super::observed::{Router, Worker};
use super::spec::DeploySpec;
use super::supply::Supply;
use super::{DeploymentId, Now, RouterId, WorkerId, World};

/// How long a worker without a session keeps its replicas. A worker whose process is known to
/// have ended loses them at once; this is for the rest: a network that is away.
pub const WORKER_LOST_MS: u64 = 10_000;

/// How long after its last report a worker without a session is thought to come back by itself.
/// Then replacements of its replicas are started; its own are still in force, and stay when it
/// is back within `WORKER_LOST_MS`. A worker that only lost its connection, or its head, dials
/// again within a second.
pub const WORKER_AWAY_MS: u64 = 2_000;

/// How long a worker that was away and is back has to stay before surplus replicas leave, so
/// that a link that breaks again and again does not start and stop replicas as often.
pub const WORKER_TRUSTED_MS: u64 = 5_000;

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A config was accepted and stored.
    Deploy(Box<DeploySpec>),
    /// Everything shall go.
    DeleteAll,
    /// The scale route asks for a count; lost when the config says another one.
    Scale {
        deployment: DeploymentId,
        target: u32,
    },
    /// A whole report.
    WorkerReported(Box<Worker>),
    /// The session of a worker ended.
    WorkerDisconnected(WorkerId),
    /// The process of a worker ended.
    WorkerExited {
        node_id: String,
        pid: u32,
        how: String,
    },
    /// What the provisioner says now.
    Supplied(Supply),
    /// A pod does not exist any more, or everything in it has ended.
    PodGone(String),
    /// A whole report.
    RouterReported(Box<Router>),
    /// The session of a router ended.
    RouterDisconnected(RouterId),
    /// Time passed.
    Tick,
}

// === impl World ===

impl World {
    /// Whether the event is a heartbeat of somebody who is as he shall be: nothing can follow
    /// from it. Most events are, so whoever has thousands of peers need not look at each.
    pub fn is_repetition(&self, event: &Event) -> bool {
        match event {
            Event::WorkerReported(report) => {
                let known = self.workers.get(&report.id);
                let assigned = self.published.assignments().get(&report.id);
                known.is_some_and(|known| known.says_the_same(report))
                    && assigned.is_some_and(|told| told.version == report.assignment_version)
            }
            Event::RouterReported(report) => {
                let known = self.routers.get(&report.id);
                known.is_some_and(|known| {
                    known.says_the_same(report) && !self.matters(&known.loads, &report.loads)
                }) && report.table_version == self.published.table_version()
            }
            _ => false,
        }
    }

    /// Notes of a repetition that it came.
    pub fn hear(&mut self, event: Event, now: Now) {
        match event {
            Event::WorkerReported(report) => {
                if let Some(worker) = self.workers.get_mut(&report.id) {
                    worker.heard_ms = now.ms;
                }
            }
            Event::RouterReported(report) => {
                if let Some(router) = self.routers.get_mut(&report.id) {
                    router.loads = report.loads;
                    router.heard_ms = now.ms;
                }
            }
            _ => {}
        }
    }

    /// Folds one event in.
    pub fn observe(&mut self, event: Event, now: Now) {
        match event {
            Event::Deploy(spec) => self.deploy(*spec),
            Event::DeleteAll => self.delete_all(),
            Event::Scale { deployment, target } => self.scale(&deployment, target),
            Event::WorkerReported(worker) => self.worker_reported(*worker, now),
            Event::WorkerDisconnected(id) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.disconnected_since_ms.get_or_insert(now.ms);
                }
            }
            Event::WorkerExited { node_id, pid, how } => {
                let gone = self
                    .workers
                    .values()
                    .find(|worker| worker.node_id == node_id && worker.pid == pid)
                    .map(|worker| worker.id.clone());
                if let Some(id) = gone {
                    self.worker_lost(&id, &format!("its worker ended ({how})"), now);
                }
            }
            Event::Supplied(supply) => self.supplied(supply, now),
            Event::PodGone(pod) => self.pod_gone(&pod, now),
            Event::RouterReported(router) => self.router_reported(*router, now),
            Event::RouterDisconnected(id) => {
                if let Some(router) = self.routers.remove(&id) {
                    self.loads_departed(router, now);
                }
            }
            Event::Tick => {}
        }
        self.measure_newcomers(now);
        self.miss_silent_workers(now);
        self.lose_silent_workers(now);
        if now.ms >= super::SYNC_MS_MAX {
            self.awaited_workers.clear();
        }
        if self.awaited_workers.is_empty() {
            self.remembered.clear();
        }
    }

    /// The deployment of that id.
    pub fn deployment_mut(&mut self, id: &DeploymentId) -> Option<&mut Deployment> {
        self.applications
            .get_mut(&id.application)?
            .deployments
            .get_mut(&id.deployment)
    }

    /// All deployments of all applications, by name.
    pub fn deployments(&self) -> impl Iterator<Item = (DeploymentId, &Deployment)> {
        self.applications.iter().flat_map(|(application, value)| {
            value.deployments.iter().map(|(name, deployment)| {
                let id = DeploymentId {
                    application: application.clone(),
                    deployment: name.clone(),
                };
                (id, deployment)
            })
        })
    }
}
