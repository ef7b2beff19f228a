//! The worker's report to the head: always whole, made from what the board shows. Pure.

use mobula_proto::v1::{ReplicaReport, Resources, WorkerReport};

use crate::board::{Cell, Directory};
use crate::lifecycle::{self, Phase};

/// What stays the same in every report of this process.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub worker_id: String,
    pub node_id: String,
    pub node_ip: String,
    pub pid: u32,
    pub data_addr: String,
    pub capacity: Resources,
    pub labels: std::collections::HashMap<String, String>,
}

pub(crate) fn report(
    identity: &Identity,
    replicas: &Directory,
    assignment_version: u64,
    draining: bool,
) -> WorkerReport {
    WorkerReport {
        worker_id: identity.worker_id.clone(),
        node_id: identity.node_id.clone(),
        node_ip: identity.node_ip.clone(),
        pid: identity.pid,
        data_addr: identity.data_addr.clone(),
        capacity: Some(identity.capacity.clone()),
        labels: identity.labels.clone(),
        runtime_version: mobula_process::release::VERSION.to_owned(),
        assignment_version,
        draining,
        replicas: replicas
            .values()
            .map(|hosted| replica(&hosted.cell))
            .collect(),
    }
}

/// The replicas that ended: once the head has heard it, they are forgotten.
pub(crate) fn ended(report: &WorkerReport) -> Vec<String> {
    let stopped = lifecycle::reported(Phase::Stopped);
    report
        .replicas
        .iter()
        .filter(|replica| replica.state() == stopped)
        .map(|replica| replica.replica_id.clone())
        .collect()
}

fn replica(cell: &Cell) -> ReplicaReport {
    let status = cell.status();
    ReplicaReport {
        replica_id: cell.replica_id.clone(),
        application: cell.application.clone(),
        deployment: cell.deployment.clone(),
        code_version: cell.code_version.clone(),
        config_version: status.config_version,
        state: lifecycle::reported(status.phase).into(),
        message: status.message,
        start_time_s: cell.start_time_s,
        ongoing_requests: cell.gate.ongoing(),
    }
}
