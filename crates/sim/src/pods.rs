//! Kubernetes, as far as the head sees it: pods that are made, find a place or none, run a worker
//! and go. What is made and taken is the real plan; its loop is as that of the real keeper.

use std::collections::{BTreeMap, BTreeSet};

use mobula_head::provision::kubernetes::action::Action;
use mobula_head::provision::kubernetes::groups::{Group, parse};
use mobula_head::provision::kubernetes::ledger::Ledger;
use mobula_head::provision::kubernetes::plan::plan;
use mobula_head::provision::kubernetes::pods::{PodView, Pods, Stage};
use mobula_head::provision::kubernetes::survey::Survey;
use mobula_head::world::intent::Replica;
use mobula_head::world::supply::{Demand, Supply};
use mobula_head::world::{Event as Seen, World};

use crate::cluster::{Cluster, Event, WORKERS};
use crate::net::Node;
use crate::sabotage::Sabotage;

/// Workers that somebody else keeps; those behind them are places for pods.
pub const FIXED: usize = 2;

/// What a pod gets to end.
const GRACE_MS: u64 = 60_000;

/// As the real keeper: how long replicas of a pod that is taken wait for replacements.
const OWN_REPLACE_MS_MAX: u64 = 600_000;

const GROUPS: &str = r"
workerGroups:
  - name: simulated
    max: 6
    idle_timeout_s: 5
    resources: {cpus: 3}
    template: {spec: {containers: [{name: worker, image: simulated}]}}
";

/// What the API server holds.
#[derive(Default)]
pub struct Kubernetes {
    pods: BTreeMap<String, Pod>,
    made: u64,
}

struct Pod {
    name: String,
    generation: String,
    stage: Stage,
    /// The worker's; None: there was none.
    place: Option<usize>,
    terminating: bool,
}

/// What the keeper of a head that leads remembers.
#[derive(Default)]
pub struct Keeper {
    groups: Vec<Group>,
    ledger: Ledger,
    seen: Option<Pods>,
    alive: BTreeSet<String>,
    supply: Supply,
}

impl Keeper {
    pub fn new() -> Keeper {
        Keeper {
            groups: parse(GROUPS).unwrap_or_default(),
            ..Keeper::default()
        }
    }

    /// One look, as the real one: what to do, and what the head is told.
    fn pass(&mut self, demand: &Demand, now_ms: u64) -> (Vec<Action>, Vec<Seen>) {
        let Some(pods) = self.seen.clone() else {
            return (Vec::new(), Vec::new());
        };
        if self.ledger.stood_still(now_ms) {
            return (Vec::new(), Vec::new());
        }
        let living = pods.iter().filter(|(_, pod)| pod.stage != Stage::Ended);
        let alive: BTreeSet<String> = living.map(|(uid, _)| uid.clone()).collect();
        let gone = self.alive.difference(&alive).cloned();
        let mut notices: Vec<Seen> = gone.map(Seen::PodGone).collect();
        self.alive = alive;
        self.ledger.forget(&pods, now_ms);
        let first = Survey::of(&self.groups, &pods, demand, &self.ledger, now_ms);
        self.ledger.follow(&first, &pods, now_ms);
        let survey = Survey::of(&self.groups, &pods, demand, &self.ledger, now_ms);
        let planned = plan(&self.groups, &pods, demand, &self.ledger, &survey, now_ms);
        let actions: Vec<Action> = planned.into_iter().map(|planned| planned.action).collect();
        for action in &actions {
            match action {
                Action::Create { .. } => {}
                Action::Drain { uid, .. } => self.ledger.drain(uid),
                Action::Rest { uid, .. } => self.ledger.rest(uid),
                Action::Wake { uid, .. } => self.ledger.wake(uid, now_ms),
                Action::Delete { uid, .. } => self.ledger.deleting(uid, now_ms),
            }
        }
        let leaving = pods.iter().filter_map(|(uid, pod)| {
            if pod.terminating {
                Some((uid.clone(), GRACE_MS / 2))
            } else {
                let ours = self.ledger.is_draining(uid) || self.ledger.is_resting(uid);
                ours.then(|| (uid.clone(), OWN_REPLACE_MS_MAX))
            }
        });
        let refusals = self.ledger.refusals().values();
        let trouble: Vec<&str> = refusals.map(|refusal| refusal.reason.as_str()).collect();
        let releasable = pods.iter().filter(|(_, pod)| {
            let mut groups = self.groups.iter();
            groups.any(|group| group.name == pod.group && survey.count(&group.name) > group.min)
        });
        let supply = Supply {
            on_demand: true,
            leaving: leaving.collect(),
            resting: self.ledger.resting().clone(),
            releasable: releasable.map(|(uid, _)| uid.clone()).collect(),
            trouble: trouble.join("; "),
        };
        if supply != self.supply {
            self.supply.clone_from(&supply);
            notices.push(Seen::Supplied(supply));
        }
        (actions, notices)
    }
}

impl Kubernetes {
    fn view(&self) -> Pods {
        let pods = self.pods.iter().map(|(uid, pod)| {
            let view = PodView {
                name: pod.name.clone(),
                group: "simulated".to_owned(),
                generation: pod.generation.clone(),
                stage: pod.stage,
                node: pod.place.map(|w| format!("node-{w}")).unwrap_or_default(),
                cordoned: false,
                terminating: pod.terminating,
                restarts: 0,
                waits: None,
            };
            (uid.clone(), view)
        });
        pods.collect()
    }

    fn at(&mut self, w: usize) -> Option<(&String, &mut Pod)> {
        let mut pods = self.pods.iter_mut();
        pods.find(|(_, pod)| pod.place == Some(w))
    }

    /// The pod in which a worker may start.
    pub fn runs(&mut self, w: usize) -> Option<String> {
        let (uid, pod) = self.at(w)?;
        (pod.stage == Stage::Running && !pod.terminating).then(|| uid.clone())
    }

    /// What keeps it from rest: pods on their way in or out.
    pub fn unrest(&self) -> Option<String> {
        let mut pods = self.pods.values();
        let found = pods.find(|pod| pod.stage != Stage::Running || pod.terminating)?;
        Some(format!("pod {} is {:?}", found.name, found.stage))
    }

    /// What is said of the pods when one of them shall go, another one each turn.
    pub fn supply_without_one(&self, turn: u64) -> Option<Supply> {
        let count = self.pods.len() as u64;
        let uid = self.pods.keys().nth(turn.checked_rem(count)? as usize)?;
        Some(Supply {
            on_demand: true,
            leaving: BTreeMap::from([(uid.clone(), OWN_REPLACE_MS_MAX)]),
            ..Supply::default()
        })
    }

    /// Pods that serve, by the place of their worker.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        self.pods.values().filter_map(|pod| pod.place)
    }
}

impl Cluster {
    /// The keeper of a head that leads looks at what is needed, and does something about it.
    pub fn provision(&mut self, h: usize, demand: &Demand) {
        let now = self.queue.now();
        // A watch is late now and then.
        let is_late = self.rng.percent(20);
        let Some(lead) = self.heads[h].lead.as_mut() else {
            return;
        };
        if !is_late {
            lead.keeper.seen = Some(self.kubernetes.view());
        }
        let (actions, notices) = lead.keeper.pass(demand, now);
        let seen_at = lead.now(now);
        for notice in notices {
            lead.control.observe(notice, seen_at);
        }
        self.take_another_pod(h);
        if self.breaks(Sabotage::TakeAnyPod) && self.rng.percent(1) {
            self.take_any_pod();
        }
        for action in actions {
            match action {
                Action::Create { group } => self.create_pod(h, &group),
                Action::Drain { name, .. } => self.log(&format!("head{h} drains pod {name}")),
                // Only while a template is rolled out, and there is one.
                Action::Rest { name, .. } | Action::Wake { name, .. } => {
                    self.log(&format!("head{h} lets pod {name} rest, or wakes it"));
                }
                Action::Delete { uid, name } => {
                    self.log(&format!("head{h} deletes pod {name}"));
                    self.take_pod(&uid);
                }
            }
        }
    }

    /// What a provisioner does that does not look.
    fn take_any_pod(&mut self) {
        let uid = self.kubernetes.pods.keys().next().cloned();
        if let Some(uid) = uid {
            self.take_pod(&uid);
        }
    }

    fn create_pod(&mut self, h: usize, group: &str) {
        let now = self.queue.now();
        self.kubernetes.made += 1;
        let number = self.kubernetes.made;
        let name = format!("pod-{number}");
        let outcome = self.rng.range(0, 20);
        let wrong = now < self.faults_end_at && outcome < 3;
        let Some(lead) = self.heads[h].lead.as_mut() else {
            return;
        };
        let ledger = &mut lead.keeper.ledger;
        ledger.creating(&name, group, now);
        let generation = lead.keeper.groups.first();
        let generation = generation.map(|group| &group.template.generation);
        let generation = generation.cloned().unwrap_or_default();
        if self.sabotage == Some(Sabotage::MakeNoPods) || (wrong && outcome > 0) {
            ledger.refused(&name, group, "no quota".to_owned(), now);
            return self.log(&format!("head{h} may not create {name}"));
        }
        if wrong {
            ledger.unanswered(group, "nobody answers".to_owned(), now);
        } else {
            ledger.accepted(group);
        }
        let pod = Pod {
            name: name.clone(),
            generation,
            stage: Stage::Unschedulable,
            place: None,
            terminating: false,
        };
        self.log(&format!("head{h} creates {name}"));
        self.kubernetes.pods.insert(format!("uid-{number}"), pod);
        self.schedule_pods();
    }

    /// Pods without a place get one, as far as there are any.
    fn schedule_pods(&mut self) {
        let taken: BTreeSet<usize> = self.kubernetes.places().collect();
        let mut free = (FIXED..WORKERS).filter(|w| !taken.contains(w));
        let mut placed = Vec::new();
        for (uid, pod) in &mut self.kubernetes.pods {
            if pod.place.is_none()
                && let Some(w) = free.next()
            {
                pod.place = Some(w);
                pod.stage = Stage::Pending;
                placed.push(uid.clone());
            }
        }
        for uid in placed {
            let pause = self.rng.range(500, 4000);
            self.queue.after(pause, Event::PodRuns(uid));
        }
    }

    pub fn pod_runs(&mut self, uid: &str) {
        let Some(pod) = self.kubernetes.pods.get_mut(uid) else {
            return;
        };
        if let Some(w) = pod.place.filter(|_| !pod.terminating) {
            pod.stage = Stage::Running;
            self.worker_start(w);
        }
    }

    /// The head has a pod deleted: nothing may be lost by that.
    fn take_pod(&mut self, uid: &str) {
        let pod = self.kubernetes.pods.get(uid);
        let Some(pod) = pod.filter(|pod| !pod.terminating) else {
            return;
        };
        if let Some(w) = pod.place {
            let (calls, replicas) = self.workers[w].work();
            if calls + replicas > 0 {
                let text = format!("{} has {replicas} replicas, {calls} calls", pod.name);
                self.check.violated("no_pod_is_taken_with_work", &text);
            }
        }
        self.delete_pod(uid);
    }

    /// Somebody has a pod deleted: its worker is told to end.
    fn delete_pod(&mut self, uid: &str) {
        let Some(pod) = self.kubernetes.pods.get_mut(uid) else {
            return;
        };
        if std::mem::replace(&mut pod.terminating, true) {
            return;
        }
        let place = pod.place;
        match place {
            Some(w) if self.is_up(Node::Worker(w)) => {
                self.queue.after(GRACE_MS, Event::PodKilled(uid.to_owned()));
                self.worker_drain(w);
            }
            Some(_) | None => self.pod_gone(uid),
        }
    }

    /// Its time is over.
    pub fn pod_killed(&mut self, uid: &str) {
        let pod = self.kubernetes.pods.get(uid);
        if let Some(w) = pod.and_then(|pod| pod.place) {
            self.worker_end(w, true);
        }
    }

    /// The node of a worker is drained; false: it is in no pod.
    pub fn evict(&mut self, w: usize) -> bool {
        let uid = self.kubernetes.at(w).map(|(uid, _)| uid.clone());
        if let Some(uid) = &uid {
            self.log(&format!("{uid} is evicted"));
            self.delete_pod(uid);
        }
        uid.is_some()
    }

    /// The process of a worker ended; one that died is started again, unless its pod shall go.
    pub fn pod_worker_ended(&mut self, w: usize, died: bool) {
        let Some((uid, pod)) = self.kubernetes.at(w) else {
            return;
        };
        if pod.terminating {
            let uid = uid.clone();
            self.pod_gone(&uid);
        } else if !died {
            pod.stage = Stage::Ended;
        }
    }

    fn pod_gone(&mut self, uid: &str) {
        self.log(&format!("{uid} is gone"));
        self.kubernetes.pods.remove(uid);
        self.schedule_pods();
    }

    /// Pods without replicas go, but for those that hold bundles.
    pub fn pod_unrest(&self, world: &World) -> Option<String> {
        let deployments = world.deployments().map(|(_, deployment)| deployment);
        let replicas = deployments.flat_map(|deployment| deployment.replicas.values());
        let needed: BTreeSet<&String> = replicas.flat_map(Replica::workers).collect();
        let idle = |w: &usize| {
            let worker = &self.workers[*w];
            worker.replicas.is_empty() && !needed.contains(&worker.id)
        };
        let idle = self.kubernetes.places().find(idle);
        let idle = idle.map(|w| format!("the pod of worker{w} has no replicas"));
        self.kubernetes.unrest().or(idle)
    }
}
