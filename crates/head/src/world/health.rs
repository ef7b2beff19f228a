//! Whether a replica, and a deployment, is as it shall be.

use super::canary::Canary;
use super::gangs::together;
use super::intent::{Deployment, Phase, Replica};
use super::observed::Worker;
use super::{Now, ReplicaId, WorkerId, World};

/// The message while a replica that died or is not well is being replaced.
pub const HEALTH_MESSAGE: &str = "A replica's health check failed. This deployment will be \
     UNHEALTHY until the replica recovers or is replaced.";

/// Whether the replica shall be replaced: another version, not well, on a worker that leaves,
/// without one of its bundles, of no gang where there are gangs, or moved to empty its worker.
pub fn is_to_be_replaced(
    world: &World,
    deployment: &Deployment,
    id: &ReplicaId,
    replica: &Replica,
) -> bool {
    !deployment.is_current(replica)
        || replica.phase == Phase::Unhealthy
        || on_draining_worker(world, replica)
        || lacks_bundles(world, replica)
        || has_another_gang(deployment, replica)
        || world.compaction.moves(id)
}

/// Whether a worker that the replica needs has been told to stop.
pub fn on_draining_worker(world: &World, replica: &Replica) -> bool {
    leaving_worker(world, replica).is_some()
}

/// A worker that the replica needs and that has been told to stop.
pub fn leaving_worker<'a>(world: &'a World, replica: &Replica) -> Option<&'a Worker> {
    let mut workers = replica.workers().filter_map(|id| world.workers.get(id));
    workers.find(|worker| worker.draining)
}

/// Whether the replica is without a bundle: its worker is gone, or nobody knows which it was.
fn lacks_bundles(world: &World, replica: &Replica) -> bool {
    let forgotten = replica.spec.group.bundles.len() > 1 && replica.reserved.is_empty();
    forgotten || lost_bundle(world, replica).is_some()
}

/// A worker that held a bundle of the replica and is gone.
pub fn lost_bundle<'a>(world: &World, replica: &'a Replica) -> Option<&'a WorkerId> {
    let others = replica
        .reserved
        .iter()
        .map(|reservation| &reservation.worker);
    let gone =
        |id: &&WorkerId| !world.workers.contains_key(*id) && !world.awaited_workers.contains(*id);
    others.into_iter().find(gone)
}

/// Whether the replica is of a gang of another size, or of none where there are gangs: nobody
/// knows any more with whom it belongs.
fn has_another_gang(deployment: &Deployment, replica: &Replica) -> bool {
    let size = replica.gang.as_ref().map_or(1, |gang| gang.size);
    size != deployment.spec.replica.group.gang_size.max(1)
}

/// Whether a worker that the replica needs is out of reach for the moment: it may answer, and
/// may not.
pub fn is_out_of_reach(world: &World, replica: &Replica) -> bool {
    let mut workers = replica.workers().filter_map(|id| world.workers.get(id));
    workers.any(|worker| worker.away)
}

/// Whether a worker that the replica needs was away, is back, and may be away again in a moment.
pub fn on_untrusted_worker(world: &World, replica: &Replica, now: Now) -> bool {
    let workers = replica.workers().filter_map(|id| world.workers.get(id));
    let mut trusted_at_ms = workers.filter_map(|worker| worker.trusted_at_ms);
    trusted_at_ms.any(|trusted_at_ms| now.ms < trusted_at_ms)
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
                && replica.spec.config_version == goal.config_version
                && !is_to_be_replaced(world, deployment, id, replica)
                && has_its_config(world, id, replica)
        })
        && are_whole(deployment)
}

fn are_whole(deployment: &Deployment) -> bool {
    deployment.spec.replica.group.gang_size <= 1
        || together(&deployment.replicas)
            .iter()
            .all(|gang| gang.is_broken().is_none())
}
