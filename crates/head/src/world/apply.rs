//! Writes the decisions of a plan into the world. Makes no choices.

use super::deployment_status::StatusEvent;
use super::intent::{Phase, Replica};
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
            Action::Start { key, worker } => self.start(key, worker, now),
            Action::Configure { key } => {
                if let Some(deployment) = self.deployment_mut(&key.deployment) {
                    let goal = deployment.spec.replica.clone();
                    if let Some(replica) = deployment.replicas.get_mut(&key.replica) {
                        replica.spec = goal;
                    }
                }
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

    fn start(&mut self, key: &ReplicaKey, worker: &str, now: Now) {
        let serial = self.next_serial;
        self.next_serial += 1;
        if let Some(deployment) = self.deployment_mut(&key.deployment) {
            let replica = Replica {
                worker: worker.to_owned(),
                spec: deployment.spec.replica.clone(),
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
