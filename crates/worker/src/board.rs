//! What everybody in the process may look at: the replicas and what they publish of themselves.
//!
//! The host alone writes the directory; each replica writes its own [`Cell`]. The data plane and
//! the session only read, without asking an actor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mobula_app::Leaving;
use mobula_proto::v1::AssignedReplica;
use ractor::ActorRef;
use tokio::sync::watch;

use crate::gate::Gate;
use crate::lifecycle::{self, Event, Phase};
use crate::replica::ReplicaMsg;

/// What a replica publishes of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub phase: Phase,
    /// Why it failed or is unhealthy; empty otherwise.
    pub message: String,
    /// The `user_config` in force.
    pub config_version: String,
}

/// The shared face of one replica.
pub(crate) struct Cell {
    pub replica_id: String,
    pub application: String,
    pub deployment: String,
    pub code_version: String,
    /// Unix time at which construction began.
    pub start_time_s: f64,
    pub gate: Arc<Gate>,
    /// Told to its WebSockets when the replica stops.
    pub leaving: Leaving,
    status: watch::Sender<Status>,
    changed: watch::Sender<u64>,
}

/// A replica and the actor that owns it.
#[derive(Clone)]
pub(crate) struct Hosted {
    pub cell: Arc<Cell>,
    pub actor: ActorRef<ReplicaMsg>,
    /// `graceful_shutdown_timeout_s` as it was last told.
    pub drain_timeout: Duration,
}

pub(crate) type Directory = Arc<BTreeMap<String, Hosted>>;

pub(crate) struct Board {
    directory: watch::Sender<Directory>,
    applied_version: AtomicU64,
    /// Counts every change that the head should hear of.
    changed: watch::Sender<u64>,
}

// === impl Board ===

impl Board {
    pub(crate) fn new() -> Arc<Board> {
        Arc::new(Board {
            directory: watch::Sender::new(Directory::default()),
            applied_version: AtomicU64::new(0),
            changed: watch::Sender::new(0),
        })
    }

    pub(crate) fn directory(&self) -> watch::Receiver<Directory> {
        self.directory.subscribe()
    }

    pub(crate) fn replicas(&self) -> Directory {
        self.directory.borrow().clone()
    }

    /// Fires on every change of the directory, of a status, or of the applied version.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The newest assignment that the directory reflects.
    pub(crate) fn applied_version(&self) -> u64 {
        self.applied_version.load(Ordering::Acquire)
    }

    pub(crate) fn set_applied_version(&self, version: u64) {
        self.applied_version.store(version, Ordering::Release);
        self.touch();
    }

    pub(crate) fn publish(&self, directory: Directory) {
        self.directory.send_replace(directory);
        self.touch();
    }

    pub(crate) fn cell(&self, replica: &AssignedReplica) -> Arc<Cell> {
        Arc::new(Cell {
            replica_id: replica.replica_id.clone(),
            application: replica.application.clone(),
            deployment: replica.deployment.clone(),
            code_version: replica.code_version.clone(),
            start_time_s: unix_time_s(),
            leaving: Leaving::default(),
            gate: Gate::new(replica.max_ongoing_requests.max(1)),
            status: watch::Sender::new(Status {
                phase: Phase::Starting,
                message: String::new(),
                config_version: String::new(),
            }),
            changed: self.changed.clone(),
        })
    }

    /// Returns when every replica satisfies `done`, also when there is none.
    pub(crate) async fn all(&self, done: impl Fn(&Hosted) -> bool) {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            if self.replicas().values().all(&done) {
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

// === impl Hosted ===

impl Hosted {
    /// The actor is dead and was to stop anyway: there is nothing to drain.
    pub(crate) fn ended(&self) {
        self.cell.happened(Event::Stop, "");
        self.cell.happened(Event::Drained, "");
    }
}

// === impl Cell ===

impl Cell {
    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.status.borrow().phase
    }

    /// Moves the replica on in its life; tells whether the event meant anything in its phase.
    /// The gate follows before anybody can hear of the new phase.
    pub(crate) fn happened(&self, event: Event, message: &str) -> bool {
        let moved = self.status.send_if_modified(|status| {
            let Some(phase) = lifecycle::next(status.phase, event) else {
                return false;
            };
            self.gate.set_mode(lifecycle::mode(phase));
            tracing::info!(
                replica = %self.replica_id, deployment = %self.deployment,
                from = ?status.phase, to = ?phase, reason = message, "replica changed"
            );
            status.phase = phase;
            message.clone_into(&mut status.message);
            true
        });
        if moved {
            self.changed.send_modify(|count| *count += 1);
        }
        moved
    }

    /// The code has taken this version of its `user_config`.
    pub(crate) fn config_in_force(&self, version: &str) {
        self.status
            .send_modify(|status| version.clone_into(&mut status.config_version));
        self.changed.send_modify(|count| *count += 1);
    }
}

/// Seconds since 1970 as the report has them; zero on a clock before that.
fn unix_time_s() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
