//! A router: the real table and queues, and around them what the real dispatch does: a call is
//! taken or refused, goes elsewhere before it was taken, and is repeated after it only where
//! that is safe.

mod answers;
mod requests;

use std::collections::BTreeMap;

use mobula_proto::v1;
use mobula_router::limits::{
    HEAD_RETRY_DELAY_MAX, HEAD_RETRY_DELAY_MIN, HEARTBEAT_INTERVAL, LOAD_REPORT_INTERVAL,
    WORKER_RETRY_DELAY_MAX, WORKER_RETRY_DELAY_MIN,
};
use mobula_router::queue::{Dice, Limits, Queue, Refusal, ReplicaKey, Seq, Side, Start, Wanted};
use mobula_router::simulation::{Answers, Flow};
use mobula_router::table::Table;

use crate::check::Answer;
use crate::cluster::{Cluster, Event, HEADS, WORKERS, ms};
use crate::message::{Message, RequestId};
use crate::net::{ConnId, Node};
use crate::sabotage::Sabotage;

pub type DeploymentKey = (String, String);

/// How to reach a replica.
#[derive(Clone, Debug)]
pub struct Target {
    worker: String,
    replica: String,
    /// Its code, while two versions share the requests.
    version: Option<String>,
    is_canary: bool,
}

pub struct Router {
    pub up: bool,
    pub life: u64,
    id: String,
    pub table: Table,
    pub queues: BTreeMap<DeploymentKey, Queue<Target, RequestId>>,
    /// By the worker's id.
    peers: BTreeMap<String, Peer>,
    /// Connections of workers that the table names no more.
    retired: Vec<ConnId>,
    pub requests: BTreeMap<RequestId, Request>,
    calls: BTreeMap<(ConnId, u64), RequestId>,
    next_call: u64,
    session: Option<ConnId>,
    next_head: usize,
    head_pause: u64,
    sent_at: u64,
    sent_loads: Vec<v1::DeploymentLoad>,
    /// Of versions that share requests.
    answers: BTreeMap<(DeploymentKey, String), Answers>,
    flows: BTreeMap<DeploymentKey, Flow>,
}

struct Peer {
    addr: String,
    conn: Option<ConnId>,
    pause: u64,
}

pub struct Request {
    queue: DeploymentKey,
    repeatable: bool,
    repeats: u32,
    /// It was sent somewhere.
    was_sent: bool,
    /// Since when it is at a replica.
    since: u64,
    /// Of the replica's code, if its answers are counted.
    trial: Option<String>,
    place: Place,
}

enum Place {
    Waiting(Seq),
    Calling {
        key: ReplicaKey,
        seq: Seq,
        call: (ConnId, u64),
        accepted: bool,
    },
}

#[derive(Clone, Debug)]
pub enum Timer {
    Dial,
    Load,
    DialWorker(String),
    Resume(DeploymentKey, ReplicaKey),
    Deadline(RequestId),
}

impl Router {
    pub fn down() -> Router {
        Router {
            up: false,
            life: 0,
            id: String::new(),
            table: Table::default(),
            queues: BTreeMap::new(),
            peers: BTreeMap::new(),
            retired: Vec::new(),
            requests: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            session: None,
            next_head: 0,
            head_pause: ms(HEAD_RETRY_DELAY_MIN),
            sent_at: 0,
            sent_loads: Vec::new(),
            answers: BTreeMap::new(),
            flows: BTreeMap::new(),
        }
    }

    pub fn busy(&self) -> u64 {
        let load =
            |queue: &Queue<Target, RequestId>| queue.queued() as u64 + u64::from(queue.ongoing());
        self.queues.values().map(load).sum()
    }

    fn loads(&self) -> Vec<v1::DeploymentLoad> {
        let load = |(key, queue): (&DeploymentKey, &Queue<Target, RequestId>)| v1::DeploymentLoad {
            application: key.0.clone(),
            deployment: key.1.clone(),
            queued_requests: queue.queued() as u32,
            ongoing_requests: queue.ongoing(),
            flow: self
                .flows
                .get(key)
                .map(|flow| flow.report(queue.arrivals())),
        };
        self.queues.iter().map(load).collect()
    }
}

impl Cluster {
    fn router_after(&mut self, r: usize, pause: u64, timer: Timer) {
        let life = self.routers[r].life;
        self.queue.after(pause, Event::Router(r, life, timer));
    }

    fn dice(&mut self) -> Dice {
        Dice::new(self.rng.next())
    }

    pub fn router_start(&mut self, r: usize) {
        if self.routers[r].up {
            return;
        }
        let life = self.routers[r].life + 1;
        self.routers[r] = Router {
            up: true,
            life,
            id: format!("router{r}-{life}"),
            ..Router::down()
        };
        self.log(&format!("router{r}-{life} starts"));
        self.router_after(r, 1, Timer::Dial);
        self.router_after(r, ms(LOAD_REPORT_INTERVAL), Timer::Load);
    }

    pub fn router_end(&mut self, r: usize) {
        if !std::mem::replace(&mut self.routers[r].up, false) {
            return;
        }
        self.log(&format!("{} dies", self.routers[r].id));
        for request in std::mem::take(&mut self.routers[r].requests).into_keys() {
            self.check.answered(request, Answer::Cut);
        }
        self.routers[r].queues.clear();
        self.close_all(Node::Router(r), true);
    }

    pub fn router_timer(&mut self, r: usize, timer: Timer) {
        match timer {
            Timer::Dial => {
                let head = self.routers[r].next_head % HEADS;
                self.routers[r].next_head += 1;
                self.dial(Node::Router(r), Node::Head(head), String::new());
            }
            Timer::Load => {
                let router = &self.routers[r];
                let since = self.queue.now() - router.sent_at;
                let is_news = router.loads() != router.sent_loads || self.breaks(Sabotage::Flap);
                if since >= ms(HEARTBEAT_INTERVAL) || is_news {
                    self.router_report(r);
                }
                let spins = self.breaks(Sabotage::Spin);
                let pause = if spins { 0 } else { ms(LOAD_REPORT_INTERVAL) };
                self.router_after(r, pause, Timer::Load);
            }
            Timer::DialWorker(id) => {
                let peer = self.routers[r].peers.get(&id);
                let place = peer.and_then(|peer| peer.addr.parse::<usize>().ok());
                if let Some(w) = place.filter(|w| *w < WORKERS) {
                    self.dial(Node::Router(r), Node::Worker(w), id);
                }
            }
            Timer::Resume(queue, key) => {
                let dice = self.dice();
                if let Some(found) = self.routers[r].queues.get_mut(&queue) {
                    let started = found.resume(key, dice);
                    self.begin_all(r, started);
                }
            }
            Timer::Deadline(request) => self.deadline(r, request),
        }
    }

    // ---- the session ----

    pub fn router_dialled_head(&mut self, r: usize, conn: Option<ConnId>) {
        match conn {
            Some(conn) => {
                self.routers[r].session = Some(conn);
                self.router_report(r);
            }
            None => {
                let pause = self.routers[r].head_pause * 2;
                let pause = pause.min(ms(HEAD_RETRY_DELAY_MAX));
                self.routers[r].head_pause = pause;
                let spread = self.rng.range(pause / 2, pause);
                self.router_after(r, spread, Timer::Dial);
            }
        }
    }

    fn router_report(&mut self, r: usize) {
        let now = self.queue.now();
        let router = &mut self.routers[r];
        let Some(conn) = router.session else { return };
        router.sent_at = now;
        router.sent_loads = router.loads();
        let router = &self.routers[r];
        let report = v1::RouterReport {
            router_id: router.id.clone(),
            node_id: format!("node-{r}"),
            node_ip: "127.0.0.1".to_owned(),
            pid: router.life as u32,
            http_addr: "127.0.0.1:8000".to_owned(),
            grpc_addr: "127.0.0.1:9000".to_owned(),
            table_version: router.table.version,
            loads: self.seen_loads(&router.sent_loads),
            answers: router.answers(),
            ..v1::RouterReport::default()
        };
        self.net.send(
            &mut self.queue,
            conn,
            0,
            Message::RouterReport(Box::new(report)),
            0,
        );
    }

    /// One that is wrong sees none of it every other time.
    fn seen_loads(&self, loads: &[v1::DeploymentLoad]) -> Vec<v1::DeploymentLoad> {
        let hides = self.queue.now() / 1000 % 2 == 1;
        if hides && self.breaks(Sabotage::Flap) {
            return Vec::new();
        }
        loads.to_vec()
    }

    pub fn router_closed(&mut self, r: usize, conn: ConnId) {
        if self.routers[r].session == Some(conn) {
            let router = &mut self.routers[r];
            router.session = None;
            router.head_pause = ms(HEAD_RETRY_DELAY_MIN);
            let pause = self.rng.range(25, 50);
            self.router_after(r, pause, Timer::Dial);
            return;
        }
        self.worker_lost(r, conn);
    }

    // ---- tables ----

    /// As the real core: who is new first, who is gone last.
    pub fn table_came(&mut self, r: usize, conn: ConnId, source: v1::RouteTable) {
        if self.routers[r].session != Some(conn) {
            return;
        }
        if r == 0 && self.routers[r].table.version > 0 {
            if self.breaks(Sabotage::KeepOldTable) {
                return;
            }
            if self.breaks(Sabotage::PretendNewTable) {
                self.routers[r].table.version = source.version;
                return self.router_report(r);
            }
        }
        let table = Table::new(source);
        self.log(&format!("router{r} has table {}", table.version));
        self.dial_new_workers(r, &table);
        let mut started = Vec::new();
        let mut ended = Vec::new();
        let mut named = Vec::new();
        for application in &table.applications {
            for deployment in &application.deployments {
                let key = (application.name.clone(), deployment.name.clone());
                named.push(key.clone());
                self.update(r, key, deployment, &mut started, &mut ended);
            }
        }
        let gone: Vec<DeploymentKey> = self.routers[r].queues.keys().cloned().collect();
        self.routers[r].table = table;
        for key in gone.into_iter().filter(|key| !named.contains(key)) {
            let dice = self.dice();
            self.routers[r].flows.remove(&key);
            self.routers[r].answers.retain(|(of, _), _| *of != key);
            if let Some(mut queue) = self.routers[r].queues.remove(&key) {
                let none = Limits {
                    ongoing_max: 0,
                    queued_max: 0,
                    canary_percent: 0,
                };
                queue.set_replicas(none, Vec::new(), dice);
                ended.extend(queue.set_end(Some(Refusal::Deleted)));
            }
        }
        self.begin_all(r, started);
        for request in ended {
            self.answer(r, request, Answer::Refused);
        }
        self.retire_workers(r);
        self.router_report(r);
    }

    fn update(
        &mut self,
        r: usize,
        key: DeploymentKey,
        source: &v1::TableDeployment,
        started: &mut Vec<Start<Target, RequestId>>,
        ended: &mut Vec<RequestId>,
    ) {
        let greedy = self.breaks(Sabotage::SendCanaryMore);
        let limits = Limits {
            ongoing_max: source.max_ongoing_requests,
            queued_max: source.max_queued_requests,
            canary_percent: source.canary.as_ref().map_or(0, |share| {
                let percent = share.percent;
                if greedy { 95 } else { percent }
            }),
        };
        let dice = self.dice();
        let router = &mut self.routers[r];
        router.keep_answers(&key, source);
        let target = |replica: &v1::TableReplica| {
            let reachable = router.peers.get(&replica.worker_id)?.conn.is_some();
            let canary = source.canary.as_ref();
            let is_canary = canary.is_some_and(|share| share.code_version == replica.code_version);
            let target = Target {
                worker: replica.worker_id.clone(),
                replica: replica.replica_id.clone(),
                version: canary.map(|_| replica.code_version.clone()),
                is_canary,
            };
            Some(Wanted {
                id: replica.replica_id.clone(),
                target,
                reachable,
                side: if is_canary {
                    Side::Canary
                } else {
                    Side::Stable
                },
                ongoing_max: Some(replica.max_ongoing_requests).filter(|max| *max > 0),
            })
        };
        let targets = source.replicas.iter().filter_map(target).collect();
        router.flows.entry(key.clone()).or_default();
        let queue = router.queues.entry(key);
        let queue = queue.or_insert_with(|| Queue::new(limits));
        started.extend(queue.set_replicas(limits, targets, dice));
        ended.extend(queue.set_end(source.failed.then_some(Refusal::Failed)));
    }

    fn dial_new_workers(&mut self, r: usize, table: &Table) {
        let deployments = table.applications.iter().flat_map(|a| &a.deployments);
        for replica in deployments.flat_map(|deployment| &deployment.replicas) {
            let id = &replica.worker_id;
            if self.routers[r].peers.contains_key(id) {
                continue;
            }
            let peer = Peer {
                addr: replica.data_addr.clone(),
                conn: None,
                pause: ms(WORKER_RETRY_DELAY_MIN),
            };
            self.routers[r].peers.insert(id.clone(), peer);
            self.router_after(r, 0, Timer::DialWorker(id.clone()));
        }
    }

    fn retire_workers(&mut self, r: usize) {
        let router = &mut self.routers[r];
        let deployments = router.table.applications.iter();
        let replicas = deployments
            .flat_map(|a| &a.deployments)
            .flat_map(|d| &d.replicas);
        let named: Vec<&String> = replicas.map(|replica| &replica.worker_id).collect();
        let gone = router.peers.iter().filter(|(id, _)| !named.contains(id));
        let gone: Vec<String> = gone.map(|(id, _)| id.clone()).collect();
        for id in gone {
            let peer = self.routers[r].peers.remove(&id);
            if let Some(conn) = peer.and_then(|peer| peer.conn) {
                self.routers[r].retired.push(conn);
            }
        }
        self.close_retired(r);
    }

    /// Connections that are not needed any more go when their last call has ended.
    fn close_retired(&mut self, r: usize) {
        let router = &mut self.routers[r];
        let calls = &router.calls;
        let in_use = |conn: &ConnId| calls.range((*conn, 0)..=(*conn, u64::MAX)).next().is_some();
        let (stay, close): (Vec<ConnId>, Vec<ConnId>) =
            router.retired.iter().partition(|conn| in_use(conn));
        router.retired = stay;
        for conn in close {
            self.net.close(&mut self.queue, conn, 0, false);
        }
    }

    // ---- workers ----

    pub fn router_dialled_worker(&mut self, r: usize, id: &str, conn: Option<ConnId>) {
        // It left the table meanwhile, or it left and came back and was dialled twice.
        let peer = self.routers[r].peers.get_mut(id);
        let Some(peer) = peer.filter(|peer| peer.conn.is_none()) else {
            if let Some(conn) = conn {
                self.net.close(&mut self.queue, conn, 0, false);
            }
            return;
        };
        match conn {
            Some(_) => {
                peer.conn = conn;
                peer.pause = ms(WORKER_RETRY_DELAY_MIN);
                self.reachable(r, id, true);
            }
            None => {
                peer.pause = (peer.pause * 2).min(ms(WORKER_RETRY_DELAY_MAX));
                let pause = self.rng.range(peer.pause / 2, peer.pause);
                self.router_after(r, pause, Timer::DialWorker(id.to_owned()));
            }
        }
    }

    fn reachable(&mut self, r: usize, id: &str, reachable: bool) {
        let keys: Vec<DeploymentKey> = self.routers[r].queues.keys().cloned().collect();
        for key in keys {
            let dice = self.dice();
            if let Some(queue) = self.routers[r].queues.get_mut(&key) {
                let started = queue.set_reachable(|target| target.worker == id, reachable, dice);
                self.begin_all(r, started);
            }
        }
    }

    /// A connection to a worker broke: first nobody goes there any more, then its calls are told.
    fn worker_lost(&mut self, r: usize, conn: ConnId) {
        let router = &mut self.routers[r];
        router.retired.retain(|retired| *retired != conn);
        let peer = router
            .peers
            .iter_mut()
            .find(|(_, peer)| peer.conn == Some(conn));
        if let Some((id, peer)) = peer {
            peer.conn = None;
            let id = id.clone();
            self.reachable(r, &id, false);
            let pause = self.rng.range(25, 50);
            self.router_after(r, pause, Timer::DialWorker(id));
        }
        let calls = self.routers[r].calls.range((conn, 0)..=(conn, u64::MAX));
        let lost: Vec<RequestId> = calls.map(|(_, request)| *request).collect();
        for request in lost {
            if self.is_accepted(r, request) {
                self.died(r, request);
            } else {
                self.elsewhere(r, request);
            }
        }
    }
}
