//! The service that workers and routers dial: reports in, assignments and tables out.
//!
//! A session is a task that hands one report after the other to the controller and waits for
//! each to be taken, so a peer that reports too fast is slowed down by its own stream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::Stream;
use mobula_proto::encoded::EncodedTable;
use mobula_proto::head::cluster_service_server::{ClusterService, ClusterServiceServer};
use mobula_proto::limits::MESSAGE_BYTES_MAX;
use mobula_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use crate::handle::ControllerHandle;
use crate::message::{Message, SessionNumber};
use crate::wire;

/// Peers report every second; one that misses this many is away.
pub const SESSION_SILENT_MAX: Duration = Duration::from_secs(5);

/// Workers and routers together. Each costs a task and a stream.
pub const SESSIONS_MAX: usize = 2_000;

/// Whole states only: a newer one supersedes what waits, so hardly anything waits.
const OUTGOING_MAX: usize = 2;

/// A report of a large worker (1000 replicas with messages) stays below it.
const REPORT_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// The service.
pub struct Sessions {
    controller: ControllerHandle,
    numbers: AtomicU64,
    permits: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// One connected peer.
struct Session<In, Out> {
    number: SessionNumber,
    controller: ControllerHandle,
    reports: Streaming<In>,
    out: mpsc::Sender<Result<Out, Status>>,
    shutdown: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

// === impl Sessions ===

impl Sessions {
    /// The service, to be added to a server.
    pub fn service(
        controller: ControllerHandle,
        shutdown: CancellationToken,
    ) -> ClusterServiceServer<Sessions> {
        let sessions = Sessions {
            controller,
            numbers: AtomicU64::new(0),
            permits: Arc::new(Semaphore::new(SESSIONS_MAX)),
            shutdown,
        };
        ClusterServiceServer::new(sessions)
            .max_decoding_message_size(REPORT_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
    }

    fn open<In, Out>(
        &self,
        reports: Streaming<In>,
        out: mpsc::Sender<Result<Out, Status>>,
    ) -> Result<Session<In, Out>, Status> {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("the head has {SESSIONS_MAX} sessions already"))
        })?;
        Ok(Session {
            number: self.numbers.fetch_add(1, Ordering::Relaxed) + 1,
            controller: self.controller.clone(),
            reports,
            out,
            shutdown: self.shutdown.clone(),
            _permit: permit,
        })
    }
}

#[tonic::async_trait]
impl ClusterService for Sessions {
    type WorkerSessionStream = Outgoing<v1::WorkerAssignment>;
    type RouterSessionStream = Outgoing<EncodedTable>;

    async fn worker_session(
        &self,
        request: Request<Streaming<v1::WorkerReport>>,
    ) -> Result<Response<Self::WorkerSessionStream>, Status> {
        let (out, outgoing) = mpsc::channel(OUTGOING_MAX);
        let session = self.open(request.into_inner(), out)?;
        tokio::spawn(session.serve_worker());
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn router_session(
        &self,
        request: Request<Streaming<v1::RouterReport>>,
    ) -> Result<Response<Self::RouterSessionStream>, Status> {
        let (out, outgoing) = mpsc::channel(OUTGOING_MAX);
        let session = self.open(request.into_inner(), out)?;
        tokio::spawn(session.serve_router());
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

// === impl Session ===

/// What is sent whole, with a version above 0 once it exists.
trait Versioned: Clone {
    fn version(&self) -> u64;
}

impl Versioned for v1::WorkerAssignment {
    fn version(&self) -> u64 {
        self.version
    }
}

impl Versioned for EncodedTable {
    fn version(&self) -> u64 {
        EncodedTable::version(self)
    }
}

impl<In, Out: Versioned> Session<In, Out> {
    /// The next report, or why there is none any more.
    async fn next_report(reports: &mut Streaming<In>) -> Result<In, Status> {
        match tokio::time::timeout(SESSION_SILENT_MAX, reports.message()).await {
            Ok(Ok(Some(report))) => Ok(report),
            Ok(Ok(None)) => Err(Status::ok("the peer ended the session")),
            Ok(Err(status)) => Err(status),
            Err(_) => Err(Status::deadline_exceeded(
                "no report within the time allowed",
            )),
        }
    }

    /// Sends the newest state on every change, until the peer is gone.
    async fn forward(mut newest: watch::Receiver<Out>, out: mpsc::Sender<Result<Out, Status>>) {
        newest.mark_changed();
        while newest.changed().await.is_ok() {
            let value = newest.borrow_and_update().clone();
            // Nothing published yet is not the same as an empty table.
            if value.version() == 0 {
                continue;
            }
            if out.send(Ok(value)).await.is_err() {
                return;
            }
        }
    }
}

impl Session<v1::WorkerReport, v1::WorkerAssignment> {
    async fn serve_worker(mut self) {
        let mut id = String::new();
        let mut forwarding = None;
        let end = loop {
            let report = tokio::select! {
                report = Self::next_report(&mut self.reports) => report,
                () = self.shutdown.cancelled() => Err(Status::unavailable("the head is going away")),
                () = self.out.closed() => Err(Status::ok("the peer ended the session")),
            };
            let report = match report {
                Ok(report) => report,
                Err(end) => break end,
            };
            if report.worker_id.is_empty() || (!id.is_empty() && id != report.worker_id) {
                break Status::invalid_argument("worker_id: one session is of one worker");
            }
            id.clone_from(&report.worker_id);
            let Some(worker) = wire::worker(report) else {
                break Status::invalid_argument("replicas.state: not a state that exists");
            };
            match self.controller.worker_reported(self.number, worker).await {
                Ok(Some(newest)) => {
                    forwarding.get_or_insert_with(|| {
                        tokio::spawn(Self::forward(newest, self.out.clone()))
                    });
                }
                Ok(None) => break Status::aborted("a newer session of this worker took over"),
                Err(error) => break Status::unavailable(error.to_string()),
            }
        };
        if let Some(forwarding) = forwarding {
            forwarding.abort();
        }
        debug!(worker = id, reason = %end, "a worker session ends");
        // Nobody may be listening any more.
        let _ = self.out.try_send(Err(end));
        self.controller.tell(Message::WorkerGone {
            session: self.number,
            worker: id,
        });
    }
}

impl Session<v1::RouterReport, EncodedTable> {
    async fn serve_router(mut self) {
        let mut id = String::new();
        let mut forwarding = None;
        let end = loop {
            let report = tokio::select! {
                report = Self::next_report(&mut self.reports) => report,
                () = self.shutdown.cancelled() => Err(Status::unavailable("the head is going away")),
                () = self.out.closed() => Err(Status::ok("the peer ended the session")),
            };
            let report = match report {
                Ok(report) => report,
                Err(end) => break end,
            };
            if report.router_id.is_empty() || (!id.is_empty() && id != report.router_id) {
                break Status::invalid_argument("router_id: one session is of one router");
            }
            id.clone_from(&report.router_id);
            match self
                .controller
                .router_reported(self.number, wire::router(report))
                .await
            {
                Ok(true) => {
                    let newest = self.controller.table();
                    forwarding.get_or_insert_with(|| {
                        tokio::spawn(Self::forward(newest, self.out.clone()))
                    });
                }
                Ok(false) => break Status::aborted("a newer session of this router took over"),
                Err(error) => break Status::unavailable(error.to_string()),
            }
        };
        if let Some(forwarding) = forwarding {
            forwarding.abort();
        }
        debug!(router = id, reason = %end, "a router session ends");
        let _ = self.out.try_send(Err(end));
        self.controller.tell(Message::RouterGone {
            session: self.number,
            router: id,
        });
    }
}
