//! The cluster: all processes, the wires between them, the time, and who is told next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::app::APPS;
use crate::canary::TRIAL_AFTER_MS;
use crate::check::Check;
use crate::client::{Change, Outside};
use crate::compaction::{Emptied, Mode};
use crate::head::{self, Head};
use crate::log::Log;
use crate::message::{Message, RequestId};
use crate::net::{ConnId, Net, Node, Side};
use crate::pods::Kubernetes;
use crate::rng::Rng;
use crate::router::{self, Router};
use crate::sabotage::Sabotage;
use crate::store::Store;
use crate::worker::{self, Worker};

pub const HEADS: usize = 3;
pub const ROUTERS: usize = 3;
pub const WORKERS: usize = 8;

/// Unix time at which a simulation begins.
pub const EPOCH_MS: u64 = 1_700_000_000_000;

/// A dial that nobody answers.
const DIAL_MS_MAX: u64 = 5_000;

const SWEEP_MS: u64 = 500;

pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What happens at some time. A number after a process is which life of it is meant.
#[derive(Clone, Debug)]
pub enum Event {
    Start(Node),
    Head(usize, u64, head::Timer),
    Router(usize, u64, router::Timer),
    Worker(usize, u64, worker::Timer),
    Deliver(ConnId, Side),
    Closed(ConnId, Side),
    GivenUp(ConnId, Side),
    DialCame(Dial),
    DialDone(Dial, Option<ConnId>),
    Sweep,
    Request(usize),
    RequestCame(usize, u64, RequestId, usize, bool),
    Load,
    User,
    LastChange,
    Trial,
    PodRuns(String),
    PodKilled(String),
    Change(Change),
    ChangeCame(usize, u64, Change),
    Fault,
    Heal(crate::faults::Cure),
    FaultsEnd,
}

#[derive(Clone, Debug)]
pub struct Dial {
    from: Node,
    life: u64,
    to: Node,
    /// The worker's id that a router dials.
    tag: String,
}

/// What comes when.
#[derive(Default)]
pub struct Queue {
    now: u64,
    next: u64,
    events: BTreeMap<(u64, u64), Event>,
}

impl Queue {
    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn at(&mut self, at: u64, event: Event) {
        self.next += 1;
        self.events.insert((at.max(self.now), self.next), event);
    }

    pub fn after(&mut self, pause: u64, event: Event) {
        self.at(self.now + pause, event);
    }

    fn pop(&mut self) -> Option<Event> {
        let ((at, _), event) = self.events.pop_first()?;
        self.now = at;
        Some(event)
    }
}

/// A deployment's count, since when, and what it was before that.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub count: u32,
    pub since: u64,
    pub count_before: u32,
    pub since_before: u64,
}

pub struct Cluster {
    pub queue: Queue,
    pub rng: Rng,
    pub net: Net,
    pub store: Store,
    pub heads: Vec<Head>,
    pub routers: Vec<Router>,
    pub workers: Vec<Worker>,
    pub outside: Outside,
    pub kubernetes: Kubernetes,
    pub check: Check,
    pub sabotage: Option<Sabotage>,
    pub log: Log,
    pub next_replica: u64,
    /// Stopped processes, and until when.
    pub paused: BTreeMap<Node, u64>,
    pub faults_end_at: u64,
    pub targets: BTreeMap<String, Target>,
    pub emptied: Emptied,
    pub events: u64,
}

impl Cluster {
    pub fn new(seed: u64, faults_ms: u64, print: bool, sabotage: Option<Sabotage>) -> Cluster {
        let mut rng = Rng::new(seed);
        let net = Net::new(Rng::new(rng.next()));
        let store = Store::new(Rng::new(rng.next()), sabotage);
        let mut cluster = Cluster {
            queue: Queue::default(),
            net,
            store,
            heads: (0..HEADS).map(|_| Head::down()).collect(),
            routers: (0..ROUTERS).map(|_| Router::down()).collect(),
            workers: (0..WORKERS).map(|_| Worker::down()).collect(),
            outside: Outside::new(faults_ms, Mode::any(&mut rng, sabotage)),
            kubernetes: Kubernetes::default(),
            check: Check::default(),
            sabotage,
            log: Log::new(print),
            next_replica: 0,
            paused: BTreeMap::new(),
            faults_end_at: faults_ms,
            targets: BTreeMap::new(),
            emptied: Emptied::default(),
            events: 0,
            rng,
        };
        cluster.begin();
        cluster
    }

    fn begin(&mut self) {
        let heads = (0..HEADS).map(Node::Head);
        let routers = (0..ROUTERS).map(Node::Router);
        let workers = (0..WORKERS).map(Node::Worker);
        for node in heads.chain(routers).chain(workers) {
            let at = self.rng.range(0, 1000);
            self.queue.at(at, Event::Start(node));
        }
        for app in 0..APPS.len() {
            self.queue.at(3000, Event::Request(app));
        }
        self.queue.at(1500, Event::User);
        self.queue.at(5000, Event::Load);
        self.queue.at(8000, Event::Fault);
        self.queue.at(SWEEP_MS, Event::Sweep);
        self.queue.at(self.faults_end_at, Event::FaultsEnd);
        self.queue.at(self.faults_end_at + 3000, Event::LastChange);
        self.queue
            .at(self.faults_end_at + TRIAL_AFTER_MS, Event::Trial);
    }

    /// Whether that is broken in this simulation.
    pub fn breaks(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    pub fn log(&mut self, text: &str) {
        self.log.line(self.queue.now(), text);
    }

    /// Into the number only: what happens too often to be read.
    pub fn log_quiet(&mut self, value: u64) {
        self.log.mix(self.queue.now() ^ value);
    }

    /// The next thing happens.
    pub fn step(&mut self) {
        let Some(event) = self.queue.pop() else {
            return;
        };
        self.events += 1;
        if let Some(until) = self.held_until(&event) {
            self.queue.at(until, event);
            return;
        }
        {
            let mut store = self.store.lock();
            store.now = self.queue.now();
            for head in 0..HEADS {
                store.cut[head] = !self.net.passes(Node::Head(head), Node::Store);
            }
        }
        self.happen(event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(node) => self.start(node),
            Event::Head(h, life, timer) if self.heads[h].up && self.heads[h].life == life => {
                self.head_timer(h, timer);
            }
            Event::Router(r, life, timer) if self.routers[r].up && self.routers[r].life == life => {
                self.router_timer(r, timer);
            }
            Event::Worker(w, life, timer) if self.workers[w].up && self.workers[w].life == life => {
                self.worker_timer(w, timer);
            }
            Event::Head(..) | Event::Router(..) | Event::Worker(..) => {}
            Event::Deliver(conn, side) => self.deliver(conn, side),
            Event::Closed(conn, side) => self.closed(conn, side, false),
            Event::GivenUp(conn, side) => self.closed(conn, side, true),
            Event::DialCame(dial) => self.dial_came(dial),
            Event::DialDone(dial, conn) => self.dial_done(&dial, conn),
            Event::Sweep => self.sweep(),
            Event::Request(app) => self.send_request(app),
            Event::RequestCame(r, life, id, app, repeatable) => {
                if self.routers[r].up && self.routers[r].life == life {
                    let path = format!("/{}", APPS[app]);
                    self.request_came(r, id, &path, repeatable);
                } else {
                    self.check.answered(id, crate::check::Answer::Cut);
                }
            }
            Event::Load => self.change_load(),
            Event::User => self.user_acts(),
            Event::LastChange => self.last_change(),
            Event::PodRuns(uid) => self.pod_runs(&uid),
            Event::PodKilled(uid) => self.pod_killed(&uid),
            Event::Trial => self.try_canaries(),
            Event::Change(change) => self.retry_change(change),
            Event::ChangeCame(h, life, change) => {
                if self.heads[h].leads() && self.heads[h].life == life {
                    self.change_came(h, change);
                }
            }
            Event::Fault => self.fault(),
            Event::Heal(cure) => self.cure(cure),
            Event::FaultsEnd => self.faults_end(),
        }
    }

    // ---- who is held up ----

    /// A stopped process does nothing; a head that waits for the store takes nothing up.
    fn held_until(&self, event: &Event) -> Option<u64> {
        let now = self.queue.now();
        let node = self.owner(event)?;
        if let Some(until) = self.paused.get(&node).filter(|until| **until > now) {
            return Some(*until);
        }
        let waits = matches!(
            event,
            Event::Head(_, _, head::Timer::Tick(..)) | Event::Deliver(..) | Event::ChangeCame(..)
        );
        match node {
            Node::Head(h) if waits && self.heads[h].busy_until > now => {
                Some(self.heads[h].busy_until)
            }
            _ => None,
        }
    }

    fn owner(&self, event: &Event) -> Option<Node> {
        match event {
            Event::Head(h, ..) | Event::ChangeCame(h, ..) => Some(Node::Head(*h)),
            Event::Router(r, ..) | Event::RequestCame(r, ..) => Some(Node::Router(*r)),
            Event::Worker(w, ..) => Some(Node::Worker(*w)),
            Event::Deliver(conn, side) | Event::Closed(conn, side) | Event::GivenUp(conn, side) => {
                self.net.owner(*conn, *side)
            }
            Event::DialDone(dial, _) => Some(dial.from),
            _ => None,
        }
    }

    pub fn is_up(&self, node: Node) -> bool {
        match node {
            Node::Head(h) => self.heads[h].up,
            Node::Router(r) => self.routers[r].up,
            Node::Worker(w) => self.workers[w].up,
            Node::Store => true,
        }
    }

    fn life(&self, node: Node) -> u64 {
        match node {
            Node::Head(h) => self.heads[h].life,
            Node::Router(r) => self.routers[r].life,
            Node::Worker(w) => self.workers[w].life,
            Node::Store => 0,
        }
    }

    fn start(&mut self, node: Node) {
        match node {
            Node::Head(h) => self.head_start(h),
            Node::Router(r) => self.router_start(r),
            Node::Worker(w) => self.worker_start(w),
            Node::Store => {}
        }
    }

    pub fn is_paused(&self, node: Node) -> bool {
        let until = self.paused.get(&node);
        until.is_some_and(|until| *until > self.queue.now())
    }

    // ---- connections ----

    pub fn dial(&mut self, from: Node, to: Node, tag: String) {
        let dial = Dial {
            from,
            life: self.life(from),
            to,
            tag,
        };
        if self.net.passes(from, to) {
            let delay = self.net.delay(from, to);
            self.queue.after(delay, Event::DialCame(dial));
        } else {
            self.queue.after(DIAL_MS_MAX, Event::DialDone(dial, None));
        }
    }

    fn dial_came(&mut self, dial: Dial) {
        let delay = self.net.delay(dial.to, dial.from);
        let hangs = self.is_paused(dial.to) || !self.net.passes(dial.from, dial.to);
        if hangs && self.is_up(dial.to) {
            self.queue.after(DIAL_MS_MAX, Event::DialDone(dial, None));
            return;
        }
        let takes = match dial.to {
            Node::Head(h) => self.heads[h].leads(),
            other => self.is_up(other),
        };
        if !takes {
            self.queue.after(delay, Event::DialDone(dial, None));
            return;
        }
        let conn = self.net.open(dial.from, dial.to, self.queue.now());
        if let Node::Head(h) = dial.to {
            self.session_opened(h, conn);
        }
        self.queue.after(delay, Event::DialDone(dial, Some(conn)));
    }

    fn dial_done(&mut self, dial: &Dial, conn: Option<ConnId>) {
        if !self.is_up(dial.from) || self.life(dial.from) != dial.life {
            if let Some(conn) = conn {
                self.net.close(&mut self.queue, conn, 0, true);
            }
            return;
        }
        // Whoever answered may have closed it before the answer arrived.
        let conn = conn.filter(|conn| self.net.is_open(*conn, 0));
        match (dial.from, dial.to) {
            (Node::Worker(w), _) => self.worker_dialled(w, conn),
            (Node::Router(r), Node::Head(_)) => self.router_dialled_head(r, conn),
            (Node::Router(r), _) => self.router_dialled_worker(r, &dial.tag, conn),
            _ => {}
        }
    }

    /// A process ends: all its connections do.
    pub fn close_all(&mut self, node: Node, died: bool) {
        for (conn, side) in self.net.of(node) {
            self.net.close(&mut self.queue, conn, side, died);
        }
    }

    fn sweep(&mut self) {
        self.queue.after(SWEEP_MS, Event::Sweep);
        let stored = self.store.lock().index();
        self.check.stored(stored.0);
        self.check_old_versions();
        let now = self.queue.now();
        let paused = self.paused.iter().filter(|(_, until)| **until > now);
        let mut still: BTreeSet<Node> = paused.map(|(node, _)| *node).collect();
        let heads = (0..HEADS).map(Node::Head);
        let routers = (0..ROUTERS).map(Node::Router);
        let workers = (0..WORKERS).map(Node::Worker);
        let down = heads.chain(routers).chain(workers);
        still.extend(down.filter(|node| !self.is_up(*node)));
        self.net
            .keep_alive(&mut self.queue, |node| still.contains(&node));
    }

    fn closed(&mut self, conn: ConnId, side: Side, by_keep_alive: bool) {
        let Some(node) = self.net.owner(conn, side) else {
            return;
        };
        if !self.net.closed(conn, side, by_keep_alive) {
            return;
        }
        match (node, side) {
            (Node::Head(h), _) => self.session_closed(h, conn),
            (Node::Router(r), _) => self.router_closed(r, conn),
            (Node::Worker(w), _) => self.worker_closed(w, conn),
            (Node::Store, _) => {}
        }
    }

    fn deliver(&mut self, conn: ConnId, side: Side) {
        let Some(node) = self.net.owner(conn, side) else {
            return;
        };
        let Some(message) = self.net.receive(&mut self.queue, conn, side) else {
            return;
        };
        match (node, message) {
            (Node::Head(h), message) => self.reported(h, conn, message),
            (Node::Worker(w), Message::Assignment(assignment)) => {
                self.assigned(w, conn, *assignment);
            }
            (
                Node::Worker(w),
                Message::Call {
                    call,
                    replica,
                    request,
                },
            ) => {
                self.call_came(w, conn, call, replica, request);
            }
            (Node::Worker(w), Message::Cancel(call)) => {
                self.call_over(w, (conn, call));
            }
            (Node::Router(r), Message::Table(table)) => self.table_came(r, conn, *table),
            (Node::Router(r), Message::Accepted(call)) => self.accepted(r, conn, call),
            (Node::Router(r), Message::Rejected(call)) => self.rejected(r, conn, call),
            (Node::Router(r), Message::Reply { call, failed }) => {
                self.replied(r, conn, call, failed)
            }
            (Node::Router(r), Message::Died(call)) => self.call_died(r, conn, call),
            _ => {}
        }
    }
}
