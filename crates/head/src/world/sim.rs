//! A cluster in a test: workers and routers that do what the protocol says, one step at a
//! time, around a real [`World`]. Named invariants are checked after every step of the head.

use std::collections::{BTreeMap, BTreeSet};

use mobula_proto::{POD_UID_LABEL, v1};

use super::autoscale::flow::Counts;
use super::canary::Stage;
use super::fixtures::at;
use super::health::is_out_of_reach;
use super::intent::Phase;
use super::observed::{Answers, ReplicaReport, ReportedState, Router, RouterLoad, Worker};
use super::resources::{CPU, GPU};
use super::rollout::{surge, wave};
use super::spec::{DeploySpec, Scope};
use super::{Event, Resources, World, apply_all};
use crate::documents::StoredIntent;

pub struct Sim {
    pub world: World,
    pub now_ms: u64,
    pub workers: BTreeMap<String, SimWorker>,
    pub routers: BTreeMap<String, v1::RouteTable>,
    /// What each router carries for deployment `D` of application `app`: queued and ongoing.
    pub loads: BTreeMap<String, (u32, u32)>,
    /// As `loads`, for deployment `E`.
    pub second_loads: BTreeMap<String, (u32, u32)>,
    /// By router, what it counted of it; absent: a release that does not count.
    pub counts: BTreeMap<String, Counts>,
    /// What each router counted: (application, deployment, version) -> answers.
    pub answers: BTreeMap<String, BTreeMap<(String, String, String), Answers>>,
    /// Failed rollouts are taken back, as the controller does it.
    pub rollback: bool,
    next_id: u64,
    /// Ids that a worker reported as failed or as leaving by itself: nobody waits for those.
    excused: BTreeSet<String>,
}

#[derive(Clone, Default)]
pub struct SimWorker {
    pub cpus: f64,
    pub gpus: f64,
    /// Custom resources.
    pub custom: BTreeMap<String, f64>,
    /// None: a machine of its own.
    pub node: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub pid: u32,
    pub connected: bool,
    pub draining: bool,
    pub retired: bool,
    pub assignment: v1::WorkerAssignment,
    pub replicas: BTreeMap<String, SimReplica>,
}

#[derive(Clone)]
pub struct SimReplica {
    pub assigned: v1::AssignedReplica,
    pub config_version: String,
    pub state: ReportedState,
    pub message: String,
    /// Requests in progress.
    pub ongoing: u32,
}

/// Replicas of this code never start.
pub const BAD_CODE: &str = "bad";

fn node_of(id: &str, worker: &SimWorker) -> String {
    let node = worker.node.clone();
    node.unwrap_or_else(|| format!("node-of-{id}"))
}

fn capacity(worker: &SimWorker) -> Resources {
    let custom = worker.custom.iter();
    let custom = custom.map(|(name, units)| (name.as_str(), *units));
    let named = [(CPU, worker.cpus), (GPU, worker.gpus)];
    Resources::from_units(named.into_iter().chain(custom))
}

/// Every worker of the simulation runs in a pod.
fn in_pod(labels: &BTreeMap<String, String>, id: &str) -> BTreeMap<String, String> {
    let pod = (POD_UID_LABEL.to_owned(), format!("pod-of-{id}"));
    labels.clone().into_iter().chain([pod]).collect()
}

impl Sim {
    pub fn new() -> Sim {
        Sim {
            world: World::new("head-node", 100),
            now_ms: 0,
            workers: BTreeMap::new(),
            routers: BTreeMap::new(),
            loads: BTreeMap::new(),
            second_loads: BTreeMap::new(),
            counts: BTreeMap::new(),
            answers: BTreeMap::new(),
            rollback: false,
            next_id: 0,
            excused: BTreeSet::new(),
        }
    }

    pub fn observe(&mut self, event: Event) {
        self.world.observe(event, at(self.now_ms));
        self.world.notes.clear();
    }

    pub fn add_worker(&mut self, cpus: f64) -> String {
        self.join(SimWorker {
            cpus,
            ..SimWorker::default()
        })
    }

    pub fn join(&mut self, worker: SimWorker) -> String {
        self.next_id += 1;
        let id = format!("worker{}", self.next_id);
        let worker = SimWorker {
            pid: self.next_id as u32,
            connected: true,
            ..worker
        };
        self.workers.insert(id.clone(), worker);
        self.report(&id);
        id
    }

    pub fn add_router(&mut self) -> String {
        self.next_id += 1;
        let id = format!("router{}", self.next_id);
        self.routers.insert(id.clone(), v1::RouteTable::default());
        self.ack(&id);
        id
    }

    /// The head's step: plan, apply, publish; twice, and the second plan is empty.
    pub fn head_step(&mut self) -> super::Plan {
        let now = at(self.now_ms);
        self.observe(Event::Tick);
        self.world.autoscale(now);
        self.world.compact(now);
        self.world.notes.clear();
        let mut next = self.next_id;
        let mut new_id = || {
            next += 1;
            format!("r{next:07}")
        };
        let plan = self.world.plan(now, &mut new_id);
        apply_all(&mut self.world, &plan, now);
        let again = self.world.plan(now, &mut new_id);
        assert!(again.is_empty(), "a plan after\n{plan}still wants\n{again}");
        self.next_id = next;
        let taken_back = self.take_back();
        let before = self.world.published.assignments().clone();
        self.world.publish(now);
        self.invariant_nothing_is_promised_twice();
        self.invariant_tables_name_only_ready_replicas();
        self.invariant_out_of_tables_before_dropped(&before);
        if !taken_back {
            // Otherwise another target holds, and the next plan brings it about.
            self.invariant_nothing_starts_more_than_a_wave_beyond_the_target(&plan);
        }
        plan
    }

    fn take_back(&mut self) -> bool {
        if !self.rollback {
            return false;
        }
        self.world.mark_good(at(self.now_ms));
        let failed_rollouts = self.world.failed_rollouts();
        let any = !failed_rollouts.is_empty();
        for failed in failed_rollouts {
            let serving = self.world.serving.clone().expect("something is deployed");
            let spec = DeploySpec {
                serving,
                applications: vec![failed.spec],
                revision: self.world.revision + 1,
                scope: Scope::Only(failed.application),
                goes_back: true,
            };
            self.observe(Event::Deploy(Box::new(spec)));
        }
        any
    }

    pub fn report(&mut self, id: &str) {
        let start_time_s = at(self.now_ms).unix_s;
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        if !worker.connected {
            return;
        }
        let replicas = worker
            .replicas
            .iter()
            .map(|(replica_id, replica)| {
                let report = ReplicaReport {
                    application: replica.assigned.application.clone(),
                    deployment: replica.assigned.deployment.clone(),
                    code_version: replica.assigned.code_version.clone(),
                    config_version: replica.config_version.clone(),
                    state: replica.state,
                    message: replica.message.clone(),
                    start_time_s,
                    ongoing_requests: replica.ongoing,
                };
                (replica_id.clone(), report)
            })
            .collect();
        let report = Worker {
            id: id.to_owned(),
            node_id: node_of(id, worker),
            node_ip: "127.0.0.1".to_owned(),
            pid: worker.pid,
            version: String::new(),
            data_addr: format!("unix:/{id}"),
            capacity: capacity(worker),
            assignment_version: worker.assignment.version,
            draining: worker.draining,
            draining_since_ms: None,
            failures: 0,
            heard_ms: 0,
            disconnected_since_ms: None,
            away: false,
            trusted_at_ms: None,
            labels: in_pod(&worker.labels, id),
            replicas,
        };
        // Stopped ones are reported once.
        worker
            .replicas
            .retain(|_, replica| replica.state != ReportedState::Stopped);
        self.observe(Event::WorkerReported(Box::new(report)));
    }

    /// The worker takes the newest assignment.
    pub fn assign(&mut self, id: &str) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let Some(assignment) = self.world.published.assignments().get(id) else {
            return;
        };
        if !worker.connected || assignment.version <= worker.assignment.version {
            return;
        }
        worker.assignment = assignment.clone();
        let named: BTreeMap<&str, &v1::AssignedReplica> = assignment
            .replicas
            .iter()
            .map(|r| (r.replica_id.as_str(), r))
            .collect();
        worker.replicas.retain(|id, replica| {
            named.contains_key(id.as_str()) || replica.state != ReportedState::Failed
        });
        for (replica_id, replica) in &mut worker.replicas {
            match named.get(replica_id.as_str()) {
                Some(assigned) => replica.assigned = (*assigned).clone(),
                None => replica.state = ReportedState::Draining,
            }
        }
        for (replica_id, assigned) in named {
            worker
                .replicas
                .entry(replica_id.to_owned())
                .or_insert_with(|| SimReplica {
                    assigned: assigned.clone(),
                    config_version: assigned.config_version.clone(),
                    state: ReportedState::Starting,
                    message: String::new(),
                    ongoing: 0,
                });
        }
        worker.retired = assignment.retire;
    }

    /// Every replica of the worker comes one step further.
    pub fn progress(&mut self, id: &str) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        for replica in worker.replicas.values_mut() {
            match replica.state {
                ReportedState::Starting if replica.assigned.code_version == BAD_CODE => {
                    replica.state = ReportedState::Failed;
                    replica.message = "no such model".to_owned();
                }
                ReportedState::Starting | ReportedState::Updating => {
                    replica.state = ReportedState::Running;
                    replica
                        .config_version
                        .clone_from(&replica.assigned.config_version);
                }
                ReportedState::Running => {
                    if replica.config_version != replica.assigned.config_version {
                        replica.state = ReportedState::Updating;
                    }
                }
                ReportedState::Draining => replica.state = ReportedState::Stopped,
                ReportedState::Stopped | ReportedState::Failed | ReportedState::Unhealthy => {}
            }
        }
    }

    /// The router takes the newest table.
    pub fn route(&mut self, id: &str) {
        let table = self.world.published.table().cloned();
        if let (Some(held), Some(table)) = (self.routers.get_mut(id), table) {
            *held = table;
        }
    }

    /// The router says which table it has.
    pub fn ack(&mut self, id: &str) {
        let Some(table) = self.routers.get(id) else {
            return;
        };
        let router = Router {
            id: id.to_owned(),
            node_id: "head-node".to_owned(),
            node_ip: "127.0.0.1".to_owned(),
            pid: 1,
            version: String::new(),
            http_addr: "127.0.0.1:8000".to_owned(),
            grpc_addr: String::new(),
            table_version: table.version,
            draining: false,
            error: String::new(),
            heard_ms: 0,
            behind_since_ms: None,
            loads: self.loads_of(id),
            answers: self.answers.get(id).cloned().unwrap_or_default(),
        };
        self.observe(Event::RouterReported(Box::new(router)));
    }

    fn loads_of(&self, id: &str) -> BTreeMap<(String, String), RouterLoad> {
        let load = |name: &str, (queued, ongoing): (u32, u32)| {
            let load = RouterLoad {
                queued,
                ongoing,
                counts: self.counts.get(id).copied(),
            };
            (("app".to_owned(), name.to_owned()), load)
        };
        let first = self.loads.get(id).map(|found| load("D", *found));
        let second = self.second_loads.get(id).map(|found| load("E", *found));
        first.into_iter().chain(second).collect()
    }

    /// The process of a worker or router ends.
    pub fn kill(&mut self, id: &str) {
        if self.routers.remove(id).is_some() {
            self.observe(Event::RouterDisconnected(id.to_owned()));
        }
        if let Some(worker) = self.workers.remove(id) {
            self.observe(Event::WorkerExited {
                node_id: node_of(id, &worker),
                pid: worker.pid,
                how: "signal 9".to_owned(),
            });
        }
    }

    /// Puts a replica of a worker into a state, by its place in the worker's list.
    pub fn afflict(&mut self, worker: &str, index: usize, state: ReportedState) {
        let Some(worker) = self.workers.get_mut(worker) else {
            return;
        };
        let mut ready = worker.replicas.iter_mut().filter(|(_, replica)| {
            matches!(
                replica.state,
                ReportedState::Running | ReportedState::Unhealthy
            )
        });
        if let Some((id, replica)) = ready.nth(index) {
            replica.state = state;
            replica.message = "afflicted".to_owned();
            if state == ReportedState::Failed {
                self.excused.insert(id.clone());
            }
        }
    }

    /// All workers come a step further and report, the head acts, the workers are told.
    pub fn round(&mut self) -> super::Plan {
        let workers: Vec<String> = self.workers.keys().cloned().collect();
        for id in &workers {
            self.progress(id);
            self.report(id);
            if self.workers.get(id).is_some_and(|worker| worker.retired) {
                self.kill(id);
            }
        }
        let plan = self.head_step();
        for id in &workers {
            self.assign(id);
        }
        plan
    }

    /// All routers take the newest table and say so.
    pub fn serve(&mut self) {
        let routers: Vec<String> = self.routers.keys().cloned().collect();
        for id in &routers {
            self.route(id);
            self.ack(id);
        }
    }

    /// Everybody reports, everything is delivered, time goes on, until nothing changes.
    pub fn settle(&mut self) {
        const ROUNDS_MAX: usize = 300;
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            self.now_ms += 100;
            self.serve();
            let version = self.world.published.table_version();
            let plan = self.round();
            self.serve();
            let changed = !plan.is_empty() || version != self.world.published.table_version();
            quiet = if changed { 0 } else { quiet + 1 };
            // Longer than the longest pause between two tries.
            if quiet > 60 {
                return;
            }
        }
        panic!(
            "no rest after {ROUNDS_MAX} rounds: {:#?}",
            self.world.applications
        );
    }

    /// What replicas hold on a worker is never more than it has.
    fn invariant_nothing_is_promised_twice(&self) {
        let mut held: BTreeMap<&str, Resources> = BTreeMap::new();
        for (_, deployment) in self.world.deployments() {
            for replica in deployment.replicas.values() {
                let own = held.entry(&replica.worker).or_default();
                own.add(replica.spec.hosted());
                for reservation in &replica.reserved {
                    let there = held.entry(&reservation.worker).or_default();
                    there.add(&reservation.resources);
                }
            }
        }
        for (id, worker) in &self.world.workers {
            let held = held.remove(id.as_str()).unwrap_or_default();
            let has_room = worker.capacity.has_room_for(&held, &worker.capacity);
            assert!(has_room, "{held} on {id}, which has {}", worker.capacity);
        }
    }

    /// Another head takes over: it knows what is stored, and everybody reports to it.
    pub fn change_heads(&mut self, spec: DeploySpec) {
        let stored = StoredIntent::of(&self.world).to_bytes();
        let intent = StoredIntent::from_bytes(&stored).unwrap();
        self.now_ms = 0;
        self.world = World::new("head-node", self.world.published.table_version() + 1000);
        self.observe(Event::Deploy(Box::new(spec)));
        let groups = intent.groups.into_iter();
        self.world.remembered = groups.map(|(id, group)| (id, group.remembered())).collect();
        self.world.awaited_workers = intent.workers;
    }

    fn invariant_tables_name_only_ready_replicas(&self) {
        let table = self.world.published.table().cloned().unwrap_or_default();
        for application in &table.applications {
            for replica in application.deployments.iter().flat_map(|d| &d.replicas) {
                let report = &self.world.workers[&replica.worker_id].replicas[&replica.replica_id];
                assert!(
                    matches!(
                        report.state,
                        ReportedState::Running | ReportedState::Updating | ReportedState::Unhealthy
                    ),
                    "{} is {:?}",
                    replica.replica_id,
                    report.state
                );
            }
        }
    }

    /// What leaves an assignment while its worker lives is in no connected router's table.
    fn invariant_out_of_tables_before_dropped(
        &self,
        before: &BTreeMap<String, v1::WorkerAssignment>,
    ) {
        for (worker, after) in self.world.published.assignments() {
            let kept: BTreeSet<&str> = after
                .replicas
                .iter()
                .map(|r| r.replica_id.as_str())
                .collect();
            let dropped = before
                .get(worker)
                .into_iter()
                .flat_map(|before| &before.replicas)
                .map(|replica| replica.replica_id.as_str())
                .filter(|id| !kept.contains(id) && !self.excused.contains(*id));
            for id in dropped {
                for (router, table) in &self.routers {
                    let routed = table
                        .applications
                        .iter()
                        .flat_map(|application| &application.deployments)
                        .flat_map(|deployment| &deployment.replicas)
                        .any(|replica| replica.replica_id == id);
                    assert!(!routed, "{id} was dropped while {router} may still use it");
                }
            }
        }
    }

    /// Beyond that there are only replicas whose worker is out of reach, or came back after its
    /// replicas were replaced.
    fn invariant_nothing_starts_more_than_a_wave_beyond_the_target(&self, plan: &super::Plan) {
        for (id, deployment) in self.world.deployments() {
            let starts = plan.actions.iter().any(|planned| match &planned.action {
                super::Action::Start { key, .. } => key.deployment == id,
                _ => false,
            });
            if !starts {
                continue;
            }
            let canary = deployment
                .canary
                .as_ref()
                .zip(deployment.spec.traffic.as_ref());
            let beside = canary.map_or(0, |(canary, traffic)| match canary.stage {
                Stage::Step { .. } => canary.replicas(traffic, deployment.target),
                // It had as many as its last step needs.
                Stage::Promoted | Stage::GivenUp(_) => deployment.target,
            });
            let live = deployment.replicas.values();
            let live = live.filter(|r| r.phase.is_live() && !is_out_of_reach(&self.world, r));
            let (live, target) = (live.count() as u32, deployment.target);
            assert!(
                live <= target + beside + surge(deployment).max(wave(deployment)),
                "{live} live replicas of {id} with target {target}"
            );
        }
    }

    /// Phases of all replicas of `app#D`, in order of creation.
    pub fn phases(&self) -> Vec<Phase> {
        let mut replicas: Vec<_> = self.world.applications["app"].deployments["D"]
            .replicas
            .values()
            .collect();
        replicas.sort_by_key(|replica| replica.serial);
        replicas.iter().map(|replica| replica.phase).collect()
    }
}
