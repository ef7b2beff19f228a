//! When a deployment has a canary, and what that means for it and its application.

use std::sync::Arc;

use super::{Canary, CanaryStep, Stage, Verdict};
use crate::world::application_status::{AppState, status_of_what_counts};
use crate::world::deployment_status::{State, StatusEvent};
use crate::world::health::on_draining_worker;
use crate::world::intent::{Application, Deployment, Good, Phase, Replica};
use crate::world::spec::ReplicaSpec;
use crate::world::{Now, World};

// === impl World ===

impl World {
    /// Goes on where an earlier head stopped. A version of which nothing is stored, although
    /// another one is known to run, was declared in the moment in which that head ended.
    pub fn resume_canary(&mut self, application: &str, name: &str, stored: Option<(&str, Stage)>) {
        let Some(application) = self.applications.get_mut(application) else {
            return;
        };
        let proven = application.proven;
        let good = application.good.clone();
        let Some(deployment) = application.deployments.get_mut(name) else {
            return;
        };
        let version = deployment.spec.replica.code_version.clone();
        let good = good.and_then(|good| good.replica(name));
        let stable = good.filter(|spec| spec.code_version != version);
        let stage = match stored {
            Some((stored, stage)) if stored == version => stage,
            Some(_) | None if proven => return,
            Some(_) | None => Stage::first(),
        };
        if deployment.spec.traffic.is_none() || deployment.deleting {
            return;
        }
        let Some(stable) = stable else { return };
        if let Stage::GivenUp(why) = &stage {
            deployment.give_up_canary(why);
        }
        deployment.canary = Some(Canary::new(&version, stable).at(stage));
    }
}

// === impl Good ===

impl Good {
    /// What a deployment's replicas were made of.
    pub fn replica(&self, deployment: &str) -> Option<Arc<ReplicaSpec>> {
        let built = self.spec.built.as_ref().ok()?;
        let mut deployments = built.deployments.iter();
        let spec = deployments.find(|spec| spec.name == deployment)?;
        Some(Arc::clone(&spec.replica))
    }
}

// === impl Deployment ===

impl Deployment {
    /// The deployment was declared anew: what becomes of its canary, and whether its version is
    /// one. `before` is what its replicas were made of until now, `good` what is known to run;
    /// `at_once` says that the new one is known to run too.
    pub(in crate::world) fn review_canary(
        &mut self,
        before: Arc<ReplicaSpec>,
        good: Option<Arc<ReplicaSpec>>,
        at_once: bool,
    ) {
        let version = self.spec.replica.code_version.clone();
        let old = self.canary.take();
        if self.spec.traffic.is_none() {
            return;
        }
        let (same, other) = match old {
            Some(old) if old.version == version => (Some(old), None),
            other => (None, other),
        };
        if let Some(same) = same {
            self.canary = Some(match same.stage {
                Stage::GivenUp(_) => Canary::new(&version, same.stable),
                Stage::Step { .. } | Stage::Promoted => same,
            });
            return;
        }
        // The canary that this one takes the place of served least.
        let shared = other.filter(Canary::is_shared);
        let before = shared.map_or(before, |canary| canary.stable);
        let serves = |spec: &Arc<ReplicaSpec>| {
            let of_it = |replica: &Replica| replica.spec.code_version == spec.code_version;
            let mut replicas = self.replicas.values();
            spec.code_version != version
                && replicas.any(|replica| of_it(replica) && replica.phase.is_answering())
        };
        let stable = [Some(before), good].into_iter().flatten().find(serves);
        let stage = if at_once {
            Stage::Promoted
        } else {
            Stage::first()
        };
        self.canary = stable.map(|stable| Canary::new(&version, stable).at(stage));
    }

    /// A version that was given up is tried again.
    pub(in crate::world) fn retry_canary(&mut self) {
        if let Some(canary) = &mut self.canary
            && let Stage::GivenUp(_) = canary.stage
        {
            canary.stage = Stage::first();
        }
    }

    /// What follows for the canary now.
    pub(in crate::world) fn next_canary_step(&self, now: Now) -> Option<(CanaryStep, Verdict)> {
        let canary = self.canary.as_ref()?;
        let traffic = self.spec.traffic.as_ref()?;
        if self.starts.gave_up {
            return None;
        }
        canary.next(traffic, now, self.canary_ready(canary), self.target)
    }

    /// Does what was decided about the canary.
    pub(in crate::world) fn step_canary(&mut self, step: &CanaryStep, now: Now) {
        if let Some(canary) = &mut self.canary {
            canary.step(step, now);
        }
        match step {
            CanaryStep::GiveUp(why) => self.give_up_canary(why),
            CanaryStep::Recover => self.status.on(StatusEvent::NewConfig, ""),
            CanaryStep::Begin | CanaryStep::Next | CanaryStep::Promote => {}
        }
    }

    /// From here on it is a rollout that failed.
    fn give_up_canary(&mut self, why: &str) {
        self.starts.gave_up = true;
        self.status.on(StatusEvent::RolloutGaveUp, why);
    }

    /// The part of the requests that the canary answers; nothing when it cannot be started.
    pub fn canary_percent(&self, canary: &Canary) -> u32 {
        match &self.spec.traffic {
            Some(traffic) if !self.starts.gave_up => canary.percent(traffic),
            Some(_) | None => 0,
        }
    }

    /// Replicas of the canary that answer.
    pub fn canary_ready(&self, canary: &Canary) -> u32 {
        let replicas = self.replicas.values();
        let ready =
            replicas.filter(|replica| canary.is_of(replica) && replica.phase.is_answering());
        ready.count() as u32
    }

    /// What replicas of a version are made of, as far as it is known: else as the newest ones.
    pub fn known_spec(&self, code_version: &str) -> &Arc<ReplicaSpec> {
        match &self.canary {
            Some(canary) if canary.stable.code_version == code_version => &canary.stable,
            Some(_) | None => &self.spec.replica,
        }
    }

    /// The message of the status document: how far the canary is, and what else is to be said.
    pub fn message(&self, now: Now) -> String {
        let said = &self.status.message;
        let (Some(canary), Some(traffic)) = (&self.canary, &self.spec.traffic) else {
            return said.clone();
        };
        if self.starts.gave_up {
            return said.clone();
        }
        let ready = self.canary_ready(canary);
        let canary = canary.message(traffic, now, ready, self.target);
        match (canary.is_empty(), said.is_empty()) {
            (true, _) => said.clone(),
            (false, true) => canary,
            (false, false) => format!("{canary}\n{said}"),
        }
    }
}

// === impl Application ===

impl Application {
    /// Whether it serves as it did before the canaries that are under way, if any.
    pub fn serves(&self, world: &World) -> bool {
        if self.runs() {
            return true;
        }
        let is_deploying = |deployment: &&Deployment| deployment.status.state != State::Healthy;
        self.built.is_some()
            && status_of_what_counts(self).0 == AppState::Deploying
            && self
                .deployments
                .values()
                .filter(is_deploying)
                .all(|deployment| has_all_of_before(world, deployment))
    }
}

fn has_all_of_before(world: &World, deployment: &Deployment) -> bool {
    let Some(canary) = deployment
        .canary
        .as_ref()
        .filter(|canary| canary.is_shared())
    else {
        return false;
    };
    let replicas = deployment.replicas.values();
    let serving = replicas.filter(|replica| {
        !canary.is_of(replica)
            && replica.phase == Phase::Running
            && !on_draining_worker(world, replica)
    });
    serving.count() >= deployment.target as usize
}
