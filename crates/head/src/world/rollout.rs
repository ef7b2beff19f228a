//! How a deployment gets from the replicas it has to those it shall have.
//!
//! Start-first: a replacement becomes ready before the replica that it replaces leaves, at
//! most one wave beyond the target. Where no worker has room for a surge but would have with
//! an old replica gone, it is stop-first, a wave at a time. The target is always reached
//! before anything is surged. (Ray's default is stop-first; a deployment of one replica then
//! has a gap. `max_surge_percent: 0` asks for it, a number above for a surge of that size.)

use super::canary::plan as canary_plan;
use super::health::{
    has_its_config, is_out_of_reach, is_to_be_replaced, on_draining_worker, on_untrusted_worker,
};
use super::intent::{Deployment, Phase, Replica};
use super::observed::Worker;
use super::placement::{Peers, replicas};
use super::plan::{Action, Planner};
use super::victims;
use super::{DeploymentId, Reason, ReplicaId, ReplicaKey};

/// How long replicas of a leaving worker are kept for their replacements to come up. Below
/// the 30 s that a supervisor (Kubernetes, systemd) gives a process to end.
pub const DRAIN_REPLACE_MS_MAX: u64 = 10_000;

/// The replicas of a deployment, by what shall become of them.
struct Standing<'a> {
    /// Of the current version, well, on a worker that stays.
    keep: Vec<(&'a ReplicaId, &'a Replica)>,
    /// Live ones that are to be replaced, those that help least first.
    replace: Vec<(&'a ReplicaId, &'a Replica)>,
    /// On their way out.
    leaving: usize,
    /// On workers that are out of reach: replaced, and kept for the case that they come back.
    away: usize,
}

/// Plans one deployment; says what it waits for, if it waits for room.
pub(super) fn plan(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &Deployment,
) -> Option<Reason> {
    match &deployment.canary {
        Some(canary) => canary_plan::plan(planner, id, deployment, canary),
        None => replace(planner, id, deployment),
    }
}

/// Plans the replicas of a deployment as if there were no canary.
pub(super) fn replace(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &Deployment,
) -> Option<Reason> {
    let mut standing = Standing::of(planner, deployment);
    retire_replaced(planner, id, deployment, &mut standing);
    retire_excess(planner, id, deployment, &mut standing);
    stop_first(planner, id, deployment, &mut standing);
    configure(planner, id, deployment, &standing);
    if deployment.starts.gave_up || planner.now.ms < deployment.starts.retry_at_ms {
        return None;
    }
    start(planner, id, deployment, &standing)
}

/// How many replicas may be in transition at once.
pub fn wave(deployment: &Deployment) -> u32 {
    let part = deployment.spec.rolling_update_fraction * f64::from(deployment.target);
    // The small addition keeps 0.3 * 10 from becoming 2.
    ((part + 1e-9).floor() as u32).max(1)
}

/// How many replicas may exist beyond the target while versions change: one wave, or what the
/// config says.
pub fn surge(deployment: &Deployment) -> u32 {
    match deployment.spec.surge_fraction {
        None => wave(deployment),
        // The small subtraction keeps 0.1 * 30 from becoming 4.
        Some(part) => (part * f64::from(deployment.target) - 1e-9).ceil() as u32,
    }
}

// === impl Standing ===

impl<'a> Standing<'a> {
    fn of(planner: &Planner<'_>, deployment: &'a Deployment) -> Standing<'a> {
        let (away, live): (Vec<_>, Vec<_>) = deployment
            .replicas
            .iter()
            .filter(|(_, replica)| replica.phase.is_live())
            .partition(|(_, replica)| is_out_of_reach(planner.world, replica));
        let (mut replace, keep): (Vec<_>, Vec<_>) = live
            .into_iter()
            .partition(|(_, replica)| is_to_be_replaced(planner.world, deployment, replica));
        // Not ready, then not well, then on a leaving worker, then the newest.
        replace.sort_by_key(|(_, replica)| {
            (
                replica.phase.is_answering(),
                replica.phase != Phase::Unhealthy,
                !on_draining_worker(planner.world, replica),
                std::cmp::Reverse(replica.serial),
            )
        });
        let away = away.len();
        let leaving = deployment.replicas.len() - keep.len() - replace.len() - away;
        Standing {
            keep,
            replace,
            leaving,
            away,
        }
    }

    fn answering(&self) -> usize {
        let all = self.keep.iter().chain(&self.replace);
        all.filter(|(_, replica)| replica.phase.is_answering())
            .count()
    }

    fn live(&self) -> usize {
        self.keep.len() + self.replace.len()
    }
}

/// Replicas to be replaced leave as far as enough others answer. After giving up nobody
/// replaces them any more, so all stay but those that cannot.
fn retire_replaced(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &Deployment,
    standing: &mut Standing<'_>,
) {
    let target = deployment.target;
    let gave_up = deployment.starts.gave_up;
    let on_demand = planner.world.supply.on_demand;
    let nowhere = !on_demand && !planner.world.workers.values().any(Worker::takes_replicas);
    let mut answering = standing.answering();
    let mut stay = Vec::new();
    for (replica_id, replica) in std::mem::take(&mut standing.replace) {
        let worker_leaves = on_draining_worker(planner.world, replica);
        let why = if gave_up && !worker_leaves {
            None
        } else if !replica.phase.is_answering() {
            Some(Reason::NeverAnnounced)
        } else if answering > target as usize {
            answering -= 1;
            Some(Reason::Replaced {
                answering: answering as u32 + 1,
                target,
            })
        } else if worker_leaves && (gave_up || nowhere || out_of_time(planner, replica)) {
            Some(Reason::WorkerLeaves(replica.worker.clone()))
        } else {
            None
        };
        match why {
            None => stay.push((replica_id, replica)),
            Some(why) => {
                standing.leaving += 1;
                planner.retire(id, replica_id, replica.phase, why);
            }
        }
    }
    standing.replace = stay;
}

/// Where the config forbids a surge, old replicas leave before new ones come: as many as leave
/// all but one wave of the target answering, so that new ones that fail stop it.
fn stop_first(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &Deployment,
    standing: &mut Standing<'_>,
) {
    if surge(deployment) > 0 || deployment.starts.gave_up {
        return;
    }
    let wave = wave(deployment);
    let enough = deployment.target.saturating_sub(wave) as usize;
    let mut answering = standing.answering();
    let mut stay = Vec::new();
    for (replica_id, replica) in std::mem::take(&mut standing.replace) {
        let is_old = !deployment.is_current(replica) && replica.phase.is_answering();
        if is_old && answering > enough {
            answering -= 1;
            standing.leaving += 1;
            planner.retire(id, replica_id, replica.phase, Reason::StopFirst { wave });
        } else {
            stay.push((replica_id, replica));
        }
    }
    standing.replace = stay;
}

fn out_of_time(planner: &Planner<'_>, replica: &Replica) -> bool {
    let world = planner.world;
    let worker = world.workers.get(&replica.worker);
    worker.is_some_and(|worker| {
        let since = worker.draining_since_ms.unwrap_or(planner.now.ms);
        planner.now.ms.saturating_sub(since) >= world.replace_ms_max(worker)
    })
}

/// Scaling down: of those that would be kept, too many exist.
fn retire_excess(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &Deployment,
    standing: &mut Standing<'_>,
) {
    let untrusted =
        |(_, replica): &(_, &Replica)| on_untrusted_worker(planner.world, replica, planner.now);
    if standing.keep.iter().any(untrusted) {
        return;
    }
    let have = standing.keep.len() as u32;
    let target = deployment.target;
    let excess = have.saturating_sub(target) as usize;
    for (replica_id, replica) in victims::choose(planner.world, &standing.keep, excess) {
        planner.retire(
            id,
            replica_id,
            replica.phase,
            Reason::AboveTarget { have, target },
        );
        standing.keep.retain(|(kept, _)| *kept != replica_id);
        standing.leaving += 1;
    }
}

/// Gives replicas the newest config: what only a number changes at once, what the replica
/// itself has to take a wave at a time.
fn configure(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &Deployment,
    standing: &Standing<'_>,
) {
    let goal = &deployment.spec.replica;
    let wave = wave(deployment);
    let under_way = standing.keep.iter().filter(|(replica_id, replica)| {
        replica.spec.config_version == goal.config_version
            && replica.phase == Phase::Running
            && !has_its_config(planner.world, replica_id, replica)
    });
    // What died of the new config, and what replaces it, is part of the wave; while
    // replacements fail, the others keep the config that they have and go on serving.
    let starting = standing.keep.iter();
    let starting = starting.filter(|(_, replica)| replica.phase == Phase::Starting);
    let in_transition = under_way.count() + starting.count() + standing.leaving;
    let mut left = if deployment.starts.failures_in_a_row > 0 {
        0
    } else {
        (wave as usize).saturating_sub(in_transition)
    };
    for (replica_id, replica) in &standing.keep {
        if replica.spec == *goal {
            continue;
        }
        // What does not answer yet has nothing to interrupt.
        let interrupts =
            replica.phase.is_answering() && replica.spec.config_version != goal.config_version;
        if interrupts && left == 0 {
            continue;
        }
        let reason = if interrupts {
            left -= 1;
            Reason::ConfigChanged { wave }
        } else {
            Reason::LimitsChanged
        };
        let key = ReplicaKey {
            deployment: id.clone(),
            replica: (*replica_id).clone(),
        };
        let spec = goal.clone();
        planner.push(Action::Configure { key, spec }, reason);
    }
}

/// Starts what is missing, within the wave and the room there is.
fn start(
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
    let changes = standing
        .replace
        .iter()
        .any(|(_, replica)| !deployment.is_current(replica));
    let beyond = if changes { surge(deployment) } else { wave };
    let surge = (target + beyond as usize).saturating_sub(live + standing.leaving);
    let starts = missing.min(to_target.max(surge));
    if starts == 0 {
        return None;
    }
    // Of a canary this is one of the two versions; where there is room counts both.
    let all = planner.world.applications.get(&id.application);
    let all = all.and_then(|application| application.deployments.get(&id.deployment));
    let all = all.unwrap_or(deployment).replicas.values();
    let mut peers = Peers::of(planner.world, all, replicas(&standing.keep));
    for started in 0..starts {
        let placed = planner
            .free
            .place(planner.world, &deployment.spec, &mut peers);
        let Some(worker) = placed else {
            make_room(planner, id, deployment, standing, &peers);
            // A change of version makes its own room where it has none.
            let moves = standing.replace.iter();
            let mut moves = moves.filter(|(_, r)| on_draining_worker(planner.world, r));
            let short = if changes && moves.next().is_none() {
                to_target
            } else {
                starts
            };
            planner.found_no_room(deployment, short.saturating_sub(started));
            let placed = (standing.keep.len() + started) as u32;
            let free = &planner.free;
            return Some(free.waiting(planner.world, deployment, &peers, placed));
        };
        let replica = (planner.new_id)();
        let key = ReplicaKey {
            deployment: id.clone(),
            replica,
        };
        let have = (live + started) as u32;
        let reason = if live + started < target && standing.away > 0 {
            Reason::OutOfReach {
                replicas: standing.away as u32,
                target: deployment.target,
            }
        } else if live + started < target {
            Reason::BelowTarget {
                have,
                target: deployment.target,
            }
        } else if standing
            .replace
            .iter()
            .any(|(_, r)| !deployment.is_current(r))
        {
            Reason::NewVersionFirst { beyond }
        } else {
            Reason::ReplacementFirst
        };
        let spec = deployment.spec.replica.clone();
        planner.push(Action::Start { key, worker, spec }, reason);
    }
    None
}

/// Stop-first, where start-first has no room: old replicas leave whose leaving would make some,
/// and those that cannot stay anyway.
fn make_room(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &Deployment,
    standing: &Standing<'_>,
    peers: &Peers,
) {
    let spec = &deployment.spec;
    let wave = wave(deployment);
    let mut left = (wave as usize).saturating_sub(standing.leaving);
    for (replica_id, replica) in &standing.replace {
        let leaves = on_draining_worker(planner.world, replica);
        let why = if leaves && !planner.world.supply.on_demand {
            Reason::WorkerLeaves(replica.worker.clone())
        } else if left > 0
            && !leaves
            && planner
                .free
                .would_fit_without(planner.world, replica, spec, peers)
        {
            left -= 1;
            Reason::NoRoomForSurge {
                needs: spec.replica.required.clone(),
            }
        } else {
            continue;
        };
        planner.retire(id, replica_id, replica.phase, why);
    }
}
