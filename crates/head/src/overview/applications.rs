//! Applications and their deployments: status, counts, load, canary.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{APPLICATIONS_SHOWN_MAX, shortened};
use crate::status::replica_state;
use crate::world::application_status::status;
use crate::world::autoscale::flow::Counts;
use crate::world::canary::{Canary, Stage};
use crate::world::health::is_out_of_reach;
use crate::world::intent::{Application, Deployment, Phase};
use crate::world::{Now, World};

/// One application.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ApplicationView {
    pub name: String,
    pub route_prefix: Option<String>,
    pub status: &'static str,
    pub message: String,
    pub last_deployed_time_s: f64,
    /// The newest revision with which it was RUNNING.
    pub good_revision: Option<u64>,
    pub deployments: Vec<DeploymentView>,
}

/// One deployment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeploymentView {
    pub name: String,
    pub status: &'static str,
    pub status_trigger: &'static str,
    pub message: String,
    /// Replicas that shall run.
    pub target: u32,
    /// Replicas that answer and can be reached.
    pub running: u32,
    /// Replicas that exist, by the states of the Serve document.
    pub states: BTreeMap<&'static str, u32>,
    /// Of those, the ones whose workers are out of reach.
    pub out_of_reach: u32,
    /// Of those that shall stay, the ones of the newest code.
    pub newest: u32,
    /// Of those that shall stay, the ones of older code.
    pub older: u32,
    pub autoscaling: Option<AutoscalingView>,
    /// Of each replica.
    pub max_ongoing_requests: u32,
    /// Requests that wait in the routers.
    pub waiting: u64,
    /// Requests with a replica.
    pub ongoing: u64,
    /// What passed through the routers of now since they began; None: one does not count it.
    pub passed: Option<Passed>,
    pub canary: Option<CanaryView>,
}

/// Between which counts it moves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AutoscalingView {
    pub min_replicas: u32,
    pub max_replicas: u32,
    pub target_ongoing_requests: f64,
}

/// Cumulative counts; their differences are rates, and the mean time at a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Passed {
    pub arrivals: u64,
    pub served: u64,
    pub service_us: u64,
}

/// How far a canary is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CanaryView {
    /// `step`, `promoted` or `given_up`.
    pub stage: &'static str,
    /// Counted from 1; 0: none.
    pub step: usize,
    pub steps: usize,
    /// The part of the requests that it answers.
    pub percent: u32,
    /// Replicas of it that answer.
    pub ready: u32,
    /// Of this step.
    pub answers: u64,
    pub errors: u64,
}

/// What routers carry of one deployment.
#[derive(Clone, Copy, Default)]
struct Load {
    waiting: u64,
    ongoing: u64,
    passed: Passed,
    uncounted: bool,
}

/// By application and deployment. Made in one go: asking each router for each deployment costs
/// more than all the rest.
type Loads<'a> = BTreeMap<(&'a str, &'a str), Load>;

/// The first ones by name.
pub fn views(world: &World, now: Now) -> Vec<ApplicationView> {
    let loads = loads(world);
    let shown = world.applications.iter().take(APPLICATIONS_SHOWN_MAX);
    shown
        .map(|(name, application)| view(world, &loads, name, application, now))
        .collect()
}

fn view(
    world: &World,
    loads: &Loads<'_>,
    name: &str,
    application: &Application,
    now: Now,
) -> ApplicationView {
    let (state, message) = status(application);
    let built = application.built.as_ref();
    let deployments = application.deployments.iter().map(|(deployment, value)| {
        let load = loads.get(&(name, deployment.as_str()));
        deployment_view(world, value, load.copied().unwrap_or_default(), now)
    });
    ApplicationView {
        name: name.to_owned(),
        route_prefix: built.and_then(|built| built.route_prefix.clone()),
        status: state.name(),
        message: shortened(&message),
        last_deployed_time_s: application.declared.deployed_time_s,
        good_revision: application.good.as_ref().map(|good| good.revision),
        deployments: deployments.collect(),
    }
}

fn deployment_view(world: &World, deployment: &Deployment, load: Load, now: Now) -> DeploymentView {
    let spec = &deployment.spec;
    let mut states = BTreeMap::new();
    let (mut running, mut out_of_reach, mut newest, mut older) = (0, 0, 0, 0);
    for (id, replica) in &deployment.replicas {
        *states.entry(replica_state(world, id, replica)).or_default() += 1;
        let reached = !is_out_of_reach(world, replica);
        running += u32::from(reached && replica.phase == Phase::Running);
        out_of_reach += u32::from(!reached);
        let is_live = replica.phase.is_live();
        newest += u32::from(is_live && deployment.is_current(replica));
        older += u32::from(is_live && !deployment.is_current(replica));
    }
    DeploymentView {
        name: spec.name.clone(),
        status: deployment.status.state.name(),
        status_trigger: deployment.status.trigger.name(),
        message: shortened(&deployment.message(now)),
        target: deployment.target,
        running,
        states,
        out_of_reach,
        newest,
        older,
        autoscaling: spec.autoscaling.as_ref().map(|found| AutoscalingView {
            min_replicas: found.min_replicas,
            max_replicas: found.max_replicas,
            target_ongoing_requests: found.target_ongoing_requests,
        }),
        max_ongoing_requests: spec.replica.max_ongoing_requests,
        waiting: load.waiting,
        ongoing: load.ongoing,
        passed: (!load.uncounted).then_some(load.passed),
        canary: canary_view(deployment),
    }
}

fn canary_view(deployment: &Deployment) -> Option<CanaryView> {
    let canary: &Canary = deployment.canary.as_ref()?;
    let traffic = deployment.spec.traffic.as_ref()?;
    let (stage, step) = match canary.stage {
        Stage::Step { step, .. } => ("step", step + 1),
        Stage::Promoted => ("promoted", 0),
        Stage::GivenUp(_) => ("given_up", 0),
    };
    let counted = canary.counted();
    Some(CanaryView {
        stage,
        step,
        steps: traffic.steps.len(),
        percent: deployment.canary_percent(canary),
        ready: deployment.canary_ready(canary),
        answers: counted.answers,
        errors: counted.errors,
    })
}

fn loads(world: &World) -> Loads<'_> {
    let mut loads = Loads::new();
    let routers = world.routers.values();
    for ((application, deployment), load) in routers.flat_map(|router| &router.loads) {
        let sum = loads.entry((application, deployment)).or_default();
        sum.waiting += u64::from(load.queued);
        sum.ongoing += u64::from(load.ongoing);
        match load.counts {
            Some(counts) => sum.passed.add(counts),
            None => sum.uncounted = true,
        }
    }
    loads
}

// === impl Passed ===

impl Passed {
    fn add(&mut self, counts: Counts) {
        self.arrivals = self.arrivals.saturating_add(counts.arrivals);
        self.served = self.served.saturating_add(counts.served);
        self.service_us = self.service_us.saturating_add(counts.service_us);
    }
}
