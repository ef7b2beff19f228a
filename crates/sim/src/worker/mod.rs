//! A worker: the real assignment diff, lifecycle, gate and health around replicas that do nothing
//! but take time.

mod calls;
mod replica;

use std::collections::BTreeMap;
use std::sync::Arc;

use mobula_proto::{POD_UID_LABEL, v1};
use mobula_worker::simulation::{
    Backoff, Change, Gate, Health, Order, Permit, Phase, REPORT_INTERVAL, Told, UserConfig, diff,
    reported,
};

use crate::cluster::{Cluster, Event, HEADS, ms};
use crate::message::{Message, RequestId};
use crate::net::{ConnId, Node};
use crate::pods::FIXED;
use crate::sabotage::Sabotage;

/// CPUs of each.
pub const CPUS: f64 = 3.0;

/// A report of a change goes out this much later, with what else changed meanwhile.
const REPORT_MS: u64 = 1;

pub struct Worker {
    pub up: bool,
    pub life: u64,
    pub id: String,
    /// The uid of the pod that it is in, if it is in one.
    pod: Option<String>,
    session: Option<ConnId>,
    session_number: u64,
    next_head: usize,
    backoff: Backoff,
    newest: Order,
    applied_version: u64,
    pub draining: bool,
    retiring: bool,
    report_due: bool,
    pub replicas: BTreeMap<String, Replica>,
    calls: BTreeMap<(ConnId, u64), Call>,
}

pub struct Replica {
    told: Told,
    assigned: v1::AssignedReplica,
    pub phase: Phase,
    message: String,
    wanted: UserConfig,
    in_force: String,
    constructed: bool,
    configuring: bool,
    health: Health,
    sick_until: u64,
    pub gate: Arc<Gate>,
    started_at: u64,
}

impl Replica {
    pub fn is_of(&self, application: &str, code_version: &str) -> bool {
        self.assigned.application == application && self.assigned.code_version == code_version
    }
}

struct Call {
    request: RequestId,
    replica: String,
    /// The replica's code will say so.
    fails: bool,
    permit: Option<Permit>,
}

#[derive(Clone, Debug)]
pub enum Timer {
    Dial,
    Heartbeat,
    Report,
    Constructed(String),
    Configured(String, UserConfig),
    Health(String),
    Drained(String),
    /// Of this replica, due at this time.
    DrainTimeout(String, u64),
    Done(ConnId, u64),
}

impl Worker {
    pub fn down() -> Worker {
        Worker {
            up: false,
            life: 0,
            id: String::new(),
            pod: None,
            session: None,
            session_number: 0,
            next_head: 0,
            backoff: Backoff::default(),
            newest: Order::default(),
            applied_version: 0,
            draining: false,
            retiring: false,
            report_due: false,
            replicas: BTreeMap::new(),
            calls: BTreeMap::new(),
        }
    }

    pub fn ongoing(&self) -> u32 {
        self.replicas.values().map(|r| r.gate.ongoing()).sum()
    }

    /// Calls, and replicas that serve or are about to.
    pub fn work(&self) -> (usize, usize) {
        let replicas = self.replicas.values();
        let alive = replicas.filter(|r| !matches!(r.phase, Phase::Stopped | Phase::Failed));
        (self.calls.len(), alive.count())
    }

    fn report(&self, index: usize) -> v1::WorkerReport {
        let replicas = self.replicas.iter().map(|(id, replica)| v1::ReplicaReport {
            replica_id: id.clone(),
            application: replica.assigned.application.clone(),
            deployment: replica.assigned.deployment.clone(),
            code_version: replica.assigned.code_version.clone(),
            config_version: replica.in_force.clone(),
            state: reported(replica.phase).into(),
            message: replica.message.clone(),
            start_time_s: replica.started_at as f64 / 1000.0,
            ongoing_requests: replica.gate.ongoing(),
        });
        v1::WorkerReport {
            worker_id: self.id.clone(),
            node_id: format!("node-{index}"),
            node_ip: "127.0.0.1".to_owned(),
            pid: self.life as u32,
            data_addr: format!("{index}"),
            capacity: Some(v1::Resources {
                cpus: CPUS,
                ..v1::Resources::default()
            }),
            assignment_version: self.applied_version,
            draining: self.draining,
            labels: self
                .pod
                .iter()
                .map(|uid| (POD_UID_LABEL.to_owned(), uid.clone()))
                .collect(),
            replicas: replicas.collect(),
            ..v1::WorkerReport::default()
        }
    }
}

impl Cluster {
    fn worker_after(&mut self, w: usize, pause: u64, timer: Timer) {
        let life = self.workers[w].life;
        self.queue.after(pause, Event::Worker(w, life, timer));
    }

    pub fn worker_start(&mut self, w: usize) {
        if self.workers[w].up {
            return;
        }
        let pod = self.kubernetes.runs(w);
        if w >= FIXED && pod.is_none() {
            return;
        }
        let life = self.workers[w].life + 1;
        self.workers[w] = Worker {
            up: true,
            life,
            id: format!("worker{w}-{life}"),
            pod,
            ..Worker::down()
        };
        self.log(&format!("worker{w}-{life} starts"));
        self.worker_after(w, 1, Timer::Dial);
        self.worker_after(w, ms(REPORT_INTERVAL), Timer::Heartbeat);
    }

    /// The process ends; `died`: without a word.
    pub fn worker_end(&mut self, w: usize, died: bool) {
        if !std::mem::replace(&mut self.workers[w].up, false) {
            return;
        }
        self.log(&format!("{} ends, died: {died}", self.workers[w].id));
        if !died && !self.workers[w].calls.is_empty() {
            let text = format!("{} ended with calls", self.workers[w].id);
            self.check.violated("drain_loses_nothing", &text);
        }
        self.workers[w].calls.clear();
        self.workers[w].replicas.clear();
        self.close_all(Node::Worker(w), died);
        self.pod_worker_ended(w, died);
    }

    pub fn worker_timer(&mut self, w: usize, timer: Timer) {
        match timer {
            Timer::Dial => {
                let head = self.workers[w].next_head % HEADS;
                self.workers[w].next_head += 1;
                self.workers[w].session_number += 1;
                self.dial(Node::Worker(w), Node::Head(head), String::new());
            }
            Timer::Heartbeat => {
                if self.breaks(Sabotage::EndWithoutDraining) && self.rng.percent(5) {
                    return self.worker_ends(w);
                }
                self.worker_report_soon(w);
                self.worker_after(w, ms(REPORT_INTERVAL), Timer::Heartbeat);
            }
            Timer::Report => self.worker_report(w),
            Timer::Constructed(id) => self.constructed(w, &id),
            Timer::Configured(id, config) => self.configured(w, &id, &config),
            Timer::Health(id) => self.check_health(w, &id),
            Timer::Drained(id) => self.drained(w, &id),
            Timer::DrainTimeout(id, due) => self.drain_timeout(w, &id, due),
            Timer::Done(conn, call) => self.call_done(w, conn, call),
        }
    }

    // ---- the session ----

    /// A dial was answered: Some, or refused.
    pub fn worker_dialled(&mut self, w: usize, conn: Option<ConnId>) {
        match conn {
            Some(conn) => {
                self.workers[w].session = Some(conn);
                self.worker_report(w);
            }
            None => self.dial_next(w),
        }
    }

    /// The next head at once, and a pause after a round of all heads.
    fn dial_next(&mut self, w: usize) {
        let mut pause = 1;
        if self.workers[w].next_head.is_multiple_of(HEADS) {
            let random = self.rng.unit();
            pause = ms(self.workers[w].backoff.failed(random));
        }
        self.worker_after(w, pause, Timer::Dial);
    }

    /// A connection ended.
    pub fn worker_closed(&mut self, w: usize, conn: ConnId) {
        if self.workers[w].session == Some(conn) {
            self.workers[w].session = None;
            self.workers[w].backoff.succeeded();
            self.dial_next(w);
        }
        // A router that is gone: its calls are dropped.
        let gone: Vec<(ConnId, u64)> = self.workers[w]
            .calls
            .range((conn, 0)..=(conn, u64::MAX))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.call_over(w, key);
        }
    }

    fn worker_report_soon(&mut self, w: usize) {
        if !std::mem::replace(&mut self.workers[w].report_due, true) {
            self.worker_after(w, REPORT_MS, Timer::Report);
        }
    }

    fn worker_report(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        worker.report_due = false;
        let Some(conn) = worker.session else { return };
        let mut report = worker.report(w);
        // What ended is said once.
        worker
            .replicas
            .retain(|_, replica| replica.phase != Phase::Stopped);
        if self.breaks(Sabotage::RunBeforeReady) {
            for replica in &mut report.replicas {
                if replica.state() == v1::ReplicaState::Starting {
                    replica.set_state(v1::ReplicaState::Running);
                }
            }
        }
        self.net.send(
            &mut self.queue,
            conn,
            0,
            Message::WorkerReport(Box::new(report)),
            0,
        );
        self.worker_may_end(w);
    }

    pub fn worker_drain(&mut self, w: usize) {
        if self.workers[w].up {
            self.log(&format!("{} is told to end", self.workers[w].id));
            self.workers[w].draining = true;
            self.worker_report_soon(w);
        }
    }

    fn worker_may_end(&mut self, w: usize) {
        let worker = &self.workers[w];
        if worker.retiring && worker.replicas.is_empty() {
            self.worker_ends(w);
        }
    }

    /// Of its own will; another one takes its place.
    fn worker_ends(&mut self, w: usize) {
        self.worker_end(w, false);
        // A pod whose worker ended well is not started again.
        let pause = self.rng.range(500, 3000);
        self.queue.after(pause, Event::Start(Node::Worker(w)));
    }

    pub fn assigned(&mut self, w: usize, conn: ConnId, assignment: v1::WorkerAssignment) {
        let worker = &mut self.workers[w];
        let order = Order {
            session: worker.session_number,
            version: assignment.version,
        };
        if worker.session != Some(conn) || order <= worker.newest || worker.retiring {
            return;
        }
        worker.newest = order;
        worker.retiring = assignment.retire;
        let wanted = if assignment.retire {
            &[]
        } else {
            assignment.replicas.as_slice()
        };
        let ignores = w == 0 && self.breaks(Sabotage::IgnoreAssignment);
        if !ignores || self.workers[w].replicas.is_empty() {
            self.make_real(w, wanted);
        }
        self.workers[w].applied_version = assignment.version;
        self.worker_report_soon(w);
    }

    fn make_real(&mut self, w: usize, wanted: &[v1::AssignedReplica]) {
        let have = self.workers[w].replicas.iter();
        let have = have.map(|(id, replica)| (id.clone(), replica.told.clone()));
        for change in diff(&have.collect(), wanted) {
            match change {
                Change::Start(assigned) => self.replica_start(w, *assigned),
                Change::Reconfigure(id, config) => {
                    if let Some(replica) = self.workers[w].replicas.get_mut(&id) {
                        replica.told.config_version.clone_from(&config.version);
                        replica.wanted = config;
                        if replica.constructed && !replica.configuring {
                            self.settle(w, &id);
                        }
                    }
                }
                Change::UpdateLimits(id, limits) => {
                    if let Some(replica) = self.workers[w].replicas.get_mut(&id) {
                        replica.gate.set_limit(limits.max_ongoing_requests);
                        replica.told.limits = limits;
                    }
                }
                Change::Stop(id) => self.replica_stop(w, &id),
            }
        }
    }
}
