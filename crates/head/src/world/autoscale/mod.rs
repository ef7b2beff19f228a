//! Autoscaling on ongoing requests: how many replicas a deployment shall have.
//!
//! Routers report their load within a quarter of a second of a change; it is folded into a
//! [`Window`] per deployment. [`World::autoscale`] then asks, for each deployment: what does the
//! load ask for (`policy`), is it within bounds (`bounds`), has it lasted (`delays`). The
//! formula, the delays and the bounds are Ray's; only the way of measuring differs, so that the
//! reaction is bounded by the configured delays and by nothing else.

pub mod bounds;
pub mod budget;
pub mod delays;
pub mod flow;
mod loads;
pub mod policy;
mod reactive;
#[cfg(test)]
mod reactive_tests;
pub mod schedule;
#[cfg(test)]
mod tests;
pub mod window;

use std::collections::BTreeMap;

use mobula_spec::Budget;

use super::deployment_status::{Direction, StatusEvent};
use super::intent::{Application, Deployment, Phase};
use super::notes::Note;
use super::spec::{Autoscaling, Policy};
use super::{DeploymentId, Now, World};
use bounds::{Bounds, Capacity};
use budget::{Claim, Cost, share};
use delays::{Timer, Verdict, judge};
use flow::{Flow, Piece};
use policy::{Basis, Measured, Standing, Wish, wish};
use window::{Load, Window};

pub use loads::DepartedRouter;

/// After the start of a head no deployment shrinks for this long: routers that served before
/// are dialling it, and what they carry is not known yet.
pub const SHRINK_AFTER_MS: u64 = 5_000;

/// What is remembered of one deployment between two decisions. Lost with the head, like the
/// measurements themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Autoscaler {
    /// The load of the look-back period.
    pub window: Window,
    /// What passed through; None: some router does not count it, or the policy does not ask.
    pub flow: Option<Flow>,
    /// How long the last replica took to start; 0: not known.
    pub start_ms: u64,
    /// Since when as many replicas answer as shall.
    settled_since_ms: Option<u64>,
    /// Since when the load asks for another count.
    pub timer: Option<Timer>,
    /// What it asked for last.
    pub wish: Option<Wish>,
    /// What there would be without the application's budget, and what there is with it.
    cut: Option<(u32, u32)>,
}

/// Why a count changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cause {
    /// The load asks for it and has done so for long enough.
    Load { requests: f64, per_replica: f64 },
    /// So many requests come, each of which a replica has for so long, and so many wait.
    Flow {
        per_s: f64,
        service_s: f64,
        queued: u64,
        per_replica: f64,
    },
    /// Requests wait and nobody answers.
    FromZero { requests: f64 },
    /// The bounds moved.
    Bounds(Bounds),
    /// The load asks for so many; the deployments of the application share less.
    Budget { wanted: u32 },
}

/// One decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    pub deployment: DeploymentId,
    pub from: u32,
    pub to: u32,
    pub cause: Cause,
}

// === impl World ===

impl World {
    /// Decides the counts of all autoscaled deployments and puts them in force. Each change is
    /// also a note.
    pub fn autoscale(&mut self, now: Now) {
        self.forget_departed_routers(now);
        let capacity = self.capacity;
        let may_shrink = now.ms >= SHRINK_AFTER_MS && self.is_synced(now);
        let mut decisions = Vec::new();
        for (name, application) in &mut self.applications {
            let decided = application.autoscale(capacity, may_shrink, now);
            decisions.extend(decided.into_iter().map(|(deployment, from, to, cause)| {
                let deployment = DeploymentId {
                    application: name.clone(),
                    deployment,
                };
                Scaling {
                    deployment,
                    from,
                    to,
                    cause,
                }
            }));
        }
        self.notes
            .extend(decisions.into_iter().map(Note::Autoscaled));
    }

    /// Whether a decision may be due by the passing of time alone.
    pub(super) fn is_autoscaling(&self) -> bool {
        let mut deployments = self.deployments();
        deployments.any(|(_, deployment)| {
            let scaler = &deployment.autoscaler;
            deployment.spec.autoscaling.is_some() && (scaler.timer.is_some() || !scaler.is_flat())
        }) || !self.departed_routers.is_empty()
    }
}

// === impl Application ===

impl Application {
    /// Decides and puts in force: (deployment, from, to, why).
    fn autoscale(
        &mut self,
        capacity: Capacity,
        may_shrink: bool,
        now: Now,
    ) -> Vec<(String, u32, u32, Cause)> {
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        for (name, deployment) in &mut self.deployments {
            if let Some(found) = deployment.wanted(capacity, may_shrink, now) {
                wanted.insert(name.clone(), found);
            }
        }
        let budget = self.built.as_ref().and_then(|built| built.budget.as_ref());
        let granted = budget.map(|budget| granted(budget, &self.deployments, &wanted));
        let mut decisions = Vec::new();
        for (name, found) in wanted {
            let Some(deployment) = self.deployments.get_mut(&name) else {
                continue;
            };
            let granted = granted.as_ref().and_then(|granted| granted.get(&name));
            let to = granted.copied().unwrap_or(found.count);
            let is_cut = to < found.count;
            deployment.autoscaler.cut = is_cut.then_some((found.count, to));
            let from = deployment.target;
            let cause = match found.cause {
                Some(cause) if !is_cut => cause,
                // It got less before, and more is there now.
                Some(_) | None => Cause::Budget {
                    wanted: found.count,
                },
            };
            if to != from {
                deployment.autoscaled_to(to);
                decisions.push((name, from, to, cause));
            }
        }
        decisions
    }
}

/// What one deployment would have if it were alone.
struct Wanted {
    count: u32,
    /// None: no more and no less than it wanted before.
    cause: Option<Cause>,
    least: u32,
}

fn granted(
    budget: &Budget,
    deployments: &BTreeMap<String, Deployment>,
    wanted: &BTreeMap<String, Wanted>,
) -> BTreeMap<String, u32> {
    let mut spent = Cost::default();
    let mut beyond = Cost::default();
    let mut claims = Vec::new();
    for (name, deployment) in deployments {
        let cost = Cost::of(&deployment.spec.replica.reserves());
        beyond = beyond.plus(cost.times(deployment.beyond_target()));
        match wanted.get(name) {
            Some(found) => claims.push((
                name,
                Claim {
                    has: deployment.target,
                    least: found.least,
                    wanted: found.count,
                    priority: budget.priorities.get(name).copied().unwrap_or(0),
                    cost,
                },
            )),
            None if deployment.deleting => {}
            None => spent = spent.plus(cost.times(deployment.target)),
        }
    }
    let (names, claims): (Vec<&String>, Vec<Claim>) = claims.into_iter().unzip();
    let counts = share(budget, spent, beyond, &claims);
    let whole = names.iter().zip(counts).map(|(name, count)| {
        // What is left of a budget may be less than a gang.
        let deployment = deployments.get(*name);
        let size = deployment.map_or(1, |d| d.spec.replica.group.gang_size.max(1));
        ((*name).clone(), count - count % size)
    });
    whole.collect()
}

// === impl Deployment ===

impl Deployment {
    /// None: it is not autoscaled.
    fn wanted(&mut self, capacity: Capacity, may_shrink: bool, now: Now) -> Option<Wanted> {
        if self.deleting {
            return None;
        }
        let autoscaling = self.spec.autoscaling.as_ref()?;
        let scheduled = autoscaling.schedule.minimum_at(now.unix_s);
        let bounds = Bounds::of(autoscaling, capacity).raised_to(scheduled, capacity);
        let bounds = bounds.in_steps_of(self.spec.replica.group.gang_size);
        // A canary comes on top of the count, whatever it is.
        let canary = self.canary.as_ref().filter(|canary| canary.is_shared());
        let running = self.replicas.values().filter(|replica| {
            replica.phase.is_answering() && !canary.is_some_and(|canary| canary.is_of(replica))
        });
        // Whoever was cut goes on wanting what he wanted, unless somebody else set the count.
        let cut = self.autoscaler.cut.filter(|(_, to)| *to == self.target);
        let target = cut.map_or(self.target, |(wanted, _)| wanted);
        let standing = Standing {
            running: running.count() as u32,
            target,
            ongoing_max: self.spec.replica.max_ongoing_requests,
            start_ms: self.autoscaler.start_ms.max(self.starting_ms(now)),
        };
        let decided = self
            .autoscaler
            .decide(autoscaling, bounds, standing, may_shrink, now.ms);
        Some(Wanted {
            count: decided.map_or(target, |(to, _)| to),
            cause: decided.map(|(_, cause)| cause),
            least: bounds.least,
        })
    }

    /// Replicas that a rollout, a canary or a move has beyond the count for the moment.
    fn beyond_target(&self) -> u32 {
        let live = self.replicas.values().filter(|r| r.phase.is_live());
        (live.count() as u32).saturating_sub(self.target)
    }

    /// How long the oldest of the replicas that start has been at it.
    fn starting_ms(&self, now: Now) -> u64 {
        let replicas = self.replicas.values();
        let starting = replicas.filter(|replica| replica.phase == Phase::Starting);
        let longest = starting.map(|replica| now.unix_s - replica.start_time_s);
        (longest.fold(0.0, f64::max) * 1000.0) as u64
    }

    fn autoscaled_to(&mut self, target: u32) {
        let direction = if target > self.target {
            Direction::Up
        } else {
            Direction::Down
        };
        self.target = target;
        self.status.on(StatusEvent::Autoscale(direction), "");
    }
}

// === impl Autoscaler ===

impl Autoscaler {
    /// The load is this from now on. `passed`: what passed through since a router said so last;
    /// None: not every router counts it.
    pub fn measure(
        &mut self,
        autoscaling: &Autoscaling,
        load: Load,
        passed: Option<Piece>,
        now_ms: u64,
    ) {
        let before = self.window.newest().map_or(0, |load| load.queued);
        self.window.push(now_ms, load, autoscaling.look_back_ms);
        match (autoscaling.policy, passed) {
            (Policy::Reactive, Some(piece)) => {
                let calm = before == 0 && load.queued == 0;
                self.flow.get_or_insert_default().push(piece, calm);
            }
            (Policy::Default, _) | (Policy::Reactive, None) => self.flow = None,
        }
    }

    /// Whether the load was the same all the time.
    fn is_flat(&self) -> bool {
        self.window.is_flat() && self.flow.as_ref().is_none_or(Flow::is_quiet)
    }

    /// The count that shall be, if it is another one, and why. `may_shrink`: whether the load
    /// of everybody is known.
    pub fn decide(
        &mut self,
        autoscaling: &Autoscaling,
        bounds: Bounds,
        standing: Standing,
        may_shrink: bool,
        now_ms: u64,
    ) -> Option<(u32, Cause)> {
        let wish = self.wish(autoscaling, standing, now_ms);
        let timer = self.timer.take();
        let target = standing.target;
        let clamped = bounds.clamp(target);
        if clamped != target {
            return Some((clamped, Cause::Bounds(bounds)));
        }
        let wish = wish?;
        let replicas = bounds.clamp(wish.replicas);
        let cause = wish.cause(autoscaling.target_ongoing_requests);
        if wish.basis == Basis::FromZero && replicas > target {
            return Some((replicas, cause));
        }
        if replicas < target && !may_shrink {
            return None;
        }
        // In gangs: the last one takes the longer delay.
        let gangs = |replicas: u32| replicas / bounds.step.max(1);
        match judge(autoscaling, timer, gangs(target), gangs(replicas), now_ms) {
            Verdict::Stay => None,
            Verdict::Wait(timer) => {
                self.timer = Some(timer);
                None
            }
            Verdict::Scale(to) => Some((to * bounds.step.max(1), cause)),
        }
    }

    fn wish(&mut self, autoscaling: &Autoscaling, standing: Standing, now_ms: u64) -> Option<Wish> {
        let oldest = now_ms.saturating_sub(autoscaling.look_back_ms);
        self.window.forget(oldest);
        if let Some(flow) = &mut self.flow {
            flow.forget(now_ms);
        }
        let is_settled = standing.running >= standing.target;
        let since_ms = self.settled_since_ms.filter(|_| is_settled);
        self.settled_since_ms = since_ms.or(is_settled.then_some(now_ms));
        let measured = Measured {
            window: &self.window,
            flow: self.flow.as_ref(),
            settled_ms: since_ms.map_or(0, |since| now_ms.saturating_sub(since)),
        };
        self.wish = wish(autoscaling, measured, standing, now_ms);
        self.wish
    }
}

// === impl Wish ===

impl Wish {
    fn cause(self, per_replica: f64) -> Cause {
        let requests = self.requests;
        match self.basis {
            Basis::FromZero => Cause::FromZero { requests },
            Basis::Ongoing => Cause::Load {
                requests,
                per_replica,
            },
            Basis::Flow {
                per_s,
                service_s,
                queued,
            } => Cause::Flow {
                per_s,
                service_s,
                queued,
                per_replica,
            },
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::Load {
                requests,
                per_replica,
            } => write!(
                f,
                "{requests:.1} ongoing requests, {per_replica} are wanted per replica"
            ),
            Cause::Flow {
                per_s,
                service_s,
                queued,
                per_replica,
            } => write!(
                f,
                "{per_s:.1} requests per second of {service_s:.3} s each, {queued} waiting, \
                 {per_replica} ongoing are wanted per replica"
            ),
            Cause::FromZero { requests } => {
                write!(f, "{requests} requests wait and nobody answers")
            }
            Cause::Budget { wanted } => write!(
                f,
                "{wanted} are wanted, the application's budget (mobula.autoscaling) has no more"
            ),
            Cause::Bounds(Bounds { least, most, .. }) => {
                write!(f, "between {least} and {most} are allowed")
            }
        }
    }
}
