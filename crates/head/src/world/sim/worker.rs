//! Workers that do what they are assigned, and report it.

use std::collections::BTreeMap;

use mobula_proto::{POD_UID_LABEL, v1};

use super::Sim;
use crate::world::fixtures::at;
use crate::world::observed::{ReplicaReport, ReportedState, Worker};
use crate::world::resources::{CPU, GPU};
use crate::world::{Event, Resources};

#[derive(Clone, Default)]
pub struct SimWorker {
    pub cpus: f64,
    pub gpus: f64,
    /// Custom resources.
    pub custom: BTreeMap<String, f64>,
    /// None: a machine of its own.
    pub node: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub pid: u32,
    pub connected: bool,
    pub draining: bool,
    pub retired: bool,
    pub assignment: v1::WorkerAssignment,
    pub replicas: BTreeMap<String, SimReplica>,
}

#[derive(Clone)]
pub struct SimReplica {
    pub assigned: v1::AssignedReplica,
    pub config_version: String,
    pub state: ReportedState,
    pub message: String,
    /// Requests in progress.
    pub ongoing: u32,
}

/// Replicas of this code never start.
pub const BAD_CODE: &str = "bad";

pub(super) fn node_of(id: &str, worker: &SimWorker) -> String {
    let node = worker.node.clone();
    node.unwrap_or_else(|| format!("node-of-{id}"))
}

fn capacity(worker: &SimWorker) -> Resources {
    let custom = worker.custom.iter();
    let custom = custom.map(|(name, units)| (name.as_str(), *units));
    let named = [(CPU, worker.cpus), (GPU, worker.gpus)];
    Resources::from_units(named.into_iter().chain(custom))
}

/// Every worker of the simulation runs in a pod.
fn in_pod(labels: &BTreeMap<String, String>, id: &str) -> BTreeMap<String, String> {
    let pod = (POD_UID_LABEL.to_owned(), format!("pod-of-{id}"));
    labels.clone().into_iter().chain([pod]).collect()
}

impl Sim {
    pub fn report(&mut self, id: &str) {
        let start_time_s = at(self.now_ms).unix_s;
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        if !worker.connected {
            return;
        }
        let replicas = worker
            .replicas
            .iter()
            .map(|(replica_id, replica)| {
                let report = ReplicaReport {
                    application: replica.assigned.application.clone(),
                    deployment: replica.assigned.deployment.clone(),
                    code_version: replica.assigned.code_version.clone(),
                    config_version: replica.config_version.clone(),
                    state: replica.state,
                    message: replica.message.clone(),
                    start_time_s,
                    ongoing_requests: replica.ongoing,
                };
                (replica_id.clone(), report)
            })
            .collect();
        let report = Worker {
            id: id.to_owned(),
            node_id: node_of(id, worker),
            node_ip: "127.0.0.1".to_owned(),
            pid: worker.pid,
            version: String::new(),
            data_addr: format!("unix:/{id}"),
            capacity: capacity(worker),
            assignment_version: worker.assignment.version,
            draining: worker.draining,
            draining_since_ms: None,
            failures: 0,
            heard_ms: 0,
            disconnected_since_ms: None,
            away: false,
            trusted_at_ms: None,
            labels: in_pod(&worker.labels, id),
            replicas,
        };
        // Stopped ones are reported once.
        worker
            .replicas
            .retain(|_, replica| replica.state != ReportedState::Stopped);
        self.observe(Event::WorkerReported(Box::new(report)));
    }

    /// The worker takes the newest assignment.
    pub fn assign(&mut self, id: &str) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let Some(assignment) = self.world.published.assignments().get(id) else {
            return;
        };
        if !worker.connected || assignment.version <= worker.assignment.version {
            return;
        }
        worker.assignment = assignment.clone();
        let named: BTreeMap<&str, &v1::AssignedReplica> = assignment
            .replicas
            .iter()
            .map(|r| (r.replica_id.as_str(), r))
            .collect();
        worker.replicas.retain(|id, replica| {
            named.contains_key(id.as_str()) || replica.state != ReportedState::Failed
        });
        for (replica_id, replica) in &mut worker.replicas {
            match named.get(replica_id.as_str()) {
                Some(assigned) => replica.assigned = (*assigned).clone(),
                None => replica.state = ReportedState::Draining,
            }
        }
        for (replica_id, assigned) in named {
            worker
                .replicas
                .entry(replica_id.to_owned())
                .or_insert_with(|| SimReplica {
                    assigned: assigned.clone(),
                    config_version: assigned.config_version.clone(),
                    state: ReportedState::Starting,
                    message: String::new(),
                    ongoing: 0,
                });
        }
        worker.retired = assignment.retire;
    }

    /// Every replica of the worker comes one step further.
    pub fn progress(&mut self, id: &str) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        for replica in worker.replicas.values_mut() {
            match replica.state {
                ReportedState::Starting if replica.assigned.code_version == BAD_CODE => {
                    replica.state = ReportedState::Failed;
                    replica.message = "no such model".to_owned();
                }
                ReportedState::Starting | ReportedState::Updating => {
                    replica.state = ReportedState::Running;
                    replica
                        .config_version
                        .clone_from(&replica.assigned.config_version);
                }
                ReportedState::Running => {
                    if replica.config_version != replica.assigned.config_version {
                        replica.state = ReportedState::Updating;
                    }
                }
                ReportedState::Draining => replica.state = ReportedState::Stopped,
                ReportedState::Stopped | ReportedState::Failed | ReportedState::Unhealthy => {}
            }
        }
    }

    /// Puts a replica of a worker into a state, by its place in the worker's list.
    pub fn afflict(&mut self, worker: &str, index: usize, state: ReportedState) {
        let Some(worker) = self.workers.get_mut(worker) else {
            return;
        };
        let mut ready = worker.replicas.iter_mut().filter(|(_, replica)| {
            matches!(
                replica.state,
                ReportedState::Running | ReportedState::Unhealthy
            )
        });
        if let Some((id, replica)) = ready.nth(index) {
            replica.state = state;
            replica.message = "afflicted".to_owned();
            if state == ReportedState::Failed {
                self.excused.insert(id.clone());
            }
        }
    }
}
