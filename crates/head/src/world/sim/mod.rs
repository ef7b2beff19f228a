//! A cluster in a test: workers and routers that do what the protocol says, one step at a
//! time, around a real [`World`]. Named invariants are checked after every step of the head.

mod invariants;
mod router;
mod worker;

use std::collections::{BTreeMap, BTreeSet};

use mobula_proto::v1;

use super::autoscale::flow::Counts;
use super::fixtures::at;
use super::intent::Phase;
use super::observed::Answers;
use super::plan::Action;
use super::spec::{DeploySpec, Scope};
use super::{Event, World, apply_all};
use crate::documents::StoredIntent;
use worker::node_of;
pub use worker::{BAD_CODE, SimWorker};

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

    /// The head's step: plan, apply, publish. A plan does at once all that is to be done. What is
    /// said of it may be left to a second one: how much room the first one has left for those that
    /// wait, that a config which was taken back is in force already. A third plan is empty.
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
        let mut left = again.actions.iter();
        assert!(
            left.all(|planned| {
                matches!(planned.action, Action::Say { .. } | Action::Settle { .. })
            }),
            "a plan after\n{plan}still wants\n{again}"
        );
        apply_all(&mut self.world, &again, now);
        let third = self.world.plan(now, &mut new_id);
        assert!(third.is_empty(), "plans after\n{again}still want\n{third}");
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
