//! What the controller is told and asked.

use mobula_proto::v1;
use mobula_store::StoreError;
use ractor::RpcReplyPort;
use serde_json::Value;
use tokio::sync::watch;

use crate::documents::StoredConfig;
use crate::status::ApiType;
use crate::world::observed::{Router, Worker};
use crate::world::spec::DeploySpec;
use crate::world::{DeploymentId, RouterId, WorkerId};

/// A session's number; a later one of the same process supersedes it.
pub type SessionNumber = u64;

/// What the controller is told and asked. Everything but ticks and ends of sessions is asked
/// with a reply, and who asks waits for it, so the mailbox is as long as there are askers.
pub enum Message {
    /// Make it durable, then true. The reply holds what is worth a warning.
    Deploy {
        config: Box<StoredConfig>,
        spec: Box<DeploySpec>,
        reply: RpcReplyPort<Result<Vec<String>, StoreError>>,
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

/// Why a count was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleError {
    NotFound,
    NotEnabled,
    Deleted,
}
