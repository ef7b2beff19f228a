//! What a new config means for what is already there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::autoscale::bounds::{Bounds, Capacity};
use super::deployment_status::{Direction, StatusEvent};
use super::intent::{Application, Deployment, Replica};
use super::probation::Failures;
use super::spec::{ApplicationSpec, BuiltApplication, DeploySpec, DeploymentSpec, Scope};
use super::starts::Starts;
use super::{DeploymentId, World};

// === impl World ===

impl World {
    pub(super) fn deploy(&mut self, spec: DeploySpec) {
        let brand_new = self
            .applications
            .values()
            .all(|application| application.deleting);
        self.capacity = self
            .capacity
            .changed_to(spec.serving.target_capacity, brand_new);
        // Options of the ingress count when it opens; later ones wait for the next opening.
        match &mut self.serving {
            Some(serving) => {
                serving.target_capacity = spec.serving.target_capacity;
                serving.compaction = spec.serving.compaction;
            }
            None => self.serving = Some(spec.serving),
        }
        self.shutting_down = false;
        self.revision = spec.revision;
        let declared: Vec<String> = spec
            .applications
            .iter()
            .map(|application| application.name.clone())
            .collect();
        for application in spec.applications {
            self.deploy_application(application, spec.goes_back);
        }
        for (name, application) in &mut self.applications {
            let spoken_of = match &spec.scope {
                Scope::Whole => true,
                Scope::Only(only) => only == name,
            };
            if spoken_of && !declared.contains(name) {
                application.delete();
            }
        }
    }

    fn deploy_application(&mut self, spec: ApplicationSpec, goes_back: bool) {
        let spec = Arc::new(spec);
        let capacity = self.capacity;
        let application = self
            .applications
            .entry(spec.name.clone())
            .or_insert_with(|| Application {
                declared: spec.clone(),
                proven: false,
                good: None,
                probation: None,
                built: None,
                failure: None,
                deployments: BTreeMap::new(),
                deleting: false,
            });
        let same = application.declared.raw == spec.raw;
        if let Some(probation) = application.probation.take_if(|_| !same)
            && spec.taken_back.is_some()
        {
            // What looked good was not.
            application.good = Some(probation.before);
        }
        // What is known to run has nothing to prove, and nothing to be taken back to.
        application.proven = application
            .good
            .as_ref()
            .is_some_and(|good| good.spec.raw == spec.raw);
        application.declared = spec.clone();
        match spec.built.clone() {
            // The version before keeps serving; one that was being deleted goes on leaving.
            Err(failure) => {
                application.failure = Some(failure);
                if application.deleting {
                    application.built = None;
                }
                application.deleting = false;
            }
            Ok(built) => {
                application.failure = None;
                application.deleting = false;
                application.take(built, capacity, goes_back);
            }
        }
    }

    pub(super) fn delete_all(&mut self) {
        self.shutting_down = self.serving.is_some();
        for application in self.applications.values_mut() {
            application.delete();
        }
    }

    pub(super) fn scale(&mut self, id: &DeploymentId, target: u32) {
        if let Some(deployment) = self.deployment_mut(id)
            && !deployment.deleting
        {
            deployment.count_changes_to(target);
        }
    }
}

// === impl Application, Deployment ===

impl Application {
    fn delete(&mut self) {
        if self.deleting {
            return;
        }
        self.deleting = true;
        self.failure = None;
        self.good = None;
        self.probation = None;
        for deployment in self.deployments.values_mut() {
            deployment.delete();
        }
    }

    fn take(&mut self, mut built: BuiltApplication, capacity: Capacity, goes_back: bool) {
        let at_once = goes_back || self.proven;
        let good = self.good.clone();
        let specs = std::mem::take(&mut built.deployments);
        for deployment in self.deployments.values_mut() {
            if !specs.iter().any(|spec| spec.name == deployment.spec.name) {
                deployment.delete();
            }
        }
        for spec in specs {
            match self.deployments.get_mut(&spec.name) {
                Some(deployment) => {
                    let good = good.as_ref().and_then(|good| good.replica(&spec.name));
                    let before = deployment.spec.replica.clone();
                    if deployment.retarget(spec, capacity) {
                        deployment.review_canary(before, good, at_once);
                    }
                }
                None => {
                    self.deployments
                        .insert(spec.name.clone(), Deployment::new(spec));
                }
            }
        }
        self.built = Some(built);
    }
}

impl Deployment {
    fn delete(&mut self) {
        if !self.deleting {
            self.deleting = true;
            self.canary = None;
            self.status.on(StatusEvent::Delete, "");
        }
    }

    /// How many replicas shall run once `spec` counts. A count that the load set stays within the
    /// bounds; one that the scale route set, only until something of the deployment changes: the
    /// config has the last word, as in Ray.
    pub fn target_with(&self, spec: &DeploymentSpec, capacity: Capacity) -> u32 {
        if self.deleting {
            return spec.target;
        }
        let group = &spec.replica.group;
        match (&self.spec.autoscaling, &spec.autoscaling) {
            (_, Some(autoscaling)) => {
                let first = autoscaling.initial_replicas.map(|_| spec.target);
                let same = spec == &self.spec;
                let count = first.filter(|_| !same).unwrap_or(self.target);
                Bounds::of(autoscaling, capacity)
                    .in_steps_of(group.gang_size)
                    .clamp(count)
            }
            (None, None) if spec == &self.spec => group.whole_gangs(self.target),
            (_, None) => spec.target,
        }
    }

    /// False: nothing of it is new.
    fn retarget(&mut self, spec: DeploymentSpec, capacity: Capacity) -> bool {
        let same = spec == self.spec;
        let failed = self.starts.gave_up;
        if same && !self.deleting && !failed {
            return false;
        }
        let only_count = spec.differs_only_in_count(&self.spec) && !self.deleting && !failed;
        let target = self.target_with(&spec, capacity);
        self.deleting = false;
        // What was measured stays true; how long it has lasted counts from now.
        self.autoscaler.timer = None;
        if self.starts.code_version != spec.replica.code_version || failed {
            self.starts = Starts::for_version(&spec.replica.code_version);
        }
        if self.spec.replica.config_version != spec.replica.config_version {
            // What failed with the config before says nothing about this one.
            self.starts.failures_in_a_row = 0;
            self.starts.retry_at_ms = 0;
        }
        self.spec = spec;
        self.failures = Failures::default();
        let serves = |replica: &Replica| self.is_current(replica) && replica.phase.is_answering();
        if self.replicas.values().any(serves) {
            // It is not new: it was there before, or still is.
            self.starts.succeeded();
        }
        if only_count {
            self.count_changes_to(target);
        } else {
            self.target = target;
            self.status.on(StatusEvent::NewConfig, "");
        }
        true
    }

    fn count_changes_to(&mut self, target: u32) {
        let target = self.spec.replica.group.whole_gangs(target);
        let direction = match target.cmp(&self.target) {
            std::cmp::Ordering::Greater => Direction::Up,
            std::cmp::Ordering::Less => Direction::Down,
            std::cmp::Ordering::Equal => return,
        };
        self.target = target;
        if self.starts.gave_up {
            self.starts = Starts::for_version(&self.spec.replica.code_version);
            self.retry_canary();
        }
        self.status.on(StatusEvent::CountChanged(direction), "");
    }
}
