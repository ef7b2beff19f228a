//! The actor that owns one replica: its code, its calls, its health, its config.
//!
//! It never waits for user code: construction, `reconfigure`, health checks, drain and every call
//! run beside it and report by message. A call's permit travels in its message, so the mailbox
//! holds at most `max_ongoing_requests` calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_app::{GpuShare, Leave, Replica};
use mobula_proto::v1::AssignedReplica;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::blocking::Blocking;
use super::checks::Checks;
use super::start::{Builder, start};
use super::tasks;
use super::threads::Threads;
use crate::assignment::{Limits, UserConfig};
use crate::board::Cell;
use crate::data_plane::Job;
use crate::health::Verdict;
use crate::lifecycle::{Event, Phase};
use crate::metrics::ReplicaMetrics;

/// Calls that have given back their permit may still be writing their last frame; a router that
/// does not read for this long loses it.
const LAST_FRAMES_WAIT_MAX: Duration = Duration::from_secs(5);

/// What happens to a replica actor.
pub(crate) enum ReplicaMsg {
    Call(Box<Job>),
    Constructed(Result<Arc<dyn Replica>, String>),
    Configure(UserConfig),
    /// The version, and how it went.
    Configured(String, Result<(), String>),
    Limits(Limits),
    Health(Verdict),
    Stop,
    Drained {
        in_time: bool,
    },
}

pub(crate) struct ReplicaActor;

pub(crate) struct ReplicaArgs {
    pub cell: Arc<Cell>,
    pub assigned: AssignedReplica,
    pub builder: Arc<Builder>,
    /// What it gets of the worker's GPUs, or why it cannot have what it asks for.
    pub gpus: Result<Vec<GpuShare>, String>,
}

pub(crate) struct ReplicaOwner {
    cell: Arc<Cell>,
    code: Option<Arc<dyn Replica>>,
    metrics: Arc<ReplicaMetrics>,
    blocking: Arc<Blocking>,
    threads: Threads,
    limits: watch::Sender<Limits>,
    wanted: UserConfig,
    in_force: String,
    configuring: bool,
    /// Dropping these aborts what is in them.
    calls: JoinSet<()>,
    beside: JoinSet<()>,
}

impl Actor for ReplicaActor {
    type Msg = ReplicaMsg;
    type State = ReplicaOwner;
    type Arguments = ReplicaArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<ReplicaMsg>,
        args: ReplicaArgs,
    ) -> Result<ReplicaOwner, ActorProcessingErr> {
        let limits = Limits::of(&args.assigned);
        let mut owner = ReplicaOwner {
            metrics: metrics_of(&args.cell, &limits),
            blocking: Blocking::new(&args.cell.replica_id, &args.cell.deployment),
            threads: args.builder.threads.clone(),
            wanted: UserConfig::of(&args.assigned),
            in_force: args.assigned.config_version.clone(),
            configuring: false,
            code: None,
            calls: JoinSet::new(),
            beside: JoinSet::new(),
            cell: args.cell,
            limits: watch::Sender::new(limits.clone()),
        };
        owner.beside.spawn(async move {
            let started = match args.gpus {
                Ok(gpus) => start(args.builder, args.assigned, gpus).await,
                Err(text) => Err(text),
            };
            // An actor that is gone does not want the replica any more.
            let _ = myself.cast(ReplicaMsg::Constructed(started));
        });
        Ok(owner)
    }

    async fn handle(
        &self,
        myself: ActorRef<ReplicaMsg>,
        message: ReplicaMsg,
        owner: &mut ReplicaOwner,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ReplicaMsg::Call(job) => owner.call(job),
            ReplicaMsg::Constructed(Ok(code)) => owner.constructed(code, &myself),
            ReplicaMsg::Constructed(Err(text)) => owner.failed(&text),
            ReplicaMsg::Configure(config) => owner.configure(config, &myself),
            ReplicaMsg::Configured(version, Ok(())) => owner.configured(version, &myself),
            ReplicaMsg::Configured(_, Err(text)) => owner.failed(&text),
            ReplicaMsg::Limits(limits) => owner.limit(limits),
            ReplicaMsg::Health(verdict) => owner.judged(&verdict),
            ReplicaMsg::Stop => owner.stop(&myself),
            ReplicaMsg::Drained { in_time } => owner.drained(in_time, &myself).await,
        }
        Ok(())
    }
}

// === impl ReplicaOwner ===

impl ReplicaOwner {
    fn call(&mut self, job: Box<Job>) {
        while self.calls.try_join_next().is_some() {}
        // The gate opens only when the code is there; a job that is dropped says so itself.
        if let Some(code) = &self.code {
            let (code, metrics) = (code.clone(), self.metrics.clone());
            self.calls
                .spawn(self.blocking.guard(move || job.run(code, metrics)));
        }
    }

    fn constructed(&mut self, code: Arc<dyn Replica>, myself: &ActorRef<ReplicaMsg>) {
        if self.cell.phase() != Phase::Starting {
            return;
        }
        self.code = Some(code);
        self.cell.config_in_force(&self.in_force);
        self.settle(myself);
    }

    fn configure(&mut self, config: UserConfig, myself: &ActorRef<ReplicaMsg>) {
        self.wanted = config;
        if self.code.is_some() && !self.configuring {
            self.settle(myself);
        }
    }

    fn configured(&mut self, version: String, myself: &ActorRef<ReplicaMsg>) {
        self.configuring = false;
        self.cell.config_in_force(&version);
        self.in_force = version;
        self.settle(myself);
    }

    /// Brings the config in force to the wanted one, one `reconfigure` at a time; what came
    /// during the start is applied before the replica is ready.
    fn settle(&mut self, myself: &ActorRef<ReplicaMsg>) {
        while self.beside.try_join_next().is_some() {}
        let Some(code) = &self.code else { return };
        if self.in_force == self.wanted.version {
            self.cell.happened(Event::Reconfigured, "");
            if self.cell.happened(Event::Ready, "") {
                self.metrics.started();
                let health = tasks::watch_health(
                    self.cell.replica_id.clone(),
                    Checks::new(Arc::clone(code), self.threads.clone()),
                    self.limits.subscribe(),
                    myself.clone(),
                );
                self.beside.spawn(health);
            }
            return;
        }
        self.configuring = true;
        self.cell.happened(Event::Reconfigure, "");
        let configure = tasks::configure(
            Arc::clone(code),
            self.threads.clone(),
            self.wanted.clone(),
            myself.clone(),
        );
        self.beside.spawn(configure);
    }

    fn limit(&mut self, limits: Limits) {
        self.cell.gate.set_limit(limits.max_ongoing_requests);
        if self.limits.borrow().route_prefix != limits.route_prefix {
            self.metrics = metrics_of(&self.cell, &limits);
        }
        self.limits.send_replace(limits);
    }

    fn judged(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Lost(text) => self.cell.happened(Event::HealthLost, text),
            Verdict::Regained => self.cell.happened(Event::HealthRegained, ""),
        };
    }

    /// The head decides about a replacement. Calls that were accepted may finish.
    fn failed(&mut self, text: &str) {
        self.beside.abort_all();
        self.cell.happened(Event::Died, text);
    }

    fn stop(&mut self, myself: &ActorRef<ReplicaMsg>) {
        if !self.cell.happened(Event::Stop, "") {
            return;
        }
        // Ends a start, a reconfigure and the health checks.
        self.beside.abort_all();
        let Some(code) = self.code.clone() else {
            self.cell.happened(Event::Drained, "");
            myself.stop(None);
            return;
        };
        let limits = self.limits.borrow().clone();
        let leave = Leave::within(Leave::RESTART, limits.drain_timeout, Instant::now());
        self.cell.leaving.tell(leave);
        let drain = tasks::drain(
            code,
            self.threads.clone(),
            limits,
            self.cell.gate.clone(),
            myself.clone(),
        );
        self.beside.spawn(drain);
    }

    async fn drained(&mut self, in_time: bool, myself: &ActorRef<ReplicaMsg>) {
        let mut message = "";
        if in_time {
            let last_frames = async { while self.calls.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(LAST_FRAMES_WAIT_MAX, last_frames).await;
        } else if self.cell.gate.ongoing() > 0 {
            message = "killed: graceful_shutdown_timeout_s passed with requests in progress";
        } else {
            message = "killed: graceful_shutdown_timeout_s passed before shutdown came back";
        }
        self.calls.shutdown().await;
        self.cell.happened(Event::Drained, message);
        myself.stop(None);
    }
}

fn metrics_of(cell: &Cell, limits: &Limits) -> Arc<ReplicaMetrics> {
    Arc::new(ReplicaMetrics::new(
        &cell.application,
        &cell.deployment,
        &cell.replica_id,
        &limits.route_prefix,
    ))
}
