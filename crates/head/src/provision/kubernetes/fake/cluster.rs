//! A kubelet and a model of the head around the provisioner, in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::api_server::ApiServer;
use crate::provision::Notice;
use crate::provision::kubernetes::api::ClusterApi;
use crate::provision::kubernetes::groups::{Group, parse};
use crate::provision::kubernetes::keeper::Keeper;
use crate::provision::kubernetes::model::cpus;
use crate::world::compaction::QUIET_MS;
use crate::world::supply::{Demand, PodWorker, Supply};

/// The kubelet and the head look this often.
const STEP: Duration = Duration::from_millis(100);

/// What is waited for comes within this much virtual time.
const WAIT: Duration = Duration::from_secs(180);

/// Replicas of one CPU in a pod of two.
const REPLICAS_PER_POD: usize = 2;

/// A whole cluster.
pub struct Cluster {
    pub api: ApiServer,
    /// Replicas that shall run, by deployment.
    wanted: BTreeMap<String, usize>,
    /// Workers by the uid of their pod. They outlive the head.
    workers: BTreeMap<String, Worker>,
    supply: Supply,
    head: Option<Head>,
    /// Since when nothing has been under way.
    quiet_since: Instant,
}

/// The worker in a pod.
#[derive(Default)]
struct Worker {
    /// The deployments of its replicas.
    replicas: Vec<String>,
    draining: bool,
}

struct Head {
    keeper: JoinHandle<()>,
    demand: watch::Sender<Demand>,
    notices: mpsc::Receiver<Notice>,
}

/// Groups from the fields of one and the name of its template.
pub fn groups(fields: &Value, version: &str) -> Vec<Group> {
    let mut group = json!({"name": "small", "max": 4, "idle_timeout_s": 600});
    for (key, value) in fields.as_object().unwrap() {
        group[key] = value.clone();
    }
    group["resources"] = json!({"cpus": REPLICAS_PER_POD});
    group["template"] = json!({
        "metadata": {"annotations": {"version": version}},
        "spec": {
            "hostNetwork": version == "unsafe",
            "containers": [{"name": "worker", "image": version}],
        },
    });
    // JSON is YAML.
    parse(&json!({"workerGroups": [group]}).to_string()).unwrap()
}

// === impl Cluster ===

impl Cluster {
    pub fn new() -> Cluster {
        Cluster {
            api: ApiServer::new(),
            wanted: BTreeMap::new(),
            workers: BTreeMap::new(),
            supply: Supply::default(),
            head: None,
            quiet_since: Instant::now(),
        }
    }

    /// That many replicas of one deployment shall run.
    pub fn want(&mut self, replicas: usize) {
        self.want_each([("sleep".to_owned(), replicas)]);
    }

    /// That many replicas of each deployment, and of no other, shall run.
    pub fn want_each(&mut self, wanted: impl IntoIterator<Item = (String, usize)>) {
        self.wanted = wanted.into_iter().collect();
    }

    /// A head starts, or starts again with other groups.
    pub async fn start_head(&mut self, groups: Vec<Group>) {
        if let Some(head) = self.head.take() {
            head.keeper.abort();
            // It was told to end just now.
            let _ = head.keeper.await;
        }
        self.supply = Supply::default();
        for worker in self.workers.values_mut() {
            worker.draining = false;
        }
        let (demand, demanded) = watch::channel(Demand::default());
        let (notices_in, notices) = mpsc::channel(64);
        let keeper = Keeper {
            groups,
            cluster: "test".to_owned(),
            namespace: None,
            demand: demanded,
            notices: notices_in,
        };
        let client = Client::new(self.api.clone(), "ns");
        let api = ClusterApi::of(&client, "test", "ns".to_owned());
        self.head = Some(Head {
            keeper: tokio::spawn(keeper.keep(api)),
            demand,
            notices,
        });
    }

    // --- looking ---

    pub fn pods(&self) -> Vec<String> {
        self.api.state().pods.keys().cloned().collect()
    }

    /// Of which templates the pods are.
    pub fn versions(&self) -> Vec<String> {
        let state = self.api.state();
        let version = |pod: &Value| {
            let version = pod["metadata"]["annotations"]["version"].as_str();
            version.unwrap().to_owned()
        };
        let mut versions: Vec<String> = state.pods.values().map(version).collect();
        versions.sort();
        versions
    }

    /// What a deployment that waits would say.
    pub fn trouble(&self) -> &str {
        &self.supply.trouble
    }

    /// Whether all replicas run.
    pub fn is_served(&self) -> bool {
        let all = |(name, wanted): (&String, &usize)| self.placed(name) == *wanted;
        let placed = self.workers.values().map(|worker| worker.replicas.len());
        self.wanted.iter().all(all) && placed.sum::<usize>() == self.wanted.values().sum::<usize>()
    }

    /// Replicas of a deployment that run.
    fn placed(&self, name: &str) -> usize {
        let all = self.workers.values().flat_map(|worker| &worker.replicas);
        all.filter(|of| *of == name).count()
    }

    // --- time ---

    /// Lets time pass until it is so.
    pub async fn until(&mut self, what: &str, is_so: impl Fn(&Cluster) -> bool) {
        let end = Instant::now() + WAIT;
        while !is_so(self) {
            let pods = self.versions();
            let trouble = self.trouble();
            assert!(
                Instant::now() < end,
                "in vain: {what}; pods {pods:?}, {trouble}"
            );
            self.step().await;
        }
    }

    /// Lets that much time pass.
    pub async fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.step().await;
        }
    }

    async fn step(&mut self) {
        self.kubelet();
        self.head();
        tokio::time::sleep(STEP).await;
    }

    // --- the kubelet ---

    fn kubelet(&mut self) {
        let pods: Vec<Value> = self.api.state().pods.values().cloned().collect();
        for pod in pods {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let uid = pod["metadata"]["uid"].as_str().unwrap();
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                self.end(name, uid);
                continue;
            }
            match pod["spec"]["containers"][0]["image"].as_str().unwrap() {
                "no-image" => self.api.change(name, |pod| {
                    pod["status"] = status("Pending", 0, waiting("ErrImagePull"));
                }),
                "crashes" => self.api.change(name, |pod| {
                    let container = &pod["status"]["containerStatuses"][0];
                    let restarts = container["restartCount"].as_u64().unwrap_or(0);
                    pod["status"] = status("Running", restarts + 1, waiting("CrashLoopBackOff"));
                }),
                _ => self.run(name, uid),
            }
        }
        // A worker that was told to retire ends by itself.
        let retired: Vec<String> = self
            .workers
            .iter()
            .filter(|(uid, worker)| {
                worker.draining && worker.replicas.is_empty() && !self.supply.resting.contains(*uid)
            })
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in retired {
            self.workers.remove(&uid);
        }
    }

    fn run(&mut self, name: &str, uid: &str) {
        self.api.change(name, |pod| {
            if pod["status"]["phase"] == "Pending" {
                pod["status"] = status("Running", 0, json!({"running": {}}));
            }
        });
        let leaves = self.supply.leaving.contains_key(uid);
        let rests = self.supply.resting.contains(uid);
        if !self.workers.contains_key(uid) && (!leaves || rests) {
            self.workers.insert(uid.to_owned(), Worker::default());
        }
    }

    /// What runs in the pod is given time to hand its replicas over.
    fn end(&mut self, name: &str, uid: &str) {
        let worker = self.workers.get(uid);
        if worker.is_none_or(|worker| worker.replicas.is_empty()) {
            self.workers.remove(uid);
            self.api.remove(name);
        }
    }

    /// Somebody deletes the pod.
    pub fn delete(&self, name: &str) {
        self.api.change(name, |pod| {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        });
    }

    /// An eviction of the pod is granted.
    pub fn evict(&self, name: &str) {
        self.api.change(name, |pod| {
            let disrupted = json!({"type": "DisruptionTarget", "status": "True"});
            pod["status"]["conditions"] = json!([disrupted]);
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        });
    }

    /// The worker in the pod is killed and started again.
    pub fn kill(&mut self, name: &str) {
        let uid = self.api.state().pods[name]["metadata"]["uid"].clone();
        self.workers.remove(uid.as_str().unwrap());
        self.api.change(name, |pod| {
            pod["status"] = status("Running", 1, json!({"running": {}}));
        });
    }

    // --- the head ---

    fn head(&mut self) {
        let Some(head) = &mut self.head else {
            return;
        };
        while let Ok(notice) = head.notices.try_recv() {
            match notice {
                Notice::Supplied(supply) => self.supply = supply,
                Notice::PodGone(uid) => {
                    if self.workers.remove(&uid).is_some() {
                        let wrong = format!("{uid} is said to be gone while its worker runs");
                        self.api.state().wrongs.push(wrong);
                    }
                }
                Notice::Exited(_) => {}
            }
        }
        for (uid, worker) in &mut self.workers {
            worker.draining = self.supply.leaving.contains_key(uid);
        }
        let waiting = self.place();
        self.compact(waiting);
        let busy = self
            .workers
            .iter()
            .filter(|(_, worker)| !worker.replicas.is_empty());
        self.api.state().busy = busy.map(|(uid, _)| uid.clone()).collect();
        let demand = Demand {
            synced: true,
            unplaced: vec![cpus(1.0); waiting],
            workers: self
                .workers
                .iter()
                .map(|(uid, worker)| (uid.clone(), worker.view()))
                .collect(),
            ..Demand::default()
        };
        if let Some(head) = &self.head {
            head.demand.send_if_modified(|held| {
                let is_news = *held != demand;
                *held = demand;
                is_news
            });
        }
    }

    /// Stops, starts and moves replicas where there is room; returns how many wait for some.
    fn place(&mut self) -> usize {
        for worker in self.workers.values_mut() {
            worker
                .replicas
                .retain(|name| self.wanted.contains_key(name));
        }
        let mut waiting = 0;
        for (name, wanted) in self.wanted.clone() {
            for _ in wanted..self.placed(&name) {
                let holds = |worker: &&mut Worker| worker.replicas.contains(&name);
                let worker = self.workers.values_mut().find(holds).unwrap();
                let at = worker.replicas.iter().position(|of| *of == name).unwrap();
                worker.replicas.remove(at);
            }
            for _ in self.placed(&name)..wanted {
                match self.room(|_| true) {
                    Some(room) => room.replicas.push(name.clone()),
                    None => waiting += 1,
                }
            }
        }
        let leaving = |worker: &&mut Worker| worker.draining && !worker.replicas.is_empty();
        while let Some(from) = self.workers.values_mut().find(leaving) {
            let moves = from.replicas.pop().unwrap();
            if let Some(room) = self.room(|_| true) {
                room.replicas.push(moves);
                continue;
            }
            // It stays until there is room.
            let mut workers = self.workers.values_mut();
            let from = workers.find(|worker| worker.draining && worker.has_room());
            from.unwrap().replicas.push(moves);
            let left = self.workers.values().filter(|worker| worker.draining);
            return waiting + left.map(|worker| worker.replicas.len()).sum::<usize>();
        }
        waiting
    }

    /// After a minute of rest, one replica moves from the pod that has the fewest, and may go,
    /// to another one that has some.
    fn compact(&mut self, waiting: usize) {
        let steady = waiting == 0
            && self.supply.trouble.is_empty()
            && self.workers.values().all(|worker| !worker.draining);
        if !steady || !self.is_served() {
            self.quiet_since = Instant::now();
        }
        if self.quiet_since.elapsed() < Duration::from_millis(QUIET_MS) {
            return;
        }
        let releasable = &self.supply.releasable;
        let held = self
            .workers
            .iter()
            .filter(|(uid, worker)| !worker.replicas.is_empty() && releasable.contains(*uid));
        let fewest = held.min_by_key(|(_, worker)| worker.replicas.len());
        let Some(uid) = fewest.map(|(uid, _)| uid.clone()) else {
            return;
        };
        let Some(mut from) = self.workers.remove(&uid) else {
            return;
        };
        if let Some(room) = self.room(|worker| !worker.replicas.is_empty()) {
            room.replicas.extend(from.replicas.pop());
        }
        self.workers.insert(uid, from);
    }

    fn room(&mut self, is_right: impl Fn(&Worker) -> bool) -> Option<&mut Worker> {
        let mut workers = self.workers.values_mut();
        workers.find(|worker| !worker.draining && worker.has_room() && is_right(worker))
    }
}

// === impl Worker ===

impl Worker {
    fn has_room(&self) -> bool {
        self.replicas.len() < REPLICAS_PER_POD
    }

    fn view(&self) -> PodWorker {
        PodWorker {
            replicas: self.replicas.len(),
            used: cpus(self.replicas.len() as f64),
            draining: self.draining,
            connected: true,
            failures: 0,
        }
    }
}

fn waiting(reason: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": "says the fake"}})
}

fn status(phase: &str, restarts: u64, state: Value) -> Value {
    let worker = json!({
        "name": "worker", "image": "", "imageID": "", "ready": true,
        "restartCount": restarts, "state": state,
    });
    json!({"phase": phase, "containerStatuses": [worker]})
}
