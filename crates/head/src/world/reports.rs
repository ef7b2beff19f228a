//! What reports of workers and routers, and their silence, mean.

use super::deployment_status::StatusEvent;
use super::health::HEALTH_MESSAGE;
use super::intent::{DeadReplica, Deployment, Phase, Replica};
use super::notes::Note;
use super::observe::{WORKER_AWAY_MS, WORKER_LOST_MS, WORKER_TRUSTED_MS};
use super::observed::{ReplicaReport, ReportedState, Router, Worker};
use super::probation::Failures;
use super::replica::{Seen, Step, next};
use super::starts::threshold;
use super::{DeploymentId, Now, ReplicaId, WorkerId, World};

// === impl World ===

impl World {
    pub(super) fn worker_reported(&mut self, mut worker: Worker, now: Now) {
        self.awaited_workers.remove(&worker.id);
        let before = self.workers.get(&worker.id);
        worker.draining |= self.supply.takes_away(&worker);
        worker.draining_since_ms = worker.draining.then(|| {
            before
                .and_then(|before| before.draining_since_ms)
                .unwrap_or(now.ms)
        });
        worker.heard_ms = now.ms;
        worker.failures = before.map_or(0, |before| before.failures);
        worker.trusted_at_ms = match before {
            Some(before) if before.away => Some(now.ms + WORKER_TRUSTED_MS),
            Some(before) => before.trusted_at_ms,
            None => None,
        };
        let steps = self.steps_of(&worker);
        let id = worker.id.clone();
        self.adopt(&worker);
        self.workers.insert(id.clone(), worker);
        for (deployment, replica, step) in steps {
            self.step(&deployment, &replica, step, now);
        }
    }

    /// What the report means for each replica that should be on this worker.
    fn steps_of(&self, worker: &Worker) -> Vec<(DeploymentId, ReplicaId, Step)> {
        let mut steps = Vec::new();
        for (id, deployment) in self.deployments() {
            let here = deployment
                .replicas
                .iter()
                .filter(|(_, r)| r.worker == worker.id);
            for (replica_id, replica) in here {
                let seen = match (worker.replicas.get(replica_id), replica.assigned_version) {
                    (Some(report), _) => Seen::As(report.state),
                    (None, Some(version)) if worker.assignment_version >= version => Seen::Missing,
                    (None, Some(_) | None) => Seen::NotYet,
                };
                let step = next(replica.phase, seen);
                if step != Step::Stay {
                    steps.push((id.clone(), replica_id.clone(), step));
                }
            }
        }
        steps
    }

    /// Takes over replicas that an earlier head started, so that nothing healthy restarts.
    fn adopt(&mut self, worker: &Worker) {
        for (replica_id, report) in &worker.replicas {
            let phase = match report.state {
                ReportedState::Starting => Phase::Starting,
                ReportedState::Running | ReportedState::Updating => Phase::Running,
                ReportedState::Unhealthy => Phase::Unhealthy,
                ReportedState::Draining | ReportedState::Stopped | ReportedState::Failed => {
                    continue;
                }
            };
            let id = DeploymentId {
                application: report.application.clone(),
                deployment: report.deployment.clone(),
            };
            let serial = self.next_serial;
            let known = self.remembered.remove(replica_id);
            let is_told_to_stop = self.is_told_to_stop(&worker.id, replica_id);
            let Some(deployment) = self.deployment_mut(&id) else {
                continue;
            };
            let is_known = deployment.deleting || deployment.replicas.contains_key(replica_id);
            if is_known || is_told_to_stop {
                continue;
            }
            let mut replica = adopted(deployment, worker, report, phase, serial);
            if let Some(known) = known {
                replica.reserved = known.reserved;
                replica.gang = known.gang;
            }
            if phase.is_answering() && deployment.is_current(&replica) {
                deployment.starts.succeeded();
            }
            deployment.replicas.insert(replica_id.clone(), replica);
            self.next_serial += 1;
        }
    }

    /// Whether the worker was sent an assignment without the replica: what it reports as running
    /// then was running before it heard that.
    fn is_told_to_stop(&self, worker: &WorkerId, replica_id: &ReplicaId) -> bool {
        let told = self.published.assignments().get(worker);
        told.is_some_and(|told| {
            let mut replicas = told.replicas.iter();
            replicas.all(|replica| replica.replica_id != *replica_id)
        })
    }

    fn step(&mut self, id: &DeploymentId, replica_id: &ReplicaId, step: Step, now: Now) {
        let report = self.report_of(id, replica_id);
        let message = report
            .as_ref()
            .map_or("", |report| &report.message)
            .to_owned();
        self.note(id, replica_id, step, &message, now);
        self.count_for_worker(id, replica_id, step);
        let Some(deployment) = self.deployment_mut(id) else {
            return;
        };
        let Some(replica) = deployment.replicas.get_mut(replica_id) else {
            return;
        };
        if let Some(report) = &report {
            replica.start_time_s = report.start_time_s;
        }
        if step == Step::Started {
            let took_s = (now.unix_s - replica.start_time_s).max(0.0);
            deployment.autoscaler.start_ms = (took_s * 1000.0) as u64;
        }
        match step {
            Step::Stay => {}
            Step::Started => {
                replica.phase = Phase::Running;
                let version = &replica.spec.code_version;
                if *version == deployment.starts.code_version {
                    deployment.starts.succeeded();
                } else if let Some(canary) = &mut deployment.canary
                    && *version == canary.stable.code_version
                {
                    canary.stable_starts.succeeded();
                }
            }
            Step::Recovered => replica.phase = Phase::Running,
            Step::BecameUnhealthy => {
                replica.phase = Phase::Unhealthy;
                deployment.count_failure(replica_id, |failures| failures.not_well(&message));
                deployment.health_failed(&message);
            }
            Step::FailedToStart => {
                replica.phase = Phase::Stopping;
                deployment.count_failure(replica_id, |failures| failures.ended(&message));
                deployment.start_failed(replica_id, &message, now);
            }
            Step::VanishedStarting => {
                let text = "the worker dropped it while it was starting";
                deployment.start_failed(replica_id, text, now);
                self.bury(id, replica_id);
            }
            Step::Died => {
                replica.phase = Phase::Stopping;
                deployment.count_failure(replica_id, |failures| failures.ended(&message));
                deployment.health_failed(&message);
            }
            Step::Vanished => {
                let text = "the worker dropped it";
                deployment.count_failure(replica_id, |failures| failures.ended(text));
                deployment.health_failed(text);
                self.bury(id, replica_id);
            }
            Step::LeavesByItself => {
                replica.phase = Phase::Withdrawing {
                    table_version: None,
                }
            }
            Step::DiedLeaving => replica.phase = Phase::Stopping,
            Step::Gone => self.bury(id, replica_id),
        }
    }

    /// A worker where replicas fail of a version that answers elsewhere may itself be what is wrong.
    fn count_for_worker(&mut self, id: &DeploymentId, replica_id: &ReplicaId, step: Step) {
        let failed = match step {
            Step::Started | Step::Recovered => false,
            Step::FailedToStart | Step::Died | Step::BecameUnhealthy => true,
            Step::Stay
            | Step::VanishedStarting
            | Step::Vanished
            | Step::LeavesByItself
            | Step::DiedLeaving
            | Step::Gone => return,
        };
        let Some(deployment) = self.deployment_mut(id) else {
            return;
        };
        let Some(replica) = deployment.replicas.get(replica_id) else {
            return;
        };
        let answers_elsewhere = deployment.replicas.values().any(|other| {
            other.worker != replica.worker
                && other.spec.code_version == replica.spec.code_version
                && other.phase.is_answering()
        });
        let worker = replica.worker.clone();
        let Some(worker) = self.workers.get_mut(&worker) else {
            return;
        };
        if !failed {
            worker.failures = 0;
        } else if answers_elsewhere {
            worker.failures = worker.failures.saturating_add(1);
        }
    }

    fn note(&mut self, id: &DeploymentId, replica_id: &str, step: Step, text: &str, now: Now) {
        let started_at_s = self
            .applications
            .get(&id.application)
            .and_then(|application| application.deployments.get(&id.deployment))
            .and_then(|deployment| deployment.replicas.get(replica_id))
            .map_or(now.unix_s, |replica| replica.start_time_s);
        let deployment = id.clone();
        let replica = replica_id.to_owned();
        let error = text.to_owned();
        let note = match step {
            Step::Started => {
                let took_ms = ((now.unix_s - started_at_s).max(0.0) * 1000.0) as u64;
                Note::Started {
                    deployment,
                    replica,
                    took_ms,
                }
            }
            Step::FailedToStart | Step::VanishedStarting => Note::StartFailed {
                deployment,
                replica,
                error,
            },
            Step::BecameUnhealthy | Step::Died | Step::Vanished => Note::HealthFailed {
                deployment,
                replica,
                error,
            },
            Step::Stay
            | Step::Recovered
            | Step::LeavesByItself
            | Step::DiedLeaving
            | Step::Gone => return,
        };
        self.notes.push(note);
    }

    pub(super) fn router_reported(&mut self, mut router: Router, now: Now) {
        let before = self.routers.get(&router.id);
        let is_behind = router.table_version < self.published.table_version();
        router.behind_since_ms = is_behind.then(|| {
            before
                .and_then(|before| before.behind_since_ms)
                .unwrap_or(now.ms)
        });
        router.heard_ms = now.ms;
        self.count_answers(&router);
        let id = router.id.clone();
        let before = self.routers.insert(id.clone(), router);
        self.loads_reported(before.as_ref(), &id, now);
    }

    pub(super) fn miss_silent_workers(&mut self, now: Now) {
        for worker in self.workers.values_mut() {
            let silent_ms = now.ms.saturating_sub(worker.heard_ms);
            worker.away = worker.disconnected_since_ms.is_some() && silent_ms >= WORKER_AWAY_MS;
        }
    }

    pub(super) fn lose_silent_workers(&mut self, now: Now) {
        let silent: Vec<WorkerId> = self
            .workers
            .values()
            .filter(|worker| {
                worker
                    .disconnected_since_ms
                    .is_some_and(|since| now.ms.saturating_sub(since) >= WORKER_LOST_MS)
            })
            .map(|worker| worker.id.clone())
            .collect();
        for id in silent {
            self.worker_lost(&id, "its worker was not heard of any more", now);
        }
    }

    pub(super) fn worker_lost(&mut self, worker: &WorkerId, how: &str, now: Now) {
        let ids: Vec<DeploymentId> = self.deployments().map(|(id, _)| id).collect();
        for id in ids {
            let Some(deployment) = self.deployment_mut(&id) else {
                continue;
            };
            let here: Vec<(ReplicaId, Phase)> = deployment
                .replicas
                .iter()
                .filter(|(_, replica)| replica.worker == *worker)
                .map(|(replica_id, replica)| (replica_id.clone(), replica.phase))
                .collect();
            // One loss is one failed start, however many replicas were starting there.
            if let Some((replica, _)) = here.iter().find(|(_, phase)| *phase == Phase::Starting) {
                deployment.start_failed(&replica.clone(), &format!("{how} while it started"), now);
            }
            if here.iter().any(|(_, phase)| phase.is_answering()) {
                deployment.health_failed(how);
            }
            if let Some(replica) = deployment.answering_with_bundle_on(worker) {
                let why = format!("{how}; it held a bundle of replica {replica}");
                deployment.health_failed(&why);
            }
            for (replica, _) in here {
                self.bury(&id, &replica);
            }
        }
        let replicas = self
            .workers
            .remove(worker)
            .map_or(0, |worker| worker.replicas.len());
        let how = how.to_owned();
        self.notes.push(Note::WorkerLost {
            worker: worker.clone(),
            how,
            replicas,
        });
        self.published.forget_worker(worker);
    }

    /// Removes a replica that is gone and keeps it for the status document.
    fn bury(&mut self, id: &DeploymentId, replica_id: &ReplicaId) {
        let Some(deployment) = self.deployment_mut(id) else {
            return;
        };
        let Some(replica) = deployment.replicas.remove(replica_id) else {
            return;
        };
        let worker = self.workers.get(&replica.worker);
        let dead = DeadReplica {
            id: replica_id.clone(),
            node_id: worker
                .map(|worker| worker.node_id.clone())
                .unwrap_or_default(),
            node_ip: worker
                .map(|worker| worker.node_ip.clone())
                .unwrap_or_default(),
            pid: worker.map(|worker| worker.pid).unwrap_or_default(),
            worker: replica.worker,
            start_time_s: replica.start_time_s,
        };
        if let Some(deployment) = self.deployment_mut(id) {
            deployment.remember_dead(dead);
        }
    }

    fn report_of(&self, id: &DeploymentId, replica_id: &str) -> Option<ReplicaReport> {
        let replica = self
            .applications
            .get(&id.application)?
            .deployments
            .get(&id.deployment)?
            .replicas
            .get(replica_id)?;
        self.workers
            .get(&replica.worker)?
            .replicas
            .get(replica_id)
            .cloned()
    }
}

fn adopted(
    deployment: &Deployment,
    worker: &Worker,
    report: &ReplicaReport,
    phase: Phase,
    serial: u64,
) -> Replica {
    // Of what an older version was made is not known any more, but for one that a canary shall
    // replace; it is only kept until it is replaced, and its worker does not look at anything
    // but the versions.
    let goal = deployment.known_spec(&report.code_version);
    let mut spec = (**goal).clone();
    spec.code_version = report.code_version.clone();
    spec.config_version = report.config_version.clone();
    let spec = if spec == **goal {
        goal.clone()
    } else {
        spec.into()
    };
    Replica {
        worker: worker.id.clone(),
        reserved: Vec::new(),
        gang: None,
        spec,
        phase,
        assigned_version: Some(0),
        start_time_s: report.start_time_s,
        serial,
    }
}

// === impl Deployment ===

impl Deployment {
    /// A replica elsewhere that has a bundle on the worker.
    fn answering_with_bundle_on(&self, worker: &WorkerId) -> Option<ReplicaId> {
        let mut replicas = self.replicas.iter();
        let found = replicas.find(|(_, replica)| {
            replica.phase.is_answering()
                && replica.worker != *worker
                && replica.workers().any(|needed| needed == worker)
        });
        found.map(|(id, _)| id.clone())
    }

    /// What replicas of the newest version do is counted. That a worker is lost is not their
    /// doing.
    fn count_failure(&mut self, replica_id: &ReplicaId, count: impl FnOnce(&mut Failures)) {
        let replica = self.replicas.get(replica_id);
        if replica.is_some_and(|replica| self.is_current(replica)) {
            count(&mut self.failures);
        }
    }

    fn health_failed(&mut self, detail: &str) {
        let message = if detail.is_empty() {
            HEALTH_MESSAGE.to_owned()
        } else {
            format!("{HEALTH_MESSAGE} Reason: {detail}")
        };
        self.status.on(StatusEvent::HealthCheckFailed, message);
    }

    fn start_failed(&mut self, replica_id: &ReplicaId, error: &str, now: Now) {
        let is_current = self
            .replicas
            .get(replica_id)
            .is_some_and(|replica| self.is_current(replica));
        if !is_current && let Some(canary) = &mut self.canary {
            // What serves meanwhile is started again for ever, with pauses.
            canary.stable_starts.failed(error, self.target, false, now);
        }
        if !is_current || self.deleting {
            return;
        }
        let rolling = self
            .replicas
            .values()
            .any(|replica| !self.is_current(replica) && replica.phase.is_answering());
        self.starts.failed(error, self.target, rolling, now);
        let message = self.starts.message(self.target);
        if self.starts.gave_up && rolling {
            self.status.on(StatusEvent::RolloutGaveUp, message);
        } else if self.starts.gave_up || self.starts.failures_in_a_row >= threshold(self.target) {
            self.status.on(StatusEvent::StartFailed, message);
        } else {
            self.status.message = message;
        }
    }
}
