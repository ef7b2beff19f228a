//! What happened to replicas, into logs and counters.

use tracing::{info, warn};

use crate::metrics;
use crate::world::DeploymentId;
use crate::world::autoscale::Scaling;
use crate::world::notes::Note;

/// Records one thing that happened.
pub fn record(note: Note) {
    let labels = |id: &DeploymentId| {
        [
            ("deployment", id.deployment.clone()),
            ("application", id.application.clone()),
        ]
    };
    match note {
        Note::Started {
            deployment,
            replica,
            took_ms,
        } => {
            info!(%deployment, replica, took_ms, "a replica is ready");
            ::metrics::histogram!(metrics::REPLICA_STARTUP_LATENCY_MS, &labels(&deployment))
                .record(took_ms as f64);
        }
        Note::StartFailed {
            deployment,
            replica,
            error,
        } => {
            warn!(%deployment, replica, error, "a replica did not start");
        }
        Note::HealthFailed {
            deployment,
            replica,
            error,
        } => {
            warn!(%deployment, replica, error, "a replica is not well");
            ::metrics::counter!(metrics::HEALTH_CHECK_FAILURES, &labels(&deployment)).increment(1);
        }
        Note::WorkerLost {
            worker,
            how,
            replicas: 0,
        } => info!(worker, how, "a worker left"),
        Note::WorkerLost {
            worker,
            how,
            replicas,
        } => {
            warn!(worker, how, replicas, "a worker is lost");
        }
        Note::Autoscaled(scaling) => {
            let Scaling {
                deployment,
                from,
                to,
                cause,
            } = scaling;
            info!(%deployment, from, to, %cause, "autoscaled");
        }
        Note::Moves { replica, from, to } => {
            info!(%replica, from, to, "a replica moves, to empty its worker");
        }
        Note::WorkerEmptied { worker } => {
            info!(worker, "a worker is emptied");
            ::metrics::counter!(metrics::COMPACTED_NODES).increment(1);
        }
        Note::CompactionCalledOff { worker, why } => {
            info!(worker, why, "a worker is not emptied any further");
        }
    }
}
