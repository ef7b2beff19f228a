//! A head: follows until it is elected, then runs the real control loop on the shared store, as
//! `mobula_head::run_elected` does.

mod admin;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mobula_head::simulation::{
    ControlLoop, Executor, FencedStore, HeadError, Heard, Preparer, SESSION_SILENT_MAX, restore,
};
use mobula_head::status::About;
use mobula_head::wire;
use mobula_head::world::{Event as Seen, Now, World};
use mobula_proto::v1;
use mobula_store::{Fence, LEASE_DEFAULT, RENEWALS_PER_LEASE, UNUSED_FRACTION};

use crate::app::registry;
use crate::cluster::{Cluster, EPOCH_MS, Event, ms};
use crate::message::Message;
use crate::net::{ConnId, Node};
use crate::pods::Keeper;
use crate::sabotage::Sabotage;

/// The pause before the next try of a head that does not lead.
const CAMPAIGN_MS: u64 = 200;

/// As the keeper: between two attempts to renew that failed.
const RENEW_RETRY_MS: u64 = 200;

/// As the controller's ticks.
const BUSY_TICK_MS: u64 = 100;
const IDLE_TICK_MS: u64 = 1000;

pub struct Head {
    pub up: bool,
    pub life: u64,
    /// How wrong its wall clock is.
    pub skew_ms: i64,
    /// It waits for the store.
    pub busy_until: u64,
    pub lead: Option<Box<Lead>>,
}

pub struct Lead {
    pub control: ControlLoop,
    pub term: u64,
    started_at: u64,
    unix_s: f64,
    sessions: BTreeMap<ConnId, Session>,
    next_session: u64,
    tick: u64,
    next_tick: Option<u64>,
    lost_at: u64,
    published: u64,
    pub keeper: Keeper,
}

struct Session {
    number: u64,
    peer: Peer,
    heard_at: u64,
    sent: u64,
}

enum Peer {
    Unknown,
    Worker(String),
    Router(String),
}

#[derive(Clone, Debug)]
pub enum Timer {
    Campaign,
    Renew(u64),
    LeaseOver(u64, u64),
    Tick(u64, u64),
}

/// What the real head awaits is the store alone, and the simulated one answers at once.
fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the control loop waited for something else than the store"),
    }
}

impl Head {
    pub fn down() -> Head {
        Head {
            up: false,
            life: 0,
            skew_ms: 0,
            busy_until: 0,
            lead: None,
        }
    }

    pub fn leads(&self) -> bool {
        self.up && self.lead.is_some()
    }
}

impl Lead {
    pub fn now(&self, ms: u64) -> Now {
        let ms = ms.saturating_sub(self.started_at);
        Now {
            ms,
            unix_s: self.unix_s + ms as f64 / 1000.0,
        }
    }
}

impl Cluster {
    fn head_after(&mut self, h: usize, pause: u64, timer: Timer) {
        let life = self.heads[h].life;
        self.queue.after(pause, Event::Head(h, life, timer));
    }

    pub fn head_start(&mut self, h: usize) {
        let head = &mut self.heads[h];
        if head.up {
            return;
        }
        head.up = true;
        head.life += 1;
        head.busy_until = 0;
        self.log(&format!("head{h} starts"));
        self.head_after(h, 1, Timer::Campaign);
    }

    pub fn head_end(&mut self, h: usize) {
        if std::mem::replace(&mut self.heads[h].up, false) {
            self.log(&format!("head{h} dies"));
            self.heads[h].lead = None;
            self.close_all(Node::Head(h), true);
        }
    }

    pub fn head_timer(&mut self, h: usize, timer: Timer) {
        let now = self.queue.now();
        match timer {
            Timer::Campaign => {
                if self.heads[h].lead.is_some() {
                    return;
                }
                let term = self.store.lock().campaign(h);
                match term {
                    Some(term) => self.elected(h, term),
                    None => {
                        let pause = self.rng.range(CAMPAIGN_MS / 2, CAMPAIGN_MS * 3 / 2);
                        self.head_after(h, pause, Timer::Campaign);
                    }
                }
            }
            Timer::Renew(term) => {
                if !self.is_term(h, term) {
                    return;
                }
                let renewed = self.store.lock().renew(h, term);
                match renewed {
                    Some(true) => self.lease_counts(h, term),
                    Some(false) if self.breaks(Sabotage::IgnoreFences) => {}
                    Some(false) => self.step_down(h, "its lease is gone"),
                    None => self.head_after(h, RENEW_RETRY_MS, Timer::Renew(term)),
                }
            }
            Timer::LeaseOver(term, at) => {
                let clings = self.breaks(Sabotage::IgnoreFences);
                let lead = self.heads[h].lead.as_ref();
                let is_over = |lead: &Lead| lead.term == term && lead.lost_at == at;
                if !clings && lead.is_some_and(|lead| is_over(lead)) {
                    self.step_down(h, "its lease runs out");
                }
            }
            Timer::Tick(term, tick) => {
                let Some(lead) = self.heads[h].lead.as_mut() else {
                    return;
                };
                if lead.term != term || lead.tick != tick {
                    return;
                }
                lead.next_tick = None;
                let seen_at = lead.now(now);
                lead.control.observe(Seen::Tick, seen_at);
                self.end_silent_sessions(h);
                self.head_follow_up(h);
            }
        }
    }

    fn is_term(&self, h: usize, term: u64) -> bool {
        let lead = self.heads[h].lead.as_ref();
        lead.is_some_and(|lead| lead.term == term)
    }

    fn lease_counts(&mut self, h: usize, term: u64) {
        let lease = ms(LEASE_DEFAULT);
        let lost_at = self.queue.now() + lease - lease / u64::from(UNUSED_FRACTION);
        if let Some(lead) = self.heads[h].lead.as_mut() {
            lead.lost_at = lost_at;
        }
        let renew = lease / u64::from(RENEWALS_PER_LEASE);
        self.head_after(h, renew, Timer::Renew(term));
        let life = self.heads[h].life;
        self.queue.at(
            lost_at,
            Event::Head(h, life, Timer::LeaseOver(term, lost_at)),
        );
    }

    fn elected(&mut self, h: usize, term: u64) {
        let now = self.queue.now();
        self.log(&format!("head{h} leads, term {term}"));
        let unix_ms = (EPOCH_MS + now).saturating_add_signed(self.heads[h].skew_ms);
        let unix_s = unix_ms as f64 / 1000.0;
        let control = match self.load(h, term, unix_s) {
            Ok(control) => control,
            Err(error) => {
                self.log(&format!("head{h} cannot load: {error}"));
                if let HeadError::Stored(text) = &error {
                    self.check.violated("what_is_stored_can_be_read", text);
                }
                self.store.lock().resign(h, term);
                self.head_end(h);
                self.queue.after(1000, Event::Start(Node::Head(h)));
                return;
            }
        };
        self.heads[h].lead = Some(Box::new(Lead {
            control,
            term,
            started_at: now,
            unix_s,
            sessions: BTreeMap::new(),
            next_session: 1,
            tick: 0,
            next_tick: None,
            lost_at: 0,
            published: 0,
            keeper: Keeper::new(),
        }));
        self.lease_counts(h, term);
        self.head_follow_up(h);
    }

    fn load(&mut self, h: usize, term: u64, unix_s: f64) -> Result<ControlLoop, HeadError> {
        let about = About {
            ray_version: "2.60.0"
                .parse()
                .map_err(|()| HeadError::RayVersion("2.60.0".to_owned()))?,
            node_id: format!("node-{h}"),
            node_ip: "127.0.0.1".to_owned(),
            pid: 1,
            started_at_s: unix_s,
        };
        let fence = Fence::of_revision(term);
        let store = FencedStore::new(Arc::new(self.store.handle(h)), fence);
        let executor = ready(Executor::load(Arc::new(store)))?;
        let preparer = Preparer::on_this_thread(registry());
        let world = ready(restore(&executor, &preparer, &about, true))?;
        Ok(ControlLoop::new(world, executor))
    }

    /// The lead is over; the process follows again.
    pub fn step_down(&mut self, h: usize, why: &str) {
        let Some(lead) = self.heads[h].lead.take() else {
            return;
        };
        self.log(&format!("head{h} leads no more: {why}"));
        self.store.lock().resign(h, lead.term);
        for conn in lead.sessions.keys() {
            self.net.close(&mut self.queue, *conn, 1, false);
        }
        let pause = self.rng.range(50, 500);
        self.head_after(h, pause, Timer::Campaign);
    }

    // ---- sessions ----

    pub fn session_opened(&mut self, h: usize, conn: ConnId) {
        let now = self.queue.now();
        if let Some(lead) = self.heads[h].lead.as_mut() {
            let number = lead.next_session;
            lead.next_session += 1;
            let session = Session {
                number,
                peer: Peer::Unknown,
                heard_at: now,
                sent: 0,
            };
            lead.sessions.insert(conn, session);
        }
    }

    pub fn reported(&mut self, h: usize, conn: ConnId, message: Message) {
        let now = self.queue.now();
        let Some(lead) = self.heads[h].lead.as_mut() else {
            return;
        };
        let seen_at = lead.now(now);
        let Some(session) = lead.sessions.get_mut(&conn) else {
            return;
        };
        session.heard_at = now;
        let number = session.number;
        let heard = match message {
            Message::WorkerReport(report) => {
                session.peer = Peer::Worker(report.worker_id.clone());
                let worker = wire::worker(*report);
                worker.map(|worker| {
                    let worker = Box::new(worker);
                    lead.control.worker_reported(number, worker, seen_at)
                })
            }
            Message::RouterReport(report) => {
                session.peer = Peer::Router(report.router_id.clone());
                let router = Box::new(wire::router(*report));
                Some(lead.control.router_reported(number, router, seen_at))
            }
            _ => None,
        };
        match heard {
            None | Some(Heard::Superseded) => self.end_session(h, conn),
            Some(Heard::Repetition) => self.publish(h, 0),
            Some(Heard::News) => self.head_follow_up(h),
        }
    }

    pub fn session_closed(&mut self, h: usize, conn: ConnId) {
        self.end_session(h, conn);
        self.head_follow_up(h);
    }

    fn end_session(&mut self, h: usize, conn: ConnId) {
        let now = self.queue.now();
        self.net.close(&mut self.queue, conn, 1, false);
        let Some(lead) = self.heads[h].lead.as_mut() else {
            return;
        };
        let seen_at = lead.now(now);
        let Some(session) = lead.sessions.remove(&conn) else {
            return;
        };
        match session.peer {
            Peer::Unknown => {}
            Peer::Worker(id) => lead.control.worker_gone(session.number, id, seen_at),
            Peer::Router(id) => lead.control.router_gone(session.number, id, seen_at),
        }
    }

    fn end_silent_sessions(&mut self, h: usize) {
        let now = self.queue.now();
        let Some(lead) = self.heads[h].lead.as_ref() else {
            return;
        };
        let silent = |session: &Session| now - session.heard_at >= ms(SESSION_SILENT_MAX);
        let sessions = lead.sessions.iter();
        let silent: Vec<ConnId> = sessions
            .filter(|(_, session)| silent(session))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in silent {
            self.end_session(h, conn);
        }
    }

    // ---- the control loop ----

    /// Plans, and sends what follows once the store has answered.
    pub fn head_follow_up(&mut self, h: usize) {
        let now = self.queue.now();
        let Some(lead) = self.heads[h].lead.as_mut() else {
            return;
        };
        let seen_at = lead.now(now);
        let next_replica = &mut self.next_replica;
        let mut new_id = || {
            *next_replica += 1;
            format!("r{next_replica:07}")
        };
        let shortage = ready(lead.control.step(|| seen_at, &mut new_id, |_| {}));
        let demand = shortage.map(|shortage| lead.control.world.demand(&shortage, seen_at));
        self.check.promised(&lead.control.world);
        let hold = self.store.lock().take_spent_ms();
        self.heads[h].busy_until = now + hold;
        self.publish(h, hold);
        if let Some(demand) = demand {
            self.provision(h, &demand);
        }
        self.schedule_tick(h);
    }

    fn publish(&mut self, h: usize, hold: u64) {
        let now = self.queue.now();
        let Some(lead) = self.heads[h].lead.as_mut() else {
            return;
        };
        let forgets = self.sabotage == Some(Sabotage::ForgetOldVersion);
        let published = &lead.control.world.published;
        let mut out = Vec::new();
        for (conn, session) in &mut lead.sessions {
            let found = match &session.peer {
                Peer::Unknown => None,
                Peer::Worker(id) => published.assignments().get(id).map(|assignment| {
                    let mut assignment = assignment.clone();
                    if forgets {
                        forget_old_versions(&lead.control.world, &mut assignment);
                    }
                    let message = Message::Assignment(Box::new(assignment.clone()));
                    (assignment.version, message)
                }),
                Peer::Router(_) => published
                    .table()
                    .map(|table| (table.version, Message::Table(Box::new(table.clone())))),
            };
            if let Some((version, message)) = found
                && version > 0
                && version != session.sent
            {
                session.sent = version;
                out.push((*conn, message));
            }
        }
        if let Some(table) = published.table()
            && table.version != lead.published
        {
            lead.published = table.version;
            self.check.published(table);
            let text = format!("head{h} publishes table {}", table.version);
            self.log.line(now, &text);
        }
        for (conn, message) in out {
            self.net.send(&mut self.queue, conn, 1, message, hold);
        }
        self.watch_targets(h);
        self.watch_compaction(h);
    }

    fn schedule_tick(&mut self, h: usize) {
        let now = self.queue.now();
        let Some(lead) = self.heads[h].lead.as_mut() else {
            return;
        };
        let pause = if lead.control.world.is_in_progress() {
            BUSY_TICK_MS
        } else {
            IDLE_TICK_MS
        };
        let at = now + pause;
        if lead.next_tick.is_some_and(|next| next <= at) {
            return;
        }
        lead.next_tick = Some(at);
        lead.tick += 1;
        let (term, tick) = (lead.term, lead.tick);
        let life = self.heads[h].life;
        self.queue
            .at(at, Event::Head(h, life, Timer::Tick(term, tick)));
    }
}

/// What a head does that does not care for the version that serves.
fn forget_old_versions(world: &World, assignment: &mut v1::WorkerAssignment) {
    assignment.replicas.retain(|replica| {
        let application = world.applications.get(&replica.application);
        let deployment = application.and_then(|app| app.deployments.get(&replica.deployment));
        deployment.is_some_and(|d| d.spec.replica.code_version == replica.code_version)
    });
}
