//! Which replicas a deployment needs while a canary proves itself: all of the version that
//! serves, and beside them as many of the new one as its part of the requests asks for. Each
//! version is planned as a deployment of its own (`rollout`), the one that serves first.

use super::canary::{Canary, Stage};
use super::intent::Deployment;
use super::plan::{Action, Planner};
use super::{DeploymentId, Reason, rollout};

/// Plans a deployment with a canary; says what it waits for, if it waits for room.
pub(super) fn plan(
    planner: &mut Planner<'_>,
    id: &DeploymentId,
    deployment: &Deployment,
    canary: &Canary,
) -> Option<Reason> {
    let Some(traffic) = &deployment.spec.traffic else {
        return rollout::replace(planner, id, deployment);
    };
    let mut canary = canary.clone();
    let mut given_up = None;
    let ready = deployment.canary_ready(&canary);
    // Each step changes the stage, and a step that begins now does not pass now.
    while !deployment.starts.gave_up
        && let Some((step, verdict)) = canary.next(traffic, planner.now, ready, deployment.target)
    {
        canary.step(&step, planner.now);
        let reason = Reason::Canary(verdict);
        if let Stage::GivenUp(_) = canary.stage {
            given_up = Some(reason.clone());
        }
        let deployment = id.clone();
        planner.push(Action::Canary { deployment, step }, reason);
    }
    if canary.stage == Stage::Promoted {
        return rollout::replace(planner, id, deployment);
    }
    let needed = if deployment.starts.gave_up {
        0
    } else {
        canary.replicas(traffic, deployment.target)
    };
    let stable = rollout::replace(planner, id, &stable(deployment, &canary));
    let fresh = rollout::replace(planner, id, &fresh(deployment, &canary, needed));
    given_up.or(stable).or(fresh)
}

/// The deployment as it was, with everything that is not of the new version.
fn stable(deployment: &Deployment, canary: &Canary) -> Deployment {
    let mut stable = deployment.clone();
    stable.spec.replica = canary.stable.clone();
    stable.starts = canary.stable_starts.clone();
    stable.replicas.retain(|_, replica| !canary.is_of(replica));
    stable
}

/// The new version alone, as a small deployment.
fn fresh(deployment: &Deployment, canary: &Canary, needed: u32) -> Deployment {
    let mut fresh = deployment.clone();
    fresh.target = needed;
    fresh.replicas.retain(|_, replica| canary.is_of(replica));
    if needed == 0 {
        // Nothing is kept for want of a replacement.
        fresh.starts.gave_up = false;
    }
    fresh
}
