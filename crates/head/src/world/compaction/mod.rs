//! Emptying workers that hold little, so that a provisioner can take them away. One replica
//! moves at a time, start-first as in any replacement, and only while nothing else is under way.
//!
//! It ends: replicas only move to workers that have some, so each emptied worker is one less.
//! Like the counts of autoscaling, what is decided here is put in force at once; the plan sees
//! a replica that is to be replaced, and where its replacement goes (`rollout`).

mod moves;

use super::deployment_status::State;
use super::gangs::together;
use super::health::{is_right, on_untrusted_worker};
use super::intent::{Deployment, Phase};
use super::notes::Note;
use super::spec::CompactionMode;
use super::{DeploymentId, Now, ReplicaId, ReplicaKey, WorkerId, World};

/// How long nothing may have been under way before a worker is emptied: load that comes back
/// within a minute shall find the replicas where they were.
pub const QUIET_MS: u64 = 60_000;

/// The pause after a look that found nothing to do, and the one after a worker was emptied.
const LOOK_MS: u64 = 10_000;

/// The pause after a move was called off.
const CALLED_OFF_MS: u64 = 600_000;

/// A replacement that is not ready after this is not waited for.
const MOVE_MS_MAX: u64 = 600_000;

/// The room that was seen for a replacement is taken within this time, or it is gone.
const PLACE_MS_MAX: u64 = 5_000;

/// What is remembered between two looks. Lost with the head: a replica that was moving then is
/// one too many, and leaves as such.
#[derive(Clone, Debug, Default)]
pub struct Compaction {
    /// Since when nothing has been under way.
    quiet_since_ms: Option<u64>,
    /// No worker is chosen before.
    not_before_ms: u64,
    emptying: Option<Emptying>,
}

/// A worker that is emptied, and the replica that moves.
#[derive(Clone, Debug)]
struct Emptying {
    worker: WorkerId,
    moving: Move,
    since_ms: u64,
}

/// One replica that goes from one worker to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    pub replica: ReplicaKey,
    pub to: WorkerId,
}

// === impl Compaction ===

impl Compaction {
    /// Whether the replica is on its way to another worker.
    pub fn moves(&self, replica: &ReplicaId) -> bool {
        let emptying = self.emptying.as_ref();
        emptying.is_some_and(|emptying| emptying.moving.replica.replica == *replica)
    }

    /// Where the replacement of the one of these goes that moves, if one does.
    pub fn place_for<'a>(&self, mut replicas: impl Iterator<Item = &'a ReplicaId>) -> Option<&str> {
        let emptying = self.emptying.as_ref()?;
        let moves = replicas.any(|replica| self.moves(replica));
        moves.then_some(emptying.moving.to.as_str())
    }

    /// The worker that is emptied.
    pub fn emptied(&self) -> Option<&str> {
        self.emptying.as_ref().map(|emptying| &*emptying.worker)
    }

    /// Whether it is that worker.
    pub fn empties(&self, worker: &str) -> bool {
        self.emptied() == Some(worker)
    }

    pub fn is_under_way(&self) -> bool {
        self.emptying.is_some()
    }

    fn call_off(&mut self, why: &'static str, now: Now) -> Option<Note> {
        let emptying = self.emptying.take()?;
        self.not_before_ms = now.ms + CALLED_OFF_MS;
        let worker = emptying.worker;
        Some(Note::CompactionCalledOff { worker, why })
    }
}

// === impl World ===

impl World {
    /// Decides whether a replica moves so that its worker can go, and puts that in force.
    pub fn compact(&mut self, now: Now) {
        let emptying = self.compaction.emptying.clone();
        let quiet = self.may_compact() && self.is_quiet(emptying.as_ref(), now);
        match emptying {
            Some(emptying) if quiet => self.go_on_emptying(emptying, now),
            Some(_) => {
                let why = "something else is under way";
                self.notes.extend(self.compaction.call_off(why, now));
            }
            None => {}
        }
        if !quiet {
            self.compaction.quiet_since_ms = None;
            return;
        }
        let since = *self.compaction.quiet_since_ms.get_or_insert(now.ms);
        let long_enough = now.ms.saturating_sub(since) >= QUIET_MS;
        let may_begin = long_enough && now.ms >= self.compaction.not_before_ms;
        if may_begin && !self.compaction.is_under_way() {
            self.compaction.not_before_ms = now.ms + LOOK_MS;
            if let Some((worker, first)) = moves::worker_to_empty(self) {
                self.move_one(worker, first, now);
            }
        }
    }

    fn go_on_emptying(&mut self, emptying: Emptying, now: Now) {
        let Emptying {
            worker,
            moving,
            since_ms,
        } = emptying;
        let deployment = self.deployment(&moving.replica.deployment);
        let replicas = deployment.map(|deployment| &deployment.replicas);
        let there = replicas.is_some_and(|r| r.contains_key(&moving.replica.replica));
        if there {
            let waited = now.ms.saturating_sub(since_ms);
            let alone = deployment.is_some_and(|d| d.replicas.len() <= d.target as usize);
            if waited >= MOVE_MS_MAX || (alone && waited >= PLACE_MS_MAX) {
                let why = "its replacement does not come up";
                self.notes.extend(self.compaction.call_off(why, now));
            }
            return;
        }
        match moves::to_empty(self, &worker) {
            Some(moves) => match moves.into_iter().next() {
                Some(next) => self.move_one(worker, next, now),
                None => {
                    self.compaction.emptying = None;
                    self.compaction.quiet_since_ms = None;
                    self.notes.push(Note::WorkerEmptied { worker });
                }
            },
            None => {
                let why = "there is no room any more for what is left";
                self.notes.extend(self.compaction.call_off(why, now));
            }
        }
    }

    fn move_one(&mut self, worker: WorkerId, moving: Move, now: Now) {
        self.notes.push(Note::Moves {
            replica: moving.replica.clone(),
            from: worker.clone(),
            to: moving.to.clone(),
        });
        self.compaction.emptying = Some(Emptying {
            worker,
            moving,
            since_ms: now.ms,
        });
    }

    fn may_compact(&self) -> bool {
        match self.serving.as_ref().map(|serving| serving.compaction) {
            Some(CompactionMode::Always) => true,
            Some(CompactionMode::Auto) => self.supply.on_demand,
            Some(CompactionMode::Never) | None => false,
        }
    }

    /// Whether nothing is under way but a move.
    fn is_quiet(&self, emptying: Option<&Emptying>, now: Now) -> bool {
        let moving = emptying.map(|emptying| &emptying.moving);
        let steady = |worker: &super::observed::Worker| {
            worker.takes_replicas()
                && !worker.away
                && worker.trusted_at_ms.is_none_or(|at| now.ms >= at)
        };
        !self.shutting_down
            && self.is_synced(now)
            && self.remembered.is_empty()
            && self.supply.trouble.is_empty()
            && self.workers.values().all(steady)
            && self
                .applications
                .values()
                .all(|app| !app.deleting && app.failure.is_none())
            && self.deployments().all(|(id, deployment)| match moving {
                Some(moving) if moving.replica.deployment == id => {
                    self.only_moves(deployment, moving, now)
                }
                Some(_) | None => is_calm(deployment) && is_right(self, deployment),
            })
    }

    /// Whether the deployment is as it shall be but for a replica that moves.
    fn only_moves(&self, deployment: &Deployment, moving: &Move, now: Now) -> bool {
        let target = deployment.target as usize;
        let others = deployment.replicas.iter();
        let mut others = others.filter(|(id, _)| **id != moving.replica.replica);
        let count = others.clone().count();
        is_calm(deployment)
            && (count == target || count + 1 == target)
            && others.all(|(_, replica)| {
                let comes = replica.phase == Phase::Starting && replica.worker == moving.to;
                deployment.is_current(replica)
                    && (replica.phase == Phase::Running || comes)
                    && !on_untrusted_worker(self, replica, now)
            })
    }

    fn deployment(&self, id: &DeploymentId) -> Option<&Deployment> {
        let application = self.applications.get(&id.application)?;
        application.deployments.get(&id.deployment)
    }
}

/// Neither trouble nor a change that is coming.
fn is_calm(deployment: &Deployment) -> bool {
    !deployment.deleting
        && deployment.status.state == State::Healthy
        && deployment.starts.failures_in_a_row == 0
        && !deployment.starts.gave_up
        && deployment.canary.is_none()
        && deployment.autoscaler.timer.is_none()
        && together(&deployment.replicas)
            .iter()
            .all(|gang| gang.is_broken().is_none())
}
