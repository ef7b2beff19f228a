//! The world and what to do about it, as pure functions: no async, no clock, no randomness,
//! no IO. Time and fresh ids are arguments.
//!
//! A [`World`] is what the user declared, what the head decided and what others report.
//! [`World::observe`] folds an event in, [`World::autoscale`] decides how many replicas the load
//! asks for, [`World::plan`] says what shall be done and why,
//! [`World::apply`] writes the decisions down, [`World::publish`] turns them into the tables
//! and assignments that others shall have. Every step works from the whole world, so a lost
//! message or a restart leads to the same answer.
//!
//! Not here: how any of it reaches a store, a worker or a router (`executor`, `sessions`).

pub mod application_status;
pub mod apply;
pub mod autoscale;
pub mod canary;
pub mod compaction;
mod declare;
pub mod deployment_status;
pub mod gangs;
pub mod good;
pub mod group;
pub mod health;
pub mod intent;
pub mod notes;
pub mod observe;
pub mod observed;
pub mod placement;
pub mod plan;
pub mod preview;
pub mod probation;
pub mod publish;
pub mod reason;
pub mod replica;
mod reports;
pub mod resources;
pub mod rollout;
pub mod spec;
pub mod starts;
pub mod supply;
pub mod victims;

#[cfg(test)]
mod away_tests;
#[cfg(test)]
mod compaction_tests;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod gang_tests;
#[cfg(test)]
mod good_tests;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod placement_tests;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod probation_tests;
#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod sim_tests;
#[cfg(test)]
mod status_tests;
#[cfg(test)]
mod supply_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use apply::apply_all;
pub use observe::Event;
pub use plan::{Action, Plan, Planned};
pub use reason::Reason;
pub use resources::Resources;

use autoscale::DepartedRouter;
use autoscale::bounds::Capacity;
use compaction::Compaction;
use group::Remembered;
use intent::Application;
use notes::Note;
use observed::{Router, Worker};
use publish::Published;
use spec::Serving;
use supply::Supply;

/// 56 hex digits.
pub type WorkerId = String;
/// 56 hex digits.
pub type RouterId = String;
/// 8 lower-case alphanumerics.
pub type ReplicaId = String;

/// How long a restarted head waits for the workers that it knew before it starts anything in
/// their place. They report every second and reconnect within a few.
pub const SYNC_MS_MAX: u64 = 10_000;

/// How long before a worker that has not reported to a restarted head counts as out of reach,
/// if others have: from then on replacements of what it may run are started. Longer than the
/// workers take that find their new head while it still starts.
pub const AWAITED_MS_MAX: u64 = 3_000;

/// Both clocks of one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Now {
    /// Since the head started; never goes back.
    pub ms: u64,
    /// For showing to people.
    pub unix_s: f64,
}

/// One deployment of one application.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeploymentId {
    pub application: String,
    pub deployment: String,
}

/// One replica of one deployment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicaKey {
    pub deployment: DeploymentId,
    pub replica: ReplicaId,
}

/// Everything that decisions are made from.
#[derive(Clone, Debug)]
pub struct World {
    /// How the ingress is open; None: Serve is not running.
    pub serving: Option<Serving>,
    /// The revision of the config that counts.
    pub revision: u64,
    /// DELETE was asked for: `serving` goes when the last application is gone.
    pub shutting_down: bool,
    /// By name.
    pub applications: BTreeMap<String, Application>,
    /// Those with a session, and those that lost it a moment ago.
    pub workers: BTreeMap<WorkerId, Worker>,
    /// Those with a session.
    pub routers: BTreeMap<RouterId, Router>,
    /// Those that lost their session a moment ago.
    pub departed_routers: BTreeMap<RouterId, DepartedRouter>,
    /// How much of every count shall run.
    pub capacity: Capacity,
    /// What others have been told.
    pub published: Published,
    /// Workers that ran replicas before the head restarted and have not reported yet.
    pub awaited_workers: BTreeSet<WorkerId>,
    /// What replicas of those workers hold on others, as the head before wrote it down.
    pub remembered: BTreeMap<ReplicaId, Remembered>,
    /// Workers that are emptied to be let go.
    pub compaction: Compaction,
    /// What the provisioner says.
    pub supply: Supply,
    /// The head's own machine, the last to lose replicas' neighbours when scaling down.
    pub node_id: String,
    /// The next replica's serial number.
    pub next_serial: u64,
    /// What happened, for logs and counters; the shell takes it out after each event.
    pub notes: Vec<Note>,
}

// === impl World ===

impl World {
    /// An empty world. `version_base` must be above every version that an earlier head used,
    /// so that nobody takes a new table for an old one; Unix milliseconds do.
    pub fn new(node_id: impl Into<String>, version_base: u64) -> World {
        World {
            serving: None,
            revision: 0,
            shutting_down: false,
            applications: BTreeMap::new(),
            workers: BTreeMap::new(),
            routers: BTreeMap::new(),
            departed_routers: BTreeMap::new(),
            capacity: Capacity::default(),
            published: Published::from_version(version_base),
            awaited_workers: BTreeSet::new(),
            remembered: BTreeMap::new(),
            compaction: Compaction::default(),
            supply: Supply::default(),
            node_id: node_id.into(),
            next_serial: 0,
            notes: Vec::new(),
        }
    }

    /// Whether everybody who had something to say since the head started has said it.
    pub fn is_synced(&self, now: Now) -> bool {
        self.awaited_workers.is_empty() || now.ms >= SYNC_MS_MAX
    }

    /// Whether what is missing may be started: all that runs is known, or some have reported and
    /// the others had the time to. What those run after all is adopted, and the surplus leaves.
    pub fn may_replace_awaited(&self, now: Now) -> bool {
        let reached = self.workers.values().any(observed::Worker::takes_replicas);
        self.is_synced(now) || (reached && now.ms >= AWAITED_MS_MAX)
    }

    /// Whether a table may be made: everybody who may be in it has reported, or nobody else is
    /// needed, because as many replicas as shall be answer.
    pub fn knows_enough_for_a_table(&self, now: Now) -> bool {
        let complete = |deployment: &intent::Deployment| {
            let replicas = deployment.replicas.values();
            let answering = replicas
                .filter(|r| r.phase == intent::Phase::Running && !health::is_out_of_reach(self, r));
            answering.count() >= deployment.target as usize
        };
        self.is_synced(now)
            || (now.ms >= AWAITED_MS_MAX
                && self.deployments().all(|(_, d)| d.deleting || complete(d)))
    }

    /// Whether something is under way that only the passing of time or a report will end.
    pub fn is_in_progress(&self) -> bool {
        self.is_autoscaling()
            || self.compaction.is_under_way()
            || self.applications.values().any(|application| {
                application.deleting
                    || application.deployments.values().any(|deployment| {
                        deployment.deleting || !health::is_right(self, deployment)
                    })
            })
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.application, self.deployment)
    }
}

impl fmt::Display for ReplicaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.deployment, self.replica)
    }
}
