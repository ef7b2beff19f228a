//! The one owner of the [`World`]: folds in what happens, plans, makes the decisions durable,
//! and publishes what others shall have.
//!
//! It has no opinion of its own: what an event means is `world::observe`, what follows is
//! `world::plan`. It has no clock and no ids either: both are arguments, so that the simulation
//! runs the same loop as the controller's actor. It only ever waits for the store.

mod changes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use tracing::{info, warn};

use changes::Unsettled;

use crate::decisions::Decisions;
use crate::executor::Executor;
use crate::message::SessionNumber;
use crate::record::record;
use crate::world::observed::{Router, Worker};
use crate::world::supply::Shortage;
use crate::world::{Event, Now, ReplicaId, RouterId, WorkerId, World};

/// Plans made in a row for one message. A plan that follows from the one before needs two or
/// three; more is left to the next tick, so that nobody waits long for an answer.
const PLANS_PER_STEP_MAX: usize = 8;

/// The world, what is stored of it, and who reports to it.
pub struct ControlLoop {
    pub world: World,
    pub executor: Executor,
    /// For people who ask why.
    pub decisions: Decisions,
    worker_sessions: BTreeMap<WorkerId, SessionNumber>,
    router_sessions: BTreeMap<RouterId, SessionNumber>,
    unsettled: Option<Unsettled>,
}

/// What a report is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A newer session of the same process took over.
    Superseded,
    /// It said nothing new.
    Repetition,
    News,
}

// === impl ControlLoop ===

impl ControlLoop {
    /// Takes over what an earlier head left.
    pub fn new(world: World, executor: Executor) -> ControlLoop {
        ControlLoop {
            world,
            executor,
            decisions: Decisions::default(),
            worker_sessions: BTreeMap::new(),
            router_sessions: BTreeMap::new(),
            unsettled: None,
        }
    }

    /// Folds one event in.
    pub fn observe(&mut self, event: Event, now: Now) {
        self.world.observe(event, now);
        self.record_notes(now);
    }

    fn observe_news(&mut self, event: Event, now: Now) -> Heard {
        if self.world.is_repetition(&event) {
            self.world.hear(event, now);
            return Heard::Repetition;
        }
        self.observe(event, now);
        Heard::News
    }

    fn record_notes(&mut self, now: Now) {
        for note in self.world.notes.drain(..) {
            self.decisions.noted(&note, now.unix_s);
            record(note);
        }
    }

    /// A worker's report.
    pub fn worker_reported(
        &mut self,
        session: SessionNumber,
        worker: Box<Worker>,
        now: Now,
    ) -> Heard {
        let id = &worker.id;
        if !is_newest(&mut self.worker_sessions, id, session) {
            return Heard::Superseded;
        }
        if !self.world.workers.contains_key(id) {
            info!(worker = %id, pid = worker.pid, version = worker.version, capacity = %worker.capacity, "a worker joined");
            let has = format!("it has {}", worker.capacity);
            self.decisions
                .happened(id, "a worker joined", &has, now.unix_s);
        }
        self.observe_news(Event::WorkerReported(worker), now)
    }

    /// The session of a worker ended.
    pub fn worker_gone(&mut self, session: SessionNumber, worker: WorkerId, now: Now) {
        if self.worker_sessions.get(&worker) == Some(&session) {
            self.worker_sessions.remove(&worker);
            info!(%worker, "the session of a worker ended");
            self.decisions
                .happened(&worker, "the session of a worker ended", "", now.unix_s);
            self.observe(Event::WorkerDisconnected(worker), now);
        }
    }

    /// A router's report.
    pub fn router_reported(
        &mut self,
        session: SessionNumber,
        router: Box<Router>,
        now: Now,
    ) -> Heard {
        let id = &router.id;
        if !is_newest(&mut self.router_sessions, id, session) {
            return Heard::Superseded;
        }
        let before = self.world.routers.get(id);
        if before.is_none() {
            info!(router = %id, pid = router.pid, version = router.version, "a router joined");
            self.decisions
                .happened(id, "a router joined", "", now.unix_s);
        }
        if !router.error.is_empty() && before.is_none_or(|before| before.error != router.error) {
            warn!(router = %id, error = router.error, "a router does not serve");
        }
        self.observe_news(Event::RouterReported(router), now)
    }

    /// The session of a router ended.
    pub fn router_gone(&mut self, session: SessionNumber, router: RouterId, now: Now) {
        if self.router_sessions.get(&router) == Some(&session) {
            self.router_sessions.remove(&router);
            info!(%router, "the session of a router ended");
            self.decisions
                .happened(&router, "the session of a router ended", "", now.unix_s);
            self.observe(Event::RouterDisconnected(router), now);
        }
    }

    /// Plans until nothing follows; each round is durable before it is published. Says what the
    /// newest plan had no room for; None: nothing was planned.
    pub async fn step(
        &mut self,
        clock: impl Fn() -> Now + Send,
        new_id: &mut (dyn FnMut() -> ReplicaId + Send),
        mut publish: impl FnMut(&World) + Send,
    ) -> Option<Shortage> {
        let mut shortage = None;
        for _ in 0..PLANS_PER_STEP_MAX {
            let now = clock();
            if let Err(error) = self.settle(now).await {
                warn!(%error, "it is not known what is declared");
                break;
            }
            self.world.autoscale(now);
            self.world.compact(now);
            self.record_notes(now);
            let plan = self.world.plan(now, new_id);
            for planned in &plan.actions {
                info!("{planned}");
                self.decisions.planned(planned, now.unix_s);
                self.world.apply(&planned.action, now);
            }
            shortage = Some(plan.shortage.clone());
            self.world.mark_good(now);
            let taken_back = self.take_back_failed(now).await;
            if let Err(error) = self.save().await {
                // Nothing is published that is not durable; the next tick tries again.
                warn!(%error, "the decisions cannot be stored");
                break;
            }
            let published = self.world.publish(now);
            publish(&self.world);
            if plan.is_empty() && !published && !taken_back {
                break;
            }
        }
        shortage
    }
}

fn is_newest(
    sessions: &mut BTreeMap<String, SessionNumber>,
    id: &str,
    session: SessionNumber,
) -> bool {
    let newest = sessions.entry(id.to_owned()).or_insert(session);
    *newest = session.max(*newest);
    *newest == session
}
