//! What the head decided: which replicas there shall be, where, and how far each has come.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::autoscale::Autoscaler;
use super::canary::Canary;
use super::deployment_status::Status;
use super::group::{Gang, Reservation};
use super::probation::{Failures, Probation};
use super::spec::{ApplicationSpec, BuiltApplication, DeploymentSpec, ReplicaSpec};
use super::starts::Starts;
use super::{ReplicaId, WorkerId};

/// Stopped replicas that the status document still shows, per deployment; Ray's number.
pub const DEAD_REPLICAS_MAX: usize = 10;

/// An application that is deployed, failed to deploy, or is on its way out.
#[derive(Clone, Debug)]
pub struct Application {
    /// What the user declared of it.
    pub declared: Arc<ApplicationSpec>,
    /// It was RUNNING with what is declared.
    pub proven: bool,
    /// The newest config with which it was RUNNING.
    pub good: Option<Good>,
    /// It came to run a short while ago.
    pub probation: Option<Probation>,
    /// The last version whose code and entry fitted; it keeps serving when a newer one does
    /// not fit. Its `deployments` are superseded by those beside it here.
    pub built: Option<BuiltApplication>,
    /// Why the newest entry could not be applied.
    pub failure: Option<String>,
    /// By name.
    pub deployments: BTreeMap<String, Deployment>,
    /// No longer declared: goes when its replicas are gone.
    pub deleting: bool,
}

/// A config that is known to run.
#[derive(Clone, Debug)]
pub struct Good {
    /// The newest revision that holds it.
    pub revision: u64,
    /// The application in it.
    pub spec: Arc<ApplicationSpec>,
}

/// A deployment and its replicas.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// The goal.
    pub spec: DeploymentSpec,
    /// Replicas that shall run: the spec's number, or what the load or the scale route asks for.
    pub target: u32,
    /// What the load asks for.
    pub autoscaler: Autoscaler,
    /// What the status document says.
    pub status: Status,
    /// How starting its replicas went.
    pub starts: Starts,
    /// The rollout that is under way goes by how a part of the requests is answered.
    pub canary: Option<Canary>,
    /// What failed since the application was RUNNING with what is declared.
    pub failures: Failures,
    /// All that exist or are about to.
    pub replicas: BTreeMap<ReplicaId, Replica>,
    /// The last ones that ended, newest last.
    pub dead: VecDeque<DeadReplica>,
    /// No longer declared.
    pub deleting: bool,
}

/// One replica.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Where it lives.
    pub worker: WorkerId,
    /// What else it holds, one entry per worker.
    pub reserved: Vec<Reservation>,
    /// The replicas that it stands and falls with.
    pub gang: Option<Gang>,
    /// What it is made of, and the config it shall have.
    pub spec: Arc<ReplicaSpec>,
    /// How far it has come.
    pub phase: Phase,
    /// The first assignment of its worker that names it; None until there is one.
    pub assigned_version: Option<u64>,
    /// Unix time; the head's until the worker reports its own.
    pub start_time_s: f64,
    /// Order of creation, for "newest first".
    pub serial: u64,
}

/// How far a replica has come, as the head sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Assigned, not yet reported ready.
    Starting,
    /// Ready: in the route table.
    Running,
    /// Its health checks fail; in the table only while nobody else can answer.
    Unhealthy,
    /// Out of the table that has this version (None: not yet published), still assigned.
    Withdrawing { table_version: Option<u64> },
    /// Out of the assignment; exists until its worker stops reporting it.
    Stopping,
}

/// A replica that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadReplica {
    /// Its id.
    pub id: ReplicaId,
    /// Where it lived.
    pub worker: WorkerId,
    /// The worker's machine.
    pub node_id: String,
    /// The machine's address.
    pub node_ip: String,
    /// The worker's process.
    pub pid: u32,
    /// Unix time.
    pub start_time_s: f64,
}

// === impl Phase ===

impl Phase {
    /// Counts towards the target: not on its way out.
    pub fn is_live(self) -> bool {
        match self {
            Phase::Starting | Phase::Running | Phase::Unhealthy => true,
            Phase::Withdrawing { .. } | Phase::Stopping => false,
        }
    }

    /// Ready at some time and not withdrawn.
    pub fn is_answering(self) -> bool {
        match self {
            Phase::Running | Phase::Unhealthy => true,
            Phase::Starting | Phase::Withdrawing { .. } | Phase::Stopping => false,
        }
    }
}

// === impl Replica ===

impl Replica {
    /// Every worker that it needs, its own first, each once.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerId> {
        let others = self.reserved.iter().map(|reservation| &reservation.worker);
        let own = &self.worker;
        std::iter::once(own).chain(others.filter(move |other| *other != own))
    }
}

// === impl Deployment ===

impl Deployment {
    /// A deployment that has just been declared.
    pub fn new(spec: DeploymentSpec) -> Deployment {
        Deployment {
            target: spec.target,
            autoscaler: Autoscaler::default(),
            starts: Starts::for_version(&spec.replica.code_version),
            spec,
            status: Status::new(),
            canary: None,
            failures: Failures::default(),
            replicas: BTreeMap::new(),
            dead: VecDeque::new(),
            deleting: false,
        }
    }

    /// Whether the replica is of the version that shall run.
    pub fn is_current(&self, replica: &Replica) -> bool {
        replica.spec.code_version == self.spec.replica.code_version
    }

    /// Keeps an ended replica for the status document.
    pub fn remember_dead(&mut self, dead: DeadReplica) {
        if self.dead.len() == DEAD_REPLICAS_MAX {
            self.dead.pop_front();
        }
        self.dead.push_back(dead);
    }
}
