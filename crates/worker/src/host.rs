//! The host: the actor that owns the set of replicas and supervises them.
//!
//! It turns assignments into replica actors and survives all of them: a child that dies becomes a
//! FAILED report, and the head decides what comes in its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobula_app::GpuShare;
use mobula_proto::v1::{AssignedReplica, WorkerAssignment};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};

use crate::assignment::{Change, Order, Told, diff};
use crate::board::{Board, Hosted};
use crate::gpus::Gpus;
use crate::lifecycle::{Event, Phase};
use crate::replica::{Builder, ReplicaActor, ReplicaArgs, ReplicaMsg};

/// What the host is told. Whoever sends waits for the reply, so the mailbox stays short.
pub(crate) enum HostMsg {
    /// Run exactly these.
    Apply(Order, WorkerAssignment, RpcReplyPort<()>),
    /// Stop everything, and start nothing any more.
    Retire(RpcReplyPort<()>),
    /// The head has heard that these ended.
    Forget(Vec<String>, RpcReplyPort<()>),
}

pub(crate) struct Host;

pub(crate) struct HostArgs {
    pub board: Arc<Board>,
    pub builder: Arc<Builder>,
    pub gpus: Gpus,
}

pub(crate) struct Hosting {
    board: Arc<Board>,
    builder: Arc<Builder>,
    replicas: BTreeMap<String, (Told, Hosted)>,
    gpus: Gpus,
    newest: Order,
    retiring: bool,
}

impl Actor for Host {
    type Msg = HostMsg;
    type State = Hosting;
    type Arguments = HostArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<HostMsg>,
        args: HostArgs,
    ) -> Result<Hosting, ActorProcessingErr> {
        Ok(Hosting {
            board: args.board,
            builder: args.builder,
            replicas: BTreeMap::new(),
            gpus: args.gpus,
            newest: Order::default(),
            retiring: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<HostMsg>,
        message: HostMsg,
        hosting: &mut Hosting,
    ) -> Result<(), ActorProcessingErr> {
        let reply = match message {
            HostMsg::Apply(order, assignment, reply) => {
                hosting.apply(order, assignment, &myself).await;
                reply
            }
            HostMsg::Retire(reply) => {
                hosting.retiring = true;
                hosting.make_real(&[], &myself).await;
                reply
            }
            HostMsg::Forget(ids, reply) => {
                hosting.forget(&ids);
                reply
            }
        };
        // Whoever asked may be gone; what was asked is done all the same.
        let _ = reply.send(());
        Ok(())
    }

    /// The default would stop the host with its first dead child.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<HostMsg>,
        event: SupervisionEvent,
        hosting: &mut Hosting,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(child, error) => {
                hosting.died(
                    child.get_id(),
                    &format!("the replica's actor failed: {error}"),
                );
            }
            SupervisionEvent::ActorTerminated(child, _, _) => {
                hosting.died(child.get_id(), "the replica's actor ended");
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

// === impl Hosting ===

impl Hosting {
    async fn apply(
        &mut self,
        order: Order,
        assignment: WorkerAssignment,
        myself: &ActorRef<HostMsg>,
    ) {
        if order <= self.newest || self.retiring {
            return;
        }
        self.newest = order;
        self.make_real(&assignment.replicas, myself).await;
        self.board.set_applied_version(order.version);
    }

    async fn make_real(&mut self, wanted: &[AssignedReplica], myself: &ActorRef<HostMsg>) {
        let have = self
            .replicas
            .iter()
            .map(|(id, (told, _))| (id.clone(), told.clone()))
            .collect();
        for change in diff(&have, wanted) {
            match change {
                Change::Start(assigned) => self.start(*assigned, myself).await,
                Change::Reconfigure(id, config) => {
                    self.tell(&id, |told| told.config_version.clone_from(&config.version));
                    self.cast(&id, ReplicaMsg::Configure(config));
                }
                Change::UpdateLimits(id, limits) => {
                    self.tell(&id, |told| told.limits = limits.clone());
                    self.cast(&id, ReplicaMsg::Limits(limits));
                }
                Change::Stop(id) => self.stop(&id),
            }
        }
        self.publish();
    }

    async fn start(&mut self, assigned: AssignedReplica, myself: &ActorRef<HostMsg>) {
        let id = assigned.replica_id.clone();
        let told = Told::of(&assigned);
        let cell = self.board.cell(&assigned);
        let args = ReplicaArgs {
            cell: cell.clone(),
            gpus: self.gpus_for(&assigned),
            assigned,
            builder: self.builder.clone(),
        };
        // Its pre_start constructs nothing, so this does not hold up the host.
        match Actor::spawn_linked(None, ReplicaActor, args, myself.get_cell()).await {
            Ok((actor, _)) => {
                let hosted = Hosted {
                    cell,
                    actor,
                    drain_timeout: told.limits.drain_timeout,
                };
                self.replicas.insert(id, (told, hosted));
            }
            // It is missing in the report, so the head plans again.
            Err(error) => tracing::error!(replica = %id, %error, "replica actor did not start"),
        }
    }

    /// What has ended holds nothing any more, also while the head has not heard of its end.
    fn gpus_for(&mut self, assigned: &AssignedReplica) -> Result<Vec<GpuShare>, String> {
        let replicas = &self.replicas;
        let lives = |id: &str| {
            let found = replicas.get(id);
            found.is_some_and(|(_, hosted)| hosted.cell.phase() != Phase::Stopped)
        };
        self.gpus.give_back(|id| !lives(id));
        self.gpus.take(&assigned.replica_id, assigned.num_gpus)
    }

    fn stop(&mut self, id: &str) {
        self.tell(id, |told| told.stopping = true);
        if let Some((_, hosted)) = self.replicas.get(id)
            && hosted.actor.cast(ReplicaMsg::Stop).is_err()
        {
            hosted.ended();
        }
    }

    fn tell(&mut self, id: &str, change: impl FnOnce(&mut Told)) {
        if let Some((told, _)) = self.replicas.get_mut(id) {
            change(told);
        }
    }

    fn cast(&self, id: &str, message: ReplicaMsg) {
        if let Some((_, hosted)) = self.replicas.get(id) {
            // A dead actor was reported as failed already.
            let _ = hosted.actor.cast(message);
        }
    }

    fn forget(&mut self, ids: &[String]) {
        let before = self.replicas.len();
        for id in ids {
            let ended = self
                .replicas
                .get(id)
                .is_some_and(|(_, hosted)| hosted.cell.phase() == Phase::Stopped);
            if ended {
                self.replicas.remove(id);
            }
        }
        if self.replicas.len() != before {
            self.publish();
        }
    }

    fn died(&self, child: ActorId, message: &str) {
        let found = self
            .replicas
            .values()
            .find(|(_, hosted)| hosted.actor.get_id() == child);
        if let Some((told, hosted)) = found {
            // Means nothing to one that stopped or failed before.
            hosted.cell.happened(Event::Died, message);
            if told.stopping {
                hosted.ended();
            }
        }
    }

    fn publish(&self) {
        let directory = self
            .replicas
            .iter()
            .map(|(id, (told, hosted))| {
                let drain_timeout = told.limits.drain_timeout;
                let hosted = Hosted {
                    drain_timeout,
                    ..hosted.clone()
                };
                (id.clone(), hosted)
            })
            .collect();
        self.board.publish(Arc::new(directory));
    }
}

#[cfg(test)]
mod tests;
