//! What happened to replicas, for logs and counters. Nothing is decided from it.

use super::autoscale::Scaling;
use super::{DeploymentId, ReplicaId, ReplicaKey, WorkerId};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// Ready for the first time.
    Started {
        deployment: DeploymentId,
        replica: ReplicaId,
        took_ms: u64,
    },
    /// Not ready, and it will not be.
    StartFailed {
        deployment: DeploymentId,
        replica: ReplicaId,
        error: String,
    },
    /// Was ready; its checks fail, or it died.
    HealthFailed {
        deployment: DeploymentId,
        replica: ReplicaId,
        error: String,
    },
    /// Gone with all its replicas.
    WorkerLost {
        worker: WorkerId,
        how: String,
        replicas: usize,
    },
    /// The load asked for another count.
    Autoscaled(Scaling),
    /// A replica moves so that its worker can go.
    Moves {
        replica: ReplicaKey,
        from: WorkerId,
        to: WorkerId,
    },
    /// All that a worker had has moved.
    WorkerEmptied { worker: WorkerId },
    /// What is left on the worker stays.
    CompactionCalledOff { worker: WorkerId, why: &'static str },
}
