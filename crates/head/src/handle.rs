//! How the rest of the head asks the controller.

use std::time::Duration;

use mobula_proto::encoded::EncodedTable;
use mobula_proto::v1;
use mobula_store::StoreError;
use ractor::rpc::CallResult;
use ractor::{ActorRef, RpcReplyPort};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::watch;

use crate::history::History;
use crate::message::{DeployError, Deployed, Found, Message, Proposal, ScaleError, SessionNumber};
use crate::overview::{Overview, Replicas};
use crate::status::ApiType;
use crate::world::DeploymentId;
use crate::world::observed::{Router, Worker};
use crate::world::spec::DeploySpec;
use crate::world::supply::Demand;

/// A controller that does not answer within this time is stuck in a write to the store.
const CALL_SECONDS_MAX: Duration = Duration::from_secs(30);

/// The controller gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("Serve controller is not available")]
pub struct NoAnswer;

/// Asks the controller; cheap to clone.
#[derive(Clone)]
pub struct ControllerHandle {
    actor: ActorRef<Message>,
    table: watch::Receiver<EncodedTable>,
    serving: watch::Receiver<bool>,
    demand: watch::Receiver<Demand>,
}

// === impl ControllerHandle ===

impl ControllerHandle {
    /// A handle of a running actor.
    pub fn new(
        actor: ActorRef<Message>,
        table: watch::Receiver<EncodedTable>,
        serving: watch::Receiver<bool>,
        demand: watch::Receiver<Demand>,
    ) -> ControllerHandle {
        ControllerHandle {
            actor,
            table,
            serving,
            demand,
        }
    }

    /// What workers are needed for.
    pub fn demand(&self) -> watch::Receiver<Demand> {
        self.demand.clone()
    }

    /// The newest route table.
    pub fn table(&self) -> watch::Receiver<EncodedTable> {
        self.table.clone()
    }

    /// Whether anything is deployed or being deleted.
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.serving.clone()
    }

    /// Makes a config durable, then true.
    pub async fn deploy(
        &self,
        proposal: Proposal,
    ) -> Result<Result<Deployed, DeployError>, NoAnswer> {
        let proposal = Box::new(proposal);
        self.ask(|reply| Message::Deploy { proposal, reply }).await
    }

    /// The config of a revision, or the current one.
    pub async fn config(
        &self,
        revision: Option<u64>,
    ) -> Result<Result<Found, StoreError>, NoAnswer> {
        self.ask(|reply| Message::Config { revision, reply }).await
    }

    /// What was accepted, and what became of it.
    pub async fn history(&self) -> Result<History, NoAnswer> {
        self.ask(|reply| Message::History { reply }).await
    }

    /// What a config would do.
    pub async fn preview(&self, spec: DeploySpec) -> Result<Value, NoAnswer> {
        let spec = Box::new(spec);
        self.ask(|reply| Message::Preview { spec, reply }).await
    }

    /// Starts deleting everything.
    pub async fn delete_all(&self) -> Result<Result<(), StoreError>, NoAnswer> {
        self.ask(|reply| Message::DeleteAll { reply }).await
    }

    /// Sets a count.
    pub async fn scale(
        &self,
        deployment: DeploymentId,
        target: u32,
    ) -> Result<Result<(), ScaleError>, NoAnswer> {
        self.ask(|reply| Message::Scale {
            deployment,
            target,
            reply,
        })
        .await
    }

    /// The status document.
    pub async fn status(&self, filter: Option<ApiType>) -> Result<Value, NoAnswer> {
        self.ask(|reply| Message::Status { filter, reply }).await
    }

    /// What the dashboard shows.
    pub async fn overview(&self) -> Result<Box<Overview>, NoAnswer> {
        self.ask(|reply| Message::Overview { reply }).await
    }

    /// The replicas of a deployment; None: there is no such deployment.
    pub async fn replicas(&self, deployment: DeploymentId) -> Result<Option<Replicas>, NoAnswer> {
        self.ask(|reply| Message::Replicas { deployment, reply })
            .await
    }

    /// The head's state as metrics, and the addresses of the workers.
    pub async fn scrape(&self) -> Result<(String, Vec<String>), NoAnswer> {
        self.ask(|reply| Message::Scrape { reply }).await
    }

    /// Whether the stored state is loaded and everybody of before has reported.
    pub async fn is_ready(&self) -> bool {
        self.ask(|reply| Message::Ready { reply })
            .await
            .unwrap_or(false)
    }

    /// Hands a report in; None: a newer session took over.
    pub async fn worker_reported(
        &self,
        session: SessionNumber,
        worker: Worker,
    ) -> Result<Option<watch::Receiver<v1::WorkerAssignment>>, NoAnswer> {
        let worker = Box::new(worker);
        self.ask(|reply| Message::WorkerReported {
            session,
            worker,
            reply,
        })
        .await
    }

    /// Hands a report in; false: a newer session took over.
    pub async fn router_reported(
        &self,
        session: SessionNumber,
        router: Router,
    ) -> Result<bool, NoAnswer> {
        let router = Box::new(router);
        self.ask(|reply| Message::RouterReported {
            session,
            router,
            reply,
        })
        .await
    }

    /// Tells without waiting; for what happens once per session or process.
    pub fn tell(&self, message: Message) {
        // A controller that is gone has taken the head down with it.
        let _ = self.actor.cast(message);
    }

    async fn ask<T: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<T>) -> Message,
    ) -> Result<T, NoAnswer> {
        match self.actor.call(message, Some(CALL_SECONDS_MAX)).await {
            Ok(CallResult::Success(answer)) => Ok(answer),
            Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => Err(NoAnswer),
        }
    }
}
