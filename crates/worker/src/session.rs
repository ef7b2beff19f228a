//! The session with the head: whole reports up, whole assignments down.
//!
//! When the head is away the worker keeps everything running and dials again for ever. Not here:
//! what an assignment changes (`host`), and when the worker ends (`run`).

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_process::access::{self, Credentials};
use mobula_process::admin::Readiness;
use mobula_process::net::Addr;
use mobula_process::repeats::Repeats;
use mobula_proto::limits::MESSAGE_BYTES_MAX;
use mobula_proto::v1::cluster_service_client::ClusterServiceClient;
use mobula_proto::v1::{WorkerAssignment, WorkerReport};
use ractor::ActorRef;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::assignment::Order;
use crate::backoff::Backoff;
use crate::board::Board;
use crate::host::HostMsg;
use crate::report::{Identity, ended, report};

/// The heartbeat: counts that change all the time are this old at most.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// A head that accepts the connection has to open the session within this time.
const SESSION_OPEN_WAIT_MAX: Duration = Duration::from_secs(5);

/// Reports waiting to be sent: one, because the next one says everything anyway.
const REPORTS_QUEUED_MAX: usize = 1;

pub(crate) struct Session {
    pub heads: Vec<Addr>,
    /// What to show them.
    pub credentials: Credentials,
    /// Told when a head took the worker.
    pub readiness: Readiness,
    pub identity: Identity,
    pub board: Arc<Board>,
    pub host: ActorRef<HostMsg>,
    /// The worker was told to end.
    pub draining: watch::Receiver<bool>,
    /// Whether a head is there.
    pub connected: watch::Sender<bool>,
    /// Fired when the head says that the worker shall end.
    pub retire: CancellationToken,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Something that the host was asked: which replicas it has forgotten then.
type Asking = Pin<Box<dyn Future<Output = Result<Vec<String>, Failure>> + Send>>;

async fn answered(asking: &mut Option<Asking>) -> Result<Vec<String>, Failure> {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

impl Session {
    /// Keeps a session with whichever head takes it, until the task is dropped.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut repeats = Repeats::default();
        let mut number = 0;
        loop {
            for addr in self.heads.clone() {
                number += 1;
                let ended = self.attend(&addr, number).await;
                if self.connected.send_replace(false) {
                    backoff.succeeded();
                    repeats.forget(&addr.to_string());
                }
                let reason = match ended {
                    Ok(()) => {
                        tracing::info!(head = %addr, "the head ended the session");
                        continue;
                    }
                    Err(error) => error.to_string(),
                };
                if repeats.is_news(&addr.to_string(), &reason, Instant::now()) {
                    tracing::warn!(head = %addr, reason, "no session with the head, dialling again");
                }
            }
            tokio::time::sleep(backoff.failed(fastrand::f64())).await;
        }
    }

    /// One session, from dialling to its end.
    async fn attend(&mut self, addr: &Addr, number: u64) -> Result<(), Failure> {
        let channel = self.credentials.connect(addr).await?;
        let mut client =
            ClusterServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (reports, queue) = mpsc::channel(REPORTS_QUEUED_MAX);
        // The head may want to see who comes before it opens.
        reports.send(self.report()).await?;
        let opened = client.worker_session(ReceiverStream::new(queue));
        let assignments = tokio::time::timeout(SESSION_OPEN_WAIT_MAX, opened)
            .await?
            .map_err(|status| access::reason(&status))?
            .into_inner();
        tracing::info!(head = %addr, "session with the head");
        self.readiness.set_ready();
        self.connected.send_replace(true);
        self.converse(number, reports, assignments).await
    }

    async fn converse(
        &mut self,
        number: u64,
        reports: mpsc::Sender<WorkerReport>,
        mut assignments: Streaming<WorkerAssignment>,
    ) -> Result<(), Failure> {
        let mut changes = self.board.changes();
        let mut draining = self.draining.clone();
        let mut heartbeat = tokio::time::interval(REPORT_INTERVAL);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = true;
        // What the host is asked, one thing at a time: it shares its thread with the code of the
        // replicas, and a report is due even while that blocks.
        let mut asking: Option<Asking> = None;
        // Replicas of which the head has heard that they ended.
        let mut told: Vec<String> = Vec::new();
        loop {
            if asking.is_none() && !told.is_empty() {
                asking = Some(self.forget(told.clone()));
            }
            tokio::select! {
                forgotten = answered(&mut asking) => {
                    let forgotten = forgotten?;
                    told.retain(|id| !forgotten.contains(id));
                    asking = None;
                }
                assignment = assignments.message(), if asking.is_none() => match assignment? {
                    Some(assignment) => asking = Some(self.apply(number, assignment)),
                    None => return Ok(()),
                },
                room = reports.reserve(), if due => {
                    let room = room?;
                    due = false;
                    changes.borrow_and_update();
                    let mut report = self.report();
                    report.replicas.retain(|replica| !told.contains(&replica.replica_id));
                    told.extend(ended(&report));
                    room.send(report);
                }
                changed = changes.changed() => { changed?; due = true; }
                changed = draining.changed() => { changed?; due = true; }
                _ = heartbeat.tick() => due = true,
            }
        }
    }

    fn apply(&self, session: u64, assignment: WorkerAssignment) -> Asking {
        let order = Order {
            session,
            version: assignment.version,
        };
        let (host, retire) = (self.host.clone(), self.retire.clone());
        Box::pin(async move {
            let is_retired = assignment.retire;
            ractor::call!(host, |reply| HostMsg::Apply(order, assignment, reply))?;
            if is_retired {
                retire.cancel();
            }
            Ok(Vec::new())
        })
    }

    fn forget(&self, ended: Vec<String>) -> Asking {
        let host = self.host.clone();
        Box::pin(async move {
            let ids = ended.clone();
            ractor::call!(host, |reply| HostMsg::Forget(ids, reply))?;
            Ok(ended)
        })
    }

    fn report(&self) -> WorkerReport {
        report(
            &self.identity,
            &self.board.replicas(),
            self.board.applied_version(),
            *self.draining.borrow(),
        )
    }
}
