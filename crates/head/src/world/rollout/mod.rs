//! How a deployment gets from the replicas it has to those it shall have.
//!
//! Start-first: a replacement becomes ready before the replica that it replaces leaves, at
//! most one wave beyond the target. Where no worker has room for a surge but would have with
//! an old replica gone, it is stop-first, a wave at a time. The target is always reached
//! before anything is surged. (Ray's default is stop-first; a deployment of one replica then
//! has a gap. `max_surge_percent: 0` asks for it, a number above for a surge of that size.)

mod start;

use super::canary::plan as canary_plan;
use super::gangs::{Pair, Together, together};
use super::health::{has_its_config, on_untrusted_worker};
use super::intent::{Deployment, Phase};
use super::observed::Worker;
use super::plan::{Action, Planner};
use super::victims;
use super::{DeploymentId, Reason, ReplicaKey};
use start::start;

/// How long replicas of a leaving worker are kept for their replacements to come up. Below
/// the 30 s that a supervisor (Kubernetes, systemd) gives a process to end.
pub const DRAIN_REPLACE_MS_MAX: u64 = 10_000;

/// The replicas of a deployment, by what shall become of them.
struct Standing<'a> {
    /// Of the current version, well, on a worker that stays. Gangs are whole.
    keep: Vec<Pair<'a>>,
    /// Live ones that are to be replaced, those that help least first. Gangs are whole.
    replace: Vec<Together<'a>>,
    /// What is left of gangs: it cannot work.
    broken: Vec<Together<'a>>,
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
    retire_broken(planner, id, &mut standing);
    retire_replaced(planner, id, deployment, &mut standing);
    retire_excess(planner, id, deployment, &mut standing);
    stop_first(planner, id, deployment, &mut standing);
    configure(planner, id, deployment, &standing);
    if deployment.starts.gave_up || planner.now.ms < deployment.starts.retry_at_ms {
        return None;
    }
    start(planner, id, deployment, &standing)
}

/// How many replicas may be in transition at once: whole gangs, and as many as any has that
/// exists, or it could not be replaced.
pub fn wave(deployment: &Deployment) -> u32 {
    let part = deployment.spec.rolling_update_fraction * f64::from(deployment.target);
    // The small addition keeps 0.3 * 10 from becoming 2.
    whole_gangs(deployment, ((part + 1e-9).floor() as u32).max(1))
}

/// How many replicas may exist beyond the target while versions change: one wave, or what the
/// config says.
pub fn surge(deployment: &Deployment) -> u32 {
    match deployment.spec.surge_fraction {
        None => wave(deployment),
        // The small subtraction keeps 0.1 * 30 from becoming 4.
        Some(part) => match (part * f64::from(deployment.target) - 1e-9).ceil() as u32 {
            0 => 0,
            surge => whole_gangs(deployment, surge),
        },
    }
}

fn whole_gangs(deployment: &Deployment, count: u32) -> u32 {
    let gangs = deployment.replicas.values();
    let gangs = gangs.filter_map(|replica| replica.gang.as_ref());
    let largest = gangs.map(|gang| gang.size).max().unwrap_or(1);
    let group = &deployment.spec.replica.group;
    group.whole_gangs(count.max(largest))
}

// === impl Standing ===

impl<'a> Standing<'a> {
    fn of(planner: &Planner<'_>, deployment: &'a Deployment) -> Standing<'a> {
        let world = planner.world;
        let live = deployment.replicas.iter();
        let live = together(live.filter(|(_, replica)| replica.phase.is_live()));
        let mut standing = Standing {
            keep: Vec::new(),
            replace: Vec::new(),
            broken: Vec::new(),
            leaving: deployment.replicas.len(),
            away: 0,
        };
        for group in live {
            standing.leaving -= group.members.len();
            if group.is_broken().is_some() {
                standing.broken.push(group);
            } else if group.is_out_of_reach(world) {
                standing.away += group.members.len();
            } else if group.is_to_be_replaced(world, deployment) {
                standing.replace.push(group);
            } else {
                standing.keep.extend(group.members);
            }
        }
        let replace = &mut standing.replace;
        replace.sort_by_cached_key(|group| group.order_of_leaving(world));
        standing
    }

    fn replaced(&self) -> impl Iterator<Item = &Pair<'a>> {
        self.replace.iter().flat_map(|group| &group.members)
    }

    fn answering(&self) -> usize {
        let all = self.keep.iter().chain(self.replaced());
        all.filter(|(_, replica)| replica.phase.is_answering())
            .count()
    }

    fn live(&self) -> usize {
        self.keep.len() + self.replaced().count()
    }

    /// Whether a new version is on its way.
    fn changes(&self, deployment: &Deployment) -> bool {
        !self
            .replace
            .iter()
            .all(|group| group.is_current(deployment))
    }
}

/// A gang of which members are missing is started again whole: what is left of it goes at once.
fn retire_broken(planner: &mut Planner<'_>, id: &DeploymentId, standing: &mut Standing<'_>) {
    for gang in std::mem::take(&mut standing.broken) {
        let left = gang.members.len() as u32;
        let size = gang.is_broken().unwrap_or(left);
        standing.leaving += gang.members.len();
        for (replica, state) in gang.members {
            planner.retire(id, replica, state.phase, Reason::GangBroken { left, size });
        }
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
    for group in std::mem::take(&mut standing.replace) {
        let leaves = group.leaving_worker(planner.world);
        let out_of_time = || leaves.is_some_and(|worker| out_of_time(planner, worker));
        let these = group.answering();
        let why = if gave_up && leaves.is_none() {
            None
        } else if these == 0 {
            Some(Reason::NeverAnnounced)
        } else if answering - these >= target as usize {
            Some(Reason::Replaced {
                answering: answering as u32,
                target,
            })
        } else if gave_up || nowhere || out_of_time() {
            leaves.map(|worker| Reason::WorkerLeaves(worker.id.clone()))
        } else {
            None
        };
        let Some(why) = why else {
            stay.push(group);
            continue;
        };
        if matches!(why, Reason::Replaced { .. }) {
            answering -= these;
        }
        standing.leaving += group.members.len();
        planner.retire_all(id, &group, &why);
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
    for group in std::mem::take(&mut standing.replace) {
        let these = group.answering();
        let is_old = !group.is_current(deployment) && these > 0;
        if is_old && answering.saturating_sub(these) >= enough {
            answering -= these;
            standing.leaving += group.members.len();
            planner.retire_all(id, &group, &Reason::StopFirst { wave });
        } else {
            stay.push(group);
        }
    }
    standing.replace = stay;
}

fn out_of_time(planner: &Planner<'_>, worker: &Worker) -> bool {
    let since = worker.draining_since_ms.unwrap_or(planner.now.ms);
    planner.now.ms.saturating_sub(since) >= planner.world.replace_ms_max(worker)
}

/// Scaling down: of those that would be kept, too many exist.
fn retire_excess(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &Deployment,
    standing: &mut Standing<'_>,
) {
    let untrusted =
        |(_, replica): &Pair<'_>| on_untrusted_worker(planner.world, replica, planner.now);
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
