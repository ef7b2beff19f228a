//! A kubelet and a model of the head around the provisioner, in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::api_server::ApiServer;
use crate::provision::Notice;
use crate::provision::kubernetes::api::ClusterApi;
use crate::provision::kubernetes::groups::{Group, parse};
use crate::provision::kubernetes::keeper::Keeper;
use crate::provision::kubernetes::model::cpus;
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
    /// Replicas that shall run.
    pub replicas: usize,
    /// Workers by the uid of their pod. They outlive the head.
    workers: BTreeMap<String, PodWorker>,
    supply: Supply,
    head: Option<Head>,
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
            replicas: 0,
            workers: BTreeMap::new(),
            supply: Supply::default(),
            head: None,
        }
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
        let placed: usize = self.workers.values().map(|worker| worker.replicas).sum();
        placed == self.replicas
    }

    // --- time ---

    /// Lets time pass until it is so.
    pub async fn until(&mut self, what: &str, is_so: impl Fn(&Cluster) -> bool) {
        let end = tokio::time::Instant::now() + WAIT;
        while !is_so(self) {
            let pods = self.versions();
            let trouble = self.trouble();
            assert!(
                tokio::time::Instant::now() < end,
                "in vain: {what}; pods {pods:?}, {trouble}"
            );
            self.step().await;
        }
    }

    /// Lets that much time pass.
    pub async fn wait(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
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
                worker.draining && worker.replicas == 0 && !self.supply.resting.contains(*uid)
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
            let worker = PodWorker {
                replicas: 0,
                used: cpus(0.0),
                draining: false,
                connected: true,
                failures: 0,
            };
            self.workers.insert(uid.to_owned(), worker);
        }
    }

    /// What runs in the pod is given time to hand its replicas over.
    fn end(&mut self, name: &str, uid: &str) {
        let worker = self.workers.get(uid);
        if worker.is_none_or(|worker| worker.replicas == 0) {
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
        for worker in self.workers.values_mut() {
            worker.used = cpus(worker.replicas as f64);
        }
        let busy = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.replicas > 0);
        self.api.state().busy = busy.map(|(uid, _)| uid.clone()).collect();
        let demand = Demand {
            synced: true,
            unplaced: vec![cpus(1.0); waiting],
            workers: self.workers.clone(),
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

    /// Starts and moves replicas where there is room; returns how many wait for some.
    fn place(&mut self) -> usize {
        let mut placed: usize = self.workers.values().map(|worker| worker.replicas).sum();
        while placed > self.replicas {
            let mut workers = self.workers.values_mut();
            let worker = workers.find(|worker| worker.replicas > 0).unwrap();
            worker.replicas -= 1;
            placed -= 1;
        }
        let leaving = |worker: &&mut PodWorker| worker.draining && worker.replicas > 0;
        loop {
            let moves = self.workers.values_mut().find(leaving).is_some();
            if placed == self.replicas && !moves {
                return 0;
            }
            let room = self
                .workers
                .values_mut()
                .find(|worker| !worker.draining && worker.replicas < REPLICAS_PER_POD);
            let Some(room) = room else { break };
            room.replicas += 1;
            if placed < self.replicas {
                placed += 1;
            } else if let Some(from) = self.workers.values_mut().find(leaving) {
                from.replicas -= 1;
            }
        }
        let to_move = self.workers.values().filter(|worker| worker.draining);
        self.replicas - placed + to_move.map(|worker| worker.replicas).sum::<usize>()
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
