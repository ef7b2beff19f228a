//! Starting what a deployment misses, and making room for it where there is none.

use std::collections::BTreeSet;

use super::{Standing, surge, wave};
use crate::world::gangs::Together;
use crate::world::group::{Gang, Placed};
use crate::world::health::lost_bundle;
use crate::world::intent::{Deployment, Replica};
use crate::world::placement::{Peers, replicas};
use crate::world::plan::{Action, Planner};
use crate::world::{DeploymentId, Reason, ReplicaKey, WorkerId};

/// Starts what is missing, within the wave and the room there is.
pub(super) fn start(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &Deployment,
    standing: &Standing<'_>,
) -> Option<Reason> {
    let target = deployment.target as usize;
    let missing = target.saturating_sub(standing.keep.len());
    if missing > 0 && !planner.world.may_replace_awaited(planner.now) {
        return Some(Reason::NotSynced {
            workers: planner.world.awaited_workers.len(),
        });
    }
    let wave = wave(deployment);
    let live = standing.live();
    let to_target = target.saturating_sub(live);
    // Replacements of what is not well, or on a worker that leaves, always come first.
    let changes = standing.changes(deployment);
    let beyond = if changes { surge(deployment) } else { wave };
    let surge = (target + beyond as usize).saturating_sub(live + standing.leaving);
    let size = deployment.spec.replica.group.gang_size.max(1) as usize;
    let starts = missing.min(to_target.max(surge)) / size;
    if starts == 0 {
        return None;
    }
    // Of a canary this is one of the two versions; where there is room counts both.
    let all = planner.world.applications.get(&id.application);
    let all = all.and_then(|application| application.deployments.get(&id.deployment));
    let all = all.unwrap_or(deployment).replicas.values();
    let mut peers = Peers::of(planner.world, all, replicas(&standing.keep));
    for started in 0..starts {
        let Some(placed) = place(planner, deployment, standing, &mut peers) else {
            let comes = make_room(planner, id, deployment, standing, &peers);
            // A change of version makes its own room where it has none, if it can.
            let mut moves = standing.replace.iter();
            let alone = changes && moves.all(|g| g.leaving_worker(planner.world).is_none());
            let short = if alone && comes {
                to_target / size
            } else {
                starts
            };
            planner.found_no_room(deployment, short.saturating_sub(started), &peers);
            let placed = (standing.keep.len() + started * size) as u32;
            let free = &planner.free;
            return Some(free.waiting(planner.world, deployment, &peers, placed));
        };
        let have = live + started * size;
        let reason = why_started(planner, deployment, standing, have, beyond);
        push_starts(planner, id, deployment, placed, &reason);
    }
    None
}

/// A replica that is moved has its place; all others take the best.
fn place(
    planner: &mut Planner<'_>,
    deployment: &Deployment,
    standing: &Standing<'_>,
    peers: &mut Peers,
) -> Option<Vec<Placed>> {
    let (world, spec) = (planner.world, &deployment.spec);
    let moved = standing.replaced().map(|(id, _)| *id);
    match world.compaction.place_for(moved) {
        Some(worker) => planner.free.place_on(world, spec, worker, peers),
        None => planner.free.place(world, spec, peers),
    }
}

fn why_started(
    planner: &Planner<'_>,
    deployment: &Deployment,
    standing: &Standing<'_>,
    have: usize,
    beyond: u32,
) -> Reason {
    let target = deployment.target;
    let world = planner.world;
    if have < target as usize && standing.away > 0 {
        let replicas = standing.away as u32;
        return Reason::OutOfReach { replicas, target };
    }
    if have < target as usize {
        let have = have as u32;
        return Reason::BelowTarget { have, target };
    }
    if standing.changes(deployment) {
        return Reason::NewVersionFirst { beyond };
    }
    let mut replaced = standing.replaced().map(|(_, replica)| *replica);
    if let Some(worker) = replaced.find_map(|replica| lost_bundle(world, replica)) {
        return Reason::BundleLost(worker.clone());
    }
    let moved = standing.replaced().map(|(id, _)| *id);
    match world.compaction.place_for(moved) {
        Some(_) => Reason::Compaction {
            worker: world.compaction.emptied().unwrap_or_default().to_owned(),
        },
        None => Reason::ReplacementFirst,
    }
}

fn push_starts(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &Deployment,
    placed: Vec<Placed>,
    reason: &Reason,
) {
    let spec = &deployment.spec.replica;
    let size = placed.len() as u32;
    let gang = (spec.group.gang_size > 1).then(|| Gang {
        id: (planner.new_id)(),
        size,
    });
    for placed in placed {
        let key = ReplicaKey {
            deployment: id.clone(),
            replica: (planner.new_id)(),
        };
        let action = Action::Start {
            key,
            placed,
            gang: gang.clone(),
            spec: spec.clone(),
        };
        planner.push(action, reason.clone());
    }
}

/// Stop-first, where start-first has no room: old replicas leave whose leaving would make some,
/// and those that cannot stay anyway. Whether room will come of it, or of who leaves already.
fn make_room(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &Deployment,
    standing: &Standing<'_>,
    peers: &Peers,
) -> bool {
    let on_demand = planner.world.supply.on_demand;
    let mut left = (wave(deployment) as usize).saturating_sub(standing.leaving);
    let mut others: Vec<&Together<'_>> = Vec::new();
    let mut is_room_made = false;
    for group in &standing.replace {
        match group.leaving_worker(planner.world) {
            Some(worker) if !on_demand => {
                let why = Reason::WorkerLeaves(worker.id.clone());
                planner.retire_all(id, group, &why);
            }
            Some(_) => {}
            None if group.members.len() > left => {}
            // Each makes room for one, where it is.
            None if makes_room(planner, deployment, &[group], peers) => {
                left -= group.members.len();
                is_room_made = true;
                retire_for_room(planner, id, deployment, group);
            }
            None => others.push(group),
        }
    }
    // Bundles and gangs may need the room of several.
    if is_room_made || deployment.spec.replica.group.is_plain() {
        return is_room_made || standing.leaving > 0;
    }
    let mut waves = waves_of(&others, left).into_iter();
    let Some(wave) = waves.find(|wave| makes_room(planner, deployment, wave, peers)) else {
        return standing.leaving > 0;
    };
    for group in wave {
        retire_for_room(planner, id, deployment, group);
    }
    true
}

/// Those who could leave together, at most so many replicas: the first of each worker, and the
/// first of all.
fn waves_of<'a, 'b>(groups: &[&'a Together<'b>], most: usize) -> Vec<Vec<&'a Together<'b>>> {
    let first = |of: &mut dyn Iterator<Item = &&'a Together<'b>>| {
        let mut left = most;
        let mut wave = Vec::new();
        for group in of {
            if let Some(rest) = left.checked_sub(group.members.len()) {
                left = rest;
                wave.push(*group);
            }
        }
        wave
    };
    let workers = groups.iter().flat_map(|group| group.replicas());
    let workers: BTreeSet<&WorkerId> = workers.flat_map(Replica::workers).collect();
    let there = |group: &Together<'_>, worker| {
        let mut replicas = group.replicas();
        replicas.any(|replica| replica.workers().any(|of| of == worker))
    };
    let of_one = workers
        .into_iter()
        .map(|worker| first(&mut groups.iter().filter(|group| there(group, worker))));
    of_one.chain([first(&mut groups.iter())]).collect()
}

fn makes_room(
    planner: &Planner<'_>,
    deployment: &Deployment,
    leaving: &[&Together<'_>],
    peers: &Peers,
) -> bool {
    let (world, spec, free) = (planner.world, &deployment.spec, &planner.free);
    let members = leaving.iter().flat_map(|group| &group.members);
    let mut members = members.map(|(_, replica)| *replica);
    if spec.replica.group.is_plain() {
        members.any(|replica| free.would_fit_without(world, replica, spec, peers))
    } else {
        free.would_fit_without_all(world, members, spec, peers)
    }
}

fn retire_for_room(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &Deployment,
    group: &Together<'_>,
) {
    let needs = deployment.spec.replica.need();
    planner.retire_all(id, group, &Reason::NoRoomForSurge { needs });
}
