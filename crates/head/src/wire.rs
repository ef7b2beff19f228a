//! From the protobuf of reports to the words of the world. Pure.

use mobula_proto::latency::BUCKETS;
use mobula_proto::v1;

use crate::world::Resources;
use crate::world::autoscale::flow::Counts;
use crate::world::observed::{Answers, ReplicaReport, ReportedState, Router, RouterLoad, Worker};
use crate::world::resources::{CPU, GPU, MEMORY};

/// A worker's report; None for a state that does not exist.
pub fn worker(report: v1::WorkerReport) -> Option<Worker> {
    let replicas = report
        .replicas
        .into_iter()
        .map(|report| Some((report.replica_id.clone(), replica(report)?)))
        .collect::<Option<_>>()?;
    Some(Worker {
        id: report.worker_id,
        node_id: report.node_id,
        node_ip: report.node_ip,
        pid: report.pid,
        version: report.runtime_version,
        data_addr: report.data_addr,
        capacity: report
            .capacity
            .map(|capacity| resources(&capacity))
            .unwrap_or_default(),
        assignment_version: report.assignment_version,
        draining: report.draining,
        draining_since_ms: None,
        failures: 0,
        labels: report.labels.into_iter().collect(),
        heard_ms: 0,
        disconnected_since_ms: None,
        away: false,
        trusted_at_ms: None,
        replicas,
    })
}

/// A router's report.
pub fn router(report: v1::RouterReport) -> Router {
    Router {
        id: report.router_id,
        node_id: report.node_id,
        node_ip: report.node_ip,
        pid: report.pid,
        version: report.runtime_version,
        http_addr: report.http_addr,
        grpc_addr: report.grpc_addr,
        table_version: report.table_version,
        draining: report.draining,
        error: report.error,
        heard_ms: 0,
        behind_since_ms: None,
        loads: report
            .loads
            .into_iter()
            .map(|load| {
                let said = load_of(load.queued_requests, load.ongoing_requests, load.flow);
                ((load.application, load.deployment), said)
            })
            .collect(),
        answers: report
            .answers
            .into_iter()
            .map(|version| {
                let key = (
                    version.application,
                    version.deployment,
                    version.code_version,
                );
                let mut latencies = version.latencies;
                latencies.truncate(BUCKETS);
                let answers = Answers {
                    answers: version.answers,
                    errors: version.errors,
                    latencies,
                };
                (key, answers)
            })
            .collect(),
    }
}

fn load_of(queued: u32, ongoing: u32, flow: Option<v1::RequestFlow>) -> RouterLoad {
    RouterLoad {
        queued,
        ongoing,
        counts: flow.map(|flow| Counts {
            arrivals: flow.arrivals,
            served: flow.served,
            service_us: flow.service_us,
        }),
    }
}

fn resources(capacity: &v1::Resources) -> Resources {
    let named = [
        (CPU, capacity.cpus),
        (GPU, capacity.gpus),
        (MEMORY, capacity.memory_bytes as f64),
    ];
    let custom = capacity
        .custom
        .iter()
        .map(|(name, units)| (name.as_str(), *units));
    Resources::from_units(named.into_iter().chain(custom))
}

fn replica(report: v1::ReplicaReport) -> Option<ReplicaReport> {
    let state = match v1::ReplicaState::try_from(report.state).ok()? {
        v1::ReplicaState::Unspecified => return None,
        v1::ReplicaState::Starting => ReportedState::Starting,
        v1::ReplicaState::Running => ReportedState::Running,
        v1::ReplicaState::Updating => ReportedState::Updating,
        v1::ReplicaState::Draining => ReportedState::Draining,
        v1::ReplicaState::Stopped => ReportedState::Stopped,
        v1::ReplicaState::Failed => ReportedState::Failed,
        v1::ReplicaState::Unhealthy => ReportedState::Unhealthy,
    };
    Some(ReplicaReport {
        application: report.application,
        deployment: report.deployment,
        code_version: report.code_version,
        config_version: report.config_version,
        state,
        message: report.message,
        start_time_s: report.start_time_s,
        ongoing_requests: report.ongoing_requests,
    })
}
