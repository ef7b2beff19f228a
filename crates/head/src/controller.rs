//! The actor around the [`ControlLoop`]: it takes messages, gives the loop its clock and its
//! ticks, and answers. Others see the world through replies and `watch` channels.

use std::time::Duration;

use mobula_process::ids;
use mobula_proto::v1;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::control_loop::{ControlLoop, Heard};
use crate::executor::Executor;
use crate::loop_stats::LoopMeter;
use crate::message::{Message, SessionNumber};
use crate::metrics;
use crate::outbox::Outbox;
use crate::overview::{Overview, overview, replicas};
use crate::status::{About, ApiType, LoopStats, document};
use crate::world::observed::Worker;
use crate::world::preview::preview;
use crate::world::{Event, Now, World};

/// The pause between two looks while something is under way that only time ends.
const BUSY_TICK: Duration = Duration::from_millis(100);

/// The pause while nothing is: only lost workers are found by it.
const IDLE_TICK: Duration = Duration::from_secs(1);

/// Steps that take less are made for every message: waiting would cost more than it saves.
const STEP_PAUSE_MIN: Duration = Duration::from_millis(2);

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
    control: ControlLoop,
    about: About,
    started: Instant,
    outbox: Outbox,
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
            control: ControlLoop::new(world, executor),
            about,
            started,
            outbox,
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
                let now = state.now();
                let answer = state.control.deploy(*proposal, now).await;
                answered(reply.send(answer));
            }
            Message::DeleteAll { reply } => {
                let now = state.now();
                answered(reply.send(state.control.delete_all(now).await));
            }
            Message::Scale {
                deployment,
                target,
                reply,
            } => {
                let now = state.now();
                answered(reply.send(state.control.scale(deployment, target, now).await));
            }
            // Questions change nothing, so nothing follows from them.
            Message::Config { revision, reply } => {
                answered(reply.send(state.control.config(revision).await));
                return Ok(());
            }
            Message::History { reply } => {
                answered(reply.send(state.control.executor.history().clone()));
                return Ok(());
            }
            Message::Preview { spec, reply } => {
                answered(reply.send(preview(&state.control.world, &spec)));
                return Ok(());
            }
            Message::Status { filter, reply } => {
                answered(reply.send(state.status(filter)));
                return Ok(());
            }
            Message::Overview { reply } => {
                answered(reply.send(Box::new(state.overview())));
                return Ok(());
            }
            Message::Replicas { deployment, reply } => {
                let found = replicas(&state.control.world, &deployment, state.now());
                answered(reply.send(found));
                return Ok(());
            }
            Message::Scrape { reply } => {
                answered(reply.send(state.scrape()));
                return Ok(());
            }
            Message::Ready { reply } => {
                answered(reply.send(state.control.world.is_synced(state.now())));
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
            Message::WorkerGone { session, worker } => {
                let now = state.now();
                state.control.worker_gone(session, worker, now);
            }
            Message::WorkerExited { pid, how } => {
                let node_id = state.about.node_id.clone();
                let now = state.now();
                let exited = Event::WorkerExited { node_id, pid, how };
                state.control.observe(exited, now);
            }
            Message::Supplied(supply) => {
                let now = state.now();
                state.control.observe(Event::Supplied(supply), now);
            }
            Message::PodGone(pod) => {
                let now = state.now();
                state.control.observe(Event::PodGone(pod), now);
            }
            Message::RouterReported {
                session,
                router,
                reply,
            } => {
                let now = state.now();
                state.meter.report_received();
                let heard = state.control.router_reported(session, router, now);
                answered(reply.send(heard != Heard::Superseded));
                if heard != Heard::News {
                    return Ok(());
                }
            }
            Message::RouterGone { session, router } => {
                let now = state.now();
                state.control.router_gone(session, router, now);
            }
            Message::Tick(number) => {
                if number != state.tick_number {
                    return Ok(());
                }
                state.next_tick = None;
                let now = state.now();
                state.control.observe(Event::Tick, now);
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
        now_since(self.started, self.about.started_at_s)
    }

    fn status(&self, filter: Option<ApiType>) -> Value {
        let stats = LoopStats {
            memory_bytes: memory_bytes(),
            ..self.meter.stats()
        };
        document(&self.control.world, &self.about, &stats, filter, self.now())
    }

    fn overview(&self) -> Overview {
        let decisions = self.control.decisions.newest_first();
        let history = self.control.executor.history();
        let world = &self.control.world;
        overview(world, &self.about, history, decisions, self.now())
    }

    fn scrape(&self) -> (String, Vec<String>) {
        let workers = self
            .control
            .world
            .workers
            .values()
            .filter(|worker| worker.disconnected_since_ms.is_none())
            .map(|worker| worker.data_addr.clone());
        (metrics::exposition(&self.control.world), workers.collect())
    }

    async fn worker_reported(
        &mut self,
        session: SessionNumber,
        worker: Box<Worker>,
        myself: &ActorRef<Message>,
    ) -> Option<watch::Receiver<v1::WorkerAssignment>> {
        let id = worker.id.clone();
        let now = self.now();
        let heard = self.control.worker_reported(session, worker, now);
        if heard == Heard::Superseded {
            return None;
        }
        self.meter.report_received();
        if heard == Heard::News {
            self.step_soon(myself).await;
        }
        Some(self.outbox.assignments_of(id))
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

    /// Plans and publishes, and comes back when it is time to look again.
    async fn step(&mut self, myself: &ActorRef<Message>) {
        let begun = Instant::now();
        let (started, started_at_s) = (self.started, self.about.started_at_s);
        let outbox = &mut self.outbox;
        let shortage = self
            .control
            .step(
                || now_since(started, started_at_s),
                &mut ids::replica_id,
                |world| outbox.publish(world),
            )
            .await;
        if let Some(shortage) = shortage {
            let demand = self.control.world.demand(&shortage, self.now());
            self.outbox.ask(demand);
        }
        let pause = if self.control.world.is_in_progress() {
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

fn now_since(started: Instant, started_at_s: f64) -> Now {
    let elapsed = started.elapsed();
    Now {
        ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        unix_s: started_at_s + elapsed.as_secs_f64(),
    }
}

/// Resident memory of this process; 0 where the system does not say.
fn memory_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
