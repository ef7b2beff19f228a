//! The one owner of the [`World`]: an actor that folds in what happens, plans, makes the
//! decisions durable, and publishes what others shall have.
//!
//! It has no opinion of its own: what a message means is `world::observe`, what follows is
//! `world::plan`. Others see the world through replies and `watch` channels.

mod changes;

use std::collections::HashMap;
use std::time::Duration;

use mobula_process::ids;
use mobula_proto::v1;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::executor::Executor;
use crate::loop_stats::LoopMeter;
use crate::message::{Message, ScaleError, SessionNumber};
use crate::metrics;
use crate::outbox::Outbox;
use crate::record::record;
use crate::status::{About, ApiType, LoopStats, document};
use crate::world::observed::{Router, Worker};
use crate::world::preview::preview;
use crate::world::{DeploymentId, Event, Now, RouterId, WorkerId, World};

/// The pause between two looks while something is under way that only time ends.
const BUSY_TICK: Duration = Duration::from_millis(100);

/// The pause while nothing is: only lost workers are found by it.
const IDLE_TICK: Duration = Duration::from_secs(1);

/// Steps that take less are made for every message: waiting would cost more than it saves.
const STEP_PAUSE_MIN: Duration = Duration::from_millis(2);

/// Plans made in a row for one message. A plan that follows from the one before needs two or
/// three; more is left to the next tick, so that nobody waits long for an answer.
const PLANS_PER_STEP_MAX: usize = 8;

/// The actor.
pub struct Controller;

/// What it starts with.
pub struct Arguments {
    pub world: World,
    pub executor: Executor,
    pub about: About,
    pub started: Instant,
    pub outbox: Outbox,
}

/// What the actor owns.
pub struct State {
    world: World,
    executor: Executor,
    about: About,
    started: Instant,
    outbox: Outbox,
    worker_sessions: HashMap<WorkerId, SessionNumber>,
    router_sessions: HashMap<RouterId, SessionNumber>,
    meter: LoopMeter,
    tick_number: u64,
    next_tick: Option<Instant>,
    /// When the last step ended, and how long it took.
    last_step: Option<(Instant, Duration)>,
}

// === impl Controller ===

impl Actor for Controller {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let Arguments {
            world,
            executor,
            about,
            started,
            outbox,
        } = arguments;
        let mut state = State {
            world,
            executor,
            about,
            started,
            outbox,
            worker_sessions: HashMap::new(),
            router_sessions: HashMap::new(),
            meter: LoopMeter::default(),
            tick_number: 0,
            next_tick: None,
            last_step: None,
        };
        state.step(&myself).await;
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Deploy { proposal, reply } => {
                let answer = state.deploy(*proposal).await;
                answered(reply.send(answer));
            }
            Message::DeleteAll { reply } => answered(reply.send(state.delete_all().await)),
            Message::Scale {
                deployment,
                target,
                reply,
            } => {
                answered(reply.send(state.scale(deployment, target)));
            }
            // Questions change nothing, so nothing follows from them.
            Message::Config { revision, reply } => {
                answered(reply.send(state.config(revision).await));
                return Ok(());
            }
            Message::History { reply } => {
                answered(reply.send(state.executor.history().clone()));
                return Ok(());
            }
            Message::Preview { spec, reply } => {
                answered(reply.send(preview(&state.world, &spec)));
                return Ok(());
            }
            Message::Status { filter, reply } => {
                answered(reply.send(state.status(filter)));
                return Ok(());
            }
            Message::Scrape { reply } => {
                answered(reply.send(state.scrape()));
                return Ok(());
            }
            Message::Ready { reply } => {
                answered(reply.send(state.world.is_synced(state.now())));
                return Ok(());
            }
            Message::WorkerReported {
                session,
                worker,
                reply,
            } => {
                let assignment = state.worker_reported(session, worker, &myself).await;
                answered(reply.send(assignment));
                return Ok(());
            }
            Message::WorkerGone { session, worker } => state.worker_gone(session, worker),
            Message::WorkerExited { pid, how } => {
                let node_id = state.about.node_id.clone();
                state.observe(Event::WorkerExited { node_id, pid, how });
            }
            Message::Supplied(supply) => state.observe(Event::Supplied(supply)),
            Message::PodGone(pod) => state.observe(Event::PodGone(pod)),
            Message::RouterReported {
                session,
                router,
                reply,
            } => {
                let (known, news) = state.router_reported(session, router);
                answered(reply.send(known));
                if !news {
                    return Ok(());
                }
            }
            Message::RouterGone { session, router } => state.router_gone(session, router),
            Message::Tick(number) => {
                if number != state.tick_number {
                    return Ok(());
                }
                state.next_tick = None;
                state.observe(Event::Tick);
                state.step(&myself).await;
                return Ok(());
            }
        }
        state.step_soon(&myself).await;
        Ok(())
    }
}

/// Whoever asked may have gone away meanwhile; that is his affair.
fn answered<T>(_: Result<(), ractor::MessagingErr<T>>) {}

// === impl State ===

impl State {
    fn now(&self) -> Now {
        let elapsed = self.started.elapsed();
        Now {
            ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            unix_s: self.about.started_at_s + elapsed.as_secs_f64(),
        }
    }

    fn observe(&mut self, event: Event) {
        let now = self.now();
        self.world.observe(event, now);
        self.record_notes();
    }

    /// Folds a report in; false: it said nothing new.
    fn observe_news(&mut self, event: Event) -> bool {
        let news = !self.world.is_repetition(&event);
        if news {
            self.observe(event);
        } else {
            let now = self.now();
            self.world.hear(&event, now);
        }
        news
    }

    fn record_notes(&mut self) {
        for note in self.world.notes.drain(..) {
            record(note);
        }
    }

    fn scale(&mut self, id: DeploymentId, target: u32) -> Result<(), ScaleError> {
        let application = self
            .world
            .applications
            .get(&id.application)
            .ok_or(ScaleError::NotFound)?;
        let deployment = application
            .deployments
            .get(&id.deployment)
            .ok_or(ScaleError::NotFound)?;
        if application.deleting || deployment.deleting {
            return Err(ScaleError::Deleted);
        }
        if !application.declared.external_scaler_enabled {
            return Err(ScaleError::NotEnabled);
        }
        info!(deployment = %id, target, "the scale route set a count");
        self.observe(Event::Scale {
            deployment: id,
            target,
        });
        Ok(())
    }

    fn status(&self, filter: Option<ApiType>) -> Value {
        let stats = LoopStats {
            memory_bytes: memory_bytes(),
            ..self.meter.stats()
        };
        document(&self.world, &self.about, &stats, filter, self.now())
    }

    fn scrape(&self) -> (String, Vec<String>) {
        let workers = self
            .world
            .workers
            .values()
            .filter(|worker| worker.disconnected_since_ms.is_none())
            .map(|worker| worker.data_addr.clone());
        (metrics::exposition(&self.world), workers.collect())
    }

    async fn worker_reported(
        &mut self,
        session: SessionNumber,
        worker: Box<Worker>,
        myself: &ActorRef<Message>,
    ) -> Option<watch::Receiver<v1::WorkerAssignment>> {
        let id = worker.id.clone();
        if !is_newest(&mut self.worker_sessions, &id, session) {
            return None;
        }
        if !self.world.workers.contains_key(&id) {
            info!(worker = %id, pid = worker.pid, capacity = %worker.capacity, "a worker joined");
        }
        self.meter.report_received();
        if self.observe_news(Event::WorkerReported(worker)) {
            self.step_soon(myself).await;
        }
        Some(self.outbox.assignments_of(id))
    }

    fn worker_gone(&mut self, session: SessionNumber, worker: WorkerId) {
        if self.worker_sessions.get(&worker) == Some(&session) {
            self.worker_sessions.remove(&worker);
            info!(%worker, "the session of a worker ended");
            self.observe(Event::WorkerDisconnected(worker));
        }
    }

    /// Whether the session counts, and whether anything may follow from the report.
    fn router_reported(&mut self, session: SessionNumber, router: Box<Router>) -> (bool, bool) {
        let id = router.id.clone();
        if !is_newest(&mut self.router_sessions, &id, session) {
            return (false, false);
        }
        let before = self.world.routers.get(&id);
        if before.is_none() {
            info!(router = %id, pid = router.pid, "a router joined");
        }
        if !router.error.is_empty() && before.is_none_or(|before| before.error != router.error) {
            warn!(router = %id, error = router.error, "a router does not serve");
        }
        self.meter.report_received();
        (true, self.observe_news(Event::RouterReported(router)))
    }

    fn router_gone(&mut self, session: SessionNumber, router: RouterId) {
        if self.router_sessions.get(&router) == Some(&session) {
            self.router_sessions.remove(&router);
            info!(%router, "the session of a router ended");
            self.observe(Event::RouterDisconnected(router));
        }
    }

    /// Steps now, or, where steps take long, a little later, together with what happens until
    /// then: at most half of the time is spent on steps.
    async fn step_soon(&mut self, myself: &ActorRef<Message>) {
        let rest = self.last_step.map_or(Duration::ZERO, |(ended, took)| {
            (ended + took).saturating_duration_since(Instant::now())
        });
        if rest < STEP_PAUSE_MIN {
            self.step(myself).await;
        } else {
            self.schedule(myself, rest);
        }
    }

    /// Plans until nothing follows; each round is durable before it is published.
    async fn step(&mut self, myself: &ActorRef<Message>) {
        let begun = Instant::now();
        let mut unplaced = Vec::new();
        for _ in 0..PLANS_PER_STEP_MAX {
            let now = self.now();
            self.world.autoscale(now);
            self.record_notes();
            let plan = self.world.plan(now, &mut ids::replica_id);
            for planned in &plan.actions {
                info!("{planned}");
                self.world.apply(&planned.action, now);
            }
            unplaced.clone_from(&plan.unplaced);
            self.world.mark_good(now);
            let taken_back = self.take_back_failed().await;
            if let Err(error) = self.save().await {
                // Nothing is published that is not durable; the next tick tries again.
                warn!(%error, "the decisions cannot be stored");
                break;
            }
            let published = self.world.publish(now);
            self.outbox.publish(&self.world);
            if plan.is_empty() && !published && !taken_back {
                break;
            }
        }
        self.outbox.ask(self.world.demand(&unplaced, self.now()));
        let pause = if self.world.is_in_progress() {
            BUSY_TICK
        } else {
            IDLE_TICK
        };
        self.last_step = Some((Instant::now(), begun.elapsed()));
        self.meter.pass(begun.elapsed(), pause, self.now().unix_s);
        self.schedule(myself, pause);
    }

    fn schedule(&mut self, myself: &ActorRef<Message>, pause: Duration) {
        let at = Instant::now() + pause;
        if self.next_tick.is_some_and(|next| next <= at) {
            return;
        }
        self.next_tick = Some(at);
        self.tick_number += 1;
        let number = self.tick_number;
        myself.send_after(pause, move || Message::Tick(number));
    }
}

fn is_newest(
    sessions: &mut HashMap<String, SessionNumber>,
    id: &str,
    session: SessionNumber,
) -> bool {
    let newest = sessions.entry(id.to_owned()).or_insert(session);
    *newest = session.max(*newest);
    *newest == session
}

/// Resident memory of this process; 0 where the system does not say.
fn memory_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
