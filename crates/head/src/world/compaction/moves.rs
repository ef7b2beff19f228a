//! Which worker can be emptied, and where its replicas would go. Only plain replicas move: those
//! with bundles or in gangs stay, and their workers with them.

use std::collections::{BTreeMap, BTreeSet};

use super::Move;
use crate::world::intent::{Deployment, Replica};
use crate::world::observed::Worker;
use crate::world::placement::{Free, Peers};
use crate::world::spec::CompactionMode;
use crate::world::{DeploymentId, ReplicaId, ReplicaKey, WorkerId, World};

/// Workers that one look considers, those with the fewest replicas first: the next looks see
/// what has changed until then.
const CANDIDATES_MAX: usize = 8;

/// A worker with more replicas is not one that could be spared.
const MOVES_MAX: usize = 32;

/// A replica on a worker.
struct Holding<'a> {
    id: DeploymentId,
    replica_id: &'a ReplicaId,
    deployment: &'a Deployment,
    replica: &'a Replica,
}

/// A worker that can be emptied, the one with the fewest replicas and the least to do, and the
/// first move.
pub fn worker_to_empty(world: &World) -> Option<(WorkerId, Move)> {
    let held = held(world);
    let mut candidates: Vec<(usize, u32, &WorkerId)> = Vec::new();
    for (id, holdings) in &held {
        let Some(worker) = world.workers.get(*id) else {
            continue;
        };
        if may_go(world, worker) && !holdings.is_empty() && holdings.len() <= MOVES_MAX {
            let load = worker.replicas.values().map(|r| r.ongoing_requests).sum();
            candidates.push((holdings.len(), load, id));
        }
    }
    candidates.sort();
    let candidates = candidates.into_iter().take(CANDIDATES_MAX);
    let mut moves = candidates.filter_map(|(_, _, id)| {
        let first = to_empty(world, id)?.into_iter().next()?;
        Some((id.clone(), first))
    });
    moves.next()
}

/// Where all that is left on the worker would go; None: not all of it has another place.
pub fn to_empty(world: &World, worker: &WorkerId) -> Option<Vec<Move>> {
    let held = held(world);
    let source = world.workers.get(worker)?;
    let Some(holdings) = held.get(worker) else {
        return Some(Vec::new());
    };
    let occupied: BTreeSet<&WorkerId> = held.keys().copied().filter(|id| *id != worker).collect();
    let mut free = Free::of(world);
    let mut peers: BTreeMap<&DeploymentId, Peers> = BTreeMap::new();
    let mut moves = Vec::with_capacity(holdings.len());
    for holding in holdings {
        let replicas = || holding.deployment.replicas.values();
        let peers = peers.entry(&holding.id);
        let peers = peers.or_insert_with(|| Peers::of(world, replicas(), replicas()));
        if !holding.replica.spec.group.is_plain() || holding.replica.gang.is_some() {
            return None;
        }
        peers.leaves(world, holding.replica);
        let to = free.place_elsewhere(world, &holding.deployment.spec, source, &occupied, peers)?;
        let replica = ReplicaKey {
            deployment: holding.id.clone(),
            replica: holding.replica_id.clone(),
        };
        moves.push(Move { replica, to });
    }
    Some(moves)
}

/// What each worker holds; one that holds bundles for replicas elsewhere has them in the list,
/// where they keep it from being emptied.
fn held(world: &World) -> BTreeMap<&WorkerId, Vec<Holding<'_>>> {
    let mut held: BTreeMap<&WorkerId, Vec<Holding<'_>>> = BTreeMap::new();
    for (id, deployment) in world.deployments() {
        for (replica_id, replica) in &deployment.replicas {
            for worker in replica.workers() {
                held.entry(worker).or_default().push(Holding {
                    id: id.clone(),
                    replica_id,
                    deployment,
                    replica,
                });
            }
        }
    }
    held
}

/// Whether somebody takes the worker away once it is empty.
fn may_go(world: &World, worker: &Worker) -> bool {
    let asked_for = world.serving.as_ref().map(|serving| serving.compaction);
    let released = worker
        .pod()
        .is_some_and(|pod| world.supply.releasable.contains(pod));
    asked_for == Some(CompactionMode::Always) || released
}
