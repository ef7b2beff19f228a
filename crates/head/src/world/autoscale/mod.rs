//! Autoscaling on ongoing requests: how many replicas a deployment shall have.
//!
//! Routers report their load within a quarter of a second of a change; it is folded into a
//! [`Window`] per deployment. [`World::autoscale`] then asks, for each deployment: what does the
//! load ask for (`policy`), is it within bounds (`bounds`), has it lasted (`delays`). The
//! formula, the delays and the bounds are Ray's; only the way of measuring differs, so that the
//! reaction is bounded by the configured delays and by nothing else.

pub mod bounds;
pub mod delays;
mod loads;
pub mod policy;
pub mod schedule;
#[cfg(test)]
mod tests;
pub mod window;

use super::deployment_status::{Direction, StatusEvent};
use super::intent::Deployment;
use super::notes::Note;
use super::spec::Autoscaling;
use super::{DeploymentId, Now, World};
use bounds::{Bounds, Capacity};
use delays::{Timer, Verdict, judge};
use policy::{Standing, Wish, wish};
use window::Window;

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
    /// Since when the load asks for another count.
    pub timer: Option<Timer>,
    /// What it asked for last.
    pub wish: Option<Wish>,
}

/// Why a count changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cause {
    /// The load asks for it and has done so for long enough.
    Load { requests: f64, per_replica: f64 },
    /// Requests wait and nobody answers.
    FromZero { requests: f64 },
    /// The bounds moved.
    Bounds(Bounds),
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
        for (application, value) in &mut self.applications {
            for (name, deployment) in &mut value.deployments {
                let decided = deployment.autoscale(capacity, may_shrink, now);
                if let Some((to, cause)) = decided {
                    let id = DeploymentId {
                        application: application.clone(),
                        deployment: name.clone(),
                    };
                    decisions.push(Scaling {
                        deployment: id,
                        from: deployment.target,
                        to,
                        cause,
                    });
                    deployment.autoscaled_to(to);
                }
            }
        }
        self.notes
            .extend(decisions.into_iter().map(Note::Autoscaled));
    }

    /// Whether a decision may be due by the passing of time alone.
    pub(super) fn is_autoscaling(&self) -> bool {
        let mut deployments = self.deployments();
        deployments.any(|(_, deployment)| {
            let scaler = &deployment.autoscaler;
            deployment.spec.autoscaling.is_some()
                && (scaler.timer.is_some() || !scaler.window.is_flat())
        }) || !self.departed_routers.is_empty()
    }
}

// === impl Deployment ===

impl Deployment {
    fn autoscale(
        &mut self,
        capacity: Capacity,
        may_shrink: bool,
        now: Now,
    ) -> Option<(u32, Cause)> {
        if self.deleting {
            return None;
        }
        let autoscaling = self.spec.autoscaling.as_ref()?;
        let scheduled = autoscaling.schedule.minimum_at(now.unix_s);
        let bounds = Bounds::of(autoscaling, capacity).raised_to(scheduled, capacity);
        // A canary comes on top of the count, whatever it is.
        let canary = self.canary.as_ref().filter(|canary| canary.is_shared());
        let running = self.replicas.values().filter(|replica| {
            replica.phase.is_answering() && !canary.is_some_and(|canary| canary.is_of(replica))
        });
        let standing = Standing {
            running: running.count() as u32,
            target: self.target,
        };
        self.autoscaler
            .decide(autoscaling, bounds, standing, may_shrink, now.ms)
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
        let oldest = now_ms.saturating_sub(autoscaling.look_back_ms);
        self.window.forget(oldest);
        self.wish = wish(autoscaling, &self.window, standing, now_ms);
        let timer = self.timer.take();
        let target = standing.target;
        let clamped = bounds.clamp(target);
        if clamped != target {
            return Some((clamped, Cause::Bounds(bounds)));
        }
        let wish = self.wish?;
        let replicas = bounds.clamp(wish.replicas);
        if wish.from_zero && replicas > target {
            let requests = wish.requests;
            return Some((replicas, Cause::FromZero { requests }));
        }
        if replicas < target && !may_shrink {
            return None;
        }
        match judge(autoscaling, timer, target, replicas, now_ms) {
            Verdict::Stay => None,
            Verdict::Wait(timer) => {
                self.timer = Some(timer);
                None
            }
            Verdict::Scale(to) => {
                let requests = wish.requests;
                let per_replica = autoscaling.target_ongoing_requests;
                let cause = Cause::Load {
                    requests,
                    per_replica,
                };
                Some((to, cause))
            }
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
            Cause::FromZero { requests } => {
                write!(f, "{requests} requests wait and nobody answers")
            }
            Cause::Bounds(Bounds { least, most }) => {
                write!(f, "between {least} and {most} are allowed")
            }
        }
    }
}
