//! From the whole world to the list of things to do next, each with its reason.
//!
//! A plan is small steps only: what can be decided without guessing what the steps before it
//! will bring. The next plan sees their outcome. Applying a plan and planning again at once
//! gives an empty plan.

use std::sync::Arc;

use super::canary::{CanaryStep, plan as canary_plan};
use super::deployment_status::State;
use super::gangs::Together;
use super::group::{Gang, Placed, Reservation};
use super::health::is_right;
use super::intent::{Application, Deployment, Phase};
use super::placement::{Free, Peers};
use super::rollout;
use super::spec::ReplicaSpec;
use super::starts::Starts;
use super::supply::Shortage;
use super::{DeploymentId, Now, Reason, ReplicaId, ReplicaKey, World};

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Assign a new replica to a worker, and reserve what else it needs.
    Start {
        key: ReplicaKey,
        placed: Placed,
        gang: Option<Gang>,
        spec: Arc<ReplicaSpec>,
    },
    /// Give a replica another config.
    Configure {
        key: ReplicaKey,
        spec: Arc<ReplicaSpec>,
    },
    /// The canary goes on or ends.
    Canary {
        deployment: DeploymentId,
        step: CanaryStep,
    },
    /// Take a replica out of the route table.
    Withdraw { key: ReplicaKey },
    /// Take a replica out of its worker's assignment.
    Drop { key: ReplicaKey },
    /// The deployment is healthy.
    Settle { deployment: DeploymentId },
    /// Say in the deployment's message what it waits for; empty: nothing any more.
    Say {
        deployment: DeploymentId,
        message: String,
    },
    /// Forget a deployment that nothing is left of.
    RemoveDeployment { deployment: DeploymentId },
    /// Forget an application that nothing is left of.
    RemoveApplication { application: String },
    /// Close the ingress: everything is deleted.
    StopServing,
}

/// An action and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub action: Action,
    pub reason: Reason,
}

/// What to do next, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Planned>,
    /// What found no room.
    pub shortage: Shortage,
}

/// What planning reads and writes on its way through the deployments.
pub(super) struct Planner<'a> {
    pub world: &'a World,
    pub now: Now,
    pub free: Free,
    pub new_id: &'a mut dyn FnMut() -> ReplicaId,
    plan: Plan,
}

/// The marker of messages that [`Action::Say`] wrote.
const WAITING: &str = "waiting:";

// === impl World ===

impl World {
    /// Decides what to do next. `new_id` gives ids that no replica had before.
    pub fn plan(&self, now: Now, new_id: &mut dyn FnMut() -> ReplicaId) -> Plan {
        let free = Free::of(self);
        let mut planner = Planner {
            world: self,
            now,
            free,
            new_id,
            plan: Plan::default(),
        };
        for (id, deployment) in self.deployments() {
            planner.drop_withdrawn(&id, deployment);
            if deployment.deleting {
                planner.remove(&id, deployment);
            } else {
                let deployment = canary_plan::review(&mut planner, &id, deployment);
                let waiting = rollout::plan(&mut planner, &id, &deployment);
                planner.settle(&id, &deployment, waiting);
            }
        }
        planner.remove_applications();
        planner.plan
    }

    /// The oldest table that a router, which changes wait for, serves from; None: no router.
    pub fn oldest_table_in_use(&self, now: Now) -> Option<u64> {
        self.routers
            .values()
            .filter(|router| router.is_waited_for(now.ms))
            // A version above all of ours is another head's table: nobody knows what is in it.
            .map(|router| match router.table_version {
                foreign if foreign > self.published.table_version() => 0,
                version => version,
            })
            .min()
    }
}

// === impl Planner ===

impl Planner<'_> {
    /// Adds an action.
    pub fn push(&mut self, action: Action, reason: Reason) {
        self.plan.actions.push(Planned { action, reason });
    }

    /// That many replicas, or gangs, of the deployment have to wait for room.
    pub fn found_no_room(&mut self, deployment: &Deployment, units: usize, peers: &Peers) {
        let shortage = &mut self.plan.shortage;
        self.free
            .shortage(self.world, &deployment.spec, peers, units, shortage);
    }

    /// Takes a gang, or one replica, out of the way.
    pub fn retire_all(&mut self, id: &DeploymentId, group: &Together<'_>, why: &Reason) {
        for (replica, state) in &group.members {
            self.retire(id, replica, state.phase, why.clone());
        }
    }

    /// Takes a replica out of the way: first out of the tables, if it was ever in one.
    pub fn retire(&mut self, id: &DeploymentId, replica: &ReplicaId, phase: Phase, why: Reason) {
        let key = ReplicaKey {
            deployment: id.clone(),
            replica: replica.clone(),
        };
        match phase {
            Phase::Starting => self.push(Action::Drop { key }, Reason::NeverAnnounced),
            Phase::Running | Phase::Unhealthy => self.push(Action::Withdraw { key }, why),
            Phase::Withdrawing { .. } | Phase::Stopping => {}
        }
    }

    fn drop_withdrawn(&mut self, id: &DeploymentId, deployment: &Deployment) {
        let oldest = self.world.oldest_table_in_use(self.now);
        for (replica, state) in &deployment.replicas {
            if let Phase::Withdrawing {
                table_version: Some(version),
            } = state.phase
                && oldest.is_none_or(|oldest| oldest >= version)
            {
                let key = ReplicaKey {
                    deployment: id.clone(),
                    replica: replica.clone(),
                };
                self.push(
                    Action::Drop { key },
                    Reason::RoutersMovedOn {
                        table_version: version,
                    },
                );
            }
        }
    }

    fn remove(&mut self, id: &DeploymentId, deployment: &Deployment) {
        for (replica, state) in &deployment.replicas {
            self.retire(id, replica, state.phase, Reason::NotDeclared);
        }
        if deployment.replicas.is_empty() {
            self.push(
                Action::RemoveDeployment {
                    deployment: id.clone(),
                },
                Reason::NothingLeft(id.to_string()),
            );
        }
    }

    fn settle(&mut self, id: &DeploymentId, deployment: &Deployment, waiting: Option<Reason>) {
        let status = &deployment.status;
        if is_right(self.world, deployment) {
            if status.state != State::Healthy {
                self.push(
                    Action::Settle {
                        deployment: id.clone(),
                    },
                    Reason::AllRight,
                );
            }
            return;
        }
        let said = &status.message;
        let may_say = match status.state {
            State::Updating | State::Upscaling | State::Downscaling => {
                said.is_empty() || said.starts_with(WAITING) || Starts::is_told_by(said)
            }
            State::Healthy | State::Unhealthy | State::DeployFailed => false,
        };
        if !may_say {
            return;
        }
        let failed = match deployment.starts.failures_in_a_row {
            0 => String::new(),
            _ => deployment.starts.message(deployment.target),
        };
        let (message, reason) = match waiting {
            // Both: the next try waits as well.
            Some(reason) if !failed.is_empty() => {
                (format!("{}\n{failed}", self.with_trouble(&reason)), reason)
            }
            Some(reason) => (self.with_trouble(&reason), reason),
            None => {
                let have = deployment.replicas.len() as u32;
                let target = deployment.target;
                (failed, Reason::BelowTarget { have, target })
            }
        };
        if status.message != message {
            self.push(
                Action::Say {
                    deployment: id.clone(),
                    message,
                },
                reason,
            );
        }
    }

    /// What a deployment waits for, and why that does not come.
    fn with_trouble(&self, reason: &Reason) -> String {
        match (&self.world.supply.trouble, reason) {
            (trouble, Reason::Waiting { .. }) if !trouble.is_empty() => {
                format!("{reason}; {trouble}")
            }
            _ => reason.to_string(),
        }
    }

    fn remove_applications(&mut self) {
        let world = self.world;
        let is_gone = |application: &Application| {
            let mut deployments = application.deployments.values();
            application.deleting
                && deployments
                    .all(|deployment| deployment.deleting && deployment.replicas.is_empty())
        };
        for (name, application) in &world.applications {
            if is_gone(application) {
                self.push(
                    Action::RemoveApplication {
                        application: name.clone(),
                    },
                    Reason::NothingLeft(name.clone()),
                );
            }
        }
        if world.shutting_down && world.applications.values().all(is_gone) {
            self.push(Action::StopServing, Reason::NothingLeft("serve".to_owned()));
        }
    }
}

// === impl Plan ===

impl Plan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for planned in &self.actions {
            writeln!(f, "{planned}")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.action {
            Action::Start {
                key, placed, gang, ..
            } => {
                write!(f, "start {key} on {}", placed.worker)?;
                for reservation in &placed.reserved {
                    let Reservation { worker, resources } = reservation;
                    write!(f, " with {resources} on {worker}")?;
                }
                if let Some(gang) = gang {
                    write!(f, " in gang {}", gang.id)?;
                }
            }
            Action::Configure { key, .. } => write!(f, "configure {key}")?,
            Action::Canary { deployment, step } => write!(f, "{step} of {deployment}")?,
            Action::Withdraw { key } => write!(f, "withdraw {key}")?,
            Action::Drop { key } => write!(f, "drop {key}")?,
            Action::Settle { deployment } => write!(f, "settle {deployment}")?,
            Action::Say { deployment, .. } => write!(f, "say of {deployment}")?,
            Action::RemoveDeployment { deployment } => write!(f, "remove {deployment}")?,
            Action::RemoveApplication { application } => write!(f, "remove {application}")?,
            Action::StopServing => f.write_str("stop serving")?,
        }
        write!(f, ": {}", self.reason)
    }
}
