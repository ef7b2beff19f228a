//! A small model of Kubernetes and the head for tests: pods that get a node or not, workers that
//! join, replicas that come and go.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, Planned, Reason};
use super::generations::Generations;
use super::groups::{Group, Strategy, parse};
use super::ledger::Ledger;
use super::plan::plan;
use super::pods::{PodView, Pods, Stage, Wait};
use super::survey::{Standing, Survey};
use super::template::Template;
use crate::world::Resources;
use crate::world::resources::CPU;
use crate::world::supply::{Demand, PodWorker};

pub const FILE: &str = r#"
workerGroups:
  - name: small
    min: 1
    max: 4
    priority: 1
    idle_timeout_s: 20
    resources: {cpus: 2}
    template: {spec: {containers: [{name: worker, image: one}]}}
  - name: large
    max: 2
    idle_timeout_s: 20
    strategy: blueGreen
    bake_s: 30
    resources: {cpus: 8, gpus: 1}
    template: {spec: {containers: [{name: worker, image: one}]}}
"#;

pub fn groups() -> Vec<Group> {
    parse(FILE).unwrap()
}

pub fn cpus(amount: f64) -> Resources {
    Resources::from_units([(CPU, amount)])
}

pub fn texts(planned: &[Planned]) -> Vec<String> {
    planned.iter().map(ToString::to_string).collect()
}

/// Kubernetes and the head, as far as the provisioner sees them.
pub struct Model {
    pub groups: Vec<Group>,
    pub pods: Pods,
    pub demand: Demand,
    pub ledger: Ledger,
    pub now_ms: u64,
    pub serial: u32,
    /// What the file says.
    pub wanted: Vec<Group>,
    pub generations: Generations,
    /// What pods carry along, by generation.
    pub carried: BTreeMap<String, Template>,
}

impl Model {
    pub fn new() -> Model {
        let demand = Demand {
            synced: true,
            ..Demand::default()
        };
        Model {
            wanted: groups(),
            groups: groups(),
            generations: Generations::default(),
            carried: BTreeMap::new(),
            pods: Pods::new(),
            demand,
            ledger: Ledger::default(),
            now_ms: 1_000,
            serial: 0,
        }
    }

    /// One pass: look, decide, do. What was decided is returned.
    pub fn pass(&mut self) -> Vec<Planned> {
        self.ledger.forget(&self.pods, self.now_ms);
        for worker in self.demand.workers.values_mut() {
            worker.used = cpus(worker.replicas as f64);
        }
        self.learn();
        let survey = self.survey();
        self.ledger.follow(&survey, &self.pods, self.now_ms);
        self.judge();
        let survey = self.survey();
        let planned = plan(
            &self.groups,
            &self.pods,
            &self.demand,
            &self.ledger,
            &survey,
            self.now_ms,
        );
        self.check(&planned, &survey);
        for step in &planned {
            self.carry_out(&step.action);
        }
        planned
    }

    pub fn learn(&mut self) {
        self.generations.forget(&self.pods);
        while let Some((_, pod)) = self.generations.unknown(&self.wanted, &self.pods) {
            let carried = self.carried.get(&pod.generation).map(Template::carried);
            self.generations.learn(pod, carried.as_deref());
        }
    }

    pub fn judge(&mut self) {
        let ended = self.generations.judge(
            &self.wanted,
            &self.pods,
            &self.demand,
            &self.ledger,
            self.now_ms,
        );
        if !ended.is_empty() {
            self.groups = self.generations.in_force(&self.wanted);
        }
    }

    /// The head starts again with another file.
    pub fn restart_with(&mut self, wanted: Vec<Group>) {
        self.groups = wanted.clone();
        self.wanted = wanted;
        self.ledger = Ledger::default();
        self.generations = Generations::default();
        for worker in self.demand.workers.values_mut() {
            worker.draining = false;
        }
    }

    /// Another head leads, with this file. What it learns of the one before is what was kept.
    pub fn take_over_with(&mut self, wanted: Vec<Group>) {
        let kept = self.generations.verdicts();
        self.restart_with(wanted);
        self.generations.recall(&self.wanted, &kept);
        self.groups = self.generations.in_force(&self.wanted);
    }

    /// The pod waits for something that does not come.
    pub fn stick(&mut self, uid: &str, reason: &str) {
        let pod = self.pods.get_mut(uid).unwrap();
        if pod.stage == Stage::Pending {
            pod.waits = Some(Wait {
                text: reason.to_owned(),
                is_stuck: true,
            });
        }
    }

    /// The head's part in a drain: the replicas of a worker that leaves go to others with room.
    pub fn move_replicas(&mut self) {
        let workers = &mut self.demand.workers;
        loop {
            let mut all = workers.values_mut();
            let Some(from) = all.find(|worker| worker.draining && worker.replicas > 0) else {
                return;
            };
            let replicas = std::mem::take(&mut from.replicas);
            let mut all = workers.values_mut();
            let to = all.find(|worker| !worker.draining && worker.replicas == 0);
            match to {
                Some(to) => to.replicas = replicas,
                None => {
                    let mut all = workers.values_mut();
                    let back = all.find(|worker| worker.draining && worker.replicas == 0);
                    if let Some(back) = back {
                        back.replicas = replicas;
                    }
                    return;
                }
            }
        }
    }

    pub fn survey(&self) -> Survey {
        Survey::of(
            &self.groups,
            &self.pods,
            &self.demand,
            &self.ledger,
            self.now_ms,
        )
    }

    pub fn carry_out(&mut self, action: &Action) {
        match action {
            Action::Create { group } => {
                self.serial += 1;
                let uid = format!("u{:04}", self.serial);
                let name = format!("p{}", self.serial);
                self.ledger.creating(&name, group, self.now_ms);
                self.ledger.accepted(group);
                let template = self.group(group).template.clone();
                let generation = template.generation.clone();
                self.carried.insert(generation.clone(), template);
                let pod = PodView {
                    name,
                    group: group.clone(),
                    generation,
                    stage: Stage::Pending,
                    node: String::new(),
                    cordoned: false,
                    terminating: false,
                    restarts: 0,
                    waits: None,
                };
                self.pods.insert(uid, pod);
            }
            Action::Drain { uid, .. } => {
                self.ledger.drain(uid);
                if let Some(worker) = self.demand.workers.get_mut(uid) {
                    worker.draining = true;
                }
            }
            Action::Rest { uid, .. } => {
                self.ledger.rest(uid);
                if let Some(worker) = self.demand.workers.get_mut(uid) {
                    worker.draining = true;
                }
            }
            Action::Wake { uid, .. } => {
                self.ledger.wake(uid, self.now_ms);
                if let Some(worker) = self.demand.workers.get_mut(uid) {
                    worker.draining = false;
                }
            }
            Action::Delete { uid, .. } => {
                self.ledger.deleting(uid, self.now_ms);
                self.pods.remove(uid);
                self.demand.workers.remove(uid);
            }
        }
    }

    /// What must hold of every plan.
    pub fn check(&self, planned: &[Planned], survey: &Survey) {
        let mut created: BTreeMap<&str, u32> = BTreeMap::new();
        let mut taken = BTreeSet::new();
        let mut leaving = Vec::new();
        for step in planned {
            match &step.action {
                Action::Create { group } => *created.entry(group).or_default() += 1,
                Action::Drain { uid, .. } => {
                    assert!(self.pods.contains_key(uid), "an unknown pod: {step}");
                    assert!(taken.insert(uid.clone()), "twice: {step}");
                    let busy = matches!(
                        survey.standing(uid),
                        Standing::Joined { replicas } if replicas > 0
                    );
                    let rolls = matches!(step.reason, Reason::OldTemplate | Reason::Cordoned);
                    assert!(!busy || rolls, "a busy pod: {step}");
                    leaving.push(uid);
                }
                Action::Rest { uid, .. } => {
                    assert!(taken.insert(uid.clone()), "twice: {step}");
                    leaving.push(uid);
                }
                Action::Wake { uid, .. } => {
                    assert!(taken.insert(uid.clone()), "twice: {step}");
                }
                Action::Delete { uid, .. } => {
                    assert!(self.pods.contains_key(uid), "an unknown pod: {step}");
                    let worker = self.demand.workers.get(uid);
                    let ended = self.pods[uid].stage == Stage::Ended;
                    let empty = worker.is_none_or(|worker| worker.replicas == 0);
                    assert!(ended || empty, "a pod with replicas: {step}");
                    assert!(ended || self.ledger.is_draining(uid), "undrained: {step}");
                }
            }
        }
        for group in &self.groups {
            let more = created.get(group.name.as_str()).copied().unwrap_or(0);
            // Who is on the way out does not count, also when this plan sends it there.
            let is_counted = |uid: &String| {
                let standing = survey.standing(uid);
                self.pods[uid].group == group.name
                    && matches!(standing, Standing::Starting | Standing::Joined { .. })
            };
            let leave = leaving.iter().filter(|uid| is_counted(uid)).count() as u32;
            let count = survey.count(&group.name) + more - leave;
            let surge = match group.strategy {
                Strategy::Rolling => group.surge,
                Strategy::BlueGreen { .. } => group.max,
            };
            assert!(
                more == 0 || count <= group.max + surge,
                "{count} of {}",
                group.name
            );
            let rolls = self
                .pods
                .values()
                .any(|pod| pod.cordoned || pod.generation != group.template.generation);
            assert!(
                more == 0 || rolls || count <= group.max,
                "{count} of {}",
                group.name
            );
        }
    }

    pub fn group(&self, name: &str) -> &Group {
        self.groups.iter().find(|group| group.name == name).unwrap()
    }

    /// Every pending pod starts and joins.
    pub fn start_all(&mut self) {
        for uid in self.pods.keys().cloned().collect::<Vec<_>>() {
            self.start(&uid);
        }
    }

    pub fn start(&mut self, uid: &str) {
        let pod = self.pods.get_mut(uid).unwrap();
        if pod.stage == Stage::Pending && pod.waits.is_none() {
            pod.stage = Stage::Running;
            let worker = PodWorker {
                replicas: 0,
                used: Resources::default(),
                draining: false,
                connected: true,
                failures: 0,
            };
            self.demand.workers.insert(uid.to_owned(), worker);
        }
    }

    /// Every worker of a small pod is full.
    pub fn fill(&mut self) {
        for worker in self.demand.workers.values_mut() {
            worker.replicas = 2;
        }
    }

    pub fn after(&mut self, ms: u64) -> &mut Model {
        self.now_ms += ms;
        self
    }

    /// Passes until nothing more is planned.
    pub fn settle(&mut self) {
        for _ in 0..50 {
            let planned = self.pass();
            self.start_all();
            if planned.is_empty() {
                return;
            }
        }
        panic!("it does not settle: {:?}", self.pass());
    }

    pub fn count(&self, group: &str) -> usize {
        self.pods.values().filter(|pod| pod.group == group).count()
    }
}
