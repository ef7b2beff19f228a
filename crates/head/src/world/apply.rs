//! Writes the decisions of a plan into the world. Makes no choices.

use std::sync::Arc;

use super::deployment_status::StatusEvent;
use super::group::{Gang, Placed};
use super::intent::{Phase, Replica};
use super::spec::ReplicaSpec;
use super::{Action, Now, Plan, ReplicaKey, World};

/// Applies all actions in order.
pub fn apply_all(world: &mut World, plan: &Plan, now: Now) {
    for planned in &plan.actions {
        world.apply(&planned.action, now);
    }
}

// === impl World ===

impl World {
    /// Applies one action. An action whose object is gone does nothing.
    pub fn apply(&mut self, action: &Action, now: Now) {
        match action {
            Action::Start {
                key,
                placed,
                gang,
                spec,
            } => self.start(key, placed, gang.as_ref(), spec, now),
            Action::Configure { key, spec } => {
                let deployment = self.deployment_mut(&key.deployment);
                if let Some(replica) = deployment.and_then(|d| d.replicas.get_mut(&key.replica)) {
                    replica.spec = spec.clone();
                }
            }
            Action::Canary { deployment, step } => {
                if let Some(deployment) = self.deployment_mut(deployment) {
                    deployment.step_canary(step, now);
                }
                self.forget_routers();
            }
            Action::Withdraw { key } => {
                self.set_phase(
                    key,
                    Phase::Withdrawing {
                        table_version: None,
                    },
                );
            }
            Action::Drop { key } => self.set_phase(key, Phase::Stopping),
            Action::Settle { deployment } => {
                if let Some(deployment) = self.deployment_mut(deployment) {
                    deployment.status.on(StatusEvent::AllReplicasRight, "");
                    deployment.canary = None;
                }
            }
            Action::Say {
                deployment,
                message,
            } => {
                if let Some(deployment) = self.deployment_mut(deployment) {
                    deployment.status.message.clone_from(message);
                }
            }
            Action::RemoveDeployment { deployment } => {
                if let Some(application) = self.applications.get_mut(&deployment.application) {
                    application.deployments.remove(&deployment.deployment);
                }
            }
            Action::RemoveApplication { application } => {
                self.applications.remove(application);
            }
            Action::StopServing => {
                self.serving = None;
                self.shutting_down = false;
            }
        }
    }

    fn start(
        &mut self,
        key: &ReplicaKey,
        placed: &Placed,
        gang: Option<&Gang>,
        spec: &Arc<ReplicaSpec>,
        now: Now,
    ) {
        let serial = self.next_serial;
        self.next_serial += 1;
        if let Some(deployment) = self.deployment_mut(&key.deployment) {
            let replica = Replica {
                worker: placed.worker.clone(),
                reserved: placed.reserved.clone(),
                gang: gang.cloned(),
                spec: spec.clone(),
                phase: Phase::Starting,
                assigned_version: None,
                start_time_s: now.unix_s,
                serial,
            };
            deployment.replicas.insert(key.replica.clone(), replica);
        }
    }

    fn set_phase(&mut self, key: &ReplicaKey, phase: Phase) {
        let deployment = self.deployment_mut(&key.deployment);
        if let Some(replica) = deployment.and_then(|d| d.replicas.get_mut(&key.replica)) {
            replica.phase = phase;
        }
    }
}
