//! Whether a replica, and a deployment, is as it shall be.

use super::canary::Canary;
use super::intent::{Deployment, Phase, Replica};
use super::{Now, World};

/// The message while a replica that died or is not well is being replaced.
pub const HEALTH_MESSAGE: &str = "A replica's health check failed. This deployment will be \
     UNHEALTHY until the replica recovers or is replaced.";

/// Whether the replica shall be replaced: another version, not well, or on a worker that
/// leaves.
pub fn is_to_be_replaced(world: &World, deployment: &Deployment, replica: &Replica) -> bool {
    !deployment.is_current(replica)
        || replica.phase == Phase::Unhealthy
        || on_draining_worker(world, replica)
}

/// Whether the replica's worker has been told to stop.
pub fn on_draining_worker(world: &World, replica: &Replica) -> bool {
    world
        .workers
        .get(&replica.worker)
        .is_some_and(|worker| worker.draining)
}

/// Whether the replica's worker is out of reach for the moment: it may answer, and may not.
pub fn is_out_of_reach(world: &World, replica: &Replica) -> bool {
    let worker = world.workers.get(&replica.worker);
    worker.is_some_and(|worker| worker.away)
}

/// Whether the replica's worker was away, is back, and may be away again in a moment.
pub fn on_untrusted_worker(world: &World, replica: &Replica, now: Now) -> bool {
    let worker = world.workers.get(&replica.worker);
    worker
        .and_then(|worker| worker.trusted_at_ms)
        .is_some_and(|trusted_at_ms| now.ms < trusted_at_ms)
}

/// Whether the replica has its newest config in force, as its worker says.
pub fn has_its_config(world: &World, id: &str, replica: &Replica) -> bool {
    world
        .workers
        .get(&replica.worker)
        .and_then(|worker| worker.replicas.get(id))
        .is_some_and(|report| report.config_version == replica.spec.config_version)
}

/// Whether exactly the replicas that shall run do run, with the config they shall have. Limits
/// are not looked at: every plan hands changed ones out at once.
pub fn is_right(world: &World, deployment: &Deployment) -> bool {
    let goal = &deployment.spec.replica;
    let is_shared = deployment.canary.as_ref().is_some_and(Canary::is_shared);
    !is_shared
        && deployment.replicas.len() == deployment.target as usize
        && deployment.replicas.iter().all(|(id, replica)| {
            replica.phase == Phase::Running
                && replica.spec.code_version == goal.code_version
                && replica.spec.config_version == goal.config_version
                && !on_draining_worker(world, replica)
                && has_its_config(world, id, replica)
        })
}
