//! What follows for a deployment while a canary proves itself: whether it goes on or ends, and
//! which replicas that takes. All of the version that serves, and beside them as many of the new
//! one as its part of the requests asks for. Each version is planned as a deployment of its own
//! (`rollout`), the one that serves first.

use std::borrow::Cow;

use super::{Canary, CanaryStep, Verdict};
use crate::world::deployment_status::State;
use crate::world::health::is_right;
use crate::world::intent::Deployment;
use crate::world::plan::{Action, Planner};
use crate::world::{DeploymentId, Reason, World, rollout};

/// Decides about the canary, if there is one; gives the deployment as it is after that.
pub(in crate::world) fn review<'a>(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &'a Deployment,
) -> Cow<'a, Deployment> {
    let mut after = Cow::Borrowed(deployment);
    // Each step changes the stage, and a step that begins now does not pass now.
    while let Some((step, verdict)) = after.next_canary_step(planner.now) {
        after.to_mut().step_canary(&step, planner.now);
        let deployment = id.clone();
        let reason = Reason::Canary(verdict);
        planner.push(Action::Canary { deployment, step }, reason);
    }
    if has_recovered(planner.world, &after) {
        after
            .to_mut()
            .step_canary(&CanaryStep::Recover, planner.now);
        let deployment = id.clone();
        let step = CanaryStep::Recover;
        let reason = Reason::Canary(Verdict::Recovered);
        planner.push(Action::Canary { deployment, step }, reason);
    }
    after
}

/// Whether a replica was not well and all are again: what is said of the deployment would stay
/// until the canary ends, which may take hours.
fn has_recovered(world: &World, deployment: &Deployment) -> bool {
    let status = &deployment.status;
    matches!(status.state, State::DeployFailed | State::Unhealthy)
        && !deployment.starts.gave_up
        && is_as_planned(world, deployment)
}

/// Whether a canary is under way and every replica runs that it asks for.
fn is_as_planned(world: &World, deployment: &Deployment) -> bool {
    let Some(canary) = deployment
        .canary
        .as_ref()
        .filter(|canary| canary.is_shared())
    else {
        return false;
    };
    let Some(traffic) = &deployment.spec.traffic else {
        return false;
    };
    let needed = canary.replicas(traffic, deployment.target);
    is_right(world, &stable(deployment, canary))
        && is_right(world, &fresh(deployment, canary, needed))
}

/// Plans the replicas; says what they wait for, if they wait for room.
pub(in crate::world) fn plan(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &Deployment,
    canary: &Canary,
) -> Option<Reason> {
    let Some(traffic) = deployment
        .spec
        .traffic
        .as_ref()
        .filter(|_| canary.is_shared())
    else {
        return rollout::replace(planner, id, deployment);
    };
    let needed = if deployment.starts.gave_up {
        0
    } else {
        canary.replicas(traffic, deployment.target)
    };
    let stable = rollout::replace(planner, id, &stable(deployment, canary));
    let fresh = rollout::replace(planner, id, &fresh(deployment, canary, needed));
    stable.or(fresh)
}

/// The deployment as it was, with everything that is not of the new version.
fn stable(deployment: &Deployment, canary: &Canary) -> Deployment {
    let mut stable = deployment.clone();
    stable.spec.replica = canary.stable.clone();
    stable.starts = canary.stable_starts.clone();
    stable.canary = None;
    stable.replicas.retain(|_, replica| !canary.is_of(replica));
    stable
}

/// The new version alone, as a small deployment.
fn fresh(deployment: &Deployment, canary: &Canary, needed: u32) -> Deployment {
    let mut fresh = deployment.clone();
    fresh.target = deployment.spec.replica.group.whole_gangs(needed);
    fresh.canary = None;
    fresh.replicas.retain(|_, replica| canary.is_of(replica));
    if needed == 0 {
        // Nothing is kept for want of a replacement.
        fresh.starts.gave_up = false;
    }
    fresh
}
