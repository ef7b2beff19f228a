//! What the controller is told and asked.

use mobula_proto::v1;
use mobula_store::StoreError;
use ractor::RpcReplyPort;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::watch;

use crate::documents::StoredConfig;
use crate::history::{End, History};
use crate::overview::{Overview, Replicas};
use crate::status::ApiType;
use crate::world::observed::{Router, Worker};
use crate::world::spec::DeploySpec;
use crate::world::supply::Supply;
use crate::world::{DeploymentId, RouterId, WorkerId};

/// A session's number; a later one of the same process supersedes it.
pub type SessionNumber = u64;

/// What the controller is told and asked. Everything but ticks and ends of sessions is asked
/// with a reply, and who asks waits for it, so the mailbox is as long as there are askers.
pub enum Message {
    /// Make it durable, then true.
    Deploy {
        proposal: Box<Proposal>,
        reply: RpcReplyPort<Result<Deployed, DeployError>>,
    },
    /// The newest revision, and the config of the one that is asked for or of the current one.
    Config {
        revision: Option<u64>,
        reply: RpcReplyPort<Result<Found, StoreError>>,
    },
    /// What was accepted, and what became of it.
    History { reply: RpcReplyPort<History> },
    /// What the config would do.
    Preview {
        spec: Box<DeploySpec>,
        reply: RpcReplyPort<Value>,
    },
    /// Delete everything.
    DeleteAll {
        reply: RpcReplyPort<Result<(), StoreError>>,
    },
    /// Set a count.
    Scale {
        deployment: DeploymentId,
        target: u32,
        reply: RpcReplyPort<Result<(), ScaleError>>,
    },
    /// The status document.
    Status {
        filter: Option<ApiType>,
        reply: RpcReplyPort<Value>,
    },
    /// The state in the Prometheus text format, and where the workers are.
    /// What the dashboard shows.
    Overview { reply: RpcReplyPort<Box<Overview>> },
    /// The replicas of a deployment; None: there is no such deployment.
    Replicas {
        deployment: DeploymentId,
        reply: RpcReplyPort<Option<Replicas>>,
    },
    Scrape {
        reply: RpcReplyPort<(String, Vec<String>)>,
    },
    /// Whether the stored state is loaded and everybody of before has reported.
    Ready { reply: RpcReplyPort<bool> },
    /// A worker's report; the reply is its assignment, or nothing if the session is old.
    WorkerReported {
        session: SessionNumber,
        worker: Box<Worker>,
        reply: RpcReplyPort<Option<watch::Receiver<v1::WorkerAssignment>>>,
    },
    /// The session of a worker ended.
    WorkerGone {
        session: SessionNumber,
        worker: WorkerId,
    },
    /// The process of a worker ended.
    WorkerExited { pid: u32, how: String },
    /// What the provisioner says now.
    Supplied(Supply),
    /// A pod does not exist any more, or everything in it has ended.
    PodGone(String),
    /// A router's report; false if the session is old.
    RouterReported {
        session: SessionNumber,
        router: Box<Router>,
        reply: RpcReplyPort<bool>,
    },
    /// The session of a router ended.
    RouterGone {
        session: SessionNumber,
        router: RouterId,
    },
    /// Time passed; ticks of an older number do not count.
    Tick(u64),
}

/// A config that shall be deployed.
#[derive(Clone, Debug)]
pub struct Proposal {
    pub config: StoredConfig,
    pub spec: DeploySpec,
    /// For the history.
    pub reason: String,
    /// What becomes of the current revision.
    pub end: End,
    /// The newest revision that it was made from; None: whatever that is.
    pub expected: Option<u64>,
}

/// A config that counts now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployed {
    pub revision: u64,
    /// What is worth a warning.
    pub warnings: Vec<String>,
}

/// A config of the history.
#[derive(Clone, Debug)]
pub struct Found {
    /// The newest revision there is.
    pub version: u64,
    /// None: there is none, or it is not kept any more.
    pub config: Option<StoredConfig>,
}

/// Why a config does not count.
#[derive(Debug, Error)]
pub enum DeployError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the newest revision is {newest}, not {expected}")]
    Conflict { expected: u64, newest: u64 },
}

/// Why a count was not set.
#[derive(Debug, Error)]
pub enum ScaleError {
    #[error("there is no such application or deployment")]
    NotFound,
    #[error("the application does not allow it")]
    NotEnabled,
    #[error("the deployment is being deleted")]
    Deleted,
    #[error(transparent)]
    Store(#[from] StoreError),
}
